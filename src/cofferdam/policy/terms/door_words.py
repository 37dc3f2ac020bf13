"""Doors in the policy file: where a broker answers HTTP in a zone, and by which certificates it knows its clients.

Any broker's conduit may have them (`listen: {ZONE: {at: ADDRESS:PORT}}`). Not here: the rows (doors).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cofferdam.policy import notations, schema
from cofferdam.policy.document import Path
from cofferdam.policy.fields import YES_NO, FileName
from cofferdam.policy.findings import Checking
from cofferdam.policy.notations import Name, Text
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.doors import Door, Pin
from cofferdam.policy.yamltext import quote

if TYPE_CHECKING:  # most policies name no certificate
    from cryptography import x509


class ClientSaid(notations.Entry):
    """A client's certificate that stands for a principal, besides or instead of keys."""

    certificate: FileName | None = Field(
        None, description="The client's own certificate, a PEM file beside the policy: its public key is what counts."
    )
    authority: FileName | None = Field(
        None, description="Instead: the authority that signs the client's certificates, a PEM file beside the policy."
    )
    name: Text | None = Field(None, description="With `authority`: the DNS name in the client's certificate.")


class DoorSaid(notations.Entry):
    """Where a broker answers HTTP in a zone."""

    at: notations.Endpoint = Field(description="ADDRESS:PORT of this machine in the zone: `10.1.0.2:8443`.")
    tls: Name | None = Field(
        None,
        description="The name of the certificate that clients are shown; `cofferdam BROKER certificate NAME` brings it "
        "in. Default: the zone's name.",
    )
    plain: Annotated[bool, *YES_NO] = Field(
        False, description="HTTP without TLS: keys and answers can be read on the way."
    )
    clients: dict[Name, ClientSaid] = Field({}, description="Certificates of clients, by principal.")


class DoorChecks:
    """What is wrong with the doors of one conduit."""

    def __init__(self, name: str, conduit: schema.Conduit, checking: Checking) -> None:
        self.name = name
        self.conduit = conduit
        self.checking = checking

    def door(self, at: Path, zone: str, door: DoorSaid) -> None:
        here = (self.conduit.from_zone, self.conduit.to_zone)
        if zone not in here:
            found = f"the zone {quote(zone)}"
            self.checking.key(at, found, f"a zone of this conduit ({one_of(here)})", nearest(zone, here), "listen")
        if door.plain and door.tls:
            self.checking.at((*at, "plain"), "plain, and a certificate", "one of them", check="tls")
        if door.plain and door.clients:
            self.checking.at((*at, "clients"), "clients' certificates without TLS", "TLS", check="tls")
        if ipaddress.ip_address(door.at[0]).is_unspecified:
            expected = "an address of this machine in the zone"
            self.checking.at((*at, "at"), f"{door.at[0]}, which is every address", expected, check="listen")
        self.taken(at, zone, door)
        for who, client in door.clients.items():
            self.client((*at, "clients", who), who, zone, client)

    def taken(self, at: Path, zone: str, door: DoorSaid) -> None:
        """Conduits of one broker that answer at one address and port say the same of it."""
        for other, conduit in self.checking.policy.conduits.items():
            if other < self.name and type(conduit) is type(self.conduit):
                for their_zone, theirs in getattr(conduit, "listen", {}).items():
                    if theirs.at == door.at and (their_zone, theirs) != (zone, door):
                        found = f"{door.at[0]}:{door.at[1]}, which {other} has otherwise"
                        self.checking.at(
                            (*at, "at"), found, "the same for all, or an address of its own", check="listen"
                        )

    def client(self, at: Path, who: str, zone: str, client: ClientSaid) -> None:
        if not self.checking.known("principals", who, at):
            return
        principal = self.checking.policy.principals.get(who)
        if principal is not None and principal.zone != zone:
            self.checking.key(at, f"{who} of zone {principal.zone}", f"a principal of {zone}", check="principal-zone")
        if (client.certificate is None) == (client.authority is None):
            self.checking.key(at, f"client {who}", "certificate, or authority and name", check="missing")
        if (client.authority is None) != (client.name is None):
            self.checking.key(at, f"client {who}", "authority and name together", check="missing")
        for field, name in (("certificate", client.certificate), ("authority", client.authority)):
            data = self.checking.file(name, (*at, field)) if name is not None else None
            if data is not None:
                from cryptography import x509

                try:
                    x509.load_pem_x509_certificate(data)
                except ValueError:
                    self.checking.at(
                        (*at, field), f"{quote(str(name))}, which is no certificate", "a PEM file", check="tls"
                    )


def door_row(zone: str, said: DoorSaid, files: Mapping[str, bytes]) -> Door:
    """What travels of a door that was checked. `files`: those that the policy names."""
    trusted: list[bytes] = []
    pins: list[Pin] = []
    for who, client in sorted(said.clients.items()):
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        file = client.certificate or client.authority or ""
        certificate = x509.load_pem_x509_certificate(files[file])
        trusted.append(certificate.public_bytes(serialization.Encoding.PEM))
        if client.certificate:
            pins.append(Pin(principal=who, public_key=_public_key(certificate)))
        else:
            der = certificate.public_bytes(serialization.Encoding.DER)
            pins.append(Pin(principal=who, authority=der, name=client.name or ""))
    return Door(
        zone=zone,
        address=said.at[0],
        port=said.at[1],
        tls="" if said.plain else said.tls or zone,
        trusted=b"".join(dict.fromkeys(trusted)),
        pins=tuple(pins),
    )


def _public_key(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes, serialization

    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return digest.finalize().hex()
