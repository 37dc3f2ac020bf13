"""The gate's configuration as one document with a hash, and the difference of two of them.

What is in it: the policy's hash, versions of gate, Python and kernel, the hash of all installed files together, the
interfaces with their addresses and the sockets that listen as the policy plans them, limits, the hosts that export and
sign. What changes by itself (process numbers, times, counts) is not.

Not here: reading the machine (gather).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

FORMAT = "cofferdam-baseline-v1"
MAX_DIFFERENCES = 200


class Difference(NamedTuple):
    """One thing that is not as it was: its path in the document, what it was and what it is ("": nothing)."""

    what: str
    before: str
    now: str

    def __str__(self) -> str:
        if not self.before:
            return f"{self.what}: new: {self.now}"
        return f"{self.what}: {self.before} → {self.now}" if self.now else f"{self.what}: gone: {self.before}"


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
