"""A report as a terminal shows it, as one HTML page that needs nothing else, and as bytes to hash and sign."""

from __future__ import annotations

import html
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from cofferdam.proof.statements import PARTS, STATUSES, Report, Statement

_COLOURS = {"proved": "green", "tested": "green", "observed": "green", "assumed": "yellow", "failed": "bold red"}
_MARKS = {"proved": "+", "tested": "+", "observed": "+", "assumed": "?", "failed": "x"}


def canonical(report: Report) -> bytes:
    """The bytes that the hash is of: JSON with sorted names and without spaces."""
    plain = msgspec.to_builtins(report)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(report: Report) -> str:
    """SHA-256 of the canonical bytes, in hex."""
    return sha256(canonical(report)).hexdigest()


def note_text(report: Report) -> str:
    """What is signed, as the text of a signed note (C2SP)."""
    result = "nothing failed" if report.ok else "failed"
    return f"cofferdam proof of {report.site}\n{digest(report)}\n{when(report.finished_ns)}\n{result}\n"


def when(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(report: Report, note: str) -> str:
    """The report, its hash and the signed note that names it."""
    plain: dict[str, Any] = {"report": msgspec.to_builtins(report), "sha256": digest(report), "note": note}
    return json.dumps(plain, indent=1, ensure_ascii=False)


def summary(report: Report) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in report.counts.items() if count)
    return f"{len(report.statements)} statements: {counts}"


def as_text(report: Report, *, verbose: bool = False) -> list[tuple[str, str]]:
    """Lines with the style that rich gives them. Evidence is shown of what failed or is assumed, or of all."""
    lines = [(f"{report.site} on {report.host}, policy {report.policy[:12]}, {when(report.finished_ns)}", "bold")]
    for part, title in PARTS.items():
        here = [statement for statement in report.statements if statement.part == part]
        if here:
            lines.append((title, "bold"))
        for statement in here:
            colour = _COLOURS[statement.status]
            lines.append(
                (f"  {_MARKS[statement.status]} {statement.status:8} {statement.name}: {statement.says}", colour)
            )
            if verbose or statement.status == "failed":
                lines += [(f"             {line}", "" if statement.status != "failed" else "red")
                          for line in statement.evidence]  # fmt: skip
    verdict = "nothing failed" if report.ok else "SOMETHING FAILED"
    lines.append((f"{verdict}: {summary(report)}", "green" if report.ok else "bold red"))
    return lines


def as_html(report: Report, note: str) -> str:
    """One page without scripts, pictures or links to elsewhere."""
    escape = html.escape
    head = f"Proof of {escape(report.site)}"
    verdict = "Nothing failed" if report.ok else "Something failed"
    shade = "proved" if report.ok else "failed"
    rows = []
    for part, title in PARTS.items():
        here = [statement for statement in report.statements if statement.part == part]
        if here:
            rows.append(f"<h2>{escape(title)}</h2><table>{''.join(map(_row, here))}</table>")
    legend = "".join(f"<dt class='{name}'>{name}</dt><dd>{escape(says)}</dd>" for name, says in STATUSES.items())
    facts = {
        "Host": report.host, "Policy": report.policy, "Separation": report.separation,
        "From": when(report.started_ns), "To": when(report.finished_ns), "Cofferdam": report.version,
        "SHA-256": digest(report), "Statements": summary(report),
    }  # fmt: skip
    table = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{head}</title>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style></head><body><h1>{head}</h1><p class='{shade}'>{verdict}."
        f"</p><table class='facts'>{table}</table>{''.join(rows)}<h2>What the words mean</h2><dl>{legend}</dl>"
        f"<h2>Signed note</h2><pre>{escape(note) or 'not signed'}</pre></body></html>\n"
    )


def _row(statement: Statement) -> str:
    evidence = "".join(f"<li>{html.escape(line)}</li>" for line in statement.evidence)
    more = f"<details><summary>evidence</summary><ul>{evidence}</ul></details>" if evidence else ""
    return (
        f"<tr><td class='{statement.status}'>{statement.status}</td><td>{html.escape(statement.name)}</td>"
        f"<td>{html.escape(statement.says)}{more}</td><td>{when(statement.time_ns)}</td></tr>"
    )


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f23}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #d8dee4;padding:.35rem .6rem;text-align:left;
vertical-align:top}th{width:9rem;font-weight:600}.proved,.tested,.observed{color:#116329}.assumed{color:#7d4e00}
.failed{color:#a40e26;font-weight:700}pre,li{font:13px/1.4 ui-monospace,monospace;white-space:pre-wrap;
overflow-wrap:anywhere}dt{font-weight:600}h2{margin-top:2rem;font-size:1.15rem}
"""
