"""The patch keeper: the process that keeps what came in, has it examined, and gathers signatures. It has no network.

It can lose files, refuse them and delay them; it cannot release one, since the installer believes people's signatures
alone. All the same it holds every upload to the policy again, and every verdict of an examiner to the file's hash.

    incoming/     being received
    quarantine/N  received, not released, and sealed (sealing); N.sig its detached signature, N.list its signed list
    plain/N       unsealed, while a reader of advisories looks at it
    fed/N-...     a pipe by which an examiner gets it, unsealed, once (feeding)
    tuf/          what is released (repository)

Not here: what is taken from other parts (receiving, sources), what operators ask (keeper_verbs), how files are released
(releases), what an examiner does (examiner).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.http import KeysSet
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.http.keys import Given, read_secrets
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.advice.desk import Desk
from cofferdam.brokers.patch.beside import LIST, another_way, is_list, signature_of, waits_for
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import UNDECIDED, FileRow, How, Pending, State
from cofferdam.brokers.patch.drops import Drops
from cofferdam.brokers.patch.examining import Examining, asked_of
from cofferdam.brokers.patch.feeding import FOLDER as FED
from cofferdam.brokers.patch.feeding import MODE as FED_MODE
from cofferdam.brokers.patch.figures import KEEPER
from cofferdam.brokers.patch.keeper_verbs import Verbs
from cofferdam.brokers.patch.receiving import Uploads
from cofferdam.brokers.patch.releases import Releases
from cofferdam.brokers.patch.repository import Repository, write_file
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.brokers.patch.sources import Fetching
from cofferdam.brokers.patch.witnesses import Witnesses, witnesses_of
from cofferdam.errors import StoreError
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import PatchRows, Product

AGAIN_SECONDS: Final = 5.0
"""How often what lacked room is tried again, where there is room now."""
RESERVE_BYTES: Final = 64 << 20
"""Room that uploads leave free."""
FILES_MOST: Final = 10_000
UNDECIDED_MOST: Final = 500
"""Files of one uploader that nobody has decided on."""
EARLY: Final = "early-"
EARLY_MOST: Final = 128
"""Signatures that wait for their files."""
REFUSED_BYTES: Final = 1 << 30
"""Refused files that are kept to be looked at, the newest; of others the hash stays."""
PIECE: Final = 4 << 20


class Keeper(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the patch keeper has no store")
        self.setting = setting
        self.store = setting.store
        for name in ("incoming", "quarantine", "keys", "drop", "plain", FED):
            (self.store / name).mkdir(mode=FED_MODE if name == FED else 0o750, exist_ok=True)
        for folder in ("incoming", "drop", "plain", FED):  # whoever was at it begins anew
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
        self.uploads = Uploads(self)
        self.fetching = Fetching(self, self.book)
        self.drops = Drops(self, self.fetching, setting.folders)
        self.sealing = Sealing(setting.secrets.get("quarantine"), encrypt=True)
        self.passwords: Mapping[str, str] = read_secrets(setting.secrets, setting.broker).passwords
        """What opens archives, by name."""
        self.examining = Examining(self)
        self.stopping = False
        self._severed = frozenset(setting.severed)
        self._stamp_at = self._again_at = 0.0
        self._days: int | None = None
        self._days_at = -1e9
        self._full = ""
        """Why the book could not be written lately."""
        self.witnesses = Witnesses({})
        self.desk = Desk(self)
        self._releases = Releases(self)
        self._verbs = Verbs(self, self._releases)
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
            sources=tuple(each for row in found for each in row.sources),
            fetches=tuple(each for row in found for each in row.fetches),
            laid=tuple(each for row in found for each in row.laid),
            encrypt=any(row.encrypt for row in found),
        )
        self.sealing = Sealing(self.setting.secrets.get("quarantine"), encrypt=self.rows.encrypt)
        self.repository = Repository(self.store / "tuf", first.root, self.setting.secrets.get("online"))
        self.witnesses = witnesses_of(self.rows, self.setting.secrets)
        self.desk.renew()
        for product in self.rows.products:
            for key in (*product.origin.files, *((product.yara,) if product.yara else ())):
                path = self.store / "keys" / hashlib.sha256(key).hexdigest()
                if not path.exists():
                    write_file(path, key)

    def _mend(self) -> None:
        """After a crash: what was half done is done, or begun anew."""
        for row in list(self.files.rows.values()):
            if not row.told:
                self._tell_taken(row, lambda _ok, _why: None)
            if row.state == "examining":
                self.setting.reactor.later(functools.partial(self.examining.add, row.number))
        self._releases.mend()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._take(policy)
        return self.uploads.work_by_policy() + self.fetching.work_by_policy()

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = frozenset(sides)
        self.uploads.sever("it" in self._severed)
        self.fetching.sever("it" in self._severed)

    def command(self, asked: Asked) -> None:
        if asked.verb != "secrets":
            self._verbs.command(asked)
            return
        given, before = asked.decode(Given), self.passwords
        self.passwords = now = given.secrets.passwords
        renewed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        self.setting.audit.note(
            KeysSet(
                wall_ns=self.now, side=clip(f"{self.setting.crew}/{self.setting.part}", 128),
                by=clip(given.by or "?", 128), keys=0, passwords=tuple(clip(one, 128) for one in renewed),
            )
        )  # fmt: skip
        asked.answer({"passwords": len(now)})

    def tick(self) -> None:
        self.examining.next()
        self.examining.watch()
        if not self.stopping:
            self.desk.tick()
        if not self.stopping and "it" not in self._severed:
            self.drops.tick()
        now = time.monotonic()
        if now - self._again_at > AGAIN_SECONDS and not self.stopping:
            self._again_at = now
            self._releases.try_again()
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
        self.stopping = True

    def end(self) -> None:
        self.uploads.drop_all()
        self.fetching.drop_all()
        self.drops.end()
        self.book.close()

    def halt(self) -> None:
        self.uploads.open.clear()
        self.fetching.open.clear()

    @property
    def busy(self) -> int:
        return len(self.uploads.open) + len(self.fetching.open)

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
        if self.sealing.unfit:
            found["patch-quarantine"] = self.sealing.unfit
        found.update(self.fetching.alarms())
        if self._full:
            found["patch-store"] = clip(self._full)
        if self.looked.refused:
            found["patch-not-believed"] = clip(f"the installer refuses what is released: {self.looked.refused}")
        if self.examining.unfit:
            found["patch-scanner"] = clip(f"nothing can be scanned: {self.examining.unfit}")
        waiting = [row for row in self.files.rows.values() if row.state in ("not-scanned", "failed")]
        if waiting:
            first = waiting[0]
            found["patch-not-examined"] = clip(f"{len(waiting)} files; {first.product}/{first.file}: {first.reason}")
        return found

    # --- what comes ---------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, records.Looked):
            self.looked = record
        elif source == "fetcher":
            self.fetching.on_record(record)
        else:
            self.uploads.on_record(record)

    def product_of(self, name: str) -> Product | None:
        return self.rows.product(name)

    @staticmethod
    def is_beside(product: Product, file: str) -> bool:
        return bool(signature_of(product, file)) or is_list(product, file)

    def why_not(self, product: str, version: str, file: str, by: str = "", how: How = "put") -> tuple[str, str]:
        """Why no such file is taken: (fault, detail), or ("", "")."""
        if self.stopping:
            return "busy", "the gate stops"
        said = self.product_of(product)
        if said is None:
            return "policy", f"there is no product {product}"
        if self.sealing.unfit:
            return "store", self.sealing.unfit
        if self.is_beside(said, file):
            return "", ""
        if len(self.files.rows) >= FILES_MOST and not self._over():
            return "room", f"the keeper has {FILES_MOST} files: reject some"
        for row in self.files.rows.values():
            if (row.product, row.version, row.file) == (product, version, file) and row.state not in (
                "refused",
                "rejected",
            ):
                if said.origin.proof == "two-sources" and row.state == "waiting" and another_way(row, by, how):
                    return "", ""
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

    def shut(self, product: str) -> str:
        for conduit in self.policy.conduits.values():
            if isinstance(conduit.terms, PatchRows) and conduit.terms.product(product) is not None:
                found = standing(conduit, self.policy.table.clocks, self.now)
                return "" if found.open else f"the conduit {conduit.name} is {found.says}"
        return ""

    def take_file(
        self, path: Path, product: str, version: str, file: str, size: int, sha256: str, by: str, how: How,
        word: Vouch | None, done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        """A file that is whole and synced goes into quarantine. `done`: (number, what it waits for, fault, why not)."""
        said = self.product_of(product)
        fault, why = self.why_not(product, version, file, by, how)
        if fault or said is None:  # another one of this name may have come meanwhile
            path.unlink(missing_ok=True)
            done(0, "", fault, why)
            return
        try:
            if self.is_beside(said, file):
                done(*self._take_beside(path, said, version, signature_of(said, file) or LIST, file))
                return
            if said.origin.proof == "two-sources" and (first := self._first(product, version, file)) is not None:
                self._take_second(first, path, sha256, by, how, word, done)
                return
            number = 1 + max((row.number for row in self.files.rows.values()), default=0)
            if len(self.files.rows) >= FILES_MOST and (over := self._over()) is not None:
                self._throw_away(over)
            path.rename(self.store / "quarantine" / str(number))
            row = FileRow(
                number=number, product=product, version=version, file=file, size=size, sha256=sha256, by=by, how=how,
                at=self.now, state="waiting", vouches=(word,) if word is not None else (),
            )  # fmt: skip
            row = self._with_beside(said, row)
            if not waits_for(said, row):
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
            done(number, waits_for(said, row) if row.state == "waiting" else "", "", "")
            if row.state == "examining":
                self.examining.add(number)

        self._tell_taken(row, told)

    def _first(self, product: str, version: str, file: str) -> FileRow | None:
        """The file of this name that waits for a second source."""
        for row in self.files.rows.values():
            if (row.product, row.version, row.file, row.state) == (product, version, file, "waiting"):
                return row
        return None

    def _take_second(
        self, row: FileRow, path: Path, sha256: str, by: str, how: How, word: Vouch | None,
        done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        """The same file by another way, or another one: then neither is what it seems."""
        path.unlink(missing_ok=True)
        second = f"{by} by {how}"
        same = sha256 == row.sha256
        why = "" if same else f"{second} brought SHA-256 {sha256}, another one under the same name"
        draft = events.SecondSource(
            wall_ns=self.now, number=row.number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, by=clip(by, 128), how=how, same=same, detail=clip(why),
        )  # fmt: skip

        def told(ok: bool, reason: str) -> None:
            now = self.files.get(row.number)
            if not ok or now is None or now.state != "waiting":
                done(0, "", "log", f"nothing can be recorded: {reason}" if not ok else "it was decided on meanwhile")
                return
            if not same:
                self.keep(replace(now, state="refused", reason=why))
                done(0, "", "differs", why)
                return
            vouches = now.vouches if word is None else (*now.vouches, word)
            self.keep(replace(now, state="examining", second=second, vouches=vouches))
            done(row.number, "", "", "")
            self.examining.add(row.number)

        self.setting.audit.record(draft, told)

    def _throw_away(self, row: FileRow) -> None:
        """The file and its row; the log knows of it what there was to know."""
        self.drop_files(row.number)
        self.forget(row.number)

    def drop_files(self, number: int) -> None:
        for name in (str(number), f"{number}.sig", f"{number}.list"):
            (self.store / "quarantine" / name).unlink(missing_ok=True)

    def forget(self, number: int) -> None:
        try:
            self.files.drop(number)
        except StoreError:
            self.files.rows.pop(str(number), None)  # it is there again after a restart, without its file

    def thin(self) -> None:
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

    def _early(self, product: str, version: str, base: str, ending: str) -> Path:
        """Where it lies until its file is there: by a hash, since three names are longer than one may be."""
        name = hashlib.sha256(f"{product}/{version}/{base}".encode()).hexdigest()
        return self.store / "quarantine" / f"{EARLY}{name}{ending}"

    def _take_beside(
        self, path: Path, product: Product, version: str, base: str, file: str
    ) -> tuple[int, str, str, str]:
        """A detached signature, or a signed list; of files that are here, or come later."""
        ending = ".list" if is_list(product, file) else ".sig"
        waiting = [
            row for row in self.files.rows.values()
            if (row.product, row.version, row.state) == (product.name, version, "waiting") and base in (row.file, LIST)
        ]  # fmt: skip
        early = list((self.store / "quarantine").glob(f"{EARLY}*"))
        if len(early) >= EARLY_MOST:  # the oldest has waited in vain
            min(early, key=lambda each: each.stat().st_mtime_ns).unlink(missing_ok=True)
        path.rename(self._early(product.name, version, base, ending))
        for row in waiting:
            fresh = self._with_beside(product, row)
            if not waits_for(product, fresh):
                self.files.put(row.number, replace(fresh, state="examining"))
                self.setting.reactor.later(functools.partial(self.examining.add, row.number))
        found = next((row.number for row in waiting), 1 << 52)
        return found, "" if found < 1 << 52 else f"the file {base}" if base != LIST else "the files of the list", "", ""

    def _with_beside(self, product: Product, row: FileRow) -> FileRow:
        """A file with what lies ready for it. A list and its signature stay for others of its version."""
        quarantine = self.store / "quarantine"
        base = LIST if product.origin.list else row.file
        early = [self._early(product.name, row.version, base, ending) for ending in (".sig", ".list")]
        needed = early if product.origin.list else early[:1]
        if not product.origin.detached or not all(each.exists() for each in needed):
            return row
        for each in needed:
            own = quarantine / f"{row.number}{each.suffix}"
            own.unlink(missing_ok=True)
            if product.origin.list:
                own.write_bytes(each.read_bytes())
            else:
                each.rename(own)
        return replace(row, signed=True)

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

    # --- what is kept of a file ---------------------------------------------------------------------------------------

    def examine(self, number: int) -> None:
        self.examining.examine(number)

    def as_asked(self, row: FileRow) -> bool:
        product = self.product_of(row.product)
        return product is not None and row.asked == asked_of(product)

    def keep(self, row: FileRow) -> None:
        """Puts a row, on disk if it can be: what it says is in the log, or is found anew after a restart."""
        try:
            self.files.put(row.number, row)
        except StoreError as error:
            self.files.rows[str(row.number)] = row
            self._full = str(error)

    def tell_installer(self) -> None:
        self.setting.senders["installer"].send(records.Fresh())
