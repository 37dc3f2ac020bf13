"""Revocation lists of authorities (RFC 5280, 5): which of their certificates are good no longer.

A list counts if an authority that is trusted has signed it. Whether there has to be one, and a current one, policy says
(`security: revocation:`); what a list says counts also when it is past its time. Not here: how lists come (cli.pki).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from cofferdam.protocols.opcua.issuers import has_issued

LISTS, LIST_BYTES = 20, 256 << 10
"""Of one side; bytes of one."""


def issuer_of(data: bytes, authorities: Iterable[x509.Certificate]) -> tuple[x509.CertificateRevocationList, int]:
    """A list (DER), and which of the authorities has signed it; -1 for none. Raises: ValueError for what is no list."""
    try:
        found = x509.load_der_x509_crl(data)
        for number, authority in enumerate(authorities):
            key = authority.public_key()
            if found.issuer == authority.subject and isinstance(key, RSAPublicKey) and found.is_signature_valid(key):
                return found, number
    except (TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise ValueError(f"no revocation list: {error}") from None
    return found, -1


class Revocations:
    """The lists of one side."""

    def __init__(self, lists: Sequence[bytes], authorities: Sequence[x509.Certificate]) -> None:
        """Lists that no authority here has signed count for nothing. Raises: ValueError for what is no list."""
        self._authorities = tuple(authorities)
        self._lists: dict[int, x509.CertificateRevocationList] = {}
        for data in lists:
            found, number = issuer_of(data, authorities)
            known = self._lists.get(number)
            if number >= 0 and (known is None or known.last_update_utc < found.last_update_utc):
                self._lists[number] = found

    def wrong(self, certificate: x509.Certificate, wall: int, required: bool) -> tuple[bool, str]:
        """(whether it is revoked, why a certificate is not good); "" if it is. `wall`: UTC ns."""
        for number, authority in enumerate(self._authorities):
            if certificate == authority or not has_issued(authority, certificate):
                continue
            known = self._lists.get(number)
            serial = certificate.serial_number
            if known is not None and known.get_revoked_certificate_by_serial_number(serial) is not None:
                return True, "its authority has revoked it"
            if required and (known is None or _is_late(known, wall)):
                return False, "there is no current revocation list of its authority: `cofferdam pki crl` takes one"
        return False, ""

    def late(self, wall: int) -> list[str]:
        """The authorities whose lists are past their time."""
        return [
            self._authorities[number].subject.rfc4514_string()[:80]
            for number, known in sorted(self._lists.items()) if _is_late(known, wall)
        ]  # fmt: skip


def _is_late(known: x509.CertificateRevocationList, wall: int) -> bool:
    until = known.next_update_utc
    return until is not None and until.timestamp() * 1e9 < wall
