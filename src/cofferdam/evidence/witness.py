"""Checkpoints kept where the gate cannot change them, by hand: a folder on another machine or a stick.

Each visit leaves the log's signed checkpoint there, after the log has shown that it still begins with the one that was
left before. A log that was put back to an earlier state, or written anew, is found, and nothing is overwritten.

Not here: those whom the gate visits by itself, each minute (witness_ways).
"""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import NamedTuple

from cofferdam import owned
from cofferdam.audit.checkpoint import Checkpoint, open_checkpoint
from cofferdam.audit.files import LogReader
from cofferdam.audit.keys import write_beside
from cofferdam.audit.proof import prove_consistency
from cofferdam.audit.tree import WIDTH
from cofferdam.errors import CofferdamError
from cofferdam.evidence.heads import older, went_on
from cofferdam.evidence.witness_ways import LAST

COLLECTOR = "witness:"
"""Before the folder's name, in the entries that say how it stands."""


class Kept(NamedTuple):
    """What was kept. `before`: the size of the checkpoint that was there, -1 if there was none."""

    size: int
    before: int


def keep(reader: LogReader, folder: Path) -> Kept:
    """Leaves the log's checkpoint in the folder.

    Raises:
        AuditError: the log does not begin with what was left there before; nothing was changed.
        CofferdamError: the folder cannot be read or written.
    """
    old = _left(folder)
    before = open_checkpoint(old, reader.key) if old else None
    note = reader.checkpoint_note() if before is None else _goes_on(reader, folder, before)
    now = open_checkpoint(note, reader.key)
    try:
        write_beside(folder / str(now.size), note)
        write_beside(folder / LAST, note)
    except OSError as error:
        raise CofferdamError(f"{folder} cannot be written: {error.strerror}") from None
    return Kept(now.size, before.size if before is not None else -1)


def look(reader: LogReader, folder: Path) -> int:
    """The size of the checkpoint that was left there, from which the log goes on. Raises: as `keep`."""
    old = _left(folder)
    if not old:
        raise CofferdamError(f"{folder} has no checkpoint")
    before = open_checkpoint(old, reader.key)
    _goes_on(reader, folder, before)
    return before.size


def _left(folder: Path) -> bytes:
    if not folder.is_dir():
        raise CofferdamError(f"{folder} is not a folder", hint="mount what keeps the checkpoints, or make it")
    try:
        return owned.read(folder / LAST)  # somebody else's folder: no link is followed, no pipe waited for
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CofferdamError(f"{folder / LAST} cannot be read: {error.strerror}") from None


def _goes_on(reader: LogReader, folder: Path, before: Checkpoint) -> bytes:
    """The log's signed checkpoint, which goes on from the one that was left."""
    note = reader.checkpoint_note()
    now = open_checkpoint(note, reader.key)
    older(before.size, now.size)
    if before.size == now.size:
        went_on(before, note, (), reader.key)
        return note
    if before.size < (first := reader.first()) and before.size % WIDTH:
        raise CofferdamError(
            f"{folder} was visited last at {before.size} entries, and the log keeps none below {first} any more: "
            "nobody can tell whether it still begins with those",
            hint="visit it more often than the log drops entries; to begin anew, move its files away",
        )
    proof = prove_consistency(reader, before.size)  # under the checkpoint of the proof, which may be newer
    note = proof.checkpoint.encode()
    went_on(before, note, [b64decode(one) for one in proof.hashes], reader.key)
    return note
