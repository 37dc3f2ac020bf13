"""Files that another part hands to the keeper piece by piece: what is taken, in what order, how much at once.

Numbers and room are held here (records has the rules); whether a file may come at all is judged by the rules for who
brings it: `Uploads` for people and machines that upload, sources.Fetching for what is fetched.

Not here: what becomes of a file that is whole (keeper).
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.book import Table
from cofferdam.brokers.patch.catalogue import FileRow, How
from cofferdam.brokers.patch.records import WINDOW_BYTES, Begin, Chunk, Declined, End, Fetch, Room, Taken
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.brokers.patch.witnesses import Witnesses
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.patch_rows import PatchRows, Product

SIGNATURE_BYTES: Final = 1 << 20
UPLOADS_OF_ONE: Final = records.UPLOADS_MOST // 2


class Keeping(Protocol):
    """The keeper, as those who receive know it."""

    setting: Setting
    store: Path
    rows: PatchRows
    files: Table[FileRow]
    sealing: Sealing

    def product_of(self, name: str) -> Product | None:
        """By the policy in force."""

    def why_not(self, product: str, version: str, file: str, by: str = "", how: How = "put") -> tuple[str, str]:
        """Why no such file is taken: (fault, detail), or ("", "")."""

    def is_beside(self, product: Product, file: str) -> bool:
        """Whether it is no file of its own, but a signature or a list beside one."""

    def room(self, size: int) -> bool:
        """Whether there is."""

    def too_much(self, by: str, size: int) -> str:
        """Why somebody may bring no more in, "" if he may."""

    def shut(self, product: str) -> str:
        """Why nothing comes in now, "" if it may."""

    def note_refused(self, product: str, version: str, file: str, by: str, fault: str, detail: str) -> None:
        """Tells the audit log."""

    def take_file(
        self, path: Path, product: str, version: str, file: str, size: int, sha256: str, by: str, how: How,
        word: Vouch | None, done: Callable[[int, str, str, str], None],
    ) -> None:  # fmt: skip
        """A file that is whole and synced goes into quarantine. `word`: of whoever saw it come."""

    @property
    def witnesses(self) -> Witnesses:
        """Whose word is believed."""


class Incoming:
    """One file that is being received, sealed as it comes."""

    def __init__(self, begin: Begin | Fetch, who: str, keeper: Keeping, path: Path, most: int) -> None:
        """Raises: OSError."""
        self.begin = begin
        self.who = who
        self.path = path
        self.most = most
        self.size = 0
        self.granted = 0
        self.digest = hashlib.sha256()
        self.file = keeper.sealing.create(path)

    def drop(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class Receiving(abc.ABC):
    """What one part hands over."""

    part: Literal["intake", "fetcher"]
    how: How
    most: int

    def __init__(self, keeper: Keeping) -> None:
        self.keeper = keeper
        self.open: dict[int, Incoming] = {}
        self._last = 0
        self._severed = False

    # --- what each judges

    @abc.abstractmethod
    def allows(self, begin: Any) -> str:
        """Why the policy does not let this come, "" if it does."""

    def wanted(self, begin: Any) -> tuple[str, str]:
        """Why it is not taken although it may come: (fault, detail), or ("", "")."""
        keeper = self.keeper
        who = self.who(begin)
        fault, detail = keeper.why_not(begin.product, begin.version, begin.file, who, self.how)
        product = keeper.product_of(begin.product)
        beside = product is not None and keeper.is_beside(product, begin.file)
        if not fault and not beside and (why := keeper.too_much(who, begin.size)):
            return "room", why
        return fault, detail

    @staticmethod
    @abc.abstractmethod
    def who(begin: Any) -> str:
        """Whose it is."""

    def arrived(self, incoming: Incoming, sha256: str, word: Vouch) -> None:
        """It is whole and synced."""
        begin = incoming.begin

        def done(number: int, waits: str, fault: str, why: str) -> None:
            if fault:
                self.declined(begin, fault, why)
            else:
                self.send(Taken(begin.upload, number, sha256, clip(waits)))

        self.keeper.take_file(
            incoming.path, begin.product, begin.version, begin.file, incoming.size, sha256, incoming.who, self.how,
            word, done,
        )  # fmt: skip

    # --- records

    def send(self, record: Any) -> None:
        self.keeper.setting.senders[self.part].send(record)

    def on_record(self, record: Any) -> None:
        """Raises: CrossingError."""
        if isinstance(record, (Begin, Fetch)):
            if record.upload != self._last + 1:
                raise CrossingError(f"upload {record.upload} after {self._last}")
            self._last = record.upload
            self._begin(record)
            return
        if record.upload > self._last:
            raise CrossingError(f"upload {record.upload}, which was not begun")
        incoming = self.open.get(record.upload)
        if incoming is None:
            return  # it was declined, and the other part has not heard of it yet
        if isinstance(record, Chunk):
            self._chunk(record, incoming)
        elif isinstance(record, End):
            self._end(record, incoming)
        else:
            incoming.drop()
            del self.open[record.upload]

    def _begin(self, begin: Begin | Fetch) -> None:
        keeper, who = self.keeper, self.who(begin)
        product = keeper.product_of(begin.product)
        fault, detail = "", ""
        if (why := self.allows(begin)) or product is None:
            fault, detail = "policy", why or f"there is no product {begin.product}"
        elif self._severed:
            fault, detail = "severed", "an operator has cut this side off"
        elif len(self.open) >= self.most:
            fault, detail = "busy", f"{self.most} uploads are under way"
        elif sum(1 for each in self.open.values() if each.who == who) >= UPLOADS_OF_ONE:
            fault, detail = "busy", f"{UPLOADS_OF_ONE} uploads of yours are under way"
        elif shut := keeper.shut(begin.product):
            fault, detail = "window", shut
        else:
            fault, detail = self.wanted(begin)
        if fault or product is None:
            self.declined(begin, fault, detail)
            return
        most = SIGNATURE_BYTES if keeper.is_beside(product, begin.file) else product.most
        if begin.size > most:
            self.declined(begin, "room", f"{begin.size} bytes; {begin.product} has at most {most}")
            return
        if not keeper.room(begin.size):
            self.declined(begin, "store", "the keeper's disk is full")
            return
        try:
            incoming = Incoming(begin, who, keeper, keeper.store / "incoming" / f"{self.part}-{begin.upload}", most)
        except OSError as error:
            self.declined(begin, "store", f"the keeper's disk: {error.strerror}")
            return
        self.open[begin.upload] = incoming
        self._grant(incoming)

    def _grant(self, incoming: Incoming) -> None:
        more = incoming.size + WINDOW_BYTES - incoming.granted
        if more >= WINDOW_BYTES // 2:
            incoming.granted += more
            self.send(Room(incoming.begin.upload, more))

    def _chunk(self, chunk: Chunk, incoming: Incoming) -> None:
        incoming.size += len(chunk.data)
        if incoming.size > incoming.granted:
            raise CrossingError(f"upload {chunk.upload} has more bytes than it was given room for")
        if incoming.size > incoming.most:
            self.decline(incoming, "room", f"{incoming.begin.product} has at most {incoming.most} bytes")
            return
        if not self.keeper.room(0):
            self.decline(incoming, "store", "the keeper's disk is full")
            return
        try:
            incoming.file.write(chunk.data)
        except OSError as error:
            self.decline(incoming, "store", f"the keeper's disk: {error.strerror}")
            return
        incoming.digest.update(chunk.data)
        self._grant(incoming)

    def _end(self, end: End, incoming: Incoming) -> None:
        sha256 = incoming.digest.hexdigest()
        if sha256 != end.sha256:
            raise CrossingError(f"upload {end.upload} has another hash than was said")
        begin, word = incoming.begin, end.vouch
        path = records.path_of(begin.product, begin.version, begin.file)
        if (word.did, word.who) != (self.how, incoming.who) or not self.keeper.witnesses.saw(word, path, sha256):
            raise CrossingError(f"upload {end.upload} comes with the word of somebody else")
        if not incoming.size:
            self.decline(incoming, "policy", "the file is empty")
            return
        del self.open[end.upload]
        try:
            incoming.file.sync()
            incoming.file.close()
        except OSError as error:
            incoming.drop()
            self.declined(incoming.begin, "store", f"the keeper's disk: {error.strerror}")
            return
        self.arrived(incoming, sha256, word)

    # --- no

    def decline(self, incoming: Incoming, fault: str, detail: str) -> None:
        """Of one that had begun."""
        self.open.pop(incoming.begin.upload, None)
        incoming.drop()
        self.declined(incoming.begin, fault, detail)

    def declined(self, begin: Begin | Fetch, fault: str, detail: str) -> None:
        self.send(Declined(begin.upload, fault[:32] or "policy", clip(detail)))
        self.keeper.note_refused(begin.product, begin.version, begin.file, self.who(begin), fault, detail)

    # --- the gate

    def work_by_policy(self) -> int:
        """How many had to end, since the policy does not let them come any more."""
        gone = [each for each in self.open.values() if self.allows(each.begin)]
        for each in gone:
            self.decline(each, "policy", "the policy does not let this come any more")
        return len(gone)

    def sever(self, severed: bool) -> None:
        self._severed = severed
        if severed:
            for each in list(self.open.values()):
                self.decline(each, "severed", "an operator has cut this side off")

    def drop_all(self) -> None:
        for each in self.open.values():
            each.drop()
        self.open.clear()


class Uploads(Receiving):
    """What people and machines upload."""

    part = "intake"
    how = "upload"
    most = records.UPLOADS_MOST

    def allows(self, begin: Begin) -> str:
        may = self.keeper.rows.may_put(begin.who, begin.product)
        return "" if may is not None else "the policy does not let you upload this"

    @staticmethod
    def who(begin: Begin) -> str:
        return begin.who
