"""What a technician installs: laid out in a folder of the site's, by a real gate, until somebody says what became of
it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.patching import Works
from tests.waiting import eventually


class Station(Works):
    """A drive and a robot, of which a technician takes care."""

    def write_policy(self) -> None:
        super().write_policy()
        text = self.policy.read_text()
        ways = "\n      drive: {hands: for-technicians}\n      robot: {hands: for-technicians}\n      panel: {address"
        text = text.replace("\n      panel: {address", ways, 1)
        rules = "\n      - {asset: [drive, robot], install: plc-firmware, ring: test}\ngate:"
        self.policy.write_text(text.replace("\ngate:", rules, 1))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    folder = tmp_path_factory.mktemp("station")
    made = Station(folder, options=("--folders", str(folder / "folders")))
    yield made
    made.close()


def entries(station: Station, what: str) -> list[dict[str, object]]:
    out = station.folder / "evidence.json"
    station.patch("export", str(out))
    log = json.loads(out.read_text())["log"]
    out.unlink()
    return [each for each in log if each["kind"] == what]


def test_a_technician_takes_it_and_says_which_version_the_asset_shows(station: Station) -> None:
    folder: Path = station.folder / "folders" / "for-technicians"
    data = b"drive firmware " * 100_000
    station.release("drive.bin", data, "2.1")
    eventually(lambda: {station.asset(name)["state"] for name in ("drive", "robot")} == {"sent"})
    assert (folder / "drive" / "drive.bin").read_bytes() == data
    assert not (folder / "drive" / "drive.bin").stat().st_mode & 0o222
    form = (folder / "drive" / "drive.bin.form.txt").read_text()
    assert hashlib.sha256(data).hexdigest() in form
    assert "cofferdam patch result drive plc-firmware done" in form
    said = station.patch("result", "drive", "plc-firmware", "done", code=2)
    assert "who did it" in said
    assert "--technician NAME --reads VERSION" in said
    words = ("--technician", "J. Perez", "--detail", "by the maker's tool")
    station.patch("result", "drive", "plc-firmware", "done", "--reads", "2.1", *words)
    assert station.asset("drive")["state"] == "done"
    assert not list((folder / "drive").iterdir())
    # Another version than the release's: it failed, whatever was said, and stops the ring.
    assert station.asset("plc-2")["state"] == ""
    station.patch("result", "robot", "plc-firmware", "done", "--reads", "2.0", *words)
    assert station.asset("robot")["state"] == "failed"
    assert "it shows 2.0 and not 2.1" in station.asset("robot")["detail"]
    assert "stopped" in station.asset("plc-2")["why"]
    told = [each for each in entries(station, "plan-set") if each["asset"] == "drive"]
    assert [(each["technician"], each["reads"], each["what"]) for each in told] == [("J. Perez", "2.1", "result-done")]


def test_a_folder_that_is_in_the_way_is_told_and_nothing_else_is_touched(station: Station) -> None:
    """Somebody has put a link in the place of the asset's folder."""
    folder: Path = station.folder / "folders" / "for-technicians"
    elsewhere = station.folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "drive").rmdir()
    (folder / "drive").symlink_to(elsewhere)
    station.release("drive.bin", b"drive firmware 3", "3.0")
    eventually(lambda: station.asset("drive")["state"] == "failed")
    assert "it cannot be laid out" in station.asset("drive")["detail"]
    assert not list(elsewhere.iterdir())
