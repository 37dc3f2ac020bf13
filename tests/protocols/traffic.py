"""Real Modbus traffic for tests: the client and the server bytes of each TCP connection of a capture.

Small on purpose, and for tests of the codec only: classic pcap with Ethernet or raw IP, IPv4, TCP; segments are put
in order by sequence number, overlaps are cut, a gap ends the stream. cofferdam.capture has the reader for users.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

CAPTURES = Path(__file__).parent.parent.parent.parent / "shared" / "captures" / "modbus"
MODBUS_PORT = 502


class Stream(NamedTuple):
    """One direction of one connection: capture, (source, port, destination, port), the bytes as segments in order."""

    name: str
    flow: tuple[str, int, str, int]
    to_server: bool
    segments: tuple[bytes, ...]


def files() -> list[Path]:
    """The captures, or none where the folder is missing."""
    return sorted(CAPTURES.glob("*.pcap")) if CAPTURES.is_dir() else []


def _packets(raw: bytes) -> list[bytes]:
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}[raw[:4]]
    link = struct.unpack_from(order + "I", raw, 20)[0]
    skip = {1: 14, 12: 0, 101: 0, 113: 16}[link]
    at, found = 24, []
    while at + 16 <= len(raw):
        size = struct.unpack_from(order + "I", raw, at + 8)[0]
        packet = raw[at + 16 : at + 16 + size]
        start = skip
        if link == 1 and packet[12:14] == b"\x81\x00":
            start += 4
        found.append(packet[start:])
        at += 16 + size
    return found


@cache
def streams(path: Path) -> tuple[Stream, ...]:
    """Both directions of all connections with the Modbus port."""
    flows: dict[tuple[str, int, str, int], list[tuple[int, bytes, bool]]] = {}
    for packet in _packets(path.read_bytes()):
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
            continue
        head = (packet[0] & 15) * 4
        total = int.from_bytes(packet[2:4])
        segment = packet[head:total] if total else packet[head:]
        source, target, number = struct.unpack_from(">HHI", segment)
        data = segment[(segment[12] >> 4) * 4 :]
        flow = (".".join(map(str, packet[12:16])), source, ".".join(map(str, packet[16:20])), target)
        if MODBUS_PORT in (source, target):
            flows.setdefault(flow, []).append((number, data, bool(segment[13] & 2)))
    found = []
    for flow, segments in flows.items():
        # A port that is used twice makes two connections: cut where a SYN stands.
        runs: list[list[tuple[int, bytes]]] = [[]]
        for number, data, syn in segments:
            if syn and runs[-1]:
                runs.append([])
            if data:
                runs[-1].append((number, data))
        for run in runs:
            ordered = _in_order(run)
            if ordered:
                found.append(Stream(path.stem, flow, flow[3] == MODBUS_PORT, ordered))
    return tuple(found)


def _in_order(run: list[tuple[int, bytes]]) -> tuple[bytes, ...]:
    if not run:
        return ()
    base = min(number for number, _ in run)
    expected, out = 0, []
    for number, data in sorted(run, key=lambda item: (item[0] - base) & 0xFFFFFFFF):
        start = (number - base) & 0xFFFFFFFF
        if start > expected:
            break
        fresh = data[expected - start :]
        if fresh:
            out.append(fresh)
            expected += len(fresh)
    return tuple(out)
