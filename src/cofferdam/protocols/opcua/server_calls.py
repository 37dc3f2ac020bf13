"""Calls of methods, at the side towards a client: those of the policy cross, judged as one; the standard's own that a
server has (GetMonitoredItems, ConditionRefresh) are answered here.

Not here: what a client may call (policy), how they are called (client_work).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

from cofferdam.model import Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Malformed, NodeId, Variant
from cofferdam.protocols.opcua.conditions import BY_METHOD, KIND, condition_item, is_named_itself, telling
from cofferdam.protocols.opcua.dialect import ARROW
from cofferdam.protocols.opcua.names import FOREIGN, Unnamed, argument_forms, formless
from cofferdam.protocols.opcua.server_items import ItemServices
from cofferdam.values import Text

BAD_DENIED, BAD_TYPE, BAD_OPERATIONS, BAD_NOTHING = 0x801F0000, 0x80740000, 0x80100000, 0x800F0000
BAD_NODE, BAD_SUBSCRIPTION, BAD_INVALID_ARGUMENT = 0x80340000, 0x80280000, 0x80AB0000
CONDITIONS, REFRESH, REFRESH_ITEM = NodeId(0, 2782), 3875, 12912
"""ConditionType, and its methods ConditionRefresh and ConditionRefresh2."""
SERVER, GET_ITEMS = NodeId(0, 2253), NodeId(0, 11492)
ARGUMENTS = 64


def _is_own(one: s.MethodToCall) -> bool:
    """Whether it is answered here."""
    if one.object == SERVER and one.method == GET_ITEMS:
        return True
    return bool(one.object == CONDITIONS and one.method.ns == 0 and one.method.id in (REFRESH, REFRESH_ITEM))


class CallServices(ItemServices):
    """What a session calls."""

    @abc.abstractmethod
    def _start(self, parts: list[m.OpcUaRequest], finish: Callable[[list[Any]], None]) -> None:
        """Has parts cross, and goes on with their answers."""

    def _call(self, number: int, request: s.CallRequest) -> None:
        handle = request.header.handle
        if not request.methods:
            raise Malformed("a Call of nothing", BAD_NOTHING)
        if len(request.methods) > m.CALLS:
            raise Malformed(f"{len(request.methods)} methods in one Call; {m.CALLS} are taken", BAD_OPERATIONS)
        if any(map(_is_own, request.methods)):
            if len(request.methods) > 1:
                raise Malformed("a method of the server itself together with others", BAD_OPERATIONS)
            self._call_own(number, handle, request.methods[0])
            return
        found = [self._to_call(one) for one in request.methods]
        calls = [one for one in found if isinstance(one, m.CallMethod)]
        if len(calls) < len(found):
            # With one that cannot be, none is called.
            results = [
                s.MethodResult(BAD_DENIED, [], [], []) if isinstance(one, m.CallMethod) else one for one in found
            ]
            self._reply(number, handle, s.CallResponse, results, [])
            return

        def finish(answers: list[Any]) -> None:
            [answer] = answers
            if isinstance(answer, m.Refused):
                results = [self._not_called(call, answer.status) for call in calls]
            else:
                results = [self._called(one) for one in (answer.results if len(calls) > 1 else (answer,))]
            self._reply(number, handle, s.CallResponse, results, [])

        self._start([m.CallMethods(tuple(calls)) if len(calls) > 1 else calls[0]], finish)

    def _to_call(self, one: s.MethodToCall) -> m.CallMethod | s.MethodResult:
        """What crosses of one, or why it cannot."""
        try:
            owner, own = self._names.name(one.object), self._names.name(one.method)
        except Unnamed:
            return s.MethodResult(BAD_NODE, [], [], [])
        verb = BY_METHOD.get(one.method.id) if one.method.ns == 0 and isinstance(one.method.id, int) else None
        notifier = self._notifier(owner, verb) if verb else None
        if verb and notifier is not None:
            return self._to_tell(condition_item(notifier, verb), owner, one.arguments)
        arguments: list[Any] = []
        try:
            arguments = [self._names.crossing(argument) for argument in one.arguments]
        except Unnamed:
            arguments = [None]
        item = Item("method", f"{owner}{ARROW}{own}")
        for place, form in enumerate(argument_forms(self._server.facing.asset, item, len(arguments))):
            if form:
                arguments[place] = formless(arguments[place], form)
        # To policy a text with a locale is a text: an alarm's comment is one (OPC 10000-9, 5.5.2).
        localized = tuple([place for place, value in enumerate(arguments) if isinstance(value, m.Texts)])
        for place in localized:
            value = arguments[place]
            arguments[place] = Text(tuple([text.text for text in value.values]), value.array)
        if len(arguments) > ARGUMENTS or any(value is None or isinstance(value, FOREIGN) for value in arguments):
            return s.MethodResult(BAD_INVALID_ARGUMENT, [BAD_TYPE] * len(one.arguments), [], [])
        return m.CallMethod(item, tuple(arguments), localized)

    def _notifier(self, condition: str, verb: str) -> str | None:
        """By whose events a condition is known: by one that the client may tell something of, rather one that it
        watches, whose events the asset's side has heard for it. None for what is no such condition, or whose method the
        policy names by itself; and for one of which others alone have heard, who are not to be told on."""
        server = self._server
        if server.trust is None or is_named_itself(server.facing.asset, condition, verb):
            return None
        watched = {one.request.item.name for one in self._standing.values() if isinstance(one.request, m.Events)}
        known = [
            one.at.name for one in server.facing.asset.notifiers
            if one.conditions and server.trust.conditions.tells(self._remembered_as(one.at.name), condition)
        ]  # fmt: skip
        known.sort(key=lambda one: one not in watched)
        may = [one for one in known if server.facing.reach("call", condition_item(one, "acknowledge"))]
        return next(iter(may or [one for one in known if one in watched]), None)

    def _to_tell(self, item: Item, condition: str, arguments: list[Variant]) -> m.CallMethod | s.MethodResult:
        """A call on a condition: of its notifier, with the condition in front (conditions)."""
        refused = s.MethodResult(BAD_INVALID_ARGUMENT, [BAD_TYPE] * len(arguments), [], [])
        return telling(item, condition, arguments) or refused

    def _not_called(self, call: m.CallMethod, status: int) -> s.MethodResult:
        hidden = status == BAD_DENIED and call.item.kind != KIND  # the client has seen that there is this condition
        return s.MethodResult(self._no(call.item.name) if hidden else status, [], [], [])

    def _called(self, answer: m.Outputs) -> s.MethodResult:
        outputs: list[Variant] = []
        for value in answer.outputs:
            try:
                outputs.append(self._names.variant(value))
            except Unnamed:
                outputs.append(Variant(0, None))
        return s.MethodResult(answer.status, list(answer.inputs), [], outputs)

    def _call_own(self, number: int, handle: int, one: s.MethodToCall) -> None:
        if one.object == SERVER:
            self._reply(number, handle, s.CallResponse, [self._get_items(one.arguments)], [])
            return
        numbers = [argument.value for argument in one.arguments if argument.type == 7 and not argument.array]
        if len(numbers) != (1 if one.method.id == REFRESH else 2) or len(numbers) != len(one.arguments):
            result = s.MethodResult(BAD_INVALID_ARGUMENT, [BAD_TYPE] * len(one.arguments), [], [])
            self._reply(number, handle, s.CallResponse, [result], [])
            return
        self._refresh(numbers, lambda status: self._reply(
            number, handle, s.CallResponse, [s.MethodResult(status, [], [], [])], []
        ))  # fmt: skip

    def _get_items(self, arguments: list[Variant]) -> s.MethodResult:
        if len(arguments) != 1 or arguments[0].type != 7 or arguments[0].array:
            return s.MethodResult(BAD_INVALID_ARGUMENT, [BAD_TYPE] * len(arguments), [], [])
        found = self._items_of(arguments[0].value)
        if found is None:
            return s.MethodResult(BAD_SUBSCRIPTION, [], [], [])
        return s.MethodResult(0, [0], [], [Variant(7, one, True) for one in found])
