"""The inner part's way to files that the archivist holds, while they wait for their scan.

Not here: the archivist's side (quarantine), what may be done with files (inner_files).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from cofferdam.brokers.jump import file_records, records

STRETCHES: Final = 8
STRETCH: Final = records.FILE_PIECE // STRETCHES
"""Bytes under one digest; so many of them come in one record."""
DIGEST_BYTES: Final = 16
"""Of SHA-256: whoever would have another stretch pass has to hit one that was chosen by nobody."""
PATH_MOST: Final = 4_096
"""Letters of a path that the keeper is told."""


class No(Exception):
    """It may not be done."""


class Judgement(NamedTuple):
    """`reason`: why it does not pass, "" where it does; `kept`: its name in quarantine then; `scan`: why it passes."""

    reason: str = ""
    kept: str = ""
    scan: str = ""


class Pieces:
    """What a file held when it went into quarantine: a digest of each stretch, so that nothing else comes out of it.
    One over the whole would tell once the last byte is out."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.size = 0
        self._digests: list[bytes] = []
        self._last = b""
        self._wrong = False

    def add(self, data: bytes) -> None:
        """Its next bytes."""
        self.size += len(data)
        data = self._last + data
        end = len(data) - len(data) % STRETCH
        self._digests += [_digest(data[at : at + STRETCH]) for at in range(0, end, STRETCH)]
        self._last = data[end:]

    def start(self, offset: int) -> int:
        """Where the stretch begins in which this is."""
        return offset - offset % STRETCH

    def check(self, start: int, data: bytes) -> None:
        """`data`: what came out from the start of a stretch on. Raises: No: it is not what went in, now or before."""
        first = start // STRETCH
        wanted = self._digests[first : first + STRETCHES]
        if self._last and len(wanted) < STRETCHES:
            wanted.append(_digest(self._last))
        found = [_digest(data[at : at + STRETCH]) for at in range(0, len(data), STRETCH)]
        self._wrong |= found != wanted
        if self._wrong:
            raise No(f"{self.path}: what was kept apart is not what came")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


class Quarantine:
    """The inner part's way to files that the archivist holds."""

    def __init__(self, send: Callable[[Any], None], to_keeper: Callable[[Any], None]) -> None:
        self._send, self._to_keeper = send, to_keeper
        self._last = 0
        self._held = 0
        self._waiting: dict[tuple[int, str], list[asyncio.Future[Any]]] = {}
        self._unclean: dict[int, file_records.Unclean] = {}
        self._is_away = False

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

    async def ask(self, record: Any, kind: str, send: Callable[[Any], None] | None = None) -> Any:
        """Sends a record, and waits for the answer of this kind about its file: they come in order."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((record.file, kind), []).append(future)
        (send or self._send)(record)
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

    async def judge(
        self, number: int, session: int, way: Literal["up", "down"], path: str, size: int, sha256: str
    ) -> Judgement:
        """Has a file that is whole looked through. What the scanner could not see all of passes where somebody has
        released it (keeper); what does not pass stays in quarantine, where there is room for it."""
        judged: records.Judged = await self.ask(records.Judge(number), "Judged")
        if judged.verdict == "clean":
            return Judgement(scan="clean")
        asked = file_records.Unclean(
            session, number, way, path[:PATH_MOST], size, sha256, judged.verdict, judged.partly, judged.detail,
            judged.name,
        )  # fmt: skip
        told = await self._cleared(asked)
        if told.by and judged.verdict == "not scanned" and judged.partly:
            return Judgement(scan=f"released by {told.by}")
        self.let(number, bool(judged.name))
        if judged.verdict == "found":
            return Judgement(f"the scanner finds {judged.detail}", judged.name)
        waits = f"; file {told.number} waits for somebody else to release it" if told.number else ""
        return Judgement(f"it was not scanned: {judged.detail}{waits}", judged.name)

    async def _cleared(self, asked: file_records.Unclean) -> file_records.Cleared:
        """What the keeper says of it. One that is away releases nothing, and hears of it when it comes again."""
        self._unclean[asked.file] = asked
        if len(self._unclean) > records.HELD_MOST:
            del self._unclean[next(iter(self._unclean))]
        told: file_records.Cleared = file_records.Cleared(asked.file, "", 0)
        if not self._is_away:
            told = await self.ask(asked, "Cleared", self._to_keeper)
        if not self._is_away:
            self._unclean.pop(asked.file, None)
        return told

    def away(self) -> None:
        """The keeper has ended."""
        self._is_away = True
        for file, kind in list(self._waiting):
            while kind == "Cleared" and (file, kind) in self._waiting:
                self.on_record(file_records.Cleared(file, "", 0))

    def anew(self) -> None:
        """Another has come."""
        self._is_away = False
        asked, self._unclean = self._unclean, {}
        for one in asked.values():
            self._to_keeper(one)

    async def add(self, number: int, data: bytes) -> None:
        """Its next bytes. Raises: No."""
        held: records.Held = await self.ask(records.HoldPiece(number, data), "Held")
        if held.trouble:
            raise No(f"it cannot be kept apart: {held.trouble}")

    async def piece(self, number: int, offset: int) -> bytes:
        """Its bytes from here on, as many as go into one record; none: there are no more."""
        given: records.Given = await self.ask(records.Give(number, offset), "Given")
        return given.data

    async def read(self, number: int, pieces: Pieces, offset: int, count: int) -> bytes:
        """Some of its bytes from here on, which are what went in. Raises: No: they are not, and it has no others."""
        if offset >= pieces.size:
            return b""
        start = pieces.start(offset)
        data = await self.piece(number, start)
        pieces.check(start, data)
        return data[offset - start :][:count]
