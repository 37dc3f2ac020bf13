"""`cofferdam audit show|tail|verify|prove|export`: reads the audit log; needs no running gate and no private key.

Not here: what is chosen and found (audit.show), how entries read for people (audit.lines), what a proof holds
(audit.proof).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.cli.gate_options import add_json, add_state, state_of
from cofferdam.errors import AuditError, CofferdamError

if TYPE_CHECKING:
    from cofferdam.audit.checkpoint import VerifierKey
    from cofferdam.audit.entry import Entry
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.show import Filter
    from cofferdam.evidence.witness_asking import Said

POLL_SECONDS = 0.25
COVERED_SECONDS = 5
"""A running gate signs a checkpoint about once a second."""
ENTRY = "cofferdam.audit.entry"
"""What a line of `show` and `tail` is."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-verbs."""
    verbs = parser.add_subparsers(dest="audit_verb", metavar="WHAT", required=True)

    show = verbs.add_parser("show", help="print entries, oldest first")
    _log_options(show)
    _filters(show)
    show.add_argument("--last", type=_count, metavar="N", help="only the last N of those that match")
    add_json(show, "Entry", ENTRY)

    tail = verbs.add_parser("tail", help="print the last entries and then each new one")
    _log_options(tail)
    _filters(tail)
    tail.add_argument("--last", type=_count, default=10, metavar="N", help="begin with the last N (default: 10)")
    tail.add_argument("--no-follow", action="store_true", help="stop after the last entry that is there now")
    add_json(tail, "Entry", ENTRY)

    verify = verbs.add_parser("verify", help="check every byte of the log against its signed checkpoint")
    _log_options(verify)
    verify.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a checkpoint kept elsewhere; the log must still begin with it"
    )
    verify.add_argument(
        "--witness", nargs="?", const="", action="append", metavar="WHO",
        help="ask whether the log goes on from what a witness has: all of the policy, or one by its name, or a folder",
    )  # fmt: skip
    verify.add_argument(
        "--policy", type=Path, metavar="FILE", help="which names the witnesses (default: that of the running gate)"
    )
    verify.epilog = "Exit code 1 if anything is wrong, or a witness that was to be asked did not answer."
    add_json(verify, "AuditVerify")

    prove = verbs.add_parser(
        "prove",
        help="print or check a proof about an entry, or about two sizes of the log",
        description="INDEX: a proof that the entry is in the log. --since SIZE: a proof that the log still begins with"
        " its first SIZE entries. --check FILE: does a proof hold?",
    )
    _log_options(prove)
    prove.add_argument("index", nargs="?", type=_count, metavar="INDEX", help="the entry's index")
    prove.add_argument("--since", type=_count, metavar="SIZE", help="prove consistency with the log of so many entries")
    prove.add_argument("--check", type=Path, metavar="FILE", help='check this proof ("-": standard input)')
    prove.add_argument("--output", "-o", type=Path, metavar="FILE", help="write the proof here")
    add_json(prove, "Inclusion | Consistency | AuditChecked")

    export = verbs.add_parser("export", help="write entries as JSON lines or CSV, or the signed checkpoint")
    _log_options(export)
    _filters(export)
    export.add_argument("--last", type=_count, metavar="N", help="only the last N of those that match")
    export.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="default: jsonl")
    export.add_argument("--checkpoint", action="store_true", help="the signed checkpoint, to be kept elsewhere")
    export.add_argument("--output", "-o", type=Path, metavar="FILE", help="write here instead of standard output")
    add_json(export, "Entry | Text", text="JSON lines, as without it; the checkpoint, and errors, as objects")


def _log_options(parser: argparse.ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--log", type=Path, metavar="DIR", help="the log's folder (default: audit in the state directory)"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="DIR", help="where old entries were moved to (archive in the state directory)"
    )
    parser.add_argument(
        "--key", metavar="KEY", help="the public key: a file or the key itself (default: keys/audit.pub in the state)"
    )


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", action="append", metavar="KIND", help="only this kind of event; may be repeated")
    parser.add_argument("--session", metavar="ID", help="only this session")
    parser.add_argument("--asset", metavar="NAME", help="only this asset")
    parser.add_argument("--source", metavar="ADDRESS", help="only this source address")
    parser.add_argument(
        "--since", metavar="TIME", help="from this time on: 2026-03-01T08:00:00Z, or 90s, 15m, 2h, 3d ago"
    )
    parser.add_argument("--until", metavar="TIME", help="up to this time")


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of entries: 0, 1, 2, ...")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says."""
    return {"show": _show, "tail": _tail, "verify": _verify, "prove": _prove, "export": _export}[args.audit_verb](args)


def _folder(args: argparse.Namespace) -> Path:
    return args.log.absolute() if args.log is not None else state_of(args) / "audit"


def _key(args: argparse.Namespace) -> VerifierKey:
    from cofferdam.audit.keys import find_public

    default = state_of(args) / "keys" / "audit.pub"
    if args.log is not None:
        beside = args.log.absolute().parent / "keys" / "audit.pub"
        default = beside if beside.exists() else default
    return find_public(args.key, default)


def _archive(args: argparse.Namespace) -> Path | None:
    """Raises: AuditError, if what was named is no such folder."""
    named: Path | None = args.archive
    if named is not None and not (named / "sealed").is_dir():
        raise AuditError(f"{named} holds no entries that were moved out of a log", hint="it has a folder `sealed`")
    return named


def _reader(args: argparse.Namespace) -> LogReader:
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.show import find_log

    return LogReader(find_log(_folder(args)), _key(args), _archive(args))


def _wanted(args: argparse.Namespace) -> Filter:
    from cofferdam.audit.show import wanted

    return wanted(args.kind, args.since, args.until, session=args.session, asset=args.asset, source=args.source)


# --- show, tail, export -----------------------------------------------------------------------------------------


def _print(data: bytes, entry: Entry, args: argparse.Namespace) -> None:
    from cofferdam.audit.lines import escaped_json, line

    print(escaped_json(data.decode()) if args.json else line(entry))


def _show(args: argparse.Namespace) -> int:
    from cofferdam.audit.show import matching

    reader = _reader(args)
    for data, entry in matching(reader, _wanted(args), args.last):
        _print(data, entry, args)
    return 0


def _tail(args: argparse.Namespace) -> int:
    from cofferdam.audit.show import matching, newer

    reader, wanted = _reader(args), _wanted(args)
    size = reader.size()
    for data, entry in matching(reader, wanted, args.last):
        _print(data, entry, args)
        size = max(size, entry.index + 1)
    sys.stdout.flush()
    while not args.no_follow:
        time.sleep(POLL_SECONDS)
        size, found = newer(reader, wanted, size)
        for data, entry in found:
            _print(data, entry, args)
        sys.stdout.flush()
    return 0


def _export(args: argparse.Namespace) -> int:
    from cofferdam.audit.lines import escaped_json
    from cofferdam.audit.show import COLUMNS, matching, row

    shown = args.json and args.output is None
    if shown and args.format == "csv":
        raise CofferdamError("--json with --format csv", hint="leave one of them out, or name a file with --output")
    reader = _reader(args)
    out = sys.stdout if args.output is None else args.output.open("w", encoding="utf-8", newline="")
    try:
        if args.checkpoint:
            reader.checkpoint()  # an unsigned one is worth nothing
            note = reader.checkpoint_note().decode()
            if shown:
                note = json.dumps({"form": "signed note", "text": note}) + "\n"
            out.write(note)
        else:
            table = csv.writer(out)
            if args.format == "csv":
                table.writerow(COLUMNS)
            for data, entry in matching(reader, _wanted(args), args.last):
                if args.format == "jsonl":
                    out.write((escaped_json(data.decode()) if shown else data.decode()) + "\n")
                else:
                    table.writerow(row(entry))
    finally:
        if out is not sys.stdout:
            out.close()
    if args.json and not shown:
        print(json.dumps({"form": "signed note" if args.checkpoint else args.format, "written": str(args.output)}))
    return 0


# --- verify -----------------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.audit.lines import escaped
    from cofferdam.audit.show import checkpoint_file, verify_folder

    folder, key = _folder(args), _key(args)
    said = _witnesses(args) if args.witness is not None else ()
    earlier = checkpoint_file(args.checkpoint, key) if args.checkpoint else None
    show = sys.stderr.isatty() and not args.json

    def progress(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} entries", end="", file=sys.stderr, flush=True)

    verified = verify_folder(folder, key, earlier, progress if show else None, archive=_archive(args))
    if show:
        print("\r\x1b[K", end="", file=sys.stderr)
    report, findings = verified.report, verified.findings
    bad = [one for one in said if one.wrong or one.trouble]
    if args.json:
        print(json.dumps({**verified.as_json(), **({"witnesses": msgspec.to_builtins(said)} if said else {})}))
        return 1 if findings or bad else 0
    for one in bad:
        print(escaped(f"WRONG: {one}" if one.wrong else str(one)))
    for finding in findings:
        print(finding)
    if findings:
        more = f" and {report.more} more" if report.more else ""
        print(f"WRONG: {len(findings)}{more} findings in {folder}")
        return 1
    if report.gone:
        print(f"good: all {report.total - report.gone:,} entries from {report.gone:,} on are there and unchanged")
        print(
            f"  the {report.gone:,} before them went as the policy has it, and an entry says so; their hashes are there"
        )
    else:
        print(f"good: all {report.total:,} entries of {report.origin} are there and unchanged")
    print(f"  signed checkpoint over {report.size:,} entries, root {report.root.hex()}")
    if report.total > report.size:
        print(f"  {report.total - report.size} newer entries stand in the journal, each append signed")
    for one in said:
        if one not in bad:
            print(f"  {one}")
    if bad:
        return 1
    if earlier is None and not said:
        print("  only a checkpoint kept elsewhere (--checkpoint) can show that nothing was cut off at the end")
    elif earlier is not None:
        print(f"  it begins with the {earlier.size:,} entries of the checkpoint that was kept")
    return 0


def _witnesses(args: argparse.Namespace) -> tuple[Said, ...]:
    """What each of those that were named says. Raises: CofferdamError, for one that nobody names."""
    from cofferdam.cli.evidence_witness import folder_says, named
    from cofferdam.evidence.witness_asking import ask_all

    reader = _reader(args)
    folders = [Path(name) for name in args.witness if "/" in name]
    names = [name for name in args.witness if "/" not in name]
    try:
        rows, secret = named(args, names) if names else ((), b"")
    except CofferdamError as error:
        if folder := next((name for name in names if name and Path(name).is_dir()), ""):
            error.hint = f"the folder of that name here is --witness ./{folder}"
        raise
    return (*(folder_says(reader, folder.absolute()) for folder in folders), *ask_all(rows, reader, secret))


# --- prove ------------------------------------------------------------------------------------------------------


def _wait_for_checkpoint(reader: LogReader, index: int) -> None:
    """An entry that somebody has just been shown stands in the journal until the next checkpoint. Waits for that one,
    in vain where no gate runs."""
    until = time.monotonic() + COVERED_SECONDS
    while reader.checkpoint().size <= index < reader.size() and time.monotonic() < until:
        time.sleep(0.05)


def _prove(args: argparse.Namespace) -> int:
    if sum(value is not None for value in (args.index, args.since, args.check)) != 1:
        raise AuditError("say what to prove", hint="cofferdam audit prove INDEX, --since SIZE or --check FILE")
    if args.check is not None:
        return _check(args)
    import msgspec

    from cofferdam.audit.proof import prove_consistency, prove_inclusion

    reader = _reader(args)
    if args.index is not None:
        _wait_for_checkpoint(reader, args.index)
    proof = prove_inclusion(reader, args.index) if args.index is not None else prove_consistency(reader, args.since)
    data = msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n"
    if args.output is None:
        sys.stdout.write(data.decode())
    else:
        args.output.write_bytes(data)
    return 0


def _check(args: argparse.Namespace) -> int:
    from cofferdam.audit.entry import decode_entry
    from cofferdam.audit.lines import line
    from cofferdam.audit.proof import check_proof

    key = _key(args)
    try:
        data = sys.stdin.buffer.read() if str(args.check) == "-" else args.check.read_bytes()
    except OSError as error:
        raise AuditError(f"{args.check} cannot be read: {error.strerror}") from error
    try:
        checked = check_proof(data, key)
    except AuditError as error:
        if args.json:
            print(json.dumps({"good": False, "problem": str(error)}))
        else:
            print(f"WRONG: {error}")
        return 1
    if args.json:
        print(
            json.dumps(
                {
                    "good": True,
                    "kind": checked.kind,
                    "index": checked.index,
                    "entry": checked.entry,
                    "size": checked.size,
                    "root": checked.root.hex(),
                    "origin": checked.checkpoint.origin,
                    "signed_entries": checked.checkpoint.size,
                }
            )
        )
    elif checked.kind == "inclusion":
        print(f"good: entry {checked.index} is in the log of {checked.checkpoint.origin}")
        print(line(decode_entry(checked.entry.encode())))
    else:
        print(
            f"good: the log of {checked.checkpoint.origin} with {checked.checkpoint.size} entries begins with the one"
            f" of {checked.size} entries and root {checked.root.hex()}"
        )
    return 0
