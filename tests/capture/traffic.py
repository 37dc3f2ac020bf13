"""Modbus traffic for the tests, generated: well-formed requests of every public function, with fitting answers."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass

from hypothesis import strategies as st

from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.syntax import FILL_IN
from cofferdam.policy.table import CompiledPolicy
from tests.capture.maker import T0, Connection, Frame, adu, pcap

CLIENTS = ["10.1.0.20", "10.1.0.21", "fd00::20"]
SERVERS = ["10.20.0.17", "10.20.0.18", "fd00::17"]


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, without MBAP headers."""

    unit: int
    request: bytes
    answer: bytes


def bits(values: list[int]) -> bytes:
    out = bytearray((len(values) + 7) // 8)
    for at, value in enumerate(values):
        out[at // 8] |= value << at % 8
    return bytes(out)


def words(values: list[int]) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


UNITS = st.sampled_from([0, 1, 2, 255])
WORD = st.integers(0, 0xFFFF)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A well-formed request of any public function, near a few addresses so that ranges meet."""
    unit = draw(UNITS)
    start = draw(st.sampled_from([0, 5, 10, 60_000]))
    start += draw(st.integers(0, 12))
    count = draw(st.integers(1, 20))
    kind = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 17, 20, 21, 22, 23, 24, 43]))
    values = draw(st.lists(WORD, min_size=count, max_size=count))
    flags = [value & 1 for value in values]
    head = struct.pack(">BHH", kind, start, count)
    if kind in (1, 2):
        return Exchange(unit, head, bytes([kind, len(bits(flags))]) + bits(flags))
    if kind in (3, 4):
        return Exchange(unit, head, bytes([kind, 2 * count]) + words(values))
    if kind == 5:
        pdu = struct.pack(">BHH", 5, start, 0xFF00 * flags[0])
        return Exchange(unit, pdu, pdu)
    if kind == 6:
        pdu = struct.pack(">BHH", 6, start, values[0])
        return Exchange(unit, pdu, pdu)
    if kind == 7:
        return Exchange(unit, b"\x07", b"\x07\x55")
    if kind == 8:
        sub = draw(st.sampled_from([0, 1, 2, 4, 10, 11, 12, 14, 18, 20]))
        pdu = struct.pack(">BHH", 8, sub, 0)
        return Exchange(unit, pdu, pdu)
    if kind == 11:
        return Exchange(unit, b"\x0b", b"\x0b\0\0\0\x05")
    if kind == 12:
        return Exchange(unit, b"\x0c", b"\x0c\x06\0\0\0\x01\0\x02")
    if kind == 15:
        return Exchange(unit, head + bytes([len(bits(flags))]) + bits(flags), head)
    if kind == 16:
        return Exchange(unit, head + bytes([2 * count]) + words(values), head)
    if kind == 17:
        return Exchange(unit, b"\x11", b"\x11\x02\x01\xff")
    if kind == 20:
        file = draw(st.integers(1, 3))
        group = struct.pack(">BHHH", 6, file, start % 9990, count)
        return Exchange(unit, bytes([20, 7]) + group, bytes([20, 2 * count + 2, 2 * count + 1, 6]) + words(values))
    if kind == 21:
        file = draw(st.integers(1, 3))
        group = struct.pack(">BHHH", 6, file, start % 9990, count) + words(values)
        pdu = bytes([21, len(group)]) + group
        return Exchange(unit, pdu, pdu)
    if kind == 22:
        pdu = struct.pack(">BHHH", 22, start, values[0], values[-1])
        return Exchange(unit, pdu, pdu)
    if kind == 23:
        low = draw(st.integers(0, 30))
        written = values[: draw(st.integers(1, count))]
        request = struct.pack(">BHHHHB", 23, start, count, low, len(written), 2 * len(written)) + words(written)
        return Exchange(unit, request, bytes([23, 2 * count]) + words(values))
    if kind == 24:
        return Exchange(unit, struct.pack(">BH", 24, start), struct.pack(">BHH", 24, 2, 0))
    return Exchange(unit, b"\x2b\x0e\x01\x00", b"\x2b\x0e\x01\x01\x00\x00\x01\x00\x01A")


@dataclass(frozen=True)
class Dialogue:
    """One client at one server, and whether the capture holds the answers."""

    client: str
    server: str
    port: int
    exchanges: list[Exchange]
    answered: bool = True


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    family = draw(st.sampled_from([0, 0, 2]))
    client = CLIENTS[2] if family else draw(st.sampled_from(CLIENTS[:2]))
    server = SERVERS[2] if family else draw(st.sampled_from(SERVERS[:2]))
    return Dialogue(
        client, server, draw(st.sampled_from([502, 502, 1502])), draw(st.lists(exchanges(), min_size=1, max_size=8)),
        draw(st.sampled_from([True, True, False])),
    )  # fmt: skip


def frames(dialogue: Dialogue, *, port: int = 40000, time_ns: int = T0) -> list[Frame]:
    """The dialogue on the wire."""
    connection = Connection((dialogue.client, port), (dialogue.server, dialogue.port), time_ns=time_ns).open()
    for number, exchange in enumerate(dialogue.exchanges):
        connection.ask(adu(number, exchange.unit, exchange.request))
        if dialogue.answered:
            connection.answer(adu(number, exchange.unit, exchange.answer))
    return connection.frames


def capture(many: list[Dialogue]) -> bytes:
    """All dialogues, one after the other, as a file."""
    out: list[Frame] = []
    for number, dialogue in enumerate(many):
        out += frames(dialogue, port=40000 + number, time_ns=T0 + number * 10**9)
    return pcap(out, nano=True)


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def policy(text: str) -> CompiledPolicy:
    """A policy's text; one that was proposed is filled in."""
    return compile_policy(loads(filled(text)), now_ns=T0)


def filled(text: str) -> str:
    """What a person makes of a proposed policy: says whose it is, and why."""
    return re.sub(rf'^(site: |\s+(owner|reason): "){FILL_IN}', r"\1filled-in", text, flags=re.MULTILINE)
