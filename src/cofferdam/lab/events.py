"""What the lab's processes say: one line of JSON on stdout for each event, and the commands they take on stdin.

The demo draws these lines, the tour and the tests check them. The plant's lines are the evidence for what
reached the device; an actor's lines are what the network did to it.

Not here: the audit log of the gate, which is a different witness.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.errors import CofferdamError


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The plant answers at this address."""

    address: str
    port: int
    wall_ns: int = 0


class Experience(msgspec.Struct, frozen=True, tag="experience", omit_defaults=True):
    """What happened to one attempt of an actor.

    `outcome`: "ok", "exception" (with its code), "timeout", "closed" (the peer ended the connection),
    "unreachable" (no connection), "refused" (a port that nobody listens at), "garbled" (an answer that does not
    fit the request).
    """

    who: str
    action: str
    outcome: str
    exception: int = 0
    function: int = 0
    address: int = -1
    values: tuple[int, ...] = ()
    value: float | None = None
    detail: str = ""
    micros: int = 0
    wall_ns: int = 0


class Summary(msgspec.Struct, frozen=True, tag="summary"):
    """An actor's count of outcomes of one action ("flood": {"ok": 3, "exception 6": 991})."""

    who: str
    action: str
    counts: dict[str, int]
    detail: str = ""
    wall_ns: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The answer to a command: all events that it caused have been printed before this line."""

    who: str
    command: str
    wall_ns: int = 0


class Entry(msgspec.Struct, frozen=True, tag="entry"):
    """An entry of the gate's audit log, as `cofferdam audit tail --json` printed it."""

    entry: dict[str, Any]
    wall_ns: int = 0


Base = Listening | Experience | Summary | Done | Entry
"""What the processes of every play may say."""
Event = Any
"""One of `Base`, or one of a play's own. Each has a `wall_ns`."""
Sink = Callable[[Event], None]


class Command(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a driven actor is asked to do, as a line of JSON on its stdin."""

    do: str
    point: str = ""
    value: float = 0.0
    count: int = 1
    seconds: float = 0.0
    address: str = ""
    port: int = 0


_encoder = msgspec.json.Encoder()
_commands = msgspec.json.Decoder(Command)


def encode(event: Event) -> bytes:
    """An event as a line of JSON, without the line's end."""
    return _encoder.encode(event)


def printed(event: Event) -> None:
    """A sink: the event as a line on stdout, at once, with the time of now."""
    stamped = msgspec.structs.replace(event, wall_ns=time.time_ns())
    sys.stdout.write(encode(stamped).decode() + "\n")
    sys.stdout.flush()


def parser(union: Any) -> Callable[[str | bytes], Event]:
    """What makes an event of a line; it raises CofferdamError where the line is none of the union."""
    decode = msgspec.json.Decoder(union).decode

    def parse(line: str | bytes) -> Event:
        try:
            return decode(line)
        except msgspec.MsgspecError as error:
            raise CofferdamError(f"not an event of the lab: {line[:120]!r}: {error}") from error

    return parse


parse = parser(Base)


def parse_command(line: str | bytes) -> Command:
    """The command of a line. Raises CofferdamError where it is none."""
    try:
        return _commands.decode(line)
    except msgspec.MsgspecError as error:
        raise CofferdamError(f"not a command: {line[:120]!r}: {error}", hint='such as {"do": "read"}') from error


def command_line(command: Command) -> bytes:
    """A command as the line that `parse_command` reads."""
    return _encoder.encode(command) + b"\n"
