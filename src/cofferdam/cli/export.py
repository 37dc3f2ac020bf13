"""`cofferdam export run|test|status`: the audit log's entries on their way to a collector.

Not here: forms, ways and processes (evidence.export).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.errors import CofferdamError

if TYPE_CHECKING:
    from cofferdam.evidence.export.sending import Stood

SETTINGS = Path("/etc/cofferdam/export.yaml")


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-verbs."""
    from cofferdam.cli.gate_options import add_json, add_state

    verbs = parser.add_subparsers(dest="export_verb", metavar="WHAT", required=True)
    for name, words in (
        ("run", "send entries, until it is stopped"),
        ("test", "send the newest entry to each collector once; no cursor moves"),
        ("status", "how far each collector is"),
    ):
        verb = verbs.add_parser(name, help=words)
        verb.add_argument("settings", nargs="?", type=Path, default=SETTINGS, metavar="FILE",
                          help=f"the collectors (default: {SETTINGS})")  # fmt: skip
        add_state(verb)
        if name != "run":
            add_json(verb)
    parser.epilog = "docs/siem.md has the file's form and the forms of entries."


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says."""
    return {"run": _run, "test": _test, "status": _status}[args.export_verb](args)


def _run(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import LogReader
    from cofferdam.cli.gate_options import state_of
    from cofferdam.errors import GateError
    from cofferdam.evidence.export.process import Watcher
    from cofferdam.evidence.export.settings import read
    from cofferdam.evidence.gather import log_key
    from cofferdam.gate.client import ask

    state = state_of(args)
    collectors = read(args.settings)
    key = log_key(state)
    LogReader(state / "audit", key).checkpoint()

    def tell(stood: Stood) -> None:
        words = "works" if stood.working else f"stands still: {stood.detail}"
        print(f"{stood.name}: {words}; {stood.behind:,} entries behind", file=sys.stderr, flush=True)
        event = {"kind": "export-stood", "collector": stood.name, "next": stood.next, "working": stood.working,
                 "detail": stood.detail}  # fmt: skip
        try:
            ask(state, "record", event=event, seconds=5.0)
        except (GateError, CofferdamError) as error:
            print(f"the gate was not told: {error}", file=sys.stderr, flush=True)

    Watcher(state, key, collectors, tell).run()
    return 0


def _test(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import LogReader
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence.export.forms import item
    from cofferdam.evidence.export.settings import read
    from cofferdam.evidence.export.ways import WayError, prepared
    from cofferdam.evidence.gather import log_key

    state = state_of(args)
    collectors = read(args.settings)
    reader = LogReader(state / "audit", log_key(state))
    newest = list(reader.entries(max(0, reader.size() - 1)))
    if not newest:
        raise CofferdamError("the log is empty", hint="start the gate once")
    one = item(*newest[-1])
    found = {}
    for to in collectors:
        try:
            ready = prepared(to)
            way = ready.way(ready.to)
            try:
                way.send([one])
            finally:
                way.close()
            found[to.name] = ""
        except WayError as error:
            found[to.name] = str(error)
    if args.json:
        print(json.dumps({name: {"ok": not why, "detail": why} for name, why in found.items()}))
    else:
        for name, why in found.items():
            print(f"{name}: {why or f'took entry {one.index}'}")
    return 1 if any(found.values()) else 0


def _status(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import LogReader
    from cofferdam.cli.console import table, terminal
    from cofferdam.cli.gate_options import state_of
    from cofferdam.evidence.export.sending import Cursor, cursors
    from cofferdam.evidence.export.settings import read
    from cofferdam.evidence.gather import log_key

    state = state_of(args)
    key = log_key(state)
    size = LogReader(state / "audit", key).size()
    rows = [
        {"collector": to.name, "to": to.where, "form": to.form, "next": at, "behind": size - at}
        for to in read(args.settings)
        for at in [Cursor(cursors(state), to.name, key.text).next]
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    shown = table("collector", "to", "form", "next entry", "behind")
    for row in rows:
        shown.add_row(*map(str, row.values()))
    terminal().print(shown)
    return 0
