"""What the gate and an export's part say to each other.

The part is told once where to send; what it sends it reads from the log's files itself.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.rows import Collector

Text = Annotated[str, Meta(max_length=1024)]
Path = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]


class Collect(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Send to this collector from now on. `log`: the log's public key; `audit`, `store`, `folder`: where the log, the
    cursor and the lines lie ("": no folder); `certificate`, `key`, `token`: its secrets (b"": there is none)."""

    log: Text
    to: Collector
    audit: Path
    store: Path
    folder: Path = ""
    certificate: bytes = b""
    key: bytes = b""
    token: bytes = b""


class StopExport(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Close the connection and end."""


class ExportReady(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """It has put its filter on. `facts`: what is in force."""

    facts: tuple[tuple[Text, bool, Text], ...] = ()


class Standing(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """How it stands: `next` is the first entry that has not surely arrived, `behind` how many there are. Also without
    news, so that it is known to turn."""

    next: Count
    behind: Count
    working: bool
    detail: Text = ""


ToExport = Collect | StopExport
FromExport = ExportReady | Standing
TO_EXPORT: Final[RecordCodec[ToExport]] = RecordCodec(ToExport, limit=4 << 20)
FROM_EXPORT: Final[RecordCodec[FromExport]] = RecordCodec(FromExport, limit=64 << 10)
