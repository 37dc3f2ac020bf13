"""The overlay of a gate without namespaces: names are served, peers are not, and it says so. And the verbs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from cofferdam.gate.client import ask
from cofferdam.gate.overlay.peers import load_peers, private_key, public_key
from tests.gate.plant import Device, QuickGate, cli, events, policy_text
from tests.overlay.works import text
from tests.ports import held_port
from tests.waiting import PATIENT, eventually, kill

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a name server's port needs root")


class World:
    def __init__(self, folder: Path) -> None:
        self.device = Device()
        self.listen = held_port()
        self.server = f"127.{53 + secrets.randbelow(100)}.{secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"
        self.state, self.policy = folder / "state", folder / "policy.yaml"
        self.write()
        self.gate = QuickGate(self.state, self.policy).wait_ready()

    def write(self, name: str = "plc", dns: str = "") -> None:
        overlay = (
            f"overlay: {{prefix: 10.64.7.0/24, dns: {dns or self.server}, "
            'wireguard: {endpoint: "127.0.0.1:51820", peers: 10.64.8.0/24}}'
        )
        whole = policy_text({name: (self.device.port, self.listen)}, extra=overlay)
        whole = whole.replace("principals:\n", "principals:\n  alice: {zone: enterprise, peer: alice}\n", 1)

        self.policy.write_text(whole)

    def reload(self) -> None:
        code, out, err = cli("reload", "--state", self.state)
        assert code == 0, out + err

    def ask(self, name: str, *, server: str = "") -> DNSRecord:
        """Asked again until there is an answer: a datagram to a server that is only about to start is lost."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(1.0)
            found: list[bytes] = []

            def answered() -> bool:
                asker.sendto(bytes(DNSRecord.question(name, "SOA").pack()), (server or self.server, 53))
                with contextlib.suppress(TimeoutError):
                    found.append(asker.recv(4096))
                return bool(found)

            eventually(answered)
            return DNSRecord.parse(found[0])

    def server_pid(self) -> int:
        """The name server among the launcher's children."""
        found = subprocess.run(["pgrep", "-P", str(self.gate.process.pid), "-f", "enforce.overlay.names"],
                               capture_output=True, text=True, check=False)  # fmt: skip
        return int(found.stdout.split()[0]) if found.stdout else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("overlay"))
    yield made
    assert made.gate.stop() == 0, made.gate.said()
    made.gate.close()
    made.device.close()


@needs_root
def test_names_are_served_and_change_with_the_policy(world: World) -> None:
    assert world.ask("riverside.internal").rr
    assert world.ask("example.com").header.rcode == 5
    other = f"127.200.{secrets.randbelow(250)}.9"
    world.write(dns=other)
    world.reload()
    assert world.ask("riverside.internal", server=other).rr
    eventually(lambda: not listens(world.server))
    world.write()
    world.reload()
    assert world.ask("riverside.internal").rr


def listens(server: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((server, 53), timeout=PATIENT):
        return True
    return False


@needs_root
def test_a_killed_name_server_is_started_again(world: World) -> None:
    assert world.ask("riverside.internal").rr
    first = world.server_pid()
    assert first
    kill(first)
    eventually(lambda: world.server_pid() not in (0, first))
    assert world.ask("riverside.internal").rr
    assert world.gate.process.poll() is None


@needs_root
def test_peers_need_namespaces_and_the_gate_says_so(world: World) -> None:

    def alarm() -> str:
        return str({each["name"]: each["detail"] for each in world.gate.status()["alarms"]}.get("tunnel-down"))

    eventually(lambda: "need network namespaces" in alarm())
    code, _, err = cli("overlay", "add-peer", "alice", "--state", world.state)
    assert code == 2
    assert "need network namespaces" in err
    assert load_peers(world.state) == ({}, "")
    assert not events(world.state, "peer-added")
    assert ask(world.state, "peers")["peers"] == []


# --- files --------------------------------------------------------------------------------------------------------


def test_our_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    key = private_key(tmp_path)
    assert private_key(tmp_path) == key != public_key(key)
    assert (tmp_path / "wireguard.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["", "{", '{"format": 2, "peers": []}', '{"format": 1, "peers": [{"name": "x"}]}'])
def test_a_damaged_list_lets_nobody_in(tmp_path: Path, damage: str) -> None:
    (tmp_path / "peers.json").write_text(damage)
    peers, why = load_peers(tmp_path)
    assert not peers
    assert "no overlay peer is let in" in why


# --- verbs that need no gate --------------------------------------------------------------------------------------


def test_verbs_of_a_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(text({"plc-7": "overlay: 10.64.7.17", "plc-8": ""}))
    code, out, err = cli("overlay", "assign", policy, "--json")
    assert code == 0, err
    record = json.loads(out)["record"]
    assert record == str(tmp_path / "policy.overlay.yaml")
    before = Path(record).read_text()
    assert cli("overlay", "assign", policy)[0] == 0
    assert Path(record).read_text() == before
    addresses = json.loads(cli("overlay", "addresses", policy, "--json")[1])["assets"]
    assert addresses["plc-7"][0] == "10.64.7.17"
    assert len(addresses["plc-8"]) == 2
    code, out, err = cli("overlay", "zone", policy, "--dir", tmp_path / "zones", "--serial", "7")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "zones").iterdir())
    assert names[1:] == ["7.64.10.in-addr.arpa.zone", "riverside-water.internal.zone"]
    zone = (tmp_path / "zones" / names[-1]).read_text()
    assert "plc-7 IN A 10.64.7.17\n" in zone and " ( 7 3600 " in zone
    for style, line in (
        ("cisco", "ip route 10.64.7.0 255.255.255.0 10.1.0.1"),
        ("junos", "set routing-options static route 10.64.7.0/24 next-hop 10.1.0.1"),
        ("routeros", "/ip route add dst-address=10.64.7.0/24 gateway=10.1.0.1"),
        ("linux", "ip route add 10.64.7.0/24 via 10.1.0.1"),
    ):
        assert line in cli("overlay", "routes", policy, "--style", style)[1]


def test_without_an_overlay_the_verbs_say_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("site: works\nzones: {}\n")
    for what in ("zone", "routes", "addresses", "assign"):
        code, _, err = cli("overlay", what, policy)
        assert code == 2
        assert "no `overlay:` section" in err
