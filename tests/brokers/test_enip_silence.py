"""A half that had no turn for a while reads what has come before it takes anybody for silent: by a clock that the test
turns, with the sockets that there are."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from cofferdam.audit.events.access import StreamEnded
from cofferdam.brokers.kit.datagrams import DATAGRAMS_A_TURN, WAITING, Datagrams
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.crossing.reactor import READ
from cofferdam.protocols.enip import io, paths, requests, wire
from cofferdam.protocols.enip import messages as m
from tests.brokers.stage import Wire
from tests.brokers.test_enip_forged import EnipStage
from tests.protocols import enip as e
from tests.waiting import PATIENT

MS = 1_000_000


class Running(EnipStage):
    """A client's stream to the drive, just opened, at 10 ms with a time-out of 40."""

    def __init__(self) -> None:
        super().__init__()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.outer.serve_datagrams(self.udp, Listener(self.udp.fileno(), *self.place[:1], io.PORT, True))
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        self.wire, self.session = self.connected()
        self.sequence = 0
        answer = self.open(1)
        assert not answer[2]
        self.ours = int.from_bytes(answer[4:8], "little")

    def connected(self) -> tuple[Wire, int]:
        """A client, and its session."""
        link = self.client()
        link.on_data(e.REGISTER)
        [answer] = link.take()
        return link, int.from_bytes(answer[4:8], "little")

    def settle(self) -> None:
        for _ in range(5):
            self.cross()
            self.turn()

    def open(self, serial: int, by: tuple[Wire, int] | None = None) -> bytes:
        """What is answered to an opening."""
        link, session = by or (self.wire, self.session)
        body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 5, serial, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x480A, 1, 4)
        path = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
        link.on_data(e.rr(requests.made(0x54, paths.of_object(6, 1), body + path), session))
        self.settle()
        [answer] = link.take()
        return e.cip_of(answer)

    def told(self, data: bytes) -> None:
        """Straight to the half that reads it, at this moment."""
        assert self.outer._datagrams is not None
        self.outer._datagrams._taken("127.0.0.1", io.PORT, data)

    def heard(self, data: bytes) -> None:
        self.inner._datagram("127.0.0.1", io.PORT, data)

    def lies(self, data: bytes, sock: socket.socket) -> None:
        """It came while the half had no turn, and waits in its socket."""
        self.peer.sendto(data, ("127.0.0.1", sock.getsockname()[1]))
        assert select.select([sock], [], [], PATIENT)[0]

    def by_client(self, how: Any, value: int = 7, run: int = 1) -> None:
        self.sequence = self.sequence + 1 & 0xFFFF_FFFF
        body = struct.pack("<HIi", self.sequence & 0xFFFF, run, value)
        how(wire.listed(((0x8002, struct.pack("<II", self.ours, self.sequence)), (0xB1, body))))

    def by_device(self, how: Any, said: bytes = b"ABCDEFGH") -> None:
        machine = self.plant[0].machine
        [token] = machine._io.by_standing
        machine.frame(token, m.IoData(True, True, said))
        [(_, data, _)] = machine.take_datagrams()
        how(data)

    def lying_there(self, data: bytes) -> None:
        assert self.inner._datagrams is not None
        self.lies(data, self.inner._datagrams._sock)

    def read(self, sock: socket.socket) -> None:
        """This half has a turn, and finds what lies in its socket."""
        self.reactor._handlers[sock.fileno()](READ)
        self.settle()

    def goes_on(self, count: int, speaks: str) -> None:
        """So many packets, each 9 ms after the one before."""
        for _ in range(count):
            self.reactor.advance(0.009)
            if speaks in ("device", "both") and self.plant[0].machine._io.by_standing:
                self.by_device(self.heard)
            if speaks in ("client", "both"):
                self.by_client(self.told)
            self.settle()

    @property
    def ended(self) -> list[str]:
        self.settle()
        return [one.reason for one in self.of(StreamEnded)]


@pytest.fixture
def opened() -> Iterator[Running]:
    one = Running()
    try:
        yield one
    finally:
        one.outer.end()
        one.inner.end()
        one.peer.close()
        one.udp.close()


@pytest.fixture
def running(opened: Running) -> Running:
    """Each side has said something."""
    opened.by_client(opened.told)
    opened.by_device(opened.heard)
    assert not opened.ended
    return opened


def test_what_came_in_time_from_the_device_and_waits_is_read_before_it_is_taken_for_silent(running: Running) -> None:
    running.by_device(running.lying_there)
    running.goes_on(7, "client")
    assert running.ended == []
    running.goes_on(3, "client")
    assert len(running.ended) == 1 and running.ended[0].startswith("the device has sent nothing in time")


def test_what_came_in_time_from_the_client_and_waits_is_read_before_it_is_taken_for_silent(running: Running) -> None:
    running.by_client(lambda data: running.lies(data, running.udp))
    running.goes_on(7, "device")
    assert running.ended == []
    running.goes_on(3, "device")
    assert len(running.ended) == 1


def test_the_first_packet_that_is_read_after_a_pause_ends_nothing(running: Running) -> None:
    running.reactor.advance(0.041)  # both were found silent for the first time
    running.reactor.now += 200 * MS  # no turn all the while
    running.by_device(running.heard)
    running.by_client(running.told)
    assert running.ended == []
    running.reactor.advance(0.039)
    assert running.ended == []


@pytest.mark.parametrize("side", ["client", "device"])
def test_nor_does_what_comes_by_the_other_socket_first(running: Running, side: str) -> None:
    nop = wire.frame(wire.NOP, 0, bytes(8), b"")
    running.reactor.advance(0.041)
    running.by_device(running.lying_there)
    running.by_client(lambda data: running.lies(data, running.udp))
    running.reactor.now += 200 * MS
    if side == "client":
        running.wire.on_data(nop)
        running.by_device(running.heard)
    else:
        running.plant[0].link.on_data(nop)
        running.by_client(running.told)
    assert running.ended == []


def test_what_comes_a_moment_after_a_pause_of_all_machines_ends_nothing(running: Running) -> None:
    """Where both ends stood still as well, or the network's part of this machine, nothing waits yet."""
    running.reactor.now += 200 * MS
    running.reactor.advance(0.001)  # what was due is done
    assert running.ended == []
    running.reactor.advance(0.008)
    running.by_device(running.heard)
    running.by_client(running.told)
    running.goes_on(4, "both")
    assert running.ended == []
    running.reactor.now += 200 * MS
    running.reactor.advance(0.001)
    running.reactor.advance(0.010)
    assert len(running.ended) == 1, "once, and for no longer than an interval"


@pytest.mark.parametrize("speaks", ["client", "device"])
def test_silence_is_noticed_in_time_from_the_first_packet_on(running: Running, speaks: str) -> None:
    """And not when the time is over that a new connection has for its first one."""
    running.goes_on(5, speaks)
    assert running.ended == []
    running.goes_on(1, speaks)
    assert len(running.ended) == 1


@pytest.mark.parametrize("spoke", ["client", "device"])
def test_so_it_is_where_the_other_side_has_never_said_anything(opened: Running, spoke: str) -> None:
    if spoke == "client":
        opened.by_client(opened.told)
    else:
        opened.by_device(opened.heard)
    opened.goes_on(5, "nobody")
    assert opened.ended == []
    opened.goes_on(1, "nobody")
    assert len(opened.ended) == 1


def test_the_log_says_whether_the_machine_may_have_been_the_cause(running: Running) -> None:
    running.goes_on(6, "client")
    why = "in the ten seconds before, outputs did not pause, and the inner half was not held up"
    assert running.ended == [f"the device has sent nothing in time ({why})"]


@pytest.mark.parametrize(
    ("speaks", "told"),
    [
        ("client", "the device has sent nothing in time ({}, outputs paused for 45.0 ms, and the inner half {})"),
        ("device", "the client has sent nothing in time ({}, inputs paused for 45.0 ms, and the outer half {})"),
    ],
)
def test_and_what_it_may_have_done(running: Running, speaks: str, told: str) -> None:
    running.by_client(running.told)
    running.reactor.now += 45 * MS
    running.reactor.held.note(44_640_000, running.reactor.now)
    running.by_client(running.told)
    running.by_device(running.heard)
    assert running.ended == [], "what came in time was read"
    running.goes_on(6, speaks)
    assert running.ended == [told.format("in the ten seconds before", "was held up for 44.6 ms")]


def test_whoever_has_died_is_followed_by_the_next_one_as_soon_as_its_time_is_out(running: Running) -> None:
    """Its TCP connection says nothing of it: the outputs are another's once it is silent, and not before."""
    other = running.connected()
    assert running.open(1, other)[2:6] == b"\1\1\6\1", "the outputs are driven"
    running.goes_on(6, "device")
    assert len(running.ended) == 1
    for serial in range(2, 50):
        answer = running.open(serial, other)
        assert not answer[2]
        running.ours, running.sequence = int.from_bytes(answer[4:8], "little"), 0xFFFF_FFFE
        running.goes_on(9, "both")  # by numbers that run over
        running.by_device(running.heard)
        close = requests.made(0x4E, paths.of_object(6, 1), struct.pack("<BBHHIBx", 10, 14, serial, 77, 4711, 0))
        other[0].on_data(e.rr(close, other[1]))
        running.settle()
        assert not e.cip_of(other[0].take()[0])[2]
        assert len(running.ended) == serial and running.of(StreamEnded)[-1].sent == 9


def test_a_flood_is_read_once_a_turn_however_many_are_looked_at(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would wait for what comes while the one before it is looked at."""
    sock = running.udp
    taken: list[bytes] = []
    datagrams = Datagrams(running.reactor, sock, lambda _address, _port, data: taken.append(data))
    for _ in range(3):
        running.lies(b"stray", sock)
        datagrams.hear()
    assert len(taken) == 1
    running.reactor.now += 1
    datagrams.hear()
    assert len(taken) == 3
    monkeypatch.setattr(wire, "items_at", None)
    links = io.IoLinks()  # and what is nobody's is not even taken apart
    assert links.take(wire.listed(((0x8002, struct.pack("<II", 9, 1)), (0xB1, b"??"))), 1) is None
    assert links.dropped == 1


# ---- what waits after a pause: the newest of it passes


def bodies(said: list[bytes]) -> list[bytes]:
    """What packets carry, without their counts."""
    return [wire.items_at(one, 0)[1][1][2:] for one in said]


@pytest.mark.parametrize("waiting", [1, 3, 4, 5, 12])
def test_after_a_pause_a_stop_that_was_sent_last_reaches_the_device(running: Running, waiting: int) -> None:
    """Of what waits no more passes than the pace allows: the newest of it always, and of the others the oldest."""
    running.reactor.now += 90 * MS
    running.out.clear()
    for value in range(1, waiting):
        running.by_client(lambda data: running.lies(data, running.udp), value)
    running.by_client(lambda data: running.lies(data, running.udp), 0, run=0)
    running.read(running.udp)
    assert bodies(running.out) == [
        *[struct.pack("<Ii", 1, value) for value in range(1, min(waiting, 4))], struct.pack("<Ii", 0, 0)
    ]  # fmt: skip
    assert running.outer.limit_hits.get("stray_datagrams", 0) == max(0, waiting - 4), "each that is dropped is counted"
    running.out.clear()
    running.reactor.now += 10 * MS
    running.by_client(lambda data: running.lies(data, running.udp), 5)
    running.read(running.udp)
    assert bodies(running.out) == [struct.pack("<Ii", 1, 5)], "and the next one as ever"


@pytest.mark.parametrize("waiting", [1, 3, 4, 5, 12])
def test_and_what_the_device_has_said_last_reaches_the_client(running: Running, waiting: int) -> None:
    said: list[bytes] = []
    assert running.outer._datagrams is not None and running.inner._datagrams is not None
    [leaves] = running.outer._datagrams._sockets.values()
    to_client: Any = leaves
    to_client.send = lambda _address, _port, data: said.append(data)
    running.read(running.inner._datagrams._sock)  # what was said to the client may have come here
    before = running.inner.limit_hits.get("stray_datagrams", 0)
    running.reactor.now += 90 * MS
    for number in range(1, waiting + 1):
        running.by_device(running.lying_there, bytes([number] * 8))
    running.read(running.inner._datagrams._sock)
    assert bodies(said) == [bytes([number] * 8) for number in (*range(1, min(waiting, 4)), waiting)]
    assert running.inner.limit_hits.get("stray_datagrams", 0) - before == max(0, waiting - 4)


def test_a_stop_passes_also_where_the_pause_ended_by_a_look_at_who_is_silent(running: Running) -> None:
    running.out.clear()
    for value in (1, 2, 3, 4, 5):
        running.by_client(lambda data: running.lies(data, running.udp), value)
    running.by_client(lambda data: running.lies(data, running.udp), 0, run=0)
    running.reactor.advance(0.041)
    running.by_device(running.heard)
    running.settle()
    assert bodies(running.out)[-1] == struct.pack("<Ii", 0, 0) and len(running.out) == 4
    assert running.ended == []


def test_what_is_kept_back_of_a_stream_that_has_ended_goes_nowhere(running: Running) -> None:
    running.out.clear()
    running.reactor.now += 20 * MS
    for value in (1, 2, 3, 4):
        running.by_client(running.told, value)
    running.wire.on_closed("gone")
    running.settle()
    before = len(running.out)
    running.lies(b"stray", running.udp)
    running.read(running.udp)
    assert len(running.out) == before == 3


def test_a_flood_without_end_does_not_hold_back_what_waits_for_its_end(running: Running) -> None:
    """Whoever reads it comes to an end after as many as the buffer can have held."""
    called: list[int] = []
    count = 0

    def stray(_address: str, _port: int, _data: bytes) -> None:
        nonlocal count
        count += 1
        running.lies(b"stray", running.udp)

    datagrams = Datagrams(running.reactor, running.udp, stray)
    running.lies(b"stray", running.udp)
    datagrams.when_read(lambda: called.append(count))
    for _ in range(WAITING // DATAGRAMS_A_TURN):
        assert not called
        running.read(running.udp)
    assert called == [WAITING]
    for _ in range(WAITING // DATAGRAMS_A_TURN):
        running.read(running.udp)
    assert called == [WAITING], "once"
