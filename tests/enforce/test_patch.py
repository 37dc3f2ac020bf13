"""The patch relay in namespaces: an examiner that sees one store and clamd's socket, an installer that reaches its
asset alone, a health check that fails, and the way back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.enforce.fence import tag
from cofferdam.enforce.journal import folder
from cofferdam.enforce.kernel import PINGING
from cofferdam.enforce.plans.records import namespace_name
from cofferdam.enforce.putback import clean
from cofferdam.enforce.users import read
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, Gpg, Sshd, clamd, ssh_key
from tests.brokers.patch.web import serving
from tests.brokers.relay.certificates import make
from tests.enforce.site import DEVICE, GATE_IT, STRANGER, Site, at, netns
from tests.gate.plant import Gate
from tests.verbs import KERNEL, cli
from tests.waiting import alone, eventually

pytestmark = [*netns, pytest.mark.skipif(not HAS_CLAMD, reason="clamd is not installed")]
AUTHORITY = make("vendor authority", ca=True)
VENDOR = make("vendor.test", by=AUTHORITY)
CONDUITS = """
  firmware:
    from: office
    to: plant
    broker: patch
    owner: maintenance
    reason: tests
    root: root.json
    listen:
      office: {{at: "{gate}:8444", plain: true}}
    products:
      fw: {{origin: {{pgp: vendor.asc}}}}
    sources:
      vendor: {{https: {{at: "{vendor}", host: vendor.test, authority: ca.pem, path: /files/}}, every: 1 day}}
    ways:
      plc-9:
        address: {device}
        sftp: {{port: 2222, user: root, host_key: "{host_key}", path: "{files}/{{file}}"}}
    allow:
      - {{who: erp, put: fw}}
      - {{source: vendor, fetch: fw, files: "fetched-{{version}}.bin"}}
      - asset: plc-9
        install: fw
        health: {{file: "{files}/fw.bin", says: "good", ping: true, within: 1 s}}
        back: previous
"""


class Live:
    """A gate with a patch relay, its vendor, its asset, and its command line."""

    def __init__(self, site: Site, folder: Path, scanner: Path, port: int) -> None:
        self.site, self.folder = site, folder
        beside = site.policy.parent
        beside.chmod(0o711)  # the gate's user reads what lies beside the policy
        self.vendor = Gpg(folder / "vendor")
        (beside / "vendor.asc").write_bytes(self.vendor.public())
        (beside / "ca.pem").write_bytes(AUTHORITY.pem)
        (folder / "web" / "fetched-0.1.bin").write_bytes(b"from the vendor's site")
        (folder / "web" / "fetched-0.1.bin.asc").write_bytes(self.vendor.sign(b"from the vendor's site"))
        self.keys = {name: ssh_key(folder, name) for name in ("alice", "bob", "h1", "h2", "machine")}
        self.sshd = Sshd(folder / "plc", self.keys["machine"].with_suffix(".pub"), 2222, address=DEVICE, start=False)
        self.sshd.start("ip", "netns", "exec", site.plant)
        site.policy.write_text(
            site.text(
                rules=CONDUITS.format(
                    vendor=f"{STRANGER}:{port}",
                    gate=GATE_IT,
                    device=DEVICE,
                    host_key=self.sshd.host_key,
                    files=self.sshd.files,
                )
            )
        )
        root = beside / "root.json"
        people = [word for name in ("alice", "bob") for word in ("--approver", f"{name}={self.keys[name]}.pub")]
        people += [word for name in ("h1", "h2") for word in ("--holder", f"{name}={self.keys[name]}.pub")]
        self.patch("root", "new", str(site.policy), *people, "--out", str(root))
        for name in ("h1", "h2"):
            self.patch("root", "sign", str(root), "--key", str(self.keys[name]))
        root.chmod(0o644)
        self.patch("credential", "plc-9", "--policy", str(site.policy), "--key", str(self.keys["machine"]))
        self.gate = Gate(site.state, site.policy, "--socket", f"clamd={scanner}")

    def patch(self, *words: str) -> str:
        code, said, complained = cli("patch", *words, "--state", self.site.state)
        assert code == 0, complained + said + (self.gate.said() if hasattr(self, "gate") else "")
        return said

    def told(self, *words: str) -> Any:
        return json.loads(self.patch(*words, "--json"))

    def put(self, data: bytes, version: str) -> dict[str, Any]:
        file, signature = self.folder / "fw.bin", self.folder / "fw.bin.asc"
        file.write_bytes(data)
        signature.write_bytes(self.vendor.sign(data))
        words = ("--product", "fw", "--version", version, "--signature", str(signature))
        number = self.told("put", str(file), *words)["number"]
        eventually(lambda: self.told("show", str(number))["state"] not in ("examining", "waiting"))
        return dict(self.told("show", str(number)))

    def release(self, data: bytes, version: str) -> None:
        found = self.put(data, version)
        assert found["state"] == "passed", found
        self.patch("request", str(found["number"]))
        for who in ("alice", "bob"):
            self.patch("approve", str(found["number"]), "--key", str(self.keys[who]), "--yes")

    def asset(self) -> dict[str, Any]:
        return dict(self.told("plan")["assets"][0])

    def close(self) -> None:
        self.sshd.stop()
        self.vendor.close()


def web(folder: Path, site: Site) -> contextlib.AbstractContextManager[int]:
    """The vendor's HTTPS server, in the office."""
    (folder / "web").mkdir()
    return serving(folder / "web", VENDOR, "ip", "netns", "exec", site.office, address=STRANGER)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with (
        tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder,
        Site(Path(folder)) as site,
        clamd(Path(folder) / "clamd") as scanner,
        web(Path(folder), site) as port,
    ):
        made = Live(site, Path(folder), scanner, port)
        try:
            made.gate.wait_ready()
            yield made
            assert made.gate.stop() == 0
            assert not site.gates()
        finally:
            made.gate.close()
            made.close()
            clean(site.state)


def test_the_fetcher_reaches_its_source_and_what_it_brings_is_scanned(live: Live) -> None:
    def source() -> dict[str, Any]:
        return dict(live.told("status")["keeper"]["sources"][0])

    eventually(lambda: source()["last"])
    assert (source()["refused"], source()["taken"]) == ("", 1), source()
    number = next(row["number"] for row in live.told("list") if row["how"] == "fetch")
    eventually(lambda: live.told("show", str(number))["state"] != "examining")
    found = live.told("show", str(number))
    assert (found["state"], found["report"]["scan"]) == ("passed", "clean")
    key = next((live.site.state / "secrets").rglob("quarantine"))
    assert key.stat().st_mode & 0o077 == 0
    assert len(key.read_bytes()) == 32


def test_the_scanner_is_looked_at_before_a_file_needs_it(live: Live) -> None:
    eventually(lambda: live.told("status")["keeper"]["scanner"].startswith("clamd 1."))
    assert live.told("status")["keeper"]["unscanned"] == ""


def test_a_signed_file_with_a_virus_is_refused(live: Live) -> None:
    found = live.put(EICAR, "0.9")
    assert (found["state"], found["reason"]) == ("refused", "the scanner found Test.Eicar.UNOFFICIAL")


def test_a_failing_health_check_brings_the_old_version_back(live: Live) -> None:
    live.release(b"good version 1", "1.0")
    eventually(lambda: live.asset()["state"] == "done")
    live.release(b"bad version 2", "2.0")
    eventually(lambda: live.asset()["state"] not in ("done", "sending", "sent", "backing"))
    found = live.asset()
    assert (found["state"], found["has"]) == ("back", "2.0"), found
    assert "has 1.0 again" in found["detail"]
    assert (live.sshd.files / "fw.bin").read_bytes() == b"good version 1"
    # Nothing more goes there by itself; a person says what the asset has.
    live.release(b"good version 3", "3.0")
    assert "a person has to say" in live.asset()["why"]
    live.patch("result", "plc-9", "fw", "again", "--detail", "looked at it")
    eventually(lambda: live.asset()["state"] == "done")
    assert (live.sshd.files / "fw.bin").read_bytes() == b"good version 3"


def test_another_host_key_gets_nothing(live: Live) -> None:
    live.sshd.stop()
    for end in ("", ".pub"):
        live.sshd.host.with_suffix(end).unlink()
    ssh_key(live.sshd.host.parent, "host")
    live.sshd.start("ip", "netns", "exec", live.site.plant)
    live.release(b"good version 4", "4.0")
    eventually(lambda: live.asset()["state"] == "failed")
    assert "still there" in live.asset()["detail"]
    assert (live.sshd.files / "fw.bin").read_bytes() == b"good version 3"


def test_a_reload_lets_the_installer_ask_for_echoes_or_not(live: Live) -> None:
    """By the namespace of the plant's side alone: the office's never lets anybody."""

    def groups(side: str) -> list[int]:
        name = namespace_name(live.site.name, side, tag(live.site.state))
        with at(name):
            return [int(text) for text in (Path("/proc/sys") / PINGING).read_text().split()]

    (user,) = {user for name, user in read(folder(live.site.state)).items() if name.endswith("/installer")}
    assert (groups("ot"), groups("it")) == ([user, user], [1, 0])
    text = live.site.policy.read_text()
    for said, allowed in ((text.replace("ping: true, ", ""), [1, 0]), (text, [user, user])):
        live.site.policy.write_text(said)
        code, out, complained = cli("reload", "--state", live.site.state)
        assert code == 0, out + complained
        assert (groups("ot"), groups("it")) == (allowed, [1, 0])


def test_the_separation_is_proved(live: Live) -> None:
    command, path = ["cofferdam", "prove", "--state", str(live.site.state)], Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    with alone(KERNEL, among=True):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
