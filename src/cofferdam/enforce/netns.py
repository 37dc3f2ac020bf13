"""Namespaces, interfaces, addresses and routes by netlink: looked at, made, moved, and put back.

Functions here change the network of the process that calls them, so `worker.inside` runs them in a short-lived
child that enters the namespace first. The caller needs CAP_SYS_ADMIN and CAP_NET_ADMIN.

Not here: which of it a policy wants (plans.network), in which order, and the journal (namespaces).
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cofferdam.enforce import kernel
from cofferdam.enforce.journal import AddressHeld, Moved, RouteHeld
from cofferdam.errors import GateError

NAMED = Path("/run/netns")
"""Where named namespaces are, as the ip program has them."""
_UP, _SCOPE_LINK, _SCOPE_HOST = 1, 253, 254
_TABLE_MAIN, _TABLE_LOCAL, _PROTO_KERNEL, _PROTO_STATIC, _TYPE_UNICAST, _TYPE_LOCAL = 254, 255, 2, 4, 1, 2
_NODAD = 0x02
_NOARP, _PERMANENT = 0x80, 0x80
"""IFF_NOARP, NUD_PERMANENT."""
_ETH_P_ALL = 3
NOBODY_PINGS = "1\t0"
_SYSCTLS = (
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/forwarding", "0"),
    ("net/ipv4/conf/default/forwarding", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv6/conf/default/forwarding", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/accept_source_route", "0"),
    ("net/ipv4/conf/all/proxy_arp", "0"),
    ("net/ipv4/conf/default/proxy_arp", "0"),
    ("net/ipv4/conf/all/proxy_arp_pvlan", "0"),
    ("net/ipv4/conf/default/proxy_arp_pvlan", "0"),
    ("net/ipv4/conf/all/bc_forwarding", "0"),
    ("net/ipv4/conf/default/bc_forwarding", "0"),
    ("net/ipv4/conf/all/accept_local", "0"),
    ("net/ipv4/conf/default/accept_local", "0"),
    # A new namespace begins with the host's values of these. With 1 nobody would get an answer for an AnyIP address.
    ("net/ipv4/conf/all/arp_ignore", "0"),
    ("net/ipv4/conf/default/arp_ignore", "0"),
    ("net/ipv4/conf/all/route_localnet", "0"),
    ("net/ipv4/conf/default/route_localnet", "0"),
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
)


# --- namespaces -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def entered(namespace: int, home: int) -> Iterator[None]:
    """The calling process itself is in `namespace` for a moment. It must have one thread only."""
    kernel.setns(namespace, kernel.CLONE_NEWNET)
    try:
        yield
    finally:
        try:
            kernel.setns(home, kernel.CLONE_NEWNET)
        except OSError:
            os._exit(72)  # in the wrong namespace nothing of what follows would be true


def own() -> int:
    """A descriptor of the calling process's network namespace."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def make_namespace(name: str) -> int:
    """Makes a named namespace, as `ip netns add` does; its inode. To be run by `worker.inside`."""
    _shared_folder()
    path = NAMED / name
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise GateError(
            f"the network namespace {name} exists already", hint=f"`ip netns pids {name}` shows who uses it"
        ) from None
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.mount("/proc/self/ns/net", str(path), flags=kernel.MS_BIND)
        return path.stat().st_ino
    except OSError:
        path.unlink()
        raise


def _shared_folder() -> None:
    """Named namespaces must be mounts that every mount namespace sees come and go, or they could not be removed."""
    NAMED.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        kernel.mount("", str(NAMED), "none", kernel.MS_SHARED | kernel.MS_REC)
    except OSError:
        kernel.mount(str(NAMED), str(NAMED), "none", kernel.MS_BIND | kernel.MS_REC)
        kernel.mount("", str(NAMED), "none", kernel.MS_SHARED | kernel.MS_REC)


def open_namespace(name: str, inode: int = 0) -> int | None:
    """A descriptor of a named namespace; None if there is none, or another than that of this inode."""
    try:
        fd = os.open(NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if inode and os.fstat(fd).st_ino != inode:
        os.close(fd)
        return None
    return fd


def remove_namespace(name: str) -> None:
    """Takes a named namespace away; its processes, if any, keep it alive without a name."""
    path = NAMED / name
    with contextlib.suppress(OSError):
        kernel.umount(str(path))
    path.unlink(missing_ok=True)


def _wanted(ipv6: bool, pinging: Collection[int]) -> list[tuple[str, str]]:
    # A range is all that the kernel takes. Who else is in it is stopped by the filter and by the rules.
    groups = f"{min(pinging)}\t{max(pinging)}" if pinging else NOBODY_PINGS
    return [
        *_SYSCTLS,
        (kernel.PINGING, groups),
        *((f"net/ipv6/conf/{name}/disable_ipv6", str(int(not ipv6))) for name in ("all", "default")),
    ]


def unset_switches(ipv6: bool, pinging: Collection[int] = ()) -> list[str]:
    """What of `set_switches` is not in force in the calling process's namespace, for all interfaces or one of them."""
    wrong = []
    for name, value in _wanted(ipv6, pinging):
        family, _, rest = name.partition("/conf/default/")
        if rest and rest != "disable_ipv6":  # an interface that had it from there may have another value by now
            folder = Path("/proc/sys") / family / "conf"
            places = (
                [path.name for path in folder.iterdir() if path.name not in ("all", "lo")] if folder.exists() else []
            )
            names = [f"{family}/conf/{place}/{rest}" for place in places]
        else:
            names = [name]
        for one in sorted(names):
            path = Path("/proc/sys") / one
            try:
                found = path.read_text().strip()
            except OSError:
                continue  # a kernel without IPv6, or the interface has just gone
            if found != value:
                wrong.append(f"{one} is {found}, not {value}")
    return wrong


def set_switches(ipv6: bool, pinging: Collection[int] = ()) -> list[str]:
    """Sets what the kernel may do by itself in the calling process's namespace: no forwarding, no redirects, no
    routes from routers; `pinging`: groups that may ask for an echo. What could not be set, and is not so already.

    Raises:
        GateError: the kernel lets none of them ask.
    """
    failed = []
    for name, value in _wanted(ipv6, pinging):
        path = Path("/proc/sys") / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except FileNotFoundError:
            continue  # a kernel without IPv6
        except OSError as error:
            failed.append(f"{name.replace('/', '.')} is not {value}: {error.strerror}")
    if missing := kernel.may_not_ping(pinging):
        raise GateError(
            f"this kernel gives the group {missing[0]} no ICMP socket, which `health: {{ping: true}}` needs",
            hint="`health: {tcp: PORT}` asks by a connection",
        )
    return failed


# --- interfaces -------------------------------------------------------------------------------------------------------


def _index(netlink: Any, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise GateError(
            f"there is no network interface {name}",
            hint="`ip link` lists those of this machine; while a gate runs, those that it took are in `ip netns`",
        )
    return int(found[0])


def has_interface(name: str) -> bool:
    with IPRoute() as netlink:
        return bool(netlink.link_lookup(ifname=name))


def look_at(name: str, namespace: str) -> dict[str, Any]:
    """An interface with its addresses and routes, as `journal.Moved` (plain data). Raises: GateError."""
    with IPRoute() as netlink:
        index = _index(netlink, name)
        link = netlink.get_links(index)[0]
        if link["flags"] & 0x8:
            raise GateError(f"{name} is the loopback interface, which cannot be moved", hint="name another one")
        addresses = [
            AddressHeld(f"{entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}",
                        entry.get_attr("IFA_BROADCAST") or "")
            for entry in netlink.get_addr(index=index)
            if entry["scope"] != _SCOPE_LINK
        ]  # fmt: skip
        routes = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in netlink.get_routes(family=family, oif=index):
                table = entry.get_attr("RTA_TABLE") or entry["table"]
                if table != _TABLE_MAIN or entry["proto"] == _PROTO_KERNEL or entry["type"] != _TYPE_UNICAST:
                    continue
                to = entry.get_attr("RTA_DST")
                routes.append(RouteHeld(
                    int(family), f"{to}/{entry['dst_len']}" if to else "", entry.get_attr("RTA_GATEWAY") or "",
                    entry.get_attr("RTA_PRIORITY") or 0, entry.get_attr("RTA_PREFSRC") or "", entry["proto"],
                    entry["scope"],
                ))  # fmt: skip
        mac = link.get_attr("IFLA_ADDRESS") or ""
        moved = Moved(name, index, mac, namespace, bool(link["flags"] & _UP), tuple(addresses), tuple(routes))
        plain: dict[str, Any] = msgspec.to_builtins(moved)
        return plain


def make_vlan(name: str, parent: str, number: int) -> None:
    """A VLAN's interface, down."""
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="vlan", link=_index(netlink, parent), vlan_id=number)


def make_macvlan(name: str, parent: str, label: str) -> None:
    """A macvlan's interface, down. In mode private: nothing on the same machine reaches it through the parent.

    Its hardware address follows from the parent's and from `label`, which must differ among the macvlans of a parent:
    it is the same after a restart, and what neighbours remember stays true.
    """
    with IPRoute() as netlink:
        index = _index(netlink, parent)
        own = netlink.get_links(index)[0].get_attr("IFLA_ADDRESS") or ""
        tail = hashlib.sha256(f"{own} {label}".encode()).digest()[:5]
        mac = (b"\x02" + tail).hex(":")  # locally administered, for one station
        netlink.link("add", ifname=name, kind="macvlan", link=index, macvlan_mode="private", address=mac)


def move(name: str, target: int) -> None:
    """Moves an interface to the namespace of this descriptor; the kernel takes it down and forgets its addresses."""
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, name), state="down")
        netlink.link("set", index=_index(netlink, name), net_ns_fd=target)


def delete_interface(name: str) -> None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=name):
            netlink.link("del", index=index)


def raise_loopback() -> None:
    """AnyIP addresses are local to the loopback interface, which has to be up for it."""
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, "lo"), state="up")


def configure(name: str, addresses: list[str], routes: list[tuple[str, str]], silent: bool = False) -> None:
    """Gives an interface its addresses, takes it up, and adds routes (network, router). `silent`: ARP is off there."""
    with IPRoute() as netlink:
        index = _index(netlink, name)
        if silent:
            netlink.link("set", index=index, flags=_NOARP, mask=_NOARP)
        for text in addresses:
            _add_address(netlink, index, text)
        netlink.link("set", index=index, state="up")
        for network, via in routes:
            try:
                netlink.route(
                    "replace", family=_family(via), dst=network, gateway=via, oif=index, proto=_PROTO_STATIC
                )  # fmt: skip
            except NetlinkError as error:
                raise GateError(
                    f"the route to {network} via {via} cannot be set on {name}: {os.strerror(error.code)}",
                    hint="the router must be in a network of the zone's own addresses",
                ) from None


def set_neighbour(name: str, address: str, station: str) -> None:
    """A neighbour that is known for good: nobody asks for it, and no answer changes it."""
    with IPRoute() as netlink:
        index = _index(netlink, name)
        netlink.neigh(
            "replace", ifindex=index, dst=address, lladdr=station or "ff:ff:ff:ff:ff:ff", state=_PERMANENT,
            family=_family(address),
        )  # fmt: skip


def _add_address(netlink: Any, index: int, text: str, broadcast: str = "") -> None:
    interface = ipaddress.ip_interface(text)
    more: dict[str, Any] = {}
    if interface.version == 6:
        more["flags"] = _NODAD  # a listener could not be bound while the address is being tried out
    elif broadcast:
        more["broadcast"] = broadcast
    netlink.addr(
        "replace", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen,
        family=_family(str(interface.ip)), **more,
    )  # fmt: skip


def set_overlay(wanted: list[str], links: dict[str, list[str]]) -> None:
    """These addresses, and no others, answer in the calling process's namespace besides those of its interfaces.

    `links` are the interfaces with their own addresses. An IPv4 address becomes local by a route (AnyIP), and where it
    lies in an interface's network the kernel answers ARP for it. For IPv6 an address must be on an interface to be
    listened at: the one in whose network it lies, or else the loopback interface.
    """
    with IPRoute() as netlink:
        loopback = _index(netlink, "lo")
        for entry in netlink.get_routes(family=socket.AF_INET, table=_TABLE_LOCAL, proto=_PROTO_STATIC):
            to = entry.get_attr("RTA_DST")
            if entry["proto"] == _PROTO_STATIC and to and to not in wanted:
                _local_route(netlink, "del", to, loopback)
        for name in ("lo", *links):
            _drop_stale(netlink, _index(netlink, name), {*wanted, "::1"}, links.get(name, []))
        for text in wanted:
            if ":" not in text:
                _local_route(netlink, "replace", text, loopback)
                continue
            on_link = next((name for name, own in links.items() if _within(text, own)), "lo")
            _add_address(netlink, _index(netlink, on_link), f"{text}/128")


def _drop_stale(netlink: Any, index: int, wanted: set[str], own: list[str]) -> None:
    """Takes IPv6 addresses off an interface that an earlier `set_overlay` put there."""
    for entry in netlink.get_addr(index=index, family=socket.AF_INET6):
        text = entry.get_attr("IFA_ADDRESS")
        if entry["prefixlen"] == 128 and text not in wanted and f"{text}/128" not in own:
            netlink.addr("del", index=index, address=text, prefixlen=128, family=int(socket.AF_INET6))


def _local_route(netlink: Any, what: str, address: str, loopback: int) -> None:
    netlink.route(
        what, family=_family(address), dst=f"{address}/32", oif=loopback, type=_TYPE_LOCAL, table=_TABLE_LOCAL,
        proto=_PROTO_STATIC, scope=_SCOPE_HOST,
    )  # fmt: skip


def _within(text: str, own_addresses: list[str]) -> bool:
    address = ipaddress.ip_address(text)
    networks = [ipaddress.ip_interface(own).network for own in own_addresses]
    return any(network.version == address.version and address in network for network in networks)


def _family(address: str) -> int:
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)


def restore(plain: dict[str, Any]) -> list[str]:
    """Gives an interface that has come back what it had (`journal.Moved`, plain); what could not be given. Something
    else of that name, or one that has its addresses already, is left alone."""
    moved = msgspec.convert(plain, Moved)
    failed: list[str] = []
    with IPRoute() as netlink:
        found = netlink.link_lookup(ifname=moved.name)
        if not found:
            return [f"interface {moved.name} is gone"]
        index = found[0]
        if (netlink.get_links(index)[0].get_attr("IFLA_ADDRESS") or "") != moved.mac:
            return [f"interface {moved.name} is another one now"]
        for held in moved.addresses:
            try:
                _add_address(netlink, index, held.address, held.broadcast)
            except NetlinkError as error:
                failed.append(f"address {held.address} of {moved.name}: {error}")
        if moved.up:
            netlink.link("set", index=index, state="up")
            for route in sorted(moved.routes, key=lambda route: route.gateway != ""):  # routers last
                try:
                    _add_route(netlink, index, route)
                except NetlinkError as error:
                    failed.append(f"route {route.network or 'default'} by {moved.name}: {error}")
    return failed


def _add_route(netlink: Any, index: int, route: RouteHeld) -> None:
    fields: dict[str, Any] = {"family": route.family, "oif": index, "proto": route.protocol, "scope": route.scope}
    fields["dst"] = route.network or "default"
    for name, value in (("gateway", route.gateway), ("priority", route.priority), ("prefsrc", route.source)):
        if value:
            fields[name] = value
    netlink.route("replace", **fields)


def restore_routes(plain: dict[str, Any], ipv6: bool) -> None:
    """Gives an interface in its new namespace the routes that it had, as `journal.Moved` (plain) has them. `ipv6`:
    whether the namespace has it."""
    moved = msgspec.convert(plain, Moved)
    with IPRoute() as netlink:
        index = _index(netlink, moved.name)
        for route in sorted(moved.routes, key=lambda route: route.gateway != ""):
            if ipv6 or route.family == socket.AF_INET:
                _add_route(netlink, index, route)


# --- wires ------------------------------------------------------------------------------------------------------------


def look_at_wires(names: list[str]) -> list[tuple[str, int, str, list[str], list[str]]]:
    """(name, index, station, addresses, routers) of each interface."""
    found = []
    with IPRoute() as netlink:
        for name in names:
            index = netlink.link_lookup(ifname=name)[0]
            link = netlink.get_links(index)[0]
            own = [
                entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS") for entry in netlink.get_addr(index=index)
            ]
            routers = {
                entry.get_attr("RTA_GATEWAY")
                for family in (socket.AF_INET, socket.AF_INET6)
                for entry in netlink.get_routes(family=family, oif=index)
            } - {None}
            found.append((name, index, str(link.get_attr("IFLA_ADDRESS")), own, sorted(routers)))
    return found


def packet_socket(name: str) -> socket.socket:
    """A socket that sends and hears all frames of an interface of the calling process's namespace. Raises: OSError."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        sock.bind((name, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock
