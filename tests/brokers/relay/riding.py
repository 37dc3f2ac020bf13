"""A keeper inside and one outside, each as its crew would have it, and the two folders of a strand between them: what
lies in the one comes into the other as a test says, whole, in part, late or twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.far import FarKeeper
from cofferdam.brokers.relay.records import Carried, ToFar
from cofferdam.crossing import strand
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.strand import StrandReceiver, StrandSender
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.relay_rows import Channel, Line, RelayRows, inside, outside
from tests.brokers.relay.keeping import COUNTS, LINES, PRINCIPALS, Bench, Clock, make_rows

Wire = Callable[[list[ToFar]], Iterable[ToFar]]


def riding(channel: Channel = COUNTS) -> RelayRows:
    return msgspec.structs.replace(
        make_rows((channel,), (*LINES, Line(number=2, who=("lake",), browse=("counts",)))),
        strand="strand",
        outer="enterprise",
        inner="control",
        stands=PRINCIPALS,
    )


class Inside(Bench):
    sides = ("inner",)

    def cut(self, row: RelayRows) -> RelayRows:
        return inside(row)

    def strand(self) -> dict[str, Sender[Any]]:
        self.ride = self.folder / "ride-out"
        self.ride.mkdir(exist_ok=True)
        self.sender = StrandSender(self.reactor, self.ride, records.to_far(), wall=lambda: self.clock.wall)
        return {"far": self.sender}

    def crash_in(self, copy: Path, *, lost: bool = False) -> None:
        self.sender.closed = True
        self.sender._looks.close()
        super().crash_in(copy, lost=lost)

    def close(self) -> None:
        self.sender._looks.close()
        super().close()


class Outside(Bench):
    kind = FarKeeper
    part = "far"
    sides = ("outer",)
    stopped: CrossingError | None = None

    def cut(self, row: RelayRows) -> RelayRows:
        return outside(row)

    def start(self, *, works: bool = True) -> None:
        super().start(works=works)
        self.ride = self.folder / "ride-in"
        self.ride.mkdir(exist_ok=True)
        self.receiver = StrandReceiver(
            _Soon(self.reactor), self.ride, records.to_far(), self.keeper.taker("keeper"),  # type: ignore[arg-type]
            lambda: self.keeper.riding,
        )  # fmt: skip

    def crash_in(self, copy: Path, *, lost: bool = False) -> None:
        self.receiver.close()
        super().crash_in(copy, lost=lost)

    def close(self) -> None:
        self.receiver.close()
        super().close()


class _Soon:
    """The loop's timers, without waiting for them."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def call_in(self, seconds: float, call: Callable[[], None]) -> None:
        self._reactor.call_in(0, call)

    def add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """It looks in any case."""

    def remove(self, fd: int) -> None:
        """As if it had been there."""


class Both:
    """`inside` and `outside`, by one clock."""

    def __init__(self, folder: Path, row: RelayRows | None = None) -> None:
        self.row = row or riding()
        self.clock = Clock()
        for name in ("in", "out"):
            (folder / name).mkdir()
        self.inside = Inside(folder / "in", self.row, clock=self.clock)
        self.outside = Outside(folder / "out", self.row, clock=self.clock)
        self._file = 0

    def close(self) -> None:
        self.inside.close()
        self.outside.close()

    def sent(self) -> list[ToFar]:
        """What has left since this was last asked."""
        found: list[ToFar] = []
        codec = records.to_far()
        for name in strand.waiting(self.inside.ride):
            found += codec.decode_many(strand.read(self.inside.ride, name))
            (self.inside.ride / name).unlink()
        self.clock.move(0.1)
        self.inside.sender._look()
        self.inside.run(tick=True)
        return found

    def brings(self, some: Iterable[ToFar], *, run: bool = True) -> None:
        """These come out of the strand, in one file."""
        codec = records.to_far()
        bodies = [codec.encode(record) for record in some]
        if bodies:
            self._file += 1
            strand.put(
                self.outside.ride, f"{self._file:020d}-x", b"\xdd" + len(bodies).to_bytes(4, "big") + b"".join(bodies)
            )
        for _ in range(6 if run else 0):
            self.outside.run(tick=True)

    def cross(self, wire: Wire = lambda some: some) -> list[ToFar]:
        """All that has left comes, but for what the wire loses. Returns that."""
        some = self.sent()
        there = list(wire(some))
        self.brings(there)
        return [record for record in some if record not in there]

    def quiet(self) -> None:
        """Nothing is pushed for a moment."""
        self.clock.move(2)
        self.inside.run(tick=True)

    def missing(self) -> list[tuple[int, int]]:
        found = self.outside.command("status")["channels"][0]["missing"]
        return [(gap["first"], gap["last"]) for gap in found if not gap["given_up"]]


def without(*numbers: int) -> Wire:
    return lambda some: [one for one in some if not isinstance(one, Carried) or one.number not in numbers]
