"""Keys and seals: who is believed, without a word coming back.

The sending gate signs (Ed25519) the key of an epoch, sealed to the receiving gate's X25519 key. It says so again each
second, since nobody can ask for it. A receiver takes an epoch from a sender that it knows, and only one above all that
it has taken. Blocks are sealed by AES-256-GCM (ChaCha20-Poly1305 where the sender's processor has no AES) before they
are coded. The nonce is the kind and the block's number, which an epoch uses once.

Not here: files in which keys travel (pairing), what is in a block (blocks).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cofferdam.brokers.diode.wire import DIGESTS, HEAD, MAGIC
from cofferdam.errors import RemoteProtocolError

KEY: Final = 32
TAG: Final = 16
AES, CHACHA = 1, 2
_HELLO: Final = struct.Struct(">QBQ8s32s48s")
"""Epoch, cipher, the sender's clock, a name for the receiver's key, ephemeral key, sealed epoch key; then the
signature (64)."""
HELLO_BYTES: Final = _HELLO.size + 64
_DOMAIN: Final = b"cofferdam diode epoch v1\0"


def named(public: bytes) -> bytes:
    """Eight bytes that stand for a public key."""
    return hashlib.sha256(public).digest()[:8]


def has_aes() -> bool:
    """Whether this processor does AES by itself. To be asked before the filter closes."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return " aes" in text


class Seal:
    """One epoch's."""

    def __init__(self, epoch: int, cipher: int, key: bytes) -> None:
        self.epoch, self.cipher, self.key = epoch, cipher, key
        self._box: Any = AESGCM(key) if cipher == AES else ChaCha20Poly1305(key)

    def close(
        self, kind: int, block: int, k: int, m: int, size: int, text: bytes | memoryview, into: memoryview
    ) -> None:
        """Writes the sealed block, which is TAG bytes longer than its text, to where it is to lie; that may be where
        the text lies, from the same byte on. Blocks are large, and a copy of one costs as much as its seal."""
        self._box.encrypt_into(_nonce(kind, 0, block), text, self._more(kind, block, k, m, size), into)

    def open(self, kind: int, block: int, k: int, m: int, size: int, sealed: bytes | memoryview) -> bytes:
        """Raises: RemoteProtocolError, where the seal does not hold."""
        return self._open(_nonce(kind, 0, block), self._more(kind, block, k, m, size), sealed)

    def close_digests(self, kind: int, block: int, piece: int, k: int, m: int, digests: bytes) -> bytes:
        """A part of the list of a block's packets."""
        sealed: bytes = self._box.encrypt(
            _nonce(DIGESTS + kind, piece, block), digests, self._more(kind, block, k, m, piece)
        )
        return bytes([kind]) + sealed

    def open_digests(self, block: int, piece: int, k: int, m: int, body: bytes) -> tuple[int, bytes]:
        """(kind of the block, digests). Raises: RemoteProtocolError."""
        kind = body[0]
        if kind >= DIGESTS:
            raise RemoteProtocolError("digests of no class", section="diode")
        return kind, self._open(_nonce(DIGESTS + kind, piece, block), self._more(kind, block, k, m, piece), body[1:])

    def _more(self, kind: int, block: int, k: int, m: int, size: int) -> bytes:
        return HEAD.pack(MAGIC, kind, self.epoch, block, 0, k, m) + struct.pack(">H", size)

    def _open(self, nonce: bytes, more: bytes, sealed: bytes | memoryview) -> bytes:
        try:
            text: bytes = self._box.decrypt(nonce, sealed, more)
        except (InvalidTag, ValueError):
            raise RemoteProtocolError("the seal does not hold", section="diode") from None
        return text


def _nonce(kind: int, piece: int, block: int) -> bytes:
    return struct.pack(">BxHQ", kind, piece, block)


class Hello(NamedTuple):
    """An epoch that was announced by a sender that is known."""

    epoch: int
    wall_ns: int
    sender: bytes
    seal: Seal


def new_seal(epoch: int, *, aes: bool) -> Seal:
    """Of a new epoch."""
    return Seal(epoch, AES if aes else CHACHA, os.urandom(KEY))


def announce(seal: Seal, wall_ns: int, signers: Sequence[bytes], receivers: Sequence[bytes]) -> list[bytes]:
    """The announcements of an epoch: by each of our Ed25519 keys to each receiver's X25519 public key, of 32 bytes."""
    found = []
    for signer, receiver in itertools.product(signers, receivers):
        once = X25519PrivateKey.generate()
        shared = once.exchange(X25519PublicKey.from_public_bytes(receiver))
        sealed = ChaCha20Poly1305(_derive(shared, seal.epoch)).encrypt(bytes(12), seal.key, b"")
        public = once.public_key().public_bytes_raw()
        body = _HELLO.pack(seal.epoch, seal.cipher, wall_ns, named(receiver), public, sealed)
        found.append(body + Ed25519PrivateKey.from_private_bytes(signer).sign(_DOMAIN + body))
    return found


def believe(body: bytes, own: Mapping[bytes, bytes], senders: Mapping[bytes, int], now_ns: int) -> Hello | None:
    """An announcement by one of `senders` (public key -> until when, UTC ns) to one of our keys (`own`: the name of
    the public key -> private key). None: it is for another receiver, which the sender knows as well.

    Raises:
        RemoteProtocolError: it is none, or by nobody that is known.
    """
    if len(body) != HELLO_BYTES:
        raise RemoteProtocolError("an announcement of another length", section="diode")
    epoch, cipher, wall_ns, to, once, sealed = _HELLO.unpack_from(body)
    sender = next((key for key, until in senders.items() if now_ns < until and _signed(key, body)), None)
    if sender is None:
        raise RemoteProtocolError("an announcement by no sender that is known", section="diode")
    private = own.get(to)
    if private is None:
        return None
    if cipher not in (AES, CHACHA):
        raise RemoteProtocolError("an announcement with a cipher that is not known", section="diode")
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(once))
        key = ChaCha20Poly1305(_derive(shared, epoch)).decrypt(bytes(12), sealed, b"")
    except (InvalidTag, ValueError):
        raise RemoteProtocolError("an announcement whose key does not open", section="diode") from None
    return Hello(epoch, wall_ns, sender, Seal(epoch, cipher, key))


def _signed(key: bytes, body: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(body[_HELLO.size :], _DOMAIN + body[: _HELLO.size])
    except (InvalidSignature, ValueError):
        return False
    return True


def _derive(shared: bytes, epoch: int) -> bytes:
    return HKDF(hashes.SHA256(), KEY, None, _DOMAIN + struct.pack(">Q", epoch)).derive(shared)
