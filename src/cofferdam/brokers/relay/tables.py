"""The part of a side that speaks with databases: drains outboxes, fills inboxes, and asks the keeper.

It has no store and opens no file; it connects to the databases that the policy names for its zone, and to nothing else
(the firewall holds that, too).

Not here: the work on tables (table_work), their columns and SQL (table_schema), what ways have in common (ways).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.relay.ways import Way
from cofferdam.errors import GateError, extra
from cofferdam.policy.terms.relay_rows import Changes, RelayRows, Table

if TYPE_CHECKING:
    from cofferdam.brokers.relay.table_work import TableWork

Wanted = tuple[Table, str, tuple[tuple[str, str], ...], Changes | None]
"""(database, "push", "changes" or "pull", ((channel, principal), ...), the site's own table): what one
connection is for."""


class Tables(Way[Wanted, "TableWork"]):
    """The part."""

    figures_of = ("table_rows_taken", "table_rows_booked")
    troubled = "table_connections_away"

    def __init__(self, setting: Setting) -> None:
        try:
            import cofferdam.brokers.relay.table_changes
            import cofferdam.brokers.relay.table_work  # noqa: F401 - before the filter is on
        except ImportError as error:
            missing = f"a relay with tables needs psycopg: {error}"
            raise GateError(missing, hint=extra("relay")) from None
        # It warns of what follows from an error that it raises too, and that is told in our words.
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)
        super().__init__(setting)

    def wanted(self, rows: Collection[RelayRows]) -> Iterator[Wanted]:
        pushes: dict[Table, set[tuple[str, str]]] = {}
        for row in rows:
            for table in row.tables:
                for line in row.lines:
                    for who in line.who:
                        if row.stands[who] == table.zone:
                            own = {each.channel: each for each in row.changes if each.zone == table.zone}
                            pushes.setdefault(table, set()).update((each, who) for each in line.push if each not in own)
                            for channel in own.keys() & set(line.push):
                                yield table, "changes", ((channel, who),), own[channel]
                            for channel in line.pull:
                                yield table, "pull", ((channel, who),), None
        for table, ways in pushes.items():
            if ways:
                yield table, "push", tuple(sorted(ways)), None

    def make(self, key: Wanted) -> TableWork:
        from cofferdam.brokers.relay.table_changes import TableChanges
        from cofferdam.brokers.relay.table_work import Inbox, Outbox

        table, verb, ways, changes = key
        if changes is not None:
            return TableChanges(self, table, changes, ways[0][1])
        return Outbox(self, table, ways) if verb == "push" else Inbox(self, table, *ways[0])

    def place(self, key: Wanted) -> tuple[str, str]:
        return key[0].zone, key[0].at

    def figures(self) -> Reported:
        behind = [getattr(work, "behind", 0) for work in self._work.values()]
        return {**super().figures(), "table_changes_behind": {"": max(behind, default=0)}}

    def is_troubled(self, work: TableWork) -> bool:
        return work.away
