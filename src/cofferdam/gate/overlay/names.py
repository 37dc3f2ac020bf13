"""The name server's crew: told the zone at birth and whenever it changes.

Not here: its life (crew.supervisor), what it answers (enforce.overlay).
"""

from __future__ import annotations

from collections.abc import Sequence

from cofferdam.enforce.orders import PartOrder, Place
from cofferdam.enforce.overlay.records import (
    FROM_NAMES,
    TO_NAMES,
    FromNames,
    NamesReady,
    NamesStatus,
    SetZone,
    StopNames,
    ToNames,
)
from cofferdam.enforce.plans.overlay import NameZone
from cofferdam.errors import GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.hearing import Bounded
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.supervisor import Child, Supervisor


class NamesPart(Child[ToNames, FromNames]):
    """The process."""

    ready: NamesReady | None = None
    status: NamesStatus | None = None

    @property
    def is_ready(self) -> bool:
        return self.ready is not None

    def take(self, record: FromNames) -> None:
        if isinstance(record, NamesReady):
            self.ready = record
        else:
            self.status = record


class NameServer(Supervisor[NamesPart]):
    """Supervises one name server after the other."""

    kind = "names"

    def __init__(self, gate: Context, zone: NameZone, place: Place, listeners: tuple[int, ...]) -> None:
        super().__init__(gate, "names")
        self._zone = zone
        self._sockets = (place, listeners)
        self._born_with = self._sockets

    def set_zone(self, zone: NameZone) -> None:
        """Answers from this zone from now on."""
        self._zone = zone
        for part in self.parts:
            part.send(SetZone(zone))

    def move(self, place: Place, listeners: tuple[int, ...]) -> None:
        """The one that runs is ended; the next one has these sockets."""
        self._sockets = (place, listeners)
        self._planned_end = bool(self.parts)
        self.kill()

    def orders(self) -> Sequence[PartOrder]:
        self._born_with = self._sockets
        return [PartOrder("names", *self._sockets)]

    def adopt(self, born: Born) -> NamesPart:
        return NamesPart(self._gate.reactor, "names", born, Bounded(FROM_NAMES), TO_NAMES, self._violation)

    async def configure(self) -> None:
        for part in self.parts:
            part.send(SetZone(self._zone))

    def on_ready(self) -> None:
        self._gate.log.info("names-served", zone=self._zone.domain, at=self._zone.servers)
        if self._born_with != self._sockets:  # it moved while it was born
            self._planned_end = True
            self.kill()

    def ask_to_stop(self, part: NamesPart, seconds: float) -> None:
        part.send(StopNames())

    def failure(self, reason: str, hint: str) -> GateError:
        return GateError(f"the name server of the overlay does not start: {reason}", hint=hint)

    def _violation(self, part: NamesPart, detail: str) -> None:
        self._gate.log.error("names-violation", detail=detail)
        self.kill_part(part)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """The separation that it has put itself under."""
        return next((part.ready.facts for part in self.parts if part.ready is not None), ())

    @property
    def status(self) -> NamesStatus | None:
        return next((part.status for part in self.parts), None)
