"""What is told of a device, and of each unit behind it: counts, and how it answers.

Not here: figures and alarms made of it (inner, gate.watch), which units are asked how often (silence).
"""

from __future__ import annotations

from cofferdam.brokers.proxy.approach import Approach
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.lines import Lines
from cofferdam.brokers.proxy.silence import SILENT_AFTER, Silence, Unit
from cofferdam.brokers.proxy.speaking import Speaking


class Told(Speaking):
    """A device as far as something is told of it. A unit of -1 is all of them together, as with a device that has
    one."""

    shared: bool
    detail: str
    held: bool
    retired: str
    _lines: Lines[Job]
    _line: Unit
    _silence: Silence
    _approach: Approach

    def of(self, unit: int) -> Unit:
        """What is counted."""
        return self._silence.unit(unit) if self.shared and unit >= 0 else self._line

    def queued(self, unit: int) -> int:
        """Requests that wait for a place."""
        if not self.shared or unit < 0 or not self._lines.count:
            return self._lines.count
        return self._lines.count_if(lambda job: job.unit == unit)

    def in_flight(self, unit: int) -> int:
        """Requests that it has."""
        if not self.shared or unit < 0:
            return sum(len(connection.flight) for connection in self._connections)
        return sum(job.unit == unit for connection in self._connections for job in connection.flight.values())

    @property
    def connections(self) -> int:
        """Connections that are up."""
        return sum(connection.ready for connection in self._connections)

    def said(self, unit: int) -> str:
        """What went wrong last, "" if nothing has since."""
        found = self.of(unit)
        return self.detail or (found.missing if found.unanswered else "")

    def state(self, unit: int) -> str:
        """idle, connecting, up, backing-off; or silent: it has not answered what it was asked last."""
        if self.of(unit).unanswered >= SILENT_AFTER:
            return "silent"
        if self.connections:
            return "up"
        if self._connections:
            return "connecting"
        return "backing-off" if self._approach.retry_at > self._clock() else "idle"

    def unused_ns(self, now: int) -> int:
        """For how long nobody has used its connections; 0 where none is up, or something is under way or waits."""
        if self._lines.count or self.held or self.retired:
            return 0
        ready = [connection for connection in self._connections if connection.ready]
        if not ready or any(connection.flight for connection in ready):
            return 0
        return now - max(connection.last for connection in ready)
