"""Counts of reads, on their way into the audit log: those of sessions without end in few entries.

A client that connects, reads and leaves makes an entry for each of its sessions, as far as its source's budget goes
(kit.budget); from there on its reads are told together, by source, asset and conduit, with no session's name.
"""

from __future__ import annotations

from msgspec import structs

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import ReadsCounted
from cofferdam.brokers.kit.budget import INTERVAL_NS, network
from cofferdam.brokers.proxy.sessions import Session, Tally

KEPT = 256
"""Sources, assets and conduits that are told apart in an interval; beyond them the source is "others"."""

Key = tuple[str, str, str]


def counted(session: Session, tally: Tally, principals: tuple[str, ...], since: int, wall: int) -> ReadsCounted:
    """The entry for a session's reads. Times: UTC ns."""
    return ReadsCounted(
        wall_ns=wall,
        session=session.name,
        principals=principals,
        source=session.source,
        asset=session.asset,
        conduit=tally.conduit[:128],
        reads=tally.reads,
        cells=tally.cells,
        shared=tally.shared,
        failed=tally.failed,
        from_ns=since,
        to_ns=wall,
        notices=tally.notices,
    )


class ReadsBook:
    """Reads that are told together, once in an interval."""

    def __init__(self, audit: AuditClient) -> None:
        self._audit = audit
        self._began = 0
        self._kept: dict[Key, ReadsCounted] = {}

    def over(self, entry: ReadsCounted) -> bool:
        """Whether reads of this source, asset and conduit are told together already."""
        return bool(self._kept) and _key(entry) in self._kept

    def add(self, entry: ReadsCounted) -> None:
        """Some more."""
        self._began = self._began or entry.wall_ns
        key = _key(entry)
        if key not in self._kept and len(self._kept) >= KEPT:
            key = ("others", key[1], key[2])
        there = self._kept.get(key)
        if there is None:
            self._kept[key] = structs.replace(entry, session="", source=key[0])
            return
        self._kept[key] = structs.replace(
            there,
            wall_ns=entry.wall_ns,
            reads=there.reads + entry.reads,
            cells=there.cells + entry.cells,
            shared=there.shared + entry.shared,
            failed=there.failed + entry.failed,
            notices=there.notices + entry.notices,
            from_ns=min(there.from_ns, entry.from_ns),
            to_ns=max(there.to_ns, entry.to_ns),
        )

    def tick(self, wall: int) -> None:
        """Tells them once the interval is over. `wall`: UTC ns."""
        if self._kept and not 0 <= wall - self._began <= INTERVAL_NS:
            self.tell()

    def tell(self) -> None:
        """Tells them."""
        kept, self._kept, self._began = self._kept, {}, 0
        for entry in kept.values():
            self._audit.note(entry)


def _key(entry: ReadsCounted) -> Key:
    return network(entry.source), entry.asset, entry.conduit
