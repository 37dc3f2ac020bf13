"""What a capture shows of clients and devices: who asked what of whom, and what came of it. Memory is bounded.

Not here: the policy that is made of it (learn.py), reading captures (reading.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from cofferdam.capture.cells import Cells
from cofferdam.capture.conversation import Asked, FrameSeen, Malformed, Note, Watcher
from cofferdam.capture.frames import address_text
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.named import VERBS, Named
from cofferdam.capture.packets import SeenStreams
from cofferdam.capture.reconnects import Reconnects
from cofferdam.capture.simulate import Links
from cofferdam.capture.streams import TcpFlow
from cofferdam.model import Change, Item, Operation, Span
from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.registry import Protocols

Network = IPv4Network | IPv6Network

OTHERS = 64
"""Functions and services that are told one by one where nobody can allow them."""


class Device:
    """One unit at one address and port: an asset of the policy."""

    def __init__(self, server: str, port: int, unit: int, dialect: Dialect, limits: CaptureLimits) -> None:
        self.server = server
        self.port = port
        self.unit = unit
        self.dialect = dialect
        self.protocol = dialect.name
        self.named = Named(dialect, limits.learned_items)
        self.requests = 0
        self.answers = 0
        self.errors = 0
        self.misfits = 0
        self.quirks: Counter[str] = Counter()  # answers that fit with these alone
        self.written: dict[tuple[str, int], list[int]] = {}  # (space, cell) -> smallest, largest, writes
        self.unlimited: dict[str, Cells] = {}  # cells that got a write whose value cannot be told

    @property
    def name(self) -> str:
        name = "device-" + plain(self.server)
        if self.port != self.dialect.default_port:
            name += f"-port-{self.port}"
        return name + (f"-unit-{self.unit}" if self.unit >= 0 else "")

    def points(self, limits: CaptureLimits) -> dict[tuple[str, int], list[int]]:
        """Written cells that become points with limits."""
        found = {
            place: seen
            for place, seen in self.written.items()
            if place[0] not in self.unlimited or place[1] not in self.unlimited[place[0]]
        }
        return dict(sorted(found.items())) if len(found) <= limits.learned_points else {}


class Pair:
    """What one client did with one device."""

    def __init__(self) -> None:
        self.reads: dict[str, Cells] = {}
        self.writes: dict[str, Cells] = {}
        self.items: dict[str, set[Item]] = {verb: set() for verb in VERBS}
        self.functions: set[tuple[int, int]] = set()
        self.write_functions: set[tuple[int, int]] = set()
        self.requests = 0
        self.errors = 0

    def add(self, op: Operation) -> None:
        self.requests += 1
        for span in op.reads:
            if isinstance(span, Span):
                self.reads.setdefault(span.space, Cells()).add(span.start, span.stop)
        for change in op.writes:
            if isinstance(change, Change):
                self.writes.setdefault(change.space, Cells()).add(change.start, change.stop)
        # An operation that says no cells of what it does is judged by its code (see policy.decide).
        if not op.writes and (op.is_write or not op.reads) and not op.browse:
            (self.write_functions if op.is_write else self.functions).add((op.function, op.sub))


class Learner(Watcher):
    def __init__(
        self, it: Sequence[Network], ot: Sequence[Network], limits: CaptureLimits, protocols: Protocols
    ) -> None:
        self._protocols = protocols
        self._it = it
        self._ot = ot
        self._limits = limits
        self._known: dict[tuple[bytes, bytes], tuple[str, str] | None] = {}
        self.devices: dict[tuple[str, int, int], Device] = {}
        self.pairs: dict[str, dict[tuple[str, int, int], Pair]] = {}
        self._pair_count = 0
        self.links = Links(limits)
        self.reconnects = Reconnects(limits)
        self.requests = 0
        self.malformed_count = 0
        self._undecided: dict[int, Asked] = {}  # writes that were not answered yet, by their identity
        self.refused_writes = 0
        self.others: Counter[str] = Counter()  # what was left out, in words
        self.foreign_flows: Counter[str] = Counter()
        self.left_out = 0
        self.too_many = False
        self.streams = SeenStreams(limits)

    def asked(self, asked: Asked) -> None:
        """Adds one request to what its client may do."""
        ends = self._ends(asked.flow)
        if ends is None:
            self.left_out += 1
            return
        client, server = ends
        op = asked.operation
        if op.never:
            self._left(op.never)
            return
        key = (server, asked.flow.server_port, op.unit)
        pairs = self.pairs.setdefault(client, {})
        pair = pairs.get(key)
        if pair is None:
            if self._pair_count >= self._limits.groups:
                self.too_many = True
                self.left_out += 1
                return
            self._pair_count += 1
            pair = pairs[key] = Pair()
        device = self.devices.get(key)
        if device is None:
            device = self.devices[key] = Device(*key, self._protocols[asked.protocol].dialect, self._limits)
        self.requests += 1
        device.requests += 1
        asked.user = (pair, device)
        if op.writes and asked.flow.from_server.seen and all(isinstance(change, Change) for change in op.writes):
            # What the device refuses is no permission: a write waits for its answer, if answers are in the capture.
            self._undecided[id(asked)] = asked
            if len(self._undecided) > self._limits.outstanding:
                self._take(self._undecided.pop(next(iter(self._undecided))))
            return
        self._take(asked)

    def decide(self) -> None:
        """The capture is over: what was not answered in it counts, since packets may be missing."""
        while self._undecided:
            self._take(self._undecided.pop(next(iter(self._undecided))))

    def _take(self, asked: Asked) -> None:
        pair, device = asked.user
        op = asked.operation
        pair.add(op)
        for verb, item in device.named.add(op):
            pair.items[verb].add(item)
        for change in op.writes:
            # Points are made for plain cells; numbered spaces (files) hold records, not values.
            if not isinstance(change, Change):
                continue
            if change.exact and ":" not in change.space and len(change.values) == change.count:
                for offset, value in enumerate(change.values):
                    seen = device.written.setdefault((change.space, change.start + offset), [value, value, 0])
                    seen[0], seen[1], seen[2] = min(seen[0], value), max(seen[1], value), seen[2] + 1
            else:
                device.unlimited.setdefault(change.space, Cells()).add(change.start, change.stop)

    def answered(self, asked: Asked, response: Any, time_ns: int) -> None:
        """Counts an answer, and whether it was an error."""
        if asked.user is None:
            return
        pair, device = asked.user
        device.answers += 1
        protocol = self._protocols[asked.protocol]
        undecided = self._undecided.pop(id(asked), None)
        if protocol.is_error(response):
            device.errors += 1
            pair.errors += 1
            if undecided is not None:
                pair.requests += 1
                self.refused_writes += 1
        else:
            if undecided is not None:
                self._take(undecided)
            device.named.held(protocol.item_values(asked.request, response))

    def news(self, asked: Asked, message: Any) -> None:
        """What was subscribed to has a type as well."""
        if asked.user is not None:
            asked.user[1].named.held(self._protocols[asked.protocol].item_values(asked.request, message))

    def malformed(self, malformed: Malformed) -> None:
        """Counts a request that no policy can allow; and one of a function that only the asset's vendor knows, which a
        policy can name (docs/devices.md)."""
        functions = self._protocols[malformed.protocol].functions
        if malformed.function >= 0 and malformed.function not in functions:
            known = self._protocols[malformed.protocol].dialect.vendors.get(malformed.function)
            self._left(f"function {malformed.function} ({known or 'not public'})")
        else:
            self.malformed_count += 1

    def _left(self, what: str) -> None:
        self.others[what if what in self.others or len(self.others) < OTHERS else "further functions"] += 1

    def frame(self, frame: FrameSeen) -> None:
        """Counts a frame of a stream. What opened the stream is a request like another; what it writes where, nobody
        can tell from the frame."""
        self.streams.add(frame)

    def deviates(self, asked: Asked, quirk: str) -> None:
        """Counts an answer that a quirk explains."""
        if asked.user is not None:
            asked.user[1].quirks[quirk] += 1

    def misfits(self, asked: Asked) -> None:
        """Counts an answer that is none."""
        if asked.user is not None:
            asked.user[1].misfits += 1

    def foreign(self, flow: TcpFlow, what: str) -> None:
        """Counts a connection on which something else is spoken."""
        self.foreign_flows[what] += 1

    def note(self, note: Note) -> None:
        """See Links."""
        self.links.note(note)

    def ended(self, flow: TcpFlow) -> None:
        """See Links and Reconnects."""
        self.links.ended(flow)
        self.reconnects.ended(flow)

    def _ends(self, flow: TcpFlow) -> tuple[str, str] | None:
        """Client and server as text; None where a network was given and one of them is outside."""
        key = (flow.client, flow.server)
        if key not in self._known:
            if len(self._known) >= self._limits.groups:
                self._known.clear()
            client, server = address_text(flow.client), address_text(flow.server)
            inside = _within(client, self._it) and _within(server, self._ot)
            self._known[key] = (client, server) if inside else None
        return self._known[key]


def _within(address: str, networks: Sequence[Network]) -> bool:
    return not networks or any(ip_address(address) in network for network in networks)


def plain(address: str) -> str:
    """An address as part of a name, one to one: names take no colon, and addresses no letter x."""
    return address.replace(".", "-").replace("::", "x").replace(":", "-").replace("%", "x")
