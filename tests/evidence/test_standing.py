"""How checks and controls stand: playbooks of what the log has against what is shown, and what must hold of any log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam import policy as policy_room
from cofferdam.audit.entry import encode_event, format_time
from cofferdam.audit.events.access import Malformed
from cofferdam.audit.events.evidence import AttestationMade, CheckDone, ExportStood
from cofferdam.audit.events.gate import GateStarted, HalfStarted, Restored, Severed
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.checks.logs import ANEW, OUT
from cofferdam.evidence.checks.policies import WIDE
from cofferdam.evidence.checks.tables import CHECKS, MINUTE, run_checks
from cofferdam.evidence.clocks import RESET, calendar, dues
from cofferdam.evidence.clocks import day as day_of
from cofferdam.evidence.history import HAPPENINGS, KEPT_BEFORE, History, read
from cofferdam.evidence.inputs import Inputs, Proven
from cofferdam.evidence.model import STATUSES, STRENGTH, Finding, weakest
from cofferdam.evidence.pack import MOST_ENTRIES
from cofferdam.evidence.standing import Standing, control, controls, coverage, standing
from cofferdam.evidence.workbench import Bench
from cofferdam.gate.context import Context, Options
from cofferdam.gate.watch.evidence import Evidence
from cofferdam.model import NEVER
from cofferdam.proof.statements import Report, Statement
from tests.evidence.ledger import Ledger

NS = 1_000_000_000
DAY = 86_400
T0 = 1_795_000_000
POLICY, OTHER = "a" * 64, "b" * 64


def entries(*said: tuple[float, Any], policy: str = POLICY) -> list[tuple[int, bytes]]:
    """A log: (day, event), as the auditor would write it; its time never goes backward."""
    found, last = [], 0
    for index, (day, event) in enumerate(said):
        ns = max(last, int((T0 + day * DAY) * NS))
        last = ns
        wall = event.wall_ns or int((T0 + day * DAY) * NS)
        body = encode_event(msgspec.structs.replace(event, wall_ns=wall))
        found.append(
            (index, b'{"event":%s,"index":%d,"maker":"gate","policy":"%s","site":"riverside","time":"%s"}'
             % (body, index, policy.encode(), format_time(ns)))
        )  # fmt: skip
    return found


def done(check: str, outcome: Any, subject: str = "", wall_day: float | None = None) -> CheckDone:
    finding = Finding(check, outcome, f"{check} says", ("a fact",), subject)
    wall = 0 if wall_day is None else int((T0 + wall_day * DAY) * NS)
    valid = catalogue().checks[check].valid if check in catalogue().checks else DAY
    return CheckDone(check=check, outcome=outcome, says=finding.says, result=finding.digest, valid_seconds=valid,
                     subject=subject, facts=finding.facts, wall_ns=wall)  # fmt: skip


def now(
    log: History, day: float, *, policy: str = POLICY, brokers: frozenset[str] | None = frozenset(("modbus",))
) -> Standing:
    return standing(
        catalogue(), log, log.attestations, wall_ns=int((T0 + day * DAY) * NS), policy=policy, brokers=brokers
    )


def status(log: History, day: float, check: str, **more: Any) -> str:
    return now(log, day, **more).checks[check].status


FORWARDED, LEAK = "proof.nothing-forwarded", "leak.silent"


@pytest.mark.parametrize(
    ("said", "day", "check", "wanted"),
    [
        ([], 0, FORWARDED, "not covered"),
        ([(0, done(FORWARDED, "proved"))], 6.9, FORWARDED, "proved"),
        ([(0, done(FORWARDED, "proved"))], 7.1, FORWARDED, "stale"),
        ([(0, done(FORWARDED, "failed"))], 300, FORWARDED, "failed"),  # never green by age, and never grey either
        ([(0, done(FORWARDED, "failed")), (1, done(FORWARDED, "proved"))], 1, FORWARDED, "proved"),
        ([(0, done(FORWARDED, "proved")), (1, done(FORWARDED, "failed"))], 1, FORWARDED, "failed"),
        ([(0, done(LEAK, "proved"))], 0, LEAK, "tested"),  # no entry says more than its check can
        ([(0, done(LEAK, "tested", "a")), (0, done(LEAK, "failed", "b"))], 0, LEAK, "failed"),
        ([(0, done("log.whole", "tested", "a")), (8, done("log.whole", "tested", "b"))], 8, "log.whole", "tested"),
    ],
)  # fmt: skip
def test_playbook(said: list[tuple[float, Any]], day: float, check: str, wanted: str) -> None:
    assert status(read(entries(*said)), day, check) == wanted


def test_a_result_of_another_policy_is_stale_where_it_is_about_rules() -> None:
    log = read(entries((0, done(FORWARDED, "proved")), (0, done("log.whole", "tested"))))
    assert status(log, 1, FORWARDED, policy=OTHER) == "stale"
    assert status(log, 1, "log.whole", policy=OTHER) == "tested"


def test_a_clock_that_jumps_ahead_a_year_and_back_makes_nothing_valid() -> None:
    before = (0, done(FORWARDED, "proved"))
    meanwhile = (365, done("log.whole", "tested"))
    log = read(entries(before, meanwhile))
    assert status(log, 365, FORWARDED) == "stale"
    # Back again: the log's time stands still a year ahead; what was found in that year counts for nothing now.
    assert status(log, 0.1, FORWARDED) == "stale"
    assert status(log, 0.1, "log.whole") == "stale"
    log = read(entries(before, meanwhile, (365, done(FORWARDED, "proved", wall_day=0.1))))
    assert status(log, 0.2, FORWARDED) == "proved"
    assert status(log, 20, FORWARDED) == "stale"  # and it ages by the clock, though the log's time stands still


def test_a_control_is_as_weak_as_its_weakest_check_that_counts() -> None:
    framework = catalogue().frameworks["iec62443-3-3"]
    log = read(
        entries(
            (0, done("proof.only-declared-in", "proved")), (0, done("proof.only-declared-out", "proved")),
            (0, done("firewall.drops", "observed")), (0, done("log.whole", "tested")),
            (0.49, done("log.fenced", "observed")),
        )
    )  # fmt: skip
    found = {one.id: one for one in controls(framework, now(log, 0.5), "2026-11-26")}
    decided = found["SR 5.2 RE 1"]
    assert (decided.status, decided.decides) == ("observed", ("firewall.drops", "log.fenced"))
    assert found["SR 1.6"].status == "not covered"  # outside
    assert "bears on it" in found["SR 1.6"].why
    # A room that the policy does not use is left out, and that is said; nothing left: not covered.
    assert found["SR 2.1 RE 1"].left_out == ("mirror.read-only",)
    assert found["SR 4.1 RE 2"].status == "not covered"
    assert "opcua.secured" in found["SR 4.1 RE 2"].why
    used = {one.id: one for one in controls(framework, now(log, 0.5, brokers=frozenset(("mirror",))), "2026-11-26")}
    assert not used["SR 2.1 RE 1"].left_out
    assert sum(coverage(list(found.values())).values()) == len(found)
    assert all(one.rest for one in found.values() if one.by == "part")


def test_nobody_signs_for_a_service_that_is_not_used() -> None:
    until = int((T0 + 30 * DAY) * NS)
    log = read(
        entries((0, AttestationMade(check="access.mfa", person="Ada", statement="{}", signature="", until_ns=until)))
    )
    assert status(log, 0.5, "access.mfa", brokers=frozenset(("jump",))) == "attested"
    found = now(log, 0.5).checks["access.mfa"]
    assert (found.status, found.counts) == ("not covered", False)
    assert found.says == "the policy uses nothing of jump; the signature of entry 0 carries nothing"


@pytest.mark.parametrize(
    ("framework", "name", "rest", "needed"),
    [
        ("nerc-cip", "CIP-005-7 R2.1", "access.no-direct", "access.no-tunnel"),
        ("nerc-cip", "CIP-003-9 Att1 S6", "monitor.denials", "access.vendor-list"),
        ("nerc-cip", "CIP-007-6 R2.1", "inventory.gate", "patch.source-verified"),
        ("nerc-cip", "CIP-007-6 R2.2", "paper.policy", "patch.answered"),
        ("nist-800-53r5", "ac-17", "access.no-direct", "access.approval"),
        ("nist-800-53r5", "au-10", "log.whole", "access.signed-hop"),
        ("iec62443-3-3", "SR 1.2", "policy.in-force", "opcua.secured"),
        ("iec62443-3-3", "SR 3.1", "broker.session-break", "opcua.secured"),
        ("iec62443-3-3", "SR 1.13", "access.no-direct", "access.vendor-list"),
        ("iec62443-3-3", "SR 2.12", "log.whole", "access.signed-hop"),
        ("iec62443-3-3", "SR 3.2 RE 1", FORWARDED, "files.scanned"),
    ],
)
def test_what_is_left_out_may_be_what_a_control_is_about(framework: str, name: str, rest: str, needed: str) -> None:
    """A gate without a jump server has no intermediate system, however well it forwards nothing."""
    one = catalogue().frameworks[framework].controls[name]
    log = read(entries((0, done(rest, catalogue().checks[rest].best)), (0, done(needed, "observed"))))
    with_it = control(catalogue().frameworks[framework], one, now(log, 0), "2026-11-26")
    assert needed not in with_it.left_out
    log = read(entries((0, done(rest, catalogue().checks[rest].best))))
    found = control(catalogue().frameworks[framework], one, now(log, 0), "2026-11-26")
    assert found.status == "not covered"
    assert "does not use what alone would show it" in found.why
    assert needed in found.why
    if catalogue().checks[rest].best != "attested":  # what does not hold is not hidden by what is not there
        log = read(entries((0, done(rest, "failed"))))
        found = control(catalogue().frameworks[framework], one, now(log, 0), "2026-11-26")
        assert (found.status, found.decides) == ("failed", (rest,))


def test_a_cut_that_nobody_noticed_tests_nothing() -> None:
    for sessions, wanted in ((0, "observed"), (1, "tested")):
        log = read(entries((0, Severed(side="it", by="ada", sessions=sessions)), (0, Restored(side="it", by="ada"))))
        [found], _ = run_checks(Inputs(int(T0 * NS), history=log), ["sever.works"])
        assert (found.outcome, "nobody asked" in found.says) == (wanted, not sessions)


def test_a_signature_for_one_paper_is_none_for_another() -> None:
    """A policy that was reviewed is no assessment of weaknesses, and evaluates no patch."""
    found = catalogue()
    assert found.frameworks["nerc-cip"].controls["CIP-010-4 R3.1"].checks == ("paper.assessment",)
    assert not any("attestation:paper.policy" in of for of in RESET.values())
    assert not found.frameworks["iec62443-3-3"].controls["SR 1.10"].checks  # a lock-out shows nothing of what is shown


def test_levels_and_what_is_still_to_come() -> None:
    log = read(entries((0, done("policy.owner-reason", "observed"))))
    iec, nerc = catalogue().frameworks["iec62443-3-3"], catalogue().frameworks["nerc-cip"]
    sizes = [len(controls(iec, now(log, 0), "2026-11-26", level)) for level in (1, 2, 3, 4, 0)]
    assert sizes == sorted(sizes)
    assert sizes[3] == sizes[4] == 100
    coming = nerc.controls["CIP-005-8 R1.2"]
    assert {one.starts for name, one in nerc.controls.items() if name.startswith("CIP-015-1")} == {"2028-10-01"}
    assert control(nerc, coming, now(log, 0), "2028-03-31").status == "coming"
    assert control(nerc, coming, now(log, 0), "2028-04-01").status != "coming"


STATUS_LISTS = st.lists(st.sampled_from(STATUSES), min_size=1)


@given(STATUS_LISTS, STATUS_LISTS)
def test_more_checks_never_make_a_control_stronger(some: list[str], more: list[str]) -> None:
    order = STATUSES.index
    assert order(weakest(some + more)) == max(order(weakest(some)), order(weakest(more)))


DAYS = st.floats(0, 800)
SAID = st.lists(
    st.tuples(DAYS, st.sampled_from([FORWARDED, LEAK, "log.whole", "policy.expiry"]),
              st.sampled_from(["proved", "tested", "observed", "failed"]), DAYS),
    max_size=12,
)  # fmt: skip


@given(SAID, DAYS)
def test_whatever_the_log_and_the_clocks_say(said: list[tuple[float, str, Any, float]], day: float) -> None:
    """What is shown as established was found in its time, by its maker's clock, and is no stronger than its check."""
    log = read(entries(*((at, done(check, outcome, wall_day=wall)) for at, check, outcome, wall in said)))
    for name, state in now(log, day).checks.items():
        check = catalogue().checks[name]
        if state.status in STRENGTH:
            assert weakest([check.best, state.status]) == state.status
            mine = [(wall, outcome) for _, other, outcome, wall in said if other == name]
            wall, outcome = mine[-1]
            assert outcome != "failed"
            assert (day - wall) * DAY <= check.valid + 1
            assert (wall - day) * DAY <= 301
        if any(other == name for _, other, _, _ in said) and [o for _, n, o, _ in said if n == name][-1] == "failed":
            assert state.status == "failed"


def test_clocks() -> None:
    log = read(entries((0, done("log.retention", "observed")), (100, done("log.retention", "observed"))))
    found = {one.clock: one for one in dues(catalogue(), log, int((T0 + 101 * DAY) * NS))}
    assert (found["log-retention"].state, found["log-retention"].late, found["log-retention"].times) == (
        "on time",
        1,
        2,
    )
    assert [(one.day, one.entry, one.late) for one in found["log-retention"].history] == [
        (day_of(T0 * NS), 0, False), (day_of((T0 + 100 * DAY) * NS), 1, True)
    ]  # fmt: skip
    assert (found["log-review"].state, found["log-review"].last) == ("overdue", "")
    assert found["island-drill"].state == "never done"
    soon = {one.clock: one.state for one in dues(catalogue(), log, int((T0 + 340 * DAY) * NS))}
    assert soon["island-drill"] == "due soon"
    file = calendar(tuple(found.values()), "riverside; water")
    assert file.count("BEGIN:VEVENT") == len(found)
    assert all(len(line.encode()) <= 75 for line in file.split("\r\n"))
    assert "riverside\\; water" in file.replace("\r\n ", "")


def test_what_is_over_is_no_duty_done() -> None:
    log = read(entries((0, done("log.retention", "observed")), (1, done("log.retention", "not covered"))))
    found = {one.clock: one for one in dues(catalogue(), log, int((T0 + 2 * DAY) * NS))}
    assert (found["log-retention"].times, found["log-retention"].entry) == (1, 0)


def test_a_log_with_what_nobody_understands() -> None:
    good = entries((0, done(FORWARDED, "proved")))
    bad = [
        (1, b"no json"),
        (2, b'{"event":{"kind":"check-done"},"index":2,"maker":"","policy":"","site":"","time":""}'),
    ]
    log = read([*good, *bad])
    assert len(log.problems) >= 2
    assert log.results


# --- a finding is as old as what it rests on -----------------------------------------------------------------------


def judged(*said: tuple[float, Any], day: float, check: str) -> str:
    """What a check finds on a day, with what the log has: its outcome, or why it finds nothing."""
    known = Inputs(int((T0 + day * DAY) * NS), history=read(entries(*said)))
    found, missing = run_checks(known, [check])
    return found[0].outcome if found else missing[0].reason


AWAY = [ExportStood(collector="soc", next=7, working=False, detail="refused", wall_ns=int((T0 + 1.1 * DAY) * NS))]
ARCHIVE = ExportStood(collector="archive", next=9, working=True, wall_ns=int((T0 + 1.099 * DAY) * NS))
THERE = ExportStood(collector="soc", next=9, working=True, wall_ns=int((T0 + 1.12 * DAY) * NS))


def test_an_export_that_works_again_turns_its_check() -> None:
    """Also where another collector, which has worked all along, says so only once an hour."""
    failed = done("log.exported", "failed", wall_day=1.11)
    said = [(1.099, ARCHIVE), (1.1, AWAY[0]), (1.11, failed)]
    assert judged(*said, day=1.115, check="log.exported") == "failed"
    assert judged(*said, (1.12, THERE), day=1.125, check="log.exported") == "observed"


def test_what_had_failed_and_is_gone() -> None:
    """Where the policy has nothing of the kind any more, what was found is over, and says so; where nothing was,
    nothing is found; and what nobody looks at any more stays failed."""
    out = [ExportStood(collector=name, next=9, working=True, detail="it is out of the policy") for name in ("soc", "a")]
    quiet = judged((1, out[0]), (1, out[1]), day=1.2, check="log.exported")
    assert "nothing is exported" in quiet
    said = [(0.5, AWAY[0]), (0.6, done("log.exported", "failed")), (1, out[0]), (1, out[1])]
    known = Inputs(int((T0 + 1.2 * DAY) * NS), history=read(entries(*said)))
    [found], missing = run_checks(known, ["log.exported"])
    assert (found.outcome, missing) == ("not covered", [])
    assert "what was found of it is over: nothing is exported" in found.says
    log = read(entries(*said, (1.2, done("log.exported", "not covered"))))
    assert now(log, 1.3).checks["log.exported"].status == "not covered"
    assert now(log, 400).checks["log.exported"].status == "not covered"  # it is no finding that grows old
    [found], _ = run_checks(  # nor does what was good end as one that nobody has looked at for long
        Inputs(int((T0 + 1.2 * DAY) * NS), history=read(entries((0.6, done("log.exported", "observed")), (1, out[0])))),
        ["log.exported"],
    )
    assert found.outcome == "not covered"
    probe = {"works": False, "detail": "OFF by the policy", "last_ns": 0, "seconds": 0}
    known = Inputs(T0 * NS, status={"alarms": [], "leak_probe": probe},
                   history=read(entries((0, done("leak.silent", "failed")))))  # fmt: skip
    found_, missing = run_checks(known, ["leak.silent"])
    assert not found_ and not missing[0].gone


CUT, BACK = Severed(side="it", by="ada", sessions=1), Restored(side="it", by="ada")
KEPT = ExportStood(collector="witness:safe", next=9, working=True)
FORKED = ExportStood(collector="witness:stick", next=9, working=False, detail="written anew")


@pytest.mark.parametrize(
    ("said", "day", "check", "wanted"),
    [
        ([(0, CUT), (0, BACK)], 364, "sever.works", "tested"),
        ([(0, CUT), (0, BACK)], 366, "sever.works", "is 366 d old, and counts for 365 d"),
        ([(0, KEPT)], 0.9, "log.witnessed", "observed"),
        ([(0, KEPT)], 1.1, "log.witnessed", "counts for 1 d"),
        ([(0, FORKED), (0.1, KEPT)], 0.2, "log.witnessed", "failed"),  # no other witness outvotes it
        ([(0, Malformed(session="s", source="10.1.0.9", section="1", detail="x"))], 36, "broker.strict-parse",
         "counts for 35 d"),
        ([(400, CUT), (400, BACK)], 0, "sever.works", "by a clock that was wrong"),
        ([(0, CUT), (0, BACK), (1, done("sever.works", "failed"))], 2, "sever.works", "it failed by entry 2"),
    ],
)  # fmt: skip
def test_what_a_finding_rests_on_ages_with_it(said: Any, day: float, check: str, wanted: str) -> None:
    assert wanted in judged(*said, day=day, check=check)


def test_an_old_proof_that_is_looked_at_again_is_no_newer_by_it() -> None:
    """Neither by asking each night, nor by a report of before a failure, as when the last report was deleted."""
    statement = Statement("solver", "it: nothing is forwarded", "proved", "so", ("x",), T0 * NS)
    report = Report("riverside", "host", "0.1.0", POLICY, "namespaces", T0 * NS, T0 * NS, True, {}, (statement,))

    def at(day: float, *said: tuple[float, Any]) -> Inputs:
        return Inputs(int((T0 + day * DAY) * NS), proven=Proven(report), history=read(entries(*said)))

    found, _ = run_checks(at(6), [FORWARDED])
    assert found[0].at_ns == T0 * NS
    found, missing = run_checks(at(8), [FORWARDED])
    assert not found
    assert "8 d old" in missing[0].reason
    found, missing = run_checks(at(2, (1, done(FORWARDED, "failed"))), [FORWARDED])
    assert not found
    assert "failed by entry 0" in missing[0].reason


class Noting:
    """A gate that notes what it is told."""

    def __init__(self, state: Path = Path("/nowhere")) -> None:
        self.policy: Any = None
        self.policy_hash = POLICY
        self.options = Options(state / "policy.yaml", state)
        self.noted: list[CheckDone] = []
        self.standing: dict[str, str] = {}

    def note(self, event: Any) -> None:
        self.noted.append(event)

    def alarm(self, name: str, detail: str) -> None:
        self.standing[name] = detail


def test_the_gate_records_when_it_was_and_not_when_it_was_told() -> None:
    gate, clock = Noting(), [T0 * NS]
    room = Evidence(cast("Context", gate), lambda: None, lambda: clock[0])
    proved = Finding(FORWARDED, "proved", "so", at_ns=clock[0] - 3600 * NS)
    assert room.take([proved], "root") == 1
    assert gate.noted[0].wall_ns == proved.at_ns
    for days in (1, 2, 30):  # each night the same old proof: not one entry more, so it ends when it should
        clock[0] = (T0 + days * DAY) * NS
        assert room.take([proved], "root") == 0
    newer = msgspec.structs.replace(proved, at_ns=clock[0])
    assert room.take([newer], "root") == 1
    assert room.take([proved], "root") == 0  # and what is older than that says nothing new
    assert room.take([msgspec.structs.replace(newer, at_ns=clock[0] + 10**18)], "root") == 0  # nor does a future


def test_what_is_found_under_another_policy_is_news() -> None:
    gate = Noting()
    room = Evidence(cast("Context", gate), lambda: None)
    both = [Finding("policy.least", "observed", "so"), Finding("log.whole", "tested", "so")]
    assert (room.take(both, "gate"), room.take(both, "gate")) == (2, 0)
    gate.policy_hash = OTHER
    assert room.take(both, "gate") == 1
    assert gate.noted[-1].check == "policy.least"


def test_the_warnings_that_a_check_asks_for_are_some_that_there_are() -> None:
    source = "".join(path.read_text() for path in Path(policy_room.__file__).parent.rglob("*.py"))
    assert [name for name in WIDE if f'"{name}"' not in source] == []


def test_a_check_that_failed_is_an_alarm_over_restarts_too(tmp_path: Path) -> None:
    def started() -> tuple[Noting, Evidence]:
        gate = Noting(tmp_path)
        room = Evidence(cast("Context", gate), lambda: None)
        room.restore()
        return gate, room

    gate, room = started()
    assert not any(gate.standing.values())
    room.take([Finding("log.whole", "failed", "entry 7 was changed", subject=one) for one in ("a", "b")], "root")
    gate, room = started()
    assert gate.standing["check-log.whole"] == "a: entry 7 was changed"
    room.take([Finding("log.whole", "tested", "whole", subject="a")], "root")
    gate, room = started()
    assert gate.standing["check-log.whole"] == "b: entry 7 was changed"
    room.take([Finding("log.whole", "tested", "whole", subject="b")], "root")
    assert not gate.standing["check-log.whole"]
    gate, room = started()
    assert not any(gate.standing.values())
    (tmp_path / "failed-checks.json").write_text("{")
    gate, room = started()
    assert "cannot be understood" in gate.standing["failed-checks-unknown"]
    room.take([Finding("log.whole", "failed", "again")], "root")
    assert not gate.standing["failed-checks-unknown"]
    assert started()[0].standing["check-log.whole"] == "again"


def test_the_gate_finds_within_the_minute_how_exports_and_witnesses_stand(tmp_path: Path) -> None:
    """From what it is told itself, before anybody reads the log; and a policy without any ends a failure."""
    gate, clock = Noting(tmp_path), [T0 * NS]
    room = Evidence(cast("Context", gate), lambda: None, lambda: clock[0])

    def minute(*told: ExportStood) -> dict[str, str]:
        for event in told:
            room.told(msgspec.structs.replace(event, wall_ns=clock[0]))
        clock[0] += 61 * NS
        gate.noted.clear()
        room.round()
        return {one.check: one.outcome for one in gate.noted if one.check in ("log.exported", "log.witnessed")}

    soc = ExportStood(collector="soc", next=9, working=True)
    safe = ExportStood(collector="witness:safe", next=9, working=True)
    assert minute() == {}
    assert minute(soc, safe) == {"log.exported": "observed", "log.witnessed": "observed"}
    assert minute(AWAY[0]) == {"log.exported": "failed"}
    assert "soc" in gate.standing["check-log.exported"]
    assert minute() == {}
    assert minute(msgspec.structs.replace(soc, detail=ANEW)) == {}  # its alarm is over, and nothing is known of it
    assert minute(soc) == {"log.exported": "observed"}
    assert minute(msgspec.structs.replace(safe, working=False, detail="another head")) == {"log.witnessed": "failed"}
    assert minute(msgspec.structs.replace(safe, detail=OUT)) == {"log.witnessed": "not covered"}
    assert not gate.standing["check-log.witnessed"] and not gate.standing["check-log.exported"]
    assert minute() == {}
    assert minute(safe)
    assert minute(msgspec.structs.replace(safe, detail=OUT)) == {"log.witnessed": "not covered"}  # also what was good
    # By hand: its witness is in no policy.
    clock[0] -= 400 * DAY * NS  # a clock that is set makes nobody silent
    assert minute()["log.exported"] == "observed"
    clock[0] += 800 * DAY * NS
    assert minute()["log.exported"] == "observed"


def test_a_restart_makes_no_failure_good(tmp_path: Path) -> None:
    """Neither what the policy names and has not said a word yet, nor a stick with another head, of which nobody says
    anything again by itself; what the policy named no more when the gate came back is over."""
    clock = [T0 * NS]
    named = compiled(("soc", "a"), ("w1",))

    def minute(room: Evidence, gate: Noting, *told: ExportStood) -> dict[str, str]:
        for event in told:
            room.told(event)
        clock[0] += 61 * NS
        gate.noted.clear()
        room.round()
        return {one.check: one.outcome for one in gate.noted if one.check in ("log.exported", "log.witnessed")}

    def started(policy: Any) -> tuple[Evidence, Noting]:
        gate = Noting(tmp_path)
        gate.policy = policy
        room = Evidence(cast("Context", gate), lambda: None, lambda: clock[0])
        room.restore()
        return room, gate

    soc, a, w1 = (ExportStood(collector=name, next=9, working=True) for name in ("soc", "a", "witness:w1"))
    room, gate = started(named)
    assert minute(room, gate, soc, a, w1) == {"log.exported": "observed", "log.witnessed": "observed"}
    no = ExportStood(collector="witness:stick", next=0, working=False, detail="written anew")
    broken = msgspec.structs.replace(soc, working=False, detail="refused")
    assert minute(room, gate, no, broken) == {"log.exported": "failed", "log.witnessed": "failed"}
    room, gate = started(named)
    assert minute(room, gate) == {"log.witnessed": "failed"}
    assert gate.standing["check-log.exported"] and gate.standing["export-witness:stick"] == "written anew"
    assert minute(room, gate, a, w1) == {}
    assert gate.standing["check-log.exported"] and gate.standing["check-log.witnessed"]
    assert minute(room, gate, soc) == {"log.exported": "observed"}
    assert minute(room, gate, msgspec.structs.replace(no, working=True)) == {"log.witnessed": "observed"}
    assert minute(room, gate, msgspec.structs.replace(w1, working=False, detail="another head"), broken)
    room, gate = started(compiled((), ()))
    assert minute(room, gate) == {"log.exported": "not covered", "log.witnessed": "not covered"}


def test_of_a_gate_that_has_just_come_back_nothing_is_held_against_collectors() -> None:
    """By the log, in which their last words are of another life, weeks ago."""
    note = msgspec.structs.replace(KEPT, collector="witness:w1", note="n")
    soc = ExportStood(collector="soc", next=9, working=True)
    old = ExportStood(collector="old", next=9, working=False, detail="refused")
    was = msgspec.structs.replace(note, collector="witness:was")
    said = [(0, note), (0, soc), (0, old), (0, was), (0.1, msgspec.structs.replace(was, working=False, note=""))]
    start = (7, GateStarted(version="1", pid=1))
    named = compiled(("soc",), ("w1",))

    def outcomes(day: float, *more: tuple[float, Any]) -> dict[str, str]:
        known = Inputs(int((T0 + day * DAY) * NS), policy=named, history=read(entries(*said, start, *more)))
        return {one.check: one.outcome for one in run_checks(known, ["log.exported", "log.witnessed"])[0]}

    assert outcomes(7.001) == {}
    both = (7.002, soc), (7.002, note)
    assert outcomes(7.003, *both) == {"log.exported": "observed", "log.witnessed": "observed"}
    assert outcomes(7.1) == {"log.exported": "failed", "log.witnessed": "failed"}  # silent for two hours is silent
    assert outcomes(7.003, (7.002, FORKED), both[1]) == {"log.witnessed": "failed"}  # a stick is in no policy


def compiled(collectors: tuple[str, ...], witnesses: tuple[str, ...]) -> Any:
    """A policy that names these; nothing else of it is looked at here."""
    audit = SimpleNamespace(
        collectors=[SimpleNamespace(name=name) for name in collectors],
        witnesses=[SimpleNamespace(name=name) for name in witnesses],
    )
    return SimpleNamespace(audit=audit)


def test_what_the_gate_finds_of_a_policy_is_found_anew_with_the_next_one(tmp_path: Path) -> None:
    """Within the minute, and not when its day is over: a policy is changed by day."""
    gate, clock = Noting(tmp_path), [T0 * NS]
    conduit = SimpleNamespace(name="c", expires=NEVER, rules=(), owner="o", reason="r", expires_text="")
    gate.policy = SimpleNamespace(audit=compiled((), ()).audit, conduits={"c": conduit}, assets={})
    room = Evidence(cast("Context", gate), lambda: None, lambda: clock[0])

    def minute() -> list[str]:
        clock[0] += 61 * NS
        gate.noted.clear()
        room.round()
        return [one.check for one in gate.noted if one.check == "policy.expiry"]

    assert (minute(), minute()) == (["policy.expiry"], [])
    gate.policy_hash = OTHER
    assert (minute(), minute()) == (["policy.expiry"], [])


def test_the_first_minutes_of_a_log_say_nothing_of_its_growth() -> None:
    """A fresh gate on a small disk: ten minutes of its start, taken for a day, would fill it in a week."""

    def outcome(day: float, per_day: int = 500 << 20, most: int = 0) -> str:
        disk = {"free": 5 << 30, "total": 8 << 30, "per_day": per_day, "since": format_time(T0 * NS).decode(),
                "bytes": 1 << 30, "most": most << 30}  # fmt: skip
        [found], _ = run_checks(Inputs(int((T0 + day * DAY) * NS), status={"audit": {"disk": disk}}), ["log.capacity"])
        return found.outcome

    assert (outcome(0.01), outcome(2), outcome(2, 50 << 20)) == ("observed", "failed", "observed")
    # The policy bounds it: within what is free it never fills the disk, beyond that it does.
    assert (outcome(2, most=6), outcome(2, most=1), outcome(2, most=7)) == ("observed", "observed", "failed")


def test_how_it_stood_long_ago_is_read_from_the_log_of_then() -> None:
    """What counts for an hour is found twice an hour, and a year of that is not kept."""
    checks = [(day / 48, done(LEAK, "tested")) for day in range(3 * KEPT_BEFORE)]
    log = entries(*checks)
    assert (LEAK, "") in read(log).forgot
    then = read(log, int((T0 + 2.01 * DAY) * NS))
    assert then.size == 97 and now(then, 2.01).checks[LEAK].status == "tested"
    checks[5] = (5 / 48, done(LEAK, "failed"))  # what turned is known long after
    assert [one.outcome for one in read(entries(*checks)).results[LEAK, ""][:3]] == ["tested", "failed", "tested"]


def test_a_broker_in_use_is_not_forgotten() -> None:
    """Neither since a part of another one comes up again and again, nor since the gate has run for longer than the log
    is kept: what is not covered of it would be left out, as if the policy used nothing of it."""
    start, jump = GateStarted(version="1", pid=1), HalfStarted(half="jump/a/inner", pid=7)
    flaps = [(1.0, HalfStarted(half="modbus/a/inner", pid=7))] * (2 * HAPPENINGS + 1)
    log = entries((0, start), (0, jump), *flaps)
    assert read(log).brokers() == frozenset(("jump", "modbus"))
    assert read(log[-9:]).brokers() is None
    assert read([*log, *((len(log) + at, data) for at, data in entries((2, start)))]).brokers() == frozenset()


def test_a_year_of_every_check_fits_a_pack() -> None:
    ours, most = {one.id for one in MINUTE}, 0
    for name in CHECKS:
        again = min(DAY, catalogue().checks[name].valid // 2) if name in ours else DAY
        most += min(2 * KEPT_BEFORE, 366 * DAY // again)
    assert most + 4000 < MOST_ENTRIES


def test_a_report_as_of_long_ago(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin()
    for half in range(2 * KEPT_BEFORE + 1):
        ledger.day(half / 48)
        ledger.found(LEAK, "tested")
    then = ledger.now - 15 * DAY * NS
    ledger.head()
    assert Bench.under_checkpoint(tmp_path).at(then).checks[LEAK].status == "tested"
    ledger.close()
