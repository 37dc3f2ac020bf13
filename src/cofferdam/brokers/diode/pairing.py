"""How the two ends of a strand come to know each other: a small file for each, carried by a person.

Nothing comes back over the strand, so nothing is negotiated. Each end makes its keys once; the file for the other end
has the public ones. Both screens show them as words, and a person compares them.

    inside                       outside
    signs epochs (Ed25519)  ->   knows who may announce one
    seals to              <-     opens (X25519)
    knows whose tickets   <-     signs tickets (Ed25519)

Keys of the other end have a last day, so that an old one stays good while a new one is brought in.

Not here: where the files of the state folder are (cli.diode_pair), seals (sealing).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec import Meta, Struct

from cofferdam.errors import GateError

SECRET: Final = "strand"  # noqa: S105 - a kind, and no secret
"""The kind of secret, of each part of the diode that has any."""
EVER: Final = (1 << 63) - 1
KEYS_MOST: Final = 8
"""Keys of the other end that are good at a time."""
_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"

Hex = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Ns = Annotated[int, Meta(ge=0, le=EVER)]


class PairFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one end tells the other: public keys, and which strand they are for. `sign`: of epochs (inside), of tickets
    (outside); `seal`: what the inside seals to (outside)."""

    cofferdam: Literal["pair of a strand"]
    version: Literal[1]
    site: Annotated[str, Meta(max_length=63)]
    strand: Annotated[str, Meta(max_length=63)]
    end: Literal["inside", "outside"]
    sign: Hex
    seal: Hex | Literal[""] = ""
    log: Annotated[str, Meta(max_length=256)] = ""
    """Inside: the public key of its audit log, where there is one by then."""

    @property
    def words(self) -> str:
        """What both screens show."""
        return words(bytes.fromhex(self.sign + self.seal) + self.log.encode())


class Good(Struct, frozen=True, forbid_unknown_fields=True):
    """A key of the other end, and until when it is good (UTC ns)."""

    key: Hex
    until: Ns = EVER


class SenderKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """What the sender has: its own key, private, and those to seal to; and its `former` keys, private, by which it
    announces as well until their day."""

    sign: Hex
    receivers: tuple[Good, ...] = ()
    former: tuple[Good, ...] = ()

    def __repr__(self) -> str:
        return "SenderKeys(<secret>)"


class SpoolKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """What the spool has: whose tickets it takes."""

    tickets: tuple[Good, ...] = ()


class ReceiverKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """What the receiver has: its own key, private, and who may announce an epoch; and its `former` keys, private, which
    open as well until their day."""

    seal: Hex
    senders: tuple[Good, ...] = ()
    former: tuple[Good, ...] = ()

    def __repr__(self) -> str:
        return "ReceiverKeys(<secret>)"


class KeeperKeys(Struct, frozen=True, forbid_unknown_fields=True):
    """What the keeper has: the key that signs tickets, private; and the public one of the inside's audit log."""

    sign: Hex
    log: str = ""

    def __repr__(self) -> str:
        return "KeeperKeys(<secret>)"


Keys = TypeVar("Keys", SenderKeys, SpoolKeys, ReceiverKeys, KeeperKeys)


def words(public: bytes) -> str:
    """A fingerprint to be read aloud: 80 bits as five words of consonants and vowels."""
    digest = hashlib.sha256(public).digest()[:10]
    return "-".join(_word(int.from_bytes(digest[at : at + 2])) for at in range(0, 10, 2))


def _word(number: int) -> str:
    letters = []
    for alphabet, bits in ((_CONSONANTS, 4), (_VOWELS, 2), (_CONSONANTS, 4), (_VOWELS, 2), (_CONSONANTS, 4)):
        number, index = number >> bits, number & ((1 << bits) - 1)
        letters.append(alphabet[index])
    return "".join(letters)


def read(data: bytes) -> PairFile:
    """Raises: GateError, where it is no file of a pair."""
    try:
        return msgspec.json.decode(data, type=PairFile)
    except msgspec.MsgspecError as error:
        raise GateError(f"this is no file of a pair: {error}", hint="`cofferdam diode pair` writes them") from None


def take(good: tuple[Good, ...], key: str, now_ns: int, old_until: int) -> tuple[Good, ...]:
    """The keys with a new one: the old ones stay good until then, those whose time is up go. Raises: GateError."""
    kept = [Good(one.key, min(one.until, old_until)) for one in good if one.key != key and one.until > now_ns]
    kept = [one for one in kept if one.until > now_ns]
    if len(kept) >= KEYS_MOST:
        raise GateError(f"{len(kept)} keys of the other end are good", hint="wait until some have had their day")
    return (*kept, Good(key))


def former(before: tuple[Good, ...], key: str, now_ns: int, until: int) -> tuple[Good, ...]:
    """An end's own keys that are good besides a new one: those that were, and the one before. Raises: GateError."""
    kept = [one for one in before if one.until > now_ns]
    if len(kept) >= KEYS_MOST:
        raise GateError(f"{len(kept)} former keys are good", hint="wait until some have had their day")
    return (*kept, Good(key, until)) if until > now_ns else tuple(kept)


def new_signer() -> tuple[str, str]:
    """(private, public) of Ed25519."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw().hex(), key.public_key().public_bytes_raw().hex()


def new_sealer() -> tuple[str, str]:
    """(private, public) of X25519."""
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw().hex(), key.public_key().public_bytes_raw().hex()


def signer_public(private: str) -> str:
    """Of Ed25519."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw().hex()


def sealer_public(private: str) -> str:
    """Of X25519."""
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw().hex()


def load(kind: type[Keys], secrets: Mapping[str, bytes]) -> Keys | None:
    """A part's keys; None, while the ends are no pair. Raises: GateError."""
    data = secrets.get(SECRET)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        raise GateError("the keys of the strand are damaged", hint="pair the ends anew: cofferdam diode pair") from None
