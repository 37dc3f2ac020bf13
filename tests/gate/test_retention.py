"""A gate whose log passes what the policy lets it have: the oldest goes, and an entry says so; the rest verifies, while
the gate runs, after a kill, and under a gate that is started anew.

Run as a program, `cofferdam up POLICY --state STATE` with a log for which everything is small: a file is sealed from
1,024 entries, the log is looked at every second and not every minute, and a thousand bytes of `at_most` are one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.sealed import BLOCK, FOLDER, parse_sealed
from cofferdam.brokers.registry import CREWS
from cofferdam.enforce.choice import choose
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.launcher import Launcher
from cofferdam.enforce.orders import Child
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.users import Users
from tests.gate.conftest import Site
from tests.gate.plant import Client, Gate, cli, log_of, running
from tests.waiting import eventually, kill

AUDITOR = """
import sys
from cofferdam.audit import process, upkeep
upkeep.LOOK_NS = upkeep.SECOND
upkeep.Upkeep.__init__.__kwdefaults__["seal"] = upkeep.BLOCK
whole = process.Retention
process.Retention = lambda keep_ns=0, most=0, move=False: whole(keep_ns, most // 1000, move)
sys.exit(process.main())
"""
AUDIT = "audit: {at_most: 2 GB}"
WRITERS = 4


class SmallLog(Launcher):
    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        if part == "auditor":
            arguments = ["-c", AUDITOR, *arguments[arguments.index("--name") :]]
        return super()._start(part, berth, arguments, fds, producer)


class SmallGate(Gate):
    program = (sys.executable, "-m", "tests.gate.test_retention")


def busy(port: int, stop: threading.Event) -> None:
    with Client(port) as client:
        value = 0
        while not stop.is_set():
            value += 1
            client.write(value)


def dropped(state: Path) -> dict[str, Any]:
    """The last of its kind."""
    events = [entry["event"] for entry in log_of(state) if entry["event"]["kind"] == "entries-dropped"]
    last: dict[str, Any] = events[-1]
    return last


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gate that has dropped some of its log and goes on."""
    site = Site(tmp_path_factory.mktemp("worn"))
    site.policy.write_text(site.text(extra=AUDIT))
    gate = SmallGate(site.state, site.policy)
    stop = threading.Event()
    writers = [threading.Thread(target=busy, args=(site.port, stop)) for _ in range(WRITERS)]
    try:
        site.gate = gate.wait_ready()
        for writer in writers:
            writer.start()
        eventually(lambda: gate.status()["audit"]["disk"]["first"] > 0)
        stop.set()
        for writer in writers:
            writer.join()
        yield site
    finally:
        stop.set()
        gate.close()
        site.device.close()


def test_what_is_dropped_is_said_and_the_rest_verifies_while_the_gate_runs(worn: Site) -> None:
    code, said, _ = cli("audit", "verify", "--state", worn.state)
    assert code == 0, said
    eventually(lambda: worn.up.status()["audit"]["disk"]["first"] == dropped(worn.state)["stop"])
    event = dropped(worn.state)
    assert (event["first"] % BLOCK, event["stop"] % BLOCK, event["why"], event["moved"]) == (0, 0, "at-most", False)
    # It is said before it is done, so that no range is gone unsaid: the files follow.
    eventually(lambda: not [path for path in sealed(worn.state) if path[1] <= event["stop"]])
    assert log_of(worn.state)[0]["index"] == event["stop"]
    code, shown, _ = cli("audit", "show", "--state", worn.state, "--kind", "entries-dropped")
    assert code == 0
    assert f"entries {event['first']} to {event['stop'] - 1}" in shown


def test_a_log_that_is_kept_for_less_than_is_asked_for_fails_its_check(worn: Site) -> None:
    """Nothing but 90 days turns it back."""
    code, said, error = cli("evidence", "run", "log.retention", "--json", "--state", worn.state)
    assert said, error
    (found,) = json.loads(said)["checks"]
    assert (code, found["outcome"], found["says"]) == (1, "failed", "0 days of the log are kept, and 90 are asked for")
    assert "check-log.retention" in {one["name"] for one in worn.up.status()["alarms"]}


def test_it_goes_on_after_a_kill_and_with_a_gate_that_keeps_more(worn: Site) -> None:
    first = worn.up.status()["audit"]["disk"]["first"]  # what is gone; what is only said may not be done at a kill
    assert first > 0
    kill(worn.up.pid("auditor"))
    with Client(worn.port) as client:
        eventually(lambda: client.write(77))
    assert worn.up.stop() == 0
    assert cli("audit", "verify", "--state", worn.state)[0] == 0
    with running(worn.state, worn.policy) as gate, Client(worn.port) as client:
        assert client.write(78)
        eventually(lambda: gate.status()["audit"]["disk"]["first"] >= first)
        assert gate.stop() == 0
    events = [entry["event"] for entry in log_of(worn.state)]
    values = [event["writes"][0][2][1] for event in events if event["kind"] == "write-allowed"]
    assert values[-2:] == [77, 78]


def sealed(state: Path) -> list[tuple[int, int]]:
    """First and stop of each sealed file."""
    names = [path.relative_to(state / "audit").as_posix() for path in (state / "audit" / FOLDER).iterdir()]
    return [place for place in map(parse_sealed, names) if place is not None]


if __name__ == "__main__":
    policy, state = sys.argv[2], sys.argv[4]
    isolation = choose(Path(policy), Path(state), users=Users())
    sys.exit(SmallLog(isolation, Path(state), CREWS, ["--policy", policy, "--state", state]).run())
