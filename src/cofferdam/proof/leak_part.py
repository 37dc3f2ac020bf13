"""The leak probe's part: a process that lives for one round. It is born in the IT side's namespace with a packet socket
on each interface, as a user of its own; puts its filter on, is told whom to ask for, says who answered, and ends.

Not here: the asking (leak), when a round is due and what its findings mean (gate.watch.leaks).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from cofferdam.crossing.lone_part import LonePart, run
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import LEAKS
from cofferdam.proof import leak
from cofferdam.proof.leak_records import ASK_ROUND, ROUND_DONE, AskRound, RoundDone

LAST_WORDS_SECONDS: Final = 5.0


class RoundProcess(LonePart[AskRound, RoundDone]):
    """The process."""

    name, task = "leak probe", AskRound

    def __init__(self, control_in: int, control_out: int, wires: list[leak.Wire]) -> None:
        self._wires = wires
        self._done = False
        super().__init__(Reactor(), control_in, control_out, ASK_ROUND, ROUND_DONE)

    def run(self) -> int:
        if not sandbox.confine(LEAKS.parts["probe"])[0][1]:
            print("cofferdam: the leak probe runs without a filter on this processor", file=sys.stderr)
        return super().run()

    def begin(self, told: AskRound) -> None:
        found = leak.ask(self._wires, told.targets)
        answers = tuple((address, how, detail[:256]) for address, how, detail in found["answers"])
        self._gate.send(RoundDone(answers, found["asked"]))
        self._gate.flush()
        self._done = True
        self._reactor.call_in(LAST_WORDS_SECONDS, self.stop)  # the gate ends us before, having read it

    def heard(self, record: AskRound) -> bool:
        return False

    def gate_gone(self) -> None:
        if self._done:
            self.stop()
        else:
            super().gate_gone()


def _made(args: argparse.Namespace) -> LonePart[Any, Any]:
    return RoundProcess(args.control_in, args.control_out, args.wire)


def main() -> int:
    return run("leak-probe", _made, others={"wire": {"type": leak.Wire.parse, "action": "append", "default": []}})


if __name__ == "__main__":
    sys.exit(main())
