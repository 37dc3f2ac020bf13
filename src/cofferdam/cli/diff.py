"""`cofferdam diff OLD NEW`: who gains and who loses what by another policy, and every setting that changes.

OLD may be the word `running`: then it is the policy that the running gate has in force, and what a reload would end is
told as well.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cofferdam.policy.difference import Difference, Grant
    from cofferdam.policy.table import CompiledPolicy

RUNNING = "running"
VALUE_LETTERS = 160
"""Of a value in the table; --json has all of it."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument(
        "old", metavar="OLD", help="a policy file or folder; or `running`: what the running gate has in force"
    )
    parser.add_argument("new", metavar="NEW", type=Path, help="the policy file or folder that would take its place")
    add_state(parser)
    add_json(parser, "Difference")
    parser.epilog = "Exit code: 0 no difference, 1 there is one, 2 a policy does not load or no gate runs."


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    new = compiled(args.new)
    if args.old != RUNNING:
        old, sessions = compiled(Path(args.old)), ()
    else:
        old = in_force(ask(state_of(args), "policy"))
        sessions = tuple(ask(state_of(args), "status")["sessions"])
    return show(old, new, ending(sessions, new), as_json=args.json)


def compiled(path: Path) -> CompiledPolicy:
    """Raises: PolicyError, with every finding."""
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    return compile_policy(load(path), now_ns=time.time_ns())


def in_force(answer: dict[str, Any]) -> CompiledPolicy:
    """The policy of a running gate, from its answer to `policy`. Raises: PolicyError."""
    import base64

    from cofferdam.policy.table import CompiledPolicy

    return CompiledPolicy.from_bytes(base64.b64decode(answer["rows"]))


def ending(sessions: Sequence[dict[str, Any]], new: CompiledPolicy) -> tuple[dict[str, Any], ...]:
    """The open sessions whose client may do nothing more with its asset: a reload ends them."""
    rules = [rule for conduit in new.conduits.values() for rule in conduit.rules]
    return tuple(
        session
        for session in sessions
        if not any(
            rule.asset == session["asset"]
            and set(rule.who) & set(session["principals"]) & set(new.principals_of(session["source"], None, None))
            for rule in rules
        )
    )


def show(
    old: CompiledPolicy, new: CompiledPolicy, ended: Sequence[dict[str, Any]] = (), *, as_json: bool = False
) -> int:
    """Prints what differs. Returns 0 where nothing does, else 1."""
    import msgspec

    from cofferdam.policy.difference import difference

    found = difference(old.table, new.table)
    if as_json:
        print(json.dumps({
            "old": old.hash, "new": new.hash, **msgspec.to_builtins(found),
            "sessions_ended": list(ended),
        }))  # fmt: skip
        return 1 if found else 0
    if not found:
        print(f"no difference in what they allow and set ({old.hash[:12]}, {new.hash[:12]})")
        return 0
    for line in lines(found):
        print(line)
    for session in ended:
        print(f"ends: session {session['session']} of {' or '.join(session['principals']) or session['source']} "
              f"with {session['asset']}")  # fmt: skip
    print(f"{_count(found.gained, 'permission')} gained, {_count(found.lost, 'permission')} lost, "
          f"{_count(found.changed, 'setting')} changed")  # fmt: skip
    return 1


def lines(found: Difference) -> Iterator[str]:
    """By conduit and person: `+` gained, `-` lost; then `~` what is set otherwise. A policy may be another's work: its
    words drive no terminal, and begin no line."""
    from cofferdam.audit.lines import escaped

    both = sorted([(grant, "+") for grant in found.gained] + [(grant, "-") for grant in found.lost], key=_place)
    for conduit, of_conduit in groupby(both, key=lambda one: one[0].conduit):
        yield f"conduit {conduit}"
        for (who, sign), grants in groupby(of_conduit, key=lambda one: (one[0].who, one[1])):
            for grant, _ in grants:
                yield escaped(f"  {sign} {who} {'may' if sign == '+' else 'may no longer'} {grant.what}")
    for setting in found.changed:
        path = [name for at, name in enumerate(setting.path) if (at, name) != (2, "terms")]  # which no policy says
        yield escaped(f"~ {' / '.join(path)}: {_short(setting.old)} -> {_short(setting.new)}")


def _place(one: tuple[Grant, str]) -> tuple[str, str, str, str]:
    return one[0].conduit, one[0].who, one[1], one[0].what


def _short(text: str) -> str:
    return text if len(text) <= VALUE_LETTERS else text[: VALUE_LETTERS - 1] + "…"


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
