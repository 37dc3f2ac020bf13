"""`cofferdam patch export`: the evidence as one JSON file, and as tables (`--tables`) for those who are asked for them.

    iec-62443-2-3.csv    where each patch stands, at its vendor and at each asset: every change, by whom and when
    cip-007-6-r2.csv     each advisory and asset: what the document says, who answered, the plan, and where that stands
    cip-010-4-r1-6.csv   each change of an asset: whose file it was, how that was proved, before it began

Not here: the log itself (audit), what is kept of advisories (brokers.patch.advice.ledger).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cofferdam.cli.patch_advice import left_out
from cofferdam.cli.patch_asking import ask_part, print_told
from cofferdam.errors import GateError

Row = Sequence[object]
STATES: Final = ("advisory", "documents", "patch", "asset", "whose", "state", "who", "when", "note")
ANSWERS: Final = (
    "advisory", "documents", "vulnerabilities", "available", "asset", "document says", "concerns it", "answered by",
    "answered", "note", "plan", "owner", "text", "until", "made by", "approved by", "approved", "state", "standing",
)  # fmt: skip
CHANGES: Final = (
    "asset", "product", "version", "file", "sha256", "brought by", "origin", "scan", "verified", "approved by",
    "released", "begun", "way", "became", "ended", "entry",
)  # fmt: skip
OTHERS: Final = "(all others)"
"""Assets that an advisory does not name."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="FILE", help="a new file")
    parser.add_argument(
        "--tables", type=Path, metavar="FOLDER",
        help="the same as CSV besides, in a new folder: states of IEC TR 62443-2-3, CIP-007-6 R2, CIP-010-4 R1.6",
    )  # fmt: skip


def log_of(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The patch relay's entries of the gate's audit log."""
    from cofferdam.audit.events import patch as events
    from cofferdam.audit.events.base import kebab
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.keys import find_public
    from cofferdam.audit.show import find_log, matching, wanted
    from cofferdam.cli.gate_options import state_of

    kinds = [kebab(each.__name__) for each in events.Draft.__args__]
    folder = find_log(state_of(args) / "audit")
    key = find_public(None, folder.parent / "keys" / "audit.pub")
    for _, entry in matching(LogReader(folder, key), wanted(kinds), None):
        yield {"index": entry.index, "time": entry.time, "maker": entry.maker, **entry.event}


def export(args: argparse.Namespace) -> int:
    """The verb."""

    def keeper(verb: str, **arguments: object) -> Any:
        return ask_part(args, "keeper", verb, **arguments)[1]

    advisories = keeper("advisories")
    older = left_out(advisories)
    bundle: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": keeper("status"),
        "files": [keeper("show", number=row["number"]) for row in keeper("list")],
        "plan": ask_part(args, "installer", "plan")[1],
        "advisories": [
            keeper("advisory", advisory=f"{each['product']}/{each['advisory']}") for each in advisories["advisories"]
        ],
        "advisories_left_out": older,
        "log": list(log_of(args)),
    }
    text = json.dumps(bundle, indent=1, sort_keys=True)
    try:  # both have to be new before anything is written, so that a mistake leaves neither behind
        fd = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GateError(f"{args.output}: {error.strerror}", hint="it is a new file") from None
    with os.fdopen(fd, "w") as out:
        if args.tables is not None:
            try:
                args.tables.mkdir(mode=0o700)
            except OSError as error:
                args.output.unlink()
                raise GateError(f"{args.tables}: {error.strerror}", hint="it is a new folder") from None
            for name, columns, rows in tables(bundle["advisories"], bundle["log"]):
                _write(args.tables / name, columns, rows)
        out.write(text)
    told = {"files": len(bundle["files"]), "entries": len(bundle["log"]), "advisories_left_out": older}
    beside = f", with tables in {args.tables}" if args.tables is not None else ""
    said = f"{told['files']} files, {told['entries']} entries of the audit log: {args.output}{beside}"
    lacks = (
        [f"WITHOUT {older} older advisories, which wait for nobody: `cofferdam patch advisories ID`"] if older else []
    )
    return print_told(args, told, [said, *lacks])


def _write(file: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    from cofferdam.evidence.reports import for_spreadsheet

    with file.open("x", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(columns)
        table.writerows([for_spreadsheet(str(cell)) for cell in row] for row in rows)


def tables(
    advisories: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Sequence[str], Iterator[Row]]]:
    """(file, columns, rows) of each."""
    yield "iec-62443-2-3.csv", STATES, (row for each in advisories for row in _states(each))
    yield "cip-007-6-r2.csv", ANSWERS, (row for each in advisories for row in _answers(each))
    yield "cip-010-4-r1-6.csv", CHANGES, _changes(log)


def _states(advisory: Mapping[str, Any]) -> Iterator[Row]:
    of = (advisory["advisory"], advisory["product"], advisory["patch"])
    for said in advisory["vendor_states"]:
        yield *of, "", "vendor", said["state"], advisory["provider"], _time(said["at"]), ""
    for asset in advisory["assets"]:
        for state, by, at, note in asset["states"]:
            yield *of, asset["asset"], "owner", state, by, _time(at), note


def _answers(advisory: Mapping[str, Any]) -> Iterator[Row]:
    of = (
        advisory["advisory"], advisory["product"], " ".join(advisory["vulnerabilities"]), advisory["available"],
    )  # fmt: skip
    for asset in advisory["assets"]:
        if not asset["named"] and asset["applies"] is None and not asset["state"]:
            continue
        concerns = {None: "", True: "yes", False: "no"}[asset["applies"]]
        yield (
            *of, asset["asset"], asset["verdict"], concerns, asset["by"], _time(asset["at"]), asset["note"],
            *_plan(advisory["plans"], asset["asset"]), asset["state"], advisory["standing"],
        )  # fmt: skip
    if (rest := advisory["rest"]) is not None:
        yield (
            *of, OTHERS, "unknown", "no", rest["by"], _time(rest["at"]), rest["note"], *_plan((), ""), "",
            advisory["standing"],
        )  # fmt: skip


def _plan(plans: Sequence[Mapping[str, Any]], asset: str) -> Row:
    """The one that counts for an asset: the last that somebody has approved; without one, the last that was made."""
    mine = [plan for plan in plans if asset in plan["assets"]]
    if not mine:
        return [""] * 7
    found = next((plan for plan in reversed(mine) if plan["approver"]), mine[-1])
    return (
        found["number"], found["owner"], found["text"], _time(found["until"]), found["by"], found["approver"],
        _time(found["approved"]),
    )  # fmt: skip


def _changes(log: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """In the order of the log, so that what a change rests on is what had been recorded before it."""
    nothing: Mapping[str, Any] = {}
    taken: dict[int, Mapping[str, Any]] = {}
    proved: dict[int, Mapping[str, Any]] = {}
    released: dict[int, Mapping[str, Any]] = {}
    begun: dict[tuple[str, int], list[object]] = {}
    rows: list[list[object]] = []
    for entry in log:
        number = int(entry.get("number", 0))
        if entry["kind"] == "file-taken":
            taken[number] = entry
        elif entry["kind"] == "file-examined" and entry["verdict"] == "passed":
            proved[number] = entry
        elif entry["kind"] == "release-decided" and entry["decision"] == "released":
            released[number] = entry
        elif entry["kind"] == "install-started":
            came, proof, release = (known.get(number, nothing) for known in (taken, proved, released))
            row = [
                entry["asset"], entry["product"], entry["version"], came.get("file", ""), entry["sha256"],
                came.get("by", ""), proof.get("origin", ""), proof.get("scan", ""), proof.get("time", ""),
                " ".join(release.get("people", ())), release.get("time", ""), entry["time"], entry["way"], "", "",
                entry["index"],
            ]  # fmt: skip
            rows.append(row)
            begun[entry["asset"], number] = row
        elif entry["kind"] == "install-ended" and (row := begun.get((entry["asset"], number), [])):
            row[-3:-1] = entry["state"], entry["time"]
    yield from rows


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ns else ""
