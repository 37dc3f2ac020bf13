"""What the answer to a Read looks like, when all that it reads is single numbers.

Theory. A client asks for the same nodes for years. As long as each has a number of the type that it had, with the same
status, all of an answer but the numbers and their times stays as it is. Such an answer is taken apart in one step
(`Told.taken`): its bytes beside these are compared with what they have to be, numbers are read and written again, and
times, which any eight bytes but zeros are, are cut out. So they cross (`messages.Numbers`) beside what each node has
there, its `heads`, and so they are put into an answer of the other half's own. Whatever differs in anything is for
whoever takes it apart value by value, as what was not asked before.

All of it follows from the heads: that it is remembered changes nothing (ADR 95). Not here: one number (numbers).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers

NODES: Final = 20_000
"""Nodes of answers whose form is remembered, a few hundred bytes each; all are forgotten when one more comes."""
HEAD: Final = m.HEAD_BYTES
_VALUE, _STATUS, _SOURCE, _SERVER = 1, 2, 4, 8
"""Which fields a DataValue has (OPC 10000-6, 5.2.2.17)."""
_SHOWN: Final = (_SOURCE, _SERVER, _SOURCE | _SERVER, 0)
"""The times that a client wants, by its TimestampsToReturn."""
_WIDTHS: Final = {kind: struct.calcsize("<" + letter) for kind, letter in numbers.LETTERS.items()}
_HEAD: Final = struct.Struct("<BBI")
_NEVER: Final = bytes(8)
"""A time that is none."""


def heads_of(body: bytes, count: int) -> bytes:
    """What stands beside numbers and times in the body of an answer to a Read of so many nodes: of each node the fields
    that there are, the type, and the status. b"" where anything else is in it."""
    if not numbers.is_answer(body, count):
        return b""
    found: list[bytes] = []
    at, size = numbers.AT, len(body) - 4
    for _ in range(count):
        if at >= size:
            return b""
        mask = body[at]
        kind = status = 0
        at += 1
        if mask & _VALUE:
            if at >= size:
                return b""
            kind = body[at]
            at += 1 + _WIDTHS.get(kind, 0)
        if mask > 15 or (kind and kind not in _WIDTHS):
            return b""
        if mask & _STATUS:
            status = int.from_bytes(body[at : at + 4], "little")
            at += 4
        at += 8 * (mask >> 2).bit_count()
        found.append(_HEAD.pack(mask, kind, status))
    return b"".join(found) if at == size else b""


class Told:
    """An asset's answer of this form."""

    __slots__ = ("_constants", "_count", "_expected", "_held", "_length", "_numbers", "_times", "crossing")

    def __init__(self, heads: bytes) -> None:
        self._count = len(heads) // HEAD
        constants = values = times = f"<{numbers.AT}x"
        held = "<"
        expected: list[bytes] = []
        crossing: list[bytes] = []
        self._length = numbers.AT + 4
        for mask, kind, status in _HEAD.iter_unpack(heads):
            before = bytes((mask, kind)) if mask & _VALUE else bytes((mask,))
            said = status.to_bytes(4, "little") if mask & _STATUS else b""
            letter, width = (numbers.LETTERS[kind], _WIDTHS[kind]) if kind else ("0s", 0)
            stamps = 8 * (mask >> 2).bit_count()
            expected.append(before)
            constants += f"{len(before)}s{width}x"
            if said:
                expected.append(said)
                constants += "4s"
            constants += f"{stamps}x"
            values += f"{len(before)}x{letter}{len(said) + stamps}x"
            times += f"{len(before) + width + len(said)}x{stamps}s"
            held += f"{letter}{stamps}s"
            shown = (_VALUE if kind else 0) | (_STATUS if status else 0) | (mask & (_SOURCE | _SERVER))
            crossing.append(_HEAD.pack(shown, kind, status))
            self._length += len(before) + width + len(said) + stamps
        self._expected = tuple(expected)
        self._constants, self._numbers = struct.Struct(constants + "4x"), struct.Struct(values + "4x")
        self._times, self._held = struct.Struct(times + "4x"), struct.Struct(held)
        self.crossing = b"".join(crossing)

    def taken(self, body: bytes) -> bytes | None:
        """The numbers and the times; None for an answer that has not this form."""
        if len(body) != self._length or not numbers.is_answer(body, self._count):
            return None
        if self._constants.unpack(body) != self._expected:
            return None
        times = self._times.unpack(body)
        joined = b"".join(times)
        if _NEVER in joined and 0 in struct.unpack(f"<{len(joined) // 8}q", joined):
            return None  # a time of 0, which is none, and is left out
        fields: list[Any] = [b""] * (2 * self._count)
        fields[0::2] = self._numbers.unpack(body)
        fields[1::2] = times
        return self._held.pack(*fields)


class Form:
    """What crosses of an answer, and how it is said to a client."""

    __slots__ = ("_bools", "_heads", "_said", "_size", "count")

    def __init__(self, heads: bytes) -> None:
        self._heads = tuple(_HEAD.iter_unpack(heads))
        self.count = len(self._heads)
        self._bools: list[int] = []
        self._said: dict[int, tuple[struct.Struct, list[bytes]]] = {}
        self._size = 0
        for mask, kind, _ in self._heads:
            if kind == 1:
                self._bools.append(self._size)
            self._size += (_WIDTHS[kind] if kind else 0) + 8 * (mask >> 2).bit_count()

    def fault(self, data: bytes) -> str:
        """Why these are not the numbers and the times; "" if they are."""
        if len(data) != self._size:
            return f"{len(data)} bytes of numbers and times that have {self._size}"
        for at in self._bools:
            if data[at] > 1:
                return "a bool that is neither 0 nor 1"
        return ""

    def pieces(self, data: bytes, stamps: int) -> list[bytes]:
        """The DataValues for a client, in pieces. `stamps`: as in Namespaces.data."""
        found = self._said.get(stamps)
        if found is None:
            found = self._said[stamps] = self._layout(_SHOWN[stamps])
        made = found[1].copy()
        made[1::2] = found[0].unpack(data)
        return made

    def _layout(self, shown: int) -> tuple[struct.Struct, list[bytes]]:
        """How to cut numbers and times, and what stands before each piece."""
        cut = "<"
        made: list[bytes] = []
        for mask, kind, status in self._heads:
            first = mask & (_VALUE | _STATUS | shown)
            before = bytes((first, kind)) if kind else bytes((first,))
            length = _WIDTHS[kind] if kind else 0
            if status:
                made += (before, b"")
                cut += f"{length}s"
                before, length = status.to_bytes(4, "little"), 0
            for stamp in (_SOURCE, _SERVER):
                if mask & stamp and not shown & stamp:
                    made += (before, b"")
                    cut += f"{length}s8x"
                    before, length = b"", 0
                elif mask & stamp:
                    length += 8
            made += (before, b"")
            cut += f"{length}s"
        return struct.Struct(cut), made

    def samples(self, data: bytes) -> tuple[m.Sample, ...]:
        """The same one by one."""
        found: list[m.Sample] = []
        at = 0
        for mask, kind, status in self._heads:
            value: Any = None
            if kind:
                value = numbers.MADE[kind](struct.unpack_from("<" + numbers.LETTERS[kind], data, at))
                at += _WIDTHS[kind]
            told = [0, 0]
            for place, stamp in enumerate((_SOURCE, _SERVER)):
                if mask & stamp:
                    told[place] = int.from_bytes(data[at : at + 8], "little", signed=True)
                    at += 8
            found.append(m.Sample(value, status, told[0], told[1]))
        return tuple(found)


class _Remembered:
    """By their heads."""

    __slots__ = ("_known", "_size")

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}
        self._size = 0

    def get(self, heads: bytes) -> Any:
        return self._known.get(heads)

    def keep(self, heads: bytes, made: Any) -> Any:
        self._size += len(heads)
        if self._size > HEAD * NODES:
            self._known.clear()
            self._size = len(heads)
        self._known[heads] = made
        return made


_TOLD, _FORMS = _Remembered(), _Remembered()


def told_of(heads: bytes) -> Told:
    """How an answer is taken apart that has these (`heads_of`)."""
    found: Told = _TOLD.get(heads) or _TOLD.keep(heads, Told(heads))
    return found


def form_of(heads: bytes) -> Form | None:
    """What crosses with these heads; None for heads that nobody has."""
    found: Form | None = _FORMS.get(heads)
    if found is not None:
        return found
    if not heads or len(heads) % HEAD:
        return None
    for mask, kind, status in _HEAD.iter_unpack(heads):
        if mask > 15 or bool(mask & _VALUE) != bool(kind) or bool(mask & _STATUS) != bool(status):
            return None
        if kind and kind not in _WIDTHS:
            return None
    made: Form = _FORMS.keep(heads, Form(heads))
    return made


def fault(message: m.Numbers) -> str:
    """Why a message that crosses is none; "" if it is one."""
    form = form_of(message.heads)
    return "numbers without a form" if form is None else form.fault(message.data)


def one_by_one(message: m.Numbers) -> m.Values:
    """The same as values. Raises: ValueError for what is none."""
    form = form_of(message.heads)
    if form is None or form.fault(message.data):
        raise ValueError("numbers without a form")
    return m.Values(form.samples(message.data))
