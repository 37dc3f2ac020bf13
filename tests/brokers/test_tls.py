"""A part's TLS: certificate and key from memory, and what a client gets to see of it."""

from __future__ import annotations

import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from cofferdam.brokers.kit.tls import public_key_hash, server_context
from cofferdam.errors import GateError
from tests.brokers.relay.certificates import Made, make


def shaken(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "relay.test"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after the handshake, in memory. Raises: ssl.SSLError of the end that refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    open_ends = [theirs, ours]
    for _ in range(20):
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not open_ends:
            return ours, theirs
    raise AssertionError("the handshake does not end")


def client_of(trusted: Made, own: Made | None = None) -> ssl.SSLContext:
    """A client that trusts one certificate, with or without its own, all from memory as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.pem.decode())
    if own is not None:
        import tempfile

        with tempfile.NamedTemporaryFile() as file:
            file.write(own.pem + own.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def test_a_client_gets_the_certificate_with_its_chain() -> None:
    root = make("root", ca=True)
    middle = make("middle", by=root, ca=True)
    leaf = make("relay.test", by=middle)
    ours, theirs = shaken(server_context(leaf.pem + middle.pem, leaf.key), client_of(root))
    assert theirs.version() == "TLSv1.3"
    assert theirs.getpeercert(True) == leaf.certificate.public_bytes(serialization.Encoding.DER)
    assert ours.getpeercert(True) is None


def test_old_versions_of_tls_are_refused() -> None:
    made = make("relay.test")
    client = client_of(made)
    with pytest.warns(DeprecationWarning):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.minimum_version = ssl.TLSVersion.TLSv1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shaken(server_context(made.pem, made.key), client)


def test_a_clients_certificate_is_pinned_or_signed_or_refused() -> None:
    own, ca = make("relay.test"), make("erp-ca", ca=True)
    pinned, signed, stranger = make("erp"), make("lake", by=ca), make("erp")
    late = make("late", by=ca, days=-1)
    server = server_context(own.pem, own.key, pinned.pem + ca.pem)
    for each in (pinned, signed):
        ours, _ = shaken(server, client_of(own, each))
        der = each.certificate.public_bytes(serialization.Encoding.DER)
        assert ours.getpeercert(True) == der
        assert len(public_key_hash(der)) == 64
    shaken(server, client_of(own))  # none at all: a key will have to do
    for each in (stranger, late):
        with pytest.raises(ssl.SSLError):
            shaken(server, client_of(own, each))


@pytest.mark.parametrize("what", ["key of another", "no certificate", "no key", "nonsense"])
def test_what_does_not_fit_is_named_and_nothing_of_the_key_is_told(what: str) -> None:
    made, other = make("relay.test"), make("relay.test")
    pem = {"no certificate": b"", "nonsense": b"-----BEGIN CERTIFICATE-----\nAAAA\n"}.get(what, made.pem)
    key = {"key of another": other.key, "no key": b""}.get(what, made.key)
    with pytest.raises(GateError) as refused:
        server_context(pem, key)
    assert other.key.decode().splitlines()[1] not in str(refused.value)
