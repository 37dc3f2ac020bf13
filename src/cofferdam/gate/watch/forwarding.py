"""Whether the host hands packets on from one network to another: then, where the gate has no namespaces, there may be a
way between the sides that it knows nothing of."""

from __future__ import annotations

from pathlib import Path

SWITCHES = {"IPv4": "ipv4/ip_forward", "IPv6": "ipv6/conf/all/forwarding"}


def forwarded(folder: Path = Path("/proc/sys/net")) -> tuple[bool, str]:
    """Whether it is known that it does not, and a sentence."""
    on, unknown = [], []
    for version, switch in SWITCHES.items():
        try:
            if (folder / switch).read_text().strip() != "0":
                on.append(version)
        except FileNotFoundError:
            continue  # a kernel without that version
        except OSError:
            unknown.append(version)
    if on:
        switches = ", ".join(f"net.{SWITCHES[version].replace('/', '.')}" for version in on)
        way = "without network namespaces there may be a way between the sides past the gate"
        return False, f"this host forwards {' and '.join(on)} ({switches}): {way}"
    if unknown:
        return False, f"whether this host forwards {' and '.join(unknown)} cannot be read"
    return True, "this host does not forward packets between its networks"
