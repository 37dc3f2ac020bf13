"""What an inner half keeps of a client's session, and of an asset."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from cofferdam.audit.events.access import ClientIdentified
from cofferdam.brokers.kit.refusals import RefusalLog
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.device import Device
from cofferdam.brokers.proxy.lines import Lines
from cofferdam.brokers.proxy.records import Opened, Request, Watch
from cofferdam.brokers.proxy.sharing import SharedReads
from cofferdam.crossing.reactor import Timer
from cofferdam.model import Asset, Deny, Operation, Shown
from cofferdam.policy.points.decide import Flow

Held = tuple[Request[Any] | Watch[Any], Operation, int]
"""A request that waits for one before it: the record, what it means, when it arrived (monotonic ns)."""


class Tally:
    """Reads of a session that one conduit allowed, since they were last told."""

    __slots__ = ("cells", "conduit", "failed", "notices", "reads", "shared")

    def __init__(self, conduit: str) -> None:
        self.conduit = conduit
        self.reads = 0
        self.cells = 0
        self.shared = 0
        self.failed = 0
        self.notices = 0


class Session:
    """A client's session with one asset, as the outer half announced it."""

    __slots__ = (
        "asset", "flow", "from_wall", "group", "held", "id", "lent", "minded", "name", "parked", "recording",
        "refusals", "share", "shown", "source", "standing", "tallies", "tally", "under_way", "waits",
    )  # fmt: skip

    def __init__(self, record: Opened, flow: Flow | Deny, refusals: RefusalLog, share: str) -> None:
        self.id = record.session
        self.name = record.name
        self.source = record.source
        self.shown = Shown(record.user, record.application, record.certificate)
        self.asset = record.asset
        self.lent = record.lent
        self.flow = flow
        self.refusals = refusals
        self.under_way = 0
        self.tally = Tally("")  # of the conduit by which it read last
        self.tallies: dict[str, Tally] = {"": self.tally}
        # Who comes by a conduit of the jump server comes with others, who have turns and a budget of their own.
        self.share = share
        # Its turns are those of its principals, from however many addresses they come.
        self.group = " ".join(flow.principals) if isinstance(flow, Flow) and not record.lent else share
        # What keeps its requests in their order: writes that wait for their entry, or for a value, and what came behind
        # them and waits as well.
        self.recording = 0
        self.parked = 0
        self.held: deque[Held] = deque()
        self.minded: Timer | None = None  # by which the first of these is turned away in time
        self.waits = False  # any of these
        self.standing = 0  # watches and streams
        self.from_wall = 0

    def counts(self, conduit: str) -> Tally:
        """The tally of a conduit."""
        tally = self.tally
        if tally.conduit != conduit:
            tally = self.tallies.get(conduit) or self.tallies.setdefault(conduit, Tally(conduit))
            self.tally = tally
        return tally


def borrowed(session: Session, wall: int) -> ClientIdentified:
    """What the log is told of who comes by a port of the jump server: by this half, which was told on the inside."""
    shown = session.shown
    return ClientIdentified(
        wall_ns=wall,
        session=session.name,
        source=session.source,
        user=shown.user,
        application=shown.application,
        certificate=shown.certificate,
        principals=session.flow.principals[:16] if isinstance(session.flow, Flow) else (),
        access=session.lent,
    )


class Parked:
    """A write that waits for a present value. `tried_at`: when a value was asked for, for this write (monotonic ns); 0
    before. `reads`: what is asked for. `passed`: another write came before meanwhile: it waits for that one's end."""

    __slots__ = ("arrived", "operation", "over", "passed", "reads", "record", "session", "timer", "tried_at")

    def __init__(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        self.session = session
        self.record = record
        self.operation = operation
        self.arrived = arrived  # monotonic ns
        self.tried_at = 0
        self.passed = False
        self.reads: list[Job] = []
        self.timer: Timer | None = None
        self.over = False  # it has been judged, or turned away


class Served:
    """What the half keeps of one asset besides its device: shared reads, writes under way, writes that wait."""

    __slots__ = (
        "asset", "device", "identity", "judging", "parked", "scaled", "shared", "steps", "timeout_ns", "unparking",
        "writes",
    )  # fmt: skip

    def __init__(self, asset: Asset, device: Device, shared: SharedReads | None) -> None:
        self.device = device
        self.identity: dict[str, str] = {}  # what the device has said of itself
        self.adopt(asset, shared)
        self.steps = True  # a point has a max_step or max_rate, so that what reads bring is worth remembering
        self.writes = 0
        # Writes that need a present value first, in turns by principal, as at the device. Each principal has one value
        # read at a time: whose turn at the device is far off holds up nobody else.
        self.parked: Lines[Parked] = Lines(group=lambda parked: parked.session.group)
        self.judging: dict[str, Parked] = {}  # by group: those whose value is being read
        self.unparking = False

    def adopt(self, asset: Asset, shared: SharedReads | None) -> None:
        """Takes the asset as another policy describes it."""
        self.asset = asset
        self.shared = shared
        self.timeout_ns = asset.timeout_ms * 1_000_000
        # Where what cells mean, and so whether a write is within limits, follows from what another cell holds.
        self.scaled = tuple(point.at for point in asset.points if point.factor is not None)

    def scales(self, operation: Operation) -> bool:
        """Whether a write is judged by a power of ten that the device holds, also where that was known already."""
        return any(
            at.space == change.space and at.start < change.stop and change.start < at.stop
            for at in self.scaled for change in operation.writes
        )  # fmt: skip


def same_device(old: Asset, new: Asset) -> bool:
    """Whether connections to a device can go on under another policy."""
    return (
        old.connections, old.outstanding, old.quirks, old.connected, old.security, old.manners, old.calls_at, old.tls,
    ) == (
        new.connections, new.outstanding, new.quirks, new.connected, new.security, new.manners, new.calls_at, new.tls,
    )  # fmt: skip


def no_tls(address: str, port: int, connected: Callable[[], None]) -> Transport:
    """In place of a way to a device: the half has no TLS, and nothing goes there without it."""
    raise OSError(0, "this half was started without TLS: restart the gate")
