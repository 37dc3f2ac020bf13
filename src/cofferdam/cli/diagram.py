"""`cofferdam diagram POLICY`: draws its zones and conduits, as SVG or Mermaid."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cofferdam.cli.gate_options import add_json, print_text
from cofferdam.errors import CofferdamError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", type=Path, help="a policy file, or a folder of *.yaml files")
    parser.add_argument("--format", choices=["svg", "mermaid"], default="svg", help="default: svg")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: standard output)")
    add_json(parser, "Text")
    parser.epilog = (
        "Exit code: 0 drawn, 2 the policy does not load. Example: cofferdam diagram policy.yaml --out site.svg"
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.diff import compiled
    from cofferdam.policy.drawing import mermaid, svg

    drawn = (svg if args.format == "svg" else mermaid)(compiled(args.policy))
    if args.out is None:
        print_text(args, args.format, drawn)
        return 0
    try:
        args.out.write_text(drawn, "utf-8")
    except OSError as error:
        raise CofferdamError(f"{args.out} cannot be written: {error.strerror}", hint="name another file") from None
    print(json.dumps({"form": args.format, "written": str(args.out)}) if args.json else f"wrote {args.out}")
    return 0
