"""What the spool keeps on disk: files and messages that were sent, by their numbers, and which tickets were used.

    kept/NUMBER    files that were taken from a channel's folder, until their time is up
    spool.db       all about them

A file has the numbers from `first` (its manifest) to `last` (its last chunk) of its channel, in the epoch in which it
got them. A message has one number, and its body lies in the database.

Not here: what is sent when (spool).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cofferdam.brokers.diode.database import Database
from cofferdam.brokers.diode.records import CHUNK_BYTES, FILES, SPANS_MOST, Chunk, Manifest, Piece, Span, Told

_TABLES: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE files(id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, name TEXT, state TEXT, epoch INTEGER,
  first INTEGER, last INTEGER, size INTEGER, sha256 TEXT, changed INTEGER, at INTEGER, source INTEGER);
CREATE INDEX by_numbers ON files(channel, epoch, first);
CREATE TABLE messages(channel TEXT, epoch INTEGER, number INTEGER, at INTEGER, size INTEGER, body BLOB,
  PRIMARY KEY(channel, epoch, number)) WITHOUT ROWID;
CREATE INDEX by_age ON messages(at);
CREATE TABLE channels(channel TEXT, epoch INTEGER, highest INTEGER, left INTEGER,
  PRIMARY KEY(channel, epoch)) WITHOUT ROWID;
CREATE TABLE tickets(serial INTEGER PRIMARY KEY, until INTEGER);
"""
APPLICATION: Final = 0x43664453
STEP_RECORDS: Final = 2_000
STEP_BYTES: Final = 16 << 20
STEP_FILES: Final = 16
"""Of what goes for its age or for room no more goes in one turn."""
SAMPLE: Final = 10_000
"""Of more messages than that their size is reckoned from the first."""


def _ticket(serial: int, until: int) -> int:
    """By what a ticket is known: an outside that was set up anew numbers its own from 1 again."""
    return (until & 0x7FFF_FFFF) << 32 | serial & 0xFFFF_FFFF


class FileRow(NamedTuple):
    """A file that was taken. `state`: "taken" (it is being copied), "ready" (it has numbers), "sent". `source`: the
    inode of what was copied, as long as it may be there still; 0: it was removed."""

    id: int
    channel: str
    name: str
    state: str
    epoch: int
    first: int
    last: int
    size: int
    sha256: str
    changed: int
    at: int
    source: int

    @property
    def chunks(self) -> int:
        return -(-self.size // CHUNK_BYTES)


class Kept(NamedTuple):
    """A message that is kept. `at`: when it was taken, UTC ns."""

    channel: str
    epoch: int
    number: int
    size: int
    at: int


class Gone(NamedTuple):
    """What went for room: how many records of a channel; those of them that were messages."""

    channel: str
    total: int
    messages: list[Kept]


class SpoolStore:
    """The open store."""

    def __init__(self, folder: Path) -> None:
        """Raises: StoreError."""
        self.folder = folder
        self.kept = folder / "kept"
        self.kept.mkdir(mode=0o700, exist_ok=True)
        self.db = Database(folder / "spool.db", APPLICATION, _TABLES)
        self.size = int(self.db.one("SELECT coalesce(sum(size), 0) FROM files")[0])
        """Bytes that are kept."""
        known = self.db.one("SELECT value FROM meta WHERE name='bytes'")  # an earlier version has not written it down
        found = known or self.db.one("SELECT coalesce(sum(size), 0) FROM messages")
        self._messages = int(found[0])
        self.size += self._messages
        if not known:
            with self._growing(0):
                pass

    def begin(self, wall_ns: int) -> int:
        """A new epoch, above all before."""
        last = (self.db.one("SELECT value FROM meta WHERE name='epoch'") or (0,))[0]
        epoch = max(int(last) + 1, wall_ns // 1000)
        with self.db.commit():
            self.db.run("INSERT OR REPLACE INTO meta VALUES('epoch', ?)", epoch)
        return epoch

    # --- files

    def path(self, row: FileRow) -> Path:
        return self.kept / str(row.id)

    def take(self, channel: str, name: str, size: int, changed: int, at: int, source: int) -> FileRow:
        """A file that is about to be copied here."""
        with self.db.commit():
            self.db.run(
                "INSERT INTO files(channel, name, state, epoch, first, last, size, sha256, changed, at, source) "
                "VALUES(?, ?, 'taken', 0, 0, 0, ?, '', ?, ?, ?)", channel, name, size, changed, at, source,
            )  # fmt: skip
            (number,) = self.db.one("SELECT last_insert_rowid()")
        self.size += size
        return self.file(number)

    def file(self, number: int) -> FileRow:
        return FileRow(*self.db.one("SELECT * FROM files WHERE id=?", number))

    def files(self, state: str) -> list[FileRow]:
        return [FileRow(*row) for row in self.db.all("SELECT * FROM files WHERE state=? ORDER BY id", state)]

    def number(self, row: FileRow, epoch: int, sha256: str, at: int) -> FileRow:
        """A file gets its numbers."""
        highest = self.highest(row.channel, epoch)
        first, last = highest + 1, highest + 1 + row.chunks
        with self.db.commit():
            self.db.run(
                "UPDATE files SET state='ready', epoch=?, first=?, last=?, sha256=?, at=? WHERE id=?",
                epoch, first, last, sha256, at, row.id,
            )  # fmt: skip
            self._set_highest(row.channel, epoch, last)
        return self.file(row.id)

    def removed(self, row: FileRow) -> None:
        """What it was copied from is gone."""
        with self.db.commit():
            self.db.run("UPDATE files SET source=0 WHERE id=?", row.id)

    def remains(self) -> list[FileRow]:
        """Files that have numbers, and whose source may be there still."""
        return [FileRow(*row) for row in self.db.all("SELECT * FROM files WHERE source>0 AND first>0")]

    def sent(self, row: FileRow) -> None:
        """All of it has left."""
        with self.db.commit():
            self.db.run("UPDATE files SET state='sent' WHERE id=?", row.id)
            self.db.run("UPDATE channels SET left=max(left, ?) WHERE channel=? AND epoch=?",
                        row.last, row.channel, row.epoch)  # fmt: skip

    def forget_file(self, row: FileRow) -> None:
        """It goes, with its content."""
        with self.db.commit():
            self.db.run("DELETE FROM files WHERE id=?", row.id)
        self.size -= row.size
        self.path(row).unlink(missing_ok=True)

    # --- messages

    def take_messages(self, channel: str, epoch: int, bodies: list[bytes], at: int, handed: str) -> int:
        """Stores some that were handed over in a file of this name; the number of the first."""
        first = self.highest(channel, epoch) + 1
        with self._growing(sum(map(len, bodies))):
            for number, body in enumerate(bodies, first):
                self.db.run(
                    "INSERT INTO messages VALUES(?, ?, ?, ?, ?, ?)", channel, epoch, number, at, len(body), body
                )
            self._set_highest(channel, epoch, first + len(bodies) - 1)
            self.db.run("INSERT OR REPLACE INTO meta VALUES(?, ?)", f"handed {channel}", handed)
        return first

    @contextmanager
    def _growing(self, size: int) -> Iterator[None]:
        """A commit by which so many bytes of messages come or go; it writes down how many there are, since to count
        them at a start takes minutes."""
        with self.db.commit():
            yield
            self.db.run("INSERT OR REPLACE INTO meta VALUES('bytes', ?)", self._messages + size)
        self._messages += size
        self.size += size

    def handed(self, channel: str) -> str:
        """The last file whose messages were taken, "" for none."""
        found = self.db.one("SELECT value FROM meta WHERE name=?", f"handed {channel}")
        return str(found[0]) if found else ""

    def left(self, channel: str, epoch: int, number: int) -> None:
        """Up to this one they have left."""
        with self.db.commit():
            self.db.run("UPDATE channels SET left=max(left, ?) WHERE channel=? AND epoch=?", number, channel, epoch)

    def unsent(self) -> list[tuple[str, int, int, int]]:
        """(channel, epoch, first, last) of messages of which nobody knows whether they have left."""
        return [
            (channel, epoch, left + 1, highest)
            for channel, epoch, highest, left in self.db.all("SELECT * FROM channels WHERE highest>left")
            if self.db.one("SELECT 1 FROM messages WHERE channel=? AND epoch=? LIMIT 1", channel, epoch)
        ]

    # --- numbers

    def highest(self, channel: str, epoch: int) -> int:
        found = self.db.one("SELECT highest FROM channels WHERE channel=? AND epoch=?", channel, epoch)
        return int(found[0]) if found else 0

    def _set_highest(self, channel: str, epoch: int, number: int) -> None:
        self.db.run("INSERT OR IGNORE INTO channels VALUES(?, ?, 0, 0)", channel, epoch)
        self.db.run("UPDATE channels SET highest=? WHERE channel=? AND epoch=?", number, channel, epoch)

    def told(
        self, left: Mapping[tuple[str, int], int], epoch: int = 0, before: Mapping[str, int] = {}
    ) -> tuple[Told, ...]:
        """For a heartbeat: of each channel and epoch what is kept and what has left. `left`: what is known of that
        besides; `before`: the highest number that was given of each channel in the present epoch some seconds ago."""
        spans: dict[str, list[Span]] = {}
        waits: dict[str, int] = {}
        for channel, number, highest, gone in self.db.all("SELECT * FROM channels ORDER BY epoch DESC"):
            some = spans.setdefault(channel, [])
            if len(some) < SPANS_MOST:
                upto = min(highest, max(gone, left.get((channel, number), 0)))
                oldest = self._oldest(channel, number, highest)
                some.append(Span(number, min(oldest, upto + 1), upto))
                old = before.get(channel, 0) if number == epoch else highest
                waits[channel] = waits.get(channel, 0) + max(0, old - max(upto, oldest - 1))
        return tuple(Told(channel, tuple(some), waits[channel]) for channel, some in sorted(spans.items()))

    def _oldest(self, channel: str, epoch: int, highest: int) -> int:
        files = self.db.one("SELECT first FROM files WHERE channel=? AND epoch=? AND first>0 ORDER BY first LIMIT 1",
                            channel, epoch)  # fmt: skip
        messages = self.db.one("SELECT number FROM messages WHERE channel=? AND epoch=? ORDER BY number LIMIT 1",
                               channel, epoch)  # fmt: skip
        found = [row[0] for row in (files, messages) if row]
        return int(min(found)) if found else int(highest) + 1

    # --- again

    def overlapping(self, channel: str, epoch: int, first: int, last: int) -> list[FileRow]:
        """Files with numbers in this range."""
        return [
            FileRow(*row)
            for row in self.db.all(
                "SELECT * FROM files WHERE channel=? AND epoch=? AND first<=? AND last>=? AND first>0 ORDER BY first",
                channel, epoch, last, first,
            )
        ]  # fmt: skip

    def messages(self, channel: str, epoch: int, first: int, last: int) -> tuple[int, int]:
        """How many of those in this range are kept, and their bytes."""
        count, size = self.db.one(
            "SELECT count(*), coalesce(sum(size), 0) FROM messages WHERE channel=? AND epoch=? "
            "AND number BETWEEN ? AND ?",
            channel, epoch, first, last,
        )  # fmt: skip
        return int(count), int(size)

    def waiting(self, channel: str, epoch: int, first: int, last: int) -> int:
        """About how many bytes those in this range have: of many, by the first of them."""
        count, size = self.db.one(
            "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT size FROM messages WHERE channel=? AND epoch=? "
            "AND number BETWEEN ? AND ? ORDER BY number LIMIT ?)",
            channel, epoch, first, last, SAMPLE,
        )  # fmt: skip
        return int(size if count < SAMPLE else size * (last - first + 1) // count)

    def next_message(self, channel: str, epoch: int, first: int, last: int) -> tuple[int, bytes] | None:
        """The first of those in this range that is kept."""
        found = self.db.one(
            "SELECT number, body FROM messages WHERE channel=? AND epoch=? AND number BETWEEN ? AND ? "
            "ORDER BY number LIMIT 1",
            channel, epoch, first, last,
        )  # fmt: skip
        return (int(found[0]), found[1]) if found else None

    def younger(self, since: int) -> Iterator[tuple[str, int, int, int]]:
        """(channel, epoch, first, last) of what was sent after this moment, ns."""
        yield from self.db.all("SELECT channel, epoch, first, last FROM files WHERE state='sent' AND at>=? ORDER BY at",
                               since)  # fmt: skip
        yield from self.db.all("SELECT channel, epoch, min(number), max(number) FROM messages WHERE at>=? "
                               "GROUP BY channel, epoch", since)  # fmt: skip

    # --- tickets

    def use(self, serial: int, until: int, now: int) -> bool:
        """Whether a ticket was not used before; from now on it was."""
        if self.is_used(serial, until):
            return False
        with self.db.commit():
            self.db.run("DELETE FROM tickets WHERE until<?", now)
            self.db.run("INSERT INTO tickets VALUES(?, ?)", _ticket(serial, until), until)
        return True

    def is_used(self, serial: int, until: int) -> bool:
        return bool(self.db.one("SELECT 1 FROM tickets WHERE serial=?", _ticket(serial, until)))

    # --- age and size

    @property
    def oldest_at(self) -> int:
        """When the oldest that is kept was sent; 0 for nothing."""
        found = [
            row[0]
            for row in (self.db.one("SELECT min(at) FROM files"), self.db.one("SELECT min(at) FROM messages"))
            if row and row[0]
        ]
        return int(min(found)) if found else 0

    def expire(self, before: int) -> bool:
        """A step of it: what was taken before this moment and has left goes, the oldest of each channel first, so that
        one that is stuck holds back no other. Whether there may be more."""
        rows = [
            FileRow(*row)
            for row in self.db.all("SELECT * FROM files WHERE state='sent' AND at<? LIMIT ?", before, STEP_FILES)
        ]
        for row in rows:
            self.forget_file(row)
        for channel in self._channels():
            old = itertools.takewhile(lambda one: one.at < before, self._oldest_messages(channel, sent=True))
            if some := list(old):
                self._delete(some)
                return True
        if rows:
            return True
        with self.db.commit():
            self.db.run(
                "DELETE FROM channels WHERE epoch NOT IN (SELECT epoch FROM channels AS c "
                "WHERE c.channel=channels.channel ORDER BY epoch DESC LIMIT ?)", SPANS_MOST,
            )  # fmt: skip
        return False

    def shrink(self, most: int, *, unsent: bool) -> Gone:
        """A step of it: the oldest of what has left goes until no more than so many bytes are kept; where there is
        none, and `unsent`, the oldest messages that have not. Nothing has gone once there is no more to do."""
        for sent in (True, False) if unsent else (True,):
            if self.size > most and (gone := self._drop_oldest(self.size - most, sent=sent)).total:
                return gone
        return Gone("", 0, [])

    def _channels(self) -> list[str]:
        return [channel for (channel,) in self.db.all("SELECT DISTINCT channel FROM channels")]

    def _drop_oldest(self, size: int, *, sent: bool) -> Gone:
        """Drops a file that has left, or messages of one channel: no more of them than makes so much room."""
        file = self.db.one("SELECT * FROM files WHERE state='sent' ORDER BY at LIMIT 1") if sent else None
        some = [found for one in self._channels() if (found := self._oldest_messages(one, sent=sent))]
        oldest = min(some, key=lambda found: found[0].at, default=[])
        if file and (not oldest or FileRow(*file).at <= oldest[0].at):
            row = FileRow(*file)
            self.forget_file(row)
            return Gone(row.channel, row.last - row.first + 1, [])
        before = itertools.accumulate((one.size for one in oldest), initial=0)
        going = [one for one, room in zip(oldest, before, strict=False) if room < size]
        self._delete(going)
        return Gone(going[0].channel if going else "", len(going), going)

    def _oldest_messages(self, channel: str, *, sent: bool) -> list[Kept]:
        """The first that are kept, as many as a step has, all of one epoch; those that have `sent` left, if so, and
        none where the first has not. Epoch by epoch they leave in their order, and what is told of no more has left."""
        left = {epoch: upto for epoch, upto in self.db.all("SELECT epoch, left FROM channels WHERE channel=?", channel)}
        some = [
            Kept(*row)
            for row in self.db.all(
                "SELECT channel, epoch, number, size, at FROM messages WHERE channel=? ORDER BY epoch, number LIMIT ?",
                channel, STEP_RECORDS,
            )
        ]  # fmt: skip
        room = itertools.accumulate((one.size for one in some), initial=0)
        return [
            one
            for one, before in zip(some, room, strict=False)
            if one.epoch == some[0].epoch
            and before < STEP_BYTES
            and not (sent and one.number > left.get(one.epoch, one.number))
        ]

    def _delete(self, some: Sequence[Kept]) -> None:
        """Messages of one channel and epoch, one after the other."""
        if not some:
            return
        first, last = some[0], some[-1]
        with self._growing(-sum(one.size for one in some)):
            self.db.run(
                "DELETE FROM messages WHERE channel=? AND epoch=? AND number BETWEEN ? AND ?",
                first.channel, first.epoch, first.number, last.number,
            )  # fmt: skip


def piece_of(row: FileRow, number: int, data: bytes, *, again: bool, prompt: bool = False) -> Piece:
    """A record of a file: its manifest, or the chunk whose bytes are `data`."""
    if number == row.first:
        body = FILES.encode(Manifest(row.name, row.size, row.sha256, row.changed, row.chunks))
    else:
        body = FILES.encode(Chunk(row.first, (number - row.first - 1) * CHUNK_BYTES, data))
    return Piece(row.channel, row.epoch, number, body, prompt, again)
