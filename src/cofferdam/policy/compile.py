"""From a loaded policy to the rows that decide. Everything was checked before; what is left is to spell it out.

Points become cells, `all` becomes points, dates and time zones become times and offsets, so that a half needs none of
this package's files nor the host's. Equal policies become equal rows, however they are spread over files.

Not here: checks (policy.crosscheck), how rows decide (policy.decide).
"""

from __future__ import annotations

import math

from cofferdam.limits import Limits
from cofferdam.model import (
    NEVER,
    Argument,
    Asset,
    Item,
    Manners,
    Method,
    Notifier,
    Point,
    Security,
    Shown,
    Span,
    Stream,
    Subtree,
    Tls,
)
from cofferdam.policy import addressing, groups, notations, rows, schema, schema_assets
from cofferdam.policy.clashes import clash_problems
from cofferdam.policy.load import Loaded, failure
from cofferdam.policy.placechecks import point_place
from cofferdam.policy.points import scaling, values
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Making, window_row
from cofferdam.policy.terms.diode_rows import strand_of
from cofferdam.policy.terms.kinds import Kinds, dialects
from cofferdam.policy.zones import clock, end_of_day
from cofferdam.protocols.dialect import Dialect
from cofferdam.values import ValueType


def compile_policy(loaded: Loaded, *, now_ns: int) -> CompiledPolicy:
    """The policy as data that decides. `now_ns` (UTC) says for which years time zones' offsets are laid down: from a
    year before it to ten years after.

    Raises: PolicyError, where no crews can serve it: two would have the same listener, say."""
    compiled = _compile(loaded, now_ns)
    wrong = clash_problems(loaded, compiled)
    if wrong:
        raise failure(wrong, sorted({problem.file for problem in wrong}))
    return compiled


def _compile(loaded: Loaded, now_ns: int) -> CompiledPolicy:
    policy = loaded.policy
    given = addressing.give(policy)
    known = dialects(loaded.kinds)
    written = {
        asset for conduit in policy.conduits.values() for rule in conduit.allow if rule.changes for asset in rule.assets
    }
    assets = {
        name: _asset(name, asset, given.assets.get(name, ()), known[asset.protocol], name in written)
        for name, asset in sorted(policy.assets.items())
    }
    making = Making(policy, assets, loaded.files)
    conduits = {
        name: _conduit(name, conduit, making, loaded.kinds) for name, conduit in sorted(policy.conduits.items())
    }
    zones = {window.zone for conduit in policy.conduits.values() for window in conduit.window}
    for conduit in conduits.values():
        zones |= loaded.kinds[conduit.broker].clocks(conduit.terms)
    zones.add(policy.evidence.zone)
    gate, audit = policy.gate, policy.audit
    return CompiledPolicy(
        rows.Table(
            format=rows.FORMAT,
            site=policy.site,
            zones={
                name: rows.Zone(
                    name=name,
                    side=schema.side(zone),
                    level=zone.level,
                    interface=zone.interface or "",
                    addresses=zone.addresses,
                    vlan=zone.vlan or 0,
                    macvlan=zone.attach == "macvlan",
                    routes=zone.routes,
                    machine=zone.machine or "",
                    diode=zone.crossing == "diode",
                    station=zone.station or "",
                )
                for name, zone in sorted(policy.zones.items())
            },
            assets=assets,
            overlays={name: found[0] for name, found in sorted(given.assets.items()) if found},
            principals={
                name: _principal(name, principal, given.peers.get(principal.peer or "", ()))
                for name, principal in sorted(policy.principals.items())
            },
            conduits=conduits,
            limits=Limits(**{name: getattr(policy.limits, name) for name in Limits.__struct_fields__}),
            gate=rows.Gate(gate.management, gate.separation, gate.require == "namespaces", gate.leak_probe),
            audit=rows.Audit(
                audit.reads != "refuse",
                audit.interval,
                audit.reads == "allow",
                audit.keep or 0,
                audit.at_most or 0,
                audit.gone == "moved",
                tuple(
                    rows.Witness(
                        name, found.way, found.address, found.port, found.path, one.key, found.user, one.name or ""
                    )
                    for name, one in sorted(audit.witnesses.items())
                    for found in [one.to]
                ),
                tuple(
                    rows.Collector(
                        name,
                        *one.to,
                        form=one.form,
                        kinds=one.kinds,
                        host=one.name or "",
                        header=one.header or "",
                        authority=loaded.files[one.authority] if one.authority else b"",
                        enterprise=one.enterprise,
                    )
                    for name, one in sorted(audit.collectors.items())
                ),
            ),
            evidence=rows.Evidence(policy.evidence.proof, policy.evidence.zone),
            clocks={name: clock(name, now_ns) for name in sorted(zones)},
            overlay=_overlay(policy),
        )
    )


def _principal(name: str, principal: schema.Principal, own: tuple[str, ...]) -> rows.Principal:
    networks = tuple(f"{text}/128" if ":" in text else f"{text}/32" for text in own) if principal.peer else ()
    return rows.Principal(
        name,
        principal.zone,
        tuple(sorted(set(principal.addresses) | set(networks))),
        principal.peer or "",
        Shown(principal.user or "", principal.application or "", principal.certificate or ""),
        principal.jump or "",
    )


def _overlay(policy: schema.Policy) -> rows.Overlay | None:
    overlay, site = policy.overlay, policy.site
    if overlay is None:
        return None
    found = overlay.wireguard
    wireguard = None if found is None else rows.WireGuard(
        found.endpoint, found.port or found.endpoint[1], addressing.peer_networks(site, found), found.keepalive
    )  # fmt: skip
    domain = overlay.domain or f"{addressing.label(site)}.internal"
    return rows.Overlay(addressing.prefixes(site, overlay), domain, addressing.dns_addresses(site, overlay), wireguard)


def _asset(name: str, asset: schema_assets.Asset, addresses: tuple[str, ...], dialect: Dialect, written: bool) -> Asset:
    points = tuple(_point(point_name, point, dialect) for point_name, point in sorted(asset.points.items()))
    reverse = asset.reverse or schema_assets.Reverse()
    # What opens connections itself is known by its address and by where it opens them to.
    tls = None if asset.tls is None else Tls(asset.tls.clients, asset.tls.asset, asset.tls.name or "")
    own = dialect.port(secure=tls is not None and tls.asset)
    port = asset.port or own if reverse.listen is None else reverse.listen[1]
    shown = dialect.port(secure=tls is not None and tls.clients)
    # Where the policy names a place, the broker answers there and nowhere else.
    places = (asset.listen,) if asset.listen else tuple((address, shown) for address in addresses)
    return Asset(
        name=name,
        zone=asset.zone,
        address=asset.address,
        port=port,
        protocol=asset.protocol,
        unit=asset.unit if dialect.units is not None else -1,
        listen=places[0] if places else None,
        connections=asset.connections,
        outstanding=asset.outstanding,
        timeout_ms=asset.timeout,
        share_reads_ms=asset.share_reads or 0,
        quirks=tuple(sorted(asset.quirks)),
        vendor_reads=tuple(sorted({code for code, _ in asset.vendor_functions})),
        vendor_writes=tuple(sorted({code for code, _ in asset.vendor_write_functions})),
        points=points,
        present=_present(points, dialect) if written else (),
        read_first=asset.write_bits == "read-first",
        methods=tuple(_method(method_name, method, dialect) for method_name, method in sorted(asset.methods.items())),
        streams=tuple(
            Stream(
                stream_name,
                _item(stream_name, stream.at),
                stream.fastest or 0,
                stream.form or "",
                groups.group(stream.multicast, places, dialect),
                "".join((stream.config or "").split()).lower(),
            )
            for stream_name, stream in sorted(asset.streams.items())
        ),
        notifiers=tuple(
            _notifier(notifier_name, one, dialect) for notifier_name, one in sorted(asset.notifiers.items())
        ),
        subtrees=tuple(
            Subtree(tree_name, Item(dialect.trees, _item(tree_name, one.at).name), one.depth, one.nodes)
            for tree_name, one in sorted(asset.browse.items())
        ),
        namespaces=tuple(sorted(asset.namespaces.items())),
        bits=tuple(space.name for space in dialect.spaces if space.bits),
        bits_of=tuple((name, at.space, at.start) for name, at in sorted(asset.bits_of.items()) if isinstance(at, Span)),
        kinds=tuple((kind.name, kind.separators) for kind in dialect.kinds),
        route=asset.route or "",
        connected=asset.explicit == "connected",
        broadcast=dialect.units.broadcast if dialect.units is not None else -2,
        also=places[1:],
        calls_at=reverse.listen,
        clients=tuple(sorted(set(reverse.clients))),
        security=_security(asset, dialect),
        tls=tls,
        device_unit=-1 if asset.device_unit in (None, asset.unit) else asset.device_unit or 0,
        manners=Manners(
            connect_delay_ms=asset.connect_delay or 0,
            reconnect_delay_ms=asset.reconnect_delay or 0,
            pause_ms=asset.pause or 0,
            idle_ms=asset.idle or 0,
            wait_ms=-1 if asset.wait is None else asset.wait,
            repeat_reads=asset.repeat_reads,
            keep_alive_ms=asset.keep_alive or 0,
        ),
    )


def _notifier(name: str, said: schema_assets.Notifier, dialect: Dialect) -> Notifier:
    """A notifier, and its fields as the items that policy judges."""
    at = said.at
    if not isinstance(at, Item):  # crosscheck refuses such a one
        raise ValueError(f"notifier {name} has no place")
    fields: list[str] = []
    for text in said.fields or (notations.DEFAULT_FIELDS,):
        fields += dialect.event_fields if text == notations.DEFAULT_FIELDS else (dialect.notation.field(text),)
    item, of_event = Item(dialect.events, at.name), dialect.notation.of_event
    told = dialect.conditions if set(dialect.condition_fields) <= set(fields) else ()
    return Notifier(
        name,
        item,
        tuple(of_event(item, field) for field in dict.fromkeys(fields)),
        tuple(
            Method(f"{one.name} {name}", of_event(Item(one.at.kind, at.name), one.at.name), one.arguments)
            for one in told
        ),
    )


def _present(points: tuple[Point, ...], dialect: Dialect) -> tuple[Point, ...]:
    """The words that writes of these points are judged from."""
    found: dict[str, Point] = {}
    for point in points:
        at = point.at
        if isinstance(at, Span) and point.mask and dialect.writable(at):
            found.setdefault(f"{at.space} {at.start}", Point(f"{at.space} {at.start}", at, ValueType.UINT16))
        if point.factor is not None and values.has_range(point) and dialect.writable(at):
            name = values.factor_text(point)
            if name in found:  # a word that is both; no device has one
                continue
            found[name] = Point(name, point.factor, ValueType.INT16)
    return tuple(one for _, one in sorted(found.items()))


def _security(asset: schema_assets.Asset, dialect: Dialect) -> Security | None:
    if not dialect.security:
        return None
    said = asset.security or schema_assets.Security()
    best = dialect.security[0]
    return Security(
        said.clients or (best,),
        said.asset or best,
        said.server or "",
        said.user or "",
        said.revocation == "required",
        said.login or "",
    )


def _limit(value: float | None, kind: ValueType) -> float | None:
    if value is not None and kind is ValueType.INT64:
        return float(value)  # of a time as well
    return values.nearest_float32(value) if value is not None and kind is ValueType.FLOAT32 else value


def _point(name: str, point: schema_assets.Point, dialect: Dialect) -> Point:
    found = point_place(dialect, point)
    if found is None:  # crosscheck refuses such a point
        raise ValueError(f"point {name} has no place")
    at, kind, mask = found
    scale, offset = point.scale or 1.0, point.offset or 0.0
    low, high = point.min, point.max
    most_step = point.max_step
    most_rate = None if point.max_rate is None else point.max_rate.most
    if scale != 1.0 or offset:
        low, high = scaling.limits(low, high, scale, offset, kind)
        most_step = None if most_step is None else scaling.step(most_step, scale, kind)
        most_rate = None if most_rate is None else scaling.step(most_rate, scale, kind)
    allowed = [scaling.one(value, scale, offset, kind) for value in point.values]
    elements = at.count if isinstance(at, Item) and at.first >= 0 else point.elements or 1
    elements = math.prod(point.dimensions) if point.dimensions else elements
    return Point(
        name=name,
        at=at,
        type=kind,
        word_order=point.byte_order or point.word_order,
        unit=point.unit or "",
        min=_limit(low, kind),
        max=_limit(high, kind),
        max_step=most_step,
        max_rate=most_rate,
        rate_seconds=60 if point.max_rate is None else point.max_rate.seconds,
        writes_per_minute=point.writes_per_minute,
        elements=elements,
        max_length=point.max_length or dialect.value_forms.get(point.form) or None,
        fastest_us=point.fastest or 0,
        values=tuple(sorted({one for one in (_limit(value, kind) for value in allowed) if one is not None})),
        scale=scale,
        offset=offset,
        mask=mask,
        bcd=point.type == notations.BCD,
        structure=_structure(point, dialect),
        factor=point.scale_from if isinstance(point.scale_from, Span) else None,
        form=point.form,
        dimensions=point.dimensions,
    )


def _structure(point: schema_assets.Point, dialect: Dialect) -> str:
    if point.structure is None:
        return ""
    place = dialect.notation.parse(point.structure)
    return place.name if isinstance(place, Item) else ""


def _item(name: str, at: Span | Item | None) -> Item:
    if not isinstance(at, Item):  # crosscheck refuses it
        raise ValueError(f"{name} is no item")
    return at


def _method(name: str, method: schema_assets.Method, dialect: Dialect) -> Method:
    arguments: list[Argument] = []
    for said in method.arguments:
        if said.type is None:  # crosscheck refuses it
            raise ValueError(f"argument {said.name} of {name} has no type")
        low, high = _limit(said.min, said.type), _limit(said.max, said.type)
        arguments.append(
            Argument(
                said.name,
                said.type,
                said.unit or "",
                low,
                high,
                said.elements or 1,
                said.max_length or dialect.value_forms.get(said.form) or None,
                said.form,
            )
        )
    returns: list[Argument] = []
    for given in method.returns:
        if given.type is None:  # crosscheck refuses it
            raise ValueError(f"{given.name}, which {name} returns, has no type")
        returns.append(
            Argument(given.name, given.type, given.unit or "", elements=given.elements or 1, form=given.form)
        )
    return Method(name, _item(name, method.at), tuple(arguments), method.writes_per_minute, tuple(returns))


def _conduit(name: str, conduit: schema.Conduit, making: Making, kinds: Kinds) -> rows.Conduit:
    expires, expires_text = NEVER, ""
    if conduit.expires is not None:
        date, _, zone = conduit.expires.partition(" ")
        expires, expires_text = end_of_day(date, zone), f"at the end of {date} {zone}"
    return rows.Conduit(
        name=name,
        from_zone=conduit.from_zone,
        to_zone=conduit.to_zone,
        broker=conduit.broker,
        owner=conduit.owner,
        reason=conduit.reason,
        terms=kinds[conduit.broker].to_row(name, conduit, making),
        expires=expires,
        expires_text=expires_text,
        windows=tuple(window_row(window) for window in conduit.window),
        silent=conduit.deny == "silent",
        latency_budget_us=conduit.latency_budget or 0,
        strand=strand_of(making.policy.conduits, name),
        grant=None
        if conduit.grant is None
        else rows.Grant(conduit.grant.most // 1_000_000, tuple(sorted(set(conduit.grant.by)))),
    )
