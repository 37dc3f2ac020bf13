"""What the read of one tag looks like, each time the same but for its value: as together has it of packets of reads.

Theory. A request's bytes follow from the tag and the way to the device. All of a good answer but the value follows from
the value's type and the number of elements, as long as it is of numbers. So what goes to a device is kept with the form
of the answer that came last (`Read`), and an answer of that form is taken in one step: all bytes beside the value are
compared with what they have to be. What differs in anything is for whoever takes it apart bit by bit (ADR 87).

Not here: which connection a request goes by, whose answer is whose (client).
"""

from __future__ import annotations

import struct
from typing import Final

from cofferdam.model import Item
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import requests, wire
from cofferdam.protocols.enip.values import ATOMIC, DATA, decode

FORMS: Final = 512
"""Types with numbers of elements, whose forms are remembered."""
ANOTHER: Final = "a value of something else"
_HEAD: Final = 6
"""Bytes before a value: service, a byte of zeros, status, number of additional words, type."""
MEANT: Final = bytes([0, *[1] * 255])
SAID: Final = bytes([0, *[255] * 255])
"""A bool as it crosses, and as it is said."""
_ASKED: Final = struct.Struct("<HHIIIHHI")
"""A frame's header, with the token and the step in its context."""


forms: Final[dict[int, Single]] = {}


class Single:
    """The form of a good answer: so many elements of the type with this code."""

    __slots__ = ("_array", "_begin", "_bools", "_head", "_reals", "codes", "length", "size")

    def __init__(self, count: int, array: bool, code: int) -> None:
        letter = ATOMIC[code][2]
        self.codes = bytes((code,))
        self.size = ATOMIC[code][3] * count
        """Bytes of the value, ..."""
        self.length = _HEAD + self.size
        """... and of the answer."""
        self._array = array
        self._bools = letter == "?"
        # Bits of these are not all kept by who reads them as numbers: there are NaNs that become others.
        self._reals = struct.Struct(f"<{count}f") if letter == "f" else None
        self._head = bytes((requests.READ | 0x80, 0, 0, 0, code, 0))
        self._begin = wire.unconnected(self._head + bytes(self.size))[: -self.size]

    def taken(self, cip: bytes) -> bytes | None:
        """The value in an answer; None for one that has not this form."""
        if len(cip) != self.length or cip[:_HEAD] != self._head:
            return None
        return self._meant(cip[_HEAD:])

    def taken_alone(self, data: bytes) -> bytes | None:
        """The same of an answer outside a connection with what is round it, as `wire.unconnected` makes it."""
        begin = self._begin
        at = len(begin)
        if len(data) != at + self.size or data[:at] != begin:
            return None
        return self._meant(data[at:])

    def _meant(self, value: bytes) -> bytes | None:
        if self._bools:
            return None if value.translate(None, b"\0\1\xff") else value.translate(MEANT)
        return value if self._reals is None else self._reals.pack(*self._reals.unpack(value))

    def fault(self, data: bytes) -> str:
        """Why this is not the value; "" if it is."""
        if len(data) != self.size:
            return f"{len(data)} bytes of a value that has {self.size}"
        return "a bool that is neither 0 nor 1" if self._bools and data.translate(None, b"\0\1") else ""

    def answer(self, data: bytes) -> bytes:
        """The answer to a client who has asked by Read Tag."""
        return self._head + (data.translate(SAID) if self._bools else data)

    def framed(self, session: int, context: bytes, data: bytes) -> bytes:
        """The frame of that answer outside a connection."""
        begin = self._begin
        head = wire.HEADER.pack(wire.SEND_RR, len(begin) + self.size, session, 0, context, 0)
        return head + begin + (data.translate(SAID) if self._bools else data)

    def held(self, data: bytes) -> m.Held:
        """The same value by itself."""
        return m.Held(self.codes[0], 0, decode(self.codes[0], 0, data, self._array))


def form_of(item: Item, codes: bytes) -> Single | None:
    """The form of the answer to a read, if the tag has the type with this code; None where there is none."""
    if len(codes) != 1:
        return None
    count, array, code = item.count, item.first >= 0, codes[0]
    key = (2 * count + array << 8) + code
    found = forms.get(key)
    if found is None and code in ATOMIC and (array or count == 1) and 0 < ATOMIC[code][3] * count <= DATA:
        if len(forms) >= FORMS:
            forms.clear()
        found = forms[key] = Single(count, array, code)
    return found


def fault(request: m.ReadTag, response: m.HeldAll) -> str:
    """ "" if this is the value of what is read, else why not."""
    found = form_of(request.item, response.codes)
    return ANOTHER if found is None else found.fault(response.data)


def held(request: m.ReadTag, response: m.HeldAll) -> m.Held:
    """The value by itself. Raises: ValueError for one that is not its."""
    found = form_of(request.item, response.codes)
    if found is None or found.fault(response.data):
        raise ValueError(ANOTHER)
    return found.held(response.data)


class Read:
    """What is remembered of a tag that is read of a device: `cip`, the request; `data`, the request outside a
    connection with what is round it; `form`, that of the answer that came last, if it had one."""

    __slots__ = ("cip", "data", "form")

    def __init__(self, item: Item, route: bytes) -> None:
        self.cip = requests.read_tag(item)
        self.data = wire.unconnected(requests.wrapped(self.cip, route) if route else self.cip)
        self.form: Single | None = None

    def framed(self, session: int, token: int) -> bytes:
        """The frame outside a connection, whose answer is known by this token (turns.context_of), and by step 1."""
        data = self.data
        return _ASKED.pack(wire.SEND_RR, len(data), session, 0, token & 0xFFFF_FFFF, 1, token >> 32 & 0xFFFF, 0) + data

    def learn(self, item: Item, response: m.Held) -> None:
        """A good answer had this type."""
        self.form = form_of(item, bytes((response.code,))) if response.code in ATOMIC else None


class Reads:
    """What is remembered of all tags that are read of one device along one route."""

    __slots__ = ("_known", "_route")

    def __init__(self, route: bytes) -> None:
        self._route = route
        self._known: dict[m.ReadTag, Read] = {}

    def of(self, request: m.ReadTag) -> Read:
        """What is remembered of this one, from now on if it is new. Raises: ValueError for what has no bytes."""
        found = self._known.get(request)
        if found is None:
            found = Read(request.item, self._route)
            if len(self._known) >= requests.ENCODED:
                self._known.clear()
            self._known[request] = found
        return found
