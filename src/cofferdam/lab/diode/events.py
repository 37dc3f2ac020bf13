"""What the processes of the strand's play say, besides what every process of the lab may."""

from __future__ import annotations

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Command as Command
from cofferdam.lab.events import Done as Done
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Listening as Listening
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import printed as printed


class Metered(msgspec.Struct, frozen=True, tag="metered"):
    """The flow meter was asked, and answered with this total (l)."""

    total: int
    wall_ns: int = 0


class Told(msgspec.Struct, frozen=True, tag="told"):
    """The works have pushed counts with these numbers; `status` of the last one (0: nobody answered)."""

    first: int
    last: int
    status: int
    detail: str = ""
    wall_ns: int = 0


class Regulated(msgspec.Struct, frozen=True, tag="regulated"):
    """What the regulator has outside: all totals (l) in their order or, of a live look, the last; the counts that came
    now, and which the relay names as missing. `status` is HTTP's, 0: nobody answered."""

    what: str
    status: int
    values: tuple[int, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    behind_ms: int = 0
    detail: str = ""
    wall_ns: int = 0


parse = parser(Base | Metered | Told | Regulated)
