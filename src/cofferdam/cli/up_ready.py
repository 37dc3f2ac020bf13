"""Whether a gate could start here and now: rights, nft, interfaces (links, addresses, speeds), ports, the state folder.

It looks, and changes nothing: a port is bound for a moment and given back. Not here: what would run (up).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cofferdam.enforce.statefolder import check_place
from cofferdam.errors import GateError, StoreUnfit

if TYPE_CHECKING:
    from cofferdam.gate.crew.plan import CrewPlan
    from cofferdam.policy.table import CompiledPolicy


class Lack(msgspec.Struct, frozen=True):
    """What is in the way, and the way out; `hard`: the gate would not start, or would reach nothing, or one of its
    crews would be held."""

    hard: bool
    what: str
    way_out: str


def lacks(policy: CompiledPolicy, plans: Mapping[str, CrewPlan], state: Path) -> list[Lack]:
    """What is in the way, the worst first."""
    found: list[Lack] = []
    runs = _gate_runs(state)
    if runs:
        found.append(Lack(False, f"a gate runs with {state}: its ports and interfaces were not looked at",
                          "cofferdam reload takes a new policy without stopping it"))  # fmt: skip
    from cofferdam.enforce.plans.network import network_plan

    wants = network_plan(policy).namespaces
    here = [zone for zone in policy.zones.values() if policy.is_here(zone.name)]
    if not wants and policy.gate.separation == "auto" and any(zone.interface for zone in here):
        without = ", ".join(zone.name for zone in here if not zone.interface)
        found.append(Lack(False, f"no namespaces: zone {without} names no interface",
                          "give it its `interface:`; with less the parts share this machine's network"))  # fmt: skip
    rights = len(found)
    found += _rights(policy, wants)
    found += _state(state)
    found += _stores(plans, state)
    found += _uninstalled(plans) or _signing(policy, plans, state)
    if not runs:
        if wants:
            found += _interfaces(policy)
            found += _rates(policy)
        # In namespaces the gate brings its addresses along; without, they must be this machine's.
        if not wants or os.geteuid() != 0:
            ports = list(_ports(plans))
            if wants and ports:  # that is why: a gate of root's would not have found them in the way
                found[rights] = msgspec.structs.replace(found[rights], hard=True)
            found += ports
        if policy.gate.management is not None:
            found += _port(*policy.gate.management, "management address")
    return sorted(found, key=lambda lack: not lack.hard)


def no_scanner(policy: CompiledPolicy) -> Iterator[Lack]:
    """Where files are to be scanned and this machine has no scanner."""
    names = sorted(name for name, conduit in policy.conduits.items() if _scans(msgspec.to_builtins(conduit.terms)))
    if names:
        what = f"{', '.join(names)}: files are scanned, and there is no clamd: none of them passes"
        yield Lack(False, what, "start clamd, or say where its socket is: --socket clamd=PATH")


def _scans(said: object) -> bool:
    if isinstance(said, dict):
        return any((name == "scan" and inner) or _scans(inner) for name, inner in said.items())
    return isinstance(said, (list, tuple)) and any(map(_scans, said))


def _gate_runs(state: Path) -> bool:
    try:
        with (state / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _rights(policy: CompiledPolicy, wants: bool) -> Iterator[Lack]:
    from cofferdam.enforce import kernel
    from cofferdam.enforce.firewall import find_nft
    from cofferdam.enforce.users import NEEDED

    if not wants:
        return
    must = policy.gate.require_namespaces or policy.gate.separation == "namespaces"
    if os.geteuid() != 0:
        what = "not root: the interfaces of the policy cannot be taken, and the kernel would not keep the sides apart"
        yield Lack(must, what, "start the gate as root (sudo cofferdam up ...), or say `gate: {separation: processes}`")
        return
    missing = kernel.missing_capabilities(NEEDED)
    if missing:
        names = ", ".join(f"CAP_{name.upper()}" for name in missing)
        yield Lack(
            must, f"capabilities are missing: {names}", "start it with them, outside of a container that drops them"
        )
    try:
        find_nft()
    except GateError as error:
        yield Lack(must, str(error), error.hint)


def _state(state: Path) -> Iterator[Lack]:
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    if not there.is_dir():
        yield Lack(True, f"the state folder {state}: {there} is a file", "name a folder with --state")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Lack(
            True, f"the state folder {state} cannot be written by this user", "run it as root, or name one with --state"
        )
    try:
        check_place(state.absolute())
    except GateError as error:
        yield Lack(True, str(error), error.hint)


def _stores(plans: Mapping[str, CrewPlan], state: Path) -> Iterator[Lack]:
    """Stores that are not as they must be, as far as that is seen from outside: their crews would be held. Stores that
    no disk of this size holds: what a policy says is kept would not be."""
    from cofferdam.enforce import journal, stores, users

    try:
        known = users.read(journal.folder(state))
    except GateError as error:
        yield Lack(True, str(error), error.hint)
        known = {}
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    room = shutil.disk_usage(there).total
    for plan in plans.values():
        for name, part in plan.parts.items():
            if part.store is None:
                continue
            try:
                user = known.get(f"{plan.base}/{name}") if os.geteuid() == 0 else os.geteuid()
                stores.look(state, plan.name, name, user)
            except StoreUnfit as error:
                yield Lack(True, f"{plan.name}/{name}: {error}", error.hint)
            except OSError:
                pass  # it is not this user's to see
            if part.store.quota > room:
                yield Lack(
                    False, f"{plan.name}/{name} may keep up to {part.store.quota / 1e9:.0f} GB, and the disk of "
                    f"{state} has {room / 1e9:.0f} GB in all",
                    "a larger disk, or less in the policy: the conduit's `most` or `spool`",
                )  # fmt: skip


def _uninstalled(plans: Mapping[str, CrewPlan]) -> list[Lack]:
    from cofferdam.brokers.registry import check_installed

    try:
        check_installed(plan.broker for plan in plans.values())
    except GateError as error:
        return [Lack(True, str(error), error.hint)]
    return []


def _signing(policy: CompiledPolicy, plans: Mapping[str, CrewPlan], state: Path) -> Iterator[Lack]:
    """Keys of the site's by which repositories are to be signed, and cannot be: no host would get anything of them."""
    from cofferdam.policy.terms.patch import INSTALLER
    from cofferdam.policy.terms.patch_rows import PatchRows

    for plan in plans.values():
        rows = [row for name in plan.conduits if isinstance(row := policy.conduits[name].terms, PatchRows)]
        names = {product.sign for row in rows for product in row.products if product.sign}
        if not names:
            continue
        from cofferdam.brokers.kit.http.vault import Vault
        from cofferdam.brokers.patch import apt_sign
        from cofferdam.gate.secrets import secret_file

        try:
            known = Vault(secret_file(state, plan.base, INSTALLER, plan.broker), plan.broker).secrets.passwords
        except GateError as error:
            yield Lack(False, f"{plan.name}/{INSTALLER}: {error}", error.hint)
            continue
        for name in sorted(names):
            why, way_out = apt_sign.lacking(name, known.get(apt_sign.place(name), ""))
            if why:
                yield Lack(False, why, way_out)


def _interfaces(policy: CompiledPolicy) -> Iterator[Lack]:
    links = _links()
    for zone in policy.zones.values():
        if not zone.interface or not policy.is_here(zone.name):
            continue
        link = links.get(zone.interface)
        if link is None:
            have = ", ".join(sorted(name for name in links if name != "lo")) or "none"
            yield Lack(True, f"zone {zone.name}: there is no interface {zone.interface}", f"this machine has {have}")
            continue
        if not link.carrier:
            yield Lack(
                False, f"zone {zone.name}: {zone.interface} has no link", "look at the cable and the switch's port"
            )
        if not zone.addresses and not zone.vlan and not zone.macvlan and not link.addressed:
            yield Lack(True, f"zone {zone.name}: {zone.interface} has no address, so nothing can be reached by it",
                       f"`addresses: [...]` in the zone, or `ip addr add A/BITS dev {zone.interface}`")  # fmt: skip


def _rates(policy: CompiledPolicy) -> Iterator[Lack]:
    """Strands that send faster than a card can: nobody would tell them what is lost."""
    from cofferdam.brokers.kit.card import speed_of
    from cofferdam.policy.terms.diode_rows import DiodeRows, show_rate

    for name, conduit in policy.conduits.items():
        row = conduit.terms
        if not isinstance(row, DiodeRows):
            continue
        for zone in (conduit.from_zone, *(link.from_zone for link in row.links)):
            interface = policy.zones[zone].interface
            if not interface or not policy.is_here(zone):
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                speed = speed_of(sock, interface)
            if 0 < speed < row.rate:
                said = f"the strand {name} sends at {show_rate(row.rate)}, and {interface} has {show_rate(speed)}"
                yield Lack(False, f"{said}: what is more is lost", "a smaller `rate:`, or a faster card")


class _Link(NamedTuple):
    """An interface: whether its cable leads somewhere (one that is down does not say), and whether it has an address
    beyond that of the local link."""

    carrier: bool = True
    addressed: bool = True


def _links() -> dict[str, _Link]:
    """Those of the network that this process is in, as the kernel tells it: /sys may be mounted of another one."""
    import json
    import subprocess

    try:
        done = subprocess.run(["ip", "-j", "addr", "show"], capture_output=True, text=True, check=False)
        said = json.loads(done.stdout)
    except (OSError, ValueError):
        return {name: _Link() for _, name in socket.if_nameindex()}  # nobody can say more
    return {
        link["ifname"]: _Link(
            "NO-CARRIER" not in link["flags"], any(one.get("scope") != "link" for one in link.get("addr_info", ()))
        )
        for link in said
        if link
    }


def _ports(plans: Mapping[str, CrewPlan]) -> Iterator[Lack]:
    for plan in plans.values():
        for spot in plan.spots:
            if not spot.way and spot.port:
                yield from _port(spot.address, spot.port, plan.name, datagrams=spot.datagrams)


def _port(address: str, port: int, whose: str, *, datagrams: bool = False) -> Iterator[Lack]:
    from cofferdam.enforce.isolation import listen

    try:
        listen(address, port, datagrams=datagrams).close()
    except GateError as error:
        yield Lack(True, f"{whose}: {error}", error.hint)
