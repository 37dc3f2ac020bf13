"""Who did what with which file, in the signed word of the part that saw them do it: whoever hands it on can keep it
back, and cannot make it say another name.

A part that vouches has a key of its own (the secret enforce.profile.VOUCH, the seed of an Ed25519 key, which the gate
makes); those who believe it get the public one by their control pipes. The gate vouches as well, for who asks it for
something, which the kernel tells it.

Not here: whose word counts for what (the broker), where keys lie (gate.secrets).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

HEARD: Final = "vouch-of-"
"""The kind of secret, before a part's name, that holds the public key of a part whose word is believed."""
_WHAT_IT_IS: Final = "cofferdam-vouch-1"
"""The first thing that is signed, so that no other signature by the same key can be taken for this."""


class Claim(Struct, frozen=True, forbid_unknown_fields=True):
    """A file, as somebody who asks the gate for something names it: what it is, and its hash."""

    what: Annotated[str, Meta(min_length=1, max_length=512)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Vouch(Struct, frozen=True, forbid_unknown_fields=True):
    """That `who` did something with a file at a time (UTC seconds). Which file is signed, and does not stand here:
    whoever checks it knows."""

    did: Annotated[str, Meta(min_length=1, max_length=32)]
    who: Annotated[str, Meta(min_length=1, max_length=128)]
    at: Annotated[int, Meta(ge=0, le=1 << 40)]
    signature: Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]


class Voucher:
    """One part's word. `seed`: its secret; `wall`: UTC ns."""

    def __init__(self, seed: bytes, wall: Callable[[], int]) -> None:
        """Raises: ValueError: that is no seed."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._wall = wall

    def say(self, did: str, who: str, what: str, sha256: str) -> Vouch:
        at = self._wall() // 1_000_000_000
        return Vouch(did, who, at, self._key.sign(_signed(did, who, at, what, sha256)).hex())


def public_of(seed: bytes) -> bytes:
    """The public key of a seed. Raises: ValueError: that is no seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def heard(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Public keys by the parts whose they are, of what a part is given."""
    return {name.removeprefix(HEARD): key for name, key in secrets.items() if name.startswith(HEARD)}


def is_genuine(vouch: Vouch, key: bytes | None, what: str, sha256: str) -> bool:
    """Whether the owner of this key says so of this file."""
    if key is None:
        return False
    try:
        signature = bytes.fromhex(vouch.signature)
        signed = _signed(vouch.did, vouch.who, vouch.at, what, sha256)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed(did: str, who: str, at: int, what: str, sha256: str) -> bytes:
    return msgspec.json.encode((_WHAT_IT_IS, did, who, at, what, sha256))
