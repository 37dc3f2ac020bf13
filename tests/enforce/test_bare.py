"""What the benchmark measures without the sandbox is without it; and a gate has no such switch."""

from __future__ import annotations

import sys
from pathlib import Path

import cofferdam
from tests.enforce.site import PlantDevice, Site, netns
from tests.gate.plant import Gate

pytestmark = netns
ROOT = Path(__file__).parents[2]


class BareGate(Gate):
    """`bench/bare.py up` in place of `cofferdam up`."""

    program = (sys.executable, str(ROOT / "bench" / "bare.py"))


def test_a_bare_half_has_its_sides_network_and_nothing_else_around_it(site: Site) -> None:
    device = PlantDevice(site.plant)
    before = site.host()
    gate = BareGate(site.state, site.policy)
    try:
        gate.wait_ready()
        with site.client() as client:
            assert client.read() == b"\x03\x02\x00\x2a" and client.write(7)
        status = gate.status()
        facts = {fact["name"]: fact for fact in status["facts"]}
        for name in ("system-call filter", "landlock"):
            assert not facts[name]["in_force"] and "bench/bare.py" in facts[name]["detail"]
        assert status["separation"] == "namespaces" and facts["firewall"]["in_force"]
        spaces = {Path(f"/run/netns/{name}").stat().st_ino for name in site.gates()}
        halves = [pid for role, pid in gate.pids().items() if role in ("outer", "inner")]
        assert {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in halves} == spaces and len(spaces) == 2
        for pid in halves:
            said = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert (said["Seccomp"], said["Uid"].split()[0]) == ("0", "0")
            assert Path(f"/proc/{pid}/root").stat().st_ino == Path("/").stat().st_ino
            for kind in ("pid", "mnt", "uts"):
                assert Path(f"/proc/{pid}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()
        assert gate.stop() == 0
    finally:
        gate.close()
        device.close()
    assert site.host() == before


def test_what_takes_the_sandbox_away_is_no_part_of_cofferdam() -> None:
    """No file of the package names it, and what is installed has none of its files."""
    package = Path(cofferdam.__file__).parent
    assert not (ROOT / "bench").is_relative_to(package)
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "bare_half" not in text and "bench.bare" not in text and "bench/bare" not in text, path


def test_no_word_in_the_environment_takes_the_filter_away(site: Site) -> None:
    """Whatever the environment says, a half is confined: nothing of it reaches a half but these few."""
    words = {
        "COFFERDAM_FAST": "0",
        "COFFERDAM_SANDBOX": "0",
        "COFFERDAM_BARE": "1",
        "PYTHONPATH": str(ROOT / "bench"),
        "PYDANTIC_DISABLE_PLUGINS": "0",
    }
    gate = Gate(site.state, site.policy, environment=words)
    try:
        gate.wait_ready()
        for role, pid in gate.pids().items():
            if role in ("outer", "inner"):
                assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
                found = dict(
                    word.split(b"=", 1) for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if word
                )
                assert found.pop(b"PYDANTIC_DISABLE_PLUGINS") == b"__all__"  # ours, whatever the caller had
                assert found.keys() <= {b"PATH", b"LANG", b"LC_ALL", b"TZ", b"LC_CTYPE"}
        assert gate.stop() == 0
    finally:
        gate.close()
