"""The records of the diode: what goes over the strand, and what goes between its parts.

Over the strand, in sealed blocks: `Piece`, `Beat`, `Known`. The receiver decodes them strictly and believes nothing of
them but who sealed them; the keeper holds them to the policy and to its ledger.

Order: a spool says `Begin` once, first; then pieces, in the order of their numbers but for re-sends. A sender answers
with `Room` alone. A keeper says `Start` once; a receiver says `Epoch` before anything of it.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

PIECE_BYTES: Final = 256 << 10
"""The largest body of one record."""
CHUNK_BYTES: Final = 48 << 10
"""Of a file, in one record."""
CHANNELS_MOST: Final = 256
SPANS_MOST: Final = 64
"""Epochs of a channel in a heartbeat."""
RECORD_BYTES: Final = 1 << 20

Name = Annotated[str, Meta(min_length=1, max_length=130, pattern=r"^[a-z]+:[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A channel: what rides, and its name, as `files:reports`, `records:history`."""
Number = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Ns = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, Meta(max_length=512)]


# --- over the strand --------------------------------------------------------------------------------------------------


class Piece(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """One record of a channel. `epoch`: the one in which it got its number."""

    channel: Name
    epoch: Number
    number: Number
    body: Annotated[bytes, Meta(max_length=PIECE_BYTES)]
    prompt: bool = False
    again: bool = False


class Span(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of a channel in an epoch: the oldest number that is kept, and the highest that was given."""

    epoch: Number
    oldest: Number
    highest: Count


class Told(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One channel in a heartbeat. `waits`: records of it that were given some seconds
    ago and have not left."""

    channel: Name
    spans: Annotated[tuple[Span, ...], Meta(max_length=SPANS_MOST)]
    waits: Count = 0


class Beat(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The heartbeat: the sender's clock, as told; bytes that wait to be sent; what was given of each channel.
    `dropped`: records that the spool had no room for."""

    epoch: Number
    wall_ns: Ns
    queue: Count
    channels: Annotated[tuple[Told, ...], Meta(max_length=CHANNELS_MOST)]
    dropped: Count = 0


class Known(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """A block that is known, for `diode test`: number `at` of `of` that were sent at `rate` bits a second."""

    run: Count
    rate: Count
    at: Count
    of: Count
    fill: Annotated[bytes, Meta(max_length=PIECE_BYTES)] = b""


OnStrand = Piece | Beat | Known


# --- spool and sender -------------------------------------------------------------------------------------------------


class Begin(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """A new epoch begins, above all before."""

    epoch: Number


class Pace(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """For a test: send at so many bits a second, until the next such word; 0: as the policy says."""

    rate: Count


class Room(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """So many bytes have left since the last such word: of bulk bodies, and of bodies and heartbeats that are
    prompt. `under_way`: of all bulk that has left so much, the last, is in blocks of which more has to: it cannot be
    there yet."""

    sent: Count
    prompt: Count = 0
    under_way: Count = 0


ToSender = Begin | Piece | Beat | Known | Pace
FromSender = Room


# --- teller and spool -------------------------------------------------------------------------------------------------


class Bit(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Part of what the gate tells (a `LogUnit` or `StatusUnit`, encoded); there is `more` of it. `log`: so many entries
    have been told once this is taken; 0: as many as before."""

    what: Literal["log", "status"]
    data: Annotated[bytes, Meta(max_length=PIECE_BYTES)]
    more: bool
    log: Count = 0


class Go(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The spool takes the next one. `log`: so many entries of the log have been told."""

    log: Count


FromTeller = Bit
ToTeller = Go


def from_teller(*_: object) -> RecordCodec[FromTeller]:
    """The codec from the teller to the spool."""
    return RecordCodec(FromTeller, limit=RECORD_BYTES)


def to_teller(*_: object) -> RecordCodec[ToTeller]:
    """The codec from the spool to the teller."""
    return RecordCodec(ToTeller, limit=1 << 10)


# --- receiver and keeper ----------------------------------------------------------------------------------------------


class Start(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """No epoch at or below this one is taken."""

    above: Count


class Epoch(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """A sender that is known has begun an epoch. `sender`: the words of its key."""

    epoch: Number
    wall_ns: Ns
    sender: Text


class Trouble(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """What the receiver saw since the last such word: packets that are not the sender's, blocks that were lost, packets
    that the kernel dropped, records that the keeper did not take in time."""

    foreign: Count
    blocks: Count
    kernel: Count
    overrun: Count


ToKeeper = Epoch | Piece | Beat | Known | Trouble
FromKeeper = Start


def to_sender(*_: object) -> RecordCodec[ToSender]:
    """The codec from the spool to the sender."""
    return RecordCodec(ToSender, limit=RECORD_BYTES)


def from_sender(*_: object) -> RecordCodec[FromSender]:
    """The codec from the sender to the spool."""
    return RecordCodec(FromSender, limit=1 << 10)


def to_keeper(*_: object) -> RecordCodec[ToKeeper]:
    """The codec from the receiver to the keeper."""
    return RecordCodec(ToKeeper, limit=RECORD_BYTES)


def from_keeper(*_: object) -> RecordCodec[FromKeeper]:
    """The codec from the keeper to the receiver."""
    return RecordCodec(FromKeeper, limit=1 << 10)


# --- files ------------------------------------------------------------------------------------------------------------

FileName = Annotated[str, Meta(min_length=1, max_length=255)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """A file of so many bytes comes in the pieces from `first` to `last`; `part` of an epoch names them with the
    piece's own epoch. Its SHA-256 and time of change as the inside has them."""

    name: FileName
    size: Annotated[int, Meta(ge=0, le=1 << 44)]
    sha256: Hash
    changed_ns: Ns
    chunks: Annotated[int, Meta(ge=0, le=1 << 32)]


class Chunk(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Bytes of a file from `offset` on. `manifest`: the number of its manifest, in the same epoch."""

    manifest: Number
    offset: Annotated[int, Meta(ge=0, le=1 << 44)]
    data: Annotated[bytes, Meta(min_length=1, max_length=CHUNK_BYTES)]


FILES: Final[RecordCodec[Manifest | Chunk]] = RecordCodec(Manifest | Chunk, limit=PIECE_BYTES)
"""What the pieces of a channel of files hold."""


# --- records of conduits that ride ------------------------------------------------------------------------------------

_PART: Final = struct.Struct(">HH")
PART_BYTES: Final = PIECE_BYTES - _PART.size
PARTS_MOST: Final = 1024


def parts(data: bytes) -> list[bytes]:
    """The bodies of the pieces that hold what a conduit has handed over at a time: each says which of how many it is.

    Raises: CrossingError, where it is too much.
    """
    count = max(1, -(-len(data) // PART_BYTES))
    if count > PARTS_MOST:
        raise CrossingError(f"{len(data)} bytes of records at a time")
    return [_PART.pack(at, count) + data[at * PART_BYTES : (at + 1) * PART_BYTES] for at in range(count)]


def part(body: bytes) -> tuple[int, int, bytes]:
    """(which, of how many, bytes) of a piece. Raises: CrossingError."""
    if len(body) <= _PART.size:
        raise CrossingError("a piece of records with nothing in it")
    at, count = _PART.unpack_from(body)
    if not at < count <= PARTS_MOST:
        raise CrossingError(f"piece {at} of {count}")
    return at, count, body[_PART.size :]


# --- what the gate inside tells of itself -----------------------------------------------------------------------------

LOG_FILE_BYTES: Final = 17 << 20
"""The largest file of a log: 256 entries of 64 kB."""
UNIT_BYTES: Final = LOG_FILE_BYTES + (1 << 20)


class LogFile(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tile of the audit log, by its path: it is what it is for good."""

    path: Annotated[str, Meta(max_length=128)]
    data: Annotated[bytes, Meta(max_length=LOG_FILE_BYTES)]


class LogUnit(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Tiles of the audit log; `head`: a checkpoint that they and earlier ones lead up to; `dropped`: which entries are
    not kept inside any more, as the log says it."""

    files: Annotated[tuple[LogFile, ...], Meta(max_length=4096)]
    head: Annotated[bytes, Meta(max_length=1 << 16)] = b""
    dropped: Annotated[bytes, Meta(max_length=1 << 10)] = b""


class StatusUnit(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The gate's status as JSON, compressed (zlib)."""

    wall_ns: Ns
    data: Annotated[bytes, Meta(max_length=1 << 16)]


GATE: Final[RecordCodec[LogUnit | StatusUnit]] = RecordCodec(LogUnit | StatusUnit, limit=UNIT_BYTES)
"""What the channels `gate:log` and `gate:status` carry."""

State = Literal["one-way by hardware", "one-way by software", "one-way by software, and not separated here"]
