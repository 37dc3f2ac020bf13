"""An entry as an event of OCSF 1.3 (Open Cybersecurity Schema Framework). PURE.

Base fields and what each class requires; the entry itself stands in `unmapped`. `metadata.uid` is the log's index and
`metadata.sequence` the same as a number, so a gap is seen.

Not here: which kind is of which class (meaning).
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from cofferdam.audit.entry import Entry, parse_time
from cofferdam.evidence.export import meaning as m
from cofferdam.evidence.export.meaning import Meaning

VERSION = "1.3.0"
CLASSES = {
    m.NETWORK: (4, 4001), m.DATASTORE: (6, 6005), m.DETECTION: (2, 2004), m.FINDING: (2, 2003), m.CONFIG: (5, 5019),
    m.APP: (6, 6002), m.LOG: (1, 1008), m.ACCESS: (3, 3005), m.ACCOUNT: (3, 3001),
}  # fmt: skip
"""Category and class."""


def encoded(entry: Entry, what: Meaning, sentence: str, data: bytes) -> bytes | None:
    """The event as JSON: the same as `event`, put together from pieces that most entries share, around the entry's own
    bytes `data`. None where these are not as the log writes them, or hold what no JSON in UTF-8 can say."""
    end = data.rfind(b',"index":')
    if data[:9] != b'{"event":' or end < 0 or b"\\u" in data:
        return None
    index, time = entry.index, entry.time
    before, after, last = _shared(what, entry.site, entry.event["kind"], entry.maker, entry.policy)
    if what.family in _OWN:
        last = b"}" + _members(_OWN[what.family](entry, what))
    second, millis = (_second(time[:19]), time[20:23]) if len(time) == 30 else divmod(_milliseconds(time), 1000)
    said = f'{before}{second}{millis:>03},"message":'
    numbers = f',"metadata":{{"uid":"{index}","sequence":{index}'
    return b"".join((said.encode(), _encode(sentence), numbers.encode(), after, data[9:end], last))


@functools.lru_cache(1024)
def _shared(what: Meaning, site: str, kind: str, maker: str, policy: str) -> tuple[str, bytes, bytes]:
    """What stands before the time, between the index and the entry's own event, and after that."""
    head = _encode(_head(*what[:4]))[:-1].decode()
    meta = _members(_metadata(site, kind))
    around = _members({"maker": maker, "policy": policy, "site": site})[1:-1]
    more = _members(_FAMILIES[what.family](site, maker, what)) if what.family in _FAMILIES else b""
    return f'{head},"time":', meta + b',"unmapped":{' + around + b',"event":', b"}" + more


def _members(said: dict[str, Any]) -> bytes:
    """An object with a comma for a brace at its beginning."""
    return b"," + _encode(said)[1:] if said else b"}"


_encode = msgspec.json.Encoder().encode


def event(entry: Entry, what: Meaning, sentence: str) -> dict[str, Any]:
    """The event."""
    own = _OWN.get(what.family)
    return _head(what.family, what.activity, what.severity, what.outcome) | {
        "time": _milliseconds(entry.time),
        "message": sentence,
        "metadata": {"uid": str(entry.index), "sequence": entry.index} | _metadata(entry.site, entry.kind),
        "unmapped": {"maker": entry.maker, "policy": entry.policy, "site": entry.site, "event": entry.event},
    } | (_FAMILIES[what.family](entry.site, entry.maker, what) if own is None else own(entry, what))  # fmt: skip


def _head(family: str, activity: int, severity: int, outcome: str) -> dict[str, Any]:
    category, kind = CLASSES[family]
    return {
        "activity_id": activity, "category_uid": category, "class_uid": kind, "type_uid": kind * 100 + activity,
        "severity_id": severity, "status_id": 1 if outcome == "success" else 2,
    }  # fmt: skip


def _metadata(site: str, kind: str) -> dict[str, Any]:
    product = {"name": "Cofferdam", "vendor_name": "Cofferdam"}
    return {"version": VERSION, "log_name": site, "event_code": kind, "product": product}


def _milliseconds(time: str) -> int:
    """Since 1970. Raises: AuditError."""
    if len(time) == 30:  # as the log writes it: nine decimals
        return _second(time[:19]) * 1000 + int(time[20:23])
    main, _, fraction = time.removesuffix("Z").partition(".")
    return _second(main) * 1000 + int(fraction[:3].ljust(3, "0"))


@functools.lru_cache(64)
def _second(main: str) -> int:
    return parse_time(f"{main}Z") // 1_000_000_000


def _source(what: Meaning) -> dict[str, Any]:
    made: dict[str, Any] = {"ip": what.source} if what.source_is_ip else {"name": what.source or "the gate"}
    return made | ({"port": what.source_port} if what.source_port else {})


def _network(site: str, _: str, what: Meaning) -> dict[str, Any]:
    made: dict[str, Any] = {"dst_endpoint": {"name": what.asset or site}, "src_endpoint": _source(what)}
    if what.user:
        made["actor"] = {"user": {"name": what.user}}
    if what.rule:
        made["firewall_rule"] = {"name": what.rule}
    return made


def _datastore(_: str, maker: str, what: Meaning) -> dict[str, Any]:
    actor = {"user": {"name": what.user}} if what.user else {"app_name": maker or "gate"}
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


def _config(site: str, _: str, __: Meaning) -> dict[str, Any]:
    return {"device": {"type_id": 9, "type": "Firewall", "hostname": site}}


def _app(_: str, __: str, what: Meaning) -> dict[str, Any]:
    return {"app": {"name": "cofferdam", "vendor_name": "Cofferdam", "uid": what.asset or "gate"}}


def _log(_: str, __: str, ___: Meaning) -> dict[str, Any]:
    return {"log_name": "audit"}


def _access(entry: Entry, what: Meaning) -> dict[str, Any]:
    who = str(entry.event.get("person") or entry.event.get("name") or what.user or "unknown")
    return {"user": {"name": who}, "privileges": [entry.kind]}


_FAMILIES = {m.NETWORK: _network, m.DATASTORE: _datastore, m.CONFIG: _config, m.APP: _app, m.LOG: _log}
"""What each class requires besides: of the site, the maker and what the entry means."""
_OWN = {m.DETECTION: _detection, m.FINDING: _check, m.ACCESS: _access, m.ACCOUNT: _access}
"""And of those where the entry's own words stand in it."""
