"""EtherNet/IP: limits are not gone round by a second name of what they are of; lists, and paths of assemblies."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest

from cofferdam.errors import PolicyError
from cofferdam.model import Allow, Deny, Fault, Item, Stream
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests
from cofferdam.values import Int32
from tests.policy.plant import NOW
from tests.protocols.enip import ASSET, ENIP, cip_of, client, rr, server

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


def test_a_device_without_a_configuration_is_given_no_number_of_one() -> None:
    for form, path in (("", b""), (", config 0", b"\x24\0"), (", config 151", b"\x24\x97")):
        said = f"outputs 150 of 4 bytes, inputs 100 of 8 bytes{form}"
        asset = msgspec.structs.replace(ASSET, streams=(Stream("drive", Item("io", "drive"), 0, said),))
        _, sent = client(asset).send(m.OpenIo(Item("io", "drive"), 10_000, 10_000, 0, 1))
        assert cip_of(sent).endswith(b"\x20\x04" + path + b"\x2c\x96\x2c\x64"), said
        for asked in (b"", b"\x24\0", b"\x24\x97"):
            machine = server(asset)
            body = struct.pack("<BBIIHHIB3xIHIHB", 10, 14, 0, 5, 1, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x480A, 1)
            where = b"\x20\x04" + asked + b"\x2c\x96\x2c\x64"
            machine.receive_data(
                rr(requests.made(0x54, paths.of_object(6, 1), body + bytes([len(where) // 2]) + where))
            )
            event: Any = machine.next_event()
            fits = asked == path or (form == "" and asked == b"\x24\0")
            assert isinstance(event.request, m.OpenIo) == fits, (said, asked)


def test_a_list_says_how_large_an_element_is() -> None:
    """libplctag asks for it."""
    machine = server()
    machine.receive_data(rr(requests.made(0x55, paths.of_object(0x6B, 0), struct.pack("<5H", 4, 2, 7, 8, 1))))
    event: Any = machine.next_event()
    symbols = (
        m.Symbol(1, "Pump", 0xC4, (0, 0, 0)), m.Symbol(2, "Bits", 0x20D3, (4, 0, 0)),
        m.Symbol(3, "On", 0x3C1, (0, 0, 0)), m.Symbol(4, "Motor", 0x8123, (0, 0, 0)),
        m.Symbol(5, "Odd", 0xD0, (0, 0, 0)),
    )  # fmt: skip
    answer = cip_of(machine.send(event.token, m.TagList(symbols)))
    at, sizes = 4, []
    while at < len(answer):
        sizes.append(int.from_bytes(answer[at + 6 : at + 8], "little"))
        at += 22 + int.from_bytes(answer[at + 20 : at + 22], "little")
    assert sizes == [4, 4, 1, 0, 0]
