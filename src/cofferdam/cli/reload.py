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
    add_state(parser)
    add_json(parser)
    parser.epilog = "A policy that does not load changes nothing: the findings are printed and the exit code is 2."


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import journal
    from cofferdam.gate.client import ask

    state = state_of(args)
    path = str(args.policy.absolute()) if args.policy is not None else ""
    result = ask(state, "reload", path=path)
    if path and os.geteuid() == 0 and journal.noted_policy(state) is not None:
        journal.note_policy(state, Path(path))
    if args.json:
        print(json.dumps(result))
    else:
        same = " (the same as before)" if result["policy"] == result["previous"] else ""
        print(f"policy {result['policy'][:12]} is in force{same}")
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
