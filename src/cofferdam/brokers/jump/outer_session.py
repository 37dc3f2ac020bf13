"""The channels of people who are signed in: a session at an asset, or the menu.

Data flow by credit: who sends has so many bytes under way, and no more until some were handed on. A client that does
not read holds up its own session and no other.

Not here: SSH itself (outer_ssh), numbers and pipes (outer_part).
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, cast, get_args

import asyncssh

from cofferdam.audit.lines import escaped
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.alone import unswallowed
from cofferdam.brokers.jump.cleaned import Cleaner
from cofferdam.brokers.jump.outer_ssh import FAREWELL_SECONDS, Channel
from cofferdam.brokers.jump.outer_watch import WAITING_MOST, Stage
from cofferdam.brokers.jump.records import CREDIT, PIECE, TAKE_BYTES, Closed, Terminal
from cofferdam.protocols.sftp import scp

LINE_MOST: Final = 4_096
ANSWER_MOST: Final = 256
BLANK: Final = b"\x1b[0m\x1b[2J\x1b[3J\x1b[H"
"""A terminal without what was on it, also above its screen."""
_TERM: Final = re.compile(r"[A-Za-z0-9._+-]{0,64}\Z")
_CELLS_MOST: Final = 1_000
_MODES_MOST: Final = 64
SIGNALS: Final = frozenset(get_args(records.SignalName))


class Link(Protocol):
    """What a session needs of the part."""

    @property
    def asset(self) -> str: ...

    @property
    def greeting(self) -> str: ...

    @property
    def full(self) -> bool:
        """Whether the client's connection takes no more, whatever this channel's window is."""

    @property
    def waiting(self) -> int:
        """Bytes that the client's connection has not taken."""

    def open(self, session: AssetSession, what: Literal["shell", "exec", "sftp"], command: str) -> int:
        """Asks for a session at the asset. Returns its number."""

    def to_inner(self, record: Any) -> None: ...

    def closed(self, session: AssetSession) -> None:
        """The client's end is gone."""

    def ask(self, line: str, session: AssetSession) -> bool:
        """A line of the menu; `told` is called with the answer. False: one is under way."""

    def left(self) -> None:
        """Nobody watches by this connection any more."""

    def unlocking(self, session: AssetSession, answer: str) -> None:
        """What was typed at a session that is locked."""

    def files(self, session: AssetSession) -> None:
        """The client speaks SFTP from now on."""


def _cells(value: int, usual: int) -> int:
    return min(_CELLS_MOST, value) if value > 0 else usual


class AssetSession(asyncssh.SSHServerSession[bytes]):
    """One channel."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._chan: Channel | None = None
        self.number = 0
        self.terminal: Terminal | None = None
        self.data: Any = None
        """What takes the client's data instead (SFTP); None: they go to the asset."""
        self.scp: scp.Asked | None = None
        """What the client asks for by scp's old protocol."""
        self.begin: Any = None
        """What is called when the asset has let us in."""
        self.end_of_data: Any = None
        """What is called when the client says no more (else that is its end)."""
        self.go_on: Any = None
        """What is called when the client keeps up again."""
        self._started = False
        self._said_all = False
        self._resized: tuple[int, int] | None = None
        """What the client said before the asset let us in: no more, another size."""
        self._credit = CREDIT
        self._full = False
        self._untaken = 0
        self._menu: Menu | None = None
        self._lock: Lock | None = None
        self.stage = Stage()
        self._clean = Cleaner()
        self._what: Literal["shell", "exec", "sftp"] | None = None
        self._command = ""

    # --- what the client asks for -----------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = cast(Channel, chan)

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        term = term_type if _TERM.match(term_type) else "dumb"
        modes = {key: value for key, value in list(term_modes.items())[:_MODES_MOST] if 1 <= key <= 159}
        self.terminal = Terminal(term, _cells(term_size[0], 80), _cells(term_size[1], 24), modes)
        return True

    def shell_requested(self) -> bool:
        self._what = "shell"
        return True

    def exec_requested(self, command: str) -> bool:
        self.scp = scp.command(command) if self._link.asset and self.terminal is None else None
        self._what, self._command = ("exec", command) if self.scp is None else ("sftp", "")
        return len(command) <= 4_096

    def subsystem_requested(self, subsystem: str) -> bool:
        self._what = "sftp"
        return subsystem == "sftp" and bool(self._link.asset)

    def session_started(self) -> None:
        chan = self._chan
        if chan is None or self._what is None:
            return
        if not self._link.asset:
            self._menu = Menu(self, self._link, self.terminal is not None)
            self._menu.begin(self._command)
            return
        chan.hold(True)
        if self.terminal is not None and self._link.greeting:
            self._put(f"{self._link.greeting}\r\n".encode(), True)
        self.number = self._link.open(self, self._what, self._command)
        if self._what == "sftp":
            self._link.files(self)

    # --- from the client --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes, datatype: Any) -> None:
        if self._menu is not None:
            self._menu.typed(data)
            return
        if self.data is not None:
            self.data(data)
            return
        if self._lock is not None:
            self._lock.typed(data)
            return
        self.hands(data)
        if self._credit <= 0 and self._chan is not None:
            self._chan.hold(True)

    def hands(self, data: bytes) -> None:
        """What is typed, by the person or by one who has joined."""
        for at in range(0, len(data), PIECE):
            self._link.to_inner(records.Send(self.number, data[at : at + PIECE]))
        self._credit -= len(data)

    @property
    def stands(self) -> bool:
        """Whether the asset has let us in."""
        return self._started

    @property
    def is_locked(self) -> bool:
        return self._lock is not None

    @property
    def takes(self) -> bool:
        """Whether the asset keeps up with what is typed."""
        return self._started and self._credit > 0 and self._lock is None

    def took(self, count: int) -> None:
        """The inner part has handed so much on."""
        before, self._credit = self._credit, min(CREDIT, self._credit + count)
        if before <= 0 < self._credit and self._chan is not None and self._started:
            self._chan.hold(False)

    def eof_received(self) -> bool:
        if self._menu is not None:
            self._menu.end()
        elif self.end_of_data is not None:
            self.end_of_data()
        elif self.data is not None:
            self.exit(0)
        elif self._started:
            self._link.to_inner(records.SendEnd(self.number))
        else:
            self._said_all = True  # a held channel keeps data back, but not their end
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self.terminal is None:
            return
        self._resized = (_cells(width, 80), _cells(height, 24))
        if self._started:
            self._link.to_inner(records.Resize(self.number, *self._resized))

    def signal_received(self, signal: str) -> None:
        if self.number and signal in SIGNALS:
            self._link.to_inner(records.Signal(self.number, cast(Any, signal)))

    def break_received(self, msec: int) -> bool:
        return False

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        if self._menu is not None:
            self._menu.leave()
        self._link.closed(self)

    # --- to the client ----------------------------------------------------------------------------------------------

    def started(self) -> None:
        """The asset has let us in. What the inner part had no session for until now is told it."""
        self._started = True
        if self._resized is not None:
            self._link.to_inner(records.Resize(self.number, *self._resized))
        if self._said_all:
            self._link.to_inner(records.SendEnd(self.number))
        if self._chan is not None and self._credit > 0:
            self._chan.hold(False)
        if self.begin is not None:
            self.begin()

    def shown(self, data: bytes, error: bool) -> None:
        """What the asset says."""
        self._put(data, error and self.terminal is None)
        # Bytes of a program without a terminal have not been cleaned for one, and whoever watches has one.
        self.stage.shown(self._clean.clean(data) if self.terminal is None else data)
        self._untaken += len(data)
        if self._untaken >= TAKE_BYTES and not self.is_full:
            self._take()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.room()

    def room(self) -> None:
        """The client keeps up again: its channel, or its connection."""
        if self.is_full:
            return
        if self._untaken:
            self._take()
        if self.go_on is not None:
            self.go_on()
        if self._menu is not None:
            self._menu.go_on()

    def _take(self) -> None:
        count, self._untaken = self._untaken, 0
        self._link.to_inner(records.Took(self.number, min(count, CREDIT)))

    def shown_end(self) -> None:
        if self._chan is not None:
            self._chan.write_eof()

    def notice(self, text: str) -> None:
        """Words of the gate."""
        said = f"\r\n[gate] {escaped(text)}\r\n".encode()
        self._put(said, True)
        self.stage.shown(said)
        if self._lock is not None:
            self._lock.ask()

    def lock(self, locked: bool) -> None:
        """The terminal is blanked, and asks for a factor of its person's; or it goes on."""
        self.stage.shown(b"\r\n[gate] locked\r\n" if locked else b"\r\n[gate] unlocked\r\n")
        if locked:
            self._lock = Lock(self._put, functools.partial(self._link.unlocking, self))
            self._lock.ask()
        elif self._lock is not None:
            self._lock = None
            self._put(BLANK)

    def refused(self, reason: str) -> None:
        """There is no session."""
        self._put(f"[gate] {escaped(reason)}\r\n".encode(), True)
        self.exit(1)

    def farewell(self, reason: str) -> None:
        """It ends, and the client's connection with it."""
        self._put(f"\r\n[gate] {escaped(reason)}\r\n".encode(), True)
        self.exit(1)

    def ended(self, record: Closed) -> None:
        """The session has ended. What a program said last waits for its client; what we say of an end of ours does not
        wait long."""
        if record.reason:
            self._put(f"\r\n[gate] {escaped(record.reason)}\r\n".encode(), True)
            if self._chan is not None:
                asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._chan.cut)
        if record.signal and self._chan is not None:
            self._chan.exit_with_signal(record.signal)
        else:
            self.exit(record.status)

    def write(self, data: bytes, error: bool = False) -> None:
        """What is not the asset's: the menu, SFTP."""
        self._put(data, error)

    def _put(self, data: bytes, error: bool = False) -> None:
        """To the client, if it still takes anything."""
        if self._chan is not None and not self._chan.is_closing():
            if error:
                self._chan.write_stderr(data)
            else:
                self._chan.write(data)

    def exit(self, status: int) -> None:
        if self._chan is not None:
            self._chan.exit(status)

    @property
    def is_full(self) -> bool:
        """Whether the client does not keep up."""
        return self._full or self._link.full

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client."""
        return self._link.waiting + (self._chan.get_write_buffer_size() if self._chan is not None else 0)

    def hold(self, held: bool) -> None:
        """Takes no more from the client, or goes on."""
        if self._chan is not None:
            self._chan.hold(held)

    def watch(self, session: AssetSession, join: bool) -> bool:
        """The line of the menu that waits was to watch a session. False: there is none that waits."""
        if self._menu is None or self._menu.gone:
            return False
        self._menu.watch(session, join)
        return True

    def unwatch(self, reason: str) -> None:
        if self._menu is not None:
            self._menu.unwatch(reason)

    def told(self, text: str, refused: bool) -> None:
        """The answer to a line of the menu."""
        if self._menu is not None:
            self._menu.told(text, refused)


class Lock:
    """A terminal that is locked: one line at a time, of which nothing is shown, for the keeper."""

    def __init__(self, put: Callable[[bytes], None], tell: Callable[[str], None]) -> None:
        self._put, self._tell = put, tell
        self._line = bytearray()
        self._told = False
        put(BLANK)

    def ask(self) -> None:
        """What is to be typed."""
        self._told = False
        self._put(b"[gate] locked, since nobody typed. A code of yours, or your password, goes on: ")

    def typed(self, data: bytes) -> None:
        for byte in data:
            if byte in (10, 13):
                answer = self._line.decode("utf-8", "replace")
                self._line.clear()
                if answer and not self._told:
                    self._told = True
                    self._tell(answer)
            elif byte in (8, 127):
                del self._line[-1:]
            elif byte in (3, 21):
                self._line.clear()
            elif len(self._line) < ANSWER_MOST and byte >= 32:
                self._line.append(byte)


class Menu:
    """`ssh gate`: lines to the keeper, answers from it; with a terminal, a prompt and as much editing as one line
    needs."""

    def __init__(self, session: AssetSession, link: Link, terminal: bool) -> None:
        self._session = session
        self._link = link
        self._terminal = terminal
        self._line = ""
        self._lines: list[str] = []
        self._asked = self._once = self._ending = False
        self._key = ""
        """What has come of a key that sends a sequence (an arrow): it does nothing here, and is not text."""
        self.gone = False
        self._watched: AssetSession | None = None
        self._join = False

    def begin(self, command: str) -> None:
        """One command, or a prompt."""
        if command:
            self._once = True
            self._ask(command)
        elif self._terminal:
            self._say(f"{self._link.greeting}\n`help` says what can be typed.\n")
            self._ask("list")

    def _say(self, text: str, error: bool = False) -> None:
        if not self.gone:
            self._session.write((text.replace("\n", "\r\n") if self._terminal else text).encode(), error)

    def typed(self, data: bytes) -> None:
        if self._watched is not None:
            self._hands(data)
            return
        for letter in data.decode("utf-8", "replace"):
            if letter == "\x1b":
                self._key = "begun"
            elif self._key == "begun":
                self._key = "long" if letter in "[O" else ""
            elif self._key:
                self._key = "" if "@" <= letter <= "~" else self._key
            elif letter in "\r\n":
                self._echo("\n")
                line, self._line = self._line, ""
                if len(self._lines) < 16:
                    self._lines.append(line)
                self._next()
            elif letter in "\x7f\x08":
                if self._line:
                    self._line = self._line[:-1]
                    self._echo("\b \b")
            elif letter == "\x03":
                self._line = ""
                self._echo("^C\n")
                self._prompt()
            elif letter == "\x04" and not self._line:
                self.end()
            elif letter.isprintable() and len(self._line) < LINE_MOST:
                self._line += letter
                self._echo(letter)

    def _echo(self, text: str) -> None:
        if self._terminal:
            self._say(text)

    def _prompt(self) -> None:
        if self._terminal:
            self._say("gate> ")

    def _next(self) -> None:
        if self._asked or self.gone or self._session.is_full:
            return
        if self._lines:
            line = self._lines.pop(0).strip()
            if line in ("exit", "quit", "logout"):
                self._session.exit(0)
            elif line:
                self._ask(line)
            else:
                self._prompt()
                self._next()
        elif self._ending:
            self._session.exit(0)

    def _ask(self, line: str) -> None:
        self._asked = self._link.ask(line[:LINE_MOST], self._session)
        if not self._asked:
            self._say("another line is under way\n")

    # --- watching ---------------------------------------------------------------------------------------------------

    def watch(self, session: AssetSession, join: bool) -> None:
        """The keeper lets this channel watch a session. Its answer is next, and then what there is to see."""
        self._watched, self._join = session, join

    def _hands(self, data: bytes) -> None:
        """What a watcher types: one key that leaves, and the rest only where they have joined."""
        session = self._watched
        if session is None:
            return
        typed, leaves, _ = data.partition(b"\x1d" if self._join else b"\x03")
        if self._join and typed and session.takes:
            session.hands(typed)
        if leaves:
            session.stage.leave(self, "you watch no more")

    def sees(self, data: bytes) -> bool:
        self._session.write(data if self._terminal else data.replace(b"\r\n", b"\n"))
        return self._session.waiting <= WAITING_MOST

    def over(self, reason: str) -> None:
        self._watched = None
        self._say(f"\n[gate] {escaped(reason)}\n")
        if self._once:
            self._session.exit(0)
        else:
            self._prompt()
            self._next()

    def unwatch(self, reason: str) -> None:
        """The keeper ends it."""
        if self._watched is not None:
            self._watched.stage.leave(self, reason)

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        if self._watched is not None:
            self._watched.stage.leave(self, "")

    def told(self, text: str, refused: bool = False) -> None:
        """The keeper's answer."""
        self._asked = False
        # What others wrote (a reason, a ticket) must not drive this person's terminal.
        refusal = refused and self._once and not self._terminal  # a terminal has no second stream
        self._say("\n".join(map(escaped, text.rstrip("\n").split("\n"))) + "\n", refusal)
        if self._watched is not None:
            size = self._watched.terminal
            if size is not None:
                self._say(f"their terminal has {size.columns} columns and {size.rows} rows\n")
            self._watched.stage.come(self, self._link.left)
            return
        if self._once:
            self._session.exit(1 if refused else 0)
            return
        self._prompt()
        self._next()

    def go_on(self) -> None:
        """The client keeps up again."""
        if not self._once:
            self._next()

    def end(self) -> None:
        """Nothing more is typed."""
        self._ending = True
        if self._watched is not None:
            return
        if not self._once:
            if self._line:
                self._lines.append(self._line)
                self._line = ""
            self._next()
