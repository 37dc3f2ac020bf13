"""Suggestions for switches around the gate, from a policy: isolated ports and access lists. PURE.

A gate can not stop two hosts of one layer-2 network from talking to each other; the switch between them can. Two
measures, which work together:

1. Port isolation (private VLAN): a port reaches the gate's port and no other. So a host on the IT side and a device
   that hang on the same network meet only through the gate.
2. An access list where both networks meet (a router, or a switch that filters): nobody but the gate's own address on
   the plant's side may speak to a device.

The text is a suggestion in each maker's words, to be read by who knows the switch; models and versions differ. VLAN
numbers and port names that the policy does not hold are placeholders in angle brackets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final, NamedTuple

from cofferdam.policy.table import CompiledPolicy


class Rule(NamedTuple):
    """May a station speak to a device's port? Sources are single addresses; "" is anyone."""

    permit: bool
    source: str
    target: str
    port: int
    asset: str


class Site(NamedTuple):
    """What a suggestion needs: the gate's port, a VLAN, the rules in order, and what has to be said first."""

    name: str
    gate_port: str
    vlan: int
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]


def advice(policy: CompiledPolicy, kind: str, *, gate_port: str = "", vlan: int = 100) -> tuple[str, ...]:
    """The suggestion, line by line. `kind`: one of KINDS."""
    site = _site(policy, gate_port, vlan)
    comment = "!" if kind != "generic" else "#"
    head = [
        f"{comment} Suggestion for site {site.name} ({kind}), from policy {policy.hash[:12]}. Read it before you use it:",
        f"{comment} models differ, and a wrong line cuts the plant off. Try it in a maintenance window.",
        *(f"{comment} NOTE: {line}" for line in site.warnings),
    ]
    return (*head, *KINDS[kind](site))


def _site(policy: CompiledPolicy, gate_port: str, vlan: int) -> Site:
    own = {
        zone.name: [str(ipaddress.ip_interface(text).ip) for text in zone.addresses] for zone in policy.zones.values()
    }
    warnings = []
    rules = []
    for asset in sorted(policy.assets.values(), key=lambda asset: asset.name):
        version = ipaddress.ip_address(asset.address).version
        sources = [text for text in own.get(asset.zone, ()) if ipaddress.ip_address(text).version == version]
        if not sources:
            warnings.append(
                f"zone {asset.zone} has no `addresses`: put the gate's own address there for <gate address in {asset.zone}>"
            )
        for source in sources or [f"<gate address in {asset.zone}>"]:
            rules.append(Rule(True, source, asset.address, asset.port, asset.name))
    rules += [
        Rule(False, "", asset.address, 0, asset.name)
        for asset in sorted(policy.assets.values(), key=lambda asset: asset.name)
    ]
    return Site(policy.site, gate_port or "<port to the gate>", vlan, tuple(rules), tuple(dict.fromkeys(warnings)))


def _cisco(site: Site) -> list[str]:
    primary, isolated = site.vlan, site.vlan + 1
    lines = [
        "! 1. Private VLAN: hosts reach the gate's port and nothing else.",
        "vtp mode transparent",
        f"vlan {isolated}", " name cofferdam-isolated", " private-vlan isolated",
        f"vlan {primary}", " name cofferdam-primary", " private-vlan primary", f" private-vlan association {isolated}",
        f"interface {site.gate_port}", " description to the gate", " switchport mode private-vlan promiscuous",
        f" switchport private-vlan mapping {primary} {isolated}",
        "interface range <ports of hosts and devices>", " switchport mode private-vlan host",
        f" switchport private-vlan host-association {primary} {isolated}",
        " spanning-tree bpduguard enable", " no cdp enable",
        "! Smaller switches have `switchport protected` on those ports instead (not on the gate's).",
        "! 2. Access list: only the gate speaks to devices.",
        "ip access-list extended COFFERDAM",
    ]  # fmt: skip
    for rule in _of(site, 4):
        if rule.permit:
            lines += [f" remark {rule.asset}", f" permit tcp host {rule.source} host {rule.target} eq {rule.port}"]
        else:
            lines.append(f" deny ip any host {rule.target} log")
    lines += [" permit ip any any", "interface range <ports of hosts>", " ip access-group COFFERDAM in"]
    six = _of(site, 6)
    if six:
        lines.append("ipv6 access-list COFFERDAM6")
        for rule in six:
            lines.append(
                f" permit tcp host {rule.source} host {rule.target} eq {rule.port}" if rule.permit
                else f" deny ipv6 any host {rule.target} log"
            )  # fmt: skip
        lines += [" permit ipv6 any any", "interface range <ports of hosts>", " ipv6 traffic-filter COFFERDAM6 in"]
    return lines


def _hios(site: Site) -> list[str]:
    lines = [
        "! 1. Port isolation: one group of protected ports; ports of a group do not reach each other.",
        "configure",
        "interface <ports of hosts and devices, one by one>", "vlan private-group 1", "exit",
        f"! Leave {site.gate_port} (the gate) out of the group. Where the command is missing: Switching > VLAN > Port,",
        "! or Advanced > Port isolation, in the graphical interface.",
        "! 2. Access list: only the gate speaks to devices.",
        "ip access-list extended name new 1000 COFFERDAM",
    ]  # fmt: skip
    number = 1
    for rule in _of(site, 4):
        if rule.permit:
            lines.append(
                f"ip access-list extended name add rule 1000 {number} permit proto tcp src {rule.source}-0.0.0.0 "
                f"dst {rule.target}-0.0.0.0 dst-port eq {rule.port}"
            )
        else:
            lines.append(
                f"ip access-list extended name add rule 1000 {number} deny src any dst {rule.target}-0.0.0.0"
            )  # fmt: skip
        number += 1
    return [
        *lines, f"ip access-list extended name add rule 1000 {number} permit every",
        "interface <ports of hosts>", "acl ip assign 1000 in 1", "exit", "save",
    ]  # fmt: skip


def _scalance(site: Site) -> list[str]:
    primary, isolated = site.vlan, site.vlan + 1
    lines = [
        "! 1. Private VLAN (XB/XC/XM/XR; Web: Layer 2 > Private VLAN): hosts reach the gate's port and nothing else.",
        "configure terminal",
        f"vlan {isolated}", "private-vlan isolated", "exit",
        f"vlan {primary}", "private-vlan primary", f"private-vlan association {isolated}", "exit",
        f"interface {site.gate_port}", "switchport mode private-vlan promiscuous",
        f"switchport private-vlan mapping {primary} {isolated}", "exit",
        "interface <ports of hosts and devices, one by one>", "switchport mode private-vlan host",
        f"switchport private-vlan host-association {primary} {isolated}", "exit",
        "! PROFINET devices must stay with their controller: leave their ports in a VLAN of their own, without IT.",
        "! 2. Access list (Web: Security > IP ACL): only the gate speaks to devices.",
    ]  # fmt: skip
    number = 1001
    for rule in _of(site, 4):
        lines.append(f"ip access-list extended {number}")
        lines.append(
            f"permit tcp host {rule.source} host {rule.target} eq {rule.port} priority {3000 - number + 1001}"
            if rule.permit else f"deny ip any host {rule.target} priority {3000 - number + 1001}"
        )  # fmt: skip
        lines.append("exit")
        number += 1
    groups = [f"ip access-group {n} in" for n in range(1001, number)]
    return [*lines, "interface <ports of hosts, one by one>", *groups, "exit", "write startup-config"]


def _generic(site: Site) -> list[str]:
    lines = [
        "# 1. Isolate ports: protected port, port isolation, private VLAN or split horizon, whatever the maker calls it.",
        f"#    {site.gate_port}: promiscuous (may speak with all)",
        "#    every other port of the network: isolated (may speak with the gate's port only)",
        "#    uplinks to other switches of the same network: carry the isolation on (private VLAN), or isolate them too",
        "#    unknown unicast and multicast: not flooded to isolated ports; management of the switch: not in this VLAN",
        "# 2. Filter where the two networks meet, in this order:",
    ]
    for rule in site.rules:
        what = f"tcp port {rule.port}" if rule.port else "anything"
        lines.append(
            f"{'permit' if rule.permit else 'deny  '} {what:14} from {rule.source or 'anyone'} to {rule.target}  # {rule.asset}"
        )
    return [
        *lines,
        "permit anything else (or better: nothing else)",
        "# 3. Where the switch can: dynamic ARP inspection and DHCP snooping, so that no host takes the gate's address.",
        "# Then: `cofferdam prove --leaks` shows whether a device still answers on the IT side.",
    ]


def _of(site: Site, version: int) -> list[Rule]:
    return [rule for rule in site.rules if (":" in rule.target) == (version == 6)]


KINDS: Final[dict[str, Callable[[Site], list[str]]]] = {
    "generic": _generic, "cisco-ios": _cisco, "hirschmann-hios": _hios, "siemens-scalance": _scalance,
}  # fmt: skip
"""Makes of switches, and who writes for them."""
