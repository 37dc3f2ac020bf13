"""The records between the gate and the name server. As with a half: typed, strictly decoded, no path and no key."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.plans.overlay import NameZone

ZONE_BYTES: Final = 16 << 20
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, Meta(max_length=4096)]


class SetZone(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Answer from this zone from now on. The first one also says that all is set up: the process confines itself."""

    zone: NameZone


class StopNames(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Exit with code 0."""


ToNames = SetZone | StopNames


class NamesReady(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The zone with this serial is served. `facts`: the separation that the process has put itself under."""

    serial: Count
    facts: tuple[tuple[str, bool, Text], ...] = ()


class NamesStatus(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Counters since the start: questions that came, answers that went, and what got none or a short one.

    `refused` were for names outside the zone, `limited` came too fast, `malformed` were no questions."""

    questions: Count
    answers: Count
    refused: Count
    limited: Count
    malformed: Count
    connections: Count


FromNames = NamesReady | NamesStatus

TO_NAMES: RecordCodec[ToNames] = RecordCodec(ToNames, limit=ZONE_BYTES)
FROM_NAMES: RecordCodec[FromNames] = RecordCodec(FromNames, limit=ZONE_BYTES)
