"""Reads from the kernel what a network namespace holds and what a process is. Reads only.

Functions about a namespace read that of the calling process: `worker.inside` takes them there. They return plain data.

Not here: what should be there (structure).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cofferdam.enforce import firewall
from cofferdam.proof import programs

Json = dict[str, Any]
NAMESPACES = ("net", "mnt", "pid", "ipc", "uts")
_TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
_SWITCHES = (
    "forwarding", "mc_forwarding", "proxy_arp", "proxy_arp_pvlan", "proxy_ndp", "route_localnet", "bc_forwarding",
)  # fmt: skip
_LISTEN = "0A"
_FRAME_FILTER = re.compile(r'hook (ingress|egress) device "([^"]+)" priority [^;]+; policy (\w+);')
_DEFAULT_RULES = {(0, 255), (32766, 254), (32767, 253)}
"""(priority, table) of the rules that every namespace begins with, for all packets."""
_RULE_ATTRIBUTES = {"FRA_TABLE", "FRA_PRIORITY", "FRA_PROTOCOL", "FRA_SUPPRESS_PREFIXLEN"}
"""What a rule for all packets has; anything else chooses among them."""
_TO_TABLE, _NO_LIMIT = 1, 0xFFFFFFFF
_CLONED = 0x200
_RTM_GETNEIGH = 30
_IFF_LOOPBACK, _IFF_NOARP = 0x8, 0x80
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_PROXY, _NTF_EXT_LEARNED = 0x08, 0x10
_RTM_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3
_XFRM, _XFRM_GETSA, _XFRM_GETPOLICY = 6, 0x12, 0x15
_REQUEST, _DUMP, _ERROR, _DONE = 1, 0x300, 2, 3
SPARE = {"tunl0": "ipip", "sit0": "sit", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "ip_vti0": "vti",
          "ip6_vti0": "vti6", "ip6tnl0": "ip6tnl", "ip6gre0": "ip6gre"}  # fmt: skip
"""The kernel makes these, down, in every namespace where a module for tunnels is loaded."""
_PLAIN_QDISCS = {"noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo"}


def network(others: Mapping[str, int] | None = None) -> Json:
    """Interfaces, addresses, routes, rules, traffic control and switches of the calling process's namespace. `others`:
    descriptors of further namespaces, to see whether an interface's other end is in one of them."""
    with IPRoute() as netlink:
        spaces = {_namespace_id(fd): name for name, fd in (others or {}).items()}
        links = []
        for link in netlink.get_links():
            info = link.get_attr("IFLA_LINKINFO")
            xdp = link.get_attr("IFLA_XDP")
            links.append({
                "index": link["index"], "name": link.get_attr("IFLA_IFNAME"),
                "kind": (info.get_attr("IFLA_INFO_KIND") if info else "") or "",
                "mac": link.get_attr("IFLA_ADDRESS") or "", "up": bool(link["flags"] & 1),
                "master": link.get_attr("IFLA_MASTER") or 0,
                # How it hangs there (driver, generic, ...), as a word or a number; nothing where there is none.
                "xdp": (xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else None) not in (None, 0),
                "other": _other(link, spaces),
            })  # fmt: skip
        names = {link["index"]: link["name"] for link in links}
        addresses = [
            f"{names.get(entry['index'], '?')} {entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}"
            f"/{entry['prefixlen']}"
            for entry in netlink.get_addr()
        ]
        ways, rules = [], []
        for family in (socket.AF_INET, socket.AF_INET6):
            # An entry that was made from a route for one packet's sake (a path's MTU) is no route.
            ways += [_way(entry, family, names) for entry in netlink.get_routes(family=family)
                     if not entry["flags"] & _CLONED]  # fmt: skip
            rules += _rules(netlink.get_rules(family=family), family)
        qdiscs = _traffic_control(netlink, names)
        neighbours = _neighbours(netlink, names)
    return {
        "links": links, "addresses": addresses, "routes": [way["text"] for way in ways], "ways": ways, "rules": rules,
        "qdiscs": qdiscs, "neighbours": neighbours, "switches": switches(), "legacy": _legacy(),
        "transforms": _transforms(),
        "programs": programs.in_namespace([link["name"] for link in links]), "sockets": sockets(),
    }  # fmt: skip


def _traffic_control(netlink: Any, names: Mapping[int, str]) -> list[str]:
    """Queue disciplines that do more than queue, and filters: also a plain one may take them, and what a filter finds
    it may send elsewhere."""
    found = []
    for entry in netlink.get_qdiscs():
        kind, name = entry.get_attr("TCA_KIND") or "?", names.get(entry["index"], "?")
        if kind not in _PLAIN_QDISCS:
            found.append(f"{name}: {kind}")
        try:
            filters = {one.get_attr("TCA_KIND") or "?"
                       for one in netlink.get_filters(index=entry["index"], parent=entry["handle"])}  # fmt: skip
        except NetlinkError as error:
            found.append(f"{name}: the filters of {kind} cannot be listed: {os.strerror(error.code)}")
            continue
        found += [f"{name}: filter {one} at {kind}" for one in sorted(filters)]
    return found


def _neighbours(netlink: Any, names: Mapping[int, str]) -> list[str]:
    """Stations that somebody set, instead of the kernel's learning them: packets to such an address go where that says,
    past every rule and route. The kernel's own fixed entries are those of interfaces without neighbours (a loopback, a
    tunnel) and of groups. The gate sets none."""
    flat = {link["index"] for link in netlink.get_links() if link["flags"] & (_IFF_LOOPBACK | _IFF_NOARP)}
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in netlink.get_neighbours(family=family):
            station = entry.get_attr("NDA_LLADDR") or ""
            how = "permanent" if entry["state"] & _NUD_PERMANENT else ""
            if entry["state"] & _NUD_NOARP and entry["ifindex"] not in flat and station and not _group(station):
                how = "fixed (noarp)"
            if entry["flags"] & _NTF_EXT_LEARNED:
                how = "learnt from a program"
            if how:
                found.append(f"{names.get(entry['ifindex'], '?')}: {entry.get_attr('NDA_DST')} is at "
                             f"{station or 'no station'}, {how}")  # fmt: skip
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            body = struct.pack("=BBHiHBB", family, 0, 0, 0, 0, _NTF_PROXY, 0)
            sock.send(struct.pack("=IHHII", 16 + len(body), _RTM_GETNEIGH, _REQUEST | _DUMP, 1, 0) + body)
            count = _count(sock)
        found += [f"IPv{4 if family == socket.AF_INET else 6}: {count} addresses are answered for (proxy)"] * bool(
            count
        )
    return found


def _group(station: str) -> bool:
    """Whether a link-layer address is that of a group, or nobody's."""
    raw = bytes.fromhex(station.replace(":", ""))
    return bool(raw[0] & 1) or not any(raw)


def _other(link: Any, spaces: Mapping[int, str]) -> str:
    """In which of the further namespaces an interface's other end (its peer, its parent) is; "" if in none."""
    where = link.get_attr("IFLA_LINK_NETNSID")
    return "" if where is None or where < 0 else spaces.get(where, "")


def _way(entry: Any, family: int, names: Mapping[int, str]) -> Json:
    """A route as plain data. `odd`: what it has that no route of a gate has."""
    to = entry.get_attr("RTA_DST") or ("0.0.0.0" if family == socket.AF_INET else "::")  # noqa: S104 - all networks
    table = entry.get_attr("RTA_TABLE") or entry["table"]
    via, by = entry.get_attr("RTA_GATEWAY") or "", names.get(entry.get_attr("RTA_OIF"), "-")
    odd = [word for word, name in (("several ways", "RTA_MULTIPATH"), ("a next hop of its own", "RTA_NH_ID"),
                                   ("a tunnel", "RTA_ENCAP_TYPE"), ("a way of another kind", "RTA_VIA"))
           if entry.get_attr(name)]  # fmt: skip
    # The kernel keeps what it cannot look up in other tables out of the way, so those belong to policy routing.
    odd += [] if table in (253, 254, 255) else [f"a table of its own ({table})"]
    shown = entry.get_attr("RTA_DST") or "default"
    return {
        "text": f"{shown}/{entry['dst_len']} {by}{f' via {via}' if via else ''} table {table}",
        "to": f"{to}/{entry['dst_len']}", "by": by, "via": via, "type": entry["type"], "odd": ", ".join(odd),
    }  # fmt: skip


def _rules(entries: Any, family: int) -> list[str]:
    """What of the routing rules is not as in every namespace."""
    wrong, missing = [], {(0, 255), (32766, 254)}
    for entry in entries:
        table = entry.get_attr("FRA_TABLE") or entry["table"]
        priority = entry.get_attr("FRA_PRIORITY") or 0
        chooses = sorted(name for name, value in entry["attrs"] if name not in _RULE_ATTRIBUTES)
        if entry.get_attr("FRA_SUPPRESS_PREFIXLEN") not in (None, _NO_LIMIT, -1):
            chooses.append("FRA_SUPPRESS_PREFIXLEN")
        if entry["action"] != _TO_TABLE or entry["flags"] or entry["tos"]:
            chooses.append(f"action {entry['action']}, flags {entry['flags']}, tos {entry['tos']}")
        if (priority, table) in _DEFAULT_RULES and not chooses:
            missing.discard((priority, table))
        else:
            more = f" ({', '.join(chooses)})" if chooses else ""
            wrong.append(f"IPv{4 if family == socket.AF_INET else 6} rule {priority} to table {table}{more}")
    version = 4 if family == socket.AF_INET else 6
    return wrong + [f"IPv{version} rule {priority} to table {table} is missing" for priority, table in sorted(missing)]


def _namespace_id(fd: int) -> int:
    """The number by which the calling process's namespace knows another; -1 if it has none for it yet."""
    attribute = struct.pack("=HHI", 8, _NETNSA_FD, fd)
    body = struct.pack("=B3x", 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), _RTM_GETNSID, _REQUEST, 1, 0) + body)
        data = sock.recv(4096)
    length, kind = struct.unpack_from("=IH", data)
    at = 20
    while kind != _ERROR and at + 8 <= length:
        size, what = struct.unpack_from("=HH", data, at)
        if what == _NETNSA_NSID:
            return int(struct.unpack_from("=i", data, at + 4)[0])
        at += (size + 3) & ~3
    return -1


def _transforms() -> list[str]:
    """IPsec's states and policies (xfrm), which wrap packets past every route."""
    found = []
    for what, kind in (("state", _XFRM_GETSA), ("policy", _XFRM_GETPOLICY)):
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _XFRM) as sock:
                sock.send(struct.pack("=IHHII", 16, kind, _REQUEST | _DUMP, 1, 0))
                count = _count(sock)
        except OSError as error:
            if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
                continue  # a kernel without it
            found.append(f"an IPsec {what} cannot be asked for: {error.strerror}")
            continue
        found += [f"IPsec: {count} {'states' if what == 'state' else 'policies'}"] if count else []
    return found


def _count(sock: socket.socket) -> int:
    """The number of answers to a netlink question. Raises: OSError, with the kernel's error."""
    count = 0
    while True:
        data, at = sock.recv(1 << 16), 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == _DONE:
                return count
            if kind == _ERROR:
                code = -int(struct.unpack_from("=i", data, at + 16)[0])
                raise OSError(code, os.strerror(code))
            count += 1
            at += (length + 3) & ~3


def switches() -> Json:
    """Every switch by which the kernel would pass packets on, with its value, for each family and interface."""
    found: Json = {}
    for family in ("ipv4", "ipv6", "mpls"):
        folder = Path("/proc/sys/net") / family / "conf"
        for interface in sorted(folder.iterdir()) if folder.is_dir() else ():
            for name in ("input",) if family == "mpls" else _SWITCHES:
                path = interface / name
                if path.exists():
                    found[f"{family}/conf/{interface.name}/{name}"] = path.read_text().strip()
    for name in ("ipv4/ip_forward", "ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind"):
        path = Path("/proc/sys/net") / name
        if path.exists():
            found[name] = path.read_text().strip()
    return found


def _legacy() -> list[str]:
    """Tables of the old packet filter, which nft does not list, and virtual servers."""
    found = []
    for name in ("ip_tables_names", "ip6_tables_names", "arp_tables_names"):
        path = Path("/proc/self/net") / name
        if path.exists():
            found += [f"{name.split('_')[0]}tables: {table}" for table in path.read_text().split()]
    services = Path("/proc/self/net/ip_vs")
    if services.exists():
        found += [f"IPVS: {line}" for line in services.read_text().splitlines()[3:]]
    return found


def sockets() -> list[Json]:
    """Every socket of the namespace that could take or send packets: protocol, address, port, listening, inode."""
    found: list[Json] = []
    for table in _TABLES:
        path = Path("/proc/self/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            words = line.split()
            address, port = words[1].split(":")
            found.append({
                "protocol": table, "address": _address(address), "port": int(port, 16),
                "listening": words[3] == _LISTEN or not table.startswith("tcp"), "inode": int(words[9]),
            })  # fmt: skip
    packet = Path("/proc/self/net/packet")
    for line in packet.read_text().splitlines()[1:] if packet.exists() else ():
        words = line.split()
        found.append({"protocol": "packet", "address": "", "port": 0, "listening": True, "inode": int(words[8])})
    ends = Path("/proc/self/net/sctp/eps")
    for line in ends.read_text().splitlines()[1:] if ends.exists() else ():
        found.append({"protocol": "sctp", "address": "", "port": int(line.split()[5]), "listening": True, "inode": 0})
    return found


def _address(raw: str) -> str:
    """An address as /proc/net/tcp writes it: 32-bit words in the processor's byte order."""
    data = b"".join(int(raw[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(raw), 8))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def rules(nft: str) -> Json:
    """The ruleset in force, as nft lists it."""
    return firewall.live(nft)


def frame_filters(nft: str) -> list[list[str]]:
    """(hook, device, policy) of each chain that sees frames of a device. From nft's text: the JSON of nft 1.0.6 leaves
    the device out."""
    command = [nft, "list", "chains", "netdev"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [list(found) for found in _FRAME_FILTER.findall(text)]


def namespace_of(pid: int) -> int:
    """The inode of a process's network namespace; 0 if it has gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def processes_in(inode: int) -> list[tuple[int, str]]:
    """(process id, name) of all processes in a network namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and namespace_of(int(entry.name)) == inode:
            try:
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
            except OSError:
                continue
    return sorted(found)


def process(pid: int) -> Json | None:
    """What a process is; None if it has gone."""
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        result: Json = {"pid": pid, "status": {name: value.strip() for name, value in status.items()}}
        for kind in NAMESPACES:
            result[kind] = (folder / "ns" / kind).stat().st_ino
        result["threads"] = len(list((folder / "task").iterdir()))
        result["files"] = _files(folder)
        result["mounts"] = [
            line.split(" - ")[0].split()[4:6] for line in (folder / "mountinfo").read_text().splitlines()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return result


def _files(folder: Path) -> list[Json]:
    found = []
    for entry in sorted((folder / "fd").iterdir(), key=lambda path: int(path.name)):
        try:
            target = str(entry.readlink())
            info = (folder / "fdinfo" / entry.name).read_text()
        except FileNotFoundError:
            continue
        flags = int(next(line for line in info.splitlines() if line.startswith("flags:")).split()[1], 8)
        found.append({"fd": int(entry.name), "target": target, "flags": flags})
    return found
