"""Seams: one broker has its clients served by another, as the jump server does with a forwarded port.

There are two of them for an asset, each of two one-way pipes between parts on the same side:

    front/outer ◄──► back/outer   what clients say and are told, as bytes, since both parts face the same network and
                                  the back parses and judges what comes here as it does what comes by its own sockets
    front/inner ◄──► back/inner   which of the front's sessions live: the back's inner part takes requests that came by
                                  a seam for those sessions alone, and ends what comes by one when it hears of its end

So an outer part that was taken over gets no further by a seam than by the sessions that live, and what ends a session
on the inside ends it at both brokers.

Either end says `Fresh` when it begins, and the other gives up what stood before: crews come and go one by one. Lines
are numbered upwards over all lives of the front, so that nothing that lies in a pipe from an earlier one fits a new
line. Every record fits one packet. What breaks the rules closes the seam, and nothing else.

Not here: what the ends do (seam_ends), the pipes (enforce.seams), who may come (policy), sessions of the front (its
broker).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

PIECE: Final = 2_048
"""Bytes of data in one record: with all around them they fit one packet."""
CREDIT: Final = 65_536
"""Bytes under way in one direction of one line."""
LINES: Final = 1_024
"""Lines of one seam."""
LENT: Final = 4_096
"""Sessions that are lent by one seam."""
PACKETS_A_TURN: Final = 4
"""No more are read at once: another crew's part that talks without end does not hold up clients who come by sockets."""
AGAIN_NS: Final = 3 * 10**9
"""How often the front says anew that a session lives."""
SILENT_NS: Final = 15 * 10**9
"""So long after it last did, the back takes it for ended: a crew that is gone withdraws nothing."""

Line = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Name = Annotated[str, Meta(max_length=128)]
Session = Annotated[str, Meta(min_length=1, max_length=128)]
Conduit = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
Address = Annotated[str, Meta(max_length=64)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Text = Annotated[str, Meta(max_length=256)]
Data = Annotated[bytes, Meta(min_length=1, max_length=PIECE)]
Count = Annotated[int, Meta(ge=1, le=CREDIT)]


class Fresh(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """This end has just begun: nothing stands."""


class Come(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """A client has come, within this session of the front. `conduit`: the front's, by which it counts here. Answered by
    Served or Over."""

    line: Line
    session: Session
    conduit: Conduit
    person: Name
    source: Address
    port: Port


class Served(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """The client of this line has been taken in."""

    line: Line


class Said(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """Bytes of the client, or for it."""

    line: Line
    data: Data


class Took(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """So many bytes of the other end were handed on."""

    line: Line
    count: Count


class Over(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The line has ended."""

    line: Line
    reason: Text = ""


class Lend(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """A session of the front lives: within it this asset may be asked, as this person. Answered by Known."""

    session: Session
    conduit: Conduit
    asset: Name
    person: Name


class Withdraw(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """It has ended, and all that came by it is to end."""

    session: Session


class Known(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """What is lent by this session is served from now on."""

    session: Session


Record = Fresh | Come | Served | Said | Took | Over | Lend | Withdraw | Known


def codec() -> RecordCodec[Any]:
    """All that goes through a seam."""
    return RecordCodec(Record)


def unfit(record: object) -> CrossingError:
    return CrossingError(f"{type(record).__name__} at this end of a seam")
