"""The audit log on disk: what is appended is durable on return, whatever happens next.

An append writes one frame to the journal and waits for the disk (fdatasync). Full tiles and bundles are written as they
fill; at intervals `publish` writes the unfinished ones, begins a new journal segment, waits until all of it is on disk,
and puts a signed checkpoint in place. Only then old segments go. So at any moment checkpoint plus journal are the log.

When the disk fails, appends raise `LogUnwritable` and keep nothing of the batch; each later append (and `tick`) first
tries to put things right, so the log works again by itself when space returns. After a failed fdatasync the kernel may
have dropped the data, so the segment is written anew from memory.

A full disk is met twice. If only tiles and checkpoint have no room, appends go on into what the journal has (`stuck`).
If that is used up too, the journal moves to the reserve, a file that was allocated for this while there was room: no
other program can take that away.

One process writes: the folder is locked.

Not here: the bytes of frames (frames), recovery (recovery), acknowledging producers (service).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from cofferdam.audit.checkpoint import Checkpoint, SignerKey, sign_checkpoint
from cofferdam.audit.entry import MAX_ENTRY_BYTES, Draft, encode_event, encode_text, format_time
from cofferdam.audit.events.gate import PolicyLoaded
from cofferdam.audit.events.log import ClockJump
from cofferdam.audit.frames import FOLDER, make_frame, segment_header, segment_path
from cofferdam.audit.keys import sync_folder, write_file
from cofferdam.audit.tiles import ENTRIES, join_entries, join_hashes, tile_path
from cofferdam.audit.tree import WIDTH, Tree, leaf_hash
from cofferdam.audit.verify import CHECKPOINT, RESERVE
from cofferdam.errors import AuditError, LogUnwritable
from cofferdam.histogram import Histogram

SECOND = 1_000_000_000
JUMP_NS = SECOND
"""Wall and monotonic clock may part by this much (ns) before the log says that the clock jumped."""
PUBLISH_ENTRIES = 256 * 256
"""So many entries are published at once, without waiting for the interval."""
ALLOCATE = (4 << 20, 256 << 10, 4 << 10)
"""Bytes by which a segment is allocated ahead: the first that the disk has plenty of room for. Writing into allocated
space halves the time that fdatasync takes."""
RESERVES = (32 << 20, 8 << 20, 2 << 20, 256 << 10)
"""Bytes of the reserve: the first that the disk has sixteen times. 32 MiB hold some 25,000 writes with outcome."""
STUCK_MOST = 1 << 17
"""Entries that may wait for a checkpoint while the disk is full; they are held in memory."""
FULL = (errno.ENOSPC, errno.EDQUOT)
SYNC_EACH = 16
"""Up to so many new files are synced one by one; more with one syncfs."""
WAY_OUT = "free some space or replace the disk; the log then works again by itself"
MAKER = "auditor"
"""The maker of the log's own entries."""

_libc = ctypes.CDLL(None, use_errno=True)


class PreparedDrafts(msgspec.Struct, frozen=True):
    """Events of one producer, ready to be appended."""

    maker: bytes
    policy: str
    events: list[bytes]
    loads: str = ""


class _Seal(msgspec.Struct):
    """What one publication has to make durable, and what it makes needless."""

    size: int
    root: bytes
    note: bytes
    files: dict[str, bytes]
    segments: list[str]
    full: list[str]
    error: OSError | None = None


def prepare(maker: str, policy: str, drafts: Sequence[Draft]) -> PreparedDrafts:
    """Check and encode drafts. Raises: AuditError if one does not fit into an entry."""
    loads = ""
    for draft in drafts:
        if isinstance(draft, PolicyLoaded):
            loads = draft.policy
    return PreparedDrafts(encode_text(maker), policy, [encode_event(draft) for draft in drafts], loads)


class AuditLog:
    """An open log. Make one with `recovery.open_log`. Not for use from several threads."""

    def __init__(
        self,
        folder: Path,
        key: SignerKey,
        *,
        site: str,
        lock: int,
        tree: Tree,
        bundle: list[bytes],
        last_ns: int,
        wall_ns: Callable[[], int],
        mono_ns: Callable[[], int],
        interval_ns: int,
        retry_ns: int,
        background: bool,
    ) -> None:
        self.folder, self.key, self.site = folder, key, site
        self.origin = key.name
        self.fault = ""
        """Why the log cannot be written, or ""."""
        self.stuck = ""
        """Why no checkpoint can be signed though entries are taken, or ""."""
        self.policy = ""
        self.published = 0
        """Entries under the last checkpoint."""
        self.root = b""
        """Their root; b"" before the first checkpoint."""
        self.commits = Histogram()
        """Durations of appends (ns)."""
        self.publications = Histogram()
        """Durations of publications (ns)."""
        self.background = background
        self.appended = 0
        """Entries appended since the log was opened."""
        self._site = encode_text(site)
        self._tree, self._bundle = tree, bundle
        self._lock = lock
        self._wall, self._mono = wall_ns, mono_ns
        self._interval, self._retry = interval_ns, retry_ns
        self._last_ns = last_ns
        self._base = (wall_ns(), mono_ns())
        self._due = mono_ns() + interval_ns
        self._retry_at = 0
        self._prefix = f"{folder}/"
        self._pending: dict[str, bytes] = {}  # files still to be written
        self._written: dict[str, bytes] = {}  # files written, not known to be durable
        self._full: list[str] = []  # tiles completed since the last checkpoint: their partial forms can go
        self._old: list[str] = []  # segments that the next checkpoint makes needless
        self._segment = ""
        self._descriptor = -1
        self._offset = self._allocated = 0
        self._digest = self._header = b""
        self._frames: list[bytes] = []  # of this segment, to write it anew should the disk fail
        self._journal_bad = False
        self._sealing: tuple[threading.Thread, _Seal, int] | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Durable entries."""
        return self._tree.size

    @property
    def unpublished(self) -> int:
        """Entries that no checkpoint covers yet."""
        return self.size - self.published

    def resume(self, segments: Sequence[str], entries: list[bytes]) -> None:
        """Go on after `entries`, which stand only in these segments of the journal so far. For `recovery`.

        Raises: LogUnwritable."""
        self._old = list(segments)
        self.published = self.size
        self._grow(entries)
        try:
            try:
                self._begin_segment(self.size, self._tree.root())
            except OSError as error:
                if error.errno not in FULL or not self._has_reserve():
                    raise
                header = segment_header(self.origin, self.size, self._tree.root())
                self._open_segment(segment_path(self.size), [header], reserve=True)
        except OSError as failed:
            raise self._fail("begin", segment_path(self.size), failed) from failed
        self._old = [path for path in self._old if path != self._segment]

    # --- appending

    def append(self, drafts: Sequence[Draft], *, maker: str, policy: str = "") -> range:
        """Append drafts as one group; they are durable on return. Returns their indexes.

        Raises: LogUnwritable (nothing was kept), AuditError (a draft is too large; nothing was kept).
        """
        return self.append_all([prepare(maker, policy, drafts)])[0]

    def append_all(self, parts: Sequence[PreparedDrafts]) -> list[range]:
        """Append several producers' events with one wait for the disk. Raises: LogUnwritable (nothing was kept)."""
        if self._closed:
            raise LogUnwritable("the audit log is closed")
        begun = time.perf_counter_ns()
        self._collect()
        if self.fault:
            self._mend()
        if self.stuck:
            self._unstick()
        wall, mono = self._wall(), self._mono()
        own, base = self._clock(wall, mono)
        now = max(self._last_ns, wall)
        policy = self.policy
        first = index = self._tree.size
        entries: list[bytes] = []
        ranges: list[range] = []
        stamp = b',"site":' + self._site + b',"time":"' + format_time(now) + b'"}'
        for part in (*own, *parts):
            policy = part.loads or policy
            suffix = b',"maker":%b,"policy":"%b"%b' % (part.maker, (part.policy or policy).encode(), stamp)
            begin = index
            for event in part.events:
                entries.append(b'{"event":%b,"index":%d%b' % (event, index, suffix))
                index += 1
            ranges.append(range(begin, index))
        if not entries:
            return ranges
        if max(map(len, entries)) > MAX_ENTRY_BYTES:
            raise AuditError(f"an entry is larger than {MAX_ENTRY_BYTES} bytes")
        frame, digest = make_frame(self._digest, first, entries, self.key)
        try:
            self._write_or_move(frame)
        except OSError as error:
            self._blank(len(frame) if self._journal_bad else 0)
            raise self._fail("append to", self._segment, error) from error
        self._digest = digest
        self._frames.append(frame)
        self._last_ns, self._base, self.policy = now, base, policy
        self._grow(entries)
        self.appended += len(entries)
        self.commits.add(time.perf_counter_ns() - begun)
        if self.unpublished >= PUBLISH_ENTRIES and self._sealing is None:
            self._try_publish()
        return ranges[len(own) :]

    def _clock(self, wall: int, mono: int) -> tuple[list[PreparedDrafts], tuple[int, int]]:
        """The entry that tells of a clock that jumped, if it did, and the new readings to compare with."""
        jump = (wall - self._base[0]) - (mono - self._base[1])
        if abs(jump) <= JUMP_NS:
            return [], self._base
        entry = ClockJump(wall_ns=max(wall, 0), jump_ns=str(jump), clock=format_time(max(wall, 0)).decode())
        return [prepare(MAKER, "", [entry])], (wall, mono)

    def _write_or_move(self, frame: bytes) -> None:
        """Into the segment, or into the reserve if the disk is full. Raises: OSError."""
        try:
            self._write_frame(frame)
        except OSError as error:
            if error.errno not in FULL or not self._has_reserve():
                raise
            self._open_segment(self._segment, [self._header, *self._frames], reserve=True)
            self._write_frame(frame)

    def _has_reserve(self) -> bool:
        return Path(self._prefix + RESERVE).is_file()

    @property
    def journal_room(self) -> int:
        """Bytes that the journal has, whatever the disk has."""
        return max(0, self._allocated - self._offset)

    def keep_reserve(self) -> None:
        """Have the reserve there while the disk has room for it. To be called now and then."""
        if self.stuck or self.fault or self._has_reserve():
            return
        disk = os.fstatvfs(self._lock)
        free = disk.f_bavail * disk.f_frsize
        size = next((size for size in RESERVES if size * 16 <= free), 0)
        temporary = self._prefix + RESERVE + ".new"
        if not size:
            return
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                os.posix_fallocate(descriptor, 0, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, self._prefix + RESERVE)  # noqa: PTH105
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108

    def _write_frame(self, frame: bytes) -> None:
        end = self._offset + len(frame)
        if end > self._allocated:
            if self.stuck:  # what room there is, is for the tiles
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._allocate(end)
        self._journal_bad = True
        view, at = memoryview(frame), self._offset
        while view:
            done = os.pwrite(self._descriptor, view, at)
            view, at = view[done:], at + done
        os.fdatasync(self._descriptor)
        self._offset, self._journal_bad = end, False

    def _blank(self, length: int) -> None:
        """Take back a frame that was refused, as far as the disk lets us: should we crash before the segment is written
        anew, it must not be found there."""
        length = min(length, self._allocated - self._offset)
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, bytes(max(length, 0)), self._offset)

    def _allocate(self, end: int) -> None:
        """Room up to `end` and some more, durably: a frame never lies beyond the end that the disk knows of."""
        disk = os.fstatvfs(self._descriptor)
        free = disk.f_bavail * disk.f_frsize
        step = next((step for step in ALLOCATE if step * 16 <= free), ALLOCATE[-1])  # leave room for the tiles
        upto = (end // step + 1) * step
        os.posix_fallocate(self._descriptor, self._allocated, upto - self._allocated)
        os.fsync(self._descriptor)
        self._allocated = upto

    def _grow(self, entries: list[bytes]) -> None:
        """Take durable entries into the tree; write the tiles that they fill."""
        tree, bundle, add = self._tree, self._bundle, self._tree.add
        for entry in entries:
            bundle.append(entry)
            done = add(leaf_hash(entry))
            if done:
                path = tile_path(ENTRIES, tree.size // WIDTH - 1)
                self._pending[path] = join_entries(bundle)
                self._full.append(path)
                bundle.clear()
                for level, index, hashes in done:
                    path = tile_path(level, index)
                    self._pending[path] = join_hashes(hashes)
                    self._full.append(path)
        if self._pending:
            try:
                self._flush()
            except OSError as error:  # the entries are in the journal; what comes next is refused until this works
                self._stall("write", "tile", error)

    def _flush(self) -> None:
        while self._pending:
            path, data = next(iter(self._pending.items()))
            self._put(path, data)
            self._written[path] = self._pending.pop(path)

    def _put(self, path: str, data: bytes) -> None:
        target = self._prefix + path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(target + ".new", flags, 0o644)
        except FileNotFoundError:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target + ".new", flags, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.replace(target + ".new", target)  # noqa: PTH105  # hot path

    # --- publishing

    def publish(self) -> Checkpoint:
        """Put a checkpoint over all entries in place, and wait for it. Raises: LogUnwritable."""
        self._collect(wait=True)
        if self.fault:
            self._mend()
        if self.unpublished or not self.published:
            self._try_publish(wait=True)
            if self.fault or self.stuck:
                raise LogUnwritable(self.fault or self.stuck, hint=WAY_OUT)
        return Checkpoint(self.origin, self.size, self._tree.root())

    def tick(self) -> None:
        """To be called a few times a second: publishes when due, notes clock jumps, tries to mend a fault.

        Raises: LogUnwritable while the log cannot be written."""
        self._collect()
        if self.fault:
            self._mend()
        mono = self._mono()
        if self.stuck:
            self._unstick()
        if self._clock(self._wall(), mono)[0]:
            self.append_all([])
        if self.unpublished and mono >= self._due and self._sealing is None:
            self._try_publish()
        if self.fault:
            raise LogUnwritable(self.fault, hint=WAY_OUT)

    def _try_publish(self, *, wait: bool = False) -> None:
        """Stage a publication, and finish it in a thread if we may not wait. Sets `fault` if it fails."""
        begun = time.perf_counter_ns()
        self._due = self._mono() + self._interval
        size, root = self._tree.size, self._tree.root()
        # Unfinished tiles that found no room are as good as these, which hold them.
        self._pending = {path: data for path, data in self._pending.items() if ".p/" not in path}
        try:
            for level, hashes in enumerate(self._tree.levels):
                if hashes:
                    self._pending[tile_path(level, size // WIDTH ** (level + 1), len(hashes))] = join_hashes(hashes)
            if self._bundle:
                self._pending[tile_path(ENTRIES, size // WIDTH, len(self._bundle))] = join_entries(self._bundle)
            self._flush()
            if self._frames or not self._segment:
                self._begin_segment(size, root)
        except OSError as error:
            self._stall("publish", self.folder.name, error)
            return
        note = sign_checkpoint(Checkpoint(self.origin, size, root), self.key)
        seal = _Seal(size, root, note, self._written, self._old, self._full)
        self._written, self._old, self._full = {}, [], []
        thread = threading.Thread(target=self._seal, args=(seal,), name="audit-seal")
        self._sealing = (thread, seal, begun)
        if self.background and not wait:
            thread.start()
        else:
            self._seal(seal)
            self._collect()

    def _begin_segment(self, size: int, root: bytes) -> None:
        """A new, empty journal segment for the entries from `size` on. Raises: OSError, and then nothing changed."""
        header = segment_header(self.origin, size, root)
        old = self._segment
        self._open_segment(segment_path(size), [header])
        self._frames = []
        if old and old != self._segment:
            self._old.append(old)

    def _open_segment(self, path: str, parts: list[bytes], *, reserve: bool = False) -> None:
        """Write a segment under a spare name, or into the reserve, put it in place, use it from here on.

        Raises: OSError."""
        temporary = self._prefix + (RESERVE if reserve else path + ".new")
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if reserve else os.O_CREAT | os.O_TRUNC)
        descriptor = os.open(temporary, flags, 0o640)
        before = self._descriptor, self._allocated
        self._descriptor, self._allocated = descriptor, os.fstat(descriptor).st_size
        try:
            data = b"".join(parts)
            if len(data) > self._allocated:
                self._allocate(len(data))
            view, at = memoryview(data), 0
            while view:
                done = os.pwrite(descriptor, view, at)
                view, at = view[done:], at + done
            os.fsync(descriptor)
            os.replace(temporary, self._prefix + path)  # noqa: PTH105
            sync_folder(self.folder / FOLDER)
        except OSError:
            self._descriptor, self._allocated = before
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        if before[0] >= 0:
            os.close(before[0])
        self._segment, self._offset = path, len(data)
        self._header = parts[0]
        if len(parts) == 1:
            self._digest = sha256(data).digest()

    def _seal(self, seal: _Seal) -> None:
        """Make a publication durable. May run in a thread of its own: touches nothing but files and `seal`."""
        try:
            if len(seal.files) > SYNC_EACH:
                sync_filesystem(self._lock)
            else:
                for path in seal.files:
                    sync_file(self._prefix + path)
                for parent in {Path(path).parent for path in seal.files}:
                    for folder in (parent, *parent.parents):
                        sync_folder(self.folder / folder)
            write_file(self.folder / CHECKPOINT, seal.note)
            for path in seal.segments:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._prefix + path)  # noqa: PTH108
            for path in seal.full:
                shutil.rmtree(self._prefix + path + ".p", ignore_errors=True)
        except OSError as error:
            seal.error = error

    def _collect(self, *, wait: bool = False) -> None:
        """Take in what became of the last publication."""
        if self._sealing is None:
            return
        thread, seal, begun = self._sealing
        if thread.ident is not None:
            if thread.is_alive() and not wait:
                return
            thread.join()
        self._sealing = None
        if seal.error is None:
            self.published, self.root = seal.size, seal.root
            self.stuck = ""
            self.publications.add(time.perf_counter_ns() - begun)
            return
        # What the disk failed to take may be gone from memory, too: all of it is written once more.
        self._pending = {**seal.files, **self._written, **self._pending}
        self._written = {}
        self._old = seal.segments + self._old
        self._full = seal.full + self._full
        self._stall("publish", CHECKPOINT, seal.error)

    # --- faults

    def _fail(self, what: str, path: str, error: OSError) -> LogUnwritable:
        name = errno.errorcode.get(error.errno or 0, "")
        self.fault = f"cannot {what} {self.folder}/{path}: {error.strerror or error} ({name})"
        self._retry_at = self._mono() + self._retry
        return LogUnwritable(self.fault, hint=WAY_OUT)

    def _stall(self, what: str, path: str, error: OSError) -> None:
        """Something besides the journal cannot be written. A full disk holds up no append that the journal has room
        for."""
        said = str(self._fail(what, path, error))
        if error.errno in FULL and not self._journal_bad:
            self.stuck, self.fault = said, ""

    def _unstick(self) -> None:
        """Try once more to publish. Raises: LogUnwritable if too much waits for that."""
        if self._mono() >= self._retry_at and self._sealing is None:
            self._try_publish(wait=True)
        if self.fault:
            raise LogUnwritable(self.fault, hint=WAY_OUT)
        if self.stuck and self.unpublished >= STUCK_MOST:
            raise LogUnwritable(self.stuck, hint=WAY_OUT)

    def _mend(self) -> None:
        """Try to put the log right. Raises: LogUnwritable if that fails, or if it was tried a moment ago."""
        if self._mono() < self._retry_at:
            raise LogUnwritable(self.fault, hint=WAY_OUT)
        self._collect(wait=True)
        if self._journal_bad:
            parts = [self._header, *self._frames]
            try:
                try:
                    self._open_segment(self._segment, parts)
                except OSError as error:
                    if error.errno not in FULL or not self._has_reserve():
                        raise
                    self._open_segment(self._segment, parts, reserve=True)
            except OSError as failed:
                raise self._fail("append to", self._segment, failed) from failed
            self._journal_bad = False
        self.fault = ""
        self._try_publish(wait=True)
        if self.fault:
            raise LogUnwritable(self.fault, hint=WAY_OUT)

    # --- end

    def abandon(self) -> None:
        """Let go of the journal without a word, after opening failed. The folder's lock is the opener's to release."""
        self._closed = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Publish what there is and let go of the folder. Raises: LogUnwritable if it could not be published; the
        entries are durable in the journal then, too."""
        if self._closed:
            return
        try:
            self._retry_at = 0
            self.publish()
            os.ftruncate(self._descriptor, self._offset)
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._fail("close", self._segment, error) from error
        finally:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
            os.close(self._lock)


def sync_filesystem(descriptor: int) -> None:
    """Make all of the file system durable that the open file is on. Raises: OSError."""
    if _libc.syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sync_file(path: str) -> None:
    """Make one file durable. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
