"""The how-tos of docs/patch.md, as they stand there: their policies in one gate, with this machine's addresses, and
their commands. (Debian's is in test_patch_apt, with a mirror of its own.)"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.brokers.patch.makers import HAS_PUBLISHERS, Gpg, Publisher, a_cabinet, a_package, a_program, run
from tests.brokers.patch.web import serving
from tests.brokers.relay.certificates import make
from tests.gate.patching import Works
from tests.gate.test_patch_ddi import Maker, swupdate
from tests.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "patch.md"
AUTHORITY = make("vendor authority", ca=True)
VENDOR = make("downloads.vendor.example", by=AUTHORITY)
pytestmark = pytest.mark.skipif(not HAS_PUBLISHERS, reason="osslsigncode, wixl and gcab are not all installed")


def section(title: str) -> str:
    """What stands under a heading of the page."""
    text = PAGE.read_text()
    start = text.index(f"\n{title}\n")
    return text[start : start + 1 + re.search(r"\n##", text[start + 4 :]).start()]  # type: ignore[union-attr]


def policy_of(title: str) -> dict[str, Any]:
    found = re.search(r"```yaml\n(.*?)```", section(title), re.DOTALL)
    assert found is not None, title
    return dict(yaml.safe_load(found[1]))


def commands(title: str, word: str) -> list[str]:
    """Lines of the section's other blocks that begin so."""
    fences = section(title).split("\n```")  # outside, inside, outside, ...
    return [line for block in fences[1::2] for line in block.splitlines()[1:] if line.startswith(word)]


class Site(Works):
    """All of them in one policy. `port`: the vendor's server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.microsoft = Publisher(folder / "microsoft", name="Microsoft Corporation")
        self.exporter = Gpg(folder / "exporter", name="Exporter <stage@works.example>")
        self.maker = Gpg(folder / "maker", name="Gateways <sign@gateways.example>")
        files = {
            "vendor-ca.pem": AUTHORITY.pem, "microsoft-roots.pem": self.microsoft.ca.read_bytes(),
            "microsoft-stamps.pem": self.microsoft.ca.read_bytes(), "exporter.asc": self.exporter.public(),
            "gateway-maker.asc": self.maker.public(),
        }  # fmt: skip
        options = ("--folders", str(folder / "folders"))
        super().__init__(folder / "works", files=files, options=options, prepare=self._credential)

    def _credential(self, works: Works) -> None:
        key = str(works.keys["machine"])
        works.patch("credential", "wsus-inside", "--policy", str(works.policy), "--key", key)

    def write_policy(self) -> None:
        super().write_policy()
        policy = yaml.safe_load(self.policy.read_text())
        conduit = policy["conduits"]["firmware"]
        for title in ("## Sources: how files come by themselves", "### Windows, by a WSUS without a network",
                      "### A gateway that polls"):  # fmt: skip
            for word, said in policy_of(title).items():
                if word == "allow":
                    conduit[word] += said
                else:
                    conduit[word] = {**(conduit.get(word) or {}), **said}
        for product in conduit["products"].values():
            product["scan"] = "none"
        for rule in conduit["allow"]:
            rule.pop("window", None)
            if rule.get("who") == "stage-host":
                rule["who"] = "stage"
        conduit["sources"]["vendor"].pop("window")
        conduit["sources"]["vendor"]["https"] |= {"at": f"127.0.0.1:{self.port}", "path": "/files/"}
        conduit["ways"]["gateway-1"]["address"] = "127.0.0.1"
        inside = conduit["ways"]["wsus-inside"]
        inside["address"] = "127.0.0.1"
        inside["sftp"] |= {
            "port": self.sshd.port, "user": conduit["ways"]["plc-1"]["sftp"]["user"],
            "host_key": self.sshd.host_key, "path": f"{self.sshd.files}/{{file}}",
        }  # fmt: skip
        policy["principals"]["gateway-1"] = {"zone": "plant", "addresses": ["127.0.0.1"]}
        self.policy.write_text(yaml.safe_dump(policy, sort_keys=False))

    def close(self) -> None:
        super().close()
        self.exporter.close()
        self.maker.close()

    def release_of(self, file: str) -> None:
        """As soon as it is there: two sign."""
        eventually(lambda: any(row["file"] == file for row in self.told("list")))
        number = next(int(row["number"]) for row in self.told("list") if row["file"] == file)
        found = self.examined(number)
        assert found["state"] == "passed", found
        self.patch("request", str(number))
        self.approve(number, "alice")
        self.approve(number, "bob")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    files = folder / "www"
    files.mkdir()
    with serving(files, VENDOR) as port:
        made = Site(folder, port)
        yield made
        made.close()


def test_plc_firmware_from_a_vendors_site(site: Site) -> None:
    data = b"firmware 2.2 " * 1000
    www = site.folder.parent / "www"
    (www / "fw-2.2.bin").write_bytes(data)
    (www / "fw-2.2.bin.asc").write_bytes(site.vendor.sign(data))
    assert commands("## Sources: how files come by themselves", "cofferdam patch fetch vendor")
    site.patch("fetch", "vendor")
    site.release_of("fw-2.2.bin")
    eventually(lambda: site.asset("plc-2")["state"] == "done")
    assert (site.sshd.files / "fw-2.2.bin").read_bytes() == data


def test_windows_by_a_wsus_without_a_network(site: Site, tmp_path: Path) -> None:
    """Under the examiner's own filter: nothing can be imported late there."""
    content = tmp_path / "WSUS" / "WsusContent"
    for make_one, ending in ((a_program, "exe"), (lambda at: a_package(at, b"p" * 9000), "msi"),
                             (lambda at: a_cabinet(at, b"c" * 9000), "cab")):  # fmt: skip
        more = ("-add-msi-dse",) if ending == "msi" else ()
        signed = site.microsoft.sign(make_one(tmp_path), tmp_path / f"signed.{ending}", *more)
        name = hashlib.sha1(signed.read_bytes(), usedforsecurity=False).hexdigest().upper()
        (content / name[-2:]).mkdir(parents=True)
        shutil.move(signed, content / name[-2:] / f"{name}.{ending}")
    licence = "Licence terms\r\n".encode("utf-16")
    name = hashlib.sha1(licence, usedforsecurity=False).hexdigest().upper()
    (content / name[-2:]).mkdir(parents=True, exist_ok=True)
    (content / name[-2:] / f"{name}.txt").write_bytes(licence)
    (tmp_path / "export.xml.gz").write_bytes(gzip.compress(b"<Updates/>" * 100))
    title = "### Windows, by a WSUS without a network"
    pack, unpack = (line.replace("tar.exe", "tar").split() for line in commands(title, "tar.exe"))
    where = {"D:\\WSUS": str(tmp_path / "WSUS"), pack[2]: str(tmp_path / pack[2])}
    run(pack[0], "-C", tmp_path, *(where.get(word, word) for word in pack[1:]))
    bundle = tmp_path / "wsus-2026-11.tar"
    (sign,) = commands(title, "gpg")
    run("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", *sign.split()[1:-1], bundle,
        GNUPGHOME=str(site.exporter.home))  # fmt: skip
    drop = site.folder.parent / "folders" / "wsus-exports"
    for file in (bundle, bundle.with_name(bundle.name + ".asc")):
        shutil.copy(file, drop / f"{file.name}.part")
        (drop / f"{file.name}.part").rename(drop / file.name)
    site.release_of(bundle.name)
    eventually(lambda: site.asset("wsus-inside")["state"] == "sent")
    inside = tmp_path / "inside"
    inside.mkdir()
    where = {"D:\\WSUS": str(inside), unpack[2]: str(site.sshd.files / unpack[2])}
    run(*(where.get(word, word) for word in unpack))
    assert sorted(each.suffix for each in inside.rglob("*.*") if each.is_file()) == [
        ".cab",
        ".exe",
        ".gz",
        ".msi",
        ".txt",
    ]
    (result,) = commands(title, "cofferdam patch result")
    site.patch(*result.split(" --detail ")[0].split()[2:], "--detail", "imported")
    assert site.asset("wsus-inside")["state"] == "done"
    found = next(row for row in site.told("list") if row["file"] == bundle.name)
    facts = site.told("show", str(found["number"]))["report"]["facts"]
    assert (facts["updates"], facts["texts"], facts["publishers"]) == ("3", "1", "Microsoft Corporation")


@pytest.mark.skipif(shutil.which("swupdate") is None, reason="swupdate is not installed")
def test_a_gateway_that_polls(site: Site, tmp_path: Path) -> None:
    (command,) = commands("### A gateway that polls", "cofferdam patch key")
    key = site.patch(*command.split()[2:]).split()[0]
    (device,) = commands("### A gateway that polls", "swupdate")
    assert "-i gateway-1 -g cdk_" in device
    maker, target = Maker(tmp_path / "swu"), tmp_path / "installed"
    payload = b"application " * 5000
    image = maker.image(payload, target)
    file, signature = tmp_path / "gateway.swu", tmp_path / "gateway.swu.asc"
    file.write_bytes(image)
    signature.write_bytes(site.maker.sign(image))
    words = ("--product", "gateway-images", "--version", "5.0", "--signature", str(signature))
    site.patch("put", str(file), *words)
    site.release_of("gateway.swu")
    with swupdate(site, maker, tmp_path, key, "gateway-1"):
        eventually(lambda: target.is_file() and site.asset("gateway-1")["state"] == "sent")
    assert target.read_bytes() == payload
