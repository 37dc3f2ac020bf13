"""What EtherNet/IP's messages mean: as operations for policy, as answers for what policy or the asset did not allow.

Not here: bytes (requests, replies), verdicts (policy).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import Asset, Assign, Deny, Failure, Fault, Item, Opening, Operation, Read, Span, Write
from cofferdam.protocols.base import Cadence, Facing, Protocol
from cofferdam.protocols.enip import faults, paths, replies, single, together
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import requests as r
from cofferdam.protocols.enip.dialect import ENIP
from cofferdam.protocols.enip.io import assigned, forms_of
from cofferdam.protocols.enip.machine import EnipClient, EnipServer
from cofferdam.protocols.enip.view import EnipView
from cofferdam.values import Bool

FUNCTIONS: Final = {
    1: "get attributes all", 2: "set attributes all", 3: "get attribute list", 4: "set attribute list",
    5: "reset", 6: "start", 7: "stop", 8: "create", 9: "delete",
    10: "multiple service packet", 14: "get attribute single", 16: "set attribute single", 21: "restore", 22: "save",
    75: "execute PCCC", 76: "read tag", 77: "write tag", 78: "read modify write tag", 82: "read tag fragmented",
    83: "write tag fragmented", 84: "forward open", 85: "get instance attribute list", 90: "get connection owner",
    91: "large forward open",
}  # fmt: skip
"""Services by their code, as the audit log's `function`; its `sub` is the class, where an object is asked."""

FORBIDDEN, UNKNOWN, RESOURCE = 0x0F, 0x05, 0x02
REFUSALS: Final[dict[Fault, int]] = {
    Fault.CONDUIT: FORBIDDEN,
    Fault.PRINCIPAL: FORBIDDEN,
    Fault.ASSET: FORBIDDEN,
    Fault.UNIT: FORBIDDEN,
    Fault.FUNCTION: FORBIDDEN,
    Fault.ADDRESS: UNKNOWN,
    Fault.VALUE: 0x20,
    Fault.STEP: 0x20,
    Fault.RATE: RESOURCE,
    Fault.WINDOW: FORBIDDEN,
    Fault.EXPIRED: FORBIDDEN,
    Fault.TAKEN: FORBIDDEN,
    Fault.SEVERED: FORBIDDEN,
    Fault.AUDIT: RESOURCE,
}
"""The general status for what policy denies: 0F what is not allowed, 05 what the client may not see, 20 a value, 02 not
so often, or not now. A service that nobody serves is 08."""
FAILURES: Final[dict[Failure, m.CipError]] = {
    Failure.UNREACHABLE: m.CipError(0x01, (0x0204,)),
    Failure.TIMEOUT: m.CipError(0x01, (0x0204,)),
    Failure.BUSY: m.CipError(RESOURCE),
    Failure.BAD_REPLY: m.CipError(RESOURCE),
}
"""For what the asset did not answer: 01/0204 no answer in time, 02 no room here, or an answer to something else."""


class Enip(Protocol[m.EnipRequest, m.EnipResponse]):
    """EtherNet/IP, as `registry.PROTOCOLS` names it. See `base.Protocol` for the methods' contracts."""

    dialect = ENIP
    request_type = m.EnipRequest
    response_type = m.EnipResponse
    frame_type = m.IoData
    speaks = True
    browses = True
    repeats = True
    functions = FUNCTIONS
    view = EnipView()

    def server(self, *, midway: bool = False) -> EnipServer:
        return EnipServer(midway=midway)

    def client(self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1, midway: bool = False) -> EnipClient:
        return EnipClient(None, quirks, outstanding, midway)

    def common(self, secrets: Mapping[str, bytes]) -> together.Learnt:
        return together.Learnt()

    def server_facing(self, facing: Facing) -> EnipServer:
        return EnipServer(facing)

    def client_facing(
        self, facing: Facing, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1
    ) -> EnipClient:
        return EnipClient(facing, quirks, outstanding)

    def check(self, message: m.EnipRequest | m.EnipResponse | m.IoData) -> None:
        fault = faults.fault_of(message)
        if fault:
            raise CrossingError(f"{type(message).__name__}: {fault}")

    def mismatch(self, request: m.EnipRequest, response: m.EnipResponse) -> str:
        if type(response) is m.HeldAll and type(request) is m.ReadTag:  # as nearly all are
            return single.fault(request, response)
        return replies.mismatch(request, response) or faults.response_fault(response)

    def operation(self, request: m.EnipRequest) -> Operation:
        # What is common first, and by its exact type: each kind that a message is not of takes a thousand instructions.
        if type(request) is m.Packet:
            reads: tuple[Read, ...] = ()
            writes: tuple[Write, ...] = ()
            for part in request.parts:
                one = self.operation(part)
                reads, writes = reads + one.reads, writes + one.writes
            return Operation(r.PACKET, -1, -1, bool(writes), reads, writes)
        if type(request) in _WRITTEN:
            function, write = _written(request)
            return Operation(function, -1, -1, True, (), (write,))
        match request:
            case m.ReadTag(item):
                return Operation(r.READ, -1, -1, False, (item,))
            case m.GetAttribute(item):
                return Operation(r.GET_ONE, -1, -1, False, (item,))
            case m.GetAttributes(items):
                return Operation(r.GET_LIST, -1, -1, False, items)
            case m.Service(service, cls, _):
                return Operation(service, cls, -1, True)
            case m.Unserved(service, cls, why):
                return Operation(service, cls, -1, True, never=why)
            case m.Identify():
                return Operation(r.GET_ALL, paths.IDENTITY, -1, False, browse=True)
            case m.ListTags():
                return Operation(r.LIST, paths.SYMBOL, -1, False, browse=True)
            case m.DescribeStructure():
                return Operation(r.GET_LIST, paths.TEMPLATE, -1, False, browse=True)
            case m.OpenIo(item, rpi_out, rpi_in):
                return Operation(r.OPEN, -1, -1, True, (), (Opening(item, min(rpi_out, rpi_in)),))
        raise LocalProtocolError(f"{type(request).__name__} is no operation")

    def refusal(self, request: m.EnipRequest, deny: Deny) -> m.CipError:
        if isinstance(request, (m.Unserved, m.Service)) and deny.fault is Fault.FUNCTION:
            return m.CipError(r.NO_SERVICE)
        if deny.fault is Fault.TAKEN:
            return m.CipError(r.CONNECTION, (0x0106,))
        return m.CipError(REFUSALS[deny.fault])

    def failure(self, request: m.EnipRequest, failure: Failure) -> m.CipError:
        return FAILURES[failure]

    def is_error(self, response: m.EnipResponse) -> bool:
        # By exact types: isinstance takes a thousand instructions where a message is not of a kind.
        if type(response) is m.Answers:
            return any(type(part) is m.CipError for part in response.parts)
        return type(response) is m.CipError

    def error_code(self, response: m.EnipResponse) -> int:
        if type(response) is m.Answers:
            return next((part.status for part in response.parts if type(part) is m.CipError), 0)
        return response.status if type(response) is m.CipError else 0

    def read_request(self, unit: int, place: Span | Item) -> m.EnipRequest:
        if not isinstance(place, Item):
            raise LocalProtocolError("EtherNet/IP has no cells")
        request: m.EnipRequest = m.GetAttribute(place) if place.kind == "cip" else m.ReadTag(place)
        if fault := faults.request_fault(request):
            raise LocalProtocolError(fault)
        return request

    def values(self, request: m.EnipRequest, response: m.EnipResponse) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        return ()

    def item_values(self, request: m.EnipRequest, message: m.EnipResponse) -> tuple[Assign, ...]:
        if isinstance(request, (m.ReadTag, m.GetAttribute)) and isinstance(message, m.Held):
            return (Assign(request.item, message.value),)
        if isinstance(request, m.ReadTag) and isinstance(message, m.HeldAll):
            return (Assign(request.item, single.held(request, message).value),)
        if isinstance(request, m.Packet) and isinstance(message, (m.Answers, m.HeldAll)):
            pairs = zip(request.parts, together.one_by_one(request, message).parts, strict=True)
            return tuple(assign for part, answer in pairs for assign in self.item_values(part, answer))
        return ()

    def frame_operation(self, request: m.EnipRequest, frame: m.IoData, asset: Asset) -> Operation:
        if not isinstance(request, m.OpenIo):
            raise LocalProtocolError("no I/O connection")
        return Operation(r.OPEN, -1, -1, True, (), assigned(request.item.name, asset, frame.data))

    def owned(self, request: m.EnipRequest, asset: Asset) -> bool:
        form = forms_of(asset).get(request.item.name) if isinstance(request, m.OpenIo) else None
        return form is not None and form.out_size > 0

    def cadence(self, request: m.EnipRequest, response: m.EnipResponse) -> Cadence | None:
        if not isinstance(request, m.OpenIo) or not isinstance(response, m.IoOpened):
            return None
        return Cadence(response.rpi_out * 1000, response.rpi_in * 1000, 4 << request.multiplier)

    def misfit(self, request: m.EnipRequest, message: m.IoData) -> str:
        fits = isinstance(request, m.OpenIo) and isinstance(message, m.IoData)
        return "" if fits else f"{type(message).__name__} after {type(request).__name__}"

    def filtered(
        self, request: m.EnipRequest, response: m.EnipResponse, sees: Callable[[Item], bool]
    ) -> m.EnipResponse:
        if type(request) is not m.ListTags or type(response) is not m.TagList:
            return response
        head = f"{request.program.lower()}." if request.program else ""
        return m.TagList(tuple(one for one in response.symbols if sees(Item("tag", head + one.name.lower()))))

    def share_key(self, request: m.EnipRequest) -> Hashable | None:
        return request if isinstance(request, (m.ReadTag, m.GetAttribute, m.GetAttributes)) else None

    def slice(
        self, request: m.EnipRequest, wider_request: m.EnipRequest, wider_response: m.EnipResponse
    ) -> m.EnipResponse | None:
        return wider_response if request == wider_request else None


_WRITTEN: Final[frozenset[type]] = frozenset({m.WriteTag, m.WriteBit, m.ModifyTag, m.SetAttribute})


def _written(request: m.EnipRequest) -> tuple[int, Assign]:
    match request:
        case m.WriteTag(item, _, _, value):
            return r.WRITE, Assign(item, value)
        case m.WriteBit(item, _, value):
            return r.MODIFY, Assign(item, Bool((value,)))
        case m.ModifyTag(item):
            return r.MODIFY, Assign(item, None)
        case m.SetAttribute(item, value):
            return r.SET_ONE, Assign(item, value)
    raise LocalProtocolError(f"{type(request).__name__} writes nothing")
