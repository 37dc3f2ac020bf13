"""What is wrong with a policy whose protocol has names: as exact as for cells, by the protocol's own dialect."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load, loads
from cofferdam.policy.problems import Problem
from cofferdam.values import ValueType
from tests.policy.plant import BASE as MODBUS_BASE
from tests.policy.plant import conduit
from tests.protocols.toy.dialect import TOY
from tests.protocols.toy.site import BASE, TOY_KINDS, toy_conduit, toy_loaded, toy_policy

GOOD = BASE + toy_conduit()


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        loads(text, kinds=TOY_KINDS)
    return [problem for problem in caught.value.problems if isinstance(problem, Problem)]


# What is replaced, with what; the part of the line at which the finding must point; what it says; the nearest.
TABLE = [
    # the notation
    (
        "at: tag Recipe",
        "at: Recipe",
        "Recipe",
        'expected a kind and a path, such as "tag Pump.Speed"',
        "mean tag Recipe",
    ),
    ("at: tag Recipe", "at: tag 9Recipe", "tag 9Recipe", "expected a kind and a path", ""),
    ("at: tag Recipe", "at: 5", "5", "expected a kind and a path", ""),
    ("at: tag Recipe", "at: [tag]", "[tag]", "expected a kind and a path", ""),
    ("Counts[0-9]", "Counts[9-0]", '"tag Counts[9-0]"',
     "expected the first element before the last", "Counts[0-9]"),
    (
        "at: tag Recipe",
        "at: tga Recipe",
        "tga Recipe",
        'found the kind "tga", expected one of tag, method, io',
        "mean tag",
    ),
    (
        "at: tag Recipe",
        "at: method Recipe",
        "method Recipe",
        "found a method, which has no value, expected what has",
        "",
    ),
    ("at: tag Recipe", "at: holding 100", "holding 100", "expected a kind and a path", ""),
    # types
    (": tag Recipe, type: text", ": tag Recipe, type: txt", "txt",
     "expected one of flag, small, int, long, big, real, double, text", "mean text"),
    (": tag Recipe, type: text", ": tag Recipe, type: uint16", "uint16", "expected one of flag, small", ""),
    (", type: text, max_length: 8", ", max_length: 8", "recipe",
     "found point recipe without type, expected type:", ""),
    ("name: seconds, type: int", "name: seconds, tpye: int", "tpye",
     'found the field "tpye"', "did you mean type"),
    ("name: name, type: text", "name: seconds, type: text", "seconds",
     'found "seconds" again, expected a name of', ""),
    # limits
    ("max_length: 8", "min: 5", "5", "found min of a text, expected max_length, or a number", ""),
    ("type: flag, min: 1", "type: flag, max_length: 1", "1",
     "found max_length of a bool, expected a text or byte", ""),
    ("type: double", "type: double, max: 1e309", "1e309", "expected a number", ""),
    (
        "type: small, elements: 3",
        "type: small, elements: 3, min: -129",
        "-129",
        "a value that int8 can hold (-128 to 127)",
        "",
    ),
    (
        "elements: 3, max: 5",
        "elements: 3, max_step: 1",
        "1",
        "found max_step of an array, expected a single number",
        "",
    ),
    ("type: text, max_length: 8", "type: text, max_step: 1", "1",
     "found max_step of a text, expected a single", ""),
    ("type: int, min: 0, max: 99}", "type: int, elements: 4}", "4",
     "found elements of the range tag counts[0-9]", ""),
    ("type: text, max_length: 8", "type: text, word_order: little", "little", "found an order of words", ""),
    (
        "min: 0, max: 50, max_step: 10",
        "fastest: 5 ms",
        "5 ms",
        "found a limit for an I/O connection, expected what",
        "",
    ),
    ("min: 1, max: 60}", "min: 60, max: 1}", "60", "found min 60 above max 1, expected min at most max", ""),
    # what is one thing
    (
        "at: tag Recipe",
        "at: tag pump.SPEED",
        "tag pump.SPEED",
        "found tag pump.speed, which the point speed is already, expected one point",
        "",
    ),
    (
        "mix:\n        at: method Line.Mix",
        "mix:\n        at: method line.reset",
        "method line.reset",
        "found method line.reset, which is reset, expected one entry",
        "",
    ),
    (
        "  drive: {at",
        "  reset: {at",
        "reset",
        "found reset, which is one of the methods as well, expected a name of its",
        "",
    ),
    (
        "      reset: {at: method",
        "      speed: {at: method",
        "speed",
        "found speed, which is one of the points as well",
        "",
    ),
    ("at: method Line.Reset", "at: tag Line.Reset", "tag Line.Reset",
     "expected what can be called (method)", ""),
    (
        "at: method Line.Reset",
        'at: "method Line.Reset[1]"',
        '"method Line.Reset[1]"',
        "expected no range of elements",
        "",
    ),
    # a limit that belongs to no stream would hold nowhere
    ("at: io Drive.Setpoint", "at: io Drove.Setpoint", "io Drove.Setpoint",
     "expected a part of a stream of this asset (io drive)", "did you mean io drive"),
    ("drive: {at: io Drive", "drive: {at: tag Drive", "tag Drive",
     "expected what can be opened as streams (io)", ""),
    # the asset
    ("    protocol: toy\n", "    protocol: toy\n    unit: 1\n", "1", "expected no unit: toy has none", ""),
    (
        "    protocol: toy\n",
        "    protocol: toy\n    quirks: mut\n",
        "mut",
        'found the quirk "mut"',
        "did you mean mute",
    ),
    (
        "    protocol: toy\n",
        "    protocol: tyo\n",
        "tyo",
        'found the protocol "tyo", expected one of',
        "did you mean toy",
    ),
    # rules
    (
        "call: [reset, mix]",
        "call: [rset, mix]",
        "rset",
        'found the method "rset", expected a method of asset line',
        "reset",
    ),
    (
        "stream: drive",
        "stream: drove",
        "drove",
        'found the stream "drove", expected a stream of asset line (drive)',
        "drive",
    ),
    (
        "subscribe: [speed, level]",
        "subscribe: [setpoint]",
        "setpoint",
        "found setpoint, which is io, expected a point that can be subscribed to (tag)",
        "",
    ),
    (
        "write: all",
        "write: setpoint",
        "setpoint",
        "found setpoint, which is io, expected a point that can be written",
        "",
    ),
    (
        "read: all",
        "read: setpoint",
        "setpoint",
        "found setpoint, which is io, expected a point that can be read (tag)",
        "",
    ),
    ("read: all", "registers: tag *", "tag *", 'expected the beginning of tags, such as "tag Pump.*"', ""),
    ("read: all", "registers: tga Pump", "tga Pump",
     'found the kind "tga", expected one of tag, method, io', "tag"),
    ("write: all", "write_registers: io Drive", "io Drive",
     "found io drive, expected what can be written (tag)", ""),
    (
        "read: all",
        "functions: 100",
        "100",
        "expected a function code from 1 to 99, or with a sub-function, such as 7",
        "",
    ),
    ("read: all", "functions: 3", "3", "found function 3, which carries cells", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "message", "near"), TABLE, ids=[f"{row[1]!r:.40}" for row in TABLE])
def test_an_error_points_at_its_place(old: str, new: str, at: str, message: str, near: str) -> None:
    assert GOOD.count(old) == 1, f"{old!r} stands {GOOD.count(old)} times"
    text = GOOD.replace(old, new)
    found = problems(text)
    matching = [p for p in found if message in str(p)]
    assert matching, "\n".join(map(str, found))
    assert near in str(matching[0])
    line = text.splitlines()[matching[0].line - 1]
    assert line[matching[0].column - 1 :].startswith(at), f"{matching[0]}\nline: {line}"
    assert len(found) <= 2, "\n".join(map(str, found))


def test_a_rule_that_allows_nothing_names_the_verbs_of_its_protocol() -> None:
    [problem] = problems(BASE + toy_conduit("{who: mes, asset: line}"))
    assert "expected read, write, subscribe, call, stream, registers, write_registers, functions or" in str(problem)


def test_what_only_names_have_is_refused_for_cells() -> None:
    base = MODBUS_BASE.replace("      run: {at: coil 0}", "      run: {at: coil 0, fastest: 1 s, elements: 2}")
    base = base.replace("    points:\n", "    methods: {go: {at: holding 5}}\n    points:\n")
    found = problems(base + conduit("{who: ops, asset: plc, read: all, subscribe: speed, call: go}"))
    words = "\n".join(map(str, found))
    for part in ("found fastest of cells", "found elements of cells", "expected no methods: modbus has none",
                 "expected a point that can be subscribed to (none: modbus has no such)"):  # fmt: skip
        assert part in words


def test_a_policy_of_two_protocols_reads_each_by_its_own_words(tmp_path: Path) -> None:
    plc = "plc: {zone: plant, address: 10.9.9.9, protocol: modbus, unit: 7, listen: 127.0.0.1:99, points: "
    both = GOOD.replace("assets:\n", f"assets:\n  {plc}{{a: {{at: holding 100, type: uint16}}}}}}\n")
    both += conduit("{who: mes, asset: plc, read: all, registers: holding 0-9, functions: 43/14}", name="cells")
    (tmp_path / "site.yaml").write_text(both)
    assert load(tmp_path, kinds=TOY_KINDS).policy.assets["plc"].unit == 7
    swapped = both.replace("at: tag Run, type: flag", "at: holding 100, type: flag")
    swapped = swapped.replace("at: holding 100, type: uint16", "at: tag Run, type: uint16")
    words = "\n".join(map(str, problems(swapped)))
    assert "a space and cells counted from 0" in words and "a kind and a path" in words


def test_warnings_know_texts_arguments_and_prefixes() -> None:
    base = BASE.replace(", max_length: 8", "").replace(", min: 1, max: 60}", "}")
    rule = '{who: mes, asset: line, write: all, call: mix, write_registers: "tag Pump.*"}'
    found = "\n".join(map(str, lint(toy_loaded(toy_conduit(rule), base))))
    assert "point recipe, which may be written, without max_length" in found
    assert "argument seconds of mix, which may be called, without min and max" in found
    assert "all items of a name that may be written" in found


def test_useless_rules_of_items_are_found() -> None:
    rules = (
        "{who: mes, asset: line, read: [counts, speed], call: [reset, mix]}",
        "{who: mes, asset: line, call: reset}",
    )
    found = "\n".join(map(str, lint(toy_loaded(toy_conduit(*rules)))))
    assert "rule c/1, all of which c/0 allows" in found
    needed = toy_conduit("{who: mes, asset: line, read: speed}", "{who: mes, asset: line, subscribe: speed}")
    assert "useless" not in "\n".join(str(p.check) for p in lint(toy_loaded(needed)))


def test_rows_say_what_the_judge_needs_of_the_dialect() -> None:
    asset = toy_policy().assets["line"]
    assert asset.unit == -1 and asset.bits == ()
    assert asset.kinds == (("tag", "."), ("method", ""), ("io", "."))
    points = {point.name: point for point in asset.points}
    assert points["counts"].elements == 10 and points["table"].elements == 3 and points["level"].fastest_us == 100_000
    assert {point.type for point in asset.points} <= set(TOY.types.values()) <= set(ValueType)
