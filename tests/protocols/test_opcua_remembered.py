"""A read that is remembered is what a decoder would make of it, and nothing else is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.model import Item
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import remembered, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import LocalizedText, Malformed, NodeId, QualifiedName
from cofferdam.protocols.opcua.remembered import Heard
from cofferdam.values import Float64
from tests.protocols.opcua.pair import Pair, asset, plain, samples

TOKENS = st.sampled_from(
    [NodeId(0, b"t" * 32, "b"), NodeId(0, b"u" * 32, "b"), NodeId(0, b"t" * 31, "b"), NodeId(0, 5)]
)
TIMES = st.sampled_from([0, 1, -1, 1 << 62, 133_000_000_000_000_000])
HANDLES = st.integers(0, (1 << 32) - 1)


def read(token: NodeId, time: int, handle: int, names: list[str], audit: str | None = None) -> bytes:
    header = s.RequestHeader(token, time, handle, 0, audit, 10_000, wire.NO_EXTENSION)
    nodes = [s.ReadValueId(NodeId(2, name, "s"), 13, None, QualifiedName(0, None)) for name in names]
    return wire.encode(s.ReadRequest(header, 0.0, 2, nodes))


def meant(decode: object, data: bytes) -> object:
    try:
        return decode(data)  # type: ignore[operator]
    except Malformed as error:
        return str(error)


def plainly(data: bytes) -> object:
    return wire.decode(data, request=True)


@given(st.lists(st.builds(read, TOKENS, TIMES, HANDLES, st.lists(st.sampled_from(["a", "b"]), max_size=2),
                          st.sampled_from([None, "x"])), min_size=1, max_size=30))  # fmt: skip
def test_whatever_was_heard_before_a_request_means_the_same(said: list[bytes]) -> None:
    heard = Heard()
    for data in said:
        assert heard.decode(data) == plainly(data)


@given(st.integers(0, 200), st.integers(1, 255), st.booleans())
def test_a_byte_that_differs_is_another_request(at: int, change: int, cut: bool) -> None:
    heard = Heard()
    data = read(NodeId(0, b"t" * 32, "b"), 7, 9, ["Line1.Level"])
    heard.decode(data)
    at %= len(data)
    other = data[:at] if cut else data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    assert meant(heard.decode, other) == meant(plainly, other)


def test_few_and_short_ones_are_remembered() -> None:
    heard = Heard()
    for number in range(100):
        heard.decode(read(NodeId(0, b"t" * 32, "b"), 0, 0, [str(number)]))
    assert 0 < len(heard._known) <= remembered.MOST
    before = len(heard._known)
    heard.decode(read(NodeId(0, b"t" * 32, "b"), 0, 0, ["x" * 3000] * 3))
    heard.decode(read(NodeId(0, 5), 0, 0, ["x"]))
    assert len(heard._known) == before
    for number in range(20):
        heard.decode(read(NodeId(0, b"t" * 32, "b"), 0, 0, [str(number) * 900]))
        assert heard._size == sum(map(len, heard._known)) <= remembered.MOST_BYTES
        assert heard._by_nodes.keys() == {id(one.request(0, 0).nodes) for one in heard._known.values()}, (
            "nothing outlives its request"
        )


# --- what is made of a read, on both sides ----------------------------------------------------------------------------

LEVEL, SPEED = "nsu=urn:plant:line;s=Line1.Level", "nsu=urn:plant:line;s=Line1.Speed"
NOBODY = QualifiedName(0, None)
POLICIES = [(LEVEL, SPEED), (LEVEL,), (SPEED,), ()]
NODES = st.sampled_from(
    [(NodeId(2, "Line1.Level", "s"), 13, None), (NodeId(2, "Line1.Speed", "s"), 13, None),
     (NodeId(2, "Line1.Speed", "s"), 13, "0:1"), (NodeId(2, "Line1.Speed", "s"), 13, "1:0"),
     (NodeId(7, 1), 13, None), (NodeId(0, 2259), 13, None), (NodeId(2, "Line1.Speed", "s"), 3, None)]
)  # fmt: skip
READS = st.lists(NODES, min_size=1, max_size=4)
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from((0, 1, 2, 3, 3)), st.integers(0, 3),
              st.sampled_from((0, 0, 0, 0x801F0000, 0x80310000))), min_size=2, max_size=14,
)  # fmt: skip


class Ear:
    """A client that reads what it likes, and a server that is allowed what the story says."""

    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self.allowed: tuple[str, ...] = ()
        self.pair = plain(may=lambda op: all(one.name in self.allowed for one in op.reads))

    def step(self, nodes: list[Any], stamps: int, allowed: tuple[str, ...], status: int) -> Any:
        self.allowed = allowed
        if self.forgets:
            self.pair.server.heard = Heard()
        heard: list[Any] = []
        question = s.ReadRequest(
            self.pair.client.header(),
            0.0,
            stamps,
            [s.ReadValueId(node, what, part, NOBODY) for node, what, part in nodes],
        )

        def ask() -> Any:
            heard.append((yield question))

        self.pair.client.start(0, ask())
        self.pair.run()
        asked = []
        while self.pair.asked:
            request = self.pair.asked[0][1]
            asked.append(request)
            if isinstance(request, m.Read):
                good = all(one.name in allowed for one in request.items)
                samples = tuple(m.Sample(Float64((float(len(one.name)),)), 0, 5, 6) for one in request.items)
                self.pair.answer(m.Refused(status or 0x801F0000) if status or not good else m.Values(samples))
            else:
                self.pair.answer(m.Described(()))
            self.pair.to_server(b"")  # an answer may have it ask more
            self.pair.run()
        (answer,) = heard
        results = [
            (one.value, one.status, one.source_time, one.server_time if one.server_time < 100 else 0)
            for one in getattr(answer, "results", ())
        ]
        return asked, type(answer), answer.header.result, results


@given(st.lists(READS, min_size=3, max_size=3), STEPS)
def test_a_server_that_remembers_asks_and_answers_as_one_that_forgets(reads: list[Any], steps: list[Any]) -> None:
    """Whatever policy allows meanwhile, and whatever the asset says."""
    first, second = Ear(False), Ear(True)
    for which, stamps, policy, status in steps:
        assert first.step(reads[which], stamps, POLICIES[policy], status) == second.step(
            reads[which], stamps, POLICIES[policy], status
        )


def test_a_read_that_is_asked_again_is_the_same_object_and_is_judged_each_time() -> None:
    ear = Ear(False)
    nodes = [(NodeId(2, "Line1.Level", "s"), 13, None), (NodeId(2, "Line1.Speed", "s"), 13, None)]
    asked = [ear.step(nodes, 2, POLICIES[0], 0)[0][0] for _ in range(4)]
    assert asked[2] is asked[3], "what it means is not made again"
    requests, _, _, results = ear.step(nodes, 2, POLICIES[1], 0x801F0000)
    assert [one.items for one in requests][-2:] == [(Item("node", LEVEL),), (Item("node", SPEED),)], "taken apart anew"
    assert all(status & 0x80000000 for _, status, _, _ in results)


def say(pair: Pair, token: NodeId, time: int = 0) -> str:
    """Asks for the level by this session's token; what comes of it."""
    client = pair.client
    node = s.ReadValueId(client.namespaces.node(LEVEL), 13, None, NOBODY)
    header = s.RequestHeader(token, time, 7, 0, None, 10_000, wire.NO_EXTENSION)
    body = wire.encode(s.ReadRequest(header, 0.0, 2, [node]))
    pair.refused.clear()
    pair.to_server(client.channel.send(client.channel.request_id(), body))
    if not pair.asked:
        return "".join(pair.refused) or str(pair.server_error)
    pair.answer(m.Values((m.Sample(Float64((1.0,))),)))
    return "asked"


def known_read() -> tuple[Pair, NodeId]:
    """A pair whose server knows a read of the level, and the token by which it was asked."""
    pair = plain()
    token = pair.client.token
    assert [say(pair, token) for _ in range(3)] == ["asked"] * 3
    return pair, token


def test_a_read_that_is_known_is_held_to_the_clock_and_to_what_the_policy_offers() -> None:
    pair, token = known_read()
    assert "time stamp" in say(pair, token, 1)
    assert say(pair, token) == "asked"
    found = asset("Basic256Sha256")
    pair.server.take_asset(found)
    assert "offers no such channel" in say(pair, token) and not pair.asked


def test_a_read_that_is_known_is_none_of_the_next_session() -> None:
    """By the very bytes that were known in the one before."""
    pair, token = known_read()
    client = pair.client

    def anew() -> Any:
        yield s.CloseSessionRequest(client.header(), True)
        own = s.ApplicationDescription("urn:us", None, LocalizedText(None, None), 1, None, None, [])
        made = yield s.CreateSessionRequest(client.header(), own, None, client.url, "x", b"n" * 32, None, 60_000.0, 0)
        client.token = made.token
        none = s.SignatureData(None, None)
        identity = wire.pack(s.AnonymousToken("anonymous"))
        yield s.ActivateSessionRequest(client.header(), none, [], [], identity, none)

    client.start(0, anew())
    pair.run()
    assert pair.server.activated and client.token != token
    assert "no such session" in say(pair, token)
    assert say(pair, client.token) == "asked"


def test_a_client_that_has_written_a_read_before_writes_it_the_same() -> None:
    """What goes to the asset differs in the header alone; a request that is equal, and another object, is as good."""
    pair = plain()
    item = Item("node", LEVEL)
    request = m.Read((item, Item("node", SPEED)))
    said = []
    for one in (request, request, m.Read((item, Item("node", SPEED))), request, m.Read((item,)), request):
        _, data = pair.client.send(one)
        pair.to_server(data)
        assert pair.asked[0][1] == one
        said.append(len(data))
        pair.answer(m.Values(tuple(m.Sample(Float64((float(place),))) for place, _ in enumerate(one.items))))
        answer = pair.heard[-1]
        assert isinstance(answer, ResponseReceived)
        assert [sample.value for sample in samples(answer.response)] == [
            Float64((float(place),)) for place, _ in enumerate(one.items)
        ]
    assert len(set(said[:4])) == 1 and pair.client.said.body(request, 0, 0)
    assert not pair.client.said.body(m.Read((item,)), 0, 0), "by the very object"
    long = m.Read(tuple(Item("node", f"{LEVEL}{number:0400}") for number in range(40)))
    pair.to_server(pair.client.send(long)[1])
    assert not pair.client.said.body(long, 0, 0), "a long one is not kept"


@given(st.lists(st.integers(0, 200), max_size=300))
def test_what_we_have_written_is_bounded_and_no_other_object_is_taken_for_it(numbers: list[int]) -> None:
    said = remembered.Said()
    header = s.RequestHeader(NodeId(0, 5), 0, 0, 0, None, 10_000, wire.NO_EXTENSION)
    for number in numbers:
        request = m.Read((Item("node", f"{LEVEL}{number}"),))
        assert said.body(request, 0, 0) is None, "a new object"
        nodes = [s.ReadValueId(NodeId(2, str(number), "s"), 13, None, NOBODY)]
        said.put(request, s.ReadRequest(header, 0.0, 2, nodes))
        assert len(said._known) <= remembered.MOST_SAID
        again = s.RequestHeader(header.token, number << 40, number, 0, None, 10_000, wire.NO_EXTENSION)
        assert said.body(request, number << 40, number) == wire.encode(s.ReadRequest(again, 0.0, 2, nodes))
