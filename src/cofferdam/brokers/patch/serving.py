"""What assets fetch themselves by HTTPS: each sees what is its own, in its window, and says what became of it.

    GET  /v1/files                           what is there for this asset now
    GET  /v1/files/PRODUCT/VERSION/FILE      the file; that it was fetched whole is a step like any other
    POST /v1/results                         {"product": ..., "says": "done" | "failed", "detail": ...}

Not here: HTTP and keys (kit.http), whose turn it is (plan).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from cofferdam.brokers.kit.http.api import Api, Note, method, path_of
from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.brokers.kit.http.problems import Problems, answer, refusal
from cofferdam.brokers.patch.plan import Plan, Step, Verdict
from cofferdam.brokers.patch.records import Release, Text
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way

PIECE: Final = 256 << 10
RESULT_BYTES: Final = 4096


class Result(Struct, forbid_unknown_fields=True):
    """What an asset says of what it fetched."""

    product: str
    says: str
    detail: Text = ""


class Installing(Protocol):
    """The installer, as those that fetch know it."""

    rows: PatchRows

    def plan(self) -> Plan:
        """As things are now."""

    def shut(self) -> str:
        """Why nothing goes out now, "" if it may."""

    async def begin(self, verdict: Verdict, how: str) -> Step | str:
        """Everything before an asset gets anything. The step, or why not."""

    def file_of(self, release: Release) -> Path:
        """Our own copy."""

    def count(self, sent: int) -> None:
        """Bytes that went out."""

    def fetched(self, step: Step, install: Install, way: Way, whole: bool) -> None:
        """An asset has fetched a file, or left before its end."""

    def reported(self, asset: str, product: str, says: str, detail: str) -> bool:
        """What an asset says became of it."""


class ServingApi(Api):
    """The application."""

    problems = Problems("urn:cofferdam:patch:")

    def __init__(self, installer: Installing, note: Note, wall: Callable[[], int]) -> None:
        super().__init__(note, wall)
        self._installer = installer

    async def respond(self, request: Request) -> Answer:
        path = path_of(request)
        known = await self.who(request)
        way = next((each for each in self._installer.rows.ways if each.pull == known.principal), None)
        if way is None:
            self.tell(request, known, "", "get", Problem("policy", f"{known.principal} is no asset that fetches"))
            raise refusal("policy", "there is nothing to fetch for you")
        if path == ("v1", "files"):
            method(request, "GET")
            return answer({"files": [self._told(each) for each in self._due(way)]})
        if path == ("v1", "results"):
            method(request, "POST")
            return await self._result(request, known.principal, way)
        if len(path) == 5 and path[:2] == ("v1", "files"):
            method(request, "GET")
            return await self._file(way, "/".join(path[2:]))
        raise refusal("not-found", "there is /v1/files, /v1/files/PRODUCT/VERSION/FILE and /v1/results")

    def _due(self, way: Way) -> list[Verdict]:
        installer = self._installer
        return [
            each for each in installer.plan().verdicts(self._wall())
            if each.asset == way.asset and each.due and each.release is not None and not installer.shut()
        ]  # fmt: skip

    @staticmethod
    def _told(verdict: Verdict) -> dict[str, Any]:
        release = verdict.release
        if release is None:
            return {}
        custom = release.custom
        return {
            "product": custom.product, "version": custom.version, "file": custom.file, "size": release.size,
            "sha256": release.sha256, "at": f"/v1/files/{release.path}",
        }  # fmt: skip

    async def _file(self, way: Way, path: str) -> Answer:
        verdict = next(
            (each for each in self._due(way) if each.release is not None and each.release.path == path), None
        )
        if verdict is None or verdict.release is None:
            raise refusal("window", "it is not your turn, or there is no such file", retry=60)
        step = await self._installer.begin(verdict, "https")
        if isinstance(step, str):
            raise refusal("busy", step, retry=60)
        release = verdict.release
        file = self._installer.file_of(release)
        body = self._pieces(step, verdict, way, file)
        headers = {"x-checksum-sha256": release.sha256}
        return Answer(200, body, "application/octet-stream", headers, release.size)

    async def _pieces(self, step: Step, verdict: Verdict, way: Way, file: Path) -> AsyncIterator[bytes]:
        """The file; once its last piece is taken, the step is done as far as we are concerned."""
        whole = False
        try:
            with file.open("rb") as opened:
                while data := opened.read(PIECE):
                    self._installer.count(len(data))
                    yield data
            whole = True
        finally:
            self._installer.fetched(step, verdict.install, way, whole)

    async def _result(self, request: Request, who: str, way: Way) -> Answer:
        data = await request.body(RESULT_BYTES, who)
        try:
            said = msgspec.json.decode(data or b"", type=Result)
        except msgspec.MsgspecError as error:
            raise refusal("request", str(error)) from None
        if said.says not in ("done", "failed"):
            raise refusal("request", "says: done or failed")
        if not self._installer.reported(way.asset, said.product, said.says, said.detail):
            raise refusal("not-found", "nothing was fetched that this could be the result of")
        return answer({"taken": True})
