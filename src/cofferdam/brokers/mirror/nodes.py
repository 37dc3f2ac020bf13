"""Points of an OPC UA asset as a source: watched by a subscription, on one connection, by the client machine.

Each change comes with the source's time, the server's, and its status, whole. What the server has recorded while there
was no connection is read afterwards (HistoryRead), where it has a history; so is what a keeper asks for again. A server
that is away gives samples of bad quality for each of its points: never silence. Nothing here ever writes.

Not here: keys and whom to trust (protocols.opcua.trust, which the collector has), when it is stopped (collector).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from cofferdam.brokers.kit import aio
from cofferdam.brokers.mirror.columns import HOUR_NS, Sample, pack
from cofferdam.brokers.mirror.points import AGAIN_SECONDS, SILENCE
from cofferdam.brokers.mirror.records import POINTS_MOST, TEXT_BYTES, Fetch, Samples
from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Asset, Item, Point
from cofferdam.policy.terms.mirror_rows import Device
from cofferdam.protocols.base import NEED_DATA, BadResponse, Established, Facing, NoticeReceived, Over, ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Bool, Float32, Float64, Text

EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970 in 100 ns since 1601 (OPC 10000-6, 5.2.2.5)."""
NO_PLACE: Final = 0x80740000
"""BadTypeMismatch: a value that a sample has no place for, such as an array."""
TICK_SECONDS: Final = 0.05
QUEUE: Final = 100
"""Changes of one item that the server keeps between two publishings."""
CAME_MOST: Final = 100_000
"""Changes that were not handed on yet: more end the connection, and history has them."""
HISTORY_PIECE: Final = 1_000
HISTORY_PIECES_MOST: Final = 10_000
"""Of one point at a time: however slowly a server goes on, it comes to an end."""
LATE_NS: Final = 60 * 10**9
"""How much of what was handed on is asked for again after a restart: what comes twice vanishes."""


class _Session(asyncio.Protocol):
    """One connection. `came`: what changed, as (number of the watch, sample)."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.came: list[tuple[int, m.Sample]] = []
        self.why = ""
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        self._turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("the server has closed the connection")

    def data_received(self, data: bytes) -> None:
        if not self.why:
            try:
                self.machine.receive_data(data)
            except RemoteProtocolError as error:
                self.end(str(error))
            self._look()

    def _turn(self) -> None:
        """Every so often: the machine knows no clock."""
        if not self.why:
            self.machine.on_time(time.monotonic_ns())
            self._look()
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._turn)

    def _look(self) -> None:
        try:
            while not self.why and (event := self.machine.next_event()) is not NEED_DATA:
                self._event(event)
        except RemoteProtocolError as error:
            self.end(str(error))
        if self._transport is not None and not self.why and (data := self.machine.take_output()):
            self._transport.write(data)

    def _event(self, event: Any) -> None:
        if isinstance(event, Established):
            if not self.established.done():
                self.established.set_result(None)
        elif isinstance(event, ResponseReceived):
            self._settle(event.token, event.response)
        elif isinstance(event, BadResponse):
            self._settle(event.token, ConnectionError("an answer that is none"))
        elif isinstance(event, NoticeReceived):
            if isinstance(event.message, m.Changed):
                tokens = (event.standing, *event.also)
                self.came += [(token, one) for token in tokens for one in event.message.samples]
            if len(self.came) > CAME_MOST:
                self.end(f"more than {CAME_MOST} changes at once")
        elif isinstance(event, Over):
            self.end(event.detail)

    def _settle(self, token: int, found: Any) -> None:
        waiter = self._waiting.pop(token, None)
        if waiter is not None and not waiter.done():
            if isinstance(found, Exception):
                waiter.set_exception(found)
            else:
                waiter.set_result(found)

    async def ask(self, request: m.OpcUaRequest, seconds: float) -> tuple[int, Any]:
        """(number, answer). Raises: OSError, also where there is none in time; then the connection is over."""
        if self.why or self._transport is None:
            raise ConnectionError(self.why or "there is no connection")
        try:
            token, data = self.machine.send(request)
        except LocalProtocolError as error:
            raise ConnectionError(str(error)) from None
        waiter = self._waiting[token] = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            async with asyncio.timeout(seconds):
                return token, await waiter
        except TimeoutError:
            self.end("it has not answered in time")
            raise

    def end(self, why: str) -> None:
        """Ends it."""
        if self.why:
            return
        self.why = why or "the connection is over"
        if self._timer is not None:
            self._timer.cancel()
        for waiter in (self.established, *self._waiting.values()):
            if not waiter.done():
                waiter.set_exception(ConnectionError(self.why))
                waiter.exception()  # nobody may wait for it
        if self._transport is not None:
            self._transport.abort()


class Watcher:
    """Watches the points of one asset; the same to the collector as `points.Reader`."""

    def __init__(
        self, source: Device, asset: Asset, hand: Callable[[Samples], Awaitable[None]], wall: Callable[[], int],
        upto: int | None, future_ns: int, common: Any,
    ) -> None:  # fmt: skip
        """`common`: what all connections of the part share (`Protocol.common`): its key, and whom it trusts."""
        self.source = source
        self.asset = asset
        self._hand = hand
        self._wall = wall
        self._points = [one for one in asset.points if one.name in source.points and isinstance(one.at, Item)]
        self._protocol = PROTOCOLS[asset.protocol]
        self._common = common
        self._session: _Session | None = None
        self._names: dict[int, str] = {}
        self._refused: dict[str, int] = {}
        self.ahead = (0, "")
        """Samples from the future that were not handed on, since somebody last asked, and the tag of one."""
        self._future_ns = future_ns
        self._upto = upto
        """Up to when all has been handed on, by a part that was here before."""
        self._last: dict[str, int] = {}
        """By tag: the source's time of the last that was handed on."""
        self._not_before = 0.0
        self._wrong = ""
        """Why the last attempt to reach it failed."""

    async def once(self) -> str:
        """Hands on what has changed; what is wrong, or was until now, "" if nothing."""
        trouble = ""
        session = self._session
        if session is None or session.why:
            if session is not None:  # told, however soon there is another: a server's history may not reach back to it
                trouble = session.why
                await self._give([self._bad(self._tag(point), SILENCE) for point in self._points])
            try:
                session = await self._connect()
            except OSError as error:
                self.close()
                words = self._wrong = str(error) or trouble or "it does not answer"
                await self._give([self._bad(self._tag(point), SILENCE) for point in self._points])
                return words
        came, session.came = session.came, []
        samples = [self._sample(self._names[number], one) for number, one in came if number in self._names]
        samples += [self._bad(tag, status) for tag, status in self._refused.items()]
        await self._give(samples)
        if self._refused:
            tag, status = next(iter(self._refused.items()))
            return f"it refuses {tag} with 0x{status:08X}"
        return trouble

    async def _give(self, samples: Iterable[Sample], lane: Any = "live") -> None:
        """Hands samples on, as many at a time as a batch holds. What is too far ahead of the clock is told of."""
        limit = self._wall() + self._future_ns
        some: list[Sample] = []
        size = 0
        for one in samples:
            if one.time > limit:
                self.ahead = (self.ahead[0] + 1, one.tag)
                continue
            length = len(one.value.encode()) if isinstance(one.value, str) else 0
            if some and (len(some) >= POINTS_MOST or size + length > TEXT_BYTES):
                await self._hand(pack(lane, self.source.name, some))
                some, size = [], 0
            some.append(one)
            size += length
        if some:
            upto = self._wall() - LATE_NS if lane == "live" and self._names else -1
            await self._hand(pack(lane, self.source.name, some, upto))

    async def _connect(self) -> _Session:
        """A session with a watch on each point. What was missed is read first. Raises: OSError."""
        if time.monotonic() < self._not_before:
            raise ConnectionError(self._wrong or "it could not be reached a moment ago")
        self._not_before = time.monotonic() + AGAIN_SECONDS
        self.close()
        facing = Facing(self._common, self.asset, secrets.token_bytes, self._wall, _everything, _everything)
        machine = self._protocol.client_facing(facing, quirks=frozenset(self.asset.quirks), outstanding=1)
        seconds = max(1.0, self.asset.timeout_ms / 1000)
        session = self._session = await aio.dial(
            self.asset.address, self.asset.port, lambda: _Session(machine), seconds=seconds
        )
        async with asyncio.timeout(10 * seconds):
            await session.established
        self._names, self._refused = {}, {}
        for point in self._points:
            if isinstance(point.at, Item):
                asked = m.Subscribe(point.at, min(self.source.every * 1000, 3_600_000_000), QUEUE, True, 2)
                number, answer = await session.ask(asked, seconds)
                if isinstance(answer, m.Subscribed):
                    self._names[number] = self._tag(point)
                else:
                    self._refused[self._tag(point)] = answer.status if isinstance(answer, m.Refused) else NO_PLACE
        for point in self._points:  # the watches stand: nothing is between the two
            since = self._last.get(self._tag(point), self._upto)
            if since is not None:
                await self._history(session, point, since, self._wall(), "backfill")
        return session

    async def fetch(self, asked: Fetch) -> None:
        """Reads a time again, where the server has a history. Raises: OSError."""
        session = self._session
        if session is not None and not session.why:
            for point in self._points:
                await self._history(session, point, asked.since, min(asked.until, self._wall()), "backfill")

    async def _history(self, session: _Session, point: Point, since: int, until: int, lane: str) -> None:
        """What the server has recorded of a point; nothing, where it has none. Raises: OSError."""
        at = point.at
        low, high = since // 100 + EPOCH_TICKS, until // 100 + EPOCH_TICKS
        seconds = max(10.0, self.asset.timeout_ms / 1000)
        for _ in range(HISTORY_PIECES_MOST):
            if not low < high or not isinstance(at, Item):
                return
            item = Item("history", at.name)
            _, answer = await session.ask(m.History(item, low, high, HISTORY_PIECE), seconds)
            if not isinstance(answer, m.Samples) or not answer.samples:
                return
            await self._give([self._sample(self._tag(point), one) for one in answer.samples], lane)
            newest = max(one.source or one.server for one in answer.samples)
            if not answer.more or newest < low:
                return
            low = max(newest, low + 1)

    def _tag(self, point: Point) -> str:
        return f"{self.asset.name}.{point.name}"

    def _sample(self, tag: str, one: m.Sample) -> Sample:
        """As it came: the status is kept whole."""
        at = _ns(one.source) or _ns(one.server) or self._wall()
        value, quality = _value(one.value), one.status
        if value is None:
            value, quality = float("nan"), one.status if one.status & 0x80000000 else NO_PLACE
        if not quality & 0x80000000:
            self._last[tag] = max(min(at, self._wall()), self._last.get(tag, at))
        return Sample(tag, at, value, quality, _ns(one.server) or None)

    def _bad(self, tag: str, quality: int) -> Sample:
        return Sample(tag, self._wall(), float("nan"), quality)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            session.end("closed")


def _everything(*_: Any) -> bool:
    """Nothing is judged here: it reads what its policy names, and nobody asks it for more."""
    return True


def _ns(ticks: int) -> int:
    """UTC ns; 0 for none, or one that has no place."""
    found = (ticks - EPOCH_TICKS) * 100
    return found if ticks > 0 and abs(found) < (1 << 63) - HOUR_NS else 0


def _value(value: Any) -> float | int | bool | str | None:
    """A single value as a sample has it; None where it has no place for one: arrays, bytes, times, identifiers, what is
    beyond 64 bits."""
    if not hasattr(value, "type") or value.array or len(value.values) != 1:
        return None
    (found,) = value.values
    if isinstance(value, (Float32, Float64)):
        return float(found)
    if isinstance(value, Bool):
        return bool(found)
    if isinstance(value, Text):
        return str(found)
    return int(found) if isinstance(found, int) and -(1 << 63) <= found < 1 << 63 else None
