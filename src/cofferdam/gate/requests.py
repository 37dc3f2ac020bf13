"""What may be asked by the control socket, at which door, and the form of an answer.

Not here: asking (client), doing it (commands).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cofferdam.audit.events import evidence
from cofferdam.evidence.model import Finding
from cofferdam.gate.loading import ANSWER_BYTES
from cofferdam.gate.state import Kind

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=128)]
SideName = Literal["it", "ot"]
Until = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""What the log and the state files can say; a day in 2262."""


class Status(Struct, frozen=True, tag="status", forbid_unknown_fields=True):
    """The present state. `fresh`: have every process report first."""

    fresh: bool = True


class Reload(Struct, frozen=True, tag="reload", forbid_unknown_fields=True):
    """Take a policy: an absolute path, or "" for the file that is in force. `bytes` of it follow the request, as the
    caller has read it (`loading.handed_over`); 0: the gate reads the file itself."""

    path: Text = ""
    bytes: Annotated[int, Meta(ge=0, le=ANSWER_BYTES)] = 0


class Policy(Struct, frozen=True, tag="policy", forbid_unknown_fields=True):
    """The policy in force: its hash, its file, its rows (base64 of msgpack)."""


class Down(Struct, frozen=True, tag="down", forbid_unknown_fields=True):
    """Stop in order."""


class Sever(Struct, frozen=True, tag="sever", forbid_unknown_fields=True):
    """Cut a side off. `until_ns` (UTC): when it ends by itself, 0 for never."""

    side: SideName
    reason: Text = ""
    until_ns: Until = 0


class SeverPart(Struct, frozen=True, tag="sever-part", forbid_unknown_fields=True):
    """Cut off less than a side. `until_ns` (UTC): when it ends by itself, 0 for never."""

    kind: Kind
    name: Name
    reason: Text = ""
    until_ns: Until = 0


class RestorePart(Struct, frozen=True, tag="restore-part", forbid_unknown_fields=True):
    """Let it work again."""

    kind: Kind
    name: Name
    reason: Text = ""


class EndSession(Struct, frozen=True, tag="end-session", forbid_unknown_fields=True):
    """End one session; its client may come again."""

    session: Name
    reason: Text = ""


class AskGrant(Struct, frozen=True, tag="ask-grant", forbid_unknown_fields=True):
    """Ask for a conduit that is shut unless it is granted."""

    conduit: Name
    lasts: Annotated[int, Meta(ge=1, le=30 * 86_400)]
    reason: Text


class AgreeGrant(Struct, frozen=True, tag="agree-grant", forbid_unknown_fields=True):
    """A second person agrees."""

    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class EndGrant(Struct, frozen=True, tag="end-grant", forbid_unknown_fields=True):
    """A grant, or what was asked for, is over."""

    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Restore(Struct, frozen=True, tag="restore", forbid_unknown_fields=True):
    """Let a side work again."""

    side: SideName
    reason: Text = ""


class Proof(Struct, frozen=True, tag="proof", forbid_unknown_fields=True):
    """The separation was put to the proof: the report's hash, and what came out."""

    report: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    result: Literal["proved", "failed"]
    detail: Text = ""


class Leak(Struct, frozen=True, forbid_unknown_fields=True):
    """An asset that answers on the IT side without a broker."""

    asset: Annotated[str, Meta(max_length=128)]
    detail: Text


class Leaks(Struct, frozen=True, tag="leaks", forbid_unknown_fields=True):
    """A proof has tried these assets, and found these."""

    tried: Annotated[tuple[Annotated[str, Meta(max_length=128)], ...], Meta(max_length=100_000)]
    found: Annotated[tuple[Leak, ...], Meta(max_length=1000)] = ()


class AddPeer(Struct, frozen=True, tag="add-peer", forbid_unknown_fields=True):
    """Let an overlay peer in, by its public key."""

    name: Text
    key: Text


class RevokePeer(Struct, frozen=True, tag="revoke-peer", forbid_unknown_fields=True):
    """Shut an overlay peer out."""

    name: Text


class Peers(Struct, frozen=True, tag="peers", forbid_unknown_fields=True):
    """The overlay peers, and when each was last heard."""


class Findings(Struct, frozen=True, tag="findings", forbid_unknown_fields=True):
    """What checks found that the gate cannot run itself: recorded where it is new, an alarm where it failed."""

    found: Annotated[tuple[Finding, ...], Meta(max_length=500)]


class Clocks(Struct, frozen=True, tag="clocks", forbid_unknown_fields=True):
    """The standing duties that are due soon or overdue, each with a sentence: alarms. All others are in time."""

    due: Annotated[dict[Name, Text], Meta(max_length=64)]


class Night(Struct, frozen=True, tag="night", forbid_unknown_fields=True):
    """Do now what is done each night: have the gate proved, and tried."""


class Record(Struct, frozen=True, tag="record", forbid_unknown_fields=True):
    """An event of the evidence that has happened: a signature, a pack, a drill. Who and when is the gate's to say."""

    event: evidence.Told


class AskPart(Struct, frozen=True, tag="ask-part", forbid_unknown_fields=True):
    """A verb of a broker, for one part of its crew of this name, or of all its crews."""

    broker: Name
    part: Name
    verb: Name
    arguments: dict[str, Any] = {}
    crew: Name = ""


class PingAsset(Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    """Does the asset answer, and how long does each half take? One read that the policy allows somebody."""

    asset: Name


Request = (
    Status
    | PingAsset
    | Reload
    | Policy
    | Down
    | Sever
    | Restore
    | SeverPart
    | RestorePart
    | EndSession
    | AskGrant
    | AgreeGrant
    | EndGrant
    | Proof
    | Leaks
    | AddPeer
    | RevokePeer
    | Peers
    | Findings
    | Night
    | Clocks
    | Record
    | AskPart
)


LOOK = (Status, PingAsset, Policy, Peers)
MAY: dict[str, tuple[type, ...]] = {"look": LOOK, "sever": (*LOOK, Sever, SeverPart, EndSession)}
"""What may be asked at each door. To let work again what was severed is nobody's but root's and the gate's user's."""


class Answer(Struct, frozen=True):
    """`result` if `ok`; else what is wrong, the way out, and for a policy each finding."""

    ok: bool
    result: Any = None
    error: str = ""
    hint: str = ""
    problems: tuple[str, ...] = ()
