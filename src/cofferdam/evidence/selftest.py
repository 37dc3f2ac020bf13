"""The self-test: a gate of its own, of the same installed code, with a made-up asset in memory, on which forbidden
things are tried for real. The plant is not touched: as root all of it stands in a network namespace of its own, with
two wires in it; the halves stand in namespaces of that gate's, client and asset at the far ends of the wires.

Each attempt has a positive control: what is allowed works before and after, and the asset itself says what reached it.

Not here: recording what was found (the verb), the judge alone (checks.policies).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pyroute2 import IPRoute

from cofferdam.enforce import kernel
from cofferdam.enforce.firewall import find_nft
from cofferdam.enforce.netns import configure
from cofferdam.enforce.users import NEEDED
from cofferdam.errors import CofferdamError, GateError
from cofferdam.evidence.model import Finding

SUBJECT = "self-test"
START_SECONDS, STEP_SECONDS = 60.0, 20.0
LIMIT = 1500
"""The most that the made-up asset's speed may be set to."""
FLOOD_CONNECTIONS, NEIGHBOUR_READS = 100, 50
"""What one client asks for, more than an address is given; what another one reads meanwhile."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_READ, _WRITE = 3, 6
_IDS = 0xBEE0
"""Transaction ids of the client: the asset must see others."""
POLICY = """\
site: self-test
zones:
  enterprise: {{side: it{office}}}
  control: {{side: ot{plant}}}
assets:
  made-up:
    zone: control
    address: {at.asset}
    port: {asset}
    protocol: modbus
    unit: 1
    listen: "{at.gate}:{listen}"
    points:
      level: {{at: holding 0, type: uint16}}
      speed: {{at: holding 10, type: uint16, max: {limit}}}
principals:
  tester: {{zone: enterprise, addresses: [{at.client}]}}
  neighbour: {{zone: enterprise, addresses: [{at.neighbour}]}}
conduits:
  tests:
    from: enterprise
    to: control
    broker: modbus
    owner: the gate
    reason: the gate tries itself
    expires: 2099-12-31
    allow:
      - {{who: tester, asset: made-up, read: [level], write: [speed]}}
      - {{who: neighbour, asset: made-up, read: [level]}}
gate: {{separation: {separation}}}
"""


class At(NamedTuple):
    """Addresses: of the client, of the gate towards it, of the asset, of another client."""

    client: str
    gate: str
    asset: str
    neighbour: str


LOOPBACK = At("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2")
WIRES = At("198.51.100.2", "198.51.100.1", "203.0.113.2", "198.51.100.3")
"""Of documentation (RFC 5737): nobody's, in a network that nobody else is in."""
PLANT = "203.0.113.1"
"""The gate's towards the asset."""
SEPARATED = "on a gate of the self-test's own: its halves stood in namespaces, under their filters and firewalls"
PLAIN = "on a gate of the self-test's own: its halves were plain processes, no namespaces could be had"
USERS = "63000-63499"
"""For the parts of this gate: none that the one beside it has."""


class Seen(NamedTuple):
    """One request that reached the asset."""

    transaction: int
    frame: bytes


class Asset:
    """A Modbus device in memory that remembers every request."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.seen: list[Seen] = []
        self.peers: list[tuple[str, int]] = []
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """From now on it answers."""
        threading.Thread(target=self._accept, daemon=True).start()

    def writes(self) -> list[int]:
        """The values that were written, in order."""
        return [int.from_bytes(one.frame[10:12], "big") for one in self.seen if one.frame[7] == _WRITE]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, address = self._listener.accept()
            except OSError:
                return
            self.peers.append(address)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError), peer:
            while piece := peer.recv(4096):
                data += piece
                while len(data) >= 8 and len(data) >= (end := 6 + int.from_bytes(data[4:6], "big")):
                    frame, data = data[:end], data[end:]
                    self.seen.append(Seen(int.from_bytes(frame[:2], "big"), frame))
                    body = bytes([_READ, 2, 0, 42]) if frame[7] == _READ else frame[7:12]
                    peer.sendall(frame[:4] + struct.pack(">HB", len(body) + 1, frame[6]) + body)


class Client:
    """A client of the gate."""

    def __init__(self, port: int, address: str = "127.0.0.1", own: str = "") -> None:
        self._socket = socket.create_connection((address, port), STEP_SECONDS, (own, 0) if own else None)
        self.own = self._socket.getsockname()
        self._id = _IDS
        self._poured = 0

    def ask(self, body: bytes) -> bytes:
        """The answer's PDU. Raises: OSError."""
        self._id += 1
        self.send(struct.pack(">HHHB", self._id, 0, len(body) + 1, 1) + body)
        head = self._exactly(7)
        return self._exactly(int.from_bytes(head[4:6], "big") - 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> int:
        """The level. Raises: OSError, also where it is refused."""
        answer = self.ask(struct.pack(">BHH", _READ, 0, 1))
        if answer[0] != _READ:
            raise OSError(f"exception {answer[1]}")
        return int.from_bytes(answer[2:4], "big")

    def write(self, value: int) -> bool:
        """Whether the write was done. Raises: OSError."""
        return self.ask(struct.pack(">BHH", _WRITE, 10, value))[0] == _WRITE

    def pour(self, data: bytes) -> None:
        """Sends that over and over, as much as the gate takes just now. Raises: OSError, once it is closed."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._poured += self._socket.send(data[self._poured :])
            self._poured %= len(data)

    def ended(self) -> bool:
        """Whether the gate ends the session."""
        try:
            while self._socket.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("the gate closed it")
            data += piece
        return data


class Rig(NamedTuple):
    """The made-up asset, the port of its gate, and the gate's state."""

    asset: Asset
    port: int
    state: Path
    ask: Callable[..., Any]
    at: At = LOOPBACK

    def client(self, own: str = "") -> Client:
        """From that address. Raises: OSError."""
        return Client(self.port, self.at.gate, own or self.at.client)


def run(ask: Callable[..., Any], *, wires: bool = False) -> list[Finding]:
    """Everything that is tried. `ask`: asks the gate with a state directory (gate.client); `wires`: the halves stand in
    network namespaces of their own, client and asset at the far ends of two wires, by what `apart` has made room for.

    Raises: CofferdamError, where the gate of the test does not start."""
    where = SEPARATED if wires else PLAIN
    with _rig(ask, wires) as rig:
        found = (_values(rig), _broken(rig), _session(rig), _flood(rig), _killed(rig))
        return [msgspec.structs.replace(one, facts=(*one.facts, where)) for one in found]


def can_wire() -> bool:
    """Whether a gate in namespaces can be had here; to be asked where `apart` has worked."""
    if kernel.missing_capabilities(NEEDED):
        return False
    try:
        find_nft()
    except GateError:
        return False
    return True


def apart() -> bool:
    """Moves this process into a network of its own with nothing but a loopback, where it may. Says whether it did."""
    if os.geteuid() != 0:
        return False
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
    except OSError:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return True


def _wired() -> None:
    """Two wires in this network: the gate takes one end of each, the other ones are the client's and the asset's."""
    for name, addresses in (("office", (WIRES.client, WIRES.neighbour)), ("plant", (WIRES.asset,))):
        with IPRoute() as netlink:
            netlink.link("add", ifname=f"{name}0", kind="veth", peer=f"{name}1")
        configure(f"{name}1", [f"{address}/29" for address in addresses], [])


@contextlib.contextmanager
def _rig(ask: Callable[..., Any], wires: bool) -> Iterator[Rig]:
    at = LOOPBACK
    if wires:
        _wired()
        at = WIRES
    with tempfile.TemporaryDirectory(prefix="cofferdam-selftest-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the gate's user reads the policy; the state beside it is root's
        asset = Asset(at.asset)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        policy = folder / "policy.yaml"
        ends = {"office": f", interface: office0, addresses: [{at.gate}/29]",
                "plant": f", interface: plant0, addresses: [{PLANT}/29]"}  # fmt: skip
        kept = dict.fromkeys(ends, "") if not wires else ends
        separation = "namespaces" if wires else "processes"
        policy.write_text(
            POLICY.format(asset=asset.port, listen=port, limit=LIMIT, at=at, separation=separation, **kept)
        )
        policy.chmod(0o644)  # the launcher, whose child this is at night, has a umask that lets nobody else read
        command = [sys.executable, "-m", "cofferdam.cli.main", "up", str(policy), "--state", str(folder / "state")]
        command += ["--users", USERS] if wires else []
        with (folder / "said").open("wb") as said:
            # It ends with whoever tries it, however that one ends. No thread runs yet: a fork may do more than exec.
            gate = subprocess.Popen(
                command, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                preexec_fn=functools.partial(kernel.prctl, kernel.PR_SET_PDEATHSIG, signal.SIGTERM),
            )  # fmt: skip
        asset.serve()
        try:
            rig = Rig(asset, port, folder / "state", ask, at)
            _until(lambda: _works(rig, gate, folder), START_SECONDS, "the gate of the self-test did not start")
            yield rig
        finally:
            gate.send_signal(signal.SIGTERM)
            try:
                gate.wait(STEP_SECONDS)
            except subprocess.TimeoutExpired:
                gate.kill()
                gate.wait()
            asset.close()


def _works(rig: Rig, gate: subprocess.Popen[bytes] | None = None, folder: Path | None = None) -> bool:
    """The positive control: an allowed read and an allowed write go through."""
    if gate is not None and folder is not None and gate.poll() is not None:
        raise CofferdamError(f"the gate of the self-test ended: {(folder / 'said').read_text()[-300:]}")
    with contextlib.suppress(OSError), contextlib.closing(rig.client()) as client:
        return client.read() == 42 and client.write(7)
    return False


def _until(condition: Callable[[], bool], length: float, why: str) -> None:
    deadline = time.monotonic() + length
    while not condition():
        if time.monotonic() > deadline:
            raise CofferdamError(why)
        time.sleep(0.05)


def _found(check: str, wrong: list[str], says: str, facts: list[str]) -> Finding:
    if wrong:
        return Finding(check, "failed", wrong[0], tuple(wrong[:8]), SUBJECT)
    return Finding(check, "tested", says, tuple(facts), SUBJECT)


def _values(rig: Rig) -> Finding:
    """A value outside its limits is refused, and the asset never sees it."""
    before = len(rig.asset.writes())
    wrong: list[str] = []
    with contextlib.closing(rig.client()) as client:
        for value in (LIMIT + 1, 65535):
            if client.write(value):
                wrong.append(f"a write of {value} was answered as done")
        within = client.write(LIMIT)
    written = rig.asset.writes()[before:]
    if written != [LIMIT] or not within:
        wrong.append(f"the asset saw {written} instead of {LIMIT} alone")
    facts = [f"{LIMIT + 1} and 65535 were refused, {LIMIT} was written once", f"the asset saw {written}"]
    return _found("policy.values-checked", wrong, "a value outside its limits was refused on a pair of halves", facts)


def _broken(rig: Rig) -> Finding:
    """Messages that break the protocol reach nobody."""
    wrong, before = [], len(rig.asset.seen)
    frames = {
        "another protocol": struct.pack(">HHHB", _IDS, 7, 6, 1) + struct.pack(">BHH", _READ, 0, 1),
        "a length that is too long": struct.pack(">HHHB", _IDS, 0, 4000, 1) + bytes(20),
        "no Modbus at all": b"GET / HTTP/1.1\r\n\r\n",
    }
    for name, frame in frames.items():
        with contextlib.closing(rig.client()) as client:
            client.send(frame)
            if not client.ended():
                wrong.append(f"{name}: the session went on")
    if len(rig.asset.seen) != before:
        wrong.append(f"{len(rig.asset.seen) - before} messages reached the asset")
    counted = rig.ask(rig.state, "status")["malformed"]
    if counted < len(frames):
        wrong.append(f"{counted} of {len(frames)} were counted")
    if not _works(rig):
        wrong.append("what is allowed did not work afterwards")
    facts = [f"{name}: the session ended" for name in frames] + [
        "the asset saw none of it; then a read and a write went"
    ]
    return _found("broker.strict-parse", wrong, "messages that break the protocol went no further", facts)


def _session(rig: Rig) -> Finding:
    """What the asset sees is the gate's own: another connection, other transaction ids."""
    before = len(rig.asset.seen)
    with contextlib.closing(rig.client()) as client:
        client.read()
        own = client.own
    new = rig.asset.seen[before:]
    wrong = []
    if not new:
        wrong.append("the asset saw no request")
    if any(one.transaction in range(_IDS, _IDS + 16) for one in new):
        wrong.append("the asset saw the client's own transaction id")
    if own in rig.asset.peers:
        wrong.append("the asset saw the client's own connection")
    ids = ", ".join(str(one.transaction) for one in new)
    facts = [f"the client asked by transaction {_IDS + 1}, the asset saw {ids}",
             f"the client came from port {own[1]}, the asset saw {len(rig.asset.peers)} others"]  # fmt: skip
    return _found(
        "broker.session-break", wrong, "a session ended at the outer half, and the inner half made its own", facts
    )


def _flood(rig: Rig) -> Finding:
    """One client takes all connections that it gets and asks by each without end; its neighbour's reads are answered,
    and so is a connection that the neighbour makes meanwhile."""
    wrong: list[str] = []
    answered = 0
    with contextlib.ExitStack() as ends:
        neighbour = ends.enter_context(contextlib.closing(rig.client(rig.at.neighbour)))
        held = _all_they_get(rig, ends)
        if len(held) == FLOOD_CONNECTIONS:
            wrong.append(f"all {FLOOD_CONNECTIONS} connections of one client were kept")
        over = threading.Event()
        flood = threading.Thread(target=_ask_for_ever, args=(held, over), daemon=True)
        flood.start()
        try:
            for number in range(NEIGHBOUR_READS):
                if number == NEIGHBOUR_READS // 2:
                    neighbour = ends.enter_context(contextlib.closing(rig.client(rig.at.neighbour)))
                answered += neighbour.read() == 42
        except OSError as error:
            wrong.append(f"the neighbour had no answer: {error}")
        finally:
            over.set()
            flood.join()
    if answered < NEIGHBOUR_READS:
        wrong.insert(0, f"the neighbour had {answered} of {NEIGHBOUR_READS} answers")
    _until(lambda: _works(rig), STEP_SECONDS, "the gate of the self-test did not work after a flood")
    facts = [
        f"one client asked for {FLOOD_CONNECTIONS} connections and kept {len(held)}; by each it asked without end",
        f"{answered} of its neighbour's {NEIGHBOUR_READS} reads were answered meanwhile, half by a new connection",
    ]
    return _found("broker.flood-limits", wrong, "one client's flood did not take another's share", facts)


def _all_they_get(rig: Rig, ends: contextlib.ExitStack) -> list[Client]:
    """The connections of one client that the gate keeps, of as many as it asks for."""
    made: list[Client] = []
    for _ in range(FLOOD_CONNECTIONS):
        with contextlib.suppress(OSError):
            made.append(ends.enter_context(contextlib.closing(rig.client())))
    kept: list[Client] = []
    for one in made:
        with contextlib.suppress(OSError):
            one.read()
            kept.append(one)
    return kept


def _ask_for_ever(held: list[Client], over: threading.Event) -> None:
    """Reads by each connection, as fast as they are taken, and looks at no answer."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # this thread: the gate beside it shall not mind
    question = struct.pack(">HHHBBHH", _IDS, 0, 6, 1, _READ, 0, 1) * 16
    while not over.is_set():
        for one in held:
            with contextlib.suppress(OSError):
                one.pour(question)
        over.wait(0.001)


def _killed(rig: Rig) -> Finding:
    """kill -9 of each half: its sessions end, nothing gets through unjudged, and the pair comes back."""
    wrong, facts = [], []
    for role in ("inner", "outer"):
        halves = [half for pair in rig.ask(rig.state, "status")["pairs"] for half in pair["halves"]]
        pid = next(int(half["pid"]) for half in halves if half["role"] == role)
        with contextlib.closing(rig.client()) as client:
            client.read()
            before = rig.asset.writes()
            os.kill(pid, signal.SIGKILL)
            if not client.ended():
                wrong.append(f"the session outlived the {role} half")
        with contextlib.suppress(OSError), contextlib.closing(rig.client()) as client:
            if client.write(LIMIT + 1):
                wrong.append(f"with the {role} half dead a forbidden write was answered as done")
        _until(functools.partial(_back, rig, pid), STEP_SECONDS, f"the {role} half did not come back")
        after = rig.asset.writes()[len(before) :]
        if any(value > LIMIT for value in after):
            wrong.append(f"with the {role} half dead a forbidden write reached the asset")
        facts.append(f"kill -9 of the {role} half (pid {pid}): its session ended, the pair came back")
    return _found(
        "broker.fail-closed", wrong, "each half was killed: sessions ended and nothing forbidden got through", facts
    )


def _back(rig: Rig, pid: int) -> bool:
    with contextlib.suppress(GateError, KeyError, json.JSONDecodeError):
        pairs = rig.ask(rig.state, "status")["pairs"]
        pids = [half["pid"] for pair in pairs for half in pair["halves"] if half["ready"]]
        return pid not in pids and all(pair["working"] for pair in pairs) and _works(rig)
    return False
