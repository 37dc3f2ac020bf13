"""`cofferdam restore`: lets what was severed work again."""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_reason, add_state
    from cofferdam.cli.sever import target

    target(parser, session=False)
    add_reason(parser)
    add_state(parser)
    add_json(parser, "Restore")
    parser.epilog = "Exit code: 0 it works again, 1 it was not severed, 2 no gate runs or it cannot be recorded."


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.sever import SIDES, check
    from cofferdam.gate.client import ask

    check(args.what, args.name)
    state, what = state_of(args), f"the {args.what} side" if args.what in SIDES else f"{args.what} {args.name}"
    if args.what in SIDES:
        result = ask(state, "restore", side=args.what, reason=args.reason)
    else:
        result = ask(state, "restore-part", kind=args.what, name=args.name, reason=args.reason)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{what} works again" if result["changed"] else f"{what} was not severed")
    return 0 if result["changed"] else 1
