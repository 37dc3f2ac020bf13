"""`cofferdam audit show|tail|verify|prove|export`: reads the audit log; needs no running gate and no private key.

Not here: how entries read for people (audit.lines), what a proof holds (audit.proof).
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.cli.gate_options import add_json, add_state, state_of
from cofferdam.errors import AuditError

if TYPE_CHECKING:
    from cofferdam.audit.checkpoint import Checkpoint, VerifierKey
    from cofferdam.audit.entry import Entry
    from cofferdam.audit.files import LogReader

POLL_SECONDS = 0.25
WHERE = "name its folder with --log, or the gate's with --state"


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-verbs."""
    verbs = parser.add_subparsers(dest="audit_verb", metavar="WHAT", required=True)

    show = verbs.add_parser("show", help="print entries, oldest first")
    _log_options(show)
    _filters(show)
    show.add_argument("--last", type=_count, metavar="N", help="only the last N of those that match")
    add_json(show)

    tail = verbs.add_parser("tail", help="print the last entries and then each new one")
    _log_options(tail)
    _filters(tail)
    tail.add_argument("--last", type=_count, default=10, metavar="N", help="begin with the last N (default: 10)")
    tail.add_argument("--no-follow", action="store_true", help="stop after the last entry that is there now")
    add_json(tail)

    verify = verbs.add_parser("verify", help="check every byte of the log against its signed checkpoint")
    _log_options(verify)
    verify.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a checkpoint kept elsewhere; the log must still begin with it"
    )
    add_json(verify)

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
    add_json(prove)

    export = verbs.add_parser("export", help="write entries as JSON lines or CSV, or the signed checkpoint")
    _log_options(export)
    _filters(export)
    export.add_argument("--last", type=_count, metavar="N", help="only the last N of those that match")
    export.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="default: jsonl")
    export.add_argument("--checkpoint", action="store_true", help="the signed checkpoint, to be kept elsewhere")
    export.add_argument("--output", "-o", type=Path, metavar="FILE", help="write here instead of standard output")


def _log_options(parser: argparse.ArgumentParser) -> None:
    add_state(parser)
    parser.add_argument(
        "--log", type=Path, metavar="DIR", help="the log's folder (default: audit in the state directory)"
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
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries: 0, 1, 2, ...")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says."""
    return {"show": _show, "tail": _tail, "verify": _verify, "prove": _prove, "export": _export}[args.audit_verb](args)


# --- where the log is -------------------------------------------------------------------------------------------


def _folder(args: argparse.Namespace) -> Path:
    return args.log.absolute() if args.log is not None else state_of(args) / "audit"


def _key(args: argparse.Namespace) -> VerifierKey:
    from cofferdam.audit.checkpoint import VerifierKey
    from cofferdam.audit.keys import load_public

    if args.key is not None and "+" in args.key and not Path(args.key).exists():
        return VerifierKey.parse(args.key)
    if args.key is not None:
        return load_public(Path(args.key))
    if args.log is not None:
        beside = args.log.absolute().parent / "keys" / "audit.pub"
        if beside.exists():
            return load_public(beside)
    return load_public(state_of(args) / "keys" / "audit.pub")


def _reader(args: argparse.Namespace) -> LogReader:
    from cofferdam.audit.files import LogReader

    folder = _folder(args)
    if not folder.is_dir():
        raise AuditError(f"there is no audit log in {folder}", hint=WHERE)
    return LogReader(folder, _key(args))


def _checkpoint_file(path: Path, key: VerifierKey) -> Checkpoint:
    from cofferdam.audit.checkpoint import open_checkpoint

    try:
        return open_checkpoint(path.read_bytes(), key)
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror}") from error
    except AuditError as error:
        raise AuditError(f"{path}: {error}") from error


# --- show, tail, export -----------------------------------------------------------------------------------------


class _Filter:
    def __init__(self, args: argparse.Namespace) -> None:
        from cofferdam.audit.entry import KINDS, format_time

        unknown = [kind for kind in args.kind or [] if kind not in KINDS]
        if unknown:
            raise AuditError(f"there is no kind of event {unknown[0]!r}", hint="kinds are: " + ", ".join(KINDS))
        self.kinds = set(args.kind or [])
        self.members = [(name, getattr(args, name)) for name in ("session", "asset", "source") if getattr(args, name)]
        self.since = format_time(_time(args.since)).decode() if args.since else ""
        self.until = format_time(_time(args.until)).decode() if args.until else "~"
        self.all_of_them = not (self.kinds or self.members or args.since or args.until)

    def __call__(self, entry: Entry) -> bool:
        if not self.since <= entry.time <= self.until:
            return False
        if self.kinds and entry.kind not in self.kinds:
            return False
        return all(entry.event.get(name) == value for name, value in self.members)


def _time(text: str) -> int:
    """UTC ns since 1970 of a time with or without offset, or of so long ago. Raises: AuditError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[-1:] in units and text[:-1].isdecimal() and len(text) <= 12:
        return max(0, time.time_ns() - int(text[:-1]) * units[text[-1]] * 1_000_000_000)
    fraction = re.search(r"\.([0-9]{1,9})", text, re.ASCII)  # the log's own times have nine decimals, datetime six
    try:
        moment = datetime.fromisoformat(text.replace(fraction.group(), "", 1) if fraction else text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise AuditError(
            f"{text!r} is no time",
            hint="for example 2026-03-01T08:00:00Z, 2026-03-01T09:00+01:00, or 15m for 15 minutes ago",
        ) from error
    nanoseconds = int(fraction.group(1).ljust(9, "0")) if fraction else 0
    return max(0, int(moment.timestamp())) * 1_000_000_000 + nanoseconds


def _matching(reader: LogReader, wanted: _Filter, last: int | None, start: int = 0) -> Iterator[tuple[bytes, Entry]]:
    from cofferdam.audit.entry import decode_entry

    def all_of_them() -> Iterator[tuple[bytes, Entry]]:
        for index, data in reader.entries(start):
            try:
                entry = decode_entry(data)
            except AuditError as error:
                raise AuditError(f"entry {index}: {error}", hint="cofferdam audit verify says what is wrong") from error
            if wanted(entry):
                yield data, entry

    if last is None:
        return all_of_them()
    if wanted.all_of_them:
        start = max(start, reader.size() - last)
    return iter(collections.deque(all_of_them(), last))


def _print(data: bytes, entry: Entry, args: argparse.Namespace) -> None:
    from cofferdam.audit.lines import line

    print(data.decode() if args.json else line(entry))


def _show(args: argparse.Namespace) -> int:
    reader = _reader(args)
    for data, entry in _matching(reader, _Filter(args), args.last):
        _print(data, entry, args)
    return 0


def _tail(args: argparse.Namespace) -> int:
    reader, wanted = _reader(args), _Filter(args)
    size = reader.size()
    for data, entry in _matching(reader, wanted, args.last):
        _print(data, entry, args)
        size = max(size, entry.index + 1)
    sys.stdout.flush()
    while not args.no_follow:
        time.sleep(POLL_SECONDS)
        for data, entry in _matching(reader, _Everything(), None, size):
            size = entry.index + 1
            if wanted(entry):
                _print(data, entry, args)
        sys.stdout.flush()
    return 0


class _Everything(_Filter):
    all_of_them = True

    def __init__(self) -> None:
        pass

    def __call__(self, entry: Entry) -> bool:
        return True


COLUMNS = (
    "index", "time", "kind", "maker", "session", "source", "principals", "asset", "conduit", "rule", "function",
    "outcome", "fault", "detail", "site", "policy", "event",
)  # fmt: skip


def _export(args: argparse.Namespace) -> int:
    reader = _reader(args)
    out = sys.stdout if args.output is None else args.output.open("w", encoding="utf-8", newline="")
    try:
        if args.checkpoint:
            reader.checkpoint()  # an unsigned one is worth nothing
            out.write(reader.checkpoint_note().decode())
            return 0
        table = csv.writer(out)
        if args.format == "csv":
            table.writerow(COLUMNS)
        for data, entry in _matching(reader, _Filter(args), args.last):
            if args.format == "jsonl":
                out.write(data.decode() + "\n")
            else:
                table.writerow([_column(entry, name) for name in COLUMNS])
    finally:
        if out is not sys.stdout:
            out.close()
    return 0


def _column(entry: Entry, name: str) -> str:
    if name == "event":
        return json.dumps(entry.event, ensure_ascii=False, separators=(",", ":"))
    value = (
        getattr(entry, name)
        if name in ("index", "time", "kind", "maker", "site", "policy")
        else entry.event.get(name, "")
    )
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    # A text that begins so is a formula to a spreadsheet, and parts of it come from the network.
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not text.lstrip("-").isdigit() else text


# --- verify -----------------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    from cofferdam.audit.files import DirFiles, in_use
    from cofferdam.audit.verify import verify_log

    folder, key = _folder(args), _key(args)
    if not folder.is_dir():
        raise AuditError(f"there is no audit log in {folder}", hint=WHERE)
    earlier = _checkpoint_file(args.checkpoint, key) if args.checkpoint else None
    show = sys.stderr.isatty() and not args.json

    def progress(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} entries", end="", file=sys.stderr, flush=True)

    begun = time.monotonic()
    files = DirFiles(folder)
    attempts = 5
    while True:
        before = files.read("checkpoint")
        report = verify_log(files, key, earlier=earlier, progress=progress if show else None)
        attempts -= 1
        # While a gate writes, files change under us; what is wrong then must still be wrong with the next checkpoint.
        if report.good or not attempts or files.read("checkpoint") == before:
            break
    if show:
        print("\r\x1b[K", end="", file=sys.stderr)
    live = in_use(folder)
    findings = [finding for finding in report.findings if not (live and finding.unfinished)]
    if args.json:
        print(
            json.dumps(
                {
                    "good": not findings,
                    "log": str(folder),
                    "origin": report.origin,
                    "signed_entries": report.size,
                    "entries": report.total,
                    "checked": report.checked,
                    "root": report.root.hex(),
                    "seconds": round(time.monotonic() - begun, 3),
                    "findings": [
                        {"file": f.file, "entry": f.entry, "problem": f.problem, "unfinished": f.unfinished}
                        for f in findings
                    ],
                    "further_findings": report.more,
                }
            )
        )
        return 1 if findings else 0
    for finding in findings:
        print(finding)
    if findings:
        more = f" and {report.more} more" if report.more else ""
        print(f"WRONG: {len(findings)}{more} findings in {folder}")
        return 1
    print(f"good: all {report.total:,} entries of {report.origin} are there and unchanged")
    print(f"  signed checkpoint over {report.size:,} entries, root {report.root.hex()}")
    if report.total > report.size:
        print(f"  {report.total - report.size} newer entries stand in the journal, each append signed")
    if earlier is None:
        print("  that nothing was cut off at the end can be told with a checkpoint kept elsewhere (--checkpoint)")
    else:
        print(f"  it begins with the {earlier.size:,} entries of the checkpoint that was kept")
    return 0


# --- prove ------------------------------------------------------------------------------------------------------


def _prove(args: argparse.Namespace) -> int:
    if sum(value is not None for value in (args.index, args.since, args.check)) != 1:
        raise AuditError("say what to prove", hint="cofferdam audit prove INDEX, --since SIZE or --check FILE")
    if args.check is not None:
        return _check(args)
    import msgspec

    from cofferdam.audit.proof import prove_consistency, prove_inclusion

    reader = _reader(args)
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
