"""Which conduits are served by one crew, and what each of its parts needs: worked out from what the brokers' terms say
that conduits need, and from nothing else. Children, listeners, firewall and proof follow from it. PURE.

One crew serves the conduits of one broker between the same zones; one that rides on a strand has a crew of its own,
whose parts stand at its two ends. What must not be served by two crews (a device, of
which only one part can keep to its `connections`) brings conduits from several zones of a side together as well.

Not here: how many processes serve a crew's share (gate.crew.plan), what a conduit needs (policy.terms).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from cofferdam.errors import PolicyError
from cofferdam.limits import strand_end
from cofferdam.policy.document import Path
from cofferdam.policy.rows import Conduit
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Folder, Listen, Needs, PartNeeds, Ping, Reach, Seam, Store, Strand
from cofferdam.policy.terms.kinds import KINDS, Kinds

_SIDES = {"it": 0, "": 1, "ot": 2}
NAME_LETTERS = 96
"""The longest name of a crew, without what is added for shards and parts. Orders and entries allow 128."""


@dataclass
class GroupPart:
    """One part of a crew. It stands on `side` and works for `zones` of it; `side` is "" for one that stands apart."""

    side: str = ""
    zones: set[str] = field(default_factory=set)
    listens: list[Listen] = field(default_factory=list)
    reaches: list[Reach] = field(default_factory=list)
    store: Store | None = None
    folders: dict[str, Folder] = field(default_factory=dict)
    strands: list[Strand] = field(default_factory=list)
    seams: list[Seam] = field(default_factory=list)
    pings: list[Ping] = field(default_factory=list)


@dataclass
class Group:
    """The conduits that one crew serves. `apart`: share -> what only one crew may serve. `rides`: the one that it
    serves goes over a strand."""

    broker: str
    parts: dict[str, GroupPart]
    conduits: dict[str, Needs]
    apart: dict[str, str]
    rides: bool = False

    @property
    def places(self) -> tuple[tuple[str, ...], ...]:
        """The zones of its parts, in order, each set of zones once."""
        found = (tuple(sorted(part.zones)) for part in self.parts.values() if part.side)
        return tuple(dict.fromkeys(found))

    @property
    def base(self) -> str:
        """The crew's name. A long one is cut and made unique again: names travel in records and audit entries."""
        zones = "-".join("+".join(zones) for zones in self.places)
        # Of one that rides a machine has the zones of one end, and two may have the same.
        name = f"{self.broker}/{min(self.conduits) if self.rides else zones}"
        if len(name) <= NAME_LETTERS:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return f"{name[: NAME_LETTERS - 13]}#{digest}"


@dataclass(frozen=True)
class Clash:
    """What two crews cannot both have, said at two places of the policy: (for whom, where). `found` is what is wrong
    with the second, with {first} for the first."""

    found: str
    expected: str
    first: tuple[str, Path]
    second: tuple[str, Path]


def groups(policy: CompiledPolicy, kinds: Kinds = KINDS) -> dict[str, Group]:
    """The crews that a policy needs, by their names.

    Raises:
        PolicyError: there is something that two of them would have, or one on both sides.
    """
    found, wrong = _groups(policy, kinds)
    for clash in wrong:
        text = clash.found.replace("{first}", clash.first[0])
        raise PolicyError(f"{clash.second[0]}: {text}; expected {clash.expected}", hint="`cofferdam check` says where")
    return found


def clashes(policy: CompiledPolicy, kinds: Kinds = KINDS) -> tuple[Clash, ...]:
    """What two crews of a policy cannot both have."""
    roads = {(conduit.broker, conduit.from_zone, conduit.to_zone) for conduit in policy.conduits.values()}
    return _groups(policy, kinds)[1] if len(roads) > 1 else ()


def _groups(policy: CompiledPolicy, kinds: Kinds) -> tuple[dict[str, Group], tuple[Clash, ...]]:
    wrong: list[Clash] = []
    merged: list[Group] = []
    for conduit in policy.conduits.values():
        needs = kinds[conduit.broker].needs(conduit, policy)
        needs = _here(policy, _riding(policy, conduit, needs, kinds[conduit.broker].rides))
        if not needs.parts:
            continue
        group = _of(conduit, needs)
        rest = []
        for other in merged:
            if not _together(group, other):
                rest.append(other)
            elif (torn := _torn(other, group)) is not None:
                wrong.append(torn)
                rest.append(other)
            else:
                _join(other, group)
                group = other
        merged = [*rest, group]
    found: dict[str, Group] = {}
    for group in merged:
        first = found.setdefault(group.base, group)
        if first is not group and not wrong:
            named = f"the name {group.base}, which another crew has for {{first}}"
            wrong.append(Clash(named, "zones whose names tell it from others", _named(first), _named(group)))
    found = dict(sorted(found.items()))
    for group in found.values():  # a conduit may have brought further parts: the less trusted side's stay first
        group.parts = dict(sorted(group.parts.items(), key=lambda item: _SIDES[item[1].side]))
    wrong += [*_listeners(policy, found.values()), *_folders(found.values())] if not wrong else ()
    return found, tuple(wrong)


def _named(group: Group) -> tuple[str, Path]:
    name = min(group.conduits)
    return f"conduit {name}", ("conduits", name)


def _riding(policy: CompiledPolicy, conduit: Conduit, needs: Needs, rides: tuple[str, str]) -> Needs:
    """What a conduit needs whose crossing goes over a strand: a folder at each end. What stands apart is inside, but
    for the end outside."""
    if not conduit.strand:
        return needs
    carrier = policy.conduits[conduit.strand]
    inside = policy.zones[carrier.from_zone].machine
    parts = {
        name: replace(part, machine=inside) if part.place is None and not part.machine else part
        for name, part in needs.parts.items()
    }
    for name, way, zone in zip(rides, ("out", "in"), (carrier.from_zone, carrier.to_zone), strict=True):
        folder = Folder(strand_end(conduit.name, way), conduit.name, ("conduits", conduit.name), shared=True)
        part = parts[name]
        parts[name] = replace(part, folders=(*part.folders, folder), machine=policy.zones[zone].machine)
    return Needs(parts, needs.apart)


def _here(policy: CompiledPolicy, needs: Needs) -> Needs:
    """What of it is for this machine."""
    if not policy.machine:
        return needs

    def here(part: PartNeeds) -> bool:
        if part.place is not None:
            return policy.is_here(part.place.zone)
        return part.machine in ("", policy.machine)

    placed = [part for part in needs.parts.values() if part.place is not None]
    if not any(map(here, placed)):
        return Needs({}, {})
    return Needs({name: part for name, part in needs.parts.items() if here(part)}, needs.apart)


def _of(conduit: Conduit, needs: Needs) -> Group:
    parts = {}
    for name, part in needs.parts.items():
        folders = {folder.name: folder for folder in part.folders}
        made = parts[name] = GroupPart(
            listens=list(part.listens), reaches=list(part.reaches), store=part.store, folders=folders
        )
        made.strands, made.seams, made.pings = list(part.strands), list(part.seams), list(part.pings)
        if part.place is not None:
            made.side, made.zones = part.place.side.value, {part.place.zone}
    return Group(conduit.broker, parts, {conduit.name: needs}, dict(needs.apart), bool(conduit.strand))


def _together(one: Group, other: Group) -> bool:
    """Whether one crew serves both: they stand in the same zones, or there is something that only one may serve."""
    if one.broker != other.broker or one.rides or other.rides:
        return False
    pairs = [(part, other.parts[name]) for name, part in one.parts.items() if name in other.parts]
    if pairs and all(bool(a.zones & b.zones) or a.side == b.side == "" for a, b in pairs):
        return True
    fewer, more = sorted((one.apart, other.apart), key=len)
    keys = set(more.values())
    return any(key in keys for key in fewer.values())


def _torn(one: Group, other: Group) -> Clash | None:
    """Why one crew cannot serve both, though no two may: a part of it would stand on both sides."""
    for name, part in other.parts.items():
        there = one.parts.get(name, part)
        if there.side != part.side:
            zones = " and ".join(sorted({*there.zones, *part.zones}))
            shared = ", ".join(sorted(set(one.apart.values()) & set(other.apart.values())))
            why = f"zones {zones}, which are on different sides and reach the same device: {shared}, as {{first}} does"
            return Clash(why, "one side from which it is reached, or a device for each", _named(one), _named(other))
    return None


def _join(into: Group, more: Group) -> None:
    for name, part in more.parts.items():
        there = into.parts.setdefault(name, part)
        if there is part:
            continue
        there.zones |= part.zones
        there.listens += part.listens
        there.reaches += part.reaches
        there.strands += part.strands
        there.seams += part.seams
        there.pings += part.pings
        there.store = _larger(there.store, part.store)
        there.folders = {**part.folders, **there.folders}
    into.conduits |= more.conduits
    into.apart |= more.apart


def _larger(one: Store | None, other: Store | None) -> Store | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda store: store.quota)


def _listeners(policy: CompiledPolicy, crews: Iterable[Group]) -> Iterator[Clash]:
    """Listeners that two crews want. Without namespaces both sides are one network."""
    one_network = policy.gate.separation == "processes"
    taken: dict[tuple[str, int, bool], dict[str, tuple[Group, str, Listen]]] = {}
    for crew in crews:
        for part in crew.parts.values():
            for listen in part.listens:
                here = taken.setdefault(("" if one_network else part.side, listen.port, listen.datagrams), {})
                for address in _overlapping(listen.address, here):
                    other, whose, first = here[address]
                    if other is not crew:
                        found = f"{first.address} port {listen.port}, which another crew has for {{first}}"
                        own = "an address and port of its own"
                        yield Clash(found, own, (whose, first.said), (listen.share, listen.said))
                        break
                here.setdefault(listen.address, (crew, listen.share, listen))


def _folders(crews: Iterable[Group]) -> Iterator[Clash]:
    """Folders that two parts want: each would take the other's files."""
    taken: dict[str, Folder] = {}
    for crew in crews:
        for part in crew.parts.values():
            for name, folder in part.folders.items():
                first = taken.setdefault(name, folder)
                if first is not folder and not (first.shared or folder.shared):
                    found = f"the folder {name}, which {{first}} has"
                    yield Clash(found, "a folder of its own", (first.share, first.said), (folder.share, folder.said))


def _overlapping(address: str, others: Collection[str]) -> Iterator[str]:
    """Those of the others that take connections to this address as well; [::] takes IPv4 as well."""
    one = ipaddress.ip_address(address)
    if one.is_unspecified:
        yield from (text for text in others if one.version == 6 or ":" not in text or text == "::")
        return
    for text in (address, "::", *(["0.0.0.0"] if one.version == 4 else [])):  # noqa: S104 - compared with, not bound to
        if text in others:
            yield text
