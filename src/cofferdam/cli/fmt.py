"""`cofferdam fmt POLICY`: the normal form of a policy's text."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import stat
import sys
from pathlib import Path

from cofferdam.cli.gate_options import add_json
from cofferdam.errors import PolicyError
from cofferdam.policy.tidy import tidy
from cofferdam.policy.yamltext import MAX_BYTES


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", help="a policy file, a folder of them, or - for standard input")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if there is something to do")
    parser.add_argument("--diff", action="store_true", help="change nothing; show what would be")
    add_json(parser, "Formatted")
    parser.epilog = (
        "Two spaces for each level, Unix line ends, no spaces at the end of lines, one blank line at most. Comments, "
        "quotes and order stay. What a file means stays, too: one whose normal form would mean something else is not "
        "touched. "
        "Exit code: 0 fine, 1 with --check if a file is not in its normal form, 2 errors."
    )


def run(args: argparse.Namespace) -> int:
    if args.policy == "-":
        before = sys.stdin.read(MAX_BYTES)
        after = tidy(before, "-")
        sys.stdout.write(
            after if not args.json else json.dumps({"files": ["-"] * (after != before), "written": True, "text": after})
        )
        return 0
    path = Path(args.policy)
    files = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
    changed: list[str] = []
    shown: list[str] = []
    for file in files:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device has no end
            raise PolicyError(f"{file} is no plain file")
        if status.st_size > MAX_BYTES:
            raise PolicyError(f"{file} has more than {MAX_BYTES >> 20} MiB")
        try:
            before = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise PolicyError(f"{file} is no text in UTF-8") from None
        after = tidy(before, str(file))
        if after == before:
            continue
        changed.append(str(file))
        if args.diff:
            old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
            shown += difflib.unified_diff(old, new, str(file), f"{file} (normal form)")
        elif not args.json:
            print(file)
        if not args.diff and not args.check:
            _replace(file, after)
    if args.json:
        said = {"files": changed, "written": not args.diff and not args.check}
        print(json.dumps(said | ({"diff": "".join(shown)} if args.diff else {})))
    else:
        sys.stdout.writelines(shown)
    return 1 if changed and args.check else 0


def _replace(file: Path, text: str) -> None:
    """Whole or not at all, with the rights that the file had."""
    real = file.resolve()
    status = real.stat()
    beside = real.with_name(f".{real.name}.new-{os.getpid()}")
    try:
        with beside.open("x", encoding="utf-8", newline="") as stream:
            os.fchmod(stream.fileno(), status.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(stream.fileno(), status.st_uid, status.st_gid)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(real)
    finally:
        beside.unlink(missing_ok=True)
