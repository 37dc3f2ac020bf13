"""The pcap and pcapng readers: what they read, and how they say where a file breaks."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.capture.files import CaptureFile, Packet
from cofferdam.capture.limits import CaptureLimits
from cofferdam.errors import CaptureError
from tests.capture.maker import T0, Frame, block, enhanced, interface, pcap, pcapng, section, simple

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
FRAMES = [Frame(T0 + 1_234_567_891, b"first" * 9), Frame(T0 + 2_000_001_000, b"x"), Frame(T0 + 3_000_000_000, b"")]


def read(data: bytes, limits: CaptureLimits | None = None) -> list[Packet]:
    return list(CaptureFile(io.BytesIO(data), "test", limits))


def read_until_error(data: bytes) -> tuple[list[Packet], CaptureError | None]:
    packets: list[Packet] = []
    try:
        for packet in CaptureFile(io.BytesIO(data), "test"):
            packets.append(packet)
    except CaptureError as error:
        return packets, error
    return packets, None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_of_both_resolutions_and_byte_orders(order: str, nano: bool) -> None:
    packets = read(pcap(FRAMES, order=order, nano=nano, link=113))
    assert [packet.data for packet in packets] == [frame.data for frame in FRAMES]
    unit = 1 if nano else 1000
    assert [packet.time_ns for packet in packets] == [frame.time_ns // unit * unit for frame in FRAMES]
    assert [packet.number for packet in packets] == [1, 2, 3]
    assert {packet.link for packet in packets} == {113}
    assert packets[0].offset == 24
    assert packets[1].offset == 24 + 16 + 45


def test_a_cut_packet_keeps_its_length_on_the_wire() -> None:
    (packet,) = read(pcap([Frame(T0, b"abc", wire=1500)]))
    assert (packet.data, packet.length) == (b"abc", 1500)


def test_bits_above_the_link_type_are_no_part_of_it() -> None:
    (packet,) = read(pcap([Frame(T0, b"abc")], link=0x2400_0001))
    assert packet.link == 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_several_interfaces_resolutions_and_unknown_blocks(order: str) -> None:
    data = (
        section(order, struct.pack(order + "HH4sHH", 4, 4, b"test", 0, 0))
        + block(order, 0x0BAD, b"unknown block")
        + interface(order, link=1)
        + interface(order, link=113, tsresol=9)
        + interface(order, link=101, tsresol=0x80 | 10, offset=3600)
        + block(order, 4, b"\0\0\0\0")  # name resolution
        + enhanced(FRAMES[0], order, 0)
        + enhanced(FRAMES[0], order, 1, ticks=FRAMES[0].time_ns)
        + block(order, 5, bytes(12))  # statistics
        + enhanced(FRAMES[0], order, 2, ticks=1024 * 10 + 512)
    )
    packets = read(data)
    assert [packet.link for packet in packets] == [1, 113, 101]
    assert packets[0].time_ns == FRAMES[0].time_ns // 1000 * 1000
    assert packets[1].time_ns == FRAMES[0].time_ns
    assert packets[2].time_ns == (3600 + 10) * 10**9 + 500_000_000
    assert all(packet.data == FRAMES[0].data for packet in packets)


def test_pcapng_sections_have_their_own_byte_order_and_interfaces() -> None:
    data = pcapng(FRAMES[:1], "<", link=1) + pcapng(FRAMES[1:], ">", link=276)
    packets = read(data)
    assert [packet.link for packet in packets] == [1, 276, 276]
    assert [packet.number for packet in packets] == [1, 2, 3]
    # an interface of the first section is not one of the second
    _, error = read_until_error(pcapng(FRAMES[:1]) + section() + enhanced(FRAMES[0]))
    assert error is not None
    assert "names interface 0" in str(error)


def test_pcapng_simple_packets_have_no_time_and_end_at_the_snap_length() -> None:
    long = Frame(T0, b"0123456789", wire=64)
    packets = read(section() + interface(snaplen=10) + simple(Frame(T0, b"abcde")) + simple(long))
    assert [(packet.time_ns, packet.data, packet.length) for packet in packets] == [
        (-1, b"abcde", 5),
        (-1, b"0123456789", 64),
    ]


def test_pcapng_obsolete_packet_block() -> None:
    body = struct.pack("<HHIIII", 0, 0, T0 // 1000 >> 32, T0 // 1000 & 0xFFFFFFFF, 3, 9) + b"abc\0"
    (packet,) = read(section() + interface() + block("<", 2, body))
    assert (packet.time_ns, packet.data, packet.length) == (T0, b"abc", 9)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_file_cut_anywhere_gives_what_was_whole_and_says_up_to_where(make: object) -> None:
    whole = make(FRAMES)  # type: ignore[operator]
    starts = [packet.offset for packet in read(whole)]
    for size in range(1, len(whole)):
        packets, error = read_until_error(whole[:size])
        ends = [*starts[1:], len(whole)]
        assert len(packets) == sum(end <= size for end in ends)
        if error is None:
            assert size in starts or size in ends or size in (24, 28, 48)  # between records
        else:
            assert isinstance(error, CaptureError)
            if packets:
                assert f"{len(packets)} packet" in str(error)
                assert f"byte {starts[len(packets)]}" in str(error)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00rest", "cannot be read any further"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
        (b"hello world, this is text", "not a pcap or pcapng file"),
        (b"\xd4\xc3", "not a pcap or pcapng file"),
        (pcap([])[:20], "cut off in the file header"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 9, 9, 0, 0, 0, 1), "version 9.9"),
        (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "claims 1073741824"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0????", "byte-order mark"),
        (section() + struct.pack("<II", 6, 13), "impossible length 13"),
        (section() + struct.pack("<II", 6, 0), "impossible length 0"),
        (section() + struct.pack("<II", 6, 0x7FFFFFFC), "claims 2147483644"),
        (section() + block("<", 1, b"abcd"), "too short"),
        (section() + interface(tsresol=0x7F), "time resolution"),
        (section() + interface() + block("<", 6, bytes(8)), "too short"),
        (section() + interface() + enhanced(Frame(T0, b"abc"))[:-4] + b"\xff\0\0\0", "ends with the length 255"),
        (section() + simple(Frame(T0, b"abc")), "no interface"),
    ],
)  # fmt: skip
def test_foreign_and_damaged_files_are_named(data: bytes, says: str) -> None:
    with pytest.raises(CaptureError) as caught:
        read(data)
    assert says in str(caught.value)
    assert caught.value.hint


def test_too_many_interfaces_are_refused() -> None:
    with pytest.raises(CaptureError, match="more than 2 interfaces"):
        read(section() + interface() * 3, CaptureLimits(interfaces=2))


def test_an_unreadable_file_is_a_capture_error() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(CaptureError, match="Input/output error"):
        list(CaptureFile(Broken(), "test"))


def test_a_short_read_is_not_the_end() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(1, size or 0))

    assert len(list(CaptureFile(Dribble(pcap(FRAMES)), "test"))) == 3


_SEEDS = [pcap(FRAMES), pcap(FRAMES, order=">", nano=True), pcapng(FRAMES), pcapng(FRAMES, ">")]


@given(st.sampled_from(_SEEDS), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6), st.data())
def test_mutated_files_raise_nothing_but_capture_error(
    seed: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    mutated = bytearray(seed)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    cut = data.draw(st.integers(0, len(mutated)))
    extra = data.draw(st.binary(max_size=40))
    packets, _ = read_until_error(bytes(mutated[:cut]) + extra)
    assert sum(len(packet.data) for packet in packets) <= len(mutated) + len(extra)


@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_capture_error(data: bytes) -> None:
    read_until_error(data)
    read_until_error(section() + data)
    read_until_error(pcap([]) + data)


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the checkout")
def test_real_files_read_to_their_end() -> None:
    files = sorted(path for path in CAPTURES.rglob("*") if path.suffix in (".pcap", ".pcapng"))
    assert files
    for path in files:
        with path.open("rb") as stream:
            capture = CaptureFile(stream, path.name)
            count = sum(1 for _ in capture)
        assert count == capture.packets > 0
        assert capture.offset == path.stat().st_size
