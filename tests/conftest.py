"""A test session of root works in a network of its own, so that runs disturb neither the host nor each other.

Many tests make interfaces, addresses and named namespaces as a gate on a bare machine would: with fixed subnets, in
"the host's" network, under names in /run/netns. For the session that host is a fresh network namespace with nothing but
a loopback, and a mount namespace with empty /run/netns and /run/wireguard. With pytest-xdist each worker has its own.

Users other than root make no namespaces, and stay where they are; so does root where the kernel refuses (a container).

Here as well: modules with a long case come first, then others that start gates, so that no worker begins one when the
others have nothing left; and `--folder-times` says at the end where the time went, and processor time, which is
what the suite has too little of: the worker's and that of children that have ended. Times are shown, and nothing is
asserted of them.
"""

from __future__ import annotations

import collections
import compileall
import contextlib
import fcntl
import gc
import importlib
import os
import signal
import socket
import struct
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import cofferdam
from cofferdam.enforce import kernel
from tests import examples as examples  # loads hypothesis's profile, before any property is read
from tests import forks, leftovers, nursery, ports
from tests.services import nats_server as nats_server
from tests.services import postgres_server as postgres_server

SOURCE = Path(cofferdam.__file__).parent
"""Parts write no bytecode: what has changed since set-up would be compiled anew at each of thousands of starts."""
PRIVATE = (Path("/run/netns"), Path("/run/wireguard"))
"""Where names of namespaces and of WireGuard devices stand for everyone on the machine."""
LONG_NAME = 40
CPU = "cpu"
USED = pytest.StashKey[float]()
"""Seconds of processor time, of this process and its children, when the last report was made."""
IN_OWN_NETWORK = pytest.StashKey[bool]()
SPARE_DESCRIPTORS = 64
"""What a module may leave: a server that serves the session, a pool of threads that a library made, databases that a
keeper let go of without another word to the disk, on purpose."""
GATES = {"prove", "gate", "enforce", "overlay", "lab", "evidence", "adversary", "brokers"}
"""Folders whose modules start gates and services, which take long."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected, and in each worker: the calling thread is the one that runs the tests."""
    config.stash[IN_OWN_NETWORK] = False
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(SOURCE, quiet=2)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            _move()
            config.stash[IN_OWN_NETWORK] = ports.ALONE = True
    # A shell's background has children ignore Ctrl-C, and theirs, which tests send it to.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(leftovers.Leftovers(config.getoption("--collect", default=False)))


OLD_TURNS = 1_000_000
"""Turns of the collector's second generation for one of its third, which looks through all that is not frozen."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each worker of a whole run loads other modules first: what pytest makes of a module's assertions, which is dear,
    the others then find made. What cannot be loaded is said when it is collected.

    What is loaded stays: until all is collected, a collector that looks through it again and again is left out."""
    gc.disable()
    workerinput: dict[str, Any] | None = getattr(session.config, "workerinput", None)
    if workerinput is None or [Path(one) for one in session.config.args] != [Path("tests")]:
        return
    worker, count = int(workerinput["workerid"].removeprefix("gw")), int(workerinput["workercount"])
    here = Path(__file__).parent
    for path in sorted(here.rglob("test_*.py"))[worker::count]:
        with warnings.catch_warnings(), contextlib.suppress(Exception, pytest.skip.Exception):
            warnings.simplefilter("error")
            importlib.import_module(".".join(path.relative_to(here.parent).with_suffix("").parts))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--folder-times", action="store_true", help="at the end: seconds, CPU and tests of each folder")
    parser.addoption("--collect", action="store_true", help="a test fails of what it leaves open")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole modules are moved, since the cases of one share what is expensive to make."""
    heavy = {item.path for item in items if item.get_closest_marker("heavy")}
    items.sort(key=lambda item: (item.path not in heavy, GATES.isdisjoint(item.path.parts)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()  # nor later: the collector would write to each object, and take its page apart (tests.forks)
        # With nothing old to weigh it against it would look through all at every turn, in the middle of any test.
        gc.set_threshold(700, 10, OLD_TURNS)
        forks.make_cheap()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Files are no names: a ZIP has the time in it, and each worker makes its own, but must call the test the same."""
    return argname if isinstance(val, bytes) and len(val) > LONG_NAME else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--folder-times"):
        return
    seconds: dict[str, float] = collections.defaultdict(float)
    used: dict[str, float] = collections.defaultdict(float)
    modules: dict[str, float] = collections.defaultdict(float)
    tests: dict[str, int] = collections.defaultdict(int)
    for report in (one for kind in ("passed", "failed", "error", "") for one in terminalreporter.getreports(kind)):
        # "": set-up and tear-down of those that passed, where gates are started
        if not isinstance(report, pytest.TestReport):
            continue  # a module that could not be collected
        folder = str(Path(report.nodeid.split("::")[0]).parent)
        seconds[folder] += report.duration
        cpu = sum(value for name, value in report.user_properties if name == CPU and isinstance(value, float))
        used[folder] += cpu
        modules[report.nodeid.split("::")[0]] += cpu
        tests[folder] += report.when == "call"
    terminalreporter.section("seconds and CPU seconds by folder, of all workers together")
    for folder in sorted(used, key=used.__getitem__, reverse=True):
        line = f"{seconds[folder]:8.1f} s {used[folder]:8.1f} s {tests[folder]:6} tests  {folder}"
        terminalreporter.write_line(line)
    total = f"{sum(seconds.values()):8.1f} s {sum(used.values()):8.1f} s {sum(tests.values()):6} tests"
    terminalreporter.write_line(total)
    terminalreporter.section("CPU seconds of the dearest modules")
    for module in sorted(modules, key=modules.__getitem__, reverse=True)[:40]:
        terminalreporter.write_line(f"{modules[module]:8.1f} s  {module}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Each report says what its phase has used, wherever it ran."""
    report = yield
    now = sum(os.times()[:4]) + nursery.used
    report.user_properties = [*report.user_properties, (CPU, now - item.config.stash.get(USED, now))]
    item.config.stash[USED] = now
    return report


@pytest.fixture(scope="module", autouse=True)
def descriptors(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module that keeps descriptors fails: hundreds of such modules run in one process, and others go by numbers.
    What it leaves in the environment, as parts do that say who they are, is not there for the next one."""
    forks.make_cheap()
    before, environment = _descriptors(), dict(os.environ)
    yield
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)
    assert gc.isenabled(), f"{request.node.nodeid} has left the collector switched off"
    if _descriptors() - before <= SPARE_DESCRIPTORS:
        return
    gc.collect()
    kept = _descriptors() - before
    assert kept <= SPARE_DESCRIPTORS, f"{request.node.nodeid} has left {kept} descriptors open"


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _move() -> None:
    """Raises: OSError, where namespaces cannot be had; nothing has changed then."""
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    kernel.mount("", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    for folder in PRIVATE:
        folder.mkdir(parents=True, exist_ok=True)
        kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
