"""A crew whose store cannot be used, at the start of a gate: it is held alone, says why, and comes back by itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.enforce import stores
from cofferdam.errors import GateError
from tests.gate.plant import Client, QuickGate, cli, events, refuses
from tests.gate.test_crews import RELAY, Works
from tests.ports import held_port, held_ports
from tests.waiting import PATIENT, eventually, kill

ZONES = """
site: works
zones: {enterprise: {side: it}, planning: {side: it}, control: {side: ot}}
gate: {separation: processes}
principals:
  erp: {zone: enterprise, addresses: [127.0.0.1]}
  planner: {zone: planning, addresses: [127.0.0.1]}
  mes: {zone: control, addresses: [127.0.0.1]}
conduits:
"""
CREW = "relay/enterprise-control"
HELD = f"{CREW}/crew-held"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Held(Works):
    """The same with a management address, and what becomes of its relay."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.management = held_port()
        self.policy.write_text(f'{self.policy.read_text()}gate: {{management: "127.0.0.1:{self.management}"}}\n')
        self.keeper = stores.of(self.state, CREW, "keeper")

    @contextlib.contextmanager
    def started(self) -> Iterator[QuickGate]:
        """A gate whose start is over: each crew serves, or is held."""
        gate = QuickGate(self.state, self.policy)
        try:
            eventually(lambda: gate.process.poll() is not None or "gate-ready" in gate.said())
            assert gate.process.poll() is None, gate.said()
            yield gate
            assert gate.stop() == 0
        finally:
            gate.close()
            gate.errors.unlink()

    def alarm(self) -> dict[str, Any]:
        return next((dict(alarm) for alarm in self.status()["alarms"] if alarm["name"] == HELD), {})

    def told(self, what: str) -> tuple[int, str]:
        """What the management address says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/{what}", timeout=PATIENT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def back(self) -> bool:
        """Whether its relay works, and nothing is said of it any more."""
        return bool(self.crew("relay")["working"]) and not self.alarm()


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """With a relay that has a store."""
    made = Held(tmp_path_factory.mktemp("works"))
    with made.started():
        eventually(made.back)
    yield made
    made.device.close()


def held_and_back(works: Held, what: str, mend: Callable[[str], object]) -> None:
    """The gate starts without its relay and says `what`; `mend` does as the alarm says, and the relay is there."""
    before = len(events(works.state, "alarm"))
    with works.started(), Client(works.port) as client:
        client.read()
        proxy = works.pids("modbus")
        alarm = works.alarm()
        assert what in alarm["detail"] and str(works.keeper) in alarm["detail"]
        assert alarm["way_out"].endswith("it is started again by itself")
        status = works.status()
        verdict = status["verdict"]  # other alarms may have come as well, and count less
        assert verdict.startswith("NOT OK") and verdict.endswith(alarm["detail"])
        assert status["way_out"] == alarm["way_out"]
        code, said, _ = cli("status", "--state", works.state)
        assert code == 1 and f"the crew {CREW} does not start" in said.splitlines()[0], said
        assert not works.crew("relay")["working"] and works.crew("modbus")["working"]
        assert works.told("ready")[0] == 503
        metrics = works.told("metrics")[1]
        assert f'cofferdam_pair_working{{pair="{CREW}"}} 0' in metrics
        assert f'cofferdam_alarm{{name="{HELD}"}} 1' in metrics
        with pytest.raises(GateError, match="does not run"):
            works.ask("keeper", "list", channel="orders")
        mend(f"{alarm['detail']}; {alarm['way_out']}")
        eventually(works.back)
        client.read()
        assert works.pids("modbus") == proxy
        assert works.told("ready")[0] == 200
    told = [one for one in events(works.state, "alarm")[before:] if one["name"] == HELD]
    assert (told[0]["cleared"], told[-1]["cleared"]) == (False, True) and what in told[0]["detail"]


def test_a_damaged_database(works: Held) -> None:
    file = works.keeper / "keeper.db"
    sound = file.read_bytes()
    file.write_bytes(b"\xff" * len(sound))

    def put_back(way: str) -> None:
        assert "put back a backup" in way
        beside = file.with_name("sound")
        beside.write_bytes(sound)
        os.chown(beside, file.stat().st_uid, file.stat().st_gid)
        beside.rename(file)

    held_and_back(works, "keeper.db is damaged", put_back)


@root_only
def test_a_store_of_another_owner(works: Held) -> None:
    assert cli("up", works.policy, "--state", works.state, "--check-only")[0] == 0
    os.chown(works.keeper, 12345, 12345)
    code, said, _ = cli("up", works.policy, "--state", works.state, "--check-only")
    assert code == 1 and f"the store {works.keeper} belongs to user 12345, and its part runs as" in said

    def hand_over(way: str) -> None:
        command = way[way.index("chown") :].partition(";")[0]
        subprocess.run(shlex.split(command), check=True)

    held_and_back(works, "belongs to user 12345", hand_over)


def test_a_link_in_its_place(works: Held) -> None:
    works.keeper.rename(works.state.parent / "elsewhere")
    works.keeper.symlink_to(works.state.parent / "elsewhere")

    def remove(way: str) -> None:
        assert f"rm {works.keeper}" in way
        works.keeper.unlink()  # and the relay begins with an empty one

    held_and_back(works, "is a symbolic link", remove)


def test_what_nobody_foresaw(works: Held) -> None:
    """A database by which its part falls over, without a word of its own for it."""
    file = works.keeper / "keeper.db"
    sound = file.with_name("sound")
    shutil.copy2(file, sound)
    os.chown(sound, file.stat().st_uid, file.stat().st_gid)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("DELETE FROM meta")
    held_and_back(works, "keeper: KeyError", lambda _: sound.rename(file))


def test_a_reload_does_not_wait_for_a_crew_that_is_held(works: Held) -> None:
    """It took half a minute for another address of its, and did not say why the crew was not there."""
    file, text = works.keeper / "keeper.db", works.policy.read_text()
    sound = file.with_name("sound")
    file.rename(sound)
    file.mkdir()
    with works.started(), Client(works.port) as client:
        works.policy.write_text(text.replace(f"127.0.0.1:{works.outer}", f"127.0.0.1:{held_port()}"))
        code, said, _ = cli("reload", works.policy, "--state", works.state)
        assert code == 1 and f"trouble: the crew {CREW} does not start" in said and "is no plain file" in said, said
        client.read()
        file.rmdir()
        sound.rename(file)
        eventually(works.back)
        works.policy.write_text(text)
        assert cli("reload", works.policy, "--state", works.state)[0] == 0
        client.read()


@pytest.mark.parametrize("ending", ["", "-wal", "-journal"])
def test_a_pipe_in_the_place_of_a_file(works: Held, ending: str) -> None:
    """To open one waits for ever: its part hung, was ended for it, and the whole start with it."""
    file = works.keeper / f"keeper.db{ending}"
    sound = works.state.parent / "sound"
    with contextlib.suppress(FileNotFoundError):
        file.rename(sound)
    os.mkfifo(file)
    os.chown(file, works.keeper.stat().st_uid, works.keeper.stat().st_gid)

    def put_back(way: str) -> None:
        assert f"move it away: ls -l {file}" in way
        sound.rename(file) if sound.exists() else file.unlink()

    held_and_back(works, "is no plain file", put_back)


@contextlib.contextmanager
def hung(file: Path) -> Iterator[None]:
    """Who opens this file waits, as for a disk that does not answer, until the lease on it is given back."""
    fd = os.open(file, os.O_RDWR)
    old = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, old)


@pytest.mark.parametrize("killed", [True, False])
def test_a_part_that_its_store_ends_without_a_word(works: Held, killed: bool) -> None:
    """The kernel may end who reads a damaged file, and a disk may not answer: the plant's proxy starts all the same."""
    lease = contextlib.ExitStack()
    lease.enter_context(hung(works.keeper / "keeper.db"))
    gate = QuickGate(works.state, works.policy)
    try:
        if killed:
            eventually(lambda: (works.state / "gate.sock").exists() and works.pids("relay").get("keeper"))
            kill(works.pids("relay")["keeper"])
        eventually(lambda: gate.process.poll() is not None or "gate-ready" in gate.said())
        assert gate.process.poll() is None, gate.said()
        with Client(works.port) as client:
            client.read()
        alarm = works.alarm()
        assert ("keeper ended: killed" if killed else f"not ready within 30 s ({CREW}/keeper)") in alarm["detail"]
        assert f"look at what is in {works.keeper}" in alarm["way_out"]
        lease.close()
        eventually(works.back)
        assert gate.stop() == 0
    finally:
        lease.close()
        gate.close()
        gate.errors.unlink()


def test_a_gate_that_would_serve_nothing_does_not_start(tmp_path: Path) -> None:
    """Who started it is told so, with the reason of each crew; systemd goes on trying."""
    (tmp_path / "order.json").write_text('{"type": "object"}')
    ports = held_ports(4)
    conduits = [RELAY.format(outer=ports[0], inner=ports[1]), RELAY.format(outer=ports[2], inner=ports[3])]
    conduits[1] = conduits[1].replace("enterprise", "planning").replace("orders", "lots")
    policy = tmp_path / "policy.yaml"
    policy.write_text(ZONES + "".join(conduits).replace("who: erp, push: lots", "who: planner, push: lots"))
    state = tmp_path / "state"
    places = [stores.of(state, f"relay/{zone}-control", "keeper") for zone in ("enterprise", "planning")]
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_text("")
    for folder in (state, state / stores.FOLDER, *(place.parent for place in places)):
        folder.chmod(0o700)
    code, said = refuses(state, policy)
    assert code == 2 and all(f"the store {place} is no folder" in said for place in places), said
    assert f"rm {places[0]}" in said
