"""One framework's report at one moment, as plain data, as CSV, and as one HTML file without scripts.

The same rows are for a console. Not here: how things stand (standing), OSCAL (oscal), the pack (pack).
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cofferdam.audit.cells import no_formula
from cofferdam.audit.lines import escaped
from cofferdam.evidence.clocks import Due
from cofferdam.evidence.model import MEANINGS, STATUSES, Catalogue, Framework, spoken
from cofferdam.evidence.standing import CheckState, ControlState, Standing, controls, coverage

FORMAT = "cofferdam-evidence-report-v1"
HEDGE = (
    "This report says what the gate shows, how it is known, and how old that is. Whether a standard's requirements "
    "are met is for an assessor to say. Controls are given in our own words, and not in those of the standard."
)
MARKS = {
    "proved": "●●●", "tested": "●●", "observed": "●", "attested": "✎", "stale": "◌", "not covered": "–", "failed": "✗",
    "coming": "→",
}  # fmt: skip
"""For a print in black and white: what the colour says, once more."""


NAMED = 8
"""Checks that a sentence names."""


class Row(msgspec.Struct, frozen=True):
    """A control with what it rests on. `related`: "framework: control" that the same evidence serves."""

    control: ControlState
    checks: tuple[CheckState, ...]
    compare: bool
    level: int
    related: tuple[str, ...]


class Changed(msgspec.Struct, frozen=True):
    """A control whose status is another one than at an earlier time."""

    control: str
    before: str
    now: str


class Report(msgspec.Struct, frozen=True):
    """One framework. `level`: the security level up to which controls are shown, 0 for all; `unknown`: checks that the
    log has results of, and the version that makes the report does not know."""

    format: str
    framework: str
    title: str
    note: str
    site: str
    policy: str
    version: str
    made: str
    entries: int
    level: int
    coverage: dict[str, int]
    rows: tuple[Row, ...]
    clocks: tuple[Due, ...] = ()
    changed: tuple[Changed, ...] = ()
    since: str = ""
    unknown: tuple[str, ...] = ()


def when(ns: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make(
    catalogue: Catalogue, framework: Framework, now: Standing, *, version: str, level: int = 0,
    clocks: tuple[Due, ...] = (), earlier: Standing | None = None,
) -> Report:  # fmt: skip
    """The report of one framework. `earlier`: how things stood at a time, for what changed since."""
    day = when(now.now_ns)[:10]
    found = controls(framework, now, day, level)
    rows = tuple(
        Row(
            one,
            tuple(now.checks[name] for name in one.checks),
            framework.controls[one.id].compare,
            framework.controls[one.id].level,
            tuple(f"{name}: {other}" for name, other in catalogue.related(framework.id, framework.controls[one.id])),
        )
        for one in found
    )
    changed: tuple[Changed, ...] = ()
    if earlier is not None:
        before = {one.id: one.status for one in controls(framework, earlier, when(earlier.now_ns)[:10], level)}
        changed = tuple(
            Changed(one.id, before[one.id], one.status) for one in found if before.get(one.id, one.status) != one.status
        )
    return Report(
        FORMAT, framework.id, framework.title, framework.note, now.site, now.policy, version, when(now.now_ns),
        now.size, level, dict(coverage(found)), rows, clocks, changed, when(earlier.now_ns) if earlier else "",
        now.unknown,
    )  # fmt: skip


def as_json(report: Report) -> Mapping[str, Any]:
    """Plain data."""
    found: Mapping[str, Any] = msgspec.to_builtins(report)
    return found


COLUMNS = (
    "framework", "control", "says", "status", "why", "age", "entry", "by", "rest", "checks", "left out", "level",
    "compare", "file",
)  # fmt: skip


def as_csv(report: Report) -> str:
    """A row for each control, for an auditor's request sheet; safe for a spreadsheet. `file`: where a pack has it."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for row in report.rows:
        one = row.control
        table.writerow(
            [
                for_spreadsheet(text)
                for text in (
                    report.framework, one.id, one.says, one.status, one.why,
                    spoken(one.age) if one.age >= 0 else "", str(one.index) if one.index >= 0 else "", one.by, one.rest,
                    " ".join(one.checks), " ".join(one.left_out), str(row.level or ""), "yes" if row.compare else "",
                    " ".join(f"entries/{check.index}.json" for check in row.checks if check.index >= 0),
                )
            ]
        )  # fmt: skip
    return out.getvalue()


def for_spreadsheet(text: str) -> str:
    """A cell's text, which none takes for a formula."""
    return no_formula(escaped(text))


# --- HTML -------------------------------------------------------------------------------------------------------


def as_html(report: Report) -> str:
    """One page: summary, controls, what is not covered, clocks, what the words mean."""
    esc = _esc
    legend = "".join(f"<dt>{_badge(name)}</dt><dd>{esc(says)}</dd>" for name, says in MEANINGS.items())
    counts = "".join(
        f"<td>{_badge(name)}<br><b>{report.coverage[name]}</b></td>"
        for name in (*STATUSES, "coming") if report.coverage.get(name)
    )  # fmt: skip
    level = f", security level {report.level}" if report.level else ""
    facts = {
        "Site": report.site, "Policy in force": report.policy or "not known: the gate was not asked",
        "Made": report.made, "Log": f"{report.entries:,} entries", "Cofferdam": report.version,
    }  # fmt: skip
    if report.unknown:
        facts["Not shown"] = unknown(report.unknown)
    table = "".join(f"<tr><th>{esc(name)}</th><td>{esc(value)}</td></tr>" for name, value in facts.items())
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{esc(report.title)}: {esc(report.site)}"
        "</title><meta name='viewport' content='width=device-width'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style></head><body><h1>{esc(report.title)}{esc(level)}</h1><p class='note'>"
        f"{esc(report.note)}</p><p>{esc(HEDGE)}</p><table class='facts'>{table}</table>"
        f"<h2>Controls by status</h2><table class='counts'><tr>{counts}</tr></table>"
        f"{_changes(report)}<h2>Controls</h2>{_rows(report)}<h2>Not covered</h2>{_uncovered(report)}"
        f"{_clocks(report)}<h2>What the words mean</h2><dl>{legend}</dl></body></html>\n"
    )


def unknown(names: Sequence[str]) -> str:
    """A sentence on checks that only another version knows."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    said = f"{', '.join(names[:NAMED])}{more}"
    return f"results of checks that this version does not know, which another has written: {said}"


def _esc(text: str) -> str:
    """For a page: no markup, and nothing that turns the reading direction or cannot be seen."""
    return html.escape(escaped(text))


def _badge(status: str) -> str:
    word = html.escape(status)
    return f"<span class='s {word.replace(' ', '-')}'><span aria-hidden='true'>{MARKS[status]}</span> {word}</span>"


def _rows(report: Report) -> str:
    esc = _esc
    lines = ["<table class='controls'><thead><tr><th>Control</th><th>Asks for</th><th>Status</th><th>Evidence</th>"
             "</tr></thead><tbody>"]  # fmt: skip
    for row in report.rows:
        one = row.control
        age = f"<div class='age'>{spoken(one.age)} old</div>" if one.age >= 0 else ""
        rest = f"<div class='rest'>The operator shows: {esc(one.rest)}</div>" if one.rest else ""
        compare = "<div class='age'>text from secondary sources</div>" if row.compare else ""
        level = f"<div class='age'>from level {row.level}</div>" if row.level else ""
        evidence = "".join(map(_check, row.checks)) or esc(one.why)
        related = f"<div class='age'>also serves {esc(', '.join(row.related[:8]))}</div>" if row.related else ""
        lines.append(
            f"<tr><td class='id'>{esc(one.id)}{level}{compare}</td><td>{esc(one.says)}{rest}</td>"
            f"<td>{_badge(one.status)}{age}</td><td>{evidence}{related}</td></tr>"
        )
    return "".join(lines) + "</tbody></table>"


def _check(check: CheckState) -> str:
    esc = _esc
    entry = f" <span class='entry'>entry {check.index}</span>" if check.index >= 0 else ""
    age = f", {spoken(check.age)} old" if check.age >= 0 else ""
    facts = "".join(f"<li>{esc(fact)}</li>" for fact in check.facts)
    more = f"<ul>{facts}</ul>" if facts else ""
    left = "left out: " if not check.counts else ""
    word = "" if not check.counts else f"{_badge(check.status)} "
    return f"<div class='check'>{word}<b>{esc(check.id)}</b>: {left}{esc(check.says)}{age}{entry}{more}</div>"


def _uncovered(report: Report) -> str:
    esc = _esc
    rows = [row.control for row in report.rows if row.control.status == "not covered"]
    if not rows:
        return "<p>Every control of this report has evidence of some kind.</p>"
    lines = "".join(f"<tr><td class='id'>{esc(one.id)}</td><td>{esc(one.says)}</td><td>{esc(one.why)}</td></tr>"
                    for one in rows)  # fmt: skip
    return (
        f"<table class='controls'><thead><tr><th>Control</th><th>Asks for</th><th>Why</th></tr></thead>{lines}</table>"
    )


def _changes(report: Report) -> str:
    if not report.since:
        return ""
    esc = _esc
    lines = "".join(
        f"<tr><td class='id'>{esc(one.control)}</td><td>{_badge(one.before)}</td><td>{_badge(one.now)}</td></tr>"
        for one in report.changed
    )
    head = "<thead><tr><th>Control</th><th>Was</th><th>Is</th></tr></thead>"
    body = f"<table class='controls'>{head}{lines}</table>" if lines else "<p>No control has another status.</p>"
    return f"<h2>Changed since {esc(report.since)}</h2>{body}"


def _clocks(report: Report) -> str:
    if not report.clocks:
        return ""
    esc = _esc
    lines = "".join(
        f"<tr><td class='id'>{esc(one.clock)}</td><td>{esc(one.state)}</td><td>{esc(one.last or 'never')}</td>"
        f"<td>{esc(one.due)}</td><td>{f'{one.late} of {one.times}' if one.times else ''}</td>"
        f"<td>{esc(one.done)}</td></tr>"
        for one in report.clocks
    )
    head = (
        "<thead><tr><th>Clock</th><th>State</th><th>Last</th><th>Due</th><th>Late</th><th>What sets it anew</th></tr>"
        "</thead>"
    )
    return f"<h2>Clocks</h2><table class='controls'>{head}{lines}</table>"


_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f23}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin:2rem 0 .6rem;break-after:avoid}
.note,.age,.entry{color:#57606a;font-size:.86em}.rest{margin-top:.25rem;font-style:italic}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #d0d7de;padding:.35rem .55rem;text-align:left;
vertical-align:top}thead th{border-top:0;border-bottom:2px solid #57606a}.facts th{width:11rem;font-weight:600}
.facts td{overflow-wrap:anywhere}.id{white-space:nowrap;font-weight:600}.counts{width:auto}.counts td{text-align:center;
border:0;padding:.2rem 1rem .2rem 0}.check{margin-bottom:.3rem}ul{margin:.15rem 0 .3rem;padding-left:1.1rem}
li{font-size:.88em;overflow-wrap:anywhere}tr{break-inside:avoid}
.s{white-space:nowrap;border:1px solid;border-radius:3px;padding:0 .35em;font-weight:600}
.proved,.tested,.observed{color:#116329}.attested{color:#0550ae}.stale{color:#7d4e00}.not-covered,.coming{color:#57606a}
.failed{color:#fff;background:#a40e26}dt{margin-top:.3rem}dd{margin:0 0 0 1.5rem}
@media print{body{margin:0;max-width:none;font-size:10.5px}.s{color:#000;background:#fff;border-color:#000}
.failed{border-width:2px}h2{margin-top:1.2rem}thead{display:table-header-group}}
"""
