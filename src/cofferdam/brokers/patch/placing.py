"""A file to an asset, for ways that can rename: beside its place, read back, renamed, read back.

Until the rename the asset has what it had. Whatever fails later, what stands there is read back, so that the outcome is
known wherever it can be. Not here: how an asset is spoken to (sftp, smb, ftp), ways without a rename (scp, tftp).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from cofferdam.brokers.patch.outcome import SILENT_SECONDS, Outcome, Progress, at_most, read_back_of
from cofferdam.policy.terms.patch_rows import Way


class Files(Protocol):
    """An asset's files, within a session."""

    async def put(self, file: Path, path: str, progress: Progress) -> None:
        """Writes one, over what is there."""

    async def hash(self, path: str, most: int) -> str:
        """SHA-256 of one; "" if there is none, or one of more bytes than that."""

    async def rename(self, old: str, new: str) -> None:
        """Over what is there."""

    async def remove(self, path: str) -> None:
        """One that is there."""


Session = Callable[[], AbstractAsyncContextManager[Files]]


async def over(
    files: Files, refused: type[Exception], rename: Callable[[str, str], Awaitable[None]], old: str, new: str
) -> None:
    """A rename, for an asset that may do it over nothing alone: what is there steps aside, and comes back where it
    takes no other. `refused`: how it says no."""
    aside = f"{new}.was"
    try:
        await rename(old, new)
        return
    except refused:
        with contextlib.suppress(refused):
            await files.remove(aside)
        await rename(new, aside)
    try:
        await rename(old, new)
    except refused:
        with contextlib.suppress(refused):
            await rename(aside, new)
        raise
    with contextlib.suppress(refused):
        await files.remove(aside)


async def place(
    session: Session, ends: tuple[type[Exception], ...], way: Way, target: str, file: Path, size: int, sha256: str,
    progress: Progress,
) -> Outcome:  # fmt: skip
    """Sends a file of this size and hash. `ends`: how a session may end, whatever the asset or the network does; none
    of them is raised."""
    part, renamed = f"{target}.part", False

    async def take_away(files: Files) -> None:
        with contextlib.suppress(*ends):  # what is left of it would fill the asset's disk
            async with asyncio.timeout(SILENT_SECONDS):
                await files.remove(part)

    try:
        async with session() as files:
            async with asyncio.timeout(at_most(way, size)):
                try:
                    await files.put(file, part, progress)
                    there = await files.hash(part, size)
                    await progress(0)  # reading back takes its time: a window may have shut meanwhile
                except ends:
                    await take_away(files)
                    raise
            if there != sha256:
                await take_away(files)
                return Outcome("failed", read_back_of(there))
            renamed = True
            async with asyncio.timeout(at_most(way, size)):
                await files.rename(part, target)
                there = await files.hash(target, size)
            if there == sha256:
                return Outcome("sent")
            return Outcome("unknown", "after the rename the asset reads back another hash")
    except ends as error:
        why = str(error) or type(error).__name__
    if not renamed:
        return Outcome("failed", f"{why[:300]}; what the asset had is still there")
    found = ""
    with contextlib.suppress(*ends):
        async with session() as files, asyncio.timeout(at_most(way, size)):
            found = await files.hash(target, size)
    if found == sha256:
        return Outcome("sent", f"it broke at the end ({why[:200]}), and the asset has it")
    return Outcome("unknown", f"{why[:300]}; what the asset has now is not known")
