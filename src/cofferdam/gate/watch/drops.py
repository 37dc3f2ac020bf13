"""Packets that the firewall dropped: no half sees them and nobody gets an answer, so counting is all that shows them.

The launcher reads the kernel's counters when it is asked to: every ten seconds, and for each `status`. What they grew
by goes into the audit log, for each side at most once a minute.

Not here: what is dropped (enforce.plans.rules).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import msgspec

from cofferdam.audit.events.proof import PacketsDropped
from cofferdam.enforce.orders import DROPPED, FENCE, Knock, Wired
from cofferdam.enforce.plans.fence import SPACE
from cofferdam.errors import GateError
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context

READ_SECONDS = 10.0
RECORD_SECONDS = 60.0
"""The shortest time between two entries for a side."""


class DroppedReport(msgspec.Struct, frozen=True):
    """What a side's firewall dropped since the gate started: `packets` by hook (input: coming in, output: going out,
    forward: to be passed on), and openings (connections asked for faster than one client may). `last_ns`:
    when that was last seen to grow; 0: never."""

    side: str
    packets: dict[str, int]
    last_ns: int


class _Side:
    def __init__(self, mono: float) -> None:
        self.read: dict[str, int] = {}  # as the kernel last said
        self.total: dict[str, int] = {}
        self.recorded: dict[str, int] = {}
        self.recorded_at = mono - RECORD_SECONDS
        self.recorded_ns = now_ns()
        self.last_ns = 0

    def take(self, hook: str, packets: int) -> None:
        """A counter below what it was began anew: somebody flushed the rules."""
        before = self.read.get(hook, 0)
        grown = packets - before if packets >= before else packets
        self.read[hook] = packets
        self.total[hook] = self.total.get(hook, 0) + grown
        if grown:
            self.last_ns = now_ns()


class Drops:
    """One gate's. All methods are called from the event loop."""

    def __init__(self, gate: Context, refused: Callable[[Mapping[str, int]], None]) -> None:
        """`refused` is told how many packets of each part in the host's network the fence has refused so far."""
        self._gate = gate
        self._refused = refused
        self._sides: dict[str, _Side] = {}
        self._trouble = ""
        self.knocks: tuple[Knock, ...] = ()
        """Who was dropped as nobody's, the last first on each side."""
        self.wires: tuple[Wired, ...] = ()
        """How the zones' interfaces do."""

    @property
    def _possible(self) -> bool:
        separation = self._gate.separation
        return separation.isolation == "namespaces" or any(name == FENCE and held for name, held, _ in separation.facts)

    async def watch(self, stop: asyncio.Event) -> None:
        """Until the gate stops."""
        while not stop.is_set():  # a reload may bring the first export
            await self.refresh()
            self.record()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), READ_SECONDS)

    async def refresh(self) -> None:
        """Reads the counters now. What cannot be read is said once, and read the next time."""
        if not self._possible:
            return
        try:
            told = await self._gate.launcher.ask_dropped()
        except GateError as error:
            if str(error) != self._trouble:
                self._gate.log.warning("drops-not-read", reason=str(error))
            self._trouble = str(error)
            return
        self._trouble = ""
        self.knocks, self.wires = told.knocks, told.wires
        for counter in told.counters:
            side = self._sides.setdefault(counter.side, _Side(time.monotonic()))
            side.take(counter.name.removeprefix(DROPPED), counter.packets)
        if (host := self._sides.get(SPACE)) is not None:
            self._refused(host.total)

    async def fresh(self, seconds: float) -> None:
        """As `refresh`, but does not wait longer than that for a launcher that has other work."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.refresh(), seconds)

    def record(self, *, last: bool = False) -> None:
        """An entry for each side whose counters grew, if its last one is long enough ago, or this is the `last`."""
        now = time.monotonic()
        for name, side in self._sides.items():
            grown = {hook: side.total[hook] - side.recorded.get(hook, 0) for hook in sorted(side.total)}
            if not any(grown.values()) or not (last or now - side.recorded_at >= RECORD_SECONDS):
                continue
            said = tuple((hook, count) for hook, count in grown.items() if count)
            wall = now_ns()
            self._gate.note(PacketsDropped(side=name, packets=said, from_ns=side.recorded_ns, to_ns=wall, wall_ns=wall))
            side.recorded, side.recorded_at, side.recorded_ns = dict(side.total), now, wall

    async def end(self) -> None:
        """The gate stops in order: what was dropped since the last entry gets one."""
        if self._sides:
            await self.refresh()
            self.record(last=True)

    def reports(self) -> tuple[DroppedReport, ...]:
        return tuple(DroppedReport(name, dict(side.total), side.last_ns) for name, side in sorted(self._sides.items()))
