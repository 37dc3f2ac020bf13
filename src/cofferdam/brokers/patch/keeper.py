"""The patch keeper: the process that keeps what came in, has it examined, and gathers signatures. It has no network.

It can lose files, refuse them and delay them; it cannot release one, since the installer believes people's signatures
alone. All the same it holds every upload to the policy again, and every verdict of an examiner to the file's hash.

    incoming/N    being received
    quarantine/N  received, not released; N.sig its detached signature
    tuf/          what is released (repository)

Not here: what operators ask (keeper_verbs), what an examiner does (examiner).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.advice.desk import Desk
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow, Judged, Pending, State
from cofferdam.brokers.patch.examiner import Order, Report
from cofferdam.brokers.patch.figures import KEEPER
from cofferdam.brokers.patch.keeper_verbs import Verbs
from cofferdam.brokers.patch.records import WINDOW_BYTES, Begin, Chunk, Declined, End, GiveUp, Room, Taken
from cofferdam.brokers.patch.repository import Repository, write_file
from cofferdam.brokers.patch.synced import Synced
from cofferdam.errors import CrossingError, StoreError
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import PatchRows, Product

EXAMINERS: Final = 2
"""Files that are looked at once."""
RESERVE_BYTES: Final = 64 << 20
"""Room that uploads leave free."""
SIGNATURE_BYTES: Final = 1 << 20
SIGNATURES: Final = (".asc", ".sig", ".minisig")
"""How a file's signature is called, behind the file's name."""
FILES_MOST: Final = 10_000
UNDECIDED_MOST: Final = 500
"""Files of one uploader that nobody has decided on."""
UNDECIDED: Final = ("waiting", "examining", "passed", "not-scanned", "failed")
UPLOADS_OF_ONE: Final = records.UPLOADS_MOST // 2
EARLY_MOST: Final = 128
"""Signatures that wait for their files."""
REFUSED_BYTES: Final = 1 << 30
"""Refused files that are kept to be looked at, the newest; of others the hash stays."""
PIECE: Final = 4 << 20


class Upload:
    """One that is being received."""

    def __init__(self, begin: Begin, path: Path, most: int) -> None:
        self.begin = begin
        self.path = path
        self.most = most
        self.size = 0
        self.granted = 0
        self.digest = hashlib.sha256()
        self.file = Synced(path.open("xb"))

    def drop(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class Keeper(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the patch keeper has no store")
        self.setting = setting
        self.store = setting.store
        for name in ("incoming", "quarantine", "keys", "drop"):
            (self.store / name).mkdir(mode=0o750, exist_ok=True)
        for folder in ("incoming", "drop"):  # whoever was at it begins anew
            for left in (self.store / folder).iterdir():
                with contextlib.suppress(OSError):
                    left.unlink()
        self.book = Book(self.store / "keeper.db")
        self.files: Table[FileRow] = Table(self.book, "file", FileRow)
        self.pending: Table[Pending] = Table(self.book, "pending", Pending)
        self.figures_ = Figures(KEEPER)
        self.looked = records.Looked(0)
        self.policy = setting.policy
        self.rows = PatchRows()
        self.repository: Repository = None  # type: ignore[assignment]
        self._uploads: dict[int, Upload] = {}
        self._last = 0
        self._examining: set[int] = set()
        self._queue: deque[int] = deque()
        self._stopping = False
        self._severed = frozenset(setting.severed)
        self._stamp_at = 0.0
        self._days: int | None = None
        self._days_at = -1e9
        self._full = ""
        """Why the book could not be written lately."""
        self.desk = Desk(self)
        self._verbs = Verbs(self)
        self._take(setting.policy)
        self._mend()

    @property
    def now(self) -> int:
        """UTC ns."""
        return self.setting.wall()

    # --- the gate -----------------------------------------------------------------------------------------------------

    def _take(self, policy: CompiledPolicy) -> None:
        self.policy = policy
        found = [conduit.terms for conduit in policy.conduits.values() if isinstance(conduit.terms, PatchRows)]
        if not found:
            raise StoreError("the patch keeper has no conduit")
        first = found[0]
        self.rows = replace(
            first,
            products=tuple(each for row in found for each in row.products),
            puts=tuple(each for row in found for each in row.puts),
            installs=tuple(each for row in found for each in row.installs),
            inventory=tuple(each for row in found for each in row.inventory),
        )
        self.repository = Repository(self.store / "tuf", first.root, self.setting.secrets.get("online"))
        self.desk.renew()
        for product in self.rows.products:
            for key in product.origin.keys:
                path = self.store / "keys" / hashlib.sha256(key).hexdigest()
                if not path.exists():
                    write_file(path, key)

    def _mend(self) -> None:
        """After a crash: what was half done is done, or begun anew."""
        for row in list(self.files.rows.values()):
            if not row.told:
                self._tell_taken(row, lambda _ok, _why: None)
            if row.state == "examining":
                self._queue.append(row.number)
        for pending in list(self.pending.rows.values()):
            self._verbs.finish_if_signed(pending, "the keeper")
        self.setting.reactor.later(self._examine_next)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._take(policy)
        ended = 0
        for number, upload in list(self._uploads.items()):
            if self.rows.may_put(upload.begin.who, upload.begin.product) is None:
                self._decline(number, upload.begin, "policy", "the policy does not let you upload this any more")
                ended += 1
        return ended

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = frozenset(sides)
        if "it" in self._severed:
            for number, upload in list(self._uploads.items()):
                self._decline(number, upload.begin, "severed", "an operator has cut this side off")

    def command(self, asked: Asked) -> None:
        self._verbs.command(asked)

    def tick(self) -> None:
        self._examine_next()
        if not self._stopping:
            self.desk.tick()
        now = time.monotonic()
        if now - self._stamp_at > 60:
            self._stamp_at = now
            self._mend_book()
            if now - self._days_at > 3600:
                self._days_at, self._days = now, self.repository.days_of_targets(self.now)
            try:
                fresh = self.repository.refresh()
            except OSError as error:
                self._full = f"the keeper's disk: {error.strerror}"
                return
            if fresh:
                self.tell_installer()

    def _mend_book(self) -> None:
        if self._full:
            self._full = ""
            for row in list(self.files.rows.values()):
                self.keep(row)

    def stop(self) -> None:
        self._stopping = True

    def end(self) -> None:
        for upload in self._uploads.values():
            upload.drop()
        self.book.close()

    def halt(self) -> None:
        self._uploads.clear()

    @property
    def busy(self) -> int:
        return len(self._uploads)

    def figures(self) -> Reported:
        states: dict[str, int] = {}
        for row in self.files.rows.values():
            states[row.state] = states.get(row.state, 0) + 1
        for state in State.__args__:  # type: ignore[attr-defined]
            self.figures_.set("patch_files", states.get(state, 0), state)
        self.desk.figure()
        return self.figures_.report()

    def alarms(self) -> dict[str, str]:
        found = self.desk.alarms()
        if unfit := self.repository.unfit:
            found["patch-root"] = clip(unfit)
        else:
            days = int((self.repository.root.signed.expires.timestamp() - self.now / 1e9) // 86_400)
            if (limit := next((limit for limit in (7, 30, 60) if days < limit), 0)) > 0:
                found["patch-root-expires"] = f"the root expires in {days} days (fewer than {limit})"
            left = self._days
            if left is not None and (limit := next((limit for limit in (7, 30, 60) if left < limit), 0)) > 0:
                found["patch-targets-expire"] = (
                    f"what is released is believed for {left} days more (fewer than {limit}): any release renews it"
                )
        if self._full:
            found["patch-store"] = clip(self._full)
        if self.looked.refused:
            found["patch-not-believed"] = clip(f"the installer refuses what is released: {self.looked.refused}")
        waiting = [row for row in self.files.rows.values() if row.state in ("not-scanned", "failed")]
        if waiting:
            first = waiting[0]
            found["patch-not-examined"] = clip(f"{len(waiting)} files; {first.product}/{first.file}: {first.reason}")
        return found

    # --- uploads ------------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, records.Looked):
            self.looked = record
        elif isinstance(record, Begin):
            if record.upload != self._last + 1:
                raise CrossingError(f"upload {record.upload} after {self._last}")
            self._last = record.upload
            self._begin(record)
        elif isinstance(record, (Chunk, End, GiveUp)):
            if record.upload > self._last:
                raise CrossingError(f"upload {record.upload}, which was not begun")
            upload = self._uploads.get(record.upload)
            if upload is None:
                return  # it was declined, and the intake has not heard of it yet
            if isinstance(record, Chunk):
                self._chunk(record, upload)
            elif isinstance(record, End):
                self._end_of(record, upload)
            else:
                upload.drop()
                del self._uploads[record.upload]

    def product_of(self, name: str) -> Product | None:
        return self.rows.product(name)

    def why_not(self, product: str, version: str, file: str) -> tuple[str, str]:
        """Why no such file is taken: (fault, detail), or ("", "")."""
        if self._stopping:
            return "busy", "the gate stops"
        said = self.product_of(product)
        if said is None:
            return "policy", f"there is no product {product}"
        if signature_of(said, file):
            return "", ""
        if len(self.files.rows) >= FILES_MOST and not self._over():
            return "room", f"the keeper has {FILES_MOST} files: reject some"
        for row in self.files.rows.values():
            if (row.product, row.version, row.file) == (product, version, file) and row.state not in (
                "refused",
                "rejected",
            ):
                return "conflict", f"there is a {product}/{version}/{file} already, as file {row.number} ({row.state})"
        return "", ""

    def _over(self) -> FileRow | None:
        """The oldest file that nothing more will become of."""
        gone = [row for row in self.files.rows.values() if row.state in ("rejected", "refused")]
        return min(gone, key=lambda row: row.number, default=None)

    def room(self, size: int) -> bool:
        free = os.statvfs(self.store)
        return free.f_bavail * free.f_frsize >= size + RESERVE_BYTES

    def too_much(self, by: str, size: int) -> str:
        """Why somebody may bring no more in before something becomes of what he brought, "" if he may: one uploader
        leaves the others room."""
        mine = [row.size for row in self.files.rows.values() if row.by == by and row.state in UNDECIDED]
        if len(mine) >= UNDECIDED_MOST:
            return f"{len(mine)} files of {by} wait already: have some released or rejected"
        free = os.statvfs(self.store)
        held = sum(mine)
        if held and held + size > (held + free.f_bavail * free.f_frsize) // 2:
            return f"files of {by} that wait hold {held} bytes, half of what there is: have some rejected"
        return ""

    def _begin(self, begin: Begin) -> None:
        fault, detail = self.why_not(begin.product, begin.version, begin.file)
        product = self.product_of(begin.product)
        if self.rows.may_put(begin.who, begin.product) is None or product is None:
            fault, detail = "policy", "the policy does not let you upload this"
        elif "it" in self._severed:
            fault, detail = "severed", "an operator has cut this side off"
        elif len(self._uploads) >= records.UPLOADS_MOST:
            fault, detail = "busy", f"{records.UPLOADS_MOST} uploads are under way"
        elif sum(1 for each in self._uploads.values() if each.begin.who == begin.who) >= UPLOADS_OF_ONE:
            fault, detail = "busy", f"{UPLOADS_OF_ONE} uploads of yours are under way"
        elif not fault and not signature_of(product, begin.file) and (why := self.too_much(begin.who, begin.size)):
            fault, detail = "room", why
        elif shut := self._shut(begin.product):
            fault, detail = "window", shut
        if fault or product is None:
            self._decline(begin.upload, begin, fault, detail)
            return
        most = SIGNATURE_BYTES if signature_of(product, begin.file) else product.most
        if begin.size > most:
            self._decline(begin.upload, begin, "room", f"{begin.size} bytes; {begin.product} has at most {most}")
            return
        if not self.room(begin.size):
            self._decline(begin.upload, begin, "store", "the keeper's disk is full")
            return
        try:
            upload = Upload(begin, self.store / "incoming" / str(begin.upload), most)
        except OSError as error:
            self._decline(begin.upload, begin, "store", f"the keeper's disk: {error.strerror}")
            return
        self._uploads[begin.upload] = upload
        self._grant(upload)

    def _shut(self, product: str) -> str:
        for conduit in self.policy.conduits.values():
            if isinstance(conduit.terms, PatchRows) and conduit.terms.product(product) is not None:
                found = standing(conduit, self.policy.table.clocks, self.now)
                return "" if found.open else f"the conduit {conduit.name} is {found.says}"
        return ""

    def _grant(self, upload: Upload) -> None:
        more = upload.size + WINDOW_BYTES - upload.granted
        if more >= WINDOW_BYTES // 2:
            upload.granted += more
            self.setting.senders["intake"].send(Room(upload.begin.upload, more))

    def _chunk(self, chunk: Chunk, upload: Upload) -> None:
        upload.size += len(chunk.data)
        if upload.size > upload.granted:
            raise CrossingError(f"upload {chunk.upload} has more bytes than it was given room for")
        begin = upload.begin
        if upload.size > upload.most:
            self._decline(begin.upload, begin, "room", f"{begin.product} has at most {upload.most} bytes")
            return
        try:
            upload.file.write(chunk.data)
        except OSError as error:
            self._decline(begin.upload, begin, "store", f"the keeper's disk: {error.strerror}")
            return
        upload.digest.update(chunk.data)
        self._grant(upload)

    def _end_of(self, end: End, upload: Upload) -> None:
        begin, sha256 = upload.begin, upload.digest.hexdigest()
        if sha256 != end.sha256:
            raise CrossingError(f"upload {end.upload} has another hash than was said")
        if not upload.size:
            self._decline(begin.upload, begin, "policy", "the file is empty")
            return
        del self._uploads[begin.upload]
        try:
            upload.file.sync()
            upload.file.close()
        except OSError as error:
            upload.drop()
            self._declined(begin.upload, begin, "store", f"the keeper's disk: {error.strerror}")
            return
        intake = self.setting.senders["intake"]

        def done(number: int, waits: str, fault: str, why: str) -> None:
            if fault:
                self._declined(begin.upload, begin, fault, why)
            else:
                intake.send(Taken(begin.upload, number, sha256, clip(waits)))

        self.take_file(
            upload.path, begin.product, begin.version, begin.file, upload.size, sha256, begin.who, "upload", done
        )

    def take_file(
        self, path: Path, product: str, version: str, file: str, size: int, sha256: str, by: str,
        how: Literal["upload", "put"], done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        """A file that is whole and synced goes into quarantine. `done`: (number, what it waits for, fault, why not)."""
        said = self.product_of(product)
        fault, why = self.why_not(product, version, file)
        if fault or said is None:  # another one of this name may have come meanwhile
            path.unlink(missing_ok=True)
            done(0, "", fault, why)
            return
        base = signature_of(said, file)
        try:
            if base:
                done(*self._take_signature(path, product, version, base))
                return
            number = 1 + max((row.number for row in self.files.rows.values()), default=0)
            if len(self.files.rows) >= FILES_MOST and (over := self._over()) is not None:
                self._throw_away(over)
            path.rename(self.store / "quarantine" / str(number))
            row = FileRow(
                number=number, product=product, version=version, file=file, size=size, sha256=sha256, by=by, how=how,
                at=self.now, state="waiting",
            )  # fmt: skip
            early = self.store / "quarantine" / f"{product}+{version}+{file}.sig"
            if early.exists():
                early.rename(self.store / "quarantine" / f"{number}.sig")
                row = replace(row, signed=True)
            if row.signed or not said.origin.detached:
                row = replace(row, state="examining")
            self.files.put(number, row)
        except (OSError, StoreError) as error:
            path.unlink(missing_ok=True)
            done(0, "", "store", f"the keeper's disk: {getattr(error, 'strerror', None) or error}")
            return
        self.figures_.add("patch_taken")

        def told(ok: bool, reason: str) -> None:
            if not ok:
                self._throw_away(row)  # it is not acknowledged, and may come again
                done(0, "", "log", f"nothing can be recorded: {reason}")
                return
            waits = f"its signature, {file}{' or '.join(SIGNATURES)}" if row.state == "waiting" else ""
            done(number, waits, "", "")
            if row.state == "examining":
                self._queue.append(number)
                self._examine_next()

        self._tell_taken(row, told)

    def _throw_away(self, row: FileRow) -> None:
        """The file and its row; the log knows of it what there was to know."""
        for name in (str(row.number), f"{row.number}.sig"):
            (self.store / "quarantine" / name).unlink(missing_ok=True)
        self.forget(row.number)

    def forget(self, number: int) -> None:
        try:
            self.files.drop(number)
        except StoreError:
            self.files.rows.pop(str(number), None)  # it is there again after a restart, without its file

    def _thin(self) -> None:
        """Refused files are kept while there is room for them."""
        kept = 0
        for row in sorted(self.files.rows.values(), key=lambda row: -row.number):
            if row.state == "refused":
                kept += row.size
                if kept > REFUSED_BYTES or not self.room(0):
                    (self.store / "quarantine" / str(row.number)).unlink(missing_ok=True)

    def _tell_taken(self, row: FileRow, done: Callable[[bool, str], None]) -> None:
        def told(ok: bool, reason: str) -> None:
            now = self.files.get(row.number)
            if ok and now is not None:
                self.keep(replace(now, told=True))
            done(ok, reason)

        draft = events.FileTaken(
            wall_ns=row.at, number=row.number, product=row.product, version=row.version, file=row.file, size=row.size,
            sha256=row.sha256, by=clip(row.by, 128), how=row.how,
        )  # fmt: skip
        self.setting.audit.record(draft, told)

    def _take_signature(self, path: Path, product: str, version: str, base: str) -> tuple[int, str, str, str]:
        """The detached signature of a file that is here, or comes later."""
        for row in self.files.rows.values():
            if (row.product, row.version, row.file) == (product, version, base) and row.state == "waiting":
                path.rename(self.store / "quarantine" / f"{row.number}.sig")
                self.files.put(row.number, replace(row, signed=True, state="examining"))
                self._queue.append(row.number)
                self.setting.reactor.later(self._examine_next)
                return row.number, "", "", ""
        early = [each for each in (self.store / "quarantine").glob("*+*+*.sig")]
        if len(early) >= EARLY_MOST:  # the oldest has waited in vain
            min(early, key=lambda each: each.stat().st_mtime_ns).unlink(missing_ok=True)
        path.rename(self.store / "quarantine" / f"{product}+{version}+{base}.sig")
        return 1 << 52, f"the file {base}", "", ""

    def _decline(self, number: int, begin: Begin, fault: str, detail: str) -> None:
        upload = self._uploads.pop(number, None)
        if upload is not None:
            upload.drop()
        self._declined(number, begin, fault, detail)

    def _declined(self, number: int, begin: Begin, fault: str, detail: str) -> None:
        self.setting.senders["intake"].send(Declined(number, fault[:32] or "policy", clip(detail)))
        self.note_refused(begin.product, begin.version, begin.file, begin.who, fault, detail)

    def note_refused(self, product: str, version: str, file: str, by: str, fault: str, detail: str) -> None:
        self.figures_.add("patch_refused")
        self.setting.audit.note(
            events.FileRefused(
                wall_ns=self.now,
                product=clip(product, 128),
                version=clip(version, 128),
                file=clip(file, 128),
                by=clip(by, 128),
                fault=fault,
                detail=clip(detail),
            )
        )

    # --- examining ----------------------------------------------------------------------------------------------------

    def examine(self, number: int) -> None:
        """Puts a file before an examiner (again)."""
        row = self.files.get(number)
        if row is not None:
            self.files.put(number, replace(row, state="examining", reason="", report=None))
            self._queue.append(number)
            self._examine_next()

    def _examine_next(self) -> None:
        while self._queue and len(self._examining) < EXAMINERS and not self._stopping:
            number = self._queue.popleft()
            row = self.files.get(number)
            product = self.product_of(row.product) if row is not None else None
            if row is None or row.state != "examining" or number in self._examining:
                continue
            if product is None:
                self._judge(number, None, f"the policy has no product {row.product} any more")
                continue
            order = Order(
                file=f"quarantine/{number}",
                proof=product.origin.proof,
                keys=tuple(f"keys/{hashlib.sha256(key).hexdigest()}" for key in product.origin.keys),
                publisher=product.origin.publisher,
                signature=f"quarantine/{number}.sig" if row.signed else "",
                scan=product.scan,
            )
            self.keep(replace(row, asked=asked_of(product)))
            self._examining.add(number)
            self.setting.run_job("examiner", msgspec.json.encode(order), functools.partial(self._examined, number))

    def _examined(self, number: int, result: bytes, error: str) -> None:
        self._examining.discard(number)
        report: Report | None = None
        if not error:
            try:
                report = msgspec.json.decode(result, type=Report)
            except msgspec.MsgspecError as wrong:
                error = f"the examiner's answer makes no sense: {wrong}"
        self._judge(number, report, error)
        self._examine_next()

    def _judge(self, number: int, report: Report | None, error: str) -> None:
        row = self.files.get(number)
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
            elif report.scan == "found":
                state, reason = "refused", f"the scanner found {report.scan_detail}"
            elif report.scan == "not scanned" or (report.scan == "not asked" and self._scans(row)):
                state, reason = "not-scanned", report.scan_detail or "no scanner has looked at it"
            else:
                state, reason = "passed", ""
        draft = events.FileExamined(
            wall_ns=self.now, number=number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, verdict=state, origin=clip(report.origin if report else ""),
            scan=clip(f"{report.scan} {report.base}" if report else ""), detail=clip(reason),
        )  # fmt: skip

        def told(ok: bool, why: str) -> None:
            now = self.files.get(number)
            if now is None or now.state != "examining":
                return
            if ok:
                self.keep(replace(now, state=state, reason=reason, report=report))
                self.figures_.add("patch_examined")
                self._thin()
            else:
                self.keep(replace(now, state="failed", reason=f"nothing can be recorded: {why}"))

        self.setting.audit.record(draft, told)

    def as_asked(self, row: FileRow) -> bool:
        product = self.product_of(row.product)
        return product is not None and row.asked == asked_of(product)

    def _scans(self, row: FileRow) -> bool:
        product = self.product_of(row.product)
        return product is not None and bool(product.scan)

    def keep(self, row: FileRow) -> None:
        """Puts a row, on disk if it can be: what it says is in the log, or is found anew after a restart."""
        try:
            self.files.put(row.number, row)
        except StoreError as error:
            self.files.rows[str(row.number)] = row
            self._full = str(error)

    def tell_installer(self) -> None:
        self.setting.senders["installer"].send(records.Fresh())


def asked_of(product: Product) -> str:
    """What the policy asks of a product's files: one that was examined by another is examined again."""
    return hashlib.sha256(msgspec.json.encode((product.origin, product.scan))).hexdigest()[:32]


def signature_of(product: Product, file: str) -> str:
    """The file whose detached signature this is, by its name; "" for one that is none."""
    if not product.origin.detached:
        return ""
    return next((file[: -len(end)] for end in SIGNATURES if file.endswith(end) and len(file) > len(end)), "")


def encoded(blob: str) -> bytes:
    return base64.b64decode(blob)
