"""The spool: takes what is to leave, numbers and keeps it, and hands it to the sender. It has no network.

Nobody says that anything has come. So what was sent is kept by age, a heartbeat says each second what was given and
what is still kept, and a ticket that a person carries, or the hour of blind backfill, has it sent again.

A file is taken from its channel's folder when it has stood still; its hash is worked out; it gets numbers; its entry is
in the audit log; then it is sent. What was on its way when a process died is sent again with the numbers that it had.

Not here: the disk (spool_store), blocks and pace (sender).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets as random_numbers
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

from cofferdam.audit.events import diode as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.diode import records, tickets, told
from cofferdam.brokers.diode.figures import SPOOL
from cofferdam.brokers.diode.pairing import SpoolKeys, load
from cofferdam.brokers.diode.records import CHUNK_BYTES, Known, Piece
from cofferdam.brokers.diode.sender import row_of
from cofferdam.brokers.diode.spool_files import DAY, SECOND, Taking
from cofferdam.brokers.diode.spool_lanes import Job, Lanes
from cofferdam.brokers.diode.spool_riding import Riding
from cofferdam.brokers.diode.spool_store import FileRow, SpoolStore, piece_of
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.crossing.strand import PAUSE_SECONDS, Look
from cofferdam.errors import GateError, StoreError, StoreFull
from cofferdam.limits import strand_end
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.diode_rows import show_rate

WAITS_NS: Final = 5_000_000_000
"""What was given so long ago and has not left waits for its turn: all else is on its way."""
BEHIND_SECONDS: Final = 60
"""With more than so much of records to send the strand is behind."""
TOLD_MOST: Final = 10
"""Files that are being sent and named in the status."""
OLDER_LEAST, OLDER_MOST = 4, 400
"""Of older epochs so many spans are told in a heartbeat, by turns, and no more than a twentieth of the rate has room
for: each start of the gate adds one of each channel, and all of them would fill a slow strand."""
SPAN_BYTES: Final = 40
"""On the wire, with parity."""
FORECAST_SECONDS: Final = 600
"""So long it takes to foresee anything."""


class Resend(Struct, forbid_unknown_fields=True):
    """`go`: do it; without, say what it would be."""

    ticket: str
    go: bool = False
    by: str = ""


class Test(Struct, forbid_unknown_fields=True):
    """Rates in bits a second, and for how long each."""

    rates: list[int]
    seconds: float = 1.0
    by: str = ""


class _Plan(NamedTuple):
    """What is to be sent again: how many records and bytes, and how many records are not kept any more."""

    records: int
    size: int
    lost: int


class Spool(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the spool was given no folder for its store")
        self._setting = setting
        self._reactor = setting.reactor
        self._audit = setting.audit
        self._strand, self._row = row_of(setting.policy)
        self._site = setting.policy.site
        self._keys = load(SpoolKeys, setting.secrets)
        self._store = SpoolStore(setting.store)
        self._sender = setting.senders["sender"]
        self._figures = Figures(SPOOL)
        self._lanes = Lanes(self._store, self._sender.send, self._handed, self._ended, self._row.rate)
        self._files = Taking(setting, self._strand, self._row, self._store, self._record, self._make_room)
        self._riding = Riding(setting, self._row, self._store, prompt=self._prompt, bulk=self._bulk, waits=self._waits)
        self.epoch = 0
        self._waiting_for_log: list[FileRow] = []
        self._ticks = 0
        self._backfilled = ""
        self._full = ""
        self._halted = False
        self._dropped_count = 0
        self._older = 0
        self._aged: tuple[int, int] | None = None
        """When it was looked last (clock) for what is too old, and what was (wall)."""
        self._trimming = False
        """Something of it is to go still."""
        self._room = sys.maxsize
        """For a file that waits: so many bytes of what has not gone may be kept."""
        self._untold = 0
        """Records that went for room, of which no entry says so yet."""
        self._given: deque[tuple[int, dict[str, int]]] = deque()
        """At each heartbeat of the last while: when (clock), and the highest number given of each channel."""
        riding = [setting.folders[strand_end(name, "out")] for name in self._row.records]
        self._looks = Look(self._reactor, riding, self._look) if riding else None
        if self._keys is not None:
            self._begin()

    def _begin(self) -> None:
        self.epoch = self._files.epoch = self._store.begin(self._setting.wall())
        self._sender.send(records.Begin(self.epoch))
        self._audit.note(
            events.DiodeEpoch(wall_ns=self._setting.wall(), strand=self._strand, epoch=self.epoch), always=True
        )
        for row in self._store.files("taken"):  # the process ended while it was copied; it lies in its folder still
            self._store.forget_file(row)
        for row in self._store.remains():
            self._files.remove_source(row)
        for row in self._store.files("ready"):
            self._send_file(row, again=True)
        for channel, epoch, first, last in self._store.unsent():
            size = self._store.waiting(channel, epoch, first, last)
            self._lanes.put(channel, epoch, first, last, size, again=True)
        self._beat()
        self._riding.begin()

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        self._keys = load(SpoolKeys, secrets) or self._keys
        if self._keys is not None and not self.epoch:
            self._begin()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        self._files.row = self._riding.row = self._row
        self._lanes.rate = self._row.rate
        self._files.refused.clear()
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """The sender holds what is sent; the spool goes on taking and keeping."""

    def on_record(self, source: str, record: Any) -> None:
        if self._halted:
            return
        if isinstance(record, records.Bit):
            self._riding.bit(record, self.epoch)
            return
        self._lanes.left(record)

    # --- files ------------------------------------------------------------------------------------------------------

    def _record(self, row: FileRow) -> None:
        """Recorded, then sent."""

        def done(ok: bool, reason: str) -> None:
            if self._halted:
                return
            if ok:
                self._figures.add("files_sent", 1, row.channel)
                self._send_file(row)
            else:
                self._waiting_for_log.append(row)

        self._audit.record(events.DiodeFileSent(
            wall_ns=self._setting.wall(), strand=self._strand, channel=row.channel, name=clip(row.name), size=row.size,
            sha256=row.sha256, epoch=row.epoch, first=row.first, last=row.last,
        ), done)  # fmt: skip

    def _send_file(self, row: FileRow, *, again: bool = False) -> None:
        prompt = not again and self._row.is_prompt(row.channel, row.size)
        job = Job(self._pieces(row, row.first, row.last, again=again, prompt=prompt), file=row)
        self._lanes.file(job, row.channel, prompt=prompt)

    def _pieces(self, row: FileRow, first: int, last: int, *, again: bool, prompt: bool = False) -> Iterator[Piece]:
        """The records of a file from one number to another."""
        try:
            fd = os.open(self._store.path(row), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # its time was up
        try:
            for number in range(first, last + 1):
                at = (number - row.first - 1) * CHUNK_BYTES
                data = os.pread(fd, CHUNK_BYTES, at) if number > row.first else b""
                if number > row.first and not data:
                    return
                yield piece_of(row, number, data, again=again, prompt=prompt)
        finally:
            os.close(fd)

    # --- to the sender ----------------------------------------------------------------------------------------------

    def _handed(self, piece: Piece, job: Job | None) -> None:
        self._figures.add("records_sent", 1, piece.channel)
        if job is not None and job.serial >= 0:
            self._figures.add("resent", 1, piece.channel)

    def _ended(self, job: Job) -> None:
        if job.serial >= 0:
            self._audit.note(events.DiodeResent(
                wall_ns=self._setting.wall(), strand=self._strand, serial=job.serial, count=job.count, size=job.size
            ), always=True)  # fmt: skip

    # --- records of conduits that ride

    def _look(self) -> float:
        """What they have handed over."""
        if self._halted or not self.epoch:
            return 0.0
        more = self._store.size > self._row.room  # what is new waits until there is room for it
        try:
            if not more and (not self._full or self._ticks % 10 == 0):
                more = self._riding.look(self.epoch)
        except StoreFull as error:
            self._full = str(error)
        if self._store.size > self._row.room:
            self._trim()
        return PAUSE_SECONDS if more else 0.0

    def _prompt(self, piece: Piece) -> None:
        self._figures.add("records_sent", 1, piece.channel)
        self._lanes.prompt(piece)

    def _bulk(self, channel: str, first: int, last: int, size: int) -> None:
        self._lanes.put(channel, self.epoch, first, last, size)

    def _waits(self, channel: str) -> bool:
        return not self._lanes.room or self._lanes.waits(channel)

    def _beat(self) -> None:
        now = self._setting.clock()
        while len(self._given) > 1 and now - self._given[1][0] >= WAITS_NS:
            self._given.popleft()
        before = self._given[0][1] if self._given and now - self._given[0][0] >= WAITS_NS else {}
        told = self._older_by_turns(self._store.told(self._lanes.gone, self.epoch, before))
        self._given.append((now, {one.channel: self._store.highest(one.channel, self.epoch) or 0 for one in told}))
        queue = self._lanes.queue + self._lanes.waiting + sum(row.size for row in self._store.files("ready"))
        self._lanes.beat(records.Beat(self.epoch, self._setting.wall(), queue, told, self._dropped()))

    def _older_by_turns(self, every: tuple[records.Told, ...]) -> tuple[records.Told, ...]:
        """The newest epoch of each channel, and of the others as many as a heartbeat has room for."""
        ranks = itertools.zip_longest(*([(one.channel, span) for span in one.spans[1:]] for one in every))
        older = [one for rank in ranks for one in rank if one is not None]  # the last epoch first: it has just ended
        most = max(OLDER_LEAST, min(OLDER_MOST, self._row.rate // 8 // 20 // SPAN_BYTES))
        if len(older) <= most:
            return every
        older = older[self._older % len(older) :] + older[: self._older % len(older)]
        self._older = (self._older + most) % len(older)
        some = set(older[:most])
        return tuple(
            records.Told(
                one.channel,
                (one.spans[0], *(span for span in one.spans[1:] if (one.channel, span) in some)),
                one.waits,
            )
            for one in every
        )

    def _dropped(self) -> int:
        return self._dropped_count

    # --- again ------------------------------------------------------------------------------------------------------

    def _kept(self, ranges: list[tuple[str, int, int, int]]) -> Iterator[tuple[str, int, int, int]]:
        """These (channel, epoch, first, last) as far as they were given."""
        for channel, epoch, first, last in ranges:
            yield channel, epoch, first, min(last, self._store.highest(channel, epoch) or last)

    def _parts(self, channel: str, epoch: int, first: int, last: int) -> Iterator[tuple[FileRow, int, int]]:
        for row in self._store.overlapping(channel, epoch, first, last):
            yield row, max(first, row.first), min(last, row.last)

    def _plan(self, ranges: list[tuple[str, int, int, int]]) -> _Plan:
        """What of these can be sent again."""
        count = size = asked = 0
        for channel, epoch, first, last in self._kept(ranges):  # of an epoch of another's all is lost
            asked += max(0, last - first + 1)
            for row, low, high in self._parts(channel, epoch, first, last):
                count += high - low + 1
                size += min(row.size, (high - low + 1) * CHUNK_BYTES)
            number, length = self._store.messages(channel, epoch, first, last)
            count, size = count + number, size + length
        return _Plan(count, size, max(0, asked - count))

    def _resend(self, ranges: list[tuple[str, int, int, int]], serial: int) -> None:
        kept = list(self._kept(ranges))

        def pieces() -> Iterator[Piece]:
            """Messages one by one, as there is room: a day's may be a hundred million."""
            for channel, epoch, first, last in kept:
                while (found := self._store.next_message(channel, epoch, first, last)) is not None:
                    number, body = found
                    first = number + 1
                    yield Piece(channel, epoch, number, body, again=True)
            for channel, epoch, first, last in kept:
                for row, low, high in self._parts(channel, epoch, first, last):
                    if low > row.first:  # without its manifest a chunk has no place
                        yield from self._pieces(row, row.first, row.first, again=True)
                    yield from self._pieces(row, low, high, again=True)

        self._lanes.again.append(Job(pieces(), serial=serial))
        self._lanes.fill()

    def command(self, asked: Asked) -> None:
        if asked.verb == "status":
            asked.answer(self._status())
        elif asked.verb == "resend":
            self._ticket(asked, asked.decode(Resend))
        elif asked.verb == "test":
            self._test(asked, asked.decode(Test))
        else:
            super().command(asked)

    def _ticket(self, asked: Asked, said: Resend) -> None:
        self._need_pair()
        wall = self._setting.wall()
        signers = {bytes.fromhex(one.key): one.until // SECOND for one in (self._keys.tickets if self._keys else ())}
        ticket = tickets.read(said.ticket, tickets.site_tag(self._site, self._strand), signers, wall // SECOND)
        if self._store.is_used(ticket.serial, ticket.until):
            raise GateError(
                f"ticket {ticket.serial} was used before", hint="have a new one made: cofferdam diode ticket"
            )
        channels = sorted(self._row.channels)
        if ticket.channel >= len(channels):
            raise GateError("the ticket asks for a channel that does not ride", hint="do both ends have one policy?")
        channel = channels[ticket.channel]
        ranges = [(channel, one.epoch, one.first, one.last) for one in ticket.ranges]
        plan = self._plan(ranges)
        count, size, lost = plan.records, plan.size, plan.lost
        seconds = size * 8 / max(1, self._row.rate) * (self._row.k + self._row.m) / self._row.k
        answer: told.Resent = {
            "serial": ticket.serial, "channel": channel, "until": ticket.until, "go": said.go,
            "ranges": [(one.epoch, one.first, one.last) for one in ticket.ranges],
            "records": count, "bytes": size, "seconds": round(seconds, 3), "lost": lost,
        }  # fmt: skip
        if not said.go:
            asked.answer(answer)
            return
        entry = events.DiodeTicketUsed(
            wall_ns=wall, strand=self._strand, serial=ticket.serial, count=count, size=size, lost=lost,
            by=clip(said.by, 128),
        )  # fmt: skip

        def done(ok: bool, reason: str) -> None:
            if not ok or self._halted:
                asked.refuse(f"it cannot be recorded: {reason}", "nothing was sent, and the ticket is good")
            elif not self._store.use(ticket.serial, ticket.until, wall // SECOND):
                asked.refuse(f"ticket {ticket.serial} was used before")
            else:
                self._resend(ranges, ticket.serial)
                asked.answer(answer)

        self._audit.record(entry, done)

    def _need_pair(self) -> None:
        if self._keys is None:
            raise GateError(f"the strand {self._strand} has no other end", hint="cofferdam diode pair inside")

    def _test(self, asked: Asked, said: Test) -> None:
        self._need_pair()
        if not said.rates or len(said.rates) > 32 or not all(10_000 <= rate <= 10**11 for rate in said.rates):
            raise GateError("a test has 1 to 32 rates, from 10 kbit/s to 100 Gbit/s")
        if not 0.1 <= said.seconds <= 30:
            raise GateError("a step of a test takes 0.1 to 30 s")
        run = random_numbers.randbelow(1 << 48)
        fill = random_numbers.token_bytes(CHUNK_BYTES)
        share = said.seconds / 8 * self._row.k / (self._row.k + self._row.m) / CHUNK_BYTES
        steps = [(rate, max(1, int(rate * share))) for rate in said.rates]

        def pieces() -> Iterator[Known | records.Pace]:
            yield records.Pace(min(said.rates))
            for rate, of in steps:  # so that a rate of which nothing comes is known as well
                yield Known(run, rate, of, of, b"0")
            for rate, of in steps:
                yield records.Pace(rate)
                for at in range(of):
                    yield Known(run, rate, at, of, fill)
            yield records.Pace(0)

        self._lanes.again.append(Job(pieces()))
        self._lanes.fill()
        answer: told.Run = {"run": run, "rates": said.rates, "seconds": said.seconds}
        asked.answer(answer)

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self._keys is None or self._halted:
            return
        try:
            self._tick()
            self._full = self._files.full
        except StoreFull as error:
            self._full = str(error)

    def _tick(self) -> None:
        self._ticks += 1
        if not self._full or self._ticks % 10 == 0:
            self._files.full = ""
            self._files.scan()
        self._riding.take_told(self.epoch)
        if self._audit.writable and self._waiting_for_log:
            waiting, self._waiting_for_log = self._waiting_for_log, []
            for one in waiting:
                self._record(one)
        if self._ticks % 2 == 0:
            self._beat()
        if self._ticks % 20 == 1:
            self._age()
        self._backfill()
        self._lanes.fill()

    def _age(self) -> None:
        """A clock that is set forward by a year makes nothing a year older: what this run has not seen the time of is
        kept."""
        now, before = self._setting.clock(), self._setting.wall() - self._row.keep * SECOND
        if self._aged is not None:
            before = min(before, self._aged[1] + 2 * (now - self._aged[0]))
        self._aged = (now, before)
        self._trim()

    def _make_room(self, most: int) -> bool:
        """For a file, no more than so many bytes are to be kept: of what has left the oldest goes, and nothing that has
        not, since the file may wait in its folder. Whether it is being worked at."""
        if self._room == sys.maxsize:
            self._room = most
            self._trim()
        return self._room != sys.maxsize

    def _trim(self) -> None:
        """A turn of what goes for its age or for room, and the next one while there is more: of a gigabyte of small
        records all of it would take minutes, and the part would be ended for its silence."""
        if not self._trimming:
            self._trimming = True
            self._trim_on()

    def _trim_on(self) -> None:
        if self._halted:
            return
        try:
            more = self._trim_step()
        except StoreFull as error:
            self._full, more = str(error), False
        if more:
            self._reactor.call_in(0, self._trim_on)
            return
        self._trimming, self._room = False, sys.maxsize
        if self._untold:
            count, self._untold = self._untold, 0
            self._audit.note(
                events.DiodeLoss(wall_ns=self._setting.wall(), strand=self._strand, what="spool", count=count)
            )

    def _trim_step(self) -> bool:
        """Whether there may be more of it."""
        self._lanes.settle()
        if self._aged is not None and self._store.expire(self._aged[1]):
            return True
        gone = self._store.shrink(self._row.room, unsent=True)
        if not gone.total:
            gone = self._store.shrink(self._room, unsent=False)
        self._lanes.dropped(gone.messages)
        if gone.total:
            self._figures.add("spool_dropped", gone.total, gone.channel)
            self._dropped_count += gone.total
            self._untold += gone.total
        return gone.total > 0

    def _backfill(self) -> None:
        if self._row.at < 0:
            return
        wall = self._setting.wall()
        day, second = divmod(wall // SECOND, DAY)
        if str(day) == self._backfilled or not self._row.at <= second < self._row.at + 3600:
            return
        self._backfilled = str(day)
        ranges = [one for one in self._store.younger(wall - self._row.younger * SECOND) if one[0] in self._row.channels]
        if ranges:
            self._resend(ranges, 0)

    def _keeps(self, wall: int) -> int:
        """For how many seconds there is room at the pace since the oldest was sent; -1 while that is not known."""
        oldest, size = self._store.oldest_at, self._store.size
        age = (wall - oldest) // SECOND if oldest else 0
        return int(self._row.room * age / size) if size and age >= FORECAST_SECONDS else -1

    # --- what is told -----------------------------------------------------------------------------------------------

    def _status(self) -> told.Within:
        wall, oldest = self._setting.wall(), self._store.oldest_at
        return {
            "strand": self._strand, "end": "inside", "paired": self._keys is not None, "epoch": self.epoch,
            "rate": self._row.rate, "queue": self._lanes.queue + self._lanes.waiting, "hardware": self._row.hardware,
            "spool": {
                "bytes": self._store.size, "room": self._row.room, "keep": self._row.keep,
                "oldest_seconds": (wall - oldest) // SECOND if oldest else 0, "dropped": self._dropped(),
                "room_seconds": self._keeps(wall),
            },
            "full": self._full,
            "folders": {row.channel: str(self._files.folder(row.channel)) for row in self._row.files},
            "not_sent": [
                {"channel": f"files:{channel}", "name": name, "why": why}
                for (channel, name), why in list(self._files.refused.items())[:50]
            ],
            "channels": [
                {"channel": told.channel, "epoch": span.epoch, "oldest": span.oldest, "highest": span.highest}
                for told in self._store.told(self._lanes.gone) for span in told.spans[:4]
            ],
            "under_way": [
                {"name": job.file.name, "size": job.file.size, "done": job.count, "of": job.file.chunks + 1}
                for job in list(self._lanes.first)[:TOLD_MOST] if job.file is not None
            ],
            "resending": len(self._lanes.again),
        }  # fmt: skip

    def figures(self) -> Reported:
        if self._halted:
            return self._figures.report()  # as they were: the store is closed
        self._figures.set("spool_size", self._store.size)
        self._figures.set("spool_oldest", self._store.oldest_at)
        self._figures.set("behind", self._lanes.waiting)
        self._figures.set("waiting", sum(row.size for state in ("taken", "ready") for row in self._store.files(state)))
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._halted:
            return found
        if self._keys is None:
            found["no-pair"] = f"the strand {self._strand} has no other end: cofferdam diode pair inside"
        if self._full:
            found["spool"] = f"the spool of {self._strand} takes nothing more: {self._full}"
        elif self._keys is not None:
            size, oldest, wall = self._store.size, self._store.oldest_at, self._setting.wall()
            age = (wall - oldest) // SECOND if oldest else 0
            if size > 0.8 * self._row.room or 0 <= self._keeps(wall) < self._row.keep:
                hours = age / 3600 if age else 0
                found["spool"] = (
                    f"the spool of {self._strand} has {size} of {self._row.room} bytes after {hours:.1f} h; at this "
                    f"pace the oldest goes after {self._keeps(wall) / 3600:.1f} h, before its "
                    f"{self._row.keep // 3600} h"
                )
        if (behind := self._lanes.waiting * 8 / self._row.rate) > BEHIND_SECONDS:
            found["behind"] = (
                f"more is offered to the strand {self._strand} than its rate of {show_rate(self._row.rate)}: "
                f"{self._lanes.waiting} bytes of records wait, for {behind:.0f} s at least"
            )
        for channel, why in self._riding.stopped.items():
            found[f"stopped-{channel.partition(':')[2]}"] = clip(f"nothing of {channel} is taken any more: {why}")
        for channel, why in self._files.away.items():
            found[f"folder-{channel.partition(':')[2]}"] = clip(
                f"nothing of {channel} of {self._strand} is taken: {why}"
            )
        for (channel, name), why in list(self._files.refused.items())[:5]:
            label = hashlib.sha256(f"{channel}/{name}".encode()).hexdigest()[:8]
            found[f"not-sent-{label}"] = clip(f"{name!r} in the folder of files:{channel} is not sent: {why}")
        return found

    @property
    def busy(self) -> int:
        return 1 if self._files.busy else 0

    def end(self) -> None:
        self.halt()

    def halt(self) -> None:
        if not self._halted:
            self._halted = self._files.halted = True
            self._store.db.close()
