"""`cofferdam schema`: prints the JSON Schema of the policy file, for editors, or of what a command prints as JSON."""

from __future__ import annotations

import argparse
import json

WHATS = ("policy", "check", "diff", "entry", "error", "explain", "learn", "prove", "simulate", "status")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="WHAT",
        nargs="?",
        choices=WHATS,
        default="policy",
        help="of what: the policy file (default), what a verb prints with --json "
        "(check, diff, explain, learn, prove, simulate, status), an entry of the audit log, an error of any verb",
    )
    parser.epilog = (
        "In an editor with the YAML language server, put this at the top of a policy: "
        "# yaml-language-server: $schema=policy.schema.json"
    )


def run(args: argparse.Namespace) -> int:
    if args.what == "policy":
        from cofferdam.policy.reference import schema_text

        print(schema_text(), end="")
        return 0
    from cofferdam.cli.json_schemas import schema_of

    print(json.dumps(schema_of(args.what), indent=1, ensure_ascii=False))
    return 0
