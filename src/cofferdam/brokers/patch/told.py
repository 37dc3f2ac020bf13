"""What the patch relay's parts answer to operators' verbs, as types: the verbs are checked by them, and the schemas of
what `cofferdam patch ... --json` prints are made from them.

Times are UTC ns. Not here: the verbs (keeper_verbs, installer_verbs, advice.desk).
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from msgspec import UNSET, UnsetType

from cofferdam.brokers.patch.advice.ledger import Answer, Change, Mitigation
from cofferdam.brokers.patch.catalogue import FileTold
from cofferdam.brokers.patch.reports import Report


class Pending(TypedDict):
    """A release that waits for signatures."""

    number: int
    file: str
    by: str
    reason: str
    emergency: bool
    signed: list[str]
    needs: int


class Source(TypedDict):
    """`state`: what it does now; `last`, `good`, `next`: 0 for never."""

    source: str
    kind: str
    last: int
    good: int
    refused: str
    odd: str
    listed: int
    named: int
    taken: int
    next: int
    state: str
    file: str
    got: int
    size: int
    changed: list[str]


class Installer(TypedDict):
    """What the keeper knows of the installer."""

    targets: int
    refused: str


class Soonest(TypedDict):
    """The clock of an advisory that is due first."""

    advisory: str
    clock: str
    due: str
    overdue: bool
    assets: list[str]


class Keeper(TypedDict):
    """`files`, `advisories`: how many stand where. `unfit`: why nothing can be released. `scanner`: it and its base, as
    it was last looked at; `unscanned`: why nothing can be scanned."""

    root: int
    root_expires: str
    unfit: str
    approvers: list[str]
    threshold: int
    files: dict[str, int]
    pending: Pending | None
    sources: list[Source]
    encrypted: bool
    scanner: str
    unscanned: str
    installer: Installer
    advisories: dict[str, int]
    soonest: Soonest | None


class File(FileTold, frozen=True, kw_only=True):
    """Where one is shown by itself: what an examiner found, and who has signed."""

    report: Report | UnsetType | None = UNSET
    pending: Pending | UnsetType | None = UNSET


class Put(TypedDict):
    """`waits`: for what, before it is examined."""

    number: int
    sha256: str
    waits: str


class Number(TypedDict):
    number: int


class Piece(TypedDict):
    """A piece of the metadata; `more`: where the next one begins, 0 behind the last."""

    number: int
    metadata: str
    more: int
    needs: int


class Requested(TypedDict):
    number: int
    targets: int


class Approved(TypedDict):
    number: int
    signed: tuple[str, ...]
    needs: int
    released: bool


class RootTaken(TypedDict):
    root: int


class Due(TypedDict):
    """An asset and a product. `release`: the version that it is to get; `has`: what was sent to it last, and `state`
    how that stands; `windows`: begin and end of each."""

    asset: str
    product: str
    ring: str
    release: str
    number: int
    due: bool
    why: str
    state: str
    has: str
    detail: str
    at: int
    windows: list[tuple[int, int]]


class Released(TypedDict):
    """What people have signed of a file (docs/patch.md)."""

    path: str
    sha256: str
    size: int
    number: int
    product: str
    version: str
    file: str
    uploaded_by: str
    requested_by: str
    origin: str
    scan: str
    at: str
    emergency: bool
    reason: str


class UnderWay(TypedDict):
    """What an asset is sent now, and how many bytes of it went."""

    asset: str
    product: str
    sent: int


class Plan(TypedDict):
    targets: int
    root: int
    refused: str
    unsigned: dict[str, str]
    shut: str
    under_way: list[UnderWay]
    paused: list[str]
    stopped: list[int]
    releases: list[Released]
    assets: list[Due]


class Clock(TypedDict):
    """`plan`: the number of the plan that it waits for, 0: none."""

    clock: str
    due: str
    overdue: bool
    assets: list[str]
    plan: int


class VendorState(TypedDict):
    state: str
    at: int


class AdvisedAsset(TypedDict):
    """`applies`: what people say, null: nothing yet."""

    asset: str
    verdict: str
    why: str
    named: bool
    applies: bool | None
    note: str
    by: str
    at: int
    state: str
    states: list[Change]


class Advisory(TypedDict):
    advisory: str
    product: str
    provider: str
    title: str
    revision: str
    available: str
    severity: str
    standing: str
    file: int
    affected: int
    not_affected: int
    unknown: int
    clocks: list[Clock]
    vulnerabilities: NotRequired[tuple[str, ...]]
    patch: NotRequired[str]
    vendor_states: NotRequired[list[VendorState]]
    assets: NotRequired[list[AdvisedAsset]]
    rest: NotRequired[Answer | None]
    evaluated: NotRequired[int]
    plans: NotRequired[list[Mitigation]]


class Advisories(TypedDict):
    counts: dict[str, int]
    advisories: list[Advisory]


# --- what the command line adds ---------------------------------------------------------------------------------------


class Status(TypedDict):
    keeper: Keeper
    installer: Plan


class Verdict(TypedDict):
    """`told`: how many files the audit log knows; `wrong`: what differs."""

    checked: int
    told: int
    wrong: list[str]


class Exported(TypedDict):
    """`advisories_left_out`: older ones, which wait for nobody."""

    files: int
    entries: int
    advisories_left_out: int


class ToSign(TypedDict):
    """What was written, to be signed elsewhere."""

    file: str


class Role(TypedDict):
    people: list[str]
    needs: int


class Root(TypedDict):
    """`targets`: who releases, `root`: who changes the root, and how many of them; `signed`: who has."""

    version: int
    expires: str
    targets: Role
    root: Role
    signed: list[str]
