"""Secrets of parts (keys, certificates, passwords): from the state directory to the one part whose profile lists them.

STATE/secrets/CREW/PART/KIND holds one, as the part's broker reads it. They never stand in a policy, which is reviewed,
mailed and hashed into the log; they never reach a part by a file, which another part might read; and where one is
printed, it prints as `<secret>`.

A secret may lie elsewhere and be given to the gate when it starts (`given`): a credential of systemd's, which a TPM
opens, say. Such a one takes the place of the file, and none is made.

Not here: what is in one (its broker), who makes it (the broker's verbs).
"""

from __future__ import annotations

import os
import secrets as dice
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cofferdam import owned
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.supervision import Secret
from cofferdam.brokers.kit.vouch import HEARD, Claim, Vouch, Voucher, public_of
from cofferdam.enforce.credentials import CREDENTIALS
from cofferdam.enforce.profile import GATE_VOUCHES, VOUCH
from cofferdam.errors import GateError

SECRET_BYTES = 1 << 20
KEY_BYTES = 32
FOLDER = "secrets"


def secret_file(state: Path, crew: str, part: str, kind: str) -> Path:
    """Where a secret lies. `crew` is the plan's `base`: all crews of a road have the same."""
    return state / FOLDER / crew.replace("%", "%25").replace("/", "%2F") / part / kind


def credential(crew: str, part: str, kind: str) -> str:
    """What a secret is called that the gate is given when it starts."""
    return ".".join((CREDENTIALS, crew.replace("/", "."), part, kind))


def load_secrets(
    state: Path, crew: str, part: str, kinds: tuple[str, ...], given: Mapping[str, bytes] = {}
) -> tuple[Secret, ...]:
    """Those of a part that there are.

    Raises:
        GateError: one is not a file that its owner alone can read, or too large.
    """
    found = []
    for kind in kinds:
        if (value := given.get(credential(crew, part, kind))) is not None:
            found.append(Secret(kind, value))
            continue
        path = secret_file(state, crew, part, kind)
        try:
            fd, whose = owned.open_below(state, path.parts[-4:])
        except FileNotFoundError:
            continue
        except OSError as error:
            raise GateError(f"the secret {path} cannot be read: {error.strerror or error}") from None
        with os.fdopen(fd, "rb") as file:
            facts = os.fstat(fd)
            # Root may ask for what it gave to the gate's user, as the folder shows.
            owners = {0, os.geteuid()} if os.geteuid() else {0, whose}
            if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077 or facts.st_uid not in owners:
                raise GateError(
                    f"the secret {path} can be read by others than its owner, or is no file",
                    hint=f"it may be known to others: make a new one; chmod 600 {path}",
                )
            value = file.read(SECRET_BYTES + 1)
        if len(value) > SECRET_BYTES:
            raise GateError(f"the secret {path} has more than {SECRET_BYTES} bytes")
        found.append(Secret(kind, value))
    return tuple(found)


def read_secret(path: Path) -> bytes:
    """A secret at a place that `secret_file` gave, as root or its owner reads it; no link on the way is followed.

    Raises: FileNotFoundError; OSError."""
    return owned.read_below(path.parents[3], path.parts[-4:])


def make_secrets(state: Path, crew: str, part: str, kinds: tuple[str, ...], given: Mapping[str, bytes] = {}) -> None:
    """Random ones, where there are none yet: each is KEY_BYTES of a key that nobody has to bring. Raises: GateError."""
    for kind in kinds:
        path = secret_file(state, crew, part, kind)
        if credential(crew, part, kind) not in given and not os.path.lexists(path):
            save_secret(path, dice.token_bytes(KEY_BYTES), os.geteuid())


def load_heard(state: Path, crew: str, names: tuple[str, ...]) -> tuple[Secret, ...]:
    """The public keys of those who vouch, parts or the gate, each as a secret that is called after it. A key that
    is not there yet is made. Raises: GateError."""
    return tuple(Secret(f"{HEARD}{name}", public_of(_seed(state, crew, name))) for name in names)


def vouch(state: Path, crew: str, did: str, who: str, claim: object) -> Vouch:
    """The gate's word that somebody asks for something to be done with a file. Raises: GateError."""
    try:
        said = msgspec.convert(claim, Claim)
    except msgspec.ValidationError as error:
        hint = "the command is of another version than the gate"
        raise GateError(f"{did}: which file is meant is not said: {error}", hint=hint) from None
    path = secret_file(state, crew, GATE_VOUCHES, VOUCH)
    if not os.path.lexists(path):  # another one would be believed by none of those who run
        hint = "put it back; or start the gate again: it makes another one, and what waits is to be brought in again"
        raise GateError(f"the secret {path}, by which the gate says who asks, is gone", hint=hint)
    return Voucher(_seed(state, crew, GATE_VOUCHES), time.time_ns).say(did, clip(who, 128), said.what, said.sha256)


def _seed(state: Path, crew: str, name: str) -> bytes:
    make_secrets(state, crew, name, (VOUCH,))
    value = load_secrets(state, crew, name, (VOUCH,))[0].value
    if len(value) != KEY_BYTES:
        path = secret_file(state, crew, name, VOUCH)
        hint = "remove it: another one is made, and what waits for signatures has to be brought in again"
        raise GateError(f"the secret {path} has {len(value)} bytes, and not {KEY_BYTES}", hint=hint)
    return value


def save_secret(path: Path, data: bytes, owner: int) -> None:
    """Writes a part's secret whole, durable on return; `owner` (a user id) reads it. Raises: GateError, and the old one
    is still there."""
    try:
        owned.write(path.parents[3], path.parts[-4:], data, owner)
    except OSError as error:
        raise GateError(f"cannot write {path}: {error.strerror or error}") from None


def write_secret(state: Path, path: Path, data: bytes) -> None:
    """A new secret at a place that `secret_file` gave, durable, for the gate's user alone. Raises: OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
    owned.write(state, path.relative_to(state).parts, data, owner, new=True)
