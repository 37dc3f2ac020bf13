"""How the keeper has files examined: which is next, what is laid out for the examiner, and what its answer leads to.

Not here: the examination (examiner), what comes in (keeper).
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec
from msgspec.structs import replace

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figures
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.catalogue import FileRow, Judged
from cofferdam.brokers.patch.feeding import LEAST_BYTES, Feed
from cofferdam.brokers.patch.reports import Order, Report
from cofferdam.brokers.patch.sealing import NotSealed, Sealing
from cofferdam.brokers.patch.synced import Synced
from cofferdam.crossing.reactor import Reactor
from cofferdam.policy.terms.patch_rows import PatchRows, Product

FED: Final = ("pgp", "wsus")
"""Proofs whose library opens no seal, and reads all of the file."""
EXAMINERS: Final = 2
"""Files that are looked at once."""
SCANNER_SECONDS: Final = 6 * 3600.0
"""How often the scanner is looked at by itself: that it is gone, or its base old, is told before a file needs it."""
AGAIN_SECONDS: Final = 120.0
"""The same, while it is not fit."""


class Keeping(Protocol):
    """The keeper, as this knows it."""

    setting: Setting
    store: Path
    files: Table[FileRow]
    rows: PatchRows
    figures_: Figures
    sealing: Sealing
    stopping: bool
    passwords: Mapping[str, str]

    @property
    def now(self) -> int:
        """UTC ns."""

    def product_of(self, name: str) -> Product | None:
        """By the policy in force."""

    def keep(self, row: FileRow) -> None:
        """Puts a row, on disk if it can be."""

    def thin(self) -> None:
        """Refused files are kept while there is room for them."""


class Examining:
    """What is examined, and what waits for it."""

    def __init__(self, keeper: Keeping) -> None:
        self._keeper = keeper
        self._examining: set[int] = set()
        self._queue: deque[int] = deque()
        self.scanner, self.unfit = "", ""
        """The scanner and its base, as it was last seen; and why nothing can be scanned, "" if it can."""
        self._watch_at = -math.inf
        self._watching = False

    def watch(self) -> None:
        """Has the scanner looked at, where it is time."""
        keeper = self._keeper
        if not any(product.scan for product in keeper.rows.products):
            self.unfit, self._watch_at = "", -math.inf  # nothing is scanned any more
            return
        if self._watching or time.monotonic() < self._watch_at or keeper.stopping:
            return
        if len(self._examining) >= EXAMINERS:
            return
        self._watching = True
        order = Order("", "", (), scan="clamd")
        keeper.setting.run_job("examiner", msgspec.json.encode(order), self._watched)

    def _watched(self, result: bytes, error: str) -> None:
        self._watching = False
        try:
            report = msgspec.json.decode(result, type=Report) if not error else None
        except msgspec.MsgspecError as wrong:
            report, error = None, f"the examiner's answer makes no sense: {wrong}"
        works = report is not None and report.scan == "clean"
        self.unfit = "" if works else error or (report.scan_detail if report is not None else "")
        self.scanner = report.base if report is not None and report.base else self.scanner
        self._watch_at = time.monotonic() + (SCANNER_SECONDS if works else AGAIN_SECONDS)
        self.next()

    def examine(self, number: int) -> None:
        """Puts a file before an examiner (again)."""
        row = self._keeper.files.get(number)
        if row is not None:
            self._keeper.files.put(number, replace(row, state="examining", reason="", report=None))
            self.add(number)

    def add(self, number: int) -> None:
        """One that is to be looked at."""
        self._queue.append(number)
        self.next()

    def next(self) -> None:
        """Has the next ones looked at, where there is an examiner for them."""
        while self._queue and len(self._examining) + self._watching < EXAMINERS and not self._keeper.stopping:
            number = self._queue.popleft()
            row = self._keeper.files.get(number)
            product = self._keeper.product_of(row.product) if row is not None else None
            if row is None or row.state != "examining" or number in self._examining:
                continue
            if product is None:
                self.judge(number, None, f"the policy has no product {row.product} any more")
                continue
            self._keeper.keep(replace(row, asked=asked_of(product)))
            if product.password and product.password not in self._keeper.passwords:
                how = f"`cofferdam patch credential {product.password}`, then `patch examine {number}`"
                self.judge(number, None, f"there is no password {product.password} for its archives: {how}")
                continue
            self._examining.add(number)
            self._order(row, product)

    def _order(self, row: FileRow, product: Product) -> None:
        """Has an examiner look at a file, with the keys of what it is to open."""
        number, keeper = row.number, self._keeper
        file = f"quarantine/{number}"
        signature = f"{file}.sig" if row.signed else ""
        listed = f"{file}.list" if row.signed and product.origin.list else ""
        feed: Feed | None = None
        try:
            opens = {name: keeper.sealing.key_of(keeper.store / name) for name in (file, signature, listed) if name}
            if opens[file] and row.size >= LEAST_BYTES and product.origin.proof in FED and not listed:
                pieces = keeper.sealing.pieces(keeper.store / file)
                feed = Feed(keeper.setting.reactor, keeper.store, str(number), pieces)
        except (NotSealed, OSError) as error:
            why = f"the keeper's disk: {error.strerror}" if isinstance(error, OSError) else str(error)
            self._examining.discard(number)
            self.judge(number, None, why)  # and not `next`, which is at it: all that waits may fare so
            return
        order = Order(
            file=file,
            proof=product.origin.proof,
            keys=_named(product.origin.keys),
            stamps=_named(product.origin.stamps),
            exporters=_named(product.origin.exporters),
            publisher=product.origin.publisher,
            identity=product.origin.identity.replace("{version}", row.version),
            issuer=product.origin.issuer,
            signature=signature,
            list=listed,
            name=row.file,
            version=row.version,
            first=f"{row.by} by {row.how}",
            second=row.second,
            packages=tuple(
                pattern for each in keeper.rows.fetches if each.product == row.product for pattern in each.packages
            ),
            scan=product.scan,
            yara=f"keys/{hashlib.sha256(product.yara).hexdigest()}" if product.yara else "",
            password=keeper.passwords.get(product.password, ""),
            opens=opens,
            feed=str(feed.path.relative_to(keeper.store)) if feed is not None else "",
        )
        job = "ruler" if product.yara else "examiner"
        done = functools.partial(self._examined, number, feed)
        self._keeper.setting.run_job(job, msgspec.json.encode(order), done)

    def _examined(self, number: int, feed: Feed | None, result: bytes, error: str) -> None:
        self._examining.discard(number)
        if feed is not None:
            feed.close()
            error = error or feed.error
        report: Report | None = None
        if not error:
            try:
                report = msgspec.json.decode(result, type=Report)
            except msgspec.MsgspecError as wrong:
                error = f"the examiner's answer makes no sense: {wrong}"
        if feed is not None and not feed.whole and report is not None and not report.refused:
            report, error = None, "the examiner says that it is signed, and has not read all of it"
        self.judge(number, report, error)
        self.next()

    def judge(self, number: int, report: Report | None, error: str) -> None:
        row = self._keeper.files.get(number)
        if row is None or row.state != "examining":
            return
        state: Judged = "failed"
        reason = error
        if report is not None:
            if report.sha256 != row.sha256 or report.size != row.size:
                state, reason = "refused", "the examiner saw another file than came"
            elif report.refused:
                state, reason = "refused", report.refused
            elif report.archive:
                state, reason = "refused", report.archive
            elif older := self._older(row, report):
                state, reason = "refused", older
            elif report.scan == "found":
                state, reason = "refused", f"the scanner found {report.scan_detail}"
            elif report.scan == "not scanned" or (report.scan == "not asked" and self._scans(row)):
                state, reason = "not-scanned", report.scan_detail or "no scanner has looked at it"
            else:
                state, reason = "passed", ""
        draft = events.FileExamined(
            wall_ns=self._keeper.now, number=number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, verdict=state, origin=clip(report.origin if report else ""),
            scan=clip(f"{report.scan} {report.base}" if report else ""), detail=clip(reason),
        )  # fmt: skip

        def told(ok: bool, why: str) -> None:
            now = self._keeper.files.get(number)
            if now is None or now.state != "examining":
                return
            if ok:
                self._keeper.keep(replace(now, state=state, reason=reason, report=report))
                self._keeper.figures_.add("patch_examined")
                self._keeper.thin()
            else:
                self._keeper.keep(replace(now, state="failed", reason=f"nothing can be recorded: {why}"))

        self._keeper.setting.audit.record(draft, told)

    def _older(self, row: FileRow, report: Report) -> str:
        """Why a repository's snapshot is refused although its signature holds: a newer one has been here."""
        date = report.facts.get("date", "")
        product = self._keeper.product_of(row.product)
        if product is None or product.origin.proof != "apt":
            return ""
        for other in self._keeper.files.rows.values():
            if other.product != row.product or other.number == row.number or other.report is None:
                continue
            before = other.report.facts.get("date", "")
            same = other.report.facts.get("suite") == report.facts.get("suite")
            if same and before > date and other.state not in ("refused", "failed"):
                return f"an older repository than file {other.number} has: {date} after {before}"
        return ""

    def _scans(self, row: FileRow) -> bool:
        product = self._keeper.product_of(row.product)
        return product is not None and bool(product.scan)


def unseal(
    sealing: Sealing, reactor: Reactor, source: Path, target: Path, done: Callable[[str], None], *, sync: bool = False
) -> None:
    """Copies a file out of the quarantine, in pieces between other work. `done`: why it could not, "" if it did.
    `sync`: it is to be there after a crash. What an examiner looks at is removed then, and is never waited for: the
    disk may not have it before it is gone again."""
    pieces = sealing.pieces(source)
    out: Synced | BinaryIO
    try:
        out = Synced(target.open("wb")) if sync else target.open("wb")
    except OSError as error:
        done(f"the keeper's disk: {error.strerror}")
        return

    def step() -> None:
        why = ""
        piece: bytes | memoryview | None = None
        try:
            piece = next(pieces, None)
            if piece is not None:
                out.write(piece)
            elif isinstance(out, Synced):
                out.sync()
            else:
                out.flush()
        except NotSealed as wrong:
            why = str(wrong)
        except OSError as error:
            why = f"the keeper's disk: {error.strerror}"
        if piece is not None and not why:
            reactor.call_in(0, step)
            return
        out.close()
        if why:
            target.unlink(missing_ok=True)
        done(why)

    step()


def _named(keys: tuple[bytes, ...]) -> tuple[str, ...]:
    """Where an examiner finds them."""
    return tuple(f"keys/{hashlib.sha256(key).hexdigest()}" for key in keys)


def asked_of(product: Product) -> str:
    """What the policy asks of a product's files: one that was examined by another is examined again."""
    asked = (product.origin, product.scan, product.yara, *([product.password] if product.password else []))
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]
