"""The keeper: takes what the receiver hands over, holds it to the policy and to the ledger, keeps it, and says what is
missing. It has no network.

It judges everything as if the sender were another's by now: names, sizes, numbers and channels. A channel whose records
no honest sender would send takes no more until the gate is started anew; others go on.

Not here: the disk (keeper_store), numbers (ledger), tickets (tickets).
"""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct, structs

from cofferdam.audit.events import diode as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.diode import records, tickets, told
from cofferdam.brokers.diode.figures import KEEPER
from cofferdam.brokers.diode.keeper_files import RESERVE_BYTES, SECOND, Files
from cofferdam.brokers.diode.keeper_inside import Inside
from cofferdam.brokers.diode.keeper_records import Handing
from cofferdam.brokers.diode.keeper_store import KeeperStore
from cofferdam.brokers.diode.ledger import Channel, Gap, apart
from cofferdam.brokers.diode.pairing import KeeperKeys, load
from cofferdam.brokers.diode.records import Beat, Known, Piece
from cofferdam.brokers.diode.sender import row_of
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.crossing.strand_missing import Missing
from cofferdam.errors import CofferdamError, CrossingError, GateError, StoreError, StoreFull
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.diode_rows import FILES as FILES_RIDE
from cofferdam.policy.terms.diode_rows import LOG, RECORDS, STATUS

GRACE_NS: Final = 1_200_000_000
"""What is missing for so long is named: a block's parity, and blocks that were woven into it, come meanwhile."""
SILENT_NS: Final = 5 * SECOND
"""Without a heartbeat for so long the sender is silent."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
TICKET_SECONDS: Final = 7 * 86_400
"""How long a ticket is good."""
TELL_NS: Final = 10 * SECOND
"""Strangers and losses are counted for so long, and told as one entry."""
UNTOLD_SECONDS: Final = 200
"""A status comes each minute."""
WAITS_SECONDS: Final = 300
"""So long a checkpoint of the inside's log may wait for what it covers."""
RUNS_MOST: Final = 64
"""Steps of tests that are remembered."""


class MakeTicket(Struct, forbid_unknown_fields=True):
    channel: str = ""
    by: str = ""


class GiveUp(Struct, forbid_unknown_fields=True):
    channel: str
    by: str = ""


class Keeper(Part):
    """The part."""

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
        self._dirty: set[str] = set()
        self._stopped: dict[str, str] = {}
        self._named = self._store.named()
        """By channel; an earlier life has told of them, and knew since when."""
        self._unnamed: set[str] = set()
        """Channels whose named gaps are others than the store has."""
        for name, gaps in self._named.items():
            self._channel(name).named(gaps)
        self._epoch = 0
        self._sender = ""
        self._beat: Beat | None = None
        self._beat_at = 0
        self._waits: dict[str, int] = {}
        """Of a channel: how many records wait inside for their turn."""
        self._born = setting.clock()
        self._trouble = [0, 0, 0, 0]
        self._told_trouble = [0, 0, 0, 0]
        self._told_at = setting.clock()
        self._runs: dict[tuple[int, int], list[int]] = {}
        self._full = ""
        self._halted = False
        self._files = Files(
            setting, self._strand, self._row, self._store, self._figures, self._channel,
            lambda name: self._store.save(self._channels, {name}),
        )  # fmt: skip
        self._inside = self._told()
        self._handing = Handing(setting, self._row, self._store, self._channel, self._lost, self._inside)
        self._handing.trouble = self._troubled
        self._files.begin()
        self._handing.begin()
        setting.senders["receiver"].send(records.Start(max(0, self._store.epoch - 1)))

    def _told(self) -> Inside | None:
        """What the gate inside tells of itself is kept by it. Raises: GateError."""
        folder = self._setting.folders.get(self._row.told)
        if folder is None:
            return None
        key = self._keys.log if self._keys is not None else ""
        return Inside(folder, LOG in self._row.gate, key, self._setting.wall)

    def _channel(self, name: str) -> Channel:
        return self._channels.setdefault(name, Channel(name))

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        self._keys = load(KeeperKeys, secrets) or self._keys
        if self._inside is not None and self._keys is not None:
            self._inside.take_key(self._keys.log)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        self._files.row = self._handing.row = self._row
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
        self._files.epoch = record.epoch
        self._beat_at = self._setting.clock()
        told = f"{record.wall_ns // SECOND}"
        self._audit.note(events.DiodeEpoch(
            wall_ns=self._setting.wall(), strand=self._strand, epoch=record.epoch, sender=record.sender, told=told
        ), always=True)  # fmt: skip

    def _stop(self, channel: str, detail: str) -> None:
        """The channel takes no more. Of names that nobody knows only some are remembered."""
        foreign = len(self._stopped) >= records.CHANNELS_MOST and ":" in channel and channel not in self._row.channels
        if channel in self._stopped or foreign:
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
        self._waits = {one.channel: one.waits for one in beat.channels}
        for one in beat.channels:
            if one.channel not in self._row.channels or one.channel in self._stopped:
                continue
            channel = self._channel(one.channel)
            try:
                for span in one.spans:
                    lost = channel.told(span.epoch, span.oldest, span.highest, self._epoch)
                    self._tell_gaps(one.channel, "lost", lost)
                    self._figures.add("lost", sum(gap.total for gap in lost), one.channel)
            except CrossingError as error:
                self._stop(one.channel, str(error))
            self._dirty.add(one.channel)
        self._files.look_all()

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
        if self._full or name in self._handing.full:
            return  # it is missing, and so named
        try:
            if name.startswith(FILES_RIDE):
                if not self._files.piece(piece, channel):
                    return  # it is missing, and so named
                self._dirty.add(name)
            else:
                self._handing.piece(piece, channel, self._epoch)
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

    def _lost(self, name: str, gaps: list[Gap]) -> None:
        """Pieces that have come, and are of no use without those that will not."""
        self._tell_gaps(name, "lost", gaps)
        self._figures.add("lost", sum(gap.total for gap in gaps), name)

    def _troubled(self, error: Exception) -> None:
        """What was to be handed on could not be written. It waits, where the disk is full."""
        if isinstance(error, StoreFull):
            self._full = str(error)
        elif isinstance(error, OSError) and error.errno in FULL:
            self._full = f"the disk of {self._store.folder} or of what is handed on is full"
        else:
            raise error

    # --- gaps -------------------------------------------------------------------------------------------------------

    def gaps(self, name: str) -> list[Gap]:
        """What of a channel is named as missing; what began in the future began before the clock was set back."""
        wall = self._setting.wall()
        found = self._channel(name).look(wall, self._epoch)
        return [gap for gap in found if not 0 <= wall - gap.since < GRACE_NS]

    def _look(self) -> None:
        """Names what is newly missing, and what has come after all."""
        for name in self._row.channels:
            found, before = self.gaps(name), self._named.get(name, [])
            new, gone = apart(found, before), apart(before, found)
            lost = self._channel(name)
            closed = [old for old in gone if not self._was_lost(lost, old)]
            self._tell_gaps(name, "missing", new)
            self._tell_gaps(name, "closed", closed)
            if found != before:
                self._unnamed.add(name)
            self._named[name] = found
            self._figures.set("missing", sum(gap.total for gap in found), name)
            self._figures.set("gap_since", min((gap.since for gap in found), default=0), name)
        # Until the first heartbeat nobody knows what was sent while this part was not there.
        silent = self._silent_ns > SILENT_NS or self._beat is None
        heard = self._setting.wall() - self._silent_ns if self._beat else 0
        for name in self._row.records:
            named = self._named[f"{RECORDS}:{name}"]
            missing = sum(gap.total for gap in named)
            behind, since = self._channel(f"{RECORDS}:{name}").behind(named)
            was = self._handing.told(name)
            if silent and was.silent:
                heard = was.heard  # clocks differ by a little each time
            waits = self._waits.get(f"{RECORDS}:{name}", 0)
            stopped = f"{RECORDS}:{name}" in self._stopped
            said = Missing(missing, behind, silent, heard if silent else 0, waits, stopped, since)
            self._handing.tell_missing(name, said)

    @property
    def _silent_ns(self) -> int:
        """Since when the inside was not heard."""
        return self._setting.clock() - (self._beat_at or self._born)

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
        elif asked.verb == "inside":
            packed = self._inside.status if self._inside is not None else b""
            answer: told.Inside = {**self._tells(), "packed": base64.b64encode(packed).decode()}
            asked.answer(answer)
        else:
            super().command(asked)

    def _ticket(self, asked: Asked, said: MakeTicket) -> None:
        if self._keys is None:
            raise GateError(f"the strand {self._strand} has no other end", hint="cofferdam diode pair outside")
        channels = sorted(self._row.channels)
        if said.channel and said.channel not in channels:
            raise GateError(f"no channel {said.channel!r} rides", hint=f"there is {', '.join(channels)}")
        made: list[told.Ticket] = []
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
        answer: told.Tickets = {"strand": self._strand, "tickets": made}
        asked.answer(answer)

    def _give_up(self, asked: Asked, said: GiveUp) -> None:
        channel = self._channels.get(said.channel)
        channels = sorted(self._row.channels)
        if channel is None or said.channel not in channels:
            raise GateError(f"no channel {said.channel!r} rides", hint=f"there is {', '.join(channels)}")
        gaps = self.gaps(said.channel)
        count = sum(channel.give_up(gap.epoch, gap.first, gap.last) for gap in gaps)
        self._tell_gaps(said.channel, "lost", gaps)
        self._named[said.channel] = []
        self._unnamed.add(said.channel)
        self._dirty.add(said.channel)
        self._figures.add("lost", count, said.channel)
        self._files.look_all()
        self._handing.soon()
        answer: told.GivenUp = {"given_up": count}
        asked.answer(answer)

    def _test(self, known: Known) -> None:
        step = self._runs.get((known.run, known.rate))
        if step is None:
            while len(self._runs) >= RUNS_MOST:
                del self._runs[next(iter(self._runs))]
            step = self._runs[known.run, known.rate] = [0, known.of, self._setting.clock(), 0]
        if known.at < known.of:  # else it says that there will be this rate
            step[2] = step[2] if step[0] else self._setting.clock()
            step[0] += 1
        step[3] = self._setting.clock()

    def _tests(self) -> list[told.Step]:
        now = self._setting.clock()
        return [
            {
                "run": run,
                "rate": rate,
                "got": got,
                "of": of,
                "seconds": round((last - first) / 1e9, 3),
                "age": round((now - last) / 1e9, 1),
            }
            for (run, rate), (got, of, first, last) in self._runs.items()
        ]

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self._halted:
            return
        for name, why in self._handing.look().items():
            self._stop(name, f"its part takes nothing more: {why}")
        try:
            self._save()
            self._full = ""
            free, _ = self._store.room()
            if free < RESERVE_BYTES:
                self._full = f"{self._store.folder} has {free} bytes left, and {RESERVE_BYTES} are kept free"
        except (StoreFull, OSError) as error:
            self._troubled(error)
        self._files.tick()
        self._look()
        if self._setting.clock() - self._told_at >= TELL_NS:
            self._tell()

    def _save(self) -> None:
        self._handing.turn()
        if self._dirty:
            self._store.save(self._channels, {name for name in self._dirty if name in self._channels})
            self._dirty.clear()
        if self._unnamed:  # told first: a process that ends in between has its successor tell them once more
            self._store.name({name: self._named.get(name, []) for name in self._unnamed})
            self._unnamed.clear()

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

    def _status(self) -> told.Outside:
        beat, now, wall = self._beat, self._setting.clock(), self._setting.wall()
        names = self._row.channels
        foreign, blocks, kernel, overrun = self._trouble
        return {
            "strand": self._strand, "end": "outside", "paired": self._keys is not None, "epoch": self._epoch,
            "sender": self._sender, "hardware": self._row.hardware, "full": self._full,
            "heartbeat": None if beat is None else {
                "age": round((now - self._beat_at) / 1e9, 1), "told": beat.wall_ns, "queue": beat.queue,
                "differs": round((wall - beat.wall_ns) / 1e9, 1), "dropped": beat.dropped,
            },
            "stopped": self._stopped, "told": self._tells(),
            "trouble": {"foreign": foreign, "blocks": blocks, "kernel": kernel, "overrun": overrun},
            "folders": {row.channel: str(self._files.folder(row.channel)) for row in self._row.files},
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
                    "under_way": self._files.under_way(name) if name.startswith(FILES_RIDE) else [],
                }
                for name in names
            ],
        }  # fmt: skip

    def _tells(self) -> told.Tells:
        return self._inside.tells() if self._inside is not None else {}

    def figures(self) -> Reported:
        self._figures.set(
            "heartbeat", self._setting.wall() - (self._setting.clock() - self._beat_at) if self._beat else 0
        )
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        now = self._setting.clock()
        if self._silent_ns > SILENT_NS:
            found["silent"] = f"the inside of {self._strand} has not been heard for {self._silent_ns // SECOND} s"
        elif self._inside is not None and STATUS in self._row.gate:
            age = (self._setting.wall() - self._inside.came_ns) // SECOND
            if age > UNTOLD_SECONDS and (now - self._born) // SECOND > UNTOLD_SECONDS:
                found["untold"] = f"the inside of {self._strand} lives, and has not told its status for {age} s"
        if self._inside is not None and (waits := self._inside.waits())[2] > WAITS_SECONDS * SECOND:
            found["log"] = (
                f"the copy of the inside's log has {waits[0]} entries of {waits[1]}: something has not come. A ticket "
                "brings it; inside, `cofferdam diode tell --again`, if it is not kept there any more"
            )
        if self._files.not_scanned:
            found["scan"] = clip(f"files of {self._strand} wait for their scan: {self._files.not_scanned}")
        for name, why in {**self._handing.waits, **self._files.waits()}.items():
            found[f"waits-{name.partition(':')[2]}"] = clip(f"nothing more of {name} of {self._strand} is taken: {why}")
        if self._full:
            found["store"] = f"nothing is taken from {self._strand}: {self._full}"
        ours = sorted(self._stopped.items(), key=lambda one: ":" in one[0] and one[0] not in self._row.channels)
        for name, detail in ours[:8]:
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
        return int(self._files.busy)

    def end(self) -> None:
        try:
            self._tell()
            self._save()
        except (CofferdamError, OSError):
            pass
        for name in self._row.records:  # whoever takes its records may go on without this part
            was = self._handing.told(name)
            heard = self._setting.wall() - self._silent_ns if self._beat else 0
            heard = was.heard if was.silent else heard
            self._handing.tell_missing(name, structs.replace(was, silent=True, heard=heard))
        self.halt()

    def halt(self) -> None:
        if not self._halted:
            self._halted = self._files.halted = True
            self._store.close()
