"""What one client can have the side towards clients do and keep: work of our key, looks at passwords, items, values."""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from cofferdam.errors import RemoteProtocolError
from cofferdam.model import Item, Security
from cofferdam.protocols.base import Established, ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.budget import Budget
from cofferdam.protocols.opcua.builtin_types import NULL_NODE, LocalizedText, NodeId
from cofferdam.protocols.opcua.client_work import NO_QUALIFIED, _identity
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.security import NONE, POLICIES, SecurityError
from cofferdam.protocols.opcua.subscriptions import QUEUED_BYTES
from cofferdam.protocols.opcua.trust import Secret, Trust, mark
from cofferdam.values import Float64, Text
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import LEVEL, Pair, asset, facing, plain, trust
from tests.protocols.test_opcua_machine import body, spied

NS = 1_000_000_000
WORD = "Basic256Sha256"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make(folder / name, f"urn:{name}") for name in ("ours", "theirs")}


def connect(common: Trust, keys: dict[str, Path], source: str) -> Pair:
    """A client at this source, and the side of ours that all clients share."""
    server = OpcUaServer(msgspec.structs.replace(facing(common, WORD), source=source))
    return Pair(server, OpcUaClient(facing(trust(keys["theirs"], keys["ours"]), WORD), 8)).run()


def test_a_source_that_opens_channel_after_channel_leaves_the_others_theirs(keys: dict[str, Path]) -> None:
    common = trust(keys["ours"], keys["theirs"])
    made = [connect(common, keys, "10.1.0.66") for _ in range(32)]
    assert sum(pair.server_error is None for pair in made) == 30, "OPN and CreateSession are one use of the key each"
    assert "from this source" in str(made[-1].server_error)
    fair = connect(common, keys, "10.1.0.20")
    assert fair.server_error is None and any(isinstance(event, Established) for event in fair.heard)


def test_sessions_begun_again_and_again_on_one_channel_are_too_many(keys: dict[str, Path]) -> None:
    common = trust(keys["ours"], keys["theirs"])
    pair = connect(common, keys, "10.1.0.66")
    signs = 0
    work = common.may_work

    def count(source: str, now: int) -> bool:
        nonlocal signs
        may = work(source, now)
        signs += may
        return may

    common.may_work = count  # type: ignore[method-assign]
    client = pair.client
    own = client.channel.own
    assert own is not None
    description = s.ApplicationDescription("urn:theirs", None, LocalizedText(None, "x"), 1, None, None, [])
    for _ in range(90):
        body(pair, s.CloseSessionRequest(client.header(), True))
        body(
            pair,
            s.CreateSessionRequest(
                client.header(), description, None, client.url, "x", b"n" * 32, own.certificate,
                10_000.0, 0,
            ),
        )  # fmt: skip
        client.token = pair.server.token
    assert 10 < signs <= 60


def test_what_is_sealed_in_many_blocks_is_not_opened(keys: dict[str, Path]) -> None:
    own = trust(keys["ours"]).own
    assert own is not None
    policy = POLICIES[WORD]
    room = policy.room(own.key.key_size)
    assert policy.unseal(own.key, policy.seal(own.key.public_key(), bytes(8 * room))) == bytes(8 * room)
    with pytest.raises(SecurityError):
        policy.unseal(own.key, policy.seal(own.key.public_key(), bytes(9 * room)))


def test_passwords_tried_by_one_source_leave_the_others_their_tries() -> None:
    common = trust()
    tries = [common.login("anna", b"x", "10.1.0.66", NS) for _ in range(5)]
    assert tries == [False, False, None, None, None]
    assert common.login("anna", b"x", "10.1.0.20", NS) is False
    assert common.login("anna", b"x", "10.1.0.66", 2 * NS) is False


def test_a_budget_is_for_each_source_and_for_all() -> None:
    budget = Budget(2, 5)
    assert [budget.spend("a", 0) for _ in range(4)] == [True, True, False, False]
    assert [budget.spend("b", 0) for _ in range(2)] == [True, True]
    assert [budget.spend(one, 0) for one in "cde"] == [True, False, False], "all together"
    assert [budget.spend("a", NS) for _ in range(3)] == [True, True, False]
    one = Budget(1, 100)
    assert [one.spend(f"fd00::{number}", 0) for number in range(3)] == [True, False, False], "a network is a source"


def test_a_password_is_sent_where_it_is_encrypted() -> None:
    """A server that wants it in the clear gets it on an encrypted channel, and on none that is signed alone."""
    secret = msgspec.json.encode(Secret(passwords={"filler": "secret words"}))
    policy = POLICIES[WORD]
    token = s.UserTokenPolicy("u", 1, None, None, NONE.uri)
    for mode, sent in ((2, False), (3, True)):
        endpoint = SimpleNamespace(policy=policy.uri, mode=mode, tokens=[token])
        client = SimpleNamespace(
            asset=msgspec.structs.replace(asset(WORD), security=Security((WORD,), WORD, user="gate")),
            channel=SimpleNamespace(policy=policy, mode=mode),
            facing=SimpleNamespace(common=Trust({"opcua": secret})),
        )
        answer = SimpleNamespace(endpoints=[endpoint], certificate=b"")
        if sent:
            assert b"secret words" in (_identity(client, answer, b"n" * 32)[0].body or b"")
        else:
            with pytest.raises(RemoteProtocolError, match="in the clear"):
                _identity(client, answer, b"n" * 32)


def test_who_connects_anew_to_browse_has_the_asset_asked_once() -> None:
    common = trust()
    for number in range(3):
        pair = Pair(OpcUaServer(facing(common)), OpcUaClient(facing(common), 8)).run()
        found = spied(pair)
        view = s.ViewDescription(NULL_NODE, 0, 0)
        asked = [s.BrowseDescription(NodeId(0, 85), 0, NodeId(0, 33), True, 0, 63)]
        body(pair, s.BrowseRequest(pair.client.header(), view, 0, asked))
        assert [type(request) for _, request in pair.asked] == ([m.Survey] if not number else [])
        if not number:
            line = m.Node(LEVEL, 2, ("", "Level"), m.Localized("", "Level"), parents=((-1, "i=35"),))
            pair.answer(m.Described((line,)))
        [result] = found[-1].results
        assert "Level" in [one.name.name for one in result.references], "each is told"


def steps_of_ending(count: int) -> int:
    """How many steps of the interpreter it takes to give up so many watches of one item."""
    pair = plain()
    tokens = []
    for _ in range(count):
        token, data = pair.client.send(m.Subscribe(Item("node", LEVEL), 100_000))
        tokens.append(token)
        pair.to_server(data)
    pair.run()
    pair.answer(m.Subscribed(100_000, 1))
    stand = [event.token for event in pair.heard if isinstance(event, ResponseReceived)]
    assert stand == tokens, "they stand by one item"
    steps = 0

    def count_steps(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count_steps

    before = sys.gettrace()
    sys.settrace(count_steps)
    try:
        for token in tokens:
            pair.client.give_up(token)
    finally:
        sys.settrace(before)
    assert not pair.client.watches.subscriptions, "the server was told with the last one"
    return steps


def test_ending_many_watches_of_one_item_takes_as_many_steps_for_each_as_of_few() -> None:
    few, many = steps_of_ending(100), steps_of_ending(400)
    assert few > 100 and many < 4 * few, (few, many)


# --- items and values -----------------------------------------------------------------------------------------------


def subscription(pair: Pair, found: list[Any]) -> int:
    body(pair, s.CreateSubscriptionRequest(pair.client.header(), 50.0, 30_000, 10_000, 0, True, 0))
    return int(found[-1].subscription)


def items(pair: Pair, number: int, node: NodeId, count: int, queue: int = 100) -> None:
    wanted = [
        s.ItemToCreate(s.ReadValueId(node, 13, None, NO_QUALIFIED), 2,
                       s.MonitoringParameters(handle, 50.0, wire.NO_EXTENSION, queue, True))
        for handle in range(count)
    ]  # fmt: skip
    body(pair, s.CreateItemsRequest(pair.client.header(), number, 2, wanted))


def test_items_on_our_own_nodes_are_few() -> None:
    """They cross to nobody who would count them, and each is looked at twenty times a second."""
    pair = plain()
    found = spied(pair)
    made = number = 0
    for _ in range(3):
        number = subscription(pair, found)
        items(pair, number, NodeId(0, 2258), 1000)
        made += sum(one.status == 0 for one in found[-1].results)
        assert {one.status for one in found[-1].results} <= {0, 0x80DB0000}
    assert made == 100
    body(pair, s.DeleteSubscriptionsRequest(pair.client.header(), [number - 2]))
    items(pair, number, NodeId(0, 2258), 1000)
    assert sum(one.status == 0 for one in found[-1].results) == 100, "what is deleted makes room"


def watching(queue: int = 100) -> tuple[Pair, list[Any], int, int]:
    """A subscription with one item at the asset: with its number and its token."""
    pair = plain()
    found = spied(pair)
    number = subscription(pair, found)
    items(pair, number, NodeId(2, "Line1.Level", "s"), 1, queue)
    token = pair.asked[0][0]
    pair.answer(m.Subscribed(50_000, 100))
    return pair, found, number, token


def large(number: int) -> m.Changed:
    return m.Changed((m.Sample(Text((f"{number:06d}" + "x" * 60_000,))),))


def test_values_that_nobody_fetches_are_kept_up_to_a_limit() -> None:
    pair, _, number, token = watching()
    for count in range(150):
        pair.server.notice(token, large(count))
    kept = pair.server.services.subscriptions
    assert kept._store.size <= QUEUED_BYTES + 200 * 40
    [item] = kept.all[number].items.values()
    assert len(item.queue) == 100
    assert {data.status & 0xFFFF0000 for data, _ in item.queue} == {0, 0x80040000}, "told in place of a value"
    body(pair, s.DeleteSubscriptionsRequest(pair.client.header(), [number]))
    assert kept._store.size == 0


def test_an_item_without_values_takes_little_memory() -> None:
    """A client may have 1,000 of them, and there may be 100 clients."""
    pair = plain()
    number = subscription(pair, spied(pair))
    kept = pair.server.services.subscriptions
    tracemalloc.start()
    try:
        made = [kept.add(kept.all[number], handle, 1, True) for handle in range(1000)]
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert None not in made and size < 1000 * 600, size


def test_large_values_come_in_several_notifications_and_none_is_lost() -> None:
    pair, _, _, token = watching()
    for count in range(40):
        pair.server.notice(token, large(count))
    pair.server.notice(token, m.Changed((m.Sample(Float64((1.0,))),)))
    told: list[Any] = []
    reply = pair.server.reply

    def keep(request: int, handle: int, kind: type, *fields: Any) -> None:
        told.append((kind, fields))
        reply(request, handle, kind, *fields)

    pair.server.reply = keep  # type: ignore[method-assign]
    pair.to_client = told.append  # type: ignore[method-assign, assignment]
    for _ in range(8):
        body(pair, s.PublishRequest(pair.client.header(), []))
        pair.later(50_000_000)
    assert not pair.client_error
    messages = [one[1][3] for one in told if isinstance(one, tuple) and one[0] is s.PublishResponse]
    changes = [wire.unpack(data) for message in messages for data in message.data]
    values = [one.value.value.value for change in changes for one in change.items]
    assert [one[:6] for one in values[:40]] == [f"{number:06d}" for number in range(40)] and values[40:] == [1.0]
    assert len([message for message in messages if message.data]) >= 4


def test_notifications_that_nobody_acknowledges_are_kept_up_to_a_limit() -> None:
    pair, _, number, token = watching()
    for count in range(60):
        pair.server.notice(token, large(count))
        body(pair, s.PublishRequest(pair.client.header(), []))
        pair.later(50_000_000)
    kept = pair.server.services.subscriptions.all[number]
    assert sum(len(one.body or b"") for message in kept.sent.values() for one in message.data) <= 330_000


def test_certificates_that_end_soon_are_told(tmp_path: Path) -> None:
    soon = make(tmp_path / "soon", "urn:soon", days=20)
    good = [make(tmp_path / name, f"urn:{name}", days=60) for name in ("ours", "theirs")]
    common = trust(*good, soon)
    told = common.alarms(time.time_ns())
    name = mark((soon / "own.der").read_bytes())
    assert list(told) == [f"opcua-certificate-{name[:12]}"]
    [words] = told.values()
    assert name in words and "is good until" in words and "owner" in words
    assert "was good until" in common.alarms(time.time_ns() + 30 * 86_400 * NS)[f"opcua-certificate-{name[:12]}"]
    mine = trust(soon).alarms(time.time_ns())
    assert "our own" in next(iter(mine.values())) and not trust().alarms(time.time_ns())
