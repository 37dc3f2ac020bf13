"""Captures of OPC UA: what a bystander of both directions makes of them, learned and simulated."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from cofferdam.capture.learn import learn
from cofferdam.capture.named import Named
from cofferdam.capture.simulate import simulate
from cofferdam.errors import CaptureError
from cofferdam.model import Allow, Assign, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import LocalizedText, NodeId, Variant
from cofferdam.protocols.opcua.bystander import HELD, OpcUaBystander
from cofferdam.protocols.opcua.dialect import TELLS
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.protocols.view import Answered, Broken, News, Remark, Said
from cofferdam.values import Float64, Int32, Octets, Text
from tests.capture.maker import Connection, pcap
from tests.capture.traffic import filled
from tests.policy.plant import NOW
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import LEVEL, RESET, SPEED, Pair, facing, trust
from tests.protocols.test_opcua_codec import FILES

OPCUA = PROTOCOLS["opcua"]
LINE = "nsu=urn:plant:line;s=Line1"
SPEED_ITEM, LEVEL_ITEM = Item("node", SPEED), Item("node", LEVEL)


class Overheard(Pair):
    """A pair, and the frames that went between them."""

    def __init__(self, *ends: Any) -> None:
        self.frames: list[tuple[bool, bytes]] = []
        super().__init__(*ends)

    def _hear(self, from_client: bool, data: bytes) -> None:
        assert OPCUA.view is not None
        at = 0
        while at < len(data):
            size = OPCUA.view.size(data, at)
            self.frames.append((from_client, data[at : at + size]))
            at += size

    def to_server(self, data: bytes) -> None:
        self._hear(True, data)
        super().to_server(data)

    def to_client(self, data: bytes) -> None:
        self._hear(False, data)
        super().to_client(data)


REQUESTS: list[tuple[Any, Any]] = [
    (m.Read((SPEED_ITEM, LEVEL_ITEM)), m.Values((m.Sample(Float64((1.0,))), m.Sample(Float64((2.0,)))))),
    (m.Read((Item("node", LEVEL, 1, 2),)), m.Values((m.Sample(Int32((1, 2), True)),))),
    (m.Write((Assign(SPEED_ITEM, Float64((5.0,))),)), m.Written((0,))),
    (m.CallMethod(Item("method", RESET), (Int32((3,)),)), m.Outputs(0, (), ())),
    (m.Events(Item("event", "i=2253"), 0, (("i=2041", "Message"), ("i=2782", "ConditionId")), severity=500),
     m.Subscribed(0, 1)),
    (m.Events(Item("event", LINE), 0, (("i=2041", "Message"), ("i=2041", "nsu=urn:plant:line;Batch"))),
     m.Subscribed(0, 1)),
    (m.Subscribe(LEVEL_ITEM, 100_000), m.Subscribed(100_000, 1)),
]  # fmt: skip


def overheard() -> Overheard:
    pair = Overheard(OpcUaServer(facing(trust())), OpcUaClient(facing(trust()), 8))
    pair.run()
    standing = 0
    for request, response in REQUESTS:
        pair.to_server(pair.client.send(request)[1])
        pair.later(1)
        standing = pair.asked[0][0]
        pair.answer(response)
    pair.to_client(pair.server.notice(standing, m.Changed((m.Sample(Float64((7.0,))),))))
    pair.later(200_000_000)
    return pair


def told(frames: list[tuple[bool, bytes]], known: dict[str, Any]) -> list[Any]:
    bystander = OpcUaBystander(OPCUA.check, known)
    found = [event for at, one in enumerate(frames) for event in bystander.heard(*one, (at, at))]
    return found + bystander.end()


def test_what_is_said_is_overheard_by_its_names() -> None:
    pair, known = overheard(), dict[str, Any]()
    events = told(pair.frames, known)
    assert [event.request for event in events if isinstance(event, Said)] == [request for request, _ in REQUESTS]
    answers = {event.number: event.response for event in events if isinstance(event, Answered)}
    assert [answers[number] for number in sorted(answers)] == [response for _, response in REQUESTS]
    [news] = [event for event in events if isinstance(event, News)]
    assert news.message.samples[0].value == Float64((7.0,)) and news.number == len(REQUESTS)
    assert known["names"].uris[2] == "urn:plant:line"


def test_without_the_servers_namespaces_they_are_to_be_filled_in_or_known_from_elsewhere() -> None:
    pair = overheard()
    begin = next(at for at, (_, frame) in enumerate(pair.frames) if b"Line1.Speed" in frame)
    cut = pair.frames[begin:]
    known: dict[str, Any] = {}
    said = [event.request for event in told(cut, known) if isinstance(event, Said)]
    assert said[0].items[0].name == "nsu=urn:FILL-IN:2;s=Line1.Speed"
    told(pair.frames, known)  # another connection of the same server tells
    said = [event.request for event in told(cut, known) if isinstance(event, Said)]
    assert said == [request for request, _ in REQUESTS]


def test_notifiers_are_proposed_with_the_fields_that_were_asked_for() -> None:
    named = Named(OPCUA.dialect, 100)
    requests = [event.request for event in told(overheard().frames, {}) if isinstance(event, Said)]
    verbs = [verb for request in requests for verb, _ in named.add(OPCUA.operation(request))]
    assert verbs.count("events") == 2 and not named.left_out
    lines = list(named.sections())
    at = lines.index("    notifiers:")
    assert lines[at + 1 :] == [
        "      2253: {at: 'i=2253', fields: ['Message', 'ConditionId', 'Severity']}",
        f"      Line1: {{at: '{LINE}', fields: ['Message', 'nsu=urn:plant:line;Batch']}}",
    ]
    policy = compile_policy(loads("\n".join((
        "site: works", "zones: {office: {side: it}, plant: {side: ot}}", "assets:",
        '  line:', "    zone: plant", "    address: 10.20.0.9", "    protocol: opcua", '    listen: "127.0.0.1:4840"',
        *lines[at:], "principals: {scada: {zone: office, addresses: 10.1.0.20}}",
        "conduits: {c: {from: office, to: plant, broker: opcua, owner: o, reason: r, allow: ["
        "{who: scada, asset: line, events: ['2253', Line1]}]}}",
    ))), now_ns=NOW)  # fmt: skip
    flow = policy.flow("opcua", "10.1.0.20", "line", ("office",))
    assert isinstance(flow, Flow)
    for request in requests:
        verdict = flow.decide(OPCUA.operation(request), NOW)
        assert isinstance(verdict, Allow) == isinstance(request, m.Events)


ALARM = f"{LINE}.SpeedAlarm"
ALARMS = m.Events(Item("event", LINE), 0, (("i=2041", "EventId"), ("i=2782", "ConditionId"), ("i=2041", "Message")))


def acknowledged(verbs: tuple[str, ...], asked: m.Events = ALARMS, event: bytes = b"e1") -> Overheard:
    """A client that hears of an alarm, and tells it something."""
    pair = Overheard(OpcUaServer(facing(trust())), OpcUaClient(facing(trust()), 8))
    pair.run()
    pair.to_server(pair.client.send(asked)[1])
    pair.later(1)
    standing = pair.asked[0][0]
    pair.answer(m.Subscribed(0, 1))
    values: dict[str, Any] = {"EventId": Octets((b"e1",)), "ConditionId": m.Nodes((ALARM,))}
    news = tuple(values.get(field) for _, field in asked.fields)
    pair.to_client(pair.server.notice(standing, m.Happened((news,))))
    pair.later(200_000_000)
    for verb in verbs:
        comment = Variant(21, LocalizedText("en", "seen by the office"))
        method = NodeId(0, TELLS[verb])
        call = s.MethodToCall(pair.client.namespaces.node(ALARM), method, [Variant(15, event), comment])
        pair.client.tell(s.CallRequest(pair.client.header(), [call]))
        pair.run()
    return pair


def said_in(pair: Overheard) -> list[Any]:
    return [event.request for event in told(pair.frames, {}) if isinstance(event, Said)]


def test_who_acknowledges_alarms_is_proposed_to_be_allowed_to_and_no_method_of_an_alarm() -> None:
    pair = acknowledged(("acknowledge", "confirm", "comment"))
    said = (Text((ALARM,)), Octets((b"e1",)), Text(("seen by the office",)))
    assert said_in(pair)[1:] == [
        m.CallMethod(Item("condition", f"{LINE} -> {verb}"), said) for verb in ("acknowledge", "confirm", "comment")
    ]
    wire = Connection(("10.1.0.20", 40000), ("10.20.0.9", 4840), time_ns=NOW).open()
    for from_client, frame in pair.frames:
        (wire.ask if from_client else wire.answer)(frame)
    capture = pcap(wire.frames, nano=True)
    learned = learn(io.BytesIO(capture), "alarms", site="plant")
    assert "        events: [Line1]\n        acknowledge: [Line1]\n" in learned.text and "methods:" not in learned.text
    found = simulate(compile_policy(loads(filled(learned.text)), now_ns=NOW), io.BytesIO(capture), "alarms")
    assert found.allowed == learned.requests >= 4 and not found.refused and not found.depends, found.flows


def test_what_nobody_has_heard_of_is_no_alarm_of_a_notifier() -> None:
    """Without its NodeId in the events a condition is an object like any other, and a comment with a locale no text."""
    without = m.Events(Item("event", LINE), 0, (("i=2041", "EventId"), ("i=2041", "Message")))
    assert said_in(acknowledged(("acknowledge",), without)) == [without]
    assert said_in(acknowledged(("acknowledge",), event=b"")) == [ALARMS], "nothing that can be told"
    named = Named(OPCUA.dialect, 100)
    requests = [without, *said_in(acknowledged(("acknowledge",)))[1:]]
    verbs = [verb for request in requests for verb, _ in named.add(OPCUA.operation(request))]
    assert verbs == ["events"] and named.left_out == 1, "a rule needs what names a condition"


def test_fields_of_events_are_told_apart_up_to_a_limit() -> None:
    named, item = Named(OPCUA.dialect, 10), Item("event", LINE)
    for number in range(20):
        list(named.add(OPCUA.operation(m.Events(item, 0, (("i=2041", f"Field{number}"),)))))
    assert len(named) == 10 and named.left_out == 11
    assert any(line.count("Field") == 9 for line in named.sections())


def test_what_is_held_is_bounded() -> None:
    pair = overheard()
    [read] = [frame for _, frame in pair.frames if b"Line1.Speed" in frame and b"Level" in frame]
    bystander = OpcUaBystander(OPCUA.check, {})
    found = [len(bystander.heard(True, read, (0, 0))) for _ in range(HELD + 5)]
    assert found[:HELD] == [0] * HELD and found[HELD] == HELD + 1 and found[HELD + 1 :] == [1] * 4


def test_a_secured_connection_is_remarked_once_and_tells_nothing(tmp_path: Path) -> None:
    keys = {name: make(tmp_path / name, f"urn:{name}") for name in ("ours", "theirs")}
    word = "Basic256Sha256"
    pair = Overheard(
        OpcUaServer(facing(trust(keys["ours"], keys["theirs"]), word)),
        OpcUaClient(facing(trust(keys["theirs"], keys["ours"]), word), 8),
    )
    pair.run()
    pair.to_server(pair.client.send(REQUESTS[0][0])[1])
    assert pair.asked
    assert [type(event) for event in told(pair.frames, {})] == [Remark]


def test_what_breaks_the_standard_is_told() -> None:
    pair = overheard()
    [read] = [frame for _, frame in pair.frames if b"Line1.Speed" in frame and b"Level" in frame]
    [event] = told([(True, read[:-3])], {})
    assert isinstance(event, Broken) and event.section == "OPC 10000-4, 5"


@pytest.mark.skipif(not FILES, reason="no captures beside the checkout (../shared/captures/opcua)")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_policy_that_is_learned_allows_what_was_seen(path: Path) -> None:
    ports = dict.fromkeys((4841, 12001, 48010, 49493, 49508, 58526, 58552, 58565, 62541), "opcua")
    with path.open("rb") as stream:
        learned = learn(stream, path.name, ports=ports, site="plant")
    if not learned.requests:
        return  # secured, or nothing of the kind is asked in it
    policy = compile_policy(loads(filled(learned.text)), now_ns=NOW)
    with path.open("rb") as stream:
        found = simulate(policy, stream, path.name, ports=ports)
    assert found.allowed == learned.requests and not found.refused and not found.depends, found.flows


def test_a_file_that_is_none_is_no_capture() -> None:
    import io

    with pytest.raises(CaptureError):
        learn(io.BytesIO(b"no capture"), "x")
