"""`cofferdam simulate POLICY CAPTURE`: what a policy would do to captured traffic.

Exit code 0: every request would be allowed; 1: at least one would be refused, is malformed, or depends on a value that
the capture does not show; 2: bad policy, bad capture, or no request in it. Not here: judging (capture.simulate).
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cofferdam.audit.lines import escaped_json
from cofferdam.capture.simulate import ALLOWED, DEPENDS, MALFORMED, REFUSED, FlowReport, Group, Simulation, simulate
from cofferdam.cli import capturing
from cofferdam.cli.gate_options import add_json
from cofferdam.errors import CaptureError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.points.decide import show_utc

_COLOURS = {ALLOWED: "green", REFUSED: "red", DEPENDS: "yellow", MALFORMED: "magenta"}
_ORDER = [REFUSED, MALFORMED, DEPENDS, ALLOWED]
_WIDTH = 120  # columns where nobody says how many there are: a file, a pipe
_RANGES = 6  # ranges of cells that one row lists


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("policy", type=Path, metavar="POLICY", help="a policy file, or a folder of them")
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="a pcap or pcapng file")
    parser.add_argument(
        "--at",
        type=_moment,
        metavar="TIME",
        help="judge windows and expiry as of now or of a time such as 2027-06-30T12:00Z (default: each packet's own)",
    )
    capturing.add_port(parser)
    parser.add_argument("--refused", action="store_true", help="leave out what is allowed")
    add_json(parser, "Simulation", "cofferdam.capture.simulate", "print the report as JSON")
    parser.epilog = "Exit code: 0 all allowed, 1 something would be refused, 2 bad input."


def run(args: argparse.Namespace) -> int:
    """Judge, print, and say it in the exit code. Raises: PolicyError, CaptureError."""
    if args.capture.is_dir() or args.capture.suffix in (".yaml", ".yml"):
        raise CaptureError(
            f"{args.capture} is no capture", hint="the policy comes first: cofferdam simulate POLICY CAPTURE"
        )
    loaded = load(args.policy)
    # Time zones' offsets are laid down around the time that is judged: captures may be old.
    now_ns = args.at if args.at is not None else capturing.first_time(args.capture)
    policy = compile_policy(loaded, now_ns=now_ns or time.time_ns())
    with capturing.opened(args.capture) as (stream, tick):
        report = simulate(policy, stream, str(args.capture), ports=dict(args.port), at_ns=args.at, progress=tick)
    if args.json:
        sys.stdout.write(escaped_json(msgspec.json.format(msgspec.json.encode(report), indent=2).decode()) + "\n")
        args.answered = True
    else:
        wide = None if sys.stdout.isatty() else _WIDTH
        show(report, Console(width=wide), only_refused=args.refused)
    if report.reading.error:
        raise CaptureError(report.reading.error, hint=report.reading.hint)
    if not report.requests:
        raise capturing.nothing_found(report.reading, report.malformed, report.links)
    return 0 if report.allowed == report.requests and not report.frames.get(REFUSED) else 1


def show(report: Simulation, console: Console, *, only_refused: bool = False) -> None:
    """The report for people."""
    for line in capturing.state_lines(report.reading, report.links, report.remarks, report.remarks_total):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    when = "the packets' own times" if report.judged_at == "capture" else show_utc(int(report.judged_at))
    console.print(f"judged by policy {report.policy_hash[:12]} as of {when}", highlight=False)
    for flow in report.flows:
        groups = [group for group in flow.groups if not only_refused or group.verdict != ALLOWED]
        if groups:
            console.print()
            console.print(_table(flow, groups))
    console.print()
    if report.groups_left_out:
        console.print(f"{report.groups_left_out} more requests of further kinds are counted, but not listed")
    counts = ((report.allowed, ALLOWED), (report.refused, REFUSED), (report.depends, DEPENDS))
    parts = [f"[{_COLOURS[name]}]{count} {name}[/]" for count, name in (*counts, (report.malformed, MALFORMED))]
    console.print(f"{report.requests} requests: " + ", ".join(parts), highlight=False)
    if report.frames:
        words = {"unknown": "of streams whose opening is not in the capture"}
        parts = [f"{count} {words.get(what, what)}" for what, count in report.frames.items()]
        console.print(f"{sum(report.frames.values())} packets of streams: " + ", ".join(parts), highlight=False)


def _table(flow: FlowReport, groups: list[Group]) -> Table:
    where = f"{flow.client} → {flow.server}:{flow.port}"
    asset = f"asset {flow.asset}" if flow.asset else "no asset of the policy"
    table = Table(title=f"{where}   {flow.protocol}, {asset}", title_justify="left", title_style="bold", expand=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("what", ratio=3, overflow="fold")
    table.add_column("why", ratio=4, overflow="fold")
    table.add_column("first", no_wrap=True)
    for group in sorted(groups, key=lambda one: (_ORDER.index(one.verdict), one.first_packet)):
        colour = _COLOURS[group.verdict]
        first = f"packet {group.first_packet}\n{_clock(group.first_ns)}"
        table.add_row(
            f"[{colour}]{group.verdict}[/]", str(group.count), escape(_what(group)), escape(_why(group)), first
        )
    return table


def _what(group: Group) -> str:
    head = f"{group.function} {group.name}".strip()
    unit = f", unit {group.unit}" if group.unit >= 0 else ""
    cells = [("read", group.reads), ("write", group.writes)]
    lines = [f"{word} {_ranges(texts)}" for word, texts in cells if texts]
    return "\n".join([head + unit, *lines])


def _ranges(texts: list[str]) -> str:
    shown = ", ".join(texts[:_RANGES])
    return shown if len(texts) <= _RANGES else f"{shown} and {len(texts) - _RANGES} more"


def _why(group: Group) -> str:
    if group.verdict == ALLOWED:
        return f"rule {group.rule}"
    if group.verdict == MALFORMED:
        return f"{group.detail} ({group.reason})"
    nearest = f" (nearest rule: {group.rule})" if group.rule else ""
    return f"{group.reason}: {group.detail}{nearest}"


def _clock(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%H:%M:%S}.{time_ns // 10**6 % 1000:03d}"


def _moment(text: str) -> int:
    """A value of --at as UTC ns. Raises: argparse.ArgumentTypeError."""
    if text == "now":
        return time.time_ns()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither now nor a time such as 2027-06-30T12:00Z") from None
    if not 1971 <= moment.year <= 2200:  # the tables of daylight saving reach some years around it
        raise argparse.ArgumentTypeError(f"{text!r} is too far away: a year from 1971 to 2200 is understood")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp()) * 10**9
