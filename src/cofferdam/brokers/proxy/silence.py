"""Units behind one address: how each of them answers, so that one that is switched off costs its neighbours little, and
is told apart from them.

After SILENT_AFTER requests without an answer, one after the other, a unit counts as silent; so it does where a gateway
answers in its place that it is not there. It is then asked by one request after PROBE_PAUSES times as long as the last
one took; all others to it are told so at once.

Not here: sending, and what becomes of those that are told (device).
"""

from __future__ import annotations

SILENT_AFTER = 2
"""Requests of one group to a unit without an answer, one after the other, after which it counts as silent."""
PROBE_PAUSES = 12
"""A silent unit is asked again after so many times what the last attempt took of the line: its neighbours keep more
than nine tenths of it."""

OTHERS_FIRST = 4
"""Who was not answered last waits for one such part of the pause more, so that others find out, too."""
GROUPS = 256
"""Of whom it is remembered that a unit answers them."""
MISSES = 4096
"""Units and groups of which it is remembered that there was no answer."""


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
    """What is known of the units of one device. Times: monotonic ns. `group`: for whom a unit is asked. Whoever was
    answered last goes on asking: that a unit leaves without an answer what another asks says nothing to them, until
    they find out themselves."""

    __slots__ = ("_good", "_missed", "_prober", "_units", "silent")

    def __init__(self) -> None:
        self._missed: dict[tuple[int, str], int] = {}  # of a unit and group: requests in a row without an answer
        self.silent: dict[int, tuple[int, int]] = {}
        """By unit that counts as silent: when it is asked next, and the pause before. Empty as long as all is well."""
        self._prober: dict[int, str] = {}  # by unit: who has asked it last while it was silent
        self._good: dict[int, set[str]] = {}  # by unit: who was answered last
        self._units: dict[int, Unit] = {}

    def unit(self, number: int) -> Unit:
        """What is counted of a unit."""
        found = self._units.get(number)
        if found is None:
            found = self._units[number] = Unit()
        return found

    def answers(self, unit: int, group: str) -> bool:
        """Whether the unit has answered what this group asked last."""
        good = self._good.get(unit)
        return good is not None and group in good

    def may_ask(self, unit: int, group: str, timeout_ns: int, now: int) -> bool:
        """Whether the unit is not silent to this group, or is to be asked again by this request: by who has not done so
        last, if there is somebody."""
        found = self.silent.get(unit)
        if found is None or self.answers(unit, group):
            return True
        due, pause = found
        if now < (due + pause // OTHERS_FIRST if self._prober.get(unit) == group else due):
            return False
        self.silent[unit] = (now + PROBE_PAUSES * timeout_ns, PROBE_PAUSES * timeout_ns)
        self._prober[unit] = group
        return True

    def answered(self, unit: int, group: str) -> None:
        """It has, whatever it said."""
        good = self._good.get(unit)
        if good is None:
            good = self._good[unit] = set()
        if group in good:
            return  # also where it is silent to others
        if len(good) >= GROUPS:
            good.clear()
        good.add(group)
        self._missed.pop((unit, group), None)
        self.silent.pop(unit, None)

    def unanswered(self, unit: int, group: str, took_ns: int, now: int) -> bool:
        """It has not, once more, which took so long. Whether it counts as silent now."""
        good = self._good.get(unit)
        if good is not None:
            good.discard(group)
        if len(self._missed) >= MISSES:
            self._missed.clear()
        missed = self._missed[unit, group] = self._missed.get((unit, group), 0) + 1
        if missed < SILENT_AFTER:
            return False
        self.silent[unit] = (now + PROBE_PAUSES * took_ns, PROBE_PAUSES * took_ns)
        self._prober[unit] = group
        return True
