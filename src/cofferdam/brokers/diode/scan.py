"""The job that has a file looked through by clamd before it is put into its folder outside.

Not here: the scanner (kit.clamd), what follows from its verdict (keeper_files).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from cofferdam.brokers.broker import Job
from cofferdam.brokers.kit.clamd import Scanned, scan
from cofferdam.errors import CofferdamError

FOLDER: Final = "part"
"""Of the keeper's store, where files come together."""


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """Which file."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,160}$")]


def look(job: Job) -> bytes:
    """The job's work. Raises: CofferdamError: the order makes no sense."""
    file = job.reads["keeper"] / FOLDER / msgspec.json.decode(job.arguments, type=Order).name
    if file.is_symlink() or not file.is_file():
        raise CofferdamError("the order names no file")
    path = job.sockets.get("clamd", "")
    if not path:
        return msgspec.json.encode(Scanned("not scanned", "no scanner: `cofferdam up --socket clamd=PATH`"))
    return msgspec.json.encode(scan(path, file))
