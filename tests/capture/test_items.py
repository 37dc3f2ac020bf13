"""Captures of a protocol with items: learning makes a policy that allows what was seen, simulation judges it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cofferdam.capture.learn import Learned, learn
from cofferdam.capture.simulate import Simulation, simulate
from cofferdam.model import Assign, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.values import Bool, Float32, Float64, Int8, Int32, Int64, Octets, Text, UInt16, UInt64, Value
from tests.capture.maker import T0, Connection, pcap
from tests.capture.traffic import filled, stream
from tests.examples import examples
from tests.protocols.toy import messages as m
from tests.protocols.toy.site import TOY_KINDS, TOYS, toy_policy
from tests.protocols.toy.wire import frame

Talk = list[tuple[m.ToyRequest, m.ToyResponse | None]]


def tag(name: str, *elements: int) -> Item:
    return Item("tag", name, *elements)


def capture(talk: Talk, port: int = 7007) -> bytes:
    """One client and the line, from the first word on."""
    connection = Connection(server=("127.0.0.1", port)).open()
    connection.ask(frame(0, m.Hello(1)))
    connection.answer(frame(0, m.Welcome()))
    for number, (request, answer) in enumerate(talk, 1):
        connection.ask(frame(number, request))
        if answer is not None:
            connection.answer(frame(number, answer))
    return pcap(connection.close().frames, nano=True)


def learned(data: bytes) -> tuple[Learned, CompiledPolicy]:
    result = learn(stream(data), "toy.pcap", protocols=TOYS)
    return result, compile_policy(loads(filled(result.text), kinds=TOY_KINDS), now_ns=T0)


def simulated(policy: CompiledPolicy, data: bytes) -> Simulation:
    return simulate(policy, stream(data), "toy.pcap", protocols=TOYS)


def written(*writes: Assign) -> tuple[m.ToyRequest, m.ToyResponse]:
    return m.Write(writes), m.Done()


def test_what_is_learned() -> None:
    talk: Talk = [
        (m.Read((tag("pump.speed"), tag("counts", 0, 3))), m.Values((Int32((1200,)), Int32((1, 2, 3), True)))),
        (m.Subscribe(tag("pump.speed"), 500_000), m.Agreed()),
        (m.Subscribe(tag("noise"), 500_000), m.Agreed()),
        written(Assign(tag("pump.level"), Float32((0.1,))), Assign(tag("recipe"), Text(('it\'s "B"',)))),
        written(Assign(tag("pump.level"), Float32((-2.5,))), Assign(tag("run"), Bool((True,)))),
        written(Assign(tag("all"), Int8((1, -2), True)), Assign(tag("odd"), None)),
        (m.CallMethod(Item("method", "line.mix"), (Int32((30,)), Text(("a",)))), m.Done()),
        (m.CallMethod(Item("method", "line.reset")), m.Refusal(1)),
        (m.Open(Item("io", "drive"), 10_000), m.Agreed()),
        (m.Uptime(), m.Seconds(5)),
        (m.Restart(), m.Done()),
    ]
    data = capture(talk)
    result, policy = learned(data)
    text = result.text[result.text.index("assets:") :]
    assert [line for line in text.splitlines() if "FILL-IN" not in line] == EXPECTED.splitlines()
    assert (result.requests, result.malformed) == (11, 0)
    seen = simulated(policy, data)
    assert (seen.allowed, seen.refused) == (10, 1), "only the subscription to what has no type is not allowed"
    [refused] = [group for flow in seen.flows for group in flow.groups if group.verdict != "allowed"]
    assert "tag noise is asked" in refused.detail


EXPECTED = """\
assets:
  device-127-0-0-1:
    # answered 1 of 11 requests with an error
    zone: control
    address: "127.0.0.1"
    protocol: toy
    points:   # min and max are the values that were seen in writes
      all-2: {at: 'tag all', type: small, elements: 2, min: -2, max: 1}
      counts-0: {at: 'tag counts[0-2]', type: int}
      pump-level: {at: 'tag pump.level', type: real, min: -2.5, max: 0.1}
      pump-speed: {at: 'tag pump.speed', type: int}
      recipe: {at: 'tag recipe', type: text, max_length: 8}
      run: {at: 'tag run', type: flag, min: 1, max: 1}
    # 'tag noise' was subscribed to: make it a point, with its type, to allow this
    methods:
      line-mix: {at: 'method line.mix', arguments: [{name: argument-1, type: int}, {name: argument-2, type: text}]}
      line-reset: {at: 'method line.reset'}
    streams:
      drive: {at: 'io drive', fastest: 10000 us}

principals:
  client-10-1-0-20: {zone: enterprise, addresses: ["10.1.0.20"]}

conduits:
  client-10-1-0-20:   # 11 requests, 1 answered with an error
    from: enterprise
    to: control
    broker: toy
    # expires: 2027-06-30   # it writes: say until when, and in which hours (window)
    allow:
      - who: client-10-1-0-20
        asset: [device-127-0-0-1]
        read: [counts-0, pump-speed]
        subscribe: [pump-speed]
        write: [all-2, pump-level, recipe, run]
        write_registers: ['tag odd']
        call: [line-mix, line-reset]
        stream: [drive]
        functions: [7]
        write_functions: [8]
"""


def whole(kind: type[Any], elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Value]:
    """Single values and arrays of a type."""
    return st.one_of(
        st.builds(lambda one: kind((one,)), elements),
        st.builds(lambda many: kind(tuple(many), True), st.lists(elements, max_size=3)),
    )


VALUES = st.one_of(
    whole(Bool, st.booleans()), whole(Int8, st.integers(-128, 127)),
    whole(Int64, st.integers(-(1 << 63), (1 << 63) - 1)),
    whole(UInt64, st.integers(0, (1 << 64) - 1)), whole(Float32, st.floats(width=32)), whole(Float64, st.floats()),
    whole(Text, st.text(max_size=5)), whole(Octets, st.binary(max_size=5)), whole(UInt16, st.integers(0, 65535)),
)  # fmt: skip
"""UInt16 is no type of the toy's policies."""
NAMES = st.sampled_from(["a", "a.b", "a.b.c", "all", "b", "_1", "on", "a_b", "null"])
WHOLE = st.builds(tag, NAMES)


@st.composite
def assigns(draw: st.DrawFn) -> Assign:
    value = draw(st.one_of(st.none(), VALUES))
    if value is not None and value.array and value.values and draw(st.booleans()):
        return Assign(tag(draw(NAMES), draw(st.integers(0, 3)), len(value.values)), value)
    return Assign(tag(draw(NAMES)), value)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    kind = draw(st.sampled_from(["read", "read", "write", "write", "write", "call", "open", "code", "watch"]))
    found: Talk = []
    if kind == "read":
        items = draw(st.lists(st.tuples(WHOLE, VALUES), min_size=1, max_size=3))
        answer = m.Values(tuple(value for _, value in items))
        found.append((m.Read(tuple(item for item, _ in items)), draw(st.sampled_from([answer, None, m.Refusal(2)]))))
    elif kind == "write":
        writes = draw(st.lists(assigns(), min_size=1, max_size=3).map(tuple))
        found.append((m.Write(writes), draw(st.sampled_from([m.Done(), None]))))
    elif kind == "call":
        types = draw(st.sampled_from([(), (Int32,), (Int32, Text)]))
        samples: dict[type[Any], Value] = {Int32: Int32((5,)), Text: Text(("a",), True)}
        name = "m" + str(len(types))
        found.append((m.CallMethod(Item("method", name), tuple(samples[one] for one in types)), m.Done()))
    elif kind == "open":
        found.append((m.Open(Item("io", draw(NAMES)), draw(st.integers(0, 10**6))), m.Agreed()))
    elif kind == "watch":
        # Its type must have been seen for a policy to allow it, and it is nothing that is written.
        found.append((m.Read((tag("w"),)), m.Values((Int32((1,)),))))
        found.append((m.Subscribe(tag("w"), draw(st.integers(0, 10**6))), m.Agreed()))
    else:
        found.append((m.Uptime(), m.Seconds(1)) if draw(st.booleans()) else (m.Restart(), m.Done()))
    return found


def _can_be_said(talk: Talk) -> bool:
    """No argument is an array of one element or none: a policy has no words for it."""
    arguments = [one for request, _ in talk if isinstance(request, m.CallMethod) for one in request.arguments]
    return not any(getattr(one, "array", False) and len(getattr(one, "values", ())) < 2 for one in arguments)


@given(st.lists(talks(), min_size=1, max_size=6).map(lambda parts: [one for part in parts for one in part]))
@examples(150)
def test_a_learned_policy_allows_what_was_seen(talk: Talk) -> None:
    assume(_can_be_said(talk))
    data = capture(talk)
    result, policy = learned(data)
    assert result.requests == len(talk)
    assert not result.malformed
    seen = simulated(policy, data)
    assert seen.refused == seen.depends == 0, (result.text, [flow.groups for flow in seen.flows])
    assert seen.allowed == len(talk)


def test_what_no_policy_can_say_is_left_out() -> None:
    talk: Talk = [
        (m.Read((Item("method", "line.reset"),)), m.Refusal(2)),
        (m.CallMethod(Item("method", "line.mix"), (UInt16((1,)),)), m.Refusal(2)),
        (m.Open(tag("a"), 0), m.Refusal(2)),
    ]
    result, _ = learned(capture(talk))
    assert "# 3 requests of further items were left out" in result.text


@pytest.mark.parametrize(
    ("request_", "verdict", "detail"),
    [
        (m.Read((tag("pump.speed"), tag("counts", 2, 3))), "allowed", ""),
        (m.Read((tag("secret"),)), "refused", "tag secret"),
        (m.Write((Assign(tag("run"), Bool((True,))),)), "allowed", ""),
        (m.Write((Assign(tag("run"), Bool((False,))),)), "refused", "run = 0"),
        (m.Write((Assign(tag("pump.speed"), Int32((700,))),)), "depends", "would read tag pump.speed first"),
        (m.CallMethod(Item("method", "line.mix"), (Int32((61,)), Text(("a",)))), "refused", "seconds = 61 s"),
        (m.Subscribe(tag("pump.level"), 1000), "refused", "every 1 ms"),
        (m.Open(Item("io", "drive"), 10_000), "allowed", ""),
    ],
    ids=str,
)  # fmt: skip
def test_simulation_judges_items_as_the_gate_does(request_: m.ToyRequest, verdict: str, detail: str) -> None:
    asset = toy_policy()
    seen = simulated(asset, capture([(request_, None)]))
    [group] = [group for flow in seen.flows for group in flow.groups]
    assert group.verdict == verdict, group
    assert detail in group.detail
