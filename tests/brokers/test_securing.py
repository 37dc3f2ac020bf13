"""A protocol within TLS where something is missing: nothing is served without it, and a person is told."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cofferdam.audit.events.access import LimitHit
from cofferdam.brokers.proxy.securing import check_authorities
from cofferdam.errors import GateError, PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.stage import WALL, Stage, exception, read
from tests.brokers.test_vendor import POLICY


def made(asset: str) -> CompiledPolicy:
    return compile_policy(loads(POLICY.format(asset=asset, rule="functions: [7]"), name="p.yaml"), now_ns=WALL)


def test_without_a_certificate_no_client_is_served() -> None:
    stage = Stage(policy=made("tls: {clients: yes}"))
    client = stage.client()
    assert client.closed
    assert stage.outer.alarms()["tls-clients"].endswith(
        "there is no certificate, key, authorities for TLS (cofferdam tls)"
    )
    stage.outer.end()  # tells what is counted
    assert [hit.limit for hit in stage.of(LimitHit)] == ["tls"]


def test_without_a_certificate_no_device_is_asked() -> None:
    stage = Stage(policy=made("tls: {asset: yes}"))
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    assert client.take() == [exception(1, 3, 0x0A)]
    assert stage.dials == []
    assert "cofferdam tls" in stage.inner.alarms()["tls-assets"]


def test_a_policy_that_asks_for_tls_ends_who_came_without_and_serves_nobody_until_the_next_start() -> None:
    stage = Stage(policy=made("unit: 1"))
    client = stage.client()
    client.on_data(read(1))
    stage.cross()
    both = made("tls: {clients: yes, asset: yes}")
    for half in (stage.outer, stage.inner):
        half.take_policy(both, ("plc",))
    assert client.closed
    assert stage.client().closed
    assert "restart the gate" in stage.outer.alarms()["tls-clients"]


def test_ports() -> None:
    asset = made("tls: {clients: yes, asset: yes}").assets["plc"]
    assert (asset.port, asset.listen) == (802, ("127.0.0.1", 502)), "where a port is said, that one counts"
    assert made("port: 503\n    tls: {asset: yes}").assets["plc"].port == 503


@pytest.mark.parametrize(
    ("asset", "found"),
    [
        ("tls: {clients: no}", "tls for nobody, expected clients: yes, asset: yes, or both"),
        ("tls: {asset: yes}\n    quirks: rtu_over_tcp", "tls with the quirk rtu_over_tcp"),
        ("tls: {asset: yes}\n    quirks: rtu_echo", "tls with the quirk rtu_echo"),
        ("tls: {asset: maybe}", "maybe"),
    ],
)
def test_what_a_policy_may_not_say(asset: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        made(asset)
    assert found in str(caught.value.problems[0])


@pytest.mark.parametrize(("usage", "good"), [(False, False), (True, True)])
def test_an_authority_that_no_client_could_come_by_is_told(usage: bool, good: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "office")])
    now = datetime.now(UTC)
    made_of = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )  # fmt: skip
    if usage:
        signs = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        made_of = made_of.add_extension(x509.KeyUsage(**signs, key_cert_sign=True, crl_sign=True), critical=True)
    pem = made_of.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with (
        contextlib.nullcontext() if good else pytest.raises(GateError, match="CN=office is an authority without a key")
    ):
        check_authorities(pem)
