"""The teller: what the gate inside says of itself, for the outside: the status that the gate hands it each minute, and
what is new of the audit log, whose folder it sees and cannot write. It has no network and keeps nothing.

The spool says how far the log has been told, and takes one thing after the other. A log is told in steps of whole
tiles; the last step ends with the checkpoint and the unfinished tiles at the log's edge. Where these go meanwhile,
since the log has grown, the step is made anew. One that nobody has been told of yet may be large: no more than one
file, or a few small ones, is in memory at a time.

Not here: numbers and what is kept (spool), the copy outside (keeper_inside).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

from cofferdam.audit.checkpoint import claimed_checkpoint
from cofferdam.audit.dropped import DROPPED, parse_dropped
from cofferdam.audit.files import DirFiles
from cofferdam.audit.tiles import growth
from cofferdam.audit.tree import WIDTH
from cofferdam.audit.verify import CHECKPOINT
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.diode.records import GATE, PIECE_BYTES, Bit, LogFile, LogUnit, StatusUnit
from cofferdam.brokers.diode.sender import row_of
from cofferdam.brokers.diode.told import Told
from cofferdam.brokers.kit.supervision import HOUSE_STATUS
from cofferdam.errors import AuditError, GateError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.diode_rows import LOG, STATUS

LOOK_TICKS: Final = 120
"""Half seconds from one look at the log to the next."""
SOON_TICKS: Final = 4
"""From the start to the first; and where something had gone, so that it is to be looked at again."""
BATCH_BYTES: Final = 1 << 20
"""Of small files that go together."""
STEP: Final = 64 * WIDTH
"""Entries of one step."""
STATUSES: Final = 2
"""That wait: of older ones nobody needs to know."""


class Look(Struct, forbid_unknown_fields=True):
    """`again`: all of the log, from its beginning."""

    again: bool = False
    by: str = ""


def units(files: DirFiles, told: int) -> Iterator[tuple[int, LogUnit]]:
    """(entries told once it is taken, what to tell) for a log of which `told` entries are. At the end it is told as far
    as it was signed when this began; where it ends before, an unfinished tile has gone: it is to be called again.

    Raises: AuditError, where the log is none.
    """
    note = files.read(CHECKPOINT)
    if note is None:
        return
    head = claimed_checkpoint(note)
    dropped = files.read(DROPPED) or b""
    if head.size < told:
        raise AuditError(
            f"it has {head.size} entries, and {told} were told: it was put back, or is another's. Keep what there is, "
            "outside as well, and find out why"
        )
    kept = parse_dropped(dropped or None, head.origin).stop
    while told < head.size:
        step = min(told // WIDTH * WIDTH + STEP, head.size // WIDTH * WIDTH)
        last = step <= told
        step = head.size if last else step
        paths = list(growth(told, step, kept, whole=not last))
        # What is unfinished may go at any time: of the last step all is read at once.
        contents: Iterable[bytes | None] = [*map(files.read, paths)] if last else map(files.read, paths)
        batch: list[LogFile] = []
        size = 0
        for path, data in zip(paths, contents, strict=True):
            if data is None:
                return
            if batch and size + len(data) > BATCH_BYTES:
                yield 0, LogUnit(tuple(batch))
                batch, size = [], 0
            batch.append(LogFile(path, data))
            size += len(data)
        yield step, LogUnit(tuple(batch), note, dropped) if last else LogUnit(tuple(batch))
        told = step


class Teller(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._strand, self._row = row_of(setting.policy)
        self._spool = setting.senders["spool"]
        self._files = DirFiles(setting.reads["audit"])
        self._log = -1
        """Entries that have been told; -1: the spool has not said."""
        self._free = False
        self._units: Iterator[tuple[int, LogUnit]] | None = None
        self._statuses: deque[bytes] = deque(maxlen=STATUSES)
        self._ticks = LOOK_TICKS - SOON_TICKS
        self._wrong = ""

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """The sender holds what is sent."""

    def on_record(self, source: str, record: Any) -> None:
        self._log, self._free = record.log, True
        self._next()

    def command(self, asked: Asked) -> None:
        if asked.verb == HOUSE_STATUS:
            if STATUS in self._row.gate:
                unit = StatusUnit(self._setting.wall(), asked.arguments)
                self._statuses.append(GATE.encode(unit))
                self._next()
            asked.answer()
        elif asked.verb == "look":  # now, and not within the minute
            wanted = asked.decode(Look)
            if self._log < 0 or LOG not in self._row.gate:
                raise GateError(
                    "the audit log does not go out by this strand, or not yet", hint="cofferdam diode status"
                )
            answer: Told = {"told": self._log}
            asked.answer(answer)
            if wanted.again:
                self._log, self._units = 0, None
            self._ticks = LOOK_TICKS
        else:
            super().command(asked)

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks >= LOOK_TICKS and self._units is None and LOG in self._row.gate and self._log >= 0:
            self._ticks = 0
            self._units = units(self._files, self._log)
        self._next()

    def _next(self) -> None:
        """Hands over what is next, if the spool takes it."""
        if not self._free:
            return
        if self._statuses:
            self._hand(STATUS, self._statuses.popleft(), 0)
        elif self._units is not None:
            try:
                found = next(self._units, None)
                self._wrong = ""
            except AuditError as error:
                found, self._wrong = None, str(error)
            if found is None:
                self._units = None
            else:
                self._hand(LOG, GATE.encode(found[1]), found[0])

    def _hand(self, what: Any, data: bytes, log: int) -> None:
        self._free = False
        for at in range(0, len(data), PIECE_BYTES):
            self._spool.send(Bit(what, data[at : at + PIECE_BYTES], at + PIECE_BYTES < len(data), log))

    def alarms(self) -> dict[str, str]:
        return {"log": f"the audit log does not go over {self._strand}: {self._wrong}"} if self._wrong else {}

    @property
    def busy(self) -> int:
        return 0
