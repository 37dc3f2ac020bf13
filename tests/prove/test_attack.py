"""Ransomware owns the ERP host and is root there. It tries all it can from there; what reaches the device is what the
policy allows, and the log has what happened. See docs/attack.md; test_takeover goes on from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from cofferdam.lab.water.intruder import adu, forbidden_writes, function_probe, malformed_frames
from cofferdam.proof import frames
from tests.enforce.site import DEVICE, ERP, GATE_IT, GATE_OT, NEAR, OVERLAY, STRANGER, at, ip
from tests.gate.plant import Gate, events, log_of
from tests.prove.attacked import OPERATOR, Scene, attacked
from tests.waiting import PATIENT, eventually

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """The gate as it is. After all attacks: nothing strange on the wire, nothing outside policy at the device."""
    with attacked(lambda site: Gate(site.state, site.policy)) as made:
        assert made.works()
        yield made
        assert made.works()
        assert made.device.outside_policy() == []
        assert made.tap.strange() == []
        assert made.gate.stop() == 0
        log_of(made.site.state)


# --- from the host ----------------------------------------------------------------------------------------------------


def test_a_scan_finds_the_published_addresses_and_nothing_else(scene: Scene) -> None:
    ports = [22, 80, 102, 443, 502, 503, 802, 2404, 4840, 9464, 20000, 44818]
    opened: set[tuple[str, int]] = set()
    pending: dict[socket.socket, tuple[str, int]] = {}
    with at(scene.site.office):
        for address in (GATE_IT, GATE_OT, OVERLAY, NEAR, DEVICE, "100.65.7.18", "10.81.0.78"):
            for port in ports:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                sock.bind((ERP, 0))
                sock.connect_ex((address, port))
                pending[sock] = (address, port)
    expected = {(OVERLAY, 502), (NEAR, 502)}
    deadline = time.monotonic() + PATIENT
    while (left := deadline - time.monotonic()) > 0 and pending:
        if opened == expected:  # what else would open, would by now or soon
            deadline = min(deadline, time.monotonic() + 1.0)
        for sock in select.select([], list(pending), [], min(left, 0.2))[1]:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                opened.add(pending[sock])
            del pending[sock]
            sock.close()
    for sock in pending:
        sock.close()
    assert opened == expected


def test_spoofed_addresses_and_stations_and_added_routes_lead_nowhere(scene: Scene) -> None:
    """Sources that are the device's, the gate's own on the far side, loopback and everyone's; targets on both sides."""
    token = b"spoofed-token"
    with scene.raw() as (sock, own, gate):
        for source in (DEVICE, GATE_OT, GATE_IT, "127.0.0.1", OPERATOR, "255.255.255.255", OVERLAY):
            for mac in (own, gate, "02:00:00:00:00:66"):
                target = frames.Target(
                    mac, (gate,), source, (DEVICE, GATE_OT, "127.0.0.1", "10.82.0.255", "224.0.0.1"),
                    "fd00::66", ("fd00::17", "ff02::1"), 502,
                )  # fmt: skip
                for family in frames.FAMILIES:
                    for frame in frames.frames(family, target, token):
                        sock.send(frame)
        # ARP: the intruder is the device, the gate's far side, the operator and the gate itself, to the gate and to all.  # noqa: E501
        for claimed in (DEVICE, GATE_OT, OPERATOR, GATE_IT, NEAR):
            for to in (gate, frames.BROADCAST):
                for kind in (1, 2):
                    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, kind) + bytes.fromhex(own.replace(":", ""))
                    body += socket.inet_aton(claimed) + bytes(6) + socket.inet_aton(claimed)
                    head = bytes.fromhex((to + own).replace(":", "")) + b"\x08\x06"
                    sock.send((head + body).ljust(60, b"\0"))
    for network in ("10.82.0.0/24", "0.0.0.0/1"):
        with contextlib.suppress(AssertionError):
            ip("-n", scene.site.office, "route", "replace", network, "via", GATE_IT)
    with at(scene.site.office), socket.socket(type=socket.SOCK_DGRAM) as udp:
        for port in (502, 161, 53):
            udp.sendto(token, (DEVICE, port))
    ip("-n", scene.site.office, "route", "del", "0.0.0.0/1")
    time.sleep(0.3)
    assert not [frame for frame in scene.tap.frames if token in frame]
    assert scene.tap.strange() == []
    # The gate still knows where the device is, and the office where the gate is.
    ip("-n", scene.site.office, "neigh", "flush", "dev", "net0")
    assert scene.works()


def test_a_stranger_is_not_let_in_even_with_the_right_bytes(scene: Scene) -> None:
    with pytest.raises(TimeoutError):
        scene.site.client(source=STRANGER, timeout=0.6)


def test_every_protocol_at_every_open_port(scene: Scene) -> None:
    """All functions, all forbidden writes, broken frames, and the openings of other protocols."""
    others = [
        b"GET / HTTP/1.1\r\nHost: plc\r\n\r\n", b"SSH-2.0-x\r\n", b"\x03\x00\x00\x16\x11\xe0\x00\x00\x00\x01\x00\xc1\x02\x01\x00",  # noqa: E501
        b"HELF\x20\x00\x00\x00" + bytes(24), b"\x05\x64\x05\xc9\x01\x00\x00\x04\xe9\x21", b"\x68\x04\x07\x00\x00\x00",
        b"\x65\x00\x04\x00" + bytes(24), b"\x16\x03\x01\x02\x00\x01" + bytes(512), bytes(2000),
    ]  # fmt: skip
    probes = [adu(function_probe(function)) for function in range(1, 128)]
    probes += [adu(pdu) for _, pdu in forbidden_writes()]
    writes = [struct.pack(">BHHBI", 16, start, 2, 4, 1) for start in (0, 100, 199, 201, 300, 65534)]
    probes += [adu(pdu, unit=unit) for pdu in writes for unit in (0, 1, 255)]
    probes += others + [frame for _, frame in malformed_frames()]
    for address in (OVERLAY, NEAR):
        for start in range(0, len(probes), 8):
            # A new connection for some probes: a broken frame ends its own.
            for probe in probes[start : start + 8]:
                with contextlib.suppress(OSError), scene.client(address=address) as client:
                    client._socket.sendall(probe)
                    client._socket.settimeout(0.02)
                    client._socket.recv(300)
    assert scene.device.outside_policy() == []
    assert scene.device.requests, "nothing at all came through: then this test shows nothing"
    refused = events(scene.site.state, "refused") + events(scene.site.state, "refused-many")
    assert refused and events(scene.site.state, "malformed")


def test_a_replayed_session_is_no_session(scene: Scene) -> None:
    """Each frame of a session with a write, sent again as it was; from its own host and under the operator's name."""
    with at(scene.site.office):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with ear:
        ear.bind(("net0", 3))
        with scene.client() as client:
            assert client.write(0x12345)
        captured = []
        ear.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                frame, where = ear.recvfrom(65535)
                if where[2] == socket.PACKET_OUTGOING and frame[12:14] == b"\x08\x00":
                    captured.append(frame)
    assert len(captured) >= 4
    before = list(scene.device.writes)
    assert 0x12345 in before
    with scene.raw() as (sock, _, _):
        for _ in range(20):
            for frame in captured:
                sock.send(frame)
                sock.send(frame[:26] + socket.inet_aton(OPERATOR) + frame[30:])
    time.sleep(0.3)
    assert scene.device.writes == before
    # The same request in a new connection of the operator, who may not write.
    with scene.client(source=OPERATOR, address=NEAR) as client:
        assert not client.write(0x12345)
    assert scene.device.writes == before


def test_a_flood_does_not_stop_the_others(scene: Scene) -> None:
    """Connections without end, SYNs from made-up addresses, requests as fast as they go: others are served."""
    stop = threading.Event()

    def connections() -> None:
        held: list[socket.socket] = []
        with at(scene.site.office):
            while not stop.is_set():
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                with contextlib.suppress(OSError):
                    sock.bind((ERP, 0))
                    sock.connect_ex((OVERLAY, 502))
                held.append(sock)
                if len(held) > 400:
                    held.pop(0).close()
        for sock in held:
            sock.close()

    def frames_of_all() -> None:
        rng = random.Random(1)
        with scene.raw() as (sock, own, gate):
            while not stop.is_set():
                source = f"10.81.{rng.randrange(256)}.{rng.randrange(1, 255)}"
                target = frames.Target(own, (gate,), source, (OVERLAY,), "fd00::1", (), 502)
                for family in ("ipv4-tcp", "ipv4-udp", "ipv4-icmp"):
                    with contextlib.suppress(OSError):
                        sock.send(frames.frames(family, target, b"flood-flood-")[0])

    def requests() -> None:
        # One that the device gets, and some that the gate refuses, which it does faster than the device answers.
        some = b"".join(
            adu(b"\x03\x01\x2c\0\x01" if number % 8 else b"\x03\0\0\0\x01", transaction=number) for number in range(320)
        )
        with contextlib.suppress(OSError), asker:
            while not stop.is_set():
                asker._socket.sendall(some)
                asker._socket.recv(4096)

    asker = scene.client()  # before its own flood of connections keeps it out
    threads = [threading.Thread(target=work) for work in (connections, frames_of_all, requests)]
    for thread in threads:
        thread.start()
    try:
        assert all(scene.works() for _ in range(20))
        # On a busy machine it takes a while until it is a flood.
        eventually(lambda: limited(scene) > 0 and told(scene) >= FLOODED)
        assert all(scene.works() for _ in range(20))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert scene.device.outside_policy() == []
    pairs = scene.gate.status()["pairs"]
    assert [pair["restarts"] for pair in pairs] == [0] * len(pairs)
    assert limited(scene) > 0, "the firewall has ended none of it"
    assert told(scene) >= FLOODED


FLOODED = {"client_connects_per_second", "client_requests_per_second"}


def told(scene: Scene) -> set[str]:
    """The limits that the log says were hit."""
    return {entry["limit"] for entry in events(scene.site.state, "limit-hit")}


def limited(scene: Scene) -> int:
    """Attempts to connect that the firewall dropped because there were too many."""
    [office] = [name for name in scene.site.gates() if name.endswith("-it")]
    listed = ip("netns", "exec", office, "nft", "-j", "list", "counter", "inet", "cofferdam", "dropped-openings")
    return int(next(entry["counter"]["packets"] for entry in json.loads(listed)["nftables"] if "counter" in entry))


def opening(source: str, station: str, gate: str) -> bytes:
    """A frame that asks for a connection to NEAR."""
    tcp = struct.pack(">HHIIBBHHH", random.randrange(1024, 65535), 502, 1, 0, 0x50, 2, 65535, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(NEAR)
    tcp = tcp[:16] + checksum(ends + struct.pack(">HH", 6, len(tcp)) + tcp) + tcp[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends
    head = head[:10] + checksum(head) + head[12:]
    return bytes.fromhex((gate + station).replace(":", "")) + b"\x08\0" + head + tcp


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)


def test_openings_under_the_operators_name_do_not_keep_the_operator_out(scene: Scene) -> None:
    """They come from another station, so they are counted apart from the operator's and take no place in a queue."""
    before = limited(scene)
    with scene.site.client(NEAR, source=OPERATOR) as held, scene.raw() as (sock, _, gate):
        for _ in range(3000):
            sock.send(opening(OPERATOR, "02:00:00:00:00:66", gate))
        assert limited(scene) - before > 2000
        assert all(scene.works() for _ in range(10))
        assert held.read() == b"\x03\x02\x00\x2a"
