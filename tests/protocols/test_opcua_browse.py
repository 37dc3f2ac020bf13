"""Subtrees of the plant's server: what of them crosses, how far it goes, and what is left out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cofferdam.model import Asset, Item, Operation, Subtree
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import NULL_NODE, LocalizedText, NodeId, QualifiedName
from cofferdam.protocols.opcua.client_survey import _with_rest
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.names import Namespaces
from tests.protocols.opcua.pair import Pair, asset, facing, trust

URI = "urn:plant:line"
LINE = f"nsu={URI};s=Line1"
TREE = Item("tree", LINE)


def _node(name: str, *parents: tuple[int, str], klass: int = 1, kind: str = "i=58", uri: str = URI) -> m.Node:
    return m.Node(f"nsu={uri};s={name}", klass, (URI, name), m.Localized("", name), kind, parents=parents)


PLANT = (
    _node("Line1", (-1, "i=35"), (4, "i=47")),  # hangs on one of its own, too: a circle
    _node("Drive", (0, "i=47")),
    _node("Speed", (1, "i=47"), klass=2, kind="i=63"),
    _node("Unit", (2, "i=46"), klass=2, kind="i=68"),
    _node("Deep", (3, "i=47")),
    _node("Deeper", (4, "i=47")),
    _node("Start", (1, "i=47"), (0, "i=47"), klass=4, kind=""),
    _node("Foreign", (0, "i=47"), uri="urn:plant:server"),
    _node("Line2", (-1, "i=35")),
    _node("Drive2", (8, "i=47")),
)
"""What the plant's server has: its own space is made of it."""


def _with(depth: int, nodes: int) -> Asset:
    return msgspec.structs.replace(asset(), subtrees=(Subtree("line", TREE, depth, nodes),))


def _surveyed(depth: int, nodes: int, plant: tuple[m.Node, ...] = PLANT, item: Item = TREE) -> Any:
    """What our client machine says of the subtree, asking a server machine that has these nodes."""
    own = msgspec.structs.replace(facing(trust()), asset=_with(depth, nodes))
    far = msgspec.structs.replace(facing(trust()), asset=_with(1, 1))
    pair = Pair(OpcUaServer(far), OpcUaClient(own, 8)).run()
    token, data = pair.client.send(m.Survey((item,)))
    pair.to_server(data)
    pair.run()
    while pair.asked:
        _, request = pair.asked[0]
        assert isinstance(request, m.Survey)
        pair.answer(m.Described(plant))
    [found] = [one for one in pair.heard if isinstance(one, ResponseReceived) and one.token == token]
    return found.response


def _shown(found: Any) -> dict[str, list[str]]:
    assert isinstance(found, m.Described), found
    titles = [node.name[1] for node in found.nodes]
    return {
        node.name[1]: sorted("Objects" if place < 0 else titles[place] for place, _ in node.parents)
        for node in found.nodes
    }


@pytest.mark.parametrize(
    ("depth", "nodes", "below"),
    [
        (1, 500, {"Drive": ["Line1"], "Start": ["Line1"]}),
        (2, 500, {"Drive": ["Line1"], "Start": ["Drive", "Line1"], "Speed": ["Drive"]}),
        (3, 500, {"Drive": ["Line1"], "Start": ["Drive", "Line1"], "Speed": ["Drive"], "Unit": ["Speed"]}),
        (20, 2, {"Drive": ["Line1"]}),
        (20, 1, {}),
    ],
)
def test_as_many_steps_and_nodes_as_the_policy_says(depth: int, nodes: int, below: dict[str, list[str]]) -> None:
    # "Deep" is above the line as well, so that it is on the way to it.
    way = {"Line1": ["Deep", "Objects"], "Deep": ["Unit"], "Unit": ["Speed"], "Speed": ["Drive"], "Drive": ["Line1"]}
    found = _shown(_surveyed(depth, nodes))
    assert found == way | below


def test_what_another_namespace_or_another_part_of_the_plant_has_is_not_in_it() -> None:
    found = _surveyed(20, 2000)
    assert _shown(found).keys() == {"Line1", "Drive", "Speed", "Unit", "Deep", "Deeper", "Start"}
    by_name = {node.name[1]: node for node in found.nodes}
    assert (by_name["Start"].klass, by_name["Speed"].klass, by_name["Speed"].type) == (4, 2, "i=63")


def test_a_subtree_that_the_policy_has_no_more_is_its_root_alone() -> None:
    other = Item("tree", f"{LINE}2")
    assert _shown(_surveyed(20, 2000, PLANT[8:9], Item("tree", f"nsu={URI};s=Line2"))).keys() == {"Line2"}
    assert _shown(_surveyed(20, 2000, (), other)) == {}


def test_long_names_end_a_description_before_its_record_is_full() -> None:
    named = m.Localized("", "y" * 4000)
    wide = tuple(
        m.Node(f"nsu={URI};s={number}", 1, (URI, "x" * 4000), named, "i=58", parents=((0, "i=47"),))
        for number in range(1, 300)
    )
    found = _surveyed(1, 2000, (_node("Line1", (-1, "i=35")), *wide))
    assert 50 < len(found.nodes) < 150
    assert len(msgspec.msgpack.encode(found)) < 1 << 20


def _reference(number: int) -> s.ReferenceDescription:
    node = NodeId(2, number)
    return s.ReferenceDescription(
        NodeId(0, 35), True, node, QualifiedName(2, "x"), LocalizedText(None, "x"), 1, NodeId(0, 58)
    )


class _Client:
    """Where questions go that nobody waits for."""

    def __init__(self) -> None:
        self.namespaces = Namespaces(("http://opcfoundation.org/UA/", "urn:own", URI))
        self.told: list[Any] = []

    def header(self) -> s.RequestHeader:
        return s.RequestHeader(NULL_NODE, 0, 1, 0, None, 0, wire.NO_EXTENSION)

    def tell(self, question: Any) -> None:
        self.told.append(question)


def _rest(most: int, answers: int) -> tuple[list[Any], list[Any], list[Any]]:
    """What comes of a server that tells two references at a time, in `answers` more pieces: (references, questions,
    what it is told)."""
    client = _Client()
    work = _with_rest(client, [s.BrowseResult(0, b"0", [_reference(0), _reference(1)])], most)
    asked = [next(work)]
    try:
        for number in range(1, 1000):
            more = [_reference(2 * number), _reference(2 * number + 1)]
            header = s.ResponseHeader(0, 0, 0, 0, [], wire.NO_EXTENSION)
            point = b"%d" % number if number < answers else None
            asked.append(work.send(s.BrowseNextResponse(header, [s.BrowseResult(0, point, more)], [])))
    except StopIteration as stop:
        return stop.value[0], asked, client.told
    raise AssertionError("it asks without end")


def test_what_a_server_tells_in_pieces_is_asked_for_and_a_server_without_end_is_left() -> None:
    found, asked, told = _rest(500, 3)
    assert [one.node.id for one in found] == list(range(8)) and not told
    assert [one.points for one in asked] == [[b"0"], [b"1"], [b"2"]]
    found, asked, told = _rest(5, 10_000)
    assert len(found) == 5 and len(asked) == 2, "no more than may be shown"
    assert [(one.release, one.points) for one in told] == [(True, [b"2"])]
    found, asked, told = _rest(2000, 10_000)
    assert len(asked) == 100 and len(told) == 1


def test_a_client_sees_the_subtree_and_may_read_none_of_it() -> None:
    granted = {("tree", LINE), ("about", LINE)}

    def may(op: Operation) -> bool:
        return all(isinstance(read, Item) and (read.kind, read.name) in granted for read in (*op.reads, *op.writes))

    far = msgspec.structs.replace(facing(trust(), may=may), asset=_with(5, 500), reach=lambda _verb, _item: False)
    pair = Pair(OpcUaServer(far), OpcUaClient(facing(trust()), 8)).run()
    got: list[Any] = []

    def asked(request: Any) -> Any:
        got.clear()

        def waits() -> Any:
            got.append((yield request))

        pair.client.start(0, waits())
        pair.run()
        while pair.asked:
            _, one = pair.asked[0]
            pair.answer(m.Described(PLANT[:7]) if isinstance(one, m.Survey) else m.Refused(0x801F0000))
        return got[0]

    def node(name: str) -> NodeId:
        return NodeId(2, name, "s")

    def value(name: str, attribute: int) -> Any:
        read = s.ReadValueId(node(name), attribute, None, QualifiedName(0, None))
        [data] = asked(s.ReadRequest(pair.client.header(), 0.0, 2, [read])).results
        return data.status or (None if data.value is None else data.value.value)

    assert value("Speed", 13) == 0x80340000, "it has not been shown yet"
    view = s.ViewDescription(NULL_NODE, 0, 0)
    browse = [s.BrowseDescription(node("Drive"), 0, NodeId(0, 33), True, 0, 63)]
    [result] = asked(s.BrowseRequest(pair.client.header(), view, 0, browse)).results
    assert {one.name.name: one.type.id for one in result.references} == {"Speed": 63, "Start": 0}
    assert value("Speed", 2) == 2 and value("Speed", 18) == 0 and value("Start", 22) is False
    assert value("Speed", 13) == 0x801F0000 and value("Line2", 13) == 0x80340000
