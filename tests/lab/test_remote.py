"""The play of remote access, alone: every promise of its tour is kept."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from cofferdam.lab import events, layout
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.remote import steps, tunnel
from cofferdam.lab.remote.play import Remote, RemotePicture
from cofferdam.lab.remote.steps import STEPS
from tests.waiting import PATIENT

pytestmark = pytest.mark.heavy
DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo"]
TUNNELS = os.geteuid() == 0 and not tunnel.lacking()
needs_openssh = pytest.mark.skipif(
    bool(Remote().missing()), reason="there is no OpenSSH (Debian: openssh-client, openssh-server)"
)


def keeps_every_promise(*words: str) -> dict[str, list[dict[str, object]]]:
    """The findings of each step."""
    done = subprocess.run(
        [*DEMO, *words, "--tour", "--play", "remote", "--json"],
        capture_output=True,
        text=True,
        timeout=3 * PATIENT,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in STEPS], done.stderr
    assert done.returncode == 0, done.stderr
    return {result["step"]: result["findings"] for result in results}


@needs_openssh
@pytest.mark.soak if TUNNELS else pytest.mark.heavy
def test_its_tour_keeps_every_promise() -> None:
    """In the loopback layout; where there can be a tunnel, the suite has the tour with it."""
    (said,) = keeps_every_promise("--no-namespaces")["nothing_but_a_tunnel"]
    assert said["expected"] == "not tried" and "from an address of the office" in str(said["seen"])


@pytest.mark.parametrize("step", [steps.nothing_but_a_tunnel, steps.tunnel_taken_away])
def test_where_nothing_is_separated_it_says_that_no_tunnel_was_tried(step: Step, tmp_path: Path) -> None:
    """As for whoever is not root."""
    there = SimpleNamespace(layout=layout.Loopback(Remote().spots))
    people = dict.fromkeys(("vendor", "lead", "tech"))
    alone = steps.Cast(cast(Any, there), cast(Any, people), tmp_path)

    async def tried() -> list[Finding]:
        return await step(alone)

    found = asyncio.run(tried())
    assert [(one.expected, one.ok) for one in found] == [("not tried", True)]
    assert "from an address of the office" in found[0].seen


@needs_openssh
@pytest.mark.netns
@pytest.mark.skipif(
    not TUNNELS, reason="network namespaces need root, and tunnels WireGuard (Debian: wireguard-go, wireguard-tools)"
)
def test_its_vendor_has_nothing_but_a_tunnel() -> None:
    found = keeps_every_promise()
    assert len(found["nothing_but_a_tunnel"]) == 3
    assert "is revoked" in str(found["tunnel_taken_away"][0]["seen"])
    assert not [name for name in layout.leftovers() if name.endswith("-away")]


def test_who_is_on_what_is_shown() -> None:
    picture = RemotePicture()

    def shown() -> str:
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(picture.panels()[0][0])
        return console.export_text()

    assert "nobody is on anything now" in shown()
    opened = {"kind": "access-opened", "person": "anna", "asset": "station", "login": "service", "what": "exec"}
    picture.note(events.Entry({"event": {**opened, "session": "1", "command": "uptime"}}))
    picture.note(events.Entry({"event": {**opened, "session": "2", "command": "", "what": "shell"}}))
    assert "anna on station as service: uptime" in shown() and "anna on station as service: shell" in shown()
    picture.note(events.Entry({"event": {"kind": "access-ended", "session": "1"}}))
    assert "uptime" not in shown() and "service: shell" in shown() and "1 on it now" in picture.line()
