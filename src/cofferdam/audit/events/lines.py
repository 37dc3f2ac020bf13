"""What the topics' lines for people are made of.

A `Said` is an event as read back from the log: a plain mapping, since an older log may hold kinds that have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Said = Mapping[str, Any]
Line = Callable[[Said], str]


def who(event: Said) -> str:
    """The principals and the address they came from."""
    names = ", ".join(event.get("principals", ()))
    return f"{names} ({event.get('source', '?')})" if names else str(event.get("source", "?"))


def many(event: Said, member: str, noun: str) -> str:
    """How many the event says: "1 read", "2 reads"."""
    count = event.get(member)
    return f"{count} {noun}{'' if count == 1 else 's'}"


def times(event: Said) -> str:
    """Its count in words."""
    count = event.get("count")
    return "once" if count == 1 else f"{count} times"


def seconds(nanoseconds: object) -> str:
    """A duration in a unit that suits it."""
    value = int(str(nanoseconds or 0))
    if value < 1_000_000:
        return f"{value / 1000:.0f} µs"
    return f"{value / 1e6:.1f} ms" if value < 1_000_000_000 else f"{value / 1e9:.1f} s"


def span_ns(event: Said) -> int:
    """How long the interval is that the event counts over."""
    return int(str(event.get("to_ns", 0))) - int(str(event.get("from_ns", 0)))


def members(event: Said) -> str:
    """All that the event says, for a kind without a line of its own."""
    hidden = ("kind", "wall_ns")
    said = {name: value for name, value in event.items() if name not in hidden and value not in ("", [])}
    return ", ".join(f"{name} {value}" for name, value in said.items())
