"""kill -9 of each part of the jump server, and of the whole gate, while a terminal shows and is recorded (`make soak`);
of the keeper, without which sessions go on, in test_jump_without_keeper.

Both legs end, the recording has all that was shown, no approval is there that was taken back before, and the one that
was not is there each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.errors import GateError
from tests.brokers.jump.site import THERE, JumpSite, ends, reads_until
from tests.gate.plant import QuickGate
from tests.waiting import eventually, kill

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)"),
]
KILLS = int(os.environ.get("COFFERDAM_SOAK_KILLS", "100"))
PARTS = ("outer", "inner", "archivist", "gate")
ASKS = 50
"""Kills for which one person asks: the gate takes no end of requests from anybody."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JumpSite]:
    made = JumpSite(tmp_path_factory.mktemp("jump"), commands='["sh -c *", "echo *"]')
    script = made.files / "counts"
    script.write_text("#!/bin/sh\nn=0; while :; do n=$((n+1)); echo line-$n; sleep 0.002; done\n")
    script.chmod(0o755)
    made.write_policy(commands=f'["{script}", "echo *"]')
    try:
        made.set_up()
        yield made
    finally:
        made.close()


def counters(site: JumpSite) -> list[int]:
    """What runs at the asset of the sessions."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{site.files}/counts".encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def works_again(site: JumpSite) -> bool:
    """A keeper that was just born may not know yet that its log can be written, and says so."""
    try:
        return site.ssh("tech", "station", "echo again").stdout == b"again\n"
    except GateError:
        return False


def test_killed_under_load(site: JumpSite) -> None:
    stays = site.ssh("vendor", "vendor", "request second 4h all the while").stdout.decode().split()[1]
    assert b"is granted" in site.ssh("lead", "lead", f"approve {stays}").stdout
    (granted,) = [one for one in site.ask("requests") if one["id"] == int(stays)]
    assert granted["state"] == "granted"
    for number in range(KILLS):
        part, who = PARTS[number % len(PARTS)], f"vendor{number // ASKS}"
        if not number % ASKS:
            site.person(who, "vendors")
        asked = site.ssh(who, who, "request station 1h a kill").stdout.decode().split()[1]
        assert b"is granted" in site.ssh("lead", "lead", f"approve {asked}").stdout
        working = [site.begins("tech", "station", f"{site.files}/counts", more=("-tt",)) for _ in range(2)]
        for process in working:
            reads_until(process, b"line-20")
        recordings = [one["name"] for one in json.loads(site.jump("recording", "list", "--json")) if one["live"]]
        assert len(recordings) == 2
        site.jump("revoke", asked)
        if part == "gate":
            site.gate.process.send_signal(signal.SIGKILL)
            site.gate.process.wait()
        else:
            kill(site.gate.pid(part))
        shown = [ends(process) for process in working]
        eventually(lambda: not counters(site))
        if part == "gate":
            site.gate = QuickGate(site.state, site.policy)
        site.gate.wait_ready()
        eventually(lambda: works_again(site))
        eventually(lambda: not site.sessions())
        assert [one for one in site.ask("requests") if one["state"] == "granted"] == [granted], part
        assert b"it takes an approval" in site.ssh(who, "station", "echo never").stderr, part
        assert "no findings" in site.jump("recording", "verify"), part
        texts = [next(site.state.rglob(name)).read_text() for name in recordings]
        for said in shown:
            # What somebody was shown last stands in one of the two.
            last = [line for line in said.decode(errors="replace").splitlines() if line.startswith("line-")][-2:]
            assert last, (part, said)
            assert any(last[0] in text for text in texts), (part, last)


def test_nothing_of_it_is_left(site: JumpSite) -> None:
    """Neither a gate's child nor an asset's program."""
    assert counters(site) == []
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout.decode()
    assert len([line for line in said.splitlines() if str(site.state) in line and "up" in line]) <= 2
