"""A file to an asset by TFTP (RFC 1350, options by RFC 2347 to 2349), and read back by it where the asset lets.

TFTP has no login, no encryption, no rename and no hash: the file stands in its place while it is written, so whatever
breaks after the first block leaves nobody knows what. Then the file is read back; where that is not possible the
outcome is "unknown", and a person says what the asset has. Nothing is sent again.

A block that is not acknowledged is repeated, as the protocol has it: it is the same block at the same place. Not here:
netascii, multicast, windows of several blocks (RFC 7440).
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cofferdam.brokers.kit.aio import literal_address
from cofferdam.brokers.patch.outcome import Outcome, Progress, Refused, at_most
from cofferdam.policy.terms.patch_rows import Way

BLOCK: Final = 1428
"""Bytes of a block that an Ethernet frame takes; 512 where the asset knows no options."""
AGAIN_SECONDS: Final = 1.0
TRIES: Final = 8
LONGEST: Final = 2048
RRQ, WRQ, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6


class _Socket:
    """One transfer's. The asset answers from a port of its own, which holds from its first answer on; only its address
    counts before."""

    def __init__(self, way: Way, port: int) -> None:
        self._address = literal_address(way.address)
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._found = False

    async def ask(self, packet: bytes, good: Callable[[int, bytes], bool]) -> tuple[int, bytes]:
        """Sends it until what fits comes. Raises: Refused, OSError, TimeoutError."""
        for _ in range(TRIES):
            self._sock.sendto(packet, (self._address, self._port))
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    while True:
                        code, body = await self._receive()
                        if code == ERROR:
                            text = body[2:].partition(b"\0")[0].decode("utf-8", "replace")
                            raise Refused(f"the asset says: {text[:120] or 'error'}")
                        if good(code, body):
                            return code, body
            except TimeoutError:
                continue
        raise TimeoutError("the asset does not answer")

    async def _receive(self) -> tuple[int, bytes]:
        while True:
            data, source = await self._loop.sock_recvfrom(self._sock, LONGEST)
            if source[0] != self._address or (self._found and source[1] != self._port) or len(data) < 4:
                continue
            self._port, self._found = source[1], True
            return int.from_bytes(data[:2], "big"), data[2:]

    def send(self, packet: bytes) -> None:
        self._sock.sendto(packet, (self._address, self._port))

    def close(self) -> None:
        self._sock.close()


def options(body: bytes) -> dict[str, str]:
    """What is asked for or agreed upon besides, by RFC 2347."""
    words = body.split(b"\0")
    return {
        words[at].decode("ascii", "replace").lower(): words[at + 1].decode("ascii", "replace")
        for at in range(0, len(words) - 1, 2)
    }


def _block(body: bytes) -> int:
    """What block size the asset agrees to. Raises: Refused."""
    text = options(body).get("blksize", "512")
    if not text.isdecimal() or not 8 <= int(text[:6]) <= BLOCK:
        raise Refused("the asset agrees to a block size that it was not offered")
    return int(text[:6])


def _asked(code: int, name: str, size: int) -> bytes:
    options = b"\0".join((b"blksize", str(BLOCK).encode(), b"tsize", str(size).encode()))
    return struct.pack(">H", code) + name.encode() + b"\0octet\0" + options + b"\0"


async def _write(way: Way, port: int, name: str, file: Path, size: int, progress: Progress) -> None:
    wire = _Socket(way, port)
    try:
        code, body = await wire.ask(
            _asked(WRQ, name, size), lambda code, body: code == OACK or (code == ACK and body[:2] == b"\0\0")
        )
        await progress(0)
        block, number = (_block(body) if code == OACK else 512), 0
        with file.open("rb") as source:
            while True:
                data = source.read(block)
                number = (number + 1) & 0xFFFF
                counted = struct.pack(">H", number)
                await wire.ask(
                    struct.pack(">H", DATA) + counted + data,
                    lambda code, body, counted=counted: code == ACK and body[:2] == counted,  # type: ignore[misc]
                )
                await progress(len(data))
                if len(data) < block:
                    return
    finally:
        wire.close()


async def _hash(way: Way, port: int, name: str, most: int) -> str:
    """Of what the asset gives out under this name; "" where it gives nothing, or more than that."""
    wire, digest, size = _Socket(way, port), hashlib.sha256(), 0
    try:
        code, body = await wire.ask(
            _asked(RRQ, name, 0), lambda code, body: code == OACK or (code == DATA and body[:2] == b"\0\1")
        )
        block, number = (_block(body) if code == OACK else 512), 0
        answer = struct.pack(">HH", ACK, 0)
        while True:
            number = (number + 1) & 0xFFFF
            counted = struct.pack(">H", number)
            if code != DATA:
                _, body = await wire.ask(
                    answer,
                    lambda code, body, counted=counted: code == DATA and body[:2] == counted,  # type: ignore[misc]
                )
            code = 0
            data = body[2:]
            size += len(data)
            if size > most or len(data) > block:
                return ""
            digest.update(data)
            answer = struct.pack(">HH", ACK, number)
            if len(data) < block:
                wire.send(answer)
                return digest.hexdigest()
    except (Refused, OSError, TimeoutError):
        return ""
    finally:
        wire.close()


async def push(way: Way, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""
    said = way.tftp
    if said is None:
        return Outcome("failed", "the asset has no TFTP")
    target, begun = said.path.replace("{file}", name), False

    async def told(count: int) -> None:
        nonlocal begun
        begun = True
        await progress(count)

    why = ""
    try:
        async with asyncio.timeout(at_most(way, size)):
            await _write(way, said.port, target, file, size, told)
    except (Refused, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        if not begun:
            return Outcome("failed", f"{why[:300]}; what the asset had is still there")
    if said.read_back:
        try:
            async with asyncio.timeout(at_most(way, size)):
                there = await _hash(way, said.port, target, size)
        except TimeoutError:
            there = ""  # it gives out a block now and then
        if there == sha256:
            return Outcome("sent", f"it broke at the end ({why[:200]}), and the asset has it" if why else "")
        return Outcome("unknown", f"{why or 'it was sent'}; the asset reads back {there[:16] or 'nothing'}…")
    if why:
        return Outcome("unknown", f"{why[:300]}; what the asset has now is not known")
    return Outcome("sent", "every block was acknowledged; TFTP shows no hash")
