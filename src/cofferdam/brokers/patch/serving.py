"""What assets fetch themselves by HTTPS: each sees what is its own, in its window, and says what became of it.

    GET  /v1/files                           what is there for this asset now
    GET  /v1/files/PRODUCT/VERSION/FILE      the file; that it was fetched whole is a step like any other
    POST /v1/results                         {"product": ..., "says": "done" | "failed", "detail": ...}

Besides, gateways poll as hawkBit has it (ddi), and hosts see a Debian repository (apt_tree).

Not here: HTTP and keys (kit.http), whose turn it is (plan).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from cofferdam.brokers.kit.http.api import Api, Note, method, path_of
from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.kit.http.keys import Known, Why, hash_of
from cofferdam.brokers.kit.http.messages import Answer
from cofferdam.brokers.kit.http.problems import Problems, answer, refusal
from cofferdam.brokers.patch import apt_tree, ddi
from cofferdam.brokers.patch.plan import Plan, Step, Verdict
from cofferdam.brokers.patch.records import Release, Text
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way

PIECE: Final = 256 << 10
_REST: Final = re.compile(r"bytes=(\d{1,14})-\Z")
RESULT_BYTES: Final = 4096
FEEDBACK_BYTES: Final = 60_000
"""Of what a device says of an action: some send their log."""


class Result(Struct, forbid_unknown_fields=True):
    """What an asset says of what it fetched."""

    product: str
    says: str
    detail: Text = ""


class Installing(apt_tree.Installing, Protocol):
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

    async def copy_of(self, release: Release) -> Path | None:
        """Our own copy, made now where it is not there."""

    async def sha1_of(self, release: Release) -> str:
        """Of our own copy."""

    def given_up(self, asset: str) -> Step | None:
        """What an asset is at, and should leave: an operator has stopped its release."""

    def at(self, asset: str, number: int) -> Release | None:
        """The release of this number, if the asset is at it now."""

    async def sent(self, count: int) -> None:
        """Bytes that went out; waits until more may."""

    def fetched(self, step: Step, install: Install, way: Way, whole: bool) -> None:
        """An asset has fetched a file, or left before its end."""

    def reported(self, asset: str, product: str, says: str, detail: str) -> bool:
        """What an asset says became of it."""


class _File:
    """A file, piece by piece. Once its last piece is taken, the step is done as far as we are concerned; however it
    ends, also before its first piece, the installer hears of it."""

    def __init__(self, installer: Installing, step: Step, install: Install, way: Way, file: Path, at: int) -> None:
        self._installer = installer
        self._of = (step, install, way)
        self._opened = file.open("rb")
        self._opened.seek(at)
        self._ended = False

    def __aiter__(self) -> _File:
        return self

    async def __anext__(self) -> bytes:
        data = self._opened.read(PIECE)
        if data:
            await self._installer.sent(len(data))
            return data
        self._end(True)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._end(False)

    def _end(self, whole: bool) -> None:
        if not self._ended:
            self._ended = True
            self._opened.close()
            self._installer.fetched(*self._of, whole)


def _password(text: str) -> str:
    """Of a name and a password as HTTP has them (RFC 7617), "" for none."""
    try:
        return base64.b64decode(text, validate=True).decode("ascii").partition(":")[2]
    except ValueError:
        return ""


def _from(request: Request, tag: str, size: int) -> int:
    """Where a file is to begin: its rest, where a transfer broke (RFC 9110, 14.2; other ranges are not served)."""
    found = _REST.match(request.headers.get("range", ""))
    if found is None or request.headers.get("if-range", tag) != tag:
        return 0
    return int(found[1]) if int(found[1]) < size else 0


class ServingApi(Api):
    """The application."""

    problems = Problems("urn:cofferdam:patch:")

    def __init__(self, installer: Installing, note: Note, wall: Callable[[], int]) -> None:
        super().__init__(note, wall)
        self._installer = installer
        self._apt = apt_tree.AptTree(installer)

    def unsigned(self) -> dict[str, str]:
        """Keys of the site's that cannot sign repositories: why, and the way out."""
        return self._apt.unsigned()

    async def respond(self, request: Request) -> Answer:
        path = path_of(request)
        known = await self.who(request)
        way = next((each for each in self._installer.rows.ways if each.pull == known.principal), None)
        if way is None:
            self.tell(request, known, "", "get", Problem("policy", f"{known.principal} is no asset that fetches"))
            raise refusal("policy", "there is nothing to fetch for you")
        if path[1:3] == ddi.CONTROLLER and len(path) >= 4:
            return await self._ddi(request, known.principal, way, path)
        if path == ("v1", "files"):
            method(request, "GET")
            return answer({"files": [self._told(each) for each in self._due(way)]})
        if path[:2] == ("v1", "apt") and len(path) > 4:
            return await self._apt.answer(request, way, path[2], "/".join(path[3:]), self._wall())
        if path == ("v1", "results"):
            method(request, "POST")
            return await self._result(request, known.principal, way)
        if len(path) == 5 and path[:2] == ("v1", "files"):
            method(request, "GET")
            return await self._file(request, way, "/".join(path[2:]))
        raise refusal("not-found", "there is /v1/files, /v1/files/PRODUCT/VERSION/FILE and /v1/results")

    def known(self, request: Request) -> Known | Why:
        """Gateways show their key as a token of theirs, apt as a password."""
        said, connection = request.headers.get("authorization", ""), request.connection
        scheme, _, text = said.partition(" ")
        if scheme.lower() not in ("gatewaytoken", "targettoken", "basic"):
            return super().known(request)
        if connection.shown[0] != said:
            key = text.strip() if scheme.lower() != "basic" else _password(text.strip())
            connection.shown = (said, hash_of(key))
        return self.keys.by_hash(connection.shown[1], connection.principals, self._wall())

    async def _ddi(self, request: Request, who: str, way: Way, path: tuple[str, ...]) -> Answer:
        if path[3] != way.asset:
            raise refusal("policy", "another device's place")
        at, rest = ddi.base(request, path), path[4:]
        if not rest:
            method(request, "GET")
            given_up = self._installer.given_up(way.asset)
            return answer(ddi.polled(at, next(iter(self._due(way)), None), given_up))
        if rest == ("configData",):
            method(request, "PUT", "POST")
            await request.body(RESULT_BYTES, who)
            return answer({})
        if (
            len(rest) < 2
            or rest[0] not in ("deploymentBase", "cancelAction")
            or not rest[1].isdecimal()
            or len(rest[1]) > 15
        ):
            raise refusal("not-found", "there is no such thing for a device")
        number = int(rest[1])
        if rest[0] == "cancelAction":
            return await self._leave(request, who, way, number, rest[2:])
        if rest[2:] == ("feedback",):
            method(request, "POST", "PUT")
            return await self._feedback(request, who, way, number)
        method(request, "GET")
        due = next((each for each in self._due(way) if each.release and each.release.custom.number == number), None)
        release = due.release if due is not None else self._installer.at(way.asset, number)
        if release is None or rest[2:]:
            raise refusal("not-found", "there is no such action for this device now")
        file = await self._installer.copy_of(release)
        if file is None:
            raise refusal("busy", "the file cannot be had now", retry=60)
        sha1 = await self._installer.sha1_of(release)
        return answer(ddi.deployment(ddi.origin(request), release, sha1))

    async def _leave(self, request: Request, who: str, way: Way, number: int, rest: tuple[str, ...]) -> Answer:
        """A device leaves what an operator has given up, or says that it is too late."""
        step = self._installer.given_up(way.asset)
        if step is None or step.release != number or rest not in ((), ("feedback",)):
            raise refusal("not-found", "there is no such action to leave")
        if not rest:
            method(request, "GET")
            return answer(ddi.to_leave(step))
        method(request, "POST", "PUT")
        try:
            says, words = ddi.said(await request.body(FEEDBACK_BYTES, who) or b"")
        except msgspec.MsgspecError as error:
            raise refusal("request", str(error)) from None
        if says:
            what = "it has left it" if says == "done" else "it cannot leave it any more"
            self._installer.reported(way.asset, step.product, "failed", f"given up by an operator, {what}; {words}")
        return answer({})

    async def _feedback(self, request: Request, who: str, way: Way, number: int) -> Answer:
        data = await request.body(FEEDBACK_BYTES, who)
        try:
            says, words = ddi.said(data or b"")
        except msgspec.MsgspecError as error:
            raise refusal("request", str(error)) from None
        release = self._installer.at(way.asset, number)
        if release is None:
            if not says and any(each.release and each.release.custom.number == number for each in self._due(way)):
                return answer({})  # it says that it is about to begin
            raise refusal("not-found", "this device is at no such action")
        if says:
            self._installer.reported(way.asset, release.custom.product, says, words)
        return answer({})

    def _due(self, way: Way) -> list[Verdict]:
        installer = self._installer
        if installer.shut():
            return []
        found = installer.plan().verdicts(self._wall(), way.asset)
        return [each for each in found if each.due and each.release is not None]

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

    async def _file(self, request: Request, way: Way, path: str) -> Answer:
        verdict = next(
            (each for each in self._due(way) if each.release is not None and each.release.path == path), None
        )
        if verdict is None or verdict.release is None:
            raise refusal("window", "it is not your turn, or there is no such file", retry=60)
        release = verdict.release
        tag = f'"{release.sha256}"'
        headers = {"x-checksum-sha256": release.sha256, "etag": tag, "accept-ranges": "bytes"}
        if request.method == "HEAD":
            return Answer(200, b"", "application/octet-stream", headers, release.size)  # nothing begins by looking
        begin = _from(request, tag, release.size)
        step = await self._installer.begin(verdict, "https")
        if isinstance(step, str):
            raise refusal("busy", step, retry=60)
        body = _File(self._installer, step, verdict.install, way, self._installer.file_of(release), begin)
        if begin:
            headers["content-range"] = f"bytes {begin}-{release.size - 1}/{release.size}"
        return Answer(206 if begin else 200, body, "application/octet-stream", headers, release.size - begin)

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
