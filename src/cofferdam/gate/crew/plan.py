"""Which crews a policy needs, and how to get from the crews that run to those of a new policy. No I/O.

One crew serves all conduits of a broker between the same zones, and a device is reached by one crew only
(policy.crews). `shards` spreads the devices of a crew over so many, for more cores; a crew with a store stays whole.

A crew's listeners are handed to its parts at birth. So a crew that gets another listener must be started anew, while
one that loses an asset goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cofferdam.enforce.orders import SEAM_WAYS, Place, Way
from cofferdam.errors import GateError
from cofferdam.policy.crews import Group, GroupPart, groups
from cofferdam.policy.table import CompiledPolicy, to_bytes
from cofferdam.policy.terms.base import Scope, Store
from cofferdam.policy.terms.kinds import KINDS

MOST_SPOTS = 4096
"""Listeners of one crew. The order that starts it carries no more."""


@dataclass(frozen=True, order=True)
class Spot:
    """Where a part listens: (side, address, port), by UDP if `datagrams`, and the zone by which clients come. `way`:
    the socket goes one way, only to `peer` ("out") or only from it ("in"), at the same port; or it is an end of a pipe
    of the seam to what is published there, and no socket."""

    side: str
    address: str
    port: int
    zone: str = field(compare=False)
    datagrams: bool = False
    way: Way = ""
    peer: str = ""

    @property
    def is_seam(self) -> bool:
        return self.way not in ("", "out", "in")

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}{'/udp' if self.datagrams else ''}"


@dataclass(frozen=True)
class Share:
    """The least that a crew serves alone: an asset, or all that a conduit carries. `key`: what no second crew may serve
    (a device, a store). `spots`: where each part listens for it; `reaches`: (address, port) to which a part dials."""

    name: str
    key: str
    conduits: tuple[str, ...]
    spots: Mapping[str, tuple[Spot, ...]]
    reaches: tuple[tuple[str, int], ...]

    @property
    def all_spots(self) -> tuple[Spot, ...]:
        return tuple(spot for spots in self.spots.values() for spot in spots)

    @property
    def published(self) -> tuple[str, ...]:
        """Where others find it."""
        return tuple(str(spot) for spot in self.all_spots if not spot.is_seam)


@dataclass(frozen=True)
class PartPlan:
    """One part of a crew. `place`: None for one that stands apart. `zones`: whom it works for. `folders`: of the
    site's, by name. `dials`: there is something that it opens connections to."""

    place: Place | None
    zones: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()
    store: Store | None = None
    folders: tuple[str, ...] = ()
    dials: bool = False

    @property
    def published(self) -> tuple[str, ...]:
        """Where others find it."""
        return tuple(str(spot) for spot in self.spots if not spot.is_seam)


@dataclass(frozen=True)
class CrewPlan:
    """One crew. `base` is the name without the number of a shard or of a later addition; `parts` are those that the
    policy needs, in the order in which the terms name them."""

    name: str
    base: str
    broker: str
    parts: Mapping[str, PartPlan]
    shares: tuple[Share, ...]

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Where its parts listen, sorted."""
        return tuple(sorted({spot for part in self.parts.values() for spot in part.spots}))

    @property
    def asset_names(self) -> tuple[str, ...]:
        """The names of its shares, sorted: for a proxy, its assets."""
        return tuple(share.name for share in self.shares)

    @property
    def conduits(self) -> tuple[str, ...]:
        return tuple(sorted({name for share in self.shares for name in share.conduits}))

    @property
    def placed(self) -> tuple[PartPlan, ...]:
        """The parts that stand on a side, the outer one first."""
        return tuple(part for part in self.parts.values() if part.place is not None)

    @property
    def source_zones(self) -> tuple[str, ...]:
        return self.placed[0].zones if self.placed else ()

    @property
    def target_zone(self) -> str:
        place = self.placed[-1].place if self.placed else None
        return place.zone if place is not None else ""

    @property
    def outer(self) -> Place:
        """Where the first of its parts on a side stands."""
        return _standing(self.placed[:1])

    @property
    def inner(self) -> Place:
        """Where the last of them stands, which decides in a proxy."""
        return _standing(self.placed[-1:])

    def slice(self, policy: CompiledPolicy, part: str) -> bytes:
        """What a part of this crew has to know of a policy, and no more, as CompiledPolicy.from_bytes reads it."""
        scope = Scope(frozenset(self.conduits), frozenset(self.asset_names))
        return to_bytes(KINDS[self.broker].slice(policy, scope, part))


def _standing(parts: tuple[PartPlan, ...]) -> Place:
    for part in parts:
        if part.place is not None:
            return part.place
    raise GateError("a crew without a part on a side")


@dataclass(frozen=True)
class Change:
    """From the crews that run to those that should: `keep` go on under the new policy, `restart` get new listeners or
    parts, `start` are new, `stop` are no longer needed."""

    keep: tuple[CrewPlan, ...]
    restart: tuple[CrewPlan, ...]
    start: tuple[CrewPlan, ...]
    stop: tuple[str, ...]


def plan_crews(policy: CompiledPolicy, *, shards: int = 1) -> dict[str, CrewPlan]:
    """The crews for a policy, by name.

    Raises:
        PolicyError: a crew would stand on both sides, or two crews would share a name, store or listener.
        GateError: a crew would have more than MOST_SPOTS listeners.
    """
    crews: dict[str, CrewPlan] = {}
    for base, group in groups(policy).items():
        shares = _shares(group)
        whole = shards == 1 or any(part.store is not None for part in group.parts.values())
        spread: dict[int, list[Share]] = {}
        for bundle in _bundles(shares):
            number = 0 if whole else _shard(min(share.key for share in bundle), shards)
            spread.setdefault(number, []).extend(bundle)
        for number, some in sorted(spread.items()):
            name = base if whole else f"{base}:{number + 1}"
            crews[name] = _plan(name, base, group.broker, _parts(group), some)
    return crews


def _parts(group: Group) -> dict[str, PartPlan]:
    """The parts of a crew, without what they listen at."""
    return {
        name: PartPlan(
            _place(part), tuple(sorted(part.zones)), (), part.store, tuple(sorted(part.folders)), bool(part.reaches)
        )
        for name, part in group.parts.items()
    }


def _place(part: GroupPart) -> Place | None:
    return Place("it" if part.side == "it" else "ot", min(part.zones)) if part.side else None


def _plan(name: str, base: str, broker: str, parts: Mapping[str, PartPlan], shares: Iterable[Share]) -> CrewPlan:
    """A crew that serves these shares."""
    some = tuple(sorted(shares, key=lambda share: share.name))
    listening = {
        part: replace(plan, spots=tuple(sorted({spot for share in some for spot in share.spots.get(part, ())})))
        for part, plan in parts.items()
    }
    plan = CrewPlan(name, base, broker, listening, some)
    if len(plan.spots) > MOST_SPOTS:
        raise GateError(
            f"the crew {name} would listen at {len(plan.spots)} addresses and ports; at most {MOST_SPOTS} can be",
            hint="start the gate with `--pairs N`, which spreads the devices of a road over N crews",
        )
    return plan


def _shares(group: Group) -> list[Share]:
    conduits: dict[str, list[str]] = {}
    for name, needs in group.conduits.items():
        for share in needs.apart:
            conduits.setdefault(share, []).append(name)
    spots: dict[str, dict[str, set[Spot]]] = {}
    reaches: dict[str, set[tuple[str, int]]] = {}
    for name, part in group.parts.items():
        zone = min(part.zones, default="")
        for listen in part.listens:
            spot = Spot(part.side, listen.address, listen.port, zone, listen.datagrams)
            spots.setdefault(listen.share, {}).setdefault(name, set()).add(spot)
        for reach in part.reaches:
            reaches.setdefault(reach.share, set()).add((reach.address, reach.port))
        for strand in part.strands:
            spot = Spot(part.side, strand.address, strand.port, strand.zone, True, strand.way, strand.peer)
            spots.setdefault(strand.share, {}).setdefault(name, set()).add(spot)
        for seam in part.seams:
            ends = {Spot(part.side, seam.address, seam.port, zone, way=way) for way in SEAM_WAYS[seam.end]}
            spots.setdefault(seam.share, {}).setdefault(name, set()).update(ends)
    return [
        Share(
            share,
            key,
            tuple(sorted(conduits[share])),
            {part: tuple(sorted(found)) for part, found in spots.get(share, {}).items()},
            tuple(sorted(reaches.get(share, ()))),
        )
        for share, key in sorted(group.apart.items())
    ]


def _bundles(shares: Iterable[Share]) -> list[list[Share]]:
    """Shares that one crew must serve: they have a key or a listener in common."""
    some = list(shares)
    above = list(range(len(some)))  # a forest: who is in one tree is in one bundle
    first: dict[str | Spot, int] = {}

    def root(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    for number, share in enumerate(some):
        ties: list[str | Spot] = [share.key, *share.all_spots]
        for tie in ties:
            above[root(number)] = root(first.setdefault(tie, number))
    found: dict[int, list[Share]] = {}
    for number, share in enumerate(some):
        found.setdefault(root(number), []).append(share)
    return list(found.values())


def _shard(key: str, shards: int) -> int:
    """Spreads devices evenly and the same way each time."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % shards


def change_crews(running: Mapping[str, CrewPlan], fresh: Mapping[str, CrewPlan]) -> Change:
    """What to do with the crews that run so that they serve what `fresh` plans.

    A device stays with the crew that has it. The devices that no running crew has get a new crew, whose number
    follows the name ("modbus/enterprise-control+2").

    Raises: GateError: a crew that goes on would have more than MOST_SPOTS listeners.
    """
    keep: list[CrewPlan] = []
    restart: list[CrewPlan] = []
    start: list[CrewPlan] = []
    stays: set[str] = set()
    names = set(running)
    by_base: dict[str, list[CrewPlan]] = {}
    for plan in fresh.values():
        by_base.setdefault(plan.base, []).append(plan)
    for base, plans in sorted(by_base.items()):
        first = plans[0]
        members = [old for old in running.values() if old.base == base and _same_place(old, first)]
        owners = _Owners(members)
        share: dict[str, list[Share]] = {old.name: [] for old in members}
        for plan in plans:
            new: list[Share] = []
            for bundle in _bundles(plan.shares):
                owner = owners.of(bundle)
                (new if owner is None else share[owner.name]).extend(bundle)
            if new:
                name = _free_name(plan.name, names)
                names.add(name)
                start.append(_plan(name, base, plan.broker, plan.parts, new))
        for old in members:
            if not share[old.name]:
                continue
            plan = _plan(old.name, base, first.broker, first.parts, share[old.name])
            stays.add(old.name)
            (keep if _goes_on(old, plan) else restart).append(plan)
    stop = tuple(sorted(set(running) - stays))
    return Change(tuple(keep), tuple(restart), tuple(start), stop)


def _same_place(old: CrewPlan, new: CrewPlan) -> bool:
    places = [{name: part.place for name, part in plan.parts.items()} for plan in (old, new)]
    shared = places[0].keys() & places[1].keys()
    return old.broker == new.broker and all(places[0][name] == places[1][name] for name in shared)


def _goes_on(old: CrewPlan, new: CrewPlan) -> bool:
    """Whether the processes that run can serve the new plan: they are the same, have its listeners and folders, and
    may open connections if it has them do so."""
    return old.parts.keys() == new.parts.keys() and all(
        set(part.spots) <= set(old.parts[name].spots)
        and set(part.folders) <= set(old.parts[name].folders)
        and (old.parts[name].dials or not part.dials)
        for name, part in new.parts.items()
    )


class _Owners:
    """Which running crew goes on with what: the one that has a key of it, else the one that listens for the same share
    (the device moved)."""

    def __init__(self, members: Iterable[CrewPlan]) -> None:
        self._by_key: dict[str, CrewPlan] = {}
        self._by_spots: dict[tuple[str, tuple[Spot, ...]], CrewPlan] = {}
        for old in members:
            for share in old.shares:
                self._by_key.setdefault(share.key, old)
                self._by_spots.setdefault((share.name, share.all_spots), old)

    def of(self, bundle: list[Share]) -> CrewPlan | None:
        found = [self._by_key.get(share.key) for share in bundle]
        found += [self._by_spots.get((share.name, share.all_spots)) for share in bundle]
        return next(filter(None, found), None)


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}+{number}" in taken:
        number += 1
    return f"{name}+{number}"
