"""A Debian repository through the patch relay: apt-ftparchive and gpg make it, a server offers it by HTTPS, the gate
takes a snapshot, two people sign, and a host's own apt fetches from the gate and checks the vendor's signature."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.brokers.patch import apt_index, apt_sign, apt_tree
from cofferdam.errors import GateError
from tests.brokers.patch.makers import run
from tests.brokers.patch.web import serving
from tests.brokers.relay.certificates import make
from tests.gate.patching import Works
from tests.verbs import cli
from tests.waiting import PATIENT, eventually

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("apt-ftparchive", "apt-get", "dpkg-deb", "gpg")), reason="needs apt-utils"
)
AUTHORITY = make("mirror authority", ca=True)
MIRROR = make("mirror.test", by=AUTHORITY)


class Mirror:
    """A vendor's repository in a folder, made as vendors make theirs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._published = 0
        self.index = folder / "dists" / "stable" / "main" / "binary-amd64"
        self.index.mkdir(parents=True)
        (folder / "pool").mkdir()

    def package(self, name: str, version: str, *, size: int = 0) -> None:
        made = self.root.parent / "made" / f"{name}-{version}"
        (made / "DEBIAN").mkdir(parents=True)
        (made / "usr/share" / name).mkdir(parents=True)
        (made / "usr/share" / name / "data").write_text(f"{name} {version}\n" * 1000)
        (made / "usr/share" / name / "more").write_bytes(os.urandom(size))
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: V <v@vendor.example>\n"
        (made / "DEBIAN/control").write_text(f"{control}Description: a package\n")
        file = version.replace(":", "%3a")
        run("dpkg-deb", "--build", made, self.root / "pool" / f"{name}_{file}_amd64.deb")

    def publish(self, works: Works, *, days: int = 7, hashes: tuple[str, ...] = ("SHA256",)) -> None:
        """Index and signature, of this moment. Two of one second would be one: a snapshot is called by its second."""
        eventually(lambda: int(time.time()) > self._published)
        packages = subprocess.run(
            ["apt-ftparchive", *(f"-oAPT::FTPArchive::{kind}=false" for kind in ("MD5", "SHA1", "SHA512")),
             "packages", "pool"], cwd=self.root, capture_output=True, check=True,
        ).stdout  # fmt: skip
        (self.index / "Packages").write_bytes(packages)
        run("gzip", "-kf", self.index / "Packages")
        run("xz", "-kf", self.index / "Packages")
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        told = {"Suite": "stable", "Codename": "stable", "Origin": "Vendor", "Architectures": "amd64",
                "Components": "main"}  # fmt: skip
        options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in told.items()]
        options += [
            f"-oAPT::FTPArchive::Release::{kind}={'true' if kind in hashes else 'false'}"
            for kind in ("MD5", "SHA1", "SHA256", "SHA512")
        ]
        dist = self.root / "dists/stable"
        for old in ("InRelease", "Release"):
            (dist / old).unlink(missing_ok=True)
        release = run("apt-ftparchive", *options, "release", dist)
        self._published = int(time.time())
        self.sign(works, f"Valid-Until: {until:%a, %d %b %Y %H:%M:%S UTC}\n".encode() + release)

    def sign(self, works: Works, release: bytes) -> None:
        (self.root / "dists/stable/InRelease").write_bytes(works.vendor._gpg("--clearsign", data=release))


class Host:
    """A host of the plant with apt, its folders below one of its own."""

    def __init__(self, folder: Path, url: str, key: str, vendor: bytes) -> None:
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "status").write_text("")
        (folder / "vendor.asc").write_bytes(vendor)
        host = url.split("//")[1].split("/")[0]
        (folder / "auth.conf").write_text(f"machine http://{host} login panel password {key}\n")
        (folder / "sources.list").write_text(
            f"deb [arch=amd64 signed-by={folder}/vendor.asc] {url} stable main\n"
        )  # fmt: skip
        settings = {
            "Dir::State::Lists": "lists", "Dir::State::status": "status", "Dir::Cache": "cache",
            "Dir::Etc::SourceList": "sources.list", "Dir::Etc::netrc": "auth.conf", "Dir::Log": "log",
            "Dir::Etc::SourceParts": "none", "Dir::Etc::netrcparts": "none", "Dir::Etc::Parts": "none",
            "Dir::Etc::PreferencesParts": "etc/preferences.d", "Dir::Etc::Trusted": "none",
        }  # fmt: skip
        self.words = [word for name, at in settings.items() for word in ("-o", f"{name}={folder / at}")]
        self.words += ["-o", "APT::Sandbox::User=", "-o", "APT::Architecture=amd64", "-o", "Acquire::Languages=none",
                       "-o", "Acquire::http::Proxy=DIRECT", "-o", "Debug::NoLocking=1"]  # fmt: skip

    def apt(self, *words: str) -> str:
        done = subprocess.run(["apt-get", *self.words, *words], capture_output=True, text=True, timeout=PATIENT)
        return done.stdout + done.stderr + f"\nexit {done.returncode}"


class Town:
    first: dict[str, Any]
    """The snapshot that came of itself."""

    def __init__(self, folder: Path, port: int, mirror: Mirror, sign: str = "") -> None:
        self.mirror = mirror
        source = (
            f"    sources:\n      debian: {{apt: {{at: '127.0.0.1:{port}', host: mirror.test, authority: ca.pem, "
            "path: /files, suite: stable}, every: 1 day}"
        )
        self.works = Works(
            folder / "works", files={"ca.pem": AUTHORITY.pem}, sources=source, panel="plc-firmware, host-packages",
            products=f"      host-packages: {{origin: {{apt: vendor.asc}}, most: 1 GB, scan: none{sign}}}",
            rules="      - {source: debian, fetch: host-packages, packages: ['tool*', libtool1]}",
            prepare=self.fill,
        )  # fmt: skip

    def fill(self, works: Works) -> None:
        for name, version in (("tool", "1.0"), ("game", "9.9")):
            self.mirror.package(name, version)
        self.mirror.package("libtool1", "1:2.0", size=2 * apt_tree.PIECE)  # served in pieces, the others whole
        self.mirror.publish(works)

    def fetch(self, code: int = 0) -> str:
        return self.works.patch("fetch", "debian", code=code)

    def snapshots(self) -> list[dict[str, Any]]:
        found = [dict(each) for each in self.works.told("list") if each["product"] == "host-packages"]
        return [dict(self.works.told("show", str(each["number"]))) for each in found]

    def source(self) -> dict[str, Any]:
        return dict(self.works.told("status")["keeper"]["sources"][0])

    def newest(self) -> dict[str, Any]:
        eventually(lambda: self.source()["last"])
        assert self.snapshots(), self.source()["refused"]
        eventually(lambda: self.snapshots()[-1]["state"] != "examining")
        return self.snapshots()[-1]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    mirror = Mirror(folder / "mirror")
    with serving(mirror.root, MIRROR) as port:
        made = Town(folder, port, mirror)
        try:
            made.first = made.newest()
            yield made
        finally:
            made.works.close()


def test_a_snapshot_goes_from_the_vendors_mirror_to_a_hosts_apt(town: Town) -> None:
    works, found, known = town.works, town.first, len(town.snapshots())
    assert found["state"] == "passed", found
    facts = found["report"]["facts"]
    assert (facts["suite"], facts["packages"]) == ("stable", "2")
    assert facts["date"] == found["version"]
    number = found["number"]
    key = works.patch("key", "new", "panel").split()[0]
    url = f"http://127.0.0.1:{works.plant}/v1/apt/host-packages"
    host = Host(works.folder / "host", url, key, works.vendor.public())
    assert "not your turn" in host.apt("update") or "403" in host.apt("update")
    works.patch("request", str(number))
    works.approve(number, "alice")
    works.approve(number, "bob")

    def updated() -> bool:
        return host.apt("-oAPT::Update::Error-Mode=any", "update").endswith("exit 0")

    eventually(updated)
    said = host.apt("install", "--download-only", "--no-install-recommends", "--yes", "tool", "libtool1")
    assert said.endswith("exit 0"), said
    archives = {path.name for path in (host.folder / "cache/archives").glob("*.deb")}
    assert archives == {"tool_1.0_amd64.deb", "libtool1_1%3a2.0_amd64.deb"}
    pool = town.mirror.root / "pool"
    for name in archives:
        assert (host.folder / "cache/archives" / name).read_bytes() == (pool / name).read_bytes()
    # What no rule names is in the index, which is the vendor's, and is not there.
    assert "404" in host.apt("install", "--download-only", "--yes", "game")

    def state() -> str:
        return str(next(row for row in works.told("plan")["assets"] if row["product"] == "host-packages")["state"])

    eventually(lambda: state() == "sent")
    stranger = Host(works.folder / "stranger", url, "cdk_" + "a" * 43, works.vendor.public())
    assert "401" in stranger.apt("update")
    town.fetch()
    assert len(town.snapshots()) == known


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Town]:
    """A site that signs the repository anew."""
    mirror = Mirror(tmp_path / "mirror")
    with serving(mirror.root, MIRROR) as port:
        made = Town(tmp_path, port, mirror, ", sign: site-apt")
        try:
            yield made
        finally:
            made.works.close()


def test_a_host_believes_the_sites_key_alone(signing: Town) -> None:
    """The vendor's key is nowhere on it. Until there is one of the site's nothing begins."""
    works = signing.works
    number = signing.newest()["number"]
    works.patch("request", str(number))
    for who in ("alice", "bob"):
        works.approve(number, who)
    key = works.patch("key", "new", "panel").split()[0]
    url, site = f"http://127.0.0.1:{works.plant}/v1/apt/host-packages", works.folder / "site-apt.asc"
    eventually(lambda: works.told("plan")["releases"])
    early = Host(works.folder / "early", url, key, works.vendor.public())
    assert "503" in early.apt("-oAcquire::Retries=0", "update")
    missing, way_out = "the site's key site-apt for repositories is not there", "patch credential site-apt --make FILE"

    def alarm() -> str:
        return "".join(str(each) for each in works.gate.status()["alarms"] if "patch-sign-site-apt" in str(each))

    def says(said: str) -> bool:
        return missing in said and way_out in said

    def checked() -> str:
        return cli("up", works.policy, "--state", works.state, "--check")[1]

    eventually(lambda: says(alarm()))
    assert says(works.patch("status")) and says(checked())
    assert all(row["state"] == "" for row in works.told("plan")["assets"] if row["product"] == "host-packages")
    make = ("credential", "site-apt", "--policy", str(works.policy), "--make")
    works.patch(*make, str(site))
    assert "BEGIN PGP PUBLIC KEY BLOCK" in site.read_text()
    eventually(lambda: not alarm())
    assert "NOT SERVED" not in works.patch("status") and missing not in checked()
    assert "hosts believe it" in works.patch(*make, str(works.folder / "other.asc"), code=2)
    host = Host(works.folder / "host", url, key, site.read_bytes())
    eventually(lambda: host.apt("-oAPT::Update::Error-Mode=any", "update").endswith("exit 0"))
    said = host.apt("install", "--download-only", "--no-install-recommends", "--yes", "tool", "libtool1")
    assert said.endswith("exit 0"), said
    assert len(list((host.folder / "cache/archives").glob("*.deb"))) == 2
    served = next((host.folder / "lists").glob("*InRelease")).read_text()
    assert "Valid-Until" not in served and "Origin: Vendor" in served
    vendors = Host(works.folder / "vendors", url, key, works.vendor.public())
    assert not vendors.apt("-oAPT::Update::Error-Mode=any", "update").endswith("exit 0")
    said = works.patch("credential", "plc-1", "--policy", str(works.policy), "--make", str(works.folder / "x"), code=2)
    assert "no product of the policy is signed by a key 'plc-1'" in said


def test_a_snapshot_that_is_signed_anew_outlives_the_vendors_date(tmp_path: Path, town: Town) -> None:
    """By the host's own apt: the vendor's Release has expired, and wants later ones signed by the vendor. With a byte
    changed, neither holds."""
    mirror, works = Mirror(tmp_path / "mirror"), town.works
    mirror.package("tool", "1.0")
    mirror.publish(works, days=-30)
    inrelease = mirror.root / "dists/stable/InRelease"
    text = apt_index.signed_text(inrelease.read_bytes())
    mirror.sign(works, text.replace(b"Suite:", b"Signed-By:\n " + b"A" * 40 + b"\nSuite:", 1))
    secret, certificate = apt_sign.make("site-apt")

    def updated(name: str, key: bytes) -> str:
        host = Host(tmp_path / name, f"file://{mirror.root}", "none", key)
        dates = ("-oAcquire::Check-Date=true", "-oAcquire::Check-Valid-Until=true")  # some images look at neither
        return host.apt("-oAPT::Update::Error-Mode=any", *dates, "update")

    vendors = updated("vendors", works.vendor.public())
    assert "expired" in vendors and not vendors.endswith("exit 0"), vendors
    signed = apt_sign.resigned(inrelease.read_bytes(), secret)
    inrelease.write_bytes(signed)
    said = updated("sites", certificate)
    assert said.endswith("exit 0"), said
    assert b"Signed-By" not in signed and b"A" * 40 not in signed and b"Packages" in signed
    inrelease.write_bytes(signed.replace(b"Origin: Vendor", b"Origin: Vandal"))
    assert not updated("changed", certificate).endswith("exit 0")
    for wrong in ("", "openpgp-key AAAA", "openpgp-key !"):
        with pytest.raises(GateError, match="cannot be read"):
            apt_sign.resigned(signed, wrong)
        why, way = apt_sign.lacking("site-apt", wrong)
        assert ("cannot be read" in why) == bool(wrong) and "patch credential site-apt --make FILE" in way
    assert apt_sign.lacking("site-apt", secret) == ("", "")
    with pytest.raises(apt_index.BadIndex):
        apt_sign.resigned(b"Suite: stable\n", secret)


def test_what_is_not_the_vendors_is_refused(town: Town) -> None:
    """Each is a mirror that does something else; all of it is signed as it says, or pretends to be."""
    works, mirror = town.works, town.mirror
    town.newest()
    dist = mirror.root / "dists/stable"
    good = {path: path.read_bytes() for path in dist.rglob("*") if path.is_file()}

    def back() -> None:
        for path, data in good.items():
            path.write_bytes(data)

    mirror.package("tool", "1.1")
    mirror.publish(works)
    fresh = {path: path.read_bytes() for path in dist.rglob("*") if path.is_file()}
    # Packages of before under a Release of now: the fetcher notices.
    for path in good:
        if "Packages" in path.name:
            path.write_bytes(good[path])
    assert "another one than the Release says" in town.fetch(code=1)
    for path, data in fresh.items():
        path.write_bytes(data)
    # A package with the right name and another content.
    deb = mirror.root / "pool/tool_1.1_amd64.deb"
    data = deb.read_bytes()
    deb.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "another hash or size" in town.fetch(code=1)
    deb.write_bytes(data)
    # Weak hashes alone, and no signature at all.
    mirror.publish(works, hashes=("MD5", "SHA1"))
    assert "without SHA-256 (it has weaker ones)" in town.fetch(code=1)
    (dist / "InRelease").write_bytes(b"Suite: stable\n")
    assert "not signed within itself" in town.fetch(code=1)
    before = len(town.snapshots())
    # Expired, and signed by somebody else: the examiner refuses.
    mirror.publish(works, days=-1)
    town.fetch()
    assert "has expired" in town.newest()["reason"]
    assert town.newest()["state"] == "refused"
    assert len(town.snapshots()) == before + 1
    # One that is newer, and then the mirror goes back.
    mirror.publish(works)
    town.fetch()
    newest = town.newest()
    assert newest["state"] == "passed", newest
    back()
    town.fetch()
    assert town.snapshots()[-1]["number"] == newest["number"]


def test_a_sites_key_that_cannot_be_read_is_an_alarm(signing: Town) -> None:
    """As one is that came back damaged from a backup: hosts get nothing, people are told at once, and by the way out
    that they are told of hosts get everything."""
    works = signing.works
    number = signing.newest()["number"]
    make = ("credential", "site-apt", "--policy", str(works.policy), "--make")
    works.patch(*make, str(works.folder / "site-apt.asc"))
    works.patch("request", str(number))
    for who in ("alice", "bob"):
        works.approve(number, who)
    key = works.patch("key", "new", "panel").split()[0]
    eventually(lambda: works.told("plan")["releases"])
    url = f"http://127.0.0.1:{works.plant}/v1/apt/host-packages"

    works.gate.stop()
    file = next(works.state.glob("secrets/*/installer/patch"))
    text = file.read_text()
    begin = text.index(apt_sign.KEY_MARK) + len(apt_sign.KEY_MARK)
    file.write_text(text[:begin] + text[begin + 40 :])
    works.gate = type(works.gate)(works.state, works.policy)
    works.gate.wait_ready()

    def alarms() -> str:
        return "".join(str(each) for each in works.gate.status()["alarms"] if "patch-sign-" in str(each))

    def says(said: str) -> bool:
        return "cannot be read" in said and "(site-apt)" in said and "another name at `sign:`" in said

    eventually(lambda: says(alarms()))
    assert "patch-sign-site-apt" in alarms()
    assert says(works.patch("status")) and says(cli("up", works.policy, "--state", works.state, "--check")[1])
    early = Host(works.folder / "early", url, key, (works.folder / "site-apt.asc").read_bytes())
    assert "503" in early.apt("-oAcquire::Retries=0", "update")
    assert all(row["state"] == "" for row in works.told("plan")["assets"] if row["product"] == "host-packages")
    assert "hosts believe it" in works.patch(*make, str(works.folder / "again.asc"), code=2)

    works.policy.write_text(works.policy.read_text().replace("sign: site-apt", "sign: site-apt-2"))
    other = works.folder / "site-apt-2.asc"
    works.patch("credential", "site-apt-2", "--policy", str(works.policy), "--make", str(other))
    assert cli("reload", works.policy, "--state", works.state)[0] == 0
    eventually(lambda: not alarms())
    host = Host(works.folder / "host", url, key, other.read_bytes())
    eventually(lambda: host.apt("-oAPT::Update::Error-Mode=any", "update").endswith("exit 0"))
