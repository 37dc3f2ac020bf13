"""Checks that break, and reports of proofs that are not this gate's: neither says anything, and no other is harmed."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.checkpoint import sign_note
from cofferdam.audit.events.evidence import ExportStood
from cofferdam.audit.keys import make_key
from cofferdam.errors import CofferdamError
from cofferdam.evidence import gather
from cofferdam.evidence.checks import registry
from cofferdam.evidence.checks.logs import OUT
from cofferdam.evidence.checks.registry import Made, run
from cofferdam.evidence.checks.tables import run_checks
from cofferdam.evidence.inputs import Inputs, Unknown
from cofferdam.evidence.model import Finding
from cofferdam.evidence.workbench import Bench
from cofferdam.proof.render import as_json, note_text
from cofferdam.proof.run import sign
from cofferdam.proof.statements import Report, Statement
from tests.evidence.ledger import NS, POLICY, SITE, T0, Ledger

STATEMENT = Statement("solver", "it: nothing is forwarded", "proved", "so", ("x",), T0)
GOOD = Report(SITE, "host", "0.1.0", POLICY, "namespaces", T0, T0, True, {"proved": 1}, (STATEMENT,))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(tmp_path_factory.mktemp("log"))
    made.begin()
    made.log.tick()
    yield made
    made.close()


def _edited(change: Callable[[Any], None]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return edit


def _same(text: str) -> str:
    return text


REPORTS: dict[str, tuple[dict[str, Any], Callable[[str], str], str]] = {
    "good": ({}, _same, ""),
    "another site": ({"site": "elsewhere"}, _same, "of the site elsewhere"),
    "another policy": ({"policy": "b" * 64}, _same, "another policy than the one in force"),
    "the future": ({"finished_ns": T0 + 3600 * NS}, _same, "still to come"),
    "unsigned": ({}, _edited(lambda d: d.update(note="")), "note"),
    "a word changed": ({}, _edited(lambda d: d["report"]["statements"][0].update(says="not so")), "was changed"),
    "more than was signed": ({}, _edited(lambda d: d.update(more=1)), "was changed"),
}


@pytest.mark.parametrize("case", REPORTS)
def test_a_report_that_is_not_taken(ledger: Ledger, tmp_path: Path, case: str) -> None:
    change, edit, words = REPORTS[case]
    report, path = msgspec.structs.replace(GOOD, **change), tmp_path / "report.json"
    path.write_text(edit(as_json(report, sign(report, ledger.state))))
    taken = gather.admit(path, gather.log_key(ledger.state), SITE, POLICY, T0)
    assert (words in taken.why) if words else not taken.why, taken.why
    found, missing = run_checks(Inputs(T0, proven=taken), ["proof.nothing-forwarded"])
    if words:
        assert not found and taken.why in missing[0].reason
    else:
        assert [one.outcome for one in found] == ["proved"]


def test_a_report_by_another_key_and_what_is_no_report(ledger: Ledger, tmp_path: Path) -> None:
    path, key = tmp_path / "report.json", gather.log_key(ledger.state)
    path.write_text(as_json(GOOD, sign_note(note_text(GOOD), make_key(key.name)).decode()))
    taken = gather.admit(path, key, SITE, POLICY, T0)
    assert taken.why
    assert not run_checks(Inputs(T0, proven=taken), ["proof.nothing-forwarded"])[0]
    for text in ("", "{}", "[]", "\x00", '{"report": 7, "note": "", "sha256": ""}'):
        path.write_text(text)
        with pytest.raises(CofferdamError):
            gather.admit(path, key, SITE, POLICY, T0)


def test_a_check_that_breaks_harms_no_other() -> None:
    def good(_: Inputs) -> Finding:
        return Finding("log.writable", "observed", "so")

    def broken(_: Inputs) -> Finding:
        return Finding("log.whole", "observed", str(1 // 0))

    def blind(known: Inputs) -> Finding:
        raise Unknown("root alone may see it")

    made = [Made("log.whole", (), broken), Made("leak.silent", (), blind), Made("log.writable", (), good)]
    found, missing = run(made, Inputs(T0))
    assert [(one.check, one.outcome) for one in found] == [("log.whole", "failed"), ("log.writable", "observed")]
    assert "the check itself broke: ZeroDivisionError" in found[0].says
    assert [(one.check, one.reason) for one in missing] == [("leak.silent", "root alone may see it")]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_check_that_comes_to_no_end_harms_no_other(monkeypatch: pytest.MonkeyPatch, elsewhere: bool) -> None:
    def good(_: Inputs) -> Finding:
        return Finding("log.writable", "observed", "so")

    def endless(_: Inputs) -> Finding:
        while True:
            with contextlib.suppress(Exception):  # whatever it catches
                sum(range(1000))

    before = signal.getsignal(signal.SIGVTALRM)
    monkeypatch.setattr(registry, "CHECK_SECONDS", 0.05)
    made = [Made("log.whole", (), endless), Made("log.writable", (), good)]
    if elsewhere:  # no signal is heard there: it is run as it is
        with ThreadPoolExecutor(1) as pool:
            found, _ = pool.submit(run, made[1:], Inputs(T0)).result()
        assert [one.outcome for one in found] == ["observed"]
        return
    found, missing = run(made, Inputs(T0))
    assert [(one.check, one.outcome) for one in found] == [("log.whole", "failed"), ("log.writable", "observed")]
    assert "came to no end within 0.05 s" in found[0].says and not missing
    assert signal.getsignal(signal.SIGVTALRM) is before and signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_what_there_is_nothing_of_says_what_it_lacks(tmp_path: Path) -> None:
    """In the report itself, since nobody can run a check on paper. Where nothing takes the log elsewhere, nothing is to
    be held, and what else shows the control carries it."""
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    ledger.log.publish()
    checks = Bench.read(ledger.state, None).standing().checks
    assert checks["log.exported"].says.startswith("nothing is exported: `collectors:`")
    assert checks["sever.works"].says == ("no side has been severed and restored yet; a drill is `cofferdam sever` "
                                         "and `cofferdam restore`")  # fmt: skip
    assert checks["policy.expiry"].says == ("nothing of it is on record: `sudo cofferdam evidence run policy.expiry` "
                                            "looks at it")  # fmt: skip
    assert (checks["log.fenced"].counts, checks["log.fenced"].says) == (False, "the policy uses nothing of export")
    ledger.say(ExportStood(collector="disk", next=1, working=True))
    ledger.log.publish()
    assert Bench.read(ledger.state, None).standing().checks["log.fenced"].counts
    ledger.say(ExportStood(collector="disk", next=1, working=True, detail=OUT))
    ledger.say(ExportStood(collector="witness:stick", next=1, working=True))
    ledger.log.publish()
    for bench in (Bench.read(ledger.state, None), Bench.under_checkpoint(ledger.state)):
        assert not bench.standing().checks["log.fenced"].counts  # a stick needs nobody to hold it
    found, [missing] = run_checks(Inputs(0, status={"facts": [], "alarms": []}), ["log.fenced"])
    assert not found and missing.gone
    ledger.close()
