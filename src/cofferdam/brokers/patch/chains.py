"""Certificates (X.509) behind a signature: whether the signer's leads to a pinned one, is for signing code, names the
publisher that the policy names, and was valid when it signed. Runs in the examiner.

A certificate that is valid now is enough. One that has expired counts where a time stamp (RFC 3161), by an authority
that the policy pins for this, says that the signature was there before; vendors' certificates last a year or three, and
their files are installed for longer.

Not here: signatures (cms, authenticode). Lists and services of revocation are not asked: no part that looks at files
has a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtendedKeyUsage,
    ExtensionNotFound,
    ObjectIdentifier,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cofferdam.brokers.patch import cms
from cofferdam.errors import CofferdamError

CHAIN_MOST: Final = 6


class NotVouched(CofferdamError):
    """No pinned certificate stands behind it, or not for this."""


def signs_code(signed: cms.Signed, keys: Sequence[bytes], publisher: str, stamps: Sequence[bytes]) -> dict[str, str]:
    """What is kept of a certificate that may sign code for this publisher ("": any that a root vouches for).

    Raises:
        NotVouched: it may not.
    """
    roots, certificate = pinned(keys), signed.certificate
    try:
        name, usage = _common_name(certificate), _usage(certificate)
    except cms.UNREADABLE as error:
        raise NotVouched(f"a certificate in the signature that cannot be read: {error}") from None
    if not _leads_to(certificate, roots, signed.others):
        raise NotVouched(f"the signer {name!r} does not lead to a pinned certificate")
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise NotVouched(f"the certificate of {name!r} is not for signing code")
    if publisher and name != publisher:
        raise NotVouched(f"it is signed by {name!r}, and the publisher is {publisher!r}")
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now, stamped = datetime.now(UTC), None
    if not since <= now <= until:
        stamped = _stamp(signed, stamps) if stamps else None
    if not since <= (stamped or now) <= until:
        when = f"not at its time stamp, {stamped:%Y-%m-%d}" if stamped else "not now, and no time stamp counts"
        raise NotVouched(f"the signer's certificate is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, {when}")
    return {
        "publisher": name,
        "certificate": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        "serial": f"{certificate.serial_number:x}",
        "valid_to": f"{until:%Y-%m-%d}",
        "stamped": f"{stamped:%Y-%m-%dT%H:%M:%SZ}" if stamped else "no",
    }


def pinned(keys: Sequence[bytes]) -> list[Certificate]:
    """Raises: NotVouched."""
    roots: list[Certificate] = []
    for key in keys:
        try:
            roots += load_pem_x509_certificates(key)
        except ValueError as error:
            raise NotVouched(f"a pinned certificate that cannot be read: {error}") from None
    return roots


# --- time stamps ------------------------------------------------------------------------------------------------------


def _stamp(signed: cms.Signed, authorities: Sequence[bytes]) -> datetime | None:
    """When a signature was there, by a pinned authority; None: it has no time stamp. Raises: NotVouched, NotSigned."""
    values = signed.stamps.get(cms.CODE_STAMP) or signed.stamps.get(cms.STAMP)
    if values is None:
        return None
    rest = cms.Der(values)
    token = rest.whole(cms.SEQUENCE)[0]
    rest.end()
    found = cms.opened_signature(token, (cms.STAMPED,))
    certificate = found.certificate
    if not _leads_to(certificate, pinned(authorities), found.others):
        raise NotVouched("its time stamp is by an authority that is not pinned (`stamps:`)")
    try:
        usage = _usage(certificate)
    except cms.UNREADABLE as error:
        raise NotVouched(f"a certificate in the time stamp that cannot be read: {error}") from None
    if usage != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise NotVouched("its time stamp is by a certificate that is not for time stamps alone")
    at = _time_of(found.content, signed.value)
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc or at > datetime.now(UTC):
        raise NotVouched(f"its time stamp is of {at:%Y-%m-%d}, when its authority's certificate did not hold")
    return at


def _time_of(content: bytes, value: bytes) -> datetime:
    """TSTInfo (RFC 3161, 2.4.2). Raises: NotVouched, NotSigned."""
    outer = cms.Der(content)
    info = cms.Der(outer.take(cms.SEQUENCE))
    outer.end()
    info.take(cms.INTEGER)
    info.take(cms.OID)
    imprint = cms.Der(info.take(cms.SEQUENCE))
    name, _ = cms.hash_of(cms.Der(imprint.take(cms.SEQUENCE)).take(cms.OID))
    said = imprint.take(cms.OCTETS)
    imprint.end()
    if said != hashlib.new(name, value).digest():
        raise NotVouched("its time stamp is of another signature")
    info.take(cms.INTEGER)
    text = info.take(0x18).decode("ascii", "replace")
    try:
        return datetime.strptime(text.partition(".")[0].removesuffix("Z"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise NotVouched("its time stamp has a time that is none") from None


# --- chains -----------------------------------------------------------------------------------------------------------


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
    except (ExtensionNotFound, *cms.UNREADABLE):
        return False


def _usage(certificate: Certificate) -> list[ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value)
    except ExtensionNotFound:
        return []


def _common_name(certificate: Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()
