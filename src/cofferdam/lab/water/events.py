"""What the processes of the water works say, besides what every process of the lab may."""

from __future__ import annotations

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Command as Command
from cofferdam.lab.events import Done as Done
from cofferdam.lab.events import Entry as Entry
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Experience as Experience
from cofferdam.lab.events import Listening as Listening
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import Summary as Summary
from cofferdam.lab.events import command_line as command_line
from cofferdam.lab.events import encode as encode
from cofferdam.lab.events import parse_command as parse_command
from cofferdam.lab.events import printed as printed


class Connection(msgspec.Struct, frozen=True, tag="connection"):
    """Somebody opened or closed a connection to the plant."""

    peer: str
    peer_port: int
    opened: bool
    wall_ns: int = 0


class Request(msgspec.Struct, frozen=True, tag="request"):
    """A request that reached the plant, with its answer. `exception` is 0 for a good one; `values` are what a
    read returned."""

    peer: str
    function: int
    unit: int
    address: int
    count: int
    exception: int
    values: tuple[int, ...] = ()
    wall_ns: int = 0


class Write(msgspec.Struct, frozen=True, tag="write"):
    """A write that reached the plant's memory, whether the device took it or not."""

    function: int
    space: str
    address: int
    values: tuple[int, ...]
    taken: bool
    wall_ns: int = 0


class Plant(msgspec.Struct, frozen=True, tag="plant"):
    """How the works are doing. Units as in physics.Reading; `set_speed` in rpm."""

    level: float
    height: float
    inflow: float
    outflow: float
    pressure: float
    temperature: float
    power: float
    speed: int
    set_speed: int
    flow_total: int
    tripped: bool
    low_alarm: bool
    high_alarm: bool
    discharge_open: bool
    clock: float  # s since the epoch, simulated
    wall_ns: int = 0


parse = parser(Base | Connection | Request | Write | Plant)
