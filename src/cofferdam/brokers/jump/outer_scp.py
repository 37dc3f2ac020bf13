"""The old protocol of scp towards a client: the same operations with files as SFTP asks for, one file after the other.

Not here: its lines (protocols.sftp.scp), what may be done with files (inner_files).
"""

from __future__ import annotations

import asyncio
import posixpath
import stat
from collections.abc import Callable
from typing import Any, Final

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.outer_session import AssetSession
from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.protocols.sftp import messages as m
from cofferdam.protocols.sftp import scp
from cofferdam.protocols.sftp.scp import SECTION

AHEAD: Final = 4
"""Pieces of a file under way at a time."""
PIECE: Final = 131_072
BUFFER_BYTES: Final = 1 << 20
"""What a client has sent and nobody has taken: beyond it, it is not read."""
DEPTH_MOST: Final = 64
"""Folders within each other."""
WORDS: Final = {"no such file": "no such file or folder", "permission denied": "that may not be done"}


class _Refused(Exception):
    """An operation was not done, and why."""


class Scp:
    """One client's scp. `run` ends it."""

    def __init__(
        self, session: AssetSession, asked: scp.Asked, to_inner: Callable[[Any], None], failed: Callable[[str], None]
    ) -> None:
        self._session, self._asked = session, asked
        self._to_inner, self._failed = to_inner, failed
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._eof = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._last = 0
        self._waiting: dict[int, asyncio.Future[m.Answer]] = {}
        self._wrong = False
        self._task: asyncio.Task[Any] | None = None

    # --- what the session calls -------------------------------------------------------------------------------------

    def data(self, data: bytes) -> None:
        """Bytes of the client."""
        self._buffer += data
        self._changed.set()
        if len(self._buffer) > BUFFER_BYTES:
            self._session.hold(True)

    def eof(self) -> None:
        """It says no more."""
        self._eof = True
        self._changed.set()

    def go_on(self) -> None:
        """It takes what it is sent again."""
        self._room.set()

    def told(self, record: records.FileTold) -> None:
        """An answer."""
        future = self._waiting.pop(record.request, None)
        if future is None:
            raise CrossingError(f"an answer to request {record.request}, which was not made")
        if not future.done():
            future.set_result(record.answer)

    def close(self) -> None:
        """The session is over."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """All of it, and the end of the session."""
        self._task = asyncio.current_task()
        try:
            await (self._take() if self._asked.up else self._give())
        except RemoteProtocolError as error:
            self._failed(str(error))
            self._wrong = True
            self._session.write(scp.complaint(str(error)))
        self._session.exit(1 if self._wrong else 0)

    # --- bytes ------------------------------------------------------------------------------------------------------

    async def _some(self, count: int) -> bytes:
        """Up to so many bytes; none: there come no more."""
        while not self._buffer and not self._eof:
            self._changed.clear()
            await self._changed.wait()
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        if len(self._buffer) <= BUFFER_BYTES // 2:
            self._session.hold(False)
        return found

    async def _line(self) -> bytes | None:
        """A line without its end; None: there is no more. Raises: RemoteProtocolError."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > scp.LINE_BYTES:
                raise RemoteProtocolError("a line without an end", section=SECTION)
            if self._eof:
                if self._buffer:
                    raise RemoteProtocolError("an end within a line", section=SECTION)
                return None
            self._changed.clear()
            await self._changed.wait()
        found, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return found

    async def _acknowledged(self) -> bool:
        """The client's word on what it was told. Raises: RemoteProtocolError."""
        byte = await self._some(1)
        if byte == b"\0":
            return True
        if byte in (b"\1", b"\2"):
            self._wrong = True
            await self._line()
            if byte == b"\1":
                return False
        raise RemoteProtocolError("the client went, or says neither yes nor no", section=SECTION)

    async def _say(self, data: bytes) -> None:
        """To the client, as far as it reads."""
        while self._session.is_full:
            self._room.clear()
            await self._room.wait()
        self._session.write(data)

    async def _complain(self, text: str) -> None:
        self._wrong = True
        await self._say(scp.complaint(text))

    # --- operations -------------------------------------------------------------------------------------------------

    def _begin(self, operation: m.Operation) -> asyncio.Future[m.Answer]:
        self._last += 1
        future = self._waiting[self._last] = self._loop.create_future()
        self._to_inner(records.FileAsk(self._session.number, self._last, operation))
        return future

    async def _do(self, operation: m.Operation) -> Any:
        """Raises: _Refused."""
        return _good(await self._begin(operation))

    async def _found(self, path: str) -> m.Attributes | None:
        """What is there; None: nothing. Raises: _Refused."""
        answer = await self._begin(m.Stat(path, True))
        if isinstance(answer, m.Status) and answer.why == "no such file":
            return None
        found: m.Found = _good(answer)
        return found.attributes

    # --- files that come --------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        await self._say(b"\0")
        (target,) = self._asked.paths
        within: list[str] = []
        times: scp.Times | None = None
        while (data := await self._line()) is not None:
            said = scp.line(data)
            if isinstance(said, scp.Said):
                self._wrong = True
                if said.fatal:
                    return
                continue
            try:
                match said:
                    case scp.Times():
                        times = said
                    case scp.End():
                        if not within:
                            raise RemoteProtocolError("the end of a folder that never began", section=SECTION)
                        within.pop()
                    case scp.Head():
                        place = posixpath.join(within[-1], said.name) if within else await self._place(target, said)
                        if said.folder:
                            within.append(await self._folder(place, len(within)))
                        else:
                            await self._file(place, said, times)
                        times = None
            except _Refused as error:
                await self._complain(f"{getattr(said, 'name', '')}: {error}")
                if isinstance(said, scp.Head) and said.folder:
                    return  # what it has in it would land elsewhere
            else:
                await self._say(b"\0")

    async def _place(self, target: str, said: scp.Head) -> str:
        """Where something goes: into the target, if that is a folder. Raises: _Refused."""
        there = await self._found(target)
        if there is not None and stat.S_ISDIR(there.mode or 0):
            return posixpath.join(target, said.name)
        if self._asked.folder or target.endswith("/"):
            raise _Refused(f"{target} is no folder")
        return target

    async def _folder(self, place: str, depth: int) -> str:
        if not self._asked.recursive:
            raise _Refused("a folder, and scp was called without -r")
        if depth >= DEPTH_MOST:
            raise _Refused(f"more than {DEPTH_MOST} folders within each other")
        there = await self._found(place)
        if there is None:
            await self._do(m.MakeFolder(place))
        elif not stat.S_ISDIR(there.mode or 0):
            raise _Refused("there is a file of that name")
        return place

    async def _file(self, place: str, said: scp.Head, times: scp.Times | None) -> None:
        """One file. Raises: _Refused, whatever of it has come."""
        attributes = m.Attributes(mode=said.mode)
        opened: m.Opened = await self._do(
            m.Open(place, False, True, append=False, create=True, truncate=True, exclusive=False, attributes=attributes)
        )
        await self._say(b"\0")
        offset, under_way, why = 0, list[asyncio.Future[m.Answer]](), ""
        while offset < said.size or under_way:
            if offset < said.size and len(under_way) < AHEAD:
                data = await self._some(min(PIECE, said.size - offset))
                if not data:
                    raise RemoteProtocolError("an end within a file", section=SECTION)
                if not why:
                    under_way.append(self._begin(m.Write(opened.handle, offset, data)))
                offset += len(data)
                continue
            why = why or _why(await under_way.pop(0))
        if await self._some(1) != b"\0":
            # The sender could not read all of it, and filled it up: it is not what it was to be.
            raise RemoteProtocolError("the client could not read the whole file", section=SECTION)
        if why:
            await self._begin(m.Close(opened.handle))
            raise _Refused(why)
        if times is not None:
            await self._do(m.HandleSetStat(opened.handle, m.Attributes(times=(times.read, times.changed))))
        await self._do(m.Close(opened.handle))

    # --- files that are given ---------------------------------------------------------------------------------------

    async def _give(self) -> None:
        if not await self._acknowledged():
            return
        for path in self._asked.paths:
            await self._given(path, posixpath.basename(path.rstrip("/")) or "/", 0)

    async def _given(self, path: str, name: str, depth: int) -> None:
        """One file, or a folder with all that is in it."""
        try:
            there = await self._found(path)
            if there is None:
                raise _Refused("no such file or folder")
            if stat.S_ISDIR(there.mode or 0):
                if not self._asked.recursive:
                    raise _Refused("is no file")
                await self._given_folder(path, name, there, depth)
            else:
                await self._given_file(path, name, there)
        except _Refused as error:
            await self._complain(f"{path}: {error}")

    async def _heads(self, there: m.Attributes, said: scp.Head) -> bool:
        """What comes before it. False: the client does not want it."""
        if self._asked.times and there.times is not None:
            await self._say(scp.times(scp.Times(there.times[1], there.times[0])))
            if not await self._acknowledged():
                return False
        await self._say(scp.head(said))
        return await self._acknowledged()

    async def _given_folder(self, path: str, name: str, there: m.Attributes, depth: int) -> None:
        if depth >= DEPTH_MOST:
            raise _Refused(f"more than {DEPTH_MOST} folders within each other")
        opened: m.Opened = await self._do(m.OpenFolder(path))
        names: list[m.Name] = []
        while not isinstance(answer := await self._begin(m.ReadFolder(opened.handle)), m.Status):
            names += _good(answer).names
        await self._do(m.Close(opened.handle))
        if _why(answer) and answer.why != "eof":
            raise _Refused(_why(answer))
        if not await self._heads(there, scp.Head(True, (there.mode or 0o755) & 0o777, 0, name)):
            return
        for one in names:
            if not stat.S_ISLNK(one.attributes.mode or 0):
                await self._given(posixpath.join(path, one.name), one.name, depth + 1)
        await self._say(b"E\n")
        await self._acknowledged()

    async def _given_file(self, path: str, name: str, there: m.Attributes) -> None:
        opened: m.Opened = await self._do(
            m.Open(path, True, False, append=False, create=False, truncate=False, exclusive=False,
                   attributes=m.Attributes())
        )  # fmt: skip
        try:
            found: m.Found = await self._do(m.HandleStat(opened.handle))
            size = found.attributes.size or 0
            if await self._heads(there, scp.Head(False, (there.mode or 0o644) & 0o777, size, name)):
                await self._pieces(opened.handle, size)
        finally:
            await self._begin(m.Close(opened.handle))

    async def _pieces(self, handle: int, size: int) -> None:
        """As many bytes as were told; where the file has fewer by now, the client is told that it is not whole."""
        offset, why = 0, ""
        while offset < size:
            answer = await self._begin(m.Read(handle, offset, min(PIECE, size - offset)))
            if not isinstance(answer, m.Content):
                why = _why(answer) or "it became shorter meanwhile"
                break
            offset += len(answer.data)
            await self._say(answer.data)
        while offset < size:
            fill = min(PIECE, size - offset)
            await self._say(bytes(fill))
            offset += fill
        if why:
            await self._complain(why)
        else:
            await self._say(b"\0")
        await self._acknowledged()


def _why(answer: Any) -> str:
    """Why it was not done; "" if it was, or nothing more comes."""
    if not isinstance(answer, m.Status) or answer.why in ("ok", "eof"):
        return ""
    return answer.text or WORDS.get(answer.why, answer.why)


def _good(answer: Any) -> Any:
    """Raises: _Refused."""
    if why := _why(answer):
        raise _Refused(why)
    return answer
