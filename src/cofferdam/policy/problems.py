"""One finding in a policy file: where, what was found, what was expected, and the nearest valid name.

Not here: what is checked (policy.schema, policy.crosscheck, policy.lint).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """A finding. Line and column count from 1. `near` is the nearest valid name, or "". `check` names the check."""

    file: str
    line: int
    column: int
    found: str
    expected: str
    near: str = ""
    severity: str = "error"
    check: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        word = "" if self.severity == "error" else f" {self.severity}:"
        tail = f"; did you mean {self.near}" if self.near else ""
        return f"{where}:{word} found {self.found}, expected {self.expected}{tail}"


MARGIN = 96
"""Characters of a line that are shown."""


def lines_of(text: str) -> list[str]:
    """As findings count them."""
    return text.removeprefix("\ufeff").splitlines()


def excerpt(problem: Problem, lines: Sequence[str]) -> str:
    """The line at which a finding points, with a caret below it; "" where there is no such line."""
    if not 1 <= problem.line <= len(lines):
        return ""
    line = lines[problem.line - 1]
    column = max(0, min(problem.column - 1, len(line)))
    cut = max(0, column - MARGIN + 32)
    shown = "".join(c if c.isprintable() else " " if c.isspace() else "·" for c in line[cut : cut + MARGIN])
    shown = f"…{shown[1:]}" if cut else shown
    width = 1
    quoted = problem.found.rpartition(' "')[2] if problem.found.endswith('"') else problem.found
    word = quoted.strip('"')
    if word and line.startswith(word, problem.column - 1):
        width = min(len(word), MARGIN - (column - cut))
    return f"{problem.line:>6} | {shown}\n       | {' ' * (column - cut)}{'^' * max(1, width)}"


_ALSO: Final = {
    "enip": "ethernetip cip", "opcua": "iec62541 ua", "serial": "uart", "modbus": "modbustcp mbap",
    "unit": "slave slaveid slaveaddress unitid deviceid station stationid nodeid id",
    "address": "ip ipaddress host hostname target server",
    "addresses": "ip ipaddress host hostname source sources network networks",
    "at": "address addr register offset location place cell tag node", "type": "datatype format kind",
    "who": "user users client clients principal principals source from by", "asset": "device devices target to plc",
    "allow": "rules rule permit allowed", "reason": "description comment purpose why", "owner": "responsible contact",
    "expires": "expiry until validuntil enddate", "max": "high upper maximum limit", "min": "low lower minimum",
    "scale": "multiplier factor gain", "broker": "protocol proxy service", "protocol": "driver broker kind type",
    "interface": "nic iface card device", "write_registers": "writeregister registerswrite",
    "holding": "hr holdingregister mw", "input": "ir inputregister iw", "discrete": "di discreteinput",
    "coil": "co do", "timeout": "responsetimeout", "connect_delay": "connectiondelay",
    "reconnect_delay": "reconnectdelay reconnecttimeout retrydelay", "pause": "gap delay silentinterval",
    "route": "slot path backplane", "streams": "io", "max_length": "length size", "write_functions": "services",
    "repeat_reads": "retry retries", "connections": "maxconnections", "outstanding": "maxoutstanding pipelining",
}  # fmt: skip
ALSO: Final = {
    word: tuple(name for name, words in _ALSO.items() if word in words.split())
    for word in {word for words in _ALSO.values() for word in words.split()}
}
"""What the field, and other products, call things by, in small letters alone; and our names for them, of which one that
is valid where it stands is meant."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that is most like `name`, or "" if none is."""
    by_fold = {candidate.lower(): candidate for candidate in sorted(valid)}
    bare = _bare(name)
    alike = [candidate for candidate in by_fold if _bare(candidate) == bare]
    if alike:
        return by_fold[alike[0]]
    for known in ALSO.get(bare, ()):
        if known in by_fold:
            return by_fold[known]
    found = difflib.get_close_matches(name.lower(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[found[0]] if found else ""


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def one_of(names: Iterable[str], limit: int = 8) -> str:
    """Names as an expectation: "one of a, b, c"."""
    known = list(names)
    if len(known) == 1:
        return known[0]
    shown = ", ".join(known[:limit])
    return f"one of {shown}{f' and {len(known) - limit} more' if len(known) > limit else ''}"
