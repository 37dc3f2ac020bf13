"""The forms of an entry: our own JSON, ECS 8 and CEF 0, and the syslog message around each. PURE.

- `json`: the entry's own bytes, which are canonical JSON in one line.
- `ocsf`: module `ocsf`.
- `ecs`: Elastic Common Schema 8, with the entry under `cofferdam`.
- `cef`: ArcSight's Common Event Format 0.

Escapes: in structured data of RFC 5424 (6.3.3) `"`, `\\` and `]`; in a CEF head `\\` and `|`, in its extension `\\`,
`=` and line ends. Our JSON has no raw control character.

Not here: sending (ways).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cofferdam.audit.entry import Entry, decode_entry
from cofferdam.audit.events.lines import members
from cofferdam.audit.lines import LINES
from cofferdam.errors import AuditError
from cofferdam.evidence.export import ocsf
from cofferdam.evidence.export.meaning import Meaning, meaning

FACILITY = 13
"""Log audit (RFC 5424, 6.2.1)."""
SYSLOG_SEVERITY = {0: 6, 1: 6, 2: 5, 3: 4, 4: 3, 5: 2}
"""OCSF's severity to syslog's: info, notice, warning, error, critical."""
CEF_SEVERITY = {0: 1, 1: 1, 2: 3, 3: 5, 4: 7, 5: 9}
ENTERPRISE = 32473
"""The private enterprise number that RFC 5612 keeps for examples; a site that has one sets its own."""
NAMES = 1024
"""Sites, kinds and makers whose spelling is remembered."""
LINE = 1023
"""Letters of a sentence in CEF and ECS."""


class Item(msgspec.Struct, frozen=True):
    """One entry to be sent. `data` are its bytes, `what` is what it is to a collector."""

    index: int
    data: bytes
    entry: Entry
    what: Meaning


Form = Callable[[Item], bytes]


def item(index: int, data: bytes) -> Item:
    """Raises: AuditError."""
    entry = decode_entry(data)
    if type(entry.event.get("kind")) is not str:
        raise AuditError("an entry whose event is of no kind")
    return Item(index, data, entry, meaning(entry))


def sentence(entry: Entry) -> str:
    """What happened, in one line."""
    event = entry.event
    try:
        text = LINES.get(event.get("kind", ""), members)(event)
    except (KeyError, ValueError, TypeError, AttributeError):  # an entry of another version
        text = members(event)
    if not text.isprintable() or "  " in text or text[:1] == " " or text[-1:] == " ":
        text = " ".join(text.split())
    return text[:LINE]


def as_json(one: Item) -> bytes:
    """The entry itself."""
    return one.data


def as_ocsf(one: Item) -> bytes:
    """OCSF 1.3."""
    words = sentence(one.entry)
    try:
        made = ocsf.encoded(one.entry, one.what, words, one.data)
    except UnicodeEncodeError:
        made = None
    return made if made is not None else _dumps(ocsf.event(one.entry, one.what, words))


def as_ecs(one: Item) -> bytes:
    """ECS 8."""
    entry, event, what = one.entry, one.entry.event, one.what
    category, kind = what.ecs
    said: dict[str, Any] = {
        "@timestamp": _millis(entry.time),
        "ecs": {"version": "8.11.0"},
        "message": sentence(entry),
        "event": {
            "kind": "alert" if what.severity >= 4 else "event", "category": [category],
            "type": [kind], "action": entry.kind, "outcome": what.outcome, "severity": what.severity,
            "sequence": one.index, "dataset": "cofferdam.audit", "module": "cofferdam",
            "id": f"{entry.site}-{one.index}",
        },
        "observer": {"vendor": "Cofferdam", "product": "Cofferdam", "type": "firewall", "name": entry.site},
        "cofferdam": {"index": one.index, "maker": entry.maker, "policy": entry.policy, "site": entry.site,
                      "event": event},
    }  # fmt: skip
    if what.source:
        said["source"] = {"address": what.source} | ({"ip": what.source} if what.source_is_ip else {})
    if what.asset:
        said["destination"] = {"address": what.asset}
    if what.user:
        said["user"] = {"name": what.user}
    if what.rule:
        said["rule"] = {"name": what.rule}
    return _dumps(said)


def as_cef(one: Item, version: str = "0.1") -> bytes:
    """CEF 0."""
    entry, what = one.entry, one.what
    head = "|".join(_head(text) for text in ("Cofferdam", "Gate", version, entry.kind, entry.kind.replace("-", " ")))
    fields = {
        "rt": _millis(entry.time), "dvchost": entry.site, "cn1Label": "index", "cn1": str(one.index),
        "cs1Label": "maker", "cs1": entry.maker, "cs2Label": "policy", "cs2": entry.policy,
        "act": what.outcome, "msg": sentence(entry),
    }  # fmt: skip
    if what.source:
        fields |= {"src": what.source} if what.source_is_ip else {"shost": what.source}
    if what.user:
        fields["suser"] = what.user
    if what.asset:
        fields["dhost"] = what.asset
    if what.rule:
        fields |= {"cs3Label": "rule", "cs3": what.rule}
    body = " ".join(f"{name}={_extension(value)}" for name, value in fields.items())
    return f"CEF:0|{head}|{CEF_SEVERITY[what.severity]}|{body}".encode()


FORMS: dict[str, Form] = {"json": as_json, "ocsf": as_ocsf, "ecs": as_ecs, "cef": as_cef}


def _head(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _extension(text: str) -> str:
    return text.replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")


def _dumps(value: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, which no JSON in UTF-8 can say
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _millis(time: str) -> str:
    """The log's time with milliseconds, as most collectors want it."""
    main, _, fraction = time.rstrip("Z").partition(".")
    return f"{main}.{fraction[:3].ljust(3, '0')}Z"


# --- syslog -----------------------------------------------------------------------------------------------------


def syslog(one: Item, form: Form, enterprise: int = ENTERPRISE) -> bytes:
    """One message of RFC 5424. Time has six decimals, since more are not allowed (6.2.3)."""
    entry = one.entry
    before, middle, after = _around(one.what.severity, entry.site, entry.event["kind"], entry.maker, enterprise)
    time = entry.time
    if len(time) == 30:  # as the log writes it: nine decimals
        time = time[:26]
    else:
        main, _, fraction = time.rstrip("Z").partition(".")
        time = f"{main}.{fraction[:6].ljust(6, '0')}"
    return f"{before}{time}{middle}{one.index}{after}".encode() + form(one)


@functools.lru_cache(NAMES)
def _around(severity: int, site: str, kind: str, maker: str, enterprise: int) -> tuple[str, str, str]:
    """What stands before the time, between that and the index, and after it: the same for most entries."""
    priority = FACILITY * 8 + SYSLOG_SEVERITY[severity]
    host, message_id = _visible(site, 255), _visible(kind, 32)
    middle = f'Z {host} cofferdam - {message_id} [cofferdam@{enterprise} index="'
    return f"<{priority}>1 ", middle, f'" kind="{_param(kind)}" maker="{_param(maker)}"] '


def framed(message: bytes) -> bytes:
    """With its length before it (RFC 5425, 4.3.1)."""
    return b"%d %s" % (len(message), message)


def _visible(text: str, length: int) -> str:
    """Printable ASCII without spaces, or "-" (RFC 5424, 6)."""
    return re.sub(r"[^!-~]", "_", text)[:length] or "-"


def _param(text: str) -> str:
    made = "".join(f"\\{letter}" if letter in '"\\]' else letter for letter in text)
    return "".join(letter if letter.isprintable() else " " for letter in made)
