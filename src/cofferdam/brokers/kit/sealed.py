"""What a store keeps sealed, by a key that the gate hands to its keeper (gate.secrets) and that does not lie beside it:
AES-256-GCM under a key that is derived for this use (HKDF-SHA-256), so that one secret may serve several.

A sealed value is bound to what it is and whose: one that was moved to another row, or changed, does not open. Values
are padded, so that the length of a password is not told either.

    value   nonce (12 bytes), then ciphertext and tag of: length (4 bytes), value, zeros up to a multiple of PAD

Not here: files, which are sealed in pieces (patch.sealing); where keys lie (gate.secrets).
"""

from __future__ import annotations

import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cofferdam.errors import GateError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
PAD: Final = 64
_LENGTH: Final = 4


class NotOpened(GateError):
    """A value that was sealed by another key, for another place, or was changed since."""


def derived(key: bytes, salt: bytes, use: bytes) -> bytes:
    """A key of its own for this salt and use."""
    return HKDF(SHA256(), KEY_BYTES, salt, use).derive(key)


def cipher(key: bytes, salt: bytes, use: bytes) -> AESGCM:
    """By a key of its own for this salt and use."""
    return AESGCM(derived(key, salt, use))


class Sealed:
    """Seals and opens values of one store."""

    def __init__(self, key: bytes, use: bytes) -> None:
        self._cipher = cipher(key, b"", use)

    def close(self, value: bytes, *what: str) -> bytes:
        """A value sealed, for the place that `what` names."""
        nonce = os.urandom(NONCE_BYTES)
        plain = len(value).to_bytes(_LENGTH, "big") + value
        plain += bytes(-len(plain) % PAD)
        return nonce + self._cipher.encrypt(nonce, plain, _place(what))

    def open(self, sealed: bytes, *what: str) -> bytes:
        """Raises: NotOpened."""
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _place(what))
        except (InvalidTag, ValueError):
            raise NotOpened(
                f"the {' '.join(what)} in the store was sealed by another key, moved here or changed",
                hint="set it anew, or bring back a backup of store and key",
            ) from None
        return plain[_LENGTH : _LENGTH + int.from_bytes(plain[:_LENGTH], "big")]


def _place(what: tuple[str, ...]) -> bytes:
    return msgspec.json.encode(what)
