"""Co-signatures of witnesses under a checkpoint (C2SP tlog-cosignature, version 1: Ed25519).

A witness signs, with the time, that the log of this origin had this size and root, and that it went on from every head
that the witness had signed before. So two histories of one log never have the co-signature of one honest witness.

Not here: asking a witness (evidence.witness_ways); ML-DSA-44, which is refused by name.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cofferdam.audit.checkpoint import DASH, check_name
from cofferdam.errors import AuditError

COSIGNATURE: Final = b"\x04"
"""The signature type of a co-signature by Ed25519."""
ML_DSA: Final = b"\x06"
MOST_LINES: Final = 16
"""Lines of an answer that are looked at; a witness has one or two keys."""


class WitnessKey:
    """A witness's public key and name. `text` is the vkey form: NAME+ID+BASE64."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = check_name(name)
        self.public = public
        self.id = sha256(name.encode() + b"\n" + COSIGNATURE + public).digest()[:4]
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @property
    def text(self) -> str:
        """The key in vkey form."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(COSIGNATURE + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """A key from its vkey form. Raises: AuditError."""
        name, _, rest = text.strip().partition("+")
        identity, _, data = rest.partition("+")
        try:
            raw = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise AuditError("a witness's key is one line: NAME+8 HEX DIGITS+BASE64") from None
        if raw[:1] == ML_DSA:
            raise AuditError(
                "the witness's key is of ML-DSA-44, which cannot be checked here yet; take its Ed25519 key"
            )
        if raw[:1] != COSIGNATURE or len(raw) != 33:
            raise AuditError("that is no key of a witness: it has the type 04 and 32 bytes (C2SP tlog-cosignature)")
        key = cls(name, raw[1:])
        if key.id.hex() != identity:
            raise AuditError(f"the witness key's id {identity} does not belong to it: it was changed")
        return key

    def signed(self, text: str, line: str) -> int:
        """When (seconds since 1970) this key signed the note's `text` by this line; -1: it did not, or the line is of
        another key."""
        name, _, encoded = line.removeprefix(DASH).partition(" ")
        if not line.startswith(DASH) or name != self.name:
            return -1
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            return -1
        if len(raw) != 76 or raw[:4] != self.id or raw[4] & 0x80:
            return -1
        at = int.from_bytes(raw[4:12], "big")
        try:
            self._key.verify(raw[12:], message(at, text))
        except InvalidSignature:
            return -1
        return at


def message(at: int, text: str) -> bytes:
    """What a witness signs at a time (seconds since 1970): a head of its own, and the note's whole text."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def text_of(note: bytes) -> str:
    """The signed text of a note whose log's signature was looked at before. Raises: AuditError."""
    text, separator, _ = note.decode("utf-8", "replace").rpartition("\n\n")
    if not separator:
        raise AuditError("the signed note has no signatures")
    return text + "\n"


def cosigned(note: bytes, answer: bytes, key: WitnessKey) -> bytes:
    """The note with the co-signature of `key` that the answer holds, and no other line of it.

    Raises: AuditError: none of its lines is one.
    """
    text = text_of(note)
    for line in answer.decode("utf-8", "replace").splitlines()[:MOST_LINES]:
        if key.signed(text, line) >= 0:
            return note + line.encode() + b"\n"
    raise AuditError(
        f"what the witness answered has no co-signature of {key.name}+{key.id.hex()}: another key signed it"
    )


def signed_at(note: bytes, key: WitnessKey) -> int:
    """When this witness signed the note; -1 if it has not. Raises: AuditError."""
    lines = note.decode("utf-8", "replace").rpartition("\n\n")[2].splitlines()
    return max((key.signed(text_of(note), line) for line in lines), default=-1)
