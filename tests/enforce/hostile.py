"""Hostile code in the place of a half: a child that is put where a half stands, by the same code, and then tries one
forbidden thing. What became of it is the test's answer."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from cofferdam.brokers.registry import CREWS
from cofferdam.enforce import sandbox
from cofferdam.enforce.profile import Profile
from cofferdam.enforce.syscalls import NUMBERS

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long  # an address from mmap, cut to an int, may look like an error
CALLS = NUMBERS.get(platform.machine(), {})


def call(name: str, *arguments: int | bytes | None) -> None:
    """A system call by its name. Raises OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    if libc.syscall(ctypes.c_long(CALLS[name]), *words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fork() -> None:
    """Makes a child, which ends at once."""
    if os.fork() == 0:
        os._exit(0)


def attempt(setup: Callable[[], None], deed: Callable[[], object]) -> str:
    """What happens to a deed in a child after `setup`: "done", an errno's name, or a signal's."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        said = "setup failed"
        try:
            setup()
            said = "done"
            deed()
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, "?") if said == "done" else f"setup: {error}"
        except BaseException as error:
            said = f"{said}: {error!r}"
        os.write(write_fd, said.encode())
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return signal.Signals(-status).name if status < 0 else answer


PROXY = CREWS["modbus"].parts
"""The halves that there have been longest."""


def confined(profile: Profile, store: Path | None = None, reads: Sequence[Path] = ()) -> Callable[[], None]:
    """Only the filter and Landlock, as without root."""

    def setup() -> None:
        facts = sandbox.confine(profile, () if store is None else (store,), reads)
        if not facts[0][1]:
            raise RuntimeError(facts[0][2])

    return setup


def deeds(sockets: tuple[socket.socket, socket.socket], listener: socket.socket) -> dict[str, Callable[[], object]]:
    """What no half may do. `sockets` is a connected pair of Unix sockets that an accident might have left it."""
    ours, _ = sockets
    path = b"/etc/passwd\0"
    found: dict[str, Callable[[], object]] = {
        "read a file": lambda: call("openat", -100, path, 0, 0),
        "read a file (openat2)": lambda: call("openat2", -100, path, b"\0" * 24, 24),
        "list a folder": lambda: list(Path("/").iterdir()),
        "look at a file": lambda: Path("/etc/passwd").stat(),
        "start a program": lambda: os.execv("/bin/true", ["true"]),
        "start a program (execveat)": lambda: call("execveat", -100, path, None, None, 0),
        "fork": fork,
        "clone": lambda: call("clone", 17, 0, 0, 0, 0),
        "clone3": lambda: call("clone3", b"\0" * 64, 64),
        "trace a process": lambda: call("ptrace", 16, 1, 0, 0),
        "read another's memory": lambda: call("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
        "signal its parent": lambda: os.kill(os.getppid(), 0),
        "signal everyone": lambda: os.kill(-1, 0),
        "open a pidfd": lambda: call("pidfd_open", os.getppid(), 0),
        "take a descriptor": lambda: call("pidfd_getfd", 3, 3, 0),
        "enter a namespace": lambda: call("setns", 3, 0),
        "make a namespace": lambda: call("unshare", 0x10000000),
        "mount": lambda: call("mount", b"none\0", b"/\0", b"tmpfs\0", 0, None),
        "become root": lambda: call("setuid", 0),
        "load bpf": lambda: call("bpf", 0, None, 0),
        "io_uring": lambda: call("io_uring_setup", 8, b"\0" * 120),
        "io_uring_enter": lambda: call("io_uring_enter", 3, 1, 0, 0, 0, 0),
        "userfaultfd": lambda: call("userfaultfd", 0),
        "perf": lambda: call("perf_event_open", b"\0" * 128, 0, -1, -1, 0),
        "keys": lambda: call("keyctl", 0, 0),
        "another filter": lambda: call("seccomp", 1, 0, None),
        "memory file": lambda: call("memfd_create", b"x\0", 0),
        "executable memory": lambda: call("mmap", 0, 4096, 7, 0x22, -1, 0),
        "make memory executable": lambda: call("mprotect", 0, 4096, 5),
        "open by handle": lambda: call("open_by_handle_at", -100, b"\0" * 16, 0),
        "pass a descriptor": lambda: socket.send_fds(ours, [b"x"], [0]),
        "receive a descriptor": lambda: socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT),
        "send by sendto": lambda: ours.send(b"x"),
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "unix socket pair": socket.socketpair,
        "raw socket": lambda: call("socket", 2, 3, 1),
        "packet socket": lambda: call("socket", 17, 3, 0),
        "netlink socket": lambda: call("socket", 16, 3, 0),
        "vsock": lambda: call("socket", 40, 1, 0),
        "udp socket": lambda: call("socket", 2, 2, 0),
        "mptcp socket": lambda: call("socket", 2, 1, 262),
        "bind": lambda: call("bind", listener.fileno(), b"\2\0\0\0" + b"\0" * 12, 16),
        "listen": lambda: call("listen", listener.fileno(), 5),
        "own a descriptor's signals": lambda: call("fcntl", 0, 8, 1),
        "debug itself": lambda: call("prctl", 4, 1),
        "raise a limit": lambda: call("prlimit64", 0, 7, None, None),
        "fill the terminal's input": lambda: call("ioctl", 0, 0x5412, b"x"),
        "bind a device": lambda: listener.setsockopt(socket.SOL_SOCKET, 25, b"lo\0"),
    }
    return found


def by_role(role: str, listener: socket.socket) -> dict[str, Callable[[], object]]:
    """What only the other half may do."""
    if role == "outer":
        return {
            "tcp socket": lambda: call("socket", 2, 1, 0),
            "tcp6 socket": lambda: call("socket", 10, 1, 0),
            "connect": lambda: call("connect", listener.fileno(), b"\2\0\1\366\177\0\0\1" + b"\0" * 8, 16),
        }
    return {
        "accept": lambda: call("accept", listener.fileno(), None, None) if "accept" in CALLS else None,
        "accept4": lambda: call("accept4", listener.fileno(), None, None, 0),
    }
