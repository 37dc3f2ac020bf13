"""`cofferdam install`: writes the systemd units of the gate, and the rules that close its interfaces without it."""

from __future__ import annotations

import argparse
import ipaddress
import json
import shutil
import sys
import time
from pathlib import Path

from cofferdam.errors import GateError

POLICY, STATE = Path("/etc/cofferdam/policy.yaml"), Path("/var/lib/cofferdam")

HOST_RULES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
"""What nftables.service loads, on Debian and on Red Hat's systems."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument(
        "policy", metavar="POLICY", type=Path, nargs="?", default=POLICY, help=f"the policy (default: {POLICY})"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", default=Path("/"), help="write below this folder")
    parser.add_argument("--program", metavar="PATH", help="the cofferdam command in the unit (default: this one)")
    parser.add_argument("--print", action="store_true", dest="show", help="print the files, and write none")
    add_state(parser)
    add_json(parser)
    parser.epilog = (
        "Then: systemctl daemon-reload && systemctl enable --now cofferdam-shut cofferdam. To be run again when the "
        "policy names other interfaces."
    )


def files(policy: Path, state: Path, program: str) -> dict[str, str]:
    """The files by their absolute paths.

    Raises:
        PolicyError: the policy does not load.
        GateError: a path cannot stand in a unit.
    """
    from cofferdam.cli.units import (
        Setting,
        device_name,
        firewall_dropin,
        gate_unit,
        shut_bridge_rules,
        shut_frame_rules,
        shut_rules,
        shut_unit,
    )
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    compiled = compile_policy(load(policy), now_ns=time.time_ns())
    for path in (program, str(policy), str(state)):
        if not device_name(path):
            raise GateError(f"the path {path!r} cannot stand in a unit", hint="use one without spaces, quotes, $ or %")
    moved = {zone.interface for zone in compiled.zones.values() if zone.interface and not (zone.vlan or zone.macvlan)}
    management = compiled.gate.management
    early = management is None or ipaddress.ip_address(management[0]).is_loopback
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or "/usr/sbin/nft"
    host_rules = next((path for path in HOST_RULES if Path(path).exists()), HOST_RULES[0])
    moved_names = tuple(sorted(moved))
    setting = Setting(program, str(policy), str(state), moved_names, early, nft, host_rules=host_rules)
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


def run(args: argparse.Namespace) -> int:
    # Not resolved: a virtual environment's program is known by its own name.
    beside = Path(sys.executable).with_name("cofferdam")
    program = args.program or (str(beside) if beside.exists() else shutil.which("cofferdam")) or ""
    if not program.startswith("/"):
        raise GateError("the cofferdam command was not found", hint="name it with --program")
    state: Path = (args.state or STATE).absolute()
    found = files(args.policy.absolute(), state, program)
    if args.show:
        if args.json:
            print(json.dumps(found))
        else:
            for path, text in found.items():
                print(f"# --- {path}\n{text}")
        return 0
    root: Path = args.root
    try:
        for path, text in found.items():
            target = root / path.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.new")
            fresh.write_text(text, encoding="utf-8")
            fresh.chmod(0o644)
            fresh.replace(target)
        (root / str(state).removeprefix("/")).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GateError(
            f"cannot write {error.filename}: {error.strerror}", hint="run it as root, or give --root"
        ) from None
    if args.json:
        print(json.dumps({"written": [str(root / path.removeprefix("/")) for path in found]}))
    else:
        for path in found:
            print(f"wrote {root / path.removeprefix('/')}")
        if root == Path("/"):
            print("next: systemctl daemon-reload && systemctl enable --now cofferdam-shut cofferdam")
    return 0
