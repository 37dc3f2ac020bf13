"""The rows of a compiled policy: plain, frozen data that travels to the parts over a pipe.

Everything a decision needs is in here, also the UTC offsets of the time zones that windows name, so that a part
opens no file.

Not here: how rows are made (policy.compile), how they decide (policy.points), how they travel (policy.table), which of
them a part gets (policy.terms).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from cofferdam.limits import Limits
from cofferdam.model import NEVER, NOBODY, Asset, Item, Shown, Side, Span
from cofferdam.policy.hours import Clock as Clock
from cofferdam.policy.hours import Window as Window
from cofferdam.policy.terms.diode_rows import DiodeRows
from cofferdam.policy.terms.jump_rows import JumpRows
from cofferdam.policy.terms.mirror_rows import MirrorRows
from cofferdam.policy.terms.patch_rows import PatchRows
from cofferdam.policy.terms.relay_rows import RelayRows

FORMAT = 2
"""Version of the rows; a part refuses a table of another version."""


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network segment on one side. `level` is the Purdue level, for people only; None where none was given.

    `interface` is taken as it is, or a VLAN (`vlan` above 0) or macvlan is made on it. `routes`: (network, router).
    `machine`: on which it hangs, "" where the site has one. `diode`: it is one end of a strand that goes one way;
    `station` is the hardware address of the other end, "" for none.
    """

    name: str
    side: Side
    level: float | None = None
    interface: str = ""
    addresses: tuple[str, ...] = ()
    vlan: int = 0
    macvlan: bool = False
    routes: tuple[tuple[str, str], ...] = ()
    machine: str = ""
    diode: bool = False
    station: str = ""


BY_JUMP: Final = "jump:"
"""How the source of who comes by a forwarded port of the jump server begins; the name of its conduit follows."""


class Principal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who asks: the source networks that stand for a name, in CIDR form. `peer`: an overlay peer, whose networks are
    the addresses of its key."""

    name: str
    zone: str
    networks: tuple[str, ...]
    peer: str = ""
    shown: Shown = NOBODY
    """What a client has to show besides its address; "" for what does not matter."""
    jump: str = ""
    """The conduit of the jump server by whose forwarded ports they come; they have no network then."""


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Cells or an item that a rule allows. `point` names them, or is "" for raw ones. `prefix`: every item is meant
    whose name begins with this one's."""

    at: Span | Item
    point: str = ""
    prefix: bool = False
    mask: int = 0  # only these bits of the one cell may be written; 0: all of it
    fastest_us: int = 0  # of watches: the intervals that may be asked
    slowest_us: int = 0  # 0: however long


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a conduit's `allow`, for one asset. `number` counts the lines from 0.

    `functions` and `write_functions` are (code, sub) with sub -1 for any: operations that carry no cells, which leave
    the device's state alone, or may change it. `calls`, `watches` and `streams` are items that may be called, watched,
    or opened as a stream.
    """

    number: int
    who: tuple[str, ...]
    asset: str
    reads: tuple[Piece, ...] = ()
    writes: tuple[Piece, ...] = ()
    calls: tuple[Piece, ...] = ()
    watches: tuple[Piece, ...] = ()
    streams: tuple[Piece, ...] = ()
    functions: tuple[tuple[int, int], ...] = ()
    write_functions: tuple[tuple[int, int], ...] = ()


class Proxy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="proxy"):
    """What a conduit says of a proxy, whichever protocol it speaks. `realtime`: its halves have a real-time
    priority."""

    rules: tuple[Rule, ...] = ()
    realtime: bool = False


BrokerRow = Proxy | RelayRows | MirrorRows | PatchRows | JumpRows | DiodeRows
"""What a conduit says of its broker: one kind of row for each kind of broker, told apart by its tag."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conduit is shut unless somebody has asked for it and another has agreed, for `most_seconds` at most; `by`:
    who may agree, empty for anybody who may use the gate."""

    most_seconds: int
    by: tuple[str, ...] = ()


class Conduit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An agreed road between two zones, with its owner and its reason. `expires` is UTC ns, NEVER for none.

    `terms` is the broker's own. `windows`: open while any of them is; none means always. `latency_budget_us` is in
    microseconds, 0 for none. `strand`: the conduit over which its crossing goes, "" where it has none but pipes.
    """

    name: str
    from_zone: str
    to_zone: str
    broker: str
    owner: str
    reason: str
    terms: BrokerRow
    expires: int = NEVER
    expires_text: str = ""
    windows: tuple[Window, ...] = ()
    silent: bool = False
    latency_budget_us: int = 0
    strand: str = ""
    grant: Grant | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules about assets; a broker without assets has none."""
        return self.terms.rules if isinstance(self.terms, Proxy) else ()

    @property
    def held_back(self) -> str:
        """Why nothing passes by it although it has not expired (`severed`, or no grant stands); else ""."""
        by_day = self.expires_text.startswith("at the end of ")
        return self.expires_text if self.expires == 0 and not by_day else ""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the gate runs. `management` is (address, port) of status and metrics, None for none.

    `separation` is what to try: "auto", "namespaces" or "processes". `require_namespaces`: refuse to start with less.
    `leak_probe_seconds`: from one round of the leak probe to the next; 0: it is off.
    """

    management: tuple[str, int] | None = None
    separation: str = "auto"
    require_namespaces: bool = False
    leak_probe_seconds: int = 300


MOST_WITNESSES: Final = 8


class Witness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who keeps the log's heads. `way`: "http", "https" (a C2SP witness) or "sftp" (a folder); `path`: its prefix, or
    the folder; `key`: the witness's vkey, or the host key as KIND BASE64; `user`: as whom we sign in by SFTP; `host`:
    the name that is said to it, where it is not the address."""

    name: str
    way: Literal["http", "https", "sftp"]
    address: str
    port: int
    path: str
    key: str
    user: str = ""
    host: str = ""

    @property
    def where(self) -> str:
        """As it was written, near enough."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.way}://{self.user}{'@' if self.user else ''}{address}:{self.port}{self.path}"


MOST_COLLECTORS: Final = 8


class Collector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who gets the log's entries. `way`: "tls" (syslog), "https" (JSON lines to `path`), "udp" (syslog to loopback) or
    "folder" (JSON lines in a folder of the site's). `kinds`: of events, empty for all. `host`: the name in its
    certificate, "" for the address; `authority`: who has signed that (PEM). `header`: the name of the HTTP header that
    carries the token. `enterprise`: the private enterprise number in syslog."""

    name: str
    way: Literal["tls", "https", "udp", "folder"]
    address: str
    port: int
    path: str
    form: str = "json"
    kinds: tuple[str, ...] = ()
    host: str = ""
    authority: bytes = b""
    header: str = ""
    enterprise: int = 32473

    @property
    def where(self) -> str:
        """As it was written, near enough."""
        if self.way == "folder":
            return f"folder {self.folder}"
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.way}://{address}:{self.port}{self.path}"

    @property
    def folder(self) -> str:
        """The site's folder that its lines are left in, "" for another way."""
        return f"export-{self.name}" if self.way == "folder" else ""


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the gate is proved and tried each day: `proof` in seconds of the local day of `zone`, -1 for never."""

    proof: int = 11_700
    zone: str = "UTC"


class Audit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reads_without_log`: reads go on while the log cannot be written; `messages_without_log`: a relay hands out its
    messages. `interval_ms`: how often reads are counted. `keep_seconds` and `most_bytes`: of the log, 0 for no bound;
    `move`: what goes beyond is moved to the archive. `witnesses`: who keeps its heads;
    `collectors`: who gets its entries."""

    reads_without_log: bool = True
    interval_ms: int = 10_000
    messages_without_log: bool = False
    keep_seconds: int = 0
    most_bytes: int = 0
    move: bool = False
    witnesses: tuple[Witness, ...] = ()
    collectors: tuple[Collector, ...] = ()


class WireGuard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How overlay peers come: `endpoint` is where they find the gate, `port` the UDP port here, `networks` those that
    their addresses are of, `keepalive` in seconds (0: none)."""

    endpoint: tuple[str, int]
    port: int
    networks: tuple[str, ...]
    keepalive: int = 25


class Overlay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the office side sees: `prefixes` are the networks of assets' addresses, `dns` where names are served."""

    prefixes: tuple[str, ...]
    domain: str
    dns: tuple[str, ...]
    wireguard: WireGuard | None = None


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A compiled policy. Sequences are sorted by name, so that equal policies have equal tables.

    `slice_of`: this is what one part has to know of the policy with that hash; "" for a whole policy.
    """

    format: int
    site: str
    zones: dict[str, Zone]
    assets: dict[str, Asset]
    overlays: dict[str, str]
    principals: dict[str, Principal]
    conduits: dict[str, Conduit]
    limits: Limits
    gate: Gate
    audit: Audit
    clocks: dict[str, Clock]
    overlay: Overlay | None = None
    evidence: Evidence = Evidence()
    slice_of: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
