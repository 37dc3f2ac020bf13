"""Files that wait for their scan, in the archivist's folder, and the job that has them scanned.

Not here: the scanner (kit.clamd), who asks (inner_files).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.broker import JOBS_OF_PART, Job, RunJob
from cofferdam.brokers.jump import records
from cofferdam.brokers.kit.clamd import Scanned, scan
from cofferdam.errors import CofferdamError, CrossingError, GateError

FOLDER: Final = "quarantine"
FILES_MOST: Final = 1_024


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
    return msgspec.json.encode(scan(path, file))


class _File:
    def __init__(self, path: Path, fd: int) -> None:
        self.path, self.fd = path, fd
        self.size = 0
        self.trouble = ""


class Quarantine:
    """The archivist's side."""

    def __init__(self, store: Path, boot: str, run_job: RunJob, send: Callable[[Any], None]) -> None:
        self._folder = store / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._boot, self._run_job, self._send = boot, run_job, send
        self._files: dict[int, _File] = {}
        self._last = 0
        self._scanning = 0
        self._waiting: deque[int] = deque()
        self.kept = 0
        for path in self._folder.iterdir():  # what nobody waits for any more; findings stay
            if path.name.startswith("new-"):
                path.unlink()
            else:
                self.kept += 1

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
                self._send(records.Given(number, offset, os.pread(file.fd, records.FILE_PIECE, offset)))
            case records.Let(number, keep):
                del self._files[number]
                os.close(file.fd)
                if keep:
                    file.path.rename(file.path.with_name(file.path.name.removeprefix("new-")))
                    self.kept += 1
                else:
                    file.path.unlink()

    def _hold(self, record: records.Hold) -> None:
        if record.file != self._last + 1 or len(self._files) >= FILES_MOST:
            raise CrossingError(f"file {record.file} after {self._last}, or too many")
        self._last = record.file
        path = self._folder / f"new-{self._boot}-{record.file}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise GateError(f"quarantine cannot be written: {error.strerror or error}") from None
        self._files[record.file] = _File(path, fd)

    def _write(self, file: _File, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and not file.trouble:
                view = view[os.write(file.fd, view) :]
            file.size += len(data)
        except OSError as error:
            file.trouble = error.strerror or str(error)

    def _judge(self, number: int, file: _File) -> None:
        if file.trouble:
            self._say(number, Scanned("not scanned", file.trouble))
        elif self._scanning >= JOBS_OF_PART:
            self._waiting.append(number)
        else:
            self._scan(number, file)

    def _scan(self, number: int, file: _File) -> None:
        self._scanning += 1
        order = msgspec.json.encode(Order(file.path.name))
        self._run_job("scan", order, lambda answer, why: self._scanned(number, answer, why))

    def _scanned(self, number: int, answer: bytes, why: str) -> None:
        self._scanning -= 1
        try:
            found = msgspec.json.decode(answer, type=Scanned) if not why else Scanned("not scanned", why)
        except msgspec.MsgspecError:
            found = Scanned("not scanned", "the scan gave no answer that is one")
        self._say(number, found)
        while self._waiting:
            next_ = self._waiting.popleft()
            if (file := self._files.get(next_)) is not None:
                self._scan(next_, file)
                return

    def _say(self, number: int, found: Scanned) -> None:
        if (file := self._files.get(number)) is not None:
            name = file.path.name.removeprefix("new-")
            self._send(records.Judged(number, found.verdict, found.detail[:500], name))

    def close(self) -> None:
        for file in self._files.values():
            os.close(file.fd)
