"""The installer's own copies of released files, each checked while it is copied: what is sent is what was signed,
whatever the keeper does meanwhile.

Not here: whose signatures count (trust), what is done with them (installer).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.http.doors import HttpPart
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.records import Release
from cofferdam.brokers.patch.synced import Synced
from cofferdam.brokers.patch.trust import NotBelieved, Trust

PIECE: Final = 1 << 20
AGAIN_SECONDS: Final = 60.0
"""How soon a file that could not be had is asked for again."""


class Copying(HttpPart):
    """An installer, as far as its copies go."""

    _files: Path
    _offered: Path
    """The keeper's tree, bound read-only."""
    _trust: Trust | None
    _why: str
    """Why what the keeper offers is not believed, "" if it is."""
    _lacking: dict[str, tuple[float, str]]
    """Files that cannot be had, by hash: until when nobody asks again, and why."""
    _copying: dict[str, asyncio.Task[Path]]
    _sha1: dict[str, str]

    def tell_keeper(self, trust: Trust) -> None:
        why = self._why or next((why for _, why in self._lacking.values()), "")
        self.setting.senders["keeper"].send(records.Looked(trust.version, clip(why)))

    def file_of(self, release: Release) -> Path:
        """Our own copy, once it was taken."""
        return self._files / release.sha256

    def lacks(self, release: Release) -> str:
        """Why a file cannot be had now, "" if it may be asked for."""
        until, why = self._lacking.get(release.sha256, (0.0, ""))
        return why if self.loop.time() < until else ""

    async def take_copy(self, release: Release) -> Path:
        """A released file in our own store, checked while it is copied, by one at a time. Raises: NotBelieved."""
        own = self._files / release.sha256
        if own.is_file() and own.stat().st_size == release.size:
            return own
        if why := self.lacks(release):
            raise NotBelieved(why)
        task = self._copying.get(release.sha256)
        if task is None:
            task = self.loop.create_task(self._copy(release, own))
            self._copying[release.sha256] = task
            task.add_done_callback(lambda done: self._copied(release, done))
        return await asyncio.shield(task)

    def _copied(self, release: Release, done: asyncio.Task[Path]) -> None:
        self._copying.pop(release.sha256, None)
        error = None if done.cancelled() else done.exception()
        if error is None:
            if self._lacking.pop(release.sha256, None) is not None and self._trust is not None:
                self.tell_keeper(self._trust)
            return
        told = self._lacking.get(release.sha256, (0.0, ""))[1]
        self._lacking[release.sha256] = (self.loop.time() + AGAIN_SECONDS, str(error))
        if str(error) != told:
            self.setting.audit.note(events.ReleasesNotBelieved(wall_ns=self.setting.wall(), detail=clip(str(error))))
            if self._trust is not None:
                self.tell_keeper(self._trust)

    async def _copy(self, release: Release, own: Path) -> Path:
        custom = release.custom
        source = self._offered / "targets" / custom.product / custom.version / f"{release.sha256}.{custom.file}"
        fresh = own.with_suffix(".new")
        digest, size = hashlib.sha256(), 0
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as opened, Synced(fresh.open("wb")) as out:
                while piece := opened.read(PIECE):
                    size += len(piece)
                    if size > release.size:
                        break
                    digest.update(piece)
                    out.write(piece)
                    await asyncio.sleep(0)
                out.sync()
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise NotBelieved(f"{release.path} cannot be had: {error.strerror or error}") from None
        if size != release.size or digest.hexdigest() != release.sha256:
            fresh.unlink(missing_ok=True)
            raise NotBelieved(f"{release.path} is not the file that people signed")
        fresh.rename(own)
        return own

    async def sha1_of(self, release: Release) -> str:
        """Of our own copy, reckoned once, in pieces between other work."""
        if release.sha256 not in self._sha1:
            digest = hashlib.sha1(usedforsecurity=False)
            with self.file_of(release).open("rb") as opened:
                while piece := opened.read(PIECE):
                    digest.update(piece)
                    await asyncio.sleep(0)
            self._sha1[release.sha256] = digest.hexdigest()
        return self._sha1[release.sha256]
