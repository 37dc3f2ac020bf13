"""What an asset writes to a terminal, without what would reach past the terminal: the person's clipboard (OSC 52, also
wrapped for tmux or screen), questions that their terminal would answer as if they had typed (DECRQSS, XTGETTCAP, the
window's title). Titles themselves stay. What is left out is not recorded either: a recording has what was shown.

Not here: programs without a terminal, whose bytes are nobody's screen.
"""

from __future__ import annotations

import re
from typing import Final

_BEGINS: Final = re.compile(rb"[\x1b\xc2]")
_PASSTHROUGH: Final = (b"tmux;", b"$q", b"+q", b"+p", b"\x1b")
"""How a device control string begins that is not for the screen; ESC: screen's own way of wrapping."""
HEAD_BYTES: Final = 5
STRING_BYTES: Final = 1 << 20
"""Of one string that is left out; beyond it what follows is shown again."""
_ASKS: Final = re.compile(rb"\x1b\[[0-9;]*2[01](;[0-9;]*)?t\Z")
SEQUENCE_BYTES: Final = 64


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
        """There is no next piece."""
        kept, self._state = bytes(self._kept), "text"
        self._kept.clear()
        return kept

    def _one(self, byte: int, out: bytearray) -> None:
        match self._state:
            case "text":  # ESC or 0xC2
                self._state = "escape" if byte == 0x1B else "utf-8"
                self._kept.append(byte)
            case "escape":
                self._begin({0x5D: 0x5D, 0x50: 0x50, 0x5B: 0x5B}.get(byte, 0), byte, out)
            case "utf-8":
                # The same as one character, as a terminal that reads UTF-8 has it (U+0090, U+009B, U+009D).
                self._begin({0x9D: 0x5D, 0x90: 0x50, 0x9B: 0x5B}.get(byte, 0), byte, out)
            case "csi":
                self._kept.append(byte)
                if 0x40 <= byte <= 0x7E or byte < 0x20 or len(self._kept) > SEQUENCE_BYTES:
                    plain = self._kept.replace(b"\xc2\x9b", b"\x1b[")
                    if _ASKS.search(plain):
                        self._leave_out()
                        self._state = "text"
                    else:
                        self._give(out)
            case "head":
                self._head(byte, out)
            case "skip":
                self._skip(byte, out)
            case _:
                self._state = "text" if byte == 0x5C else "skip"
                if byte != 0x5C:
                    self._skip(byte, out)

    def _begin(self, kind: int, byte: int, out: bytearray) -> None:
        if not kind and byte in (0x1B, 0xC2):
            out += self._kept
            self._kept[:] = bytes((byte,))
            self._state = "escape" if byte == 0x1B else "utf-8"
            return
        self._kept.append(byte)
        if not kind:
            self._give(out)
        else:
            self._state, self._kind = "csi" if kind == 0x5B else "head", kind

    def _head(self, byte: int, out: bytearray) -> None:
        self._kept.append(byte)
        said = bytes(self._kept[2:])
        if self._kind == 0x5D:
            number = said.lstrip(b"0")
            if number in (b"5", b"52", b"") and len(said) < 16:
                return
            self._decide(number.startswith(b"52") and not number[2:3].isdigit(), byte, out)
        elif any(one.startswith(said) and one != said for one in _PASSTHROUGH) and len(said) < HEAD_BYTES:
            return
        else:
            # Parameters may stand before what the string is for: DCS 1 $ q.
            bare = said.lstrip(b"0123456789;")
            if not bare and len(said) < 32:
                return
            if any(one.startswith(bare) and one != bare for one in _PASSTHROUGH) and len(said) < 40:
                return
            self._decide(bare.startswith(_PASSTHROUGH), byte, out)

    def _decide(self, bad: bool, byte: int, out: bytearray) -> None:
        if not bad:
            self._give(out)
            return
        self._leave_out()
        self._state = "skip"
        if byte in (0x07, 0x1B):
            self._skip(byte, out)

    def _leave_out(self) -> None:
        self.left_out += 1
        self._kept.clear()
        self._skipped = 0

    def _skip(self, byte: int, out: bytearray) -> None:
        self._skipped += 1
        if byte == 0x1B:
            self._state = "skip escape"
        elif (byte == 0x07 and self._kind == 0x5D) or byte in (0x18, 0x1A, 0x9C) or self._skipped > STRING_BYTES:
            self._state = "text"

    def _give(self, out: bytearray) -> None:
        out += self._kept
        self._kept.clear()
        self._state = "text"
