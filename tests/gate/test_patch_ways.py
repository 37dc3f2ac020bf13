"""Assets that take files by FTPS, TFTP and SMB, of a real gate, under its filter: vsftpd, tftpd-hpa, samba."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.cli.main import main
from tests.brokers.patch.test_cms import Maker
from tests.brokers.patch.test_smb import ME, PASSWORD, SMBD, Samba
from tests.brokers.patch.test_ways import FTPD, TFTPD, Ftpd, Tftpd
from tests.gate.patching import Works
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(
    FTPD is None or not Path(TFTPD).exists() or not Path(SMBD).exists() or os.geteuid() != 0,
    reason="vsftpd, tftpd-hpa and samba, which take root to start",
)


class Plant(Works):
    """A press with FTPS, a drive with TFTP and a station with a share besides."""

    def __init__(self, folder: Path, ftpd: Ftpd, tftpd: Tftpd, samba: Samba) -> None:
        self.ftpd, self.tftpd, self.samba = ftpd, tftpd, samba
        password = folder / "password"
        password.write_text(PASSWORD + "\n")
        (folder / "press.pem").write_bytes(b"-----BEGIN CERT" + ftpd.pem.read_bytes().partition(b"-----BEGIN CERT")[2])

        def prepare(works: Works) -> None:
            works.patch("credential", "station", "--policy", str(works.policy), "--file", str(password))

        super().__init__(folder, prepare=prepare)

    def write_policy(self) -> None:
        super().write_policy()
        text = self.policy.read_text()
        ways = f"""
      press:
        address: 127.0.0.1
        rate: 10 MB
        ftp: {{port: {self.ftpd.port}, data: {self.ftpd.low}-{self.ftpd.low}, user: anonymous, certificate: press.pem,
               path: "fw/{{file}}"}}
      drive: {{address: 127.0.0.1, rate: 10 MB, tftp: {{port: {self.tftpd.port}}}}}
      station: {{address: 127.0.0.1, rate: 10 MB, smb: {{port: {self.samba.port}, share: updates, user: {ME}}}}}
      panel: {{address"""
        text = text.replace("\n      panel: {address", ways, 1)
        health = "health: {file: fw/press.bin, says: pressed, within: 20 s}, back: previous"
        rules = f"""
      - {{asset: press, install: plc-firmware, ring: test, {health}}}
      - {{asset: drive, install: plc-firmware, ring: test}}
      - {{asset: station, install: plc-firmware, ring: test, {health.replace("fw/", "")}}}
gate:"""
        self.policy.write_text(text.replace("\ngate:", rules, 1))


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    ftpd = Ftpd(tmp_path_factory.mktemp("ftp"), tls=True)
    tftpd = Tftpd(tmp_path_factory.mktemp("tftp"))
    samba = Samba(tmp_path_factory.mktemp("samba"))
    made = Plant(tmp_path_factory.mktemp("plant"), ftpd, tftpd, samba)
    yield made
    made.close()
    samba.close()
    ftpd.close()
    tftpd.close()


def test_files_go_by_ftps_tftp_and_smb_and_the_way_back_holds(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(plant.policy)]) in (0, 1)
    said = capsys.readouterr().out
    assert "TFTP to drive: no login, no protection" in said
    assert "FTP without TLS" not in said
    good = b"pressed " * 100_000
    plant.release("press.bin", good, "1.0")
    eventually(lambda: {plant.asset(name)["state"] for name in ("press", "drive", "station")} == {"done"})
    assert (plant.ftpd.files / "fw" / "press.bin").read_bytes() == good
    assert (plant.tftpd.files / "press.bin").read_bytes() == good
    assert [each.name for each in (plant.ftpd.files / "fw").iterdir()] == ["press.bin"]
    assert (plant.samba.files / "press.bin").read_bytes() == good
    assert [each.name for each in plant.samba.files.iterdir()] == ["press.bin"]
    plant.release("press.bin", b"broken " * 1000, "2.0")
    eventually(lambda: plant.asset("press")["state"] == "back")
    assert (plant.ftpd.files / "fw" / "press.bin").read_bytes() == good


def test_a_file_that_its_maker_signed_by_cms(plant: Plant) -> None:
    """Under the examiner's own filter: nothing can be imported late there."""
    maker = Maker(plant.folder / "maker")
    (plant.folder / "maker.pem").write_bytes(maker.root)
    text = plant.policy.read_text()
    plant.policy.write_text(
        text.replace("    products:\n", "    products:\n      drives: {origin: {cms: maker.pem}, scan: none}\n", 1)
    )
    assert main(["reload", "--state", str(plant.state)]) == 0
    file = plant.folder / "drive.bin"
    file.write_bytes(b"drive firmware")
    signature = plant.folder / "drive.bin.p7s"
    signature.write_bytes(maker.sign(file))
    words = ("--product", "drives", "--signature", str(signature))
    found = plant.examined(plant.told("put", str(file), "--version", "1", *words)["number"])
    assert (found["state"], found["report"]["origin"]) == ("passed", "CMS, Vendor Inc"), found
    file.write_bytes(b"drive firmwarE")
    found = plant.examined(plant.told("put", str(file), "--version", "2", *words)["number"])
    assert (found["state"], "another file" in found["reason"]) == ("refused", True), found
