"""The fetcher: asks the sources of the policy for what its rules name, and hands what it gets to the keeper. It stands
outside, keeps nothing, and decides nothing: the keeper holds each file to the rules again, and has it proved.

Each source has a task of its own: it waits until its turn (`every`, `window`, or an operator's word), reads what the
source has, and asks the keeper of each file that a rule names whether it is known. What comes is sent at the source's
`rate`. A window that shuts makes it wait; then it goes on from where it was.

Not here: HTTPS (fetch_http), listings (listing), Debian repositories (fetch_apt), what is known (keeper: sources).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Collection
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.vouch import Voucher
from cofferdam.brokers.patch import fetch_apt, listing, records
from cofferdam.brokers.patch.apt_index import BadIndex
from cofferdam.brokers.patch.beside import ENDINGS
from cofferdam.brokers.patch.fetch_http import Broken, Client, Head, Missing, NotHad, Place
from cofferdam.brokers.patch.figures import FETCHER
from cofferdam.brokers.patch.listing import BadListing, Offer
from cofferdam.brokers.patch.records import Ask, Declined, Doing, Ended, Go, Last, State, Taken
from cofferdam.brokers.patch.sending import NoRecord, Uploads
from cofferdam.enforce.profile import VOUCH
from cofferdam.errors import LocalProtocolError
from cofferdam.policy import windows
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.patch_rows import PatchRows, Product
from cofferdam.policy.terms.patch_source_rows import Fetch, Source

AGAIN_SECONDS: Final = 600
"""After a look that failed, where `every` is longer."""
SIGNATURE_BYTES: Final = 1 << 20
DOING_SECONDS: Final = 0.5
"""How often progress is told."""
FILES_MOST: Final = 1_000
"""Files that come in one look; the rest wait for the next."""
WINDOW_SECONDS: Final = 5.0
"""How often a task that waits looks at the clock."""


class Fetcher(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.start is None:
            raise LocalProtocolError("the fetcher needs a loop with tasks")
        self.setting = setting
        self.loop = asyncio.get_event_loop()
        voucher = Voucher(setting.secrets[VOUCH], setting.wall)
        self.uploads = Uploads(setting.senders["keeper"], self.loop, voucher)
        self.figures_ = Figures(FETCHER)
        self.policy = setting.policy
        self.rows = PatchRows()
        self.severed = False
        self.stopping = False
        self._tasks: dict[str, Looking] = {}
        self._start = setting.start
        self.set_severed(setting.severed)
        self._work_by(setting.policy)

    def send(self, record: Any) -> None:
        self.setting.senders["keeper"].send(record)

    def _work_by(self, policy: CompiledPolicy) -> int:
        self.policy = policy
        found = [each.terms for each in policy.conduits.values() if isinstance(each.terms, PatchRows)]
        before = self.rows
        self.rows = PatchRows(
            products=tuple(each for row in found for each in row.products),
            sources=tuple(each for row in found for each in row.sources),
            fetches=tuple(each for row in found for each in row.fetches),
        )
        ended = 0
        for name, task in list(self._tasks.items()):
            source = self.rows.source(name)
            if source != task.source or _of(before, name) != _of(self.rows, name):
                ended += int(task.at_work)
                task.end()
                del self._tasks[name]
        for source in self.rows.sources:
            if source.name not in self._tasks:
                task = self._tasks[source.name] = Looking(self, source)
                self._start(task.run())
        return ended

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        return self._work_by(policy)

    def set_severed(self, sides: Collection[str]) -> None:
        self.severed = "it" in sides
        if self.severed:
            for task in getattr(self, "_tasks", {}).values():
                task.interrupt()

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, (Last, Go)):
            task = self._tasks.get(record.source)
            if task is not None:
                task.hear(record)
        else:
            self.uploads.on_record(record)

    def shut(self, source: Source) -> str:
        """Why nothing is fetched now, "" if it may be."""
        if self.severed:
            return "an operator has cut this side off"
        if self.stopping:
            return "the gate stops"
        now = self.setting.wall()
        is_open, _ = windows.state(source.windows, self.policy.table.clocks, now)
        if not is_open:
            return "its window is shut"
        for name, conduit in self.policy.conduits.items():
            if isinstance(conduit.terms, PatchRows) and conduit.terms.source(source.name) is not None:
                found = standing(conduit, self.policy.table.clocks, now)
                if not found.open:
                    return f"the conduit {name} is {found.says}"
        return ""

    def figures(self) -> Reported:
        return self.figures_.report()

    def stop(self) -> None:
        self.stopping = True
        self.end()

    def end(self) -> None:
        for task in self._tasks.values():
            task.end()

    def halt(self) -> None:
        self.end()

    @property
    def busy(self) -> int:
        return len(self.uploads)


def _of(rows: PatchRows, source: str) -> tuple[tuple[Fetch, ...], tuple[Product, ...]]:
    """What of a policy concerns a source."""
    fetches = tuple(each for each in rows.fetches if each.source == source)
    names = {each.product for each in fetches}
    return fetches, tuple(each for each in rows.products if each.name in names)


class Looking:
    """One source's task."""

    def __init__(self, fetcher: Fetcher, source: Source) -> None:
        self.source = source
        self.fetcher = fetcher
        self.client = Client(source)
        self.listed = self.named = self.taken = 0
        self._woken = asyncio.Event()
        self._now = False
        self._last: int | None = None
        self._failed = False
        self._work: asyncio.Task[str] | None = None
        self._ended = False
        self._told_at = 0.0
        self._free_at = 0.0
        self._next_at = 0

    @property
    def at_work(self) -> bool:
        return self._work is not None

    def hear(self, record: Last | Go) -> None:
        if isinstance(record, Go):
            self._now = True
        elif self._last is None:
            self._last = record.at
        self._woken.set()

    def interrupt(self) -> None:
        """What is under way is given up; it begins anew when it may."""
        if self._work is not None:
            self._work.cancel()
        self.client.close()

    def end(self) -> None:
        self._ended = True
        self.interrupt()
        self._woken.set()

    # --- when

    async def run(self) -> None:
        fetcher = self.fetcher
        fetcher.send(Ask(self.source.name))
        while self._last is None and not self._ended:
            await self._wait(None)
        while not self._ended:
            now = fetcher.setting.wall() // 10**9
            every = min(self.source.every, AGAIN_SECONDS) if self._failed else self.source.every
            due = min((self._last or 0) + every, now + every)  # whatever the clock did
            shut = fetcher.shut(self.source)
            if not shut and (self._now or now >= due):
                self._now = False
                await self._look()
                continue
            self._tell("idle" if not shut else "waiting", next_at=due)
            await self._wait(max(0.2, min(WINDOW_SECONDS if shut else due - now, 30.0)))

    async def _wait(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _look(self) -> None:
        """Once, from the listing to the last file."""
        self.listed = self.named = self.taken = 0
        self.odd: list[str] = []
        self._told_at = 0.0
        self._work = self.fetcher.loop.create_task(self._whole())
        refused = ""
        try:
            await asyncio.wait([self._work])
            refused = "it was interrupted" if self._work.cancelled() else self._work.result()
        finally:
            self._work = None
            self.client.close()
        self._last = self.fetcher.setting.wall() // 10**9
        self._failed = bool(refused)
        self.fetcher.figures_.add("patch_looks")
        if refused:
            self.fetcher.figures_.add("patch_looks_failed")
        odd = ""
        if self.odd:
            odd = f"{len(self.odd)} names that are none of a file there, such as {self.odd[0]!r}"
        self.fetcher.send(Ended(self.source.name, self.listed, self.named, self.taken, clip(refused), clip(odd)))

    def _tell(self, state: State, file: str = "", got: int = 0, size: int = 0, next_at: int = 0) -> None:
        now = self.fetcher.loop.time()
        if state == "fetching" and got and now - self._told_at < DOING_SECONDS:
            return
        if (state, next_at) == ("idle", self._next_at) and now - self._told_at < 30:
            return
        self._told_at, self._next_at = now, next_at
        self.fetcher.send(Doing(self.source.name, state, file[:256], got, size, next_at))

    # --- what

    async def _whole(self) -> str:
        """Why it failed, "" if it did not."""
        try:
            self._tell("listing", self.source.path)
            if self.source.apt is not None:
                await self._snapshots()
            else:
                await self._files()
        except (NotHad, Broken, BadListing, BadIndex, NoRecord) as error:
            return str(error)
        return ""

    async def _files(self) -> None:
        source = self.source
        try:
            found = await self._offers()
        except NotHad as error:
            raise NotHad(f"the listing: {error}") from None
        troubles: list[str] = []
        for offer, there in found:
            for rule in self.fetcher.rows.fetches:
                version = rule.version_of(offer.name, offer.version) if rule.source == source.name else ""
                product = self.fetcher.rows.product(rule.product)
                if not version or product is None:
                    continue
                self.named += 1
                if self.taken >= FILES_MOST:
                    break
                try:
                    await self._file(product, offer, version, self.client.beside(there, offer.href))
                except (NotHad, NoRecord) as error:  # the others may be well
                    troubles.append(str(error))
                break
        if troubles:
            more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
            raise NotHad(f"{troubles[0]}{more}")

    async def _offers(self) -> list[tuple[Offer, Place]]:
        """What the source says it has, each with the listing that says so. Raises: NotHad, Broken, BadListing."""
        source, found = self.source, dict[str, tuple[Offer, Place]]()
        data, there = await self.client.page(self.client.first(source.path), listing.LISTING_BYTES)
        pages: list[tuple[str, bytes, Place]] = [(source.listing, data, there)]
        if source.listing == "csaf":
            pages = []
            for kind, href in listing.distributions(data):
                pages.append((kind, *await self.client.page(self.client.beside(there, href), listing.LISTING_BYTES)))
        for kind, page, at in pages:
            listed = listing.read(kind, page, source.mapping)
            self.odd += listed.odd
            for offer in listed.offers:
                before = found.get(offer.name)
                if offer.version >= source.since and (before is None or before[0].version < offer.version):
                    found[offer.name] = (offer, at)
        self.listed = len(found)
        return list(found.values())

    async def _file(self, product: Product, offer: Offer, version: str, place: Place) -> None:
        """One that a rule names. Raises: NotHad, Broken."""
        self._tell("listing", offer.name)
        head = await self.client.head(place)
        pieces = self.client.pieces(place, product.most, head)
        answer = await self.bring(product, version, offer.name, pieces, head, offer.sha256)
        waits = answer.waits if isinstance(answer, Taken) else answer.detail == records.WAITS
        if not waits or not product.origin.detached:
            return
        # What proves it: beside the file, or beside a list of its version's hashes.
        if product.origin.list:
            await self._beside(product, version, product.origin.list, place)
            await self._signature(product, version, product.origin.list, self.client.beside(place, product.origin.list))
        else:
            await self._signature(product, version, offer.name, place)

    async def _signature(self, product: Product, version: str, name: str, place: Place) -> None:
        for ending in ENDINGS[product.origin.proof]:
            target, _, query = place.target.partition("?")
            there = place._replace(target=f"{target}{ending}" + (f"?{query}" if query else ""))
            with contextlib.suppress(Missing):
                await self._beside_at(product, version, f"{name}{ending}", there)
                return
        raise NotHad(f"{name} has no signature beside it")

    async def _beside(self, product: Product, version: str, name: str, by: Place) -> None:
        await self._beside_at(product, version, name, self.client.beside(by, name))

    async def _beside_at(self, product: Product, version: str, name: str, place: Place) -> None:
        data, _ = await self.client.page(place, SIGNATURE_BYTES)
        upload = self.fetcher.uploads.fetch(self.source.name, product.name, version, name, size=len(data))
        try:
            if data and await upload.send(data):
                await upload.finish(hashlib.sha256(data).hexdigest())
        finally:
            self.fetcher.uploads.end(upload)

    async def bring(
        self, product: Product, version: str, file: str, pieces: AsyncIterator[bytes], head: Head, sha256: str = ""
    ) -> Taken | Declined:
        """Asks the keeper of a file, and sends it if it is wanted. Raises: NotHad, Broken."""
        if head.size > product.most:
            raise NotHad(f"{file} has {head.size} bytes, and at most {product.most} are taken")
        upload = self.fetcher.uploads.fetch(
            self.source.name, product.name, version, file, size=head.size, mark=head.mark, sha256=sha256
        )
        digest, got = hashlib.sha256(), 0
        try:
            if not await upload.ready():
                return self._answered(file, await upload.answered)
            self._tell("fetching", file, 0, head.size)
            async for piece in pieces:
                digest.update(piece)
                got += len(piece)
                self.fetcher.figures_.add("patch_fetched_bytes", len(piece))
                if not await upload.send(piece):
                    break
                self._tell("fetching", file, got, head.size)
                await self._pace(len(piece))
            if head.size and got != head.size and not upload.answered.done():
                raise NotHad(f"{file} has {got} bytes, and {head.size} were said")
            return self._answered(file, await upload.finish(digest.hexdigest()))
        finally:
            self.fetcher.uploads.end(upload)
            closing = getattr(pieces, "aclose", None)
            if closing is not None:
                await closing()

    def _answered(self, file: str, answer: Taken | Declined) -> Taken | Declined:
        """Raises: NotHad: it was declined for what it is."""
        if isinstance(answer, Taken):
            self.taken += 1
        elif answer.fault not in ("have", "changed"):
            raise NotHad(f"{file} is not taken: {answer.detail}")
        return answer

    async def _pace(self, count: int) -> None:
        """Waits as long as so many bytes take at the source's rate; and where its window has shut, until it opens."""
        now = self.fetcher.loop.time()
        self._free_at = max(self._free_at, now) + count / self.source.rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
        while shut := self.fetcher.shut(self.source):
            self._tell("waiting", shut)
            self.client.close()  # the transfer goes on with what is left of it
            await self._wait(WINDOW_SECONDS)

    async def _snapshots(self) -> None:
        source = self.source
        for rule in self.fetcher.rows.fetches:
            product = self.fetcher.rows.product(rule.product)
            if rule.source != source.name or product is None:
                continue
            snapshot = await fetch_apt.look(self.client, source, rule, product.most)
            self.listed += snapshot.listed
            self.named += len(snapshot.packages)
            head = Head(200, snapshot.size, snapshot.release.version, "", {})
            pieces = snapshot.pieces(self.client)
            await self.bring(product, snapshot.release.version, snapshot.file, pieces, head)
