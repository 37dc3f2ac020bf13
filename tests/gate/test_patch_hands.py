"""What a technician installs, laid out in a folder of the site's until somebody says what became of it; and what a
boot loader reads by TFTP. By a real gate, under its filter."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.patch.makers import run
from tests.gate.patching import Works
from tests.waiting import PATIENT, eventually

PRODUCTS = """      lathe-firmware: {origin: {pgp: vendor.asc}, scan: none}
      loader-firmware: {origin: {pgp: vendor.asc}, scan: none}"""


class Station(Works):
    """A drive, a robot and a lathe, of which a technician takes care, and a loader that reads by TFTP."""

    def write_policy(self) -> None:
        super().write_policy()
        text = self.policy.read_text()
        ways = (
            "\n      drive: {hands: for-technicians}\n      robot: {hands: for-technicians}"
            "\n      lathe: {hands: for-technicians}"
            '\n      loader: {address: 127.0.0.1, tftp_read: "boot/{file}"}\n      panel: {address'
        )
        text = text.replace("\n      panel: {address", ways, 1)
        text = text.replace("\n    ways:", f'\n    tftp: "127.0.0.1:{self.plant}"\n    ways:', 1)
        rules = (
            "\n      - {asset: [drive, robot], install: plc-firmware, ring: test}"
            "\n      - {asset: lathe, install: lathe-firmware, ring: test}"
            "\n      - {asset: loader, install: loader-firmware, ring: test}\ngate:"
        )
        self.policy.write_text(text.replace("\ngate:", rules, 1))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    folder = tmp_path_factory.mktemp("station")
    made = Station(folder, products=PRODUCTS, options=("--folders", str(folder / "folders")))
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
    eventually(lambda: not list((folder / "drive").iterdir()))
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
    (folder / "lathe").symlink_to(elsewhere)
    station.release("lathe.bin", b"lathe firmware 3", "3.0", product="lathe-firmware")
    eventually(lambda: station.asset("lathe")["state"] == "failed")
    assert "it cannot be laid out" in station.asset("lathe")["detail"]
    assert not list(elsewhere.iterdir())


# --- TFTP -------------------------------------------------------------------------------------------------------------


def asked(station: Station, packet: bytes, *, tries: int = 8) -> bytes:
    """What we answer to one datagram; b"" for nothing. From a port of its own each time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", station.plant))
        for _ in range(tries):
            sock.send(packet)
            if select.select([sock], [], [], PATIENT / tries)[0]:
                data = sock.recv(2048)
                if data[:2] in (b"\0\3", b"\0\6"):  # it leaves at once
                    sock.send(b"\0\5\0\0enough\0")
                return data
    return b""


def request(name: str, mode: str = "octet", *options: str, code: int = 1) -> bytes:
    return code.to_bytes(2, "big") + b"\0".join(word.encode() for word in (name, mode, *options)) + b"\0"


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (request("boot/drive.bin", code=2), b"\0\5\0\4"), (request("boot/drive.bin", "netascii"), b"\0\5\0\4"),
        (request("boot/other.bin"), b"\0\5\0\1"), (request("drive.bin"), b"\0\5\0\1"),
        (request("../policy.yaml"), b"\0\5\0\1"), (request("x" * 400), b"\0\5\0\4"), (b"\0\1boot", b"\0\5\0\4"),
        (b"\0\x09nonsense", b"\0\5\0\4"),
    ],
)  # fmt: skip
def test_nothing_else_is_read_or_written_by_tftp(station: Station, packet: bytes, says: bytes) -> None:
    assert asked(station, packet)[:4] == says


def test_a_loader_reads_its_file_by_tftp(station: Station, tmp_path: Path) -> None:
    """curl is the loader. One that leaves in the middle may ask again; what it has had whole, it is not given twice."""
    data = os.urandom(3 * 1428 * 40 + 17)
    station.release("loader.bin", data, "4.0", product="loader-firmware")
    name = f"tftp://127.0.0.1:{station.plant}/boot/loader.bin"
    eventually(lambda: station.asset("loader")["release"] == "4.0" and station.asset("loader")["due"])
    assert asked(station, request("boot/loader.bin", "octet", "blksize", "9999", "tsize", "0")) == (
        b"\0\6blksize\x001428\0tsize\0%d\0" % len(data)
    )
    eventually(lambda: station.asset("loader")["state"] == "again")
    out = tmp_path / "loader.bin"
    run("curl", "-s", "--tftp-blksize", "1428", "-o", out, name)
    assert out.read_bytes() == data
    eventually(lambda: station.asset("loader")["state"] == "done")
    assert asked(station, request("boot/loader.bin"))[:4] == b"\0\5\0\1"
    told = [
        each for each in entries(station, "install-started") if each["asset"] == "loader" and each["version"] == "4.0"
    ]
    assert [each["way"] for each in told] == ["tftp", "tftp"]
