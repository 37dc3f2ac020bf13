"""The vendor of the filler's controller: its firmware, and signatures as minisign makes them.

Not here: who brings it in (maintenance).
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ME: Final = pwd.getpwuid(os.geteuid()).pw_name
"""By whom the gate sees what is done here: an approver as well, so that the play can show that it does not count."""
HOST: Final = "filler.example"
"""Its site."""


class Vendor:
    """Signs as minisign does: BLAKE2b of the file, and a trusted comment."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key) if key else Ed25519PrivateKey.generate()
        self.key = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self._public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._number = hashlib.sha256(self._public).digest()[:8]

    @property
    def public(self) -> str:
        line = base64.b64encode(b"Ed" + self._number + self._public).decode()
        return f"untrusted comment: the vendor's key\n{line}\n"

    def sign(self, data: bytes) -> str:
        value = self._key.sign(hashlib.blake2b(data).digest())
        comment = "firmware for filler-1"
        whole = self._key.sign(value + comment.encode())
        lines = (base64.b64encode(b"ED" + self._number + value).decode(), base64.b64encode(whole).decode())
        return f"untrusted comment: x\n{lines[0]}\ntrusted comment: {comment}\n{lines[1]}\n"


def firmware(version: str, *, good: bool = True) -> bytes:
    """A firmware for the controller."""
    return f"firmware {version} {'good' if good else 'broken'}\n".encode() + bytes(range(256)) * 200
