"""The vendor's site, by HTTPS: firmware and its signatures on a page with links, and advisories as a provider of CSAF
has them. It is known by its key, which no authority vouches for.

Not here: who fetches from it (the gate's fetcher).
"""

from __future__ import annotations

import functools
import json
import ssl
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cofferdam.brokers.kit.tls import public_key_hash
from cofferdam.lab.patch import events
from cofferdam.lab.patch.vendor import HOST, Vendor, firmware

ADVISORY: Final = "FW-2026-1"
VERSION: Final = "2.0"
"""Of the firmware that is there."""
NOBODYS: Final = f"manual-{VERSION}.txt"
"""A file that no rule of the policy names."""
VALID: Final = timedelta(days=30)


class Certificate:
    """Its own."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name, now = x509.Name.from_rfc4514_string(f"CN={HOST}"), datetime.now(UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - VALID)
            .not_valid_after(now + VALID)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
            .sign(key, SHA256())
        )
        self.known_by = public_key_hash(made.public_bytes(Encoding.DER))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.pem = made.public_bytes(Encoding.PEM) + private
        """With its key."""


def advisory(now: datetime) -> dict[str, Any]:
    """The controller below 1.0 opens its door to anybody."""
    at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    said = (("vers:intdot/<1.0", "known_affected"), ("vers:intdot/>=1.0", "fixed"))
    branches = [
        {
            "category": "product_version_range", "name": versions,
            "product": {"product_id": says, "name": f"Filler controller {versions}"},
        }
        for versions, says in said
    ]  # fmt: skip
    return {
        "document": {
            "category": "csaf_security_advisory", "csaf_version": "2.0", "title": "A door that is open",
            "publisher": {"category": "vendor", "name": "Filler Works", "namespace": f"https://{HOST}"},
            "tracking": {
                "id": ADVISORY, "status": "final", "version": "1", "initial_release_date": at,
                "current_release_date": at, "revision_history": [{"date": at, "number": "1", "summary": "first"}],
            },
        },
        "product_tree": {"branches": [{"category": "vendor", "name": "Filler Works", "branches": [
            {"category": "product_name", "name": "Filler controller", "branches": branches}]}]},
        "vulnerabilities": [{"cve": "CVE-2026-1234", "product_status": {says: [says] for _, says in said}}],
    }  # fmt: skip


def lay(folder: Path, vendor: Vendor, certificate: Certificate, port: int) -> None:
    """What it has, and what it shows itself by."""
    now = datetime.now(UTC).replace(microsecond=0)
    document = json.dumps(advisory(now)).encode()
    provider = {"distributions": [{"directory_url": f"https://{HOST}:{port}/csaf/"}]}
    image, name, told = firmware(VERSION), f"filler-{VERSION}.bin", f"{ADVISORY.lower()}.json"
    files = {
        "certificate.pem": certificate.pem,
        f"files/plc/{name}": image,
        f"files/plc/{name}.minisig": vendor.sign(image).encode(),
        f"files/plc/{NOBODYS}": b"how the filler is looked after",
        "files/csaf/provider-metadata.json": json.dumps(provider).encode(),
        "files/csaf/changes.csv": f"{told},{now.isoformat()}\n".encode(),
        f"files/csaf/{told}": document,
        f"files/csaf/{told}.minisig": vendor.sign(document).encode(),
    }
    for place, data in files.items():
        path = folder / place
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(data)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """What this process says is for events."""


def serve(folder: Path, address: str, port: int, sink: events.Sink) -> None:
    """Until it is ended."""
    server = ThreadingHTTPServer((address, port), functools.partial(_Quiet, directory=str(folder / "files")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    sink(events.Listening(address, server.server_port))
    server.serve_forever()
