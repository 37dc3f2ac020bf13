"""Subscriptions of one client session (OPC 10000-4, 5.14): what is published when, to a client that asks for it.

Theory. A subscription turns once in a publishing interval. In its turn it sends what its items have queued, or, after
`keepalive` turns without news, that it lives; for that it takes one of the Publish requests that wait in the session.
If there is none it is late, and sends as soon as one comes; after `lifetime` turns without any the subscription ends.
What was sent is kept until it is acknowledged (SENT of them), for Republish. Nothing of this crosses: an item is a
watch.

Not here: making watches (server_items), bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Data, Variant

SUBSCRIPTIONS, ITEMS, PUBLISHES, SENT, QUEUE = 20, 5000, 10, 64, 100
"""Of a session: subscriptions, items of one, waiting Publish requests; unacknowledged notifications; values of an
item."""
EVENTS = 1000
"""Events that wait of one item."""
LOCAL_ITEMS = 100
"""Items of a session that are nodes of our own: looked at in each turn, and bounded by no limit at the asset."""
QUEUED_BYTES, SENT_BYTES, NEWS_BYTES = 4 << 20, 256 << 10, 512 << 10
"""Of all queued values of a session; of a subscription's unacknowledged notifications (the last is always kept); of
values in one notification. About, as names.weight counts."""
FASTEST_MS = 50.0
SLOWEST_MS = 3_600_000.0
MOST = 1000
"""Values in one notification."""
BAD_SUBSCRIPTION, BAD_ITEM, BAD_SEQUENCE, BAD_MESSAGE = 0x80280000, 0x80420000, 0x807A0000, 0x807B0000
BAD_NO_SUBSCRIPTION, BAD_TOO_MANY_PUBLISHES, BAD_TOO_MANY_SUBSCRIPTIONS = 0x80790000, 0x80780000, 0x80770000
BAD_TIMEOUT, BAD_RESOURCE = 0x800A0000, 0x80040000
LEAST_WEIGHT = 40
OVERFLOW = 0x0480
"""The info bits of a value before which others were dropped."""
MS = 1_000_000


class Store:
    """What the queues of a session hold, in bytes."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class Watched:
    """A monitored item. `token`: of what stands for it, 0 for nothing."""

    __slots__ = (
        "answer", "clauses", "discard", "handle", "id", "item", "local", "mode", "overflow", "queue", "request",
        "retry_at", "retry_ns", "size", "stamps", "store", "subscription", "token",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, number: int, handle: int, size: int, discard: bool) -> None:
        self.subscription = subscription
        self.id = number
        self.handle = handle
        # Data, or the fields of an event; about how many bytes it has. A deque takes 760 bytes while it is empty.
        self.queue: list[tuple[Any, int]] = []
        self.store = subscription.store
        self.size = size
        self.discard = discard
        self.mode = 2
        self.stamps = 2
        self.overflow = False
        self.token = 0
        self.request: m.Subscribe | m.Events | None = None
        self.clauses: tuple[int, ...] | None = None  # of events: which of the fields asked for each clause of it is, -1
        self.answer = wire.NO_EXTENSION  # to its filter
        self.local: s.ReadValueId | None = None  # a node of our own, which is looked at in each turn
        self.item: Any = None
        self.retry_at = 0
        self.retry_ns = 0

    def add(self, value: Data, weight: int = LEAST_WEIGHT) -> None:
        """One more value, of about so many bytes. Where the session has no room for it a status stands in its place."""
        if self.mode == 0:
            return
        if self.overflow:  # it was nobody's for a while
            self.overflow = False
            value = Data(value.value, value.status | OVERFLOW, value.source_time, value.server_time)
        if len(self.queue) >= self.size:
            _, gone = self.queue.pop(0) if self.discard else self.queue.pop()
            self.store.size -= gone
            if self.size > 1 and self.queue:
                first, its = self.queue[0]
                data = Data(first.value, first.status | OVERFLOW, first.source_time, first.server_time)
                self.queue[0] = (data, its)
        if self.store.size + weight > QUEUED_BYTES:
            value, weight = Data(None, BAD_RESOURCE, value.source_time, value.server_time), LEAST_WEIGHT
        self.store.size += weight
        self.queue.append((value, weight))
        if self.mode == 2:
            self.subscription.has_news.add(self)

    def happened(self, fields: list[Variant], weight: int) -> None:
        """One more event. Where there is no room, one is dropped, and the client is told so (OPC 10000-4, 7.22.3)."""
        if self.mode == 0:
            return
        if len(self.queue) >= self.size or self.store.size + weight > QUEUED_BYTES:
            self.overflow = True
            if not self.discard or not self.queue:
                self.subscription.has_news.add(self)
                return
            self.take()
            if self.store.size + weight > QUEUED_BYTES:
                return
        self.store.size += weight
        self.queue.append((fields, weight))
        if self.mode == 2:
            self.subscription.has_news.add(self)

    def take(self) -> tuple[Any, int]:
        """The oldest value, and its weight."""
        found = self.queue.pop(0)
        self.store.size -= found[1]
        return found

    def empty(self) -> None:
        """Nothing is wanted of it any more."""
        while self.queue:
            self.take()


class Subscription:
    """One of them. Times: monotonic ns."""

    __slots__ = (
        "due", "enabled", "has_news", "id", "interval", "items", "keepalive", "late", "lifetime", "local", "most",
        "sent", "sent_bytes", "sequence", "since_client", "since_sent", "store",
    )  # fmt: skip

    def __init__(self, number: int, request: Any, now: int, store: Store) -> None:
        self.id = number
        self.store = store
        self.local: set[Watched] = set()
        self.sent_bytes = 0
        self.items: dict[int, Watched] = {}
        self.has_news: set[Watched] = set()
        self.sequence = 1
        self.sent: OrderedDict[int, s.NotificationMessage] = OrderedDict()
        self.enabled = getattr(request, "enabled", True)
        self.late = False
        self.since_client = 0  # turns
        self.since_sent = 0
        self.interval = 0
        self.revise(request, now)
        self.since_sent = self.keepalive  # the first answer comes within one interval

    @property
    def weight(self) -> int:
        """Of all that it holds, in bytes."""
        return self.sent_bytes + sum([weight for item in self.items.values() for _, weight in item.queue])

    def joins(self, store: Store, now: int) -> None:
        """Another session has it from now on."""
        self.store = store
        for item in self.items.values():
            item.store = store
            store.size += sum([weight for _, weight in item.queue])
        self.late, self.since_client, self.since_sent = False, 0, self.keepalive
        self.due = now + self.interval

    def keep(self, message: s.NotificationMessage) -> None:
        """Keeps a notification until it is acknowledged, or there are too many."""
        self.sent[message.sequence] = message
        self.sent_bytes += _size(message)
        while len(self.sent) > SENT or (len(self.sent) > 1 and self.sent_bytes > SENT_BYTES):
            self.acknowledge(next(iter(self.sent)))

    def acknowledge(self, sequence: int) -> bool:
        """A notification has arrived. Whether there was one."""
        message = self.sent.pop(sequence, None)
        if message is not None:
            self.sent_bytes -= _size(message)
        return message is not None

    def revise(self, request: Any, now: int) -> None:
        """Takes what a client asks for, within limits."""
        asked = request.interval if request.interval == request.interval else 0.0  # NaN
        self.interval = int(min(max(asked, FASTEST_MS), SLOWEST_MS) * MS)
        self.keepalive = min(max(request.keepalive, 1), 10_000)
        self.lifetime = min(max(request.lifetime, 3 * self.keepalive), 30_000)
        self.most = min(request.most or MOST, MOST)
        self.due = now + self.interval


def _size(message: s.NotificationMessage) -> int:
    return sum([len(one.body or b"") for one in message.data])


class Subscriptions:
    """All of a session. `answer(request id, handle, message)` sends a response; `gone` is told each item that goes,
    `forget` the id of each subscription; `lost(item)` makes the event that says that some were dropped; `look(node)`
    finds what a node of our own holds."""

    def __init__(self, answer: Any, fault: Any, gone: Any, forget: Any, wall: Any, lost: Any, look: Any) -> None:
        self._forget = forget
        self._look = look
        self._lost = lost
        self._answer = answer
        self._fault = fault
        self._gone = gone
        self._wall = wall
        self.all: dict[int, Subscription] = {}
        self._waiting: deque[tuple[int, int, list[int]]] = deque()  # request id, handle, results of acknowledgements
        self._next_item = 0
        self._over: list[tuple[int, s.NotificationMessage]] = []
        self._store = Store()

    def let_go(self) -> None:
        """The connection is over, and its session forgotten."""
        self._answer = self._fault = self._gone = self._forget = self._wall = self._lost = self._look = None

    @property
    def full(self) -> bool:
        """Whether no more are taken."""
        return len(self.all) >= SUBSCRIPTIONS

    def create(self, number: int, request: s.CreateSubscriptionRequest, now: int) -> Subscription:
        """A new one, of this id."""
        found = self.all[number] = Subscription(number, request, now, self._store)
        return found

    def join(self, subscription: Subscription, now: int) -> None:
        """One that was another session's."""
        subscription.joins(self._store, now)
        self.all[subscription.id] = subscription

    def leave(self, number: int, status: int) -> Subscription:
        """Gives one away, with all that it holds; the client is told by a status, if it is not 0."""
        found = self.all.pop(number)
        self._store.size -= found.weight - found.sent_bytes
        if status and len(self._over) < SUBSCRIPTIONS:
            change = wire.pack(s.StatusChange(status, 0))
            self._over.append((number, s.NotificationMessage(found.sequence, wire.ticks(self._wall()), [change])))
        return found

    def add(
        self,
        subscription: Subscription,
        handle: int,
        queue: int,
        discard: bool,
        local: s.ReadValueId | None = None,
        most: int = QUEUE,
    ) -> Watched | None:
        """A new item; None: there are too many. `local`: what a node of our own holds; `most`: may wait."""
        if len(subscription.items) >= ITEMS:
            return None
        if local is not None and sum(len(one.local) for one in self.all.values()) >= LOCAL_ITEMS:
            return None
        self._next_item += 1
        while self._next_item in subscription.items:  # it was another session's
            self._next_item += 1
        item = Watched(subscription, self._next_item, handle, min(max(queue, 1), most), discard)
        subscription.items[item.id] = item
        if local is not None:
            item.local = local
            subscription.local.add(item)
        return item

    def drop_item(self, item: Watched) -> None:
        """An item that is not wanted any more."""
        item.subscription.items.pop(item.id, None)
        item.subscription.has_news.discard(item)
        item.subscription.local.discard(item)
        item.empty()
        self._gone(item)

    def delete(self, number: int) -> int:
        """The status of it."""
        subscription = self.all.pop(number, None)
        if subscription is None:
            return BAD_SUBSCRIPTION
        self._forget(number)
        for item in list(subscription.items.values()):
            self.drop_item(item)
        if not self.all:
            self._answer_all(BAD_NO_SUBSCRIPTION)
        return 0

    def _answer_all(self, status: int) -> None:
        waiting, self._waiting = self._waiting, deque()
        for request, handle, _ in waiting:
            self._fault(request, handle, status)

    def end(self) -> None:
        """The session is over."""
        for number in list(self.all):
            self.delete(number)
        self._answer_all(0x80260000)

    # --- publishing ---------------------------------------------------------------------------------------------

    def publish(self, request: int, handle: int, message: s.PublishRequest, now: int) -> None:
        """A client waits for news."""
        results = []
        for one in message.acknowledged[:1000]:
            subscription = self.all.get(one.subscription)
            if subscription is None:
                results.append(BAD_SUBSCRIPTION)
            else:
                results.append(0 if subscription.acknowledge(one.sequence) else BAD_SEQUENCE)
        if not self.all and not self._over:
            self._fault(request, handle, BAD_NO_SUBSCRIPTION)
            return
        if len(self._waiting) >= PUBLISHES:
            oldest, its, _ = self._waiting.popleft()
            self._fault(oldest, its, BAD_TOO_MANY_PUBLISHES)
        self._waiting.append((request, handle, results))
        if self._over:
            number, last = self._over.pop(0)
            self._send_one(number, last, [], False)
            return
        for subscription in self.all.values():
            subscription.since_client = 0
            if subscription.late and self._waiting:
                self._send(subscription)

    def on_time(self, now: int) -> None:
        """Turns what is due."""
        while self._over and self._waiting:
            number, last = self._over.pop(0)
            self._send_one(number, last, [], False)
        for subscription in list(self.all.values()):
            if now >= subscription.due:
                missed = (now - subscription.due) // subscription.interval
                subscription.due += (missed + 1) * subscription.interval
                self._turn(subscription)

    @property
    def deadline(self) -> int:
        """When the next one is due; 0 for none."""
        return min([subscription.due for subscription in self.all.values()]) if self.all else 0

    def _turn(self, subscription: Subscription) -> None:
        for item in subscription.local:
            if item.mode == 2:
                value = self._look(item.local)
                if item.item is None or value.value != item.item.value:
                    item.item = value
                    item.add(value)
        subscription.since_client = 0 if self._waiting else subscription.since_client + 1
        if subscription.since_client >= subscription.lifetime:
            message = s.NotificationMessage(
                subscription.sequence, wire.ticks(self._wall()), [wire.pack(s.StatusChange(BAD_TIMEOUT, 0))]
            )
            if len(self._over) < SUBSCRIPTIONS:
                self._over.append((subscription.id, message))
            self.delete(subscription.id)
            return
        subscription.since_sent += 1
        news = subscription.enabled and bool(subscription.has_news)
        if news or subscription.since_sent >= subscription.keepalive:
            if self._waiting:
                self._send(subscription)
            else:
                subscription.late = True

    def _send(self, subscription: Subscription) -> None:
        """Answers Publish requests with what there is to say."""
        while self._waiting:
            found: list[s.ItemNotification] = []
            happened: list[s.EventFields] = []
            size = 0
            if subscription.enabled:
                for item in list(subscription.has_news):
                    if item.overflow and item.clauses is not None:
                        item.overflow = False
                        happened.append(s.EventFields(item.handle, self._lost(item)))
                    while item.queue and len(found) + len(happened) < subscription.most and size < NEWS_BYTES:
                        value, weight = item.take()
                        size += weight
                        if item.clauses is None:
                            found.append(s.ItemNotification(item.handle, value))
                        else:
                            happened.append(s.EventFields(item.handle, value))
                    if item.queue:
                        break
                    subscription.has_news.discard(item)
            more = subscription.enabled and bool(subscription.has_news)
            now = wire.ticks(self._wall())
            if not found and not happened:
                message = s.NotificationMessage(subscription.sequence, now, [])  # it lives
            else:
                parts = [wire.pack(s.DataChange(found, []))] if found else []
                parts += [wire.pack(s.EventList(happened))] if happened else []
                message = s.NotificationMessage(subscription.sequence, now, parts)
                subscription.keep(message)
                subscription.sequence = subscription.sequence + 1 if subscription.sequence < 0xFFFFFFFF else 1
            subscription.since_sent = 0
            subscription.late = False
            self._send_one(subscription.id, message, list(subscription.sent), more)
            if not more:
                return
        subscription.late = True

    def _send_one(self, number: int, message: s.NotificationMessage, available: list[int], more: bool) -> None:
        request, handle, results = self._waiting.popleft()
        self._answer(
            request, handle, s.PublishResponse, number, available, more, message, results, []
        )  # fmt: skip
