"""OPC UA: alarms are acknowledged by one rule: by who may, of conditions that events of a notifier have told of, and of
no others; through both halves, with a device that is our machine for that side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cofferdam.audit.events.access import WriteAllowed
from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.model import Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.base import NoticeReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import LocalizedText, NodeId, Variant
from cofferdam.protocols.opcua.conditions import CONDITIONS, EVENTS, Conditions, condition_item
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Octets, Text
from tests.brokers.stage import Stage
from tests.brokers.test_opcua_forged import LINE, Client, Device, OpcUaStage
from tests.brokers.test_opcua_shared_news import settle
from tests.policy.plant import NOW
from tests.protocols.opcua.site import policy

OPCUA = PROTOCOLS["opcua"]
FIELDS = (("i=2041", "EventId"), ("i=2782", "ConditionId"), ("i=2041", "Message"))
ALARM, OTHER = "nsu=urn:plant:line;s=Alarm7", "nsu=urn:plant:line;s=Alarm8"
ACKNOWLEDGE, CONFIRM, COMMENT = 9111, 9113, 9029
EVENT = b"event-1"
BAD_NODE, BAD_EVENT, BAD_DENIED, BAD_ARGUMENT = 0x80340000, 0x809A0000, 0x801F0000, 0x80AB0000


class Plant(Device):
    """The device, which is asked by calls on conditions as they are on the wire."""

    def __init__(self, link: Any, stage: OpcUaStage) -> None:
        super().__init__(link, stage)
        self.called: list[s.MethodToCall] = []
        self.later: list[Callable[[], None]] | None = None  # answers to calls that it keeps back
        own = self.machine._request

        def request(number: int, asked: Any) -> None:
            if type(asked) is s.CallRequest:
                self.called += asked.methods
                results = [s.MethodResult(0, [0, 0], [], []) for _ in asked.methods]

                def answer() -> None:
                    self.machine.reply(number, asked.header.handle, s.CallResponse, results, [])

                answer() if self.later is None else self.later.append(answer)
                return
            own(number, asked)

        self.machine._request = request  # type: ignore[method-assign,assignment]


class Site(OpcUaStage):
    """One whose rules are the test's."""

    def __init__(self, *rules: str, replaced: tuple[tuple[str, str], ...] = ()) -> None:
        text = policy(4840, 4841, *rules)
        for old, new in (('[default, "nsu=urn:plant:line;Batch"]', "[default, ConditionId]"), *replaced):
            assert old in text
            text = text.replace(old, new)
        Stage.__init__(self, policy=compile_policy(loads(text), now_ns=NOW), broker="opcua")
        self.plant: list[Device] = []

    def turn(self) -> None:
        for link in self.devices[len(self.plant) :]:
            self.plant.append(Plant(link, self))
            assert link.on_connected is not None
            link.on_connected()
        super().turn()


class Operator(Client):
    """A client that watches alarms and calls methods as clients do."""

    def ask_for_events(self, notifier: str = LINE) -> None:
        _, data = self.machine.send(m.Events(Item("event", notifier), 100_000, FIELDS, 10))
        self.link.arrive(data)
        settle(self.stage, [self])

    def call(self, *calls: tuple[str, int, tuple[Variant, ...]]) -> list[int]:
        """The status of each call; of all if the request was refused as a whole."""
        found: list[Any] = []
        names = self.machine.namespaces

        def ask() -> Any:
            methods = [
                s.MethodToCall(names.node(condition), NodeId(0, method), list(said))
                for condition, method, said in calls
            ]
            found.append((yield s.CallRequest(self.machine.header(), methods)))

        self.machine.start(0, ask())
        self.link.arrive(self.machine.take_output())
        settle(self.stage, [self])
        (answer,) = found
        return [one.status for one in answer.results] if hasattr(answer, "results") else [answer.header.result]


def alarm(
    stage: Site, clients: list[Operator], condition: str = ALARM, event: bytes = EVENT, of: slice = slice(None)
) -> None:
    """The plant tells of one. `of`: to which watches of those that stand."""
    (device,) = stage.plant
    for token in list(device.notifies)[of]:
        happened = m.Happened(((Octets((event,)), m.Nodes((condition,)), Text(("jam",))),))
        device._say(device.machine.notice(token, happened))
    for _ in range(3):
        stage.reactor.advance(0.1)
        settle(stage, list(clients))


def said(event: bytes | None = EVENT, comment: str | None = "seen") -> tuple[Variant, ...]:
    return Variant(15, event), Variant(21, LocalizedText("en", comment))


def calls(stage: Site) -> list[tuple[str, Any, list[Variant]]]:
    device = stage.plant[0]
    assert isinstance(device, Plant)
    names = device.machine.names
    return [(names.name(one.object), one.method.id, one.arguments) for one in device.called]


MAY = "{who: mes, asset: filler, events: [alarms], acknowledge: [alarms]}"


def watched(*rules: str) -> tuple[Site, Operator]:
    stage = Site(*rules)
    client = Operator(stage)
    client.ask_for_events()
    alarm(stage, [client])
    return stage, client


def test_an_alarm_that_events_have_told_of_is_acknowledged_confirmed_and_commented_on() -> None:
    stage, client = watched(MAY)
    for method in (ACKNOWLEDGE, CONFIRM, COMMENT):
        assert client.call((ALARM, method, said())) == [0]
    assert [(one, method) for one, method, _ in calls(stage)] == [
        (ALARM, ACKNOWLEDGE), (ALARM, CONFIRM), (ALARM, COMMENT),
    ]  # fmt: skip
    event, comment = calls(stage)[0][2]
    assert event == Variant(15, EVENT) and comment == Variant(21, LocalizedText(None, "seen"))
    written = [one for one in stage.audit_pipe.drafts if isinstance(one, WriteAllowed)]
    assert len(written) >= 3 and all(ALARM in str(one) and "seen" in str(one) for one in written[:3]), "it is on record"
    stage.outer.end()
    stage.inner.end()


def test_several_are_acknowledged_in_one_call_or_none() -> None:
    stage, client = watched(MAY)
    alarm(stage, [client], OTHER, b"event-2")
    assert client.call((ALARM, ACKNOWLEDGE, said()), (OTHER, ACKNOWLEDGE, said(b"event-2"))) == [0, 0]
    assert client.call((ALARM, CONFIRM, said()), (OTHER, CONFIRM, said(b"event-9"))) == [BAD_EVENT] * 2
    assert [method for _, method, _ in calls(stage)] == [ACKNOWLEDGE, ACKNOWLEDGE], "with one that cannot be, none is"
    stage.outer.end()
    stage.inner.end()


def test_nothing_else_is() -> None:
    stage, client = watched(MAY)
    for call, status in (
        ((OTHER, ACKNOWLEDGE, said()), BAD_NODE),  # no event has told of it
        ((LINE, ACKNOWLEDGE, said()), None),  # the notifier itself is no condition
        ((ALARM, ACKNOWLEDGE, said(b"event-2")), BAD_EVENT),
        ((ALARM, 9112, said()), BAD_NODE),  # another method
        ((ALARM, ACKNOWLEDGE, said(b"")), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said(None)), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said(b"x" * 65)), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said(comment="x" * 251)), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said(comment="seen\nby nobody")), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said(comment="\u202eneeS")), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, said()[:1]), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, (*said(), Variant(7, 1))), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, (Variant(12, "event-1"), said()[1])), BAD_ARGUMENT),
        ((ALARM, ACKNOWLEDGE, (Variant(15, [EVENT], True), said()[1])), BAD_ARGUMENT),
    ):  # fmt: skip
        (found,) = client.call(call)
        assert found & 0x80000000 and (status is None or found == status), (call, hex(found))
    assert calls(stage) == []
    assert client.call((ALARM, ACKNOWLEDGE, said(comment=None))) == [0], "and the session goes on"
    assert calls(stage)[0][2][1] == Variant(21, LocalizedText(None, None))
    stage.outer.end()
    stage.inner.end()


def test_who_may_only_watch_acknowledges_nothing() -> None:
    stage, client = watched("{who: mes, asset: filler, events: [alarms]}")
    assert client.call((ALARM, ACKNOWLEDGE, said())) == [BAD_DENIED]
    assert calls(stage) == []
    stage.outer.end()
    stage.inner.end()


def test_who_has_not_heard_of_an_alarm_is_not_told_that_others_have() -> None:
    stage, client = watched("{who: mes, asset: filler, events: [alarms]}")
    other = Operator(stage)
    settle(stage, [client, other])
    assert other.call((ALARM, ACKNOWLEDGE, said())) == other.call((OTHER, ACKNOWLEDGE, said())) == [BAD_NODE]
    assert client.call((ALARM, ACKNOWLEDGE, said())) == [BAD_DENIED], "who has seen it knows that it is there"
    assert calls(stage) == []
    stage.outer.end()
    stage.inner.end()


def test_a_condition_of_several_notifiers_is_told_by_the_one_that_a_client_watches() -> None:
    """Events that another notifier has not had are unknown by its name."""
    area = '      area: {at: "nsu=urn:plant:line;s=Area", fields: [default, ConditionId]}'
    brief = '      brief: {at: "nsu=urn:plant:line;s=Line1", fields: [Message, Severity]}'
    rule = "{who: mes, asset: filler, events: [alarms, area], acknowledge: [alarms, area]}"
    stage = Site(rule, replaced=((brief, area),))
    clients = [Operator(stage), Operator(stage)]
    for client, notifier in zip(clients, (LINE, "nsu=urn:plant:line;s=Area"), strict=True):
        client.ask_for_events(notifier)
    for place in range(2):
        alarm(stage, clients, event=b"event-%d" % place, of=slice(place, place + 1))
    for place, client in enumerate(clients):
        assert client.call((ALARM, ACKNOWLEDGE, said(b"event-%d" % place))) == [0]
    stage.outer.end()
    stage.inner.end()


def test_alarms_that_come_in_many_parts_while_they_are_asked_for_all_come() -> None:
    """How conditions stand is published before the call that asks is answered, in as many messages as it takes."""
    stage = Site(MAY)
    client = Operator(stage)
    client.ask_for_events()
    device = stage.plant[0]
    assert isinstance(device, Plant)
    device.later = []
    _, data = client.machine.send(m.Events(Item("event", LINE), 100_000, FIELDS, 200, refresh=True))
    client.link.arrive(data)
    for _ in range(20):
        stage.reactor.advance(0.1)
        settle(stage, [client])
        if device.later:
            break
    (answer,) = device.later
    before = len(client.of(NoticeReceived))
    events = [b"event-%d" % number for number in range(30)]
    for event in events:
        alarm(stage, [client], event=event, of=slice(len(device.notifies) - 1, None))
    assert len(client.of(NoticeReceived)) == before, "nothing is told of a watch that does not stand yet"
    answer()
    for _ in range(5):
        stage.reactor.advance(0.1)
        settle(stage, [client])
    told = [event[0].values[0] for notice in client.of(NoticeReceived)[before:] for event in notice.message.events]
    assert [one for one in told if one in events] == events
    stage.outer.end()
    stage.inner.end()


def test_what_was_heard_on_another_connection_of_the_asset_counts_no_more() -> None:
    """A server that has started anew may mean something else by the name."""
    stage, client = watched(MAY)
    assert client.call((ALARM, ACKNOWLEDGE, said())) == [0]
    stage.plant[0].link.on_closed("gone")
    for _ in range(60):
        stage.reactor.advance(0.5)
        settle(stage, [client])
        if len(stage.plant) == 2 and stage.plant[1].notifies:
            break
    assert client.call((ALARM, ACKNOWLEDGE, said())) == [BAD_NODE]
    assert [type(one) for one in stage.plant] == [Plant, Plant]
    device = stage.plant[1]
    assert isinstance(device, Plant) and device.called == []
    stage.outer.end()
    stage.inner.end()


def test_a_policy_that_names_an_alarms_method_by_itself_has_it_so() -> None:
    """As before there was a rule for all: the method's own limits hold."""
    text = policy(4840, 4841, "{who: mes, asset: filler, events: [alarms], acknowledge: [alarms], call: [reset]}")
    compiled = compile_policy(loads(text.replace(
        '[default, "nsu=urn:plant:line;Batch"]', "[default, ConditionId]"
    ).replace("nsu=urn:plant:line;s=Line1.Reset", "i=9111")), now_ns=NOW)  # fmt: skip
    (asset,) = compiled.assets.values()
    assert any(one.at.name == f"{LINE} -> i=9111" for one in asset.methods)
    assert condition_item(LINE, "acknowledge") in [one.at for n in asset.notifiers for one in n.conditions]


FORGED = [
    m.CallMethod(condition_item(LINE, "acknowledge"), (Text((ALARM,)), Octets((EVENT,)), Text(("a\nb",)))),
    m.CallMethod(condition_item(LINE, "acknowledge"), (Text((ALARM,)), Octets((EVENT,)), Text(("x" * 251,)))),
    m.CallMethod(condition_item(LINE, "acknowledge"), (Text((ALARM,)), Octets((b"",)), Text(("",)))),
    m.CallMethod(condition_item(LINE, "acknowledge"), (Text((ALARM,)), Octets((EVENT,)), Text(("",))), (2,)),
    m.CallMethod(condition_item(LINE, "acknowledge"), (Text(("ns=2;s=Alarm7",)), Octets((EVENT,)), Text(("",)))),
    m.CallMethod(condition_item(LINE, "acknowledge"), (Octets((EVENT,)), Text(("",)))),
    m.CallMethod(condition_item(LINE, "disable"), (Text((ALARM,)), Octets((EVENT,)), Text(("",)))),
    m.CallMethod(condition_item("ns=2;s=Line1", "confirm"), (Text((ALARM,)), Octets((EVENT,)), Text(("",)))),
]


@pytest.mark.parametrize("number", range(len(FORGED)))
def test_what_no_honest_outer_half_would_say_ends_the_inner_one(number: int) -> None:
    with pytest.raises(CrossingError):
        OPCUA.check(FORGED[number])


def test_an_outer_half_that_makes_conditions_up_reaches_none() -> None:
    stage = Site(MAY)
    stage.inner.take(records.Opened(1, "s", "127.0.0.1", "filler"))
    call = m.CallMethod(condition_item(LINE, "acknowledge"), (Text((OTHER,)), Octets((EVENT,)), Text(("",))))
    OPCUA.check(call)
    stage.inner.take(records.Request(1, 1, call))
    for _ in range(5):
        stage.turn()
        stage.reactor.advance(0.1)
    (reply,) = [one for one in stage.to_outer.take() if isinstance(one, records.Reply)]
    assert reply.message == m.Refused(BAD_NODE)
    assert stage.plant[0].asked == [], "nothing was asked of the device"
    stage.inner.end()


def test_an_outer_half_does_not_pass_round_what_the_policy_says_of_one_alarm() -> None:
    """Its method is named by itself, with limits of its own: it is not called by the rule for all."""
    reset = "nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Reset"
    stage = Site(MAY, replaced=((reset, f"{ALARM} -> i={ACKNOWLEDGE}"),))
    client = Operator(stage)
    client.ask_for_events()
    alarm(stage, [client])
    assert client.call((ALARM, ACKNOWLEDGE, said()))[0] & 0x80000000
    (session,) = stage.inner._sessions
    for number, (verb, status) in enumerate((("acknowledge", BAD_DENIED), ("confirm", 0)), 1000):
        call = m.CallMethod(condition_item(LINE, verb), (Text((ALARM,)), Octets((EVENT,)), Text(("",))))
        stage.inner.take(records.Request(session, number, call))
        for _ in range(5):
            stage.turn()
            stage.reactor.advance(0.1)
        (reply,) = [one for one in stage.to_outer.take() if isinstance(one, records.Reply)]
        assert reply.message.status == status
    assert [method for _, method, _ in calls(stage)] == [CONFIRM]
    stage.inner.end()


def test_a_condition_is_known_by_whichever_type_its_field_has_a_value() -> None:
    known = Conditions(ids=True)
    fields = (("i=2915", "ConditionId"), ("i=2915", "EventId"), *FIELDS[:2])
    request = m.Events(Item("event", LINE), 100_000, fields)
    known.heard(LINE, request, (None, None, Octets((EVENT,)), m.Nodes((ALARM,))))
    assert known.fault(LINE, ALARM, EVENT) == 0
    known.heard(LINE, request, (None, None, None, m.Nodes((OTHER,))))
    assert known.fault(LINE, OTHER, EVENT) == BAD_NODE


def test_what_is_remembered_has_bounds() -> None:
    known, names_alone = Conditions(ids=True), Conditions(ids=False)
    request = m.Events(Item("event", LINE), 100_000, FIELDS)
    for number in range(CONDITIONS + 5):
        for one in (known, names_alone):
            one.heard(LINE, request, (Octets((b"e",)), m.Nodes((f"i={number}",)), None))
    assert not known.tells(LINE, "i=4") and known.tells(LINE, "i=5") and not known.tells("i=2253", "i=5")
    assert names_alone.tells(LINE, "i=5") and names_alone.fault(LINE, "i=5", b"e"), "of the outer half no event counts"
    for number in range(EVENTS + 1):
        known.heard(LINE, request, (Octets((bytes([number]) * 3,)), m.Nodes(("i=9",)), None))
    assert known.fault(LINE, "i=9", bytes(3)) == BAD_EVENT and known.fault(LINE, "i=9", bytes([EVENTS]) * 3) == 0
    for event in (
        (Octets((b"e",)), None, None), (None, m.Nodes(("i=7000",)), None), (Octets((b"",)), m.Nodes(("i=7000",)), None),
        (Octets((b"e" * 65,)), m.Nodes(("i=7000",)), None), (Octets((b"e",)), m.Nodes(("i=7000", "i=1"), True), None),
        (Octets((b"e",)), m.Nodes(("nsu=u;s=" + "x" * 600,)), None), (Text(("e",)), m.Nodes(("i=7000",)), None),
    ):  # fmt: skip
        known.heard(LINE, request, event)
    assert not known.tells(LINE, "i=7000")
    short = m.Events(Item("event", LINE), 100_000, FIELDS[:1])
    known.heard(LINE, short, (Octets((b"e",)),))
