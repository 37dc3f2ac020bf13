"""The spool on disk: batches of two lanes, in order, each with its number, until the keeper has them and for a while
longer.

A lane is a run of segment files, named by their first batch. A batch is a length, a CRC-32, the time of its coming and
the record as it travels (MessagePack); a file is cut at the first that does not verify. `state.json`, renamed into
place, has what must outlive the segments: the next numbers, up to when each source was read, what was lost.

A batch counts once `sync` has returned. When the disk is full nothing is changed, and it may be tried again
(StoreFull); after any other failure nobody knows what is on the disk, and the process has to end (StoreError).

Not here: what is sent when (spooler).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from cofferdam.brokers.mirror.columns import span
from cofferdam.brokers.mirror.records import LANES, Lane, Lost, Samples
from cofferdam.brokers.mirror.told import Lane as Stands
from cofferdam.errors import StoreError, StoreFull

SEGMENT_BYTES: Final = 16 << 20
_HEAD: Final = struct.Struct("<IIq")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Samples).decode


class Extent(NamedTuple):
    """What a segment has of one source."""

    since: int
    until: int
    points: int


class Segment:
    """One file of a lane. `last` is `first` - 1 while it has no batch; `came`: of its last batch, UTC ns."""

    def __init__(self, lane: Lane, first: int) -> None:
        self.lane = lane
        self.first = first
        self.last = first - 1
        self.size = 0
        self.came = 0
        self.extents: dict[str, Extent] = {}

    @property
    def name(self) -> str:
        return f"{self.lane}-{self.first:016d}.spool"

    def note(self, record: Samples, size: int, came: int) -> None:
        """One more batch."""
        self.last, self.came = record.number, came
        self.size += size
        if record.count:
            low, high = span(record)
            had = self.extents.get(record.source, Extent(low, high, 0))
            found = Extent(min(had.since, low), max(had.until, high), had.points + record.count)
            self.extents[record.source] = found

    def lost(self, first: int) -> Iterator[Lost]:
        """What is lost with it, from this batch on."""
        for source, extent in self.extents.items() or {"*": Extent(0, 0, 0)}.items():
            share = (self.last - first + 1) / max(1, self.last - self.first + 1)
            yield Lost(self.lane, first, self.last, source, extent.since, extent.until, int(extent.points * share))


class State(msgspec.Struct):
    """What outlives the segments."""

    next: dict[str, int] = {}
    upto: dict[str, int] = {}
    sent: dict[str, int] = {}
    """By lane: the last that was handed over, where nobody says what has come."""
    lost: list[Lost] = []


class Spool:
    """The folder of one spool. `most`: bytes of all segments; `keep_ns`: how long what was taken stays."""

    def __init__(self, folder: Path, most: int, keep_ns: int) -> None:
        """Raises: StoreError."""
        self.folder = folder
        self.most = most
        self.keep_ns = keep_ns
        self.state = State()
        self.taken: dict[Lane, int] = {"live": 0, "backfill": 0}
        self.found = ""
        """What had to be mended, in words."""
        self._segments: dict[Lane, list[Segment]] = {"live": [], "backfill": []}
        self._files: dict[Lane, int] = {}
        self._dirty: set[Lane] = set()
        self.written = 0
        """Bytes, since it was opened."""
        self._reading: dict[Lane, _Cursor] = {}
        try:
            self._open()
        except OSError as error:
            raise StoreError(f"the spool {folder} cannot be read: {error.strerror or error}") from None

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                self.state = msgspec.json.decode((self.folder / "state.json").read_bytes(), type=State)
            except msgspec.MsgspecError as error:
                raise StoreError(f"the spool's state.json is damaged: {error}", hint="move it away: numbers go on "
                                 "after those of its files") from None  # fmt: skip
        for path in sorted(self.folder.glob("*.spool")):
            lane = path.name.split("-")[0]
            if lane in LANES:
                self._scan(lane, path)
        for lane in LANES:
            known = max((segment.last for segment in self._segments[lane]), default=0)
            self.state.next[lane] = max(self.state.next.get(lane, 1), known + 1)

    def _scan(self, lane: Lane, path: Path) -> None:
        segment = Segment(lane, int(path.stem.split("-")[1]))
        data = path.read_bytes()
        at = 0
        for record, came, end in _records(data):
            if record.number != segment.last + 1:
                break
            segment.note(record, end - at, came)
            if record.upto >= 0 and lane == "live":
                self.state.upto[record.source] = max(self.state.upto.get(record.source, record.upto), record.upto)
            at = end
        if at < len(data):
            self.found = f"{path.name} ends with {len(data) - at} bytes that are no batch; they were cut off"
            os.truncate(path, at)
        if segment.last < segment.first:
            path.unlink()
        else:
            self._segments[lane].append(segment)

    # --- what is there

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segments in self._segments.values() for segment in segments)

    def last(self, lane: Lane) -> int:
        """The number of the last batch of a lane."""
        return self.state.next[lane] - 1

    def first(self, lane: Lane) -> int:
        """The number of the first batch of a lane that is there."""
        segments = self._segments[lane]
        return segments[0].first if segments else self.state.next[lane]

    def gap_end(self, lane: Lane, number: int) -> int:
        """The last batch of a run that begins with this one and cannot be had."""
        for segment in self._segments[lane]:
            if segment.first > number:
                return segment.first - 1
            if segment.first <= number <= segment.last:
                return segment.last  # what is behind a damaged batch cannot be told from it
        return self.last(lane)

    def goes_on_after(self, lane: Lane, number: int) -> None:
        """The keeper has batches up to this one: later ones have higher numbers."""
        if number >= self.state.next[lane]:
            self.sync()
            self.state.next[lane] = number + 1
            file = self._files.pop(lane, None)
            if file is not None:
                os.close(file)

    def handed(self, lane: Lane, number: int) -> None:
        """A batch was handed over, and nobody will say that it has come."""
        self.taken[lane] = self.state.sent[lane] = number

    def waiting(self, lane: Lane) -> int:
        """Batches that the keeper does not have."""
        return max(0, self.last(lane) - self.taken[lane])

    # --- writing

    def add(self, record: Samples, came: int) -> Samples:
        """Takes a batch, gives it its number, and writes it; `sync` makes it last. Raises: StoreFull, StoreError."""
        lane = record.lane
        number = self.state.next[lane]
        record = msgspec.structs.replace(record, number=number)
        payload = _encode(record)
        data = _HEAD.pack(len(payload), zlib.crc32(payload), came) + payload
        segments = self._segments[lane]
        if not segments or segments[-1].size >= SEGMENT_BYTES or lane not in self._files:
            self._roll(lane, number)
        segment, file = segments[-1], self._files[lane]
        self._dirty.add(lane)
        try:
            written = os.pwrite(file, data, segment.size)
            if written != len(data):
                raise OSError(errno.ENOSPC, "no room for a whole batch")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, segment.size)
            raise _failed(error, self.folder) from None
        segment.note(record, len(data), came)
        self.written += len(data)
        self.state.next[lane] = number + 1
        if record.upto >= 0 and lane == "live":
            self.state.upto[record.source] = max(self.state.upto.get(record.source, record.upto), record.upto)
        return record

    def sync(self) -> None:
        """What was added is on disk. Raises: StoreFull, StoreError."""
        for lane in list(self._dirty):
            try:
                os.fdatasync(self._files[lane])
                gone = os.fstat(self._files[lane]).st_nlink == 0
            except OSError as error:
                raise StoreError(f"the spool {self.folder}: {error.strerror or error}") from None
            if gone:  # a file without a name ends with this process
                raise StoreError(f"the spool {self.folder}: a file that is written is gone")
        self._dirty.clear()

    def _roll(self, lane: Lane, number: int) -> None:
        """The next batch begins a file."""
        try:
            self.sync()
            self.save()
            segments = self._segments[lane]
            segment = Segment(lane, number)
            file = os.open(self.folder / segment.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _sync_folder(self.folder)
        except OSError as error:
            raise _failed(error, self.folder) from None
        old = self._files.pop(lane, None)
        if old is not None:
            os.close(old)
        if segments and segments[-1].last < segments[-1].first:
            segments.pop()
        segments.append(segment)
        self._files[lane] = file

    def save(self) -> None:
        """Writes the state. Raises: OSError."""
        fresh = self.folder / "state.new"
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            data = json.dumps(msgspec.to_builtins(self.state)).encode()
            if os.write(file, data) != len(data):
                raise OSError(errno.ENOSPC, "no room for the state")
            os.fsync(file)
        finally:
            os.close(file)
        fresh.rename(self.folder / "state.json")
        _sync_folder(self.folder)

    # --- reading

    def read(self, lane: Lane, number: int) -> Samples | None:
        """A batch that is there; None where it is not, or is damaged. In order this is cheap."""
        cursor = self._reading.get(lane)
        if cursor is None or cursor.number != number or not cursor.in_file():
            segment = next((each for each in self._segments[lane] if each.first <= number <= each.last), None)
            if segment is None:
                return None
            if cursor is not None:
                cursor.close()
            cursor = self._reading[lane] = _Cursor(self.folder, segment)
            while cursor.number < number:
                if cursor.next() is None:
                    return None
        return cursor.next()

    # --- trimming

    def trim(self, now: int, sent: Mapping[Lane, int]) -> list[Lost]:
        """Removes what was taken long ago; and if there is still too much, the oldest: of the backfill first. Returns
        what was lost by it: what was not even `sent`. Raises: StoreError."""
        lost: list[Lost] = []
        gone: list[Segment] = []
        missed: list[Segment] = []
        for lane in LANES:
            segments = self._segments[lane]
            while len(segments) > 1 and segments[0].last <= self.taken[lane] and now - segments[0].came > self.keep_ns:
                gone.append(segments.pop(0))
        size = self.size
        for lane in reversed(LANES):
            segments = self._segments[lane]
            while size > self.most and len(segments) > 1:
                segment = segments.pop(0)
                size -= segment.size
                if segment.last > max(self.taken[lane], sent[lane]):
                    lost += segment.lost(max(segment.first, self.taken[lane] + 1, sent[lane] + 1))
                    missed.append(segment)
                else:
                    gone.append(segment)
        known = [one for one in self.state.lost if one.last > self.taken[one.lane]]
        try:
            self._remove(gone)
            if gone or missed or len(known) != len(self.state.lost):
                self.state.lost = known + lost
                self.save()  # before what was missed is gone
            self._remove(missed)
        except OSError as error:
            if error.errno not in _FULL:
                raise StoreError(f"the spool {self.folder}: {error.strerror or error}") from None
            for segment in missed:  # a loss that cannot be written down is none yet
                self._segments[segment.lane].append(segment)
                self._segments[segment.lane].sort(key=lambda one: one.first)
            self.state.lost = known
            return []
        return lost

    def _remove(self, segments: list[Segment]) -> None:
        """Raises: OSError."""
        for lane, cursor in list(self._reading.items()):
            if cursor.segment in segments:
                cursor.close()
                del self._reading[lane]
        for segment in segments:
            (self.folder / segment.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Raises: StoreError."""
        self.sync()
        with contextlib.suppress(OSError):
            self.save()
        for file in self._files.values():
            os.close(file)
        self._files.clear()


class _Cursor:
    """Reads a segment from its first batch on."""

    def __init__(self, folder: Path, segment: Segment) -> None:
        self.segment = segment
        self.number = segment.first
        self._at = 0
        self._file = os.open(folder / segment.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def in_file(self) -> bool:
        return self.number <= self.segment.last

    def next(self) -> Samples | None:
        head = os.pread(self._file, _HEAD.size, self._at)
        if len(head) < _HEAD.size:
            return None
        length, crc, _ = _HEAD.unpack(head)
        payload = os.pread(self._file, length, self._at + _HEAD.size)
        if len(payload) != length or zlib.crc32(payload) != crc:
            return None
        self._at += _HEAD.size + length
        self.number += 1
        return _decode(payload)

    def close(self) -> None:
        os.close(self._file)


def _records(data: bytes) -> Iterator[tuple[Samples, int, int]]:
    """(batch, when it came, where it ends), up to the first that does not verify."""
    at = 0
    view = memoryview(data)
    while len(data) - at >= _HEAD.size:
        length, crc, came = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if end > len(data) or zlib.crc32(view[at + _HEAD.size : end]) != crc:
            return
        try:
            record = _decode(view[at + _HEAD.size : end])
        except msgspec.MsgspecError:
            return
        at = end
        yield record, came, at


def _failed(error: OSError, folder: Path) -> Exception:
    if error.errno in _FULL:
        return StoreFull(f"{folder} is full")
    return StoreError(f"the spool {folder}: {error.strerror or error}")


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def facts(spool: Spool) -> dict[str, Stands]:
    """What `status` tells of it."""
    return {lane: {"waiting": spool.waiting(lane), "last": spool.last(lane)} for lane in LANES}
