"""One session that has a grant: between the outer part's data, the asset's leg, and the recording.

What the asset says goes to the archivist first, and to the person once it is in the recording's file. Where that takes
too long the leg is held; where it fails the session ends. Where nothing is recorded it goes straight on.

Not here: legs (inner_ssh, inner_telnet), who starts a session (inner_part).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from cofferdam.audit.events.base import clip
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.cleaned import Cleaner
from cofferdam.brokers.jump.records import CREDIT, PIECE, TAKE_BYTES, Grant

UNSTORED_BYTES: Final = 65_536
"""What the archivist has not taken yet; beyond it the asset is not read."""
NO_STATUS: Final = 255
"""Of a program whose asset did not say how it ended: as ssh has it."""
UNSTORED_NS: Final = 5 * 10**9
"""How long it may take over one piece."""


class Leg(Protocol):
    """A connection to the asset, with a terminal or a program at its other end."""

    def write(self, data: bytes) -> bool:
        """Sends it. False: the asset does not keep up; `Live.leg_room` is called when it does again."""

    def write_eof(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def signal(self, name: str) -> None: ...

    def hold(self, held: bool) -> None:
        """Reads no more, or goes on."""

    def close(self) -> None: ...


class Ways(Protocol):
    """What a session needs of the part."""

    def to_outer(self, record: Any) -> None: ...

    def to_archivist(self, record: Any) -> None: ...

    def ended(self, live: Live, reason: str) -> None:
        """Called once."""

    def idle(self, live: Live) -> None:
        """It has been locked."""

    def now(self) -> int:
        """Monotonic ns."""


class Live:
    """The session."""

    def __init__(self, grant: Grant, ways: Ways) -> None:
        self.grant = grant
        self.number = grant.session
        self._ways = ways
        self._leg: Leg | None = None
        self.sent = self.received = 0
        self.began = self.typed = self.spoke = ways.now()
        self._clean = Cleaner() if grant.terminal is not None else None
        self.deadline = self.began + int(grant.seconds * 1e9)
        self._early: list[Callable[[], None]] = []
        self._untaken = 0
        self._room = CREDIT
        self._leg_full = False
        self._held: deque[tuple[int, int, bytes, Literal["shown", "error", "typed"]]] = deque()
        self._held_bytes = 0
        self._last = 0
        self._recorded = False
        self._credit = CREDIT
        self._is_held = False
        self._stored = 0
        self.locked = False
        self._size = (grant.terminal.columns, grant.terminal.rows) if grant.terminal is not None else (80, 24)
        self._over: records.Closed | None = None
        self._eof = False
        self._status, self._signal = NO_STATUS, ""
        self.done = False
        self.files: Callable[[Any], None] | None = None
        """What takes requests for files, in a session of files."""

    def file_told(self, record: Any) -> None:
        """What came of a request for files."""
        self._ways.to_outer(record)

    # --- the leg ----------------------------------------------------------------------------------------------------

    def start(self, leg: Leg) -> None:
        """The asset has let us in."""
        if self.done or self._over is not None:
            leg.close()
            return
        grant, terminal = self.grant, self.grant.terminal
        if grant.record:
            self._recorded = True
            self._ways.to_archivist(
                records.Record(
                    session=self.number, name=grant.name, person=grant.person, asset=grant.asset, login=grant.login,
                    source=grant.source, command=grant.command, columns=terminal.columns if terminal else 80,
                    rows=terminal.rows if terminal else 24, term=(terminal.term or "dumb") if terminal else "",
                )
            )  # fmt: skip
        self._leg = leg
        self._ways.to_outer(records.Started(self.number))
        early, self._early = self._early, []
        for act in early:
            act()

    def leg_says(self, data: bytes, error: bool = False) -> None:
        """What the asset says."""
        if self._over is not None:
            return
        self.received += len(data)
        self.spoke = self._ways.now()
        if self._clean is not None:
            data = self._clean.clean(data)
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            if self.grant.record:
                self._last += 1
                self._held.append((self._last, self._ways.now(), piece, "error" if error else "shown"))
                self._held_bytes += len(piece)
                self._ways.to_archivist(records.Happened(self.number, self._last, "o", piece))
            elif self.locked:
                self._held.append((0, self._ways.now(), piece, "error" if error else "shown"))
                self._held_bytes += len(piece)
            else:
                self._show(piece, error)
        self._hold()

    def _show(self, piece: bytes, error: bool) -> None:
        self._credit -= len(piece)
        self._ways.to_outer(records.Shown(self.number, piece, error))

    def _hold(self) -> None:
        wanted = self.locked or self._credit <= 0 or self._held_bytes > UNSTORED_BYTES
        if self._leg is not None and wanted != self._is_held:
            self._is_held = wanted
            self._leg.hold(wanted)

    def leg_eof(self) -> None:
        """The asset says no more."""
        if self._clean is not None and (rest := self._clean.flush()):
            self._clean = None
            self.leg_says(rest)
        self._eof = True
        self._finish()

    def leg_exit(self, status: int, signal: str = "") -> None:
        """How the program ended."""
        self._status, self._signal = status & 0xFF, signal

    def leg_closed(self, reason: str = "") -> None:
        """The leg is no more. `reason`: where that is nothing that a program does."""
        self._leg = None
        self.finish(reason, self._status, self._signal)

    def leg_room(self) -> None:
        """The asset keeps up again."""
        self._leg_full = False
        self._take()

    # --- the archivist ----------------------------------------------------------------------------------------------

    def stored(self, number: int, trouble: str) -> None:
        """Up to this number all is in the recording."""
        if trouble:
            self.end(f"this session ends, since it cannot be recorded: {trouble}")
            return
        self._stored = max(self._stored, number)
        self._release()
        self._finish()

    def _release(self) -> None:
        """Shows what is in the recording, and sends what was typed; nothing at a terminal that is locked."""
        while self._held and self._held[0][0] <= self._stored and not self.locked:
            _, _, piece, way = self._held.popleft()
            if way == "typed":
                self._write(piece)
            else:
                self._held_bytes -= len(piece)
                self._show(piece, way == "error")
        self._hold()

    # --- the person -------------------------------------------------------------------------------------------------

    def person(self, record: Any) -> None:
        """What the outer part says."""
        if self._over is not None:
            if isinstance(record, records.Took):
                self._credit = min(CREDIT, self._credit + record.count)
            return
        match record:
            case records.Send(_, data) if self.locked:
                self._drop(len(data))
            case records.Send(_, data):
                self.typed = self._ways.now()
                self._receive(data)
            case records.Took(_, count):
                self._credit = min(CREDIT, self._credit + count)
                self._hold()
            case records.Resize(_, columns, rows):
                self._later(lambda: self._resize(columns, rows))
            case records.SendEnd():
                self._later(self._write_eof)
            case records.Signal(_, signal) if not self.locked:
                self._later(lambda: self._leg.signal(signal) if self._leg is not None else None)
            case records.FileAsk():
                if self.files is not None:
                    self.files(record)
            case records.Close():
                self.end("the person is gone")

    def _later(self, act: Callable[[], None]) -> None:
        """Now, or once the asset has let us in."""
        if self._leg is not None:
            act()
        elif len(self._early) < 1_000:
            self._early.append(act)

    def _receive(self, data: bytes) -> None:
        """The outer part keeps to its credit; a broken one could fill our memory."""
        self._room -= len(data)
        if self._room < -PIECE:
            self.end("more was sent than was asked for")
        else:
            self._send(data)

    def _drop(self, count: int) -> None:
        """What was on its way when the terminal was locked goes nowhere."""
        self._room -= count
        if self._room < -PIECE:
            self.end("more was sent than was asked for")
            return
        self._untaken += count
        self._take()

    def _send(self, data: bytes) -> None:
        if self._leg is None:
            self._early.append(lambda: self._send(data))
            return
        if not self.grant.opaque:
            self._write(data)
            return
        self._last += 1
        self._held.append((self._last, self._ways.now(), data, "typed"))
        self._ways.to_archivist(records.Happened(self.number, self._last, "i", data))

    def _write_eof(self) -> None:
        """After what was typed, and may still be on its way into the recording."""
        if any(way == "typed" for _, _, _, way in self._held):
            self._held.append((self._last, self._ways.now(), b"", "typed"))
        elif self._leg is not None:
            self._leg.write_eof()

    def _write(self, data: bytes) -> None:
        """To the asset. Nothing at all: the person says no more."""
        if self._leg is None:
            return
        if not data:
            self._leg.write_eof()
            return
        self.sent += len(data)
        self._untaken += len(data)
        if not self._leg.write(data):
            self._leg_full = True
        if self._untaken >= TAKE_BYTES and not self._leg_full:
            self._take()

    def _take(self) -> None:
        count, self._untaken = self._untaken, 0
        self._room += count
        if count:
            self._ways.to_outer(records.Took(self.number, min(count, CREDIT)))

    def _resize(self, columns: int, rows: int) -> None:
        self._size = (columns, rows)
        if self._leg is not None:
            self._leg.resize(columns, rows)
            self.mark("r", f"{columns}x{rows}")

    def mark(self, kind: Any, text: str) -> None:
        """Something beside what is shown goes into the recording."""
        if self.grant.record and self._leg is not None:
            self._last += 1
            self._ways.to_archivist(records.Happened(self.number, self._last, kind, text.encode()[:PIECE]))

    def warn(self, text: str) -> None:
        """Words of the gate."""
        self._ways.to_outer(records.Notice(self.number, text))
        self._later(lambda: self.mark("m", text))

    # --- the lock ---------------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Nothing is shown and nothing is typed until the keeper says so: what the asset says meanwhile waits there."""
        self.locked = True
        self._hold()
        self.mark("m", "locked")
        self._ways.to_outer(records.Locked(self.number, True))
        self._ways.idle(self)

    def unlock(self) -> None:
        """Its person is there again. A change of size has a program draw its screen anew."""
        if not self.locked or self.done:
            return
        self.locked, self.typed = False, self._ways.now()
        self.mark("m", "unlocked")
        self._ways.to_outer(records.Locked(self.number, False))
        if self._leg is not None:
            columns, rows = self._size
            self._leg.resize(columns, rows + 1)
            self._leg.resize(columns, rows)
        self._release()
        self._finish()

    # --- its end ----------------------------------------------------------------------------------------------------

    def look(self, idle_ns: int, lock_ns: int = 0) -> None:
        """Whether it may go on. Called twice a second."""
        now = self._ways.now()
        if self.done:
            return
        late = next((at for number, at, _, _ in self._held if number > self._stored), now)
        if now - late > UNSTORED_NS:
            self.end("this session ends, since it cannot be recorded: the archivist does not keep up")
        elif self._over is not None:
            return
        elif now >= self.deadline:
            self.end("its time is over")
        elif self.grant.what == "port":
            return  # what goes there does not come by here; the broker of the asset ends what is idle
        elif now - (self.typed if self.grant.what == "shell" else max(self.typed, self.spoke)) > idle_ns:
            self.end("nobody typed for too long" if self.grant.what == "shell" else "nothing went on for too long")
        elif 0 < lock_ns < now - self.typed and self._clean is not None and not self.locked and self._leg is not None:
            self.lock()

    def end(self, reason: str) -> None:
        """Ends it at once, for a reason of ours: nothing more is shown."""
        if self._over is not None and self._held:  # what it said last is lost to its person: it has not ended well
            self._over = records.Closed(self.number, 1, "", clip(reason))
        self._held.clear()
        self._held_bytes = 0
        self.finish(reason, 1)

    def finish(self, reason: str, status: int, signal: str = "") -> None:
        """It is over; what is on its way into the recording is shown before that is told."""
        if self._over is None:
            reason = clip(reason)  # an asset may have written it, at any length
            self._over = records.Closed(self.number, status, signal, reason)
            leg, self._leg = self._leg, None
            if self.locked:
                self._held.clear()  # what nobody may see any more; it is in the recording
            if self._recorded:  # also of a program that has said nothing
                self._last += 1
                said = reason or signal or str(status)
                self._ways.to_archivist(records.Happened(self.number, self._last, "x", said.encode()[:PIECE]))
            if leg is not None:
                leg.close()
        self._finish()

    def _finish(self) -> None:
        if self._held or self.done:
            return
        if self._eof:
            self._eof = False
            self._ways.to_outer(records.ShownEnd(self.number))
        if self._over is not None:
            self.done = True
            self._ways.to_outer(self._over)
            self._ways.ended(self, self._over.reason or f"it ended with {self._over.signal or self._over.status}")
