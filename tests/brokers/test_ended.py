"""What a connection had is freed with it, by reference counts alone: a part's collector looks at what has lived for
long only now and then."""

from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cofferdam.brokers.half import FULL_TICKS
from cofferdam.brokers.kit.tls_stream import TlsTransport
from cofferdam.brokers.proxy.clients import Client
from cofferdam.brokers.proxy.face import Face
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.protocols.modbus.machine import ModbusServer
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.machine import OpcUaServer
from cofferdam.protocols.opcua.server_work import Services
from cofferdam.protocols.opcua.subscriptions import Subscriptions
from tests.brokers import test_opcua_forged as opcua
from tests.brokers.stage import Stage, Wire, read
from tests.brokers.test_last_words import Shut, process_of

KINDS = (Client, Face, EnipServer, ModbusServer, OpcUaServer, Services, Subscriptions)


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Off, as in a part, and with nothing left of what was before."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> dict[type, int]:
    found = [type(one) for one in gc.get_objects()]
    return {kind: found.count(kind) for kind in KINDS}


def modbus(stage: Any) -> None:
    client = stage.client()
    client.on_data(read(1, 100, 2))
    stage.cross()
    client.on_closed("closed by the peer")
    stage.cross()


def by_opcua(stage: Any) -> None:
    client = opcua.Client(stage)  # with a session, whose reads are under way
    client.ask(m.Read((opcua.LEVEL,)))
    assert any(isinstance(one.machine, OpcUaServer) and one.machine.activated for one in stage.outer.clients)
    client.link.on_closed("closed by the peer")
    assert not stage.outer.clients
    stage.to_inner.take()


@pytest.mark.parametrize(("make", "connect"), [(Stage, modbus), (opcua.OpcUaStage, by_opcua)])
def test_what_an_ended_connection_had_is_freed_with_it(make: Callable[[], Any], connect: Callable[[Any], None]) -> None:
    stage = make()
    connect(stage)  # the first makes what a half has once
    stage.outer._pending.clear()  # what the inner half has not answered yet is still known
    before = alive()
    for _ in range(5):
        connect(stage)
    stage.outer._pending.clear()
    assert alive() == before


def in_tls(below: Wire) -> weakref.ref[TlsTransport]:
    """A transport that was closed and forgotten, whose owner and it held each other."""
    transport = TlsTransport(below, ssl.create_default_context(), "gate", lambda: transport.start())
    transport.on_data = lambda _data: transport.pause()
    transport.on_closed = lambda _why: transport.pause()
    transport.close()
    transport.deafen()
    return weakref.ref(transport)


def test_a_transport_that_is_closed_and_forgotten_lets_go_of_its_owner() -> None:
    below = Wire()
    assert in_tls(below)() is None and below.closed


def test_what_holds_itself_is_found_once_a_minute() -> None:
    process, _ = process_of(Shut(), "modbus", "outer")

    class Knot:
        own: Any = None

    knot = Knot()
    knot.own = knot
    told = weakref.ref(knot)
    gc.collect(1)
    gc.collect(1)  # it has lived for long
    del knot
    for _ in range(FULL_TICKS - 1):
        process._tick()
    assert told() is not None
    process._tick()
    assert told() is None
