"""The seams of a part: pipes to parts of other crews on its side, as the process around the part has them.

Not here: what goes through them (seam), what a part does with them (its broker), who makes them (enforce.seams).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import RecordViolation
from cofferdam.brokers.broker import Part
from cofferdam.brokers.kit import seam
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CrossingError

Place = tuple[str, int]


class Seams:
    """Those that a part has. `name`: what it is called in the log."""

    def __init__(self, reactor: Reactor, part: Part, audit: AuditClient, name: str) -> None:
        self._reactor, self._part, self._audit, self._name = reactor, part, audit, name
        self._ends: dict[Place, tuple[Sender[Any], Receiver[Any]]] = {}
        self._torn: dict[Place, str] = {}

    def join(self, ends: Sequence[Listener]) -> None:
        """Has the seams to these places, and no others. Each has two ends here: one to write, one to read."""
        wanted: dict[Place, dict[bool, int]] = {}
        for end in ends:
            wanted.setdefault((end.address, end.port), {})[end.way.endswith("-out")] = end.fd
        for place in [place for place in self._ends if place not in wanted]:
            self._leave(place)
        for place, fds in wanted.items():
            if place in self._ends or place in self._torn:
                continue
            sender: Sender[Any] = PipeSender(self._reactor, fds[True], seam.codec())
            receiver: Receiver[Any] = PipeReceiver(
                self._reactor,
                fds[False],
                seam.codec(),
                self._part.join(place, sender),
                on_violation=functools.partial(self._tear, place),
                packets=seam.PACKETS_A_TURN,
            )
            self._ends[place] = (sender, receiver)

    def leave(self) -> None:
        """Has none any more."""
        for place in list(self._ends):
            self._leave(place)

    def _leave(self, place: Place) -> None:
        sender, receiver = self._ends.pop(place)
        self._part.leave(place)
        receiver.close()
        sender.flush()
        sender.close()

    def _tear(self, place: Place, error: CrossingError) -> None:
        """The part of another crew broke the rules: that is the end of what it has with us, and of nothing else."""
        half = clip(f"{self._name}: the seam to {place[0]} port {place[1]}", 128)
        self._audit.note(RecordViolation(wall_ns=time.time_ns(), half=half, detail=clip(str(error))))
        self._torn[place] = str(error)
        self._leave(place)

    def alarms(self) -> dict[str, str]:
        """A seam that was closed stays so until this part is born again."""
        said = "; ".join(f"{place[0]} port {place[1]}: {why}" for place, why in self._torn.items())
        return {"seam-closed": clip(f"nobody comes by the seam to {said}")} if said else {}
