"""What is wrong with a policy: each error with its exact place, what was found and expected, and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.load import load, loads
from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import MAX_DEPTH
from tests.policy.plant import BASE, conduit

GOOD = BASE + conduit("{who: erp, asset: plc, read: [flow, level]}", "{who: ops, asset: plc, write: speed}")


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        loads(text)
    found = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
    assert len(found) == len(caught.value.problems)
    return found


def changed(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


# What is replaced, with what; the part of the line at which the finding must point; what it says.
TABLE = [
    # names that must exist, with the nearest valid one
    ("asset: plc, write: speed", "asset: plc, write: sped", "sped", 'found the point "sped"', "did you mean speed"),
    ("who: erp, asset", "who: epr, asset", "epr", 'found the principal "epr", expected a principal of', "mean erp"),
    ("asset: plc, read", "asset: plcs, read", "plcs", 'found the asset "plcs", expected an asset of', "mean plc"),
    ("    from: office", "    from: offices", "offices", 'found the zone "offices"', "did you mean office"),
    ("    zone: plant", "    zone: plan", "plan", 'found the zone "plan"', "did you mean plant"),
    ("    from: office", "    priority: realtime\n    from: office", "realtime",
     "found realtime with the broker modbus, expected that only for protocols with streams", ""),
    ("broker: modbus", "broker: mudbus", "mudbus",
     'found the broker "mudbus", expected one of modbus', "did you mean modbus"),
    ("protocol: modbus", "protocol: mod-bus", "mod-bus", "found the protocol", "did you mean modbus"),
    ("protocol: modbus", "protocol: EtherNetIP", "EtherNetIP", "found the protocol", "did you mean enip"),
    ("read: [flow, level]", "read: [flow, levl]", "levl", 'found the point "levl"', "did you mean level"),
    # fields
    ("    owner: someone", "    ovner: someone", "ovner", 'found the field "ovner"', "did you mean owner"),
    ("site: works", "sitee: works", "sitee", 'found the field "sitee"', "did you mean site"),
    ("max: 1500,", "maximum: 1500,", "maximum", 'found the field "maximum"', "did you mean max"),
    ("side: it", "side: IT", "IT", 'found "IT", expected one of it, ot', "did you mean it"),
    ("type: uint32", "type: uint23", "uint23", "expected one of bool", "did you mean uint32"),
    ("unit: 1\n", "unit: 256\n", "256", 'found "256", expected a whole number from 0 to 255, or any', ""),
    ("unit: 1\n", "unit: on\n", "on", 'found "on", expected a whole number', ""),
    ("address: 10.20.0.17", "address: 10.20.0.177.1", "10.20.0.177.1", "expected an IP address", ""),
    ("10.1.5.0/24", "10.1.5.9/24", "10.1.5.9/24", "expected a network without host bits", "did you mean 10.1.5.0/24"),
    ("listen: 127.0.0.1:1502", "listen: 127.0.0.1", "127.0.0.1", "expected an address and a port", ""),
    ("site: works", "limits: {client_idle_seconds: 1e308}\nsite: works", "1e308", "seconds above 0 and at most", ""),
    ("site: works", "limits: {audit_wait_seconds: 0}\nsite: works", "0}", "seconds above 0 and at most", ""),
    ("site: works", "limits: {record_bytes: 1048575}\nsite: works", "1048575", "whole number from 1048576 to", ""),
    ("site: works", "gate: {leak_probe: 9 s}\nsite: works", "9 s", "whole seconds from 10 s to 1 d, or off", ""),
    ("site: works", "gate: {leak_probe: 2 d}\nsite: works", "2 d", "whole seconds from 10 s to 1 d, or off", ""),
    ("site: works", "gate: {leak_probe: 10500 ms}\nsite: works", "10500 ms", "expected an interval of whole", ""),
    ("site: works", "gate: {leak_probe: 60}\nsite: works", "60", "expected an interval with its unit", 'mean "60 s"'),
    ("site: works", "gate: {leak_probe: none}\nsite: works", "none", "such as \"5 min\", or off", "did you mean off"),
    ("site: works", "gate: {leak_probe: []}\nsite: works", "[]", "expected an interval with its unit", ""),
    ("at: holding 100", "at: 40101", "40101", "counted from 0", 'did you mean "holding 100"'),
    ("at: holding 100", "at: register 100", "register 100", 'found the space "register"', ""),
    ("at: holding 100", "at: holdin 100", "holdin 100", 'found the space "holdin"', "did you mean holding"),
    ("at: holding 100", "at: holding 100-102", "holding 100-102", "found 3 cells for uint32", '"holding 100-101"'),
    ("at: holding 100", "at: holding 65535", "holding 65535", "found uint32 that ends after cell 65535", ""),
    ("at: holding 100", "at: holding 65536", "holding 65536", "expected cells from 0 to 65535", ""),
    ("at: coil 0", "at: coil 0, type: uint16", "uint16", "found uint16 in coil, expected bool", ""),
    ("at: holding 100, type: uint32", "at: holding 100", "flow", "found point flow without type, expected type:", ""),
    # values
    ("min: 0,", "min: 2000,", "2000", "found min 2000 above max 1500, expected min at most max", ""),
    ("max: 1500,", "max: 70000,", "70000", "expected a value that uint16 can hold (0 to 65535)", ""),
    ("min: 0,", "min: -1,", "-1", "expected a value that uint16 can hold", ""),
    ("max_step: 100", "max_step: 0", "0", "expected a number above 0", ""),
    ("max_step: 100", "max_step: fast", "fast", 'found "fast", expected a number', ""),
    ("writes_per_minute: 2", "writes_per_minute: 0", "0", "expected a whole number from 1 to 6000", ""),
    # what fits together
    ("    to: plant", "    to: office", "office", "found office, where it comes from, expected another zone", ""),
    ("erp: {zone: office", "erp: {zone: plant", None,
     "found erp of zone plant, expected a principal of office", ""),
    ("write: speed", "write: level", "level", "found level, which is input, expected a point that can be written", ""),
    ("write: speed", "write: alarm", "alarm", "found alarm, which is discrete", ""),
    ("write: speed", "write_registers: input 0-9", "input 0-9", "found cells of input, expected cells that can be", ""),
    ("write: speed", "functions: 3", "3", "found function 3, which carries cells", ""),
    ("write: speed", 'functions: "8/1"', '"8/1"', "found function 8/1, which may change the device", ""),
    ("write: speed", "functions: 128", "128", "expected a function code from 1 to 127", ""),
    ("write: speed", "registers: holding 9-0", "holding 9-0",
     "expected the first cell before the last", '"holding 0-9"'),
    ("write: speed", "read: []", "[]", "found a list of 0 entries, expected at least one entry", ""),
    (", write: speed", "", "{who: ops", "found a rule that allows nothing", ""),
    ("who: ops, ", "", "{asset: plc, write", "found a rule without who, expected who: The principal", ""),
    ("    reason: a test\n", "", "c:", "found conduit c without reason, expected reason: Why it exists", ""),
    ("erp: {zone: office, addresses: 10.1.0.20}", "erp:", "erp:", "found nothing, expected a map with zone", ""),
    ("erp: {zone: office, addresses: 10.1.0.20}", "erp: 10.1.0.20", "10.1.0.20",
     'found "10.1.0.20", expected a map with zone: The zone', ""),
    ("    unit: 1\n", "    unit: any\n", "any", "found any, and limits of speed", ""),
    ("  erp: {", '  "e p": {', '"e p"', 'found "e p", expected a name of letters', ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "message", "near"), TABLE, ids=[f"{row[1]!r:.40}" for row in TABLE])
def test_an_error_points_at_its_place(old: str, new: str, at: str | None, message: str, near: str) -> None:
    text = changed(old, new)
    found = problems(text)
    matching = [p for p in found if message in str(p)]
    assert matching, "\n".join(map(str, found))
    problem = matching[0]
    assert near in str(problem)
    if at is not None:
        # The place is where the wrong word stands, on the line that was changed.
        before = text[: text.index(new)] if new else text[: text.index(at)]
        line = text.splitlines()[problem.line - 1]
        assert line[problem.column - 1 :].startswith(at), f"{problem}\nline {problem.line}: {line}"
        assert abs(problem.line - (before.count("\n") + 1)) <= (0 if at in new else 40)
    assert str(problem).startswith(f"policy.yaml:{problem.line}:{problem.column}: found ")


def test_the_good_policy_loads() -> None:
    assert set(loads(GOOD).policy.assets) == {"plc"}


def test_all_errors_come_in_one_go_in_file_order() -> None:
    text = changed("side: it", "side: lt")
    text = changed("type: uint32", "type: uint23", text)
    text = changed("read: [flow, level]", "read: [flow, levl]", text)
    text = changed("write: speed", "wrte: speed", text)
    text = changed("    reason: a test\n", "    reason: a test\n    expires: tomorrow\n", text)
    found = problems(text)
    assert [(p.line, p.found) for p in found] == [
        (3, '"lt"'),
        (13, '"uint23"'),
        (31, '"tomorrow"'),
        (33, 'the point "levl"'),
        (34, 'the field "wrte"'),
    ]


def test_an_entry_that_is_wrong_is_not_called_unknown() -> None:
    found = problems(changed("unit: 1\n", "unit: 999\n"))
    assert [p.check for p in found] == ["value"]


def test_a_rule_after_a_wrong_one_keeps_its_place() -> None:
    rules = ["{who: erp, asset: plc, raed: flow}", "{who: ops, asset: plc, read: nothing_like_it}"]
    found = problems(BASE + conduit(*rules))
    assert [(p.line, p.column, p.found) for p in found] == [
        (32, 32, 'the field "raed"'),
        (33, 38, 'the point "nothing_like_it"'),
    ]


YAML_ERRORS = [
    ("site: a\nsite: b\n", 2, 1, '"site" again', "line 1"),
    ("site: a\nzones: {x: {side: it}, x: {side: ot}}\n", 2, 24, '"x" again', "line 2"),
    ("site: [\n", 1, 7, "[ that nothing closes", "] at the end"),
    ("a: [b, {c: [d]}, {\n# }\n", 1, 18, "{ that nothing closes", "} at the end"),
    ("site: [a\n", 1, 7, "[ that nothing closes", "a comma between entries, and ] at the end"),
    ("site: a\n\tzones: 1\n", 2, 1, "a tab before a word", "spaces"),
    ("site: !!python/object:os.system a\n", 1, 7, "the tag", "no tags"),
    ("site: *nowhere\n", 1, 7, "*nowhere", "an anchor that stands complete"),
    ("site: &a [*a]\n", 1, 11, "*a", "an anchor that stands complete"),
    ("site: a\n---\nsite: b\n", 2, 1, "a second document", "one document"),
    ("- a\n", 1, 1, "a list of 1 entry", "a map"),
    ("", 1, 1, "nothing", "a policy"),
    ("# only a comment\n", 1, 1, "nothing", "a policy"),
    ("[a, b]: c\n", 1, 1, "a list of 2 entries as a key", "a name"),
    ("site: a\x00b\n", 1, 8, "not allowed", "YAML text"),
    ("a: " + "[" * 100_000, 1, 3 + MAX_DEPTH, f"more than {MAX_DEPTH} levels", "fewer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "found", "expected"), YAML_ERRORS, ids=[r[0][:30] for r in YAML_ERRORS]
)
def test_yaml_errors(text: str, line: int, column: int, found: str, expected: str) -> None:
    first = next(p for p in problems(text) if p.check == "yaml")
    assert (first.line, first.column) == (line, column), first
    assert found in first.found
    assert expected in first.expected


def test_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases counted each time" in problems("\n".join(lines))[0].found


def test_anchors_and_merge_keys_work() -> None:
    text = changed("erp: {zone: office,", "erp: &p {zone: office,")
    text = changed("  ops: {zone: office, ", "  ops: {<<: *p, ", text)
    assert loads(text).policy.principals["ops"].addresses == ("10.1.5.0/24", "fd00::/64")
    assert loads(text).policy.principals["ops"].zone == "office"


def test_yaml_1_1_has_no_traps() -> None:
    """Hours are not numbers in base 60, on and off are names, dates stay text, octal is no trap."""
    text = changed("  erp: {", "  on: {")
    text = changed("who: erp", "who: on", text)
    extra = "    expires: 2027-06-30\n    window: {days: mon-fri, from: 06:00, to: 18:30, zone: UTC}\n"
    text = changed("    reason: a test\n", "    reason: no\n" + extra, text)
    loaded = loads(text).policy.conduits["c"]
    assert loaded.reason == "no"
    assert (loaded.window[0].start, loaded.window[0].stop) == (6 * 3600, 18 * 3600 + 1800)
    assert loaded.expires == "2027-06-30 UTC"
    assert loaded.allow[0].principals == ("on",)


WINDOW_ERRORS = [
    ("{days: mo-fr, from: 06:00, to: 18:00, zone: UTC}", "mo-fr", "expected days such as"),
    ("{from: 6, to: 18:00, zone: UTC}", "6", 'did you mean "06:00"'),
    ("{from: 06:00, to: 24:30, zone: UTC}", "24:30", "expected an hour of the day"),
    ("{from: 06:00, to: 06:00, zone: UTC}", "06:00, zone", "found a window without length"),
    ("{from: 06:00, to: 18:00, zone: Europe/Pari}", "Europe/Pari", "did you mean Europe/Paris"),
    ("{from: 06:00, to: 18:00}", "window", "found a window without zone"),
    ("[{from: 06:00, to: 18:00, zone: UTC}, {from: 06:00, to: 18:00, zone: Mars}]", "Mars", "found the time zone"),
]


@pytest.mark.parametrize(("window", "at", "message"), WINDOW_ERRORS)
def test_window_errors(window: str, at: str, message: str) -> None:
    text = BASE + conduit("{who: erp, asset: plc, read: all}", extra=f"window: {window}")
    problem = next(p for p in problems(text) if message in str(p))
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith(at), problem


@pytest.mark.parametrize(
    ("listen", "unit", "wrong"),
    [
        ("127.0.0.1:1502", "1", True), ("127.0.0.1:1502", "any", True), ("127.0.0.1:1502", "2", False),
        ("127.0.0.1:1503", "1", False), ("0.0.0.0:1502", "2", True), ("127.0.0.2:1502", "1", False),
        ('"[::]:1502"', "2", True), ('"[::1]:1502"', "1", False),
    ],
)  # fmt: skip
def test_listeners_may_not_collide(listen: str, unit: str, wrong: bool) -> None:
    other = f"  plc2: {{zone: plant, address: 10.20.0.18, protocol: modbus, unit: {unit}, listen: {listen}}}\n"
    text = changed("principals:\n", other + "principals:\n")
    if wrong:
        problem = problems(text)[0]
        assert problem.check == "listen"
        assert "which plc has" in problem.found
    else:
        loads(text)


DEVICES = [
    ("10.20.0.17", "1", True),
    ("10.20.0.17", "any", True),
    ("::ffff:10.20.0.17", "1", True),
    ("10.20.0.17, port: 502", "1", True),
    ("10.20.0.17", "2", True),
    ("10.20.0.17, port: 503", "1", False),
    ("10.20.0.18", "1", False),
]


RAW = "      - {who: ops, asset: again, write_registers: holding 200}\n"


@pytest.mark.parametrize(("address", "unit", "wrong"), DEVICES)
def test_a_second_name_of_a_device_is_no_way_around_its_limits(address: str, unit: str, wrong: bool) -> None:
    host, comma, port = address.partition(",")
    second = f'  again: {{zone: plant, address: "{host}"{comma}{port}, protocol: modbus, unit: {unit}, '
    second += "listen: 127.0.0.1:1503}\n"
    text = changed("principals:\n", second + "principals:\n")
    loads(text)  # a name that nothing may be written by does no harm
    if not wrong:
        loads(text + RAW)
        return
    [problem] = problems(text + RAW)
    assert problem.check == "device"
    assert problem.found.startswith("the device of plc (unit 1) again")


def test_the_third_asset_of_a_device_is_seen_as_well() -> None:
    more = "".join(
        f"  {name}: {{zone: plant, address: 10.20.0.19, protocol: modbus, unit: {unit}, listen: 127.0.0.1:{port}"
        f"{points}}}\n"
        for name, unit, port, points in (
            ("one", 2, 1502, ""),
            ("two", 3, 1503, ", points: {p: {at: coil 0, max: 0}}"),
            ("again", 2, 1504, ""),
        )
    )
    [problem] = problems(changed("principals:\n", more + "principals:\n") + RAW)
    assert problem.found.startswith("the device of two (unit 3) again")


def test_a_folder_merges_and_names_both_places_of_a_name(tmp_path: Path) -> None:
    head, _, tail = GOOD.partition("principals:\n")
    (tmp_path / "10-plant.yaml").write_text(head)
    (tmp_path / "20-people.yml").write_text("principals:\n" + tail)
    (tmp_path / "notes.txt").write_text("not a policy")
    (tmp_path / "30-more.yaml").write_text("principals: {guard: {zone: office, addresses: 10.9.9.9}}\n")
    loaded = load(tmp_path)
    assert set(loaded.policy.principals) == {"erp", "ops", "guard"}
    (tmp_path / "40-twice.yaml").write_text("site: other\nprincipals:\n  erp: {zone: office, addresses: 10.9.9.8}\n")
    with pytest.raises(PolicyError) as caught:
        load(tmp_path)
    assert [str(p) for p in caught.value.problems] == [
        f'{tmp_path}/40-twice.yaml:1:1: found "site" again, '
        f"expected each name once (it stands in {tmp_path}/10-plant.yaml:1 already)",
        f'{tmp_path}/40-twice.yaml:3:3: found "erp" again, '
        f"expected each name once (it stands in {tmp_path}/20-people.yml:2 already)",
    ]


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(PolicyError, match=r"holds no \*.yaml file"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"site: a\nzones: b\xe9\n")
    with pytest.raises(PolicyError) as caught:
        load(tmp_path / "latin.yaml")
    assert "latin.yaml:2:9: found the byte 0xe9, expected text in UTF-8" in str(caught.value.problems[0])


def test_quirks_are_known_and_fit_the_asset() -> None:
    [found] = problems(changed("protocol: modbus", "protocol: modbus\n    quirks: [any_unti]"))
    assert (found.check, found.near) == ("quirks", "any_unit")
    [found] = problems(
        changed("protocol: modbus", "protocol: modbus\n    quirks: zero_transaction_id\n    outstanding: 4")
    )
    assert found.check == "quirks"
    assert found.found.startswith("4 with the quirk zero_transaction_id")
    assert found.expected == "1"


NOTIFIERS = [
    ("at: 'nsu=u;s=A', fields: [a//b]", "a browse path, such as Severity"),
    ("at: 'nsu=u;s=A', fields: all", "each field by its name"),
    ("at: 'nsu=u;s=A [0-3]'", "one object that events come from"),
    ("at: 'nsu=u;s=A -> nsu=u;s=B'", "one object that events come from"),
    ("at: 'ns=2;s=A'", "the server may number its namespaces anew"),
    ("fields: [Severity]", "at"),
    (
        "at: 'nsu=u;s=A', fields: [Severity, 'lin:Batch']",
        "a short name of the asset's namespaces (line), or nsu=URI;Batch",
    ),
]
"""What stands of a notifier, and what is expected."""
FORMS = [
    ("type: DateTime, min: 5", "5 for a DateTime, expected a time such as 2027-06-30T12:00:00Z"),
    ("type: DateTime, min: 2027-13-01", "a number"),
    ("type: DateTime, min: 2027-06-30, max: '2027-06-30T01:00:00+02:00'", "above max 2027-06-29T23:00:00Z"),
    ("type: DateTime, max_length: 5", "max_length of a DateTime"),
    ("type: DateTime, max_step: 5", "max_step of a DateTime"),
    ("type: Double, max: 2027-06-30", "a time for a float64"),
    ("type: StatusCode, max_step: 5", "max_step of a StatusCode"),
    ("type: Guid, min: 5", "min of a text"),
    ("type: Double, dimensions: [3]", "2 to 10 dimensions"),
    ("type: Double, dimensions: [1, 1]", "2 to 65536 elements"),
    ("type: Double, dimensions: [300, 300]", "2 to 65536 elements"),
    ("type: Double, dimensions: [2, 2], elements: 4", "neither elements, nor a range"),
    ("type: Double, dimensions: [2, 2], max_step: 4", "max_step of an array"),
    ("type: Datetime", "did you mean DateTime"),
]
"""What stands of a point of a type that values have at the device alone, and what is expected."""


@pytest.mark.parametrize(("words", "expected"), FORMS)
def test_limits_of_a_type_of_the_devices_alone(words: str, expected: str) -> None:
    text = WITH_NOTIFIER.replace("notifiers: {", "points: {").replace("events: NAME", "read: all")
    with pytest.raises(PolicyError) as error:
        loads(text.replace("AT", f"at: 'nsu=u;s=A', {words}"))
    said = [one for one in error.value.problems if isinstance(one, Problem) and expected in str(one)]
    assert said and said[0].line == 5, "\n".join(map(str, error.value.problems))


SUBTREES = [
    ("at: 'nsu=u;s=A', depth: 21", "from 1 to 20"),
    ("at: 'nsu=u;s=A', nodes: 2001", "from 1 to 2000"),
    ("at: i=85", "an object of the asset's own"),
    ("at: 'nsu=u;s=A [0-3]'", "one object, below which all may be seen"),
    ("at: 'nsu=u;s=A -> nsu=u;s=B'", "one object, below which all may be seen"),
    ("at: 'nsu=u;s=A'}, again: {at: 'nsu=u;s=A'", "one subtree for it"),
    ("depth: 3", "at"),
]
"""What stands of a subtree, and what is expected."""


@pytest.mark.parametrize(("words", "expected"), NOTIFIERS + SUBTREES)
def test_a_notifier_or_subtree_that_is_none_is_told_where_it_stands(words: str, expected: str) -> None:
    text = WITH_NOTIFIER if (words, expected) in NOTIFIERS else WITH_SUBTREE
    with pytest.raises(PolicyError) as error:
        loads(text.replace("AT", words))
    said = [one for one in error.value.problems if isinstance(one, Problem) and expected in str(one)]
    assert said and said[0].line == 5, "\n".join(map(str, error.value.problems))


WITH_NOTIFIER = """site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  line: {zone: plant, address: 10.20.0.18, protocol: opcua, listen: "127.0.0.1:4840", notifiers: {
    alarms: {AT}}, namespaces: {line: "urn:l;1"}}
principals: {erp: {zone: office, addresses: 10.1.0.20}}
conduits:
  a: {from: office, to: plant, broker: opcua, owner: o, reason: r, allow: [{who: erp, asset: line, events: NAME}]}
"""
WITH_SUBTREE = WITH_NOTIFIER.replace("notifiers: {", "browse: {").replace("events: NAME", "browse: NAME")


@pytest.mark.parametrize(
    ("text", "misspelt", "without"),
    [(WITH_NOTIFIER, "alarm", "modbus has no events"), (WITH_SUBTREE, "alarm", "modbus has no tree of nodes")],
)
def test_a_notifier_or_subtree_that_is_not_there_and_of_a_protocol_without(
    text: str, misspelt: str, without: str
) -> None:
    good = text.replace("AT", "at: 'nsu=u;s=A'")
    for name in ("alarms", "all", "[alarms]"):
        loads(good.replace("NAME", name))
    for wrong, expected in (
        (good.replace("NAME", misspelt), "did you mean alarms"),
        (good.replace("opcua, listen", "modbus, listen").replace("'nsu=u;s=A'", "holding 1"), without),
    ):
        with pytest.raises(PolicyError) as error:
            loads(wrong)
        assert expected in "\n".join(map(str, error.value.problems))


@pytest.mark.parametrize(
    ("fields", "words", "expected"),
    [
        ("[default, ConditionId]", "events: alarms, acknowledge: alarms", ""),
        ("[EventId, ConditionId]", "events: all, acknowledge: all", ""),
        ("[default, ConditionId]", "events: alarms, acknowledge: alarm", "did you mean alarms"),
        ("[default, ConditionId]", "read: all, acknowledge: alarms", "events: [alarms] as well"),
        ("[default]", "events: alarms, acknowledge: alarms", "has no ConditionId in its fields"),
        ("[Severity]", "events: alarms, acknowledge: all", "has no EventId or ConditionId in its fields"),
    ],
)
def test_what_is_acknowledged_has_events_that_name_it(fields: str, words: str, expected: str) -> None:
    text = WITH_NOTIFIER.replace("AT", f"at: 'nsu=u;s=A', fields: {fields}").replace("events: NAME", words)
    if not expected:
        loads(text)
        return
    with pytest.raises(PolicyError) as error:
        loads(text)
    said = [one for one in error.value.problems if isinstance(one, Problem) and expected in str(one)]
    assert said and said[0].line == 8, "\n".join(map(str, error.value.problems))


WRONG_WORDS = [
    ("modbus", "{who: erp, asset: plc, call: [reset]}", "a method, and the asset plc has none"),
    ("modbus", "{who: erp, push: orders}", "a word of relay"),
    ("opcua", "{who: erp, asset: line, functions: [3]}", "opcua has no functions by number"),
    ("opcua", "{who: erp, asset: plc, read: all}", "an asset that speaks opcua"),
    ("diode", "{who: erp, read: all}", "what passes stands under `carries`"),
    ("jump", "{who: erp, asset: station, as: root, do: [shell]}", "{group: vendor-x}"),
]
"""A rule of one broker with what is another's, and the way out that is named."""


@pytest.mark.parametrize(("broker", "rule", "way"), WRONG_WORDS)
def test_a_word_of_another_broker_is_found_where_it_stands(broker: str, rule: str, way: str) -> None:
    text = f"""site: works
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
assets:
  plc: {{zone: plant, address: 10.20.0.17, protocol: modbus, listen: "127.0.0.1:1502"}}
  line: {{zone: plant, address: 10.20.0.18, protocol: opcua, listen: "127.0.0.1:4840"}}
  station: {{zone: plant, address: 10.20.0.30, protocol: ssh}}
principals: {{erp: {{zone: office, addresses: 10.1.0.20}}}}
conduits:
  a:
    from: office
    to: plant
    broker: {broker}
    owner: o
    reason: r
    allow:
      - {rule}
"""
    with pytest.raises(PolicyError) as error:
        loads(text)
    said = [problem for problem in error.value.problems if isinstance(problem, Problem) and way in str(problem)]
    assert said and said[0].line == 16 and said[0].column > 9, "\n".join(map(str, error.value.problems))
