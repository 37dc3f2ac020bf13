"""`cofferdam sever`: ends all sessions of a side, a zone, a conduit, a principal or an asset, and refuses new ones; or
ends one session.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from cofferdam.errors import GateError

SIDES, KINDS = ("it", "ot"), ("zone", "conduit", "principal", "asset")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> int:
    """Seconds. Raises: GateError."""
    word = text.strip().lower().replace(" ", "").removesuffix("in").removesuffix("min")
    if word and word[-1] in _UNITS and word[:-1].isascii() and word[:-1].isdigit() and 0 < len(word) < 9:
        seconds = int(word[:-1]) * _UNITS[word[-1]]
        if 0 < seconds <= 366 * 86_400:
            return seconds
    raise GateError(f"{text} is no duration", hint="one such as 30m, 2h or 3d")


def target(parser: argparse.ArgumentParser, *, session: bool) -> None:
    more = ", session" if session else ""
    kinds = [*KINDS, *(["session"] if session else [])]

    def what(word: str) -> str:
        if word.lower() not in (*SIDES, *kinds):
            raise argparse.ArgumentTypeError(
                f"{word} is neither a side (it, ot) nor a kind: say which it is, such as `{parser.prog} asset {word}` "
                f"({', '.join(kinds)})"
            )
        return word.lower()

    parser.add_argument(
        "what", type=what, choices=[*SIDES, *kinds],
        metavar="WHAT", help=f"a side (it, ot), or with a name: {', '.join(KINDS)}{more}",
    )  # fmt: skip
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="which, unless it is a side")


def check(what: str, name: str) -> None:
    """Raises: GateError."""
    if (what in SIDES) == bool(name):
        raise GateError(f"{what} {'takes no name' if name else 'needs a name'}",
                        hint="such as: it, ot, zone control, conduit NAME, principal NAME, asset NAME")  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_reason, add_state

    target(parser, session=True)
    add_reason(parser)
    parser.add_argument(
        "--for", dest="lasts", metavar="TIME", default="", help="restored by itself after this: 30m, 2h"
    )
    add_state(parser)
    add_json(parser, "Sever")
    parser.epilog = (
        "It is on disk before this command returns, and survives a restart of the gate and of the machine. A session "
        "that was ended may come again. Example: cofferdam sever principal vendor --for 2h --reason 'work is done'"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask, sever

    check(args.what, args.name)
    seconds = duration(args.lasts) if args.lasts else 0
    state = state_of(args)
    until = time.time_ns() + seconds * 10**9 if seconds else 0
    if args.what in SIDES:
        result = sever(state, args.what, args.reason, until)
        count = result["sessions"]
        shown = f"the {args.what} side is severed{_stays(args.lasts, until, result)}; "
        shown += f"{count} session{'s were' if count != 1 else ' was'} open"
    elif args.what == "session":
        if seconds:
            raise GateError("a session is ended and nothing stays shut", hint="sever the principal or the asset")
        result = ask(state, "end-session", session=args.name, reason=args.reason)
        shown = f"session {args.name} was ended"
    else:
        result = ask(state, "sever-part", kind=args.what, name=args.name, reason=args.reason, until_ns=until)
        count = result["sessions"]
        shown = f"{args.what} {args.name} is severed{_stays(args.lasts, until, result)}; "
        shown += f"{count} session{'' if count == 1 else 's'} ended"
    print(json.dumps(result) if args.json else shown)
    return 0


def _stays(lasts: str, until_ns: int, result: dict[str, Any]) -> str:
    """For how long, in words: what was severed for longer already stays so."""
    ends = result.get("until_ns", until_ns)
    if ends == until_ns:
        return f" for {lasts}" if until_ns else ""
    return ", and stays so for longer, as it was severed before" if ends else ", and stays so, as it was severed before"
