"""Checks over what services wrote: each is made to hold, and to fail, by the events of their own rooms."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import argon2
import msgspec
import pytest

from cofferdam.audit.events import jump, mirror, patch, relay
from cofferdam.audit.events.gate import GateStarted, HalfDied, HalfStarted
from cofferdam.brokers.jump import signin
from cofferdam.brokers.jump.signin import PAUSE
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.profile import Can
from cofferdam.evidence import history
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.checks.tables import CHECKS, LEFT, SELF_TESTED, run_checks
from cofferdam.evidence.history import read
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.standing import standing
from cofferdam.lab import layout, play, plays
from cofferdam.model import NEVER
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import JumpRows
from tests.evidence.test_standing import POLICY, T0, done, entries

A, B = "a" * 64, "b" * 64
Draft = Any


def signed(person: str = "ada", factors: tuple[str, ...] = ("key", "code")) -> Draft:
    return jump.SignedIn(connection="c1", person=person, source="10.1.0.9", port=1, factors=factors)


def opened(**changes: Any) -> Draft:
    said: dict[str, Any] = {
        "session": "s1", "connection": "c1", "person": "ada", "source": "10.1.0.9", "asset": "plc", "login": "root",
        "what": "shell", "conduit": "c", "rule": "c#0",
    }  # fmt: skip
    return jump.AccessOpened(**(said | changes))


def decided(**changes: Any) -> Draft:
    said: dict[str, Any] = {
        "request": 3, "decision": "granted", "by": "bob", "how": "gate", "person": "ada", "asset": "plc",
        "people": ("bob",),
    }  # fmt: skip
    return jump.AccessDecided(**(said | changes))


BROKEN = jump.GlassUsed(by="root", how="broken", person="ada", asset="plc")
ENDED = jump.AccessEnded(session="s1", person="ada", asset="plc", reason="done")
MARKED = jump.RecordingMarked(recording="r", session="s1", size=9, sha256=A, ended=True)


def passed(sha: str = A) -> Draft:
    return jump.AssetFilePassed(session="s1", person="ada", asset="plc", way="up", path="/f", size=1, sha256=sha)


EXAMINED = patch.FileExamined(number=1, product="p", version="1", file="f", sha256=A, verdict="passed", origin="maker")
STARTED = patch.InstallStarted(asset="plc", product="p", version="1", number=1, sha256=A, way="sftp")
INSTALLED = patch.InstallEnded(asset="plc", product="p", version="1", number=1, sha256=A, state="done")
MATCHED = patch.AdvisoryMatched(advisory="V-1", product="docs", number=1, affected=("plc",))
OVERDUE = patch.AdvisoryOverdue(advisory="V-1", product="docs", clock="evaluate", due="2026-12-06")
EVALUATED = patch.AdvisoryEvaluated(advisory="V-1", product="docs", by="ada", applies=True, complete=True)
ASKED = patch.ReleaseRequested(number=1, product="p", version="1", file="f", sha256=A, by="ada", targets=1)


def released(*people: str) -> Draft:
    return patch.ReleaseDecided(number=1, product="p", version="1", file="f", sha256=A, decision="released", by="ada",
                                people=people)  # fmt: skip


def compared(differ: int = 0) -> Draft:
    hours: dict[str, Any] = {"first": 1, "last": 2}
    return mirror.MirrorVerified(conduit="h", against="source", tags=2, points=9, differ=differ, **hours)


LOST = mirror.SamplesLost(conduit="h", source="x", since_hour=1, until_hour=2, points=3, why="w")
KILLED = jump.AccessKilled(session="s1", by="bob")
UNBEGUN = jump.AccessKilled(session="s2", by="bob")  # it waited for who was to watch it
LATER = jump.AccessRefused(connection="c", person="p", source="s", asset="a", what="w", reason="r")
CASES: list[tuple[str, list[tuple[float, Draft]], list[tuple[float, Draft]]]] = [
    ("access.mfa", [(0, signed()), (0, opened())], [(0, signed(factors=("key",))), (0, opened())]),
    ("access.mfa", [(0, signed()), (0, opened())], [(0, signed("eve")), (0, opened())]),
    ("access.unique", [(0, opened())], [(0, opened(person=""))]),
    ("access.approval", [(0, decided()), (0, opened(request=3))], [(0, opened(request=3)), (0, decided())]),
    ("access.approval", [(0, decided()), (0, opened(request=3))],
     [(0, decided(asset="other")), (0, opened(request=3))]),
    ("access.approval", [(0, decided(until_ns=(T0 + 9) * 10**9)), (0, opened(request=3))],
     [(0, decided(until_ns=5)), (0, opened(request=3))]),
    ("access.four-eyes", [(0, decided())], [(0, decided(people=("bob", "ada")))]),
    ("access.kill", [(0, opened()), (0, KILLED), (0, ENDED), (1, LATER)], [(0, opened()), (0, KILLED), (1, LATER)]),
    ("access.kill", [(0, opened()), (0, KILLED), (0, ENDED)], [(0, KILLED), (0, ENDED), (0, opened())]),
    ("access.kill", [(0, opened()), (0, KILLED), (0, ENDED), (0, UNBEGUN), (1, LATER)],
     [(0, opened()), (0, UNBEGUN), (0, KILLED), (1, LATER)]),
    ("recording.complete", [(0, opened(recorded=True)), (0, MARKED), (0, ENDED)],
     [(-1, opened(recorded=True)), (-1, msgspec.structs.replace(ENDED, received=9))]),
    ("recording.complete", [(-1, opened(session="s0", recorded=True)),
                            (-1, msgspec.structs.replace(ENDED, session="s0")),
                            (0, opened(recorded=True)), (0, MARKED), (0, ENDED)],
     [(-1, opened(recorded=True)), (-1, msgspec.structs.replace(MARKED, ended=False)), (-1, ENDED)]),
    ("access.approval", [(0, BROKEN), (0, opened(request=5)), (0, opened(request=5, session="s2"))],
     [(0, BROKEN), (0, opened(request=5)), (0, opened(request=6, session="s2"))]),
    ("access.approval", [(0, BROKEN), (0, opened(request=5))], [(0, opened(request=5)), (0, BROKEN)]),
    ("access.approval", [(0, decided(decision="approved")), (0, decided()), (0, opened(request=3))],
     [(0, decided(decision="approved")), (0, opened(request=3))]),
    ("access.four-eyes", [(0, decided(decision="approved"))], [(0, decided(decision="approved", by="ada"))]),
    ("files.hashed", [(0, passed())], [(0, passed(""))]),
    ("patch.source-verified", [(0, EXAMINED), (0, STARTED)], [(0, STARTED), (0, EXAMINED)]),
    ("patch.approved", [(0, ASKED), (0, released("bob"))], [(0, ASKED), (0, released("ada"))]),
    ("patch.answered", [(0, MATCHED), (0, OVERDUE), (0, EVALUATED)], [(0, MATCHED), (0, EVALUATED), (0, OVERDUE)]),
    ("patch.on-schedule", [(0, STARTED), (0, INSTALLED), (2, LATER)], [(0, STARTED), (2, LATER)]),
    ("mirror.no-gaps", [(0, compared())], [(0, compared(2))]),
    ("mirror.no-gaps", [(0, LOST), (0, compared())], [(0, compared()), (0, LOST)]),
]  # fmt: skip


@pytest.mark.parametrize(("check", "good", "bad"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_check(check: str, good: list[tuple[float, Draft]], bad: list[tuple[float, Draft]]) -> None:
    for said, wanted in ((good, ("observed", "tested")), (bad, ("failed",))):
        found, missing = run_checks(Inputs(T0 * 10**9, history=read(entries(*said))), [check])
        assert not missing
        assert found[0].outcome in wanted, found[0]
        assert found[0].facts


def test_what_did_not_happen_is_not_claimed() -> None:
    names = sorted({case[0] for case in CASES} | {"access.no-tunnel"})
    found, missing = run_checks(Inputs(T0 * 10**9, history=read([])), names)
    assert not found
    assert [one.check for one in missing] == names


@functools.cache
def the_policy(*changes: tuple[str, str]) -> CompiledPolicy:
    """That of all plays, with these texts in place of others."""
    stage = plays.plays()
    text, files = play.policy(stage, layout.shipped(plays.spots(stage)))
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    with tempfile.TemporaryDirectory() as name:
        for path, content in (files | {"policy.yaml": text}).items():
            (Path(name) / path).write_text(content)
        return compile_policy(load(Path(name) / "policy.yaml"), now_ns=T0 * 10**9)


def pushed(first: int, count: int = 2, commit: int = 1) -> Draft:
    return relay.MessagesPushed(store=A, commit=commit, channel="orders", first=first, count=count, size=1, root=B)


REOPENED = relay.StoreOpened(store=A, commit=1, untold=0, messages=2)
"""The store, without what was pushed by commit 2."""


def glass(how: Any) -> Draft:
    return jump.GlassUsed(by="ada", how=how)


SCAN = ("    listen: \"127.64.7.1:15109\"\n    clients: plant-staff", "    files: {scan: true}\n    listen: "
        "\"127.64.7.1:15109\"\n    clients: plant-staff")  # fmt: skip
NOTICE = ("    clients: plant-staff\n", "    clients: plant-staff\n    notice: people of the plant only\n")
SECURE = ("{clients: Basic256Sha256, asset: none}", "{clients: Basic256Sha256, asset: Basic256Sha256}")
SIGNED_ONLY = ("{clients: Basic256Sha256, asset: none}", "{clients: Basic256Sha256, asset: Basic256Sha256 sign}")
STAFF = {"conduit": "staff-helps", "what": "up"}
SCANNED = msgspec.structs.replace(passed(), scan="clean")
MANY = [(0.0, opened(session=f"s{number}", conduit="staff-helps")) for number in range(5)]
SOON, LATE = (T0 + 9) * 10**9, (T0 + 9 * 86_400) * 10**9
BY_NAME = ("{who: [{group: technicians}, {group: shift-leads}]", "{who: [{group: technicians}, {person: petra}]")
HERS = opened(**STAFF, rule="staff-helps/0")


def told(what: str, name: str, detail: str = "") -> Draft:
    """What the keeper was told of somebody."""
    return jump.AccessSet(what=what, name=name, by="root", detail=detail)


JOINED, LEFT_IT = told("group", "ada technicians", "joined"), told("group", "ada technicians", "left")
GONE, PASSWORD = told("person", "ada", "removed"), told("password", "ada")
Case = tuple[list[tuple[float, Draft]], tuple[tuple[str, str], ...]]
WITH_POLICY: list[tuple[str, Case, Case]] = [
    ("access.window", ([(0, decided(until_ns=SOON)), (0, opened(request=3)), (0, ENDED)], ()),
     ([(0, decided(until_ns=SOON)), (0, opened(request=3)), (1, ENDED)], ())),
    ("access.window", ([(0, decided(until_ns=LATE)), (0, opened(request=3))], ()),
     ([(0, decided(until_ns=5)), (0, opened(request=3))], ())),
    ("access.concurrency", (MANY[:4], ()), (MANY, ())),
    ("access.banner", ([], (NOTICE,)), ([], ())),
    ("access.break-glass", ([(-9, glass("sealed")), (-9, glass("broken")), (-1, glass("reviewed"))], ()),
     ([(-9, glass("broken"))], ())),
    ("files.scanned", ([(0, opened(**STAFF)), (0, SCANNED)], (SCAN,)),
     ([(0, opened(**STAFF)), (0, passed())], (SCAN,))),
    ("relay.exactly-once", ([(0, pushed(0)), (0, pushed(2))], ()), ([(0, pushed(0)), (0, pushed(1))], ())),
    ("relay.exactly-once", ([(0, pushed(0)), (0, pushed(2, 2, 2)), (0, REOPENED), (0, pushed(2, 1, 2))], ()),
     ([(0, pushed(0)), (0, pushed(2, 2, 2)), (0, relay.StoreKept(store=A, commit=2)), (0, REOPENED),
       (0, pushed(2, 1, 2))], ())),
    ("relay.exactly-once", ([(0, pushed(0)), (0, pushed(2, 2, 2)), (0, REOPENED), (0, pushed(2, 1, 2))], ()),
     ([(0, pushed(0)), (-8, pushed(2, 2, 2)), (-8, pushed(4, 2, 2)), (-1, REOPENED), (0, pushed(2, 1, 2))], ())),
    ("opcua.secured", ([], (SECURE,)), ([], ())),
    ("opcua.secured", ([], (SECURE,)), ([], (SIGNED_ONLY,))),
    ("secret.strength", ([(-400, PASSWORD)], ()), ([(-460, PASSWORD)], ())),
    ("secret.strength", ([(-460, PASSWORD), (-1, PASSWORD)], ()), ([(-460, PASSWORD), (-1, told("key", "ada"))], ())),
    ("secret.strength", ([(-460, PASSWORD), (-9, GONE)], ()), ([(-460, told("person", "bob")), (-460, PASSWORD)], ())),
    ("access.roles", ([(-2, JOINED), (-1, HERS)], ()), ([(-1, HERS), (-1, JOINED)], ())),
    ("access.roles", ([(-2, JOINED), (-1, HERS), (0, LEFT_IT)], ()), ([(-2, JOINED), (-2, LEFT_IT), (-1, HERS)], ())),
    ("access.roles", ([], ()), ([(-2, JOINED), (-2, GONE), (-1, HERS)], ())),
]  # fmt: skip


@pytest.mark.parametrize(("check", "good", "bad"), WITH_POLICY, ids=[f"{n}-{c[0]}" for n, c in enumerate(WITH_POLICY)])
def test_check_with_the_policy(check: str, good: Case, bad: Case) -> None:
    for (said, changes), wanted in ((good, ("observed", "tested")), (bad, ("failed",))):
        policy = the_policy(*changes)
        log = entries(*said, policy=policy.hash)
        found, missing = run_checks(Inputs(T0 * 10**9, policy=policy, history=read(log)), [check])
        assert not missing
        assert found[0].outcome in wanted, found[0]
        assert found[0].facts


SAYS: dict[str, list[Draft]] = {
    "access.idle-lock": [msgspec.structs.replace(ENDED, reason="nobody typed for too long")],
    "access.lockout": [jump.SignInRefused(connection="c", user="u", source="s", reason=PAUSE)],
    "access.ends-here": [opened(), MARKED],
    "recording.fail-closed": [
        msgspec.structs.replace(ENDED, reason="this session ends, since it cannot be recorded: the disk is full")
    ],
    "secret.hardware": [signed(factors=("security key", "its PIN or finger"))],
    "secret.asset-hidden": [],
    "mirror.read-only": [],
    "crypto.used": [],
    "access.vendor-list": [],
}
"""What is only shown: it holds by what the code gives its parts, or it happened, or nothing is claimed."""


@pytest.mark.parametrize("check", SAYS)
def test_what_is_only_shown(check: str) -> None:
    policy = the_policy()
    status = {"conduits": [{"name": "staff-helps", "sessions": 2}, {"name": "other", "sessions": 7}]}
    known = Inputs(T0 * 10**9, status=status, policy=policy, history=read(entries(*((0, one) for one in SAYS[check]))))
    [found], missing = run_checks(known, [check])
    assert not missing
    assert found.outcome in ("observed", "tested")
    assert found.facts
    if check == "access.vendor-list":
        assert found.says.startswith("2 sessions")
    if check == "access.lockout":
        assert "1 of them in a pause" in found.says


def test_a_budget_that_nothing_was_measured_against() -> None:
    spread = {"count": 0, "p99": 0.0}
    one = {"name": "a", "budget": 5_000, "added": spread, "recent": spread, "packets": spread,
           "recent_over_budget": False}  # fmt: skip
    for count, wanted in ((0, "nothing has gone by"), (1, "1 conduit is within")):
        status = {"conduits": [one | {"added": {"count": count}}]}
        found, missing = run_checks(Inputs(T0 * 10**9, status=status), ["broker.latency-budget"])
        assert [*(each.says for each in found), *(each.reason for each in missing)][0].startswith(wanted)


@pytest.mark.parametrize("name", ["vendor-helps", "orders-to-mes", "firmware", "pump-setpoint", "flow-totals"])
def test_whatever_changes_the_plant_has_to_expire(name: str) -> None:
    """People's sessions, messages and files change it as writes do: the check says what the lint says."""
    for_ever = msgspec.structs.replace(the_policy().conduits[name], expires=NEVER, expires_text="")
    changed: Any = SimpleNamespace(conduits={name: for_ever})
    [one], _ = run_checks(Inputs(T0 * 10**9, policy=changed), ["policy.expiry"])
    reads = name == "flow-totals"
    assert (one.outcome, f"{name} allows writes for ever" in one.facts) == (
        ("observed", False) if reads else ("failed", True)
    )


def test_files_that_one_conduit_scans_and_another_does_not() -> None:
    both = dict(the_policy(SCAN).conduits)
    other = both["vendor-helps"]
    assert isinstance(other.terms, JumpRows)
    lines = tuple(msgspec.structs.replace(line, do=("up",)) for line in other.terms.lines)
    files = msgspec.structs.replace(other.terms.files, scan=False)
    terms = msgspec.structs.replace(other.terms, lines=lines, files=files)
    both["vendor-helps"] = msgspec.structs.replace(other, terms=terms)
    log = read(entries(*((0, one) for one in (opened(**STAFF), SCANNED))))
    policy: Any = SimpleNamespace(conduits=both, hash=POLICY)
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=policy, history=log), ["files.scanned"])
    assert not found
    assert missing.reason.startswith("vendor-helps lets files through that nobody scans")


def test_files_that_went_before_a_conduit_had_them_scanned() -> None:
    log = read(entries(*((0, one) for one in (opened(**STAFF), passed()))))
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=the_policy(SCAN), history=log), ["files.scanned"])
    assert not found
    assert missing.reason == "no file has gone by a conduit that has files scanned under this policy yet"


def test_sessions_that_needed_no_approval_are_counted_apart() -> None:
    log = read(entries((0, decided()), (0, opened(request=3)), (0, opened(session="s9"))))
    [found], _ = run_checks(Inputs(T0 * 10**9, policy=the_policy(), history=log), ["access.approval"])
    assert found.says == "1 session had its approval; 1 more needed none by their rules"


def test_failures_without_a_pause_show_no_lock_out() -> None:
    log = entries((0, jump.SignInRefused(connection="c", user="u", source="s", reason="wrong code")))
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=the_policy(), history=read(log)), ["access.lockout"])
    assert not found
    assert missing.reason.startswith("1 failed sign-ins are on record, and nobody failed often enough")


def test_rules_and_logs_that_do_not_show_roles() -> None:
    """A right that a person has by name is no failure, and neither is a group that the log no longer knows of."""
    policy = the_policy(BY_NAME)
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=policy, history=read([])), ["access.roles"])
    assert not found
    assert missing.reason.startswith("staff-helps/0 gives a right to a person by name, as 1 of 2 rules do")
    policy = the_policy()
    cut = read([(index + 300, data) for index, data in entries((-1, HERS), policy=policy.hash)])
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=policy, history=cut), ["access.roles"])
    assert not found
    assert "begins with entry 300" in missing.reason
    # Rules of another policy may have other numbers.
    known = Inputs(T0 * 10**9, policy=policy, history=read(entries((-1, HERS))))
    [one], _ = run_checks(known, ["access.roles"])
    assert (one.outcome, "nobody has had a session" in one.says) == ("observed", True)


def test_passwords_of_which_the_log_no_longer_knows() -> None:
    cut = read([(index + 300, data) for index, data in entries((-30, PASSWORD), (-1, JOINED))])
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=the_policy(), history=cut), ["secret.strength"])
    assert not found
    assert "the log is kept for 29 days" in missing.reason


@pytest.mark.parametrize(("first", "last", "cut"), [(-500, 0, 300), (-500, 0, 0), (-20, 0, 0)])
def test_a_password_that_is_older_than_the_log(first: float, last: float, cut: int) -> None:
    """It is used, and no entry has set it: its entry has gone, or the log was begun anew."""
    by_it = signed(factors=("password", "code"))
    said: list[tuple[float, Draft]] = [(first, by_it), (last, by_it)]
    for more, good in (([], False), ([(0, PASSWORD)], True), ([(0, GONE)], True)):
        log = read([(index + cut, data) for index, data in entries(*said, *more)])
        found, missing = run_checks(Inputs(T0 * 10**9, policy=the_policy(), history=log), ["secret.strength"])
        if good:
            assert [one.outcome for one in found] == ["observed"]
        elif last - first < 456:
            assert not found
            assert "ada signs in by a password that was set before the log's 20 days" in missing[0].reason
        else:
            assert (found[0].outcome, found[0].says) == (
                "failed", "the password of ada is older than the 500 days of the log",
            )  # fmt: skip


def test_a_password_that_a_clock_ahead_has_set_has_no_age() -> None:
    log = read(entries((365, PASSWORD), (0, signed())))
    found, [missing] = run_checks(Inputs(T0 * 10**9, policy=the_policy(), history=log), ["secret.strength"])
    assert not found
    assert "set by a clock that was ahead (entry 0)" in missing.reason


def test_a_keeper_that_takes_what_it_should_not(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Inputs(T0 * 10**9, policy=the_policy(), history=read([]))
    with monkeypatch.context() as changed:
        changed.setattr(signin, "COMMON", frozenset())
        [found], _ = run_checks(known, ["secret.strength"])
        assert (found.outcome, found.says) == ("failed", "one that is tried first would be taken as a password")
    with monkeypatch.context() as changed:
        changed.setattr(signin, "PASSWORD_LEAST", 100)
        [found], _ = run_checks(known, ["secret.strength"])
        assert found.outcome == "failed" and "a good password would be refused" in found.says
    monkeypatch.setattr(signin, "hasher", lambda: argon2.PasswordHasher(1, 8, 1))
    [found], _ = run_checks(known, ["secret.strength"])
    assert (found.outcome, found.says) == ("failed", "passwords are kept by argon2 ID, 8 KiB, 1 passes")


# The maker of all these entries is "gate" and stands in no crew: the inner part beside it is "/inner".
KEEPER_DIED, KEEPER_BEGAN = HalfDied(half="gate", pid=1, status=-9, reason="killed"), HalfStarted(half="gate", pid=2)
DIED = HalfDied(half="/inner", pid=1, status=-9, reason="killed")
BEGAN, ELSEWHERE = HalfStarted(half="/inner", pid=2), HalfStarted(half="jump/other/inner", pid=3)
KILLS: list[tuple[str, list[tuple[float, Draft]], str]] = [
    ("access.window", [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (-2, DIED), (1, BEGAN)], "observed"),
    ("access.window", [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (1, BEGAN)], "observed"),
    ("access.window", [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (1, GateStarted(version="1"))],
     "observed"),
    ("access.window", [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (1, DIED)], "failed"),
    ("access.window", [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (1, ELSEWHERE)], "failed"),
    ("access.window", [(-2, BEGAN), (-2, decided(until_ns=SOON)), (-2, opened(request=3))], "failed"),
    ("access.window",
     [(-2, decided(until_ns=SOON)), (-2, opened(request=3)), (-2, KEEPER_DIED), (1, KEEPER_BEGAN)], "failed"),
    ("access.concurrency", [*MANY[:4], (0, DIED), *MANY[4:]], "observed"),
    ("access.concurrency", [*MANY[:4], (0, KEEPER_DIED), (0, KEEPER_BEGAN), *MANY[4:]], "failed"),
    ("access.concurrency", [*MANY[:4], (0, ELSEWHERE), *MANY[4:]], "failed"),
    ("access.kill", [(0, opened()), (0, KILLED), (0, DIED), (1, LATER)], "tested"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "said", "outcome"), KILLS)
def test_sessions_end_with_their_inner_part_and_not_with_their_keeper(
    check: str, said: list[tuple[float, Draft]], outcome: str
) -> None:
    """No entry says so: kill -9, a power failure. They had not gone on for ever, beyond their windows and beside all
    later ones."""
    policy = the_policy()
    known = Inputs((T0 + 86_400) * 10**9, policy=policy, history=read(entries(*said, policy=policy.hash)))
    [found], _ = run_checks(known, [check])
    assert found.outcome == outcome, found


def test_a_part_that_was_back_before_its_failure_was_written_down() -> None:
    """The check looked between the two: what ends its failure is that all parts run."""
    log = read(entries((0, DIED), (0, BEGAN), (0.001, done("recovery.known-state", "failed"))))
    for working, outcomes in ((True, ["tested"]), (False, [])):
        known = Inputs((T0 + 999) * 10**9, status={"pairs": [{"working": working}]}, history=log)
        found, _ = run_checks(known, ["recovery.known-state"])
        assert [one.outcome for one in found] == outcomes


def test_who_signs_in_again_and_again_fails_nobody_elses_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HAPPENINGS", 3)
    again = [(0.0, msgspec.structs.replace(signed("eve"), connection=f"e{number}")) for number in range(9)]
    log = read(entries((0, signed()), (0, opened()), *again))
    [found], _ = run_checks(Inputs(T0 * 10**9, history=log), ["access.mfa"])
    assert (found.outcome, len(log.signed)) == ("observed", 6)


def test_a_long_session_does_not_hide_that_others_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HAPPENINGS", 3)
    on = msgspec.structs.replace(MARKED, session="s2", recording="r2", ended=False)
    log = read(entries((0, opened(recorded=True)), (0, MARKED), (0, ENDED), *[(0.0, on)] * 9))
    [found], _ = run_checks(Inputs(T0 * 10**9, history=log), ["recording.complete"])
    assert found.outcome == "observed", found
    assert log.tallies["recording-marked"].count == 10


def test_files_that_are_brought_again_and_again_hide_none_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "HAPPENINGS", 3)
    junk = msgspec.structs.replace(EXAMINED, verdict="refused", sha256=B)
    log = read(entries((0, EXAMINED), *[(0.0, junk)] * 9, (0, STARTED), (0, EXAMINED)))
    [found], _ = run_checks(Inputs(T0 * 10**9, history=log), ["patch.source-verified"])
    assert (found.outcome, found.says) == ("tested", "1 file passed, 1 installation of such files")


def _others(event: Draft, **member: Any) -> list[tuple[float, Draft]]:
    """So many of somebody else's that the one in question is kept no more."""
    [(name, form)] = member.items()
    return [(0.5, msgspec.structs.replace(event, **{name: form(number)})) for number in range(9)]


GRANT = decided(decision="granted", until_ns=SOON)
SENT, _OTHER = msgspec.structs.replace(ENDED, sent=5), msgspec.structs.replace(MARKED, session="s2")
CROWDS: list[tuple[str, list[tuple[float, Draft]], str]] = [
    ("access.mfa", [(0, signed()), *_others(signed("eve"), connection=lambda n: f"e{n}"), (0.5, opened())], ""),
    ("access.mfa", [(0, signed()), *_others(signed("eve"), connection=lambda n: f"e{n}"), (2, opened())], "failed"),
    ("access.approval", [(0, GRANT), (0, opened(request=3)), *_others(GRANT, request=lambda n: 9 + n)], ""),
    ("access.approval", [*_others(GRANT, request=lambda n: 9 + n), (40, opened(request=3))], "failed"),
    ("access.window", [(0, GRANT), (0, opened(request=3)), (0, ENDED), *_others(ENDED, session=lambda n: f"e{n}")], ""),
    ("access.concurrency", [(0, opened()), (0, ENDED), *_others(ENDED, session=lambda n: f"e{n}")], ""),
    ("access.kill", [(0, opened()), (0, KILLED), (0, ENDED), *_others(ENDED, session=lambda n: f"e{n}"), (1, LATER)],
     ""),
    ("access.kill", [*_others(ENDED, session=lambda n: f"e{n}"), (0.5, opened()), (0.5, KILLED), (1, LATER)], "failed"),
    ("recording.complete", [(0, opened(recorded=True)), (0, MARKED), (0, SENT),
                            *_others(_OTHER, recording=lambda n: f"e{n}")], ""),
    ("patch.source-verified", [(0, EXAMINED), (0, STARTED), *_others(EXAMINED, sha256=lambda n: f"{n:064}")], "tested"),
    ("patch.source-verified", [(0, EXAMINED), *_others(EXAMINED, sha256=lambda n: f"{n:064}"), (0.5, STARTED)], ""),
    ("patch.approved", [(0, ASKED), (0, released("ada", "bob")), *_others(ASKED, number=lambda n: 9 + n)], ""),
    ("patch.on-schedule", [(0, STARTED), (0, INSTALLED), *_others(INSTALLED, asset=lambda n: f"e{n}"), (2, LATER)], ""),
    ("patch.on-schedule", [*_others(INSTALLED, asset=lambda n: f"e{n}"), (0.5, STARTED), (2, LATER)], "failed"),
    ("patch.answered", [(0, MATCHED), (0, OVERDUE), (0, EVALUATED), *_others(EVALUATED, advisory=lambda n: f"e{n}")],
     ""),
    ("patch.answered", [(0, MATCHED), *_others(EVALUATED, advisory=lambda n: f"e{n}"), (1, OVERDUE)], "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "said", "outcome"), CROWDS)
def test_who_makes_thousands_of_a_kind_fails_nobody_else(
    check: str, said: list[tuple[float, Draft]], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to a session is kept no more: nothing is known of it. What would have been kept is missed."""
    monkeypatch.setattr(history, "HAPPENINGS", 3)
    policy = the_policy()
    log = read(entries(*said, policy=policy.hash))
    known = Inputs(log.last_ns + 3 * 86_400 * 10**9, policy=policy, history=log)
    found, missing = run_checks(known, [check])
    assert [one.outcome for one in found] == ([outcome] if outcome else []), (found, missing)
    assert outcome or "there are so many entries that" in missing[0].reason


@pytest.mark.parametrize(("check", "what"), [("access.mfa", "sign-ins"), ("access.approval", "approvals")])
def test_what_the_log_no_longer_has_is_no_failure(check: str, what: str) -> None:
    """Its oldest entries went, to make room: a session is there, what it rested on is not."""
    for cut, outcomes in ((0, ["failed"]), (300, [])):
        log = read([(index + cut, data) for index, data in entries((0, opened(request=3)))])
        found, missing = run_checks(Inputs(T0 * 10**9, history=log), [check])
        assert [one.outcome for one in found] == outcomes
        assert [one.reason for one in missing] == [
            f"the log begins with entry 300, and does not have the {what} of 1 sessions"
        ] * (not outcomes)  # fmt: skip
    old = [(index + 300, data) for index, data in entries((-40, LATER), (0, opened(request=3)))]
    [one], _ = run_checks(Inputs(T0 * 10**9, history=read(old)), [check])
    assert one.outcome == "failed", "it would have been kept"


def test_who_is_told_apart_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that was taken over can write what it likes, and cost no more for it."""
    monkeypatch.setattr(history, "MAX_PEOPLE", 3)
    monkeypatch.setattr(history, "MAX_GROUPS", 2)
    many = read(entries(*((0, told("password", f"p{number}")) for number in range(9)),
                        *((0, told("group", f"p0 g{number}", "joined")) for number in range(9))))  # fmt: skip
    assert len(many.passwords) == 3
    assert {name: len(groups) for name, groups in many.members.items()} == {"p0": 2}
    assert sum("too many people" in one for one in many.problems) == 6
    assert sum("p0 is in too many groups" in one for one in many.problems) == 7
    monkeypatch.setattr(history, "MAX_MEMBERS", 3)
    said = [(p, g, "joined") for p in "abc" for g in "xy"] + [("a", "x", "left"), ("c", "z", "joined")]
    many = read(entries(*((0, told("group", f"{p} {g}", how)) for p, g, how in said)))
    assert ({p: set(groups) for p, groups in many.members.items()}, many.joined) == (
        {"a": {"y"}, "b": {"x"}, "c": {"z"}}, 3,
    )  # fmt: skip
    gone = told("person", "b", "removed")
    assert read(entries(*((0, told("group", f"{p} {g}", how)) for p, g, how in said), (0, gone))).joined == 2


def test_keys_that_say_nothing_of_hardware_are_no_failure() -> None:
    hard, soft = signed(factors=("security key", "its PIN or finger")), signed()
    known = Inputs(T0 * 10**9, history=read(entries((0, hard), (0, soft))))
    found, [missing] = run_checks(known, ["secret.hardware"])
    assert not found
    assert "1 of 2 sign-ins" in missing.reason


def test_parts_that_would_be_given_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The declarations of the code are what is looked at: changed, they are named."""
    crew = BROKERS["jump"].crew
    outer = msgspec.structs.replace(crew.parts["outer"], secrets=("password",))
    monkeypatch.setitem(crew.parts, "outer", outer)
    [found], _ = run_checks(Inputs(T0 * 10**9, policy=the_policy()), ["secret.asset-hidden"])
    assert found.outcome == "failed" and "outer" in found.says
    crew = BROKERS["mirror"].crew
    reader = next(name for name, one in crew.parts.items() if one.reads)
    given = msgspec.structs.replace(crew.parts[reader], can=Can.STORE, store=True)
    monkeypatch.setitem(crew.parts, reader, given)
    [found], _ = run_checks(Inputs(T0 * 10**9, policy=the_policy()), ["mirror.read-only"])
    assert found.outcome == "failed" and reader in found.says


def test_weak_algorithms_are_named() -> None:
    policy = the_policy()
    asset = next(one for one in policy.assets.values() if one.security is not None)
    assert asset.security is not None
    weak = msgspec.structs.replace(asset, security=msgspec.structs.replace(asset.security, asset="Basic128Rsa15"))
    known = Inputs(T0 * 10**9, policy=SimpleNamespace(
        conduits=policy.conduits, assets={asset.name: weak}, audit=policy.audit
    ))  # type: ignore[arg-type]  # fmt: skip
    for check in ("crypto.used", "opcua.secured"):
        [found], _ = run_checks(known, [check])
        assert found.outcome == "failed" and "Basic128Rsa15" in found.says


def test_what_is_left_out_has_its_reason() -> None:
    """Each check is a function, tried by the self-test, a person's by nature, or says why nothing looks at it."""
    known = catalogue().checks
    rest = {name for name, one in known.items() if name not in CHECKS and name not in SELF_TESTED}
    assert {name for name in rest if known[name].best != "attested"} == set(LEFT)
    states = standing(catalogue(), read([]), (), wall_ns=T0 * 10**9).checks
    assert all(states[name].says == why and states[name].status == "not covered" for name, why in LEFT.items())


def test_values_are_checked_as_those_ask_who_may() -> None:
    """Some principals are a user with a password, or an application with a key, and not an address alone."""
    policy = the_policy()
    [found], missing = run_checks(Inputs(T0 * 10**9, policy=policy), ["policy.values-checked"])
    assert not missing
    assert found.outcome == "tested", found
    assert any(fact.startswith("filler-1 filler_speed") for fact in found.facts), found.facts


def test_what_is_passed_over_of_pushed_messages_is_said() -> None:
    policy = the_policy()
    log = entries((0, pushed(0)), (0, pushed(2, 2, 2)), (0, REOPENED), (0, pushed(2, 1, 2)), policy=policy.hash)
    [found], _ = run_checks(Inputs(T0 * 10**9, policy=policy, history=read(log)), ["relay.exactly-once"])
    assert found.outcome == "observed"
    assert "1 entry passed over" in found.says
    [said] = [fact for fact in found.facts if "passed over: entry" in fact]
    assert "orders 2 to 3, which the store lacked when it was opened" in said
