"""A part's report in pages, none larger than the gate takes: what does not fit now comes with the next report.

Not here: what is in a report (supervision, figures), what the gate makes of it (gate.crew.hearing).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import structs

from cofferdam.brokers.kit.figures import Distribution, Reported
from cofferdam.brokers.kit.supervision import AssetStatus, PartStatus

PAGE_BYTES: Final = 24 << 10
"""About so much of figures and assets goes on one page; what stands on every page has as much room again."""
PAGES: Final = 4
"""Of one report. A part with more figures than that tells the others next time, in turn."""
DETAIL: Final = 256
"""Characters of what an asset's state, or an alarm, is said to be."""


class Pager:
    """Cuts reports into pages. One for the life of a part: it knows where the last report ended, and which sessions it
    has told of, so that it tells when there are none left."""

    def __init__(self) -> None:
        self._at = 0
        self._open: set[str] = set()

    def pages(self, report: PartStatus) -> list[PartStatus]:
        """The report as at most PAGES records."""
        alarms = {name: detail[:DETAIL] for name, detail in report.alarms.items()}
        report = structs.replace(
            report, alarms=alarms, open=dict.fromkeys(self._open - report.open.keys(), 0) | report.open
        )
        self._open = {label for label, count in report.open.items() if count}
        items = list(_items(report))
        if sum(size for size, _, _, _ in items) <= PAGE_BYTES:
            self._at = 0
            short = tuple(structs.replace(asset, detail=asset.detail[:DETAIL]) for asset in report.assets)
            return [structs.replace(report, assets=short)]
        pages: list[PartStatus] = []
        at = self._at % len(items)
        taken = 0
        while len(pages) < PAGES and taken < len(items):
            figures: Reported = {}
            counts: dict[str, int] = {}
            assets: list[AssetStatus] = []
            room = PAGE_BYTES
            while taken < len(items):
                size, name, label, value = items[(at + taken) % len(items)]
                if size > room and room < PAGE_BYTES:
                    break
                room -= size
                taken += 1
                if isinstance(value, AssetStatus):
                    assets.append(structs.replace(value, detail=value.detail[:DETAIL]))
                elif not name and isinstance(value, int):
                    counts[label] = value
                else:
                    figures.setdefault(name, {})[label] = value
            pages.append(structs.replace(report, figures=figures, assets=tuple(assets), open=counts, more=True))
        self._at = at + taken
        pages[-1] = structs.replace(pages[-1], more=False)
        return pages


def _items(report: PartStatus) -> Iterator[tuple[int, str, str, int | Distribution | AssetStatus]]:
    """All that goes on pages: (about how many bytes it takes, the figure's name, its label, its value)."""
    for name, values in report.figures.items():
        for label, value in values.items():
            size = 8 * len(value.counts) + 32 if isinstance(value, Distribution) else 10
            yield size + len(name) + 4 * len(label), name, label, value
    for label, count in report.open.items():
        yield 4 * len(label) + 10, "", label, count
    for asset in report.assets:
        yield 4 * (len(asset.asset) + min(len(asset.detail), DETAIL)) + 32, "", asset.asset, asset
