"""`cofferdam grant`: opens a conduit for a time that the policy keeps shut; one asks, another agrees."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    ask = what.add_parser("ask", help="ask for a conduit; nothing opens yet")
    ask.add_argument("conduit", metavar="CONDUIT")
    ask.add_argument("--for", dest="lasts", metavar="TIME", required=True, help="how long it is needed: 30m, 2h")
    ask.add_argument("--reason", required=True, help="why, for whoever agrees and for the record")
    agree = what.add_parser("agree", help="agree to what another person has asked for: it opens now")
    agree.add_argument("number", type=int, metavar="NUMBER")
    end = what.add_parser("end", help="end a grant, or withdraw what was asked for")
    end.add_argument("number", type=int, metavar="NUMBER")
    show = what.add_parser("list", help="what is asked for, and what stands")
    for one, prints in ((ask, "Grant"), (agree, "Grant"), (end, "GrantEnd"), (show, "list[Grant]")):
        add_state(one)
        add_json(one, prints)
    parser.epilog = (
        "Who asks and who agrees is the login that the kernel knows, also under sudo: two people are needed. Example: "
        "cofferdam grant ask vendor-writes --for 2h --reason 'work order 4711'"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.sever import duration
    from cofferdam.gate import client

    state = state_of(args)
    if args.what == "ask":
        result = client.ask(state, "ask-grant", conduit=args.conduit, lasts=duration(args.lasts), reason=args.reason)
        shown = f"grant {result['number']} is asked for; another person says: cofferdam grant agree {result['number']}"
        code = 0
    elif args.what == "agree":
        result = client.ask(state, "agree-grant", number=args.number)
        shown, code = f"conduit {result['conduit']} is open until {_utc(result['until_ns'])}", 0
    elif args.what == "end":
        result = client.ask(state, "end-grant", number=args.number)
        code = 0 if result["changed"] else 1
        shown = f"grant {args.number} {'is over' if result['changed'] else 'does not stand'}"
    else:
        result = client.ask(state, "status", fresh=False)["grants"]
        shown, code = "\n".join(map(_line, result)) or "no grant stands, and nobody asks for one", 0
    print(json.dumps(result) if args.json else shown)
    return code


def _line(one: dict[str, Any]) -> str:
    if one["agreed_by"]:
        left = max(0, one["until_ns"] - time.time_ns()) // 60_000_000_000
        stands = f"open until {_utc(one['until_ns'])} ({left} min left), agreed by {one['agreed_by']}"
    else:
        stands = "waits for a second person"
    wish = f"for {one['seconds'] // 60} min  asked by {one['by']}: {one['reason']}"
    return f"{one['number']}  {one['conduit']}  {wish}; {stands}"


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")
