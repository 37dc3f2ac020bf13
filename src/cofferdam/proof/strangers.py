"""Processes that are not the gate's and hold something of it: a socket that lives in a side's namespace, though they
stand elsewhere, or an end of a pipe of ours, or the memory of one of our processes.

A socket belongs to the namespace in which it was made, wherever its process goes. So every socket of every process
on the host is asked where it lives (SIOCGSKNS); that finds also those that stand in no table: without an address, or
of a family that is listed nowhere.

Not here: sockets that the policy declares (structure).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

_SIOCGSKNS = 0x894C
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_MEMORY = re.compile(r"/proc/\d+/(task/\d+/)?mem")
_libc = ctypes.CDLL(None, use_errno=True)


def ours(known: Collection[int], launcher: int) -> set[int]:
    """The gate's processes: those that are known, and the launcher's other children."""
    return {*known, launcher, *children(launcher)}


def children(parent: int) -> set[int]:
    return {pid for pid in _processes() if _parent(pid) == parent}


def name_servers(launcher: int) -> set[int]:
    """Children of the launcher that serve names, told by their command line."""
    return {pid for pid in children(launcher) if "cofferdam.enforce.overlay.names" in _words(pid)}


def tunnel_programs(launcher: int) -> list[int]:
    """Children of the launcher that are wireguard-go."""
    return [pid for pid in sorted(children(launcher)) if command(pid).endswith("wireguard-go")]


def command(pid: int) -> str:
    """The program that a process was started as; "" if it has gone."""
    return _words(pid)[0]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return [""]


def holders(
    own: Collection[int], launcher: int, namespaces: Collection[int], pipes: Collection[str]
) -> tuple[list[str], list[str]]:
    """What processes other than `own` hold: sockets of these network namespaces (inodes), ends of these pipes. And
    those that the kernel does not let us look at. Children of the launcher that were born since `own` was put together
    (the next try of a crew that is held) are as much the gate's as those before them."""
    found, unseen = [], []
    for pid in _processes():
        if pid in own or _parent(pid) == launcher:
            continue
        try:
            found += [f"pid {pid} ({_name(pid)}) holds {what}" for what in _held(pid, own, namespaces, pipes)]
        except PermissionError as error:
            unseen.append(f"pid {pid} ({_name(pid)}): {error.strerror}")
    return found, unseen


def _held(pid: int, own: Collection[int], namespaces: Collection[int], pipes: Collection[str]) -> Iterator[str]:
    handle = -1
    try:
        for entry in sorted(Path(f"/proc/{pid}/fd").iterdir()):
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue
            if _MEMORY.fullmatch(target) and int(target.split("/")[2]) in own:
                yield f"{target}, the memory of a process of the gate"
            elif target in pipes:
                yield f"an end of {target}, a pipe of the gate"
            elif target.startswith("socket:"):
                if handle < 0:
                    handle = _call(_PIDFD_OPEN, pid, 0, 0)
                where = _lives_in(handle, int(entry.name))
                if where in namespaces:
                    yield f"{target}, which lives in the network namespace {where}"
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    finally:
        if handle >= 0:
            os.close(handle)


def _lives_in(process: int, fd: int) -> int:
    """The inode of the namespace of a process's socket; 0 if it was closed meanwhile."""
    try:
        copy = _call(_PIDFD_GETFD, process, fd, 0)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return 0
    try:
        space = fcntl.ioctl(copy, _SIOCGSKNS)
        try:
            return os.fstat(space).st_ino
        finally:
            os.close(space)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        return 0
    finally:
        os.close(copy)


def _call(number: int, *arguments: int) -> int:
    """These calls have the same number on every processor."""
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _processes() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"
