"""What the nightly proof's process says to the gate besides what it has it record: what it did, and could not do."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec

Text = Annotated[str, Meta(max_length=500)]


class NightBegins(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """From the gate: there is nothing to say. It makes the type of what goes that way."""


class NightDone(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """It is over. `done`: what was done, by the names of the verbs, and whether it found nothing wrong; `failed`: what
    was not, and why."""

    done: Annotated[tuple[tuple[Text, bool], ...], Meta(max_length=8)]
    failed: Annotated[tuple[tuple[Text, Text], ...], Meta(max_length=8)]


TO_NIGHT: Final[RecordCodec[NightBegins]] = RecordCodec(NightBegins, limit=4096)
FROM_NIGHT: Final[RecordCodec[NightDone]] = RecordCodec(NightDone, limit=64 << 10)
