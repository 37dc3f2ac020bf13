"""The system-call filter and the Landlock rules that a half puts on itself once it is configured. They cannot be
taken off, and need no privilege.

What a half may still do: read, write and close descriptors that it has, wait for them, manage its own memory (never
executable), ask for the time. An outer half may also accept connections at the listeners it was born with; an inner
half may make TCP sockets and connect them. The name server does as an outer half, and takes and sends datagrams.
Nothing that passes a structure of pointers (sendmsg, recvmsg) is allowed, since a filter cannot look into it, and so
no descriptor can be passed by any socket.

Calls by which Python or the C library merely ask for files or facts fail with EPERM, so that a traceback still prints
(without its source lines). Anything else ends the process at once.

Not here: the filter's machine language (bpf), namespaces and users (namespaces).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final, Literal

from cofferdam.enforce import bpf
from cofferdam.enforce.bpf import Is, Lacks, Rule
from cofferdam.enforce.syscalls import NUMBERS

HalfRole = Literal["outer", "inner", "names"]
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
_AT_EMPTY_PATH: Final = 0x1000
_F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = 1, 2, 3, 4
_AF_INET, _AF_INET6, _SOCK_STREAM, _SOCK_FLAGS = 2, 10, 1, 0o4000 | 0o2000000
_SOL_SOCKET, _IPPROTO_TCP, _TCP_NODELAY, _SO_SNDBUF = 1, 6, 1, 7
_SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN = 3, 4, 38, 39

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION = 444, 446, 1
# Rights that each ABI of Landlock added (linux/landlock.h): all files; TCP bind and connect; signals and sockets.
_FILES_BY_ABI: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND, _NET_CONNECT = 1, 2
_SCOPED: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)


def rules(role: HalfRole, machine: str, pid: int) -> list[Rule]:
    """The filter of a half, rule by rule. `pid`: its own process id as it sees it; it may signal itself (abort)."""
    numbers = NUMBERS[machine]
    found = [Rule(numbers[name]) for name in ALWAYS if name in numbers]

    def allow(name: str, *conditions: Is | Lacks) -> None:
        if name in numbers:
            found.append(Rule(numbers[name], bpf.ALLOW, conditions))

    for name in ("mmap", "mprotect"):
        allow(name, Lacks(2, _PROT_EXEC))
    allow("fcntl", Is(1, (_F_GETFL, _F_SETFL, _F_GETFD, _F_SETFD)))
    allow("ioctl", Is(1, (_FIONBIO,)))
    # fstat() of newer C libraries: no name is looked up, only the descriptor.
    allow("newfstatat", Is(3, (_AT_EMPTY_PATH,)))
    allow("setsockopt", Is(1, (_IPPROTO_TCP,)), Is(2, (_TCP_NODELAY,)))
    allow("setsockopt", Is(1, (_SOL_SOCKET,)), Is(2, (_SO_SNDBUF,)))
    allow("getsockopt", Is(1, (_SOL_SOCKET,)), Is(2, (_SO_TYPE, _SO_ERROR, _SO_PROTOCOL, _SO_DOMAIN)))
    allow("tgkill", Is(0, (pid,)))
    if role in ("outer", "names"):
        allow("accept4")
        allow("accept")
        if role == "names":  # datagrams, by the sockets that it was born with
            allow("recvfrom")
            allow("sendto")
    else:
        allow("socket", Is(0, (_AF_INET, _AF_INET6)), Is(1, (_SOCK_STREAM,), ignoring=_SOCK_FLAGS), Is(2, (0, 6)))
        allow("connect")
    found += [Rule(numbers[name], bpf.fail_with(errno.EPERM)) for name in REFUSED if name in numbers]
    return found


def program(role: HalfRole, machine: str, pid: int) -> bytes:
    """The filter in machine language. Raises: ValueError for a processor that it is not written for."""
    if machine not in NUMBERS:
        raise ValueError(f"no system-call filter for the processor {machine}")
    return bpf.assemble(machine, rules(role, machine, pid), bpf.KILL)


def confine(role: str) -> tuple[Fact, ...]:
    """Puts the calling process, which has one thread, under its filter, and says what is in force now."""
    if role not in ("outer", "inner", "names"):
        raise ValueError(f"no filter is written for a {role}")
    half: HalfRole = "outer" if role == "outer" else "inner" if role == "inner" else "names"
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    landlock = _landlock(half)
    return (_filter(half), landlock)


def _filter(role: HalfRole) -> Fact:
    name = "system-call filter"
    try:
        code = program(role, platform.machine(), os.getpid())
    except ValueError as error:
        return (name, False, str(error))
    length = len(code) // 8
    held = ctypes.create_string_buffer(code, len(code))
    head = ctypes.create_string_buffer(struct.pack("@HP", length, ctypes.addressof(held)))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(head), 0, 0) != 0:
        return (name, False, f"this kernel does not take it: {os.strerror(ctypes.get_errno())}")
    can = "makes TCP connections and accepts none" if role == "inner" else "accepts connections and makes none"
    who = "name server" if role == "names" else f"{role} half"
    return (name, True, f"{length} instructions; the {who} {can}, opens no file, starts nothing")


def _landlock(role: HalfRole) -> Fact:
    """No file can be opened, no port bound; an outer half cannot connect. An inner half's connections are left to the
    filter and the firewall, since a new policy may name other ports."""
    name = "landlock"
    version = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return (name, False, "this kernel has no Landlock (it would be one more layer)")
    files = next(_FILES_BY_ABI[abi] for abi in sorted(_FILES_BY_ABI, reverse=True) if abi <= version)
    net = 0 if version < 4 else _NET_BIND | (0 if role == "inner" else _NET_CONNECT)
    attributes = struct.pack("@QQQ", files, net, _SCOPED if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    held = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE), ctypes.byref(held), ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return (name, False, f"the kernel refuses it: {os.strerror(ctypes.get_errno())}")
    try:
        done = _libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0))
        if done != 0:
            return (name, False, f"the kernel refuses it: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)
    what = ["no file", *(["no port bound"] if net else []), *(["no connection"] if net & _NET_CONNECT else [])]
    return (name, True, f"ABI {version}: {', '.join(what)}")


def names(found: Sequence[Rule], machine: str) -> tuple[str, ...]:
    """The calls that a filter allows, with or without conditions, by name and sorted."""
    by_number = {number: name for name, number in NUMBERS[machine].items()}
    return tuple(sorted({by_number[rule.number] for rule in found if rule.verdict == bpf.ALLOW}))
