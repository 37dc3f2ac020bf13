"""The ends of a crew's pipes that belong to a part which comes again by itself, while the others go on (Crew.returns).

The launcher holds them for as long as the others live, so that these see no end of their pipes, and hands them to the
next life of that part. What lies in them is for the life before: each side says where the new one begins
(crossing.framing).

Not here: who may come again (profile), when (gate.crew.supervisor).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from cofferdam.enforce.orders import Child, Spawn
from cofferdam.enforce.profile import Crew
from cofferdam.errors import GateError

Pipes = Mapping[tuple[str, str], tuple[int, int]]
"""By (from, to): the end to read and the end to write."""


class Kept:
    """The ends, by crew, and which parts of those crews live."""

    def __init__(self) -> None:
        self._ends: dict[str, dict[tuple[str, str], int]] = {}
        self._lives: dict[int, tuple[str, str, bool]] = {}

    def again(self, crew: Crew, order: Spawn) -> Pipes:
        """The pipes of a part that comes again, by its own ends; none where the order is for a whole crew.

        Raises:
            GateError: it lives. A gate that was taken over could order a second.
        """
        part = order.parts[0].part
        if len(order.parts) > 1 or part not in crew.returns or order.crew not in self._ends:
            return {}
        if (order.crew, part, True) in self._lives.values():
            raise GateError(f"{order.crew}/{part} lives")
        return {joint: (end, end) for joint, end in self._ends[order.crew].items() if part in joint}

    def keep(self, name: str, crew: Crew, pipes: Pipes, children: Sequence[Child]) -> None:
        """These parts of a crew are born, with these pipes."""
        if not crew.returns:
            return
        self._lives |= {child.child: (name, child.part, child.part in crew.returns) for child in children}
        if len(children) > 1:
            self._forget(name)
            self._ends[name] = {
                joint: os.dup(pipe[joint[0] in crew.returns])
                for joint, pipe in pipes.items()
                if len(crew.returns.intersection(joint)) == 1
            }

    def gone(self, child: int) -> None:
        """A child has ended. One that does not come again takes all others of its crew with it."""
        name, _, returns = self._lives.pop(child, ("", "", True))
        if not returns:
            self._forget(name)

    def _forget(self, name: str) -> None:
        for end in self._ends.pop(name, {}).values():
            os.close(end)

    def close(self) -> None:
        """All have ended."""
        for name in list(self._ends):
            self._forget(name)
