"""Both ends of an OPC UA connection: what they agree on, and the attacks of the reference with their answers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.device import Device
from cofferdam.errors import ConnectAnew, CrossingError, RemoteProtocolError
from cofferdam.limits import Limits
from cofferdam.model import NEVER, Allow, Assign, Deny, Fault, Item
from cofferdam.protocols.base import (
    NEED_DATA,
    Established,
    LocalAnswer,
    NoticeReceived,
    Over,
    RequestReceived,
    ResponseReceived,
)
from cofferdam.protocols.opcua import channel as ch
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import (
    NULL_NODE,
    Data,
    LocalizedText,
    NodeId,
    QualifiedName,
    Variant,
)
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import Namespaces, Unnamed
from cofferdam.protocols.opcua.security import POLICIES
from cofferdam.protocols.opcua.trust import hash_password, is_password
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Float64, Text
from tests.brokers.stage import ManualReactor, Wire
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import LEVEL, RESET, SPEED, Pair, asset, facing, plain, trust

NS = 1_000_000_000
SECURED = [
    "Basic256Sha256", "Basic256Sha256 sign", "Aes128_Sha256_RsaOaep", "Aes128_Sha256_RsaOaep sign",
    "Aes256_Sha256_RsaPss", "Aes256_Sha256_RsaPss sign",
]  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    made = {name: make(folder / name, f"urn:{name}") for name in ("ours", "theirs", "stranger")}
    made["large"] = make(folder / "large", "urn:large", bits=4096)
    made["expired"] = make(folder / "expired", "urn:expired", days=-1)
    made["small"] = make(folder / "small", "urn:small", bits=1024)
    return made


def secured(keys: dict[str, Path], word: str, who: str = "theirs", knows: tuple[str, ...] = ("theirs",)) -> Pair:
    """A secured pair: the server trusts `knows`, the client is `who`."""
    server = OpcUaServer(facing(trust(keys["ours"], *(keys[name] for name in knows)), word))
    client = OpcUaClient(facing(trust(keys[who], keys["ours"]), word), 8)
    return Pair(server, client).run()


def established(pair: Pair) -> bool:
    return any(isinstance(event, Established) for event in pair.heard)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_any_pieces_make_the_same(step: int) -> None:
    pair = plain(step)
    assert established(pair) and pair.client.namespaces.uris[2:] == ("urn:plant:line",)
    token, data = pair.client.send(m.Read((Item("node", SPEED), Item("node", LEVEL))))
    pair.to_server(data)
    assert [request for _, request in pair.asked] == [m.Read((Item("node", SPEED), Item("node", LEVEL)))]
    samples = (m.Sample(Float64((1.5,)), 0, 5, 6), m.Sample(None, 0x80310000))
    pair.answer(m.Values(samples))
    assert ResponseReceived(token, m.Values(samples)) in pair.heard


@pytest.mark.parametrize("word", SECURED)
def test_a_secured_channel_carries_and_renews(keys: dict[str, Path], word: str) -> None:
    pair = secured(keys, word)
    assert established(pair), (pair.server_error, pair.client_error)
    for turn in range(5):
        value = m.Write((Assign(Item("node", SPEED), Float64((float(turn),))),))
        _, data = pair.client.send(value)
        pair.to_server(data)
        assert pair.asked[0][1] == value
        pair.answer(m.Written((0,)))
        before = pair.client.channel._tokens[-1].id
        for _ in range(8):  # never so long that the session ends
            pair.later(57 * NS)
        assert pair.client_error is None and pair.server_error is None
        assert pair.client.channel._tokens[-1].id != before, "renewed at three quarters of its life"


def test_keys_of_different_lengths_speak_with_each_other(keys: dict[str, Path]) -> None:
    assert established(secured(keys, "Basic256Sha256", "large", ("large",)))
    assert established(secured(keys, "Aes256_Sha256_RsaPss", "large", ("large",)))


@pytest.mark.parametrize("who", ["stranger", "expired", "small"])
def test_whom_nobody_trusts_gets_no_channel(keys: dict[str, Path], who: str) -> None:
    pair = secured(keys, "Basic256Sha256", who, ("theirs", "expired", "small"))
    assert not established(pair) and pair.server_error is not None
    code = "80140000" if who == "expired" else "80130000"
    assert pair.client_error is not None and code in str(pair.client_error)


def test_a_server_of_which_several_certificates_are_trusted_is_asked_which_one_it_has(keys: dict[str, Path]) -> None:
    server, word = facing(trust(keys["ours"], keys["theirs"]), "Basic256Sha256"), "Basic256Sha256"
    knows = trust(keys["theirs"], keys["ours"], keys["stranger"])
    first = Pair(OpcUaServer(server), OpcUaClient(facing(knows, word), 8)).run()
    assert not established(first) and isinstance(first.client_error, ConnectAnew), "nobody broke anything"
    assert established(Pair(OpcUaServer(server), OpcUaClient(facing(knows, word), 8)).run())


def test_a_server_that_has_a_new_certificate_loses_no_answer_by_being_asked_for_it(keys: dict[str, Path]) -> None:
    """The connection by which it was asked counted as a fault of its own: the asset was left alone for half a second,
    and each time longer, and what waited failed with "connecting anew"."""
    reactor, word, told = ManualReactor(), "Basic256Sha256", list[str]()
    links: list[tuple[Wire, OpcUaServer]] = []

    def connect(_address: str, _port: int, connected: Callable[[], None]) -> Wire:
        who = "stranger" if links else "ours"  # it has another one from the second connection on
        links.append((Wire(reactor), OpcUaServer(facing(trust(keys[who], keys["theirs"]), word))))
        reactor.later(connected)
        return links[-1][0]

    def serve(link: Wire, server: OpcUaServer) -> None:
        server.on_time(reactor.now)
        server.receive_data(b"".join(link.take()))
        with contextlib.suppress(RemoteProtocolError):
            while (event := server.next_event()) is not NEED_DATA:
                if isinstance(event, LocalAnswer):
                    link.on_data(server.send(event.token, event.reply))
                elif isinstance(event, RequestReceived):
                    link.on_data(server.send(event.token, m.Values((m.Sample(Float64((1.5,))),))))
        if not link.closed and (said := server.take_output()):
            link.on_data(said)

    device = Device(
        asset=asset(word), protocol=PROTOCOLS["opcua"], limits=Limits(), reactor=reactor, connect=connect,
        report=lambda what, _section, _detail: told.append(what), permit=lambda _job: True,
        news=lambda _one, _event: None, clock=lambda: reactor.now,
        facing=facing(trust(keys["theirs"], keys["ours"], keys["stranger"]), word),
    )  # fmt: skip
    ended: list[Job] = []
    asked = m.Read((Item("node", LEVEL),))
    device.submit(Job(Allow("c", "c/0", NEVER), asked, "s", 1, reactor.now, NS, ended.append))
    for _ in range(60):
        reactor.advance(0.001)
        serve(*links[-1])
    assert [job.failure for job in ended] == [None] and told == ["broken"] and len(links) == 4


def test_each_byte_of_a_secured_message_is_signed(keys: dict[str, Path]) -> None:
    for word in ("Basic256Sha256", "Basic256Sha256 sign"):
        pair = secured(keys, word)
        _, data = pair.client.send(m.Read((Item("node", SPEED),)))
        channel = pair.server.channel
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1
            channel.receive(bytes(changed))
            try:
                taken = channel.next()
            except ch.Fault:
                taken = None  # else a size that makes it wait for more
            assert taken is None, f"{word}: byte {at} of {len(data)} was changed, and it was taken"
            channel._data.clear()
        pair.to_server(data)
        assert pair.asked, "nothing of it was used up"


def test_a_message_taken_from_the_wire_and_said_again_is_refused(keys: dict[str, Path]) -> None:
    pair = secured(keys, "Basic256Sha256")
    _, data = pair.client.send(m.Write((Assign(Item("node", SPEED), Float64((1.0,))),)))
    pair.to_server(data + data)
    assert len(pair.asked) == 1 and pair.server_error is not None
    other = secured(keys, "Basic256Sha256")
    other.to_server(data)
    assert not other.asked and other.server_error is not None, "and on no other channel"


# --- hostile clients ------------------------------------------------------------------------------------------------


def body(pair: Pair, message: Any) -> None:
    """Has the client say any message."""
    client = pair.client
    pair.to_server(client.channel.send(client.channel.request_id(), wire.encode(message)))


def raw(pair: Pair, data: bytes) -> None:
    """Has the client say a body that may be none."""
    client = pair.client
    pair.to_server(client.channel.send(client.channel.request_id(), data))


def spied(pair: Pair) -> list[Any]:
    """The responses that the server makes from here on."""
    found: list[Any] = []
    send = pair.to_client

    def to_client(data: bytes) -> None:
        at = 0
        while at < len(data):
            size = struct.unpack_from("<I", data, at + 4)[0]
            if data[at : at + 3] == b"MSG":
                found.append(wire.decode(data[at + 24 : at + size], request=False))
            elif data[at : at + 3] == b"ERR":
                found.append(struct.unpack_from("<I", data, at + 8)[0])
            at += size
        send(data)

    pair.to_client = to_client  # type: ignore[method-assign]
    return found


def status(found: list[Any]) -> int:
    last = found[-1]
    return last if isinstance(last, int) else int(last.header.result)


def deep(levels: int) -> bytes:
    """A Write of a Variant in a Variant ... (arrays of one Variant)."""
    head = Writer()
    head.node(NodeId(0, 673))
    return (
        head.made() + b"HEADER" + b"\1\0\0\0" + b"\0\x0d" + b"\x0d\0\0\0\xff\xff\xff\xff\1" + b"\x98\1\0\0\0" * levels
    )


def header_bytes(pair: Pair) -> bytes:
    writer = Writer()
    s.write_RequestHeader(writer, pair.client.header())
    return writer.made()


def test_variants_in_variants_are_refused_and_the_session_goes_on() -> None:
    pair = plain()
    found = spied(pair)
    for levels in (11, 10_000):
        raw(pair, deep(levels).replace(b"HEADER", header_bytes(pair)))
        assert status(found) == 0x80070000
    many = deep(1).replace(b"HEADER", header_bytes(pair))[:-4] + struct.pack("<I", 300_000) + b"\0" * 300_000
    raw(pair, many)
    assert status(found) == 0x80080000, "one byte can be one object"
    assert pair.server_error is None
    _, data = pair.client.send(m.Read((Item("node", SPEED),)))
    pair.to_server(data)
    assert pair.asked, "the session goes on"


def test_bodies_that_end_too_soon_have_bytes_left_or_are_no_text() -> None:
    pair = plain()
    found = spied(pair)
    node = s.ReadValueId(NodeId(2, "x", "s"), 13, None, QualifiedName(0, None))
    good = wire.encode(s.ReadRequest(pair.client.header(), 0.0, 2, [node]))
    at = good.rindex(b"x")
    wrong = [good[:cut] for cut in range(4, len(good), 5)]
    wrong += [good + b"\0", good[:at] + b"\xff" + good[at + 1 :], good[:at] + b"\0" + good[at + 1 :]]
    for data in wrong:
        raw(pair, data)
        assert status(found) in (0x80070000, 0x80250000, 0x80230000, 0x80080000), data
    assert pair.server_error is None and not pair.asked


def test_chunks_without_end_close_the_connection() -> None:
    for count, size in ((200, 8_000), (130, 100)):
        pair = plain()
        found = spied(pair)
        channel = pair.client.channel
        for _ in range(count):
            plain_chunk = struct.pack("<II", channel._sequence(), 77) + b"\0" * size
            token = channel._tokens[-1].id
            head = struct.pack("<3scIII", b"MSG", b"C", 16 + len(plain_chunk), channel.id, token)
            pair.to_server(head + plain_chunk)
        pair.run()
        assert pair.server_error is not None and "more than" in str(pair.server_error)
        assert pair.server.channel.buffered <= ch.MESSAGE_BYTES + 2 * ch.BUFFER
        assert status(found) == 0x80800000
    pair = plain()
    head = struct.pack("<3scII", b"MSG", b"C", 5_000_000, 1)
    pair.to_server(head)
    assert pair.server_error is not None, "a chunk larger than was agreed, before it has come"


def test_a_message_that_is_never_finished_closes_the_connection() -> None:
    pair = plain()
    channel = pair.client.channel
    chunk = struct.pack("<II", channel._sequence(), 77) + b"\0" * 10
    pair.to_server(struct.pack("<3scIII", b"MSG", b"C", 16 + len(chunk), channel.id, channel._tokens[-1].id) + chunk)
    assert not str(pair.server_error or "")
    pair.later(6 * NS)
    assert "completed in time" in str(pair.server_error)


def test_opening_again_and_again_closes_the_connection() -> None:
    pair = plain()
    client = pair.client
    for _ in range(10):
        request = s.OpenChannelRequest(client.header(), 0, 1, 1, None, 60_000)
        pair.to_server(client.channel.open_frame(client.channel.request_id(), wire.encode(request)))
    assert pair.server_error is not None and "again and again" in str(pair.server_error)
    assert len(pair.server.channel._tokens) <= 2


def test_a_second_channel_on_a_connection_is_refused() -> None:
    pair = plain()
    client = pair.client
    request = s.OpenChannelRequest(client.header(), 0, 0, 1, None, 60_000)
    pair.to_server(client.channel.open_frame(client.channel.request_id(), wire.encode(request)))
    assert pair.server_error is not None


@pytest.mark.parametrize("change", [2, 0, -1, 1000])
def test_sequence_numbers_go_up_by_one(change: int) -> None:
    pair = plain()
    pair.client.channel._out_sequence += change - 1
    body(pair, s.CloseSessionRequest(pair.client.header(), True))
    assert (pair.server_error is not None) == (change != 1)


def test_sequence_numbers_wrap_where_the_standard_lets_them() -> None:
    channel = ch.Channel(server=True, own=None, judge=lambda _der, _policy: None)  # type: ignore[arg-type,return-value]
    for last, number, good in ((5, 6, True), (4_294_966_272, 1, True), (4_294_966_271, 1, False),
                               (4_294_966_272, 1024, False), (0xFFFFFFFF, 0, True)):  # fmt: skip
        channel._in_sequence = last
        if good:
            channel._in_order(number, False)
        else:
            with pytest.raises(ch.Fault):
                channel._in_order(number, False)


def test_long_paths_many_nodes_and_many_methods_are_too_many() -> None:
    pair = plain()
    found = spied(pair)
    element = s.PathElement(NodeId(0, 33), False, True, QualifiedName(0, "x"))
    value = s.ReadValueId(NodeId(2, 1), 13, None, QualifiedName(0, None))
    call = s.MethodToCall(NodeId(2, 1), NodeId(2, 2), [])
    header = pair.client.header()
    for request in (
        s.TranslateRequest(header, [s.BrowsePath(NodeId(0, 85), [element] * 21)]),
        s.ReadRequest(header, 0.0, 2, [value] * 1001),
        s.CallRequest(header, [call] * 2000),
        s.BrowseRequest(header, s.ViewDescription(NULL_NODE, 0, 0), 0,
                        [s.BrowseDescription(NodeId(0, 85), 0, NULL_NODE, True, 0, 63)] * 101),
    ):  # fmt: skip
        body(pair, request)
        assert status(found) == 0x80100000, type(request)
    assert not pair.asked and pair.server_error is None


def test_old_clocks_other_tokens_and_sessions_that_are_not_activated() -> None:
    pair = plain()
    found = spied(pair)
    good = pair.client.header()
    old = s.RequestHeader(good.token, 1, 5, 0, None, 0, wire.NO_EXTENSION)
    body(pair, s.CloseSessionRequest(old, True))
    assert status(found) == 0x80230000 and len(found[-1].header.strings) == 0, "a bare status"
    for token in (NULL_NODE, NodeId(0, b"\0" * 32, "b"), NodeId(0, 1001)):
        body(pair, s.ReadRequest(s.RequestHeader(token, 0, 5, 0, None, 0, wire.NO_EXTENSION), 0.0, 2, []))
        assert status(found) == 0x80250000
    fresh = Pair(OpcUaServer(facing(trust())), OpcUaClient(facing(trust()), 8))
    fresh.to_server(fresh.client.take_output())
    fresh.run()
    assert established(fresh)


def test_services_that_are_not_offered() -> None:
    pair = plain()
    found = spied(pair)
    for number in (488, 494, 500, 506, 700, 615, 621, 775, 437, 12211, 12208, 9999):
        writer = Writer()
        writer.node(NodeId(0, number))
        raw(pair, writer.made() + header_bytes(pair) + b"anything")
        assert status(found) == 0x800B0000, number
    assert pair.server_error is None


def test_a_channel_that_the_policy_offers_no_longer_ends(keys: dict[str, Path]) -> None:
    pair = secured(keys, "Basic256Sha256")
    pair.server.take_asset(asset("Basic256Sha256"))
    pair.later(1)
    assert not str(pair.server_error or ""), "nothing has changed for it"
    pair.server.take_asset(asset("Aes256_Sha256_RsaPss"))
    assert pair.server.deadline == 1, "it asks to be looked at"
    pair.later(1)
    assert "offers no such channel" in str(pair.server_error)
    plainly = plain()
    plainly.server.take_asset(asset("Basic256Sha256"))
    plainly.later(1)
    assert "offers no such channel" in str(plainly.server_error)


def test_a_connection_that_says_nothing_ends() -> None:
    server = OpcUaServer(facing(trust()))
    server.on_time(NS)
    assert server.deadline == 6 * NS
    server.on_time(6 * NS)
    assert server.take_output()[:3] == b"ERR"
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"HELX",
        b"MSGF\x18\0\0\0" + b"\0" * 16,
        b"ERRF\x08\0\0\0",
    ):
        other = OpcUaServer(facing(trust()))
        pair = Pair(other, OpcUaClient(facing(trust())))
        pair.to_server(data)
        assert pair.server_error is not None, data


# --- hostile servers ------------------------------------------------------------------------------------------------


def test_answers_of_a_server_that_fit_nothing_never_come_through() -> None:
    pair = plain()
    server, client = pair.server, pair.client
    token, data = client.send(m.Read((Item("node", SPEED),)))
    pair.to_server(data)
    pair.asked.clear()
    request = client.channel._request
    # Two values for one node, then an answer to nothing, then rubbish in place of a body.
    server._output.clear()
    server.reply(request, 1, s.ReadResponse, [wire_data(), wire_data()], [])
    pair.run()
    assert [type(event).__name__ for event in pair.heard if getattr(event, "token", 0) == token] == ["BadResponse"]
    server.reply(request + 1000, 1, s.ReadResponse, [wire_data()], [])
    pair.run()
    assert type(pair.heard[-1]).__name__ == "Unmatched"
    assert pair.client_error is None


def test_a_refusal_that_says_that_all_is_well_is_a_refusal_all_the_same() -> None:
    """Found by the fuzzer: the other half would have taken it for an answer that no honest half gives."""
    pair = plain()
    request = m.Read((Item("node", SPEED),))
    _, data = pair.client.send(request)
    pair.to_server(data)
    for status_code in (0, 0x02340000, 0x40000000):
        pair.server.fault(pair.client.channel._request, 1, status_code)
        pair.run()
        answers = [event.response for event in pair.heard if isinstance(event, ResponseReceived)]
        assert answers and all(not PROTOCOLS["opcua"].mismatch(request, one) for one in answers)


def test_news_that_no_record_holds_come_as_a_status() -> None:
    """A server that sends a megabyte for one item ends neither the half nor the watch."""
    pair, _ = subscribed()
    watches = pair.client.watches
    subscription = next(iter(watches.subscriptions.values()))
    handle = next(iter(subscription.items))
    large = Variant(12, ["x" * 60_000] * 10, True)
    many = [Variant(12, "y" * 60_000)] * 16
    watches._changed(subscription, [s.ItemNotification(handle, Data(one)) for one in (large, *many)])
    pair.to_client(b"")
    news = [event.message for event in pair.heard if isinstance(event, NoticeReceived)]
    assert news[0].samples[0] == m.Sample(None, 0x80080000)
    assert sum(len(one.samples) for one in news) == 17
    assert all(len(msgspec.msgpack.encode(one)) < 500_000 for one in news)


def test_a_namespace_without_a_name_of_its_own_names_nothing() -> None:
    uris = ("http://opcfoundation.org/UA/", "urn:x", "", "http://opcfoundation.org/UA/", "urn:x", "urn:y")
    names = Namespaces(uris)
    assert names.name(NodeId(5, 1)) == "nsu=urn:y;i=1" and names.name(NodeId(1, 1)) == "nsu=urn:x;i=1"
    for index in (2, 3, 4, 6):
        with pytest.raises(Unnamed):
            names.name(NodeId(index, 1))


def wire_data() -> Any:
    return Data(Variant(11, 1.0))


def test_namespaces_that_change_in_a_session_end_it_before_anything_is_asked() -> None:
    pair = plain()
    pair.server.names.uris = (*pair.server.names.uris[:2], "urn:other", "urn:plant:line")
    pair.later(6 * NS)
    assert pair.client_error is not None and "numbered its namespaces anew" in str(pair.client_error)


# --- subscriptions --------------------------------------------------------------------------------------------------


def subscribed() -> tuple[Pair, int]:
    pair = plain()
    token, data = pair.client.send(m.Subscribe(Item("node", LEVEL), 100_000, 10))
    pair.to_server(data)
    pair.run()
    assert pair.asked[0][1] == m.Subscribe(Item("node", LEVEL), 100_000, 10)
    standing = pair.asked[0][0]
    pair.answer(m.Subscribed(100_000, 10))
    assert any(isinstance(event, ResponseReceived) and event.token == token for event in pair.heard)
    return pair, standing


def test_a_watch_brings_each_change_in_order() -> None:
    pair, standing = subscribed()
    for value in range(5):
        sample = m.Sample(Float64((float(value),)))
        pair.to_client(pair.server.notice(standing, m.Changed((sample,))))
        pair.later(100_000_000)
    news = [event for event in pair.heard if isinstance(event, NoticeReceived)]
    assert [one.message.samples[0].value for one in news] == [Float64((float(value),)) for value in range(5)]


def test_watches_of_the_same_are_one_item_at_the_server() -> None:
    pair, standing = subscribed()
    pair.to_client(pair.server.notice(standing, m.Changed((m.Sample(Float64((1.0,))),))))
    pair.later(100_000_000)
    pair.heard.clear()
    second, data = pair.client.send(m.Subscribe(Item("node", LEVEL), 100_000, 10))
    pair.to_server(data)
    pair.later(1)
    assert not pair.asked, "the server is asked for nothing more"
    assert [type(event) for event in pair.heard] == [ResponseReceived, NoticeReceived]
    assert pair.heard[1].message.samples[0].value == Float64((1.0,)), "it begins with what there is"
    pair.to_client(pair.server.notice(standing, m.Changed((m.Sample(Float64((2.0,))),))))
    pair.later(100_000_000)
    (news,) = pair.heard[2:]
    assert isinstance(news, NoticeReceived) and news.also == (second,) and news.standing != second, (
        "told once, for both"
    )
    first = news.standing
    pair.to_server(pair.client.give_up(first))
    assert pair.server.open == 0 and pair.client.watches.subscriptions, "the other still wants it"
    pair.to_client(pair.server.notice(standing, m.Changed((m.Sample(Float64((3.0,))),))))
    pair.later(100_000_000)
    assert [(event.standing, event.also) for event in pair.heard[3:] if isinstance(event, NoticeReceived)] == [
        (second, ())
    ]
    pair.to_server(pair.client.give_up(second))
    pair.run()
    assert not pair.client.watches.subscriptions and not pair.server.services.subscriptions.all


def test_many_watches_are_asked_for_in_few_questions() -> None:
    pair = plain()
    for number in range(250):  # far more than may be under way otherwise
        pair.to_server(pair.client.send(m.Subscribe(Item("node", f"{LEVEL}{number}"), 100_000))[1])
    questions = 0
    while pair.asked or pair.client.deadline == 1:
        pair.run()
        questions += 1
        assert len(pair.asked) <= 100
        while pair.asked:
            pair.answer(m.Subscribed(100_000, 1))
    assert len([event for event in pair.heard if isinstance(event, ResponseReceived)]) == 250
    assert questions <= 4


def test_a_watch_that_ends_with_the_asset_is_seen_and_made_again() -> None:
    pair, standing = subscribed()
    pair.to_client(pair.server.over(standing, None))
    pair.later(100_000_000)
    news = [event.message.samples[0].status for event in pair.heard if isinstance(event, NoticeReceived)]
    assert news == [0x80310000], "a gap is a status, not silence"
    pair.later(600_000_000)
    assert [request for _, request in pair.asked] == [m.Subscribe(Item("node", LEVEL), 100_000, 10)]
    standing = pair.asked[0][0]
    pair.answer(m.Subscribed(100_000, 10))
    pair.to_client(pair.server.notice(standing, m.Changed((m.Sample(Float64((7.0,))),))))
    pair.later(200_000_000)
    assert [event for event in pair.heard if isinstance(event, NoticeReceived)][-1].message.samples[0].value == Float64(
        (7.0,)
    )


def test_a_watch_that_policy_ends_is_not_made_again() -> None:
    pair, standing = subscribed()
    pair.to_client(pair.server.over(standing, Deny("c", "c/0", Fault.WINDOW, "")))
    for _ in range(100):
        pair.later(200_000_000)
    assert not pair.asked
    assert [e.message.samples[0].status for e in pair.heard if isinstance(e, NoticeReceived)] == [0x801F0000]


def test_a_client_that_never_asks_for_news_loses_its_subscription() -> None:
    pair = plain()
    found = spied(pair)
    body(pair, s.CreateSubscriptionRequest(pair.client.header(), 50.0, 3, 1, 0, True, 0))
    number = found[-1].subscription
    assert pair.server.services.subscriptions.all[number].lifetime == 3
    for _ in range(6):
        pair.later(50_000_000)
    assert not pair.server.services.subscriptions.all
    body(pair, s.PublishRequest(pair.client.header(), []))
    assert wire.unpack(found[-1].message.data[0]) == s.StatusChange(0x800A0000, 0)


def test_publish_republish_and_their_limits() -> None:
    pair = plain()
    found = spied(pair)
    body(pair, s.PublishRequest(pair.client.header(), []))
    assert status(found) == 0x80790000, "there is no subscription"
    body(pair, s.CreateSubscriptionRequest(pair.client.header(), 100.0, 1000, 10, 0, True, 0))
    number = found[-1].subscription
    for _ in range(11):
        body(pair, s.PublishRequest(pair.client.header(), []))
    assert status(found) == 0x80780000, "ten wait, and the oldest of eleven is told so"
    pair.later(100_000_000)
    keep_alive = [one for one in found if isinstance(one, s.PublishResponse)][-1]
    assert keep_alive.message.data == [] and keep_alive.message.sequence == 1
    body(pair, s.RepublishRequest(pair.client.header(), number, 1))
    assert status(found) == 0x807B0000, "a keep-alive is not kept"
    for _ in range(30):
        body(pair, s.CreateSubscriptionRequest(pair.client.header(), 100.0, 1000, 10, 0, True, 0))
    assert status(found) == 0x80770000
    body(pair, s.DeleteSubscriptionsRequest(pair.client.header(), [number, 999]))
    assert found[-1].results == [0, 0x80280000]


def test_an_end_of_the_server_is_an_end_of_what_stands() -> None:
    pair, _ = subscribed()
    client = pair.client
    number = next(iter(client.watches.subscriptions))
    message = s.NotificationMessage(1, 0, [wire.pack(s.StatusChange(0x800A0000, 0))])
    header = s.ResponseHeader(0, 0, 0, 0, [], wire.NO_EXTENSION)
    client.watches.published(s.PublishResponse(header, number, [], False, message, [], []))
    pair.to_client(b"")
    assert any(isinstance(event, Over) for event in pair.heard)


def test_policies_by_name() -> None:
    assert set(POLICIES) == {"None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}
    assert LocalizedText(None, None) == LocalizedText(None, None)


def test_a_text_with_a_locale_is_a_text_to_policy_and_has_its_type_at_the_server() -> None:
    pair = plain()
    call = m.CallMethod(Item("method", RESET), (Text(("seen",)), Text(("plain",))), (0,))
    PROTOCOLS["opcua"].check(call)
    _, data = pair.client.send(call)
    pair.to_server(data)
    assert [request for _, request in pair.asked] == [call], "there and back"
    for wrong in ((2,), (0, 5)):
        with pytest.raises(CrossingError, match="no text"):
            PROTOCOLS["opcua"].check(msgspec.structs.replace(call, localized=wrong))


def test_passwords_are_kept_by_argon2id_and_those_of_earlier_files_are_known() -> None:
    kept = hash_password("secret words", b"s" * 16)
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    earlier = "scrypt$c3Nzc3Nzc3Nzc3Nzc3Nzcw==$" + base64.b64encode(
        hashlib.scrypt(b"secret words", salt=b"s" * 16, n=1 << 14, r=8, p=1, dklen=32)
    ).decode()  # fmt: skip
    for one in (kept, earlier):
        assert is_password(one, b"secret words")
        assert not is_password(one, b"other words") and not is_password(one, b"\xff")
    assert not is_password("", b"secret words") and not is_password("", b"")
