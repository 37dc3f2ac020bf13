"""What a policy says of points that hold installs back, of how many go at once, and what is wrong with that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cofferdam.brokers.patch import health
from cofferdam.errors import PolicyError
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.patch_rows import Health, PatchRows, Unless
from tests.brokers.patch.makers import Gpg, run
from tests.brokers.patch.test_source_words import compiled
from tests.gate.plant import READ, Device
from tests.verbs import cli

POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  press: {zone: plant, address: 10.0.0.1, protocol: modbus, unit: 1,
          points: {speed: {at: holding 1, type: uint16, unit: rpm}, text: {at: holding 9-12, type: text},
                   pressure: {at: holding 2, type: uint16, max: 6}}}
  drive: {zone: plant, address: 10.0.0.2, protocol: opcua, points: {speed: {at: "nsu=urn:a;s=b", type: UInt16}}}
principals: {stage: {zone: office, addresses: 10.1.0.9}, box: {zone: plant, addresses: 10.0.0.9}}
conduits:
  firmware:
    {from: office, to: plant, broker: patch, owner: maintenance, reason: firmware, root: root.json, at_once: 3,
     bandwidth: 1 MB, listen: {office: {at: "10.1.0.1:8443", plain: true}, plant: {at: "10.0.0.3:8443", plain: true}},
     products: {fw: {origin: {two_sources: true}, scan: none}},
     ways: {press: {tftp: {}}, box: {address: 10.0.0.9, pull: box}},
     allow: [{who: stage, put: fw},
             {asset: press, install: fw, unless: {point: speed, above: 0}, health: {point: pressure}, when_shut: stop},
             {asset: box, install: fw, unless: [{asset: press, point: speed, above: 10, below: -1}]}]}
gate: {separation: processes}
"""


def test_points_travel_to_the_installer_and_to_nobody_else(tmp_path: Path) -> None:
    policy = compiled(tmp_path, POLICY)
    terms = policy.conduits["firmware"].terms
    assert isinstance(terms, PatchRows)
    assert (terms.at_once, terms.bandwidth) == (3, 1_000_000)
    press, box = terms.installs
    assert press.unless == (Unless(asset="press", point="speed", above=0),)
    assert box.unless == (Unless(asset="press", point="speed", above=10, below=-1),)
    scope = Scope(frozenset({"firmware"}), frozenset({"fw"}))
    found = KINDS["patch"].slice(policy, scope, "installer")
    assert [(asset.name, [point.name for point in asset.points]) for asset in found.assets.values()] == [
        ("press", ["pressure", "speed"])
    ]
    assert not KINDS["patch"].slice(policy, scope, "keeper").assets
    reaches = KINDS["patch"].needs(policy.conduits["firmware"], policy).parts["installer"].reaches
    assert [(each.address, each.port) for each in reaches] == [("10.0.0.1", 502)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("unless: {point: speed, above: 0}", "unless: {point: speed}", "`above:` or `below:`"),
        ("unless: {point: speed, above: 0}", "unless: {point: sped, above: 0}", "no point of press"),
        ("unless: {point: speed, above: 0}", "unless: {point: text, above: 0}", "which is a text"),
        ("unless: {point: speed, above: 0}", "unless: {asset: pres, point: speed, above: 0}", "which is no asset"),
        ("unless: {point: speed, above: 0}", "unless: {asset: drive, point: speed, above: 0}", "speaks opcua"),
        ("protocol: modbus, unit: 1", "protocol: modbus, tls: {asset: yes}, unit: 1", "speaks modbus by TLS"),
        ("health: {point: pressure}", "health: {point: speed}", "a point with `min`, `max` or `values`"),
        ("health: {point: pressure}", "health: {}", "one of tcp, http, file, point, ping, person"),
        ("asset: box, install: fw, ", "asset: box, install: fw, when_shut: stop, ", "assets that are sent files"),
        ("{who: stage, put: fw}", "{who: stage, put: fw, unless: {point: speed, above: 0}}", "with `install`"),
        ("at_once: 3", "at_once: 0", "1 to 100"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = POLICY.replace(old, new, 1)
    assert text != POLICY
    with pytest.raises(PolicyError) as error:
        compiled(tmp_path, text)
    assert any(says in str(problem) for problem in error.value.problems), "\n".join(map(str, error.value.problems))


def test_a_device_that_a_proxy_holds_is_told(tmp_path: Path) -> None:
    proxy = """  press-read: {from: office, to: plant, broker: modbus, owner: o, reason: r, expires: 2199-01-01,
    allow: [{who: stage, asset: press, read: [speed]}]}
gate:"""
    for connections, told in ((1, True), (2, False)):
        text = POLICY.replace("gate:", proxy).replace("unit: 1,", f"unit: 1, connections: {connections},")
        compiled(tmp_path, text)
        found = [str(each) for each in lint(load(tmp_path / "policy.yaml"))]
        assert any("press, which takes one connection, and a proxy has it" in each for each in found) is told, found


def test_a_way_back_where_there_is_none_is_told(tmp_path: Path) -> None:
    for asset, told in (("box", True), ("press", False)):
        rule = f"asset: {asset}, install: fw, "
        compiled(tmp_path, POLICY.replace(rule, f"{rule}back: previous, "))
        found = [str(each) for each in lint(load(tmp_path / "policy.yaml"))]
        assert any("back: previous for box, which nothing is sent to" in each for each in found) is told, found


def test_a_window_that_is_too_short_for_the_largest_file_is_told(tmp_path: Path) -> None:
    rule = "asset: box, install: fw, "
    for until, told in (("23:01", True), ("00:41", False)):  # 100 MB at 1 MB a second; over midnight
        window = f'{rule}window: {{days: sat, from: "23:00", to: "{until}", zone: Europe/Paris}}, '
        compiled(tmp_path, POLICY.replace(rule, window))
        found = [str(each) for each in lint(load(tmp_path / "policy.yaml"))]
        says = "fw to box: 100 MB take 2 min at its rate, and the longest window has 1 min"
        assert any(says in each for each in found) is told, found


def test_keys_that_end_are_told(tmp_path: Path) -> None:
    """The root, a publisher's authority (of a year) and a vendor's OpenPGP key (of a year as well)."""
    vendor = Gpg(tmp_path / "gpg")
    (tmp_path / "vendor.asc").write_bytes(vendor.public())
    vendor.close()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=v",
        "-days", "365", "-keyout", tmp_path / "key", "-out", tmp_path / "ca.pem")  # fmt: skip
    products = "{fw: {origin: {pgp: vendor.asc}, scan: none}, exe: {origin: {cms: ca.pem}, scan: none}"
    compiled(tmp_path, POLICY.replace("{fw: {origin: {two_sources: true}, scan: none}", products))
    now, day = datetime.now(UTC), timedelta(days=1)
    expires = (now + 365 * day).isoformat()
    root = {"_type": "root", "roles": {"targets": {"threshold": 2}}, "expires": expires}
    (tmp_path / "root.json").write_text(json.dumps({"signed": root}))
    for ahead, says in ((300, ""), (340, "expires in 25 days"), (370, "has expired")):
        wall = int((now + ahead * day).timestamp()) * 10**9
        found = [str(each) for each in lint(load(tmp_path / "policy.yaml"), now_ns=wall)]
        told = [each for each in found if "its successor" in each]
        assert [any(f"{what}, which {says}" in each for each in told) for what in ("root", "vendor.asc", "ca.pem")] == (
            [bool(says)] * 3
        ), (ahead, found)
        assert len(told) == (3 if says else 0)


def test_whether_it_would_go_and_when_is_explained(tmp_path: Path) -> None:
    rule = "asset: box, install: fw, "
    window = f'{rule}window: {{days: tue, from: "02:00", to: "04:00", zone: Europe/Paris}}, '
    compiled(tmp_path, POLICY.replace(rule, window))

    def asked(asset: str, at: str) -> tuple[int, str]:
        code, said, _ = cli("explain", tmp_path / "policy.yaml", "--asset", asset, "--install", "fw", "--at", at)
        return code, said

    code, said = asked("box", "2027-03-09T01:30Z")
    assert (code, "allowed by firmware/2" in said) == (0, True), said
    assert "until 2027-03-09 03:00:00 UTC" in said
    for condition in ("whose origin is proved (two-sources)", "signatures of 2 people", "press.speed is read"):
        assert any(line.startswith("  provided that") and condition in line for line in said.splitlines()), said
    code, said = asked("box", "2027-03-09T03:00Z")
    assert code == 1, said
    assert "the asset's window is shut: tue 02:00-04:00 Europe/Paris; it opens 2027-03-16 01:00:00 UTC" in said
    assert "fw goes to box, press, not to drive" in asked("drive", "2027-03-09T01:30Z")[1]


class Slow(Device):
    """It takes its time."""

    def _reply(self, pdu: bytes) -> bytes:
        time.sleep(0.2)
        return bytes([READ, 2]) + struct.pack(">H", 9)


def test_a_point_has_as_long_as_the_policy_gives_its_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only as long as a port or a page."""
    monkeypatch.setattr(health, "TRY_SECONDS", 0.1)
    with contextlib.closing(Slow()) as device:
        at = f"address: 127.0.0.1, port: {device.port}, timeout: 60 s, protocol: modbus"
        policy = compiled(tmp_path, POLICY.replace("address: 10.0.0.1, protocol: modbus", at))
        terms = policy.conduits["firmware"].terms
        assert isinstance(terms, PatchRows)
        way = next(one for one in terms.ways if one.asset == "press")
        why = asyncio.run(health.check(Health(point="pressure", within=0), way, "", "1", policy.assets))
    assert "pressure = 9" in why
