"""The session itself: root's tests run in a network of their own (tests/conftest.py)."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.enforce import kernel
from tests.conftest import IN_OWN_NETWORK, PRIVATE

INNER = """
import os, subprocess, sys
from pathlib import Path

def test_it() -> None:
    name = os.environ["INNER_NAME"]
    assert name not in subprocess.check_output(["ip", "link"], text=True)
    assert not Path("/run/netns", name).exists()
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", name + "p"], check=True)
    subprocess.run(["ip", "addr", "add", "10.81.0.1/24", "dev", name], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
"""


@pytest.fixture
def own(pytestconfig: pytest.Config) -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not pytestconfig.stash[IN_OWN_NETWORK]:
        pytest.skip("no namespaces can be had here")


def test_the_session_has_a_network_of_its_own_with_a_loopback(own: None) -> None:
    for kind in ("net", "mnt"):
        assert Path(f"/proc/self/ns/{kind}").stat().st_ino != Path(f"/proc/{os.getppid()}/ns/{kind}").stat().st_ino
    for folder in PRIVATE:
        assert folder.is_mount()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        pass


def test_children_are_born_into_it(own: None) -> None:
    found = subprocess.check_output([sys.executable, "-c", "import os; print(os.stat('/proc/self/ns/net').st_ino)"])
    assert int(found) == Path("/proc/self/ns/net").stat().st_ino


def shown(name: str) -> list[str]:
    """This interface and the loopback: others may be about to go, with a namespace of an earlier test."""
    return [subprocess.check_output(["ip", "addr", "show", "dev", one], text=True) for one in (name, "lo")]


def test_another_session_neither_sees_nor_disturbs_this_one(own: None, tmp_path: Path) -> None:
    """Both use one name and one subnet, for an interface and for a namespace. What the other one leaves behind ends
    with it."""
    name = f"cds{secrets.token_hex(3)}"
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure as pytest_configure\n")
    (tmp_path / "test_inner.py").write_text(INNER)
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        before = shown(name)
        root = Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
            cwd=root, env={**os.environ, "INNER_NAME": name, "PYTHONPATH": str(root)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert shown(name) == before
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_this_thread_can_leave_it_and_come_back(own: None) -> None:
    """What tests do that look into a namespace: a thread of a session that was moved is like any other."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
        assert os.fstat(home).st_ino != Path("/proc/thread-self/ns/net").stat().st_ino
        kernel.setns(home, kernel.CLONE_NEWNET)
        assert os.fstat(home).st_ino == Path("/proc/thread-self/ns/net").stat().st_ino
    finally:
        os.close(home)
