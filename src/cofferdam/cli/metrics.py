"""`cofferdam metrics`: each metric that a gate can serve, with its type, its labels and its meaning.

Not here: the metrics (gate.watch.metrics), their values: Prometheus reads those from the gate.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cofferdam.errors import CofferdamError

if TYPE_CHECKING:
    from cofferdam.gate.watch.metrics import Described


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json

    parser.add_argument("words", nargs="*", metavar="WORD", help="only those with these words in name or meaning")
    add_json(parser, "list[Metric]")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "The gate serves them at the policy's `gate: {management: ADDRESS:PORT}`, those of a broker while the\n"
        "policy has a conduit of it.\n\n" + "\n".join(_lines(_all()))
    )


def _all() -> dict[str, Described]:
    from cofferdam.brokers.registry import BROKERS
    from cofferdam.gate.watch.metrics import OWN, described

    return OWN | described(BROKERS.values())


def _lines(metrics: dict[str, Described]) -> Iterator[str]:
    for name, one in metrics.items():
        labels = f"{{{', '.join(one.labels)}}}" if one.labels else ""
        yield f"{name}{labels}  ({one.kind})"
        yield from textwrap.wrap(one.meaning, 76, initial_indent="    ", subsequent_indent="    ")


def run(args: argparse.Namespace) -> int:
    words = [word.lower() for word in args.words]
    found = {
        name: one for name, one in _all().items()
        if all(word in name or word in one.meaning.lower() for word in words)
    }  # fmt: skip
    if not found:
        raise CofferdamError(f"no metric speaks of {' and '.join(words)}", hint="`cofferdam metrics` shows all")
    if args.json:
        rows = [
            {"name": name, "type": one.kind, "labels": list(one.labels), "meaning": one.meaning}
            for name, one in found.items()
        ]
        print(json.dumps(rows, indent=1))
    else:
        print("\n".join(_lines(found)))
    return 0
