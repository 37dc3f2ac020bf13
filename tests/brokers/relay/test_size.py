"""The relay's doors and folders under very many at once: too long for every run (make soak)."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.relay.crew import FOLDERS, OFFICE, RunningCrew, crew
from tests.brokers.relay.test_folders import IN, OUT, leave, names
from tests.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
CONNECTIONS = 10_000
PUSHES = 1000
FILES = int(os.environ.get("COFFERDAM_SOAK_FILES", "100000"))


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """So many may be open in this process meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"only {hard} descriptors may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def asks(relay: RunningCrew) -> float:
    """The 99th percentile of how long pushes of the plant's side took, in seconds."""
    took = []
    with relay.client("mes") as mes:
        for number in range(PUSHES):
            began = time.monotonic()
            assert mes.put(f"/v1/channels/counts/messages/{time.monotonic_ns()}-{number}",
                           json={"line": "L", "n": number}).status_code == 201  # fmt: skip
            took.append(time.monotonic() - began)
    return sorted(took)[int(len(took) * 0.99)]


def open_at(relay: RunningCrew) -> int:
    found = relay.children["outer"].status().figures["http_connections"][""]
    assert isinstance(found, int)
    return found


def test_ten_thousand_connections(tmp_path: Path) -> None:
    """Of one client. It gets what one source may have; the side keeps standing, and the other notices nothing."""
    with descriptors(CONNECTIONS + 500), crew(tmp_path / "store") as relay, contextlib.ExitStack() as stack:
        alone = asks(relay)
        held = []
        for number in range(CONNECTIONS):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(10)
            sock.bind((OFFICE, 0))
            with contextlib.suppress(OSError):
                sock.connect((OFFICE, relay.port("outer")))
                sock.sendall(b"POST /v1/channels/counts/lease HTTP/1.1\r\nhost: x\r\n" if number % 2 else b"G")
                held.append(sock)
        among = asks(relay)
        assert open_at(relay) <= 256
        print(f"{len(held)} connected; p99 of pushes {alone * 1e3:.1f} ms before, {among * 1e3:.1f} ms meanwhile")
        stack.close()
        eventually(lambda: open_at(relay) < 256)
        with relay.client("erp") as erp:
            eventually(lambda: erp.get("/v1").status_code == 200)
        relay.ends_well()


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    """Each is booked once, and none is held in memory meanwhile."""
    words = {"folders": IN.format(said="form: json"), "folders_out": OUT, "via": ", via: folder"}
    with crew(tmp_path / "store", words=words) as relay:
        folder = relay.folder("counts-in")
        for number in range(FILES):
            leave(folder, f"{number}.json", f'{{"line": "L", "n": {number}}}')
        eventually(lambda: len(names(folder)) <= 2, 1800)
        assert len(names(folder / "done")) == FILES and not names(folder / "bad")
        found = relay.children["keeper"].status().figures["messages"]
        assert found["counts"] == FILES
        process = relay.children[FOLDERS].process
        assert process is not None
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
        print(f"the part of folders took {peak} MiB at most")
        assert peak < 200
        relay.ends_well()
