"""One request on its way to a device, and one connection on which requests are.

Not here: when it is sent, and what becomes of it (device).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.standing import Standing
from cofferdam.crossing.reactor import Timer
from cofferdam.model import Allow, Failure
from cofferdam.protocols.base import ClientMachine, Continues

LONGEST_NS = 60_000_000_000
"""A request that the asset answers in parts is over after so long, however fast they come."""
AGAIN = "the connection was lost, and the read is asked once more"


class Job:
    """One request on its way to the device. `done(job)` is called once, when `response` or `failure` is set.

    `allow` is the verdict that permits it. Times: monotonic ns; 0 where it has not happened. `sent` with a failure
    means that the device may have seen the request.
    """

    __slots__ = (
        "allow",
        "arrived",
        "detail",
        "done",
        "failure",
        "finished",
        "flow",
        "generation",
        "group",
        "heard",
        "joined",
        "judged",
        "line",
        "own",
        "request",
        "response",
        "sent",
        "session",
        "source",
        "standing",
        "timeout_ns",
        "unit",
        "writes",
    )  # fmt: skip

    def __init__(
        self,
        allow: Allow,
        request: Any,
        source: str,
        line: int,
        arrived: int,
        timeout_ns: int,
        done: Callable[[Job], None],
    ) -> None:
        self.allow = allow
        self.request = request
        self.source = source
        self.line = line
        self.own = not source  # the gate asks for itself: few, and a write waits for some
        self.arrived = arrived
        self.timeout_ns = timeout_ns
        self.done = done
        self.sent = 0
        self.heard = 0  # when the asset answered a part of it last
        self.finished = 0
        self.response: Any = None
        self.failure: Failure | None = None
        self.detail = ""
        self.session: Any = None  # whose it is, and by which flow it was judged (inner)
        self.flow: Any = None
        self.joined: list[Job] | None = None  # who shares the answer (sharing)
        self.generation = -1
        self.standing: Standing | None = None  # what stands once it is answered well
        self.unit = -1  # which unit behind the address is asked, where there are several
        self.writes = False
        self.judged = False  # by a value that was read for it, and that grows old while it waits
        self.group = source  # whose turns it takes

    @property
    def repeatable(self) -> bool:
        """Whether it may be asked once more, now that its connection broke: a read of which nothing was heard."""
        return not (self.writes or self.heard or self.standing is not None or self.detail == AGAIN)


class Connection:
    """One connection to the device. `lines`: where the sessions have their requests, of all connections of the device;
    None where there is only one."""

    __slots__ = (
        "due", "flight", "forgotten", "gathered", "last", "lines", "machine", "more", "ready", "silent", "standing",
        "timer", "transport",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        machine: ClientMachine[Any, Any],
        now: int,
        lines: dict[int, Connection] | None,
    ) -> None:
        self.transport = transport
        self.machine = machine
        self.flight: dict[int, Job] = {}
        self.lines = lines
        self.more: dict[int, int] = {}  # sessions that have several under way: how many besides the first
        self.gathered: set[int] = set()  # of those: what takes no place (ClientMachine.gathers, Continues)
        self.standing: dict[int, Standing] = {}  # by the token of the request that made it
        self.due = 0  # when the machine wants to be told the time
        self.timer: Timer | None = None
        self.ready = False
        self.silent = 0
        self.forgotten = 0  # requests whose answer may still come
        self.last = now

    @property
    def load(self) -> int:
        """How many places are taken."""
        return len(self.flight) - len(self.gathered) if self.gathered else len(self.flight)

    @property
    def streams(self) -> bool:
        """Whether a stream stands on it."""
        return any(one.stream is not None for one in self.standing.values())

    def continues(self, event: Continues, now: int) -> None:
        """A part of a request was answered. `now`: monotonic ns."""
        self.flight[event.token].heard = now
        self.silent = 0
        if event.aside:
            self.gathered.add(event.token)

    def take(self, token: int) -> Job:
        """A request that is under way no longer."""
        if self.gathered:
            self.gathered.discard(token)
        job = self.flight.pop(token)
        lines = self.lines
        if lines is not None and not job.own:
            line = job.line
            if self.more and line in self.more:
                left = self.more.pop(line) - 1
                if left:
                    self.more[line] = left
            else:
                del lines[line]
        return job

    def put(self, token: int, job: Job) -> None:
        """A request that is under way from now on."""
        self.flight[token] = job
        lines = self.lines
        if lines is not None and not job.own:
            line = job.line
            if line in lines:  # by this connection: no other is free for that session (Device._free)
                self.more[line] = self.more.get(line, 0) + 1
            else:
                lines[line] = self

    def take_all(self) -> list[Job]:
        """All that is under way, and is so no longer."""
        found = list(self.flight.values())
        for job in found:
            if self.lines is not None and not job.own:
                self.lines.pop(job.line, None)
        self.flight.clear()
        self.more.clear()
        self.gathered.clear()
        return found


def due_at(job: Job) -> int:
    """When the asset has had all the time that it is given (monotonic ns)."""
    if not job.heard:
        return job.sent + job.timeout_ns
    return min(job.heard + job.timeout_ns, job.sent + LONGEST_NS)
