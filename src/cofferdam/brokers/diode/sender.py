"""The sender: takes records from the spool, makes sealed blocks of them, and writes packets to sockets that it cannot
read from: one for each link, and every packet to all of them.

It waits for nobody. It sends at the policy's rate and never more at once than its burst, by time: the receiver cannot
say that it is too much. Prompt packets go first; where they fill the strand, bulk has its small part all the same. The
epoch is announced again each second.

The sockets were made, connected and shut for reading by the launcher; reading from their numbers is refused by this
part's filter. A link that takes nothing just now loses what the others take; what none takes waits, where one is full.

Not here: what is sent, when, and what is kept (spool).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.diode import records
from cofferdam.brokers.diode.figures import SENDER, Speed
from cofferdam.brokers.diode.outbox import MS, Outbox, encode
from cofferdam.brokers.diode.pairing import SenderKeys, load
from cofferdam.brokers.diode.sealing import Seal, announce, has_aes, new_seal
from cofferdam.brokers.diode.wire import HEAD_BYTES, HELLO, UDP_BYTES, pack, shard_bytes
from cofferdam.brokers.kit.card import speed_of
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.memory import keep_freed
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
DEBT: Final = 1.25
"""What is prompt leaves until so many writes are not paid for."""
ROOM_BYTES: Final = 256 << 10
"""The spool is told in such steps what has left."""
KEPT_BYTES: Final = 16 << 20
"""Memory that is free and stays."""
BLOCK_LEAST: Final = records.PIECE_BYTES + 1024
"""Bytes of a block that holds the largest record."""
PROMPT_SECONDS: Final = 0.05
PROMPT_LEAST, PROMPT_MOST = 16 << 10, 1 << 20
FLOOR: Final = 16
"""Of so many bytes that are prompt one more is bulk, while any waits."""
_SOL_UDP, _UDP_SEGMENT, _IP_MTU = 17, 103, 14
_LOST: Final = (errno.ECONNREFUSED, errno.EPERM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOBUFS)
"""The packets are gone, and so they would be on a wire that is cut."""


def row_of(policy: CompiledPolicy) -> tuple[str, DiodeRows]:
    """The crew's one strand: its conduit and rows. Raises: GateError."""
    for name, conduit in policy.conduits.items():
        return name, rows_of(conduit)
    raise GateError("the crew has no strand")


def _of_epoch(row: DiodeRows) -> dict[str, object]:
    """What stays as it is for an epoch, by the policy's words."""
    overhead = row.m / row.k
    return {"block": row.k, "overhead": overhead, "hostile_wire": row.hostile, "jumbo": row.jumbo}


def prompt_credit(rate: int) -> int:
    """Bytes of what is prompt that may wait in the sender: what leaves in a short time, so that it stays prompt."""
    return max(PROMPT_LEAST, min(PROMPT_MOST, int(rate / 8 * PROMPT_SECONDS)))


def card_of(sock: socket.socket) -> tuple[str, int]:
    """The strand's interface, which is the only one here, and its bits a second; 0 where they are not known."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    return (names[0], speed_of(sock, names[0])) if len(names) == 1 else ("", 0)


class _Link:
    """One link of the strand. `name`: its zone here, "" for the first."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name, self.sock = name, sock
        self.mtu = sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        self.segments = 1
        self.error = ""
        self.error_at = 0

    def split(self, size: int) -> None:
        """The kernel makes packets of `size` bytes of each write, where it can."""
        try:
            self.sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
            self.segments = min(SEGMENTS, WRITE_MOST // size)
        except OSError:
            self.segments = 1  # a kernel without it


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
        self._bytes, self._speed_now = 0, Speed()
        self._links: list[_Link] = []
        self._segments = 1
        self._shard = 0
        self._seal: Seal | None = None
        self._out: Outbox | None = None
        self._hellos: list[bytes] = []
        self._hello_at = 0
        self._severed = False
        self._rate = self._row.rate
        self._parity = dict(self._row.parity)
        self._began = _of_epoch(self._row)
        self._tokens = 0.0
        self._filled_at = self._now
        self._timer_at = 0
        self._soon = False
        self._stuck: list[bytes] = []
        self._put = 0
        self._told = 0
        self._owed = 0
        """Bytes that are prompt and have left since bulk did, while some of it waits."""
        self._large = self._told_prompt = 0
        """Bytes of what was to be prompt, and is too large for that; of what is prompt and has left, as was told."""
        self._speed = ("", 0)
        keep_freed(KEPT_BYTES)
        self.set_severed(setting.severed)

    @property
    def _now(self) -> int:
        return time.monotonic_ns()

    # --- the gate ---------------------------------------------------------------------------------------------------

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        self._keys = load(SenderKeys, secrets) or self._keys
        self._announce()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._strand, self._row = row_of(policy)
        self._rate = self._row.rate
        self._parity = dict(self._row.parity)
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        zone = self._setting.zones[1]
        here = self._setting.policy.zones.get(zone)
        self._severed = bool(sides) and (here is None or here.side.value in sides or "it" in sides)

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:
        self._links.append(_Link(self._row.link(listener.address), sock))
        try:
            self._shard = shard_bytes(min(link.mtu for link in self._links), jumbo=self._row.jumbo)
        except ValueError as error:
            raise GateError(f"the strand {self._strand}: {error}") from None
        if self._row.k * self._shard < BLOCK_LEAST:
            raise GateError(
                f"the strand {self._strand}: a block of {self._row.k} packets of {self._shard} bytes holds no record",
                hint=f"block: {-(-BLOCK_LEAST // self._shard)} or more",
            )
        for link in self._links:
            link.split(self._shard + HEAD_BYTES)
        self._segments = min(link.segments for link in self._links)
        if len(self._links) == 1:
            self._speed = card_of(sock)

    def end_datagrams(self, sock: socket.socket) -> None:
        self._links = [link for link in self._links if link.sock is not sock]

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
        elif isinstance(record, records.Piece) and not record.prompt:
            out.put(encode(record), now, prompt=False, parity=self._parity.get(record.channel, 0), at=self._put)
            self._put += len(record.body)
        elif isinstance(record, records.Known):
            out.put(encode(record), now, prompt=False, at=self._put)
            self._put += len(record.fill)
        else:
            data = encode(record)
            if len(data) > out.prompt_room:
                self._large += len(data)
            out.put(data, now, prompt=True, at=self._put)
        self._wake()

    def _begin(self, epoch: int) -> None:
        if self._out is not None:
            raise CrossingError("a second Begin")
        self._seal = new_seal(epoch, aes=self._aes)
        self._out = Outbox(self._seal, self._shard, k=self._row.k, m=self._row.m, hostile=self._row.hostile)
        self._began = _of_epoch(self._row)
        self._announce()
        self._hello(FIRST_HELLOS)
        self._wake()

    def _announce(self) -> None:
        """What is said each second, by the keys that are good now."""
        if self._seal is None or self._keys is None:
            return
        wall = self._setting.wall()
        receivers = [bytes.fromhex(one.key) for one in self._keys.receivers if one.until > wall]
        signers = [self._keys.sign, *(one.key for one in self._keys.former if one.until > wall)]
        bodies = announce(self._seal, wall, [bytes.fromhex(one) for one in signers], receivers)
        self._hellos = [pack(HELLO, self._seal.epoch, 0, 0, 0, 0) + body for body in bodies]

    # --- out --------------------------------------------------------------------------------------------------------

    def _hello(self, times: int = 1) -> None:
        self._hello_at = self._now
        self._write(self._hellos * times)

    def _wake(self) -> None:
        """Has `_pump` run at the end of this turn."""
        if not self._soon:
            self._soon = True
            self._reactor.later(self._pump)

    def _pump(self) -> None:
        self._soon = False
        out = self._out
        if out is None or not self._links:
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
        if not self._stuck and now - self._hello_at >= HELLO_NS:  # what waits for room comes first
            self._hello()
        # What is sent is paid for afterwards: the debt of a write is at most that write. What is prompt does not wait
        # until bulk's is paid.
        most = min(burst, WRITE_MOST)
        segments = max(1, min(self._segments, int(most) // out.packet))
        while not self._stuck:
            if not out.has_bulk:
                self._owed = 0
            if out.has_prompt:
                if self._tokens <= -DEBT * most:
                    break
                if self._owed >= FLOOR * out.packet and (some := out.bulk(1, now)):
                    self._owed = 0
                    self._write(some)
                    continue
                packet = out.prompt()
                self._owed += len(packet)
                self._write([packet])
            elif self._tokens > 0 and (some := out.bulk(segments, now)):
                self._owed = 0
                self._write(some)
            else:
                break
        self._say()
        if out.has_work:
            out.work()
            self._wake_next()
        if out.has_prompt or out.has_bulk:
            wait = int(-self._tokens * 8e9 / self._rate) if self._tokens < 0 else 0
            if wait < MS and not self._stuck and out.has_bulk and self._rate / 8000 > burst:
                self._wake_next()
            else:
                self._again(now + max(wait, MS // 2))
        if (due := out.due()) is not None:
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
        if not self._links:
            return
        size = self._shard + HEAD_BYTES
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
            ways = [self._send(link, data) for link in self._links]
            if "left" not in ways and "full" in ways:  # it waits for room, whatever another link has to say
                self._stuck = [packet for rest in groups[at:] for packet in rest]
                return
            self._figures.add("packets", len(group))
            self._figures.add("sent", len(data))
            self._bytes += len(data)
            self._figures.add("unsent", len(ways) - ways.count("left"))
            self._tokens -= len(data) + len(group) * (UDP_BYTES + 24)

    def _send(self, link: _Link, data: bytes) -> Literal["left", "full", "lost"]:
        """Over one link. "lost": as on a wire that is cut."""
        for _ in range(2):
            try:
                os.write(link.sock.fileno(), data)
            except BlockingIOError:
                return "full"
            except OSError as error:
                if error.errno not in _LOST:
                    raise
                if error.errno == errno.ECONNREFUSED:
                    self._figures.add("unsent")
                    continue  # said of an earlier packet; this one has not left yet
                link.error, link.error_at = error.strerror or str(error), self._now
                return "lost"
            return "left"
        return "lost"

    def _say(self, *, always: bool = False) -> None:
        """What has left, so that the spool hands over more."""
        out = self._out
        if out is None:
            return
        left = self._put - out.pending
        prompt = out.prompt_left + self._large - self._told_prompt
        bulk = left - self._told >= ROOM_BYTES or (out.pending == 0 and left > self._told)
        if bulk or prompt >= prompt_credit(self._row.rate) // 4 or (prompt and always):
            sent = max(0, left - self._told) if bulk else 0
            self._told += sent
            whole = out.whole
            under_way = max(0, self._told - whole) if whole is not None else 0
            self._setting.senders["spool"].send(records.Room(sent, prompt, under_way))
            self._told_prompt += prompt

    def tick(self) -> None:
        self._say(always=True)
        self._wake()
        self._figures.set("sending", self._speed_now.look(self._setting.clock(), self._bytes))

    def figures(self) -> Reported:
        out = self._out
        self._figures.set("rate", self._rate)
        self._figures.set("queue", out.pending if out is not None else 0)
        self._figures.set("prompt_queue", out.prompt_pending if out is not None else 0)
        self._figures.set("blocks", out.blocks if out is not None else 0)
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found = {}
        if self._keys is None:
            found["no-pair"] = f"the strand {self._strand} has no other end: cofferdam diode pair inside"
        elif not any(one.until > self._setting.wall() for one in self._keys.receivers):
            found["no-pair"] = f"the strand {self._strand} knows no receiver: cofferdam diode pair inside --take FILE"
        now = _of_epoch(self._row)
        if changed := [word for word, value in self._began.items() if now[word] != value]:
            found["next-start"] = (
                f"{', '.join(changed)} of the strand {self._strand}: as they were when the gate began, until it is "
                "started anew"
            )
        interface, speed = self._speed
        if 0 < speed < self._row.rate:
            found["rate"] = (
                f"the strand {self._strand} sends at {show_rate(self._row.rate)}, and {interface} has "
                f"{show_rate(speed)}: what is more is lost"
            )
        for link in self._links:
            if link.error and self._now - link.error_at < 10 * HELLO_NS:
                of = f"the link {link.name} of " if link.name else ""
                found[f"link-{link.name}".rstrip("-")] = (
                    f"packets of {of}the strand {self._strand} do not leave: {link.error}"
                )
        return found
