"""A side is cut off and restored: in force, on disk, in the log, in the order in which each matters.

Not here: what is less than a side, and grants (hands); the file (state); what parts do (crew).
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Collection

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import Restored, Severed
from cofferdam.enforce.orders import Severing
from cofferdam.errors import GateError
from cofferdam.gate import state
from cofferdam.gate.audit import GateAudit, now_ns
from cofferdam.gate.context import Options
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.crew.launcher import LauncherLink
from cofferdam.gate.log import Log
from cofferdam.gate.watch import report

TAKE_SECONDS = 5.0
"""For a part to take a new policy or a severed side; one that does not is ended."""
RECORD_SECONDS = 2.0
"""How long a command waits for its entry to be on disk."""
COUNT_SECONDS = 0.05
"""Before a side is severed, for the number of its sessions; cutting off matters more."""
NOT_DURABLE = "severed-not-durable"
"""The alarm while a side is severed and a restart would undo it."""
SAVE_AGAIN_SECONDS = 2.0
SEVER_SECONDS = 0.2
"""For a part to take that a side is severed; one that does not is ended."""


class Sides(abc.ABC):
    """The gate as far as its sides are cut off."""

    options: Options
    launcher: LauncherLink
    audit: GateAudit
    log: Log
    crews: dict[str, Crew]
    leaving: set[Crew]
    alarms: dict[str, report.AlarmReport]
    cutting: asyncio.Lock
    cuts: state.Severed
    severed: tuple[str, ...]

    @abc.abstractmethod
    def alarm(self, name: str, detail: str, way: str = "") -> None:
        """Raises an alarm; clears it if `detail` is empty. `way`: the way out, if it is not that of all of its name."""

    @abc.abstractmethod
    async def reports(self, seconds: float = 1.0) -> None:
        """Has every process report; waits at most so long for it."""

    def take_severed(self, cuts: state.Severed) -> None:
        self.cuts, self.severed = cuts, cuts.sides

    async def sever(self, side: str, by: str, reason: str, until_ns: int = 0) -> int:
        """Cuts a side off: in force, then durable, then recorded. Returns how many sessions it had.

        In force comes first: whoever severs has a reason to do it now, and a full disk must not stand in the way.
        `until_ns`: when it ends by itself; of two that sever one side the later end counts, and none is the latest.

        Raises:
            GateError: it is in force and cannot be made durable: a restart would undo it. It is tried again.
        """
        async with self.cutting:
            await self.reports(COUNT_SECONDS)
            sessions = report.open_sessions(list(self.crews.values()))
            fresh = side not in self.severed
            self.take_severed(state.with_cut(self.cuts, state.Cut(side, now_ns(), by, reason, until_ns)))  # type: ignore[arg-type]
            await self._tell_severed((side,) if fresh else ())
            trouble = self._save_severed()
            self.log.warning("severed", side=side, by=by, reason=reason, sessions=sessions)
            entry = Severed(
                side=side, by=clip(by, 128), sessions=sessions, reason=clip(reason), until_ns=until_ns, wall_ns=now_ns()
            )
            await self.audit.record(entry, RECORD_SECONDS if self.audit.writable else 0)
            if trouble is not None:
                raise GateError(
                    f"the {side} side is severed, but would not be after a restart: {trouble}", hint=trouble.hint
                )
            return sessions

    def _save_severed(self) -> GateError | None:
        """Makes the severed sides durable; if that fails raises an alarm, tries again later, and says why."""
        try:
            state.save_severed(self.options.state, self.cuts)
        except GateError as error:
            self.alarm(NOT_DURABLE, str(error))
            asyncio.get_running_loop().call_later(SAVE_AGAIN_SECONDS, self._save_again)
            return error
        self.alarm(NOT_DURABLE, "")
        return None

    def _save_again(self) -> None:
        if NOT_DURABLE in self.alarms:
            self._save_severed()

    async def restore(self, side: str, by: str, over_ns: int = 0, reason: str = "") -> bool:
        """Lets a side work again: durable, recorded, in force. False if it was not severed. `over_ns` above 0: only if
        its end was before that.

        Raises:
            GateError: it cannot be made durable; the side stays cut off.
        """
        async with self.cutting:
            if side not in self.severed or (over_ns and side not in self.cuts.over(over_ns)):
                return False
            left = tuple(cut for cut in self.cuts.cuts if cut.side != side)
            cuts = state.Severed(left, "", self.cuts.untold)
            state.save_severed(self.options.state, cuts)
            self.alarm(NOT_DURABLE, "")
            entry = Restored(side=side, by=clip(by, 128), reason=clip(reason), wall_ns=now_ns())
            await self.audit.record(entry, RECORD_SECONDS)
            self.take_severed(cuts)
            self.alarm("severed-state-damaged", "")
            await self._tell_severed()
            self.log.warning("restored", side=side, by=by)
            return True

    async def _tell_severed(self, fresh: Collection[str] = ()) -> None:
        self.launcher.notify(Severing(self.severed))  # type: ignore[arg-type]
        for crew in self.leaving:
            crew.kill()
        seconds = SEVER_SECONDS if fresh else TAKE_SECONDS
        await asyncio.gather(*(crew.take_severed(seconds, fresh) for crew in self.crews.values()))

    async def tell_untold(self) -> None:
        """What was cut off while no gate answered has its entry now; where that cannot be, in the next life."""
        for cut in self.cuts.cuts:
            if cut.side in self.cuts.untold:
                entry = Severed(
                    side=cut.side, by=clip(cut.by, 128), sessions=0, reason=clip(cut.reason), until_ns=cut.until_ns,
                    wall_ns=cut.since_ns,
                )  # fmt: skip
                if await self.audit.record(entry, RECORD_SECONDS):
                    left = tuple(side for side in self.cuts.untold if side != cut.side)
                    self.cuts = state.Severed(self.cuts.cuts, self.cuts.damage, left)
        self._save_severed()

    async def severed_by_launcher(self, side: str) -> None:
        """The launcher has ended a side's parts, by a signal: it is severed, as if somebody had asked the gate."""
        try:
            await self.sever(side, "a signal", "cut off by the launcher")
        except GateError as error:
            self.log.error("severed-not-durable", side=side, reason=str(error))
