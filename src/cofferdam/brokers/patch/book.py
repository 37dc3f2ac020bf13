"""A part's book: typed rows by kind and number in one SQLite file, each on disk when `put` returns.

For what changes a few times a minute and must outlive the process. Not here: files, what rows mean.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from cofferdam.brokers.kit.database import check_plain
from cofferdam.errors import StoreError, StoreFull

T = TypeVar("T")
_TABLE: Final = "CREATE TABLE IF NOT EXISTS rows(kind TEXT, id TEXT, body BLOB, PRIMARY KEY(kind, id)) WITHOUT ROWID"


class Book:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Raises: StoreError."""
        self._path = path
        check_plain(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=TRUNCATE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA temp_store=MEMORY")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise self._error(error) from None

    def put(self, kind: str, number: int | str, row: object) -> None:
        """Raises: StoreFull (nothing has changed), StoreError."""
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO rows VALUES(?, ?, ?)", (kind, str(number), msgspec.json.encode(row))
            )
        except sqlite3.Error as error:
            raise self._error(error) from None

    def put_all(self, kind: str, rows: dict[str, Any]) -> None:
        """All of them or none. Raises: StoreFull (nothing has changed), StoreError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT OR REPLACE INTO rows VALUES(?, ?, ?)",
                    ((kind, number, msgspec.json.encode(row)) for number, row in rows.items()),
                )
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._error(error) from None

    def drop(self, kind: str, number: int | str) -> None:
        """Raises: StoreError."""
        try:
            self._db.execute("DELETE FROM rows WHERE kind = ? AND id = ?", (kind, str(number)))
        except sqlite3.Error as error:
            raise self._error(error) from None

    def all(self, kind: str, of: type[T]) -> Iterator[tuple[str, T]]:
        """Raises: StoreError."""
        try:
            found = self._db.execute("SELECT id, body FROM rows WHERE kind = ? ORDER BY id", (kind,)).fetchall()
            for number, body in found:
                yield number, msgspec.json.decode(body, type=of)
        except sqlite3.Error as error:
            raise self._error(error) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._path} has a row that cannot be read: {error}") from None

    def close(self) -> None:
        self._db.close()

    def _error(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorname", "")
        if code == "SQLITE_FULL":
            return StoreFull(f"{self._path}: the disk is full")
        return StoreError(f"{self._path}: {error}", hint="the disk's own messages say more")


class Table(Generic[T]):
    """One kind of rows, held in memory as well."""

    def __init__(self, book: Book, kind: str, of: type[T]) -> None:
        self._book = book
        self._kind = kind
        self.rows: dict[str, T] = dict(book.all(kind, of))

    def put(self, number: int | str, row: T) -> None:
        """Raises: StoreError."""
        self._book.put(self._kind, number, row)
        self.rows[str(number)] = row

    def put_all(self, rows: dict[str, T]) -> None:
        """All of them or none. Raises: StoreError."""
        self._book.put_all(self._kind, rows)
        self.rows.update(rows)

    def drop(self, number: int | str) -> None:
        """Raises: StoreError."""
        self._book.drop(self._kind, number)
        self.rows.pop(str(number), None)

    def get(self, number: int | str) -> T | None:
        return self.rows.get(str(number))
