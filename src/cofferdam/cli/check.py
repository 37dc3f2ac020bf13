"""`cofferdam check POLICY`: errors and warnings, each with file, line and column."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.audit.lines import escaped
from cofferdam.cli import old_export
from cofferdam.cli.findings import count_of, print_problems
from cofferdam.cli.gate_options import add_json
from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import plan_crews
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import load
from cofferdam.policy.terms.diode_rows import DiodeRows


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", type=Path, help="a policy file, or a folder of *.yaml files")
    parser.add_argument("--strict", action="store_true", help="warnings fail the check as well (exit code 1)")
    add_json(parser, "Checked", text="print the findings as JSON")
    parser.epilog = "Exit code: 0 fine, 1 warnings with --strict, 2 errors."


def run(args: argparse.Namespace) -> int:
    now_ns = time.time_ns()
    report: dict[str, Any] = {"policy": str(args.policy), "errors": [], "warnings": []}
    try:
        loaded = load(args.policy)
        compiled = compile_policy(loaded, now_ns=now_ns)
    except PolicyError as error:
        if not error.problems:
            raise
        if args.json:
            _print_json({**report, "errors": msgspec.to_builtins(error.problems)})
        else:
            print_problems(error.problems)
            if (old := old_export.finding(args.policy)) is not None:
                print_problems([old])
            print(escaped(f"{args.policy}: {error}"))
        return 2
    old = old_export.finding(args.policy)
    warnings = (*lint(loaded, now_ns=now_ns), *([old] if old is not None else []))
    plan_crews(compiled)  # what a gate would refuse at its start is an error here
    counts = {
        "zones": len(compiled.zones),
        "assets": len(compiled.assets),
        "points": sum(len(asset.points) for asset in compiled.assets.values()),
        "principals": len(compiled.principals),
        "conduits": len(compiled.conduits),
        "rules": sum(len(conduit.allow) for conduit in loaded.policy.conduits.values()),
    }
    if args.json:
        found = {"warnings": msgspec.to_builtins(warnings), "counts": counts}
        _print_json({**report, **found, "site": compiled.site, "hash": compiled.hash})
    else:
        print_problems(warnings)
        for line in old_export.rewritten(Path(old.file)) if old is not None else ():
            print(f"    {escaped(line)}")
        print(f"{compiled.site}: {', '.join(count_of(number, noun) for noun, number in counts.items())}")
        if any(isinstance(conduit.terms, DiodeRows) for conduit in compiled.conduits.values()):
            print("its strands: whether the card bears `rate`, and the disk the spool, each machine says by itself:")
            print("  cofferdam up POLICY --machine NAME --check-only")
        print(f"no errors, {count_of(len(warnings), 'warnings')}; hash {compiled.hash}")
    return 1 if warnings and args.strict else 0


def _print_json(report: dict[str, Any]) -> None:
    print(json.dumps(report, indent=2))
