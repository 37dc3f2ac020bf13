"""What operators' verbs print with --json that has no type where it is made, as types; with those that have one, the
names by which the verbs say what they print (gate_options.add_json). Loaded to make schemas, and by the type checker.

Not here: what the services' parts answer (brokers.*.told), keys (keys), certificates of OPC UA (pki_sides).
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from cofferdam.audit.entry import Entry as Entry
from cofferdam.audit.proof import Consistency as Consistency
from cofferdam.audit.proof import Inclusion as Inclusion
from cofferdam.cli.up_ready import Lack
from cofferdam.evidence.clocks import Due as Due
from cofferdam.evidence.model import Check, Result
from cofferdam.evidence.reports import Report as Report
from cofferdam.evidence.standing import CheckState as CheckState
from cofferdam.evidence.witness_asking import Said
from cofferdam.gate.state import Granted
from cofferdam.gate.watch.report import AssetReport, SessionReport
from cofferdam.policy.difference import Difference as Changed
from cofferdam.policy.difference import Grant as May
from cofferdam.policy.difference import Setting
from cofferdam.policy.problems import Problem
from cofferdam.proof.statements import Report as Proof


class Refused(TypedDict):
    """What any verb prints where it fails, whatever else it would have printed: exit code 2."""

    error: str
    hint: str
    problems: list[str]


class Checked(TypedDict):
    """`check`. Of a policy with errors there is no site, hash or count."""

    policy: str
    errors: list[Problem]
    warnings: list[Problem]
    counts: NotRequired[dict[str, int]]
    site: NotRequired[str]
    hash: NotRequired[str]


class Proved(TypedDict):
    """`prove`: the report, the SHA-256 of its canonical form, and a signed note that names it."""

    report: Proof
    sha256: str
    note: str


class ProofVerified(TypedDict):
    """`prove --verify`: whether it is signed as it stands."""

    signed: bool
    site: NotRequired[str]
    ok: NotRequired[bool]


class Difference(TypedDict):
    """`diff`, and `reload --dry-run`: hashes, and what differs. `sessions_ended`: those that would end."""

    old: str
    new: str
    gained: list[May]
    lost: list[May]
    changed: list[Setting]
    sessions_ended: list[SessionReport]


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
    lacks: list[Lack]


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
    difference: Changed


class Formatted(TypedDict):
    """`fmt`: the files that were not in their normal form; `written`: they are now. `text`: the normal form of standard
    input; `diff`: what would be, with --diff."""

    files: list[str]
    written: bool
    text: NotRequired[str]
    diff: NotRequired[str]


class Text(TypedDict):
    """What a verb makes that is a text for others: a drawing, a script, a policy, a signed checkpoint. `form` says what
    it is, and `written` where it was written; without that it is in `text`."""

    form: str
    text: NotRequired[str]
    written: NotRequired[str]


class Written(TypedDict):
    """`docs`: pages that were not current; `written`: they are now."""

    files: list[str]
    written: bool


class Removed(TypedDict):
    """`lab clean`."""

    removed: list[str]


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


Grant = Granted


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
    unchanged: list[str]


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


class Whois(TypedDict):
    """`principals`: the zone of each that has the address; `near`: where none has, those with addresses beside it."""

    address: str
    near: list[str]
    sessions: list[SessionReport]
    principals: dict[str, str]
    may: list[May]


class Describe(TypedDict):
    """`state`: null with --policy, and where no half of a running gate has the asset."""

    asset: str
    zone: str
    address: str
    port: int
    protocol: str
    answers_at: list[str]
    state: AssetReport | None
    sessions: list[SessionReport]
    may: list[May]


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


Show = dict[str, Any]
"""`show`: the policy's rows; docs/policy-reference.md says what each means."""


class LogFinding(TypedDict):
    """`unfinished`: the end of a log that was killed, which the next start takes up."""

    file: str
    entry: int | None
    problem: str
    unfinished: bool


class AuditVerify(TypedDict):
    good: bool
    log: str
    origin: str
    signed_entries: int
    entries: int
    checked: int
    root: str
    seconds: float
    findings: list[LogFinding]
    further_findings: int
    witnesses: NotRequired[list[Said]]


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


class EvidencePack(TypedDict):
    pack: str
    sha256: str
    entries: int
    referred: int
    signed: bool
    recorded: bool
    missing: list[str]
    left_out: int
    not_cited: int


class EvidenceNight(TypedDict):
    begins: bool


class EvidenceFound(TypedDict):
    check: str
    outcome: str
    says: str
    subject: NotRequired[str]
    facts: NotRequired[list[str]]
    at_ns: NotRequired[int]


class EvidenceChecked(TypedDict):
    """`evidence run` and `selftest`. `recorded`: how many of them are new in the log."""

    recorded: int
    checks: list[EvidenceFound]


class EvidenceShow(TypedDict):
    """`controls`: (framework, control) that it carries."""

    check: Check
    now: CheckState
    history: list[Result]
    controls: list[tuple[str, str]]


class Signed(TypedDict):
    check: str
    person: str


class Withdrawn(TypedDict):
    """`attestation`: its entry in the log."""

    attestation: int


class Signer(TypedDict):
    """`added`, `removed`: entries of the log, -1 for none."""

    person: str
    role: str
    fingerprint: str
    added: int
    removed: int


class SignerAdded(TypedDict):
    person: str
    fingerprint: str


class SignerRemoved(TypedDict):
    """How many keys."""

    removed: int


class Approved(TypedDict):
    """`evidence baseline --approve`; without it the baseline itself is printed, whose members are the gate's."""

    baseline: str
    person: str


class Drill(TypedDict):
    drill: str


class WitnessKept(TypedDict):
    """`before`: the entries that were kept there, -1: none."""

    good: bool
    entries: int
    before: int


class WitnessWrong(TypedDict):
    good: bool
    problem: str


class PublicKey(TypedDict):
    key: str


class Exporting(TypedDict):
    """`export status`. `next`: the entry that goes next; `behind`: how many wait; `refused`: packets of this export
    that were to something that is none of its collectors, since the gate started."""

    collector: str
    to: str
    form: str
    next: int
    behind: int
    state: str
    refused: int


class Delivered(TypedDict):
    ok: bool
    detail: str


class Kept(TypedDict):
    kept: list[str]


class TlsSide(TypedDict):
    """`tls`. `until` is empty where there is no certificate."""

    crew: str
    side: Literal["clients", "assets"]
    until: str
    good: bool


class OverlayRevoked(TypedDict):
    name: str
    sessions: int
