"""What a capture tells of a device's ways: quirks, other protocols, functions that nobody has published, refused
writes; and captures as they come: compressed, with broken times, taken behind a mirror's tunnel."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from collections.abc import Callable

import pytest

from cofferdam.capture.learn import Learned, learn
from cofferdam.capture.simulate import simulate
from cofferdam.protocols.modbus.quirks import crc
from tests.capture.maker import (
    ACK,
    MS,
    RST,
    SYN,
    T0,
    Connection,
    Frame,
    adu,
    ethernet,
    ipv4,
    pcap,
    read_answer,
    read_request,
    tcp,
    write_request,
)
from tests.capture.traffic import filled, policy, stream


def learned(data: bytes) -> Learned:
    return learn(stream(data), "here.pcap")


def remarks(text: str, data: bytes) -> list[str]:
    report = simulate(policy(filled(text)), stream(data), "here.pcap")
    assert report.refused == report.malformed == 0
    return [remark.text for remark in report.remarks]


ODD = [
    ("zero_transaction_id", read_request(7, 10, 2), adu(0, 1, b"\3\4\0\1\0\2")),
    ("wrong_transaction_id", read_request(7, 10, 2), adu(99, 1, b"\3\4\0\1\0\2")),
    ("any_unit", read_request(7, 10, 2), adu(7, 9, b"\3\4\0\1\0\2")),
    ("spare_bytes", read_request(7, 10, 2), adu(7, 1, b"\3\4\0\1\0\2\x5f")),
    ("loose_echo", write_request(7, 10, 2), adu(7, 1, b"\6\0\0\0\2")),
    ("wrong_length", read_request(7, 10, 2), b"\0\7\0\0\0\6\1\3\4\0\1\0\2"),  # one too small
    ("wrong_length", read_request(7, 10, 2), b"\0\7\0\0\0\x0b\1\3\4\0\1\0\2"),  # too large: another comes
    ("wrong_length", write_request(7, 10, 2), b"\0\7\0\0\0\0\1\6\0\x0a\0\2"),
]


@pytest.mark.parametrize(("quirk", "asked", "answer"), ODD)
def test_a_deviation_is_named_learned_and_gone_with_its_quirk(quirk: str, asked: bytes, answer: bytes) -> None:
    connection = Connection().open()
    for _ in range(3):
        connection.ask(asked)
        connection.answer(answer)
    data = pcap(connection.frames)
    text = learned(data).text
    assert f"quirks: [{quirk}]" in text
    assert f"3 of 3 answers fit with the quirk {quirk} alone" in text
    assert "never answered" not in text
    assert remarks(text, data) == []
    [remark] = remarks(text.replace(f"    quirks: [{quirk}]\n", ""), data)
    assert f"quirks: [{quirk}]" in remark


def test_answers_that_no_quirk_explains_are_told() -> None:
    """One register too many: not "never answered"."""
    connection = Connection().open()
    for number in range(4):
        connection.ask(read_request(number, 10, 2))
        connection.answer(read_answer(number, [1, 2, 3]))
    text = learned(pcap(connection.frames)).text
    assert "4 answers fit no request: a deviation that is not found by itself" in text
    assert "never answered" not in text


def visit(at: int, port: int, *, refused: bool = False) -> list[Frame]:
    """One connection, `at` ms after the beginning: a read and its answer, or a SYN that is refused."""
    connection = Connection(client=("10.1.0.20", port), time_ns=T0 + at * MS)
    if refused:
        connection.packet(True, SYN)
        segment = tcp(connection.server, connection.client, 0, connection.client_seq, RST | ACK)
        connection.frames.append(
            Frame(connection.time_ns + MS, ethernet(ipv4(connection.server[0], "10.1.0.20", segment)))
        )
        return connection.frames
    connection.open().ask(read_request(1, 10, 2))
    connection.answer(read_answer(1, [1, 2]))
    return connection.close().frames


@pytest.mark.parametrize(
    ("visits", "delay"),
    [
        ("0 200! 600 800! 1200", "600 ms"),  # ends at 8, is refused at 201, taken at 601; and once more
        ("0 200! 600 1200", ""),  # once: it may have started anew
        ("0 200! 600 800! 1200 1300", ""),  # it was taken sooner, too
        ("0 2! 600 602! 1200", ""),  # while another was there
        ("0 200! 9000 9200! 18000", "390 ms"),  # nobody has tried between; twice what it refused
    ],
)
def test_a_device_that_refuses_the_next_connection_for_a_while(visits: str, delay: str) -> None:
    frames = [
        frame
        for number, said in enumerate(visits.split())
        for frame in visit(int(said.strip("!")), 40000 + number, refused=said.endswith("!"))
    ]
    text = learned(pcap(sorted(frames, key=lambda frame: frame.time_ns))).text
    found = [line.partition("#")[0].strip() for line in text.splitlines() if "reconnect_delay" in line]
    assert found == ([f"reconnect_delay: {delay}"] if delay else [])


def test_all_functions_that_were_left_out_are_counted() -> None:
    connection = Connection().open()
    for number in range(3):
        for function in range(44, 127):
            connection.ask(adu(number * 256 + function, 0, bytes([function, 0])))
    others = learned(pcap(connection.frames)).others
    assert sum(int(said.partition(" ")[0]) for said in others) == 3 * 83
    assert any("of further functions" in said for said in others)


def test_a_late_answer_is_no_deviation() -> None:
    """It fits no request that is under way: nothing is said of the device."""
    connection = Connection().open()
    connection.ask(read_request(1, 10, 2))
    connection.answer(read_answer(9, [1, 2, 3]))
    connection.answer(read_answer(1, [1, 2]))
    assert "quirks" not in learned(pcap(connection.frames)).text


def test_rtu_over_tcp_is_told_and_nothing_learned_of_it() -> None:
    connection = Connection().open()
    for at in range(10):
        asked, told = struct.pack(">BBHH", 1, 3, at, 2), b"\1\3\4\0\1\0\2"
        connection.ask(asked + crc(asked))
        connection.answer(told + crc(told))
    found = learned(pcap(connection.frames))
    assert (found.requests, found.malformed) == (0, 0)
    assert found.foreign[0].startswith("this looks like Modbus RTU over TCP")


def test_functions_that_nobody_has_published_are_named() -> None:
    connection = Connection().open()
    for number in range(4):
        connection.ask(adu(number, 0, b"\x5a\0\4"))
        connection.answer(adu(number, 0, b"\x5a\0\xfe"))
    found = learned(pcap(connection.frames))
    [said] = found.others
    assert said.startswith("4 requests of function 90 (not public: Schneider UMAS")
    assert found.malformed == 0 and "malformed" not in found.text, "a policy can allow them, by the vendor's functions"


def test_a_write_that_the_device_refused_is_no_permission() -> None:
    connection = Connection().open()
    for number, (cell, answer) in enumerate([(10, None), (20, b"\x86\2"), (30, b"")]):
        connection.ask(write_request(number, cell, 5))
        if answer != b"":
            connection.answer(write_request(number, cell, 5) if answer is None else adu(number, 1, answer))
    text = learned(pcap(connection.frames)).text
    assert "holding-10" in text
    assert "holding-20" not in text
    assert "holding-30" in text, "the answer may be missing in the capture alone"
    assert "1 writes that the devices refused were left out" in text


def reads() -> list[Frame]:
    connection = Connection().open()
    for number in range(5):
        connection.ask(read_request(number, 10, 2))
        connection.answer(read_answer(number, [1, 2]))
    return connection.frames


def test_compressed_and_old_and_without_a_time() -> None:
    data = pcap(reads())
    packed = gzip.compress(data)
    assert learned(packed).requests == 5
    assert "cannot be read any further" in learned(packed[: len(packed) // 2 + 20]).reading.error
    old = bytearray(data)
    old[4:8] = struct.pack("<HH", 2, 1)
    at = 24
    while at < len(old):  # before 2.3 the two lengths stood the other way round
        _, _, captured, length = struct.unpack_from("<IIII", old, at)
        struct.pack_into("<II", old, at + 8, length, captured)
        at += 16 + captured
    assert learned(bytes(old)).requests == 5
    broken = bytearray(data)
    struct.pack_into("<I", broken, 24 + 4, (-300_000) & 0xFFFFFFFF)
    found = learned(bytes(broken))
    assert (found.requests, found.reading.untimed, found.reading.error) == (5, 1, "")


def _gre(kind: int, flags: int, between: bytes, frame: bytes) -> bytes:
    return ethernet(ipv4("192.0.2.1", "192.0.2.2", struct.pack(">HH", flags, kind) + between + frame, protocol=47))


def _vxlan(frame: bytes) -> bytes:
    return struct.pack(">HHHH", 4000, 4789, len(frame) + 16, 0) + b"\x08" + bytes(7) + frame


WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "gre with ip": lambda frame: _gre(0x0800, 0, b"", frame[14:]),
    "gre with a key and ethernet": lambda frame: _gre(0x6558, 0x2000, b"\0\0\0\7", frame),
    "erspan ii": lambda frame: _gre(0x88BE, 0x1000, bytes(4 + 8), frame),
    "erspan iii": lambda frame: _gre(0x22EB, 0x1000, bytes(4 + 12), frame),
    "vxlan": lambda frame: ethernet(ipv4("192.0.2.1", "192.0.2.2", _vxlan(frame), protocol=17)),
    "mpls": lambda frame: frame[:12] + b"\x88\x47" + bytes((0, 1, 0, 64, 0, 2, 1, 64)) + frame[14:],
    "pppoe": lambda frame: frame[:12] + b"\x88\x64\x11\0\0\1" + struct.pack(">HH", len(frame), 0x21) + frame[14:],
}  # fmt: skip


@pytest.mark.parametrize("way", sorted(WRAPPED))
def test_what_a_mirror_has_wrapped(way: str) -> None:
    frames = [dataclasses.replace(frame, data=WRAPPED[way](frame.data)) for frame in reads()]
    assert learned(pcap(frames)).requests == 5
    cut = [dataclasses.replace(frame, data=frame.data[:size]) for frame in frames for size in range(14, 80, 3)]
    learn_nothing = learned(pcap(cut))
    assert learn_nothing.reading.error == ""


def test_tunnels_in_tunnels_have_an_end() -> None:
    frame = reads()[0]
    data = frame.data
    for _ in range(6):
        data = WRAPPED["gre with a key and ethernet"](data)
    found = learned(pcap([dataclasses.replace(frame, data=data)]))
    assert found.reading.damaged == 1
