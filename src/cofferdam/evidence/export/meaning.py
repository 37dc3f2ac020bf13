"""What each kind of entry is to a collector: how severe, of which class, and who did what to whom. PURE.

A kind that is not listed is an event of the gate's application, severity informational: a new broker's events arrive
without a line here, and get one for better words.

Not here: the forms (forms, ocsf).
"""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple

from cofferdam.audit.entry import Entry

INFO, LOW, MEDIUM, HIGH, CRITICAL = 1, 2, 3, 4, 5
"""OCSF's severities."""
NETWORK, DATASTORE, DETECTION, FINDING = "network", "datastore", "detection", "finding"
CONFIG, APP, LOG, ACCESS, ACCOUNT = "config", "app", "log", "access", "account"


class Class(NamedTuple):
    """A kind's class, the activity within it (OCSF), the severity, the outcome in a word."""

    family: str
    activity: int
    severity: int
    outcome: str = "success"


KINDS: dict[str, Class] = {
    "session-opened": Class(NETWORK, 1, INFO),
    "session-closed": Class(NETWORK, 2, INFO),
    "write-allowed": Class(NETWORK, 6, LOW),
    "write-outcome": Class(NETWORK, 6, INFO),
    "reads-counted": Class(NETWORK, 6, INFO),
    "stream-ended": Class(NETWORK, 2, INFO),
    "refused": Class(NETWORK, 5, MEDIUM, "failure"),
    "refused-many": Class(NETWORK, 5, MEDIUM, "failure"),
    "packets-dropped": Class(NETWORK, 5, LOW, "failure"),
    "malformed": Class(DETECTION, 1, MEDIUM, "failure"),
    "limit-hit": Class(DETECTION, 1, MEDIUM, "failure"),
    "record-violation": Class(DETECTION, 1, CRITICAL, "failure"),
    "leak-found": Class(DETECTION, 1, CRITICAL, "failure"),
    "alarm": Class(DETECTION, 1, HIGH, "failure"),
    "leak-probe-set": Class(CONFIG, 1, LOW),
    "policy-loaded": Class(CONFIG, 1, MEDIUM),
    "policy-refused": Class(CONFIG, 1, MEDIUM, "failure"),
    "baseline-taken": Class(CONFIG, 1, LOW),
    "peer-added": Class(ACCESS, 1, MEDIUM),
    "peer-revoked": Class(ACCESS, 2, MEDIUM),
    "signer-added": Class(ACCESS, 1, MEDIUM),
    "signer-removed": Class(ACCESS, 2, MEDIUM),
    "keys-set": Class(ACCOUNT, 1, LOW),
    "gate-started": Class(APP, 3, LOW),
    "gate-stopped": Class(APP, 4, MEDIUM),
    "half-started": Class(APP, 3, INFO),
    "half-died": Class(APP, 4, HIGH, "failure"),
    "severed": Class(APP, 6, HIGH),
    "restored": Class(APP, 5, HIGH),
    "proof-done": Class(FINDING, 1, INFO),
    "check-done": Class(FINDING, 1, INFO),
    "attestation-made": Class(FINDING, 1, INFO),
    "attestation-withdrawn": Class(FINDING, 3, LOW),
    "drill-done": Class(FINDING, 1, INFO),
    "night-done": Class(FINDING, 1, INFO),
    "pack-made": Class(FINDING, 1, INFO),
    "log-opened": Class(LOG, 6, INFO),
    "torn-tail": Class(LOG, 99, MEDIUM, "failure"),
    "clock-jump": Class(LOG, 99, MEDIUM, "failure"),
    "export-stood": Class(LOG, 3, INFO),
    "messages-pushed": Class(DATASTORE, 5, INFO),
    "messages-leased": Class(DATASTORE, 1, INFO),
    "messages-settled": Class(DATASTORE, 2, INFO),
    "messages-browsed": Class(DATASTORE, 1, INFO),
    "messages-dead": Class(DATASTORE, 2, MEDIUM, "failure"),
    "messages-removed": Class(DATASTORE, 6, LOW),
    "message-refused": Class(DATASTORE, 5, MEDIUM, "failure"),
    "message-quarantined": Class(DETECTION, 1, MEDIUM, "failure"),
    "store-failed": Class(DETECTION, 1, HIGH, "failure"),
}
OTHER = Class(APP, 99, INFO)
_ECS = {
    NETWORK: ("network", "connection"), DATASTORE: ("database", "access"), DETECTION: ("intrusion_detection", "info"),
    FINDING: ("configuration", "info"), CONFIG: ("configuration", "change"), APP: ("process", "info"),
    LOG: ("process", "info"), ACCESS: ("iam", "change"), ACCOUNT: ("iam", "user"),
}  # fmt: skip


class Meaning(NamedTuple):
    """One entry's. Texts are "" where the entry says none."""

    family: str
    activity: int
    severity: int
    outcome: str
    source: str
    source_is_ip: bool
    source_port: int
    asset: str
    user: str
    rule: str

    @property
    def ecs(self) -> tuple[str, str]:
        """Category and type of the Elastic Common Schema."""
        return _ECS[self.family]


def meaning(entry: Entry) -> Meaning:
    """What an entry is."""
    get = entry.event.get  # an exporter does this for every entry of the log
    kind = get("kind", "")
    family, activity, severity, outcome = KINDS.get(kind, OTHER)
    if get("cleared") or (kind == "half-died" and get("expected")):
        severity, outcome = INFO, "success"
    if get("outcome") == "failed" or get("result") == "failed" or get("working") is False:
        severity, outcome = HIGH, "failure"
    if kind == "write-outcome" and get("outcome") != "done":
        severity, outcome = MEDIUM, "failure"
    source = str(get("source") or "")
    port = get("source_port")
    principals = get("principals")
    if isinstance(principals, list) and principals:
        user = ", ".join(map(str, principals))
    else:
        user = str(get("by") or get("person") or get("principal") or get("name") or "")
    asset = str(get("asset") or get("half") or get("channel") or get("side") or get("check") or "")
    rule = str(get("rule") or get("conduit") or "")
    return _made(
        Meaning,
        (family, activity, severity, outcome, source, _is_ip(source), port if isinstance(port, int) else 0, asset,
         user, rule),
    )  # fmt: skip


_made = tuple.__new__
"""Past the function that a named tuple's class has for it: an exporter makes one for each entry."""


@functools.lru_cache(1024)
def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
