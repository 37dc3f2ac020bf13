"""The system-call filter and the Landlock rules that a part puts on itself once it is configured. They cannot be taken
off, and need no privilege.

What every part may still do: read, write and close descriptors that it has, wait for them, manage its own memory
(executable with Can.CODE alone), ask for the time. What it may do besides follows from its profile: each flag of `Can`
is a row of `CLASSES`. Nothing that passes a structure of pointers (sendmsg, recvmsg) is allowed, since a filter cannot
look into it, and so no descriptor can be passed by any socket.

Calls by which Python or the C library merely ask for files or facts fail with EPERM, so that a traceback still prints
(without its source lines). Anything else ends the process at once.

Not here: the filter's machine language (bpf), which part may do what (profile), namespaces and users (namespaces).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cofferdam.enforce import bpf
from cofferdam.enforce.bpf import CallRule, Is, Lacks, Null
from cofferdam.enforce.profile import Can, Profile
from cofferdam.enforce.syscalls import NUMBERS

Fact = tuple[str, bool, str]

ALWAYS: Final = (
    # The hot path first: a filter is read from the top.
    "read", "write", "epoll_wait", "epoll_pwait", "sched_yield", "epoll_ctl", "close", "clock_gettime",
    "epoll_pwait2", "futex", "munmap", "brk", "mremap", "madvise", "rt_sigreturn", "rt_sigprocmask", "rt_sigaction",
    "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "gettimeofday", "time", "getrandom",
    "clock_nanosleep", "nanosleep", "restart_syscall", "sigaltstack", "fstat", "lseek", "poll", "ppoll", "writev",
    "readv", "getsockname", "getpeername", "shutdown", "sysinfo", "uname", "getrusage", "exit", "exit_group",
)  # fmt: skip
"""Allowed whatever their arguments: they reach no further than what the process has."""
REFUSED: Final = (
    "open", "openat", "openat2", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2",
    "readlink", "readlinkat", "getcwd", "getdents64", "ioctl", "fcntl", "prctl", "prlimit64", "sched_getaffinity",
    "socket", "setsockopt", "getsockopt", "kill", "tkill", "tgkill", "mprotect", "mmap", "dup",
)  # fmt: skip
"""Answered with EPERM, where no rule allows them."""

_PROT_EXEC: Final = 4
_FIONBIO: Final = 0x5421
_SIOCOUTQ: Final = 0x5411
_AT_EMPTY_PATH: Final = 0x1000
_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = 1, 2, 3, 4
_LOCKS: Final = (5, 6, 7, 36, 37, 38)
"""F_GETLK, F_SETLK, F_SETLKW, and those of open file descriptions."""
_F_SETPIPE_SZ, _S_IFIFO = 1031, 0o010000
_AF_UNIX: Final = 1
_AF_INET, _AF_INET6, _SOCK_STREAM, _SOCK_DGRAM, _SOCK_FLAGS = 2, 10, 1, 2, 0o4000 | 0o2000000
_SOL_SOCKET, _IPPROTO_TCP, _IPPROTO_UDP, _TCP_NODELAY, _SO_SNDBUF, _SO_KEEPALIVE = 1, 6, 17, 1, 7, 9
_ICMP: Final = (1, 58)
"""IPPROTO_ICMP, IPPROTO_ICMPV6."""
_SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN = 3, 4, 38, 39
_KEEPALIVE: Final = (4, 5, 6, 18)
"""TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT."""
_MSG_FASTOPEN: Final = 0x20000000
_O_WRITES: Final = 0o3 | 0o100 | 0o1000 | 0o20000000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and what makes a temporary file: the same on every processor."""
_THREAD: Final = 0x003D0F00
"""The flags by which the C library makes a thread; with any other, clone makes something else."""


_READS: Final = ("read", "readv", "recvfrom", "recvmmsg")
_WRITES: Final = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
"""What comes in, or goes out, by a descriptor; whatever else would is in no class."""


class Row(NamedTuple):
    """A call that is let through if all conditions hold."""

    call: str
    conditions: tuple[Is | Lacks | Null, ...] = ()
    verdict: int = bpf.ALLOW


_BASE: Final = (
    *(Row(name, (Lacks(2, _PROT_EXEC),)) for name in ("mmap", "mprotect")),
    Row("fcntl", (Is(1, (_F_GETFL, _F_SETFL, _F_GETFD, _F_SETFD)),)),
    Row("ioctl", (Is(1, (_FIONBIO,)),)),
    # fstat() of newer C libraries: no name is looked up, only the descriptor.
    Row("newfstatat", (Is(3, (_AT_EMPTY_PATH,)),)),
    Row("setsockopt", (Is(1, (_IPPROTO_TCP,)), Is(2, (_TCP_NODELAY,)))),
    Row("setsockopt", (Is(1, (_SOL_SOCKET,)), Is(2, (_SO_SNDBUF,)))),
    Row("getsockopt", (Is(1, (_SOL_SOCKET,)), Is(2, (_SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN)))),
)
_LOOK: Final = (
    "newfstatat", "stat", "lstat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd",
    "getdents64", "statfs", "fstatfs", "pread64", "fadvise64",
)  # fmt: skip
"""Asking about files. Which of them there are to ask about, mounts and Landlock say."""
_CHANGE: Final = (
    "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod", "unlink", "unlinkat", "rename", "renameat",
    "renameat2", "mkdir", "mkdirat", "rmdir",
)  # fmt: skip


def _socket(kind: int, protocol: int) -> Row:
    which = (Is(0, (_AF_INET, _AF_INET6)), Is(1, (kind,), ignoring=_SOCK_FLAGS), Is(2, (0, protocol)))
    return Row("socket", which)


CLASSES: Final[dict[Can, tuple[Row, ...]]] = {
    Can.ACCEPT: (Row("accept4"), Row("accept")),
    Can.DIAL_TCP: (_socket(_SOCK_STREAM, _IPPROTO_TCP), Row("connect")),
    # send() and recv() of the C library: without an address, so to nobody but the socket's own peer.
    Can.STREAM: (
        Row("recvfrom", (Null(4), Null(5))),
        Row("sendto", (Null(4), Lacks(3, _MSG_FASTOPEN))),
        Row("ioctl", (Is(1, (_SIOCOUTQ,)),)),  # how much of it the other side has not confirmed
    ),
    Can.KEEPALIVE: (
        Row("setsockopt", (Is(1, (_SOL_SOCKET,)), Is(2, (_SO_KEEPALIVE,)))),
        Row("setsockopt", (Is(1, (_IPPROTO_TCP,)), Is(2, _KEEPALIVE))),
    ),
    # Which sockets these may be used with is a matter of which there are: none can be made, and TCP takes no address.
    Can.DATAGRAMS: (Row("recvfrom"), Row("sendto", (Lacks(3, _MSG_FASTOPEN),))),
    # Many datagrams a call. It passes pointers, which no filter can look into: what it may be used with are pipes,
    # where it fails, and a UDP socket, by which no descriptor travels.
    Can.COLLECT: (Row("recvmmsg"),),
    Can.EMIT: (),
    Can.DIAL_UDP: (_socket(_SOCK_DGRAM, _IPPROTO_UDP), Row("connect")),
    Can.BIND_UDP: (Row("bind"),),
    # A datagram socket of ICMP: the kernel lets an echo be asked for by it, and nothing else be sent. For whom it makes
    # one, the namespace says (ping_group_range).
    Can.PING: (
        Row("socket", (Is(0, (_AF_INET, _AF_INET6)), Is(1, (_SOCK_DGRAM,), ignoring=_SOCK_FLAGS), Is(2, _ICMP))),
        Row("connect"),
    ),
    Can.DIAL_LOCAL: (
        Row("socket", (Is(0, (_AF_UNIX,)), Is(1, (_SOCK_STREAM,), ignoring=_SOCK_FLAGS), Is(2, (0,)))), Row("connect"),
    ),
    Can.CODE: (Row("mmap"), Row("mprotect")),
    Can.STORE: (
        Row("openat"), Row("open"), Row("fcntl", (Is(1, _LOCKS),)), *map(Row, (*_LOOK, *_CHANGE)),
        Row("fchown", (), bpf.fail_with(errno.EPERM)),  # SQLite asks for it as root, and does without
    ),
    Can.READ: (
        Row("openat", (Lacks(2, _O_WRITES),)), Row("open", (Lacks(1, _O_WRITES),)), Row("fcntl", (Is(1, _LOCKS),)),
        *map(Row, _LOOK),
        # Threads, and nothing else that clone makes. The newer call's flags lie where no filter can look.
        Row("clone", (Is(0, (_THREAD,)),)), Row("clone3", (), bpf.fail_with(errno.ENOSYS)),
        *map(Row, ("set_robust_list", "rseq", "sched_getaffinity")),
    ),
    # A named pipe and nothing else that mknod makes; and its room.
    Can.FEED: (
        Row("mknodat", (Is(2, (_S_IFIFO,), ignoring=0o777),)), Row("fcntl", (Is(1, (_F_SETPIPE_SZ,)),)),
    ),
}  # fmt: skip
"""What each flag adds: the whole of it. Not in any: listen, sendmsg, exec, fork, io_uring, devices, links."""
_WORDS: Final = {
    Can.ACCEPT: "accepts connections",
    Can.DIAL_TCP: "makes TCP connections",
    Can.DATAGRAMS: "takes and sends datagrams",
    Can.EMIT: "writes to its strand",
    Can.COLLECT: "reads from its strand",
    Can.DIAL_UDP: "makes UDP sockets",
    Can.BIND_UDP: "binds them",
    Can.PING: "asks for echoes",
    Can.DIAL_LOCAL: "connects to services of the host that are bound for it",
    Can.CODE: "makes memory executable",
    Can.STORE: "writes in its own folders",
    Can.READ: "reads what is bound for it, with threads",
    Can.FEED: "makes named pipes in its own store",
}

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION, _BENEATH = 444, 445, 446, 1, 1
# Rights that each ABI of Landlock added (linux/landlock.h): all files; TCP bind and connect; signals and sockets.
_FILES_BY_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_READ: Final = 1 << 2 | 1 << 3  # files, folders
_WRITE: Final = _READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | 1 << 14
"""Besides: write, remove folders and files, make folders and files, move between folders, truncate. Not: execute, make
devices, sockets, links; named pipes with Can.FEED alone."""
_MAKE_FIFO: Final = 1 << 10
_NET_BIND, _NET_CONNECT = 1, 2
_SCOPED: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)


def rules(can: Can, machine: str, pid: int, deaf: Sequence[int] = (), mute: Sequence[int] = ()) -> list[CallRule]:
    """A filter, rule by rule. `pid`: the part's own process id as it sees it; it may signal itself (abort). `deaf` and
    `mute`: descriptors that it may not read from, or not write to."""
    numbers = NUMBERS[machine]
    refused = bpf.fail_with(errno.EPERM)
    rows = [Row(call, (Is(0, (fd,)),), refused) for fd in deaf for call in _READS]
    rows += [Row(call, (Is(0, (fd,)),), refused) for fd in mute for call in _WRITES]
    rows += [*map(Row, ALWAYS), *_BASE, Row("tgkill", (Is(0, (pid,)),))]
    rows += [row for flag in Can if flag in can for row in CLASSES[flag]]
    rows += [Row(name, (), bpf.fail_with(errno.EPERM)) for name in REFUSED]
    return [CallRule(numbers[row.call], row.verdict, row.conditions) for row in rows if row.call in numbers]


def program(can: Can, machine: str, pid: int, deaf: Sequence[int] = (), mute: Sequence[int] = ()) -> bytes:
    """The filter in machine language. Raises: ValueError for a processor that it is not written for."""
    if machine not in NUMBERS:
        raise ValueError(f"no system-call filter for the processor {machine}")
    return bpf.assemble(machine, rules(can, machine, pid, deaf, mute), bpf.KILL)


def confine(
    profile: Profile,
    writes: Sequence[Path] = (),
    reads: Sequence[Path] = (),
    *,
    deaf: Sequence[int] = (),
    mute: Sequence[int] = (),
) -> tuple[Fact, ...]:
    """Puts the calling process, which has one thread, under the filter of its profile, and says what is in force now.

    `writes`: folders beneath which it may write, its store first; `reads`: folders beneath which it may read. `deaf`
    and `mute`: descriptors that it may not read from, or not write to.

    Raises:
        ValueError: a folder that the profile does not have, or the store that it has is missing.
    """
    short = profile.store and not writes
    if short or (writes and Can.STORE not in profile.can) or (reads and not profile.can & (Can.READ | Can.STORE)):
        raise ValueError(f"the store and what is read do not fit the profile {profile.name}")
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    landlock = _landlock(profile.can, writes, reads)
    name, in_force, detail = _filter(profile.can, deaf, mute)
    for way, fds in (("nothing comes in", deaf), ("nothing goes out", mute)):
        if fds and in_force:
            detail += f"; {way} by descriptor {', '.join(map(str, fds))}"
    return ((name, in_force, detail), landlock)


def _filter(can: Can, deaf: Sequence[int] = (), mute: Sequence[int] = ()) -> Fact:
    name = "system-call filter"
    try:
        code = program(can, platform.machine(), os.getpid(), deaf, mute)
    except ValueError as error:
        return (name, False, str(error))
    length = len(code) // 8
    held = ctypes.create_string_buffer(code, len(code))
    head = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(held)))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(head), 0, 0) != 0:
        return (name, False, f"this kernel does not take it: {os.strerror(ctypes.get_errno())}")
    does = [words for flag, words in _WORDS.items() if flag in can] or ["uses the pipes that it has"]
    return (name, True, f"{length} instructions; {', '.join(does)}, opens no {_other(can)}file, starts no program")


def _other(can: Can) -> str:
    return "other " if can & (Can.STORE | Can.READ) else ""


def _landlock(can: Can, writes: Sequence[Path], reads: Sequence[Path]) -> Fact:
    """No file but beneath what it may write or read; no TCP port is bound; no TCP connection is made by a part that
    may make none. Where others connect to is left to the firewall, since a new policy may name other ports."""
    name = "landlock"
    version = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return (name, False, "this kernel has no Landlock (it would be one more layer)")
    files = next(_FILES_BY_ABI[abi] for abi in sorted(_FILES_BY_ABI, reverse=True) if abi <= version)
    net = 0 if version < 4 else _NET_BIND | (0 if Can.DIAL_TCP in can else _NET_CONNECT)
    attributes = struct.pack("@QQQ", files, net, _SCOPED if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    held = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE), ctypes.byref(held), ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return (name, False, f"the kernel refuses it: {os.strerror(ctypes.get_errno())}")
    try:
        for path in reads:
            _beneath(ruleset, path, _READ & files)
        for number, path in enumerate(writes):
            _beneath(ruleset, path, (_WRITE | (_MAKE_FIFO if Can.FEED in can and not number else 0)) & files)
        done = _libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0))
        if done != 0:
            return (name, False, f"the kernel refuses it: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)
    what = [
        f"no file but beneath {', '.join(map(str, (*reads, *writes)))}" if reads or writes else "no file",
        *(["no port bound"] if net else []), *(["no connection"] if net & _NET_CONNECT else []),
    ]  # fmt: skip
    return (name, True, f"ABI {version}: {', '.join(what)}")


def _beneath(ruleset: int, path: Path, rights: int) -> None:
    """Lets the rights be used beneath a folder. Raises: OSError."""
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, folder), 12)
        done = _libc.syscall(
            ctypes.c_long(_LANDLOCK_ADD), ctypes.c_int(ruleset), ctypes.c_int(_BENEATH), ctypes.byref(rule),
            ctypes.c_uint32(0),
        )  # fmt: skip
        if done != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"Landlock takes no rule for {path}: {os.strerror(number)}")
    finally:
        os.close(folder)


def names(found: Sequence[CallRule], machine: str) -> tuple[str, ...]:
    """The calls that a filter allows, with or without conditions, by name and sorted."""
    by_number = {number: name for name, number in NUMBERS[machine].items()}
    return tuple(sorted({by_number[rule.number] for rule in found if rule.verdict == bpf.ALLOW}))
