"""What the firewall of a side must mean, as questions to the solver, worked out from the plan and not from the rules.
PURE.

For each side: nothing is forwarded; in comes what opens a connection to a published address, answers of devices, and
errors and neighbour discovery, by the interface that the plan names; out goes the reverse; and the rules in force mean
what the policy's rules mean, path by path.

Not here: the answers (solver), reading the rules in force (enforce.prove).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from cofferdam.enforce.plans.records import Ping, SidePlan, Strand
from cofferdam.proof.rules import fields
from cofferdam.proof.rules.fields import Among, Conj, Named
from cofferdam.proof.rules.listing import Ruleset
from cofferdam.proof.rules.solver import PATHS, Question

LIVE, PLAN = "live", "plan"
_ACK, _SYN = fields.FLAGS["ack"], fields.FLAGS["syn"]
_TCP, _UDP = Among("l4proto", ((6, 6),)), Among("l4proto", ((17, 17),))
_WHOLE = Among("fragment", ((0, 0),))
_ANSWERING = Among("tcp flags", fields.union((f, f) for f in range(256) if f & (_SYN | _ACK) != _SYN))
"""Any segment but one that asks for a new connection."""
_OPENING = Among("tcp flags", fields.union((f, f) for f in range(256) if f & (_SYN | _ACK) == _SYN))


def crossing(it: Iterable[str], ot: Iterable[str]) -> tuple[Question, ...]:
    """For a namespace that holds interfaces of both sides."""
    there, here = tuple(it), tuple(ot)
    return (
        Question("nothing is forwarded from IT to OT", "forward", LIVE,
                 (Named("iif", there, True), Named("oif", here, True))),
        Question("nothing is forwarded from OT to IT", "forward", LIVE,
                 (Named("iif", here, True), Named("oif", there, True))),
    )  # fmt: skip


def confinement(
    side: SidePlan, interfaces: Mapping[str, str], users: Mapping[str, int], tunnel: str = ""
) -> tuple[Question, ...]:
    """What must have no answer in the rules in force of a side. `interfaces`: zone to name in the namespace; `users`:
    of each part that reaches something; `tunnel`: the name of the device by which overlay peers come, or ""."""
    return (
        Question("nothing is forwarded", "forward", LIVE),
        Question("in comes only what the policy declares", "input", LIVE, (), _inputs(side, interfaces, tunnel)),
        Question(
            "out goes only what the policy declares", "output", LIVE, (), _outputs(side, interfaces, users, tunnel)
        ),
    )


def drift(plan: Ruleset, live: Ruleset) -> tuple[Question, ...]:
    """What must have no answer if the rules in force mean what the policy's rules mean."""
    asked = [Question(f"as in the policy: {path}", path, LIVE, differs=PLAN) for path in PATHS]
    frames = sorted({base.name for base in (*plan.bases, *live.bases) if base.name[0] == "netdev"})
    return (*asked, *(Question(f"as in the policy: frames, {name[2]}", name, LIVE, differs=PLAN) for name in frames))


def _inputs(side: SidePlan, interfaces: Mapping[str, str], tunnel: str) -> tuple[Conj, ...]:
    if side.strand is not None:
        return (_strand(side.strand, interfaces, "iif"),) if side.strand.way == "in" else ()
    found: list[Conj] = []
    for listen in side.listens:
        way = _by("iif", tunnel if listen.tunnel else interfaces[listen.zone])
        for source, destination in _versions(listen.sources, listen.addresses, "saddr", "daddr"):
            found.append((way, *source, *destination, *_port("dport", listen.port, listen.datagrams)))
    for reach in side.reaches:
        answering = () if reach.datagrams else (_ANSWERING,)
        for source, _ in _versions(reach.addresses, reach.addresses, "saddr", "saddr"):
            port = _port("sport", reach.port, reach.datagrams)
            found.append((_by("iif", interfaces[reach.zone]), *source, *port, *answering))
    for ping in side.pings:
        found += [(_by("iif", interfaces[ping.zone]), *echo) for echo in _echoes(ping, "saddr", {4: 0, 6: 129})]
    found += [_icmp("icmp", [3]), _icmp("icmpv6", [1, 2]), *_neighbours()]
    return tuple(found)


def _outputs(side: SidePlan, interfaces: Mapping[str, str], users: Mapping[str, int], tunnel: str) -> tuple[Conj, ...]:
    if side.strand is not None:
        user = users.get(side.strand.who)
        if side.strand.way == "in" or user is None:
            return ()
        return ((*_strand(side.strand, interfaces, "oif"), Among("skuid", ((user, user),))),)
    found: list[Conj] = []
    for listen in side.listens:
        way = _by("oif", tunnel if listen.tunnel else interfaces[listen.zone])
        answering = () if listen.datagrams else (_ANSWERING,)
        for source, destination in _versions(listen.addresses, listen.sources, "saddr", "daddr"):
            found.append((way, *source, *destination, *_port("sport", listen.port, listen.datagrams), *answering))
        for source, destination in _versions(listen.addresses, listen.groups, "saddr", "daddr"):
            port = Among("dport", ((listen.port, listen.port),))
            found.append((way, *source, *destination, *_port("sport", listen.port, True), port))
    for reach in side.reaches:
        for destination, _ in _versions(reach.addresses, reach.addresses, "daddr", "daddr"):
            to = (_by("oif", interfaces[reach.zone]), *destination, *_port("dport", reach.port, reach.datagrams))
            own = Among("skuid", ((users[reach.who], users[reach.who]),))
            found += [(*to, own)] if reach.datagrams else [(*to, _OPENING, own), (*to, _ANSWERING)]
    for ping in side.pings:
        own = Among("skuid", ((users[ping.who], users[ping.who]),))
        found += [(_by("oif", interfaces[ping.zone]), *echo, own) for echo in _echoes(ping, "daddr", {4: 8, 6: 128})]
    found += [_icmp("icmpv6", [143]), *_neighbours()]
    return tuple(found)


def _strand(strand: Strand, interfaces: Mapping[str, str], by: str) -> Conj:
    """The one way of a strand: UDP from the sending end to the hearing one, at one port."""
    ends = (strand.address, strand.peer) if strand.way == "out" else (strand.peer, strand.address)
    (source, destination), *_ = _versions([ends[0]], [ends[1]], "saddr", "daddr")
    ports = (*_port("sport", strand.port, True), Among("dport", ((strand.port, strand.port),)))
    return (_by(by, interfaces[strand.zone]), *source, *destination, *ports)


def _by(field: str, interface: str) -> Named:
    return Named(field, (interface,), True)


def _port(field: str, port: int, datagrams: bool = False) -> Conj:
    return (_UDP if datagrams else _TCP, _WHOLE, Among(field, ((port, port),)))


def _icmp(protocol: str, types: list[int]) -> Conj:
    version, number = (fields.IPV4, 1) if protocol == "icmp" else (fields.IPV6, 58)
    return (
        Among("ethertype", ((version, version),)), Among("l4proto", ((number, number),)), _WHOLE,
        fields.one_of(f"{protocol} type", types),
    )  # fmt: skip


def _echoes(ping: Ping, field: str, types: Mapping[int, int]) -> Iterable[Conj]:
    for version, family, protocol in ((4, "ip", "icmp"), (6, "ip6", "icmpv6")):
        if addresses := _ranges(ping.addresses, version):
            yield (*_icmp(protocol, [types[version]]), Among(f"{family} {field}", addresses))


def _neighbours() -> list[Conj]:
    return [(*_icmp("icmpv6", [135, 136]), Among("ip6 hoplimit", ((255, 255),)))]


def _versions(one: Iterable[str], other: Iterable[str], first: str, second: str) -> Iterable[tuple[Conj, Conj]]:
    """Both lists as conditions on two fields, for each version of IP that both have."""
    one, other = list(one), list(other)
    for version, family, number in ((4, "ip", fields.IPV4), (6, "ip6", fields.IPV6)):
        left, right = _ranges(one, version), _ranges(other, version)
        if left and right:
            kind = Among("ethertype", ((number, number),))
            yield (kind, Among(f"{family} {first}", left)), (Among(f"{family} {second}", right),)


def _ranges(texts: Iterable[str], version: int) -> fields.Ranges:
    networks = [ipaddress.ip_network(text) for text in texts]
    return fields.union((int(net[0]), int(net[-1])) for net in networks if net.version == version)
