"""`cofferdam jump break-glass ...`: the sealed code, its use and the review of that."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cofferdam.cli.jump_asking import ask, show, time_of
from cofferdam.errors import GateError


def add(parent: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The words."""
    verb("status", "whether a code is sealed, and what is to be reviewed", _status, "Glass", parent)
    sealing = "make a new code, for an envelope: it is printed, this once, and the last one counts no more"
    verb("seal", sealing, _seal, "Sealed", parent)
    use = verb(
        "use", "let a person reach an asset for 4 h without an approval, by the sealed code", _use, "str", parent
    )
    use.add_argument("person", metavar="PERSON", help="who is to get in; two factors are still asked")
    use.add_argument("asset", metavar="ASSET", help="where")
    use.add_argument("reason", nargs="+", metavar="WHY", help="why, for the record and the review")
    use.add_argument("--file", type=Path, metavar="FILE", help="the code, in its first line (default: it is asked for)")
    review = verb("review", "say that its use was looked into: the alarm ends", _review, "str", parent)
    review.add_argument("reason", nargs="+", metavar="WORDS", help="what came of it")


def _status(args: argparse.Namespace) -> int:
    found = ask(args, "glass")
    lines = ["a code is sealed" if found["sealed"] else "no code is sealed: `cofferdam jump break-glass seal`"]
    if used := found["used"]:
        lines.append(
            f"{used['by']} used one for {used['person']} at {used['asset']}, {time_of(used['at_ns'])}: {used['reason']}"
            "; it is to be reviewed by somebody else"
        )
    return show(args, found, lines)


def _seal(args: argparse.Namespace) -> int:
    code = ask(args, "glass-seal")
    return show(args, {"code": code}, [code, "into an envelope with it, sealed; it is not shown again"])


def _use(args: argparse.Namespace) -> int:
    if args.file is not None:
        try:
            code = args.file.read_text("utf-8").split("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise GateError(f"{args.file} cannot be read: {error}") from None
    else:
        code = getpass.getpass("the sealed code: ")
    if not code.strip():
        raise GateError("there is no code", hint="it is in the envelope, and the first line of --file")
    found = ask(args, "glass-break", code=code, person=args.person, asset=args.asset, reason=" ".join(args.reason))
    return show(args, found, [str(found)])


def _review(args: argparse.Namespace) -> int:
    return show(args, found := ask(args, "glass-review", reason=" ".join(args.reason)), [str(found)])
