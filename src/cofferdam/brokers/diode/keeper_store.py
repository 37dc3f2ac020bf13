"""What the keeper keeps on disk: which numbers have come, files in parts, files that are whole, tickets that were made.

    part/EPOCH-NUMBER.CHANNEL a file that is coming, by the number of its manifest
    keeper.db                 the ledger

A record counts as come when what it brought is on disk and the ledger says so: `save` syncs files first, then commits.
After a crash what came in between is missing, and comes again by a ticket; it is written to the same place.

Not here: what is checked before anything is written (keeper).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from cofferdam import disk
from cofferdam.brokers.diode.database import Database
from cofferdam.brokers.diode.ledger import Channel, Epoch, Gap, Ranges

_TABLES: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE ledger(channel TEXT, epoch INTEGER, highest INTEGER, lost INTEGER, given_up INTEGER, have BLOB,
  PRIMARY KEY(channel, epoch)) WITHOUT ROWID;
CREATE TABLE came(channel TEXT, epoch INTEGER, number INTEGER, PRIMARY KEY(channel, epoch)) WITHOUT ROWID;
CREATE TABLE files(channel TEXT, epoch INTEGER, first INTEGER, name TEXT, size INTEGER, sha256 TEXT, changed INTEGER,
  chunks INTEGER, state TEXT, placed TEXT, at INTEGER, PRIMARY KEY(channel, epoch, first)) WITHOUT ROWID;
CREATE TABLE held(channel TEXT, epoch INTEGER, number INTEGER, body BLOB,
  PRIMARY KEY(channel, epoch, number)) WITHOUT ROWID;
CREATE TABLE named(channel TEXT PRIMARY KEY, gaps BLOB) WITHOUT ROWID;
CREATE TABLE tickets(serial INTEGER PRIMARY KEY AUTOINCREMENT, made INTEGER, until INTEGER, channel TEXT,
  count INTEGER);
"""
APPLICATION: Final = 0x4366446B
_FORGET: Final = "DELETE FROM held WHERE channel=? AND epoch=? AND number BETWEEN ? AND ?"
OPEN_MOST: Final = 64
"""Files that are open at a time."""
_ranges = msgspec.msgpack.Decoder(list[tuple[int, int]])
_gaps = msgspec.msgpack.Decoder(list[Gap])


class Coming(NamedTuple):
    """A file whose manifest has come. `state`: "coming", "placing" (it is whole, and about to be in its folder as
    `placed`), "done", "refused"."""

    channel: str
    epoch: int
    first: int
    name: str
    size: int
    sha256: str
    changed: int
    chunks: int
    state: str
    placed: str
    at: int


class Held(NamedTuple):
    """A piece of records that waits for others."""

    channel: str
    epoch: int
    number: int
    body: bytes


class KeeperStore:
    """The open store."""

    def __init__(self, folder: Path) -> None:
        """Raises: StoreError."""
        self.folder = folder
        self.part = folder / "part"
        self.part.mkdir(mode=0o750, exist_ok=True)
        self.part.chmod(0o750)  # the scan sees it
        self.db = Database(folder / "keeper.db", APPLICATION, _TABLES)
        self._open: dict[Path, int] = {}
        self._unsynced: set[Path] = set()

    @property
    def epoch(self) -> int:
        """The last epoch that was taken; 0 for none."""
        found = self.db.one("SELECT value FROM meta WHERE name='epoch'")
        return int(found[0]) if found else 0

    def set_epoch(self, epoch: int) -> None:
        with self.db.commit():
            self.db.run("INSERT OR REPLACE INTO meta VALUES('epoch', ?)", epoch)

    def ledgers(self) -> dict[str, Channel]:
        """As they were saved last."""
        found: dict[str, Channel] = {}
        came = {(name, epoch): number for name, epoch, number in self.db.all("SELECT * FROM came")}
        for name, epoch, highest, lost, given_up, have in self.db.all("SELECT * FROM ledger"):
            channel = found.setdefault(name, Channel(name))
            ranges = Ranges(_ranges.decode(have))
            last = came.get((name, epoch), ranges.highest)  # an earlier version has not written it down
            channel.epochs[epoch] = Epoch(ranges, highest, {}, lost, given_up, last, highest)
            channel.newest = max(channel.newest, epoch)
        return found

    def named(self) -> dict[str, list[Gap]]:
        """Of each channel the gaps that were named and had not closed, with since when."""
        return {name: _gaps.decode(gaps) for name, gaps in self.db.all("SELECT * FROM named")}

    def name(self, named: Mapping[str, list[Gap]]) -> None:
        """These are. Raises: StoreError, StoreFull."""
        with self.db.commit():
            for channel, gaps in named.items():
                self.db.run("INSERT OR REPLACE INTO named VALUES(?, ?)", channel, msgspec.msgpack.encode(gaps))

    def save(self, channels: dict[str, Channel], dirty: set[str]) -> None:
        """What has come until now, for good. Raises: StoreError, StoreFull, OSError."""
        for path in self._unsynced:
            fd = self._open.get(path)
            if fd is not None:
                os.fdatasync(fd)
        self._unsynced.clear()
        with self.db.commit():
            self._write({name: channels[name] for name in dirty})

    def _write(self, channels: Mapping[str, Channel]) -> None:
        for name, channel in channels.items():
            for epoch, one in channel.epochs.items():
                self.db.run("INSERT OR REPLACE INTO ledger VALUES(?, ?, ?, ?, ?, ?)", name, epoch, one.highest,
                            one.lost, one.given_up, msgspec.msgpack.encode(list(one.have)))  # fmt: skip
                self.db.run("INSERT OR REPLACE INTO came VALUES(?, ?, ?)", name, epoch, one.came)

    # --- pieces of records that wait

    def hold(
        self, fresh: Iterable[Held], gone: Iterable[tuple[str, int, int, int]], channels: Mapping[str, Channel]
    ) -> None:
        """Keeps some and forgets others (channel, epoch, first, last), together with what these ledgers say."""
        with self.db.commit():
            for held in fresh:
                self.db.run("INSERT OR REPLACE INTO held VALUES(?, ?, ?, ?)", *held)
            for name, epoch, first, last in gone:
                self.db.run(_FORGET, name, epoch, first, last)
            self._write(channels)

    def forget(self, channel: str, epoch: int, first: int, last: int) -> None:
        with self.db.commit():
            self.db.run(_FORGET, channel, epoch, first, last)

    def held(self) -> Iterator[Held]:
        """In the order of their numbers."""
        for row in self.db.all("SELECT * FROM held ORDER BY channel, epoch, number"):
            yield Held(*row)

    # --- files that are coming

    def path(self, channel: str, epoch: int, first: int) -> Path:
        return self.part / f"{epoch}-{first}.{channel.partition(':')[2]}"

    def write(self, channel: str, epoch: int, first: int, offset: int, data: bytes) -> None:
        """Raises: OSError."""
        path = self.path(channel, epoch, first)
        fd = self._open.get(path)
        if fd is None:
            if len(self._open) >= OPEN_MOST:
                oldest = next(iter(self._open))
                self._close(oldest)
            fd = self._open[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        while data:
            done = os.pwrite(fd, data, offset)
            data, offset = data[done:], offset + done
        self._unsynced.add(path)

    def _close(self, path: Path) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            if path in self._unsynced:
                os.fdatasync(fd)
                self._unsynced.discard(path)
            os.close(fd)

    def coming(self, row: Coming) -> None:
        """A manifest has come."""
        with self.db.commit():
            self.db.run("INSERT OR IGNORE INTO files VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)

    def file(self, channel: str, epoch: int, first: int) -> Coming | None:
        found = self.db.one("SELECT * FROM files WHERE channel=? AND epoch=? AND first=?", channel, epoch, first)
        return Coming(*found) if found else None

    def files(self, *states: str) -> Iterator[Coming]:
        for state in states:
            for row in self.db.all("SELECT * FROM files WHERE state=?", state):
                yield Coming(*row)

    def count(self, channel: str, state: str) -> int:
        return int(self.db.one("SELECT count(*) FROM files WHERE channel=? AND state=?", channel, state)[0])

    def state(self, row: Coming, state: str, placed: str = "") -> Coming:
        with self.db.commit():
            self.db.run("UPDATE files SET state=?, placed=? WHERE channel=? AND epoch=? AND first=?", state, placed,
                        row.channel, row.epoch, row.first)  # fmt: skip
        return row._replace(state=state, placed=placed)

    def reader(self, row: Coming) -> int:
        """A descriptor of a file that has come, of the length that its manifest says. Raises: OSError."""
        path = self.path(row.channel, row.epoch, row.first)
        self._close(path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)

    def drop(self, row: Coming) -> None:
        """What came of it goes."""
        self.drop_at(self.path(row.channel, row.epoch, row.first))

    def drop_at(self, path: Path) -> None:
        """One that is coming goes, or what is left of it."""
        self._unsynced.discard(path)
        self._close(path)
        path.unlink(missing_ok=True)

    # --- tickets

    def ticket(self, made: int, until: int, channel: str, count: int) -> int:
        """The serial number of a new one."""
        with self.db.commit():
            self.db.run(
                "INSERT INTO tickets(made, until, channel, count) VALUES(?, ?, ?, ?)", made, until, channel, count
            )
            (serial,) = self.db.one("SELECT last_insert_rowid()")
        return int(serial)

    def room(self) -> tuple[int, int]:
        """Bytes that are free, and in all."""
        return disk.room(self.folder)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self.db.close()
