"""From the figures of single runs to medians, ratios to HAProxy, goals, and the table that people read. Pure.

Not here: measuring (run.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Load:
    """One kind of load: so many clients, each with `depth` requests under way; paced if `rate` is not 0."""

    clients: int
    rate: float = 0.0

    @property
    def title(self) -> str:
        clients = f"{self.clients} client{'s' if self.clients > 1 else ''}"
        return f"{clients}, {self.rate:g} requests/s in all" if self.rate else f"{clients}, as fast as it goes"

    @property
    def key(self) -> str:
        return f"{self.clients}@{self.rate:g}" if self.rate else str(self.clients)


@dataclass(frozen=True)
class Run:
    """What one run of the load generator found. Times in microseconds; CPU per transaction, of the middle alone."""

    path: str
    place: str
    load: Load
    round: int
    median: float
    p90: float
    p99: float
    p99_9: float
    maximum: float
    per_second: float
    errors: int
    cpu: float
    cpu_user_share: float
    cpu_by_process: dict[str, float]
    generator_busy: float
    device_busy: float
    raw: dict[str, Any]


FIGURES: dict[str, Callable[[Run], float]] = {
    "median": lambda run: run.median,
    "p90": lambda run: run.p90,
    "p99": lambda run: run.p99,
    "p99_9": lambda run: run.p99_9,
    "max": lambda run: run.maximum,
    "per_second": lambda run: run.per_second,
    "cpu": lambda run: run.cpu,
    "generator_busy": lambda run: run.generator_busy,
    "device_busy": lambda run: run.device_busy,
}


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, and the lowest and highest of them."""

    middle: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        return Spread(median(values), min(values), max(values)) if values else None


class Results:
    """All runs; answers by path, place and load."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(runs)

    def of(self, path: str, place: str, load: Load) -> list[Run]:
        return [run for run in self.runs if (run.path, run.place, run.load) == (path, place, load)]

    def figure(self, path: str, place: str, load: Load, figure: str) -> Spread | None:
        return Spread.of([FIGURES[figure](run) for run in self.of(path, place, load)])

    def against(
        self,
        path: str,
        other: str,
        place: str,
        load: Load,
        figure: str,
        combine: Callable[[float, float], float] = lambda a, b: a / b if b else 0.0,
    ) -> Spread | None:
        """Compares within each round, since both then met the same machine, and takes the median of that."""
        theirs = {run.round: FIGURES[figure](run) for run in self.of(other, place, load)}
        ours = [(run.round, FIGURES[figure](run)) for run in self.of(path, place, load)]
        return Spread.of([combine(value, theirs[number]) for number, value in ours if number in theirs])


@dataclass(frozen=True)
class Goal:
    """A promise about one figure. `difference` compares by subtraction (in µs), otherwise by division."""

    sentence: str
    path: str
    other: str
    load: Load
    figure: str
    limit: float
    at_least: bool = False
    difference: bool = False

    def judge(self, results: Results, place: str) -> dict[str, Any]:
        combine: Callable[[float, float], float] = (
            (lambda a, b: a - b) if self.difference else (lambda a, b: a / b if b else 0.0)
        )
        found = results.against(self.path, self.other, place, self.load, self.figure, combine)
        if found is None:
            return {"goal": self.sentence, "result": "not measured"}
        met = found.middle >= self.limit if self.at_least else found.middle <= self.limit
        return {
            "goal": self.sentence,
            "result": "met" if met else "not met",
            "found": round(found.middle, 3),
            "low": round(found.low, 3),
            "high": round(found.high, 3),
            "limit": self.limit,
            "unit": "us" if self.difference else "ratio",
        }


GOALS = (
    Goal("split: median with 1 client at most 1.25 x HAProxy's", "cofferdam-split", "haproxy", Load(1), "median", 1.25),
    Goal(
        "split: throughput with 32 clients at least 0.75 x HAProxy's",
        *("cofferdam-split", "haproxy", Load(32), "per_second", 0.75, True),
    ),
    Goal("one process: median with 1 client at most HAProxy's", "cofferdam-one", "haproxy", Load(1), "median", 1.0),
    Goal(
        "split: p99.9 with 32 clients at most 1 ms above direct, audit on",
        *("cofferdam-split", "direct", Load(32), "p99_9", 1000.0, False, True),
    ),
)


STEPS = (
    ("network namespaces and firewall", "cofferdam-bare", "cofferdam-split"),
    ("sandbox of the halves", "cofferdam-sealed", "cofferdam-bare"),
    ("overlay address", "cofferdam-overlay", "cofferdam-sealed"),
)
"""What is added from one path to the next: its name, the path that has it, and the one without."""


def steps(results: Results, place: str, loads: Sequence[Load]) -> list[str]:
    """Lines for the terminal: what each step costs, as ratios within the same round."""
    lines = []
    for name, path, without in STEPS:
        for load in loads:
            wanted = ("median", "p99", "p99_9", "per_second", "cpu")
            found = {figure: results.against(path, without, place, load, figure) for figure in wanted}
            if all(found.values()):
                words = ("median", "p99", "p99.9", "rate", "CPU")
                said = [f"{word} {_narrow(ratio)}" for word, ratio in zip(words, found.values(), strict=True) if ratio]
                lines.append(f"  {name + ', ' + load.key:38}{'  '.join(said)}")
    return (
        ["", f"what each step costs ({place}), against the path without it in the same round", *lines] if lines else []
    )


def table(results: Results, paths: Sequence[tuple[str, str]], place: str, loads: Sequence[Load]) -> list[str]:
    """Lines for the terminal; `paths` are (name, label)."""
    lines = []
    for load in loads:
        lines += [
            "",
            f"{load.title} ({place})",
            f"{'':24}{'median µs':>26}{'p99 µs':>10}{'p99.9 µs':>10}{'per second':>28}{'CPU µs':>8}"
            f"   against HAProxy: {'median':>12}{'p99':>7}{'p99.9':>7}{'rate':>7}{'CPU':>7}",
        ]
        for name, label in paths:
            figures = {f: results.figure(name, place, load, f) for f in FIGURES}
            middle, rate, cpu = figures["median"], figures["per_second"], figures["cpu"]
            p99, p99_9 = figures["p99"], figures["p99_9"]
            if not (middle and rate and cpu and p99 and p99_9):
                continue
            line = (
                f"  {label:22}{_wide(middle, 1):>26}{p99.middle:>10.0f}{p99_9.middle:>10.0f}{_wide(rate, 0):>28}"
                f"{(f'{cpu.middle:.1f}' if cpu.middle else '-'):>8}"
            )
            ratios = [
                results.against(name, "haproxy", place, load, f) for f in ("median", "p99", "p99_9", "per_second")
            ]
            if all(ratios) and name != "haproxy":
                line += f"   {'':17}" + "".join(
                    f"{ratio.middle:>{width}.2f}" for ratio, width in zip(ratios, (12, 7, 7, 7), strict=True) if ratio
                )
                used = results.against(name, "haproxy", place, load, "cpu")
                line += f"{used.middle:>7.2f}" if used and cpu.middle else f"{'-':>7}"
            lines.append(line)
            errors = sum(run.errors for run in results.of(name, place, load))
            if errors:
                lines.append(f"  {'':22}  {errors} ERRORS in these runs: the figures of this line do not count")
    return lines


def _narrow(value: Spread) -> str:
    return f"{value.middle:.2f} ({value.low:.2f}-{value.high:.2f})"


def _wide(value: Spread, digits: int) -> str:
    return f"{value.middle:,.{digits}f} ({value.low:,.{digits}f}-{value.high:,.{digits}f})"


def remarks(results: Results, place: str, loads: Sequence[Load], machine: dict[str, Any]) -> list[str]:
    """What a reader has to know before believing the table."""
    said = []
    same, across = machine.get("wake", {}).get("same_core_us"), machine.get("wake", {}).get("across_cores_us")
    if same and across and across > 4 * same:
        said.append(
            f"Waking a process costs {same:.0f} µs on one core and {across:.0f} µs across two on this machine. With "
            "few clients the figures say more about where the kernel put the processes than about what they did: "
            "see the spread."
        )
    if machine["load_before"] > 0.3:
        said.append(
            f"The machine was busy with other things (load {machine['load_before']:.2f}) before the benchmark began."
        )
    for load in loads:
        direct = results.figure("direct", place, load, "per_second")
        if not direct or load.rate or load.clients < 8:
            continue
        for path in sorted({run.path for run in results.runs} - {"direct"}):
            ours = results.figure(path, place, load, "per_second")
            if ours and ours.middle > 0.6 * direct.middle:
                said.append(
                    f"{path} with {load.clients} clients reaches {ours.middle / direct.middle:.0%} of direct: "
                    "generator and device are part of the limit there."
                )
    return said
