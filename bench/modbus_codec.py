"""How long each step of one brokered Modbus transaction takes in the codec: µs, median, p99, p99.9.

    python bench/modbus_codec.py [--json] [--rounds 20000] [--profile]

The whole row is what the two halves do with bytes for one request: server machine in, client machine out, client
machine in, server machine out, and the operation for policy. Crossing, policy, audit and sockets are not in it.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.protocols.modbus.messages import (
    ModbusRequest,
    ModbusResponse,
    ReadCoils,
    ReadCoilsResponse,
    ReadHoldingRegisters,
    ReadHoldingRegistersResponse,
    WriteMultipleRegisters,
    WriteMultipleRegistersResponse,
)
from cofferdam.protocols.modbus.requests import encode_request
from cofferdam.protocols.modbus.responses import encode_response
from cofferdam.protocols.registry import PROTOCOLS

CASES: list[tuple[str, Any, Any]] = [
    ("read 10 registers", ReadHoldingRegisters(1, 100, 10), ReadHoldingRegistersResponse.of(range(1000, 1010))),
    ("read 125 registers", ReadHoldingRegisters(1, 0, 125), ReadHoldingRegistersResponse.of(range(125))),
    ("read 2000 coils", ReadCoils(1, 0, 2000), ReadCoilsResponse((1, 0, 0, 1, 1) * 400)),
    ("write 2 registers", WriteMultipleRegisters(1, 200, (1, 2)), WriteMultipleRegistersResponse(200, 2)),
]
STEPS = ("request in", "operation", "request out", "response in", "response out", "whole")


def measure(step: Callable[[], object], rounds: int, inner: int = 20) -> list[float]:
    """µs for one call, `rounds` times; each is the mean of `inner` calls, so that the clock does not show."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(rounds):
        start = clock()
        for _ in range(inner):
            step()
        taken.append((clock() - start) / inner / 1000)
    return taken


def steps(request: Any, response: Any) -> dict[str, Callable[[], object]]:
    protocol = PROTOCOLS["modbus"]
    server = protocol.server()
    client = protocol.client(outstanding=1)
    from_client = encode_request(7, request)
    from_asset = encode_response(1, request.unit, response)

    def request_in() -> object:
        server.receive_data(from_client)
        event: Any = server.next_event()
        server.next_event()
        server.release(event.token)
        return event

    def operation() -> object:
        return protocol.operation(request)

    def request_out() -> object:
        token, adu = client.send(request)
        client.forget(token)
        return adu

    def whole() -> object:
        server.receive_data(from_client)
        event: Any = server.next_event()
        server.next_event()
        protocol.operation(event.request)
        protocol.check(event.request)
        token, _ = client.send(event.request)
        client.receive_data(token.to_bytes(2) + from_asset[2:])
        answer: Any = client.next_event()
        client.next_event()
        return server.send(event.token, answer.response)

    answered = protocol.client(outstanding=1)
    tail = from_asset[2:]

    def response_in() -> object:
        token, _ = answered.send(request)
        answered.receive_data(token.to_bytes(2) + tail)
        event = answered.next_event()
        answered.next_event()
        return event

    replying = protocol.server()

    def response_out() -> object:
        replying.receive_data(from_client)
        event: Any = replying.next_event()
        return replying.send(event.token, response)

    return dict(zip(STEPS, (request_in, operation, request_out, response_in, response_out, whole), strict=True))


def crossing(request: Any, response: Any) -> dict[str, Callable[[], object]]:
    """What msgspec adds when the messages cross; the brokers' records are a little larger."""
    encoder = msgspec.msgpack.Encoder()
    asks = msgspec.msgpack.Decoder(ModbusRequest)
    answers = msgspec.msgpack.Decoder(ModbusResponse)
    packed, packed_answer = encoder.encode(request), encoder.encode(response)
    return {
        "request packed": lambda: encoder.encode(request),
        "request unpacked": lambda: asks.decode(packed),
        "response packed": lambda: encoder.encode(response),
        "response unpacked": lambda: answers.decode(packed_answer),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON to stdout")
    parser.add_argument("--rounds", type=int, default=5000, help="measurements of each step")
    parser.add_argument("--profile", action="store_true", help="where the time of the first case goes")
    args = parser.parse_args()
    if args.profile:
        whole = steps(*CASES[0][1:])["whole"]
        profile = cProfile.Profile()
        profile.runcall(lambda: [whole() for _ in range(200_000)])
        profile.print_stats("tottime")
        return 0
    gc.disable()
    results = []
    for name, request, response in CASES:
        for step, call in (steps(request, response) | crossing(request, response)).items():
            taken = sorted(measure(call, args.rounds))
            row = {
                "case": name,
                "step": step,
                "median_us": round(taken[len(taken) // 2], 3),
                "p99_us": round(taken[int(len(taken) * 0.99)], 3),
                "p99_9_us": round(taken[int(len(taken) * 0.999)], 3),
            }
            results.append(row)
            if not args.json:
                print(
                    f"{name:20} {step:18} median {row['median_us']:7.2f}  p99 {row['p99_us']:7.2f}"
                    f"  p99.9 {row['p99_9_us']:7.2f} µs",
                    flush=True,
                )
    if args.json:
        json.dump({"python": sys.version.split()[0], "results": results}, sys.stdout, indent=1)
        print()
    else:
        print("request out and response in hold a forget and a send too; response out holds a request in.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
