"""The stage: real processes that start, talk, stop, and die with us. And the tour's steps must find the harm that
is done where no gate is: a tour that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from cofferdam.errors import CofferdamError
from cofferdam.lab import layout, sockets
from cofferdam.lab.play import Finding, policy
from cofferdam.lab.scene import Scene
from cofferdam.lab.tour import play
from cofferdam.lab.water import events, steps
from cofferdam.lab.water.cast import Cast
from cofferdam.lab.water.intruder import PORTS
from cofferdam.lab.water.play import Water
from tests.waiting import PATIENT


class NoGate(layout.Loopback):
    """The office connects straight to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = msgspec.structs.replace(
            self.addresses, listen=self.addresses.device, listen_port=self.addresses.device_port
        )


def on_bare_stage(tmp_path: Path, act: Callable[[Cast], Awaitable[None]]) -> None:
    async def main() -> None:
        where, water = NoGate(), Water()
        text = policy((water,), where.addresses)
        async with Scene(where, text, state=tmp_path, patience=PATIENT, report=0.1) as scene:
            await water.before_gate(scene, None)
            await act(await water.cast(scene))
            pids.extend(actor.process.pid for actor in scene.actors.values())

    pids: list[int] = []
    asyncio.run(main())
    assert len(pids) == 4
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_without_a_gate_the_tour_finds_the_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "GONE_SECONDS", 0)  # nothing that is wrong here mends itself

    async def act(tour: Cast) -> None:
        brokered = await steps.brokered_read(tour)
        assert [finding.ok for finding in brokered] == [True, True, False]  # the values are right, the way is not
        assert tour.addresses.erp in brokered[-1].seen
        assert [finding.ok for finding in await steps.in_range_write(tour)] == [True]
        for step in (steps.least_privilege, steps.intruder_refused, steps.write_rate):
            result = await play(tour, step)
            assert not result.ok, result
        assert not (await play(tour, steps.plants_account)).ok
        no_gate = await play(tour, steps.log_verified)
        assert not no_gate.ok and "no gate" in no_gate.findings[0].seen

    on_bare_stage(tmp_path, act)


def test_an_actor_that_breaks_down_is_said(tmp_path: Path) -> None:
    async def act(tour: Cast) -> None:
        with pytest.raises(CofferdamError, match=r"erp ended: .*no command 'sing'"):
            await tour.erp.do(events.Command("sing"))
        with pytest.raises(CofferdamError, match=r"erp (ended|does not run)"):
            await tour.erp.do(events.Command("read", point="flow_total"))

        async def broken(tour: Cast) -> list[Finding]:
            """A step that cannot be carried out."""
            raise CofferdamError("the stage has a hole", hint="mend it")

        result = await play(tour, broken)
        assert (result.title, result.ok) == ("A step that cannot be carried out", False)
        assert "the stage has a hole mend it" in result.findings[0].seen

    on_bare_stage(tmp_path, act)


def test_the_kernel_knows_who_holds_a_connection(tmp_path: Path) -> None:
    async def act(tour: Cast) -> None:
        await tour.read(tour.erp, "tank_level")
        await tour.settle()
        end = next(event for event in tour.plant.seen if isinstance(event, events.Connection))
        assert sockets.owners_of(end.peer, end.peer_port) == (tour.erp.process.pid,)
        assert sockets.owners_of(end.peer, 1) == ()
        assert sockets.descends_from(tour.erp.process.pid, os.getpid())
        assert not sockets.descends_from(os.getpid(), tour.erp.process.pid)

    on_bare_stage(tmp_path, act)


def test_who_listens_everywhere_is_no_port_of_the_gates(tmp_path: Path) -> None:
    """An SSH server on all addresses of the machine answers at those of the lab as well."""

    async def act(tour: Cast) -> None:
        with socket.create_server(("0.0.0.0", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            found = sockets.everywhere()
            assert one.getsockname()[1] in found and other.getsockname()[1] not in found
        with socket.create_server(("::", 0), family=socket.AF_INET6) as third:
            assert third.getsockname()[1] in sockets.everywhere()

        def opened(findings: list[Finding]) -> Finding:
            return next(finding for finding in findings if "open ports" in finding.tried)

        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", PORTS[1])):
            finding = opened(await steps.intruder_refused(tour))
            assert f"{PORTS[1]} is another program's, on all addresses" in finding.seen

    on_bare_stage(tmp_path, act)


CLOSED = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: from now on only root may look into this process
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
print(*near.getsockname(), flush=True)
sys.stdin.read()
"""


def test_a_process_that_keeps_its_descriptors_to_itself_is_found_by_its_user() -> None:
    python = [sys.executable, "-I", "-c"]
    if os.geteuid() == 0:  # root sees all: only others meet the case
        python = ["setpriv", "--reuid=61234", "--clear-groups", "/usr/bin/python3", "-c"]
        if not Path(python[-2]).exists():
            pytest.skip("no Python that another user can start")
    with subprocess.Popen([*python, CLOSED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as closed:
        assert closed.stdin is not None and closed.stdout is not None
        address, port = closed.stdout.readline().split()
        source = Path(sockets.__file__).read_text()
        look = f"{source}\nimport sys\nprint(*owners_of(sys.argv[1], int(sys.argv[2])))"
        done = subprocess.run(
            [*python, look, address, port], capture_output=True, text=True, timeout=PATIENT, check=False
        )
        closed.stdin.close()
    assert done.stdout.split() == [str(closed.pid)], done.stderr


def test_a_temporary_stage_is_removed_also_when_it_fails() -> None:
    left: list[Path] = []

    async def main() -> None:
        async with Scene(layout.Loopback(), ("site: here\n", {"beside.json": "{}"})) as scene:
            left.append(scene.directory)
            assert scene.policy.read_text() == "site: here\n"
            assert (scene.directory / "beside.json").read_text() == "{}"
            raise CofferdamError("curtain")

    with pytest.raises(CofferdamError, match="curtain"):
        asyncio.run(main())
    assert left and not left[0].exists()


def test_everybody_goes_when_the_stage_is_killed(tmp_path: Path) -> None:
    script = """
import asyncio
from cofferdam.lab import layout, scene
from cofferdam.lab.water.cast import start_plant
async def main():
    async with scene.Scene(layout.Loopback(), ("", {})) as stage:
        plant = await start_plant(stage)
        print(plant.process.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stdout is not None
        plant = int(killed.stdout.readline())
        assert Path(f"/proc/{plant}").exists()
        os.kill(killed.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENT
    while Path(f"/proc/{plant}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{plant}").exists()
    # What no process can remove after its own death is removed by the next `cofferdam lab clean`.
    (tmp_path / f"cofferdam-lab-{os.getpid()}-living").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    argv = [sys.executable, "-m", "cofferdam.cli.main", "lab", "clean"]
    said = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True).stdout
    assert f"cofferdam-lab-{killed.pid}-" in said
    assert [path.name for path in tmp_path.iterdir()] == [f"cofferdam-lab-{os.getpid()}-living"]


def test_falsifying_changes_the_copy(tmp_path: Path) -> None:
    (tmp_path / "tile").write_bytes(b'{"value":"950"}')
    assert steps.falsify(tmp_path, b'"950"', b'"850"') == tmp_path / "tile"
    assert (tmp_path / "tile").read_bytes() == b'{"value":"850"}'
    with pytest.raises(CofferdamError, match="nowhere"):
        steps.falsify(tmp_path, b'"950"', b'"850"')
