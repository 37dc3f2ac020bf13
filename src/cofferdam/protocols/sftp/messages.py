"""What can be asked of files by SFTP, and answered: a closed set, frozen. PURE.

Paths are text without NUL, as a client wrote it; handles are numbers that whoever answers gave out. A client's own
request ids stay in the machine.

Not here: bytes (machine), who may do what (the brokers).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

PATH_BYTES = 4_096
DATA_BYTES = 261_120
"""Of one read or write: what OpenSSH's server takes."""
NAMES_MOST = 256
"""In one answer."""

Path = Annotated[str, Meta(max_length=PATH_BYTES)]
Handle = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Offset = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Word = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
Text = Annotated[str, Meta(max_length=512)]


class Attributes(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is said of a file; None: nothing. Times are UTC seconds."""

    size: Offset | None = None
    owner: tuple[Word, Word] | None = None
    mode: Word | None = None
    times: tuple[Word, Word] | None = None


class _Op(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """What all share."""


class Open(_Op, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A file, to be read or written."""

    path: Path
    read: bool
    write: bool
    append: bool
    create: bool
    truncate: bool
    exclusive: bool
    attributes: Attributes


class Close(_Op, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    handle: Handle


class Read(_Op, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    handle: Handle
    offset: Offset
    count: Annotated[int, Meta(ge=0, le=DATA_BYTES)]


class Write(_Op, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    handle: Handle
    offset: Offset
    data: Annotated[bytes, Meta(max_length=DATA_BYTES)]


class Stat(_Op, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """`follow`: of what a link leads to."""

    path: Path
    follow: bool


class HandleStat(_Op, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    handle: Handle


class SetStat(_Op, frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    path: Path
    attributes: Attributes


class HandleSetStat(_Op, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    handle: Handle
    attributes: Attributes


class OpenFolder(_Op, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    path: Path


class ReadFolder(_Op, frozen=True, gc=False, array_like=True, tag=10, forbid_unknown_fields=True):
    handle: Handle


class Remove(_Op, frozen=True, gc=False, array_like=True, tag=11, forbid_unknown_fields=True):
    path: Path


class MakeFolder(_Op, frozen=True, gc=False, array_like=True, tag=12, forbid_unknown_fields=True):
    path: Path


class RemoveFolder(_Op, frozen=True, gc=False, array_like=True, tag=13, forbid_unknown_fields=True):
    path: Path


class RealPath(_Op, frozen=True, gc=False, array_like=True, tag=14, forbid_unknown_fields=True):
    path: Path


class Rename(_Op, frozen=True, gc=False, array_like=True, tag=15, forbid_unknown_fields=True):
    """`replace`: also where there is something of the new name."""

    path: Path
    to: Path
    replace: bool


Operation = (
    Open | Close | Read | Write | Stat | HandleStat | SetStat | HandleSetStat | OpenFolder | ReadFolder | Remove
    | MakeFolder | RemoveFolder | RealPath | Rename
)  # fmt: skip

Why = Literal["ok", "eof", "no such file", "permission denied", "failure", "unsupported"]


class Status(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """Done, or why not."""

    why: Why
    text: Text = ""


class Opened(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    handle: Handle


class Content(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    data: Annotated[bytes, Meta(max_length=DATA_BYTES)]


class Name(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One entry of a folder."""

    name: Path
    attributes: Attributes


class Names(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    names: Annotated[tuple[Name, ...], Meta(max_length=NAMES_MOST)]


class Found(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    attributes: Attributes


Answer = Status | Opened | Content | Names | Found
