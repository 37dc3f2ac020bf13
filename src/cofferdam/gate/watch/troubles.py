"""What an operator would find out too late: devices that do not answer, zones without link or address, conduits and
certificates that end soon, a clock that jumped, clients that nobody knows. Each is an alarm while it lasts.

Looked at every few seconds, from what the parts and the launcher have reported anyway; nobody is asked for it.

Not here: what the firewall counts (drops), how an alarm is told (gate), what to do about it (ways_out).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.watch.drops import Drops
from cofferdam.model import NEVER
from cofferdam.policy.near import near_principals
from cofferdam.policy.table import CompiledPolicy

LOOK_SECONDS = 2.0
LOOKS = 2
"""So many looks in a row must see the same before an alarm of a device comes or goes."""
SOON_DAYS = 14
"""So long before a conduit expires somebody should look at it again."""
JUMP_SECONDS = 5.0
"""The wall clock may part from the monotonic one by so much between two looks."""
JUMP_STANDS_SECONDS = 3600.0
"""How long the alarm about it stands."""
MOST_ALARMS = 64
"""Alarms of one kind; the rest are counted in the last."""
SHOWN_STRANGERS = 20
DAY_NS = 86_400 * 10**9


class StrangerReport(msgspec.Struct, frozen=True):
    """A client that asked for a connection and has no principal. `asset`: what it wanted, "" where nothing is there.
    `near`: principals whose addresses are most alike. `last_ns`: UTC."""

    source: str
    address: str
    port: int
    asset: str
    near: tuple[str, ...]
    times: int
    last_ns: int


class WireReport(msgspec.Struct, frozen=True):
    """The interface of a zone in the gate's namespaces."""

    zone: str
    interface: str
    up: bool
    carrier: bool
    addresses: int


class Gate(Context, Protocol):
    """The gate, as this module knows it."""

    drops: Drops
    crews: dict[str, Crew]

    @property
    def base(self) -> CompiledPolicy:
        """The policy in force before anything was held back by an operator's hand."""


class Troubles:
    """One gate's. All methods are called from its loop."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._standing: dict[str, set[str]] = {}  # kind -> names of its alarms
        self._seen: dict[str, int] = {}  # of a device: looks in a row that saw the other thing
        self._clocks = (time.monotonic(), time.time())
        self._jump, self._jump_until = "", 0.0

    async def watch(self, stop: asyncio.Event) -> None:
        """Until the gate stops."""
        while not stop.is_set():
            self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    def look(self) -> None:
        """One look at everything."""
        policy = self._gate.policy
        self._tell("asset-silent", dict(self._silent()))
        self._tell("zone", dict(self._zones()))
        self._tell("conduit-expires", dict(self._expiring(self._gate.base)))
        self._tell("strangers", self._strangers(policy))
        self._tell("clock-jumped", self._clock())

    def _tell(self, kind: str, found: dict[str, str]) -> None:
        """The alarms of a kind: those that are no more go, those that are new come."""
        if len(found) > MOST_ALARMS:
            rest = len(found) - MOST_ALARMS
            found = dict(list(found.items())[:MOST_ALARMS]) | {f"{kind}-more": f"{rest} more of the same"}
        for name in self._standing.get(kind, set()) - found.keys():
            self._gate.alarm(name, "")
        for name, detail in found.items():
            self._gate.alarm(name, clip(detail))
        self._standing[kind] = set(found)

    # --- devices ------------------------------------------------------------------------------------------------

    def _silent(self) -> Iterator[tuple[str, str]]:
        """Devices that have not answered what they were asked last. One whose units take turns in answering, or a
        single lost packet, is no alarm."""
        seen: dict[str, int] = {}
        standing = self._standing.get("asset-silent", set())
        for crew in self._gate.crews.values():
            for part in crew.parts:
                for told in part.status.assets if part.status is not None else ():
                    name = clip(f"asset-silent-{told.asset}", 128)
                    silent, known = told.state == "silent", name in standing
                    count = self._seen.get(name, 0) + 1 if silent != known else 0
                    if count:
                        seen[name] = count
                    if (silent and count >= LOOKS) or (known and count < LOOKS):
                        yield name, f"{told.asset} does not answer: {told.detail or 'no answer'}"
        self._seen = seen

    # --- zones --------------------------------------------------------------------------------------------------

    def _zones(self) -> Iterator[tuple[str, str]]:
        for wire in self._gate.drops.wires:
            what = f"zone {wire.zone}: its interface {wire.interface}"
            name = clip(f"zone-link-{wire.zone}", 128)
            if not wire.up:
                yield name, f"{what} is down or gone"
            elif not wire.carrier:
                yield name, f"{what} has no link: no cable, or nothing at its other end"
            if not wire.addresses:
                yield clip(f"zone-address-{wire.zone}", 128), f"{what} has no address"

    # --- ends ---------------------------------------------------------------------------------------------------

    def _expiring(self, policy: CompiledPolicy) -> Iterator[tuple[str, str]]:
        now = now_ns()
        for conduit in policy.conduits.values():
            if conduit.expires == NEVER:
                continue
            name = clip(f"conduit-expires-{conduit.name}", 128)
            when = conduit.expires_text.strip() or "at once"
            if conduit.expires <= now:
                yield name, f"conduit {conduit.name} has expired {when}: nothing passes by it (owner: {conduit.owner})"
            elif conduit.expires - now < SOON_DAYS * DAY_NS:
                days = (conduit.expires - now) // DAY_NS
                yield name, f"conduit {conduit.name} expires in {days} days, {when} (owner: {conduit.owner})"

    # --- strangers ----------------------------------------------------------------------------------------------

    def strangers(self) -> tuple[StrangerReport, ...]:
        """Who was dropped lately, the last first."""
        policy = self._gate.policy
        places = {place: asset.name for asset in policy.assets.values() for place in asset.places}
        return tuple(
            StrangerReport(
                one.source, one.address, one.port, places.get((one.address, one.port), ""),
                tuple(near_principals(policy.principals, one.source)), one.times,
                now_ns() - one.seconds_ago * 10**9,
            )
            for one in self._gate.drops.knocks[:SHOWN_STRANGERS]
        )  # fmt: skip

    def _strangers(self, policy: CompiledPolicy) -> dict[str, str]:
        """Those that asked for what is there: a scan of other ports is counted, and no alarm."""
        wanted = [one for one in self.strangers() if one.asset]
        if not wanted:
            return {}
        said = ", ".join(f"{one.source} knocked at {one.asset}" for one in wanted[:3])
        near = wanted[0].near
        known = f"; near {wanted[0].source}: {near[0]} {policy.principals[near[0]].networks[0]}" if near else ""
        return {"strangers": f"{said}; no principal has that address{known}"}

    # --- the clock ----------------------------------------------------------------------------------------------

    def _clock(self) -> dict[str, str]:
        mono, wall = time.monotonic(), time.time()
        before, self._clocks = self._clocks, (mono, wall)
        apart = (wall - before[1]) - (mono - before[0])
        if abs(apart) > JUMP_SECONDS:
            way = "forward" if apart > 0 else "back"
            self._jump = f"the clock was set {way} by {abs(apart):,.0f} s: windows and expiries follow it"
            self._jump_until = mono + JUMP_STANDS_SECONDS
        return {"clock-jumped": self._jump} if mono < self._jump_until else {}


def wire_reports(drops: Drops) -> tuple[WireReport, ...]:
    return tuple(WireReport(w.zone, w.interface, w.up, w.carrier, w.addresses) for w in drops.wires)
