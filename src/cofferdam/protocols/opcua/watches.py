"""Watches of a client machine: monitored items of ours on subscriptions of ours, one for each publishing interval.

Not here: the connection and its Publish requests (client), other questions (client_work).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cofferdam.model import Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.client_work import (
    BAD_LIMITS,
    NO_QUALIFIED,
    VALUE,
    Asking,
    Misfit,
    index_range,
    said,
    within,
)
from cofferdam.protocols.opcua.names import weight

KEEPALIVE, LIFETIME = 10, 100
"""Of our subscriptions, in publishing intervals."""
SUBSCRIPTIONS = 20
NEWS_BYTES = 400_000
"""Of samples in one notice: a record has a limit (limits.record_bytes)."""


def _batches(samples: Sequence[m.Sample]) -> list[tuple[m.Sample, ...]]:
    """As many at a time as one record holds."""
    found: list[list[m.Sample]] = [[]]
    size = 0
    for one in samples:
        size += weight(one)
        if found[-1] and (size > NEWS_BYTES or len(found[-1]) >= 1000):
            found.append([])
            size = weight(one)
        found[-1].append(one)
    return [tuple(batch) for batch in found if batch]


class _Subscription:
    __slots__ = ("expected", "id", "items", "what")

    def __init__(self, number: int) -> None:
        self.id = number
        self.items: dict[int, int] = {}  # our handle, which is the watch's token -> the server's id
        self.what: dict[int, Item] = {}
        self.expected = 0


class Watches:
    """What stands on this connection. Watches of one publishing interval share a subscription."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.subscriptions: dict[int, _Subscription] = {}  # by the server's id
        self._by_interval: dict[int, int] = {}
        self._where: dict[int, int] = {}  # token -> subscription
        self._acknowledged: list[s.Acknowledgement] = []
        self._early: dict[int, list[m.Sample]] = {}
        self._answered: set[int] = set()

    def make(self, token: int, request: m.Subscribe) -> Asking:
        """A monitored item, on a subscription that may have to be made first."""
        client, names = self._client, self._client.namespaces
        node = names.node(request.item.name)
        interval = max(50_000, request.interval_us)
        number = self._by_interval.get(interval)
        if number is None or number not in self.subscriptions:
            if len(self.subscriptions) >= SUBSCRIPTIONS:
                interval = min(self._by_interval, key=lambda one: abs(one - interval))
                number = self._by_interval[interval]
            else:
                answer = yield s.CreateSubscriptionRequest(
                    client.header(), interval / 1000, LIFETIME, KEEPALIVE, 0, True, 0
                )
                refused = said(answer, s.CreateSubscriptionResponse)
                if refused is not None:
                    return refused
                number = answer.subscription
                self.subscriptions[number] = _Subscription(number)
                self._by_interval[interval] = number
                client.publish()
        extension = wire.NO_EXTENSION
        if request.trigger != 1 or request.deadband:
            kind = 1 if request.deadband else 0
            extension = wire.pack(s.DataChangeFilter(request.trigger, kind, request.deadband))
        item = s.ReadValueId(node, VALUE, index_range(request.item), NO_QUALIFIED)
        wanted = s.MonitoringParameters(token, request.interval_us / 1000, extension, request.queue, request.oldest)
        subscription = self.subscriptions[number]
        subscription.items[token] = 0
        subscription.what[token] = request.item
        self._where[token] = number
        answer = yield s.CreateItemsRequest(client.header(), number, 2, [s.ItemToCreate(item, 2, wanted)])
        refused = said(answer, s.CreateItemsResponse)
        if refused is None and len(answer.results) != 1:
            raise Misfit(f"{len(answer.results)} results for one item")
        if refused is None and answer.results[0].status & 0x80000000:
            refused = m.Refused(answer.results[0].status)
        if refused is not None:
            self._where.pop(token, None)
            subscription.items.pop(token, None)
            subscription.what.pop(token, None)
            return refused
        made = answer.results[0]
        subscription.items[token] = made.id
        if token not in self._where:  # its subscription has ended meanwhile
            return m.Refused(0x80280000)
        revised = made.interval if 0 <= made.interval <= 1e7 else request.interval_us / 1000
        return m.Subscribed(int(revised * 1000), max(1, min(100, made.queue)))

    def give_up(self, token: int) -> None:
        """A watch is not wanted any more; a subscription without any goes too."""
        number = self._where.pop(token, None)
        self._drop(token)
        subscription = self.subscriptions.get(number) if number is not None else None
        if subscription is None:
            return
        item = subscription.items.pop(token, 0)
        subscription.what.pop(token, None)
        client = self._client
        if subscription.items:
            client.tell(s.DeleteItemsRequest(client.header(), subscription.id, [item]))
            return
        self._forget(subscription)
        client.tell(s.DeleteSubscriptionsRequest(client.header(), [subscription.id]))

    def _drop(self, token: int) -> None:
        self._answered.discard(token)
        self._early.pop(token, None)

    def _forget(self, subscription: _Subscription) -> None:
        self.subscriptions.pop(subscription.id, None)
        for interval, number in list(self._by_interval.items()):
            if number == subscription.id:
                del self._by_interval[interval]

    def published(self, answer: s.PublishResponse) -> None:
        """What a server tells of one subscription."""
        subscription = self.subscriptions.get(answer.subscription)
        message = answer.message
        if message.data:
            self._acknowledged.append(s.Acknowledgement(answer.subscription, message.sequence))
        if subscription is None:
            return
        expected, subscription.expected = subscription.expected, message.sequence + bool(message.data)
        if expected and message.sequence != expected and not (message.sequence == 1 and expected > 0xFFFFFFF0):
            self._end(subscription, "notifications of the server were lost")
            return
        for extension in message.data:
            notification = wire.unpack(extension)
            if isinstance(notification, s.DataChange):
                self._changed(subscription, notification.items)
            elif isinstance(notification, s.StatusChange):
                self._end(subscription, f"the server ended the subscription with 0x{notification.status:08X}")
                return

    def _changed(self, subscription: _Subscription, items: Iterable[s.ItemNotification]) -> None:
        names = self._client.namespaces
        found: dict[int, list[m.Sample]] = {}
        for one in items:
            if one.handle in subscription.items:
                sample = within(subscription.what[one.handle], names.sample(one.value))
                found.setdefault(one.handle, []).append(sample)
        for handle, all_of_it in found.items():
            samples = [one if weight(one) <= NEWS_BYTES else m.Sample(None, BAD_LIMITS) for one in all_of_it]
            if handle in self._answered:
                for batch in _batches(samples):
                    self._client.news(handle, batch)
            else:  # news before the answer that says that the watch stands
                self._early[handle] = samples[-100:]

    def answered(self, token: int) -> None:
        """The answer that a watch stands is on its way: its news may follow."""
        if token in self._where:
            self._answered.add(token)
            early = self._early.pop(token, None)
            if early:
                for batch in _batches(early):
                    self._client.news(token, batch)

    def _end(self, subscription: _Subscription, why: str) -> None:
        self._forget(subscription)
        for token in subscription.items:
            self._where.pop(token, None)
            self._drop(token)
            self._client.over(token, why)

    def all_over(self, why: str) -> None:
        """The server knows none of our subscriptions."""
        for subscription in list(self.subscriptions.values()):
            self._end(subscription, why)

    def take_acknowledged(self) -> list[s.Acknowledgement]:
        """What the next Publish acknowledges."""
        found, self._acknowledged = self._acknowledged, []
        return found
