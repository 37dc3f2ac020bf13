"""The gate in real namespaces: what it is for goes through, and nothing else does, whatever is done to the kernel."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.enforce.conftest import Live
from tests.enforce.site import DEVICE, ERP, NEAR, OVERLAY, STRANGER, at, ip, netns
from tests.gate.plant import cli
from tests.waiting import eventually, kill

pytestmark = netns
TOKEN = b"cofferdam-canary"


@pytest.mark.parametrize("address", [OVERLAY, NEAR], ids=["by a route", "in the office's own network"])
def test_a_brokered_read_and_write(live: Live, address: str) -> None:
    with live.site.client(address) as client:
        assert client.read() == b"\x03\x02\x00\x2a"
        before = len(live.device.writes)
        assert client.write(0x10002)
        assert live.device.writes[before:] == [0x10002]


def test_status_says_what_is_in_force(live: Live) -> None:
    status = live.gate.status()
    assert status["separation"] == "namespaces"
    facts = {fact["name"]: fact["in_force"] for fact in status["facts"]}
    for name in ("network namespaces", "firewall", "mount namespaces", "own users", "system-call filter"):
        assert facts[name], name


@pytest.mark.parametrize(("source", "port"), [(STRANGER, 502), (ERP, 503), (ERP, 22)])
def test_who_is_not_in_the_policy_gets_no_answer_at_all(live: Live, source: str, port: int) -> None:
    with pytest.raises(TimeoutError):
        live.site.client(source=source, port=port, timeout=0.7)


def test_every_half_is_stripped(live: Live) -> None:
    users = set()
    for name, pid in live.gate.pids().items():
        if not name.endswith(("outer", "inner")):
            continue
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert {status[field].strip() for field in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert 64000 <= int(status["Uid"].split()[0]) <= 64999
        assert status["Groups"].strip() == ""
        users.add(status["Uid"])
        tops = sorted(path.name for path in Path(f"/proc/{pid}/root").iterdir())
        assert not {"proc", "dev", "run", "home", "var", "sys"} & set(tops), tops
        # The whole of the launcher's state is out of sight.
        assert not Path(f"/proc/{pid}/root{live.site.state}").exists()
    assert len(users) == 2


def remembers(pid: int, wanted: bytes) -> bool:
    """Whether a process has these bytes anywhere in its memory."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if not rights.startswith("rw") or line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            first, last = (int(text, 16) for text in place.split("-"))
            memory.seek(first)
            with contextlib.suppress(OSError):  # it has been given back meanwhile
                if wanted in memory.read(last - first):
                    return True
    return False


def test_an_outer_half_does_not_know_where_the_device_is(live: Live) -> None:
    """Who owns the office side learns nothing of the plant's addresses: they never came there."""
    with live.site.client() as client:
        assert client.read() == b"\x03\x02\x00\x2a"
        assert client.write(0x10003)
        pids = live.gate.pids()
        outer, inner = (next(pids[name] for name in pids if name.endswith(end)) for end in ("outer", "inner"))
        assert remembers(inner, DEVICE.encode())
        assert remembers(outer, OVERLAY.encode())
        assert not remembers(outer, DEVICE.encode())
        assert not remembers(inner, OVERLAY.encode())


def test_sides_are_different_namespaces_and_the_host_has_neither_interface(live: Live) -> None:
    pids = live.gate.pids()
    net = {name: str(Path(f"/proc/{pid}/ns/net").readlink()) for name, pid in pids.items()}
    outer, inner = (next(net[name] for name in net if name.endswith(end)) for end in ("outer", "inner"))
    assert len({outer, inner, str(Path("/proc/self/ns/net").readlink())}) == 3
    assert live.site.it not in ip("-br", "link") and live.site.ot not in ip("-br", "link")


class Ear:
    """Hears every frame that arrives on the plant's wire."""

    def __init__(self, live: Live) -> None:
        with at(live.site.plant):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.settimeout(0.4)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def heard(self) -> int:
        """How many canaries came since the last time."""
        count = 0
        while True:
            try:
                frame, where = self._socket.recvfrom(65535)
            except TimeoutError:
                return count
            if where[2] != socket.PACKET_OUTGOING and (TOKEN in frame or bytes([10, 81, 0]) in frame):
                count += 1


def shout(live: Live) -> None:
    """Canaries from the office: by the kernel's routing, and as raw frames to the gate and to everyone."""
    with at(live.site.office):
        with socket.socket() as tcp:
            tcp.setblocking(False)
            tcp.connect_ex((DEVICE, 502))
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(TOKEN, (DEVICE, 502))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.sendto(b"\x08\x00" + b"\x00" * 6 + TOKEN, (DEVICE, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 47) as gre:
            gre.sendto(b"\x00" * 4 + TOKEN, (DEVICE, 0))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("net0", 0))
            own = raw.getsockname()[4]
            neighbours = ip("-n", live.site.office, "neigh", "show", "10.81.0.1").split()
            gate = bytes.fromhex(neighbours[neighbours.index("lladdr") + 1].replace(":", ""))
            for to in (gate, b"\xff" * 6):
                for kind in (0x0800, 0x86DD, 0x8100, 0x0806, 0x8892, 0x88B8, 0x88A4, 0x88CC, 0x88F7):
                    raw.send(to + own + struct.pack(">H", kind) + b"\x00" * 30 + TOKEN)


def test_nothing_else_crosses_also_when_the_kernel_is_sabotaged(live: Live) -> None:
    with Ear(live) as ear:
        with live.site.client() as client:
            client.read()
        ear.heard()
        shout(live)
        assert ear.heard() == 0
        it, ot = live.site.gates()
        for namespace in (it, ot):
            for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"):
                subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-q", f"{name}=1"], check=True)
            subprocess.run(["ip", "netns", "exec", namespace, "nft", "flush", "ruleset"], check=True)
        shout(live)
        assert ear.heard() == 0
        # The ear is not deaf: the same canary, sent by the gate's own plant side, is heard.
        with at(ot), socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(TOKEN, (DEVICE, 502))
        eventually(lambda: ear.heard() >= 1)
    # A reload puts the rules and the switches right.
    assert cli("reload", "--state", live.site.state)[0] == 0
    assert "policy drop" in ip("netns", "exec", it, "nft", "list", "ruleset")
    assert ip("netns", "exec", it, "sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"


def test_the_audit_log_is_whole(live: Live) -> None:
    code, said, _ = cli("audit", "verify", "--state", live.site.state)
    assert code == 0, said


def test_a_reload_publishes_another_asset_and_keeps_sessions(live: Live) -> None:
    site = live.site
    more = f"  other: {{zone: plant, address: {DEVICE}, protocol: modbus, unit: 1, timeout: 20 s, overlay: 100.65.7.99, points: {{level: {{at: holding 0, type: uint16}}}}}}"  # noqa: E501
    rule = "      - {who: erp, asset: other, read: all}"
    with site.client() as client:
        client.read()
        with pytest.raises(OSError):
            site.client("100.65.7.99", timeout=0.5)
        site.policy.write_text(site.text(more=more, rules=rule))
        code, _, said = cli("reload", "--state", site.state)
        assert code == 0, said
        with site.client("100.65.7.99") as new:
            assert new.read() == b"\x03\x02\x00\x2a"
    site.policy.write_text(site.text())
    assert cli("reload", "--state", site.state)[0] == 0
    with pytest.raises(OSError):
        site.client("100.65.7.99", timeout=0.5)
    with site.client() as client:
        assert client.read() == b"\x03\x02\x00\x2a"


def test_a_reload_with_other_interfaces_is_refused_and_changes_nothing(live: Live) -> None:
    site = live.site
    site.policy.write_text(site.text(plant=f"interface: {site.ot}, addresses: [10.82.0.9/24]"))
    code, _, said = cli("reload", "--state", site.state)
    assert code != 0 and "started anew" in said
    site.policy.write_text(site.text())
    with site.client() as client:
        assert client.read() == b"\x03\x02\x00\x2a"


def test_a_half_that_dies_comes_back_in_its_place(live: Live) -> None:
    name, pid = next((name, pid) for name, pid in live.gate.pids().items() if name.endswith("inner"))
    kill(pid)
    eventually(lambda: live.gate.pids().get(name) not in (None, pid))
    live.gate.wait_ready()
    with live.site.client() as client:
        assert client.read() == b"\x03\x02\x00\x2a"
    assert live.gate.pids()[name] != pid
