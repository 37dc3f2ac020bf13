"""Chains of certificates that lead to the pinned one, and yet do not count: what openssl finds of each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from cofferdam.brokers.patch import chains, cms

KEYS = {name: rsa.generate_private_key(65537, 2048) for name in ("Root", "Inter", "Inter 2", "Vendor")}
CODE = ExtendedKeyUsageOID.CODE_SIGNING
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\5\0")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


NAMES = x509.NameConstraints([x509.DirectoryName(name("Other"))], None)


def made(
    subject: str, by: str, *, since: int = 2020, until: int = 2090, ca: bool = True, most: int | None = None,
    signs: bool = True, usage: ObjectIdentifier | None = None, more: Any = None, critical: bool = True,
) -> x509.Certificate:  # fmt: skip
    key = KEYS[subject]
    builder = (
        x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(by)).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(since, 1, 1, tzinfo=UTC)).not_valid_after(datetime(until, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca, most), critical=True)
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca and signs, False, False, False), critical=True
        )
    )  # fmt: skip
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if more is not None:
        builder = builder.add_extension(more, critical=critical)
    return builder.sign(KEYS[by], SHA256())


ROOT, INTER = made("Root", "Root"), made("Inter", "Root")
VENDOR = made("Vendor", "Inter", ca=False, usage=CODE)
LONG = [made("Inter 2", "Inter")]
FAR = made("Vendor", "Inter 2", ca=False, usage=CODE)


@pytest.mark.parametrize(
    ("chain", "root", "says"),
    [
        ([VENDOR, INTER], ROOT, ""),
        ([FAR, *LONG, INTER], ROOT, ""),
        ([FAR, *LONG, made("Inter", "Root", most=1)], ROOT, ""),
        ([VENDOR, made("Inter", "Root", usage=CODE)], ROOT, ""),
        ([VENDOR, made("Inter", "Root", until=2022), INTER], ROOT, ""),  # and its renewal
        ([VENDOR], VENDOR, ""),
        ([VENDOR, made("Inter", "Root", until=2022)], ROOT, "no time stamp counts"),
        ([VENDOR, made("Inter", "Root", since=2089)], ROOT, "no time stamp counts"),
        ([VENDOR, INTER], made("Root", "Root", until=2022), "no time stamp counts"),
        ([VENDOR, made("Inter", "Root", signs=False)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", ca=False)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", usage=ExtendedKeyUsageOID.SERVER_AUTH)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", usage=ExtendedKeyUsageOID.TIME_STAMPING)], ROOT, "does not lead"),
        ([FAR, *LONG, made("Inter", "Root", most=0)], ROOT, "does not lead"),
        ([VENDOR, INTER], made("Root", "Root", most=0), "does not lead"),
        ([VENDOR, INTER], made("Root", "Root", ca=False), "does not lead"),
        ([VENDOR, made("Inter", "Root", more=NAMES)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", more=NAMES, critical=False)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", more=UNKNOWN)], ROOT, "does not lead"),
        ([VENDOR, made("Inter", "Root", more=UNKNOWN, critical=False)], ROOT, ""),
        ([made("Vendor", "Inter", ca=False, usage=CODE, more=UNKNOWN), INTER], ROOT, "does not lead"),
        ([VENDOR], ROOT, "does not lead"),
    ],
)  # fmt: skip
def test_what_a_chain_has_to_be(chain: list[x509.Certificate], root: x509.Certificate, says: str) -> None:
    signed = cms.Signed(chain[0], chain[1:], b"", b"", {})
    keys = [root.public_bytes(Encoding.PEM)]
    if not says:
        assert chains.signs_code(signed, keys, "Vendor", [])["publisher"] == "Vendor"
        return
    with pytest.raises(chains.NotVouched, match=says):
        chains.signs_code(signed, keys, "Vendor", [])


def test_twenty_that_vouch_for_each_other_take_no_time() -> None:
    """Nineteen of one name and key, each by all others."""
    key = KEYS["Inter"]
    others = []
    for _ in range(19):
        builder = x509.CertificateBuilder().subject_name(name("Inter")).issuer_name(name("Inter"))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        builder = builder.not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        others.append(builder.add_extension(x509.BasicConstraints(True, None), critical=True).sign(key, SHA256()))
    assert not chains.path_to(VENDOR, [ROOT], others, CODE)
