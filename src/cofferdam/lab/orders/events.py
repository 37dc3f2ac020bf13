"""What the processes of the orders play say, besides what every process of the lab may."""

from __future__ import annotations

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Command as Command
from cofferdam.lab.events import Done as Done
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Experience as Experience
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import printed as printed


class Booked(msgspec.Struct, frozen=True, tag="booked"):
    """A message that came out of the relay and was worked on: its channel and number there, the producer's id, and the
    amount that it is about. `again`: this id was booked before, so nothing was done."""

    who: str
    channel: str
    number: int
    key: str
    amount: int
    again: bool = False
    wall_ns: int = 0


class Pushed(msgspec.Struct, frozen=True, tag="pushed"):
    """What a producer was told about one message. `status` is HTTP's; 0: there was no answer."""

    who: str
    channel: str
    key: str
    amount: int
    status: int
    number: int = 0
    detail: str = ""
    wall_ns: int = 0


parse = parser(Base | Booked | Pushed)
