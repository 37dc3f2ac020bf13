"""The orders that the gate gives to the launcher, and what the launcher reports: a closed set of typed records.

The launcher is the one process that may hold privilege, so this file is the whole of what can be asked of it. No
order names a program, a file, a user or a descriptor number: it names a kind of crew, and the launcher knows the rest.
Decoding is strict, and an order that does not decode ends everything (`CrossingError`): only a broken gate sends one.

Each message is one packet of a SOCK_SEQPACKET socket pair. Descriptors (of control pipes) go from the launcher to
the gate only, with a `Spawned`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.plans.records import PLAN_BYTES, NetworkPlan
from cofferdam.limits import FOLDER_NAME

MAX_ORDER: Final = 64 << 10
"""Bytes of one message."""
MAX_PART: Final = 48 << 10
"""Bytes of a plan in one order."""
GATE_CHILD: Final = 0
"""The number of the gate itself among the launcher's children."""

Name = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./+#:-]*$")]
Address = Annotated[str, Meta(max_length=45, pattern=r"^[0-9A-Fa-f.:]+$")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Number = Annotated[int, Meta(ge=0, le=1 << 32)]
Text = Annotated[str, Meta(max_length=16384)]
SideName = Literal["it", "ot"]
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""A key of WireGuard: 32 bytes in base64."""
TUNNEL_PEERS: Final = 400
"""The most overlay peers: an order that names them all is one message."""
MOST_FOLDERS: Final = 64
FolderName = Annotated[str, Meta(pattern=FOLDER_NAME)]
Part = Annotated[str, Meta(max_length=32, pattern=r"^[a-z][a-z0-9_-]*$")]
MOST_PARTS: Final = 8
"""Parts of one crew."""
MOST_JOBS: Final = 16
"""Jobs of all crews that run at once."""
TUNNEL: Final = "tunnel"
"""The program of the overlay's tunnel, among the children."""
DROPPED: Final = "dropped-"
"""How the names of the firewall's counters of dropped packets begin; the hook follows."""
Fact = tuple[str, bool, str]
BESIDES: Final = ("compiled", "leak probe", "nightly proof")
"""Names of facts that a gate tells beside those of its separation: how fast its parts are, and what looks at it."""
"""One fact about the separation: (name, in force, detail)."""


FENCE: Final = "fence"
"""The fact that parts in the host's network are held to what they are for."""


class Place(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a part stands."""

    side: SideName
    zone: Name


# --- gate to launcher -------------------------------------------------------------------------------------------


class Prepare(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Make the separation for this plan: an encoded `NetworkPlan`, in parts, all but the last with `more`. Comes first,
    and again when a new policy has another plan. The last part is answered by `Prepared` or `OrderFailed`."""

    serial: Number
    part: Annotated[bytes, Meta(max_length=MAX_PART)]
    more: bool = False


Way = Literal["", "out", "in", "forth-out", "forth-in", "back-out", "back-in"]
"""Of a UDP socket: both ways; out alone, to one peer; in alone, from one peer. Or an end of a seam's pipe: of the one
that leads from its front to its back, or of the one that leads back."""
SEAM_WAYS: Final[dict[Literal["front", "back"], tuple[Way, Way]]] = {
    "front": ("forth-out", "back-in"), "back": ("back-out", "forth-in"),
}  # fmt: skip
"""What each end of a seam has: where it writes, and where it reads."""


class OpenListener(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Listen at an address, on a side; `datagrams`: by UDP. `way`: the socket is connected to `peer` at the same port,
    and goes one way: it is shut for reading ("out"), or is given to a part that may not write to it ("in"). Answered by
    `ListenerOpened` or `OrderFailed`. The launcher holds the socket open until `CloseListener`, also while no part
    runs: clients then wait in its backlog."""

    serial: Number
    place: Place
    address: Address
    port: Port
    datagrams: bool = False
    way: Way = ""
    peer: Annotated[str, Meta(max_length=45, pattern=r"^[0-9A-Fa-f.:]*$")] = ""


class CloseListener(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Give a listener up. Not answered."""

    listener: Number


class PartOrder(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One part of a crew. `place`: where it stands, for parts that stand on a side. `listeners`: those that it
    inherits, in this order. `quota`: bytes of its store; 0: what its profile says. `folders`: names of folders of the
    site's. `urgent`: it gets a real-time priority, if its profile may have one."""

    part: Part
    place: Place | None = None
    listeners: Annotated[tuple[Number, ...], Meta(max_length=4096)] = ()
    quota: Annotated[int, Meta(ge=0, le=1 << 50)] = 0
    folders: Annotated[tuple[FolderName, ...], Meta(max_length=MOST_FOLDERS)] = ()
    urgent: bool = False


class Spawn(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """Start a crew of this kind: these parts of it, with fresh pipes between them as the kind declares them.

    The kind is looked up in a table of the code, and all that a part may do with it. `road` is the crew's name without
    what tells it from others that do the same (more cores, a later addition): crews of one road share users. Answered
    by `Spawned` or `OrderFailed`."""

    serial: Number
    kind: Part
    crew: Name
    parts: Annotated[tuple[PartOrder, ...], Meta(min_length=1, max_length=MOST_PARTS)]
    road: Annotated[str, Meta(max_length=128, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_./+#:-]*)?$")] = ""


class SpawnJob(Struct, frozen=True, array_like=True, tag=14, forbid_unknown_fields=True):
    """Start one of the jobs that crews of this kind have, for this crew, which runs. `road` as in `Spawn`. Answered by
    `Spawned`, with one child, or `OrderFailed`."""

    serial: Number
    kind: Part
    crew: Name
    job: Part
    road: Annotated[str, Meta(max_length=128, pattern=r"^([A-Za-z0-9_][A-Za-z0-9_./+#:-]*)?$")] = ""


class Kill(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """End a child with SIGKILL. Not answered; `Exited` follows."""

    child: Number


class Notify(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """Tell the service manager (sd_notify(3)). Not answered."""

    state: Literal["READY=1", "WATCHDOG=1", "STOPPING=1", "RELOADING=1"]


class Finish(Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True):
    """The gate's last order: end whatever still runs and exit with `code`. `message` and `hint` are for the user."""

    code: Annotated[int, Meta(ge=0, le=2)]
    message: Text = ""
    hint: Text = ""


class TunnelPeer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who may come by the tunnel: a public key, and the only source addresses that are taken from it."""

    key: Key
    addresses: Annotated[tuple[Address, ...], Meta(max_length=4)]


class SetTunnel(Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    """Let exactly these peers come by the plan's tunnel; it is made if it is not there. `key` is our private key.
    Answered by `TunnelSet` or `OrderFailed`."""

    serial: Number
    key: Key
    peers: Annotated[tuple[TunnelPeer, ...], Meta(max_length=TUNNEL_PEERS)]


class AskTunnel(Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """What is known of the tunnel's peers? Answered by `TunnelState` or `OrderFailed`."""

    serial: Number


class AskDropped(Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True):
    """What have the firewalls dropped, and how do the interfaces do? Answered by `DroppedState` or `OrderFailed`."""

    serial: Number


class AskLogin(Struct, frozen=True, array_like=True, tag=15, forbid_unknown_fields=True):
    """Whose login began this process of root's? The gate sees no process but its own. Answered by `Login`, or
    by `OrderFailed` where the process has gone."""

    serial: Number
    pid: Number


class Severing(Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True):
    """These sides are severed, as far as the gate knows: it tells its parts so from their birth. Not answered. A side
    that the launcher has cut off by itself stays without parts until it stands here."""

    sides: Annotated[tuple[Literal["it", "ot"], ...], Meta(max_length=2)]


Order = (
    Prepare
    | OpenListener
    | CloseListener
    | Spawn
    | SpawnJob
    | Kill
    | Notify
    | Finish
    | SetTunnel
    | AskTunnel
    | AskDropped
    | AskLogin
    | Severing
)


# --- launcher to gate -------------------------------------------------------------------------------------------


class Prepared(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The separation stands. `isolation` is its name ("processes", "namespaces")."""

    serial: Number
    isolation: str
    facts: tuple[Fact, ...]


class ListenerOpened(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """The listener's number, and the address and port that it has (port 0 was asked: the one that the kernel chose)."""

    serial: Number
    listener: Number
    address: Address
    port: Port


class Child(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A process that the launcher started. `listeners_at`: the number of the descriptor of the first listener that it
    inherited; the others follow it. `store`, `reads` and `folders` are folders, as the part sees them, `sockets`
    services of the host by name."""

    child: Number
    part: str
    pid: int
    listeners_at: Number = 0
    store: Text = ""
    reads: dict[str, Text] = {}
    folders: dict[str, Text] = {}
    sockets: dict[str, Text] = {}


class Spawned(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The children run. With this message come two descriptors for each, in the children's order, which is that of the
    order's parts: the gate's end to read from it and the gate's end to write to it."""

    serial: Number
    children: tuple[Child, ...]


class OrderFailed(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """An order was not carried out: why, and the way out. `store`: a part's store is not as it must be."""

    serial: Number
    message: Text
    hint: Text = ""
    store: bool = False


class Exited(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """A child has ended: its exit code, or minus the signal's number. `call`: the system call for which the kernel
    ended it, where it says so."""

    child: Number
    status: Annotated[int, Meta(ge=-255, le=255)]
    call: Annotated[str, Meta(max_length=64)] = ""


class Asked(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Somebody signalled the launcher: SIGTERM and SIGINT ask to stop (`times` counts them), SIGHUP to reload, SIGUSR1
    and SIGUSR2 to sever the IT or the OT side, which the launcher has done by ending its parts."""

    what: Literal["stop", "reload", "sever-it", "sever-ot"]
    times: int = 1


class Fenced(Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """Somebody had changed the fence around parts in the host's network, and it was put back (`stands`); or it could
    not be, and such parts were ended. Not asked for."""

    stands: bool
    detail: Text = ""


class TunnelSet(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """The tunnel stands. `kind`: "kernel", or "wireguard-go" with its process in `child` if it was started now."""

    serial: Number
    kind: Literal["kernel", "wireguard-go"]
    interface: str
    child: Child | None = None


class PeerState(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One peer: when it last proved its key (s since 1970; 0: never), bytes by the tunnel, where it sends from."""

    key: Key
    handshake: Number
    received: Annotated[int, Meta(ge=0)]
    sent: Annotated[int, Meta(ge=0)]
    endpoint: Annotated[str, Meta(max_length=128)] = ""


class TunnelState(Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True):
    """The peers that the tunnel has."""

    serial: Number
    peers: tuple[PeerState, ...]


class DroppedCounter(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One counter of a side's firewall, over all its rulesets so far."""

    side: Name
    name: Name
    packets: Annotated[int, Meta(ge=0)]


class Knock(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who asked for a connection and was dropped as nobody's: `times` lately, the last `seconds_ago`."""

    side: Name
    source: Address
    address: Address
    port: Port
    times: Annotated[int, Meta(ge=0)]
    seconds_ago: Number


class Wired(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The interface of a zone: whether it is up and its cable has a link, and how many addresses it has."""

    zone: Name
    interface: Annotated[str, Meta(max_length=15)]
    up: bool
    carrier: bool
    addresses: Number


MOST_KNOCKS: Final = 32
"""Of each side, those that were last."""


class DroppedState(Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True):
    """What the firewalls have dropped, and how the zones' interfaces do; nothing where there are no namespaces."""

    serial: Number
    counters: tuple[DroppedCounter, ...]
    knocks: Annotated[tuple[Knock, ...], Meta(max_length=64 * MOST_KNOCKS)] = ()
    wires: Annotated[tuple[Wired, ...], Meta(max_length=256)] = ()


class Login(Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    """The user who logged in; -1 where no login began the process, or nobody knows."""

    serial: Number
    uid: Annotated[int, Meta(ge=-1, lt=0xFFFFFFFF)]


Report = (
    Prepared
    | ListenerOpened
    | Spawned
    | OrderFailed
    | Exited
    | Asked
    | TunnelSet
    | TunnelState
    | DroppedState
    | Login
    | Fenced
)

ORDERS: RecordCodec[Order] = RecordCodec(Order, limit=MAX_ORDER)
PLANS: RecordCodec[NetworkPlan] = RecordCodec(NetworkPlan, limit=PLAN_BYTES)
REPORTS: RecordCodec[Report] = RecordCodec(Report, limit=MAX_ORDER)
