"""Writes whose part ends without a word about them: the log says that nobody knows what became of them, once."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from cofferdam.audit.events.access import WriteOutcome
from cofferdam.audit.files import LogReader
from cofferdam.audit.log import AuditLog
from cofferdam.audit.open_writes import TAIL
from cofferdam.audit.service import Auditor
from tests.audit.conftest import Opener, write
from tests.audit.test_service import events, introduced


def outcome(number: int) -> WriteOutcome:
    return WriteOutcome(session="outer-3:17", write=f"w{number}", asset="plc-7", outcome="done")


def closed(log: AuditLog) -> list[tuple[str, Any, Any]]:
    return [(who, event["write"], event["outcome"]) for who, event in events(log) if event["kind"] == "write-outcome"]


def say(auditor: Auditor, producer: str, *drafts: Any) -> None:
    auditor.submit(producer, 1, drafts)
    assert all(result.ok for result in auditor.commit())


def test_a_part_that_dies_leaves_no_write_without_an_end(opener: Opener) -> None:
    log = opener()
    auditor = introduced(log, "inner", "other")
    say(auditor, "inner", write(1), write(2), write(3), outcome(2))
    say(auditor, "other", msgspec.structs.replace(write(4), write="w4"))
    auditor.ended("inner")
    auditor.ended("inner")
    auditor.tick()
    auditor.tick()
    assert closed(log) == [
        ("inner", "w2", "done"), ("auditor", "w1", "unknown"), ("auditor", "w3", "unknown"),
    ]  # fmt: skip
    auditor.close()
    assert closed(log)[-1] == ("auditor", "w4", "unknown")


def test_after_a_kill_of_all_the_next_start_closes_what_was_open_and_only_that(opener: Opener) -> None:
    log = opener()
    auditor = introduced(log, "inner", "alive")
    say(auditor, "inner", write(1), write(2), outcome(1))
    say(auditor, "alive", write(5))
    log.abandon()  # kill -9
    os.close(log._lock)
    for life in range(2):
        log = opener()
        again = introduced(log, "alive")
        last = (entry for _, entry in LogReader(log.folder, log.key.verifier).entries(max(0, log.size - TAIL)))
        again.open_writes.load(last, {"alive"} if not life else set(), 0)
        again.tick()
        if not life:
            assert closed(log) == [("inner", "w1", "done"), ("auditor", "w2", "unknown")]
            say(again, "alive", outcome(5))
        again.close()
    assert closed(log) == [("inner", "w1", "done"), ("auditor", "w2", "unknown"), ("alive", "w5", "done")]


def test_no_part_closes_what_another_has_open(opener: Opener) -> None:
    """One that was taken over guesses how others' writes are called: these are none of its own."""
    log = opener()
    auditor = introduced(log, "inner", "owned")
    say(auditor, "inner", write(1), write(2))
    say(auditor, "owned", outcome(1), write(2), outcome(2))
    log.abandon()  # kill -9
    os.close(log._lock)
    log = opener()
    again = introduced(log, "inner")
    again.open_writes.load((entry for _, entry in LogReader(log.folder, log.key.verifier).entries(0)), set(), 0)
    again.tick()
    assert [one for one in closed(log) if one[0] == "auditor"] == [
        ("auditor", "w1", "unknown"), ("auditor", "w2", "unknown"),
    ]  # fmt: skip
    again.close()
