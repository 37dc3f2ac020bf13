"""TCP segments in, the two byte streams of each connection out, in order, each byte once.

How a stream is put together again:
- Segments that come early wait until what is missing before them arrives. Bytes that were delivered or wait already
  are not taken twice; where a copy differs from what we hold (which is how a monitor is deceived) the first one
  stays and the difference is reported.
- A hole is given up, and reported with its size, when it was open for too long (shorter if the receiver has
  acknowledged the bytes: then the capture missed them, not the network), when too much waits behind it, or when the
  connection ends. A packet that the capture cut off makes a hole of known size.
- What one end sent after it had seen certain bytes of the other (its acknowledgement says so) is not delivered before
  those bytes are, so that an answer never comes before its request, in whatever order packets were captured.
- A SYN with a new sequence number, or several segments far from where the connection stands, start a new one.

Not here: what the bytes mean (conversation.py).
"""

from __future__ import annotations

import abc
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Collection
from typing import Final, NamedTuple

from cofferdam.capture.frames import ACK, FIN, RST, SYN, Segment
from cofferdam.capture.limits import CaptureLimits

_WRAP: Final = 1 << 32
_HALF: Final = 1 << 31


class _Held(NamedTuple):
    """Bytes that wait. `length` may exceed `data` where the capture cut the packet off."""

    start: int
    packet: int
    time_ns: int
    ack: int
    length: int
    data: bytes


class Direction:
    """One of the two streams of a connection. Positions are sequence numbers that never wrap."""

    __slots__ = (
        "acked", "delivered", "early", "fin", "gap_bytes", "gaps", "held", "held_bytes", "history", "hole_since",
        "inconsistent", "isn", "next", "repeated",
    )  # fmt: skip

    def __init__(self) -> None:
        self.next = -1  # the next byte to deliver; -1: nothing of this direction was seen yet
        self.isn = -1
        self.fin = -1
        self.acked = -1  # what the receiver has acknowledged
        self.held: list[_Held] = []
        self.held_bytes = 0
        self.history = bytearray()  # the last delivered bytes, up to `next`
        self.hole_since = -1
        self.delivered = 0
        self.early = 0  # segments that came before their predecessors
        self.repeated = 0  # segments that brought bytes again
        self.inconsistent = 0  # of these: with other content
        self.gaps = 0
        self.gap_bytes = 0

    @property
    def seen(self) -> bool:
        """Whether the capture holds anything of this direction."""
        return self.next >= 0

    def position(self, seq: int) -> int:
        """The position nearest to where we are that has this 32-bit sequence number."""
        if self.next < 0:
            return seq + _WRAP  # room below, for what turns up from before the first segment seen
        return self.next + ((seq - self.next + _HALF) % _WRAP) - _HALF


class TcpFlow:
    """One TCP connection. Addresses are packed."""

    __slots__ = (
        "client", "client_port", "ended", "ended_ns", "first_ns", "first_packet", "from_client", "from_server",
        "handshake", "late", "number", "server", "server_port", "strays", "user",
    )  # fmt: skip

    def __init__(self, number: int, client: bytes, client_port: int, server: bytes, server_port: int) -> None:
        self.number = number
        self.client = client
        self.client_port = client_port
        self.server = server
        self.server_port = server_port
        self.from_client = Direction()
        self.from_server = Direction()
        self.handshake = False  # the capture holds its SYN
        self.ended = ""  # "", or how it ended
        self.ended_ns = 0
        self.strays = 0
        self.late = 0  # segments with new bytes after the end
        self.first_ns = 0
        self.first_packet = 0
        self.user: object = None  # for the sink's own use


class Sink(abc.ABC):
    """Who takes the streams. Calls come in an order that keeps requests before their answers."""

    @abc.abstractmethod
    def data(self, flow: TcpFlow, from_client: bool, data: bytes, packet: int, time_ns: int) -> None:
        """The next bytes of one direction; `packet` brought them."""

    @abc.abstractmethod
    def gap(self, flow: TcpFlow, from_client: bool, size: int, packet: int, time_ns: int) -> None:
        """`size` bytes of one direction are not in the capture; noticed at `packet`."""

    @abc.abstractmethod
    def inconsistent(self, flow: TcpFlow, from_client: bool, packet: int, time_ns: int) -> None:
        """`packet` brought bytes again, with other content."""

    @abc.abstractmethod
    def end(self, flow: TcpFlow) -> None:
        """The connection, or what the capture has of it, is over."""


_Key = tuple[bytes, bytes, int, int]


class Reassembler:
    """Follows the connections to `ports` (TCP ports of servers) and hands their bytes to `sink`.

    Attributes: `flows` counts connections, `other_ports` segments of connections that are not followed, by server
    port as far as that can be told, `evicted` connections that were closed to make room.
    """

    def __init__(self, sink: Sink, ports: Collection[int], limits: CaptureLimits | None = None) -> None:
        self._sink = sink
        self._ports = frozenset(ports)
        self._limits = limits or CaptureLimits()
        self._table: OrderedDict[_Key, TcpFlow] = OrderedDict()  # key: client, server, client port, server port
        self._held_bytes = 0
        self._packet = 0
        self._time_ns = 0
        self.flows = 0
        self.evicted = 0
        self.other_ports: Counter[int] = Counter()

    def segment(self, segment: Segment) -> None:
        """Takes the next captured segment."""
        self._packet, self._time_ns = segment.packet, segment.time_ns
        flow, from_client = self._find(segment)
        if flow is None:
            return
        side, peer = (flow.from_client, flow.from_server) if from_client else (flow.from_server, flow.from_client)
        flags = segment.flags
        if flags & ACK and peer.seen:
            acked = peer.position(segment.ack)
            if acked - peer.next <= self._limits.window_bytes:
                peer.acked = max(peer.acked, acked)
        start = side.position(segment.seq)
        if flags & SYN:
            start += 1
            if not side.seen:
                side.isn = segment.seq
        if not side.seen:
            side.next = start
        if flow.ended:
            if segment.length and start >= side.next:
                flow.late += 1
            return
        if segment.length:
            if segment.length == 1 and start == side.next - 1:
                pass  # a keep-alive repeats the last byte, with whatever content
            else:
                self._take(flow, side, from_client, segment, start, peer)
        if flags & FIN:
            side.fin = start + segment.length
        if flags & RST:
            self._end(flow, "reset")
            return
        self._flush(flow, force=False)
        if all(0 <= one.fin <= one.next for one in (flow.from_client, flow.from_server)):
            self._end(flow, "finished")

    def finish(self) -> None:
        """The capture is over: delivers what waits, and ends every connection."""
        for flow in self._table.values():
            if not flow.ended:
                self._end(flow, "end of the capture")
        self._table.clear()

    # -- which connection --------------------------------------------------------------------------------------

    def _find(self, segment: Segment) -> tuple[TcpFlow | None, bool]:
        there: _Key = (segment.source, segment.target, segment.source_port, segment.target_port)
        back: _Key = (segment.target, segment.source, segment.target_port, segment.source_port)
        flow = self._table.get(there)
        key, from_client = there, True
        if flow is None:
            flow = self._table.get(back)
            key, from_client = back, False
        opening = segment.flags & (SYN | ACK | RST)
        if flow is not None:
            side = flow.from_client if from_client else flow.from_server
            if opening == SYN and (not from_client or side.isn != segment.seq) and segment.target_port in self._ports:
                self._drop(key)  # the ports are used again
                return self._open(there, segment), True
            fits = segment.source_port in self._ports  # who answers a SYN is the server
            if opening == SYN | ACK and side.seen and side.isn != segment.seq and fits:
                self._drop(key)
                return self._open(back, segment), False
            if self._is_stray(flow, side, segment):
                flow.strays += 1
                if flow.strays < self._limits.strays_before_restart:
                    return None, from_client
                self._drop(key)
                return self._open(key, segment), from_client
            flow.strays = 0
            self._table.move_to_end(key)
            return flow, from_client
        if opening & SYN:
            from_client = opening == SYN
        else:
            known = (segment.source_port in self._ports, segment.target_port in self._ports)
            if known[0] == known[1]:
                from_client = segment.target_port <= segment.source_port
            else:
                from_client = known[1]
        key = there if from_client else back
        if key[3] not in self._ports:
            self.other_ports[key[3]] += 1
            return None, from_client
        if opening & RST:
            return None, from_client  # refused, or of a connection that the capture does not hold
        return self._open(key, segment), from_client

    def _is_stray(self, flow: TcpFlow, side: Direction, segment: Segment) -> bool:
        if not side.seen or (segment.flags & RST and not flow.ended and segment.seq == 0):
            return False
        distance = side.position(segment.seq) - side.next
        if abs(distance) > self._limits.window_bytes:
            return True
        return bool(flow.ended) and segment.length > 1 and distance >= 0

    def _open(self, key: _Key, segment: Segment) -> TcpFlow:
        while len(self._table) >= self._limits.flows:
            self.evicted += 1
            self._drop(next(iter(self._table)))
        self.flows += 1
        flow = TcpFlow(self.flows, key[0], key[2], key[1], key[3])
        flow.handshake = bool(segment.flags & SYN)
        flow.first_ns, flow.first_packet = segment.time_ns, segment.packet
        self._table[key] = flow
        return flow

    def _drop(self, key: _Key) -> None:
        flow = self._table.pop(key)
        if not flow.ended:
            self._end(flow, "replaced")

    def _end(self, flow: TcpFlow, how: str) -> None:
        self._flush(flow, force=True)
        flow.ended, flow.ended_ns = how, self._time_ns
        for side in (flow.from_client, flow.from_server):
            side.history.clear()
        self._sink.end(flow)

    # -- putting in order --------------------------------------------------------------------------------------

    def _take(
        self, flow: TcpFlow, side: Direction, from_client: bool, segment: Segment, start: int, peer: Direction
    ) -> None:
        """Adds what is new in a segment to what waits."""
        data, end = segment.data, start + segment.length
        differs = False
        pieces = [(start, end)]
        again = start < side.next
        if again:
            differs = _differs(data, start, bytes(side.history), side.next - len(side.history))
            pieces = [(side.next, end)] if end > side.next else []
        elif start > side.next:
            side.early += 1
        for held in side.held:
            held_end = held.start + held.length
            if held_end <= start or held.start >= end:
                continue
            differs = differs or _differs(data, start, held.data, held.start)
            left: list[tuple[int, int]] = []
            for low, high in pieces:
                left += [(low, min(high, held.start))] if low < held.start else []
                left += [(max(low, held_end), high)] if high > held_end else []
            again = again or left != pieces
            pieces = left
        side.repeated += again
        if differs:
            side.inconsistent += 1
            self._sink.inconsistent(flow, from_client, segment.packet, segment.time_ns)
        ack = peer.position(segment.ack) if segment.flags & ACK and peer.seen else -1
        if ack - peer.next > self._limits.window_bytes:
            ack = -1  # nonsense, not evidence
        for low, high in pieces:
            part = data[low - start : high - start]
            insort(side.held, _Held(low, segment.packet, segment.time_ns, ack, high - low, part))
            side.held_bytes += len(part)
            self._held_bytes += len(part)

    def _flush(self, flow: TcpFlow, *, force: bool) -> None:
        force = force or self._held_bytes > self._limits.held_bytes
        client, server = flow.from_client, flow.from_server
        while True:
            moved = self._flush_side(flow, client, True, force)
            moved = self._flush_side(flow, server, False, force) or moved
            if moved:
                continue
            if not (self._waits(client, server) and self._waits(server, client)):
                return
            # Each waits for the other: no honest traffic. Requests go first.
            self._deliver(flow, client, True, client.held.pop(0))

    def _waits(self, side: Direction, peer: Direction) -> bool:
        """Whether what comes next was sent after bytes of the peer were seen that we have not delivered yet."""
        if not side.held or not peer.seen:
            return False
        head = side.held[0]
        # One byte more than was sent is a FIN that the capture missed, not data.
        return head.start <= side.next and head.ack > peer.next + 1 and not self._too_much(side)

    def _flush_side(self, flow: TcpFlow, side: Direction, from_client: bool, force: bool) -> bool:
        """Delivers what is due of one direction. Returns whether it moved on."""
        peer = flow.from_server if from_client else flow.from_client
        before = side.next
        while True:
            held = side.held[0] if side.held else None
            if held is not None and held.start <= side.next:
                if not force and self._waits(side, peer):
                    break
                self._deliver(flow, side, from_client, side.held.pop(0))
                continue
            acked = min(side.acked, side.fin) if side.fin >= 0 else side.acked
            acked_past = acked > side.next + 1
            if not acked_past and held is None:
                side.hole_since = -1
                break
            if side.hole_since < 0:
                side.hole_since = self._time_ns
            age = self._time_ns - side.hole_since
            patience = self._limits.acked_hole_patience_ns if acked_past else self._limits.hole_patience_ns
            if not force and age <= patience and not self._too_much(side):
                break
            ends = [held.start] if held is not None else []
            ends += [acked] if acked_past else []
            self._gap(flow, side, from_client, min(ends))
        return side.next != before

    def _too_much(self, side: Direction) -> bool:
        limits = self._limits
        return side.held_bytes > limits.held_bytes_per_direction or len(side.held) > limits.held_segments_per_direction

    def _deliver(self, flow: TcpFlow, side: Direction, from_client: bool, held: _Held) -> None:
        side.held_bytes -= len(held.data)
        self._held_bytes -= len(held.data)
        end = held.start + held.length
        data = held.data[side.next - held.start :]
        if data:
            side.next += len(data)
            side.delivered += len(data)
            side.history += data
            if len(side.history) > 2 * self._limits.history_bytes:
                del side.history[: -self._limits.history_bytes]
            side.hole_since = -1
            self._sink.data(flow, from_client, data, held.packet, held.time_ns)
        if end > side.next:
            self._gap(flow, side, from_client, end)

    def _gap(self, flow: TcpFlow, side: Direction, from_client: bool, end: int) -> None:
        size = end - side.next
        side.next = end
        side.gaps += 1
        side.gap_bytes += size
        side.history.clear()
        side.hole_since = -1
        self._sink.gap(flow, from_client, size, self._packet, self._time_ns)


def _differs(new: bytes, new_start: int, old: bytes, old_start: int) -> bool:
    """Whether two pieces of a stream contradict each other where they overlap."""
    low = max(new_start, old_start)
    high = min(new_start + len(new), old_start + len(old))
    return low < high and new[low - new_start : high - new_start] != old[low - old_start : high - old_start]
