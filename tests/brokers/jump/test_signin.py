"""Signing in: what an outer part that was written for the purpose cannot do."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import argon2
import asyncssh
import pyotp
import pytest

from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.certified import AUTHORITY, Certified
from cofferdam.brokers.jump.signin import FREE_TRIES, FREE_TRIES_OF_PERSON, Connection, Outcome, SignIn, signed_data
from cofferdam.errors import GateError
from tests.brokers.jump.site import KEY

ASSETS = frozenset({"plc", "station"})
NOW = 1_900_000_000 * 10**9
HOURS = 8 * 3_600


class Desk:
    """A keeper with tech (key, code, password) and lead (key, code)."""

    def __init__(self, folder: Path) -> None:
        self.accounts = Accounts(folder, KEY)
        self.certified = Certified(self.accounts)
        self.certified.seconds = HOURS
        self.signin = SignIn(self.accounts, argon2.PasswordHasher(1, 8, 1), self.certified)
        self.keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("tech", "lead", "nobody")}
        self.codes = {}
        self.wall = NOW
        self.mono = 10**12
        self.count = 0
        for name in ("tech", "lead"):
            self.accounts.add_person(name, "", "")
            self.accounts.add_key(name, self.keys[name].public_data, "", 0)
            self.codes[name] = pyotp.TOTP(pyotp.random_base32())
            self.accounts.set_totp(name, self.codes[name].secret)
        self.accounts.set_password("tech", self.signin.hash_password("tech", "correct horse battery"))

    def connect(self, digest: bytes | None = None, parent: Connection | None = None, asset: str = "") -> Connection:
        self.count += 1
        made = Connection(self.count, f"c{self.count}", "10.1.0.9", 1, parent, asset)
        digest = digest or os.urandom(32)
        assert self.accounts.host_key.convert_to_public().verify(digest, self.signin.exchange(made, digest))
        return made

    def sign(self, who: str, session_id: bytes, user: str) -> bytes:
        key = self.keys[who]
        signature: bytes = key.sign(signed_data(session_id, user, "ssh-ed25519", key.public_data), b"ssh-ed25519")
        return signature

    def proof(self, connection: Connection, who: str, user: str, signature: bytes | None = None) -> Outcome:
        said = self.sign(who, connection.session_id, user) if signature is None else signature
        blob = self.keys[who].public_data
        return self.signin.proof(connection, user, "ssh-ed25519", blob, said, ASSETS, self.mono, self.wall)

    def answers(self, connection: Connection, user: str, *answers: str) -> Outcome:
        return self.signin.answers(connection, user, answers, ASSETS, self.mono, self.wall)

    def code(self, who: str, steps: int = 0) -> str:
        return self.codes[who].at(self.wall // 10**9 + 30 * steps)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize(
    ("user", "asset"), [("plc", "plc"), ("tech%station", "station"), ("tech", "")], ids=["asset", "both", "person"]
)
def test_a_key_and_a_code(desk: Desk, user: str, asset: str) -> None:
    connection = desk.connect()
    assert desk.proof(connection, "tech", user).state == "code"
    assert desk.answers(connection, user, desk.code("tech")).state == "in"
    assert (connection.person, connection.wants, connection.state) == ("tech", asset, "in")


def test_a_password_and_a_code(desk: Desk) -> None:
    assert desk.answers(desk.connect(), "tech%plc", "correct horse battery", desk.code("tech")).state == "in"
    assert desk.answers(desk.connect(), "lead", "correct horse battery", desk.code("lead")).state == "no"


def test_neither_factor_alone(desk: Desk) -> None:
    """62443-3-3 SR 1.1 RE 2, SR 1.1 RE 3: two factors on every network, and there is no setting for less."""
    connection = desk.connect()
    assert desk.answers(connection, "tech", desk.code("tech")).state == "no"
    assert desk.answers(connection, "tech", "correct horse battery").state == "no"
    assert connection.state == "began"
    assert desk.proof(connection, "tech", "tech").state == "code"
    assert connection.state == "key"
    assert desk.answers(connection, "tech", "000000").state == "no"
    assert desk.answers(connection, "tech", desk.code("tech")).state == "no", "the key has to be shown anew"


def test_a_signature_that_served_does_not_serve_again(desk: Desk) -> None:
    """62443-3-3 SR 3.8: nobody takes a session over by what its user has shown."""
    first = desk.connect()
    signature = desk.sign("tech", first.session_id, "tech")
    assert desk.proof(first, "tech", "tech", signature).state == "code"
    again = desk.connect(first.session_id)
    assert desk.proof(again, "tech", "tech", signature).why == "a signature that has served before"
    other = desk.connect()
    assert desk.proof(other, "tech", "tech", signature).why == "a signature that does not fit"


def test_not_even_in_another_life(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = desk.connect()
    signature = desk.sign("tech", first.session_id, "tech")
    assert desk.proof(first, "tech", "tech", signature).state == "code"
    desk.accounts.close()
    accounts = Accounts(tmp_path, KEY)
    signin = SignIn(accounts, argon2.PasswordHasher(1, 8, 1))
    connection = Connection(1, "c1", "10.1.0.9", 1)
    signin.exchange(connection, first.session_id)
    blob = desk.keys["tech"].public_data
    found = signin.proof(connection, "tech", "ssh-ed25519", blob, signature, ASSETS, 10**12, NOW)
    assert found.why == "a signature that has served before"


@pytest.mark.parametrize(
    ("who", "user", "why"),
    [
        ("nobody", "tech", "a key that is nobody's"),
        ("lead", "tech", "lead's key, for tech"),
        ("lead", "tech%plc", "lead's key, for tech"),
        ("tech", "tech%oven", "the asset 'oven'"),
        ("tech", "tech%plc\0", "the asset"),
        ("tech", "%plc", "tech's key, for "),
    ],
)
def test_another_person_another_asset(desk: Desk, who: str, user: str, why: str) -> None:
    """62443-3-3 SR 1.1, SR 1.1 RE 1: each person has an identity of their own, and is that one."""
    assert desk.proof(desk.connect(), who, user).why.startswith(why)


def test_the_user_name_is_part_of_what_is_signed(desk: Desk) -> None:
    connection = desk.connect()
    signature = desk.sign("tech", connection.session_id, "tech%plc")
    assert desk.proof(connection, "tech", "tech%station", signature).why == "a signature that does not fit"
    assert desk.proof(desk.connect(), "tech", "plc", b"").why == "a signature that does not fit"
    assert desk.proof(desk.connect(), "tech", "plc", os.urandom(83)).why == "a signature that does not fit"


def test_a_code_of_another_person_or_for_another_name(desk: Desk) -> None:
    connection = desk.connect()
    assert desk.proof(connection, "tech", "tech").state == "code"
    assert desk.answers(connection, "tech", desk.code("lead")).state == "no"
    connection = desk.connect()
    assert desk.proof(connection, "tech", "tech").state == "code"
    assert desk.answers(connection, "lead", desk.code("lead")).why == "another name for the code than for the key"


def test_a_code_counts_once_and_its_predecessors_no_more(desk: Desk) -> None:
    def sign_in(code: str) -> str:
        connection = desk.connect()
        assert desk.proof(connection, "tech", "tech").state == "code"
        return desk.answers(connection, "tech", code).state

    assert sign_in(desk.code("tech", 1)) == "in"
    assert [sign_in(desk.code("tech", step)) for step in (1, 0, -1, 2)] == ["no"] * 4
    desk.wall += 60 * 10**9
    assert sign_in(desk.code("tech")) == "in"


@pytest.mark.parametrize("steps", [-2_880, -120, -2, 2, 120])
def test_codes_of_another_time(desk: Desk, steps: int) -> None:
    """Yesterday's, an hour's, and those that are to come."""
    connection = desk.connect()
    assert desk.proof(connection, "tech", "tech").state == "code"
    assert desk.answers(connection, "tech", desk.code("tech", steps)).state == "no"


class Counted(argon2.PasswordHasher):
    """Counts what takes the time."""

    times = 0

    def verify(self, *words: Any, **more: Any) -> Any:
        self.times += 1
        return super().verify(*words, **more)


@pytest.mark.parametrize("user", ["tech", "lead", "nobody", "tech%plc", "tech%oven", "tech\u202e", "x" * 256, ""])
def test_as_much_work_for_nobody_as_for_somebody(tmp_path: Path, user: str) -> None:
    """So that it takes as long: one password is verified, whoever is named."""
    desk = Desk(tmp_path)
    desk.signin = SignIn(desk.accounts, Counted(1, 8, 1), desk.certified)
    found = desk.answers(desk.connect(), user, "wrong horse battery", "000000")
    hasher = desk.signin._passwords
    assert isinstance(hasher, Counted)
    assert (found.state, hasher.times) == ("no", 1)


def test_pauses_grow_and_do_not_lock_out_a_key(desk: Desk) -> None:
    """62443-3-3 SR 1.11: failed tries are bounded."""
    for _ in range(FREE_TRIES_OF_PERSON):
        assert desk.answers(desk.connect(), "tech", "wrong", "000000").why != "too many tries: a pause"
    right = ("tech", "correct horse battery", desk.code("tech"))
    assert desk.answers(desk.connect(), *right).why == "too many tries: a pause"
    connection = desk.connect()
    assert desk.proof(connection, "tech", "tech").state == "code", "others' wrong passwords bar no key"
    desk.mono += 3 * 10**9
    assert desk.answers(desk.connect(), *right).state == "in"


def test_one_password_for_many_names(desk: Desk) -> None:
    """62443-3-3 SR 1.11: whoever sprays it from one address waits there, whomever they name; others do not."""
    for number in range(FREE_TRIES["source"]):
        found = desk.answers(desk.connect(), f"nobody{number}", "Summer2030!", "000000")
        assert found.why == "a wrong password, or nobody"
    assert desk.answers(desk.connect(), "nobody", "Summer2030!", "000000").why == "too many tries: a pause"
    right = ("tech", "correct horse battery", desk.code("tech"))
    assert desk.answers(desk.connect(), *right).why == "too many tries: a pause"
    other = desk.connect()
    other.source = "10.1.0.10"
    assert desk.answers(other, *right).state == "in"


def test_a_nested_connection_is_the_same_persons(desk: Desk) -> None:
    outer = desk.connect()
    assert desk.proof(outer, "tech", "tech").state == "code"
    assert desk.answers(outer, "tech", desk.code("tech")).state == "in"
    nested = desk.connect(parent=outer, asset="plc")
    assert desk.proof(nested, "lead", "root").why == "lead within a connection of tech"
    assert desk.answers(nested, "tech", desk.code("tech", 1)).state == "no"
    assert desk.proof(nested, "tech", "root").state == "in"
    assert (nested.person, nested.wants) == ("tech", "plc")


def test_passwords_that_are_none(desk: Desk) -> None:
    """62443-3-3 SR 1.7: the strength of passwords."""
    for password in ("short", "password1234", "aaaaaaaaaaaaaaaa", "tech tech tech tech"):
        with pytest.raises(ValueError, match="password"):
            desk.signin.hash_password("tech", password)


# --- certificates ----------------------------------------------------------------------------------------------------


def show(desk: Desk, certificate: bytes, who: str = "tech", user: str = "tech", source: str = "10.1.0.9") -> Outcome:
    """Somebody signs in by a certificate over their key."""
    connection = desk.connect()
    connection.source = source
    key, blob = desk.keys[who], base64.b64decode(certificate.split()[1])
    algorithm = "ssh-ed25519-cert-v01@openssh.com"
    signature = key.sign(signed_data(connection.session_id, user, algorithm, blob), b"ssh-ed25519")
    found = desk.signin.proof(connection, user, algorithm, blob, signature, ASSETS, desk.mono, desk.wall)
    if found.state == "in":
        assert (connection.factors, connection.person) == (("key", "certificate"), who)
        assert connection.certified > 0
    return found


def certificate(desk: Desk) -> bytes:
    connection = desk.connect()
    desk.proof(connection, "tech", "tech")
    desk.answers(connection, "tech", desk.code("tech"))
    text, until = desk.certified.sign(connection, desk.wall)
    assert until == desk.wall + HOURS * 10**9
    return text.encode()


def test_a_certificate_stands_for_a_code(desk: Desk) -> None:
    """From its first second to its last, as the policy has it now, for one key, name and address; and it makes none."""
    made = certificate(desk)
    assert show(desk, made).state == "in"
    assert show(desk, made, user="tech%plc").state == "in"
    assert show(desk, made, user="lead").state == "no"
    assert show(desk, made, who="lead").state == "no"
    assert show(desk, made, source="10.1.0.8").state == "no"
    for seconds, state in ((HOURS - 1, "in"), (HOURS, "no"), (-30, "in"), (-61, "no")):
        desk.wall = NOW + seconds * 10**9
        assert show(desk, made).state == state, seconds
    desk.wall = NOW + 3_600 * 10**9
    for life, state in ((3_601, "in"), (3_600, "no"), (0, "no")):
        desk.certified.seconds = life
        assert show(desk, made).state == state, life
    desk.certified.seconds = HOURS
    by = desk.connect()
    by.key, by.person, by.factors = desk.keys["tech"].public_data, "tech", ("key", "certificate")
    with pytest.raises(GateError, match="makes no other"):
        desk.certified.sign(by, desk.wall)
    desk.accounts.remove_key(desk.keys["tech"].public_data)
    assert show(desk, made).why == "a certificate for another name"


def test_a_certificate_after_the_key(desk: Desk) -> None:
    """As OpenSSH shows it. One that does not count leaves the code to be asked for."""
    made = asyncssh.import_certificate(certificate(desk)).public_data
    algorithm = "ssh-ed25519-cert-v01@openssh.com"

    def second(who: str, blob: bytes, user: str = "tech") -> tuple[Connection, Outcome]:
        connection = desk.connect()
        assert desk.proof(connection, who, who).state == "code"
        signed = signed_data(connection.session_id, user, algorithm, blob)
        signature = desk.keys[who].sign(signed, b"ssh-ed25519")
        return connection, desk.signin.proof(connection, user, algorithm, blob, signature, ASSETS, desk.mono, desk.wall)

    connection, found = second("tech", made)
    assert (found.state, connection.factors) == ("in", ("key", "certificate"))
    for who, user in (("lead", "lead"), ("lead", "tech"), ("tech", "plc")):
        connection, found = second(who, made, user)
        assert (found.state, bool(found.why)) == ("code", True)
    assert connection.state == "key"
    desk.wall += HOURS * 10**9
    connection, found = second("tech", made)
    assert (found.state, found.why) == ("code", "a certificate that has expired, or is not good yet")
    assert desk.answers(connection, "tech", desk.code("tech")).state == "in"
    assert (connection.factors, connection.certified) == (("key", "code"), 0)


def test_a_certificate_after_the_key_by_an_old_algorithm(desk: Desk) -> None:
    """SHA-1 is no more taken there than anywhere."""
    desk.keys["tech"] = key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    desk.accounts.add_key("tech", key.public_data, "", 0)
    for digest, state in (("rsa-sha2-256", "in"), ("ssh-rsa", "code")):
        connection = desk.connect()
        signed = signed_data(connection.session_id, "tech", "rsa-sha2-256", key.public_data)
        signature = key.sign(signed, b"rsa-sha2-256")
        found = desk.signin.proof(
            connection, "tech", "rsa-sha2-256", key.public_data, signature, ASSETS, desk.mono, desk.wall
        )
        assert found.state == "code"
        text, _ = desk.certified.sign(connection, desk.wall)
        blob, algorithm = base64.b64decode(text.split()[1]), f"{digest}-cert-v01@openssh.com"
        signature = key.sign(signed_data(connection.session_id, "tech", algorithm, blob), digest.encode())
        found = desk.signin.proof(connection, "tech", algorithm, blob, signature, ASSETS, desk.mono, desk.wall)
        assert found.state == state, digest


FORGED = {
    "expired": (("-n", "tech", "-V", "20300101:20300102"), "has expired"),
    "for years": (("-n", "tech", "-V", "20200101:20400102"), "has expired"),
    "of tomorrow": (("-n", "tech", "-V", "20300319:20300321"), "not good yet"),
    "for another name": (("-n", "lead"), "for another name"),
    "for no name": ((), "another name"),
    "for two names": (("-n", "tech,lead"), "another name"),
    "of a host": (("-h", "-n", "tech"), "another name"),
    "from anywhere": (("-n", "tech"), "another address"),
    "from elsewhere": (("-n", "tech", "-O", "source-address=10.1.0.8"), "another address"),
    "from a network": (("-n", "tech", "-O", "source-address=10.1.0.0/24"), "another address"),
    "with a command": (("-n", "tech", "-O", "source-address=10.1.0.9", "-O", "force-command=id"), "another address"),
    "with an option of its own": (
        ("-n", "tech", "-O", "source-address=10.1.0.9", "-O", "critical:x=y"),
        "that is none",
    ),
    "of another authority": (("-n", "tech", "-O", "source-address=10.1.0.9"), "another authority"),
}


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no OpenSSH (Debian: openssh-client)")
@pytest.mark.parametrize("what", list(FORGED))
def test_certificates_that_the_gate_does_not_make(desk: Desk, tmp_path: Path, what: str) -> None:
    """Even of its own authority (were that lost), and of real OpenSSH: each says more than the gate ever would."""
    words, why = FORGED[what]
    made = certificate(desk)
    authority = tmp_path / "authority"
    own = desk.accounts.meta(AUTHORITY)
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")
    authority.write_bytes(other if "another authority" in what else own)
    authority.chmod(0o600)
    (tmp_path / "key.pub").write_bytes(desk.keys["tech"].export_public_key("openssh"))
    valid: tuple[str, ...] = () if "-V" in words else ("-V", "20300317:20300318")
    if what in ("expired", "for years", "of tomorrow", "for another name", "for no name", "for two names"):
        valid += ("-O", "source-address=10.1.0.9")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", *words, *valid, str(tmp_path / "key.pub")]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, "TZ": "UTC"})
    found = show(desk, (tmp_path / "key-cert.pub").read_bytes())
    assert found.state == "no"
    assert why in found.why
    assert show(desk, made).state == "in"


def test_a_certificate_in_which_one_byte_is_another(desk: Desk) -> None:
    blob = asyncssh.import_certificate(certificate(desk)).public_data
    for at in range(0, len(blob), 7):
        connection, bad = desk.connect(), bytearray(blob)
        bad[at] ^= 0x40
        algorithm = "ssh-ed25519-cert-v01@openssh.com"
        signature = desk.keys["tech"].sign(
            signed_data(connection.session_id, "tech", algorithm, bytes(bad)), b"ssh-ed25519"
        )
        found = desk.signin.proof(connection, "tech", algorithm, bytes(bad), signature, ASSETS, desk.mono, desk.wall)
        assert found.state == "no", at
        desk.mono += 10**12  # no pause
