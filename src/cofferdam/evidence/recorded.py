"""Recordings of the jump server against what the audit log says of them: each file's digest at every mark that the log
has, and whether one is gone without a word.

The folder is an archivist's own, so whatever lies there is another's word: no link is followed, and nothing but a plain
file is read. Not here: what a person has verified of one of them (the verb).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cofferdam.audit.files import LogReader
from cofferdam.audit.show import matching, wanted
from cofferdam.brokers.jump.recording import FOLDER, SUFFIX, verify
from cofferdam.enforce import stores
from cofferdam.evidence.inputs import Recorded

YOUNG_NS = 600 * 10**9
"""For the log to sign what it has of a new one."""
FINDINGS_MOST = 100


def recorded(state: Path, reader: LogReader, first_ns: int, now_ns: int) -> Recorded | None:
    """What is wrong with them; None where there is no archivist's store. `first_ns`: when the log begins. Raises:
    AuditError: a damaged log; OSError: the store is not to be read."""
    folders = sorted((state / stores.FOLDER).glob(f"*/archivist/{FOLDER}"))
    if not folders:
        return None
    marks: dict[str, list[dict[str, Any]]] = {}
    removed: set[str] = set()
    for _, entry in matching(reader, wanted(["recording-marked", "recording-used"]), None):
        if entry.event["kind"] == "recording-marked":
            marks.setdefault(entry.event["recording"], []).append(entry.event)
        elif entry.event["how"] == "removed":
            removed.add(entry.event["recording"])
    found = Recorded()
    for folder in folders:
        with _opened(folder, os.O_DIRECTORY) as at:
            names = sorted(name for name in os.listdir(at) if name.endswith(SUFFIX))  # noqa: PTH208 - by descriptor
            for name in names:
                said = marks.pop(name, [])
                began = int(name.split("-")[0]) * 10**9 if name.split("-")[0].isdigit() else 0
                if not said and (began < first_ns or now_ns - began < YOUNG_NS):
                    found.unknown += 1
                    continue
                found.count += 1
                found.findings += [f"{name}: {one}" for one in _compare(at, name, said)]
    gone = sorted(set(marks) - removed)
    found.findings += [f"{name}: it is gone, and nothing says that it was removed" for name in gone]
    found.count += len(gone)
    return found


def _compare(at: int, name: str, marks: list[dict[str, Any]]) -> list[str]:
    try:
        with _opened(name, 0, at) as fd, os.fdopen(os.dup(fd), "rb") as file:
            return verify(file, marks)
    except OSError as error:
        return [f"it cannot be read: {error.strerror or error}"]


@contextmanager
def _opened(path: Path | str, flags: int, at: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=at)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISDIR(mode) if flags else stat.S_ISREG(mode)):
            raise OSError(f"{path} is no plain file")
        yield fd
    finally:
        os.close(fd)
