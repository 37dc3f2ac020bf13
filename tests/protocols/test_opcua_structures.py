"""Structures that nobody decodes: what crosses of them, and what a policy has to say first."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.errors import CrossingError, PolicyError
from cofferdam.model import Assign, Item
from cofferdam.policy.load import loads
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin_types import Data, Extension, NodeId, Variant
from cofferdam.protocols.opcua.names import BAD_NOT_READABLE, UA, Namespaces, Unnamed
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Float64, Text

NAMES = Namespaces((UA, "urn:server", "urn:plant"))
KIND = "nsu=urn:plant;i=5001"
WANTED = (KIND, 8)


def _one(body: bytes | None = b"12345678", kind: NodeId | None = None) -> Variant:
    return Variant(22, Extension(kind or NodeId(2, 5001), body))


REFUSED: dict[str, tuple[Any, Any]] = {
    "a longer one": (_one(b"123456789"), WANTED),
    "another encoding": (_one(kind=NodeId(2, 5002)), WANTED),
    "another namespace": (_one(kind=NodeId(1, 5001)), WANTED),
    "without a body": (_one(None), WANTED),
    "one of several": (Variant(22, [_one().value, _one(kind=NodeId(0, 886)).value], True), WANTED),
    "a matrix": (Variant(22, [_one().value] * 4, True, (2, 2)), WANTED),
    "a number": (Variant(11, 5.0), WANTED),
    "of which no point speaks": (_one(), None),
    "whose namespace the server has not": (_one(), ("nsu=urn:other;i=5001", 8)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_nothing_else_crosses(what: str) -> None:
    variant, wanted = REFUSED[what]
    assert NAMES.sample(Data(variant), wanted) == m.Sample(None, BAD_NOT_READABLE)


def test_it_is_the_same_on_the_other_side() -> None:
    shown = Namespaces((UA, "urn:ours", "urn:x", "urn:plant"))
    for variant in (_one(), _one(b""), Variant(22, [_one().value, _one(b"x").value], True)):
        sample = NAMES.sample(Data(variant), WANTED)
        PROTOCOLS["opcua"].check(m.Values((sample,)))
        made = shown.data(sample).value
        assert made is not None and made.array == variant.array and made.type == 22
        parts = made.value if made.array else [made.value]
        assert {one.type for one in parts} == {NodeId(3, 5001)}
        assert [one.body for one in parts] == [
            one.body for one in (variant.value if variant.array else [variant.value])
        ]
    with pytest.raises(Unnamed):
        Namespaces((UA,)).variant(m.Structures((b"x",), KIND))


FORGED = {
    "no node": m.Values((m.Sample(m.Structures((b"x",), "ns=2;i=5")),)),
    "one that is two": m.Values((m.Sample(m.Structures((b"x", b"y"), KIND)),)),
    "a locale of a number": m.Write((Assign(Item("node", "nsu=urn:x;s=a"), Float64((1.0,))),), (0,)),
    "a locale of nothing": m.Write((Assign(Item("node", "nsu=urn:x;s=a"), Text(("x",))),), (1,)),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_honest_half_says_is_refused(what: str) -> None:
    with pytest.raises(CrossingError):
        PROTOCOLS["opcua"].check(FORGED[what])


POLICY = """
site: s
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
assets:
  filler: {{zone: plant, address: 10.20.0.31, protocol: {protocol}, listen: "10.1.0.1:4841",
           points: {{limits: {{at: {at}, {said}}}}}}}
principals: {{mes: {{zone: office, addresses: [10.1.0.20]}}}}
conduits:
  line: {{from: office, to: plant, broker: {protocol}, owner: a, reason: b,
         allow: [{{who: mes, asset: filler, read: all}}]}}
"""
NODE = '"nsu=urn:x;s=Limits"'
BYTES = "type: ByteString"
WRONG = {
    "another type": (
        "opcua",
        NODE,
        'type: String, structure: "i=886", max_length: 8',
        "type: ByteString and max_length",
    ),
    "no length": ("opcua", NODE, f'{BYTES}, structure: "i=886"', "so many at most"),
    "no node": ("opcua", NODE, f"{BYTES}, structure: opaque, max_length: 8", "nsu=URI;s=NAME"),
    "an index": (
        "opcua",
        NODE,
        f'{BYTES}, structure: "ns=2;i=1", max_length: 8',
        "may number its namespaces anew",
    ),
    "elements": ("opcua", NODE, f'{BYTES}, structure: "i=886 [0-3]", max_length: 8', "the node of an encoding"),
    "another protocol": ("enip", '"tag Limits"', 'type: dint, structure: "i=886"', "enip has none"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_policy_says_which_and_how_long(what: str) -> None:
    protocol, at, said, expected = WRONG[what]
    with pytest.raises(PolicyError) as refused:
        loads(POLICY.format(protocol=protocol, at=at, said=said))
    assert expected in " ".join(map(str, refused.value.problems))


def test_short_names_of_namespaces_are_written_out() -> None:
    short = 'namespaces: {{line: "urn:a;b%c"}},'
    text = POLICY.replace("points:", f"{short} points:", 1).replace(
        "{{limits: {{at: {at}, {said}}}}}", "{{limits: {{at: {at}, {said}}}}}, methods: {{run: {{at: {method}}}}}"
    )

    def asset(at: str, said: str, method: str) -> Any:
        return loads(text.format(protocol="opcua", at=at, said=said, method=method)).policy.assets["filler"]

    said = 'type: ByteString, max_length: 8, structure: "line:i=5001"'
    found = asset('"line:s=Limits:x=1 [0-3]"', said, '"line:s=Line -> i=9111"')
    point = found.points["limits"]
    assert point.at == Item("node", "nsu=urn:a%3Bb%25c;s=Limits:x=1", 0, 4)
    assert point.structure == "nsu=urn:a%3Bb%25c;i=5001"
    assert found.methods["run"].at == Item("method", "nsu=urn:a%3Bb%25c;s=Line -> i=9111")
    with pytest.raises(PolicyError) as refused:
        asset('"lime:s=Limits"', said, '"i=1 -> i=2"')
    assert "a short name of the asset's namespaces (line)" in " ".join(map(str, refused.value.problems))
