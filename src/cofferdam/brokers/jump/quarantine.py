"""Files that wait for their scan, in the archivist's folder, and the job that has them scanned.

Not here: the scanner (kit.clamd), who asks (inner_files).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.broker import JOBS_OF_PART, Job, RunJob
from cofferdam.brokers.jump import records, told
from cofferdam.brokers.kit.clamd import Scanned, scan
from cofferdam.errors import CofferdamError, CrossingError, GateError

FOLDER: Final = "quarantine"
FREE_BYTES: Final = 64 << 20
"""Room that is kept free on the disk, which others share: below it nothing more is recorded or kept apart."""
LOOK_BYTES: Final = 1 << 20
KEPT_BYTES: Final = 2 << 30
"""Of all that did not pass and stays; what comes later is refused, told with its SHA-256, and not kept."""
NEW: Final = "new-"
"""Before the name of one that waits for its scan."""
KEPT_MOST: Final = 4_000
"""The same in files. Of both, one person's may be half: nobody fills it up for all."""
SCANS_OF_PERSON: Final = JOBS_OF_PART // 2
"""At a time: a scan may take a quarter of an hour, and others do not wait for all that one person brings."""


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """Which file."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,128}$")]


def look(job: Job) -> bytes:
    """The job's work. Raises: CofferdamError: the order makes no sense."""
    name = msgspec.json.decode(job.arguments, type=Order).name
    file = job.reads["archivist"] / FOLDER / name
    if file.is_symlink() or not file.is_file():
        raise CofferdamError("the order names no file")
    path = job.sockets.get("clamd", "")
    if not path:
        return msgspec.json.encode(Scanned("not scanned", "no scanner: `cofferdam up --socket clamd=PATH`"))
    return msgspec.json.encode(scan(path, file, anyway=True))


class Room:
    """The disk's free room. Looked at once for each megabyte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unlooked = LOOK_BYTES

    def check(self, size: int) -> None:
        """Before so much is written. Raises: OSError: there is no room for it."""
        self._unlooked += size
        if self._unlooked >= LOOK_BYTES:
            self.look()

    def look(self) -> None:
        """Raises: OSError: there is no room."""
        found = os.statvfs(self._folder)
        if found.f_bavail * found.f_frsize < FREE_BYTES:
            raise OSError(errno.ENOSPC, "the disk is full")
        self._unlooked = 0


class _File:
    """`fd`: -1 where it could not be made."""

    def __init__(self, path: Path, fd: int, person: str) -> None:
        self.path, self.fd, self.person = path, fd, person
        self.size = 0
        self.stays = False
        self.trouble = ""

    @property
    def name(self) -> str:
        """When it stays."""
        return self.path.name.removeprefix(NEW)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Quarantine:
    """The archivist's side."""

    def __init__(self, store: Path, boot: str, run_job: RunJob, send: Callable[[Any], None], room: Room) -> None:
        self._room = room
        self._folder = store / FOLDER
        self._folder.mkdir(mode=0o750, exist_ok=True)
        self._boot, self._run_job, self._send = boot, run_job, send
        self._files: dict[int, _File] = {}
        self._last = 0
        self._scanning: Counter[str] = Counter()
        self._waiting: deque[int] = deque()
        self.kept = self._kept_bytes = 0
        self._whose: dict[str, tuple[str, int]] = {}
        """Person and size, by name, of what has come to stay in this life."""
        self.stay: dict[str, str] = {}
        """What should have gone and did not, and why: that ends nobody's session."""
        for path in (self._folder, *self._folder.iterdir()):  # what nobody waits for any more; findings stay
            try:
                if path == self._folder:
                    path.chmod(0o750)  # the job reads it by the archivist's group; recordings are read by no other part
                elif path.name.startswith(NEW):
                    path.unlink()
                else:
                    self._kept_bytes += path.stat().st_size
                    self.kept += 1
            except OSError as error:
                self.stay[path.name] = error.strerror or str(error)

    def on_record(self, record: Any) -> None:
        """What the inner part says. Raises: CrossingError."""
        if isinstance(record, records.Hold):
            self._hold(record)
            return
        file = self._files.get(record.file)
        if file is None:
            raise CrossingError(f"speaks of file {record.file}, which is not held")
        match record:
            case records.HoldPiece(number, data):
                self._write(file, data)
                self._send(records.Held(number, file.size, file.trouble))
            case records.Judge(number):
                self._judge(number, file)
            case records.Give(number, offset):
                self._send(records.Given(number, offset, _piece(file, offset)))
            case records.Let(number, keep):
                del self._files[number]
                file.close()
                with contextlib.suppress(OSError):  # what is left of it goes when the archivist begins anew
                    if keep and file.stays:
                        file.path.rename(file.path.with_name(file.name))
                        return
                    file.path.unlink()
                if file.stays:
                    self._goes(file.name, file.size)

    def _hold(self, record: records.Hold) -> None:
        if record.file != self._last + 1 or len(self._files) >= records.HELD_MOST:
            raise CrossingError(f"file {record.file} after {self._last}, or too many")
        self._last = record.file
        path = self._folder / f"{NEW}{self._boot}-{record.file}"
        file = self._files[record.file] = _File(path, -1, record.person)
        try:
            self._room.look()
            file.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            file.trouble = error.strerror or str(error)

    def _write(self, file: _File, data: bytes) -> None:
        view = memoryview(data)
        if file.trouble:
            return
        try:
            self._room.check(len(data))
            while view:
                view = view[os.write(file.fd, view) :]
            file.size += len(data)
        except OSError as error:
            file.trouble = error.strerror or str(error)

    def _judge(self, number: int, file: _File) -> None:
        if file.trouble:
            self._say(number, Scanned("not scanned", file.trouble))
        else:
            self._waiting.append(number)
            self._next()

    def _next(self) -> None:
        """Those who have the fewest scans first, in the order in which they came."""
        while self._scanning.total() < JOBS_OF_PART:
            self._waiting = deque(number for number in self._waiting if number in self._files)
            number = min(self._waiting, key=lambda one: self._scanning[self._files[one].person], default=0)
            if not number or self._scanning[self._files[number].person] >= SCANS_OF_PERSON:
                return
            self._waiting.remove(number)
            self._scan(number, self._files[number])

    def _scan(self, number: int, file: _File) -> None:
        self._scanning[file.person] += 1
        order = msgspec.json.encode(Order(file.path.name))
        self._run_job("scan", order, lambda answer, why: self._scanned(number, file.person, answer, why))

    def _scanned(self, number: int, person: str, answer: bytes, why: str) -> None:
        self._scanning -= Counter((person,))  # and nobody's zero is kept
        try:
            found = msgspec.json.decode(answer, type=Scanned) if not why else Scanned("not scanned", why)
        except msgspec.MsgspecError:
            found = Scanned("not scanned", "the scan gave no answer that is one")
        self._say(number, found)
        self._next()

    def _say(self, number: int, found: Scanned) -> None:
        if (file := self._files.get(number)) is not None:
            name = ""
            if found.verdict != "clean" and self._has_room(file):
                file.stays, name = True, file.name
                self._whose[name] = file.person, file.size
                self.kept += 1
                self._kept_bytes += file.size
            self._send(records.Judged(number, found.verdict, found.detail[:500], name, found.partly))

    def _has_room(self, file: _File) -> bool:
        """Whether it may stay."""
        sizes = [size for person, size in self._whose.values() if person == file.person]
        return (
            self.kept < KEPT_MOST and self._kept_bytes + file.size <= KEPT_BYTES
            and len(sizes) < KEPT_MOST // 2 and sum(sizes) + file.size <= KEPT_BYTES // 2
        )  # fmt: skip

    def _goes(self, name: str, size: int) -> None:
        self._whose.pop(name, None)
        self.kept -= 1
        self._kept_bytes -= size

    # --- operators ----------------------------------------------------------------------------------------------------

    def listed(self) -> list[told.Kept]:
        """What has stayed, the newest first."""
        found: list[told.Kept] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if not path.name.startswith(NEW):
                    found.append({"name": path.name, "size": facts.st_size, "at_ns": facts.st_mtime_ns})
        return sorted(found, key=lambda one: one["at_ns"], reverse=True)[:KEPT_MOST]

    def size(self, name: str) -> int:
        """Raises: GateError: there is none."""
        path = self._folder / name
        if name.startswith(NEW) or not path.is_file():
            raise GateError(f"no file {name!r} is in quarantine", hint="`cofferdam jump quarantine list` shows them")
        return path.stat().st_size

    def remove(self, name: str) -> str:
        """Throws a file away. Returns why that cannot be done, "" if it was."""
        path = self._folder / name
        try:
            size = path.stat().st_size
            path.unlink()
        except OSError as error:
            return error.strerror or str(error)
        self._goes(name, size)
        return ""

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _piece(file: _File, offset: int) -> bytes:
    """Nothing where it cannot be read: what comes out is compared with what went in."""
    try:
        return os.pread(file.fd, records.FILE_PIECE, offset)
    except OSError:
        return b""
