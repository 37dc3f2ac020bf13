"""System calls that Python 3.11 has no function for: namespaces, mounts, capabilities, prctl. Nothing else.

Each raises OSError with what was tried. Not here: why anyone calls them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH: Final = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 1, 4, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
SECUREBITS_LOCKED: Final = 0x01 | 0x02 | 0x40 | 0x80
"""NOROOT and NO_CAP_AMBIENT_RAISE, each with its lock (capabilities(7)): user 0 would be a user like any other."""
SECUREBITS_KEPT: Final = 0x01 | 0x02 | 0x10
"""NOROOT with its lock, and KEEP_CAPS until the next program: for a change of user that keeps some."""

CAPABILITIES: Final = {
    "chown": 0, "dac_override": 1, "dac_read_search": 2, "fowner": 3, "kill": 5, "setgid": 6, "setuid": 7,
    "setpcap": 8, "net_bind_service": 10, "net_admin": 12, "net_raw": 13, "sys_chroot": 18, "sys_ptrace": 19,
    "sys_admin": 21, "sys_nice": 23, "sys_resource": 24,
}  # fmt: skip
_CAPABILITY_VERSION_3: Final = 0x20080522

PINGING: Final = "net/ipv4/ping_group_range"
"""Which groups are given ICMP sockets, of IPv6 as well; beneath /proc/sys."""

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int, more: int = 0) -> None:
    """prctl(2)."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), 0, 0), f"prctl {option}")


def setns(fd: int, kind: int) -> None:
    """setns(2): this process, or for CLONE_NEWPID its later children, enter a namespace."""
    _check(_libc.setns(fd, kind), "setns")


@contextlib.contextmanager
def opening_as(user: int) -> Iterator[None]:
    """What this process opens meanwhile is a file, or a socket, of that user (setfsuid(2)). It must have one thread
    only."""
    before = _libc.setfsuid(user)
    try:
        if _libc.setfsuid(ctypes.c_uint32(0xFFFFFFFF)) != user:
            raise OSError(errno.EPERM, f"setfsuid {user}")
        yield
    finally:
        _libc.setfsuid(before)


def unshare(kinds: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data) if data else None), f"mount {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, f"pivot_root: the processor {platform.machine()} is not known here")
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new), os.fsencode(old)), "pivot_root")


def drop_bounding_set(keep: Iterable[str] = ()) -> None:
    """No program that this process starts can ever have another capability than these."""
    kept = {CAPABILITIES[name] for name in keep}
    for number in range(64):
        if number in kept:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL and number > CAPABILITIES["sys_resource"]:
                return  # the kernel knows no more of them
            raise


def set_capabilities(names: Iterable[str], *, inherit: bool = False) -> None:
    """Permitted and effective become these. `inherit`: and what a program that it starts has; else it has none."""
    words = tuple(names)
    bits = sum(1 << CAPABILITIES[name] for name in words)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, low if inherit else 0, high, high, high if inherit else 0)
    _check(_libc.capset(header, data), "capset")
    for name in words if inherit else ():
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAPABILITIES[name])


def become(user: int, groups: Iterable[int] = (), keep: Sequence[str] = ()) -> None:
    """The calling process becomes another user for good: no capability now, none by any program, none by any user id,
    but for those of `keep`. `groups`: of what it may read."""
    prctl(PR_SET_SECUREBITS, SECUREBITS_KEPT if keep else SECUREBITS_LOCKED)
    drop_bounding_set(keep)
    os.setgroups(sorted(groups))
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    set_capabilities(keep, inherit=True)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def capabilities() -> int:
    """The effective capabilities of this process, as bits."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)


def missing_capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that this process lacks."""
    held = capabilities()
    return tuple(name for name in names if not held >> CAPABILITIES[name] & 1)


def may_not_ping(groups: Collection[int]) -> list[int]:
    """Those that are given no socket to ask for an echo, in the calling process's namespace."""
    try:
        first, last = map(int, (Path("/proc/sys") / PINGING).read_text().split())
    except (OSError, ValueError):
        return sorted(groups)
    return sorted(group for group in groups if not first <= group <= last)
