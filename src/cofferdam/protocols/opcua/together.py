"""What the answer to a Read looks like, when all that it reads is single numbers.

Theory. A client asks for the same nodes for years. As long as each has a number of the type that it had, with the same
status, all of an answer but the numbers and their times stays as it is. Such an answer is taken apart in one step
(`Told.taken`): its bytes beside these are compared with what they have to be, and numbers and times are read and
written again, side by side. So they cross (`messages.Numbers`) beside what each node has there, its `heads`, and so
they are put into an answer of the other half's own. Whatever differs in anything is for whoever takes it apart value
by value, as what was not asked before.

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
        constants, letters, values, times, held = f"<{numbers.AT}x", "<", f"<{numbers.AT}x", f"<{numbers.AT}x", ""
        expected: list[bytes] = []
        crossing: list[bytes] = []
        self._length = numbers.AT + 4
        for mask, kind, status in _HEAD.iter_unpack(heads):
            before = bytes((mask, kind)) if mask & _VALUE else bytes((mask,))
            said = status.to_bytes(4, "little") if mask & _STATUS else b""
            letter = numbers.LETTERS[kind] if kind else ""
            width = _WIDTHS[kind] if kind else 0
            stamps = (mask >> 2).bit_count()
            expected += (before, said)
            constants += f"{len(before)}s{width}x{len(said)}s{8 * stamps}x"
            values += f"{len(before)}x{letter}{len(said) + 8 * stamps}x"
            times += f"{len(before) + width + len(said)}x{'q' * stamps}"
            letters += letter
            held += "q" * stamps
            shown = (_VALUE if kind else 0) | (_STATUS if status else 0) | (mask & (_SOURCE | _SERVER))
            crossing.append(_HEAD.pack(shown, kind, status))
            self._length += len(before) + width + len(said) + 8 * stamps
        self._expected = tuple(expected)
        self._constants, self._numbers = struct.Struct(constants + "4x"), struct.Struct(values + "4x")
        self._times, self._held = struct.Struct(times + "4x"), struct.Struct(letters + held)
        self.crossing = b"".join(crossing)

    def taken(self, body: bytes) -> bytes | None:
        """The numbers and the times; None for an answer that has not this form."""
        if len(body) != self._length or not numbers.is_answer(body, self._count):
            return None
        if self._constants.unpack(body) != self._expected:
            return None
        times = self._times.unpack(body)
        if 0 in times:  # which is no time, and is left out
            return None
        return self._held.pack(*self._numbers.unpack(body), *times)


class Form:
    """What crosses of an answer, and how it is said to a client."""

    __slots__ = ("_bools", "_heads", "_said", "_size", "count")

    def __init__(self, heads: bytes) -> None:
        self._heads = tuple(_HEAD.iter_unpack(heads))
        self.count = len(self._heads)
        self._bools: list[tuple[int, int]] = []
        self._said: dict[int, tuple[struct.Struct, list[bytes]]] = {}
        at = stamps = 0
        for mask, kind, _ in self._heads:
            if kind == 1:
                if self._bools and self._bools[-1][1] == at:
                    self._bools[-1] = (self._bools[-1][0], at + 1)
                else:
                    self._bools.append((at, at + 1))
            at += _WIDTHS[kind] if kind else 0
            stamps += (mask >> 2).bit_count()
        self._size = at + 8 * stamps

    def fault(self, data: bytes) -> str:
        """Why these are not the numbers and the times; "" if they are."""
        if len(data) != self._size:
            return f"{len(data)} bytes of numbers and times that have {self._size}"
        for start, stop in self._bools:
            if data[start:stop].translate(None, b"\0\1"):
                return "a bool that is neither 0 nor 1"
        return ""

    def pieces(self, data: bytes, stamps: int) -> list[bytes]:
        """The DataValues for a client, in pieces. `stamps`: as in Namespaces.data."""
        found = self._said.get(stamps)
        if found is None:
            found = self._said[stamps] = self._layout(_SHOWN[stamps])
        cut, made = found[0].unpack(data), found[1].copy()
        made[1::4] = cut[: self.count]
        made[3::4] = cut[self.count :]
        return made

    def _layout(self, shown: int) -> tuple[struct.Struct, list[bytes]]:
        """How to cut numbers and times, and what stands before each of them."""
        values = times = ""
        made: list[bytes] = []
        for mask, kind, status in self._heads:
            first = mask & (_VALUE | _STATUS | shown)
            made += (bytes((first, kind)) if kind else bytes((first,)), b"")
            made += (status.to_bytes(4, "little") if status else b"", b"")
            values += f"{_WIDTHS[kind] if kind else 0}s"
            before = 8 if mask & _SOURCE and not shown & _SOURCE else 0
            after = 8 if mask & _SERVER and not shown & _SERVER else 0
            times += f"{before}x{8 * (first >> 2).bit_count()}s{after}x"
        return struct.Struct("<" + values + times), made

    def samples(self, data: bytes) -> tuple[m.Sample, ...]:
        """The same one by one."""
        letters = "".join([numbers.LETTERS[kind] for _, kind, _ in self._heads if kind])
        stamps = "".join(["q" * (mask >> 2).bit_count() for mask, _, _ in self._heads])
        fields = struct.unpack("<" + letters + stamps, data)
        found: list[m.Sample] = []
        at, then = 0, len(letters)
        for mask, kind, status in self._heads:
            value: Any = None
            if kind:
                value = numbers.MADE[kind]((fields[at],))
                at += 1
            source = server = 0
            if mask & _SOURCE:
                source = fields[then]
                then += 1
            if mask & _SERVER:
                server = fields[then]
                then += 1
            found.append(m.Sample(value, status, source, server))
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
