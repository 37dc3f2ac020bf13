"""What is legal in a conduit of a proxy but unwise, or without effect."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Iterator

from cofferdam.model import Argument, Point
from cofferdam.policy import rows
from cofferdam.policy.findings import Linting
from cofferdam.policy.points import typed, values
from cofferdam.policy.terms.proxy_model import ProxyRule


def _useless_rules(run: Linting) -> None:
    """A rule all of which other rules of its conduit allow, for the same principals and assets."""
    for name, conduit in run.compiled.conduits.items():
        grouped: dict[tuple[str, str], list[rows.Rule]] = {}
        for rule in conduit.rules:
            for who in rule.who:
                grouped.setdefault((who, rule.asset), []).append(rule)
        useless: dict[int, set[int]] = {}
        needed: set[int] = set()
        for together in grouped.values():
            # Wide rules first, so that a narrow one is found within them; each is held against those kept so far.
            kept = _Kept()
            for rule in sorted(together, key=lambda r: (-_size(r), r.number)):
                by = kept.allow(rule)
                if by:
                    useless.setdefault(rule.number, set()).update(by)
                else:
                    needed.add(rule.number)
                    kept.add(rule)
        for number in sorted(useless.keys() - needed):
            by_text = ", ".join(f"{name}/{other}" for other in sorted(useless[number]))
            run.value(
                ("conduits", name, "allow", number), "useless-rule",
                f"rule {name}/{number}, all of which {by_text} allows", "one rule for one permission",
            )  # fmt: skip


def _size(rule: rows.Rule) -> int:
    codes = sum(2 if sub < 0 else 1 for _, sub in (*rule.functions, *rule.write_functions))
    return codes + sum(piece.at.count for _, pieces in _by_access(rule) for piece in pieces)


def _by_access(rule: rows.Rule) -> tuple[tuple[str, tuple[rows.Piece, ...]], ...]:
    return (
        ("read", rule.reads), ("write", rule.writes), ("call", rule.calls), ("subscribe", rule.watches),
        ("stream", rule.streams),
    )  # fmt: skip


class _Kept:
    """Cells and codes of rules, kept as disjoint pieces that each remember a rule."""

    def __init__(self) -> None:
        self.starts: dict[tuple[str, str], list[int]] = {}
        self.stops: dict[tuple[str, str], list[tuple[int, int]]] = {}  # (stop, rule) beside starts
        self.codes: dict[tuple[str, int, int], int] = {}

    @staticmethod
    def _pieces(rule: rows.Rule) -> Iterator[tuple[tuple[str, str], int, int]]:
        for kind, pieces in _by_access(rule):
            for piece in pieces:
                part = "*" if piece.prefix else f" {piece.mask:#x}" if piece.mask else ""
                yield (kind, piece.at.space + part), piece.at.start, piece.at.stop

    @staticmethod
    def _codes(rule: rows.Rule) -> Iterator[tuple[str, int, int]]:
        for kind, codes in (("read", rule.functions), ("write", rule.write_functions)):
            for code, sub in codes:
                yield kind, code, sub

    def allow(self, rule: rows.Rule) -> set[int]:
        """The rules that allow all of `rule`; none where something is missing."""
        by: set[int] = set()
        for place, start, stop in self._pieces(rule):
            gaps = self._gaps(place, start, stop, by)
            if gaps:
                return set()
        for kind, code, sub in self._codes(rule):
            owner = self.codes.get((kind, code, -1), self.codes.get((kind, code, sub)))
            if owner is None:
                return set()
            by.add(owner)
        return by

    def add(self, rule: rows.Rule) -> None:
        for place, start, stop in self._pieces(rule):
            starts, stops = self.starts.setdefault(place, []), self.stops.setdefault(place, [])
            for low, high in self._gaps(place, start, stop, set()):
                index = bisect_right(starts, low)
                starts.insert(index, low)
                stops.insert(index, (high, rule.number))
        for code in self._codes(rule):
            self.codes.setdefault(code, rule.number)

    def _gaps(self, place: tuple[str, str], start: int, stop: int, by: set[int]) -> list[tuple[int, int]]:
        """The parts of a range that are not kept; the rules that keep the others go to `by`."""
        starts, stops = self.starts.get(place, []), self.stops.get(place, [])
        gaps: list[tuple[int, int]] = []
        index = bisect_right(starts, start) - 1
        if index < 0 or stops[index][0] <= start:
            index += 1
        while start < stop:
            if index == len(starts) or starts[index] >= stop:
                gaps.append((start, stop))
                break
            if starts[index] > start:
                gaps.append((start, starts[index]))
            by.add(stops[index][1])
            start = stops[index][0]
            index += 1
        return gaps


def _unreachable_assets(run: Linting) -> None:
    """An asset that a rule names, but at which no broker answers."""
    named = {rule.asset for conduit in run.compiled.conduits.values() for rule in conduit.rules}
    for name in run.policy.assets:
        if name in named and not run.compiled.assets[name].places:
            run.key(
                ("assets", name), "no-listener", f"asset {name}, which rules name, without overlay or listen",
                "an address where a broker answers for it",
            )  # fmt: skip


def _blanket_writes(run: Linting) -> None:
    """More than 16 raw cells that may be written, where points would bring limits."""
    for name, conduit in run.policy.conduits.items():
        for number, rule in enumerate(conduit.allow):
            for index, piece in enumerate(rule.write_registers if isinstance(rule, ProxyRule) else ()):
                if piece is not None and (piece.at.count > 16 or piece.prefix):
                    what = "all items of a name" if piece.prefix else f"{piece.at.count} raw cells"
                    run.value(
                        ("conduits", name, "allow", number, "write_registers", index), "wide-write",
                        f"{what} that may be written", "points, whose values are checked",
                    )  # fmt: skip


def _unlimited_writes(run: Linting) -> None:
    """A number that may be written, or passed to a method, without min and max, or a text without max_length."""
    written: set[tuple[str, str]] = set()
    for conduit in run.compiled.conduits.values():
        for rule in conduit.rules:
            written |= {(rule.asset, piece.point) for piece in (*rule.writes, *rule.calls) if piece.point}
    for asset in run.compiled.assets.values():
        for point in asset.points:
            if (asset.name, point.name) in written and _unlimited(point):
                missing, expected = _missing(point)
                run.key(
                    ("assets", asset.name, "points", point.name), "no-range",
                    f"point {point.name}, which may be written, without {missing}", expected,
                )  # fmt: skip
        for method in asset.methods:
            for index, argument in enumerate(method.arguments):
                if (asset.name, method.name) in written and _unlimited(argument):
                    missing, expected = _missing(argument)
                    run.key(
                        ("assets", asset.name, "methods", method.name, "arguments", index), "no-range",
                        f"argument {argument.name} of {method.name}, which may be called, without {missing}", expected,
                    )  # fmt: skip


def _jumps_in_steps(run: Linting) -> None:
    """A point that may be written in steps, as many of them as anybody likes: together they are a jump."""
    for asset, point in _written(run):
        if point.max_step is not None and point.max_rate is None and point.writes_per_minute is None:
            step = values.measure(point, point.max_step, True)
            run.key(
                ("assets", asset, "points", point.name), "no-ramp",
                f"point {point.name}, which may be written in steps of {step} as fast as anybody can",
                f'how fast it may move (`max_rate: "{step}/min"`), or writes_per_minute',
            )  # fmt: skip


def _written(run: Linting) -> Iterator[tuple[str, Point]]:
    """The points that a rule names as something to write, by asset."""
    named = {
        (rule.asset, piece.point)
        for conduit in run.compiled.conduits.values() for rule in conduit.rules for piece in rule.writes if piece.point
    }  # fmt: skip
    for asset in run.compiled.assets.values():
        for point in asset.points:
            if (asset.name, point.name) in named:
                yield asset.name, point


def _alarming(run: Linting) -> None:
    """A function that a rule allows, and that stops, starts, resets or reprograms the device."""
    for name, conduit in run.policy.conduits.items():
        dialect = run.dialects.get(conduit.broker)
        for number, rule in enumerate(conduit.allow):
            codes = rule.write_functions if isinstance(rule, ProxyRule) and dialect is not None else ()
            for index, (code, sub) in enumerate(codes):
                if dialect is not None and code in dialect.alarming:
                    which = f"{code}/{sub}" if sub >= 0 else str(code)
                    run.value(
                        ("conduits", name, "allow", number, "write_functions", index), "alarming",
                        f"function {which} ({dialect.codes[code]}), which stops, starts or reprograms the device",
                        "no way to that from the office",
                    )  # fmt: skip
                elif dialect is not None and code in dialect.vendors:
                    run.value(
                        ("conduits", name, "allow", number, "write_functions", index), "alarming",
                        f"function {code} ({dialect.vendors[code]}), of which nothing is checked",
                        "no way to that from the office, or by the jump server",
                    )  # fmt: skip


def _unlimited(said: Point | Argument) -> bool:
    if said.type in typed.SIZED:
        return said.max_length is None
    return said.type in typed.NUMBERS and not values.has_range(said)


def _missing(said: Point | Argument) -> tuple[str, str]:
    if said.type in typed.SIZED:
        return "max_length", "the longest that the device can bear"
    return "min and max", "the range that the process can bear"


def _unsecured(run: Linting) -> None:
    """An asset that clients, or the broker itself, speak with in the clear, beyond this machine."""
    for name, asset in run.compiled.assets.items():
        security = asset.security
        if security is None:
            continue
        at = ("assets", name, "security")
        if "none" in security.clients and not all(_is_here(address) for address, _ in asset.places):
            run.value(
                (*at, "clients"), "unsecured", f"clients of {name} without security",
                "signed and encrypted channels: whoever is on the way reads, changes and writes in their names",
            )  # fmt: skip
        if security.asset == "none" and not _is_here(asset.address):
            run.value(
                (*at, "asset"), "unsecured", f"{name} asked without security",
                "a signed and encrypted channel, if its server has any: nothing shows that it is that server",
            )  # fmt: skip


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine's own alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


CHECKS: dict[str, Callable[[Linting], None]] = {
    "useless rules": _useless_rules,
    "unreachable assets": _unreachable_assets,
    "wide raw writes": _blanket_writes,
    "writes without a range": _unlimited_writes,
    "steps without a ramp": _jumps_in_steps,
    "alarming functions": _alarming,
    "channels without security": _unsecured,
}
"""Every check, by what it looks for; the docstrings are the documentation."""
