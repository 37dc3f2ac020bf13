"""What keeps the processes of the gate apart, as the launcher needs it: one interface, and its plain form.

`PlainIsolation` needs no privilege: processes, one-way pipes, closed descriptors, limits, and the end of every child
with its parent. It gives no network separation, and `describe()` says so. The form with namespaces and system-call
filters has the same interface; neither the gate nor the halves know which they run under.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.enforce import kernel
from cofferdam.enforce.fence import Looked
from cofferdam.enforce.kernel_log import KernelLog
from cofferdam.enforce.orders import FENCE, DroppedState, Fact, Place, Way
from cofferdam.enforce.plans.records import Hosted, NetworkPlan
from cofferdam.enforce.profile import MEMORY_BYTES, NICE, REALTIME_PRIORITY, Can, Profile
from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.enforce.overlay.tunnel import TunnelDevice

BACKLOG = 512
"""Connections that wait in a listener while no part accepts them (a crew restarts)."""
STRAND_BYTES = 32 << 20
"""Asked of the kernel for a socket of a strand: 50 ms of 4 Gbit/s, as the kernel counts."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_RXQ_OVFL, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 32, 33, 40, 10, 2
THREADS = 64
"""Of a part that may have any."""
YIELD_TRIES = 20
"""Of 0.1 s, to have the kernel take the priority of a session."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument.

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def forbid_inspection() -> None:
    """No other process of the same user may trace this one or read its memory. To be called by the process itself:
    the kernel lifts it at exec."""
    prctl(_PR_SET_DUMPABLE, 0)


@dataclass(frozen=True)
class Berth:
    """What a child is born into, settled before it is: `user` and `place` as far as it has one of its own; `store`, and
    `reads` with the users that they belong to; `folders`: those of the site's, by name."""

    profile: Profile
    user: int
    place: Place | None = None
    store: Path | None = None
    quota: int = 0
    shared: bool = False
    """Other parts read its store."""
    reads: Mapping[Path, int] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    sockets: tuple[Path, ...] = ()
    """Unix sockets of the host that it sees."""
    urgent: bool = False
    """The policy wants a real-time priority for it."""

    @property
    def writes(self) -> list[Path]:
        """All beneath which it may write."""
        return [*([self.store] if self.store is not None else []), *self.folders.values()]

    def lift(self) -> None:
        """Gives the calling process, which is to become the child, a session of its own and its class of scheduling, if
        that is another than everybody's: a real-time priority before it is nobody. It keeps it, and the kernel lets it
        have one of its own accord only where LimitRTPRIO= says so."""
        os.setsid()  # Ctrl-C in a terminal is for the launcher, which stops things in order
        if self.profile.yields:
            os.nice(NICE.get(self.profile.yields, 0))
            _yield_as_session()
        if self.profile.yields == "idle":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if self.urgent and self.profile.urgent:
            with contextlib.suppress(OSError):  # the part looks, and says so
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))

    def limit(self) -> None:
        """Sets the limits of the calling process, which is to become the child."""
        # The log is read by others of its group, such as an export; its key has a mode and a folder of its own.
        read_by_group = self.shared or self.profile.producers
        os.umask(0o007 if self.folders else 0o027 if read_by_group else 0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if not self.profile.confined:
            return
        threads = THREADS if Can.READ in self.profile.can else 0
        resource.setrlimit(resource.RLIMIT_AS, (self.profile.memory, self.profile.memory))
        resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if self.profile.seconds:
            cpu = int(self.profile.seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        if self.profile.store or self.profile.folders:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.quota, self.quota))


def _yield_as_session() -> None:
    """Where the kernel shares the processor out among sessions (sched_autogroup, as Debian's does), what a process
    yields counts within its own session alone, and a session has a value of its own. It is the same for all that yield:
    a third of what others get is enough to come to an end beside any of them."""
    for _ in range(YIELD_TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(NICE["some"]))
        except BlockingIOError:  # the kernel takes one in 0.1 s of all who are not root
            time.sleep(0.1)
        except OSError:  # it has no such thing
            return
        else:
            return


@dataclass(frozen=True)
class Wire:
    """An interface of a side, for one who sends frames of its own: its name and number there, its station, the
    addresses and routers that it has, and a packet socket on it."""

    name: str
    number: int
    station: str
    own: tuple[str, ...]
    routers: tuple[str, ...]
    sock: socket.socket

    @property
    def text(self) -> str:
        """All but the socket, for a command line."""
        return ",".join((self.name, str(self.number), self.station, "+".join(self.own), "+".join(self.routers)))


class Isolation(abc.ABC):
    """How children are kept apart. One object for the life of a launcher; every method is called in the launcher,
    except `child_setup`."""

    name: str
    """For `status` and the audit log, such as "processes"."""
    kernel_log: KernelLog
    """Opened with the object: the right to it is given up next."""

    def begin(self) -> None:  # noqa: B027 - most need nothing here
        """Called once, when the launcher holds the state directory and before the first child.

        Raises:
            GateError, OSError: this separation cannot be had here.
        """

    @abc.abstractmethod
    def prepare(self, plan: NetworkPlan) -> None:
        """Makes what the policy's network needs. May be called again, with another plan, while children run.

        Raises:
            GateError: something cannot be had; nothing is left half-made.
        """

    def user(self, name: str) -> int:
        """The user that a part runs as; `name` is that of its road and its own ("modbus/it-ot/outer").

        Raises:
            GateError: there is none for it.
        """
        return os.geteuid()

    def group(self, name: str) -> int:
        """The group that goes with it. Raises: GateError."""
        return os.getegid()

    def space(self, place: Place) -> str:
        """Which network a place is in: sockets of one may not be used in another."""
        return place.side

    def strand_of(self, space: str) -> str:
        """The part whose end of a strand such a network is for, "" where it is for none."""
        return ""

    def forking(self, profile: Profile) -> AbstractContextManager[None]:
        """Around the fork of a child with this profile."""
        return nullcontext()

    @abc.abstractmethod
    def open_listener(
        self, place: Place, address: str, port: int, *, datagrams: bool = False, way: Way = "", peer: str = ""
    ) -> socket.socket:
        """A listening, non-blocking TCP socket on the place's side; `datagrams`: a bound UDP socket, one that goes one
        way where `way` says so.

        Raises:
            GateError: address in use, not there, no permission; the hint says what to do.
        """

    @abc.abstractmethod
    def child_setup(self, berth: Berth) -> None:
        """Puts the calling process, a fresh fork of the launcher, in its place. exec follows. An exception ends the
        child."""

    def wires(self, place: Place) -> tuple[Wire, ...]:
        """The interfaces of a place's side, with a packet socket each.

        Raises:
            GateError: there are none, or no right to such sockets.
        """
        raise GateError("without namespaces there is no side to ask from")

    def tunnel(self) -> TunnelDevice:
        """The device by which overlay peers come, made or not.

        Raises:
            GateError: the plan has none, or it cannot be had.
        """
        raise GateError(
            "overlay peers need network namespaces, and this gate has none",
            hint="start the gate as root, with an interface for each zone in the policy",
        )

    def admit(self, who: str) -> None:  # noqa: B027 - most have no fence, and say so
        """A part is to start in the host's network.

        Raises:
            GateError: it would not be held to what it is for.
        """

    def look_at_fence(self) -> Looked | None:
        """To be called now and then: puts the fence around such parts back, where it is not as it was. What became of
        that, None where there is nothing to say. Raises nothing."""
        return None

    def dropped(self, serial: int) -> DroppedState:
        """What the firewalls have dropped so far and how the interfaces do, where there are namespaces.

        Raises:
            GateError: the kernel does not say.
        """
        return DroppedState(serial, ())

    @abc.abstractmethod
    def undo(self) -> None:
        """Takes away everything that `prepare` made. All children have ended. Idempotent, and never raises."""

    @abc.abstractmethod
    def describe(self) -> tuple[Fact, ...]:
        """What is in force, fact by fact: (name, in force, a sentence). What is missing is a fact as well."""


class PlainIsolation(Isolation):
    """Processes, pipes and limits; no privilege needed, no network separation had."""

    name = "processes"

    def __init__(self, missing: tuple[str, str] = ("the policy does not ask for them", "")) -> None:
        """`missing`: why there are no namespaces, and what would help."""
        self.kernel_log = KernelLog()
        self._launcher = os.getpid()
        self._missing = missing
        self._wanted = False
        self._hosted: tuple[Hosted, ...] = ()

    def prepare(self, plan: NetworkPlan) -> None:
        """Nothing to make: all zones share the host's network."""
        why, way_out = self._missing
        if plan.required:
            raise GateError(
                f"the policy requires network namespaces, and they cannot be had here: {why}",
                hint=f"{way_out or 'start the gate anew'}; or take `require: namespaces` (or `separation: namespaces`) "
                "out of the policy's `gate:` section",
            )
        pinging = {self.group(ping.who) for side in plan.sides for ping in side.pings}
        if missing := kernel.may_not_ping(pinging):
            low, high = min(pinging), max(pinging)
            raise GateError(
                f"this machine gives the group {missing[0]}, as which a part runs, no ICMP socket; `health: {{ping: "
                "true}` needs one",
                hint=f"`separation: namespaces`, or `sysctl -w net.ipv4.ping_group_range='{low} {high}'`, or "
                "`health: {tcp: PORT}`",
            )
        self._wanted, self._hosted = plan.namespaces, plan.hosted

    def open_listener(
        self, place: Place, address: str, port: int, *, datagrams: bool = False, way: Way = "", peer: str = ""
    ) -> socket.socket:
        return strand(address, port, peer, way) if way else listen(address, port, datagrams=datagrams)

    def child_setup(self, berth: Berth) -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._launcher:
            raise OSError(errno.ESRCH, "the launcher ended while this child started")
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        berth.limit()

    def undo(self) -> None:
        """Nothing was made."""

    def describe(self) -> tuple[Fact, ...]:
        why = (
            f"no namespaces, though the policy is ready for them ({self._missing[0]})"
            if self._wanted
            else "no namespaces"
        )
        return (
            ("no new privileges", True, "no process of the gate can gain a privilege by starting a program"),
            ("limits", True, f"a half has at most {MEMORY_BYTES >> 20} MiB and leaves no core file"),
            ("ends with the launcher", True, "the kernel ends every process of the gate when the launcher ends"),
            ("network namespaces", False, f"{why}: halves share the host's network"),
            ("mount namespaces", False, "no mount namespaces: halves see the host's files as their user does"),
            ("own users", False, f"all processes run as {_who()}"),
            ("firewall", False, "no rules of the gate's own: only the host's firewall, if any, keeps others off"),
            *self._fence_facts(),
        )

    def _fence_facts(self) -> tuple[Fact, ...]:
        """Of the fence around parts in the host's network, where there are any."""
        if not self._hosted:
            return ()
        why = "the gate was not started by root, so its exports and its witness have no users of their own to go by"
        return ((FENCE, False, f"{why}: one that is taken over reaches all that this host reaches"),)


def _who() -> str:
    """The user of this process, and what it could do."""
    if os.geteuid() != 0:
        return f"the user who started the gate (id {os.geteuid()})"
    return "root, who started the gate, with root's capabilities"


def listen(address: str, port: int, *, datagrams: bool = False, interface: str = "") -> socket.socket:
    """A listening TCP socket (or a bound UDP socket) in the calling process's network. `interface`: by which what it
    sends to groups goes, where its address does not say so; with a TTL of 1, as the kernel has it.

    Raises:
        GateError: with the address, why, and what to do.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    shown = f"[{address}]:{port}" if family == socket.AF_INET6 else f"{address}:{port}"
    kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    listener = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # A restarted gate must not wait for old connections to time out. Two live listeners still exclude each other.
        # (With UDP it would let two share a port.)
        if not datagrams:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if datagrams and interface and family == socket.AF_INET:
            index = struct.pack("4s4si", b"", b"", socket.if_nametoindex(interface))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, index)
        listener.bind((address, port))
        if not datagrams:
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise listen_error(error, f"{shown}/udp" if datagrams else shown, port) from None
    return listener


def strand(address: str, port: int, peer: str, way: Way) -> socket.socket:
    """A UDP socket between two addresses that goes one way, in the calling process's network: shut for reading, with
    room for what leaves in one go; or with a large buffer for what comes while its part is busy.

    Raises:
        GateError: with the addresses, why, and what to do.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        if way == "in":
            _room(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        else:
            _room(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind((address, port))
        sock.connect((peer, port))
        if way == "out":
            sock.shutdown(socket.SHUT_RD)
    except OSError as error:
        sock.close()
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
            raise GateError(
                f"no way from {address} to {peer}: {error.strerror}",
                hint="both ends of a strand are in one network: see `addresses` of the zones that are its ends",
            ) from None
        raise listen_error(error, f"{address}:{port}/udp", port) from None
    return sock


def _room(sock: socket.socket, force: int, ask: int) -> None:
    """A large buffer; the right to a larger one than the host allows is the launcher's alone."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, STRAND_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, ask, STRAND_BYTES)


def listen_error(error: OSError, shown: str, port: int) -> GateError:
    """An error of bind or listen as a sentence with the way out. `shown` is the address as a user writes it, with
    "/udp" behind one of datagrams."""
    if error.errno == errno.EADDRINUSE:
        kind = "u" if shown.endswith("/udp") else "t"
        return GateError(
            f"cannot listen on {shown}: the address is in use by another program",
            hint=f"`ss -l{kind}np 'sport = :{port}'` shows which; stop it, or give another address in the policy",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return GateError(
            f"cannot listen on {shown}: no permission (ports below 1024 need a privilege)",
            hint="start as root or with CAP_NET_BIND_SERVICE, or give a port of 1024 and above in the policy",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return GateError(
            f"cannot listen on {shown}: this machine has no such address",
            hint="a gate that root starts, with an `interface:` for each zone, brings its addresses along; else give "
            "the address to an interface (`ip address add`), or give the asset another `listen:`",
        )
    return GateError(f"cannot listen on {shown}: {error.strerror or error}")
