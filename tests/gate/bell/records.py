"""What crosses between the parts of the bell. `number` ties an answer to its question.

An answer to no question ends the crew.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Bell = Annotated[str, Meta(min_length=1, max_length=40, pattern="^[a-z]+$")]


class Ring(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    number: Number
    source: Annotated[str, Meta(max_length=45)]
    bell: Bell


class Rung(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    number: Number
    done: bool


def to_inner(*_: Any) -> RecordCodec[Ring]:
    return RecordCodec(Ring)


def to_outer(*_: Any) -> RecordCodec[Rung]:
    return RecordCodec(Rung)
