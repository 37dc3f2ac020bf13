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
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtendedKeyUsage,
    ExtensionNotFound,
    KeyUsage,
    ObjectIdentifier,
    Version,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from cofferdam.brokers.patch import cms
from cofferdam.errors import CofferdamError

CHAIN_MOST: Final = 6
_LIFETIME: Final = ObjectIdentifier("1.3.6.1.4.1.311.10.3.13")
"""Microsoft's: what it has signed holds no longer than it does, time stamp or not."""
_KNOWN: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)  # fmt: skip
"""Extensions that may be critical."""


class NotVouched(CofferdamError):
    """No pinned certificate stands behind it, or not for this."""


def signs_code(signed: cms.Signed, keys: Sequence[bytes], publisher: str, stamps: Sequence[bytes]) -> dict[str, str]:
    """What is kept of a certificate that may sign code for this publisher ("": any that a root vouches for).

    Raises:
        NotVouched: it may not.
    """
    roots, certificate = pinned(keys), signed.certificate
    try:
        name, usage = _common_name(certificate), usage_of(certificate)
    except cms.UNREADABLE as error:
        raise NotVouched(f"a certificate in the signature that cannot be read: {error}") from None
    chain = path_to(certificate, roots, signed.others, ExtendedKeyUsageOID.CODE_SIGNING)
    if not chain:
        raise NotVouched(
            f"the signer {name!r} does not lead to a pinned certificate, by authorities that may vouch for code"
        )
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise NotVouched(f"the certificate of {name!r} is not for signing code")
    if publisher and name != publisher:
        raise NotVouched(f"it is signed by {name!r}, and the publisher is {publisher!r}")
    now, stamped = datetime.now(UTC), None
    if not path_to(certificate, roots, signed.others, ExtendedKeyUsageOID.CODE_SIGNING, now):
        stamped = _stamp(signed, stamps) if stamps and _LIFETIME not in usage else None
        if not stamped or not path_to(certificate, roots, signed.others, ExtendedKeyUsageOID.CODE_SIGNING, stamped):
            when = f"not at its time stamp, {stamped:%Y-%m-%d}" if stamped else "not now, and no time stamp counts"
            since, until = max(map(_since, chain)), min(map(_until, chain))
            raise NotVouched(
                f"the signer's certificate, with those above it, is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d}, "
                f"{when}"
            )
    return {
        "publisher": name,
        "certificate": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        "serial": f"{certificate.serial_number:x}",
        "valid_to": f"{_until(certificate):%Y-%m-%d}",
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
    return stamped_at(token, signed.value, pinned(authorities))


def stamped_at(token: bytes, value: bytes, roots: Sequence[Certificate], known: Sequence[Certificate] = ()) -> datetime:
    """When a signature was there, by a time stamp (RFC 3161) under one of these roots; `known`: certificates between
    that need not come with it. Raises: NotVouched, NotSigned."""
    found = cms.opened_signature(token, (cms.STAMPED,), known=known)
    certificate = found.certificate
    if not path_to(certificate, roots, found.others, ExtendedKeyUsageOID.TIME_STAMPING):
        raise NotVouched("its time stamp is by an authority that is not pinned")
    try:
        usage = usage_of(certificate)
    except cms.UNREADABLE as error:
        raise NotVouched(f"a certificate in the time stamp that cannot be read: {error}") from None
    if usage != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise NotVouched("its time stamp is by a certificate that is not for time stamps alone")
    at = _time_of(found.content, value)
    held = path_to(certificate, roots, found.others, ExtendedKeyUsageOID.TIME_STAMPING, at)
    if not held or at > datetime.now(UTC):
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


def path_to(
    certificate: Certificate, roots: Sequence[Certificate], others: Sequence[Certificate],
    purpose: ObjectIdentifier, at: datetime | None = None,
) -> list[Certificate]:  # fmt: skip
    """The shortest chain from a certificate to a pinned one, by authorities that may vouch for this purpose, all valid
    at that time (None: whenever). [] if there is none."""
    if not _known(certificate) or not _valid(certificate, at):
        return []
    left = [one for one in others if one != certificate]
    paths = deque([[certificate]])
    while paths:
        path = paths.popleft()
        there, below = path[-1], len(path) - 1
        if there in roots:
            return path
        for root in roots:
            if _may_vouch(root, below, purpose, pinned=True) and _valid(root, at) and _issued(there, root):
                return [*path, root]
        for one in list(left) if len(path) < CHAIN_MOST else ():
            if _may_vouch(one, below, purpose) and _valid(one, at) and _issued(there, one):
                left.remove(one)
                paths.append([*path, one])
    return []


def _since(certificate: Certificate) -> datetime:
    return certificate.not_valid_before_utc


def _until(certificate: Certificate) -> datetime:
    return certificate.not_valid_after_utc


def _valid(certificate: Certificate, at: datetime | None) -> bool:
    return at is None or _since(certificate) <= at <= _until(certificate)


def _issued(certificate: Certificate, by: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
        made, key = certificate.signature_hash_algorithm, by.public_key()
    except (TypeError, InvalidSignature, *cms.UNREADABLE):
        return False
    weak = made is not None and made.digest_size < 32
    return not weak and not (isinstance(key, rsa.RSAPublicKey) and key.key_size < cms.RSA_BITS)


def _known(certificate: Certificate) -> bool:
    """Whether all that it demands to be known is. Limits of names are not: they are refused."""
    try:
        return all(
            each.oid in _KNOWN or (not each.critical and each.oid != ExtensionOID.NAME_CONSTRAINTS)
            for each in certificate.extensions
        )
    except cms.UNREADABLE:
        return False


def _may_vouch(authority: Certificate, below: int, purpose: ObjectIdentifier, *, pinned: bool = False) -> bool:
    """`below`: authorities between it and the signer."""
    if pinned and authority.version == Version.v1:
        return True  # as roots of old are: it can say nothing of itself
    if not _known(authority):
        return False
    try:
        basic = authority.extensions.get_extension_for_class(BasicConstraints).value
        usage = usage_of(authority)
        signs = _signs_certificates(authority)
    except (ExtensionNotFound, *cms.UNREADABLE):
        return False
    long = basic.path_length is not None and below > basic.path_length
    fits = not usage or purpose in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
    return basic.ca and signs and fits and not long


def _signs_certificates(authority: Certificate) -> bool:
    try:
        return authority.extensions.get_extension_for_class(KeyUsage).value.key_cert_sign
    except ExtensionNotFound:
        return True


def usage_of(certificate: Certificate) -> list[ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value)
    except ExtensionNotFound:
        return []


def _common_name(certificate: Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()
