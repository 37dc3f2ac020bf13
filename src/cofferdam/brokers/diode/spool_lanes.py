"""What waits in the spool for its turn at the sender: records of conduits, files, and what is sent again.

The sender says what has left. No more is in its memory than CREDIT_BYTES of bulk, and of what is prompt no more than
leaves within PROMPT_SECONDS. Where more is offered than the strand's rate, the rest waits here, on disk; it goes as
bulk in its channel's order, and the heartbeat tells how much waits.

Channels of records have equal shares, byte by byte: one with large records takes no more than one with small ones, and
what that does not need. They go before files and what is sent again, which take turns. Of a lane that is full of
records one byte in FLOOR is left for files all the same: late they may be, and not never.

Not here: what is numbered and kept (spool), pace (sender).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from cofferdam.brokers.diode import records
from cofferdam.brokers.diode.outbox import encode
from cofferdam.brokers.diode.records import CHUNK_BYTES, Beat, Known, Piece
from cofferdam.brokers.diode.sender import prompt_credit
from cofferdam.brokers.diode.spool_store import FileRow, Kept, SpoolStore

CREDIT_BYTES: Final = 16 << 20
"""Of bulk that may wait in the sender."""
FLOOR: Final = 16
RECORD_COST: Final = 100
"""Bytes that a record costs beside its body, about."""

Handed = Piece | Known | records.Pace


class Job:
    """Records on their way to the sender. `serial`: of the ticket; -1 for what is sent for the first time."""

    def __init__(self, pieces: Iterator[Handed], *, file: FileRow | None = None, serial: int = -1) -> None:
        self.pieces = pieces
        self.file = file
        self.serial = serial
        self.count = 0
        self.size = 0


class _Run:
    """Records of a channel that wait, one number after the other; more of them may be added. `size`: their bytes."""

    def __init__(self, epoch: int, first: int, last: int, size: int, again: bool) -> None:
        self.epoch, self.next, self.last, self.size, self.again = epoch, first, last, size, again


class Lanes:
    """For one spool. `send` is the sender's pipe; `handed` is called with each piece and its job, `ended` with a job
    that has left, or None for records."""

    def __init__(
        self,
        store: SpoolStore,
        send: Callable[[Handed | Beat], None],
        handed: Callable[[Piece, Job | None], None],
        ended: Callable[[Job], None],
        rate: int,
    ) -> None:
        self._store, self._send, self._told, self._ended = store, send, handed, ended
        self.rate = rate
        self._records: dict[str, deque[_Run]] = {}
        self._share: dict[str, int] = {}
        """Bytes that channels of records have had since none waited; one that begins has had as much as the one that
        had least."""
        self._urgent: deque[Job] = deque()
        """Files that are prompt."""
        self.first: deque[Job] = deque()
        self.again: deque[Job] = deque()
        self._turn = False
        self._owed = 0.0
        """Bytes that files have not had of their share."""
        self._pace: records.Pace | None = None
        """One that waits until all has left that was handed over."""
        self._handed = self._left = 0
        """Bytes of bulk that were handed to the sender, and that have left."""
        self._whole = 0
        """Bytes of it in blocks that have left whole: the others may not be told as sent, for they are not there."""
        self._prompt = 0
        """Bytes of what is prompt that have not left."""
        self._marks: deque[tuple[int, str, int, int]] = deque()
        """(handed so far, channel, epoch, number) of what was handed over, in order; how many are of each channel:"""
        self._in_sender: Counter[str] = Counter()
        self.gone: dict[tuple[str, int], int] = {}
        """(channel, epoch) -> number up to which all has left."""
        self._unsettled: set[tuple[str, int]] = set()
        self._finishing: deque[tuple[int, FileRow]] = deque()

    # --- what is put in

    @property
    def room(self) -> bool:
        """Whether something prompt may leave at once."""
        return self._prompt < prompt_credit(self.rate)

    def prompt(self, piece: Piece) -> None:
        self._prompt += len(encode(piece))
        self._send(piece)

    def beat(self, beat: Beat) -> None:
        """It has its own room beside what is prompt. While nothing leaves at all (severed, no link) it is not said: the
        next one says as much."""
        size = len(encode(beat))
        if self._prompt < 2 * prompt_credit(self.rate):
            self._prompt += size
            self._send(beat)

    def put(self, channel: str, epoch: int, first: int, last: int, size: int, *, again: bool = False) -> None:
        """Some that are kept, in their order, as the sender has room."""
        if not self._records:
            self._share.clear()  # what one had while nobody else wanted anything is no debt
        if channel not in self._records:
            least = min((self._share[other] for other in self._records), default=0)
            self._share[channel] = max(least, self._share.get(channel, 0))
        runs = self._records.setdefault(channel, deque())
        run = runs[-1] if runs else None
        if run is not None and (run.epoch, run.last + 1, run.again) == (epoch, first, again):
            run.last, run.size = last, run.size + size
        else:
            runs.append(_Run(epoch, first, last, size, again))
        self.fill()

    def dropped(self, some: Iterable[Kept]) -> None:
        """These are not kept any more: they wait for nothing."""
        for one in some:
            for run in self._records.get(one.channel, ()):
                if run.epoch == one.epoch and run.next <= one.number <= run.last:
                    run.size = max(0, run.size - one.size)

    def waits(self, channel: str) -> bool:
        """Whether bulk of a channel is here or in the sender: what overtook it would have it named as missing."""
        files = (job.file for job in self.first)
        return (
            channel in self._records
            or self._in_sender[channel] > 0
            or any(file is not None and file.channel == channel for file in files)
        )

    def file(self, job: Job, channel: str, *, prompt: bool) -> None:
        """`prompt`: before others, where it overtakes none of its channel."""
        if prompt and not self.waits(channel):
            self._urgent.append(job)
        else:
            self.first.append(job)
        self.fill()

    @property
    def waiting(self) -> int:
        """Bytes of records that wait here."""
        return sum(run.size for runs in self._records.values() for run in runs)

    @property
    def queue(self) -> int:
        """Bytes of bulk that were handed over and have not left."""
        return self._handed - self._left

    def settle(self) -> None:
        """Writes down what has left."""
        for channel, epoch in self._unsettled:
            self._store.left(channel, epoch, self.gone[channel, epoch])
        self._unsettled.clear()

    # --- what goes out

    def left(self, room: records.Room) -> None:
        """The sender's word."""
        self._prompt = max(0, self._prompt - room.prompt)
        self._left = min(self._handed, self._left + room.sent)
        self._whole = max(self._whole, self._left - room.under_way)
        while self._marks and self._marks[0][0] <= self._whole:
            _, channel, epoch, number = self._marks.popleft()
            self._in_sender[channel] -= 1
            self.gone[channel, epoch] = max(self.gone.get((channel, epoch), 0), number)
            self._unsettled.add((channel, epoch))
        if not self._marks:
            self.settle()
        while self._finishing and self._finishing[0][0] <= self._whole:
            self._store.sent(self._finishing.popleft()[1])
        self.fill()

    def fill(self) -> None:
        """Hands over as much as the sender has room for. A new pace is for what comes after it: it and all else but
        what is prompt waits for what was handed over before."""
        while self._urgent or self._records or self.first or self.again:
            if self._urgent and self.room:  # which is beside what bulk has
                self._job(self._urgent)
                continue
            if self._handed - self._left >= CREDIT_BYTES:
                return
            if self._pace is not None:
                if self._left < self._handed:
                    return
                self._send(self._pace)
                self._pace = None
            files = bool(self.first or self.again)
            if self._urgent:  # before others of its channel in any case
                self._job(self._urgent)
            elif self._records and not (files and self._owed >= CHUNK_BYTES):
                size = self._record()
                self._owed = self._owed + size / FLOOR if files else 0.0
            else:
                lane = self.again if self.again and (self._turn or not self.first) else self.first
                self._turn = not self._turn
                self._owed = max(0.0, self._owed - self._job(lane))

    def _record(self) -> int:
        """Hands over the next record; how many bytes it has."""
        channel = min(self._records, key=self._share.__getitem__)
        runs = self._records[channel]
        run = runs[0]
        number, body = self._store.next_message(channel, run.epoch, run.next, run.last) or (run.last, None)
        run.next = number + 1
        if body is not None:
            run.size = max(0, run.size - len(body))
            self._hand(Piece(channel, run.epoch, number, body, again=run.again), None)
        else:  # what there was of it is not kept any more, and has left as far as it ever will
            self._mark(channel, run.epoch, number)
        self._share[channel] += RECORD_COST + len(body or b"")
        if run.next > run.last:
            runs.popleft()
        if not runs:
            del self._records[channel]
        return len(body or b"")

    def _job(self, lane: deque[Job]) -> int:
        """Hands over the next piece of a file, or of what is sent again; how many bytes it has."""
        job = lane[0]
        record = next(job.pieces, None)
        if record is None:
            lane.popleft()
            if job.file is not None:
                self._finishing.append((self._handed, job.file))
                if self._handed <= self._whole:
                    self._store.sent(self._finishing.popleft()[1])
            self._ended(job)
            return 0
        if isinstance(record, records.Pace):
            self._pace = record
            return 0
        self._hand(record, job)
        return len(record.body if isinstance(record, Piece) else record.fill)

    def _mark(self, channel: str, epoch: int, number: int) -> None:
        """It has left once all has that was handed over so far."""
        self._marks.append((self._handed, channel, epoch, number))
        self._in_sender[channel] += 1

    def _hand(self, record: Piece | Known, job: Job | None) -> None:
        body = record.body if isinstance(record, Piece) else record.fill
        prompt = isinstance(record, Piece) and record.prompt and self.room and not self._in_sender[record.channel]
        if isinstance(record, Piece) and record.prompt and not prompt:
            record = msgspec.structs.replace(record, prompt=False)
        if not prompt:
            self._handed += len(body)
        if job is not None:
            job.count += 1
            job.size += len(body)
        if isinstance(record, Piece):
            self._told(record, job)
            if not prompt and (job is None or job.serial < 0):
                self._mark(record.channel, record.epoch, record.number)
        if isinstance(record, Piece) and prompt:
            self.prompt(record)
        else:
            self._send(record)
