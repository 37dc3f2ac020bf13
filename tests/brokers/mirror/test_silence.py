"""A historian that lets one in and then says nothing: an alarm names it in bounded time, it is dialled again, nothing
of it is lost, and no other source waits for it. The collector is the real one, in this process, and so is the historian
behind the peers that are silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.mirror import SourceTold
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit import postgres as kit
from cofferdam.brokers.kit.http.keys import Secrets, write_secrets
from cofferdam.brokers.mirror import collector, postgres, records
from cofferdam.brokers.mirror.collector import Collector
from cofferdam.brokers.mirror.columns import HOUR_NS, Sample, pack, stored, summary, to_batch
from cofferdam.brokers.mirror.postgres import Historian
from cofferdam.brokers.mirror.records import Begin, Count, Counted, Fetch, Lane, Samples, Stored
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.terms.mirror_rows import Postgres as Source
from tests.brokers.mirror.between import HEAD, between, data
from tests.brokers.mirror.crew import PASSWORD, POLICY, Plant, historian
from tests.brokers.mirror.pairing import Log, Queue
from tests.services import Postgres, needs_postgres
from tests.waiting import PATIENT

pytestmark = [pytest.mark.heavy, needs_postgres]
SOURCE = """{name}: {{at: "127.0.0.1:{port}", database: {database}, role: mirror, plain: true, table: samples,
                  every: 200 ms, quality: quality, password: historian, since: 1 days}}"""


def void(_: object) -> None:
    """A task that the group holds."""


class Collecting:
    """A collector, and a spooler that keeps all it is handed."""

    def __init__(self, group: asyncio.TaskGroup, plant: Plant, *, source: str = "", **sources: int) -> None:
        more = [SOURCE.format(name=name, port=port, database=plant.database) for name, port in sources.items()]
        text = POLICY.format(
            historian=plant.made.port, port=8443, database=plant.database, assets="", source=source, mirror="",
            more="\n      ".join(more),
        )  # fmt: skip
        policy = compile_policy(loads(text), now_ns=time.time_ns())
        self.log, self.spool = Log(), Queue(records.from_source())
        self.rows: dict[str, set[float]] = {"historian": set(), **{name: set() for name in sources}}
        self.again: set[float] = set()
        """What was read again."""
        self.answers: list[Counted] = []
        self.part = Collector(Setting(
            crew="mirror", part="collector", broker="mirror", boot="t", again=False,
            policy=policy, severed=frozenset(), assets=("history",), zones=(("office",), "plant"),
            reactor=cast(Any, None), audit=cast(AuditClient, self.log), senders={"spooler": self.spool},
            dial=cast(Any, None), start=lambda work: void(group.create_task(work)),
            secrets={"mirror": write_secrets(Secrets(passwords={"historian": PASSWORD}))},
        ))  # fmt: skip
        self.part.on_record("spooler", Begin({}))

    async def until(self, seen: Callable[[], bool]) -> None:
        """Takes what is handed over until something is seen."""
        deadline = time.monotonic() + PATIENT
        while not seen():
            assert time.monotonic() < deadline, (self.told(), self.rows)
            while self.spool.waiting:
                record = self.spool.waiting.popleft()
                if isinstance(record, Samples):
                    values = struct.unpack(f"<{record.count}d", record.value)
                    self.rows[record.source].update(values)
                    self.again |= set(values) if record.lane == "backfill" else set()
                elif isinstance(record, Counted):
                    self.answers.append(record)
            self.part.on_record("spooler", Stored(self.part._sent))
            await asyncio.sleep(0.01)

    def told(self) -> list[tuple[str, str, str]]:
        return [(one.source, one.state, one.detail) for one in self.log.told if isinstance(one, SourceTold)]

    def close(self) -> None:
        self.part.stop()


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


@pytest.fixture
def plant(made: Postgres) -> Iterator[Plant]:
    found = Plant(made)
    found.add([("flow_a", time.time() - 9 + second, float(second), 192) for second in range(5)])
    yield found
    found.conn.close()


def add(plant: Plant, value: float) -> None:
    plant.add([("flow_a", time.time(), value, 192)])


def test_one_that_accepts_and_says_nothing(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "CONNECT_SECONDS", 2)

    async def work() -> None:
        held: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)

            def dialled(count: int) -> bool:
                with contextlib.suppress(BlockingIOError):
                    held.append(silent.accept()[0])
                return len(held) >= count

            async with asyncio.TaskGroup() as group:
                found = Collecting(group, plant, quiet=silent.getsockname()[1])
                for number in range(3):  # it is dialled again, and the other source is read all the while
                    await found.until(lambda number=number: dialled(number + 1))  # type: ignore[misc]
                    add(plant, 100.0 + number)
                    await found.until(lambda number=number: 100.0 + number in found.rows["historian"])  # type: ignore[misc]
                await found.until(lambda: "mirror-quiet" in found.part.alarms())
                assert found.part.alarms()["mirror-quiet"].startswith("quiet: ")
                assert "mirror-historian" not in found.part.alarms()
                found.close()
        for conn in held:
            conn.close()

    asyncio.run(work())


def test_a_database_that_stands_still_is_left(made: Postgres, plant: Plant) -> None:
    """Whatever it was asked, and by whichever broker: the connection is over, and another one works."""
    place = Source(name="h", address="127.0.0.1", port=made.port, database=plant.database, role="mirror",
                   password="historian", plain=True)  # fmt: skip

    async def work() -> None:
        conn = await kit.dial(place, PASSWORD, silent=2.0, name="test")
        backend = conn.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="it has not answered within 2 s"):
                await conn.execute("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)
        await conn.close()
        conn = await kit.dial(place, PASSWORD, silent=PATIENT, name="test")
        assert await (await conn.execute("SELECT 1")).fetchall() == [(1,)]
        await conn.close()

    asyncio.run(work())


def test_one_that_stops_in_mid_reading(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost by it, and what is being read again just then is not forgotten."""
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 3.0)
    first = {0.0, 1.0, 2.0, 3.0, 4.0}

    async def work() -> None:
        with between(plant.made.port) as there:
            async with asyncio.TaskGroup() as group:
                found = Collecting(group, plant, stops=there.port)
                await found.until(lambda: found.rows["stops"] == first)
                for number in range(2):  # first what is new, and then what is read again behind it
                    there.goes_on.clear()
                    there.say, there.skip = [(data(HEAD + b"\0\6"), 1)], number
                    if number:
                        now = time.time_ns()
                        found.part.on_record("spooler", Fetch("stops", now - 3600 * 10**9, now))
                    await found.until(lambda number=number: there.said > number)  # type: ignore[misc]
                    add(plant, 100.0 + number)
                    await found.until(lambda number=number: 100.0 + number in found.rows["historian"])  # type: ignore[misc]
                    seen = len(found.told())
                    await found.until(lambda seen=seen: len(found.told()) > seen)  # type: ignore[misc]
                    assert found.told()[-1] == ("stops", "away", "it has not answered within 3 s")
                    assert found.part.alarms()["mirror-stops"] == "stops: it has not answered within 3 s"
                await found.until(lambda: found.rows["stops"] == first | {100.0, 101.0} and first <= found.again)
                await found.until(lambda: "mirror-stops" not in found.part.alarms())
                there.goes_on.set()
                found.close()

    asyncio.run(work())


def test_what_is_live_is_read_between_two_steps_of_what_is_asked_for(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to read a time again, or to compare all of its values."""
    minutes, minute = 60, 60 * 10**9
    monkeypatch.setattr(collector, "STEP_MOST_NS", minute)
    begin = time.time_ns() // HOUR_NS - 30
    old: list[tuple[str, float, float | None, int]] = [
        ("flow_a", begin * 3600 + 60 * number + 1, 1000.0 + number, 192) for number in range(minutes)
    ]
    plant.add(old)
    lanes: list[str] = []
    read = Historian.read

    async def spied(self: Historian, since: int, until: int, lane: Lane, *rest: Any) -> AsyncIterator[Samples]:
        lanes.append(lane)
        async for record in read(self, since, until, lane, *rest):
            yield record

    monkeypatch.setattr(Historian, "read", spied)

    async def work() -> list[Counted]:
        async with asyncio.TaskGroup() as group:
            found = Collecting(group, plant, source="rows_per_second: 20")  # a row a step: none is below 0.05 s
            found.part._work["historian"].step = minute
            await found.until(lambda: bool(found.rows["historian"]))
            found.part.on_record("spooler", Count(1, "historian", begin, values=True))
            found.part.on_record("spooler", Fetch("historian", begin * HOUR_NS, begin * HOUR_NS + minutes * minute))
            await found.until(lambda: found.again == {row[2] for row in old} and bool(found.answers))
            found.close()
        return found.answers

    answers = asyncio.run(work())
    steps = "".join(lane[0] for lane in lanes)
    assert steps.count("b") == 2 * minutes and "b" * 7 not in steps  # every 200 ms there is a live one
    assert (answers[0].request, answers[0].hour, answers[0].counts) == (1, begin, (minutes,))
    pieces = [to_batch(pack("live", "historian", [Sample(tag, int(at) * 10**9, value or 0.0, quality)]))
              for tag, at, value, quality in old]  # fmt: skip
    whole = summary(stored([(1, piece) for piece in pieces]))
    assert answers[0].digests == (whole["flow_a"].digest,) and not answers[0].failed


def test_what_is_read_again_ends_where_it_ended_when_it_was_asked_for(plant: Plant) -> None:
    """An hour that is not over yet, say: what comes meanwhile is live, and not read after the clock for ever."""
    begin = time.time_ns() // HOUR_NS
    plant.add([("flow_a", time.time() - 1, 7.0, 192)])

    async def work() -> list[Counted]:
        async with asyncio.TaskGroup() as group:
            found = Collecting(group, plant)
            await found.until(lambda: bool(found.rows["historian"]))
            found.part.on_record("spooler", Fetch("historian", begin * HOUR_NS, (begin + 1000) * HOUR_NS))
            found.part.on_record("spooler", Count(1, "historian", begin - 1, values=True))
            await found.until(lambda: bool(found.answers))
            found.close()
        return found.answers

    assert asyncio.run(work())[0].request == 1


def test_who_waits_for_a_count_hears_that_the_source_is_read_and_when_it_is_away(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "GOING_SECONDS", 0.0)
    monkeypatch.setattr(collector, "STEP_MOST_NS", HOUR_NS)
    monkeypatch.setattr(postgres, "SILENT_SECONDS", 3.0)
    begin = time.time_ns() // HOUR_NS - 24
    plant.add([("flow_a", (begin + hour) * 3600 + 1, 1000.0 + hour, 192) for hour in range(20)])

    async def work() -> list[Counted]:
        with between(plant.made.port) as there:
            async with asyncio.TaskGroup() as group:
                found = Collecting(group, plant, stops=there.port)
                await found.until(lambda: bool(found.rows["stops"]))
                found.part._work["stops"].step = HOUR_NS
                found.part.on_record("spooler", Count(1, "stops", begin, values=True, hours=20))
                await found.until(lambda: any(not one.state for one in found.answers))
                there.goes_on.clear()
                there.say = [(data(HEAD + b"\0\6"), 1)]
                await found.until(lambda: there.said > 0)
                found.part.on_record("spooler", Count(2, "stops", begin))
                await found.until(lambda: any(one.request == 2 for one in found.answers))
                there.goes_on.set()
                found.close()
        return found.answers

    answers = asyncio.run(work())
    states = [one.state for one in answers if one.request == 1]
    assert states.count("going") >= 20 and states[-1] == "" and answers[len(states) - 1].counts == (20,)
    assert [(one.state, one.failed) for one in answers if one.request == 2] == [
        ("away", "it has not answered within 3 s")
    ]
