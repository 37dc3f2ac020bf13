"""What the gate and the witness's part say to each other.

The part sees nothing of the log but its signed heads, and the hashes by which one goes on from another.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.rows import MOST_WITNESSES, Witness

Name = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=1024)]
Note = Annotated[bytes, Meta(max_length=4096)]
Hashes = Annotated[tuple[Annotated[bytes, Meta(min_length=32, max_length=32)], ...], Meta(max_length=63)]
Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Keepers(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Give heads to these from now on. `log`: the log's public key; `secret`: the private SSH key by which we sign in
    at those that are reached by SFTP (b"": there is none); `seconds`: from one visit to the next."""

    log: Text
    witnesses: Annotated[tuple[Witness, ...], Meta(max_length=MOST_WITNESSES)]
    secret: bytes = b""
    seconds: Annotated[float, Meta(gt=0)] = 60.0


class Head(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The answer to `Want`: the signed head, and how it goes on from the tree of `old` entries. `why`: why there is
    none."""

    witness: Name
    old: Size
    note: Note
    hashes: Hashes = ()
    why: Text = ""


class StopWitness(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Close connections and end."""


class WitnessReady(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """It has put its filter on. `facts`: what is in force."""

    facts: tuple[tuple[Text, bool, Text], ...] = ()


class Alive(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """It turns."""


class Want(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Which head is there for this witness, going on from `old` entries?"""

    witness: Name
    old: Size


class Kept(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """A witness has this head now; `note` has its co-signature where it gives one."""

    witness: Name
    size: Size
    note: Note


class NotKept(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """A witness has not taken it. `wrong`: what it has does not lead to our log, or is of another key."""

    witness: Name
    wrong: bool
    detail: Text


ToWitness = Keepers | Head | StopWitness
FromWitness = WitnessReady | Alive | Want | Kept | NotKept
TO_WITNESS: Final[RecordCodec[ToWitness]] = RecordCodec(ToWitness, limit=1 << 20)
FROM_WITNESS: Final[RecordCodec[FromWitness]] = RecordCodec(FromWitness, limit=64 << 10)
