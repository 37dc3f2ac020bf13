"""One SQLite database in a part's store, in one process's hands: write-ahead log, synced commits.

A disk that is full is told apart from one that fails: after a failure nothing is written any more, and the part ends.

Not here: what is in it (spool_store, keeper_store).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cofferdam.brokers.kit.database import CHECKED_BYTES, check_plain
from cofferdam.errors import StoreError, StoreFull


class Database:
    """Open from birth to death of the part."""

    def __init__(self, path: Path, application: int, tables: str) -> None:
        """Raises: StoreError, which names the file and the way out."""
        self.path = path
        check_plain(path)
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=64)
            self.run("PRAGMA locking_mode=EXCLUSIVE")
            known = self.one("SELECT count(*) FROM sqlite_master")[0]
            if known and self.one("PRAGMA application_id")[0] != application:
                raise StoreError(f"{path} is a database of something else", hint="move it out of the store's folder")
            self.run("PRAGMA journal_mode=WAL")
            self.run("PRAGMA synchronous=FULL")
            # Of an earlier version some are missing.
            self._db.executescript(re.sub(r"CREATE (TABLE|INDEX) ", r"CREATE \1 IF NOT EXISTS ", tables))
            if not known:
                self.run(f"PRAGMA application_id={application}")
            found = self.one("PRAGMA quick_check(1)")[0] if path.stat().st_size <= CHECKED_BYTES else "ok"
            if found != "ok":
                raise StoreError(f"{path} is damaged: {found}", hint="move it away, and bring a backup if there is one")
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def run(self, statement: str, *values: Any) -> None:
        """Raises: StoreError, StoreFull."""
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    def one(self, statement: str, *values: Any) -> tuple[Any, ...]:
        """The first row; () for none. Raises: StoreError."""
        return next(self.all(statement, *values), ())

    def all(self, statement: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows. Raises: StoreError."""
        try:
            return iter(self._db.execute(statement, values).fetchall())
        except sqlite3.Error as error:
            raise self._mapped(error) from None

    @contextmanager
    def commit(self) -> Iterator[None]:
        """What is run within is on disk afterwards, or nothing of it is. Raises: StoreError, StoreFull."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        try:
            self.run("COMMIT")
        except StoreError:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """In order."""
        self._db.close()

    def _mapped(self, error: sqlite3.Error) -> StoreError:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":  # the module's own errors have none
            return StoreFull(f"the disk of {self.path} is full")
        return StoreError(f"{self.path}: {error}", hint="the part ends, and the next one reads what is really there")
