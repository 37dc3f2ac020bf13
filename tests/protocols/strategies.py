"""Hypothesis strategies for messages, made from their types: what msgspec would let over a crossing is what comes out,
no more and no less. `sound` keeps those that also pass `check`."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from cofferdam.errors import CrossingError
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.registry import PROTOCOLS


def of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """All values of a msgspec type."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            # The ends of a range are where mistakes live.
            return st.one_of(st.integers(low, high), st.sampled_from([low or 0, high or 0]))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=high)
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return st.lists(of(item), min_size=low or 0, max_size=min(high or 0, 40)).map(tuple)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, *(of(entry.type) for entry in fields))
    raise TypeError(f"no strategy for {kind}")


OPAQUE = (m.VendorRead, m.VendorWrite, m.VendorResponse)
"""A machine makes them of bytes only for an asset that names them: see tests/brokers/test_vendor."""


def any_of(union: Any) -> st.SearchStrategy[Any]:
    """All messages of a union, sound or not."""
    kind = inspect.type_info(union)
    assert isinstance(kind, inspect.UnionType)
    kinds = [one for one in kind.types if not (isinstance(one, inspect.StructType) and one.cls in OPAQUE)]
    return st.one_of(*(of(member) for member in kinds))


def is_sound(message: msgspec.Struct) -> bool:
    try:
        PROTOCOLS["modbus"].check(message)
    except CrossingError:
        return False
    return True


# Random words hardly ever are the data of a diagnostics sub-function, so these are named.
_diagnostics = st.one_of(
    st.builds(m.Diagnostics, st.integers(0, 255), st.just(0), st.lists(st.integers(0, 65535), min_size=1, max_size=125)
              .map(tuple)),
    st.builds(m.Diagnostics, st.integers(0, 255), st.sampled_from(sorted(set(m.DIAGNOSTICS) - {0})), st.just((0,))),
    st.builds(m.Diagnostics, st.integers(0, 255), st.just(1), st.just((0xFF00,))),
    st.builds(m.Diagnostics, st.integers(0, 255), st.just(3), st.integers(0, 255).map(lambda byte: (byte << 8,))),
)  # fmt: skip


def requests() -> st.SearchStrategy[Any]:
    """Messages of the union of requests, sound or not."""
    return any_of(m.ModbusRequest)


def responses() -> st.SearchStrategy[Any]:
    return any_of(m.ModbusResponse)


def sound_requests() -> st.SearchStrategy[Any]:
    return st.one_of(requests().filter(is_sound), _diagnostics)


def answers(request: Any) -> st.SearchStrategy[Any]:
    """Answers that fit a request."""

    def words(count: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.binary(min_size=2 * count, max_size=2 * count).map(
            lambda raw: tuple(int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2))
        )

    def bits(count: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.binary(min_size=count, max_size=count).map(lambda raw: tuple(byte & 1 for byte in raw))

    protocol = PROTOCOLS["modbus"]
    match request:
        case m.ReadCoils():
            return st.builds(m.ReadCoilsResponse, bits(request.count))
        case m.ReadDiscreteInputs():
            return st.builds(m.ReadDiscreteInputsResponse, bits(request.count))
        case m.ReadHoldingRegisters():
            return st.builds(m.ReadHoldingRegistersResponse.of, words(request.count))
        case m.ReadInputRegisters():
            return st.builds(m.ReadInputRegistersResponse.of, words(request.count))
        case m.ReadWriteMultipleRegisters():
            return st.builds(m.ReadWriteMultipleRegistersResponse.of, words(request.read_count))
        case m.WriteSingleCoil():
            return st.just(m.WriteSingleCoilResponse(request.address, request.value))
        case m.WriteSingleRegister():
            return st.just(m.WriteSingleRegisterResponse(request.address, request.value))
        case m.WriteMultipleCoils():
            return st.just(m.WriteMultipleCoilsResponse(request.address, len(request.values)))
        case m.WriteMultipleRegisters():
            return st.just(m.WriteMultipleRegistersResponse(request.address, len(request.values)))
        case m.MaskWriteRegister():
            return st.just(m.MaskWriteRegisterResponse(request.address, request.and_mask, request.or_mask))
        case m.Diagnostics(sub=sub, data=data):
            if sub in (0, 1, 3, 4, 10, 20):
                return st.just(m.DiagnosticsResponse(sub, data))
            return st.builds(m.DiagnosticsResponse, st.just(sub), words(1))
        case m.ReadFileRecord(records=records):
            return st.builds(m.ReadFileRecordResponse, st.tuples(*(words(group.count) for group in records)))
        case m.WriteFileRecord(records=records):
            return st.just(m.WriteFileRecordResponse(records))
        case m.ReadDeviceIdentification(code=4, object_id=number):
            objects = st.tuples(st.builds(m.DeviceObject, st.just(number), st.binary(max_size=244)))
            return st.builds(
                m.ReadDeviceIdentificationResponse,
                st.just(4),
                st.sampled_from((1, 0x83)),
                st.just(0),
                st.just(0),
                objects,
            )
    name = type(request).__name__ + "Response"
    found = of(inspect.type_info(getattr(m, name))).filter(is_sound)
    if isinstance(request, m.ReadDeviceIdentification):
        found = found.map(lambda response: msgspec.structs.replace(response, code=request.code))
    return found.filter(lambda response: protocol.mismatch(request, response) == "")
