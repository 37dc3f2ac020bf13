"""The installer's book and what the log is told of each step: what the log has the start of, it has the end of. A start
stands in the book until the log has its end on disk, if need be after a crash.

Not here: which steps there are, and what they do (installer).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from msgspec.structs import replace

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.figures import Figures
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.copying import Copying
from cofferdam.brokers.patch.plan import Held, State, Step
from cofferdam.errors import StoreError

NOT_BEGUN: Final = "not begun after all"


class Booking(Copying):
    """An installer, as far as its book and the log go."""

    steps: Table[Step]
    figures_: Figures
    _held: Table[Held]
    _open: Table[Step]
    """What the log may have the start of, and not the end, by its step's key."""
    _untold: list[tuple[str, Draft]]
    """Ends that the log would not take so far."""
    _unwritten: set[str]
    """Steps that the book would not take so far."""
    _full: str
    """Why the book cannot be written, "" if it can. Meanwhile nothing begins."""

    @property
    def held(self) -> Held:
        return self._held.get("0") or Held()

    async def _record(self, draft: Draft) -> str:
        """ "" once it is on disk, or why it is not."""
        done: asyncio.Future[str] = self.loop.create_future()
        self.setting.audit.record(draft, lambda ok, why: done.set_result("" if ok else why or "not recorded"))
        return await done

    def _started(self, step: Step, how: str, ring: str, *, back: bool = False, emergency: bool = False) -> Draft:
        return events.InstallStarted(
            wall_ns=self.setting.wall(), asset=step.asset, product=step.product, version=step.version,
            number=step.release, sha256=step.sha256, way=how, ring=ring, back=back, emergency=emergency,
        )  # fmt: skip

    def _ended(self, step: Step, state: str, detail: str) -> Draft:
        told: Any = state
        return events.InstallEnded(
            wall_ns=self.setting.wall(), asset=step.asset, product=step.product, version=step.version,
            number=step.release, sha256=step.sha256, state=told, detail=clip(detail),
        )  # fmt: skip

    def settle(self, step: Step, state: State, detail: str = "") -> Step:
        fresh = replace(step, state=state, at=self.setting.wall(), detail=detail[:500])
        if not self._put(fresh):
            self.steps.rows[step.key] = fresh  # on disk it is still under way: after a restart, unknown
            self._unwritten.add(step.key)
        if state in ("failed", "unknown"):
            self.figures_.add("patch_installs_failed", 1, step.asset)
        if state not in ("sending", "backing", "again"):
            self._tell_end(step.key, self._ended(fresh, state, detail))
        return fresh

    async def _open_step(self, step: Step, draft: Draft) -> str:
        """Records a start, of which the book says first that it may have been recorded. "" or why it is not."""
        if not self._put(step, self._open):
            return self._full
        if why := await self._record(draft):
            self._close_step(step)
            return f"nothing can be recorded: {why}"
        return ""

    def _close_step(self, opened: Step | None) -> None:
        if opened is not None and self._open.get(opened.key) is opened:  # and not one that was begun since
            with contextlib.suppress(StoreError):  # its end is told once more then
                self._open.drop(opened.key)

    def _tell_end(self, key: str, draft: Draft) -> None:
        """Has the log told what became of a step; until it has that on disk, it is told again."""
        opened = self._open.get(key)

        def told(ok: bool, _why: str) -> None:
            if ok:
                self._close_step(opened)
            else:
                self._untold.append((key, draft))

        self.setting.audit.record(draft, told)

    def _left_open(self) -> None:
        """Ends that the log may lack, since this part ended before it had told them."""
        for key, opened in self._open.rows.items():
            step = self.steps.get(key)
            if step is None or step.begun != opened.begun:
                why = f"{NOT_BEGUN}: the installer ended before it was"
                self._untold.append((key, self._ended(opened, "failed", why)))
            elif step.state not in ("sending", "backing"):
                state = step.state if step.state != "again" else "failed"
                self._untold.append((key, self._ended(step, state, step.detail)))

    def _put(self, step: Step, table: Table[Step] | None = None) -> bool:
        """Writes a step into the book. Whether it could; if not, nothing begins until it can again."""
        try:
            (table or self.steps).put(step.key, step)
        except StoreError as error:
            self._full = f"the installer's book cannot be written: {error}"
            return False
        return True

    def _try_book(self) -> None:
        self._full = ""
        for key in list(self._unwritten):
            step = self.steps.get(key)
            if step is None or self._put(step):
                self._unwritten.discard(key)
        if not self._full:
            try:
                self.hold(self.held)
            except StoreError as error:
                self._full = f"the installer's book cannot be written: {error}"

    def hold(self, held: Held) -> None:
        """What people have set, on disk. Raises: StoreError."""
        self._held.put("0", held)
