"""Whom a part trusts, and by what it is known: one file of the state directory, which reaches the part by its control
pipe.

A certificate is trusted when it is in the list itself, or was issued by an authority in it; nothing is ever trusted for
having come first. The order of the checks is that of OPC 10000-4, 6.1.3; what fails before a session has one answer,
but for the times. What was refused is kept (REJECTED of them), so that an operator can look at it and trust it.

Not here: reading and writing the file (cli.pki), channels.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cofferdam.errors import GateError
from cofferdam.protocols.opcua.budget import Budget
from cofferdam.protocols.opcua.channel import BAD_SECURITY, Fault, Own
from cofferdam.protocols.opcua.conditions import Conditions
from cofferdam.protocols.opcua.issuers import CHAIN, HASHES, authorities, is_authority, path, wrong
from cofferdam.protocols.opcua.kept import Keeping
from cofferdam.protocols.opcua.moving import Sessions
from cofferdam.protocols.opcua.rendered import Rendered
from cofferdam.protocols.opcua.revocation import Revocations
from cofferdam.protocols.opcua.security import LEAST_KEY_BITS, MOST_KEY_BITS, Policy

REJECTED = 100
CHAIN_BYTES = 16_384
SECTION = "OPC 10000-4, 6.1.3"
BAD_TIME, BAD_REVOKED, BAD_REVOCATION_UNKNOWN = 0x80140000, 0x801D0000, 0x801B0000
BAD_ISSUER_TIME, BAD_ISSUER_REVOKED, BAD_ISSUER_UNKNOWN = 0x80150000, 0x801E0000, 0x801C0000
ITERATIONS, MEMORY_KIB = 2, 19 * 1024
"""Of argon2id: what OWASP recommends, which is some 40 ms and 19 MiB for each password that is looked at."""
NOBODY = f"$argon2id$v=19$m={MEMORY_KIB},t={ITERATIONS},p=1${'A' * 22}${'A' * 43}"
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
PASSWORD_BYTES = 64
KEY_WORK, KEY_WORK_ALL, KEY_WORK_SECONDS = 20, 100, 3
"""Uses of our private key that strangers may have us make in a second: of one source, of all; and those of how many
seconds at once, since a client of many assets connects to all of them. A use is 0.7 to 5 ms, a connection two or three
of them."""
LOGINS, LOGINS_ALL = 2, 10
"""Passwords that are looked at in a second, likewise. One is some 50 ms."""


SOON_NS = 30 * 86_400 * 10**9
"""An alarm tells so long before a certificate's end."""
ALARMS = 16


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Certificates are DER. `users`: who may log in, with a hash of the password; `passwords`: what we log in
    with, by asset."""

    key: str = ""
    certificate: bytes = b""
    trusted: tuple[bytes, ...] = ()
    revoked: tuple[str, ...] = ()
    """Thumbprints (hexadecimal SHA-1) that are never trusted again."""
    users: dict[str, str] = {}
    passwords: dict[str, str] = {}
    user_certificates: dict[str, bytes] = {}
    """By user: the certificate (DER) by which that user may log in."""
    lists: tuple[bytes, ...] = ()
    """Revocation lists (DER) of authorities that are trusted, or are issuers."""
    issuers: tuple[bytes, ...] = ()
    """Certificates (DER) of authorities in between: they are known, and are as good as those above them."""
    above: tuple[bytes, ...] = ()
    """Certificates (DER) of the authorities that peers are sent with our own, its own first."""
    identities: dict[str, tuple[str, bytes]] = {}
    """By asset: the key (PEM) and the certificate (DER) by which we log in there."""

    def __repr__(self) -> str:
        return "<secret>"


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A changed file, as an operator's verb brings it. `by`: the gate says who."""

    secret: Secret
    by: str = ""


def mark(der: bytes) -> str:
    """How a certificate is named to people: its SHA-1, as the standard has it."""
    return hashlib.sha1(der, usedforsecurity=False).hexdigest()


def hash_password(password: str, salt: bytes) -> str:
    """What is kept of a password: argon2id (RFC 9106), with its parameters. `salt`: 16 bytes."""
    made = Argon2id(salt=salt, length=32, iterations=ITERATIONS, lanes=1, memory_cost=MEMORY_KIB)
    return made.derive_phc_encoded(password.encode())


def is_password(kept: str, password: bytes) -> bool:
    """Whether a password is the one of which this is kept; "": of nobody, which takes as long."""
    if kept.startswith("scrypt$"):  # as files of earlier versions have it
        salt, _, made = kept.removeprefix("scrypt$").partition("$")
        found = Scrypt(base64.b64decode(salt), 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(password)
        return hmac.compare_digest(found, base64.b64decode(made))
    try:
        Argon2id.verify_phc_encoded(password, kept or NOBODY)
    except InvalidKey:
        return False
    return bool(kept)


def application_uri(certificate: x509.Certificate) -> str:
    """The ApplicationUri of a certificate; "" where it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return found[0] if len(found) == 1 else ""


def split_chain(data: bytes) -> list[bytes]:
    """The certificates of a chain, which stand one behind the other. Raises: ValueError."""
    found: list[bytes] = []
    at = 0
    if len(data) > CHAIN_BYTES:
        raise ValueError("a chain that is too long")
    while at < len(data):
        if data[at : at + 2] != b"\x30\x82" or len(data) - at < 4:
            raise ValueError("no certificate")
        size = 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        one = data[at : at + size]
        if len(one) != size or len(found) == CHAIN or one in found:
            raise ValueError("a chain that is cut short, too long, or has a certificate twice")
        found.append(one)
        at += size
    if not found:
        raise ValueError("no certificate")
    return found


def chain_mark(chain: bytes) -> str:
    """The name of the first certificate of a chain. Raises: ValueError."""
    return mark(split_chain(chain)[0])


class Trust:
    """What all machines of a part share."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self.rejected: OrderedDict[str, bytes] = OrderedDict()
        self.generation = 0
        """Goes up with each change: who trusted something asks again."""
        self._logins = Budget(LOGINS, LOGINS_ALL)
        self._key_work = Budget(KEY_WORK, KEY_WORK_ALL, KEY_WORK_SECONDS)
        self._servers: dict[str, bytes] = {}
        self.described: dict[Any, tuple[int, Any]] = {}
        """What an asset's nodes are, by (asset, what was asked for): since when it is known (monotonic ns), and it."""
        self.doubts: set[str] = set()
        """Assets with which no channel came to be by the certificate that is known of them."""
        self.strangers: set[str] = set()
        """Assets whose server shows a certificate that is refused."""
        self.away: set[str] = set()
        """Assets that did not answer when they were asked last."""
        self.keeping = Keeping()
        self.rendered = Rendered()
        self.conditions = Conditions(ids=False)  # of notifiers by "ASSET: NAME"
        self.sessions = Sessions()
        self._ends: list[tuple[int, str, bool]] = []  # when certificates end (UTC ns), their names, whether it is ours
        self.take(read(secrets.get("opcua", b"")))

    def take(self, secret: Secret) -> None:
        """Works by this from now on. Raises: GateError where it is damaged."""
        own: Own | None = None
        uri = ""
        if secret.certificate or secret.key:
            own, certificate = _own(secret.key, secret.certificate, b"".join(secret.above))
            uri = application_uri(certificate)
        self._identities = {asset: _own(*found)[0] for asset, found in secret.identities.items()}
        self.secret, self.own, self.uri = secret, own, uri
        self._trusted = {mark(der): der for der in secret.trusted}
        for gone in secret.revoked:
            self._trusted.pop(gone, None)
        for known in self._trusted:
            self.rejected.pop(known, None)
        self._ends = []
        mine = (secret.certificate, *(der for _, der in secret.identities.values()))
        theirs = (*self._trusted.values(), *secret.issuers)
        for der, ours in (*((der, True) for der in mine), *((der, False) for der in theirs)):
            if der:
                found = x509.load_der_x509_certificate(der)
                self._ends.append((int(found.not_valid_after_utc.timestamp()) * 10**9, mark(der), ours))
        self._authorities = authorities(self._trusted.values())
        self._issuers = authorities(secret.issuers)
        try:
            self._revocations = Revocations(secret.lists, (*self._authorities, *self._issuers))
        except ValueError as error:
            raise GateError(f"a revocation list for OPC UA is damaged: {error}") from None
        self.generation += 1
        self._servers.clear()

    def judge(self, data: bytes, policy: Policy, wall: int, pin: str = "", revocation: bool = False) -> RSAPublicKey:
        """The key of a peer that may be spoken with. `wall`: UTC ns. `pin`: the ApplicationUri that it must have.
        `revocation`: whether there has to be a current list of its authority, if it has one.

        Raises: Fault.
        """
        try:
            leaf, *sent = split_chain(data)
            between = (*self._issuers, *authorities(sent))
            certificate = x509.load_der_x509_certificate(leaf)
            key = certificate.public_key()
            hash_name = certificate.signature_hash_algorithm
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Fault(f"a certificate that is none: {str(error)[:80]}", BAD_SECURITY, SECTION) from None
        name = mark(leaf)
        if not isinstance(key, RSAPublicKey) or not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
            raise Fault(f"the certificate {name} has no RSA key of 2,048 to 4,096 bits", BAD_SECURITY, SECTION)
        if hash_name is None or hash_name.name not in HASHES:
            raise Fault(f"the certificate {name} is signed with a hash that is too weak", BAD_SECURITY, SECTION)
        if name in self.secret.revoked:
            raise Fault(f"the certificate {name} was rejected by an operator", BAD_SECURITY, SECTION)
        above = path(certificate, self._authorities, between, self._was_rejected)
        if name not in self._trusted and not above:
            self.rejected[name] = leaf
            self.rejected.move_to_end(name)
            while len(self.rejected) > REJECTED:
                self.rejected.popitem(last=False)
            who = certificate.subject.rfc4514_string()[:80]
            raise Fault(
                f"the certificate {name} ({who}) is not trusted; `cofferdam pki trust {name}` trusts it",
                BAD_SECURITY,
                SECTION,
            )
        seconds = wall / 1e9
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if not begin <= seconds <= end:
            raise Fault(f"the certificate {name} is not valid at this time", BAD_TIME, SECTION)
        if name not in self._trusted:
            self._judge_issuers(name, above, wall, revocation)
        revoked, why = self._revocations.wrong(certificate, wall, revocation)
        if why:
            raise Fault(f"the certificate {name}: {why}", BAD_REVOKED if revoked else BAD_REVOCATION_UNKNOWN, SECTION)
        if pin and application_uri(certificate) != pin:
            raise Fault(
                f"the certificate {name} is of {application_uri(certificate)[:80]!r}, not of {pin}",
                BAD_SECURITY,
                SECTION,
            )
        return key

    def _was_rejected(self, authority: x509.Certificate) -> bool:
        return bool(self.secret.revoked) and mark_of(authority) in self.secret.revoked

    def _judge_issuers(self, name: str, above: list[x509.Certificate], wall: int, revocation: bool) -> None:
        """Whether all authorities of a chain are good. The last of them is trusted. Raises: Fault."""
        for below, authority in enumerate(above):
            who = f"the authority {mark_of(authority)} above the certificate {name}"
            why = wrong(authority, below, wall)
            if why:
                raise Fault(f"{who} {why}", BAD_ISSUER_TIME if "time" in why else BAD_SECURITY, SECTION)
            last = below == len(above) - 1
            revoked, why = self._revocations.wrong(authority, wall, revocation and not last)
            if why:
                status = BAD_ISSUER_REVOKED if revoked else BAD_ISSUER_UNKNOWN
                raise Fault(f"{who}: {why}", status, SECTION)
            if revocation and not last and authority not in self._issuers:
                # Of one that came with the certificate nobody here has a list.
                raise Fault(
                    f"{who} is not known here: `cofferdam pki trust --issuer FILE`", BAD_ISSUER_UNKNOWN, SECTION
                )

    def identity(self, asset: str) -> Own | None:
        """By what we log in at an asset, where that is a certificate."""
        return self._identities.get(asset)

    def server_certificate(self, asset: str, pin: str) -> bytes:
        """What an asset's server shows, as far as it is known beforehand: what it has shown and was trusted; else the
        trusted certificate of the ApplicationUri `pin`, or the only one; else b""."""
        known = list(self._trusted.values())
        if pin:
            known = [der for der in known if application_uri(x509.load_der_x509_certificate(der)) == pin]
        known = [der for der in known if not _is_pure_authority(der)]
        return self._servers.get(asset) or (known[0] if len(known) == 1 else b"")

    def learn_server(self, asset: str, certificate: bytes) -> None:
        """What an asset's server has shown, and was trusted."""
        self._servers[asset] = certificate

    def is_trusted(self, data: bytes, policy: Policy, wall: int, pin: str = "", revocation: bool = False) -> bool:
        """Whether a certificate that was trusted is so still."""
        try:
            self.judge(data, policy, wall, pin, revocation)
        except Fault:
            return False
        return True

    def may_work(self, source: str, now: int) -> bool:
        """Whether our private key may be used once more for somebody at this source. `now`: monotonic ns."""
        return self._key_work.spend(source, now)

    def login(self, user: str, password: bytes, source: str, now: int) -> bool | None:
        """Whether this is that user's password; None: so many were tried of late that it is not looked at. `now`:
        monotonic ns."""
        if not self._logins.spend(source, now):
            return None
        return is_password(self.secret.users.get(user, ""), password)

    def certified(self, data: bytes, wall: int) -> tuple[str, RSAPublicKey] | None:
        """The user whose certificate this is, and its key; None for nobody's, or one that is not good now. Whoever
        shows it has to prove yet that it is theirs. `wall`: UTC ns."""
        user = next((name for name, der in self.secret.user_certificates.items() if der == data), "")
        if not user:
            return None
        certificate = x509.load_der_x509_certificate(data)
        key = certificate.public_key()
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if not isinstance(key, RSAPublicKey) or not begin <= wall / 1e9 <= end:
            return None
        return user, key

    def credential(self, user: str) -> object:
        """What this user logs in by, to see whether it has changed."""
        return self.secret.users.get(user), self.secret.user_certificates.get(user)

    def alarms(self, wall: int) -> dict[str, str]:
        """The certificates that end soon, or have. `wall`: UTC ns."""
        found = {
            f"opcua-stranger-{asset}": f"the server of {asset} shows a certificate that is not trusted: "
            "`cofferdam pki list` shows it, `cofferdam pki trust` lets it in"
            for asset in sorted(self.strangers)[:ALARMS]
        }
        for number, authority in enumerate(self._revocations.late(wall)):
            found[f"opcua-revocation-{number}"] = (
                f"the revocation list of {authority} is past its time: `cofferdam pki crl` takes a newer one"
            )
        for end, name, ours in sorted(self._ends)[:ALARMS]:
            if end - wall < SOON_NS:
                day = datetime.datetime.fromtimestamp(end // 10**9, datetime.UTC)
                what = "our own certificate" if ours else "the certificate"
                mend = "`cofferdam pki new --again` makes another" if ours else "its owner has to bring another"
                words = "is good until" if end > wall else "was good until"
                found[f"opcua-certificate-{name[:12]}"] = f"{what} {name} {words} {day:%Y-%m-%d}: {mend}"
        return found

    def command(self, verb: str, arguments: bytes) -> Any:
        """An operator's verbs: see cli.pki. Raises: GateError."""
        if verb == "secrets":
            try:
                given = msgspec.json.decode(arguments, type=Given)
            except msgspec.MsgspecError as error:
                raise GateError(f"the keys for OPC UA are damaged: {error}") from None
            self.take(given.secret)
            return {"taken": True}
        if verb == "rejected":
            return {name: base64.b64encode(der).decode() for name, der in self.rejected.items()}
        raise GateError(f"there is no {verb!r} here")


def _own(pem: str, der: bytes, above: bytes = b"") -> tuple[Own, x509.Certificate]:
    """A key of ours and its certificate. Raises: GateError."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise GateError(f"the key or certificate for OPC UA is damaged: {error}") from None
    if not isinstance(key, RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise GateError("the key for OPC UA is not that of its certificate", hint="cofferdam pki new")
    return Own(der, key, above), certificate


def mark_of(certificate: x509.Certificate) -> str:
    """See mark."""
    return mark(certificate.public_bytes(serialization.Encoding.DER))


def _is_pure_authority(der: bytes) -> bool:
    """An authority that is no application."""
    certificate = x509.load_der_x509_certificate(der)
    return is_authority(certificate) and not application_uri(certificate)


def read(data: bytes) -> Secret:
    """A part's file. Raises: GateError."""
    if not data:
        return Secret()
    try:
        return msgspec.json.decode(data, type=Secret)
    except msgspec.MsgspecError as error:
        raise GateError(f"the file of keys for OPC UA is damaged: {error}") from None
