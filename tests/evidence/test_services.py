"""Checks over what services wrote: each is made to hold, and to fail, by the events of their own rooms."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.events import jump, mirror, patch
from cofferdam.evidence.checks.tables import run_checks
from cofferdam.evidence.history import read
from cofferdam.evidence.inputs import Inputs
from cofferdam.lab import layout, play, plays
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from tests.evidence.test_standing import T0, entries

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
        "request": 3, "decision": "approved", "by": "bob", "how": "gate", "person": "ada", "asset": "plc",
        "people": ("bob",),
    }  # fmt: skip
    return jump.AccessDecided(**(said | changes))


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
    ("recording.complete", [(0, opened(recorded=True)), (0, MARKED), (0, ENDED)],
     [(0, opened(recorded=True)), (0, ENDED)]),
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


def test_values_are_checked_as_those_ask_who_may() -> None:
    """Some principals are a user with a password, or an application with a key, and not an address alone."""
    stage = plays.plays()
    text, files = play.policy(stage, layout.shipped(plays.spots(stage)))
    with tempfile.TemporaryDirectory() as name:
        for path, content in (files | {"policy.yaml": text}).items():
            (Path(name) / path).write_text(content)
        policy = compile_policy(load(Path(name) / "policy.yaml"), now_ns=T0 * 10**9)
    [found], missing = run_checks(Inputs(T0 * 10**9, policy=policy), ["policy.values-checked"])
    assert not missing
    assert found.outcome == "tested", found
    assert any(fact.startswith("filler-1 filler_speed") for fact in found.facts), found.facts
