"""What OPC UA's messages mean, and the protocol itself."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import NAME_LENGTH, PAST, Assign, Call, Deny, Failure, Fault, Item, Operation, Span, Watch
from cofferdam.protocols.base import Facing, Protocol
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import together
from cofferdam.protocols.opcua.bystander import OpcUaBystander
from cofferdam.protocols.opcua.conditions import KIND, told_of
from cofferdam.protocols.opcua.dialect import (
    ARROW,
    BROWSE,
    CALL,
    HISTORY,
    OPCUA,
    READ,
    TELLS,
    WATCH,
    WRITE,
    field_path,
    split,
)
from cofferdam.protocols.opcua.events import asked_fields, field_item
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import FOREIGN, too_much
from cofferdam.protocols.opcua.trust import Trust
from cofferdam.protocols.opcua.view import OpcUaView
from cofferdam.values import Bool, Float64, Int8, Int16, Int32, Int64, Text, UInt8, UInt16, UInt32, value_fault

DENIED, AWAY, TIMEOUT, BUSY, RANGE, RESOURCE = 0x801F0000, 0x80310000, 0x800A0000, 0x80EE0000, 0x803C0000, 0x80040000
_FAULTS = {Fault.VALUE: RANGE, Fault.STEP: RANGE, Fault.RATE: BUSY, Fault.SEVERED: AWAY, Fault.AUDIT: RESOURCE}
_FAILURES = {Failure.UNREACHABLE: AWAY, Failure.TIMEOUT: TIMEOUT, Failure.BUSY: BUSY, Failure.BAD_REPLY: AWAY}
_ANSWERS: dict[type, type] = {
    m.Read: m.Values, m.Write: m.Written, m.CallMethod: m.Outputs, m.CallMethods: m.Results,
    m.Survey: m.Described, m.History: m.Samples,
    m.Subscribe: m.Subscribed, m.Events: m.Subscribed,
}  # fmt: skip
_SURE = frozenset({Bool, Int8, UInt8, Int16, UInt16, Int32, UInt32, Int64, Float64})
"""Values that are in their range as soon as they are decoded (model.value_fault)."""
_KINDS: dict[type, str] = {
    m.Survey: "about",
    m.History: "history",
    m.Subscribe: "node",
    m.Events: "event",
}


class OpcUa(Protocol[m.OpcUaRequest, m.OpcUaResponse]):
    """See `base.Protocol` for the methods' contracts."""

    dialect = OPCUA
    request_type = m.OpcUaRequest
    response_type = m.OpcUaResponse
    notice_type = m.OpcUaNotice
    repeats = True
    speaks = True
    view = OpcUaView()
    functions = {
        READ: "Read", WRITE: "Write", CALL: "Call", BROWSE: "Browse", HISTORY: "HistoryRead",
        WATCH: "CreateMonitoredItems",
    }  # fmt: skip

    def bystander(self, known: dict[str, Any]) -> OpcUaBystander:
        return OpcUaBystander(self.check, known)

    def common(self, secrets: Mapping[str, bytes]) -> Trust:
        return Trust(secrets)

    def command(self, common: Trust, verb: str, arguments: bytes) -> Any:
        return common.command(verb, arguments)

    def alarms(self, common: Trust, wall: int) -> dict[str, str]:
        return common.alarms(wall)

    def server(self, *, midway: bool = False) -> OpcUaServer:
        return OpcUaServer(None)

    def client(
        self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1, midway: bool = False
    ) -> OpcUaClient:
        if quirks - OPCUA.quirks:
            raise LocalProtocolError(f"unknown quirks: {sorted(quirks - OPCUA.quirks)}")
        return OpcUaClient(None, outstanding, quirks)

    def server_facing(self, facing: Facing) -> OpcUaServer:
        return OpcUaServer(facing)

    def client_facing(
        self, facing: Facing, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1
    ) -> OpcUaClient:
        return OpcUaClient(facing, outstanding, quirks)

    def check(self, message: Any) -> None:
        if type(message) is m.Numbers:
            wrong = together.fault(message)
            if wrong:
                raise CrossingError(wrong)
            return
        for kind, item in _items(message):
            _check_item(kind, item)
        for value in _values(message):
            if value is None:
                continue
            if not value.array and len(value.values) != 1:
                raise CrossingError("a single value that is none")
            kind_of = type(value)
            if kind_of in _SURE:  # nearly all are: nothing more can be wrong with it
                continue
            fault = value_fault(value) if kind_of not in FOREIGN else ""
            if fault:
                raise CrossingError(fault)
            if type(value) is m.Structures:
                _check_name(value.encoding)
            if type(value) is m.Nodes:
                for name in value.values:
                    _check_name(name)
        # By exact types, here and below: isinstance takes a thousand instructions for each kind that a message is not.
        if type(message) is m.Values or type(message) is m.Changed or type(message) is m.Samples:
            for sample in message.samples:
                if sample.dimensions and not _is_matrix(sample):
                    raise CrossingError("dimensions of another value")
        if type(message) is m.Write:
            texts = [place for place, one in enumerate(message.writes) if isinstance(one.value, Text)]
            if not set(message.localized) <= set(texts):
                raise CrossingError("a localized text that is no text")
            for write in message.writes:
                if write.value is None:
                    raise CrossingError("a write of nothing")
                if write.item.first >= 0 and not write.value.array:
                    raise CrossingError("a single value for elements")  # a part of a text is no element
        if type(message) is m.Described:
            _check_described(message)
        if type(message) is m.Events:
            _check_events(message)
        for call in message.calls if type(message) is m.CallMethods else (message,):
            if type(call) is not m.CallMethod:
                break
            if call.item.kind == KIND:
                told = told_of(call)
                if told is None:
                    raise CrossingError("a condition is told what none can be")
                _check_name(told[2])
                continue
            texts = [place for place, one in enumerate(call.arguments) if isinstance(one, Text)]
            if not set(call.localized) <= set(texts):
                raise CrossingError("a localized text that is no text")

    def mismatch(self, request: m.OpcUaRequest, response: m.OpcUaResponse) -> str:
        if type(response) is m.Refused:
            return "" if response.status & 0x80000000 else "a refusal with a good status"
        if type(response) is m.Numbers and type(request) is m.Read:
            count = len(response.heads) // m.HEAD_BYTES
            return together.fault(response) or _too_few(count, len(request.items))
        if type(response) is not _ANSWERS[type(request)]:
            return f"{type(response).__name__} does not answer {type(request).__name__}"
        if isinstance(response, m.Values) and isinstance(request, m.Read):
            if wrong := _too_few(len(response.samples), len(request.items)):
                return wrong
            if _all_numbers(response.samples):
                return ""
            for item, sample in zip(request.items, response.samples, strict=True):
                if too_much(item, sample):
                    return f"more elements than {item.count} of {item.name}"
        elif isinstance(response, m.Written) and isinstance(request, m.Write):
            if len(response.results) != len(request.writes):
                return f"{len(response.results)} results for {len(request.writes)} writes"
        elif isinstance(response, m.Results) and isinstance(request, m.CallMethods):
            if len(response.results) != len(request.calls):
                return f"{len(response.results)} results for {len(request.calls)} calls"
        elif (
            isinstance(response, m.Samples)
            and isinstance(request, m.History)
            and len(response.samples) > request.most + 2
        ):
            return f"{len(response.samples)} values where {request.most} were asked for"
        try:
            self.check(response)
        except CrossingError as error:
            return str(error)
        return ""

    def operation(self, request: m.OpcUaRequest) -> Operation:
        if isinstance(request, m.Read):
            return Operation(READ, -1, -1, False, request.items)
        if isinstance(request, m.Write):
            return Operation(WRITE, -1, -1, True, (), request.writes)
        if isinstance(request, m.CallMethod):
            return Operation(CALL, -1, -1, True, (), (Call(request.item, request.arguments),))
        if isinstance(request, m.CallMethods):
            return Operation(CALL, -1, -1, True, (), tuple([Call(one.item, one.arguments) for one in request.calls]))
        if isinstance(request, m.Survey):
            return Operation(BROWSE, -1, -1, False, request.items)
        if isinstance(request, m.History):
            return Operation(HISTORY, -1, -1, False, (past(request),))
        watch = Watch(request.item, request.interval_us)
        if isinstance(request, m.Events):  # a watch of the notifier, and of each field a read
            fields = [field_item(request.item, field) for field in asked_fields(request)]
            return Operation(WATCH, -1, -1, False, (watch, *fields))
        return Operation(WATCH, -1, -1, False, (watch,))

    def refusal(self, request: m.OpcUaRequest, deny: Deny) -> m.Refused:
        return m.Refused(_FAULTS.get(deny.fault, DENIED))

    def failure(self, request: m.OpcUaRequest, failure: Failure) -> m.Refused:
        return m.Refused(_FAILURES[failure])

    def is_error(self, response: m.OpcUaResponse) -> bool:
        return self.error_code(response) != 0

    def error_code(self, response: m.OpcUaResponse) -> int:
        if type(response) is m.Refused:
            return response.status
        if type(response) is m.Outputs:
            return response.status if response.status & 0x80000000 else 0
        if type(response) is m.Results:
            return next((one.status for one in response.results if one.status & 0x80000000), 0)
        if type(response) is m.Written:
            return next((status for status in response.results if status & 0x80000000), 0)
        return 0

    def read_request(self, unit: int, place: Span | Item) -> m.Read:
        if not isinstance(place, Item) or place.kind != "node":
            raise LocalProtocolError("OPC UA reads nodes")
        return m.Read((place,))

    def values(
        self, request: m.OpcUaRequest, response: m.OpcUaResponse
    ) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        return ()

    def item_values(self, request: m.OpcUaRequest, message: Any) -> tuple[Assign, ...]:
        if type(request) is m.Subscribe and type(message) is m.Changed:
            request, message = m.Read((request.item,)), m.Values(message.samples[-1:])
        if type(message) is m.Numbers:
            message = together.one_by_one(message)
        if not isinstance(request, m.Read) or not isinstance(message, m.Values):
            return ()
        found: list[Assign] = []
        for item, sample in zip(request.items, message.samples, strict=True):
            value: Any = sample.value
            good = value is not None and not sample.status & 0xC0000000
            if good and type(value) not in FOREIGN and not sample.dimensions:
                found.append(Assign(item, value))
        return tuple(found)

    def misfit(self, request: m.OpcUaRequest, message: Any) -> str:
        if isinstance(request, m.Events) and isinstance(message, m.Happened):
            if any(len(event) != len(request.fields) for event in message.events):
                return f"an event of other than {len(request.fields)} fields"
            return self._wrong(message)
        if isinstance(message, m.Happened) or isinstance(request, m.Events):
            return f"{type(message).__name__} after {type(request).__name__}"
        if not isinstance(request, m.Subscribe):
            return f"news after {type(request).__name__}"
        if any(too_much(request.item, sample) for sample in message.samples):
            return f"more elements than {request.item.count} of {request.item.name}"
        return self._wrong(message)

    def _wrong(self, message: Any) -> str:
        try:
            self.check(message)
        except CrossingError as error:
            return str(error)
        return ""

    def share_key(self, request: m.OpcUaRequest) -> Hashable | None:
        return request if isinstance(request, m.Read) else None

    def slice(
        self, request: m.OpcUaRequest, wider_request: m.OpcUaRequest, wider_response: m.OpcUaResponse
    ) -> m.OpcUaResponse | None:
        return wider_response if request == wider_request else None


def past(request: m.History) -> Item:
    """What of the past is asked for: so many seconds, or all of it where an end is open."""
    if not request.start or not request.end:
        return request.item
    seconds = -(-abs(request.end - request.start) // 10_000_000)
    return Item(PAST, request.item.name, 0, min(max(seconds, 1), 1 << 31))


def _too_few(values: int, items: int) -> str:
    return "" if values == items else f"{values} values for {items} items"


def _all_numbers(samples: tuple[m.Sample, ...]) -> bool:
    """Whether all are single numbers, as they nearly always are: with these nothing can be wrong, and no range can have
    too few elements for them."""
    for sample in samples:
        value: Any = sample.value
        if type(value) not in _SURE or value.array or len(value.values) != 1 or sample.dimensions:
            return False
    return True


def _check_name(name: str) -> None:
    try:
        split(name)
    except ValueError as error:
        raise CrossingError(str(error)) from None


def _check_item(kind: str, item: Item) -> None:
    if item.kind != kind:
        raise CrossingError(f"a {item.kind} where a {kind} is due")
    if item.fault or (item.first >= 0 and (kind != "node" or item.stop > 1 << 31)):
        raise CrossingError(item.fault or "a range where there is none")
    if kind == KIND:
        owner, _, verb = item.name.rpartition(ARROW)
        if verb not in TELLS:
            raise CrossingError(f"{item.name!r} is nothing that a condition is told")
        _check_name(owner)
    elif kind == "method" or (kind == "about" and ARROW in item.name):
        owner, arrow, own = item.name.rpartition(ARROW)
        if not arrow:
            raise CrossingError(f"{item.name!r} is no method")
        _check_name(owner)
        _check_name(own)
    else:
        _check_name(item.name)


def _items(message: Any) -> list[tuple[str, Item]]:
    if type(message) is m.Read:
        return [("node", item) for item in message.items]
    if type(message) is m.Write:
        return [("node", write.item) for write in message.writes]
    if type(message) is m.CallMethods:
        return [_called(call) for call in message.calls]
    if type(message) is m.CallMethod:
        return [_called(message)]
    if type(message) is m.Survey:
        return [("tree" if item.kind == "tree" else "about", item) for item in message.items]
    kind = _KINDS.get(type(message))
    return [] if kind is None else [(kind, message.item)]


def _called(call: m.CallMethod) -> tuple[str, Item]:
    return (KIND if call.item.kind == KIND else "method"), call.item


def _values(message: Any) -> list[Any]:
    if type(message) is m.Values or type(message) is m.Changed or type(message) is m.Samples:
        return [sample.value for sample in message.samples]
    if type(message) is m.Write:
        return [write.value for write in message.writes]
    if type(message) is m.CallMethod:
        return list(message.arguments)
    if type(message) is m.CallMethods:
        return [value for call in message.calls for value in call.arguments]
    if type(message) is m.Results:
        return [value for one in message.results for value in one.outputs]
    if type(message) is m.Outputs:
        return list(message.outputs)
    if type(message) is m.Happened:
        return [value for event in message.events for value in event]
    return []


def _is_matrix(sample: m.Sample) -> bool:
    value = sample.value
    several = value is not None and value.array and len(sample.dimensions) > 1
    return several and value is not None and math.prod(sample.dimensions) == len(value.values)


def _check_events(message: m.Events) -> None:
    for name in (*[kind for kind, _ in message.fields], *message.of, *message.exactly):
        _check_name(name)
    for field in asked_fields(message):
        try:
            field_path(field)
        except ValueError as error:
            raise CrossingError(str(error)) from None
        if len(message.item.name) + len(ARROW) + len(field) > NAME_LENGTH:
            raise CrossingError("a notifier and a field that are too long together")


def _check_described(message: m.Described) -> None:
    for node in message.nodes:
        _check_name(node.id)
        for name in (node.type, node.data_type):
            if name:
                _check_name(name)
        for place, reference in node.parents:
            if place >= len(message.nodes):
                raise CrossingError("a node that hangs on none")
            _check_name(reference)
