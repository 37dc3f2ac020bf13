"""From a connection's two byte streams to requests and their answers, with the protocol's own machines.

Each request goes through a server machine, just as the gate's outer half would take it, so what is malformed here is
malformed there, with the same section of the standard. Each answer goes through a client machine that was told the
request, so only an answer that fits teaches anything.

A stream that is not seen from its start, or has a hole, or broke the protocol, is searched for the next plausible
frame; the bytes passed over are counted and reported. The gate would have closed the connection where the protocol
broke; what comes after is judged all the same, since a client would have come back.

Not here: what policy says (simulate.py, learn.py).
"""

from __future__ import annotations

import abc
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from cofferdam.capture.frames import Datagram
from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.streams import Sink, TcpFlow
from cofferdam.errors import CaptureError, CofferdamError, RemoteProtocolError
from cofferdam.model import Asset, Opening, Operation
from cofferdam.protocols.base import (
    NEED_DATA,
    LocalAnswer,
    Protocol,
    Released,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    ServerEvent,
    ServerMachine,
    Waits,
)
from cofferdam.protocols.registry import PROTOCOLS, Protocols
from cofferdam.protocols.view import Broken, Heard, News, Remark, Said, View


class Asked(msgspec.Struct):
    """One well-formed request. `token` is the server machine's; `user` is for the watcher's own use."""

    flow: TcpFlow
    protocol: str
    request: Any
    operation: Operation
    packet: int
    time_ns: int
    token: int = 0
    user: Any = None


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """A request that breaks the standard. `function` and `unit` are -1 where none can be told; `closes`: the gate would
    close the connection."""

    flow: TcpFlow
    protocol: str
    section: str
    detail: str
    function: int
    unit: int
    closes: bool
    packet: int
    time_ns: int


class Note(msgspec.Struct, frozen=True, gc=False):
    """Something about the capture that a reader of the report must know. `kind`: gap, skipped, inconsistent, answer."""

    flow: TcpFlow
    kind: str
    text: str
    size: int
    packet: int
    time_ns: int


class FrameSeen(msgspec.Struct, frozen=True, gc=False):
    """A frame of a stream that went as a datagram. `number`: the id that it names; `size` in bytes. `asked` has opened
    the stream, and `message` is what went to the server in it: both None where the capture does not show that."""

    protocol: str
    source: bytes
    target: bytes
    number: int
    size: int
    asked: Asked | None
    message: Any
    packet: int
    time_ns: int


class Watcher(abc.ABC):
    """Who is told what the conversations were."""

    def asset(self, flow: TcpFlow) -> Asset | None:
        """What the policy says of the connection's server, if it is known."""
        return None

    def frame(self, frame: FrameSeen) -> None:  # noqa: B027 - most have no use for it
        """A frame of a stream."""

    @abc.abstractmethod
    def asked(self, asked: Asked) -> None:
        """A client asked for something."""

    @abc.abstractmethod
    def answered(self, asked: Asked, response: Any, time_ns: int) -> None:
        """The server answered it, and the answer fits."""

    def news(self, asked: Asked, message: Any) -> None:  # noqa: B027 - most have no use for it
        """The server told something of what stands by this request, and it fits."""

    def deviates(self, asked: Asked, quirk: str) -> None:  # noqa: B027 - what a parser does not care for
        """The server answered it, and the answer fits only with this quirk. `answered` is told as well."""

    def misfits(self, asked: Asked) -> None:  # noqa: B027
        """The server sent something with the request's id that is no answer to it, under no quirk known here."""

    def foreign(self, flow: TcpFlow, what: str) -> None:  # noqa: B027
        """On this connection something else is spoken, which is not followed."""

    @abc.abstractmethod
    def malformed(self, malformed: Malformed) -> None:
        """A client sent a request that breaks the standard."""

    @abc.abstractmethod
    def note(self, note: Note) -> None:
        """The capture is not whole, or not consistent."""

    @abc.abstractmethod
    def ended(self, flow: TcpFlow) -> None:
        """A connection is over."""


class _Stream:
    """One direction of one connection."""

    __slots__ = ("buffer", "last", "machine", "skipped", "starts", "synced")

    def __init__(self, synced: bool) -> None:
        self.buffer = bytearray()
        self.starts: list[int] = []  # where segments start in the buffer: frames start there more often than not
        self.synced = synced
        self.skipped = 0
        self.last = (0, 0)  # packet and time of the last bytes
        self.machine: ServerMachine[Any, Any] | None = None


class _Talk:
    __slots__ = (
        "bystander", "foreign", "name", "open", "open_count", "protocol", "requests", "responses", "said",
        "tokens", "view",
    )  # fmt: skip

    def __init__(
        self, name: str, protocol: Protocol[Any, Any], view: View, flow: TcpFlow, known: dict[str, Any]
    ) -> None:
        self.bystander = protocol.bystander(known)
        self.foreign = ""  # what is spoken instead
        self.said: OrderedDict[int, Asked] = OrderedDict()  # by the bystander's numbers
        self.name = name
        self.protocol = protocol
        self.view = view
        self.requests = _Stream(flow.from_client.isn >= 0)
        self.responses = _Stream(flow.from_server.isn >= 0)
        self.open: OrderedDict[bytes, deque[Asked]] = OrderedDict()
        self.open_count = 0
        self.tokens: deque[tuple[int, int]] = deque()  # (time, token): what the server machine holds for open


class Conversations(Sink):
    """Takes the streams of connections and tells `watcher` what was said. `ports`: server port -> protocol name."""

    def __init__(
        self,
        watcher: Watcher,
        ports: Mapping[int, str],
        limits: CaptureLimits | None = None,
        protocols: Protocols = PROTOCOLS,
    ) -> None:
        self._watcher = watcher
        self._protocols = protocols
        self._ports = ports
        self._known: OrderedDict[tuple[bytes, int], dict[str, Any]] = OrderedDict()  # what bystanders know of servers
        self._limits = limits or CaptureLimits()
        followed = {name: one for name, one in protocols.items() if one.view is not None and one.dialect.datagrams}
        self.datagram_ports = {one.dialect.datagrams: name for name, one in followed.items()}
        # By (source, target, id): what opened the stream, and whether its frames go to the server.
        self._streams: OrderedDict[tuple[bytes, bytes, int], tuple[Asked, bool]] = OrderedDict()

    def datagram(self, datagram: Datagram) -> None:
        """A datagram to one of `datagram_ports`."""
        name = self.datagram_ports[datagram.target_port]
        view = self._protocols[name].view
        found = None if view is None else view.datagram(datagram.data)
        if view is None or found is None:
            return
        source, target, (number, size) = datagram.source, datagram.target, found
        asked, out = self._streams.get((source, target, number), (None, False))
        message = None
        if asked is not None and out:
            message = view.frame_of(asked.request, self._watcher.asset(asked.flow), datagram.data)
        at = datagram.packet, datagram.time_ns
        self._watcher.frame(FrameSeen(name, source, target, number, size, asked, message, *at))

    def _opened(self, flow: TcpFlow, view: View, asked: Asked, frame: bytes) -> None:
        """A request was answered well; where it has opened a stream, its frames are known by their ids."""
        if not any(type(write) is Opening for write in asked.operation.writes):
            return
        for out, number in zip((True, False), view.stream_ids(frame), strict=False):
            ends = (flow.client, flow.server) if out else (flow.server, flow.client)
            self._streams[*ends, number] = (asked, out)
        while len(self._streams) > self._limits.standing:
            self._streams.popitem(last=False)

    def data(self, flow: TcpFlow, from_client: bool, data: bytes, packet: int, time_ns: int) -> None:
        """See Sink."""
        talk = self._talk(flow)
        if from_client and not talk.foreign and talk.view is not None:
            talk.foreign = talk.view.foreign(data)
            if talk.foreign:
                self._watcher.foreign(flow, talk.foreign)
        if talk.foreign:
            return
        stream = talk.requests if from_client else talk.responses
        stream.starts.append(len(stream.buffer))
        stream.buffer += data
        stream.last = (packet, time_ns)
        self._read(flow, talk, stream, from_client, packet, time_ns, final=False)

    def gap(self, flow: TcpFlow, from_client: bool, size: int, packet: int, time_ns: int) -> None:
        """See Sink."""
        talk = self._talk(flow)
        stream = talk.requests if from_client else talk.responses
        # A frame that was searched for may be whole without what is missing now.
        self._read(flow, talk, stream, from_client, packet, time_ns, final=True)
        self._lose(stream, len(stream.buffer))
        stream.synced = False
        side = "client" if from_client else "server"
        text = f"{size} bytes of the {side} are not in the capture"
        self._watcher.note(Note(flow, "gap", text, size, packet, time_ns))

    def inconsistent(self, flow: TcpFlow, from_client: bool, packet: int, time_ns: int) -> None:
        """See Sink."""
        side = "client" if from_client else "server"
        text = f"the {side} sent bytes again with different content; the first were taken"
        self._watcher.note(Note(flow, "inconsistent", text, 1, packet, time_ns))

    def end(self, flow: TcpFlow) -> None:
        """See Sink."""
        if flow.user is not None:
            talk = self._talk(flow)
            for stream, from_client in ((talk.requests, True), (talk.responses, False)):
                self._read(flow, talk, stream, from_client, *stream.last, final=True)
                self._lose(stream, len(stream.buffer))
                self._tell_skipped(flow, stream, from_client, *stream.last)
            if talk.bystander is not None:
                self._heard(flow, talk, talk.bystander.end(), talk.responses.last[1])
        flow.user = None
        self._watcher.ended(flow)

    # -- frames ------------------------------------------------------------------------------------------------

    def _talk(self, flow: TcpFlow) -> _Talk:
        talk = flow.user
        if not isinstance(talk, _Talk):
            name = self._ports[flow.server_port]
            protocol = self._protocols[name]
            if protocol.view is None:
                raise CaptureError(f"{name} cannot be followed in captures")
            known = self._known.setdefault((flow.server, flow.server_port), {})
            if len(self._known) > self._limits.flows:
                self._known.popitem(last=False)
            talk = flow.user = _Talk(name, protocol, protocol.view, flow, known)
        return talk

    def _read(
        self, flow: TcpFlow, talk: _Talk, stream: _Stream, from_client: bool, packet: int, time_ns: int, *, final: bool
    ) -> None:
        """Takes every whole frame from the front of the buffer. `final`: nothing will follow what is there."""
        while stream.buffer:
            if not from_client and self._lengthless(talk, stream, time_ns):
                continue
            if not stream.synced:
                if not self._search(talk, stream, from_client, final=final):
                    return
                stream.synced = True
                self._tell_skipped(flow, stream, from_client, packet, time_ns)
            size = talk.view.size(stream.buffer, 0)
            if size == 0 or size > len(stream.buffer):
                return
            if size < 0:
                stream.synced = False
                if from_client:
                    self._broken(flow, talk, stream, packet, time_ns)
                self._lose(stream, 1)
                continue
            frame = bytes(stream.buffer[:size])
            self._drop(stream, size)
            if talk.bystander is not None:
                self._heard(flow, talk, talk.bystander.heard(from_client, frame, (packet, time_ns)), time_ns)
            elif from_client:
                self._request(flow, talk, stream, frame, packet, time_ns)
            else:
                self._response(flow, talk, frame, packet, time_ns)

    def _heard(self, flow: TcpFlow, talk: _Talk, events: Iterable[Heard], time_ns: int) -> None:
        """What a bystander of both directions made of a frame."""
        for event in events:
            if isinstance(event, Said):
                operation = talk.protocol.operation(event.request)
                asked = Asked(flow, talk.name, event.request, operation, *event.at)
                talk.said[event.number] = asked
                if len(talk.said) > self._limits.standing:
                    talk.said.popitem(last=False)
                self._watcher.asked(asked)
            elif isinstance(event, Broken):
                wrong = Malformed(flow, talk.name, event.section, event.detail, event.function, -1, False, *event.at)
                self._watcher.malformed(wrong)
            elif isinstance(event, Remark):
                self._watcher.note(Note(flow, "skipped", event.text, 1, *event.at))
            elif event.number in talk.said:
                asked = talk.said[event.number]
                if isinstance(event, News):
                    if not talk.protocol.misfit(asked.request, event.message):
                        self._watcher.news(asked, event.message)
                elif not talk.protocol.mismatch(asked.request, event.response):
                    self._watcher.answered(asked, event.response, time_ns)

    def _request(self, flow: TcpFlow, talk: _Talk, stream: _Stream, frame: bytes, packet: int, time_ns: int) -> None:
        machine = stream.machine
        if machine is None:
            machine = stream.machine = talk.protocol.server(midway=True)
            asset = self._watcher.asset(flow)
            if asset is not None:
                machine.take_asset(asset)
            talk.tokens.clear()
        # The gate answers everything in time, so that after it an id may be used again.
        while talk.tokens and time_ns - talk.tokens[0][0] > self._limits.answer_patience_ns:
            machine.release(talk.tokens.popleft()[1])
        try:
            machine.receive_data(frame)
            while (event := machine.next_event()) is not NEED_DATA:
                if isinstance(event, Waits):  # the gate would let it wait until the one before it was answered
                    machine.release(talk.tokens.popleft()[1])
                    continue
                self._event(flow, talk, machine, event, frame, packet, time_ns)
        except RemoteProtocolError as error:
            self._tell_broken(flow, talk, stream, error, talk.view.unit(frame), packet, time_ns)
            return
        if machine.buffered:
            # The view and the machine disagree on the length: believe neither.
            stream.machine = None
            stream.synced = False
            stream.skipped += len(frame)

    def _event(
        self,
        flow: TcpFlow,
        talk: _Talk,
        machine: ServerMachine[Any, Any],
        event: ServerEvent[Any, Any],
        frame: bytes,
        packet: int,
        time_ns: int,
    ) -> None:
        """What a client's frame was. The connection's own business (a handshake, a sign of life) is none of ours."""
        if isinstance(event, RequestReceived):
            if flow.from_server.seen:
                talk.tokens.append((time_ns, event.token))
            else:
                machine.release(event.token)  # no answers in this capture: nobody knows what was open
            operation = talk.protocol.operation(event.request)
            asked = Asked(flow, talk.name, event.request, operation, packet, time_ns, event.token)
            self._remember(talk, talk.view.key(frame), asked)
            self._watcher.asked(asked)
        elif isinstance(event, RequestRefused):
            machine.release(event.token)
            unit = talk.view.unit(frame)
            self._watcher.malformed(
                Malformed(flow, talk.name, event.section, event.detail, event.function, unit, False, packet, time_ns)
            )
        elif isinstance(event, (LocalAnswer, Released)):
            machine.release(event.token)

    def _broken(self, flow: TcpFlow, talk: _Talk, stream: _Stream, packet: int, time_ns: int) -> None:
        """What stands at the front of the client's buffer is no frame: have the machine say why."""
        machine = stream.machine or talk.protocol.server(midway=True)
        try:
            machine.receive_data(bytes(stream.buffer[: talk.view.header]))
            machine.next_event()
        except RemoteProtocolError as error:
            self._tell_broken(flow, talk, stream, error, -1, packet, time_ns)
        stream.machine = None

    def _tell_broken(
        self,
        flow: TcpFlow,
        talk: _Talk,
        stream: _Stream,
        error: RemoteProtocolError,
        unit: int,
        packet: int,
        time_ns: int,
    ) -> None:
        stream.machine = None
        stream.synced = False
        self._watcher.malformed(Malformed(flow, talk.name, error.section, str(error), -1, unit, True, packet, time_ns))

    def _remember(self, talk: _Talk, key: bytes, asked: Asked) -> None:
        talk.open.setdefault(key, deque()).append(asked)
        talk.open_count += 1
        if talk.open_count > self._limits.outstanding:
            self._answered(talk, next(iter(talk.open)))

    def _answered(self, talk: _Talk, key: bytes) -> Asked | None:
        """Takes the oldest open request with this key."""
        waiting = talk.open.get(key)
        if waiting is None:
            return None
        asked = waiting.popleft()
        talk.open_count -= 1
        if not waiting:
            del talk.open[key]
        return asked

    def _response(self, flow: TcpFlow, talk: _Talk, frame: bytes, packet: int, time_ns: int) -> None:
        key = talk.view.key(frame)
        quirk = ""
        asked = self._answered(talk, key)
        if asked is None:
            # With another id: it belongs to the one request under way, if it fits that.
            [(other, waiting), *_] = talk.open.items() or [(b"", deque[Asked]())]
            ids = [one for one in talk.protocol.dialect.id_quirks if one in talk.protocol.dialect.quirks]
            if talk.open_count != 1 or not ids or self._fits(talk, waiting[0], frame, frozenset()) is None:
                return  # its request is not in the capture, or was malformed
            quirk = ids[0] if not key.strip(b"\0") else ids[-1]
            asked = self._answered(talk, other)
            if asked is None:
                return
        if talk.requests.machine is not None:
            talk.requests.machine.release(asked.token)
        try:
            machine = talk.protocol.client(midway=True)
            asset = self._watcher.asset(flow)
            if asset is not None:
                machine.take_asset(asset)
            token, sent = machine.send(asked.request)
            machine.receive_data(talk.view.rekey(frame, talk.view.key(sent)))
            event = machine.next_event()
        except RemoteProtocolError as error:
            detail = str(error)
        except CofferdamError:
            return  # a request that our own client would not send teaches nothing
        else:
            if isinstance(event, ResponseReceived) and event.token == token:
                self._watcher.answered(asked, event.response, time_ns)
                if not talk.protocol.is_error(event.response):
                    self._opened(flow, talk.view, asked, frame)
                if quirk:
                    self._watcher.deviates(asked, quirk)
                return
            detail = getattr(event, "detail", "it does not fit its request")
        dialect = talk.protocol.dialect
        for name in sorted(dialect.quirks - dialect.lone_quirks):
            response = self._fits(talk, asked, frame, frozenset({name}))
            if response is not None:
                self._watcher.answered(asked, response, time_ns)
                self._watcher.deviates(asked, name)
                return
        self._watcher.misfits(asked)
        self._watcher.note(Note(flow, "answer", f"an answer does not fit: {detail}", 1, packet, time_ns))

    def _lengthless(self, talk: _Talk, stream: _Stream, time_ns: int) -> bool:
        """Whether the segment in front is one answer by all that it says but for the length in its header. Takes it."""
        quirk, view = talk.protocol.dialect.length_quirk, talk.view
        if not quirk or stream.starts[:1] != [0]:
            return False
        end = stream.starts[1] if len(stream.starts) > 1 else len(stream.buffer)
        if end <= view.header or view.size(stream.buffer, 0) == end:
            return False
        frame = bytes(stream.buffer[:end])
        key = view.key(frame)
        response = self._fits(talk, talk.open[key][0], frame, frozenset({quirk})) if key in talk.open else None
        asked = None if response is None else self._answered(talk, key)
        if asked is None:
            return False
        self._drop(stream, end)
        if talk.requests.machine is not None:
            talk.requests.machine.release(asked.token)
        self._watcher.answered(asked, response, time_ns)
        self._watcher.deviates(asked, quirk)
        return True

    def _fits(self, talk: _Talk, asked: Asked, frame: bytes, quirks: frozenset[str]) -> Any | None:
        """The answer that a frame is to a request, by a machine with these quirks; None: it is none."""
        try:
            machine = talk.protocol.client(quirks=quirks, midway=True)
            token, sent = machine.send(asked.request)
            machine.receive_data(talk.view.rekey(frame, talk.view.key(sent)))
            event = machine.next_event()
        except CofferdamError:
            return None
        if not isinstance(event, ResponseReceived) or event.token != token or machine.buffered:
            return None
        return event.response

    # -- finding the way back in -------------------------------------------------------------------------------

    def _search(self, talk: _Talk, stream: _Stream, from_client: bool, *, final: bool) -> bool:
        """Passes over bytes until a plausible frame stands in front. False: there is none yet."""
        data = stream.buffer
        starts = set(stream.starts)
        found: bool | None = False
        at = 0
        while at < len(data):
            found = self._plausible(talk, data, at, at in starts, from_client)
            if found or (found is None and not final):
                break
            at += 1
            found = False
        self._lose(stream, at)
        if found is None and len(data) > self._limits.unparsed_bytes:
            self._lose(stream, len(data))
        return bool(found)

    def _plausible(self, talk: _Talk, data: bytearray, at: int, at_start: bool, from_client: bool) -> bool | None:
        """Whether a frame stands at `at`; None while more bytes are needed to tell."""
        size = talk.view.size(data, at)
        if size < 0:
            return False
        if size == 0 or at + size > len(data):
            return None
        if talk.view.size(data, at + size) < 0:
            return False  # what follows it is no frame
        frame = bytes(data[at : at + size])
        if not talk.view.likely(frame, from_client):
            return False
        if talk.bystander is not None:
            return at_start
        if not from_client:
            return at_start or talk.view.key(frame) in talk.open
        machine = talk.protocol.server(midway=True)
        try:
            machine.receive_data(frame)
            event = machine.next_event()
        except RemoteProtocolError:
            return False
        # In the middle of a segment only a faultless request is proof enough.
        return isinstance(event, RequestReceived) or (at_start and isinstance(event, RequestRefused))

    def _drop(self, stream: _Stream, size: int) -> None:
        del stream.buffer[:size]
        if stream.starts:
            stream.starts = [at - size for at in stream.starts if at >= size]

    def _lose(self, stream: _Stream, size: int) -> None:
        self._drop(stream, size)
        stream.skipped += size

    def _tell_skipped(self, flow: TcpFlow, stream: _Stream, from_client: bool, packet: int, time_ns: int) -> None:
        if not stream.skipped:
            return
        side = "client" if from_client else "server"
        text = f"{stream.skipped} bytes of the {side} belong to no whole frame and were skipped"
        self._watcher.note(Note(flow, "skipped", text, stream.skipped, packet, time_ns))
        stream.skipped = 0
