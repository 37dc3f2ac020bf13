"""OPC UA: what several clients watch in the same way is decoded once, crosses once, and is the same for all; and
each has it as far as its own rule goes, and no further."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.model import Allow, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import NoticeReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import Encoded
from cofferdam.protocols.opcua.names import Namespaces
from cofferdam.protocols.opcua.rendered import Rendered
from cofferdam.values import Bool, Float32, Float64, Int8, Int16, Int32, Int64, Text, UInt8, UInt16, UInt32, UInt64
from tests.brokers.test_opcua_forged import LEVEL, LINE, SAMPLE, Client, OpcUaStage
from tests.policy.plant import NOW
from tests.protocols.opcua.site import policy

WATCHED = m.Subscribe(LEVEL, 100_000)


def watchers(stage: OpcUaStage, count: int) -> list[Client]:
    """Clients that watch the level, through both halves and a device."""
    clients = [Client(stage) for _ in range(count)]
    for client in clients:
        _, data = client.machine.send(WATCHED)
        client.link.arrive(data)
        client.turn()
        settle(stage, clients)
    return clients


def settle(stage: OpcUaStage, clients: list[Client]) -> list[Any]:
    """Until nothing moves. What has crossed to the outer half."""
    crossed: list[Any] = []
    for _ in range(20):
        for client in clients:
            client.turn()
        asked = stage.to_inner.take()
        for record in asked:
            stage.inner.take(record)
        stage.turn()
        stage.reactor.advance(0.001)
        told = stage.to_outer.take()
        for record in told:
            stage.outer.take(record)
        crossed += told
        if not asked and not told:
            break
    return crossed


def changes(stage: OpcUaStage, clients: list[Client], value: float) -> list[Any]:
    """The level changes, once. The notices that have crossed."""
    (device,) = stage.plant
    (token,) = device.watched
    device._say(device.machine.notice(token, m.Changed((m.Sample(Float64((value,))),))))
    crossed = []
    for _ in range(3):  # a publishing interval of the device's, and one of ours
        stage.reactor.advance(0.1)
        crossed += settle(stage, clients)
    return [one for one in crossed if isinstance(one, records.Notice)]


def seen(client: Client) -> list[float]:
    news = [one for event in client.of(NoticeReceived) for one in event.message.samples]
    return [float(one.value.values[0]) for one in news if one.value is not None]


def test_a_change_crosses_once_and_comes_to_all() -> None:
    stage = OpcUaStage()
    clients = watchers(stage, 4)
    assert len(stage.plant[0].watched) == 1, "one item at the device"
    for value in (1.0, 2.0):
        (notice,) = changes(stage, clients, value)
        assert len({notice.handle, *notice.also}) == 4
    assert [seen(client) for client in clients] == [[1.0, 2.0]] * 4
    assert [one.tally.notices for one in stage.inner._sessions.values()] == [2] * 4
    clients[1].link.on_closed("gone")
    settle(stage, clients)
    (notice,) = changes(stage, clients, 3.0)
    assert len({notice.handle, *notice.also}) == 3
    assert [seen(clients[place]) for place in (0, 2, 3)] == [[1.0, 2.0, 3.0]] * 3
    stage.outer.end()
    stage.inner.end()


def test_who_may_no_longer_has_no_share_in_it() -> None:
    """Each is asked for itself: the verdict of one has lapsed, and the news of the others go on."""
    stage = OpcUaStage()
    clients = watchers(stage, 3)
    first, second, third = stage.inner._standings.values()
    flow = compile_policy(loads(policy(4840, 4841, "{who: mes, asset: filler, read: [level]}")), now_ns=NOW).flow(
        "opcua", "127.0.0.1", "filler", ("office",)
    )
    assert isinstance(flow, Flow)
    second.session.flow = flow
    second.allow = Allow(second.allow.conduit, second.allow.rule, 1)
    (notice,) = changes(stage, clients, 5.0)
    assert (notice.handle, notice.also) == (first.handle, (third.handle,))
    assert [seen(client) for client in clients] == [[5.0], [], [5.0]]
    told = [event.message.samples[-1].status for event in clients[1].of(NoticeReceived)]
    assert told == [0x801F0000], "and it is told so"
    stage.outer.end()
    stage.inner.end()


def test_a_share_in_news_is_of_what_was_given_out_and_fits_each_request() -> None:
    stage = OpcUaStage()
    client = Client(stage)
    alarms = m.Events(Item("event", LINE), 100_000, (("i=2041", "Message"), ("i=2041", "Severity")))
    for handle, request in enumerate((WATCHED, m.Subscribe(LEVEL, 200_000), alarms), 1):
        record = client.ask(request)
        stage.outer.take(records.Watched(record.id, handle, m.Subscribed(100_000, 1), 0, 0))
        client.turn()
    stage.outer.take(records.Notice(1, m.Changed((SAMPLE,)), (2,)))
    with pytest.raises(CrossingError, match="handle 4 was never given out"):
        stage.outer.take(records.Notice(1, m.Changed((SAMPLE,)), (2, 4)))
    with pytest.raises(CrossingError, match="does not fit its request"):
        stage.outer.take(records.Notice(1, m.Changed((SAMPLE,)), (2, 3)))
    stage.outer.end()


def test_what_is_encoded_for_many_is_what_each_would_have_had() -> None:
    uris = ("http://opcfoundation.org/UA/", "urn:us", "urn:plant:line")
    names, others = Namespaces(uris), Namespaces((*uris[:2], "urn:a", "urn:plant:line"))
    samples = (
        m.Sample(Float64((1.5,)), 0, 5, 6), m.Sample(None, 0x80310000), m.Sample(Text(("x",)), 0x40000000, 7),
        m.Sample(m.Nodes(("nsu=urn:plant:line;s=Line1",))), m.Sample(Float64((1.0, 2.0), True), 0, 1, 1, (1, 2)),
        m.Sample(Bool((True,)), 1), m.Sample(Int8((-1,))), m.Sample(UInt8((255,)), 0, -5, 0), m.Sample(Int16((-2,))),
        m.Sample(UInt16((65535,))), m.Sample(Int32((-3,)), 0, 0, 9), m.Sample(UInt32(((1 << 32) - 1,)), 7, 8, 9),
        m.Sample(Int64((-(1 << 63),))), m.Sample(UInt64(((1 << 64) - 1,))), m.Sample(Float32((0.5,)), 0, 1 << 62),
        m.Sample(Float64((float("inf"),))), m.Sample(Int32((), True)), m.Sample(Int32((4,), True), 0x80000000),
    )  # fmt: skip
    rendered = Rendered()
    for message in (m.Changed(samples), m.Changed(samples[::-1]), m.Changed(samples)):
        for stamps in (0, 1, 2, 3, 2):
            for whose in (names, others, Namespaces(uris)):
                for sample, (data, _) in zip(message.samples, rendered.of(message, stamps, whose), strict=True):
                    plain, known = Writer(), Writer()
                    plain.value(whose.data(sample, stamps))
                    known.value(data)
                    assert type(data) is Encoded and known.made() == plain.made()
    assert rendered.of(message, 2, names) is rendered.of(message, 2, Namespaces(uris)), "made once"
