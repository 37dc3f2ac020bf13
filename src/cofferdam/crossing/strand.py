"""The diode channel: both ends of a crossing whose middle is a strand, over which nothing comes back.

    sender ══► folder ══► spool ═══ strand ═══► keeper ══► folder ══► receiver
    (a part)              (of the diode, inside)    (outside)         (a part)

Each end has a folder that it shares with the strand's own part on its machine. What a sender hands over is on disk
before it counts as sent, whether the strand's part runs just now or not; the strand numbers it, keeps it and sends it.
A receiver takes what comes, in order. A file goes once the part that took it has nothing under way; after a crash in
between it is taken again, so records that ride carry numbers of their own. What is lost for good is missing, and those
numbers say so.

What has not come the strand's part outside says by a mark in the folder, for whoever judges whether all is there.

The records are decoded as strictly as on a pipe. After one that no honest part would send nothing more is taken: the
strand's part finds the mark, stops the channel and says so.

Not here: numbers, blocks, what is missing (brokers.diode).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.reactor import READ, Reactor, Timer
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError, LocalProtocolError, StoreError
from cofferdam.limits import is_strand_end

R = TypeVar("R")

LOOK_SECONDS: Final = 0.02
"""How often an end looks into its folder, where the kernel does not tell it to."""
TOLD_SECONDS: Final = 0.5
"""And where it does: whatever it may have missed."""
PAUSE_SECONDS: Final = 0.002
"""From one look to the next at least: whoever shares the folder can have the kernel tell as often as it likes."""
FILE_BYTES: Final = 1 << 20
"""Records of one file, if there are several in it."""
LARGEST: Final = 64 << 20
"""Bytes of the largest file."""
BUSY_MOST: Final = 32
"""What a part may have under way while it is given more."""
STOPPED: Final = ".stopped"
"""The mark of a channel of which no more is taken; it holds why."""
_NAMES: Final = 0x40 | 0x80 | 0x200
"""IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE (inotify(7))."""
_ARRAY: Final = struct.Struct(">BI")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""What lies in a folder is another's: a pipe there holds nobody up."""
HANDED: Final = ".handed"
"""The name of the last file that was taken inside: later ones have higher names, whatever the clock says."""
_NAME: Final = re.compile(r"[0-9]{20}")


class Look:
    """Calls `look` soon after a name came into a folder or went from it, as the kernel tells (inotify), and now and
    then in any case; without inotify every LOOK_SECONDS.

    To be made before the part's filter closes: it then only reads. `look` says after how many seconds it has to look
    again at the latest; 0: when it is told to."""

    def __init__(self, reactor: Reactor, folders: Iterable[Path], look: Callable[[], float]) -> None:
        self._reactor, self._call = reactor, look
        self._fd = _watch(folders)
        self._pace = LOOK_SECONDS if self._fd < 0 else TOLD_SECONDS
        self._timer: Timer | None = None
        self._hurries = False
        self._last = 0
        self._closed = False
        if self._fd >= 0:
            reactor.add(self._fd, READ, self._told)
        self.soon()

    def _told(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 1 << 16)
        self.soon()

    def soon(self) -> None:
        """It looks as soon as it may."""
        if not self._hurries and not self._closed:
            self._hurries = True
            waited = (time.monotonic_ns() - self._last) / 1e9
            self._at(max(0.0, PAUSE_SECONDS - waited))

    def _at(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.call_in(seconds, self._turn)

    def _turn(self) -> None:
        self._timer, self._hurries = None, False
        if self._closed:
            return
        self._last = time.monotonic_ns()
        wait = self._call()
        if not self._closed and not self._hurries:
            self._at(min(wait, self._pace) if wait else self._pace)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._fd >= 0:
                self._reactor.remove(self._fd)
                os.close(self._fd)


def _watch(folders: Iterable[Path]) -> int:
    """A descriptor that is readable when a name came into one of these folders or went; -1 where there is none, since
    the user has as many as the kernel gives one."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if fd >= 0 and any(libc.inotify_add_watch(fd, os.fsencode(folder), _NAMES) < 0 for folder in folders):
        os.close(fd)
        return -1
    return fd


def waiting(folder: Path) -> list[str]:
    """What lies there to be taken, in order."""
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))


def put(folder: Path, name: str, data: bytes, *, synced: bool = True, mark: bool = False) -> None:
    """A file that is there whole, and on disk, or not at all. Not `synced`: its name is on disk after `sync` alone. A
    `mark` begins with a dot, so that nobody takes it for records.

    Raises: OSError.
    """
    hidden = folder / f".{name}.new"
    file = os.open(hidden, _MAKE, 0o660)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fdatasync(file)
    except OSError:
        os.close(file)
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise
    os.close(file)
    hidden.rename(folder / (f".{name}" if mark else name))
    if synced:
        sync(folder)


def sync(folder: Path) -> None:
    """Names that were given or taken away are so on disk. Raises: OSError."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def stop(folder: Path, why: str) -> None:
    """Nothing more is taken from here, until the strand's part begins anew."""
    put(folder, STOPPED[1:], why[:500].encode(errors="replace"), mark=True)


def read(folder: Path, name: str) -> bytes:
    """Raises: FileNotFoundError; CrossingError for what no end of a strand leaves there."""
    try:
        file = os.open(folder / name, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CrossingError(f"{name[:100]!r} cannot be read: {error.strerror or error}") from None
    try:
        facts = os.fstat(file)
        if facts.st_size > LARGEST or not stat.S_ISREG(facts.st_mode):
            raise CrossingError(f"{name[:100]!r} is no file of records, or has {facts.st_size} bytes")
        parts = []
        while data := os.read(file, 1 << 20):
            parts.append(data)
    finally:
        os.close(file)
    return b"".join(parts)


def ends(
    rides: Iterable[tuple[str, str]], part: str, folders: Mapping[str, Path]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """What of a part's crossings is made by a strand: (to whom, from whom) -> folder. `rides`: the crossings of the
    crew that may be; `folders`: those of the part, by name."""
    out = next((path for name, path in folders.items() if is_strand_end(name, "out")), None)
    into = next((path for name, path in folders.items() if is_strand_end(name, "in")), None)
    return (
        {target: out for source, target in rides if source == part and out is not None},
        {source: into for source, target in rides if target == part and into is not None},
    )


def is_name(name: str) -> bool:
    """Whether a sender names its files so."""
    return _NAME.fullmatch(name) is not None


def _last(folder: Path) -> int:
    """The number of the last file that was taken, 0 where nobody knows."""
    try:
        name = read(folder, HANDED).decode(errors="replace")
    except (FileNotFoundError, CrossingError):
        return 0
    return int(name) if is_name(name) else 0


class StrandSender(Sender[R]):
    """The end inside."""

    def __init__(
        self,
        reactor: Reactor,
        folder: Path,
        codec: RecordCodec[R],
        *,
        backlog_limit: int = 1 << 20,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(backlog_limit)
        self._reactor = reactor
        self._folder = folder
        self._codec = codec
        self._wall = wall
        self._records: list[bytes] = []
        self._there: deque[tuple[str, int]] = deque()
        """Files that were handed over and lie there still, and their bytes."""
        self._scheduled = False
        self.trouble = ""
        """Why nothing can be handed over just now."""
        for path in folder.glob(".[0-9]*"):
            path.unlink(missing_ok=True)  # a crash left it: it was not sent
        for name in waiting(folder):
            self._there.append((name, (folder / name).stat().st_size))
        self._number = max([_last(folder), *(int(name) for name, _ in self._there if name.isdecimal())])
        self._count()
        self._looks = Look(reactor, (folder,), self._look)

    def send(self, record: R) -> None:
        if self.closed:
            return
        data = self._codec.encode(record)
        if len(data) > self._codec.limit:
            raise LocalProtocolError(f"a record of {len(data)} bytes; this channel carries at most {self._codec.limit}")
        self._records.append(data)
        self.backlog += len(data)
        if not self._scheduled:
            self._scheduled = True
            self._reactor.later(self.flush)

    @property
    def unsaved(self) -> int:
        """Records that are not on disk, and so not sent for certain."""
        return len(self._records)

    def flush(self) -> None:
        """Hands over now what would be at the end of the turn. Raises: StoreError."""
        self._scheduled = False
        while self._records and not self.closed:
            count = size = 0
            for data in self._records:
                if count and size + len(data) > FILE_BYTES:
                    break
                count, size = count + 1, size + len(data)
            number = max(self._number + 1, self._wall())
            whole = _ARRAY.pack(0xDD, count) + b"".join(self._records[:count])
            try:
                put(self._folder, f"{number:020d}", whole)
            except OSError as error:
                if error.errno not in _FULL:
                    raise StoreError(f"{self._folder}: {error.strerror or error}") from None
                self.trouble = f"{self._folder} is full"
                break  # it waits; what waits counts as backlog
            self.trouble = ""
            self._number = number
            del self._records[:count]
            self._there.append((f"{number:020d}", len(whole)))
        self._count()

    def _count(self) -> None:
        self.backlog = sum(map(len, self._records)) + sum(size for _, size in self._there)

    def _look(self) -> float:
        """What the strand's part has taken is gone."""
        if self.closed:
            return 0.0
        was_full = self.full
        while self._there and not os.path.lexists(self._folder / self._there[0][0]):
            self._there.popleft()
        if self._records and not self._scheduled:
            self.flush()
        self._count()
        if was_full and not self.full and self.on_room is not None:
            self.on_room()
        return 0.0

    def close(self) -> None:
        if not self.closed:
            if self._records:
                self.flush()
            self.closed = True
            self._looks.close()


class StrandReceiver(Receiver[R]):
    """The end outside. `busy`: how much the part has under way."""

    def __init__(
        self,
        reactor: Reactor,
        folder: Path,
        codec: RecordCodec[R],
        on_record: Callable[[R], None],
        busy: Callable[[], int],
        on_violation: Callable[[CrossingError], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._codec = codec
        self.on_record = on_record
        self.on_violation = on_violation
        self._busy = busy
        self._given: dict[str, None] = {}
        """Files that were given to the part, and lie there until it has nothing under way."""
        self._paused = False
        self._closed = False
        self._looks = Look(reactor, (folder,), self._look)

    def _look(self) -> float:
        wait = 0.0
        try:
            if not self._paused:
                wait = LOOK_SECONDS if self._turn() or self._given else 0.0
        except CrossingError as error:
            self.close()
            stop(self._folder, str(error))
            if self.on_violation is None:
                raise
            self.on_violation(error)
        return wait

    def _turn(self) -> bool:
        """Whether there is more than may be given just now. Raises: CrossingError."""
        self._clear()
        if os.path.lexists(self._folder / STOPPED):
            return False
        for name in waiting(self._folder):
            if name in self._given:
                continue
            if self._paused or self._closed or self._busy() > BUSY_MOST:
                return True
            try:
                data = read(self._folder, name)
            except FileNotFoundError:
                continue
            self._given[name] = None
            for record in self._codec.decode_many(data):
                self.on_record(record)
        return False

    def _clear(self) -> None:
        if self._given and not self._busy():
            for name in self._given:
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()
            self._given.clear()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._looks.soon()

    def close(self) -> None:
        self._closed = True
        self._looks.close()
