"""The keeper's store: one SQLite database in its folder, in one process's hands.

Write-ahead log, and a commit that is acknowledged to anybody has been synced: by `sync`, apart from the commit, so that
the audit log can sync what it is told of it in the same time. (SQLite itself syncs at checkpoints alone: NORMAL.) A
commit that was not synced survives the death of the process, and a power cut takes it back as if it had not been.

Full (`StoreFull`): the transaction is taken back, and all is as it was before. Any other failure of the disk
(`StoreError`): the database is not touched any more, not even to close it, since after a failed fsync nobody knows what
the kernel has dropped. The process ends; the next one reads what is really there, moves it out of the write-ahead log
into freshly written and synced pages, and only then serves.

Messages are in a table by channel and number; which keys they have is found by `index`. A commit's entries for the
audit log wait in the store (`told`) until the log has confirmed them, so that a crash in between is mended at the next
start.

Not here: what any of it means (keeper), what limits remember (store_series), the quarantine's rows and checking for
operators (shelf).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from cofferdam import disk
from cofferdam.audit.entry import Draft
from cofferdam.brokers.kit.database import CHECKED_BYTES, check_plain
from cofferdam.brokers.relay.gaps import Gap, Gaps
from cofferdam.brokers.relay.index import SEGMENT, Index, next_print
from cofferdam.brokers.relay.keeper_rows import (
    ChannelRow,
    DeadRow,
    GapsRow,
    Known,
    OpenRow,
    OpenRows,
    PositionRow,
    Row,
    Stored,
    Untold,
)
from cofferdam.brokers.relay.store_series import Series
from cofferdam.brokers.relay.store_tables import APPLICATION, NUMBER_BITS, TABLES, VERSION
from cofferdam.errors import StoreError, StoreFull

_BELOW: Final = (1 << NUMBER_BITS) - 1
_FILES: Final = "keeper.db"

_drafts = msgspec.msgpack.Decoder(list[Draft])
_pushed = msgspec.msgpack.Decoder(dict[str, tuple[int, int]])
_gap_rows = msgspec.msgpack.Decoder(tuple[Gap, ...])
_tops = msgspec.msgpack.Decoder(dict[int, int])
_encode = msgspec.msgpack.Encoder().encode


class Store:
    """The open database. Writes happen between `begin` and `commit`."""

    def __init__(self, folder: Path) -> None:
        """Raises: StoreError, which names the file and the way out."""
        self.folder = folder
        self.path = folder / _FILES
        self.found = ""
        self.group = 0
        """The last commit's number."""
        self.name = ""
        self.failed = False
        self._db: sqlite3.Connection = None  # type: ignore[assignment]
        self._wal = -1
        self._channels: dict[str, int] = {}
        self._principals: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._added: list[int] = []
        self._waiting: list[tuple[Any, ...]] = []
        """Messages that were added and are not written yet."""
        self._free = (0, 0, "", 0)
        self.series = Series(self)
        check_plain(self.path)
        with contextlib.suppress(OSError):
            if self.path.with_name(_FILES + "-wal").stat().st_size:
                self.found = "the keeper before this one did not end in order"
        try:
            self._db = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=256)
        except sqlite3.Error as error:
            raise self._mapped(error) from None
        try:
            self._open()
        except StoreError:
            self._leave()
            raise

    def _open(self) -> None:
        self.run("PRAGMA locking_mode=EXCLUSIVE")
        known = self.one("SELECT count(*) FROM sqlite_master")[0]
        application, version = self.one("PRAGMA application_id")[0], self.one("PRAGMA user_version")[0]
        if known and application != APPLICATION:
            raise StoreError(f"{self.path} is a database of something else", hint="move it out of the keeper's folder")
        if known and version != VERSION:
            than = f"{'newer' if version > VERSION else 'older'} than format {VERSION}"
            raise StoreError(
                f"{self.path} has format {version}, {than}, which this version of Cofferdam reads",
                hint="run the version that wrote it, or move the file away to begin with an empty relay",
            )
        self.run("PRAGMA page_size=4096")
        if self.one("PRAGMA journal_mode=WAL")[0] != "wal":
            raise StoreError(f"{self.path} cannot have a write-ahead log", hint="is it on a local disk?")
        for pragma in ("synchronous=NORMAL", "cache_size=-16384", "temp_store=MEMORY", "mmap_size=0",
                       "wal_autocheckpoint=2000", "journal_size_limit=67108864", "trusted_schema=OFF"):  # fmt: skip
            self.run(f"PRAGMA {pragma}")
        self.run("BEGIN IMMEDIATE")  # the lock is ours from here on
        if not known:
            for statement in TABLES.split(";\n"):
                self.run(statement)
            self.run(f"PRAGMA application_id={APPLICATION}")
            self.run(f"PRAGMA user_version={VERSION}")
            self.run(
                "INSERT INTO meta VALUES('store', ?), ('secret', ?)", secrets.token_hex(32), secrets.token_bytes(32)
            )
        self.run("CREATE TABLE IF NOT EXISTS gaps(channel INTEGER PRIMARY KEY, gaps BLOB)")  # one from before them
        self.run("COMMIT")
        # What is in the write-ahead log may be there in memory alone, if an fsync failed before this process began.
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        # To be synced by. (SQLite's locks are on the database itself: closing this gives none of them back.)
        self._wal = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._look_for_damage(known)
        meta = dict(self.all("SELECT name, value FROM meta"))
        self.name = meta["store"]
        self.group = max(meta.get("group", 0), self.one("SELECT ifnull(max(grp), 0) FROM told")[0])
        for id_, name in self.all("SELECT id, name FROM principals"):
            self._principals[name], self._names[id_] = id_, name
        self._load_index(meta["secret"])

    def _look_for_damage(self, known: int) -> None:
        """Raises: StoreError."""
        way = "keep a copy of the folder, and put back a backup, or move the file away to begin anew"
        if known and self.one("SELECT count(*) FROM sqlite_master WHERE type='table'")[0] < 11:
            raise StoreError(f"{self.path} is damaged: tables are missing", hint=way)
        if self.path.stat().st_size <= CHECKED_BYTES:  # `verify` reads larger ones
            answer = self.one("PRAGMA quick_check(1)")[0]
            if answer != "ok":
                raise StoreError(f"{self.path} is damaged: {answer}", hint=way)
        for id_, name, next_, gone in self.all("SELECT id, name, next, gone FROM channels"):
            self._channels[name] = id_
            last = self.one("SELECT max(id) FROM messages WHERE id<?", (id_ + 1) << NUMBER_BITS)[0] or 0
            missing = self._gaps(id_)
            if next_ - 1 > gone and last != id_ << NUMBER_BITS | next_ - 1 and next_ - 1 not in Gaps(missing):
                raise StoreError(f"{self.path} is damaged: the channel {name} lacks its message {next_ - 1}", hint=way)

    def _gaps(self, channel: int) -> tuple[Gap, ...]:
        row = self.one("SELECT gaps FROM gaps WHERE channel=?", channel)
        return _gap_rows.decode(row[0]) if row else ()

    def _load_index(self, secret: bytes) -> None:
        self.index = Index(secret, self._message_at)
        for id_, prints in self.all("SELECT id, prints FROM segments ORDER BY id"):
            self.index.load(id_, prints)
        print_of = self.index.print_of
        newest: list[tuple[int, int]] = []
        for id_, sealed in self.all("SELECT id, sealed FROM channels"):
            base = id_ << NUMBER_BITS
            rows = self.run("SELECT id, who, key FROM messages WHERE id>? AND id<?", base | sealed, base | _BELOW)
            newest += [(print_of(id_ << 20 | who, key), message) for message, who, key in rows]
        self.index.load_newest(newest)

    def _message_at(self, segment: int, position: int) -> int:
        try:
            with self._db.blobopen("segments", "messages", segment, readonly=True) as blob:
                blob.seek(8 * position)
                return int.from_bytes(blob.read(8), sys.byteorder)
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    # --- the database -----------------------------------------------------------------------------------------------

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """One statement. Raises: StoreFull, StoreError."""
        if self.failed:
            raise StoreError(f"{self.path} has failed before")
        if self._waiting:
            self.write()
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def run_each(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """One statement for each of these, which costs a half of calling it for each. Raises: StoreFull, StoreError."""
        if self.failed:
            raise StoreError(f"{self.path} has failed before")
        if self._waiting:
            self.write()
        try:
            self._db.executemany(sql, values)
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def write(self) -> None:
        """Writes the messages that were added, by one statement for all. Raises: StoreFull, StoreError."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.run_each("INSERT INTO messages VALUES(?,?,?,?,?,?,?,?,?)", waiting)

    def one(self, sql: str, *values: Any) -> Any:
        """The first row, or None."""
        try:
            return self.run(sql, *values).fetchone()
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def all(self, sql: str, *values: Any) -> list[Any]:
        """All rows: for what is few."""
        try:
            return self.run(sql, *values).fetchall()
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def _mapped(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"{self.path} has no more room", hint="make room on its disk, or give its store more")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(f"{self.path} is in use by another process", hint="is a second gate running?")
        self._leave()
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            way = "keep a copy of the folder, and put back a backup, or move the file away to begin anew"
            return StoreError(f"{self.path} is damaged: {error}", hint=way)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return StoreError(
                f"{self.path} cannot be written: {error}", hint="whose is the folder, and is it mounted so?"
            )
        return StoreError(f"{self.path} failed: {error} ({name})", hint="look at the disk and the kernel's messages")

    def _leave(self) -> None:
        """Lets go of the database without another word to the disk: SQLite would write when it closes it."""
        if not self.failed and self._db is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        self.failed = True
        self._close_log()

    def _close_log(self) -> None:
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1

    def begin(self) -> None:
        """A transaction begins; if one has begun, this does nothing."""
        if not self._db.in_transaction:
            self.run("BEGIN IMMEDIATE")

    def sync(self) -> None:
        """Waits until the disk has all that was committed. Raises: StoreError."""
        if self.failed:
            raise StoreError(f"{self.path} has failed before")
        try:
            os.fdatasync(self._wal)
        except OSError as error:
            self._leave()
            name = errno.errorcode.get(error.errno or 0, "")
            raise StoreError(
                f"{self.path}-wal cannot be synced: {error.strerror} ({name})",
                hint="look at the disk and the kernel's messages",
            ) from None

    @property
    def writing(self) -> bool:
        """A transaction has begun."""
        return self._db.in_transaction

    def commit(self, drafts: list[Draft], pushed: dict[str, tuple[int, int]]) -> Untold:
        """Ends the transaction, with what the audit log is to be told of it. (It lasts once `sync` has returned.)

        Raises:
            StoreFull: it was taken back. StoreError: nothing is known any more, and nothing may be done.
        """
        self.group += 1
        try:
            if drafts:  # which say its number as well, and stay until a later commit has another
                self.run("INSERT INTO told VALUES(?,?,?)", self.group, _encode(pushed), _encode(drafts))
            else:
                self.run("INSERT OR REPLACE INTO meta VALUES('group', ?)", self.group)
            self.run("COMMIT")
        except StoreError as error:
            self.group -= 1
            if isinstance(error, StoreFull):
                self.rollback()
            raise
        self._added = []
        self.series.committed()
        return Untold(self.group, pushed, drafts)

    def rollback(self) -> None:
        """Takes back what this transaction has written."""
        self._waiting = []
        if self._db.in_transaction:  # SQLite may have done it by itself
            self.run("ROLLBACK")
        for print_ in self._added:
            del self.index.newest[print_]
        self._added = []
        self._channels = dict(self.all("SELECT name, id FROM channels"))
        self._principals = dict(self.all("SELECT name, id FROM principals"))
        self.series.taken_back()

    def fail(self) -> None:
        """Something has failed for good: the database is not touched any more."""
        self._leave()

    def close(self) -> None:
        """Ends in order."""
        if not self.failed:
            self.rollback()
            self._close_log()
            self._db.close()
            self.failed = True

    def channel(self, name: str) -> int:
        """A channel's id, made if there is none. Within a transaction, as `who`."""
        id_ = self._channels.get(name)
        if id_ is None:
            id_ = self._channels[name] = self.run("INSERT INTO channels(name) VALUES(?)", name).lastrowid or 0
        return id_

    def channel_known(self, name: str) -> int:
        """A channel's id, 0 if there is none. Also outside of a transaction."""
        return self._channels.get(name, 0)

    def who(self, name: str) -> int:
        """A principal's id."""
        id_ = self._principals.get(name)
        if id_ is None:
            id_ = self._principals[name] = self.run("INSERT INTO principals(name) VALUES(?)", name).lastrowid or 0
            self._names[id_] = name
        return id_

    def name_of(self, id_: int) -> str:
        """A principal's name."""
        return self._names[id_]

    # --- what the machine is made of --------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """All that a machine is made from."""
        names = {id_: name for name, id_ in self._channels.items()}
        for row in self.all("SELECT name,next,gone,messages,size,held,held_size,paused FROM channels"):
            yield ChannelRow(*row)
        for name, id_ in self._channels.items():
            if gaps := self._gaps(id_):
                yield GapsRow(name, gaps)
        for channel, who, *rest in self.all("SELECT channel,consumer,cursor,lease,dead FROM positions"):
            yield PositionRow(names[channel], self._names[who], *rest)
        for channel, who, *rest in self.all("SELECT channel,consumer,number,lease,until,count FROM open"):
            yield OpenRow(names[channel], self._names[who], *rest)

    def save(self, rows: Iterable[Row]) -> None:
        """What a machine says has changed."""
        for row in rows:
            channel = self.channel(row.channel)
            if isinstance(row, OpenRows):
                at = (channel, self.who(row.consumer))
                if row.opened:
                    opened = [(*at, *each) for each in row.opened]
                    self.run_each("INSERT OR REPLACE INTO open VALUES(?,?,?,?,?,?)", opened)
                if row.closed:
                    closed = [(*at, number) for number in row.closed]
                    self.run_each("DELETE FROM open WHERE channel=? AND consumer=? AND number=?", closed)
                continue
            if isinstance(row, ChannelRow):
                values = (row.next, row.gone, row.messages, row.size, row.held, row.held_size, row.paused)
                sql = "UPDATE channels SET next=?,gone=?,messages=?,size=?,held=?,held_size=?,paused=? WHERE id=?"
                self.run(sql, *values, channel)
                continue
            if isinstance(row, GapsRow):
                self.run("INSERT OR REPLACE INTO gaps VALUES(?,?)", channel, _encode(row.gaps))
                continue
            who = self.who(row.consumer)
            if isinstance(row, PositionRow):
                self.run("INSERT OR REPLACE INTO positions VALUES(?,?,?,?,?)",
                         channel, who, row.cursor, row.lease, row.dead)  # fmt: skip
            elif isinstance(row, DeadRow):
                self.run("INSERT OR REPLACE INTO dead VALUES(?,?,?,?,?,?)",
                         channel, who, row.number, row.count, row.reason, row.at)  # fmt: skip

    # --- messages -----------------------------------------------------------------------------------------------------

    def find(self, channel: str, who: str, key: str) -> Known | None:
        """The message that has this producer's key."""
        id_, source = self._channels.get(channel), self._principals.get(who)
        if id_ is None or source is None:
            return None
        print_ = self.index.print_of(id_ << 20 | source, key)
        while (message := self.index.find(print_)) is not None:
            row = self.one("SELECT who, key, ifnull(sent, sha256) FROM messages WHERE id=?", message)
            if row is not None and message >> NUMBER_BITS == id_ and row[0] == source and row[1] == key:
                return Known(message & _BELOW, row[2])
            print_ = next_print(print_)
        self._free = (id_, source, key, print_)
        return None

    def add(
        self, channel: str, number: int, who: str, key: str, body: bytes, sha256: bytes, sent: bytes, at: int
    ) -> None:
        """A message whose key is new. `sent`: the hash of what its producer sent, if that was something else. It is
        written with others: by `write`, or before whatever statement comes next."""
        self.begin()
        id_, source = self.channel(channel), self.who(who)
        message = id_ << NUMBER_BITS | number
        other = None if sent == sha256 else sent
        self._waiting.append((message, source, key, sha256, other, at, len(body), self.group + 1, body))
        # `find` has just said that the key is new, and where it goes; but for the first one of a channel or principal.
        *asked, print_ = self._free
        if asked == [id_, source, key]:
            self.index.newest[print_] = message
        else:
            print_ = self.index.add(self.index.print_of(id_ << 20 | source, key), message)
        self._added.append(print_)

    def add_all(
        self, channel: str, first: int, who: str, keys: list[str], bodies: list[bytes], hashes: list[bytes], at: int
    ) -> bool:
        """Messages of one producer, numbered from `first` on, that are stored as they were sent: written as by `add`.
        False: nothing is, since one of the keys may be known."""
        id_, source = self._channels.get(channel), self._principals.get(who)
        prints = None if id_ is None or source is None else self.index.fresh(id_ << 20 | source, keys)
        if id_ is None or prints is None:
            return False
        self.begin()
        base, group = id_ << NUMBER_BITS | first, self.group + 1
        self._waiting += [
            (message, source, key, sha256, None, at, len(body), group, body)
            for message, key, sha256, body in zip(itertools.count(base), keys, hashes, bodies, strict=False)
        ]
        self.index.newest.update(zip(prints, itertools.count(base), strict=False))
        self._added += prints
        return True

    def origin(self, wanted: str = "") -> str:
        """Whose numbers the messages here have, where they come over a strand; "" as long as none has come. `wanted`:
        it is that from now on. Within a transaction then."""
        if wanted:
            self.run("INSERT OR REPLACE INTO meta VALUES('origin', ?)", wanted)
        row = self.one("SELECT value FROM meta WHERE name='origin'")
        return row[0] if row else ""

    def message(self, channel: str, number: int) -> Stored | None:
        """One message."""
        found = self.messages(channel, number - 1, 1, number)
        return found[0] if found else None

    def messages(self, channel: str, after: int, most: int, upto: int = _BELOW, bytes_: int = 1 << 62) -> list[Stored]:
        """Up to `most` messages after a number, lowest first, of `bytes_` in all if they are more than one."""
        base = self._channels.get(channel, 0) << NUMBER_BITS
        sql = "SELECT id,who,key,sha256,at,size,grp,body FROM messages WHERE id>? AND id<=? ORDER BY id LIMIT ?"
        rows = self.run(sql, base | after, base | upto, most)
        found: list[Stored] = []
        try:
            for id_, who, *rest in rows:
                one = Stored(id_ & _BELOW, self._names[who], *rest)
                bytes_ -= one.size
                if found and bytes_ < 0:
                    break
                found.append(one)
        except sqlite3.Error as error:
            raise self._mapped(error) from None
        return found

    def stored_at(self, channel: str, number: int) -> int:
        """When a message, or the next one that is there, was stored (UTC, ns); 0 if there is none."""
        base = self._channels.get(channel, 0) << NUMBER_BITS
        sql = "SELECT at FROM messages WHERE id>=? AND id<=? ORDER BY id LIMIT 1"
        row = self.one(sql, base | number, base | _BELOW)
        return row[0] if row else 0

    def remove(self, channel: str, after: int, upto: int, before: int, most: int) -> tuple[int, int, int]:
        """Removes up to `most` messages after a number that were stored before a time, save those that are dead to
        somebody. Returns (up to which number, how many, their bytes)."""
        id_ = self.channel(channel)
        base = id_ << NUMBER_BITS
        sql = "SELECT id, at, size FROM messages WHERE id>? AND id<=? ORDER BY id LIMIT ?"
        rows = self.all(sql, base | after, base | upto, most)
        top = rows[-1][0] & _BELOW if rows else after
        sql = "SELECT DISTINCT number FROM dead WHERE channel=? AND number>? AND number<=?"
        kept = {number for (number,) in self.all(sql, id_, after, top)}
        last, count, size = after, 0, 0
        for message, at, bytes_ in rows:
            if at >= before:
                break
            last = message & _BELOW
            if last not in kept:
                self.run("DELETE FROM messages WHERE id=?", message)
                count += 1
                size += bytes_
        return last, count, size

    def forget(self, channel: str, number: int) -> int:
        """Removes a message that was only kept because it was dead to somebody. Returns its size, -1: it is still."""
        id_ = self.channel(channel)
        if self.one("SELECT 1 FROM dead WHERE channel=? AND number=? LIMIT 1", id_, number):
            return -1
        row = self.one("SELECT size FROM messages WHERE id=?", id_ << NUMBER_BITS | number)
        self.run("DELETE FROM messages WHERE id=?", id_ << NUMBER_BITS | number)
        return int(row[0]) if row else -1

    # --- what is dead -------------------------------------------------------------------------------------------------

    def dead(self, channel: str, consumer: str, after: int, most: int) -> list[DeadRow]:
        """Messages that are dead to a consumer, lowest first."""
        rows = self.all("SELECT number,count,reason,at FROM dead WHERE channel=? AND consumer=? AND number>? LIMIT ?",
                        self._channels.get(channel, 0), self._principals.get(consumer, 0), after, most)  # fmt: skip
        return [DeadRow(channel, consumer, *row) for row in rows]

    def revive(self, channel: str, consumer: str, first: int, last: int = _BELOW) -> int:
        """These are dead to it no more. Returns how many they were."""
        sql = "DELETE FROM dead WHERE channel=? AND consumer=? AND number>=? AND number<=?"
        return self.run(sql, self.channel(channel), self.who(consumer), first, last).rowcount

    # --- the audit log, the index, room -------------------------------------------------------------------------------

    def untold(self) -> list[Untold]:
        """What a keeper before this one could not be sure that the log has."""
        rows = self.all("SELECT grp, pushed, drafts FROM told ORDER BY grp")
        return [Untold(group, _pushed.decode(pushed), _drafts.decode(drafts)) for group, pushed, drafts in rows]

    def told(self, group: int) -> None:
        """Up to this commit the log has it all. (Written with the next transaction.)"""
        self.run("DELETE FROM told WHERE grp<=?", group)

    def seal(self) -> None:
        """Seals the newest keys, if they are many. A transaction of its own."""
        if len(self.index.newest) < SEGMENT or self.writing:
            return
        prints, messages = self.index.sealed()
        tops: dict[int, int] = {}
        for message in self.index.newest.values():
            channel = message >> NUMBER_BITS
            tops[channel] = max(tops.get(channel, 0), message & _BELOW)
        self.begin()
        id_ = self.run("INSERT INTO segments VALUES(NULL,?,?,?)", _encode(tops), prints, messages).lastrowid or 0
        for channel, number in tops.items():
            self.run("UPDATE channels SET sealed=? WHERE id=?", number, channel)
        self.run("COMMIT")
        self.index.seal(id_, prints)

    def drop_segments(self, channel: str, gone: int) -> None:
        """Forgets keys of which every message is gone, now that those of a channel up to `gone` are. Within a
        transaction."""
        known = dict(self.all("SELECT id, gone FROM channels")) | {self.channel(channel): gone}
        for id_, tops in self.all("SELECT id, tops FROM segments"):
            if all(known.get(each, 0) >= number for each, number in _tops.decode(tops).items()):
                self.run("DELETE FROM segments WHERE id=?", id_)
                self.index.drop(id_)

    def room(self) -> tuple[int, int]:
        """(bytes free, bytes in all) where the store lies."""
        return disk.room(self.folder)
