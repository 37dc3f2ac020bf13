"""The gate's configuration as one document with a hash, and the difference of two of them.

What is in it: the policy's hash (and with it every limit), versions of gate, Python, kernel and components, a hash over
all files of the gate, the host's interfaces, addresses, routes, open ports and switches, the users of the parts, what
they listen at, who signs. What changes by itself (process numbers, times, counts) is not.

Not here: reading the machine (drifting).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FORMAT = "cofferdam-baseline-v1"
MAX_DIFFERENCES = 200


class Difference(NamedTuple):
    """One thing that is not as it was: its path in the document, what it was and what it is ("": nothing). `since`:
    the first baseline on record that had it; "" if this comparison is the first."""

    what: str
    before: str
    now: str
    since: str = ""

    def __str__(self) -> str:
        when = f" (since {self.since})" if self.since else " (first seen now)"
        if not self.before:
            return f"{self.what}: new: {self.now}{when}"
        if not self.now:
            return f"{self.what}: gone: {self.before}{when}"
        return f"{self.what}: {self.before} → {self.now}{when}"


def canonical(document: Mapping[str, Any]) -> bytes:
    """The bytes that the hash is of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(canonical(document)).hexdigest()


def differences(before: Any, now: Any) -> tuple[Difference, ...]:
    """What is different, in the order of its names."""
    found: list[Difference] = []
    _compare("", before, now, found)
    return tuple(found[:MAX_DIFFERENCES])


def _compare(path: str, before: Any, now: Any, found: list[Difference]) -> None:
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            _compare(f"{path}.{name}" if path else str(name), before.get(name), now.get(name), found)
    elif isinstance(before, list) and isinstance(now, list):
        for gone in (one for one in before if one not in now):
            found.append(Difference(path, _text(gone), ""))
        for new in (one for one in now if one not in before):
            found.append(Difference(path, "", _text(new)))
    else:
        found.append(Difference(path, _text(before), _text(now)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
