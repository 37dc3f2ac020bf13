"""What a device has besides requests and answers: machines that say something by themselves, watches and streams that
stand at one of its connections.

Not here: requests, connections and their time (device), what stands as seen from a session (inner_standing).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.kit.datagrams import Datagrams
from cofferdam.brokers.proxy.connection import Connection
from cofferdam.brokers.proxy.standing import Standing
from cofferdam.crossing.reactor import Reactor
from cofferdam.model import Asset
from cofferdam.protocols.base import Established, FrameReceived, KeptBack, NoticeReceived, Over


class Speaking(abc.ABC):
    """A device as far as its machines speak and something stands at it."""

    asset: Asset
    held: bool
    late: int
    _reactor: Reactor
    _clock: Callable[[], int]
    _connections: list[Connection]
    _speaks: bool
    _news: Callable[[list[Standing], NoticeReceived | FrameReceived | Over], None]
    _datagrams: Datagrams | None

    @abc.abstractmethod
    def _on_data(self, connection: Connection, data: bytes) -> None:
        """Something has come on a connection, or time has passed (nothing)."""

    @abc.abstractmethod
    def _is_up(self, connection: Connection) -> None:
        """A connection can be used."""

    def _other(self, connection: Connection, event: Established | NoticeReceived | FrameReceived | Over) -> None:
        # News first, and by their exact type: to ask of one of these what it is not takes longer than all the rest.
        if type(event) is NoticeReceived:
            tokens = (event.standing, *event.also)
            found = [one for one in [connection.standing.get(token) for token in tokens] if one is not None]
            self.late += len(tokens) - len(found)  # given up, while this was on the way
            self._news(found, event)
            return
        if isinstance(event, Established):
            self._is_up(connection)
            return
        standing = connection.standing.get(event.standing)
        if standing is None:  # it was given up, and this was on the way
            self.late += 1
            return
        if isinstance(event, Over):
            del connection.standing[event.standing]
            standing.connection = None
        self._news([standing], event)

    def _say(self, connection: Connection) -> None:
        data = connection.machine.take_output()
        if data:
            connection.transport.write(data)

    def _tend(self, connection: Connection) -> None:
        """Sends what the machine has to say, and has it told the time when it wants to."""
        self._say(connection)
        if self._datagrams is not None:
            for port, datagram, _ in connection.machine.take_datagrams():
                self._datagrams.send(self.asset.address, port, datagram)
        due = connection.machine.deadline
        if due != connection.due:
            connection.due = due
            if connection.timer is not None:
                connection.timer.cancel()
            connection.timer = self._reactor.call_at(due, lambda: self._on_time(connection)) if due else None

    def _on_time(self, connection: Connection) -> None:
        connection.timer, connection.due = None, 0
        if connection in self._connections:
            self._on_data(connection, b"")

    def _tell_time(self, connection: Connection, now: int) -> None:
        """Has the machine end what is silent, once all that has come by datagrams was read."""
        due = connection.machine.deadline
        if due and due <= now and self._datagrams is not None:
            self._datagrams.hear()
        connection.machine.on_time(now)

    def _forget(self, connection: Connection, token: int) -> None:
        """The answer to a request is waited for no longer."""
        connection.machine.forget(token)
        if self._speaks:
            self._tend(connection)

    def send_frame(self, standing: Standing, message: Any) -> bool:
        """Sends a frame of an open stream, if its connection has not gone."""
        connection: Connection | None = standing.connection
        if connection is None or connection.standing.get(standing.token) is not standing or self.held:
            return False
        data = connection.machine.frame(standing.token, message)
        if data:  # else it goes as a datagram
            connection.transport.write(data)
        connection.last = self._clock()
        if self._speaks:
            self._tend(connection)
        return True

    def datagram(self, port: int, data: bytes) -> bool:
        """A datagram from the device's address; whether it was a frame of a stream that stands here."""
        for connection in self._connections:
            if connection.standing:
                event = connection.machine.datagram(port, data, self._clock())
                if isinstance(event, KeptBack):
                    self._keep_back(connection, event.standing)
                    return True
                if event is not None:
                    self._framed(connection, event)
                    return True
        return False

    def _keep_back(self, connection: Connection, standing: int) -> None:
        """What is kept back of a stream comes once all that waits was read."""
        if self._datagrams is not None:
            self._datagrams.when_read(lambda: self._newest(connection, standing))

    def _newest(self, connection: Connection, standing: int) -> None:
        event = connection.machine.newest(standing, self._clock()) if standing in connection.standing else None
        if event is not None:
            self._framed(connection, event)

    def _framed(self, connection: Connection, event: FrameReceived) -> None:
        self._other(connection, event)
        if connection.machine.deadline != connection.due:
            self._tend(connection)

    def give_up(self, standing: Standing) -> None:
        """Tells the asset that a watch or stream is not wanted any more, if it still knows of it."""
        connection: Connection | None = standing.connection
        if connection is None or connection.standing.pop(standing.token, None) is None:
            return
        standing.connection = None
        if connection in self._connections:
            data = connection.machine.give_up(standing.token)
            if data:
                connection.transport.write(data)
            if self._speaks:
                self._tend(connection)
