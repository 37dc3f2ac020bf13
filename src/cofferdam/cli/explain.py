"""`cofferdam explain POLICY --from ADDRESS --asset NAME --operation ...`: why it is allowed or refused."""

from __future__ import annotations

import argparse
import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import Explanation, explain
from cofferdam.policy.load import load
from cofferdam.policy.points.asking import FORMS, operation
from cofferdam.policy.problems import nearest, one_of


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", type=Path, help="a policy file, or a folder of *.yaml files")
    parser.add_argument("--from", dest="source", metavar="ADDRESS", required=True, help="the address that asks")
    parser.add_argument("--asset", metavar="NAME", required=True, help="the asset that is asked")
    parser.add_argument(
        "--operation", metavar="OPERATION", required=True, help='what is asked: "write pump_speed 1400"'
    )
    parser.add_argument("--zone", metavar="ZONE", help="the zone in which the session begins (default: any)")
    parser.add_argument("--at", metavar="TIME", help="when: 2027-01-04T07:30+01:00; without offset UTC (default: now)")
    parser.add_argument("--json", action="store_true", help="print the explanation as JSON")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{FORMS}\n\nExit code: 0 allowed, 1 refused, 2 bad input."


def run(args: argparse.Namespace) -> int:
    wall_ns = _time(args.at) if args.at else time.time_ns()
    try:
        ipaddress.ip_address(args.source)
    except ValueError:
        raise CofferdamError(f"{args.source!r} is not an IP address", hint="for example --from 10.1.0.20") from None
    policy = compile_policy(load(args.policy), now_ns=wall_ns)
    asset = policy.assets.get(args.asset)
    if asset is None:
        near = nearest(args.asset, policy.assets)
        hint = f"did you mean {near}?" if near else f"the policy has {one_of(policy.assets)}" if policy.assets else ""
        raise CofferdamError(f"the policy has no asset {args.asset!r}", hint=hint)
    if args.zone is not None and args.zone not in policy.zones:
        raise CofferdamError(f"the policy has no zone {args.zone!r}", hint=f"it has {one_of(policy.zones)}")
    found = explain(policy, args.source, args.asset, operation(args.operation, asset), wall_ns, zone=args.zone)
    if args.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    return 0 if found.allowed else 1


def _time(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CofferdamError(f"{text!r} is not a time", hint="for example --at 2027-01-04T07:30+01:00") from None
    if not 1971 <= when.year <= 2200:  # the tables of daylight saving reach some years around it
        raise CofferdamError(f"{text!r} is too far away", hint="a year from 1971 to 2200 is understood")
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _print(found: Explanation) -> None:
    print(found.sentence)
    lines = [
        ("asked", f"{found.operation} on {found.asset}"),
        ("from", f"{found.source} = {', '.join(found.principals) or 'no principal'}"),
        ("at", found.at),
        ("rule", found.rule),
        ("field", found.fault),
        ("owner", found.owner),
        ("reason", found.reason),
        ("until", found.valid_until),
        ("answered with", found.answer),
        *(("provided that", condition) for condition in found.conditions),
    ]
    for name, value in lines:
        if value:
            print(f"  {name:14} {value}")
    for other in found.considered:
        if other.conduit != found.conduit:
            print(f"  {'also looked at':14} {other.rule}: {'would allow it' if other.allowed else other.detail}")
