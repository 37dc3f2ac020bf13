"""The keeper, as what people ask of it knows it.

Not here: the keeper itself, what is asked (keeper_verbs, releases).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.advice.desk import Desk
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.catalogue import FileRow, How, Pending
from cofferdam.brokers.patch.drops import Drops
from cofferdam.brokers.patch.examining import Examining
from cofferdam.brokers.patch.repository import Repository
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.brokers.patch.sources import Fetching
from cofferdam.brokers.patch.witnesses import Witnesses
from cofferdam.errors import GateError
from cofferdam.policy.terms.patch_rows import PatchRows, Product


class Keeping(Protocol):
    """The keeper, as its verbs know it."""

    setting: Setting
    store: Path
    files: Table[FileRow]
    pending: Table[Pending]
    fetching: Fetching
    drops: Drops
    sealing: Sealing
    examining: Examining
    looked: records.Looked
    desk: Desk
    rows: PatchRows
    repository: Repository
    witnesses: Witnesses

    @property
    def now(self) -> int:
        """UTC ns."""

    def product_of(self, name: str) -> Product | None:
        """By the policy in force."""

    def why_not(self, product: str, version: str, file: str) -> tuple[str, str]:
        """Why no such file is taken: (fault, detail), or ("", "")."""

    def drop_files(self, number: int) -> None:
        """A file in quarantine and what lies beside it."""

    def room(self, size: int) -> bool:
        """Whether there is."""

    def examine(self, number: int) -> None:
        """Puts a file before an examiner (again)."""

    def too_much(self, by: str, size: int) -> str:
        """Why somebody may bring no more in, "" if he may."""

    def as_asked(self, row: FileRow) -> bool:
        """Whether a file was examined as the policy asks now."""

    def keep(self, row: FileRow) -> None:
        """Puts a row, on disk if it can be."""

    def tell_installer(self) -> None:
        """That there is something new."""

    def note_refused(self, product: str, version: str, file: str, by: str, fault: str, detail: str) -> None:
        """Tells the audit log."""

    def take_file(
        self, path: Path, product: str, version: str, file: str, size: int, sha256: str, by: str,
        how: How, word: Vouch | None, done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        """A file that is whole and synced goes into quarantine."""


def row_of(keeper: Keeping, number: int) -> FileRow:
    """A file's. Raises: GateError: there is none of this number."""
    row = keeper.files.get(number)
    if row is None:
        raise GateError(f"there is no file {number}", hint="`cofferdam patch list` shows which there are")
    return row
