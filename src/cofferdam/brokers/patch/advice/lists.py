"""Vendors' lists of patches as CSV, in the manner of IEC TR 62443-2-3: a line for a patch and a product that it is for.

    id,title,vendor,product,versions,patch,released,state,severity,cve
    KB5031364,Cumulative update,Siemens,WinCC,<8.0.3,KB5031364,2026-10-10,approved,high,CVE-2026-1;CVE-2026-2

`id`, `vendor`, `product` and `versions` must be there; `versions` is a version, a range (`<8.0.3`, `vers:intdot/...`)
or `*`. `state` is the vendor's: available, in-test, not-approved, not-applicable, approved. Lines of one id are one
patch for several products.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Final, get_args

from cofferdam.audit.events.base import clip
from cofferdam.brokers.patch.advice.csaf import moment
from cofferdam.brokers.patch.advice.matching import NotRead, Stated, identity, matches
from cofferdam.brokers.patch.advice.records import ADVICE_MOST, Advice, VendorState
from cofferdam.policy.terms.patch_rows import Software

LINES_MOST: Final = 50_000
MUST: Final = ("id", "vendor", "product", "versions")
KNOWN: Final = (*MUST, "title", "patch", "released", "state", "severity", "cve")


def read(data: bytes, inventory: tuple[Software, ...]) -> tuple[Advice, ...]:
    """Raises: NotRead."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotRead(f"the list is no UTF-8: byte {error.start}") from None
    csv.field_size_limit(10_000)
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = rows.fieldnames or ()
        for name in MUST:
            if name not in names:
                raise NotRead(f"the list has no column {name!r}")
        for name in names:
            if name not in KNOWN:
                raise NotRead(f"the list has a column {str(name)[:40]!r}, which is none of {', '.join(KNOWN)}")
        if len(set(names)) != len(names):
            raise NotRead("the list has a column twice")
        lines: list[tuple[int, dict[str, str]]] = []
        for row in rows:
            if len(lines) >= LINES_MOST:
                raise NotRead(f"the list has more than {LINES_MOST} lines")
            if None in row or None in row.values():
                raise NotRead(f"line {rows.line_num} has another number of fields than the first")
            lines.append((rows.line_num, {name: value.strip() for name, value in row.items()}))
    except csv.Error as error:
        raise NotRead(f"the list is no CSV: {error}") from None
    patches: dict[str, list[dict[str, Any]]] = {}
    for number, row in lines:
        if not all(row[name] for name in MUST):
            raise NotRead(f"line {number} lacks one of {', '.join(MUST)}")
        if row.get("state", "") not in get_args(VendorState):
            raise NotRead(f"line {number} has the state {row['state'][:40]!r}: it is one of "
                          f"{', '.join(filter(None, get_args(VendorState)))}")  # fmt: skip
        patches.setdefault(identity(row["id"]), []).append(row)
    if len(patches) > ADVICE_MOST:
        raise NotRead(f"the list has more than {ADVICE_MOST} patches")
    return tuple(_advice(name, rows, inventory) for name, rows in patches.items())


def _advice(name: str, rows: list[dict[str, Any]], inventory: tuple[Software, ...]) -> Advice:
    first = rows[0]
    statements = [
        Stated(
            row["vendor"], (row["product"],), row["versions"],
            "not affected" if row.get("state") == "not-applicable" else "affected",
            ranged=row["versions"] == "*" or row["versions"][0] in "<>=v",
        )
        for row in rows
    ]  # fmt: skip
    cves = tuple(cve.strip()[:64] for row in rows for cve in row.get("cve", "").split(";") if cve.strip())
    states = {row.get("state", "") for row in rows}
    vendor: Any = states.pop() if len(states) == 1 else ""
    released = first.get("released", "")
    return Advice(
        id=name, title=clip(first.get("title", ""), 300), revision=released[:64],
        released=moment(released) if released else 0, severity=clip(first.get("severity", ""), 64),
        vulnerabilities=tuple(dict.fromkeys(cves))[:32], patch=clip(first.get("patch", ""), 300), vendor=vendor,
        matches=matches(statements, inventory),
    )  # fmt: skip
