"""Watches of a client machine: monitored items of ours on subscriptions of ours, one for each publishing interval.

Not here: the connection and its Publish requests (client), other questions (client_work).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Extension, NodeId, Variant
from cofferdam.protocols.opcua.client_work import (
    BAD_LIMITS,
    NO_QUALIFIED,
    VALUE,
    Asking,
    Misfit,
    index_range,
    said,
)
from cofferdam.protocols.opcua.conditions import Conditions
from cofferdam.protocols.opcua.events import NOTIFIER, event_of, event_weight, filter_of
from cofferdam.protocols.opcua.names import weight, within

CONDITIONS, REFRESH, REFRESH_ITEM = NodeId(0, 2782), 3875, 12912
"""ConditionType, and its methods ConditionRefresh and ConditionRefresh2."""
BAD_METHOD = 0x80750000
KEEPALIVE, LIFETIME = 10, 100
"""Of our subscriptions, in publishing intervals."""
SUBSCRIPTIONS = 20
AT_ONCE = 100
"""Items in one CreateMonitoredItems."""
NEWS_BYTES = 400_000
"""Of samples in one notice: a record has a limit (limits.record_bytes)."""

EARLY_BYTES, EARLY_SAMPLES = 4_194_304, 100
"""Of news that come before the answer that the watch stands; of samples so many, of events as many as a queue has."""


def _weight(news: m.Sample | m.Happening) -> int:
    return weight(news) if isinstance(news, m.Sample) else event_weight(news)


def _batches(samples: Sequence[m.Sample | m.Happening]) -> list[m.Changed | m.Happened]:
    """News of as many samples, or events, at a time as one record holds."""
    found: list[list[Any]] = [[]]
    size = 0
    for one in samples:
        its = _weight(one)
        size += its
        if found[-1] and (size > NEWS_BYTES or len(found[-1]) >= 1000):
            found.append([])
            size = its
        found[-1].append(one)
    return [
        m.Changed(tuple(batch)) if isinstance(batch[0], m.Sample) else m.Happened(tuple(batch))
        for batch in found if batch
    ]  # fmt: skip


def _data_filter(request: m.Subscribe) -> Extension:
    if request.trigger == 1 and not request.deadband:
        return wire.NO_EXTENSION
    return wire.pack(s.DataChangeFilter(request.trigger, 1 if request.deadband else 0, request.deadband))


class Wait:
    """What a generator yields that another's answer has go on: it is put into `line` with its token."""

    __slots__ = ("line",)

    def __init__(self, line: list[tuple[int, Asking]]) -> None:
        self.line = line


class _Subscription:
    __slots__ = ("expected", "id", "items")

    def __init__(self, number: int) -> None:
        self.id = number
        self.items: dict[int, _Shared] = {}  # by our handle
        self.expected = 0


class _Shared:
    """A monitored item at the server, and the watches that it stands for: all that ask for the same in the same way."""

    __slots__ = ("answer", "filter", "handle", "id", "last", "request", "subscription", "tokens", "told", "waiting")

    def __init__(
        self, handle: int, request: m.Subscribe | m.Events, subscription: _Subscription, filter: Extension
    ) -> None:
        self.filter = filter
        self.handle = handle
        self.id = 0  # the server's; 0 until it has said it
        self.request = request
        self.subscription = subscription
        self.tokens: dict[int, None] = {}
        self.told: dict[int, None] = {}  # those of them whose answer is on its way
        self.waiting: list[tuple[int, Asking]] = []
        self.answer: m.Subscribed | None = None
        self.last: m.Sample | None = None


class Watches:
    """What stands on this connection. Watches of one publishing interval share a subscription, and those that ask for
    the same an item. What is to be made is gathered until the connection is looked at next, and asked for in one
    question, of which one is under way at a time."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.subscriptions: dict[int, _Subscription] = {}  # by the server's id
        self._by_interval: dict[int, int] = {}
        self._items: dict[m.Subscribe | m.Events, _Shared] = {}
        self._of: dict[int, _Shared] = {}  # by token
        self._next_handle = 0
        self._gathered: dict[int, _Shared] = {}  # by our handle
        self._asking = False
        self._opening: dict[int, list[tuple[int, Asking]]] = {}  # by interval: who waits for a subscription
        self._acknowledged: list[s.Acknowledgement] = []
        self._early: dict[int, list[Any]] = {}
        self._answered: set[int] = set()
        self.conditions = Conditions(ids=True)

    def make(self, token: int, request: m.Subscribe | m.Events) -> Asking:
        """A monitored item, on a subscription that may have to be made first; or a part of one that stands."""
        shared = self._items.get(request)
        if shared is None:
            names = self._client.namespaces
            names.node(request.item.name)  # raises where there is none
            filter = filter_of(request, names) if isinstance(request, m.Events) else _data_filter(request)
            subscription = yield from self._subscription(token, max(50_000, request.interval_us))
            if isinstance(subscription, m.Refused):
                return subscription
            shared = self._items.get(request)  # it may have been made meanwhile
            if shared is None:
                self._next_handle = self._next_handle % 0x7FFFFFFF + 1
                shared = self._items[request] = _Shared(self._next_handle, request, subscription, filter)
                subscription.items[shared.handle] = shared
                self._gathered[shared.handle] = shared
        shared.tokens[token] = None
        self._of[token] = shared
        answer: Any = shared.answer
        if answer is None:
            # The question that asks for it, and for others, has this go on.
            answer = yield Wait(shared.waiting)
        elif shared.last is not None:
            self._early[token] = [shared.last]  # as a new item begins with what there is
        if isinstance(answer, Misfit):
            raise answer
        if isinstance(answer, m.Refused):
            self._of.pop(token, None)
            return answer
        if isinstance(request, m.Events) and request.refresh and token in self._of:
            answer = m.Subscribed(answer.interval_us, answer.queue, (yield from self._refresh(shared)))
        if token not in self._of:  # its subscription has ended meanwhile
            return m.Refused(0x80280000)
        return answer

    def _refresh(self, shared: _Shared) -> Asking:
        """Has the server tell how its conditions stand (OPC 10000-9, 5.5.7 and 5.5.8): for this item alone, or, where
        it knows no such method, for its subscription. The status."""
        subscription = Variant(7, shared.subscription.id)
        status = BAD_METHOD
        for number, arguments in ((REFRESH_ITEM, [subscription, Variant(7, shared.id)]), (REFRESH, [subscription])):
            call = s.MethodToCall(CONDITIONS, NodeId(0, number), arguments)
            answer = yield s.CallRequest(self._client.header(), [call])
            refused = said(answer, s.CallResponse)
            if refused is not None:
                status = refused.status
            elif len(answer.results) != 1:
                raise Misfit(f"{len(answer.results)} results for one call")
            else:
                status = answer.results[0].status
            if not status & 0x80000000:
                return 0
        return status

    def _subscription(self, token: int, interval: int) -> Asking:
        """The subscription of a publishing interval (µs); or a refusal."""
        number = self._by_interval.get(interval)
        if number is not None and number in self.subscriptions:
            return self.subscriptions[number]
        if len(self.subscriptions) + len(self._opening) >= SUBSCRIPTIONS and self._by_interval:
            nearest = min(self._by_interval, key=lambda one: abs(one - interval))
            return self.subscriptions[self._by_interval[nearest]]
        if interval in self._opening:
            return (yield Wait(self._opening[interval]))
        client = self._client
        self._opening[interval] = []
        answer = yield s.CreateSubscriptionRequest(client.header(), interval / 1000, LIFETIME, KEEPALIVE, 0, True, 0)
        found: Any = said(answer, s.CreateSubscriptionResponse)
        if found is None:
            found = self.subscriptions[answer.subscription] = _Subscription(answer.subscription)
            self._by_interval[interval] = answer.subscription
            client.publish()
        for other, waiting in self._opening.pop(interval):
            client.goes_on(other, waiting, found)
        return found

    # --- gathering ----------------------------------------------------------------------------------------------------

    @property
    def gathered(self) -> bool:
        """Whether there is something to ask for, and nothing under way."""
        return bool(self._gathered) and not self._asking

    def flush(self) -> None:
        """Asks for what was gathered."""
        if not self.gathered:
            return
        subscription = next(iter(self._gathered.values())).subscription
        those = (one for one in self._gathered.values() if one.subscription is subscription)
        some = list(itertools.islice(those, AT_ONCE))
        for one in some:
            del self._gathered[one.handle]
        self._asking = True
        self._client.start(0, self._create(subscription, some))

    def _create(self, subscription: _Subscription, some: list[_Shared]) -> Asking:
        client = self._client
        wanted = []
        for one in some:
            request, happens = one.request, isinstance(one.request, m.Events)
            node = client.namespaces.node(request.item.name)
            item = s.ReadValueId(node, NOTIFIER if happens else VALUE, index_range(request.item), NO_QUALIFIED)
            interval = 0.0 if happens else request.interval_us / 1000  # events are not sampled
            how = s.MonitoringParameters(one.handle, interval, one.filter, request.queue, request.oldest)
            wanted.append(s.ItemToCreate(item, 2, how))
        answer = yield s.CreateItemsRequest(client.header(), subscription.id, 2, wanted)
        self._asking = False
        whole: Any
        try:
            whole = said(answer, s.CreateItemsResponse)
            if whole is None and len(answer.results) != len(some):
                raise Misfit(f"{len(answer.results)} results for {len(some)} items")
        except Misfit as error:
            whole = error
        for number, one in enumerate(some):
            self._created(one, answer.results[number] if whole is None else whole)
        client.goes_round([token for one in self._gathered.values() for token, _ in one.waiting])

    def _created(self, shared: _Shared, made: Any) -> None:
        """The server has said what became of an item: who waits for it goes on."""
        outcome: Any = made
        if isinstance(made, s.ItemCreated):
            if made.status & 0x80000000:
                outcome = m.Refused(made.status)
            else:
                shared.id = made.id
                asked = shared.request
                revised = made.interval if 0 <= made.interval <= 1e7 else asked.interval_us / 1000
                outcome = shared.answer = m.Subscribed(int(revised * 1000), max(1, min(100, made.queue)))
        waiting, shared.waiting = shared.waiting, []
        if not isinstance(outcome, m.Subscribed):
            self._remove(shared)
        for token, generator in waiting:
            self._client.goes_on(token, generator, outcome)
        if shared.id and not shared.tokens:
            self._delete(shared)

    # --- ending -------------------------------------------------------------------------------------------------------

    def give_up(self, token: int) -> None:
        """A watch is not wanted any more: an item without any goes, and a subscription without items."""
        self._drop(token)
        shared = self._of.pop(token, None)
        if shared is None:
            return
        shared.tokens.pop(token, None)
        shared.told.pop(token, None)
        if not shared.tokens and shared.id:
            self._delete(shared)

    def _delete(self, shared: _Shared) -> None:
        self._remove(shared)
        subscription, client = shared.subscription, self._client
        if self.subscriptions.get(subscription.id) is not subscription:
            return
        if subscription.items:
            client.tell(s.DeleteItemsRequest(client.header(), subscription.id, [shared.id]))
            return
        self._forget(subscription)
        client.tell(s.DeleteSubscriptionsRequest(client.header(), [subscription.id]))

    def _remove(self, shared: _Shared) -> None:
        if self._items.get(shared.request) is shared:
            del self._items[shared.request]
        shared.subscription.items.pop(shared.handle, None)
        if self._gathered.get(shared.handle) is shared:
            del self._gathered[shared.handle]

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
            elif isinstance(notification, s.EventList):
                self._happened(subscription, notification.events)
            elif isinstance(notification, s.StatusChange):
                self._end(subscription, f"the server ended the subscription with 0x{notification.status:08X}")
                return

    def _changed(self, subscription: _Subscription, items: Iterable[s.ItemNotification]) -> None:
        names = self._client.namespaces
        found: dict[int, list[Any]] = {}
        for one in items:
            shared = subscription.items.get(one.handle)
            if shared is not None and isinstance(shared.request, m.Subscribe):
                item = shared.request.item
                sample = within(item, names.sample(one.value, self._client.structures.get(item.name)))
                if weight(sample) > NEWS_BYTES:
                    sample = m.Sample(None, BAD_LIMITS)
                found.setdefault(one.handle, []).append(sample)
        for handle, samples in found.items():
            subscription.items[handle].last = samples[-1]
        self._tell(subscription, found)

    def _happened(self, subscription: _Subscription, events: Iterable[s.EventFields]) -> None:
        names = self._client.namespaces
        found: dict[int, list[Any]] = {}
        for one in events:
            shared = subscription.items.get(one.handle)
            if shared is not None and isinstance(shared.request, m.Events):
                event = event_of(one.fields, shared.request, names)
                self.conditions.heard(shared.request.item.name, shared.request, event)
                found.setdefault(one.handle, []).append(event)
        self._tell(subscription, found)

    def _tell(self, subscription: _Subscription, found: dict[int, list[Any]]) -> None:
        for handle, news in found.items():
            shared = subscription.items[handle]
            told = tuple(shared.told)
            if len(told) < len(shared.tokens):
                for token in shared.tokens:
                    if token not in self._answered:  # news before the answer that says that the watch stands
                        self._keep(token, news, m.EVENTS if isinstance(shared.request, m.Events) else EARLY_SAMPLES)
            if told:
                for batch in _batches(news):
                    self._client.news(told[0], batch, told[1:])

    def _keep(self, token: int, news: list[Any], most: int) -> None:
        """With what came before: while conditions tell how they stand, a server may publish many times. The last ones
        stay."""
        early = self._early[token] = [*self._early.get(token, ()), *news][-most:]
        size = 0
        for place in range(len(early) - 1, -1, -1):
            size += _weight(early[place])
            if size > EARLY_BYTES:
                del early[: place + 1]
                break

    def answered(self, token: int) -> None:
        """The answer that a watch stands is on its way: its news may follow."""
        shared = self._of.get(token)
        if shared is not None:
            self._answered.add(token)
            shared.told[token] = None
            early = self._early.pop(token, None)
            if early:
                for batch in _batches(early):
                    self._client.news(token, batch)

    def _end(self, subscription: _Subscription, why: str) -> None:
        self._forget(subscription)
        for shared in list(subscription.items.values()):
            self._remove(shared)
            for token in shared.tokens:
                self._of.pop(token, None)
                self._drop(token)
                self._client.over(token, why)
            waiting, shared.waiting = shared.waiting, []
            for token, generator in waiting:
                self._client.goes_on(token, generator, m.Refused(0x80280000))

    def all_over(self, why: str) -> None:
        """The server knows none of our subscriptions."""
        for subscription in list(self.subscriptions.values()):
            self._end(subscription, why)

    def take_acknowledged(self) -> list[s.Acknowledgement]:
        """What the next Publish acknowledges."""
        found, self._acknowledged = self._acknowledged, []
        return found
