"""Records of conduits that ride: pieces are put together, and handed to the part that they are for, in order.

A piece counts as come when it is on disk: in the folder of the part that it is for, or, while it waits for others, in
the store. What waits too long for what is missing goes on without it, which then comes later, or never.

What the records say is their conduit's affair. A part that finds one that no honest part would send marks its folder,
and the channel is stopped. What the gate inside tells of itself goes no further: it is kept here (keeper_inside).
Not here: numbers (ledger), how they are taken (crossing.strand).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.diode.keeper_inside import Inside
from cofferdam.brokers.diode.keeper_store import Held, KeeperStore
from cofferdam.brokers.diode.ledger import Channel, Gap, Order
from cofferdam.brokers.diode.records import Piece, part
from cofferdam.crossing import strand, strand_missing
from cofferdam.errors import CrossingError, StoreFull
from cofferdam.limits import strand_end
from cofferdam.policy.terms.diode_rows import RECORDS, DiodeRows

HOLD_BYTES: Final = 64 << 20
"""Of one channel that wait for those before them; and of its pieces that wait for others of their own."""
COST_BYTES: Final = 1 << 10
"""What each that waits costs beside its bytes, about."""
UNITS_MOST: Final = 256
"""Of one channel of which only some pieces have come."""
TURN_MOST: Final = 100
"""Records of a channel that are handed on in one turn of the loop: each is synced, and where one was waited for long
thousands may go on with it."""
FOLDER_MOST: Final = 50_000
"""Files that wait in a folder for the part that they are for. With more, what comes is missing, and named."""


@dataclass
class _Unit:
    """What was handed over at a time, in pieces."""

    count: int
    found: dict[int, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(map(len, self.found.values()))


class Handing:
    """For one keeper. `channel` gives a ledger; `lost` is told of pieces that were given up here."""

    def __init__(
        self,
        setting: Setting,
        row: DiodeRows,
        store: KeeperStore,
        channel: Callable[[str], Channel],
        lost: Callable[[str, list[Gap]], None],
        inside: Inside | None = None,
    ) -> None:
        self._inside = inside
        self._setting = setting
        self.row = row
        self._store = store
        self._channel = channel
        self._lost = lost
        self._orders: dict[str, Order] = {}
        self._units: dict[str, dict[tuple[int, int], _Unit]] = {}
        self._fresh: list[Held] = []
        """Pieces that have come and are not on disk."""
        self._gone: list[tuple[str, int, int, int]] = []
        """(channel, epoch, first, last) of what was handed on, and the store does not know it."""
        self._broken: dict[str, str] = {}
        self._told: dict[str, strand_missing.Missing] = {}
        self._scheduled = False
        self.trouble: Callable[[Exception], None] = _raise
        """What is called with what went wrong at the end of a turn."""
        self.full: set[str] = set()
        """Channels whose part does not take what there is."""
        self.waits: dict[str, str] = {}
        """Channels that have no room, and why; others have some."""

    def begin(self) -> None:
        """Goes on with what waited when the process ended."""
        for name in self.row.records:
            with contextlib.suppress(OSError):
                (self._setting.folders[strand_end(name, "in")] / strand.STOPPED).unlink(missing_ok=True)
            with contextlib.suppress(OSError, CrossingError):  # since when the inside is not heard, it may be
                self._told[name] = strand_missing.missing(self._setting.folders[strand_end(name, "in")])
        for held in self._store.held():
            if held.channel in self.row.channels:
                self._put(held)

    def piece(self, piece: Piece, channel: Channel, epoch: int) -> None:
        """A piece that is new. Raises: CrossingError."""
        at, count, _ = part(piece.body)
        unit = self._units.get(piece.channel, {}).get((piece.epoch, piece.number - at))
        if at >= piece.number or (unit is not None and (unit.count != count or at in unit.found)):
            raise CrossingError(f"{piece.channel}: number {piece.number} is piece {at} of {count}")
        channel.take(piece.epoch, piece.number, epoch)
        held = Held(piece.channel, piece.epoch, piece.number, piece.body)
        self._put(held)
        self._fresh.append(held)
        self.soon()

    def _put(self, held: Held) -> None:
        at, count, data = part(held.body)
        units = self._units.setdefault(held.channel, {})
        key = (held.epoch, held.number - at)
        unit = units.setdefault(key, _Unit(count))
        unit.found[at] = data
        if len(unit.found) == count:
            del units[key]
            whole = b"".join(unit.found[number] for number in range(count))
            order = self._orders.setdefault(held.channel, Order(self.row.wait, HOLD_BYTES))
            order.put(*key, len(whole) + COST_BYTES, whole, self._setting.clock(), count)
        elif len(units) > UNITS_MOST or sum(one.size for one in units.values()) > HOLD_BYTES:
            self._drop(held.channel, min(units))

    def told(self, name: str) -> strand_missing.Missing:
        """What was said last of a conduit."""
        return self._told.get(name, strand_missing.Missing())

    def tell_missing(self, name: str, said: strand_missing.Missing) -> None:
        """For the part that takes the records of a conduit: it knows their numbers, and not that the last are
        missing."""
        folder = self._setting.folders[strand_end(name, "in")]
        if self._told.get(name) != said or not os.path.lexists(folder / strand_missing.MISSING):
            with contextlib.suppress(OSError):  # it is tried again
                strand_missing.tell_missing(folder, said)
                self._told[name] = said

    def soon(self) -> None:
        """Hands on what may go on, at the end of this turn."""
        if not self._scheduled:
            self._scheduled = True
            self._setting.reactor.later(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            self.turn()
        except Exception as error:
            self.trouble(error)

    def turn(self) -> None:
        """What is whole and in its order goes to its part; the rest is kept. Raises: StoreError, OSError."""
        now = self._setting.clock()
        gone = self._gone
        touched = {held.channel for held in self._fresh}
        for name, order in self._orders.items():
            if name in self._broken:
                continue
            kind, _, rider = name.partition(":")
            folder = self._setting.folders[strand_end(rider, "in")] if kind == RECORDS else None
            before = len(gone)
            for epoch, number, count, whole in order.peek(self._channel(name), now):
                if len(gone) - before >= TURN_MOST:
                    self._setting.reactor.call_in(0, self._turn)
                    break
                try:
                    if folder is not None:
                        strand.put(folder, f"{epoch:020d}-{number:020d}", whole, synced=False)
                    elif self._inside is not None:
                        self._inside.take(whole)
                except CrossingError as violation:
                    self._broken[name] = str(violation)
                    break
                except StoreFull as no_room:  # of its own: the others have their reserve
                    self.full.add(name)
                    self.waits[name] = str(no_room)
                    break
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    self._broken[name] = f"its folder: {error.strerror or error}"  # which is another's as well
                    break
                gone.append((name, epoch, number, number + count - 1))
                order.done(epoch, number)
            if len(gone) > before:
                if folder is not None:
                    strand.sync(folder)
                touched.add(name)
        if not touched:
            return
        left = [
            held for held in self._fresh
            if not any(held.channel == name and held.epoch == epoch and first <= held.number <= last
                       for name, epoch, first, last in gone)
        ]  # fmt: skip
        self._store.hold(left, gone, {name: self._channel(name) for name in touched})
        self._fresh.clear()
        gone.clear()

    def look(self) -> dict[str, str]:
        """Twice a second: gives up pieces whose others will not come. Channels that their parts have stopped, and
        why."""
        found = dict(self._broken)
        self.full.clear()
        self.waits.clear()
        for name in self.row.records:
            channel = f"{RECORDS}:{name}"
            folder = self._setting.folders[strand_end(name, "in")]
            if os.path.lexists(folder / strand.STOPPED):
                try:
                    found[channel] = strand.read(folder, strand.STOPPED).decode(errors="replace")
                except (CrossingError, FileNotFoundError) as error:
                    found[channel] = str(error)
            if len(strand.waiting(folder)) > FOLDER_MOST:
                self.full.add(channel)
        for channel in self.row.handed:
            for (epoch, first), unit in list(self._units.get(channel, {}).items()):
                have = self._channel(channel).epochs[epoch].have
                if any(first + at in have for at in range(unit.count) if at not in unit.found):
                    self._drop(channel, (epoch, first))
            if self._orders.get(channel):
                self.soon()
        return found

    def _drop(self, channel: str, key: tuple[int, int]) -> None:
        unit = self._units[channel].pop(key)
        epoch, first = key
        self._store.forget(channel, epoch, first, first + unit.count - 1)
        self._fresh = [
            held for held in self._fresh
            if (held.channel, held.epoch) != (channel, epoch) or not first <= held.number < first + unit.count
        ]  # fmt: skip
        one = self._channel(channel).epochs[epoch]
        gaps = [Gap(epoch, first + at, first + at) for at in sorted(unit.found)]
        one.lost += len(gaps)
        self._lost(channel, gaps)


def _raise(error: Exception) -> None:
    raise error
