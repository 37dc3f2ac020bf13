"""Files that come over a strand: their pieces are written, what is whole is checked and put into its folder.

What the sender says of a file is held to the policy as if the sender were another's by now: names, sizes, a day's
bytes, how many come at a time.

Not here: numbers and gaps (ledger, keeper), the disk (keeper_store).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cofferdam.audit.events import diode as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import JOBS_OF_PART, Setting
from cofferdam.brokers.diode import told
from cofferdam.brokers.diode.copying import Copying
from cofferdam.brokers.diode.keeper_store import Coming, KeeperStore
from cofferdam.brokers.diode.ledger import Channel
from cofferdam.brokers.diode.records import CHUNK_BYTES, FILES, Chunk, Manifest, Piece
from cofferdam.brokers.diode.scan import Order
from cofferdam.brokers.kit.clamd import Scanned
from cofferdam.brokers.kit.figures import Figures
from cofferdam.errors import CrossingError, StoreError, StoreFull
from cofferdam.policy.terms.diode_rows import FILES as FILES_RIDE
from cofferdam.policy.terms.diode_rows import DiodeRows, FilesRow

SECOND: Final = 10**9
TOLD_MOST: Final = 10
"""Files that are coming and named in the status."""
COMING_MOST: Final = 256
"""Files of a channel that are coming at a time."""
WHOLE_MOST: Final = 10_000
"""Files of a channel that are whole and wait for their scan, or for their folder."""
AGAIN_TICKS: Final = 10
"""In so many halves of a second it is tried again to put a file into a folder that did not take it."""
SCAN_AGAIN_SECONDS: Final = 30.0
"""So long a file waits whose scan gave no verdict."""
RESERVE_BYTES: Final = 64 << 20
"""Room on the disk that is left free."""
SLICE_BYTES: Final = 4 << 20
"""Worked through in one turn of the loop."""
SYNC_BYTES: Final = 16 << 20
"""Of a file that is being copied, before they are synced."""


class Files:
    """For one keeper. `channels` are its ledgers; `save` writes that of a channel."""

    def __init__(
        self,
        setting: Setting,
        strand: str,
        row: DiodeRows,
        store: KeeperStore,
        figures: Figures,
        channel: Callable[[str], Channel],
        save: Callable[[str], None],
    ) -> None:
        self._setting = setting
        self._strand = strand
        self.row = row
        self._store = store
        self._figures = figures
        self._channel = channel
        self._save = save
        self.epoch = 0
        self.halted = False
        self._whole: deque[Coming] = deque()
        self._placing: set[tuple[str, int, int]] = set()
        """Files that are whole, until they are in their folder."""
        self._copying: Copying[Coming] | None = None
        self._names: set[str] = set()
        """Names that are given to files which are about to be in their folders."""
        self._today: deque[tuple[int, str, int]] = deque()
        self._unscanned: deque[Coming] = deque()
        self._scanning: dict[str, Coming] = {}
        self.not_scanned = ""
        """Why files wait for their scan."""
        self._unplaced: dict[str, str] = {}
        """Channel -> why its folder takes nothing."""
        self._again: list[Callable[[], None]] = []
        """What is tried again for that."""
        self._ticks = 0

    def begin(self) -> None:
        """Goes on with what was under way when the process ended."""
        for row in list(self._store.files("placing")):
            self._mend(row)
        self.look_all()

    @property
    def busy(self) -> bool:
        return self._copying is not None

    def folder(self, channel: str) -> Path:
        return self._setting.folders[self._row_of(channel).into]

    def piece(self, piece: Piece, channel: Channel) -> bool:
        """A piece of a file that is new. Whether it was taken: not where too many files wait already; it is missing
        then, and so named. Raises: CrossingError, OSError, StoreError."""
        if not self._file_piece(piece):
            return False
        channel.take(piece.epoch, piece.number, self.epoch)
        self._done_chunk(piece)
        return True

    def waits(self) -> dict[str, str]:
        """Channels of which nothing more is taken, or put into their folder, and why."""
        if self.halted:  # the store is closed
            return dict(self._unplaced)
        crowded = {row.channel: why for row in self.row.files if (why := self._crowded(row.channel))}
        return crowded | self._unplaced

    def _crowded(self, channel: str) -> str:
        """Why no more files of a channel are begun. An honest sender's may wait as well: for what the line has lost,
        for a scanner that does not work, for a folder."""
        whole = sum(1 for at in self._placing if at[0] == channel)
        if (parts := self._store.count(channel, "coming") - whole) >= COMING_MOST:
            return f"{parts} files have come in part: cofferdam diode ticket, or cofferdam diode give-up {channel}"
        return f"{whole} files wait for their scan or for their folder" if whole >= WHOLE_MOST else ""

    def tick(self) -> None:
        """Twice a second: what a folder did not take is tried again after a while."""
        self._ticks += 1
        if self._again and self._ticks % AGAIN_TICKS == 0:
            again, self._again = self._again, []
            self._unplaced.clear()
            for work in again:
                work()

    def _put_off(self, channel: str, error: OSError, work: Callable[[], None]) -> None:
        """The site's folder is another's as well: full, away, or no folder of ours any more. It holds up its own files,
        and not this part."""
        self._unplaced[channel] = f"its folder {self.folder(channel)}: {error.strerror or error}"
        self._again.append(work)

    def _mend(self, row: Coming) -> None:
        """The process ended when a file was about to be in its folder."""
        if row.channel not in self.row.channels:
            return
        folder = self.folder(row.channel)
        hidden = folder / _hidden(row)
        try:
            if hidden.exists():
                hidden.rename(folder / row.placed)
        except OSError as error:
            self._put_off(row.channel, error, functools.partial(self._mend, row))
            return
        self._store.drop(row)
        self._store.state(row, "done", row.placed)
        self._channel(row.channel).epochs[row.epoch].have.add(row.first, row.first + row.chunks)
        self._save(row.channel)

    def _row_of(self, channel: str) -> FilesRow:
        return next(row for row in self.row.files if row.channel == channel)

    def _file_piece(self, piece: Piece) -> bool:
        """Writes what it brings, and whether that was done. Raises: CrossingError, OSError, StoreError."""
        row = self._row_of(piece.channel)
        record = FILES.decode(piece.body)
        if not 0 < piece.epoch <= self.epoch:
            raise CrossingError(f"{piece.channel}: epoch {piece.epoch} in epoch {self.epoch}")
        if isinstance(record, Manifest):
            return self._manifest(row, piece, record)
        first = record.manifest
        known = self._store.file(piece.channel, piece.epoch, first)
        if record.offset != (piece.number - first - 1) * CHUNK_BYTES or first >= piece.number:
            raise CrossingError(f"{piece.channel}: number {piece.number} at byte {record.offset} of file {first}")
        if known is not None and known.state != "coming":
            return True  # refused, or done
        end = record.offset + len(record.data)
        if end > row.most or (known is not None and end > known.size):
            raise CrossingError(f"{piece.channel}: a file of {end} bytes or more")
        if known is None and self._strays(piece.channel) >= COMING_MOST:
            return False
        self._store.write(piece.channel, piece.epoch, first, record.offset, record.data)
        return True

    def _strays(self, channel: str) -> int:
        """Files without a manifest, or fewer: one that has it may have nothing else yet."""
        ending = f".{channel.partition(':')[2]}"
        there = sum(1 for path in self._store.part.iterdir() if path.name.endswith(ending))
        return there - self._store.count(channel, "coming")

    def _manifest(self, row: FilesRow, piece: Piece, said: Manifest) -> bool:
        if said.chunks != -(-said.size // CHUNK_BYTES):
            raise CrossingError(f"{row.channel}: {said.chunks} chunks of a file of {said.size} bytes")
        if self._crowded(row.channel):
            return False
        why = row.wrong(said.name)
        if not why and said.size > row.most:
            why = f"larger ({said.size} bytes) than what rides ({row.most})"
        if not why and not self._within_day(row, said.size):
            why = f"beyond the {row.per_day} bytes of a day"
        coming = Coming(
            row.channel, piece.epoch, piece.number, said.name, said.size, said.sha256, said.changed_ns, said.chunks,
            "refused" if why else "coming", "", self._setting.wall(),
        )  # fmt: skip
        free, _ = self._store.room()
        if not why and said.size > max(0, free - RESERVE_BYTES):
            raise StoreFull(f"{self._store.folder} has {free} bytes left, too few for {said.name!r}")
        self._store.coming(coming)
        if why:
            self._refused(coming, why)
            if why.startswith("no plain name"):
                raise CrossingError(f"{row.channel}: a file called {clip(said.name, 100)!r}")
        return True

    def _within_day(self, row: FilesRow, size: int) -> bool:
        since = self._setting.wall() - 86_400 * SECOND
        while self._today and self._today[0][0] < since:
            self._today.popleft()
        if sum(other for _, name, other in self._today if name == row.name) + size > row.per_day:
            return False
        self._today.append((self._setting.wall(), row.name, size))
        return True

    def _refused(self, coming: Coming, why: str) -> None:
        self._figures.add("files_refused", 1, coming.channel)
        self._store.drop(coming)
        self._setting.audit.note(events.DiodeFileRefused(
            wall_ns=self._setting.wall(), strand=self._strand, channel=coming.channel, name=clip(coming.name),
            detail=clip(why),
        ), always=True)  # fmt: skip

    def _done_chunk(self, piece: Piece) -> None:
        record = FILES.decode(piece.body)
        first = piece.number if isinstance(record, Manifest) else record.manifest
        row = self._store.file(piece.channel, piece.epoch, first) if self._may_be_last(piece, record) else None
        if row is not None and row.state == "coming":
            self._look_whole(row)

    def _may_be_last(self, piece: Piece, record: Manifest | Chunk) -> bool:
        """Whether it is worth a look: the number after it has come, or is none of this file."""
        have = self._channel(piece.channel).epochs[piece.epoch].have
        return (
            isinstance(record, Manifest)
            or len(record.data) < CHUNK_BYTES
            or piece.number + 1 in have
            or (piece.number == have.highest)
        )

    def _look_whole(self, row: Coming) -> None:
        one = self._channel(row.channel).epochs.get(row.epoch)
        if one is None:
            self._gone(row, "its epoch is so old that nobody knows any more what of it is missing")
            return
        if next(one.have.missing(row.first, row.first + row.chunks), None) is not None:
            return
        at = (row.channel, row.epoch, row.first)
        if at not in self._placing:
            self._placing.add(at)
            self._whole.append(row)
            self._setting.reactor.later(self._check)

    def under_way(self, channel: str) -> list[told.File]:
        """The first of those of which something has come, and how much."""
        found: list[told.File] = []
        for row in self._store.files("coming"):
            one = self._channel(channel).epochs.get(row.epoch)
            if row.channel == channel and one is not None and len(found) < TOLD_MOST:
                missing = sum(last - first + 1 for first, last in one.have.missing(row.first, row.first + row.chunks))
                of = row.chunks + 1
                found.append({"name": row.name, "size": row.size, "done": of - missing, "of": of})
        return found

    def look_all(self) -> None:
        """Files of which something is lost, or given up, will not be whole: what came of them goes. So does what
        came of those whose manifest will not come any more."""
        known = list(self._store.files("coming"))
        for row in known:
            if row.channel in self.row.channels:
                self._look_whole(row)
        paths = {self._store.path(row.channel, row.epoch, row.first) for row in (*known, *self._store.files("placing"))}
        for path in set(self._store.part.iterdir()) - paths:
            numbers, _, name = path.name.partition(".")
            epoch, _, first = numbers.partition("-")
            channel = f"{FILES_RIDE}:{name}"
            if channel not in self.row.channels or not (epoch.isdecimal() and first.isdecimal()):
                continue
            one = self._channel(channel).epochs.get(int(epoch))
            if one is None or int(first) in one.have:
                self._store.drop_at(path)

    def _check(self) -> None:
        """Works on: a slice of a file that is copied into its folder, hidden, while its hash is worked out."""
        if self.halted:
            return
        if self._copying is None and not self._whole:
            return
        row = self._copying.row if self._copying is not None else self._whole.popleft()
        if row.channel not in self.row.channels:  # a new policy has come: what it is stays here
            self._copied()
            self._placing.discard((row.channel, row.epoch, row.first))
            return
        try:
            copying = self._copying = self._copying or self._open(row)
            done = self._copy(copying)
        except OSError as error:
            self._copied()
            self._put_off(row.channel, error, functools.partial(self._anew, row))
        else:
            if not done:
                self._setting.reactor.call_in(0, self._check)  # in another turn: the others have theirs in between
                return
            self._copied()
            self._judge(copying)
        if self._whole:
            self._setting.reactor.call_in(0, self._check)

    def _copy(self, copying: Copying[Coming]) -> bool:
        """A slice of it; whether that was the last. Raises: OSError, for the folder; StoreError."""
        try:
            data = os.pread(copying.source, SLICE_BYTES, copying.at)
        except OSError as error:
            raise StoreError(f"{self._store.folder}: {error.strerror or error}") from None
        copying.digest.update(data)
        rest = memoryview(data)
        while rest:
            done = os.pwrite(copying.into, rest, copying.at)
            copying.at, rest = copying.at + done, rest[done:]
        if copying.at - copying.synced >= SYNC_BYTES:  # a gigabyte at the end would hold the part up for too long
            os.fdatasync(copying.into)
            copying.synced = copying.at
        if data and copying.at < copying.row.size:
            return False
        os.fsync(copying.into)
        return True

    def _copied(self) -> None:
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.close()

    def _anew(self, row: Coming) -> None:
        self._whole.append(row)
        self._setting.reactor.later(self._check)

    def _judge(self, copying: Copying[Coming]) -> None:
        """It is in its folder, hidden, and all of it has its hash."""
        row = copying.row
        if copying.digest.hexdigest() != row.sha256:
            lost = self._channel(row.channel).epochs[row.epoch]
            why = "its hash is not what its manifest says"
            self._gone(row, f"{why}: part of it was lost" if lost.lost or lost.given_up else why)
        elif self._row_of(row.channel).scan:
            self._scan(row)
        else:
            self._record(row)

    # --- scanned

    def _scan(self, row: Coming) -> None:
        """Has it looked through, once others have been: a few at a time."""
        self._unscanned.append(row)
        self._scan_next()

    def _scan_next(self) -> None:
        while self._unscanned and len(self._scanning) < JOBS_OF_PART and not self.halted:
            row = self._unscanned.popleft()
            name = self._store.path(row.channel, row.epoch, row.first).name
            self._scanning[name] = row
            order = msgspec.json.encode(Order(name))
            self._setting.run_job("scan", order, functools.partial(self._scanned, name))

    def _scanned(self, name: str, answer: bytes, why: str) -> None:
        row = self._scanning.pop(name)
        try:
            found = msgspec.json.decode(answer, type=Scanned) if not why else Scanned("not scanned", why)
        except msgspec.MsgspecError:
            found = Scanned("not scanned", "the scan gave no answer that is one")
        if self.halted:
            return
        self.not_scanned = found.detail if found.verdict == "not scanned" else ""
        if found.verdict == "clean":
            self._record(row, clip(f"clean ({found.base})"))
        elif found.verdict == "found":
            self._gone(row, f"the scanner finds {found.detail}")
        else:  # it waits: nothing passes a scanner that does not work
            self._setting.reactor.call_in(SCAN_AGAIN_SECONDS, functools.partial(self._scan, row))
        self._scan_next()

    def _gone(self, row: Coming, why: str) -> None:
        """It is whole, and is not put into its folder."""
        with contextlib.suppress(OSError):
            (self.folder(row.channel) / _hidden(row)).unlink(missing_ok=True)
        self._store.state(row, "refused")
        self._placing.discard((row.channel, row.epoch, row.first))
        self._refused(row, why)

    def _open(self, row: Coming) -> Copying[Coming]:
        """Raises: OSError."""
        hidden = self.folder(row.channel) / _hidden(row)
        into = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        try:
            os.fchmod(into, 0o660)  # whoever is in the folder's group fetches it
            source = self._store.reader(row)
        except BaseException:
            os.close(into)
            raise
        os.ftruncate(source, row.size)
        return Copying(row, source, into, hashlib.sha256(), 0)

    def _free_name(self, row: Coming) -> str:
        """The name under which a file can be put into its folder: another gets a number, and none is replaced."""
        folder = self.folder(row.channel)
        stem, dot, ending = row.name.rpartition(".")
        name, number = row.name, 1
        while os.path.lexists(folder / name) or name in self._names:
            number += 1
            name = f"{stem}.{number}.{ending}" if dot and stem else f"{row.name}.{number}"
        self._names.add(name)
        return name

    def _record(self, row: Coming, scan: str = "") -> None:
        """Recorded, then put into its folder."""
        row = row if row.placed else row._replace(placed=self._free_name(row))

        def done(ok: bool, reason: str) -> None:
            if self.halted:
                return
            if not ok:
                self._setting.reactor.call_in(1.0, lambda: self._record(row, scan))
                return
            self._place(self._store.state(row, "placing", row.placed))

        self._setting.audit.record(events.DiodeFileReceived(
            wall_ns=self._setting.wall(), strand=self._strand, channel=row.channel, name=clip(row.name), size=row.size,
            sha256=row.sha256, epoch=row.epoch, first=row.first, last=row.first + row.chunks,
            placed=clip(row.placed), scan=scan,
        ), done)  # fmt: skip

    def _place(self, row: Coming) -> None:
        """It is recorded, and goes under its name in its folder."""
        if row.channel not in self.row.channels:
            return
        folder = self.folder(row.channel)
        try:
            (folder / _hidden(row)).rename(folder / row.placed)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError as error:  # somebody took the hidden one away, or the folder
            self._names.discard(row.placed)
            again = self._store.state(row, "coming")
            self._put_off(row.channel, error, functools.partial(self._anew, again))
            return
        except OSError as error:
            self._put_off(row.channel, error, functools.partial(self._place, row))
            return
        self._save(row.channel)
        self._store.state(row, "done", row.placed)
        self._store.drop(row)
        self._names.discard(row.placed)
        self._placing.discard((row.channel, row.epoch, row.first))
        self._figures.add("files_received", 1, row.channel)


def _hidden(row: Coming) -> str:
    """What a file is called in its folder before it is checked: nobody takes it for one that has come."""
    return f".{row.epoch}-{row.first}.coming"
