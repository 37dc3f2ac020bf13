"""The security policies (OPC 10000-7, 6.6; OPC 10000-6, 6.7): keys, signatures, ciphers. The primitives are those of
`cryptography`; nothing here knows a socket, a clock or a peer.

Not here: chunks (channel), whom to trust (trust). ECC policies have their place in POLICIES and are not there yet.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

NONE_URI = "http://opcfoundation.org/UA/SecurityPolicy#None"
_BASE = "http://opcfoundation.org/UA/SecurityPolicy#"
SIGN, SIGN_AND_ENCRYPT = 2, 3
"""Message security modes; 1 is None."""
MAC_BYTES = 32
BLOCK = 16
LEAST_KEY_BITS, MOST_KEY_BITS = 2048, 4096
SEALED_BYTES = 2048
"""Of what is sealed to our key: an OPN with a signature of 4,096 bits, or a password."""


class SecurityError(Exception):
    """A signature, a padding or a key that is not right. One and the same for all causes: which it was helps an
    attacker alone."""


@dataclass(frozen=True)
class Policy:
    """One policy. `key`: bytes of the key that encrypts; `nonce`: of a nonce. `pss`, `oaep256`: which paddings."""

    name: str
    key: int = 0
    nonce: int = 0
    pss: bool = False
    oaep256: bool = False

    @property
    def uri(self) -> str:
        return _BASE + self.name

    @property
    def signature_uri(self) -> str:
        if self.pss:
            return "http://opcfoundation.org/UA/security/rsa-pss-sha2-256"
        return "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"

    @property
    def encryption_uri(self) -> str:
        if self.oaep256:
            return "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256"
        return "http://www.w3.org/2001/04/xmlenc#rsa-oaep"

    # --- asymmetric

    def sign(self, key: RSAPrivateKey, data: bytes) -> bytes:
        """The signature over `data`."""
        return key.sign(data, self._signing(), hashes.SHA256())

    def verify(self, key: RSAPublicKey, signature: bytes, data: bytes) -> None:
        """Raises: SecurityError where the signature is not that key's over `data`."""
        try:
            key.verify(signature, data, self._signing(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            raise SecurityError("the signature is wrong") from None

    def _signing(self) -> padding.PSS | padding.PKCS1v15:
        return padding.PSS(padding.MGF1(hashes.SHA256()), 32) if self.pss else padding.PKCS1v15()

    def _sealing(self) -> padding.OAEP:
        algorithm = hashes.SHA256() if self.oaep256 else hashes.SHA1()  # noqa: S303 - the policy says so
        return padding.OAEP(padding.MGF1(algorithm), algorithm, None)

    def room(self, bits: int) -> int:
        """Bytes of plain text in one block of a key of so many bits."""
        return bits // 8 - (66 if self.oaep256 else 42)

    def seal(self, key: RSAPublicKey, data: bytes) -> bytes:
        """`data` in blocks for that key's owner."""
        room = self.room(key.key_size)
        return b"".join(
            [key.encrypt(data[at : at + room], self._sealing()) for at in range(0, len(data), room)]
        )  # fmt: skip

    def unseal(self, key: RSAPrivateKey, data: bytes) -> bytes:
        """The other way. Raises: SecurityError."""
        size = key.key_size // 8
        # Each block is a private key's work, 0.7 to 5 ms: what is sealed to us honestly has four of 2,048 bits at most.
        if not data or len(data) % size or len(data) > SEALED_BYTES:
            raise SecurityError("no whole blocks, or more than any honest peer has")
        try:
            return b"".join(
                [key.decrypt(data[at : at + size], self._sealing()) for at in range(0, len(data), size)]
            )  # fmt: skip
        except ValueError:
            raise SecurityError("a block is not ours") from None


NONE = Policy("None")
POLICIES = {
    policy.name: policy
    for policy in (
        NONE,
        Policy("Basic256Sha256", 32, 32),
        Policy("Aes128_Sha256_RsaOaep", 16, 32),
        Policy("Aes256_Sha256_RsaPss", 32, 32, True, True),
    )
}
"""By name. Basic128Rsa15 and Basic256 are broken, and are not among them."""
BY_URI = {policy.uri: policy for policy in POLICIES.values()}


def derive(secret: bytes, seed: bytes, count: int) -> bytes:
    """P_SHA256 (OPC 10000-6, 6.7.5): so many bytes."""
    found = b""
    link = seed
    while len(found) < count:
        link = hmac.digest(secret, link, "sha256")
        found += hmac.digest(secret, link + seed, "sha256")
    return found[:count]


class Keys:
    """What one direction of a channel is secured with, for one token."""

    __slots__ = ("_cipher", "_mac", "encrypts")

    def __init__(self, policy: Policy, mode: int, secret: bytes, seed: bytes) -> None:
        made = derive(secret, seed, MAC_BYTES + policy.key + BLOCK)
        self._mac = HMAC(made[:MAC_BYTES], hashes.SHA256())
        self.encrypts = mode == SIGN_AND_ENCRYPT
        key, vector = made[MAC_BYTES : MAC_BYTES + policy.key], made[MAC_BYTES + policy.key :]
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(vector))  # the standard's: the same vector for each chunk

    def protect(self, head: bytes, plain: bytes) -> bytes:
        """The chunk of a header (16 bytes, with a size that is filled in here) and what follows it."""
        if self.encrypts:
            pad = -(len(plain) + 1 + MAC_BYTES) % BLOCK
            plain += bytes([pad]) * (pad + 1)
        size = len(head) + len(plain) + MAC_BYTES
        head = head[:4] + struct.pack("<I", size) + head[8:]
        mac = self._mac.copy()
        mac.update(head + plain)
        body = plain + mac.finalize()
        if self.encrypts:
            encryptor = self._cipher.encryptor()
            body = encryptor.update(body) + encryptor.finalize()
        return head + body

    def reveal(self, head: bytes, body: bytes) -> bytes:
        """What follows the header of a chunk, checked. Raises: SecurityError."""
        if self.encrypts:
            if not body or len(body) % BLOCK:
                raise SecurityError("no whole blocks")
            decryptor = self._cipher.decryptor()
            body = decryptor.update(body) + decryptor.finalize()
        if len(body) < MAC_BYTES + 8:
            raise SecurityError("too short")
        plain, given = body[:-MAC_BYTES], body[-MAC_BYTES:]
        mac = self._mac.copy()
        mac.update(head + plain)
        if not hmac.compare_digest(mac.finalize(), given):
            raise SecurityError("the signature is wrong")
        if self.encrypts:
            pad = plain[-1]
            if pad + 1 + 8 > len(plain) or plain[-pad - 1 :] != bytes([pad]) * (pad + 1):
                raise SecurityError("the padding is wrong")
            plain = plain[: -pad - 1]
        return plain


def leaf_of(chain: bytes) -> bytes:
    """The certificate (DER) with whose authorities a chain goes on; what is no certificate stays as it is."""
    if chain[:2] != b"\x30\x82":
        return chain
    return chain[: 4 + int.from_bytes(chain[2:4], "big")]


def thumbprint(certificate: bytes) -> bytes:
    """SHA-1 of a certificate (DER), by which the standard names it."""
    return hashlib.sha1(certificate, usedforsecurity=False).digest()


def asymmetric(
    policy: Policy, head: bytes, plain: bytes, signer: RSAPrivateKey, receiver: RSAPublicKey
) -> bytes:  # fmt: skip
    """An OPN chunk of its headers (the size is filled in here) and what follows, signed and sealed."""
    key_bytes = receiver.key_size // 8
    room = policy.room(receiver.key_size)
    signature_bytes = signer.key_size // 8
    extra = 1 if key_bytes > 256 else 0
    pad = -(len(plain) + 1 + extra + signature_bytes) % room
    plain += bytes([pad & 0xFF]) * (pad + 1)
    if extra:
        plain += bytes([pad >> 8])
    blocks = (len(plain) + signature_bytes) // room
    head = head[:4] + struct.pack("<I", len(head) + blocks * key_bytes) + head[8:]
    return head + policy.seal(receiver, plain + policy.sign(signer, head + plain))


def reveal_asymmetric(policy: Policy, head: bytes, body: bytes, key: RSAPrivateKey, signer: RSAPublicKey) -> bytes:
    """What follows the headers of an OPN chunk. Raises: SecurityError."""
    plain = policy.unseal(key, body)
    signature_bytes = signer.key_size // 8
    extra = 1 if key.key_size > 2048 else 0
    if len(plain) < signature_bytes + 9 + extra:
        raise SecurityError("too short")
    plain, signature = plain[:-signature_bytes], plain[-signature_bytes:]
    policy.verify(signer, signature, head + plain)
    if extra:
        low = plain[-2]
        pad = plain[-1] << 8 | low
        plain = plain[:-1]
    else:
        low = pad = plain[-1]
    if pad + 9 > len(plain) or plain[-pad - 1 :] != bytes([low]) * (pad + 1):
        raise SecurityError("the padding is wrong")
    return plain[: -pad - 1]
