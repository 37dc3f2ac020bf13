"""clamd, by its socket: the file goes there in chunks (INSTREAM), and the verdict comes back.

"Clean" is said only by a scanner that works: before each file it must find a test file (EICAR), and say of a nest of
archives that it is deeper than it looks (`AlertExceedsMax yes`): without that setting, what it did not look into counts
as clean. One that looks into all of the nest has not shown that it would say so.
Where a ZIP has a large entry, it must find a test file at the end of one as large. An archive that is damaged, or has
entries under a password, counts as not scanned: it calls such clean, and sees little of them. A limit of its own that a
file is beyond is no finding: the file is not scanned.

Not here: what a verdict leads to (the brokers), what an archive is made of (archives).
"""

from __future__ import annotations

import io
import os
import re
import select
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from io import FileIO
from typing import Final, Literal

from msgspec import Struct

from cofferdam.brokers.kit import archives
from cofferdam.brokers.kit.source import Source

CHUNK: Final = 256 << 10
ANSWER_BYTES: Final = 4096
SECONDS: Final = 600.0
"""A scanner that moves nothing for so long is given up: the file is not scanned."""
NEST: Final = 110
"""Archives in one another: deeper than a scanner looks that is not set to more than `MaxRecursion 100`."""
SMALL: Final = 1 << 20
"""Bytes of an entry that every scanner looks into."""
LARGEST: Final = (2 << 30) - 1
"""Bytes of an entry beyond which clamd looks into none, however it is set."""
_LIMIT: Final = "Heuristics.Limits.Exceeded"
BASE_DAYS: Final = 7
"""The age of the scanner's base beyond which it counts as none."""
EICAR: Final = (r"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*").encode()
"""Not whole in this file, which scanners read as well."""
_BASE: Final = re.compile(r"ClamAV ([^/ ]+)(?:/(\d+)/(.+))?\Z")

Verdict = Literal["clean", "found", "not scanned"]


class Scanned(Struct, frozen=True):
    """`detail`: what was found, or why it was not scanned. `base`: the scanner, its base and how old that is. `partly`:
    not scanned, since it could not see all of it; in what it saw it has found nothing."""

    verdict: Verdict
    detail: str = ""
    base: str = ""
    partly: bool = False


class NotScanned(Exception):
    """Why a file counts as not scanned. Raised also by `parts`, for what a scanner would not open."""


Parts = Iterable[tuple[str, Iterable[bytes]]]
"""What a file is made of: names and contents, one after the other."""


def scan(
    path: str, file: Source, parts: Parts | None = None, *, largest: int | None = None,
    seen: Callable[[memoryview], object] | None = None, anyway: bool = False,
) -> Scanned:  # fmt: skip
    """Has the clamd at this socket look at a file; with `parts`, at each of them instead. `largest`: bytes of the
    largest entry of an archive in it, where the caller has looked. `seen` is given what the scanner was given, while
    that is at work on it; it may not be all. `anyway`: it looks at what it can see also of a file that it would not see
    all of. Never raises for what clamd does or does not."""
    base = unseen = ""
    try:
        base = _base(path)
        if "FOUND" not in _stream(path, [EICAR]):
            raise NotScanned("the scanner does not find its own test file")
        if _LIMIT not in (said := _stream(path, [_nest()])):
            deep = f"{NEST} archives in one another"
            raise NotScanned(
                f"the scanner looks into {deep}, and so does not show that it would say what it left out: set "
                "`MaxRecursion 100` or less in its clamd.conf"
                if "FOUND" in said
                else f"the scanner calls {deep} clean: set `AlertExceedsMax yes` in its clamd.conf"
            )
        try:
            _looks_into(path, archives.look(file, strict=False).largest if largest is None else largest)
        except (archives.ArchiveRefused, NotScanned) as refused:
            if not anyway:
                raise
            unseen = f"the scanner would not see all of it: {refused}"
        if parts is not None:
            return _scan_parts(path, parts, base)
        with file.open("rb", buffering=0) as opened:
            said = _stream(path, _pieces(opened, seen))
        judged = _judged(said, base)
        if anyway and judged.partly:
            _looks_at(path, file.stat().st_size)
    except archives.ArchiveRefused as refused:
        return Scanned("not scanned", f"the scanner would not see all of it: {refused}", base)
    except (NotScanned, OSError) as error:
        return Scanned("not scanned", str(error) or type(error).__name__, base)
    return Scanned("not scanned", unseen, base, True) if unseen and judged.verdict == "clean" else judged


def _pieces(opened: FileIO, seen: Callable[[memoryview], object] | None) -> Iterator[memoryview]:
    """Through one buffer: new memory for each piece costs as much as reading it."""
    buffer = memoryview(bytearray(CHUNK))
    while count := opened.readinto(buffer):
        piece = buffer[:count]
        yield piece
        if seen is not None:
            seen(piece)


def _scan_parts(path: str, parts: Parts, base: str) -> Scanned:
    for name, pieces in parts:
        found = _judged(_stream(path, pieces), base)
        if found.verdict != "clean":
            return Scanned(found.verdict, f"{name}: {found.detail}", base)
    return Scanned("clean", "", base)


def _judged(said: str, base: str) -> Scanned:
    if said == "stream: OK":
        return Scanned("clean", "", base)
    if said.startswith(f"stream: {_LIMIT}"):
        return Scanned("not scanned", f"the scanner has looked at a part alone ({said[8:].removesuffix(' FOUND')}): "
                       "raise that limit in its clamd.conf", base, True)  # fmt: skip
    if said.startswith("stream: ") and said.endswith(" FOUND"):
        return Scanned("found", said.removeprefix("stream: ").removesuffix(" FOUND"), base)
    return Scanned("not scanned", f"the scanner says {said[:200]!r}", base)


def _base(path: str) -> str:
    """Raises: NotScanned, for one that is too old."""
    with _connect(path) as sock:
        _send(sock, b"zVERSION\0")
        said = _answer(sock)
    found = _BASE.match(said)
    if found is None:
        raise NotScanned(f"the scanner says it is {said[:80]!r}")
    if found[3] is None:
        return f"clamd {found[1]}, base of unknown age"
    try:
        made = datetime.strptime(found[3].strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    except ValueError:
        return f"clamd {found[1]}, base {found[2]} of unknown age"
    days = (datetime.now(UTC) - made).days
    if days > BASE_DAYS:
        raise NotScanned(f"the scanner's base {found[2]} is {days} days old, and at most {BASE_DAYS} are let pass")
    return f"clamd {found[1]}, base {found[2]} of {made:%Y-%m-%d}"


def _looks_into(path: str, largest: int) -> None:
    """An entry of a ZIP that is larger than `MaxFileSize` is skipped by clamd without a word, whatever AlertExceedsMax
    says. So it has to find a test file at the end of one of that size. Raises: NotScanned."""
    if largest <= SMALL:
        return
    why = f"the scanner does not look into an entry of {largest} bytes: raise MaxFileSize and MaxScanSize"
    if largest > LARGEST:
        raise NotScanned(why)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("inner", "w") as to:
        for piece in _ending_in_test_file(largest):
            to.write(piece)
    said = _stream(path, [held.getvalue()])
    if "FOUND" not in said or _LIMIT in said:
        raise NotScanned(why)


def _looks_at(path: str, size: int) -> None:
    """Of a file beyond `MaxFileSize` clamd sees nothing, and says the same as of one that has such an entry. So it
    has to find a test file at the end of one as large. Raises: NotScanned."""
    said = _stream(path, _ending_in_test_file(size))
    if "FOUND" not in said or _LIMIT in said:
        raise NotScanned(f"the scanner looks at no file of {size} bytes: raise MaxFileSize and MaxScanSize")


def _ending_in_test_file(size: int) -> Iterator[bytes]:
    """A tar of zeros, and behind so many bytes the test file: who finds it has looked at all before it. It has to be a
    file of its own: what ClamAV's base knows is the one of 68 bytes, and not the same text within another."""
    zeros = -(-max(0, size - 2 * tarfile.BLOCKSIZE) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    yield _tar_head("zeros", zeros)
    for at in range(0, zeros, CHUNK):
        yield bytes(min(CHUNK, zeros - at))
    yield _tar_head("test", len(EICAR)) + EICAR.ljust(3 * tarfile.BLOCKSIZE, b"\0")


def _tar_head(name: str, size: int) -> bytes:
    head = tarfile.TarInfo(name)
    head.size = size
    return head.tobuf(tarfile.GNU_FORMAT)


def _nest() -> bytes:
    data = EICAR
    for _ in range(NEST):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("inner"), data, zipfile.ZIP_DEFLATED)
        data = held.getvalue()
    return data


def _stream(path: str, pieces: Iterable[bytes | memoryview]) -> str:
    with _connect(path) as sock:
        _send(sock, b"zINSTREAM\0")
        try:
            for piece in pieces:
                _send(sock, len(piece).to_bytes(4, "big"), piece)
            _send(sock, b"\0\0\0\0")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has said why before it hung up
        return _answer(sock)


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise NotScanned(f"the scanner cannot be reached: {error.strerror or error}") from None
    return sock


def _send(sock: socket.socket, *data: bytes | memoryview) -> None:
    """By write: this process may send to no address."""
    left = [memoryview(each) for each in data if each]
    while left:
        try:
            sent = os.writev(sock.fileno(), left)
        except BlockingIOError:
            _wait(sock, select.POLLOUT)
            continue
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def _wait(sock: socket.socket, what: int) -> None:
    """Raises: NotScanned: nothing moves."""
    poll = select.poll()
    poll.register(sock.fileno(), what)
    if not poll.poll(SECONDS * 1000):
        raise NotScanned(f"the scanner has said nothing for {SECONDS:g} s")


def _answer(sock: socket.socket) -> str:
    data = b""
    while b"\0" not in data and len(data) < ANSWER_BYTES:
        try:
            piece = os.read(sock.fileno(), ANSWER_BYTES)
        except BlockingIOError:
            _wait(sock, select.POLLIN)
            continue
        except ConnectionResetError:
            piece = b""
        if not piece:
            break
        data += piece
    if not data:
        raise NotScanned("the scanner hung up without a word")
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")
