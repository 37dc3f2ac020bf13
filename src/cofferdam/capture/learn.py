"""The smallest policy that allows what a capture shows, as text to edit.

Every well-formed request is allowed again, and no cell, function, unit, client or server that was not seen is. Ranges
are joined where requests touched; a written cell becomes a point with the smallest and largest value that was
written. What was seen is not what should be: the text says what looks odd (a client that is also a server, a server
that never answered, requests that were answered with errors), and marks what a person has to fill in.

Not here: what was seen (seen.py), reading captures (reading.py), where the text goes (cli.learn).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from textwrap import wrap
from typing import Any, BinaryIO

import msgspec

from cofferdam.capture.cells import Cells
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.named import quoted
from cofferdam.capture.reading import Reading, default_ports, follow
from cofferdam.capture.seen import Device, Learner, Network, Pair, plain
from cofferdam.capture.simulate import LinkReport, Remark
from cofferdam.policy.points.decide import show_utc
from cofferdam.policy.points.values import show
from cofferdam.policy.points.ways import show_function
from cofferdam.policy.syntax import FILL_IN
from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.registry import PROTOCOLS, Protocols

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
    learner = Learner(it, ot, limits, protocols)
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

    def __init__(self, learner: Learner, reading: Reading, site: str, limits: CaptureLimits) -> None:
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

    def _beside(self, device: Device) -> frozenset[int]:
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
        self, client: str, protocol: str, pairs: Mapping[tuple[str, int, int], Pair], *, several: bool
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
                if field == "write_functions":
                    self._add(*_alarming(self._learner.devices[mine[0][0]].dialect, entries))
                self._list(field, entries)
        return True

    def _rule(self, key: tuple[str, int, int], pair: Pair) -> tuple[tuple[str, tuple[str, ...]], ...]:
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
            **{verb: named[verb] for verb in ("subscribe", "events", "acknowledge")},
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


def _clients(learner: Learner) -> list[str]:
    return sorted((client for client, pairs in learner.pairs.items() if pairs), key=_order)


def _sorted(table: Mapping[tuple[str, int, int], Any]) -> list[tuple[tuple[str, int, int], Any]]:
    return sorted(table.items(), key=lambda entry: (_order(entry[0][0]), *entry[0][1:]))


def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def _codes(codes: set[tuple[int, int]]) -> list[str]:
    return [f'"{show_function(*code)}"' if code[1] >= 0 else str(code[0]) for code in sorted(codes)]


def _alarming(dialect: Dialect, entries: Sequence[str]) -> list[str]:
    """A comment for each function that stops, starts or reprograms a device: nobody reads a code as that."""
    codes = [(entry, int(entry.strip('"').partition("/")[0])) for entry in entries]
    return [
        f"        # {entry} is {dialect.codes[code]}: it stops, starts or reprograms the device"
        for entry, code in codes
        if code in dialect.alarming
    ]


def _point(space: str, cell: int) -> str:
    return f"{space}-{cell}"


def _client(address: str) -> str:
    return "client-" + plain(address)


def _comment(text: str) -> str:
    """A text that stays on its line: file names may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)
