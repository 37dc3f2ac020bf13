"""What a bystander makes of both directions of a connection: requests and answers by the names of nodes.

What a NodeId means stands in the server's NamespaceArray, which clients read at their beginning. Until it has been
heard, on this connection or on another one of the same server, what is said is held (HELD bodies, HELD_BYTES); if it
never is, namespaces are called urn:FILL-IN:n. A secured connection tells nothing.

Not here: chunks' signatures and order (channel), what policy says of it (capture).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cofferdam.errors import CrossingError
from cofferdam.model import Assign, Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin import Reader
from cofferdam.protocols.opcua.builtin_types import NULL, Malformed, NodeId
from cofferdam.protocols.opcua.conditions import BY_METHOD, Conditions, condition_item, telling
from cofferdam.protocols.opcua.dialect import ARROW
from cofferdam.protocols.opcua.events import NOTIFIER, event_of, overheard
from cofferdam.protocols.opcua.names import FOREIGN, UA, Namespaces, Unnamed, item_of, within
from cofferdam.protocols.opcua.security import NONE
from cofferdam.protocols.view import Answered, Broken, Bystander, Heard, News, Remark, Said

HELD, HELD_BYTES = 1000, 4 << 20
OPEN = 1000
"""Requests that wait for their answer, and items whose news are told; the oldest are forgotten first."""
MESSAGE_BYTES = 1 << 20
VALUE = 13
NAMESPACE_ARRAY, SERVER = NodeId(0, 2255), NodeId(0, 2253)
UNKNOWN = Namespaces((UA, *(f"urn:FILL-IN:{number}" for number in range(1, 100))))
SECTION = "OPC 10000-4, 5"
At = tuple[int, int]
Told = list[Heard]
_Watch = tuple[int, "m.Subscribe | m.Events | None", tuple[int, ...]]
"""The number of a request, what it watches, and of events the place of each field in the news."""
_NOBODY: _Watch = (0, None, ())


class OpcUaBystander(Bystander):
    """See the top. `known` is what is known of the server, on whatever connection it was heard."""

    def __init__(self, check: Callable[[Any], None], known: dict[str, Any]) -> None:
        self._check = check
        self._known = known
        self._parts: dict[bool, list[bytes]] = {True: [], False: []}
        self._held: list[tuple[bool, int, bytes, At]] = []
        self._held_bytes = 0
        self._secured = False
        self._gave_up = False
        self._number = 0
        self._asked_names: dict[int, int] = {}  # request id -> the place of the NamespaceArray among its nodes
        self._open: dict[int, Callable[[Any], Told]] = {}
        self._items: dict[tuple[int, int], _Watch] = {}  # by subscription and the client's handle
        self._conditions: Conditions = known.setdefault("conditions", Conditions(ids=False))

    def heard(self, from_client: bool, frame: bytes, at: At) -> Told:
        kind, final = frame[:3], frame[3:4]
        if kind == b"OPN":
            return self._opened(frame, at)
        if kind != b"MSG" or self._secured or len(frame) < 24:
            return []
        parts = self._parts[from_client]
        parts.append(frame[24:])
        if final == b"C" and sum(map(len, parts)) <= MESSAGE_BYTES:
            return []
        body = b"".join(parts)
        parts.clear()
        if final != b"F":
            return []
        request = int.from_bytes(frame[20:24], "little")
        if self._names() is None:
            self._held.append((from_client, request, body, at))
            self._held_bytes += len(body)
            self._look_for_names(from_client, request, body)
            full = len(self._held) > HELD or self._held_bytes > HELD_BYTES
            return self._release() if full or self._known.get("names") is not None else []
        self._look_for_names(from_client, request, body)
        return self._body(from_client, request, body, at)

    def end(self) -> Told:
        return self._release()

    def _names(self) -> Namespaces | None:
        found: Namespaces | None = self._known.get("names")
        return found or (UNKNOWN if self._gave_up else None)

    def _release(self) -> Told:
        self._gave_up = True
        held, self._held, self._held_bytes = self._held, [], 0
        return [event for one in held for event in self._body(*one)]

    def _opened(self, frame: bytes, at: At) -> Told:
        try:
            uri = Reader(frame, 12).string()
        except Malformed as error:
            return [Broken("OPC 10000-6, 6.7", f"OPN: {error}", -1, at)]
        secured, self._secured = self._secured, uri != NONE.uri
        return [Remark("a secured channel, of which a bystander hears nothing", at)] if self._secured > secured else []

    def _look_for_names(self, from_client: bool, request: int, body: bytes) -> None:
        if not from_client and request not in self._asked_names:
            return
        try:
            message = wire.decode(body, request=from_client)
        except Malformed:
            return
        if isinstance(message, s.ReadRequest) and from_client:
            for place, one in enumerate(message.nodes):
                if one.node == NAMESPACE_ARRAY and one.attribute == VALUE and not one.range:
                    self._asked_names[request] = place
                    while len(self._asked_names) > OPEN:
                        del self._asked_names[next(iter(self._asked_names))]
        elif isinstance(message, s.ReadResponse) and not from_client:
            place = self._asked_names.pop(request)
            value = message.results[place].value if place < len(message.results) else None
            if value is not None and value.type == 12 and value.array and len(value.value) <= 1000:
                self._known["names"] = Namespaces([one or "" for one in value.value])

    # --- what is said -------------------------------------------------------------------------------------------------

    def _body(self, from_client: bool, request: int, body: bytes, at: At) -> Told:
        if not from_client:
            try:
                answer = wire.decode(body, request=False)
            except Malformed:
                self._open.pop(request, None)
                return []
            if isinstance(answer, s.PublishResponse):
                return self._news(answer)
            found = self._open.pop(request, None)
            return [] if found is None else found(answer)
        try:
            asked = wire.decode(body, request=True)
        except wire.Unsupported as error:
            return [Broken(SECTION, str(error), error.number, at)]
        except Malformed as malformed:  # a name of its own: compiled code gives a name one type
            return [Broken(SECTION, str(malformed), -1, at)]
        parts, finish = self._meaning(asked)
        events: Told = []
        numbers: list[int] = []
        for part in parts:
            try:
                self._check(part)
            except CrossingError as crossing:
                events.append(Broken(SECTION, str(crossing), -1, at))
                numbers.append(0)
                continue
            self._number += 1
            numbers.append(self._number)
            events.append(Said(self._number, part, at))
        if any(numbers):
            self._open[request] = lambda answer: finish(numbers, answer)
            while len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
        return events

    def _item(self, node: NodeId, index_range: str | None, kind: str = "node") -> Item | None:
        found = item_of(self._names() or UNKNOWN, node, index_range, kind) if node.ns or node.uri else None
        return found if isinstance(found, Item) else None

    def _value(self, variant: Any) -> Any:
        try:
            return (self._names() or UNKNOWN).crossing(variant)
        except Unnamed:
            return None

    def _meaning(self, asked: Any) -> tuple[list[Any], Callable[[list[int], Any], Told]]:
        """The requests of which a message consists, and what becomes of their answer."""
        if isinstance(asked, s.ReadRequest):
            found = [(place, self._item(one.node, one.range)) for place, one in enumerate(asked.nodes)
                     if one.attribute == VALUE]  # fmt: skip
            named = [(place, item) for place, item in found if item is not None][: m.READ_ITEMS]
            return [m.Read(tuple([item for _, item in named]))] if named else [], lambda numbers, answer: self._read(
                numbers, answer, named
            )
        if isinstance(asked, s.WriteRequest):
            writes = []
            for write in asked.nodes[: m.WRITE_ITEMS]:
                item, value = self._item(write.node, write.range), self._value(write.value.value)
                if item is not None and write.attribute == VALUE:
                    writes.append(Assign(item, None if isinstance(value, FOREIGN) else value))
            return [m.Write(tuple(writes))] if writes else [], self._written
        if isinstance(asked, s.CallRequest):
            return [call for call in map(self._call, asked.methods) if call is not None], self._called
        if isinstance(asked, s.HistoryReadRequest):
            return self._history(asked), lambda _numbers, _answer: []
        if isinstance(asked, s.CreateItemsRequest):
            made = [(one.parameters, self._watched(one)) for one in asked.items]
            watches = [(how, *found) for how, found in made if found is not None]
            parts = [part for _, part, _ in watches]

            def finish(numbers: list[int], answer: Any) -> Told:
                for (how, part, places), number in zip(watches, numbers, strict=True):
                    self._items[asked.subscription, how.handle] = (number, part, places)
                while len(self._items) > OPEN:
                    del self._items[next(iter(self._items))]
                good = isinstance(answer, s.CreateItemsResponse)
                return [Answered(number, m.Subscribed(part.interval_us, 1)) for number, part
                        in zip(numbers, parts, strict=True) if good and number]  # fmt: skip

            return parts, finish
        return [], lambda _numbers, _answer: []

    def _watched(self, one: s.ItemToCreate) -> tuple[m.Subscribe | m.Events, tuple[int, ...]] | None:
        """What is watched, and of events the place of each field in the news."""
        node, interval_us = one.item.node, self._interval(one.parameters.interval)
        if one.item.attribute == NOTIFIER:
            names = self._names() or UNKNOWN
            notifier = item_of(names, node, one.item.range, "event") if node.ns or node.uri or node == SERVER else 0
            if not isinstance(notifier, Item) or notifier.first >= 0:
                return None
            return overheard(one.parameters.filter, notifier, interval_us, names)
        item = self._item(node, one.item.range) if one.item.attribute == VALUE else None
        return None if item is None else (m.Subscribe(item, interval_us), ())

    def _interval(self, milliseconds: float) -> int:
        return int(min(max(milliseconds, 0.0), 3_600_000.0) * 1000) if milliseconds == milliseconds else 0

    def _read(self, numbers: list[int], answer: Any, named: list[tuple[int, Item]]) -> Told:
        if not isinstance(answer, s.ReadResponse) or not all(place < len(answer.results) for place, _ in named):
            return []
        names = self._names() or UNKNOWN
        samples = [within(item, names.sample(answer.results[place])) for place, item in named]
        return [Answered(numbers[0], m.Values(tuple(samples)))]

    def _written(self, numbers: list[int], answer: Any) -> Told:
        if not isinstance(answer, s.WriteResponse):
            return []
        return [Answered(numbers[0], m.Written(tuple(answer.results[: m.WRITE_ITEMS])))]

    def _called(self, numbers: list[int], answer: Any) -> Told:
        if not isinstance(answer, s.CallResponse):
            return []
        return [Answered(number, m.Outputs(result.status, (), ())) for number, result
                in zip(numbers, answer.results, strict=False) if number]  # fmt: skip

    def _call(self, call: s.MethodToCall) -> m.CallMethod | None:
        names = self._names() or UNKNOWN
        try:
            owner, own = names.name(call.object), names.name(call.method)
        except Unnamed:
            return None
        method = call.method
        verb = BY_METHOD.get(method.id) if method.ns == 0 and isinstance(method.id, int) else None
        notifier = self._conditions.notifier_of(owner) if verb else None
        if verb and notifier is not None:
            return telling(condition_item(notifier, verb), owner, call.arguments)
        item = Item("method", f"{owner}{ARROW}{own}")
        arguments = [self._value(argument) for argument in call.arguments[:64]]
        if any(value is None or isinstance(value, FOREIGN) for value in arguments):
            return None
        return m.CallMethod(item, tuple(arguments))

    def _history(self, asked: s.HistoryReadRequest) -> list[Any]:
        try:
            details = wire.unpack(asked.details)
        except Malformed:
            return []
        if not isinstance(details, s.RawDetails):
            return []
        items = [self._item(one.node, None, "history") for one in asked.nodes]
        most = min(details.most or m.HISTORY_VALUES, m.HISTORY_VALUES)
        return [m.History(item, details.start, details.end, most) for item in items if item is not None]

    def _news(self, answer: s.PublishResponse) -> Told:
        names = self._names() or UNKNOWN
        found: Told = []
        for extension in answer.message.data:
            try:
                change = wire.unpack(extension)
            except Malformed:
                continue
            for one in change.items if isinstance(change, s.DataChange) else ():
                number, asked, _ = self._items.get((answer.subscription, one.handle), _NOBODY)
                if number and isinstance(asked, m.Subscribe):
                    found.append(News(number, m.Changed((within(asked.item, names.sample(one.value)),))))
            for event in change.events if isinstance(change, s.EventList) else ():
                # Of which conditions they tell is all that is heard: these may be acknowledged.
                _, asked, places = self._items.get((answer.subscription, event.handle), _NOBODY)
                if isinstance(asked, m.Events):
                    told = [event.fields[place] if place < len(event.fields) else NULL for place in places]
                    self._conditions.heard(asked.item.name, asked, event_of(told, asked, names))
        return found
