"""The keeper's work with advisories: has documents read, keeps what they say, runs the clocks, takes people's answers.

A document comes like any file: quarantine, proof of origin, scan. One of a product of `kind: advisories` that passed is
read by a process of its own and then stays, to be read again when the inventory or an SBOM changes; it is never
released. A document that is older than what is known of an advisory changes nothing.

    evaluate   says of assets whether an advisory concerns them; of those that are unknown only where it is said so
    mitigate   a dated plan; it counts once somebody else has approved it
    state      where the patch stands at an asset

Recorded, then done. Not here: rules of clocks (ledger), reading (reader).
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Setting
from cofferdam.brokers.kit.figures import Figures
from cofferdam.brokers.patch import told
from cofferdam.brokers.patch.advice import ledger
from cofferdam.brokers.patch.advice.asking import ApprovePlan, Evaluate, MakePlan, SetState, Which
from cofferdam.brokers.patch.advice.ledger import NS, Answer, Change, Mitigation, Row
from cofferdam.brokers.patch.advice.records import Advice, Reading, ReadOrder
from cofferdam.brokers.patch.asks import By
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.examining import unseal
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.errors import GateError, StoreError
from cofferdam.policy.terms.patch_rows import PatchRows, Product

LISTED_MOST: Final = 2_000
"""Advisories that are listed at once: those that wait for somebody first, then the newest."""
WAITING: Final = ("open", "to plan", "overdue")
ROWS_MOST: Final = 20_000
"""Advisories that are kept."""
BOMS_MOST: Final = 200
LOOK_SECONDS: Final = 30 * NS
PLAIN: Final = "advice-"
"""How a document is called while a reader looks at it."""
NAMES: Final = 16
STANDINGS: Final = ("open", "to plan", "planned", "done", "overdue")


class Document(Struct, frozen=True, kw_only=True):
    """A document that was read. `stamp`: by which inventory and SBOMs."""

    number: int
    kind: str
    stamp: str


class Keeping(Protocol):
    """The keeper, as its desk knows it."""

    setting: Setting
    store: Path
    book: Book
    files: Table[FileRow]
    rows: PatchRows
    figures_: Figures
    sealing: Sealing

    def drop_files(self, number: int) -> None:
        """A file in quarantine and what lies beside it."""

    @property
    def now(self) -> int:
        """UTC ns."""

    def product_of(self, name: str) -> Product | None:
        """By the policy in force."""

    def keep(self, row: FileRow) -> None:
        """Puts a row, on disk if it can be."""


_Merged = tuple[Row, tuple[str, ...], bool]
"""The row, assets whose answers are taken back, whether anything is new."""


class Desk:
    """The keeper's."""

    def __init__(self, keeper: Keeping) -> None:
        self._keeper = keeper
        self.rows: Table[Row] = Table(keeper.book, "advice", Row)
        self._documents: Table[Document] = Table(keeper.book, "document", Document)
        self._reading = 0
        """The document that is being read; 0: none."""
        self._looked = 0
        self._counts: Counter[str] = Counter()
        self._first_overdue = ""
        self._telling: set[str] = set()
        self._deciding: set[str] = set()
        self._stamp = ""
        self._inventory: PatchRows | None = None
        self.verbs: dict[str, Callable[[Asked], None]] = {
            "advisories": self._list,
            "advisory": self._show,
            "evaluate": self._evaluate,
            "state": self._state,
            "mitigate": self._plan,
            "approve-plan": self._approve,
        }

    # --- documents ----------------------------------------------------------------------------------------------------

    def is_document(self, row: FileRow) -> bool:
        product = self._keeper.product_of(row.product)
        return product is not None and product.kind == "advisories"

    def _boms(self) -> tuple[int, ...]:
        return tuple(sorted(
            one.number for one in self._documents.rows.values()
            if one.kind == "sbom" and (row := self._keeper.files.get(one.number)) is not None and row.state == "read"
        ))[-BOMS_MOST:]  # fmt: skip

    def _stamp_now(self) -> str:
        text = msgspec.json.encode((self._keeper.rows.inventory, self._boms()))
        return hashlib.sha256(text).hexdigest()[:32]

    def renew(self) -> None:
        """The policy, or an SBOM, may be another one."""
        self._stamp = self._stamp_now()
        self._looked = 0

    def tick(self) -> None:
        keeper = self._keeper
        if not self._stamp:
            self.renew()
        if not self._reading:
            self._read_next()
        if keeper.now - self._looked >= LOOK_SECONDS or keeper.now < self._looked:
            self._looked = keeper.now
            self._look()

    def _read_next(self) -> None:
        keeper = self._keeper
        for row in keeper.files.rows.values():
            if row.state not in ("passed", "read") or not self.is_document(row):
                continue
            known = self._documents.get(row.number)
            if row.state == "read" and known is not None and (known.stamp == self._stamp or known.kind == "sbom"):
                continue
            product = keeper.product_of(row.product)
            boms = self._boms()
            order = ReadOrder(
                file=f"plain/{PLAIN}{row.number}", name=row.file, provider=product.provider if product else "",
                inventory=keeper.rows.inventory, boms=tuple(f"plain/{PLAIN}{number}" for number in boms),
            )  # fmt: skip
            self._reading = row.number
            self._unseal(row.number, [row.number, *boms], order)
            return

    def _unseal(self, number: int, files: list[int], order: ReadOrder) -> None:
        """Lays out for the reader what it is to look at, then orders it."""
        keeper, done = self._keeper, functools.partial(self._read, number, self._stamp)

        def next_file(error: str) -> None:
            if error:
                done(b"", error)
            elif files:
                name = files.pop()
                target = keeper.store / "plain" / f"{PLAIN}{name}"
                source = keeper.store / "quarantine" / str(name)
                unseal(keeper.sealing, keeper.setting.reactor, source, target, next_file)
            else:
                keeper.setting.run_job("reader", msgspec.json.encode(order), done)

        next_file("")

    def _read(self, number: int, stamp: str, result: bytes, error: str) -> None:
        for left in (self._keeper.store / "plain").glob(f"{PLAIN}*"):
            left.unlink(missing_ok=True)
        row = self._keeper.files.get(number)
        if row is None or row.state not in ("passed", "read"):
            self._reading = 0
            return
        reading = Reading()
        if not error:
            try:
                reading = msgspec.json.decode(result, type=Reading)
            except (msgspec.MsgspecError, UnicodeDecodeError) as wrong:
                error = f"the reader's answer makes no sense: {wrong}"
        if error:
            self._reading = 0
            self._keeper.keep(replace(row, state="failed", reason=clip(f"it cannot be read: {error}", 500)))
            return
        refused = reading.refused or self._wrong(row, reading)
        if refused:
            self._refuse(row, refused)
            return
        self._take(row, reading, stamp)

    def _wrong(self, row: FileRow, reading: Reading) -> str:
        """What a reader that was taken over might say."""
        product = self._keeper.product_of(row.product)
        assets = {one.asset for one in self._keeper.rows.inventory}
        if reading.kind not in ("csaf", "list", "sbom") or product is None:
            return "the reader does not say what it is"
        if reading.provider.rstrip("/") != product.provider.rstrip("/")[:300]:
            return f"it is published by {reading.provider}"
        if any(match.asset not in assets for advice in reading.advice for match in advice.matches):
            return "the reader names an asset that is none"
        if len({advice.id for advice in reading.advice}) != len(reading.advice):
            return "it has an advisory twice"
        fresh = sum(1 for advice in reading.advice if f"{row.product}/{advice.id}" not in self.rows.rows)
        if len(self.rows.rows) + fresh > ROWS_MOST:
            return f"there is no room for more than {ROWS_MOST} advisories"
        return ""

    def _refuse(self, row: FileRow, reason: str) -> None:
        draft = events.FileExamined(
            wall_ns=self._keeper.now, number=row.number, product=row.product, version=row.version, file=row.file,
            sha256=row.sha256, verdict="refused", detail=clip(reason),
        )  # fmt: skip

        def told(ok: bool, why: str) -> None:
            self._reading = 0
            state, said = ("refused", reason) if ok else ("failed", f"nothing can be recorded: {why}")
            self._keeper.keep(replace(row, state=state, reason=said))

        self._keeper.setting.audit.record(draft, told)

    def _take(self, row: FileRow, reading: Reading, stamp: str) -> None:
        keeper, now = self._keeper, self._keeper.now
        news = any(found[2] for found in self._changes(row, reading))
        draft = events.AdvisoriesRead(
            wall_ns=now, number=row.number, product=row.product, file=row.file, sha256=row.sha256,
            what=reading.kind or "csaf", provider=clip(reading.provider), advisories=len(reading.advice),
            named=sum(1 for advice in reading.advice if advice.matches),
        )  # fmt: skip

        def told(ok: bool, why: str) -> None:
            self._reading = 0
            fresh = keeper.files.get(row.number)
            if fresh is None or fresh.state not in ("passed", "read"):
                return
            if not ok:
                keeper.keep(replace(fresh, state="failed", reason=f"nothing can be recorded: {why}"))
                return
            changes = self._changes(row, reading)  # once more: people may have said something meanwhile
            try:
                self.rows.put_all({found[0].key: found[0] for found in changes})
                self._documents.put(row.number, Document(number=row.number, kind=reading.kind, stamp=stamp))
                keeper.files.put(row.number, replace(fresh, state="read", reason=""))
            except StoreError:
                return  # it is read again
            for found in changes:
                if found[2]:
                    keeper.setting.audit.note(self._matched(found[0], found[1]))
            self._let_go(row.product)
            if reading.kind == "sbom":
                self.renew()
            self._looked = 0

        if row.state == "read" and not news:  # read again, and nothing is new
            told(True, "")
            return
        keeper.setting.audit.record(draft, told)

    def _changes(self, row: FileRow, reading: Reading) -> list[_Merged]:
        now = self._keeper.now
        merged = (self._merged(row, reading.provider, advice, now) for advice in reading.advice)
        return [found for found in merged if found is not None]

    def _merged(self, row: FileRow, provider: str, advice: Advice, now: int) -> _Merged | None:
        """None: the document is older than what is known."""
        known = self.rows.get(f"{row.product}/{advice.id}")
        if known is None:
            start = ledger.start_of(advice.released, row.at, self._keeper.rows.duties)
            vendor = ((advice.vendor, now),) if advice.vendor else ()
            made = Row(
                product=row.product, file=row.number, provider=provider, advice=advice, at=row.at, start=start,
                vendor=vendor,
            )  # fmt: skip
            return made, (), True
        if known.file != row.number and (advice.released, row.number) < (known.advice.released, known.file):
            return None
        fresh, gone = ledger.revised(known, advice, row.number, provider, now)
        return fresh, gone, fresh.advice != known.advice or bool(gone)

    def _matched(self, row: Row, gone: tuple[str, ...]) -> Draft:
        def some(verdict: str) -> tuple[str, ...]:
            return tuple(one.asset for one in row.advice.matches if one.verdict == verdict)

        parts = {verdict: some(verdict) for verdict in ("affected", "not affected", "unknown")}
        due = row.start + self._keeper.rows.duties.evaluate * NS
        return events.AdvisoryMatched(
            wall_ns=self._keeper.now, advisory=row.advice.id, product=row.product, number=row.file,
            revision=row.advice.revision, available=ledger.day(row.start), affected=parts["affected"][:NAMES],
            not_affected=parts["not affected"][:NAMES], unknown=parts["unknown"][:NAMES],
            more=sum(max(0, len(found) - NAMES) for found in parts.values()), taken_back=gone[:NAMES],
            evaluate_by=ledger.day(due),
        )  # fmt: skip

    def _let_go(self, product: str) -> None:
        """Documents that nothing is known by any more: newer ones have taken their place."""
        used = {row.file for row in self.rows.rows.values()}
        for document in list(self._documents.rows.values()):
            row = self._keeper.files.get(document.number)
            if row is None:
                self._documents.drop(document.number)
            elif document.kind != "sbom" and row.product == product and row.state == "read" and row.number not in used:
                self._keeper.keep(replace(row, state="rejected", reason="a newer document has taken its place"))
                self._keeper.drop_files(row.number)

    # --- clocks -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Counts, and tells the log of each clock that ran out, once."""
        now, duties = self._keeper.now, self._keeper.rows.duties
        counts: Counter[str] = Counter()
        first: tuple[int, str] | None = None
        for row in self.rows.rows.values():
            counts[ledger.standing(row, duties, now)] += 1
            for clock in ledger.clocks(row, duties, now):
                if not clock.overdue:
                    continue
                text = f"{row.advice.id}: {clock.name} was due {ledger.day(clock.due)}"
                if first is None or clock.due < first[0]:
                    first = (clock.due, text)
                if clock.key not in row.told and row.key not in self._telling and len(self._telling) < 64:
                    self._tell(row, clock)
        self._counts = counts
        self._first_overdue = first[1] if first is not None else ""

    def _tell(self, row: Row, clock: ledger.Clock) -> None:
        self._telling.add(row.key)
        draft = events.AdvisoryOverdue(
            wall_ns=self._keeper.now, advisory=row.advice.id, product=row.product, clock=clock.name,
            due=ledger.day(clock.due), assets=clock.assets[:NAMES], count=len(clock.assets),
        )  # fmt: skip

        def told(ok: bool, _why: str) -> None:
            self._telling.discard(row.key)
            fresh = self.rows.get(row.key)
            if ok and fresh is not None:
                try:
                    self.rows.put(row.key, replace(fresh, told=(*fresh.told, clock.key)[-64:]))
                except StoreError:
                    self.rows.rows[row.key] = replace(fresh, told=(*fresh.told, clock.key)[-64:])

        self._keeper.setting.audit.record(draft, told)

    def alarms(self) -> dict[str, str]:
        count = self._counts["overdue"]
        if not count:
            return {}
        return {"patch-advisories-overdue": clip(f"{count} advisories are overdue; {self._first_overdue}")}

    def figure(self) -> None:
        for state in STANDINGS:
            self._keeper.figures_.set("patch_advisories", self._counts[state], state.replace(" ", "-"))

    # --- what people ask ----------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Row:
        """By its id, or PRODUCT/ID where two have it. Raises: GateError."""
        exact = self.rows.get(name)
        found = [exact] if exact else [row for row in self.rows.rows.values() if row.advice.id == name]
        if not found:
            raise GateError(f"there is no advisory {name!r}", hint="`cofferdam patch advisories` shows which there are")
        if len(found) > 1:
            raise GateError(f"several have the id {name}: {', '.join(sorted(row.key for row in found))}")
        return found[0]

    def _told(self, row: Row, *, short: bool) -> told.Advisory:
        duties, now = self._keeper.rows.duties, self._keeper.now
        verdicts = Counter(match.verdict for match in row.advice.matches)
        found: told.Advisory = {
            "advisory": row.advice.id, "product": row.product, "provider": row.provider, "title": row.advice.title,
            "revision": row.advice.revision, "available": ledger.day(row.start), "severity": row.advice.severity,
            "standing": ledger.standing(row, duties, now), "file": row.file,
            "affected": verdicts["affected"], "not_affected": verdicts["not affected"], "unknown": verdicts["unknown"],
            "clocks": [
                {"clock": clock.name, "due": ledger.day(clock.due), "overdue": clock.overdue,
                 "assets": list(clock.assets[:50]), "plan": clock.plan}
                for clock in ledger.clocks(row, duties, now)
            ],
        }  # fmt: skip
        if not short:
            known = {one.asset for one in self._keeper.rows.inventory}
            found |= {
                "vulnerabilities": row.advice.vulnerabilities, "patch": row.advice.patch,
                "vendor_states": [{"state": state, "at": at} for state, at in row.vendor],
                "assets": [self._asset(row, asset) for asset in sorted(known | set(row.answers) | set(row.states))],
                "rest": msgspec.to_builtins(row.rest) if row.rest else None,
                "evaluated": row.evaluated,
                "plans": [msgspec.to_builtins(plan) for plan in row.plans],
            }  # fmt: skip
        return found

    @staticmethod
    def _asset(row: Row, asset: str) -> told.AdvisedAsset:
        match, answer = row.verdict(asset), row.answers.get(asset)
        return {
            "asset": asset, "verdict": match.verdict, "why": match.why,
            "named": any(one.asset == asset for one in row.advice.matches),
            "applies": answer.applies if answer else None, "note": answer.note if answer else "",
            "by": answer.by if answer else "", "at": answer.at if answer else 0,
            "state": row.state(asset), "states": [msgspec.to_builtins(one) for one in row.states.get(asset, ())],
        }  # fmt: skip

    @property
    def counts(self) -> dict[str, int]:
        """How many stand where."""
        return {state: count for state in STANDINGS if (count := self._count(state))}

    def soonest(self) -> told.Soonest | None:
        """The clock that is due first."""
        duties, now = self._keeper.rows.duties, self._keeper.now
        running = ((clock, row) for row in self.rows.rows.values() for clock in ledger.clocks(row, duties, now))
        found = min(running, key=lambda each: each[0].due, default=None)
        if found is None:
            return None
        clock, row = found
        return {"advisory": row.advice.id, "clock": clock.name, "due": ledger.day(clock.due), "overdue": clock.overdue,
                "assets": list(clock.assets[:50])}  # fmt: skip

    def _list(self, asked: Asked) -> None:
        asked.decode(By)
        duties, now = self._keeper.rows.duties, self._keeper.now
        rows = sorted(self.rows.rows.values(), key=lambda row: (row.start, row.key))
        rows.sort(key=lambda row: ledger.standing(row, duties, now) in WAITING)  # those are left out last
        shown = sorted(rows[-LISTED_MOST:], key=lambda row: (row.start, row.key))
        answer: told.Advisories = {
            "counts": {state: self._count(state) for state in STANDINGS},
            "advisories": [self._told(row, short=True) for row in shown],
        }
        asked.answer(answer)

    def _count(self, state: str) -> int:
        duties, now = self._keeper.rows.duties, self._keeper.now
        return sum(1 for row in self.rows.rows.values() if ledger.standing(row, duties, now) == state)

    def _show(self, asked: Asked) -> None:
        asked.answer(self._told(self._find(asked.decode(Which).advisory), short=False))

    def _decide(self, asked: Asked, row: Row, draft: Draft, change: Callable[[Row], Row]) -> None:
        """Recorded, then done to the row as it is then, then answered."""
        if row.key in self._deciding:
            raise GateError(f"{row.advice.id} is being decided on by somebody else", hint="look again in a moment")
        self._deciding.add(row.key)

        def told(ok: bool, why: str) -> None:
            self._deciding.discard(row.key)
            if not ok:
                asked.refuse(f"nothing can be recorded: {why}", "nothing has changed")
                return
            try:
                fresh = change(self.rows.get(row.key) or row)
                self.rows.put(row.key, fresh)
            except StoreError as error:
                asked.refuse(f"the keeper's disk: {error}")
                return
            self._looked = 0
            asked.answer(self._told(fresh, short=False))

        self._keeper.setting.audit.record(draft, told)

    def _known(self, assets: tuple[str, ...], row: Row) -> None:
        known = {one.asset for one in self._keeper.rows.inventory} | set(row.answers)
        for asset in assets:
            if asset not in known:
                raise GateError(f"{asset!r} is not in the policy's `inventory:`")

    def _evaluate(self, asked: Asked) -> None:
        said, now = asked.decode(Evaluate), self._keeper.now
        row = self._find(said.advisory)
        self._known(said.assets, row)
        applies = said.applies
        if applies is None and (said.rest or not said.assets):
            self._as_matched(asked, row, said)
            return
        if applies is None:
            raise GateError("say whether it applies to them", hint="--applies or --does-not-apply")
        if not said.assets and not said.rest:
            raise GateError("say of which assets", hint="--asset NAME, or --rest for all that it does not name")
        if applies and said.rest:
            raise GateError("that it applies is said of named assets", hint="--asset NAME")
        answers = {asset: Answer(applies=applies, note=said.note, by=said.by, at=now, match=row.verdict(asset).verdict)
                   for asset in said.assets}  # fmt: skip
        rest = Answer(applies=False, note=said.note, by=said.by, at=now) if said.rest else None
        self._answer(asked, row, said, answers, rest, applies=applies)

    def _as_matched(self, asked: Asked, row: Row, said: Evaluate) -> None:
        """Takes the document's word, where it gives one. What is unknown is for a person to say."""
        unknown = [one.asset for one in row.advice.matches if one.verdict == "unknown" and one.asset not in row.answers]
        if unknown:
            raise GateError(
                f"what {row.advice.id} says of {', '.join(unknown[:8])} is not known",
                hint="say it of each: --asset NAME with --applies or --does-not-apply",
            )
        if not said.rest and row.rest is None:
            raise GateError(
                f"{row.advice.id} does not name all assets, and nobody has said that it does not concern the others",
                hint="--rest says so",
            )
        now = self._keeper.now
        answers = {
            one.asset: Answer(applies=one.verdict == "affected", note=said.note, by=said.by, at=now, match=one.verdict)
            for one in row.advice.matches if one.asset not in row.answers
        }  # fmt: skip
        rest = Answer(applies=False, note=said.note, by=said.by, at=now) if said.rest else None
        self._answer(asked, row, said, answers, rest, applies=any(one.applies for one in answers.values()))

    def _answer(
        self, asked: Asked, row: Row, said: Evaluate, answers: dict[str, Answer], rest: Answer | None, *, applies: bool
    ) -> None:
        now = self._keeper.now
        after = ledger.answered(row, answers, rest, now)
        due = after.evaluated + self._keeper.rows.duties.plan * NS
        concerned = tuple(sorted(asset for asset, one in answers.items() if one.applies == applies))
        draft = events.AdvisoryEvaluated(
            wall_ns=now, advisory=row.advice.id, product=row.product, by=clip(said.by, 128),
            assets=concerned[:NAMES], count=len(concerned), applies=applies, rest=rest is not None,
            complete=bool(after.evaluated), plan_by=ledger.day(due) if after.evaluated and after.concerned else "",
            detail=clip(said.note),
        )  # fmt: skip
        self._decide(asked, row, draft, lambda fresh: ledger.answered(fresh, answers, rest, now))

    def _state(self, asked: Asked) -> None:
        said, now = asked.decode(SetState), self._keeper.now
        row = self._find(said.advisory)
        self._known(said.assets, row)
        if len(said.assets) != 1:
            raise GateError("say it of one asset at a time")
        asset = said.assets[0]
        draft = events.PatchStateSet(
            wall_ns=now, advisory=row.advice.id, product=row.product, asset=asset, state=said.state,
            by=clip(said.by, 128), detail=clip(said.note),
        )  # fmt: skip
        change = Change(said.state, said.by, now, said.note[:300])
        self._decide(asked, row, draft, lambda fresh: ledger.moved(fresh, asset, change))

    def _plan(self, asked: Asked) -> None:
        said, now = asked.decode(MakePlan), self._keeper.now
        row = self._find(said.advisory)
        assets = said.assets or tuple(asset for asset in row.concerned if not row.settled(asset))
        if not assets:
            raise GateError(f"{row.advice.id} concerns no asset that does not have it", hint="evaluate it first")
        for asset in assets:
            if asset not in row.concerned:
                raise GateError(f"nobody has said that {row.advice.id} concerns {asset}", hint="evaluate it first")
        if said.until <= now:
            raise GateError("the plan's date is over already")
        if len(row.plans) >= ledger.PLANS_MOST:
            raise GateError(f"{row.advice.id} has {ledger.PLANS_MOST} plans")
        plan = Mitigation(
            number=1 + max((one.number for one in row.plans), default=0), assets=assets, owner=said.owner,
            text=said.text, until=said.until, by=said.by, at=now,
        )  # fmt: skip
        draft = events.MitigationPlanned(
            wall_ns=now, advisory=row.advice.id, product=row.product, plan=plan.number, assets=assets[:NAMES],
            count=len(assets), owner=clip(said.owner, 128), detail=clip(said.text), until=ledger.day(said.until),
            by=clip(said.by, 128),
        )  # fmt: skip
        self._decide(asked, row, draft, lambda fresh: replace(fresh, plans=(*fresh.plans, plan)))

    def _approve(self, asked: Asked) -> None:
        said, now = asked.decode(ApprovePlan), self._keeper.now
        row = self._find(said.advisory)
        plan = next((one for one in row.plans if one.number == said.plan), None)
        if plan is None:
            raise GateError(f"{row.advice.id} has no plan {said.plan}")
        if plan.approver:
            raise GateError(f"plan {plan.number} was approved by {plan.approver} already")
        if self._keeper.rows.separate and said.by.casefold() in (plan.by.casefold(), plan.owner.casefold()):
            raise GateError(f"{said.by} made the plan or owns it: somebody else approves it")
        if plan.until <= now:
            raise GateError("the plan's date is over already")
        draft = events.MitigationApproved(
            wall_ns=now, advisory=row.advice.id, product=row.product, plan=plan.number, by=clip(said.by, 128),
            until=ledger.day(plan.until),
        )  # fmt: skip

        def approved(fresh: Row) -> Row:
            plans = (
                replace(one, approver=said.by, approved=now) if one.number == said.plan else one for one in fresh.plans
            )
            return replace(fresh, plans=tuple(plans))

        self._decide(asked, row, draft, approved)
