"""What a policy lets happen that another does not: who gains and who loses what, and every setting that changed.

Both are compared as they are compiled, so that groups, folders of files, order and spelling do not show: two policies
without a difference have the same effect.

Not here: what a gate does about it (gate.crew.plan), how it is told (cli.diff).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from cofferdam.model import Asset
from cofferdam.policy.rows import Conduit, Piece, Proxy, Rule, Table
from cofferdam.protocols.dialects import DIALECTS

NOTHING = "nothing"
"""Stands for a setting on the side that does not have it."""
_WAYS = ("reads", "writes", "calls", "watches", "streams")
_VERBS = dict(zip(_WAYS, ("read", "write", "call", "watch", "open"), strict=True))
_BY_RULE = frozenset({"number", "who"})
"""Fields of a broker's rule that are not what it grants."""


class Grant(msgspec.Struct, frozen=True, order=True):
    """Somebody may do something by a conduit. `what` is in words: "write pump-1: speed"."""

    conduit: str
    who: str
    what: str


class Setting(msgspec.Struct, frozen=True, order=True):
    """Something that stands otherwise. `path`: where, from the section on. `old` and `new` in words, or NOTHING."""

    path: tuple[str, ...]
    old: str
    new: str


class Difference(msgspec.Struct, frozen=True):
    """From one policy to another. Sorted; all empty where both are the same."""

    gained: tuple[Grant, ...] = ()
    lost: tuple[Grant, ...] = ()
    changed: tuple[Setting, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gained or self.lost or self.changed)


def difference(old: Table, new: Table) -> Difference:
    """From `old` to `new`."""
    before, after = frozenset(grants(old)), frozenset(grants(new))
    changed = _changed((), _settings(old), _settings(new))
    return Difference(tuple(sorted(after - before)), tuple(sorted(before - after)), tuple(sorted(changed)))


def grants(table: Table) -> Iterator[Grant]:
    """All that anybody may, each thing once or more."""
    for conduit in table.conduits.values():
        if isinstance(conduit.terms, Proxy):
            yield from _of_proxy(conduit, table.assets)
            continue
        for line in (line for lines in _lines(msgspec.to_builtins(conduit.terms)).values() for line in lines):
            for what in _of_line(line):
                for who in line["who"] or ("whoever comes",):
                    yield Grant(conduit.name, who, what)


def grants_on(table: Table, asset: str) -> Iterator[Grant]:
    """What anybody may do with one asset by the rules of proxies, and by lines that name it."""
    for conduit in table.conduits.values():
        if isinstance(conduit.terms, Proxy):
            mine = tuple(rule for rule in conduit.rules if rule.asset == asset)
            yield from _of_proxy(msgspec.structs.replace(conduit, terms=Proxy(mine)), table.assets)
            continue
        for lines in _lines(msgspec.to_builtins(conduit.terms)).values():
            for line in (line for line in lines if asset in (line.get("asset"), *line.get("assets", ()))):
                for who in line["who"] or ("whoever comes",):
                    yield from (Grant(conduit.name, who, what) for what in _of_line(line))


def _lines(terms: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], ...]]:
    """The fields of a broker's row that say who may do something, whatever they are called."""
    return {
        name: tuple(value)
        for name, value in terms.items()
        if isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) and "who" in one for one in value)
    }


def _of_line(line: Mapping[str, Any]) -> Iterator[str]:
    """What it says, a thing at a time: "pull counts (via http)"."""
    said = {name: value for name, value in line.items() if name not in _BY_RULE and value not in _EMPTY}
    lists = {name: value for name, value in said.items() if isinstance(value, (list, tuple))}
    rest = ", ".join(f"{name} {_in_words(said[name])}" for name in sorted(said.keys() - lists.keys()))
    for name, values in lists.items():
        for value in values:
            yield f"{name} {_in_words(value)}{f' ({rest})' if rest else ''}"
    if not lists:
        yield rest


def _of_proxy(conduit: Conduit, assets: Mapping[str, Asset]) -> Iterator[Grant]:
    for rule in conduit.rules:
        for what in _of_rule(rule, assets[rule.asset]):
            for who in rule.who:
                yield Grant(conduit.name, who, what)


def _of_rule(rule: Rule, asset: Asset) -> Iterator[str]:
    for way in _WAYS:
        pieces: tuple[Piece, ...] = getattr(rule, way)
        for piece in pieces:
            place = piece.point or DIALECTS[asset.protocol].notation.show(piece.at)
            yield f"{_VERBS[way]} {asset.name}: {place}{'…' if piece.prefix else ''}"
    for way, codes in (("ask", rule.functions), ("change by", rule.write_functions)):
        for code, sub in codes:
            yield f"{way} {asset.name}: function {code}{'' if sub < 0 else f'/{sub}'}"


_EMPTY: Final[tuple[Any, ...]] = ("", (), [], {}, None, False)


def _settings(table: Table) -> dict[str, Any]:
    """Every setting by its place. Rules are not among them (they are grants), nor what a year's clocks say."""
    said: dict[str, Any] = msgspec.to_builtins(table)
    for name in ("clocks", "format", "slice_of"):
        del said[name]
    for conduit in said["conduits"].values():
        terms = conduit["terms"]
        for name in ["rules", *_lines(terms)]:
            terms.pop(name, None)
    return said


def _changed(path: tuple[str, ...], old: Any, new: Any) -> Iterator[Setting]:
    """What came or went as a whole stands as one setting."""
    if isinstance(before := _by_name(old), dict) and isinstance(after := _by_name(new), dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _changed((*path, name), before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif old != new:
        yield Setting(path, *(NOTHING if one is _ABSENT else _in_words(one) for one in (old, new)))


_ABSENT: Final = object()


def _by_name(value: Any) -> Any:
    """A list of entries with names as a map of them."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return {str(one["name"]): {key: inner for key, inner in one.items() if key != "name"} for one in value}
    return value


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        return " and ".join(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
