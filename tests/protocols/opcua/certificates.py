"""Keys and certificates of peers, made for a test."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


@functools.cache
def _key(_uri: str, bits: int) -> rsa.RSAPrivateKey:
    """The key of an application, which is made once: it takes long."""
    return rsa.generate_private_key(65537, bits)


def make(folder: Path, uri: str, *, days: int = 30, bits: int = 2048, slot: str = "") -> Path:
    """A folder with own.der and own.pem, of an application of this URI. `slot`: another key of the same."""
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(uri + slot, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]), False
        )
        .add_extension(usage, True)
        .sign(key, hashes.SHA256())
    )
    (folder / "own.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (folder / "own.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return folder


def sign(request: bytes, folder: Path) -> Path:
    """The file of the certificate that an authority, made in `folder`, gives for a request (PEM)."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, 2048)
    asked = x509.load_pem_x509_csr(request)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]),
        subject_name=asked.subject,
        public_key=asked.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(hours=1),
        not_valid_after=now + timedelta(days=30),
    )
    for extension in asked.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = folder / "made.der"
    made.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
    return made


class Authority:
    """An authority, which gives certificates and takes them back."""

    def __init__(
        self, name: str = "authority", above: Authority | None = None, *, under: int | None = None, days: int = 300
    ) -> None:
        """`above`: who has made it one; None: itself. `under`: how many authorities it may have below it."""
        self._days = days
        self._key = _key(name, 2048)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._serials: dict[Path, int] = {}
        now = datetime.now(UTC)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.certificate = (
            (above or self)
            ._builder(self._name, self._key, now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=under), True)
            .add_extension(usage, True)
            .sign((above or self)._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )
        self.serial = x509.load_der_x509_certificate(self.certificate).serial_number

    def _builder(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, now: datetime, days: int = 300
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer_name=self._name, subject_name=subject, public_key=key.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=now - timedelta(days=100),
            not_valid_after=now + timedelta(days=days),
        )  # fmt: skip

    def give(self, folder: Path) -> Path:
        """Has an application (`make`) have a certificate of this authority in place of its own."""
        own = x509.load_der_x509_certificate((folder / "own.der").read_bytes())
        key = serialization.load_pem_private_key((folder / "own.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        builder = self._builder(own.subject, key, datetime.now(UTC))
        for extension in own.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        made = builder.sign(self._key, hashes.SHA256())
        self._serials[folder] = made.serial_number
        (folder / "own.der").write_bytes(made.public_bytes(serialization.Encoding.DER))
        return folder

    def list(self, *gone: Path | Authority, days: float = 30, ago: float = 0) -> bytes:
        """A revocation list, with the certificates of these folders, or of these authorities, in it."""
        now = datetime.now(UTC) - timedelta(days=ago)
        builder = x509.CertificateRevocationListBuilder(self._name, now, now + timedelta(days=days))
        for one_gone in gone:
            serial = one_gone.serial if isinstance(one_gone, Authority) else self._serials[one_gone]
            one = x509.RevokedCertificateBuilder(serial, now).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
