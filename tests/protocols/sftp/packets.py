"""Packets of SFTP, as clients make them."""

from __future__ import annotations

import struct


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


def attributes(size: int | None = None, mode: int | None = None, times: tuple[int, int] | None = None) -> bytes:
    flags = (1 if size is not None else 0) | (4 if mode is not None else 0) | (8 if times is not None else 0)
    found = struct.pack(">I", flags)
    found += struct.pack(">Q", size) if size is not None else b""
    found += struct.pack(">I", mode) if mode is not None else b""
    return found + (struct.pack(">II", *times) if times is not None else b"")


NOTHING = attributes()
INIT = packet(1, struct.pack(">I", 3))
