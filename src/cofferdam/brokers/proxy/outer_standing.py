"""Watches and streams in an outer half: which client has which, by the handles that the inner half gave out.

Not here: whether they may stand (the inner half), how a client is told in its protocol's words (its machine).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.brokers.proxy.clients import Client, Pending, Session
from cofferdam.brokers.proxy.records import Frame, Notice, Unwatch, Unwatched
from cofferdam.crossing.channel import Sender
from cofferdam.model import Deny
from cofferdam.protocols.base import FrameReceived, Released


class Standings:
    """All that stands of all clients. `write` sends bytes to a client, and nothing for b""; `fault` ends a client in
    whose machine a bug of ours has shown."""

    def __init__(
        self,
        inner: Sender[Any],
        write: Callable[[Client, bytes], None],
        fault: Callable[[Client, Exception], None],
    ) -> None:
        self._inner = inner
        self._write = write
        self._fault = fault
        self._clients: dict[int, tuple[Client, Session, int]] = {}  # handle -> whose, and by which request's token

    def __len__(self) -> int:
        return len(self._clients)

    def begin(self, pending: Pending, handle: int) -> None:
        """What the client asked for stands from now on."""
        self._clients[handle] = (pending.client, pending.session, pending.token)
        pending.client.standing[pending.token] = handle

    def take(self, record: Notice[Any] | Frame[Any] | Unwatched) -> Client | None:
        """What the inner half says of what stands: its client is told. None: it was given up meanwhile."""
        over = isinstance(record, Unwatched)
        found = self._clients.pop(record.handle, None) if over else self._clients.get(record.handle)
        if found is None:
            return None
        client, _, token = found
        try:
            if isinstance(record, Notice):
                data = client.machine.notice(token, record.message)
            elif isinstance(record, Frame):
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
        self.silent(client, event.standing)

    def silent(self, client: Client, standing: int) -> None:
        """The client says nothing any more in what stands by this token."""
        handle = client.standing.pop(standing, None)
        if handle is not None:
            _, session, _ = self._clients.pop(handle)
            self._inner.send(Unwatch(session.id, handle))

    def frame_received(self, client: Client, event: FrameReceived) -> None:
        """A frame from the client. What belongs to no stream of its is left out: the stream has just ended."""
        handle = client.standing.get(event.standing)
        if handle is not None:
            self._inner.send(Frame(handle, event.message))

    def forget(self, client: Client) -> None:
        """The client has gone; the inner half learns it from the end of its sessions."""
        for handle in client.standing.values():
            self._clients.pop(handle, None)
        client.standing = {}
