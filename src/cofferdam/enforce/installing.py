"""Puts the units of a gate, and the rules that close its interfaces, where systemd and nftables look for them.

Not here: what stands in them (units).
"""

from __future__ import annotations

import ipaddress
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from cofferdam.enforce import doors
from cofferdam.enforce.units import (
    UnitSetting,
    device_name,
    firewall_dropin,
    gate_unit,
    shut_bridge_rules,
    shut_frame_rules,
    shut_rules,
    shut_unit,
)
from cofferdam.errors import GateError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load

HOST_RULES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
"""What nftables.service loads, on Debian and on Red Hat's systems."""

OBSOLETE = ("/etc/systemd/system/cofferdam-nightly.service", "/etc/systemd/system/cofferdam-nightly.timer")
"""What an earlier release wrote, and the gate does by itself now."""


def files(policy: Path, state: Path, program: str, groups: Mapping[str, str] = {}) -> dict[str, str]:
    """The files by their absolute paths. `groups`: which group has which role at the gate (doors.DOORS).

    Raises:
        PolicyError: the policy does not load.
        GateError: a path cannot stand in a unit; there is no such group.
    """
    for name in groups.values():
        doors.group(name)
    compiled = compile_policy(load(policy), now_ns=time.time_ns())
    for path in (program, str(policy), str(state), *groups.values()):
        if not device_name(path):
            raise GateError(f"the path {path!r} cannot stand in a unit", hint="use one without spaces, quotes, $ or %")
    moved = {zone.interface for zone in compiled.zones.values() if zone.interface and not (zone.vlan or zone.macvlan)}
    management = compiled.gate.management
    early = management is None or ipaddress.ip_address(management[0]).is_loopback
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or "/usr/sbin/nft"
    host_rules = next((path for path in HOST_RULES if Path(path).exists()), HOST_RULES[0])
    moved_names = tuple(sorted(moved))
    setting = UnitSetting(program, str(policy), str(state), moved_names, early, nft, host_rules=host_rules,
                          options="".join(f" --{role} {name}" for role, name in groups.items()))  # fmt: skip
    return {
        "/etc/systemd/system/cofferdam-shut.service": shut_unit(setting),
        "/etc/systemd/system/cofferdam.service": gate_unit(setting),
        "/etc/systemd/system/nftables.service.d/cofferdam.conf": firewall_dropin(setting),
        setting.rules: shut_rules(setting.interfaces),
        setting.bridge_rules: shut_bridge_rules(setting.interfaces),
        **{
            path: shut_frame_rules(name, number)
            for number, (name, path) in enumerate(zip(setting.interfaces, setting.frame_rules, strict=True), 1)
        },
    }


def write(found: dict[str, str], state: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Writes the files below a root, and makes the state directory there. Returns those that are new or other than
    before, and those that were so already. Raises: GateError."""
    written, same = [], []
    try:
        for path, text in found.items():
            target = root / path.removeprefix("/")
            if target.is_file() and not target.is_symlink() and target.read_bytes() == text.encode():
                target.chmod(0o644)
                same.append(target)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.new")
            fresh.write_text(text, encoding="utf-8")
            fresh.chmod(0o644)
            fresh.replace(target)
            written.append(target)
        for path in OBSOLETE:
            old = root / path.removeprefix("/")
            if old.is_file() and old.read_text("utf-8", "replace").startswith("# Written by `cofferdam install`"):
                old.unlink()
        (root / str(state).removeprefix("/")).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GateError(
            f"cannot write {error.filename}: {error.strerror}", hint="run it as root, or give --root"
        ) from None
    return written, same
