"""The keeper: takes what the receiver hands over, holds it to the policy and to the ledger, keeps it, and says what is
missing. It has no network.

It judges everything as if the sender were another's by now: names, sizes, numbers and channels. A channel whose records
no honest sender would send takes no more until the gate is started anew; others go on.

Not here: the disk (keeper_store), numbers (ledger), tickets (tickets).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from cofferdam.audit.events import diode as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.diode import records, tickets
from cofferdam.brokers.diode.figures import KEEPER
from cofferdam.brokers.diode.keeper_store import Coming, KeeperStore
from cofferdam.brokers.diode.ledger import Channel, Gap, Order
from cofferdam.brokers.diode.pairing import KeeperKeys, load
from cofferdam.brokers.diode.records import CHUNK_BYTES, FILES, Beat, Chunk, Known, Manifest, Piece
from cofferdam.brokers.diode.sender import row_of
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.errors import CofferdamError, CrossingError, GateError, StoreError, StoreFull
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.diode_rows import FILES as FILES_RIDE
from cofferdam.policy.terms.diode_rows import FilesRow

SECOND: Final = 10**9
GRACE_NS: Final = 1_200_000_000
"""What is missing for so long is named: a block's parity, and blocks that were woven into it, come meanwhile."""
SILENT_NS: Final = 5 * SECOND
"""Without a heartbeat for so long the sender is silent."""
COMING_MOST: Final = 256
"""Files of a channel that are coming at a time."""
RESERVE_BYTES: Final = 64 << 20
"""Room on the disk that is left free."""
SLICE_BYTES: Final = 8 << 20
HOLD_BYTES: Final = 64 << 20
"""Of messages of one channel that wait for those before them."""
TICKET_SECONDS: Final = 7 * 86_400
"""How long a ticket is good."""
TELL_NS: Final = 10 * SECOND
"""Strangers and losses are counted for so long, and told as one entry."""
RUNS_MOST: Final = 64
"""Steps of tests that are remembered."""


@dataclass
class _Copying:
    """A file that is whole, on its way into its folder."""

    row: Coming
    source: int
    into: int
    digest: Any
    at: int


class MakeTicket(Struct, forbid_unknown_fields=True):
    channel: str = ""
    by: str = ""


class GiveUp(Struct, forbid_unknown_fields=True):
    channel: str
    by: str = ""


class Keeper(Part):
    """The part. `deliver`: where messages go that have come in their order; set by who takes them."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the keeper was given no folder for its store")
        self._setting = setting
        self._reactor = setting.reactor
        self._audit = setting.audit
        self._strand, self._row = row_of(setting.policy)
        self._site = setting.policy.site
        self._keys = load(KeeperKeys, setting.secrets)
        self._store = KeeperStore(setting.store)
        self._figures = Figures(KEEPER)
        self._channels: dict[str, Channel] = self._store.ledgers()
        self._orders: dict[str, Order] = {}
        self._dirty: set[str] = set()
        self._stopped: dict[str, str] = {}
        self._named: dict[str, set[Gap]] = {}
        self._epoch = 0
        self._sender = ""
        self._beat: Beat | None = None
        self._beat_at = 0
        self._born = setting.clock()
        self._whole: deque[Coming] = deque()
        self._placing: set[tuple[str, int, int]] = set()
        """Files that are whole, until they are in their folder."""
        self._copying: _Copying | None = None
        self._names: set[str] = set()
        """Names that are given to files which are about to be in their folders."""
        self._trouble = [0, 0, 0, 0]
        self._told_trouble = [0, 0, 0, 0]
        self._told_at = setting.clock()
        self._runs: dict[tuple[int, int], list[int]] = {}
        self._today: deque[tuple[int, str, int]] = deque()
        self._full = ""
        self._halted = False
        self.deliver: Callable[[str, int, int, bytes], None] | None = None
        for row in list(self._store.files("placing")):  # the process ended while it was being put into its folder
            self._mend(row)
        for row in list(self._store.files("coming")):
            self._look_whole(row)
        setting.senders["receiver"].send(records.Start(max(0, self._store.epoch - 1)))

    def _folder(self, channel: str) -> Path:
        return self._setting.folders[self._row_of(channel).into]

    def _mend(self, row: Coming) -> None:
        """The process ended when a file was about to be in its folder."""
        if row.channel not in self._row.channels:
            return
        folder = self._folder(row.channel)
        hidden = folder / _hidden(row)
        if hidden.exists():
            hidden.rename(folder / row.placed)
        self._store.drop(row)
        self._store.state(row, "done", row.placed)
        self._channel(row.channel).epochs[row.epoch].have.add(row.first, row.first + row.chunks)
        self._dirty.add(row.channel)

    def _channel(self, name: str) -> Channel:
        return self._channels.setdefault(name, Channel(name))

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """The receiver hands over nothing then."""

    # --- what comes -------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if self._halted:
            return  # it is missing, and so named by the next one
        if isinstance(record, records.Epoch):
            self._new_epoch(record)
        elif isinstance(record, records.Trouble):
            for at, more in enumerate((record.foreign, record.blocks, record.kernel, record.overrun)):
                self._trouble[at] += more
        elif not self._epoch:
            raise CrossingError(f"{type(record).__name__} before an epoch")
        elif isinstance(record, Piece):
            self._piece(record)
        elif isinstance(record, Beat):
            self._heard(record)
        else:
            self._test(record)

    def _new_epoch(self, record: records.Epoch) -> None:
        if record.epoch < self._store.epoch:
            raise CrossingError(f"epoch {record.epoch} below {self._store.epoch}")
        self._store.set_epoch(record.epoch)
        self._epoch, self._sender = record.epoch, record.sender
        self._beat_at = self._setting.clock()
        told = f"{record.wall_ns // SECOND}"
        self._audit.note(events.DiodeEpoch(
            wall_ns=self._setting.wall(), strand=self._strand, epoch=record.epoch, sender=record.sender, told=told
        ), always=True)  # fmt: skip

    def _stop(self, channel: str, detail: str) -> None:
        """The channel takes no more."""
        if channel in self._stopped or len(self._stopped) >= records.CHANNELS_MOST:
            return
        self._stopped[channel] = detail
        self._audit.note(events.DiodeStopped(
            wall_ns=self._setting.wall(), strand=self._strand, channel=clip(channel, 128), detail=clip(detail)
        ), always=True)  # fmt: skip

    def _heard(self, beat: Beat) -> None:
        if beat.epoch != self._epoch:
            self._stop("heartbeat", f"a heartbeat of epoch {beat.epoch} in epoch {self._epoch}")
            return
        self._beat, self._beat_at = beat, self._setting.clock()
        for told in beat.channels:
            if told.channel not in self._row.channels or told.channel in self._stopped:
                continue
            channel = self._channel(told.channel)
            try:
                for span in told.spans:
                    lost = channel.told(span.epoch, span.oldest, span.highest, self._epoch)
                    self._tell_gaps(told.channel, "lost", lost)
                    self._figures.add("lost", sum(gap.total for gap in lost), told.channel)
            except CrossingError as error:
                self._stop(told.channel, str(error))
            self._dirty.add(told.channel)
        self._check_coming()

    def _piece(self, piece: Piece) -> None:
        name = piece.channel
        if name in self._stopped:
            return
        if name not in self._row.channels:
            self._stop(name, "it does not ride by this policy")
            return
        channel = self._channel(name)
        one = channel.epochs.get(piece.epoch)
        if one is not None and piece.number in one.have:
            self._figures.add("records_again", 1, name)
            return
        if self._full and name.startswith(FILES_RIDE):
            return  # it is missing, and so named
        try:
            if name.startswith(FILES_RIDE):
                if not self._file_piece(piece):
                    return
                channel.take(piece.epoch, piece.number, self._epoch)
                self._done_chunk(piece)
            else:
                channel.take(piece.epoch, piece.number, self._epoch)
                order = self._orders.setdefault(name, Order(self._row.wait, HOLD_BYTES))
                order.put(piece.epoch, piece.number, len(piece.body), piece.body, self._setting.clock())
                self._hand_on(name, channel)
        except CrossingError as error:
            self._stop(name, str(error))
            return
        except StoreFull as error:
            self._full = str(error)
            return
        except OSError as error:
            self._full = f"{self._store.folder}: {error.strerror or error}"
            return
        self._figures.add("records", 1, name)
        self._dirty.add(name)

    # --- messages

    def _hand_on(self, name: str, channel: Channel) -> None:
        order = self._orders.get(name)
        if order is None or self.deliver is None:
            return
        for epoch, number, body in order.ready(channel, self._setting.clock()):
            if isinstance(body, bytes):
                self.deliver(name, epoch, number, body)

    # --- files

    def _row_of(self, channel: str) -> FilesRow:
        return next(row for row in self._row.files if row.channel == channel)

    def _file_piece(self, piece: Piece) -> bool:
        """Writes what it brings; whether it counts as come. Raises: CrossingError, OSError, StoreError."""
        row = self._row_of(piece.channel)
        record = FILES.decode(piece.body)
        if not 0 < piece.epoch <= self._epoch:
            raise CrossingError(f"{piece.channel}: epoch {piece.epoch} in epoch {self._epoch}")
        if isinstance(record, Manifest):
            return self._manifest(row, piece, record)
        first = record.manifest
        known = self._store.file(piece.channel, piece.epoch, first)
        if record.offset != (piece.number - first - 1) * CHUNK_BYTES or first >= piece.number:
            raise CrossingError(f"{piece.channel}: number {piece.number} at byte {record.offset} of file {first}")
        end = record.offset + len(record.data)
        if end > row.most or (known is not None and end > known.size):
            raise CrossingError(f"{piece.channel}: a file of {end} bytes or more")
        if known is None and self._strays(piece.channel) >= COMING_MOST:
            raise CrossingError(f"{piece.channel}: {COMING_MOST} files without a manifest")
        if known is not None and known.state != "coming":
            return True  # refused, or done
        self._store.write(piece.channel, piece.epoch, first, record.offset, record.data)
        return True

    def _strays(self, channel: str) -> int:
        ending = f".{channel.partition(':')[2]}"
        return sum(1 for path in self._store.part.iterdir() if path.name.endswith(ending))

    def _manifest(self, row: FilesRow, piece: Piece, said: Manifest) -> bool:
        if said.chunks != -(-said.size // CHUNK_BYTES):
            raise CrossingError(f"{row.channel}: {said.chunks} chunks of a file of {said.size} bytes")
        if self._store.count(row.channel, "coming") >= COMING_MOST:
            raise CrossingError(f"{row.channel}: more than {COMING_MOST} files at a time")
        why = row.wrong(said.name)
        if not why and said.size > row.most:
            why = f"larger ({said.size} bytes) than what rides ({row.most})"
        if not why and not self._within_day(row, said.size):
            why = f"beyond the {row.per_day} bytes of a day"
        coming = Coming(
            row.channel, piece.epoch, piece.number, said.name, said.size, said.sha256, said.changed_ns, said.chunks,
            "refused" if why else "coming", "", self._setting.wall(),
        )  # fmt: skip
        free, _ = self._store.room()
        if not why and said.size > max(0, free - RESERVE_BYTES):
            raise StoreFull(f"{self._store.folder} has {free} bytes left, too few for {said.name!r}")
        self._store.coming(coming)
        if why:
            self._refused(coming, why)
            if why.startswith("no plain name"):
                raise CrossingError(f"{row.channel}: a file called {clip(said.name, 100)!r}")
        return True

    def _within_day(self, row: FilesRow, size: int) -> bool:
        since = self._setting.wall() - 86_400 * SECOND
        while self._today and self._today[0][0] < since:
            self._today.popleft()
        if sum(other for _, name, other in self._today if name == row.name) + size > row.per_day:
            return False
        self._today.append((self._setting.wall(), row.name, size))
        return True

    def _refused(self, coming: Coming, why: str) -> None:
        self._figures.add("files_refused", 1, coming.channel)
        self._store.drop(coming)
        self._audit.note(events.DiodeFileRefused(
            wall_ns=self._setting.wall(), strand=self._strand, channel=coming.channel, name=clip(coming.name),
            detail=clip(why),
        ), always=True)  # fmt: skip

    def _done_chunk(self, piece: Piece) -> None:
        record = FILES.decode(piece.body)
        first = piece.number if isinstance(record, Manifest) else record.manifest
        row = self._store.file(piece.channel, piece.epoch, first) if self._may_be_last(piece, record) else None
        if row is not None and row.state == "coming":
            self._look_whole(row)

    def _may_be_last(self, piece: Piece, record: Manifest | Chunk) -> bool:
        """Whether it is worth a look: the number after it has come, or is none of this file."""
        have = self._channels[piece.channel].epochs[piece.epoch].have
        return (
            isinstance(record, Manifest)
            or len(record.data) < CHUNK_BYTES
            or piece.number + 1 in have
            or (piece.number == have.highest)
        )

    def _look_whole(self, row: Coming) -> None:
        one = self._channel(row.channel).epochs.get(row.epoch)
        if one is None or next(one.have.missing(row.first, row.first + row.chunks), None) is not None:
            return
        at = (row.channel, row.epoch, row.first)
        if at not in self._placing:
            self._placing.add(at)
            self._whole.append(row)
            self._reactor.later(self._check)

    def _check_coming(self) -> None:
        """Files of which something is lost, or given up, will not be whole: what came of them goes."""
        for row in list(self._store.files("coming")):
            self._look_whole(row)

    def _check(self) -> None:
        """Works on: a slice of a file that is copied into its folder, hidden, while its hash is worked out."""
        if self._halted:
            return
        if self._copying is None:
            if not self._whole:
                return
            self._copying = self._open(self._whole.popleft())
        copying = self._copying
        row = copying.row
        data = os.pread(copying.source, SLICE_BYTES, copying.at)
        copying.digest.update(data)
        rest = memoryview(data)
        while rest:
            done = os.pwrite(copying.into, rest, copying.at)
            copying.at, rest = copying.at + done, rest[done:]
        if data and copying.at < row.size:
            self._reactor.later(self._check)
            return
        os.fsync(copying.into)
        os.close(copying.source)
        os.close(copying.into)
        self._copying = None
        if copying.digest.hexdigest() != row.sha256:
            (self._folder(row.channel) / _hidden(row)).unlink(missing_ok=True)
            self._store.state(row, "refused")
            self._placing.discard((row.channel, row.epoch, row.first))
            lost = self._channels[row.channel].epochs[row.epoch]
            why = "its hash is not what its manifest says"
            self._refused(row, f"{why}: part of it was lost" if lost.lost or lost.given_up else why)
        else:
            self._record(row._replace(placed=self._free_name(row)))
        if self._whole:
            self._reactor.later(self._check)

    def _open(self, row: Coming) -> _Copying:
        source = self._store.reader(row)
        os.ftruncate(source, row.size)
        hidden = self._folder(row.channel) / _hidden(row)
        into = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        os.fchmod(into, 0o660)  # whoever is in the folder's group fetches it
        return _Copying(row, source, into, hashlib.sha256(), 0)

    def _free_name(self, row: Coming) -> str:
        """The name under which a file can be put into its folder: another gets a number, and none is replaced."""
        folder = self._folder(row.channel)
        stem, dot, ending = row.name.rpartition(".")
        name, number = row.name, 1
        while os.path.lexists(folder / name) or name in self._names:
            number += 1
            name = f"{stem}.{number}.{ending}" if dot and stem else f"{row.name}.{number}"
        self._names.add(name)
        return name

    def _record(self, row: Coming) -> None:
        """Recorded, then put into its folder."""

        def done(ok: bool, reason: str) -> None:
            if self._halted:
                return
            if not ok:
                self._reactor.call_in(1.0, lambda: self._record(row))
                return
            placing = self._store.state(row, "placing", row.placed)
            folder = self._folder(row.channel)
            (folder / _hidden(row)).rename(folder / row.placed)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(fd)
            os.close(fd)
            self._store.save(self._channels, {row.channel})
            self._store.state(placing, "done", row.placed)
            self._store.drop(placing)
            self._names.discard(row.placed)
            self._placing.discard((row.channel, row.epoch, row.first))
            self._figures.add("files_received", 1, row.channel)

        self._audit.record(events.DiodeFileReceived(
            wall_ns=self._setting.wall(), strand=self._strand, channel=row.channel, name=clip(row.name), size=row.size,
            sha256=row.sha256, epoch=row.epoch, first=row.first, last=row.first + row.chunks, placed=clip(row.placed),
        ), done)  # fmt: skip

    # --- gaps -------------------------------------------------------------------------------------------------------

    def gaps(self, name: str) -> list[Gap]:
        """What of a channel is named as missing."""
        wall = self._setting.wall()
        return [gap for gap in self._channel(name).look(wall) if wall - gap.since >= GRACE_NS]

    def _look(self) -> None:
        """Names what is newly missing, and what has come after all."""
        for name in self._row.channels:
            found = set(self.gaps(name))
            before = self._named.get(name, set())
            new = [gap for gap in found if not any(_overlap(gap, old) for old in before)]
            gone = [old for old in before if not any(_overlap(old, gap) for gap in found)]
            lost = self._channel(name)
            closed = [old for old in gone if not self._was_lost(lost, old)]
            self._tell_gaps(name, "missing", new)
            self._tell_gaps(name, "closed", closed)
            self._named[name] = found
            self._figures.set("missing", sum(gap.total for gap in found), name)
            self._figures.set("gap_since", min((gap.since for gap in found), default=0), name)
            channel = self._channels.get(name)
            if channel is not None:
                self._hand_on(name, channel)

    @staticmethod
    def _was_lost(channel: Channel, gap: Gap) -> bool:
        one = channel.epochs.get(gap.epoch)
        return one is None or bool(one.lost and gap.last < one.highest and one.lost >= gap.total)

    def _tell_gaps(self, name: str, what: Any, gaps: Collection[Gap]) -> None:
        for epoch in sorted({gap.epoch for gap in gaps}):
            mine = [gap for gap in gaps if gap.epoch == epoch]
            self._audit.note(events.DiodeGap(
                wall_ns=self._setting.wall(), strand=self._strand, channel=name, epoch=epoch, what=what,
                first=min(gap.first for gap in mine), last=max(gap.last for gap in mine),
                count=sum(gap.total for gap in mine), ranges=len(mine),
            ), always=True)  # fmt: skip

    # --- operators --------------------------------------------------------------------------------------------------

    def command(self, asked: Asked) -> None:
        if asked.verb == "status":
            asked.answer(self._status())
        elif asked.verb == "ticket":
            self._ticket(asked, asked.decode(MakeTicket))
        elif asked.verb == "give-up":
            self._give_up(asked, asked.decode(GiveUp))
        elif asked.verb == "test":
            asked.answer(self._tests())
        else:
            super().command(asked)

    def _ticket(self, asked: Asked, said: MakeTicket) -> None:
        if self._keys is None:
            raise GateError(f"the strand {self._strand} has no other end", hint="cofferdam diode pair outside")
        channels = sorted(self._row.channels)
        if said.channel and said.channel not in channels:
            raise GateError(f"no channel {said.channel!r} rides", hint=f"there is {', '.join(channels)}")
        made = []
        wall = self._setting.wall()
        until = wall // SECOND + TICKET_SECONDS
        tag = tickets.site_tag(self._site, self._strand)
        for number, name in enumerate(channels):
            gaps = self.gaps(name) if said.channel in ("", name) else []
            if not gaps:
                continue
            count = sum(gap.total for gap in gaps)
            serial = self._store.ticket(wall, until, name, count)
            text = tickets.make(bytes.fromhex(self._keys.sign), tag, serial, until, number, gaps)
            self._audit.note(events.DiodeTicketMade(
                wall_ns=wall, strand=self._strand, serial=serial, ranges=len(gaps), count=count, until=str(until),
                by=clip(said.by, 128),
            ), always=True)  # fmt: skip
            made.append({"serial": serial, "channel": name, "text": text, "until": until, "missing": count})
        if not made:
            raise GateError("nothing is missing", hint="`cofferdam diode status` shows what came last")
        asked.answer({"strand": self._strand, "tickets": made})

    def _give_up(self, asked: Asked, said: GiveUp) -> None:
        channel = self._channels.get(said.channel)
        if channel is None or said.channel not in self._row.channels:
            raise GateError(f"no channel {said.channel!r} rides")
        gaps = self.gaps(said.channel)
        count = sum(channel.give_up(gap.epoch, gap.first, gap.last) for gap in gaps)
        self._tell_gaps(said.channel, "lost", gaps)
        self._named[said.channel] = set()
        self._dirty.add(said.channel)
        self._figures.add("lost", count, said.channel)
        for row in list(self._store.files("coming")):
            self._look_whole(row)
        self._hand_on(said.channel, channel)
        asked.answer({"given_up": count})

    def _test(self, known: Known) -> None:
        step = self._runs.get((known.run, known.rate))
        if step is None:
            while len(self._runs) >= RUNS_MOST:
                del self._runs[next(iter(self._runs))]
            step = self._runs[known.run, known.rate] = [0, known.of, self._setting.clock(), 0]
        step[0] += known.at < known.of
        step[3] = self._setting.clock()

    def _tests(self) -> list[dict[str, Any]]:
        return [
            {"run": run, "rate": rate, "got": got, "of": of, "seconds": round((last - first) / 1e9, 3)}
            for (run, rate), (got, of, first, last) in self._runs.items()
        ]

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self._halted:
            return
        try:
            self._save()
            self._full = ""
            free, _ = self._store.room()
            if free < RESERVE_BYTES:
                self._full = f"{self._store.folder} has {free} bytes left, and {RESERVE_BYTES} are kept free"
        except StoreFull as error:
            self._full = str(error)
        self._look()
        if self._setting.clock() - self._told_at >= TELL_NS:
            self._tell()

    def _save(self) -> None:
        if self._dirty:
            self._store.save(self._channels, {name for name in self._dirty if name in self._channels})
            self._dirty.clear()

    def _tell(self) -> None:
        self._told_at = self._setting.clock()
        more = [one - other for one, other in zip(self._trouble, self._told_trouble, strict=True)]
        self._told_trouble = list(self._trouble)
        wall = self._setting.wall()
        if more[0]:
            self._audit.note(events.DiodeForeign(wall_ns=wall, strand=self._strand, count=more[0]))
        losses: tuple[Any, ...] = ("blocks", "kernel", "overrun")
        for what, count in zip(losses, more[1:], strict=True):
            if count:
                self._audit.note(events.DiodeLoss(wall_ns=wall, strand=self._strand, what=what, count=count))

    # --- what is told -----------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any]:
        beat, now, wall = self._beat, self._setting.clock(), self._setting.wall()
        names = self._row.channels
        return {
            "strand": self._strand, "end": "outside", "paired": self._keys is not None, "epoch": self._epoch,
            "sender": self._sender, "hardware": self._row.hardware, "full": self._full,
            "heartbeat": None if beat is None else {
                "age": round((now - self._beat_at) / 1e9, 1), "told": beat.wall_ns, "queue": beat.queue,
                "differs": round((wall - beat.wall_ns) / 1e9, 1), "dropped": beat.dropped,
            },
            "stopped": self._stopped,
            "trouble": dict(zip(("foreign", "blocks", "kernel", "overrun"), self._trouble, strict=True)),
            "folders": {row.channel: str(self._folder(row.channel)) for row in self._row.files},
            "channels": [
                {
                    "channel": name,
                    "epochs": [
                        {"epoch": epoch, "highest": one.highest, "lost": one.lost, "given_up": one.given_up}
                        for epoch, one in sorted(self._channel(name).epochs.items(), reverse=True)[:4]
                    ],
                    "missing": sum(gap.total for gap in self.gaps(name)),
                    "gaps": [
                        {"epoch": gap.epoch, "first": gap.first, "last": gap.last, "since": gap.since}
                        for gap in self.gaps(name)[:50]
                    ],
                    "coming": self._store.count(name, "coming"), "done": self._store.count(name, "done"),
                }
                for name in names
            ],
        }  # fmt: skip

    def figures(self) -> Reported:
        self._figures.set(
            "heartbeat", self._setting.wall() - (self._setting.clock() - self._beat_at) if self._beat else 0
        )
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        now = self._setting.clock()
        since = self._beat_at or self._born
        if now - since > SILENT_NS:
            found["silent"] = f"the inside of {self._strand} has not been heard for {(now - since) // SECOND} s"
        if self._full:
            found["store"] = f"nothing is taken from {self._strand}: {self._full}"
        for name, detail in list(self._stopped.items())[:8]:
            label = hashlib.sha256(name.encode()).hexdigest()[:8]
            found[f"stopped-{label}"] = clip(f"{name} of {self._strand} is stopped: {detail}")
        for name in self._row.channels:
            if gaps := self._named.get(name):
                count = sum(gap.total for gap in gaps)
                words = f"{count} records of {name} are missing (numbers {min(gap.first for gap in gaps)} to "
                found[f"gap-{name}"] = f"{words}{max(gap.last for gap in gaps)}): cofferdam diode ticket"
        return dict(list(found.items())[:32])

    @property
    def busy(self) -> int:
        return 1 if self._copying is not None else 0

    def end(self) -> None:
        try:
            self._tell()
            self._save()
        except CofferdamError:
            pass
        self.halt()

    def halt(self) -> None:
        if not self._halted:
            self._halted = True
            self._store.close()


def _overlap(one: Gap, other: Gap) -> bool:
    return one.epoch == other.epoch and one.first <= other.last and other.first <= one.last


def _hidden(row: Coming) -> str:
    """What a file is called in its folder before it is checked: nobody takes it for one that has come."""
    return f".{row.epoch}-{row.first}.coming"
