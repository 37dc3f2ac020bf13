"""All that the parts of a mirror can say to each other.

    collector  ==>  spooler  ==>  keeper        samples; what was counted at a source; what was lost
    collector  <==  spooler  <==  keeper        what is on disk; what is to be counted or read again; what is held

Samples travel as columns: byte strings of equal count, little-endian, and the names and texts that they point into.
Each record stands for itself: what a tag is called is in it.

Rules of order, held by whoever receives (breaking one ends the crew, with an entry):

    1. the batches of a lane are numbered 1, 2, 3, ... by the spooler; `Lost` stands for those that it names
    2. a batch that the keeper has (it was sent again) is of a number that it has taken, and is passed over
    3. each source is one of the policy's, and each tag one that the source may have

With `acks: none` there are no pipes back; then the spooler sends all that it keeps again when it is born, and rule 2
makes that harmless.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.terms.mirror_rows import TAG_CHARACTERS

POINTS_MOST: Final = 20_000
"""Samples of one batch."""
TEXT_BYTES: Final = 1 << 20
"""All texts of one batch, and so of one value."""
RECORD_BYTES: Final = 16 << 20
HOURS_MOST: Final = 24
"""Hours of one count."""
COUNTS_MOST: Final = 100_000
"""Tags of one count."""
HOLDS_MOST: Final = 1_000
"""Times that are held."""

FLOAT, WHOLE, BOOL, TEXT = 0, 1, 2, 3
"""Kinds of values. The 8 bytes of one are a float64's, an int64, 0 or 1, or the place of a text."""

Lane = Literal["live", "backfill"]
LANES: Final[tuple[Lane, ...]] = ("live", "backfill")
Number = Annotated[int, Meta(ge=0, le=(1 << 62))]
Ns = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Hour = Annotated[int, Meta(ge=-(1 << 24), le=1 << 24)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
TagName = Annotated[str, Meta(min_length=1, max_length=TAG_CHARACTERS)]
Words = Annotated[bytes, Meta(max_length=POINTS_MOST * 8)]


class Samples(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A batch. `number`: of its lane. `upto`: the source's samples up to this time (UTC ns) have all been read, once
    this batch is kept; -1: nothing is said of that. `tag`: uint32 places in `names`; `time`, `server`: int64 UTC ns
    (`server` may be empty: none has one); `value`: 8 bytes each, as `kind` (uint8) says; `quality`: int64, raw."""

    lane: Lane
    number: Number
    source: Name
    upto: Ns
    names: Annotated[tuple[TagName, ...], Meta(max_length=POINTS_MOST)]
    tag: Annotated[bytes, Meta(max_length=POINTS_MOST * 4)]
    time: Words
    kind: Annotated[bytes, Meta(max_length=POINTS_MOST)]
    value: Words
    quality: Words
    server: Words = b""
    texts: Annotated[tuple[Annotated[str, Meta(max_length=TEXT_BYTES)], ...], Meta(max_length=POINTS_MOST)] = ()

    @property
    def count(self) -> int:
        """Its samples."""
        return len(self.kind)


class Lost(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """The spool was full: these batches of a lane, of `points` samples between two times, are not there any more."""

    lane: Lane
    first: Annotated[int, Meta(ge=1, le=1 << 62)]
    last: Annotated[int, Meta(ge=1, le=1 << 62)]
    source: Name
    since: Ns
    until: Ns
    points: Number


class Counted(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """What a source has of one hour (since 1970, UTC): samples of different times, by tag. `request`: whose answer it
    is; `failed`: why it could not be counted, "" if it was. `digests`: where values were asked for, of each tag the
    digest of its samples (columns), or none where it has several of one time. `state`: `going`, where it is no answer
    yet, and the source is still being read; `away`, where it failed since the source does not answer, and would not
    answer a smaller question either."""

    request: Number
    source: Name
    hour: Hour
    names: Annotated[tuple[TagName, ...], Meta(max_length=COUNTS_MOST)] = ()
    counts: Annotated[tuple[Number, ...], Meta(max_length=COUNTS_MOST)] = ()
    failed: Annotated[str, Meta(max_length=512)] = ""
    digests: Annotated[tuple[Ns | None, ...], Meta(max_length=COUNTS_MOST)] = ()
    state: State = ""


class Stored(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """The spooler has so many batches of this part on disk, since the part was born."""

    count: Number


class Begin(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The first that the spooler says: up to when each source has been read (UTC ns)."""

    upto: dict[Name, Ns]


class Taken(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """The keeper has the batches of each lane up to these numbers, durably."""

    live: Number
    backfill: Number


State = Literal["", "going", "away"]


class Count(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """Count an hour at the source, or so many from it on: each is answered by one `Counted`. `values`: not only how
    many samples there are, but also which."""

    request: Number
    source: Name
    hour: Hour
    values: bool = False
    hours: Annotated[int, Meta(ge=1, le=HOURS_MOST)] = 1

    def not_counted(self, why: str, state: State = "away") -> Counted:
        """The answer that it was not, or not yet. `why`: of 512 characters at most."""
        return Counted(self.request, self.source, self.hour, failed=why, state=state)


class Fetch(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """Read this time at the source again, into the backfill lane."""

    source: Name
    since: Ns
    until: Ns


class Held(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """Hours since 1970, from and to, that are kept whatever their age: a file that has such is taken."""

    hours: Annotated[tuple[tuple[Hour, Hour], ...], Meta(max_length=HOLDS_MOST)]


FromSource = Samples | Counted
ToKeeper = Samples | Lost | Counted
FromKeeper = Taken | Count | Fetch | Held
ToSource = Begin | Stored | Count | Fetch | Held


def from_source(*_: Any) -> RecordCodec[FromSource]:
    """Collector to spooler."""
    return RecordCodec(FromSource, limit=RECORD_BYTES)


def to_source(*_: Any) -> RecordCodec[ToSource]:
    """Spooler to collector."""
    return RecordCodec(ToSource, limit=RECORD_BYTES)


def to_keeper(*_: Any) -> RecordCodec[ToKeeper]:
    """Spooler to keeper."""
    return RecordCodec(ToKeeper, limit=RECORD_BYTES)


def from_keeper(*_: Any) -> RecordCodec[FromKeeper]:
    """Keeper to spooler."""
    return RecordCodec(FromKeeper, limit=RECORD_BYTES)
