"""Files at an asset: each operation is judged by the paths of the grant, carried out by SFTP, hashed and recorded.

A path counts by the asset's own realpath; what is to be written must not be a link. A file that goes up is written
beside its place under another name, and renamed once it is whole, or, where it is to be scanned, is not written at all
before the scanner has called it clean; nor is one that comes from there handed out. What may not be reached is not
listed either.

Not here: SFTP towards the client (outer_files), the quarantine (archivist_part).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import posixpath
from collections.abc import Callable
from typing import Any, Final, Literal, cast

import asyncssh

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.jump import AssetFilePassed, AssetFileRefused
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.inner_held import Judgement, Pieces, Quarantine
from cofferdam.brokers.jump.inner_held import No as _No
from cofferdam.brokers.jump.inner_open import Down, Folder, Up
from cofferdam.brokers.jump.inner_seen import attributes_of, is_folder, is_link, text_of, wholes
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.inner_share import Share
from cofferdam.brokers.kit.counted import Counted
from cofferdam.errors import CofferdamError
from cofferdam.policy.terms.jump_rows import Files as FileRules
from cofferdam.policy.terms.jump_rows import leads_to, within
from cofferdam.protocols.sftp import messages as m

HANDLES_MOST: Final = 256
ASKED_MOST: Final = 128
"""Requests of one session under way: more than the outer part's machine lets be."""
OUT_OF_ORDER_BYTES: Final = 32 << 20
"""Of all downloads of a session: pieces that come in another order than they stand in the file."""
UPLOADS_MOST: Final = 32
"""Files of one session that are written at a time."""
LISTED_MOST: Final = 20_000
"""Names of one folder."""
NAME_BYTES: Final = 255
"""Of one name: what file systems take."""
WAIT_SECONDS: Final = 2.0
"""Of a scan, before the person is told that they wait for it."""
CLEAN_SECONDS: Final = 2.0
"""How long the asset's end stays open after a session, to take away what was not finished."""


class Files:
    """The files of one session."""

    def __init__(
        self, live: Live, sftp: asyncssh.SFTPClient, rules: FileRules, setting: Setting, quarantine: Quarantine,
        refused: Counted, share: Share,
    ) -> None:  # fmt: skip
        self._live, self._grant = live, live.grant
        self._sftp, self._rules, self._setting = sftp, rules, setting
        self._quarantine, self._refused, self._share = quarantine, refused, share
        self._handles: dict[int, Down | Up | Folder] = {}
        self._last = 0
        self._asked = 0
        self._total = 0
        self._beside: set[str] = set()
        """What stands at the asset under a name of ours."""
        self._opening = 0
        self._over = False
        self._reached = (*self._grant.up, *self._grant.down)

    def ask(self, record: records.FileAsk) -> None:
        """Something with files."""
        self._asked += 1
        self._live.typed = self._setting.clock()
        if self._asked > ASKED_MOST or self._setting.start is None:
            self._live.end("more was asked for at once than may be")
            return
        if isinstance(record.operation, m.Write):
            self._live.sent += len(record.operation.data)
        self._setting.start(self._serve(record))

    async def _serve(self, record: records.FileAsk) -> None:
        try:
            answer = await self._do(record.operation)
        except _No as error:
            self._tell(record.operation, str(error))
            answer = m.Status("permission denied", clip(str(error)))
        except asyncssh.SFTPEOFError:
            answer = m.Status("eof")
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            answer = m.Status("no such file")
        except asyncssh.SFTPPermissionDenied:
            answer = m.Status("permission denied", "the asset does not let us")
        except (asyncssh.SFTPError, asyncssh.Error, OSError) as error:
            answer = m.Status("failure", clip(f"the asset says: {error}"))
        except CofferdamError:
            raise
        except Exception as error:  # what an asset's answer made us stumble over is this session's end, and no other's
            reason = f"the gate stumbled: {type(error).__name__}: {error}"
            self._tell(record.operation, reason)
            self._live.end(reason)
            return
        finally:
            self._asked -= 1
        if isinstance(answer, m.Content):
            self._live.received += len(answer.data)
        if not self._live.done:
            self._live.file_told(records.FileTold(self._grant.session, record.request, answer))

    def _tell(self, operation: m.Operation, reason: str, path: str = "", **more: Any) -> None:
        grant = self._grant
        self._refused.add(
            AssetFileRefused(
                wall_ns=self._setting.wall(), session=grant.name, person=grant.person, asset=grant.asset,
                way=type(operation).__name__, path=clip(path or getattr(operation, "path", "")), reason=clip(reason),
                **more,
            )
        )  # fmt: skip

    def _passed(self, way: Any, path: str, **more: Any) -> AssetFilePassed:
        grant = self._grant
        return AssetFilePassed(
            wall_ns=self._setting.wall(), session=grant.name, person=grant.person, asset=grant.asset, way=way,
            path=clip(path), **more,
        )  # fmt: skip

    async def _recorded(self, entry: AssetFilePassed) -> None:
        """Waits until it is in the log. Raises: _No."""
        future: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self._setting.audit.record(entry, lambda ok, why: None if future.done() else future.set_result((ok, why)))
        ok, why = await future
        if not ok:
            raise _No(f"it cannot be recorded: {why}")
        if self._over:
            raise _No("the session is over")

    # --- paths ------------------------------------------------------------------------------------------------------

    async def _real(self, path: str) -> str:
        found = await self._sftp.realpath(path.encode())
        return text_of(found)

    async def _new(self, path: str, patterns: tuple[str, ...]) -> str:
        """The real place of something that is to be made or changed. Raises: _No."""
        folder, name = posixpath.split(path.rstrip("/") or "/")
        if name in ("", ".", ".."):
            raise _No(f"{path} names no file")
        if "\\" in name:  # Windows has it between folders, and opens what is above this one
            raise _No(f"{path}: a name with a backslash")
        real = posixpath.join(await self._real(folder or "."), name)
        if not within(real, patterns):
            raise _No(f"{real} is outside of what the rule lets you write" if patterns else "nothing may go up")
        return real

    async def _old(self, path: str, look: bool = False) -> str:
        """The real place of something that is there. `look`: it is only asked about. Raises: _No."""
        real = await self._real(path)
        if look and (within(real, self._reached) or leads_to(real, self._reached)):
            return real
        if not look and within(real, self._grant.down):
            return real
        raise _No(f"{real} is outside of what the rule lets you {'see' if look else 'read'}")

    async def _itself(self, path: str) -> str:
        """The place of something that is only asked about, be it a link. Raises: _No."""
        folder, name = posixpath.split(path.rstrip("/") or "/")
        if name in ("", ".", "..") or "\\" in name:  # of the last, the asset says where that is
            return await self._old(path, look=True)
        real = posixpath.join(await self._real(folder or "."), name)
        if within(real, self._reached) or leads_to(real, self._reached):
            return real
        raise _No(f"{real} is outside of what the rule lets you see")

    async def _no_link(self, real: str) -> m.Attributes | None:
        """What is there, which must not be a link; None: nothing. Raises: _No."""
        try:
            found = attributes_of(await self._sftp.lstat(real.encode()))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None
        if is_link(found):
            raise _No(f"{real} is a link")
        return found

    async def _still(self, real: str) -> None:
        """Just before something is changed: the way there leads through no link by now. Raises: _No."""
        if await self._real(posixpath.dirname(real)) != posixpath.dirname(real):
            raise _No(f"{real} was changed just now")
        await self._no_link(real)
        if self._over:
            raise _No("the session is over")

    # --- operations -------------------------------------------------------------------------------------------------

    async def _do(self, operation: m.Operation) -> m.Answer:
        match operation:
            case m.Read(handle, offset, count):
                return await self._read(self._of(handle, Down), offset, count)
            case m.Write(handle, offset, data):
                return await self._write(self._of(handle, Up), offset, data)
            case m.Open():
                return await (self._open_up(operation) if operation.write else self._open_down(operation))
            case m.Close(handle):
                return await self._close(handle)
            case m.Stat(path, follow):
                real = await (self._old(path, look=True) if follow else self._itself(path))
                found = await (self._sftp.stat if follow else self._sftp.lstat)(real.encode())
                return m.Found(attributes_of(found))
            case m.HandleStat(handle):
                there = self._any(handle)
                if isinstance(there, Down):
                    return m.Found(attributes_of(await there.file.stat()))
                return m.Found(m.Attributes(there.size if isinstance(there, Up) else 0, mode=0o100600))
            case m.SetStat(path, attributes):
                real = await self._new(path, self._grant.up)
                wanted = self._settable(attributes, folder=is_folder(await self._no_link(real)))
                await self._recorded(self._passed("mode", real))
                await self._sftp.setstat(real.encode(), wanted)
            case m.HandleSetStat(handle, attributes):
                up = self._of(handle, Up)
                self._settable(attributes, up.size)
                up.least = 0 if attributes.size is not None else up.least
                up.mode = attributes.mode & 0o777 if attributes.mode is not None else up.mode
                up.times = attributes.times or up.times
            case m.OpenFolder(path):
                return await self._open_folder(await self._old(path, look=True))
            case m.ReadFolder(handle):
                folder = self._of(handle, Folder)
                some, folder.names = folder.names[: m.NAMES_MOST], folder.names[m.NAMES_MOST :]
                return m.Names(tuple(some)) if some else m.Status("eof")
            case m.RealPath(path):
                real = await self._real(path)
                if not within(real, self._reached) and not leads_to(real, self._reached):
                    real = "/"
                return m.Names((m.Name(real, m.Attributes()),))
            case m.Rename(path, to, replace):
                await self._rename(await self._new(path, self._grant.up), await self._new(to, self._grant.up), replace)
            case m.Remove(path):
                await self._change("remove", path, self._sftp.remove)
            case m.MakeFolder(path):
                await self._change("mkdir", path, self._sftp.mkdir)
            case m.RemoveFolder(path):
                await self._change("rmdir", path, self._sftp.rmdir)
        return m.Status("ok")

    async def _change(self, way: Any, path: str, act: Callable[[bytes], Any]) -> None:
        real = await self._new(path, self._grant.up)
        await self._recorded(self._passed(way, real))
        await act(real.encode())

    async def _rename(self, real: str, to: str, replace: bool) -> None:
        there = await self._no_link(real)
        self._moves(real, to, is_folder(there))
        if not replace and await self._no_link(to) is not None:
            raise asyncssh.SFTPFailure("there is something of that name")
        await self._recorded(self._passed("rename", real, to=clip(to)))
        await (self._sftp.posix_rename if replace else self._sftp.rename)(real.encode(), to.encode())

    def _moves(self, real: str, to: str, folder: bool) -> None:
        """A new place must not open what the old one did not: reading, or, of what a folder has in it, writing.
        Raises: _No."""
        down, up = self._grant.down, self._grant.up
        if folder:
            if not within(to, wholes(up)):
                raise _No(f"{to} is no place for a folder with all that is in it")
            down_old = within(real, wholes(down))
        else:
            down_old = within(real, down)
        if not down_old and (within(to, down) or (folder and leads_to(to, down))):
            raise _No(f"{real} may not be read where it is, and could be at {to}")

    def _settable(self, attributes: m.Attributes, size: int | None = None, folder: bool = False) -> asyncssh.SFTPAttrs:
        """Raises: _No."""
        if attributes.size is not None and attributes.size != size:
            raise _No("the size of a file is not set")
        if attributes.owner is not None:
            raise _No("the owner of a file is not set")
        found = asyncssh.SFTPAttrs()
        if attributes.mode is not None:
            found.permissions = attributes.mode & (0o777 if folder else self._rules.mode)
        if attributes.times is not None:
            found.atime, found.mtime = attributes.times
        return found

    def _any(self, handle: int) -> Down | Up | Folder:
        found = self._handles.get(handle)
        if found is None:
            raise asyncssh.SFTPFailure("a handle that is not open")
        return found

    def _of(self, handle: int, kind: type[Any]) -> Any:
        found = self._any(handle)
        if not isinstance(found, kind):
            raise asyncssh.SFTPFailure("a handle of something else")
        return found

    def _opened(self, there: Down | Up | Folder) -> m.Opened:
        self._last += 1
        self._handles[self._last] = there
        return m.Opened(self._last)

    def _room(self) -> None:
        if len(self._handles) >= HANDLES_MOST:
            raise asyncssh.SFTPFailure(f"more than {HANDLES_MOST} open files")

    # --- down -------------------------------------------------------------------------------------------------------

    async def _open_down(self, operation: m.Open) -> m.Answer:
        self._room()
        real = await self._old(operation.path)
        file = await self._sftp.open(real.encode(), "rb", encoding=None, block_size=0)
        try:
            found = await file.stat()
            if await self._real(operation.path) != real:
                raise _No(f"{operation.path} was changed just now")
            if (found.size or 0) > self._rules.most:
                raise _No(f"it has {found.size} bytes, and {self._rules.most} are allowed")
            await self._recorded(self._passed("open", real, size=min(max(0, found.size or 0), (1 << 53) - 1)))
        except BaseException:
            await file.close()
            raise
        down = Down(real, file)
        if self._rules.scan:
            try:
                await self._fetch(down, operation)
            except BaseException:
                await file.close()
                raise
        return self._opened(down)

    async def _fetch(self, down: Down, operation: m.Open) -> None:
        """All of it into quarantine, and looked through, before a byte of it is handed out. Raises: _No."""
        number = self._quarantine.new(self._grant.person)
        digest, size, pieces = hashlib.sha256(), 0, Pieces(down.path)
        try:
            while piece := cast(bytes, await down.file.read(records.FILE_PIECE, size)):
                size += len(piece)
                pieces.add(piece)
                if size > self._rules.most:
                    raise _No(f"it has more than {self._rules.most} bytes")
                digest.update(piece)
                await self._quarantine.add(number, piece)
                self._live.spoke = self._setting.clock()
                if self._over:
                    raise _No("the session is over")
        except BaseException:
            self._quarantine.let(number, False)
            raise
        found = await self._judge(number, "down", down.path, size, digest.hexdigest())
        if found.reason or self._over:
            if not found.reason:
                self._quarantine.let(number, False)
            reason = found.reason or "the session is over"
            self._tell(operation, reason, down.path, size=size, sha256=digest.hexdigest(), kept=found.kept)
            raise _No(reason)
        down.number, down.scan, down.pieces = number, found.scan, pieces

    async def _judge(self, number: int, way: Literal["up", "down"], path: str, size: int, sha256: str) -> Judgement:
        """Has a file looked through. The person is told where that takes long, and what came of it: of a status that
        refuses, scp shows nothing."""
        timer = asyncio.get_running_loop().call_later(WAIT_SECONDS, self._live.warn, clip(f"{path} is looked through"))
        try:
            found = await self._quarantine.judge(number, self._grant.session, way, path, size, sha256)
        finally:
            timer.cancel()
        if found.reason and not self._over:
            self._live.warn(clip(f"{path}: {found.reason}"))
        return found

    async def _read(self, down: Down, offset: int, count: int) -> m.Answer:
        self._count(count)
        data = b""
        try:
            if down.number:
                data = await self._quarantine.read(down.number, down.pieces, offset, count)
            else:
                data = cast(bytes, await down.file.read(count, offset))
        finally:
            self._total -= count - len(data)
            self._share.give(count - len(data))
        if not data:
            return m.Status("eof")
        await self._pace(len(data))
        others = sum(one.waiting for one in self._handles.values() if isinstance(one, Down) and one is not down)
        down.add(offset, data, OUT_OF_ORDER_BYTES - others)
        return m.Content(data)

    def _count(self, count: int) -> None:
        if self._total + count > self._rules.quota:
            raise _No(f"more than {self._rules.quota} bytes in one session")
        self._share.take(count, self._setting.wall())
        self._total += count

    async def _pace(self, count: int) -> None:
        """The answer waits for its time: a client asks for no more while it waits for so many."""
        await self._share.pace(count, self._setting.clock, lambda: self._over or self._live.done)

    # --- up ---------------------------------------------------------------------------------------------------------

    async def _open_up(self, operation: m.Open) -> m.Answer:
        self._room()
        if operation.append or operation.read:
            raise _No("a file is written anew and whole")
        real = await self._new(operation.path, self._grant.up)
        there = await self._no_link(real)
        if there is None and not operation.create:
            return m.Status("no such file")
        if there is not None and operation.exclusive:
            raise _No("there is a file of that name")
        if sum(1 for one in self._handles.values() if isinstance(one, Up)) >= UPLOADS_MOST:
            raise asyncssh.SFTPFailure(f"more than {UPLOADS_MOST} files are written")
        up = Up(real, self._quarantine.new(self._grant.person) if self._rules.scan else 0)
        if there is not None and not operation.truncate:
            up.least = there.size or 0
        if operation.attributes.mode is not None:
            up.mode = operation.attributes.mode & 0o777
        if not up.number:
            await self._begin(up)
        return self._opened(up)

    async def _begin(self, up: Up) -> None:
        """Something beside its place at the asset."""
        folder, name = posixpath.split(up.path)
        self._opening += 1
        mark = f".cofferdam-{self._grant.name}-{self._opening}"
        short = name.encode()[: NAME_BYTES - 1 - len(mark)].decode("utf-8", "ignore")
        up.beside = posixpath.join(folder, f".{short}{mark}")
        self._beside.add(up.beside)
        attributes = asyncssh.SFTPAttrs(permissions=0o600)
        up.file = await self._sftp.open(up.beside.encode(), "xb", attributes, encoding=None, block_size=0)

    async def _write(self, up: Up, offset: int, data: bytes) -> m.Answer:
        if up.wrong:
            raise _No(up.wrong)
        try:
            self._count(len(data))
            if offset != up.size:
                raise _No("a file is written from its beginning on, without gaps")
            if up.size + len(data) > self._rules.most:
                raise _No(f"more than {self._rules.most} bytes")
        except _No as error:
            up.wrong = str(error)
            raise
        up.hash.update(data)
        up.size += len(data)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        up.pending.add(done)
        try:
            if up.file is not None:
                await up.file.write(data, offset)
            else:
                await self._quarantine.add(up.number, data)
        except (_No, asyncssh.Error, OSError) as error:
            up.wrong = up.wrong or str(error)
            raise
        finally:
            up.pending.discard(done)
            done.set_result(None)
        await self._pace(len(data))
        return m.Status("ok")

    async def _close(self, handle: int) -> m.Answer:
        there = self._any(handle)
        del self._handles[handle]
        if isinstance(there, Down):
            self._note_down(there)
            if there.number:
                self._quarantine.let(there.number, False)
            await there.file.close()
        elif isinstance(there, Up):
            while there.pending:
                await asyncio.wait(there.pending)
            try:
                if there.wrong:
                    raise _No(there.wrong)
                await self._commit(there)
            except (_No, asyncssh.Error, OSError):
                await self._give_up(there)
                raise
        return m.Status("ok")

    def _note_down(self, down: Down) -> None:
        self._setting.audit.note(
            self._passed("down", down.path, size=down.size, sha256=down.digest, scan=down.scan), always=True
        )

    async def _commit(self, up: Up) -> None:
        """The file is whole: it goes to its place, if it may. Raises: _No."""
        scan, sha256 = "", up.hash.hexdigest()
        if up.size < up.least:
            raise _No("a part of a file is not written over: the whole is")
        if up.number:
            number, up.number = up.number, 0
            found = await self._judge(number, "up", up.path, up.size, sha256)
            if found.reason:
                self._tell(m.Close(1), found.reason, up.path, size=up.size, sha256=sha256, kept=found.kept)
                raise _No(found.reason)
            up.number, scan = number, found.scan
            await self._begin(up)
            await self._bring(up)
        if up.file is None:
            raise _No("it was not written")
        attributes = asyncssh.SFTPAttrs(permissions=up.mode & self._rules.mode)
        if up.times is not None:
            attributes.atime, attributes.mtime = up.times
        await up.file.setstat(attributes)
        await up.file.close()
        up.file = None
        await self._recorded(self._passed("up", up.path, size=up.size, sha256=sha256, scan=scan))
        await self._still(up.path)
        await self._sftp.posix_rename(up.beside.encode(), up.path.encode())
        self._beside.discard(up.beside)
        up.beside = ""
        if up.number:
            self._quarantine.let(up.number, False)
            up.number = 0

    async def _bring(self, up: Up) -> None:
        """From quarantine to the asset; what comes out is what went in. A piece comes while the one before is written.
        Raises: _No."""
        digest, offset = hashlib.sha256(), 0
        data = await self._quarantine.piece(up.number, offset)
        while up.file is not None and data:
            digest.update(data)
            at, offset = offset, offset + len(data)
            data, _ = await asyncio.gather(self._quarantine.piece(up.number, offset), up.file.write(data, at))
        if digest.digest() != up.hash.digest():
            raise _No("what was kept apart is not what came")

    async def _give_up(self, up: Up) -> None:
        """Nothing of it stays."""
        if up.number:
            self._quarantine.let(up.number, False)
            up.number = 0
        try:
            if up.file is not None:
                await up.file.close()
            if up.beside:
                await self._sftp.remove(up.beside.encode())
                self._beside.discard(up.beside)
        except (asyncssh.Error, OSError):
            pass  # the asset is gone, and the log says that the file never came
        up.file, up.beside = None, ""

    def end(self) -> None:
        """The session is over: what was read is told, what was not finished is told as such."""
        for there in self._handles.values():
            if isinstance(there, Down):
                self._note_down(there)
                if there.number:
                    self._quarantine.let(there.number, False)
            elif isinstance(there, Up):
                self._tell(m.Close(1), "it was not finished", there.path, size=there.size)
                if there.number:
                    self._quarantine.let(there.number, False)
                    there.number = 0
        self._handles.clear()

    async def clean(self) -> None:
        """The session is over: what was begun beside its place at the asset goes, if the asset still answers."""
        self._over = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_SECONDS):
                for beside in sorted(self._beside):
                    # If the asset is gone: the log says that the file never came.
                    with contextlib.suppress(asyncssh.Error, OSError):
                        await self._sftp.remove(beside.encode())
        self._beside.clear()

    # --- folders ----------------------------------------------------------------------------------------------------

    async def _open_folder(self, real: str) -> m.Answer:
        self._room()
        names: list[m.Name] = []
        async for one in self._sftp.scandir(real.encode()):
            try:
                name = text_of(one.filename)
            except _No:
                continue  # what cannot be named cannot be asked for
            if name in (".", "..") or "/" in name or not name or len(name.encode()) > NAME_BYTES:
                continue
            if len(names) >= LISTED_MOST:
                raise asyncssh.SFTPFailure(f"a folder with more than {LISTED_MOST} names")
            path = posixpath.join(real, name)
            if within(path, self._reached) or leads_to(path, self._reached):
                names.append(m.Name(name, attributes_of(one.attrs)))
        return self._opened(Folder(real, names))
