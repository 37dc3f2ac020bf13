"""What the good answer to a packet of reads looks like, when all that it reads is numbers.

Theory. A poller asks for the same tags in one packet for years. While each of them is there and has the type that it
had, all of an answer but the values stays as it is: the count, the places, the parts' services and statuses, the types.
Such an answer is taken apart in one step (`Form.taken`): its bytes beside the values are compared with what they have
to be, and the values are read as numbers of their types and written again, side by side. So they cross (`HeldAll`), and
so they are put into an answer of the other half's own. Whatever differs in anything is for whoever takes it apart bit
by bit, as what was not asked before.

A form follows from the tags that are read and from the types alone: that it is remembered changes nothing (ADR 87).
Structures and texts have no form, nor has a packet in which anything but tags is asked.

What is found out of a packet (`Found`) is kept as long as somebody keeps that very packet: the connection by which it
is asked, or the flow that allows it. Each of these has a bound of its own, so that no client drives out what is
remembered of another's packets.
"""

from __future__ import annotations

import struct
import weakref
from typing import Any, Final

from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import requests
from cofferdam.protocols.enip.io import Producers
from cofferdam.protocols.enip.single import SAID, Reads
from cofferdam.protocols.enip.values import ATOMIC, DATA

FORMS: Final = 4
"""Forms of one packet that are remembered."""
_PART: Final = 6
"""Bytes before each value: service, a byte of zeros, status, number of additional words, type."""
_READS_ALONE: Final[set[type]] = {m.ReadTag}


class Learnt(Producers):
    """What all machines of a half share: besides who produces for many, what is remembered of reads of single tags."""

    def __init__(self) -> None:
        super().__init__()
        self._reads: dict[tuple[str, bytes], Reads] = {}

    def reads(self, asset: str, route: bytes) -> Reads:
        """What is remembered of those of one asset. `route`: the way to it."""
        found = self._reads.get((asset, route))
        if found is None:
            found = self._reads[asset, route] = Reads(route)
        return found


class Group:
    """What goes to a device in one packet: `asked`, what is asked; `data`, the request; `parts`, both part by part."""

    __slots__ = ("asked", "data", "parts")

    def __init__(self, parts: list[tuple[Any, bytes]]) -> None:
        self.parts = parts
        self.asked = m.Packet(tuple([part for part, _ in parts]))
        self.data = requests.packet_of([data for _, data in parts])


class Form:
    """The form of a good answer: to reads of so many elements each, of types with these codes."""

    __slots__ = (
        "_arrays", "_bools", "_bools_held", "_constants", "_counts", "_cut", "_expected", "_heads", "_held", "_length",
        "_true", "_values", "codes", "services", "size",
    )  # fmt: skip

    def __init__(self, arrays: list[bool], counts: list[int], codes: bytes) -> None:
        self.codes = codes
        self._arrays, self._counts = arrays, counts
        self.services = (requests.READ,) * len(codes)
        constants, values, held, cut = "<", "<", "<", "<"
        places: list[int] = []
        self._bools: list[tuple[int, int]] = []  # in the answer, ...
        self._bools_held: list[tuple[int, int]] = []  # ... and among the values
        self._true: list[int] = []  # ... and among the pieces of which an answer is made
        at, size, skipped = 2 + 2 * len(codes), 0, 2 + 2 * len(codes) + _PART
        for place, (count, code) in enumerate(zip(counts, codes, strict=True)):
            letter, width = ATOMIC[code][2], ATOMIC[code][3] * count
            places.append(at)
            if letter == "?":
                self._bools.append((at + _PART, at + _PART + width))
                self._bools_held.append((size, size + width))
                self._true.append(2 * place + 1)
            constants += f"{skipped}s{width}x"
            values += f"{skipped}x{count}{letter}"
            held += f"{count}{letter}"
            cut += f"{width}s"
            at, size, skipped = at + _PART + width, size + width, _PART
        heads = [bytes((requests.READ | 0x80, 0, 0, 0, code, 0)) for code in codes]
        heads[0] = struct.pack(f"<{1 + len(places)}H", len(places), *places) + heads[0]
        self._expected = tuple(heads)
        self._heads: list[bytes] = []
        for head in heads:
            self._heads += (head, b"")
        self._heads[0] = bytes((requests.PACKET | 0x80, 0, 0, 0)) + self._heads[0]
        self._constants, self._values = struct.Struct(constants), struct.Struct(values)
        self._held, self._cut = struct.Struct(held), struct.Struct(cut)
        self._length = at
        self.size = size
        """Bytes of the values, side by side."""

    def taken(self, body: bytes) -> bytes | None:
        """The values of a packet's answer; None for one that has not this form. `body`: after a good status."""
        if len(body) != self._length or self._constants.unpack(body) != self._expected:
            return None
        for start, stop in self._bools:
            if body[start:stop].translate(None, b"\0\1\xff"):
                return None
        return self._held.pack(*self._values.unpack(body))

    def fault(self, data: bytes) -> str:
        """Why these are not the values; "" if they are."""
        if len(data) != self.size:
            return f"{len(data)} bytes of values that have {self.size}"
        for start, stop in self._bools_held:
            if data[start:stop].translate(None, b"\0\1"):
                return "a bool that is neither 0 nor 1"
        return ""

    def answer(self, data: bytes) -> bytes:
        """The answer to a client who asked for each by Read Tag."""
        pieces = self._heads.copy()
        pieces[1::2] = self._cut.unpack(data)
        for place in self._true:
            pieces[place] = pieces[place].translate(SAID)
        return b"".join(pieces)

    def answers(self, data: bytes) -> m.Answers:
        """The same values one by one."""
        numbers = self._held.unpack(data)
        found: list[m.Held] = []
        at = 0
        for array, count, code in zip(self._arrays, self._counts, self.codes, strict=True):
            found.append(m.Held(code, 0, ATOMIC[code][1](numbers[at : at + count], array)))
            at += count
        return m.Answers(tuple(found))


def of_reads(request: m.Packet) -> bool:
    """Whether a packet reads tags, and does nothing else."""
    return set(map(type, request.parts)) == _READS_ALONE


def divided(request: m.Packet, room: int) -> tuple[Group, ...]:
    """The packets in which what one packet asks goes to a device. `room`: of each."""
    parts = [(part, requests.encode_request(part)) for part in request.parts]
    return tuple([Group(group) for group in requests.grouped(parts, room)])


class Found:
    """What is remembered of a packet of reads. `codes`: the types of the values with which a device answered it last,
    b"" while that is not known, or it was no good answer. Each has to be looked at with each answer."""

    __slots__ = ("codes", "forms", "groups", "kept", "room")

    def __init__(self) -> None:
        self.codes = b""
        self.forms: dict[bytes, Form] = {}
        self.groups: tuple[Group, ...] = ()
        self.room = 0
        self.kept: weakref.ref[m.Packet] | None = None  # of which it goes with the packet


memory: Final[dict[int, Found]] = {}
"""By the packet, which is there as long as what is found out of it."""


def of(request: m.Packet) -> Found:
    """What is remembered of this packet: of no other, however equal."""
    key = id(request)
    known = memory.get(key)
    if known is None:
        known = memory[key] = Found()
        forget = memory.pop  # and not by the module's name, which is gone when the last ones go
        known.kept = weakref.ref(request, lambda _gone: forget(key, None))
    return known


def grouped(request: m.Packet, room: int) -> tuple[Group, ...]:
    """The same of a packet of reads, which is asked again and again."""
    known = of(request)
    if known.room != room:
        known.groups, known.room = divided(request, room), room
    return known.groups


def form_of(request: m.Packet, codes: bytes) -> Form | None:
    """The form of the answer to a packet, if its tags have the types with these codes; None where there is none."""
    known = of(request)
    form = known.forms.get(codes)
    if form is None:
        form = _made(request, codes)
        if form is not None:
            if len(known.forms) >= FORMS:
                known.forms.clear()
            known.forms[codes] = form
    return form


def _made(request: m.Packet, codes: bytes) -> Form | None:
    if len(codes) != len(request.parts):
        return None
    arrays: list[bool] = []
    counts: list[int] = []
    size = 0
    for part, code in zip(request.parts, codes, strict=True):
        if type(part) is not m.ReadTag or code not in ATOMIC:
            return None
        item = part.item
        if item.first < 0 and item.count != 1:
            return None
        arrays.append(item.first >= 0)
        counts.append(item.count)
        size += ATOMIC[code][3] * item.count
    return Form(arrays, counts, codes) if _length(len(codes), size) <= DATA else None


def _length(parts: int, size: int) -> int:
    """Bytes of an answer with so many parts, and so many bytes of values."""
    return 2 + (2 + _PART) * parts + size


def codes_of(answers: list[m.Held | m.Done | m.CipError]) -> bytes:
    """The types of values, one for each; b"" where one is none, or has no form."""
    found: list[int] = []
    for one in answers:
        if type(one) is not m.Held or one.code not in ATOMIC:
            return b""
        found.append(one.code)
    return bytes(found)


def fault(request: m.Packet, response: m.HeldAll) -> str:
    """ "" if these are the values of all that a packet reads, else why not."""
    form = form_of(request, response.codes)
    return "values of something else" if form is None else form.fault(response.data)


def joined(groups: tuple[Group, ...], told: list[m.HeldAll | m.Answers]) -> m.HeldAll | m.Answers:
    """What was answered to the packets in which one packet was asked: side by side, if all is and there is not too
    much of it."""
    if len(told) == 1:
        return told[0]
    codes = data = b""
    for one in told:
        if isinstance(one, m.Answers):
            break
        codes, data = codes + one.codes, data + one.data
    else:
        if _length(len(codes), len(data)) <= DATA:  # else all of it together has no form
            return m.HeldAll(codes, data)
    parts: list[m.Held | m.Done | m.CipError] = []
    for group, one in zip(groups, told, strict=True):
        parts += one_by_one(group.asked, one).parts
    return m.Answers(tuple(parts))


def one_by_one(request: m.Packet, response: m.HeldAll | m.Answers) -> m.Answers:
    """The answer to each part of a packet. Raises: ValueError for values that are not its."""
    if isinstance(response, m.Answers):
        return response
    form = form_of(request, response.codes)
    if form is None or form.fault(response.data):
        raise ValueError("values of something else")
    return form.answers(response.data)
