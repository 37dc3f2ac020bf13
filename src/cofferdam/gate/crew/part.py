"""One half as the gate sees it: its control link, what it last reported, and waiting for it to say something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import check
from cofferdam.brokers.kit.supervision import Failing, FromPart, PartStatus, PolicyTaken, Ready, ToPart
from cofferdam.crossing.link import RECORD_BYTES, Link
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError
from cofferdam.gate.crew.launcher import Born

_INCOMING: RecordCodec[FromPart] = RecordCodec(FromPart, limit=RECORD_BYTES)
_OUTGOING: RecordCodec[ToPart] = RecordCodec(ToPart, limit=RECORD_BYTES)


class Half:
    """A process of a pair. `on_violation` is called when it sends the gate what is no record."""

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        born: Born,
        on_violation: Callable[[Half, str], None],
        broker: Broker,
    ) -> None:
        self.name = name
        self.born = born
        self.started_ns = time.time_ns()
        self.heard = time.monotonic()
        """When it last reported (monotonic, s)."""
        self.ready: Ready | None = None
        self.policy = ""
        self.statuses: dict[str, PartStatus] = {}
        """By role: a process that is both halves reports as each."""
        self.failing = ""
        self.broker = broker
        self._figures = {figure.name: figure for figure in broker.figures.get(born.part, ())}
        self._on_violation = on_violation
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[bool]]] = []
        self.link: Link[ToPart, FromPart] = Link(
            reactor, born.read_fd, born.write_fd, _INCOMING, _OUTGOING, self._on_record, self._on_closed
        )
        born.ended.add_done_callback(lambda _: self._wake())

    @property
    def alive(self) -> bool:
        return not self.born.ended.done()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Waits until the condition holds; False if the half ended first or the time is up."""
        if condition():
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiters.append(entry)
        self._wake()
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return False
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _wake(self) -> None:
        for condition, future in self._waiters:
            if not future.done():
                if condition():
                    future.set_result(True)
                elif not self.alive:
                    future.set_result(False)

    def _on_record(self, record: FromPart) -> None:
        self.heard = time.monotonic()
        match record:
            case Ready():
                self.ready, self.policy = record, record.policy
            case PartStatus():
                check(self._figures, record.figures)
                self.statuses[self.born.part] = record
            case PolicyTaken():
                self.policy = record.policy
            case Failing():
                self.failing = record.reason
        self._wake()

    def _on_closed(self, error: CrossingError | None) -> None:
        if error is not None:
            self._on_violation(self, str(error))

    def drain(self) -> None:
        """Takes what the process, which has ended, said last."""
        self.link.drain()

    def forget(self) -> None:
        """The process has ended and all that it said was read."""
        self.link.close()
        self._wake()
