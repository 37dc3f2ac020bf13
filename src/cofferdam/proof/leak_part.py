"""The leak probe's part: a process that lives for one round. It is born in the IT side's namespace with a packet socket
on each interface, as a user of its own; puts its filter on, is told whom to ask for, says who answered, and ends.

Not here: the asking (leak), when a round is due and what its findings mean (gate.watch.leaks).
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import LEAKS
from cofferdam.errors import CrossingError
from cofferdam.proof import leak
from cofferdam.proof.leak_records import ASK_ROUND, ROUND_DONE, AskRound, RoundDone

LAST_WORDS_SECONDS: Final = 5.0
EXIT_DONE, EXIT_GATE_GONE, EXIT_VIOLATION = 0, 2, 4


class RoundProcess:
    """The process; `run()` returns its exit code."""

    def __init__(self, control_in: int, control_out: int, wires: list[leak.Wire]) -> None:
        self._reactor = Reactor()
        self._wires = wires
        self._code = EXIT_GATE_GONE
        self._gate: PipeSender[RoundDone] = PipeSender(self._reactor, control_out, ROUND_DONE)
        self._gate.on_closed = self._reactor.stop
        PipeReceiver(self._reactor, control_in, ASK_ROUND, self._on_ask, self._reactor.stop)

    def run(self) -> int:
        if not sandbox.confine(LEAKS.parts["probe"])[0][1]:
            print("cofferdam: the leak probe runs without a filter on this processor", file=sys.stderr)
        try:
            self._reactor.run()
        except CrossingError as error:
            print(f"cofferdam: the leak probe was told what it does not understand: {error}", file=sys.stderr)
            return EXIT_VIOLATION
        return self._code

    def _on_ask(self, record: AskRound) -> None:
        found = leak.ask(self._wires, record.targets)
        answers = tuple((address, how, detail[:256]) for address, how, detail in found["answers"])
        self._gate.send(RoundDone(answers, found["asked"]))
        self._gate.flush()
        self._code = EXIT_DONE
        self._reactor.call_in(LAST_WORDS_SECONDS, self._reactor.stop)  # the gate ends us before, having read it


def main() -> int:
    parser = argparse.ArgumentParser(prog="cofferdam-leak-probe")
    for option in ("name", "kind", "part"):
        parser.add_argument(f"--{option}", default="")
    for option in ("control-in", "control-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    parser.add_argument("--wire", type=leak.Wire.parse, action="append", default=[])
    args = parser.parse_args()
    return RoundProcess(args.control_in, args.control_out, args.wire).run()


if __name__ == "__main__":
    sys.exit(main())
