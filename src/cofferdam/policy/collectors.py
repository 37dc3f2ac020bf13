"""How the policy file names who gets the log's entries: a place.

Not here: the fields (policy.schema), the ways there (evidence.export).
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from cofferdam.policy.syntax import Expected

PORTS: Final[dict[str, int]] = {"tls": 6514, "https": 443, "udp": 514}
FORMS: Final = ("json", "ocsf", "ecs", "cef")
FOLDER: Final = "folder"
EXAMPLES: Final = ["tls://10.1.0.50:6514", "https://10.1.0.51:8443/ingest", "udp://127.0.0.1:514", FOLDER]
_WANTED: Final = f"{', '.join(EXAMPLES[:3])} or `{FOLDER}`; an address, since no names are resolved"


class Destination(NamedTuple):
    """Where a collector is. `path`: of HTTPS."""

    way: Literal["tls", "https", "udp", "folder"]
    address: str
    port: int
    path: str


def is_one_machines(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whether packets to a machine have this very address, by which the fence lets them pass. Raises: Expected."""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            raise Expected(f"{found.ipv4_mapped}, which is what such packets have")
        if found.scope_id is not None:
            raise Expected("an address that needs no interface beside it")
    if found.is_unspecified or found.is_multicast or found == ipaddress.IPv4Address("255.255.255.255"):
        raise Expected("the address of one machine")


def place(raw: Any) -> Destination:
    """A place from its URL, or `folder`."""
    if raw == FOLDER:
        return Destination("folder", "", 0, "")
    try:
        split = urlsplit(raw if isinstance(raw, str) else "")
        host, port = ipaddress.ip_address(split.hostname or ""), split.port
    except ValueError:
        raise Expected(_WANTED) from None
    is_one_machines(host)
    way: Any = split.scheme
    odd = split.query or split.fragment or "@" in split.netloc or not raw.isprintable() or any(map(str.isspace, raw))
    if way not in PORTS or odd or port == 0 or len(raw) > 500 or (split.path and way != "https"):
        raise Expected(_WANTED)
    if way == "udp" and not host.is_loopback:
        raise Expected("an address of loopback: UDP loses what nobody notices")
    return Destination(way, str(host), port or PORTS[way], split.path)
