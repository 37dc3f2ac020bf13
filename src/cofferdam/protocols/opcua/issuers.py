"""Who has issued a certificate: the chain from it up to an authority that is trusted (OPC 10000-4, 6.1.3).

Authorities in between come with the certificate, or are known beforehand (`cofferdam pki trust --issuer`); neither
makes them trusted. Each of a chain has to be an authority that may have so many below it, with a key and a hash that
are good, in its time, and not rejected. Not here: the certificate itself, revocation, who is trusted (trust).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cofferdam.protocols.opcua.security import LEAST_KEY_BITS, MOST_KEY_BITS

CHAIN = 3
"""Certificates of one chain."""
HASHES = frozenset({"sha256", "sha384", "sha512"})


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it may issue certificates."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    # A self-signed application certificate may say CA as well (asyncua's do): it is an authority if it may sign.
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return found.value.ca
    return found.value.ca and usage.key_cert_sign


def authorities(some: Iterable[bytes]) -> list[x509.Certificate]:
    """Those of some certificates (DER) that are authorities. Raises: ValueError for what is no certificate."""
    return [found for found in map(x509.load_der_x509_certificate, some) if is_authority(found)]


def has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether the one has signed the other."""
    if authority.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def path(
    certificate: x509.Certificate,
    anchors: Sequence[x509.Certificate],
    between: Sequence[x509.Certificate],
    rejected: Callable[[x509.Certificate], bool],
) -> list[x509.Certificate]:
    """The authorities above a certificate, its own first, the trusted one last; none if no chain of CHAIN leads to one.
    `between`: authorities that are not trusted by themselves."""
    above: list[x509.Certificate] = []
    now = certificate
    while len(above) < CHAIN - 1:
        anchor = _issuer(now, anchors, above, rejected)
        if anchor is not None:
            return [*above, anchor]
        found = _issuer(now, between, [*above, now], rejected)
        if found is None:
            return []
        above.append(found)
        now = found
    return []


def _issuer(
    certificate: x509.Certificate,
    some: Sequence[x509.Certificate],
    used: Collection[x509.Certificate],
    rejected: Callable[[x509.Certificate], bool],
) -> x509.Certificate | None:
    for one in some:
        if one not in used and not rejected(one) and has_issued(one, certificate):
            return one
    return None


def wrong(authority: x509.Certificate, below: int, wall: int) -> str:
    """Why an authority of a chain is not good, "" if it is. `below`: authorities of the chain that are under it;
    `wall`: UTC ns."""
    key = authority.public_key()
    if not isinstance(key, RSAPublicKey) or not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        return "has no RSA key of 2,048 to 4,096 bits"
    hash_name = authority.signature_hash_algorithm
    if hash_name is None or hash_name.name not in HASHES:
        return "is signed with a hash that is too weak"
    begin, end = authority.not_valid_before_utc.timestamp(), authority.not_valid_after_utc.timestamp()
    if not begin <= wall / 1e9 <= end:
        return "is not valid at this time"
    try:
        length = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except (x509.ExtensionNotFound, ValueError):
        return "is no authority"
    if length is not None and below > length:
        return f"may have no more than {length} authorities below it"
    return ""
