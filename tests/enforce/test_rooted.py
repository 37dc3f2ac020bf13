"""Where root starts a gate without namespaces, its children are not root with all that root can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cofferdam.enforce import kernel
from cofferdam.enforce.rooted import KEPT, KEPT_BY_GATE
from cofferdam.enforce.users import NEEDED, Users
from cofferdam.gate.watch.forwarding import SWITCHES, forwarded
from tests.gate.conftest import Site
from tests.gate.plant import Client, running


def told(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def bits(*names: str) -> int:
    return sum(1 << kernel.CAPABILITIES[name] for name in names)


@pytest.mark.skipif(
    os.geteuid() != 0 or bool(kernel.missing_capabilities((*NEEDED, *KEPT))), reason="needs root and its capabilities"
)
def test_what_root_starts_is_not_root(tmp_path: Path) -> None:
    """M8."""
    site = Site(tmp_path)
    with running(site.state, site.policy) as gate:
        with Client(site.port) as client:
            assert client.read()[0] == 3
            assert client.write(7)
        pids, mine = gate.pids(), Path("/proc/self/ns/mnt").stat().st_ino
        users = set()
        for part in ("outer", "inner"):
            facts = told(pids[part])
            users |= set(facts["Uid"].split()) | set(facts["Gid"].split())
            assert [int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")] == [0] * 5
            assert facts["NoNewPrivs"] == "1"
            assert facts["NSpid"].split()[1:] == ["1"], "it sees no other process"
            assert Path(f"/proc/{pids[part]}/ns/mnt").stat().st_ino != mine
        assert len(users) == 2, "each half has one of its own"
        assert all(int(user) in Users().parts for user in users)
        for part, kept in (("gate", KEPT_BY_GATE), ("auditor", KEPT)):
            facts = told(pids[part])
            assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == bits(*kept)
            assert facts["NoNewPrivs"] == "1"
        said = {fact["name"]: fact for fact in gate.status()["facts"]}
        assert said["mount namespaces"]["in_force"]
        assert "the gate, the auditor and parts with files run as root" in said["own users"]["detail"]
        assert "no forwarding" in said
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
