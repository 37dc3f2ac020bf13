"""A compiled policy: rows with an index over them, their hash, and their way over a pipe.

`to_bytes` and `from_bytes` are exact inverses; `from_bytes` takes nothing that `to_bytes` would not write. The hash is
over what the policy says (canonical JSON of its rows), not over when or with which zone data it was compiled.

Not here: making rows from a file (policy.compile), judging operations (policy.decide).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping

import msgspec

from cofferdam.errors import PolicyError
from cofferdam.limits import Limits
from cofferdam.model import NOBODY, Asset, Deny, Fault, Shown
from cofferdam.policy.points.decide import Flow, PointState
from cofferdam.policy.points.ways import Way
from cofferdam.policy.rows import BY_JUMP, FORMAT, Audit, Conduit, Gate, Overlay, Principal, Proxy, Rule, Table, Zone

MEMO_ENTRIES = 4096
"""Flows that a policy remembers; all are forgotten when one more is asked for."""

_decoder = msgspec.msgpack.Decoder(Table)
_encoder = msgspec.msgpack.Encoder()


class CompiledPolicy:
    """What the parts and the gate ask. Immutable, save for memos.

    `hash` is that of the whole policy, also in a part that has only a slice of it. `machine` is the one that the gate
    runs on, "" where the site has one, or where nobody has said which: then all machines are meant.
    """

    __slots__ = (
        "_flows", "_jumps", "_networks", "_rules", "assets", "audit", "conduits", "gate", "hash", "limits",
        "machine", "overlay", "overlays", "principals", "site", "table", "zones",
    )  # fmt: skip

    def __init__(self, table: Table, machine: str = "") -> None:
        """Raises: PolicyError where rows point to rows that are not there."""
        _check(table)
        self.machine = machine
        self.table = table
        self.site: str = table.site
        self.zones: dict[str, Zone] = table.zones
        self.assets: dict[str, Asset] = table.assets
        self.overlays: dict[str, str] = table.overlays
        self.overlay: Overlay | None = table.overlay
        self.principals: dict[str, Principal] = table.principals
        self.conduits: dict[str, Conduit] = table.conduits
        self.limits: Limits = table.limits
        self.gate: Gate = table.gate
        self.audit: Audit = table.audit
        self.hash: str = table.slice_of or policy_hash(table)
        # (version, prefix length) -> network as an integer -> principals
        self._networks: dict[tuple[int, int], dict[int, list[str]]] = {}
        self._jumps: dict[str, list[str]] = {}  # conduit of the jump server -> principals
        for principal in table.principals.values():
            if principal.jump:
                self._jumps.setdefault(principal.jump, []).append(principal.name)
            for text in principal.networks:
                network = ipaddress.ip_network(text)
                same = self._networks.setdefault((network.version, network.prefixlen), {})
                same.setdefault(int(network.network_address), []).append(principal.name)
        # (principal, asset) -> its rules, in the order of conduits and lines
        self._rules: dict[tuple[str, str], list[tuple[Conduit, Rule]]] = {}
        for conduit in table.conduits.values():
            for rule in conduit.rules:
                for who in rule.who:
                    self._rules.setdefault((who, rule.asset), []).append((conduit, rule))
        self._flows: dict[tuple[str, tuple[str, ...], str], Flow | Deny] = {}

    @property
    def machines(self) -> tuple[str, ...]:
        """The machines that the policy names, sorted."""
        return tuple(sorted({zone.machine for zone in self.zones.values() if zone.machine}))

    def on(self, machine: str) -> CompiledPolicy:
        """The same policy, as the gate on one machine has it.

        Raises: PolicyError: it names machines and this is none of them, or it names none.
        """
        machines = self.machines
        if machine not in (machines or ("",)):
            if not machine:
                raise PolicyError(
                    f"the policy is for the machines {' and '.join(machines)}, and which this is was not said",
                    hint=f"cofferdam up --machine {machines[0]}",
                )
            raise PolicyError(
                f"the policy has no machine {machine}", hint=f"it has {', '.join(machines)}" if machines else
                "it is for one machine; leave out --machine, or give its zones `machine:`",
            )  # fmt: skip
        return CompiledPolicy(self.table, machine)

    def ended(self, names: Iterable[str]) -> CompiledPolicy:
        """The same policy, hash and all, where these conduits have expired, whatever the clock says."""
        over = {name: msgspec.structs.replace(self.conduits[name], expires=0) for name in names}
        if not over:
            return self
        table = msgspec.structs.replace(self.table, conduits=self.conduits | over)
        found = CompiledPolicy(table, self.machine)
        found.hash = self.hash
        return found

    def held(
        self,
        *,
        zones: Collection[str] = (),
        conduits: Mapping[str, str] = {},
        principals: Collection[str] = (),
        assets: Collection[str] = (),
        until: Mapping[str, int] = {},
    ) -> CompiledPolicy:
        """The same policy, hash and all, without what is held back. `conduits` are shut, each with a word why; zones
        shut all that lead there or come from there. A principal has no address any more. A proxy's rules for the
        assets allow nothing; a conduit of another broker that names one is shut. `until`: when a conduit ends at the
        latest (UTC ns).
        """  # fmt: skip
        found: dict[str, Conduit] = {}
        for name, conduit in self.conduits.items():
            why = conduits.get(name, "")
            if not why and {conduit.from_zone, conduit.to_zone} & set(zones):
                why = "severed: its zone"
            if not why and not isinstance(conduit.terms, Proxy) and _names(conduit.terms, frozenset(assets)):
                why = "severed: its asset"
            fresh = conduit
            if why:
                fresh = msgspec.structs.replace(conduit, expires=0, expires_text=why)
            elif isinstance(conduit.terms, Proxy) and any(rule.asset in assets for rule in conduit.rules):
                # The rule stays, and allows nothing: parts know zones and people by it.
                rules = tuple(
                    Rule(rule.number, rule.who, rule.asset) if rule.asset in assets else rule for rule in conduit.rules
                )
                fresh = msgspec.structs.replace(conduit, terms=msgspec.structs.replace(conduit.terms, rules=rules))
            if name in until and until[name] < fresh.expires:
                fresh = msgspec.structs.replace(fresh, expires=until[name], expires_text="when its grant ends")
            if fresh is not conduit:
                found[name] = fresh
        gone = {name: msgspec.structs.replace(self.principals[name], networks=(), jump="") for name in principals
                if name in self.principals}  # fmt: skip
        if not found and not gone:
            return self
        table = msgspec.structs.replace(self.table, conduits=self.conduits | found, principals=self.principals | gone)
        changed = CompiledPolicy(table, self.machine)
        changed.hash = self.hash
        return changed

    def serves(self, broker: str, asset: str, principals: Collection[str], wall_ns: int) -> bool:
        """Whether a conduit that has not expired lets one of these principals do anything with the asset."""
        rules = (r for c in self.conduits.values() if c.broker == broker and wall_ns < c.expires for r in c.rules)
        there = {name for name in principals if self._there(name)}
        return any(
            rule.asset == asset and there & set(rule.who) and rule != Rule(rule.number, rule.who, rule.asset)
            for rule in rules
        )

    def _there(self, name: str) -> bool:
        """Whether a principal can come at all."""
        one = self.principals.get(name)
        return one is not None and bool(one.networks or one.jump)

    def is_here(self, zone: str) -> bool:
        """Whether a zone hangs on this machine."""
        return self.machine in ("", self.zones[zone].machine)

    def to_bytes(self) -> bytes:
        """The rows as msgpack."""
        return to_bytes(self.table)

    @classmethod
    def from_bytes(cls, data: bytes) -> CompiledPolicy:
        """The policy that `to_bytes` wrote. Raises: PolicyError for anything else."""
        try:
            return cls(_decoder.decode(data))
        except (msgspec.DecodeError, ValueError) as error:
            raise PolicyError(f"the compiled policy is damaged: {error}") from None

    def point_state(self) -> PointState:
        """An empty memory for an inner half that serves this policy."""
        return PointState(self.assets, self.limits.known_value_seconds)

    def principals_of(
        self, source: str, zones: str | Collection[str] | None = None, shown: Shown | None = NOBODY
    ) -> tuple[str, ...]:
        """The names that a source address (text, IPv4 or IPv6) stands for, or a conduit of the jump server by which
        somebody comes (`jump:NAME`), sorted; only those of `zones`, if given, and none that names more than the client
        has `shown` (None: whatever it may yet show).

        All networks that contain the address count, not only the narrowest: principals add up.
        """
        found: set[str] = set()
        if source.startswith(BY_JUMP):
            found.update(self._jumps.get(source[len(BY_JUMP) :], ()))
        else:
            try:
                address = ipaddress.ip_address(source)
            except ValueError:
                return ()
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            number, bits = int(address), address.max_prefixlen
            for (version, prefix), networks in self._networks.items():
                if version == address.version:
                    shift = bits - prefix
                    found.update(networks.get(number >> shift << shift, ()))
        if zones is not None:
            wanted = (zones,) if isinstance(zones, str) else zones
            found = {name for name in found if self.principals[name].zone in wanted}
        if shown is not None:
            found = {name for name in found if _shows(shown, self.principals[name].shown)}
        return tuple(sorted(found))

    def urgent(self, broker: str, conduits: Collection[str]) -> bool:
        """Whether one of these conduits of this broker wants a real-time priority for its parts."""
        return any(
            isinstance(one.terms, Proxy) and one.terms.realtime
            for one in self.conduits.values()
            if one.broker == broker and one.name in conduits
        )

    def flow(
        self, broker: str, source: str, asset: str, zone: str | Collection[str] | None = None, shown: Shown = NOBODY
    ) -> Flow | Deny:
        """What a source address may do to an asset through a broker. Ask once per session and asset.

        `zone` is the zone (or zones) from which the session came in; with it, an address of a principal of another
        zone counts for nothing.
        """
        names = self.principals_of(source, zone, shown)
        if not names:
            named = zone if isinstance(zone, str) else " or ".join(sorted(zone or ()))
            where = f" in zone {named}" if named else ""
            has = "that address" if not source.startswith(BY_JUMP) else "that conduit as its own"
            if any_who := self.principals_of(source, zone, None):
                has = f"shown what {' or '.join(any_who)} has to"
            return Deny("", "", Fault.PRINCIPAL, f"{source} asks; no principal{where} has {has}")
        key = (broker, names, asset)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._find(broker, names, asset)
            if len(self._flows) >= MEMO_ENTRIES:
                self._flows.clear()
            self._flows[key] = flow
        return flow

    def flow_of(self, broker: str, names: tuple[str, ...], asset: str) -> Flow | Deny:
        """What these principals may do to an asset through a broker, whatever their addresses are: for what the gate
        asks for itself, which must be no more than somebody may."""
        return self._find(broker, names, asset)

    def _find(self, broker: str, names: tuple[str, ...], asset: str) -> Flow | Deny:
        who = " or ".join(names)
        target = self.assets.get(asset)
        if target is None:
            return Deny("", "", Fault.ASSET, f"asset {asset} is asked; the policy has no such asset")
        found: dict[str, dict[int, Rule]] = {}
        others: set[str] = set()
        for name in names:
            for conduit, rule in self._rules.get((name, asset), ()):
                if conduit.broker == broker:
                    found.setdefault(conduit.name, {})[rule.number] = rule
                else:
                    others.add(conduit.broker)
        if found:
            order = [name for name in self.conduits if name in found]
            ways = [Way(self.conduits[name], [rule for _, rule in sorted(found[name].items())]) for name in order]
            return Flow(names, target, ways, self.table.clocks)
        if others:
            allowed = " and ".join(sorted(others))
            return Deny("", "", Fault.CONDUIT, f"broker {broker} is asked for {asset}; {who} may use {allowed}")
        zones = {self.principals[name].zone for name in names}
        roads = [
            conduit
            for conduit in self.conduits.values()
            if conduit.broker == broker and conduit.to_zone == target.zone and conduit.from_zone in zones
        ]
        if not roads:
            return Deny("", "", Fault.CONDUIT, (
                f"{broker} from {' or '.join(sorted(zones))} to {target.zone} is asked; no conduit leads there"
            ))  # fmt: skip
        for conduit in roads:
            for rule in conduit.rules:
                if set(rule.who) & set(names):
                    line, detail = f"{conduit.name}/{rule.number}", f"it allows {who} {rule.asset}"
                    return Deny(conduit.name, line, Fault.ASSET, f"asset {asset} is asked; {detail}")
        for conduit in roads:
            for rule in conduit.rules:
                if rule.asset == asset:
                    line, allowed = f"{conduit.name}/{rule.number}", ", ".join(rule.who)
                    return Deny(conduit.name, line, Fault.PRINCIPAL, f"{who} asks for {asset}; {allowed} may")
        return Deny(roads[0].name, "", Fault.ASSET, f"asset {asset} is asked; no rule names it")


def _names(row: object, names: frozenset[str]) -> bool:
    """Whether a broker's row names one of these, wherever it does."""
    if isinstance(row, str):
        return row in names
    if isinstance(row, Mapping):
        return any(_names(one, names) for pair in row.items() for one in pair)
    if isinstance(row, list | tuple | frozenset | set):
        return any(_names(one, names) for one in row)
    return isinstance(row, msgspec.Struct) and any(_names(getattr(row, f), names) for f in row.__struct_fields__)


def _shows(shown: Shown, wanted: Shown) -> bool:
    """Whether a client has shown all that a principal names."""
    return (
        wanted.user in ("", shown.user)
        and wanted.application in ("", shown.application)
        and wanted.certificate in ("", shown.certificate)
    )


def to_bytes(table: Table) -> bytes:
    """The rows as msgpack, for a part that is to have them: `CompiledPolicy.from_bytes` reads them."""
    return _encoder.encode(table)


def policy_hash(table: Table) -> str:
    """Hex SHA-256 over the canonical JSON of a whole policy's rows, without the time zones' offsets (they depend on the
    day)."""
    said = msgspec.structs.replace(table, clocks={})
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


def _check(table: Table) -> None:
    """Raises: PolicyError where the rows do not fit together."""
    if table.format != FORMAT:
        raise PolicyError(f"the compiled policy has format {table.format}, this version reads {FORMAT}")
    for asset in table.assets.values():
        if asset.zone not in table.zones:
            raise PolicyError(f"the compiled policy is damaged: asset {asset.name} in no zone")
    for clock in table.clocks.values():
        if len(clock.since) != len(clock.offsets) or not clock.since or list(clock.since) != sorted(set(clock.since)):
            raise PolicyError("the compiled policy is damaged: a clock's offsets are out of order")
    for conduit in table.conduits.values():
        if not {conduit.from_zone, conduit.to_zone} <= table.zones.keys():
            raise PolicyError(f"the compiled policy is damaged: conduit {conduit.name} between no zones")
        if any(window.zone not in table.clocks or not window.days for window in conduit.windows):
            raise PolicyError(f"the compiled policy is damaged: conduit {conduit.name} has a window without a clock")
        if any(first > last for window in conduit.windows for first, last in window.never):
            raise PolicyError(f"the compiled policy is damaged: conduit {conduit.name} excepts days that end too soon")
        for rule in conduit.rules:
            if rule.asset not in table.assets or not set(rule.who) <= table.principals.keys():
                raise PolicyError(f"the compiled policy is damaged: rule {conduit.name}/{rule.number}")
