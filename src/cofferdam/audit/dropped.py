"""What of a log is no longer there, by its own word: `dropped` names the entry (`entries-dropped`) that says up to
which one, and with which root, so that what is left verifies as before.

    "cofferdam dropped v1" LF origin LF index behind the last that was dropped LF index of the entry that says so LF

The file is a hint for those who look: nothing is believed of it that the entry does not say. PURE.

Not here: who drops (upkeep), the check (verify).
"""

from __future__ import annotations

import base64

import msgspec

from cofferdam.audit.entry import decode_entry
from cofferdam.audit.tree import WIDTH
from cofferdam.errors import AuditError

DROPPED = "dropped"
FIRST_LINE = "cofferdam dropped v1"
MAKER = "auditor"
_KIND = "entries-dropped"


class Dropped(msgspec.Struct, frozen=True):
    """Entries below `stop` may be missing; `entry` is the index of the one that says so."""

    stop: int = 0
    entry: int = -1


NOTHING = Dropped()


def dropped_text(origin: str, dropped: Dropped) -> bytes:
    """The bytes of the file."""
    return f"{FIRST_LINE}\n{origin}\n{dropped.stop}\n{dropped.entry}\n".encode()


def parse_dropped(data: bytes | None, origin: str) -> Dropped:
    """What the file says; nothing, if there is none. Raises: AuditError: it is not what such a file is."""
    if data is None:
        return NOTHING
    lines = data.decode("ascii", "replace").split("\n")
    try:
        found = Dropped(int(lines[2]), int(lines[3]))
    except (IndexError, ValueError):
        raise AuditError(f"{DROPPED}: is cut short or was changed") from None
    if dropped_text(origin, found) != data or found.stop % WIDTH or not 0 < found.stop <= found.entry:
        raise AuditError(f"{DROPPED}: was changed, or is of another log")
    return found


def root_said(entry: bytes, dropped: Dropped) -> bytes:
    """The root of the entries below `stop`, as the entry gives it. Raises: AuditError: it says something else."""
    said = decode_entry(entry)
    if (
        said.index != dropped.entry
        or said.maker != MAKER
        or said.kind != _KIND
        or said.event.get("stop") != dropped.stop
    ):
        raise AuditError(f"{DROPPED}: entry {dropped.entry} does not say that those below {dropped.stop} were dropped")
    return base64.b64decode(str(said.event.get("root", "")))


def root_text(root: bytes) -> str:
    """A root as the entry has it."""
    return base64.b64encode(root).decode()
