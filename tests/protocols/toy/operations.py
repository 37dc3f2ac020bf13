"""What the toy's messages mean."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import Asset, Assign, Call, Deny, Failure, Fault, Item, Opening, Operation, Span, Watch
from cofferdam.protocols.base import Protocol
from cofferdam.values import value_fault
from tests.protocols.toy import machine
from tests.protocols.toy import messages as m
from tests.protocols.toy.dialect import PATH, TOY
from tests.protocols.toy.machine import ToyClient, ToyServer, plain
from tests.protocols.toy.view import ToyView
from tests.protocols.toy.wire import LONGEST, frame

REFUSALS = {Fault.ADDRESS: 2, Fault.VALUE: 3, Fault.STEP: 3, Fault.RATE: 4, Fault.AUDIT: 4}
FAILURES = {Failure.BUSY: 4}


class Toy(Protocol[m.ToyRequest, m.ToyResponse]):
    """See `base.Protocol` for the methods' contracts."""

    dialect = TOY
    request_type = m.ToyRequest
    response_type = m.ToyResponse
    notice_type = m.News
    frame_type = m.Signals
    speaks = True
    view = ToyView()
    functions = {1: "read", 2: "write", 3: "call", 4: "subscribe", 5: "open", 7: "uptime", 8: "restart"}

    def server(self, *, midway: bool = False) -> ToyServer:
        return ToyServer(midway)

    def client(self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1, midway: bool = False) -> ToyClient:
        if quirks - TOY.quirks:
            raise LocalProtocolError(f"unknown quirks: {sorted(quirks - TOY.quirks)}")
        return ToyClient(midway, outstanding, "mute" in quirks)

    def check(self, message: Any) -> None:
        try:
            if plain(message) != message:
                raise CrossingError("a name that is not spelt as everywhere")
            if len(frame(0, message)) > LONGEST:
                raise CrossingError("a message that no frame can hold")
        except ValueError as error:
            raise CrossingError(str(error)) from None
        for one in message.signals if isinstance(message, m.Signals) else ():
            if not PATH.match(one.name):
                raise CrossingError(f"a signal named {one.name!r}")
        for value in _values(message):
            if value is not None and value_fault(value):
                raise CrossingError(value_fault(value))

    def mismatch(self, request: m.ToyRequest, response: m.ToyResponse) -> str:
        return machine.mismatch(request, response)

    def operation(self, request: m.ToyRequest) -> Operation:
        match request:
            case m.Read(items):
                return Operation(1, -1, -1, False, items)
            case m.Write(writes):
                return Operation(2, -1, -1, True, (), writes)
            case m.CallMethod(item, arguments):
                return Operation(3, -1, -1, True, (), (Call(item, arguments),))
            case m.Subscribe(item, interval_us):
                return Operation(4, -1, -1, False, (Watch(item, interval_us),))
            case m.Open(item, interval_us):
                return Operation(5, -1, -1, True, (), (Opening(item, interval_us),))
            case m.Uptime():
                return Operation(7, -1, -1, False)
        return Operation(8, -1, -1, True)

    def refusal(self, request: m.ToyRequest, deny: Deny) -> m.Refusal:
        return m.Refusal(REFUSALS.get(deny.fault, 1))

    def failure(self, request: m.ToyRequest, failure: Failure) -> m.Refusal:
        return m.Refusal(FAILURES.get(failure, 5))

    def is_error(self, response: m.ToyResponse) -> bool:
        return isinstance(response, m.Refusal)

    def error_code(self, response: m.ToyResponse) -> int:
        return response.code if isinstance(response, m.Refusal) else 0

    def read_request(self, unit: int, place: Span | Item) -> m.Read:
        if not isinstance(place, Item):
            raise LocalProtocolError("the toy has no cells")
        return m.Read((place,))

    def values(self, request: m.ToyRequest, response: m.ToyResponse) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        return ()

    def item_values(self, request: m.ToyRequest, response: m.ToyResponse) -> tuple[Assign, ...]:
        if isinstance(request, m.Read) and isinstance(response, m.Values):
            return tuple(Assign(item, value) for item, value in zip(request.items, response.values, strict=True))
        return ()

    def frame_operation(self, request: m.ToyRequest, frame: Any, asset: Asset) -> Operation:
        if not isinstance(request, m.Open):
            raise LocalProtocolError("no stream")
        parts = [Assign(Item("io", f"{request.item.name}.{one.name}"), one.value) for one in frame.signals]
        return Operation(6, -1, -1, True, (), tuple(parts))

    def misfit(self, request: m.ToyRequest, message: Any) -> str:
        fitting = m.Subscribe if isinstance(message, m.News) else m.Open
        return "" if isinstance(request, fitting) else f"{type(message).__name__} after {type(request).__name__}"

    def share_key(self, request: m.ToyRequest) -> Hashable | None:
        return request if isinstance(request, m.Read) else None

    def slice(
        self, request: m.ToyRequest, wider_request: m.ToyRequest, wider_response: m.ToyResponse
    ) -> m.ToyResponse | None:
        return wider_response if request == wider_request else None


def _values(message: Any) -> tuple[Any, ...]:
    match message:
        case m.Write(writes):
            return tuple(write.value for write in writes)
        case m.CallMethod(_, arguments):
            return arguments
        case m.Values(values):
            return values
        case m.News(value):
            return (value,)
        case m.Signals(signals):
            return tuple(one.value for one in signals)
    return ()
