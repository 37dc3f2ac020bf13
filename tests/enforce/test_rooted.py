"""Where root starts a gate without namespaces, none of its children is root."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from cofferdam.enforce import kernel
from cofferdam.enforce.rooted import READING
from cofferdam.enforce.users import NEEDED, USEFUL, Users
from cofferdam.gate.watch.forwarding import SWITCHES, forwarded
from tests.gate.conftest import Site
from tests.gate.plant import Client, running
from tests.waiting import eventually

SETS = ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")


def told(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def bits(*names: str) -> int:
    return sum(1 << kernel.CAPABILITIES[name] for name in names)


LACKING = os.geteuid() != 0 or bool(kernel.missing_capabilities((*NEEDED, *READING)))


@pytest.mark.skipif(LACKING, reason="needs root and its capabilities")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_what_root_starts_is_not_root(tmp_path: Path, mode: int) -> None:
    """M8. `mode`: of the policy's folder; where only root may enter it, the gate keeps the right to read. Once the
    state directory lies below that folder, on a file system of its own."""
    tmp_path.chmod(mode)
    site = Site(tmp_path)
    disk = tmp_path / "disk"
    if mode == 0o755:
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", disk], check=True)
        site.state = disk / "state"
    try:
        _is_not_root(site, tmp_path, mode)
    finally:
        if mode == 0o755:
            subprocess.run(["umount", "-l", disk], check=True)


def _is_not_root(site: Site, tmp_path: Path, mode: int) -> None:
    with running(site.state, site.policy) as gate:
        with Client(site.port) as client:
            assert client.read()[0] == 3
            assert client.write(7)
        pids, mine = gate.pids(), Path("/proc/self/ns/mnt").stat().st_ino
        users = set()
        for part in ("outer", "inner", "auditor", "gate"):
            facts = told(pids[part])
            users |= set(facts["Uid"].split()) | set(facts["Gid"].split())
            held = bits(*READING) if part == "gate" and mode == 0o700 else 0
            assert [int(facts[name], 16) for name in SETS] == [held] * len(SETS), part
            assert facts["NoNewPrivs"] == "1"
            assert Path(f"/proc/{pids[part]}/ns/mnt").stat().st_ino != mine
            if part in ("outer", "inner"):
                assert facts["NSpid"].split()[1:] == ["1"], "it sees no other process"
        assert len(users) == 4, "each has one of its own"
        assert users <= set(map(str, range(Users().first, Users().last)))
        keys = Path(f"/proc/{pids['gate']}/root{site.state}/keys")
        assert mode == 0o755 or not list(keys.iterdir()), "it cannot sign for the auditor"
        launcher = int(told(gate.process.pid)["CapEff"], 16)
        assert not launcher & ~bits(*NEEDED, *USEFUL)
        said = {fact["name"]: fact for fact in gate.status()["facts"]}
        assert said["mount namespaces"]["in_force"] and said["own users"]["in_force"]
        assert ("the gate may read" in said["own users"]["detail"]) == (mode == 0o700)
        assert said["no forwarding"]["detail"] == forwarded()[1], "it sees what the host's switches say"
        site.policy.rename(tmp_path / "old")  # as editors do it
        site.policy.write_text((tmp_path / "old").read_text().replace("plc-road", "new-road"))
        gate.process.send_signal(signal.SIGHUP)
        eventually(lambda: "new-road" in str(gate.status()))
        assert gate.stop() == 0
    assert not (site.state / "network" / "root").exists()
    site.device.close()


@pytest.mark.parametrize(
    ("four", "six", "known", "words"),
    [
        ("0", "0", True, "does not forward"),
        ("1", "0", False, "forwards IPv4 (net.ipv4.ip_forward)"),
        ("0", "1", False, "forwards IPv6 (net.ipv6.conf.all.forwarding)"),
        ("1", "1", False, "forwards IPv4 and IPv6"),
        ("0", None, True, "does not forward"),
    ],
)
def test_a_host_that_forwards_is_told(tmp_path: Path, four: str, six: str | None, known: bool, words: str) -> None:
    """M9."""
    for switch, value in zip(SWITCHES.values(), (four, six), strict=True):
        if value is not None:
            (tmp_path / switch).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / switch).write_text(f"{value}\n")
    found, sentence = forwarded(tmp_path)
    assert found is known
    assert words in sentence
