"""The overlay in real namespaces: addresses of both versions, names, and a peer that comes by WireGuard and goes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from dnslib import RCODE, DNSRecord

from cofferdam.enforce.overlay.tunnel import SOCKETS
from cofferdam.enforce.putback import clean
from cofferdam.gate.client import ask as ask_gate
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.jump.site import THERE, Sshd
from tests.enforce.site import DEVICE, ERP, GATE_IT, PORT, PlantDevice, Site, at, ip, netns
from tests.gate.plant import Client, Gate, cli, events
from tests.waiting import PATIENT, eventually, kill

pytestmark = netns
ERP6, GATE6 = "fd81::20", "fd81::1"
TIMEOUT = PATIENT
SILENCE = 0.7
"""How long is waited for what must not come."""

VENDOR = f"""
  vendor-helps:
    from: office
    to: plant
    broker: jump
    owner: tests
    reason: tests
    listen: "{GATE_IT}:22"
    clients: laptop
    allow:
      - {{who: {{person: vendor}}, asset: station, as: root, do: exec, commands: "echo *"}}
      - {{who: {{person: vendor}}, asset: auto, do: port}}
  by-port:
    from: office
    to: plant
    broker: modbus
    owner: tests
    reason: tests
    allow: [{{who: helpers, asset: auto, read: level}}]
"""


class World(Site):
    """The site with an overlay, and a host of its own somewhere outside, from which a peer comes."""

    def __init__(self, folder: Path) -> None:
        self.port = 5182  # below the ports that the kernel gives to who asks for any
        self.away = f"cdt{os.getpid()}-{secrets.token_hex(2)}-wg"
        self.wire = f"cdt{secrets.token_hex(2)}w"
        base = secrets.randbelow(1 << 14) * 4
        self.outside, self.host_side = (f"198.18.{base >> 8}.{(base & 255) + n}" for n in (2, 1))
        super().__init__(folder)

    def text(self, **changes: str) -> str:
        office = f"interface: {self.it}, addresses: [{GATE_IT}/24, '{GATE6}/64']"
        plain = super().text(office=changes.pop("office", office), **changes)
        points = "timeout: 20 s, points: {level: {at: holding 0, type: uint16}, speed: {at: holding 200, type: uint32}}"
        plain = plain.replace(
            "principals:",
            f"  auto: {{zone: plant, address: 10.82.0.17, protocol: modbus, unit: 1, {points}}}\nprincipals:",
        )
        plain = plain.replace(
            f"addresses: [{ERP}]}}",
            f"addresses: [{ERP}, '{ERP6}']}}\n  alice: {{zone: office, peer: alice}}"
            "\n  laptop: {zone: office, peer: laptop}\n  helpers: {zone: office, jump: vendor-helps}",
        )
        station = f"  station: {{zone: plant, address: {DEVICE}, protocol: ssh}}\nprincipals:"
        plain = plain.replace("principals:", station).replace("gate: {", VENDOR + "gate: {")
        plain = plain.replace("{who: erp, asset: [plc, near]", "{who: [erp, alice], asset: [plc, near, auto]")
        endpoint = f'"{self.host_side}:{self.port}"'
        return plain + f"overlay: {{prefix: 10.91.7.0/24, wireguard: {{endpoint: {endpoint}, peers: 10.91.8.0/24}}}}\n"

    def __enter__(self) -> World:
        super().__enter__()
        ip("-n", self.office, "addr", "add", f"{ERP6}/64", "dev", "net0", "nodad")
        ip("-n", self.office, "route", "add", "10.91.7.0/24", "via", GATE_IT)
        prefix6 = self.compiled().overlay.prefixes[1]  # type: ignore[union-attr]
        ip("-n", self.office, "-6", "route", "add", prefix6, "via", GATE6)
        ip("netns", "add", self.away)
        ip("link", "add", self.wire, "type", "veth", "peer", "name", "net0", "netns", self.away)
        ip("addr", "add", f"{self.host_side}/30", "dev", self.wire)
        ip("link", "set", self.wire, "up")
        ip("-n", self.away, "addr", "add", f"{self.outside}/30", "dev", "net0")
        ip("-n", self.away, "link", "set", "net0", "up")
        ip("-n", self.away, "link", "set", "lo", "up")
        return self

    def __exit__(self, *args: Any) -> None:
        subprocess.run(["ip", "link", "del", self.wire], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.away], capture_output=True, check=False)
        super().__exit__(*args)

    def compiled(self) -> CompiledPolicy:
        return compile_policy(load(self.policy), now_ns=time.time_ns())

    def places(self, asset: str) -> list[str]:
        return [address for address, _ in self.compiled().assets[asset].places]


class Running:
    def __init__(self, world: World, device: PlantDevice, gate: Gate) -> None:
        self.world = world
        self.device = device
        self.gate = gate


@pytest.fixture(scope="module")
def live() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, World(Path(folder)) as world:
        device = PlantDevice(world.plant)
        gate = Gate(world.state, world.policy)
        try:
            gate.wait_ready()
            yield Running(world, device, gate)
            assert gate.stop() == 0, gate.said()
            assert not world.gates()
            assert not list(SOCKETS.glob("cd????????w.sock"))
        finally:
            gate.close()
            clean(world.state)
            device.close()


def connect(namespace: str, address: str, source: str = "", timeout: float = TIMEOUT) -> Client:
    client = Client.__new__(Client)
    with at(namespace):
        client._socket = socket.create_connection(
            (address, PORT), timeout=timeout, source_address=(source, 0) if source else None
        )
    client._id = 0
    return client


def ask(namespace: str, server: str, name: str, kind: str = "A", *, stream: bool = False) -> DNSRecord:
    wire = bytes(DNSRecord.question(name, kind).pack())
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with at(namespace), socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as asker:
        asker.settimeout(TIMEOUT if stream else 5)
        asker.connect((server, 53))
        if not stream:
            found: list[bytes] = []

            def answered() -> bool:
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    asker.send(wire)
                    found.append(asker.recv(4096))
                return bool(found)

            eventually(answered)  # what comes before its server, or its tunnel, is there is lost
            return DNSRecord.parse(found[0])
        asker.sendall(len(wire).to_bytes(2, "big") + wire)
        with asker.makefile("rb") as answers:
            return DNSRecord.parse(answers.read(int.from_bytes(answers.read(2), "big")))


# --- addresses and names ----------------------------------------------------------------------------------------------


def test_every_asset_answers_at_its_addresses_of_both_versions(live: Running) -> None:
    for asset in ("plc", "auto"):
        four, six = live.world.places(asset)
        for address, source in ((four, ERP), (six, ERP6)):
            with connect(live.world.office, address, source) as client:
                assert client.read() == b"\x03\x02\x00\x2a", (asset, address)


def test_a_free_slice_of_the_offices_network_needs_no_route(live: Running) -> None:
    """The kernel answers ARP for an address that is local to the namespace."""
    with connect(live.world.office, live.world.places("near")[0], ERP) as client:
        assert client.read() == b"\x03\x02\x00\x2a"
    assert "lladdr" in ip("-n", live.world.office, "neigh", "show", live.world.places("near")[0])


def test_there_is_no_nat_and_no_forwarding(live: Running) -> None:
    for namespace in live.world.gates():
        rules = ip("netns", "exec", namespace, "nft", "-j", "list", "ruleset")
        assert not {"snat", "dnat", "masquerade", "redirect", "tproxy"} & set(rules.replace('"', " ").split())
        for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            assert ip("netns", "exec", namespace, "cat", f"/proc/sys/net/{switch}").strip() == "0"


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_names_are_served_to_the_office(live: Running, stream: bool) -> None:
    world = live.world
    overlay = world.compiled().overlay
    assert overlay is not None
    name = f"auto.{overlay.domain}"
    for server in overlay.dns:
        reply = ask(world.office, server, name, stream=stream)
        assert [str(record.rdata) for record in reply.rr] == world.places("auto")[:1]
        assert RCODE[ask(world.office, server, "example.com", stream=stream).header.rcode] == "REFUSED"


def test_the_name_server_is_confined_like_a_half(live: Running) -> None:
    found = subprocess.run(
        ["pgrep", "-f", "cofferdam.enforce.overlay.names"], capture_output=True, text=True, check=True
    )
    inodes = {Path(f"/run/netns/{name}").stat().st_ino for name in live.world.gates() if name.endswith("-it")}
    mine = []
    for pid in found.stdout.split():
        with contextlib.suppress(OSError):  # another gate's, which has ended meanwhile
            if Path(f"/proc/{pid}/ns/net").stat().st_ino in inodes:
                mine.append(pid)
    assert len(mine) == 1
    status = Path(f"/proc/{mine[0]}/status").read_text()
    for line in ("CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    assert not Path(f"/proc/{mine[0]}/root/etc/passwd").exists()
    facts = {fact["name"]: fact["in_force"] for fact in live.gate.status()["facts"]}
    assert facts["name server: system-call filter"]


def test_who_is_no_principal_gets_no_names(live: Running) -> None:
    with at(live.world.office), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind(("10.81.0.66", 0))
        asker.settimeout(0.5)
        asker.sendto(bytes(DNSRecord.question("x.internal").pack()), ("10.91.7.1", 53))
        with pytest.raises(TimeoutError):
            asker.recv(512)


def test_zone_and_routes_of_the_running_gate(live: Running) -> None:
    code, out, err = cli("overlay", "routes", "--state", live.world.state)
    assert code == 0, err
    assert f"ip route add 10.91.7.0/24 via {GATE_IT}" in out
    assert f"via {GATE6}" in out
    assert "100.65.7.17/32" in out
    assert "10.81.0.77/32 lies within zone office" in out
    code, out, err = cli("overlay", "zone", "--state", live.world.state)
    assert code == 0, err
    assert f"auto IN A {live.world.places('auto')[0]}" in out


# --- a peer -----------------------------------------------------------------------------------------------------------

needs_wireguard = pytest.mark.skipif(
    shutil.which("wireguard-go") is None or shutil.which("wg") is None, reason="wireguard-go or wg is not installed"
)


class PeerHost:
    """A machine outside with a WireGuard client of its own, set up by the configuration that the gate gave."""

    def __init__(self, world: World, config: str) -> None:
        self.world = world
        self.config = config
        self._start()

    def restart(self) -> None:
        """A client that lost its session begins a new one at once; one that goes on would wait some seconds."""
        self.close()
        self._start()

    def _start(self) -> None:
        world, config = self.world, self.config
        self.name = f"cdc{secrets.token_hex(4)}"
        command = ["ip", "netns", "exec", world.away, "wireguard-go", "-f", self.name]
        environment = {**os.environ, "LOG_LEVEL": "error", "WG_PROCESS_FOREGROUND": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        eventually((SOCKETS / f"{self.name}.sock").exists)
        fields = dict(line.split(" = ", 1) for line in config.splitlines() if " = " in line)
        quick = ("Address", "DNS", "MTU")
        stripped = "\n".join(line for line in config.splitlines() if line.split(" = ")[0] not in quick)
        path = world.folder / f"{self.name}.conf"
        path.write_text(stripped + "\n")
        subprocess.run(["wg", "setconf", self.name, str(path)], check=True, timeout=PATIENT)
        self.addresses = [text.split("/")[0] for text in fields["Address"].split(", ")]
        for text in fields["Address"].split(", "):
            more = ["nodad"] if ":" in text else []
            ip("-n", world.away, "addr", "add", text, "dev", self.name, *more)
        ip("-n", world.away, "link", "set", self.name, "mtu", fields["MTU"], "up")
        for network in fields["AllowedIPs"].split(", "):
            ip("-n", world.away, "route", "add", network, "dev", self.name)
        self.dns = fields.get("DNS", "").split(", ")[0]

    def sends_all(self) -> None:
        """Whatever it is asked for goes into the tunnel from now on: whoever owns this end keeps to no list of ours."""
        said = subprocess.run(["wg", "show", self.name, "peers"], check=True, capture_output=True, text=True).stdout
        subprocess.run(["wg", "set", self.name, "peer", said.strip(), "allowed-ips", "0.0.0.0/0"], check=True)
        ip("-n", self.world.away, "route", "add", "default", "dev", self.name)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENT)
        (SOCKETS / f"{self.name}.sock").unlink(missing_ok=True)


@contextlib.contextmanager
def peer(live: Running, name: str = "alice") -> Iterator[PeerHost]:
    code, out, err = cli("overlay", "add-peer", name, "--json", "--state", live.world.state)
    assert code == 0, err
    host = PeerHost(live.world, json.loads(out)["config"])
    try:
        yield host
    finally:
        host.close()
        cli("overlay", "revoke", name, "--state", live.world.state)


def listed(live: Running) -> dict[str, Any]:
    code, out, err = cli("overlay", "peers", "--json", "--state", live.world.state)
    assert code == 0, err
    return {entry["name"]: entry for entry in json.loads(out)["peers"]}


@needs_wireguard
def test_a_peer_reaches_an_asset_by_name_and_is_cut_off_by_revoke(live: Running) -> None:
    """CIP-005-7 R2.4, R2.5: of a system as of a person, a session that lives is seen, and ended."""
    world = live.world
    overlay = world.compiled().overlay
    assert overlay is not None
    with peer(live) as host:
        reply = ask(world.away, host.dns, f"auto.{overlay.domain}")
        address = str(reply.rr[0].rdata)
        assert address == world.places("auto")[0]
        with connect(world.away, address) as client, connect(world.office, address, ERP) as other:
            assert client.read() == b"\x03\x02\x00\x2a"
            assert other.read() == b"\x03\x02\x00\x2a"
            before = len(live.device.writes)
            assert client.write(0x10003)
            assert live.device.writes[before:] == [0x10003]
            session = next(s for s in live.gate.status()["sessions"] if s["source"] in host.addresses)
            assert session["principals"] == ["alice"]
            entry = listed(live)["alice"]
            assert entry["handshake"] > 0
            assert entry["received"] > 0 and entry["sent"] > 0

            code, out, err = cli("overlay", "revoke", "alice", "--json", "--state", world.state)
            assert code == 0, err
            assert json.loads(out)["sessions"] == 1
            assert not [s for s in live.gate.status()["sessions"] if s["source"] in host.addresses]
            client._socket.settimeout(SILENCE)
            with pytest.raises(OSError):
                client.read()
            with pytest.raises(OSError):
                connect(world.away, address, "", SILENCE)
            assert other.read() == b"\x03\x02\x00\x2a", "the other principal's session goes on"
        assert listed(live) == {}
    assert [event["peer"] for event in events(world.state, "peer-added")][-1] == "alice"
    assert [event["peer"] for event in events(world.state, "peer-revoked")][-1] == "alice"
    closed = [event for event in events(world.state, "session-closed") if "revoked" in event["reason"]]
    assert closed


def let_in(namespace: str, door: tuple[str, int], *others: tuple[str, int]) -> list[tuple[str, int]]:
    """Where somebody answers who is asked from there. The door is asked last, by the same way: whoever was asked before
    it has answered when it does."""
    with contextlib.ExitStack() as stack, at(namespace):
        tried = {place: stack.enter_context(socket.socket()) for place in (*others, door)}
        for place, one in tried.items():
            one.setblocking(False)
            assert one.connect_ex(place) in (errno.EINPROGRESS, errno.ECONNREFUSED)
        waiting = select.poll()
        waiting.register(tried[door], select.POLLOUT)
        assert waiting.poll(PATIENT * 1000)
        return [place for place, one in tried.items() if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                and _connected(one)]  # fmt: skip


def _connected(one: socket.socket) -> bool:
    try:
        return bool(one.getpeername())
    except OSError:
        return False


def dropped(live: Running) -> int:
    """Packets that the office side's firewall has dropped."""
    status = live.gate.status()
    return sum(sum(side["packets"].values()) for side in status["dropped"])


def _reached(namespace: str, port: int) -> bool:
    """Whether somebody listens there."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "ss", "-Hltn", f"sport = :{port}"], capture_output=True, check=True
    )
    return bool(done.stdout)


@needs_wireguard
@pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
def test_a_vendor_who_has_nothing_but_a_tunnel(live: Running) -> None:
    """CIP-005-7 R2.1, R2.3; CIP-003-9 Att. 1 section 6. The tunnel ends at the gate and opens one door, at which two
    factors are asked for; a session of ours goes on. Without the tunnel the peer comes nowhere, nor once it is gone."""
    world = live.world

    def jump(*words: str, **arguments: str) -> str:
        code, out, err = cli("jump", *words, "--state", world.state)
        assert code == 0, err
        return out

    key = world.folder / "vendor"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    jump("person", "add", "vendor")
    jump("factor", "key", "vendor", f"{key}.pub")
    (world.folder / "known").write_text(jump("known-hosts"))
    askpass = world.folder / "askpass"
    askpass.write_text('#!/bin/sh\necho "$TEST_CODE"\n')
    askpass.chmod(0o755)
    sshd = Sshd(world.folder / "station", 22, DEVICE, world.plant)

    def command(namespace: str, code: str, seconds: float = TIMEOUT) -> tuple[list[str], dict[str, str]]:
        said = ("IdentitiesOnly=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={seconds:g}", "LogLevel=ERROR",
                f"UserKnownHostsFile={world.folder}/known", "NumberOfPasswordPrompts=1")  # fmt: skip
        words = ["ip", "netns", "exec", namespace, "ssh", "-F", "none", "-i", str(key)]
        for option in said:
            words += ["-o", option]
        asked = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "TEST_CODE": code}
        return words, os.environ | asked

    def ssh(namespace: str, code: str, seconds: float = TIMEOUT) -> subprocess.CompletedProcess[bytes]:
        """`seconds`: less where nobody is to be reached."""
        words, environment = command(namespace, code, seconds)
        return subprocess.run(
            [*words, f"station@{GATE_IT}", "echo", "in"], capture_output=True, env=environment, timeout=PATIENT,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def by_a_port() -> None:
        """To an asset that is a PLC: by its own broker, which judges what is asked, and within two sides that share
        nothing."""
        words, environment = command(world.away, code())
        words += ["-N", "-L", "5020:auto:502", f"vendor@{GATE_IT}"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=environment)
        try:
            eventually(lambda: _reached(world.away, 5020))
            with at(world.away):
                client = Client(5020)
            with client:
                assert client.read() == b"\x03\x02\x00\x2a"
                assert client.write(7) is False
                _, out, err = cli("prove", "--state", world.state, "--json", "--no-probes")
                found = json.loads(out)["report"]["statements"]
                seams = [one for one in found if one["name"].endswith(": seams")]
                assert [one["status"] for one in seams] == ["observed"] * 2, (err, seams)
                wrong = [one for one in found if one["part"] == "structure" and one["status"] == "failed"]
                assert not wrong
        finally:
            process.terminate()
            process.wait(PATIENT)

    def code() -> str:
        (answer,) = ask_gate(world.state, "ask-part", broker="jump", part="keeper", verb="code-new",
                             arguments={"person": "vendor"}, crew="")  # fmt: skip
        return pyotp.TOTP(answer["result"]["secret"]).at(int(time.time()) + 30)

    try:
        made = json.loads(jump("credential", "station", "root", "--new-key", "--json"))
        sshd.authorize(made["public_key"])
        (world.folder / "station.pub").write_text(sshd.public_key)
        jump("host-key", "station", "--file", str(world.folder / "station.pub"), "--yes")
        assert ssh(world.away, code(), 2).returncode == 255  # there is no way there
        assert ssh(world.office, code(), 2).returncode == 255  # where no client is
        with peer(live, "laptop") as host:
            assert (done := ssh(world.away, "000000")).returncode == 255, done
            done = ssh(world.away, code())
            assert (done.stdout, done.returncode) == (b"in\n", 0), done.stderr
            (opened,) = events(world.state, "access-opened")
            assert opened["source"] in host.addresses
            by_a_port()
            host.sends_all()
            assert not host.dns
            others = [(world.places("auto")[0], PORT), (DEVICE, 22), (DEVICE, PORT), (ERP, 22), ("10.91.7.1", 53)]
            others += [(GATE_IT, port) for port in (*range(1, 600), 8443) if port != 22]
            before = dropped(live)
            assert let_in(world.away, (GATE_IT, 22), *others) == [(GATE_IT, 22)]
            while dropped(live) < before + len(others):  # they came so far, but for what the tunnel lost
                assert let_in(world.away, *others) == []
        assert ssh(world.away, code(), 2).returncode == 255
    finally:
        sshd.close()


@needs_wireguard
def test_a_peer_has_the_address_of_its_key_and_no_other(live: Running) -> None:
    world = live.world
    with peer(live) as host:
        for address in world.places("plc"):
            with connect(world.away, address) as client:
                assert client.read() == b"\x03\x02\x00\x2a"
        # As the ERP, as another peer, as an asset: the device drops what the key does not own.
        for forged in (ERP, "10.91.8.200", "10.91.7.250"):
            ip("-n", world.away, "addr", "add", f"{forged}/32", "dev", host.name)
            with pytest.raises(OSError):
                connect(world.away, world.places("plc")[0], forged, SILENCE)
        # What is no overlay address is not reached by the tunnel.
        ip("-n", world.away, "route", "add", "10.82.0.0/24", "dev", host.name)
        with pytest.raises(OSError):
            connect(world.away, "10.82.0.17", host.addresses[0], SILENCE)


def tunnel_program(world: World) -> str:
    """The process id of this gate's wireguard-go, or ""."""
    found = subprocess.run(
        ["pgrep", "-f", "^/.*wireguard-go -f cd[0-9a-f]{8}w$"], capture_output=True, text=True, check=False
    )
    for pid in found.stdout.split():
        with contextlib.suppress(OSError):
            parent = Path(f"/proc/{pid}/stat").read_text().split()[3]
            if str(world.state) in Path(f"/proc/{parent}/cmdline").read_text():
                return pid
    return ""


def exchange(control: Path, text: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(control))
        sock.settimeout(TIMEOUT)
        sock.sendall(text.encode())
        said = b""
        while not said.endswith(b"\n\n") and (piece := sock.recv(65536)):
            said += piece
        return said.decode()


@pytest.mark.heavy
@needs_wireguard
def test_the_tunnels_program_has_no_privilege_and_is_started_again(live: Running) -> None:
    world = live.world

    def program() -> str:
        return tunnel_program(world)

    code, out, err = cli("overlay", "add-peer", "alice", "--json", "--state", world.state)
    assert code == 0, err
    config, out_of_peer = json.loads(out)["config"], out
    first = program()
    assert first
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{first}/status").read_text().splitlines())
    assert {status[field].strip() for field in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["Uid"].split()[0]) >= 64000
    code, out, err = cli("prove", "--json", "--state", world.state)
    said = {entry["name"]: entry["status"] for entry in json.loads(out)["report"]["statements"]}
    assert code == 0, out[-3000:] + err
    assert {said[f"tunnel: {what}"] for what in ("user", "filter", "sockets")} == {"observed"}
    assert {said[f"{name}: system calls"] for name in ("modbus/outer", "modbus/inner", "names", "tunnel")} == {"tested"}
    assert said["filters: content"] == "assumed"
    # A key that somebody gave the device behind the gate's back is found.
    (control,) = SOCKETS.glob("cd????????w.sock")
    stranger = secrets.token_hex(32)
    # So is an address too many of one that may come.
    known = next(line for line in exchange(control, "get=1\n\n").splitlines() if line.startswith("public_key="))
    own = json.loads(out_of_peer)["addresses"]
    kept = "\n".join(f"allowed_ip={one}/{128 if ':' in one else 32}" for one in own)
    for what in (
        f"public_key={stranger}\nallowed_ip=10.64.8.99/32", f"public_key={stranger}\nremove=true",
        f"{known}\nallowed_ip=10.81.0.0/24", f"{known}\nreplace_allowed_ips=true\n{kept}",
    ):  # fmt: skip
        assert "errno=0" in exchange(control, f"set=1\n{what}\n\n")
        code, out, _ = cli("prove", "--no-probes", "--json", "--state", world.state)
        wrong = [entry for entry in json.loads(out)["report"]["statements"] if entry["status"] == "failed"]
        assert [entry["name"] for entry in wrong] == (
            ["it: peers"] if "allowed_ip=10." in what and kept not in what else []
        )
    tops = {path.name for path in Path(f"/proc/{first}/root").iterdir()}
    assert not {"proc", "dev", "home", "sys", "root", "tmp"} & tops, tops
    assert not Path(f"/proc/{first}/root/etc/passwd").exists()
    kill(int(first))
    eventually(lambda: program() not in ("", first) and ask_gate(world.state, "peers")["tunnel"])
    # The peers are let in anew without anybody's help.
    host = PeerHost(world, config)
    try:
        with connect(world.away, world.places("plc")[0]) as client:
            assert client.read() == b"\x03\x02\x00\x2a"
    finally:
        host.close()
        cli("overlay", "revoke", "alice", "--state", world.state)


@needs_wireguard
def test_a_peer_that_the_policy_names_no_more_is_shut_out(live: Running) -> None:
    world = live.world
    whole = world.policy.read_text()
    with peer(live) as host:
        client = connect(world.away, world.places("plc")[0])
        assert client.read() == b"\x03\x02\x00\x2a"
        world.policy.write_text(whole.replace("peer: alice", "peer: bob"))
        try:
            code, _, err = cli("reload", "--state", world.state)
            assert code == 0, err
            assert not listed(live)["alice"]["in_policy"]
            client._socket.settimeout(SILENCE)
            with pytest.raises(OSError):
                client.read()
            with pytest.raises(OSError):
                connect(world.away, world.places("plc")[0], host.addresses[0], SILENCE)
        finally:
            client.close()
            world.policy.write_text(whole)
            assert cli("reload", "--state", world.state)[0] == 0
        assert listed(live)["alice"]["in_policy"]
        host.restart()
        with connect(world.away, world.places("plc")[0]) as again:
            assert again.read() == b"\x03\x02\x00\x2a"


def test_who_can_not_be_added(live: Running) -> None:
    state = live.world.state
    for arguments, expected in (
        (("mallory",), "no principal of the policy is the peer mallory"),
        (("alice", "--key", "AAAA"), "not a WireGuard public key"),
        (("alice", "--key", "A" * 43 + "="), "not a WireGuard public key"),
    ):
        code, _, err = cli("overlay", "add-peer", *arguments, "--state", state)
        assert code == 2
        assert expected in err
    code, _, err = cli("overlay", "revoke", "mallory", "--state", state)
    assert code == 2
    assert "there is no peer mallory" in err


def test_the_configuration_as_a_file_and_a_picture(live: Running) -> None:
    world = live.world
    config, picture = world.folder / "alice.conf", world.folder / "alice.png"
    code, out, err = cli(
        "overlay", "add-peer", "alice", "--output", config, "--png", picture, "--qr", "--state", world.state
    )
    try:
        assert code == 0, err
        text = config.read_text()
        key = next(line.split(" = ")[1] for line in text.splitlines() if line.startswith("PrivateKey"))
        assert key not in out + err
        assert (config.stat().st_mode & 0o777, picture.stat().st_mode & 0o777) == (0o600, 0o600)
        assert picture.read_bytes().startswith(b"\x89PNG")
        for path in world.state.rglob("*"):
            if path.is_file():
                assert key.encode() not in path.read_bytes(), path
    finally:
        assert cli("overlay", "revoke", "alice", "--state", world.state)[0] == 0


@needs_wireguard
def test_revoke_holds_even_if_the_tunnels_program_hangs(live: Running) -> None:
    """A program that takes no order is ended: who is revoked is out, whatever happens to the others."""
    world = live.world
    with peer(live) as host:
        with connect(world.away, world.places("plc")[0]) as client:
            assert client.read() == b"\x03\x02\x00\x2a"
        held = tunnel_program(world)
        kill(int(held), signal.SIGSTOP)
        code, _, err = cli("overlay", "revoke", "alice", "--state", world.state)
        assert code == 2
        assert "alice is revoked" in err
        with pytest.raises(OSError):
            connect(world.away, world.places("plc")[0], host.addresses[0], SILENCE)
        eventually(lambda: tunnel_program(world) not in ("", held) and ask_gate(world.state, "peers")["tunnel"])
        assert listed(live) == {}
        host.restart()
        with pytest.raises(OSError):
            connect(world.away, world.places("plc")[0], host.addresses[0], SILENCE)
