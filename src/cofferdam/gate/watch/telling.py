"""Each minute the gate hands its own status to the parts whose profile wants it (`told`): what a strand carries out.

It is handed over, and no more hangs on it: a part that does not take it is told again a minute later. Not here: what a
part does with it (brokers), what the status is (report).
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from cofferdam.brokers.kit.supervision import ARGUMENT_BYTES, HOUSE_STATUS
from cofferdam.errors import GateError
from cofferdam.gate.crew.crew import Crew

FIRST_SECONDS: Final = 5.0
ROUND_SECONDS: Final = 60.0
TAKE_SECONDS: Final = 10.0
_SHORT: Final = ("version", "site", "started_ns", "now_ns", "policy", "separation", "severed", "audit", "alarms")
"""What is told where all of it is too large."""


def packed(status: object) -> bytes:
    """A status as it is handed over, of ARGUMENT_BYTES at most."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    for told in (found, {name: found[name] for name in _SHORT if name in found}):
        if len(data := zlib.compress(msgspec.json.encode(told))) <= ARGUMENT_BYTES:
            return data
    return zlib.compress(msgspec.json.encode({"site": found.get("site", "")}))


async def tell(crews: Mapping[str, Crew], status: Callable[[], object]) -> None:
    """Once, to all that want it."""
    wanting = [
        (crew, name)
        for crew in crews.values()
        for name in crew.plan.parts
        if crew.broker.crew.parts[name].told
    ]  # fmt: skip
    if not wanting:
        return
    data = packed(status())
    for crew, name in wanting:
        with contextlib.suppress(GateError):
            await crew.ask(name, HOUSE_STATUS, data, TAKE_SECONDS)


async def work(crews: Mapping[str, Crew], status: Callable[[], object], stop: asyncio.Event) -> None:
    """Minute after minute, until the gate stops."""
    wait = FIRST_SECONDS
    while not stop.is_set():
        try:
            async with asyncio.timeout(wait):
                await stop.wait()
        except TimeoutError:
            await tell(crews, status)
        wait = ROUND_SECONDS
