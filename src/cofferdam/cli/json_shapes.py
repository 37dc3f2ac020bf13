"""What commands print with --json that is made where it is printed, as types. What has a type of its own stands in
json_schemas, which makes the schemas of both.

Not here: verbs of the services (relay, patch, pki, mirror, jump, diode), whose objects are those of their pages.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class _Lack(TypedDict):
    hard: bool
    what: str
    way_out: str


class _Interface(TypedDict):
    interface: str
    taken: bool


class _Part(TypedDict):
    side: str
    listens: list[str]


class _Published(TypedDict):
    listens: list[str]
    device: list[str | int]


_Crew = TypedDict(
    "_Crew",
    {  # "from" is a word of Python's
        "name": str, "outer": str, "inner": str, "from": list[str], "broker": str, "conduits": list[str],
        "parts": dict[str, _Part], "assets": dict[str, _Published],
    },
)  # fmt: skip


class Up(TypedDict):
    """`up --check-only`. `lacks`: what a start would want; with a hard one it is not ready, and the exit code is 1."""

    policy: str
    site: str
    conduits: list[str]
    interfaces: dict[str, _Interface]
    pairs: list[_Crew]
    ready: bool
    lacks: list[_Lack]


class _Granted(TypedDict):
    conduit: str
    who: str
    what: str


class _Change(TypedDict):
    gained: list[Any]
    lost: list[Any]
    changed: list[Any]


class Reload(TypedDict):
    """`reload`: hashes of the policies, crews by name, and what differs (as in `diff`)."""

    policy: str
    previous: str
    path: str
    kept: list[str]
    restarted: list[str]
    started: list[str]
    stopped: list[str]
    troubles: list[str]
    difference: _Change


class Down(TypedDict):
    """`stopped`: a gate ran, and stopped; `cleared`: none ran, and the network of a killed one was put back."""

    stopped: bool
    cleared: bool


class Sever(TypedDict, total=False):
    """`sever`. Of a side: `side`; else `what` (zone, conduit, principal, asset, session) and `name`. `sessions`: how
    many ended; of a side, how many were open."""

    side: Literal["it", "ot"]
    what: str
    name: str
    sessions: int
    until_ns: int


class Restore(TypedDict):
    side: NotRequired[str]
    what: NotRequired[str]
    name: NotRequired[str]
    changed: bool


class Grant(TypedDict):
    """A grant, also one that waits for a second person (`agreed_by` is empty, and `until_ns` 0)."""

    number: int
    conduit: str
    by: str
    reason: str
    seconds: int
    asked_ns: int
    agreed_by: str
    until_ns: int


class GrantEnd(TypedDict):
    number: int
    changed: bool


class Metric(TypedDict):
    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: list[str]
    meaning: str


class Advice(TypedDict):
    site: str
    kind: str
    policy: str
    lines: list[str]


class Install(TypedDict):
    """`install`. With --print it is an object instead, of each file's text by its path."""

    written: list[str]


class OverlayAssign(TypedDict):
    record: str


class OverlayAddresses(TypedDict):
    assets: dict[str, list[str]]
    peers: dict[str, list[str]]


class OverlayRoute(TypedDict):
    zone: str
    network: str
    via: str
    by_neighbour: bool
    line: str


class OverlayPeer(TypedDict):
    """`overlay add-peer`: what is not in `output` is in `config`, with the peer's private key."""

    name: str
    key: str
    host: str
    port: int
    server_key: str
    addresses: list[str]
    networks: list[str]
    dns: list[str]
    domain: str
    keepalive: int
    config: NotRequired[str]
    output: NotRequired[str]


class _Peer(TypedDict):
    name: str
    key: str
    since_ns: int
    by: str
    addresses: list[str]
    in_policy: bool
    handshake: int
    received: int
    sent: int
    endpoint: str


class OverlayPeers(TypedDict):
    tunnel: str
    key: str
    peers: list[_Peer]
    domain: str
    names: dict[str, int] | None


class _Session(TypedDict):
    session: str
    asset: str
    source: str
    port: int
    principals: list[str]
    since_ns: int
    last_ns: int
    requests: int
    refused: int


class Whois(TypedDict):
    """`principals`: the zone of each that has the address; `near`: where none has, those with addresses beside it."""

    address: str
    near: list[str]
    sessions: list[_Session]
    principals: dict[str, str]
    may: list[_Granted]


class _AssetState(TypedDict):
    name: str
    state: str
    connections: int
    queued: int
    in_flight: int
    requests: int
    failures: int
    late: int
    detail: str


class Describe(TypedDict):
    """`state`: null with --policy, and where no half of a running gate has the asset."""

    asset: str
    zone: str
    address: str
    port: int
    protocol: str
    answers_at: list[str]
    state: _AssetState | None
    sessions: list[_Session]
    may: list[_Granted]


class Ping(TypedDict):
    """`asked`: the device was asked; `detail`: why it did not answer, or what it answered instead of a value."""

    asset: str
    crew: str
    address: str
    port: int
    clients_at: list[str]
    outer_ms: float
    inner_ms: float
    device_ms: float
    waited_ms: float
    asked: bool
    answered: bool
    what: str
    rule: str
    state: str
    detail: str


class Show(TypedDict):
    """`show`: the policy's rows; docs/policy-reference.md says what each means."""

    hash: str
    site: str
    zones: dict[str, Any]
    assets: dict[str, Any]
    principals: dict[str, Any]
    conduits: dict[str, Any]


class AuditVerify(TypedDict):
    good: bool
    log: str
    origin: str
    signed_entries: int
    entries: int
    checked: int
    root: str
    seconds: float
    findings: list[Any]
    further_findings: int
    witnesses: NotRequired[list[Any]]


class AuditChecked(TypedDict):
    """`audit prove --check`: of a proof that is not good, `problem` alone."""

    good: bool
    problem: NotRequired[str]
    kind: NotRequired[str]
    index: NotRequired[int | None]
    entry: NotRequired[str | None]
    size: NotRequired[int]
    root: NotRequired[str]
    origin: NotRequired[str]
    signed_entries: NotRequired[int]


class _Found(TypedDict):
    check: str
    outcome: str
    says: str
    subject: NotRequired[str]
    facts: NotRequired[list[str]]


class EvidenceRun(TypedDict):
    """`evidence run`. `recorded`: how many of them are new in the log."""

    recorded: int
    checks: list[_Found]


class _Standing(TypedDict):
    id: str
    status: str
    says: str
    facts: list[str]
    age: int
    ends: int
    index: int
    counts: bool
    subjects: list[Any]


class EvidenceShow(TypedDict):
    check: dict[str, Any]
    now: _Standing
    history: list[Any]
    controls: list[list[str]]


class EvidenceClock(TypedDict):
    clock: str
    state: str
    last: str
    due: str
    left_days: int
    late: int
    times: int
    done: str
    serves: list[str]
    entry: int
    history: list[Any]


class EvidenceReport(TypedDict):
    """`evidence report` (docs/evidence-format.md)."""

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
    rows: list[Any]
    clocks: list[Any]
    changed: list[Any]
    since: Any


class EvidencePack(TypedDict):
    pack: str
    sha256: str
    entries: int
    referred: int
    signed: bool
    recorded: bool
    missing: list[str]


class EvidenceNight(TypedDict):
    begins: bool


class Exporting(TypedDict):
    """`export status`. `next`: the entry that goes next; `behind`: how many wait."""

    collector: str
    to: str
    form: str
    next: int
    behind: int
    state: str


class Kept(TypedDict):
    kept: list[str]


class _Delivered(TypedDict):
    ok: bool
    detail: str


class TlsSide(TypedDict):
    """`tls`. `until` is empty where there is no certificate."""

    crew: str
    side: Literal["clients", "assets"]
    until: str
    good: bool


SHAPES: dict[str, Any] = {
    "tls": list[TlsSide],
    "up": Up,
    "reload": Reload,
    "down": Down,
    "sever": Sever,
    "restore": Restore,
    "grant ask": Grant,
    "grant agree": Grant,
    "grant list": list[Grant],
    "grant end": GrantEnd,
    "metrics": list[Metric],
    "advise switch": Advice,
    "install": Install,
    "overlay assign": OverlayAssign,
    "overlay addresses": OverlayAddresses,
    "overlay zone": dict[str, str] | list[str],
    "overlay routes": list[OverlayRoute],
    "overlay add-peer": OverlayPeer,
    "overlay peers": OverlayPeers,
    "whois": Whois,
    "describe": Describe,
    "ping": Ping,
    "show": Show,
    "audit verify": AuditVerify,
    "audit prove check": AuditChecked,
    "evidence run": EvidenceRun,
    "evidence list": list[_Standing],
    "evidence show": EvidenceShow,
    "evidence clocks": list[EvidenceClock],
    "evidence report": EvidenceReport,
    "evidence pack": EvidencePack,
    "evidence nightly": EvidenceNight,
    "evidence baseline": dict[str, Any],
    "evidence bom": dict[str, Any],
    "export test": dict[str, _Delivered],
    "export status": list[Exporting],
    "export secret": Kept,
}
"""By the words of the verb."""
