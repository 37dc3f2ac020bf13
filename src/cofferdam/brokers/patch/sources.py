"""What the keeper knows of sources: which files have come from each, when it was looked at last, and what a mirror has
changed under a name that it had before. And what the fetcher hands over, judged again by the rules that fetch.

The fetcher faces the outside, and one day it may be somebody else's. What it can say then is what any source could:
files that a rule names, which are proved, scanned and signed like all others; and that a source is well when it is not.
It cannot speak for a second channel (origin "two-sources": all that it fetches is one), for an uploader, or for a
folder.

Not here: fetching (fetcher), what becomes of a file (keeper), folders (drops).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace

from cofferdam.audit.events import patch as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.pace import Bucket, draw
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.beside import SIGNATURES
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import UNDECIDED, FileRow, Looked, Seen
from cofferdam.brokers.patch.receiving import Incoming, Keeping, Receiving
from cofferdam.brokers.patch.records import Ask, Doing, Ended, Fetch, Go, Last, Taken
from cofferdam.brokers.patch.told import Source as Told
from cofferdam.errors import StoreError

SEEN_MOST: Final = 20_000
"""Files of sources that are remembered; the oldest are forgotten first, and would come again."""
ENDS_BURST: Final = 20.0
ENDS_RATE: Final = 1 / 60e9
"""Looks at one source that are told to the log: a minute each, and some at once."""
CHANGES_BURST: Final = 1_000.0
CHANGES_RATE: Final = 1 / 1e9
"""Changes of what is remembered of one source that are written, and told: one a second, and some at once."""
CHANGED_MOST: Final = 16
"""Alarms of changed files that are told one by one."""
CHANGED: Final = "changed"


class Fetching(Receiving):
    """The keeper's side of the fetcher."""

    part = "fetcher"
    how = "fetch"
    most = 32

    def __init__(self, keeper: Keeping, book: Book) -> None:
        super().__init__(keeper)
        self.seen: Table[Seen] = Table(book, "seen", Seen)
        self.looked: Table[Looked] = Table(book, "looked", Looked)
        self.doing: dict[str, Doing] = {}
        self._paces: dict[str, Bucket] = {}

    # --- what is judged

    def allows(self, begin: Fetch) -> str:
        rows, product = self.keeper.rows, self.keeper.product_of(begin.product)
        base = base_of(self.keeper, begin)
        if product is not None and product.origin.list and base == product.origin.list:
            may = any((each.source, each.product) == (begin.source, begin.product) for each in rows.fetches)
        else:
            may = rows.may_fetch(begin.source, begin.product, begin.version, base) is not None
        return "" if may else "no rule names this"

    @staticmethod
    def who(begin: Fetch) -> str:
        return begin.source

    def wanted(self, begin: Fetch) -> tuple[str, str]:
        product = self.keeper.product_of(begin.product)
        if product is not None and self.keeper.is_beside(product, begin.file):
            return super().wanted(begin)
        known = self.seen.get(key_of(begin))
        if why := self._too_much(begin.size):
            return "room", why
        if known is None:
            fault, detail = super().wanted(begin)
            if fault != "conflict":
                return fault, detail
            # Ours, if we were killed before it was known: what proves it may still be to come, and it is looked at
            # whether it is still the same. One that came by another way is not this source's to change, and it is not
            # asked for again and again.
            known = self._learn(begin)
            if known is None:
                return "have", detail
        if begin.sha256 and begin.sha256 == known.sha256:
            self._same(known, begin)
            return "have", self._waits(begin)
        if begin.sha256 and begin.sha256 != known.sha256:
            self._changed(known, f"the source says its SHA-256 is {begin.sha256}")
            return CHANGED, "it is another file than came before under this name"
        if known.size != begin.size and begin.size and known.size:
            self._changed(known, f"it has {begin.size} bytes, and had {known.size}")
            return CHANGED, "it is another file than came before under this name"
        if known.mark == begin.mark:
            self._same(known, begin)
            return "have", self._waits(begin)
        return "", ""  # perhaps it was only copied anew: it is fetched, and compared

    def _too_much(self, size: int) -> str:
        """Why no more may be fetched before something becomes of what was: a fetcher that was taken over has as many
        sources as the policy, and still leaves the uploaders room."""
        rows = self.keeper.files.rows.values()
        held = sum(row.size for row in rows if row.how == "fetch" and row.state in UNDECIDED)
        free = os.statvfs(self.keeper.store)
        if held and held + size > (held + free.f_bavail * free.f_frsize) // 2:
            return f"files that were fetched and wait hold {held} bytes, half of what there is: have some rejected"
        return ""

    def _waits(self, begin: Fetch) -> str:
        """ "waits" where what lies beside a known file is still to come."""
        file = (begin.product, begin.version, begin.file, "waiting")
        rows = self.keeper.files.rows.values()
        waits = any((row.product, row.version, row.file, row.state) == file for row in rows)
        return records.WAITS if waits else "it is known"

    def declined(self, begin: Any, fault: str, detail: str) -> None:
        if fault == "have":
            self.send(records.Declined(begin.upload, "have", clip(detail)))
        elif fault == CHANGED:
            self.send(records.Declined(begin.upload, CHANGED, clip(detail)))
        else:
            super().declined(begin, fault, detail)

    def arrived(self, incoming: Incoming, sha256: str, word: Vouch) -> None:
        begin = incoming.begin
        if not isinstance(begin, Fetch):
            return
        known = self.seen.get(key_of(begin))
        product = self.keeper.product_of(begin.product)
        if product is not None and self.keeper.is_beside(product, begin.file):
            super().arrived(incoming, sha256, word)
            return
        if begin.sha256 and sha256 != begin.sha256:
            incoming.path.unlink(missing_ok=True)
            self.declined(begin, "hash", f"the source says SHA-256 {begin.sha256[:16]}…, and {sha256[:16]}… came")
            return
        if known is not None:
            incoming.path.unlink(missing_ok=True)
            if sha256 == known.sha256:
                self._same(known, begin)
                self.send(records.Declined(begin.upload, "have", self._waits(begin)))
            else:
                self._changed(known, f"its SHA-256 is {sha256}", begin)
                self.send(records.Declined(begin.upload, CHANGED, "it is another file than came before"))
            return

        def done(number: int, waits: str, fault: str, why: str) -> None:
            if fault:
                self.declined(begin, "have" if fault == "conflict" else fault, why)
                return
            self._know(begin, incoming.size, sha256, begin.mark)
            self.send(Taken(begin.upload, number, sha256, clip(waits)))

        self.keeper.take_file(
            incoming.path, begin.product, begin.version, begin.file, incoming.size, sha256, begin.source, "fetch",
            word, done,
        )  # fmt: skip

    # --- what is remembered

    def _learn(self, begin: Fetch) -> Seen | None:
        """What this source has brought, by the files that there are."""
        file = (begin.product, begin.version, begin.file, "fetch", begin.source)
        for row in self.keeper.files.rows.values():
            if (row.product, row.version, row.file, row.how, row.by) == file and row.state not in (
                "refused",
                "rejected",
            ):
                self._know(begin, row.size, row.sha256, mark="")
                return self.seen.get(key_of(begin))
        return None

    def _know(self, begin: Fetch, size: int, sha256: str, mark: str) -> None:
        rows = self.seen.rows
        try:
            if len(rows) >= SEEN_MOST:
                self.seen.drop(min(rows, key=lambda key: rows[key].at))
            self.seen.put(
                key_of(begin),
                Seen(
                    source=begin.source, product=begin.product, version=begin.version, file=begin.file,
                    size=size, mark=mark, sha256=sha256, at=self.keeper.setting.wall(),
                ),
            )  # fmt: skip
        except StoreError:
            pass  # it comes again, and is a conflict then: nothing is lost

    def forget(self, row: FileRow) -> None:
        """A file comes again from the sources that have it. Raises: StoreError."""
        for key, each in list(self.seen.rows.items()):
            if (each.product, each.version, each.file) == (row.product, row.version, row.file):
                self.seen.drop(key)

    def _same(self, known: Seen, begin: Fetch) -> None:
        if known.changed or known.mark != begin.mark:
            fresh = replace(known, changed="", known="", mark=begin.mark)
            self._put(known, fresh)

    def _changed(self, known: Seen, what: str, begin: Fetch | None = None) -> None:
        if known.changed == what:
            return
        now = self.keeper.setting.wall()
        if not draw(self._paces, f"{known.source} changed", now, CHANGES_RATE, CHANGES_BURST):
            return  # it is told at the next look, if it still is so
        self.keeper.setting.audit.note(
            events.SourceChanged(
                wall_ns=self.keeper.setting.wall(), source=known.source, product=known.product, version=known.version,
                file=known.file, sha256=known.sha256, detail=clip(what),
            )
        )  # fmt: skip
        self._put(known, replace(known, changed=what, mark=begin.mark if begin is not None else known.mark))

    def _put(self, known: Seen, fresh: Seen) -> None:
        key = f"{known.source}/{known.product}/{known.version}/{known.file}"
        now = self.keeper.setting.wall()
        try:
            if draw(self._paces, known.source + " seen", now, CHANGES_RATE, CHANGES_BURST):
                self.seen.put(key, fresh)
                return
        except StoreError:
            pass
        self.seen.rows[key] = fresh  # on disk it is as it was: after a restart it is compared anew

    # --- records

    def on_record(self, record: Any) -> None:
        if isinstance(record, Ask):
            looked = self.looked.get(record.source)
            self.send(Last(record.source, looked.at // 10**9 if looked is not None else 0))
        elif isinstance(record, Doing):
            if self.keeper.rows.source(record.source) is not None:
                self.doing[record.source] = record
        elif isinstance(record, Ended):
            self._ended(record)
        else:
            super().on_record(record)

    def _ended(self, ended: Ended) -> None:
        if self.keeper.rows.source(ended.source) is None:
            return  # the policy has lost it meanwhile
        self.tell_end(ended, clip(ended.refused))

    def tell_end(self, ended: Ended, refused: str) -> None:
        """A look at a source has ended."""
        now = self.keeper.setting.wall()
        before = self.looked.get(ended.source)
        good = (before.good if before is not None else 0) if refused else now
        paced = draw(self._paces, ended.source, now, ENDS_RATE, ENDS_BURST)
        looked = Looked(
            at=now, good=good, listed=ended.listed, named=ended.named, taken=ended.taken, refused=refused,
            odd=clip(ended.odd),
        )  # fmt: skip
        try:
            if paced:
                self.looked.put(ended.source, looked)
        except StoreError:
            paced = False
        if not paced:
            self.looked.rows[ended.source] = looked
        told = before is not None and (before.refused, before.odd) == (refused, looked.odd) and not ended.taken
        if not told and paced:
            self.keeper.setting.audit.note(
                events.SourceLooked(
                    wall_ns=now, source=ended.source, listed=ended.listed, named=ended.named, taken=ended.taken,
                    refused=refused, odd=clip(ended.odd),
                )
            )  # fmt: skip

    def alarms(self) -> Iterator[tuple[str, str]]:
        sources = {source.name for source in self.keeper.rows.sources}
        changed = [
            each for each in self.seen.rows.values()
            if each.changed and each.changed != each.known and each.source in sources
        ]  # fmt: skip
        for number, each in enumerate(changed[:CHANGED_MOST]):
            words = f"{each.source} has another {each.file} ({each.version}) than came before: {each.changed}"
            if number == CHANGED_MOST - 1 and len(changed) > CHANGED_MOST:
                words = f"{len(changed) - number} more files of sources are others than came before"
            yield f"patch-changed-{number}", clip(words)
        for name in sorted(sources):
            looked = self.looked.get(name)
            if looked is not None and looked.refused:
                yield f"patch-source-{name}", clip(f"the source {name} cannot be had: {looked.refused}")

    # --- operators

    def told(self, name: str) -> Told:
        looked, doing = self.looked.get(name) or Looked(at=0), self.doing.get(name) or Doing(name, "idle")
        source = self.keeper.rows.source(name)
        changed = [each for each in self.seen.rows.values() if each.source == name and each.changed]
        return {
            "source": name,
            "kind": source.kind if source is not None else "",
            "last": looked.at,
            "good": looked.good,
            "refused": looked.refused,
            "odd": looked.odd,
            "listed": looked.listed,
            "named": looked.named,
            "taken": looked.taken,
            "next": doing.next_at,
            "state": doing.state,
            "file": doing.file,
            "got": doing.got,
            "size": doing.size,
            "changed": [f"{each.product}/{each.version}/{each.file}: {each.changed}" for each in changed[:100]],
        }

    def go(self, name: str) -> None:
        """Has a source looked at now."""
        self.send(Go(name))

    def is_known(self, name: str) -> None:
        """What a mirror has changed is known: it raises no alarm any more, and is not taken either."""
        for each in list(self.seen.rows.values()):
            if each.source == name and each.changed != each.known:
                self._put(each, replace(each, known=each.changed))


def key_of(begin: Fetch) -> str:
    return f"{begin.source}/{begin.product}/{begin.version}/{begin.file}"


def base_of(keeper: Keeping, begin: Fetch) -> str:
    """The file beside which this one lies, or this one: what a rule must name. A list lies beside any."""
    product = keeper.product_of(begin.product)
    if product is None or not keeper.is_beside(product, begin.file):
        return begin.file
    return next((begin.file[: -len(end)] for end in SIGNATURES if begin.file.endswith(end)), begin.file)
