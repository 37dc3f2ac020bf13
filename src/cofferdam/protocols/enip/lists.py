"""The tag list and the structures that a connection was given, page by page; numbers of symbols are looked up in them.

The list was filtered before it came here: it holds what its reader may see. Not here: uploading it (client).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cofferdam.protocols.enip import faults, paths, replies
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.dialect import NAME
from cofferdam.protocols.enip.epath import Path
from cofferdam.protocols.enip.requests import (
    DATA_ACCESS,
    EXTENDED,
    GET_LIST,
    LIST,
    LONG,
    MORE,
    NO_SUCH,
    PARAMETER,
    READ,
    SEGMENT,
    SHORT,
    Refused,
)
from cofferdam.protocols.enip.values import known, size_of

FRESH_NS: Final = 5_000_000_000
"""For so long a list is not uploaded again for the same connection."""
PROGRAMS: Final = 100
"""Programs of which one connection may have lists."""
_SIZES: Final = {1: 0, 2: 2, 3: 4, 5: 4, 6: 4, 7: 2, 8: 12, 10: 1}


class Page(NamedTuple):
    """Which page of a list is asked, with which attributes."""

    program: str
    start: int
    attributes: tuple[int, ...]


class Part(NamedTuple):
    """What of a template is asked: attributes, or bytes of its definition."""

    service: int
    instance: int
    attributes: tuple[int, ...]
    offset: int
    size: int


class Lists:
    """All lists and structures of one connection."""

    def __init__(self) -> None:
        self._lists: dict[str, m.TagList] = {}
        self._made: dict[str, int] = {}
        self.structures: dict[int, m.Structure] = {}
        self.names: dict[tuple[str, int], str] = {}
        """Names (in small letters) by program and number."""
        self._templates: set[int] = set()
        self.sizes: dict[int, int] = {}
        """Bytes of structures that were described, by their handle."""

    def describe(self, instance: int, found: m.Structure) -> None:
        """A structure's description has come."""
        self.structures[instance] = found
        self.sizes[found.handle] = found.size

    def asked(self, path: Path, body: bytes) -> Page:
        """Reads a Get Instance Attribute List. Raises: Refused."""
        if path.attribute >= 0 or path.names or path.elements or path.points or path.route:
            raise Refused(SEGMENT, "a list by another path than a class and a number", paths.SECTION)
        if path.program and not faults.program_right(path.program):
            raise Refused(SEGMENT, f"the program {path.program[:60]}", paths.SECTION)
        count = int.from_bytes(body[:2], "little")
        if len(body) != 2 + 2 * count or not 1 <= count <= 16:
            raise Refused(SHORT if len(body) < 2 + 2 * count else LONG, "a list of attributes", DATA_ACCESS)
        attributes = struct.unpack_from(f"<{count}H", body, 2)
        unknown = set(attributes) - set(_SIZES)
        if unknown:
            raise Refused(PARAMETER, f"the attribute {min(unknown)} of symbols", DATA_ACCESS)
        if path.program not in self._lists and len(self._lists) >= PROGRAMS:
            raise Refused(0x02, "lists of too many programs", DATA_ACCESS)
        return Page(path.program, max(path.instance, 0), attributes)

    def has(self, page: Page, now: int) -> bool:
        """Whether the list of a page is there; one that is asked from its beginning is made anew after a while. `now`:
        monotonic ns."""
        fresh = page.start > 0 or now - self._made.get(page.program, -FRESH_NS) < FRESH_NS
        return fresh and page.program in self._lists

    def take(self, program: str, found: m.TagList, now: int) -> None:
        """The list has come."""
        self._made[program] = now
        self._lists[program] = found
        self.names = {key: name for key, name in self.names.items() if key[0] != program}
        for symbol in found.symbols:
            # What is no name, whatever the device calls it, cannot be asked for.
            if NAME.match(symbol.name):
                self.names[program, symbol.instance] = symbol.name.lower()
            if symbol.code & 0x8000:
                self._templates.add(symbol.code & 0x0FFF)

    def page(self, page: Page, room: int) -> bytes:
        """The answer: as many tags from a number on as find room."""
        body = b""
        for symbol in self._lists[page.program].symbols:
            if symbol.instance < page.start:
                continue
            entry = symbol.instance.to_bytes(4, "little") + b"".join(self._of(symbol, one) for one in page.attributes)
            if len(body) + len(entry) + 4 > room:
                return replies.reply(LIST, MORE, (), body)
            body += entry
        return replies.reply(LIST, 0, (), body)

    # --- structures

    def template_asked(self, service: int, path: Path, body: bytes) -> Part:
        """Reads what is asked of a template. Raises: Refused."""
        if path.instance not in self._templates or path.attribute >= 0 or path.names or path.points or path.route:
            raise Refused(NO_SUCH, f"the template {path.instance}, which no tag of the list has", DATA_ACCESS)
        if service == READ:
            if len(body) != 6:
                raise Refused(SHORT if len(body) < 6 else LONG, "a place and a length", DATA_ACCESS)
            return Part(service, path.instance, (), *struct.unpack("<IH", body))
        count = int.from_bytes(body[:2], "little")
        if len(body) != 2 + 2 * count or not 1 <= count <= 8:
            raise Refused(SHORT if len(body) < 2 + 2 * count else LONG, "a list of attributes", DATA_ACCESS)
        return Part(service, path.instance, struct.unpack_from(f"<{count}H", body, 2), 0, 0)

    def template(self, part: Part, room: int) -> bytes:
        """The answer. The template's members that are structures may be asked from now on."""
        found = self.structures[part.instance]
        self._templates |= {member.code & 0x0FFF for member in found.members if member.code & 0x8000}
        definition = replies.definition(found)
        if part.service == GET_LIST:
            # The size counts 23 bytes that are never read (1756-PM020, template object).
            values = {
                1: found.handle.to_bytes(2, "little"),
                2: len(found.members).to_bytes(2, "little"),
                3: b"\0\0",  # nobody has written down what it is; pylogix asks for it, and passes over its two bytes
                4: ((len(definition) + 26) // 4).to_bytes(4, "little"),
                5: found.size.to_bytes(4, "little"),
            }
            body = len(part.attributes).to_bytes(2, "little")
            for one in part.attributes:
                body += one.to_bytes(2, "little") + (b"\0\0" + values[one] if one in values else b"\x14\0")
            return replies.reply(GET_LIST, 0, (), body)
        wanted = definition.ljust((len(definition) + 3) & ~3, b"\0")[part.offset : part.offset + part.size]
        if not wanted:
            return replies.reply(READ, EXTENDED, (0x2105,))
        sent = wanted[: room - 4]
        return replies.reply(READ, MORE if len(sent) < len(wanted) else 0, (), sent)

    def _of(self, symbol: m.Symbol, attribute: int) -> bytes:
        if attribute == 1:
            name = symbol.name.encode("ascii")
            return len(name).to_bytes(2, "little") + name
        if attribute == 2:
            return symbol.code.to_bytes(2, "little")
        if attribute == 7:
            return min(self._element(symbol.code), 0xFFFF).to_bytes(2, "little")
        if attribute == 8:
            return b"".join(one.to_bytes(4, "little") for one in symbol.dimensions)
        # Places in the device's memory and the like: nobody has a use for them here.
        return bytes(_SIZES[attribute])

    def _element(self, code: int) -> int:
        """Bytes of one element of a tag; 0 for a structure that was not described yet, and for what is not known."""
        if code & 0x8000:
            found = self.structures.get(code & 0x0FFF)
            return 0 if found is None else found.size
        return size_of(code & 0xFF, 0) if known(code & 0xFF) else 0
