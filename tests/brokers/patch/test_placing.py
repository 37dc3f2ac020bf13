"""A file's place at an asset, by any way that can rename: what a cut at each step leaves, and what is said of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from cofferdam.brokers.patch import sftp
from cofferdam.brokers.patch.outcome import Outcome, Progress, Refused
from cofferdam.brokers.patch.placing import place
from cofferdam.policy.terms.patch_rows import Way

OLD, NEW = b"old", b"new firmware"
SHA256 = hashlib.sha256(NEW).hexdigest()


class Asset:
    """It breaks off at the step of this number, before that is done or after it (and answers again by another session,
    or never)."""

    def __init__(self, cut: int = 0, *, after: bool = False, for_good: bool = False) -> None:
        self.files = {"fw": OLD}
        self.steps: list[str] = []
        self._cut, self._after, self._for_good, self._gone = cut, after, for_good, False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Asset]:
        if self._gone and self._for_good:
            raise ConnectionRefusedError("nobody there")
        self._gone = False
        yield self

    def _step(self, what: str) -> bool:
        """Whether it is done, and then the connection ends."""
        if self._gone:
            raise ConnectionResetError("gone")
        self.steps.append(what)
        if len(self.steps) == self._cut:
            self._gone = True
            if not self._after:
                raise ConnectionResetError("cut")
        return self._gone

    def _end(self, cut: bool) -> None:
        if cut:
            raise ConnectionResetError("cut")

    async def put(self, file: Path, path: str, progress: Progress) -> None:
        cut = self._step("put")
        self.files[path] = NEW
        await progress(len(NEW))
        self._end(cut)

    async def hash(self, path: str, most: int) -> str:
        cut = self._step("hash")
        self._end(cut)
        return hashlib.sha256(self.files[path]).hexdigest() if path in self.files else ""

    async def rename(self, old: str, new: str) -> None:
        cut = self._step("rename")
        self.files[new] = self.files.pop(old)
        self._end(cut)

    async def remove(self, path: str) -> None:
        self._step("remove")
        del self.files[path]


def placed(folder: Path, asset: Asset, shut: int = -1) -> Outcome:
    """`shut`: how often it may be asked whether it may go on."""
    file, asked = folder / "file", 0
    file.write_bytes(NEW)

    async def progress(count: int) -> None:
        nonlocal asked
        asked += 1
        if asked > shut >= 0:
            raise Refused("its window has shut")

    way = Way(asset="a", address="10.0.0.1")
    return asyncio.run(place(asset.session, (OSError, Refused), way, "fw", file, len(NEW), SHA256, progress))


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_what_is_said_after_a_cut_is_so(tmp_path: Path, cut: int, after: bool, for_good: bool) -> None:
    asset = Asset(cut, after=after, for_good=for_good)
    found = placed(tmp_path, asset)
    has = asset.files["fw"]
    assert found.state != "sent" or has == NEW
    assert found.state != "failed" or has == OLD
    assert found.state == ("failed" if cut < 3 else "sent" if has == NEW and not for_good else "unknown"), found
    assert (asset.steps.count("put"), asset.steps.count("rename")) == (1, cut > 2)  # neither is done again


def test_a_window_that_shuts_while_it_is_read_back_leaves_what_the_asset_had(tmp_path: Path) -> None:
    asset = Asset()
    found = placed(tmp_path, asset, shut=1)
    assert (found.state, asset.files) == ("failed", {"fw": OLD})
    assert "its window has shut" in found.detail


def test_what_cannot_be_read_back_is_taken_away(tmp_path: Path) -> None:
    class Unreadable(Asset):
        async def hash(self, path: str, most: int) -> str:
            raise Refused("550 no")

    asset = Unreadable()
    assert (placed(tmp_path, asset).state, asset.files) == ("failed", {"fw": OLD})


@pytest.mark.parametrize("refuses", ["", "over", "all"])
def test_an_asset_that_does_not_rename_over_a_file_keeps_one(refuses: str) -> None:
    """By SFTP without OpenSSH's own rename."""
    stored = {"fw": OLD, "fw.part": NEW}

    class Server:
        async def posix_rename(self, _old: str, _new: str) -> None:
            raise asyncssh.SFTPOpUnsupported("no")

        async def rename(self, old: str, new: str) -> None:
            if (refuses and new in stored) or (refuses == "all" and old == "fw.part"):
                raise asyncssh.SFTPFailure("no")
            stored[new] = stored.pop(old)

        async def remove(self, path: str) -> None:
            if path not in stored:
                raise asyncssh.SFTPNoSuchFile("none")
            del stored[path]

    files = sftp._Files(Server())
    if refuses == "all":
        with pytest.raises(asyncssh.SFTPFailure):
            asyncio.run(files.rename("fw.part", "fw"))
        assert stored == {"fw": OLD, "fw.part": NEW}
    else:
        asyncio.run(files.rename("fw.part", "fw"))
        assert stored == {"fw": NEW}
