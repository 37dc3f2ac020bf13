"""A keeper in this process, as its crew would have it: real store, real audit log, real checks, sides that speak its
records over channels. Only time stands still until a test moves it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cofferdam.audit.client import AuditClient
from cofferdam.audit.files import LogReader
from cofferdam.audit.records import Ack, Batch, FromAuditor, Hello, ToAuditor, Writable
from cofferdam.audit.recovery import open_log
from cofferdam.audit.service import Auditor
from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.broker import RELAY
from cofferdam.brokers.relay.keeper_part import Keeper
from cofferdam.brokers.relay.ledger import Logged
from cofferdam.brokers.relay.records import Answered, FromKeeper, Handed, Item, NotDone, ToKeeper, Verdict, Works
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.memory import memory_channel
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import GateError
from cofferdam.limits import Limits
from cofferdam.model import Side
from cofferdam.policy import rows
from cofferdam.policy.messages.json_reading import canonical
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Channel, Line, RelayRows, fingerprint, slice_for

SECOND = 1_000_000_000
START = 1_795_404_737_000_000_000
PRINCIPALS = {"mes": "control", "scada": "control", "erp": "enterprise", "lake": "enterprise"}
SCHEMA = json.dumps(
    {
        "type": "object",
        "required": ["count"],
        "additionalProperties": False,
        "properties": {
            "count": {"type": "integer"}, "line": {"type": "string"}, "at": {"type": "string"},
            "text": {"type": "string"},
        },
    }
).encode()  # fmt: skip
COUNTS = Channel(
    name="counts", schema="count.json", keep=3_600, room=1_000_000, room_messages=10_000, tries=3, lease=30
)
LINES = (Line(number=0, who=("mes",), push=("counts",)), Line(number=1, who=("erp", "lake"), pull=("counts",)))
A = TypeVar("A")


def make_rows(channels: tuple[Channel, ...] = (COUNTS,), lines: tuple[Line, ...] = LINES) -> RelayRows:
    return RelayRows(channels=channels, lines=lines, schemas={"count.json": SCHEMA})


def make_policy(row: RelayRows, **conduit: Any) -> CompiledPolicy:
    zones = {"enterprise": rows.Zone("enterprise", Side.IT), "control": rows.Zone("control", Side.OT)}
    principals = {name: rows.Principal(name, zone, ()) for name, zone in PRINCIPALS.items()}
    road = rows.Conduit("out", "control", "enterprise", "relay", "tests", "tests", row, **conduit)
    return CompiledPolicy(
        rows.Table(
            format=rows.FORMAT, site="test", zones=zones, assets={}, overlays={}, principals=principals,
            conduits={"out": road}, limits=Limits(), gate=rows.Gate(), audit=rows.Audit(), clocks={},
        )
    )  # fmt: skip


def body(**members: Any) -> bytes:
    return canonical(members)


class Clock:
    """Both clocks. They stand still until moved, together or apart."""

    def __init__(self) -> None:
        self.wall = START
        self.mono = SECOND

    def move(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.mono += int(seconds * SECOND)


class Log:
    """The auditor, with a log on the disk. `held`: it has read what it was sent, and neither records nor answers."""

    def __init__(self, folder: Path, reactor: Reactor, clock: Clock) -> None:
        self.reactor = reactor
        self.held = False
        self.log = open_log(
            folder / "audit", folder / "audit.key", site="test", wall_ns=lambda: clock.wall, mono_ns=lambda: clock.mono,
            background=False,
        )  # fmt: skip
        self.auditor = Auditor(self.log, wall_ns=lambda: clock.wall)
        self.auditor.introduce("keeper", RELAY.crew.parts["keeper"].says)
        self._answers: Sender[FromAuditor] | None = None
        self._waiting: list[Batch] = []

    def join(self) -> AuditClient:
        """A producer begins."""
        to_auditor, _ = memory_channel(self.reactor, RecordCodec[ToAuditor](ToAuditor), self._take)
        client = AuditClient(self.reactor, to_auditor, wait_seconds=1e6)
        self._answers, _ = memory_channel(self.reactor, RecordCodec[FromAuditor](FromAuditor), client.on_record)
        self._waiting = []
        self._answers.send(Hello(True))
        return client

    def say(self, writable: bool, reason: str = "") -> None:
        assert self._answers is not None
        self._answers.send(Writable(writable, reason))

    def _take(self, batch: ToAuditor) -> None:
        assert isinstance(batch, Batch)
        self._waiting.append(batch)
        self.reactor.later(self.record)

    def record(self, *, lost: bool = False) -> None:
        """Records what waits, or loses it."""
        if self.held:
            return
        waiting, self._waiting = self._waiting, []
        if lost:
            return
        for batch in waiting:
            self.auditor.submit("keeper", batch.number, batch.drafts, batch.policy)
        wants = {batch.number for batch in waiting if batch.wants_ack}
        for result in self.auditor.commit():
            if result.batch in wants and self._answers is not None:
                self._answers.send(Ack(result.batch, result.ok, result.reason))

    def lose(self, reason: str) -> None:
        """Answers that nothing of what waits was recorded."""
        waiting, self._waiting = self._waiting, []
        assert self._answers is not None
        for batch in waiting:
            self._answers.send(Ack(batch.number, False, reason))

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What stands in the log."""
        found = [json.loads(data)["event"] for _, data in LogReader(self.log.folder, self.log.key.verifier).entries()]
        return [event for event in found if kind in ("", event["kind"])]


class SideEnd:
    """A side's end of its pipes: what it asks, and what it was answered."""

    def __init__(self, name: str, reactor: Reactor) -> None:
        self.name = name
        self.number = 0
        self.answers: dict[int, FromKeeper] = {}
        self.keeper: Callable[[ToKeeper], None] = lambda _: None
        self.sender, self.receiver = memory_channel(
            reactor, RecordCodec[FromKeeper](FromKeeper, limit=records.RECORD_BYTES), self._answered
        )

    def _answered(self, record: FromKeeper) -> None:
        assert record.request not in self.answers, f"request {record.request} is answered twice"
        self.answers[record.request] = record

    def ask(self, kind: Callable[..., ToKeeper], *values: Any, **named: Any) -> int:
        """Sends a request. Returns its number."""
        self.number += 1
        self.keeper(kind(self.number, *values, **named))
        return self.number


class Bench:
    """A keeper with sides "outer" (enterprise) and "inner" (control)."""

    kind: type[Keeper] = Keeper
    part = "keeper"
    sides: tuple[str, ...] = ("outer", "inner")
    """Those that it serves."""

    def __init__(
        self, folder: Path, row: RelayRows | None = None, store: Path | None = None, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self.row = row or make_rows()
        self.clock = clock or Clock()
        self.reactor = Reactor()
        self.log = Log(folder, self.reactor, self.clock)
        self._lives = itertools.count()
        self.store = store or folder / "store-0"
        self.store.mkdir()
        self.start()

    def start(self, *, works: bool = True) -> None:
        """A keeper is born on the store as it lies."""
        self.outer, self.inner = SideEnd("outer", self.reactor), SideEnd("inner", self.reactor)
        self.policy = make_policy(self.cut(self.row))
        served = [side for side in (self.outer, self.inner) if side.name in self.sides]
        self.keeper = self.kind(
            Setting(
                crew="relay/enterprise-control", part=self.part, broker="relay", boot="b", again=False,
                policy=self.policy, severed=frozenset(), assets=(), zones=(("enterprise",), "control"),
                reactor=self.reactor, audit=self.log.join(),
                senders={side.name: side.sender for side in served} | self.strand(), dial=_no_dial,
                store=self.store, wall=lambda: self.clock.wall, clock=lambda: self.clock.mono,
            )
        )  # fmt: skip
        for side in served:
            sender, _ = memory_channel(
                self.reactor, RecordCodec[ToKeeper](ToKeeper, limit=records.RECORD_BYTES), self.keeper.taker(side.name),
                backlog_limit=1 << 30,
            )  # fmt: skip
            side.keeper = sender.send
            if works:
                side.keeper(Works(self.fingerprint(side.name)))
        self.run(tick=True)

    def cut(self, row: RelayRows) -> RelayRows:
        """What the keeper has of it."""
        return row

    def strand(self) -> dict[str, Sender[Any]]:
        """What it sends to a keeper at another end."""
        return {}

    def fingerprint(self, side: str) -> bytes:
        zone = "control" if side == "inner" else "enterprise"
        names = {name for name, where in PRINCIPALS.items() if where == zone}
        return fingerprint({"out": slice_for(self.row, names)})

    def work_by(self, row: RelayRows, **conduit: Any) -> None:
        """Keeper and sides get another policy."""
        self.row = row
        self.policy = make_policy(self.cut(row), **conduit)
        self.keeper.take_policy(self.policy, ())
        for side in (self.outer, self.inner):
            side.keeper(Works(self.fingerprint(side.name)))
        self.run()

    def run(self, *, tick: bool = False) -> None:
        """Lets everything happen that can."""
        for _ in range(3):
            self.reactor.turn(0)
        if tick:
            self.keeper.tick()
            self.run()

    def move(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.move(seconds)
        self.run(tick=True)

    def crash(self, *, lost: bool = False) -> None:
        """The keeper is killed: what it wrote is there, and it does nothing more. What the auditor has read it records,
        or loses as well."""
        self.crash_in(self.folder / f"store-{next(self._lives) + 1}", lost=lost)

    def crash_in(self, copy: Path, *, lost: bool = False) -> None:
        """The same; the next one begins there."""
        shutil.copytree(self.store, copy)
        self.keeper.halt()
        self.log.held = False
        self.log.record(lost=lost)
        self.store = copy

    def end(self) -> None:
        self.keeper.stop()
        self.run()
        self.keeper.end()
        self.run()

    def close(self) -> None:
        self.keeper.halt()
        self.log.log.close()
        self.reactor.close()

    # --- what sides ask ---------------------------------------------------------------------------------------------

    def push(self, *items: tuple[str, bytes], who: str = "mes", channel: str = "counts", doubtful: bool = False) -> Any:
        side = self.inner if PRINCIPALS[who] == "control" else self.outer
        number = side.ask(records.Push, who, channel, tuple(Item(key, body, doubtful) for key, body in items))
        self.run()
        return side.answers.get(number)

    def stored(self, *counts: int) -> list[int]:
        """Pushes a count each, and gives their numbers."""
        answer = self.push(*[(f"k{count}", body(count=count)) for count in counts])
        assert isinstance(answer, Answered), answer
        assert {result.state for result in answer.results} == {"stored"}, answer
        return [result.number for result in answer.results]

    def pull(
        self, who: str = "erp", most: int = 1, *, seconds: int = 30, wait_ms: int = 0, channel: str = "counts"
    ) -> Any:
        number = self.outer.ask(records.Pull, who, channel, most, seconds, wait_ms)
        self.run()
        return self.outer.answers.get(number)

    def numbers(self, who: str = "erp", most: int = 1, *, channel: str = "counts") -> list[int]:
        """What a pull hands out."""
        answer = self.pull(who, most, channel=channel)
        assert isinstance(answer, Handed), answer
        return [message.number for message in answer.messages]

    def settle(
        self, handed: Handed, says: Any = "done", who: str = "erp", *, channel: str = "counts", **named: Any
    ) -> Any:
        verdicts = tuple(Verdict(message.number, says, **named) for message in handed.messages)
        number = self.outer.ask(records.Settle, who, channel, handed.lease, verdicts)
        self.run()
        return self.outer.answers.get(number)

    def command(self, verb: str, **arguments: Any) -> Any:
        """An operator asks. Raises: GateError for a refusal."""
        said: list[tuple[bytes, str, str]] = []
        asked = Asked(verb, msgspec.json.encode(arguments), lambda *done: said.append(done))
        self.keeper.command(asked)
        self.run()
        assert len(said) == 1, "not answered, or twice"
        if said[0][1]:
            raise GateError(said[0][1], hint=said[0][2])
        return msgspec.json.decode(said[0][0])

    def verified(self) -> list[str]:
        """What the operator's verify finds between store and log."""
        from cofferdam.brokers.relay.ledger import Batch as Told
        from cofferdam.brokers.relay.ledger import booked, compare

        findings: list[str] = []
        batches: list[Told] = []
        gone: dict[str, int] = {}
        store = ""
        for channel in self.keeper._work.machine.channels:
            after = 0
            while True:
                step = self.command("verify", channel=channel, after=after)
                findings += step["findings"]
                batches += msgspec.convert(step["batches"], list[Told])
                store, gone[channel], after = step["store"], step["gone"], step["after"]
                if not after:
                    break
        return findings + compare(store, gone, batches, [one.event for one in booked(logged(self.log.events()))[0]])


def logged(events: Iterable[dict[str, Any]], apart_ns: int = 0) -> list[Logged]:
    """Events as the log's entries, so far apart."""
    return [Logged(index, index * apart_ns, event) for index, event in enumerate(events)]


def refused(answer: Any) -> str:
    """The fault of a request that was refused as a whole."""
    assert isinstance(answer, NotDone), answer
    return answer.problem.fault


def _no_dial(*_: Any) -> Transport:
    raise AssertionError("the keeper has no network")


Said = Mapping[str, Any]
