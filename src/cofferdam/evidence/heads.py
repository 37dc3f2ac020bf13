"""Whether a head of the log may be given out: only if it goes on from the one that was given out before.

Not here: who keeps heads (witness_ways), a folder or stick by hand (witness).
"""

from __future__ import annotations

from collections.abc import Sequence

from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.tree import check_consistency
from cofferdam.errors import AuditError


def went_on(before: Checkpoint, note: bytes, hashes: Sequence[bytes], key: VerifierKey) -> Checkpoint:
    """The head in `note`, which goes on from `before` by these hashes.

    Raises:
        AuditError: it is signed by another key, is older, or is of a log that was written anew.
    """
    now = open_checkpoint(note, key)
    older(before.size, now.size)
    same = now.size == before.size and now.root == before.root
    if not same and not check_consistency(before.size, before.root, now.size, now.root, hashes):
        raise forked(before.size)
    return now


def older(before: int, now: int) -> None:
    """Raises: AuditError, where the log is shorter than it was."""
    if before > now:
        raise AuditError(
            f"the log has {now} entries under its checkpoint, and had {before}: it was put back or cut",
            hint="`cofferdam audit verify --witness` says more; keep what the witness has",
        )


def forked(before: int) -> AuditError:
    return AuditError(
        f"the log's first {before} entries are not those that were kept: it was written anew",
        hint="keep what the witness has: it shows that there were two logs",
    )
