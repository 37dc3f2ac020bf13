"""`cofferdam advise`: suggestions for the switches around the gate, worked out from the policy. It changes nothing."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from cofferdam.errors import CofferdamError


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json
    from cofferdam.enforce.plans.switches import KINDS

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    switch = what.add_parser(
        "switch", help="port isolation and access lists, so that hosts of one network cannot bypass the gate"
    )
    switch.add_argument("policy", metavar="POLICY", type=Path, help="the policy: a YAML file, or a folder of them")
    switch.add_argument("--kind", choices=KINDS, default="generic", help="the make of the switch (default: generic)")
    switch.add_argument("--gate-port", default="", metavar="PORT", help="the switch's port that leads to the gate")
    switch.add_argument(
        "--vlan",
        type=int,
        default=100,
        metavar="N",
        help="the number of the network's VLAN (default 100); the isolated one gets the next",
    )
    add_json(switch, "Advice")


def run(args: argparse.Namespace) -> int:
    from cofferdam.enforce.plans.switches import advice
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    if not (2 <= args.vlan <= 1000 or 1006 <= args.vlan <= 4093):
        raise CofferdamError(
            f"VLAN {args.vlan} and its isolated VLAN {args.vlan + 1} cannot be a private VLAN",
            hint="from 2 to 1000, or from 1006 to 4093: 1 and 1002 to 1005 have other uses, and 4094 is the last",
        )
    policy = compile_policy(load(args.policy), now_ns=time.time_ns())
    if args.json:
        lines = advice(policy, args.kind, gate_port=args.gate_port, vlan=args.vlan)
        print(json.dumps({"site": policy.site, "kind": args.kind, "policy": policy.hash, "lines": lines}))
        return 0
    print("\n".join(advice(policy, args.kind, gate_port=args.gate_port, vlan=args.vlan)))
    return 0
