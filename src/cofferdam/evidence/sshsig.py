"""SSH signatures over files (OpenSSH's PROTOCOL.sshsig), checked here and made by `ssh-keygen -Y sign`.

Keys of people stay where they are: in an agent, in a hardware key, in a file with a passphrase. Ed25519, ECDSA, RSA and
the hardware forms of the first two are known; a DSA key signs nothing.

Not here: who may sign (attest), running ssh-keygen (the verb).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from cofferdam.errors import CofferdamError

MAGIC = b"SSHSIG"
NAMESPACE = "attestation@cofferdam"
"""What our signatures are for: one that was made for anything else (git, a file) counts for nothing here."""
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
MAX_BYTES = 8192
HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
PLAIN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
KINDS = (*PLAIN, SK_ED25519, SK_ECDSA)
LEAST_RSA_BITS = 2048
USER_PRESENT = 1


class SignatureError(CofferdamError):
    """It is no SSH signature, or not this key's over this text."""


class Signature(NamedTuple):
    """What a signature says of itself. `key` is the public key's blob."""

    key: bytes
    namespace: str
    hash: str
    blob: bytes


class _Reader:
    """Fields of the SSH wire format (RFC 4251, section 5)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def raw(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise SignatureError("it is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def string(self) -> bytes:
        return self.raw(int.from_bytes(self.raw(4), "big"))

    def end(self) -> None:
        if self.at != len(self.data):
            raise SignatureError("bytes are left over")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def key_line(text: str) -> str:
    """A public key in the form "KIND BASE64", from a line of a .pub file. Raises: SignatureError."""
    words = text.split()
    at = next((n for n, word in enumerate(words) if word in KINDS), -1)
    if at < 0 or at + 1 >= len(words):
        raise SignatureError("it is no public SSH key of a kind that may sign", hint=f"kinds: {', '.join(KINDS)}")
    kind, encoded = words[at], words[at + 1]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise SignatureError("the public key is not base64") from None
    if _Reader(blob).string() != kind.encode():
        raise SignatureError("the public key is not of the kind that it says")
    if kind == "ssh-rsa":
        loaded = _load(f"{kind} {encoded}")
        if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size < LEAST_RSA_BITS:
            raise SignatureError(f"an RSA key of {loaded.key_size} bits is too short")
    return f"{kind} {encoded}"


def fingerprint(key: str) -> str:
    """As ssh-keygen -l shows it."""
    blob = base64.b64decode(key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse(text: str) -> Signature:
    """A signature from its armour. Raises: SignatureError."""
    if len(text) > MAX_BYTES:
        raise SignatureError("it is too long")
    found = re.fullmatch(rf"\s*{BEGIN}\s+([A-Za-z0-9+/=\s]+?)\s*{END}\s*", text)
    if found is None:
        raise SignatureError("it is not in the armour of an SSH signature")
    try:
        data = base64.b64decode("".join(found[1].split()), validate=True)
    except (ValueError, binascii.Error):
        raise SignatureError("it is not base64") from None
    reader = _Reader(data)
    if reader.raw(6) != MAGIC or int.from_bytes(reader.raw(4), "big") != 1:
        raise SignatureError("it is no SSH signature of version 1")
    key, namespace, reserved, kind, blob = (reader.string() for _ in range(5))
    reader.end()
    if reserved:
        raise SignatureError("its reserved field is not empty")
    try:
        return Signature(key, namespace.decode(), kind.decode("ascii"), blob)
    except UnicodeDecodeError:
        raise SignatureError("its namespace is no text") from None


def verify(text: str, message: bytes, key: str, namespace: str = NAMESPACE) -> None:
    """Whether `text` is `key`'s signature over `message`. Raises: SignatureError, with what is wrong."""
    found = parse(text)
    kind, encoded = key.split()[:2]
    if found.key != base64.b64decode(encoded):
        raise SignatureError("another key made the signature")
    if found.namespace != namespace:
        raise SignatureError(f"the signature is for {found.namespace!r} and not for {namespace!r}")
    if found.hash not in HASHES:
        raise SignatureError(f"its hash is {found.hash!r}")
    inner = HASHES[found.hash](message).digest()
    signed = MAGIC + _string(namespace.encode()) + _string(b"") + _string(found.hash.encode()) + _string(inner)
    try:
        _check(kind, key, _Reader(found.blob), signed)
    except InvalidSignature:
        raise SignatureError("the signature does not fit the text: one of them was changed") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"the signature cannot be checked: {error}") from None


def _check(kind: str, key: str, blob: _Reader, signed: bytes) -> None:
    made_by = blob.string().decode("ascii", "replace")
    raw = blob.string()
    if kind in (SK_ED25519, SK_ECDSA):
        if made_by != kind:
            raise SignatureError(f"the signature is of the kind {made_by}")
        flags, counter = blob.raw(1), blob.raw(4)
        public = _Reader(base64.b64decode(key.split()[1]))
        public.string()
        curve = public.string() if kind == SK_ECDSA else b""
        point, application = public.string(), public.string()
        if not flags[0] & USER_PRESENT:
            raise SignatureError("nobody touched the hardware key")
        signed = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(signed).digest()
        blob.end()
        if kind == SK_ED25519:
            Ed25519PublicKey.from_public_bytes(point).verify(raw, signed)
            return
        if curve != b"nistp256":
            raise SignatureError("the hardware key is of another curve")
        _ecdsa(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point), raw, signed)
        return
    blob.end()
    loaded = _load(key)
    if isinstance(loaded, Ed25519PublicKey) and made_by == "ssh-ed25519":
        loaded.verify(raw, signed)
    elif isinstance(loaded, ec.EllipticCurvePublicKey) and made_by == kind:
        _ecdsa(loaded, raw, signed)
    elif isinstance(loaded, rsa.RSAPublicKey) and made_by in ("rsa-sha2-256", "rsa-sha2-512"):
        used = hashes.SHA256() if made_by == "rsa-sha2-256" else hashes.SHA512()
        loaded.verify(raw, signed, padding.PKCS1v15(), used)
    else:
        raise SignatureError(f"the signature is of the kind {made_by}")


def _ecdsa(key: ec.EllipticCurvePublicKey, raw: bytes, signed: bytes) -> None:
    numbers = _Reader(raw)
    r, s = (int.from_bytes(numbers.string(), "big") for _ in range(2))
    numbers.end()
    sizes = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(sizes[key.curve.key_size]))


def _load(key: str) -> object:
    try:
        return load_ssh_public_key(key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"the public key cannot be read: {error}") from None
