"""Each Modbus message and its bytes, both ways; each request that is refused and each response that does not fit."""

from __future__ import annotations

import pytest

from cofferdam.errors import LocalProtocolError
from cofferdam.protocols.base import RequestReceived, RequestRefused, ResponseReceived
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.machine import ModbusServer
from cofferdam.protocols.modbus.requests import DECODERS, FUNCTION_OF, decode_request, encode_request
from cofferdam.protocols.modbus.responses import decode_response, encode_response
from cofferdam.protocols.modbus.wire import Misfit, RefusedRequest, pack_bits, unpack_bits
from cofferdam.protocols.registry import PROTOCOLS
from tests.protocols.vectors import EXCEPTIONS, MISFITS, REFUSED, VECTORS, Vector, adu, pdu

each = pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])


@each
def test_a_request_from_its_bytes(vector: Vector) -> None:
    assert decode_request(pdu(vector.request_pdu), vector.request.unit) == vector.request


@each
def test_a_request_to_its_bytes(vector: Vector) -> None:
    frame = encode_request(0x1234, vector.request)
    assert frame == adu(vector.request_pdu, transaction=0x1234, unit=vector.request.unit)


@each
def test_a_response_from_its_bytes(vector: Vector) -> None:
    assert decode_response(pdu(vector.response_pdu), vector.request) == vector.response


@each
def test_a_response_to_its_bytes(vector: Vector) -> None:
    frame = encode_response(0x1234, 17, vector.response)
    assert frame == adu(vector.response_pdu, transaction=0x1234, unit=17)


@each
def test_through_both_machines(vector: Vector) -> None:
    protocol = PROTOCOLS["modbus"]
    server, client = protocol.server(), protocol.client()
    token, frame = client.send(vector.request)
    server.receive_data(frame)
    asked = server.next_event()
    assert isinstance(asked, RequestReceived) and asked.request == vector.request
    client.receive_data(server.send(asked.token, vector.response))
    assert client.next_event() == ResponseReceived(token, vector.response)
    assert server.open == client.in_flight == server.buffered == client.buffered == 0
    assert protocol.mismatch(vector.request, vector.response) == ""
    protocol.check(vector.request)
    protocol.check(vector.response)


def test_every_public_function_has_a_vector() -> None:
    assert {FUNCTION_OF[type(vector.request)] for vector in VECTORS} == set(m.FUNCTIONS)
    assert {type(vector.request) for vector in VECTORS} == {kind for kind, code in FUNCTION_OF.items() if code}


@pytest.mark.parametrize(("name", "request_", "text", "response"), EXCEPTIONS, ids=[case[0] for case in EXCEPTIONS])
def test_an_exception_both_ways(name: str, request_: m.ModbusRequest, text: str, response: m.ExceptionResponse) -> None:
    assert decode_response(pdu(text), request_) == response
    assert encode_response(9, 1, response) == adu(text, transaction=9)


@pytest.mark.parametrize(("text", "code", "section", "word"), REFUSED, ids=[f"{case[0][:30]}" for case in REFUSED])
def test_a_request_that_the_standard_refuses(text: str, code: int, section: str, word: str) -> None:
    with pytest.raises(RefusedRequest) as caught:
        decode_request(pdu(text), 1)
    assert (caught.value.code, caught.value.section) == (code, f"MODBUS Application Protocol V1.1b3, {section}")
    assert word in caught.value.detail

    server = ModbusServer()
    server.receive_data(adu(text, transaction=7))
    event = server.next_event()
    assert isinstance(event, RequestRefused)
    function = pdu(text)[0]
    assert (event.function, event.section) == (function, caught.value.section)
    assert server.send(event.token, event.reply) == adu(f"{function | 0x80:02x} {code:02x}", transaction=7)


@pytest.mark.parametrize(
    ("request_", "text", "section", "word"),
    MISFITS,
    ids=[f"{type(case[0]).__name__} {case[1][:30]}" for case in MISFITS],
)
def test_a_response_that_does_not_fit(request_: m.ModbusRequest, text: str, section: str, word: str) -> None:
    with pytest.raises(Misfit) as caught:
        decode_response(pdu(text), request_)
    assert caught.value.section == f"MODBUS Application Protocol V1.1b3, {section}"
    assert word in caught.value.detail


def test_every_function_code_that_is_not_public_is_refused() -> None:
    for function in set(range(256)) - set(m.FUNCTIONS):
        with pytest.raises(RefusedRequest) as caught:
            DECODERS[function](b"", 0, 0, 1)
        assert caught.value.code == m.ILLEGAL_FUNCTION


@pytest.mark.parametrize("sub", sorted(set(range(32)) - set(m.DIAGNOSTICS)))
def test_reserved_diagnostics(sub: int) -> None:
    with pytest.raises(RefusedRequest) as caught:
        decode_request(b"\x08" + sub.to_bytes(2) + b"\0\0", 1)
    assert caught.value.code == m.ILLEGAL_FUNCTION


def test_padding_of_the_last_byte_is_not_passed_on() -> None:
    """Bits beyond the quantity say nothing, whatever a device or a client puts there: they are made anew as 0."""
    request = decode_request(pdu("0F 0000 0003 01 FF"), 1)
    assert request == m.WriteMultipleCoils(1, 0, (1, 1, 1))
    assert encode_request(1, request)[-1] == 0b111
    response = decode_response(pdu("01 01 FF"), m.ReadCoils(1, 0, 3))
    assert response == m.ReadCoilsResponse((1, 1, 1))
    assert encode_response(1, 1, response)[-1] == 0b111


@pytest.mark.parametrize("count", [*range(1, 34), 1967, 1968, 1999, 2000])
def test_bits_both_ways(count: int) -> None:
    values = tuple((index * index + index // 3) & 1 for index in range(count))
    raw = pack_bits(values)
    slow = bytes(
        sum(bit << place for place, bit in enumerate(values[start : start + 8])) for start in range(0, count, 8)
    )
    assert raw == slow
    assert unpack_bits(raw, count) == values


BAD_OUTPUT: list[m.ModbusRequest] = [
    m.ReadHoldingRegisters(1, 0, 126),
    m.ReadHoldingRegisters(1, 0, 0),
    m.ReadHoldingRegisters(1, 65536, 1),
    m.ReadHoldingRegisters(256, 0, 1),
    m.ReadCoils(1, 0, 2001),
    m.WriteSingleRegister(1, 0, 65536),
    m.WriteSingleRegister(1, 0, -1),
    m.WriteMultipleCoils(1, 0, ()),
    m.WriteMultipleCoils(1, 0, (2,)),
    m.WriteMultipleCoils(1, 0, (1,) * 1969),
    m.WriteMultipleCoils(1, 0, (300,)),
    m.WriteMultipleRegisters(1, 0, ()),
    m.WriteMultipleRegisters(1, 0, (0,) * 124),
    m.ReadWriteMultipleRegisters(1, 0, 1, 0, (0,) * 122),
    m.CanopenReference(1, bytes(252)),
    m.Diagnostics(1, 0, (0,) * 126),
    m.ReadFileRecord(1, (m.FileRange(1, 0, 1),) * 40),
]


@pytest.mark.parametrize("message", BAD_OUTPUT, ids=repr)
def test_what_can_not_be_encoded_says_so(message: m.ModbusRequest) -> None:
    with pytest.raises(LocalProtocolError, match=type(message).__name__):
        encode_request(1, message)
    client = PROTOCOLS["modbus"].client()
    with pytest.raises(LocalProtocolError):
        client.send(message)
    assert client.in_flight == 0
