"""Writes that are on record and have no outcome yet: when their part ends without a word about them, the log says that
nobody knows what became of them.

Not here: what a part says by itself while it lives (the brokers), when a part has ended (process).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cofferdam.audit.entry import Draft, decode_entry
from cofferdam.audit.events.access import WriteAllowed, WriteOutcome
from cofferdam.audit.log import MAKER
from cofferdam.errors import AuditError

KEPT = 8192
"""Open writes of one producer that are known; what an honest part has under way is far below."""
TAIL = 65536
"""Entries at the end of a log that are looked through when it is opened."""
UNKNOWN = "its part ended before it said what became of it: it may have been done"


class OpenWrites:
    """By producer: which writes are open, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, dict[str, tuple[str, str]]] = {}  # producer -> write -> (session, asset)
        self._lost: list[WriteOutcome] = []

    def add(self, producer: str, draft: Draft) -> None:
        """It is on disk."""
        if isinstance(draft, WriteAllowed):
            self._keep(producer, draft.write, draft.session, draft.asset)
        elif isinstance(draft, WriteOutcome):
            self._open.get(producer, {}).pop(draft.write, None)

    def has(self, producer: str, write: str) -> bool:
        """Whether it is open."""
        return write in self._open.get(producer, {})

    def load(self, entries: Iterable[bytes], living: Collection[str], wall: int) -> None:
        """The end of a log that is opened. `living`: who lives on from before, and may still say more."""
        for data in entries:
            if b'"kind":"write-' not in data:
                continue
            try:
                entry = decode_entry(data)
            except AuditError:
                continue
            write = str(entry.event.get("write", ""))
            if entry.kind == "write-allowed":
                self._keep(entry.maker, write, str(entry.event.get("session", "")), str(entry.event.get("asset", "")))
            elif entry.kind == "write-outcome":
                # What the log itself has closed may be anybody's. Else a part speaks of its own writes alone: one that
                # was taken over can guess how others' are called.
                for maker in list(self._open) if entry.maker == MAKER else [entry.maker]:
                    self._open.get(maker, {}).pop(write, None)
        for producer in [name for name in self._open if name not in living]:
            self.ended(producer, wall)

    def _keep(self, producer: str, write: str, session: str, asset: str) -> None:
        writes = self._open.setdefault(producer, {})
        writes[write] = (session, asset)
        if len(writes) > KEPT:
            del writes[next(iter(writes))]

    def ended(self, producer: str, wall: int) -> None:
        """It says nothing any more."""
        for write, (session, asset) in self._open.pop(producer, {}).items():
            self._lost.append(
                WriteOutcome(
                    wall_ns=wall, session=session, write=write, asset=asset, outcome="unknown", detail=UNKNOWN
                )
            )  # fmt: skip

    def all_ended(self, wall: int) -> None:
        for producer in list(self._open):
            self.ended(producer, wall)

    @property
    def lost(self) -> tuple[WriteOutcome, ...]:
        """Outcomes that are to be told; they stay until `told`."""
        return tuple(self._lost)

    def told(self, count: int) -> None:
        del self._lost[:count]
