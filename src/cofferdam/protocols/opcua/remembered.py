"""Reads that come again and again: the same bytes mean the same, but for the time stamp and the handle in their header.

Both stand at fixed places behind the session's token, which is always one of ours. What is remembered is found by all
the other bytes; so nothing is taken for known that a decoder has not seen whole. What is made of such a read is
remembered with it, and follows from that alone; whether it is allowed is policy's to say each time.

Reads only: nothing that changes a plant is ever taken for known. Not here: decoding (wire).
"""

from __future__ import annotations

import struct
from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers, together, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import NodeId

MOST, MOST_BYTES = 16, 8192
"""Requests that are remembered of one peer; bytes of all of them, each of which may be one object in memory."""
MOST_SAID = 64
"""Of one server, by all clients."""
_HEAD = b"\x01\x00\x77\x02\x05\x00\x00\x20\x00\x00\x00"
"""Of a Read with a token of ours (server): the encoding id 631, an opaque NodeId of 32 bytes in namespace 0."""
_AT = len(_HEAD) + 32
_VARIES = struct.Struct("<qI")
_AFTER = _AT + _VARIES.size


class Known:
    """A read that one client has asked before. `made`: what was made of it; `token`: the session's by whom that was,
    and None as long as it was not."""

    __slots__ = ("_request", "made", "stamps", "token")

    def __init__(self, request: s.ReadRequest) -> None:
        self._request = request
        self.made: Any = None
        self.stamps = request.stamps
        self.token: NodeId | None = None

    def request(self, timestamp: int, handle: int) -> s.ReadRequest:
        """The request with these in its header."""
        known = self._request
        head = known.header
        header = s.RequestHeader(
            head.token, timestamp, handle, head.diagnostics, head.audit, head.timeout, head.additional
        )
        return s.ReadRequest(header, known.age, known.stamps, known.nodes)


class Heard:
    """Requests of one client."""

    __slots__ = ("_by_nodes", "_known", "_size")

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._by_nodes: dict[int, Known] = {}  # by the id of a known request's nodes, which live as long as that
        self._size = 0

    def again(self, data: bytes) -> Known | None:
        """A request that was decoded before, by the body of one that differs in what varies alone."""
        if len(data) > MOST_BYTES or data[: len(_HEAD)] != _HEAD:
            return None
        return self._known.get(data[:_AT] + data[_AFTER:])

    def decode(self, data: bytes) -> Any:
        """What wire.decode makes of a request. Raises: as that does."""
        known = self.again(data)
        if known is not None:
            return known.request(*varies(data))
        found = wire.decode(data, request=True)
        if len(data) > MOST_BYTES or data[: len(_HEAD)] != _HEAD:
            return found
        key = data[:_AT] + data[_AFTER:]
        self._size += len(key)
        if len(self._known) >= MOST or self._size > MOST_BYTES:
            self._known.clear()
            self._by_nodes.clear()
            self._size = len(key)
        self._known[key] = self._by_nodes[id(found.nodes)] = Known(found)
        return found

    def made(self, nodes: list[s.ReadValueId]) -> Any:
        """What was made of these very nodes; None if nothing was."""
        known = self._by_nodes.get(id(nodes))
        return None if known is None else known.made

    def keep(self, nodes: list[s.ReadValueId], made: Any, token: NodeId) -> None:
        """Keeps it as long as the request that they are of. `token`: of the session in which that was asked."""
        known = self._by_nodes.get(id(nodes))
        if known is not None:
            known.made, known.token = made, token


def varies(data: bytes) -> tuple[int, int]:
    """The time stamp and the handle of a request that is known."""
    timestamp, handle = _VARIES.unpack_from(data, _AT)
    return timestamp, handle


class _Asked:
    """How a request is written around what varies, and what stood beside the numbers in its last answer."""

    __slots__ = ("after", "before", "heads", "request")

    def __init__(self, request: m.Read, before: bytes, after: bytes) -> None:
        self.request, self.before, self.after = request, before, after
        self.heads = b""


class Said:
    """Reads that we ask again and again, by the very request: how it is written in this session, and what its answer
    looks like. That has to be looked at with each answer: the server may have other types by then."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, _Asked] = {}

    def body(self, request: m.Read, timestamp: int, handle: int) -> bytes | None:
        """How it is written with another time stamp and handle; None for one that is new."""
        found = self._known.get(id(request))
        return None if found is None else found.before + _VARIES.pack(timestamp, handle) + found.after

    def values(self, request: m.Read, body: bytes) -> m.Numbers | m.Values | None:
        """What it was answered; None where that has another form than a good answer of single numbers, or the request
        is not kept any more."""
        known = self._known.get(id(request))
        if known is None:
            return None
        count, heads = len(request.items), known.heads
        data = together.told_of(heads).taken(body) if heads else None
        if data is None:
            found = together.heads_of(body, count)
            if found and found != heads:
                known.heads = heads = found
                data = together.told_of(heads).taken(body)
        if data is not None:
            return m.Numbers(together.told_of(heads).crossing, data)
        samples = numbers.samples_of(body, count)
        return None if samples is None else m.Values(samples)

    def put(self, request: m.Read, written: s.ReadRequest) -> None:
        """Keeps a short one. The request is kept as well, so that no other has its id."""
        body = wire.encode(written)
        if len(body) > MOST_BYTES:
            return
        before = Writer()
        before.node(NodeId(0, s.WRITERS[s.ReadRequest][0]))
        before.node(written.header.token)
        at = len(before.made())
        if len(self._known) >= MOST_SAID:
            self._known.clear()
        self._known[id(request)] = _Asked(request, body[:at], body[at + _VARIES.size :])

    def forget(self) -> None:
        """All that was kept."""
        self._known.clear()
