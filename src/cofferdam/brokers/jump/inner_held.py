"""The inner part's way to files that the archivist holds, while they wait for their scan.

Not here: the archivist's side (quarantine), what may be done with files (inner_files).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.jump import records


class No(Exception):
    """It may not be done."""


class Quarantine:
    """The inner part's way to files that the archivist holds."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._last = 0
        self._held = 0
        self._waiting: dict[tuple[int, str], list[asyncio.Future[Any]]] = {}

    def new(self, person: str) -> int:
        """Raises: No: there are too many."""
        if self._held >= records.HELD_MOST:
            raise No("too many files wait for their scan")
        self._held += 1
        self._last += 1
        self._send(records.Hold(self._last, person))
        return self._last

    def let(self, number: int, keep: bool) -> None:
        """It is not needed any more."""
        self._held -= 1
        self._send(records.Let(number, keep))

    async def ask(self, record: Any, kind: str) -> Any:
        """Sends a record, and waits for the answer of this kind about its file: they come in order."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((record.file, kind), []).append(future)
        self._send(record)
        return await future

    def on_record(self, record: Any) -> None:
        key = (record.file, type(record).__name__)
        queue = self._waiting.get(key)
        if queue:
            future = queue.pop(0)
            if not future.done():
                future.set_result(record)
            if not queue:
                del self._waiting[key]

    async def judge(self, number: int) -> tuple[str, str]:
        """Has a file that is whole looked through: ("", "") if nothing was found, else why it does not pass, and its
        name in quarantine, where it stays ("": there is no room for it)."""
        judged: records.Judged = await self.ask(records.Judge(number), "Judged")
        if judged.verdict == "clean":
            return "", ""
        self.let(number, bool(judged.name))
        found = judged.verdict == "found"
        return f"the scanner finds {judged.detail}" if found else f"it was not scanned: {judged.detail}", judged.name

    async def add(self, number: int, data: bytes) -> None:
        """Its next bytes. Raises: No."""
        held: records.Held = await self.ask(records.HoldPiece(number, data), "Held")
        if held.trouble:
            raise No(f"it cannot be kept apart: {held.trouble}")

    async def piece(self, number: int, offset: int) -> bytes:
        """Its bytes from here on, as many as go into one record; none: there are no more."""
        given: records.Given = await self.ask(records.Give(number, offset), "Given")
        return given.data
