"""The records between the gate and a half: what the gate tells a half, and what a half reports.

They travel over pipes of the same kind as a crossing, decoded as strictly: a broken half can lie in its report,
but cannot make the gate do more than show the lie. A half never receives a file path, a key or a descriptor here.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Listener(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One listening socket that the half inherited: its descriptor and the address it is bound to."""

    fd: int
    address: Name
    port: int


# --- gate to half -----------------------------------------------------------------------------------------------


class Configure(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The first record to a half. `policy` is CompiledPolicy.to_bytes(); `boot` makes session ids unique."""

    pair: Name
    broker: Name
    source_zones: tuple[Name, ...]
    target_zone: Name
    boot: Name
    policy: bytes
    severed: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    assets: tuple[str, ...] = ()
    again: bool = False
    """The pair ran before and ended: what its predecessor wrote in the last minute is not known."""


class NewPolicy(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Judge by this policy from now on; end the sessions that it does not allow. Answered by PolicyTaken."""

    policy: bytes
    listeners: tuple[Listener, ...] = ()
    assets: tuple[str, ...] = ()


class SetSevered(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The sides ("it", "ot") that are cut off from now on. A half of such a side ends its sessions."""

    sides: tuple[str, ...]


class EndSessions(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """End these sessions (by id), with a reason for the audit log."""

    sessions: tuple[str, ...]
    reason: Text


class Report(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Send a HalfStatus now. (A half also sends one a second.)"""


class Stop(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Take no new work, finish what is under way for at most `seconds`, then exit with code 0."""

    seconds: float


ToHalf = Configure | NewPolicy | SetSevered | EndSessions | Report | Stop


# --- half to gate -----------------------------------------------------------------------------------------------


class Ready(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """The half is configured and takes work. `facts` says which separation it has put itself under:
    (name, in force, detail), e.g. ("seccomp", True, "41 rules")."""

    pid: int
    policy: Name
    facts: tuple[tuple[Name, bool, Text], ...] = ()


class SessionStatus(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One client session, as the outer half sees it. Times: UTC ns."""

    session: Name
    asset: Name
    source: Name
    port: int
    principals: tuple[Name, ...]
    since: Count
    requests: Count
    refused: Count
    last: Count


class FlowStatus(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Counters of one conduit since the half started. Durations (ns): `added` is what the gate added between the
    client's request and its answer, without the asset's own time and without waiting for a free place at the asset;
    `waited` is that waiting; `device` is the asset's own time."""

    conduit: Name
    reads: Count
    writes: Count
    refused: Count
    failed: Count
    shared: Count
    added: dict[int, Count]
    added_sum: Count
    added_max: Count
    waited: dict[int, Count]
    waited_sum: Count
    waited_max: Count
    device: dict[int, Count]
    device_sum: Count
    device_max: Count


class AssetStatus(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device, as the inner half sees it. `state`: idle, connecting, up, backing-off."""

    asset: Name
    state: Name
    connections: Count
    queued: Count
    in_flight: Count
    requests: Count
    failures: Count
    late: Count
    detail: Text = ""


class HalfStatus(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """What a half is doing. Counters run since its start; `limits` counts each limit that was hit, by name;
    `faults` counts refusals by model.Fault."""

    pair: Name
    role: Name  # outer or inner
    policy: Name
    severed: tuple[Name, ...]
    sessions: tuple[SessionStatus, ...]
    flows: tuple[FlowStatus, ...]
    assets: tuple[AssetStatus, ...]
    limits: dict[Name, Count]
    faults: dict[Name, Count]
    malformed: Count
    backlog: Count


class PolicyTaken(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """The half judges by the policy of this hash now; `ended` sessions were not allowed by it."""

    policy: Name
    ended: Count


class Failing(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """The half is about to exit because of this."""

    reason: Text


FromHalf = Ready | HalfStatus | PolicyTaken | Failing
