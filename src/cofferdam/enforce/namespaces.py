"""Separation by namespaces: one network namespace for each side, and each process in a house of its own (housed).

What is made or moved in the host's network stands in the journal before it is done. `undo` and `clean` put it back
from there, in the same process or in any later one.

Not here: users and trees of files (housed), system-call filters, which a part puts on itself (sandbox).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import Collection
from pathlib import Path

import msgspec

from cofferdam.enforce import firewall, journal, kernel, netns
from cofferdam.enforce.counters import Counters
from cofferdam.enforce.fence import tag
from cofferdam.enforce.housed import HousedIsolation
from cofferdam.enforce.inside import inside
from cofferdam.enforce.isolation import Berth, Wire, listen, strand
from cofferdam.enforce.netlink import Knocking, Seen
from cofferdam.enforce.orders import (
    DROPPED,
    MOST_KNOCKS,
    TUNNEL,
    DroppedCounter,
    DroppedState,
    Fact,
    Knock,
    Place,
    Way,
    Wired,
)
from cofferdam.enforce.overlay.tunnel import TunnelDevice
from cofferdam.enforce.plans.records import Link, NetworkPlan, SidePlan, check, namespace_name
from cofferdam.enforce.plans.rules import counter_names, lets_in, ruleset
from cofferdam.enforce.profile import MEMORY_BYTES
from cofferdam.enforce.putback import clean
from cofferdam.enforce.users import Users
from cofferdam.errors import CofferdamError, GateError


class NamespaceIsolation(HousedIsolation):
    """For one gate. Needs the capabilities in users.NEEDED and the nft program."""

    name = "namespaces"

    def __init__(self, state: Path, policy: Path, users: Users | None = None, *, take: Collection[str] = ()) -> None:
        """`take`: interfaces that may be moved although the host itself lives by them.

        Raises: GateError, where nft is missing.
        """
        nft = firewall.find_nft()
        super().__init__(state, policy, users or Users())
        self._take = frozenset(take)
        self._nft = nft
        self._home = netns.own()
        self._plan: NetworkPlan | None = None
        self._journal: journal.Journal | None = None
        self._sides: dict[str, int] = {}
        self._interfaces: dict[str, str] = {}  # zone: its interface's name in the namespace
        self._tunnel = ""  # the name of the tunnel's device, in the namespace of side it
        self._device: TunnelDevice | None = None
        self._egress = True
        self._shortfalls: list[str] = []
        self._counters: dict[str, Counters] = {}  # by side
        self._seen: dict[str, Seen] = {}  # by side
        self._dropped: dict[str, dict[str, int]] = {}  # by side: what rulesets that were replaced had counted

    # --- state --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Clears up after a gate that was killed, and hands out the state folder: its top is the gate's to write (but
        not to remove others' files from), the log and its key are the auditor's."""
        left = clean(self._state)
        if journal.load(self._state) is not None:
            raise GateError(
                "what an earlier gate moved cannot be put back: " + "; ".join(left),
                hint=f"put it right by hand, then remove {journal.folder(self._state) / 'journal.json'}",
            )
        for said in left:
            print(f"cofferdam: an earlier gate was killed: {said}", file=sys.stderr)
        self._check_policy()
        super().begin()
        journal.note_policy(self._state, self._policy)

    # --- network ------------------------------------------------------------------------------------------------------

    def prepare(self, plan: NetworkPlan) -> None:
        wrong = check(plan)
        if wrong:
            raise GateError(wrong, hint="see `interface`, `vlan` and `attach` of the zones in the policy reference")
        if not plan.namespaces:
            raise GateError(
                "the policy asks for no namespaces, and this gate runs in them",
                hint="the separation changes only when the gate is started anew: `cofferdam down`, then `up`",
            )
        self._hold(plan.hosted)
        try:
            if self._plan is None:
                self._make(plan)
            else:
                self._change(self._plan, plan)
        except BaseException:
            if self._plan is not None:
                with contextlib.suppress(CofferdamError):
                    self._hold(self._plan.hosted)
            raise
        self._plan = plan
        self._folders.clear()

    def _make(self, plan: NetworkPlan) -> None:
        log, links = self._intend(plan)
        journal.save(self._state, log)
        self._journal = log
        try:
            for entry in log.namespaces:
                entry.inode = inside(None, netns.make_namespace, entry.name)
                journal.save(self._state, log)
            for side, entry in zip(plan.sides, log.namespaces, strict=True):
                fd = netns.open_namespace(entry.name, entry.inode)
                if fd is None:
                    raise GateError(f"the network namespace {entry.name} went away while it was being set up")
                self._sides[side.space] = fd
                self._furnish(side, fd, links, log)
        except BaseException:
            self._undo_network()
            raise

    def _intend(self, plan: NetworkPlan) -> tuple[journal.Journal, dict[str, Link]]:
        """What `_make` is going to do, and the links by the names that they will have."""
        names = {side.space: namespace_name(plan.site, side.space, tag(self._state)) for side in plan.sides}
        for name in names.values():
            if (netns.NAMED / name).exists():
                raise GateError(
                    f"there is a network namespace {name}, and this gate has not made it",
                    hint=f"another gate of the site may run here; if none does: `ip netns del {name}`",
                )
        log = journal.Journal(
            boot=journal.boot_id(), host=os.fstat(self._home).st_ino,
            namespaces=[journal.Namespace(name) for name in names.values()], moved=[], made=[],
        )  # fmt: skip
        links: dict[str, Link] = {}
        for side in plan.sides:
            for link in side.links:
                seen = inside(None, netns.look_at, link.interface, names[side.space])
                if link.kind == "move":
                    name = link.interface
                    moved = msgspec.convert(seen, journal.Moved)
                    if name not in self._take:
                        _refuse_lifeline(moved)
                    log.moved.append(moved)
                else:
                    name = f"cd{secrets.token_hex(4)}{'v' if link.kind == 'vlan' else 'm'}"
                    log.made.append(journal.Made(name, names[side.space]))
                links[name] = link
                self._interfaces[link.zone] = name
            if side.tunnel is not None:
                self._tunnel = f"cd{secrets.token_hex(4)}w"
                log.made.append(journal.Made(self._tunnel, names[side.space]))
        return log, links

    def _furnish(self, side: SidePlan, fd: int, links: dict[str, Link], log: journal.Journal) -> None:
        """Fills one namespace. Rules stand before an interface comes up."""
        self._shortfalls += inside(fd, netns.set_switches, side.has_ipv6, self._pinging(side))
        here = {self._interfaces[link.zone]: link for link in side.links}
        for name, link in here.items():
            if link.kind == "vlan":
                inside(None, netns.make_vlan, name, link.interface, link.vlan)
            elif link.kind == "macvlan":
                inside(None, netns.make_macvlan, name, link.interface, f"{self._state} {link.zone}")
            inside(None, netns.move, name, fd)
        self._apply(side, fd)
        inside(fd, netns.raise_loopback)
        held = {moved.name: moved for moved in log.moved}
        for name, link in here.items():
            routes = [(route.network, route.via) for route in side.routes if route.zone == link.zone]
            inside(fd, netns.configure, name, self._addresses(side, name, link, held), routes, side.strand is not None)
            if side.strand is not None and side.strand.way == "out":
                inside(fd, netns.set_neighbour, name, side.strand.peer, side.strand.station)
            if not link.addresses and name in held:
                inside(fd, netns.restore_routes, msgspec.to_builtins(held[name]), side.has_ipv6)
        self._set_overlay(side, fd, log)

    @staticmethod
    def _addresses(side: SidePlan, name: str, link: Link, held: dict[str, journal.Moved]) -> list[str]:
        """The addresses that the policy gives, else those that the interface had, as far as the side has their IP
        version."""
        if link.addresses or name not in held:
            return list(link.addresses)
        texts = [address.address for address in held[name].addresses]
        return [text for text in texts if side.has_ipv6 or ":" not in text]

    def _keep_ipv6(self, side: SidePlan, fd: int, log: journal.Journal) -> None:
        """The side has IPv6 from now on: interfaces that keep their own addresses get those of IPv6 as well, and the
        routes."""
        held = {moved.name: moved for moved in log.moved}
        for link in side.links:
            name = self._interfaces[link.zone]
            if not link.addresses and name in held:
                inside(fd, netns.configure, name, self._addresses(side, name, link, held), [])
                inside(fd, netns.restore_routes, msgspec.to_builtins(held[name]), side.has_ipv6)

    def _set_overlay(self, side: SidePlan, fd: int, log: journal.Journal) -> None:
        held = {moved.name: moved for moved in log.moved}
        links = {
            name: self._addresses(side, name, link, held)
            for link in side.links
            for name in (self._interfaces[link.zone],)
        }
        own = {text.split("/")[0] for texts in links.values() for text in texts}
        inside(fd, netns.set_overlay, [address for address in side.overlay if address not in own], links)

    def _apply(self, side: SidePlan, fd: int) -> None:
        interfaces = {link.zone: self._interfaces[link.zone] for link in side.links}
        tunnel = self._tunnel if side.tunnel is not None else ""
        users = {there.who: self.user(there.who) for there in side.towards}
        if side.strand is not None:
            users[side.strand.who] = self.user(side.strand.who)
        rules = ruleset(side, interfaces, users, egress=self._egress, tunnel=tunnel)
        counted: dict[str, int] = {}
        knocked: tuple[Knocking, ...] = ()
        with contextlib.suppress(GateError):
            counted = self._counted(side)  # a new ruleset counts from 0
        with contextlib.suppress(GateError, OSError):
            knocked = self._seen_on(side.space).knocking()
        said = inside(fd, firewall.apply, self._nft, rules)
        if said and self._egress:
            rules = ruleset(side, interfaces, users, egress=False, tunnel=tunnel)
            without = inside(fd, firewall.apply, self._nft, rules)
            if not without:  # a kernel before 5.16
                self._egress, said = False, ""
        if said:
            raise GateError(f"the firewall of side {side.space} cannot be put in force: {said}")
        before = self._dropped.setdefault(side.space, {})
        for name, packets in counted.items():
            before[name] = before.get(name, 0) + packets
        if knocked:
            self._seen_on(side.space).keep(knocked, lambda one: lets_in(side, one.source, one.address, one.port))

    def _pinging(self, side: SidePlan) -> list[int]:
        return [self.group(ping.who) for ping in side.pings]

    def _counted(self, side: SidePlan) -> dict[str, int]:
        """What the side's present rules have dropped."""
        if side.space not in self._sides:
            return {}
        if side.space not in self._counters:
            with netns.entered(self._sides[side.space], self._home):
                self._counters[side.space] = Counters()
        return self._counters[side.space].packets(name for name in counter_names(side) if name.startswith(DROPPED))

    def dropped(self, serial: int) -> DroppedState:
        sides = self._plan.sides if self._plan is not None else ()
        counters = tuple(
            DroppedCounter(side.space, name, packets + self._dropped.get(side.space, {}).get(name, 0))
            for side in sides
            for name, packets in self._counted(side).items()
        )
        counters += super().dropped(serial).counters
        knocks: list[Knock] = []
        wires: list[Wired] = []
        for side in sides:
            seen = self._seen_on(side.space)
            knocks += [Knock(side.space, *one) for one in seen.knocking()[:MOST_KNOCKS]]
            there = {wire.name: wire for wire in seen.wires()}
            for link in side.links:
                name = self._interfaces[link.zone]
                wire = there.get(name)
                found = (wire.up, wire.carrier, wire.addresses) if wire is not None else (False, False, 0)
                wires.append(Wired(link.zone, link.interface, *found))
        return DroppedState(serial, counters, tuple(knocks), tuple(wires))

    def _seen_on(self, space: str) -> Seen:
        if space not in self._seen:
            with netns.entered(self._sides[space], self._home):
                self._seen[space] = Seen()
        return self._seen[space]

    def _change(self, old: NetworkPlan, new: NetworkPlan) -> None:
        """Other rules and overlay addresses, at once; sessions that both plans allow do not notice."""
        log = self._journal
        if [side.space for side in old.sides] != [side.space for side in new.sides]:
            raise GateError(
                "the new policy needs other network namespaces, for zones with the same addresses",
                hint="these change only when the gate is started anew: `cofferdam down`, then `up`",
            )
        for before, after in zip(old.sides, new.sides, strict=True):
            fixed = [(one.links, one.routes, one.tunnel, one.strand) for one in (before, after)]
            if fixed[0] != fixed[1] or log is None:
                raise GateError(
                    f"the new policy gives side {after.side} other interfaces, addresses, routes or another tunnel",
                    hint="these change only when the gate is started anew: `cofferdam down`, then `up`",
                )
        done: list[SidePlan] = []
        try:
            for before, after in zip(old.sides, new.sides, strict=True):
                done.append(before)
                if log is not None:
                    inside(self._sides[after.space], netns.set_switches, after.has_ipv6, self._pinging(after))
                    if after.has_ipv6 and not before.has_ipv6:
                        self._keep_ipv6(after, self._sides[after.space], log)
                    self._set_overlay(after, self._sides[after.space], log)
                    self._apply(after, self._sides[after.space])
        except CofferdamError:
            for before in done:
                with contextlib.suppress(CofferdamError):
                    self._apply(before, self._sides[before.space])
            raise

    def undo(self) -> None:
        self._undo_network()
        journal.forget_policy(self._state)
        super().undo()

    def _undo_network(self) -> None:
        for counters in self._counters.values():
            counters.close()  # an open socket keeps its namespace alive
        for seen in self._seen.values():
            seen.close()
        self._seen.clear()
        for fd in self._sides.values():
            os.close(fd)
        self._sides.clear()
        self._counters.clear()
        self._dropped.clear()
        self._interfaces.clear()
        self._plan = self._journal = self._device = None
        for said in clean(self._state):
            print(f"cofferdam: {said}", file=sys.stderr)

    def open_listener(
        self, place: Place, address: str, port: int, *, datagrams: bool = False, way: Way = "", peer: str = ""
    ) -> socket.socket:
        """The launcher itself enters the namespace for a moment: a socket stays where it was made."""
        if self._plan is None:
            raise GateError(f"side {place.side} has no namespace yet")
        with netns.entered(self._sides[self._plan.space_of(place.side, place.zone)], self._home):
            if not way:
                # An overlay address is on no interface: what it sends to a group would go nowhere.
                return listen(address, port, datagrams=datagrams, interface=self._interfaces.get(place.zone, ""))
            # The rules let out what the part's own user sends, and know it by who has opened the socket.
            strands = (side.strand for side in self._plan.sides)
            owner = next((one.who for one in strands if one is not None and one.zone == place.zone), "")
            with kernel.opening_as(self.user(owner)) if owner else contextlib.nullcontext():
                return strand(address, port, peer, way)

    def wires(self, place: Place) -> tuple[Wire, ...]:
        if self._plan is None:
            raise GateError(f"side {place.side} has no namespace yet")
        space = self._plan.space_of(place.side, place.zone)
        side = next(side for side in self._plan.sides if side.space == space)
        names = list(dict.fromkeys(self._interfaces[link.zone] for link in side.links))
        looks = inside(self._sides[space], netns.look_at_wires, names)
        wires: list[Wire] = []
        try:
            with netns.entered(self._sides[space], self._home):
                for name, number, station, own, routers in looks:
                    sock = netns.packet_socket(name)
                    wires.append(Wire(name, number, station, tuple(own), tuple(routers), sock))
        except OSError as error:
            for wire in wires:
                wire.sock.close()
            why = "CAP_NET_RAW is missing" if error.errno == errno.EPERM else error.strerror
            raise GateError(f"no packet socket on the interfaces of side {space}: {why}") from None
        return tuple(wires)

    def tunnel(self) -> TunnelDevice:
        wanted = self._plan.side("it").tunnel if self._plan is not None else None
        if wanted is None:
            raise GateError("the policy has no `overlay: wireguard:`", hint="docs/overlay.md says how to write it")
        if self._device is None:
            self._device = TunnelDevice(
                self._tunnel, wanted.port, wanted.networks, self._sides["it"], self._home,
                journal.folder(self._state) / "root", self.user(TUNNEL),
            )  # fmt: skip
        return self._device

    # --- processes ----------------------------------------------------------------------------------------------------

    def space(self, place: Place) -> str:
        return self._plan.space_of(place.side, place.zone) if self._plan is not None else place.side

    def strand_of(self, space: str) -> str:
        sides = self._plan.sides if self._plan is not None else ()
        return next((side.strand.who for side in sides if side.space == space and side.strand is not None), "")

    def _take_place(self, berth: Berth) -> None:
        if berth.profile.stands in ("outer", "inner"):
            if berth.place is None:
                raise OSError(errno.EINVAL, "a part without a place")
            self._enter_side(berth.place)

    def _enter_side(self, place: Place) -> None:
        log, plan = self._journal, self._plan
        entry = None
        if log is not None and plan is not None:
            spaces = [side.space for side in plan.sides]
            entry = log.namespaces[spaces.index(plan.space_of(place.side, place.zone))]
        fd = netns.open_namespace(entry.name, entry.inode) if entry is not None else None
        if fd is None:
            raise OSError(errno.ENOENT, f"the network namespace of side {place.side} is not there")
        kernel.setns(fd, kernel.CLONE_NEWNET)
        os.close(fd)

    # --- what is in force ---------------------------------------------------------------------------------------------

    def describe(self) -> tuple[Fact, ...]:
        names = [entry.name for entry in self._journal.namespaces] if self._journal is not None else []
        zones = ", ".join(f"{zone} by {name}" for zone, name in self._interfaces.items())
        users = self._users
        facts: list[Fact] = [
            ("network namespaces", bool(names), f"{' and '.join(names)}: {zones}; management stays with the host"),
            ("firewall", bool(names), "each side drops by default; let through is what the policy needs"),
            ("frame filter", self._egress, "IP and ARP only, in and out" if self._egress else
             "IP and ARP only, and for outgoing frames nothing: this kernel has no egress hook"),
            ("mount namespaces", True, "a half sees Python and our code, read-only, and nothing else"),
            ("process namespaces", True, "a half sees no other process"),
            ("own users", True, f"user ids {users.first} to {users.last}, without capabilities"),
            ("no new privileges", True, "no process of the gate can gain a privilege by starting a program"),
            ("limits", True, f"a half has at most {MEMORY_BYTES >> 20} MiB and starts no process"),
            ("ends with the launcher", True, "the kernel ends every process of the gate when the launcher ends"),
            *self._fence_facts(),
        ]  # fmt: skip
        if self._shortfalls:
            facts.append(("kernel switches", False, "; ".join(self._shortfalls)))
        return tuple(facts)


def _refuse_lifeline(moved: journal.Moved) -> None:
    """An interface that is moved is gone from the host: with the host's own way out on it, whoever starts the gate
    from afar would be cut off.

    Raises: GateError.
    """
    session = os.environ.get("SSH_CONNECTION", "").split()
    reached = session[2] if len(session) == 4 else ""
    if any(not route.network for route in moved.routes):
        why = "the host's default route leaves by it"
    elif reached and any(entry.address.partition("/")[0] == reached for entry in moved.addresses):
        why = f"this very session came in by its address {reached}"
    else:
        return
    raise GateError(
        f"{moved.name} is not taken from the host: {why}",
        hint="give the zone an interface of its own, or `attach: macvlan` (the host keeps the interface); "
        f"where the host can do without it, from its console: `cofferdam up --take {moved.name}`",
    )
