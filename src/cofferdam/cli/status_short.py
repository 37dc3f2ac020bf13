"""`cofferdam status` in one screen: the verdict, what to do, and the state of conduits and assets.

Plain lines: what is wrong and what to do about it is folded as far as the screen has room, all else is cut at the
terminal's edge. Nothing falls off the screen unsaid.

Not here: all of it (status).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from cofferdam.gate.watch.ways_out import is_notice

RED, GREEN, YELLOW, BOLD = "bold red", "bold green", "yellow", "bold"
Line = tuple[str, str]
"""A line and its style."""
DAY = re.compile(r"(until [A-Z][a-z]{2}) [0-9]{4}-[0-9]{2}-[0-9]{2}")
"""What a conduit's state says of a day that is less than a week off: its name is enough."""
ALARM_LINES = 7
"""Of what is wrong at most; the rest is counted."""


def lines(status: dict[str, Any], width: int, height: int, age: Callable[[int], str]) -> list[Line]:
    """The screen: at most so many lines of so many columns. `height` 0: as many as there are."""
    now = status["now_ns"]
    found: list[Line] = [(status["verdict"], GREEN if status["ok"] else RED)]
    if status["way_out"]:
        found.append((f"  do: {status['way_out']}", BOLD))
    policy = status["policy"]
    found.append((
        f"{status['site']}, up {age(now - status['started_ns'])}, policy {policy['hash'][:12]} since "
        f"{age(now - policy['loaded_ns'])}, separation: {status['separation']}", "",
    ))  # fmt: skip
    wrong = _wrong(status, now, age)
    if height and len(wrong) > ALARM_LINES:
        left = len(wrong) - ALARM_LINES + 1
        wrong = [*wrong[: ALARM_LINES - 1], (f"  and {left} more: cofferdam status --all", RED)]
    found += wrong
    head = len(found)
    foot = _foot(status, now, age)
    room = max(4, height - len(found) - len(foot) - 1) if height else 0
    conduits, assets = _conduits(status, width), _assets(status)
    found += _within(conduits, room - min(len(assets), room // 2), "conduits") if room else conduits
    found += _within(assets, max(2, height - len(found) - len(foot) - 1), "assets") if room else assets
    found += foot
    spare = height - len(found) - 1
    shown: list[Line] = []
    for number, (text, style) in enumerate(found):
        pieces = (
            textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)
            if number < head and width and spare > 0
            else [text]
        )
        if len(pieces) - 1 > spare:
            pieces = [text]
        spare -= len(pieces) - 1
        shown += [(_cut(piece, width), style) for piece in pieces]
    return shown


def _wrong(status: dict[str, Any], now: int, age: Callable[[int], str]) -> list[Line]:
    found: list[Line] = []
    for cut in (*status["severed"], *status["closures"]):
        why = f": {cut['reason']}" if cut["reason"] else ""
        more = f", for {age(cut['until_ns'] - now)} more" if cut["until_ns"] else ""
        found.append((f"SEVERED {cut_name(cut)} {age(now - cut['since_ns'])} ago{more} by {cut['by']}{why}", RED))
    for alarm in status["alarms"]:
        notice = is_notice(alarm["name"])
        text = f"{alarm['detail']} ({alarm['name']}, {age(now - alarm['since_ns'])})"
        found.append((f"LOOK {text}", YELLOW) if notice else (f"ALARM {text}", RED))
    return found


def cut_name(cut: dict[str, Any]) -> str:
    """What is cut off, as `sever` names it."""
    if cut.get("side"):
        return str(cut["side"])
    return f"{cut['kind']} {cut['name']}"


def _conduits(status: dict[str, Any], width: int) -> list[Line]:
    rows: list[tuple[Sequence[str], str]] = [(("conduit", "now", "sess", "reads", "writes", "refused", "p99 ms"), BOLD)]
    for one in status["conduits"]:
        recent = one["recent"]
        p99 = f"{recent['p99'] / 1000:.1f}" if recent["count"] else "-"
        state = "severed" if one["severed"] else DAY.sub(r"\1", one["standing"]["says"])
        good = one["standing"]["open"] and not one["severed"]
        rows.append((
            (one["name"], state, f"{one['sessions']:,}", f"{one['reads']:,}", f"{one['writes']:,}",
             f"{one['refused']:,}", f"{p99}{' OVER' if one['recent_over_budget'] else ''}"),
            "" if good and not one["recent_over_budget"] else YELLOW,
        ))  # fmt: skip
    return _table(rows, left=2, width=width)


def _assets(status: dict[str, Any]) -> list[Line]:
    if not status["assets"]:
        return []
    rows: list[tuple[Sequence[str], str]] = [(("asset", "state", "requests", "failed", "late", "said last"), BOLD)]
    for one in sorted(status["assets"], key=lambda one: (one["state"] != "silent", one["name"])):
        state = "not asked yet" if one["state"] == "idle" and not one["requests"] else one["state"]
        rows.append((
            (one["name"], state, f"{one['requests']:,}", f"{one['failures']:,}", f"{one['late']:,}", one["detail"]),
            RED if one["state"] == "silent" else YELLOW if one["detail"] else "",
        ))  # fmt: skip
    return _table(rows, left=2, last_left=True)


def _foot(status: dict[str, Any], now: int, age: Callable[[int], str]) -> list[Line]:
    audit, found = status["audit"], []
    for one in status["grants"]:
        until = f"open for {age(one['until_ns'] - now)} more" if one["agreed_by"] else "waits for a second person"
        wish = f"asked by {one['by']}: {one['reason']}"
        found.append((f"grant {one['number']}: {one['conduit']}, {until}, {wish}", YELLOW))
    disk = audit["disk"]
    days = f", room for {disk['days']:,} days" if 0 <= disk["days"] < 36500 else ""
    found.append((
        f"log: {audit['size']:,} entries, {audit['size'] - audit['signed']:,} not signed yet{days}"
        if audit["writable"] else f"log: NOT WRITABLE: {audit['reason']}", "" if audit["writable"] else RED,
    ))  # fmt: skip
    dropped = sum(count for side in status["dropped"] for count in side["packets"].values())
    refused = sum(one["refused"] for one in status["conduits"]) + status["unmatched"]
    found.append((f"refused {refused:,}, malformed {status['malformed']:,}, packets dropped {dropped:,}", ""))
    for one in status["strangers"][:3]:
        what = one["asset"] or f"{one['address']}:{one['port']}"
        near = f"; near it: {one['near'][0]}" if one["near"] else ""
        last = age(now - one["last_ns"])
        found.append((f"  dropped: {one['source']} wanted {what} {one['times']} times, last {last} ago{near}", YELLOW))
    for fact in status["facts"]:
        if fact["name"] == "nightly proof":
            found.append((f"nightly proof: {fact['detail']}", "" if fact["in_force"] else YELLOW))
    if status["management"]:
        found.append((f"http://{status['management']}/health /ready /metrics; all of it: cofferdam status --all", ""))
    else:
        found.append(("all of it: cofferdam status --all", ""))
    return found


def _table(
    rows: Sequence[tuple[Sequence[str], str]], *, left: int, last_left: bool = False, width: int = 0
) -> list[Line]:
    widths = [max(len(cells[column]) for cells, _ in rows) for column in range(len(rows[0][0]))]
    widths[1] = min(widths[1], 24)
    room = width - sum(widths[1:]) - 2 * (len(widths) - 1) if width else 24
    widths[0] = min(widths[0], 24, max(12, room))
    found = []
    for cells, style in rows:
        shown = []
        for column, (cell, wide) in enumerate(zip(cells, widths, strict=True)):
            is_left = column < left or (last_left and column == len(cells) - 1)
            text = _cut(cell, wide) if column < left else cell
            shown.append(text.ljust(wide) if is_left else text.rjust(wide))
        found.append(("  ".join(shown).rstrip(), style))
    return found


def _within(rows: list[Line], room: int, what: str) -> list[Line]:
    if len(rows) <= room:
        return rows
    room = max(2, room)
    return [*rows[: room - 1], (f"  and {len(rows) - room + 1} more {what}", "")]


def _cut(text: str, width: int) -> str:
    return text if not width or len(text) <= width else f"{text[: width - 1]}…"
