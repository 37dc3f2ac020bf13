"""`cofferdam restore it|ot`: lets a severed side work again."""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("side", choices=["it", "ot"], help="the side that was cut off")
    add_state(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    result = ask(state_of(args), "restore", side=args.side)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.side} works again" if result["changed"] else f"{args.side} was not severed")
    return 0 if result["changed"] else 1
