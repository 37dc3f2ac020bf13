"""What needs real processes: a half that ends while it is told of a new policy, and a flood of refusals at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from cofferdam.audit.events.access import Refused, SessionOpened
from cofferdam.audit.events.log import NotRecorded
from cofferdam.brokers.kit.supervision import Listener, NewPolicy, PolicyTaken, Stop
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from tests.brokers.harness import POLICY, Pair, eventually, listen, make_policy, sliced
from tests.brokers.stage import adu, read
from tests.waiting import PATIENT

SOURCES = 120
"""Addresses of a flood; each has its own budget in the log, and together they fill more than one batch."""


def test_a_half_that_ends_takes_a_new_policy_but_no_listener() -> None:
    """Its listeners are closed by then, and their numbers may be those of clients."""
    with socket.create_server(("127.0.0.1", 0)) as device, listen() as listener:
        policy = make_policy(
            device_port=device.getsockname()[1], port=listener.getsockname()[1], asset_extra="timeout: 60 s"
        )
        pair = Pair(policy, listener)
        try:
            with socket.create_connection(("127.0.0.1", pair.port), timeout=PATIENT) as client:
                client.sendall(read(1, 0, 1))
                taken, _ = device.accept()
                with taken:
                    taken.settimeout(PATIENT)
                    question = taken.recv(100)
                    pair.outer.send(Stop(60.0))  # it waits for the answer before it ends
                    place = Listener(listener.fileno(), "127.0.0.1", pair.port)
                    pair.outer.send(NewPolicy(sliced(policy, "outer"), (place,), ("plc",)))
                    pair.outer.wait_for(PolicyTaken)
                    taken.sendall(adu(int.from_bytes(question[:2], "big"), b"\x03\x02\x00\x07"))
                    assert client.recv(100) == adu(1, b"\x03\x02\x00\x07")
            assert pair.outer.process is not None
            assert pair.outer.process.wait(PATIENT) == 0
        finally:
            pair.stop()


def test_refusals_larger_than_a_batch_do_not_end_the_half() -> None:
    """Refused writes of many registers, from many addresses, all found in one look at the sockets."""
    with socket.create_server(("127.0.0.1", 0)) as device, listen() as listener, contextlib.ExitStack() as held:
        text = POLICY.format(
            device_port=device.getsockname()[1], port=listener.getsockname()[1], asset_extra="", conduit_extra="",
            limits="", reads="allow", registers="0-99",
        )  # fmt: skip
        policy = compile_policy(loads(text.replace("[127.0.0.1]", "[127.9.9.0/24]")), now_ns=1)
        pair = Pair(policy, listener)
        try:
            clients = []
            for number in range(4 * SOURCES):
                client = held.enter_context(socket.socket())
                client.bind((f"127.9.9.{number // 4 + 1}", 0))
                client.settimeout(PATIENT)
                client.connect(("127.0.0.1", pair.port))
                clients.append(client)
            assert eventually(lambda: len(pair.auditor.of(SessionOpened)) == len(clients))
            process = pair.outer.process
            assert process is not None
            frames = b"".join(adu(number, b"\x10\xff\0\0\x7b\xf6" + b"\xff" * 246) for number in range(1, 21))
            os.kill(process.pid, signal.SIGSTOP)
            for client in clients:
                client.sendall(frames)
            os.kill(process.pid, signal.SIGCONT)
            for client in clients:
                got = b""
                while len(got) < 20 * 9:
                    piece = client.recv(4096)
                    assert piece, "the half has gone"
                    got += piece
            held.close()
            assert eventually(lambda: recorded(pair) >= 20 * len(clients)), "each is in the log, or in a count"
            assert process.poll() is None
        finally:
            pair.stop()


def recorded(pair: Pair) -> int:
    """Refusals in the log, and entries that the log says are not in it."""
    lost: list[NotRecorded] = pair.auditor.of(NotRecorded)
    return len(pair.auditor.of(Refused)) + sum(entry.count for entry in lost)
