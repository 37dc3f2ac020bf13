"""Framing and the secure channel (OPC 10000-6, 6.7 and 7.1), for either role: bytes in, whole bodies out, and back.

Theory. A connection says HEL and ACK once, then carries one channel: OPN opens and renews it, MSG carries bodies in one
or more chunks, CLO ends it. Sequence numbers go up by one for each chunk of a direction, and wrap as the "legacy" rule
says. A token is good from its OPN on; the one before it until the first chunk with the newer one comes, and no longer
than a quarter more than its lifetime. Whatever is wrong with a signature, a padding or a token has one answer.

The owner answers an OPN (`accept_open`) or asks for one (`open`), and gives nonces and time. Not here: sessions,
bodies' meaning, whom to trust.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.protocols.opcua import security
from cofferdam.protocols.opcua.builtin import Reader, Writer
from cofferdam.protocols.opcua.builtin_types import Malformed
from cofferdam.protocols.opcua.security import NONE, Keys, Policy, SecurityError

BUFFER = 65_536
"""Bytes of one chunk that we take and, if the peer takes as much, send."""
LEAST_BUFFER = 8_192
MESSAGE_BYTES = 1 << 20
CHUNKS = 128
MESSAGE_NS = 5_000_000_000
"""A message must be complete so long after its first chunk."""
URL_BYTES = 4_096
WRAP = 4_294_966_271
NS = 1_000_000_000

BAD_MESSAGE_TYPE, BAD_CHANNEL, BAD_TOO_LARGE, BAD_URL = 0x807E0000, 0x807F0000, 0x80800000, 0x80830000
BAD_SECURITY, BAD_POLICY, BAD_MODE, BAD_SEQUENCE = 0x80130000, 0x80550000, 0x80540000, 0x80880000
BAD_TIMEOUT, BAD_DECODING, BAD_TOO_MANY = 0x800A0000, 0x80070000, 0x80AC0000
PART6, PART6_CHANNEL = "OPC 10000-6, 7.1", "OPC 10000-6, 6.7"

_HEAD = struct.Struct("<3scI")
_FIRST = struct.Struct("<4sI")
_TWO = struct.Struct("<II")
_FOUR = struct.Struct("<IIII")
_CHUNK = struct.Struct("<3scIIIII")


class Fault(RemoteProtocolError):
    """The connection has to end. `status` is what the peer is told."""

    def __init__(self, message: str, status: int, section: str = PART6) -> None:
        super().__init__(message, section=section)
        self.status = status


class Body:
    """One whole message: `kind` MSG, OPN, CLO, HEL, ACK, ERR; b"" for a request of this id that the peer took back."""

    __slots__ = ("data", "kind", "request")

    def __init__(self, kind: bytes, request: int, data: bytes) -> None:
        self.kind = kind
        self.request = request
        self.data = data


@dataclass(frozen=True)
class Own:
    """What we show and sign with. `above`: the authorities that are sent with the certificate."""

    certificate: bytes
    key: RSAPrivateKey
    above: bytes = b""

    @property
    def sent(self) -> bytes:
        """The certificate as peers get it."""
        return self.certificate + self.above


class _Token:
    __slots__ = ("id", "receive", "send", "until")

    def __init__(self, number: int, until: int, send: Keys | None, receive: Keys | None) -> None:
        self.id = number
        self.until = until
        self.send = send
        self.receive = receive


def _nobody(_certificate: bytes, _policy: Policy) -> RSAPublicKey:
    raise Fault("the channel is over", BAD_SECURITY, PART6_CHANNEL)


def _nothing() -> None:
    return


class Channel:
    """One connection's framing and channel. `judge` says whether a peer's certificate (DER) may be spoken with, and
    gives its key; it raises Fault. So does `spend`, which is asked before our private key has to work."""

    def __init__(
        self, *, server: bool, own: Own | None, judge: Callable[[bytes, Policy], RSAPublicKey], buffer: int = BUFFER,
        spend: Callable[[], None] = _nothing,
    ) -> None:  # fmt: skip
        self.server = server
        self.own = own
        self.policy = NONE
        self.mode = 1
        self.id = 0
        self.peer: bytes = b""
        """The certificate of the other end, with its authorities behind it where they were sent."""
        self.peer_key: RSAPublicKey | None = None
        self._judge = judge
        self._spend = spend
        self._data = bytearray()
        self._buffer = buffer
        self._send_size = LEAST_BUFFER
        self._send_most = MESSAGE_BYTES
        self._send_chunks = CHUNKS
        self.called = False
        """The peer is a server that has opened the connection, and has still to say so (RHE)."""
        self.greeted = False
        self.opened = False
        self._tokens: list[_Token] = []
        self._sending: _Token | None = None
        self._in_sequence = -1
        self._out_sequence = 0
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._parts_request = 0
        self._parts_since = 0
        self._now = 0
        self._request = 0

    def let_go(self) -> None:
        """It is over, and its owner forgotten."""
        self._judge, self._spend = _nobody, _nothing

    # --- in -------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self._data += data

    def on_time(self, now: int) -> None:
        self._now = now

    @property
    def buffered(self) -> int:
        """Bytes of a message that has begun."""
        return len(self._data) + self._parts_size

    @property
    def renew_at(self) -> int:
        """When a client renews (monotonic ns): at three quarters of the newest token's life."""
        return self._tokens[-1].until if self._tokens else 0

    def next(self) -> Body | None:
        """The next whole message. Raises: Fault."""
        while True:
            if self._parts and self._now - self._parts_since > MESSAGE_NS:
                raise Fault("a message that was begun was not completed in time", BAD_TIMEOUT)
            data = self._data
            if len(data) < 8:
                if data and (not _may_start(bytes(data[:3])) or (len(data) > 3 and data[3] not in b"FCA")):
                    raise Fault("no OPC UA message begins so", BAD_MESSAGE_TYPE)
                return None
            first, size = _FIRST.unpack_from(data)
            begins = _BEGINS.get(first)
            if begins is None:
                raise Fault(f"no OPC UA message begins with {bytes(data[:4])!r}", BAD_MESSAGE_TYPE)
            if size > self._buffer:
                raise Fault(f"a chunk of {size} bytes; at most {self._buffer} were agreed", BAD_TOO_LARGE)
            if size < 8:
                raise Fault(f"a chunk of {size} bytes", BAD_DECODING)
            if len(data) < size:
                return None
            if len(data) == size:
                frame = bytes(data)
                data.clear()
            else:
                frame = bytes(data[:size])
                del data[:size]
            found = self._frame(begins[0], begins[1], frame)
            if found is not None:
                return found

    def _frame(self, kind: bytes, final: bytes, frame: bytes) -> Body | None:
        if kind == b"MSG" and self.opened:  # nearly all are
            sequence, request, body = self._plain(frame)
            self._in_order(sequence, False)
            return self._collect(final, request, body)
        if kind == b"RHE":
            if not self.called:
                raise Fault("RHE where none is expected", BAD_MESSAGE_TYPE)
            self.called = False
            return Body(kind, 0, frame[8:])
        if self.called:
            raise Fault("another message than RHE from a server that has opened the connection", BAD_MESSAGE_TYPE)
        if kind in (b"HEL", b"ACK", b"ERR"):
            if kind == b"HEL" and not (self.server and not self.greeted):
                raise Fault("HEL where none is expected", BAD_MESSAGE_TYPE)
            if kind == b"ACK" and (self.server or self.greeted):
                raise Fault("ACK where none is expected", BAD_MESSAGE_TYPE)
            if kind == b"ERR" and self.server:
                raise Fault("ERR from a client", BAD_MESSAGE_TYPE)
            return Body(kind, 0, frame[8:])
        if not self.greeted:
            raise Fault("a message before HEL and ACK", BAD_MESSAGE_TYPE)
        if kind == b"OPN":
            sequence, request, body = self._open_frame(frame)
        else:
            if not self.opened:
                raise Fault("a message before OPN", BAD_CHANNEL)
            sequence, request, body = self._plain(frame)
        self._in_order(sequence, kind == b"OPN" and self._in_sequence < 0)
        if self._parts:
            raise Fault("a message within another one's chunks", BAD_DECODING, PART6_CHANNEL)
        return Body(kind, request, body)

    def _collect(self, final: bytes, request: int, body: bytes) -> Body | None:
        if self._parts and request != self._parts_request:
            raise Fault("chunks of two messages are mixed", BAD_DECODING, PART6_CHANNEL)
        if final == b"A":
            self._drop_parts()
            return Body(b"", request, b"")
        if final == b"F" and not self._parts:
            return Body(b"MSG", request, body)
        if not self._parts:
            self._parts_since, self._parts_request = self._now, request
        self._parts.append(body)
        self._parts_size += len(body)
        if self._parts_size > MESSAGE_BYTES or len(self._parts) > CHUNKS:
            raise Fault(
                f"a message of more than {MESSAGE_BYTES} bytes or {CHUNKS} chunks", BAD_TOO_LARGE, PART6_CHANNEL
            )
        if final != b"F":
            return None
        whole = b"".join(self._parts)
        self._drop_parts()
        return Body(b"MSG", request, whole)

    def _drop_parts(self) -> None:
        self._parts, self._parts_size, self._parts_since = [], 0, 0

    def _in_order(self, sequence: int, first: bool) -> None:
        last = self._in_sequence
        if not first and sequence != last + 1 and not (last > WRAP and sequence < 1024):
            raise Fault(f"sequence number {sequence} after {last}", BAD_SECURITY, PART6_CHANNEL)
        self._in_sequence = sequence

    def _plain(self, frame: bytes) -> tuple[int, int, bytes]:
        if len(frame) < 24:
            raise Fault("a chunk without its headers", BAD_DECODING)
        channel, number, sequence, request = _FOUR.unpack_from(frame, 8)
        if channel != self.id:
            raise Fault(f"channel {channel}, which is not this one", BAD_CHANNEL)
        token: _Token | None = None
        for one in self._tokens:
            if one.id == number:
                token = one
                break
        plain = b""
        try:
            if token is None or (self.server and self._now > token.until):
                raise SecurityError("no such token, or it is over")
            if token.receive is not None:
                plain = token.receive.reveal(frame[:16], frame[16:])
            if len(self._tokens) > 1 and token is self._tokens[-1]:
                self._tokens = [token]  # the peer has it: the one before it is over
                self._sending = token
        except SecurityError as error:
            raise Fault(f"security checks: {error}", BAD_SECURITY, PART6_CHANNEL) from None
        if token.receive is None:
            return sequence, request, frame[24:]
        sequence, request = _TWO.unpack_from(plain)
        return sequence, request, plain[8:]

    def _open_frame(self, frame: bytes) -> tuple[int, int, bytes]:
        reader = Reader(frame, 8)
        try:
            channel = reader.u32()
            uri, certificate, mark = reader.string(), reader.octets(), reader.octets()
        except Malformed as error:
            raise Fault(f"OPN: {error}", BAD_DECODING, PART6_CHANNEL) from None
        policy = security.BY_URI.get(uri or "")
        if policy is None:
            raise Fault(f"the security policy {(uri or '')[-64:]!r} is not spoken here", BAD_POLICY, PART6_CHANNEL)
        if channel != self.id and not (channel == 0 and not self.opened) and (self.server or self.opened):
            raise Fault(f"OPN for channel {channel}, which is not this one", BAD_CHANNEL)
        if not self.server and policy is not self.policy:
            raise Fault("the answer to OPN has another policy", BAD_SECURITY, PART6_CHANNEL)
        known = security.leaf_of(certificate or b"") == security.leaf_of(self.peer)
        if self.opened and (policy is not self.policy or not known):
            raise Fault("a renewal with another policy or certificate", BAD_SECURITY, PART6_CHANNEL)
        body = frame[reader.pos :]
        if policy is NONE:
            if certificate and self.server is False:
                certificate = None
            self.policy = policy
        else:
            if self.own is None:
                raise Fault("there is no key here for a secured channel", BAD_POLICY, PART6_CHANNEL)
            if mark != security.thumbprint(self.own.certificate) or not certificate:
                raise Fault("OPN for another certificate than ours", BAD_SECURITY, PART6_CHANNEL)
            if known and len(self.peer) > len(certificate):
                certificate = self.peer  # its authorities came the first time
            key = self._judge(certificate, policy)  # also at each renewal
            self._spend()
            try:
                body = security.reveal_asymmetric(policy, frame[: reader.pos], body, self.own.key, key)
            except SecurityError as wrong:
                raise Fault(f"security checks: {wrong}", BAD_SECURITY, PART6_CHANNEL) from None
            self.policy, self.peer, self.peer_key = policy, certificate, key
        if len(body) < 8:
            raise Fault("OPN without its headers", BAD_DECODING, PART6_CHANNEL)
        sequence, request = _TWO.unpack_from(body)
        if not self.server:
            self.id = channel
        return sequence, request, body[8:]

    # --- hello ----------------------------------------------------------------------------------------------------

    def hello(self, url: str) -> bytes:
        """A client's first word."""
        writer = Writer()
        for number in (0, self._buffer, self._buffer, MESSAGE_BYTES, CHUNKS):
            writer.u32(number)
        writer.string(url)
        data = writer.made()
        return _HEAD.pack(b"HEL", b"F", 8 + len(data)) + data

    def take_hello(self, data: bytes) -> tuple[str, bytes]:
        """(the URL that a client has dialled, our ACK). Raises: Fault."""
        reader = Reader(data)
        try:
            reader.u32()
            receive, send, most, chunks = (reader.u32() for _ in range(4))
            url = reader.string() or ""
            reader.done()
        except Malformed as error:
            raise Fault(f"HEL: {error}", BAD_DECODING) from None
        if len(url.encode()) >= URL_BYTES:
            raise Fault("HEL with a URL of 4,096 bytes or more", BAD_URL)
        if receive < LEAST_BUFFER or send < LEAST_BUFFER:
            raise Fault(f"HEL with buffers of {receive} and {send} bytes; at least 8,192 are taken", BAD_TOO_MANY)
        self._buffer = min(self._buffer, send)
        self._limits(receive, most, chunks)
        body = struct.pack("<IIIII", 0, self._buffer, self._send_size, MESSAGE_BYTES, CHUNKS)
        return url, _HEAD.pack(b"ACK", b"F", 28) + body

    def take_ack(self, data: bytes) -> None:
        """What a server agrees to. Raises: Fault."""
        if len(data) != 20:
            raise Fault("ACK of another size than 28", BAD_DECODING)
        _, receive, send, most, chunks = struct.unpack("<IIIII", data)
        if send > self._buffer or not LEAST_BUFFER <= receive <= self._buffer:
            raise Fault("ACK with other buffers than were offered", BAD_DECODING)
        self._limits(receive, most, chunks)

    def _limits(self, size: int, most: int, chunks: int) -> None:
        self.greeted = True
        self._send_size = min(size, BUFFER)
        self._send_most = min(most or 16 << 20, 16 << 20)
        self._send_chunks = chunks or 1024

    # --- tokens ---------------------------------------------------------------------------------------------------

    def opened_token(self, number: int, lifetime_ns: int, local: bytes, remote: bytes) -> None:
        """A token is agreed on: its keys come of the two nonces. A server sends with it once the client does."""
        send = receive = None
        if self.policy is not NONE:
            send = Keys(self.policy, self.mode, remote, local)
            receive = Keys(self.policy, self.mode, local, remote)
        grace = 5 if self.server else 3  # quarters: a client renews at three, a server takes an old one until five
        token = _Token(number, self._now + lifetime_ns * grace // 4, send, receive)
        self._tokens = [*self._tokens[-1:], token]
        if not self.opened or not self.server:
            self._sending = token
        self.opened = True

    def open_frame(self, request: int, body: bytes) -> bytes:
        """Our OPN, of either role."""
        writer = Writer()
        writer.raw(_HEAD.pack(b"OPN", b"F", 0))
        writer.u32(self.id)
        writer.string(self.policy.uri)
        plain = _TWO.pack(self._sequence(), request) + body
        if self.policy is NONE:
            writer.octets(None)
            writer.octets(None)
            head = writer.made()
            return head[:4] + struct.pack("<I", len(head) + len(plain)) + head[8:] + plain
        if self.own is None or self.peer_key is None:
            raise LocalProtocolError("a secured channel without certificates")
        writer.octets(self.own.sent)
        writer.octets(security.thumbprint(security.leaf_of(self.peer)))
        return security.asymmetric(self.policy, writer.made(), plain, self.own.key, self.peer_key)

    # --- out ------------------------------------------------------------------------------------------------------

    def request_id(self) -> int:
        """A client's next one."""
        self._request = self._request % 0xFFFFFFFF + 1
        return self._request

    def send(self, request: int, body: bytes, kind: bytes = b"MSG") -> bytes:
        """A body in as many chunks as it needs. Raises: LocalProtocolError where the peer takes no message so long."""
        token = self._sending
        if token is None:
            raise LocalProtocolError("the channel is not open")
        room = self._send_size - 16 - 8 - (0 if token.send is None else security.MAC_BYTES + security.BLOCK + 1)
        count = max(1, -(-len(body) // room))
        if len(body) > self._send_most or count > self._send_chunks:
            raise LocalProtocolError(f"a message of {len(body)} bytes, which the peer does not take")
        if count == 1 and token.send is None:
            return _CHUNK.pack(kind, b"F", 24 + len(body), self.id, token.id, self._sequence(), request) + body
        chunks = []
        for number in range(count):
            final = b"F" if number == count - 1 else b"C"
            plain = _TWO.pack(self._sequence(), request) + body[number * room : (number + 1) * room]
            head = _HEAD.pack(kind, final, 24 + len(plain) - 8) + _TWO.pack(self.id, token.id)
            chunks.append(head + plain if token.send is None else token.send.protect(head, plain))
        return b"".join(chunks)

    def _sequence(self) -> int:
        self._out_sequence = self._out_sequence + 1 if self._out_sequence < 0xFFFFFFFF else 1
        return self._out_sequence


def error_frame(status: int, reason: str = "") -> bytes:
    """ERR: the last word of a server. No reason is told but the code's."""
    writer = Writer()
    writer.u32(status)
    writer.string(reason or None)
    data = writer.made()
    return _HEAD.pack(b"ERR", b"F", 8 + len(data)) + data


_KINDS = frozenset((b"HEL", b"ACK", b"ERR", b"OPN", b"MSG", b"CLO", b"RHE"))
_BEGINS = {kind + b"F": (kind, b"F") for kind in _KINDS} | {b"MSG" + one: (b"MSG", one) for one in (b"C", b"A")}
"""What a chunk begins with: a message alone has more than one."""


def reverse_hello(uri: str, url: str) -> bytes:
    """RHE: the first word of a server that has opened the connection (OPC 10000-6, 7.1.2.6)."""
    writer = Writer()
    writer.string(uri)
    writer.string(url)
    data = writer.made()
    return _HEAD.pack(b"RHE", b"F", 8 + len(data)) + data


def take_reverse_hello(data: bytes) -> tuple[str, str]:
    """(the ApplicationUri that the server says it has, the URL that HEL is to have). Both are hints. Raises: Fault."""
    reader = Reader(data)
    try:
        uri, url = reader.string() or "", reader.string() or ""
        reader.done()
    except Malformed as error:
        raise Fault(f"RHE: {error}", BAD_DECODING) from None
    if max(len(uri.encode()), len(url.encode())) >= URL_BYTES:
        raise Fault("RHE with a URI or URL of 4,096 bytes or more", BAD_URL)
    return uri, url


def _may_start(data: bytes) -> bool:
    return any(kind.startswith(data) for kind in _KINDS)
