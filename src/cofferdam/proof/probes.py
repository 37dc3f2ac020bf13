"""Part (d): forbidden system calls, tried in the sandbox of each kind of part that runs, and of the tunnel's program.

One process is put in a part's place by the code that does it for parts. A probe is a fresh child of it, which takes the
part's limits, closes all it has, puts the part's filter on, and then makes one call after the other with arguments that
the kernel would take. It ends by one, and the next probe goes on behind that; or it says with which error a call came
back. An error other than "not permitted" means that the filter let the call through, and that probe makes no other.
Which calls a part may make, its profile says: all others must be refused. wireguard-go is a program of its own: for it
the probe has its filter, and nothing else of its place.

Not here: the filter (sandbox), namespaces and users (namespaces).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from cofferdam.enforce import firewall, journal, sandbox
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.forked import how
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.namespaces import NamespaceIsolation
from cofferdam.enforce.orders import Place
from cofferdam.enforce.overlay import tunnel
from cofferdam.enforce.profile import Can, Profile
from cofferdam.enforce.syscalls import NUMBERS
from cofferdam.errors import CofferdamError
from cofferdam.proof import strangers
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Subject, road

PART = "probes"
SILENT: Final = "no answer, and nothing says that the packet did not go out"
_TRY, _FILTER, _REFUSAL, _DONE = "try ", "ended by the filter", "refused", "done"
_REFUSED: Final = (errno.EPERM, errno.EACCES, errno.EROFS)
_libc = ctypes.CDLL(None, use_errno=True)
_call = _libc.syscall
_call.restype = ctypes.c_long


class Hands(NamedTuple):
    """What a probe may have in its hands before the filter comes: things of the kinds that an intruder would want."""

    pipe_read: int
    pipe_write: int
    near: int
    far: int
    listener: int


class Attempt(NamedTuple):
    """`make(hands)` gives the call's arguments. Every sandbox must refuse it, but for profiles with one of `unless`."""

    name: str
    call: str
    make: Callable[[Hands], tuple[int | bytes | ctypes.Array[ctypes.c_char] | None, ...]]
    unless: Can = Can.NOTHING

    def asked_of(self, profile: Profile | None) -> bool:
        """Whether this process can make the call, and the sandbox must refuse it. `profile`: None for the tunnel's
        program."""
        known = self.call in NUMBERS[platform.machine()]
        return known and (self in _OF_TUNNEL if profile is None else not profile.can & self.unless)


def _sendmsg(hands: Hands) -> tuple[int | bytes | ctypes.Array[ctypes.c_char] | None, ...]:
    """A message that hands over a descriptor (SCM_RIGHTS)."""
    text = ctypes.create_string_buffer(b"x", 1)
    vector = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(text), 1), 16)
    control = struct.pack("@Niii", 20, socket.SOL_SOCKET, 1, hands.pipe_read) + bytes(4)
    held = ctypes.create_string_buffer(control, len(control))
    message = struct.pack("@PIPNPNi", 0, 0, ctypes.addressof(vector), 1, ctypes.addressof(held), len(control), 0)
    _KEPT.extend((text, vector, held))
    return hands.near, ctypes.create_string_buffer(message, len(message) + 8), 0


_KEPT: list[object] = []
_PATH: Final = b"/usr/bin/env\0"
_FILES: Final = Can.STORE | Can.READ
_ADDRESS: Final = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", 502, bytes([127, 0, 0, 1]))


def _family(family: int, kind: int, protocol: int = 0) -> Callable[[Hands], tuple[int, ...]]:
    return lambda _: (family, kind, protocol)


ATTEMPTS: Final[tuple[Attempt, ...]] = (
    Attempt("TCP socket", "socket", _family(2, 1), Can.DIAL_TCP),
    Attempt("IPv6 TCP socket", "socket", _family(10, 1), Can.DIAL_TCP),
    Attempt("UDP socket", "socket", _family(2, 2), Can.DIAL_UDP),
    Attempt("ICMP socket", "socket", _family(2, 2, 1), Can.PING),
    Attempt("raw IP socket", "socket", _family(2, 3, 255)),
    Attempt("packet socket", "socket", _family(17, 3, 0x0300)),
    Attempt("Unix socket", "socket", _family(1, 1)),
    Attempt("netlink socket", "socket", _family(16, 3)),
    Attempt("vsock socket", "socket", _family(40, 1)),
    Attempt("MPTCP socket", "socket", _family(2, 1, 262)),
    Attempt("crypto socket", "socket", _family(38, 5)),
    Attempt("pair of sockets", "socketpair", lambda _: (1, 1, 0, ctypes.create_string_buffer(8))),
    Attempt("bind", "bind", lambda h: (h.listener, _ADDRESS, 16), Can.BIND_UDP),
    Attempt("listen", "listen", lambda h: (h.listener, 1)),
    Attempt("connect", "connect", lambda h: (h.listener, _ADDRESS, 16), Can.DIAL_TCP | Can.DIAL_UDP | Can.PING),
    Attempt("accept", "accept4", lambda h: (h.listener, None, None, 0o4000), Can.ACCEPT),
    Attempt("pass a descriptor", "sendmsg", _sendmsg),
    Attempt("pass descriptors, many", "sendmmsg", lambda h: (h.near, ctypes.create_string_buffer(64), 1, 0)),
    Attempt("take a descriptor", "recvmsg", lambda h: (h.far, ctypes.create_string_buffer(64), 0x40)),
    Attempt("send a datagram", "sendto", lambda h: (h.near, b"x", 1, 0x40, _ADDRESS, 16), Can.DATAGRAMS),
    Attempt("send and connect", "sendto", lambda h: (h.listener, b"x", 1, 0x20000000, _ADDRESS, 16)),
    Attempt("take a datagram", "recvfrom", lambda h: (h.far, ctypes.create_string_buffer(9), 9, 0x40,
            ctypes.create_string_buffer(16), ctypes.create_string_buffer(struct.pack("i", 16))), Can.DATAGRAMS),
    Attempt("open a file", "openat", lambda _: (-100, b"/\0", 0, 0), _FILES),
    Attempt("open a file, old call", "open", lambda _: (b"/\0", 0, 0), _FILES),
    Attempt("make a file", "openat", lambda _: (-100, b"/cofferdam-probe\0", os.O_CREAT | os.O_WRONLY, 0o600)),
    Attempt("make a folder", "mkdirat", lambda _: (-100, b"/cofferdam-probe\0", 0o700)),
    Attempt("remove a file", "unlinkat", lambda _: (-100, b"/cofferdam-probe\0", 0), Can.STORE),
    Attempt("link a file", "linkat", lambda _: (-100, _PATH, -100, b"/cofferdam-probe\0", 0)),
    Attempt("make a device", "mknodat", lambda _: (-100, b"/cofferdam-probe\0", 0o020600, 0x0103)),
    Attempt("lock a file", "fcntl", lambda h: (h.pipe_read, 6, ctypes.create_string_buffer(64)), _FILES),
    Attempt("open a file, new call", "openat2", lambda _: (-100, b"/\0", ctypes.create_string_buffer(24), 24)),
    Attempt("reopen its pipe", "openat", lambda h: (-100, f"/proc/self/fd/{h.pipe_read}\0".encode(), 1, 0),
            Can.STORE),
    Attempt("file without a name", "memfd_create", lambda _: (b"x\0", 0)),
    Attempt("open by handle", "open_by_handle_at", lambda _: (-100, ctypes.create_string_buffer(128), 0)),
    Attempt("fork", "fork", lambda _: ()),
    Attempt("vfork", "vfork", lambda _: ()),
    Attempt("clone", "clone", lambda _: (17, None, None, None, 0)),
    Attempt("clone into a namespace", "clone", lambda _: (0x10000000 | 17, None, None, None, 0)),
    Attempt("clone, new call", "clone3", lambda _: (ctypes.create_string_buffer(88), 88), Can.READ),
    Attempt("start a program", "execve", lambda _: (_PATH, None, None)),
    Attempt("start a program by descriptor", "execveat", lambda _: (-100, _PATH, None, None, 0)),
    Attempt("trace a process", "ptrace", lambda _: (0, 0, 0, 0)),
    Attempt("read another's memory", "process_vm_readv", lambda _: (1, None, 0, None, 0, 0)),
    Attempt("write another's memory", "process_vm_writev", lambda _: (1, None, 0, None, 0, 0)),
    Attempt("descriptor of a process", "pidfd_open", lambda _: (os.getpid(), 0)),
    Attempt("take a process's descriptor", "pidfd_getfd", lambda h: (h.near, 0, 0)),
    Attempt("signal all", "kill", lambda _: (-1, 0)),
    Attempt("signal the parent", "kill", lambda _: (os.getppid() or 1, 0)),
    Attempt("signal a thread", "tkill", lambda _: (1, 0)),
    Attempt("enter a namespace", "setns", lambda h: (h.near, 0)),
    Attempt("make a namespace", "unshare", lambda _: (0x10000000,)),
    Attempt("mount", "mount", lambda _: (b"x\0", b"/\0", b"tmpfs\0", 0, None)),
    Attempt("unmount", "umount2", lambda _: (b"/\0", 2)),
    Attempt("become root", "setuid", lambda _: (0,)),
    Attempt("executable memory", "mmap", lambda _: (None, 4096, 7, 0x22, -1, 0)),
    Attempt("make memory executable", "mprotect", lambda _: (_page(), 4096, 5)),
    Attempt("make memory executable by key", "pkey_mprotect", lambda _: (_page(), 4096, 5, -1)),
    Attempt("io_uring", "io_uring_setup", lambda _: (8, ctypes.create_string_buffer(120))),
    Attempt("io_uring, enter", "io_uring_enter", lambda _: (0, 1, 0, 0, None, 0)),
    Attempt("io_uring, register", "io_uring_register", lambda _: (0, 0, None, 0)),
    Attempt("BPF", "bpf", lambda _: (0, ctypes.create_string_buffer(128), 128)),
    Attempt("performance counters", "perf_event_open", lambda _: (ctypes.create_string_buffer(128), 0, -1, -1, 0)),
    Attempt("page faults", "userfaultfd", lambda _: (1,)),
    Attempt("keys", "keyctl", lambda _: (0, -1, 0)),
    Attempt("kernel module", "init_module", lambda _: (ctypes.create_string_buffer(8), 8, b"\0")),
    Attempt("another filter", "seccomp", lambda _: (1, 0, ctypes.create_string_buffer(16))),
    Attempt("become traceable", "prctl", lambda _: (4, 1, 0, 0, 0)),
    Attempt("raise a limit", "prlimit64", lambda _: (0, 6, None, ctypes.create_string_buffer(16))),
    Attempt("own the terminal's input", "ioctl", lambda h: (h.near, 0x5412, b"x")),
    Attempt("keep alive", "setsockopt", lambda h: (h.listener, 1, 9, struct.pack("i", 1), 4), Can.KEEPALIVE),
    Attempt("reuse of a port", "setsockopt", lambda h: (h.listener, 1, 15, struct.pack("i", 1), 4)),
)  # fmt: skip


_OF_TUNNEL: Final = frozenset(
    attempt
    for attempt in ATTEMPTS
    if attempt.call in tunnel.NEVER or attempt.name in (
        "TCP socket", "IPv6 TCP socket", "raw IP socket", "packet socket", "Unix socket", "vsock socket",
        "MPTCP socket", "crypto socket", "clone into a namespace",
    )
)  # fmt: skip
"""What wireguard-go's filter refuses; all else it lets a Go runtime do."""


def _page() -> int:
    held = ctypes.create_string_buffer(8192)
    _KEPT.append(held)
    return (ctypes.addressof(held) + 4095) & ~4095


def state(subject: Subject, policy: Path, out: Statements) -> None:
    """One statement for each kind of part and attempt that is not refused, and one for all that are."""
    wanted: dict[str, Part] = {}
    for part in subject.parts:
        wanted.setdefault(subject.profile(part).name, part)
    if "leaks" in subject.crews:  # it lives for one round, and none is under way while a proof is
        wanted["leaks/probe"] = Part("leaks/probe", "leaks", "leaks", "probe", 0, "it")
    if not wanted:
        out.say(PART, "sandboxes", "failed", "no part runs, so no sandbox is known")
    for name, part in sorted(wanted.items()):
        _try_all(subject, policy, name, part, out)
    if strangers.tunnel_programs(subject.launcher):
        _try_all(subject, policy, "tunnel", None, out)


def _try_all(subject: Subject, policy: Path, name: str, part: Part | None, out: Statements) -> None:
    profile = subject.profile(part) if part is not None else None
    refused: list[str] = []
    try:
        with _isolation(subject, policy) as isolation, _folder(isolation) as folder:
            berth = _berth(subject, isolation, part, folder) if part is not None else None
            asked = [attempt for attempt in ATTEMPTS if attempt.asked_of(profile)]
            control, *answers = _run_each(isolation, berth, [None, *asked])
            if control != _DONE:
                out.say(PART, f"{name}: control", "failed", f"a probe of the {name} sandbox did not run: {control}")
                return
            for attempt, said in zip(asked, answers, strict=True):
                if said.startswith((_FILTER, _REFUSAL)):
                    refused.append(f"{attempt.name} ({attempt.call}): {said}")
                else:
                    out.say(PART, f"{name}: {attempt.name}", "failed",
                            f"{attempt.call} is not refused in the {name} sandbox: {said}")  # fmt: skip
            if berth is not None and Can.DIAL_TCP in berth.profile.can:
                _connections(subject, isolation, name, berth, out)
    except CofferdamError as error:
        out.say(PART, f"{name}: sandbox", "failed", f"no probe could be put in its place: {error}")
        return
    out.say(PART, f"{name}: system calls", "tested", f"{len(refused)} forbidden calls are refused in the {name} "
            "sandbox; a probe that makes none runs to its end", refused)  # fmt: skip


def _berth(subject: Subject, isolation: NamespaceIsolation, part: Part, folder: Path) -> Berth:
    """Where a probe for this part stands: in its place, as its user; with an empty folder, where the part has a store
    or folders, or sees one."""
    profile = subject.profile(part)
    place = None
    if part.side:
        side = subject.sides[part.side]
        place = Place(side.plan.side, next(iter(side.interfaces), ""))
    user = subject.users.get(f"{road(part.crew)}/{part.part}", isolation.probe_user)
    return Berth(
        profile, user, place, folder if profile.store or profile.folders else None, profile.quota,
        reads={folder: user} if profile.reads else {},
    )  # fmt: skip


@contextlib.contextmanager
def _folder(isolation: NamespaceIsolation) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-probe-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextlib.contextmanager
def _isolation(subject: Subject, policy: Path) -> Iterator[NamespaceIsolation]:
    """The launcher's own code for putting a part in its place, by the running gate's journal."""
    made = NamespaceIsolation(subject.state, policy)
    made._journal = journal.load(subject.state)
    made._plan = subject.plan
    yield made


def _connections(subject: Subject, isolation: NamespaceIsolation, name: str, berth: Berth, out: Statements) -> None:
    """A part may make TCP connections: where to, the firewall says. Tried by one without a filter."""
    place = berth.place
    if place is None:
        return
    space = subject.plan.space_of(place.side, place.zone)
    plan = subject.sides[space].plan
    who = next((name for name, user in subject.users.items() if user == berth.user), "")
    declared = {(address, reach.port) for reach in plan.reaches for address in reach.addresses if reach.who == who}
    if not declared:
        return
    address, port = sorted(declared)[0]
    others = [(address, port % 65535 + 1), (_neighbour(address), port)]
    others += [(other, 502) for listen in subject.sides["it"].plan.listens for other in listen.addresses[:1]]
    wrong: list[str] = []
    good: list[str] = []
    another = replace(berth, user=isolation.probe_user)
    tries = [(another, (address, port)), *((berth, target) for target in others if target not in declared)]
    for one, target in tries:
        before = subject.sides[space].run(_dropped, subject.nft)
        said = _run(isolation, one, target)
        if said == SILENT and subject.sides[space].run(_dropped, subject.nft) > before:
            said = "refused: the firewall dropped it, and counted it"
        who = " as another user" if one is another else ""
        (good if said.startswith(("refused", "unreachable")) else wrong).append(f"{target[0]}:{target[1]}{who}: {said}")
    out.check(PART, f"{name}: connections", "connects to nothing but the devices that the policy names, and no other "
              "user connects to those", wrong, good,
              status="tested")  # fmt: skip


def _dropped(nft: str) -> int:
    """How many outgoing packets the rules of the calling process's namespace have dropped."""
    listed = firewall.live(nft)["nftables"]
    counters = [entry["counter"] for entry in listed if "counter" in entry]
    return sum(int(counter["packets"]) for counter in counters if counter["name"] == "dropped-output")


def _neighbour(address: str) -> str:
    import ipaddress

    one = ipaddress.ip_address(address)
    return str(one + 1 if int(one) % 256 < 254 else one - 1)


_What = Attempt | tuple[str, int] | None
"""What a probe tries: a call, a TCP connection, or nothing at all (the control)."""


def _run(isolation: NamespaceIsolation, berth: Berth | None, what: _What) -> str:
    """What became of one probe."""
    return _run_each(isolation, berth, [what])[0]


def _run_each(isolation: NamespaceIsolation, berth: Berth | None, whats: Sequence[_What]) -> list[str]:
    """What became of each call. As many probes as it takes, since the filter ends them.

    They are born where the part stands, of one process that was put in its place once. `berth`: None for the tunnel's
    program, which stands with the host.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    with isolation.forking(berth.profile if berth is not None else GATE):
        pid = os.fork()
        if pid == 0:
            _stand(isolation, berth, whats, write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        raw = pipe.read()
    _, status = os.waitpid(pid, 0)
    try:
        answers = [str(answer) for answer in json.loads(raw)]
    except ValueError:
        answers = []
    if len(answers) != len(whats):  # it was not put in its place, or did not live to the end
        return [
            f"no probe came to its end: {raw.decode(errors='replace')[:500]} ({how(os.waitstatus_to_exitcode(status))})"
        ] * len(whats)
    return answers


def _stand(isolation: NamespaceIsolation, berth: Berth | None, whats: Sequence[_What], pipe: int) -> None:
    """In the fresh process: takes its place, has one child try each, and says what they said. Nothing returns."""
    try:
        try:
            if berth is None:
                isolation.become_probe()
            else:
                os.setsid()
                isolation.stand(berth)
            os.dup2(pipe, 3)
            os.closerange(4, 65536)
            answers: list[str] = []
            while len(answers) < len(whats):
                answers += _born(berth, whats[len(answers) :])
            said = json.dumps(answers).encode()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}".encode()
        while said:
            said = said[os.write(3, said) :]
    finally:
        os._exit(0)


def _born(berth: Berth | None, whats: Sequence[_What]) -> list[str]:
    """What became of the first ones: of one at least, and of no more than one that was not refused."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _probe(berth, whats, write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        *found, last = pipe.read().decode().split("\n")
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        by_filter = number == signal.SIGSYS and last == _TRY
        found.append(_FILTER if by_filter else f"died of {signal.Signals(number).name} after {last!r}")
    elif last or not found:
        ended = f"ended with {os.waitstatus_to_exitcode(status)} before it said anything"
        found.append(last.removeprefix(_TRY) or ended)
    answers = [one.removeprefix(_TRY) for one in found]
    # Behind a call that worked, there may be another who speaks (a fork's child).
    end = next((at for at, one in enumerate(answers, 1) if not one.startswith((_REFUSAL, _DONE))), len(answers))
    return answers[:end]


def _probe(berth: Berth | None, whats: Sequence[_What], pipe: int) -> None:
    """In the process that tries. Nothing returns from here."""
    try:
        if berth is not None:
            berth.limit()
        os.dup2(pipe, 3)
        os.closerange(4, 65536)
        near, far = socket.socketpair()
        ends = os.pipe()
        family = socket.socket()
        hands = Hands(*ends, near.detach(), far.detach(), family.detach())
        first = whats[0]
        if isinstance(first, tuple) and not isinstance(first, Attempt):
            os.write(3, _try_connection(first).encode())
            os._exit(0)
        if berth is None:
            tunnel.confine_program()
            there, why = platform.machine() in NUMBERS, "none is written for this processor"
        else:
            _, there, why = sandbox.confine(berth.profile, berth.writes, tuple(berth.reads))[0]
        if not there:
            os.write(3, f"no filter: {why}".encode())
            os._exit(0)
        for what in whats:
            if not isinstance(what, Attempt):
                os.write(3, f"{_DONE}\n".encode())
                continue
            said = _try(what, hands)
            os.write(3, f"{said}\n".encode())
            if not said.startswith(_REFUSAL):
                break  # what it has changed is in nobody's way
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(3, f"the probe failed: {error}".encode())
    finally:
        os._exit(0)


def _try(what: Attempt, hands: Hands) -> str:
    """Makes the call under the filter, which may end the process."""
    arguments = [_argument(value) for value in what.make(hands)]
    os.write(3, _TRY.encode())
    result = _call(ctypes.c_long(NUMBERS[platform.machine()][what.call]), *arguments)
    number = ctypes.get_errno()
    if result >= 0:
        return f"it worked ({result})"
    if number in _REFUSED:
        return f"{_REFUSAL}, {errno.errorcode[number]}"
    return f"it reached the kernel, which said {errno.errorcode.get(number, number)}"


def _argument(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _try_connection(target: tuple[str, int]) -> str:
    six = ":" in target[0]
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect(target)
        except TimeoutError:
            return SILENT
        except OSError as error:
            if error.errno in _REFUSED:
                return "refused by the firewall"
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return "unreachable"
            return f"it went out: {error.strerror}"
        return "it worked"
