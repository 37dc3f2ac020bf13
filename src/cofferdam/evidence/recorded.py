"""Recordings of the jump server against what the audit log says of them: each file's digest at every mark that the log
has, and whether one is gone without a word.

The folder is an archivist's own, so whatever lies there is another's word: no link is followed, and nothing but a plain
file is read. Not here: what a person has verified of one of them (the verb).
"""

from __future__ import annotations

import math
import os
import random
import re
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from cofferdam.audit.files import LogReader
from cofferdam.audit.show import matching, wanted
from cofferdam.brokers.jump.recording import FOLDER, SUFFIX, verify
from cofferdam.enforce import stores
from cofferdam.evidence.inputs import Recorded

YOUNG_NS = 600 * 10**9
"""For the log to sign what it has of a new one."""
FINDINGS_MOST = 100
FILES_MOST = 100_000
_MARK: Final = struct.Struct(">Q32s?")
"""A mark as it is kept: size, digest, whether it was the last. A site's log has one for each ten seconds that somebody
worked, millions a year."""
_BEGAN = re.compile(r"([0-9]{1,12})-")
"""How the name of a recording begins: when it did (UTC s)."""


class _Late(Exception):
    """The time is over."""


class _Timed:
    """A file that is read until a time, and no longer."""

    def __init__(self, file: BinaryIO, until: float) -> None:
        self._file, self._until = file, until

    def read(self, size: int) -> bytes:
        if time.monotonic() > self._until:
            raise _Late
        return self._file.read(size)


def recorded(
    state: Path, reader: LogReader, first_ns: int, now_ns: int, seconds: float = math.inf
) -> Recorded | None:  # fmt: skip
    """What is wrong with them; None where there is no archivist's store. `first_ns`: when the log begins; `seconds`:
    how long it may take. Raises: AuditError: a damaged log; PermissionError: the store is not this user's to read."""
    until = time.monotonic() + seconds
    stores_there = sorted((state / stores.FOLDER).glob("*/archivist"))
    if not stores_there:
        return None
    marks: dict[str, bytearray] = {}
    removed: set[str] = set()
    for _, entry in matching(reader, wanted(["recording-marked", "recording-used"]), None):
        if entry.event["kind"] == "recording-marked":
            said = entry.event
            mark = _MARK.pack(said["size"], bytes.fromhex(said["sha256"]), bool(said.get("ended")))
            marks.setdefault(said["recording"], bytearray()).extend(mark)
        elif entry.event["how"] == "removed":
            removed.add(entry.event["recording"])
        elif entry.event["how"] == "not-removed":
            removed.discard(entry.event["recording"])
    found = Recorded()
    for store in stores_there:
        try:
            with _opened(store / FOLDER, os.O_DIRECTORY) as at:
                _folder(at, marks, found, first_ns, now_ns, until)
        except FileNotFoundError:
            pass  # it never began, or all that the log knows of is gone
        except PermissionError:
            raise
        except OSError as error:
            found.count += 1
            found.findings.append(f"the folder of recordings cannot be read: {error.strerror or error}")
    gone = sorted(set(marks) - removed)
    found.findings += [f"{name}: it is gone, and nothing says that it was removed" for name in gone]
    found.count += len(gone)
    found.findings = sorted(found.findings)[:FINDINGS_MOST]
    return found


def _folder(at: int, marks: dict[str, bytearray], found: Recorded, first_ns: int, now_ns: int, until: float) -> None:
    """Takes out of `marks` what lies there. Raises: OSError."""
    with os.scandir(at) as entries:
        names = sorted(islice((one.name for one in entries if one.name.endswith(SUFFIX)), FILES_MOST + 1))
    if len(names) > FILES_MOST:
        found.findings.append(f"more than {FILES_MOST:,} files lie there; the others were not looked at")
    names = names[:FILES_MOST]
    if until < math.inf:
        random.shuffle(names)  # where the time does not suffice, each has its night
    for name in names:
        said = [{"size": size, "sha256": digest.hex(), "ended": ended}
                for size, digest, ended in _MARK.iter_unpack(marks.pop(name, b""))]  # fmt: skip
        if not said:
            began = int(named[1]) * 10**9 if (named := _BEGAN.match(name)) else None
            if began is not None and (began < first_ns or abs(now_ns - began) < YOUNG_NS):
                found.unknown += 1
                continue
        try:
            # Whoever owns the folder chooses the name, and it gets into the log and onto screens.
            if len(found.findings) < FINDINGS_MOST:
                found.findings += [f"{ascii(name)[1:-1]}: {one}" for one in _compare(at, name, said, until)]
            found.count += 1
        except _Late:
            found.left += 1


def _compare(at: int, name: str, marks: list[dict[str, Any]], until: float) -> list[str]:
    if time.monotonic() > until:
        raise _Late
    try:
        with _opened(name, 0, at) as fd, os.fdopen(os.dup(fd), "rb") as file:
            # What has no bytes on the disk has no end either: no more is read than lies there now.
            size, had = os.fstat(fd).st_size, max((int(mark["size"]) for mark in marks), default=0)
            if had > size:
                return [f"it has {size} bytes, and had {had}: it was cut"]
            if size and os.lseek(fd, 0, os.SEEK_HOLE) < size:
                return ["it has holes, which nobody has recorded"]
            os.lseek(fd, 0, os.SEEK_SET)
            return verify(_Timed(file, until), marks)[:1]
    except OSError as error:
        return [f"it cannot be read: {error.strerror or error}"]


@contextmanager
def _opened(path: Path | str, flags: int, at: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=at)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) if flags else stat.S_ISREG(mode)):
            raise OSError("it is no plain file")
        yield fd
    finally:
        os.close(fd)
