"""Suggestions for switches around the gate, from a policy: isolated ports and access lists. PURE.

A gate cannot stop two hosts of one layer-2 network from talking to each other; the switch between them can. Two
measures, which work together:

1. Port isolation (private VLAN): a port reaches the gate's port and no other. So a host on the IT side and a device
   that hang on the same network meet only through the gate.
2. An access list on the ports of hosts: nobody there may speak to a device. The gate has no exception in it: it is
   never on those ports, so a permit for its address would let in whoever takes that address, and nobody else.

The text is a suggestion in each maker's words, to be read by who knows the switch; models and versions differ. VLAN
numbers and port names that the policy does not hold are placeholders in angle brackets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from cofferdam.policy.table import CompiledPolicy


class AclLine(NamedTuple):
    """Nobody on a host's port speaks to this device."""

    target: str
    asset: str


class Site(NamedTuple):
    """What a suggestion needs: the gate's port, a VLAN, and the rules."""

    name: str
    gate_port: str
    vlan: int
    rules: tuple[AclLine, ...]


def advice(policy: CompiledPolicy, kind: str, *, gate_port: str = "", vlan: int = 100) -> tuple[str, ...]:
    """The suggestion, line by line. `kind`: one of KINDS."""
    site = _site(policy, gate_port, vlan)
    comment = "!" if kind != "generic" else "#"
    head = [
        f"{comment} Suggestion for site {site.name} ({kind}), from policy {policy.hash[:12]}.",
        f"{comment} Read it first: models and versions differ, and a wrong line cuts the plant off.",
    ]
    return (*head, *KINDS[kind](site))


def _site(policy: CompiledPolicy, gate_port: str, vlan: int) -> Site:
    assets = sorted(policy.assets.values(), key=lambda asset: asset.name)
    rules = tuple(AclLine(asset.address, asset.name) for asset in assets)
    return Site(policy.site, gate_port or "<port to the gate>", vlan, rules)


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
        "! 2. Access list for the ports of hosts: none of them speaks to a device. The gate is not on them, and has no",
        "!    permit here: it would serve whoever takes the gate's address. (No `log`: many switches take none.)",
        "ip access-list extended COFFERDAM",
    ]  # fmt: skip
    for rule in _of(site, 4):
        lines += [f" remark {rule.asset}", f" deny ip any host {rule.target}"]
    lines += [" permit ip any any", "interface range <ports of hosts>", " ip access-group COFFERDAM in"]
    six = _of(site, 6)
    if six:
        lines.append("ipv6 access-list COFFERDAM6")
        for rule in six:
            lines.append(f" deny ipv6 any host {rule.target}")
        lines += [" permit ipv6 any any", "interface range <ports of hosts>", " ipv6 traffic-filter COFFERDAM6 in"]
    return lines


def _hios(site: Site) -> list[str]:
    return [
        "! 1. Ports: put those of hosts and devices into one group of protected ports, and leave",
        f"!    {site.gate_port} (the gate) out of it. Ports of a group do not reach each other.",
        "!    Graphical interface: under Switching, by version; look for private, protected or isolated ports.",
        "! 2. Access list COFFERDAM: Network Security > ACL > IPv4 Rule, in this order:",
        *_table(site),
        "!    A last rule `permit every` goes below them: without it the list ends in an unseen `deny all`.",
        "!    Network Security > ACL > Assignment: COFFERDAM, inbound, on every port of a host.",
        "! 3. Network Security > Dynamic ARP Inspection and DHCP Snooping, where the licence has them.",
        "! 4. Save, and try it: `cofferdam prove --leaks`.",
    ]


def _scalance(site: Site) -> list[str]:
    primary, isolated = site.vlan, site.vlan + 1
    return [
        "! 1. Private VLAN (XM-400, XR-500 and others that have it): Layer 2 > Private VLAN",
        f"!    VLAN {primary}: primary; VLAN {isolated}: secondary, isolated, with primary VLAN {primary}",
        f"!    {site.gate_port} (the gate): promiscuous, VLAN {primary}",
        f"!    ports of hosts and devices: host, VLAN {isolated}",
        "!    A controller and its PROFINET devices must stay together: a VLAN of their own, without IT.",
        "!    Smaller models: Layer 2 > Unicast > Blocking, and Security > Port isolation, where they have it.",
        "! 2. Access list: Security > IP ACL, rules and their protocols, in this order:",
        *_table(site),
        "!    A last rule that forwards everything goes below them; then assign all, inbound, to every port of a host.",
        "! 3. Save the configuration, and try it: `cofferdam prove --leaks`.",
    ]


def _table(site: Site) -> list[str]:
    """The rules for those who fill in a form. Some makers have no command line that is alike between versions."""
    lines = [f"!    {'No.':>3}  {'action':6}  {'source':39}  {'destination':39}  protocol"]
    for number, rule in enumerate(site.rules, 1):
        lines.append(f"!    {number:>3}  {'deny':6}  {'any':39}  {rule.target:39}  any")
    return lines


def _generic(site: Site) -> list[str]:
    lines = [
        "# 1. Isolate ports (protected port, port isolation, private VLAN, split horizon: names differ):",
        f"#    {site.gate_port}: promiscuous (may speak with all)",
        "#    every other port of the network: isolated (may speak with the gate's port only)",
        "#    uplinks to other switches of the network: carry the isolation on (private VLAN), or isolate them too",
        "#    unknown unicast and multicast: not flooded to isolated ports; the switch's management: not in this VLAN",
        "# 2. Filter what comes in by the ports of hosts, or by a router from their network, in this order. The gate",
        "#    is on none of them and has no permit: it would serve whoever takes the gate's address.",
    ]
    lines += [f"deny anything from anyone to {rule.target}  # {rule.asset}" for rule in site.rules]
    return [
        *lines,
        "permit anything else (or better: nothing else)",
        "# 3. Where the switch can: ARP inspection and DHCP snooping, so that no host takes the gate's address.",
        "# Then: `cofferdam prove --leaks` shows whether a device still answers on the IT side.",
    ]


def _of(site: Site, version: int) -> list[AclLine]:
    return [rule for rule in site.rules if (":" in rule.target) == (version == 6)]


KINDS: Final[dict[str, Callable[[Site], list[str]]]] = {
    "generic": _generic, "cisco-ios": _cisco, "hirschmann-hios": _hios, "siemens-scalance": _scalance,
}  # fmt: skip
"""Makes of switches, and who writes for them."""
