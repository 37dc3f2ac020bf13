"""Checkpoints kept where the gate cannot change them: a folder on another machine or a stick.

Each visit leaves the log's signed checkpoint there, after the log has shown that it still begins with the one that was
left before. A log that was put back to an earlier state, or written anew, is found, and nothing is overwritten.

Not here: co-signatures of a witness that answers by itself.
"""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import NamedTuple

from cofferdam.audit.checkpoint import open_checkpoint
from cofferdam.audit.files import LogReader
from cofferdam.audit.keys import write_file
from cofferdam.audit.proof import prove_consistency
from cofferdam.audit.tree import WIDTH, check_consistency
from cofferdam.errors import AuditError, CofferdamError

LAST = "checkpoint"
"""The newest; those before it stand beside it by their size."""
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
    if not folder.is_dir():
        raise CofferdamError(f"{folder} is not a folder", hint="mount what keeps the checkpoints, or make it")
    note = reader.checkpoint_note()
    now = open_checkpoint(note, reader.key)
    before = -1
    try:
        old = (folder / LAST).read_bytes()
    except FileNotFoundError:
        old = b""
    except OSError as error:
        raise CofferdamError(f"{folder / LAST} cannot be read: {error.strerror}") from None
    if old:
        kept = open_checkpoint(old, reader.key)
        before = kept.size
        if kept.size > now.size:
            raise AuditError(
                f"the log has {now.size} entries under its checkpoint, and had {kept.size}: it was put back or cut",
                hint="`cofferdam audit verify --checkpoint` says more; keep what is in the folder",
            )
        if kept.size == now.size:
            good = kept.root == now.root
        elif kept.size < (first := reader.first()) and kept.size % WIDTH:
            raise CofferdamError(
                f"{folder} was visited last at {kept.size} entries, and the log keeps none below {first} any more: "
                "nobody can tell whether it still begins with those",
                hint="visit it more often than the log drops entries; to begin anew, move its files away",
            )
        else:
            proof = prove_consistency(reader, kept.size)
            path = [b64decode(one) for one in proof.hashes]
            # The checkpoint of the proof, which may be newer than the one that was read above.
            newer = open_checkpoint(proof.checkpoint.encode(), reader.key)
            note, now = proof.checkpoint.encode(), newer
            good = check_consistency(kept.size, kept.root, newer.size, newer.root, path)
        if not good:
            raise AuditError(
                f"the log's first {kept.size} entries are not those that were kept: it was written anew",
                hint="keep what is in the folder: it shows that there were two logs",
            )
    try:
        write_file(folder / str(now.size), note)
        write_file(folder / LAST, note)
    except OSError as error:
        raise CofferdamError(f"{folder} cannot be written: {error.strerror}") from None
    return Kept(now.size, before)
