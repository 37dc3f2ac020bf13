"""Two plans as one, for the time in which a gate goes from the first to the second. PURE.

While halves take a new policy, sessions that it ends must be able to say goodbye, and those that it begins must be
able to begin: the firewall lets through what either plan does, and the halves decide.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cofferdam.enforce.plans.records import Goal, Hosted, NetworkPlan, SidePlan


def joined(old: NetworkPlan, new: NetworkPlan) -> NetworkPlan:
    """The new plan, and what the old one let through."""
    if [side.space for side in old.sides] != [side.space for side in new.sides]:
        return new  # other namespaces: that takes a new start, and is refused
    hosted = tuple(_hosted((*new.hosted, *old.hosted)))
    return msgspec.structs.replace(new, sides=tuple(map(_side, old.sides, new.sides)), hosted=hosted)


def _hosted(both: Iterable[Hosted]) -> Iterable[Hosted]:
    found: dict[tuple[str, str], dict[Goal, None]] = {}
    for one in both:
        found.setdefault((one.crew, one.part), {}).update(dict.fromkeys(one.goals))
    return (Hosted(crew, part, tuple(goals)) for (crew, part), goals in found.items())


def _side(old: SidePlan, new: SidePlan) -> SidePlan:
    zones = {link.zone for link in new.links}
    pings = (*new.pings, *(ping for ping in old.pings if ping.zone in zones))
    return msgspec.structs.replace(
        new,
        overlay=tuple(dict.fromkeys((*new.overlay, *old.overlay))),
        listens=tuple(dict.fromkeys((*new.listens, *(listen for listen in old.listens if listen.zone in zones)))),
        reaches=tuple(dict.fromkeys((*new.reaches, *(reach for reach in old.reaches if reach.zone in zones)))),
        pings=tuple(dict.fromkeys(pings)),
    )
