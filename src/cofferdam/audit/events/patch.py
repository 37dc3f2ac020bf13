"""What the patch relay tells the audit log: each step of a file from its arrival to the asset, with its hash; never the
file. `number` is the file's in the keeper's catalogue.

Not here: what parts are and when they say it (brokers.patch).
"""

from __future__ import annotations

from typing import Literal

from cofferdam.audit.events.base import Count, Event, Hash, Name, Names, Text
from cofferdam.audit.events.lines import Line, Said

How = Literal["upload", "put", "fetch", "folder"]


class FileTaken(Event, frozen=True, kw_only=True):
    """A file is in quarantine. Nothing is acknowledged before this is on disk."""

    number: Count
    product: Name
    version: Name
    file: Name
    size: Count
    sha256: Hash
    by: Name
    how: How


class SecondSource(Event, frozen=True, kw_only=True):
    """A file that nobody signs came a second time, by another way: the same one, or another under its name."""

    number: Count
    product: Name
    version: Name
    file: Name
    sha256: Hash
    by: Name
    how: How
    same: bool
    detail: Text = ""


class SourceAsked(Event, frozen=True, kw_only=True):
    """An operator has a source looked at now, or (`known`) has seen what it changed."""

    source: Name
    by: Name
    known: bool = False


class SourceLooked(Event, frozen=True, kw_only=True):
    """A source was looked at: names that it has, those of them that rules name, files that came; or why it could not
    be."""

    source: Name
    listed: Count = 0
    named: Count = 0
    taken: Count = 0
    refused: Text = ""
    odd: Text = ""


class SourceChanged(Event, frozen=True, kw_only=True):
    """A source has another file under a name that it had before. It is not taken. `sha256`: of the one that came."""

    source: Name
    product: Name
    version: Name
    file: Name
    sha256: Hash
    detail: Text


class FileRefused(Event, frozen=True, kw_only=True):
    """A file was not taken; nothing of it is kept."""

    product: Name
    version: Name = ""
    file: Name = ""
    by: Name
    fault: Name
    detail: Text


class FileExamined(Event, frozen=True, kw_only=True):
    """An examiner looked at a file. "passed": its origin is proved, and the scanner found nothing."""

    number: Count
    product: Name
    version: Name
    file: Name
    sha256: Hash
    verdict: Literal["passed", "refused", "not-scanned", "failed"]
    origin: Text = ""
    scan: Text = ""
    detail: Text = ""


class ReleaseRequested(Event, frozen=True, kw_only=True):
    """Somebody asks that a file be released. `targets`: the version of the metadata that people are to sign."""

    number: Count
    product: Name
    version: Name
    file: Name
    sha256: Hash
    by: Name
    targets: Count
    emergency: bool = False
    reason: Text = ""


class ReleaseSigned(Event, frozen=True, kw_only=True):
    """A person signed a release, with a key of the root. `person`: whose key it is; `by`: who brought it."""

    number: Count
    sha256: Hash
    targets: Count
    person: Name
    by: Name
    people: Names = ()


class ReleaseDecided(Event, frozen=True, kw_only=True):
    """A release has its signatures, or was given up."""

    number: Count
    product: Name
    version: Name
    file: Name
    sha256: Hash
    decision: Literal["released", "rejected"]
    by: Name
    people: Names = ()
    targets: Count = 0
    reason: Text = ""


class RootTaken(Event, frozen=True, kw_only=True):
    """A new root is offered to the installer."""

    root: Count
    by: Name
    sha256: Hash


class ReleasesBelieved(Event, frozen=True, kw_only=True):
    """The installer has checked the signatures by its own root: these are the files that it would install."""

    root: Count
    targets: Count
    releases: Count
    people: Names = ()


class ReleasesNotBelieved(Event, frozen=True, kw_only=True):
    """The keeper offered the installer what its root does not allow."""

    detail: Text


class InstallStarted(Event, frozen=True, kw_only=True):
    """A file goes to an asset, now. `back`: it is the one that the asset had before. Nothing is sent before this is on
    disk."""

    asset: Name
    product: Name
    version: Name
    number: Count
    sha256: Hash
    way: Name
    ring: Name = ""
    back: bool = False
    emergency: bool = False


class InstallEnded(Event, frozen=True, kw_only=True):
    """What became of it. "unknown": nobody knows what the asset has now."""

    asset: Name
    product: Name
    version: Name
    number: Count
    sha256: Hash
    state: Literal["sent", "done", "failed", "unknown", "back"]
    detail: Text = ""


class PlanSet(Event, frozen=True, kw_only=True):
    """A person changed what is under way. `what`: pause, resume, stop, or the result that a person found. `technician`:
    who installed it by hand; `reads`: the version that the asset shows."""

    what: Name
    by: Name
    product: Name = ""
    asset: Name = ""
    detail: Text = ""
    technician: Name = ""
    reads: Name = ""


class AdvisoriesRead(Event, frozen=True, kw_only=True):
    """A document of advisories was read: what it is, who published it, how many advisories it has, and how many of
    them name an asset. `number` is the document's."""

    number: Count
    product: Name
    file: Name
    sha256: Hash
    what: Literal["csaf", "list", "sbom"]
    provider: Text = ""
    advisories: Count = 0
    named: Count = 0


class AdvisoryMatched(Event, frozen=True, kw_only=True):
    """What an advisory says of the assets of the inventory: affected, not affected, unknown (all that it does not name
    are unknown, too). `taken_back`: assets that were answered and have to be again."""

    advisory: Name
    product: Name
    number: Count
    revision: Name = ""
    available: Name = ""
    affected: Names = ()
    not_affected: Names = ()
    unknown: Names = ()
    more: Count = 0
    taken_back: Names = ()
    evaluate_by: Name = ""


class AdvisoryEvaluated(Event, frozen=True, kw_only=True):
    """A person said whether an advisory concerns assets. `rest`: the assets that it does not name. `complete`: all are
    answered now (CIP-007-6 R2.2)."""

    advisory: Name
    product: Name
    by: Name
    assets: Names = ()
    count: Count = 0
    applies: bool
    rest: bool = False
    complete: bool = False
    plan_by: Name = ""
    detail: Text = ""


class PatchStateSet(Event, frozen=True, kw_only=True):
    """A person said where a patch stands at the owner of an asset (states of IEC TR 62443-2-3)."""

    advisory: Name
    product: Name
    asset: Name
    state: Name
    by: Name
    detail: Text = ""


class MitigationPlanned(Event, frozen=True, kw_only=True):
    """A person made a dated plan for assets that do not have a patch yet (CIP-007-6 R2.3). It counts once somebody
    else approves it."""

    advisory: Name
    product: Name
    plan: Count
    assets: Names = ()
    count: Count = 0
    owner: Name
    detail: Text
    until: Name
    by: Name


class MitigationApproved(Event, frozen=True, kw_only=True):
    """Another person approved a plan."""

    advisory: Name
    product: Name
    plan: Count
    by: Name
    until: Name


class AdvisoryOverdue(Event, frozen=True, kw_only=True):
    """A clock of an advisory ran out: "evaluate" (R2.2), "plan" (R2.3), "carry-out" (a plan's own date)."""

    advisory: Name
    product: Name
    clock: Literal["evaluate", "plan", "carry-out"]
    due: Name
    assets: Names = ()
    count: Count = 0


Draft = (
    FileTaken
    | SecondSource
    | SourceAsked
    | SourceLooked
    | SourceChanged
    | FileRefused
    | FileExamined
    | ReleaseRequested
    | ReleaseSigned
    | ReleaseDecided
    | RootTaken
    | ReleasesBelieved
    | ReleasesNotBelieved
    | InstallStarted
    | InstallEnded
    | PlanSet
    | AdvisoriesRead
    | AdvisoryMatched
    | AdvisoryEvaluated
    | PatchStateSet
    | MitigationPlanned
    | MitigationApproved
    | AdvisoryOverdue
)
GATE: tuple[type[Event], ...] = ()
"""The gate says nothing of these."""
ADVICE = (
    AdvisoriesRead, AdvisoryMatched, AdvisoryEvaluated, PatchStateSet, MitigationPlanned, MitigationApproved,
    AdvisoryOverdue,
)  # fmt: skip
KEEPER = (
    FileTaken, FileRefused, FileExamined, ReleaseRequested, ReleaseSigned, ReleaseDecided, RootTaken, SecondSource,
    SourceAsked, SourceLooked, SourceChanged, *ADVICE,
)  # fmt: skip
INTAKE = (FileRefused,)
INSTALLER = (ReleasesBelieved, ReleasesNotBelieved, InstallStarted, InstallEnded, PlanSet)


def _file(event: Said) -> str:
    hash_ = str(event.get("sha256", ""))[:16]
    return f"{event.get('number', '')} {event.get('product')}/{event.get('version')}/{event.get('file')} {hash_}…"


def _install(event: Said) -> str:
    hash_ = str(event.get("sha256", ""))[:16]
    return f"{event.get('product')} {event.get('version')} → {event.get('asset')} {hash_}…"


def _told(event: Said, *names: str) -> str:
    return "; ".join(str(event[name]) for name in names if event.get(name))


def _some(event: Said, name: str) -> str:
    some = event.get(name, ())
    more = int(event.get("count", 0)) - len(some)
    return f"{', '.join(some)}{f' and {more} more' if more > 0 else ''}"


LINES: dict[str, Line] = {
    "advisories-read": lambda e: (
        f"{e.get('number')} {e.get('product')}/{e.get('file')}: {e.get('what')} of {e.get('provider')}:"
        f" {e.get('advisories')} advisories, {e.get('named')} name an asset"
    ),
    "advisory-matched": lambda e: (
        f"{e.get('advisory')} {e.get('revision')}: affected {_some(e, 'affected') or 'none'};"
        f" not affected {_some(e, 'not_affected') or 'none'}; unknown {_some(e, 'unknown') or 'none'};"
        f" evaluate by {e.get('evaluate_by')}"
    ),
    "advisory-evaluated": lambda e: (
        f"{e.get('advisory')} by {e.get('by')}: {_some(e, 'assets')}{' and all others' if e.get('rest') else ''}:"
        f" {'applies' if e.get('applies') else 'does not apply'}: {e.get('detail')}"
        f"{', complete' if e.get('complete') else ''}"
    ),
    "patch-state-set": lambda e: (
        f"{e.get('advisory')} {e.get('asset')}: {e.get('state')} by {e.get('by')} {e.get('detail', '')}".rstrip()
    ),
    "mitigation-planned": lambda e: (
        f"{e.get('advisory')} plan {e.get('plan')} for {_some(e, 'assets')}: {e.get('owner')} until {e.get('until')}:"
        f" {e.get('detail')}, by {e.get('by')}"
    ),
    "mitigation-approved": lambda e: f"{e.get('advisory')} plan {e.get('plan')} until {e.get('until')}: {e.get('by')}",
    "advisory-overdue": lambda e: (
        f"{e.get('advisory')}: {e.get('clock')} was due {e.get('due')}: {_some(e, 'assets')}".rstrip(": ")
    ),
    "file-taken": lambda e: f"{_file(e)}, {e.get('size')} bytes, from {e.get('by')} by {e.get('how')}",
    "second-source": lambda e: (
        f"{_file(e)}: {'the same' if e.get('same') else 'ANOTHER'} from {e.get('by')} by {e.get('how')}"
    ),
    "source-asked": lambda e: f"{e.get('source')} by {e.get('by')}{', seen' if e.get('known') else ''}",
    "source-looked": lambda e: (
        f"{e.get('source')}: {e.get('refused')}" if e.get("refused") else
        f"{e.get('source')}: {e.get('listed')} names, {e.get('named')} named by rules, {e.get('taken')} came"
    ),
    "source-changed": lambda e: (
        f"{e.get('source')} {e.get('product')}/{e.get('version')}/{e.get('file')}: {e.get('detail')}"
    ),
    "file-refused": lambda e: (
        f"{e.get('product')} {e.get('file')} from {e.get('by')}: {e.get('fault')}: {e.get('detail')}"
    ),
    "file-examined": lambda e: f"{_file(e)}: {e.get('verdict')}: {_told(e, 'origin', 'scan', 'detail')}",
    "release-requested": lambda e: (
        f"{_file(e)} by {e.get('by')}{' EMERGENCY' if e.get('emergency') else ''} {e.get('reason', '')}".rstrip()
    ),
    "release-signed": lambda e: f"{e.get('number')} by {e.get('person')}; so far {', '.join(e.get('people', ()))}",
    "release-decided": lambda e: (
        f"{_file(e)}: {e.get('decision')} by {', '.join(e.get('people', ())) or e.get('by')} {e.get('reason', '')}"
    ).rstrip(),
    "releases-believed": lambda e: (
        f"root {e.get('root')}, targets {e.get('targets')}: {e.get('releases')} files, signed by"
        f" {', '.join(e.get('people', ()))}"
    ),
    "releases-not-believed": lambda e: str(e.get("detail", "")),
    "install-started": lambda e: f"{_install(e)} by {e.get('way')}{', BACK' if e.get('back') else ''}",
    "install-ended": lambda e: f"{_install(e)}: {e.get('state')} {e.get('detail', '')}".rstrip(),
    "plan-set": lambda e: f"{e.get('what')} by {e.get('by')}: {_told(e, 'product', 'asset', 'detail')}",
}  # fmt: skip
