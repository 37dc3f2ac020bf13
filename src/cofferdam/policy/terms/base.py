"""What a policy may say of one broker, and what follows from it. PURE.

`Terms` is the interface: a broker's own fields of a conduit, the checks between them, the rows that travel to its
parts, what the parts need (sockets, stores), what each part has to know, and how a verdict is explained. Everything
else that depends on a broker's words is derived from it: errors with their places, the JSON Schema, the reference page,
listeners, firewall, crews and proof.

Not here: which brokers there are (kinds), what may be said of every conduit (policy.schema), how a part judges.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from cofferdam.model import Asset, Side
from cofferdam.policy import rows, schema
from cofferdam.policy.document import Path
from cofferdam.policy.explain import Explanation, Question
from cofferdam.policy.findings import Checking, Linting
from cofferdam.policy.syntax import show_dates, show_days
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.dialect import Dialect

Said = TypeVar("Said", bound=schema.Conduit)
Row = TypeVar("Row", bound=rows.BrokerRow)


# --- what a conduit needs --------------------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """Where a part stands: on a side, in the zone that it works for."""

    side: Side
    zone: str


class Listen(Struct, frozen=True):
    """A socket at which a part answers principals of `zone`. `share`: what it answers for. `said`: where the policy
    says so, for messages. `sources`: who may come, where these are devices and no principals. `groups`: those to which
    it may send besides."""

    zone: str
    address: str
    port: int
    who: tuple[str, ...]
    share: str
    said: Path = ()
    datagrams: bool = False
    sources: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Reach(Struct, frozen=True):
    """A socket of `zone` to which a part may open connections. `share`: what for."""

    zone: str
    address: str
    port: int
    share: str
    datagrams: bool = False


class Ping(Struct, frozen=True):
    """An address of `zone` that a part may ask for an echo (ICMP)."""

    zone: str
    address: str


class Strand(Struct, frozen=True):
    """An end of a strand: a UDP socket at `address` that only sends to `peer` ("out"), or only hears it ("in"), at the
    same port on both. `share`: what for."""

    zone: str
    way: Literal["out", "in"]
    address: str
    peer: str
    port: int
    share: str


class Seam(Struct, frozen=True):
    """An end of a seam: pipes to the part of another crew that stands on the same side and has the other end. By the
    front come clients, at the back they are served as if they had come to `address` and `port`."""

    end: Literal["front", "back"]
    address: str
    port: int
    share: str


class Store(Struct, frozen=True):
    """A folder of a part's own. `quota` in bytes; 0: what its profile says."""

    quota: int = 0


class Folder(Struct, frozen=True):
    """A folder of the site's, in which other programs leave files or fetch them. `name`: beneath the directory of all
    such folders, which whoever starts the gate gives. `share`: what for; `said`: where in the policy. `shared`: a part
    of another crew may have it as well, for what the one leaves there the other fetches."""

    name: str
    share: str
    said: Path = ()
    shared: bool = False


class PartNeeds(Struct, frozen=True):
    """What one part needs for a conduit. `place`: None for one that stands apart, with no network at all. `machine`:
    the one that such a part runs on, where the site has several; one with a place runs where its zone hangs. `strands`:
    ends that it has, each in a zone of its own; it stands in that of the first."""

    place: Place | None = None
    listens: tuple[Listen, ...] = ()
    reaches: tuple[Reach, ...] = ()
    store: Store | None = None
    folders: tuple[Folder, ...] = ()
    strands: tuple[Strand, ...] = ()
    machine: str = ""
    seams: tuple[Seam, ...] = ()
    pings: tuple[Ping, ...] = ()

    @property
    def towards(self) -> tuple[Reach | Ping, ...]:
        """All by which it turns to somebody."""
        return (*self.reaches, *self.pings)


class Needs(Struct, frozen=True):
    """What a conduit needs: the one source for listeners, firewall, crews, stores and proof.

    `parts` has those that the conduit needs, by their names in the crew, the first one first in the crew's name.
    `apart`: what the conduit serves (an asset, or all that it carries) -> what must not be served by two crews (a
    device, a store). A crew serves whole shares; those with equal keys stay together.
    """

    parts: dict[str, PartNeeds]
    apart: dict[str, str]


# --- what a part has to know -----------------------------------------------------------------------------------------


class Scope(Struct, frozen=True):
    """What a crew serves: conduits by name, and of them these shares."""

    conduits: frozenset[str]
    shares: frozenset[str]


# --- terms -----------------------------------------------------------------------------------------------------------


class Making(Struct, frozen=True):
    """What rows are made from: the entries, the assets as rows, and the files that the policy names."""

    policy: schema.Policy
    assets: dict[str, Asset]
    files: Mapping[str, bytes]


class Ask(Struct, frozen=True):
    """One option with which `cofferdam explain` asks: `--NAME METAVAR`. `file`: what is given is a file's content.
    `optional`: it may be left out."""

    name: str
    metavar: str
    help: str
    file: bool = False
    optional: bool = False


class Terms(abc.ABC, Generic[Said, Row]):
    """What a policy may say of one broker.

    `word` stands in a conduit's `broker:`. `conduit` is its model: schema.Conduit with the broker's own sections as
    further fields, and `allow` with its rules. `row`: what of it travels, one of rows.BrokerRow. `title` and
    `conduit`'s docstring head its part of the reference page.
    """

    word: str
    dialect: Dialect | None = None
    """What the assets speak that it serves; None for a broker that serves none."""
    further: ClassVar[tuple[Dialect, ...]] = ()
    """What else they may speak: a broker that is no proxy may serve assets of several protocols."""
    title: ClassVar[str]
    conduit: type[Said]
    rule: type[schema.Rule]
    row: type[Row]
    asks: ClassVar[tuple[Ask, ...]] = ()
    rides: ClassVar[tuple[str, str]] = ("", "")
    """The parts (from, to) whose crossing may go over a strand: the first is inside then, the second outside. "": of
    this broker nothing may."""
    warnings: ClassVar[Mapping[str, Callable[[Linting], None]]] = {}
    """Further warnings of `cofferdam check`, by what they look for; the docstrings are the documentation."""

    @property
    def sections(self) -> tuple[str, ...]:
        """The fields of a conduit that are this broker's own, besides `allow`."""
        known = schema.Conduit.model_fields
        return tuple(field.alias or name for name, field in self.conduit.model_fields.items() if name not in known)

    @abc.abstractmethod
    def check(self, name: str, conduit: Said, numbers: Sequence[int], checking: Checking) -> None:
        """Adds what is wrong between the fields of a conduit and with other entries. `numbers`: which line of `allow`
        each rule is, since wrong ones were left out."""

    @abc.abstractmethod
    def to_row(self, name: str, conduit: Said, making: Making) -> Row:
        """What travels of a conduit that was checked."""

    @abc.abstractmethod
    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        """What the parts need to serve a conduit. Asked of whole policies alone."""

    def clocks(self, row: Row) -> frozenset[str]:
        """The time zones that its own windows follow, besides those of the conduit's."""
        return frozenset()

    # --- explanations

    @property
    def form(self) -> str:
        """How a question is put."""
        said = [f"--{ask.name} {ask.metavar}" for ask in self.asks]
        return " ".join(f"[{one}]" if ask.optional else one for ask, one in zip(self.asks, said, strict=True))

    def asked(self, said: Collection[str]) -> bool:
        """Whether these options make a question of this broker."""
        return {ask.name for ask in self.asks} >= set(said) >= {ask.name for ask in self.asks if not ask.optional}

    def by_nobody(self, said: Collection[str]) -> bool:
        """Whether these options ask what the gate does by itself, so that nobody is asking."""
        return False

    def by_anybody(self, said: Collection[str]) -> bool:
        """Whether these options say who is asking, so that from where need not be said."""
        return False

    def concerns(self, policy: CompiledPolicy, said: Mapping[str, str]) -> bool:
        """Whether this broker, and not another with the same options, is asked."""
        return True

    @abc.abstractmethod
    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        """Why what is asked is allowed or refused. Raises: CofferdamError, where the question makes no sense."""

    # --- slices: what each part has to know, and no more

    @abc.abstractmethod
    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> Row | None:
        """What this part has to know of a conduit's row; None if nothing."""

    @abc.abstractmethod
    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        """The principals that this part has to know for a conduit."""

    def asset(self, asset: Asset, part: str) -> Asset | None:
        """What this part has to know of an asset that is among the shares; None if nothing."""
        return None

    def slice(self, policy: CompiledPolicy, scope: Scope, part: str) -> rows.Table:
        """The policy as one part of a crew gets it.

        It has the crew's conduits and shares, the names of zones without how they are reached, and nothing of the gate,
        the overlay, owners and reasons. Its hash is still that of the whole policy, which the log names.
        """
        table = policy.table
        conduits: dict[str, rows.Conduit] = {}
        who: set[str] = set()
        for name, conduit in table.conduits.items():
            if name not in scope.conduits:
                continue
            row = self.cut(conduit, scope, part)
            if row is not None:
                conduits[name] = replace(conduit, terms=row, owner="", reason="", latency_budget_us=0)
                who |= self.principals(conduit, part)
        assets = {
            name: cut
            for name, asset in table.assets.items()
            if name in scope.shares and (cut := self.asset(asset, part)) is not None
        }
        zones = {zone for conduit in conduits.values() for zone in (conduit.from_zone, conduit.to_zone)}
        zones |= {asset.zone for asset in assets.values()} | {table.principals[name].zone for name in who}
        clocks = {window.zone for conduit in conduits.values() for window in conduit.windows}
        for conduit in conduits.values():
            clocks |= self.clocks(conduit.terms)  # type: ignore[arg-type]
        return rows.Table(
            format=table.format,
            site=table.site,
            zones={name: rows.Zone(name, zone.side) for name, zone in table.zones.items() if name in zones},
            assets=assets,
            overlays={},
            principals={name: one for name, one in table.principals.items() if name in who},
            conduits=conduits,
            limits=table.limits,
            gate=rows.Gate(),
            audit=replace(table.audit, witnesses=(), collectors=()),
            clocks={name: clock for name, clock in table.clocks.items() if name in clocks},
            slice_of=policy.hash,
        )


AnyTerms = Terms[Any, Any]


def window_row(window: schema.Window) -> rows.Window:
    """A window as it travels."""
    text = f"{show_days(window.days)} {_hour(window.start)}-{_hour(window.stop)} {window.zone}"
    if window.never:
        text += f", not on {show_dates(window.never)}"
    return rows.Window(window.days, window.start, window.stop, window.zone, text, window.never)


def _hour(second: int) -> str:
    clock_text = f"{second // 3600:02d}:{second // 60 % 60:02d}"
    return clock_text + (f":{second % 60:02d}" if second % 60 else "")
