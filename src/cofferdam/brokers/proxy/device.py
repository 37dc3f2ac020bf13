"""One device and the few connections to it that many clients share.

A device is an address and port; assets that differ only in their unit share it. It never has more connections than
`connections` and never more requests on one than `outstanding`; what comes above waits, each client's requests in
their own line, and the lines take turns.

A request is sent once. If its connection breaks, or no answer comes in time, it has failed, and its owner is told
so; nothing in here sends it again. What waited too long is not sent at all: an order that nobody waits for any more
must not reach a machine.

Not here: who may ask (inner), what the bytes mean (the protocol's client machine).
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.transport import Transport
from cofferdam.crossing.reactor import Reactor, Timer
from cofferdam.errors import RemoteProtocolError
from cofferdam.limits import Limits
from cofferdam.model import Allow, Asset, Failure
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    ClientMachine,
    Protocol,
    ResponseReceived,
)

TIMEOUTS_IN_A_ROW = 3
"""So many requests without an answer, and the connection is taken for dead and closed."""


class Job:
    """One request on its way to the device. `done(job)` is called once, when `response` or `failure` is set.

    `allow` is the verdict that permits it. Times: monotonic ns; 0 where it has not happened. `sent` with a failure
    means that the device may have seen the request.
    """

    __slots__ = (
        "allow", "arrived", "detail", "done", "failure", "finished", "generation", "joined", "line", "request",
        "response", "sent", "timeout_ns",
    )  # fmt: skip

    def __init__(
        self, allow: Allow, request: Any, line: int, arrived: int, timeout_ns: int, done: Callable[[Job], None]
    ) -> None:
        self.allow = allow
        self.request = request
        self.line = line
        self.arrived = arrived
        self.timeout_ns = timeout_ns
        self.done = done
        self.sent = 0
        self.finished = 0
        self.response: Any = None
        self.failure: Failure | None = None
        self.detail = ""
        self.joined: list[Job] | None = None  # who shares the answer (sharing)
        self.generation = -1


class Connection:
    """One connection to the device."""

    __slots__ = ("flight", "last", "machine", "ready", "silent", "transport")

    def __init__(self, transport: Transport, machine: ClientMachine[Any, Any], now: int) -> None:
        self.transport = transport
        self.machine = machine
        self.flight: dict[int, Job] = {}
        self.ready = False
        self.silent = 0
        self.last = now


class Device:
    """The device. `connect` opens a transport whose `on_connected` is called when it is up."""

    def __init__(
        self,
        *,
        asset: Asset,
        protocol: Protocol[Any, Any],
        limits: Limits,
        reactor: Reactor,
        connect: Callable[[str, int, Callable[[], None]], Transport],
        report: Callable[[str, str, str], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.asset = asset
        self._protocol = protocol
        self._limits = limits
        self._reactor = reactor
        self._connect = connect
        self._report = report  # (what, section, detail): a device that breaks the protocol
        self._clock = clock
        self._connections: list[Connection] = []
        self._lines: OrderedDict[int, deque[Job]] = OrderedDict()
        self._queued = 0
        self._timer: Timer | None = None
        self._backoff = 0.0
        self._retry_at = 0
        self.held = False
        """Nothing is sent while an operator has severed the device's side."""
        self.requests = 0
        self.failures = 0
        self.late = 0
        self.detail = ""

    # --- requests ---------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Sends the job's request now or as soon as there is a place, or fails it."""
        if self.held:
            self._fail(job, Failure.UNREACHABLE, "severed")
            return
        if self._queued >= self._limits.asset_queue:
            self._fail(job, Failure.BUSY, "too many requests wait for this device")
            return
        if not self._queued:
            connection = self._free()
            if connection is not None:
                self._send(connection, job)
                return
        line = self._lines.get(job.line)
        if line is None:
            line = self._lines[job.line] = deque()
        elif len(line) >= self._limits.asset_queue_per_client:
            self._fail(job, Failure.BUSY, "too many requests of this client wait for this device")
            return
        line.append(job)
        self._queued += 1
        if not self._may_connect():
            return
        self._open()
        self._arm()

    def _may_connect(self) -> bool:
        """Whether a further connection may be opened now. With none up and a pause running, what waits fails."""
        now = self._clock()
        if any(not connection.ready for connection in self._connections):
            self._arm()
            return False
        if len(self._connections) >= self.asset.connections:
            self._arm()
            return False
        if now < self._retry_at:
            if self._connections:
                self._arm()
            else:
                self._fail_queue(Failure.UNREACHABLE, self.detail)
            return False
        return True

    def drop_line(self, line: int) -> None:
        """A client has gone: what it still has waiting is not sent."""
        for job in self._lines.pop(line, ()):
            self._queued -= 1
            self._fail(job, Failure.BUSY, "the client has gone")

    def _free(self) -> Connection | None:
        """The ready connection with the fewest requests under way, if one has room."""
        least = self.asset.outstanding
        best: Connection | None = None
        for connection in self._connections:
            load = len(connection.flight)
            if load < least and connection.ready:
                if not load:
                    return connection
                best, least = connection, load
        return best

    def _pump(self) -> None:
        """Sends what waits, one line after the other, as far as there are places."""
        while self._queued:
            connection = self._free()
            if connection is None:
                if len(self._connections) < self.asset.connections and self._may_connect():
                    self._open()
                return
            number, line = next(iter(self._lines.items()))
            job = line.popleft()
            self._queued -= 1
            if line:
                self._lines.move_to_end(number)
            else:
                del self._lines[number]
            if self._clock() - job.arrived > job.timeout_ns:
                self._fail(job, Failure.BUSY, "waited too long for a place at the device")
                continue
            self._send(connection, job)

    def _send(self, connection: Connection, job: Job) -> None:
        """The act. The job's Allow is what permits it; the device's own machine makes a new message."""
        _verdict: Allow = job.allow
        token, data = connection.machine.send(job.request)
        job.sent = connection.last = self._clock()
        connection.flight[token] = job
        self.requests += 1
        connection.transport.write(data)
        if self._timer is None:
            self._arm()

    def _fail(self, job: Job, failure: Failure, detail: str) -> None:
        self.failures += 1
        job.failure, job.detail = failure, detail
        job.finished = self._clock()
        job.done(job)

    def _fail_queue(self, failure: Failure, detail: str) -> None:
        lines, self._lines, self._queued = self._lines, OrderedDict(), 0
        for line in lines.values():
            for job in line:
                self._fail(job, failure, detail)

    # --- connections ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        asset = self.asset
        machine = self._protocol.client(quirks=frozenset(asset.quirks), outstanding=asset.outstanding)
        holder: list[Connection] = []

        def connected() -> None:
            connection = holder[0]
            connection.ready = True
            connection.last = self._clock()
            self._backoff, self._retry_at, self.detail = 0.0, 0, ""
            self._pump()

        try:
            transport = self._connect(asset.address, asset.port, connected)
        except OSError as error:
            self._failed_to_connect(error.strerror or str(error))
            return
        connection = Connection(transport, machine, self._clock())
        holder.append(connection)
        transport.on_data = lambda data: self._on_data(connection, data)
        transport.on_closed = lambda reason: self._on_closed(connection, reason)
        self._connections.append(connection)

    def _failed_to_connect(self, reason: str) -> None:
        limits = self._limits
        self._backoff = min(self._backoff * 2 or limits.asset_backoff_seconds, limits.asset_backoff_max_seconds)
        self._retry_at = self._clock() + int(self._backoff * 1e9)
        self.detail = f"{self.asset.address}:{self.asset.port}: {reason}"
        if not any(connection.ready for connection in self._connections):
            self._fail_queue(Failure.UNREACHABLE, self.detail)

    def _on_closed(self, connection: Connection, reason: str) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if not connection.ready:
            self._failed_to_connect(reason)
            return
        flight, connection.flight = connection.flight, {}
        for job in flight.values():
            self._fail(job, Failure.UNREACHABLE, f"the connection was lost: {reason}")
        self._pump()

    def _drop(self, connection: Connection, failure: Failure, reason: str) -> None:
        """Closes a connection of ours; what was under way on it has failed."""
        connection.transport.close()
        if connection in self._connections:
            self._connections.remove(connection)
        flight, connection.flight = connection.flight, {}
        for job in flight.values():
            self._fail(job, failure, reason)

    def _on_data(self, connection: Connection, data: bytes) -> None:
        machine = connection.machine
        finished: list[Job] = []
        # One look at the clock: all that came in one piece came at one time.
        now = self._clock()
        try:
            machine.receive_data(data)
            while True:
                event = machine.next_event()
                if event is NEED_DATA:
                    break
                if isinstance(event, ResponseReceived):
                    job = connection.flight.pop(event.token)
                    job.response = event.response
                    connection.silent = 0
                elif isinstance(event, BadResponse):
                    job = connection.flight.pop(event.token)
                    job.failure, job.detail = Failure.BAD_REPLY, event.detail
                    self.failures += 1
                    self._report("bad reply", event.section, event.detail)
                else:
                    self.late += 1
                    continue
                job.finished = now
                finished.append(job)
        except RemoteProtocolError as error:
            self._report("protocol violation", error.section, str(error))
            self._drop(connection, Failure.BAD_REPLY, str(error))
        connection.last = now
        # The place is given on before the answer is: the next request leaves while this answer is made.
        if self._queued:
            self._pump()
        for job in finished:
            job.done(job)

    # --- time -------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Sets the timer to the earliest deadline of what is under way, waits, or connects."""
        if self._timer is not None:
            return
        due = 0
        connect_ns = int(self._limits.asset_connect_seconds * 1e9)
        for connection in self._connections:
            if not connection.ready:
                at = connection.last + connect_ns
                due = at if not due else min(due, at)
            for job in connection.flight.values():
                at = job.sent + job.timeout_ns
                due = at if not due else min(due, at)
        for line in self._lines.values():
            at = line[0].arrived + line[0].timeout_ns
            due = at if not due else min(due, at)
        if due:
            self._timer = self._reactor.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock()
        connect_ns = int(self._limits.asset_connect_seconds * 1e9)
        for connection in list(self._connections):
            if not connection.ready:
                if now - connection.last >= connect_ns:
                    connection.transport.close()
                    self._connections.remove(connection)
                    self._failed_to_connect("no connection in time")
                continue
            late = [token for token, job in connection.flight.items() if now - job.sent >= job.timeout_ns]
            for token in late:
                job = connection.flight.pop(token)
                connection.machine.forget(token)
                connection.silent += 1
                self._fail(job, Failure.TIMEOUT, f"no answer within {job.timeout_ns // 1_000_000} ms")
            if late and (connection.machine.drop_after_timeout or connection.silent >= TIMEOUTS_IN_A_ROW):
                self._drop(connection, Failure.TIMEOUT, "the connection was closed after an answer that did not come")
        for number, line in list(self._lines.items()):
            while line and now - line[0].arrived >= line[0].timeout_ns:
                self._queued -= 1
                self._fail(line.popleft(), Failure.BUSY, "waited too long for a place at the device")
            if not line:
                self._lines.pop(number, None)
        self._pump()
        self._arm()

    def tick(self) -> None:
        """To be called about twice a second: closes connections that nobody uses."""
        now = self._clock()
        idle = int(self._limits.asset_idle_seconds * 1e9)
        for connection in list(self._connections):
            if connection.ready and not connection.flight and now - connection.last > idle:
                self._drop(connection, Failure.UNREACHABLE, "idle")

    def close(self, reason: str) -> None:
        """Ends all connections; what waits or is under way fails."""
        for connection in list(self._connections):
            self._drop(connection, Failure.UNREACHABLE, reason)
        self._fail_queue(Failure.UNREACHABLE, reason)

    @property
    def queued(self) -> int:
        """Requests that wait for a place."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Requests that the device has."""
        return sum(len(connection.flight) for connection in self._connections)

    @property
    def connections(self) -> int:
        """Connections that are up."""
        return sum(connection.ready for connection in self._connections)

    @property
    def state(self) -> str:
        """idle, connecting, up, or backing-off."""
        if self.connections:
            return "up"
        if self._connections:
            return "connecting"
        return "backing-off" if self._retry_at > self._clock() else "idle"
