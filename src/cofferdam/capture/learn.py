"""The smallest policy that allows what a capture shows, as text to edit.

Every well-formed request is allowed again, and no cell, function, unit, client or server that was not seen is. Ranges
are joined where requests touched; a written cell becomes a point with the smallest and largest value that was
written. What was seen is not what should be: the text says what looks odd (a client that is also a server, a server
that never answered, requests that were answered with errors), and marks what a person has to fill in.

Not here: reading captures (reading.py), where the text goes (cli.learn).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from textwrap import wrap
from typing import Any, BinaryIO

import msgspec

from cofferdam.capture.cells import Cells
from cofferdam.capture.conversation import Asked, FrameSeen, Malformed, Note, Watcher
from cofferdam.capture.frames import address_text
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.named import VERBS, Named, quoted
from cofferdam.capture.packets import SeenStreams
from cofferdam.capture.reading import Reading, default_ports, follow
from cofferdam.capture.reconnects import Reconnects
from cofferdam.capture.simulate import LinkReport, Links, Remark
from cofferdam.capture.streams import TcpFlow
from cofferdam.model import Change, Item, Operation, Span
from cofferdam.policy.points.decide import show_utc
from cofferdam.policy.points.values import show
from cofferdam.policy.points.ways import show_function
from cofferdam.policy.syntax import FILL_IN
from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.registry import PROTOCOLS, Protocols

Network = IPv4Network | IPv6Network

OTHERS = 64
"""Functions and services that are told one by one where nobody can allow them."""
_LINE = 100  # columns that a list of ranges may take before it is broken


class Learned(msgspec.Struct):
    """What was learned. `text` is the policy. Counts are of requests, except `clients`, `assets`, `points`.

    `left_out`: requests of clients outside the IT networks, or to servers outside the OT networks, if such were given.
    """

    text: str
    reading: Reading
    clients: int = 0
    assets: int = 0
    points: int = 0
    requests: int = 0
    malformed: int = 0
    left_out: int = 0
    frames: int = 0
    links: list[LinkReport] = []
    remarks: list[Remark] = []
    remarks_total: int = 0
    others: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


class _Device:
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
        name = "device-" + _plain(self.server)
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


class _Pair:
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


class _Learner(Watcher):
    def __init__(
        self, it: Sequence[Network], ot: Sequence[Network], limits: CaptureLimits, protocols: Protocols
    ) -> None:
        self._protocols = protocols
        self._it = it
        self._ot = ot
        self._limits = limits
        self._known: dict[tuple[bytes, bytes], tuple[str, str] | None] = {}
        self.devices: dict[tuple[str, int, int], _Device] = {}
        self.pairs: dict[str, dict[tuple[str, int, int], _Pair]] = {}
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
            pair = pairs[key] = _Pair()
        device = self.devices.get(key)
        if device is None:
            device = self.devices[key] = _Device(*key, self._protocols[asked.protocol].dialect, self._limits)
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


def learn(
    stream: BinaryIO,
    name: str,
    *,
    it: Sequence[Network] = (),
    ot: Sequence[Network] = (),
    ports: Mapping[int, str] | None = None,
    site: str = FILL_IN,
    limits: CaptureLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
    protocols: Protocols = PROTOCOLS,
) -> Learned:
    """The smallest policy for a capture. `it` and `ot`: networks to which clients and servers must belong to count;
    empty for all. `ports` (server port -> protocol) adds to the protocols' default ports.

    Raises:
        CaptureError: not one packet could be read. A capture that breaks later gives a result with `reading.error`.
    """
    limits = limits or CaptureLimits()
    learner = _Learner(it, ot, limits, protocols)
    every = default_ports(protocols) | dict(ports or {})
    reading = follow(stream, name, learner, every, limits, progress, protocols)
    learner.decide()
    writer = _Writer(learner, reading, site, limits)
    text = writer.policy()
    return Learned(
        text, reading, sum(1 for pairs in learner.pairs.values() if pairs), len(learner.devices), writer.points,
        learner.requests, learner.malformed_count, learner.left_out, learner.streams.frames, learner.links.all(),
        learner.links.remarks, learner.links.remarks_total,
        tuple(f"{count} requests of {what}" for what, count in sorted(learner.others.items())),
        tuple(f"this looks like {what}" for what in sorted(learner.foreign_flows)),
    )  # fmt: skip


class _Writer:
    """Writes the policy file."""

    def __init__(self, learner: _Learner, reading: Reading, site: str, limits: CaptureLimits) -> None:
        self._learner = learner
        self._reading = reading
        self._site = site
        self._limits = limits
        self._lines: list[str] = []
        self._points = {key: device.points(limits) for key, device in learner.devices.items()}
        self.points = sum(map(len, self._points.values()))
        self.points += sum(len(device.named) for device in learner.devices.values())

    def policy(self) -> str:
        self._header()
        self._assets()
        self._principals()
        self._conduits()
        return "\n".join(self._lines) + "\n"

    def _add(self, *lines: str) -> None:
        self._lines += lines

    def _header(self) -> None:
        reading, learner = self._reading, self._learner
        self._add(f"# Learned from {_comment(reading.name)}: the smallest policy that allows what was seen there.")
        if reading.first_ns:
            self._add(
                f"# Seen: {learner.requests} requests, {show_utc(reading.first_ns)} to {show_utc(reading.last_ns)}."
            )
        if reading.error:
            self._add(f"# NOT COMPLETE: {_comment(reading.error)}")
        if learner.malformed_count:
            self._add(f"# {learner.malformed_count} malformed requests were left out; no policy can allow them.")
        if learner.refused_writes:
            self._add(f"# {learner.refused_writes} writes that the devices refused were left out.")
        for what, count in sorted(learner.others.items()):
            self._add(f"# Left out: {count} requests of {what}.")
        for what, count in sorted(learner.foreign_flows.items()):
            self._add(f"# {count} connections look like {what}.")
        if learner.left_out:
            what = (
                "beyond the limit of pairs" if learner.too_many else "of clients or servers outside the given networks"
            )
            self._add(f"# {learner.left_out} requests {what} were left out.")
        self._add(*learner.streams.lines())
        self._add(
            "#",
            "# Seen is not the same as wanted. Before this is used:",
            f"#  - replace every {FILL_IN};",
            "#  - strike out what should not be: a scanner in the capture is allowed here like everyone else;",
            "#  - give devices and points their real names, types and limits;",
            "#  - give each asset an overlay or listen address, and conduits that write an expiry and a window;",
            "#  - check it: cofferdam check FILE; try it: cofferdam simulate FILE CAPTURE.",
            "",
            f"site: {self._site}",
            "",
            "zones:",
            "  enterprise: {side: it}   # all clients that were seen; add level and interface",
            "  control: {side: ot}      # all servers that were seen",
        )

    def _assets(self) -> None:
        learner = self._learner
        self._add("", "assets:" if learner.devices else "assets: {}")
        for key, device in _sorted(learner.devices):
            dialect = device.dialect
            self._add(f"  {device.name}:")
            for quirk, count in sorted(device.quirks.items()):
                self._add(f"    # {count} of {device.answers} answers fit with the quirk {quirk} alone")
            if device.misfits:
                self._add(
                    f"    # {device.misfits} answers fit no request: a deviation that is not found by itself "
                    "(docs/devices.md)?"
                )
            elif not device.answers:
                self._add("    # never answered in the capture: is there such a device?")
            if device.errors:
                self._add(f"    # answered {device.errors} of {device.requests} requests with an error")
            if learner.pairs.get(device.server):
                self._add("    # this address is also a client")
            self._add("    zone: control", f'    address: "{device.server}"', f"    protocol: {device.protocol}")
            if device.port != dialect.default_port:
                self._add(f"    port: {device.port}")
            if dialect.units is not None:
                self._add(f"    unit: {device.unit if device.unit >= 0 else 'any'}")
            if device.quirks:
                quirks = sorted(device.quirks)
                if len(set(quirks) & set(dialect.id_quirks)) > 1:
                    quirks.remove(dialect.id_quirks[0])  # any id is 0 as well
                self._add(f"    quirks: [{', '.join(quirks)}]")
            refusal = learner.reconnects.of(ip_address(device.server).packed, device.port)
            if refusal is not None:
                self._add(f"    reconnect_delay: {refusal.delay} ms   # {refusal}")
            beside = self._beside(device)
            clouded = dialect.units is not None and dialect.units.broadcast in beside
            if clouded:
                self._add(
                    "    # A broadcast was seen here, which all units take, so that no limit would hold: leave that",
                    "    # unit out, and give the points here min and max.",
                )
            elif beside:
                self._add(
                    "    gateway: serial   # several units at one address: if they are one device, leave this out,",
                    "    # and all but one of them",
                )
            self._add(f'    # overlay: "10.99.0.1"   # {FILL_IN}: the address that IT sees for it')
            points, named = self._points[key], list(device.named.points())
            if points or named:
                self._add("    points:   # min and max are the values that were seen in writes")
            elif device.written:
                self._add(
                    f"    # {len(device.written)} cells were written: too many, or too unclear, to name each as a point"
                )
            for (space, cell), (low, high, count) in points.items():
                # Bits are bool without saying so, and a bit that was set and reset has no limit.
                found = dialect.space(space)
                kind = "" if found is not None and found.bits else ", type: uint16"
                limits = f", min: {show(low)}, max: {show(high)}" if (kind or low == high) and not clouded else ""
                times = "once" if count == 1 else f"{count} times"
                self._add(f"      {_point(space, cell)}: {{at: {space} {cell}{kind}{limits}}}   # written {times}")
            self._add(*named, *device.named.sections())

    def _beside(self, device: _Device) -> frozenset[int]:
        """The units at its address, if there are several, which may be the same device; else none."""
        units = device.dialect.units
        if units is None:
            return frozenset()
        found = {
            other.unit
            for other in self._learner.devices.values()
            if (other.server, other.port) == (device.server, device.port)
        }
        return frozenset(found) if len(found) > 1 else frozenset()

    def _principals(self) -> None:
        learner = self._learner
        clients = _clients(learner)
        servers = {device.server for device in learner.devices.values()}
        self._add("", "principals:" if clients else "principals: {}")
        for client in clients:
            if client in servers:
                self._add("  # this address is also a server: it may belong to the plant, and then not here")
            self._add(f'  {_client(client)}: {{zone: enterprise, addresses: ["{client}"]}}')

    def _conduits(self) -> None:
        learner = self._learner
        clients = _clients(learner)
        self._add("", "conduits: {}")
        heading, conduits = len(self._lines) - 1, 0
        for client in clients:
            protocols = sorted({learner.devices[key].protocol for key in learner.pairs[client]})
            for protocol in protocols:
                pairs = {key: pair for key, pair in learner.pairs[client].items() if key in learner.devices}
                conduits += self._conduit(client, protocol, pairs, several=len(protocols) > 1)
        if conduits:
            self._lines[heading] = "conduits:"

    def _conduit(
        self, client: str, protocol: str, pairs: Mapping[tuple[str, int, int], _Pair], *, several: bool
    ) -> bool:
        """Whether there was something to allow."""
        devices = self._learner.devices
        mine = [(key, pair) for key, pair in _sorted(pairs) if devices[key].protocol == protocol]
        # Devices with which this client did exactly the same share a rule.
        rules: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = {}
        for key, pair in mine:
            fields = self._rule(key, pair)
            if fields:
                rules.setdefault(fields, []).append(devices[key].name)
        if not rules:
            self._add(f"  # {_client(client)} did nothing that a policy can allow")
            return False
        requests, errors = sum(pair.requests for _, pair in mine), sum(pair.errors for _, pair in mine)
        writes = any(
            pair.writes or pair.write_functions or any(pair.items[verb] for verb in ("write", "call", "stream"))
            for _, pair in mine
        )
        name = _client(client) + (f"-{protocol}" if several else "")
        self._add(f"  {name}:   # {requests} requests" + (f", {errors} answered with an error" if errors else ""))
        self._add("    from: enterprise", "    to: control", f"    broker: {protocol}")
        self._add(f'    owner: "{FILL_IN}: who answers for this"')
        self._add(f'    reason: "{FILL_IN}: why {client} needs this"')
        if writes:
            self._add("    # expires: 2027-06-30   # it writes: say until when, and in which hours (window)")
        self._add("    allow:")
        for said, names in rules.items():
            self._add(f"      - who: {_client(client)}")
            self._list("asset", names)
            for field, entries in said:
                self._list(field, entries)
        return True

    def _rule(self, key: tuple[str, int, int], pair: _Pair) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The fields of the rule, without who and asset."""
        points = self._points[key]
        write: list[str] = []
        raw: list[str] = []
        for space, cells in sorted(pair.writes.items()):
            rest = Cells()
            for low, high in cells:
                rest.add(low, high)
                for cell in range(low, high):
                    if (space, cell) in points:
                        write.append(_point(space, cell))
                        rest.remove(cell, cell + 1)
            raw += rest.texts(space)
        reads = [text for space in sorted(pair.reads) for text in pair.reads[space].texts(space)]
        device = self._learner.devices[key]
        named: dict[str, list[str]] = {}
        for verb, items in pair.items.items():
            names = {item: device.named.name(item) for item in sorted(items, key=lambda item: (item.space, item.start))}
            named[verb] = [name for name in names.values() if name]
            unnamed = [quoted(device.named.raw(item)) for item, name in names.items() if not name]
            if verb == "read":
                reads += unnamed
            elif verb == "write":
                raw += unnamed
        fields = {
            "read": named["read"],
            "registers": reads,
            **{verb: named[verb] for verb in ("subscribe", "events")},
            "write": write + named["write"],
            "write_registers": raw,
            "call": named["call"],
            "stream": named["stream"],
            "functions": _codes(pair.functions),
            "write_functions": _codes(pair.write_functions),
        }
        return tuple((field, tuple(entries)) for field, entries in fields.items() if entries)

    def _list(self, field: str, entries: Sequence[str]) -> None:
        line = f"        {field}: [{', '.join(entries)}]"
        if len(line) <= _LINE:
            self._add(line)
            return
        head = f"        {field}: ["
        lines = wrap(
            ", ".join(entry.replace(" ", "\0") for entry in entries), _LINE - len(head), break_on_hyphens=False
        )
        for number, part in enumerate(lines):
            start = head if number == 0 else " " * len(head)
            self._add(start + part.replace("\0", " ") + ("]" if number == len(lines) - 1 else ""))


def _clients(learner: _Learner) -> list[str]:
    return sorted((client for client, pairs in learner.pairs.items() if pairs), key=_order)


def _sorted(table: Mapping[tuple[str, int, int], Any]) -> list[tuple[tuple[str, int, int], Any]]:
    return sorted(table.items(), key=lambda entry: (_order(entry[0][0]), *entry[0][1:]))


def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def _within(address: str, networks: Sequence[Network]) -> bool:
    return not networks or any(ip_address(address) in network for network in networks)


def _codes(codes: set[tuple[int, int]]) -> list[str]:
    return [f'"{show_function(*code)}"' if code[1] >= 0 else str(code[0]) for code in sorted(codes)]


def _point(space: str, cell: int) -> str:
    return f"{space}-{cell}"


def _client(address: str) -> str:
    return "client-" + _plain(address)


def _plain(address: str) -> str:
    """An address as part of a name, one to one: names take no colon, and addresses no letter x."""
    return address.replace(".", "-").replace("::", "x").replace(":", "-").replace("%", "x")


def _comment(text: str) -> str:
    """A text that stays on its line: file names may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)
