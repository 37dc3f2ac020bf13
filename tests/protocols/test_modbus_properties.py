"""What must hold for all messages and for any bytes: round trips, pieces and wholes, mutated real frames."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CrossingError
from cofferdam.protocols.base import RequestReceived, RequestRefused, ResponseReceived
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.machine import ModbusClient, ModbusServer
from cofferdam.protocols.modbus.requests import decode_request, encode_request
from cofferdam.protocols.modbus.responses import decode_response, encode_response
from cofferdam.protocols.registry import PROTOCOLS
from tests.examples import examples
from tests.fuzz.engine import mutate
from tests.protocols import fuzz_targets, strategies
from tests.protocols.fuzz_targets import drain

pytestmark = pytest.mark.heavy

MODBUS = PROTOCOLS["modbus"]
PACKER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(m.ModbusRequest)
RESPONSES = msgspec.msgpack.Decoder(m.ModbusResponse)
quick = examples(300)
asked_and_answered = strategies.sound_requests().flatmap(
    lambda request: st.tuples(st.just(request), strategies.answers(request))
)


@quick
@given(strategies.sound_requests(), st.integers(0, 0xFFFF))
def test_requests_there_and_back(request: Any, transaction: int) -> None:
    frame = encode_request(transaction, request)
    assert len(frame) <= 260 and int.from_bytes(frame[:2]) == transaction
    assert decode_request(frame[7:], frame[6]) == request


@quick
@given(asked_and_answered, st.integers(0, 0xFFFF), st.integers(0, 255))
def test_responses_there_and_back(pair: tuple[Any, Any], transaction: int, unit: int) -> None:
    request, response = pair
    frame = encode_response(transaction, unit, response)
    assert len(frame) <= 260 and frame[6] == unit
    assert decode_response(frame[7:], request) == response
    assert MODBUS.mismatch(request, response) == ""
    MODBUS.check(response)


@quick
@given(strategies.requests())
def test_what_passes_the_check_can_be_encoded_and_what_does_not_would_be_refused(request: Any) -> None:
    """The hostile half: a message that msgspec lets in is stopped by `check`, or means the same on the wire."""
    request = REQUESTS.decode(PACKER.encode(request))
    try:
        MODBUS.check(request)
    except CrossingError:
        return
    frame = encode_request(1, request)
    assert decode_request(frame[7:], frame[6]) == request


@quick
@given(strategies.responses())
def test_responses_that_pass_the_check_can_be_encoded(response: Any) -> None:
    response = RESPONSES.decode(PACKER.encode(response))
    try:
        MODBUS.check(response)
    except CrossingError:
        return
    assert len(encode_response(1, 1, response)) <= 260


@quick
@given(strategies.sound_requests(), strategies.responses())
def test_a_mismatch_on_our_side_is_a_misfit_on_the_wire(request: Any, response: Any) -> None:
    """`mismatch` and the wire's decoder are two views of one rule."""
    if not strategies.is_sound(response) or MODBUS.mismatch(request, response) == "":
        return
    client = ModbusClient()
    token, _ = client.send(request)
    client.receive_data(encode_response(token, request.unit, response))
    event = client.next_event()
    # Bits travel as whole bytes: a response of 9 bits and one of 10 are the same on the wire.
    if isinstance(event, ResponseReceived):
        assert isinstance(response, m.ReadCoilsResponse | m.ReadDiscreteInputsResponse)
        taken = event.response
        assert isinstance(taken, m.ReadCoilsResponse | m.ReadDiscreteInputsResponse)
        assert (len(response.values) + 7) // 8 == (len(taken.values) + 7) // 8


@quick
@given(st.lists(strategies.sound_requests(), max_size=6), st.data())
def test_any_pieces_equal_the_whole(requests: list[Any], data: st.DataObject) -> None:
    stream = b"".join(encode_request(index, request) for index, request in enumerate(requests))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events = drain(ModbusServer(), pieces)
    assert [event.request for event in events] == requests
    assert events == drain(ModbusServer(), [stream])
    assert events == drain(ModbusServer(), [stream[at : at + 1] for at in range(len(stream))])


@quick
@given(st.binary(max_size=300))
def test_any_pdu_is_a_request_or_is_refused(body: bytes) -> None:
    """A well-delimited frame always gets an event, whatever is in it."""
    body = (body + b"\x01\x03")[:254]
    server = ModbusServer()
    server.receive_data(b"\0\1\0\0" + len(body).to_bytes(2) + body)
    assert isinstance(server.next_event(), RequestReceived | RequestRefused)
    assert server.buffered == 0


@pytest.mark.parametrize("target", fuzz_targets.TARGETS, ids=lambda target: target.name)
def test_mutated_real_frames(target: Any) -> None:
    """A short, fixed run of the fuzzer; `make fuzz` runs it for as long as asked."""
    rng = random.Random(20)
    seeds = target.seeds()
    for data in seeds:
        target.run(data)
    for _ in range(3000):
        target.run(mutate(rng.choice(seeds), rng.choice(seeds), rng, target.tokens, target.max_bytes))
