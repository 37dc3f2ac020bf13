"""What was written in the last minute counts, whoever counts it: a limit outlives a process, its name and the gate."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.events.access import WriteAllowed, Written
from cofferdam.audit.recent import KEPT, SPAN_NS, RecentWrites
from cofferdam.gate.client import ask
from tests.gate.conftest import Site
from tests.gate.plant import Client, Gate, cli, running
from tests.waiting import eventually


class Paced(Site):
    def text(self, **changes: str) -> str:
        return super().text(**changes).replace("type: uint32}", "type: uint32, writes_per_minute: 3}")


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


def allowed(port: int, tries: int = 4) -> int:
    with Client(port) as client:
        return sum(client.write(number) for number in range(tries))


def test_neither_a_death_nor_a_reload_nor_severing_gives_more_writes_a_minute(paced: Paced) -> None:
    """M1."""
    with running(paced.state, paced.policy) as gate:
        assert allowed(paced.port, 2) == 2
        before = gate.pids()
        os.kill(before["inner"], signal.SIGKILL)
        born(gate, before)
        assert allowed(paced.port) == 1
        before = gate.pids()
        assert cli("sever", "it", "--state", paced.state)[0] == cli("restore", "it", "--state", paced.state)[0] == 0
        born(gate, before)
        assert allowed(paced.port) == 0
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
        ask(paced.state, "reload", path=str(paced.policy))
        gate.wait_ready()
        assert allowed(paced.port) == 0
        assert gate.stop() == 0
    with running(paced.state, paced.policy) as gate:
        assert allowed(paced.port) == 0
        assert gate.stop() == 0
    assert len(paced.device.writes) == 3


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


def test_where_there_were_more_than_can_be_kept_nobody_pretends_to_know() -> None:
    recent = RecentWrites()
    for number in range(KEPT + 1):
        recent.add(write(), SPAN_NS + number)
    assert recent.of(["plc"], SPAN_NS + KEPT)[0] is False
    assert recent.of(["plc"], 3 * SPAN_NS)[0] is True
