"""How checks and controls stand: playbooks of what the log has against what is shown, and what must hold of any log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.entry import encode_event, format_time
from cofferdam.audit.events.evidence import CheckDone
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.clocks import calendar, dues
from cofferdam.evidence.history import History, read
from cofferdam.evidence.model import STATUSES, STRENGTH, Finding, weakest
from cofferdam.evidence.standing import Standing, control, controls, coverage, standing

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
        )
    )  # fmt: skip
    found = {one.id: one for one in controls(framework, now(log, 0.5), "2026-11-26")}
    assert (found["SR 5.2 RE 1"].status, found["SR 5.2 RE 1"].decides) == ("observed", ("firewall.drops",))
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


def test_levels_and_what_is_still_to_come() -> None:
    log = read(entries((0, done("policy.owner-reason", "observed"))))
    iec, nerc = catalogue().frameworks["iec62443-3-3"], catalogue().frameworks["nerc-cip"]
    sizes = [len(controls(iec, now(log, 0), "2026-11-26", level)) for level in (1, 2, 3, 4, 0)]
    assert sizes == sorted(sizes)
    assert sizes[3] == sizes[4] == 100
    coming = nerc.controls["CIP-005-8 R1.2"]
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
    assert (found["log-review"].state, found["log-review"].last) == ("overdue", "")
    assert found["island-drill"].state == "never done"
    soon = {one.clock: one.state for one in dues(catalogue(), log, int((T0 + 340 * DAY) * NS))}
    assert soon["island-drill"] == "due soon"
    file = calendar(tuple(found.values()), "riverside; water")
    assert file.count("BEGIN:VEVENT") == len(found)
    assert all(len(line.encode()) <= 75 for line in file.split("\r\n"))
    assert "riverside\\; water" in file.replace("\r\n ", "")


def test_a_log_with_what_nobody_understands() -> None:
    good = entries((0, done(FORWARDED, "proved")))
    bad = [
        (1, b"no json"),
        (2, b'{"event":{"kind":"check-done"},"index":2,"maker":"","policy":"","site":"","time":""}'),
    ]
    log = read([*good, *bad])
    assert len(log.problems) >= 2
    assert log.results
