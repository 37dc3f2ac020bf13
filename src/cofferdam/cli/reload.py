"""`cofferdam reload [POLICY]`: has the running gate take a new policy, or read its present file anew."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument(
        "policy", metavar="POLICY", type=Path, nargs="?", help="the new policy (default: the file now in force)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing; tell what would change, as `diff running` does",
    )
    add_state(parser)
    add_json(parser, "Reload | Difference")
    parser.epilog = (
        "What the new policy changes is printed when it is in force. A policy that does not load changes nothing: the "
        "findings are printed and the exit code is 2. With --dry-run: 0 no difference, 1 there is one."
    )


def run(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.cli import diff
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import journal
    from cofferdam.errors import PolicyError
    from cofferdam.gate.client import ask
    from cofferdam.gate.loading import handed_over
    from cofferdam.policy.difference import difference
    from cofferdam.policy.load import load

    state = state_of(args)
    before = ask(state, "policy")
    if args.dry_run:
        old, new = diff.in_force(before), diff.compiled(args.policy or Path(before["path"]))
        sessions = ask(state, "status")["sessions"]
        return diff.show(old, new, diff.ending(sessions, new), as_json=args.json)
    path = str(args.policy.absolute()) if args.policy is not None else ""
    # Read here, by whoever asks and from wherever they stand: the gate sees little of this machine's files.
    loaded = handed_over(Path(path or before["path"]))
    try:
        result = ask(state, "reload", path=path, bytes=len(loaded), more=loaded)
    except PolicyError:
        load(Path(path or before["path"]))  # says the same, and knows the lines
        raise
    if path and os.geteuid() == 0 and journal.noted_policy(state) is not None:
        journal.note_policy(state, Path(path))
    found = difference(diff.in_force(before).table, diff.in_force(ask(state, "policy")).table)
    if args.json:
        print(json.dumps(result | {"difference": msgspec.to_builtins(found)}))
    else:
        same = " (the same as before)" if result["policy"] == result["previous"] else ""
        print(f"policy {result['policy'][:12]} is in force{same}")
        for line in diff.lines(found):
            print(f"  {line}")
        for word, what in (
            ("kept", "go on"),
            ("restarted", "were started anew"),
            ("started", "are new"),
            ("stopped", "ended"),
        ):
            if result[word]:
                print(f"  {what}: {', '.join(result[word])}")
        for trouble in result["troubles"]:
            print(f"  trouble: {trouble} (the gate keeps trying; see its messages)")
    return 1 if result["troubles"] else 0
