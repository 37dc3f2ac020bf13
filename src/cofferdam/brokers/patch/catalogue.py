"""What the keeper keeps of files and requests: its rows.

Not here: how they change (keeper, keeper_verbs).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from cofferdam.brokers.patch.examiner import Report

Judged = Literal["passed", "refused", "not-scanned", "failed"]
State = Literal[
    "waiting", "examining", "passed", "refused", "not-scanned", "failed", "requested", "released", "rejected", "read"
]


class FileRow(Struct, frozen=True, kw_only=True):
    """One file. `reason`: why it stands where it stands; `told`: the audit log has that it was taken."""

    number: int
    product: str
    version: str
    file: str
    size: int
    sha256: str
    by: str
    how: Literal["upload", "put"]
    at: int
    state: State
    reason: str = ""
    signed: bool = False
    """Its detached signature is here."""
    report: Report | None = None
    told: bool = False
    asked: str = ""
    """What the policy asked of it when it was examined (keeper.asked_of)."""


class Pending(Struct, frozen=True, kw_only=True):
    """The one release that waits for signatures: the metadata, and base64 signatures by key id."""

    number: int
    by: str
    at: int
    metadata: str
    signatures: dict[str, str] = {}
