"""What a strand has not brought, as its part says it to who takes what comes: a mark in the folder of that crossing.

Beside strand.py, which is compiled: a struct of msgspec cannot be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from cofferdam.crossing.strand import put, read
from cofferdam.errors import CrossingError

MISSING: Final = ".missing"
"""The mark that says what has not come (`Missing`). Where there is none nobody knows: one that could not be written on
a full disk must not leave the one before it, and to remove that takes no room."""


class Missing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a strand has not brought of one conduit: records that are `missing`; those of them, and of those that are
    lost, that nothing has come `behind`, so that no later number tells of them. `silent`: the inside is not heard just
    now, and was `heard` last at this time (UTC ns; 0: never since the strand's part began). `waits`: records that have
    waited inside for a while, since more is offered than the strand carries. `stopped`: nothing more of it is taken,
    and nobody counts what is missing. `since`: when the newest gap was found that something has come behind (UTC ns;
    0: there is none)."""

    missing: int = 0
    behind: int = 0
    silent: bool = False
    heard: int = 0
    waits: int = 0
    stopped: bool = False
    since: int = 0


def tell_missing(folder: Path, said: Missing) -> None:
    """For whoever takes what comes here. Raises: OSError."""
    try:
        put(folder, MISSING[1:], msgspec.json.encode(said), mark=True)
    except OSError:
        (folder / MISSING).unlink(missing_ok=True)
        raise


def missing(folder: Path) -> Missing:
    """As the strand's part has said it last. Raises: CrossingError, where it has not, or it is no such word."""
    try:
        return msgspec.json.decode(read(folder, MISSING), type=Missing)
    except FileNotFoundError:
        raise CrossingError("the strand's part has not said it yet, or could not write it: is the disk full?") from None
    except msgspec.MsgspecError as error:
        raise CrossingError(f"{MISSING}: {error}") from None
