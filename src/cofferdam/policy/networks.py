"""Which network an address of a device is in. PURE.

All zones of a side are one network: a device has one address there, whatever zone it is said to be in. But machines
that were bought twice have the same addresses, each behind an interface of its own; there the zone tells them apart.

Not here: the namespaces that are made of it (enforce.plans.network).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Protocol


class HasAddresses(Protocol):
    """A zone, as the file or as a row has it."""

    @property
    def side(self) -> str: ...

    @property
    def addresses(self) -> Sequence[str]: ...


def network_of(zone: str, address: str, zones: Mapping[str, HasAddresses]) -> str:
    """A name for the network that a device at this address of this zone is in."""
    side = str(zones[zone].side)
    near = [name for name, one in zones.items() if str(one.side) == side and _near(address, one.addresses)]
    return f"zone {zone}" if zone in near and len(near) > 1 else f"side {side}"


def _near(address: str, own: Sequence[str]) -> bool:
    """Whether an address lies in a network in which this machine has an address."""
    where = ipaddress.ip_address(address)
    return any(where in ipaddress.ip_interface(one).network for one in own)
