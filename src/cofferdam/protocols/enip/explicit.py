"""The connection of class 3 by which requests go to an asset whose policy says `explicit: connected`.

Theory. It is opened by the first request that goes, as the first steps of its conversation: a Large Forward Open to the
message router, and a plain one where the device has none, which is remembered. From then on each request is a
SendUnitData with the device's id and a sequence number that is counted on; an answer names our id and repeats the
number. The device forgets a connection on which nothing is asked for `TIMEOUT_NS`: one that has been silent for most
of that is opened anew, and so is one on which an answer did not come. Nothing that was asked in the old one is asked
again.

One request is under way at a time, as the standard has it for class 3 (policy holds `outstanding` to 1).

Not here: conversations and frames (client), connections that clients open (connections).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from typing import Final

from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, replies, requests, wire
from cofferdam.protocols.enip.connections import LARGE, PLAIN
from cofferdam.protocols.enip.forward import closing
from cofferdam.protocols.enip.replies import Misfit

RPI_US: Final = 2_000_000
MULTIPLIER: Final = 4
TIMEOUT_NS: Final = RPI_US * 1000 * (4 << MULTIPLIER)
"""128 s."""
LAPSE_NS: Final = TIMEOUT_NS * 3 // 4
"""A connection that nobody has used for so long is not relied upon."""
SENT: Final = 16
"""Requests whose answers may still come, of those that were given up."""
SERVER_CLASS_3: Final = 0xA3
"""Transport: class 3, triggered by the application, and the device is its server."""

Answer = tuple[int, tuple[int, ...], bytes]
Opened = Generator[tuple[int, bytes], Answer, m.CipError | None]


class Explicit:
    """The connection, open or not. `up`: it is; `room`: bytes of a request in it."""

    def __init__(self, route: bytes, vendor: int, random: Callable[[int], bytes]) -> None:
        self.up = False
        self.room = 0
        self._path = route + paths.of_object(paths.ROUTER, 1)
        self._vendor = vendor
        self._random = random
        self._plain = False
        self._serial = 0
        self._to_device = self._to_us = 0
        self._sequence = 0
        self._sent: dict[int, tuple[int, int]] = {}
        self._name: tuple[int, int, int] | None = None  # of what the device may have open
        self._used = 0
        self.deadline = 0
        """When to look whether it has been silent (monotonic ns); 0 for never. Not moved by each answer."""

    def on_time(self, now: int) -> bytes:
        """Lets it go once nobody has used it for long: see `drop`."""
        if self.deadline and now >= self.deadline:
            self.deadline = self._used + LAPSE_NS
            if now >= self.deadline:
                return self.drop()
        return b""

    def drop(self) -> bytes:
        """It is not relied upon any more: the next request opens another. The request that closes it, since a device
        has few and would keep it for `TIMEOUT_NS`; b"" where none is open."""
        self.up = False
        self.deadline = 0
        self._sent.clear()
        name, self._name = self._name, None
        return b"" if name is None else closing(name, self._path)

    def opening(self, now: Callable[[], int]) -> Opened:
        """Opens it; what the device says if it does not. Raises: Misfit."""
        status = 0
        more: tuple[int, ...] = ()
        for large in (False,) if self._plain else (True, False):
            self._serial = (self._serial + 1) & 0xFFFF
            ours = int.from_bytes(self._random(4), "little") | 1 << 31
            name = (self._serial, self._vendor, int.from_bytes(self._random(4), "little"))
            size = LARGE if large else PLAIN
            # Point to point, of variable size, low priority.
            flags = 0x4200 << 16 | size if large else 0x4200 | size
            head = struct.pack("<BBIIHHIB3x", 0x0A, 0x0E, 0, ours, *name, MULTIPLIER)
            form = "<IIIIBB" if large else "<IHIHBB"
            body = head + struct.pack(form, RPI_US, flags, RPI_US, flags, SERVER_CLASS_3, len(self._path) // 2)
            service = requests.LARGE_OPEN if large else requests.OPEN
            where = paths.of_object(paths.MANAGER, 1)
            self._name = name
            status, more, data = yield service, requests.made(service, where, body + self._path)
            if not status:
                if len(data) < 26:
                    raise Misfit("an opening's answer that ends too early")
                to_device, to_us, *said = struct.unpack_from("<IIHHI", data)
                if to_us != ours or tuple(said) != name:
                    raise Misfit("an opening's answer to another connection")
                self._to_device, self._to_us = to_device, ours
                self.up, self.room, self._used = True, size - 2, now()
                self.deadline = self._used + LAPSE_NS
                return None
            self._plain, self._name = True, None
        return replies.error(status, more)

    def framed(self, session: int, context: bytes, token: int, step: int, request: bytes) -> bytes:
        """The frame of a request in it."""
        self._sequence = self._sequence % 0xFFFF + 1
        self._sent[self._sequence] = (token, step)
        while len(self._sent) > SENT:
            del self._sent[next(iter(self._sent))]
        return wire.frame(wire.SEND_UNIT, session, context, wire.connected(self._to_device, self._sequence, request))

    def taken(self, data: bytes, now: int) -> tuple[int, int, bytes]:
        """(token, step, CIP) of what a SendUnitData of the device carries. Raises: BadPacket for what belongs to
        nothing."""
        found = wire.connected_of(data)
        if found is not None and found[0] == self._to_us and found[1] in self._sent:
            self._used = now
            return (*self._sent.pop(found[1]), found[2])
        items = wire.items_of(data)
        if [kind for kind, _ in items] != [wire.CONNECTED_ADDRESS, wire.CONNECTED] or len(items[1][1]) < 2:
            raise wire.BadPacket("no connection's address and connected data")
        number = int.from_bytes(items[0][1], "little")
        place = self._sent.pop(int.from_bytes(items[1][1][:2], "little"), None)
        if len(items[0][1]) != 4 or number != self._to_us or place is None:
            raise wire.BadPacket("another connection, or a sequence number of nothing")
        self._used = now
        return (*place, items[1][1][2:])
