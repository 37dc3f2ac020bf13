"""Attacks on OPC UA servers and clients that have worked on others: each gets the answer that it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.model import Item
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.opcua import channel as ch
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Data, NodeId, Variant
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.security import POLICIES
from cofferdam.values import Float64
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import LEVEL, SPEED, WALL, Pair, facing, plain, trust
from tests.protocols.test_opcua_machine import body, spied, status

NS = 1_000_000_000
DAY = 86_400 * NS
WORD = "Basic256Sha256"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make(folder / name, f"urn:{name}") for name in ("ours", "theirs", "third", "anna")}


def secured(keys: dict[str, Path], clock: list[int] | None = None, user: Path | None = None) -> Pair:
    """A secured pair, whose clock shows `clock`."""
    now = [WALL] if clock is None else clock
    ours = trust(keys["ours"], keys["theirs"])
    if user is not None:
        ours.take(msgspec.structs.replace(ours.secret, user_certificates={"anna": (user / "own.der").read_bytes()}))
    ends = [
        msgspec.structs.replace(facing(common, WORD), wall=lambda: now[0])
        for common in (ours, trust(keys["theirs"], keys["ours"]))
    ]
    return Pair(OpcUaServer(ends[0]), OpcUaClient(ends[1], 8)).run()


# --- certificates -----------------------------------------------------------------------------------------------------


def test_chains_that_are_long_or_go_round_are_refused(keys: dict[str, Path]) -> None:
    ours = trust(keys["ours"], keys["theirs"])
    a, b, c, d = ((keys[name] / "own.der").read_bytes() for name in ("theirs", "third", "anna", "ours"))
    ours.judge(a, POLICIES[WORD], WALL)
    ours.judge(a + b + c, POLICIES[WORD], WALL)
    for chain in (a + b + a, a + a, a + b + c + d, a + b[:-1], a + b"\x30\x82", b"", b"\x30\x82\xff\xff", a * 50):
        with pytest.raises(ch.Fault) as caught:
            ours.judge(chain, POLICIES[WORD], WALL)
        assert caught.value.status == 0x80130000, "whatever is wrong with it, it is told the same"


def test_a_certificate_that_ends_in_a_session_ends_it_at_the_next_renewal(keys: dict[str, Path]) -> None:
    clock = [WALL]
    pair = secured(keys, clock)
    assert pair.server.activated
    clock[0] += 31 * DAY
    pair.later(2 * NS)
    assert pair.server_error is None, "nobody looks between renewals"
    pair.now = pair.client.channel.renew_at
    pair.later(1)
    said = str(pair.client_error or "") + str(pair.server_error or "")
    assert "not valid at this time" in said or "80140000" in said


def test_a_clock_that_jumps_ends_no_session(keys: dict[str, Path]) -> None:
    """Deadlines are of the clock that nobody sets; a request's own time is compared with the one that was set."""
    clock = [WALL]
    pair = secured(keys, clock)
    for jump in (-DAY, 2 * DAY):
        clock[0] += jump
        pair.later(NS)
        pair.to_server(pair.client.send(m.Read((Item("node", SPEED),)))[1])
        pair.answer(m.Values((m.Sample(Float64((1.0,))),)))
    assert pair.server_error is None and pair.client_error is None
    assert len([event for event in pair.heard if isinstance(event, ResponseReceived)]) == 2


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_signature_is_good_for_one_activation(keys: dict[str, Path]) -> None:
    pair = secured(keys)
    own, policy = trust(keys["theirs"]).own, POLICIES[WORD]
    assert own is not None
    signed = policy.sign(own.key, (keys["ours"] / "own.der").read_bytes() + pair.server._nonce)
    signature = s.SignatureData(policy.signature_uri, signed)
    nobody = wire.pack(s.AnonymousToken("anonymous"))
    for refused in ([], ["the client has not signed for its session"]):  # each activation has another nonce
        body(
            pair, s.ActivateSessionRequest(pair.client.header(), signature, [], [], nobody, s.SignatureData(None, None))
        )
        assert pair.refused == refused
    assert not pair.server.activated


def test_a_users_certificate_is_of_use_to_who_has_its_key_and_in_one_session(keys: dict[str, Path]) -> None:
    pair = secured(keys, user=keys["anna"])
    ours, policy = (keys["ours"] / "own.der").read_bytes(), POLICIES[WORD]
    certificate = (keys["anna"] / "own.der").read_bytes()
    key = trust(keys["anna"]).own.key  # type: ignore[union-attr]

    def activate(signed: bytes, algorithm: str, user_key: Any = key, shown: bytes = certificate) -> str:
        own = trust(keys["theirs"]).own
        assert own is not None
        channel = s.SignatureData(policy.signature_uri, policy.sign(own.key, ours + pair.server._nonce))
        identity = wire.pack(s.CertificateToken("certificate", shown))
        user = s.SignatureData(algorithm, policy.sign(user_key, signed))
        pair.refused.clear()
        body(pair, s.ActivateSessionRequest(pair.client.header(), channel, [], [], identity, user))
        return "".join(pair.refused)

    pair.server.activated = False  # as before its first activation: a session keeps its user
    good = ours + pair.server._nonce
    unsigned, nobodys = "has not signed with it", "nobody may log in"
    assert unsigned in activate(ours + bytes(32), policy.signature_uri), "a nonce of another session"
    assert unsigned in activate(good, POLICIES["Aes256_Sha256_RsaPss"].signature_uri)
    theirs = trust(keys["theirs"]).own
    assert theirs is not None and unsigned in activate(good, policy.signature_uri, theirs.key), "another's key"
    assert nobodys in activate(good, policy.signature_uri, key, (keys["third"] / "own.der").read_bytes())
    assert nobodys in activate(good, policy.signature_uri, key, b"\x30\x82")
    server: Any = pair.server
    assert not server.activated
    assert activate(ours + pair.server._nonce, policy.signature_uri) == "" and server.activated
    assert pair.server.user == "anna"
    common: Any = pair.server.trust
    common.take(msgspec.structs.replace(common.secret, user_certificates={}))
    pair.later(1)
    assert "not good any more" in str(pair.server_error)


def test_what_was_asked_in_a_session_that_is_closed_is_answered_as_that() -> None:
    pair = plain()
    pair.to_server(pair.client.send(m.Read((Item("node", SPEED),)))[1])
    [(token, _)] = pair.asked
    found = spied(pair)
    body(pair, s.CloseSessionRequest(pair.client.header(), True))
    pair.to_client(pair.server.send(token, m.Values((m.Sample(Float64((1.0,))),))))
    assert status(found) == 0x80260000


def test_subscriptions_are_few_and_those_that_nobody_asks_end() -> None:
    pair = plain()
    found = spied(pair)
    ask = s.CreateSubscriptionRequest(pair.client.header(), 50.0, 3, 1, 0, True, 0)
    for _ in range(20):
        body(pair, ask)
        assert status(found) == 0
    body(pair, ask)
    assert status(found) == 0x80770000
    for _ in range(100):
        pair.later(60_000_000)
    assert not pair.server.services.subscriptions.all


def test_what_no_policy_names_is_not_called() -> None:
    """Disable of a condition, and RequestServerStateChange: methods of every server."""
    pair = plain(may=lambda operation: not operation.is_write)
    found = spied(pair)
    for owner, own in ((NodeId(0, 2782), NodeId(0, 9028)), (NodeId(0, 2253), NodeId(0, 12886))):
        body(pair, s.CallRequest(pair.client.header(), [s.MethodToCall(owner, own, [])]))
        [(token, request)] = pair.asked
        assert isinstance(request, m.CallMethod), "it is judged like every call, and refused by the policy"
        pair.asked.clear()
        pair.to_client(pair.server.send(token, m.Refused(0x801F0000)))
        assert found[-1].results[0].status & 0x80000000


# --- hostile servers --------------------------------------------------------------------------------------------------


def asked(pair: Pair) -> int:
    pair.to_server(pair.client.send(m.Read((Item("node", SPEED),)))[1])
    pair.asked.clear()
    return pair.client.channel._request


def test_a_servers_endless_answer_ends_the_connection() -> None:
    pair = plain()
    number = asked(pair)
    header = ch._HEAD.pack(b"MSG", b"C", 24 + 60_000)
    for _ in range(30):
        server = pair.server.channel
        server._out_sequence += 1
        frame = header + ch._TWO.pack(server.id, server._tokens[-1].id) + ch._TWO.pack(server._out_sequence, number)
        pair.to_client(frame + bytes(60_000))
        if pair.client_error is not None:
            break
    assert "more than" in str(pair.client_error)
    assert pair.client.buffered < 2 << 20


def test_a_servers_deep_or_strange_answer_is_none() -> None:
    deep: Any = Variant(6, 1)
    for _ in range(15):
        deep = Variant(24, [deep], True)
    strange = Variant(17, NodeId(77, "x", "s"))  # a node in a namespace that the server has not told
    for value, expected in ((deep, "BadResponse"), (strange, "ResponseReceived")):
        pair = plain()
        number = asked(pair)
        pair.server.reply(number, 1, s.ReadResponse, [Data(value)], [])
        pair.run()
        assert [type(event).__name__ for event in pair.heard][-1] == expected
        assert pair.client_error is None, "the connection goes on"
        if expected == "ResponseReceived":
            assert pair.heard[-1].response == m.Values((m.Sample(None, 0x803A0000),))


def test_a_servers_answer_about_fewer_items_than_were_asked_for_is_none() -> None:
    pair = plain()
    for name in ("", "2"):
        pair.to_server(pair.client.send(m.Subscribe(Item("node", LEVEL + name), 100_000))[1])
    pair.run()
    [token, _] = [token for token, _ in pair.asked]
    pair.server.reply(pair.client.channel._request, 1, s.CreateItemsResponse,
                      [s.ItemCreated(0, 1, 100.0, 1, wire.NO_EXTENSION)], [])  # fmt: skip
    pair.run()
    assert [type(event).__name__ for event in pair.heard[-2:]] == ["BadResponse", "BadResponse"]
    assert token and pair.client_error is None
