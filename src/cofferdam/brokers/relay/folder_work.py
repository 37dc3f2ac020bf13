"""What is done with the site's folders: files that come in are pushed, messages that go out become files.

In: a file counts once it has stood unchanged for `settle` (one that was renamed in whole needs no more than that). Its
messages are pushed; only when the keeper has each of them for good, or has refused it for good, is the file moved to
`done`, or to `bad` with a `.reason` beside it. If anything ends in between, the file is pushed again, under the same
keys, and the keeper knows them.

Out: a message is written under a name with a dot in front, synced, renamed to CHANNEL-NUMBER.json and the folder
synced; then it is settled. If anything ends in between it comes again, and the file is there already with the same
content. A file there with another content is never overwritten: a person has to look.

Names are looked at before they are used, links are never followed, and nothing but plain files is opened. Files whose
names begin with a dot or end in .tmp or .part are left alone: somebody is writing them.

Not here: what lies in files (folder_files), which folders there are (folders).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cofferdam.audit.events.base import clip
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
FILES_MOST: Final = 10_000
"""Files that are looked at in one go; the rest wait for the next."""
PUSH_BYTES: Final = 1 << 20
"""Of several messages in one push."""
BATCH: Final = 100
AGAIN_SECONDS: Final = 60
SWEEP_SECONDS: Final = 600.0
"""How often done files are looked through for those that have been kept long enough."""
REASONS_MOST: Final = 1_000
"""Lines of a `.reason`."""
NAME_BYTES: Final = 200
"""Of a file's name: what is added to it still fits."""
DONE, BAD = "done", "bad"


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

Facts = tuple[int, int, int]
"""(inode, size, time of change) of a file."""


class Inward(FolderWork):
    """Pushes the files of a folder."""

    def __init__(self, owner: Way[Any, Any], folder: Folder, who: str, path: Path) -> None:
        super().__init__(owner, folder, who, path)
        self._seen: dict[str, tuple[Facts, float]] = {}
        """What a file was like, since when (monotonic)."""
        self._swept = float("-inf")

    async def session(self) -> None:
        for name in (DONE, BAD):
            with contextlib.suppress(FileExistsError):
                (self.path / name).mkdir(mode=0o2770)
            if not stat.S_ISDIR((self.path / name).lstat().st_mode):
                raise Trouble(f"{name} in {self.folder.name} is no folder")
        while True:
            self.check()
            worked = False
            self.trouble = ""
            for name in self._ready():
                self.check()
                worked = await self._file(name) or worked
            self._sweep()
            if not worked:
                await self.sleep(POLL_SECONDS)

    def _ready(self) -> list[str]:
        """Files that have stood unchanged for long enough, the oldest first."""
        now = time.monotonic()
        found: dict[str, Facts] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if len(found) >= FILES_MOST:
                    break
                if entry.name in (DONE, BAD) or entry.name.startswith(".") or entry.name.endswith((".tmp", ".part")):
                    continue
                facts = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(facts.st_mode):
                    kind = "a link" if stat.S_ISLNK(facts.st_mode) else "no plain file"
                    self.trouble = f"{_shown(entry.name)} in {self.folder.name} is {kind}, and is left alone"
                    continue
                found[entry.name] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        before = self._seen
        self._seen = {
            name: before[name] if name in before and before[name][0] == facts else (facts, now)
            for name, facts in found.items()
        }
        ready = [name for name, (_, since) in self._seen.items() if now - since >= self.folder.settle]
        return sorted(ready, key=lambda name: (found[name][2], name))

    async def _file(self, name: str) -> bool:
        """Deals with one file; whether it is dealt with."""
        facts, _ = self._seen[name]
        content = self._read(name, facts)
        if content is None:
            return False
        reasons: list[str] = []
        try:
            if isinstance(content, Problem):
                self._refuse(reasons, 0, content, name)
            else:
                await self._push_all(name, content, reasons)
        except Refusal as refused:  # paused, full, busy, at the wrong time: the keeper says when to come again
            self.trouble = f"{_shown(name)} waits: {refused.problem.detail}"
            await self.sleep(min(max(1, refused.retry), LAST_SECONDS))
            return False
        self._move(name, reasons)
        self.owner.counts["folder_files_taken"] += 1
        return True

    def _read(self, name: str, facts: Facts) -> bytes | Problem | None:
        """A file's content; None if it is another by now."""
        if len(os.fsencode(name)) > NAME_BYTES or not name.isprintable():
            return Problem("syntax", f"a file's name has at most {NAME_BYTES} bytes, all of them printable")
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            raise Trouble(
                f"{_shown(name)} in {self.folder.name} cannot be read: its group is to be the folder's, and to read it"
            ) from None
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or (found.st_ino, found.st_size, found.st_mtime_ns) != facts:
                return None
            if found.st_size > LARGEST_MESSAGE:
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

    def _move(self, name: str, reasons: list[str]) -> None:
        target = self.path / (BAD if reasons else DONE)
        shown = name if name.isprintable() and len(os.fsencode(name)) <= NAME_BYTES else _shown(name)[:NAME_BYTES]
        place, number = target / shown, 1
        while os.path.lexists(place):
            number += 1
            place = target / f"{shown}.{number}"
        if reasons:
            _write(target, f"{place.name}.reason", "".join(f"{line}\n" for line in reasons).encode())
        (self.path / name).rename(place)
        _sync(target)
        _sync(self.path)
        self._seen.pop(name, None)

    def _sweep(self) -> None:
        """Removes done files that have been kept long enough. Bad ones are for a person."""
        if time.monotonic() - self._swept < SWEEP_SECONDS or not self.folder.keep_files:
            return
        self._swept = time.monotonic()
        oldest = time.time() - self.folder.keep_files  # a move changes the time of change (ctime)
        with os.scandir(self.path / DONE) as entries:
            old = [
                entry.name for _, entry in zip(range(FILES_MOST), entries, strict=False)
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_ctime < oldest
            ]  # fmt: skip
        for name in old:
            (self.path / DONE / name).unlink()


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


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name[:NAME_BYTES])


# --- out --------------------------------------------------------------------------------------------------------


class Outward(FolderWork):
    """Makes a file of each message of a channel."""

    def __init__(self, owner: Way[Any, Any], folder: Folder, who: str, path: Path) -> None:
        super().__init__(owner, folder, who, path)
        self._handed: Handed | None = None
        """What was handed out and could not be written: tried again. (If its lease ends meanwhile it is settled in
        vain, comes again, and is there.)"""

    async def session(self) -> None:
        while True:
            try:
                handed = self._handed or await self.ask(Handed, self._pull, waits=True)
                if handed.messages:
                    self._handed = handed
                    verdicts = tuple(self._verdict(message) for message in handed.messages)
                    _sync(self.path)
                    self._handed = None
                    self.trouble = ""
                    await self.ask(Answered, lambda number: self._settle(number, handed, verdicts))  # noqa: B023
            except Refusal as refused:
                await self.sleep(min(max(1, refused.retry), LAST_SECONDS))

    def _pull(self, number: int) -> Pull:
        return Pull(number, self.who, self.folder.channel, BATCH, LEASE_SECONDS, WAIT_MS)

    def _settle(self, number: int, handed: Handed, verdicts: tuple[Verdict, ...]) -> Settle:
        return Settle(number, self.who, self.folder.channel, handed.lease, verdicts)

    def _verdict(self, message: Message) -> Verdict:
        name = f"{self.folder.channel}-{message.number:012}.{self.folder.form}"
        there = self._there(name)
        if there is None:
            _write(self.path, name, message.body)
            self.owner.counts["folder_files_written"] += 1
        elif there != message.body:
            raise Trouble(
                f"{name} is in {self.folder.name} with another content: nothing is written until it is moved away"
            )
        return Verdict(message.number, "done")

    def _there(self, name: str) -> bytes | None:
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Trouble(f"{name} in {self.folder.name} is no plain file")
            return file.read(LARGEST_MESSAGE + 1)


def _write(folder: Path, name: str, content: bytes) -> None:
    """A whole file under its name, or none. Raises: OSError."""
    hidden = folder / f".{name}"
    with contextlib.suppress(FileNotFoundError):
        hidden.unlink()  # of an earlier life, or somebody else's: a link, or a pipe that would never open
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        hidden.rename(folder / name)
    except OSError:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
