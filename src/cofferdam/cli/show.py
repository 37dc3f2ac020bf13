"""`cofferdam show --effective`: the policy as it is in force, every default said and every notation worked out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    parser.add_argument(
        "policy", metavar="POLICY", nargs="?", default="running", help="a file or folder; default: the running gate's"
    )
    parser.add_argument("--effective", action="store_true", help="with every default (which is what there is to show)")
    add_state(parser)
    add_json(parser, "Show")
    parser.epilog = (
        "YAML to read, or with --json the same as JSON; it is no policy file. What is held back (severed, grants)"
        " is in `cofferdam status`. Exit code: 0 shown, 2 it does not load or no gate runs."
    )


def run(args: argparse.Namespace) -> int:
    import msgspec
    import yaml

    from cofferdam.cli import diff
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    if args.policy == diff.RUNNING:
        policy = diff.in_force(ask(state_of(args), "policy"))
    else:
        policy = diff.compiled(Path(args.policy))
    rows: dict[str, Any] = msgspec.to_builtins(policy.table)
    for inner in ("clocks", "format", "slice_of"):
        rows.pop(inner, None)
    rows = {"hash": policy.hash, **rows}
    if args.json:
        print(json.dumps(rows))
    else:
        print(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=120), end="")
    return 0
