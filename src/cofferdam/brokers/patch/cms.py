"""A CMS signature (RFC 5652; PKCS #7 of old): who signed a file, as far as its signature itself says. Runs in the
examiner, which is thrown away and may start no program: so this is a strict reader of DER and nothing of `openssl`.

    one signer, by SHA-256 or better, over the file's own hash and the other signed attributes
    nothing behind, no attributes that nobody signed but time stamps
    by a certificate that is for signatures

What is not known is refused: indefinite lengths (BER), RSASSA-PSS, several signers. Not here: signatures within a file
(authenticode), time stamps (stamps), chains, dates and what a certificate is for besides signatures (origin).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509 import (
    Certificate,
    DuplicateExtension,
    ExtensionNotFound,
    InvalidVersion,
    KeyUsage,
    SubjectKeyIdentifier,
    UnsupportedGeneralNameType,
    load_der_x509_certificate,
)
from msgspec import Struct

from cofferdam.brokers.kit.source import Source
from cofferdam.errors import CofferdamError

CERTIFICATES_MOST: Final = 20
ATTRIBUTES_MOST: Final = 64
STAMP_BYTES: Final = 65_536
RSA_BITS: Final = 2048
_SIGNED: Final = bytes.fromhex("2a864886f70d010702")
_DATA: Final = bytes.fromhex("2a864886f70d010701")
_CONTENT_TYPE: Final = bytes.fromhex("2a864886f70d010903")
_DIGEST: Final = bytes.fromhex("2a864886f70d010904")
STAMP: Final = bytes.fromhex("2a864886f70d010910020e")
CODE_STAMP: Final = bytes.fromhex("2b060104018237030301")
STAMPED: Final = bytes.fromhex("2a864886f70d0109100104")
_COUNTER: Final = bytes.fromhex("2a864886f70d010906")
STAMPS: Final = frozenset({STAMP, CODE_STAMP, _COUNTER})
"""Attributes that may be there without the signer's signature: time stamps of RFC 3161, as CMS and as Authenticode have
them, and counter-signatures of old, which show nothing here."""
_HASHES: Final[dict[bytes, tuple[str, hashes.HashAlgorithm]]] = {
    bytes.fromhex("608648016503040201"): ("sha256", hashes.SHA256()),
    bytes.fromhex("608648016503040202"): ("sha384", hashes.SHA384()),
    bytes.fromhex("608648016503040203"): ("sha512", hashes.SHA512()),
}
_BY_HASH: Final = {
    "2a864886f70d01010b": "sha256", "2a864886f70d01010c": "sha384", "2a864886f70d01010d": "sha512",
    "2a8648ce3d040302": "sha256", "2a8648ce3d040303": "sha384", "2a8648ce3d040304": "sha512",
}  # fmt: skip
"""Algorithms of signatures that name their hash: RSA (PKCS #1) and ECDSA."""
_RSA: Final = "2a864886f70d010101"
_PEM: Final = re.compile(rb"\A\s*-----BEGIN (?:CMS|PKCS7)-----\s([A-Za-z0-9+/=\s]+)-----END (?:CMS|PKCS7)-----\s*\Z")
UNREADABLE: Final = (
    ValueError, DuplicateExtension, InvalidVersion, UnsupportedGeneralNameType, UnsupportedAlgorithm,
)  # fmt: skip
"""What comes of a certificate that is not as it should be, when it is asked: it is read no sooner."""
SEQUENCE, SET, OID, OCTETS, INTEGER = 0x30, 0x31, 0x06, 0x04, 0x02
_NULL: Final = 0x05


class NotSigned(CofferdamError):
    """It is no signature of this kind, or it does not hold."""


class Der:
    """Values of DER, one after the other (X.690). Raises NotSigned where they are none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def tag(self) -> int:
        """Of the next one; -1 at the end."""
        return self._data[self._at] if self._at < len(self._data) else -1

    def take(self, tag: int) -> bytes:
        """What is in the next one."""
        return self.whole(tag)[1]

    def whole(self, tag: int) -> tuple[bytes, bytes]:
        """(the next one, what is in it)."""
        data, at = self._data, self._at
        if self.tag != tag or at + 2 > len(data):
            raise NotSigned(f"the CMS signature has no {tag:#04x} where one belongs")
        length, start = data[at + 1], at + 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or start + count > len(data):
                raise NotSigned("a length in the CMS signature that is none of DER")
            length = int.from_bytes(data[start : start + count], "big")
            if length < 0x80 or length < 1 << (8 * (count - 1)):
                raise NotSigned("a length in the CMS signature that is longer than DER has it")
            start += count
        if start + length > len(data):
            raise NotSigned("the CMS signature is cut off")
        self._at = start + length
        return data[at : self._at], data[start : self._at]

    def end(self) -> None:
        if self._at != len(self._data):
            raise NotSigned("what is signed is not all of it: something behind the CMS signature")


class Signed(Struct, frozen=True):
    """A signature that holds. `content`: what it is over, where that came with it; `value`: the signature itself, which
    a time stamp is over; `stamps`: what stands beside it, by its kind, and is signed by somebody else."""

    certificate: Certificate
    others: list[Certificate]
    content: bytes
    value: bytes
    stamps: dict[bytes, bytes]


def signer(file: Source, signature: bytes) -> Signed:
    """A detached signature over a file.

    Raises:
        NotSigned: with the reason.
    """
    found = _PEM.search(signature)
    try:
        data = base64.b64decode(b"".join(found[1].split()), validate=True) if found else signature
    except binascii.Error:
        raise NotSigned("the CMS signature is damaged") from None

    def digest(name: str) -> bytes:
        made = hashlib.new(name)
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                made.update(piece)
        return made.digest()

    return opened_signature(data, (_DATA,), digest)


def opened_signature(
    data: bytes, kinds: Collection[bytes], digest: Callable[[str], bytes] | None = None,
    known: Sequence[Certificate] = (),
) -> Signed:  # fmt: skip
    """A signature over what came with it, of one of these kinds; or over what `digest` gives the hash of. `known`:
    certificates that may be the signer's, and need not come with it.

    Raises:
        NotSigned: with the reason.
    """
    outer = Der(data)
    info = Der(outer.take(SEQUENCE))
    outer.end()
    if info.take(OID) != _SIGNED:
        raise NotSigned("it is CMS, and not signed data")
    wrapped = Der(info.take(0xA0))
    info.end()
    signed = Der(wrapped.take(SEQUENCE))
    wrapped.end()
    _version(signed)
    methods = Der(signed.take(SET))
    method = methods.whole(SEQUENCE)[0]
    methods.end()
    holder = Der(signed.take(SEQUENCE))
    kind = holder.take(OID)
    if kind not in kinds:
        raise NotSigned("the CMS signature is over something else than a file" if digest is not None else
                        "the signature is over something else than it should be")  # fmt: skip
    content = b""
    if digest is not None:
        if holder.tag != -1:
            raise NotSigned("the CMS signature has a content of its own: it has to be detached")
    else:
        within = Der(holder.take(0xA0))
        content = within.take(OCTETS if kind == STAMPED else SEQUENCE)
        within.end()
    holder.end()
    certificates = [*(_certificates(signed.take(0xA0)) if signed.tag == 0xA0 else []), *known]
    infos = Der(signed.take(SET))
    signed.end()
    hash_of(algorithm(Der(method)))
    one = Der(infos.take(SEQUENCE))
    if infos.tag != -1:
        raise NotSigned("several have signed: it is not said which counts")
    try:
        certificate, value, stamps = _check(
            one, certificates, kind, digest or (lambda name: hashlib.new(name, content).digest())
        )
    except UNREADABLE as error:  # certificates are read where they are asked
        raise NotSigned(f"a certificate in the signature that cannot be read: {error}") from None
    others = [other for other in certificates if other != certificate]
    return Signed(certificate, others, content, value, stamps)


def _certificates(data: bytes) -> list[Certificate]:
    rest = Der(data)
    found: list[Certificate] = []
    while rest.tag != -1:
        if len(found) >= CERTIFICATES_MOST:
            raise NotSigned(f"more than {CERTIFICATES_MOST} certificates")
        try:
            found.append(load_der_x509_certificate(rest.whole(SEQUENCE)[0]))
        except UNREADABLE as error:
            raise NotSigned(f"a certificate in the signature that cannot be read: {error}") from None
    return found


def _check(
    info: Der, certificates: list[Certificate], kind: bytes, digest: Callable[[str], bytes]
) -> tuple[Certificate, bytes, dict[bytes, bytes]]:
    _version(info)
    certificate = _named(info, certificates)
    name, hashing = hash_of(algorithm(info))
    if info.tag == 0xA0:
        whole, attributes = info.whole(0xA0)
        _attributes(attributes, kind, digest(name))
        over = hashlib.new(name, b"\x31" + whole[1:]).digest()
    elif kind != _DATA:
        raise NotSigned("a signature without signed attributes, over something else than a file")
    else:
        over = digest(name)
    method = algorithm(info).hex()
    value = info.take(OCTETS)
    stamps: dict[bytes, bytes] = {}
    if info.tag == 0xA1:
        rest = Der(info.take(0xA1))
        while rest.tag != -1:
            one = Der(rest.take(SEQUENCE))
            stamp = one.take(OID)
            if stamp not in STAMPS or stamp in stamps:
                raise NotSigned("what is signed is not all of it: attributes that nobody signed")
            stamps[stamp] = one.take(SET)
            if len(stamps[stamp]) > STAMP_BYTES:
                raise NotSigned(f"a time stamp of more than {STAMP_BYTES} bytes")
            one.end()
    info.end()
    if method != _RSA and _BY_HASH.get(method) != name:
        raise NotSigned("the CMS signature is by a method that is not known here, or by a weak one")
    key = certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and not method.startswith("2a8648ce"):
            if key.key_size < RSA_BITS:
                raise NotSigned(f"the signer's RSA key has {key.key_size} bits, fewer than {RSA_BITS}")
            key.verify(value, over, padding.PKCS1v15(), Prehashed(hashing))
        elif isinstance(key, ec.EllipticCurvePublicKey) and method.startswith("2a8648ce"):
            key.verify(value, over, ec.ECDSA(Prehashed(hashing)))
        else:
            raise NotSigned("the signer's key is of another kind than the signature")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise NotSigned("the CMS signature does not hold") from None
    may_sign(certificate)
    return certificate, value, stamps


def algorithm(values: Der) -> bytes:
    """The next algorithm, which has no parameters: nobody signs them. Raises: NotSigned."""
    one = Der(values.take(SEQUENCE))
    found = one.take(OID)
    if one.tag != -1 and (one.tag != _NULL or one.take(_NULL)):
        raise NotSigned(
            "what is signed is not all of it: data beside an algorithm's name, or one that is not known here"
        )
    one.end()
    return found


def _version(values: Der) -> None:
    if len(values.take(INTEGER)) != 1:
        raise NotSigned("a CMS signature of a version that there is not")


def hash_of(oid: bytes) -> tuple[str, hashes.HashAlgorithm]:
    """Raises: NotSigned."""
    found = _HASHES.get(oid)
    if found is None:
        raise NotSigned("a CMS signature by a weak hash (SHA-1 or MD5), or by one that is not known here")
    return found


def _named(info: Der, certificates: list[Certificate]) -> Certificate:
    """The certificate that the signer names, by issuer and number or by its key's id."""
    if info.tag == 0x80:
        wanted = info.take(0x80)
        for one in certificates:
            try:
                if one.extensions.get_extension_for_class(SubjectKeyIdentifier).value.digest == wanted:
                    return one
            except (ExtensionNotFound, *UNREADABLE):
                continue
    else:
        by = Der(info.take(SEQUENCE))
        issuer, _ = by.whole(SEQUENCE)
        number = int.from_bytes(by.take(INTEGER), "big", signed=True)
        by.end()
        for one in certificates:
            if one.serial_number == number and one.issuer.public_bytes() == issuer:
                return one
    raise NotSigned("the signer's certificate is not in the signature")


def _attributes(data: bytes, of: bytes, digest: bytes) -> None:
    found: dict[bytes, bytes] = {}
    rest = Der(data)
    while rest.tag != -1:
        one = Der(rest.take(SEQUENCE))
        name, values = one.take(OID), one.take(SET)
        one.end()
        if name in found or len(found) >= ATTRIBUTES_MOST:
            raise NotSigned("a signed attribute that stands twice, or too many of them")
        found[name] = values
    kind, said = Der(found.get(_CONTENT_TYPE, b"")), Der(found.get(_DIGEST, b""))
    if kind.take(OID) != of or said.take(OCTETS) != digest:
        raise NotSigned("the CMS signature is over another file")
    kind.end()
    said.end()


def may_sign(certificate: Certificate) -> None:
    """Raises: NotSigned: it is not for signatures."""
    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
        if not usage.digital_signature:
            raise NotSigned("the signer's certificate is not for signatures")
    except ExtensionNotFound:
        pass
    except UNREADABLE as error:
        raise NotSigned(f"the signer's certificate cannot be read: {error}") from None
