"""The receiver: reads packets in large batches from sockets that it cannot write to, one for each link, and hands what
was sealed to the keeper. Of what comes over several links it takes what comes first.

A packet proves nothing until the seal of its block holds; a false one costs its bytes for a while, within bounds. What
a block holds is decoded strictly, and believed as far as its sender's signature goes.

The sockets were bound by the launcher; writing to their numbers is refused by this part's filter. Not here: numbers
and gaps (keeper).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import secrets as random_numbers
import socket
import struct
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Final

from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.diode import records
from cofferdam.brokers.diode.figures import RECEIVER, Speed
from cofferdam.brokers.diode.inbox import Counts, Early, Inbox
from cofferdam.brokers.diode.pairing import ReceiverKeys, load, sealer_public, words
from cofferdam.brokers.diode.sealing import believe, named
from cofferdam.brokers.diode.sender import row_of
from cofferdam.brokers.diode.wire import HELLO, PROMPT, Packet, unpack
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.memory import keep_freed
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.crossing.reactor import READ
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.policy.table import CompiledPolicy

SLOTS: Final = 512
"""Packets in one call."""
CALLS: Final = 8
"""Calls in one turn of the loop."""
RECORDS: Final = 8
"""Of a bulk block, handed on in one turn of the loop."""
BEHIND_BYTES: Final = 24 << 20
"""More than woven blocks that are opened and as many that come."""
BEHIND_BLOCKS: Final = 16
"""More than are woven. Small blocks (`block: 100`) reach their bound in number and not in bytes."""
BEHIND_STEPS: Final = 32
PACKET_BYTES: Final = {False: 2048, True: 9216}
"""Room for one packet; with jumbo frames."""
OVERRUN_BYTES: Final = 64 << 20
"""What may wait for the keeper. Beyond it records are dropped, and so named as missing."""
HELLOS_A_SECOND: Final = 500
"""Announcements that are looked at as they come: a signature costs a tenth of a millisecond."""
HELLOS_KEPT: Final = 50
"""Of those beyond it so many are looked at later, by chance: whoever sends many does not choose which."""
TWICE_SECONDS: Final = 3
"""An older epoch that is announced so long is more than what was under way when a new one began."""
SILENT_NS: Final = 5_000_000_000
"""A link by which nothing comes for so long, while something comes by another, is silent."""
KEPT_BYTES: Final = 32 << 20
"""Memory that is free and stays."""
_MSG_DONTWAIT: Final = 0x40
_CONTROL: Final = 64


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """struct mmsghdr: 64 bytes, with 4 of padding at its end. One of 56 would be read past."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int),
        ("length", ctypes.c_uint32), ("padding", ctypes.c_uint32),
    ]  # fmt: skip


class Batches:
    """recvmmsg(2) into room that is made once."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._data = (ctypes.c_char * (SLOTS * size))()
        self._view = memoryview(self._data).cast("B")
        self._control = (ctypes.c_char * _CONTROL)()
        self._iovecs = (_Iovec * SLOTS)()
        self._messages = (_Message * SLOTS)()
        at = ctypes.addressof(self._data)
        for slot in range(SLOTS):
            self._iovecs[slot].base, self._iovecs[slot].length = at + slot * size, size
            self._messages[slot].iov = ctypes.addressof(self._iovecs[slot])
            self._messages[slot].iovlen = 1
        self._lengths = memoryview(self._messages).cast("B").cast("I")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.drops = 0
        """What the kernel has dropped at this socket so far (SO_RXQ_OVFL)."""

    def take(self) -> list[bytes]:
        """Packets that are there now. Raises: OSError."""
        first = self._messages[0]
        first.control, first.controllen = ctypes.addressof(self._control), _CONTROL
        count = self._libc.recvmmsg(self._fd, self._messages, SLOTS, _MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
                return []
            raise OSError(number, os.strerror(number))
        if first.controllen >= 20:
            length, level, kind, drops = struct.unpack_from("@QiiI", self._control)
            if length >= 20 and level == socket.SOL_SOCKET and kind == 40:
                self.drops = drops
        view, size, lengths = self._view, self._size, self._lengths
        return [bytes(view[slot * size : slot * size + lengths[slot * 16 + 14]]) for slot in range(count)]


class _Link:
    """One link of the strand. `name`: its zone here, "" for the first; `heard`: when a packet came last."""

    def __init__(self, name: str, batches: Batches) -> None:
        self.name, self.batches = name, batches
        self.heard = time.monotonic_ns()


class Receiver(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._strand, self._row = row_of(setting.policy)
        self._own: dict[bytes, bytes] = {}
        self._senders: dict[bytes, int] = {}
        self._keeper = setting.senders["keeper"]
        self._codec: RecordCodec[records.OnStrand] = RecordCodec(records.OnStrand)
        self._figures = Figures(RECEIVER)
        self._bytes, self._speed = 0, Speed()
        self._links: dict[socket.socket, _Link] = {}
        self._inbox: Inbox | None = None
        self._early = Early()
        self._heard: bytes = b""
        self._key = b""
        self._above = -1
        self._hellos = HELLOS_A_SECOND
        self._kept: list[bytes] = []
        self._beyond = 0
        self._by: set[bytes] = set()
        """The keys by which the present epoch was announced."""
        self._withdrawn = False
        self._severed = False
        self._bad = ""
        self._older = 0
        """Announcements of older epochs since the last look, by a sender that is known."""
        self._twice = 0
        self._earlier = Counts()
        self._before = (0, 0, 0, 0)
        self._ticks = 0
        self._strange = 0
        self._working = False
        self._opened: deque[records.OnStrand] = deque()
        """What was in bulk blocks and is not handed on yet."""
        keep_freed(KEPT_BYTES)
        self.take_secrets(setting.secrets)
        self.set_severed(setting.severed)

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        keys = load(ReceiverKeys, secrets)
        if keys is None:
            return
        wall = self._setting.wall()
        own = [keys.seal, *(one.key for one in keys.former if one.until > wall)]
        self._own = {named(bytes.fromhex(sealer_public(one))): bytes.fromhex(one) for one in own}
        self._senders = {bytes.fromhex(one.key): one.until for one in keys.senders}
        self._still_paired()

    def _still_paired(self) -> None:
        """An epoch is believed as long as one of the keys that announced it."""
        wall = self._setting.wall()
        if self._inbox is None or any(self._senders.get(key, 0) > wall for key in self._by):
            return
        self._add_up(self._inbox.counts)
        self._opened.clear()
        self._above = self._inbox.epoch - 1  # the same one may be believed again, if it is taken in again
        self._inbox, self._heard, self._key = None, b"", b""
        self._withdrawn = True

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """Nothing is taken or handed on. What has come by then goes on afterwards."""
        self._severed = bool(sides)
        self._work_soon()

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:
        batches = Batches(sock.fileno(), PACKET_BYTES[self._row.jumbo])
        link = self._links[sock] = _Link(self._row.link(listener.address), batches)
        self._setting.reactor.add(sock.fileno(), READ, functools.partial(self._readable, link))

    def end_datagrams(self, sock: socket.socket) -> None:
        self._setting.reactor.remove(sock.fileno())
        self._links.pop(sock, None)

    def on_record(self, source: str, record: Any) -> None:
        if self._above >= 0:
            raise CrossingError("a second Start")
        self._above = record.above

    # --- in ---------------------------------------------------------------------------------------------------------

    def _readable(self, link: _Link, _events: int) -> None:
        for _ in range(1 if self._working else CALLS):
            packets = link.batches.take()
            if packets:
                link.heard = time.monotonic_ns()
                self._figures.add("received", len(packets))
                self._bytes += sum(map(len, packets))
                if not self._severed and self._above >= 0:
                    self._feed(packets)
            if len(packets) < SLOTS:
                return

    def _feed(self, packets: list[bytes]) -> None:
        now = time.monotonic_ns()
        for data in packets:
            inbox = self._inbox
            if inbox is not None and (whole := inbox.quick(data)) is not None:
                self._open(whole)
                continue
            try:
                packet = unpack(data)
                if packet.kind == HELLO:
                    self._hello(packet.body, now)
                    continue
            except RemoteProtocolError:
                self._strange += 1
                continue
            if inbox is not None and packet.epoch <= inbox.epoch:
                self._take(inbox, packet, now)
            elif packet.epoch > self._above:
                self._early.keep(packet, now)
            else:
                self._strange += 1
        self._work_soon()

    def _work_soon(self) -> None:
        if self._has_work and not self._working and not self._severed:
            self._working = True
            self._setting.reactor.call_at(time.monotonic_ns(), self._work)

    def _work(self) -> None:
        """A step, and what has come meanwhile is read before the next, so that what is prompt waits for one step at
        most. Where blocks heap up it is a block: more than the packets that are read meanwhile."""
        inbox = self._inbox
        if self._severed:
            self._working = False
            return
        behind = inbox is not None and (inbox.held > BEHIND_BYTES or inbox.waiting > BEHIND_BLOCKS)
        for _ in range(BEHIND_STEPS if behind else 1):
            self._step()
        self._working = self._has_work
        if self._working:
            self._setting.reactor.call_at(time.monotonic_ns(), self._work)

    @property
    def _has_work(self) -> bool:
        return bool(self._opened) or (self._inbox is not None and self._inbox.has_work)

    def _step(self) -> None:
        """Part of opening a bulk block, or of handing on what was in one."""
        if self._opened:
            self._hand([self._opened.popleft() for _ in range(min(RECORDS, len(self._opened)))])
        elif self._inbox is not None and self._inbox.has_work:
            self._open(self._inbox.work())

    def _take(self, inbox: Inbox, packet: Packet, now: int) -> None:
        self._open(inbox.feed(packet, now))

    def _hello(self, body: bytes, now: int) -> None:
        if body == self._heard:
            return
        if self._hellos <= 0:
            self._beyond += 1
            if len(self._kept) < HELLOS_KEPT:
                self._kept.append(body)
            elif (at := random_numbers.randbelow(self._beyond)) < HELLOS_KEPT:
                self._kept[at] = body
            self._strange += len(self._kept) == HELLOS_KEPT
            return
        self._hellos -= 1
        self._believe(body, now)

    def _believe(self, body: bytes, now: int) -> None:
        """Looks at an announcement. Raises: RemoteProtocolError."""
        wall = self._setting.wall()
        try:
            hello = believe(body, self._own, self._senders, wall)
        except RemoteProtocolError:
            self._figures.add("refused_hellos")
            raise
        if hello is None:
            return
        if self._inbox is not None and hello.epoch == self._inbox.epoch and hello.seal.key == self._key:
            self._heard = body  # the same one, by another key or for one: keys are being changed
            self._by.add(hello.sender)
            return
        if hello.epoch <= self._above:
            self._older += 1
            self._figures.add("refused_hellos")
            self._strange += 1
            return
        if self._inbox is not None:
            while self._has_work:
                self._step()
            self._add_up(self._inbox.counts)
        self._heard, self._above = body, hello.epoch
        self._inbox, self._key = Inbox(hello.seal), hello.seal.key
        self._by, self._withdrawn = {hello.sender}, False
        self._bad = ""
        self._keeper.send(records.Epoch(hello.epoch, hello.wall_ns, words(hello.sender)))
        for packet in self._early.take(hello.epoch):  # they overtook the announcement, or an earlier one was lost
            self._take(self._inbox, packet, now)

    def _open(self, whole: list[tuple[int, bytes]]) -> None:
        """Blocks by their class: what is prompt goes on at once, bulk in its turn."""
        for kind, text in whole:
            try:
                found = self._codec.decode_many(text)
            except CrossingError as error:
                # The seal held: it is the sender itself that says what is no record. It may be another's by now.
                self._bad = str(error)[:200]
                continue
            if kind == PROMPT:
                self._hand(found)
            else:
                self._opened += found

    def _hand(self, found: list[records.OnStrand]) -> None:
        keeper = self._keeper
        for record in found:
            if keeper.backlog > OVERRUN_BYTES and not isinstance(record, records.Beat):
                self._figures.add("overrun")
                continue
            keeper.send(record)

    # --- what is told -----------------------------------------------------------------------------------------------

    def _add_up(self, counts: Counts) -> None:
        earlier = self._earlier
        for name in Counts.__dataclass_fields__:
            setattr(earlier, name, getattr(earlier, name) + getattr(counts, name))

    def _counts(self) -> Counts:
        total = Counts(**{name: getattr(self._earlier, name) for name in Counts.__dataclass_fields__})
        if self._inbox is not None:
            for name in Counts.__dataclass_fields__:
                setattr(total, name, getattr(total, name) + getattr(self._inbox.counts, name))
        return total

    def _foreign(self, counts: Counts) -> int:
        return counts.foreign + self._early.foreign + self._strange

    @property
    def _drops(self) -> int:
        return sum(link.batches.drops for link in self._links.values())

    def tick(self) -> None:
        self._ticks += 1
        self._figures.set("hearing", self._speed.look(time.monotonic_ns(), self._bytes))
        for body in self._kept if not self._severed else ():
            try:
                self._believe(body, time.monotonic_ns())
            except RemoteProtocolError:
                self._strange += 1
        self._kept.clear()
        self._beyond = 0
        if self._ticks % 2:
            return
        self._hellos = HELLOS_A_SECOND
        self._still_paired()
        self._twice, self._older = self._twice + 1 if self._older else 0, 0
        self._early.expire(time.monotonic_ns())
        counts = self._counts()
        drops = self._drops
        overrun = int(self._figures.report()["overrun"].get("", 0))  # type: ignore[arg-type]
        now = (self._foreign(counts), counts.evicted, drops, overrun)
        if now != self._before and self._above >= 0:
            more = [max(0, one - other) for one, other in zip(now, self._before, strict=True)]
            self._keeper.send(records.Trouble(*more))
            self._before = now

    def figures(self) -> Reported:
        reported = self._figures.report()
        counts = self._counts()
        reported["foreign"] = {"": self._foreign(counts)}
        reported["repeated"] = {"": counts.repeated}
        reported["repaired"] = {"": counts.repaired}
        reported["blocks_whole"] = {"": counts.whole}
        reported["blocks_spoiled"] = {"": counts.spoiled}
        reported["blocks_lost"] = {"": counts.evicted}
        reported["kernel_drops"] = {"": self._drops}
        reported["blocks_open"] = {"": self._inbox.open if self._inbox is not None else 0}
        reported["held"] = {"": self._early.held + (self._inbox.held if self._inbox is not None else 0)}
        return reported

    def alarms(self) -> dict[str, str]:
        found = {}
        if not self._senders:
            found["no-pair"] = f"the strand {self._strand} has no other end: cofferdam diode pair outside"
        if self._withdrawn:
            found["withdrawn"] = (
                f"the sender of the strand {self._strand} is paired no longer, and what it sends is not taken: "
                "cofferdam diode pair outside --take FILE"
            )
        if self._twice >= TWICE_SECONDS:
            found["two"] = (
                f"an older epoch of the strand {self._strand} is announced again and again: two senders with one key, "
                "or somebody who replays it"
            )
        heard = max((link.heard for link in self._links.values()), default=0)
        for link in self._links.values():
            if heard - link.heard > SILENT_NS:
                of = link.name or "the first one"
                found[f"link-{link.name or 'first'}"] = (
                    f"nothing comes by the link {of} of the strand {self._strand}, while another brings what is sent"
                )
        if self._bad:
            found["sender"] = f"the sender of the strand {self._strand} says what is no record: {self._bad}"
        return found
