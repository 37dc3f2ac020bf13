"""What ways in to assets share: how a transfer ended, how long one may take.

Not here: the ways (sftp, ftp, tftp), which one an asset has (pushing).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from cofferdam.errors import CofferdamError
from cofferdam.policy.terms.patch_rows import Way

CONNECT_SECONDS: Final = 20.0
SILENT_SECONDS: Final = 60.0
"""An asset that moves nothing for so long is given up."""
PUSH_SECONDS: Final = 600.0
TIMES: Final = 4.0
"""An asset has so long for a file, and so many times what its rate asks for: one that takes a byte a minute would hold
up all others."""
PIECE: Final = 256 << 10


Progress = Callable[[int], Awaitable[None]]
"""Is told of bytes that went, and waits until more may; raises Refused where no more may."""


class Outcome(Struct, frozen=True):
    """`state`: sent, failed or unknown."""

    state: str
    detail: str = ""


class Refused(CofferdamError):
    """The asset, or we, will not go on."""


def at_most(way: Way, size: int) -> float:
    """Seconds for a file of this size."""
    return PUSH_SECONDS + TIMES * size / max(way.rate, 1)


def read_back_of(there: str) -> str:
    """What is said where another hash was read back, before the file was put into its place."""
    return f"the asset reads back another hash ({there[:16] or 'none'}…); nothing is changed"
