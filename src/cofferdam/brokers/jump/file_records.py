"""What the inner part and the keeper say to each other of a file that the scanner did not call clean.

Not here: what else they say (records).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Number = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Name = Annotated[str, Meta(max_length=128)]


class Cleared(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """What becomes of a file that is not clean: it was released by somebody ("": by nobody, and does not pass).
    `number`: by which people speak of it; 0: it waits for nobody."""

    file: Number
    by: Name
    number: Count


class Unclean(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The scanner did not call a file clean: does it pass all the same? `file`: its number (records.Hold); `kept`:
    its name in quarantine, "" for none; `partly`: the scanner has found nothing in what it could see of it. One that
    something was found in does not pass; that is said so that no release of it stands."""

    session: Number
    file: Number
    way: Literal["up", "down"]
    path: Annotated[str, Meta(max_length=4_096)]
    size: Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    verdict: Literal["found", "not scanned"]
    partly: bool
    detail: Annotated[str, Meta(max_length=1024)]
    kept: Name
