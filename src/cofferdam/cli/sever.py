"""`cofferdam sever it|ot`: ends all sessions of one side and refuses new ones, until `cofferdam restore`."""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument("side", choices=["it", "ot"], help="the side to cut off")
    parser.add_argument("--reason", default="", help="why, for the record")
    add_state(parser)
    add_json(parser)
    parser.epilog = "It is on disk before this command returns, and survives a restart of the gate and of the machine."


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import sever

    result = sever(state_of(args), args.side, args.reason)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.side} is severed; {result['sessions']} sessions were open")
    return 0
