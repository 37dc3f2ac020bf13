"""`cofferdam relay learn`: a JSON Schema that fits sample messages, for a person to narrow.

Not here: learning (policy.messages.learning).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cofferdam.errors import GateError

SAMPLES_MOST: Final = 100_000
FILE_BYTES: Final = 20_000_000


def add(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Declares the verb."""
    learn = verb("learn", "a JSON Schema that fits sample messages, to be narrowed by a person", run, "dict[str, Any]")
    learn.add_argument(
        "samples", nargs="+", type=Path, metavar="SAMPLE", help="a folder of .json and .ndjson files, or such a file"
    )
    learn.add_argument("--title", default="", help="what the messages are, in a few words")
    learn.add_argument("--output", type=Path, metavar="FILE", help="a new file (default: print)")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    from cofferdam.policy.messages.learning import schema_of

    counts: dict[str, int] = {}
    schema = schema_of(_samples(args.samples, counts), args.title) if _files(args.samples) else None
    if schema is None:
        raise GateError(
            f"no samples in {', '.join(map(str, args.samples))}",
            hint="give .json files with one message each, or .ndjson files with one a line (XML has an XSD: --help)",
        )
    text = json.dumps(schema, indent=2) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        try:
            with args.output.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise GateError(f"{args.output} is there already", hint="give another --output") from None
    total = sum(counts.values())
    print(f"{total} messages in {len(counts)} files; look at each bound before you use it", file=sys.stderr)
    return 0


def _files(given: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.suffix in (".json", ".ndjson") and each.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise GateError(f"{path} is no file and no folder", hint="where do the samples lie?")
    return found


def _samples(given: list[Path], counts: dict[str, int]) -> Iterator[Any]:
    from cofferdam.policy.messages.json_reading import NotJson, line_and_column, read

    total = 0
    for path in _files(given):
        if path.stat().st_size > FILE_BYTES:
            raise GateError(f"{path} has more than {FILE_BYTES} bytes", hint="no message may be so large")
        content = path.read_bytes()
        rows = content.split(b"\n") if path.suffix == ".ndjson" else [content]
        for number, row in enumerate(rows, 1):
            if path.suffix == ".ndjson" and not row.strip():
                continue
            try:
                value, _ = read(row)
            except NotJson as error:
                line, column = line_and_column(row.decode("utf-8", "replace"), error.at)
                where = f"{path}:{number if path.suffix == '.ndjson' else line}:{column}"
                raise GateError(f"{where}: {error.words}", hint="the relay would refuse it as well") from None
            counts[str(path)] = counts.get(str(path), 0) + 1
            total += 1
            if total > SAMPLES_MOST:
                raise GateError(f"more than {SAMPLES_MOST} samples", hint="give fewer")
            yield value
