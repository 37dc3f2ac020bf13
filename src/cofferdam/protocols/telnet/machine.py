"""A telnet client: bytes of the line in, what the terminal is shown out, and back. No I/O.

Spoken: options by RFC 1143's rules (nobody loops), ECHO (RFC 857), SUPPRESS-GO-AHEAD (858), BINARY (856),
TERMINAL-TYPE (1091), NAWS (1073). All other options are refused in both directions, as RFC 854 wants it. What a server
asks for within bounds is answered; one that asks without end is at fault.

Not here: signing in at a prompt (brokers.jump.inner_telnet), encryption, which telnet has none of.
"""

from __future__ import annotations

import re
from typing import Final

from cofferdam.errors import RemoteProtocolError

SE, NOP, DM, BRK, IP, AO, AYT, EC, EL, GA, SB, WILL, WONT, DO, DONT, IAC = range(240, 256)
BINARY, ECHO, SGA, TTYPE, NAWS = 0, 1, 3, 24, 31
TTYPE_IS, TTYPE_SEND = 0, 1
OURS: Final = frozenset({BINARY, SGA, TTYPE, NAWS})
"""What we do if we are asked to."""
THEIRS: Final = frozenset({BINARY, ECHO, SGA})
"""What the server may do."""
NEGOTIATIONS_MOST: Final = 1_000
"""In the life of one connection: a real server has some ten."""
PARAMETER_BYTES: Final = 512
"""Of one subnegotiation."""
_TERM: Final = re.compile(r"[A-Za-z0-9._+-]{1,40}\Z")


class Client:
    """One connection's machine."""

    def __init__(self, term: str = "", columns: int = 80, rows: int = 24) -> None:
        self._term = term.upper() if _TERM.match(term) else "DUMB"
        self._size = (columns, rows)
        self._out = bytearray()
        self._state = "data"
        self._verb = 0
        self._parameter = bytearray()
        self._ours: set[int] = set()
        self._theirs: set[int] = set()
        self._negotiations = 0
        self._offset = 0

    @property
    def echoes(self) -> bool:
        """Whether the server shows what is typed; while it asks for a password it does as well, and shows nothing."""
        return ECHO in self._theirs

    # --- from the server --------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> bytes:
        """Returns what the terminal is shown.

        Raises:
            RemoteProtocolError: the server negotiates without end, or a parameter has none.
        """
        if self._state == "data" and IAC not in data and b"\r" not in data:
            self._offset += len(data)
            return data
        shown = bytearray()
        for byte in data:
            self._offset += 1
            self._one(byte, shown)
        return bytes(shown)

    def _one(self, byte: int, shown: bytearray) -> None:
        match self._state:
            case "data":
                if byte == IAC:
                    self._state = "command"
                    return
                if byte == 13 and BINARY not in self._theirs:
                    self._state = "return"
                shown.append(byte)
            case "return":
                # CR NUL is a CR alone (RFC 854, page 11); CR LF stays what it is.
                self._state = "data"
                if byte != 0:
                    self._one(byte, shown)
            case "command":
                self._command(byte, shown)
            case "option":
                self._state = "data"
                self._negotiate(self._verb, byte)
            case "parameter":
                if byte == IAC:
                    self._state = "parameter end"
                else:
                    self._append(byte)
            case _:
                if byte == IAC:
                    self._state = "parameter"
                    self._append(byte)
                elif byte == SE:
                    self._state = "data"
                    self._asked(bytes(self._parameter))
                    self._parameter.clear()
                else:
                    raise self._fault(f"IAC {byte} within a parameter", "RFC 855")

    def _append(self, byte: int) -> None:
        if len(self._parameter) >= PARAMETER_BYTES:
            raise self._fault(f"a parameter of more than {PARAMETER_BYTES} bytes", "RFC 855")
        self._parameter.append(byte)

    def _command(self, byte: int, shown: bytearray) -> None:
        self._state = "data"
        if byte == IAC:
            shown.append(IAC)
        elif byte in (WILL, WONT, DO, DONT):
            self._verb, self._state = byte, "option"
        elif byte == SB:
            self._state = "parameter"
        elif byte == AYT:
            self._out += b"[yes]\r\n"
        elif byte < SE:
            raise self._fault(f"IAC {byte} is no command", "RFC 854, page 14")
        # NOP, data mark, break, go ahead and the like say nothing to a terminal that does not wait for its turn.

    def _fault(self, what: str, section: str) -> RemoteProtocolError:
        return RemoteProtocolError(what, section=section, offset=self._offset - 1)

    def _negotiate(self, verb: int, option: int) -> None:
        self._negotiations += 1
        if self._negotiations > NEGOTIATIONS_MOST:
            raise self._fault(f"more than {NEGOTIATIONS_MOST} negotiations", "RFC 1143")
        on = verb in (WILL, DO)
        theirs = verb in (WILL, WONT)
        state, known, yes, no = (
            (self._theirs, THEIRS, DO, DONT) if theirs else (self._ours, OURS, WILL, WONT)
        )  # fmt: skip
        if on == (option in state):
            return  # it is so already: an answer would begin a loop
        if not on:
            state.discard(option)
            self._out += bytes((IAC, no, option))
        elif option in known:
            state.add(option)
            self._out += bytes((IAC, yes, option))
            if not theirs and option == NAWS:
                self._tell_size()
        else:
            self._out += bytes((IAC, no, option))

    def _asked(self, parameter: bytes) -> None:
        """A subnegotiation: only the terminal's name is asked for."""
        if parameter == bytes((TTYPE, TTYPE_SEND)) and TTYPE in self._ours:
            self._negotiations += 1
            if self._negotiations > NEGOTIATIONS_MOST:
                raise self._fault(f"more than {NEGOTIATIONS_MOST} negotiations", "RFC 1091")
            self._out += bytes((IAC, SB, TTYPE, TTYPE_IS)) + self._term.encode() + bytes((IAC, SE))

    # --- to the server ----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """What is typed."""
        data = data.replace(b"\xff", b"\xff\xff")
        self._out += data if BINARY in self._ours else data.replace(b"\r", b"\r\0")

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size."""
        self._size = (columns, rows)
        if NAWS in self._ours:
            self._tell_size()

    def _tell_size(self) -> None:
        columns, rows = (min(65_535, max(0, each)) for each in self._size)
        said = columns.to_bytes(2, "big") + rows.to_bytes(2, "big")
        self._out += bytes((IAC, SB, NAWS)) + said.replace(b"\xff", b"\xff\xff") + bytes((IAC, SE))

    def interrupt(self) -> None:
        """Ctrl-C, for a server that does not read control characters."""
        self._out += bytes((IAC, IP))

    def data_to_send(self) -> bytes:
        """What goes to the server now."""
        out, self._out = bytes(self._out), bytearray()
        return out
