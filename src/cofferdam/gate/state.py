"""The state directory: what lies where, and the severed sides, which survive a restart.

audit/            the log (auditor only)
keys/audit.key    its key (auditor only)
severed.json      which sides are cut off
expired.json      which conduits were seen to expire
gate.sock         the control socket
lock              held by the launcher while a gate runs
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cofferdam.errors import GateError

SIDES = ("it", "ot")


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side that was cut off: when (UTC ns), by whom and why."""

    side: Literal["it", "ot"]
    since_ns: Annotated[int, msgspec.Meta(ge=0)]
    by: str
    reason: str = ""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    severed: tuple[Cut, ...]


@dataclass(frozen=True)
class Severed:
    """What the file says. `damage` is why it could not be understood: then both sides count as cut off."""

    cuts: tuple[Cut, ...]
    damage: str = ""

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(side for side in SIDES if any(cut.side == side for cut in self.cuts))


def load_severed(state: Path) -> Severed:
    """The severed sides. A file that cannot be read or understood severs both: fail closed."""
    path = state / "severed.json"
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except FileNotFoundError:
        return Severed(())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        damage = f"{path} cannot be understood ({error}); both sides are severed until someone restores them"
        now = time.time_ns()
        return Severed(tuple(Cut(side, now, "gate", "severed.json is damaged") for side in ("it", "ot")), damage)
    return Severed(document.severed)


def save_severed(state: Path, severed: Severed) -> None:
    """Writes the file anew; durable on return.

    Raises:
        GateError: it cannot be written; the old file is still there.
    """
    document = msgspec.to_builtins(_Document(1, severed.cuts))
    _save(state, "severed.json", document, "which sides are severed")


class _Expired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    expired: dict[str, Annotated[int, msgspec.Meta(ge=0)]]


def load_expired(state: Path) -> tuple[dict[str, int], str]:
    """Which conduits were seen to expire, and which expiry of theirs (UTC ns); and why the file cannot be understood:
    then nobody knows, and what could have expired has: fail closed."""
    path = state / "expired.json"
    try:
        return dict(msgspec.json.decode(path.read_bytes(), type=_Expired).expired), ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return {}, (
            f"{path} cannot be understood ({error}); every conduit with an expiry counts as expired until the file is "
            "moved away and the gate started again"
        )


def save_expired(state: Path, expired: dict[str, int]) -> None:
    """Writes the file anew; durable on return. Raises: GateError."""
    document = msgspec.to_builtins(_Expired(1, expired))
    _save(state, "expired.json", document, "which conduits have expired")


def _save(state: Path, name: str, document: object, what: str) -> None:
    path, fresh = state / name, state / f"{name}.new"
    try:
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise GateError(
            f"cannot write {path}: {error.strerror or error}",
            hint=f"it records {what}; make room or make the directory writable, then do it again",
        ) from None


def default_state() -> Path:
    """Where state is kept unless --state says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/cofferdam")
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "cofferdam"


def control_socket(state: Path) -> Path:
    return state / "gate.sock"
