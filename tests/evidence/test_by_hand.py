"""Checks that a full disk, an impossible budget, a date, a clock that nobody keeps and a part that does not come back
turn on a real gate, and that turn back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk import library, needs_gcc
from tests.gate.conftest import Site
from tests.gate.plant import Client, Gate, running
from tests.ports import held_ports
from tests.verbs import cli
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
BUDGET = "    latency_budget: 1 us\n"
FILLER = """  filler:
    zone: control
    address: 127.0.0.1
    port: {device}
    protocol: opcua
    listen: "127.0.0.1:{listens}"
    security: {{clients: Basic256Sha256, asset: {asset}}}
    points:
      speed: {{at: "nsu=urn:x;s=speed", type: Float}}
"""
FILL = """
  fill:
    from: enterprise
    to: control
    broker: opcua
    owner: operations
    reason: for the test
    allow:
      - {who: erp, asset: filler, read: [speed]}
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Gate]]:
    """A gate whose log's folder is a small file system of its own."""
    made = Site(tmp_path_factory.mktemp("by-hand"))
    audit = made.state / "audit"
    audit.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", audit], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        made.policy.write_text(made.text().replace("    owner: ", BUDGET + "    owner: ", 1))
        # Its witness has a fence of its own, which two gates of one host cannot have over the same users.
        with running(made.state, made.policy, "--users", "62000-62499") as gate:
            yield made, gate
    finally:
        subprocess.run(["umount", "-l", audit], check=True)
        made.device.close()


def outcome(site: Site, check: str) -> tuple[str, str]:
    """Of `cofferdam evidence run CHECK`, and its words."""
    code, out, err = cli("evidence", "run", check, "--no-verify", "--json", "--state", site.state)
    assert out, err
    [found] = json.loads(out)["checks"]
    assert code == {"failed": 1, "unknown": 3}.get(found["outcome"], 0)
    return found["outcome"], found["says"]


def status_of(site: Site, check: str) -> str:
    """As `cofferdam evidence list` has it, which goes by the log."""
    code, out, err = cli("evidence", "list", "--json", "--state", site.state)
    assert code == 0, err
    return str({one["id"]: one["status"] for one in json.loads(out)}[check])


def alarms(gate: Gate) -> set[str]:
    return {one["name"] for one in gate.status()["alarms"]}


def turns(site: Site, gate: Gate, check: str, wanted: str) -> None:
    """How it stands by the log, and its alarm, in the end: an entry is on its way there for a moment."""
    eventually(lambda: (status_of(site, check), f"check-{check}" in alarms(gate)) == (wanted, wanted == "failed"))


def reload(site: Site, before: str, after: str) -> None:
    text = site.policy.read_text()
    assert before in text
    site.policy.write_text(text.replace(before, after))
    code, _, err = cli("reload", "--state", site.state)
    assert code == 0, err


def test_a_budget_that_cannot_be_kept(plant: tuple[Site, Gate]) -> None:
    site, gate = plant
    with contextlib.closing(Client(site.port, timeout=PATIENT)) as client:
        client.read()
        eventually(lambda: outcome(site, "broker.latency-budget")[0] == "failed")
        turns(site, gate, "broker.latency-budget", "failed")
        reload(site, BUDGET, "    latency_budget: 60 s\n")
        client.read()
        eventually(lambda: outcome(site, "broker.latency-budget")[0] == "observed")
    turns(site, gate, "broker.latency-budget", "observed")


def test_a_conduit_that_has_expired(plant: tuple[Site, Gate]) -> None:
    site, gate = plant
    for expires, wanted in (("2020-01-31", "failed"), ("2099-12-31", "observed")):
        owner = "    owner: "
        reload(site, owner, f"    expires: {expires}\n{owner}")
        found, says = outcome(site, "policy.expiry")
        assert found == wanted, says
        turns(site, gate, "policy.expiry", wanted)
        reload(site, f"    expires: {expires}\n", "")


def test_a_full_disk(plant: tuple[Site, Gate]) -> None:
    """Room runs out: that is an entry and an alarm while there is a reserve. Who has had their part of it can have
    nothing recorded, and who asks is told so; with room again both turn."""
    site, gate = plant
    ballast = site.state / "audit/ballast.new"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        eventually(lambda: outcome(site, "log.capacity")[0] == "failed")
        eventually(lambda: "check-log.capacity" in alarms(gate))
        with contextlib.closing(Client(site.port, timeout=PATIENT)) as client:
            value = 0
            while client.write(value % 1000):  # what is allocated ahead is used up, and its part of the reserve
                value += 1
                assert value < 100_000
        eventually(lambda: outcome(site, "log.writable")[0] == "failed")
        eventually(lambda: "check-log.writable" in alarms(gate))
    finally:
        ballast.unlink()
    for check in ("log.writable", "log.capacity"):
        eventually(lambda check=check: outcome(site, check)[0] == "observed")  # type: ignore[misc]
        eventually(lambda check=check: status_of(site, check) == "observed")  # type: ignore[misc]
        eventually(lambda check=check: f"check-{check}" not in alarms(gate))  # type: ignore[misc]


@needs_gcc
def test_a_clock_that_nobody_keeps(plant: tuple[Site, Gate], tmp_path: Path) -> None:
    """What the kernel says of it: the machine's own, which keeps the time of others as well, is left alone."""
    site, gate = plant
    command = [sys.executable, "-m", "cofferdam.cli.main", "evidence", "run", "clock.sound", "--state", str(site.state)]

    def stands(says: str, code: int, wanted: str) -> bool:
        """Once it was run. The gate's own round, which asks the kernel, may come between."""
        env = os.environ | {"LD_PRELOAD": str(library(tmp_path, "clock")), "CLOCK_SAYS": says}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == code, done
        alarm = "check-clock.sound" in alarms(gate)
        return (status_of(site, "clock.sound"), alarm) == (wanted, wanted == "failed")

    eventually(lambda: stands("alone", 1, "failed"))
    eventually(lambda: stands("sound", 0, "observed"))


def test_a_part_that_does_not_come_back(plant: tuple[Site, Gate]) -> None:
    """It is killed as often as it begins."""
    site, gate = plant
    check = "recovery.known-state"

    def killed() -> bool:
        if (pid := gate.pids().get("outer")) is not None:
            kill(pid)
        found = outcome(site, check)[0], status_of(site, check), f"check-{check}" in alarms(gate)
        return found == ("failed", "failed", True)

    eventually(killed)
    eventually(lambda: outcome(site, check)[0] == "tested")
    turns(site, gate, check, "tested")


def test_what_a_policy_says_of_ciphers(plant: tuple[Site, Gate], tmp_path: Path) -> None:
    """A server of OPC UA that is spoken to in the clear, and a witness known by a key of a broken kind."""
    site, gate = plant
    before = site.policy.read_text()
    device, listens, safe = held_ports(3)
    for kind in ("rsa", "ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / kind)], check=True)
    for asset, kind, wanted in (("none", "rsa", "failed"), ("Basic256Sha256, server: urn:x", "ed25519", "observed")):
        filler = FILLER.format(device=device, listens=listens, asset=asset)
        key = " ".join((tmp_path / f"{kind}.pub").read_text().split()[:2])
        witness = f'{{to: "sftp://heads@127.0.0.1:{safe}/heads", key: {key}}}'
        text = before.replace("principals:", f"{filler}principals:").replace("conduits:", f"conduits:{FILL}")
        site.policy.write_text(f"{text}audit:\n  witnesses: {{safe: {witness}}}\n")
        code, _, err = cli("reload", "--state", site.state)
        assert code == 0, err
        for check in ("opcua.secured", "crypto.used"):
            found, says = outcome(site, check)
            assert found == wanted, says
            turns(site, gate, check, wanted)
    site.policy.write_text(before)
    assert cli("reload", "--state", site.state)[0] == 0


def test_all_and_some_are_not_asked_for_together(plant: tuple[Site, Gate], tmp_path: Path) -> None:
    site, _ = plant
    code, _, err = cli("evidence", "run", "--all", "log.whole", "--state", site.state)
    assert (code, "cofferdam evidence run --all" in err) == (2, True)
    code, _, err = cli("evidence", "run", "log.hole", "--state", site.state)
    assert (code, "did you mean log.whole?" in err) == (2, True)
    code, _, err = cli("evidence", "run", "backup.made", "--state", site.state)
    assert (code, "cofferdam evidence attest" in err) == (2, True)
    code, _, err = cli("evidence", "run", "access.signed-hop", "--state", site.state)
    assert (code, "cofferdam evidence selftest" in err) == (2, True)
    code, _, err = cli("evidence", "attest", "policy.revewed", "--text", "x", "--key", "k", "--state", site.state)
    assert (code, "did you mean policy.reviewed?" in err) == (2, True)
    code, _, err = cli("evidence", "signer", "add", "Ada", tmp_path / "k.pub", "--state", site.state)
    assert (code, "k.pub cannot be read: No such file or directory\n" in err) == (2, True), err
