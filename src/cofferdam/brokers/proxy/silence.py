"""Units behind one address: how each of them answers, so that one that is switched off costs its neighbours little, and
is told apart from them.

After SILENT_AFTER requests without an answer, one after the other, a unit counts as silent; so it does where a gateway
answers in its place that it is not there. It is then asked by one request after PROBE_PAUSES times as long as the last
one took; all others to it are told so at once.

Not here: sending, and what becomes of those that are told (device).
"""

from __future__ import annotations

SILENT_AFTER = 2
"""Requests to a unit without an answer, one after the other, after which it counts as silent."""
PROBE_PAUSES = 12
"""A silent unit is asked again after so many times what the last attempt took of the line: its neighbours keep more
than nine tenths of it."""


class Unit:
    """What is counted of one unit. `unanswered`: requests in a row that it has not answered, the last of them failed by
    `missing`."""

    __slots__ = ("failures", "missing", "requests", "unanswered")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.unanswered = 0
        self.missing = ""

    def failed(self, away: str) -> None:
        """A request has failed; `away`: why, if it was not answered."""
        self.failures += 1
        if away:
            self.unanswered += 1
            self.missing = away


class Silence:
    """What is known of the units of one device. Times: monotonic ns."""

    __slots__ = ("_silent", "_units", "missed")

    def __init__(self) -> None:
        self.missed: dict[int, int] = {}
        """By unit: requests without an answer, one after the other. Empty as long as all is well."""
        self._silent: dict[int, int] = {}  # by unit that counts as silent: when it is asked next
        self._units: dict[int, Unit] = {}

    def unit(self, number: int) -> Unit:
        """What is counted of a unit."""
        found = self._units.get(number)
        if found is None:
            found = self._units[number] = Unit()
        return found

    def may_ask(self, unit: int, timeout_ns: int, now: int) -> bool:
        """Whether the unit is not silent, or is to be asked again by this request."""
        due = self._silent.get(unit)
        if due is None:
            return True
        if now < due:
            return False
        self._silent[unit] = now + PROBE_PAUSES * timeout_ns
        return True

    def answered(self, unit: int) -> None:
        """It has, whatever it said."""
        self.missed.pop(unit, None)
        self._silent.pop(unit, None)

    def unanswered(self, unit: int, took_ns: int, now: int) -> bool:
        """It has not, once more, which took so long. Whether it counts as silent now."""
        missed = self.missed[unit] = self.missed.get(unit, 0) + 1
        if missed < SILENT_AFTER:
            return False
        self._silent[unit] = now + PROBE_PAUSES * took_ns
        return True
