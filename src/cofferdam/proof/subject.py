"""What is to be proved about: the running gate's processes, its namespaces, and what its policy asks of them.

Not here: asking the gate (the verb), reading the kernel (reading).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cofferdam.enforce import firewall, journal, netns
from cofferdam.enforce import inside as worker
from cofferdam.enforce.netns import open_namespace
from cofferdam.enforce.plans.records import NetworkPlan, SidePlan
from cofferdam.errors import GateError

Json = dict[str, Any]


@dataclass(frozen=True)
class Half:
    """A process of a pair. `side` is where it must stand."""

    name: str
    pair: str
    role: str
    pid: int
    side: str


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

    def run(self, work: Any, *arguments: Any) -> Any:
        """`work(*arguments)` in this namespace, in a child; plain data. Raises: GateError."""
        return worker.inside(self.fd, work, *arguments)

    def read(self, nft: str, others: Mapping[str, int] | None = None) -> None:
        """Reads the namespace and its rules anew. `others`: descriptors of the other sides' namespaces."""
        from cofferdam.proof import reading

        self.reading = self.run(reading.network, dict(others or {}))
        self.unset = self.run(netns.unset_switches, self.plan.has_ipv6)
        self.rules = self.run(firewall.live, nft)
        self.frame_filters = self.run(reading.frame_filters, nft)


@dataclass
class Subject:
    """One running gate."""

    state: Path
    plan: NetworkPlan
    policy_hash: str
    sides: dict[str, Side]
    halves: tuple[Half, ...]
    gate: int
    auditor: int
    launcher: int
    nft: str
    peers: Mapping[str, str] = field(default_factory=dict)
    """Who is let in by the tunnel: public key to name."""
    peer_networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """From where: name to the addresses that the policy gives it."""

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
    state: Path, plan: NetworkPlan, status: Mapping[str, Any], roles: Mapping[str, tuple[str, str]]
) -> Subject:
    """From the gate's `status` and its journal. `roles`: for each pair, where its outer and its inner half stand.

    Raises:
        GateError: there are no namespaces, or they are not those that the gate made.
    """
    log = journal.load(state)
    if log is None or not log.namespaces:
        raise GateError("the gate has made no network namespaces")
    made = {entry.name: [item.name for item in log.made if item.namespace == entry.name] for entry in log.namespaces}
    sides: dict[str, Side] = {}
    if len(plan.sides) != len(log.namespaces):
        raise GateError("the gate's journal has other namespaces than its policy")
    for wanted, entry in zip(plan.sides, log.namespaces, strict=True):
        name = wanted.space
        fd = open_namespace(entry.name, entry.inode)
        if fd is None:
            raise GateError(
                f"the network namespace {entry.name} is not the one that the gate made",
                hint="somebody took it away; stop the gate and start it anew",
            )
        interfaces, tunnel = _interfaces(wanted, made[entry.name])
        held = {moved.name: moved for moved in log.moved if moved.namespace == entry.name}
        sides[name] = Side(name, wanted, entry.name, entry.inode, fd, interfaces, tunnel, moved=held)
    gate = int(status["pid"])
    return Subject(
        state, plan, str(status["policy"]["hash"]), sides, _halves(status["pairs"], roles), gate,
        int(status["audit"]["pid"]), _parent(gate), firewall.find_nft(),
    )  # fmt: skip


def _interfaces(side: SidePlan, made: Sequence[str]) -> tuple[dict[str, str], str]:
    """(zone to interface, the tunnel's device or ""). The journal has what was made in the order of the plan, and the
    tunnel after the links."""
    names = iter(made)
    try:
        found = {link.zone: link.interface if link.kind == "move" else next(names) for link in side.links}
        return found, next(names) if side.tunnel is not None else ""
    except StopIteration:
        raise GateError("the gate's journal has fewer interfaces than its policy") from None


def _halves(pairs: Sequence[Mapping[str, Any]], roles: Mapping[str, tuple[str, str]]) -> tuple[Half, ...]:
    found = []
    for pair in pairs:
        outer, inner = roles.get(pair["name"], ("it", "ot"))
        for half in pair["halves"]:
            side = outer if half["role"] == "outer" else inner
            found.append(Half(half["name"], pair["name"], half["role"], int(half["pid"]), side))
    return tuple(found)


def _parent(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        raise GateError("the gate ended while it was looked at") from None
    return int(next(line for line in lines if line.startswith("PPid:")).split()[1])
