"""What the processes of the mirror's play say, besides what every process of the lab may."""

from __future__ import annotations

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Command as Command
from cofferdam.lab.events import Done as Done
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Experience as Experience
from cofferdam.lab.events import Listening as Listening
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import printed as printed


class Recorded(msgspec.Struct, frozen=True, tag="recorded"):
    """The historian has written samples, and has so many of different times in all."""

    who: str
    samples: int
    total: int
    wall_ns: int = 0


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """What an analyst got: HTTP's status (0: no answer), rows, and the beginning of the answer. Of a live look also the
    newest value, how far behind the clock it is, and the curve of the last minutes."""

    who: str
    what: str
    status: int
    rows: int = 0
    detail: str = ""
    value: float | None = None
    behind_ms: int = 0
    curve: tuple[float, ...] = ()
    wall_ns: int = 0


parse = parser(Base | Recorded | Seen)
