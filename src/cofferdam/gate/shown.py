"""What is told to those who only look, made once for all of them: the status, the peers, the policy.

Not here: who may ask (commands).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable

import msgspec

from cofferdam.errors import GateError
from cofferdam.gate.gate import Gate
from cofferdam.policy.table import CompiledPolicy

FRESH_SECONDS = 1.0
"""So often the parts are made to report for those who come by a door, and the status is told anew, however many ask: of
thousands of assets it takes a tenth of a second."""
POLICY_BYTES_PER_SECOND = 2 << 20
"""Of policies that one member is told. One of ten thousand rules has about 3 MiB as it is told."""


class Shown:
    """The status, or the peers, as they were told to those who come by a door: what was told a moment ago is new enough
    for all of them, unless somebody has changed something."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._told, self._at, self._changes = msgspec.Raw(), -FRESH_SECONDS, 0
        self._fresh_at = -FRESH_SECONDS

    def forget(self) -> None:
        """Something is about to change, or has."""
        self._at, self._changes = -FRESH_SECONDS, self._changes + 1

    async def of(self, tell: Callable[[bool], Awaitable[object]]) -> msgspec.Raw:
        """One who asks has it told; the others wait for that. The parts have other work than to report (`tell(True)`):
        whatever changes, they do so once in a while."""
        async with self._lock:
            now = time.monotonic()
            if now - self._at < FRESH_SECONDS:
                return self._told
            changes, fresh = self._changes, now - self._fresh_at >= FRESH_SECONDS
            self._fresh_at = now if fresh else self._fresh_at
            told = msgspec.Raw(msgspec.json.encode(await tell(fresh)))
            if changes == self._changes:
                self._told, self._at = told, now
            return told


class ShownPolicy:
    """The policy in force, as the whole line that answers. Megabytes: a member who has had it waits for as long as it
    would have taken at a modest rate, and nobody's answer is a copy."""

    def __init__(self) -> None:
        self._of: tuple[CompiledPolicy | None, str] = (None, "")
        self._line = b""
        self._next: dict[str, float] = {}  # when each may have it again (monotonic seconds)

    def told(self, gate: Gate, member: str | None) -> bytes:
        """`member`: None for root and the gate's user, who do not wait.

        Raises:
            GateError: they have had it a moment ago.
        """
        now = time.monotonic()
        self._next = {one: due for one, due in self._next.items() if due > now}
        due = None if member is None else self._next.get(member)
        if due is not None:
            raise GateError(
                f"{member or 'somebody'} was told the policy a moment ago, of {len(self._line) >> 20} MiB",
                hint=f"wait {due - now:.0f} s, and ask again" if due - now >= 1 else "wait a second, and ask again",
            )
        where = str(gate.policy_path)
        if self._of[0] is not gate.base or self._of[1] != where:
            rows = base64.b64encode(gate.base.to_bytes()).decode()
            result = {"hash": gate.policy_hash, "path": where, "rows": rows}
            self._line = msgspec.json.encode({"ok": True, "result": result}) + b"\n"
            self._of = gate.base, where
        if member is not None:
            self._next[member] = now + len(self._line) / POLICY_BYTES_PER_SECOND
        return self._line
