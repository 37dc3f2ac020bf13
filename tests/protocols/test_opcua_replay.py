"""What was good once, and is not any more: signatures and passwords of another session, certificates past their time,
chains that lead nowhere; and what a plant's server may say in answer to something else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from cofferdam.model import Item
from cofferdam.protocols.base import BadResponse, Established, ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Data, NodeId, Variant
from cofferdam.protocols.opcua.channel import Fault
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.moving import Held
from cofferdam.protocols.opcua.security import POLICIES
from cofferdam.protocols.opcua.trust import Trust, hash_password
from cofferdam.values import Float64
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import LEVEL, WALL, Pair, facing, plain, trust

WORD = "Basic256Sha256"
POLICY = POLICIES[WORD]
DAY = 86_400 * 10**9
NO_SESSION, NO_SIGNATURE, NO_IDENTITY = 0x80250000, 0x80580000, 0x80200000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make(folder / name, f"urn:{name}") for name in ("ours", "theirs")}


class Session:
    """A secured session; `activated` is what its client has shown to activate it."""

    def __init__(self, keys: dict[str, Path], common: Trust, user: str = "", seconds: int = 1) -> None:
        self.wall = WALL
        theirs = facing(trust(keys["theirs"], keys["ours"]), WORD)
        if user:
            secret = msgspec.structs.replace(theirs.common.secret, passwords={"filler": "secret words"})
            theirs.common.take(secret)
            security = msgspec.structs.replace(theirs.asset.security, user=user)  # type: ignore[type-var]
            theirs = msgspec.structs.replace(theirs, asset=msgspec.structs.replace(theirs.asset, security=security))
        ours = facing(common, WORD)
        server, client = (
            OpcUaServer(msgspec.structs.replace(ours, wall=lambda: self.wall)),
            OpcUaClient(msgspec.structs.replace(theirs, wall=lambda: self.wall), 8),
        )
        self.activated: list[s.ActivateSessionRequest] = []
        activate = server._activate

        def noted(number: int, request: s.ActivateSessionRequest, moved: Held | None) -> None:
            self.activated.append(request)
            activate(number, request, moved)

        server._activate = noted  # type: ignore[method-assign]
        self.pair = Pair(server, client, now=seconds * 10**9).run()

    @property
    def stands(self) -> bool:
        return any(isinstance(event, Established) for event in self.pair.heard)

    def say(self, request: Any) -> int:
        """The status that a request gets, sent as it is."""
        heard: list[Any] = []
        client = self.pair.client
        client._body = lambda body: heard.append(wire.decode(body.data, request=False))  # type: ignore[method-assign]
        self.pair.to_server(client.channel.send(client.channel.request_id(), wire.encode(request)))
        self.pair.run()
        status: int = heard[-1].header.result
        return status


def test_what_activated_a_session_activates_no_other_and_not_the_same_again(keys: dict[str, Path]) -> None:
    common = trust(keys["ours"], keys["theirs"])
    common.take(msgspec.structs.replace(common.secret, users={"anna": hash_password("secret words", b"s" * 16)}))
    first, second, third = (Session(keys, common, "anna", seconds) for seconds in (1, 3, 5))
    assert first.stands and second.stands and third.stands and first.pair.server.user == "anna"
    [shown], [own] = first.activated, second.activated
    assert second.say(shown) == NO_SESSION, "another session's token"
    assert third.say(msgspec.structs.replace(shown, header=third.pair.client.header())) == NO_SIGNATURE
    assert not third.pair.server.activated, "and the session is over"
    assert first.say(shown) == NO_SIGNATURE, "its own, of a nonce that is used up"
    # Signed for now, and with the password that was encrypted for the session's first nonce.
    server, client = second.pair.server, second.pair.client
    signed = client.channel.own.key if client.channel.own is not None else None
    assert signed is not None
    signature = s.SignatureData(POLICY.signature_uri, POLICY.sign(signed, client.channel.peer + server._nonce))
    again = s.ActivateSessionRequest(client.header(), signature, [], [], own.identity, own.identity_signature)
    assert second.say(again) == NO_IDENTITY


def test_a_certificate_that_ends_in_a_session_is_good_until_the_next_renewal(keys: dict[str, Path]) -> None:
    for jump in (31 * DAY, -61 * DAY):  # or a clock that is set
        session = Session(keys, trust(keys["ours"], keys["theirs"]))
        session.wall += jump
        assert session.stands and session.pair.server_error is None
        for _ in range(8):
            session.pair.later(57 * 10**9)
        assert "not valid at this time" in str(session.pair.server_error)
        assert "80140000" in str(session.pair.client_error)


def _signed(by: rsa.RSAPrivateKey, issuer: str, subject: str, key: rsa.RSAPrivateKey) -> bytes:
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (issuer, subject)]
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        names[0], names[1], key.public_key(), x509.random_serial_number(), now - timedelta(days=1),
        now + timedelta(days=1),
    ).sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.DER)  # fmt: skip


def test_chains_that_lead_nowhere(keys: dict[str, Path]) -> None:
    one, two = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    loop = _signed(two, "b", "a", one), _signed(one, "a", "b", two)
    own = (keys["theirs"] / "own.der").read_bytes()
    chains = {
        "a loop": loop[0] + loop[1], "a loop twice": loop[0] + loop[1] + loop[0], "twice": own + own,
        "four": loop[0] + loop[1] + own + _signed(one, "c", "d", two), "cut": own[:-1], "spare": own + b"\0",
        "none": b"", "no certificate": b"\x30\x82\x00\x01\x00", "huge": own + b"\x30" * 20_000,
    }  # fmt: skip
    common = trust(keys["ours"], keys["theirs"])
    for word, chain in chains.items():
        with pytest.raises(Fault) as fault:
            common.judge(chain, POLICY, WALL)
        assert fault.value.status == 0x80130000, word
    common.judge(own, POLICY, WALL)


ANSWERS: dict[str, Any] = {
    "of another kind": lambda header: s.WriteResponse(header, [0], []),
    "too few": lambda header: s.ReadResponse(header, [], []),
    "too many": lambda header: s.ReadResponse(header, [Data(Variant(11, 1.0))] * 2, []),
    "a request": lambda _header: s.ReadRequest(plain().client.header(), 0.0, 2, []),
    "deep": lambda _header: wire.encode(s.ReadResponse(_header, [], []))[:-8] + b"\1\0\0\0\1" + b"\x18\1" * 50,
    "cut": lambda header: wire.encode(s.ReadResponse(header, [Data(Variant(11, 1.0))], []))[:-3],
    "spare": lambda header: wire.encode(s.ReadResponse(header, [Data(Variant(11, 1.0))], [])) + b"\0",
    "text that is none": lambda header: wire.encode(s.ReadResponse(header, [Data(Variant(12, "\xe9"))], [])).replace(
        "\xe9".encode(), b"\xff\xfe"
    ),
}  # fmt: skip


@pytest.mark.parametrize("word", ANSWERS)
def test_an_answer_of_the_plant_that_is_broken_is_told_and_the_next_is_taken(word: str) -> None:
    pair = plain()
    header = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
    made = ANSWERS[word](header)
    body = made if isinstance(made, bytes) else wire.encode(made)
    token, data = pair.client.send(m.Read((Item("node", LEVEL),)))
    pair.to_server(data)
    pair.asked.clear()
    pair.to_client(pair.server.channel.send(pair.client.channel._request, body))
    assert [type(one) for one in pair.heard if getattr(one, "token", 0) == token] == [BadResponse]
    again, data = pair.client.send(m.Read((Item("node", LEVEL),)))
    pair.to_server(data)
    pair.answer(m.Values((m.Sample(Float64((1.0,))),)))
    assert any(isinstance(one, ResponseReceived) and one.token == again for one in pair.heard)


def test_a_node_of_a_namespace_that_nobody_knows_is_no_value() -> None:
    pair = plain()
    header = s.ResponseHeader(0, 1, 0, 0, [], wire.NO_EXTENSION)
    token, _ = pair.client.send(m.Read((Item("node", LEVEL),)))
    body = wire.encode(s.ReadResponse(header, [Data(Variant(17, NodeId(9, 5)))], []))
    pair.to_client(pair.server.channel.send(pair.client.channel._request, body))
    [told] = [one for one in pair.heard if isinstance(one, ResponseReceived) and one.token == token]
    assert told.response == m.Values((m.Sample(None, 0x803A0000),))
