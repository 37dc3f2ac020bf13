"""`cofferdam schema`: prints the JSON Schema of the policy file, for editors."""

from __future__ import annotations

import argparse

from cofferdam.policy.reference import schema_text


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "In an editor with the YAML language server, put this at the top of a policy: "
        "# yaml-language-server: $schema=policy.schema.json"
    )


def run(args: argparse.Namespace) -> int:
    print(schema_text(), end="")
    return 0
