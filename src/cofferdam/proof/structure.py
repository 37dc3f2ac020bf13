"""Part (a): what the kernel says of the gate's namespaces, statement by statement, and part of (b): what the solver
does not see.

Not here: what processes are and hold (processes, crossings), reading it (reading), the rules' meaning (solving).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cofferdam.enforce import inside as worker
from cofferdam.enforce.overlay import tunnel
from cofferdam.enforce.plans.rules import EARLY, TABLE
from cofferdam.errors import GateError
from cofferdam.proof import crossings, held, processes, programs, reading, strangers
from cofferdam.proof.expected import Expected
from cofferdam.proof.reading import SPARE
from cofferdam.proof.rules.listing import Ruleset, Unmodelled
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Side, Subject, road

Json = dict[str, Any]
PART = "structure"
_ROADS = {"bridge", "bond", "team", "vxlan", "gre", "gretap", "ipip", "sit", "ip6tnl", "erspan", "geneve",
          "xfrm", "vti",
          "openvswitch", "batadv", "ip6gre", "vrf", "ipvlan"}  # fmt: skip
ALL_STATIONS = "ff:ff:ff:ff:ff:ff"
_HOOKS = ("input", "output", "forward")


def state(subject: Subject, out: Statements) -> None:
    """All of it. Both sides have been read."""
    for side in subject.sides.values():
        _namespace(subject, side, out)
        _interfaces(side, out)
        _switches(side, out)
        _unseen(side, out)
    _home(subject, out)
    _shared(subject, out)
    found = processes.read(subject, out)
    for side in subject.sides.values():
        _sockets(side, found, out)
    for part, facts in found.items():
        processes.state(subject, part, facts, out)
    out.say(PART, "filters: content", "assumed", "what is in the filter of a running process was not read, since that "
            "takes stopping it; it is assumed to be what a fresh copy puts on, into which the probes look")  # fmt: skip
    if any(side.plan.tunnel is not None for side in subject.sides.values()):
        _tunnel_programs(subject, out)
        _peers(subject, out)
    crossings.state(subject, found, out)
    held.state(subject, out)
    processes.others(subject, out)
    _strangers(subject, found, out)


# --- namespaces -------------------------------------------------------------------------------------------------------


def _namespace(subject: Subject, side: Side, out: Statements) -> None:
    inhabitants = reading.processes_in(side.inode)
    ours = {part.pid for part in subject.parts if part.side == side.name}
    others = [(pid, name) for pid, name in inhabitants if pid not in ours]
    wrong = [f"pid {pid} ({name})" for pid, name in others if not held.is_try(subject, side, pid)]
    out.check(
        PART, f"{side.name}: inhabitants", f"only parts of this gate are in the namespace {side.namespace}", wrong,
        [f"pid {pid} ({name})" for pid, name in inhabitants],
    )  # fmt: skip


def _tunnel_programs(subject: Subject, out: Statements) -> None:
    """wireguard-go, where it runs: it takes packets from anywhere, and stands in the host's network."""
    for pid in strangers.tunnel_programs(subject.launcher):
        facts = reading.process(pid)
        if facts is None:
            continue
        status = facts["status"]
        processes.powers(subject, "tunnel", facts, out, threads=True)
        sockets = {int(file["target"][8:-1]) for file in facts["files"] if file["target"].startswith("socket:[")}
        wrong = [f"socket {sock['inode']} of side {side.name}" for side in subject.sides.values()
                 for sock in side.reading["sockets"] if sock["inode"] and sock["inode"] in sockets]  # fmt: skip
        wrong += [] if facts["net"] == Path("/proc/self/ns/net").stat().st_ino else ["it stands in another namespace"]
        own = Path("/proc/self/ns/mnt").stat().st_ino
        wrong += ["it sees the host's files"] if facts["mnt"] == own else []
        out.check(PART, "tunnel: sockets", "the tunnel's program holds its device and sockets of the host's namespace, "
                  "and has a file tree of its own", wrong,
                  [f"pid {pid}", f"uid {status['Uid'].split()[0]}", f"{len(sockets)} sockets"])  # fmt: skip
        if not any(file["target"] == "/dev/net/tun" for file in facts["files"]):
            out.say(PART, "tunnel: device", "failed", "the tunnel's program has no device")


def _peers(subject: Subject, out: Statements) -> None:
    """Who is let in at the device itself, and with which addresses (they say which packets are taken by a key, and
    which go by it): both can be set by whoever reaches its control socket."""
    for side in subject.sides.values():
        link = next((link for link in side.reading["links"] if link["name"] == side.tunnel), None)
        if side.plan.tunnel is None or link is None:
            continue
        where = side.fd if link["kind"] == "wireguard" else None
        try:
            found: list[tuple[str, list[str]]] = worker.inside(where, tunnel.allowed, side.tunnel, link["kind"])
        except GateError as error:
            out.say(PART, f"{side.name}: peers", "failed", f"the tunnel cannot be asked who is let in: {error}")
            continue
        wrong, good = [], []
        for key, networks in found:
            name = subject.peers.get(key)
            own = {str(ipaddress.ip_network(text)) for text in subject.peer_networks.get(name or "", ())}
            if name is None:
                wrong.append(f"the key {key} is nobody's")
            elif set(networks) != own:
                wrong.append(f"{name} is let in with {', '.join(networks) or 'no address'}, and has by the policy "
                             f"{', '.join(sorted(own)) or 'none'}")  # fmt: skip
            else:
                good.append(f"{name}: {key}, {', '.join(networks)}")
        out.check(PART, f"{side.name}: peers", "the tunnel lets in the peers of the record, each with its own "
                  "addresses, and nobody else", wrong, good)  # fmt: skip


def _interfaces(side: Side, out: Statements) -> None:
    expected = {"lo", *side.interfaces.values()}
    device = {side.tunnel} - {""}  # there only while there are peers
    links = side.reading["links"]
    there = {link["name"] for link in links if link["up"] or SPARE.get(link["name"]) != link["kind"]}
    wrong = [f"{name} should not be there" for name in sorted(there - expected - device)]
    wrong += [f"{name} is missing" for name in sorted(expected - there)]
    for link in links:
        held = side.moved.get(link["name"])
        if held is not None and link["mac"] != held.mac:
            wrong.append(f"{link['name']} is another one: its address is {link['mac']}, not {held.mac}")
        if link["other"]:
            wrong.append(f"the other end of {link['name']} is in the namespace of side {link['other']}")
    shown = [
        f"{link['name']} {link['kind'] or 'device'} {'up' if link['up'] else 'down'} {link['mac']}" for link in links
    ]
    named = ", ".join(sorted(expected | device & there))
    out.check(PART, f"{side.name}: interfaces", f"the namespace has {named} and no other", wrong,
              [*shown, *side.reading["addresses"]])  # fmt: skip
    wrong = [f"{link['name']} is a {link['kind']}" for link in links if link["kind"] in _ROADS and link["up"]]
    wrong += [f"{link['name']} belongs to another interface" for link in links if link["master"]]
    out.check(PART, f"{side.name}: bridges", "no bridge, bond or tunnel joins its interfaces to anything", wrong)
    plan = Expected(side.plan, side.interfaces, side.tunnel, side.moved)
    out.check(PART, f"{side.name}: addresses", "its interfaces have the addresses of the policy and no others",
              plan.addresses(side.reading["addresses"]), side.reading["addresses"])  # fmt: skip
    out.check(PART, f"{side.name}: routes", "every route is the policy's or follows from an address",
              plan.routes(side.reading["ways"]), side.reading["routes"])  # fmt: skip


def _switches(side: Side, out: Statements) -> None:
    switches = side.reading["switches"]
    on = [f"net/{name} = {value}" for name, value in switches.items() if value != "0"]
    families = sorted({name.split("/")[0] for name in switches})
    out.check(
        PART, f"{side.name}: forwarding", f"forwarding and proxying are off on every interface ({', '.join(families)})",
        on, [f"{len(switches)} switches read, all 0"],
    )  # fmt: skip
    out.check(
        PART, f"{side.name}: switches",
        "redirects, source routes, router advertisements and foreign sources are taken from nobody", side.unset,
        ["every switch is as the launcher set it"],
    )  # fmt: skip


def _unseen(side: Side, out: Statements) -> None:
    """Ways past the rules that the solver reasons on."""
    read = side.reading
    out.check(PART, f"{side.name}: policy routing", "the kernel's routing rules, and no others", read["rules"])
    out.check(
        PART,
        f"{side.name}: traffic control",
        "no filter, program or redirection of traffic control (tc)",
        read["qdiscs"],
    )
    _neighbours(side, out)
    out.check(PART, f"{side.name}: programs", "no BPF program takes packets of an interface (tcx) or of the namespace",
              read["programs"])  # fmt: skip
    out.check(PART, f"{side.name}: IPsec", "no packet is wrapped or unwrapped (xfrm)", read["transforms"])
    out.check(PART, f"{side.name}: XDP", "no XDP program on an interface",
              [f"{link['name']} has one" for link in read["links"] if link["xdp"]])  # fmt: skip
    out.check(PART, f"{side.name}: other filters", "no table of the old packet filter, no IPVS service", read["legacy"])
    try:
        ruleset = Ruleset.read(side.rules)
    except Unmodelled as error:
        out.say(PART, f"{side.name}: statements of the rules", "failed", str(error))
        return
    out.check(PART, f"{side.name}: flowtables", "no flowtable takes packets past the rules", ruleset.flowtables)
    hooks = ("ingress", "egress") if any(base.hook == "egress" for base in ruleset.bases) else ("ingress",)
    expected = {(hook, name, "drop") for hook in hooks for name in side.interfaces.values()}
    there = {(hook, device, policy) for hook, device, policy in side.frame_filters}
    wrong = [f"{' '.join(entry)} is missing" for entry in sorted(expected - there)]
    wrong += [f"{' '.join(entry)} should not be there" for entry in sorted(there - expected)]
    out.check(PART, f"{side.name}: frame filters", f"every interface has its own filter of frames ({', '.join(hooks)})",
              wrong, [" ".join(entry) for entry in sorted(there)])  # fmt: skip
    ours = {("inet", TABLE, hook): (hook, 0) for hook in _HOOKS}
    ours |= {("netdev", TABLE, f"{hook}-{name}"): (hook, EARLY) for hook in hooks for name in side.interfaces.values()}
    others = [
        f"{' '.join(base.name)} (hook {base.hook}, priority {base.priority})"
        for base in ruleset.bases
        if ours.get(base.name) != (base.hook, base.priority)
    ]
    out.check(PART, f"{side.name}: base chains", "the kernel calls no chain that is not the gate's", others,
              [f"{' '.join(base.name)}: {base.hook} {base.priority}" for base in ruleset.bases])  # fmt: skip
    out.check(PART, f"{side.name}: connections", "no rule asks what connection a packet belongs to, so what is "
              "shown for packets of no connection holds for all", sorted(_asking(side.rules)))  # fmt: skip
    out.check(PART, f"{side.name}: translation", "no address is translated, no packet goes to a program (NAT, tproxy)",
              [], [f"{ruleset.rules} rules, none of them with such a statement"])  # fmt: skip


def _neighbours(side: Side, out: Statements) -> None:
    set_by_hand, strand = list(side.reading["neighbours"]), side.plan.strand
    if strand is None or strand.way == "in":
        out.check(PART, f"{side.name}: neighbours", "nobody has set which station has an address: the kernel learns it "
                  "by itself", set_by_hand)  # fmt: skip
        return
    station = strand.station or ALL_STATIONS
    wanted = f"{side.interfaces[strand.zone]}: {strand.peer} is at {station}, permanent"
    wrong = [f"{text} is not the policy's" for text in set_by_hand if text != wanted]
    wrong += [] if wanted in set_by_hand else [f"{wanted}: it is not there"]
    out.check(PART, f"{side.name}: neighbours", "the other end of the strand is a permanent neighbour, so that nobody "
              "is asked for its station, and nobody has set another", wrong, [wanted])  # fmt: skip


def _asking(rules: Json) -> set[str]:
    """Where rules look at connections, as the kernel keeps them."""
    bodies = [entry["rule"] for entry in rules.get("nftables", ()) if "rule" in entry]
    return {f"{body['family']} {body['table']}, chain {body['chain']}" for body in bodies
            if _mentions(body.get("expr", ()), "ct")}  # fmt: skip


def _mentions(part: Any, word: str) -> bool:
    if isinstance(part, dict):
        return any(str(key).split()[:1] == [word] or _mentions(value, word) for key, value in part.items())
    return isinstance(part, list | tuple) and any(_mentions(value, word) for value in part)


def _sockets(side: Side, found: Mapping[Part, Json], out: Statements) -> None:
    # A part that exchanges datagrams with devices has a socket for it at all its addresses, often at the port that the
    # protocol wants; who may send to it is for the rules, which the solver asks.
    by_datagrams = {reach.who for reach in side.plan.reaches if reach.datagrams}
    towards = {
        file["target"]: part.name
        for part, facts in found.items()
        if part.side == side.name and f"{road(part.crew)}/{part.part}" in by_datagrams
        for file in facts["files"]
        if file["target"].startswith("socket:[")
    }
    declared = {
        ("udp" if listen.datagrams else "tcp", address, listen.port)
        for listen in side.plan.listens
        for address in listen.addresses
    }
    if side.plan.strand is not None:
        declared.add(("udp", side.plan.strand.address, side.plan.strand.port))
    wrong, good = [], []
    for sock in side.reading["sockets"]:
        where = f"{sock['protocol']} {sock['address']}:{sock['port']}"
        if not sock["listening"]:
            good.append(where)
        elif (sock["protocol"].removesuffix("6"), sock["address"], sock["port"]) in declared:
            good.append(f"{where} (published)")
        elif sock["protocol"] == "udp" and (owner := towards.get(f"socket:[{sock['inode']}]")):
            good.append(f"{where} (of {owner}, towards devices)")
        else:
            wrong.append(f"{where} is declared nowhere")
    out.check(PART, f"{side.name}: sockets", "only sockets that the policy declares wait for packets", wrong, good)


def _strangers(subject: Subject, found: Mapping[Part, Json], out: Statements) -> None:
    known = {part.pid for part in subject.parts} | {subject.gate, subject.auditor}
    own = strangers.ours({*known, os.getpid()}, subject.launcher)
    pipes = {name for facts in found.values() for name, file in processes.pipes(facts).items() if file["fd"] > 2}
    inodes = {side.inode for side in subject.sides.values()}
    held, unseen = strangers.holders(own, subject.launcher, inodes, pipes)
    if unseen:
        out.say(PART, "strangers: unseen", "assumed", "the kernel lets nobody look at these processes, so what they "
                "hold is not known", unseen)  # fmt: skip
    out.check(
        PART, "strangers", "no process but the gate's holds a socket of a side, wherever it stands, or a part's pipe",
        held,
        [f"{len(pipes)} pipes, {len(subject.sides)} namespaces; every process of the host was asked"],
    )  # fmt: skip
    out.check(PART, "host: packet filter programs", "no BPF program hangs in the packet filter, in any namespace",
              programs.in_netfilter())  # fmt: skip


def _home(subject: Subject, out: Statements) -> None:
    """The host's namespace keeps management: neither side's interface is in it."""
    here = {link["name"] for link in reading.network()["links"]}
    kinds = {link.interface for side in subject.sides.values() for link in side.plan.links if link.kind == "move"}
    out.check(PART, "host: interfaces", "no interface of either side is in the host's namespace",
              sorted(here & kinds), sorted(here))  # fmt: skip
    inodes = {side.inode for side in subject.sides.values()} | {Path("/proc/self/ns/net").stat().st_ino}
    wanted = len(subject.sides) + 1
    name, says = "namespaces are three", "both sides and the host are in three different network namespaces"
    if wanted > 3:
        name = f"namespaces are {wanted}"
        says = f"both sides, each cell that has its own, and the host are in {wanted} different network namespaces"
    out.check(PART, name, says,
              [] if len(inodes) == wanted else ["they are not"], [str(inode) for inode in sorted(inodes)])  # fmt: skip


def _shared(subject: Subject, out: Statements) -> None:
    """Interfaces that stay with the host, since a VLAN or a macvlan of a gate is made on them. Where each side has one,
    the host itself could join them: it could put both into a bridge, and where it stands on both wires without a tag
    (macvlan) it could route."""
    parents = {
        side.name: {link.interface: link.kind for link in side.plan.links if link.kind != "move"}
        for side in subject.sides.values()
    }
    inner = {name: kind for side, found in parents.items() if side != "it" for name, kind in found.items()}
    outer = parents["it"]
    if not outer or not inner:
        return
    masters = {link["name"]: link["master"] for link in reading.network()["links"]}
    wrong = [f"{one} and {other} belong to the same bridge" for one in sorted(outer) for other in sorted(inner)
             if masters.get(one) and masters.get(one) == masters.get(other)]  # fmt: skip
    if "macvlan" in outer.values() and "macvlan" in inner.values():
        on = {name: value for name, value in reading.switches().items() if value != "0"}
        wrong += [f"the host stands on both wires, and net/{name} = {value}" for name, value in on.items()
                  if name.endswith(("forwarding", "ip_forward"))]  # fmt: skip
    out.check(PART, "host: shared interfaces", "the host joins no interfaces that it shares with both sides", wrong,
              [f"{side}: {', '.join(sorted(found))}" for side, found in parents.items()])  # fmt: skip
