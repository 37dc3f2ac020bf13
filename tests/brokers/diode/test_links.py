"""Two links in parallel between two machines: one is cut, one loses; keys are changed while both gates run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from cofferdam.cli.main import main
from cofferdam.gate.client import ask
from tests.brokers.diode.machines import Machine, Strand, eventually
from tests.brokers.diode.test_machines import arrived, put
from tests.enforce.site import netns
from tests.gate.plant import events
from tests.waiting import kill

pytestmark = [*netns, pytest.mark.heavy]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strand]:
    """Both gates stand before anybody has paired them, and come to know each other while they run."""
    strand = Strand(tmp_path_factory.mktemp("links"), links=2)
    pair, strand.pair = strand.pair, lambda: None  # type: ignore[method-assign]
    with strand:
        for machine in strand.machines:
            machine.up(ready=False)
        for machine in strand.machines:
            assert machine.gate is not None
            machine.gate.wait_ready()
            assert not machine.status()["paired"]
        pair()
        for machine in strand.machines:
            assert main(["reload", "--state", str(machine.state)]) == 0
        strand.heard()
        assert not [event for machine in strand.machines for event in events(machine.state, "half-died")]
        yield strand


def _alarms(machine: Machine) -> list[str]:
    return [alarm["name"] for alarm in ask(machine.state, "status")["alarms"]]


def _repaired(strand: Strand) -> int:
    figures = ask(strand.outside.state, "status")["figures"]
    return int(next(one["values"].get("", 0) for one in figures if one["name"] == "repaired"))


def test_one_is_cut_and_one_loses_and_all_comes(two: Strand) -> None:
    """What one link loses the other brings; with the first cut all comes by the second, of which 5 % are lost."""
    two.lose(0.2, 0)
    two.lose(0.2, 1)
    data = os.urandom(3_000_000)
    arrived(two, "both-lose.csv", put(two, "both-lose.csv", data))  # 4 % together: one alone would not do
    two.lose(1, 0)
    two.lose(0.05, 1)
    arrived(two, "one-cut.csv", put(two, "one-cut.csv", data))
    eventually(lambda: [name for name in _alarms(two.outside) if name.endswith("/link-first")])
    assert two.outside.status()["channels"][0]["missing"] == 0
    two.lose(0, 0)
    eventually(lambda: not [name for name in _alarms(two.outside) if name.endswith("/link-first")])
    two.lose(1, 1)
    arrived(two, "other-cut.csv", put(two, "other-cut.csv", data))
    eventually(lambda: [name for name in _alarms(two.outside) if name.endswith("/link-second-out")])
    two.lose(0, 1)
    assert not events(two.outside.state, "diode-gap")
    assert not [name for name in _alarms(two.outside) if "two" in name or "foreign" in name]


@pytest.mark.parametrize("machine", ["inside", "outside"])
def test_each_end_of_each_link_is_proved(two: Strand, machine: str) -> None:
    code, found = (two.inside if machine == "inside" else two.outside).prove("--diode")
    failed = {name: one for name, one in found.items() if one["status"] == "failed"}
    assert code == 0 and not failed, failed
    assert len([name for name in found if name.endswith(": one-way by software")]) == 2


def test_keys_are_changed_while_both_gates_run(two: Strand) -> None:
    """New ones at both ends, one after the other: nothing is missing, and at the end the new ones alone are good."""
    before = two.outside.status()["sender"]
    for machine, other in (two.machines, tuple(reversed(two.machines))):
        file = machine.state.parent / "new.pair"
        two.pair_verb(machine, "--new", "--old-days", "1", "--output", str(file))
        assert main(["reload", "--state", str(machine.state)]) == 0
        arrived(two, f"{machine.name}-0.csv", put(two, f"{machine.name}-0.csv", b"before it was carried"))
        two.pair_verb(other, "--take", str(file), "--old-days", "0")
        assert main(["reload", "--state", str(other.state)]) == 0
        arrived(two, f"{machine.name}-1.csv", put(two, f"{machine.name}-1.csv", b"after"))
    old = two.inside.pid("spool")
    kill(old)  # a new epoch, by the new keys
    eventually(lambda: two.inside.pid("spool") != old)
    eventually(lambda: two.outside.status()["sender"] not in ("", before))
    arrived(two, "at-last.csv", put(two, "at-last.csv", b"x"))
    assert not events(two.outside.state, "diode-gap")
    time.sleep(4)  # longer than it takes to raise an alarm for two senders
    assert not [name for name in _alarms(two.outside) if name.endswith("/two")]
