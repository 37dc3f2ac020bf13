"""All that the parts of the patch relay can say to each other, and the nouns that they share.

What the keeper believes of the intake: who uploads (only the intake has seen the client, and signs what it saw),
within the principals that the policy lets put. What it believes of the fetcher: from which source a file is, within
the rules that fetch; and what it says of its own work, for `status`. What the installer believes of the keeper:
nothing. A `Fresh` is a hint to look; whatever it finds must be signed by people. What the keeper believes of the
installer: that it is told the truth for `status`.

Rules of order, held by the keeper (breaking one ends the crew, with an entry):

    1. uploads (of the intake, and of the fetcher) are numbered 1, 2, 3, ... by `Begin` or `Fetch`;
       chunks and the end name one that is open
    2. no more bytes than `Room` has given

Every upload is answered exactly once, by `Taken` or `Declined`; after `GiveUp` it is not.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.terms.patch_rows import LARGEST_FILE

CHUNK_BYTES: Final = 256 << 10
WINDOW_BYTES: Final = 4 << 20
"""Bytes of one upload that are under way between intake and keeper."""
RELEASES_MOST: Final = 10_000
WAITS: Final = "waits"
"""The detail of "have", where a signature or a list is still to come."""
SHORT: Final = 32
"""Characters of a release's digest, for those who compare."""
UPLOADS_MOST: Final = 8
"""Uploads at once."""

Id = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Size = Annotated[int, Meta(ge=0, le=LARGEST_FILE)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
FileName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\Z")]
"""A file's name or a version: a part of a path that means nothing to any file system, shell or device."""
Who = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=512)]
Count = Annotated[int, Meta(ge=0, le=(1 << 40))]
Seconds = Annotated[int, Meta(ge=0, le=(1 << 40))]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


def path_of(product: str, version: str, file: str) -> str:
    """A file's name among all of a relay."""
    return f"{product}/{version}/{file}"


def same_person(name: str) -> str:
    """A name as it is compared: whatever its case, and by which code points its letters are written."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


# --- what is released ---------------------------------------------------------------------------------------------


class Custom(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What people sign of a release, besides length and hash. `number` grows with each request; `uploaded_by` and
    `requested_by` are who brought it in and who asked; `emergency`: outside windows, with a `reason`."""

    number: Id
    product: Name
    version: FileName
    file: FileName
    uploaded_by: Who
    requested_by: Who
    origin: Text
    scan: Text
    at: Annotated[str, Meta(max_length=40)]
    emergency: bool = False
    reason: Text = ""
    brought: Annotated[tuple[Vouch, ...], Meta(max_length=2)] | UnsetType = UNSET
    """The word of whoever saw it come, for each time that it came (witnesses). Not set: of before there was any."""
    asked: Vouch | UnsetType = UNSET
    """The word of whoever saw its release being asked for."""

    @property
    def path(self) -> str:
        """The target's name."""
        return path_of(self.product, self.version, self.file)


class Release(Struct, frozen=True):
    """One file that is released."""

    path: str
    size: Size
    sha256: Hex
    custom: Custom

    @property
    def digest(self) -> str:
        """Of all that people sign of it: another one in anything is another release."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


# --- intake to keeper -----------------------------------------------------------------------------------------------


class Begin(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """Somebody uploads a file. `size`: as far as the client says it, 0 where it does not."""

    upload: Id
    who: Who
    product: Name
    version: FileName
    file: FileName
    size: Size = 0


class Chunk(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """The next bytes of an upload."""

    upload: Id
    data: Annotated[bytes, Meta(min_length=1, max_length=CHUNK_BYTES)]


class End(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """That was all of it, and this is its hash; and the word of whoever saw it come, for the installer."""

    upload: Id
    sha256: Hex
    vouch: Vouch


class GiveUp(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """The client has gone."""

    upload: Id


# --- keeper to intake -----------------------------------------------------------------------------------------------


class Room(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """So many bytes more may be sent of an upload."""

    upload: Id
    more: Annotated[int, Meta(ge=1, le=WINDOW_BYTES)]


class Taken(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """It is on disk and recorded, as file `number`. `waits`: what it waits for."""

    upload: Id
    number: Id
    sha256: Hex
    waits: Text = ""


class Declined(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """It is not taken; nothing of it is kept. `fault`: "policy", "room", "busy", "conflict", "severed", "store"."""

    upload: Id
    fault: Annotated[str, Meta(max_length=32)]
    detail: Text


# --- fetcher to keeper ----------------------------------------------------------------------------------------------


class Fetch(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """A source has a file. `mark`: by which it tells one content from another (ETag, time of change); `sha256`: what it
    says the hash is, "" where it does not. Answered by `Room` (send it), or `Declined` ("have": it is known)."""

    upload: Id
    source: Name
    product: Name
    version: FileName
    file: FileName
    size: Size = 0
    mark: Annotated[str, Meta(max_length=200)] = ""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class Ask(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """When was this source looked at last? Answered by `Last`."""

    source: Name


State = Literal["idle", "listing", "fetching", "waiting"]


class Doing(Struct, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """What is done with a source now. Times are UTC seconds."""

    source: Name
    state: State
    file: Annotated[str, Meta(max_length=256)] = ""
    got: Size = 0
    size: Size = 0
    next_at: Seconds = 0


class Ended(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """A source was looked at. `refused`: why that failed, "" where it did not; `listed` names, of which rules name
    `named`, and `taken` came. `odd`: of names that it has and that are none of a file there."""

    source: Name
    listed: Count
    named: Count
    taken: Count
    refused: Text = ""
    odd: Text = ""


# --- keeper to fetcher ----------------------------------------------------------------------------------------------


class Last(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """When a source was looked at last (UTC seconds, 0: never)."""

    source: Name
    at: Seconds


class Go(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """An operator wants a source to be looked at now."""

    source: Name


# --- keeper and installer -------------------------------------------------------------------------------------------


class Fresh(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """There is something new to look at."""


class Looked(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """What the installer believes now: targets of this version; `refused` says why not what it was offered."""

    version: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
    refused: Text = ""


ToKeeper = Begin | Chunk | End | GiveUp
FromKeeper = Room | Taken | Declined
Fetched = Fetch | Chunk | End | GiveUp | Ask | Doing | Ended
ToFetcher = Room | Taken | Declined | Last | Go


def intake_to_keeper(*_: Any) -> RecordCodec[ToKeeper]:
    return RecordCodec(ToKeeper, limit=CHUNK_BYTES + 4096)


def keeper_to_intake(*_: Any) -> RecordCodec[FromKeeper]:
    return RecordCodec(FromKeeper, limit=4096)


def fetcher_to_keeper(*_: Any) -> RecordCodec[Fetched]:
    return RecordCodec(Fetched, limit=CHUNK_BYTES + 4096)


def keeper_to_fetcher(*_: Any) -> RecordCodec[ToFetcher]:
    return RecordCodec(ToFetcher, limit=4096)


def keeper_to_installer(*_: Any) -> RecordCodec[Fresh]:
    return RecordCodec(Fresh, limit=4096)


def installer_to_keeper(*_: Any) -> RecordCodec[Looked]:
    return RecordCodec(Looked, limit=4096)
