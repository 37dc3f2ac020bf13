"""Sessions that go on by another connection: whose, how long, and what is left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import moving, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import NodeId
from cofferdam.protocols.opcua.moving import Held, Sessions, Where
from cofferdam.protocols.opcua.trust import Trust, hash_password
from cofferdam.values import Float64
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import trust
from tests.protocols.test_opcua_replay import NO_IDENTITY, NO_SESSION, NO_SIGNATURE, POLICY, Session
from tests.protocols.test_opcua_transfer import NS, Client

ANONYMOUS = wire.pack(s.AnonymousToken("anonymous"))
UNSIGNED = s.SignatureData(None, None)
REJECTED = 0x80210000


def without_session(client: Any) -> Any:
    """A connection of a client whose own session is over."""
    client.ask(s.CloseSessionRequest, True)
    return client


def go_on(client: Any, token: NodeId) -> int:
    """The status by which a session of that token is activated."""
    client.pair.client.token = token
    status: int = client.ask(s.ActivateSessionRequest, UNSIGNED, [], [], ANONYMOUS, UNSIGNED).header.result
    return status


def test_a_session_goes_on_with_its_subscriptions_and_can_be_taken_again() -> None:
    common = trust()
    first = Client(common)
    number = first.subscribe("Speed")
    token, session = first.pair.server.token, first.pair.server.session
    first.pair.server.gone()
    second = without_session(Client(common, now=NS))
    assert go_on(second, token) == 0
    server = second.pair.server
    assert (server.token, server.session) == (token, session) and number in server.services.subscriptions.all
    second.pair.later(10**9)
    [standing] = second.stand()
    second.pair.client.token = token
    found = second.ask(s.PublishRequest, [])
    server.notice(standing, m.Changed((m.Sample(Float64((5.0,))),)))
    second.pair.later(NS)
    found = next(one for one in second.answers if isinstance(one, s.PublishResponse))
    assert found.subscription == number
    third = without_session(Client(common, now=3 * NS))
    assert go_on(third, token) == 0, "its connection is only thought to live"
    assert number in third.pair.server.services.subscriptions.all
    assert not server.activated and server.token != token
    assert go_on(without_session(Client(common, now=4 * NS)), NodeId(0, b"x" * 32, "b")) == NO_SESSION


def test_it_is_the_same_clients_or_nobodys_and_ends_with_its_time() -> None:
    common = trust()
    first = Client(common)
    token = first.pair.server.token
    stranger = without_session(Client(common, source="10.1.0.21", now=NS))
    assert go_on(stranger, token) == NO_SESSION
    first.pair.server.gone()
    assert go_on(stranger, token) == NO_SESSION, "from another address"
    own = Client(common, now=NS)
    assert go_on(own, token) == NO_SESSION, "a connection has one session"
    late = without_session(Client(common, now=3_700 * NS))
    assert go_on(late, token) == NO_SESSION
    closed = Client(common, now=5 * NS)
    token = closed.pair.server.token
    closed.ask(s.CloseSessionRequest, True)
    assert go_on(closed, token) == NO_SESSION, "what was closed is over"
    broken = Client(common, now=6 * NS)
    token = broken.pair.server.token
    broken.pair.to_server(b"JUNKJUNK")
    broken.pair.server.gone()
    assert go_on(without_session(Client(common, now=7 * NS)), token) == NO_SESSION, "it broke the protocol"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make(folder / name, f"urn:{name}") for name in ("ours", "theirs", "others")}


def test_a_secured_session_wants_its_clients_key_and_its_user(keys: dict[str, Path]) -> None:
    common: Trust = trust(keys["ours"], keys["theirs"], keys["others"])
    common.take(msgspec.structs.replace(common.secret, users={"anna": hash_password("secret words", b"s" * 16)}))
    first = Session(keys, common, "anna")
    nonce, token = first.pair.server._nonce, first.pair.server.token
    identity = first.activated[0].identity
    first.pair.server.gone()

    def connected(who: str, seconds: int) -> Session:
        found = Session({"ours": keys["ours"], "theirs": keys[who]}, common, "anna", seconds)
        found.say(s.CloseSessionRequest(found.pair.client.header(), True))
        found.pair.client.token = token
        return found

    def ask(session: Session, signed: bytes, who: Any = identity) -> int:
        client = session.pair.client
        own = client.channel.own
        assert own is not None
        signature = s.SignatureData(POLICY.signature_uri, POLICY.sign(own.key, signed))
        return session.say(s.ActivateSessionRequest(client.header(), signature, [], [], who, UNSIGNED))

    second = connected("theirs", 3)
    certificate = second.pair.client.channel.peer
    assert ask(connected("others", 5), certificate + nonce) == NO_SESSION, "another client's certificate"
    assert ask(second, certificate + b"n" * 32) == NO_SIGNATURE
    assert ask(second, certificate + nonce, ANONYMOUS) == REJECTED, "another user"
    assert ask(second, certificate + nonce) == NO_IDENTITY, "the password was encrypted for another nonce"
    second.pair.later(5 * NS)  # so many passwords are looked at in a second
    data = b"secret words" + nonce
    key = second.pair.client.channel.peer_key
    assert key is not None
    sealed = POLICY.seal(key, len(data).to_bytes(4, "little") + data)
    mine = wire.pack(s.UserNameToken("user", "anna", sealed, POLICY.encryption_uri))
    assert ask(second, certificate + nonce, mine) == 0, "none of that has cost the session"
    assert second.pair.server.user == "anna" and second.pair.server.token == token


def test_what_is_kept_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "KEPT", 5)
    monkeypatch.setattr(moving, "KEPT_OF_ONE", 3)
    held = Sessions()

    def park(number: int, source: str, until: int = 100) -> Where:
        where = Where("filler", source, "", "", 1, ())
        one = Held(NodeId(0, b"%d" % number, "b"), NodeId(1, b"s", "b"), where, None)
        one.until = until
        held.hold(one)
        held.park(one, 1)
        return where

    mine = park(0, "10.1.0.20")
    for number in range(1, 6):
        park(number, "10.1.0.20")
    assert len(held) == 3 and held.find(NodeId(0, b"5", "b"), mine, 1) is not None
    for number in range(6, 10):
        park(number, f"10.1.0.{number}")
    assert len(held) == 5, "the oldest goes"
    assert held.find(NodeId(0, b"3", "b"), mine, 1) is None
    park(11, "10.1.0.20", until=1)
    assert held.find(NodeId(0, b"9", "b"), Where("filler", "10.1.0.9", "", "", 1, ()), 200) is None, "its time is over"
    assert held.find(NodeId(0, 5), mine, 1) is None
