"""How the launcher introduces a producer of audit entries to the auditor: one packet of a SOCK_SEQPACKET socket pair,
with two descriptors (SCM_RIGHTS): the end to read batches from and the end to answer on.

Here, since the launcher (enforce) and the auditor (audit) never import each other. No half has such a socket.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec

INTRODUCTION_BYTES: Final = 16384


class Introduction(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """`resumed`: an earlier auditor may have read the beginning of a record from this producer. `says`: the kinds of
    events that it may tell."""

    name: Annotated[str, Meta(max_length=256)]
    resumed: bool
    says: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=256)] = ()


INTRODUCTIONS: RecordCodec[Introduction] = RecordCodec(Introduction, limit=INTRODUCTION_BYTES)
