"""Events of the historian mirror: what was taken and sealed, lost, refused, dropped, verified, and read by whom.

Samples never stand here: a sealed file is named by its hours and its SHA-256. Hours are counted from 1970, UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta

from cofferdam.audit.events import http
from cofferdam.audit.events.base import Count, Event, Hash, Name, Names, Text
from cofferdam.audit.events.lines import Line, Said

Hour = Annotated[int, Meta(ge=-(1 << 24), le=1 << 24)]


class MirrorOpened(Event, frozen=True, kw_only=True):
    """The keeper opened its store. `commit`: the last that it has; `found`: what it had to mend, "" for nothing."""

    conduit: Name
    generation: Count
    commit: Count
    files: Count
    tags: Count
    found: Text = ""


class HistorySealed(Event, frozen=True, kw_only=True):
    """A sealed file is in the catalogue: `rows` samples of `tags` tags in the hours from `first` to `last`. `merged`:
    so many files were made into this one, which replaces them (0: what was newly taken)."""

    conduit: Name
    file: Name
    sha256: Hash
    first: Hour
    last: Hour
    rows: Count
    tags: Count
    size: Count
    commit: Count
    merged: Count = 0


class SamplesLost(Event, frozen=True, kw_only=True):
    """Samples are not there and will not come by themselves: a spool that was full, a file that was damaged."""

    conduit: Name
    source: Name
    since_hour: Hour
    until_hour: Hour
    points: Count
    why: Text


class SamplesRefused(Event, frozen=True, kw_only=True):
    """Samples of a source were not taken: `count` with this fault, `tag` and `detail` of the first."""

    conduit: Name
    source: Name
    fault: Name
    count: Count
    tag: Text = ""
    detail: Text = ""


class SourceTold(Event, frozen=True, kw_only=True):
    """A source is other than it was: away, back, with other columns, slower."""

    conduit: Name
    source: Name
    state: Literal["away", "back", "differs"]
    detail: Text = ""


class HistoryDropped(Event, frozen=True, kw_only=True):
    """Sealed files were removed: for their age, for want of room, or because they were damaged (set aside)."""

    conduit: Name
    file: Name
    first: Hour
    last: Hour
    rows: Count
    why: Literal["age", "room", "damaged"]
    detail: Text = ""


class HistoryHeld(Event, frozen=True, kw_only=True):
    """A person keeps a time from being dropped, or lets it go."""

    conduit: Name
    first: Hour
    last: Hour
    by: Name
    reason: Text = ""
    held: bool = True


class MirrorVerified(Event, frozen=True, kw_only=True):
    """Hours were counted: in the store alone, or `against` its source. `differ` of tags and hours were not equal, and
    were asked for again."""

    conduit: Name
    against: Literal["store", "source"]
    first: Hour
    last: Hour
    tags: Count
    points: Count
    differ: Count
    damaged: Count = 0
    by: Name = ""
    detail: Text = ""


class HistoryRead(Event, frozen=True, kw_only=True):
    """What a principal read within an interval: so many answers with so many rows, of which tags (the first few)."""

    conduit: Name
    principal: Name
    key: Name
    what: Name
    answers: Count
    rows: Count
    tags: Names = ()


Draft = (
    MirrorOpened | HistorySealed | SamplesLost | SamplesRefused | SourceTold | HistoryDropped | HistoryHeld
    | MirrorVerified | HistoryRead
)  # fmt: skip
GATE: tuple[type[Event], ...] = ()
SOURCE: tuple[type[Event], ...] = (SamplesRefused, SourceTold, http.KeysSet)
SPOOLER: tuple[type[Event], ...] = (SamplesLost,)
KEEPER: tuple[type[Event], ...] = (
    MirrorOpened, HistorySealed, SamplesLost, SamplesRefused, HistoryDropped, HistoryHeld, MirrorVerified,
)  # fmt: skip
READER: tuple[type[Event], ...] = (HistoryRead, *http.HTTP)


def _hours(event: Said, first: str = "first", last: str = "last") -> str:
    begin = datetime.fromtimestamp(int(event.get(first, 0)) * 3600, UTC)
    end = datetime.fromtimestamp((int(event.get(last, 0)) + 1) * 3600, UTC)
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


LINES: dict[str, Line] = {
    "mirror-opened": lambda e: (
        f"{e.get('conduit')}: generation {e.get('generation')}, {e.get('files')} files, {e.get('tags')} tags"
        + (f"; {e['found']}" if e.get("found") else "")
    ),
    "history-sealed": lambda e: (
        f"{e.get('conduit')}: {e.get('rows')} samples of {e.get('tags')} tags, {_hours(e)}, SHA-256"
        f" {str(e.get('sha256'))[:16]}…" + (f", out of {e['merged']} files" if e.get("merged") else "")
    ),
    "samples-lost": lambda e: (
        f"{e.get('conduit')}: {e.get('points')} samples of {e.get('source')},"
        f" {_hours(e, 'since_hour', 'until_hour')}: {e.get('why')}"
    ),
    "samples-refused": lambda e: (
        f"{e.get('conduit')}: {e.get('count')} of {e.get('source')}, {e.get('fault')}: {e.get('tag')} {e.get('detail')}"
    ),
    "source-told": lambda e: f"{e.get('conduit')}: {e.get('source')} {e.get('state')}: {e.get('detail')}",
    "history-dropped": lambda e: f"{e.get('conduit')}: {e.get('rows')} samples, {_hours(e)}: {e.get('why')}",
    "history-held": lambda e: (
        f"{e.get('by')} {'keeps' if e.get('held') else 'lets go'} {_hours(e)} of {e.get('conduit')}: {e.get('reason')}"
    ),
    "mirror-verified": lambda e: (
        f"{e.get('conduit')} against {e.get('against')}: {e.get('tags')} tags, {e.get('points')} samples, {_hours(e)};"
        f" {e.get('differ') or 'no'} differences"
    ),
    "history-read": lambda e: (
        f"{e.get('principal')} ({e.get('key')}) {e.get('what')}: {e.get('rows')} rows in {e.get('answers')} answers,"
        f" {', '.join(e.get('tags', ()))}"
    ),
}
