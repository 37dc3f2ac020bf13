"""TLS contexts from bytes: a part of a crew has no files, its certificate and key come over the control pipe.

`ssl` takes trusted certificates from memory, but our own certificate and key from files only. OpenSSL itself takes them
from memory, so they are put into the context by OpenSSL's own functions. What is relied on is that CPython's SSLContext
holds its SSL_CTX as its first member; it is compared with the context's options before it is used, and refused else.

Not here: accepting connections (brokers.kit.aio), who a client is (its certificate: kit.http.keys).
"""

from __future__ import annotations

import ctypes
import ssl
import sys
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509 import Certificate, load_pem_x509_certificates

from cofferdam.errors import GateError

_EXTRA_CHAIN_CERT: Final = 14  # SSL_CTRL_EXTRA_CHAIN_CERT
_X509_POINTER: Final = ctypes.c_void_p


def _openssl() -> Any:
    import _ssl

    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_CTX_get_options.restype = ctypes.c_uint64
    library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_use_certificate_ASN1.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    library.SSL_CTX_use_PrivateKey.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.SSL_CTX_check_private_key.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    library.d2i_AutoPrivateKey.restype = ctypes.c_void_p
    library.d2i_AutoPrivateKey.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long]
    library.EVP_PKEY_free.argtypes = [ctypes.c_void_p]
    library.d2i_X509.restype = _X509_POINTER
    library.d2i_X509.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long]
    return library


_LIBRARY: Final[Any] = _openssl() if sys.implementation.name == "cpython" else None
"""Loaded with this module, because a part opens no file once its filter is closed."""


def _inside(context: ssl.SSLContext) -> ctypes.c_void_p:
    """The SSL_CTX of a context. Raises: GateError where this interpreter keeps it elsewhere."""
    if _LIBRARY is None:
        raise GateError("TLS in a part needs CPython")
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if not pointer.value or _LIBRARY.SSL_CTX_get_options(pointer) != int(context.options) & 0xFFFFFFFFFFFFFFFF:
        raise GateError("this Python keeps its TLS contexts in a way that is not known")
    return pointer


def load(pem: bytes, key: bytes) -> tuple[list[Certificate], PrivateKeyTypes]:
    """A certificate (with the chain after it) and its key, both PEM and the key without a password.

    Raises: GateError in words that name what is wrong and hold nothing of the key.
    """
    try:
        chain = load_pem_x509_certificates(pem)
    except ValueError as error:
        raise GateError(f"the certificate is not PEM: {error}") from None
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise GateError("the key of the certificate is not a PEM key without a password") from None
    if _spki(chain[0].public_key()) != _spki(private.public_key()):
        raise GateError("the key is not that of the certificate")
    return chain, private


def _spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def server_context(pem: bytes, key: bytes, trusted: bytes = b"") -> ssl.SSLContext:
    """A server's context: TLS 1.2 and later, HTTP/1.1. With `trusted` (PEM), clients may show a certificate; one that
    none of these signed, or is, ends the handshake. Raises: GateError.
    """
    chain, private = load(pem, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    if trusted:
        try:
            context.load_verify_locations(cadata=trusted.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise GateError(f"the clients' certificates are not PEM: {error}") from None
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    _give(context, chain, private)
    return context


def show(context: ssl.SSLContext, pem: bytes, key: bytes) -> None:
    """Has a context show this certificate (with the chain after it; PEM), without a file. Raises: GateError."""
    _give(context, *load(pem, key))


def _give(context: ssl.SSLContext, chain: list[Certificate], private: PrivateKeyTypes) -> None:
    inside = _inside(context)
    leaf = chain[0].public_bytes(serialization.Encoding.DER)
    if _LIBRARY.SSL_CTX_use_certificate_ASN1(inside, len(leaf), leaf) != 1:
        raise GateError("OpenSSL does not take the certificate")
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place = ctypes.c_char_p(der)
    loaded = _LIBRARY.d2i_AutoPrivateKey(None, ctypes.byref(place), len(der))
    try:
        if not loaded or _LIBRARY.SSL_CTX_use_PrivateKey(inside, loaded) != 1:
            raise GateError("OpenSSL does not take the key")
    finally:
        _LIBRARY.EVP_PKEY_free(loaded)
    if _LIBRARY.SSL_CTX_check_private_key(inside) != 1:
        raise GateError("the key is not that of the certificate")
    for certificate in chain[1:]:
        data = certificate.public_bytes(serialization.Encoding.DER)
        place = ctypes.c_char_p(data)
        found = _LIBRARY.d2i_X509(None, ctypes.byref(place), len(data))
        if not found or _LIBRARY.SSL_CTX_ctrl(inside, _EXTRA_CHAIN_CERT, 0, found) != 1:
            raise GateError("OpenSSL does not take a certificate of the chain")


def good_until(pem: bytes) -> int:
    """UTC ns at which the first of these certificates (PEM) expires."""
    return int(load_pem_x509_certificates(pem)[0].not_valid_after_utc.timestamp()) * 10**9


def public_key_hash(certificate: bytes) -> str:
    """Hex SHA-256 of the public key (SubjectPublicKeyInfo) of a DER certificate: stays when it is renewed."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(_spki(x509.load_der_x509_certificate(certificate).public_key()))
    return digest.finalize().hex()
