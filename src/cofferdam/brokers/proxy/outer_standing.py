"""Watches and streams in an outer half: which client has which, by the handles that the inner half gave out.

What the inner half says of them is believed as little as the other way round: a handle is new when it is given out, and
what comes by it fits the request that it answers, or this half stops.

Not here: whether they may stand (the inner half), how a client is told in its protocol's words (its machine).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.brokers.proxy.clients import Client, Pending
from cofferdam.brokers.proxy.frame_times import FrameTimes, Times
from cofferdam.brokers.proxy.records import MOST_LOST, Frame, Notice, Unwatch, Unwatched
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CrossingError
from cofferdam.model import Deny, Item
from cofferdam.protocols.base import FrameReceived, Protocol, Released


class Standings:
    """All that stands of all clients. `write` sends bytes to a client, and nothing for b""; `fault` ends a client in
    whose machine a bug of ours has shown."""

    def __init__(
        self,
        inner: Sender[Any],
        write: Callable[[Client, bytes], None],
        fault: Callable[[Client, Exception], None],
        protocol: Protocol[Any, Any],
        reactor: Reactor,
    ) -> None:
        self._inner = inner
        self._misfit = protocol.misfit
        self._write = write
        self._fault = fault
        self._clients: dict[int, Pending] = {}  # by handle: what was asked for, and by whom
        self._last_handle = 0
        self._cadence = protocol.cadence
        self._reactor = reactor
        self.times = FrameTimes("inputs")
        self._timed: dict[int, Times] = {}  # by handle

    def __len__(self) -> int:
        return len(self._clients)

    def begin(
        self, pending: Pending, handle: int, stands: bool, there: bool, stream: Item | None, response: Any
    ) -> None:
        """What the client asked for stands from now on. `stands`: its request is one that leaves something standing;
        `there`: the client still is; `stream`: which one it has opened. Raises: CrossingError."""
        if not stands or handle <= self._last_handle:
            what = "asked for nothing that stands" if not stands else f"was given handle {handle} again"
            raise CrossingError(f"the inner half says that a watch or stream stands of a request that {what}")
        self._last_handle = handle
        if there:
            self._clients[handle] = pending
            pending.client.standing[pending.token] = handle
            cadence = None if stream is None else self._cadence(pending.request, response)
            if stream is not None and cadence is not None:
                asset, now = pending.session.asset, self._reactor.now
                self._timed[handle] = self.times.begin(asset, stream.name, pending.conduit, cadence, now)

    def _found(self, handle: int, over: bool) -> Pending | None:
        found = self._clients.pop(handle, None) if over else self._clients.get(handle)
        if found is None and handle > self._last_handle:
            raise CrossingError(f"handle {handle} was never given out")
        return found

    def _fits(self, request: Any, message: Any) -> None:
        misfit = self._misfit(request, message)
        if misfit:
            raise CrossingError(f"news that does not fit its request: {misfit}")

    def notices(self, record: Notice[Any]) -> list[Client]:
        """News, for one client or several at once. Those whom they have reached. Raises: CrossingError."""
        message = record.message
        reached: list[Client] = []
        fitting: list[Any] = []
        for handle in (record.handle, *record.also):
            found = self._found(handle, False)
            if found is None:
                continue
            request = found.request
            if request not in fitting:  # who have the same news have asked for the same
                self._fits(request, message)
                fitting.append(request)
            client = found.client
            try:
                data = client.machine.notice(found.token, message)
            except Exception as error:  # a bug of ours, or news that this client cannot have
                self._fault(client, error)
                continue
            self._write(client, data)
            reached.append(client)
        return reached

    def take(self, record: Frame[Any] | Unwatched) -> Client | None:
        """What else the inner half says of what stands: its client is told. None: it was given up meanwhile.
        Raises: CrossingError."""
        over = isinstance(record, Unwatched)
        found = self._found(record.handle, over)
        if found is None:
            return None
        if over:
            self._untimed(record.handle)
        client, token = found.client, found.token
        if not isinstance(record, Unwatched):
            self._fits(found.request, record.message)
        try:
            if isinstance(record, Frame):
                data = client.machine.frame(token, record.message)
            else:
                client.standing.pop(token, None)
                said = record.fault
                deny = None if said is None else Deny(record.conduit, record.rule, said, record.detail)
                data = client.machine.over(token, deny)
        except Exception as error:  # a bug of ours, or news that this client cannot have
            self._fault(client, error)
            return None
        self._write(client, data)
        return client

    def released(self, client: Client, event: Released[Any]) -> None:
        """The client gives it up."""
        self._given_up(client, event.standing, False)

    def silent(self, client: Client, standing: int) -> None:
        """The client says nothing any more in what stands by this token."""
        self._given_up(client, standing, True)

    def _given_up(self, client: Client, standing: int, silent: bool) -> None:
        handle = client.standing.pop(standing, None)
        if handle is None:
            return
        paused = held = 0
        if silent:
            now, times = self._reactor.now, self._timed.get(handle)
            paused, held = 0 if times is None else times.paused(now), self._reactor.held.of_late(now)
        self._untimed(handle)
        self._inner.send(Unwatch(self._clients.pop(handle).session.id, handle, silent, paused, held))

    def frame_received(self, client: Client, event: FrameReceived) -> None:
        """A frame from the client. What belongs to no stream of its is left out: the stream has just ended."""
        handle = client.standing.get(event.standing)
        if handle is not None:
            self._inner.send(Frame(handle, event.message, self._reactor.now, min(event.lost, MOST_LOST)))

    def sent(self, record: Frame[Any], now: int) -> None:
        """A frame of the asset's has been sent to its client. `now`: monotonic ns."""
        times = self._timed.get(record.handle)
        if times is not None:
            times.sent(record.born, now)

    def _untimed(self, handle: int) -> None:
        self.times.end(self._timed.pop(handle, None))

    def forget(self, client: Client) -> None:
        """The client has gone; the inner half learns it from the end of its sessions."""
        for handle in client.standing.values():
            self._untimed(handle)
            self._clients.pop(handle, None)
        client.standing = {}
