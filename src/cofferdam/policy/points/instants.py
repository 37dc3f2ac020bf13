"""Times as people write them, and as a count of 100 ns since 1601 (UTC), which is what devices hold and limits compare.

Whole seconds only are written in a policy: each of them is a number that a float holds exactly.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_BEGIN = datetime(1601, 1, 1, tzinfo=UTC)
_TICKS = 10_000_000
_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))?\Z")
EXPECTED = "a time such as 2027-06-30T12:00:00Z, or a day"


def parse(text: str) -> int | None:
    """The time that a text says, which is a whole second; None for a text that is none."""
    if not _FORM.match(text):
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    since = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - _BEGIN
    seconds = since.days * 86_400 + since.seconds
    return seconds * _TICKS if seconds >= 0 else None


def show(ticks: int | float) -> str:
    """The time of a count, in UTC; the count itself where no calendar has it."""
    seconds, rest = divmod(int(ticks), _TICKS)
    try:
        found = _BEGIN + timedelta(seconds=seconds)
    except OverflowError:
        return str(int(ticks))
    part = f".{rest:07}".rstrip("0") if rest else ""
    return f"{found:%Y-%m-%dT%H:%M:%S}{part}Z" if found >= _BEGIN else str(int(ticks))
