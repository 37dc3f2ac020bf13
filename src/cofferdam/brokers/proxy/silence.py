"""Units behind one address that do not answer: so that one that is switched off costs its neighbours little.

After SILENT_AFTER requests without an answer, one after the other, a unit counts as silent. It is then asked by one
request every PROBE_TIMEOUTS of its timeouts; all others to it are told so at once.

Not here: sending, and what becomes of those that are told (device).
"""

from __future__ import annotations

SILENT_AFTER = 2
"""Requests to a unit without an answer, one after the other, after which it counts as silent."""
PROBE_TIMEOUTS = 12
"""A silent unit is asked again after so many of its timeouts: its neighbours keep more than nine tenths of the line."""


class Silence:
    """What is known of the units of one device. Times: monotonic ns."""

    __slots__ = ("_silent", "missed")

    def __init__(self) -> None:
        self.missed: dict[int, int] = {}
        """By unit: requests without an answer, one after the other. Empty as long as all is well."""
        self._silent: dict[int, int] = {}  # by unit that counts as silent: when it is asked next

    def may_ask(self, unit: int, timeout_ns: int, now: int) -> bool:
        """Whether the unit is not silent, or is to be asked again by this request."""
        due = self._silent.get(unit)
        if due is None:
            return True
        if now < due:
            return False
        self._silent[unit] = now + PROBE_TIMEOUTS * timeout_ns
        return True

    def answered(self, unit: int) -> None:
        """It has, whatever it said."""
        self.missed.pop(unit, None)
        self._silent.pop(unit, None)

    def unanswered(self, unit: int, timeout_ns: int, now: int) -> bool:
        """It has not, once more. Whether it counts as silent now."""
        missed = self.missed[unit] = self.missed.get(unit, 0) + 1
        if missed < SILENT_AFTER:
            return False
        self._silent[unit] = now + PROBE_TIMEOUTS * timeout_ns
        return True
