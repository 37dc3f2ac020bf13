"""What leaves at once, and what does not wait: a sender on the loopback network, at a rate at which nothing is paid for
while the test runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cofferdam.brokers.diode import pairing, records
from cofferdam.brokers.diode.outbox import encode
from cofferdam.brokers.diode.sender import FLOOR, Sender, _Link
from cofferdam.brokers.diode.wire import BULK, HELLO, PROMPT, unpack
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce import kernel
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from tests import waiting
from tests.brokers.diode.test_early import POLICY
from tests.brokers.diode.test_hostile import SIGNED, WALL
from tests.enforce.site import ip, netns

BURST = 60_000


class Pace:
    """The part, and a socket that hears it."""

    def __init__(self) -> None:
        rate = "rate: 10 kbit/s, burst: 60 kB, block: 200, carries"
        policy = compile_policy(loads(POLICY.replace("carries", rate)), now_ns=WALL)
        keys = pairing.SenderKeys(pairing.new_signer()[0], (pairing.Good(SIGNED),))
        self.reactor = Reactor()
        self.said: list[Any] = []
        self.part = Sender(cast(Any, SimpleNamespace(
            policy=policy, severed=frozenset(), wall=lambda: WALL, clock=lambda: WALL,
            zones=(("strand-out",), "strand-in"),
            reactor=self.reactor, secrets={pairing.SECRET: msgspec.json.encode(keys)},
            senders={"spool": SimpleNamespace(send=self.said.append)},
        )))  # fmt: skip
        self.ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.ear.bind(("127.0.0.2", 0))
        self.ear.setblocking(False)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.connect(self.ear.getsockname())
        self.sock.setblocking(False)
        self.part.serve_datagrams(self.sock, Listener(self.sock.fileno(), "127.0.0.1", 0, True, "out"))
        self.part.on_record("spool", records.Begin(1))
        self.number = 0
        self.came: dict[int, list[bytes]] = {PROMPT: [], BULK: []}

    def put(self, size: int, *, prompt: bool) -> None:
        self.number += 1
        self.part.on_record("spool", records.Piece("files:reports", 1, self.number, bytes(size), prompt=prompt))

    def heard(self, kind: int) -> list[bytes]:
        """The packets of a class that have come, once there are any."""

        def come() -> bool:
            self.reactor.turn(0.01)
            while True:
                try:
                    packet = self.ear.recv(65536)
                except BlockingIOError:
                    return bool(self.came[kind])
                self.came.setdefault(packet[3], []).append(packet)

        waiting.eventually(come)
        return self.came.pop(kind)

    def until_bulk_waits(self) -> None:
        def waits() -> bool:
            self.reactor.turn(0.01)
            return self.part._out is not None and self.part._out._left > 0

        waiting.eventually(waits)

    def close(self) -> None:
        self.sock.close()
        self.ear.close()
        self.reactor.close()


@pytest.fixture
def pace() -> Iterator[Pace]:
    made = Pace()
    yield made
    made.close()


def test_no_more_leaves_at_once_than_a_burst(pace: Pace) -> None:
    pace.part._tokens = 1
    for _ in range(8):
        pace.put(20_000, prompt=False)
    assert BURST / 2 < sum(map(len, pace.heard(BULK))) <= BURST


def test_what_is_prompt_does_not_wait_until_bulk_is_paid_for(pace: Pace) -> None:
    pace.part._tokens = -BURST
    pace.put(100, prompt=True)
    assert len(pace.heard(PROMPT)) == 1
    assert pace.part._tokens <= -BURST / 2  # it takes half a minute until that is paid for


def test_so_it_is_while_bulk_waits(pace: Pace) -> None:
    """The time at which a prompt block is closed is not forgotten over the time at which bulk goes on."""
    pace.part._tokens = -BURST / 2
    for _ in range(8):
        pace.put(20_000, prompt=False)
    pace.until_bulk_waits()
    pace.put(100, prompt=True)
    assert len(pace.heard(PROMPT)) == 1
    assert pace.part._tokens <= -BURST / 4


def test_what_is_prompt_is_paid_for_as_well(pace: Pace) -> None:
    for _ in range(30):
        pace.put(9000, prompt=True)
    assert sum(map(len, pace.heard(PROMPT))) <= 2 * BURST


def test_bulk_has_its_part_of_a_strand_that_what_is_prompt_fills(pace: Pace) -> None:
    """One byte in seventeen: late it may be, and not never."""
    pace.part._tokens = -BURST / 2
    for _ in range(8):
        pace.put(20_000, prompt=False)
    pace.until_bulk_waits()
    pace.part._tokens = 0
    for _ in range(30):
        pace.put(9000, prompt=True)
    sent = sum(map(len, pace.heard(PROMPT)))
    out = pace.part._out
    assert out is not None and out.has_prompt and out.has_bulk
    assert FLOOR / 2 < sent / sum(map(len, pace.came[BULK])) < 2 * FLOOR


def test_what_has_left_is_told_so_that_no_more_waits_here_than_soon_leaves(pace: Pace) -> None:
    """What is prompt and what would be, were it not too large: what the spool has handed over comes back as room."""
    pace.part._tokens = BURST
    sizes = (100, 5000, 20_000)
    for size in sizes:
        pace.put(size, prompt=True)
    bodies = [
        records.Piece("files:reports", 1, number, bytes(size), prompt=True) for number, size in enumerate(sizes, 1)
    ]
    wanted = sum(len(encode(one)) for one in bodies)

    def told() -> bool:
        pace.reactor.turn(0.01)
        pace.part.tick()
        return bool(sum(one.prompt for one in pace.said) == wanted)

    waiting.eventually(told)


def test_what_is_as_it_was_until_the_next_start_is_an_alarm(pace: Pace) -> None:
    """`hostile_wire` that is switched on by a reload does nothing for the epoch that goes on."""
    assert "next-start" not in pace.part.alarms()
    text = POLICY.replace("carries", "rate: 10 kbit/s, burst: 60 kB, block: 200, hostile_wire: true, carries")
    pace.part.take_policy(compile_policy(loads(text), now_ns=WALL), ())
    assert pace.part.alarms()["next-start"].startswith("hostile_wire of the strand strand: ")


def cut_socket() -> socket.socket:
    """One whose interface is down by now."""
    found: list[socket.socket] = []

    def make() -> None:  # a thread's own namespace goes with it
        kernel.unshare(kernel.CLONE_NEWNET)
        ip("link", "add", "cut0", "type", "veth", "peer", "name", "cut1")
        ip("address", "add", "10.83.9.1/30", "dev", "cut0")
        ip("link", "set", "cut0", "up")
        found.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        found[0].connect(("10.83.9.2", 9))
        ip("link", "set", "cut0", "down")

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


class _Far:
    """A link whose far end takes nothing until it is read."""

    def __init__(self, pace: Pace) -> None:
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.near.setblocking(False)
        self.far.setblocking(False)
        link = _Link("", pace.sock)
        link.sock = self.near
        pace.part._links.append(link)

    def fill(self) -> None:
        with pytest.raises(BlockingIOError):
            while True:
                self.near.send(b"full")

    def came(self) -> set[tuple[int, int]]:
        """(kind, index) of the packets that have come."""
        found: set[tuple[int, int]] = set()
        while True:
            try:
                packet = self.far.recv(65536)
            except BlockingIOError:
                return found
            if packet != b"full":
                one = unpack(packet)
                found.add((one.kind, one.at))

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.mark.parametrize("cut", [False, pytest.param(True, marks=netns)])
def test_what_waits_for_room_is_not_lost_for_a_cut_link_nor_for_an_announcement(pace: Pace, cut: bool) -> None:
    """With one link cut and the other full for a while, what was to be sent was gone; so was what waited for room when
    the epoch was announced again."""
    broken, whole = cut_socket() if cut else None, _Far(pace)
    link = pace.part._links.pop(0)
    if broken is not None:
        link.sock = broken
        pace.part._links.insert(0, link)
    whole.fill()
    pace.put(100, prompt=True)
    seen: set[tuple[int, int]] = set()

    def tried() -> bool:
        pace.reactor.turn(0.01)
        out = pace.part._out
        return bool(pace.part._stuck or (out is not None and not out.has_prompt and out.due() is None))

    def both() -> bool:
        pace.part.tick()
        pace.reactor.turn(0.01)
        seen.update(whole.came())
        return {(PROMPT, 0), (HELLO, 0)} <= seen

    try:
        waiting.eventually(tried)
        pace.part._hello_at = 0
        pace.part.tick()
        pace.reactor.turn(0.01)
        waiting.eventually(both)
        assert bool(link.error) == cut
    finally:
        whole.close()
        if broken is not None:
            broken.close()
