"""What breaks EtherNet/IP's rules, through a real gate: each has its status and its entry in the log, and nothing of it
reaches the device. What a device breaks ends nothing but the request that it is of."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pylogix")
pytest.importorskip("pycomm3")
pytest.importorskip("ethernetip")

from cofferdam.model import Item
from cofferdam.protocols.enip import paths, requests, wire
from tests.gate.plant import QuickGate, events
from tests.gate.test_enip import POLICY, Works
from tests.ports import held_ports
from tests.protocols.enip import tag
from tests.protocols.logix import Controller
from tests.protocols.test_enip import INNER, REFUSED
from tests.waiting import PATIENT, eventually, kill

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # pylogix leaves sockets to the collector


class Peer:
    """A client that says what it likes, on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENT)
        self._answers = self._socket.makefile("rb")
        self.say(wire.frame(wire.REGISTER, 0, b"12345678", b"\1\0\0\0"))
        self.session = int.from_bytes(self.frame()[4:8], "little")

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def frame(self) -> bytes:
        head = self._answers.read(24)
        return head + self._answers.read(int.from_bytes(head[2:4], "little"))

    def ask(self, cip: bytes) -> bytes:
        """The CIP answer."""
        self.say(wire.frame(wire.SEND_RR, self.session, b"whatever", wire.unconnected(cip)))
        return self.frame()[40:]

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def peer(port: int) -> contextlib.closing[Peer]:
    """One that is closed at the end."""
    return contextlib.closing(Peer(port))


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    one = Works(tmp_path_factory.mktemp("works"))
    with contextlib.ExitStack() as ends:
        ends.callback(one.controller.stop)
        ends.callback(one.gate.close)
        one.gate.wait_ready()
        yield one
        assert one.gate.stop() == 0


@pytest.fixture
def tags(works: Works) -> Controller:
    works.controller.written.clear()
    works.controller.asked.clear()
    return works.controller


def told(works: Works, kind: str, before: int, word: str = "") -> list[dict[str, Any]]:
    """The entries of a kind since; there is one at least."""
    eventually(lambda: any(word in one["detail"] for one in events(works.state, kind)[before:]))
    return list(events(works.state, kind)[before:])


def test_each_rule_broken_once_is_told_in_the_log_and_reaches_nobody(works: Works, tags: Controller) -> None:
    packets = [(requests.made(0x0A, paths.of_object(2, 1), requests.packet([tag("pump"), inner])), ())
               for inner in INNER.values()]  # fmt: skip
    for number, (data, status) in enumerate([*((bytes.fromhex(cip), status) for cip, status in REFUSED), *packets]):
        before = len(events(works.state, "malformed"))
        with peer(works.port) as one:
            answer = one.ask(data)
            said = (answer[2], *struct.unpack_from(f"<{answer[3]}H", answer, 4))
            assert said == status or (not status and answer[2] in (0x1E, 0x04)), (number, said)
            assert one.ask(requests.made(0x01, paths.of_object(0x64, 1), b""))[2] == 0, "the connection goes on"
        [entry] = told(works, "malformed", before)
        assert entry["section"] and entry["detail"], data.hex()
    assert tags.asked == [] and tags.written == []


@pytest.mark.parametrize("wrong", [b"\x99\0\0\0", b"\x00\x01\0\0", b"\x6f\0\xff\xff"])
def test_a_header_that_is_none_is_told_and_closes_what_it_says(works: Works, tags: Controller, wrong: bytes) -> None:
    before = len(events(works.state, "malformed"))
    with peer(works.port) as one:
        one.say(wrong + bytes(20))
        found = one.frame()
        assert found == b"" if wrong[0] != 0x99 else found[8] == wire.UNKNOWN_COMMAND
    assert told(works, "malformed", before)


def test_a_write_that_is_hidden_is_refused_as_a_write(works: Works, tags: Controller) -> None:
    """Level may be read, and not written."""
    write = tag("level", service=requests.WRITE, body=b"\xca\0\1\0\0\0\0\0")
    path = paths.of_tag(Item("tag", "level"))
    hidden = {
        "in a packet of reads": requests.made(0x0A, paths.of_object(2, 1), requests.packet([tag("pump"), write])),
        "in an Unconnected Send": requests.made(
            0x52, paths.of_object(6, 1), b"\7\x28" + bytes([len(write), 0]) + write + b"\1\0\1\0"
        ),
        "as a bit": requests.made(0x4E, path, b"\4\0\1\0\0\0\xff\xff\xff\xff"),
        "in one piece": requests.made(0x53, path, b"\xca\0\1\0\0\0\0\0\0\0\0\0"),
        "in Set List": requests.made(4, paths.of_object(1, 1), b"\1\0\6\0\7\0\0\0"),
    }
    for where, data in hidden.items():
        before = len(events(works.state, "refused"))
        with peer(works.port) as one:
            answer = one.ask(data)
            # Of a packet each part is refused, with the status of the whole in each.
            said = {part[2] for part in _parts(answer)} if answer[0] == 0x8A else {answer[2]}
            assert said <= {0x05, 0x0F, 0x08} and 0 not in said, (where, answer.hex())
        assert len(told(works, "refused", before)) == 1, where
    assert tags.written == [] and not [service for service, _ in tags.asked if service not in (1, 0x52)]


def _parts(answer: bytes) -> list[bytes]:
    count = int.from_bytes(answer[4:6], "little")
    places = [*struct.unpack_from(f"<{count}H", answer, 6), len(answer) - 4]
    return [answer[4 + at : 4 + end] for at, end in itertools.pairwise(places)]


def test_each_way_to_change_a_controller_has_one_entry(works: Works, tags: Controller) -> None:
    """Reset, start, stop, a mode change, firmware (A1), a program that is made or deleted (6B)."""
    for service, cls in ((5, 1), (6, 0x8E), (7, 0x8E), (0x10, 0x8E), (0x4B, 0xA1), (8, 0x6B), (9, 0x6B)):
        before = len(events(works.state, "refused"))
        with peer(works.port) as one:
            path = paths.of_object(cls, 1, 3 if service == 0x10 else -1)
            answer = one.ask(requests.made(service, path, b"\1\0" if service in (0x10, 0x4B) else b""))
            assert answer[2] in (0x08, 0x0F), (service, cls, answer.hex())
        [entry] = told(works, "refused", before)
        assert (entry["function"], entry["sub"]) in ((service, cls), (service, -1)), entry
    assert tags.asked == []


class Wayward:
    """A device, byte by byte, that answers a read of a DINT as it is told."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answers: Callable[[bytes, bytes], list[bytes]] = self.fair
        """The frames that answer a CIP request in a frame's head."""
        self._open: list[socket.socket] = []
        self.met = 0
        """Connections that were opened to it."""
        threading.Thread(target=self._accept, daemon=True).start()

    def fair(self, head: bytes, cip: bytes) -> list[bytes]:
        return [self.framed(head, b"\xcc\0\0\0\xc4\0\7\0\0\0")]

    @staticmethod
    def framed(head: bytes, cip: bytes, context: bytes = b"") -> bytes:
        return wire.frame(wire.SEND_RR, 9, context or head[12:20], wire.unconnected(cip))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for one, _ in iter(self._listener.accept, None):
                self._open.append(one)
                self.met += 1
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError), one.makefile("rb") as data:
            while head := data.read(24):
                body = data.read(int.from_bytes(head[2:4], "little"))
                if head[0] == wire.REGISTER:
                    one.sendall(wire.frame(wire.REGISTER, 9, head[12:20], body))
                else:
                    one.sendall(b"".join(self.answers(head, body[16:])))

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with one, contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def test_a_device_that_answers_as_it_likes_ends_no_half(tmp_path: Path) -> None:
    device = Wayward()
    [port] = held_ports(1)
    policy, state = tmp_path / "policy.yaml", tmp_path / "state"
    text = POLICY.format(device=device.port, port=port).replace("    route: backplane 0\n", "")
    policy.write_text(text.replace("timeout: 20 s", "timeout: 1 s"))
    gate = QuickGate(state, policy)
    framed, good = device.framed, b"\xcc\0\0\0\xc4\0\7\0\0\0"
    bad: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
        "of another service": lambda head, _: [framed(head, b"\xcd\0\0\0")],
        "of another type": lambda head, _: [framed(head, b"\xcc\0\0\0\x77\0\7")],
        "of another length": lambda head, _: [framed(head, good + bytes(4))],
        "with broken status words": lambda head, _: [framed(head, b"\xcc\0\1\x7f\x04\x02")],
        "with nothing in it": lambda head, _: [framed(head, b"")],
    }
    late: dict[str, Callable[[bytes, bytes], list[bytes]]] = {
        "not at all": lambda _head, _: [],
        "to another request": lambda head, _: [framed(head, good, b"somebody")],
    }
    try:
        gate.wait_ready()
        with peer(port) as one:
            read = tag("pump")
            for what, answers in bad.items():
                device.answers = answers
                assert one.ask(read)[2] == 0x02, what
                device.answers = device.fair
                assert one.ask(read)[4:] == good[4:], f"after one {what}"
            for what, answers in late.items():
                device.answers = answers
                assert one.ask(read)[2:6] == b"\1\1\4\2", what
                device.answers = device.fair
                assert one.ask(read)[4:] == good[4:], f"after one {what}"
            device.answers = lambda head, _: [framed(head, good), framed(head, b"\xcc\0\0\0\xc4\0\x09\0\0\0")]
            for _ in range(5):
                assert one.ask(read)[4:] == good[4:], "the second answer is nobody's"
            # A tag of a type that nobody here knows, which somebody asks for again and again: it costs the others
            # nothing, and so ends no stream of theirs.
            met = device.met
            for _ in range(30):
                device.answers = bad["of another type"]
                assert one.ask(read)[2] == 0x02
                device.answers = device.fair
                assert one.ask(read)[4:] == good[4:]
            assert device.met == met, "by the one connection"
        eventually(lambda: any("by the asset" in one["detail"] for one in events(state, "malformed")))
        [pair] = gate.status()["pairs"]
        assert pair["restarts"] == 0
    finally:
        gate.close()
        device.close()


def test_a_list_without_an_end_holds_nobody_else_up(tmp_path: Path) -> None:
    """A controller of many tags answers a list for seconds, and has one place for all."""
    device = Wayward()
    [port] = held_ports(1)
    policy, state = tmp_path / "policy.yaml", tmp_path / "state"
    policy.write_text(POLICY.format(device=device.port, port=port).replace("    route: backplane 0\n", ""))
    gate = QuickGate(state, policy)
    steps: list[int] = []
    enough = threading.Event()

    def answers(head: bytes, cip: bytes) -> list[bytes]:
        if cip[0] != requests.LIST:
            return device.fair(head, cip)
        number = 0 if enough.is_set() else len(steps) + 1
        steps.append(number)
        body = struct.pack("<IH4sH3I", number, 4, b"pump", 0xC4, 0, 0, 0) if number else b""
        return [device.framed(head, bytes([requests.LIST | 0x80, 0, 6 if number else 0, 0]) + body)]

    device.answers = answers
    try:
        gate.wait_ready()
        with peer(port) as lists, peer(port) as reads:
            ask = requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8))
            lists.say(wire.frame(wire.SEND_RR, lists.session, b"whatever", wire.unconnected(ask)))
            eventually(lambda: len(steps) > 3)
            met = len(steps)
            for reads_done in range(1, 21):
                assert reads.ask(tag("pump"))[2] == 0
                wanted = met + reads_done
                eventually(lambda: len(steps) >= wanted)  # noqa: B023 - called at once
            enough.set()
            assert lists.frame()[40] == requests.LIST | 0x80
    finally:
        enough.set()
        gate.close()
        device.close()


@pytest.mark.parametrize("half", ["outer", "inner"])
def test_no_write_is_made_twice_when_a_half_dies(works: Works, tags: Controller, half: str) -> None:
    """A client writes one value after the other, connects anew when it has to, and never says one twice."""
    found = tags.tags.find_by_name("Counts")
    assert found is not None
    values: list[int] = []
    found.on_value_changed.append(lambda tag, _: values.append(tag.read_dint(0)))
    [pair] = works.gate.status()["pairs"]
    pid = next(one["pid"] for one in pair["halves"] if one["role"] == half)
    said = 0
    killed = False

    def write(one: Peer) -> int:
        nonlocal said
        said += 1
        return one.ask(tag("counts", service=requests.WRITE, body=b"\xc4\0\1\0" + said.to_bytes(4, "little")))[2]

    until = time.monotonic() + PATIENT
    good_since = 0
    while good_since < 20 and time.monotonic() < until:
        with contextlib.suppress(OSError, IndexError), peer(works.port) as one:
            while good_since < 20 and said < 990:
                good = write(one) == 0
                good_since += killed and good
                if not killed and said == 20:
                    kill(pid)
                    killed = True
    assert good_since == 20
    eventually(lambda: values[-1:] == [said])
    assert len(values) == len(set(values)) and values == sorted(values)
    found.on_value_changed.pop()
