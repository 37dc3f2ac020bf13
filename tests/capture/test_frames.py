"""Link layers, VLAN tags, IPv4 and IPv6, fragments: what becomes a TCP segment, and what is counted instead."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.capture.files import Packet
from cofferdam.capture.frames import Decoder, Segment, address_text
from cofferdam.capture.limits import CaptureLimits
from tests.capture.maker import ACK, SECOND, T0, ethernet, ipv4, ipv6, tcp

CLIENT, SERVER = ("10.1.0.20", 40000), ("10.20.0.17", 502)
CLIENT6, SERVER6 = ("fd00::20", 40000), ("fd00::17", 502)
SEGMENT = tcp(CLIENT, SERVER, 7, 9, ACK, b"payload")
V4 = ipv4(CLIENT[0], SERVER[0], SEGMENT)
HOP = bytes([60, 0, 1, 4, 0, 0, 0, 0])
V6 = ipv6(CLIENT6[0], SERVER6[0], SEGMENT)


def packet(data: bytes, link: int = 1, *, number: int = 1, time_ns: int = T0, wire: int = 0) -> Packet:
    return Packet(number, time_ns, link, wire or len(data), data, 0)


def decode(data: bytes, link: int = 1) -> Segment | None:
    return Decoder().segment(packet(data, link))


@pytest.mark.parametrize(
    ("data", "link"),
    [
        (ethernet(V4), 1),
        (ethernet(V4, tags=(0x8100,)), 1),
        (ethernet(V4, tags=(0x88A8, 0x8100)), 1),
        (struct.pack(">HHH8sH", 0, 1, 6, b"", 0x0800) + V4, 113),
        (struct.pack(">HHH8sHHH", 0, 1, 6, b"", 0x8100, 5, 0x0800) + V4, 113),
        (struct.pack(">HHIHBB8s", 0x0800, 0, 2, 1, 0, 6, b"") + V4, 276),
        (V4, 101),
        (V4, 12),
        (V4, 228),
        (struct.pack("<I", 2) + V4, 0),
        (struct.pack(">I", 2) + V4, 0),
        (struct.pack(">I", 2) + V4, 108),
    ],
)  # fmt: skip
def test_link_types_that_carry_ipv4(data: bytes, link: int) -> None:
    segment = decode(data, link)
    assert segment is not None
    assert (address_text(segment.source), segment.source_port) == CLIENT
    assert (address_text(segment.target), segment.target_port) == SERVER
    assert (segment.seq, segment.ack, segment.flags, segment.data, segment.length) == (7, 9, ACK, b"payload", 7)


@pytest.mark.parametrize(
    ("data", "link"),
    [
        (ethernet(V6, 0x86DD), 1),
        (V6, 101),
        (V6, 229),
        (struct.pack("<I", 30) + V6, 0),
        (ethernet(ipv6(CLIENT6[0], SERVER6[0], HOP + bytes([6, 1]) + bytes(14) + SEGMENT, following=0), 0x86DD), 1),
        (ethernet(ipv6(CLIENT6[0], SERVER6[0], bytes([6, 1]) + bytes(10) + SEGMENT, following=51), 0x86DD), 1),
        (ethernet(ipv6(CLIENT6[0], SERVER6[0], bytes([6, 0, 0, 0, 0, 0, 0, 1]) + SEGMENT, following=44), 0x86DD), 1),
    ],
)  # fmt: skip
def test_ipv6_with_and_without_extension_headers(data: bytes, link: int) -> None:
    segment = decode(data, link)
    assert segment is not None
    assert address_text(segment.source) == CLIENT6[0]
    assert segment.data == b"payload"


def test_padding_is_no_payload_and_options_are_no_payload() -> None:
    bare = decode(ethernet(ipv4(CLIENT[0], SERVER[0], tcp(CLIENT, SERVER, 1, 1, ACK))))
    assert bare is not None
    assert (bare.length, bare.data) == (0, b"")
    with_options = decode(ethernet(ipv4(CLIENT[0], SERVER[0], tcp(CLIENT, SERVER, 1, 1, ACK, b"xy", b"\x01" * 8))))
    assert with_options is not None
    assert with_options.data == b"xy"


def test_a_packet_that_the_capture_cut_off_keeps_its_length() -> None:
    whole = ethernet(ipv4(CLIENT[0], SERVER[0], tcp(CLIENT, SERVER, 1, 1, ACK, bytes(100))))
    segment = Decoder().segment(packet(whole[:-60], wire=len(whole)))
    assert segment is not None
    assert (segment.length, len(segment.data)) == (100, 40)


def test_total_length_zero_means_the_whole_frame() -> None:
    body = bytearray(ipv4(CLIENT[0], SERVER[0], tcp(CLIENT, SERVER, 1, 1, ACK, bytes(100))))
    body[2:4] = b"\0\0"
    segment = decode(ethernet(bytes(body)))
    assert segment is not None
    assert segment.length == 100


@pytest.mark.parametrize(
    ("data", "link", "what"),
    [
        (ethernet(b"\0" * 28, 0x0806), 1, "ARP"),
        (ethernet(b"\0" * 28, 0x0026), 1, "802.3 LLC"),
        (ethernet(b"\0" * 28, 0x9999), 1, "EtherType 0x9999"),
        (ethernet(ipv4(CLIENT[0], SERVER[0], b"\0" * 8, protocol=17)), 1, "UDP"),
        (ethernet(ipv4(CLIENT[0], SERVER[0], b"\0" * 8, protocol=17, where=0x2000)), 1, "UDP"),
        (ethernet(ipv6(CLIENT6[0], SERVER6[0], b"\0" * 8, following=58), 0x86DD), 1, "ICMPv6"),
        (b"\0" * 30, 105, "link type 105"),
        (struct.pack("<I", 7) + V4, 0, "address family 7"),
    ],
)
def test_what_is_no_tcp_is_counted_by_name(data: bytes, link: int, what: str) -> None:
    decoder = Decoder()
    assert decoder.segment(packet(data, link)) is None
    assert dict(decoder.skipped) == {what: 1}
    assert decoder.damaged == 0


@pytest.mark.parametrize("size", range(14 + 20 + 14))
def test_headers_cut_off_anywhere_are_damage(size: int) -> None:
    decoder = Decoder()
    assert decoder.segment(packet(ethernet(V4)[:size])) is None
    assert decoder.damaged == 1


def test_too_many_tags_and_extension_headers_are_damage() -> None:
    decoder = Decoder()
    assert decoder.segment(packet(ethernet(V4, tags=(0x8100,) * 5))) is None
    chain = bytes([0, 0, 1, 4, 0, 0, 0, 0]) * 17
    assert decoder.segment(packet(ethernet(ipv6(CLIENT6[0], SERVER6[0], chain, following=0), 0x86DD))) is None
    assert decoder.damaged == 2


def fragments(body: bytes, sizes: list[int], ident: int = 77) -> list[bytes]:
    pieces, at = [], 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size * 8]
        more = at + len(piece) < len(body)
        pieces.append(
            ethernet(ipv4(CLIENT[0], SERVER[0], piece, ident=ident, where=(at // 8) | (0x2000 if more else 0)))
        )
        at += len(piece)
        if not more:
            break
    return pieces


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=3))
def test_ipv4_fragments_in_any_order_and_repeated(order: list[int], repeats: list[int]) -> None:
    body = tcp(CLIENT, SERVER, 1, 1, ACK, bytes(range(100)))
    pieces = fragments(body, [4, 5, 3])
    decoder = Decoder()
    first = [at for at in repeats if at != order[-1]]  # copies before the last missing piece change nothing
    found = [decoder.segment(packet(pieces[at], number=n)) for n, at in enumerate([*order[:-1], *first, order[-1]])]
    assert found[:-1] == [None] * (len(found) - 1)
    segment = found[-1]
    assert segment is not None
    assert segment.data == bytes(range(100))
    assert decoder.fragments_lost == 0


def test_ipv6_fragments() -> None:
    decoder = Decoder()
    whole = tcp(CLIENT6, SERVER6, 1, 1, ACK, bytes(range(50)))
    found: Segment | None = None
    for start, more in ((0, 1), (32, 0)):
        piece = whole[start : start + 32] if more else whole[start:]
        head = struct.pack(">BBHI", 6, 0, start | more, 5)
        found = decoder.segment(packet(ethernet(ipv6(CLIENT6[0], SERVER6[0], head + piece, following=44), 0x86DD)))
    assert found is not None
    assert found.data == bytes(range(50))


def test_overlapping_missing_and_old_fragments_are_given_up() -> None:
    body = tcp(CLIENT, SERVER, 1, 1, ACK, bytes(range(100)))
    first, second, third = fragments(body, [5, 5])
    decoder = Decoder()
    other = fragments(b"\xff" * 120, [6, 4])[0]  # reaches into the second
    assert decoder.segment(packet(first)) is None
    assert decoder.segment(packet(other)) is None
    assert decoder.fragments_lost == 1
    # what comes later of the same datagram is incomplete for ever
    assert decoder.segment(packet(second)) is None
    assert decoder.segment(packet(third, time_ns=T0 + 31 * SECOND)) is None
    assert decoder.fragments_lost == 2
    decoder.finish()
    assert decoder.fragments_lost == 3
    assert decoder.segments == 0


def test_waiting_fragments_are_bounded() -> None:
    decoder = Decoder(CaptureLimits(fragmented_datagrams=3))
    body = tcp(CLIENT, SERVER, 1, 1, ACK, bytes(100))
    for ident in range(10):
        assert decoder.segment(packet(fragments(body, [5], ident)[0])) is None
    assert decoder.fragments_lost == 7


@given(st.sampled_from([0, 1, 12, 101, 108, 113, 276]), st.binary(max_size=120))
def test_any_frame_is_a_segment_or_counted(link: int, data: bytes) -> None:
    decoder = Decoder()
    segment = decoder.segment(packet(data, link))
    decoder.finish()
    assert (segment is not None) + sum(decoder.skipped.values()) + decoder.damaged + decoder.fragments_lost == 1


@given(st.sampled_from([ethernet(V4), ethernet(V6, 0x86DD)]), st.lists(st.tuples(st.integers(), st.integers(0, 255))))
def test_mutated_frames_never_raise(frame: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(frame)
    for at, value in changes:
        data[at % len(data)] = value
    segment = Decoder().segment(packet(bytes(data)))
    assert segment is None or len(segment.data) <= max(segment.length, 0)
