"""A released snapshot of a Debian repository, served to assets as the repository that it is: the vendor's own files
with the vendor's own signature, so that `apt` itself checks them once more.

    GET /v1/apt/PRODUCT/dists/...    the index
    GET /v1/apt/PRODUCT/pool/...     packages

An asset sees the snapshot that it is at: with its first request in its turn it goes to the newest that is due, and that
is a step like any other (it may be had again as often as it likes, in the asset's window). Nothing is unpacked: files
are read where they are in the one file that people signed.

Not here: HTTP and keys (kit.http), whose turn it is (plan), what a snapshot is (apt_index).
"""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path
from typing import Final, Protocol

from cofferdam.brokers.kit.http.api import method
from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.brokers.kit.http.problems import Refusal, refusal
from cofferdam.brokers.patch import apt_index, apt_sign
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.plan import Plan, Step, Verdict
from cofferdam.brokers.patch.records import Release
from cofferdam.errors import GateError
from cofferdam.policy import windows
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way

PIECE: Final = 256 << 10
TREES_MOST: Final = 4
"""Snapshots whose table of files is held."""
AT_ONCE: Final = 200
"""Heads of a tar that are read before others have their turn."""

Span = tuple[int, int]
"""(offset, size) in the snapshot."""


class Installing(Protocol):
    """The installer, as this knows it."""

    rows: PatchRows
    policy: CompiledPolicy
    steps: Table[Step]

    @property
    def releases(self) -> tuple[Release, ...]:
        """What is released."""

    def plan(self) -> Plan:
        """As things are now."""

    def credential(self, name: str) -> str:
        """A secret of ours by its name in the policy, "" for none."""

    def shut(self) -> str:
        """Why nothing goes out now, "" if it may."""

    async def begin(self, verdict: Verdict, how: str) -> Step | str:
        """Everything before an asset gets anything. The step, or why not."""

    async def copy_of(self, release: Release) -> Path | None:
        """Our own copy, made now where it is not there."""

    async def sent(self, count: int) -> None:
        """Bytes that went out; waits until more may."""

    def fetched(self, step: Step, install: Install, way: Way, whole: bool) -> None:
        """An asset has fetched what was due."""


class _Tree:
    """A snapshot: our copy of it, which stays open, and where each file is."""

    _fd = -1

    def __init__(self, file: Path) -> None:
        """Raises: OSError."""
        self.files: dict[str, Span] = {}
        self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read(self, offset: int, size: int) -> bytes:
        """Raises: OSError."""
        return os.pread(self._fd, size, offset)

    def whole(self, span: Span) -> bytes:
        """A small file, which most are: it leaves with the answer's head. Raises: Refusal."""
        data = self.read(*span)
        if len(data) != span[1]:
            raise refusal("busy", "the snapshot cannot be had now", retry=60)
        return data

    def __del__(self) -> None:
        """Not before the last file of it is sent, also where it is no longer held here."""
        if self._fd >= 0:
            os.close(self._fd)


class _Piece:
    """A file within a snapshot."""

    def __init__(self, installer: Installing, tree: _Tree, span: Span) -> None:
        self._installer, self._tree = installer, tree
        self._at, self._left = span

    def __aiter__(self) -> _Piece:
        return self

    async def __anext__(self) -> bytes:
        data = self._tree.read(self._at, min(PIECE, self._left)) if self._left else b""
        if not data:
            raise StopAsyncIteration
        self._at += len(data)
        self._left -= len(data)
        await self._installer.sent(len(data))
        return data


class AptTree:
    """All snapshots."""

    def __init__(self, installer: Installing) -> None:
        self._installer = installer
        self._trees: dict[str, _Tree] = {}
        self._signed: dict[tuple[str, str], bytes] = {}
        """By the snapshot and our key: its InRelease, signed anew."""
        self._turns: dict[str, asyncio.Lock] = {}
        self._looked: dict[str, tuple[str, str]] = {}
        """By the key's name: the key, and why nothing can be signed by it."""

    async def answer(self, request: Request, way: Way, product: str, path: str, wall_ns: int) -> Answer:
        """Raises: Refusal."""
        method(request, "GET")
        known = self._installer.rows.product(product)
        if known is None or known.origin.proof != "apt":
            raise refusal("not-found", "there is no such repository")
        secret = self._key(known.sign)
        lock = self._turns.setdefault(f"{way.asset}/{product}", asyncio.Lock())
        async with lock:
            release = await self._release(way, product, wall_ns, looks=request.method == "HEAD")
            tree = self._trees.get(release.sha256) or await self._tree(release)
        span = tree.files.get(path)
        if span is None:
            raise refusal("not-found", "the snapshot has no such file")
        headers = {"x-snapshot": release.custom.version}
        if secret and path.endswith("/InRelease"):
            signed = self._resigned(secret, release, tree, span)
            return Answer(200, signed, "application/octet-stream", headers, len(signed))
        if request.method == "HEAD":
            return Answer(200, b"", "application/octet-stream", headers, span[1])
        if span[1] > PIECE:
            return Answer(200, _Piece(self._installer, tree, span), "application/octet-stream", headers, span[1])
        body = tree.whole(span)
        await self._installer.sent(len(body))
        return Answer(200, body, "application/octet-stream", headers)

    def _key(self, name: str) -> str:
        """What signs a repository, "" for one that is the vendor's own. Raises: Refusal: before anything begins."""
        secret = self._installer.credential(apt_sign.place(name)) if name else ""
        if name and (why := self._lacks(name)):
            raise refusal("busy", why, retry=60)
        return secret

    def _lacks(self, name: str) -> str:
        """Why nothing can be signed by this key, with the way out. A key is looked at once: it is asked for with each
        request, and each time that somebody looks at `status`."""
        secret = self._installer.credential(apt_sign.place(name))
        looked = self._looked.get(name)
        if looked is None or looked[0] != secret:
            why, way_out = apt_sign.lacking(name, secret)
            looked = self._looked[name] = secret, f"{why}: {way_out}" if why else ""
        return looked[1]

    def unsigned(self) -> dict[str, str]:
        """Why repositories cannot be signed, by the name of the key, with the way out."""
        names = {each.sign for each in self._installer.rows.products if each.sign}
        return {name: why for name in sorted(names) if (why := self._lacks(name))}

    def _resigned(self, secret: str, release: Release, tree: _Tree, span: Span) -> bytes:
        """Raises: Refusal."""
        found = self._signed.get((release.sha256, secret))
        if found is None:
            try:
                found = apt_sign.resigned(tree.whole((span[0], min(span[1], apt_index.RELEASE_BYTES))), secret)
            except (GateError, apt_index.BadIndex) as error:
                raise self._none(error) from None
            while len(self._signed) >= TREES_MOST:
                del self._signed[next(iter(self._signed))]
            self._signed[release.sha256, secret] = found
        return found

    async def _release(self, way: Way, product: str, wall_ns: int, *, looks: bool) -> Release:
        """The one that the asset is at, or goes to now. Raises: Refusal."""
        installer = self._installer
        if shut := installer.shut():
            raise refusal("window", shut, retry=60)
        verdict = next(
            (each for each in installer.plan().verdicts(wall_ns, way.asset) if each.product == product), None
        )
        if verdict is None:
            raise refusal("policy", f"{product} does not go to {way.asset}")
        if verdict.due and verdict.release is not None and not looks:
            step = await installer.begin(verdict, "apt")
            if isinstance(step, str):
                raise refusal("busy", step, retry=60)
            installer.fetched(step, verdict.install, way, True)
            return verdict.release
        return self._at(way, product, verdict, wall_ns)

    def _at(self, way: Way, product: str, verdict: Verdict, wall_ns: int) -> Release:
        step = self._installer.steps.get(f"{way.asset}/{product}")
        found: Release | None = None
        if step is not None and step.state in ("sent", "done"):
            found = next((each for each in self._installer.releases if each.custom.number == step.release), None)
        if found is None:
            raise refusal("window", f"it is not your turn: {verdict.why}", retry=60)
        is_open, _ = windows.state(verdict.install.windows, self._installer.policy.table.clocks, wall_ns)
        if not is_open and not found.custom.emergency:
            raise refusal("window", "its window is shut", retry=60)
        return found

    async def _tree(self, release: Release) -> _Tree:
        """A snapshot that is not held. Raises: Refusal: people have signed what is none, or it cannot be had."""
        file = await self._installer.copy_of(release)
        if file is None:
            raise refusal("busy", "the snapshot cannot be had now", retry=60)
        try:
            tree = _Tree(file)
            found = tree.files
            with tarfile.open(file, "r:") as archive:
                first: tarfile.TarInfo | None = None
                for number, info in enumerate(archive):
                    first = first or info
                    if info.isreg():
                        found[info.name] = (info.offset_data, info.size)
                    if number % AT_ONCE == AT_ONCE - 1:
                        await asyncio.sleep(0)
            if first is not None:
                self._by_hash(found, first.name, file)
        except (tarfile.TarError, OSError, apt_index.BadIndex) as error:
            raise self._none(error) from None
        while len(self._trees) >= TREES_MOST:
            del self._trees[next(iter(self._trees))]
        self._trees[release.sha256] = tree
        return tree

    @staticmethod
    def _none(error: Exception) -> Refusal:
        return refusal("not-found", f"the released file is no snapshot of a repository: {error}")

    @staticmethod
    def _by_hash(found: dict[str, Span], inrelease: str, file: Path) -> None:
        """The names by hash under which apt asks for the same files."""
        offset, size = found[inrelease]
        with file.open("rb") as opened:
            opened.seek(offset)
            release = apt_index.read_release(apt_index.signed_text(opened.read(min(size, apt_index.RELEASE_BYTES))))
        suite = inrelease.removeprefix("dists/").removesuffix("/InRelease")
        for name, path in apt_index.by_hash(release, suite, found).items():
            found[name] = found[path]
