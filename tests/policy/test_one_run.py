"""A newcomer's policy with many mistakes: one run names all of them, also names in entries that are wrong otherwise."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads

MISTAKES = {
    "pump house": "pump-house", "OT": "ot", "plnt": "plant", "192.168.1.300": "192.168.1.30", "holdng": "holding",
    "uint61": "uint16", "modbuss": "modbus", "offce": "office", "adresses": "addresses", "plants": "plant",
    "onwer": "owner", "31.12.2037": "2037-12-31", "scda": "scada", "levl": "level", "offic": "office",
    "Europe/Pariss": "Europe/Paris", "plc-c": "plc-b", "writes": "write", "lvl": "level",
}  # fmt: skip
TEXT = """\
site: <pump house>
zones:
  office: {side: it, level: 4}
  plant: {side: <OT>, level: 2}
assets:
  plc-a:
    zone: <plnt>
    address: <192.168.1.300>
    protocol: modbus
    unit: 1
    listen: "10.0.0.1:502"
    points:
      level: {at: holding 0, type: uint16}
      speed: {at: <holdng> 10, type: <uint61>}
  plc-b: {zone: plant, address: 192.168.1.11, protocol: <modbuss>, unit: 1, listen: "10.0.0.1:503",
          points: {level: {at: holding 0, type: uint16}}}
principals:
  scada: {zone: <offce>, addresses: 192.168.50.20}
  erp: {zone: office, <adresses>: 192.168.50.21}
conduits:
  scada-reads: {from: office, to: <plants>, broker: modbus, <onwer>: operations, reason: r, expires: <31.12.2037>,
                allow: [{who: <scda>, asset: plc-a, read: [<levl>]}]}
  erp-writes:
    from: <offic>
    to: plant
    broker: modbus
    owner: o
    reason: r
    window: {days: mon-fri, from: "06:00", to: "18:00", zone: <Europe/Pariss>}
    allow: [{who: erp, asset: <plc-c>, write: [level]}, {who: erp, asset: plc-b, <writes>: [level]},
            {who: erp, asset: plc-b, read: [<lvl>], wrong: 1}]
"""


def test_one_run_names_them_all() -> None:
    with pytest.raises(PolicyError) as raised:
        loads(re.sub("[<>]", "", TEXT))
    said = "\n".join(map(str, raised.value.problems))
    missing = [wrong for wrong in MISTAKES if not re.search(rf"[ \"]{re.escape(wrong)}[\", ]", said)]
    assert missing == [], said
    assert "stand-in" not in said
    places = [str(one).partition(" ")[0] for one in raised.value.problems]
    assert len(places) == len(set(places)), said  # one mistake is one message
    mended = re.sub("<([^>]*)>", lambda found: MISTAKES[found[1]], TEXT).replace(", wrong: 1", "")
    compile_policy(loads(mended), now_ns=time.time_ns())


@given(st.lists(st.sampled_from(sorted(MISTAKES)), max_size=4), st.sampled_from(["{}", "[]", "7", "~", '""', "[{}]"]))
def test_whatever_stands_there_it_is_only_told(left: list[str], odd: str) -> None:
    """Some mended, some of another shape: findings and nothing else."""
    text = re.sub("<([^>]*)>", lambda found: odd if found[1] in left else MISTAKES[found[1]], TEXT)
    try:
        loads(text)
    except PolicyError as error:
        assert error.problems and "stand-in" not in "".join(map(str, error.problems))
