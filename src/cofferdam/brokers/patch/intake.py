"""The intake: takes uploads by HTTPS and hands them to the keeper, piece by piece. It looks into none of them.

    PUT /v1/products/PRODUCT/VERSION/FILE    a file, or its signature beside it (FILE.asc, FILE.sig, FILE.minisig)
    GET /v1/products                         which products the caller may upload

Who asks is known by key or certificate, and address. What it allows is a quick answer; the keeper decides again.

Not here: HTTP (kit.http), what becomes of a file (keeper).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.patch import FileRefused
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.http.api import Api, Note, method, path_of
from cofferdam.brokers.kit.http.connection import Limits, Request
from cofferdam.brokers.kit.http.doors import HttpPart, RefusedKind
from cofferdam.brokers.kit.http.messages import Answer, BadRequest
from cofferdam.brokers.kit.http.problems import Problems, answer, refusal
from cofferdam.brokers.kit.vouch import Voucher
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.figures import INTAKE
from cofferdam.brokers.patch.records import Begin, Declined
from cofferdam.brokers.patch.sending import Upload, Uploads
from cofferdam.enforce.profile import VOUCH
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.doors import Door
from cofferdam.policy.terms.patch_rows import LARGEST_FILE, PatchRows

LIMITS: Final = Limits(
    body_bytes=LARGEST_FILE, rest_bytes=64 << 20, connections=256, connections_source=32, answer_seconds=900.0
)
_SIGNATURE_BYTES: Final = 1 << 20


class IntakeApi(Api):
    """The application."""

    problems = Problems(
        "urn:cofferdam:patch:", {"conflict": "It is there already", "room": "Too large, or no room"},
        {"conflict": 409, "room": 413},
    )  # fmt: skip

    def __init__(self, uploads: Uploads, figures: Figures, note: Note, wall: Callable[[], int]) -> None:
        super().__init__(note, wall)
        self.uploads = uploads
        self.rows: tuple[PatchRows, ...] = ()
        self._figures = figures

    async def respond(self, request: Request) -> Answer:
        path = path_of(request)
        known = await self.who(request)
        if path == ("v1", "products"):
            method(request, "GET")
            may = [
                {"product": product.name, "proof": product.origin.proof, "most": product.most}
                for row in self.rows for product in row.products
                if row.may_put(known.principal, product.name) and known.may("put", product.name)
            ]  # fmt: skip
            return answer({"products": may})
        if len(path) != 5 or path[:2] != ("v1", "products"):
            raise refusal("not-found", "there is /v1/products and /v1/products/PRODUCT/VERSION/FILE")
        method(request, "PUT")
        product, version, file = path[2:]
        row = next((row for row in self.rows if row.may_put(known.principal, product)), None)
        said = row.product(product) if row is not None else None
        if said is None or not known.may("put", product):
            problem = Problem("not-found", f"there is no product {product[:64]} for you")
            self.tell(request, known, product, "put", problem, file)
            raise refusal("not-found", problem.detail)
        try:
            begin = msgspec.convert([1, 1, known.principal, product, version, file, request.length or 0], Begin)
        except msgspec.ValidationError:
            raise refusal(
                "request", "a version or a file's name: letters, digits and . _ + - only, at most 128"
            ) from None
        if self.uploads.of(known.principal) >= records.UPLOADS_MOST // 2:
            raise refusal("busy", f"{records.UPLOADS_MOST // 2} uploads of yours are under way", retry=5)
        if len(self.uploads) >= records.UPLOADS_MOST:
            raise refusal("busy", f"{records.UPLOADS_MOST} uploads are under way", retry=5)
        upload = self.uploads.begin(known.principal, begin.product, begin.version, begin.file, begin.size)
        self._figures.add("patch_uploads")
        try:
            return await self._upload(request, known.principal, upload, said.most)
        finally:
            self.uploads.end(upload)

    async def _upload(self, request: Request, who: str, upload: Upload, most: int) -> Answer:
        digest = hashlib.sha256()
        most = max(most, _SIGNATURE_BYTES)
        try:
            async for piece in request.pieces(most, who):
                digest.update(piece)
                self._figures.add("patch_upload_bytes", len(piece))
                if not await upload.send(piece):
                    break
        except BadRequest:
            raise refusal("size", f"more than {most} bytes") from None
        request.connection.gone = functools.partial(self.uploads.end, upload)
        try:
            found = await upload.finish(digest.hexdigest())
        finally:
            request.connection.gone = None
        if isinstance(found, Declined):
            raise refusal(found.fault, found.detail, retry=5 if found.fault == "busy" else 0)
        told = {"sha256": found.sha256, "waits": found.waits}
        if found.number < 1 << 52:
            told["file"] = found.number  # type: ignore[assignment]
        return answer(told, 201)


class Intake(HttpPart):
    """The part."""

    api: IntakeApi

    def __init__(self, setting: Setting) -> None:
        self._figures = Figures(INTAKE)
        super().__init__(setting, LIMITS)

    def make_api(self) -> IntakeApi:
        voucher = Voucher(self.setting.secrets[VOUCH], self.setting.wall)
        self.uploads = Uploads(self.setting.senders["keeper"], self.loop, voucher)
        return IntakeApi(self.uploads, self._figures, self.note, self.setting.wall)

    def doors(self, policy: CompiledPolicy) -> Iterable[Door]:
        rows = tuple(conduit.terms for conduit in policy.conduits.values() if isinstance(conduit.terms, PatchRows))
        self.api.rows = rows
        return [door for row in rows for door in row.doors]

    def on_record(self, source: str, record: Any) -> None:
        self.uploads.on_record(record)

    def told(self, found: RefusedKind) -> FileRefused:
        detail = f"{found.verb} from {found.source}: {found.detail}" + (f" ({found.count}×)" if found.count > 1 else "")
        return FileRefused(
            wall_ns=self.setting.wall(), product=found.what, file=clip(found.key, 128), by=found.principal or "?",
            fault=found.fault, detail=clip(detail),
        )  # fmt: skip

    def figures(self) -> Reported:
        self._figures.set("patch_connections", len(self.shared.open))
        return {**super().figures(), **self._figures.report()}

    @property
    def busy(self) -> int:
        return len(self.uploads)
