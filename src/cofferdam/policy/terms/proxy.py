"""What a policy may say of a proxy: a broker that understands a protocol, and stands between clients and devices.

A proxy's word is its protocol, and its assets speak it. The half at the clients is the outer one, the half at the
devices the inner one, which decides.

Not here: how operations are judged (policy.points), what a protocol knows (the protocols' dialects).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from cofferdam.errors import CofferdamError
from cofferdam.model import PLAIN, Allow, Asset, Deny, Item, Operation, Side, Span
from cofferdam.policy import rows
from cofferdam.policy.document import Path
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.findings import Checking
from cofferdam.policy.networks import network_of
from cofferdam.policy.notations import ALL
from cofferdam.policy.points import values
from cofferdam.policy.points.asking import operation, show
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import proxy_lint
from cofferdam.policy.terms.base import Ask, Listen, Making, Needs, PartNeeds, Place, Reach, Scope, Seam, Terms
from cofferdam.policy.terms.jump_rows import JumpRows
from cofferdam.policy.terms.proxy_checks import RuleChecks
from cofferdam.policy.terms.proxy_model import ProxyConduit, ProxyRule
from cofferdam.protocols.dialect import Dialect

OUTER, INNER = "outer", "inner"
MOST_GAP = 123
"""Cells between two points that a read may pass over with `gaps: allow`: it then reads 125 registers."""
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with


class ProxyTerms(Terms[ProxyConduit, rows.Proxy]):
    """The terms of the proxy for one protocol."""

    title = "Proxies"
    conduit = ProxyConduit
    rule = ProxyRule
    row = rows.Proxy
    asks = (
        Ask("asset", "NAME", "the asset that is asked"),
        Ask("operation", "OPERATION", 'what is asked: "write pump_speed 1400"'),
    )
    warnings = proxy_lint.CHECKS

    def __init__(self, dialect: Dialect) -> None:
        self.word = dialect.name
        self.dialect: Dialect = dialect

    # --- errors

    def check(self, name: str, conduit: ProxyConduit, numbers: Sequence[int], checking: Checking) -> None:
        here: Path = ("conduits", name)
        zones = checking.policy.zones
        begin, end = zones.get(conduit.from_zone), zones.get(conduit.to_zone)
        turned = begin is not None and end is not None and (begin.side, end.side) == ("ot", "it")
        if turned:
            # The half at the device decides. On the office side it would be the less trusted one that does.
            found = f"{conduit.from_zone}, which is ot, towards {conduit.to_zone}, which is it"
            expected = f"sessions that begin on the it side: a {self.word} proxy decides where the devices are"
            near = f"from: {conduit.to_zone}, to: {conduit.from_zone}"
            checking.at((*here, "from"), found, expected, near, "direction")
        if conduit.priority == "realtime" and not any(kind.open for kind in self.dialect.kinds):
            expected = "that only for protocols with streams, which have to be in time"
            checking.at((*here, "priority"), f"realtime with the broker {self.word}", expected, check="priority")
        for number, rule in zip(numbers, conduit.allow, strict=True):
            RuleChecks(self.dialect, (*here, "allow", number), conduit, rule, checking, turned=turned).check()

    # --- rows

    def to_row(self, name: str, conduit: ProxyConduit, making: Making) -> rows.Proxy:
        assets: dict[str, _Named] = {}
        found: list[rows.Rule] = []
        for number, rule in enumerate(conduit.allow):
            for asset in rule.asset:
                named = assets.get(asset)
                if named is None:
                    named = assets[asset] = _Named(making.assets[asset], self.dialect)
                found.append(named.rule(number, rule))
        return rows.Proxy(tuple(found), conduit.priority == "realtime")

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        who: dict[str, set[str]] = {}
        for rule in conduit.rules:
            who.setdefault(rule.asset, set()).update(rule.who)
        listens: list[Listen] = []
        reaches: list[Reach] = []
        waits: list[Listen] = []
        calls: list[Reach] = []
        seams: list[Seam] = []
        apart: dict[str, str] = {}
        for name in sorted(who):
            asset = policy.assets[name]
            may = tuple(sorted(one for one in who[name] if not policy.principals[one].jump))
            if asset.places and any(_is_port(policy, policy.principals[one].jump, name) for one in who[name]):
                seams.append(Seam("back", *asset.places[0], name))
            said: Path = ("assets", name, "listen" if asset.listen else "overlay")
            if may:
                listens += [Listen(conduit.from_zone, *place, may, name, said) for place in asset.places]
            if asset.calls_at is None:
                reaches.append(Reach(asset.zone, asset.address, asset.port, name))
            else:
                place_said: Path = ("assets", name, "reverse", "listen")
                waits.append(Listen(asset.zone, *asset.calls_at, (), name, place_said, sources=(asset.address,)))
            calls += [
                Reach(conduit.from_zone, *client, name)
                for client in asset.clients
                if any(_comes_from(policy.principals[one], client[0]) for one in may)
            ]
            if self.dialect.discovery and may:
                # At an address of our own only: what comes to all of them may have been sent to everybody.
                listens += [
                    Listen(conduit.from_zone, *place, may, name, said, datagrams=True)
                    for place in asset.places
                    if place[0] not in EVERYWHERE
                ]
            port = self.dialect.datagrams
            if port and asset.streams and may:
                at = dict.fromkeys(address for address, _ in asset.places)
                sent = _groups(conduit, asset)
                listens += [
                    Listen(conduit.from_zone, one, port, may, name, said, datagrams=True, groups=sent) for one in at
                ]
                reaches.append(Reach(asset.zone, asset.address, port, name, datagrams=True))
            where = network_of(asset.zone, asset.address, policy.zones)
            apart[name] = f"the device {asset.address}:{asset.port} of {where}"
        return Needs(
            {
                OUTER: PartNeeds(_place(policy, conduit.from_zone), tuple(listens), tuple(calls), seams=tuple(seams)),
                INNER: PartNeeds(_place(policy, conduit.to_zone), tuple(waits), tuple(reaches), seams=tuple(seams)),
            },
            apart,
        )

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> rows.Proxy | None:
        found = tuple(rule for rule in conduit.rules if rule.asset in scope.shares)
        realtime = isinstance(conduit.terms, rows.Proxy) and conduit.terms.realtime
        return rows.Proxy(found, realtime) if found else None

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        return frozenset(name for rule in conduit.rules for name in rule.who)

    def asset(self, asset: Asset, part: str) -> Asset:
        """The outer half judges, and so knows the points; it must not know where the device is. The inner half does
        not know where clients find it."""
        if part == INNER:
            return replace(asset, listen=None, also=(), clients=())
        return replace(
            asset, address="", port=0, connections=1, outstanding=1, timeout_ms=0, share_reads_ms=0, manners=PLAIN,
            device_unit=-1, present=(), read_first=False, calls_at=None,
        )  # fmt: skip

    # --- explanations

    def concerns(self, policy: CompiledPolicy, said: Mapping[str, str]) -> bool:
        asset = policy.assets.get(said["asset"])
        return asset is not None and asset.protocol == self.word

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        name = question.said["asset"]
        asset = policy.assets.get(name)
        if asset is None:
            near = nearest(name, policy.assets)
            known = f"the policy has {one_of(policy.assets)}" if policy.assets else ""
            raise CofferdamError(f"the policy has no asset {name!r}", hint=f"did you mean {near}?" if near else known)
        return explain_operation(policy, question, name, operation(question.said["operation"], asset, self.dialect))


class _Named:
    """What rules may name of one asset. Looked up for each of its rules, of which there may be thousands."""

    def __init__(self, asset: Asset, dialect: Dialect) -> None:
        self._asset = asset.name
        self._about, self._history = dialect.about, dialect.history
        self._trees = {one.name: rows.Piece(one.at, one.name) for one in asset.subtrees}
        self._points = {point.name: rows.Piece(point.at, point.name) for point in asset.points}
        self._methods = {method.name: rows.Piece(method.at, method.name) for method in asset.methods}
        self._streams = {stream.name: rows.Piece(stream.at, stream.name) for stream in asset.streams}
        self._readable = [self._points[point.name] for point in asset.points if dialect.readable(point.at)]
        # Bits are read with the word that they are of, and written by themselves.
        self._written = self._points | {
            point.name: rows.Piece(point.at, point.name, mask=point.mask) for point in asset.points if point.mask
        }
        self._writable = [self._written[point.name] for point in asset.points if dialect.writable(point.at)]
        self._notifiers = {one.name: one for one in asset.notifiers}
        self._watchable = [self._points[point.name] for point in asset.points if dialect.watchable(point.at)]

    def rule(self, number: int, rule: ProxyRule) -> rows.Rule:
        points = self._points
        reads = _pieces(points, rule.read, self._readable, rule.registers)
        if rule.gaps == "allow":
            reads = _over_gaps(reads)
        writes = _pieces(self._written, rule.write, self._writable, rule.write_registers)
        calls = _pieces(self._methods, rule.call)
        acknowledged = self._notifiers if ALL in rule.acknowledge else rule.acknowledge
        told = tuple(
            rows.Piece(one.at, one.name)
            for name in sorted(acknowledged) for one in self._notifiers[name].conditions
        )  # fmt: skip
        watches = tuple(
            replace(piece, fastest_us=rule.fastest or 0, slowest_us=rule.slowest or 0)
            for piece in _pieces(points, rule.subscribe, self._watchable)
        )
        past = _renamed(_pieces(points, rule.history, self._readable), self._history)
        if rule.longest is not None:  # what is asked of the past is seconds of it
            seconds = max(rule.longest // 1_000_000, 1)
            past = tuple(rows.Piece(Item(self._history, piece.at.name, 0, seconds), piece.point)
                         for piece in past if isinstance(piece.at, Item))  # fmt: skip
        named = self._notifiers if ALL in rule.events else rule.events
        notifiers = [self._notifiers[name] for name in sorted(named)]
        sources = tuple(rows.Piece(one.at, one.name) for one in notifiers)
        fields = tuple(rows.Piece(field, one.name) for one in notifiers for field in one.fields)
        trees = _pieces(self._trees, rule.browse, self._trees.values())
        about = _renamed((*reads, *writes, *calls, *watches, *past, *sources, *trees), self._about)
        return rows.Rule(
            number=number,
            who=tuple(sorted(rule.who)),
            asset=self._asset,
            reads=(*reads, *past, *fields, *about, *trees),
            writes=writes,
            calls=(*calls, *told),
            watches=(*watches, *sources),
            streams=_pieces(self._streams, rule.stream),
            functions=tuple(sorted(set(rule.functions))),
            write_functions=tuple(sorted(set(rule.write_functions))),
        )


def _pieces(
    known: Mapping[str, rows.Piece], names: Collection[str], everything: Iterable[rows.Piece] = (),
    raw: Collection[rows.Piece | None] = (),
) -> tuple[rows.Piece, ...]:  # fmt: skip
    if not names and not raw:
        return ()
    found = list(everything) if ALL in names else [known[name] for name in names]
    found += [piece for piece in raw if piece is not None]
    return tuple(
        sorted(found, key=lambda piece: (piece.at.space, piece.at.start, piece.at.count, piece.point, piece.mask))
    )


def _over_gaps(pieces: tuple[rows.Piece, ...]) -> tuple[rows.Piece, ...]:
    """The pieces, and the cells between them where no more lie between than one request can read."""
    found = list(pieces)
    last: dict[str, int] = {}
    for piece in pieces:  # by space and start
        at = piece.at
        if not isinstance(at, Span):
            continue
        stop = last.get(at.space)
        if stop is not None and 0 < at.start - stop <= MOST_GAP:
            found.append(rows.Piece(Span(at.space, stop, at.start - stop)))
        last[at.space] = max(stop or 0, at.stop)
    return tuple(sorted(found, key=lambda piece: (piece.at.space, piece.at.start, piece.at.count, piece.point)))


def _renamed(pieces: Iterable[rows.Piece], kind: str) -> tuple[rows.Piece, ...]:
    """The same things as whole items of another kind; none where the protocol has no such kind ("")."""
    found = {piece.at.name: piece.point for piece in pieces if isinstance(piece.at, Item)} if kind else {}
    return tuple(rows.Piece(Item(kind, name), point) for name, point in sorted(found.items()))


def explain_operation(policy: CompiledPolicy, question: Question, name: str, op: Operation) -> Explanation:
    """Why `op` on an asset is allowed or refused."""
    asset, wall_ns = policy.assets.get(name), question.wall_ns
    broker = asset.protocol if asset is not None else ""
    flow = policy.flow(broker, question.source, name, question.zone, question.shown)
    verdict: Allow | Deny
    considered: list[Allow | Deny] = []
    silent = False
    alone = ""
    if isinstance(flow, Deny):
        verdict = flow
    else:
        silent = flow.silent
        verdict = flow.decide(op, wall_ns)
        alone = flow.only_bits(op, wall_ns)
        considered = [single for _, single in flow.assess(op, wall_ns)]
    return explained(
        policy,
        question,
        verdict,
        broker=broker,
        operation=show(op, asset) if asset is not None else f"function {op.function}",
        target=name,
        asset=name,
        answer="silence" if silent else "a refusal in the protocol's own words",
        conditions=_conditions(op, asset, alone) if isinstance(verdict, Allow) and asset is not None else (),
        considered=considered,
    )


def _conditions(op: Operation, asset: Asset, alone: str) -> Iterable[str]:
    if alone:
        yield f"the write may change nothing but {alone}, and only that is written"
    for change in op.writes:
        for point in asset.points:
            at = point.at
            if at.space == change.space and at.start < change.stop and change.start < at.stop:
                if point.factor is not None and values.has_range(point):
                    factor = f"ten to the power that {values.factor_text(point)} holds just then"
                    yield f"{point.name}, times {factor}: {values.allowed_range(point)}"
                if point.max_step is not None:
                    step = values.measure(point, point.max_step, True)
                    yield f"{point.name} may change by at most {step} from its present value"
                if point.max_rate is not None:
                    within = "second" if point.rate_seconds == 1 else "minute"
                    rate = f"{values.measure(point, point.max_rate, True)} a {within}"
                    yield f"{point.name} may move by at most {rate}, from whatever it was within that time"
                if point.writes_per_minute is not None:
                    yield f"{point.name} may be written at most {point.writes_per_minute} times a minute"
        for stream in asset.streams:
            if stream.at.space == change.space and stream.group:
                yield f"its inputs go to the group {stream.group} (TTL 1), once, for all clients that ask for multicast"
        for method in asset.methods:
            if method.at.space == change.space and method.writes_per_minute is not None:
                yield f"{method.name} may be called at most {method.writes_per_minute} times a minute"


def _groups(conduit: rows.Conduit, asset: Asset) -> tuple[str, ...]:
    """The groups of an asset's streams that a conduit's rules let anybody open."""
    open_ = {piece.at for rule in conduit.rules if rule.asset == asset.name for piece in rule.streams}
    return tuple(sorted({stream.group for stream in asset.streams if stream.group and stream.at in open_}))


def _comes_from(principal: rows.Principal, address: str) -> bool:
    """Whether a principal of a zone, and not of the overlay, has this address."""
    one = ipaddress.ip_address(address)
    return not principal.peer and any(one in ipaddress.ip_network(network) for network in principal.networks)


def _is_port(policy: CompiledPolicy, conduit: str, asset: str) -> bool:
    """Whether people reach an asset by a forwarded port of this conduit of the jump server ("": of none)."""
    terms = policy.conduits[conduit].terms if conduit in policy.conduits else None
    return isinstance(terms, JumpRows) and any("port" in one.do and asset in one.assets for one in terms.lines)


def _place(policy: CompiledPolicy, zone: str) -> Place:
    return Place(Side(policy.zones[zone].side), zone)
