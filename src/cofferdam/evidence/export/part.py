"""An export's part: takes entries from the log's files to one collector, for as long as the gate runs.

It stands in the host's network, as a user of its own, and sees the log without its key, and a store for its cursor. It
is told once where to send, and puts its filter on before anybody is dialled. One that blocks is a collector of its own
and holds up nobody: each has a process. It runs when nothing else wants the processor (Profile.yields).

Not here: the work (sending), the ways (ways), alarms and entries (gate.watch.exports).
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import LogReader
from cofferdam.crossing.lone_part import WORDS, LonePart, facts_of, run
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import EXPORT
from cofferdam.enforce.profile import Can, Profile
from cofferdam.errors import AuditError
from cofferdam.evidence.export.records import (
    FROM_EXPORT,
    TO_EXPORT,
    Collect,
    ExportReady,
    FromExport,
    Standing,
    ToExport,
)
from cofferdam.evidence.export.sending import Cursor, Sending, Stood
from cofferdam.evidence.export.ways import Secrets, Way, WayError, way

GARBAGE: Final = 200_000
"""Objects after which the collector looks for circles: a batch has some thousands, and leaves none."""
AGAIN_SECONDS: Final = 10.0
"""Between two words on what only an operator can put right."""


def held(way: str) -> Profile:
    """What an export needs for its way and nothing else: one that sends no datagram has no socket that takes any, from
    whoever may send it some."""
    profile = EXPORT.parts["exporter"]
    dials = Can.DIAL_TCP | Can.DIAL_UDP
    needs = {"tls": Can.DIAL_TCP, "https": Can.DIAL_TCP, "udp": Can.DIAL_UDP}.get(way, Can.NOTHING)
    return replace(profile, can=profile.can & ~dials | needs)


class ExportProcess(LonePart[ToExport, FromExport]):
    """The process."""

    name, task = "export", Collect

    def __init__(self, control_in: int, control_out: int) -> None:
        self._sending: Sending | None = None
        super().__init__(Reactor(), control_in, control_out, TO_EXPORT, FROM_EXPORT)

    def run(self) -> int:
        gc.freeze()
        gc.set_threshold(GARBAGE)
        return super().run()

    def heard(self, record: ToExport) -> bool:
        if self._sending is not None:
            self._sending.way.close()
        return False

    def begin(self, told: Collect) -> None:
        folder = Path(told.folder) if told.folder else None
        secrets = Secrets(told.certificate, told.key, told.token)
        first: Way | None = None
        why = ""
        try:
            first = way(told.to, secrets, folder)
        except WayError as error:
            why = str(error)
        "name".encode("idna")  # loaded while it can be
        audit, store = Path(told.audit), Path(told.store)
        writes = [store, *([folder] if folder is not None else [])]
        facts = sandbox.confine(held(told.to.way), writes, [audit])
        self._gate.send(ExportReady(facts_of(facts)))
        if first is None:
            self._lacks(why)
            return
        try:
            key = VerifierKey.parse(told.log)
            reader = LogReader(audit, key)
        except AuditError as error:
            self._lacks(f"our own side: {error}")
            return
        self._sending = Sending(first, reader, Cursor(store, told.to.name, key.text), self._say)
        self._turn()

    def _turn(self) -> None:
        if self._sending is not None:
            self._reactor.call_in(self._sending.turn(), self._turn)

    def _lacks(self, why: str) -> None:
        """Nothing can be sent until an operator has done something: said again and again, as whoever lives does."""
        self._gate.send(Standing(0, 0, False, why[:WORDS]))
        self._reactor.call_in(AGAIN_SECONDS, lambda: self._lacks(why))

    def _say(self, stood: Stood) -> None:
        self._gate.send(Standing(stood.next, stood.behind, stood.working, stood.detail[:WORDS]))


if __name__ == "__main__":
    sys.exit(run("export", lambda args: ExportProcess(args.control_in, args.control_out)))
