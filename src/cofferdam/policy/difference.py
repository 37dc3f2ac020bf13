"""What a policy lets happen that another does not: who gains and who loses what, and every setting that changed.

Both are compared as they are compiled, so that groups, folders of files, order and spelling do not show: two policies
without a difference have the same effect.

Not here: what a gate does about it (gate.crew.plan), how it is told (cli.diff).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from cofferdam.model import Asset, Item, Span
from cofferdam.policy.rows import Conduit, Piece, Proxy, Rule, Table
from cofferdam.protocols.dialects import DIALECTS

NOTHING = "nothing"
"""Stands for a setting on the side that does not have it."""
_WAYS = ("reads", "writes", "calls", "watches", "streams")
_VERBS = dict(zip(_WAYS, ("read", "write", "call", "watch", "open"), strict=True))
_BY_RULE = frozenset({"number", "who"})
"""Fields of a broker's rule that are not what it grants."""


_MAY: Final = {"assets": "reach", "do": "", "commands": "run", "paths": "have files at", "opaque": "run, unjudged,"}
"""What somebody may, where the field is called by what it is of."""


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
    changed = _changed(old, new)
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
            yield f"{_MAY.get(name, name)} {_in_words(value)}{f' ({rest})' if rest else ''}".lstrip()
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


def _settings(table: Table, *, brief: bool = False) -> dict[str, Any]:
    """Every setting by its place. Rules are not among them (they are grants), nor what a year's clocks say. `brief`:
    without those that stand as they do where nobody says anything."""
    said: dict[str, Any] = _told(table, "", brief)
    for name in ("clocks", "format", "slice_of"):
        said.pop(name, None)
    for name, conduit in said.get("conduits", {}).items():
        terms = conduit["terms"]
        for rules in ["rules", *_lines(terms)]:
            terms.pop(rules, None)
        if brief and not terms:
            del conduit["terms"]
        row = table.conduits[name]
        conduit.pop("expires_text", None)
        if row.expires_text or not brief:
            conduit["expires"] = row.expires_text or "never"
    return said


def _told(value: Any, protocol: str, brief: bool) -> Any:
    """A compiled row as maps and lists of plain values, with places as the asset's protocol writes them."""
    if isinstance(value, Span | Item) and protocol:
        return DIALECTS[protocol].notation.show(value)
    if isinstance(value, msgspec.Struct):
        protocol = value.protocol if isinstance(value, Asset) else protocol
        fields = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(value))
        return {field.name: _told(inner, protocol, brief) for field, inner in fields
                if not (brief and inner == _default(field))}  # fmt: skip
    if isinstance(value, Mapping):
        return {str(name): _told(inner, protocol, brief) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(inner, protocol, brief) for inner in value]
    return msgspec.to_builtins(value)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _changed(old: Table, new: Table) -> Iterator[Setting]:
    """What came or went as a whole stands as one setting, in brief."""
    tables = {"old": old, "new": new}
    brief: dict[str, Any] = {}

    def whole(which: str, path: tuple[str, ...]) -> str:
        if which not in brief:
            brief[which] = _settings(tables[which], brief=True)
        found = brief[which]
        for name in path:
            found = _by_name(found).get(name, {})
        return _in_words({key: inner for key, inner in found.items() if key != "name"})

    def walk(path: tuple[str, ...], before: Any, after: Any) -> Iterator[Setting]:
        if isinstance(one := _by_name(before), dict) and isinstance(other := _by_name(after), dict):
            for name in sorted(one.keys() | other.keys()):
                yield from walk((*path, name), one.get(name, _ABSENT), other.get(name, _ABSENT))
        elif before is _ABSENT:
            yield Setting(path, NOTHING, whole("new", path) if isinstance(after, dict) else _in_words(after))
        elif after is _ABSENT:
            yield Setting(path, whole("old", path) if isinstance(before, dict) else _in_words(before), NOTHING)
        elif before != after:
            yield Setting(path, _in_words(before), _in_words(after))

    return walk((), _settings(old), _settings(new))


_ABSENT: Final = object()


def _by_name(value: Any) -> Any:
    """A list of entries with names as a map of them."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return {str(one["name"]): {key: inner for key, inner in one.items() if key != "name"} for one in value}
    return value


def _in_words(value: Any, *, within: bool = False) -> str:
    """As a policy would say it: `address: 10.20.0.17, unit: 1`."""
    value = _by_name(value)
    if isinstance(value, dict):
        said = ", ".join(f"{name}: {_in_words(inner, within=True)}" for name, inner in value.items())
        return f"{{{said}}}" if within or not said else said
    if isinstance(value, (list, tuple)):
        if value and not within and all(isinstance(one, str) for one in value):
            return " and ".join(value)
        return f"[{', '.join(_in_words(one, within=True) for one in value)}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return {None: "none", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
