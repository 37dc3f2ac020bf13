"""The log's key on disk: made on first start, refused when others could read it.

The private key is one line in a file of mode 0600; the public key stands next to it in vkey form, in a file of the same
name that ends in ".pub".

Not here: what is signed (checkpoint, frames).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from cofferdam import owned
from cofferdam.audit.checkpoint import SignerKey, VerifierKey, check_name
from cofferdam.errors import AuditError


def public_path(key: Path) -> Path:
    """Where the public key stands."""
    return key.with_suffix(".pub")


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path` in one step, durable on return. Raises: OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # it would only keep room that is lacking
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def write_beside(path: Path, data: bytes, mode: int = 0o644) -> None:
    """As `write_file`, in a folder where others may write or another of us writes at the same time: what is there under
    any name is not opened. One that is ended in between leaves a hidden file.

    Raises:
        OSError: also where something else than a file is at `path`, such as a link.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "a link, or something else that is no file, is there")
    temporary = path.with_name(f".{path.name[:200]}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_key(name: str) -> SignerKey:
    """A new key, not stored yet."""
    return SignerKey(check_name(name), os.urandom(32))


def store_key(path: Path, key: SignerKey) -> None:
    """Write both files; the private one last, since its presence says that the log was begun. Raises: AuditError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(public_path(path), key.verifier.text.encode() + b"\n")
        write_file(path, key.secret_text().encode() + b"\n", 0o600)
    except OSError as error:
        raise AuditError(f"the audit key cannot be written to {path}: {error.strerror}") from error


def load_key(path: Path) -> SignerKey | None:
    """The stored key, or None if there is none. Raises: AuditError if it is damaged or others can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditError(f"the audit key {path} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise AuditError(f"the audit key {path} is not a file")
        if found.st_mode & 0o077:
            raise AuditError(
                f"the audit key {path} can be read or changed by others (mode {stat.S_IMODE(found.st_mode):04o})",
                hint=f"if nobody has taken it: chmod 600 {path}",
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise AuditError(f"the audit key {path} belongs to another user (uid {found.st_uid})")
        text = os.read(descriptor, 65536)
    finally:
        os.close(descriptor)
    try:
        key = SignerKey.parse(text.decode())
    except UnicodeDecodeError:
        raise AuditError(f"{path}: the audit key is damaged: not text") from None
    except AuditError as error:
        raise AuditError(f"{path}: {error}", hint="restore it from a backup") from None
    public = public_path(path)
    if not public.exists():
        store_key(path, key)
    elif load_public(public).text != key.verifier.text:
        raise AuditError(f"{public} is not the public half of {path}", hint=f"if {path} is right, remove {public}")
    return key


def load_public(path: Path) -> VerifierKey:
    """A public key from its file. Raises: AuditError."""
    return _load_public(path, Path.read_bytes)


def _load_public(path: Path, read: Callable[[Path], bytes]) -> VerifierKey:
    try:
        return VerifierKey.parse(read(path).decode())
    except FileNotFoundError as error:
        raise AuditError(f"there is no public key at {path}", hint="name one with --key") from error
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        hint = "run it as a user who may, or give a copy of the key with --key" if said != "it is no text" else ""
        raise AuditError(f"the public key {path} cannot be read: {said}", hint=hint) from error
    except AuditError as error:
        raise AuditError(f"{path}: {error}", hint=error.hint) from error


def find_public(named: str | None, default: Path) -> VerifierKey:
    """A public key as a user names it: a file, the key itself, or None for the one at `default`. Raises: AuditError."""
    if named is not None and "+" in named and not Path(named).exists():
        return VerifierKey.parse(named)
    return load_public(Path(named)) if named is not None else _load_public(default, owned.read)
