"""The sender: takes records from the spool, makes sealed blocks of them, and writes packets to a socket that it cannot
read from.

It waits for nobody. It sends at the policy's rate and never more at once than its burst, by time: the receiver cannot
say that it is too much. Prompt packets go first. The epoch is announced again each second.

The socket was made, connected and shut for reading by the launcher; reading from its number is refused by this part's
filter. Not here: what is sent, when, and what is kept (spool).
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Collection
from typing import Any, Final

from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.diode import records
from cofferdam.brokers.diode.figures import SENDER
from cofferdam.brokers.diode.outbox import MS, Outbox, encode
from cofferdam.brokers.diode.pairing import SenderKeys, load
from cofferdam.brokers.diode.sealing import announce, has_aes
from cofferdam.brokers.diode.wire import HELLO, UDP_BYTES, pack, shard_bytes
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.errors import CrossingError, GateError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.diode import rows_of
from cofferdam.policy.terms.diode_rows import DiodeRows, show_rate

HELLO_NS: Final = 1_000 * MS
FIRST_HELLOS: Final = 4
"""So often an epoch is announced before anything of it leaves, and again each second."""
SEGMENTS: Final = 44
"""Packets in one write, where the kernel splits them."""
WRITE_MOST: Final = 65_000
"""Bytes in one write."""
ROOM_BYTES: Final = 256 << 10
"""The spool is told in such steps what has left."""
_SIOCETHTOOL, _ETHTOOL_GSET, _ETHTOOL_BYTES = 0x8946, 1, 44
_SOL_UDP, _UDP_SEGMENT, _IP_MTU = 17, 103, 14
_LOST: Final = (errno.ECONNREFUSED, errno.EPERM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOBUFS)
"""The packets are gone, and so they would be on a wire that is cut."""


def row_of(policy: CompiledPolicy) -> tuple[str, DiodeRows]:
    """The crew's one strand: its conduit and rows. Raises: GateError."""
    for name, conduit in policy.conduits.items():
        return name, rows_of(conduit)
    raise GateError("the crew has no strand")


def speed_of(sock: socket.socket) -> tuple[str, int]:
    """The strand's interface, which is the only one here, and its bits a second; 0 where they are not known."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    if len(names) != 1:
        return "", 0
    said = array.array("B", _ETHTOOL_GSET.to_bytes(4, sys.byteorder) + bytes(_ETHTOOL_BYTES - 4))
    asked = struct.pack("16sP", names[0].encode(), said.buffer_info()[0])
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, asked)
    except OSError:
        return names[0], 0
    low, high = struct.unpack_from("=H", said, 12)[0], struct.unpack_from("=H", said, 28)[0]
    mbits = low | high << 16
    return names[0], 0 if mbits in (0, 0xFFFF, 0xFFFFFFFF) else mbits * 1_000_000


class Sender(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._reactor = setting.reactor
        self._strand, self._row = row_of(setting.policy)
        self._keys = load(SenderKeys, setting.secrets)
        self._aes = has_aes()
        self._figures = Figures(SENDER)
        self._sock: socket.socket | None = None
        self._segments = 1
        self._shard = 0
        self._out: Outbox | None = None
        self._hellos: list[bytes] = []
        self._hello_at = 0
        self._severed = False
        self._rate = self._row.rate
        self._tokens = 0.0
        self._filled_at = self._now
        self._timer_at = 0
        self._soon = False
        self._stuck: list[bytes] = []
        self._put = 0
        self._told = 0
        self._error = ""
        self._error_at = 0
        self._speed = ("", 0)
        self.set_severed(setting.severed)

    @property
    def _now(self) -> int:
        return time.monotonic_ns()

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        self._rate = self._row.rate
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        zone = self._setting.zones[1]
        here = self._setting.policy.zones.get(zone)
        self._severed = bool(sides) and (here is None or here.side.value in sides or "it" in sides)

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:
        self._sock = sock
        mtu = sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        try:
            self._shard = shard_bytes(mtu, jumbo=self._row.jumbo)
        except ValueError as error:
            raise GateError(f"the strand {self._strand}: {error}") from None
        size = self._shard + 26
        try:
            sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
            self._segments = min(SEGMENTS, WRITE_MOST // size)
        except OSError:
            self._segments = 1  # a kernel without it

        self._speed = speed_of(sock)

    def end_datagrams(self, sock: socket.socket) -> None:
        self._sock = None

    # --- the spool --------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, records.Begin):
            self._begin(record.epoch)
            return
        out = self._out
        if out is None:
            raise CrossingError(f"{type(record).__name__} before Begin")
        now = self._now
        if isinstance(record, records.Pace):
            self._rate = record.rate or self._row.rate
        elif isinstance(record, records.Piece):
            if not record.prompt:
                self._put += len(record.body)
            out.put(encode(record), now, prompt=record.prompt)
        elif isinstance(record, records.Known):
            self._put += len(record.fill)
            out.put(encode(record), now, prompt=False)
        else:
            out.put(encode(record), now, prompt=True)
        self._wake()

    def _begin(self, epoch: int) -> None:
        if self._out is not None:
            raise CrossingError("a second Begin")
        if self._keys is None:
            raise CrossingError("Begin, and the ends are no pair")
        wall = self._setting.wall()
        receivers = [bytes.fromhex(one.key) for one in self._keys.receivers if one.until > wall]
        seal, bodies = announce(epoch, wall, bytes.fromhex(self._keys.sign), receivers, aes=self._aes)
        self._hellos = [pack(HELLO, epoch, 0, 0, 0, 0) + body for body in bodies]
        self._out = Outbox(seal, self._shard, k=self._row.k, m=self._row.m, hostile=self._row.hostile)
        for _ in range(FIRST_HELLOS):
            self._hello()
        self._wake()

    # --- out --------------------------------------------------------------------------------------------------------

    def _hello(self) -> None:
        self._hello_at = self._now
        for packet in self._hellos:
            self._write([packet])

    def _wake(self) -> None:
        """Has `_pump` run at the end of this turn."""
        if not self._soon:
            self._soon = True
            self._reactor.later(self._pump)

    def _pump(self) -> None:
        self._soon = False
        out = self._out
        if out is None or self._sock is None:
            return
        now = self._now
        out.tick(now)
        burst = max(self._row.burst, 2 * WRITE_MOST if self._rate > 10**9 else 1500)
        self._tokens = min(burst, self._tokens + (now - self._filled_at) * self._rate / 8e9)
        self._filled_at = now
        if self._severed:
            self._again(now + 100 * MS)
            return
        if self._stuck:
            packets, self._stuck = self._stuck, []
            self._write(packets)
        # What is sent is paid for afterwards: the debt of a write is at most that write.
        while self._tokens > 0 and not self._stuck:
            if out.has_prompt:
                self._write([out.prompt()])
            else:
                some = out.bulk(self._segments, now)
                if not some:
                    break
                self._write(some)
        self._say()
        if out.has_prompt or out.has_bulk:
            wait = int(-self._tokens * 8e9 / self._rate) if self._tokens < 0 else 0
            if wait < MS and not self._stuck and out.has_bulk and self._rate / 8000 > burst:
                self._wake_next()
            else:
                self._again(now + max(wait, MS // 2))
        elif (due := out.due()) is not None:
            self._again(due)

    def _wake_next(self) -> None:
        """In the next turn of the loop, without sleeping."""
        self._again(self._now)

    def _again(self, due: int) -> None:
        if not self._timer_at or due < self._timer_at:
            self._timer_at = due
            self._reactor.call_at(due, self._on_time)

    def _on_time(self) -> None:
        self._timer_at = 0
        self._wake()

    def _write(self, packets: list[bytes]) -> None:
        """Packets of one size but the last, or of any size one by one."""
        sock = self._sock
        if sock is None:
            return
        size = self._shard + 26
        groups: list[list[bytes]] = []
        if len(packets) > 1 and self._segments > 1:
            for packet in packets:
                if groups and len(packet) == size == len(groups[-1][0]):
                    groups[-1].append(packet)
                else:
                    groups.append([packet])
        else:
            groups = [[packet] for packet in packets]
        for at, group in enumerate(groups):
            data = b"".join(group)
            for _ in range(2):
                try:
                    os.write(sock.fileno(), data)
                except BlockingIOError:
                    self._stuck = [packet for rest in groups[at:] for packet in rest]
                    return
                except OSError as error:
                    self._trouble(error)
                    if error.errno == errno.ECONNREFUSED:
                        continue  # said of an earlier packet; this one has not left yet
                    break
                else:
                    self._figures.add("packets", len(group))
                    self._figures.add("sent", len(data))
                    break
            self._tokens -= len(data) + len(group) * (UDP_BYTES + 24)

    def _trouble(self, error: OSError) -> None:
        if error.errno not in _LOST:
            raise error
        self._figures.add("unsent")
        if error.errno != errno.ECONNREFUSED:
            self._error, self._error_at = error.strerror or str(error), self._now

    def _say(self) -> None:
        """What has left, so that the spool hands over more."""
        out = self._out
        if out is None:
            return
        left = self._put - out.pending
        if left - self._told >= ROOM_BYTES or (out.pending == 0 and left > self._told):
            self._setting.senders["spool"].send(records.Room(left - self._told))
            self._told = left

    def tick(self) -> None:
        if self._out is not None and self._now - self._hello_at >= HELLO_NS and not self._severed:
            self._hello()
        self._wake()

    def figures(self) -> Reported:
        out = self._out
        self._figures.set("rate", self._rate)
        self._figures.set("queue", out.pending if out is not None else 0)
        self._figures.set("blocks", out.blocks if out is not None else 0)
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found = {}
        if self._keys is None:
            found["no-pair"] = f"the strand {self._strand} has no other end: cofferdam diode pair inside"
        elif not any(one.until > self._setting.wall() for one in self._keys.receivers):
            found["no-pair"] = f"the strand {self._strand} knows no receiver: cofferdam diode pair inside --take FILE"
        interface, speed = self._speed
        if 0 < speed < self._row.rate:
            found["rate"] = (
                f"the strand {self._strand} sends at {show_rate(self._row.rate)}, and {interface} has "
                f"{show_rate(speed)}: what is more is lost"
            )
        if self._error and self._now - self._error_at < 10 * HELLO_NS:
            found["link"] = f"packets of the strand {self._strand} do not leave: {self._error}"
        return found
