"""Secrets in the keeper's store are sealed: a copy of its files without the key has none of them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import argon2
import asyncssh
import pyotp
import pytest

from cofferdam.brokers.jump.accounts import _TABLES, APPLICATION, FILE, PLAIN, SEALING, UNBOUND, VERSION, Accounts
from cofferdam.brokers.jump.signin import Connection, SignIn
from cofferdam.brokers.kit.sealed import NotOpened, Sealed
from cofferdam.errors import StoreError
from tests.brokers.jump.site import KEY

SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
HASH = argon2.PasswordHasher(1, 8, 1).hash("correct horse battery")
PASSWORD = b"of the asset at the pump"
PENDING = b"the next one of the asset"
OLD = "GONEGONEGONEGONEGONEGONEGONEGONE"
OTHER = bytes(32)


def bytes_of(folder: Path) -> bytes:
    """All that lies in the store's folder: the database and its write-ahead log."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def nothing_in(folder: Path, host_key: bytes) -> None:
    found = bytes_of(folder)
    pem = b"".join(line for line in host_key.splitlines()[1:4])
    for secret in (SEED.encode(), HASH.encode(), PASSWORD, PENDING, OLD.encode(), pem[:60], b"OPENSSH PRIVATE KEY"):
        assert secret not in found, secret
    assert b"anna" in found  # it is looked at what is there


def before(folder: Path) -> bytes:
    """A store as versions of before have kept it, with secrets in free pages and the write-ahead log. Returns the host
    key."""
    key: bytes = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")
    beside = folder.with_name("beside")
    beside.mkdir()
    base = sqlite3.connect(beside / FILE, isolation_level=None)
    base.executescript(f"PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA secure_delete=OFF; {_TABLES};")
    base.execute(f"PRAGMA application_id={APPLICATION}")
    base.execute(f"PRAGMA user_version={PLAIN}")
    base.execute("INSERT INTO meta VALUES('host-key', ?), ('rotating plc svc', ?), ('glass', ?)", (key, PENDING, b""))
    for name, seed in [("anna", SEED), *((f"old{number}", OLD) for number in range(200))]:
        base.execute("INSERT INTO person VALUES(?, '', '', 'local', 1, ?, 77, ?, 0, '')", (name, seed, HASH))
    base.execute("INSERT INTO person VALUES('bare', '', '', 'local', 1, '', 0, '', 0, '')")
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.execute("DELETE FROM person WHERE name LIKE 'old%'")
    base.execute("INSERT INTO credential VALUES('plc', 'svc', 'password', ?, 'root', 5)", (PASSWORD,))
    shutil.copytree(beside, folder, dirs_exist_ok=True)  # as kill -9 leaves it
    base.close()
    found = bytes_of(folder)
    assert all(one in found for one in (SEED.encode(), OLD.encode(), PASSWORD, PENDING, b"OPENSSH PRIVATE KEY"))
    return key


def filled(folder: Path) -> Accounts:
    accounts = Accounts(folder, KEY)
    accounts.add_person("anna", "", "")
    accounts.add_person("ben", "", "")
    accounts.set_totp("anna", SEED)
    accounts.set_password("anna", HASH)
    accounts.set_credential("plc", "svc", "password", PASSWORD, "root", 0)
    accounts.set_meta("rotating plc svc", PENDING)
    return accounts


def test_nothing_secret_lies_in_a_new_store(tmp_path: Path) -> None:
    accounts = filled(tmp_path)
    key, public = accounts.host_key.export_private_key("openssh"), accounts.host_key.public_data
    nothing_in(tmp_path, key)  # while it is written: the write-ahead log
    accounts.close()
    nothing_in(tmp_path, key)
    accounts = Accounts(tmp_path, KEY)
    assert accounts.host_key.public_data == public
    assert accounts.factor(accounts.known("anna"), "totp") == SEED
    assert accounts.factor(accounts.known("anna"), "password") == HASH
    assert accounts.factor(accounts.known("ben"), "totp") == ""
    assert accounts.known("anna").factors == ("code", "password") and accounts.known("ben").factors == ()
    assert accounts.credential("plc", "svc") == ("password", PASSWORD)
    assert accounts.meta("rotating plc svc") == PENDING
    accounts.close()


def test_a_store_of_before_is_sealed_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "keeper"
    folder.mkdir()
    key = before(folder)
    accounts = Accounts(folder, KEY)
    nothing_in(folder, key)
    accounts.close()
    nothing_in(folder, key)
    accounts = Accounts(folder, KEY)
    assert accounts.host_key.public_data == asyncssh.import_private_key(key).public_data
    anna = accounts.known("anna")
    assert (accounts.factor(anna, "totp"), accounts.factor(anna, "password"), anna.step) == (SEED, HASH, 77)
    assert accounts.known("bare").factors == ()
    assert accounts.credential("plc", "svc") == ("password", PASSWORD)
    assert (accounts.meta("rotating plc svc"), accounts.meta("glass")) == (PENDING, b"")
    accounts.close()


def test_what_was_sealed_and_not_yet_scrubbed_is_scrubbed_by_the_next_life(tmp_path: Path) -> None:
    folder = tmp_path / "keeper"
    folder.mkdir()
    key = before(folder)

    class Killed(Accounts):
        def _scrub(self) -> None:
            self.close()
            raise StoreError("here it was killed")

    with pytest.raises(StoreError, match="killed"):
        Killed(folder, KEY)
    assert OLD.encode() in bytes_of(folder)  # in what is free
    with contextlib.closing(sqlite3.connect(folder / FILE)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (SEALING,)
    Accounts(folder, KEY).close()
    nothing_in(folder, key)
    with contextlib.closing(sqlite3.connect(folder / FILE)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (VERSION,)


@pytest.mark.parametrize("key", [OTHER, b"", KEY[:31]], ids=["another", "none", "short"])
def test_another_key_opens_nothing_and_spoils_nothing(tmp_path: Path, key: bytes) -> None:
    filled(tmp_path).close()
    found = bytes_of(tmp_path)
    with pytest.raises(StoreError) as error:
        Accounts(tmp_path, key)
    assert "key" in str(error.value) and "back" in error.value.hint and "secrets at rest" in error.value.hint
    assert bytes_of(tmp_path) == found
    Accounts(tmp_path, KEY).close()


def test_what_is_moved_to_another_row_does_not_open(tmp_path: Path) -> None:
    """Somebody who can write to the file gives their own row another's secrets, or another's their own."""
    accounts = filled(tmp_path)
    accounts.set_credential("pump", "svc", "password", b"another", "root", 0)
    wall = 1_900_000_000 * 10**9
    accounts.run("UPDATE person SET totp=(SELECT totp FROM person WHERE name='anna') WHERE name='ben'")
    accounts.run("UPDATE person SET password=(SELECT password FROM person WHERE name='anna') WHERE name='ben'")
    accounts.run("UPDATE credential SET secret=(SELECT secret FROM credential WHERE asset='plc') WHERE asset='pump'")
    accounts.run("UPDATE meta SET value=(SELECT value FROM meta WHERE name='host-key') WHERE name='rotating plc svc'")
    for which in ("totp", "password"):
        with pytest.raises(NotOpened):
            accounts.factor(accounts.known("ben"), which)
    with pytest.raises(NotOpened):
        accounts.credential("pump", "svc")
    with pytest.raises(StoreError):
        accounts.meta("rotating plc svc")
    # By what was moved nobody signs in, and who tries ends nothing.
    signin = SignIn(accounts, argon2.PasswordHasher(1, 8, 1))
    code = pyotp.TOTP(SEED).generate_otp(wall // 10**9 // 30)
    for number, (name, state) in enumerate([("ben", "no"), ("anna", "in")], 1):
        connection = Connection(number, f"c{number}", "10.1.0.9", 1)
        signin.exchange(connection, bytes([number]) * 32)
        answers = ("correct horse battery", code)
        found = signin.answers(connection, name, answers, frozenset(), 10**12, wall)
        assert found.state == state, (name, found)
    accounts.close()


def test_what_is_said_to_be_of_another_kind_does_not_open(tmp_path: Path) -> None:
    """A password that passes for an authority's key, say."""
    accounts = filled(tmp_path)
    accounts.run("UPDATE credential SET kind='key'")
    with pytest.raises(NotOpened):
        accounts.credential("plc", "svc")
    accounts.run("UPDATE credential SET kind='password'")
    assert accounts.credential("plc", "svc") == ("password", PASSWORD)
    accounts.close()


@pytest.mark.parametrize("version", [SEALING, UNBOUND])
def test_what_was_sealed_before_kinds_were_bound_is_bound_once(tmp_path: Path, version: int) -> None:
    filled(tmp_path).close()
    of_before = Sealed(KEY, b"cofferdam access").close(PASSWORD, "credential", "plc", "svc")
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        base.execute(f"PRAGMA user_version={version}")
        base.execute("INSERT INTO credential SELECT 'pump', login, kind, secret, by, set_ns FROM credential")
        base.execute("UPDATE credential SET secret=? WHERE asset='plc'", (of_before,))
        base.commit()
    for _ in range(2):
        accounts = Accounts(tmp_path, KEY)
        assert accounts.credential("plc", "svc") == ("password", PASSWORD)
        with pytest.raises(NotOpened):  # it was another row's
            accounts.credential("pump", "svc")
        assert accounts.one("PRAGMA user_version") == (VERSION,)
        accounts.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        base.execute("UPDATE credential SET secret=? WHERE asset='plc'", (of_before,))
        base.commit()
    accounts = Accounts(tmp_path, KEY)
    with pytest.raises(NotOpened):
        accounts.credential("plc", "svc")
    accounts.close()


@pytest.mark.parametrize("version", [SEALING, UNBOUND])
def test_another_key_binds_nothing_and_the_right_one_does_so_after_it(tmp_path: Path, version: int) -> None:
    """An update together with a wrong key: what did not open would count as bound, and would never open again."""
    filled(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        of_before = Sealed(KEY, b"cofferdam access").close(PASSWORD, "credential", "plc", "svc")
        base.execute("UPDATE credential SET secret=?", (of_before,))
        base.execute(f"PRAGMA user_version={version}")
        base.commit()
    with pytest.raises(StoreError, match="another key"):
        Accounts(tmp_path, OTHER)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (version,)
    accounts = Accounts(tmp_path, KEY)
    assert accounts.credential("plc", "svc") == ("password", PASSWORD)
    assert accounts.one("PRAGMA user_version") == (VERSION,)
    accounts.close()


@pytest.mark.parametrize("plain", [SEED, HASH, "abc", "é"], ids=["a seed", "a hash", "no base64", "no ASCII"])
def test_what_is_put_back_unsealed_is_not_believed(tmp_path: Path, plain: str) -> None:
    accounts = filled(tmp_path)
    for which in ("totp", "password"):
        accounts.run(f"UPDATE person SET {which}=? WHERE name='ben'", plain)
        with pytest.raises(NotOpened):
            accounts.factor(accounts.known("ben"), which)
    accounts.close()


def test_a_sealed_store_that_says_it_is_plain_is_not_believed(tmp_path: Path) -> None:
    filled(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        base.execute(f"PRAGMA user_version={PLAIN}")
        base.execute("UPDATE person SET totp=? WHERE name='anna'", (OLD,))
        base.commit()
    for _ in range(2):
        with pytest.raises(StoreError, match="says that nothing in it is sealed"):
            Accounts(tmp_path, KEY)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as base:
        base.execute(f"PRAGMA user_version={VERSION}")
        base.commit()
    accounts = Accounts(tmp_path, KEY)  # nothing was sealed twice
    with pytest.raises(NotOpened):
        accounts.factor(accounts.known("anna"), "totp")
    assert accounts.factor(accounts.known("anna"), "password") == HASH
    assert accounts.credential("plc", "svc") == ("password", PASSWORD)
    accounts.close()


def test_the_length_of_a_secret_is_not_told() -> None:
    sealed = Sealed(KEY, b"x")
    assert len(sealed.close(b"", "a")) == len(sealed.close(b"a password of 30 letters, well", "a"))
    assert sealed.open(sealed.close(bytes(1000), "a", "b"), "a", "b") == bytes(1000)
    with pytest.raises(NotOpened):
        sealed.open(sealed.close(b"x", "a", "b"), "a b")
    for cut in (b"", b"short", sealed.close(b"x", "a")[:-1]):
        with pytest.raises(NotOpened):
            sealed.open(cut, "a")
