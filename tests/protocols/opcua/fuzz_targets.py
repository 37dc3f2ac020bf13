"""Fuzz targets of OPC UA: the codec, and both machines behind an established channel."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import msgspec

from cofferdam.errors import CrossingError, LocalProtocolError, RemoteProtocolError
from cofferdam.model import Item, Subtree
from cofferdam.protocols.base import NEED_DATA, NoticeReceived, ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import together, wire
from cofferdam.protocols.opcua.builtin_types import (
    Data,
    Extension,
    LocalizedText,
    Malformed,
    NodeId,
    QualifiedName,
    Variant,
)
from cofferdam.protocols.opcua.bystander import OpcUaBystander
from cofferdam.protocols.opcua.channel import reverse_hello
from cofferdam.protocols.opcua.events import filter_of
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import UA, Namespaces
from cofferdam.protocols.opcua.rendered import plainly
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.protocols.view import Said
from cofferdam.values import Int32
from tests.fuzz.engine import Target
from tests.protocols.opcua.pair import LEVEL, RESET, Pair, facing, plain, trust

PROTOCOL = PROTOCOLS["opcua"]
PACK = msgspec.msgpack.Encoder().encode
RESPONSES = msgspec.msgpack.Decoder(m.OpcUaResponse)


def _filter(names: Namespaces) -> Extension:
    fields = (("i=2041", "Message"), ("i=2782", "ConditionId"), ("i=2915", "ActiveState/Id"))
    return filter_of(m.Events(EVENTS, 0, fields, 10, True, 500, ("i=2915",), ("i=2041", "i=2782")), names)


EVENTS = Item("event", "i=2253")


def foreseen() -> Pair:
    """A pair whose session has the same token each time: a request of one is one of the other."""
    stands = msgspec.structs.replace(facing(trust()), random=lambda count: b"7" * count)
    return Pair(OpcUaServer(stands), OpcUaClient(stands, 8)).run()


def requests() -> list[bytes]:
    """Bodies of requests of each service that a client of ours makes, and some more."""
    client = foreseen().client
    header = client.header()
    node = s.ReadValueId(client.namespaces.node(LEVEL), 13, None, QualifiedName(0, None))
    wanted = s.MonitoringParameters(1, 100.0, wire.NO_EXTENSION, 1, True)
    return [
        wire.encode(one)
        for one in (
            s.ReadRequest(header, 0.0, 2, [node, s.ReadValueId(NodeId(0, 2256), 13, None, QualifiedName(0, None))]),
            s.BrowseRequest(header, s.ViewDescription(NodeId(0, 0), 0, 0), 0,
                            [s.BrowseDescription(NodeId(0, 85), 0, NodeId(0, 33), True, 0, 63)]),
            s.CallRequest(header, [s.MethodToCall(node.node, node.node, [])]),
            s.CallRequest(header, [s.MethodToCall(node.node, node.node, [Variant(6, 3)])] * 2),
            s.ActivateSessionRequest(header, s.SignatureData(None, None), [], [], wire.pack(s.AnonymousToken("a")),
                                     s.SignatureData(None, None)),
            s.WriteRequest(header, [s.WriteValue(node.node, 13, None, Data(Variant(21, LocalizedText("en", "x"))))]),
            s.CreateSubscriptionRequest(header, 100.0, 100, 10, 0, True, 0),
            s.CreateItemsRequest(header, 1, 2, [s.ItemToCreate(node, 2, wanted)]),
            s.CreateItemsRequest(header, 1, 2, [s.ItemToCreate(
                s.ReadValueId(NodeId(0, 2253), 12, None, QualifiedName(0, None)), 2,
                s.MonitoringParameters(2, 0.0, _filter(client.namespaces), 10, True))]),
            s.PublishRequest(header, []),
            s.HistoryReadRequest(header, wire.pack(s.RawDetails(False, 0, 0, 5, False)), 2, False,
                                 [s.HistoryNode(node.node, None, QualifiedName(0, None), None)]),
            s.TranslateRequest(header, [s.BrowsePath(NodeId(0, 85), [
                s.PathElement(NodeId(0, 33), False, True, QualifiedName(0, "x"))])]),
        )
    ]  # fmt: skip


def decode(data: bytes) -> Hashable:
    """Any body: a message that can be made anew, or Malformed."""
    try:
        found = wire.decode(data, request=True)
    except Malformed as error:
        return str(error)[:24]
    assert type(wire.decode(wire.encode(found), request=True)) is type(found)
    return type(found).__name__


def stream(data: bytes) -> Hashable:
    """Any bytes from a client that has said nothing yet: events, or RemoteProtocolError."""
    server = OpcUaServer(facing(trust()))
    server.on_time(1)
    server.receive_data(data)
    count = 0
    try:
        while server.next_event() is not NEED_DATA:
            count += 1
    except RemoteProtocolError as error:
        return str(error)[:24]
    return count


def called(data: bytes) -> Hashable:
    """Any bytes from a server that has connected to us: at most a hello of ours, or RemoteProtocolError."""
    client = OpcUaClient(msgspec.structs.replace(facing(trust()), dialled=True), 8)
    client.on_time(1)
    client.receive_data(data)
    try:
        while client.next_event() is not NEED_DATA:
            pass
    except RemoteProtocolError as error:
        return str(error)[:24]
    said = client.take_output()
    assert said == b"" or said[:3] == b"HEL", "it is asked nothing before it has agreed"
    return len(said) > 0, client.url[:8]


def session(data: bytes) -> Hashable:
    """Any body within a session: it is answered, and what would cross passes `check` and can be judged."""
    pair = foreseen()
    client = pair.client
    subscribe = s.CreateSubscriptionRequest(client.header(), 100.0, 100, 10, 0, True, 0)
    pair.to_server(client.channel.send(client.channel.request_id(), wire.encode(subscribe)))
    before = len(pair.heard)
    try:
        pair.to_server(pair.client.channel.send(pair.client.channel.request_id(), data))
    except LocalProtocolError:
        return "too large"
    pair.later(200_000_000)
    shape = []
    for token, request in pair.asked:
        PROTOCOL.check(request)
        PROTOCOL.operation(request)
        pair.to_client(pair.server.send(token, m.Refused(0x80310000)))
        shape.append(type(request).__name__)
    assert pair.server_error is None or not shape
    told = tuple(type(one).__name__ for one in pair.heard[before:])
    return tuple(shape), told, tuple(one[:24] for one in pair.refused)


def answer(data: bytes) -> Hashable:
    """Any body as the asset's answer to a read: it fits, or is told as what it is; what crosses passes `check`."""
    pair = plain()
    request = m.Read((Item("node", LEVEL),))
    token, _ = pair.client.send(request)
    number = pair.client.channel._request
    pair.to_client(pair.server.channel.send(number, data))
    for event in pair.heard:
        if isinstance(event, ResponseReceived) and event.token == token:
            assert len(PACK(event.response)) < 1 << 20
            assert RESPONSES.decode(PACK(event.response)) == event.response or "nan" in repr(event.response)
            try:
                PROTOCOL.check(event.response)
            except CrossingError as error:
                raise AssertionError("an answer that the other half would stop at") from error
            assert not PROTOCOL.mismatch(request, event.response)
    return type(pair.heard[-1]).__name__, str(pair.client_error)[:24]


def news(data: bytes) -> Hashable:
    """Any body as what a server publishes, for a watch and for events: news that fit, or the connection ends."""
    pair = plain()
    asked: list[m.Subscribe | m.Events] = [m.Subscribe(Item("node", LEVEL), 100_000)]
    asked.append(m.Events(EVENTS, 100_000, (("i=2041", "Message"),), 10))
    tokens = {}
    for one in asked:
        token, said = pair.client.send(one)
        tokens[token] = one
        pair.to_server(said)
        pair.run()
    while pair.asked:
        pair.answer(m.Subscribed(0, 10))
    for number in sorted(pair.client._publish_ids)[:2]:
        pair.to_client(pair.server.channel.send(number, data))
    shape = []
    for event in pair.heard:
        if isinstance(event, NoticeReceived):
            assert not PROTOCOL.misfit(tokens[event.standing], event.message)
            assert len(PACK(event.message)) < 1 << 20
            shape.append(type(event.message).__name__)
    return tuple(shape), str(pair.client_error)[:24]


def published() -> list[bytes]:
    header = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
    parts = [
        wire.pack(s.DataChange([s.ItemNotification(1, Data(Variant(11, 1.5)))], [])),
        wire.pack(s.EventList([s.EventFields(2, [Variant(21, LocalizedText(None, "a"))])])),
        wire.pack(s.StatusChange(0x800A0000, 0)),
    ]
    return [
        wire.encode(s.PublishResponse(header, number, [], False, s.NotificationMessage(1, 0, some), [], []))
        for number in (1, 2) for some in (parts, parts[:1], parts[1:2], [])
    ]  # fmt: skip


def answers() -> list[bytes]:
    header = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
    return [
        wire.encode(s.ReadResponse(header, [Data(Variant(11, 1.5))], [])),
        wire.encode(s.ServiceFault(s.ResponseHeader(0, 1, 0x80340000, 0, [], wire.NO_EXTENSION))),
        *(
            wire.encode(s.ReadResponse(header, [Data(Variant(kind, value, array), 0, 5, 6)], []))
            for kind, value, array in (
                (12, ["a", "b"], True),
                (13, 7, False),
                (20, QualifiedName(1, "n"), False),
                (17, NodeId(1, 5), False),
                (21, LocalizedText("en", "t"), False),
                (15, b"x", False),
                (10, 1.5, False),
                (9, 2**64 - 1, False),
                (14, "09087e75-8e5e-499b-954f-f2a9603db28a", False),
            )
        ),
    ]


def numbered() -> list[bytes]:
    """Answers of single numbers."""
    values = [
        *[Data(Variant(kind, 1 if kind < 10 else 1.5), status, 5, 6)
          for kind in range(1, 12) for status in (0, 1 << 31)],
        Data(None, 0x80310000, 5, 6), Data(Variant(6, -1)), Data(Variant(1, True), 0, 5, 0), Data(Variant(0, None)),
    ]  # fmt: skip
    header = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
    return [wire.encode(s.ReadResponse(header, some, [])) for some in (values, values[:3], *[[one] for one in values])]


def at_once(data: bytes) -> Hashable:
    """Any body as an answer of single numbers, by its own form and by those of others: taken apart and said as the
    decoder and the encoder have it, or left to them."""
    count = int.from_bytes(data[28:32], "little") % 1001
    shape = []
    for heads in (together.heads_of(data, count), *FORMS):
        told = together.told_of(heads) if heads else None
        found = None if told is None else told.taken(data)
        shape.append(found is not None)
        if told is None or found is None:
            continue
        message = m.Numbers(told.crossing, found)
        PROTOCOL.check(message)
        samples = together.one_by_one(message).samples
        plain = [NAMES_OF.sample(one) for one in wire.decode(data, request=False).results]
        assert list(map(repr, samples)) == list(map(repr, plain))
        form = together.form_of(message.heads)
        assert form is not None
        for stamps in range(4):
            said = [plainly(NAMES_OF.data(one, stamps)) for one in samples]
            assert b"".join(form.pieces(found, stamps)) == b"".join(said)
    return tuple(shape), count % 30


def overheard(data: bytes) -> Hashable:
    """Any body, said by a client and then by its server: a bystander makes something of it, or nothing."""
    bystander = OpcUaBystander(PROTOCOL.check, {"names": NAMES})
    shape: list[str] = []
    for from_client in (True, False):
        frame = b"MSGF" + (24 + len(data)).to_bytes(4, "little") + bytes(16) + data
        for event in bystander.heard(from_client, frame, (0, 0)):
            if isinstance(event, Said):
                PROTOCOL.operation(event.request)
            shape.append(type(event).__name__)
    return tuple(shape)


def surveyed(data: bytes) -> Hashable:
    """Any body as a server's answer to questions about a subtree: it ends, with a description that fits, or is told as
    what it is."""
    tree = Subtree("line", Item("tree", "nsu=urn:plant:line;s=Line1"), 3, 50)
    own = facing(trust())
    own = msgspec.structs.replace(own, asset=msgspec.structs.replace(own.asset, subtrees=(tree,)))
    pair = Pair(OpcUaServer(facing(trust())), OpcUaClient(own, 8)).run()

    def answer_to(question: object) -> bytes:
        if isinstance(question, s.BrowseRequest) and question.nodes[0].direction == 1:
            return wire.encode(s.BrowseResponse(FINE, [s.BrowseResult(0, None, [])] * len(question.nodes), []))
        if isinstance(question, s.ReadRequest) and data[:4] != READ_ANSWER:
            return wire.encode(s.ReadResponse(FINE, FACTS * (len(question.nodes) // 7), []))
        return data

    return _answered(pair, m.Survey((tree.at,)), answer_to, SURVEY_QUESTIONS)


def given(data: bytes) -> Hashable:
    """Any body as what methods give back: it fits, or is told as what it is."""
    call = m.CallMethod(Item("method", RESET), (Int32((3,)),))
    several = m.CallMethods((call, call))
    return tuple([_answered(plain(), one, lambda _question: data, 1) for one in (call, several)])


def _answered(pair: Pair, request: m.OpcUaRequest, answer_to: Callable[[object], bytes], most: int) -> Hashable:
    """What comes of a request whose questions are answered so."""
    token, sent = pair.client.send(request)
    asked = 0
    while token in pair.client._pending and pair.client_error is None:
        assert asked < most, "it asks without end"
        number = next(iter(pair.client._works))
        reply = answer_to(wire.decode(sent[24:], request=True))
        pair.to_client(pair.server.channel.send(number, reply))
        asked, sent = asked + 1, pair.client.take_output()
    for event in pair.heard:
        if isinstance(event, ResponseReceived) and event.token == token:
            assert len(PACK(event.response)) < 1 << 20
            assert not PROTOCOL.mismatch(request, event.response)
    return type(pair.heard[-1]).__name__, str(pair.client_error)[:24], asked


SURVEY_QUESTIONS = 600
"""More than any subtree of that size needs."""
FINE = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
FACTS = [
    Data(Variant(6, 1)), Data(Variant(20, QualifiedName(2, "a"))), Data(Variant(21, LocalizedText(None, "a"))),
    *[Data(None, 0x80350000)] * 4,
]  # fmt: skip
READ_ANSWER = wire.encode(s.ReadResponse(FINE, [], []))[:4]


def surveys() -> list[bytes]:
    """Answers to questions about what is below, and further on, and to what each node is."""
    text, kind = LocalizedText(None, "x"), NodeId(0, 58)

    def there(*names: str) -> list[s.ReferenceDescription]:
        return [
            s.ReferenceDescription(NodeId(0, 47), True, NodeId(2, name, "s"), QualifiedName(2, name), text, 1, kind)
            for name in names
        ]

    found = [s.BrowseResult(0, None, there(*names)) for names in ((), ("a",), ("a", "b", "Line1"))]
    return [
        *[wire.encode(s.BrowseResponse(FINE, [one], [])) for one in found],
        wire.encode(s.BrowseResponse(FINE, [s.BrowseResult(0, b"p", there("a"))], [])),
        wire.encode(s.BrowseNextResponse(FINE, [s.BrowseResult(0, b"p", there("b"))], [])),
        *[wire.encode(s.ReadResponse(FINE, FACTS * count, [])) for count in (1, 2, 3)],
    ]


def outputs() -> list[bytes]:
    values = [Variant(6, 3), Variant(12, ["a", None], True), Variant(17, NodeId(2, "x", "s")), Variant(13, 7)]
    found = [s.MethodResult(0, [0], [], some) for some in (values, values[:1], [])]
    found.append(s.MethodResult(0x80AB0000, [0x80740000], [], []))
    return [wire.encode(s.CallResponse(FINE, some, [])) for some in ([found[0]], found[:2], found[1:2], found[3:], [])]


NAMES = Namespaces((UA, "urn:a", "urn:plant:line"))
NAMES_OF = Namespaces((UA,))
FORMS = [together.heads_of(one, int.from_bytes(one[28:32], "little")) for one in numbered()[:3]]
TARGETS = [
    Target("opcua-codec", requests, decode),
    Target("opcua-stream", lambda: [plain().client.channel.hello("opc.tcp://x"), b"HELF", b"OPNF"], stream),
    Target("opcua-called", lambda: [reverse_hello("urn:a", "opc.tcp://x"), b"RHEF", b"ACKF"], called),
    Target("opcua-session", requests, session),
    Target("opcua-answer", answers, answer),
    Target("opcua-numbers", numbered, at_once),
    Target("opcua-news", published, news),
    Target("opcua-surveyed", surveys, surveyed),
    Target("opcua-given", outputs, given),
    Target("opcua-overheard", lambda: [*requests(), *answers()], overheard),
]
