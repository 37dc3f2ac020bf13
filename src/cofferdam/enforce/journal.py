"""What a gate made and moved in the host's network, on disk before it is done, so that any later process can undo it.

One file, `network/journal.json` in the state directory, in a folder that only root can enter. Beside it, `policy`
has the path of the policy in force, as root said it (`up`, `reload`): what root runs beside the gate must not open a
file because the gate, which has no privilege, names it. Not here: doing or undoing any of it (netns).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from cofferdam.errors import GateError

FORMAT = 1


class Namespace(msgspec.Struct, forbid_unknown_fields=True):
    """A namespace of ours. `inode` is 0 until it is made; it tells ours from another of the same name."""

    name: str
    inode: int = 0


class AddressHeld(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address of an interface, with prefix length, and its broadcast address, if it has one."""

    address: str
    broadcast: str = ""


class RouteHeld(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route of the main table by an interface; `network` is "" for the default route."""

    family: int
    network: str
    gateway: str
    priority: int
    source: str
    protocol: int
    scope: int


class Moved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interface that was there before: where it went, and what it had."""

    name: str
    index: int
    mac: str
    namespace: str
    up: bool
    addresses: tuple[AddressHeld, ...]
    routes: tuple[RouteHeld, ...]


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interface of ours. Its name has a random part, so nobody else's can have it."""

    name: str
    namespace: str


class Journal(msgspec.Struct, forbid_unknown_fields=True):
    """`boot` is the kernel's boot id: after a restart of the machine nothing of it is left to undo. `host` is the inode
    of the namespace that interfaces came from."""

    boot: str
    host: int
    namespaces: list[Namespace]
    moved: list[Moved]
    made: list[Made]
    format: int = FORMAT


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def folder(state: Path) -> Path:
    return state / "network"


def prepare_folder(state: Path) -> Path:
    """The folder, made if need be.

    Raises:
        GateError: somebody else owns it, or could write to it.
    """
    path = folder(state)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise GateError(f"cannot make {path}: {error.strerror}", hint="give another --state") from None
    if path.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise GateError(
            f"{path} belongs to another user or is open to others", hint="look at what is in it, then remove it"
        )
    return path


def save(state: Path, journal: Journal) -> None:
    """Durable on return. Raises: GateError."""
    path = prepare_folder(state) / "journal.json"
    fresh = path.with_suffix(".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(journal)))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(directory)
        os.close(directory)
    except OSError as error:
        raise GateError(
            f"cannot write {path}: {error.strerror}", hint="nothing is moved before it is written there"
        ) from None


def load(state: Path) -> Journal | None:
    """What an earlier gate left; None if nothing.

    Raises:
        GateError: the file cannot be read or understood.
    """
    path = folder(state) / "journal.json"
    try:
        if path.parent.lstat().st_uid not in (0, os.geteuid()):
            raise GateError(f"{path.parent} belongs to another user", hint="look at what is in it, then remove it")
        journal = msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GateError(
            f"{path} cannot be understood: {error}",
            hint="it lists what an earlier gate moved; put that right by hand (`ip netns list`), then remove the file",
        ) from None
    if journal.format != FORMAT:
        raise GateError(f"{path} is of format {journal.format}, this version knows {FORMAT}")
    return journal


def remove(state: Path) -> None:
    """There is nothing left to undo."""
    (folder(state) / "journal.json").unlink(missing_ok=True)


def note_policy(state: Path, policy: Path) -> None:
    """Root says which policy is in force. Raises: GateError."""
    path = prepare_folder(state) / "policy"
    fresh = path.with_suffix(".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(os.fsencode(policy))
        fresh.replace(path)
    except OSError as error:
        raise GateError(f"cannot write {path}: {error.strerror}", hint="give another --state") from None


def noted_policy(state: Path) -> Path | None:
    """The policy in force by root's word; None where root has said nothing. Raises: GateError."""
    path = folder(state) / "policy"
    try:
        if path.parent.lstat().st_uid not in (0, os.geteuid()):
            raise GateError(f"{path.parent} belongs to another user", hint="look at what is in it, then remove it")
        return Path(os.fsdecode(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GateError(f"{path} cannot be read: {error.strerror}") from None


def forget_policy(state: Path) -> None:
    """No gate runs there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # whoever needs the folder says what is wrong
        (folder(state) / "policy").unlink()
