"""A report as OSCAL assessment results (NIST, version 1.1.2), as far as the format can say it.

What it cannot say, said openly: there is no assessment plan, and `import-ap` is required, so it points at a resource
that says so. A finding is satisfied or not-satisfied and nothing between: the real status stands in a property of our
namespace; stale and not covered are not-satisfied; a control of which the gate carries a part is never satisfied by
this document. Values of properties are one line and not empty. UUIDs follow from what they name (version 5), so the
same log gives the same document.

Not here: catalogues of the frameworks (their public ones, or `catalogue` below for those that have none).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime, timedelta
from typing import Any

from cofferdam.evidence.model import Framework
from cofferdam.evidence.reports import HEDGE, Report, Row
from cofferdam.evidence.standing import CheckState

OSCAL_VERSION = "1.1.2"
NAMESPACE = "https://cofferdam.example/ns/oscal"
"""Of our properties."""
_ROOT = uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE)
METHODS = {"proved": "TEST", "tested": "TEST", "observed": "EXAMINE", "attested": "INTERVIEW", "failed": "TEST",
           "stale": "EXAMINE"}  # fmt: skip
SATISFIED = ("proved", "tested", "observed", "attested")
LINE = 1000


def ident(*parts: object) -> str:
    """A UUID that follows from what it names."""
    return str(uuid.uuid5(_ROOT, "\x00".join(map(str, parts))))


def token(text: str) -> str:
    """A name as OSCAL takes it: begins with a letter, then letters, digits, dots, dashes, underscores. One that loses
    more than spaces by it has something of its own at its end, so that two do not become one."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower()
    if re.search(r"[^A-Za-z0-9._ -]", text):
        made = f"{made}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")
    return made if made[:1].isalpha() else f"c-{made}" if made else "c"


def line(text: str) -> str:
    """A value in one line, never empty."""
    made = " ".join(text.split())
    return (made[: LINE - 1] + "…" if len(made) > LINE else made) or "-"


def prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "ns": NAMESPACE, "value": line(value)}


def assessment_results(report: Report) -> dict[str, Any]:
    """The whole document."""
    key = (report.framework, report.site, report.entries, report.made)
    observed: dict[str, CheckState] = {}
    for row in report.rows:
        observed |= {check.id: check for check in row.checks if check.counts and check.status in METHODS}
    plan = ident(*key, "plan")
    subject = ident(report.site)
    result: dict[str, Any] = {
        "uuid": ident(*key, "result"),
        "title": line(f"{report.title} at {report.site}"),
        "description": HEDGE,
        "start": report.made,
        "props": [prop("entries", str(report.entries)), prop("policy", report.policy or "unknown")],
        "local-definitions": {
            "components": [
                {"uuid": subject, "type": "system", "title": line(report.site),
                 "description": "The gate of this site, whose audit log this follows from.",
                 "status": {"state": "operational"}}
            ]
        },
        "reviewed-controls": {
            "control-selections": [
                {"include-controls": [{"control-id": token(row.control.id)} for row in report.rows]}
                if report.rows else {"include-all": {}}
            ]
        },
    }  # fmt: skip
    observations = [_observation(report, check, subject) for check in observed.values()]
    if observations:
        result["observations"] = observations
    findings = [_finding(report, row, observed) for row in report.rows]
    if findings:
        result["findings"] = findings
    return {
        "assessment-results": {
            "uuid": ident(*key),
            "metadata": {
                "title": line(f"What the gate of {report.site} shows for {report.title}"),
                "last-modified": report.made,
                "version": line(report.version),
                "oscal-version": OSCAL_VERSION,
                "remarks": HEDGE,
            },
            "import-ap": {"href": f"#{plan}"},
            "results": [result],
            "back-matter": {
                "resources": [
                    {"uuid": plan, "title": "No assessment plan",
                     "description": "The gate runs its checks by itself, by its catalogue; nobody planned this "
                     "assessment. The format requires a reference."},
                ]
            },
        }
    }  # fmt: skip


def _observation(report: Report, check: CheckState, subject: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "uuid": ident(report.site, check.id, check.index),
        "title": line(check.id),
        "description": "\n".join((check.says, *check.facts)).strip() or "-",
        "props": [prop("status", check.status), prop("check", check.id)],
        "methods": [METHODS[check.status]],
        "subjects": [{"subject-uuid": subject, "type": "component"}],
        "collected": report.made,
    }
    if check.index >= 0:
        made["props"].append(prop("log-index", str(check.index)))
        made["relevant-evidence"] = [
            {"href": f"entries/{check.index}.json", "description": f"Entry {check.index} of the audit log, with its "
             "proof of inclusion."},
        ]  # fmt: skip
    if check.age >= 0:
        made["collected"] = _shift(report.made, -check.age)
        made["expires"] = _shift(report.made, check.ends)
    return made


def _finding(report: Report, row: Row, observed: dict[str, CheckState]) -> dict[str, Any]:
    one = row.control
    satisfied = one.status in SATISFIED and one.by != "part"
    reason = "pass" if satisfied else "fail" if one.status == "failed" else "other"
    made: dict[str, Any] = {
        "uuid": ident(report.site, report.framework, one.id, report.entries),
        "title": line(f"{one.id}: {one.says}"),
        "description": (one.why.strip() or one.says.strip() or "-"),
        "props": [prop("status", one.status), prop("by", one.by)],
        "target": {
            "type": "statement-id",
            "target-id": f"{token(one.id)}_smt",
            "status": {"state": "satisfied" if satisfied else "not-satisfied", "reason": reason},
        },
    }
    if one.rest:
        made["props"].append(prop("rest", one.rest))
        made["remarks"] = f"The gate carries a part of this control. The operator shows: {one.rest}"
    related = [observed[check.id] for check in row.checks if check.id in observed]
    if related:
        made["related-observations"] = [
            {"observation-uuid": ident(report.site, check.id, check.index)} for check in related
        ]
    return made


def _shift(when: str, by: int) -> str:
    moment = datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z") + timedelta(seconds=by)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def catalog(framework: Framework, made: str) -> dict[str, Any]:
    """A catalogue of ids and our paraphrases, for a framework that has no public one."""
    return {
        "catalog": {
            "uuid": ident("catalog", framework.id),
            "metadata": {
                "title": line(framework.title), "last-modified": made, "version": "1",
                "oscal-version": OSCAL_VERSION,
                "remarks": "Ids with paraphrases of our own, made to find a control in the standard; not its text.",
            },
            "controls": [
                {
                    "id": token(one.id), "title": line(one.id),
                    "parts": [{"id": f"{token(one.id)}_smt", "name": "statement", "prose": one.says}],
                }
                for one in framework.controls.values()
            ],
        }
    }  # fmt: skip
