"""An entry as an event of OCSF 1.3 (Open Cybersecurity Schema Framework). PURE.

Base fields and what each class requires; the entry itself stands in `unmapped`. `metadata.uid` is the log's index and
`metadata.sequence` the same as a number, so a gap is seen.

Not here: which kind is of which class (meaning).
"""

from __future__ import annotations

import functools
from typing import Any

from cofferdam.audit.entry import Entry, parse_time
from cofferdam.evidence.export import meaning as m
from cofferdam.evidence.export.meaning import Meaning

VERSION = "1.3.0"
CLASSES = {
    m.NETWORK: (4, 4001), m.DATASTORE: (6, 6005), m.DETECTION: (2, 2004), m.FINDING: (2, 2003), m.CONFIG: (5, 5019),
    m.APP: (6, 6002), m.LOG: (1, 1008), m.ACCESS: (3, 3005), m.ACCOUNT: (3, 3001),
}  # fmt: skip
"""Category and class."""


def event(entry: Entry, what: Meaning, sentence: str) -> dict[str, Any]:
    """The event."""
    category, kind = CLASSES[what.family]
    said: dict[str, Any] = {
        "activity_id": what.activity,
        "category_uid": category,
        "class_uid": kind,
        "type_uid": kind * 100 + what.activity,
        "severity_id": what.severity,
        "status_id": 1 if what.outcome == "success" else 2,
        "time": _milliseconds(entry.time),
        "message": sentence,
        "metadata": {
            "version": VERSION, "uid": str(entry.index), "sequence": entry.index,
            "log_name": entry.site, "event_code": entry.kind,
            "product": {"name": "Cofferdam", "vendor_name": "Cofferdam"},
        },
        "unmapped": {"maker": entry.maker, "policy": entry.policy, "site": entry.site, "event": entry.event},
    }  # fmt: skip
    said |= _FAMILIES[what.family](entry, what)
    return said


def _milliseconds(time: str) -> int:
    """Since 1970. Raises: AuditError."""
    main, _, fraction = time.removesuffix("Z").partition(".")
    return _second(main) * 1000 + int(fraction[:3].ljust(3, "0"))


@functools.lru_cache(64)
def _second(main: str) -> int:
    return parse_time(f"{main}Z") // 1_000_000_000


def _source(what: Meaning) -> dict[str, Any]:
    made: dict[str, Any] = {"ip": what.source} if what.source_is_ip else {"name": what.source or "the gate"}
    return made | ({"port": what.source_port} if what.source_port else {})


def _network(entry: Entry, what: Meaning) -> dict[str, Any]:
    made: dict[str, Any] = {"dst_endpoint": {"name": what.asset or entry.site}, "src_endpoint": _source(what)}
    if what.user:
        made["actor"] = {"user": {"name": what.user}}
    if what.rule:
        made["firewall_rule"] = {"name": what.rule}
    return made


def _datastore(entry: Entry, what: Meaning) -> dict[str, Any]:
    actor = {"user": {"name": what.user}} if what.user else {"app_name": entry.maker or "gate"}
    return {"actor": actor, "src_endpoint": _source(what)}


def _detection(entry: Entry, what: Meaning) -> dict[str, Any]:
    return {"finding_info": _finding(entry), "is_alert": what.severity >= m.HIGH}


def _check(entry: Entry, what: Meaning) -> dict[str, Any]:
    good = what.outcome == "success"
    return {
        "finding_info": _finding(entry),
        "compliance": {"standards": ["catalogue of checks"], "control": what.asset or entry.kind,
                       "status_id": 1 if good else 3},
    }  # fmt: skip


def _finding(entry: Entry) -> dict[str, Any]:
    title = str(entry.event.get("name") or entry.event.get("check") or entry.kind)
    return {"title": title, "uid": f"{entry.site}-{entry.index}"}


def _config(entry: Entry, _: Meaning) -> dict[str, Any]:
    return {"device": {"type_id": 9, "type": "Firewall", "hostname": entry.site}}


def _app(_: Entry, what: Meaning) -> dict[str, Any]:
    return {"app": {"name": "cofferdam", "vendor_name": "Cofferdam", "uid": what.asset or "gate"}}


def _log(_: Entry, __: Meaning) -> dict[str, Any]:
    return {"log_name": "audit"}


def _access(entry: Entry, what: Meaning) -> dict[str, Any]:
    who = str(entry.event.get("person") or entry.event.get("name") or what.user or "unknown")
    return {"user": {"name": who}, "privileges": [entry.kind]}


_FAMILIES = {
    m.NETWORK: _network, m.DATASTORE: _datastore, m.DETECTION: _detection, m.FINDING: _check, m.CONFIG: _config,
    m.APP: _app, m.LOG: _log, m.ACCESS: _access, m.ACCOUNT: _access,
}  # fmt: skip
