"""Proofs that stand on their own: a JSON document that anyone with the public key can check, without the log.

An inclusion proof shows that an entry is in the log at its place; a consistency proof that a log of a later checkpoint
still begins with the log of an earlier one.

Not here: the mathematics (tree), reading the log (files).
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec

from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.files import LogReader
from cofferdam.audit.tree import (
    EMPTY_ROOT,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_root,
)
from cofferdam.errors import AuditError


class Inclusion(msgspec.Struct, tag="cofferdam-inclusion-proof-v1", tag_field="proof", forbid_unknown_fields=True):
    """`entry` is the entry's exact text; `hashes` are base64, from the leaf up; `checkpoint` is the signed note."""

    index: int
    entry: str
    hashes: list[str]
    checkpoint: str
    key: str = ""


class Consistency(msgspec.Struct, tag="cofferdam-consistency-proof-v1", tag_field="proof", forbid_unknown_fields=True):
    """The tree of `size` entries with `root` (base64) is the beginning of the one in `checkpoint`."""

    size: int
    root: str
    hashes: list[str]
    checkpoint: str
    key: str = ""


class Checked(msgspec.Struct, frozen=True):
    """What a proof that holds shows."""

    kind: Literal["inclusion", "consistency"]
    index: int
    entry: str
    size: int
    root: bytes
    checkpoint: Checkpoint


def _text(hashes: list[bytes]) -> list[str]:
    return [base64.b64encode(digest).decode() for digest in hashes]


def _bytes(hashes: list[str]) -> list[bytes]:
    try:
        found = [base64.b64decode(text, validate=True) for text in hashes]
    except (ValueError, binascii.Error) as error:
        raise AuditError("the proof holds a hash that is not base64") from error
    if any(len(digest) != 32 for digest in found):
        raise AuditError("the proof holds a hash that is not 32 bytes long")
    return found


def prove_inclusion(reader: LogReader, index: int) -> Inclusion:
    """The proof for entry `index` under the log's checkpoint. Raises: AuditError if that does not cover it."""
    note = reader.checkpoint_note()
    size = open_checkpoint(note, reader.key).size
    if not 0 <= index < size:
        raise AuditError(
            f"there is no entry {index} under the checkpoint, which covers {size} entries",
            hint="while the gate runs, a checkpoint covers a new entry within about a second",
        )
    entry = next(data for _, data in reader.some([index], size))
    hashes = inclusion_proof(index, size, reader.hashes(size))
    return Inclusion(index, entry.decode(), _text(hashes), note.decode(), reader.key.text)


def prove_consistency(reader: LogReader, old: int, new: int | None = None) -> Consistency:
    """The proof that the log of `old` entries is the beginning of the checkpoint's. `new` must be the checkpoint's size
    if given: only that one is signed. Raises: AuditError."""
    note = reader.checkpoint_note()
    size = open_checkpoint(note, reader.key).size
    if new is not None and new != size:
        raise AuditError(f"the signed checkpoint covers {size} entries, not {new}", hint="give only the earlier size")
    read = reader.hashes(size)
    hashes = consistency_proof(old, size, read)
    root = range_root(0, old, read) if old else EMPTY_ROOT
    return Consistency(old, base64.b64encode(root).decode(), _text(hashes), note.decode(), reader.key.text)


def check_proof(data: bytes, key: VerifierKey) -> Checked:
    """Check a proof document against a public key that is trusted for other reasons than that the proof names it.

    Raises: AuditError if the proof does not hold."""
    try:
        proof = msgspec.json.decode(data, type=Inclusion | Consistency)
    except msgspec.MsgspecError as error:
        raise AuditError(f"not a proof: {error}") from error
    checkpoint = open_checkpoint(proof.checkpoint.encode(), key)
    hashes = _bytes(proof.hashes)
    if isinstance(proof, Inclusion):
        leaf = leaf_hash(proof.entry.encode())
        if not check_inclusion(leaf, proof.index, checkpoint.size, hashes, checkpoint.root):
            raise AuditError(f"the proof does not hold: entry {proof.index} of the log is not this one")
        return Checked("inclusion", proof.index, proof.entry, checkpoint.size, checkpoint.root, checkpoint)
    root = _bytes([proof.root])[0]
    if not check_consistency(proof.size, root, checkpoint.size, checkpoint.root, hashes):
        raise AuditError(f"the proof does not hold: the log does not begin with those {proof.size} entries")
    return Checked("consistency", -1, "", proof.size, root, checkpoint)
