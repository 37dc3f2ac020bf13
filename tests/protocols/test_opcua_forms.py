"""Values of the standard's types that policy judges in another form: what each is on either side, and what is none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cofferdam.model import Argument, Asset, Assign, Item, Method, Point
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Data, LocalizedText, NodeId, QualifiedName, Variant
from cofferdam.protocols.opcua.dialect import OPCUA
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import UA, Namespaces, Unnamed, formless
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Int32, Int64, Text, UInt32, ValueType
from tests.protocols.opcua.pair import RESET, Pair, asset, facing, trust

OUTER = Namespaces((UA, "urn:gate", "urn:plant:line", "urn:plant:other"))
INNER = Namespaces((UA, "urn:plant:server", "urn:plant:other", "urn:plant:line"))
GUID = "09087e75-8e5e-499b-954f-f2a9603db28a"
SAME: list[tuple[str, Variant, Any, Variant]] = [
    ("DateTime", Variant(13, -5), Int64((-5,)), Variant(13, -5)),
    ("DateTime", Variant(13, [1, 2], True), Int64((1, 2), True), Variant(13, [1, 2], True)),
    ("Guid", Variant(14, GUID), Text((GUID,)), Variant(14, GUID)),
    ("XmlElement", Variant(16, b"<a/>"), Text(("<a/>",)), Variant(16, b"<a/>")),
    ("NodeId", Variant(17, NodeId(2, "x", "s")), Text(("nsu=urn:plant:line;s=x",)), Variant(17, NodeId(3, "x", "s"))),
    ("NodeId", Variant(17, NodeId(0, 85)), Text(("i=85",)), Variant(17, NodeId(0, 85))),
    ("StatusCode", Variant(19, 0x80340000), UInt32((0x80340000,)), Variant(19, 0x80340000)),
    ("QualifiedName", Variant(20, QualifiedName(3, "a:b")), Text(("nsu=urn:plant:other;a:b",)),
     Variant(20, QualifiedName(2, "a:b"))),
    ("LocalizedText", Variant(21, LocalizedText("en", "x")), Text(("x",)), Variant(21, LocalizedText(None, "x"))),
]  # fmt: skip
"""The form, what a client says, what policy judges, what the plant's server is told."""


@pytest.mark.parametrize(("form", "said", "judged", "told"), SAME)
def test_a_value_has_one_form_on_each_side(form: str, said: Variant, judged: Any, told: Variant) -> None:
    value = formless(OUTER.crossing(said), form)
    assert value == judged and value.type is OPCUA.types[form]
    assert INNER.formed(value, form) == told
    assert OUTER.variant(OUTER.crossing(said)).type == said.type, "it is read as it was"
    for other in OPCUA.value_forms:
        if other != form:
            assert formless(OUTER.crossing(said), other) is None


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("Guid", Text(("junk",))), ("Guid", Text((GUID.upper(),))), ("Guid", Int64((1,))),
        ("NodeId", Text(("ns=2;s=x",))), ("NodeId", Text(("nsu=urn:elsewhere;s=x",))),
        ("NodeId", Text(("",))), ("QualifiedName", Text(("a/b",))),
        ("QualifiedName", Text(("nsu=urn:elsewhere;x",))), ("DateTime", Text(("2027-06-30",))),
        ("StatusCode", Int64((0,))), ("XmlElement", Int64((0,))), ("LocalizedText", UInt32((0,))),
    ],
)  # fmt: skip
def test_what_no_honest_half_judges_has_no_form_at_the_server(form: str, value: Any) -> None:
    with pytest.raises(Unnamed):
        INNER.formed(value, form)


def test_a_node_of_a_namespace_that_nobody_names_crosses_in_no_form() -> None:
    for said in (Variant(17, NodeId(9, "x", "s")), Variant(20, QualifiedName(9, "x")), Variant(16, b"\xff")):
        with pytest.raises(Unnamed):
            OUTER.crossing(said)
    assert formless(OUTER.crossing(Variant(20, QualifiedName(0, "a/b"))), "QualifiedName") is None


DUE = "nsu=urn:plant:line;s=Line1.Due"


def _formed() -> Asset:
    due = Point("due", Item("node", DUE), ValueType.INT64, form="DateTime")
    reset = Method("reset", Item("method", RESET), (
        Argument("at", ValueType.INT64, form="DateTime"), Argument("who", ValueType.TEXT, form="Guid")),
        returns=(Argument("was", ValueType.INT64, form="DateTime"), Argument("then", ValueType.INT64)))  # fmt: skip
    return msgspec.structs.replace(asset(), points=(*asset().points, due), methods=(reset,))


def _pair() -> Pair:
    here = msgspec.structs.replace(facing(trust()), asset=_formed())
    return Pair(OpcUaServer(here), OpcUaClient(here, 8)).run()


def _asked(request: Any) -> tuple[Any, Pair]:
    """What our client machine makes of a request, as a server machine understands it."""
    pair = _pair()
    _, data = pair.client.send(request)
    pair.to_server(data)
    pair.run()
    return (pair.asked[0][1] if pair.asked else None), pair


def test_the_policys_point_says_the_type_on_the_wire_and_not_who_asks() -> None:
    write = m.Write((Assign(Item("node", DUE), Int64((7,))),))
    found, _ = _asked(write)
    assert found == write, "a DateTime at the server, and of the same form again behind it"
    plain = m.Write((Assign(Item("node", DUE + "2"), Int64((7,))),))
    assert _asked(plain)[0] == plain
    call = m.CallMethod(Item("method", RESET), (Int64((7,)), Text((GUID,))))
    assert _asked(call)[0] == call


@pytest.mark.parametrize(
    "request_",
    [
        m.Write((Assign(Item("node", DUE), Int32((7,))),)),
        m.CallMethod(Item("method", RESET), (Int64((7,)), Text(("junk",)))),
    ],
)
def test_a_value_without_the_form_is_sent_to_nobody(request_: Any) -> None:
    found, pair = _asked(request_)
    assert found is None
    [answer] = [one.response for one in pair.later(0).heard if isinstance(one, ResponseReceived)]
    assert isinstance(answer, m.Refused) and answer.status & 0x80000000


def test_what_a_method_gives_back_is_of_its_form_or_null() -> None:
    call = m.CallMethod(Item("method", RESET), (Int64((7,)), Text((GUID,))))
    _, pair = _asked(call)
    pair.answer(m.Outputs(0, (0, 0), (m.Times((5,)), m.Times((5,)))))
    [answer] = [one.response for one in pair.heard if isinstance(one, ResponseReceived)]
    assert answer.outputs == (m.Times((5,)), None)
    assert not PROTOCOLS["opcua"].mismatch(call, answer)


def test_a_client_that_writes_another_type_is_told_so() -> None:
    pair = _pair()
    got: list[Any] = []

    def asks(variant: Variant) -> Any:
        node = NodeId(2, "Line1.Due", "s")
        got.append((yield s.WriteRequest(pair.client.header(), [s.WriteValue(node, 13, None, Data(variant))])))

    for variant in (Variant(8, 7), Variant(12, "2027-06-30"), Variant(14, GUID)):
        pair.client.start(0, asks(variant))
        pair.run()
        assert got.pop().results == [0x80740000] and not pair.asked
    pair.client.start(0, asks(Variant(13, 7)))
    pair.run()
    assert [one for _, one in pair.asked] == [m.Write((Assign(Item("node", DUE), Int64((7,))),))]
