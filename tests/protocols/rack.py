"""A small controller that keeps tags as Logix does: structures, STRINGs, programs, numbers that a download changes.

It is written from the reference (1756-PM020) and takes nothing from the product, so that a mistake of it is none of
both. cm-ethernetip (logix) has neither members nor structures in its answers.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

from tests.ports import held_port

SINT, DINT, REAL = 0xC2, 0xC4, 0xCA
STRING_ID, MOTOR_ID, WIDE_ID = 0xFCE, 0x123, 0x234
_SIZES = {0xC1: 1, SINT: 1, 0xC3: 2, DINT: 4, REAL: 4, 0xD3: 4}


class Member(NamedTuple):
    name: str
    code: int  # of a type, or 0x8000 and the number of a template
    elements: int
    offset: int


class Template(NamedTuple):
    name: str
    handle: int
    size: int
    members: tuple[Member, ...]


TEMPLATES = {
    STRING_ID: Template("ASCIISTRING82", 0x0FCE, 88, (Member("LEN", DINT, 1, 0), Member("DATA", SINT, 82, 4))),
    MOTOR_ID: Template(
        "Motor", 0x7A5C, 104,
        (
            Member("Speed", DINT, 1, 0), Member("Ratio", REAL, 1, 4), Member("Steps", DINT, 2, 8),
            Member("Label", 0x8000 | STRING_ID, 1, 16),
        ),
    ),
    WIDE_ID: Template("Wide", 0x51DE, 6004, (Member("Count", DINT, 1, 0), Member("Steps", DINT, 1500, 4))),
}  # fmt: skip


class Tag:
    """A tag of a controller or of a program, with its memory."""

    def __init__(self, name: str, code: int, count: int = 1) -> None:
        self.name = name
        self.code = code
        self.count = count
        self.data = bytearray(_size(code) * count)


class Wrong(Exception):
    """Answered with this status."""

    def __init__(self, status: int, more: int = 0) -> None:
        super().__init__(f"{status:02X}/{more:04X}")
        self.status, self.more = status, more


class Place(NamedTuple):
    """Where a path leads to."""

    tag: Tag
    code: int
    offset: int
    left: int  # elements from here on


def _size(code: int) -> int:
    return TEMPLATES[code & 0xFFF].size if code & 0x8000 else _SIZES[code]


PORTS = {b"\x01\x00": 0, b"\x01\x01": 1}
"""Routes by which the controllers of a rack are reached, and their slots."""


class Rack:
    """A controller, at a port of loopback; `neighbour`: the one in slot 1 behind the same address. `asked`: (service,
    path) of what has reached it, in order; `large`: the longest connection that it opens; `opened`: sizes of those
    that it has, `connected`: how many requests came in one."""

    def __init__(self, *, alone: bool = True) -> None:
        self.large = 4002
        self.opened: list[int] = []
        self.connected = 0
        self.neighbour: Rack | None = Rack(alone=False) if alone else None
        self._links: dict[int, tuple[int, int, Rack]] = {}
        self.tags = [
            Tag("Pump", DINT), Tag("Counts", DINT, 600), Tag("Recipe", 0x8000 | STRING_ID), Tag("Secret", DINT),
            Tag("Motor1", 0x8000 | MOTOR_ID), Tag("Motors", 0x8000 | MOTOR_ID, 3), Tag("Bits", 0xD3, 2),
            Tag("Program:Main", DINT), Tag("Wide", 0x8000 | WIDE_ID),
        ]  # fmt: skip
        self.local = [Tag("Level", REAL), Tag("Step", DINT)]
        self.numbers: dict[int, Tag] = {}
        self.download(1)
        self.asked: list[tuple[int, bytes]] = []
        self.written: list[str] = []
        if not alone:
            return
        self.port = held_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def download(self, first: int) -> None:
        """The tags get other numbers, the last one the lowest."""
        tags = self.tags if first == 1 else self.tags[::-1]
        self.numbers = dict(enumerate(tags, first))

    def tag(self, name: str) -> Tag:
        return next(tag for tag in [*self.tags, *self.local] if tag.name == name)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    # --- encapsulation

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError), peer:
            while piece := peer.recv(65536):
                data += piece
                while len(data) >= 24 and len(data) >= (end := 24 + int.from_bytes(data[2:4], "little")):
                    frame, data = data[:end], data[end:]
                    if frame[0] == 0x65:
                        peer.sendall(frame[:4] + b"\7\0\0\0" + frame[8:])
                    elif frame[0] == 0x70:
                        peer.sendall(self._within(frame))
                    elif frame[0] == 0x6F:
                        cip = self.answer(frame[40:])
                        body = bytes(6) + b"\2\0\0\0\0\0\xb2\0" + len(cip).to_bytes(2, "little") + cip
                        peer.sendall(b"\x6f\0" + len(body).to_bytes(2, "little") + frame[4:24] + body)

    def _within(self, frame: bytes) -> bytes:
        """A request in a connection of class 3."""
        number, sequence = int.from_bytes(frame[36:40], "little"), frame[44:46]
        if number not in self._links:
            return b"\x70\0\0\0" + frame[4:8] + b"\3\0\0\0" + frame[12:24]
        theirs, size, slot = self._links[number]
        self.connected += 1
        assert len(frame) - 44 <= size, "more than the connection holds"
        cip = sequence + slot.answer(frame[46:], size)
        body = bytes(6) + struct.pack("<HHHIHH", 2, 0xA1, 4, theirs, 0xB1, len(cip)) + cip
        return b"\x70\0" + len(body).to_bytes(2, "little") + frame[4:24] + body

    def forget(self) -> None:
        """Its connections of class 3 are over, as after their time-out."""
        self._links.clear()

    # --- CIP

    def _slot(self, route: bytes) -> Rack:
        slot = PORTS.get(route)
        if slot is None or self.neighbour is None:
            raise Wrong(0x01, 0x0311)
        return self.neighbour if slot else self

    def _open(self, service: int, body: bytes) -> tuple[int, bytes]:
        head = struct.unpack_from("<BBIIHHIB3x", body)
        large = service == 0x5B
        _, flags, _, _, transport, words = struct.unpack_from("<IIIIBB" if large else "<IHIHBB", body, 22)
        size = flags & (0xFFFF if large else 0x1FF)
        path = body[-2 * words :]
        if large and size > self.large:
            raise Wrong(0x08)
        assert transport == 0xA3 and path.endswith(b"\x20\x02\x24\x01"), "class 3, to the message router"
        slot = self._slot(path[:2]) if len(path) > 4 else self
        number = 0x7000_0000 + len(self.opened)
        self._links[number] = (head[3], size, slot)
        self.opened.append(size)
        return 0, struct.pack("<IIHHIIIBx", number, head[3], head[4], head[5], head[6], 2_000_000, 2_000_000, 0)

    def answer(self, request: bytes, room: int = 504) -> bytes:
        """One request, in whatever it is wrapped. `room`: how long the answer may be."""
        self._room = room
        service, end = request[0], 2 + 2 * request[1]
        path, body = request[2:end], request[end:]
        try:
            if path == b"\x20\x06\x24\x01" and service == 0x52:
                size = int.from_bytes(body[2:4], "little")
                assert len(request) <= 504, "more than goes outside a connection"
                return self._slot(body[-2:]).answer(body[4 : 4 + size])
            if path == b"\x20\x06\x24\x01" and service in (0x54, 0x5B):
                self.asked.append((service, path))
                return bytes([service | 0x80, 0, 0, 0]) + self._open(service, body)[1]
            if path == b"\x20\x02\x24\x01" and service == 0x0A:
                return self._packet(body)
            self.asked.append((service, path))
            status, found = self._do(service, path, body)
        except Wrong as wrong:
            more = wrong.more.to_bytes(2, "little") if wrong.more else b""
            return bytes([service | 0x80, 0, wrong.status, len(more) // 2]) + more
        return bytes([service | 0x80, 0, status, 0]) + found

    def _packet(self, body: bytes) -> bytes:
        count = int.from_bytes(body[:2], "little")
        places = [*struct.unpack_from(f"<{count}H", body, 2), len(body)]
        answers = [self.answer(body[a:b], self._room) for a, b in itertools.pairwise(places)]
        head, at = [count], 2 + 2 * count
        for one in answers:
            head.append(at)
            at += len(one)
        failed = any(one[2] for one in answers)
        return bytes([0x8A, 0, 0x1E if failed else 0, 0]) + struct.pack(f"<{len(head)}H", *head) + b"".join(answers)

    def _do(self, service: int, path: bytes, body: bytes) -> tuple[int, bytes]:
        if path[:2] == b"\x20\x01" and service == 1:
            return 0, struct.pack("<HHHBBHI", 1, 14, 55, 32, 11, 0, 0xC0FFEE) + b"\x04Rack"
        if path[:2] == b"\x20\x6c":
            return self._template(service, int.from_bytes(path[-2:], "little"), body)
        if service == 0x55:
            return self._list(path)
        place = self._place(path)
        if service in (0x4C, 0x52):
            return self._read(place, body, service == 0x52)
        if service in (0x4D, 0x53):
            return self._write(place, body, service == 0x53)
        if service == 0x4E:
            return self._modify(place, body)
        raise Wrong(0x08)

    def _segments(self, path: bytes) -> Iterator[tuple[str, str | int]]:
        at = 0
        while at < len(path):
            kind = path[at]
            if kind == 0x91:
                size = path[at + 1]
                yield "name", path[at + 2 : at + 2 + size].decode("ascii").lower()
                at += 2 + size + (size & 1)
                continue
            width = {0: 1, 1: 2, 2: 4}[kind & 3]
            start = at + (1 if width == 1 else 2)
            what = {0x20: "class", 0x24: "instance", 0x28: "element"}[kind & 0xFC]
            yield what, int.from_bytes(path[start : start + width], "little")
            at = start + width

    def _place(self, path: bytes) -> Place:
        place: Place | None = None
        within = self.tags
        indexed = False
        for what, value in self._segments(path):
            if what == "class":
                continue
            if what == "instance":
                found = self.numbers.get(int(value))
                if found is None:
                    raise Wrong(0x05)
                place = Place(found, found.code, 0, found.count)
            elif what == "name" and place is None:
                if value == "program:main":
                    within = self.local
                    continue
                tags = [tag for tag in within if tag.name.lower() == value]
                if not tags:
                    raise Wrong(0x05)
                place = Place(tags[0], tags[0].code, 0, tags[0].count)
            elif what == "name" and place is not None:
                if not place.code & 0x8000:
                    raise Wrong(0x05)
                members = [one for one in TEMPLATES[place.code & 0xFFF].members if one.name.lower() == value]
                if not members:
                    raise Wrong(0x05)
                place = Place(place.tag, members[0].code, place.offset + members[0].offset, members[0].elements)
                indexed = False
            elif place is not None:
                if indexed or int(value) >= place.left or place.left == 1:
                    raise Wrong(0xFF, 0x2105)
                offset = place.offset + int(value) * _size(place.code)
                place, indexed = Place(place.tag, place.code, offset, place.left - int(value)), True
        if place is None:
            raise Wrong(0x04)
        return place

    def _read(self, place: Place, body: bytes, piece: bool) -> tuple[int, bytes]:
        count = int.from_bytes(body[:2], "little")
        start = int.from_bytes(body[2:6], "little") if piece else 0
        size = _size(place.code) * count
        if count > place.left or start >= size:
            raise Wrong(0xFF, 0x2105)
        data = bytes(place.tag.data[place.offset + start : place.offset + size])
        head = place.code.to_bytes(2, "little")
        if place.code & 0x8000:
            head = b"\xa0\2" + TEMPLATES[place.code & 0xFFF].handle.to_bytes(2, "little")
        most = self._room - 24
        return (6, head + data[:most]) if len(data) > most else (0, head + data)

    def _write(self, place: Place, body: bytes, piece: bool) -> tuple[int, bytes]:
        code, at = int.from_bytes(body[:2], "little"), 2
        if place.code & 0x8000:
            if code != 0x02A0 or int.from_bytes(body[2:4], "little") != TEMPLATES[place.code & 0xFFF].handle:
                raise Wrong(0xFF, 0x2107)
            at = 4
        elif code != place.code:
            raise Wrong(0xFF, 0x2107)
        count, at = int.from_bytes(body[at : at + 2], "little"), at + 2
        start, at = (int.from_bytes(body[at : at + 4], "little"), at + 4) if piece else (0, at)
        data = body[at:]
        size = _size(place.code) * count
        if count > place.left or start + len(data) > size or (not piece and len(data) != size):
            raise Wrong(0xFF, 0x2105)
        place.tag.data[place.offset + start : place.offset + start + len(data)] = data
        self.written.append(place.tag.name)
        return 0, b""

    def _modify(self, place: Place, body: bytes) -> tuple[int, bytes]:
        size = int.from_bytes(body[:2], "little")
        if size != _size(place.code) or len(body) != 2 + 2 * size:
            raise Wrong(0x03)
        old = int.from_bytes(place.tag.data[place.offset : place.offset + size], "little")
        set_, keep = (int.from_bytes(body[2 + size * n : 2 + size * (n + 1)], "little") for n in (0, 1))
        place.tag.data[place.offset : place.offset + size] = ((old | set_) & keep).to_bytes(size, "little")
        self.written.append(place.tag.name)
        return 0, b""

    def _list(self, path: bytes) -> tuple[int, bytes]:
        segments = list(self._segments(path))
        program = segments[0] == ("name", "program:main")
        if segments[0][0] == "name" and not program:
            raise Wrong(0x05)
        start = int(segments[-1][1])
        body = b""
        for number, tag in (dict(enumerate(self.local, 1)) if program else self.numbers).items():
            if number < start:
                continue
            dims = (tag.count if tag.count > 1 else 0, 0, 0)
            code = 0x1068 if tag.name.startswith("Program:") else tag.code | (0x2000 if dims[0] else 0)
            entry = struct.pack("<IH", number, len(tag.name)) + tag.name.encode() + struct.pack("<H3I", code, *dims)
            if len(body) + len(entry) > 120:  # several pages, though there are few
                return 6, body
            body += entry
        return 0, body

    def _template(self, service: int, number: int, body: bytes) -> tuple[int, bytes]:
        template = TEMPLATES.get(number if number in TEMPLATES else number >> 8)
        if template is None:
            raise Wrong(0x05)
        members = template.members
        parts: list[bytes] = []
        for one in members:
            many = one.elements > 1
            info, code = (one.elements, one.code | 0x2000) if many else (0, one.code)
            parts.append(struct.pack("<HHI", info, code, one.offset))
        names = [f"{template.name};n" + "EA" * len(members), *(one.name for one in members)]
        data = b"".join(parts) + b"".join(name.encode() + b"\0" for name in names)
        data += bytes(-len(data) % 4)
        if service == 3:
            words = (len(data) + 23 + 3) // 4
            return 0, struct.pack("<HHHIHHIHHHHHH", 4, 4, 0, words, 5, 0, template.size, 2, 0, len(members), 1, 0,
                                  template.handle)  # fmt: skip
        start, size = struct.unpack("<IH", body)
        return 0, data[start : start + size]
