"""What the gate asks of the leak probe's part, and what it answers: one record each way, then it ends."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec

ROUND_BYTES: Final = 4 << 20
Address = Annotated[str, Meta(max_length=45, pattern=r"^[0-9A-Fa-f.:]+$")]
Text = Annotated[str, Meta(max_length=256)]


class AskRound(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Ask for these addresses, by these ports."""

    targets: Annotated[tuple[tuple[Address, Annotated[int, Meta(ge=1, le=65535)]], ...], Meta(max_length=65536)]


class RoundDone(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Who answered: (address, how, in what way); and how many questions went out by each interface."""

    answers: Annotated[tuple[tuple[Address, Text, Text], ...], Meta(max_length=65536)]
    asked: dict[Text, Annotated[int, Meta(ge=0)]]


ASK_ROUND: RecordCodec[AskRound] = RecordCodec(AskRound, limit=ROUND_BYTES)
ROUND_DONE: RecordCodec[RoundDone] = RecordCodec(RoundDone, limit=ROUND_BYTES)
