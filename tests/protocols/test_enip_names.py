"""EtherNet/IP: limits are not gone round by a second name of what they are of."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.errors import PolicyError
from cofferdam.model import Allow, Deny, Fault, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.enip import messages as m
from cofferdam.values import Int32
from tests.policy.plant import NOW
from tests.protocols.enip import ENIP

POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  one:
    zone: plant
    address: 10.0.0.9
    protocol: enip
    listen: "10.9.9.9:44818"
    points:
      speed: {at: "tag Motors[0].Speed", type: dint, min: 0, max: 1500}
      other: {at: "tag Motors[1].Speed", type: dint, min: 0, max: 1500}
      cell: {at: "tag Matrix[0,1]", type: dint, min: 0, max: 1500}
      bit: {at: "tag Word.3", type: bool, writes_per_minute: 1}
POINTS
    streams:
      drive: {at: io Drive, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}
STREAMS
principals: {scada: {zone: office, addresses: [10.1.0.1]}}
conduits:
  road:
    {from: office, to: plant, broker: enip, owner: me, reason: a test, expires: 2027-06-30,
     allow: [{who: scada, asset: one, stream: drive, write_registers: ["tag Motors*", "tag Matrix*", "tag Word*"]}]}
"""


def compiled(points: str = "", streams: str = "") -> Any:
    return compile_policy(loads(POLICY.replace("POINTS", points).replace("STREAMS", streams)), now_ns=NOW)


def judged(request: Any) -> Allow | Deny:
    ENIP.check(request)
    flow = compiled().flow("enip", "10.1.0.1", "one")
    assert isinstance(flow, Flow)
    return flow.decide(ENIP.operation(request), NOW)


def write(name: str, value: int = 99_999) -> m.WriteTag:
    return m.WriteTag(Item("tag", name), 0xC4, 0, Int32((value,)))


@pytest.mark.parametrize("name", ["motors.speed", "motors[0].speed", "motors[0,0].speed", "matrix[0,0,1]"])
def test_an_index_of_the_first_element_is_no_other_name(name: str) -> None:
    found = judged(write(name))
    assert isinstance(found, Deny) and found.fault is Fault.VALUE, name


@pytest.mark.parametrize("name", ["word[0].3", "motors.speed.3", "motors[0].speed.3"])
def test_nor_is_one_before_a_bit(name: str) -> None:
    assert isinstance(judged(m.WriteBit(Item("tag", name), 4, True)), Deny), name


@pytest.mark.parametrize("name", ["motors.ratio", "motors[2].speed", "matrix[1,0]", "motors[10].speed"])
def test_what_is_another_element_has_no_limit(name: str) -> None:
    assert isinstance(judged(write(name)), Allow)


@pytest.mark.parametrize("name", ["motors[0].speed", "motors[1].speed", "matrix[0,1]"])
def test_by_its_own_name_it_is_written_within_its_limits(name: str) -> None:
    assert isinstance(judged(write(name, 1500)), Allow)


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ('again: {at: io Again, form: "outputs 0150 of 4 bytes, inputs 9 of 8 bytes"}', "outputs 150, which drive has"),
        ('again: {at: io Again, form: "outputs 152 of 4 bytes, inputs 100 of 8 bytes"}', ""),
        ('again: {at: io Again, form: "outputs 150 of 0 bytes, inputs 100 of 8 bytes, no run"}', ""),
    ],
)  # fmt: skip
def test_outputs_have_one_stream_with_their_limits(streams: str, expected: str) -> None:
    if not expected:
        compiled(streams=f"      {streams}")
        return
    with pytest.raises(PolicyError) as caught:
        compiled(streams=f"      {streams}")
    assert expected in "".join(map(str, caught.value.problems))


def test_a_limit_that_would_not_hold_in_a_stream_is_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        compiled(points="      reference: {at: io Drive.0, type: dint, max: 9, writes_per_minute: 3}")
    assert "max_step or max_rate" in "".join(map(str, caught.value.problems))
