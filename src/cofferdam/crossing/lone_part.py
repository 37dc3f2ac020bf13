"""The frame of a part that is alone in its crew and speaks with the gate alone: the auditor, the name server, the leak
probe, the witness, an export. Their main program is here, once.

It says that it is ready and how it stands, and ends when it is told to or the gate goes.

Not here: what it does (the class derived from this), a part that has others beside it (brokers.half).
"""

from __future__ import annotations

import abc
import argparse
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Generic, TypeVar

from cofferdam.crossing.exit import EXIT_BUG, EXIT_GATE_GONE, EXIT_STOPPED, EXIT_VIOLATION
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

WORDS: Final = 1024
"""Letters of a text to the gate."""
Hears = TypeVar("Hears")
Says = TypeVar("Says")


class LonePart(abc.ABC, Generic[Hears, Says]):
    """The process; `run()` returns its exit code. `task`: the record that says what to do, and comes once; one that is
    told as often as it likes has none."""

    name: ClassVar[str]
    task: ClassVar[type | None] = None

    def __init__(
        self, reactor: Any, control_in: int, control_out: int, hears: RecordCodec[Hears], says: RecordCodec[Says]
    ) -> None:
        self._reactor = reactor
        self._code: int | None = None
        self._told = False
        self._gate: PipeSender[Says] = PipeSender(reactor, control_out, says)
        self._gate.on_closed = self.gate_gone
        PipeReceiver(reactor, control_in, hears, self._on_record, self.gate_gone)

    def begin(self, told: Any) -> None:
        """It has been told what to do."""

    @abc.abstractmethod
    def heard(self, record: Hears) -> bool:
        """Takes any other record; False where it is the last, after which it ends."""

    def gate_gone(self) -> None:
        """Without the gate nobody watches it: it ends."""
        self.stop(EXIT_GATE_GONE)

    def ended(self) -> None:
        """It was stopped, and the process is about to end."""

    def stop(self, code: int = EXIT_STOPPED) -> None:
        """The process ends after this turn. The first reason counts: the gate goes soon after it has said so."""
        if self._code is None:
            self._code = code
        self._reactor.stop()

    def run(self) -> int:
        try:
            self._reactor.run()
            self.ended()
        except CrossingError as error:
            print(f"cofferdam: the {self.name} was told what it does not understand: {error}", file=sys.stderr)
            return EXIT_VIOLATION
        except Exception:
            traceback.print_exc()
            return EXIT_BUG
        return self._code or EXIT_STOPPED

    def _on_record(self, record: Hears) -> None:
        if self.task is not None and isinstance(record, self.task):
            if self._told:
                raise CrossingError("told twice what to do")
            self._told = True
            self.begin(record)
        elif not self.heard(record):
            self.stop()


def facts_of(found: Iterable[tuple[str, bool, str]]) -> tuple[tuple[str, bool, str], ...]:
    """What a sandbox says of itself, as it goes to the gate."""
    return tuple((name, force, detail[:WORDS]) for name, force, detail in found)


def run(
    name: str,
    make: Callable[[argparse.Namespace], LonePart[Any, Any]],
    numbers: Iterable[str] = (),
    others: dict[str, dict[str, Any]] | None = None,
) -> int:
    """Runs the part by the launcher's arguments. `numbers`: descriptors and counts that it gets besides; `others`:
    further arguments, as argparse has them."""
    parser = argparse.ArgumentParser(prog=f"cofferdam-{name}")
    for option in ("name", "kind", "part"):
        parser.add_argument(f"--{option}", default=name)
    for option in ("control-in", "control-out", *numbers):
        parser.add_argument(f"--{option}", type=int, required=True)
    for option, how in (others or {}).items():
        parser.add_argument(f"--{option}", **how)
    return make(parser.parse_args()).run()
