"""What a helper in this room may ask of the gate around it: one type for all of them.

A crew, the name server's supervisor, the leak probe's turns, the drop counters get a `Context`, never the gate: who
needs more than this says so here. What is in force (policy, severed sides, separation) is asked for each time, since
it changes while the gate runs.

Not here: what only the root decides (starting, stopping, taking a policy), which is `gate.gate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cofferdam.audit.entry import Draft
from cofferdam.audit.supervision import PastWrite
from cofferdam.crossing.reactor import Reactor
from cofferdam.enforce.orders import Prepared
from cofferdam.gate.audit import GateAudit
from cofferdam.gate.crew.launcher import LauncherLink
from cofferdam.gate.log import Log
from cofferdam.policy.table import CompiledPolicy


@dataclass(frozen=True)
class Options:
    """What `cofferdam up` was told."""

    policy: Path
    state: Path
    shards: int = 1
    machine: str = ""
    """Which of the policy's machines this is."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Those that lie elsewhere than in the state directory (enforce.credentials)."""


class Context(Protocol):
    """The gate, as its helpers know it."""

    options: Options
    launcher: LauncherLink
    audit: GateAudit
    reactor: Reactor
    """On the gate's loop."""
    log: Log
    boot: str
    """Of this gate alone."""
    births: Iterator[int]
    """Numbers of the lives of crews: with `boot` they make the names of sessions and writes unique in the log."""
    changing: asyncio.Lock
    """Held while the policy and the set of crews change."""
    separation: Prepared
    policy_hash: str
    severed: tuple[str, ...]

    @property
    def policy(self) -> CompiledPolicy:
        """The policy in force. Raises: GateError, before there is one."""

    def note(self, draft: Draft) -> None:
        """Hands the audit log an entry."""

    def alarm(self, name: str, detail: str, way: str = "") -> None:
        """Raises an alarm; clears it if `detail` is empty. `way`: the way out, if it is not that of all of its name."""

    def violation(self, producer: str, detail: str) -> None:
        """The auditor was sent what this producer may not say."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task of the gate; if it fails, the gate ends."""

    async def recent_writes(self, assets: Sequence[str]) -> tuple[PastWrite, ...] | None:
        """The writes of the last minute to these assets, as the log has them; None where nobody can say."""

    async def end_sessions(self, sources: Collection[str], reason: str) -> int:
        """Ends the sessions of all crews that come from these addresses; how many there were."""
