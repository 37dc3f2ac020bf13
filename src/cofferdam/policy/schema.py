"""The policy file's fields: names, notations, defaults, and the sentence that documents each.

From these models come the checks of a file, the JSON Schema for editors, and docs/policy-reference.md. Values arrive as
the text that stands in the file (policy.yamltext), so each field says by its type how it reads that text.

Not here: the fields of an asset (schema_assets), how values are written (notations), checks between fields and between
entries (policy.crosscheck), and what the rules mean (policy.decide).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from cofferdam import limits as limits_module
from cofferdam.audit.entry import KINDS
from cofferdam.limits import Limits
from cofferdam.model import Side
from cofferdam.policy import collectors, syntax, witnesses
from cofferdam.policy.fields import FileName, as_list, size, span
from cofferdam.policy.fields import choice as _choice
from cofferdam.policy.fields import one_or_list as _one_or_list
from cofferdam.policy.fields import one_or_more as _listed
from cofferdam.policy.fields import read_by as _read
from cofferdam.policy.fields import whole as _whole
from cofferdam.policy.notations import (
    Addresses,
    Date,
    Dates,
    Days,
    Domain,
    Endpoint,
    Entry,
    HostPort,
    Hour,
    InterfaceName,
    Interfaces,
    LeakProbe,
    Microseconds,
    Milliseconds,
    Name,
    Networks,
    Number,
    Prefix4,
    Prefix6,
    Routes,
    Seconds,
    SecondsOrNone,
    Text,
    Thumbprint,
    read_within,
)
from cofferdam.policy.schema_assets import Asset

_STATION = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"


def _station(raw: Any) -> str:
    text = raw.lower() if isinstance(raw, str) else ""
    if re.match(_STATION, text) is None:
        raise syntax.Expected("a hardware address, such as 02:00:5e:10:00:01")
    return text


Station = Annotated[str, *_read(_station, {"type": "string", "pattern": _STATION, "examples": ["02:00:5e:10:00:01"]})]


class Zone(Entry):
    """A network segment on one of the two sides."""

    side: Annotated[Literal["it", "ot"], *_choice("it", "ot")] = Field(
        description="Which bulkhead the zone stands behind: `it` (less trusted) or `ot` (the plant)."
    )
    level: Number | None = Field(
        None, description="Level in the Purdue model, such as 4 or 3.5. For people; decides nothing."
    )
    interface: InterfaceName | None = Field(
        None,
        description="The network interface of this machine that leads to the zone. Separation by namespaces needs it, "
        "and takes it into the namespace of its side while the gate runs.",
    )
    vlan: Annotated[int, *_whole(1, 4094)] | None = Field(
        None, description="The zone is this VLAN of the interface: the gate makes the VLAN's interface and takes that."
    )
    attach: Annotated[Literal["move", "macvlan"], *_choice("move", "macvlan")] = Field(
        "move",
        description="How the interface is taken: `move` takes it whole, `macvlan` makes another interface on it, for a "
        "port that this machine needs for other things as well.",
    )
    addresses: Interfaces = Field(
        (),
        description="This machine's own addresses in the zone with their prefix length, such as `10.1.0.2/24`. "
        "Default: those that the interface has.",
    )
    routes: Routes = Field(
        (), description="Networks behind a router of the zone: `10.50.0.0/16 via 10.1.0.254`, or a list of them."
    )
    machine: Name | None = Field(
        None,
        description="Which machine the zone hangs on, where a site has several: each runs the gate by the same policy, "
        "with `cofferdam up --machine NAME`. With one zone that says it, all must.",
    )
    crossing: Annotated[Literal["diode"], *_choice("diode")] | None = Field(
        None,
        description="`diode`: the zone is one end of a strand that goes one way, and nothing else is on it. It has a "
        "network namespace of its own.",
    )
    station: Station | None = Field(
        None,
        description="The hardware address of the strand's other end, for the end that sends: nobody can be asked for "
        "it. Default: that of everybody (broadcast).",
    )


class Principal(Entry):
    """Who asks: a name for source addresses."""

    zone: Name = Field(description="The zone from which the principal comes.")
    addresses: Networks = Field(
        (), description="Source addresses and networks (CIDR), IPv4 or IPv6. Needed, unless it is a peer."
    )
    peer: Name | None = Field(
        None,
        description="Instead of addresses: the name of an overlay peer (`cofferdam overlay add-peer NAME`). It "
        "comes by WireGuard, and has the address that belongs to its key.",
    )
    jump: Name | None = Field(
        None,
        description="Instead of addresses: a conduit of the jump server, by whose forwarded ports (`do: port` there, "
        "`ssh -L`) they come.",
    )
    user: Text | None = Field(
        None,
        description="Who has to be logged in as well, for protocols with users: all that is named must match. With "
        "`jump`: the person.",
    )
    application: Text | None = Field(
        None, description="The application that has to show a certificate of this URI, for protocols that have such."
    )
    certificate: Thumbprint | None = Field(
        None, description="The certificate that has to be shown, for protocols that have such: its SHA-1."
    )


class Window(Entry):
    """Hours of the week in which a conduit is open."""

    days: Days = Field(
        (0, 1, 2, 3, 4, 5, 6), description="Days: `mon-fri`, `[mon, wed, sat-sun]`, `all`. Default: all."
    )
    start: Hour = Field(alias="from", description="When it opens, by the wall clock of the zone: `06:00`.")
    stop: Hour = Field(
        alias="to",
        description="When it closes: `18:00`, `24:00`. Not after `from` means over midnight; the window then belongs "
        "to the day on which it opens.",
    )
    zone: Text = Field(
        description="The time zone's name in the tz database, such as `Europe/Paris` or `UTC`. Daylight saving is "
        "followed."
    )
    never: Dates = Field(
        (),
        alias="except",
        description="Days on which it does not open, by the calendar of the zone: `2027-05-01`, "
        "`2026-12-24 to 2027-01-02`, or a list of them.",
    )


# The Window model hides behind a validator, so its place in the JSON Schema is put in by policy.reference.
Windows = Annotated[tuple[Window, ...], BeforeValidator(_listed), WithJsonSchema({"x-windows": True})]


class Rule(Entry):
    """One line of a conduit's `allow`. What it may say is its broker's (policy.terms)."""

    @property
    def principals(self) -> tuple[str, ...]:
        """The principals that it names."""
        return ()

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that it names."""
        return ()

    @property
    def changes(self) -> bool:
        """Whether it allows what may change the plant."""
        return False


class Grant(Entry):
    """A conduit that is shut until somebody asks for it and a second person agrees (`cofferdam grant`)."""

    most: Microseconds = Field(
        description="How long one grant may last, such as `4 h`: from a minute to 30 days.", ge=60 * 10**6,
        le=30 * 86_400 * 10**6,
    )  # fmt: skip
    by: Annotated[tuple[Name, ...], BeforeValidator(as_list)] = Field(
        (), description="Names of users of the gate's machine who may agree. Default: whoever may use the gate. Nobody "
        "agrees to what they have asked for."
    )  # fmt: skip


class Conduit(Entry):
    """An agreed road from one zone to another, through one kind of broker. What no conduit allows is refused.

    A broker's terms add its own fields and say what stands under `allow`.
    """

    may_ride: ClassVar[bool] = False
    from_zone: Name = Field(alias="from", description="The zone where sessions begin.")
    to_zone: Name = Field(alias="to", description="The zone to which they go.")
    broker: Name = Field(description="The broker that understands the exchange; what else the conduit may say is its.")
    owner: Text = Field(description="Who answers for this conduit: a role or a team.")
    reason: Text = Field(description="Why it exists, in words that a reviewer understands.")
    expires: Date | None = Field(
        None,
        description="The last day on which the conduit is open: until the end of it in UTC, or in the zone given after "
        "the date (`2027-06-30 Europe/Paris`).",
    )
    window: Windows = Field(
        (), description="The hours in which the conduit is open, one window or a list. Default: always."
    )
    deny: Annotated[Literal["refuse", "silent"], *_choice("refuse", "silent")] = Field(
        "refuse",
        description="How a refused request is answered: `refuse` in the protocol's own words, `silent` not at all.",
    )
    grant: Grant | None = Field(
        None, description="The conduit is shut unless a grant stands: asked for by one person, agreed by another."
    )
    latency_budget: Microseconds | None = Field(
        None,
        description="How much latency the brokers may add; `status` and the metrics compare with it. Nothing is "
        "refused for it.",
    )
    allow: Annotated[tuple[Rule, ...], BeforeValidator(as_list)] = Field(
        description="The rules, in the broker's words. What no rule allows is refused."
    )

    @property
    def principals(self) -> tuple[str, ...]:
        """The principals that it names besides those of its rules."""
        return ()

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that it names besides those of its rules."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_broker(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        found: Self = read_within(info, raw, "broker", handler)
        return found


class Gate(Entry):
    """How the gate itself runs."""

    management: Endpoint | None = Field(
        None, description="ADDRESS:PORT of /metrics, /health and /ready. Off unless set."
    )
    separation: Annotated[str, *_choice("auto", "namespaces", "processes")] = Field(
        "auto",
        description="What keeps the halves apart: `namespaces`, `processes` only, or `auto` for the best that can be "
        "had.",
    )
    require: Annotated[str, *_choice("namespaces")] | None = Field(
        None, description="`namespaces`: refuse to start where namespaces cannot be had."
    )
    leak_probe: LeakProbe = Field(
        300,
        description="How often the gate asks on the IT side, by each asset's real address, whether there is a way "
        "round it: from `10 s` to `1 d`. With `off` nobody asks between two proofs, and status, proof and audit log "
        "say so.",
        json_schema_extra={"default": "5 min"},
    )


class WireGuard(Entry):
    """Overlay peers come by WireGuard, which ends in the namespace of the office side."""

    endpoint: HostPort = Field(
        description="HOST:PORT where peers find the gate, as they see it: `vpn.example.com:51820`."
    )
    port: Annotated[int, *_whole(1024, 65535)] | None = Field(
        None, description="The UDP port on this machine. Default: that of the endpoint."
    )
    peers: Prefix4 = Field(description="The IPv4 network of which each peer gets an address: `10.64.8.0/24`.")
    peers6: Prefix6 = Field(
        "auto", description="The same for IPv6; `auto` is a ULA made from the site's name, `none` is no IPv6."
    )
    keepalive: Annotated[int, *_whole(0, 3600)] = Field(
        25, description="Seconds between keep-alive packets of a peer behind NAT; 0 for none."
    )


class Overlay(Entry):
    """Addresses and names by which the office side reaches assets."""

    prefix: Prefix4 | None = Field(
        None, description="The IPv4 network of which each asset in a rule gets an address, unless it says `overlay` or "
        "`listen` itself: `10.64.7.0/24`.",
    )  # fmt: skip
    prefix6: Prefix6 = Field(
        "auto", description="The same for IPv6; `auto` is a ULA made from the site's name, `none` is no IPv6."
    )
    domain: Domain | None = Field(
        None, description="The DNS zone of the assets' names. Default: the site's name and `internal`."
    )
    dns: Addresses | None = Field(
        None, description="Addresses at which the zone is served (port 53). Default: the first of each prefix."
    )
    wireguard: WireGuard | None = Field(None, description="Peers by WireGuard. Off unless set.")
    assigned: dict[Name, Addresses] = Field(
        {},
        description="Addresses that assets were given, so that they keep them. `cofferdam overlay assign` writes it.",
    )
    assigned_peers: dict[Name, Addresses] = Field({}, description="The same for overlay peers.")


class Witness(Entry):
    """Who keeps the log's signed heads elsewhere."""

    to: Annotated[
        witnesses.Destination,
        *_read(witnesses.place, {"type": "string", "pattern": "^(https?|sftp)://", "examples": witnesses.EXAMPLES}),
    ] = Field(
        description="Where: `http://ADDRESS:PORT/PREFIX` or `https://...`, a witness by C2SP tlog-witness; or "
        "`sftp://USER@ADDRESS:PORT/FOLDER`, a folder on another machine."
    )
    key: Annotated[
        str, *_read(witnesses.key, {"type": "string", "pattern": r"^(\S+\+[0-9a-f]{8}\+\S+|ssh-\S+ \S+)$"})
    ] = Field(
        description="The witness's key, NAME+ID+BASE64; for SFTP the host key of the machine, such as `ssh-ed25519 "
        "AAAA...`. What another key answers is refused, with an alarm."
    )
    name: Annotated[str, *_read(syntax.domain, {"type": "string", "examples": ["witness.example"]})] | None = Field(
        None, description="The host's name, where the witness asks for it (`Host`, TLS)."
    )


def _collector_name(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[a-z][a-z0-9-]{0,39}", raw):
        return raw
    raise syntax.Expected("a name of small letters, digits and dashes, at most 40")


CollectorName = Annotated[str, *_read(_collector_name, {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"})]


def _header(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", raw) and raw.lower() not in _OWN_HEADERS:
        return raw
    raise syntax.Expected("the name of a header that carries a token, such as Authorization")


_OWN_HEADERS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent", "expect")


class Collector(Entry):
    """Who gets the log's entries."""

    to: Annotated[
        collectors.Destination,
        *_read(
            collectors.place,
            {"type": "string", "pattern": "^((tls|https|udp)://|folder$)", "examples": collectors.EXAMPLES},
        ),
    ] = Field(
        description="Where: `tls://ADDRESS:PORT`, syslog over TLS (RFC 5425); `https://ADDRESS:PORT/PATH`, JSON lines "
        "by POST; `udp://127.0.0.1:514`, syslog to this machine; `folder`, JSON lines in the folder `export-NAME`."
    )
    authority: FileName | None = Field(
        None,
        description="Who has signed the collector's certificate, a PEM file beside the policy; tls and https.",
    )
    name: Annotated[str, *_read(syntax.domain, {"type": "string", "examples": ["soc.example"]})] | None = Field(
        None, description="The name in its certificate. Default: the address."
    )
    form: Annotated[str, *_choice(*collectors.FORMS)] = Field("json", description="The form of an entry.")
    kinds: Annotated[
        tuple[Annotated[str, *_choice(*KINDS)], ...],
        BeforeValidator(_listed),
        _one_or_list({"type": "string", "enum": list(KINDS)}),
    ] = Field((), description="Kinds of events. Default: all.")
    header: Annotated[str, *_read(_header, {"type": "string", "examples": ["Authorization"]})] | None = Field(
        None, description="The HTTP header that carries the token: `cofferdam export secret NAME --token FILE`."
    )
    enterprise: Annotated[int, *_whole(1, (1 << 32) - 1)] = Field(
        32473, description="The private enterprise number in syslog. The default is the one for examples (RFC 5612)."
    )


def _proof(raw: Any) -> int:
    if raw == "off":
        return -1
    found = syntax.hour(raw)
    if found == 86_400:
        raise syntax.Expected("an hour of the day from 00:00 to 23:59, or off", '"00:00"')
    return found


class Evidence(Entry):
    """The gate's evidence of itself."""

    proof: Annotated[
        int,
        *_read(_proof, {"type": "string", "pattern": r"^(([01]\d|2[0-3]):[0-5]\d|off)$", "examples": ["03:15"]}),
    ] = Field(
        11_700,
        description="When the gate is proved and tried each day, by the clock of the zone; `off`: never by itself.",
        json_schema_extra={"default": "03:15"},
    )
    zone: Text = Field("UTC", description="The time zone's name in the tz database, such as `Europe/Paris`.")


class Audit(Entry):
    """The audit log."""

    reads: Annotated[str, *_choice("allow", "refuse")] | None = Field(
        None,
        description="Whether reads go on while the log cannot be written. Writes never do. Unless this says otherwise, "
        "reads of assets go on, and a relay hands out no messages.",
    )
    interval: Milliseconds = Field(10_000, description="How often reads are counted into the log, for each flow.")
    keep: Annotated[int, *span(86_400, 100 * syntax.YEAR_SECONDS)] | None = Field(
        None,
        description="Entries that are older than this go, whole files of 65,536 entries at a time. Unset: none goes.",
    )
    at_most: Annotated[int, *size(256 * 10**6, 10**15)] | None = Field(
        None,
        description="Room for the whole log. The oldest entries go when it takes more, also before `keep` has passed "
        "(an alarm says so). Unset: no bound but the disk.",
    )
    gone: Annotated[str, *_choice("dropped", "moved")] = Field(
        "dropped",
        description="What becomes of entries that go: they are removed, or moved into the folder `archive` of the "
        "state directory, where another disk may be mounted. An entry says which went, and what is left verifies.",
    )
    witnesses: dict[Name, Witness] = Field(
        {},
        description="Who gets the log's signed head each minute, by name, at most 8. Each must go on from the one that "
        "was given out before.",
    )
    collectors: dict[CollectorName, Collector] = Field(
        {}, description="Who gets the log's entries, each once at least and in order, by name, at most 8."
    )


_RANGES = {
    # Looking before sleeping is the one limit that can be off; a second of it would keep a core for itself.
    "busy_poll_microseconds": (0, 10_000),
    # Protocols make records of nearly this size: an answer of OPC UA has up to 900,000 bytes of values.
    "record_bytes": (Limits().record_bytes, 1 << 31),
}
"""Of limits for which not every whole number above 0 will do."""


def _limit_docs() -> dict[str, str]:
    """The sentence under each field of `limits.Limits`."""
    body = next(n for n in ast.parse(inspect.getsource(limits_module)).body if isinstance(n, ast.ClassDef)).body
    found: dict[str, str] = {}
    for field, sentence in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(sentence, ast.Expr)
            and isinstance(sentence.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(sentence.value.value).split())
    return found


def _limit_fields() -> dict[str, Any]:
    docs, defaults = _limit_docs(), Limits()
    fields: dict[str, Any] = {}
    for name in Limits.__struct_fields__:
        default = getattr(defaults, name)
        low, high = _RANGES.get(name, (1, 1 << 31))
        floats = SecondsOrNone if name == "known_value_seconds" else Seconds
        kind: Any = Annotated[int, *_whole(low, high)] if isinstance(default, int) else floats
        fields[name] = (kind, Field(default, description=docs[name]))
    return fields


LimitsSection: type[Entry] = create_model(
    "Limits", __base__=Entry, __doc__="Bounds of one pair of halves, where the defaults do not fit.", **_limit_fields()
)


class Policy(Entry):
    """A Cofferdam policy: what may pass between the office network and the plant. All else is refused."""

    site: Name = Field(description="The site's name; it stands in the audit log and in host names.")
    zones: dict[Name, Zone] = Field(description="The network segments, by name.")
    assets: dict[Name, Asset] = Field({}, description="The devices in the plant, by name.")
    principals: dict[Name, Principal] = Field({}, description="Who asks, by name.")
    conduits: dict[Name, Conduit] = Field({}, description="The agreed roads, by name.")
    limits: LimitsSection = Field(  # type: ignore[assignment]  # a class that was made above
        default_factory=LimitsSection.model_construct, description="Bounds of one pair of halves."
    )
    gate: Gate = Field(default_factory=Gate.model_construct, description="How the gate runs.")
    overlay: Overlay | None = Field(
        None,
        description="Addresses and names for the assets. Without it, each asset says its own `overlay` or `listen`.",
    )
    audit: Audit = Field(default_factory=Audit.model_construct, description="How the audit log is kept.")
    evidence: Evidence = Field(default_factory=Evidence.model_construct, description="When the gate is proved.")


def side(zone: Zone) -> Side:
    """The side of a zone as the model's type."""
    return Side(zone.side)
