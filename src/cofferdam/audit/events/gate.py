"""Events of the gate itself: its life, its policy, severed sides, its processes, alarms."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cofferdam.audit.events.base import (
    Count,
    Event,
    Hash,
    Name,
    Text,
    WallNs,
)
from cofferdam.audit.events.lines import Line, Said, many


class GateStarted(Event, frozen=True, kw_only=True):
    """The gate runs. `separation` is what keeps the halves apart, in force now ("processes", "namespaces", ...)."""

    version: Name
    separation: Name = ""
    host: Name = ""
    pid: Count = 0


class GateStopped(Event, frozen=True, kw_only=True):
    """The gate stops in an orderly way. A start without a stop before it means that it was killed or crashed."""

    reason: Text


class PolicyLoaded(Event, frozen=True, kw_only=True):
    """`policy` is in force from here on; `previous` was ("" at start). `files` are those it was read from."""

    policy: Hash
    previous: Hash = ""
    files: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()


class PolicyRefused(Event, frozen=True, kw_only=True):
    """A new policy did not load; the old one stays in force. `problem` is the first finding."""

    problem: Text
    problems: Count = 1


class Severed(Event, frozen=True, kw_only=True):
    """All sessions of one side were ended and new ones are refused. `by` is who asked (user name or address)."""

    side: Name
    by: Name = ""
    sessions: Count = 0
    what: Name = ""
    """Where it is less than a side (then ""): zone, conduit, principal, asset or session, and its name."""
    name: Name = ""
    reason: Text = ""
    until_ns: WallNs = 0
    """When it ends by itself (UTC); 0: it does not."""


class Restored(Event, frozen=True, kw_only=True):
    """A severed side works again; or what was less than a side, as in `severed`."""

    side: Name
    by: Name = ""
    what: Name = ""
    name: Name = ""
    reason: Text = ""


class GrantAsked(Event, frozen=True, kw_only=True):
    """Somebody asks for a conduit that is shut unless it is granted. Nothing opens yet."""

    number: Count
    conduit: Name
    by: Name
    reason: Text
    seconds: Count


class GrantAgreed(Event, frozen=True, kw_only=True):
    """A second person has agreed: the conduit is open from now until `until_ns` (UTC)."""

    number: Count
    conduit: Name
    by: Name
    asked_by: Name
    until_ns: WallNs


class GrantEnded(Event, frozen=True, kw_only=True):
    """A grant is over, by its time or by somebody's hand."""

    number: Count
    conduit: Name
    by: Name


class HalfStarted(Event, frozen=True, kw_only=True):
    """A half has come up. `half` is its name, such as "modbus/enterprise-control/inner"."""

    half: Name
    pid: Count


class HalfDied(Event, frozen=True, kw_only=True):
    """A half has ended: `status` is its exit code, or minus the signal's number. `expected` if the gate ended it.
    `reason`: why, as far as it said so itself or the kernel does."""

    half: Name
    pid: Count
    status: Annotated[int, Meta(ge=-255, le=255)]
    expected: bool = False
    restarts: Count = 0
    reason: Text = ""


class RecordViolation(Event, frozen=True, kw_only=True):
    """The other half sent what is no valid record. `half` is the one that sent it."""

    half: Name
    detail: Text


class CommandFailed(Event, frozen=True, kw_only=True):
    """An operator's command met an error that nobody had thought of. It cost that command; the gate goes on."""

    command: Name
    by: Name = ""
    reason: Text = ""


class Alarm(Event, frozen=True, kw_only=True):
    """Something needs a person. `cleared` when it is over. `name` is stable ("log-unwritable")."""

    name: Name
    detail: Text
    cleared: bool = False


class AssetPinged(Event, frozen=True, kw_only=True):
    """Somebody at the gate asks whether an asset answers: one read that the policy allows some client anyway is about
    to leave, and its value is shown to nobody."""

    asset: Name
    by: Name = ""


Draft = (
    GateStarted
    | GateStopped
    | PolicyLoaded
    | PolicyRefused
    | Severed
    | Restored
    | HalfStarted
    | HalfDied
    | RecordViolation
    | Alarm
    | CommandFailed
    | AssetPinged
    | GrantAsked
    | GrantAgreed
    | GrantEnded
)
GATE: tuple[type[Event], ...] = Draft.__args__
"""What the gate may say: a part that was taken over must not restore a side, load a policy or end another part in the
log."""
PART = (RecordViolation,)
"""What any part of a crew may say."""


def _died(event: Said) -> str:
    status = event.get("status", 0)
    how = f"signal {-status}" if status < 0 else f"exit code {status}"
    asked = ", as asked" if event.get("expected") else ""
    said = event.get("reason")
    reason = f": {said}" if said and said != how else ""
    return f"{event.get('half')} (pid {event.get('pid')}): {how}{asked}{reason}"


def _severed(event: Said) -> str:
    ended = f"{many(event, 'sessions', 'session')} ended"
    return f"{_what(event)} cut off by {event.get('by') or '?'}, {ended}{_why(event)}"


def _why(event: Said) -> str:
    return f": {event.get('reason')}" if event.get("reason") else ""


def _what(event: Said) -> str:
    return str(event.get("side") or f"{event.get('what')} {event.get('name')}")


def _policy_refused(event: Said) -> str:
    of = "" if event.get("problems") == 1 else f" ({event.get('problems')} in all)"
    return f"{event.get('problem')}{of}"


LINES: dict[str, Line] = {
    "grant-asked": lambda e: (
        f"{e.get('number')}: {e.get('conduit')} for {e.get('seconds')} s by {e.get('by')}: {e.get('reason')}"
    ),
    "grant-agreed": lambda e: (
        f"{e.get('number')}: {e.get('conduit')}, asked by {e.get('asked_by')}, agreed by {e.get('by')}"
    ),
    "grant-ended": lambda e: f"{e.get('number')}: {e.get('conduit')}, by {e.get('by')}",
    "gate-started": lambda e: f"Cofferdam {e.get('version')}, separation: {e.get('separation') or 'unknown'}",
    "gate-stopped": lambda e: str(e.get("reason")),
    "policy-loaded": lambda e: f"{str(e.get('policy'))[:16]} from {', '.join(e.get('files', ())) or '?'}",
    "policy-refused": _policy_refused,
    "severed": _severed,
    "restored": lambda e: f"{_what(e)} works again, by {e.get('by') or '?'}{_why(e)}",
    "half-started": lambda e: f"{e.get('half')} (pid {e.get('pid')})",
    "half-died": _died,
    "record-violation": lambda e: f"{e.get('half')}: {e.get('detail')}",
    "command-failed": lambda e: f"{e.get('command')} by {e.get('by') or '?'}: {e.get('reason')}",
    "asset-pinged": lambda e: f"{e.get('asset')} by {e.get('by') or '?'}",
    "alarm": lambda e: f"{e.get('name')}{' is over' if e.get('cleared') else ''}: {e.get('detail')}",
}
