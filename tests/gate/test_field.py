"""Devices as engineers have reported them, each a simulated peer behind one gate, with the setting that docs/devices.md
names for it; and clients that ask in their own way. Small steps of each: tests/brokers/test_manners,
tests/protocols/test_modbus_quirks."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cofferdam.protocols.modbus.quirks import crc
from tests.gate.plant import Gate, running
from tests.ports import held_port, held_ports
from tests.waiting import PATIENT, eventually

Answer = Callable[["Link", int, int, bytes], bytes | None]


def frame(transaction: int, unit: int, pdu: bytes, length: int | None = None) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1 if length is None else length, unit) + pdu


def usual(pdu: bytes) -> bytes:
    """What a device answers that does as the standard says."""
    if pdu[0] == 3:
        first, count = struct.unpack(">HH", pdu[1:5])
        return bytes([3, 2 * count]) + b"".join(struct.pack(">H", first + at) for at in range(count))
    return pdu[:5]


@dataclass
class Link:
    """One connection to a device: how long it was there before it was asked (ms), what it was asked, when it answered
    last."""

    waited: int = 0
    count: int = 0
    last: float = 0.0
    deaf: bool = False


class Peer:
    """A device. `respond` gives the bytes that it sends, if any. `shut`: it answers once on a connection, and then
    refuses the next for so long (s)."""

    def __init__(self, respond: Answer, *, rtu: bool = False, shut: float = 0.0) -> None:
        self.respond, self.rtu, self.shut = respond, rtu, shut
        self.seen: list[tuple[int, bytes]] = []
        self.port = held_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.closed = False
        self.open = 0
        """Connections to it."""
        threading.Thread(target=self._accept_one if shut else self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _accept_one(self) -> None:
        with contextlib.suppress(OSError):
            while not self.closed:
                peer = self._listener.accept()[0]
                self._listener.close()
                self._serve(peer)
                time.sleep(self.shut)
                self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.close()

    def _serve(self, peer: socket.socket) -> None:
        link = Link()
        self.open += 1
        try:
            self._answer(peer, link)
        finally:
            self.open -= 1

    def _answer(self, peer: socket.socket, link: Link) -> None:
        with contextlib.suppress(OSError, EOFError), peer:
            while True:
                transaction, unit, pdu = self._asked(peer)
                link.waited = link.waited if link.count else waited(peer)
                link.count += 1
                self.seen.append((unit, pdu))
                data = self.respond(link, transaction, unit, pdu)
                link.last = time.monotonic()  # before the other end can have it, and so before its pause begins
                if data:
                    peer.sendall(data)
                if self.shut:
                    return

    def _asked(self, peer: socket.socket) -> tuple[int, int, bytes]:
        if self.rtu:
            data = take(peer, 8)
            assert crc(data[:-2]) == data[-2:]
            return 0, data[0], data[1:-2]
        transaction, _, length, unit = struct.unpack(">HHHB", take(peer, 7))
        return transaction, unit, take(peer, length - 1)

    def close(self) -> None:
        self.closed = True
        self._listener.close()


def waited(sock: socket.socket) -> int:
    """Milliseconds from the connection's beginning to the last bytes that came on it, of which nothing was sent yet: by
    the kernel (tcpi_last_data_sent, tcpi_last_data_recv), since whoever looks may be late."""
    begun, _, heard = struct.unpack_from("=3I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64), 44)
    return int(begun - heard)


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


READ, WRITE = b"\3\0\x0a\0\2", b"\6\1\xf4\0\1"
MANY, VENDOR = b"\x10\0\5\0\2\4\0\1\0\2", b"\x41\1\2\3"
GOOD = b"\3\4\0\x0a\0\x0b"


@dataclass(frozen=True)
class Kind:
    """One device: what the policy says of it, what it does, what is asked, and what the client has to get."""

    name: str
    says: str
    does: Answer
    ask: tuple[tuple[bytes, bytes], ...] = ((READ, GOOD),)
    rtu: bool = False
    rule: str = ""
    times: int = 1
    shut: float = 0.0


def _deaf_at_first(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
    link.deaf = link.deaf or (link.count == 1 and link.waited < 400)
    return None if link.deaf else frame(transaction, unit, usual(pdu))


def _wants_a_pause(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
    early = link.count > 1 and time.monotonic() - link.last < 0.05
    return None if early else frame(transaction, unit, usual(pdu))


def _forgets(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
    link.deaf = link.deaf or (link.count > 1 and time.monotonic() - link.last > 1.5)
    return None if link.deaf else frame(transaction, unit, usual(pdu))


def _resets_once(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
    if pdu[4] == 3 and not RESET:
        RESET.append(pdu)
        raise EOFError
    return frame(transaction, unit, usual(pdu))


RESET: list[bytes] = []


def _slow(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
    time.sleep(1.2)
    GOES_ON.wait(PATIENT)
    return frame(transaction, unit, usual(pdu))


GOES_ON = threading.Event()
"""Whether the slow device answers at all."""
GOES_ON.set()


def _as(make: Callable[[bytes], bytes]) -> Answer:
    return lambda link, transaction, unit, pdu: frame(transaction, unit, make(pdu))


KINDS = [
    Kind("deaf-after-connecting", "connect_delay: 600 ms", _deaf_at_first, times=2),
    Kind("wants-a-pause", "pause: 80 ms", _wants_a_pause, times=3),
    Kind("forgets-idle-connections", "idle: 1 s", _forgets),
    Kind("resets-now-and-then", "repeat_reads: yes", _resets_once, ((b"\3\0\0\0\3", b"\3\6\0\0\0\1\0\2"),)),
    Kind("refuses-the-next-connection", "reconnect_delay: 3 s, pause: 50 ms",
         lambda link, transaction, unit, pdu: frame(transaction, unit, usual(pdu)), ((READ, GOOD), (WRITE, WRITE)),
         shut=0.1),
    Kind("exception-of-its-own", "unit: 1", _as(lambda pdu: bytes([pdu[0] | 0x80, 0x80])), ((WRITE, b"\x86\x80"),)),
    Kind("exception-0xff", "unit: 1", _as(lambda pdu: bytes([pdu[0] | 0x80, 0xFF])), ((READ, b"\x83\xff"),)),
    Kind("long-exceptions", "quirks: long_exceptions", _as(lambda pdu: bytes([pdu[0] | 0x80, 2, 0])),
         ((READ, b"\x83\2"),)),
    Kind("spare-bytes", "quirks: spare_bytes", _as(lambda pdu: usual(pdu) + b"\x5f\1")),
    Kind("echoes-all-of-a-write", "quirks: full_echo", _as(lambda pdu: pdu), ((MANY, MANY[:5]),)),
    Kind("echoes-address-0", "quirks: loose_echo", _as(lambda pdu: pdu[:1] + b"\0\0" + pdu[3:5]), ((WRITE, WRITE),)),
    Kind("byte-count-of-registers", "quirks: wrong_byte_count", _as(lambda pdu: b"\3\2" + usual(pdu)[2:])),
    Kind("wrong-length", "quirks: wrong_length",
         lambda link, transaction, unit, pdu: frame(transaction, unit, usual(pdu), 6)),
    Kind("another-unit", "quirks: any_unit", lambda link, transaction, unit, pdu: frame(transaction, 9, usual(pdu))),
    Kind("id-0", "quirks: zero_transaction_id", lambda link, transaction, unit, pdu: frame(0, unit, usual(pdu))),
    Kind("any-id", "quirks: wrong_transaction_id",
         lambda link, transaction, unit, pdu: frame(transaction ^ 0x5555, unit, usual(pdu))),
    Kind("rtu-over-tcp", "quirks: rtu_over_tcp",
         lambda link, transaction, unit, pdu: (body := bytes([unit]) + usual(pdu)) + crc(body), rtu=True),
    Kind("unit-0-alone", "device_unit: 0",
         lambda link, transaction, unit, pdu: frame(transaction, unit, usual(pdu)) if unit == 0 else None),
    Kind("function-of-its-vendor", "vendor_functions: [65]", _as(lambda pdu: pdu[:1] + b"ok"),
         ((VENDOR, b"\x41ok"),), rule=", functions: [65]"),
    Kind("updates-its-controller", "vendor_write_functions: [90]", _as(lambda pdu: pdu[:1] + b"\0\xfe"),
         ((b"\x5a\0\2", b"\x5a\0\xfe"),), rule=", write_functions: [90]"),
    Kind("slow", "timeout: 20 s", _slow),
    Kind("one-byte-at-a-time", "unit: 1", lambda link, transaction, unit, pdu: frame(transaction, unit, usual(pdu))),
]  # fmt: skip


@dataclass
class Works:
    gate: Gate
    ports: dict[str, int]
    peers: dict[str, Peer]
    line: int


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """All of them behind one gate, and a line of eight units of which two are off."""

    def on_a_line(link: Link, transaction: int, unit: int, pdu: bytes) -> bytes | None:
        return None if unit in (3, 6) else frame(transaction, unit, usual(pdu))

    folder = tmp_path_factory.mktemp("field")
    peers = {kind.name: Peer(kind.does, rtu=kind.rtu, shut=kind.shut) for kind in KINDS}
    line = Peer(on_a_line)
    ports = dict(zip([*peers, "line"], held_ports(len(peers) + 1), strict=True))
    lines = ["site: field", "zones: {office: {side: it}, plant: {side: ot}}", "assets:"]
    common = "zone: plant, address: 127.0.0.1, protocol: modbus"
    for kind in KINDS:
        places = f"port: {peers[kind.name].port}, listen: '127.0.0.1:{ports[kind.name]}'"
        patient = "" if "timeout: " in kind.says else "timeout: 20 s, "
        lines.append(f"  {kind.name}: {{{common}, {places}, {patient}{kind.says}}}")
    lines.append(f"  line: {{{common}, port: {line.port}, listen: '127.0.0.1:{ports['line']}', units: 1-8,"
                 " gateway: serial, timeout: 2 s}")  # fmt: skip
    lines += ["principals: {client: {zone: office, addresses: 127.0.0.1}}", "conduits:", "  all:"]
    lines.append("    {from: office, to: plant, broker: modbus, owner: o, reason: r, expires: 2099-01-01, allow: [")
    cells = "registers: [holding 0-999], write_registers: [holding 0-999]"
    lines += [f"      {{who: client, asset: {kind.name}, {cells}{kind.rule}}}," for kind in KINDS]
    lines.append(f"      {{who: client, asset: line, {cells}}}]}}")
    policy: Path = folder / "policy.yaml"
    policy.write_text("\n".join(lines) + "\n")
    with running(folder / "state", policy) as gate:
        yield Works(gate, ports, peers, ports["line"])
    for peer in (*peers.values(), line):
        peer.close()


def ask(sock: socket.socket, transaction: int, pdu: bytes, unit: int = 1) -> bytes:
    sock.sendall(frame(transaction, unit, pdu))
    return answered(sock, transaction)


def answered(sock: socket.socket, transaction: int) -> bytes:
    got, _, length, _ = struct.unpack(">HHHB", take(sock, 7))
    assert got == transaction
    return take(sock, length - 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_device_as_it_is(works: Works, kind: Kind) -> None:
    with socket.create_connection(("127.0.0.1", works.ports[kind.name]), PATIENT) as client:
        for number in range(kind.times):
            for pdu, expected in kind.ask:
                assert ask(client, 7 + number, pdu) == expected
        if kind.name == "forgets-idle-connections":
            # By its own time: a device of which nothing is said keeps its connection for a minute, though it was asked
            # before.
            peer, usual = works.peers[kind.name], works.peers["another-unit"]
            with socket.create_connection(("127.0.0.1", works.ports["another-unit"]), PATIENT) as other:
                assert ask(other, 98, READ) == GOOD
            assert ask(client, 98, READ) == GOOD
            eventually(lambda: not (peer.open and usual.open))
            assert usual.open
            assert ask(client, 99, READ) == GOOD
        if kind.name == "wants-a-pause":
            with socket.create_connection(("127.0.0.1", works.ports[kind.name]), PATIENT) as other:
                for number in range(3):
                    for one in (client, other):
                        one.sendall(frame(number, 1, READ))
                    assert [answered(one, number) for one in (client, other)] == [GOOD, GOOD]


def test_two_dead_units_cost_their_neighbours_no_answer(works: Works) -> None:
    got: dict[int, list[bytes]] = {unit: [] for unit in range(1, 9)}

    def poll(unit: int) -> None:
        with socket.create_connection(("127.0.0.1", works.line), PATIENT) as client:
            for number in range(3):
                got[unit].append(ask(client, number, READ, unit))

    polls = [threading.Thread(target=poll, args=(unit,)) for unit in got]
    for one in polls:
        one.start()
    for one in polls:
        one.join()
    assert {unit: set(said) for unit, said in got.items() if unit not in (3, 6)} == {
        unit: {GOOD} for unit in (1, 2, 4, 5, 7, 8)
    }
    assert set(got[3]) | set(got[6]) == {b"\x83\x0b"}


def test_a_client_that_asks_again_by_the_same_id_gets_one_answer(works: Works) -> None:
    """As pymodbus does from 3.8 on, after its time-out."""
    before = len(works.peers["slow"].seen)
    with socket.create_connection(("127.0.0.1", works.ports["slow"]), PATIENT) as client:
        GOES_ON.clear()
        client.sendall(frame(9, 1, READ))
        eventually(lambda: len(works.peers["slow"].seen) == before + 1)
        client.sendall(frame(9, 1, READ))
        with socket.create_connection(("127.0.0.1", works.ports["spare-bytes"]), PATIENT) as other:
            assert ask(other, 1, READ) == GOOD  # so the gate has had the repeated one
        GOES_ON.set()
        assert answered(client, 9) == GOOD
        assert len(works.peers["slow"].seen) == before + 1
        assert ask(client, 10, READ) == GOOD


def test_a_client_that_closes_its_half_and_one_that_comes_in_bytes(works: Works) -> None:
    with socket.create_connection(("127.0.0.1", works.ports["one-byte-at-a-time"]), PATIENT) as client:
        for byte in frame(1, 1, READ):
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert answered(client, 1) == GOOD
        assert client.recv(1) == b""
