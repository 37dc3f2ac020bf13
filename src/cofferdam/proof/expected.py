"""Which addresses and routes a side's namespace has by the plan. Everything else in it is somebody else's.

Routes are judged as plain data (`reading.network`). Not here: reading them, the rules of the firewall (solving).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from cofferdam.enforce.journal import Moved
from cofferdam.enforce.plans.records import SidePlan

Json = dict[str, Any]
_UNICAST, _LOCAL, _BROADCAST, _ANYCAST, _MULTICAST, _UNREACHABLE = 1, 2, 3, 4, 5, 7
_LINK_LOCAL, _GROUPS = ipaddress.ip_network("fe80::/10"), ipaddress.ip_network("ff00::/8")
_LOOPBACK = ("127.0.0.1/8", "::1/128")
_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Expected:
    """Of one namespace. `interfaces`: zone to name there; `moved`: what the interfaces had that were moved."""

    def __init__(self, plan: SidePlan, interfaces: Mapping[str, str], tunnel: str, moved: Mapping[str, Moved]) -> None:
        self._own: dict[str, list[_Interface]] = {"lo": [ipaddress.ip_interface(text) for text in _LOOPBACK]}
        self._broadcasts: set[str] = set()
        self._ways = {(route.network, route.via, interfaces[route.zone]) for route in plan.routes}
        if plan.tunnel is not None and tunnel:
            self._ways |= {(network, "", tunnel) for network in plan.tunnel.networks}
        for link in plan.links:
            name = interfaces[link.zone]
            held = moved.get(name)
            if held is None or link.addresses:
                texts = list(link.addresses)
            else:
                # Without IPv6 on the side an interface keeps its IPv4 addresses only.
                texts = [entry.address for entry in held.addresses if plan.has_ipv6 or ":" not in entry.address]
                self._broadcasts |= {entry.broadcast for entry in held.addresses} - {""}
                self._ways |= {(route.network, route.gateway, name) for route in held.routes}
            self._own[name] = [ipaddress.ip_interface(text) for text in texts]
        on_interfaces = {entry.ip for entries in self._own.values() for entry in entries}
        overlay = {ipaddress.ip_address(text) for text in plan.overlay} - on_interfaces
        self._anyip = {address for address in overlay if address.version == 4}
        self._published = {address for address in overlay if address.version == 6}

    def addresses(self, found: Iterable[str]) -> list[str]:
        """What is wrong with these addresses ("INTERFACE ADDRESS/PREFIX")."""
        wrong, seen = [], set()
        for text in found:
            name, _, rest = text.partition(" ")
            address = ipaddress.ip_interface(rest)
            seen.add((name, address))
            known = address in self._own.get(name, ()) or address.ip in self._published
            if not known and not (address.version == 6 and address.ip in _LINK_LOCAL):
                wrong.append(f"{text} is none of the policy's")
        for name, entries in self._own.items():
            if name != "lo":
                wrong += [f"{name} {entry} is missing" for entry in entries if (name, entry) not in seen]
        return wrong

    def routes(self, found: Iterable[Json]) -> list[str]:
        """What is wrong with these routes (`reading.network()["ways"]`)."""
        return [f"{way['text']}: {why}" for way in found if (why := self._why(way))]

    def _why(self, way: Json) -> str:
        """What is wrong with a route; "" if it is one of the plan's or follows from its addresses."""
        if way["odd"]:
            return f"it has {way['odd']}"
        to = ipaddress.ip_network(way["to"])
        own = self._own.get(way["by"], [])
        networks = [entry.network for entry in own]
        kind, good = way["type"], False
        if kind == _LOCAL:
            single = to.prefixlen == to.max_prefixlen
            mine = {entry.ip for entries in self._own.values() for entry in entries} | self._anyip | self._published
            good = (single and (to[0] in mine or (to.version == 6 and to[0] in _LINK_LOCAL))) or (
                way["by"] == "lo" and way["to"] == "127.0.0.0/8"
            )
        elif kind == _BROADCAST:
            ends = {str(end) for net in networks for end in (net[0], net[-1])} | self._broadcasts
            good = str(to[0]) in ends
        elif kind == _ANYCAST:
            good = to[0] in _LINK_LOCAL or any(to[0] == net[0] for net in networks)
        elif kind == _MULTICAST:
            good = to == _GROUPS
        elif kind == _UNREACHABLE:
            good = True
        elif kind == _UNICAST and not way["via"]:
            alone = {ipaddress.ip_network(address) for address in self._published} if to.version == 6 else set()
            good = to in networks or to in alone or (
                to.version == 6 and (to == _GROUPS or (to.prefixlen >= 10 and to[0] in _LINK_LOCAL))
            )  # fmt: skip
            good = good or any(to == ipaddress.ip_network(entry.ip) for entry in own if to.version == 6)
        text = "" if to.prefixlen == 0 else str(to)
        default = "0.0.0.0/0" if to.version == 4 else "::/0"
        if not good and kind == _UNICAST:
            good = any((name, way["via"], way["by"]) in self._ways for name in (text or default, text))
        return "" if good else "neither the policy nor an address makes it"
