"""Part (g): an end of a strand goes one way. What the kernel says of its socket, its interface and its walls; the
part's filter, tried by the descriptor's number; frames of every family against a copy of the walls, with a positive
control; and on the receiving end against the walls themselves.

Two kinds are named and never mixed. *One-way by software* is what is read and tried here. *One-way by hardware* is the
operator's word: nothing here can see a tap, a fibre or a card.

Not here: interfaces, addresses, neighbours, processes (structure), the meaning of the rules (solving), the frames.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2 import DiagSocket, IPRoute

from cofferdam.enforce import inside as worker
from cofferdam.enforce import kernel, sandbox
from cofferdam.enforce.plans.records import Strand
from cofferdam.enforce.plans.rules import TABLE
from cofferdam.enforce.profile import Profile
from cofferdam.enforce.syscalls import NUMBERS
from cofferdam.errors import CofferdamError, GateError
from cofferdam.proof import canaries, frames, reading
from cofferdam.proof.frames import FAMILIES, Target
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Side, Subject, road

Json = dict[str, Any]
PART: Final = "one-way"
ROUNDS: Final = 3
"""How often every frame is sent."""
LINGER_SECONDS: Final = 0.3
PATIENT_SECONDS: Final = 5.0
"""So long frames are waited for that should come."""
KERNEL: Final = "kernel"
"""What the kernel itself makes of ordinary sockets: UDP, a TCP connection, ICMP, raw IP."""
NUMBER: Final = 9
"""The descriptor at which a probe has the socket."""
_LATE: Final = 500
"""The priority of a chain that sees what the walls let in."""
_IFF_NOARP, _RCV_SHUTDOWN, _ALL_STATES = 0x80, 1, 0xFFF
_COMES: Final = ("read", "readv", "recvfrom", "recvmsg", "recvmmsg")
_GOES: Final = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
_libc = ctypes.CDLL(None, use_errno=True)


def state(subject: Subject, hardware: Mapping[str, str], out: Statements) -> None:
    """All that is to be said of the ends that this machine has. `hardware`: zone to what the operator attests."""
    for side in subject.sides.values():
        strand = side.plan.strand
        if strand is None:
            continue
        before = len(out.found)
        _interface(side, strand, out)
        _socket(subject, side, strand, out)
        _filter(subject, side, strand, out)
        _walls(subject, side, strand, out)
        _kinds(side, strand, hardware.get(strand.zone, ""), out.found[before:], out)


def _kinds(side: Side, strand: Strand, hardware: str, found: list[Any], out: Statements) -> None:
    """What makes this end one-way, of each kind in a statement of its own."""
    failed = [statement.name for statement in found if statement.status == "failed"]
    out.check(PART, f"{side.name}: one-way by software", f"this end of the strand, {strand.zone}, is one-way by "
              "software: by what was read and tried above, as long as nobody who is root on this machine changes it",
              failed, [f"{len(found)} statements"], status="tested")  # fmt: skip
    says = "nothing is claimed to be one-way by hardware: the policy attests no tap, fibre or card (`hardware`)"
    if hardware:
        says = f"one-way by hardware, as the operator attests and nothing here can check: {hardware}"
    out.say(PART, f"{side.name}: one-way by hardware", "assumed", says)
    back = "the timing and power of the receiving machine" if strand.way == "in" else "whatever comes by another way"
    out.say(PART, f"{side.name}: ways back", "assumed", f"what no software takes away: {back}, and people who carry "
            "tickets")  # fmt: skip


# --- what is read -----------------------------------------------------------------------------------------------------


def _interface(side: Side, strand: Strand, out: Statements) -> None:
    name = side.interfaces[strand.zone]
    found = side.run(_facts, name)
    wrong = [] if found["noarp"] else ["it asks and answers by ARP"]
    wrong += [f"net/ipv6/conf/{one}/disable_ipv6 is {value}" for one, value in found["ipv6"].items() if value != "1"]
    if strand.way == "in":
        wrong += [f"it knows a neighbour: {one}" for one in found["neighbours"]]
    out.check(PART, f"{side.name}: silent", f"{name} neither asks nor answers by ARP, and has no IPv6", wrong,
              [f"{name}: no ARP", *(f"{one}: no IPv6" for one in found["ipv6"])])  # fmt: skip


def _facts(name: str) -> Json:
    """Of an interface of the calling process's namespace."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=name)[0]
        flags = netlink.get_links(index)[0]["flags"]
        neighbours = [
            str(entry.get_attr("NDA_DST"))
            for entry in netlink.get_neighbours(family=socket.AF_INET, ifindex=index)
            if not frames_to_all(entry.get_attr("NDA_DST"))
        ]
    folder = Path("/proc/sys/net/ipv6/conf")
    ipv6 = {one: (folder / one / "disable_ipv6").read_text().strip() for one in (name, "all", "default")
            if (folder / one).exists()}  # fmt: skip
    return {"noarp": bool(flags & _IFF_NOARP), "ipv6": ipv6, "neighbours": neighbours}


def frames_to_all(address: object) -> bool:
    """Whether an address is that of a group or of everybody: the kernel keeps such neighbours by itself."""
    first = int(str(address).split(".")[0])
    return first >= 224


def _socket(subject: Subject, side: Side, strand: Strand, out: Statements) -> None:
    """The one socket that the part has, and which ways it is open."""
    part = _part(subject, strand)
    facts = reading.process(part.pid) if part is not None else None
    if part is None or facts is None:
        out.say(PART, f"{side.name}: socket", "failed", f"the {strand.part} of the strand {strand.zone} does not run")
        return
    held = {int(file["target"][8:-1]): file["fd"] for file in facts["files"] if file["target"].startswith("socket:[")}
    # Of a strand with several links it holds one of each: where each is, its own end's statement says.
    links = [other for other in subject.sides.values() if other.plan.strand and other.plan.strand.who == strand.who]
    there = {one["inode"]: one for one in side.run(_udp)}
    elsewhere = {one["inode"] for other in links if other is not side for one in other.run(_udp)}
    wrong = [] if len(held) == len(links) else [f"it holds {len(held)} sockets for {len(links)} links"]
    wrong += [f"socket {inode} is none of UDP" for inode in held if inode not in there and inode not in elsewhere]
    held = {inode: fd for inode, fd in held.items() if inode in there}
    wrong += [] if len(held) == 1 else [f"{len(held)} of its sockets are here"]
    for inode in held:
        one = there[inode]
        ends = (one["source"], one["sport"], one["destination"], one["dport"])
        if ends != (strand.address, strand.port, strand.peer, strand.port):
            wrong.append(f"it goes from {ends[0]}:{ends[1]} to {ends[2]}:{ends[3]}")
        if strand.way == "out" and not one["shut"] & _RCV_SHUTDOWN:
            wrong.append("it is open for reading")
    says = "is connected to the other end and shut for reading" if strand.way == "out" else (
        "hears the other end alone; that nothing is written to it, its filter says and the walls")  # fmt: skip
    out.check(PART, f"{side.name}: socket", f"the {strand.part} holds one socket here, of UDP, which {says}", wrong,
              [f"descriptor {fd}, socket {inode}" for inode, fd in held.items()])  # fmt: skip


def _part(subject: Subject, strand: Strand) -> Part | None:
    """Whose end it is; it stands at the strand's first link."""
    return next((one for one in subject.parts if road(one.crew) == strand.crew and one.part == strand.part), None)


def _udp() -> list[Json]:
    """The UDP sockets of the calling process's namespace, by the kernel's diagnosis. Raises: GateError."""
    with DiagSocket() as diagnosis:
        found = list(diagnosis.get_sock_stats(family=socket.AF_INET, states=_ALL_STATES, protocol=socket.IPPROTO_UDP))
    return [
        {"inode": one["idiag_inode"], "source": one["idiag_src"], "sport": one["idiag_sport"],
         "destination": one["idiag_dst"], "dport": one["idiag_dport"],
         "shut": int(one.get_attr("INET_DIAG_SHUTDOWN") or 0)}
        for one in found
    ]  # fmt: skip


# --- the filter -------------------------------------------------------------------------------------------------------


def _filter(subject: Subject, side: Side, strand: Strand, out: Statements) -> None:
    """The part's filter, put on by a fresh process that has a pair of sockets at the number that the part's has."""
    part = _part(subject, strand)
    if part is None:
        return  # said already
    profile = subject.profile(part)
    never, may = (_COMES, "write") if strand.way == "out" else (_GOES, "recvmmsg")
    tried = {call: _try(profile, strand.way, call) for call in (*never, may)}
    refused = ("ended by the filter", "EPERM")
    wrong = [f"{call}: {said}" for call, said in tried.items() if call != may and said not in refused]
    if tried[may] != "done":
        wrong.append(f"the control: {may} by the same descriptor: {tried[may]}")
    what = "reads" if strand.way == "out" else "writes"
    out.check(PART, f"{side.name}: filter", f"whoever {what} from within the {strand.part}'s sandbox by the strand's "
              f"descriptor is refused; {may}, which it is for, works" if strand.way == "out" else
              f"whoever {what} from within the {strand.part}'s sandbox to the strand's descriptor is refused; {may}, "
              "which it is for, works", wrong, [f"{call}: {said}" for call, said in tried.items()],
              status="tested")  # fmt: skip


def _try(profile: Profile, way: str, call: str) -> str:
    """What becomes of one call on a socket at `NUMBER`, under the filter."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(profile, way, call, write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "ended by the filter" if number == signal.SIGSYS else f"died of {signal.Signals(number).name}"
    return said or f"ended with {os.waitstatus_to_exitcode(status)}, and said nothing"


def _child(profile: Profile, way: str, call: str, pipe: int) -> None:
    """In the fresh process. Nothing returns from here."""
    try:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        far.send(b"x")
        high = os.dup(pipe) if pipe == NUMBER else pipe
        os.dup2(near.fileno(), NUMBER)
        deaf, mute = ((NUMBER,), ()) if way == "out" else ((), (NUMBER,))
        _, there, why = sandbox.confine(profile, deaf=deaf, mute=mute)[0]
        if not there:
            os.write(high, f"no filter: {why}".encode())
            os._exit(0)
        text = ctypes.create_string_buffer(b"x", 8)
        vector = (ctypes.c_void_p * 2)(ctypes.addressof(text), 1)
        message = (ctypes.c_void_p * 8)(None, None, ctypes.addressof(vector), 1)
        arguments: dict[str, tuple[Any, ...]] = {
            "read": (text, 1), "write": (text, 1), "readv": (vector, 1), "writev": (vector, 1),
            "recvfrom": (text, 1, 0x40, None, None), "sendto": (text, 1, 0x40, None, 0),
            "recvmsg": (message, 0x40), "sendmsg": (message, 0x40), "recvmmsg": (message, 1, 0x40, None),
            "sendmmsg": (message, 1, 0x40),
        }  # fmt: skip
        result = _libc.syscall(ctypes.c_long(NUMBERS[platform.machine()][call]), NUMBER, *arguments[call])
        number = ctypes.get_errno()
        said = "done" if result >= 0 else errno.errorcode.get(number, str(number))
        os.write(high, said.encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(pipe, f"the probe failed: {error}".encode())
    finally:
        os._exit(0)


# --- frames -----------------------------------------------------------------------------------------------------------


def _walls(subject: Subject, side: Side, strand: Strand, out: Statements) -> None:
    name = side.interfaces[strand.zone]
    rules = str(side.run(_listing, subject.nft))
    hook = "ingress" if strand.way == "out" else "egress"
    if not any(found[:2] == [hook, name] and found[2] == "drop" for found in side.frame_filters):
        out.say(PART, f"{side.name}: wall", "failed", f"no frame filter of {name} drops what "
                f"{'comes in' if hook == 'ingress' else 'goes out'} (hook {hook})")  # fmt: skip
        return
    plain = msgspec.to_builtins(strand)
    try:
        walled = worker.inside(None, _copy, subject.nft, name, plain, rules)
        control = worker.inside(None, _copy, subject.nft, name, plain, "")
    except GateError as error:
        out.say(PART, f"{side.name}: frames", "failed", f"no copy of the walls could be tried: {error}")
        return
    what = "comes in" if strand.way == "out" else "goes out"
    kinds = (*FAMILIES, *((KERNEL,) if strand.way == "in" else ()))
    for kind in kinds:
        sent, passed = walled["sent"].get(kind, 0), walled["passed"].get(kind, 0)
        free, heard = control["sent"].get(kind, 0), control["passed"].get(kind, 0)
        evidence = [f"{passed} of {sent} frames passed a copy of the walls",
                    f"positive control: {heard} of {free} passed the same without the rules"]  # fmt: skip
        wrong = evidence[:1] if passed or not sent else []
        wrong += evidence[1:] if not heard or heard < free else []
        label = "of the kernel's own (UDP, TCP, ICMP, raw IP)" if kind == KERNEL else kind
        out.check(PART, f"{side.name}: {kind} frames", f"no frame {label} {what} by the strand", wrong, evidence,
                  status="tested")  # fmt: skip
    total = walled["all"]
    out.check(PART, f"{side.name}: any frame", f"no frame at all {what}, the kernel's own chatter among them",
              [f"{total} frames passed"] if total else [], [f"0 frames in {walled['seconds']} s"],
              status="tested")  # fmt: skip
    if any(statement.status == "failed" for statement in out.found if statement.name.startswith(f"{side.name}: ")
           and statement.part == PART and statement.name.endswith(("frames", "any frame"))):  # fmt: skip
        return  # what passes a copy is not tried on the strand itself
    if strand.way == "in":
        _on_the_strand(subject, side, strand, name, out)
    else:
        dropped = side.run(_dropped, subject.nft, f"{hook}-{name}")
        out.say(PART, f"{side.name}: came", "observed", f"{dropped} frames have come to this end since its walls "
                "stand, and were dropped at the interface", [f"{name}: {dropped}"])  # fmt: skip


def _on_the_strand(subject: Subject, side: Side, strand: Strand, name: str, out: Statements) -> None:
    """The receiving end itself: what is sent there must be dropped by its wall, and its interface must send nothing."""
    found = side.run(_tried_here, subject.nft, name, msgspec.to_builtins(strand))
    sent, left, dropped = found["sent"], found["left"], found["dropped"]
    wrong = [f"{left} frames left by {name}"] if left else []
    wrong += [f"the wall has dropped {dropped} of them"] if dropped < sent else []
    out.check(PART, f"{side.name}: on the strand itself", f"of frames of every family that were sent at {name} none "
              "left: its wall has counted them, and the interface nothing", wrong,
              [f"{sent} frames sent, {dropped} dropped by the wall, {left} left"], status="tested")  # fmt: skip


def _listing(nft: str) -> str:
    """The rules in force as text: the JSON form leaves out devices of chains (nft 1.0.6)."""
    return subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def _target(strand: Strand, own: str, other: str) -> Target:
    """Frames against the strand's way: from its hearing end to the sending one."""
    source, to = (strand.address, strand.peer) if strand.way == "in" else (strand.peer, strand.address)
    return Target(
        source_mac=own, macs=(other,), source_v4=source, targets_v4=(to, "255.255.255.255", "224.0.0.1"),
        source_v6="fe80::1", targets_v6=("fe80::2", "ff02::1"), port=strand.port,
    )  # fmt: skip


def _copy(nft: str, name: str, plain: Any, rules: str) -> Json:
    """A copy of an end, with a cable, in a namespace that ends with this process: every family is sent against the
    strand's way. `rules`: "" for the positive control. Raises: GateError."""
    strand = msgspec.convert(plain, Strand)
    kernel.unshare(kernel.CLONE_NEWNET)
    far = "cd-far" if name != "cd-far" else "cd-far1"
    for folder in Path("/proc/sys/net/ipv6/conf").glob("*"):
        (folder / "disable_ipv6").write_text("1")
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="veth", peer=far)
        near, other = (netlink.link_lookup(ifname=one)[0] for one in (name, far))
        if rules:
            _nft(nft, rules)
        netlink.link("set", index=near, flags=_IFF_NOARP, mask=_IFF_NOARP)
        netlink.addr("add", index=near, address=strand.address, prefixlen=30)
        for index in (near, other):
            netlink.link("set", index=index, state="up")
        stations = [netlink.get_links(index)[0].get_attr("IFLA_ADDRESS") for index in (near, other)]
        netlink.neigh("replace", ifindex=near, dst=strand.peer, lladdr=stations[1], state=0x80, family=socket.AF_INET)
    canaries._wait_up(name, far)
    began = time.monotonic()
    if strand.way == "in":
        found = _outwards(name, far, _target(strand, stations[0], stations[1]), strand, bool(rules))
    else:
        found = _inwards(nft, name, far, _target(strand, stations[1], stations[0]), bool(rules))
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _outwards(name: str, far: str, target: Target, strand: Strand, walled: bool) -> Json:
    """Sends at `name`, and listens at the other end of the cable."""
    tokens = {**canaries._tokens(), KERNEL: os.urandom(frames.TOKEN_BYTES)}
    with canaries._open(far, listening=True) as listener, canaries._open(name, listening=False) as sender:
        ear = canaries._Ear(listener, tokens)
        sent = _throw(sender, target, tokens, ear.drain)
        sent[KERNEL] = _by_kernel(strand, tokens[KERNEL])
        # On a busy machine frames take their time; where walls stand, they are dropped before they are under way.
        ear.linger(LINGER_SECONDS)
        end = time.monotonic() + PATIENT_SECONDS
        while not walled and time.monotonic() < end and any(ear.heard.get(one, 0) < sent[one] for one in FAMILIES):
            ear.linger(LINGER_SECONDS)
        result = ear.result({})
    if result["lost"]:
        raise GateError(f"the listener lost {result['lost']} frames: what they were is not known")
    passed = dict(result["heard"])
    # What is none of the families is the kernel's: the token is not in all of that, a TCP connection's say.
    passed[KERNEL] = result["frames"] - sum(count for family, count in passed.items() if family != KERNEL)
    return {"sent": sent, "passed": passed, "all": result["frames"]}


def _inwards(nft: str, name: str, far: str, target: Target, walled: bool) -> Json:
    """Sends at the other end of the cable, and counts what is behind the wall of `name`, family by family."""
    _nft(
        nft,
        f"""table netdev probe {{
        counter behind {{ }}
        chain behind {{
            type filter hook ingress device "{name}" priority {_LATE}; policy accept;
            counter name behind
        }}
    }}""",
    )
    sent: dict[str, int] = {}
    passed: dict[str, int] = {}
    tokens = canaries._tokens()
    before = all_sent = 0

    def come() -> bool:
        """Whether all that was sent was dropped, or passed."""
        return (_dropped(nft, f"ingress-{name}") if walled else 0) + _behind(nft) >= all_sent

    with canaries._open(far, listening=False) as sender:
        for family, token in tokens.items():
            sent |= _throw(sender, target, {family: token}, lambda: None)
            all_sent += sent[family]
            _until(come)
            now = _behind(nft)
            passed[family], before = now - before, now
    select.select([], [], [], LINGER_SECONDS)
    return {"sent": sent, "passed": passed, "all": _behind(nft)}


def _until(come: Callable[[], bool]) -> None:
    """Frames over a cable take their time on a busy machine. Where they do not come, the positive control says so."""
    end = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < end and not come():
        time.sleep(0.005)


def _tried_here(nft: str, name: str, plain: Any) -> Json:
    """Sends every family at the interface of the calling process's namespace: how many, what the wall dropped of them,
    and what left."""
    strand = msgspec.convert(plain, Strand)
    with IPRoute() as netlink:
        own = netlink.get_links(netlink.link_lookup(ifname=name)[0])[0].get_attr("IFLA_ADDRESS")
    target = _target(strand, own, frames.BROADCAST)
    left, dropped = _left(name), _dropped(nft, f"egress-{name}")
    with canaries._open(name, listening=False) as sender:
        sent = _throw(sender, target, canaries._tokens(), lambda: None)
    _by_kernel(strand, b"")
    time.sleep(LINGER_SECONDS)
    return {"sent": sum(sent.values()), "left": _left(name) - left,
            "dropped": _dropped(nft, f"egress-{name}") - dropped}  # fmt: skip


def _throw(
    sock: socket.socket, target: Target, tokens: Mapping[str, bytes], hear: Callable[[], None]
) -> dict[str, int]:
    """How many frames of each family were given to the interface. What a wall drops comes back as an error."""
    sent: dict[str, int] = {}
    for _ in range(ROUNDS):
        for family, token in tokens.items():
            if family == KERNEL:
                continue
            for frame in frames.frames(family, target, token):
                with contextlib.suppress(OSError):
                    sock.send(frame)
                sent[family] = sent.get(family, 0) + 1
            hear()
    return sent


def _by_kernel(strand: Strand, token: bytes) -> int:
    """Packets by ordinary sockets, with all that the kernel adds; how many were tried."""
    count = 0
    for kind, protocol in ((socket.SOCK_DGRAM, 0), (socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.SOCK_RAW, 253)):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind, protocol) as sock:
            count += 1
            sock.sendto(b"\x08\0" + bytes(6) + token, (strand.peer, strand.port if kind == socket.SOCK_DGRAM else 0))
    with contextlib.suppress(OSError), socket.socket() as sock:
        count += 1
        sock.setblocking(False)
        sock.connect((strand.peer, strand.port))
    return count


def _nft(nft: str, text: str) -> None:
    done = subprocess.run([nft, "-f", "-"], input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise CofferdamError(f"nft does not take a copy of the rules: {done.stderr.strip()[:200]}")


def _stats(name: str) -> Any:
    with IPRoute() as netlink:
        return netlink.get_links(netlink.link_lookup(ifname=name)[0])[0].get_attr("IFLA_STATS64")


def _left(name: str) -> int:
    return int(_stats(name)["tx_packets"])


def _behind(nft: str) -> int:
    done = subprocess.run([nft, "-j", "list", "counter", "netdev", "probe", "behind"], capture_output=True, check=True)
    return next(int(one["counter"]["packets"]) for one in json.loads(done.stdout)["nftables"] if "counter" in one)


def _dropped(nft: str, chain: str) -> int:
    """What a wall of the calling process's namespace has dropped."""
    command = [nft, "-j", "list", "chain", "netdev", TABLE, chain]
    done = subprocess.run(command, capture_output=True, check=True)
    return sum(
        int(part["counter"]["packets"])
        for one in json.loads(done.stdout)["nftables"] if "rule" in one
        for part in one["rule"]["expr"] if "counter" in part
    )  # fmt: skip
