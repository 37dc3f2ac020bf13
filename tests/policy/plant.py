"""A small policy to vary in tests, and operations to ask of it."""

from __future__ import annotations

from datetime import UTC, datetime

from cofferdam.model import Change, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow, PointState
from cofferdam.policy.table import CompiledPolicy

BASE = """\
site: works
zones:
  office: {side: it}
  plant: {side: ot}
assets:
  plc:
    zone: plant
    address: 10.20.0.17
    protocol: modbus
    unit: 1
    listen: 127.0.0.1:1502
    points:
      flow: {at: holding 100, type: uint32}
      level: {at: input 12, type: float32}
      speed: {at: holding 200, type: uint16, unit: rpm, min: 0, max: 1500, max_step: 100, writes_per_minute: 2}
      torque: {at: holding 202, type: float32, word_order: little, min: -1.5, max: 0.1}
      ramp: {at: holding 204, type: int32, min: -5, max: 5}
      run: {at: coil 0}
      alarm: {at: discrete 3}
      serial: {at: holding 300, type: uint64}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
  ops: {zone: office, addresses: [10.1.5.0/24, "fd00::/64"]}
conduits:
"""

CONDUIT = """\
  {name}:
    from: office
    to: plant
    broker: modbus
    owner: someone
    reason: a test
"""


def ns(text: str) -> int:
    """A UTC time in nanoseconds from ISO 8601 (with offset, or UTC)."""
    when = datetime.fromisoformat(text)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp()) * 10**9


NOW = ns("2026-11-23T09:00:00")


def policy(conduits: str, now_ns: int = NOW) -> CompiledPolicy:
    """BASE with conduits, each "name: line; line" on lines of its own, compiled."""
    return compile_policy(loads(BASE + conduits), now_ns=now_ns)


def conduit(*rules: str, name: str = "c", extra: str = "") -> str:
    """A conduit with rules in flow style; `extra` are more fields, one a line."""
    lines = "".join(f"    {line}\n" for line in extra.splitlines())
    return CONDUIT.format(name=name) + lines + "    allow:\n" + "".join(f"      - {rule}\n" for rule in rules)


def flow(compiled: CompiledPolicy, source: str = "10.1.5.9", asset: str = "plc") -> Flow:
    found = compiled.flow("modbus", source, asset)
    assert isinstance(found, Flow), found
    return found


def remembering(compiled: CompiledPolicy) -> PointState:
    """What a half knows of points where the policy says `known_value_seconds: 5`."""
    return PointState(compiled.assets, 5.0)


def read(space: str, start: int, count: int = 1, unit: int = 1) -> Operation:
    return Operation(3, -1, unit, False, (Span(space, start, count),))


def write(space: str, start: int, *values: int, unit: int = 1) -> Operation:
    return Operation(16, -1, unit, True, (), (Change(space, start, len(values), values),))


def function(code: int, sub: int = -1, *, changing: bool = False) -> Operation:
    return Operation(code, sub, 1, changing)
