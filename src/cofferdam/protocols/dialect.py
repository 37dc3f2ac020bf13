"""What a policy may say of a protocol: spaces of cells and kinds of items, how both are written, codes, types, units.

A dialect is data, and one small interface that is pure: the notation of a place, as it stands after `at:`. Policy reads
points, rules and questions by it, and judges without it: what a judge has to know (which spaces hold bits, which names
are parts of which) is compiled into the asset's row.

Not here: messages, machines, quirks' meaning (the protocol's folder), which dialects there are (dialects).
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.model import ALL_ELEMENTS, Item, Method, Span
from cofferdam.values import ValueType


class Misread(CofferdamError):
    """A text that is no place in this notation. `str(error)` says what should have stood there, as in "a tag path";
    `near` is the nearest right text, or ""."""

    def __init__(self, expected: str, near: str = "") -> None:
        super().__init__(expected)
        self.near = near


class Notation(abc.ABC):
    """How places are written. Pure: no state, no clock, nothing but the text."""

    pattern: str
    """A regular expression that right texts match: editors check by it."""
    examples: tuple[str, ...]
    """Right texts."""

    @abc.abstractmethod
    def parse(self, text: str) -> Span | Item:
        """The place that a text names; an item by its one spelling. Whether there is such a space or kind is asked
        later. Raises: Misread."""

    def prefix(self, text: str) -> Item:
        """The item with whose name all those begin that a text such as "tag Pump.*" means (see Kind.prefix). Raises:
        Misread."""
        raise Misread("cells, or an item by its whole name")

    def field(self, text: str) -> str:
        """A field of events, in its one spelling. Raises: Misread."""
        raise Misread("no fields: there are no events")

    def field_written_out(self, text: str, shorts: Mapping[str, str]) -> str:
        """A field with the short names of an asset's `namespaces` written out. Raises: Misread for one that is none."""
        return text

    def of_event(self, notifier: Item, field: str) -> Item:
        """The item that a field of a notifier's events is."""
        raise Misread("no fields: there are no events")

    def field_of(self, notifier: Item, item: Item) -> str:
        """The other way: which field of a notifier's events an item is."""
        return item.name.removeprefix(notifier.name)

    def owned(self, item: Item) -> bool:
        """Whether an item is the device's own, and none that all have by the standard."""
        return True

    def title(self, item: Item) -> str:
        """What people would call an item, of which `learn` makes the name of a point."""
        return item.name

    @abc.abstractmethod
    def show(self, place: Span | Item) -> str:
        """The text of a place: what `parse` reads as the same place again."""

    def misplaced(self, form: str, rest: str, kind: ValueType, elements: int) -> str:
        """What is expected instead of a point in a stream's frames; "" where it can be there. `form`: the stream's;
        `rest`: the point's name after that of the stream."""
        return ""


_NUMBER = r"(0x[0-9a-fA-F]{1,4}|[0-9]{1,5})"
_CELLS = re.compile(rf"([a-z]+(?::[0-9]{{1,5}})?)\s+{_NUMBER}(?:\s*-\s*{_NUMBER})?\Z")
_BITS = re.compile(
    rf"([a-z]+(?::[0-9]{{1,5}})?)\s+{_NUMBER}(?:\.|\s+bits?\s+)([0-9]{{1,2}})(?:\s*-\s*([0-9]{{1,2}}))?\Z"
)


class BitSpan(Span, frozen=True, array_like=True, gc=False, tag=0):
    """Bits of one cell, from `low` to `high`, counted from the least significant one. It stands for a point's place
    while a policy is read; what is compiled has the cell, and a mask (`model.Point`)."""

    low: int = 0
    high: int = 15

    @property
    def mask(self) -> int:
        """The bits."""
        return ((2 << (self.high - self.low)) - 1) << self.low


def bits_text(mask: int) -> str:
    """Bits in words: "bit 3", "bits 0-3", "bits 0, 5"."""
    bits = [bit for bit in range(16) if mask >> bit & 1]
    if len(bits) > 1 and bits[-1] - bits[0] == len(bits) - 1:
        return f"bits {bits[0]}-{bits[-1]}"
    return f"bit{'s' if len(bits) != 1 else ''} {', '.join(map(str, bits))}"


class CellNotation(Notation):
    """Cells of a space: "holding 100", "holding 0-99", "file:4 0-9". Numbers count from 0, as on the wire. `near` finds
    what may have been meant by a text that is none."""

    pattern = r"^[a-z]+(:\d+)?\s+(\d+|0x[0-9a-fA-F]{1,4})(\s*-\s*(\d+|0x[0-9a-fA-F]{1,4})|(\.|\s+bits?\s+)\d+(-\d+)?)?$"

    def __init__(self, examples: tuple[str, ...], near: Callable[[str], str]) -> None:
        self.examples = examples
        self._near = near

    def parse(self, text: str) -> Span:
        found = _CELLS.match(text)
        if not found and (bits := _BITS.match(text)):
            return self._bits(bits[1], _whole(bits[2]), int(bits[3]), int(bits[4] or bits[3]))
        if not found:
            samples = " or ".join(f'"{example}"' for example in self.examples)
            raise Misread(f"a space and cells counted from 0, such as {samples}", self._near(text))
        first, last = _whole(found[2]), _whole(found[3] or found[2])
        if first > 65535 or last > 65535:
            raise Misread("cells from 0 to 65535")
        if last < first:
            raise Misread("the first cell before the last", f'"{found[1]} {last}-{first}"')
        return Span(found[1], first, last - first + 1)

    def _bits(self, space: str, cell: int, low: int, high: int) -> Span:
        if cell > 65535:
            raise Misread("cells from 0 to 65535")
        if high < low:
            raise Misread("the lower bit before the higher", f'"{space} {cell}.{high}-{low}"')
        if high > 15:
            raise Misread("bits from 0, the least significant one, to 15")
        return BitSpan(space, cell, 1, low, high)

    def show(self, place: Span | Item) -> str:
        if isinstance(place, BitSpan):
            bits = f"{place.low}" if place.low == place.high else f"{place.low}-{place.high}"
            return f"{place.space} {place.start}.{bits}"
        return show_range(place, place.start, place.stop)


def _whole(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else int(text)


def show_range(place: Span | Item, start: int, stop: int) -> str:
    """Some of a place's cells or elements, as any dialect could write them: "holding 100-101", "tag counts[0-9]"."""
    last = f"{start}" if stop == start + 1 else f"{start}-{stop - 1}"
    if isinstance(place, Span):
        return f"{place.space} {last}"
    return place.space if start < 0 or stop >= ALL_ELEMENTS else f"{place.space}[{last}]"


class Space(msgspec.Struct, frozen=True):
    """Cells of one kind. `numbered`: the name carries a number ("file:4"). The codes read, write one, write several."""

    name: str
    bits: bool
    writable: bool
    numbered: bool = False
    read: int = 0
    write_one: int = 0
    write_many: int = 0
    write_bits: int = 0
    """The code that writes single bits of a word."""
    whole: bool = False
    """`registers: all` stands for it, too."""
    digit: int = 0
    """What other products put before its cells, which they count from 1: 4 of "40101"."""


class Kind(msgspec.Struct, frozen=True):
    """Items of one kind. `words` say what it is, as in "a tag". What may be done with such an item has a code above
    0: `read` and `write` and `watch` its value, `call` it, or `open` it as a stream.

    `separators`: characters after which a name goes on to a part of what stands before them, so that "pump.speed" is a
    part of "pump"; "" where names say nothing of that. `elements`: a range of elements can be named. `prefix`: rules
    may say "NAME*" for all items whose names begin so.
    """

    name: str
    words: str
    read: int = 0
    write: int = 0
    watch: int = 0
    call: int = 0
    open: int = 0
    separators: str = ""
    elements: bool = False
    prefix: bool = False

    @property
    def valued(self) -> bool:
        """Whether such an item has a value, so that a point may be one: also the parts of a stream."""
        return bool(self.read or self.write or self.watch or self.open)


class Units(msgspec.Struct, frozen=True):
    """Numbers of the units behind one address, from `low` to `high`; `any`: an asset may stand for all of them."""

    low: int
    high: int
    any: bool = True
    broadcast: int = -2
    """The one to which a write reaches every device of a serial line; -2: there is none."""


def _from_one(found: re.Match[str]) -> str:
    """Numbers of cells, counted from 1 instead of 0."""
    return "-".join(str(int(number) + 1) for number in found.groups() if number)


class Dialect(msgspec.Struct, frozen=True):
    """One protocol. `codes` are the functions that carry no cells and no items, with words for people; `changing` those
    (code, sub) among them that may change the device's state, sub -1 for all of a code. `place_codes` carry cells or
    items, and so are asked for by these. `types`: the names of types, and what each means."""

    name: str
    default_port: int
    notation: Notation
    types: dict[str, ValueType]
    value_forms: dict[str, int] = {}
    """Those of `types` that values have at the device alone (`model.Point.form`); how many characters each value of one
    has, 0 where they differ or are not counted."""
    transport: Literal["tcp", "udp"] = "tcp"
    spaces: tuple[Space, ...] = ()
    kinds: tuple[Kind, ...] = ()
    codes: dict[int, str] = {}
    code_range: tuple[int, int] = (1, 65535)
    code_examples: str = ""
    """Codes as a policy writes them, for messages: '8 or "43/14"'."""
    changing: frozenset[tuple[int, int]] = frozenset()
    others_change: bool = False
    """Functions that neither `codes` nor `place_codes` name may change the device, too."""
    alarming: frozenset[int] = frozenset()
    """Those of `codes` that stop, start, reset or reprogram the device: a rule that allows one is worth a warning."""
    place_codes: frozenset[int] = frozenset()
    units: Units | None = None
    """None: the protocol knows no units."""
    quirks: frozenset[str] = frozenset()
    """Known deviations that an asset may be declared to have."""
    lone_quirks: frozenset[str] = frozenset()
    """Those under which only one request may be in flight."""
    vendors: dict[int, str] = {}
    """Function codes that vendors use and no public document has, and whose they are."""
    secure_port: int = 0
    """The port at which it is spoken within TLS; 0: it is not."""
    opaque: bool = False
    """Functions that neither `codes` nor `place_codes` name can be carried as they are, for an asset that says so."""
    id_quirks: tuple[str, ...] = ()
    """Those of `quirks` by which answers have an id of 0, or any one."""
    length_quirk: str = ""
    """That of `quirks` by which the length in a frame's header says nothing. "": there is none."""
    about: str = ""
    """The kind of items by which it is asked what a thing is (not its value): whoever may do anything with a point or
    method may read the item of this kind with its name. "" where a protocol has no such questions."""
    history: str = ""
    """The kind of items by which a point's recorded values are read, for rules' `history`; "" where there is none."""
    events: str = ""
    """The kind of items by which events are had, for rules' `events`: a notifier by its own name, a field of its events
    by "NOTIFIER -> FIELD"; "" where there are none."""
    trees: str = ""
    """The kind of items by which the structure of what there is below one is asked for, for rules' `browse`; "" where
    there is none."""
    conditions: tuple[Method, ...] = ()
    """What may be told of conditions that a notifier's events show, for rules' `acknowledge`: each by its word, as an
    item of a kind of its own, "NOTIFIER -> WORD"."""
    condition_fields: tuple[str, ...] = ()
    """The fields that events need for that."""
    event_fields: tuple[str, ...] = ()
    """The fields that a notifier's events have where the policy names none."""
    security: tuple[str, ...] = ()
    """How it can be secured, in words for an asset's `security`, the best first; none: it cannot."""
    secrets: tuple[str, ...] = ()
    """What its machines need from the state directory, by name (Protocol.common)."""
    needs: tuple[str, ...] = ()
    """Python modules that its machines import, and that an extra of its name brings."""
    preload: tuple[str, ...] = ()
    """Modules that libraries import when they first need them, which is too late in a part under its filter."""

    routes: str = ""
    """A regular expression for an asset's `route`; "" where the protocol has none."""
    route_example: str = ""
    """How one is written."""
    connected: bool = False
    """Requests may go within a connection of its own that its machines open at the device (an asset's `explicit`)."""
    forms: str = ""
    """A regular expression for what a stream is made of, where the protocol needs to be told; "" where it does not."""
    form_example: str = ""
    part_of: Callable[[Item], str] | None = None
    """What is read, written as in a policy, where an item is a part of it that nobody reads by itself; "" for one that
    is read."""
    unserved: Callable[[int, int], str] | None = None
    """Why nobody serves a code and sub-code, whatever a rule says, in words; "" for one that is served."""
    learned_form: Callable[[Item], str] | None = None
    tells: Callable[[str], str] | None = None  # what of the device a stream's form writes, which has one name; "": none
    """The form of a stream that a capture shows, by the name that it has there; "" for none."""
    dimensions: int = 0
    """How many a point may have that is a matrix; 0: none is."""
    structures: bool = False
    """Points may be structures, by the notation's name of their encoding."""
    reverse: bool = False
    """Who serves may open the connection, for an asset's `reverse`."""
    shorts: Callable[[str, Mapping[str, str]], str] | None = None
    """A place with short names written out (an asset's `namespaces`); None: there are none."""
    numberings: Callable[[str, str], str] | None = None
    """The notation of a text that is written by another numbering (an asset's `numbering`); None: there is no other."""
    datagrams: int = 0
    """The UDP port at which streams' frames come and go, beside the connection that opened them; 0: none do."""
    group_of: Callable[[str], str] | None = None
    """The multicast group that is derived from an IPv4 address of ours; None: no frames go to a group. For protocols
    with `datagrams`."""
    configuration: int = 0
    """Bytes of configuration that a stream's opening may bring, at most; 0: none."""
    discovery: bool = False
    """A question may come alone, by UDP at the port of the connections (`protocols.base.Facing.alone`). For protocols
    with `datagrams`."""

    def port(self, *, secure: bool) -> int:
        """The port at which it is spoken where nothing else is said."""
        return self.secure_port if secure and self.secure_port else self.default_port

    def written_out(self, text: str, shorts: Mapping[str, str]) -> str:
        """A place with the short names of an asset's `namespaces` written out. Raises: Misread for one that is none."""
        return text if self.shorts is None else self.shorts(text, shorts)

    def numbered(self, text: str, numbering: str) -> str:
        """A place that is written by that numbering ("": none was said), in the notation; unchanged where it cannot
        be."""
        return text if self.numberings is None else self.numberings(text, numbering)

    def as_numbered(self, text: str, numbering: str) -> str:
        """A place in the notation, as it is written by that numbering: what a message proposes has to be."""
        if numbering != "one":
            return text
        return re.sub(r"(?<= )([0-9]+)(?:-([0-9]+))?", _from_one, text, count=1)

    def space(self, name: str) -> Space | None:
        """The space that a name such as "holding" or "file:4" means."""
        kind, _, number = name.partition(":")
        for space in self.spaces:
            if space.name == kind and space.numbered == bool(number):
                return space
        return None

    def kind(self, name: str) -> Kind | None:
        """The kind of items of that name."""
        return next((kind for kind in self.kinds if kind.name == name), None)

    def found(self, place: Span | Item) -> Space | Kind | None:
        """The space or kind of a place; None where this protocol has no such one."""
        return self.space(place.space) if isinstance(place, Span) else self.kind(place.kind)

    def writable(self, place: Span | Item) -> bool:
        """Whether there is a way to write to such a place."""
        found = self.found(place)
        return found is not None and (found.writable if isinstance(found, Space) else found.write > 0)

    def readable(self, place: Span | Item) -> bool:
        """Whether there is a way to read such a place."""
        found = self.found(place)
        return isinstance(found, Space) or (found is not None and found.read > 0 and not self.whole_of(place))

    def whole_of(self, place: Span | Item) -> str:
        """See `part_of`."""
        return self.part_of(place) if self.part_of is not None and isinstance(place, Item) else ""

    def watchable(self, place: Span | Item) -> bool:
        """Whether there is a way to watch such a place."""
        found = self.found(place)
        return isinstance(found, Kind) and found.watch > 0

    def words(self) -> list[str]:
        """Its spaces and kinds by name, as they are written."""
        return [space.name + (":N" if space.numbered else "") for space in self.spaces] + [k.name for k in self.kinds]

    def changes(self, code: int, sub: int) -> bool:
        """Whether a function without cells may change the device's state."""
        unnamed = self.others_change and code not in self.codes
        return unnamed or (code, sub) in self.changing or (code, -1) in self.changing
