"""The frame of a part that is alone in its crew and speaks with the gate alone: the witness's, an export's.

It is told once what to do, says that it is ready and how it stands, and ends when it is told to or the gate goes.

Not here: what it does (witness_part, export.part).
"""

from __future__ import annotations

import abc
import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar

from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

EXIT_STOPPED, EXIT_GATE_GONE, EXIT_VIOLATION = 0, 2, 4
WORDS: Final = 1024
"""Letters of a text to the gate."""
Hears = TypeVar("Hears")
Says = TypeVar("Says")


class LonePart(abc.ABC, Generic[Hears, Says]):
    """The process; `run()` returns its exit code. `task`: the record that says what to do, and comes once."""

    name: ClassVar[str]
    task: ClassVar[type]

    def __init__(
        self, reactor: Any, control_in: int, control_out: int, hears: RecordCodec[Hears], says: RecordCodec[Says]
    ) -> None:
        self._reactor = reactor
        self._code = EXIT_GATE_GONE
        self._told = False
        self._gate: PipeSender[Says] = PipeSender(reactor, control_out, says)
        self._gate.on_closed = reactor.stop
        PipeReceiver(reactor, control_in, hears, self._on_record, reactor.stop)

    @abc.abstractmethod
    def begin(self, told: Any) -> None:
        """It has been told what to do."""

    @abc.abstractmethod
    def heard(self, record: Hears) -> bool:
        """Takes any other record; False where it is the last, after which it ends."""

    def run(self) -> int:
        try:
            self._reactor.run()
        except CrossingError as error:
            print(f"cofferdam: the {self.name} was told what it does not understand: {error}", file=sys.stderr)
            return EXIT_VIOLATION
        return self._code

    def _on_record(self, record: Hears) -> None:
        if isinstance(record, self.task):
            if self._told:
                raise CrossingError("told twice what to do")
            self._told = True
            self.begin(record)
        elif not self.heard(record):
            self._code = EXIT_STOPPED
            self._reactor.stop()


def facts_of(found: Iterable[tuple[str, bool, str]]) -> tuple[tuple[str, bool, str], ...]:
    """What a sandbox says of itself, as it goes to the gate."""
    return tuple((name, force, detail[:WORDS]) for name, force, detail in found)


def run(name: str, make: Callable[[int, int], LonePart[Any, Any]]) -> int:
    """Runs the part by the launcher's arguments."""
    parser = argparse.ArgumentParser(prog=f"cofferdam-{name}")
    for option in ("name", "kind", "part"):
        parser.add_argument(f"--{option}", default="")
    for option in ("control-in", "control-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args()
    return make(args.control_in, args.control_out).run()
