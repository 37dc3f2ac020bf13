"""Signatures that people make with their own OpenSSH keys: `ssh-keygen -Y sign`, checked here without a program.

The format is OpenSSH's PROTOCOL.sshsig: a blob with the public key, a namespace that says what the signature is for, a
hash algorithm and the signature. Keys may lie in a file, an agent or a security key (sk-*), for which a touch is asked.

The one implementation: approvals of files and attestations stand on it. It needs no library but cryptography.

Not here: which keys count (each broker, evidence).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from cofferdam.errors import CofferdamError

MAGIC: Final = b"SSHSIG"
VERSION: Final = 1
APPROVAL: Final = "cofferdam-approval"
"""The namespace of all that people approve by a signature."""
BLOB_BYTES: Final = 16 << 10
"""The largest signature: one by RSA 16384 has about 5 KiB."""
_ARMOR: Final = re.compile(rb"\s*-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n\r]+)-----END SSH SIGNATURE-----\s*\Z")
_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_SK_ED25519: Final = b"sk-ssh-ed25519@openssh.com"
_SK_ECDSA: Final = b"sk-ecdsa-sha2-nistp256@openssh.com"
_SIGNATURES: Final = {
    b"ssh-ed25519": (b"ssh-ed25519",),
    _SK_ED25519: (_SK_ED25519,),
    _SK_ECDSA: (_SK_ECDSA,),
    b"ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    b"ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    b"ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    b"ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256"),
}
"""Types of keys, and the algorithms that their signatures may name: none with SHA-1."""
KINDS: Final = tuple(kind.decode() for kind in _SIGNATURES)
LEAST_RSA_BITS: Final = 2048
_USER_PRESENT: Final = 1


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
    kind = _SIGNATURES[_Reader(key.public_data).string()][0]
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
        text = said[:64].decode("utf-8", "replace")
        raise SignatureRefused(f"the signature is for {text!r} and not for {namespace!r}")
    hashed = _HASHES[algorithm](message).digest()
    signed = MAGIC + b"".join(_pack(part) for part in (said, b"", algorithm, hashed))
    try:
        _check(key, signature, signed)
    except InvalidSignature:
        raise SignatureRefused("a signature that does not hold: it does not fit the text") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureRefused(f"a signature that cannot be checked: {error}") from None


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _check(key: bytes, signature: bytes, signed: bytes) -> None:
    """Raises: InvalidSignature, SignatureRefused, ValueError, UnsupportedAlgorithm."""
    loaded, blob = _load(key), _Reader(signature)
    kind, named, raw = _Reader(key).string(), blob.string(), blob.string()
    if named not in _SIGNATURES.get(kind, ()):
        raise SignatureRefused(f"a signature by the algorithm {named[:64]!r}")
    if kind in (_SK_ED25519, _SK_ECDSA):
        flags, counter = blob.raw(1), blob.raw(4)
        if not flags[0] & _USER_PRESENT:
            raise SignatureRefused("nobody touched the security key")
        application = _security_key(key)[1]
        signed = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(signed).digest()
    if blob.left:
        raise SignatureRefused("an OpenSSH signature of an unknown form")
    if isinstance(loaded, Ed25519PublicKey):
        loaded.verify(raw, signed)
    elif isinstance(loaded, ec.EllipticCurvePublicKey):
        numbers = _Reader(raw)
        r, s = (int.from_bytes(numbers.string(), "big") for _ in range(2))
        if numbers.left:
            raise SignatureRefused("an OpenSSH signature of an unknown form")
        sizes = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        loaded.verify(encode_dss_signature(r, s), signed, ec.ECDSA(sizes[loaded.curve.key_size]))
    else:
        used = hashes.SHA256() if named == b"rsa-sha2-256" else hashes.SHA512()
        loaded.verify(raw, signed, padding.PKCS1v15(), used)


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


def _security_key(key: bytes) -> tuple[bytes, bytes]:
    """(point, application) of a security key's public key."""
    reader = _Reader(key)
    kind = reader.string()
    if kind == _SK_ECDSA and reader.string() != b"nistp256":
        raise SignatureRefused("a security key of another curve")
    point, application = reader.string(), reader.string()
    if reader.left:
        raise SignatureRefused("an OpenSSH public key that is damaged")
    return point, application


def _load(blob: bytes) -> Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Raises: SignatureRefused."""
    kind = _Reader(blob).string()
    try:
        if kind == _SK_ED25519:
            return Ed25519PublicKey.from_public_bytes(_security_key(blob)[0])
        if kind == _SK_ECDSA:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _security_key(blob)[0])
        found = load_ssh_public_key(kind + b" " + base64.b64encode(blob))
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureRefused("an OpenSSH public key that is damaged") from None
    if not isinstance(found, (Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise SignatureRefused(f"a key of the type {kind[:64]!r}")
    if isinstance(found, rsa.RSAPublicKey) and found.key_size < LEAST_RSA_BITS:
        raise SignatureRefused(f"an RSA key of {found.key_size} bits is too short")
    return found


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

    def raw(self, count: int) -> bytes:
        if self.left < count:
            raise SignatureRefused("an OpenSSH signature that is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def uint32(self) -> int:
        return int.from_bytes(self.raw(4), "big")

    def string(self) -> bytes:
        return self.raw(self.uint32())
