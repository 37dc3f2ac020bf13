"""What was written in the last minute counts, whoever counts it: a limit outlives a process, its name and the gate."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cofferdam.audit.events.access import PointValue, WriteAllowed, Written
from cofferdam.audit.process import RECENT_THINGS
from cofferdam.audit.recent import KEPT, KEPT_THINGS, SPAN_NS, RecentWrites, things_of
from cofferdam.audit.supervision import PastWrite, Recent
from cofferdam.crossing.link import RECORD_BYTES
from cofferdam.gate import client
from cofferdam.gate.past_writes import MOST, PastWrites
from cofferdam.model import Asset
from tests.gate.conftest import Site
from tests.gate.plant import WRITE_MANY, Client, Gate, cli, running
from tests.waiting import eventually, kill

TURN, HELD = 300, (42 << 16) + 42
"""A point with a ramp limit, and what the device says that it holds, whatever was written."""


class Paced(Site):
    def text(self, **changes: str) -> str:
        text = super().text(allow="write: [speed, turn]", **changes)
        turn = f'      turn: {{at: holding {TURN}, type: uint32, unit: rpm, max_rate: "10 rpm/min"}}\nprincipals:'
        return text.replace("type: uint32}", "type: uint32, writes_per_minute: 3}").replace("principals:", turn)


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[Paced]:
    made = Paced(tmp_path)
    yield made
    made.device.close()


def write(number: int = 0) -> WriteAllowed:
    return WriteAllowed(
        session="s", write=f"w{number}", principals=(), source="", asset="plc", conduit="c", rule="r", function=6,
        writes=(Written("holding", 1, (number,)),),
    )  # fmt: skip


def born(gate: Gate, before: dict[str, int]) -> None:
    """Until both halves are others than before."""
    old = {before["inner"], before["outer"]}
    eventually(lambda: {"inner", "outer"} <= (now := gate.pids()).keys() and not old & set(now.values()))
    gate.wait_ready()


class Minute:
    """What was let through, and when: asked before it, and answered after it. A busy machine may need longer for all of
    it than the minute that is counted, and then more may go through: never more in any one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writes: list[tuple[float, float]] = []
        self.moves: list[tuple[float, float, int]] = []

    def allowed(self, tries: int = 4) -> int:
        """How many of so many writes go through, three a minute at most."""
        before = len(self.writes)
        with Client(self.port) as user:
            for number in range(tries):
                asked = time.monotonic()
                if user.write(number):
                    self.writes.append((asked, time.monotonic()))
        for (first, _), (_, last) in zip(self.writes, self.writes[3:], strict=False):
            assert last - first > 59, "a fourth write within the minute"
        return len(self.writes) - before

    def turns(self, by: int) -> bool:
        """Whether the point with the ramp limit may be moved by so much: by 10 within a minute at most."""
        asked = time.monotonic()
        with Client(self.port) as user:
            done = user.ask(struct.pack(">BHHBI", WRITE_MANY, TURN, 2, 4, HELD + by))[0] == WRITE_MANY
        if done:
            self.moves.append((asked, time.monotonic(), by))
        for (first, _, one), (_, last, other) in itertools.combinations(self.moves, 2):
            assert abs(one - other) <= 10 or last - first > 59, "a move of more within the minute"
        return done


def test_neither_a_death_nor_a_reload_nor_severing_gives_more_writes_a_minute(paced: Paced) -> None:
    """M1, and how fast a value may move: +10 was written, so that -5 would be a move of 15 within the minute."""
    minute = Minute(paced.port)
    with running(paced.state, paced.policy) as gate:
        assert minute.turns(10)
        minute.turns(-5)
        assert minute.allowed(2) == 2
        before = gate.pids()
        kill(before["inner"])
        born(gate, before)
        assert minute.allowed() >= 1
        assert minute.turns(-5) or minute.turns(9), "what is allowed is not refused for want of a memory"
        before = gate.pids()
        assert cli("sever", "it", "--state", paced.state)[0] == cli("restore", "it", "--state", paced.state)[0] == 0
        born(gate, before)
        minute.allowed()
        # Another zone has a conduit to the same device: the crew gets another name, and is another one.
        text = paced.text().replace("zones:\n", "zones:\n  office: {side: it}\n").replace(
            "principals:\n", "principals:\n  pc: {zone: office, addresses: [10.9.9.9]}\n"
        )  # fmt: skip
        text += (
            "  more: {from: office, to: control, broker: modbus, owner: o, reason: r, "
            "allow: [{who: pc, asset: plc, read: [level]}]}\n"
        )
        head, _, tail = text.partition("gate:")
        extra = tail.splitlines()
        paced.policy.write_text(head + "\n".join(extra[2:]) + "\ngate:\n" + extra[1] + "\n")
        client.ask(paced.state, "reload", path=str(paced.policy))
        gate.wait_ready()
        minute.allowed()
        minute.turns(-5)
        # Device and points get other names, and then the half dies of it.
        text = paced.policy.read_text()
        paced.policy.write_text(text.replace("plc", "press").replace("speed", "tempo").replace("turn", "reel"))
        client.ask(paced.state, "reload", path=str(paced.policy))
        gate.wait_ready()
        minute.allowed()
        minute.turns(-5)
        before = gate.pids()
        kill(before["inner"])
        born(gate, before)
        minute.allowed()
        minute.turns(-5)
        assert gate.stop() == 0
    # A gate that starts by a policy with yet another name for the device cannot know which one the log means.
    paced.policy.write_text(paced.policy.read_text().replace("press", "mill"))
    with running(paced.state, paced.policy) as gate:
        minute.allowed()
        minute.turns(-5)
        assert gate.stop() == 0
    assert len([value for value in paced.device.writes if value < HELD - 100]) == len(minute.writes)


@given(st.lists(st.integers(0, SPAN_NS // 4), max_size=40), st.integers(0, 2 * SPAN_NS))
def test_the_writes_of_a_minute_are_told_and_no_others(gaps: list[int], later: int) -> None:
    recent, now, made = RecentWrites(), SPAN_NS, []
    for number, gap in enumerate(gaps):
        now += gap
        made.append(now)
        recent.add(write(number), now)
    now += later
    complete, found = recent.of(["p", "plc"], now)
    assert complete
    assert [one.age_ns for one in found] == [now - at for at in made if now - at < SPAN_NS]


def test_all_that_a_part_is_told_fits_into_a_record() -> None:
    """Writes of hundreds of points each, by the longest names that there are."""
    name = "n" * 256
    each = PastWrite(name, 1, ((name, 65535, 123),) * 64, (name,) * 256, True, ((name, 1.5, -1.5),) * 256)
    count = RECENT_THINGS // things_of(each)
    told = Recent(1, True, (each,) * count, ("a" * 63,) * MOST)
    assert len(msgspec.msgpack.encode(told)) < RECORD_BYTES
    assert len(msgspec.msgpack.encode((each,) * count)) * 2 < RECORD_BYTES


def test_a_device_that_had_another_name_is_asked_for_by_it() -> None:
    """By the gate, which knows its earlier policies; a name that none of them explains may have been any device."""
    asked: list[tuple[str, ...]] = []
    told = Recent(1, True, (PastWrite("old", 5), PastWrite("else", 6)), ("else", "old"))

    async def ask(names: Sequence[str]) -> Recent:
        asked.append(tuple(names))
        return told

    def asset(name: str, address: str) -> Asset:
        return Asset(name, "z", address, 502, "modbus", 1, None)

    past = PastWrites(ask, lambda: 0)
    past.take({"old": asset("old", "10.0.0.1"), "else": asset("else", "10.0.0.2")})
    past.take({"new": asset("new", "10.0.0.1"), "else": asset("else", "10.0.0.2")})
    assert asyncio.run(past.of(["new"])) == (PastWrite("new", 5),)
    assert asked == [("new", "old")]
    told = Recent(1, True, (), ("stranger",))
    assert asyncio.run(past.of(["new"])) is None
    told = Recent(1, False, (), ())
    assert asyncio.run(past.of(["new"])) is None


def test_where_there_were_more_than_can_be_kept_nobody_pretends_to_know() -> None:
    recent = RecentWrites()
    for number in range(KEPT + 1):
        recent.add(write(), SPAN_NS + number)
    assert recent.of(["plc"], SPAN_NS + KEPT)[0] is False
    assert recent.of(["plc"], 3 * SPAN_NS)[0] is True


def test_what_is_remembered_stays_small_however_much_a_write_names() -> None:
    """A part that was taken over names hundreds of points in each of its writes."""
    recent = RecentWrites()
    cells = tuple(Written("holding", number, (1,)) for number in range(64))
    points = tuple(PointValue(str(number), "1") for number in range(256))
    crowded = structs.replace(write(), writes=cells, points=points, before=points)
    for number in range(KEPT_THINGS // 500):
        recent.add(crowded, number)
    complete, found = recent.of(["plc"], KEPT_THINGS)
    assert KEPT_THINGS * 0.99 < sum(map(things_of, found)) <= KEPT_THINGS and found[-1].age_ns < found[0].age_ns
    assert complete is False, "it says that it knows all"
    recent.add(write(), 3 * SPAN_NS)
    complete, found = recent.of(["plc"], 3 * SPAN_NS)
    assert complete and len(found) == 1
