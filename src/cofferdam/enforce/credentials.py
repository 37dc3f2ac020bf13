"""Secrets that the gate is given when it starts, in place of files in the state directory: credentials of systemd's
(`LoadCredentialEncrypted=` in the unit), which lie sealed by a TPM, or by the machine's own key, and are opened for the
unit alone.

The launcher, which may read them, hands them to the gate by a file in memory: no environment has them, and no disk.

Not here: which part gets which (gate.secrets).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cofferdam.errors import GateError

CREDENTIALS: Final = "cofferdam"
"""The first word of their names, up to a dot."""
DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""The variable by which systemd says where they are."""
BYTES_MOST: Final = 64 << 10
"""Of one."""


def read() -> dict[str, bytes]:
    """Those of this unit that are ours, by name. Raises: GateError: one cannot be read."""
    folder = os.environ.get(DIRECTORY, "")
    found = {}
    try:
        for path in sorted(Path(folder).glob(f"{CREDENTIALS}.*")) if folder else ():
            with open(path, "rb", opener=_opened) as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
                    raise GateError(
                        f"the credential {path} is no file, or is another user's or one that others may change",
                        hint=f"{DIRECTORY} is systemd's to set: has somebody else set it?",
                    )
                found[path.name] = file.read(BYTES_MOST + 1)
            if len(found[path.name]) > BYTES_MOST:
                raise GateError(f"the credential {path} has more than {BYTES_MOST} bytes")
    except OSError as error:
        raise GateError(
            f"a credential in {folder} cannot be read: {error.strerror or error}",
            hint="what LoadCredentialEncrypted= of the unit names",
        ) from None
    return found


def _opened(path: str, flags: int) -> int:
    """A pipe of somebody's is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextlib.contextmanager
def handed(number: int) -> Iterator[tuple[list[str], list[int]]]:
    """(arguments, descriptors) by which one who is started within gets them; `number`: what the descriptor is there.
    Raises: GateError: one cannot be read."""
    given = read()
    if not given:
        yield [], []
        return
    fd = os.memfd_create("credentials", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(json.dumps({name: value.hex() for name, value in given.items()}).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        yield ["--credentials", str(number)], [fd]
    finally:
        os.close(fd)


def take(fd: int) -> dict[str, bytes]:
    """What was handed over; -1: nothing."""
    if fd < 0:
        return {}
    with os.fdopen(fd, "rb") as file:
        return {name: bytes.fromhex(value) for name, value in json.load(file).items()}
