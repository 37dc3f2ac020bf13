"""What the spool takes from conduits that ride: records that their parts have handed over into a folder.

What lies in the folder is another part's word. It gets numbers, is on disk here, and then goes from the folder; a file
that was taken before (the process ended in between) is passed over by its name.

What the gate tells of itself comes by the teller's pipe, in bits, and goes the same way.

Small ones are prompt, unless the policy has their channel as bulk, there is no room for them in the sender, or others
of their channel wait: those of one channel leave in the order of their numbers. Not here: how they are handed over
(crossing.strand), when the larger ones leave (spool_lanes).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.diode.records import UNIT_BYTES, Bit, Go, Piece, parts
from cofferdam.brokers.diode.spool_store import SpoolStore
from cofferdam.crossing import strand
from cofferdam.errors import CrossingError, StoreFull
from cofferdam.limits import strand_end
from cofferdam.policy.terms.diode_rows import GATE, LOG, RECORDS, DiodeRows

FILES_A_TURN: Final = 64


class Riding:
    """For one spool. `prompt` is called with each piece that leaves at once, `bulk` with (channel, first, last,
    bytes) of those that wait for their turn; `waits` says whether what is new of a channel does."""

    def __init__(
        self,
        setting: Setting,
        row: DiodeRows,
        store: SpoolStore,
        *,
        prompt: Callable[[Piece], None],
        bulk: Callable[[str, int, int, int], None],
        waits: Callable[[str], bool],
    ) -> None:
        self._setting = setting
        self.row = row
        self._store = store
        self._prompt, self._bulk, self._waits = prompt, bulk, waits
        self.stopped: dict[str, str] = {}
        """Channel -> why nothing of it is taken any more."""
        self._teller = setting.senders.get("teller")
        self._bits = bytearray()
        self._told: tuple[str, bytes, int] | None = None
        """What was told, and is not taken yet: channel, bytes, entries of the log that are told then."""

    def look(self, epoch: int) -> bool:
        """Takes what lies there. Whether there may be more. Raises: StoreError."""
        more = False
        for name in self.row.records:
            channel = f"{RECORDS}:{name}"
            if channel in self.stopped:
                continue
            folder = self._setting.folders[strand_end(name, "out")]
            there = strand.waiting(folder)
            before = self._store.handed(channel) if there else ""
            for file in there[:FILES_A_TURN]:
                try:
                    if not strand.is_name(file):
                        raise CrossingError(f"{file[:100]!r} is no name that a part gives")
                    if file > before:
                        self._take(channel, epoch, strand.read(folder, file), file)
                    (folder / file).unlink(missing_ok=True)
                except CrossingError as error:
                    self.stopped[channel] = str(error)
                    break
                except FileNotFoundError:
                    continue
                except OSError as error:  # the folder is another's as well
                    self.stopped[channel] = f"{file}: {error.strerror or error}"
                    break
            if there:
                with contextlib.suppress(OSError):
                    strand.put(folder, strand.HANDED.removeprefix("."), self._store.handed(channel).encode(), mark=True)
            more = more or len(there) > FILES_A_TURN
        return more

    # --- what the gate tells

    def begin(self) -> None:
        """The teller may begin."""
        self._go()

    def bit(self, bit: Bit, epoch: int) -> None:
        """Raises: CrossingError, where the teller says more than there can be; StoreError."""
        if bit.what not in self.row.gate or self._told is not None:
            raise CrossingError(f"the teller tells of its {bit.what}, and was not asked to")
        self._bits += bit.data
        if len(self._bits) > UNIT_BYTES:
            raise CrossingError(f"the teller tells {len(self._bits)} bytes at a time")
        if not bit.more:
            self._told, self._bits = (f"{GATE}:{bit.what}", bytes(self._bits), bit.log), bytearray()
            self.take_told(epoch)

    def take_told(self, epoch: int) -> None:
        """Takes what was told, once there is room. Raises: StoreError."""
        if self._told is None:
            return
        channel, data, log = self._told
        try:
            self._take(channel, epoch, data, str(log) if log else self._store.handed(channel))
        except StoreFull:
            return  # it waits, and so does the teller
        self._told = None
        self._go()

    def _go(self) -> None:
        if self._teller is not None:
            self._teller.send(Go(int(self._store.handed(f"{GATE}:{LOG}") or 0)))

    def _take(self, channel: str, epoch: int, data: bytes, file: str) -> None:
        """Raises: CrossingError, StoreError."""
        bodies = parts(data)
        first = self._store.take_messages(channel, epoch, bodies, self._setting.wall(), file)
        last = first + len(bodies) - 1
        if self.row.is_prompt(channel, len(data)) and not self._waits(channel):
            self._store.left(channel, epoch, last)
            for number, body in enumerate(bodies, first):
                self._prompt(Piece(channel, epoch, number, body, prompt=True))
        else:
            self._bulk(channel, first, last, sum(map(len, bodies)))
