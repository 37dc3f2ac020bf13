"""Part (c): frames of every family sent on the IT wire, and listened for on the OT wire.

Both ends are hosts outside the gate, each in a namespace of its own (in the lab: the office and the plant). A silence
proves nothing by itself, so every family has its positive control: the same frames, sent by the same code over a
cable without a gate, must be heard by the same code.

Not here: the frames (plans.frames).
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pyroute2 import IPRoute

from cofferdam.enforce import inside as worker
from cofferdam.enforce import kernel
from cofferdam.enforce.netns import NAMED
from cofferdam.errors import CofferdamError
from cofferdam.proof import frames
from cofferdam.proof.frames import FAMILIES, TOKEN_BYTES, Target
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Side, Subject

Json = dict[str, Any]
ROUNDS = 5
"""How often every frame is sent."""
LINGER_SECONDS = 0.5
"""How long is listened after the last frame."""
BUFFER_BYTES = 32 << 20
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _SO_RCVBUFFORCE = 263, 6, 8, 33


class Wire(NamedTuple):
    """A host on a side's wire: its namespace and the interface there."""

    namespace: str
    interface: str


def find_wires(subject: Subject, it: str | None, ot: str | None) -> tuple[Wire, Wire] | None:
    """The hosts that were named, or the lab's own; None if there are none.

    Raises:
        CofferdamError: a named one is not there.
    """
    if it and ot:
        return _named(it), _named(ot)
    if it or ot:
        raise CofferdamError("canaries need a host on each wire", hint="give --wire-it and --wire-ot")
    return _lab(subject)


def _named(text: str) -> Wire:
    namespace, _, interface = text.partition(":")
    if not (NAMED / namespace).exists():
        raise CofferdamError(f"there is no network namespace {namespace}", hint="`ip netns list` lists them")
    return Wire(namespace, interface or "net0")


def _lab(subject: Subject) -> tuple[Wire, Wire] | None:
    """The lab's interfaces carry its tag: cdl<tag>it, cdl<tag>ot and, with a strand, cdl<tag>st; so do its hosts."""
    names = set(subject.moved)
    tag = next((name[3:-2] for name in names if name.startswith("cdl")), "")
    both = {f"cdl{tag}it", f"cdl{tag}ot"}
    if not both <= names <= both | {f"cdl{tag}st"}:
        return None
    hosts = {
        kind: [path.name for path in NAMED.glob(f"cdlab-*-{tag}-{kind}")] for kind in ("office", "plant")
    }  # fmt: skip
    if any(len(found) != 1 for found in hosts.values()):
        return None
    return Wire(hosts["office"][0], "net0"), Wire(hosts["plant"][0], "net0")


def state(subject: Subject, wires: tuple[Wire, Wire] | None, out: Statements, part: str = "canaries") -> None:
    """One statement for each family."""
    if wires is None:
        out.say(
            part, "canaries", "assumed",
            "no canaries were sent: there is no host of ours on the two wires (--wire-it and --wire-ot name them)",
        )  # fmt: skip
        return
    target = aim(subject, *wires)
    _plugged(subject, wires, target, out, part)
    control = worker.inside(None, _control, _plain(target))
    heard = _crossing(wires, _plain(target))
    for family in FAMILIES:
        sent, lost = heard["sent"].get(family, 0), heard["lost"]
        evidence = [f"{sent} frames sent at {wires[0].namespace}, {heard['heard'].get(family, 0)} heard at "
                    f"{wires[1].namespace}", f"positive control: {control['heard'].get(family, 0)} of "
                    f"{control['sent'].get(family, 0)} heard on a cable without a gate"]  # fmt: skip
        wrong = []
        if heard["heard"].get(family, 0):
            wrong.append(f"{heard['heard'][family]} of {sent} frames arrived; the first: {heard['first'].get(family)}")
        if not sent:
            wrong.append("no frame could be sent")
        if control["heard"].get(family, 0) < control["sent"].get(family, 1):
            wrong.append(f"the positive control is silent: {evidence[1]}")
        if lost:
            wrong.append(f"the listener lost {lost} frames: what they were is not known")
        out.check(part, f"{family} canaries", f"no {family} frame from IT arrives on the OT wire", wrong, evidence,
                  status="tested")  # fmt: skip


def _plugged(subject: Subject, wires: tuple[Wire, Wire], target: Target, out: Statements, part: str) -> None:
    """Whether both hosts are on the wires of the gate: silence on a cable that leads nowhere would say nothing. An ARP
    frame of the first must be seen at the gate's IT interface, and one of the gate's OT interface by the second."""
    ends = [(side.fd, name) for side in subject.sides.values() for name in list(side.interfaces.values())[:1]]
    hosts = [os.open(NAMED / wire.namespace, os.O_RDONLY | os.O_CLOEXEC) for wire in wires]
    wrong = []
    try:
        own = target._replace(
            source_mac=_station_of(subject.sides["ot"]), macs=(),
            source_v4=next((text for text in _own(subject.sides["ot"]) if ":" not in text), "0.0.0.0"),  # noqa: S104
            targets_v4=target.targets_v4[:1],
        )  # fmt: skip
        to_gate = worker.inside(None, _both, [hosts[0], ends[0][0]], [wires[0].interface, ends[0][1]], _plain(target),
                                ["arp"])  # fmt: skip
        from_gate = worker.inside(None, _both, [ends[1][0], hosts[1]], [ends[1][1], wires[1].interface], _plain(own),
                                  ["arp"])  # fmt: skip
    finally:
        for fd in hosts:
            os.close(fd)
    if not to_gate["heard"]:
        wrong.append(f"of {to_gate['sent'].get('arp', 0)} ARP frames of {wires[0].namespace} none came to {ends[0][1]}")
    if not from_gate["heard"]:
        wrong.append(
            f"of {from_gate['sent'].get('arp', 0)} ARP frames of {ends[1][1]} none came to {wires[1].namespace}"
        )
    out.check(
        part, "wires", "what is sent comes to the gate, and what leaves the gate would be heard", wrong,
        [f"{to_gate['heard'].get('arp', 0)} ARP frames came to {ends[0][1]}",
         f"{from_gate['heard'].get('arp', 0)} of {ends[1][1]} were heard at {wires[1].namespace}"], status="tested",
    )  # fmt: skip


def aim(subject: Subject, it: Wire, ot: Wire) -> Target:
    """Frames go to the gate's station and to the plant's, with addresses of devices, of the gate's far side, of all."""
    here = _run_in(it, _station, it.interface)
    there = _run_in(ot, _station, ot.interface)
    gate = _station_of(subject.sides["it"]), _station_of(subject.sides["ot"])
    reaches = [reach for reach in subject.sides["ot"].plan.reaches]
    devices = [address for reach in reaches for address in reach.addresses]
    listens = [address for listen in subject.sides["it"].plan.listens for address in listen.addresses]
    published = [*listens[:1], *there["addresses"], *_own(subject.sides["ot"]), "255.255.255.255", "224.0.0.1"]
    v4 = [text for text in dict.fromkeys([*devices[:3], *published]) if ":" not in text]
    v6 = [text for text in dict.fromkeys([*devices[:3], *published]) if ":" in text]
    return Target(
        source_mac=here["mac"],
        macs=tuple(dict.fromkeys((gate[0], there["mac"], gate[1]))),
        source_v4=next((text for text in here["addresses"] if ":" not in text), "192.0.2.1"),
        targets_v4=tuple(v4),
        source_v6=next((text for text in here["addresses"] if ":" in text), "fd00::1"),
        targets_v6=(*v6, "ff02::1", "fd00:ffff::17"),
        port=reaches[0].port if reaches else 502,
    )


def _own(side: Side) -> list[str]:
    return [text.split("/")[0] for link in side.plan.links for text in link.addresses]


def _station_of(side: Side) -> str:
    wanted = next(iter(side.interfaces.values()), "")
    return next((link["mac"] for link in side.reading["links"] if link["name"] == wanted), frames.BROADCAST)


def _plain(target: Target) -> list[Any]:
    return list(target)


def _run_in(wire: Wire, work: Any, *arguments: Any) -> Any:
    fd = os.open(NAMED / wire.namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return worker.inside(fd, work, *arguments)
    finally:
        os.close(fd)


def _station(interface: str) -> Json:
    """An interface of the calling process's namespace: its MAC and addresses."""
    with IPRoute() as netlink:
        found = netlink.link_lookup(ifname=interface)
        if not found:
            raise CofferdamError(f"there is no interface {interface} in that namespace")
        link = netlink.get_links(found[0])[0]
        addresses = [entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
                     for entry in netlink.get_addr(index=found[0])]  # fmt: skip
    return {"mac": link.get_attr("IFLA_ADDRESS"), "addresses": addresses}


# --- sending and listening --------------------------------------------------------------------------------------------


def _tokens(families: Sequence[str] = FAMILIES) -> dict[str, bytes]:
    return {family: secrets.token_bytes(TOKEN_BYTES) for family in families}


def _open(interface: str, *, listening: bool) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL) if listening else 0)
    if listening:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        # The kernel takes a VLAN tag off a frame and hands it over beside it.
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.setblocking(False)
    sock.bind((interface, _ETH_P_ALL if listening else 0))
    return sock


def _send(sock: socket.socket, target: Target, tokens: dict[str, bytes], hear: Any) -> dict[str, int]:
    sent: dict[str, int] = {}
    for _ in range(ROUNDS):
        for family, token in tokens.items():
            for frame in frames.frames(family, target, token):
                try:
                    sock.send(frame)
                    sent[family] = sent.get(family, 0) + 1
                except OSError:
                    continue  # an interface that is down sends nothing; the count says so
            hear()
    return sent


class _Ear:
    """Counts what it hears of the tokens, also inside of anything that was wrapped around them."""

    def __init__(self, sock: socket.socket, tokens: dict[str, bytes]) -> None:
        self._sock = sock
        self._tokens = tokens
        self.heard: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.frames = 0

    def drain(self) -> None:
        while True:
            try:
                data, _, _, where = self._sock.recvmsg(65536, 256)
            except (BlockingIOError, InterruptedError):
                return
            if where[2] == socket.PACKET_OUTGOING:
                continue  # what this host itself sends
            self.frames += 1
            for family, token in self._tokens.items():
                if token in data:
                    self.heard[family] = self.heard.get(family, 0) + 1
                    self.first.setdefault(family, data[:64].hex())

    def linger(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            select.select([self._sock], [], [], left)
            self.drain()

    def result(self, sent: dict[str, int]) -> Json:
        raw = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        lost = int.from_bytes(raw[4:8], "little")
        return {"sent": sent, "heard": self.heard, "first": self.first, "lost": lost, "frames": self.frames}


def _control(plain: Sequence[Any]) -> Json:
    """The same frames over a cable between two interfaces of a namespace of its own, which ends with this process."""
    target = msgspec.convert(plain, Target)
    kernel.unshare(kernel.CLONE_NEWNET)
    with IPRoute() as netlink:
        netlink.link("add", ifname="near", kind="veth", peer="far")
        for name in ("near", "far"):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")
    _wait_up("near", "far")
    tokens = _tokens()
    with _open("far", listening=True) as listener, _open("near", listening=False) as sender:
        ear = _Ear(listener, tokens)
        sent = _send(sender, target, tokens, ear.drain)
        ear.linger(LINGER_SECONDS)
        return ear.result(sent)


def _wait_up(*names: str) -> None:
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if all((Path("/sys/class/net") / name).exists() for name in names):
            states = [_carrier(name) for name in names]
            if all(states):
                return
        time.sleep(0.01)


def _carrier(name: str) -> bool:
    with IPRoute() as netlink:
        link = netlink.get_links(netlink.link_lookup(ifname=name)[0])[0]
        return str(link.get_attr("IFLA_OPERSTATE")) == "UP"


def _crossing(wires: tuple[Wire, Wire], plain: Sequence[Any]) -> Json:
    """Listens on the OT wire before anything is sent on the IT wire, in one process with a socket in each."""
    fds = [os.open(NAMED / wire.namespace, os.O_RDONLY | os.O_CLOEXEC) for wire in wires]
    try:
        result: Json = worker.inside(None, _both, fds, [wire.interface for wire in wires], list(plain))
    finally:
        for fd in fds:
            os.close(fd)
    return result


def _both(
    fds: Sequence[int], interfaces: Sequence[str], plain: Sequence[Any], families: Sequence[str] = FAMILIES
) -> Json:
    """Sends in the first namespace and listens in the second."""
    target = msgspec.convert(plain, Target)
    tokens = _tokens(families)
    kernel.setns(fds[1], kernel.CLONE_NEWNET)
    with _open(interfaces[1], listening=True) as listener:
        kernel.setns(fds[0], kernel.CLONE_NEWNET)
        with _open(interfaces[0], listening=False) as sender:
            ear = _Ear(listener, tokens)
            sent = _send(sender, target, tokens, ear.drain)
            ear.linger(LINGER_SECONDS)
            return ear.result(sent)
