"""`cofferdam docs DIR`: writes the pages that are generated from the code, or checks that they are current.

PAGES names them all: a file name and a function that gives its text. A new generated page is one line there.
Not here: the pages' contents (next to what they describe).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import cofferdam.policy
from cofferdam.cli.gate_options import add_json

# File name below DIR -> "module:function"; the function takes nothing and returns the page's text.
PAGES: dict[str, str] = {
    "policy-reference.md": "cofferdam.policy.reference:policy_reference",
    "audit-events.md": "cofferdam.audit.events_page:audit_reference",
    "evidence-reference.md": "cofferdam.evidence.page:evidence_reference",
    "metrics.md": "cofferdam.gate.watch.metrics_page:metrics_page",
    "cli.md": "cofferdam.cli.reference:cli_reference",
}
SCHEMA = Path(cofferdam.policy.__file__).parent / "policy.schema.json"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder of the pages, such as docs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is not current")
    add_json(parser, "Written")


def pages(directory: Path) -> dict[Path, str]:
    """Every generated file with what should stand in it; also the JSON Schema that ships with the package."""
    found: dict[Path, str] = {}
    for name, where in PAGES.items():
        module, _, function = where.partition(":")
        found[directory / name] = getattr(importlib.import_module(module), function)()
    found[SCHEMA] = importlib.import_module("cofferdam.policy.reference").schema_text()
    return found


def run(args: argparse.Namespace) -> int:
    stale: list[str] = []
    for path, text in pages(args.directory).items():
        current = path.read_text("utf-8") if path.exists() else None
        if current == text:
            continue
        stale.append(str(path))
        if args.check:
            print(f"{path} is not current: run cofferdam docs {args.directory}", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        if not args.json:
            print(f"wrote {path}")
    if args.json:
        print(json.dumps({"files": stale, "written": not args.check}))
    return 1 if args.check and stale else 0
