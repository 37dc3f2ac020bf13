"""A sigstore bundle beside a file: who signed it, by a certificate of minutes that a public log has seen. Runs in the
examiner, which has no network: everything is checked against the trust root that the policy pins.

    the signature     over this file, by the key in the certificate
    the log (Rekor)   has exactly this signature, certificate and hash: its entry, the entry's place in its tree, and
                      its signature over that tree
    the time          of the log's entry by the log's own signature, or of a pinned authority's time stamp (RFC 3161)
    the certificate   leads to the pinned authority (Fulcio), was valid at that time, is for signing code, and was shown
                      to a pinned log of certificates
    the signer        is the identity that the policy names, as the issuer that it names has seen it

Bundles of versions 0.1 to 0.3 are read, over a file (`cosign sign-blob --bundle`, `sigstore sign`). Refused are
attestations about a file (DSSE), bundles by a key without a certificate, and bundles without the entry's place in the
log's tree. Not here: certificates' chains and time stamps (chains), how a trust root gets here (it is a file beside the
policy).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509 import (
    Certificate,
    ExtensionNotFound,
    ObjectIdentifier,
    PrecertificateSignedCertificateTimestamps,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
    UnrecognizedExtension,
    load_der_x509_certificate,
    load_pem_x509_certificate,
)
from cryptography.x509.certificate_transparency import SignedCertificateTimestamp
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Meta, Struct

from cofferdam.audit.tree import check_inclusion, leaf_hash
from cofferdam.brokers.patch import chains, cms
from cofferdam.brokers.patch.cms import NotSigned

ROOT: Final = "application/vnd.dev.sigstore.trustedroot"
_BUNDLES: Final = frozenset(
    {
        *(f"application/vnd.dev.sigstore.bundle+json;version=0.{number}" for number in (1, 2, 3)),
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    }
)
_STAMPS_MOST: Final = 8
_ISSUER: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_OF_OLD: Final = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_UTF8: Final = 0x0C
_DASH: Final = "\u2014 "
_REFS: Final = ("heads/", "tags/")
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class _Said(Struct, rename="camel"):
    """JSON as protobuf writes it: numbers may be strings, and what is not known here is left out."""


class _Raw(_Said):
    raw_bytes: bytes


class _Certificates(_Said):
    certificates: list[_Raw]


class _Id(_Said):
    key_id: bytes


class _Kind(_Said):
    kind: str
    version: str


class _Checkpoint(_Said):
    envelope: str


class _Inclusion(_Said):
    root_hash: bytes
    tree_size: Count
    checkpoint: _Checkpoint
    log_index: Count = 0
    hashes: list[bytes] = []


class _Promise(_Said):
    signed_entry_timestamp: bytes


class _Entry(_Said):
    log_id: _Id
    kind_version: _Kind
    inclusion_proof: _Inclusion
    canonicalized_body: bytes
    log_index: Count = 0
    integrated_time: Count = 0
    inclusion_promise: _Promise | None = None


class _Stamp(_Said):
    signed_timestamp: bytes


class _Stamps(_Said):
    rfc3161_timestamps: list[_Stamp] = []


class _Material(_Said):
    tlog_entries: list[_Entry]
    certificate: _Raw | None = None
    x509_certificate_chain: _Certificates | None = None
    timestamp_verification_data: _Stamps | None = None


class _Digest(_Said):
    algorithm: str
    digest: bytes


class _Message(_Said):
    signature: bytes
    message_digest: _Digest | None = None


class _Bundle(_Said):
    media_type: str
    verification_material: _Material
    message_signature: _Message | None = None


# What the log has of a signature: "hashedrekord", of Rekor 1 and of Rekor 2.


class _HashOld(_Said):
    algorithm: str
    value: str


class _DataOld(_Said):
    hash: _HashOld


class _KeyOld(_Said):
    content: bytes


class _SignedOld(_Said):
    content: bytes
    public_key: _KeyOld


class _SpecOld(_Said):
    data: _DataOld
    signature: _SignedOld


class _BodyOld(_Said):
    api_version: str
    kind: str
    spec: _SpecOld


class _Verifier(_Said):
    x509_certificate: _Raw


class _Signed(_Said):
    content: bytes
    verifier: _Verifier


class _Inner(_Said):
    data: _Digest
    signature: _Signed


class _Spec(Struct):
    inner: _Inner = msgspec.field(name="hashedRekordV002")


class _Body(_Said):
    api_version: str
    kind: str
    spec: _Spec


# The trust root.


class _Span(_Said):
    start: datetime
    end: datetime | None = None

    def has(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at <= self.end)


class _Key(_Said):
    raw_bytes: bytes
    valid_for: _Span | None = None


class _Log(_Said):
    public_key: _Key
    log_id: _Id


class _Authority(_Said):
    cert_chain: _Certificates
    valid_for: _Span | None = None


class _Root(_Said):
    media_type: str
    tlogs: list[_Log]
    certificate_authorities: list[_Authority]
    ctlogs: list[_Log] = []
    timestamp_authorities: list[_Authority] = []


T = TypeVar("T")


def _read(data: bytes | str, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotSigned(f"{what} that cannot be read: {error}") from None


def signed(digest: bytes, data: bytes, roots: Sequence[bytes], identity: str, issuer: str) -> dict[str, str]:
    """What is kept of a bundle over a file with this SHA-256. `identity` ends with `*` for whatever follows.

    Raises:
        NotSigned, chains.NotVouched: with the reason.
    """
    bundle = _read(data, _Bundle, "a sigstore bundle")
    if bundle.media_type not in _BUNDLES:
        raise NotSigned(f"a sigstore bundle of a kind that is not known here: {bundle.media_type[:100]}")
    material, message = bundle.verification_material, bundle.message_signature
    if message is None:
        raise NotSigned(
            "the sigstore bundle is no signature over a file: an attestation (DSSE, in-toto, SLSA) says something "
            "about one, and is not read; `cosign sign-blob --bundle FILE.sigstore.json` makes one that is"
        )
    certificate = _certificate(material)
    try:
        return _checked(digest, message, material, certificate, roots, identity, issuer)
    except cms.UNREADABLE as error:
        raise NotSigned(f"a certificate in the sigstore bundle that cannot be read: {error}") from None


def _checked(
    digest: bytes, message: _Message, material: _Material, certificate: Certificate, roots: Sequence[bytes],
    identity: str, issuer: str,
) -> dict[str, str]:  # fmt: skip
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise NotSigned("the sigstore bundle is by a key of a kind that is not known here")
    said = message.message_digest
    if said is not None and (said.algorithm, said.digest) != ("SHA2_256", digest):
        raise NotSigned("the sigstore bundle is over another file")
    try:
        key.verify(message.signature, digest, ec.ECDSA(Prehashed(SHA256())))
    except InvalidSignature:
        raise NotSigned("the sigstore signature does not hold") from None
    if len(material.tlog_entries) != 1:
        raise NotSigned("a sigstore bundle has one entry of a log")
    entry = material.tlog_entries[0]
    _is_entry_of(entry, digest, message.signature, certificate)
    trusted, times = _trusted(roots, entry.log_id.key_id), list[datetime]()
    for number, (trust, log) in enumerate(trusted):
        try:
            times = _vouched(entry, log, trust, material.timestamp_verification_data, message.signature, certificate)
            break
        except (NotSigned, chains.NotVouched):  # an older root that is pinned as well, say
            if number + 1 == len(trusted):
                raise
    cms.may_sign(certificate)
    if ExtendedKeyUsageOID.CODE_SIGNING not in chains.usage_of(certificate):
        raise NotSigned("the certificate in the sigstore bundle is not for signing code")
    name, by = _name(certificate), _issuer(certificate)
    if by != issuer or not _is_who(name, identity):
        raise NotSigned(f"it is signed by {name!r} as {by!r} knows it, and the policy names {identity!r} by {issuer!r}")
    told = entry.inclusion_promise is not None or entry.kind_version.version != "0.0.1"
    return {
        "identity": name,
        "issuer": by,
        "certificate": sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        "signed_at": f"{min(times):%Y-%m-%dT%H:%M:%SZ}",
        "log_entry": str(entry.log_index if told else entry.inclusion_proof.log_index),
        "log": entry.log_id.key_id.hex(),
    }


def _vouched(
    entry: _Entry, log: _Log, trust: _Root, stamps: _Stamps | None, signature: bytes, certificate: Certificate
) -> list[datetime]:
    """When it was signed, where the log, the times, the certificate and who issued that hold by a trust root."""
    _is_in(entry, log)
    times = _times(entry, log, stamps, signature, trust)
    now = datetime.now(UTC)
    for at in times:
        if at > now:
            raise NotSigned(f"it was signed at {at:%Y-%m-%d %H:%M} UTC, which is still to come by the gate's clock")
        if not _span(log.public_key.valid_for).has(at):
            raise NotSigned(f"it was signed at {at:%Y-%m-%d %H:%M}, when the log's key did not hold")
    chain = _chain(certificate, trust, times)
    _was_shown(certificate, chain[1], trust.ctlogs)
    return times


def _is_who(name: str, identity: str) -> bool:
    """`*` at its end: any tag or branch, and not what others ask to be merged (`refs/pull/7/merge`)."""
    wanted = identity.removesuffix("*")
    if wanted == identity:
        return name == identity
    ref = name[len(wanted.rpartition("@refs/")[0]) :].removeprefix("@refs/")
    return name.startswith(wanted) and name != wanted and ref.startswith(_REFS)


def _certificate(material: _Material) -> Certificate:
    chain = material.x509_certificate_chain.certificates if material.x509_certificate_chain is not None else []
    found = [material.certificate] if material.certificate is not None else chain
    if not found or (material.certificate is not None and chain):
        raise NotSigned("the sigstore bundle has no certificate: a signature by a key alone is not known here")
    try:
        certificates = [load_der_x509_certificate(each.raw_bytes) for each in found]
        rooted = any(each.issuer == each.subject for each in certificates if each.subject.rdns)
    except cms.UNREADABLE as error:
        raise NotSigned(f"a certificate in the sigstore bundle that cannot be read: {error}") from None
    if rooted:
        raise NotSigned("the sigstore bundle brings a root of its own")
    return certificates[0]


# --- the log ----------------------------------------------------------------------------------------------------------


def _is_entry_of(entry: _Entry, digest: bytes, signature: bytes, certificate: Certificate) -> None:
    """Whether the log's entry says of this file, signature and certificate, and of nothing else."""
    body, kind = entry.canonicalized_body, entry.kind_version
    what = "an entry of the log"
    if (kind.kind, kind.version) == ("hashedrekord", "0.0.1"):
        old = _read(body, _BodyOld, what)
        named: tuple[str, str, bytes] = (old.kind, old.api_version, bytes.fromhex(_hex(old.spec.data.hash.value)))
        hashed, value = old.spec.data.hash.algorithm == "sha256", old.spec.signature.content
        try:
            same = load_pem_x509_certificate(old.spec.signature.public_key.content) == certificate
        except ValueError:
            same = False
    elif (kind.kind, kind.version) == ("hashedrekord", "0.0.2"):
        new = _read(body, _Body, what)
        named = (new.kind, new.api_version, new.spec.inner.data.digest)
        hashed, value = new.spec.inner.data.algorithm == "SHA2_256", new.spec.inner.signature.content
        same = new.spec.inner.signature.verifier.x509_certificate.raw_bytes == certificate.public_bytes(Encoding.DER)
    else:
        raise NotSigned(f"an entry of the log of a kind that is not known here: {kind.kind[:40]} {kind.version[:20]}")
    if named != (kind.kind, kind.version, digest) or not hashed or value != signature or not same:
        raise NotSigned("the log's entry is of another signature")


def _hex(text: str) -> str:
    return text if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text) else ""


def _trusted(roots: Sequence[bytes], log: bytes) -> list[tuple[_Root, _Log]]:
    """The pinned trust roots that know a log, and the log."""
    found = []
    for data in roots:
        root = _read(data, _Root, "a pinned trust root")
        known = root.tlogs if root.media_type.startswith(ROOT) else ()
        found += [(root, each) for each in known if each.log_id.key_id == log]
    if not found:
        raise NotSigned("the sigstore bundle is of a log that no pinned trust root has")
    return found


def _is_in(entry: _Entry, log: _Log) -> None:
    """Whether the entry is in the log's tree, as the log has signed it (C2SP signed-note, tlog-checkpoint)."""
    proof = entry.inclusion_proof
    text, blank, signatures = proof.checkpoint.envelope.partition("\n\n")
    lines = text.split("\n")
    head = [str(proof.tree_size), b64encode(proof.root_hash).decode()]
    if not blank or not lines[0] or lines[1:3] != head or len(proof.root_hash) != 32:
        raise NotSigned("the log's checkpoint is of another tree than the entry's place in it")
    for line in signatures.split("\n"):
        _, _, value = line.removeprefix(_DASH).rpartition(" ")
        try:
            signed_by = _read(json.dumps(value), bytes, "a checkpoint")
        except NotSigned:
            continue
        named = line.startswith(_DASH) and signed_by[:4] == log.log_id.key_id[:4]
        if named and _holds(log, signed_by[4:], f"{text}\n".encode()):
            break
    else:
        raise NotSigned("the log's checkpoint is not signed by the log")
    leaf = leaf_hash(entry.canonicalized_body)
    if entry.kind_version.version != "0.0.1" and entry.log_index != proof.log_index:  # of old, the promise has it
        raise NotSigned("the log's entry says another place than it has")
    if not check_inclusion(leaf, proof.log_index, proof.tree_size, proof.hashes, proof.root_hash):
        raise NotSigned("the log's tree does not have the entry")


def _holds(log: _Log, signature: bytes, data: bytes) -> bool:
    """Whether a log has signed something."""
    try:
        key = load_der_public_key(log.public_key.raw_bytes)
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(SHA256()))
        else:
            return False
    except (InvalidSignature, *cms.UNREADABLE):
        return False
    return True


def _times(entry: _Entry, log: _Log, stamps: _Stamps | None, signature: bytes, trust: _Root) -> list[datetime]:
    """When the signature was there, by all that says so and is believed."""
    found: list[datetime] = []
    if entry.inclusion_promise is not None:
        promised = {
            "body": b64encode(entry.canonicalized_body).decode(),
            "integratedTime": entry.integrated_time,
            "logID": entry.log_id.key_id.hex(),
            "logIndex": entry.log_index,
        }
        data = json.dumps(promised, separators=(",", ":"), sort_keys=True).encode()
        if not _holds(log, entry.inclusion_promise.signed_entry_timestamp, data):
            raise NotSigned("the log's promise does not hold")
        if entry.integrated_time and entry.kind_version.version == "0.0.1":
            found.append(_moment(entry.integrated_time))
    said = stamps.rfc3161_timestamps if stamps is not None else []
    if len(said) > _STAMPS_MOST:
        raise NotSigned(f"more than {_STAMPS_MOST} time stamps")
    why = ""
    for each in said:
        for authority in trust.timestamp_authorities:
            try:
                found.append(_stamped(each.signed_timestamp, signature, authority))
                break
            except (NotSigned, chains.NotVouched) as error:
                why = str(error)
    if not found:
        raise NotSigned(f"nothing that is believed says when it was signed{f': {why}' if why else ''}")
    return found


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise NotSigned("the log's entry has a time that is none") from None


def _stamped(answer: bytes, signature: bytes, authority: _Authority) -> datetime:
    """By a time stamp as authorities answer (TimeStampResp of RFC 3161, 2.4.2)."""
    chain = _loaded(authority)
    outer = cms.Der(answer)
    fields = cms.Der(outer.take(cms.SEQUENCE))
    outer.end()
    fields.take(cms.SEQUENCE)
    token = fields.whole(cms.SEQUENCE)[0]
    fields.end()
    at = chains.stamped_at(token, signature, chain[-1:], chain[:-1])
    if not _span(authority.valid_for).has(at):
        raise NotSigned(f"its time stamp is of {at:%Y-%m-%d}, when the trust root does not have that authority")
    return at


# --- the certificate --------------------------------------------------------------------------------------------------


def _span(span: _Span | None) -> _Span:
    if span is None:
        raise NotSigned("the pinned trust root does not say when a key of it holds")
    return span


def _loaded(authority: _Authority) -> list[Certificate]:
    found = [load_der_x509_certificate(each.raw_bytes) for each in authority.cert_chain.certificates]
    if not found:
        raise NotSigned("the pinned trust root has an authority without certificates")
    return found


def _chain(certificate: Certificate, trust: _Root, times: Sequence[datetime]) -> list[Certificate]:
    for authority in trust.certificate_authorities:
        above = _loaded(authority)
        paths = [
            chains.path_to(certificate, above[-1:], above[:-1], ExtendedKeyUsageOID.CODE_SIGNING, at)
            for at in times if _span(authority.valid_for).has(at)
        ]  # fmt: skip
        if len(paths) == len(times) and all(len(path) > 1 for path in paths):
            return paths[0]
    raise NotSigned("its certificate does not lead to an authority of the trust root, or was not valid when it signed")


def _was_shown(certificate: Certificate, issuer: Certificate, logs: Sequence[_Log]) -> None:
    """Whether a log of certificates has seen it (RFC 6962, 3.2 and 3.3)."""
    try:
        found = certificate.extensions.get_extension_for_class(PrecertificateSignedCertificateTimestamps).value
    except ExtensionNotFound:
        found = ()  # type: ignore[assignment]
    public = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for each in found:
        data = _seen(each, certificate.tbs_precertificate_bytes, sha256(public).digest())
        at = each.timestamp.replace(tzinfo=UTC)
        for log in logs:
            known = log.log_id.key_id == each.log_id and _span(log.public_key.valid_for).has(at)
            if known and _holds(log, each.signature, data):
                return
    raise NotSigned("no log of certificates that the trust root has has seen its certificate")


def _seen(stamp: SignedCertificateTimestamp, certificate: bytes, issuer: bytes) -> bytes:
    """What a log of certificates signs: its version, kind and time, and the certificate without what it says."""
    at = round(stamp.timestamp.replace(tzinfo=UTC).timestamp() * 1000)
    more = stamp.extension_bytes
    return b"".join(
        (b"\0\0", at.to_bytes(8, "big"), b"\0\1", issuer, len(certificate).to_bytes(3, "big"), certificate,
         len(more).to_bytes(2, "big"), more)
    )  # fmt: skip


def _name(certificate: Certificate) -> str:
    try:
        names = list(certificate.extensions.get_extension_for_class(SubjectAlternativeName).value)
    except ExtensionNotFound:
        names = []
    if len(names) != 1 or not isinstance(names[0], RFC822Name | UniformResourceIdentifier):
        raise NotSigned("the certificate in the sigstore bundle does not have one name, an address or a URI")
    return names[0].value


def _issuer(certificate: Certificate) -> str:
    """Who has seen that it is he, by what the authority wrote into the certificate."""
    said: dict[ObjectIdentifier, bytes] = {
        each.oid: each.value.value for each in certificate.extensions if isinstance(each.value, UnrecognizedExtension)
    }
    found = set()
    if _ISSUER in said:
        text = cms.Der(said[_ISSUER])
        found.add(text.take(_UTF8))
        text.end()
    if _ISSUER_OF_OLD in said:
        found.add(said[_ISSUER_OF_OLD])
    if len(found) != 1:
        raise NotSigned("the certificate in the sigstore bundle does not say who has seen its identity")
    return found.pop().decode("utf-8", "replace")
