"""An SSH server that no honest asset is, by asyncssh with the rules taken out: for tests of who meets one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import asyncssh
from asyncssh.stream import SSHServerStreamSession

from tests.waiting import PATIENT

BYTE, UINT32, STRING = asyncssh.packet.Byte, asyncssh.packet.UInt32, asyncssh.packet.String
FLOOD = 150_000_000


class Session(asyncssh.SSHServerSession[bytes]):
    """What an asset does on a command."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset
        self._going = asyncio.Event()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        channel: Any = self._chan
        number = channel._send_chan
        if "gone" in self._command:
            self._chan.close()
        elif "disconnect" in self._command:
            connection: Any = self._chan.get_connection()
            asyncio.get_running_loop().call_later(0.1, connection._send_disconnect, 2, "y" * 20_000, "")
        elif "no-end-of-data" in self._command:
            self._chan.write(b"said\n")
            self._chan.exit(0)  # and closes, with no end of data before
        elif "late-status" in self._command:
            self._breaks(98, UINT32(number), STRING(b"exit-status"), b"\0", UINT32(0), close=True)
        elif "unasked" in self._command:
            self._breaks(99, UINT32(number))
        elif "nobody's-channel" in self._command:
            self._breaks(94, UINT32(4_000), STRING(b"x"))
        elif "deaf" in self._command:
            self._chan.pause_reading()
        elif "silent" in self._command:
            self._chan.write_eof()
        elif "flood" in self._command:
            self._going.set()
            self._task = asyncio.get_running_loop().create_task(self._flood())

    def _breaks(self, kind: int, *body: bytes, close: bool = False) -> None:
        """Says something that has no place there."""
        if close:
            self._chan.close()
        connection: Any = self._chan.get_connection()
        connection.send_packet(kind, *body)

    async def _flood(self) -> None:
        while self._asset.sent < FLOOD:
            await self._going.wait()
            self._chan.write(bytes(32_768))
            self._asset.sent += 32_768
            await asyncio.sleep(0)

    def pause_writing(self) -> None:
        self._going.clear()

    def resume_writing(self) -> None:
        self._going.set()

    def eof_received(self) -> bool:
        return True


EVIL = (b"..", b".", b"../../etc/passwd", b"/etc/passwd", b"", b"a/b", b"x\0y", b"\xff\xfe", b"n" * 300)
"""Names that no file has."""


class Names(asyncssh.SFTPServer):
    """Folders that no honest asset has."""

    def realpath(self, path: bytes) -> bytes:
        return path or b"/"

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return asyncssh.SFTPAttrs(permissions=0o040755)

    lstat = stat

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        path = path.rstrip(b"/")
        if path.endswith(b"evil"):
            for name in (*EVIL, b"good"):
                yield asyncssh.SFTPName(name, longname=b"-", attrs=asyncssh.SFTPAttrs(permissions=0o100644))
            return
        long = path.endswith(b"long")
        for number in range(600 if long else 10_000_000):
            name = b"%d" % number
            attributes = asyncssh.SFTPAttrs(permissions=0o100644)
            yield asyncssh.SFTPName(name.ljust(4_000, b"n") if long else name, attrs=attributes)


class Asset:
    """An SSH server on a loop of its own."""

    def __init__(self, port: int) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.sent = 0
        self.files = False
        self.breaks = ""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        asset = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return False

            def session_requested(self) -> Any:
                if asset.breaks:
                    return BrokenFiles(asset)
                return (
                    SSHServerStreamSession(None, lambda chan: Names(cast(Any, chan)), 3, False)
                    if asset.files
                    else Session(asset)
                )

        async def listen() -> None:
            self._listener = await asyncssh.listen(
                "127.0.0.1", port, server_factory=Server, server_host_keys=[self.key], encoding=None,
            )  # fmt: skip

        self.run(listen())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENT)

    def close(self) -> None:
        async def end() -> None:
            self._listener.close()
            await self._listener.wait_closed()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENT)
        self.loop.close()


def sftp_answer(kind: int, number: int, body: bytes) -> bytes:
    return STRING(BYTE(kind) + UINT32(number) + body)


NAMED = UINT32(1) + STRING(b"/srv") + STRING(b"") + UINT32(0)
ANSWERS: dict[str, Any] = {
    "another number": lambda kind, number: sftp_answer(104, number + 7, NAMED),
    "a number twice": lambda kind, number: sftp_answer(104, number, NAMED) * 2,
    "a kind that nobody knows": lambda kind, number: sftp_answer(99, number, b""),
    "a packet of 4 GB": lambda kind, number: b"\xff\xff\xff\xff" + bytes(100),
    "an empty packet": lambda kind, number: bytes(4),
    "names without end": lambda kind, number: sftp_answer(104, number, UINT32((1 << 32) - 1) + STRING(b"x")),
    "attributes of 4 GB": lambda kind, number: sftp_answer(105, number, UINT32(0x8000_0000) + UINT32((1 << 32) - 1)),
    "no name at all": lambda kind, number: sftp_answer(104, number, UINT32(0)),
    "a name that is no UTF-8": lambda kind, number: sftp_answer(
        104, number, UINT32(1) + STRING(b"/\xff") + STRING(b"") + UINT32(0)
    ),
    "nothing": lambda kind, number: b"",
    "a handle of another kind": lambda kind, number: sftp_answer(102, number, STRING(b"h" * 5_000)),
}


class BrokenFiles(asyncssh.SSHServerSession[bytes]):
    """Says its version, and then what no honest server does."""

    def __init__(self, asset: Asset) -> None:
        self._asset = asset
        self._begun = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return True

    def data_received(self, data: bytes, datatype: Any) -> None:
        if not self._begun:
            self._begun = True
            self._chan.write(STRING(BYTE(2) + UINT32(3)))
            return
        kind, number = data[4], int.from_bytes(data[5:9], "big")
        answer = ANSWERS[self._asset.breaks](kind, number)
        if answer:
            self._chan.write(answer)
        else:
            self._chan.close()
