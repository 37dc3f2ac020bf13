"""The two sides of a Modbus TCP connection, without the connection.

Theory. A stream is a row of frames, each with a header that says how long it is. A frame whose header is wrong
(protocol id, length) leaves no way to find the next one, so the stream is over: RemoteProtocolError. A frame whose
header is right and whose content is wrong is answered (server side: the exception response of the standard) or
reported (client side: BadResponse), and the stream goes on. Both machines have two states, "open" and "failed";
`_error` is the state.

Server side: several requests may be open at once, told apart by the client's transaction id. A second request with the
id of one that is still open is either that one again, word for word, and then the first's answer is for both; or it is
another, which waits, with all that comes behind it, until the first was answered: so no answer is taken for that of
another.

Client side: we choose the transaction ids. An answer belongs to the request with its id, and must also fit it in unit,
function and content. Life of an id:

    free --send--> pending --answer--> free
                   pending --forget--> forgotten --late answer (discarded)--> free
                                       forgotten --all 65,536 ids were used meanwhile--> pending, by send

Not here: bytes of messages (requests, responses), devices with other frames (framings), timers and sockets (brokers).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as StructError
from typing import Final

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Asset
from cofferdam.protocols.base import (
    NEED_DATA,
    WAITS,
    BadResponse,
    ClientCallEvent,
    ClientMachine,
    Repeated,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    ServerCallEvent,
    ServerMachine,
    Unmatched,
    Waits,
)
from cofferdam.protocols.modbus import quirks as odd
from cofferdam.protocols.modbus import requests, responses
from cofferdam.protocols.modbus.dialect import MODBUS
from cofferdam.protocols.modbus.messages import (
    CELLS,
    FUNCTIONS,
    ExceptionResponse,
    ModbusRequest,
    ModbusResponse,
    ReadCoils,
    ReadDiscreteInputs,
    ReadHoldingRegisters,
    ReadHoldingRegistersResponse,
    ReadInputRegisters,
    ReadInputRegistersResponse,
    VendorRead,
    VendorWrite,
)
from cofferdam.protocols.modbus.wire import (
    GUIDE,
    HEAD,
    MAX_ADU,
    MBAP_SECTION,
    PDU_SECTION,
    Misfit,
    RefusedRequest,
    head_error,
    partial_error,
    unencodable,
)

ANY_UNIT: Final = "any_unit"
ANSWERS_TWICE: Final = "answers_twice"
ZERO_TRANSACTION_ID: Final = "zero_transaction_id"
WRONG_TRANSACTION_ID: Final = "wrong_transaction_id"
QUIRKS: Final = MODBUS.quirks
"""What an asset may be declared to do wrong; docs/protocol-modbus.md explains each."""
BY_ORDER: Final = MODBUS.lone_quirks
"""Quirks under which an answer can only be matched by order, so that one request may be out at a time."""
MAX_OUTSTANDING: Final = 16
"""Requests under way on one connection (messaging guide: 1 to 16)."""

_SERIALS: Final = 1 << 30
READS: Final = frozenset({ReadCoils, ReadDiscreteInputs, ReadHoldingRegisters, ReadInputRegisters})
READ_ADU: Final = 12
LAST_READ: Final = 4
"""Reads are the functions 1 to 4, and their frames have 12 bytes."""
# Named here, these are found without a look into the module, for each message.
_RECEIVED: Final = RequestReceived
_ANSWERED: Final = ResponseReceived
_BYTES: Final = [bytes((byte,)) for byte in range(256)]
REMEMBERED: Final = 2048
"""Frames of reads whose meaning is remembered; all are forgotten when one more comes."""


class Form:
    """What follows from a request alone. Of a read of registers that was decoded or encoded before also what its frame
    is, and what stands in a good answer before the registers; both without the transaction id. `size`: bytes of the
    registers; 0 where a good answer is no row of registers, or the request is no read that is remembered."""

    __slots__ = ("answers", "frame", "function", "head", "request", "size")

    def __init__(self, request: ModbusRequest, frame: bytes = b"") -> None:
        self.request = request
        self.frame = frame
        self.answers: Callable[[bytes], ModbusResponse] = ReadHoldingRegistersResponse
        self.function = 0
        self.head = b""
        self.size = 0
        if frame and isinstance(request, (ReadHoldingRegisters, ReadInputRegisters)):
            if isinstance(request, ReadInputRegisters):
                self.answers = ReadInputRegistersResponse
            self.function = LAST_READ if isinstance(request, ReadInputRegisters) else LAST_READ - 1
            self.size = 2 * request.count
            self.head = HEAD.pack(0, 0, self.size + 3, request.unit, self.function)[2:] + bytes((self.size,))


class Meanings:
    """What reads mean that were decoded, and how they were encoded, before: by the exact bytes of a frame without its
    transaction id, which is what a poller repeats for years, and by the message. Functions 1 to 4 alone, which change
    nothing; who is allowed them is policy's to say each time. Shared by the machines of a protocol."""

    __slots__ = ("_forms", "_requests")

    def __init__(self) -> None:
        self._requests: dict[bytes, Form] = {}
        self._forms: dict[ModbusRequest, Form] = {}

    def request(self, body: bytes) -> Form | None:
        """The form of the request that unit and PDU of a frame were decoded to."""
        return self._requests.get(body)

    def decoded(self, body: bytes, request: ModbusRequest) -> None:
        """What they were decoded to, for the next time."""
        if len(self._requests) >= REMEMBERED:
            self._requests.clear()
        self._requests[body] = Form(request, b"\0\0" + len(body).to_bytes(2, "big") + body)

    def form(self, request: ModbusRequest) -> Form | None:
        """The form of a request that was encoded."""
        return self._forms.get(request)

    def encoded(self, request: ModbusRequest, frame: bytes) -> Form:
        """What it was encoded to, without the transaction id at its front, for the next time."""
        if len(self._forms) >= REMEMBERED:
            self._forms.clear()
        form = self._forms[request] = Form(request, frame)
        return form


class _Open:
    """A request that is neither answered nor released; `event`: what was said of it. `form` of one that came before."""

    __slots__ = ("event", "form", "id", "token")

    def __init__(
        self, token: int, event: RequestReceived[ModbusRequest] | RequestRefused[ModbusResponse], id: bytes,
        form: Form | None,
    ) -> None:  # fmt: skip
        self.token = token
        self.event = event
        self.id = id
        self.form = form


class ModbusServer(ServerMachine[ModbusRequest, ModbusResponse]):
    """The server's end of a connection from a client. See `ServerMachine` for the methods' contracts.

    A token is `serial << 32 | transaction id << 16 | unit << 8 | function`.
    """

    __slots__ = ("_at", "_data", "_error", "_meanings", "_open", "_serial", "_vendor", "_vendor_writes")

    def __init__(self, meanings: Meanings | None = None) -> None:
        self._meanings = meanings or Meanings()
        # Functions of vendors that the policy knows at the asset, and those of them that may change it.
        self._vendor: frozenset[int] = frozenset()
        self._vendor_writes: frozenset[int] = frozenset()
        self._data = b""
        self._at = 0
        self._open: dict[int, _Open] = {}
        self._serial = 0
        self._error: RemoteProtocolError | None = None

    def take_asset(self, asset: Asset) -> None:
        self._vendor_writes = frozenset(asset.vendor_writes)
        self._vendor = self._vendor_writes | frozenset(asset.vendor_reads)

    def _decode(self, data: bytes, at: int, end: int, unit: int, function: int) -> ModbusRequest:
        """The request of a whole frame, whose PDU begins at `at`. Raises: RefusedRequest."""
        if self._vendor and function in self._vendor and function not in FUNCTIONS:
            if function in self._vendor_writes:
                return VendorWrite(unit, function, data[at + 1 : end])
            return VendorRead(unit, function, data[at + 1 : end])
        return requests.DECODERS[function](data, at + 1, end, unit)

    def receive_data(self, data: bytes) -> None:
        if self._data:
            self._data = self._data[self._at :] + data
            self._at = 0
        else:
            self._data = data

    def next_event(self) -> ServerCallEvent[ModbusRequest, ModbusResponse]:
        data = self._data
        if self._error is not None:
            raise self._error
        if not data:
            return NEED_DATA
        at = self._at
        have = len(data) - at
        if have < 8:
            error = partial_error(data, at)
            if error is not None:
                self._fail(error)
            return NEED_DATA
        # By single bytes: numbers that are unpacked together are objects to the compiler, each of them.
        length = data[at + 4] << 8 | data[at + 5]
        if data[at + 2] or data[at + 3] or not 2 <= length <= 254:
            self._fail(head_error(data[at + 2] << 8 | data[at + 3], length))
        size = 6 + length
        if have < size:
            return NEED_DATA
        transaction = data[at] << 8 | data[at + 1]
        if self._open and transaction in self._open:
            return self._twice(transaction, at, size)
        unit, function = data[at + 6], data[at + 7]
        if have == size:
            self._data = b""
            self._at = 0
        else:
            self._at = at + size
        serial = self._serial + 1
        if serial == _SERIALS:
            serial = 0
        self._serial = serial
        token = serial << 32 | transaction << 16 | unit << 8 | function
        event: RequestReceived[ModbusRequest] | RequestRefused[ModbusResponse]
        body = b""
        if size == READ_ADU and function <= LAST_READ:
            body = data[at + 6 : at + size]
            form = self._meanings.request(body)
            if form is not None:
                event = _RECEIVED(token, form.request)
                self._open[transaction] = _Open(token, event, data[at : at + 2], form)
                return event
        try:
            request = self._decode(data, at + 7, at + size, unit, function)
            event = RequestReceived(token, request)
            if body:
                self._meanings.decoded(body, request)
        except RefusedRequest as refused:
            reply = ExceptionResponse(function & 0x7F, refused.code)
            event = RequestRefused(token, reply, refused.section, refused.detail, function)
        self._open[transaction] = _Open(token, event, b"", None)
        return event

    def _twice(self, transaction: int, at: int, size: int) -> Repeated | Waits:
        """What a whole frame is whose transaction id is in use."""
        if not self._again(transaction, at, size):
            return WAITS
        self._at = at + size
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        return Repeated(self._open[transaction].token)

    def _again(self, transaction: int, at: int, size: int) -> bool:
        """Whether the frame there is the request that is open under its transaction id, word for word."""
        first = self._open[transaction].event
        _, _, _, unit, function = HEAD.unpack_from(self._data, at)
        if not isinstance(first, RequestReceived) or first.token & 0xFFFF != unit << 8 | function:
            return False
        try:
            return bool(self._decode(self._data, at + 7, at + size, unit, function) == first.request)
        except RefusedRequest:
            return False

    def _fail(self, error: RemoteProtocolError | None) -> None:
        if error is not None:
            self._error = error
            self._data = b""
            self._at = 0
            raise error

    def send(self, token: int, response: ModbusResponse) -> bytes:
        transaction = token >> 16 & 0xFFFF
        first = self._open.get(transaction)
        if first is None or first.token != token:
            raise LocalProtocolError(f"token {token:#x} is not open: answered already, released, or never given")
        try:
            function, encode = responses.ENCODERS[type(response)]
            if function != token & 0xFF and (
                function != -1 or getattr(response, "function", -1) != token & 0x7F
            ):  # fmt: skip
                raise LocalProtocolError(
                    f"{type(response).__name__} does not answer a request with function {token & 0xFF}"
                )
            adu = encode(transaction, token >> 8 & 0xFF, response)
        except (StructError, ValueError, IndexError, KeyError, TypeError) as error:
            raise unencodable(response, error) from None
        if len(adu) > MAX_ADU:
            raise unencodable(response, f"{len(adu)} bytes, a frame has at most {MAX_ADU}")
        del self._open[transaction]
        return adu

    def answer(self, token: int, row: bytes) -> bytes:
        transaction = token >> 16 & 0xFFFF
        first = self._open.get(transaction)
        if first is None or first.token != token:
            raise LocalProtocolError(f"token {token:#x} is not open: answered already, released, or never given")
        form = first.form
        if form is None or not form.size or len(row) != form.size:
            return b""
        del self._open[transaction]
        return first.id + form.head + row

    def release(self, token: int) -> None:
        transaction = token >> 16 & 0xFFFF
        first = self._open.get(transaction)
        if first is not None and first.token == token:
            del self._open[transaction]

    @property
    def buffered(self) -> int:
        return len(self._data) - self._at

    @property
    def open(self) -> int:
        return len(self._open)


class ModbusClient(ClientMachine[ModbusRequest, ModbusResponse]):
    """The client's end of a connection to an asset. See `ClientMachine` for the methods' contracts.

    A token is the transaction id that we chose. `first` is the first one (0 to 65535).
    """

    __slots__ = (
        "_answered", "_any_unit", "_at", "_by_order", "_data", "_error", "_forgiving", "_forgotten", "_meanings",
        "_next", "_outstanding", "_pending", "_spoilt", "_twice", "_zero_only",
    )  # fmt: skip

    def __init__(
        self,
        *,
        quirks: frozenset[str] = frozenset(),
        outstanding: int = 1,
        first: int = 1,
        meanings: Meanings | None = None,
    ) -> None:
        self._meanings = meanings or Meanings()
        unknown = quirks - QUIRKS
        if unknown:
            raise LocalProtocolError(
                f"unknown quirk {', '.join(sorted(unknown))}", hint=f"known: {', '.join(sorted(QUIRKS))}"
            )
        if not 1 <= outstanding <= MAX_OUTSTANDING:
            raise LocalProtocolError(f"outstanding {outstanding}, must be 1 to {MAX_OUTSTANDING}")
        self._by_order = bool(quirks & BY_ORDER)
        if self._by_order and outstanding != 1:
            raise LocalProtocolError(
                f"quirk {', '.join(sorted(quirks & BY_ORDER))} needs outstanding 1, not {outstanding}",
                hint="answers without a usable transaction id can be told apart only by their order",
            )
        self._zero_only = WRONG_TRANSACTION_ID not in quirks
        self._any_unit = ANY_UNIT in quirks
        self._twice = ANSWERS_TWICE in quirks and not self._by_order
        self._answered: list[int] = []
        """Ids of answers that may come once more, the oldest first."""
        self._forgiving = quirks & odd.FORGIVING
        self._outstanding = outstanding
        self._next = first % CELLS
        self._pending: dict[int, Form] = {}
        self._forgotten: set[int] = set()
        self._data = b""
        self._at = 0
        self._spoilt = False
        self._error: RemoteProtocolError | None = None

    def send(self, request: ModbusRequest) -> tuple[int, bytes]:
        pending = self._pending
        if len(pending) >= self._outstanding:
            raise LocalProtocolError(f"{len(pending)} requests are under way, at most {self._outstanding} may be")
        if self._error is not None or self._spoilt:
            raise LocalProtocolError(
                "this connection must be closed: " + (str(self._error) if self._error else "a request timed out on it")
            )
        token = self._next
        while pending and token in pending:
            token = (token + 1) & 0xFFFF
        form = self._meanings.form(request)
        if form is not None:
            adu = _BYTES[token >> 8] + _BYTES[token & 0xFF] + form.frame
        else:
            try:
                adu = requests.ENCODERS[type(request)](token, request)
            except (StructError, ValueError, IndexError, KeyError, TypeError) as error:
                raise unencodable(request, error) from None
            if len(adu) > MAX_ADU:
                raise unencodable(request, f"{len(adu)} bytes, a frame has at most {MAX_ADU}")
            form = self._meanings.encoded(request, adu[2:]) if type(request) in READS else Form(request)
        self._next = (token + 1) & 0xFFFF
        if self._forgotten:
            # Every other id was used since this one was forgotten; an answer as late as that is not to be expected.
            self._forgotten.discard(token)
        pending[token] = form
        return token, adu

    def receive_data(self, data: bytes) -> None:
        if self._data:
            self._data = self._data[self._at :] + data
            self._at = 0
        else:
            self._data = data

    def next_event(self) -> ClientCallEvent[ModbusResponse]:
        data = self._data
        if self._error is not None:
            raise self._error
        if not data:
            return NEED_DATA
        at = self._at
        have = len(data) - at
        if have < 8:
            error = partial_error(data, at)
            if error is not None:
                self._fail(error)
            return NEED_DATA
        transaction = data[at] << 8 | data[at + 1]
        form = self._pending.get(transaction)
        if form is not None and form.size and not self._twice:
            # The good answer to a read that was asked before: all bytes before the registers are what they have to be.
            start = at + 9
            end = start + form.size
            if end <= len(data) and data[at + 2 : start] == form.head:
                del self._pending[transaction]
                if end == len(data):
                    self._data = b""
                    self._at = 0
                else:
                    self._at = end
                return _ANSWERED(transaction, form.answers(data[start:end]))
        length = data[at + 4] << 8 | data[at + 5]
        if data[at + 2] or data[at + 3] or not 2 <= length <= 254:
            self._fail(head_error(data[at + 2] << 8 | data[at + 3], length))
        size = 6 + length
        if have < size:
            return NEED_DATA
        unit, function = data[at + 6], data[at + 7]
        if have == size:
            self._data = b""
            self._at = 0
        else:
            self._at = at + size
        if form is not None:
            del self._pending[transaction]
        else:
            if transaction in self._answered:
                self._answered.remove(transaction)
                return self.next_event()
            if not self._by_order:
                return self._unmatched(transaction)
            taken = self._take_in_order(transaction)
            if taken is None:
                return self._unmatched(transaction)
            transaction, form = taken
        request = form.request
        if self._twice:
            self._comes_again(transaction)
        kind = type(request)
        asked = requests.FUNCTION_OF[kind] or requests.function_of(request)
        if unit != request.unit and not self._any_unit:
            return BadResponse(transaction, MBAP_SECTION, f"unit {unit}, the request has {request.unit}")
        try:
            if function == asked:
                response = responses.DECODERS[kind](data, at + 8, at + size, request)
            elif function == asked | 0x80:
                response = responses.decode_exception(data, at + 8, at + size, asked)
            else:
                return BadResponse(transaction, PDU_SECTION, f"function code {function}, the request has {asked}")
        except Misfit as fault:
            if not self._forgiving:
                return BadResponse(transaction, fault.section, fault.detail)
            try:
                response = odd.forgiven(self._forgiving, data[at + 7 : at + size], request)
            except Misfit as still:
                return BadResponse(transaction, still.section, still.detail)
        return ResponseReceived(transaction, response)

    def _take_in_order(self, transaction: int) -> tuple[int, Form] | None:
        """The one request under way, for devices whose transaction ids are known to be wrong."""
        if self._zero_only and transaction:
            return None
        if not self._pending:
            # Whose answer this is cannot be known, so neither can the next one's.
            self._fail(
                RemoteProtocolError(
                    "an answer while nothing was asked, from a device whose transaction ids say nothing",
                    section=GUIDE + "4.4.1.3",
                    offset=0,
                )
            )
        return self._pending.popitem()

    def _comes_again(self, transaction: int) -> None:
        self._answered = [*self._answered[1 - MAX_OUTSTANDING :], transaction]

    def _unmatched(self, transaction: int) -> Unmatched:
        if transaction in self._forgotten:
            self._forgotten.remove(transaction)
            if self._twice:
                self._comes_again(transaction)
            return Unmatched(f"a late answer: the request with transaction id {transaction} has timed out")
        return Unmatched(f"transaction id {transaction} is not under way: answered already or never asked")

    def _fail(self, error: RemoteProtocolError | None) -> None:
        if error is not None:
            self._error = error
            self._data = b""
            self._at = 0
            raise error

    def forget(self, token: int) -> None:
        if self._pending.pop(token, None) is not None:
            self._forgotten.add(token)
            if self._by_order:
                self._spoilt = True

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def buffered(self) -> int:
        return len(self._data) - self._at

    @property
    def drop_after_timeout(self) -> bool:
        return self._by_order
