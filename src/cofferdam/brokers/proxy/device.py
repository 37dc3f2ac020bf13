"""One device and the few connections to it that many clients share.

A device is an address, a port and a route; assets that differ only in their unit share it. It never has more
connections than `connections` and never more requests on one than `outstanding`; what comes above waits in lines that
take turns (lines).

Requests of one session reach the device in the order in which they were submitted: while one is under way, the next
goes by the same connection or waits for it.

Where several units share an address, one that does not answer is asked now and then (silence); all other requests to it
fail at once.

A request is sent once. If its connection breaks, or no answer comes in time, it has failed, and its owner is told
so; nothing in here sends it again. What waited too long is not sent at all: an order that nobody waits for any more
must not reach a machine.

Not here: who may ask (inner), what the bytes mean (the protocol's client machine), what stands at a device (speaking),
what is told of it (told).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from cofferdam.brokers.kit.datagrams import Datagrams
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.approach import Approach
from cofferdam.brokers.proxy.conduct import Conduct
from cofferdam.brokers.proxy.connection import AGAIN, Connection, Job, due_at
from cofferdam.brokers.proxy.lines import OURS, Lines
from cofferdam.brokers.proxy.silence import Silence, Unit
from cofferdam.brokers.proxy.standing import Standing
from cofferdam.brokers.proxy.told import Told
from cofferdam.crossing.reactor import Reactor, Timer
from cofferdam.errors import ConnectAnew, LocalProtocolError, RemoteProtocolError
from cofferdam.limits import Limits
from cofferdam.model import Allow, Asset, Failure
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    Continues,
    Facing,
    FrameReceived,
    NoticeReceived,
    Over,
    Protocol,
    ResponseReceived,
    Unmatched,
)

# Named here, it is found without a look into the module, for each message.
_ANSWERED: Final = ResponseReceived
CLIENT_GONE = "the client has gone"
TOO_LATE = "waited too long for a place at the device"
SHARED_WAIT = 5
"""Where several units share an address, reads wait in line for so many of the asset's timeouts, unless the policy says
how long: one or two units that are off are found out meanwhile, and cost their neighbours no answer."""
TIMEOUTS_IN_A_ROW = 3
"""So many requests without an answer, and the connection is taken for dead and closed; not while a stream stands on it:
its frames come or do not, and a side that falls silent ends it."""


class Device(Told):
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
        permit: Callable[[Job], bool],
        news: Callable[[list[Standing], NoticeReceived | FrameReceived | Over], None],
        facing: Facing | None = None,
        datagrams: Datagrams | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.asset = asset
        self._facing = facing
        self._datagrams = datagrams
        self._protocol = protocol
        self._limits = limits
        self._reactor = reactor
        self._connect = connect
        self._permit = permit  # asked again before a job that has waited is sent
        self._news = news  # of what stands at this device
        self._speaks = protocol.speaks
        self.conduct = Conduct(limits, report)
        self._clock = clock
        self._connections: list[Connection] = []
        # Which connection has requests of a session under way. It matters where there is more than one.
        self._lines_at: dict[int, Connection] | None = {} if asset.connections > 1 else None
        self._lines: Lines[Job] = Lines(_urgent, lambda job: job.group)
        self.shared = False
        """Several units answer at this address."""
        self.units: dict[int, int] = {}
        """What the device calls units that clients call otherwise: by the clients' number."""
        self._silence = Silence()
        self._places = asset.outstanding  # on each connection; none while a pause runs
        self._rest: Timer | None = None
        self._timer: Timer | None = None
        self._due = 0
        self._approach = Approach(limits, reactor, clock, self._pump)
        self.held = False
        """Nothing is sent while an operator has severed the device's side."""
        self.retired = ""
        """Why nothing is ever sent again: the policy has no such device any more. "" while it has."""
        self.late, self.detail = 0, ""
        self._line = Unit()  # of all units together

    def adopt(self, asset: Asset, facing: Facing | None) -> None:
        """The policy in force says this of the same device from now on."""
        self.asset = asset
        if self._rest is None:
            self._places = asset.outstanding
        if self._facing is not None:
            self._facing = facing
            for connection in self._connections:
                connection.machine.take_asset(asset)

    # --- requests ---------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Sends the job's request now or as soon as there is a place, or fails it."""
        lines = self._lines
        if self.held or self.retired:
            self._fail(job, Failure.UNREACHABLE, self.retired or "severed")
            return
        # `wait` is for those who wait in line: with less than `timeout` it turns nobody away whose turn is at once.
        now = self._clock()
        if now - job.arrived > job.timeout_ns and self._too_late(job):
            self._fail(job, Failure.BUSY, TOO_LATE)
            return
        if self._silence.silent and not self._silence.may_ask(job.unit, job.group, job.timeout_ns, self._clock()):
            self._fail(job, Failure.TIMEOUT, f"unit {job.unit} has not answered of late, and is asked now and then")
            return
        if not lines.count:
            connection = self._free(job)
            if connection is not None:
                self._send(connection, job, now)
                return
        if lines.length(job.source, job.line) >= self._limits.asset_queue_per_client:
            self._fail(job, Failure.BUSY, "too many requests of this client wait for this device")
            return
        gives_way: Job | None = None
        if lines.count >= self._limits.asset_queue and not job.own:
            gives_way = lines.make_room(job.source, job.line, job.group)
            if gives_way is None:
                self._fail(job, Failure.BUSY, "too many requests wait for this device")
                return
        lines.push(job.source, job.line, job)
        if self._may_connect():
            self._open()
        elif self.asset.connections > 1:  # who waits for its own connection holds up nobody else
            self._pump()
        self._arm(job.arrived + self._patience(job))
        if gives_way is not None:
            self._fail(gives_way, Failure.BUSY, "too many requests wait for this device")

    def _too_late(self, job: Job) -> bool:
        """Whether the job has waited for longer than it may."""
        return self._clock() - job.arrived > self._patience(job)

    def _patience(self, job: Job) -> int:
        """How long the job may wait in line (ns). A write waits no longer for a device that is left alone after a
        connection: by then its client may have given up, and given another order. One that was judged by what the
        device held when it came waits no longer than the device has for an answer: it holds something else by then."""
        manners = self.asset.manners
        if manners.wait_ms >= 0:
            patience = manners.wait_ms * 1_000_000
        else:
            patience = job.timeout_ns + manners.connect_delay_ms * 1_000_000
            if not job.writes:
                patience += manners.reconnect_delay_ms * 1_000_000
                patience *= SHARED_WAIT if self.shared else 1
        return min(patience, job.timeout_ns) if job.judged else patience

    def _may_connect(self) -> bool:
        """Whether a further connection may be opened now. With none up and a pause running, what waits fails."""
        if self.asset.calls_at is not None:
            if not self._connections:
                self._fail_queue(Failure.UNREACHABLE, self.detail or "the device has not connected to us")
            return False
        full = self.retired or len(self._connections) >= self.asset.connections
        if full or any(not connection.ready for connection in self._connections):
            return False
        if self._clock() < self._approach.retry_at:
            if not self._connections:
                self._fail_queue(Failure.UNREACHABLE, self.detail)
            return False
        return not self._approach.alone

    def drop_line(self, source: str, line: int) -> None:
        """A client has gone: what it still has waiting is not sent."""
        for job in self._lines.drop(source, line):
            self._fail(job, Failure.BUSY, CLIENT_GONE)

    def drop_all(self, reason: str) -> None:
        """Nothing of what waits is sent; what is under way comes to its end."""
        self._fail_queue(Failure.UNREACHABLE, reason)

    def _free(self, job: Job) -> Connection | None:
        """The ready connection with the fewest requests under way, if one has room; while a request of the same session
        is under way, no other than its own."""
        least = self._places
        lines = self._lines_at
        if lines is not None and not job.own:
            own = lines.get(job.line)
            if own is not None:
                return own if own.load < least else None
        best: Connection | None = None
        for connection in self._connections:
            load = connection.load
            if load < least and connection.ready:
                if not load:
                    return connection
                best, least = connection, load
        return best

    def _pump(self) -> None:
        """Sends what waits, one line after the other, as far as there are places."""
        lines = self._lines
        one = self.asset.connections == 1
        while lines.count:
            if one:
                if not any(c.ready and c.load < self._places for c in self._connections):
                    break
                job = lines.pop()
            else:
                try:
                    job = lines.pop(lambda job: self._free(job) is not None)
                except IndexError:
                    break
            connection = self._free(job)
            if connection is None:
                raise LocalProtocolError("a request was taken out of line, and has no place")
            if self._too_late(job):  # by less than it takes a loop that is late itself to come to its timer
                self._fail(job, Failure.BUSY, TOO_LATE)
            elif not self._permit(job):
                self._fail(job, Failure.BUSY, "no longer allowed when its turn came")
            else:
                self._send(connection, job, self._clock())
        if lines.count and self._may_connect():
            self._open()

    def _send(self, connection: Connection, job: Job, now: int) -> None:
        """The act, `now` (monotonic ns). The job's Allow permits it; the device's own machine makes a new message."""
        _verdict: Allow = job.allow
        token, data = connection.machine.send(job.request)
        job.sent = connection.last = now
        connection.put(token, job)
        if job.standing is not None and connection.machine.gathers:
            connection.gathered.add(token)
        self._line.requests += 1
        if self.shared:
            self._silence.unit(job.unit).requests += 1
        connection.transport.write(data)
        if self._speaks:
            self._tend(connection)
        if not self._due or now + job.timeout_ns < self._due:
            self._arm(now + job.timeout_ns)

    def _fail(self, job: Job, failure: Failure, detail: str) -> None:
        away = failure in (Failure.UNREACHABLE, Failure.TIMEOUT) and not self.held and not self.retired
        self._line.failed(detail if away else "")
        if self.shared:
            self._silence.unit(job.unit).failed(detail if away else "")
        job.failure, job.detail = failure, detail
        job.finished = self._clock()
        job.done(job)

    def _nowhere(self) -> str:
        """Why who waited for a connection, and not for a place, waited for nothing."""
        return f"{self.asset.address}:{self.asset.port}: no connection in time"

    def _fail_queue(self, failure: Failure, detail: str) -> None:
        for job in self._lines.drain():
            self._fail(job, failure, detail)

    # --- connections ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        holder: list[Connection] = []
        try:
            transport = self._connect(self.asset.address, self.asset.port, lambda: self._connected(holder[0]))
        except OSError as error:
            self._failed_to_connect(error.strerror or str(error))
            return
        holder.append(self._begin(transport))

    def arrived(self, transport: Transport) -> bool:
        """The device has opened a connection to us. Whether it is taken; if not, it is the caller's to close."""
        shut = self.held or self.retired or self._clock() < self._approach.shut_until
        if shut or len(self._connections) >= self.asset.connections:
            return False
        self._connected(self._begin(transport))
        return True

    def _begin(self, transport: Transport) -> Connection:
        """A connection that comes up."""
        asset = self.asset
        quirks = frozenset(asset.quirks)
        if self._facing is None:
            machine = self._protocol.client(quirks=quirks, outstanding=asset.outstanding)
        else:
            machine = self._protocol.client_facing(self._facing, quirks=quirks, outstanding=asset.outstanding)
        if self.units:
            machine = self._protocol.as_units(machine, self.units)
        connection = Connection(transport, machine, self._clock(), self._lines_at)
        self._arm(connection.last + int(self._limits.asset_connect_seconds * 1e9))
        heard = self._on_data if not asset.manners.pause_ms else self._on_data_then_rest
        transport.on_data = lambda data: heard(connection, data)
        transport.on_closed = lambda reason: self._on_closed(connection, reason)
        self._connections.append(connection)
        return connection

    def _connected(self, connection: Connection) -> None:
        connection.last = self._clock()
        if self._speaks:
            # First the two machines agree on how they speak, within the time that a connection may take.
            self._on_data(connection, b"")
            self._arm(connection.last + int(self._limits.asset_connect_seconds * 1e9))
            return
        delay_ns = self.asset.manners.connect_delay_ms * 1_000_000
        if delay_ns:
            connection.last += delay_ns
            self._reactor.call_at(connection.last, lambda: self._awake(connection))
            return
        self._is_up(connection)
        self._pump()

    def _awake(self, connection: Connection) -> None:
        """The device was left alone for as long as it wants to be after connecting."""
        if connection in self._connections and not connection.ready:
            connection.last = self._clock()
            self._is_up(connection)
            self._pump()

    def _on_data_then_rest(self, connection: Connection, data: bytes) -> None:
        """The device has answered, and is left alone for a while."""
        if self._rest is not None:
            self._rest.cancel()
        self._places = 0
        self._rest = self._reactor.call_at(self._clock() + self.asset.manners.pause_ms * 1_000_000, self._rested)
        self._on_data(connection, data)

    def _rested(self) -> None:
        self._rest = None
        self._places = self.asset.outstanding
        self._pump()

    def _is_up(self, connection: Connection) -> None:
        connection.ready = True
        self._approach.up()
        self.detail = ""

    def _left(self, connection: Connection) -> None:
        """The connection is none of ours any more, whoever ended it."""
        self._connections.remove(connection)
        connection.transport.deafen()
        self._approach.ended(self.asset.manners)

    def _failed_to_connect(self, reason: str) -> None:
        self.detail = f"{self.asset.address}:{self.asset.port}: {reason}"
        if not self._approach.failed(self.asset.manners) and not any(one.ready for one in self._connections):
            self._fail_queue(Failure.UNREACHABLE, self.detail)

    def _on_closed(self, connection: Connection, reason: str) -> None:
        if connection not in self._connections:
            return
        self._left(connection)
        if not connection.ready:
            self._failed_to_connect(reason)
            return
        for job in connection.take_all():
            again = self.asset.manners.repeat_reads and job.repeatable and not self.held and not self.retired
            if again and not self._lines.length(job.source, job.line):  # it would come behind them
                job.sent, job.detail = 0, AGAIN
                self._lines.push(job.source, job.line, job)
                self._arm(job.arrived + self._patience(job))
            else:
                self._fail(job, Failure.UNREACHABLE, f"the connection was lost: {reason}")
        self._abandon(connection, f"the connection was lost: {reason}")
        self._pump()

    def _drop(self, connection: Connection, failure: Failure, reason: str) -> None:
        """Closes a connection of ours; what was under way on it has failed, and what stands is given up."""
        for token in connection.standing:
            data = connection.machine.give_up(token)
            if data:
                connection.transport.say_last(data)
        connection.transport.close()
        if connection in self._connections:
            self._left(connection)
        for job in connection.take_all():
            self._fail(job, failure, reason)
        self._abandon(connection, reason)

    def _abandon(self, connection: Connection, reason: str) -> None:
        """The connection is gone, and with it all that stood on it."""
        if connection.timer is not None:
            connection.timer.cancel()
        standing, connection.standing = connection.standing, {}
        for token, one in standing.items():
            self._news([one], Over(token, reason))

    def _on_data(self, connection: Connection, data: bytes) -> None:
        machine = connection.machine
        finished: list[Job] = []
        given_up: tuple[Job, ...] = ()
        enough, at_fault = "", True
        # One look at the clock: all that came in one piece came at one time.
        now = self._clock()
        try:
            if self._speaks:
                self._tell_time(connection, now)
            if data:
                machine.receive_data(data)
            while True:
                event = machine.next_event()
                if type(event) is _ANSWERED:
                    job = connection.take(event.token)
                    job.response = event.response
                    connection.silent = self._line.unanswered = 0
                    if self._lines.count:  # only where somebody waits does it matter who has used what
                        self._lines.charge(job.group, now - job.sent)
                    if self.shared and not self._heard(job, now):
                        given_up += tuple(self._give_up_unit(job.unit))
                    if job.standing is not None and not self._protocol.is_error(event.response):
                        job.standing.connection, job.standing.token = connection, event.token
                        connection.standing[event.token] = job.standing
                elif isinstance(event, BadResponse):
                    job = connection.take(event.token)
                    job.failure, job.detail = Failure.BAD_REPLY, event.detail
                    self._line.failed("")
                    if self.shared:
                        self._silence.unit(job.unit).failed("")
                    if self.conduct.note("broken", event.section, event.detail, now, not event.alone):
                        enough = "too many answers of the device break the protocol"
                elif isinstance(event, Unmatched):
                    if connection.forgotten:
                        connection.forgotten -= 1
                        self.late += 1
                        self.conduct.note("late", "", "an answer came after its time", now)
                    elif self.conduct.note("unasked", "", "a frame that belongs to no request", now):
                        enough = "the device sends what nobody asked for"
                        break
                    continue
                elif isinstance(event, Continues):
                    connection.continues(event, now)
                    continue
                elif event is NEED_DATA:
                    break
                else:
                    self._other(connection, event)  # type: ignore[arg-type]  # the first case took those
                    continue
                job.finished = now
                finished.append(job)
        except ConnectAnew as anew:
            enough, at_fault = str(anew), False
        except RemoteProtocolError as error:
            self.conduct.note("broken", error.section, str(error), now)
            enough = str(error)
        if enough:
            if self._speaks:
                self._say(connection)
            self._drop(connection, Failure.BAD_REPLY, enough)
            pause = self.conduct.pause_ns(now) if at_fault else 0
            if pause:
                self._approach.shut(now + pause)
                self.detail = f"{self.asset.address}:{self.asset.port}: closed for {pause / 1e9:g} s: {enough}"
        if self._speaks and connection in self._connections:
            self._tend(connection)
        connection.last = now
        # The place is given on before the answer is: the next request leaves while this answer is made.
        if self._lines.count:
            self._pump()
        for job in finished:
            job.done(job)
        for job in given_up:
            self._fail(job, Failure.TIMEOUT, f"unit {job.unit} does not answer")

    def _heard(self, job: Job, now: int) -> bool:
        """Takes note of an answer where several units share the line; False if it says, once too often, that the unit
        has given none."""
        unit = self._silence.unit(job.unit)
        if self._protocol.error_code(job.response) not in self._protocol.unreached:
            unit.unanswered = 0
            self._silence.answered(job.unit, job.group)
            return True
        unit.unanswered += 1
        unit.missing = f"the gateway says that unit {job.unit} does not answer"
        return not self._silence.unanswered(job.unit, job.group, now - job.sent, now)

    def _give_up_unit(self, unit: int) -> list[Job]:
        """A unit counts as silent: takes out all that waits for it, which is to fail, but of those whom it answers."""
        return self._lines.drop_if(lambda job: job.unit == unit and not self._silence.answers(unit, job.group))

    # --- time -------------------------------------------------------------------------------------------------

    def _arm(self, due: int) -> None:
        """Has `_expire` called at `due` (monotonic ns) at the latest."""
        if self._due and self._due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._reactor.call_at(due, self._expire)

    def _next_deadline(self) -> int:
        """The earliest deadline of what is under way, waits, or connects; 0 for none."""
        connect_ns = int(self._limits.asset_connect_seconds * 1e9)
        deadlines = [connection.last + connect_ns for connection in self._connections if not connection.ready]
        for connection in self._connections:
            deadlines += [due_at(job) for job in connection.flight.values()]
        deadlines += [job.arrived + self._patience(job) for job in self._lines.jobs()]
        return min(deadlines, default=0)

    def _expire(self) -> None:
        """Ends what has waited too long. First all is taken out, then it is told: who is told may ask anew at once,
        and must not find a connection that is about to be closed."""
        self._timer, self._due = None, 0
        now = self._clock()
        connect_ns = int(self._limits.asset_connect_seconds * 1e9)
        failed: list[tuple[Job, Failure, str]] = []
        abandoned: list[tuple[Connection, str]] = []
        unconnected = False
        for connection in list(self._connections):
            if not connection.ready:
                if now - connection.last >= connect_ns:
                    connection.transport.close()
                    self._left(connection)
                    abandoned.append((connection, "no connection in time"))
                    unconnected = True
                continue
            late = [token for token, job in connection.flight.items() if now >= due_at(job)]
            for token in late:
                job = connection.take(token)
                self._forget(connection, token)
                connection.forgotten += 1
                connection.silent += 1
                self._lines.charge(job.group, now - job.sent)
                failed.append((job, Failure.TIMEOUT, f"no answer within {job.timeout_ns // 1_000_000} ms"))
                if self.shared and self._silence.unanswered(job.unit, job.group, job.timeout_ns, now):
                    why = f"unit {job.unit} does not answer"
                    failed += [(other, Failure.TIMEOUT, why) for other in self._give_up_unit(job.unit)]
            dead = connection.silent >= TIMEOUTS_IN_A_ROW and not connection.streams
            if late and (connection.machine.drop_after_timeout or dead):
                connection.transport.close()
                self._left(connection)
                why = "the connection was closed after an answer that did not come"
                failed += [(job, Failure.TIMEOUT, why) for job in connection.take_all()]
                abandoned.append((connection, why))
        # Also of those behind others of their session: a read may wait for longer than the write behind it.
        gone = self._lines.drop_if(lambda job: now - job.arrived >= self._patience(job))
        away = unconnected or (bool(self._connections) and not any(one.ready for one in self._connections))
        told = (Failure.UNREACHABLE, self._nowhere()) if away else (Failure.BUSY, TOO_LATE)
        failed += [(job, *told) for job in gone]
        if unconnected:
            self._failed_to_connect("no connection in time")
        for lost, why in abandoned:
            self._abandon(lost, why)
        for job, failure, detail in failed:
            self._fail(job, failure, detail)
        self._pump()
        due = self._next_deadline()
        if due:
            self._arm(due)

    def tick(self) -> None:
        """To be called about twice a second: closes connections that nobody uses."""
        if self.asset.calls_at is not None:
            return  # it would open the next one at once
        now = self._clock()
        idle = self.asset.manners.idle_ms * 1_000_000 or int(self._limits.asset_idle_seconds * 1e9)
        for connection in list(self._connections):
            if connection.ready and not connection.flight and not connection.standing and now - connection.last > idle:
                self._drop(connection, Failure.UNREACHABLE, "idle")

    def close(self, reason: str) -> None:
        """Ends all connections; what waits or is under way fails."""
        for connection in list(self._connections):
            self._drop(connection, Failure.UNREACHABLE, reason)
        self._fail_queue(Failure.UNREACHABLE, reason)

    def retire(self, reason: str) -> None:
        """The policy has no such device any more: nothing is sent to it again, whoever still holds this object."""
        self.retired = reason
        self.close(reason)


def _urgent(job: Job) -> bool:
    """Writes, and what is read for one."""
    return job.writes or (job.own and job.source.startswith(OURS))
