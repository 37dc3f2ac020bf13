"""The records between the gate and the auditor process: how the log is opened, watched and closed.

Entries do not travel here; they come from all producers alike, the gate among them (see `records`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


# --- gate to auditor --------------------------------------------------------------------------------------------


Root = Annotated[bytes, Meta(max_length=32)]


class Open(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The first record: open (or begin) the log of this site, which must begin with the `size` entries that had this
    `root` (0: nothing is known). Answered by `OpenedLog` or `RefusedLog`."""

    site: Name
    size: Count = 0
    root: Root = b""


class Keep(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """What the policy keeps of the log from now on: so many ns, so many bytes (0: no bound). `move`: what goes is
    moved to the archive."""

    keep_ns: Count
    most: Count
    move: bool


class ReportLog(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Send a `LogStatus` now. (The auditor also sends one a second.)"""


class Close(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Record what is in the pipes, sign a checkpoint, close the log and exit with code 0."""


class AskRecent(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """Which writes of the last minute does the log have to these assets? Answered by `Recent` with the same number."""

    number: Count
    assets: tuple[Name, ...]


class AskHead(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """The log's signed head, and how it goes on from the tree of `old` entries. Answered by `SignedHead`."""

    number: Count
    old: Count


ToAuditorControl = Open | ReportLog | Close | AskRecent | Keep | AskHead


# --- auditor to gate --------------------------------------------------------------------------------------------


class OpenedLog(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The log is open with so many entries; entries are taken from now on. `key` is the verifier key."""

    pid: int
    size: Count
    key: Text


class RefusedLog(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The log cannot be opened: damaged, key missing or readable by others. The auditor exits."""

    message: Text
    hint: Text = ""


class LogStatus(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """How the log does. `size` in entries, `signed` how many of them the last checkpoint covers; `batches` were
    accepted since the auditor started, `commits` waits for the disk it took, of together `commit_ns`, at most
    `commit_max_ns`. `over`: producers above their share of the day; `free` and `total`: bytes of the disk. `root` is
    that of the signed entries. `stuck`: why no checkpoint can be signed though entries are taken. Of the log in the
    long run (upkeep): its `bytes`, those of a day (-1: unknown), the first entry that is kept and its time, the index
    behind the last that is sealed, and what does not succeed."""

    size: Count
    signed: Count
    writable: bool
    reason: Text
    batches: Count
    refused: Count
    commits: Count
    commit_ns: Count
    commit_max_ns: Count
    over: tuple[Name, ...] = ()
    free: Count = 0
    total: Count = 0
    root: Root = b""
    stuck: Text = ""
    bytes: Count = 0
    per_day: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)] = -1
    first: Count = 0
    since: Name = ""
    sealed: Count = 0
    trouble: Text = ""


class Violation(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """A producer sent what is no batch of entries; nothing more is read from it."""

    producer: Name
    detail: Text


class PastWrite(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A write that was allowed `age_ns` ago: the cells that it named as (space, start, count), the points to which it
    gave a value, and whether it named items (or called something). `moves`: of some points what they held before, and
    what they were given."""

    asset: Name
    age_ns: Count
    spans: tuple[tuple[Name, Count, Count], ...] = ()
    points: tuple[Name, ...] = ()
    items: bool = False
    moves: Annotated[tuple[tuple[Name, int | float, int | float], ...], Meta(max_length=256)] = ()


class Recent(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """The answer to `AskRecent`. `complete`: there were no others. `assets`: all names of assets that were written,
    those that were asked for among them."""

    number: Count
    complete: bool
    writes: tuple[PastWrite, ...]
    assets: Annotated[tuple[Name, ...], Meta(max_length=8192)] = ()


class SignedHead(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """The answer to `AskHead`: the signed note, and the hashes of the consistency proof (none where `old` is 0 or not
    below the head's size). `why`: why there is none."""

    number: Count
    note: Annotated[bytes, Meta(max_length=4096)]
    hashes: Annotated[tuple[Root, ...], Meta(max_length=63)] = ()
    why: Text = ""


FromAuditorControl = OpenedLog | RefusedLog | LogStatus | Violation | Recent | SignedHead
