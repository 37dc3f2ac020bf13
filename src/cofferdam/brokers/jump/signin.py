"""How somebody signs in: two factors, each verified here, and nothing believed of the part that carries them.

A connection's state is a small machine:

    began ──key──► key ──code──► in        a signature by a key that is known, then a code
      │  └──security key that verified its user──► in
      └──password and code──► in

A signature counts if it is over the session id of this connection, if that is a hash which was signed by the host key
for this connection, and if no signature over it has served before, ever: session ids that have served are kept. A code
counts once, for the step of 30 s that it is of or one beside it. What is refused is refused alike, whatever was wrong.

Failures cause growing pauses: wrong passwords for the name and the address, wrong codes for the person whose key was
shown and the address, keys for the address alone, so that nobody locks out others by their name.

Not here: what somebody who is in may do (deciding), the store (accounts).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, Protocol

import argon2
import asyncssh
import pyotp
from asyncssh.public_key import decode_ssh_public_key

from cofferdam.brokers.jump.accounts import Accounts, Person
from cofferdam.brokers.jump.reserve import FULL
from cofferdam.brokers.kit.sealed import NotOpened
from cofferdam.policy.points.decide import show_utc

STEP_SECONDS: Final = 30
CODE_DIGITS: Final = 6
DRIFT_STEPS: Final = 1
FREE_TRIES: Final = {"source": 30}
FREE_TRIES_OF_PERSON: Final = 5
"""Failed tries without a pause; after that it doubles with each. An address may be that of many people."""
PAUSE_SECONDS: Final = 2
PAUSE_MOST_SECONDS: Final = 900
FAILURES_KEPT: Final = 10_000
"""Names and addresses whose failures are remembered."""
FORGET_NS: Final = 3_600 * 10**9
TRIES_A_CONNECTION: Final = 10
PASSWORD_LEAST: Final = 12
NO: Final = "not let in"
"""What is told, whatever was wrong."""
PAUSE: Final = "too many tries: a pause"
COMMON: Final = frozenset({
    "password1234", "123456789012", "qwertyuiop12", "administrator", "changeme1234", "welcome12345", "letmein12345",
    "passwordpassword", "qwertyqwerty", "111111111111", "adminadminadmin", "maintenance1", "siemens12345",
    "rockwell1234", "wonderware12", "schneider123", "industrial12", "operator1234", "engineer1234",
})  # fmt: skip
"""Long ones that are tried first. Short ones are refused anyway."""
ALGORITHMS: Final = frozenset({
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-256", "rsa-sha2-512",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip
"""By which users may sign."""
CERTIFICATE: Final = "-cert-v01@openssh.com"
CERTIFIED: Final = "certificate"
"""As a factor: one of the gate's over the key, which stands for a code that was shown hours ago at most."""
_VERIFIED_USER: Final = 0x04
_PRESENT_USER: Final = 0x01


@dataclass
class Connection:
    """One connection, as the keeper sees it. `state`: "began", "key", "in". `wants`: the asset of the user name."""

    number: int
    name: str
    source: str
    port: int
    parent: Connection | None = None
    nested: str = ""
    session_id: bytes = b""
    state: str = "began"
    user: str = ""
    person: str = ""
    wants: str = ""
    key: bytes = b""
    tries: int = 0
    factors: tuple[str, ...] = ()
    since_ns: int = 0
    certified: int = 0
    """When the certificate was signed by which they came (s UTC); 0: by none."""
    sessions: set[int] = field(default_factory=set)


class Failures:
    """Growing pauses, by person and by address. In memory: a restart of the gate forgives."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], tuple[int, int]] = {}

    def pause(self, now_ns: int, *whose: tuple[str, str]) -> bool:
        """Whether one of them has to wait."""
        return any(self._until(one) > now_ns for one in whose)

    def _until(self, whose: tuple[str, str]) -> int:
        count, last = self._of.get(whose, (0, 0))
        beyond = count - FREE_TRIES.get(whose[0], FREE_TRIES_OF_PERSON)
        return last + min(PAUSE_MOST_SECONDS, PAUSE_SECONDS << min(beyond, 20)) * 10**9 if beyond >= 0 else 0

    def failed(self, now_ns: int, *whose: tuple[str, str]) -> None:
        for one in whose:
            count, last = self._of.pop(one, (0, 0))
            self._of[one] = (1 if now_ns - last > FORGET_NS else count + 1, now_ns)
            if len(self._of) > FAILURES_KEPT:
                del self._of[next(iter(self._of))]

    def forgive(self, *whose: tuple[str, str]) -> None:
        for one in whose:
            self._of.pop(one, None)


@dataclass(frozen=True)
class Outcome:
    """What came of a try. `why` is for the log alone."""

    state: str
    why: str = ""
    text: str = ""


class Certificates(Protocol):
    """What judges certificates of people."""

    def key(self, blob: bytes, source: str, wall_ns: int) -> tuple[bytes, int, str]:
        """(the key in it, when it was signed in s UTC, why it does not count)."""


class SignIn:
    """Signs people in. `now_ns` is monotonic, `wall_ns` UTC."""

    def __init__(
        self, accounts: Accounts, passwords: argon2.PasswordHasher | None = None, certified: Certificates | None = None
    ) -> None:
        self._accounts = accounts
        self._certified = certified
        self._failures = Failures()
        self._passwords = passwords or hasher()
        self._nobody = self._passwords.hash("nobody has this password")

    def exchange(self, connection: Connection, digest: bytes) -> bytes:
        """Signs a key exchange's hash. The first is the connection's session id."""
        if not connection.session_id:
            connection.session_id = digest
        signature: bytes = self._accounts.host_key.sign(digest, self._accounts.host_key.algorithm)
        return signature

    # --- a key ------------------------------------------------------------------------------------------------------

    def proof(
        self, connection: Connection, user: str, algorithm: str, key: bytes, signature: bytes, assets: frozenset[str],
        now_ns: int, wall_ns: int,
    ) -> Outcome:  # fmt: skip
        """A user's signature."""
        shown, certified = (algorithm, key), 0
        if CERTIFICATE in algorithm and self._certified is not None:
            key, certified, why = self._certified.key(key, connection.source, wall_ns)
            if connection.state == "key":
                # OpenSSH shows the bare key first, and its certificate after it. One that does not count costs nothing:
                # the code is still missing.
                if not why and (key != connection.key or user != connection.user):
                    why = "a certificate over another key, or for another name"
                if not why and plain(algorithm) not in ALGORITHMS:
                    why = f"the algorithm {algorithm[:40]}"
                if not why and not _verifies(connection.session_id, user, plain(algorithm), key, signature, shown):
                    why = "a signature that does not fit"
                if why:
                    connection.tries += 1
                    return Outcome("code", why)
                connection.factors, connection.certified = ("key", CERTIFIED), certified
                return self._in(connection, now_ns, wall_ns)
            if why:
                return self._no(connection, why, now_ns)
        why = self._proof(connection, user, plain(algorithm), key, signature, assets, now_ns, shown)
        if why:
            return self._no(connection, why, now_ns)
        flags, counter = _flags(algorithm, signature)
        if certified and connection.parent is None:
            connection.factors, connection.certified = ("key", CERTIFIED), certified
            return self._in(connection, now_ns, wall_ns)
        if connection.parent is not None:
            connection.factors = ("key", "the connection around it")
            return self._in(connection, now_ns, wall_ns)
        if flags & _VERIFIED_USER:
            if counter and counter <= self._accounts.counter(key):
                return self._no(connection, "the security key's counter did not grow: is it a copy?", now_ns)
            self._accounts.set_counter(key, counter)
            connection.factors = ("security key", "its PIN or finger")
            return self._in(connection, now_ns, wall_ns)
        person = self._accounts.person(connection.person)
        if person is None or not person.totp:
            return self._no(connection, f"{connection.person} has no second factor", now_ns)
        connection.state = "key"
        return Outcome("code")

    def _proof(
        self, connection: Connection, user: str, algorithm: str, key: bytes, signature: bytes, assets: frozenset[str],
        now_ns: int, shown: tuple[str, bytes],
    ) -> str:  # fmt: skip
        """Why it does not count; "" if it does, and then the connection knows who it is."""
        if connection.state != "began":
            return "a second key"
        if not connection.session_id:
            return "a signature without a key exchange"
        if algorithm not in ALGORITHMS:
            return f"the algorithm {algorithm[:40]}"
        person = self._accounts.owner(key)
        if not person:
            return "a key that is nobody's"
        if connection.parent is None and self._failures.pause(now_ns, ("source", connection.source)):
            return PAUSE
        named, wants, why = self._read(user, assets, person)
        if why:
            return why
        if connection.parent is not None:
            if person != connection.parent.person:
                return f"{person} within a connection of {connection.parent.person}"
            named, wants = person, connection.nested
        if named != person:
            return f"{person}'s key, for {named[:64]}"
        if (known := self._accounts.person(person)) is None or not known.active:
            return f"{person} is not active"
        if not _verifies(connection.session_id, user, algorithm, key, signature, shown):
            return "a signature that does not fit"
        if self._accounts.reserve.short():
            return FULL
        if not self._accounts.serves(connection.session_id):
            return "a signature that has served before"
        connection.user, connection.person, connection.wants, connection.key = user, person, wants, key
        return ""

    def _read(self, user: str, assets: frozenset[str], owner: str = "") -> tuple[str, str, str]:
        """(person, asset, why not) of a user name: PERSON%ASSET, ASSET (the key says who), PERSON."""
        person, mark, asset = user.rpartition("%")
        if mark:
            return (person, asset, "") if asset in assets else (person, "", f"the asset {asset[:64]!r}")
        if user in assets and user != owner:
            return owner, user, ""
        return user, "", ""

    # --- a password, a code -----------------------------------------------------------------------------------------

    def answers(
        self, connection: Connection, user: str, answers: tuple[str, ...], assets: frozenset[str], now_ns: int,
        wall_ns: int,
    ) -> Outcome:  # fmt: skip
        """What was typed: a code after a key, or password and code."""
        after_key = connection.state == "key"
        if connection.state == "in" or connection.parent is not None or not connection.session_id:
            return self._no(connection, "a code out of turn", now_ns)
        if after_key and user != connection.user:
            return self._no(connection, "another name for the code than for the key", now_ns)
        if len(answers) != (1 if after_key else 2):
            return self._no(connection, "another number of answers than of prompts", now_ns)
        named, wants = (connection.person, connection.wants) if after_key else self._read(user, assets)[:2]
        whose = ("code" if after_key else "password", named[:128])
        if self._failures.pause(now_ns, whose, ("source", connection.source)):
            return self._no(connection, PAUSE, now_ns)
        person = self._accounts.person(named)
        why = ""
        if not after_key:
            why = "" if self._password(person, answers[0]) else "a wrong password, or nobody"
            why = why or self._read(user, assets)[2]
        why = why or self._code(person, answers[-1], wall_ns, comes=True)
        if why or person is None:
            if why != FULL:
                self._failures.failed(now_ns, whose)
            return self._no(connection, why or "nobody", now_ns)
        self._failures.forgive(whose)
        connection.user, connection.person, connection.wants = user, person.name, wants
        connection.factors = ("key", "code") if after_key else ("password", "code")
        return self._in(connection, now_ns, wall_ns)

    def unlock(self, person: str, answer: str, now_ns: int, wall_ns: int) -> tuple[str, str]:
        """(factor, why not) of what somebody who is in shows once more: a code, or their password."""
        known = self._accounts.person(person)
        plain = answer.strip().replace(" ", "")
        factor = "code" if plain.isascii() and plain.isdigit() and len(plain) == CODE_DIGITS else "password"
        if self._failures.pause(now_ns, (factor, person)):
            return "", PAUSE
        if factor == "code":
            why = self._code(known, answer, wall_ns)
        else:
            why = "" if self._password(known, answer) else "a wrong password, or none"
        if why:
            self._failures.failed(now_ns, (factor, person))
            return "", why
        self._failures.forgive((factor, person))
        return factor, ""

    def _password(self, person: Person | None, typed: str) -> bool:
        """Takes as long for nobody as for somebody."""
        try:
            hashed = (self._accounts.factor(person, "password") if person is not None else "") or self._nobody
            self._passwords.verify(hashed, typed)
        except (argon2.exceptions.VerificationError, NotOpened):
            return False
        return person is not None and bool(person.password) and person.active

    def _code(self, person: Person | None, typed: str, wall_ns: int, *, comes: bool = False) -> str:
        """Why the code does not count; "" if it does, and then it is used up. `comes`: to sign in. Who shows both
        factors is told that there is no room, and nobody else learns by that whether one of them was right."""
        if person is None or not person.active or not person.totp:
            return "no codes for this name"
        try:
            code = pyotp.TOTP(self._accounts.factor(person, "totp"))
        except NotOpened as error:
            return str(error)
        now = wall_ns // 10**9 // STEP_SECONDS
        text = typed.strip().replace(" ", "")
        for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
            if pyotp.utils.strings_equal(text, code.generate_otp(step)):
                if step <= person.step:
                    return "a code that was used before"
                if comes and self._accounts.reserve.short():
                    return FULL
                self._accounts.used_step(person.name, step)
                return ""
        return "a wrong code"

    def hash_password(self, name: str, password: str) -> str:
        """How it is kept. Raises: ValueError, with the reason why it is none."""
        if why := weak(name, password):
            raise ValueError(why)
        return self._passwords.hash(password)

    # --- what comes of it -------------------------------------------------------------------------------------------

    def _in(self, connection: Connection, now_ns: int, wall_ns: int) -> Outcome:
        person = self._accounts.known(connection.person)
        connection.state, connection.since_ns = "in", now_ns
        last = f"last signed in from {person.last_source}, {show_utc(person.last_ns)}"
        text = last if person.last_source else "signed in for the first time"
        if connection.parent is None:
            self._failures.forgive(("source", connection.source))
            self._accounts.signed_in(person.name, wall_ns, connection.source)
        return Outcome("in", text=text)

    def _no(self, connection: Connection, why: str, now_ns: int) -> Outcome:
        connection.tries += 1
        connection.state = "began"
        if why not in (PAUSE, FULL) and connection.parent is None:
            self._failures.failed(now_ns, ("source", connection.source))
        connection.person = connection.wants = ""
        return Outcome("no", why, NO)


def hasher() -> argon2.PasswordHasher:
    """How passwords are kept: by argon2id. With one lane it needs no thread, which a part may not make."""
    return argon2.PasswordHasher(parallelism=1)


def weak(name: str, password: str) -> str:
    """Why this is no password for that person; "" if it is one."""
    if len(password) < PASSWORD_LEAST:
        return f"a password has at least {PASSWORD_LEAST} characters"
    if password.lower() in COMMON or len(set(password)) < 5 or name.lower() in password.lower():
        return "that password is one of those that are tried first"
    return ""


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def signed_data(session_id: bytes, user: str, algorithm: str, key: bytes) -> bytes:
    """What a user signs (RFC 4252, 7)."""
    request = (user.encode(), b"ssh-connection", b"publickey")
    more = (algorithm.encode(), key)
    return b"".join((_string(session_id), b"\x32", *map(_string, request), b"\x01", *map(_string, more)))


def plain(algorithm: str) -> str:
    """Of a certificate's algorithm: that of the key in it."""
    if not algorithm.endswith(CERTIFICATE):
        return algorithm
    bare = algorithm.removesuffix(CERTIFICATE)
    return f"{bare}@openssh.com" if bare.startswith("sk-") else bare


def _verifies(
    session_id: bytes, user: str, algorithm: str, blob: bytes, signature: bytes, shown: tuple[str, bytes]
) -> bool:
    """`shown`: the algorithm and what was shown as key, as they were signed."""
    try:
        key = decode_ssh_public_key(blob)
        named = signature[4 : 4 + int.from_bytes(signature[:4], "big")]
        if named != algorithm.encode() or named not in key.all_sig_algorithms:
            return False
        key.set_touch_required(True)
        return bool(key.verify(signed_data(session_id, user, *shown), signature))
    except (asyncssh.Error, asyncssh.KeyImportError, ValueError, TypeError, struct.error):
        return False


def _flags(algorithm: str, signature: bytes) -> tuple[int, int]:
    """(flags, counter) of a security key's signature; of others none."""
    if not algorithm.startswith("sk-"):
        return 0, 0
    return signature[-5], int.from_bytes(signature[-4:], "big")
