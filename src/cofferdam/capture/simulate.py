"""What a policy would have done to captured traffic: every request judged as an inner half would judge it.

The server that a capture shows is looked up among the policy's assets by its real address, and by the address where
a broker answers for it; where assets share an address, the unit tells them apart. Time windows, expiry and the pace of
writes go by the time of the packets, unless another time is given. Values that answers in the capture show feed the
checks of `max_step` and `max_rate`: one of the last SHOWN_SECONDS stands for what the gate would have read. Where there
is none, the verdict is "depends".

A simulation follows what really happened: a write that the policy refuses did reach the device in the capture, and
later answers show its effect.

Not here: reading captures (reading.py), showing the report (cli.simulate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import msgspec

from cofferdam.capture.cells import Spaces
from cofferdam.capture.conversation import Asked, FrameSeen, Malformed, Note, Watcher
from cofferdam.capture.frames import address_text
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.reading import Reading, default_ports, follow, followed
from cofferdam.capture.streams import TcpFlow
from cofferdam.model import Allow, Asset, Change, Deny, Fault, Item, NeedValues, Opening, Span
from cofferdam.policy.points.decide import Flow, PointState
from cofferdam.policy.points.ways import show_function
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.dialect import show_range
from cofferdam.protocols.registry import PROTOCOLS, Protocols

ALLOWED = "allowed"
REFUSED = "refused"
DEPENDS = "depends"
MALFORMED = "malformed"
SHOWN_SECONDS = 5.0
"""How long a value that a capture shows is taken for the present one."""


class Group(msgspec.Struct):
    """Requests of one kind that got the same verdict for the same reason.

    `verdict`: allowed, refused, depends (on a value that the gate would read first), malformed. `function` is the
    protocol's code as the policy writes it ("3", "43/14", "" where a frame had none). `reason` is a `model.Fault`, or
    the section of the standard that malformed requests break; `detail` is the sentence of the first one. `reads` and
    `writes` are the ranges that were asked for; `cells_joined` says that they were too many to list each.
    """

    verdict: str
    function: str
    name: str
    unit: int
    count: int
    first_packet: int
    first_ns: int
    last_ns: int
    conduit: str = ""
    rule: str = ""
    reason: str = ""
    detail: str = ""
    reads: list[str] = []
    writes: list[str] = []
    cells_joined: bool = False


class FlowReport(msgspec.Struct):
    """All connections of one client to one port of one server, and one asset there ("" where the policy knows none)."""

    client: str
    server: str
    port: int
    protocol: str
    asset: str
    groups: list[Group] = []


class LinkReport(msgspec.Struct):
    """What the capture held of one client's connections to one port of a server. Bytes and counts."""

    client: str
    server: str
    port: int
    connections: int = 0
    one_sided: int = 0
    mid_stream: int = 0
    gaps: int = 0
    gap_bytes: int = 0
    skipped_bytes: int = 0
    repeated: int = 0
    early: int = 0
    inconsistent: int = 0
    bad_answers: int = 0
    late: int = 0


class Remark(msgspec.Struct):
    """A note on the capture's state, at a packet."""

    client: str
    server: str
    port: int
    kind: str
    text: str
    packet: int


class Simulation(msgspec.Struct):
    """A simulation's result. `judged_at` is "capture" or the one time (UTC ns) that all requests were judged at.
    `frames` counts packets of streams that went as datagrams: "allowed" and "refused" by the values that they would
    write, "to the client", and "unknown" where the capture does not show who opened the stream."""

    policy_hash: str
    judged_at: str | int
    reading: Reading
    allowed: int = 0
    refused: int = 0
    depends: int = 0
    malformed: int = 0
    frames: dict[str, int] = {}
    flows: list[FlowReport] = []
    links: list[LinkReport] = []
    remarks: list[Remark] = []
    remarks_total: int = 0
    groups_left_out: int = 0

    @property
    def requests(self) -> int:
        """All requests, well-formed or not."""
        return self.allowed + self.refused + self.depends + self.malformed


_Place = tuple[bytes, bytes, int]  # client, server, server port
_Fields = tuple[str, str, str, int, str, str, str, str]  # of Group: verdict, function, name, unit, conduit, ... detail


class Links:
    """Counts what the capture held of each link, and keeps the first remarks. Shared by simulate and learn."""

    def __init__(self, limits: CaptureLimits) -> None:
        self._limits = limits
        self._links: dict[_Place, LinkReport] = {}
        self.remarks: list[Remark] = []
        self.remarks_total = 0

    def link(self, flow: TcpFlow) -> LinkReport | None:
        """The counters of a connection's link; None where there are too many links."""
        place = (flow.client, flow.server, flow.server_port)
        link = self._links.get(place)
        if link is None and len(self._links) < self._limits.groups:
            client, server = address_text(flow.client), address_text(flow.server)
            link = self._links[place] = LinkReport(client, server, flow.server_port)
        return link

    def note(self, note: Note) -> None:
        """Counts a note, and keeps it while there is room."""
        link = self.link(note.flow)
        if link is not None and note.kind == "skipped":
            link.skipped_bytes += note.size
        elif link is not None and note.kind == "answer":
            link.bad_answers += 1
        self.remarks_total += 1
        if len(self.remarks) < self._limits.notes:
            flow = note.flow
            self.remarks.append(
                Remark(
                    address_text(flow.client), address_text(flow.server), flow.server_port, note.kind, note.text,
                    note.packet,
                )
            )  # fmt: skip

    def ended(self, flow: TcpFlow) -> None:
        """Adds a connection that is over."""
        link = self.link(flow)
        if link is None:
            return
        sides = (flow.from_client, flow.from_server)
        link.connections += 1
        link.one_sided += sum(side.seen for side in sides) == 1
        link.mid_stream += not flow.handshake
        link.late += flow.late
        for side in sides:
            link.gaps += side.gaps
            link.gap_bytes += side.gap_bytes
            link.repeated += side.repeated
            link.early += side.early
            link.inconsistent += side.inconsistent

    def all(self) -> list[LinkReport]:
        """The links, in the order in which they were met."""
        return list(self._links.values())


class _Kind:
    """A group that grows."""

    __slots__ = ("group", "reads", "writes")

    def __init__(self, group: Group, limits: CaptureLimits) -> None:
        self.group = group
        self.reads = Spaces(limits.spans_per_group)
        self.writes = Spaces(limits.spans_per_group)

    def done(self) -> Group:
        self.group.reads, self.group.writes = self.reads.texts(), self.writes.texts()
        self.group.cells_joined = self.reads.joined or self.writes.joined
        return self.group


class _Simulation(Watcher):
    def __init__(self, policy: CompiledPolicy, at_ns: int | None, limits: CaptureLimits, protocols: Protocols) -> None:
        self._policy = policy
        self._protocols = protocols
        self._at_ns = at_ns
        self._limits = limits
        self._state = PointState(policy.assets, max(policy.limits.known_value_seconds, SHOWN_SECONDS))
        self._homes = _homes(policy)
        self._texts: dict[bytes, str] = {}
        self._flows: dict[tuple[bytes, str], Flow | Deny] = {}
        self._reports: dict[tuple[_Place, str], FlowReport] = {}
        self._kinds: dict[tuple[Any, ...], _Kind] = {}
        self._deviating: set[tuple[str, str]] = set()
        self.links = Links(limits)
        self.frames: dict[str, int] = {}
        self.counts = {ALLOWED: 0, REFUSED: 0, DEPENDS: 0, MALFORMED: 0}
        self.left_out = 0

    # -- what was said -----------------------------------------------------------------------------------------

    def asked(self, asked: Asked) -> None:
        """Judges one request."""
        connection, op = asked.flow, asked.operation
        asset = self._asset(connection, op.unit)
        verdict = self._judge(asked, asset)
        unit, function, name = op.unit, show_function(op.function, op.sub), self._name(asked.protocol, op.function)
        if isinstance(verdict, Allow):
            fields = (ALLOWED, function, name, unit, verdict.conduit, verdict.rule, "", "")
        elif isinstance(verdict, Deny):
            fields = (REFUSED, function, name, unit, verdict.conduit, verdict.rule, verdict.fault.value, verdict.detail)
        else:
            cells = ", ".join(map(_first, verdict.spans))
            detail = f"the capture does not show the present value; the gate would read {cells} first"
            fields = (DEPENDS, function, name, unit, "", "", Fault.STEP.value, detail)
        kind = self._count(asked.protocol, connection, asset, fields, asked.packet, asked.time_ns)
        if kind is not None:
            for read in op.reads:
                kind.reads.add(read.space, read.start, read.stop, not isinstance(read, Span))
            for write in op.writes:
                kind.writes.add(write.space, write.start, write.stop, not isinstance(write, Change))

    def asset(self, flow: TcpFlow) -> Asset | None:
        """See Watcher: what the machines then know is what those of the gate know."""
        return self._asset(flow, -1)

    def frame(self, frame: FrameSeen) -> None:
        """Judges the values of one frame of a stream, if it goes to the server and the capture shows what opened it."""
        asked = frame.asked
        asset = None if asked is None else self._asset(asked.flow, -1)
        if asked is None or asset is None or frame.message is None:
            what = "unknown" if asked is None else "to the client"
            self.frames[what] = self.frames.get(what, 0) + 1
            return
        protocol = self._protocols[frame.protocol]
        operation = protocol.frame_operation(asked.request, frame.message, asset)
        flow = self._flows.get((asked.flow.client, asset.name))
        stream = next((write.item for write in asked.operation.writes if type(write) is Opening), None)
        if not isinstance(flow, Flow) or stream is None:
            return
        wall_ns = frame.time_ns if self._at_ns is None else self._at_ns
        opened = flow.decide(asked.operation, wall_ns)
        wrong, fault = "", Fault.VALUE
        if isinstance(opened, Deny):
            wrong, fault = opened.detail, opened.fault
        else:
            wrong = flow.check_frame(stream, operation, self._state, frame.time_ns)
        verdict = REFUSED if wrong else ALLOWED
        self.frames[verdict] = self.frames.get(verdict, 0) + 1
        if not wrong:
            self._state.note_sent(asset.name, operation, frame.time_ns)
        reason = fault.value if wrong else ""
        rule = "" if isinstance(opened, NeedValues) else opened.rule
        fields = (verdict, "", "packet of a stream", -1, "", rule, reason, wrong)
        self._count(frame.protocol, asked.flow, asset, fields, frame.packet, frame.time_ns, request=False)

    def answered(self, asked: Asked, response: Any, time_ns: int) -> None:
        """Lets the state of points learn from an answer."""
        asset, op = self._asset(asked.flow, asked.operation.unit), asked.operation
        protocol = self._protocols[asked.protocol]
        if asset is None or protocol.is_error(response):
            return
        for space, start, cells in protocol.values(asked.request, response):
            self._state.note_values(asset.name, space, start, cells, asked.time_ns)
        self._state.note_items(asset.name, protocol.item_values(asked.request, response), asked.time_ns)
        if op.writes and asked.user is True:
            self._state.note_confirmed(asset.name, op, asked.time_ns)

    def deviates(self, asked: Asked, quirk: str) -> None:
        """Tells of an answer that the gate would take for none, once for each asset and quirk."""
        asset = self._asset(asked.flow, asked.operation.unit)
        if asset is None or quirk in asset.quirks or (asset.name, quirk) in self._deviating:
            return
        covered = self._protocols[asked.protocol].dialect.id_quirks
        if quirk in covered and covered[-1] in asset.quirks:  # any id is 0 as well
            return
        self._deviating.add((asset.name, quirk))
        text = f"answers of {asset.name} fit only with quirks: [{quirk}]; without it the gate takes them for none"
        self.links.note(Note(asked.flow, "answer", text, 1, asked.packet, asked.time_ns))

    def foreign(self, flow: TcpFlow, what: str) -> None:
        """See Links."""
        self.links.note(Note(flow, "skipped", f"this looks like {what}", 1, 0, 0))

    def malformed(self, malformed: Malformed) -> None:
        """Counts one request that the gate would answer with the standard's refusal, or close the connection for."""
        function = malformed.function
        name = "the gate closes the connection" if malformed.closes else ""
        if function >= 0:
            name = self._name(malformed.protocol, function)
        asset = self._asset(malformed.flow, malformed.unit)
        code = str(function) if function >= 0 else ""
        fields = (MALFORMED, code, name, malformed.unit, "", "", malformed.section, malformed.detail)
        self._count(malformed.protocol, malformed.flow, asset, fields, malformed.packet, malformed.time_ns)

    def note(self, note: Note) -> None:
        """See Links."""
        self.links.note(note)

    def ended(self, flow: TcpFlow) -> None:
        """See Links."""
        self.links.ended(flow)

    # -- judging -----------------------------------------------------------------------------------------------

    def _judge(self, asked: Asked, asset: Asset | None) -> Allow | Deny | NeedValues:
        connection, op = asked.flow, asked.operation
        if asset is None:
            server = f"{self._text(connection.server)}:{connection.server_port}"
            return Deny("", "", Fault.ASSET, f"{server} is asked; no asset of the policy has that address")
        key = (connection.client, asset.name)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= self._limits.groups:
                self._flows.clear()
            flow = self._flows[key] = self._policy.flow(asset.protocol, self._text(connection.client), asset.name)
        if isinstance(flow, Deny):
            return flow
        wall_ns = asked.time_ns if self._at_ns is None else self._at_ns
        verdict = flow.decide_full(op, wall_ns, asked.time_ns, self._state)
        if op.writes and not isinstance(verdict, Deny):
            self._state.note_write(asset.name, op, asked.time_ns)
            # The capture has the order in which the device was asked, and may lack the answer: nothing to wait for.
            self._state.note_ended(asset.name, op, asked.time_ns)
            asked.user = True
        return verdict

    def _asset(self, connection: TcpFlow, unit: int) -> Asset | None:
        """The asset that the connection's server is; of several at its address the one of that unit, else the first."""
        assets = self._homes.get((self._text(connection.server), connection.server_port), ())
        for asset in assets:
            if asset.unit in (unit, -1):
                return asset
        return assets[0] if assets else None

    def _text(self, packed: bytes) -> str:
        text = self._texts.get(packed)
        if text is None:
            if len(self._texts) >= self._limits.groups:
                self._texts.clear()
            text = self._texts[packed] = address_text(packed)
        return text

    def _name(self, protocol: str, function: int) -> str:
        name: str = self._protocols[protocol].functions.get(function, "unknown function")
        return name

    def _count(
        self, protocol: str, connection: TcpFlow, asset: Asset | None, fields: _Fields,
        packet: int, time_ns: int, request: bool = True,
    ) -> _Kind | None:  # fmt: skip
        verdict, function, name, unit, conduit, rule, reason, detail = fields
        self.counts[verdict] += request
        place = (connection.client, connection.server, connection.server_port)
        asset_name = asset.name if asset is not None else ""
        key = (place, asset_name, verdict, function, unit, rule, reason)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= self._limits.groups:
                self.left_out += 1
                return None
            group = Group(verdict, function, name, unit, 0, packet, time_ns, time_ns, conduit, rule, reason, detail)
            kind = self._kinds[key] = _Kind(group, self._limits)
            report = self._reports.get((place, asset_name))
            if report is None:
                report = self._reports[(place, asset_name)] = FlowReport(
                    self._text(connection.client), self._text(connection.server), connection.server_port, protocol,
                    asset_name,
                )  # fmt: skip
            report.groups.append(group)
        kind.group.count += 1
        kind.group.last_ns = max(kind.group.last_ns, time_ns)
        return kind

    def flows(self) -> list[FlowReport]:
        """All flows with their groups finished."""
        for kind in self._kinds.values():
            kind.done()
        return list(self._reports.values())


def simulate(
    policy: CompiledPolicy,
    stream: BinaryIO,
    name: str,
    *,
    ports: Mapping[int, str] | None = None,
    at_ns: int | None = None,
    limits: CaptureLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
    protocols: Protocols = PROTOCOLS,
) -> Simulation:
    """Judges all traffic of a capture by a policy.

    `ports` (server port -> protocol) adds to the ports of the policy's assets and the protocols' default ports. `at_ns`
    (UTC ns) judges all requests as if made then; None: each at the time of its packet.

    Raises:
        CaptureError: not one packet could be read. A capture that breaks later gives a report with `reading.error`.
    """
    limits = limits or CaptureLimits()
    simulation = _Simulation(policy, at_ns, limits, protocols)
    every = policy_ports(policy, protocols) | dict(ports or {})
    reading = follow(stream, name, simulation, every, limits, progress, protocols)
    counts = simulation.counts
    return Simulation(
        policy.hash, "capture" if at_ns is None else at_ns, reading, counts[ALLOWED], counts[REFUSED],
        counts[DEPENDS], counts[MALFORMED], simulation.frames, simulation.flows(), simulation.links.all(),
        simulation.links.remarks, simulation.links.remarks_total, simulation.left_out,
    )  # fmt: skip


def policy_ports(policy: CompiledPolicy, protocols: Protocols = PROTOCOLS) -> dict[int, str]:
    """Server port -> protocol: the defaults, and those of the policy's assets."""
    ports, known = default_ports(protocols), followed(protocols)
    for asset in policy.assets.values():
        if asset.protocol in known:
            ports[asset.port] = asset.protocol
            for _, port in asset.places:
                ports[port] = asset.protocol
    return ports


def _homes(policy: CompiledPolicy) -> dict[tuple[str, int], tuple[Asset, ...]]:
    """(address, port) -> the assets that answer there, or for which a broker does."""
    homes: dict[tuple[str, int], tuple[Asset, ...]] = {}
    for asset in policy.assets.values():
        places = {(asset.address, asset.port), *asset.places}
        for place in places:
            homes[place] = (*homes.get(place, ()), asset)
    return homes


def _first(place: Span | Item) -> str:
    return f"{place.space} {place.start}" if isinstance(place, Span) else show_range(place, place.start, place.stop)
