"""Rings in a gate as a user starts it: several assets at once, production that runs, and a point that must be good; and
an archive whose password the keeper has."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.brokers.patch.makers import run
from tests.gate.patching import Works
from tests.gate.plant import READ, Device
from tests.verbs import cli
from tests.waiting import eventually

PRODUCTS = """      drive-firmware: {origin: {pgp: vendor.asc}, scan: none}
      press-firmware: {origin: {pgp: vendor.asc}, scan: none}
      mill-firmware: {origin: {pgp: vendor.asc}, scan: none}
      oven-firmware: {origin: {pgp: vendor.asc}, scan: none}
      sealed: {origin: {pgp: vendor.asc}, scan: none, password: vendor-zip}"""
WAY = """{{address: 127.0.0.1, sftp: {{port: {sftp}, user: {user}, host_key: "{host_key}", secret: plc-1,
         path: "{files}/NAME"}}}}"""
DRIVES = ("drive-1", "drive-2", "drive-3")
WAYS = "\n".join(f"      {name}: {WAY.replace('NAME', name)}" for name in (*DRIVES, "press", "mill", "oven"))
RULES = """      - {asset: [drive-1, drive-2, drive-3], install: drive-firmware, ring: test}
      - {asset: mill, install: mill-firmware, ring: line, window: {days: DAY, from: "00:00", to: "00:01", zone: UTC}}
      - {asset: press, install: press-firmware, ring: test, unless: {asset: line, point: speed, above: 0},
         health: {point: pressure, within: 1 s}}
      - {asset: oven, install: oven-firmware, ring: test, health: {point: pressure, within: 1 s}}
assets:
  line: {zone: plant, address: 127.0.0.1, port: PORT, protocol: modbus, unit: 1, timeout: 20 s,
         points: {speed: {at: holding 0, type: uint16, unit: rpm, scale: 0.1}}}
  press: {zone: plant, address: 127.0.0.1, port: PORT, protocol: modbus, unit: 2, timeout: 20 s,
         points: {pressure: {at: holding 7, type: uint16, unit: bar, min: 2, max: 6}}}
  oven: {zone: plant, address: 127.0.0.1, port: PORT, protocol: modbus, unit: 3, timeout: 20 s,
         points: {pressure: {at: holding 8, type: uint16, unit: bar, min: 2, max: 6}}}"""


class Line(Device):
    """Three devices behind one address; the oven's pressure is out of its limits."""

    def __init__(self) -> None:
        super().__init__()
        self.registers = {0: 12_000, 7: 4, 8: 9}

    def _reply(self, pdu: bytes) -> bytes:
        start, count = struct.unpack(">HH", pdu[1:5])
        if start not in self.registers:
            raise ConnectionResetError
        return bytes([READ, 2 * count, *struct.pack(f">{count}H", *(self.registers[start + n] for n in range(count)))])


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Works, Line]]:
    line = Line()
    day = f"{datetime.now(UTC) + timedelta(days=3):%a}".lower()
    rules = RULES.replace("PORT", str(line.port)).replace("DAY", day)
    made = Works(
        tmp_path_factory.mktemp("works"), products=PRODUCTS, ways=WAYS, rules=rules,
        sources="    at_once: 2\n    bandwidth: 1 MB",
    )  # fmt: skip
    yield made, line
    made.close()
    line.close()


def release(works: Works, product: str, version: str, *how: str) -> bytes:
    data = f"{product} {version} ".encode() * 1000
    number = works.put("fw.bin", data, version, product=product)
    assert works.examined(number)["state"] == "passed"
    works.patch("request", str(number), *how)
    for who in ("alice", "bob"):
        works.approve(number, who)
    return data


def test_so_many_at_once_and_no_more(plant: tuple[Works, Line]) -> None:
    works, _ = plant
    assert works.sshd.process is not None
    works.sshd.process.send_signal(signal.SIGSTOP)  # it takes connections and says nothing
    try:
        data = release(works, "drive-firmware", "1.0")

        def seen() -> tuple[list[str], str, list[str]]:
            """At one look: after 20 s the first of them is given up."""
            plan = works.told("plan")
            rows = {row["asset"]: row for row in plan["assets"]}
            under_way = [each["asset"] for each in plan["under_way"]]
            return [rows[each]["state"] for each in DRIVES], rows["drive-3"]["why"], under_way

        why = "2 assets are under way, and 2 may be at once"
        eventually(lambda: seen() == (["sending", "sending", ""], why, ["drive-1", "drive-2"]))
        assert "under way: drive-firmware to drive-1" in works.patch("status")
    finally:
        works.sshd.process.send_signal(signal.SIGCONT)
    eventually(lambda: {works.asset(each)["state"] for each in DRIVES} == {"done"})
    assert all((works.sshd.files / each).read_bytes() == data for each in DRIVES)


def test_nothing_begins_while_production_runs_or_while_that_is_not_known(plant: tuple[Works, Line]) -> None:
    works, line = plant
    data = release(works, "press-firmware", "1.0")
    eventually(lambda: "line.speed is 1200 rpm; nothing begins while it is above 0" in works.asset("press")["why"])
    del line.registers[0]  # it closes the connection instead of an answer
    eventually(lambda: "line.speed cannot be read" in works.asset("press")["why"])
    assert works.asset("press")["state"] == ""
    line.registers[0] = 0
    works.becomes("press", "done")
    assert (works.sshd.files / "press").read_bytes() == data


def test_an_emergency_takes_two_people_and_no_window_and_is_an_alarm(plant: tuple[Works, Line]) -> None:
    works, _ = plant

    def alarms() -> list[str]:
        return [str(one["detail"]) for one in works.gate.status()["alarms"] if "patch-emergency" in one["name"]]

    release(works, "mill-firmware", "1.0")
    eventually(lambda: works.asset("mill")["why"] == "its window is shut")
    assert not alarms()
    data = b"mill-firmware 2.0"
    number = works.put("fw.bin", data, "2.0", product="mill-firmware")
    assert works.examined(number)["state"] == "passed"
    assert "has a reason" in works.patch("request", str(number), "--emergency", code=2)
    works.patch("request", str(number), "--emergency", "--reason", "CVE-2026-9 is used by a worm")
    assert "EMERGENCY, waiting for signatures" in works.patch("status")
    words = ("patch", "approve", str(number), "--key", str(works.keys["alice"]), "--yes", "--state", str(works.state))
    code, _, shown = cli(*words)
    assert (code, "  EMERGENCY   outside windows" in shown) == (0, True), shown
    assert "  reason      CVE-2026-9 is used by a worm\n" in shown
    # One is not enough in an emergency either.
    assert works.told("status")["keeper"]["pending"]["signed"] == ["alice"]
    assert works.asset("mill")["why"] == "its window is shut"
    works.approve(number, "bob")
    works.becomes("mill", "done")
    assert (works.sshd.files / "mill").read_bytes() == data
    said = works.told("plan")["releases"][-1]
    assert (said["emergency"], said["reason"]) == (True, "CVE-2026-9 is used by a worm")
    eventually(lambda: len(alarms()) == 1 and "CVE-2026-9 is used by a worm" in alarms()[0])
    works.patch("export", str(works.folder / "evidence.json"))
    log = json.loads((works.folder / "evidence.json").read_text())["log"]
    started = [each for each in log if each["kind"] == "install-started" and each["asset"] == "mill"]
    assert [each["emergency"] for each in started] == [True]
    works.patch("stop", "mill-firmware")
    eventually(lambda: not alarms())


def test_a_point_out_of_its_limits_fails_the_asset(plant: tuple[Works, Line]) -> None:
    works, _ = plant
    release(works, "oven-firmware", "1.0")
    works.becomes("oven", "failed")
    assert "pressure = 9 bar" in works.asset("oven")["detail"]


def test_an_archive_is_opened_by_the_password_that_the_keeper_has(plant: tuple[Works, Line]) -> None:
    works, _ = plant
    (works.folder / "inner").write_bytes(b"firmware")
    made = ("-tzip", "-mem=AES256", "-plet me in", works.folder / "made.zip", works.folder / "inner")
    run("7zz", "a", "-bd", *made)
    number = works.put("sealed.zip", (works.folder / "made.zip").read_bytes(), "1.0", product="sealed")
    found = works.examined(number)
    assert (found["state"], "there is no password vendor-zip" in found["reason"]) == ("failed", True), found
    password = works.folder / "password"
    password.write_text("let me in\n")
    assert "credential is there" in works.patch(
        "credential", "vendor-zip", "--policy", str(works.policy), "--file", str(password)
    )
    works.patch("examine", str(number))
    found = works.examined(number)
    assert (found["state"], found["report"]["kind"].split(",")[1]) == ("passed", " 1 entries"), found
    assert "let me in" not in works.gate.said()
    bare = works.put("sealed-too.zip", (works.folder / "made.zip").read_bytes(), "1.0")
    assert "needs a password" in works.examined(bare)["reason"]
