"""What `cofferdam audit` and a console show of a log: chosen entries, rows of a table, what a verification found.

Needs no running gate and no private key. Not here: how an entry reads for people (lines), the check itself (verify).
"""

from __future__ import annotations

import collections
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cofferdam.audit.cells import no_formula
from cofferdam.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from cofferdam.audit.entry import KINDS, Entry, decode_entry, format_time
from cofferdam.audit.files import DirFiles, LogReader, in_use
from cofferdam.audit.verify import Finding, Verification, verify_log
from cofferdam.errors import AuditError

WHERE = "name its folder with --log, or the gate's with --state"
VERIFY_ATTEMPTS = 5


def find_log(folder: Path) -> Path:
    """The folder. Raises: AuditError, if there is none."""
    if not folder.is_dir():
        if folder.name == "audit" and (folder.parent / "checkpoint").exists():  # --state names the log itself
            raise AuditError(f"{folder.parent} is an audit log, and no state folder", hint=f"--log {folder.parent}")
        raise AuditError(f"there is no audit log in {folder}", hint=WHERE)
    return folder


def checkpoint_file(path: Path, key: VerifierKey) -> Checkpoint:
    """A checkpoint that was kept. Raises: AuditError."""
    try:
        return open_checkpoint(path.read_bytes(), key)
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror}") from error
    except AuditError as error:
        raise AuditError(f"{path}: {error}") from error


# --- which entries ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted. `members` are equal members of the event; `since` and `until` are the log's own times,
    as text. Made by `wanted`."""

    kinds: frozenset[str] = frozenset()
    members: tuple[tuple[str, str], ...] = ()
    since: str = ""
    until: str = "~"

    @property
    def takes_all(self) -> bool:
        return self == Filter()

    def __call__(self, entry: Entry) -> bool:
        if not self.since <= entry.time <= self.until:
            return False
        if self.kinds and entry.kind not in self.kinds:
            return False
        return all(entry.event.get(name) == value for name, value in self.members)


def wanted(
    kinds: list[str] | None = None, since: str | None = None, until: str | None = None, **members: str | None
) -> Filter:
    """A filter from what a user says. Raises: AuditError, for a kind or a time that there is not."""
    unknown = [kind for kind in kinds or [] if kind not in KINDS]
    if unknown:
        raise AuditError(f"there is no kind of event {unknown[0]!r}", hint="kinds are: " + ", ".join(KINDS))
    return Filter(
        kinds=frozenset(kinds or []),
        members=tuple((name, value) for name, value in members.items() if value),
        since=format_time(moment(since)).decode() if since else "",
        until=format_time(moment(until)).decode() if until else "~",
    )


def moment(text: str) -> int:
    """UTC ns since 1970 of a time with or without offset, or of so long ago. Raises: AuditError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[-1:] in units and text[:-1].isdecimal() and len(text) <= 12:
        return max(0, time.time_ns() - int(text[:-1]) * units[text[-1]] * 1_000_000_000)
    fraction = re.search(r"\.([0-9]{1,9})", text, re.ASCII)  # the log's own times have nine decimals, datetime six
    try:
        moment = datetime.fromisoformat(text.replace(fraction.group(), "", 1) if fraction else text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise AuditError(
            f"{text!r} is not a time",
            hint="for example 2026-03-01T08:00:00Z, 2026-03-01T09:00+01:00, or 15m for 15 minutes ago",
        ) from error
    nanoseconds = int(fraction.group(1).ljust(9, "0")) if fraction else 0
    return max(0, int(moment.timestamp())) * 1_000_000_000 + nanoseconds


def last_moment(text: str) -> int:
    """As `moment`, for the end of a span: a day alone is meant with all its hours. Raises: AuditError."""
    found = moment(text)
    return found + 86_400 * 1_000_000_000 - 1 if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII) else found


def matching(reader: LogReader, chosen: Filter, last: int | None, start: int = 0) -> Iterator[tuple[bytes, Entry]]:
    """Entries as bytes and decoded, oldest first; only the `last` of those that match, if that is given.

    Raises: AuditError, at an entry that is damaged.
    """

    def all_of_them() -> Iterator[tuple[bytes, Entry]]:
        for index, data in reader.entries(start):
            try:
                entry = decode_entry(data)
            except AuditError as error:
                raise AuditError(f"entry {index}: {error}", hint="cofferdam audit verify says what is wrong") from error
            if chosen(entry):
                yield data, entry

    if last is None:
        return all_of_them()
    if chosen.takes_all:
        start = max(start, reader.size() - last)
    return iter(collections.deque(all_of_them(), last))


def newer(reader: LogReader, chosen: Filter, size: int) -> tuple[int, list[tuple[bytes, Entry]]]:
    """Entries from this index on, and the index after the last that is there, whether it matches or not."""
    found = []
    for data, entry in matching(reader, Filter(), None, size):
        size = entry.index + 1
        if chosen(entry):
            found.append((data, entry))
    return size, found


# --- as a table -------------------------------------------------------------------------------------------------

COLUMNS = (
    "index", "time", "kind", "maker", "session", "source", "principals", "asset", "conduit", "rule", "function",
    "outcome", "fault", "detail", "site", "policy", "event",
)  # fmt: skip


def row(entry: Entry) -> list[str]:
    """One entry in a table of COLUMNS, safe for a spreadsheet."""
    return [_column(entry, name) for name in COLUMNS]


def _column(entry: Entry, name: str) -> str:
    if name == "event":
        return no_formula(json.dumps(entry.event, ensure_ascii=False, separators=(",", ":")))
    value = (
        getattr(entry, name)
        if name in ("index", "time", "kind", "maker", "site", "policy")
        else entry.event.get(name, "")
    )
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return no_formula(text)


# --- a verification ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verified:
    """What a verification found. `findings` leaves out what a gate that runs has not finished yet."""

    folder: Path
    report: Verification
    findings: tuple[Finding, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "good": not self.findings,
            "log": str(self.folder),
            "origin": self.report.origin,
            "signed_entries": self.report.size,
            "entries": self.report.total,
            "checked": self.report.checked,
            "root": self.report.root.hex(),
            "seconds": round(self.seconds, 3),
            "findings": [
                {"file": f.file, "entry": f.entry, "problem": f.problem, "unfinished": f.unfinished}
                for f in self.findings
            ],
            "further_findings": self.report.more,
        }


def verify_folder(
    folder: Path,
    key: VerifierKey,
    earlier: Checkpoint | None,
    progress: Callable[[int, int], None] | None,
    *,
    archive: Path | None = None,
) -> Verified:
    """Checks every byte of a log, which a gate may be writing. Raises: AuditError, if there is no log."""
    find_log(folder)
    begun = time.monotonic()
    files = DirFiles(folder, archive)
    attempts = VERIFY_ATTEMPTS
    while True:
        before = files.read("checkpoint")
        report = verify_log(files, key, earlier=earlier, progress=progress)
        attempts -= 1
        # While a gate writes, files change under us; what is wrong then must still be wrong with the next checkpoint.
        if report.good or not attempts or files.read("checkpoint") == before:
            break
    live = in_use(folder)
    findings = tuple(finding for finding in report.findings if not (live and finding.unfinished))
    return Verified(folder, report, findings, time.monotonic() - begun)
