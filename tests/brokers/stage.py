"""A proxy's halves in one process with time in the test's hands: what goes in and what comes out, step by step.

The halves, the protocol, the policy, the crossing's records (encoded and decoded) and the reactor's interface are
the real ones. In place of sockets there are transports that keep what was written, in place of the auditor process a
list of drafts that wait for the test's word.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from cofferdam.audit.client import AuditClient
from cofferdam.audit.entry import Draft
from cofferdam.audit.records import Ack, Counting, Hello, ToAuditor, Writable
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.inner import Inner
from cofferdam.brokers.proxy.outer import Outer
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Handler, Reactor, Timer
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS, Protocols
from tests.brokers.harness import make_policy

WALL = 1_800_000_000_000_000_000
"""UTC ns at the beginning: 2027-01-15."""


class ManualReactor(Reactor):
    """Timers that run when the test says that time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.close()  # nothing is ever polled here; a stage that a test keeps would keep a descriptor
        self.now = 1_000_000_000

    def add(self, fd: int, events: int, handler: Handler) -> None:
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Nothing: no descriptor ever has anything here."""

    def remove(self, fd: int) -> None:
        self._handlers.pop(fd, None)

    def settle(self) -> None:
        """Runs what was put off to the end of the turn."""
        while self._later:
            calls, self._later = self._later, []
            for call in calls:
                call()

    def advance(self, seconds: float) -> None:
        """Lets time pass, timer by timer."""
        target = self.now + int(seconds * 1e9)
        while self._timers and self._timers[0].due <= target:
            timer: Timer = heapq.heappop(self._timers)
            self.now = max(self.now, timer.due)
            if timer.call is not None:
                timer.call()
            self.settle()
        self.now = target
        self.settle()


class Wire(Transport):
    """A transport that keeps what was written; and what the peer sends while nothing is read (`arrive`)."""

    def __init__(self, reactor: Reactor | None = None) -> None:
        self._reactor = reactor
        self._lying: list[bytes] = []
        self.written: list[bytes] = []
        self.closed = False
        self.paused = False
        self.on_connected: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if self._lying:
            assert self._reactor is not None
            self._reactor.later(self._look)

    def arrive(self, data: bytes) -> None:
        """The peer sends; it is read as soon as anything is."""
        self._lying.append(data)
        self._look()

    def _look(self) -> None:
        if not self.paused:
            lying, self._lying = self._lying, []
            for data in lying:
                self.on_data(data)

    def take(self) -> list[bytes]:
        written, self.written = self.written, []
        return written


class Link(Sender[Any]):
    """A crossing whose records wait for the test to let them through."""

    def __init__(self, codec: RecordCodec[Any]) -> None:
        super().__init__(1 << 20)
        self._codec = codec
        self.waiting: list[bytes] = []

    def send(self, record: Any) -> None:
        super().soon()
        self.waiting.append(self._codec.encode(record))

    def soon(self) -> None:
        """It leaves when the test lets it through."""

    def take(self) -> list[Any]:
        super().soon()
        waiting, self.waiting = self.waiting, []
        return [self._codec.decode(data) for data in waiting]

    def close(self) -> None:
        self.closed = True


class AuditPipe(Sender[ToAuditor]):
    """Keeps drafts and the batches that want an answer, as the auditor decodes them: strictly."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._codec: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
        self.drafts: list[Draft] = []
        self.unanswered: list[int] = []
        self.counting: dict[int, Draft] = {}

    def send(self, record: ToAuditor) -> None:
        record = self._codec.decode(self._codec.encode(record))
        if isinstance(record, Counting):
            if record.over:
                self.counting.pop(record.number, None)
                self.drafts.append(record.draft)
            else:
                self.counting[record.number] = record.draft
            return
        self.drafts += record.drafts
        if record.wants_ack:
            self.unanswered.append(record.number)

    def close(self) -> None:
        self.closed = True


class Stage:
    """Both halves. `auto`: drafts are acknowledged at once. `again`: the inner half is not the pair's first."""

    zones: tuple[tuple[str, ...], str] = (("enterprise",), "control")
    place = ("127.0.0.1", 502)
    """Where the outer half listens."""

    def __init__(
        self,
        *,
        auto: bool = True,
        again: bool = False,
        policy: CompiledPolicy | None = None,
        broker: str = "modbus",
        protocols: Protocols = PROTOCOLS,
        **options: Any,
    ) -> None:
        self.policy = policy or make_policy(device_port=5020, port=502, **options)
        self.reactor = ManualReactor()
        self.broker, self.protocol = broker, protocols[broker]
        self.auto = auto
        self.wall_offset = WALL - self.reactor.now
        self.audit_pipe = AuditPipe()
        self.audit = AuditClient(self.reactor, self.audit_pipe, wait_seconds=self.policy.limits.audit_wait_seconds)
        self.audit.on_record(Hello(True))
        self.to_inner = Link(records.to_inner(self.policy, broker, protocols))
        self.to_outer = Link(records.to_outer(self.policy, broker, protocols))
        self.devices: list[Wire] = []
        self.dials: list[tuple[str, int]] = []
        self.refuse_dials = False
        self.outer = Outer(self._setting("outer", {"inner": self.to_inner}, False), protocols)
        self.inner = Inner(self._setting("inner", {"outer": self.to_outer}, again), protocols)

    def _setting(self, part: str, senders: dict[str, Sender[Any]], again: bool) -> Setting:
        return Setting(
            crew="test", part=part, broker=self.broker, boot="t", again=again, policy=self.policy, severed=frozenset(),
            assets=tuple(self.policy.assets), zones=self.zones, reactor=self.reactor,
            audit=self.audit, senders=senders, dial=self._connect, wall=lambda: self.reactor.now + self.wall_offset,
            clock=lambda: self.reactor.now,
        )  # fmt: skip

    def _connect(self, address: str, port: int, connected: Callable[[], None]) -> Transport:
        self.dials.append((address, port))
        if self.refuse_dials:
            raise ConnectionRefusedError(111, "Connection refused")
        wire = Wire()
        wire.on_connected = connected
        self.devices.append(wire)
        return wire

    def client(self, source: str = "127.0.0.1", port: int = 40000) -> Wire:
        wire = Wire(self.reactor)
        self.outer.accept(wire, source, port, self.place)
        return wire

    def cross(self) -> None:
        """Lets everything through the crossing and the audit log until all is quiet."""
        for _ in range(100):
            self.reactor.settle()
            busy = False
            if self.auto and self.audit_pipe.unanswered:
                busy = True
                self.acknowledge()
            for record in self.to_inner.take():
                busy = True
                self.inner.take(record)
            for record in self.to_outer.take():
                busy = True
                self.outer.take(record)
            if not busy:
                return
        raise AssertionError("the halves do not come to rest")

    def acknowledge(self, ok: bool = True, reason: str = "") -> None:
        numbers, self.audit_pipe.unanswered = self.audit_pipe.unanswered, []
        for number in numbers:
            self.audit.on_record(Ack(number, ok, reason))

    def writable(self, yes: bool) -> None:
        self.audit.on_record(Writable(yes, "" if yes else "no space left"))

    def up(self, index: int = -1) -> Wire:
        """The device takes the connection."""
        wire = self.devices[index]
        assert wire.on_connected is not None
        wire.on_connected()
        self.cross()
        return wire

    def of(self, kind: type[Any]) -> list[Any]:
        self.reactor.settle()
        return [draft for draft in self.audit_pipe.drafts if isinstance(draft, kind)]


def adu(transaction: int, pdu: bytes, unit: int = 1) -> bytes:
    """A Modbus TCP frame."""
    return transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu


def read(transaction: int, start: int = 0, count: int = 2, unit: int = 1, function: int = 3) -> bytes:
    return adu(transaction, bytes([function]) + start.to_bytes(2, "big") + count.to_bytes(2, "big"), unit)


def write(transaction: int, start: int, value: int, unit: int = 1) -> bytes:
    return adu(transaction, b"\x06" + start.to_bytes(2, "big") + value.to_bytes(2, "big"), unit)


def answer(question: bytes, *values: int) -> bytes:
    """A device's answer to a read with these registers, or the echo of a single write."""
    if question[7] == 6:
        return question
    body = b"".join(value.to_bytes(2, "big") for value in values)
    return adu(int.from_bytes(question[:2], "big"), bytes([question[7], len(body)]) + body, question[6])


def exception(transaction: int, function: int, code: int, unit: int = 1) -> bytes:
    return adu(transaction, bytes([function | 0x80, code]), unit)
