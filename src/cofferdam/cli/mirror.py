"""`cofferdam mirror ...`: what operators ask of the historian mirror, and its keys.

What is asked of history itself (tags, query, export, check) is read from the store's files, as a reader would, whether
the gate runs or not; the rest is asked of the running keeper. Not here: keys (cli.keys).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cofferdam.cli import keys
from cofferdam.errors import GateError, extra

if TYPE_CHECKING:
    from cofferdam.brokers.mirror.query import View
    from cofferdam.policy.table import CompiledPolicy

Work = Callable[[argparse.Namespace], int]
TOLD = "cofferdam.brokers.mirror.told"
"""Where the types are of what the verbs print."""
HOUR: Final = 3_600
POLL_SECONDS: Final = 0.3
LINE_SECONDS: Final = 10.0
"""Between lines of how far it is, where there is no terminal in which one is written over."""
PLOT: Final = "▁▂▃▄▅▆▇█"
PLOT_WIDTH: Final = 72


def _sides(policy: CompiledPolicy, crew: str) -> list[keys.Side]:
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.terms.mirror import COLLECTOR, LOADER, PUBLISHER, READER
    from cofferdam.policy.terms.mirror_rows import MirrorRows, Postgres

    found = []
    for plan in plan_crews(policy).values():
        if plan.broker != "mirror" or crew not in ("", plan.name):
            continue
        rows = [row for name in plan.conduits if isinstance(row := policy.conduits[name].terms, MirrorRows)]
        who = frozenset(name for row in rows for name in row.stands)
        tls = frozenset(door.tls for row in rows for door in row.doors if door.tls)
        found.append(keys.Side(plan.base, READER, who, tls))
        passwords = frozenset(one.password for row in rows for one in row.sources if isinstance(one, Postgres))
        found.append(keys.Side(plan.base, COLLECTOR, passwords=passwords))
        if copies := frozenset(row.copy.password for row in rows if row.copy is not None):
            found.append(keys.Side(plan.base, LOADER, passwords=copies))
        if published := frozenset(row.publish.password for row in rows if row.publish is not None):
            found.append(keys.Side(plan.base, PUBLISHER, passwords=published))
    return found


KEYS: Final = keys.Keys("mirror", ("read", "sql"), "tag", _sides, "API keys of those who read")


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(
        name: str, text: str, work: Work, prints: str, parent: Any = verbs, module: str = TOLD
    ) -> argparse.ArgumentParser:
        from cofferdam.cli.gate_options import add_json, add_state

        sub: argparse.ArgumentParser = parent.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument("--crew", default="", metavar="NAME", help="where several mirrors run: the crew (`status`)")
        add_state(sub)
        if prints:
            add_json(sub, prints, module)
        return sub

    verb(
        "status", "how far behind it is, how long the spool has room, what is kept, what is missing", _status, "Status"
    )
    tags = verb("tags", "the tags that there are", _tags, "list[Tag]")
    tags.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names, with * for anything")
    query = verb("query", "the history of a tag: a plot, or its samples", _query, "list[Sample]")
    query.add_argument("tag", metavar="TAG", help="its name")
    _when(query)
    query.add_argument("--csv", action="store_true", help="samples as CSV")
    export = verb("export", "write samples into a file: .parquet, .csv, .ndjson or .arrow", _export, "Exported")
    export.add_argument("tags", nargs="+", metavar="TAG", help="names, with * for anything")
    _when(export)
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="a new file, of mode 0600")
    verify = verb("verify", "whether anything is missing: by the store's own files, or by counting at the source",
                  _verify, "Run")  # fmt: skip
    _when(verify)
    verify.add_argument("--tags", nargs="+", default=[], metavar="TAG", help="these tags alone, by name")
    verify.add_argument("--against", choices=["store", "counts", "source"], default="store",
                        help="the files as they were sealed; how many samples the historian has; or its values, too"
                        " (default: store)")  # fmt: skip
    verify.add_argument("--report", type=Path, metavar="FILE", help="write the result as JSON, for an auditor")
    backfill = verb(
        "backfill", "read a time at the sources again; what is there already changes nothing", _backfill, "Backfilled"
    )
    _when(backfill)
    verb("seal", "seal now what is not sealed yet, before a copy of the store is made, say", _seal, "Sealing")
    verb("check", "read every sealed file through, and say what is damaged", _check, "Checked")
    rebuild = verb(
        "rebuild",
        "make the catalogue of the store anew, where it is damaged, gone or too old",
        _rebuild,
        "Rebuilt",
        module="cofferdam.brokers.mirror.anew",
    )
    rebuild.add_argument("--yes", action="store_true", help="do it although the present one can be read")
    verb("gaps", "what is known to be missing, and why", _gaps, "Gaps")
    hold = verb("hold", "keep a time whatever its age, until it is let go", _hold, "Holds")
    _when(hold)
    hold.add_argument("--reason", default="", metavar="TEXT", help="why, for the record")
    hold.add_argument("--release", action="store_true", help="let it go")
    sub = verbs.add_parser("key", help=KEYS.why, description=f"{KEYS.why}.")
    keys.add_keys(KEYS, sub.add_subparsers(dest="which", metavar="WHICH", required=True), verb)
    keys.add_certificate(KEYS, verbs, verb)
    keys.add_password(KEYS, verbs, verb)
    parser.epilog = "Who does something is who the gate sees, and stands in the audit log."


def _when(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", metavar="TIME", help="the last 24h, 7d, ... (default: 24h)")
    parser.add_argument("--from", dest="since", metavar="TIME", help="instead: from this time on, as 2027-01-04T07:30Z")
    parser.add_argument("--to", dest="until", metavar="TIME", help="until this time (default: now)")


def run(args: argparse.Namespace) -> int:
    try:
        code: int = args.work(args)
    except ImportError as error:
        raise GateError(f"the mirror needs {error.name}", hint=extra("mirror")) from None
    return code


# --- asking -------------------------------------------------------------------------------------------------------


def _ask(args: argparse.Namespace, part: str, verb: str, **arguments: object) -> Any:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    answers: list[dict[str, Any]] = ask(
        state_of(args), "ask-part", broker="mirror", part=part, verb=verb, arguments=arguments, crew=args.crew
    )
    good = [each for each in answers if "error" not in each]
    if len(good) > 1:
        crews = ", ".join(each["crew"] for each in good)
        raise GateError(f"several mirrors run: {crews}", hint="say which with --crew NAME")
    if not good:
        bad = answers[0] if answers else {"error": "no mirror runs"}
        raise GateError(str(bad["error"]), hint=str(bad.get("hint", "")))
    return good[0]["result"]


def _parts(args: argparse.Namespace) -> set[str]:
    """Which parts of mirrors this machine has: over a strand its ends are on two."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    pairs = [pair for pair in ask(state_of(args), "status", fresh=False)["pairs"] if pair["broker"] == "mirror"]
    if not pairs:
        raise GateError("no mirror runs", hint="`cofferdam status` shows what does")
    return {half["role"] for pair in pairs for half in pair["halves"]}


def _view(args: argparse.Namespace) -> View:
    """The store as it is now, read from its files."""
    from cofferdam.brokers.mirror.query import Reading

    return Reading(_store(args)).view()


def _store(args: argparse.Namespace) -> Path:
    """Its folder."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.enforce import stores

    base = state_of(args) / stores.FOLDER
    wanted = args.crew.replace("/", "%2F") if args.crew else "mirror%2F*"
    try:
        found = [path / "keeper" for path in sorted(base.glob(wanted)) if (path / "keeper").is_dir()]
    except OSError as error:
        raise GateError(f"{base} cannot be read: {error.strerror or error}") from None
    if len(found) != 1:
        names = ", ".join(path.parent.name.replace("%2F", "/") for path in found)
        words = f"several mirrors have stores: {names}" if found else f"there is no mirror's store beneath {base}"
        raise GateError(words, hint="say which with --crew NAME" if found else "name the gate's with --state")
    return found[0]


def _span(args: argparse.Namespace, usual: str = "24h") -> tuple[int, int]:
    from cofferdam.brokers.kit.http.problems import Refusal
    from cofferdam.brokers.mirror import forms

    now = time.time_ns()
    try:
        until = forms.moment(args.until, now) if args.until else now + 1
        if args.since:
            if args.last:
                raise GateError("--from, or --last, not both")
            since = forms.moment(args.since, now)
        else:
            since = until - forms.span_ns(args.last or usual)
    except Refusal as error:
        raise GateError(error.problem.detail) from None
    if since >= until:
        raise GateError("a time that ends before it begins")
    return since, until


def _hours(args: argparse.Namespace, usual: str = "24h") -> tuple[int, int]:
    since, until = _span(args, usual)
    return since // (HOUR * 10**9), (until - 1) // (HOUR * 10**9)


def _print(args: argparse.Namespace, found: Any, lines: Iterable[str]) -> int:
    from cofferdam.audit.lines import escaped

    if args.json:
        print(json.dumps(found))
    else:
        for line in lines:
            print(escaped(line))
    return 0


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC" if ns else "never"


def _took(seconds: float) -> str:
    if seconds < 0:
        return "no rate known yet"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


# --- the verbs ----------------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    here = _parts(args)
    keeper, spooler = (_ask(args, part, "status") if part in here else None for part in ("keeper", "spooler"))
    sources = _ask(args, "collector", "status") if "collector" in here else []
    if "files" in here and (keeper is None or len(sources) < len(keeper["sources"])):
        sources += _ask(args, "files", "status")  # folders, which another part has
    if keeper is not None and keeper["copied"]:
        sources += _ask(args, "loader", "status")
    if keeper is not None and keeper["published"]:
        sources += _ask(args, "publisher", "status")

    def lines() -> Iterable[str]:
        yield from of_keeper(keeper) if keeper is not None else ["the store is on the strand's other machine"]
        yield from (of_spooler(spooler) if spooler is not None else ["  its sources are on the strand's other machine"])
        for one in sources:
            state = one["trouble"] or "well"
            where = f"{one['waits']} files wait" if "waits" in one else f"read up to {_time(one['upto'] or 0)}"
            if "copied" in one and keeper is not None:
                where = f"{one['copied']} of {keeper['commit']} batches are there"
            if "left" in one:
                where = "nothing is known yet" if one["left"] < 0 else f"{one['left']} sealed files are not there yet"
            word = "copy" if "copied" in one else "table" if "left" in one else "source"
            yield f"  {word:8}{one['source']}: {state}" + ("" if one.get("idle") else f"; {where}")
        yield from of_gaps(keeper) if keeper is not None else ()
        for full in filter(None, (end["full"] for end in (keeper, spooler) if end is not None)):
            yield f"  FULL    {full}"

    def of_keeper(keeper: dict[str, Any]) -> Iterable[str]:
        yield f"{keeper['conduit']}: {keeper['tags']} tags, newest {_time(keeper['newest'])}, " + (
            f"{_took(keeper['lag_ns'] / 1e9)} behind the clock" if keeper["newest"] else "nothing yet"
        )
        per = f", {keeper['bytes_a_point']} bytes a sample" if keeper["rows"] else ""
        yield (
            f"  store   {keeper['rows']} samples in {keeper['files']} sealed files,"
            f" {keeper['size'] / 1e6:.1f} MB{per};"
            f" {keeper['hot']} not sealed yet; generation {keeper['generation']}"
        )
        if keeper["files"]:
            yield f"  sealed  up to the hour that ends {_time((keeper['sealed_hour'] + 1) * HOUR * 10**9)}"

    def of_spooler(spooler: dict[str, Any]) -> Iterable[str]:
        for lane, found in spooler["lanes"].items():
            yield f"  {lane:9}{found['waiting']} batches wait for the store, of {found['last']}"
        yield (
            f"  spool   {spooler['bytes'] / 1e6:.1f} of {spooler['most'] / 1e6:.0f} MB; room for"
            f" {_took(spooler['left_seconds'])} if nothing were taken"
        )

    def of_gaps(keeper: dict[str, Any]) -> Iterable[str]:
        yield f"  gaps    {keeper['gaps'] or 'none'}" + (" (cofferdam mirror gaps)" if keeper["gaps"] else "")
        for hold in keeper["holds"]:
            first, last = hold["first"] * HOUR * 10**9, (hold["last"] + 1) * HOUR * 10**9
            yield f"  held    {_time(first)} to {_time(last)} by {hold['by']}: {hold['reason']}"

    return _print(args, {"keeper": keeper, "spooler": spooler, "sources": sources}, lines())


def _tags(args: argparse.Namespace) -> int:
    from cofferdam.policy.terms.mirror_rows import Matcher

    match = Matcher([args.pattern])
    kinds = ("float", "int", "bool", "text")
    found: list[dict[str, Any]] = [
        {"tag": name, "source": tag.source, "type": kinds[tag.kind], "first": tag.first, "last": tag.last}
        for name, tag in sorted(_view(args).tags().items())
        if match(name)
    ]
    lines = (
        f"{one['tag']:40} {one['type']:6} {_time(one['first'])} to {_time(one['last'])}  {one['source']}"
        for one in found
    )
    return _print(args, found, lines)


def _query(args: argparse.Namespace) -> int:
    from cofferdam.brokers.mirror import forms
    from cofferdam.brokers.mirror.aggregates import aggregate, buckets
    from cofferdam.brokers.mirror.query import Deadline

    view = _view(args)
    since, until = _span(args)
    _known(view, [args.tag])
    deadline = Deadline(600)
    if args.csv or args.json:
        table = view.samples([args.tag], since, until, deadline)
        rows = forms.rows_of(table)
        if args.json:
            print(json.dumps(list(rows)))
        else:
            for piece in forms.csv_pieces(("tag", "time", "value", "quality", "server"), rows):
                sys.stdout.write(piece.decode())
        return 0
    width = (until - since) // PLOT_WIDTH + 1
    edges = [since + index * width for index in range(PLOT_WIDTH + 1)]
    found = aggregate(view, [args.tag], edges, ("avg", "min", "max", "count"), deadline, 0, time.time_ns())
    steps = {(one.begin - since) // width: one.values for one in buckets(found)}
    if not any(one["count"] for one in steps.values()):
        rows = view.samples([args.tag], since, until, deadline).num_rows
        if rows:
            print(f"{args.tag}: {rows} samples, and no number among them that is not bad; --csv shows them")
            return 0
    for line in _plot(args.tag, steps, since, until):
        print(line)
    return 0


def _known(view: View, tags: Iterable[str]) -> None:
    """Raises: GateError, where one of them is no tag that there is."""
    from cofferdam.policy.problems import nearest

    for tag in tags:
        if tag not in view.tags():
            near = nearest(tag, view.tags())
            raise GateError(f"there is no tag {tag!r}", hint=f"did you mean {near}?" if near else "")


def _plot(tag: str, buckets: dict[int, dict[str, Any]], since: int, until: int) -> Iterable[str]:
    values = [float(one["avg"]) for one in buckets.values() if one["avg"] is not None and math.isfinite(one["avg"])]
    count = sum(int(one["count"] or 0) for one in buckets.values())
    if not values:
        yield f"{tag}: nothing between {_time(since)} and {_time(until)}"
        return
    low, high = min(values), max(values)
    cells = []
    for index in range(PLOT_WIDTH):
        value = buckets.get(index, {}).get("avg")
        share = (value - low) / (high - low) if value is not None and high > low else 0.5
        cells.append(" " if value is None else PLOT[min(len(PLOT) - 1, int(share * len(PLOT)))])
    yield f"{tag}: {count} samples, averages from {low:g} to {high:g}"
    yield "".join(cells)
    yield f"{_time(since)}{'':{max(1, PLOT_WIDTH - 46)}}{_time(until)}"


def _export(args: argparse.Namespace) -> int:
    from cofferdam.brokers.mirror import forms
    from cofferdam.brokers.mirror.query import Deadline
    from cofferdam.policy.terms.mirror_rows import Matcher

    form = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".arrow": "arrow"}.get(args.output.suffix)
    if form is None:
        raise GateError(
            f"{args.output}: what kind of file?", hint="a name that ends with .parquet, .csv, .ndjson, .arrow"
        )
    view = _view(args)
    since, until = _span(args)
    match = Matcher(args.tags)
    tags = [tag for tag in sorted(view.tags()) if match(tag)]
    if not tags:
        raise GateError("no tag is called so")
    table = view.samples(tags, since, until, Deadline(86_400))
    pieces: Iterable[bytes]
    if form == "parquet":
        pieces = [forms.parquet_of(forms.in_utc(table))]
    elif form == "arrow":
        pieces = [forms.arrow_of(forms.in_utc(table))]
    elif form == "csv":
        pieces = forms.csv_pieces(("tag", "time", "value", "quality", "server"), forms.rows_of(table))
    else:
        pieces = forms.line_pieces(forms.rows_of(table))
    try:
        file = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise GateError(f"{args.output} is there already") from None
    with os.fdopen(file, "wb") as out:
        for piece in pieces:
            out.write(piece)
    found = {"tags": len(tags), "samples": table.num_rows, "file": str(args.output)}
    return _print(args, found, [f"{table.num_rows} samples of {len(tags)} tags are in {args.output}"])


def _verify(args: argparse.Namespace) -> int:
    first, last = _hours(args)
    run = _ask(args, "keeper", "verify", first=first, last=last, against=args.against, tags=args.tags)
    tell = _progress(args, "hours")
    while not run["ended"]:
        time.sleep(POLL_SECONDS)
        run = _ask(args, "keeper", "verified", number=run["number"])
        tell(run["done"], run["total"])
    if sys.stderr.isatty() and not args.json:
        print("\r", end="", file=sys.stderr)
    if args.report is not None:
        args.report.write_text(json.dumps(run, indent=1) + "\n")
    _known(_view(args), args.tags or ())  # nothing is wrong with a tag that is not there
    good = not run["differences"] and not run["damaged"] and not run["failed"] and not run["gaps"]

    def lines() -> Iterable[str]:
        hours = f"{_time(first * HOUR * 10**9)} to {_time((last + 1) * HOUR * 10**9)}"
        if run["failed"]:
            yield f"it could not be verified: {run['failed']}"
            if run["tags"]:
                differ = run["differences"] or "no"
                yield f"  what could: {run['tags']} tags, {run['points']} samples, {hours}; {differ} differences"
        elif good:
            against = {"source": "the source has the same", "counts": "the source has as many"}.get(
                args.against, "every file is as it was sealed"
            )
            yield f"no gaps, no differences: {run['tags']} tags, {run['points']} samples, {hours}; {against}"
        if run["gaps"]:
            yield (f"{run['gaps']} times of which the strand has not brought all: `cofferdam mirror gaps` names them, "
                   "`cofferdam diode ticket` asks for them")  # fmt: skip
        for tag, hour, here, there in run["differ"]:
            same = ", with other values" if here == there else ""
            yield f"{tag} {_time(hour * HOUR * 10**9)}: {here} here, {there} at the source{same}"
        for name in run["damaged"]:
            yield f"{name} is damaged: set aside, and its hours are read again where a source still has them"
        for tag, hour, here, there in run["source_has_less"]:
            yield f"  (the source has fewer: {tag} {_time(hour * HOUR * 10**9)}: {here} here, {there} there)"

    _print(args, run, lines())
    return 0 if good else 1


def _backfill(args: argparse.Namespace) -> int:
    first, last = _hours(args)
    found = _ask(args, "keeper", "backfill", first=first, last=last)
    return _print(
        args, found, [f"{', '.join(found['sources'])}: is read again; `cofferdam mirror status` shows the lane"]
    )


def _check(args: argparse.Namespace) -> int:
    view = _view(args)
    damaged = [{"file": name, "why": why} for name, why in view.damaged()]
    found = {"files": len(view.catalogue.files), "hot": view.hot().num_rows, "damaged": damaged}
    lines = [f"{one['file']}: {one['why']}" for one in damaged]
    lines.append(f"{found['files']} sealed files, {len(damaged)} damaged; {found['hot']} samples are not sealed yet")
    if damaged:
        lines.append("`cofferdam mirror verify` over their time sets them aside, and has what is in them read again")
    _print(args, found, lines)
    return 1 if damaged else 0


def _seal(args: argparse.Namespace) -> int:
    found = _ask(args, "keeper", "seal")
    return _print(args, found, [f"{found['hot']} samples are being sealed"])


def _rebuild(args: argparse.Namespace) -> int:
    from cofferdam.brokers.mirror import catalogue
    from cofferdam.errors import StoreError

    folder = _store(args)
    with contextlib.suppress(StoreError):
        if (folder / catalogue.NAME).exists() and not args.yes:
            catalogue.load(folder)
            hint = "--yes makes it anew all the same, such as after it was put back from an older backup"
            raise GateError("the catalogue can be read", hint=hint)
    try:
        _ask(args, "keeper", "status")
    except GateError:
        pass  # no gate, or a keeper that does not start: nobody writes there
    else:
        raise GateError("its keeper runs, and has a catalogue", hint="stop the gate first: cofferdam down")
    found = _as_owner(folder, _progress(args, "files"))
    lines = [f"{found['files']} sealed files, {found['rows']} samples of {found['tags']} tags are in a new catalogue"]
    lines += [f"{name} cannot be read: it was set aside" for name in found["damaged"]]
    if found["held"]:
        lines.append(
            "nothing is known of what was held: everything is, until `cofferdam mirror hold --release` over its time"
        )
    if not found["before"]:
        lines.append("gaps of before stand in the audit log alone (samples-lost, history-dropped)")
    return _print(args, found, lines)


def _progress(args: argparse.Namespace, what: str) -> Callable[[int, int], None]:
    """Tells how far it is: in one line of a terminal, and in a line now and then where there is none."""
    due = time.monotonic() + LINE_SECONDS

    def tell(done: int, of: int) -> None:
        nonlocal due
        if args.json:
            return
        if sys.stderr.isatty():
            print(f"\r{done} of {of} {what}", end="", file=sys.stderr)
        elif time.monotonic() >= due:
            due = time.monotonic() + LINE_SECONDS
            print(f"{done} of {of} {what}", file=sys.stderr, flush=True)

    return tell


def _as_owner(folder: Path, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Makes a catalogue anew as the user whose store it is: root opens none of that user's files, and leaves none."""
    facts = folder.lstat()
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        with os.fdopen(reads, "rb") as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        found: dict[str, Any] = json.loads(said or b"{}")
        if status or "error" in found:
            raise GateError(str(found.get("error", "making it anew ended without a word")))
        return found
    code = 1
    try:
        os.close(reads)
        found = _rebuilt(folder, (facts.st_uid, facts.st_gid), progress)
        with os.fdopen(writes, "wb") as out:
            out.write(json.dumps(found).encode())
        code = 0
    finally:
        os._exit(code)


def _rebuilt(folder: Path, owner: tuple[int, int], progress: Callable[[int, int], None]) -> dict[str, Any]:
    import msgspec

    from cofferdam.brokers.mirror import anew
    from cofferdam.errors import StoreError

    try:
        os.chdir(folder)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(owner[1], owner[1], owner[1])
            os.setresuid(owner[0], owner[0], owner[0])
        found: dict[str, Any] = msgspec.to_builtins(anew.rebuild(Path(), time.time_ns(), progress))
    except (StoreError, OSError) as error:
        return {"error": str(error)}
    return found


def _gaps(args: argparse.Namespace) -> int:
    found = _ask(args, "keeper", "gaps")
    lines = [
        f"{one['source']}: {one['points'] or 'an unknown number of'} samples from {_time(one['since'])} to"
        f" {_time(one['until'])}: {one['why']}"
        for one in found["gaps"]
    ]
    return _print(args, found, lines or ["no gaps are known"])


def _hold(args: argparse.Namespace) -> int:
    first, last = _hours(args)
    verb = "release" if args.release else "hold"
    found = _ask(args, "keeper", verb, first=first, last=last, reason=args.reason)
    return _print(args, found, [f"{found['holds']} times are held"])
