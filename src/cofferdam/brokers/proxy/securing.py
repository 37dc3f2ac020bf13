"""Modbus/TCP Security and its like: a protocol within TLS, in which both ends show certificates.

What a half needs of it: its certificate, key and whom it trusts (secrets of the part, `cofferdam tls`), made into a
context before its filter is on. A client's role stands in an extension of its certificate (MODBUS/TCP Security, v21,
8.4) and is the `user` that principals name.

Not here: TLS itself (kit.tls, kit.tls_stream).
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - names are looked at by it, and a part under its filter imports nothing
import ssl
from collections.abc import Callable, Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cofferdam.brokers.kit.tls import good_until, server_context, show
from cofferdam.brokers.kit.tls_stream import TlsTransport
from cofferdam.brokers.kit.transport import Transport
from cofferdam.errors import GateError
from cofferdam.protocols.base import Identified

ROLE = x509.ObjectIdentifier("1.3.6.1.4.1.50316.802.1")
MONTH_NS = 30 * 86400 * 10**9
UTF8 = 0x0C
SECRETS = ("certificate", "key", "trusted")


def context_of(secrets: Mapping[str, bytes], server: bool) -> ssl.SSLContext:
    """Raises: GateError, where something is missing or is not what it should be."""
    lacking = [name for name in SECRETS if not secrets.get(name)]
    if lacking:
        words = ", ".join("authorities" if name == "trusted" else name for name in lacking)
        raise GateError(f"there is no {words} for TLS", hint="cofferdam tls")
    certificate, key, trusted = (secrets[name] for name in SECRETS)
    if server:
        context = server_context(certificate, key, trusted)
        context.verify_mode = ssl.CERT_REQUIRED
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=trusted.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise GateError("the certificates that are trusted are not PEM") from None
    show(context, certificate, key)
    return context


def check_authorities(trusted: bytes) -> None:
    """Clients' certificates are held to RFC 5280 in full, and by this one no authority signs without a key usage
    (4.2.1.3): every client would end at the handshake. Raises: GateError."""
    for one in x509.load_pem_x509_certificates(trusted):
        try:
            if not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                continue
            one.extensions.get_extension_for_class(x509.KeyUsage)
        except x509.ExtensionNotFound as error:
            if error.oid == x509.KeyUsage.oid:
                name = one.subject.rfc4514_string()
                raise GateError(
                    f"{name} is an authority without a key usage: none of its clients would be taken",
                    hint="openssl req -x509 ... -addext keyUsage=critical,keyCertSign,cRLSign",
                ) from None
        except ValueError:
            continue


def role(certificate: x509.Certificate) -> str:
    """The role in a certificate; "" where it has none, or one that is no text."""
    try:
        found = certificate.extensions.get_extension_for_oid(ROLE).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    data = found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    if len(data) < 2 or data[0] != UTF8 or data[1] != len(data) - 2:
        return ""
    text = data[2:].decode("utf-8", "replace")
    return text if text.isprintable() else ""


class Securing:
    """What one half has of it."""

    def __init__(self, secrets: Mapping[str, bytes], server: bool) -> None:
        self._server = server
        self._context: ssl.SSLContext | None = None
        self._until = 0
        self.fault = ""
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # OpenSSL reads its own settings with the first one
        self.take(secrets)

    def take(self, secrets: Mapping[str, bytes]) -> None:
        """Other certificates from now on. What is wrong with them is told by `alarm`; the old ones are kept then."""
        try:
            self._context = context_of(secrets, self._server)
            self._until = good_until(secrets["certificate"])
            self.fault = ""
        except GateError as error:
            self.fault = f"{error}{f' ({error.hint})' if error.hint else ''}"

    def serve(self, transport: Transport, ready: Callable[[], None]) -> TlsTransport | None:
        """A client's connection, in TLS; None where there is nothing to show."""
        return None if self._context is None else TlsTransport(transport, self._context, "", ready)

    def dial(
        self, dial: Callable[[str, int, Callable[[], None]], Transport], name: str, address: str, port: int,
        connected: Callable[[], None],
    ) -> Transport:  # fmt: skip
        """A connection to a device, which is up when both have shown who they are. Raises: OSError."""
        context = self._context
        if context is None:
            raise OSError(0, self.fault)
        made: list[TlsTransport] = []
        below = dial(address, port, lambda: made[0].start())
        try:
            made.append(TlsTransport(below, context, name or address, connected))
        except ValueError as error:  # a name that none can have
            below.close()
            raise OSError(0, f"{name or address} can be no name in a certificate: {error}") from None
        return made[0]

    def shown(self, transport: Transport) -> Identified:
        """Who the client at the other end has shown to be."""
        if not isinstance(transport, TlsTransport):
            return Identified("", "", "")
        certificate = x509.load_der_x509_certificate(transport.peer())
        thumbprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - a name for it, as policies have them
        return Identified(role(certificate), "", thumbprint)

    def alarm(self, wall: int) -> str:
        """What a person should know of it."""
        if self.fault:
            return self.fault
        left = self._until - wall
        if left < MONTH_NS:
            return (
                f"the certificate for TLS {'has expired' if left < 0 else f'expires in {left // (86400 * 10**9)} days'}"
            )
        return ""
