"""What those who know tags write wrongly in a policy, or in a question about one: said in their words."""

from __future__ import annotations

import pytest

from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.asking import operation
from cofferdam.policy.problems import Problem
from cofferdam.protocols.enip.dialect import ENIP
from cofferdam.protocols.modbus.dialect import MODBUS
from tests.policy.plant import NOW

GOOD = """\
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  packer:
    zone: plant
    address: 10.20.0.30
    protocol: enip
    route: backplane 0
    listen: "127.0.0.1:44818"
    points:
      pump: {at: tag Pump, type: dint, min: 0, max: 1500, max_step: 100, writes_per_minute: 6}
      counts: {at: "tag Counts[0-99]", type: dint}
      alarm: {at: tag Status.3, type: bool}
principals:
  scada: {zone: office, addresses: 10.1.0.20}
conduits:
  line:
    from: office
    to: plant
    broker: enip
    owner: production
    reason: a test
    expires: 2099-06-30
    allow:
      - {who: scada, asset: packer, read: [pump, counts], write: [pump, alarm]}
"""
MISTAKES = [
    # what is replaced, by what; what was found, what is expected, the nearest
    ('"tag Counts[0-99]"', "tag Counts[0-99]", 'a bracket in "tag Counts"', "in quotes", '"tag Counts[0-99]"'),
    ('"tag Counts[0-99]"', "tag Counts[1,2].Speed", "a bracket", "in quotes", '"tag Counts[1,2].Speed"'),
    ("at: tag Pump,", "at: Pump,", '"Pump"', "a tag", "tag Pump"),
    ("at: tag Pump,", "at: Tag Pump,", '"Tag Pump"', "a tag", "tag Pump"),
    ("at: tag Pump,", 'at: "tag: Pump[0-3]",', '"tag: Pump', "a tag", "tag Pump[0-3]"),
    ("tag Pump, type: dint", "tag Pump, type: int32", '"int32"', "one of bool", "dint"),
    ("tag Pump, type: dint", "tag Pump, type: float", '"float"', "one of bool", "real"),
    ("Status.3, type: bool", "Status.3, type: dint", "in a bit of tag status", "bool", ""),
    ("at: tag Status.3, type: bool", "at: tag PUMP, type: dint", "which the point pump is already", "one point", ""),
    ("read: [pump", "read: [alarm", "alarm, which is a part of", 'a point at "tag status"', ""),
    ("route: backplane 0", "slot: 0", 'the field "slot"', "one of zone", "route"),
]


@pytest.mark.parametrize(("old", "new", "found", "expected", "near"), MISTAKES)
def test_a_mistake_is_said_in_the_words_of_those_who_know_tags(
    old: str, new: str, found: str, expected: str, near: str
) -> None:
    assert old in GOOD
    with pytest.raises(PolicyError) as refused:
        loads(GOOD.replace(old, new, 1))
    first = refused.value.problems[0]
    assert isinstance(first, Problem)
    assert found in first.found and expected in first.expected
    assert first.near == near


def test_types_may_be_written_as_the_controllers_program_has_them() -> None:
    one, other = (
        compile_policy(loads(text), now_ns=NOW) for text in (GOOD, GOOD.replace("type: dint", "type: DINT"))
    )  # fmt: skip
    assert one.hash == other.hash


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("read Level", "did you mean tag Level"),
        ("read Countss[3]", "did you mean"),
        ("write pump", "write takes other words behind it"),
        ("reset", "it starts with reset"),
        ("raed pump", "did you mean read"),
    ],
)
def test_a_question_about_tags_is_answered_with_the_ways_to_ask_of_tags(asked: str, said: str) -> None:
    asset = compile_policy(loads(GOOD), now_ns=NOW).assets["packer"]
    with pytest.raises(CofferdamError) as refused:
        operation(asked, asset, ENIP)
    assert said in str(refused.value)
    forms = refused.value.hint
    assert "read tag Pump.Speed" in forms and "stream STREAM" in forms
    assert not any(word in forms for word in ("holding", "subscribe", "history", "browse", "43/14"))
    with pytest.raises(CofferdamError) as of_cells:
        operation("reset", asset, MODBUS)
    assert "read holding 100 2" in of_cells.value.hint and "stream" not in of_cells.value.hint
