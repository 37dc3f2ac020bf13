"""`make fuzz`: python -m tests.fuzz --seconds N [--target NAME] [--seed N] [--reproduce FILE] [--list]

Exit codes: 0 nothing found, 1 something found (files in fuzz-findings/), 2 bad arguments.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.fuzz import engine

FINDINGS = engine.TESTS.parent / "fuzz-findings"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the parsers with mutated real input."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, over all targets (default 60)")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, help="repeat the run with this seed (default: from the clock, printed)")
    parser.add_argument("--reproduce", type=Path, help="run one input file through the one --target and stop")
    parser.add_argument("--list", action="store_true", help="the targets there are")
    args = parser.parse_args()
    known = engine.targets()
    if args.list:
        print("\n".join(known))
        return 0
    unknown = sorted(set(args.target or ()) - set(known))
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in args.target] if args.target else list(known.values())
    if args.reproduce is not None:
        if len(chosen) != 1:
            print("--reproduce needs exactly one --target", file=sys.stderr)
            return 2
        signal.signal(signal.SIGPROF, engine._alarm)
        shape, finding = engine.attempt(chosen[0], args.reproduce.read_bytes())
        print(finding.trace if finding else f"nothing wrong; shape {shape}")
        return 1 if finding else 0
    seed = args.seed if args.seed is not None else time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}, {len(chosen)} targets, {args.seconds:.0f} s", flush=True)
    found = engine.fuzz(chosen, args.seconds, seed, FINDINGS, lambda line: print(line, flush=True))
    print(f"{len(found)} found" + "".join(f"\n  {path}" for path in found))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
