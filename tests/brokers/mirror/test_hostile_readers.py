"""What readers write that is not meant well: it neither holds up others nor shows more than they may read."""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import resource
import signal
import threading
from pathlib import Path
from types import FrameType

import pytest

from cofferdam.audit.events.http import RequestRefused
from cofferdam.brokers.kit.http.keys import Known
from cofferdam.brokers.kit.threads import Threads
from cofferdam.brokers.mirror import sql
from cofferdam.brokers.mirror.api import Api
from cofferdam.brokers.mirror.query import Reading, TooMuch
from cofferdam.policy.terms.mirror_rows import Matcher
from tests.brokers.mirror.crew import crew
from tests.waiting import PATIENT, comes_true, eventually


def test_a_pattern_of_many_stars_is_looked_at_once() -> None:
    """A search that tries all places would not end in years, and nothing else runs in the process meanwhile."""

    def late(_: int, __: FrameType | None) -> None:
        raise AssertionError("a pattern is tried at all places")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(PATIENT))
    try:
        for pattern in ("*" * 64 + "z", "*e" * 60 + "z", "*e*a" * 30 + "*z"):
            assert not Matcher([pattern])("line_1.heater_a.temperature" * 7)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_star_is_anything() -> None:
    for pattern in map("".join, itertools.product("ab*", repeat=5)):
        match = Matcher([pattern])
        for name in ("", "a", "ab", "aab", "abab", "bbaab", "a\nb", "abbabab"):
            assert match(name) == fnmatch.fnmatchcase(name, pattern), (pattern, name)


def test_a_statement_that_cannot_be_interrupted_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database looks between pieces of rows, and what has no column in it is reckoned before there are any. The
    reader ends then, and is born again."""
    monkeypatch.setattr(sql, "SECONDS", 0.1)
    monkeypatch.setattr(sql, "STUCK_SECONDS", 0.1)
    reading = Reading(tmp_path)
    asked = sql.Sql(reading)
    text = ", ".join(f"damerau_levenshtein(repeat('a', 2000), repeat('b', 2000) || {n})" for n in range(25))
    refused: list[BaseException] = []

    def run() -> None:
        try:
            asked.run("lake", reading.view(), f"SELECT {text}", 1)
        except (TooMuch, sql.Refused) as error:
            refused.append(error)

    assert asked.stuck() == ""
    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: asked.stuck() == "lake")
    thread.join()
    assert asked.stuck() == "" and isinstance(refused[0], TooMuch)


def test_a_reader_whose_memory_is_used_up_ends(tmp_path: Path) -> None:
    """The database's allocator keeps the addresses that a large statement had. Threads that are to be made then end
    before they begin, and who made them waits for them for good."""
    with crew(tmp_path, None) as running:
        with running.client("lake") as lake:
            assert lake.post("/v1/sql", content="SELECT 1").status_code == 200
        process = running.children["reader"].process
        assert process is not None
        has = next(int(line.split()[1]) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                   if line.startswith("VmData"))  # fmt: skip
        resource.prlimit(process.pid, resource.RLIMIT_DATA, ((has << 10) + (8 << 20), resource.RLIM_INFINITY))
        why = "statements have used up the reader's memory: another one begins"
        code, said = running.children["reader"].ended()
        assert code and said == why
        eventually(lambda: [one.detail for one in running.auditor.of(RequestRefused)] == [why])


def test_of_sql_two_statements_are_run_at_a_time(tmp_path: Path) -> None:
    """More share the database's memory than it has. Who waits holds no thread that others could have."""

    async def ask(api: Api, who: str) -> str:
        try:
            await api._statement(Known(who, "key"), sql.Asked("SELECT count(*) FROM range(1000000000000)"))
        except TooMuch:
            return who
        return ""

    async def go() -> None:
        threads = Threads(asyncio.get_running_loop(), 3)
        api = Api(Reading(tmp_path), threads, lambda *_: None, lambda *_: None)
        running = api._sql._clock._running
        ended = []
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(api, f"reader{number}")) for number in range(5)]
            for left in range(5, 0, -1):
                await comes_true(lambda left=left: len(running) == min(2, left))  # type: ignore[misc]
                for _ in range(3):  # through the one thread that is left
                    assert await api._run("another", lambda: 7) == 7
                assert len(running) == min(2, left)
                ended.append(running[0].who)
                running[0].until = 0.0
                await comes_true(lambda left=left: sum(one.done() for one in asked) == 6 - left)  # type: ignore[misc]
        assert sorted(ended) == sorted(one.result() for one in asked) == [f"reader{number}" for number in range(5)]
        threads.close()

    asyncio.run(go())
