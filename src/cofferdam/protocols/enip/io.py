"""I/O connections (class 0 and 1): one packet in, one packet out, by ids and sequence numbers of our own on each side.

Nobody produces on a timer here: a packet that does not come is not replaced, so that the watchdog at the other end runs
out as if there were nothing in between (CIP Volume 1, 3-4; Volume 2, 3-2).

A stream's form says its assemblies: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151". Outputs are what the
device is told (O→T), inputs what it says (T→O). Outputs begin with four bytes of run or idle, unless the form ends with
"no run".

Not here: opening and closing (connections, client), who may (policy).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Hashable
from typing import Final, NamedTuple

from cofferdam.model import Asset, Assign, Item, Point
from cofferdam.protocols.base import FrameReceived, KeptBack
from cofferdam.protocols.enip import wire
from cofferdam.protocols.enip.dialect import learned_form
from cofferdam.protocols.enip.messages import LONGEST, IoData
from cofferdam.protocols.enip.values import OF_TYPE, BadValue, decode, size_of
from cofferdam.values import Bool, Value, ValueType

PORT: Final = 2222
FORM: Final = (
    r"outputs ([0-9]{1,5}) of ([0-9]{1,4}) bytes, inputs ([0-9]{1,5}) of ([0-9]{1,4}) bytes"
    r"(?:, config ([0-9]{1,5}))?(, no run)?"
)
FIRST_NS: Final = 10_000_000_000
"""The first packet of a connection may take so long, or as long as its time-out."""
AGAIN_NS: Final = 10_000_000
"""A side that is found silent is looked at again after one of its intervals, or after so long if that is less, and is
silent if nothing has come meanwhile: who was held up until now may not have yet what was sent to him (ADR 89)."""
AHEAD: Final = 1 << 31
LED: Final = 3
"""So many packets of one connection without one of that which leads: it leads no longer."""


class IoForm(NamedTuple):
    """A stream's assemblies; sizes in bytes of data. `config`: -1 where the device has none. `data`: of the
    configuration that an opening may bring, as it stands in one: whole words."""

    outputs: int
    out_size: int
    inputs: int
    in_size: int
    config: int
    run: bool
    data: bytes = b""

    def size_out(self, cls: int) -> int:
        """What a Forward Open says of the outputs."""
        return self.out_size + (2 if cls else 0) + (4 if self.run else 0)

    def size_in(self, cls: int) -> int:
        """What it says of the inputs."""
        return self.in_size + (2 if cls else 0)


def form_of(text: str, config: str = "") -> IoForm | None:
    """A form as the policy writes it; `config`: the configuration's bytes, in hexadecimal."""
    found = re.fullmatch(FORM, text)
    if not found or max(int(found[2]), int(found[4])) > LONGEST:
        return None
    numbers = [int(found[place] or -1) for place in range(1, 6)]
    data = bytes.fromhex(config)
    return IoForm(
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], not found[6], data + b"\0" * (len(data) & 1)
    )


def forms_of(asset: Asset | None) -> dict[str, IoForm]:
    """The forms of an asset's streams, by the name of their item."""
    if asset is None:
        return {}
    found = {stream.at.name: form_of(stream.form, stream.config) for stream in asset.streams}
    return {name: form for name, form in found.items() if form is not None}


def form_for(item: Item, asset: Asset | None) -> IoForm | None:
    """The form of a stream: as the policy says it, or as its learned name does."""
    found = forms_of(asset).get(item.name)
    return found or form_of(learned_form(item))


class IoLink:
    """One end of one open connection: what it takes and makes. `standing`: the token of the request that opened it;
    `producer`: who sends for it, where it is one of several that hear a group.

    Packets are taken three for two intervals, and four at once after a pause. The last of these places is for the
    newest of what waits then (`newest`): that a drive is to stop must not be dropped for what was sent before."""

    __slots__ = (
        "_at", "_count_in", "_count_out", "_kept", "_last", "_lost", "_multiplier", "_room", "_rpi_ns", "_sequence",
        "cls", "due", "found_silent", "header_in", "header_out", "name", "path", "port", "producer", "receive_id",
        "receive_size", "send_id", "send_size", "standing", "timeout_ns", )  # fmt: skip

    def __init__(
        self, standing: int, cls: int, send_id: int, receive_id: int, rpi_us: int, multiplier: int, now: int
    ) -> None:
        """`rpi_us`: the interval of what is received."""
        self.standing = standing
        self.cls = cls
        self._multiplier = multiplier
        self.receive_id = receive_id
        self.send_size = self.receive_size = 0
        self.header_in = self.header_out = False
        self.name: tuple[int, int, int] = (0, 0, 0)
        self.path = b""  # of its assemblies, where we opened it
        self.port = PORT
        self.producer: Producer | None = None
        self._last = -1
        self._lost = 0
        self._count_in = -1
        self._count_out = 0
        self._sequence = 0
        self._room = 4.0
        self._kept: bytes | None = None
        self.opened(send_id, rpi_us, now)

    def opened(self, send_id: int, rpi_us: int, now: int) -> None:
        """The other end has agreed to it: under this id, at this interval of what is received."""
        self.send_id = send_id
        self._rpi_ns = rpi_us * 1000
        self.timeout_ns = self._rpi_ns * (4 << self._multiplier)
        self.due = now + max(FIRST_NS, self.timeout_ns)
        self.found_silent = False
        self._at = now

    def take(self, sequence: int, data: bytes, now: int) -> tuple[IoData, int] | KeptBack | None:
        """A packet with this connection's id, and how many before it have not come; None if it is old, repeated, of
        another size or too early, or is kept back in the place of another."""
        skip = (2 if self.cls else 0) + (4 if self.header_in else 0)
        if len(data) != skip + self.receive_size:
            return None
        if self._last >= 0:
            ahead = (sequence - self._last) & 0xFFFF_FFFF
            if not 1 <= ahead < AHEAD:
                return None
            # A client's numbers may jump as they like: what is told of it has a bound (brokers.proxy.records.Lost).
            self._lost = min(AHEAD - 1, self._lost + ahead - 1)
        self._last = sequence
        self._room = min(4.0, self._room + 1.5 * (now - self._at) / self._rpi_ns)
        self._at = now
        if self._room < 2.0:
            if self._room < 1.0:
                return None
            first = self._kept is None
            self._kept = data
            return KeptBack(self.standing) if first else None
        return self._taken(data, now)

    def newest(self, now: int) -> tuple[IoData, int] | None:
        """The packet that is kept back, now that all was read."""
        return None if self._kept is None else self._taken(self._kept, now)

    def _taken(self, data: bytes, now: int) -> tuple[IoData, int]:
        self._kept = None
        self._room -= 1.0
        lost, self._lost = self._lost, 0
        self.due = now + self.timeout_ns
        self.found_silent = False
        count = int.from_bytes(data[:2], "little") if self.cls else (self._count_in + 1) & 0xFFFF
        moved, self._count_in = count != self._count_in, count
        skip = len(data) - self.receive_size
        run = bool(data[skip - 4] & 1) if self.header_in else True
        return IoData(moved, run, data[skip:]), lost

    def silent(self, now: int) -> bool:
        """Whether nothing has come in time, found for the second time."""
        if now < self.due:
            return False
        if self.found_silent:
            return True
        self.found_silent = True
        self.due = now + min(self._rpi_ns, AGAIN_NS)
        return False

    def make(self, message: IoData) -> bytes:
        """A packet of our own. Raises: ValueError for data of another size."""
        if len(message.data) != self.send_size:
            raise ValueError(f"{len(message.data)} bytes, the connection has {self.send_size}")
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
        if message.moved:
            self._count_out = (self._count_out + 1) & 0xFFFF
        body = self._count_out.to_bytes(2, "little") if self.cls else b""
        if self.header_out:
            body += b"\1\0\0\0" if message.run else b"\0\0\0\0"
        address = struct.pack("<II", self.send_id, self._sequence)
        return wire.listed(((wire.SEQUENCED_ADDRESS, address), (wire.CONNECTED, body + message.data)))


class Producer:
    """Who sends a stream's inputs to a group, once for all clients that hear it there: by one id and one sequence, from
    packets of the connection that *leads*. Each client's connection is its own at the device, and brings the same.

    Another leads when the one that did is closed, or when `LED` of the other's packets have come and none of its: less
    than the four intervals after which the clients take it for silent.
    """

    def __init__(self, group: str, link: IoLink) -> None:
        self.group = group
        self.out = link
        """What makes the packets, and is no connection."""
        self.links: list[IoLink] = []
        self._waited: dict[int, int] = {}
        self._new = False

    def join(self, link: IoLink) -> None:
        """A further client hears it."""
        link.producer = self
        self.links.append(link)

    def leave(self, link: IoLink) -> None:
        """One hears it no longer."""
        self._new = self._new or self.links[0] is link
        self.links.remove(link)
        self._waited.clear()

    def made(self, link: IoLink, message: IoData) -> bytes | None:
        """The packet for the group that comes of one connection's; None where another leads. Raises: ValueError."""
        if link is not self.links[0]:
            waited = self._waited[id(link)] = self._waited.get(id(link), 0) + 1
            if waited < LED:
                return None
            self.links.remove(link)
            self.links.insert(0, link)
            self._new = True
        self._waited.clear()
        # What another has sent last is not known to be the same.
        moved, self._new = message.moved or self._new, False
        return self.out.make(IoData(moved, message.run, message.data))


class Producers:
    """Those of all clients of one half, by what they send: streams of assets, from an address of ours, in a class and
    at an interval."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Producer] = {}

    def joined(self, key: Hashable, group: str, link: IoLink) -> Producer:
        """A connection hears the producer of this key from now on; made of it if there is none."""
        self._by_key = {other: one for other, one in self._by_key.items() if one.links}
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Producer(group, link)
        return found


class IoLinks:
    """The open I/O connections of one machine."""

    def __init__(self) -> None:
        self.by_id: dict[int, IoLink] = {}
        self.by_standing: dict[int, IoLink] = {}
        self.output: list[tuple[int, bytes, str]] = []
        self.dropped = 0
        self._check = 0

    def add(self, link: IoLink) -> None:
        """It is open from now on."""
        self._check = min(self._check, link.due) if self.by_id else link.due
        self.by_id[link.receive_id] = link
        self.by_standing[link.standing] = link

    def remove(self, standing: int) -> IoLink | None:
        """It is open no longer."""
        link = self.by_standing.pop(standing, None)
        if link is not None:
            self.by_id.pop(link.receive_id, None)
            if link.producer is not None:
                link.producer.leave(link)
        return link

    def clear(self) -> None:
        """None is open any more."""
        for standing in list(self.by_standing):
            self.remove(standing)

    def send(self, standing: int, message: IoData) -> None:
        """Makes a packet. Raises: KeyError, ValueError."""
        link = self.by_standing[standing]
        producer = link.producer
        if producer is None:
            self.output.append((link.port, link.make(message), ""))
        elif (data := producer.made(link, message)) is not None:
            self.output.append((PORT, data, producer.group))

    def take(self, data: bytes, now: int) -> FrameReceived | KeptBack | None:
        """The packet in a datagram; None for one that belongs to nothing, or for which one is dropped."""
        if int.from_bytes(data[6:10], "little") not in self.by_id:  # nobody's, as all of a flood are
            self.dropped += 1
            return None
        try:
            items = wire.items_at(data, 0)
        except wire.BadPacket:
            items = []
        if [kind for kind, _ in items] != [wire.SEQUENCED_ADDRESS, wire.CONNECTED] or len(items[0][1]) != 8:
            self.dropped += 1
            return None
        number, sequence = struct.unpack("<II", items[0][1])
        link = self.by_id.get(number)
        found = None if link is None else link.take(sequence, items[1][1], now)
        if link is None or found is None:
            self.dropped += 1
            return None
        return found if isinstance(found, KeptBack) else self._frame(link, *found)

    def newest(self, standing: int, now: int) -> FrameReceived | None:
        """The packet of a connection that is kept back, now that all was read."""
        link = self.by_standing.get(standing)
        found = None if link is None else link.newest(now)
        return None if link is None or found is None else self._frame(link, *found)

    def _frame(self, link: IoLink, packet: IoData, lost: int) -> FrameReceived:
        if link.due < self._check:  # its first: until it had come, it was given longer
            self._check = link.due
        return FrameReceived(link.standing, packet, lost)

    @property
    def deadline(self) -> int:
        """When to look for silent ones; 0 for never."""
        return self._check if self.by_id else 0

    def silent(self, now: int) -> list[IoLink]:
        """Those from which nothing came in time: they are open no longer."""
        if not self.by_id or now < self._check:
            return []
        gone = [link for link in self.by_id.values() if link.silent(now)]
        for link in gone:
            self.remove(link.standing)
        self._check = min((link.due for link in self.by_id.values()), default=0)
        return gone


def assigned(name: str, asset: Asset, data: bytes) -> tuple[Assign, ...]:
    """What a packet's data give to the points in a stream's outputs. One that does not lie in them has no value."""
    found: list[Assign] = []
    for point in asset.points:
        if not isinstance(point.at, Item) or point.at.kind != "io":
            continue
        stream, _, place = point.at.name.partition(".")
        if stream == name and place:
            found.append(Assign(point.at, _value(point, place, data)))
    return tuple(found)


def _value(point: Point, place: str, data: bytes) -> Value | None:
    offset, _, bit = place.partition(".")
    start = int(offset)
    if bit:
        return Bool((bool(data[start] >> int(bit) & 1),)) if start < len(data) and int(bit) < 8 else None
    code = OF_TYPE.get(point.type, 0)
    if point.type in (ValueType.TEXT, ValueType.BYTES, ValueType.BOOL):
        return None
    try:
        return decode(code, 0, data[start : start + size_of(code, 0) * point.elements], point.elements > 1)
    except BadValue:
        return None
