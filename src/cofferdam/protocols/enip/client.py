"""The client's end of a connection to an asset: one session, requests outside a connection (UCMM), by our own ids.

Theory. RegisterSession is sent at once, and the connection is *established* by its answer. Each request is a small
conversation (`_Talk`, a generator that yields requests and is sent answers): most have one step; a value that is too
long is fetched or sent in pieces, a list page by page, each step after the answer to the one before. The eight bytes of
sender context, which the device repeats, name the conversation and its step. A conversation that was forgotten takes no
further step: of a write in pieces the rest is not sent.

Where the policy names a route, each request goes in an Unconnected Send along it; where it says `explicit: connected`,
in a connection of class 3 (explicit), which has the route in its opening. Not here: timers, sockets (brokers).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Generator
from typing import Final

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Asset
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    ClientEvent,
    ClientMachine,
    Continues,
    Established,
    Facing,
    FrameReceived,
    KeptBack,
    Over,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.enip import keys, pages, paths, replies, requests, single, together, wire
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.asked import known_of
from cofferdam.protocols.enip.connections import LARGE
from cofferdam.protocols.enip.dialect import ENIP
from cofferdam.protocols.enip.explicit import Explicit
from cofferdam.protocols.enip.forward import assemblies, carried, closing
from cofferdam.protocols.enip.io import IoLink, IoLinks, form_for, forms_of
from cofferdam.protocols.enip.pages import Answer, Talk
from cofferdam.protocols.enip.replies import Misfit
from cofferdam.protocols.enip.turns import LONG, Turns, context_of, named
from cofferdam.protocols.enip.values import DATA, encode, size_of
from cofferdam.values import Value

MAX_OUTSTANDING: Final = 16
ROOM: Final = 480
"""Bytes of data in one step of a write in pieces, or of a packet, outside a connection."""
UNCONNECTED: Final = 504
"""Bytes of a request outside a connection, with what is round it."""
CLOSINGS: Final = 256
"""Closes whose answers may still come: they are asked for, and say nothing."""
VENDOR: Final = 0x4346
"""By which our I/O connections are named, beside numbers of our own."""
STEPS: Final = 10_000
"""Steps of one conversation, at most."""


class _Open:
    """A conversation under way, and the service whose answer is waited for. `talk`: None for a read until its answer
    is not the whole of it, as it nearly always is; `read`: what is remembered of that read."""

    __slots__ = ("read", "request", "service", "step", "talk")

    def __init__(self, request: m.EnipRequest, talk: Talk | None, read: single.Read | None = None) -> None:
        self.request = request
        self.talk = talk
        self.read = read
        self.service = 0 if read is None else requests.READ
        self.step = 0 if read is None else 1


class EnipClient(ClientMachine[m.EnipRequest, m.EnipResponse]):
    """See `ClientMachine` for the methods' contracts. A token is a number that is counted on."""

    def __init__(
        self,
        facing: Facing | None = None,
        quirks: frozenset[str] = frozenset(),
        outstanding: int = 1,
        midway: bool = False,
    ) -> None:
        if quirks - ENIP.quirks:
            raise LocalProtocolError(f"unknown quirk {', '.join(sorted(quirks - ENIP.quirks))}")
        if not 1 <= outstanding <= MAX_OUTSTANDING:
            raise LocalProtocolError(f"outstanding {outstanding}, must be 1 to {MAX_OUTSTANDING}")
        self._frames = wire.Frames()
        self._events: deque[ClientEvent[m.EnipResponse]] = deque()
        self._open: dict[int, _Open] = {}
        self._outstanding = outstanding
        self._turns = Turns(outstanding)
        self._no_list = "no_list" in quirks
        self._explicit: Explicit | None = None
        self._learnt: together.Learnt | None = None
        if facing is not None and isinstance(facing.common, together.Learnt):
            self._learnt = facing.common
        self._take(None if facing is None else facing.asset)
        if facing is not None and facing.asset.connected:
            self._explicit = Explicit(self._route, VENDOR, facing.random)
        self._session = 1 if midway else 0
        self._midway = midway
        self._serial = 0
        self._output = b"" if midway else wire.frame(wire.REGISTER, 0, bytes(8), b"\1\0\0\0")
        self._error: RemoteProtocolError | None = None
        self._io = IoLinks()
        self._random = bytes if facing is None else facing.random
        self._opening: dict[int, IoLink] = {}
        self._late: dict[int, _Open] = {}
        self._closings: dict[int, None] = {}
        self._now = 0
        self._names = 0

    # --- what a broker calls ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        self._frames.add(data)

    def take_output(self) -> bytes:
        output, self._output = self._output, b""
        return output

    def take_asset(self, asset: Asset) -> None:
        self._take(asset)

    def _take(self, asset: Asset | None) -> None:
        self._about = known_of(asset)
        self._forms = forms_of(asset)
        self._route = paths.of_route(asset.route) if asset is not None else b""
        shared = None if asset is None or self._learnt is None else self._learnt.reads(asset.name, self._route)
        self._reads = shared or single.Reads(self._route)

    def on_time(self, now: int) -> None:
        self._now = now
        if self._explicit is not None:
            self._close(self._explicit.on_time(now))
        for link in self._io.silent(now):
            self._output += self._closing(link)
            self._events.append(Over(link.standing, "the device has sent nothing in time", True))

    @property
    def deadline(self) -> int:
        streams = self._io.deadline
        explicit = 0 if self._explicit is None else self._explicit.deadline
        return min(streams, explicit) if streams and explicit else streams or explicit

    def datagram(self, port: int, data: bytes, now: int) -> FrameReceived | KeptBack | None:
        self._now = now
        return self._io.take(data, now)

    def newest(self, standing: int, now: int) -> FrameReceived | None:
        return self._io.newest(standing, now)

    def take_datagrams(self) -> list[tuple[int, bytes, str]]:
        output, self._io.output = self._io.output, []
        return output

    def frame(self, standing: int, message: m.IoData) -> bytes:
        try:
            self._io.send(standing, message)
        except (KeyError, ValueError) as error:
            raise LocalProtocolError(f"no packet for {standing}: {error}") from None
        return b""

    def give_up(self, standing: int) -> bytes:
        link = self._io.remove(standing)
        return b"" if link is None else self._closing(link)

    def send(self, request: m.EnipRequest) -> tuple[int, bytes]:
        if not self._session or self._error is not None:
            raise LocalProtocolError("the connection is not established")
        if len(self._open) - len(self._turns.aside) >= self._outstanding:
            raise LocalProtocolError(f"{len(self._open)} requests are under way")
        opens = self._explicit is not None and not self._explicit.up and type(request) is not m.OpenIo
        try:
            if type(request) is m.ReadTag and not opens:
                read = self._reads.of(request)
                one = _Open(request, None, read)
                token = self._serial = self._serial + 1
                if self._explicit is None:
                    data = read.framed(self._session, token)
                else:
                    data = self._explicit.framed(self._session, context_of(token, 1), token, 1, read.cip)
            else:
                talk = self._talk(request)
                if opens and self._explicit is not None:
                    talk = self._connected(self._explicit, talk)
                one = _Open(request, talk)
                self._serial += 1
                data = self._stepped(self._serial, one, *next(talk))
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise LocalProtocolError(f"{type(request).__name__} cannot be sent: {error}") from None
        self._open[self._serial] = one
        return self._serial, self._turns.go(self._serial, data)

    def forget(self, token: int) -> None:
        one = self._open.pop(token, None)
        if one is None:
            return
        self._turns.over(token)
        self._output += self._turns.next()
        if self._explicit is not None:
            self._close(self._explicit.drop())
        if isinstance(one.request, m.OpenIo) and one.service != requests.GET_ALL:
            self._late[token] = one  # a late yes has to be taken back
            while len(self._late) > MAX_OUTSTANDING:
                first = next(iter(self._late))
                del self._late[first]
                self._not_open(self._opening.pop(first, None))
        elif one.talk is not None:
            one.talk.close()

    def next_event(self) -> ClientEvent[m.EnipResponse]:
        while True:
            if self._error is not None:
                raise self._error
            if self._events:
                return self._events.popleft()
            try:
                found = self._frames.next()
                if found is None:
                    return NEED_DATA
                event = self._frame(*found)
            except RemoteProtocolError as error:
                self._error = error
                raise
            if event is not None:
                return event

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def buffered(self) -> int:
        return self._frames.buffered

    @property
    def drop_after_timeout(self) -> bool:
        return False

    # --- frames -------------------------------------------------------------------------------------------------

    def _whole(self, token: int, form: single.Single, value: bytes) -> ResponseReceived[m.EnipResponse]:
        """A read has an answer of the form that the last one had."""
        del self._open[token]
        self._output += self._turns.ended(token)
        return ResponseReceived(token, m.HeldAll(form.codes, value))

    def _stepped(self, token: int, one: _Open, service: int, request: bytes) -> bytes:
        """The frame of a conversation's next step."""
        one.service = service
        one.step += 1
        if one.step > STEPS:
            raise Misfit(f"no end after {STEPS} steps")
        if type(one.request) is m.OpenIo:
            # An opening has the route in its own path; who the device is, is asked along it.
            if service == requests.GET_ALL and self._route:
                request = requests.wrapped(request, self._route)
        else:
            if self._explicit is None:
                request = requests.wrapped(request, self._route) if self._route else request
            elif self._explicit.up:
                return self._explicit.framed(self._session, context_of(token, one.step), token, one.step, request)
        return self._framed(token, one.step, request)

    def _framed(self, token: int, step: int, request: bytes) -> bytes:
        return wire.frame(wire.SEND_RR, self._session, context_of(token, step), wire.unconnected(request))

    def _connected(self, explicit: Explicit, talk: Talk) -> Talk:
        """A conversation that opens the connection first in which it goes on."""
        refused = yield from explicit.opening(lambda: self._now)
        if refused is not None:
            talk.close()
            return refused
        return (yield from talk)

    def _room(self, path: bytes = b"") -> int:
        """Bytes of data that a request on this path has room for, with a type and a place before them."""
        if self._explicit is not None:
            return self._explicit.room - 12 - len(path)
        wrapped = 14 + len(self._route) if self._route else 0
        return min(ROOM, UNCONNECTED - wrapped - 12 - len(path))

    def _frame(
        self, command: int, session: int, status: int, context: bytes, options: int, data: bytes
    ) -> ClientEvent[m.EnipResponse] | None:
        if command == wire.NOP or options:
            return None
        if not self._session:
            if command != wire.REGISTER or status or not session:
                raise RemoteProtocolError(f"no session: {command:04X}, status {status}", section=wire.ENCAPSULATION)
            self._session = session
            return Established()
        token, step = named(context)
        if command == wire.SEND_RR and session == self._session and not status:
            asked = self._open.get(token)
            if asked is not None and asked.read is not None and step == asked.step == 1:
                form = asked.read.form
                value = None if form is None or self._explicit is not None else form.taken_alone(data)
                if form is not None and value is not None:  # as nearly all are
                    return self._whole(token, form, value)
        cip: bytes | None = None
        if command == wire.SEND_UNIT and self._explicit is not None:
            if status:  # of the connection the device knows no more, perhaps
                self._close(self._explicit.drop())
            else:
                try:
                    token, step, cip = self._explicit.taken(data, self._now)
                except wire.BadPacket as bad:
                    return Unmatched(str(bad))
            command = wire.SEND_RR
        ours = session == self._session or self._midway
        if command == wire.SEND_RR and ours and step == 1 and token in self._closings:
            del self._closings[token]
            return None  # to a close: whatever it says, the connection is open no longer
        late = self._late.pop(token, None)
        one = self._open.get(token) or late
        if command != wire.SEND_RR or one is None or one.step != step or not ours:
            return Unmatched(f"a late answer, or one to nothing: {command:04X} for {token}/{step}")
        alone = False
        self._turns.answered(token)
        try:
            if cip is None:
                cip = carried(status, data, opens=type(one.request) is m.OpenIo)
            form = None if one.read is None or one.talk is not None else one.read.form
            value = None if form is None else form.taken(cip)
            if form is not None and value is not None:
                return self._whole(token, form, value)
            answer = replies.split(cip, one.service)
            alone = True  # it is this one's, whatever is in it
            if one.talk is None and type(one.request) is m.ReadTag and answer[0] != requests.MORE:
                said, more, body = answer
                response = replies.tag(one.request, body) if not said else replies.error(said, more)
                fault = ""
                if one.read is not None and type(response) is m.Held:
                    one.read.learn(one.request.item, response)
            else:
                frame = self._stepped(token, one, *self._talking(one).send(answer))
                if late is not None:
                    self._output += frame
                    return None
                # Not in a connection of class 3, which may be another one by then.
                aside = type(one.request) in LONG and self._explicit is None
                self._output += self._turns.step(token, frame, aside)
                return Continues(token, token in self._turns.aside)
        except StopIteration as end:
            response, fault = end.value, ""
        except (Misfit, wire.BadPacket) as error:
            response, fault = None, str(error)
        self._open.pop(token, None)
        self._turns.over(token)
        self._output += self._turns.next()
        link = self._opening.pop(token, None)
        if late is not None:
            if not isinstance(response, m.CipError):
                self._not_open(link)
            return Unmatched("a late answer to an opening, which is taken back")
        if response is None:
            self._not_open(link)
            return BadResponse(token, replies.SECTION, fault, alone)
        if link is not None and isinstance(response, m.IoOpened):
            self._io.add(link)
        return ResponseReceived(token, response)

    def _talking(self, one: _Open) -> Talk:
        """The conversation, which has come as far as its first step where it has not begun yet."""
        if one.talk is None:
            one.talk = self._talk(one.request)
            next(one.talk)
        return one.talk

    # --- conversations ------------------------------------------------------------------------------------------

    def _talk(self, request: m.EnipRequest) -> Talk:
        if type(request) is m.ReadTag:
            return self._read(request)
        if type(request) is m.WriteTag:
            return self._write(request)
        if type(request) is m.Packet:
            return self._packet(request)
        if type(request) is m.ListTags:
            return pages.tags(request, self._no_list)
        if type(request) is m.DescribeStructure:
            return pages.structure(request)
        if type(request) is m.OpenIo:
            return self._open_io(request, self._serial + 1)
        if isinstance(request, m.GetAttributes) and not self._midway and not self._about.sized(request.items):
            return self._one_by_one(request)
        return self._plain(request)

    def _one_by_one(self, request: m.GetAttributes) -> Talk:
        """Attributes of which some have no known length, so that one answer could not be taken apart."""
        found: list[Value | int] = []
        left = LARGE  # no client can be told more than one answer holds, and so the device is not asked for more
        for item in request.items:
            if left <= 0:
                found.append(0x11)
                continue
            one = m.GetAttribute(item)
            data = requests.encode_request(one)
            status, _, body = yield data[0], data
            response = replies.decode_reply(one, body, self._about) if not status else None
            found.append(response.value if isinstance(response, m.Held) else status)
            left -= 4 + len(body)
        return m.HeldList(tuple(found))

    def _plain(self, request: m.EnipRequest) -> Talk:
        data = requests.encode_request(request)
        status, more, body = yield data[0], data
        if status and not (status == 0x0A and isinstance(request, m.GetAttributes)):
            return replies.error(status, more)
        return replies.decode_reply(request, body, self._about)

    def _read(self, request: m.ReadTag) -> Talk:
        status, more, body = yield requests.READ, requests.read_tag(request.item)
        if not status:
            return replies.tag(request, body)
        if status != requests.MORE:
            return replies.error(status, more)
        code, handle, at = replies.head_of(body)
        value = body[at:]
        path, count = paths.of_tag(request.item), request.item.count.to_bytes(2, "little")
        while status == requests.MORE:
            if not value or len(value) > DATA:
                raise Misfit(f"{len(value)} bytes of a value, and more to come")
            step = count + len(value).to_bytes(4, "little")
            status, more, body = yield requests.READ_PIECE, requests.made(requests.READ_PIECE, path, step)
            if status not in (0, requests.MORE):
                return replies.error(status, more)
            if replies.head_of(body) != (code, handle, at) or len(body) == at:
                raise Misfit("a piece of another type, or of no length")
            value += body[at:]
        return replies.held(request, code, handle, value)

    def _write(self, request: m.WriteTag) -> Talk:
        value = encode(request.code, request.handle, request.value)
        path = paths.of_tag(request.item)
        room = self._room(path)
        if len(value) <= room:
            data = requests.encode_request(request)
            status, more, body = yield requests.WRITE, data
        else:
            unit = size_of(request.code, request.handle) or 4
            size = max(unit, room - room % unit)
            head = requests.write_head(request.code, request.handle, request.item.count)
            status, more, body = 0, (), b""
            for offset in range(0, len(value), size):
                step = head + offset.to_bytes(4, "little") + value[offset : offset + size]
                status, more, body = yield requests.WRITE_PIECE, requests.made(requests.WRITE_PIECE, path, step)
                if status:
                    break
        if status:
            return replies.error(status, more)
        if body:
            raise Misfit("data in the answer to a write")
        return m.Done()

    def _packet(self, request: m.Packet) -> Talk:
        """Packets of our own, each as large as it may be outside a connection."""
        reads = together.of_reads(request)
        groups = (together.grouped if reads else together.divided)(request, self._room())
        told: list[m.HeldAll | m.Answers] = []
        left = LARGE
        for group in groups:
            status, more, body = yield requests.PACKET, group.data
            codes = together.of(group.asked).codes if reads and not status else b""
            form = together.form_of(group.asked, codes) if codes else None
            values = None if form is None else form.taken(body)
            if form is not None and values is not None:
                told.append(m.HeldAll(form.codes, values))
                left -= len(values) + 2 * len(form.codes)
                continue
            if status not in (0, 0x1E):
                told.append(m.Answers((replies.error(status, more),) * len(group.parts)))
                continue
            answers = replies.parts(body)
            if len(answers) != len(group.parts):
                raise Misfit(f"{len(answers)} answers to {len(group.parts)} requests")
            found: list[m.Held | m.Done | m.CipError] = []
            for (part, data), answer in zip(group.parts, answers, strict=True):
                status, more, body = replies.split(answer, data[0])
                if not status and type(part) is m.ReadTag:
                    found.append(replies.tag(part, body))
                    left -= len(body)
                    continue
                found.append((yield from self._one(part, status, more, body, left > 0)))
                left -= len(replies.value_bytes(found[-1])) if isinstance(found[-1], m.Held) else 0
            told.append(m.Answers(tuple(found)))
            if reads:
                together.of(group.asked).codes = together.codes_of(found)
        return together.joined(groups, told)

    def _one(
        self, part: m.EnipRequest, status: int, more: tuple[int, ...], body: bytes, room: bool
    ) -> Generator[tuple[int, bytes], Answer, m.Held | m.Done | m.CipError]:
        """The answer to one part of a packet, but for a tag's value that is there; a value that found no room in it is
        read by itself. `room`: no client can be told more than one packet holds, and so the device is not asked for
        more."""
        if isinstance(part, m.ReadTag) and status in (requests.MORE, 0x11):
            if not room:
                return m.CipError(0x11)
            response = yield from self._read(part)
        elif status:
            response = replies.error(status, more)
        else:
            response = replies.decode_reply(part, body, self._about)
        if not isinstance(response, (m.Held, m.Done, m.CipError)):
            raise Misfit(f"{type(response).__name__} in a packet")
        return response

    def _open_io(self, request: m.OpenIo, token: int) -> Talk:
        form = self._forms.get(request.item.name)
        if form is None and self._midway:
            form = form_for(request.item, None)
        if form is None:
            raise LocalProtocolError(f"the policy has no stream {request.item.name}")
        if request.key is not None:
            who = requests.encode_request(m.Identify())
            status, more, data = yield who[0], who
            if status:
                return replies.error(status, more)
            wrong = keys.misfit(request.key, replies.identity(data))
            if wrong:
                return m.CipError(requests.CONNECTION, (wrong,))
        self._names += 1
        name = (self._names & 0xFFFF, VENDOR, int.from_bytes(self._random(4), "little"))
        ours = int.from_bytes(self._random(4), "little") | 1 << 31
        cls = request.cls
        sizes = form.size_out(cls), form.size_in(cls)
        path = self._route + assemblies(form)
        # In the opening alone: a close names the same connection without it.
        config = paths.of_data(form.data) if request.config else b""
        large = max(sizes) > 0x1FF
        head = struct.pack("<BBIIHHIB3x", 0x0A, 0x0E, 0, ours, *name, request.multiplier)
        # Point to point both ways, of fixed size, scheduled.
        flags = [size | (0x4800 << 16 if large else 0x4800) for size in sizes]
        body = struct.pack("<IIII" if large else "<IHIH", request.rpi_out, flags[0], request.rpi_in, flags[1])
        body = head + body + bytes([cls, (len(path) + len(config)) // 2]) + path + config
        service = requests.LARGE_OPEN if large else requests.OPEN
        where = paths.of_object(paths.MANAGER, 1)
        # From now on the device may have it open, whatever its answer is taken for.
        link = IoLink(token, cls, 0, ours, request.rpi_in, request.multiplier, self._now)
        link.send_size, link.header_out = form.out_size, form.run
        link.receive_size, link.name, link.path = form.in_size, name, path
        self._opening[token] = link
        status, more, data = yield service, requests.made(service, where, body)
        if status:
            return replies.error(status, more)
        if len(data) < 26:
            raise Misfit("an opening's answer that ends too early")
        send_id, receive_id, *said, rpi_out, rpi_in = struct.unpack_from("<IIHHIII", data)
        fits = m.FASTEST_US <= rpi_out <= m.SLOWEST_US and m.FASTEST_US <= rpi_in <= m.SLOWEST_US
        named = self._midway or (receive_id == ours and tuple(said) == name)
        if not named or not fits:
            raise Misfit("an opening's answer to another connection, or with another interval")
        link.opened(send_id, rpi_in, self._now)
        return m.IoOpened(rpi_out, rpi_in)

    def _not_open(self, link: IoLink | None) -> None:
        """The device has, or may have, opened what nobody here takes for open: it is told so, since it would keep it,
        and refuse it to others, until its time is out."""
        if link is not None:
            self._output += self._closing(link)

    def _close(self, request: bytes) -> None:
        """A Forward Close, if there is one."""
        if request:
            self._output += self._unheard(request)

    def _closing(self, link: IoLink) -> bytes:
        """A Forward Close of an I/O connection."""
        return self._unheard(closing(link.name, link.path))

    def _unheard(self, request: bytes) -> bytes:
        """A Forward Close, whose answer nobody waits for."""
        self._serial += 1
        self._closings[self._serial] = None
        while len(self._closings) > CLOSINGS:
            del self._closings[next(iter(self._closings))]
        return self._framed(self._serial, 1, request)
