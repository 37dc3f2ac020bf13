"""An export's part: takes entries from the log's files to one collector, for as long as the gate runs.

It stands in the host's network, as a user of its own, and sees the log without its key, and a store for its cursor. It
is told once where to send, and puts its filter on before anybody is dialled. One that blocks is a collector of its own
and holds up nobody: each has a process. It runs when nothing else wants the processor (Profile.yields).

Not here: the work (sending), the ways (ways), alarms and entries (gate.watch.exports).
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Final

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import LogReader
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import EXPORT
from cofferdam.errors import AuditError, CrossingError
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

EXIT_STOPPED, EXIT_GATE_GONE, EXIT_VIOLATION = 0, 2, 4
GARBAGE: Final = 200_000
"""Objects after which the collector looks for circles: a batch has some thousands, and leaves none."""
AGAIN_SECONDS: Final = 10.0
"""Between two words on what only an operator can put right."""


class ExportProcess:
    """The process; `run()` returns its exit code."""

    def __init__(self, control_in: int, control_out: int) -> None:
        self._reactor = Reactor()
        self._code = EXIT_GATE_GONE
        self._sending: Sending | None = None
        self._told = False
        self._gate: PipeSender[FromExport] = PipeSender(self._reactor, control_out, FROM_EXPORT)
        self._gate.on_closed = self._reactor.stop
        PipeReceiver(self._reactor, control_in, TO_EXPORT, self._on_record, self._reactor.stop)

    def run(self) -> int:
        gc.freeze()
        gc.set_threshold(GARBAGE)
        try:
            self._reactor.run()
        except CrossingError as error:
            print(f"cofferdam: the export was told what it does not understand: {error}", file=sys.stderr)
            return EXIT_VIOLATION
        return self._code

    def _on_record(self, record: ToExport) -> None:
        if not isinstance(record, Collect):
            if self._sending is not None:
                self._sending.way.close()
            self._code = EXIT_STOPPED
            self._reactor.stop()
        elif self._told:
            raise CrossingError("told twice where to send")
        else:
            self._told = True
            self._begin(record)

    def _begin(self, told: Collect) -> None:
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
        facts = sandbox.confine(EXPORT.parts["exporter"], writes, [audit])
        self._gate.send(ExportReady(tuple((name, force, detail[:1024]) for name, force, detail in facts)))
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
        self._gate.send(Standing(0, 0, False, why[:1024]))
        self._reactor.call_in(AGAIN_SECONDS, lambda: self._lacks(why))

    def _say(self, stood: Stood) -> None:
        self._gate.send(Standing(stood.next, stood.behind, stood.working, stood.detail[:1024]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="cofferdam-export")
    for option in ("name", "kind", "part"):
        parser.add_argument(f"--{option}", default="")
    for option in ("control-in", "control-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args()
    return ExportProcess(args.control_in, args.control_out).run()


if __name__ == "__main__":
    sys.exit(main())
