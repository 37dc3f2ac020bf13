"""Files on their way to the keeper, as a part of the outer side hands them over: piece by piece, as the keeper has
room.

Not here: what comes of them (keeper, receiving), where they come from (intake, fetcher).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from cofferdam.brokers.kit.vouch import Vouch, Voucher
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.catalogue import How
from cofferdam.brokers.patch.records import Begin, Chunk, Declined, End, Fetch, GiveUp, Room, Taken, path_of
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CofferdamError, CrossingError

_FETCH: Final = Fetch.__struct_config__.tag


class NoRecord(CofferdamError):
    """Names or sizes that no file may have."""


class Uploads:
    """What is under way to the keeper."""

    def __init__(self, sender: Sender[Any], loop: asyncio.AbstractEventLoop, voucher: Voucher) -> None:
        self._sender = sender
        self._loop = loop
        self._voucher = voucher
        self._last = 0
        self._open: dict[int, Upload] = {}

    def begin(self, who: str, product: str, version: str, file: str, size: int) -> Upload:
        """Somebody uploads a file."""
        upload = self._next(who, "upload", product, version, file)
        self._sender.send(Begin(upload.number, who, product, version, file, size))
        return upload

    def fetch(
        self, source: str, product: str, version: str, file: str, *, size: int = 0, mark: str = "", sha256: str = ""
    ) -> Upload:
        """A source has a file.

        Raises:
            NoRecord: what the source says of it is nothing that may be said to the keeper, which would end the crew.
        """
        fields = [_FETCH, self._last + 1, source, product, version, file, size, mark, sha256]
        try:
            record = msgspec.convert(fields, Fetch)
        except msgspec.ValidationError as error:
            raise NoRecord(f"{file[:80]!r}, as the source has it: {error}") from None
        upload = self._next(source, "fetch", product, version, file)
        self._sender.send(record)
        return upload

    def _next(self, who: str, did: How, product: str, version: str, file: str) -> Upload:
        self._last += 1
        word = functools.partial(self._voucher.say, did, who, path_of(product, version, file))
        upload = self._open[self._last] = Upload(self._last, who, self._sender, self._loop, word)
        return upload

    def end(self, upload: Upload) -> None:
        """It has its answer, or nobody waits for one."""
        if self._open.pop(upload.number, None) is not None and not upload.answered.done():
            self._sender.send(GiveUp(upload.number))

    def on_record(self, record: Any) -> None:
        """Raises: CrossingError."""
        if record.upload > self._last:
            raise CrossingError(f"an answer to upload {record.upload}, which was not begun")
        upload = self._open.get(record.upload)
        if upload is not None:
            upload.take(record)

    def of(self, who: str) -> int:
        """How many of somebody's are under way."""
        return sum(1 for upload in self._open.values() if upload.who == who)

    def __len__(self) -> int:
        return len(self._open)


class Upload:
    """One."""

    def __init__(
        self, number: int, who: str, sender: Sender[Any], loop: asyncio.AbstractEventLoop, word: Callable[[str], Vouch]
    ) -> None:
        """`word`: ours for a hash, that whoever it is brought it."""
        self._word = word
        self.number = number
        self.who = who
        self._sender = sender
        self._loop = loop
        self._room = 0
        self._waits: asyncio.Future[None] | None = None
        self.answered: asyncio.Future[Taken | Declined] = loop.create_future()

    def take(self, record: Room | Taken | Declined) -> None:
        if isinstance(record, Room):
            self._room += record.more
        elif not self.answered.done():
            self.answered.set_result(record)
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    async def ready(self) -> bool:
        """Waits until the keeper has room for more. False: it was declined."""
        while not self._room and not self.answered.done():
            self._waits = self._loop.create_future()
            await self._waits
        return not self.answered.done()

    async def send(self, data: bytes) -> bool:
        """Sends when the keeper has room. False: it was declined."""
        while data:
            if not await self.ready():
                return False
            piece = data[: min(self._room, records.CHUNK_BYTES)]
            data = data[len(piece) :]
            self._room -= len(piece)
            self._sender.send(Chunk(self.number, piece))
        return True

    async def finish(self, sha256: str) -> Taken | Declined:
        if not self.answered.done():
            self._sender.send(End(self.number, sha256, self._word(sha256)))
        return await self.answered
