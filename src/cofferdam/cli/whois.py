"""`cofferdam whois ADDRESS`: which principals an address stands for, what they may, and what it has open."""

from __future__ import annotations

import argparse
import ipaddress
import json
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("address", metavar="ADDRESS", help="an IPv4 or IPv6 address, such as a firewall's log names it")
    parser.add_argument("--policy", type=Path, metavar="POLICY", help="ask this file, and not the running gate")
    add_state(parser)
    add_json(parser, "Whois")
    parser.epilog = "Exit code: 0 a principal has the address, 1 none has, 2 no gate runs or that is no address."


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli import diff
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask
    from cofferdam.policy.difference import grants
    from cofferdam.policy.near import near_principals

    try:
        address = str(ipaddress.ip_address(args.address))
    except ValueError:
        raise CofferdamError(f"{args.address} is no address", hint="one such as 10.1.0.20 or fd00::20") from None
    sessions: list[dict[str, Any]] = []
    if args.policy is not None:
        policy = diff.compiled(args.policy)
    else:
        policy = diff.in_force(ask(state_of(args), "policy"))
        sessions = [one for one in ask(state_of(args), "status")["sessions"] if one["source"] == address]
    names = policy.principals_of(address, None, None)
    may = sorted({one for one in grants(policy.table) if one.who in names})
    near = [] if names else near_principals(policy.principals, address)
    if args.json:
        print(json.dumps({
            "address": address, "near": near, "sessions": sessions,
            "principals": {name: policy.principals[name].zone for name in names},
            "may": [{"conduit": one.conduit, "who": one.who, "what": one.what} for one in may],
        }))  # fmt: skip
        return 0 if names else 1
    if not names:
        print(f"{address} is no principal's: a firewall of the gate drops it, or its connection is closed unanswered")
        for name in near:
            other = policy.principals[name]
            print(f"  near it: {name} ({', '.join(other.networks)}, zone {other.zone})")
        return 1
    print(f"{address} is {' and '.join(f'{name} (zone {policy.principals[name].zone})' for name in names)}")
    for one in may:
        print(f"  {one.who} may {one.what}   (conduit {one.conduit})")
    if not may:
        print("  no conduit lets it do anything")
    for session in sessions:
        counts = f"{session['requests']} requests, {session['refused']} refused"
        print(f"  open: session {session['session']} with {session['asset']}, {counts}")
    return 0
