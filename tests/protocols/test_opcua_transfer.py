"""Subscriptions that outlive their connection: taken by a session of the same client, and of no other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cofferdam.model import Item
from cofferdam.protocols.base import Released
from cofferdam.protocols.opcua import kept, wire
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import NodeId, QualifiedName, Variant
from cofferdam.protocols.opcua.kept import Keeping, Owner
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.subscriptions import Store, Subscription, Watched
from cofferdam.protocols.opcua.trust import Trust
from cofferdam.values import Float64
from tests.protocols.opcua.pair import Pair, facing, trust

NS = 1_000_000_000
NO_SUBSCRIPTION, TRANSFERRED, NO_MESSAGE = 0x80280000, 0x002D0000, 0x807B0000


class Client:
    """A client on a connection of its own, before a part that remembers (`common`)."""

    def __init__(self, common: Trust, source: str = "10.1.0.20", now: int = 0) -> None:
        stands = msgspec.structs.replace(facing(common), source=source)
        self.pair = Pair(OpcUaServer(stands), OpcUaClient(facing(trust()), 8), now=10**9 + now).run()
        self.answers: list[Any] = []
        self.pair.client._body = lambda body: self.answers.append(wire.decode(body.data, request=False))  # type: ignore[method-assign]

    def ask(self, kind: Any, *fields: Any) -> Any:
        client = self.pair.client
        self.answers.clear()
        body = wire.encode(kind(client.header(), *fields))
        self.pair.to_server(client.channel.send(client.channel.request_id(), body))
        self.pair.run()
        return self.answers[-1] if self.answers else None

    def subscribe(self, *names: str, queue: int = 10) -> int:
        """A subscription with these items: its id."""
        number: int = self.ask(s.CreateSubscriptionRequest, 100.0, 300, 10, 0, True, 0).subscription
        items = [
            s.ItemToCreate(s.ReadValueId(NodeId(2, f"Line1.{name}", "s"), 13, None, QualifiedName(0, None)), 2,
                           s.MonitoringParameters(at, 100.0, wire.NO_EXTENSION, queue, True))
            for at, name in enumerate(names)
        ]  # fmt: skip
        self.ask(s.CreateItemsRequest, number, 2, items)
        self.stand()
        return number

    def stand(self) -> list[int]:
        """Has all stand that was asked for: the tokens."""
        tokens = [token for token, _ in self.pair.asked]
        while self.pair.asked:
            self.pair.answer(m.Subscribed(100_000, 10))
        return tokens

    def news(self, token: int, *values: float) -> None:
        samples = tuple(m.Sample(Float64((value,))) for value in values)
        self.pair.to_client(self.pair.server.notice(token, m.Changed(samples)))

    def published(self, *acknowledged: s.Acknowledgement) -> list[s.NotificationMessage]:
        self.ask(s.PublishRequest, list(acknowledged))
        self.pair.later(200_000_000)
        return [one.message for one in self.answers if isinstance(one, s.PublishResponse)]

    def take(self, *numbers: int) -> list[s.TransferResult]:
        results: list[s.TransferResult] = self.ask(s.TransferRequest, list(numbers), True).results
        return results


def values(message: s.NotificationMessage) -> list[tuple[Any, int]]:
    return [
        (one.value.value.value if one.value.value else None, one.value.status)
        for part in message.data for one in wire.unpack(part).items
    ]  # fmt: skip


def test_a_client_that_comes_back_has_its_subscriptions_with_what_it_missed() -> None:
    common = trust()
    before = Client(common)
    number = before.subscribe("Level", "Speed")
    token = next(iter(before.pair.server.services._standing))
    before.news(token, 1.0)
    [sent] = before.published()
    assert values(sent) == [(1.0, 0)]
    before.news(token, 2.0, 3.0)
    before.pair.server.gone()
    assert len(common.keeping) == 1

    after = Client(common, now=5 * NS)
    [taken] = after.take(number)
    assert (taken.status, taken.available) == (0, [1]) and len(common.keeping) == 0
    assert after.ask(s.RepublishRequest, number, 1).message == sent, "what was on its way is not lost"
    after.pair.later(1)
    asked = [request for _, request in after.pair.asked]
    assert sorted(one.item.name.rpartition(".")[2] for one in asked) == ["Level", "Speed"]
    level = [one.item.name.endswith("Level") for one in asked].index(True)
    after.news(after.stand()[level], 9.0)
    found = values(after.published(s.Acknowledgement(number, 1))[0])
    assert found == [(2.0, 0), (3.0, 0), (9.0, 0x480)], "and the first value afterwards says that some may be missing"
    assert after.ask(s.RepublishRequest, number, 1).header.result == NO_MESSAGE, "acknowledged"
    found = after.ask(s.CallRequest, [s.MethodToCall(NodeId(0, 2253), NodeId(0, 11492), [Variant(7, number)])])
    assert [one.value for one in found.results[0].outputs] == [[1, 2], [0, 1]], "GetMonitoredItems"
    again = after.ask(s.CreateItemsRequest, number, 2, [s.ItemToCreate(
        s.ReadValueId(NodeId(0, 2258), 13, None, QualifiedName(0, None)), 2,
        s.MonitoringParameters(7, 100.0, wire.NO_EXTENSION, 1, True))])  # fmt: skip
    assert again.results[0].id == 3, "no id is given out twice in a subscription"


def test_a_subscription_is_taken_from_a_session_that_still_stands_and_this_is_told() -> None:
    common = trust()
    before, after = Client(common), Client(common)
    number = before.subscribe("Level")
    released: list[Any] = []
    event = before.pair._server_event

    def noted(one: Any) -> None:
        released.append(one)
        event(one)

    before.pair._server_event = noted  # type: ignore[method-assign, assignment]
    before.ask(s.PublishRequest, [])
    assert after.take(number)[0].status == 0
    before.answers.clear()
    before.pair.later(200_000_000)
    [told] = [one for one in before.answers if isinstance(one, s.PublishResponse)]
    assert told.subscription == number and wire.unpack(told.message.data[0]).status == TRANSFERRED
    assert [type(one) for one in released if isinstance(one, Released)] == [Released], "its watch ends"
    assert before.ask(s.PublishRequest, []).header.result == 0x80790000
    assert after.take(number)[0].status == NO_SUBSCRIPTION, "it has it already"
    before.pair.server.gone()
    after.pair.later(1)
    assert after.stand() and after.ask(s.DeleteSubscriptionsRequest, [number]).results == [0]


def test_news_and_answers_that_come_after_a_transfer_do_no_harm() -> None:
    """The watch is asked for, and its answer comes when another session has the subscription."""
    common = trust()
    before, after = Client(common), Client(common)
    number = before.ask(s.CreateSubscriptionRequest, 100.0, 300, 10, 0, True, 0).subscription
    item = s.ItemToCreate(s.ReadValueId(NodeId(2, "Line1.Level", "s"), 13, None, QualifiedName(0, None)), 2,
                          s.MonitoringParameters(0, 100.0, wire.NO_EXTENSION, 5, True))  # fmt: skip
    for answer in (m.Subscribed(100_000, 1), m.Refused(0x80310000)):
        before.ask(s.CreateItemsRequest, number, 2, [item])
        assert after.take(number)[0].status == 0
        before.pair.answer(answer)
        after.pair.later(1)
        for token in after.stand():
            after.news(token, 5.0)
        assert len(after.pair.server.services._standing) == len(
            after.pair.server.services.subscriptions.all[number].items
        )
        before, after = after, before


@pytest.mark.parametrize("way", ["address", "deleted", "late", "closed", "never"])
def test_nobody_else_gets_one_nor_one_that_is_over(way: str) -> None:
    common = trust()
    before = Client(common)
    number = before.subscribe("Level")
    if way == "deleted":
        before.ask(s.DeleteSubscriptionsRequest, [number])
    if way == "closed":
        before.ask(s.CloseSessionRequest, True)
    before.pair.server.gone()
    late = 31 * NS if way == "late" else 0
    after = Client(common, "10.1.0.21" if way == "address" else "10.1.0.20", now=late)
    assert after.take(number + 5 if way == "never" else number)[0].status == NO_SUBSCRIPTION
    if way == "address":
        assert Client(common).take(number)[0].status == 0, "whose it is still has it"


def test_a_session_that_says_so_when_it_closes_leaves_its_subscriptions() -> None:
    common = trust()
    before = Client(common)
    number = before.subscribe("Level")
    before.ask(s.CloseSessionRequest, False)
    assert Client(common).take(number)[0].status == 0


def owner(source: str = "a", uris: tuple[str, ...] = ("u",), user: str = "", certificate: str = "") -> Owner:
    return Owner("filler", source, user, "urn:x", certificate, uris)


def kept_one(keeping: Keeping, whose: Owner, now: int = 0, watched: bool = True) -> int:
    asked = s.CreateSubscriptionRequest(s.read_RequestHeader, 1000.0, 300, 10, 0, True, 0)  # type: ignore[arg-type]
    found = Subscription(keeping.number(), asked, now, Store())
    item = Watched(found, 1, 1, 1, True)
    item.request = m.Subscribe(Item("node", "i=1"), 0) if watched else None
    found.items[1] = item
    keeping.hold(found, whose, None)
    keeping.keep(found, now)
    return found.id


def test_whose_it_is_must_match_in_all() -> None:
    keeping = Keeping()
    number = kept_one(keeping, owner(user="anna", certificate="ab"))
    for other in (owner(user="anna"), owner(certificate="ab"), owner("b", user="anna", certificate="ab"),
                  owner(uris=("v",), user="anna", certificate="ab")):  # fmt: skip
        assert keeping.take(number, other, None, 0) is None
    assert keeping.take(number, owner(user="anna", certificate="ab"), object(), 0) is not None


def test_what_is_kept_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    keeping = Keeping()
    mine = [kept_one(keeping, owner()) for _ in range(kept.KEPT_OF_ONE + 5)]
    assert len(keeping) == kept.KEPT_OF_ONE
    assert keeping.take(mine[0], owner(), None, 0) is None and keeping.take(mine[-1], owner(), object(), 0)
    for number in range(300):
        kept_one(keeping, owner(str(number)))
    assert len(keeping) == kept.KEPT
    monkeypatch.setattr(Subscription, "weight", property(lambda _self: 5 << 20))
    for number in range(10):
        kept_one(keeping, owner(f"x{number}"))
    assert sum(one.size for one in keeping._kept.values()) <= kept.KEPT_BYTES
    kept_one(keeping, owner(), 400 * NS)
    assert len(keeping) == 1, "those whose lifetime is over go"
    kept_one(keeping, owner(), 400 * NS, watched=False)
    assert len(keeping) == 1, "one in which nothing is watched is not worth a place"
