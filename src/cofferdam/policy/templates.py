"""Assets said once for many units, and names in rules that stand for several assets.

`units: 1-20` in an asset (or `unit: 1-20`) makes one asset of each: NAME-1 to NAME-20, alike but for the unit. In a
rule, the asset NAME stands for all of them then; `NAME-*` for all assets whose names begin so; `all` for all: of those
that speak the conduit's protocol in its zone. It is done to the text's tree, so that everything after it knows plain
assets alone, and messages point to where the engineer wrote. Not here: what a policy may say (schema).
"""

from __future__ import annotations

import re

from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import Node, quote

MOST_UNITS = 256
_UNITS = re.compile(r"(\d{1,3})(?:\s*-\s*(\d{1,3}))?\Z")

Map = dict[str, tuple[Node, Node]]


def expand(root: Node, problems: list[Problem]) -> None:
    """Spells out templates and names that stand for several. `root`: the merged tree, which is changed."""
    section = _map(_get(root, "assets"))
    if section is None:
        return
    made: dict[str, list[str]] = {}
    assets: Map = {}
    for name, (key, node) in section.items():
        fields = _map(node)
        if fields is not None and "units" not in fields and _is_range(fields.get("unit")):
            fields = {field if field != "unit" else "units": pair for field, pair in fields.items()}
        if fields is None or "units" not in fields:
            assets[name] = (key, node)
            continue
        units = _numbers(fields["units"][1], problems)
        if "unit" in fields:
            place = fields["unit"][0]
            problems.append(
                Problem(place.file, place.line, place.column, "unit and units", "one of them", check="units")
            )
        made[name] = []
        for number in units:
            one = f"{name}-{number}"
            if one in section or one in assets:
                found = f"{quote(one)} twice: the one of unit {number}, and another"
                problems.append(Problem(key.file, key.line, key.column, found, "another name", check="units"))
                continue
            copy = Node(node.file, node.line, node.column, {})
            copy.data = {field: pair for field, pair in fields.items() if field not in ("units", "unit")}
            where = fields["units"]
            copy.data["unit"] = (where[0], Node(where[1].file, where[1].line, where[1].column, str(number)))
            assets[one] = (key, copy)
            made[name].append(one)
    there = _get(root, "assets")
    if made and there is not None:
        there.data = assets
    for conduit in (_map(_get(root, "conduits")) or {}).values():
        fields = _map(conduit[1])
        if fields is not None:
            _rules(fields, assets, made, problems)


def _rules(conduit: Map, assets: Map, made: dict[str, list[str]], problems: list[Problem]) -> None:
    allow = conduit["allow"][1] if "allow" in conduit else None
    rules = allow.data if allow is not None and isinstance(allow.data, list) else [allow]
    for rule in rules:
        fields = _map(rule)
        if fields is None or "asset" not in fields:
            continue
        key, node = fields["asset"]
        entries = node.data if isinstance(node.data, list) else [node]
        if not any(isinstance(entry.data, str) and _stands(entry.data, assets, made) for entry in entries):
            continue
        found: list[Node] = []
        for entry in entries:
            names = _meant(entry, conduit, assets, made)
            if names is None:
                found.append(entry)
            elif not names:
                expected = "a name with which some asset of the zone and protocol begins"
                problems.append(
                    Problem(entry.file, entry.line, entry.column, quote(entry.data), expected, check="unknown")
                )
                found.append(entry)
            else:
                found += [Node(entry.file, entry.line, entry.column, name) for name in names]
        fields["asset"] = (key, Node(node.file, node.line, node.column, found))


def _stands(text: str, assets: Map, made: dict[str, list[str]]) -> bool:
    return text in made or text.endswith("*") or (text == "all" and text not in assets)


def _meant(entry: Node, conduit: Map, assets: Map, made: dict[str, list[str]]) -> list[str] | None:
    """The assets that a name stands for; None: it is one name."""
    text = entry.data
    if not isinstance(text, str) or not _stands(text, assets, made):
        return None
    if text in made:
        return made[text]
    prefix = "" if text == "all" else text[:-1]
    wanted = {"zone": _word(conduit, "to"), "protocol": _word(conduit, "broker")}
    return [
        name
        for name, (_, node) in assets.items()
        if name.startswith(prefix) and all(_word(_map(node) or {}, field) == word for field, word in wanted.items())
    ]


def _numbers(node: Node, problems: list[Problem]) -> list[int]:
    """The units of "1-20" or [1, 2, 8-12]."""
    numbers: dict[int, None] = {}
    for entry in node.data if isinstance(node.data, list) else [node]:
        found = _UNITS.match(entry.data) if isinstance(entry.data, str) else None
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last > MOST_UNITS - 1:
            expected = "unit numbers from 0 to 255, such as 1-20 or [1, 2, 8-12]"
            said = quote(entry.data) if isinstance(entry.data, str) else entry.describe()
            problems.append(Problem(entry.file, entry.line, entry.column, said, expected, check="units"))
            continue
        numbers.update(dict.fromkeys(range(first, last + 1)))
    return list(numbers)


def _is_range(unit: tuple[Node, Node] | None) -> bool:
    """Whether `unit` says several units, as `units` does."""
    text = None if unit is None else unit[1].data
    return isinstance(text, list) or (isinstance(text, str) and "-" in text[1:] and _UNITS.match(text) is not None)


def _get(node: Node, name: str) -> Node | None:
    found = node.data.get(name) if isinstance(node.data, dict) else None
    return None if found is None else found[1]


def _map(node: Node | None) -> Map | None:
    return node.data if node is not None and isinstance(node.data, dict) else None


def _word(fields: Map, name: str) -> str:
    found = fields.get(name)
    return found[1].data if found is not None and isinstance(found[1].data, str) else ""
