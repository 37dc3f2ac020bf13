"""How the gate listens to a part that may have been taken over: what it says is bounded in size, rate and names before
anything is made of it, and what passes the bounds ends that part, not the gate.

What counts: bytes and records in a time (`weigh`), the figures that the broker declares, labels of policies that the
part has worked by, how many values and buckets are kept of it, and texts without what a terminal would obey.

Not here: the part itself (part), sums over parts (gate.watch.totals).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import structs

from cofferdam.brokers.kit.figures import Distribution, Figure, check
from cofferdam.brokers.kit.reports import PAGES
from cofferdam.brokers.kit.supervision import (
    REPORT_BYTES,
    RESULT_BYTES,
    AssetStatus,
    FromPart,
    PartStatus,
)
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError
from cofferdam.gate.log import spelled

BYTES_A_SECOND: Final = 2 * PAGES * REPORT_BYTES
"""What a part may say unasked, sustained: it reports once a second."""
BYTES_AT_ONCE: Final = 8 * BYTES_A_SECOND
LEAST: Final = 512
"""A record counts as so many bytes at least: to read one costs time, however small it is."""
CELLS: Final = 20_000
CELLS_A_NAME: Final = 3_000
"""Values and buckets that are kept of one part: so many, and more for each name of its policies."""
LABELS: Final = 4096
"""Labels of a figure that is kept apart by what no policy names, such as a consumer."""
RECORDS_A_SECOND, RECORDS_AT_ONCE = 50, 500
"""What a part of the house may say: an honest one has some in a second at most."""
_DONE_TAG: Final = 5
_SLACK: Final = 16384
"""Around the result of an answer: its error and hint."""


R = TypeVar("R")


class Bounded(RecordCodec[R]):
    """Decodes what a part of the house says of itself (an export, the witness, the name server, the leak probe), which
    is a word now and then. One that says more was taken over, or is broken: it ends, before the gate has no turn left
    for anything else. Of one part's life."""

    __slots__ = ("_at", "_left")

    def __init__(self, like: RecordCodec[R]) -> None:
        """`like`: of the same records."""
        super().__init__(like.union, limit=like.limit)
        self._left = float(RECORDS_AT_ONCE)
        self._at = time.monotonic()

    def decode(self, data: bytes | memoryview) -> R:
        now = time.monotonic()
        self._left = min(RECORDS_AT_ONCE, self._left + (now - self._at) * RECORDS_A_SECOND) - 1
        self._at = now
        if self._left < 0:
            raise CrossingError(f"it says more than {RECORDS_A_SECOND} things a second, unasked")
        return super().decode(data)

    def decode_many(self, data: bytes | memoryview) -> list[R]:
        raise CrossingError("a batch, which no part sends here")


class Incoming(RecordCodec[FromPart]):
    """Decodes what a part says, once it is weighed."""

    __slots__ = ("_hearing",)

    def __init__(self, hearing: Hearing) -> None:
        super().__init__(FromPart, limit=RESULT_BYTES + _SLACK)
        self._hearing = hearing

    def decode(self, data: bytes | memoryview) -> FromPart:
        self._hearing.weigh(data)
        return super().decode(data)

    def decode_many(self, data: bytes | memoryview) -> list[FromPart]:
        raise CrossingError("a batch, which no part sends here")


class Hearing:
    """What one part has said so far."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self._declared = {figure.name: figure for figure in figures}
        self._tokens = float(BYTES_AT_ONCE)
        self._at = time.monotonic()
        self._names: dict[str, set[str]] = {"conduit": {""}, "asset": {""}}
        self._figures: dict[str, dict[str, int | Distribution]] = {}
        self._assets: dict[str, AssetStatus] = {}
        self._open: dict[str, int] = {}
        self._cells = 0

    # --- how much ----------------------------------------------------------------------------------------------

    def weigh(self, data: bytes | memoryview) -> None:
        """One more record, encoded. Raises: CrossingError, where that is more than a part may say."""
        size = len(data)
        # Only an answer may be long, and it was asked for. (Its tag is the first member of an array.)
        if size > REPORT_BYTES and not (size > 1 and 0x90 <= data[0] <= 0x9F and data[1] == _DONE_TAG):
            raise CrossingError(f"it says {size} bytes in one record; at most {REPORT_BYTES} are allowed")
        now = time.monotonic()
        self._tokens = min(BYTES_AT_ONCE, self._tokens + (now - self._at) * BYTES_A_SECOND)
        self._at = now
        self._tokens -= max(size, LEAST)
        if self._tokens < 0:
            raise CrossingError(f"it says more than {BYTES_A_SECOND} bytes a second, unasked")

    def asked(self, size: int) -> None:
        """The gate has asked: an answer of so many bytes may come besides."""
        self._tokens += size

    # --- what --------------------------------------------------------------------------------------------------

    def works_by(self, conduits: Iterable[str], assets: Iterable[str]) -> None:
        """The names of a policy that the part is about to work by; those of earlier ones stay known."""
        self._names["conduit"] |= set(conduits)
        self._names["asset"] |= set(assets)

    def take(self, page: PartStatus) -> PartStatus | None:
        """One page of a report; with the last one, all that the part has reported. Names that are of no policy are
        left out.

        Raises:
            CrossingError: it says what an honest part cannot say.
        """
        check(self._declared, page.figures)
        for name, values in page.figures.items():
            by = self._declared[name].by
            known, kept = self._names.get(by), self._figures.setdefault(name, {})
            for label, value in values.items():
                if label in known if known is not None else label in kept or len(kept) < LABELS:
                    self._cells += _cells(value) - _cells(kept.get(label))
                    kept[label] = value
        assets = self._names["asset"]
        for asset in page.assets:
            if asset.asset in assets:
                self._assets[asset.asset] = clean(asset)
        self._open |= {label: count for label, count in page.open.items() if label in assets}
        most = CELLS + CELLS_A_NAME * sum(map(len, self._names.values()))
        if self._cells > most:
            raise CrossingError(f"its figures have {self._cells} values and buckets; at most {most} are kept")
        if page.more:
            return None
        return structs.replace(
            page,
            figures={name: dict(values) for name, values in self._figures.items()},
            assets=tuple(self._assets.values()),
            open=dict(self._open),
            alarms={name: spelled(detail) for name, detail in page.alarms.items()},
        )


def _cells(value: int | Distribution | None) -> int:
    return 0 if value is None else 1 + len(value.counts) if isinstance(value, Distribution) else 1


def clean(record: Any) -> Any:
    """A record whose texts, also those in a list, are spelled so that a terminal shows them and obeys none."""
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and not value.isprintable():
            changes[field.name] = spelled(value)
        elif isinstance(value, tuple) and any(isinstance(one, str) and not one.isprintable() for one in value):
            changes[field.name] = tuple(spelled(one) if isinstance(one, str) else one for one in value)
    return structs.replace(record, **changes) if changes else record
