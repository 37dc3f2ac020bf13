"""One side's firewall as nftables JSON (libnftables-json(5)), worked out from its plan. PURE.

Every hook drops by default. What is let through, and nothing else:

    ingress, egress  frames of IPv4, ARP and, if the side has any, IPv6; so no VLAN tags, no industrial Ethernet
    input            TCP from the principals of a conduit to where its assets are published; answers of devices;
                     ICMP errors about our own packets; neighbour discovery (IPv6)
    output           answers to those clients; TCP to the devices of a conduit, opened by its own part; neighbour
                     discovery (IPv6)
    both             an echo that a part may ask a device for, and the device's answer
    forward          nothing

The rules know no connections (no conntrack), so no flood fills a table of them. What may only answer is held to that
by TCP itself: packets that open a connection (SYN without ACK) are let through in one direction only.

What opens a connection to a device must come from the part that the road is for, told by its user: parts of other crews
stand in the same namespace. Later segments are not asked, since the kernel sends some of them by itself.

One thing they do count: how many connections a client opens in a second, so that a flood of them ends here and not in
the queue that others wait in. A client is a hardware address with an IP address, so that packets with a made-up sender
are not counted against the host whose address they bear. In a tunnel, whose peers are authenticated, the IP address is
enough. Only addresses of principals are counted.

Each conduit has one counter for the rules that its clients come by and one for those by which devices are reached.
An address that two conduits share is counted for the first of them, in the order of their names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cofferdam.enforce.plans.records import SidePlan, Strand

TABLE = "cofferdam"
"""The name of our tables, in the families `inet` and `netdev`."""
STRAND = "strand"
"""The counter of what goes over a strand."""
EARLY = -500
"""Priority of the frame filters: before everything else in the hook."""
BURST = 4
"""How many seconds' worth of connections a client may open at once."""
COUNTED_SECONDS, MOST_COUNTED = 60, 65535
"""How long a client's count is kept after its last attempt, and how many clients of a kind have one."""
STRANGERS = {"ip": "strangers-ip", "ip6": "strangers-ip6"}
"""Sets of who asked for a connection and was dropped as nobody's: source, destination, port, and how often."""
STRANGER_SECONDS, MOST_STRANGERS = 600, 64
"""How long one is remembered after it was last dropped, and how many there may be of each IP version."""
Json = dict[str, Any]


def ruleset(
    side: SidePlan,
    interfaces: Mapping[str, str],
    users: Mapping[str, int],
    *,
    egress: bool = True,
    tunnel: str = "",
) -> Json:
    """The transaction that puts a side's rules in the place of earlier ones. `users`: of each part that reaches
    something, by `Reach.who`.

    `interfaces` gives for each zone the name that its interface has in the namespace. `egress`: whether the kernel has
    the egress hook (from 5.16 on). `tunnel` is the name of the side's WireGuard device, by which overlay peers come;
    it carries IP packets only, so it needs no frame filter.
    """
    commands: list[Json] = [{"metainfo": {"json_schema_version": 1}}]
    for family in ("inet", "netdev"):
        table = {"table": {"family": family, "name": TABLE}}
        commands += [{"add": table}, {"delete": table}, {"add": table}]
    commands += _counters(side)
    if side.strand is not None:
        return {"nftables": [*commands, *_one_way(side.strand, interfaces[side.strand.zone], users, egress)]}
    commands += _packets(side, interfaces, users, tunnel)
    for name in sorted(set(interfaces.values())):
        commands += _frames("ingress", name, side.has_ipv6)
        if egress:
            commands += _frames("egress", name, side.has_ipv6)
    return {"nftables": commands}


def counter_names(side: SidePlan) -> tuple[str, ...]:
    """The named counters of a side's rules."""
    clients = sorted({f"clients-{listen.conduit}" for listen in side.listens})
    devices = sorted({f"devices-{there.conduit}" for there in side.towards})
    limited = ("dropped-openings",) if side.openings else ()
    if side.strand is not None:
        limited = (STRAND,)
    return (*clients, *devices, *limited, "dropped-input", "dropped-output", "dropped-forward")


def lets_in(side: SidePlan, source: str, address: str, port: int) -> bool:
    """Whether a client may open a TCP connection there, by an interface."""
    client = ipaddress.ip_address(source)
    return any(
        not (listen.datagrams or listen.tunnel)
        and port == listen.port
        and address in listen.addresses
        and any(client in ipaddress.ip_network(network, strict=False) for network in listen.sources)
        for listen in side.listens
    )


def _one_way(strand: Strand, interface: str, users: Mapping[str, int], egress: bool) -> list[Json]:
    """The walls of a strand's end. What may pass is UDP between the two addresses, one way. On the sending side nothing
    comes in, at the interface and again at the packets; on the receiving side nothing goes out, packet sockets and the
    kernel's own chatter included."""
    out = strand.way == "out"
    commands: list[Json] = []
    for hook in ("input", "output", "forward"):
        chain = {"family": "inet", "table": TABLE, "name": hook, "type": "filter", "hook": hook, "prio": 0}
        commands.append({"add": {"chain": {**chain, "policy": "drop"}}})
    here, there = ("saddr", "daddr") if out else ("daddr", "saddr")
    way = [
        _meta("oifname" if out else "iifname", interface), _is("ip", here, [strand.address]),
        _is("ip", there, [strand.peer]), _port("sport", strand.port, "udp"), _port("dport", strand.port, "udp"),
        *([_meta("skuid", users[strand.who])] if out else []),
    ]  # fmt: skip
    commands.append(_rule("output" if out else "input", STRAND, way))
    for hook in ("input", "output", "forward"):
        commands.append(_rule(hook, f"dropped-{hook}", [], verdict="drop"))
    for hook, closed in (("ingress", out), ("egress", not out)):
        if hook == "egress" and not egress:
            continue
        commands += _wall(hook, interface) if closed else _frames(hook, interface, False, arp=False)
    return commands


def _wall(hook: str, interface: str) -> list[Json]:
    """No frame passes, of whatever kind. They are counted."""
    name = f"{hook}-{interface}"
    chain = {"family": "netdev", "table": TABLE, "name": name, "type": "filter", "hook": hook, "dev": interface}
    drop = {"family": "netdev", "table": TABLE, "chain": name, "expr": [
        {"counter": {"packets": 0, "bytes": 0}}, {"drop": None},
    ]}  # fmt: skip
    return [{"add": {"chain": {**chain, "prio": EARLY, "policy": "drop"}}}, {"add": {"rule": drop}}]


def _counters(side: SidePlan) -> list[Json]:
    return [{"add": {"counter": {"family": "inet", "table": TABLE, "name": name}}} for name in counter_names(side)]


def _packets(side: SidePlan, interfaces: Mapping[str, str], users: Mapping[str, int], tunnel: str) -> list[Json]:
    commands: list[Json] = []
    for hook in ("input", "output", "forward"):
        chain = {"family": "inet", "table": TABLE, "name": hook, "type": "filter", "hook": hook, "prio": 0}
        commands.append({"add": {"chain": {**chain, "policy": "drop"}}})
    commands += _openings(side, interfaces, tunnel)
    for listen in side.listens:
        interface, counter = tunnel if listen.tunnel else interfaces[listen.zone], f"clients-{listen.conduit}"
        if not interface:
            continue  # nobody comes by a tunnel that is not there
        protocol = "udp" if listen.datagrams else "tcp"
        for version, sources, addresses in _by_version(listen.sources, listen.addresses):
            commands.append(_rule("input", counter, [
                _meta("iifname", interface), _is(version, "saddr", sources), _is(version, "daddr", addresses),
                _port("dport", listen.port, protocol),
            ]))  # fmt: skip
            commands.append(_rule("output", counter, [
                _meta("oifname", interface), _is(version, "daddr", sources), _is(version, "saddr", addresses),
                _port("sport", listen.port, protocol), *([] if listen.datagrams else [_NOT_OPENING]),
            ]))  # fmt: skip
        for version, groups, addresses in _by_version(listen.groups, listen.addresses):
            commands.append(_rule("output", counter, [
                _meta("oifname", interface), _is(version, "daddr", groups), _is(version, "saddr", addresses),
                _port("sport", listen.port, "udp"), _port("dport", listen.port, "udp"),
            ]))  # fmt: skip
    for reach in side.reaches:
        interface, counter = interfaces[reach.zone], f"devices-{reach.conduit}"
        protocol = "udp" if reach.datagrams else "tcp"
        for version, addresses, _ in _by_version(reach.addresses, reach.addresses):
            way = [_meta("oifname", interface), _is(version, "daddr", addresses),
                   _port("dport", reach.port, protocol)]  # fmt: skip
            opening = [] if reach.datagrams else [_OPENING]
            if not reach.datagrams:
                commands.append(_rule("output", counter, [*way, _NOT_OPENING]))
            commands.append(_rule("output", counter, [*way, *opening, _meta("skuid", users[reach.who])]))
            commands.append(_rule("input", counter, [
                _meta("iifname", interface), _is(version, "saddr", addresses), _port("sport", reach.port, protocol),
                *([] if reach.datagrams else [_NOT_OPENING]),
            ]))  # fmt: skip
    for ping in side.pings:
        interface, counter = interfaces[ping.zone], f"devices-{ping.conduit}"
        for version, addresses, _ in _by_version(ping.addresses, ping.addresses):
            kind = _payload("icmp" if version == "ip" else "icmpv6", "type")
            commands.append(_rule("output", counter, [
                _meta("oifname", interface), _is(version, "daddr", addresses), _match(kind, "echo-request"),
                _meta("skuid", users[ping.who]),
            ]))  # fmt: skip
            commands.append(_rule("input", counter, [
                _meta("iifname", interface), _is(version, "saddr", addresses), _match(kind, "echo-reply"),
            ]))  # fmt: skip
    # Errors about packets of ours: without them a small path MTU would be a silence. The kernel drops those that
    # quote no connection it has.
    commands.append(_rule("input", "", [_match(_payload("icmp", "type"), "destination-unreachable")]))
    if side.has_ipv6:
        errors = {"set": ["destination-unreachable", "packet-too-big"]}
        commands.append(_rule("input", "", [_match(_payload("icmpv6", "type"), errors)]))
        neighbours = {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]}
        for hook in ("input", "output"):
            commands.append(_rule(hook, "", [
                _match(_payload("icmpv6", "type"), neighbours), _match(_payload("ip6", "hoplimit"), 255),
            ]))  # fmt: skip
        # A switch that snoops passes neighbour discovery only to ports that joined its multicast group.
        commands.append(_rule("output", "", [_match(_payload("icmpv6", "type"), "mld2-listener-report")]))
    commands += _strangers(side)
    for hook in ("input", "output", "forward"):
        commands.append(_rule(hook, f"dropped-{hook}", [], verdict="drop"))
    return commands


def _strangers(side: SidePlan) -> list[Json]:
    """Who asks for a connection and has come so far belongs to no principal: it is written down, for an operator who
    looks for a client that gets no answer. Nothing is let through by it."""
    commands: list[Json] = []
    for version, name in STRANGERS.items():
        if version == "ip6" and not side.has_ipv6:
            continue
        kind = "ipv4_addr" if version == "ip" else "ipv6_addr"
        commands.append({"add": {"set": {
            "family": "inet", "table": TABLE, "name": name, "type": [kind, kind, "inet_service"],
            "size": MOST_STRANGERS, "flags": ["timeout"], "timeout": STRANGER_SECONDS,
        }}})  # fmt: skip
        key = [_payload(version, "saddr"), _payload(version, "daddr"), _payload("tcp", "dport")]
        note = {"set": {
            "op": "update", "elem": {"concat": key}, "set": f"@{name}", "stmt": [{"counter": None}],
        }}  # fmt: skip
        commands.append({"add": {"rule": {
            "family": "inet", "table": TABLE, "chain": "input", "expr": [_OPENING, note],
        }}})  # fmt: skip
    return commands


def _openings(side: SidePlan, interfaces: Mapping[str, str], tunnel: str) -> list[Json]:
    """Sets that count, and rules that drop what is too much, for each way by which clients come."""
    if not side.openings:
        return []
    commands: list[Json] = []
    limit = {"limit": {"rate": side.openings, "burst": BURST * side.openings, "per": "second", "inv": True}}
    for in_tunnel in (False, True):
        listens = [listen for listen in side.listens if listen.tunnel == in_tunnel and not listen.datagrams]
        ways = {tunnel} if in_tunnel else {interfaces[listen.zone] for listen in listens}
        sources = {source for listen in listens for source in listen.sources}
        for version, mine, _ in _by_version(sorted(sources), sorted(sources)):
            if not all(ways):
                continue  # nobody comes by a tunnel that is not there
            name = f"{'tunnel' if in_tunnel else 'wire'}-{version}"
            station = [] if in_tunnel else [_payload("ether", "saddr")]
            kinds = [*([] if in_tunnel else ["ether_addr"]), "ipv4_addr" if version == "ip" else "ipv6_addr"]
            key = [*station, _payload(version, "saddr")]
            commands.append({"add": {"set": {
                "family": "inet", "table": TABLE, "name": name, "type": kinds if len(kinds) > 1 else kinds[0],
                "size": MOST_COUNTED, "flags": ["timeout"], "timeout": COUNTED_SECONDS,
            }}})  # fmt: skip
            count = {"set": {
                "op": "update", "elem": {"concat": key} if len(key) > 1 else key[0], "set": f"@{name}", "stmt": [limit],
            }}  # fmt: skip
            commands.append(_rule("input", "dropped-openings", [
                _match({"meta": {"key": "iifname"}}, sorted(ways)[0] if len(ways) == 1 else {"set": sorted(ways)}),
                _is(version, "saddr", _collapsed(mine)), _OPENING, count,
            ], verdict="drop"))  # fmt: skip
    return commands


def _collapsed(texts: Iterable[str]) -> list[str]:
    """Networks without overlap, of one version: a set may not name an address twice."""
    networks = [ipaddress.ip_network(text) for text in texts]
    return [str(network) for network in ipaddress.collapse_addresses(networks)]  # type: ignore[type-var]


def _frames(hook: str, interface: str, ipv6: bool, *, arp: bool = True) -> list[Json]:
    name = f"{hook}-{interface}"
    chain = {"family": "netdev", "table": TABLE, "name": name, "type": "filter", "hook": hook, "dev": interface}
    kinds: list[str] = ["ip", *(["arp"] if arp else []), *(["ip6"] if ipv6 else [])]
    accept = {"family": "netdev", "table": TABLE, "chain": name, "expr": [
        _match({"meta": {"key": "protocol"}}, {"set": kinds} if len(kinds) > 1 else kinds[0]), {"accept": None},
    ]}  # fmt: skip
    drop = {"family": "netdev", "table": TABLE, "chain": name, "expr": [
        {"counter": {"packets": 0, "bytes": 0}}, {"drop": None},
    ]}  # fmt: skip
    return [
        {"add": {"chain": {**chain, "prio": EARLY, "policy": "drop"}}},
        {"add": {"rule": accept}},
        {"add": {"rule": drop}},
    ]


def _rule(chain: str, counter: str, matches: Sequence[Json], *, verdict: str = "accept") -> Json:
    counted: list[Json] = [{"counter": counter}] if counter else []
    expr = [*matches, *counted, {verdict: None}]
    return {"add": {"rule": {"family": "inet", "table": TABLE, "chain": chain, "expr": expr}}}


def _by_version(one: Iterable[str], other: Iterable[str]) -> Iterable[tuple[str, list[str], list[str]]]:
    """Both lists, split by IP version; versions that one of them lacks are left out."""
    one, other = list(one), list(other)
    for version, is_it in (("ip", lambda text: ":" not in text), ("ip6", lambda text: ":" in text)):
        left, right = list(filter(is_it, one)), list(filter(is_it, other))
        if left and right:
            yield version, left, right


def _match(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _meta(key: str, value: str | int) -> Json:
    return _match({"meta": {"key": key}}, value)


def _port(field: str, port: int, protocol: str = "tcp") -> Json:
    return _match(_payload(protocol, field), port)


def _is(version: str, field: str, networks: Sequence[str]) -> Json:
    values = [_value(text) for text in networks]
    return _match(_payload(version, field), values[0] if len(values) == 1 else {"set": values})


def _value(text: str) -> Any:
    network = ipaddress.ip_network(text)
    address = str(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return address
    return {"prefix": {"addr": address, "len": network.prefixlen}}


_FLAGS: Json = {"&": [_payload("tcp", "flags"), ["syn", "ack"]]}
_OPENING, _NOT_OPENING = _match(_FLAGS, "syn"), _match(_FLAGS, "syn", op="!=")
"""Any TCP packet but one that asks for a new connection."""
