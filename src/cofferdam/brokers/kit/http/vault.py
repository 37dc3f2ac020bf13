"""The files that hold a broker's keys and certificates: one for each part that answers HTTP, or dials with a password,
which only the gate's user (and root) reads.

A key's text is made here, given back once, and kept nowhere; a file has the hashes. Files are replaced whole, under a
lock, so that neither a crash nor two people at once leave half of one.

Not here: where the files lie (gate.secrets), what is done with them (keys), the command line (cli.keys).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets as dice
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from cryptography.x509 import Certificate

from cofferdam import owned
from cofferdam.brokers.kit import tls
from cofferdam.brokers.kit.http.keys import KEYS_EACH, Key, Secrets, Tls, new_key, read_secrets, write_secrets
from cofferdam.errors import GateError

LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
PASSWORD_CHARACTERS: Final = 1000
KEY_CHARACTERS: Final = 4000
"""Of a password, and of a private key as a text."""


class Vault:
    """One side's file, as it stands, and as it is to be: changes count once `save` is called."""

    def __init__(self, path: Path, broker: str) -> None:
        """Raises: GateError where the file cannot be read or understood."""
        self.path = path
        try:
            data = owned.read_below(path.parents[3], path.parts[-4:])
        except FileNotFoundError:
            data = b"{}"
        except OSError as error:
            raise GateError(f"{path} cannot be read: {error.strerror or error}") from None
        self.secrets: Secrets = read_secrets({broker: data}, broker)

    def add(
        self, principal: str, *, expires: int, verbs: Iterable[str], scopes: Iterable[str], by: str, now_ns: int
    ) -> tuple[str, Key]:
        """A new key for a principal: its text, and what is kept. Raises: GateError: it has as many as it may."""
        self.forget_expired(now_ns)
        own = [key for key in self.secrets.keys if key.principal == principal]
        if len(own) >= KEYS_EACH:
            ids = " and ".join(key.id for key in own)
            raise GateError(
                f"{principal} has {KEYS_EACH} keys, {ids}",
                hint="revoke the one that is no longer used, then make another",
            )
        text, sha256 = new_key()
        name = "".join(dice.choice(LETTERS) for _ in range(8))
        key = Key(
            id=name, principal=principal, sha256=sha256, created=now_ns, expires=expires, verbs=tuple(verbs),
            scopes=tuple(scopes), by=by,
        )  # fmt: skip
        self.put(key)
        return text, key

    def put(self, key: Key) -> None:
        """A key that was made for this principal elsewhere."""
        self.secrets = msgspec.structs.replace(self.secrets, keys=(*self.secrets.keys, key))

    def forget_expired(self, now_ns: int) -> None:
        """Keys that have expired for more than a week are no longer listed."""
        week = 604_800 * 10**9
        kept = tuple(key for key in self.secrets.keys if not key.expires or key.expires + week > now_ns)
        self.secrets = msgspec.structs.replace(self.secrets, keys=kept)

    def revoke(self, name: str) -> Key | None:
        """Takes a key away, by its id; the key, if there was one."""
        found = next((key for key in self.secrets.keys if key.id == name), None)
        kept = tuple(key for key in self.secrets.keys if key is not found)
        self.secrets = msgspec.structs.replace(self.secrets, keys=kept)
        return found

    def bring(self, name: str, certificate: bytes, key: bytes) -> Certificate:
        """A certificate with its chain, and its key, under the name that the policy has for it. Raises: GateError."""
        chain, _ = tls.load(certificate, key)
        tls.server_context(certificate, key)
        known = {**self.secrets.tls, name: Tls(certificate=certificate, key=key)}
        self.secrets = msgspec.structs.replace(self.secrets, tls=known)
        return chain[0]

    def set_password(self, name: str, password: str, most: int = PASSWORD_CHARACTERS) -> None:
        """The password (or a key as a text) that the policy has by this name. Raises: GateError."""
        if not 1 <= len(password.encode()) <= most or not password.isprintable():
            raise GateError(f"a password has 1 to {most} printable characters")
        known = {**self.secrets.passwords, name: password}
        self.secrets = msgspec.structs.replace(self.secrets, passwords=known)

    def certificates(self) -> Iterator[tuple[str, Certificate]]:
        """Those that there are, by name."""
        for name, found in sorted(self.secrets.tls.items()):
            yield name, tls.load(found.certificate, found.key)[0][0]

    def save(self, owner: int) -> None:
        """Durable on return; `owner` (a user id) reads it. Raises: GateError, and the old file is still there."""
        try:  # STATE/secrets/CREW/PART/KIND
            owned.write(self.path.parents[3], self.path.parts[-4:], write_secrets(self.secrets), owner)
        except OSError as error:
            raise GateError(f"cannot write {self.path}: {error.strerror or error}") from None


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Holds the lock on a state directory's keys. Raises: GateError."""
    try:
        fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise GateError(
            f"the state directory {state}: {error.strerror or error}", hint="name the gate's with --state"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
