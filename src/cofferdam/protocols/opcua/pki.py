"""What one side of OPC UA has, made and changed: keys, certificates, requests for them, whom it trusts. PURE.

Each function gives the file as it is afterwards, or None where the change is none of this side's. What is wrong raises
ValueError, with a sentence for whoever typed it.

Not here: what a part makes of the file (trust), where it lies and who says so (cli.pki).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec.structs import replace

from cofferdam.protocols.opcua.issuers import authorities
from cofferdam.protocols.opcua.revocation import LIST_BYTES, LISTS, issuer_of
from cofferdam.protocols.opcua.trust import Secret, application_uri, mark

KEY_BITS = 2048
NAME_LETTERS = 64
"""Of a common name (X.520)."""


# --- keys and certificates --------------------------------------------------------------------------------------------


def application(site: str, part: str, addresses: Iterable[str], now: datetime, days: int) -> Secret:
    """A new key, and its certificate as OPC 10000-6, 6.2.2 wants one."""
    key = rsa.generate_private_key(65537, KEY_BITS)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:cofferdam:{site}:{part}")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        _builder(f"Cofferdam {site} {part}", key.public_key(), now, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_usage(enciphers=True), critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Secret(key=_pem(key), certificate=builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def login(site: str, asset: str, now: datetime, days: int) -> tuple[str, bytes]:
    """A new key (PEM) and certificate (DER) by which we log in at an asset."""
    key = rsa.generate_private_key(65537, KEY_BITS)
    builder = _builder(f"Cofferdam {site} at {asset}", key.public_key(), now, days)
    made = builder.add_extension(_usage(enciphers=False), critical=True).sign(key, hashes.SHA256())
    return _pem(key), made.public_bytes(Encoding.DER)


def login_of(key: bytes, der: bytes) -> tuple[str, bytes]:
    """The same of a key and a certificate that there are."""
    try:
        found = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise ValueError("no key: one in PEM, without a password, is wanted") from None
    if (
        not isinstance(found, rsa.RSAPrivateKey)
        or found.public_key() != x509.load_der_x509_certificate(der).public_key()
    ):
        raise ValueError("not the key of that certificate")
    return _pem(found), der


def request(secret: Secret) -> bytes:
    """A request for a certificate of this side's key (PEM), for an authority to sign. It asks for what an application
    has to have (OPC 10000-6, 6.2.2); the authority adds what is its own."""
    key = serialization.load_pem_private_key(secret.key.encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("no RSA key")
    own = x509.load_der_x509_certificate(secret.certificate)
    wanted = x509.CertificateSigningRequestBuilder().subject_name(own.subject)
    for extension in own.extensions:
        if isinstance(extension.value, (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage)):
            wanted = wanted.add_extension(extension.value, extension.critical)
    return wanted.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def answered(secret: Secret, chain: Sequence[bytes], now: datetime) -> Secret | None:
    """With the certificate that an authority has made of our request, and those above it."""
    made = x509.load_der_x509_certificate(chain[0])
    if not secret.certificate:
        return None
    if serialization.load_pem_private_key(secret.key.encode(), None).public_key() != made.public_key():
        return None
    own = application_uri(x509.load_der_x509_certificate(secret.certificate))
    if application_uri(made) != own:
        raise ValueError(
            f"for the application {application_uri(made)!r}, and we are {own!r}: the authority has to take over the "
            "alternative names of the request"
        )
    if not made.not_valid_before_utc <= now <= made.not_valid_after_utc:
        raise ValueError("not valid now")
    return replace(secret, certificate=chain[0], above=tuple(chain[1:]))


def _builder(name: str, key: rsa.RSAPublicKey, now: datetime, days: int) -> x509.CertificateBuilder:
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:NAME_LETTERS])])
    return (
        x509.CertificateBuilder(common, common, key, x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )


def _usage(*, enciphers: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=enciphers, data_encipherment=enciphers,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()  # fmt: skip


# --- whom it trusts ---------------------------------------------------------------------------------------------------


def trusting(secret: Secret, der: bytes, *, issuer: bool = False) -> Secret:
    """A certificate is trusted, or known as that of an authority in between, whatever was said of it before."""
    revoked = tuple(one for one in secret.revoked if one != mark(der))
    known = tuple(one for one in (secret.issuers if issuer else secret.trusted) if one != der)
    if issuer:
        return replace(secret, issuers=(*known, der), revoked=revoked)
    return replace(secret, trusted=(*known, der), revoked=revoked)


def rejecting(secret: Secret, thumbprint: str) -> tuple[Secret, bytes] | None:
    """The first certificate whose thumbprint begins so is never trusted again; and which that is."""
    gone = next((der for der in (*secret.trusted, *secret.issuers) if mark(der).startswith(thumbprint)), None)
    if gone is None:
        return None
    kept, issuers = (tuple(one for one in those if one != gone) for those in (secret.trusted, secret.issuers))
    return replace(secret, trusted=kept, issuers=issuers, revoked=(*secret.revoked, mark(gone))), gone


def revocation_list(data: bytes) -> bytes:
    """A revocation list, PEM or DER, as DER."""
    try:
        pem = data.lstrip().startswith(b"-----")
        found = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    except ValueError:
        raise ValueError("no revocation list: one in PEM or DER is wanted") from None
    der = found.public_bytes(Encoding.DER)
    if len(der) > LIST_BYTES:
        raise ValueError(f"more than {LIST_BYTES >> 10} KiB")
    return der


def listing(secret: Secret, der: bytes) -> Secret | None:
    """With a revocation list of an authority that it knows, in the place of that one's older list."""
    known = authorities((*secret.trusted, *secret.issuers))
    found, number = issuer_of(der, known)
    if number < 0:
        return None
    olds = {one: issuer_of(one, known)[0] for one in secret.lists if issuer_of(one, known)[1] == number}
    if any(old.last_update_utc > found.last_update_utc for old in olds.values()):
        raise ValueError("older than the list that is there")
    kept = tuple(one for one in secret.lists if one not in olds)
    if len(kept) >= LISTS:
        raise ValueError(f"one list too many: a side has {LISTS} at most")
    return replace(secret, lists=(*kept, der))
