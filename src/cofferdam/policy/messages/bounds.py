"""What the judges of JSON and of XML have in common: bounds, the words of a limit, a message's own time.

Not here: the judges (checking, xml_checking).
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Final

from cofferdam.policy.points.values import show
from cofferdam.policy.terms.relay_rows import Limit

DETAIL_CHARACTERS: Final = 500
KEY_CHARACTERS: Final = 256
"""Of a series' name, as canonical JSON: a limit's memory is not a place to keep texts."""
STEPS_MOST: Final = 10_000
"""Values of one message that limits with a memory bound."""
_STAMP: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))\Z", re.ASCII
)
_EPOCH: Final = datetime.datetime(1970, 1, 1)


def allowed(limit: Limit) -> str:
    """What a limit lets through, in words."""
    if limit.min is not None and limit.max is not None:
        return f"{show(limit.min)} to {show(limit.max)} is allowed"
    if limit.min is not None:
        return f"{show(limit.min)} or more is allowed"
    return f"{show(limit.max or 0)} or less is allowed"


def stamp_of(item: Any) -> int | str:
    """UTC ns of a time as RFC 3339 has it; else what is wrong with it."""
    found = _STAMP.match(item) if isinstance(item, str) else None
    try:
        if found is None:
            raise ValueError
        moment = datetime.datetime.fromisoformat(f"{found[1]}T{found[2]}") - _EPOCH
        if found[4] and (int(found[5]) > 23 or int(found[6]) > 59):
            raise ValueError
    except ValueError:
        return "no time as RFC 3339 has it, such as 2027-06-30T12:00:00Z"
    offset = (int(found[5]) * 3600 + int(found[6]) * 60) * (-1 if found[4] == "-" else 1) if found[4] else 0
    seconds = moment.days * 86_400 + moment.seconds - offset
    if not 0 <= seconds < 9_000_000_000:
        return "a time before 1970 or after 2255"
    return seconds * 1_000_000_000 + int((found[3] or "0").ljust(9, "0"))


def clip(text: str) -> str:
    """Words as answers and entries have them: printable, and not endless."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= DETAIL_CHARACTERS else f"{shown[: DETAIL_CHARACTERS - 1]}…"
