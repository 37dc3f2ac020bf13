"""What limits with a memory remember, in the keeper's store: of each series its last value, and how many came when.

Not here: what a limit makes of it (keeper), the database (store).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from cofferdam.brokers.relay.keeper_rows import StepRow

KNOWN_MOST: Final = 20_000
"""Series that are remembered within one transaction."""

_counts: Final = msgspec.msgpack.Decoder(tuple[int, ...])
_encode: Final = msgspec.msgpack.Encoder().encode


class Database(Protocol):
    """What is needed of the store."""

    def begin(self) -> None: ...
    def run(self, sql: str, *values: Any) -> Any: ...
    def one(self, sql: str, *values: Any) -> Any: ...
    def channel(self, name: str) -> int: ...
    def channel_known(self, name: str) -> int: ...


class Series:
    """The table `steps`, and what of it was looked up or written within this transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[int, int] = {}
        self._steps: dict[tuple[str, str, str], StepRow | None] = {}

    def recall(self, channel: str, limit: str, key: str) -> StepRow | None:
        """What a limit remembers of a series."""
        at = (channel, limit, key)
        if at in self._steps:
            return self._steps[at]
        sql = "SELECT value,at,counts FROM steps WHERE channel=? AND lim=? AND key=?"
        row = self._database.one(sql, self._database.channel_known(channel), limit, key)
        found = StepRow(channel, limit, key, row[0], row[1], _counts.decode(row[2])) if row else None
        if len(self._steps) < KNOWN_MOST:
            self._steps[at] = found
        return found

    def count(self, channel: str) -> int:
        """How many series a channel's limits remember."""
        id_ = self._database.channel_known(channel)
        if id_ not in self._counts:
            self._counts[id_] = self._database.one("SELECT count(*) FROM steps WHERE channel=?", id_)[0]
        return self._counts[id_]

    def remember(self, rows: Iterable[StepRow]) -> None:
        """What limits have to remember from now on."""
        for row in rows:
            self._database.begin()
            channel = self._database.channel(row.channel)
            if self.recall(row.channel, row.limit, row.key) is None:
                self._counts[channel] = self.count(row.channel) + 1
            values = (channel, row.limit, row.key, row.value, row.at, _encode(row.counts))
            self._database.run("INSERT OR REPLACE INTO steps VALUES(?,?,?,?,?,?)", *values)
            self._steps[row.channel, row.limit, row.key] = row

    def forget(self, channel: str, before: int) -> None:
        """Forgets series whose last message came before this bucket."""
        self._database.begin()
        self.taken_back()
        self._database.run("DELETE FROM steps WHERE channel=? AND at<?", self._database.channel(channel), before)

    def committed(self) -> None:
        """A transaction has ended, and what is remembered of it is in the table."""
        self._steps = {}

    def taken_back(self) -> None:
        """What was written within this transaction is not there, or not for long."""
        self._counts, self._steps = {}, {}
