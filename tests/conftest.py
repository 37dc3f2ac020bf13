"""A test session of root works in a network of its own, so that runs disturb neither the host nor each other.

Many tests make interfaces, addresses and named namespaces as a gate on a bare machine would: with fixed subnets, in
"the host's" network, under names in /run/netns. For the session that host is a fresh network namespace with nothing but
a loopback, and a mount namespace with empty /run/netns and /run/wireguard. With pytest-xdist each worker has its own.

Users other than root make no namespaces, and stay where they are; so does root where the kernel refuses (a container).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path

import pytest

from cofferdam.enforce import kernel

PRIVATE = (Path("/run/netns"), Path("/run/wireguard"))
"""Where names of namespaces and of WireGuard devices stand for everyone on the machine."""
IN_OWN_NETWORK = pytest.StashKey[bool]()
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected, and in each worker: the calling thread is the one that runs the tests."""
    config.stash[IN_OWN_NETWORK] = False
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            _move()
            config.stash[IN_OWN_NETWORK] = True


def _move() -> None:
    """Raises: OSError, where namespaces cannot be had; nothing has changed then."""
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    kernel.mount("", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    for folder in PRIVATE:
        folder.mkdir(parents=True, exist_ok=True)
        kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
