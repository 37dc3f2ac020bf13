"""What the processes of the packer play say, besides what every process of the lab may."""

from __future__ import annotations

from typing import Any

import msgspec

from cofferdam.lab.events import Base, parser
from cofferdam.lab.events import Command as Command
from cofferdam.lab.events import Done as Done
from cofferdam.lab.events import Event as Event
from cofferdam.lab.events import Listening as Listening
from cofferdam.lab.events import Sink as Sink
from cofferdam.lab.events import printed as printed


class Written(msgspec.Struct, frozen=True, tag="written"):
    """The controller's tag was written, or the drive's reference has changed. `name`: the tag, or "reference"."""

    name: str
    value: int
    wall_ns: int = 0


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """The drive's own watchdog has acted, or its connection was closed: it has none any more."""

    wall_ns: int = 0


class Told(msgspec.Struct, frozen=True, tag="told"):
    """What somebody in the office was told. `answers`: a text for each thing that was asked."""

    who: str
    asked: str
    answers: tuple[str, ...]
    wall_ns: int = 0


parse = parser(Base | Written | Stopped | Told)


def decoded(line: str) -> dict[str, Any]:
    """The event of an entry of the audit log, as `cofferdam audit show --json` prints it; {} for anything else."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    event = found.get("event", found) if isinstance(found, dict) else {}
    return event if isinstance(event, dict) else {}
