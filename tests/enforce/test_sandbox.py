"""The filter of a half: hostile code is refused each forbidden call, and what a half needs still works."""

from __future__ import annotations

import os
import platform
import select
import socket
import time
from collections.abc import Iterator

import pytest

from cofferdam.enforce import bpf, sandbox
from cofferdam.enforce.profile import Can
from cofferdam.enforce.syscalls import NUMBERS
from tests.enforce import hostile

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(MACHINE not in NUMBERS, reason=f"no filter is written for {MACHINE}")
ROLES = ("outer", "inner")
REFUSED = {"EPERM", "SIGSYS", "EACCES"}


@pytest.fixture
def sockets() -> Iterator[tuple[tuple[socket.socket, socket.socket], socket.socket]]:
    pair = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    yield pair, listener
    for one in (*pair, listener):
        one.close()


@pytest.mark.parametrize("role", ROLES)
def test_each_forbidden_call_is_refused(
    role: str, sockets: tuple[tuple[socket.socket, socket.socket], socket.socket]
) -> None:
    pair, listener = sockets
    wanted = hostile.deeds(pair, listener) | hostile.by_role(role, listener)
    outcomes = {name: hostile.attempt(hostile.confined(hostile.PROXY[role]), deed) for name, deed in wanted.items()}
    assert not {name: outcome for name, outcome in outcomes.items() if outcome not in REFUSED}


def test_the_deeds_are_real(sockets: tuple[tuple[socket.socket, socket.socket], socket.socket]) -> None:
    """Without the filter the same deeds are done, or fail for another reason than a refusal by it."""
    pair, listener = sockets
    wanted = hostile.deeds(pair, listener)
    for name in ("read a file", "list a folder", "fork", "pass a descriptor", "unix socket", "udp socket",
                 "executable memory", "memory file", "signal its parent", "listen"):  # fmt: skip
        assert hostile.attempt(lambda: None, wanted[name]) == "done", name


def _work(role: str, listener: socket.socket, target: tuple[str, int]) -> None:
    """What a half does, with the functions that it uses."""
    poll = select.epoll()
    if role == "outer":
        poll.register(listener.fileno(), select.EPOLLIN)
        poll.poll(5)
        peer, _ = listener.accept()
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.getsockname()
        peer.shutdown(socket.SHUT_WR)
        peer.close()
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect_ex(target)
        poll.register(sock.fileno(), select.EPOLLOUT)
        poll.poll(5)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(5, "not connected")
        os.write(sock.fileno(), b"x")
        sock.close()
    time.sleep(0.001)
    time.monotonic_ns()
    os.sched_yield()
    os.urandom(8)
    held = [bytearray(1 << 20) for _ in range(64)]
    del held


def _make_epoll_first(role: str) -> None:
    hostile.confined(hostile.PROXY[role])()


@pytest.mark.parametrize("role", ROLES)
def test_what_a_half_needs_still_works(role: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as device:
        poll = select.epoll()  # a half has its own from its start
        with socket.create_connection(listener.getsockname()):
            original = select.epoll
            try:
                select.epoll = lambda: poll  # type: ignore[assignment, misc]
                outcome = hostile.attempt(
                    lambda: _make_epoll_first(role), lambda: _work(role, listener, device.getsockname())
                )
            finally:
                select.epoll = original  # type: ignore[misc]
                poll.close()
    assert outcome == "done"


@pytest.mark.parametrize("role", ROLES)
def test_a_traceback_prints_without_files(role: str, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        import traceback

        try:
            raise ValueError("something broke")
        except ValueError:
            traceback.print_exc()

    assert hostile.attempt(hostile.confined(hostile.PROXY[role]), fail) == "done"
    assert "something broke" in capfd.readouterr().err


@pytest.mark.parametrize("machine", sorted(NUMBERS))
@pytest.mark.parametrize("role", ROLES)
def test_the_program_says_what_its_rules_say(machine: str, role: str) -> None:
    """The machine code, run by an interpreter of ours: by call and by argument, for both processors."""
    code, numbers, arch = (
        sandbox.program(hostile.PROXY[role].can, machine, 77),
        NUMBERS[machine],
        bpf.AUDIT_ARCH[machine],
    )

    def verdict(name: str, *arguments: int) -> int:
        return bpf.run(code, arch, numbers[name], arguments)

    eperm = bpf.fail_with(1)
    assert verdict("read") == bpf.ALLOW and verdict("execve") == bpf.KILL and verdict("io_uring_setup") == bpf.KILL
    assert verdict("mmap", 0, 4096, 3) == bpf.ALLOW and verdict("mmap", 0, 4096, 7) == eperm
    assert verdict("fcntl", 3, 4) == bpf.ALLOW and verdict("fcntl", 3, 8) == eperm
    assert verdict("tgkill", 77, 77, 6) == bpf.ALLOW and verdict("tgkill", 78, 78, 9) == eperm
    stream = 1 | 0o4000 | 0o2000000
    inner = bpf.ALLOW if role == "inner" else eperm
    assert verdict("socket", 2, stream, 0) == inner and verdict("socket", 10, 1, 6) == inner
    for wrong in ((1, 1, 0), (2, 2, 0), (2, 3, 0), (17, 3, 0), (2, 1, 262), (16, 3, 0), (40, 1, 0), (2, 5, 0)):
        assert verdict("socket", *wrong) == eperm, wrong
    assert verdict("connect") == (bpf.ALLOW if role == "inner" else bpf.KILL)
    assert verdict("accept4") == (bpf.ALLOW if role == "outer" else bpf.KILL)
    for name in ("bind", "listen", "sendmsg", "recvmsg", "clone", "clone3", "ptrace", "setns", "bpf"):
        assert verdict(name) == bpf.KILL, name
    assert verdict("openat") == eperm
    # By another processor's convention, and by x32's numbers: the end.
    assert bpf.run(code, 0x40000003, numbers["read"], ()) == bpf.KILL
    assert bpf.run(code, arch, numbers["read"] | 0x40000000, ()) == bpf.KILL


def test_no_filter_for_an_unknown_processor() -> None:
    with pytest.raises(ValueError, match="mips"):
        sandbox.program(Can.ACCEPT, "mips", 1)
