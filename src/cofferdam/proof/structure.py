"""Part (a): what the kernel says of the gate's namespaces and processes, statement by statement, and part of (b): what
the solver does not see.

Not here: reading it (reading), the rules' meaning (solving).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cofferdam.enforce import inside as worker
from cofferdam.enforce import kernel
from cofferdam.enforce.overlay import tunnel
from cofferdam.enforce.plans.rules import EARLY, TABLE
from cofferdam.enforce.users import NEEDED, USEFUL
from cofferdam.errors import GateError
from cofferdam.proof import programs, reading, strangers
from cofferdam.proof.expected import Expected
from cofferdam.proof.rules.listing import Ruleset, Unmodelled
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Half, Side, Subject

Json = dict[str, Any]
PART = "structure"
_O_DIRECT, _O_ACCMODE = os.O_DIRECT, os.O_ACCMODE
_ROADS = {"bridge", "bond", "team", "vxlan", "gre", "gretap", "ipip", "sit", "ip6tnl", "erspan", "geneve",
          "xfrm", "vti",
          "openvswitch", "batadv", "ip6gre", "vrf", "ipvlan"}  # fmt: skip
# The kernel makes these, down, in every namespace where a module for tunnels is loaded.
_SPARE = {"tunl0": "ipip", "sit0": "sit", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "ip_vti0": "vti",
          "ip6_vti0": "vti6", "ip6tnl0": "ip6tnl", "ip6gre0": "ip6gre"}  # fmt: skip
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_HOOKS = ("input", "output", "forward")
_MAY_BE_OPEN = {"/dev/null", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"}


def state(subject: Subject, out: Statements) -> None:
    """All of it. Both sides have been read."""
    for side in subject.sides.values():
        _namespace(subject, side, out)
        _interfaces(side, out)
        _switches(side, out)
        _unseen(side, out)
        _sockets(subject, side, out)
    _home(subject, out)
    _shared(subject, out)
    found = {half: reading.process(half.pid) for half in subject.halves}
    for half, facts in found.items():
        if facts is None:
            out.say(PART, f"{half.name}: process", "failed", f"{half.name} (pid {half.pid}) is not there any more")
            continue
        _place(subject, half, facts, out)
        _powers(subject, half, facts, out)
        _view(half, facts, out)
        _descriptors(subject, half, facts, out)
    for pid in sorted(strangers.name_servers(subject.launcher)):
        server, facts = Half("names", "", "names", pid, "it"), reading.process(pid)
        if facts is not None:
            _place(subject, server, facts, out)
            _powers(subject, server, facts, out)
            _view(server, facts, out)
            _descriptors(subject, server, facts, out)
    out.say(PART, "filters: content", "assumed", "what is in the filter of a running process was not read, since that "
            "takes stopping it; it is assumed to be what a fresh copy puts on, into which the probes look")  # fmt: skip
    if any(side.plan.tunnel is not None for side in subject.sides.values()):
        _tunnel_programs(subject, out)
        _peers(subject, out)
    _apart(subject, {half: facts for half, facts in found.items() if facts is not None}, out)
    _others(subject, out)
    _strangers(subject, {half: facts for half, facts in found.items() if facts is not None}, out)


# --- namespaces -------------------------------------------------------------------------------------------------------


def _namespace(subject: Subject, side: Side, out: Statements) -> None:
    inhabitants = reading.processes_in(side.inode)
    ours = {half.pid for half in subject.halves if half.side == side.name}
    names = strangers.name_servers(subject.launcher) if side.name == "it" else set()
    wrong = [f"pid {pid} ({name})" for pid, name in inhabitants if pid not in ours | names]
    out.check(
        PART, f"{side.name}: inhabitants", f"only halves of this gate are in the namespace {side.namespace}", wrong,
        [f"pid {pid} ({name})" for pid, name in inhabitants],
    )  # fmt: skip


def _tunnel_programs(subject: Subject, out: Statements) -> None:
    """wireguard-go, where it runs: it takes packets from anywhere, and stands in the host's network."""
    for pid in strangers.tunnel_programs(subject.launcher):
        facts = reading.process(pid)
        if facts is None:
            continue
        program, status = Half("tunnel", "", "tunnel", pid, "it"), facts["status"]
        _powers(subject, program, facts, out, threads=True)
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
    there = {link["name"] for link in links if link["up"] or _SPARE.get(link["name"]) != link["kind"]}
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
    out.check(PART, f"{side.name}: neighbours", "nobody has set which station has an address: the kernel learns it by "
              "itself", read["neighbours"])  # fmt: skip
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


def _asking(rules: Json) -> set[str]:
    """Where rules look at connections, as the kernel keeps them."""
    bodies = [entry["rule"] for entry in rules.get("nftables", ()) if "rule" in entry]
    return {f"{body['family']} {body['table']}, chain {body['chain']}" for body in bodies
            if _mentions(body.get("expr", ()), "ct")}  # fmt: skip


def _mentions(part: Any, word: str) -> bool:
    if isinstance(part, dict):
        return any(str(key).split()[:1] == [word] or _mentions(value, word) for key, value in part.items())
    return isinstance(part, list | tuple) and any(_mentions(value, word) for value in part)


def _sockets(subject: Subject, side: Side, out: Statements) -> None:
    declared = {
        ("udp" if listen.datagrams else "tcp", address, listen.port)
        for listen in side.plan.listens
        for address in listen.addresses
    }
    wrong, good = [], []
    for sock in side.reading["sockets"]:
        where = f"{sock['protocol']} {sock['address']}:{sock['port']}"
        if not sock["listening"]:
            good.append(where)
        elif (sock["protocol"].removesuffix("6"), sock["address"], sock["port"]) in declared:
            good.append(f"{where} (published)")
        else:
            wrong.append(f"{where} is declared nowhere")
    out.check(PART, f"{side.name}: sockets", "only sockets that the policy declares wait for packets", wrong, good)


def _strangers(subject: Subject, found: Mapping[Half, Json], out: Statements) -> None:
    known = (
        {half.pid for half in subject.halves}
        | {subject.gate, subject.auditor}
        | strangers.name_servers(subject.launcher)
    )
    own = strangers.ours({*known, os.getpid()}, subject.launcher)
    pipes = {name for facts in found.values() for name, file in _pipes(facts).items() if file["fd"] > 2}
    held, unseen = strangers.holders(own, {side.inode for side in subject.sides.values()}, pipes)
    if unseen:
        out.say(PART, "strangers: unseen", "assumed", "the kernel lets nobody look at these processes, so what they "
                "hold is not known", unseen)  # fmt: skip
    out.check(
        PART, "strangers", "no process but the gate's holds a socket of a side, wherever it stands, or a half's pipe",
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


# --- processes --------------------------------------------------------------------------------------------------------


def _place(subject: Subject, half: Half, facts: Json, out: Statements) -> None:
    side = subject.sides[half.side]
    wrong = [] if facts["net"] == side.inode else [f"it is in network namespace {facts['net']}"]
    own = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in reading.NAMESPACES}
    wrong += [f"it shares the host's {kind} namespace" for kind in reading.NAMESPACES if facts[kind] == own[kind]]
    out.check(
        PART, f"{half.name}: namespaces", f"stands in {side.namespace}, and has file, process, message and name "
        "namespaces that are not the host's", wrong, [f"{kind} {facts[kind]}" for kind in reading.NAMESPACES],
    )  # fmt: skip


def _powers(subject: Subject, half: Half, facts: Json, out: Statements, *, threads: bool = False) -> None:
    status = facts["status"]
    wrong = [f"{name} is {status.get(name)}" for name in _CAPABILITIES if int(status.get(name, "1"), 16)]
    ids = set(status["Uid"].split()) | set(status["Gid"].split())
    if len(ids) != 1 or ids & {"0"}:
        wrong.append(f"user ids {status['Uid']}, group ids {status['Gid']}")
    if status.get("Groups"):
        wrong.append(f"groups {status['Groups']}")
    out.check(PART, f"{half.name}: user", "runs as a user of its own, without any capability, now or ever", wrong,
              [f"uid {status['Uid'].split()[0]}", "CapBnd 0"])  # fmt: skip
    wrong = [] if status.get("NoNewPrivs") == "1" else ["it may gain privileges"]
    wrong += [] if status.get("Seccomp") == "2" else [f"Seccomp is {status.get('Seccomp')}"]
    wrong += [] if facts["threads"] == 1 or threads else [f"it has {facts['threads']} threads"]
    wrong += _traced(status)
    count, above = status.get("Seccomp_filters"), _filters_of(subject.launcher)
    if count is not None and above is not None and int(count) != above + 1:
        wrong.append(f"it has {count} filters, and the launcher {above}: its own should be one more")
    counted = f"{count} filters, the launcher {above}" if count is not None else "this kernel does not count filters"
    out.check(PART, f"{half.name}: filter",
              f"is under system-call filters, one of its own and those of the launcher (mode and number were compared, "
              f"not what is in them), {'' if threads else 'has one thread, '}can gain no privilege, and is traced by "
              "nobody",
              wrong, [f"Seccomp 2, {counted}", "NoNewPrivs 1"])  # fmt: skip


def _filters_of(pid: int) -> int | None:
    """How many system-call filters a process is under: the service manager may have given it some."""
    facts = reading.process(pid)
    count = facts["status"].get("Seccomp_filters") if facts is not None else None
    return None if count is None else int(count)


def _traced(status: Mapping[str, str]) -> list[str]:
    tracer = status.get("TracerPid", "?")
    return [] if tracer == "0" else [f"process {tracer} traces it, and can do with it what it likes"]


def _view(half: Half, facts: Json, out: Statements) -> None:
    writable = [path for path, options in facts["mounts"] if "ro" not in options.split(",")]
    special = [path for path, _ in facts["mounts"] if path.split("/")[1:2] in (["proc"], ["sys"], ["dev"], ["run"])]
    out.check(PART, f"{half.name}: files", "sees no file that it could write, and no /proc, /sys, /dev or /run",
              [f"{path} can be written" for path in writable] + [f"{path} is there" for path in special],
              [path for path, _ in facts["mounts"]])  # fmt: skip


def _descriptors(subject: Subject, half: Half, facts: Json, out: Statements) -> None:
    own = {sock["inode"]: sock for sock in subject.sides[half.side].reading["sockets"]}
    far = {
        sock["inode"] for name, side in subject.sides.items() if name != half.side for sock in side.reading["sockets"]
    } - {0}  # fmt: skip
    wrong, good = [], []
    for file in facts["files"]:
        target, shown = file["target"], f"{file['fd']} {file['target']}"
        if target.startswith("socket:["):
            inode = int(target[8:-1])
            if inode in far:
                wrong.append(f"{shown} is a socket of the other side")
            elif inode in own or _read_again(subject, half, inode):
                good.append(f"{shown} {own[inode]['protocol'] if inode in own else 'tcp'}")
            else:
                wrong.append(f"{shown} is a socket of no kind that a half has")
        elif target.startswith("pipe:[") or target in _MAY_BE_OPEN:
            good.append(shown)
        elif file["fd"] <= 2:
            good.append(f"{shown} (standard stream, given at the start)")
        else:
            wrong.append(f"{shown} is open")
    out.check(PART, f"{half.name}: descriptors", "holds pipes, sockets of its own side, and nothing of the other side",
              wrong, good)  # fmt: skip


def _read_again(subject: Subject, half: Half, inode: int) -> bool:
    """A connection that was made since the namespace was read; or one that ended, whose socket is in no table."""
    fresh = subject.sides[half.side].run(reading.sockets)
    if any(sock["inode"] == inode for sock in fresh):
        return True
    still = reading.process(half.pid)
    return still is None or not any(file["target"] == f"socket:[{inode}]" for file in still["files"])


def _apart(subject: Subject, found: dict[Half, Json], out: Statements) -> None:
    for pair in sorted({half.pair for half in found}):
        halves = {half.role: facts for half, facts in found.items() if half.pair == pair}
        if set(halves) != {"outer", "inner"}:
            out.say(PART, f"{pair}: crossing", "failed", "the pair is not two processes")
            continue
        outer, inner = (_pipes(halves[role]) for role in ("outer", "inner"))
        shared = sorted(set(outer) & set(inner))
        # Standard streams may be one pipe for all (a terminal multiplexer, a test): nobody reads there.
        shared = [name for name in shared if outer[name]["fd"] > 2 or inner[name]["fd"] > 2]
        wrong = [] if len(shared) == 2 else [f"they share {len(shared)} pipes, not two: {', '.join(shared)}"]
        for name in shared:
            ways = {outer[name]["flags"] & _O_ACCMODE, inner[name]["flags"] & _O_ACCMODE}
            if ways != {os.O_RDONLY, os.O_WRONLY}:
                wrong.append(f"{name} is not one-way")
            # The kernel keeps this flag with the writing end alone.
            if not (outer[name]["flags"] | inner[name]["flags"]) & _O_DIRECT:
                wrong.append(f"{name} does not keep records apart (O_DIRECT)")
        directions = {outer[name]["flags"] & _O_ACCMODE for name in shared}
        if len(shared) == 2 and len(directions) != 2:
            wrong.append("both pipes go the same way")
        out.check(PART, f"{pair}: crossing", "its halves share two one-way pipes, one each way, and no socket", wrong,
                  shared)  # fmt: skip
        same = [kind for kind in ("net", "mnt", "pid") if halves["outer"][kind] == halves["inner"][kind]]
        users = {facts["status"]["Uid"].split()[0] for facts in halves.values()}
        wrong = [f"they share a {kind} namespace" for kind in same] + ([] if len(users) == 2 else ["they share a user"])
        out.check(PART, f"{pair}: apart", "its halves share no namespace of network, files or processes, and no user",
                  wrong, [f"uids {', '.join(sorted(users))}"])  # fmt: skip


def _pipes(facts: Json) -> dict[str, Json]:
    return {file["target"]: file for file in facts["files"] if file["target"].startswith("pipe:[")}


def _others(subject: Subject, out: Statements) -> None:
    """The gate, the auditor and the launcher hold no socket of the plant's side."""
    for name, pid in (("gate", subject.gate), ("auditor", subject.auditor), ("launcher", subject.launcher)):
        facts = reading.process(pid)
        if facts is None:
            out.say(PART, f"{name}: process", "failed", f"the {name} (pid {pid}) is not there")
            continue
        held = {int(file["target"][8:-1]) for file in facts["files"] if file["target"].startswith("socket:[")}
        mine = {side.name: held & ({sock["inode"] for sock in side.reading["sockets"]} - {0})
                for side in subject.sides.values()}  # fmt: skip
        wrong = ["it stands in a side's namespace"] if facts["net"] in {s.inode for s in subject.sides.values()} else []
        listening = {sock["inode"] for side in subject.sides.values() for sock in side.reading["sockets"]
                     if sock["listening"]}  # fmt: skip
        for side, inodes in mine.items():
            extra = inodes - listening if name == "launcher" else inodes
            wrong += [f"socket {inode} of side {side}" for inode in sorted(extra)]
        says = {
            "gate": "the gate holds no socket of either side",
            "auditor": "the auditor holds no socket of either side, and is alone in a network namespace without any "
            "interface but a loopback that is down, without addresses, routes and sockets of IP",
            "launcher": "the launcher holds listeners that it opened, no connection, stands in neither side, and has "
            "the capabilities that it needs",
        }[name]
        if name == "auditor":
            wrong += _empty_space(pid, facts["net"])
        status = facts["status"]
        wrong += _traced(status)
        allowed = sum(1 << kernel.CAPABILITIES[one] for one in (*NEEDED, *USEFUL)) if name == "launcher" else 0
        wrong += [f"{field} is {status[field]}: it may have {allowed:x} and nothing else" for field in _CAPABILITIES
                  if int(status.get(field, "1"), 16) & ~allowed]  # fmt: skip
        out.check(PART, f"{name}: sockets", says, wrong, [f"pid {pid}", f"uid {status['Uid'].split()[0]}",
                                                          f"CapEff {status['CapEff']}"])  # fmt: skip


def _empty_space(pid: int, inode: int) -> list[str]:
    """What is in the network namespace of the auditor, which has nobody to talk to."""
    if inode == Path("/proc/self/ns/net").stat().st_ino:
        return ["it is in the host's network namespace"]
    try:
        with Path(f"/proc/{pid}/ns/net").open("rb") as space:
            read: Json = worker.inside(space.fileno(), reading.network)
    except (OSError, GateError) as error:
        return [f"its network namespace cannot be read: {error}"]
    wrong = [f"pid {other} ({name}) is there as well" for other, name in reading.processes_in(inode) if other != pid]
    for link in read["links"]:
        if link["up"]:
            wrong.append(f"interface {link['name']} is up")
        elif link["name"] != "lo" and _SPARE.get(link["name"]) != link["kind"]:
            wrong.append(f"interface {link['name']} is there")
    wrong += [f"address {text}" for text in read["addresses"]]
    wrong += [f"route {text}" for text in read["routes"]]
    wrong += [f"socket {sock['protocol']} {sock['address']}:{sock['port']}" for sock in read["sockets"]]
    return wrong
