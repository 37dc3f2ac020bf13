"""A gate whose jump server's store is sealed: its key lies elsewhere, or is given by systemd; a lost one holds that
crew alone; a store of before goes on."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.jump.accounts import PLAIN
from cofferdam.brokers.kit.sealed import Sealed
from cofferdam.enforce import stores
from tests.brokers.jump.site import THERE, JumpSite
from tests.gate.plant import QuickGate, refuses
from tests.gate.test_crews import RELAY
from tests.ports import held_ports
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not THERE, reason="there is no OpenSSH (Debian: openssh-server, openssh-client)")
CREW = "jump/office-plant"
CREDENTIAL = "cofferdam.jump.office-plant.keeper.store"


class Works(JumpSite):
    """With a relay beside it. Its store and key."""

    def __init__(self, folder: Path) -> None:
        outer, inner = held_ports(2)
        (folder / "order.json").write_text('{"type": "object"}')
        relay = RELAY.format(outer=outer, inner=inner).replace("enterprise", "office").replace("control", "plant")
        mes = "mes: {zone: plant, addresses: [127.0.0.1]}"
        super().__init__(folder, conduits=relay.replace("erp", "people"), principals=mes)

    @property
    def store(self) -> Path:
        return stores.of(self.state, CREW, "keeper")

    @property
    def key(self) -> Path:
        return self.state / "secrets" / CREW.replace("/", "%2F") / "keeper" / "store"

    def again(self, **environment: str) -> None:
        """The gate, started anew."""
        assert self.gate.stop() == 0
        self.gate = QuickGate(self.state, self.policy, environment=environment)

    def in_(self) -> bytes:
        """What tech is told at the station, by key, code and the gate's credential there."""
        return self.ssh("tech", "station", "echo in").stdout

    def lies(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.store.iterdir()))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Works]:
    with contextlib.closing(Works(tmp_path)) as made:
        made.set_up()
        yield made


def lying(path: Path) -> bytes:
    """What is in a file; the gate may have done with it meanwhile."""
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            return path.read_bytes()
    return b""


def as_before(site: Works) -> list[bytes]:
    """Has the store as a version of before kept it. Returns the secrets in it."""
    sealed = Sealed(site.key.read_bytes(), b"cofferdam access")
    secrets = []
    with contextlib.closing(sqlite3.connect(site.store / "access.db")) as base, base:
        for name, value in base.execute("SELECT name, value FROM meta").fetchall():
            secrets.append(sealed.open(value, "meta", name))
            base.execute("UPDATE meta SET value=? WHERE name=?", (secrets[-1], name))
        for name, totp in base.execute("SELECT name, totp FROM person WHERE totp!=''").fetchall():
            secrets.append(sealed.open(base64.b64decode(totp), "totp", name))
            base.execute("UPDATE person SET totp=? WHERE name=?", (secrets[-1].decode(), name))
        for asset, login, kind, secret in base.execute("SELECT asset, login, kind, secret FROM credential").fetchall():
            secrets.append(sealed.open(secret, "credential", asset, login, kind))
            base.execute("UPDATE credential SET secret=? WHERE asset=?", (secrets[-1], asset))
        base.execute(f"PRAGMA user_version={PLAIN}")
    return [secret for secret in secrets if secret]


def test_a_store_of_before_goes_on_sealed(site: Works) -> None:
    assert site.in_() == b"in\n"
    assert site.gate.stop() == 0
    secrets = as_before(site)
    assert len(secrets) >= 3 and all(secret in site.lies() for secret in secrets)
    site.key.unlink()
    site.again()
    site.gate.wait_ready()
    assert site.in_() == b"in\n"
    assert not [secret for secret in secrets if secret in site.lies()]
    assert site.key.stat().st_mode & 0o777 == 0o600


def test_a_lost_key_holds_the_crew_until_it_is_back(site: Works) -> None:
    key = site.key.read_bytes()
    assert site.gate.stop() == 0
    site.key.unlink()
    site.again()
    found: list[dict[str, str]] = []

    def held() -> bool:
        found[:] = [one for one in site.gate.status()["alarms"] if one["name"] == f"{CREW}/crew-held"]
        return bool(found)

    eventually(lambda: "gate-ready" in site.gate.said().rpartition("gate-stops")[2])
    eventually(held)
    assert [one["broker"] for one in site.gate.status()["pairs"] if one["working"]] == ["relay"]
    said = str(found[0])
    assert "access.db is sealed by another key" in said and "'store'" in said and "secrets at rest" in said, said
    site.key.write_bytes(key)  # over the one that the gate has made
    site.gate.wait_ready()
    assert site.in_() == b"in\n"
    eventually(lambda: not held())


@pytest.mark.skipif(not shutil.which("systemd-creds") or os.geteuid() != 0, reason="needs systemd-creds, and root")
def test_the_key_is_given_by_systemd(site: Works, tmp_path: Path) -> None:
    """As LoadCredentialEncrypted= has it: sealed by systemd-creds, opened into a folder of the unit's. Here by a key
    that is none, which leaves nothing on the machine that runs the tests; by a TPM it is the same file."""
    sealed, folder = tmp_path / "sealed", tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    key = site.key.read_bytes()
    for words in (
        ("encrypt", "--with-key=tpm2-absent", f"--name={CREDENTIAL}", str(site.key), str(sealed)),
        ("decrypt", f"--name={CREDENTIAL}", str(sealed), str(folder / CREDENTIAL)),
    ):
        done = subprocess.run(["systemd-creds", *words], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"systemd-creds does not do it without a TPM: {done.stderr.decode()}")
    assert key not in sealed.read_bytes()
    assert site.gate.stop() == 0
    site.key.unlink()
    site.again(CREDENTIALS_DIRECTORY=str(folder))
    site.gate.wait_ready()
    assert site.in_() == b"in\n"
    assert not site.key.exists()
    assert not [path for path in site.state.rglob("*") if key in lying(path)]
    for pid in site.gate.pids().values():
        assert b"CREDENTIALS" not in Path(f"/proc/{pid}/environ").read_bytes()
    # A gate that is not given it makes no sense of the store, and says so.
    site.again()
    eventually(lambda: "gate-ready" in site.gate.said().rpartition("gate-stops")[2])
    eventually(lambda: any("sealed by another key" in str(one) for one in site.gate.status()["alarms"]))


def test_a_credential_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Works(tmp_path)) as site:
        site.gate.wait_ready()
        assert site.gate.stop() == 0
        folder = tmp_path / "credentials"
        (folder / CREDENTIAL).mkdir(parents=True)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        code, said = refuses(site.state, site.policy)
        assert code == 2 and str(folder) in said and "LoadCredentialEncrypted=" in said, said
