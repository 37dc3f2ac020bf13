"""What the processes of the patch play say, besides what every process of the lab may."""

from __future__ import annotations

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Listening as Listening
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import printed as printed


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The controller has started a firmware; `good`: it works."""

    version: str
    good: bool
    wall_ns: int = 0


class Judged(msgspec.Struct, frozen=True, tag="judged"):
    """A file that maintenance brought in: what became of it."""

    version: str
    state: str
    reason: str = ""
    wall_ns: int = 0


parse = parser(Base | Started | Judged)
