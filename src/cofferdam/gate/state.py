"""The state directory: what lies where, and the severed sides, which survive a restart.

audit/            the log (auditor only)
keys/audit.key    its key (auditor only)
severed.json      which sides are cut off
hands.json        which zones, conduits, principals and assets are cut off, and which conduits are granted
expired.json      which conduits were seen to expire
anchor.json       the last checkpoint of the log that the gate has seen
archive/          entries that were moved out of the log (auditor only)

night.json        when the gate was proved last
failed-checks.json  which checks of the evidence failed, and were not found otherwise since
gate.sock         the control socket
look.sock, sever.sock  for members of groups that may do some of it (enforce.doors)
lock              held by the launcher while a gate runs
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cofferdam import owned
from cofferdam.enforce.doors import DOORS, door
from cofferdam.errors import GateError

SIDES = ("it", "ot")
REQUEST_BYTES = 64 << 10
"""The longest line that asks a gate for something, by its control socket."""
ROOTS = Path("/var/lib/cofferdam")
"""The state directory of a gate that root runs."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side that was cut off: when (UTC ns), by whom and why."""

    side: Literal["it", "ot"]
    since_ns: Annotated[int, msgspec.Meta(ge=0)]
    by: str
    reason: str = ""
    until_ns: Annotated[int, msgspec.Meta(ge=0)] = 0
    """When it ends by itself (UTC); 0: when somebody restores it."""

    @property
    def what(self) -> str:
        """As `sever` and `restore` name it."""
        return self.side

    @property
    def shown(self) -> str:
        return f"the {self.side} side"


Kind = Literal["zone", "conduit", "principal", "asset"]


class Closure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was severed that is less than a side; `until_ns` 0: until somebody restores it."""

    kind: Kind
    name: str
    since_ns: Annotated[int, msgspec.Meta(ge=0)]
    by: str
    reason: str = ""
    until_ns: Annotated[int, msgspec.Meta(ge=0)] = 0

    def stands(self, now: int) -> bool:
        return not self.until_ns or now < self.until_ns

    @property
    def what(self) -> str:
        """As `sever` and `restore` name it."""
        return f"{self.kind} {self.name}"

    @property
    def shown(self) -> str:
        return f"the {self.kind} {self.name}"


def with_closure(closures: Sequence[Closure], fresh: Closure) -> tuple[Closure, ...]:
    """One more closure. What is severed already stays so for the longer of both times, and by whom and why it was: who
    may sever and not restore would restore it, otherwise, by severing it for a moment."""
    rest = tuple(one for one in closures if (one.kind, one.name) != (fresh.kind, fresh.name))
    for one in closures:
        if one not in rest and one.stands(fresh.since_ns):
            if not one.until_ns or (fresh.until_ns and fresh.until_ns <= one.until_ns):
                return tuple(closures)
            return (*rest, msgspec.structs.replace(one, until_ns=fresh.until_ns))
    return (*rest, fresh)


class Granted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conduit that somebody has asked for, and since another has agreed (`agreed_by`) is open until then."""

    number: Annotated[int, msgspec.Meta(ge=1)]
    conduit: str
    by: str
    reason: str
    seconds: int
    asked_ns: int
    agreed_by: str = ""
    until_ns: int = 0

    def stands(self, now: int) -> bool:
        return bool(self.agreed_by) and now < self.until_ns

    def over(self, now: int) -> bool:
        """Its time is up, or nobody has agreed for a day."""
        return now >= (self.until_ns if self.agreed_by else self.asked_ns + 86_400 * 10**9)


class Hands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that operators hold back or have opened for a time. `last`: the last number of a grant."""

    closures: tuple[Closure, ...] = ()
    grants: tuple[Granted, ...] = ()
    last: int = 0


class _HandsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    hands: Hands


def load_hands(state: Path) -> tuple[Hands, str]:
    """What the file says, and why it cannot be understood: then no grant stands, and the caller severs."""
    path = state / "hands.json"
    try:
        return msgspec.json.decode(owned.read(path), type=_HandsFile).hands, ""
    except FileNotFoundError:
        return Hands(), ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Hands(), (
            f"{path} cannot be understood ({error}); both sides are severed and no grant stands. Move the file away, "
            "sever again what should be, and restore the sides"
        )


def save_hands(state: Path, hands: Hands) -> None:
    """Writes the file anew; durable on return. Raises: GateError."""
    _save(state, "hands.json", msgspec.to_builtins(_HandsFile(1, hands)), "what is severed and granted", reserve=True)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    severed: tuple[Cut, ...]
    untold: tuple[Literal["it", "ot"], ...] = ()


@dataclass(frozen=True)
class Severed:
    """What the file says. `damage` is why it could not be understood: then both sides count as cut off. `untold`: sides
    that were cut off without the gate, so that the log does not have it yet."""

    cuts: tuple[Cut, ...]
    damage: str = ""
    untold: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(side for side in SIDES if any(cut.side == side for cut in self.cuts))

    def over(self, now: int) -> tuple[str, ...]:
        """The sides whose cut has come to its end."""
        return tuple(cut.side for cut in self.cuts if 0 < cut.until_ns <= now)


def with_cut(severed: Severed, fresh: Cut) -> Severed:
    """One more cut. A side that is cut off already stays so for the longer of both times."""
    for cut in severed.cuts:
        if cut.side == fresh.side:
            if not cut.until_ns or (fresh.until_ns and fresh.until_ns <= cut.until_ns):
                return severed
            longer = msgspec.structs.replace(cut, until_ns=fresh.until_ns)
            rest = tuple(longer if one is cut else one for one in severed.cuts)
            return Severed(rest, severed.damage, severed.untold)
    return Severed((*severed.cuts, fresh), severed.damage, severed.untold)


def load_severed(state: Path) -> Severed:
    """The severed sides. A file that cannot be read or understood severs both: fail closed."""
    path = state / "severed.json"
    try:
        document = msgspec.json.decode(owned.read(path), type=_Document)
    except FileNotFoundError:
        return Severed(())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        damage = f"{path} cannot be understood ({error}); both sides are severed until someone restores them"
        now = time.time_ns()
        return Severed(tuple(Cut(side, now, "gate", "severed.json is damaged") for side in ("it", "ot")), damage)
    return Severed(document.severed, "", document.untold)


def save_severed(state: Path, severed: Severed) -> None:
    """Writes the file anew; durable on return.

    Raises:
        GateError: it cannot be written; the old file is still there.
    """
    untold = tuple(cut.side for cut in severed.cuts if cut.side in severed.untold)
    document = msgspec.to_builtins(_Document(1, severed.cuts, untold))
    _save(state, "severed.json", document, "which sides are severed", reserve=True)


class _Expired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    expired: dict[str, Annotated[int, msgspec.Meta(ge=0)]]


def load_expired(state: Path) -> tuple[dict[str, int], str]:
    """Which conduits were seen to expire, and which expiry of theirs (UTC ns); and why the file cannot be understood:
    then nobody knows, and what could have expired has: fail closed."""
    path = state / "expired.json"
    try:
        return dict(msgspec.json.decode(owned.read(path), type=_Expired).expired), ""
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
    _save(state, "expired.json", document, "which conduits have expired", reserve=True)


class _Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    size: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    root: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


def load_anchor(state: Path) -> tuple[int, bytes]:
    """Size and root of the last checkpoint that the gate has seen; 0 if it has seen none. Raises: GateError."""
    path = state / "anchor.json"
    try:
        found = msgspec.json.decode(owned.read(path), type=_Anchor)
    except FileNotFoundError:
        return 0, b""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GateError(
            f"{path} cannot be understood ({error}): whether the audit log was put back, nobody can tell",
            hint="check the log (cofferdam audit verify --checkpoint KEPT), then move that file away",
        ) from None
    return found.size, bytes.fromhex(found.root)


def save_anchor(state: Path, size: int, root: bytes) -> None:
    """Writes the file anew; durable on return. Raises: GateError."""
    _save(state, "anchor.json", msgspec.to_builtins(_Anchor(1, size, root.hex())), "how far the audit log has come")


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SPARE_BYTES = 16 << 10


def keep_spare(state: Path) -> None:
    """Have the spare files there as far as the disk has room for them."""
    with contextlib.suppress(OSError):
        for name in owned.SPARES:
            fd = os.open(state / name, _WRITE, 0o600)
            try:
                owned.plain(fd, alone=True)
                if not os.fstat(fd).st_size:  # what somebody has put there may be another's, and not theirs to read
                    _hand_over(state, fd)
                if os.fstat(fd).st_blocks * 512 < SPARE_BYTES:
                    os.posix_fallocate(fd, 0, SPARE_BYTES)
                    os.fsync(fd)
            except OSError:
                (state / name).unlink()  # one without its room would be taken for one
                raise
            finally:
                os.close(fd)


class _Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: Literal[1]
    failed: dict[str, dict[str, str]]
    stood: dict[str, str] = {}


def load_failed(state: Path) -> tuple[dict[str, dict[str, str]], dict[str, str], str]:
    """Checks of the evidence that failed: by name and subject, each with its words; witnesses by hand that have another
    head, with theirs; and why the file cannot be understood."""
    path = state / "failed-checks.json"
    try:
        found = msgspec.json.decode(owned.read(path), type=_Failed)
        return dict(found.failed), dict(found.stood), ""
    except FileNotFoundError:
        return {}, {}, ""
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        damage = (
            f"{path} cannot be understood ({error}): alarms of checks that had failed are not here until they are "
            "found again: `cofferdam evidence list --status failed`"
        )
        return {}, {}, damage


def save_failed(state: Path, failed: dict[str, dict[str, str]], stood: dict[str, str]) -> None:
    """Writes the file anew; durable on return. Raises: GateError."""
    _save(state, "failed-checks.json", msgspec.to_builtins(_Failed(1, failed, stood)), "which checks failed")


class Night(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the nightly work was begun last (UTC seconds; 0 where nobody knows), when one was over, and what it said."""

    last: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)] = 0
    ended: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)] = 0
    said: Annotated[str, msgspec.Meta(max_length=2000)] = ""


def load_night(state: Path) -> Night:
    """What is known of the last one."""
    try:
        return msgspec.json.decode(owned.read(state / "night.json"), type=Night)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Night()


def save_night(state: Path, night: Night) -> None:
    """Writes the file anew; durable on return. Raises: GateError."""
    _save(state, "night.json", msgspec.to_builtins(night), "when the gate was proved last")


def _save(state: Path, name: str, document: object, what: str, *, reserve: bool = False) -> None:
    path, fresh = state / name, state / f"{name}.new"
    text = json.dumps(document, indent=1).encode()
    try:
        try:
            fresh.unlink(missing_ok=True)
        except OSError:  # somebody else's lies there, and this user may not remove it: it stays, and hinders nothing
            fresh = state / f"{name}.{os.urandom(8).hex()}.new"
        try:
            _write(fresh, text)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not reserve:
                raise
            fresh.unlink(missing_ok=True)
            if not _take_spares(state, fresh, len(text)):
                raise
            _write(fresh, text)
        fresh.replace(path)
        directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        keep_spare(state)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise GateError(
            f"cannot write {path}: {error.strerror or error}",
            hint=f"it records {what}; make room or make the directory writable, then do it again",
        ) from None


def _take_spares(state: Path, fresh: Path, size: int) -> bool:
    """Puts a spare file, which has its room already, in the place of a fresh one, and gives up so many others that
    there is room for `size` bytes. False if there are too few: then they stay, for what needs less."""
    there = [state / name for name in owned.SPARES if (state / name).exists()]
    more = max(0, -(-size // SPARE_BYTES) - 1)
    if len(there) < 1 + more:
        return False
    for one in there[1 : 1 + more]:
        one.unlink()
    there[0].rename(fresh)
    return True


def _write(path: Path, text: bytes) -> None:
    fd = os.open(path, _WRITE, 0o600)
    try:
        owned.plain(fd, alone=True)  # somebody may have put another in its place since it was removed
        done = 0
        while done < len(text):  # a disk with room for a part of it takes that part, and says so by the count alone
            done += os.pwrite(fd, text[done:], done)
        os.ftruncate(fd, len(text))
        _hand_over(path.parent, fd)  # not before: what somebody has put there may be another's
        os.fsync(fd)
    finally:
        os.close(fd)


def _hand_over(state: Path, fd: int) -> None:
    """What root writes in a state directory that was handed to the gate's user, or that is another user's, is that
    user's, who is to read and replace it."""
    found = state.stat()
    owner = found.st_gid if found.st_mode & stat.S_ISVTX and not found.st_uid else found.st_uid
    if os.geteuid() == 0 and owner:
        os.fchown(fd, owner, owner if owner == found.st_gid else -1)


def default_state(*, own: bool = False) -> Path:
    """Where state is kept unless --state says otherwise; for who is not root and has no gate, where root's gate has a
    door that is theirs, unless it has to be their `own`."""
    if os.geteuid() == 0:
        return ROOTS
    base = os.environ.get("XDG_STATE_HOME", "")
    found = (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "cofferdam"
    if own or control_socket(found).exists() or not any(os.access(door(ROOTS, role), os.W_OK) for role in DOORS):
        return found
    return ROOTS


def control_socket(state: Path) -> Path:
    return state / "gate.sock"
