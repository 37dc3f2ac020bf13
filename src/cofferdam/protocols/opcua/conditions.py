"""Conditions that events have told of: who may acknowledge those of a notifier, by policy, may do so to these alone.

A condition has no place in a policy: a server makes them as alarms come and go. What is known of one is that events of
a notifier had its NodeId and theirs (`ConditionId`, `EventId`). A call on it crosses as one on its notifier (an item of
the kind "condition", "NOTIFIER -> acknowledge"), with condition, event and comment as arguments, so that policy judges
and the log tells it like any other; it becomes a call on the condition again at the asset's side, which asks nothing of
a condition, or about an event, that it has not heard of by that notifier on this connection.

Not here: calls (server_calls, client_work), who may make them (policy).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from cofferdam.model import Asset, Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin_types import Variant
from cofferdam.protocols.opcua.dialect import (
    ARROW,
    COMMENT_LENGTH,
    CONDITION,
    CONDITION_LENGTH,
    EVENT_BYTES,
    EVENT_ID,
    TELLS,
)
from cofferdam.values import Octets, Text

CONDITIONS, EVENTS = 1000, 20
"""Conditions that are remembered of one notifier, and events of one condition: the oldest go."""
KIND = "condition"
BY_METHOD = {number: verb for verb, number in TELLS.items()}
BAD_NODE, BAD_EVENT = 0x80340000, 0x809A0000


class Conditions:
    """Those of some notifiers. `ids`: whether their events matter as well."""

    def __init__(self, ids: bool) -> None:
        self._ids = ids
        self._told: dict[str, OrderedDict[str, OrderedDict[bytes, None]]] = {}

    def heard(self, notifier: str, request: m.Events, event: m.Happening) -> None:
        """An event has come, for a watch of that request. `notifier`: under which name it is remembered."""
        node, own = _value(request, event, CONDITION), _value(request, event, EVENT_ID)
        if type(node) is not m.Nodes or node.array or type(own) is not Octets or own.array:
            return  # an event that tells of no condition
        name, number = node.values[0], own.values[0]
        if len(name) > CONDITION_LENGTH or not 0 < len(number) <= EVENT_BYTES:
            return
        known = self._told.setdefault(notifier, OrderedDict())
        events = known.setdefault(name, OrderedDict())
        known.move_to_end(name)
        if len(known) > CONDITIONS:
            known.popitem(last=False)
        if self._ids:
            events[number] = None
            events.move_to_end(number)
            if len(events) > EVENTS:
                events.popitem(last=False)

    def tells(self, notifier: str, condition: str) -> bool:
        """Whether events of a notifier had this condition."""
        return condition in self._told.get(notifier, ())

    def notifier_of(self, condition: str) -> str | None:
        """By whose events a condition is known."""
        return next((notifier for notifier, known in self._told.items() if condition in known), None)

    def fault(self, notifier: str, condition: str, event: bytes) -> int:
        """Why nothing can be told of an event of a condition, in a status; 0 where it can."""
        if not self.tells(notifier, condition):
            return BAD_NODE
        return 0 if event in self._told[notifier][condition] else BAD_EVENT


def _value(request: m.Events, event: m.Happening, wanted: str) -> Any:
    """A field's. Clients ask for one by several types, by all of which but one it is null."""
    values = [one for (_, field), one in zip(request.fields, event, strict=True) if field == wanted and one is not None]
    return values[0] if values else None


def condition_item(notifier: str, verb: str) -> Item:
    """What policy judges."""
    return Item(KIND, f"{notifier}{ARROW}{verb}")


def is_named_itself(asset: Asset | None, condition: str, verb: str) -> bool:
    """Whether the policy names this method of this condition: then that alone says who may call it, and with what."""
    item = Item("method", f"{condition}{ARROW}i={TELLS[verb]}")
    return asset is not None and any(one.at == item for one in asset.methods)


def told_of(call: m.CallMethod) -> tuple[str, str, str, bytes, str] | None:
    """(notifier, verb, condition, event, comment) of a call on a condition; None where it is none that can be."""
    notifier, _, verb = call.item.name.rpartition(ARROW)
    values: list[Any] = list(call.arguments)
    if verb not in TELLS or call.localized or [type(one) for one in values] != [Text, Octets, Text]:
        return None
    if any(one.array or len(one.values) != 1 for one in values):
        return None
    condition, event, comment = (one.values[0] for one in values)
    # Control characters in a comment would be somebody's line in a list of alarms.
    if not 0 < len(event) <= EVENT_BYTES or len(comment) > COMMENT_LENGTH or not _is_plain(comment):
        return None
    return notifier, verb, condition, event, comment


def telling(item: Item, condition: str, arguments: list[Variant]) -> m.CallMethod | None:
    """What a client's call on a condition crosses as: a call on its notifier, with the condition in front. None for one
    that no condition can be told."""
    event, comment = arguments if len(arguments) == 2 else (Variant(0, None), Variant(0, None))
    text = comment.value.text if comment.type == 21 and not comment.array else comment.value
    if event.type == 15 and not event.array and event.value and comment.type in (0, 12, 21) and not comment.array:
        call = m.CallMethod(item, (Text((condition,)), Octets((event.value,)), Text((text or "",))))
        if told_of(call) is not None:
            return call
    return None


def _is_plain(text: str) -> bool:
    return all(one.isprintable() for one in text)
