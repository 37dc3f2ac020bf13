"""The exports' crews, one for each collector of the policy: told where to send at birth, and heard.

The gate believes of them what they say of themselves, and no more hangs on it than an alarm: an export that stands
still is one at once, `export-NAME`, and so is one whose process ended. How an export stands is an entry when it
changes, and once an hour.

Not here: their lives (crew.supervisor), the work (evidence.export).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.evidence import ExportStood
from cofferdam.enforce.crews import EXPORTER, export_crew
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import GateError
from cofferdam.evidence.checks.logs import ANEW, OUT
from cofferdam.evidence.export.records import (
    FROM_EXPORT,
    TO_EXPORT,
    Collect,
    ExportReady,
    FromExport,
    StopExport,
    ToExport,
)
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.auditor import Auditor
from cofferdam.gate.crew.hearing import Bounded
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.supervisor import Child, Supervisor
from cofferdam.gate.secrets import load_secrets
from cofferdam.policy.rows import Collector

SECRETS: Final = ("certificate", "key", "token")
"""Kinds of secrets: STATE/secrets/export/NAME/KIND."""
AGAIN_SECONDS: Final = 3600.0
CHANGE_SECONDS: Final = 20.0
"""Between two words in the log, and from an alarm to its end: one that breaks and works in turns, or was taken over,
cannot fill it."""
STOP_SECONDS: Final = 1.0
Tell = Callable[[ExportStood], None]
"""Raises and clears the alarm of an export."""


def secrets_of(gate: Context, name: str) -> dict[str, bytes]:
    """A collector's secrets, by kind. Raises: GateError."""
    return {one.name: one.value for one in load_secrets(gate.options.state, "export", name, SECRETS)}


class ExportPart(Child[ToExport, FromExport]):
    """The process."""

    def __init__(self, owner: Exporting, gate: Context, born: Born) -> None:
        self._owner = owner
        self.ready: ExportReady | None = None
        super().__init__(gate.reactor, owner.name, born, Bounded(FROM_EXPORT), TO_EXPORT, owner.violation)

    @property
    def is_ready(self) -> bool:
        return self.ready is not None

    def take(self, record: FromExport) -> None:
        if isinstance(record, ExportReady):
            self.ready = record
        else:
            self._owner.stands(record.working, record.next, record.detail)


class Exports:
    """The crews that the policy in force asks for, by the names of collectors."""

    def __init__(self, gate: Context, auditor: Auditor, tell: Tell) -> None:
        self._gate, self._auditor, self._tell = gate, auditor, tell
        self._crews: dict[str, Exporting] = {}

    async def take(self, collectors: Sequence[Collector]) -> None:
        """These are to have the log's entries from now on. One that is as it was goes on undisturbed."""
        wanted = {one.name: one for one in collectors}
        for name, crew in list(self._crews.items()):
            if crew.to != wanted.get(name) or crew.has_other_secrets():
                del self._crews[name]
                await crew.stop(STOP_SECONDS)
                if name in wanted:
                    crew.forget()
                else:
                    crew.gone()
        for name, one in wanted.items():
            if name not in self._crews:
                self._crews[name] = Exporting(self._gate, self._auditor, self._tell, one)
                self._gate.spawn(self._crews[name].run())

    async def stop(self) -> None:
        crews, self._crews = self._crews, {}
        for crew in crews.values():
            await crew.stop(STOP_SECONDS)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        return tuple(fact for crew in self._crews.values() for fact in crew.facts)


class Exporting(Supervisor[ExportPart]):
    """Supervises one part after the other, for one collector."""

    kind = "export"
    silence_seconds = 180.0
    """It waits for a collector: up to ten seconds for a connection, thirty for one that takes nothing, twice."""

    def __init__(self, gate: Context, auditor: Auditor, tell: Tell, to: Collector) -> None:
        super().__init__(gate, export_crew(to.name))
        self._auditor, self._tell_gate = auditor, tell
        self.to = to
        self.secrets: dict[str, bytes] = {}
        self._next = 0
        self._told: tuple[bool, str] | None = None
        self._told_at = 0.0
        self._failed_at = -CHANGE_SECONDS

    def orders(self) -> Sequence[PartOrder]:
        return [PartOrder(EXPORTER, folders=(self.to.folder,) if self.to.folder else ())]

    def adopt(self, born: Born) -> ExportPart:
        return ExportPart(self, self._gate, born)

    async def configure(self) -> None:
        self.secrets = secrets_of(self._gate, self.to.name)
        for part in self.parts:
            born = part.born
            audit = born.reads.get("audit", "")
            part.send(
                Collect(
                    self._auditor.key, self.to, audit, born.store, born.folders.get(self.to.folder, ""), **self.secrets
                )
            )

    def ask_to_stop(self, part: ExportPart, seconds: float) -> None:
        part.send(StopExport())

    def on_end(self, part: ExportPart, reason: str, expected: bool) -> None:
        if not expected:
            self.stands(False, self._next, f"its process ended: {reason or 'no reason'}")

    def failure(self, reason: str, hint: str) -> GateError:
        self.stands(False, self._next, f"it does not start: {reason}")
        return GateError(f"the export to {self.to.name} does not start: {reason}", hint=hint)

    def violation(self, part: ExportPart, detail: str) -> None:
        self._gate.log.error("export-violation", collector=self.to.name, detail=detail)
        self.stands(False, self._next, f"its process was taken over, or is broken: {detail}")
        self.kill_part(part)

    def has_other_secrets(self) -> bool:
        """Whether its secrets are others by now; one that cannot be read is (its next life says why)."""
        try:
            return self.secrets != secrets_of(self._gate, self.to.name)
        except GateError:
            return True

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """The separation that it has put itself under."""
        found = next((part.ready.facts for part in self.parts if part.ready is not None), ())
        return tuple((f"{self.name}: {name}", force, detail) for name, force, detail in found)

    def gone(self) -> None:
        """The policy does not name it any more."""
        event = self._event(True, OUT)
        self._gate.note(event)
        self._tell_gate(event)

    def forget(self) -> None:
        """It is told otherwise from here on: its alarm was of what is over."""
        self._tell_gate(self._event(True, ANEW))

    def _event(self, working: bool, detail: str) -> ExportStood:
        return ExportStood(
            collector=self.to.name, next=self._next, working=working, detail=clip(detail), wall_ns=now_ns()
        )  # fmt: skip

    def stands(self, working: bool, following: int, detail: str) -> None:
        """What is known of it now."""
        self._next, now = following, time.monotonic()
        event = self._event(working, detail)
        if not working and self._told not in (None, (False, event.detail)) and now - self._told_at >= CHANGE_SECONDS:
            self.forget()  # an alarm keeps its words, and these are others
        if not working:
            self._failed_at = now
        if not working or now - self._failed_at >= CHANGE_SECONDS:  # an alarm stands that long at least
            self._tell_gate(event)
        again = AGAIN_SECONDS if self._told == (working, event.detail) else CHANGE_SECONDS
        if self._told is None or now - self._told_at >= again:
            self._told, self._told_at = (working, event.detail), now
            self._gate.note(event)
