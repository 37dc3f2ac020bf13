"""Proof of origin: whether a file was made by whom the policy names. Runs in the examiner, which is thrown away.

    pgp           a detached OpenPGP signature by one of the pinned certificates, neither expired nor revoked
    authenticode  the signature within a PE file, over all of it, by a code-signing certificate under a pinned one
    minisign      a detached Ed25519 signature by a pinned key, over the file and over its trusted comment

A checksum is no proof. Not here: CMS, MSI and CAB, sigstore, apt (see the docs: not there yet).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import lief
import pysequoia
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from cofferdam.errors import CofferdamError

SIGNATURE_BYTES: Final = 1 << 20
_CODE_SIGNING: Final = "1.3.6.1.5.5.7.3.3"
_STAMPS: Final = ("1.2.840.113549.1.9.6", "1.3.6.1.4.1.311.3.3.1")
"""Unauthenticated attributes that may be there: counter-signatures. Anything else could have been put in by anybody."""
_GOOD_DIGESTS: Final = (lief.PE.ALGORITHMS.SHA_256, lief.PE.ALGORITHMS.SHA_384, lief.PE.ALGORITHMS.SHA_512)
_PE_CERTIFICATE_HEAD: Final = 8


class NotProved(CofferdamError):
    """Its origin is not what the policy asks for."""


class Proved(Struct, frozen=True):
    """By whom. `detail` is a sentence; `facts` are kept with the file."""

    detail: str
    facts: dict[str, str] = {}


def prove(kind: str, file: Path, signature: bytes, keys: Sequence[bytes], publisher: str) -> Proved:
    """Raises: NotProved, with the reason."""
    if kind == "pgp":
        return _pgp(file, signature, keys)
    if kind == "authenticode":
        return _authenticode(file, keys, publisher)
    if kind == "minisign":
        return _minisign(file, signature, keys)
    raise NotProved(f"the proof {kind} cannot be checked here")


# --- OpenPGP ----------------------------------------------------------------------------------------------------------


def _pgp(file: Path, signature: bytes, keys: Sequence[bytes]) -> Proved:
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
    try:
        sig = pysequoia.Sig.from_bytes(signature)
    except Exception as error:
        raise NotProved(f"the signature is no OpenPGP signature: {error}") from None
    try:
        result = pysequoia.verify(file=str(file), store=lambda _ids: list(pinned.values()), signature=sig)
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


# --- Authenticode -----------------------------------------------------------------------------------------------------


def _authenticode(file: Path, keys: Sequence[bytes], publisher: str) -> Proved:
    roots = []
    for key in keys:
        found = lief.PE.x509.parse(list(key))
        if not found:
            raise NotProved("a pinned certificate that cannot be read")
        roots += found
    with file.open("rb") as opened:
        if opened.read(2) != b"MZ":
            raise NotProved("no PE file: Authenticode is checked in those alone, so far")
    binary = lief.PE.parse(str(file))
    if binary is None:
        raise NotProved("a PE file that cannot be read")
    signatures = list(binary.signatures)
    if not signatures:
        raise NotProved("it has no Authenticode signature")
    _covers_all(file, binary)
    outcome = binary.verify_signature()
    if outcome != lief.PE.Signature.VERIFICATION_FLAGS.OK:
        raise NotProved(f"the Authenticode signature does not hold: {_flags(outcome)}")
    first = signatures[0]
    signers = list(first.signers)
    if len(signatures) != 1 or len(signers) != 1:
        raise NotProved("it has several signatures or signers: it is not said which counts")
    signer = signers[0]
    if first.digest_algorithm not in _GOOD_DIGESTS or signer.digest_algorithm not in _GOOD_DIGESTS:
        raise NotProved("an Authenticode signature by a weak hash (SHA-1 or MD5)")
    foreign = [
        str(getattr(attribute, "oid", "") or attribute.type).rpartition(".")[2]
        for attribute in signer.unauthenticated_attributes
        if getattr(attribute, "oid", "") not in _STAMPS and not _is_stamp(attribute)
    ]
    if foreign:
        raise NotProved(f"what is signed is not all of it: attributes that nobody signed ({', '.join(foreign[:4])})")
    certificate = signer.cert
    if certificate is None:
        raise NotProved("the signer's certificate is not in the signature")
    between = [one for one in first.certificates if one.is_ca and _leads_to(one, roots)]
    if not _leads_to(certificate, [*roots, *between]):
        raise NotProved(f"the signer {_common_name(certificate)!r} does not lead to a pinned certificate")
    if _CODE_SIGNING not in list(certificate.ext_key_usage):
        raise NotProved(f"the certificate of {_common_name(certificate)!r} is not for signing code")
    now = datetime.now(UTC)
    since, until = _date(certificate.valid_from), _date(certificate.valid_to)
    if not since <= now <= until:
        raise NotProved(f"the signer's certificate is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, not now")
    name = _common_name(certificate)
    if publisher and name != publisher:
        raise NotProved(f"it is signed by {name!r}, and the publisher is {publisher!r}")
    facts = {
        "publisher": name,
        "certificate": hashlib.sha256(bytes(certificate.raw)).hexdigest(),
        "serial": bytes(certificate.serial_number).hex(),
        "valid_to": f"{until:%Y-%m-%d}",
        "stamped": "yes" if list(signer.unauthenticated_attributes) else "no",
    }
    return Proved(f"Authenticode, {name}", facts)


def _covers_all(file: Path, binary: lief.PE.Binary) -> None:
    """What an Authenticode hash leaves out is the table of signatures alone. That must be the file's end, and hold
    nothing but the signatures (the well-known way to add data to a signed file is its padding)."""
    directory = binary.data_directory(lief.PE.DataDirectory.TYPES.CERTIFICATE_TABLE)
    if directory is None:
        raise NotProved("it has no table of signatures")
    start, size, length = directory.rva, directory.size, file.stat().st_size
    if start + size != length:
        raise NotProved("what is signed is not all of it: data behind the signature")
    with file.open("rb") as opened:
        opened.seek(start)
        table = opened.read(size)
    at = 0
    while at < len(table):
        entry = int.from_bytes(table[at : at + 4], "little")
        if entry < _PE_CERTIFICATE_HEAD or at + entry > len(table):
            raise NotProved("what is signed is not all of it: a table of signatures that is wrong")
        body = table[at + _PE_CERTIFICATE_HEAD : at + entry]
        padding = body[_der_length(body) :]
        if len(padding) > 7 or any(padding):
            raise NotProved("what is signed is not all of it: data in the padding of the signature")
        at += (entry + 7) & ~7


def _der_length(data: bytes) -> int:
    """The length of the DER value at the start."""
    if len(data) < 2:
        return 0
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def _is_stamp(attribute: object) -> bool:
    kinds = (getattr(lief.PE, "PKCS9CounterSignature", None), getattr(lief.PE, "MsCounterSign", None))
    return isinstance(attribute, tuple(kind for kind in kinds if kind is not None))


def _leads_to(certificate: lief.PE.x509, roots: Sequence[lief.PE.x509]) -> bool:
    good = lief.PE.x509.VERIFICATION_FLAGS.OK
    expired = lief.PE.x509.VERIFICATION_FLAGS.BADCERT_EXPIRED
    return any(bytes(certificate.raw) == bytes(root.raw) for root in roots) or certificate.is_trusted_by(
        list(roots)
    ) in (good, expired)


def _common_name(certificate: lief.PE.x509) -> str:
    subject = str(certificate.subject)
    return next((part[3:] for part in subject.split(", ") if part.startswith("CN=")), subject)


def _date(parts: Sequence[int]) -> datetime:
    year, month, day, hour, minute, second = (int(part) for part in parts[:6])
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def _flags(outcome: object) -> str:
    return str(outcome).rpartition(".")[2].replace("|", " and ").lower()


# --- minisign ---------------------------------------------------------------------------------------------------------


def _minisign(file: Path, signature: bytes, keys: Sequence[bytes]) -> Proved:
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
