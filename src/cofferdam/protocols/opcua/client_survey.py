"""What a client machine finds out about nodes, for browsing: the objects on the way from Objects to each that is asked
for, and, of a subtree of the policy's, what stands below it, as far as the policy goes.

A subtree is walked level by level, so many steps and so many nodes at most, whatever the server says: what is left out
is what comes last. Nodes without a name on the other side are left out with all that only they lead to. Not here: who
may ask (policy), what clients are shown of it (space).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cofferdam.model import Subtree
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Data, LocalizedText, NodeId, QualifiedName
from cofferdam.protocols.opcua.client_work import AT_ONCE, NO_QUALIFIED, RECORD_BYTES, Asking, fits, said
from cofferdam.protocols.opcua.dialect import ARROW
from cofferdam.protocols.opcua.names import Unnamed

LEVELS = 20
"""Steps from a node up to Objects."""
PARENTS = 16
"""Of one node."""
BELOW_AT_ONCE, REFERENCES = 10, 100
"""Nodes in one question about what is below them, and references that are wanted of each at once: an answer has to go
into a message, and servers have few continuation points."""
ROUNDS = 100
"""BrowseNexts for one question."""
NO_POINTS = 0x804B0000
OBJECTS, HIERARCHICAL, HAS_TYPE = NodeId(0, 85), NodeId(0, 33), NodeId(0, 40)
SHOWN_CLASSES = 1 | 2 | 4
"""Objects, variables and methods."""
_ATTRIBUTES = (2, 3, 4, 14, 15, 18, 20)
"""NodeClass, BrowseName, DisplayName, DataType, ValueRank, UserAccessLevel, Historizing."""


class _Found:
    """The nodes in the order in which they were found, what each hangs on, and of what type it is."""

    def __init__(self) -> None:
        self.order: list[NodeId] = []
        self.known: set[NodeId] = set()
        self.parents: dict[NodeId, list[tuple[NodeId, NodeId]]] = {}
        self.types: dict[NodeId, NodeId] = {}

    def add(self, node: NodeId) -> None:
        if node not in self.known and len(self.order) < m.NODES:
            self.known.add(node)
            self.order.append(node)

    def hang(self, node: NodeId, parent: NodeId, reference: NodeId) -> None:
        there = self.parents.setdefault(node, [])
        if (parent, reference) not in there and len(there) < PARENTS:
            there.append((parent, reference))


def survey(client: Any, request: m.Survey) -> Asking:
    """Each node asked for, and what stands between it and Objects, step by step upward; then subtrees downward."""
    names = client.namespaces
    found = _Found()
    trees: list[tuple[Subtree, NodeId]] = []
    known = {} if client.asset is None else {tree.at: tree for tree in client.asset.subtrees}
    for item in request.items:
        for name in item.name.split(ARROW) if ARROW in item.name else (item.name,):
            try:
                node = names.node(name)
            except Unnamed:
                continue
            found.add(node)
            if item.kind == "tree" and item in known:
                trees.append((known[item], node))
    refused = yield from _upward(client, found)
    for tree, node in trees:
        refused = refused or (yield from _downward(client, found, tree, node))
    if refused is not None:
        return refused
    return (yield from _described(client, found))


def _browsed(client: Any, asked: list[s.BrowseDescription], most: int = 0) -> Asking:
    """The references of each node, `most` of them (0: all); or what the whole question was refused with."""
    answer = yield s.BrowseRequest(client.header(), s.ViewDescription(NodeId(0, 0), 0, 0), most, asked)
    refused = fits(answer, s.BrowseResponse, len(asked))
    return answer.results if refused is None else refused


def _own(names: Any, node: NodeId) -> NodeId | None:
    """A node by its index, also where a URI stands in place of that; None for one without a name on the other side."""
    try:
        found: NodeId = names.node(names.name(node))
    except Unnamed:
        return None
    return found


def _upward(client: Any, found: _Found) -> Asking:
    names = client.namespaces
    done = 0
    for _ in range(LEVELS):
        level = found.order[done:]
        done = len(found.order)
        for at in range(0, len(level), AT_ONCE):
            some = level[at : at + AT_ONCE]
            asked = [s.BrowseDescription(node, 1, HIERARCHICAL, True, 0, 63) for node in some]
            asked += [s.BrowseDescription(node, 0, HAS_TYPE, False, 0, 63) for node in some]
            results = yield from _browsed(client, asked)
            if isinstance(results, m.Refused):
                return results
            for node, up, kind in zip(some, results, results[len(some) :], strict=False):
                for one in up.references[:PARENTS]:
                    parent = _own(names, one.node)
                    if parent is None:
                        continue
                    found.hang(node, parent, one.reference)
                    if parent.ns:  # the standard's own objects are ours to show
                        found.add(parent)
                for one in kind.references[:1]:
                    found.types[node] = one.node
    return None


def _downward(client: Any, found: _Found, tree: Subtree, root: NodeId) -> Asking:
    names = client.namespaces
    seen = {root}
    level = [root]
    for _ in range(tree.depth):
        below: list[NodeId] = []
        waiting = [level[at : at + BELOW_AT_ONCE] for at in range(0, len(level), BELOW_AT_ONCE)]
        while waiting:
            some = waiting.pop(0)
            asked = [s.BrowseDescription(node, 0, HIERARCHICAL, True, SHOWN_CLASSES, 63) for node in some]
            results = yield from _browsed(client, asked, REFERENCES)
            if isinstance(results, m.Refused):
                return results
            if len(some) > 1:
                waiting += [[node] for node, one in zip(some, results, strict=True) if one.status == NO_POINTS]
            told = yield from _with_rest(client, results, tree.nodes)
            for node, references in zip(some, told, strict=True):
                for one in references:
                    child = _own(names, one.node)
                    if child is None or child.ns == 0 or (child not in seen and len(seen) >= tree.nodes):
                        continue
                    if child not in seen:
                        seen.add(child)
                        below.append(child)
                        found.add(child)
                    found.hang(child, node, one.reference)
                    found.types.setdefault(child, one.type)
        level = below
    return None


def _with_rest(client: Any, results: list[s.BrowseResult], most: int) -> Asking:
    """The references of each node, with what the server tells only when it is asked again; no more than `most` of
    each."""
    found = [list(one.references) for one in results]
    points = {place: one.point for place, one in enumerate(results) if one.point}
    for _ in range(ROUNDS):
        open_ = [place for place in points if len(found[place]) < most]
        if not open_:
            break
        answer = yield s.BrowseNextRequest(client.header(), False, [points[place] for place in open_])
        if said(answer, s.BrowseNextResponse) is not None or len(answer.results) != len(open_):
            break
        for place, more in zip(open_, answer.results, strict=True):
            del points[place]
            found[place] += more.references
            if more.point:
                points[place] = more.point
    if points:
        client.tell(s.BrowseNextRequest(client.header(), True, list(points.values())))
    return [references[:most] for references in found]


def _described(client: Any, found: _Found) -> Asking:
    """What the nodes are: as many as one record holds."""
    facts: dict[NodeId, list[Data]] = {}
    for at in range(0, len(found.order), AT_ONCE):
        some = found.order[at : at + AT_ONCE]
        nodes = [s.ReadValueId(node, one, None, NO_QUALIFIED) for node in some for one in _ATTRIBUTES]
        answer = yield s.ReadRequest(client.header(), 0.0, 3, nodes)
        refused = fits(answer, s.ReadResponse, len(nodes))
        if refused is not None:
            return refused
        for number, node in enumerate(some):
            facts[node] = answer.results[number * len(_ATTRIBUTES) : (number + 1) * len(_ATTRIBUTES)]
    places: dict[NodeId, int] = {}
    made: list[m.Node] = []
    room = RECORD_BYTES
    for node in found.order:
        if _plain(facts[node], 0) in (1, 2, 4):
            one = _node(client, node, facts[node], found)
            room -= _weight(one) + sum(30 + len(kind) for _, kind in _hangs(client, node, found))
            if room < 0:
                break
            places[node] = len(made)
            made.append(one)
    with_parents = []
    for node, one in zip(places, made, strict=True):
        hangs = [
            (-1 if parent == OBJECTS else places[parent], kind)
            for parent, kind in _hangs(client, node, found) if parent == OBJECTS or parent in places
        ]  # fmt: skip
        with_parents.append(
            m.Node(
                one.id, one.klass, one.name, one.display, one.type, one.data_type, one.rank, one.access, tuple(hangs),
                one.historizing,
            )
        )  # fmt: skip
    return m.Described(tuple(with_parents))


def _hangs(client: Any, node: NodeId, found: _Found) -> list[tuple[NodeId, str]]:
    names = client.namespaces
    return [(parent, _name_of(names, reference) or "i=35") for parent, reference in found.parents.get(node, ())]


def _plain(facts: Sequence[Data], number: int) -> Any:
    variant = facts[number].value
    return None if variant is None or variant.array or facts[number].status & 0x80000000 else variant.value


def _weight(node: m.Node) -> int:
    """About how many bytes a node has in a record, without its parents, and no fewer."""
    texts = (node.id, *node.name, node.display.locale, node.display.text, node.type, node.data_type)
    return 100 + sum([len(text.encode()) for text in texts])


def _node(client: Any, node: NodeId, facts: Sequence[Data], found: _Found) -> m.Node:
    names = client.namespaces
    qualified, localized = _plain(facts, 1), _plain(facts, 2)
    title = ("", "")
    if isinstance(qualified, QualifiedName):
        try:
            title = (names.uri(qualified.ns), (qualified.name or "")[:4096])
        except Unnamed:
            title = ("", (qualified.name or "")[:4096])
    shown = m.Localized("", title[1])
    if isinstance(localized, LocalizedText):
        shown = m.Localized((localized.locale or "")[:4096], (localized.text or "")[:4096])
    rank, access = _plain(facts, 4), _plain(facts, 5)
    return m.Node(
        id=names.name(node),
        klass=_plain(facts, 0),
        name=title,
        display=shown,
        type=_name_of(names, found.types.get(node)),
        data_type=_name_of(names, _plain(facts, 3)),
        rank=rank if isinstance(rank, int) and -3 <= rank <= 100 else -1,
        access=access if isinstance(access, int) and 0 <= access < 256 else 0,
        historizing=_plain(facts, 6) is True,
    )


def _name_of(names: Any, node: Any) -> str:
    """The name of a node of the standard's own (types are shown by that alone), or ""."""
    if not isinstance(node, NodeId):
        return ""
    try:
        name: str = names.name(node)
    except Unnamed:
        return ""
    return name
