"""CMS signatures as `openssl cms` makes them, and what is refused of them."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from cofferdam.brokers.patch.origin import NotProved, Pins, prove
from tests.brokers.patch.makers import run

CODE = ExtendedKeyUsageOID.CODE_SIGNING


class Maker:
    """A root of its own, and a signer under it: PEM files."""

    def __init__(
        self, folder: Path, *, kind: str = "rsa", uses: tuple[ObjectIdentifier, ...] = (CODE,), days: int = 30,
        signs: bool = True,
    ) -> None:  # fmt: skip
        folder.mkdir()
        now = datetime.datetime.now(datetime.UTC)

        def key() -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
            return rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())

        root, own = key(), key()
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(signs, False, not signs, False, False, False, False, False, False)

        def certificate(name: str, public: object, extension: x509.BasicConstraints | None) -> x509.Certificate:
            made = x509.CertificateBuilder().issuer_name(issuer).serial_number(x509.random_serial_number())
            made = made.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            made = made.public_key(public)  # type: ignore[arg-type]
            made = made.not_valid_before(now - datetime.timedelta(days=60))
            made = made.not_valid_after(now + datetime.timedelta(days=days))
            if extension is not None:
                made = made.add_extension(extension, critical=True)
            else:
                made = made.add_extension(usage, critical=True)
                made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)  # type: ignore[arg-type]
                if uses:
                    made = made.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
            return made.sign(root, hashes.SHA256())

        self.root = certificate("Root", root.public_key(), basic).public_bytes(Encoding.PEM)
        self.certificate, self.key = folder / "signer.pem", folder / "signer.key"
        self.certificate.write_bytes(certificate("Vendor Inc", own.public_key(), None).public_bytes(Encoding.PEM))
        self.key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def sign(self, file: Path, *more: str) -> bytes:
        return run("openssl", "cms", "-sign", "-binary", "-in", file, "-signer", self.certificate, "-inkey", self.key,
                   *(more or ("-outform", "DER")))  # fmt: skip


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("cms") / "rsa")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "fw.bin"
    made.write_bytes(b"firmware\r\n" * 1000)
    return made


@pytest.mark.parametrize(
    "more", [("-outform", "DER"), ("-outform", "PEM"), ("-outform", "DER", "-noattr"), ("-outform", "DER", "-keyid"),
             ("-outform", "DER", "-md", "sha512")], ids=" ".join,
)  # fmt: skip
def test_what_openssl_signs_is_taken(maker: Maker, file: Path, more: tuple[str, ...]) -> None:
    found = prove("cms", file, maker.sign(file, *more), Pins([maker.root], "Vendor Inc"))
    assert (found.detail, found.facts["publisher"]) == ("CMS, Vendor Inc", "Vendor Inc")


def test_by_ecdsa_as_well(tmp_path: Path, file: Path) -> None:
    made = Maker(tmp_path / "ec", kind="ec")
    assert prove("cms", file, made.sign(file), Pins([made.root], "")).detail == "CMS, Vendor Inc"


def test_another_file_is_refused(maker: Maker, file: Path) -> None:
    for more in ((), ("-outform", "DER", "-noattr")):
        signature = maker.sign(file, *more)
        file.write_bytes(file.read_bytes() + b"!")
        with pytest.raises(NotProved, match=r"another file|does not hold"):
            prove("cms", file, signature, Pins([maker.root], ""))
    with pytest.raises(NotProved, match="the publisher is"):
        prove("cms", file, maker.sign(file), Pins([maker.root], "Else"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("-outform", "DER", "-nodetach"), "content of its own"), (("-outform", "DER", "-md", "sha1"), "weak hash"),
        (("-outform", "DER", "-nocerts"), "not in the signature"),
        (("-outform", "DER", "-keyopt", "rsa_padding_mode:pss"), "not known here"),
        (("-outform", "DER", "-stream", "-indef"), "DER|content"),
    ],
)  # fmt: skip
def test_what_is_signed_otherwise_is_refused(maker: Maker, file: Path, more: tuple[str, ...], says: str) -> None:
    with pytest.raises(NotProved, match=says):
        prove("cms", file, maker.sign(file, *more), Pins([maker.root], ""))


def test_certificates_that_are_for_something_else(maker: Maker, tmp_path: Path, file: Path) -> None:
    mail = Maker(tmp_path / "mail", uses=(ExtendedKeyUsageOID.EMAIL_PROTECTION,))
    none = Maker(tmp_path / "none", uses=())
    cipher = Maker(tmp_path / "cipher", signs=False)
    over = Maker(tmp_path / "over", days=-1)
    for made, says in ((mail, "not for signing code"), (none, "not for signing code"), (over, "not now")):
        with pytest.raises(NotProved, match=says):
            prove("cms", file, made.sign(file), Pins([made.root], ""))
    with pytest.raises(NotProved, match="not for signatures"):
        prove("cms", file, cipher.sign(file), Pins([cipher.root], ""))
    with pytest.raises(NotProved, match="does not lead to a pinned"):
        prove("cms", file, maker.sign(file), Pins([mail.root], ""))


def test_two_signers_and_what_stands_behind(maker: Maker, tmp_path: Path, file: Path) -> None:
    other = Maker(tmp_path / "other")
    both = run("openssl", "cms", "-sign", "-binary", "-in", file, "-outform", "DER", "-signer", maker.certificate,
               "-inkey", maker.key, "-signer", other.certificate, "-inkey", other.key)  # fmt: skip
    with pytest.raises(NotProved, match="several have signed"):
        prove("cms", file, both, Pins([maker.root], ""))
    with pytest.raises(NotProved, match="something behind"):
        prove("cms", file, maker.sign(file) + b"\0", Pins([maker.root], ""))
    for wrong in (b"", b"\x30", b"\x30\x80\0\0", b"\x30\x84\0\0\0\1\0", b"-----BEGIN CMS-----\n=\n-----END CMS-----\n"):
        with pytest.raises(NotProved):
            prove("cms", file, wrong, Pins([maker.root], ""))


def test_no_changed_byte_is_taken(maker: Maker, file: Path) -> None:
    """Any one byte of what is signed or signs: refused, and never a failure of ours. Bytes of the signature's own
    version numbers, its list of digests and certificates that do not count are nobody's."""
    signature = maker.sign(file)
    dice, taken = random.Random(7), 0
    for _ in range(300):
        at = dice.randrange(len(signature))
        changed = signature[:at] + bytes([signature[at] ^ 1 << dice.randrange(8)]) + signature[at + 1 :]
        try:
            found = prove("cms", file, changed, Pins([maker.root], "Vendor Inc"))
        except NotProved:
            continue
        taken += 1
        assert found.facts["publisher"] == "Vendor Inc"
    assert taken < 20
