"""What a broker declares, and what the process around a part and the part owe each other.

A broker is a crew (enforce.profile) and, for each of its pipes, the closed set of records that may go through it. Its
parts are named by module and class, so that a process loads the one that it runs and nothing of the others.

The main program (brokers.half) owns pipes, filter, reports and stopping; a part owns its work.

Not here: which brokers there are (registry), what a policy may say of one (policy.terms).
"""

from __future__ import annotations

import abc
import functools
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from mypy_extensions import mypyc_attr

from cofferdam.audit.client import AuditClient
from cofferdam.audit.supervision import PastWrite
from cofferdam.brokers.kit.figures import Figure, Reported
from cofferdam.brokers.kit.supervision import (
    RESULT_BYTES,
    AssetStatus,
    Listener,
    SessionStatus,
)
from cofferdam.brokers.kit.transport import Transport
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.profile import Crew
from cofferdam.errors import CrossingError, GateError
from cofferdam.policy.table import CompiledPolicy

T = TypeVar("T")


@dataclass(frozen=True)
class Broker:
    """One kind of broker.

    `make`: part -> "module:Class" of a `Part`. `records`: (from, to) -> "module:function", which is called with the
    part's policy and the broker's name and gives the pipe's `RecordCodec`. `answers`: parts that answer others: they
    take no more from a pipe while what they have to say to its other end finds no room. `alarms`: parts whose alarms
    are the gate's; another that raises one is ended. `figures`: what each part reports, by part; a part that reports
    another is ended. Parts may report the same one, and it is summed.
    `rekeys`: parts that take their secrets anew while they run, when the policy is loaded again (`take_secrets`).
    `needs`: Python modules that its parts import and that an extra of the broker's name brings, not the base.
    """

    name: str
    crew: Crew
    make: dict[str, str]
    records: dict[tuple[str, str], str]
    answers: frozenset[str] = frozenset()
    rekeys: frozenset[str] = frozenset()
    alarms: frozenset[str] = frozenset()
    figures: dict[str, tuple[Figure, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    vouched: frozenset[tuple[str, str]] = frozenset()
    """(part, verb) of what the gate vouches for when it is asked: who asks, and of which file (kit.vouch.Claim)."""
    stands_in: dict[tuple[str, str], str] = field(default_factory=dict)
    """(part, verb) of what another part can be asked while this one is away (Crew.returns)."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Job of the crew -> "module:function", which takes a `Job` and gives its answer."""
    loads: dict[str, dict[bytes, str]] = field(default_factory=dict)
    """Job -> what may stand in its order -> a module that it needs then: loaded before its filter is on. An order that
    has these bytes elsewhere costs time, and no more; one that lacks them gets an error."""

    @property
    def declared(self) -> dict[str, Figure]:
        """All figures by name."""
        return {figure.name: figure for figures in self.figures.values() for figure in figures}


@dataclass(frozen=True)
class Job:
    """What a job is given. Its filter is on. `reads` are folders by part, `sockets` services of the host by name."""

    arguments: bytes
    reads: Mapping[str, Path] = field(default_factory=dict)
    sockets: Mapping[str, str] = field(default_factory=dict)


def boot_of(boot: str, life: int) -> str:
    """What makes the ids of a later life of one part unique, which the others know as well."""
    return f"{boot}-r{life}" if life else boot


JOBS_OF_PART: Final = 4
"""Jobs that a part may have running."""
RunJob = Callable[[str, bytes, Callable[[bytes, str], None]], None]
"""Has a job started: its name, its arguments, and what is called with its answer, or with why there is none."""


def _no_jobs(job: str, arguments: bytes, done: Callable[[bytes, str], None]) -> None:
    raise GateError(f"this part has no job {job}")


class Asked:
    """An operator's question to a part: a verb of its broker, with arguments. To be answered once, now or later; the
    gate waits some seconds for it."""

    def __init__(self, verb: str, arguments: bytes, done: Callable[[bytes, str, str], None]) -> None:
        self.verb = verb
        self.arguments = arguments
        self._done: Callable[[bytes, str, str], None] | None = done

    def decode(self, kind: type[T]) -> T:
        """The arguments, strictly. Raises: GateError, which the process around the part answers with."""
        try:
            return msgspec.json.decode(self.arguments, type=kind)
        except msgspec.MsgspecError as error:
            hint = "a value out of its range; or the command is of another version than the gate"
            raise GateError(f"{self.verb}: {error}", hint=hint) from None

    def answer(self, result: object = None) -> None:
        """What it asked for: anything that can be JSON."""
        data = msgspec.json.encode(result)
        if len(data) > RESULT_BYTES:
            self.refuse(f"the answer has {len(data)} bytes, and at most {RESULT_BYTES} can be told", "ask for less")
        else:
            self._end(data, "", "")

    def refuse(self, error: str, hint: str = "") -> None:
        """No, why not, and the way out."""
        self._end(b"", error or "no", hint)

    def _end(self, result: bytes, error: str, hint: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(result, error, hint)


@dataclass
class Setting:
    """What a part is given at birth. `policy` is its slice; `senders` are by the name of the part at the other end;
    `dial` is there for a part that may make connections; `store`, `reads` (by part) and `folders` (the site's, by
    name) are folders; `secrets` are by name, for this part alone."""

    crew: str
    part: str
    broker: str
    boot: str
    """Makes ids that the part gives out unique in the log."""
    again: bool
    """What was done to its assets in the last minute is not known."""
    policy: CompiledPolicy
    severed: frozenset[str]
    assets: tuple[str, ...]
    zones: tuple[tuple[str, ...], str]
    """The zones that sessions come from, and the one that they go to."""
    reactor: Reactor
    audit: AuditClient
    senders: Mapping[str, Sender[Any]]
    dial: Callable[[str, int, Callable[[], None]], Transport]
    """A part of the reactor connects by it; one of asyncio by `kit.aio.dial`."""
    start: Callable[[Coroutine[Any, Any, None]], None] | None = None
    """Runs a task (runtime "asyncio"); one that fails ends the process."""
    store: Path | None = None
    reads: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    recent: tuple[PastWrite, ...] = ()
    """The writes to its assets of the last minute, by whomever, where they are known."""
    life: int = 0
    """Of a part that comes again while the others go on: 0 for the first, with which they were born."""
    run_job: RunJob = _no_jobs
    """At most JOBS_OF_PART at once. Jobs end with the crew; their answers may then be missing."""
    wall: Callable[[], int] = time.time_ns
    """UTC ns."""
    clock: Callable[[], int] = time.monotonic_ns


@mypyc_attr(allow_interpreted_subclasses=True)
class Part(abc.ABC):
    """What runs in a part's process. Made with its Setting, before the filter is on. Everything is called from its
    loop; an exception ends the process."""

    spins: ClassVar[bool] = True
    """Whether its loop looks for more for a moment before it sleeps (`busy_poll_microseconds`): right where exchanges
    follow each other, wrong where people type, since who gives way on a busy machine is given its turn late."""
    urgent: bool = False
    """Whether the policy wants a real-time priority for it (Profile.urgent). Set when it is made."""
    limit_hits: dict[str, int]
    """How often each limit was hit, by name."""
    faults: dict[str, int]
    """Refusals, by model.Fault."""
    malformed: int

    def __init__(self, setting: Setting) -> None:
        self.limit_hits = {}
        self.faults = {}
        self.malformed = 0

    @abc.abstractmethod
    def on_record(self, source: str, record: Any) -> None:
        """A record from another part, decoded: it is one of the pipe's set, and no more is known of it.

        Raises:
            CrossingError: it says what no honest part would say. The process has to stop.
        """

    def taker(self, source: str) -> Callable[[Any], None]:
        """What is called with each record from this part. For those who count every call."""
        return functools.partial(self.on_record, source)

    @abc.abstractmethod
    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        """Works by this policy from now on. Returns how many sessions ended by it."""

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:  # noqa: B027 - most have them for life
        """Its secrets, as they are by now (`Broker.rekeys`); said before the policy. Raises: GateError: they are not
        what they should be; it goes on with those that it has."""

    @abc.abstractmethod
    def set_severed(self, sides: Collection[str]) -> None:
        """Cuts these sides off, and no others."""

    def is_hasty(self, source: str) -> bool:
        """Whether this address has connected so often of late that one more connection is closed unlooked at: asked
        before anything is made of it, since a flood is thousands a second."""
        return False

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        """A client has connected (runtime "reactor", with Can.ACCEPT)."""
        transport.close()

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        """A client has connected (runtime "asyncio", with Can.ACCEPT). The socket is the part's from now on; it does
        not block. `kit.aio` starts protocols and TLS on it."""
        sock.close()

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:  # noqa: B027 - most have none
        """A bound UDP socket that the part was born with (Can.DATAGRAMS), for it to read."""

    def end_datagrams(self, sock: socket.socket) -> None:  # noqa: B027 - most have none
        """The policy takes this socket away: it is closed when this returns."""

    def join(self, place: tuple[str, int], sender: Sender[Any]) -> Callable[[Any], None]:
        """It has an end of a seam, to what is published at this place (kit.seam). Returns what takes the other end's
        records; a CrossingError that leaves that closes the seam (`leave`)."""
        raise CrossingError(f"a seam at {place[0]}:{place[1]}, of which this part knows nothing")

    def leave(self, place: tuple[str, int]) -> None:  # noqa: B027 - most have none
        """The seam to this place is no more."""

    def away(self, other: str) -> None:  # noqa: B027 - most have none
        """A part that comes again (Crew.returns) has ended. What is sent to it until then goes nowhere."""

    def anew(self, other: str, life: int) -> None:  # noqa: B027 - most have none
        """It has come, and knows nothing but what is in its store: what it is sent now is the first that it hears."""

    def end_sessions(self, sessions: Collection[str], reason: str) -> None:  # noqa: B027 - most have none
        """Ends these sessions, by id."""

    def command(self, asked: Asked) -> None:
        """An operator asks something. A GateError that leaves this is the answer."""
        asked.refuse(f"there is no {asked.verb!r} here")

    def tick(self) -> None:  # noqa: B027 - optional
        """Called twice a second."""

    def stop(self) -> None:  # noqa: B027 - optional
        """Takes no new work; what is under way goes on."""

    def end(self) -> None:  # noqa: B027 - optional
        """The process ends in order, now: ends what is left, and writes all that was counted."""

    def halt(self) -> None:  # noqa: B027 - optional
        """The process ends now, for a violation or a bug: from here on nothing may be done any more."""

    @property
    def busy(self) -> int:
        """How much is under way."""
        return 0

    @property
    def riding(self) -> int:
        """How much of what a strand has brought is under way: once it is nothing, the strand's files go."""
        return self.busy

    # --- what `status` shows ------------------------------------------------------------------------------------

    def sessions(self) -> tuple[SessionStatus, ...]:
        """Those that are open. Asked when somebody wants to see them, and when some are to end."""
        return ()

    def open_sessions(self) -> dict[str, int]:
        """How many sessions are open, by asset or whatever they are with. Told once a second."""
        counts: dict[str, int] = {}
        for session in self.sessions():
            counts[session.asset] = counts.get(session.asset, 0) + 1
        return counts

    def assets(self) -> tuple[AssetStatus, ...]:
        return ()

    def figures(self) -> Reported:
        """The figures that the broker declares for this part, by name."""
        return {}

    def alarms(self) -> dict[str, str]:
        """What needs a person: a sentence each, by a stable name. For parts that the broker's `alarms` lists."""
        return {}
