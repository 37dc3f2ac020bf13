"""Proof of origin: whether a file was made by whom the policy names. Runs in the examiner, which is thrown away.

    pgp           a detached OpenPGP signature by one of the pinned certificates, neither expired nor revoked
    authenticode  the signature within a PE file, over all of it, by a code-signing certificate under a pinned one
    cms           a detached CMS signature (PKCS #7) by a code-signing certificate under a pinned one
    minisign      a detached Ed25519 signature by a pinned key, over the file and over its trusted comment

A list of hashes that is signed by one of these proves what stands in it. A bare checksum is no proof. Not here: a
Debian repository (apt_bundle), CMS, MSI and CAB, sigstore (see the docs: not there yet).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pysequoia
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    DuplicateExtension,
    ExtendedKeyUsage,
    ExtensionNotFound,
    ObjectIdentifier,
    load_der_x509_certificate,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from cofferdam.brokers.patch import cms
from cofferdam.errors import CofferdamError

if TYPE_CHECKING:
    import lief

SIGNATURE_BYTES: Final = 1 << 20
CHAIN_MOST: Final = 6
_STAMPS: Final = ("1.2.840.113549.1.9.6", "1.3.6.1.4.1.311.3.3.1")
"""Unauthenticated attributes that may be there: counter-signatures. Anything else could have been put in by anybody."""
_LISTED: Final = re.compile(r"\\?(?P<hash>[0-9a-fA-F]{64}) [ *](?P<name>.{1,400})\Z")
_TAGGED: Final = re.compile(r"SHA256 \((?P<name>.{1,400})\) = (?P<hash>[0-9a-fA-F]{64})\Z")
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
    if kind == "cms":
        return _cms(file, signature, keys, publisher)
    if kind == "minisign":
        return _minisign(file, signature, keys)
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


def _pgp(file: Path, signature: bytes, keys: Sequence[bytes]) -> Proved:
    pinned = pgp_certificates(keys)
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


# --- Authenticode -----------------------------------------------------------------------------------------------------


def _authenticode(file: Path, keys: Sequence[bytes], publisher: str) -> Proved:
    import lief  # half a second of processor time, which other proofs need not pay (broker.loads)

    good = (lief.PE.ALGORITHMS.SHA_256, lief.PE.ALGORITHMS.SHA_384, lief.PE.ALGORITHMS.SHA_512)
    roots: list[Certificate] = []
    for key in keys:
        try:
            roots += load_pem_x509_certificates(key)
        except ValueError as error:
            raise NotProved(f"a pinned certificate that cannot be read: {error}") from None
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
    # Dates are checked below, by the second: its own check calls a certificate of this second one of the future.
    outcome = binary.verify_signature(lief.PE.Signature.VERIFICATION_CHECKS.SKIP_CERT_TIME)
    if outcome != lief.PE.Signature.VERIFICATION_FLAGS.OK:
        raise NotProved(f"the Authenticode signature does not hold: {_flags(outcome)}")
    first = signatures[0]
    signers = list(first.signers)
    if len(signatures) != 1 or len(signers) != 1:
        raise NotProved("it has several signatures or signers: it is not said which counts")
    signer = signers[0]
    if first.digest_algorithm not in good or signer.digest_algorithm not in good:
        raise NotProved("an Authenticode signature by a weak hash (SHA-1 or MD5)")
    foreign = [
        str(getattr(attribute, "oid", "") or attribute.type).rpartition(".")[2]
        for attribute in signer.unauthenticated_attributes
        if getattr(attribute, "oid", "") not in _STAMPS and not _is_stamp(attribute)
    ]
    if foreign:
        raise NotProved(f"what is signed is not all of it: attributes that nobody signed ({', '.join(foreign[:4])})")
    if signer.cert is None:
        raise NotProved("the signer's certificate is not in the signature")
    try:
        certificate = load_der_x509_certificate(bytes(signer.cert.raw))
        others = [load_der_x509_certificate(bytes(one.raw)) for one in first.certificates]
    except ValueError as error:
        raise NotProved(f"a certificate in the signature that cannot be read: {error}") from None
    facts = _signs_code(certificate, others, roots, publisher)
    facts["stamped"] = "yes" if list(signer.unauthenticated_attributes) else "no"
    return Proved(f"Authenticode, {facts['publisher']}", facts)


def _covers_all(file: Path, binary: lief.PE.Binary) -> None:
    """What an Authenticode hash leaves out is the table of signatures alone. That must be the file's end, and hold
    nothing but the signatures (the well-known way to add data to a signed file is its padding)."""
    import lief

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
    import lief

    kinds = (getattr(lief.PE, "PKCS9CounterSignature", None), getattr(lief.PE, "MsCounterSign", None))
    return isinstance(attribute, tuple(kind for kind in kinds if kind is not None))


def _leads_to(certificate: Certificate, roots: Sequence[Certificate], others: Sequence[Certificate]) -> bool:
    """Whether a chain of signatures goes to a pinned certificate, by authorities alone."""
    there = certificate
    for _ in range(CHAIN_MOST):
        if there in roots or any(_issued(there, root) for root in roots):
            return True
        above = next((one for one in others if one != there and _is_authority(one) and _issued(there, one)), None)
        if above is None:
            return False
        there = above
    return False


def _issued(certificate: Certificate, by: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except (ExtensionNotFound, DuplicateExtension, ValueError):
        return False


def _usage(certificate: Certificate) -> list[ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value)
    except (ExtensionNotFound, DuplicateExtension):
        return []


def _common_name(certificate: Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def _flags(outcome: object) -> str:
    return str(outcome).rpartition(".")[2].replace("|", " and ").lower()


# --- CMS --------------------------------------------------------------------------------------------------------------


def _cms(file: Path, signature: bytes, keys: Sequence[bytes], publisher: str) -> Proved:
    """By a code-signing certificate under a pinned one. `openssl cms -verify` takes certificates for mail, and those
    for code only where it is told not to look: here it is looked at, and only those count."""
    roots: list[Certificate] = []
    for key in keys:
        try:
            roots += load_pem_x509_certificates(key)
        except ValueError as error:
            raise NotProved(f"a pinned certificate that cannot be read: {error}") from None
    try:
        certificate, others = cms.signer(file, signature)
    except cms.NotSigned as error:
        raise NotProved(str(error)) from None
    except ValueError as error:
        raise NotProved(f"a certificate in the signature that cannot be read: {error}") from None
    facts = _signs_code(certificate, others, roots, publisher)
    return Proved(f"CMS, {facts['publisher']}", facts)


def _signs_code(
    certificate: Certificate, others: Sequence[Certificate], roots: Sequence[Certificate], publisher: str
) -> dict[str, str]:
    """What is kept of a certificate that may sign code for this publisher ("": any that a root vouches for).

    Raises:
        NotProved: it may not.
    """
    try:
        name, usage = _common_name(certificate), _usage(certificate)
    except ValueError as error:
        raise NotProved(f"a certificate in the signature that cannot be read: {error}") from None
    if not _leads_to(certificate, roots, others):
        raise NotProved(f"the signer {name!r} does not lead to a pinned certificate")
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise NotProved(f"the certificate of {name!r} is not for signing code")
    now = datetime.now(UTC)
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= now <= until:
        raise NotProved(f"the signer's certificate is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, not now")
    if publisher and name != publisher:
        raise NotProved(f"it is signed by {name!r}, and the publisher is {publisher!r}")
    return {
        "publisher": name,
        "certificate": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        "serial": f"{certificate.serial_number:x}",
        "valid_to": f"{until:%Y-%m-%d}",
    }


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
