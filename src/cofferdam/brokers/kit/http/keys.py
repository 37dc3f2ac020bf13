"""Who a client of the HTTP API is: API keys and pinned certificates, with the address that it comes from.

A key is 32 random bytes. What is kept of it is its SHA-256: a slow hash protects what people choose, and nobody guesses
256 random bits however fast the hash is; a fast one costs no request anything. A part gets the hashes of its own side's
principals, so that neither side can speak as the other, and neither holds anything that opens a door elsewhere.

What a key is for stands in it as verbs (what its broker's rules let principals do) and scopes (on what: channels,
tags); none means whatever the policy allows its principal.

Nothing that a client is told, and no time that it takes, says whether a key is wrong, revoked, expired, of the other
side, or right and from a wrong address. Wrong ones are answered late, and only so many of one source at a time; a right
one is never made to wait for others' wrong ones.

Not here: where keys are kept and made (vault, cli.keys), what a principal may do (each broker's rows).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    SubjectAlternativeName,
    load_der_x509_certificate,
)
from msgspec import Meta, Struct

from cofferdam.brokers.kit.tls import public_key_hash
from cofferdam.errors import GateError
from cofferdam.policy.terms.doors import Pin

PREFIX: Final = "cdk_"
"""Tells people and scanners of leaked secrets what they see."""
KEY_BYTES: Final = 32
KEYS_EACH: Final = 2
"""Keys that a principal may have at a time, so that a new one can be brought in before the old one goes."""
WRONG_SECONDS: Final = 1.0
"""How late a wrong key is answered."""
WRONG_WAITING: Final = 16
"""Wrong ones of one source that wait for their answer; more get none."""
WRONG_SOURCES: Final = 4096
"""Sources that are told apart."""

Name = Annotated[str, Meta(min_length=1, max_length=128)]


class Key(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is kept of a key. `id` names it for people; times are UTC ns (`expires` 0: never). `verbs`: what of that
    which the policy allows the principal this key is for; none: all. So with `scopes`, on what."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]{8}$")]
    principal: Name
    sha256: Annotated[bytes, Meta(min_length=32, max_length=32)]
    created: int
    expires: int = 0
    verbs: tuple[Name, ...] = ()
    scopes: tuple[Name, ...] = msgspec.field(default=(), name="channels")
    by: Annotated[str, Meta(max_length=128)] = ""

    def __repr__(self) -> str:
        return f"Key({self.id}, {self.principal})"


class Tls(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One listener's certificate with its chain, and its key: PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Tls(<secret>)"


class Secrets(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a side is given: what it knows its clients by, and what it shows to databases. `tls` and `passwords`: by
    the names that the policy has for them."""

    keys: tuple[Key, ...] = ()
    tls: dict[str, Tls] = {}
    passwords: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self.keys)} keys, <secret>)"


class Given(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A side is given new ones while it runs. `by`: who did it."""

    secrets: Secrets
    by: str = ""


_decode = msgspec.json.Decoder(Secrets).decode
write_secrets = msgspec.json.Encoder().encode


def read_secrets(given: Mapping[str, bytes], broker: str) -> Secrets:
    """What a part's setting holds of them, under the broker's name; nothing if there is none. Raises: GateError."""
    try:
        return _decode(given[broker]) if broker in given else Secrets()
    except msgspec.MsgspecError as error:
        raise GateError(f"the keys and certificates of the {broker} cannot be understood: {error}") from None


def new_key() -> tuple[str, bytes]:
    """A new key: its text, to be shown once, and its hash, to be kept."""
    raw = secrets.token_bytes(KEY_BYTES)
    text = base64.urlsafe_b64encode(raw + zlib.crc32(raw).to_bytes(4, "big")).decode().rstrip("=")
    return PREFIX + text, hashlib.sha256(raw).digest()


def hash_of(text: str) -> bytes | None:
    """The hash of a key's text, None for what is no key at all (a checksum finds slips of the pen)."""
    body = text.removeprefix(PREFIX)
    if len(body) != 48 or body == text or not body.isascii():
        return None
    try:
        raw = base64.b64decode(body, altchars=b"-_", validate=True)
    except ValueError:
        return None
    if zlib.crc32(raw[:KEY_BYTES]).to_bytes(4, "big") != raw[KEY_BYTES:]:
        return None
    return hashlib.sha256(raw[:KEY_BYTES]).digest()


class Known(Struct, frozen=True):
    """Who a client is, and what of the principal's rights it may use: `key` is "certificate" or the key's id."""

    principal: str
    key: str
    verbs: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()

    def may(self, verb: str, scope: str) -> bool:
        """Whether the key is for this. (The policy says whether the principal may.)"""
        return (not self.verbs or verb in self.verbs) and (not self.scopes or scope in self.scopes)


Why = Literal["none", "unknown", "expired", "address", "certificate"]
"""For the audit log; a client is never told."""


class Keyring:
    """The keys of one side."""

    def __init__(self, keys: Iterable[Key], pins: Iterable[Pin] = ()) -> None:
        # By eight bytes of the hash, of which nobody can choose one by one; the rest is compared in constant time.
        self._keys: dict[bytes, list[Key]] = {}
        for key in keys:
            self._keys.setdefault(key.sha256[:8], []).append(key)
        self._by_public_key = {pin.public_key: pin.principal for pin in pins if pin.public_key}
        self._by_name = [(pin, load_der_x509_certificate(pin.authority)) for pin in pins if pin.name]

    def by_key(self, text: str, principals: Iterable[str], wall_ns: int) -> Known | Why:
        """Who shows this key, if the address it comes from is that of `principals`."""
        return self.by_hash(hash_of(text), principals, wall_ns)

    def by_hash(self, digest: bytes | None, principals: Iterable[str], wall_ns: int) -> Known | Why:
        """Who shows the key that has this hash (`hash_of`)."""
        if digest is None:
            return "unknown"
        for key in self._keys.get(digest[:8], ()):
            if hmac.compare_digest(key.sha256, digest):
                if key.expires and wall_ns >= key.expires:
                    return "expired"
                if key.principal not in principals:
                    return "address"
                return Known(key.principal, key.id, frozenset(key.verbs), frozenset(key.scopes))
        return "unknown"

    def by_certificate(self, der: bytes, principals: Iterable[str]) -> Known | Why:
        """Who shows this certificate, which TLS has verified."""
        principal = self._by_public_key.get(public_key_hash(der)) if self._by_public_key else None
        if principal is None:
            principal = self._certified(load_der_x509_certificate(der))
        if principal is None:
            return "certificate"
        return Known(principal, "certificate") if principal in principals else "address"

    def _certified(self, certificate: Certificate) -> str | None:
        """By name: only what the authority of that very pin has signed counts, since each may certify any name."""
        try:
            found = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
            names = set(found.value.get_values_for_type(DNSName))
        except (ExtensionNotFound, ValueError):
            return None
        for pin, authority in self._by_name:
            if pin.name in names:
                with contextlib.suppress(ValueError, TypeError, InvalidSignature):
                    certificate.verify_directly_issued_by(authority)
                    return pin.principal
        return None


class Slowed:
    """Wrong keys by source: how many wait for their answer, and how many there were since they were told of."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._untold: dict[str, dict[Why, int]] = {}

    def begin(self, source: str, why: Why) -> bool:
        """One more wrong key. Returns whether it may wait for an answer; then `end` has to be called."""
        if source in self._untold or len(self._untold) < WRONG_SOURCES:
            counts = self._untold.setdefault(source, {})
        else:
            counts = self._untold.setdefault("", {})
        counts[why] = counts.get(why, 0) + 1
        waiting = self._waiting.get(source, 0)
        if waiting >= WRONG_WAITING:
            return False
        self._waiting[source] = waiting + 1
        return True

    def end(self, source: str) -> None:
        """The answer is under way."""
        if self._waiting[source] == 1:
            del self._waiting[source]
        else:
            self._waiting[source] -= 1

    def told(self) -> dict[str, dict[Why, int]]:
        """What there was since this was asked last, by source ("" for those that are no longer told apart)."""
        untold, self._untold = self._untold, {}
        return untold
