"""Events of the log itself: how it was opened, what a crash left, a clock that jumps, what is no longer kept."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cofferdam.audit.events.base import (
    Cell,
    Count,
    Event,
    Name,
    Text,
    WallNs,
)
from cofferdam.audit.events.lines import Line, Said


class ClockJump(Event, frozen=True, kw_only=True):
    """The wall clock and the monotonic clock parted by `jump_ns` (signed, text) since they were last compared. The
    time in the log stays ordered: after a jump back it stands still until the clock has caught up."""

    jump_ns: Annotated[str, Meta(max_length=24, pattern="^-?[0-9]+$")]
    clock: Annotated[str, Meta(max_length=40)]


class TornTail(Event, frozen=True, kw_only=True):
    """The log was not closed in an orderly way. `entries` were recovered from the journal; `cut_bytes` at the end of
    the journal were an unfinished append, never acknowledged to anyone, and were cut off."""

    entries: Count
    cut_bytes: Count


class LogOpened(Event, frozen=True, kw_only=True):
    """The auditor opened the log. `key` is the verifier key that signs from here on; `size` how many entries were
    there before. `anchor` is the size of the checkpoint that the gate had last seen of it (0: it knew of none): the log
    still begins with that."""

    key: Text
    size: Count
    anchor: Count = 0


class EntriesDropped(Event, frozen=True, kw_only=True):
    """The entries from `first` to the one before `stop` are no longer in the log's folder, as the policy's retention
    has it: `why` is "keep" (all are older) or "at-most" (the log was larger). `root` is the tree's root for the first
    `stop` entries (base64), `since` and `until` the times of the first and last that went; `bytes` is what they took on
    disk. `moved`: they lie in the folder `archive` of the state directory, else nowhere. Below `stop` nothing is
    left."""

    first: Count
    stop: Count
    root: Annotated[str, Meta(max_length=44)]
    why: Annotated[str, Meta(max_length=16)]
    since: Annotated[str, Meta(max_length=40)]
    until: Annotated[str, Meta(max_length=40)]
    bytes: Count = 0
    moved: bool = False


class Missing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What of one principal (or one address that is nobody's), or of all `others`, is missing: so many events, `writes`
    of them refused writes with raw values from `least` to `greatest`; `said` is the distinct cells and items that they
    named, as far as there is room."""

    who: Name
    asset: Name = ""
    count: Count = 0
    writes: Count = 0
    least: Cell = 0
    greatest: Cell = 0
    said: Text = ""


class NotRecorded(Event, frozen=True, kw_only=True):
    """`count` entries of `producer` ("": of the maker of this one) are not in the log, and `reason` is why: they came
    when the auditor did not keep up, above what the producer may write, or one did not fit. `kinds` counts them by
    kind of event where that is known, as pairs; `who` says whom they were about."""

    count: Count
    reason: Text
    producer: Name = ""
    kinds: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=64)] = ()
    from_ns: WallNs = 0
    to_ns: WallNs = 0
    who: Annotated[tuple[Missing, ...], Meta(max_length=64)] = ()


CROWD = frozenset({NotRecorded})
"""What whoever speaks with a part can cause as often as they like: the log has so much room for it in a day."""

Draft = ClockJump | TornTail | LogOpened | NotRecorded | EntriesDropped
LOG: tuple[type[Event], ...] = (ClockJump, TornTail, LogOpened, EntriesDropped)
"""What the log alone may say: refused from every producer."""
ANYONE: tuple[type[Event], ...] = (NotRecorded,)
"""What every producer may say besides what its profile lists."""


def _not_recorded(event: Said) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in event.get("kinds", ()))
    of = f" of {event['producer']}" if event.get("producer") else ""
    about = "; ".join(map(_missing, event.get("who", ())[:8]))
    return (
        f"{event.get('count')} entries{of} are missing{f' ({kinds})' if kinds else ''}: {event.get('reason')}"
        f"{f'; {about}' if about else ''}"
    )


def _missing(row: Any) -> str:
    who, asset, count, writes, least, greatest, said = row
    where = f" → {asset}" if asset else ""
    values = f", of them {writes} refused writes of {least} to {greatest} ({said})" if writes else ""
    return f"{who or '?'}{where}: {count}{values}"


LINES: dict[str, Line] = {
    "clock-jump": lambda e: f"the clock jumped by {int(e.get('jump_ns', '0')) / 1e9:+.3f} s to {e.get('clock')}",
    "torn-tail": lambda e: (
        f"after a crash: {e.get('entries')} entries recovered from the journal, {e.get('cut_bytes')} bytes of an"
        " unfinished append cut off"
    ),
    "log-opened": lambda e: f"with {e.get('size')} entries, key {e.get('key')}",
    "not-recorded": _not_recorded,
    "entries-dropped": lambda e: (
        f"entries {e.get('first')} to {int(e.get('stop', 0)) - 1}, of {e.get('since')} to {e.get('until')}, were"
        f" {'moved to the archive' if e.get('moved') else 'dropped'} ({e.get('why')}); root {e.get('root')}"
    ),
}
