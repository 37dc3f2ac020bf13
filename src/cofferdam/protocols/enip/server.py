"""The server's end of a connection: encapsulation, sessions, class-3 connections, packets and pieces end here.

What a client wraps its request in (a SendRRData, a connection, an Unconnected Send, a packet, pieces) is taken off, and
put round the answer again. So no id, no sequence number, no route and no number of a symbol crosses: a symbol's number
is looked up in the list that this connection was given, and the request goes on by name.

Theory. A request is *open* from its event to `send` or `release`. What it came in is kept with its token (`Asked`). A
packet is one request; `divide` makes a request of each part, whose answers are kept until all are there. A value that
is too long for one answer is asked whole, once, and handed out in the pieces that the client then asks for: they are of
one moment. A value that comes in pieces is one request once it is whole.

Not here: bytes of requests and answers (requests, replies), policy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from cofferdam.errors import LocalProtocolError
from cofferdam.model import Asset, Deny, Item
from cofferdam.protocols.base import Facing, FrameReceived, KeptBack, Over, Released, RequestReceived
from cofferdam.protocols.enip import keys, paths, replies, requests, single, together, wire
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.asked import (
    Asked,
    Divided,
    Draft,
    Fetched,
    address_of,
    known_of,
    out_of_place,
    packed,
)
from cofferdam.protocols.enip.connections import BOOK, Opening, Unknown, client_port
from cofferdam.protocols.enip.encapsulation import Encapsulation
from cofferdam.protocols.enip.epath import Path
from cofferdam.protocols.enip.io import PORT as IO_PORT
from cofferdam.protocols.enip.io import IoLink, IoLinks, Producers, forms_of
from cofferdam.protocols.enip.lists import Lists
from cofferdam.protocols.enip.requests import Refused
from cofferdam.protocols.enip.values import DATA, STRUCTURE, size_of

HELD: Final = 4
"""Values of which a connection may be fetching pieces at one time."""
READ_BYTES: Final = 128
"""Of a read whose meaning is kept by its bytes, alone or in a packet: most clients ask the same again and again."""
KEPT: Final = 512 << 10
"""So many bytes, about, a connection keeps of these and of packets of reads, with what is found out of them
(together)."""

_IN_PACKET: Final = (m.ReadTag, m.WriteTag, m.WriteBit, m.ModifyTag, m.GetAttribute, m.SetAttribute)
_CHANGE_NOTHING: Final = frozenset(
    {m.ReadTag, m.GetAttribute, m.GetAttributes, m.Identify, m.ListTags, m.DescribeStructure, m.Unserved}
)
_READS: Final = frozenset({requests.READ, requests.READ_PIECE, requests.GET_ONE, requests.GET_LIST, requests.GET_ALL})


class Misplaced(Refused):
    """What has no place in a packet: nothing of that packet goes anywhere, whatever is beside it."""


class EnipServer(Encapsulation):
    """See `ServerMachine` for the methods' contracts. A token is a number that is counted on."""

    def __init__(self, facing: Facing | None = None, midway: bool = False) -> None:
        super().__init__(facing, midway)
        self._lists = Lists()
        self._fetched: dict[Item, Fetched] = {}
        self._draft: Draft | None = None
        self._io = IoLinks()
        self._source = "" if facing is None else facing.source
        self._random = bytes if facing is None else facing.random
        self._producers: Producers | None = None if facing is None else facing.common
        self._about = known_of(self._asset)
        self._reads: dict[bytes, m.ReadTag] = {}
        self._packets: dict[bytes, m.Packet] = {}
        self._room = KEPT

    # --- what a broker calls ------------------------------------------------------------------------------------

    def take_asset(self, asset: Asset) -> None:
        self._asset = asset
        self._about = known_of(asset)
        self._forget()

    def on_time(self, now: int) -> None:
        self._now = now
        self._no_session_in_time()
        for link in self._io.silent(now):
            self._connections.io_names.pop(link.standing, None)
            self._events.append(Over(link.standing, "the client has sent nothing in time", True))

    @property
    def deadline(self) -> int:
        if self._midway or self._alone or self._error is not None:
            return 0
        return self._io.deadline if self._session else self._due

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

    def gone(self) -> None:
        self._io.clear()

    def over(self, standing: int, deny: Deny | None) -> bytes:
        # A target has no word for it: it falls silent, and the client's own watchdog says so.
        self._io.remove(standing)
        self._connections.io_names.pop(standing, None)
        return b""

    def send(self, token: int, response: m.EnipResponse) -> bytes:
        asked = self._open.get(token)
        if asked is None:
            prepared = self._prepared.pop(token, None)
            if prepared is None:
                raise LocalProtocolError(f"token {token} is not open")
            return self._in_turn(token, prepared)
        if type(response) is m.HeldAll and type(asked.request) is m.ReadTag:
            frame = self._direct(asked, asked.request.item, response)
            del self._open[token]
            return self._in_turn(token, frame)
        if asked.request is not None and (fault := replies.mismatch(asked.request, response)):
            raise LocalProtocolError(fault)
        del self._open[token]
        if asked.command == wire.LIST_IDENTITY:
            return self._in_turn(token, self._identity(asked, response))
        if asked.opening is not None:
            answer = self._keyed if isinstance(asked.request, m.Identify) else self._opened
            return self._finished(asked, answer(token, asked, response))
        return self._in_turn(token, self._finished(asked, self._answer(asked, response)))

    def release(self, token: int) -> None:
        self._prepared.pop(token, None)
        asked = self._open.pop(token, None)
        self._connections.io_names.pop(token, None)
        if asked is not None and asked.packet is not None:
            asked.packet.silent = True
        self._unanswered(token)

    def divide(self, token: int) -> bool:
        asked = self._open.get(token)
        if asked is None or not isinstance(asked.request, m.Packet) or asked.packet is not None:
            return False
        del self._open[token]
        self._unanswered(token)  # its parts stand in its place
        self._divided(asked, [(service, part) for service, part in zip(asked.parts, asked.request.parts, strict=True)])
        return True

    # --- services -----------------------------------------------------------------------------------------------

    def _request(self, asked: Asked, data: bytes, beside: list[tuple[int, bytes]]) -> None:
        known = self._reads.get(data)
        if known is not None and not beside:
            self._ask(asked, requests.READ, known)
            return
        packet = self._packets.get(data)
        if packet is not None and not beside:
            asked.parts = (requests.READ,) * len(packet.parts)
            self._ask(asked, requests.PACKET, packet)
            return
        service = data[0] if data else 0
        try:
            service, path, body = requests.split(data)
            opens = path.cls == paths.MANAGER and service in (requests.OPEN, requests.LARGE_OPEN)
            if beside and not opens:
                raise Refused(requests.PARAMETER, "addresses beside what opens no connection", wire.PACKET)
            self._service(asked, service, path, body, beside, data)
        except Refused as refused:
            self._refused(asked, service & 0x7F, refused)

    def _refused(self, asked: Asked, service: int, refused: Refused) -> None:
        asked.service = service
        answer = replies.reply(service, refused.error.status, refused.error.more)
        self._wrong(self._finished(asked, answer), refused.section, refused.detail, service)

    def _service(
        self, asked: Asked, service: int, path: Path, body: bytes, beside: list[tuple[int, bytes]], data: bytes
    ) -> None:
        if path.cls == paths.MANAGER:
            self._manager(asked, service, path, body, beside)
        elif service == requests.PACKET and (path.cls, path.instance) == (paths.ROUTER, 1):
            self._packet(asked, body, data)
        elif requests.is_tag(path) and service in (requests.READ_PIECE, requests.WRITE_PIECE):
            self._piece(asked, service, path, body)
        elif (path.cls, path.instance, service) == (paths.PROGRAM, 1, requests.GET_ALL):
            name = (self._asset.name if self._asset is not None else "").encode("ascii", "replace")
            self._said(asked, service, len(name).to_bytes(2, "little") + name)
        elif path.cls == paths.SYMBOL and service == requests.LIST:
            self._list(asked, path, body)
        elif path.cls == paths.TEMPLATE and service in (requests.GET_LIST, requests.READ):
            self._template(asked, service, path, body)
        else:
            self._ask(asked, service, self._remembered(data, self._simple(service, path, body)))

    def _remembered(self, data: bytes, request: m.EnipRequest) -> m.EnipRequest:
        """Keeps what a read was decoded to, for the next time that its bytes come, alone or in a packet."""
        if type(request) is m.ReadTag and data[0] == requests.READ and len(data) <= READ_BYTES:
            self._keep(1, data)
            self._reads[data] = request
        return request

    def _simple(self, service: int, path: Path, body: bytes) -> m.EnipRequest:
        if requests.is_tag(path):
            return requests.decode_tag(service, path, body, self._about, self._lists.names, self._lists.sizes)
        return requests.decode_object(service, path, body, self._about)

    def _ask(self, asked: Asked, service: int, request: m.EnipRequest) -> None:
        asked.service, asked.request = service, request
        if asked.link is not None and type(request) not in _CHANGE_NOTHING:
            parts = request.parts if isinstance(request, m.Packet) else (request,)
            asked.link.changes = not _CHANGE_NOTHING.issuperset(map(type, parts))
        token = self._token(ordered=asked.opening is None)
        self._open[token] = asked
        self._events.append(RequestReceived(token, request))

    def _said(self, asked: Asked, service: int, body: bytes, status: int = 0) -> None:
        """An answer of our own to a request."""
        self._local(self._finished(asked, replies.reply(service, status, (), body)))

    def _forget(self) -> None:
        """What bytes mean has changed."""
        self._reads.clear()
        self._packets.clear()
        self._room = KEPT

    def _keep(self, reads: int, data: bytes) -> None:
        """Makes room for what so many reads mean: all else is forgotten where there is none."""
        size = 250 * reads + 2 * len(data)
        if size > self._room:
            self._forget()
        self._room -= size

    def _packet(self, asked: Asked, body: bytes, data: bytes) -> None:
        found: list[tuple[int, m.EnipRequest | Refused]] = []
        for one in requests.parts_of(body):
            try:
                found.append(self._part(one))
            except Refused as refused:
                found.append((one[0] & 0x7F, refused))
        asked.service = requests.PACKET
        parts = tuple(part for _, part in found if isinstance(part, _IN_PACKET))
        if len(parts) == len(found):
            asked.parts = tuple(service for service, _ in found)
            packet = m.Packet(parts)
            if all(service == requests.READ for service in asked.parts):
                # As with a read alone: what was decoded is kept for the next time that its bytes come.
                self._keep(len(parts), data)
                self._packets[data] = packet
            self._ask(asked, requests.PACKET, packet)
        elif all(service in _READS and not isinstance(part, (m.Unserved, Misplaced)) for service, part in found):
            self._divided(asked, found)
        else:
            self._whole(asked, found)

    def _part(self, data: bytes) -> tuple[int, m.EnipRequest]:
        """The service and the request of one part of a packet. Raises: Refused."""
        known = self._reads.get(data)
        if known is not None:
            return requests.READ, known
        service, path, body = requests.split(data)
        nested = path.cls == paths.MANAGER or (path.cls == paths.ROUTER and service == requests.PACKET)
        if nested or (requests.is_tag(path) and service == requests.WRITE_PIECE):
            raise Misplaced(requests.SEGMENT, f"service {service:02X} of class {path.cls:02X} inside a packet")
        if not requests.is_tag(path) or service != requests.READ_PIECE:
            return service, self._remembered(data, self._simple(service, path, body))
        # A piece in a packet is a whole read whose answer has to have room there.
        if len(body) != 6 or body[2:] != b"\0\0\0\0":
            raise out_of_place("a later piece inside a packet")
        count = int.from_bytes(body[:2], "little")
        return service, m.ReadTag(requests.tag_of(path, count, self._about, self._lists.names))

    def _whole(self, asked: Asked, found: list[tuple[int, m.EnipRequest | Refused]]) -> None:
        """Refuses a packet that may change something, and that has a part which cannot be."""
        asked.parts = tuple(service for service, _ in found)
        bad = next((part for _, part in found if isinstance(part, Refused)), None)
        if bad is None:
            one = next(((s, p) for s, p in found if isinstance(p, (m.Unserved, m.Service))), found[0])
            cls = one[1].cls if isinstance(one[1], (m.Unserved, m.Service)) else -1
            why = one[1].why if isinstance(one[1], m.Unserved) else "a service that no packet may have"
            self._ask(asked, requests.PACKET, m.Unserved(one[0], cls, f"in a packet: {why}"[:256]))
            return
        parts = [
            replies.reply(service, part.error.status, part.error.more)
            if isinstance(part, Refused)
            else replies.reply(service, requests.FORBIDDEN)
            for service, part in found
        ]
        answer = replies.reply(requests.PACKET, 0x1E, (), requests.packet(parts))
        self._wrong(self._finished(asked, answer), bad.section, f"in a packet: {bad.detail}", requests.PACKET)

    def _divided(self, asked: Asked, parts: Sequence[tuple[int, m.EnipRequest | Refused]]) -> None:
        packet = Divided(asked, len(parts))
        for place, (service, part) in enumerate(parts):
            one = Asked(asked.command, asked.session, asked.context, asked.link, asked.sequence)
            one.packet, one.place = packet, place
            if isinstance(part, Refused):
                self._refused(one, service, part)
            else:
                self._ask(one, service, part)

    def _open_io(self, asked: Asked, service: int, opening: Opening, beside: list[tuple[int, bytes]]) -> None:
        asked.service = service
        try:
            request = self._connections.io(opening, self._asset, beside, self._source, self._now)
        except Unknown as unknown:
            self._ask(asked, service, m.Unserved(service, paths.MANAGER, f"{unknown}: no stream of the policy"))
            return
        asked.opening, asked.port = opening, client_port(beside, self._source)
        self._connections.io_names[self._serial + 1] = opening.name
        self._ask(asked, service, request)

    def _close(self, asked: Asked, body: bytes) -> None:
        if self._midway:
            self._said(asked, requests.CLOSE, b"")
            return
        standing = self._connections.standing_of(body)
        if standing is None:
            self._said(asked, requests.CLOSE, self._connections.close(body))
            return
        asked.service = requests.CLOSE
        name = self._connections.io_names[standing]
        if self._io.remove(standing) is None:
            raise Refused(requests.CONNECTION, "a connection that is being opened", BOOK, 0x0107)
        del self._connections.io_names[standing]
        token = self._token()
        answer = replies.reply(requests.CLOSE, 0, (), struct.pack("<HHIBx", *name, 0))
        self._prepared[token] = self._finished(asked, answer)
        self._events.append(Released(token, standing, m.Done()))

    def _keyed(self, token: int, asked: Asked, response: m.EnipResponse) -> bytes:
        """The answer to a class-3 connection's opening with a key, now that the device has said who it is."""
        if not isinstance(response, m.Identity):
            return self._not_opened(asked, response)
        wrong = keys.misfit(keys.key_of(asked.opening.path.key), response)
        if wrong:
            return self._not_opened(asked, m.CipError(requests.CONNECTION, (wrong,)))
        try:
            body = self._connections.open(asked.opening, self._asset, self._now)
        except Refused as refused:
            return self._not_opened(asked, refused.error)
        return replies.reply(asked.service, 0, (), body)

    def _not_opened(self, asked: Asked, response: m.EnipResponse) -> bytes:
        status, more = (response.status, response.more) if isinstance(response, m.CipError) else (2, ())
        return replies.reply(asked.service, status, more, struct.pack("<HHIBx", *asked.opening.name, 0))

    def _opened(self, token: int, asked: Asked, response: m.EnipResponse) -> bytes:
        """The answer to an I/O connection's opening; with a good one it stands."""
        opening: Opening = asked.opening
        if not isinstance(response, m.IoOpened):
            self._connections.io_names.pop(token, None)
            return self._not_opened(asked, response)
        form = forms_of(self._asset).get(asked.request.item.name)
        if form is None:
            raise LocalProtocolError(f"the policy has no stream {asked.request.item.name} any more")
        multicast = (opening.parameters_to_originator[1] >> (29 if asked.service == requests.LARGE_OPEN else 13)) & 3
        ours = int.from_bytes(self._random(4), "little") | 1 << 31
        theirs = int.from_bytes(self._random(4), "little") if multicast == 1 else opening.to_originator
        link = IoLink(token, asked.request.cls, theirs, ours, response.rpi_out, opening.multiplier, self._now)
        link.receive_size, link.header_in = form.out_size, form.run
        link.send_size, link.name, link.port = form.in_size, opening.name, asked.port
        if multicast == 1 and asked.link is None:
            theirs = self._produced(asked, link, response.rpi_in)
        self._io.add(link)
        body = struct.pack("<IIHHIIIBx", ours, theirs, *opening.name, response.rpi_out, response.rpi_in, 0)
        return replies.reply(asked.service, 0, (), body)

    def _produced(self, asked: Asked, link: IoLink, rpi: int) -> int:
        """The id by which a client hears the inputs that it wants by multicast. Where the policy has a group for them,
        they go there once for all; else to each client by itself. `rpi`: at which they come (µs)."""
        asset, item = self._asset, asked.request.item
        group = "" if asset is None else next((one.group for one in asset.streams if one.at == item), "")
        if asset is None or self._producers is None or not group:
            return link.send_id
        made = IoLink(0, link.cls, link.send_id, 0, rpi, 0, 0)
        made.send_size = link.send_size
        key = (asset.name, item, group, self._local_place[0], link.cls, link.send_size, rpi)
        producer = self._producers.joined(key, group, made)
        producer.join(link)
        asked.beside = ((wire.TO_ORIGINATOR, address_of((group, IO_PORT))),)
        return producer.out.send_id

    def _manager(self, asked: Asked, service: int, path: Path, body: bytes, beside: list[tuple[int, bytes]]) -> None:
        if path.instance != 1:
            raise Refused(requests.SEGMENT, "a connection manager of another number", paths.SECTION)
        if service == requests.UNCONNECTED_SEND:
            inner = self._connections.unwrapped(body, self._asset)
            nested, where, _ = requests.split(inner)
            if where.cls == paths.MANAGER and nested == requests.UNCONNECTED_SEND:
                raise Refused(requests.CONNECTION, "an Unconnected Send inside another", requests.SECTION, 0x0315)
            self._request(asked, inner, [])
        elif service in (requests.OPEN, requests.LARGE_OPEN):
            opening = self._connections.opening(service == requests.LARGE_OPEN, body)
            if opening.transport & 0x0F == 3 and opening.path.key and not self._midway:
                # Who the device is has to be asked before.
                self._connections.check(opening, self._asset, self._now)
                asked.opening = opening
                self._ask(asked, service, m.Identify())
            elif opening.transport & 0x0F == 3:
                self._said(asked, service, self._connections.open(opening, self._asset, self._now))
            else:
                self._open_io(asked, service, opening, beside)
        elif service == requests.CLOSE:
            self._close(asked, body)
        else:
            self._ask(asked, service, m.Unserved(service, paths.MANAGER, "a service of the connection manager"))

    # --- pieces -------------------------------------------------------------------------------------------------

    def _piece(self, asked: Asked, service: int, path: Path, body: bytes) -> None:
        if service == requests.WRITE_PIECE:
            self._written_piece(asked, path, body)
            return
        if len(body) != 6:
            raise Refused(requests.SHORT if len(body) < 6 else requests.LONG, "a piece's count and place",
                          requests.DATA_ACCESS)  # fmt: skip
        item = requests.tag_of(path, int.from_bytes(body[:2], "little"), self._about, self._lists.names)
        asked.offset = int.from_bytes(body[2:], "little")
        asked.service = service
        if not asked.offset:
            asked.piece = True
            self._ask(asked, service, m.ReadTag(item))
            return
        fetched = self._fetched.get(item)
        if fetched is None or fetched.offset != asked.offset:
            self._fetched.pop(item, None)
            raise out_of_place("a piece that does not follow the one before")
        self._local(self._finished(asked, self._next_piece(asked, item, fetched)))

    def _next_piece(self, asked: Asked, item: Item, fetched: Fetched) -> bytes:
        room = (asked.room - 4 - len(fetched.head)) & ~7
        data = fetched.data[fetched.offset : fetched.offset + room]
        fetched.offset += len(data)
        done = fetched.offset >= len(fetched.data)
        if done:
            self._fetched.pop(item, None)
        else:
            self._fetched.pop(item, None)
            self._fetched[item] = fetched
            while len(self._fetched) > HELD:
                del self._fetched[next(iter(self._fetched))]
        return replies.reply(asked.service, 0 if done else requests.MORE, (), fetched.head + data)

    def _written_piece(self, asked: Asked, path: Path, body: bytes) -> None:
        code, handle, count, at = requests.typed_head(body)
        if len(body) < at + 5:
            raise Refused(requests.SHORT, "a piece without a byte", requests.DATA_ACCESS)
        item = requests.tag_of(path, count, self._about, self._lists.names)
        offset, data = int.from_bytes(body[at : at + 4], "little"), body[at + 4 :]
        unit = size_of(code, handle) or (self._lists.sizes.get(handle, 0) if code == STRUCTURE else 0)
        size = unit * item.count
        draft, self._draft = self._draft, None
        if not size or size > DATA:
            why = "a value in pieces that is too large"
            if not size:
                why = "pieces of a structure whose description was not asked for first, so that its size is not known"
            raise Refused(requests.PARAMETER, why, requests.DATA_ACCESS)
        if not offset:
            draft = Draft(item, code, handle, size)
        elif draft is None or (draft.item, draft.code, draft.handle, len(draft.data)) != (item, code, handle, offset):
            raise out_of_place("a piece that does not follow the one before")
        if offset + len(data) > size:
            raise out_of_place("a piece that ends after its value")
        draft.data += data
        asked.service = requests.WRITE_PIECE
        if len(draft.data) < size:
            self._draft = draft
            if asked.link is not None:
                asked.link.changes = True
            self._said(asked, requests.WRITE_PIECE, b"")
        else:
            self._ask(asked, requests.WRITE_PIECE, requests.written(item, code, handle, draft.data, unit))

    # --- lists --------------------------------------------------------------------------------------------------

    def _list(self, asked: Asked, path: Path, body: bytes) -> None:
        page = self._lists.asked(path, body)
        asked.list, asked.service = page, requests.LIST
        if self._lists.has(page, self._now):
            self._local(self._finished(asked, self._lists.page(page, asked.room)))
        else:
            self._ask(asked, requests.LIST, m.ListTags(page.program))

    def _template(self, asked: Asked, service: int, path: Path, body: bytes) -> None:
        part = self._lists.template_asked(service, path, body)
        asked.list, asked.service = part, service
        if path.instance in self._lists.structures:
            self._local(self._finished(asked, self._lists.template(part, asked.room)))
        else:
            self._ask(asked, service, m.DescribeStructure(path.instance))

    # --- answers ------------------------------------------------------------------------------------------------

    def _answer(self, asked: Asked, response: m.EnipResponse) -> bytes:
        service, request = asked.service, asked.request
        if type(response) is m.Held:
            return self._value(asked, response)
        if type(response) is m.HeldAll:
            return self._together(asked, response)
        if isinstance(response, m.CipError):
            if asked.parts:
                # What refuses the packet refuses each of its parts.
                parts = [replies.reply(one, response.status, response.more) for one in asked.parts]
                return replies.reply(service, 0x1E, (), requests.packet(parts))
            return replies.reply(service, response.status, response.more)
        if isinstance(response, m.Answers):
            return self._answers(asked, response)
        body = b""
        if isinstance(response, m.Identity):
            body = replies.identity_bytes(response)
        elif isinstance(response, m.HeldList):
            body = replies.attribute_list(request, response)
        elif isinstance(response, m.TagList):
            self._lists.take(request.program, response, self._now)
            self._forget()  # a symbol's number may mean another tag now
            return self._lists.page(asked.list, asked.room)
        elif isinstance(response, m.Structure):
            self._lists.describe(request.instance, response)
            return self._lists.template(asked.list, asked.room)
        if len(body) + 4 > asked.room:
            return replies.reply(service, 0x11)
        return replies.reply(service, 0, (), body)

    def _value(self, asked: Asked, response: m.Held) -> bytes:
        head = replies.value_head(response) if response.code else b""
        data = replies.value_bytes(response)
        if len(head) + len(data) + 4 <= asked.room:
            return replies.reply(asked.service, 0, (), head + data)
        if not response.code or asked.packet is not None:
            return replies.reply(asked.service, 0x11)
        return self._next_piece(asked, asked.request.item, Fetched(head, data))

    def _direct(self, asked: Asked, item: Item, response: m.HeldAll) -> bytes:
        """The frame of the answer to a read. Raises: LocalProtocolError for a value that is not its."""
        form = single.form_of(item, response.codes)
        fault = single.ANOTHER if form is None else form.fault(response.data)
        if form is None or fault:
            raise LocalProtocolError(fault)
        if asked.service != requests.READ or form.length > asked.room:
            return self._finished(asked, self._value(asked, form.held(response.data)))
        if asked.link is None and asked.packet is None:
            return form.framed(asked.session, asked.context, response.data)
        return self._finished(asked, form.answer(response.data))

    def _together(self, asked: Asked, response: m.HeldAll) -> bytes:
        form = together.form_of(asked.request, response.codes)
        if form is None:
            raise LocalProtocolError("values of something else")
        answer = form.answer(response.data)
        if len(answer) <= asked.room and asked.parts == form.services:
            return answer
        return self._answers(asked, form.answers(response.data))

    def _answers(self, asked: Asked, response: m.Answers) -> bytes:
        parts: list[bytes] = []
        for service, one in zip(asked.parts, response.parts, strict=True):
            if type(one) is m.Held:
                head = replies.value_head(one) if one.code else b""
                parts.append(replies.reply(service, 0, (), head + replies.value_bytes(one)))
            elif isinstance(one, m.CipError):
                parts.append(replies.reply(service, one.status, one.more))
            else:
                parts.append(replies.reply(service, 0))
        return packed(parts, asked.room)

    def _finished(self, asked: Asked, answer: bytes) -> bytes:
        """The frame of an answer; b"" for one that waits for others of its packet."""
        packet = asked.packet
        if packet is not None:
            packet.answers[asked.place] = answer
            packet.left -= 1
            if packet.left or packet.silent:
                return b""
            asked = packet.asked
            answer = packed([one for one in packet.answers if one is not None], asked.room)
        if asked.beside:
            body = wire.packet(((wire.NULL_ADDRESS, b""), (wire.UNCONNECTED, answer), *asked.beside))
        elif asked.link is None:
            body = wire.unconnected(answer)
        else:
            if asked.link.changes and asked.link.sequence == asked.sequence:
                asked.link.answer = answer
            body = wire.connected(asked.link.to_client, asked.sequence, answer)
        return wire.frame(asked.command, asked.session, asked.context, body)
