"""Captures of I/O connections of EtherNet/IP: what opens one is learned with its assemblies, and the values of each
packet are judged by the policy's limits."""

from __future__ import annotations

import struct

import pytest

from cofferdam.capture.learn import learn
from cofferdam.capture.simulate import Simulation, simulate
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.enip import paths, requests, wire
from tests.capture.maker import MS, T0, Connection, Frame, ethernet, ipv4, pcap
from tests.capture.traffic import filled, stream
from tests.protocols.enip import REGISTER, SESSION

SCANNER, DRIVE = "10.1.0.20", "10.20.0.17"
TO_DEVICE, TO_SCANNER = 0x1111_0001, 0x2222_0001
ASSEMBLIES = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"


def rr(cip: bytes, context: bytes) -> bytes:
    return wire.frame(wire.SEND_RR, SESSION, context, wire.packet(((wire.NULL_ADDRESS, b""), (wire.UNCONNECTED, cip))))


def packet(out: bool, number: int, sequence: int, data: bytes, time_ns: int) -> Frame:
    body = wire.listed(((0x8002, struct.pack("<II", number, sequence)), (0xB1, data)))
    ends = (SCANNER, DRIVE) if out else (DRIVE, SCANNER)
    udp = struct.pack(">HHHH", 2222, 2222, 8 + len(body), 0) + body
    return Frame(time_ns, ethernet(ipv4(*ends, udp, protocol=17)))


def capture(references: list[int], *, opened: bool = True) -> bytes:
    """A scanner opens a drive at 10 ms, tells it these references, hears as many packets, and closes it."""
    connection = Connection(server=(DRIVE, 44818)).open()
    connection.ask(REGISTER)
    connection.answer(wire.frame(wire.REGISTER, SESSION, b"12345678", b"\1\0\0\0"))
    if opened:
        head = (10, 14, 0, TO_SCANNER, 1, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x280A, 1, len(ASSEMBLIES) // 2)
        cip = requests.made(0x54, paths.of_object(6, 1), struct.pack("<BBIIHHIB3xIHIHBB", *head) + ASSEMBLIES)
        connection.ask(rr(cip, b"opening."))
        body = struct.pack("<IIHHIIIBx", TO_DEVICE, TO_SCANNER, 1, 77, 4711, 10_000, 10_000, 0)
        connection.answer(rr(b"\xd4\0\0\0" + body, b"opening."))
    frames, at = connection.frames, connection.time_ns
    for number, reference in enumerate(references, 1):
        at += 10 * MS
        frames.append(packet(True, TO_DEVICE, number, struct.pack("<HIi", number, 1, reference), at))
        frames.append(packet(False, TO_SCANNER, number, struct.pack("<H8s", number, b"12345678"), at + MS))
    connection.time_ns = at + 2 * MS
    if opened:
        close = struct.pack("<BBHHIBx", 10, 14, 1, 77, 4711, 0)
        connection.ask(rr(requests.made(0x4E, paths.of_object(6, 1), close), b"closing."))
    return pcap(connection.close().frames, nano=True)


POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  drive:
    zone: plant
    address: 10.20.0.17
    protocol: enip
    points: {reference: {at: io Drive.0, type: dint, unit: rpm, min: 0, max: 1500}}
    streams:
      drive: {at: io Drive, fastest: FASTEST, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}
principals: {scanner: {zone: office, addresses: [10.1.0.20]}}
conduits:
  road: {from: office, to: plant, broker: enip, owner: me, reason: a test, allow: [{who: scanner, asset: drive, VERB}]}
"""


def simulated(references: list[int], *, verb: str = "stream: drive", fastest: str = "10 ms") -> Simulation:
    policy = compile_policy(loads(POLICY.replace("FASTEST", fastest).replace("VERB", verb)), now_ns=T0)
    return simulate(policy, stream(capture(references)), "io.pcap")


def test_what_opens_a_stream_is_learned_with_its_assemblies() -> None:
    data = capture([100, 200, 300])
    learned = learn(stream(data), "io.pcap")
    assert "streams:" in learned.text
    form = 'form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"'
    assert f"{{at: 'io o150x4_i100x8_c151', fastest: 10000 us, {form}}}" in learned.text
    assert (learned.requests, learned.malformed, learned.frames) == (1, 0, 6)
    # The policy that was learned allows it, packet by packet.
    report = simulate(compile_policy(loads(filled(learned.text)), now_ns=T0), stream(data), "io.pcap")
    assert (report.allowed, report.refused, report.malformed) == (1, 0, 0)
    assert report.frames == {"allowed": 3, "to the client": 3}


def test_a_stream_without_its_opening_is_told() -> None:
    learned = learn(stream(capture([1, 2, 3], opened=False)), "io.pcap")
    assert "6 packets are of streams whose opening is not in the capture" in learned.text
    assert "10.1.0.20 to 10.20.0.17, connection 0x11110001: 3 of 10 bytes, every 10.0 ms" in learned.text


def test_the_values_of_packets_are_judged() -> None:
    report = simulated([100, 1500, 1501, 1600])
    assert (report.allowed, report.frames) == (1, {"allowed": 2, "to the client": 4, "refused": 2})
    [refused] = [group for flow in report.flows for group in flow.groups if group.verdict == "refused"]
    assert refused.count == 2 and "reference = 1501 rpm is asked; 0 to 1500 rpm is allowed" in refused.detail


@pytest.mark.parametrize(
    ("verb", "fastest", "why"),
    [("write_functions: [5]", "10 ms", ""), ("stream: drive", "20 ms", "20")],
)
def test_what_may_not_be_opened_has_no_packet_allowed(verb: str, fastest: str, why: str) -> None:
    report = simulated([100], verb=verb, fastest=fastest)
    assert report.allowed == 0 and report.frames == {"refused": 1, "to the client": 1}
    assert all(why in group.detail for flow in report.flows for group in flow.groups)


def test_what_nobody_serves_is_named_and_is_not_called_malformed() -> None:
    connection = Connection(server=(DRIVE, 44818)).open()
    connection.ask(REGISTER)
    connection.answer(wire.frame(wire.REGISTER, SESSION, b"12345678", b"\1\0\0\0"))
    for _ in range(3):  # PCCC: execute, with a requestor's id
        connection.ask(rr(b"\x4b\x02\x20\x67\x24\x01\x07\x4d\0\x12\x34\x56\x78\x0f\0\1\0\xa2\2\7\x89\0\0", b"slc 5/05"))
    learned = learn(stream(pcap(connection.close().frames)), "here.pcap")
    assert (learned.malformed, learned.others) == (0, ("3 requests of PCCC in a service 4B, which is not served yet",))


def test_a_stop_that_is_learned_is_called_one() -> None:
    connection = Connection(server=(DRIVE, 44818)).open()
    connection.ask(REGISTER)
    connection.answer(wire.frame(wire.REGISTER, SESSION, b"12345678", b"\1\0\0\0"))
    connection.ask(rr(requests.made(7, paths.of_object(0x8E, 1), b""), b"stopping"))
    learned = learn(stream(pcap(connection.close().frames)), "here.pcap")
    told = '# "7/142" is stop: it stops, starts or reprograms the device\n        write_functions: ["7/142"]'
    assert told in learned.text
