"""The auditor's core: one wait for the disk for many producers, and no acknowledgement without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.entry import DRAFTS, KINDS, LOG_OWN, MAX_BATCH_DRAFTS, Draft
from cofferdam.audit.events.access import LimitHit, SessionOpened, WriteAllowed, WriteOutcome, Written
from cofferdam.audit.events.gate import Alarm, GateStopped, HalfDied, PolicyLoaded, Restored, Severed
from cofferdam.audit.events.log import ClockJump
from cofferdam.audit.files import LogReader
from cofferdam.audit.log import AuditLog
from cofferdam.audit.service import ALARM, MAX_QUEUED, Auditor, Result
from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.crews import GATE
from cofferdam.errors import AuditError
from tests.audit.conftest import Clock, Opener, write


def introduced(log: AuditLog, *names: str, **options: Any) -> Auditor:
    """An auditor to whom these may say whatever a producer may."""
    auditor = Auditor(log, **options)
    for name in names:
        auditor.introduce(name, [kind for kind, draft in zip(KINDS, DRAFTS, strict=True) if draft not in LOG_OWN])
    return auditor


def events(log: AuditLog) -> list[tuple[str, dict[str, object]]]:
    entries = [json.loads(data) for _, data in LogReader(log.folder, log.key.verifier).entries()]
    return [(entry["maker"], entry["event"]) for entry in entries]


def test_batches_of_several_producers_share_a_commit(opener: Opener) -> None:
    log = opener()
    auditor = introduced(log, "gate", "inner")
    commits = log.commits.count
    auditor.submit("gate", 1, [GateStopped(reason="a")])
    auditor.submit("inner", 1, [write(1), write(2)], "ab" * 32)
    auditor.submit("inner", 2, [write(3)], "ab" * 32)
    assert auditor.status().queued == 4
    assert auditor.commit() == [Result("gate", 1, True, ""), Result("inner", 1, True, ""), Result("inner", 2, True, "")]
    assert log.commits.count == commits + 1
    assert [maker for maker, _ in events(log)] == ["auditor", "gate", "inner", "inner", "inner"]
    assert auditor.commit() == []
    assert log.commits.count == commits + 1
    auditor.close()


def test_one_bad_batch_does_not_take_others_with_it(opener: Opener) -> None:
    auditor = introduced(opener(), "one", "two", "three")
    huge = WriteAllowed(
        session="s", write="w", principals=(), source="a", asset="p", conduit="c", rule="r", function=16,
        writes=tuple(Written("holding", 0, (65535,) * 2048) for _ in range(64)),
    )  # fmt: skip
    auditor.submit("one", 1, [write()])
    auditor.submit("two", 1, [write(), huge])
    auditor.submit("three", 1, [ClockJump(jump_ns="0", clock="never")])
    results = {result.producer: result for result in auditor.commit()}
    assert results["one"].ok
    assert not results["two"].ok and "too large" in results["two"].reason
    assert not results["three"].ok and "for the log itself" in results["three"].reason
    assert auditor.status().refused == {"two": 2, "three": 1}
    assert auditor.writable and auditor.status().entries == 2
    auditor.close()


def test_a_half_can_not_speak_for_the_gate_nor_an_outer_half_for_an_inner_one(opener: Opener) -> None:
    """A half that was taken over must not be able to write "the side was restored" into the log."""
    auditor = Auditor(opener())
    for part, profile in CREWS["modbus"].parts.items():
        auditor.introduce(f"modbus/it-ot/{part}", profile.says)
    auditor.introduce("gate", GATE.says)
    forged: list[Draft] = [
        Restored(side="ot", by="root"),
        Severed(side="ot", by="root"),
        PolicyLoaded(policy="a" * 64),
        HalfDied(half="x", pid=1, status=0),
        Alarm(name="x", detail="y"),
    ]
    outcome = WriteOutcome(session="s", write="w", asset="a", outcome="done")
    for number, draft in enumerate(forged):
        for role in ("outer", "inner"):
            auditor.submit(f"modbus/it-ot/{role}", number, [draft])
    for number, draft in enumerate((write(), outcome)):
        auditor.submit("modbus/it-ot/outer", 100 + number, [draft])
    results = auditor.commit()
    assert len(results) == 2 * len(forged) + 2
    assert not [result for result in results if result.ok or "is for others to say" not in result.reason]
    hit = LimitHit(limit="x", source="", detail="")
    opened = SessionOpened(session="s", half="h", source="a", source_port=1, asset="p")
    auditor.submit("modbus/it-ot/inner", 200, [write(), outcome, hit])
    auditor.submit("modbus/it-ot/outer", 201, [hit, opened])
    auditor.submit("gate", 202, forged)
    assert all(result.ok for result in auditor.commit())
    auditor.close()


def test_who_was_not_introduced_says_nothing_and_nobody_speaks_for_the_log(opener: Opener) -> None:
    auditor = introduced(opener(), "known")
    auditor.submit("unknown", 1, [GateStopped(reason="x")])
    (result,) = auditor.commit()
    assert not result.ok and "is for others to say" in result.reason
    for kind in ("clock-jump", "no-such-kind"):
        with pytest.raises(AuditError, match="which no producer tells of"):
            auditor.introduce("known", [kind])
    auditor.introduce("known", ["gate-stopped"])  # its successor may say less
    auditor.submit("known", 1, [GateStopped(reason="x")])
    auditor.submit("known", 2, [Alarm(name="x", detail="y")])
    assert {result.batch: result.ok for result in auditor.commit()} == {1: True, 2: False}
    auditor.close()


def test_a_flood_is_bounded(opener: Opener) -> None:
    auditor = introduced(opener(), "flood")
    batch: list[Draft] = [GateStopped(reason="x")] * MAX_BATCH_DRAFTS
    for number in range(MAX_QUEUED // MAX_BATCH_DRAFTS + 2):
        auditor.submit("flood", number, batch)
    results = auditor.commit()
    assert [result.ok for result in results].count(False) == 2
    assert auditor.status().entries == MAX_QUEUED + 1
    auditor.close()


def test_an_unwritable_log_refuses_and_says_so_when_it_is_over(opener: Opener, tmp_path: Path, clock: Clock) -> None:
    log = opener()
    auditor = introduced(log, "inner", wall_ns=lambda: clock.wall)
    auditor.submit("inner", 1, [write(1)])
    assert auditor.commit()[0].ok
    blocker = tmp_path / "audit/checkpoint.new"
    blocker.mkdir()
    clock.move(10**10)
    auditor.tick()
    assert auditor.status().writable is False and "checkpoint" in auditor.reason
    auditor.submit("inner", 2, [write(2), write(3)])
    (refused,) = auditor.commit()
    assert not refused.ok and "checkpoint" in refused.reason
    status = auditor.status()
    assert (status.writable, status.outages, status.refused) == (False, 1, {"inner": 2})
    blocker.rmdir()
    auditor.tick()
    assert auditor.writable
    auditor.submit("inner", 3, [write(4)])
    assert auditor.commit() == [Result("inner", 3, True, "")]
    found = [event for _, event in events(log)]
    assert [event["kind"] for event in found] == ["log-opened", "write-allowed", "alarm", "write-allowed"]
    assert (found[2]["name"], found[2]["cleared"]) == (ALARM, True)
    assert "2 entries were refused" in str(found[2]["detail"])
    assert found[3]["write"] == "w4"
    auditor.close()


def test_it_recovers_with_the_first_batch_too(opener: Opener, tmp_path: Path, clock: Clock) -> None:
    auditor = introduced(opener(), "inner")
    auditor.submit("inner", 1, [write(1)])
    auditor.commit()
    blocker = tmp_path / "audit/checkpoint.new"
    blocker.mkdir()
    clock.move(10**10)
    auditor.tick()
    blocker.rmdir()
    auditor.submit("inner", 2, [write(2)])
    assert auditor.commit() == [Result("inner", 2, True, "")]
    assert auditor.writable and auditor.status().outages == 1
    auditor.close()
