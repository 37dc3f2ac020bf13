"""The intruder has taken over the inner half: a device of the plant sent what a bug in there runs as code. It may do to
its own conduits' assets what it likes, and no more: no other host, no other part, no other's entries. See
docs/attack.md.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.enforce.site import DEVICE, ERP, GATE_OT, PORT, Site, at, ip
from tests.gate.plant import Gate, events, log_of
from tests.prove.attacked import Scene, Wiretap, Witness, attack_policy
from tests.waiting import PATIENT, eventually

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

OTHER = "10.82.0.18"
"""A device of the plant that no conduit names."""


class OwnedGate(Gate):
    def __init__(self, site: Site) -> None:
        self.state = site.state
        self.errors = site.folder / "owned.stderr"
        command = [sys.executable, "-m", "tests.prove.owned", str(site.policy), str(site.state), "inner"]
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=env)


class Hostile(Witness):
    """A device that answers the next question with code, and hears what that says."""

    def __init__(self, namespace: str) -> None:
        self.code: list[str] = []
        self.said: queue.Queue[str] = queue.Queue()
        super().__init__(namespace)

    def _serve(self, peer: socket.socket) -> None:
        data = owed = b""
        with contextlib.suppress(OSError), peer:
            while piece := peer.recv(65536):
                data += piece
                while data:
                    if data.startswith(b"SAID"):
                        line, found, rest = data.partition(b"\n")
                        if not found:
                            break
                        self.said.put(line[4:].decode())
                        peer.sendall(owed)  # what it was asked: nobody waits for it in vain
                        data, owed = rest, b""
                        continue
                    if len(data) < 6 or len(data) < (end := 6 + int.from_bytes(data[4:6], "big")):
                        break
                    frame, data = data[:end], data[end:]
                    reply = self._reply(frame[7:])
                    answer = frame[:4] + struct.pack(">HB", len(reply) + 1, frame[6]) + reply
                    if self.code:
                        owed = answer
                        peer.sendall(b"OWNED" + self.code.pop().encode())
                        continue
                    peer.sendall(answer)
        self.open.discard(peer)
        if self.said.empty():
            self.said.put("")


class Inside(Scene):
    """The scene with the intruder in the inner half. `device` is its accomplice."""

    def __init__(self, site: Site, device: Hostile, other: Witness, gate: Gate, tap: Wiretap) -> None:
        super().__init__(site, device, gate, tap)
        self.accomplice, self.other = device, other

    def inject(self, code: str) -> str:
        """Runs code in the inner half; what it said, "" if it ended first."""
        self.recovers()
        while not self.accomplice.said.empty():
            self.accomplice.said.get()
        self.accomplice.code = [code]
        with contextlib.suppress(OSError), self.client(ERP) as client:
            client.read()
        return self.accomplice.said.get(timeout=PATIENT)

    def restarts(self) -> int:
        return sum(int(pair["restarts"]) for pair in self.gate.status()["pairs"])


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    from cofferdam.enforce.putback import clean
    from tests.prove.attacked import OPERATOR

    with Site(tmp_path_factory.mktemp("inside")) as site, contextlib.ExitStack() as stack:
        ip("-n", site.office, "addr", "add", f"{OPERATOR}/24", "dev", "net0")
        ip("-n", site.plant, "addr", "add", f"{OTHER}/24", "dev", "net0")
        site.policy.write_text(attack_policy(site))
        device = Hostile(site.plant)
        other = Witness.__new__(Witness)
        other.requests = []
        with at(site.plant):
            bystander = socket.create_server((OTHER, PORT))
        stack.callback(bystander.close)
        gate = OwnedGate(site)
        stack.callback(device.close)
        stack.callback(clean, site.state)
        stack.callback(gate.close)
        gate.wait_ready()
        tap = Wiretap(site.plant)
        stack.callback(tap.close)
        made = Inside(site, device, other, gate, tap)
        made.bystander = bystander  # type: ignore[attr-defined]
        yield made
        assert made.recovers()
        bystander.settimeout(0.2)
        with pytest.raises(TimeoutError):
            bystander.accept()
        strange = [frame for frame in tap.frames if frame[12:14] == b"\x08\x00" and frame[30:34] != ip_of(DEVICE)]
        assert not [frame.hex() for frame in strange if frame[26:30] == ip_of(GATE_OT)], "it reached another host"
        gate.stop()


def ip_of(address: str) -> bytes:
    return socket.inet_aton(address)


def test_the_hole_is_real(inside: Inside) -> None:
    assert inside.inject("say(6 * 7)") == "42"
    assert inside.inject("say(os.getuid() >= 64000 and os.getpid() == 1)") == "True"


REACH = """
found = []
there = (%r, 502), (%r, 22), ("10.81.0.20", 502), ("10.81.0.1", 502), ("127.0.0.1", 502), ("8.8.8.8", 53)
for address, port in there:
    one = socket.socket()
    one.settimeout(0.5)
    try:
        one.connect((address, port))
        found.append(address)
    except OSError:
        pass
    one.close()
say(found)
"""


def test_it_reaches_its_own_device_and_nothing_else(inside: Inside) -> None:
    assert inside.inject(REACH % (OTHER, DEVICE)) == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "os.listdir('/')",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "os.kill(-1, 9)",
    ],
)
def test_what_it_asks_for_is_refused(inside: Inside, code: str) -> None:
    assert inside.inject(f"{code}; say('it worked')") == "EPERM"


@pytest.mark.parametrize("code", ["os.fork()", "os.execv('/bin/sh', ['sh'])", "ctypes.CDLL(None).ptrace(16, 1, 0, 0)"])
def test_what_goes_further_ends_it(inside: Inside, code: str) -> None:
    before = len(events(inside.site.state, "half-died"))
    assert "worked" not in inside.inject(f"{code}; say('it worked')")
    eventually(lambda: len(events(inside.site.state, "half-died")) > before)


@pytest.mark.parametrize(
    "draft",
    [
        "Severed(side='it')",
        "PolicyLoaded(policy='ab' * 32)",
        "HalfDied(half='modbus/office-plant/outer', status=1, reason='x')",
    ],
)
def test_it_cannot_say_what_others_say(inside: Inside, draft: str) -> None:
    """No entry of the gate, of the auditor or of an operator can be forged."""
    entries = [entry["event"]["kind"] for entry in log_of(inside.site.state)]
    inside.inject(f"push(audit, Batch(number=1 << 40, policy='', drafts=({draft},), wants_ack=False)); say('sent')")
    assert inside.recovers()
    kind = {"S": "severed", "P": "policy-loaded", "H": "half-died"}[draft[0]]
    after = [entry for entry in log_of(inside.site.state)[len(entries) :] if entry["event"]["kind"] == kind]
    assert not [entry for entry in after if entry["maker"].endswith("/inner")]
    assert not [entry for entry in after if entry["event"].get("reason") == "x"]


def test_what_it_invents_stands_under_its_own_name(inside: Inside) -> None:
    inside.inject(
        "push(audit, Batch(number=1 << 41, policy='', drafts=(WriteAllowed(session='invented', write='w', "
        "principals=('operator',), source='10.81.0.30', asset='plc', conduit='main', rule='x', function=6),), "
        "wants_ack=False)); say('sent')"
    )

    def found() -> list[str]:
        said = [entry for entry in log_of(inside.site.state) if entry["event"].get("session") == "invented"]
        return [entry["maker"] for entry in said]

    eventually(lambda: bool(found()))
    assert found() == ["modbus/office-plant/inner"]


def test_it_can_write_to_its_own_device_and_no_entry_says_so(inside: Inside) -> None:
    """What remains, and docs/attack.md says: the inner half has the device's connection."""
    frame = struct.pack(">HHHBBHHBI", 1, 0, 11, 1, 16, 200, 2, 4, 666_666).hex()
    inside.inject(f"connection.transport.write(bytes.fromhex('{frame}')); say('sent')")
    eventually(lambda: 666_666 in inside.device.writes)
    recorded = events(inside.site.state, "write-allowed")
    assert not [event for event in recorded if 666_666 in [value for _, value, _ in event.get("points", ())]]


@pytest.mark.parametrize("code", ["os.write(crossing, os.urandom(4000))", "push(crossing, ['nobody', 'knows'])"])
def test_the_outer_half_does_not_believe_it(inside: Inside, code: str) -> None:
    before = len(events(inside.site.state, "record-violation"))
    inside.inject(f"{code}; say('sent')")
    eventually(lambda: len(events(inside.site.state, "record-violation")) > before)


FLOOD = """
draft = WriteAllowed(session='x' * 100, write='w' * 100, principals=('p',), source='a', asset='plc', conduit='c',
                     rule='r' * 100, function=6)
data = pack([msgspec.msgpack.encode(Batch(number=1, policy='', drafts=(draft,) * 200, wants_ack=False))])
sent, until = 0, time.monotonic() + 4
while time.monotonic() < until:
    for packet in data:
        while time.monotonic() < until:
            try:
                sent += os.write(audit, packet)
                break
            except BlockingIOError:
                inner._reactor.turn(0.002)
say(sent >> 10)
"""


def test_it_cannot_keep_others_from_the_log(inside: Inside) -> None:
    """It has a share of changes, and fills it as fast as the disk takes it: everybody else is still served."""
    inside.inject(FLOOD)
    assert inside.recovers()
    from tests.gate.plant import cli

    assert cli("sever", "it", "--state", inside.site.state)[0] == 0
    assert cli("restore", "it", "--state", inside.site.state)[0] == 0
    assert inside.recovers()

    def whole() -> bool:
        """While the flood is still being written, it ends in the middle of many appends."""
        with contextlib.suppress(AssertionError):
            return bool(log_of(inside.site.state))
        return False

    eventually(whole)
