"""A policy for a device that speaks the toy protocol, to vary in tests."""

from __future__ import annotations

from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import Loaded, loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.proxy import ProxyTerms
from cofferdam.protocols.registry import PROTOCOLS
from tests.policy.plant import NOW
from tests.protocols.toy.dialect import TOY
from tests.protocols.toy.operations import Toy

TOYS = {**PROTOCOLS, "toy": Toy()}
"""The product's protocols and this one."""
TOY_KINDS = {**KINDS, "toy": ProxyTerms(TOY)}
"""The product's brokers and one for this protocol."""

BASE = """\
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  line:
    zone: plant
    address: 127.0.0.1
    protocol: toy
    listen: 127.0.0.1:7008
    points:
      speed: {at: tag Pump.Speed, type: int, unit: rpm, min: 0, max: 1500, max_step: 100, writes_per_minute: 6}
      level: {at: tag Pump.Level, type: real, min: -1.5, max: 0.1, fastest: 100 ms}
      pump: {at: tag Pump, type: bytes}
      recipe: {at: tag Recipe, type: text, max_length: 8}
      counts: {at: "tag Counts[0-9]", type: int, min: 0, max: 99}
      spare: {at: "tag Counts[10-19]", type: int}
      table: {at: tag Table, type: small, elements: 3, max: 5}
      status: {at: tag Status, type: int, min: 0}
      alarm: {at: tag Status.3, type: flag}
      run: {at: tag Run, type: flag, min: 1}
      ratio: {at: tag Ratio, type: double}
      ticks: {at: tag Ticks, type: big, max_step: 5}
      setpoint: {at: io Drive.Setpoint, type: real, min: 0, max: 50, max_step: 10}
    methods:
      reset: {at: method Line.Reset, writes_per_minute: 2}
      mix:
        at: method Line.Mix
        arguments:
          - {name: seconds, type: int, unit: s, min: 1, max: 60}
          - {name: name, type: text, max_length: 4}
    streams:
      drive: {at: io Drive, fastest: 10 ms}
principals:
  mes: {zone: office, addresses: [10.1.0.20, 127.0.0.1]}
  guest: {zone: office, addresses: 10.1.0.66}
conduits:
"""

RULES = (
    "{who: mes, asset: line, read: all, write: all, subscribe: [speed, level], call: [reset, mix], stream: drive}",
)

CONDUIT = """\
  {name}:
    from: office
    to: plant
    broker: toy
    owner: someone
    reason: a test
"""


def toy_conduit(*rules: str, name: str = "c", extra: str = "") -> str:
    """A conduit with rules in flow style; `extra` are more fields, one a line."""
    lines = "".join(f"    {line}\n" for line in extra.splitlines())
    return CONDUIT.format(name=name) + lines + "    allow:\n" + "".join(f"      - {rule}\n" for rule in rules or RULES)


def toy_loaded(conduits: str = "", base: str = BASE) -> Loaded:
    return loads(base + (conduits or toy_conduit()), kinds=TOY_KINDS)


def toy_policy(conduits: str = "", base: str = BASE, now_ns: int = NOW) -> CompiledPolicy:
    return compile_policy(toy_loaded(conduits, base), now_ns=now_ns)
