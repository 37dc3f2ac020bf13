"""`cofferdam evidence ...`: checks and what they found, controls of frameworks, reports, clocks.

Not here: signatures and packs (evidence_signing), the export (export).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.errors import CofferdamError

if TYPE_CHECKING:
    from cofferdam.evidence.model import Catalogue, Finding, Framework
    from cofferdam.evidence.workbench import Bench

MOST_KEPT = 64 << 10
"""Bytes of a checkpoint with all its signatures."""
FOUND_NOTHING = 3
"""The exit code where a check that was named has nothing to say: whoever asks for one by night hears of it."""
COLOURS = {
    "proved": "green", "tested": "green", "observed": "green", "attested": "cyan", "stale": "yellow",
    "not covered": "dim", "failed": "bold red", "coming": "dim", "overdue": "bold red", "due soon": "yellow",
}  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-verbs."""
    from cofferdam.cli import evidence_signing, evidence_witness

    verbs = parser.add_subparsers(dest="evidence_verb", metavar="WHAT", required=True)

    ran = verbs.add_parser("run", help="run checks now and have the gate record what they find")
    ran.add_argument("ids", nargs="*", metavar="ID", help="which (default: all)")
    ran.add_argument("--all", action="store_true", help="all that can look at something now, as without any ID")
    ran.add_argument("--no-verify", action="store_true", help="leave out the verification of the whole log")
    ran.epilog = (
        "Exit code 1 if a check failed, 3 if one that was named could find nothing. `cofferdam prove` runs those that "
        "need a proof."
    )
    _common(ran, "EvidenceChecked")

    listed = verbs.add_parser("list", help="every check with its status, its age and when it is due")
    listed.add_argument("--status", metavar="STATUS", help="only those with this status")
    _common(listed, "list[CheckState]")

    show = verbs.add_parser("show", help="one check: what was found, its history, the controls that it carries")
    show.add_argument("id", metavar="ID", help="the check")
    _common(show, "EvidenceShow")

    report = verbs.add_parser("report", help="the controls of a framework, each with its evidence")
    report.add_argument("--framework", metavar="NAME", help="one that ships, or a YAML file of your own")
    report.add_argument("--sl", type=int, choices=[1, 2, 3, 4], default=0, metavar="N",
                        help="only up to this security level (IEC 62443)")  # fmt: skip
    report.add_argument("--since", metavar="TIME", help="also show what changed since then: 2026-03-01, or 30d")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--html", type=Path, metavar="FILE", help="write it as one HTML page")
    form.add_argument("--csv", action="store_true", help="print it as CSV, a row for each control")
    form.add_argument("--oscal", action="store_true", help="print it as OSCAL assessment results (JSON)")
    _common(report, "Report")

    clocks = verbs.add_parser("clocks", help="standing duties: when each was done last, and when it is due")
    clocks.add_argument("--ics", type=Path, metavar="FILE", help="write the due days as a calendar file")
    _common(clocks, "list[Due]")

    selftest = verbs.add_parser("selftest", help="try forbidden things on a gate of its own with a made-up asset")
    selftest.epilog = "Touches nothing of the plant; the running gate records what it finds. Exit code 1 if it failed."
    _common(selftest, "EvidenceChecked")

    night = verbs.add_parser("nightly", help="have the gate do now what it does each night: proof, self-test, checks")
    night.epilog = "It runs beside the gate; `evidence list` shows what was found, an alarm what could not be done."
    _common(night, "EvidenceNight")

    pack = verbs.add_parser("pack", help="one zip file that an auditor checks without the product")
    pack.add_argument("output", type=Path, metavar="OUT.zip")
    pack.add_argument("--framework", metavar="NAME", help="one that ships, or a YAML file of your own")
    pack.add_argument("--sl", type=int, choices=[1, 2, 3, 4], default=0, metavar="N", help="up to this security level")
    pack.add_argument("--from", dest="since", metavar="TIME", help="entries from then on (default: from the first)")
    pack.add_argument(
        "--to", dest="until", metavar="TIME", help="as things stood then; a day with all its hours (default: now)"
    )
    pack.add_argument("--kept", type=Path, action="append", default=[], metavar="FILE",
                      help="a checkpoint that somebody kept elsewhere: shows that the log goes on from it")  # fmt: skip
    pack.epilog = "tools/verify_evidence.py checks it. Exit code 1 if it is not signed: the key is root's."
    _common(pack, "EvidencePack")
    evidence_signing.add(verbs, _common)
    evidence_witness.add(verbs, _common)


def _common(parser: argparse.ArgumentParser, prints: str) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    add_state(parser)
    add_json(parser, prints)


def run(args: argparse.Namespace) -> int:
    """Does what the sub-verb says."""
    from cofferdam.cli import evidence_signing, evidence_witness

    here = {
        "run": _run,
        "list": _list,
        "show": _show,
        "report": _report,
        "clocks": _clocks,
        "pack": _pack,
        "selftest": _selftest,
        "nightly": _nightly,
        "witness": evidence_witness.run,
    }
    return (here | evidence_signing.VERBS)[args.evidence_verb](args)


# --- run --------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from cofferdam.cli.console import terminal
    from cofferdam.cli.evidence_bench import bench_of, record, remind, take_baseline
    from cofferdam.evidence.catalogue import catalogue
    from cofferdam.evidence.checks.tables import CHECKS, LEFT, SELF_TESTED

    if args.all and args.ids:
        raise CofferdamError("--all and the names of checks", hint="either: cofferdam evidence run --all")
    names = list(dict.fromkeys(args.ids)) or list(CHECKS)
    for name in names:
        _known(name, catalogue())
        if name not in CHECKS and name in SELF_TESTED:
            raise CofferdamError(f"{name} is tried by the self-test alone", hint="cofferdam evidence selftest")
        if name not in CHECKS:
            why = LEFT.get(name, "a person signs for it")
            how = "a person can sign for it: `cofferdam evidence attest`"
            raise CofferdamError(f"nothing of the gate looks at {name}: {why}", hint=how)
    bench = bench_of(args)
    verify = not args.no_verify and bool({"log.whole", "recording.whole"} & set(names))
    asked = {"seconds": math.inf} if "recording.whole" in args.ids else {}  # who asks for it waits for all of them
    found, missing = bench.run(names, verify=verify, **asked)
    recorded = record(bench, found)
    if "config.drift" in names:
        take_baseline(bench)
    remind(bench)
    if args.json:
        rows = [
            {"check": one.check, "subject": one.subject, "outcome": one.outcome, "says": one.says,
             "facts": list(one.facts)} for one in found
        ] + [{"check": one.check, "outcome": "unknown", "says": one.reason} for one in missing]  # fmt: skip
        print(json.dumps({"recorded": recorded, "checks": rows}, indent=1))
    else:
        console = terminal()
        for one in found:
            console.print(f"{one.outcome:8} {one.check}: {one.says}", style=COLOURS[one.outcome])
            if one.outcome == "failed":
                for fact in one.facts:
                    console.print(f"         {fact}", style="red")
        states = bench.standing().checks
        unused = [] if args.ids else [one for one in missing if not states[one.check].counts]
        for lacking in (one for one in missing if one not in unused):
            console.print(f"{'?':8} {lacking.check}: {lacking.reason}", style="dim")
        if unused:
            of = "what the policy does not use (`evidence list` names them)"
            console.print(f"{'-':8} {len(unused)} checks of {of}", style="dim")
        how = f"{recorded} new in the log" if bench.status is not None else "NOT RECORDED: the gate does not run"
        console.print(f"{len(found)} checks found something, {len(missing) - len(unused)} could not; {how}")
    if any(one.outcome == "failed" for one in found):
        return 1
    return FOUND_NOTHING if args.ids and missing else 0


def _known(name: str, found: Catalogue) -> None:
    from cofferdam.policy.problems import nearest

    if name not in found.checks:
        near = nearest(name, found.checks)
        raise CofferdamError(f"there is no check {name!r}", hint=f"did you mean {near}?" if near else "see `list`")


# --- list, show -------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.cli.console import table, terminal
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence.model import STATUSES, spoken

    if args.status is not None and args.status not in STATUSES:
        raise CofferdamError(f"there is no status {args.status!r}", hint=f"they are {', '.join(STATUSES)}")
    bench = bench_of(args)
    states = [one for one in bench.standing().checks.values() if args.status in (None, one.status)]
    if args.json:
        print(json.dumps([msgspec.to_builtins(one) for one in states], indent=1))
        return 0
    shown = table("check", "status", "age", "counts for", "entry", "")
    for one in states:
        shown.add_row(
            one.id, one.status, spoken(one.age) if one.age >= 0 else "", spoken(one.ends) if one.ends > 0 else "",
            str(one.index) if one.index >= 0 else "", one.says, style=COLOURS[one.status],
        )  # fmt: skip
    terminal().print(shown)
    for line in bench.lately():
        terminal().print(line)
    return 0


def _show(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.cli.console import terminal
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence.model import spoken
    from cofferdam.evidence.reports import when

    bench = bench_of(args)
    _known(args.id, bench.catalogue)
    check, state = bench.catalogue.checks[args.id], bench.standing().checks[args.id]
    past = [one for (name, _), results in bench.history.results.items() if name == args.id for one in results]
    carries = bench.catalogue.carried_by(args.id)
    if args.json:
        print(
            json.dumps(
                {
                    "check": msgspec.to_builtins(check), "now": msgspec.to_builtins(state),
                    "history": [msgspec.to_builtins(one) for one in past],
                    "controls": [list(one) for one in carries],
                },
                indent=1,
            )
        )  # fmt: skip
        return 0
    console = terminal()
    console.print(f"{check.id}: {check.says}", style="bold")
    console.print(f"  {state.status}: {state.says}", style=COLOURS[state.status])
    for fact in state.facts:
        console.print(f"    {fact}")
    if state.index >= 0:
        console.print(
            f"  entry {state.index}, {spoken(state.age)} old; `cofferdam audit prove {state.index}` proves it"
        )
    console.print(f"  at best {check.best}; counts for {spoken(check.valid)}; from: {check.source}")
    for framework, control in carries:
        console.print(f"  carries {framework} {control}")
    for one in past[-12:]:
        about = f" of {one.subject}" if one.subject else ""
        console.print(f"  {when(one.time_ns)} entry {one.index}: {one.outcome}{about}: {one.says}")
    return 0


# --- report, clocks ---------------------------------------------------------------------------------------------


def framework_of(name: str | None, bench: Bench) -> Framework:
    """The framework that is named, which may be a file of one's own. Raises: CofferdamError."""
    from cofferdam.policy.problems import nearest, one_of

    known = bench.catalogue.frameworks
    if name is None:
        raise CofferdamError("say which framework", hint=f"--framework: {one_of(known)}, or a YAML file of your own")
    if name.endswith((".yaml", ".yml")):
        bench.take_own(Path(name))
        return list(bench.catalogue.frameworks.values())[-1]
    if name not in known:
        near = nearest(name, known)
        raise CofferdamError(
            f"there is no framework {name!r}", hint=f"did you mean {near}?" if near else f"there is {one_of(known)}"
        )
    return known[name]


def _report(args: argparse.Namespace) -> int:
    from cofferdam.cli.console import table, terminal
    from cofferdam.cli.evidence_bench import bench_of
    from cofferdam.evidence import oscal, reports
    from cofferdam.evidence.model import STATUSES, spoken

    bench = bench_of(args)
    made = bench.report(framework_of(args.framework, bench), level=args.sl, since=args.since)
    if args.json:
        print(json.dumps(reports.as_json(made), indent=1))
    elif args.csv:
        sys.stdout.write(reports.as_csv(made))
    elif args.oscal:
        print(json.dumps(oscal.assessment_results(made), indent=1))
    elif args.html is not None:
        _write(args.html, reports.as_html(made).encode())
        print(f"wrote {args.html}")
    else:
        console = terminal()
        shown = table("control", "status", "age", "asks for", "by what, or why not")
        for row in made.rows:
            one = row.control
            by = ", ".join(one.decides) if one.status not in ("not covered", "coming") else one.why
            rest = f"; the operator shows: {one.rest}" if one.rest else ""
            shown.add_row(
                one.id, one.status, spoken(one.age) if one.age >= 0 else "", one.says, f"{by}{rest}",
                style=COLOURS[one.status],
            )  # fmt: skip
        console.print(f"{made.title}: {made.site}, {made.made}", style="bold")
        console.print(shown)
        for change in made.changed:
            console.print(f"changed since {made.since}: {change.control}: {change.before} → {change.now}")
        counts = ", ".join(f"{made.coverage[name]} {name}" for name in (*STATUSES, "coming") if made.coverage.get(name))
        console.print(f"{len(made.rows)} controls: {counts}")
    return 0


def _write(path: Path, data: bytes) -> None:
    """In one step: whole, or as it was. Raises: CofferdamError."""
    from cofferdam.audit.keys import write_beside

    try:
        write_beside(path.absolute(), data)
    except OSError as error:
        raise CofferdamError(f"cannot write {path}: {error.strerror or error}") from None


def _clocks(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.cli.console import table, terminal
    from cofferdam.cli.evidence_bench import bench_of, remind
    from cofferdam.evidence.clocks import calendar

    bench = bench_of(args)
    found = bench.clocks()
    remind(bench)
    if args.ics is not None:
        _write(args.ics, calendar(found, bench.history.site).encode())
        print(f"wrote {args.ics}")
    elif args.json:
        print(json.dumps([msgspec.to_builtins(one) for one in found], indent=1))
    else:
        shown = table("clock", "state", "last", "due", "days left", "late", "set anew by")
        for one in found:
            shown.add_row(
                one.clock, one.state, one.last or "never", one.due, str(one.left_days), f"{one.late} of {one.times}",
                one.done, style=COLOURS.get(one.state, ""),
            )  # fmt: skip
        terminal().print(shown)
    return 1 if any(one.state == "overdue" for one in found) else 0


def _pack(args: argparse.Namespace) -> int:
    from cofferdam.cli.evidence_bench import tell
    from cofferdam.cli.gate_options import state_of
    from cofferdam.errors import GateError
    from cofferdam.evidence.pack import make

    state = state_of(args)
    made = make(
        state, lambda bench: framework_of(args.framework, bench), since=args.since, until=args.until, level=args.sl,
        kept=[_kept(path) for path in args.kept],
    )  # fmt: skip
    _write(args.output, made.data)
    name = Path(args.framework).stem
    event = {"kind": "pack-made", "framework": name, "pack": made.digest, "size": made.size,
             "since": args.since or "", "until": args.until or ""}  # fmt: skip
    try:
        recorded = tell(state, "record", event=event)["recorded"]
    except GateError:
        recorded = False
    if args.json:
        plain = {"pack": str(args.output), "sha256": made.digest, "entries": made.size, "referred": made.entries,
                 "signed": made.signed, "recorded": recorded, "missing": list(made.missing),
                 "left_out": made.left_out, "not_cited": made.uncited}  # fmt: skip
        print(json.dumps(plain))
    else:
        print(f"wrote {args.output}: {made.entries:,} entries of {made.size:,}, SHA-256 {made.digest}")
        for lacking in made.missing:
            print(f"  not kept here any more: {lacking}")
        if made.left_out:
            print(f"  left out, since a pack has no room for more: {made.left_out:,} entries of the period, all before "
                  f"entry {made.below}; a pack up to then has them (--to)")  # fmt: skip
        if made.uncited:
            print(f"  left out, since they are too many or too large: {made.uncited:,} entries that the report names")
        print("  recorded in the log" if recorded else "  NOT RECORDED: no gate runs here")
        if not made.signed:
            print("  NOT SIGNED: the log's key cannot be read; run it as root")
    return 0 if made.signed else 1


def _kept(path: Path) -> bytes:
    """A checkpoint. Raises: CofferdamError, where a file can be none."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_KEPT + 1)
        if len(data) <= MOST_KEPT and b"\n\n" in data:
            return data
        raise CofferdamError(
            f"{path} is no checkpoint", hint="the file `checkpoint` of a witness's folder, as it was copied"
        )
    except OSError as error:
        raise CofferdamError(f"{path} cannot be read: {error.strerror}") from None


def _selftest(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.cli.console import terminal
    from cofferdam.cli.evidence_bench import tell
    from cofferdam.cli.gate_options import state_of
    from cofferdam.errors import GateError
    from cofferdam.evidence import selftest
    from cofferdam.gate.client import ask

    state = state_of(args)
    wires = selftest.apart() and selftest.can_wire()  # the control socket is a file: it is reached from any network
    found: list[Finding] = []
    recorded, told = 0, ""

    def take(some: list[Finding]) -> None:
        nonlocal recorded, told
        found.extend(some)
        try:
            for one in some:
                recorded += tell(state, "findings", found=[msgspec.to_builtins(one)])["recorded"]
        except GateError as error:
            told = f"NOT RECORDED: {error}"

    take(selftest.run(ask, wires=wires))
    trouble: CofferdamError | None = None
    try:
        take(_of_the_hop(state))  # whatever becomes of it, what was found of the gate is recorded
    except CofferdamError as error:
        trouble = error
    told = told or f"{recorded} new in the log"
    if args.json:
        print(json.dumps({"recorded": recorded, "checks": [msgspec.to_builtins(one) for one in found]}, indent=1))
    else:
        console = terminal()
        for one in found:
            console.print(f"{one.outcome:8} {one.check}: {one.says}", style=COLOURS[one.outcome])
            for fact in one.facts:
                console.print(f"         {fact}")
        console.print(told)
    if trouble is not None:
        raise trouble
    return 1 if any(one.outcome == "failed" for one in found) else 0


def _of_the_hop(state: Path) -> list[Finding]:
    """What the self-test finds of the jump server, if the running gate's policy has one. Without one nothing is claimed
    of it, and what was found before is over. Raises: CofferdamError."""
    from cofferdam.errors import GateError
    from cofferdam.evidence import gather, selftest_jump
    from cofferdam.gate.client import ask

    try:
        conduits = ask(state, "status")["conduits"]
    except GateError:
        return []
    if any(one["broker"] == "jump" for one in conduits):
        return [selftest_jump.run()]
    results = gather.history(state)[1].results.get((selftest_jump.CHECK, selftest_jump.SUBJECT), ())
    return [selftest_jump.OVER] if results and results[-1].outcome == "failed" else []


def _nightly(args: argparse.Namespace) -> int:
    from cofferdam.cli.evidence_bench import tell
    from cofferdam.cli.gate_options import state_of

    begins = bool(tell(state_of(args), "night")["begins"])
    words = "it begins: `cofferdam evidence list` shows what is found" if begins else "it is under way already"
    print(json.dumps({"begins": begins}) if args.json else words)
    return 0
