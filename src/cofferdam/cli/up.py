"""`cofferdam up POLICY`: runs the gate by a policy, in the foreground, until it is told to stop.

This process becomes the launcher, which is all of the gate that may hold privilege; the policy is read by the gate
process that it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.gate.crew.plan import CrewPlan, Share
    from cofferdam.policy.table import CompiledPolicy

_USUAL = {"clamd": "/run/clamav/clamd.ctl"}
"""Services of the host that brokers' jobs may use, and where Debian has their sockets."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("policy", metavar="POLICY", type=Path, help="the policy: a YAML file, or a folder of them")
    add_state(parser)
    parser.add_argument(
        "--pairs", type=int, default=1, metavar="N", help="spread the devices of each road over N pairs (more cores)"
    )
    parser.add_argument(
        "--users",
        default="64000-64999",
        metavar="FIRST-LAST",
        help="user ids for the gate's processes, when in namespaces",
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="INTERFACE",
        help="take this interface into a namespace although the host's default route, or this session, goes by it",
    )
    parser.add_argument(
        "--folders",
        type=Path,
        metavar="DIR",
        help="where the folders are that a policy names for files that come and go (default STATE/folders)",
    )
    parser.add_argument(
        "--socket",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the Unix socket of a service of this machine that a broker uses, such as "
        "clamd=/run/clamav/clamd.ctl (which is the default where it is there)",
    )
    parser.add_argument(
        "--look",
        metavar="GROUP",
        help="members of this group of the machine may ask for status, and ping: no root needed",
    )
    parser.add_argument("--sever", metavar="GROUP", help="members of this group may look, and sever as well")
    parser.add_argument(
        "--machine", default="", metavar="NAME", help="which of the policy's machines this is, where it names several"
    )
    parser.add_argument(
        "--check-only",
        action="store_true",
        help="say what would run and what is in the way (rights, nft, interfaces, "
        "addresses, ports), and exit: 0 a gate could start, 1 it could not, 2 the policy is wrong",
    )
    add_json(parser, "Up", text="with --check-only: print JSON")
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="form of the messages on stderr")
    parser.epilog = (
        "SIGTERM and SIGINT stop the gate in order (a second one ends it at once), SIGHUP has it read its policy anew. "
        "Example: cofferdam up /etc/cofferdam/policy.yaml"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of

    if not 1 <= args.pairs <= 64:
        raise GateError("--pairs is from 1 to 64", hint="one for each core that the gate may use is enough")
    if args.check_only:
        return _check(args)
    if args.json:
        raise GateError(
            "--json goes with --check-only", hint="--log-format json has the running gate's messages as JSON"
        )
    from cofferdam.brokers.registry import CREWS
    from cofferdam.enforce import doors
    from cofferdam.enforce.choice import choose
    from cofferdam.enforce.journal import forget_policy
    from cofferdam.enforce.launcher import Launcher
    from cofferdam.enforce.users import Users

    state = state_of(args, own=True)
    policy = args.policy.absolute()
    if (old := policy.with_name("export.yaml")).exists():  # only looked for: this process reads nobody's text
        print(f"cofferdam: nothing reads {old} any more; `cofferdam check {policy}` says how to write it now",
              file=sys.stderr)  # fmt: skip
    isolation = choose(policy, state, users=Users.parse(args.users), take=args.take, machine=args.machine)
    if isolation.name != "namespaces" and os.geteuid() == 0:
        forget_policy(state)  # of a gate in namespaces that was killed
    arguments = ["--policy", str(policy), "--state", str(state), "--pairs", str(args.pairs)]
    arguments += ["--log-format", args.log_format, "--machine", args.machine]
    keep = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM")
    environment = [name for name in keep if name in os.environ]
    folders = args.folders.absolute() if args.folders is not None else None
    groups = {role: doors.group(name) for role in doors.DOORS if (name := getattr(args, role))}
    launcher = Launcher(
        isolation, state, CREWS, arguments,
        environment=environment, folders=folders, sockets=_sockets(args.socket), groups=groups,
    )  # fmt: skip
    return launcher.run()


def _sockets(said: list[str]) -> dict[str, Path]:
    """Services of the host by name. Raises: GateError, for one that is not there."""
    found = {name: Path(path) for name, path in _USUAL.items() if Path(path).is_socket()}
    for text in said:
        name, _, path = text.partition("=")
        if name not in _USUAL:
            raise GateError(f"--socket {text}: no broker uses {name!r}", hint=f"there is {', '.join(_USUAL)}")
        if not path.startswith("/") or not Path(path).is_socket():
            raise GateError(f"--socket {text}: there is no socket at {path!r}", hint="does the service run?")
        found[name] = Path(path)
    return {name: path.resolve() for name, path in found.items()}


def _check(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.brokers.registry import check_installed
    from cofferdam.cli import old_export
    from cofferdam.cli.findings import count_of
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.up_ready import Lack, lacks, no_scanner
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    policy = compile_policy(load(args.policy), now_ns=time.time_ns()).on(args.machine)
    plans = plan_crews(policy, shards=args.pairs)
    check_installed(plan.broker for plan in plans.values())
    missing = lacks(policy, plans, state_of(args))
    if "clamd" not in _sockets(args.socket):
        missing += no_scanner(policy)
    if (old := old_export.finding(args.policy)) is not None:
        missing.append(
            Lack(False, f"{old.file}: {old.found}", f"cofferdam check {args.policy} says how to write it now")
        )
    code = 1 if any(lack.hard for lack in missing) else 0
    if args.json:
        print(json.dumps(_check_report(policy, plans) | {"ready": not code, "lacks": msgspec.to_builtins(missing)}))
        return code
    conduits, assets = count_of(len(policy.conduits), "conduits"), count_of(len(policy.assets), "assets")
    print(f"policy {policy.hash} of site {policy.site}: {conduits}, {assets}")
    for zone in policy.zones.values():
        if zone.interface:
            how = "shared with this machine" if zone.macvlan or zone.vlan else "taken away from this machine"
            print(f"interface {zone.interface}: zone {zone.name}; with namespaces it is {how} while the gate runs")
    for plan in plans.values():
        parts = ", ".join(
            f"{name} on {part.place.side} ({', '.join(part.zones)})" if part.place else f"{name} apart"
            for name, part in plan.parts.items()
        )
        print(f"crew {plan.name}: {parts}")
        if not any(share.reaches for share in plan.shares):
            for name, part in plan.parts.items():
                if part.published:
                    print(f"  {name} listens at {', '.join(part.published)}")
            print(f"  for {', '.join(plan.asset_names)}")
            continue
        for share in plan.shares:
            spots = ", ".join(share.published) or "not published"
            reached = ", ".join(f"{address}:{port}" for address, port in share.reaches)
            print(f"  {spots} -> {share.name}{f' ({reached})' if reached else ''}")
    for lack in missing:
        print(f"{'NOT READY' if lack.hard else 'note'}: {lack.what}\n  {lack.way_out}")
    if not code:
        print("ready: a gate could start here with it")
    return code


def _device(policy: CompiledPolicy, share: Share) -> list[object]:
    """Address and port of what a share is for, if a part opens connections to it."""
    asset = policy.assets.get(share.name)
    found = [place for place in share.reaches if asset is None or place == (asset.address, asset.port)]
    return [*found[0]] if found else []


def _check_report(policy: CompiledPolicy, plans: Mapping[str, CrewPlan]) -> dict[str, object]:
    return {
        "policy": policy.hash,
        "site": policy.site,
        "conduits": list(policy.conduits),
        "interfaces": {
            zone.name: {"interface": zone.interface, "taken": not (zone.macvlan or zone.vlan)}
            for zone in policy.zones.values()
            if zone.interface
        },
        "pairs": [
            {
                "name": plan.name,
                "outer": plan.outer.side,
                "inner": plan.inner.side,
                "from": list(plan.source_zones),
                "broker": plan.broker,
                "conduits": list(plan.conduits),
                "parts": {
                    name: {"side": part.place.side if part.place else "", "listens": list(part.published)}
                    for name, part in plan.parts.items()
                },
                "assets": {
                    share.name: {
                        "listens": list(share.published),
                        "device": _device(policy, share),
                    }
                    for share in plan.shares
                },
            }
            for plan in plans.values()
        ],
    }
