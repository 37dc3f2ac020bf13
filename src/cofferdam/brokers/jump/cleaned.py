"""What an asset writes to a terminal, without what would reach past the terminal: the person's clipboard (OSC 52, also
wrapped for tmux or screen, and what kitty and iTerm2 have for it and for files), questions that their terminal would
answer as if they had typed (DECRQSS, XTGETTCAP, the window's title). Titles themselves stay. What is left out is not
recorded either: a recording has what was shown.

A sequence is read as terminals read it: a control within it is done at once and the sequence goes on, ESC, CAN and SUB
end it wherever it is. What is handed on is what was judged: no control within it, and never a part of a sequence, which
what follows could make whole.

Not here: programs without a terminal, whose bytes are nobody's screen.
"""

from __future__ import annotations

import re
from typing import Final

_BEGINS: Final = re.compile(rb"[\x1b\xc2]")
_PASSTHROUGH: Final = (b"tmux;", b"$q", b"+q", b"+p", b"@kitty", b"\x1b")
"""How a device control string begins that is not for the screen; ESC: screen's own way of wrapping."""
_BEYOND: Final = frozenset({b"52", b"1337", b"5113", b"5522"})
"""Operating system commands for the clipboard and for files: xterm's, iTerm2's, kitty's."""
DIGITS: Final = 6
"""Of a number; with more of them, many terminals reckon it round to another one."""
HEAD_BYTES: Final = 40
STRING_BYTES: Final = 1 << 20
"""Of one string that is left out; beyond it what follows is shown again."""
_TITLES: Final = (b"20", b"21")
_NUMBERS: Final = b"0123456789;:<=>?"
SEQUENCE_BYTES: Final = 64
_ESC, _C1, _DEL, _CANCELS = 0x1B, 0xC2, 0x7F, (0x18, 0x1A)


class Cleaner:
    """One session's output, piece by piece. States: "text", "escape" (after ESC), "utf-8" (after 0xC2), "head" (the
    first bytes of a string: what is it?), "skip" and "skip escape" (a string that is left out), "csi"."""

    def __init__(self) -> None:
        self._state = "text"
        self._kept = bytearray()
        self._kind = 0
        self._skipped = 0
        self.left_out = 0
        """Sequences."""

    def clean(self, data: bytes) -> bytes:
        """What may be shown of it. What might be the beginning of something waits for the next piece."""
        if self._state == "text" and b"\x1b" not in data and b"\xc2" not in data:
            return data
        out, at = bytearray(), 0
        while at < len(data):
            if self._state == "text":
                found = _BEGINS.search(data, at)
                end = found.start() if found is not None else len(data)
                out += data[at:end]
                at = end
                if found is None:
                    break
            self._one(data[at], out)
            at += 1
        return bytes(out)

    def flush(self) -> bytes:
        """There is no next piece: what was begun is nothing."""
        kept = bytes(self._kept) if self._state == "utf-8" else b""
        self._state = "text"
        self._kept.clear()
        return kept

    def _one(self, byte: int, out: bytearray) -> None:
        if self._state in ("skip", "skip escape"):
            self._skip(byte)
        elif byte in (_ESC, _C1) and not (self._state == "head" and self._kind == 0x50 and byte == _ESC):
            # It ends what was begun. Half a character before it goes too: what is behind it could be the other half.
            self._kept[:] = bytes((byte,))
            self._state = "escape" if byte == _ESC else "utf-8"
        elif self._state == "utf-8":
            # The same as one character, as a terminal that reads UTF-8 has it (U+0090, U+009B, U+009D).
            self._begin({0x9D: 0x5D, 0x90: 0x50, 0x9B: 0x5B}.get(byte, 0), byte, out)
        elif byte in _CANCELS:
            self._kept.clear()
            self._state = "text"
            out.append(byte)
        elif byte == _DEL:
            pass
        elif byte < 0x20 and byte != _ESC and self._state != "head":
            out.append(byte)
        elif self._state == "escape" and byte > _DEL:  # some wait for more, some do not
            self._kept.clear()
            self._state = "text"
            out.append(byte)
        elif self._state == "escape":
            self._begin({0x5D: 0x5D, 0x50: 0x50, 0x5B: 0x5B}.get(byte, 0), byte, out)
        elif self._state == "csi":
            self._sequence(byte, out)
        elif byte >= 0x20 or byte == _ESC or (byte == 0x07 and self._kind == 0x5D):
            self._head(byte, out)

    def _begin(self, kind: int, byte: int, out: bytearray) -> None:
        self._kept.append(byte)
        if not kind:
            self._give(out)
        else:
            self._state, self._kind = "csi" if kind == 0x5B else "head", kind

    def _sequence(self, byte: int, out: bytearray) -> None:
        self._kept.append(byte)
        if byte > _DEL or len(self._kept) > SEQUENCE_BYTES:
            self._leave_out()
            self._state = "text"
        elif byte >= 0x40:
            first = bytes(self._kept[2:-1]).replace(b":", b";").split(b";")[0].lstrip(b"0")
            if byte == 0x74 and (first in _TITLES or len(first) > DIGITS):
                self._leave_out()
                self._state = "text"
            else:
                self._give(out)

    def _head(self, byte: int, out: bytearray) -> None:
        if self._kind == 0x5D and byte == 0x30 and self._kept[2:] == b"0":
            return  # a number is the same with one zero before it
        self._kept.append(byte)
        said = bytes(self._kept[2:])
        if self._kind == 0x5D:
            number = said.lstrip(b"0")
            if not number.isdigit() and number[:-1].isdigit():
                self._decide(number[:-1] in _BEYOND, byte, out)
            elif number and not number.isdigit():
                self._decide(False, byte, out)
            elif len(number) > DIGITS:
                self._decide(True, byte, out)
        else:
            # Parameters may stand before what the string is for: DCS 1 $ q.
            bare = said.lstrip(_NUMBERS)
            if not any(one.startswith(bare) and one != bare for one in _PASSTHROUGH):
                self._decide(bare.startswith(_PASSTHROUGH), byte, out)
            elif len(said) > HEAD_BYTES:
                self._decide(True, byte, out)

    def _decide(self, bad: bool, byte: int, out: bytearray) -> None:
        if not bad:
            self._give(out)
            return
        self._leave_out()
        self._state = "skip"
        if byte in (0x07, _ESC):
            self._skip(byte)

    def _leave_out(self) -> None:
        self.left_out += 1
        self._kept.clear()
        self._skipped = 0

    def _skip(self, byte: int) -> None:
        self._skipped += 1
        if self._state == "skip escape" and byte == 0x5C:
            self._state = "text"
        elif byte == _ESC:
            self._state = "skip escape"
        elif (byte == 0x07 and self._kind == 0x5D) or byte in (*_CANCELS, 0x9C) or self._skipped > STRING_BYTES:
            self._state = "text"
        else:
            self._state = "skip"

    def _give(self, out: bytearray) -> None:
        out += self._kept
        self._kept.clear()
        self._state = "text"
