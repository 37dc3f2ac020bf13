"""Signed statements about the tree: C2SP tlog-checkpoint in a C2SP signed-note, with Ed25519 keys.

A checkpoint says: "the log named ORIGIN has SIZE entries and this root hash". Whoever keeps a copy of one can later
have it proven that the log still begins with the same entries.

Not here: key files (keys), when a checkpoint is made (log).
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cofferdam.errors import AuditError

ED25519 = b"\x01"
"""The signature type of C2SP signed-note."""
MAX_NOTE_BYTES = 64 * 1024
"""A longer note is refused unread."""
DASH = "\u2014 "


def check_name(name: str) -> str:
    """A key name or origin. Raises: AuditError if it is empty or has spaces, a plus or control characters."""
    if not name or "+" in name or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise AuditError(f"{name!r} cannot name a log: a name has no spaces, plus signs or control characters")
    return name


def key_id(name: str, public: bytes) -> bytes:
    """The four bytes that tell keys of one name apart (C2SP signed-note, Ed25519 signatures)."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _b64(text: str) -> bytes:
    """Standard base64, in its one canonical form. Raises: ValueError."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 that is not in canonical form")
    return data


class VerifierKey:
    """A public key and the name it signs under. `text` is the vkey form: NAME+ID+BASE64."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = check_name(name)
        self.public = public
        self.id = key_id(name, public)
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @property
    def text(self) -> str:
        """The key in vkey form."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A key from its vkey form. Raises: AuditError."""
        name, _, rest = text.strip().partition("+")
        identity, _, data = rest.partition("+")
        try:
            raw = _b64(data)
            if raw[:1] != ED25519 or len(raw) != 33:
                raise ValueError("no Ed25519 key")
            key = cls(name, raw[1:])
        except (ValueError, binascii.Error) as error:
            raise AuditError(
                f"not a verifier key: {error}", hint="a verifier key is one line: NAME+8 HEX DIGITS+BASE64"
            ) from error
        if key.id.hex() != identity:
            raise AuditError(f"the verifier key's id {identity} does not belong to it: it was changed")
        return key

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Is `signature` this key's over `message`?"""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SignerKey:
    """A private key and the name it signs under. Prints as <secret>."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = check_name(name)
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(name, self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SignerKey({self.name!r}, <secret>)"

    def secret_text(self) -> str:
        """The private key in the form of a key file: PRIVATE+KEY+NAME+ID+BASE64."""
        data = base64.b64encode(ED25519 + self._seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.id.hex()}+{data}"

    @classmethod
    def parse(cls, text: str) -> SignerKey:
        """A key from a key file's text. Raises: AuditError, which never quotes the text."""
        parts = text.strip().split("+", 4)
        try:
            if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
                raise ValueError("not in the form of a private key")
            raw = _b64(parts[4])
            if raw[:1] != ED25519 or len(raw) != 33:
                raise ValueError("no Ed25519 key")
            key = cls(parts[2], raw[1:])
        except (ValueError, binascii.Error) as error:
            raise AuditError(f"the audit key is damaged: {error}") from None
        if key.verifier.id.hex() != parts[3]:
            raise AuditError("the audit key is damaged: its id does not belong to it")
        return key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) over `message`."""
        return self._key.sign(message)


class Checkpoint(msgspec.Struct, frozen=True):
    """What a checkpoint says. `root` is 32 bytes."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text (C2SP tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign_note(text: str, key: SignerKey) -> bytes:
    """A signed note of `text`, which ends in a newline."""
    signature = base64.b64encode(key.verifier.id + key.sign(text.encode())).decode()
    return f"{text}\n{DASH}{key.name} {signature}\n".encode()


def sign_checkpoint(checkpoint: Checkpoint, key: SignerKey) -> bytes:
    """A checkpoint as it is stored and published."""
    return sign_note(checkpoint.text(), key)


def open_note(data: bytes, key: VerifierKey) -> str:
    """The text of a signed note. Raises: AuditError if it is malformed or `key` has not signed it.

    Signatures of other keys (witnesses) are left unread, as the specification asks.
    """
    try:
        note = data.decode() if len(data) <= MAX_NOTE_BYTES else ""
    except UnicodeDecodeError as error:
        raise AuditError("the signed note is not UTF-8") from error
    if any(ord(letter) < 32 and letter != "\n" for letter in note):
        raise AuditError("the signed note holds control characters")
    text, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise AuditError("the signed note has no signatures, or is cut short")
    text += "\n"
    signed = False
    for line in tail[:-1].split("\n"):
        if not line.startswith(DASH):
            raise AuditError("a line among the signatures of the signed note is not a signature")
        name, _, encoded = line.removeprefix(DASH).partition(" ")
        try:
            raw = _b64(encoded)
        except (ValueError, binascii.Error) as error:
            raise AuditError("a signature of the signed note is not base64") from error
        if len(raw) < 5 or not name:
            raise AuditError("a signature of the signed note is cut short")
        if name == key.name and raw[:4] == key.id:
            if not key.verify(text.encode(), raw[4:]):
                raise AuditError(f"the signature of {key.name} does not fit the text: one of them was changed")
            signed = True
    if not signed:
        raise AuditError(f"the key {key.name}+{key.id.hex()} has not signed this")
    return text


def open_checkpoint(data: bytes, key: VerifierKey) -> Checkpoint:
    """A checkpoint that `key` has signed. Raises: AuditError."""
    found = _parsed(open_note(data, key))
    if found.origin != key.name:
        raise AuditError(f"the checkpoint is of the log {found.origin!r}, the key of {key.name!r}")
    return found


def claimed_checkpoint(data: bytes) -> Checkpoint:
    """What a checkpoint says, whoever has signed it: for those who have no key, and believe nothing of it.

    Raises: AuditError, if it is none."""
    try:
        text = data.decode() if len(data) <= MAX_NOTE_BYTES else ""
    except UnicodeDecodeError as error:
        raise AuditError("the signed note is not UTF-8") from error
    return _parsed(text.rpartition("\n\n")[0] + "\n")


def _parsed(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or any(not line for line in lines[:-1]):
        raise AuditError("the checkpoint lacks the three lines origin, size and root")
    origin, size, root = lines[:3]
    try:
        count = int(size)
        raw = _b64(root)
        if str(count) != size or count < 0 or len(raw) != 32:
            raise ValueError("size or root")
    except (ValueError, binascii.Error) as error:
        raise AuditError(f"the checkpoint is malformed: {error}") from error
    return Checkpoint(origin, count, raw)
