"""Assets that read their file by TFTP (RFC 1350, options by RFC 2347 to 2349), as boot loaders and panels do: from us,
in their turn and their window, and no other file than their own.

TFTP has no login: an asset is who has its address. So whoever can take that address on its network reads the file too,
which is no secret from the plant; it can change nothing here but have a step begun. All is said from the one socket
at which we are asked (RFC 1350 would have a port for each transfer, and clients take either): a firewall can name it.

Not here: writing (WRQ is answered with an error), netascii, multicast, windows of several blocks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from cofferdam.brokers.kit.datagrams import Datagrams
from cofferdam.brokers.patch.outcome import at_most
from cofferdam.brokers.patch.plan import Plan, Step, Verdict
from cofferdam.brokers.patch.records import Release
from cofferdam.brokers.patch.tftp import ACK, AGAIN_SECONDS, BLOCK, DATA, ERROR, OACK, RRQ, TRIES, options
from cofferdam.crossing.reactor import Reactor
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way

NAME_BYTES: Final = 200
_NOT_NOW, _NOT_SERVED = 1, 4


class Serving(Protocol):
    """The installer, as this knows it."""

    rows: PatchRows

    def plan(self) -> Plan:
        """As things are now."""

    def shut(self) -> str:
        """Why nothing goes out now, "" if it may."""

    async def begin(self, verdict: Verdict, how: str) -> Step | str:
        """Everything before an asset gets anything. The step, or why not."""

    def file_of(self, release: Release) -> Any:
        """Our own copy."""

    async def sent(self, count: int) -> None:
        """Bytes that went out; waits until more may."""

    def fetched(self, step: Step, install: Install, way: Way, whole: bool) -> None:
        """An asset has fetched a file, or left before its end."""


class TftpServing:
    """One socket, and who reads by it. One transfer of an asset at a time."""

    def __init__(
        self, installer: Serving, reactor: Reactor, sock: socket.socket, wall: Callable[[], int],
        start: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:  # fmt: skip
        self._installer = installer
        self._wall = wall
        self._start = start
        self._open: dict[str, _Reading] = {}
        """By the asset's address."""
        self.socket = sock
        self._wire = Datagrams(reactor, sock, self._on_datagram)

    def forget(self) -> None:
        """The socket is taken away."""
        self._wire.forget()

    def _on_datagram(self, address: str, port: int, data: bytes) -> None:
        way = next((each for each in self._installer.rows.ways if each.tftp_read and each.address == address), None)
        if way is None or len(data) < 4:
            return  # nobody of ours; an answer would go to an address that anybody can write on an envelope
        code = int.from_bytes(data[:2], "big")
        reading = self._open.get(address)
        if reading is not None:
            if port == reading.port and code in (ACK, ERROR):
                reading.take(code, data[2:])
            return  # asked again while it is answered
        if code == RRQ:
            reading = self._open[address] = _Reading(port, lambda packet: self._wire.send(address, port, packet))
            self._start(self._read(address, way, reading, data[2:]))
        elif code not in (ACK, ERROR):
            self._refuse(address, port, _NOT_SERVED, "files are read here, and nothing else")

    def _refuse(self, address: str, port: int, code: int, why: str) -> None:
        self._wire.send(address, port, struct.pack(">HH", ERROR, code) + why.encode()[:200] + b"\0")

    async def _read(self, address: str, way: Way, reading: _Reading, asked: bytes) -> None:
        try:
            await self._answer(address, way, reading, asked)
        finally:
            del self._open[address]

    async def _answer(self, address: str, way: Way, reading: _Reading, asked: bytes) -> None:
        words = asked.split(b"\0")
        if len(words) < 3 or not 1 <= len(words[0]) <= NAME_BYTES or words[1].lower() != b"octet":
            self._refuse(address, reading.port, _NOT_SERVED, "a name, and mode octet")
            return
        name = words[0].decode("utf-8", "replace")
        verdict = self._due(way, name)
        if verdict is None or verdict.release is None:
            self._refuse(address, reading.port, _NOT_NOW, "there is no such file for you now")
            return
        release = verdict.release
        step = await self._installer.begin(verdict, "tftp")
        if isinstance(step, str):
            self._refuse(address, reading.port, _NOT_NOW, "not now")
            return
        whole = False
        try:
            async with asyncio.timeout(at_most(way, release.size)):
                whole = await self._send(reading, release, options(b"\0".join(words[2:])))
        except TimeoutError:
            pass  # it has acknowledged a block now and then: whoever takes for ever holds its ring up
        finally:
            self._installer.fetched(step, verdict.install, way, whole)

    def _due(self, way: Way, name: str) -> Verdict | None:
        if self._installer.shut():
            return None
        for each in self._installer.plan().verdicts(self._wall(), way.asset):
            if each.due and each.release and name == way.tftp_read.replace("{file}", each.release.custom.file):
                return each
        return None

    async def _send(self, reading: _Reading, release: Release, wanted: dict[str, str]) -> bool:
        """Whether the asset has acknowledged the last block."""
        agreed, block = b"", 512
        size = wanted.get("blksize", "")
        if size.isdecimal() and 8 <= int(size[:6]) <= 65464:
            block = min(int(size[:6]), BLOCK)
            agreed += b"blksize\0%d\0" % block
        if "tsize" in wanted:
            agreed += b"tsize\0%d\0" % release.size
        number = 0
        if agreed and not await reading.acknowledged(struct.pack(">H", OACK) + agreed, 0):
            return False
        with self._installer.file_of(release).open("rb") as opened:
            while True:
                data = opened.read(block)
                number = (number + 1) & 0xFFFF
                if not await reading.acknowledged(struct.pack(">HH", DATA, number) + data, number):
                    return False
                await self._installer.sent(len(data))
                if len(data) < block:
                    return True


class _Reading:
    """One asset that reads."""

    def __init__(self, port: int, send: Callable[[bytes], None]) -> None:
        self.port = port
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._number = -1
        self._answered: asyncio.Future[bool] | None = None

    def take(self, code: int, body: bytes) -> None:
        if self._answered is None or self._answered.done():
            return
        if code == ERROR:
            self._answered.set_result(False)
        elif int.from_bytes(body[:2], "big") == self._number:
            self._answered.set_result(True)

    async def acknowledged(self, packet: bytes, number: int) -> bool:
        """Sends it until it is acknowledged. False: the asset has left, or says that something is wrong."""
        self._number, self._answered = number, self._loop.create_future()
        for _ in range(TRIES):
            self._send(packet)
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    return await asyncio.shield(self._answered)
            except TimeoutError:
                continue
        return False
