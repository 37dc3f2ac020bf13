"""Signatures that people make with their own OpenSSH keys: `ssh-keygen -Y sign`, checked here without a program.

The format is OpenSSH's PROTOCOL.sshsig: a blob with the public key, a namespace that says what the signature is for, a
hash algorithm and the signature. Keys may lie in a file, an agent or a security key (sk-*), for which a touch is asked.

Not here: which keys count (each broker).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from typing import Any, Final

import asyncssh

from cofferdam.errors import CofferdamError

MAGIC: Final = b"SSHSIG"
VERSION: Final = 1
BLOB_BYTES: Final = 16 << 10
"""The largest signature: one by RSA 16384 has about 5 KiB."""
_ARMOR: Final = re.compile(rb"\s*-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n\r]+)-----END SSH SIGNATURE-----\s*\Z")
_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_SIGNATURES: Final = {
    b"ssh-ed25519": b"ssh-ed25519",
    b"sk-ssh-ed25519@openssh.com": b"sk-ssh-ed25519@openssh.com",
    b"sk-ecdsa-sha2-nistp256@openssh.com": b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"ecdsa-sha2-nistp256": b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384": b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521": b"ecdsa-sha2-nistp521",
    b"ssh-rsa": b"rsa-sha2-512",
}
"""Types of keys, and the algorithm that their signatures must name: none with SHA-1."""


class SignatureRefused(CofferdamError):
    """A signature that is none, or does not hold."""


def read_key(text: str) -> tuple[bytes, str]:
    """A public key as a line of an .pub file has it: its blob and its comment. Raises: SignatureRefused."""
    words = text.strip().split(None, 2)
    try:
        blob = base64.b64decode(words[1], validate=True)
        kind = _Reader(blob).string()
    except (IndexError, binascii.Error, SignatureRefused):
        raise SignatureRefused("no OpenSSH public key", hint="a line such as `ssh-ed25519 AAAA... name`") from None
    if kind != words[0].encode() or kind not in _SIGNATURES:
        known = ", ".join(sorted(name.decode() for name in _SIGNATURES))
        raise SignatureRefused(f"a key of the type {words[0][:64]!r}", hint=f"one of {known}")
    _load(blob)
    return blob, words[2] if len(words) > 2 else ""


def write_key(blob: bytes) -> str:
    """A blob as `TYPE BASE64`."""
    return f"{_Reader(blob).string().decode()} {base64.b64encode(blob).decode()}"


def dearmor(text: bytes) -> bytes:
    """The blob of a signature as `ssh-keygen -Y sign` writes it. Raises: SignatureRefused."""
    found = _ARMOR.match(text) if len(text) <= 2 * BLOB_BYTES else None
    if found is None:
        raise SignatureRefused("no OpenSSH signature", hint="the file that `ssh-keygen -Y sign` wrote (NAME.sig)")
    try:
        return base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error:
        raise SignatureRefused("an OpenSSH signature that is damaged") from None


def signer(blob: bytes) -> bytes:
    """The public key that a signature says it is by. Raises: SignatureRefused."""
    return _parse(blob)[0]


def sign(key: Any, namespace: str, message: bytes) -> bytes:
    """A signature by a private key of asyncssh's, as a blob. For who has the key at hand; people use `ssh-keygen`."""
    said, algorithm = namespace.encode(), b"sha512"
    signed = MAGIC + b"".join(_pack(part) for part in (said, b"", algorithm, hashlib.sha512(message).digest()))
    kind = _SIGNATURES[_Reader(key.public_data).string()]
    parts = (key.public_data, said, b"", algorithm, key.sign(signed, kind))
    return MAGIC + struct.pack(">I", VERSION) + b"".join(map(_pack, parts))


def verify(blob: bytes, key: bytes, namespace: str, message: bytes) -> None:
    """Whether `blob` is a signature over `message`, made for `namespace` by the holder of `key` (a key's blob).

    Raises:
        SignatureRefused: it is not.
    """
    public, said, algorithm, signature = _parse(blob)
    if public != key:
        raise SignatureRefused("a signature by another key")
    if said != namespace.encode():
        raise SignatureRefused(f"a signature that was made for {said[:64]!r}, not for {namespace}")
    hashed = _HASHES[algorithm](message).digest()
    signed = MAGIC + b"".join(_pack(part) for part in (said, b"", algorithm, hashed))
    kind, named = _Reader(key).string(), _Reader(signature).string()
    if named != _SIGNATURES.get(kind):
        raise SignatureRefused(f"a signature by the algorithm {named[:64]!r}")
    try:
        good = _load(key).verify(signed, signature)
    except (asyncssh.Error, ValueError, struct.error, IndexError):
        good = False
    if not good:
        raise SignatureRefused("a signature that does not hold")


def _parse(blob: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """(public key, namespace, hash algorithm, signature)."""
    if len(blob) > BLOB_BYTES or not blob.startswith(MAGIC):
        raise SignatureRefused("no OpenSSH signature")
    reader = _Reader(blob[len(MAGIC) :])
    if reader.uint32() != VERSION:
        raise SignatureRefused("an OpenSSH signature of another version")
    public, namespace, reserved = reader.string(), reader.string(), reader.string()
    algorithm, signature = reader.string(), reader.string()
    if reader.left or reserved or algorithm not in _HASHES:
        raise SignatureRefused("an OpenSSH signature of an unknown form")
    return public, namespace, algorithm, signature


def _load(blob: bytes) -> Any:
    try:
        return asyncssh.public_key.decode_ssh_public_key(blob)
    except (asyncssh.Error, ValueError, struct.error, IndexError):
        raise SignatureRefused("an OpenSSH public key that is damaged") from None


def _pack(part: bytes) -> bytes:
    return struct.pack(">I", len(part)) + part


class _Reader:
    """SSH's strings and numbers, strictly."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def uint32(self) -> int:
        if self.left < 4:
            raise SignatureRefused("an OpenSSH signature that is cut short")
        self._at += 4
        return int.from_bytes(self._data[self._at - 4 : self._at], "big")

    def string(self) -> bytes:
        length = self.uint32()
        if length > self.left:
            raise SignatureRefused("an OpenSSH signature that is cut short")
        self._at += length
        return self._data[self._at - length : self._at]
