"""What is wrong is said first, with what to do: silent devices, expiring conduits, strangers, and the way to the plant.

The gate here runs on the loopback network; interfaces and dropped strangers need namespaces (tests/enforce).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cofferdam.cli import status_short
from cofferdam.cli.main import main
from cofferdam.disk import room
from cofferdam.gate.watch.ways_out import is_notice, way_out
from cofferdam.policy.near import near_principals
from cofferdam.policy.rows import Principal
from tests.gate.conftest import Site
from tests.gate.plant import Client, events, running
from tests.waiting import eventually


@pytest.fixture
def roomy(site: Site) -> Iterator[Site]:
    """Its log lies on a disk that is all but empty: of one that is not, a gate says that first."""
    disk = site.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m,mode=755", "tmpfs", disk], capture_output=True)
    free, size = room(disk)
    if mounted.returncode and free / size < 0.22:
        pytest.skip("the disk is that full here, and no other one can be mounted")
    site.state = disk / "state"
    yield site
    if not mounted.returncode:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_dead_device_is_the_first_thing_that_status_says(roomy: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that answered, then none, then one again: alarm, exit code, metric, entry and `ping` follow it."""
    site = roomy
    soon = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    text = site.policy.read_text()
    at = text.index("    broker: modbus")
    site.policy.write_text(f"{text[:at]}    expires: {soon}\n{text[at:]}")
    state = ["--state", str(site.state)]
    with running(site.state, site.policy) as gate:
        eventually(lambda: any(one["name"] == "conduit-expires-plc-road" for one in gate.status()["alarms"]))
        status = gate.status()  # the calendar, or a stranger, decides no exit code
        assert status["ok"] and ", 1 notice; " in status["verdict"] and "LOOK: " in status["verdict"]
        assert main(["status", *state]) == 0
        assert capsys.readouterr().out.startswith("ok: ")
        assert main(["ping", "plc", *state]) == 0
        assert "answers a read of" in capsys.readouterr().out
        with Client(site.port) as client:
            assert client.read()[0] == 3
            site.device.close()
            for _ in range(3):
                client.read()
            eventually(lambda: any(one["name"] == "asset-silent-plc" for one in gate.status()["alarms"]))
        status = gate.status()
        assert not status["ok"] and "plc does not answer" in status["verdict"]
        assert status["way_out"].startswith("cofferdam ping plc")
        assert main(["status", *state]) == 1
        out = capsys.readouterr().out
        assert (
            out.startswith("NOT OK (and ") and "more): plc does not answer" in out and "  do: cofferdam ping plc" in out
        )
        eventually(lambda: main(["ping", "plc", *state, "--json"]) == 1)  # at most one a second
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert not told["answered"] and told["state"] == "silent" and told["outer_ms"] > 0
        assert next(one["asset"] for one in events(site.state, "asset-pinged")) == "plc"
        assert "asset-silent-plc" in [one["name"] for one in events(site.state, "alarm")]
        shown = status_short.lines(status, 80, 23, lambda ns: f"{ns // 10**9} s")
        assert len(shown) <= 23 and all(len(line) <= 80 for line, _ in shown)
        assert any("plc" in line and "silent" in line for line, _ in shown)


def test_many_conduits_and_alarms_fit_the_screen(calm: Site) -> None:
    """At 80x24 nothing is folded, and what has no room is counted."""
    status = calm.up.status()
    status["conduits"] = [status["conduits"][0] | {"name": f"conduit-with-a-long-name-{i}"} for i in range(40)]
    status["assets"] = [status["assets"][0] | {"name": f"plc-{i}", "detail": "x" * 200} for i in range(40)]
    status["alarms"] = [{"name": f"a-{i}", "detail": "y" * 200, "since_ns": 1, "way_out": ""} for i in range(40)]
    shown = [line for line, _ in status_short.lines(status, 80, 23, lambda ns: "1 s")]
    assert len(shown) <= 23 and max(map(len, shown)) <= 80
    assert sum("more" in line for line in shown) == 3


def test_what_is_wrong_is_said_whole_where_the_screen_has_room(calm: Site) -> None:
    status = calm.up.status()
    status["verdict"] = f"NOT OK: {'what is wrong ' * 10}at the end"
    status["way_out"] = f"{'what to do ' * 10}at last"
    shown = [line for line, _ in status_short.lines(status, 80, 23, lambda ns: "1 s")]
    assert len(shown) <= 23 and max(map(len, shown)) <= 80
    said = " ".join(line.strip() for line in shown)
    assert status["verdict"] in said and f"do: {status['way_out']}" in said


def test_the_screen_says_until_when_a_conduit_is_open_and_what_became_of_the_night(calm: Site) -> None:
    """At 80 columns: the day and hour whole, whatever the conduit is called; of the night, what came of it."""
    status = calm.up.status()
    name = "a-conduit-with-a-name-of-40-letters-here"
    standing = status["conduits"][0]["standing"] | {"says": "open until Fri 2026-11-27 17:00 UTC"}
    status["conduits"] = [status["conduits"][0] | {"name": name, "standing": standing}]
    shown = [line for line, _ in status_short.lines(status, 80, 23, lambda ns: "1 s")]
    [line] = [one for one in shown if one.startswith("a-conduit-wi")]
    assert "open until Fri 17:00 UTC" in line and "…" in line and line.endswith("-")
    assert status["conduits"][0]["name"] == name
    [night] = [one for one in shown if one.startswith("nightly proof")]
    assert "NO proof" in night and "none done yet" in night


def test_each_alarm_has_a_way_out() -> None:
    assert way_out("asset-silent-plc-7").startswith("cofferdam ping plc-7")
    assert "cable" in way_out("zone-link-control")
    assert way_out("modbus/x/inner/trouble-plc").startswith("look at the device")
    assert "audit show" in way_out("what-nobody-knows")
    assert "time daemon" in way_out("check-clock.sound") and "list --status" in way_out("check-log.whole")
    assert way_out("jump/x/inner/jump-host-key-plc-7").endswith("cofferdam jump host-key plc-7 --file KEY")
    for name in ("requests", "files", "recording", "quarantine", "rotation-a-b", "break-glass"):
        assert "docs/operations.md" not in way_out(f"jump/x/keeper/jump-{name}"), name
    assert is_notice("jump/x/keeper/jump-requests") and not is_notice("jump/x/keeper/jump-break-glass")
    assert is_notice("check-clock.sound") and not is_notice("check-log.whole") and not is_notice("clock-jumped")


def test_an_address_that_is_nobodys_has_neighbours() -> None:
    principals = {
        "scada": Principal("scada", "it", ("192.168.50.20/32",)),
        "far": Principal("far", "it", ("10.0.0.1/32",)),
    }
    assert near_principals(principals, "192.168.50.99") == ["scada"]
    assert near_principals(principals, "2001:db8::1") == []
