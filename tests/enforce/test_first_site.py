"""docs/first-site.md, done as it stands there: its policy, on cards of its names, and its commands."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cofferdam.enforce import journal
from cofferdam.enforce.putback import clean
from tests.enforce.site import PlantDevice, at, ip, netns
from tests.gate.plant import Client, Gate, QuickGate, cli, copied, events
from tests.ports import held_port
from tests.waiting import PATIENT, eventually

pytestmark = netns
PAGE = (Path(__file__).parents[2] / "docs" / "first-site.md").read_text()
SCADA, OTHER, PLC = "192.168.50.20", "192.168.50.99", "192.168.1.10"
ENDS = {"eth0": "first-site-office", "eth1": "first-site-plant"}


def page_policy() -> str:
    """Its policy, with a free port for management in the place of 9100."""
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    text = "\n".join(line.removeprefix("   ") for line in block.splitlines())
    return text.replace("127.0.0.1:9100", f"127.0.0.1:{held_port()}")


@contextlib.contextmanager
def cards() -> Iterator[None]:
    """A machine that has two cards, without an address; what they lead to."""
    try:
        for card, there in ENDS.items():
            ip("netns", "add", there)
            ip("link", "add", card, "type", "veth", "peer", "name", "net0", "netns", there)
            for end in (("-n", there, "link", "set", "net0"), ("link", "set", card)):
                ip(*end, "up")
        for address in (SCADA, OTHER):
            ip("-n", ENDS["eth0"], "addr", "add", f"{address}/24", "dev", "net0")
        ip("-n", ENDS["eth1"], "addr", "add", f"{PLC}/24", "dev", "net0")
        yield
    finally:
        for there in ENDS.values():
            subprocess.run(["ip", "-n", there, "link", "del", "net0"], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", there], capture_output=True, check=False)


def asked(source: str, address: str, seconds: float = PATIENT) -> bytes:
    with at(ENDS["eth0"]):
        client = Client(502, seconds, address=address, source=source)
    with client:
        return client.read()


def run_with(state: Path, *words: str) -> tuple[int, str, str]:
    return cli(*words, "--state", state)


def test_the_page_as_it_stands() -> None:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, cards():
        home = Path(folder)
        policy, state = home / "policy.yaml", home / "state"
        policy.write_text(page_policy())
        seen = yaml.safe_load(page_policy())["assets"]["plc-a"]["overlay"]
        assert cli("check", policy)[0] == 0
        code, said, _ = cli("up", policy, "--check-only", "--state", state)
        assert code == 0 and said.splitlines()[-1].startswith("ready"), said
        code, said, _ = cli("install", policy, "--root", home / "machine")
        assert code == 0, said
        [unit] = (home / "machine").rglob("cofferdam.service")
        [start] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        assert shlex.split(start)[1:3] == ["up", str(policy)], start
        plc, gate = PlantDevice(ENDS["eth1"], PLC), Gate(state, policy)
        try:
            gate.wait_ready()
            code, said, _ = run_with(state, "status")
            assert code == 0 and said.startswith("ok"), said
            code, said, _ = run_with(state, "ping", "plc-a")
            assert code == 0 and "answers a read of level" in said, said
            assert asked(SCADA, seen)
            with pytest.raises(OSError):
                asked(OTHER, seen, 0.7)
            eventually(lambda: f"{OTHER} wanted plc-a" in run_with(state, "status")[1])
            code, said, _ = run_with(state, "whois", OTHER)
            assert code == 1 and f"near it: scada ({SCADA}" in said, said
            code, said, _ = run_with(state, "prove")
            assert code == 0 and "nothing failed" in said, said
            assert run_with(state, "audit", "verify")[0] == 0
            assert gate.stop() == 0
        finally:
            gate.close()
            clean(state)
            plc.close()


def test_a_spare_machine_goes_on() -> None:
    """docs/howto.md: the state was copied while the gate ran, then its machine failed; the next one calls its cards
    otherwise, and brings nothing but the copy and the policy."""
    spare = {"eth0": "enp1s0", "eth1": "enp2s0"}
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, cards():
        home = Path(folder)
        policy, state, copy = home / "policy.yaml", home / "state", home / "copy"
        policy.write_text(page_policy())
        seen = yaml.safe_load(page_policy())["assets"]["plc-a"]["overlay"]
        plc, gate = PlantDevice(ENDS["eth1"], PLC), QuickGate(state, policy)
        try:
            gate.wait_ready()
            assert asked(SCADA, seen)
            eventually(lambda: copied(state, copy))
        finally:
            gate.close()
            clean(state)
        try:
            there = journal.load(copy)
            assert there is not None and there.moved, "what it moves is in the copy"
            there.boot, there.host = "of another machine", 1
            journal.save(copy, there)
            for card, name in spare.items():
                ip("link", "set", card, "down")
                ip("link", "set", card, "name", name)
                ip("link", "set", name, "up")
                policy.write_text(policy.read_text().replace(f"interface: {card}", f"interface: {name}"))
            code, said, _ = cli("up", policy, "--check-only", "--state", copy)
            assert code == 0 and said.splitlines()[-1].startswith("ready"), said
            gate = QuickGate(copy, policy)
            gate.wait_ready()
            assert asked(SCADA, seen)
            assert run_with(copy, "audit", "verify")[0] == 0
            assert len(events(copy, "log-opened")) == 2
            assert gate.stop() == 0
        finally:
            gate.close()
            clean(copy)
            plc.close()
