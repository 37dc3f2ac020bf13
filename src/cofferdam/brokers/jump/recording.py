"""A recording: asciicast v2 (a JSON header, then a JSON line for each event), written so that what is there is whole.

Events are "o" (shown), "i" (typed, where a rule says `opaque`), "r" (resized), "m" (a mark), "x" (how it ended), and
"b" and "B": bytes that a program without a terminal said or was told and that are no text, in base64. Players skip what
they do not know. What is no UTF-8 stands as lone surrogates (`\\udc80` and so on), so that nothing is lost.

Not here: who is recorded (inner_session), what vouches for it (archivist_part).
"""

from __future__ import annotations

import base64
import codecs
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from cofferdam.brokers.jump.records import Record

SUFFIX: Final = ".cast"
FOLDER: Final = "recordings"
"""In the archivist's store."""
_BYTES: Final = {"o": "b", "i": "B"}


def began(name: str) -> tuple[int, int, str]:
    """What recordings go by: the second in which one began, and the session's number; both are in its name."""
    seconds, _, session = name.removesuffix(SUFFIX).partition("-")
    number = session.rpartition("-")[2]
    return int(seconds) if seconds.isdecimal() else 0, int(number) if number.isdecimal() else 0, name


class Writer:
    """One that grows. Raises OSError from everywhere."""

    def __init__(self, path: Path, record: Record, wall_ns: int, now_ns: int) -> None:
        self.path = path
        self.session = record.name
        self.vouched = self.failed = False
        """Whether the log knows it; whether it could not be written."""
        self.number = 0
        self.size = 0
        self._began = self._synced = self._marked = now_ns
        self._marked_size = 0
        self._hash = hashlib.sha256()
        self._bare = not record.term
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        title = f"{record.person} ({record.source}) at {record.asset} as {record.login}"
        head: dict[str, Any] = {
            "version": 2, "width": record.columns, "height": record.rows, "timestamp": wall_ns // 10**9,
            "title": title, "env": {"TERM": record.term},
        }  # fmt: skip
        if record.command:
            head["command"] = record.command
        self._write(json.dumps(head).encode() + b"\n")

    def add(self, kind: str, data: bytes, now_ns: int, number: int) -> int:
        """One event. Returns the bytes that it took."""
        if kind in _BYTES and self._bare:
            # Each piece by itself: a letter in two of them must not wait while bytes pass it.
            if _is_text(data):
                text = data.decode("utf-8", "surrogateescape")
            else:
                kind, text = _BYTES[kind], base64.b64encode(data).decode()
        elif kind == "o":
            text = self._decode(data)
        else:
            text = data.decode("utf-8", "surrogateescape" if kind == "i" else "replace")
        line = json.dumps([round((now_ns - self._began) / 1e9, 6), kind, text]).encode() + b"\n"
        self._write(line)
        self.number = number
        return len(line)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            view = view[written:]
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """SHA-256 of all that was written."""
        return self._hash.copy().hexdigest()

    def sync(self, now_ns: int, after_ns: int) -> None:
        """Has it on disk, if it was not for so long; and looks whether it is still where it was: a file that somebody
        has removed takes what is written, and nobody ever finds it."""
        if now_ns - self._synced >= after_ns:
            self._synced = now_ns
            os.fdatasync(self._fd)
            there, own = self.path.stat(), os.fstat(self._fd)
            if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
                raise OSError(errno.ESTALE, "another file stands in its place")

    def due(self, now_ns: int, after_ns: int, bytes_: int) -> bool:
        """Whether there is something to vouch for."""
        new = self.size - self._marked_size
        return new > 0 and (now_ns - self._marked >= after_ns or new >= bytes_)

    def marked(self, now_ns: int) -> None:
        """It was vouched for."""
        self._marked, self._marked_size = now_ns, self.size

    def close(self) -> None:
        os.close(self._fd)


def _is_text(data: bytes) -> bool:
    """Whether a piece is text, but for a letter that begins or ends beyond it."""
    if b"\0" in data:
        return False
    text = data.decode("utf-8", "replace")
    return text[1:-1].count("\ufffd") * 100 <= len(text)


def events(data: bytes) -> Iterator[tuple[float, str, str]]:
    """(seconds, kind, text) of a recording. A last line that is not whole is left out."""
    for line in data.split(b"\n")[1:-1]:
        at, kind, text = json.loads(line)
        yield float(at), str(kind), str(text)


def stream(data: bytes, kind: str) -> bytes:
    """All that was shown ("o") or typed ("i"), as the bytes that it was."""
    return b"".join(
        text.encode("utf-8", "surrogateescape") if found == kind else base64.b64decode(text)
        for _, found, text in events(data) if found in (kind, _BYTES[kind])
    )  # fmt: skip


def header(data: bytes) -> dict[str, Any]:
    """What stands in its first line."""
    found: dict[str, Any] = json.loads(data.split(b"\n", 1)[0])
    return found


class Readable(Protocol):
    """What a recording is read from."""

    def read(self, size: int, /) -> bytes: ...


def verify(file: Readable, marks: list[dict[str, Any]]) -> list[str]:
    """What is wrong between a recording and what the audit log says of it, in words. It is read once, in pieces."""
    if not marks:
        return ["the audit log does not know it"]
    findings = []
    digest, size = hashlib.sha256(), 0
    for mark in sorted(marks, key=lambda mark: int(mark["size"])):
        while size < int(mark["size"]) and (data := file.read(min(1 << 20, int(mark["size"]) - size))):
            digest.update(data)
            size += len(data)
        if size < int(mark["size"]):
            findings.append(f"it has {size} bytes, and had {mark['size']}: it was cut")
        elif digest.hexdigest() != mark["sha256"]:
            findings.append(f"its first {size} bytes are not what they were")
    if any(mark.get("ended") for mark in marks) and file.read(1):
        findings.append(
            f"it goes on, and ended with {max(int(mark['size']) for mark in marks)} bytes: something was added"
        )
    return findings
