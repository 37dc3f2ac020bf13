"""Modbus/TCP Security on both sides of a gate, with pymodbus as the device and as the client: certificates, roles, and
what becomes of those who show none, or another's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pymodbus.client import ModbusTlsClient
from pymodbus.exceptions import ModbusException
from pymodbus.server import ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from cofferdam.brokers.proxy.securing import ROLE, role
from tests.gate.plant import Client, Gate, cli, events, log_of, running
from tests.ports import held_port, held_ports
from tests.waiting import PATIENT, eventually, gone

LOCAL = ipaddress.ip_address("127.0.0.1")
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


class Authority:
    """Signs certificates, and writes what a peer needs into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._made(self.name, self.key.public_key(), None, ())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(PEM))

    def _made(self, subject: x509.Name, public: Any, text: str | None, extensions: tuple[Any, ...],
              days: int = 90) -> x509.Certificate:  # fmt: skip
        now = datetime.datetime.now(datetime.UTC)
        authority = not extensions
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2)).not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False),
                           critical=True)
        )  # fmt: skip
        for extension in extensions:
            made = made.add_extension(extension, critical=False)
        if text is not None:
            data = text.encode()
            made = made.add_extension(x509.UnrecognizedExtension(ROLE, bytes((0x0C, len(data))) + data), critical=False)
        return made.sign(self.key, hashes.SHA256())

    def give(self, name: str, role: str | None = None, days: int = 90) -> tuple[Path, Path]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        names = x509.SubjectAlternativeName([x509.IPAddress(LOCAL), x509.DNSName(name)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._made(subject, key.public_key(), role, (uses, names), days)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(PEM))
        files[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return files


@contextlib.contextmanager
def device(authority: Authority, trusted: Path) -> Iterator[int]:
    """pymodbus as a device that asks for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.give("device"))
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    port, loop, ready = held_port(), asyncio.new_event_loop(), threading.Event()
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        stop.append(asyncio.Event())
        words = SimData(0, values=list(range(100, 200)), datatype=DataType.REGISTERS)
        server: Any = ModbusTlsServer(SimDevice(1, simdata=[words]), address=("127.0.0.1", port), sslctx=context)
        await server.serve_forever(background=True)
        ready.set()
        await stop[0].wait()
        await server.shutdown()
        await gone()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENT)
        yield port
    finally:
        loop.call_soon_threadsafe(stop[0].set)
        thread.join()
        loop.close()


POLICY = """
site: secured
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
assets:
  plc: {{zone: plant, address: 127.0.0.1, port: {device}, protocol: modbus, listen: "127.0.0.1:{port}", timeout: 20 s,
        tls: {{clients: yes, asset: yes}}}}
  named: {{zone: plant, address: 127.0.0.1, port: {device}, unit: 2, protocol: modbus, listen: "127.0.0.1:{other}",
          timeout: 20 s,
          tls: {{clients: yes, asset: yes}}}}
principals:
  operators: {{zone: office, addresses: 127.0.0.1, user: Operator}}
  viewers: {{zone: office, addresses: 127.0.0.1, user: Viewer}}
conduits:
  main:
    {{from: office, to: plant, broker: modbus, owner: t, reason: t, expires: 2099-01-01,
     allow: [{{who: [operators, viewers], asset: plc, registers: [holding 0-9]}},
             {{who: operators, asset: plc, write_registers: [holding 0-9]}}]}}
"""


@dataclass
class Site:
    gate: Gate
    state: Path
    policy: Path
    port: int
    plant: Authority

    @contextlib.contextmanager
    def client(self, files: tuple[Path, Path] | None) -> Iterator[Any]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.plant.file)
        context.check_hostname = False
        if files is not None:
            context.load_cert_chain(*files)
        client: Any = ModbusTlsClient("127.0.0.1", port=self.port, sslctx=context, timeout=PATIENT, retries=0)
        assert client.connect()
        with contextlib.closing(client):
            yield client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    plant = Authority(folder, "plant-ca")
    state, policy = folder / "state", folder / "policy.yaml"
    with device(plant, plant.file) as at:
        port, other = held_ports(2)
        policy.write_text(POLICY.format(device=at, port=port, other=other))
        state.mkdir(mode=0o700)
        for side, name in (("clients", "gate"), ("assets", "gate-inside")):
            certificate, key = plant.give(name)
            words = ("--certificate", certificate, "--key", key, "--trust", plant.file)
            assert cli("tls", side, *words, "--policy", policy, "--state", state)[0] == 0
        with running(state, policy, kind=Gate) as gate:
            yield Site(gate, state, policy, port, plant)


def test_roles_in_certificates_are_what_principals_name(site: Site) -> None:
    with site.client(site.plant.give("op", "Operator")) as client:
        answer = client.read_holding_registers(0, count=3, device_id=1)
        if answer.registers != [100, 101, 102]:
            print(answer, *(one["event"] for one in log_of(site.state)[-6:]), sep="\n")
        assert answer.registers == [100, 101, 102]
        assert not client.write_register(5, 7, device_id=1).isError()
        assert client.read_holding_registers(5, count=1, device_id=1).registers == [7]
    with site.client(site.plant.give("view", "Viewer")) as client:
        assert client.read_holding_registers(5, count=1, device_id=1).registers == [7]
        assert client.write_register(5, 8, device_id=1).exception_code == 1
    with site.client(site.plant.give("nobody")) as client:
        assert client.read_holding_registers(0, count=1, device_id=1).exception_code == 1
    told = {(one["user"], tuple(one["principals"])) for one in events(site.state, "client-identified")}
    assert {("Operator", ("operators",)), ("Viewer", ("viewers",))} <= told


def test_who_shows_nothing_or_anothers_certificate_is_not_served(site: Site, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "stranger-ca")
    for files in (None, strangers.give("op", "Operator"), site.plant.give("old", "Operator", days=-1)):
        try:
            with site.client(files) as client:
                answer = client.read_holding_registers(0, count=1, device_id=1)
        except (OSError, AssertionError, ModbusException):
            continue
        assert not answer.registers
    with pytest.raises((EOFError, OSError)), Client(site.port) as plain:
        plain.read()
    reasons = {one["reason"] for one in events(site.state, "session-closed")}
    assert any(reason.startswith("TLS: ") for reason in reasons), reasons


def test_other_certificates_are_taken_by_a_reload_and_a_bad_one_is_told(site: Site) -> None:
    before = site.plant.file.read_bytes()
    assert b"BEGIN" in before
    certificate, key = site.plant.give("gate-new")
    words = ("--certificate", certificate, "--key", key, "--trust", site.plant.file, "--state", site.state)
    assert cli("tls", "clients", *words)[0] == 0
    assert cli("reload", site.policy, "--state", site.state)[0] == 0
    operator = site.plant.give("op2", "Operator")

    def shows() -> bool:
        with site.client(operator) as client:
            client.connect()
            shown = x509.load_der_x509_certificate(client.socket.getpeercert(True))
            return shown.subject.rfc4514_string() == "CN=gate-new"

    eventually(shows)
    code, said, _ = cli("tls", "clients", "--state", site.state)
    assert (code, "a certificate until" in said) == (0, True)
    _, other = site.plant.give("mismatch")
    code, _, said = cli("tls", "clients", "--certificate", certificate, "--key", other, "--trust", site.plant.file,
                        "--state", site.state)  # fmt: skip
    assert (code, "the key is not that of the certificate" in said) == (2, True)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x0c\x08Operator", "Operator"),
        (b"\x0c\x09Operator", ""),
        (b"\x13\x08Operator", ""),
        (b"\x0c\x02a\n", ""),
        (b"", ""),
        (b"\x0c\x00", ""),
    ],
)
def test_a_role_is_a_text_that_can_be_shown(tmp_path: Path, data: bytes, found: str) -> None:
    authority = Authority(tmp_path, "ca")
    made = authority._made(authority.name, authority.key.public_key(), None, (x509.UnrecognizedExtension(ROLE, data),))
    assert role(made) == found
