"""Points of the plant that hold installs back, or that must be within their limits afterwards: read when they matter,
each on a connection of its own that is closed again, since many a device takes one or two.

What cannot be read holds an install back as a value beyond its limit does. Nothing here ever writes.

Not here: what follows from it (plan, installer).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.asking import Line
from cofferdam.errors import LocalProtocolError
from cofferdam.model import Asset, Point, Span
from cofferdam.policy.points.values import Number, measure, of, out_of_range, scaled
from cofferdam.policy.terms.patch_rows import Install, Unless, beyond
from cofferdam.protocols.registry import PROTOCOLS

GOOD_SECONDS: Final = 10.0
"""A value that is older says nothing of now."""
AGAIN_SECONDS: Final = 3.0
DIAL_SECONDS: Final = 5.0


async def cells(asset: Asset, point: Point) -> tuple[int, ...]:
    """The cells of a point, as the device has them now. Raises: OSError."""
    protocol, at = PROTOCOLS[asset.protocol], point.at
    if not isinstance(at, Span):
        raise ConnectionError(f"{point.name} is not made of cells")
    machine = protocol.client(quirks=frozenset(asset.quirks), outstanding=1)
    line = await aio.dial(asset.address, asset.port, lambda: Line(machine), seconds=DIAL_SECONDS)
    try:
        unit = asset.device_unit if asset.device_unit >= 0 else asset.unit
        request = protocol.read_request(unit if unit >= 0 else 1, at)
        answer = await line.ask(request, max(1.0, asset.timeout_ms / 1000))
    except LocalProtocolError as error:
        raise ConnectionError(str(error)) from None
    finally:
        line.close()
    if wrong := protocol.mismatch(request, answer):
        raise ConnectionError(wrong)
    if protocol.is_error(answer):
        raise ConnectionError(f"it answers with exception {protocol.error_code(answer)}")
    found = {
        cell: value for _, start, values in protocol.values(request, answer) for cell, value in enumerate(values, start)
    }
    if any(cell not in found for cell in range(at.start, at.stop)):
        raise ConnectionError("it answers for other cells")
    return tuple(found[cell] for cell in range(at.start, at.stop))


async def within(assets: Mapping[str, Asset], asset: str, name: str) -> str:
    """Why a point is not within its limits, "" if it is. Raises: OSError, where it cannot be read."""
    known, point = _known(assets, asset, name)
    return out_of_range(point, await cells(known, point))


def _known(assets: Mapping[str, Asset], asset: str, name: str) -> tuple[Asset, Point]:
    """Raises: OSError."""
    known = assets.get(asset)
    point = next((each for each in known.points if each.name == name), None) if known is not None else None
    if known is None or point is None:
        raise ConnectionError(f"the policy has no {asset}.{name}")
    return known, point


class Guards:
    """What holds installs back, as it was read last."""

    def __init__(self, now: Callable[[], float], start: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._now = now
        self._start = start
        self.assets: Mapping[str, Asset] = {}
        self._read: dict[tuple[str, str], tuple[float, Number | str, str]] = {}
        """When, the value or why there is none, and the value as people read it."""
        self._reading: set[str] = set()
        """Assets that are asked now: one question at a time."""

    def why(self, install: Install) -> str:
        """Why it may not begin, "" if it may."""
        return next((why for each in install.unless if (why := self._why(each))), "")

    def _why(self, said: Unless) -> str:
        at, value, shown = self._read.get((said.asset, said.point), (-math.inf, "", ""))
        if self._now() - at > GOOD_SECONDS:
            return f"{said.name} is read first"
        if isinstance(value, str):
            return f"{said.name} cannot be read: {value}"
        above = said.above is not None and not value <= said.above  # so that what is no number is beyond, too
        below = said.below is not None and not value >= said.below
        return f"{said.name} is {shown}; nothing begins while it is {beyond(said)}" if above or below else ""

    def look(self, installs: Iterable[Install]) -> None:
        """Reads what these wait for, if it is not fresh."""
        for install in installs:
            for said in install.unless:
                at = self._read.get((said.asset, said.point), (-math.inf, "", ""))[0]
                if said.asset not in self._reading and self._now() - at > AGAIN_SECONDS:
                    self._reading.add(said.asset)
                    self._start(self._ask(said.asset, said.point))

    async def _ask(self, asset: str, name: str) -> None:
        value: Number | str
        shown = ""
        try:
            async with asyncio.timeout(GOOD_SECONDS):
                known, point = _known(self.assets, asset, name)
                raw = of(point, await cells(known, point))
                value, shown = scaled(point, raw), measure(point, raw)
        except OSError as error:
            value = str(error) or "it does not answer"
        finally:
            self._reading.discard(asset)
        self._read[asset, name] = (self._now(), value, shown)
