"""Subscriptions and monitored items at the side towards a client: an item is a watch, which crosses one by one.

What ends while its client still wants it is asked for again, unless policy has ended it; meanwhile the client sees a
status, and no silence. Not here: when what is published (subscriptions), other services (server_work).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import msgspec

from cofferdam.model import NAME_LENGTH, Deny, Item, Operation, Watch
from cofferdam.protocols.base import Released
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Data, LocalizedText, Malformed, NodeId, Variant
from cofferdam.protocols.opcua.dialect import WATCH
from cofferdam.protocols.opcua.events import NOTIFIER, event_weight, field_item, narrowed, selected
from cofferdam.protocols.opcua.jobs import Job, Ready
from cofferdam.protocols.opcua.kept import Keeping, Owner
from cofferdam.protocols.opcua.messages import FIELDS
from cofferdam.protocols.opcua.names import Unnamed, item_of
from cofferdam.protocols.opcua.rendered import Rendered
from cofferdam.protocols.opcua.subscriptions import (
    BAD_ITEM,
    BAD_MESSAGE,
    BAD_SUBSCRIPTION,
    EVENTS,
    QUEUE,
    Subscription,
    Subscriptions,
    Watched,
)
from cofferdam.protocols.opcua.subscriptions import BAD_TOO_MANY_SUBSCRIPTIONS as TOO_MANY_SUBSCRIPTIONS
from cofferdam.protocols.opcua.trust import chain_mark

VALUE = 13
ITEMS_AT_ONCE = 1000
REFRESH_NS = 1_000_000_000
"""So often may conditions be asked to tell how they stand."""
RETRY_NS, MOST_RETRY_NS = 500_000_000, 10_000_000_000
BAD_NODE, BAD_DENIED, BAD_ATTRIBUTE, BAD_OPERATIONS = 0x80340000, 0x801F0000, 0x80350000, 0x80100000
BAD_FILTER, BAD_TOO_MANY_ITEMS, BAD_NOT_CONNECTED = 0x80450000, 0x80DB0000, 0x80310000
BAD_CLOSED, TRANSFERRED = 0x80260000, 0x002D0000
TRANSFERS = 100
"""Subscriptions in one TransferSubscriptions."""
BAD_REFRESH_IN_PROGRESS = 0x80970000
BAD_EVENT_FILTER, BAD_OPERATOR, BAD_OPERAND = 0x80470000, 0x80C20000, 0x80490000
SYSTEM_EVENT, REFRESH_REQUIRED, QUEUE_OVERFLOW = 2130, 2789, 3035
"""Types of events of our own (OPC 10000-5, 6.4; -9, 5.5.7)."""
LEAST_EVENT = 200
NOTHING = Variant(0, None)
_EMPTY = Ready(b"")
"""The answer to what was not asked on the wire."""


class ItemServices(abc.ABC):
    """What a session asks of subscriptions."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._names = server.names
        self._rendered = Rendered() if server.trust is None else server.trust.rendered
        self._standing: dict[int, Watched] = {}
        self._waiting: set[Watched] = set()  # to be asked for again
        self.subscriptions = Subscriptions(
            self._reply, server.fault, self._item_gone, self._forget, server.wall, self._lost, self._standard
        )

    def _reply(self, number: int, handle: int, kind: type, *fields: Any) -> None:
        if self._server.services is self:
            self._server.reply(number, handle, kind, *fields)
        else:
            self._server.fault(number, handle, BAD_CLOSED)  # what was asked for in a session that is over

    @abc.abstractmethod
    def _no(self, name: str) -> int:
        """Why something is not allowed, in a status."""

    @abc.abstractmethod
    def _item(self, node: NodeId, index_range: str | None, kind: str = "node") -> Item | int:
        """What a NodeId of ours names; or a status."""

    @abc.abstractmethod
    def _standard(self, one: s.ReadValueId) -> Data:
        """What a node of the standard's own holds."""

    @abc.abstractmethod
    def _standard_value(self, number: Any) -> Variant | None:
        """Its value; None where it has none."""

    def on_time(self, now: int) -> None:
        """Subscriptions turn; watches that ended are asked for again."""
        self.subscriptions.on_time(now)
        if not self._waiting:
            return
        due = [one for one in self._waiting if now >= one.retry_at][:ITEMS_AT_ONCE]
        self._waiting.difference_update(due)
        if due:
            self._watch([one for one in due if one.request is not None])

    @property
    def deadline(self) -> int:
        """When to be told the time; 0 for never."""
        due = self.subscriptions.deadline
        if not self._waiting:
            return due
        retry = min([item.retry_at for item in self._waiting])
        return min(due, retry) if due else retry

    def end(self, keep: bool = True) -> None:
        """The session is over. `keep`: its subscriptions may be another's of the same client."""
        keeping = self._keeping
        for number, subscription in list(self.subscriptions.all.items()):
            for item in list(subscription.items.values()):
                if keep and keeping is not None:
                    self._let_go(item)
                else:
                    self._item_gone(item)
            self.subscriptions.leave(number, 0)
            if keeping is not None:
                keeping.keep(subscription, self._server.now) if keep else keeping.forget(number)

    @property
    def _keeping(self) -> Keeping | None:
        trust = self._server.trust
        return None if trust is None else trust.keeping

    def _forget(self, number: int) -> None:
        if self._keeping is not None:
            self._keeping.forget(number)

    def _owner(self) -> Owner:
        server = self._server
        mark = chain_mark(server.channel.peer) if server.channel.peer else ""
        facing = server.facing
        return Owner(facing.asset.name, facing.source, server.user, server.client_uri, mark, self._names.uris)

    def surrender(self, number: int) -> Subscription | None:
        """Another session of the same client takes a subscription; None where there is none."""
        if number not in self.subscriptions.all:
            return None
        found = self.subscriptions.leave(number, TRANSFERRED)
        for item in found.items.values():
            self._let_go(item)
        return found

    def _let_go(self, item: Watched) -> None:
        """Nothing stands for an item any more, which is wanted all the same."""
        self._waiting.discard(item)
        token, item.token = item.token, 0
        if token and self._standing.pop(token, None) is not None:
            self._server.event(Released(self._server.new_token(), token, _EMPTY))

    def _is_ours(self, item: Watched) -> bool:
        return self.subscriptions.all.get(item.subscription.id) is item.subscription

    def _create_subscription(self, number: int, request: s.CreateSubscriptionRequest) -> None:
        if self.subscriptions.full:
            raise Malformed("too many subscriptions", TOO_MANY_SUBSCRIPTIONS)
        keeping = self._keeping
        made = self.subscriptions.create(1 if keeping is None else keeping.number(), request, self._server.now)
        if keeping is not None:
            keeping.hold(made, self._owner(), self)
        self._reply(
            number, request.header.handle, s.CreateSubscriptionResponse, made.id, made.interval / 1e6, made.lifetime,
            made.keepalive,
        )  # fmt: skip

    def _of(self, number: int) -> Any:
        found = self.subscriptions.all.get(number)
        if found is None:
            raise Malformed("no such subscription", BAD_SUBSCRIPTION)
        return found

    def _modify(self, number: int, request: s.ModifySubscriptionRequest) -> None:
        found = self._of(request.subscription)
        found.revise(request, self._server.now)
        self._reply(
            number, request.header.handle, s.ModifySubscriptionResponse, found.interval / 1e6, found.lifetime,
            found.keepalive,
        )  # fmt: skip

    def _publishing(self, number: int, request: s.SetPublishingModeRequest) -> None:
        results = []
        for one in request.subscriptions[:1000]:
            found = self.subscriptions.all.get(one)
            results.append(BAD_SUBSCRIPTION if found is None else 0)
            if found is not None:
                found.enabled = request.enabled
        self._reply(number, request.header.handle, s.SetPublishingModeResponse, results, [])

    def _delete(self, number: int, request: s.DeleteSubscriptionsRequest) -> None:
        results = [self.subscriptions.delete(one) for one in request.subscriptions[:1000]]
        self._reply(number, request.header.handle, s.DeleteSubscriptionsResponse, results, [])

    def _transfer(self, number: int, request: s.TransferRequest) -> None:
        if not request.subscriptions or len(request.subscriptions) > TRANSFERS:
            raise Malformed("a transfer of none or too many", BAD_OPERATIONS)
        results = [self.take(one) for one in request.subscriptions]
        self._reply(number, request.header.handle, s.TransferResponse, results, [])

    def take(self, number: int) -> s.TransferResult:
        """A subscription of another session, which may have ended. Its watches are asked for in this one's name."""
        keeping, now = self._keeping, self._server.now
        if self.subscriptions.full:
            return s.TransferResult(TOO_MANY_SUBSCRIPTIONS, [])
        found = None if keeping is None else keeping.take(number, self._owner(), self, now)
        if found is None:
            return s.TransferResult(BAD_SUBSCRIPTION, [])
        self.subscriptions.join(found, now)
        for item in found.items.values():
            if item.request is not None:
                item.overflow = item.clauses is None and item.size > 1
                item.retry_at, item.retry_ns = now, RETRY_NS  # of events the client is told once they come again
                self._waiting.add(item)
        return s.TransferResult(0, list(found.sent))

    def _refresh(self, numbers: list[Any], answer: Callable[[int], None]) -> None:
        """Conditions are to tell how they stand: to all items of events of a subscription, or to one of them. The watch
        of each is asked for once more, with that; the new one then takes the place of the old."""
        subscription = self.subscriptions.all.get(numbers[0])
        if subscription is None:
            answer(BAD_SUBSCRIPTION)
            return
        items = [item for item in subscription.items.values() if item.clauses is not None]
        if len(numbers) > 1:
            items = [item for item in items if item.id == numbers[1]]
        now = self._server.now
        if not items:
            answer(BAD_ITEM if len(numbers) > 1 else 0)
            return
        if any(now < item.retry_at or not item.token for item in items):
            answer(BAD_REFRESH_IN_PROGRESS if all(item.token for item in items) else BAD_NOT_CONNECTED)
            return
        olds = [item.token for item in items]

        def finish(answers: list[Any]) -> None:
            status = 0
            for item, old, token, one in zip(items, olds, job.tokens, answers, strict=True):
                if not isinstance(one, m.Subscribed):
                    status = one.status
                    self._standing.pop(token, None)
                    continue
                status = one.refreshed or status
                kept = self._is_ours(item) and item.token == old
                over, item.token = (old, token) if kept else (token, item.token)
                self._standing.pop(over, None)
                self._server.event(Released(self._server.new_token(), over, _EMPTY))
            answer(status)

        job = Job(self._server, len(items), finish)
        for slot, item in enumerate(items):
            item.retry_at = now + REFRESH_NS
            wanted = item.request
            if isinstance(wanted, m.Events):
                self._standing[self._server.ask(job, slot, msgspec.structs.replace(wanted, refresh=True))] = item

    def _items_of(self, number: Any) -> tuple[list[int], list[int]] | None:
        """The ids of a subscription's items, ours and the client's (the method GetMonitoredItems; OPC 10000-5, 9.1)."""
        found = self.subscriptions.all.get(number)
        return None if found is None else (list(found.items), [item.handle for item in found.items.values()])

    def _publish(self, number: int, request: s.PublishRequest) -> None:
        self.subscriptions.publish(number, request.header.handle, request, self._server.now)

    def _republish(self, number: int, request: s.RepublishRequest) -> None:
        message = self._of(request.subscription).sent.get(request.sequence)
        if message is None:  # clients ask for one more until there is none
            self._server.fault(number, request.header.handle, BAD_MESSAGE)
            return
        self._reply(number, request.header.handle, s.RepublishResponse, message)

    def _create_items(self, number: int, request: s.CreateItemsRequest) -> None:
        subscription = self._of(request.subscription)
        if not request.items or len(request.items) > ITEMS_AT_ONCE:
            raise Malformed("monitored items: none or too many", BAD_OPERATIONS)
        results: list[s.ItemCreated | None] = [None] * len(request.items)
        parts: list[m.OpcUaRequest] = []
        made: list[tuple[int, Watched]] = []
        for place, wanted in enumerate(request.items):
            found = self._wanted(subscription, wanted, request.stamps)
            if isinstance(found, int):
                results[place] = s.ItemCreated(found, 0, 0.0, 0, wire.NO_EXTENSION)
                continue
            if found.request is None:
                results[place] = s.ItemCreated(0, found.id, subscription.interval / 1e6, found.size, wire.NO_EXTENSION)
            else:
                parts.append(found.request)
                made.append((place, found))

        def finish(answers: list[Any]) -> None:
            for (place, item), answer, token in zip(made, answers, job.tokens if job else (), strict=True):
                if isinstance(answer, m.Subscribed):
                    interval = answer.interval_us / 1000
                    results[place] = s.ItemCreated(0, item.id, interval, item.size, item.answer)
                    if item.token != token or not self._is_ours(item):  # it was deleted meanwhile
                        self._server.event(Released(self._server.new_token(), token, _EMPTY))
                else:
                    status = answer.status
                    if status == BAD_DENIED and item.request is not None:
                        status = self._no(item.request.item.name)
                    results[place] = s.ItemCreated(status, 0, 0.0, 0, wire.NO_EXTENSION)
                    if self._is_ours(item):
                        item.request = None
                        self.subscriptions.drop_item(item)
            self._reply(number, request.header.handle, s.CreateItemsResponse, results, [])

        job: Job | None = None
        if not parts:
            finish([])
            return
        job = Job(self._server, len(parts), finish)
        for slot, (part, (_, item)) in enumerate(zip(parts, made, strict=True)):
            item.token = self._server.ask(job, slot, part)
            self._standing[item.token] = item

    def _wanted(self, subscription: Any, wanted: s.ItemToCreate, stamps: int) -> Watched | int:
        one, asked = wanted.item, wanted.parameters
        if wanted.mode > 2 or stamps > 3:
            return 0x80410000
        if one.attribute == NOTIFIER:
            return self._wanted_events(subscription, wanted)
        local: s.ReadValueId | None = None
        found: m.Subscribe | None = None
        if one.node.ns == 0 or one.attribute != VALUE:
            if one.node.ns or self._standard_value(one.node.id) is None:
                return BAD_NODE if one.node.ns == 0 else BAD_ATTRIBUTE
            local = one
        else:
            item = self._item(one.node, one.range)
            if isinstance(item, int):
                return item
            chosen = self._subscribe(item, subscription, asked)
            if isinstance(chosen, int):
                return chosen
            found = chosen
        made = self.subscriptions.add(subscription, asked.handle, asked.queue, asked.discard, local)
        if made is None:
            return BAD_TOO_MANY_ITEMS
        made.mode, made.stamps, made.request = wanted.mode, stamps, found
        return made

    def _wanted_events(self, subscription: Any, wanted: s.ItemToCreate) -> Watched | int:
        """An item of events. Fields that policy does not allow are left out, and told so; if it allows none, they are
        asked for all the same, so that the refusal is judged and recorded where all are."""
        one, asked = wanted.item, wanted.parameters
        notifier = item_of(self._names, one.node, one.range, "event")
        if isinstance(notifier, int):
            return notifier
        try:
            chosen = wire.unpack(asked.filter)
            if not isinstance(chosen, s.EventFilter) or not 0 < len(chosen.select) <= FIELDS:
                return BAD_EVENT_FILTER
            where = narrowed(chosen.where, self._names)
        except Malformed as error:
            return error.status if error.status in (BAD_OPERATOR, BAD_OPERAND) else BAD_EVENT_FILTER
        found = [selected(clause, self._names) for clause in chosen.select]
        us = int(subscription.interval / 1000)
        watch = Watch(notifier, us)
        fields = dict.fromkeys([clause for clause in found if not isinstance(clause, int)])
        allowed = [clause for clause in fields if self._may_watch(watch, field_item(notifier, clause[1]))]
        fields = dict.fromkeys(allowed or fields)
        if not fields or any(len(field_item(notifier, field).name) > NAME_LENGTH for _, field in fields):
            return BAD_EVENT_FILTER
        made = self.subscriptions.add(subscription, asked.handle, asked.queue or EVENTS, asked.discard, None, EVENTS)
        if made is None:
            return BAD_TOO_MANY_ITEMS
        places: dict[Any, int] = {clause: place for place, clause in enumerate(fields)}
        made.clauses = tuple([places.get(clause, -1) for clause in found])
        made.item = tuple([clause[1] if not isinstance(clause, int) and clause in places else "" for clause in found])
        made.mode = wanted.mode
        statuses = [one if isinstance(one, int) else 0 if one in places else BAD_DENIED for one in found]
        if any(statuses):
            made.answer = wire.pack(s.EventFilterResult(statuses, [], [], []))
        made.request = m.Events(
            notifier, us, tuple(fields), made.size, asked.discard, where.severity, where.of, where.exactly
        )
        return made

    def _may_watch(self, watch: Watch, field: Item) -> bool:
        facing = self._server.facing
        return facing is not None and facing.may(Operation(WATCH, -1, -1, False, (watch, field)))

    def _lost(self, item: Watched) -> list[Variant]:
        return self._event(item, QUEUE_OVERFLOW, "events were dropped, since they were not fetched")

    def _event(self, item: Watched, kind: int, text: str) -> list[Variant]:
        """An event of our own, for what the client has to know of its events."""
        now = wire.ticks(self._server.wall())
        known = {
            "EventId": Variant(15, self._server.facing.random(16)), "EventType": Variant(17, NodeId(0, kind)),
            "SourceNode": Variant(17, NodeId(0, 2253)), "SourceName": Variant(12, "Server"), "Time": Variant(13, now),
            "ReceiveTime": Variant(13, now), "Message": Variant(21, LocalizedText(None, text)),
            "Severity": Variant(5, 500),
        }  # fmt: skip
        return [known.get(field, NOTHING) for field in item.item]

    def _subscribe(self, item: Item, subscription: Any, asked: s.MonitoringParameters) -> m.Subscribe | int:
        """The watch that a client means; or a status."""
        trigger, deadband = 1, 0.0
        if asked.filter.body is not None:
            try:
                chosen = wire.unpack(asked.filter)
            except Malformed:
                return BAD_FILTER
            if not isinstance(chosen, s.DataChangeFilter) or chosen.trigger > 2 or chosen.deadband_type > 1:
                return BAD_FILTER
            if chosen.deadband_type:
                if not 0 <= chosen.deadband <= 1e300:
                    return 0x808E0000
                deadband = chosen.deadband
            trigger = chosen.trigger
        interval = asked.interval if asked.interval == asked.interval else 0.0
        us = int(subscription.interval / 1000) if interval < 0 else int(min(max(interval, 50.0), 3_600_000.0) * 1000)
        for point in self._server.facing.asset.points:
            if point.at.space == item.space:
                us = max(us, point.fastest_us)  # the standard's way: what is too fast is revised
        shortest, longest = self._server.facing.pace(item)
        us = min(max(us, shortest), longest or us) if not longest or longest >= shortest else us
        return m.Subscribe(item, us, min(max(asked.queue, 1), 100), asked.discard, trigger, deadband)

    def _item_gone(self, item: Watched) -> None:
        item.request = None
        self._waiting.discard(item)
        token, item.token = item.token, 0
        if token and self._standing.pop(token, None) is not None:
            self._server.event(Released(self._server.new_token(), token, _EMPTY))

    def _watch(self, items: list[Watched]) -> None:
        """Asks for watches again that have ended."""

        def finish(answers: list[Any]) -> None:
            for item, token, answer in zip(items, job.tokens, answers, strict=True):
                ours = self._is_ours(item) and item.token == token
                if isinstance(answer, m.Subscribed):
                    if not ours:  # it was deleted meanwhile
                        self._standing.pop(token, None)
                        self._server.event(Released(self._server.new_token(), token, _EMPTY))
                        continue
                    item.retry_ns = 0
                    if item.clauses is not None:
                        item.retry_at = 0
                        again = self._event(item, REFRESH_REQUIRED, "events come again; some may be missing")
                        item.happened(again, LEAST_EVENT)
                elif ours:
                    self._standing.pop(token, None)
                    item.token = 0
                    self._ended(item, answer.status)

        if not items:
            return
        job = Job(self._server, len(items), finish)
        for slot, item in enumerate(items):
            item.token = self._server.ask(job, slot, item.request)
            self._standing[item.token] = item

    def _ended(self, item: Watched, status: int) -> None:
        """A watch is over: the client sees it as a status, and it is asked for again, unless policy has ended it."""
        now = wire.ticks(self._server.wall())
        if item.clauses is None:
            item.add(Data(None, status, 0, now))
        elif not item.retry_ns or status == BAD_DENIED:  # told once, however often it is tried again
            why = "policy has ended this" if status == BAD_DENIED else "the asset is away: events may be missing"
            item.happened(self._event(item, SYSTEM_EVENT, why), LEAST_EVENT)
        if item.request is not None and status != BAD_DENIED:
            item.retry_ns = min(item.retry_ns * 2 or RETRY_NS, MOST_RETRY_NS)
            item.retry_at = self._server.now + item.retry_ns
            self._waiting.add(item)

    def notice(self, standing: int, message: m.Changed | m.Happened) -> None:
        """News of a watch, which fit it (operations.misfit)."""
        item = self._standing.get(standing)
        if item is None:
            return
        if isinstance(message, m.Happened):
            for event in message.events:
                if self._server.trust is not None and isinstance(item.request, m.Events):
                    notifier = self._remembered_as(item.request.item.name)
                    self._server.trust.conditions.heard(notifier, item.request, event)
                item.happened(self._fields(item, event), event_weight(event) + LEAST_EVENT)
        else:
            for value, size in self._rendered.of(message, item.stamps, self._names):
                item.add(value, size)

    def _remembered_as(self, notifier: str) -> str:
        """Under which name a notifier's conditions are known in this part."""
        return f"{self._server.facing.asset.name}: {notifier}"

    def _fields(self, item: Watched, event: m.Happening) -> list[Variant]:
        """The fields of an event as a client has asked for them; what has no form here is null."""
        found = []
        for place in item.clauses or ():
            value = event[place] if place >= 0 else None
            try:
                found.append(NOTHING if value is None else self._names.variant(value))
            except Unnamed:
                found.append(NOTHING)
        return found

    def over(self, standing: int, deny: Deny | None) -> None:
        """A watch has ended on the other side."""
        item = self._standing.pop(standing, None)
        if item is not None and item.token == standing:  # else of two one is left
            item.token = 0
            self._ended(item, BAD_NOT_CONNECTED if deny is None else BAD_DENIED)

    def _modify_items(self, number: int, request: s.ModifyItemsRequest) -> None:
        subscription = self._of(request.subscription)
        if len(request.items) > ITEMS_AT_ONCE:
            raise Malformed("too many monitored items", BAD_OPERATIONS)
        results = []
        for one in request.items:
            item = subscription.items.get(one.id)
            if item is None:
                results.append(s.ItemModified(BAD_ITEM, 0.0, 0, wire.NO_EXTENSION))
                continue
            asked = one.parameters
            item.handle, item.discard = asked.handle, asked.discard
            item.size = min(max(asked.queue, 1), QUEUE if item.clauses is None else EVENTS)
            interval = subscription.interval / 1e6 if item.request is None else item.request.interval_us / 1000
            results.append(s.ItemModified(0, interval, item.size, wire.NO_EXTENSION))
        self._reply(number, request.header.handle, s.ModifyItemsResponse, results, [])

    def _delete_items(self, number: int, request: s.DeleteItemsRequest) -> None:
        subscription = self._of(request.subscription)
        results = []
        for one in request.items[:ITEMS_AT_ONCE]:
            item = subscription.items.get(one)
            results.append(BAD_ITEM if item is None else 0)
            if item is not None:
                self.subscriptions.drop_item(item)
        self._reply(number, request.header.handle, s.DeleteItemsResponse, results, [])

    def _monitoring(self, number: int, request: s.SetMonitoringModeRequest) -> None:
        subscription = self._of(request.subscription)
        if request.mode > 2:
            raise Malformed("no such mode", 0x80410000)
        results = []
        for one in request.items[:ITEMS_AT_ONCE]:
            item = subscription.items.get(one)
            results.append(BAD_ITEM if item is None else 0)
            if item is not None:
                item.mode = request.mode
                if item.queue and item.mode == 2:
                    subscription.has_news.add(item)
                else:
                    subscription.has_news.discard(item)
        self._reply(number, request.header.handle, s.SetMonitoringModeResponse, results, [])
