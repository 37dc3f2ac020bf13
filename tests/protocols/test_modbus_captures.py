"""Real traffic: each request is understood or refused with the section it breaks; each answer fits its request or is
named as a misfit; nothing crashes and nothing is left half-read. Skipped where there are no captures beside the
checkout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.base import NEED_DATA, Repeated, RequestReceived, RequestRefused, Waits
from cofferdam.protocols.modbus.machine import ModbusServer
from cofferdam.protocols.modbus.responses import decode_response
from cofferdam.protocols.modbus.wire import APPLICATION, Misfit
from cofferdam.protocols.registry import PROTOCOLS
from tests.protocols import traffic
from tests.protocols.fuzz_targets import drain

FILES = traffic.files()
pytestmark = pytest.mark.skipif(not FILES, reason="no captures beside the checkout (../shared/captures/modbus)")
MODBUS = PROTOCOLS["modbus"]

# What each capture holds, as this codec sees it: requests understood, requests refused, broken streams.
EXPECTED = {
    "icsnpp-modbus-example": (22, 2, 0),
    "iti-modbustcp": (7990, 0, 0),
    "iti-quickdraw-part1": (16, 2, 1),
    "iti-quickdraw-part2": (16, 125, 0),
}


# Answers that fit what was understood, and answers that do not.
ANSWERS = {
    "icsnpp-modbus-example": (22, 0),
    "iti-modbustcp": (7983, 0),
    "iti-quickdraw-part1": (16, 0),
    "iti-quickdraw-part2": (15, 0),
}

Asked = list[tuple[int, RequestReceived[Any] | RequestRefused[Any]]]


def requests_of(stream: traffic.Stream) -> tuple[Asked, int]:
    """What was asked, each with its transaction id, in order; and 1 if the stream broke."""
    machine = ModbusServer()
    asked: Asked = []
    try:
        for segment in stream.segments:
            machine.receive_data(segment)
            while (event := machine.next_event()) is not NEED_DATA:
                if isinstance(event, (Repeated, Waits)):  # all was released
                    raise AssertionError(event)
                machine.release(event.token)
                asked.append((event.token >> 16 & 0xFFFF, event))
    except RemoteProtocolError as error:
        assert error.section
        return asked, 1
    assert machine.buffered == 0
    return asked, 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_request_is_understood_or_refused_with_its_section(path: Path) -> None:
    totals = Counter[str]()
    for stream in traffic.streams(path):
        if stream.to_server:
            asked, broken = requests_of(stream)
            totals["broken"] += broken
            for _, event in asked:
                if isinstance(event, RequestReceived):
                    totals["understood"] += 1
                    MODBUS.check(event.request)
                    assert MODBUS.operation(event.request).unit == event.request.unit
                else:
                    totals["refused"] += 1
                    assert event.section.startswith(APPLICATION) and event.detail
                    assert event.reply.code in (1, 2, 3)
    assert (totals["understood"], totals["refused"], totals["broken"]) == EXPECTED[path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pieces_and_wholes_say_the_same(path: Path) -> None:
    for stream in traffic.streams(path):
        if stream.to_server:
            whole = b"".join(stream.segments)[:4000]
            # Ids come round again in a long capture, and nobody answers here: only what precedes that is compared.
            events = drain(ModbusServer(), [whole])
            assert events == drain(ModbusServer(), [whole[at : at + 1] for at in range(len(whole))])
            assert events == drain(ModbusServer(), list(stream.segments)) or len(whole) == 4000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_answers_fit_their_requests(path: Path) -> None:
    """Answers are matched by id, those with one id in order: some of these clients use one id for all."""
    streams = traffic.streams(path)
    fit, misfit = 0, []
    for stream in streams:
        if not stream.to_server:
            continue
        source, port, target, target_port = stream.flow
        waiting: dict[int, list[RequestReceived[Any] | RequestRefused[Any]]] = {}
        for transaction, event in requests_of(stream)[0]:
            waiting.setdefault(transaction, []).append(event)
        back = [other for other in streams if other.flow == (target, target_port, source, port)]
        data = b"".join(segment for other in back for segment in other.segments)
        at = 0
        while at + 8 <= len(data):
            size = 6 + int.from_bytes(data[at + 4 : at + 6])
            queue = waiting.get(int.from_bytes(data[at : at + 2]))
            answered = queue.pop(0) if queue else None
            if isinstance(answered, RequestReceived) and at + size <= len(data):
                try:
                    response = decode_response(data[at + 7 : at + size], answered.request)
                    MODBUS.check(response)
                    assert MODBUS.mismatch(answered.request, response) == ""
                    fit += 1
                except Misfit as error:
                    assert error.section
                    misfit.append((answered.request, data[at + 7 : at + size].hex(), error.detail))
            at += size
    assert (fit, len(misfit)) == ANSWERS[path.stem], misfit
