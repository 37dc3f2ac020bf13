"""The words of the diode in the policy file.

Not here: what they mean (diode), the rows (diode_rows).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from cofferdam.policy import notations, schema, syntax
from cofferdam.policy.fields import as_list, one_or_list, one_or_more, read_by, whole
from cofferdam.policy.notations import Name, Text
from cofferdam.policy.terms.diode_rows import FILES, GATE, LOG, RECORDS, RIDER_LETTERS, STATUS, UNITS

DAY: Final = 86_400
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(kbit/s|Mbit/s|Gbit/s)\Z")
_END: Final = "\\Z"
PROMPT, BULK = "prompt", "bulk"
BLOCK_LEAST: Final = 200
"""Packets of 1,344 bytes or more that hold the largest record."""
RATE_LEAST, RATE_MOST = 10_000, 100_000_000_000
_RIDER: Final = re.compile(rf"(?:({FILES}|{GATE}):)?([A-Za-z0-9][A-Za-z0-9._-]{{0,62}})\Z")


def _rate(raw: Any) -> int:
    found = _RATE.match(raw) if isinstance(raw, str) else None
    if found:
        value = round(float(found[1]) * UNITS[found[2]])
        if RATE_LEAST <= value <= RATE_MOST:
            return value
    near = f'"{raw} Mbit/s"' if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,6}", raw) else ""
    raise syntax.Expected('a rate with its unit, such as "400 Mbit/s", from 10 kbit/s to 100 Gbit/s', near)


def _rider(raw: Any) -> tuple[str, str]:
    found = _RIDER.match(raw) if isinstance(raw, str) else None
    if found is None:
        raise syntax.Expected(f"what rides: files:NAME, {GATE}:{LOG}, {GATE}:{STATUS}, or the name of a conduit")
    if found[1] == GATE and found[2] not in (LOG, STATUS):
        raise syntax.Expected(f"{GATE}:{LOG}, the audit log of the inside, or {GATE}:{STATUS}, its status")
    if not found[1] and len(found[2]) > RIDER_LETTERS:
        raise syntax.Expected(f"a conduit whose name has at most {RIDER_LETTERS} letters")
    return found[1] or RECORDS, found[2]


def _percent(raw: Any) -> int:
    found = re.fullmatch(r"([0-9]{1,3})\s*%", raw) if isinstance(raw, str) else None
    if found and 1 <= int(found[1]) <= 200:
        return int(found[1])
    raise syntax.Expected("a share from 1 % to 200 %")


def _hour(raw: Any) -> int:
    value = syntax.hour(raw)
    if value >= DAY:
        raise syntax.Expected("an hour of the day, such as 02:00")
    return value


def _pattern(raw: Any) -> str:
    if isinstance(raw, str) and raw.strip() == raw and raw.isprintable() and 0 < len(raw) <= 128 and "/" not in raw:
        return raw
    raise syntax.Expected('a pattern of names, such as "*.csv"')


def _class(raw: Any) -> str:
    if raw in (PROMPT, BULK):
        return str(raw)
    raise syntax.Expected(f"{PROMPT} or {BULK}")


def _yes(raw: Any) -> bool:
    if raw in ("true", "yes"):
        return True
    if raw in ("false", "no"):
        return False
    raise syntax.Expected("true or false")


def span(low: int, high: int) -> tuple[Any, Any]:
    return read_by(lambda raw: syntax.long_span(raw, low, high), {"type": "string", "examples": ["72 h", "5 min"]})


def size(low: int, high: int) -> tuple[Any, Any]:
    return read_by(lambda raw: syntax.size(raw, low, high), {"type": "string", "examples": ["1 GB", "5 MB"]})


_RIDER_ITEM: Final = {
    "type": "string", "pattern": f"^{_RIDER.pattern.removesuffix(_END)}$", "examples": ["files:reports", "history"],
}  # fmt: skip
Riders = Annotated[
    tuple[Annotated[tuple[str, str], *read_by(_rider, _RIDER_ITEM)], ...],
    BeforeValidator(one_or_more), one_or_list(_RIDER_ITEM),
]  # fmt: skip
_PATTERN_ITEM: Final = {"type": "string", "examples": ["*.csv"]}
Patterns = Annotated[
    tuple[Annotated[str, *read_by(_pattern, _PATTERN_ITEM)], ...],
    BeforeValidator(one_or_more), one_or_list(_PATTERN_ITEM),
]  # fmt: skip
Yes = Annotated[bool, *read_by(_yes, {"type": "boolean"})]
Percent = Annotated[int, *read_by(_percent, {"type": "string", "examples": ["10 %"]})]


class StrandFiles(notations.Entry):
    """A channel of files: what is put into its folder inside comes out in its folder outside, whole or not at all."""

    names: Patterns = Field(description="The names that are let through: patterns such as `*.csv`, case counts.")
    most: Annotated[int, *size(1, 10**12)] = Field(
        10**9, description="The largest file. Default: 1 GB.", json_schema_extra={"default": "1 GB"}
    )
    out: Name | None = Field(
        None,
        description="The folder inside whose files are sent, beneath the directory of the site's folders. It may be "
        "one that a relay writes messages into. Default: the channel's name and `-out`.",
    )
    into: Name | None = Field(
        None,
        description="The folder outside that they come into; it may be one that a relay takes messages from. Default: "
        "the channel's name and `-in`.",
    )
    scan: Yes = Field(
        False,
        description="What has come is kept apart outside until clamd has looked through it (`cofferdam up --socket "
        "clamd=PATH`); where clamd does not answer, nothing gets into the folder.",
    )
    per_day: Annotated[int, *size(1, 10**15)] = Field(
        10**12,
        description="Bytes of all files in any 24 hours; what is more waits inside, and is refused outside. Default: "
        "1 TB.",
        json_schema_extra={"default": "1 TB"},
    )


class StrandSpool(notations.Entry):
    """How long what was sent is kept inside, for nobody says that it has come."""

    keep: Annotated[int, *span(60, 366 * DAY)] = Field(
        72 * 3600, description="By age. Default: 72 h.", json_schema_extra={"default": "72 h"}
    )
    most: Annotated[int, *size(1_000_000, 10**14)] = Field(
        20 * 10**9,
        description="By size: beyond it the oldest goes, and the outside is told that it is lost. Default: 20 GB.",
        json_schema_extra={"default": "20 GB"},
    )


class StrandRepeat(notations.Entry):
    """Sends again, without being asked, what is younger, at a quiet hour: for sites where nobody carries tickets."""

    younger: Annotated[int, *span(60, 30 * DAY)] = Field(
        DAY, description="Younger than so. Default: 1 day.", json_schema_extra={"default": "1 days"}
    )
    at: Annotated[int, *read_by(_hour, {"type": "string", "examples": ["02:00"]})] = Field(
        2 * 3600, description="At this hour, UTC. Default: 02:00.", json_schema_extra={"default": "02:00"}
    )


class StrandLink(notations.Entry):
    """A further pair of ends: zones with `crossing: diode` of the same two machines, with an interface each. All that
    is sent goes over every link, and the outside takes what comes first."""

    from_zone: Name = Field(alias="from", description="The zone of its end inside.")
    to_zone: Name = Field(alias="to", description="The zone of its end outside.")

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        """(the word of the policy, the zone)."""
        return ("from", self.from_zone), ("to", self.to_zone)


class StrandChannel(notations.Entry):
    """What rides, and how."""

    kind: Annotated[str, *read_by(_class, {"type": "string", "enum": [PROMPT, BULK]})] | None = Field(
        None,
        alias="class",
        description="`prompt`: what is at most 8 kB goes before others, in small blocks with as much parity as data; "
        "`bulk`: nothing does. Default: `bulk` for files, and `prompt` for the others.",
    )
    overhead: Percent | None = Field(
        None, description="Packets of parity for those of data, in bulk. Default: the strand's."
    )


class DiodeRule(schema.Rule):
    """Nothing: what passes stands under `carries`."""


class DiodeConduit(schema.Conduit):
    """A strand over which data leaves the plant and nothing returns: no acknowledgement, no window, no handshake, no
    ARP. It goes from a zone of side `ot` to one of side `it`, both with `crossing: diode` and, on two machines, each
    with its `machine`. What makes it one-way is software, unless `hardware` says what else does."""

    carries: Riders = Field(
        description="What rides: `files:NAME`, a channel of `files`; the name of a conduit, whose crossing goes over "
        "the strand: a mirror with `acks: none`, or a relay; `gate:log`, the inside's audit log, which can be verified "
        "outside; `gate:status`, its status once a minute."
    )
    links: Annotated[tuple[StrandLink, ...], BeforeValidator(as_list)] = Field(
        (), description="Further links in parallel, for a strand that bears the loss of one of them."
    )
    port: Annotated[int, *whole(1, 65535)] = Field(4799, description="The UDP port, at both ends.")
    rate: Annotated[int, *read_by(_rate, {"type": "string", "examples": ["400 Mbit/s"]})] = Field(
        100_000_000,
        description="How fast is sent, on the wire, parity among it. The outside cannot say that it is too fast: "
        "`cofferdam diode test` finds it out. Default: 100 Mbit/s.",
        json_schema_extra={"default": "100 Mbit/s"},
    )
    burst: Annotated[int, *size(1500, 64_000_000)] = Field(
        128_000,
        description="How much may leave at once. Default: 128 kB.", json_schema_extra={"default": "128 kB"},
    )  # fmt: skip
    block: Annotated[int, *whole(BLOCK_LEAST, 3000)] = Field(
        1000, description="Packets of data in a block of bulk. Larger ones bear more loss at the same overhead."
    )
    overhead: Percent = Field(
        10, description="Packets of parity for those of data, in bulk. Default: 10 %.",
        json_schema_extra={"default": "10 %"},
    )  # fmt: skip
    channels: dict[str, StrandChannel] = Field({}, description="By what rides, as `carries` has it: how.")
    spool: StrandSpool = Field(
        default_factory=StrandSpool.model_construct, description="How long what was sent is kept inside."
    )
    repeat: StrandRepeat | None = Field(None, description="Blind backfill. Off unless set.")
    wait: Annotated[int, *span(1, DAY)] = Field(
        5,
        description="How long a record of a conduit that rides waits for those before it that are missing; then it "
        "goes on without them, and they come later, or never. Default: 5 s.",
        json_schema_extra={"default": "5 s"},
    )
    hostile_wire: Yes = Field(
        False, description="Others may be on the wire: blocks carry lists of their packets, so that a false packet "
        "costs nothing but itself.",
    )  # fmt: skip
    jumbo: Yes = Field(False, description="Frames of up to 9,000 bytes, where the interface has them. Both ends must.")
    hardware: Text | None = Field(
        None,
        description="What makes the strand one-way by itself, and who attests it: `one strand, transmit only; checked "
        "2026-05-04 by J. Doe`. Status and proofs say so beside what software does, and never mix the two.",
    )
    files: dict[Name, StrandFiles] = Field({}, description="Channels of files, by name.")
    allow: Annotated[tuple[DiodeRule, ...], BeforeValidator(as_list)] = Field(
        (), description="Nothing: `carries` says what passes."
    )
