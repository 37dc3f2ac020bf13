"""Whose address comes nearest to one that is nobody's: a wrong card, a wrong digit, a NAT. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from cofferdam.policy.rows import Principal

NEAR = 3
"""So many are named at most."""


def near_principals(principals: Mapping[str, Principal], address: str) -> list[str]:
    """Names of principals whose addresses begin as this one does, the most alike first."""
    asked = ipaddress.ip_address(address)
    found: dict[str, int] = {}
    for principal in principals.values():
        for text in principal.networks:
            network = ipaddress.ip_network(text)
            if network.version == asked.version:
                apart = (int(asked) ^ int(network.network_address)).bit_length()
                found[principal.name] = min(found.get(principal.name, apart), apart)
    bits = 16 if asked.version == 4 else 64
    return [name for name in sorted(found, key=lambda name: (found[name], name)) if found[name] <= bits][:NEAR]
