"""Fuzz targets of the protocols: both machines of Modbus, from vectors and captures, and its messages in records.

What must hold: bytes become events or `RemoteProtocolError`; the same bytes in any pieces become the same events;
what was understood can be checked, judged, sent over a crossing and made anew; what was refused can be answered.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec

from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.model import Deny, Failure, Fault
from cofferdam.protocols.base import (
    NEED_DATA,
    WAITS,
    BadResponse,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.modbus.machine import ModbusClient, ModbusServer
from cofferdam.protocols.modbus.messages import ModbusRequest, ModbusResponse
from cofferdam.protocols.modbus.requests import decode_request, encode_request
from cofferdam.protocols.modbus.responses import decode_response, encode_response
from cofferdam.protocols.registry import PROTOCOLS
from tests.fuzz.engine import Target
from tests.protocols import enip, traffic
from tests.protocols.opcua.fuzz_targets import TARGETS as OPCUA
from tests.protocols.sftp.fuzz_targets import TARGETS as SFTP
from tests.protocols.telnet.fuzz_targets import TARGETS as TELNET
from tests.protocols.vectors import EXCEPTIONS, MISFITS, REFUSED, VECTORS, adu

MODBUS = PROTOCOLS["modbus"]
PACKER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(ModbusRequest)
RESPONSES = msgspec.msgpack.Decoder(ModbusResponse)
DENIALS = [Deny("c", "c/0", fault, "") for fault in Fault]


def drain(machine: ModbusServer | ModbusClient, pieces: list[bytes]) -> list[Any]:
    """All events of the pieces; a RemoteProtocolError ends them, as its text and section."""
    events: list[Any] = []
    try:
        for piece in pieces:
            machine.receive_data(piece)
            while (event := machine.next_event()) is not NEED_DATA and event is not WAITS:
                events.append(event)
    except RemoteProtocolError as error:
        events.append((str(error), error.section))
    return events


def split(data: bytes, step: int) -> list[bytes]:
    return [data[start : start + step] for start in range(0, len(data), step)]


def pieces_of(data: bytes) -> list[bytes]:
    """Small pieces, of a size that the data itself chooses; byte by byte if it is short."""
    return split(data, 1 if len(data) < 64 else 1 + sum(data[:8]) % 23)


def run_server(data: bytes) -> Hashable:
    machine = ModbusServer()
    events = drain(machine, [data])
    again = drain(ModbusServer(), pieces_of(data))
    if events != again:
        raise AssertionError(f"whole: {events}\npieces: {again}")
    shape: list[Hashable] = []
    for event in events:
        if isinstance(event, RequestReceived):
            request = event.request
            MODBUS.check(request)
            if REQUESTS.decode(PACKER.encode(request)) != request:
                raise AssertionError(f"{request} does not survive a crossing")
            frame = encode_request(1, request)
            if decode_request(frame[7:], frame[6]) != request:
                raise AssertionError(f"{request} becomes another message when made anew")
            operation = MODBUS.operation(request)
            MODBUS.share_key(request)
            reply = MODBUS.refusal(request, DENIALS[len(data) % len(DENIALS)])
            if MODBUS.mismatch(request, reply) or MODBUS.mismatch(request, MODBUS.failure(request, Failure.TIMEOUT)):
                raise AssertionError(f"our refusal does not answer {request}")
            machine.send(event.token, reply)
            shape.append((operation.function, operation.sub, len(operation.reads), len(operation.writes)))
        elif isinstance(event, RequestRefused):
            machine.send(event.token, event.reply)
            shape.append((event.function, event.reply.code, event.section, event.detail.translate(NO_DIGITS)))
        else:
            shape.append(str(event).translate(NO_DIGITS))
    return frozenset(shape)


def run_messages(data: bytes) -> Hashable:
    """What a hostile half could put into a record: a message is stopped by its types or by `check`, or it can be
    encoded and then means the same on the wire."""
    shape: list[Hashable] = []
    for decoder in (REQUESTS, RESPONSES):
        try:
            message: Any = decoder.decode(data)
        except msgspec.DecodeError as error:
            shape.append(str(error).partition(" - at")[0].translate(NO_DIGITS))
            continue
        try:
            MODBUS.check(message)
        except CrossingError as error:
            shape.append(str(error).translate(NO_DIGITS))
            continue
        if decoder is REQUESTS:
            frame = encode_request(1, message)
            if decode_request(frame[7:], frame[6]) != message:
                raise AssertionError(f"{message} becomes another message on the wire")
            MODBUS.operation(message)
        else:
            encode_response(1, 1, message)
        shape.append(type(message).__name__)
    return frozenset(shape)


def message_seeds() -> list[bytes]:
    messages = [message for vector in VECTORS for message in (vector.request, vector.response)]
    return [PACKER.encode(message) for message in [*messages, *(case[3] for case in EXCEPTIONS)]]


NO_DIGITS = {ord(digit): None for digit in "0123456789abcdefx"}
ASKED = [vector.request for vector in VECTORS]


def run_client(data: bytes) -> Hashable:
    """The first byte chooses which requests are under way and with which quirk; the rest is what the asset sends."""
    pick = data[0] if data else 0
    quirks = [frozenset[str](), frozenset({"any_unit"}), frozenset({"zero_transaction_id"}),
              frozenset({"wrong_transaction_id"})][pick >> 6]  # fmt: skip
    outstanding = 1 if pick >> 7 else 16
    first = (pick & 63) % len(ASKED)
    asked = [ASKED[(first + index) % len(ASKED)] for index in range(outstanding)]

    def machine() -> tuple[ModbusClient, dict[int, Any]]:
        client = ModbusClient(quirks=quirks, outstanding=outstanding)
        return client, {client.send(request)[0]: request for request in asked}

    client, sent = machine()
    events = drain(client, [data[1:]])
    again = drain(machine()[0], pieces_of(data[1:]))
    if events != again:
        raise AssertionError(f"whole: {events}\npieces: {again}")
    answered = [event.token for event in events if isinstance(event, ResponseReceived | BadResponse)]
    if len(set(answered)) != len(answered) or len(answered) + client.in_flight != outstanding:
        raise AssertionError(f"a request ended twice or got lost: {events}")
    shape: list[Hashable] = []
    for event in events:
        if isinstance(event, ResponseReceived):
            request, response = sent[event.token], event.response
            if MODBUS.mismatch(request, response):
                raise AssertionError(f"{response} was taken for an answer to {request}")
            MODBUS.check(response)
            if RESPONSES.decode(PACKER.encode(response)) != response:
                raise AssertionError(f"{response} does not survive a crossing")
            frame = encode_response(1, 1, response)
            if decode_response(frame[7:], request) != response:
                raise AssertionError(f"{response} becomes another message when made anew")
            MODBUS.values(request, response)
            shape.append((type(request), type(response), MODBUS.is_error(response)))
        elif isinstance(event, BadResponse):
            shape.append((type(sent[event.token]), event.section, event.detail.translate(NO_DIGITS)))
        elif isinstance(event, Unmatched):
            shape.append("unmatched")
        else:
            shape.append(str(event).translate(NO_DIGITS))
    return frozenset((pick >> 6, part) for part in shape)


def captured(to_server: bool, most: int = 40) -> list[bytes]:
    """The first bytes of the streams of the captures, where there are captures."""
    found = [
        b"".join(stream.segments)[:1200]
        for path in traffic.files()
        for stream in traffic.streams(path)
        if stream.to_server is to_server
    ]
    return found[:most]


def server_seeds() -> list[bytes]:
    frames = [adu(vector.request_pdu, transaction=index) for index, vector in enumerate(VECTORS)]
    refused = [adu(case[0]) for case in REFUSED]
    return [*frames, *refused, b"".join(frames), *captured(True)]


def client_seeds() -> list[bytes]:
    seeds = []
    for index, vector in enumerate(VECTORS):
        for quirk in range(4):
            pick = bytes((quirk << 6 | index,))
            seeds.append(pick + adu(vector.response_pdu, transaction=1))
            seeds.append(pick + b"".join(
                adu(VECTORS[(index + other) % len(VECTORS)].response_pdu, transaction=1 + other) for other in range(16)
            ))  # fmt: skip
    for request, text, *_ in MISFITS:
        for index, vector in enumerate(VECTORS):
            if type(vector.request) is type(request):
                seeds.append(bytes((index,)) + adu(text, transaction=1))
    seeds += [b"\0" + adu(case[2], transaction=1) for case in EXCEPTIONS]
    return [*seeds, *(b"\0" + data for data in captured(False))]


TARGETS = [
    *SFTP,
    *TELNET,
    Target("modbus-server", server_seeds, run_server, tokens=(b"\0\0\0\x06\x01", b"\x2b\x0e", b"\x06\0\x01\0\0\0\x01")),
    Target("modbus-client", client_seeds, run_client, tokens=(b"\0\0\0\x03\x01", b"\x2b\x0e\x01\x01", b"\x83\x02")),
    Target("modbus-messages", message_seeds, run_messages, tokens=(b"\xcd\xff\xff", b"\xcd\x01\x00", b"\xff", b"\xc3")),
    *enip.TARGETS,
    *OPCUA,
]
