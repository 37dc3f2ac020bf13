"""The three shapes between processes: real sockets, real pipes, real filters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cofferdam.audit.events.access import ReadsCounted, Refused, StreamEnded, WriteAllowed, WriteOutcome
from cofferdam.brokers.kit.supervision import Failing, NewPolicy, PolicyTaken
from cofferdam.model import Assign
from cofferdam.protocols.base import (
    FrameReceived,
    NoticeReceived,
    Over,
)
from cofferdam.values import Float32, Int32
from tests.brokers.harness import Pair, listen, sliced
from tests.brokers.toypart import BUILD
from tests.brokers.toyplant import Caller, Plant
from tests.brokers.toystage import item
from tests.protocols.toy import messages as m
from tests.protocols.toy.site import BASE, TOY_KINDS, toy_conduit, toy_policy
from tests.waiting import eventually

LEVEL = m.Subscribe(item("Pump.Level"), 100_000)


@pytest.fixture
def plant() -> Iterator[Plant]:
    device = Plant()
    device.start()
    yield device
    device.stop()


@contextlib.contextmanager
def pair(plant: Plant) -> Iterator[Pair]:
    listener = listen()
    base = BASE.replace("127.0.0.1:7008", f"127.0.0.1:{listener.getsockname()[1]}")
    # The device is a thread of this process, which may be busy.
    base = base.replace("protocol: toy\n", f"protocol: toy\n    port: {plant.port}\n    timeout: 20 s\n")
    made = Pair(toy_policy(base=base), listener, terms=TOY_KINDS["toy"], build=BUILD, zones=("office", "plant"))
    listener.close()
    try:
        yield made
    finally:
        made.stop()


def test_calls_watches_and_streams_between_processes(plant: Plant) -> None:
    with pair(plant) as halves, Caller(halves.port) as client:
        assert client.ask(m.Read((item("Pump.Speed"),)))[1] == m.Values((Int32((100,)),))
        assert client.ask(m.Write((Assign(item("Pump.Speed"), Int32((150,))),)))[1] == m.Done()
        assert client.ask(m.Write((Assign(item("Pump.Speed"), Int32((260,))),)))[1] == m.Refusal(3)
        assert client.ask(m.CallMethod(item("method Line.Reset")))[1] == m.Done()
        watch, agreed = client.ask(LEVEL)
        assert agreed == m.Agreed()
        client.until(lambda: len(client.of(NoticeReceived)) == 3)
        assert {event.standing for event in client.of(NoticeReceived)} == {watch}
        stream, agreed = client.ask(m.Open(item("io Drive"), 10_000))
        assert agreed == m.Agreed()
        for value in (1.0, 2.0, 51.0, 3.0):
            client.socket.sendall(client.machine.frame(stream, m.Signals((m.Signal("setpoint", Float32((value,))),))))
        client.until(lambda: len(client.of(FrameReceived)) == 3)
        assert [one.signals[0].value.values[0] for one in plant.frames] == [1.0, 2.0, 3.0]
        client.socket.close()
        eventually(lambda: plant.asked.count("drop") == 2)
        eventually(lambda: len(halves.auditor.of(StreamEnded)) == 1)
        [ended] = halves.auditor.of(StreamEnded)
        assert (ended.sent, ended.received, ended.refused) == (3, 3, 1)
    names = [one.items[0].item for one in halves.auditor.of(WriteAllowed)]
    assert names == ["tag pump.speed", "method line.reset", "io drive"]
    assert [one.outcome for one in halves.auditor.of(WriteOutcome)] == ["done"] * 3
    assert sum(counted.notices for counted in halves.auditor.of(ReadsCounted)) == 3
    assert {one.fault for one in halves.auditor.of(Refused)} == {"step", "value"}


def test_a_reload_reaches_what_stands_and_a_killed_inner_half_takes_it_along(plant: Plant) -> None:
    with pair(plant) as halves, Caller(halves.port) as client:
        watch, _ = client.ask(LEVEL)
        less = toy_policy(toy_conduit("{who: mes, asset: line, read: all}"))
        for role, half in (("outer", halves.outer), ("inner", halves.inner)):
            half.send(NewPolicy(sliced(less, role, TOY_KINDS["toy"]), assets=("line",)))
            half.wait_for(PolicyTaken)
        client.until(lambda: bool(client.of(Over)))
        assert [over.standing for over in client.of(Over)] == [watch]
        assert client.ask(LEVEL)[1] == m.Refusal(1)
        assert halves.inner.process is not None
        halves.inner.process.kill()
        assert client.socket.recv(1) == b"", "the outer half ends with it"
        assert not [record for record in halves.outer.records if isinstance(record, Failing)]
