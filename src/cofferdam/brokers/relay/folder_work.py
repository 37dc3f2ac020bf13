"""What is done with the site's folders: files that come in are pushed, messages that go out become files.

In: a file counts once it has stood unchanged for `settle` (one that was renamed in whole needs no more than that). Its
messages are pushed; only when the keeper has each of them for good, or has refused it for good, is the file moved to
`done`, or to `bad` with a `.reason` beside it. If anything ends in between, the file is pushed again, under the same
keys, and the keeper knows them.

Out: a message is written under a name with a dot in front, synced, renamed to CHANNEL-NUMBER.json and the folder
synced; then it is settled. If anything ends in between it comes again, and the file is there already with the same
content. A file there with another content is never overwritten: a person has to look.

Not here: what lies in files (folder_files), which folders there are (folders), working in folders that others work in
as well (kit.folders).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.folders import (
    BAD,
    DONE,
    NAME_BYTES,
    Facts,
    Watched,
    beneath,
    is_there,
    move,
    open_plain,
    opened,
    shown,
    write,
)
from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.folder_files import Found, messages
from cofferdam.brokers.relay.records import (
    ITEMS_MOST,
    Answered,
    Handed,
    Item,
    Message,
    Pull,
    Push,
    Result,
    Settle,
    Verdict,
)
from cofferdam.brokers.relay.ways import LAST_SECONDS, LEASE_SECONDS, WAIT_MS, Trouble, Way, Work, conflict, in_words
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, Folder

POLL_SECONDS: Final = 1.0
"""How often a folder is looked at."""
PUSH_BYTES: Final = 1 << 20
"""Of several messages in one push."""
BATCH: Final = 100
AGAIN_SECONDS: Final = 60
SYNCED_FILES: Final = 20
"""After so many their folders are synced, as they are when no more is there just now."""
REASONS_MOST: Final = 1_000
"""Lines of a `.reason`."""


class FolderWork(Work):
    """One folder, one way."""

    def __init__(self, owner: Way[Any, Any], folder: Folder, who: str, path: Path) -> None:
        super().__init__(owner, folder.zone)
        self.folder = folder
        self.who = who
        self.path = path

    @property
    def name(self) -> str:
        return f"folder-{self.folder.name}"

    def words(self, error: Exception) -> str:
        if isinstance(error, OSError) and error.filename is not None:
            return f"{Path(str(error.filename)).name}: {error.strerror}"
        return super().words(error)


# --- in ---------------------------------------------------------------------------------------------------------


class Inward(FolderWork):
    """Pushes the files of a folder."""

    def __init__(self, owner: Way[Any, Any], folder: Folder, who: str, path: Path) -> None:
        super().__init__(owner, folder, who, path)
        self._watched = Watched(path, folder.name)

    async def session(self) -> None:
        with contextlib.ExitStack() as held:
            here = held.enter_context(opened(self.path))
            done, bad = (held.enter_context(self._beneath(here, name)) for name in (DONE, BAD))
            while True:
                self.check()
                for name, fd in ((DONE, done), (BAD, bad)):
                    if not is_there(here, name, fd):
                        raise Trouble(f"{name} in {self.folder.name} is another one now")
                worked = False
                self.trouble = ""
                ready = await self._watched.ready(here, self.folder.settle)
                self.trouble = self._watched.told()
                for number, name in enumerate(ready, 1):
                    self.check()
                    worked = await self._file(name, here, done, bad) or worked
                    if number % SYNCED_FILES == 0:
                        _sync(here, done, bad)
                if worked:
                    _sync(here, done, bad)
                await self._watched.sweep(done, self.folder.keep_files)
                if not worked:
                    await self.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _beneath(self, here: int, name: str) -> Iterator[int]:
        try:
            fd = beneath(here, name)
        except NotADirectoryError:
            raise Trouble(f"{name} in {self.folder.name} is no folder") from None
        try:
            yield fd
        finally:
            os.close(fd)

    async def _file(self, name: str, here: int, done: int, bad: int) -> bool:
        """Deals with one file; whether it is dealt with."""
        facts, _ = self._watched.seen[name]
        try:
            content = self._read(name, facts, here)
        except PermissionError:  # it waits for a person; the others do not wait for it
            self.trouble = (
                f"{shown(name)} in {self.folder.name} cannot be read: its group is to be the folder's, and to read it"
            )
            return False
        if content is None:
            return False
        reasons: list[str] = []
        try:
            if isinstance(content, Problem):
                self._refuse(reasons, 0, content, shown(name))
            else:
                await self._push_all(name, content, reasons)
        except Refusal as refused:  # paused, full, busy, at the wrong time: the keeper says when to come again
            self.trouble = f"{shown(name)} waits: {refused.problem.detail}"
            await self.sleep(min(max(1, refused.retry), LAST_SECONDS))
            return False
        if not self._move(name, facts, reasons, here, bad if reasons else done):
            return False
        self.owner.counts["folder_files_taken"] += 1
        return True

    def _read(self, name: str, facts: Facts, here: int) -> bytes | Problem | None:
        """A file's content; None if it is another by now. Raises: PermissionError."""
        if len(os.fsencode(name)) > NAME_BYTES or not name.isprintable():
            return Problem("syntax", f"a file's name has at most {NAME_BYTES} bytes, all of them printable")
        fd = open_plain(name, facts, here)
        if fd is None:
            return None
        with os.fdopen(fd, "rb") as file:
            if facts[1] > LARGEST_MESSAGE:
                return Problem("size", f"a file of more than {LARGEST_MESSAGE} bytes")
            return file.read(LARGEST_MESSAGE + 1)

    async def _push_all(self, name: str, content: bytes, reasons: list[str]) -> None:
        for batch in _batches(messages(self.owner.checks, self.folder, name, content)):
            items: list[Item] = []
            lines: list[int] = []
            for line, outcome in batch:
                if outcome.item is not None:
                    items.append(outcome.item)
                    lines.append(line)
                elif outcome.problem is not None:
                    self._refuse(reasons, line, outcome.problem, outcome.key)
            await asyncio.sleep(0)
            if items:
                answered = await self.ask(
                    Answered,
                    lambda number: Push(number, self.who, self.folder.channel, tuple(items)),  # noqa: B023
                )
                for line, item, result in zip(lines, items, answered.results, strict=True):
                    self._result(reasons, line, item, result)

    def _result(self, reasons: list[str], line: int, item: Item, result: Result) -> None:
        if result.state == "stored":
            self.owner.counts["folder_messages_taken"] += 1
            return
        if result.state == "conflict":
            _add(reasons, line, f"{item.key}: {conflict(result)}")
        elif result.state == "refused" and result.retry:
            raise Refusal(result.problem or Problem("busy", "later"), retry=result.retry)
        elif result.problem is not None:
            kept = f" (kept in quarantine as {result.number})" if result.state == "quarantined" else ""
            _add(reasons, line, in_words(result.problem) + kept)

    def _refuse(self, reasons: list[str], line: int, problem: Problem, key: str) -> None:
        _add(reasons, line, in_words(problem))
        self.owner.refused(self.folder.channel, self.who, "", problem, clip(key))

    def _move(self, name: str, facts: Facts, reasons: list[str], here: int, target: int) -> bool:
        """Moves a file that is dealt with. False, if it was another one by then: it is back in its place."""
        self._watched.seen.pop(name, None)
        try:
            return move(name, facts, reasons, here, target, synced=False)
        except FileExistsError:
            raise Trouble(f"there is no free name for {shown(name)} in {self.folder.name}") from None


def _sync(*folders: int) -> None:
    """That files have been moved lasts from now on. Until then a power cut may bring them back: they are known."""
    for folder in folders:
        os.fsync(folder)


def _batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for one in found:
        own = len(one[1].item.body) if one[1].item is not None else 0
        if batch and (len(batch) >= ITEMS_MOST or size + own > PUSH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += own
    if batch:
        yield batch


def _add(reasons: list[str], line: int, words: str) -> None:
    if len(reasons) < REASONS_MOST:
        reasons.append(f"line {line}: {words}" if line else words)
    elif len(reasons) == REASONS_MOST:
        reasons.append("and more")


# --- out --------------------------------------------------------------------------------------------------------


class Outward(FolderWork):
    """Makes a file of each message of a channel."""

    def __init__(self, owner: Way[Any, Any], folder: Folder, who: str, path: Path) -> None:
        super().__init__(owner, folder, who, path)
        self._handed: Handed | None = None
        """What was handed out and could not be written: tried again. (If its lease ends meanwhile it is settled in
        vain, comes again, and is there.)"""

    async def session(self) -> None:
        with opened(self.path) as here:
            while True:
                try:
                    handed = self._handed or await self.ask(Handed, self._pull, waits=True)
                    if handed.messages:
                        self._handed = handed
                        verdicts = tuple(self._verdict(message, here) for message in handed.messages)
                        os.fsync(here)
                        self._handed = None
                        self.trouble = ""
                        await self.ask(Answered, lambda number: self._settle(number, handed, verdicts))  # noqa: B023
                except Refusal as refused:
                    await self.sleep(min(max(1, refused.retry), LAST_SECONDS))

    def _pull(self, number: int) -> Pull:
        return Pull(number, self.who, self.folder.channel, BATCH, LEASE_SECONDS, WAIT_MS)

    def _settle(self, number: int, handed: Handed, verdicts: tuple[Verdict, ...]) -> Settle:
        return Settle(number, self.who, self.folder.channel, handed.lease, verdicts)

    def _verdict(self, message: Message, here: int) -> Verdict:
        name = f"{self.folder.channel}-{message.number:012}.{self.folder.form}"
        there = self._there(name, here)
        if there is None:
            write(here, name, message.body)
            self.owner.counts["folder_files_written"] += 1
        elif there != message.body:
            raise Trouble(
                f"{name} is in {self.folder.name} with another content: nothing is written until it is moved away"
            )
        return Verdict(message.number, "done")

    def _there(self, name: str, here: int) -> bytes | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Trouble(f"{name} in {self.folder.name} is no plain file")
            return file.read(LARGEST_MESSAGE + 1)
