"""The writes of the last minute, as the log has them: so that limits on how often a point may be written outlive the
process that counts, its name, and the gate.

Not here: how they are counted (policy.points.state), who is told (the gate asks for the assets of a part to be born).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from cofferdam.audit.entry import decode_entry, parse_time
from cofferdam.audit.events.access import WriteAllowed
from cofferdam.audit.supervision import PastWrite
from cofferdam.errors import AuditError

SPAN_NS = 60_000_000_000
"""How far back is remembered: `writes_per_minute` looks no further."""
KEPT = 8192
"""Writes that are remembered; where there were more, nobody can say what was written."""
KEPT_THINGS = 131_072
"""Cells, points and moves that they name, all together: a part that was taken over may name hundreds in each."""
TAIL = 8192
"""Entries at the end of a log that are looked through when it is opened."""


Move = tuple[str, int | float, int | float]
"""A point, what it held, and what it was given."""


def things_of(write: PastWrite) -> int:
    """How many cells, points and moves it names: what its size follows from."""
    return 1 + len(write.spans) + len(write.points) + len(write.moves)


class RecentWrites:
    """Times: ns of a clock that never goes back, for what is added; UTC ns for what is read from a log."""

    def __init__(self) -> None:
        self._writes: deque[tuple[int, PastWrite]] = deque()
        self._things = 0
        self._lost = -SPAN_NS
        """When a write was last forgotten before its time."""

    def add(self, draft: WriteAllowed, now: int) -> None:
        """It is on disk."""
        spans = tuple((one.space, one.start, len(one.values)) for one in draft.writes)
        given = [(one.point, one.value) for one in draft.points]
        moves = _moves(given, [(one.point, one.value) for one in draft.before])
        points = tuple(point for point, _ in given)
        self._keep(now, PastWrite(draft.asset, 0, spans, points, bool(draft.items), moves))

    def load(self, entries: Iterable[bytes], wall: int, now: int, *, whole: bool) -> None:
        """The end of a log that is opened; `whole`: there is no more of it."""
        oldest = wall
        for data in entries:
            try:
                entry = decode_entry(data)
                at = parse_time(entry.time)
            except AuditError:
                continue
            oldest = min(oldest, at)
            # A clock that was set back makes a write look new, never old.
            age = max(0, wall - at)
            if entry.kind == "write-allowed" and age < SPAN_NS:
                self._keep(now - age, _past(entry.event))
        if not whole and wall - oldest < SPAN_NS:
            self._lost = now

    def _keep(self, at: int, write: PastWrite) -> None:
        self._writes.append((at, write))
        self._things += things_of(write)
        while len(self._writes) > KEPT or self._things > KEPT_THINGS:
            self._lost = max(self._lost, self._forget())

    def _forget(self) -> int:
        """The oldest; when that was."""
        at, write = self._writes.popleft()
        self._things -= things_of(write)
        return at

    def of(self, assets: Collection[str], now: int) -> tuple[bool, tuple[PastWrite, ...]]:
        """Whether these are all writes of the last minute to these assets, and they, with their ages."""
        while self._writes and now - self._writes[0][0] >= SPAN_NS:
            self._forget()
        return now - self._lost >= SPAN_NS, tuple(self._aged(assets, now))

    def written(self) -> tuple[str, ...]:
        """The names of all assets that were written."""
        return tuple(sorted({write.asset for _, write in self._writes}))

    def _aged(self, assets: Collection[str], now: int) -> Iterator[PastWrite]:
        for at, write in self._writes:
            if write.asset in assets:
                age = max(0, now - at)
                yield PastWrite(write.asset, age, write.spans, write.points, write.items, write.moves)


def _past(event: dict[str, Any]) -> PastWrite:
    spans = tuple((str(space), int(start), len(values)) for space, start, values in event.get("writes", ()))
    given = [(str(point), str(value)) for point, value, *_ in event.get("points", ())]
    moves = _moves(given, [(str(point), str(value)) for point, value, *_ in event.get("before", ())])
    points = tuple(point for point, _ in given)
    return PastWrite(str(event.get("asset", "")), 0, spans, points, bool(event.get("items")), moves)


def _moves(given: Iterable[tuple[str, str]], before: Iterable[tuple[str, str]]) -> tuple[Move, ...]:
    """From what to what points were moved, where the log says both."""
    to = dict(given)
    found = ((point, _number(value), _number(to.get(point, ""))) for point, value in before)
    return tuple((point, held, got) for point, held, got in found if held is not None and got is not None)


def _number(text: str) -> int | float | None:
    """None also for what no point holds: a part that was taken over says numbers that no record carries."""
    try:
        found = int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return None
    return found if isinstance(found, float) or -(1 << 63) <= found < 1 << 64 else None
