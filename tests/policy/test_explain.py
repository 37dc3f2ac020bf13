"""Explanations, operations as people write them, and the verbs that print them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from cofferdam.cli.main import main
from cofferdam.errors import CofferdamError
from cofferdam.model import Change, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Explanation, Question
from cofferdam.policy.load import loads
from cofferdam.policy.points.asking import operation, show
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.proxy import explain_operation
from cofferdam.protocols.modbus.dialect import MODBUS
from tests.policy.plant import BASE, NOW, conduit, flow, policy, read, write

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "riverside-water.yaml"
TWO = policy(
    conduit("{who: ops, asset: plc, read: all}", name="watch")
    + conduit("{who: ops, asset: plc, write: speed}", name="set", extra="expires: 2026-12-31")
)
PLC = TWO.assets["plc"]


def explain(policy: CompiledPolicy, source: str, asset: str, op: Operation, wall_ns: int) -> Explanation:
    return explain_operation(policy, Question(source, {}, wall_ns), asset, op)


@pytest.mark.parametrize(
    ("text", "expected", "words"),
    [
        ("read flow", Operation(3, -1, 1, False, (Span("holding", 100, 2),)), "read holding 100-101 (flow)"),
        ("read level", Operation(4, -1, 1, False, (Span("input", 12, 2),)), "read input 12-13 (level)"),
        ("read coil 0 8", Operation(1, -1, 1, False, (Span("coil", 0, 8),)), "read coil 0-7 (run)"),
        ("read discrete 9", Operation(2, -1, 1, False, (Span("discrete", 9, 1),)), "read discrete 9"),
        ("read file:4 0x10 2", Operation(20, -1, 1, False, (Span("file:4", 16, 2),)), "read file:4 16-17"),
        ("write speed 1400", Operation(6, -1, 1, True, (), (Change("holding", 200, 1, (1400,)),)),
         "write holding 200 (speed = 1400 rpm)"),
        ("write ramp -5", Operation(16, -1, 1, True, (), (Change("holding", 204, 2, (0xFFFF, 0xFFFB)),)),
         "write holding 204-205 (ramp = -5)"),
        ("write torque 0.5", Operation(16, -1, 1, True, (), (Change("holding", 202, 2, (0, 0x3F00)),)),
         "write holding 202-203 (torque = 0.5)"),
        ("write run true", Operation(5, -1, 1, True, (), (Change("coil", 0, 1, (1,)),)), "write coil 0 (run = 1)"),
        ("write holding 200 1 2", Operation(16, -1, 1, True, (), (Change("holding", 200, 2, (1, 2)),)),
         "write holding 200-201 (speed = 1 rpm)"),
        ("function 43/14", Operation(43, 14, 1, False), "function 43/14"),
        ("function 8/1", Operation(8, 1, 1, True), "write-function 8/1"),
        ("write-function 8", Operation(8, -1, 1, True), "write-function 8"),
    ],
)  # fmt: skip
def test_operations_in_words(text: str, expected: Operation, words: str) -> None:
    assert operation(text, PLC, MODBUS) == expected
    assert show(expected, PLC) == words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it starts with nothing"), ("raed flow", "did you mean read"),
        ("read", "read takes other words behind it"),
        ("read flw", "did you mean flow"), ("read holding", "needs a first cell"),
        ("read holding x", "x is not a whole"),
        ("read holding 65535 2", "not within 0 to 65535"), ("read holding 0 0", "not within"),
        ("read flow 2", "2 is too much"),
        ("write speed", "write takes other words behind it"), ("write speed 70000", "outside uint16"),
        ("write speed 1.5", "not a whole number"),
        ("write level 1", "cannot be written"), ("write speed fast", "fast is not a number"),
        ("write speed 1 2", "2 is too much"),
        ("write coil 1 2", "2 is not from 0 to 1"), ("write holding 65535 1 2", "ends after cell 65535"),
        ("write holding 5 ", "a value is missing"), ("function x", "no function code"),
        ("function 3", "carries cells"), ("function 200", "no function code"), ("write torque nan nan", "too much"),
        ("write torque 1e300", "outside float32"), ("function 8/²", "no function code"),
    ],
)  # fmt: skip
def test_what_is_not_understood(text: str, why: str) -> None:
    with pytest.raises(CofferdamError) as caught:
        operation(text, PLC, MODBUS)
    assert why in str(caught.value)
    assert "read SPACE FIRST [COUNT]" in caught.value.hint


def test_the_explanation_is_the_decision() -> None:
    ops = [read("holding", start, count) for start in range(98, 104) for count in (1, 2)]
    ops += [write("holding", 200, 1400), write("holding", 200, 1600), write("holding", 202, 0)]
    for op in ops:
        verdict = flow(TWO).decide(op, NOW)
        found = explain(TWO, "10.1.5.9", "plc", op, NOW)
        assert (found.conduit, found.rule) == (verdict.conduit, verdict.rule)
        assert found.detail == getattr(verdict, "detail", "")
        assert [c.conduit for c in found.considered] == ["set", "watch"]
        assert found.allowed == any(c.allowed for c in found.considered)


def test_sentences() -> None:
    found = explain(TWO, "10.1.5.9", "plc", write("holding", 200, 1600), NOW)
    assert found.sentence == (
        "refused: the nearest rule is set/0, and the value fails: speed = 1600 rpm is asked; 0 to 1500 rpm is allowed"
    )
    assert found.answer == "a refusal in the protocol's own words"
    assert explain(TWO, "10.9.9.9", "plc", write("holding", 200, 1400), NOW).answer.startswith("nothing: a firewall")
    found = explain(TWO, "10.1.5.9", "plc", write("holding", 200, 1400), NOW)
    assert found.sentence == (
        "allowed by set/0: 10.1.5.9 (ops) may write holding 200 (speed = 1400 rpm) on plc until 2027-01-01 00:00:00 UTC"
    )
    assert found.conditions == (
        "speed may change by at most 100 rpm from its present value",
        "speed may be written at most 2 times a minute",
    )
    ramped = BASE.replace("max_step: 100, writes_per_minute: 2", "max_rate: 30 rpm/s") + conduit(
        "{who: ops, asset: plc, write: speed}"
    )
    found = explain(compile_policy(loads(ramped), now_ns=NOW), "10.1.5.9", "plc", write("holding", 200, 1400), NOW)
    assert found.conditions == ("speed may move by at most 30 rpm a second, from whatever it was within that time",)
    assert explain(TWO, "10.9.9.9", "plc", read("coil", 0), NOW).fault == "principal"
    assert explain(TWO, "10.1.0.20", "plc", read("coil", 0), NOW).fault == "principal"
    assert explain(TWO, "10.1.5.9", "none", read("coil", 0), NOW).fault == "asset"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out = capsys.readouterr()
    return code, out.out, out.err


def explaining(op: str, at: str = "2026-11-23T09:00", source: str = "10.1.5.9", asset: str = "plc-7") -> list[str]:
    return ["explain", str(EXAMPLE), "--from", source, "--asset", asset, "--operation", op, "--at", at]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (explaining("write pump_speed 1400"), 0, "allowed by pump-setpoint/0"),
        (
            explaining("write pump_speed 1400", at="2026-11-22T09:00"),
            1,
            "the window fails: Sun 2026-11-22 10:00 Europe/Paris",
        ),
        (explaining("write pump_speed 1400", at="2026-11-23T19:00+01:00"), 1, "the window fails: Mon 2026-11-23 19:00"),
        (explaining("write pump_speed 1400", at="2027-07-01T09:00"), 1, "the expiry fails"),
        (explaining("write valve_open 5"), 1, "the address fails: write holding 201 is asked"),
        (explaining("read pump_speed", source="10.1.0.20"), 1, "the address fails"),
        (explaining("read pump_speed", source="192.0.2.1"), 1, "no rule comes near: the principal fails"),
        (explaining("read pump_speed", source="192.0.2"), 2, "'192.0.2' is not an IP address"),
        (explaining("read pump_speed", asset="plc-8"), 2, "did you mean plc-7?"),
        (explaining("read pump_speed", at="noon"), 2, "'noon' is not a time"),
        (explaining("read pump_speed", at="9999-12-31"), 2, "'9999-12-31' is too far away"),
        (explaining("read pump_speed", at="0001-01-01"), 2, "a year from 1971 to 2200"),
        (explaining("read the pump"), 2, "forms of an operation:"),
    ],
)
def test_verb_explain(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, words: str) -> None:
    result, out, err = run(capsys, *argv)
    assert result == code
    assert words in (err if code == 2 else out)
    if code != 2:
        result, out, _ = run(capsys, *argv, "--json")
        assert result == code
        assert json.loads(out)["allowed"] == (code == 0)
        assert words in json.loads(out)["sentence"]


def test_who_is_named_has_shown_what_the_policy_asks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    principals = "principals:\n  anna: {zone: office, addresses: 10.1.5.9, user: anna}\n"
    conduit = "{from: office, to: plant, broker: opcua, owner: o, reason: r, allow: [%s]}"
    path.write_text(
        "site: works\nzones: {office: {side: it}, plant: {side: ot}}\n"
        "assets: {line: {zone: plant, address: 10.20.0.9, protocol: opcua, listen: '127.0.0.1:4840', points: "
        "{speed: {at: 'nsu=urn:works;s=Speed', type: Double, max: 10}}}}\n" + principals +
        "conduits: {c: " + conduit % "{who: anna, asset: line, read: all, write: speed}" + "}\n"
    )  # fmt: skip
    for who, code, words in (("--who=anna", 0, "allowed by c/0"), ("--from=10.1.5.9", 1, "shown what anna has to")):
        argv = ["explain", str(path), who, "--asset", "line", "--operation", "write speed 9"]
        found, out, err = run(capsys, *argv)
        assert (found, words in out) == (code, True), out + err


def _judged(
    capsys: pytest.CaptureFixture[str], path: Path, asset: str, rules: str, cases: Iterable[tuple[str, str, str]]
) -> str:
    """Asks as these principals, of a policy with such an asset and such rules; what is said of a misspelt name."""
    path.write_text(
        "site: works\nzones: {office: {side: it}, plant: {side: ot}}\n"
        f"assets: {{line: {{zone: plant, address: 10.20.0.9, protocol: opcua, listen: '127.0.0.1:4840', {asset}}}}}\n"
        "principals: {scada: {zone: office, addresses: 10.1.0.20}, board: {zone: office, addresses: 10.1.0.21}}\n"
        f"conduits: {{c: {{from: office, to: plant, broker: opcua, owner: o, reason: r, allow: [{rules}]}}}}\n"
    )
    for who, asked, words in cases:
        argv = ["explain", str(path), f"--who={who}", "--asset", "line", "--operation", asked]
        code, out, err = run(capsys, *argv)
        if not words:
            assert code == 2
            return err
        assert (code, words in out) == (1 if "is asked" in words else 0, True), (asked, out, err)
    return ""


def test_events_are_explained_field_by_field(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asset = (
        "notifiers: {alarms: {at: 'nsu=urn:works;s=Line', fields: [default, ActiveState/Id]}, "
        "brief: {at: 'nsu=urn:works;s=Line', fields: [Message, 'works:Shift', 'works:Shift/works:No']}}, "
        "namespaces: {works: http://w/s}"
    )
    rules = "{who: scada, asset: line, events: all}, {who: board, asset: line, events: brief}"
    cases = (
        ("scada", "events alarms", "allowed by c/0"), ("scada", "events alarms Severity", "allowed by c/0"),
        ("scada", "events alarms Comment", "read event nsu=urn:works;s=Line -> Comment is asked"),
        ("board", "events brief", "allowed by c/1"), ("board", "events alarms Severity", "-> Severity is asked"),
        ("board", "events alarms Message", "allowed by c/1"), ("board", "events brief works:Shift", "allowed by c/1"),
        ("board", "events brief nsu=http://w/s;Shift", "allowed by c/1"),
        ("board", "events brief A/works:Shift", "read event nsu=urn:works;s=Line -> A/nsu=http://w/s;Shift is asked"),
        ("scada", "read works:s=Pump7", "read node nsu=http://w/s;s=Pump7 is asked"),
        ("scada", "events alarm", ""),
    )  # fmt: skip
    assert "did you mean alarms" in _judged(capsys, tmp_path / "events.yaml", asset, rules, cases)


def test_acknowledging_is_explained_by_notifier(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asset = (
        "notifiers: {alarms: {at: 'nsu=urn:works;s=Line', fields: [default, ConditionId]}, "
        "brief: {at: 'nsu=urn:works;s=Line', fields: [Message, Severity]}}"
    )
    rules = "{who: scada, asset: line, events: all, acknowledge: alarms}, {who: board, asset: line, events: alarms}"
    asked = "acknowledge alarms nsu=urn:works;s=Alarm7"
    cases = (
        ("scada", asked, "allowed by c/0"),
        ("board", asked, "call condition nsu=urn:works;s=Line -> acknowledge is asked"),
        ("scada", "acknowledge brief nsu=urn:works;s=Alarm7", ""),
    )
    assert "brief is no notifier with conditions of line (alarms)" in _judged(
        capsys, tmp_path / "told.yaml", asset, rules, cases
    )


def test_times_are_asked_and_told_as_times(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asset = (
        "points: {due: {at: 'nsu=u;s=Due', type: DateTime, min: 2027-01-01, max: '2027-12-31T23:59:59Z'}, "
        "order: {at: 'nsu=u;s=Order', type: Guid}}"
    )
    rules = "{who: scada, asset: line, write: all}"
    cases = (
        ("scada", "write due 2027-06-30T12:00:00Z", "due = 2027-06-30T12:00:00Z"),
        ("scada", "write due 2027-06-30T12:00:00+02:00", "due = 2027-06-30T10:00:00Z"),
        ("scada", "write due 2028-01-01",
         "due = 2028-01-01T00:00:00Z is asked; 2027-01-01T00:00:00Z to 2027-12-31T23:59:59Z is allowed"),
        ("scada", f"write order {'x' * 37}", "order with 37 characters is asked; at most 36 characters are allowed"),
        ("scada", "write due tomorrow", ""),
    )  # fmt: skip
    assert "tomorrow is no time, such as" in _judged(capsys, tmp_path / "times.yaml", asset, rules, cases)


def test_a_subtree_is_explained_by_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asset = "browse: {mixer: {at: 'nsu=urn:works;s=Mixer'}, press: {at: 'nsu=urn:works;s=Press'}}"
    rules = "{who: scada, asset: line, browse: all}, {who: board, asset: line, browse: press}"
    cases = (
        ("scada", "browse mixer", "browse nsu=urn:works;s=Mixer (mixer)"), ("scada", "browse press", "allowed by c/0"),
        ("board", "browse press", "allowed by c/1"), ("board", "browse mixer", "tree nsu=urn:works;s=Mixer is asked"),
        ("scada", "read nsu=urn:works;s=Mixer", "node nsu=urn:works;s=Mixer is asked"), ("scada", "browse mixr", ""),
    )  # fmt: skip
    assert "did you mean mixer" in _judged(capsys, tmp_path / "trees.yaml", asset, rules, cases)


def test_verb_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "check", str(EXAMPLE))
    assert (code, err) == (0, "")
    assert "2 zones, 1 asset, 7 points, 2 principals, 3 conduits, 4 rules" in out
    file = tmp_path / "p.yaml"
    file.write_text(BASE + conduit("{who: ops, asset: plc, write: speed}", "{who: erp, asset: plc, read: flow}"))
    code, out, err = run(capsys, "check", str(file))
    assert (code, err) == (0, "")
    assert f"{file}:25:3: warning: found conduit c, which allows writes and never expires" in out
    assert run(capsys, "check", str(file), "--strict")[0] == 1
    report = json.loads(run(capsys, "check", str(file), "--json")[1])
    assert [w["check"] for w in report["warnings"]] == ["no-expiry"]
    assert report["counts"]["rules"] == 2
    file.write_text(file.read_text().replace("write: speed", "write: sped"))
    code, out, err = run(capsys, "check", str(file))
    assert code == 2
    assert f'{file}:32:39: found the point "sped"' in err
    assert "the policy does not load: 1 error" in out
    code, out, _ = run(capsys, "check", str(file), "--json")
    assert code == 2
    assert json.loads(out)["errors"][0]["near"] == "speed"
    code, _, err = run(capsys, "check", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "cannot be read" in err


def test_a_conduit_that_needs_a_grant_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Allowed by the policy, and shut until two people open it."""
    granted = policy(conduit("{who: ops, asset: plc, read: all}", extra="grant: {most: 4 h}"))
    found = explain(granted, "10.1.5.7", "plc", operation("read flow", granted.assets["plc"], MODBUS), NOW)
    assert found.allowed and "another agrees" in found.conditions[0]
    assert main(["explain", str(EXAMPLE), "--from", "erp", "--asset", "plc-7", "--operation", "read tank_level"]) == 2
    assert "did you mean --who erp" in capsys.readouterr().err
