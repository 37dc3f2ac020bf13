"""What the keeper keeps of files and requests: its rows.

Not here: how they change (keeper, releases).
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch.reports import Report

Judged = Literal["passed", "refused", "not-scanned", "failed"]
How = Literal["upload", "put", "fetch", "folder"]
State = Literal[
    "waiting", "examining", "passed", "refused", "not-scanned", "failed", "requested", "released", "rejected", "read"
]
UNDECIDED: Final = ("waiting", "examining", "passed", "not-scanned", "failed")
"""Nobody has decided on it yet."""


class FileTold(Struct, frozen=True, kw_only=True):
    """One file, as people see it. `reason`: why it stands where it stands."""

    number: int
    product: str
    version: str
    file: str
    size: int
    sha256: str
    by: str
    how: How
    at: int
    state: State
    reason: str = ""


class FileRow(FileTold, frozen=True, kw_only=True):
    """One file. `told`: the audit log has that it was taken."""

    signed: bool = False
    """Its detached signature is here."""
    report: Report | None = None
    told: bool = False
    second: str = ""
    """By whom it came a second time, by another way (origin "two-sources")."""
    asked: str = ""
    """What the policy asked of it when it was examined (keeper.asked_of)."""
    vouches: tuple[Vouch, ...] = ()
    """The word of whoever saw it come, each time that it came."""


class Pending(Struct, frozen=True, kw_only=True):
    """The one release that waits for signatures: the metadata, and base64 signatures by key id. `reason`, `emergency`:
    as the metadata have them."""

    number: int
    by: str
    at: int
    metadata: str
    signatures: dict[str, str] = {}
    reason: str = ""
    emergency: bool = False


class Seen(Struct, frozen=True, kw_only=True):
    """A file that a source has, as it was when it came. `changed`: what it is now, where that
    is something else; `known`: the change that an operator has seen."""

    source: str
    product: str
    version: str
    file: str
    size: int
    mark: str
    sha256: str
    at: int
    changed: str = ""
    known: str = ""


class Looked(Struct, frozen=True, kw_only=True):
    """How the last look at a source ended. Times are UTC ns; `good`: when one last went well."""

    at: int
    good: int = 0
    listed: int = 0
    named: int = 0
    taken: int = 0
    refused: str = ""
    odd: str = ""
