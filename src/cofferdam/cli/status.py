"""`cofferdam status`: what runs, who is on it, what was refused, what latency we add, what keeps the sides apart."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, Group
    from rich.table import Table

WIDE = 400
"""Columns of what is piped."""
LEFT = frozenset(
    ("conduit", "now", "of the last", "half", "asset", "state", "session", "from", "principals", "listens at", "figure")
)
"""Columns that hold words, besides the first."""
WIDTH = 80
"""Columns of services' figures that do not fit in are shown as rows, also where they are piped."""
WORDS = 12
"""Columns that words need at least: longer ones go on below. Numbers are never broken."""
LATENCY = {("conduit", name) for name in ("added", "waited", "device")}
"""Histograms that have a table of their own, with the budget."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    add_state(parser)
    add_json(parser, "StatusReport", "cofferdam.gate.watch.report")
    parser.add_argument("--all", action="store_true", help="everything, by pages in a terminal; the default when piped")
    parser.add_argument("--watch", action="store_true", help="show one screen anew each second until q or Ctrl-C")
    parser.epilog = (
        "Exit code: 0 all works, though a notice may be worth a look (strangers, a conduit that expires, somebody who "
        "waits); 1 an alarm stands, something is severed or a pair of halves does not work (the first line says "
        "which, and what to do); "
        "2 no gate runs."
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    state = state_of(args)
    status = ask(state, "status")
    if args.watch:
        return _watch(args, state, status)
    if args.json:
        print(json.dumps(status, indent=1))
        return verdict(status)
    from rich.console import Console

    if not sys.stdout.isatty():
        # Nobody reads it in a window: each line is whole, for grep.
        Console(markup=False, width=WIDE, highlight=False).print(render(status))
    elif args.all:
        console = Console(markup=False)  # an IPv6 address stands in brackets, as markup does
        os.environ.setdefault("LESS", "FRX")
        os.environ["LESSSECURE"] = "1"  # a pager of root's starts no shell
        with console.pager(styles=True):
            console.print(render(status, console.width))
    else:
        console = Console(markup=False)
        _print_short(status, console, console.height)
    return verdict(status)


def _print_short(status: dict[str, Any], console: Console, height: int) -> None:
    from rich.text import Text

    from cofferdam.cli.status_short import lines

    for text, style in lines(status, console.width, height - 1 if height else 0, _age):
        console.print(Text(text, style), soft_wrap=True, highlight=False)


def _watch(args: argparse.Namespace, state: Path, status: dict[str, Any]) -> int:
    """One screen a second. In a pipe: the same lines, one after the other, and an empty one between."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from cofferdam.cli.keyboard import Keys
    from cofferdam.cli.status_short import lines
    from cofferdam.gate.client import ask

    if args.json or not sys.stdout.isatty():
        while True:
            if args.json:
                print(json.dumps(status), flush=True)
            else:
                print("\n".join(text for text, _ in lines(status, 0, 0, _age)), end="\n\n", flush=True)
            time.sleep(1)
            status = ask(state, "status")
    console = Console(markup=False)

    def screen() -> Group:
        shown = lines(status, console.width, console.height - 1, _age)
        return Group(*(Text(text, style, no_wrap=True) for text, style in shown))

    with Keys() as keys, Live(screen(), console=console, auto_refresh=False, screen=True) as live:
        while keys.wait(1.0) not in ("q", "Q"):
            status = ask(state, "status")
            live.update(screen(), refresh=True)
    return verdict(status)


def verdict(status: dict[str, Any]) -> int:
    """0 if all works, also where something is worth a look (gate.watch.ways_out)."""
    return 0 if status["ok"] else 1


def render(status: dict[str, Any], room: int = WIDE) -> Group:
    """The whole status for a terminal of so many columns."""
    from rich.console import Group
    from rich.text import Text

    from cofferdam.cli.status_short import cut_name
    from cofferdam.gate.watch.ways_out import is_notice

    now = status["now_ns"]
    head = Text.assemble(
        (status["site"], "bold"),
        f"  up {_age(now - status['started_ns'])}  policy {status['policy']['hash'][:12]} "
        f"since {_age(now - status['policy']['loaded_ns'])}  {status['policy']['path']}",
    )
    parts: list[Any] = [Text(status["verdict"], "bold green" if status["ok"] else "bold red")]
    if status["way_out"]:
        parts.append(Text(f"  do: {status['way_out']}", "bold"))
    parts.append(head)
    for cut in (*status["severed"], *status["closures"]):
        why = f": {cut['reason']}" if cut["reason"] else ""
        more = f", for {_age(cut['until_ns'] - now)} more" if cut["until_ns"] else ""
        when = f"{_age(now - cut['since_ns'])} ago{more}"
        parts.append(Text(f"SEVERED {cut_name(cut)} {when} by {cut['by']}{why}", "bold red"))
    for alarm in status["alarms"]:
        notice = is_notice(alarm["name"])
        word, style = ("LOOK", "bold yellow") if notice else ("ALARM", "bold red")
        parts.append(Text(f"{word} {alarm['name']}: {alarm['detail']}", style))
    parts += [*_conduits(status, room), *_latency(status, room), _pairs(status), *_assets(status, room)]
    parts += _sessions(status)
    parts += [*_figures(status), _audit(status)]
    refused = status["unmatched"]
    counts = [f"{count} × {name}" for name, count in sorted({**status["limits"]}.items()) if count]
    parts.append(Text(f"refused without a conduit: {refused}   malformed: {status['malformed']}"))
    if counts:
        parts.append(Text(f"limits hit: {', '.join(counts)}", "yellow"))
    parts += [_dropped(dropped, now) for dropped in status["dropped"]]
    for one in status["strangers"]:
        what = one["asset"] or f"{one['address']}:{one['port']}"
        near = f"; near it: {', '.join(one['near'])}" if one["near"] else ""
        last = _age(now - one["last_ns"])
        parts.append(Text(f"  {one['source']} wanted {what} {one['times']} times, last {last} ago, nobody's{near}"))
    for one in status["wires"]:
        link = "link" if one["carrier"] else "NO LINK" if one["up"] else "DOWN"
        addresses = f"{one['addresses']} address{'' if one['addresses'] == 1 else 'es'}"
        parts.append(Text(f"zone {one['zone']}: {one['interface']}, {link}, {addresses}"))
    if status["management"]:
        parts.append(Text(f"metrics: http://{status['management']}/metrics"))
    parts.append(_separation(status))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        left = column in LEFT or column == columns[0]
        # A name is broken last of all.
        table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=column == "conduit")
    return table


def _fitted(title: str, heads: tuple[str, ...], rows: list[tuple[str, tuple[str, ...]]], room: int) -> list[Table]:
    """A table, each row with its style; where it is wider than there is room, its figures as rows, and as many of its
    rows side by side as fit in."""
    cells = [row for _, row in rows]
    if _width(heads, cells) <= room:
        table = _table(title, *heads)
        for style, row in rows:
            table.add_row(*row, style=style)
        return [table]

    def turned(some: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [(name, *(row[at] for row in some)) for at, name in enumerate(heads) if at]

    tables: list[Table] = []
    while cells:
        fit = 1
        while (
            fit < len(cells) and _width(("", *(row[0] for row in cells[: fit + 1])), turned(cells[: fit + 1])) <= room
        ):
            fit += 1
        table = _table(title if not tables else "", heads[0], *(row[0] for row in cells[:fit]))
        for row in turned(cells[:fit]):
            table.add_row(*row)
        tables.append(table)
        cells = cells[fit:]
    return tables


def _conduits(status: dict[str, Any], room: int) -> list[Table]:
    """A table for each broker, with what it counts by conduit."""
    brokers = dict.fromkeys(conduit["broker"] for conduit in status["conduits"])
    tables = []
    for broker in brokers:
        figures = _of(status, broker, "conduit", histograms=False)
        title = "Conduits" if len(brokers) == 1 else f"Conduits of the broker {broker}"
        rows = []
        for conduit in (conduit for conduit in status["conduits"] if conduit["broker"] == broker):
            counts = [_shown(figure, conduit["name"], status["now_ns"]) for figure in figures]
            standing = conduit["standing"]
            style = "red" if conduit["severed"] else "" if standing["open"] else "yellow"
            said = _standing(standing, severed=conduit["severed"])
            rows.append((style, (conduit["name"], said, f"{conduit['sessions']:,}", *counts)))
        tables += _fitted(title, ("conduit", "now", "sessions", *map(_title, figures)), rows, room)
    return tables


def _standing(standing: dict[str, Any], *, severed: bool) -> str:
    """Whether a conduit is open now, and its last day if it has one. Of one that is severed: that, and what the policy
    alone would say."""
    if severed:
        return "severed" if standing["says"].startswith("severed") else f"severed (by the policy: {standing['says']})"
    over = standing["says"].startswith("EXPIRED")
    expires = f"; expires {standing['expires']}" if standing["expires"] and not over else ""
    return f"{standing['says']}{expires}"


def _latency(status: dict[str, Any], room: int) -> list[Table]:
    """For conduits of brokers that measure it."""
    measured = {figure["broker"] for figure in status["figures"] if figure["name"] == "added"}
    conduits = [conduit for conduit in status["conduits"] if conduit["broker"] in measured]
    if not conduits:
        return []
    minutes = status["recent_seconds"] // 60
    run = _age(status["now_ns"] - status["started_ns"])
    title = "Latency added by the gate, and waiting and the device's own time, in µs"
    heads = (
        "conduit",
        "of the last",
        "requests",
        "median",
        "p99",
        "p99.9",
        "max",
        "budget",
        "waited p99",
        "device p99",
    )
    shown_rows: list[tuple[str, tuple[str, ...]]] = []
    for conduit in conduits:
        budget = f"{conduit['budget']:,}" if conduit["budget"] else "-"
        others = [f"{conduit[key]['p99']:,.0f}" for key in ("waited", "device")]
        rows = (
            (conduit["name"], f"{minutes} min", "recent", "recent_over_budget", ["", ""]),
            (conduit["name"], run, "added", "over_budget", others),
            *(
                ((conduit["name"], "packets", "packets", "over_budget", ["", ""]),)
                if conduit["packets"]["count"]
                else ()
            ),
        )
        for name, of, key, flag, more in rows:
            added, over = conduit[key], conduit[flag]
            figures = [f"{added[which]:,.0f}" if added["count"] else "-" for which in ("median", "p99", "p999", "max")]
            shown = budget + (" OVER" if over else "")
            row = (name, of, f"{added['count']:,}", *figures, shown, *more)
            shown_rows.append(("red" if over else "", row))
    return _fitted(title, heads, shown_rows, room)


def _pairs(status: dict[str, Any]) -> Table:
    table = _table("Halves", "half", "pid", "up", "restarts", "listens at")
    for pair in status["pairs"]:
        if not pair["halves"]:
            table.add_row(pair["name"], "-", "down", str(pair["restarts"]), "", style="red")
        for half in pair["halves"]:
            where = ", ".join(half["listens"])
            up = _age(status["now_ns"] - half["started_ns"]) if half["ready"] else "starts"
            table.add_row(half["name"], str(half["pid"]), up, str(pair["restarts"]), where)
    return table


def _assets(status: dict[str, Any], room: int) -> list[Table]:
    """A table for each broker with assets, with what it counts by asset."""
    of = {name: pair["broker"] for pair in status["pairs"] for name in pair["assets"]}
    brokers = dict.fromkeys(of[asset["name"]] for asset in status["assets"] if asset["name"] in of)
    tables = []
    for broker in brokers:
        figures = _of(status, broker, "asset", histograms=False)
        title = "Assets" if len(brokers) == 1 else f"Assets of the broker {broker}"
        rows = []
        for asset in (asset for asset in status["assets"] if of.get(asset["name"]) == broker):
            state = asset["state"] + (f" ({asset['detail']})" if asset["detail"] else "")
            numbers = [_shown(figure, asset["name"], status["now_ns"]) for figure in figures]
            style = "yellow" if asset["state"] in ("backing-off", "silent") else ""
            rows.append((style, (asset["name"], state, *numbers)))
        tables += _fitted(title, ("asset", "state", *map(_title, figures)), rows, room)
    return tables


# --- figures of brokers -----------------------------------------------------------------------------------------


def _of(status: dict[str, Any], broker: str, by: str, *, histograms: bool) -> list[dict[str, Any]]:
    return [
        figure
        for figure in status["figures"]
        if (figure["broker"], figure["by"], figure["kind"] == "histogram") == (broker, by, histograms)
    ]


def _title(figure: dict[str, Any]) -> str:
    return str(figure["name"]).replace("_", " ")


def _shown(figure: dict[str, Any], label: str, now: int) -> str:
    """A value for people; "-" where there is none."""
    value = figure["values"].get(label)
    if value is None:
        return "-"
    match figure["unit"]:
        case "bytes":
            return _bytes(value)
        case "seconds":
            return _age(value)
        case "time":
            return f"{_age(now - value)} ago" if value else "never"
    return f"{value:,}"


def _figures(status: dict[str, Any]) -> list[Any]:
    """Whatever stands in no table of its own: what brokers count by other labels or as a whole, and histograms."""
    from rich.text import Text

    parts: list[Any] = []
    for broker in dict.fromkeys(figure["broker"] for figure in status["figures"]):
        mine = [figure for figure in status["figures"] if figure["broker"] == broker]
        whole = _of(status, broker, "", histograms=False)
        if whole:
            counts = (f"{_title(figure)} {_shown(figure, '', status['now_ns'])}" for figure in whole)
            parts.append(Text(f"{broker}: {', '.join(counts)}"))
        for by in dict.fromkeys(figure["by"] for figure in mine if figure["by"] not in ("", "conduit", "asset")):
            parts += _by(status, broker, by)
        durations = [
            figure
            for figure in mine
            if figure["kind"] == "histogram" and (figure["by"], figure["name"]) not in LATENCY and figure["values"]
        ]
        if durations:
            parts.append(_durations(broker, durations))
    return parts


def _by(status: dict[str, Any], broker: str, by: str) -> list[Table]:
    figures = _of(status, broker, by, histograms=False)
    labels = sorted({label for figure in figures for label in figure["values"]})
    if not labels:
        return []
    rows = [("", (label or "-", *(_shown(figure, label, status["now_ns"]) for figure in figures))) for label in labels]
    return _fitted(f"{broker} by {by}", (by, *map(_title, figures)), rows, WIDTH)


def _width(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> int:
    """How wide a table would be: two spaces and the box's one beside each column's longest cell, or what words need."""

    def needs(cell: str) -> int:
        return len(cell) if cell[:1].isdigit() else min(len(cell), WORDS)

    return sum(max(len(name), *map(needs, column)) + 3 for name, *column in zip(head, *rows, strict=True))


def _durations(broker: str, figures: list[dict[str, Any]]) -> Table:
    table = _table(f"Durations of {broker}, in ms", "of", "figure", "count", "median", "p99", "max")
    for figure in figures:
        for label, spread in figure["values"].items():
            shown = [f"{spread[which] / 1000:,.1f}" if spread["count"] else "-" for which in ("median", "p99", "max")]
            table.add_row(label or "all", _title(figure), f"{spread['count']:,}", *shown)
    return table


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _sessions(status: dict[str, Any]) -> list[Table]:
    if not status["sessions"]:
        return []
    shown = status["sessions"][:20]
    count = max(sum(status["open"].values()), len(shown))
    rest = count - len(shown)
    title = f"Sessions ({count}{f', {rest} not shown' if rest else ''})"
    table = _table(title, "session", "asset", "from", "principals", "since", "requests", "refused")
    for session in shown:
        where = f"{session['source']}:{session['port']}"
        since = _age(status["now_ns"] - session["since_ns"])
        who = ", ".join(session["principals"])
        table.add_row(
            session["session"],
            session["asset"],
            where,
            who,
            since,
            f"{session['requests']:,}",
            f"{session['refused']:,}",
        )
    return [table]


def _audit(status: dict[str, Any]) -> Any:
    from rich.text import Text

    audit = status["audit"]
    if not audit["writable"]:
        return Text(f"audit log: NOT WRITABLE: {audit['reason']}; writes to the plant are refused", "bold red")
    return Text(
        f"audit log: {audit['size']:,} entries, {audit['signed']:,} under a signed checkpoint; "
        f"mean wait for the disk {audit['commit_mean']:,.0f} µs, longest {audit['commit_max']:,.0f} µs\n"
        f"  {_log_disk(audit.get('disk') or {})}"
    )


def _log_disk(disk: dict[str, Any]) -> str:
    """How much room the log takes, how it grows, and for how long that goes well."""
    if not disk.get("since"):
        return "how much room it takes is known within a minute"
    said = f"{_size(disk['bytes'])} on disk, {_size(disk['free'])} free"
    if disk["most"]:
        said += f", at most {_size(disk['most'])}"
    said += f"; kept since {disk['since'][:10]}"
    if disk["first"]:
        said += f" (entry {disk['first']:,}; older ones are gone, as the policy has it)"
    if disk["per_day"] < 0:
        return said + "; a forecast needs ten minutes"
    said += f"; about {_size(disk['per_day'])} a day"
    if disk["days"] < 0:
        return said
    bounded = disk["most"] and disk["free"] >= disk["most"] - disk["bytes"]
    if bounded and not disk["days"]:
        return f"{said}, for which the oldest go"
    end = "then the oldest go" if bounded else "then the disk is full"
    return (
        f"{said}, enough for {disk['days']:,} days, {end}" if disk["days"] < 36500 else f"{said}, enough for a century"
    )


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:,.3g} TB"


def _dropped(dropped: dict[str, Any], now: int) -> Any:
    """What no half and no audit entry of a session can show."""
    from rich.text import Text

    from cofferdam.audit.events.proof import DROPPED
    from cofferdam.enforce.plans.fence import SPACE

    always = dict.fromkeys(DROPPED if dropped["side"] != SPACE else (), 0)
    packets = always | dropped["packets"]
    counts = ", ".join(f"{count:,} {DROPPED.get(hook, hook)}" for hook, count in packets.items())
    last = f"; last grew {_age(now - dropped['last_ns'])} ago" if dropped["last_ns"] else ""
    return Text(f"firewall of side {dropped['side']}: packets dropped without an answer: {counts}{last}")


def _separation(status: dict[str, Any]) -> Any:
    from rich.text import Text

    text = Text(f"Separation in force: {status['separation']}\n", "bold")
    for fact in status["facts"]:
        mark, style = ("+", "green") if fact["in_force"] else ("-", "yellow")
        text.append(f"  {mark} {fact['name']}: {fact['detail']}\n", style)
    text.rstrip()
    return text


def _age(ns: int) -> str:
    seconds = max(0, ns) // 1_000_000_000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"
