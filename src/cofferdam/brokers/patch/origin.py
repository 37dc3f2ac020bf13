"""Proof of origin: whether a file was made by whom the policy names. Runs in the examiner, which is thrown away.

    pgp           a detached OpenPGP signature by one of the pinned certificates, neither expired nor revoked
    authenticode  the signature within a PE, MSI, CAB or CAT file, over all of it, by a code-signing certificate under a
                  pinned one
    cms           a detached CMS signature (PKCS #7) by a code-signing certificate under a pinned one
    minisign      a detached Ed25519 signature by a pinned key, over the file and over its trusted comment
    sigstore      a bundle by the identity that the policy names, under a pinned trust root

A list of hashes that is signed by one of these proves what stands in it. A bare checksum is no proof. Not here: a
Debian repository (apt_bundle), an export of WSUS (wsus_bundle), certificates (chains).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pysequoia
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct
from pysequoia.packet import SignatureType

from cofferdam.brokers.kit.source import Source
from cofferdam.brokers.patch import authenticode, chains, cms, compound, sigstore
from cofferdam.brokers.patch.sealing import Kept
from cofferdam.errors import CofferdamError

SIGNATURE_BYTES: Final = 1 << 20
_LISTED: Final = re.compile(r"\\?(?P<hash>[0-9a-fA-F]{64}) [ *](?P<name>.{1,400})\Z")
_TAGGED: Final = re.compile(r"SHA256 \((?P<name>.{1,400})\) = (?P<hash>[0-9a-fA-F]{64})\Z")


class NotProved(CofferdamError):
    """Its origin is not what the policy asks for."""


class Proved(Struct, frozen=True):
    """By whom. `detail` is a sentence; `facts` are kept with the file."""

    detail: str
    facts: dict[str, str] = {}


class Pins(Struct, frozen=True):
    """What a proof must rest on, by the policy: `keys` of its kind, the name in the signer's certificate, and the
    authorities whose time stamps count once that certificate has expired; who signs a sigstore bundle (`*` at its end:
    whatever follows), and who has seen that it is he."""

    keys: Sequence[bytes]
    publisher: str = ""
    stamps: Sequence[bytes] = ()
    identity: str = ""
    issuer: str = ""


def prove(kind: str, file: Source, signature: bytes, pins: Pins, *, lines: bool = False) -> Proved:
    """`lines`: a list of hashes, of which nothing changes by how its lines end. Raises: NotProved, with the reason."""
    if kind == "pgp":
        return _pgp(file, signature, pins.keys, lines=lines)
    if kind == "authenticode":
        return _authenticode(file, pins)
    if kind == "cms":
        return _cms(file, signature, pins)
    if kind == "minisign":
        return _minisign(file, signature, pins.keys)
    if kind == "sigstore":
        return _sigstore(file, signature, pins)
    raise NotProved(f"the proof {kind} cannot be checked here")


def in_list(data: bytes, name: str, sha256: str) -> None:
    """Whether a list, as `sha256sum` writes it (or `sha256sum --tag`), has this file with this hash.

    Raises: NotProved.
    """
    found: set[str] = set()
    for line in data.decode("utf-8", "replace").splitlines():
        match = _LISTED.match(line.strip()) or _TAGGED.match(line.strip())
        if match is not None and match["name"].rpartition("/")[2] == name:
            found.add(match["hash"].lower())
    if not found:
        raise NotProved(f"the signed list does not have {name}, with a SHA-256")
    if found != {sha256}:
        raise NotProved(f"the signed list has another SHA-256 for {name}" if len(found) == 1 else
                        f"the signed list has {name} twice, with two hashes")  # fmt: skip


# --- OpenPGP ----------------------------------------------------------------------------------------------------------


def _pgp(file: Source, signature: bytes, keys: Sequence[bytes], *, lines: bool) -> Proved:
    pinned = pgp_certificates(keys)
    try:
        sig = pysequoia.Sig.from_bytes(signature)
    except Exception as error:
        raise NotProved(f"the signature is no OpenPGP signature: {error}") from None
    if sig.signature_type != SignatureType.Binary and not (lines and sig.signature_type == SignatureType.Text):
        # One over a text holds whatever ends its lines, also where somebody has changed them in what is no text.
        raise NotProved("the OpenPGP signature is over a text, or over no file: have it made without --textmode")
    try:
        result = pysequoia.verify(**_said(file), store=lambda _ids: list(pinned.values()), signature=sig)
    except Exception as error:
        raise NotProved(f"the OpenPGP signature does not hold: {error}") from None
    good = [one for one in result.valid_sigs if one.certificate.lower() in pinned]
    if not good:
        raise NotProved("the OpenPGP signature is by none of the pinned certificates")
    by = pinned[good[0].certificate.lower()]
    name = next((str(user) for user in by.user_ids), "")
    facts = {"certificate": by.fingerprint.lower(), "signing_key": str(good[0].signing_key).lower(), "name": name}
    if sig.created is not None:
        facts["signed_at"] = sig.created.isoformat()
    return Proved(f"OpenPGP, {name or 'no name'}, {by.fingerprint[:16].lower()}…", facts)


def _said(file: Source) -> dict[str, Any]:
    """How the library is told of a file: it takes a name, or all of it."""
    if not isinstance(file, Kept):
        return {"file": str(file)}
    if file.is_plain:
        return {"file": str(file.path)}
    return {"file": str(file.feed)} if file.feed is not None else {"bytes": file.read_bytes()}


def pgp_certificates(keys: Sequence[bytes]) -> dict[str, Any]:
    """Those that are pinned and hold, by fingerprint. Raises: NotProved: none does."""
    certificates = []
    for key in keys:
        try:
            certificates += pysequoia.Cert.split_bytes(key)
        except Exception as error:  # its errors have no class of their own
            raise NotProved(f"a pinned OpenPGP certificate that cannot be read: {error}") from None
    pinned = {one.fingerprint.lower(): one for one in certificates}
    now = datetime.now(UTC)
    for one in certificates:
        if one.is_revoked or (one.expiration is not None and one.expiration <= now):
            del pinned[one.fingerprint.lower()]
    if not pinned:
        raise NotProved("every pinned OpenPGP certificate is revoked or has expired")
    return pinned


# --- Authenticode and CMS -------------------------------------------------------------------------------------------


def _authenticode(file: Source, pins: Pins) -> Proved:
    try:
        with file.open("rb") as opened:
            kind, signed = authenticode.signer(opened, file.stat().st_size)
    except (cms.NotSigned, compound.NotCompound) as error:
        raise NotProved(str(error)) from None
    return _by_code(f"Authenticode of {kind}", signed, pins)


def _cms(file: Source, signature: bytes, pins: Pins) -> Proved:
    """By a code-signing certificate under a pinned one. `openssl cms -verify` takes certificates for mail, and those
    for code only where it is told not to look: here it is looked at, and only those count."""
    try:
        signed = cms.signer(file, signature)
    except cms.NotSigned as error:
        raise NotProved(str(error)) from None
    return _by_code("CMS", signed, pins)


def _by_code(what: str, signed: cms.Signed, pins: Pins) -> Proved:
    """Raises: NotProved."""
    try:
        facts = chains.signs_code(signed, pins.keys, pins.publisher, pins.stamps)
    except (chains.NotVouched, cms.NotSigned) as error:
        raise NotProved(str(error)) from None
    return Proved(f"{what}, {facts['publisher']}", facts)


# --- sigstore ---------------------------------------------------------------------------------------------------------


def _sigstore(file: Source, bundle: bytes, pins: Pins) -> Proved:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").digest()
    try:
        facts = sigstore.signed(digest, bundle, pins.keys, pins.identity, pins.issuer)
    except (chains.NotVouched, cms.NotSigned) as error:
        raise NotProved(str(error)) from None
    return Proved(f"sigstore, {facts['identity']}, seen by {facts['issuer']}", facts)


# --- minisign ---------------------------------------------------------------------------------------------------------


def _minisign(file: Source, signature: bytes, keys: Sequence[bytes]) -> Proved:
    """The file format of minisign 0.11: a comment, a signature, a trusted comment, and a signature over both."""
    lines = signature.decode("utf-8", "replace").splitlines()
    if len(lines) < 4 or not lines[0].startswith("untrusted comment:") or not lines[2].startswith("trusted comment: "):
        raise NotProved("the signature is no minisign signature")
    try:
        signed, total = base64.b64decode(lines[1], validate=True), base64.b64decode(lines[3], validate=True)
    except binascii.Error:
        raise NotProved("the minisign signature is damaged") from None
    if len(signed) != 74 or len(total) != 64:
        raise NotProved("the minisign signature is damaged")
    algorithm, number, value = signed[:2], signed[2:10], signed[10:]
    if algorithm != b"ED":
        raise NotProved("a minisign signature of the old kind, over the file itself; sign it with `minisign -S -H`")
    for key in keys:
        public = _minisign_key(key)
        if public is None or public[0] != number:
            continue
        digest = hashlib.blake2b()
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                digest.update(piece)
        comment = lines[2].removeprefix("trusted comment: ")
        try:
            public[1].verify(value, digest.digest())
            public[1].verify(total, value + comment.encode())
        except InvalidSignature:
            raise NotProved("the minisign signature does not hold") from None
        facts = {"key": number[::-1].hex(), "comment": comment[:200]}
        return Proved(f"minisign, key {number[::-1].hex().upper()}", facts)
    raise NotProved("the minisign signature is by none of the pinned keys")


def _minisign_key(text: bytes) -> tuple[bytes, Ed25519PublicKey] | None:
    for line in text.decode("ascii", "replace").splitlines():
        try:
            data = base64.b64decode(line.strip(), validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(data) == 42 and data[:2] == b"Ed":
            return data[2:10], Ed25519PublicKey.from_public_bytes(data[10:])
    return None
