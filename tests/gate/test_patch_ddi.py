"""A gateway that polls: Debian's swupdate against the gate, as a device in the field would."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cofferdam.lab.patch.gateway import cpio
from tests.brokers.patch.makers import run
from tests.gate.patching import Works
from tests.waiting import PATIENT, alone, eventually

ROOT = "http://127.0.0.1:{port}/DEFAULT/controller/v1/panel"


class Maker:
    """The gateway's maker: images that its SWUpdate believes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.certificate, self.key = folder / "ca.pem", folder / "ca.key"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.certificate,
            "-subj", "/CN=Maker", "-days", "365", "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
            "-addext", "extendedKeyUsage=emailProtection")  # fmt: skip

    def image(self, payload: bytes, target: Path) -> bytes:
        sha256 = hashlib.sha256(payload).hexdigest()
        description = (
            f'software = {{ version = "5.0"; hardware-compatibility = ["1.0"]; files: ( {{ filename = "app.bin";'
            f' path = "{target}"; sha256 = "{sha256}"; }} ); }}\n'
        )
        text = self.folder / "sw-description"
        text.write_text(description)
        run("openssl", "cms", "-sign", "-in", text, "-out", f"{text}.sig", "-signer", self.certificate, "-inkey",
            self.key, "-outform", "DER", "-nosmimecap", "-binary")  # fmt: skip
        signature = Path(f"{text}.sig").read_bytes()
        return cpio(("sw-description", description.encode()), ("sw-description.sig", signature), ("app.bin", payload))


@pytest.fixture(scope="module")
def key(works: Works) -> str:
    return works.patch("key", "new", "panel").split()[0]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = Works(tmp_path_factory.mktemp("works"))
    yield made
    made.close()


def test_a_device_sees_its_own_place_alone(works: Works, key: str) -> None:
    root = ROOT.format(port=works.plant)
    with httpx.Client(headers={"authorization": f"GatewayToken {key}"}, timeout=PATIENT) as client:
        assert "deploymentBase" not in client.get(root).json()["_links"]
        assert client.get(root.replace("panel", "plc-1")).status_code == 403
        assert client.get(f"{root}/deploymentBase/1").status_code == 404
        assert client.get(f"{root}/deploymentBase/{'9' * 40}").status_code == 404
        assert client.post(f"{root}/deploymentBase/1/feedback", content=b"{}").status_code == 400
        assert client.put(f"{root}/configData", json={"data": {}}).status_code == 200
    assert httpx.get(root, headers={"authorization": "GatewayToken x"}, timeout=PATIENT).status_code == 401


@pytest.mark.soak
def test_ten_thousand_polls_disturb_nobody(works: Works, key: str) -> None:
    root, panel = ROOT.format(port=works.plant), {"authorization": f"GatewayToken {key}"}

    def entries() -> int:
        works.patch("export", str(works.folder / "log.json"))
        log = json.loads((works.folder / "log.json").read_text())["log"]
        (works.folder / "log.json").unlink()
        return len(log)

    before = entries()
    with httpx.Client(headers=panel, timeout=PATIENT) as client:
        for number in range(10_000):
            assert client.get(root).status_code == 200
            if number == 2000:
                works.release("polled.bin", b"polled " * 1000, "3.0")
    eventually(lambda: works.asset("plc-2")["state"] == "done")
    assert (works.sshd.files / "polled.bin").read_bytes() == b"polled " * 1000
    assert entries() - before < 30


@contextlib.contextmanager
def swupdate(works: Works, maker: Maker, folder: Path, key: str, device_id: str = "panel") -> Iterator[None]:
    """A device."""
    (folder / "hwrevision").write_text("board 1.0\n")
    config = folder / "swupdate.cfg"
    config.write_text('globals : { verbose = true; loglevel = 5; };\nidentify : ( { name = "a"; value = "b"; } );\n')
    # Two of them would take each other's sockets, /tmp/sockinstctrl and /tmp/swupdateprog.
    with alone("swupdate"), (folder / "log").open("wb") as out:
        device = subprocess.Popen(
            ["swupdate", "-f", str(config), "-H", "board:1.0", "-k", str(maker.certificate), "-u",
             f"-t DEFAULT -u http://127.0.0.1:{works.plant} -i {device_id} -g {key}"],
            stdout=out, stderr=out, cwd=folder,
        )  # fmt: skip
        try:
            yield
        except AssertionError as error:
            error.add_note((folder / "log").read_text(errors="replace")[-8000:])
            raise
        finally:
            device.terminate()
            device.wait(PATIENT)


def offered(works: Works, version: str, image: bytes) -> None:
    """It is the device's turn: one that finds nothing asks again after half a minute."""
    works.release("gateway.swu", image, version)
    eventually(lambda: (panel := works.asset("panel"))["due"] and panel["release"] == version)


needs_swupdate = pytest.mark.skipif(shutil.which("swupdate") is None, reason="swupdate is not installed")


@needs_swupdate
def test_swupdate_polls_installs_and_says_so(works: Works, key: str, tmp_path: Path) -> None:
    maker, target = Maker(tmp_path / "maker"), tmp_path / "installed"
    payload = b"application " * 5000
    offered(works, "5.0", maker.image(payload, target))
    with swupdate(works, maker, tmp_path, key):
        # It has no boot loader here: after a restart it would say that the new one runs, as we do for it below.
        eventually(lambda: target.is_file() and works.asset("panel")["state"] == "sent")
        assert target.read_bytes() == payload
        assert works.asset("panel")["has"] == "5.0"
    number = works.asset("panel")["number"]
    closed = {"id": str(number), "status": {"execution": "closed", "result": {"finished": "success"}, "details": []}}
    at = f"{ROOT.format(port=works.plant)}/deploymentBase/{number}/feedback"
    said = httpx.post(at, json=closed, headers={"authorization": f"GatewayToken {key}"}, timeout=PATIENT)
    assert said.status_code == 200
    assert works.asset("panel")["state"] == "done"


@needs_swupdate
def test_a_device_that_refuses_an_image_is_not_given_it_again_and_again(works: Works, key: str, tmp_path: Path) -> None:
    """It hangs up in mid transfer and says that it failed: that is an answer, and no reason to begin anew."""
    maker, stranger, target = Maker(tmp_path / "maker"), Maker(tmp_path / "stranger"), tmp_path / "installed"
    offered(works, "6.0", stranger.image(os.urandom(12_000_000), target))
    with swupdate(works, maker, tmp_path, key):
        eventually(lambda: works.asset("panel")["state"] == "failed")
    assert "the asset says so" in works.asset("panel")["detail"]
    assert not target.exists()
    # What is given up is left, once the device asks.
    works.release("gateway.swu", maker.image(b"application 7", target), "7.0")
    # "Again" is said of what the installer knows: before it has seen the new one, that is the old one.
    eventually(lambda: works.asset("panel")["release"] == "7.0")
    works.patch("result", "panel", "plc-firmware", "again")
    eventually(lambda: works.asset("panel")["due"])
    with swupdate(works, maker, tmp_path, key):
        eventually(lambda: target.is_file() and works.asset("panel")["state"] == "sent")
    works.patch("stop", "plc-firmware")
    with swupdate(works, maker, tmp_path, key):
        eventually(lambda: works.asset("panel")["state"] == "failed")
    assert "given up by an operator, it has left it" in works.asset("panel")["detail"]
