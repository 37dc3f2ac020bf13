"""What is to be proved about: the running gate's processes, its namespaces, and what its policy asks of them.

Not here: asking the gate (the verb), reading the kernel (reading).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cofferdam.enforce import firewall, journal, netns, users
from cofferdam.enforce import inside as worker
from cofferdam.enforce.netns import open_namespace
from cofferdam.enforce.plans.records import NetworkPlan, SidePlan
from cofferdam.enforce.profile import Crew, Profile
from cofferdam.errors import GateError
from cofferdam.policy.crews import groups
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof import strangers

Json = dict[str, Any]
_NUMBER = re.compile(r"[:+]\d+$")


@dataclass(frozen=True)
class Part:
    """A process of a crew. `side`: the namespace in which it must stand; "" for one that stands apart."""

    name: str
    crew: str
    kind: str
    part: str
    pid: int
    side: str
    folders: tuple[Path, ...] = ()
    """The site's folders that the gate says it has."""


@dataclass(frozen=True)
class Held:
    """A crew that is tried again and again and has not lived yet. `stands`: the namespace of each of its parts, ""
    for one that stands apart; `why`: what its alarm says."""

    stands: Mapping[str, str]
    why: str


@dataclass
class Side:
    """One side's namespace. `interfaces`: zone to name there."""

    name: str
    plan: SidePlan
    namespace: str
    inode: int
    fd: int
    interfaces: dict[str, str]
    tunnel: str = ""
    reading: Json = field(default_factory=dict)
    rules: Json = field(default_factory=dict)
    frame_filters: list[list[str]] = field(default_factory=list)
    """(hook, device, policy) of each chain of frames."""
    unset: list[str] = field(default_factory=list)
    """Switches that are not as the launcher sets them."""
    moved: dict[str, journal.Moved] = field(default_factory=dict)
    """What interfaces were before they were moved, by their names."""
    pinging: list[int] = field(default_factory=list)
    """Groups of the parts that may ask for an echo there."""

    def run(self, work: Any, *arguments: Any) -> Any:
        """`work(*arguments)` in this namespace, in a child; plain data. Raises: GateError."""
        return worker.inside(self.fd, work, *arguments)

    def read(self, nft: str, others: Mapping[str, int] | None = None) -> None:
        """Reads the namespace and its rules anew. `others`: descriptors of the other sides' namespaces."""
        from cofferdam.proof import reading

        self.reading = self.run(reading.network, dict(others or {}))
        self.unset = self.run(netns.unset_switches, self.plan.has_ipv6, self.pinging)
        self.rules = self.run(firewall.live, nft)
        self.frame_filters = self.run(reading.frame_filters, nft)


@dataclass
class Subject:
    """One running gate."""

    state: Path
    plan: NetworkPlan
    policy_hash: str
    sides: dict[str, Side]
    parts: tuple[Part, ...]
    gate: int
    auditor: int
    launcher: int
    nft: str
    crews: Mapping[str, Crew] = field(default_factory=dict)
    """What each kind of crew may be and do."""
    users: Mapping[str, int] = field(default_factory=dict)
    """Whom the rules know a part by, as the launcher keeps it: "ROAD/PART" to user."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """Who is let in by the tunnel: public key to name."""
    peer_networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """From where: name to the addresses that the policy gives it."""
    folders: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    """The site's folders that the policy gives to each part: crew, part, names."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """Crews that do not serve, by name."""

    def profile(self, part: Part) -> Profile:
        """What a part may do. Raises: GateError, if the gate has parts that this version does not know."""
        crew = self.crews.get(part.kind)
        if crew is None or part.part not in crew.parts:
            raise GateError(f"{part.name} is a part of a kind that is not known here ({part.kind})")
        return crew.parts[part.part]

    @property
    def moved(self) -> tuple[str, ...]:
        return tuple(name for side in self.sides.values() for name in side.interfaces.values())

    def read(self) -> None:
        """Reads all sides anew."""
        for side in self.sides.values():
            side.read(self.nft, self.others(side))

    def others(self, side: Side) -> dict[str, int]:
        """The namespaces of the other sides, by descriptor."""
        return {other.name: other.fd for other in self.sides.values() if other is not side}

    def close(self) -> None:
        for side in self.sides.values():
            os.close(side.fd)


def open_subject(
    state: Path,
    plan: NetworkPlan,
    status: Mapping[str, Any],
    places: Mapping[str, Mapping[str, str]] | None = None,
    crews: Mapping[str, Crew] | None = None,
) -> Subject:
    """From the gate's `status` and its journal. `places`: for each crew, the namespaces in which its parts stand.

    Raises:
        GateError: there are no namespaces, or they are not those that the gate made.
    """
    log = journal.load(state)
    if log is None or not log.namespaces:
        raise GateError("the gate has made no network namespaces")
    made = {entry.name: [item.name for item in log.made if item.namespace == entry.name] for entry in log.namespaces}
    sides: dict[str, Side] = {}
    known = users.read(journal.folder(state))
    if len(plan.sides) != len(log.namespaces):
        raise GateError("the gate's journal has other namespaces than its policy")
    for wanted, entry in zip(plan.sides, log.namespaces, strict=True):
        name = wanted.space
        fd = open_namespace(entry.name, entry.inode)
        if fd is None:
            raise GateError(
                f"the network namespace {entry.name} is not the one that the gate made",
                hint="run `prove` where `cofferdam up` was started, which `ip netns exec` is not; otherwise somebody "
                "took it away: stop the gate and start it anew",
            )
        interfaces, tunnel = _interfaces(wanted, made[entry.name])
        held = {moved.name: moved for moved in log.moved if moved.namespace == entry.name}
        pinging = [known[ping.who] for ping in wanted.pings if ping.who in known]
        sides[name] = Side(
            name, wanted, entry.name, entry.inode, fd, interfaces, tunnel, moved=held, pinging=pinging
        )  # fmt: skip
    gate = int(status["pid"])
    launcher = parent(gate)
    parts = (*_parts([pair for pair in status["pairs"] if pair["working"]], places or {}), *_names(launcher))
    said = {alarm["name"]: alarm["detail"] for alarm in status["alarms"]}
    waiting = {
        name: Held((places or {}).get(name, {}), said.get(f"{name}/crew-held"[:128], "its alarm is still to come"))
        for name in (pair["name"] for pair in status["pairs"] if not pair["working"])
    }
    return Subject(
        state, plan, str(status["policy"]["hash"]), sides, parts, gate, int(status["audit"]["pid"]), launcher,
        firewall.find_nft(), crews or {}, known, held=waiting,
    )  # fmt: skip


def road(crew: str) -> str:
    """A crew's name without the number by which several that do the same are told apart."""
    return _NUMBER.sub("", crew)


def places(policy: CompiledPolicy, plan: NetworkPlan, status: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """In which namespace each part of each crew must stand, by the policy; "" for one that stands apart."""
    wanted = {
        base: {
            name: plan.space_of(part.side, min(part.zones)) if part.side else "" for name, part in group.parts.items()
        }
        for base, group in groups(policy).items()
    }
    return {pair["name"]: wanted.get(road(pair["name"]), {}) for pair in status["pairs"]}


def folders(policy: CompiledPolicy, status: Mapping[str, Any]) -> dict[str, dict[str, frozenset[str]]]:
    """The site's folders that the policy gives to each part of each crew."""
    wanted = {
        base: {name: frozenset(part.folders) for name, part in group.parts.items()}
        for base, group in groups(policy).items()
    }
    return {pair["name"]: wanted.get(road(pair["name"]), {}) for pair in status["pairs"]}


def _interfaces(side: SidePlan, made: Sequence[str]) -> tuple[dict[str, str], str]:
    """(zone to interface, the tunnel's device or ""). The journal has what was made in the order of the plan, and the
    tunnel after the links."""
    names = iter(made)
    try:
        found = {link.zone: link.interface if link.kind == "move" else next(names) for link in side.links}
        return found, next(names) if side.tunnel is not None else ""
    except StopIteration:
        raise GateError("the gate's journal has fewer interfaces than its policy") from None


def _parts(pairs: Sequence[Mapping[str, Any]], places: Mapping[str, Mapping[str, str]]) -> tuple[Part, ...]:
    found = []
    for pair in pairs:
        stands = places.get(pair["name"], {})
        for half in pair["halves"]:
            role = half["role"]
            folders = tuple(map(Path, half.get("folders", ())))
            found.append(
                Part(half["name"], pair["name"], pair["broker"], role, int(half["pid"]), stands.get(role, ""), folders)
            )
    return tuple(found)


def _names(launcher: int) -> tuple[Part, ...]:
    """The name server, which the gate's status does not list."""
    return tuple(Part("names", "names", "names", "names", pid, "it") for pid in strangers.name_servers(launcher))


def parent(pid: int) -> int:
    """The launcher, of the gate's process. Raises: GateError."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        raise GateError("the gate ended while it was looked at") from None
    return int(next(line for line in lines if line.startswith("PPid:")).split()[1])
