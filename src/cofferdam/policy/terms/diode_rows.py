"""The rows of the diode, as they travel to its parts. PURE.

Not here: the words of the policy file (diode_model), what is wrong between them (diode).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

FILES, RECORDS, GATE = "files", "records", "gate"
"""What can ride: files, the crossing of another conduit, and what the gate inside tells of itself:"""
LOG, STATUS = "log", "status"
RIDER_LETTERS: Final = 48
"""Of the name of a conduit that rides."""


PROMPT_BYTES: Final = 8 << 10
"""What is larger is bulk, whatever its channel."""
UNITS: Final = {"kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}


def show_rate(rate: int) -> str:
    """Bits a second as the policy file writes them."""
    for unit in ("Gbit/s", "Mbit/s", "kbit/s"):
        if rate >= UNITS[unit]:
            return f"{rate / UNITS[unit]:g} {unit}"
    return f"{rate / 1000:g} kbit/s"


def strand_of(conduits: Mapping[str, object], name: str) -> str:
    """The conduit that carries this one, "" for none. `conduits` are those of the policy file."""
    for strand, conduit in conduits.items():
        if (RECORDS, name) in getattr(conduit, "carries", ()):
            return strand
    return ""


class FilesRow(Struct, frozen=True, forbid_unknown_fields=True):
    """A channel of files: the names that are let through (patterns), the largest file, bytes in a day, the folders
    inside and outside, and whether they are scanned outside."""

    name: str
    names: tuple[str, ...]
    most: int
    per_day: int
    out: str
    into: str
    scan: bool = False

    @property
    def channel(self) -> str:
        return f"{FILES}:{self.name}"

    def wrong(self, name: str) -> str:
        """Why a file of this name does not ride, "" if it does. A name is one step of a path, and shows itself."""
        if (
            not name.isprintable()
            or "/" in name
            or name.startswith(".")
            or len(name.encode()) > 255
            or not name.strip()
        ):
            return "no plain name of a file"
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names):
            return f"none of the names that ride ({', '.join(self.names)})"
        return ""


class Link(Struct, frozen=True, forbid_unknown_fields=True):
    """A further link: the zones of its ends, and their addresses."""

    from_zone: str
    to_zone: str
    sends: str
    hears: str

    @property
    def zones(self) -> tuple[str, str]:
        return self.from_zone, self.to_zone


class DiodeRows(Struct, frozen=True, forbid_unknown_fields=True, tag="diode"):
    """A strand. `sends` and `hears`: its ends' addresses. `rate` in bits a second, `burst` in bytes, blocks of `k` data
    shards and `m` of parity, `keep` and `younger` in seconds, `room` in bytes, `at` in seconds of the UTC day (-1: no
    backfill). `inside`, `outside`: machines. `hardware`: what makes it one-way, as the operator attests; "" for
    nothing. `wait` in ns: how long a record waits for those before it. `records`: conduits whose crossing rides.
    `links`: besides the first one. `gate`: what the gate inside tells of itself, LOG or STATUS, and the folder outside
    that it comes into, `told`. `prompt`: channels of which what is small is prompt; `parity`: of a block of bulk, of
    channels that have their own."""

    port: int
    sends: str
    hears: str
    inside: str
    outside: str
    rate: int
    burst: int
    k: int
    m: int
    keep: int
    room: int
    younger: int
    at: int
    hostile: bool
    jumbo: bool
    hardware: str
    wait: int
    files: tuple[FilesRow, ...]
    records: tuple[str, ...]
    links: tuple[Link, ...] = ()
    gate: tuple[str, ...] = ()
    told: str = ""
    prompt: tuple[str, ...] = ()
    parity: tuple[tuple[str, int], ...] = ()

    def is_prompt(self, channel: str, size: int) -> bool:
        """Whether so many bytes of a channel, which come at a time, go before others in small blocks."""
        return size <= PROMPT_BYTES and channel in self.prompt

    @property
    def channels(self) -> tuple[str, ...]:
        """All that ride, as they are called on the strand."""
        return (*(row.channel for row in self.files), *self.handed)

    def link(self, address: str) -> str:
        """Which link an end's address is of, by its zone there; "" for the first one."""
        for one in self.links:
            if address in (one.sends, one.hears):
                return one.from_zone if address == one.sends else one.to_zone
        return ""

    @property
    def handed(self) -> tuple[str, ...]:
        """Those of them that are no files."""
        return (*(f"{RECORDS}:{name}" for name in self.records), *(f"{GATE}:{name}" for name in self.gate))
