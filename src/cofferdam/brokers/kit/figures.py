"""Figures: what a broker counts and measures. Declared once in its broker.py, reported by its parts by name, and shown
by `status`, the metrics and the docs without code of their own.

A figure is a counter (only grows), a gauge (goes up and down) or a histogram (of durations). It may be kept apart by
one label, such as the conduit or the asset. Durations and points in time are whole nanoseconds everywhere inside.

What a part reports is checked against what its broker declares (`check`): an unknown name, too many labels or a bucket
that there is not refuse the report.

Not here: sums over parts and lives (gate.watch.totals), how they are shown (gate.watch, cli.status).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from cofferdam.errors import CrossingError
from cofferdam.histogram import BUCKETS, Histogram

LABELS: Final = 65536
"""Labels of one figure in a report: more than a policy has conduits, assets or channels for one crew."""
FIGURES: Final = 128
"""Figures of one part."""

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, Meta(max_length=256)]
Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "bytes", "seconds", "time"]
"""What a value is: a number of things, of bytes, a duration in ns, or a point in time in ns since 1970 (UTC)."""


class Metric(Struct, frozen=True):
    """What Prometheus calls a figure, where that is not `cofferdam_BROKER_NAME` with its unit: its whole name, labels
    that tell it from other figures of the same metric, and the metric's sentence if it has one of its own."""

    name: str
    labels: dict[str, str] = {}
    meaning: str = ""


class Figure(Struct, frozen=True):
    """One figure. `by`: the label that keeps it apart, such as "conduit" ("": none). `meaning`: one sentence without
    its full stop. Made by `counter`, `gauge` and `histogram`."""

    kind: Kind
    name: str
    meaning: str
    by: str = ""
    unit: Unit = ""
    metric: Metric | None = None


def counter(name: str, meaning: str, *, by: str = "", unit: Unit = "", metric: Metric | None = None) -> Figure:
    """How often something happened, or how much there was of it, since the part started."""
    return Figure("counter", name, meaning, by, unit, metric)


def gauge(name: str, meaning: str, *, by: str = "", unit: Unit = "", metric: Metric | None = None) -> Figure:
    """How much there is of something now."""
    return Figure("gauge", name, meaning, by, unit, metric)


def histogram(name: str, meaning: str, *, by: str = "", metric: Metric | None = None) -> Figure:
    """How long something took, each time since the part started."""
    return Figure("histogram", name, meaning, by, "seconds", metric)


# --- what travels -----------------------------------------------------------------------------------------------


class Distribution(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A histogram (histogram.Histogram), by its buckets. `sum` and `max` in ns."""

    counts: dict[int, Count]
    sum: Count
    max: Count


Values = Annotated[dict[Name, Count | Distribution], Meta(max_length=LABELS)]
"""By label; a figure without one has its value under ""."""
Reported = Annotated[dict[Name, Values], Meta(max_length=FIGURES)]
"""By the figure's name."""


def distribution(measured: Histogram) -> Distribution:
    """A copy for the gate. A clock that was set may have made the sum negative."""
    return Distribution(measured.counts, max(0, measured.sum), measured.max)


def check(declared: Mapping[str, Figure], reported: Reported) -> None:
    """Holds a report to what is declared.

    Raises:
        CrossingError: it says what an honest part cannot say.
    """
    for name, values in reported.items():
        figure = declared.get(name)
        if figure is None:
            raise CrossingError(f"a report has the figure {name[:64]!r}, which its broker does not declare")
        for label, value in values.items():
            if not label.isprintable() or (label and not figure.by):
                raise CrossingError(f"the figure {name} has the label {label[:64]!r}")
            if isinstance(value, Distribution) != (figure.kind == "histogram"):
                raise CrossingError(f"the figure {name} is no {figure.kind} in a report")
            if isinstance(value, Distribution) and not all(0 <= index < BUCKETS for index in value.counts):
                raise CrossingError(f"the figure {name} has a bucket that there is not")


# --- for a part -------------------------------------------------------------------------------------------------


class Figures:
    """What a part counts, for a broker without a quicker way of its own. Unknown names are a bug: KeyError."""

    def __init__(self, declared: Iterable[Figure]) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._measured: dict[str, dict[str, Histogram]] = {}
        for figure in declared:
            if figure.kind == "histogram":
                self._measured[figure.name] = {} if figure.by else {"": Histogram()}
            else:
                self._counts[figure.name] = {} if figure.by else {"": 0}

    def add(self, name: str, count: int = 1, label: str = "") -> None:
        """A counter grows."""
        values = self._counts[name]
        values[label] = values.get(label, 0) + count

    def set(self, name: str, value: int, label: str = "") -> None:
        """A gauge stands at this now."""
        self._counts[name][label] = value

    def forget(self, name: str, label: str) -> None:
        """A gauge's label is no more."""
        self._counts[name].pop(label, None)

    def measure(self, name: str, duration_ns: int, label: str = "") -> None:
        """It took so long this time."""
        values = self._measured[name]
        measured = values.get(label)
        if measured is None:
            measured = values[label] = Histogram()
        measured.add(duration_ns)

    def report(self) -> Reported:
        """A copy for the gate."""
        reported: Reported = {name: dict(values) for name, values in self._counts.items()}
        for name, measured in self._measured.items():
            reported[name] = {label: distribution(one) for label, one in measured.items()}
        return reported
