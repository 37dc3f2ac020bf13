"""An audit entry as one line for people.

Texts from the network may stand in entries, so control characters are shown as escapes: an entry cannot forge lines
or drive the terminal.

Not here: what a kind says (LINES of each topic, audit.events).
"""

from __future__ import annotations

import json
import sys

from cofferdam.audit.entry import TOPICS, Entry, format_time, parse_time
from cofferdam.audit.events.lines import Line, members

CLOCK_APART_NS = 2_000_000_000
"""From this difference on, a line says both times. An entry waits for its batch and the disk, seldom for a second."""
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
LINES: dict[str, Line] = {}
"""By kind, over all topics."""
for _topic in TOPICS:
    LINES |= getattr(sys.modules[_topic], "LINES", {})


def line(entry: Entry) -> str:
    """INDEX TIME KIND what happened."""
    render = LINES.get(entry.kind, members)
    text = f"{entry.index:>7} {entry.time[:19].replace('T', ' ')} {entry.kind:<15} {render(entry.event)}{_clock(entry)}"
    return escaped(text)


def escaped(text: str) -> str:
    """A text in which nothing drives a terminal, turns the reading direction, or ends the line."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def escaped_json(text: str) -> str:
    """JSON that means the same, in which nothing drives a terminal or turns the reading direction."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else _json_escape(one) for one in text)


def _json_escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else json.dumps(letter)[1:-1]


def _escape(letter: str) -> str:
    """As Python writes it. The codec `unicode_escape` would be imported when it is first needed, which is too late in
    a part whose filter is on."""
    if (short := _SHORT.get(letter)) is not None:
        return short
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _clock(entry: Entry) -> str:
    """What the maker's clock said, where it is not the log's own time: after a jump back that time stands still."""
    said = int(str(entry.event.get("wall_ns", 0)))
    if not said or entry.kind == "clock-jump" or abs(said - parse_time(entry.time)) < CLOCK_APART_NS:
        return ""
    return f" (by the clock {format_time(said)[:19].decode().replace('T', ' ')})"
