"""Points of an asset as a source: read at a pace of their own, by the protocol's client machine, on one connection.

Neighbours are read together, and nothing between points that are none. A device that answers with an exception, or not
at all, gives samples of bad quality for each of its points: never silence. Nothing here ever writes.

Not here: when it is stopped and what it hands on (collector).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.asking import Line
from cofferdam.brokers.mirror.columns import Sample, pack
from cofferdam.brokers.mirror.records import Count, Counted, Fetch, Samples
from cofferdam.model import Asset, Point, Span
from cofferdam.policy.points.values import WORDS, of
from cofferdam.policy.terms.mirror_rows import Device
from cofferdam.protocols.registry import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WORDS_MOST: Final = 125
BITS_MOST: Final = 2_000
EXCEPTION: Final = 0x80000000
"""With the exception's code in its lowest byte: OPC UA's Bad."""
SILENCE: Final = 0x80050000
"""OPC UA's BadCommunicationError."""
AGAIN_SECONDS: Final = 1.0


def spans(points: Sequence[Point]) -> list[tuple[Span, list[Point]]]:
    """What is read in one go: points whose cells follow each other, as many as one read takes."""
    found: list[tuple[Span, list[Point]]] = []
    cells = [(point.at, point) for point in points if isinstance(point.at, Span)]
    for at, point in sorted(cells, key=lambda one: (one[0].space, one[0].start)):
        if found:
            span, some = found[-1]
            bits = WORDS.get(point.type) == 1 and point.type.value == "bool" and not point.mask
            most = BITS_MOST if bits else WORDS_MOST
            stop = max(span.stop, at.stop)
            if at.space == span.space and at.start <= span.stop and stop - span.start <= most:
                found[-1] = (Span(span.space, span.start, stop - span.start), [*some, point])
                continue
        found.append((at, [point]))
    return found


class Reader:
    """Reads the points of one asset. `hand` takes a batch; `trouble` is told of each change."""

    def __init__(
        self, source: Device, asset: Asset, hand: Callable[[Samples], Awaitable[None]], wall: Callable[[], int]
    ) -> None:
        self.source = source
        self.asset = asset
        self._protocol = PROTOCOLS[asset.protocol]
        self._hand = hand
        self._wall = wall
        self._line: Line | None = None
        self._reads = spans([point for point in asset.points if point.name in source.points])
        self._unit = max(1, asset.unit)
        self._not_before = 0.0
        self._wrong = ""
        """Why the last attempt to reach it failed."""
        self.ahead = (0, "")
        """None is: their clock is ours."""

    async def once(self) -> str:
        """Reads all points; what is wrong, "" if nothing."""
        samples: list[Sample] = []
        trouble = ""
        for span, points in self._reads:
            wrong = await self._read(span, points, samples)
            trouble = trouble or wrong
        if samples:
            await self._hand(pack("live", self.source.name, samples))
        return trouble

    async def _read(self, span: Span, points: list[Point], samples: list[Sample]) -> str:
        request = self._protocol.read_request(self._unit, span)
        try:
            line = await self._connected()
            response = await line.ask(request, self.asset.timeout_ms / 1000)
        except OSError as error:
            self.close()
            self._bad(points, SILENCE, samples)
            self._wrong = str(error) or "it does not answer"
            return self._wrong
        if wrong := self._protocol.mismatch(request, response):
            self.close()
            self._bad(points, SILENCE, samples)
            return wrong
        if self._protocol.is_error(response):
            code = self._protocol.error_code(response)
            self._bad(points, EXCEPTION | code, samples)
            return f"it answers with exception {code}"
        cells: dict[int, int] = {}
        for _, start, values in self._protocol.values(request, response):
            cells.update(enumerate(values, start))
        now = self._wall()
        for point in points:
            at = point.at
            if isinstance(at, Span) and all(cell in cells for cell in range(at.start, at.stop)):
                value = of(point, tuple(cells[cell] for cell in range(at.start, at.stop)))
                samples.append(Sample(self._tag(point), now, bool(value) if point.type.value == "bool" else value))
            else:
                self._bad([point], SILENCE, samples)
        return ""

    async def fetch(self, asked: Fetch) -> None:
        """A device has no history."""

    def _tag(self, point: Point) -> str:
        return f"{self.asset.name}.{point.name}"

    def _bad(self, points: Sequence[Point], quality: int, samples: list[Sample]) -> None:
        now = self._wall()
        samples += [Sample(self._tag(point), now, float("nan"), quality) for point in points]

    async def _connected(self) -> Line:
        if self._line is not None and not self._line.lost:
            return self._line
        if time.monotonic() < self._not_before:
            raise ConnectionError(self._wrong or "it could not be reached a moment ago")
        self._not_before = time.monotonic() + AGAIN_SECONDS
        machine = self._protocol.client(quirks=frozenset(self.asset.quirks), outstanding=1)
        seconds = max(1.0, self.asset.timeout_ms / 1000)
        self._line = await aio.dial(self.asset.address, self.asset.port, lambda: Line(machine), seconds=seconds)
        return self._line

    def close(self) -> None:
        """Ends the connection, if there is one."""
        line, self._line = self._line, None
        if line is not None:
            line.close()


def refused(asked: deque[Count | Fetch]) -> list[Counted]:
    """A device has no history: what is asked of it beyond its present is refused."""
    found = [one.not_counted("a device has no history") for one in asked if isinstance(one, Count)]
    asked.clear()
    return found
