"""The mirror's collector: reads the plant's sources, and hands what they have to the spooler. It has no store, and
forgets nothing that matters: up to when a source has been read, the spooler says when both are born.

What was read counts as read once the spooler has it on disk; until then no more than WINDOW batches are under way.
A source that answers slowly is asked less often.

Not here: what a source is (postgres, points).
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final

import psycopg

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.http import KeysSet
from cofferdam.audit.events.mirror import SamplesRefused, SourceTold
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Figure, Figures, Reported
from cofferdam.brokers.kit.http.keys import Given, read_secrets
from cofferdam.brokers.kit.postgres import words
from cofferdam.brokers.mirror import nodes, points, postgres, rows, times
from cofferdam.brokers.mirror.blocks import Differs, Reading
from cofferdam.brokers.mirror.columns import HOUR_NS, NO_TIME, Summary
from cofferdam.brokers.mirror.figures import COLLECTOR
from cofferdam.brokers.mirror.postgres import Historian
from cofferdam.brokers.mirror.records import (
    COUNTS_MOST,
    RECORD_BYTES,
    Begin,
    Count,
    Counted,
    Fetch,
    Held,
    Samples,
    Stored,
)
from cofferdam.brokers.mirror.seen import Seen
from cofferdam.brokers.mirror.told import Source as Told
from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.mirror_rows import Copy, Device, Drop, Postgres, Publish
from cofferdam.protocols.opcua.dialect import PKI, PKI_REJECTED, PKI_SECRETS
from cofferdam.protocols.registry import PROTOCOLS

WINDOW: Final = 8
"""Batches that the spooler has not stored yet."""
STEP_LEAST_NS, STEP_MOST_NS = HOUR_NS // 60, 32 * 24 * HOUR_NS
"""The time that is read in one go: longer where there is little in it, shorter where there is much."""
STEP_ROWS, STEP_SECONDS = 100_000, 2
"""So much at most, where that is known before: what is live waits for it."""
FIRST_SECONDS, LAST_SECONDS = 1.0, 60.0
"""Between attempts to reach a source."""
GOING_SECONDS: Final = 10.0
REREAD_SHARE: Final = 10
"""The overlap is read again this often within its own length."""
FETCHES_MOST: Final = 10_000
FETCH_TRIES: Final = 5
"""Sessions that may end over what is to be read again: then it is left, for the next comparison to find."""
ALARMS_MOST: Final = 32
NOT_UNDERSTOOD: Final = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error,
)  # fmt: skip
"""What psycopg, and what is done with its rows, raise over answers of other types than were asked for."""

Source = Postgres | Device | Drop | Copy | Publish


class Collector(Part):
    """The part."""

    kinds: tuple[type, ...] = (Postgres, Device)
    declared: tuple[Figure, ...] = COLLECTOR

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.start is None:
            raise LocalProtocolError("a collector needs a loop with tasks")
        self.setting = setting
        self._start = setting.start
        self._figures = Figures(self.declared)
        self._secrets = read_secrets(setting.secrets, setting.broker)
        self.opcua: Any = PROTOCOLS["opcua"].common(setting.secrets) if Device in self.kinds else None
        """Our key towards servers of OPC UA, and whom we trust."""
        self._work: dict[str, Work] = {}
        self._upto: dict[str, int] | None = None
        self._sent = self._stored = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._flushing: list[asyncio.Future[None]] = []
        self.held: tuple[tuple[int, int], ...] | None = None
        """Hours, from and to, that are kept whatever their age; None: the keeper has not said so yet."""
        self._cut = self._stopping = False
        self._shut = ""
        """Why nothing is read although no side is severed: what the conduit is, if not open."""
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- the gate

    def _work_by(self, policy: CompiledPolicy) -> None:
        self.policy = policy
        self.conduit, self.row = rows.own(policy)
        self._shut = self._look()
        self._settle()

    def _look(self) -> str:
        conduit = self.policy.conduits.get(self.conduit)
        if conduit is None:
            return "gone from the policy"
        found = standing(conduit, self.policy.table.clocks, self.setting.wall())
        return "" if found.open else found.says

    def tick(self) -> None:
        if (shut := self._look()) != self._shut:
            self._shut = shut
            self._settle()

    def _settle(self, renewed: Collection[str] = ()) -> None:
        """Starts what is wanted, and ends the rest."""
        off = self._cut or self._stopping or self._upto is None or self._shut
        wanted: dict[str, Source] = {one.name: one for one in self.sources() if not off}
        for name, work in list(self._work.items()):
            if wanted.get(name) != work.source or name in renewed:
                work.stop()
                del self._work[name]
        for name, source in wanted.items():
            if name not in self._work:
                self._work[name] = work = self.make(source)
                self._start(self._run(work))

    def sources(self) -> Iterable[Source]:
        """What it reads."""
        return [one for one in self.row.sources if isinstance(one, self.kinds)]

    def zone(self) -> str:
        """Whose side it belongs to: cut off with it."""
        return self.row.inner

    def make(self, source: Source) -> Work:
        """What reads a source of these kinds."""
        if isinstance(source, Device):
            return Devices(self, source)
        return Tables(self, source)

    async def _run(self, work: Work) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await work.run()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        before = set(self._work)
        self._work_by(policy)
        return len(before - self._work.keys())

    def set_severed(self, sides: Collection[str]) -> None:
        zone = self.policy.zones.get(self.zone())
        self._cut = zone is not None and zone.side in sides
        self._settle()

    def command(self, asked: Asked) -> None:
        if asked.verb == "secrets":
            given = asked.decode(Given)
            before, now = self._secrets.passwords, given.secrets.passwords
            self._secrets = given.secrets
            renewed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            with_password = [one for one in self.sources() if isinstance(one, (Postgres, Copy, Publish))]
            own = [one.name for one in with_password if one.password in renewed]
            self._settle(own)
            self.setting.audit.note(
                KeysSet(
                    wall_ns=self.setting.wall(), side=clip(f"{self.setting.crew}/{self.setting.part}", 128),
                    by=clip(given.by or "?", 128), keys=0, passwords=tuple(clip(one, 128) for one in sorted(renewed)),
                )
            )  # fmt: skip
            asked.answer({"passwords": len(now)})
        elif self.opcua is not None and asked.verb in (PKI_SECRETS, PKI_REJECTED):
            asked.answer(PROTOCOLS["opcua"].command(self.opcua, asked.verb.removeprefix(PKI), asked.arguments))
        elif asked.verb == "status":
            why = f"the side of {self.zone()} is severed" if self._cut else "it was born a moment ago"
            why = f"the conduit is {self._shut}" if self._shut else why
            answer: list[Told] = [
                self._work[one.name].told()
                if one.name in self._work
                else {
                    "source": one.name, "upto": self.upto(one.name), "trouble": f"not at work: {why}", "idle": True,
                    "newest": 0, "asked": 0,
                }
                for one in self.sources()
            ]  # fmt: skip
            asked.answer(answer)
        else:
            super().command(asked)

    # --- the spooler

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, Begin):
            if self._upto is not None:
                raise CrossingError("the spooler begins twice")
            self._upto = dict(record.upto)
            self._settle()
        elif isinstance(record, Stored):
            if not self._stored <= record.count <= self._sent:
                raise CrossingError(f"the spooler has stored {record.count} of {self._sent} batches")
            self._stored = record.count
            while self._room and self._sent - self._stored < WINDOW:
                room = self._room.popleft()
                if not room.done():
                    room.set_result(None)
            flushing, self._flushing = self._flushing, []
            for one in flushing:
                if not one.done():
                    one.set_result(None)
        elif isinstance(record, Held):
            self.held = record.hours
        elif isinstance(record, (Count, Fetch)):
            work = self._work.get(record.source)
            if work is not None:
                work.asked(record)
            elif isinstance(record, Count) and any(one.name == record.source for one in self.row.sources):
                self.answer(record.not_counted("it cannot be read just now"))

    def upto(self, name: str) -> int | None:
        """Up to when a source has been read."""
        return (self._upto or {}).get(name)

    async def send(self, record: Samples) -> None:
        """Hands a batch over, once there is room."""
        while self._sent - self._stored >= WINDOW:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room
        self._sent += 1
        self.setting.senders["spooler"].send(record)
        self._figures.add("read", record.count, record.source)
        if record.lane == "live" and record.upto >= 0 and self._upto is not None:
            self._upto[record.source] = max(self._upto.get(record.source, record.upto), record.upto)

    async def flushed(self) -> None:
        """Until all that was handed over is on the spooler's disk."""
        wanted = self._sent
        while self._stored < wanted:
            stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flushing.append(stored)
            await stored

    def answer(self, record: Counted) -> None:
        """A count."""
        self.setting.senders["spooler"].send(record)

    # --- what work asks for, and tells

    def password(self, name: str) -> str:
        """ "" if there is none yet."""
        return self._secrets.passwords.get(name, "")

    def told(self, source: str, state: Any, detail: str) -> None:
        """A source is other than it was."""
        self.setting.audit.note(
            SourceTold(
                wall_ns=self.setting.wall(), conduit=self.conduit, source=clip(source, 128), state=state,
                detail=clip(detail),
            )
        )  # fmt: skip

    def refused(self, source: str, fault: str, count: int, tag: str, detail: str) -> None:
        """Samples that were not taken."""
        self.faults[fault] = self.faults.get(fault, 0) + count
        self._figures.add("refused_samples", count, source)
        self.setting.audit.note(
            SamplesRefused(
                wall_ns=self.setting.wall(), conduit=self.conduit, source=clip(source, 128), fault=fault, count=count,
                tag=clip(tag), detail=clip(detail),
            )
        )  # fmt: skip

    def measured(self, source: str, took_ns: int) -> None:
        """A source has answered."""
        self._figures.measure("reading", took_ns, source)

    def stop(self) -> None:
        self._stopping = True
        self._settle()

    def figures(self) -> Reported:
        self._figures.set("sources_away", sum(1 for work in self._work.values() if work.trouble))
        wall = self.setting.wall()
        for name, work in self._work.items():
            if work.newest:
                self._figures.set("behind", max(0, wall - work.newest), name)
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found = {}
        if self.opcua is not None:
            found.update(PROTOCOLS["opcua"].alarms(self.opcua, self.setting.wall()))
        for name, work in list(self._work.items())[:ALARMS_MOST]:
            if work.trouble:
                found[f"mirror-{name}"] = clip(f"{name}: {work.trouble}")
            if work.ahead:
                found[f"mirror-{name}-future"] = clip(work.ahead)
            if work.bad:
                found[f"mirror-{name}-bad"] = clip(work.bad)
        return found


class Work:
    """Reading one source."""

    def __init__(self, owner: Collector, source: Source) -> None:
        self.owner = owner
        self.source: Any = source
        self.trouble = ""
        self.ahead = ""
        self.bad = ""
        self.newest = 0
        self._task: asyncio.Task[Any] | None = None
        self._asked: deque[Count | Fetch] = deque()
        self._wake = asyncio.Event()
        self.step = HOUR_NS

    async def run(self) -> None:
        """Until it is stopped."""
        self._task = asyncio.current_task()
        wait = FIRST_SECONDS
        while True:
            began = time.monotonic()
            try:
                await self.session()
            except Differs as error:
                self._troubled("differs", str(error))
            except (psycopg.Error, OSError) as error:
                self._troubled("away", words(error))
            except MemoryError:  # one value of a hostile source: what it had was given back with its connection
                self._troubled("differs", "it sends more at once than there is memory for")
            if time.monotonic() - began > LAST_SECONDS:
                wait = FIRST_SECONDS
            for one in list(self._asked):
                if isinstance(one, Count):
                    self._asked.remove(one)
                    self.owner.answer(one.not_counted(clip(self.trouble, 500)))
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_SECONDS)

    def _troubled(self, state: str, words: str) -> None:
        if words != self.trouble:
            self.owner.told(self.source.name, state, words)
        self.trouble = words

    def well(self) -> None:
        """It can be read."""
        if self.trouble:
            self.owner.told(self.source.name, "back", "")
            self.trouble = ""

    async def session(self) -> None:
        """Reads until something is wrong. Raises: OSError, psycopg.Error, Differs."""

    def asked(self, record: Count | Fetch) -> None:
        """Something is to be counted or read again."""
        if record not in self._asked and len(self._asked) < FETCHES_MOST:
            self._asked.append(record)
        self._wake.set()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def pause(self, seconds: float) -> None:
        """Waits, or until something is asked."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def told(self) -> Told:
        """For an operator."""
        return {
            "source": self.source.name, "trouble": self.trouble, "upto": self.owner.upto(self.source.name),
            "newest": self.newest, "asked": len(self._asked),
        }  # fmt: skip


class Tables(Work):
    """A historian in PostgreSQL."""

    source: Postgres
    _tries = 0
    """How often it was begun to read again what is first of what is asked."""
    _said = _own = 0.0  # _own: seconds of the last reading in which nothing of the historian was waited for
    _compared: tuple[Count | None, int, dict[str, Summary]] = (None, 0, {})
    """Of the values that are asked for: by which question, up to when they have been read, and what they are."""

    async def session(self) -> None:
        password = self.owner.password(self.source.password)
        if not password:
            raise Differs(f"there is no password: `cofferdam mirror password {self.source.password}` brings it in")
        try:
            historian = await postgres.connect(self.source, password)
            try:
                await self._follow(historian)
            finally:
                await historian.close()
        except NOT_UNDERSTOOD as error:
            # What a hostile historian answers ends the reading of it, and of nothing else.
            raise Differs(f"what it says is not understood ({type(error).__name__}: {error})") from None

    async def _follow(self, historian: Historian) -> None:
        one, wall = self.source, self.owner.setting.wall
        seen = Seen(one.overlap)
        overlap = one.overlap * 10**9
        reread = 0.0
        while True:
            began = time.monotonic()
            self._going()
            now = wall()
            known = self.owner.upto(one.name)
            upto = known if known is not None else max(now - one.since * 10**9, times.oldest(self.owner.row, now))
            again = began >= reread
            since = upto - overlap if again and known is not None else upto
            limit = now + self.owner.row.future * 10**9
            until = min(since + self.step + (overlap if again else 0), limit)
            seen.past_ns = now - overlap if not again else NO_TIME
            latest = await self._read(historian, since, until, "live", seen)
            self.newest = max(self.newest, latest)
            self.well()  # now, and not as soon as it lets anybody in
            waits = until >= limit
            if not waits and latest <= upto:
                # A time in which there is nothing is over once something newer is there: a historian that is itself
                # filled late, after an outage of its own, would otherwise be read past what is still to come.
                following = await historian.following(until, limit)
                if following is None:
                    waits = True
                else:
                    await self._mark(one.name, following - 1000)
            if again:
                reread = began + max(one.every / 1000, one.overlap / REREAD_SHARE)
                seen.forget(upto - overlap)
                await self._look_ahead(historian, limit)
            due, took = began + one.every / 1000, time.monotonic() - began - self._own
            while self._asked:  # at least a step of it, and no more than that beyond the time of the next reading
                await self._answer(historian)
                if time.monotonic() >= due:
                    break
            if waits and not self._asked:
                await self.pause(max(due - time.monotonic(), took, 0.01))

    async def _mark(self, name: str, upto: int) -> None:
        empty = Samples("live", 0, name, upto, (), b"", b"", b"", b"", b"")
        await self.owner.send(empty)

    async def _read(self, historian: Historian, since: int, until: int, lane: Any, seen: Seen | None) -> int:
        began, reading = time.monotonic_ns(), Reading()
        limit = self.source.points_per_second
        async for record in historian.read(since, until, lane, reading, seen, self.owner.setting.wall()):
            if record.count or (lane == "live" and record.upto > (self.owner.upto(self.source.name) or -1)):
                await self.owner.send(record)
            if limit:
                ahead = reading.rows / limit - (time.monotonic_ns() - began) / 1e9
                if ahead > 0:
                    await asyncio.sleep(ahead)
        self.owner.measured(self.source.name, took := time.monotonic_ns() - began)
        self._own = took / 1e9 - reading.waited
        self._paced(reading.rows, until - since)
        for fault, (count, first) in reading.faults.items():
            self.owner.refused(self.source.name, fault, count, first.tag, first.detail)
        return reading.latest_ns

    def _paced(self, rows: int, span: int) -> None:
        """The next step is longer where there was little in this one, and shorter where there was much."""
        limit = self.source.points_per_second
        most = min(STEP_ROWS, limit * STEP_SECONDS) if limit else STEP_ROWS
        if span >= self.step:
            if rows < most // 4:
                self.step = min(STEP_MOST_NS, self.step * 2)
            while rows > most and self.step > STEP_LEAST_NS:
                self.step, rows = max(STEP_LEAST_NS, self.step // 2), rows // 2

    async def _look_ahead(self, historian: Historian, limit: int) -> None:
        count, tag = await historian.ahead(limit)
        words = f"{self.source.name} has {count} samples from the future, such as of {tag}" if count else ""
        if words and words != self.ahead:
            self.owner.refused(
                self.source.name, "future", count, tag, "further ahead of the clock than the policy lets"
            )
        self.ahead = words

    def _going(self) -> None:
        """Who waits for an answer hears, now and then, that the source is read."""
        if time.monotonic() - self._said >= GOING_SECONDS:
            self._said = time.monotonic()
            for one in self._asked:
                if isinstance(one, Count):
                    self.owner.answer(one.not_counted("", "going"))

    async def _answer(self, historian: Historian) -> None:
        """Does a step of the first of what is asked. What is to be read again is asked until all of it has been."""
        self._going()
        asked = self._asked[0]
        if isinstance(asked, Fetch):
            until = min(asked.until - 1000, self.owner.setting.wall() + self.owner.row.future * 10**9)
            at = asked.since - 1000
            self._tries += 1
            if at < until and self._tries <= FETCH_TRIES:
                step = min(at + self.step, until)
                await self._read(historian, at, step, "backfill", None)
                # Up to where it was to be read when it began: what is now moves on.
                self._asked[0] = Fetch(asked.source, step + 1000, until + 1000)
            else:
                self._asked.popleft()
            self._tries = 0
            return
        try:
            counts: dict[str, int] | None
            digests: tuple[int | None, ...] = ()
            if asked.values:
                counts, digests = await self._compare(historian, asked)
            else:
                counts = await historian.count(asked.hour, asked.hours)
            if counts is None:
                return
            if len(counts) > COUNTS_MOST or sum(map(len, counts)) > RECORD_BYTES // 8:
                raise Differs(f"{len(counts)} tags in {asked.hours} h; as many are not compared")
        except (psycopg.Error, OSError, Differs, *NOT_UNDERSTOOD) as error:
            self._asked.popleft()
            answered = isinstance(error, Differs) or (isinstance(error, psycopg.Error) and error.sqlstate)
            self.owner.answer(asked.not_counted(clip(words(error), 500), "" if answered else "away"))
            raise
        self._asked.popleft()
        self.owner.answer(
            Counted(asked.request, asked.source, asked.hour, tuple(counts), tuple(counts.values()), digests=digests)
        )

    async def _compare(
        self, historian: Historian, asked: Count
    ) -> tuple[dict[str, int] | None, tuple[int | None, ...]]:
        """Reads a step of the values that are asked for. Once all are read: how many there are, and their digests."""
        first = asked.hour * HOUR_NS - 1000
        until = first + asked.hours * HOUR_NS
        question, at, found = self._compared
        if question is not asked:  # a keeper that is born anew counts its requests anew
            at, found = first, {}
        step = min(at + self.step, until)
        rows = await historian.values(at, step, found, self.source.points_per_second)
        self._paced(rows, step - at)
        self._compared = (asked, step, found)
        if step < until and len(found) <= COUNTS_MOST:
            return None, ()
        self._compared = (None, 0, {})
        digests = tuple(one.digest if one.rows == one.times else None for one in found.values())
        return {tag: one.times for tag, one in found.items()}, digests


class Devices(Work):
    """Points of an asset."""

    source: Device

    async def session(self) -> None:
        one, owner = self.source, self.owner
        asset = owner.policy.assets.get(one.asset)
        if asset is None:
            raise Differs(f"the policy has no asset {one.asset}")
        reader: points.Reader | nodes.Watcher
        if asset.protocol == "opcua":
            future = owner.row.future * 10**9
            upto = owner.upto(one.name)
            reader = nodes.Watcher(one, asset, owner.send, owner.setting.wall, upto, future, owner.opcua)
        else:
            reader = points.Reader(one, asset, owner.send, owner.setting.wall)
        due = time.monotonic()
        try:
            while True:
                began = time.monotonic_ns()
                trouble = await reader.once()
                owner.measured(one.name, time.monotonic_ns() - began)
                (count, tag), reader.ahead = reader.ahead, (0, "")
                self.ahead = f"{one.name} has {count} samples from the future, such as of {tag}" if count else ""
                if count:
                    owner.refused(one.name, "future", count, tag, "further ahead of the clock than the policy lets")
                if trouble:
                    self._troubled("away", trouble)
                else:
                    self.well()
                    self.newest = owner.setting.wall()
                fetches = [each for each in self._asked if isinstance(each, Fetch)]
                for answer in points.refused(self._asked):
                    owner.answer(answer)
                for each in fetches:
                    await reader.fetch(each)
                due = max(due + one.every / 1000, time.monotonic())
                await self.pause(due - time.monotonic())
        finally:
            reader.close()
