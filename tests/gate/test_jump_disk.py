"""The jump server where the disk of its keeper fills up, with real clients: who is at work goes on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.jump.reserve import FREE_BYTES, FULL
from tests.brokers.jump.site import THERE, JumpSite, reads_until, stops
from tests.brokers.jump.test_keeper_full import fill
from tests.verbs import cli
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[JumpSite]:
    """Its state on a disk of its own, with room for what the log keeps free as well; nothing is recorded."""
    disk = tmp_path / "state"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk of its own can be had")
    try:
        made = JumpSite(tmp_path, free="record: {terminal: false}")
        try:
            made.set_up()
            yield made
        finally:
            made.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_who_is_at_work_goes_on_when_nobody_is_let_in(site: JumpSite) -> None:
    code = site.code("tech")
    late = site.environment("tech", code)
    working = site.begins("tech", "station", "cat", more=("-tt",))
    assert working.stdin is not None
    working.stdin.write(b"before\n")
    working.stdin.flush()
    reads_until(working, b"before\r\nbefore")
    late |= {"TEST_CODE": site.code("tech")}
    fill(site.state, FREE_BYTES - (4 << 20))

    said = subprocess.run(
        ["ssh", *site.options("tech"), "-p", str(site.door), "station@127.0.0.1", "echo never"],
        capture_output=True, env=late, check=False,
    )  # fmt: skip
    assert said.returncode == 255
    assert FULL.encode() in said.stderr, said
    assert "are kept" in site.jump("person", "add", "newcomer", code=2)

    def alarmed() -> bool:
        return "jump-store" in str(json.loads(cli("status", "--json", "--state", site.state)[1])["alarms"])

    eventually(alarmed)
    working.stdin.write(b"after\n")
    working.stdin.flush()
    reads_until(working, b"after\r\nafter")
    (site.state / "others").unlink()
    eventually(lambda: not alarmed())
    assert site.ssh("tech", "station", "echo again").stdout == b"again\n"
    stops(working)
