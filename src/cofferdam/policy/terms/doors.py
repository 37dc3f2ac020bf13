"""Doors: where a part answers HTTP, and by which certificates it knows its clients. The rows. PURE.

Not here: their words in a policy and what is wrong between them (door_words), what a part does with them
(brokers.kit.http.doors).
"""

from __future__ import annotations

import msgspec


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A client's certificate that stands for a principal: by its public key (hex SHA-256 of it), or by the DNS name
    that one authority (DER) has certified with its own signature."""

    principal: str
    public_key: str = ""
    authority: bytes = b""
    name: str = ""


class Door(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a part answers HTTP, for principals of `zone`. `tls` names the certificate that the part has been given
    ("": no TLS). `trusted` (PEM): what clients' certificates are verified by."""

    zone: str
    address: str
    port: int
    tls: str = ""
    trusted: bytes = b""
    pins: tuple[Pin, ...] = ()

    @property
    def at(self) -> str:
        """ADDRESS:PORT."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
