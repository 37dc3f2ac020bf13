"""The intruder has taken over the outer half: code of its own runs in that process, at its place, with what it holds.
Nothing outside the policy reaches the device, and the log has what happened. See docs/attack.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.enforce.site import Site
from tests.gate.plant import Gate, events
from tests.prove.attacked import Scene, attacked
from tests.waiting import eventually

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]


KERNEL_TELLS = os.access("/dev/kmsg", os.R_OK) and not Path("/run/auditd.pid").exists()


class OwnedGate(Gate):
    """The gate with the hole (tests/prove/owned.py)."""

    def __init__(self, site: Site) -> None:
        self.state = site.state
        self.errors = site.folder / "owned.stderr"
        command = [sys.executable, "-m", "tests.prove.owned", str(site.policy), str(site.state)]
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=env)


@pytest.fixture(scope="module")
def owned() -> Iterator[Scene]:
    with attacked(OwnedGate) as made:
        yield made
        assert made.recovers()
        assert made.device.outside_policy() == []
        assert made.tap.strange() == []


def inject(scene: Scene, code: str) -> str:
    """Runs code in the outer half; what it said, "" if it ended first. It has to say something."""
    scene.gate.wait_ready()
    with scene.client() as client:
        client._socket.sendall(b"OWNED" + code.encode())
        try:
            return client._socket.recv(4096).decode().strip()
        except ConnectionError:
            return ""


def deaths(scene: Scene) -> int:
    return len(events(scene.site.state, "half-died"))


def test_the_hole_is_real(owned: Scene) -> None:
    assert inject(owned, "say(6 * 7)") == "42"
    assert inject(owned, "say(os.getuid() >= 64000 and os.getpid() == 1)") == "True"
    assert owned.recovers()


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("open('/etc/passwd')", "EPERM"),
        ("os.listdir('/')", "EPERM"),
        ("os.open('/proc/self/fd/0', os.O_RDWR)", "EPERM"),
        ("socket.socket()", "EPERM"),
        ("socket.socket(socket.AF_UNIX)", "EPERM"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
        ("os.kill(-1, 9)", "EPERM"),
        ("os.kill(os.getppid(), 9)", "EPERM"),
    ],
)
def test_what_it_asks_for_is_refused(owned: Scene, code: str, answer: str) -> None:
    assert inject(owned, code) == answer


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("os.fork()", "clone"),
        ("os.execv('/bin/sh', ['sh'])", "execve"),
        ("socket.send_fds(client.transport._sock, [b'x'], [0])", "sendmsg"),
        ("ctypes.CDLL(None).ptrace(16, 1, 0, 0)", "ptrace"),
        ("ctypes.CDLL(None).setns(0, 0)", "setns"),
        ("ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120))", "io_uring_setup"),
        ("ctypes.CDLL(None).syscall(438, 0, 0, 0)", "pidfd_getfd"),
    ],
)
def test_what_goes_further_ends_it_and_is_in_the_log(owned: Scene, code: str, call: str) -> None:
    before = deaths(owned)
    said = inject(owned, code + "; say('it worked')")
    assert "worked" not in said
    if said == "":
        eventually(lambda: deaths(owned) > before)
        # Which call it was the kernel's own log says, where it can be read, no auditd takes it, and it is not busy.
        reasons = {end["reason"] for end in events(owned.site.state, "half-died")[before:]}
        assert reasons & {"a system call outside its profile", f"a system call outside its profile ({call})"}
    assert owned.recovers()


@pytest.mark.skipif(not KERNEL_TELLS, reason="the kernel's log cannot be read here")
def test_the_log_says_which_call_it_was(owned: Scene) -> None:
    """The kernel writes ten such lines in five seconds and no more, for all tests together: so it is asked again."""

    def is_named() -> bool:
        before = deaths(owned)
        inject(owned, "ctypes.CDLL(None).ptrace(16, 1, 0, 0)")
        eventually(lambda: deaths(owned) > before)
        reasons = {end["reason"] for end in events(owned.site.state, "half-died")[before:]}
        assert owned.recovers()
        return "a system call outside its profile (ptrace)" in reasons

    eventually(is_named)


@pytest.mark.parametrize(
    ("code", "violation"),
    [
        # A session that never was, in the ERP's name: it gets what the ERP may do, and no more.
        ("send(records.Opened(9001, 'x', '10.81.0.20', 'plc'), "
         "*[records.Request(9001, 9000 + n, messages.WriteSingleRegister(1, 300 + n, n)) for n in range(1, 50)])", False),  # noqa: E501
        ("send(records.Opened(9002, 'x', '10.99.9.9', 'plc'), "
         "records.Request(9002, 9900, messages.WriteMultipleRegisters(1, 200, (1, 2))))", False),
        ("send(records.Opened(9003, 'x', '10.81.0.30', 'near'), "
         "records.Request(9003, 9901, messages.WriteMultipleRegisters(1, 200, (1, 2))))", False),
        ("send(records.Opened(9004, 'x', '10.81.0.20', 'plc'), "
         "*[records.Request(9004, 9950 + u, messages.ReadHoldingRegisters(u, 0, 125)) for u in (0, 2, 255)])", False),
        ("os.write(crossing, os.urandom(4000))", True),
        ("[os.write(crossing, os.urandom(40)) for _ in range(100)]", True),
        ("send([2, 1, 5, [6, 1, 200, 1 << 40]])", True),
        ("send(['nobody', 'knows', 'this'])", True),
    ],
)  # fmt: skip
def test_arbitrary_records_get_what_policy_allows(owned: Scene, code: str, violation: bool) -> None:
    writes = list(owned.device.writes)
    before = len(events(owned.site.state, "record-violation"))
    inject(owned, code + "; say('sent')")
    time.sleep(0.5)
    assert owned.device.outside_policy() == []
    assert owned.device.writes == writes
    if violation:
        eventually(lambda: len(events(owned.site.state, "record-violation")) > before)
    assert owned.recovers()


def test_it_may_do_what_the_erp_may_and_the_log_says_so(owned: Scene) -> None:
    """What remains to whoever owns the outer half: the conduits of its own pair. Each write is in the log first."""
    code = (
        "send(records.Opened(9100, 'forged', '10.81.0.20', 'plc'), "
        "records.Request(9100, 9101, messages.WriteMultipleRegisters(1, 200, (0, 4711))))"
    )
    before = len(owned.device.writes)
    inject(owned, code + "; say('sent')")
    eventually(lambda: len(owned.device.writes) > before)
    assert owned.device.writes[before:] == [4711]
    found: list[dict[str, Any]] = events(owned.site.state, "write-allowed")
    assert found[-1]["session"] == "forged"
