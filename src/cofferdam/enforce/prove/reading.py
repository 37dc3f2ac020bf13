"""Reads from the kernel what a network namespace holds and what a process is. Reads only.

Functions about a namespace read that of the calling process: `worker.inside` takes them there. They return plain data.

Not here: what should be there (structure).
"""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from cofferdam.enforce import firewall

Json = dict[str, Any]
NAMESPACES = ("net", "mnt", "pid", "ipc", "uts")
_TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
_SWITCHES = ("forwarding", "mc_forwarding", "proxy_arp", "proxy_ndp", "route_localnet", "bc_forwarding")
_LISTEN = "0A"
_FRAME_FILTER = re.compile(r'hook (ingress|egress) device "([^"]+)" priority [^;]+; policy (\w+);')
_DEFAULT_RULES = {(0, 255), (32766, 254), (32767, 253)}
"""(priority, table) of the rules that every namespace begins with."""
_PLAIN_QDISCS = {"noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo"}


def network() -> Json:
    """Interfaces, addresses, routes, rules, traffic control and switches of the calling process's namespace."""
    with IPRoute() as netlink:
        links = []
        for link in netlink.get_links():
            info = link.get_attr("IFLA_LINKINFO")
            xdp = link.get_attr("IFLA_XDP")
            links.append({
                "index": link["index"], "name": link.get_attr("IFLA_IFNAME"),
                "kind": (info.get_attr("IFLA_INFO_KIND") if info else "") or "",
                "mac": link.get_attr("IFLA_ADDRESS") or "", "up": bool(link["flags"] & 1),
                "master": link.get_attr("IFLA_MASTER") or 0,
                "xdp": int((xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else 0) or 0),
            })  # fmt: skip
        names = {link["index"]: link["name"] for link in links}
        addresses = [
            f"{names.get(entry['index'], '?')} {entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}"
            f"/{entry['prefixlen']}"
            for entry in netlink.get_addr()
        ]
        routes, rules = [], []
        for family in (socket.AF_INET, socket.AF_INET6):
            for entry in netlink.get_routes(family=family):
                to = entry.get_attr("RTA_DST") or "default"
                table = entry.get_attr("RTA_TABLE") or entry["table"]
                via = entry.get_attr("RTA_GATEWAY")
                routes.append(
                    f"{to}/{entry['dst_len']} {names.get(entry.get_attr('RTA_OIF'), '-')}"
                    f"{f' via {via}' if via else ''} table {table}"
                )
            for entry in netlink.get_rules(family=family):
                table = entry.get_attr("FRA_TABLE") or entry["table"]
                priority = entry.get_attr("FRA_PRIORITY") or 0
                if (priority, table) not in _DEFAULT_RULES:
                    rules.append(f"IPv{4 if family == socket.AF_INET else 6} rule {priority} to table {table}")
        qdiscs = []
        for entry in netlink.get_qdiscs():
            kind = entry.get_attr("TCA_KIND") or "?"
            if kind not in _PLAIN_QDISCS:
                qdiscs.append(f"{names.get(entry['index'], '?')}: {kind}")
    return {
        "links": links, "addresses": addresses, "routes": routes, "rules": rules, "qdiscs": qdiscs,
        "switches": switches(), "legacy": _legacy(), "sockets": sockets(),
    }  # fmt: skip


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
    for name in ("ipv4/ip_forward", "ipv4/ip_nonlocal_bind"):
        found[name] = (Path("/proc/sys/net") / name).read_text().strip()
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
