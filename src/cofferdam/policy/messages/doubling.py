"""Whether a JSON Schema makes a validator's work double with each level of a message. PURE.

Such a schema leads from a place back to itself by several ways for the same member: in
`{"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}`, where `a` and `b` each hold their `child` to the whole
again, a child is looked at twice, its child four times, and twenty levels take hours. What recurs by one way (a tree
with `left` and `right`, a list in a list) takes time in proportion to the message.

It is counted, for each place, how many schemas that apply to one member lead back to that place. That is an upper
bound: an `anyOf` whose forms exclude each other at once may be quick all the same.

Not here: what is done with a schema that doubles (checking, the policy's warnings).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

_HERE_LISTS: Final = ("anyOf", "oneOf", "allOf")
_HERE_ONE: Final = ("if", "then", "else", "not")
_HERE_NAMED: Final = ("dependentSchemas",)
_BELOW_ONE: Final = ("items", "additionalProperties", "contains", "unevaluatedItems", "unevaluatedProperties")
_BELOW_NAMED: Final = ("properties", "patternProperties")
ANY: Final = "*"
"""The step to members of which a schema does not say the name."""
STEPS_MOST: Final = 100_000
"""Steps of this search; a schema for which they are not enough counts as one that doubles."""

Node = tuple[str, tuple[str | int, ...]]
"""(file, path): one schema."""


class _TooMuch(Exception):
    pass


class _Graph:
    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = files
        self._ids: dict[str, Node] = {}
        self._anchors: dict[tuple[str, str], Node] = {}
        self.left = STEPS_MOST
        for file, value in files.items():
            for path, item in _walk(value):
                if isinstance(item.get("$id"), str):
                    self._ids[item["$id"].rstrip("#")] = (file, path)
                for word in ("$anchor", "$dynamicAnchor"):
                    if isinstance(item.get(word), str):
                        self._anchors[file, item[word]] = (file, path)

    def at(self, node: Node) -> Any:
        found = self._files.get(node[0])
        for step in node[1]:
            try:
                found = found[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def _target(self, node: Node, reference: str) -> Node | None:
        file, _, fragment = reference.partition("#")
        base: Node = (node[0], ())
        if file:
            joined = posixpath.normpath(posixpath.join(posixpath.dirname(node[0]), file))
            found = (joined, ()) if joined in self._files else self._ids.get(file)
            if found is None:
                return None
            base = found
        if not fragment:
            return base
        if not fragment.startswith("/"):
            return self._anchors.get((base[0], fragment))
        steps: list[str | int] = []
        for step in fragment[1:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            inside = self.at((base[0], (*base[1], *steps)))
            steps.append(int(name) if isinstance(inside, list) and name.isdecimal() else name)
        return base[0], (*base[1], *steps)

    def here(self, node: Node) -> Iterator[Node]:
        """The schemas that a schema holds the same value to."""
        schema = self.at(node)
        if not isinstance(schema, dict):
            return
        for word in ("$ref", "$dynamicRef"):
            if isinstance(schema.get(word), str) and (target := self._target(node, schema[word])) is not None:
                yield target
        for word in _HERE_LISTS:
            if isinstance(schema.get(word), list):
                yield from ((node[0], (*node[1], word, index)) for index in range(len(schema[word])))
        for word in _HERE_ONE:
            if word in schema:
                yield node[0], (*node[1], word)
        for word in _HERE_NAMED:
            if isinstance(schema.get(word), dict):
                yield from ((node[0], (*node[1], word, name)) for name in schema[word])

    def below(self, node: Node) -> Iterator[tuple[str, Node]]:
        """The schemas that it holds members to, each with the member's name."""
        schema = self.at(node)
        if not isinstance(schema, dict):
            return
        for word in _BELOW_ONE:
            if isinstance(schema.get(word), dict):
                yield ANY, (node[0], (*node[1], word))
        if isinstance(schema.get("prefixItems"), list):
            yield from ((ANY, (node[0], (*node[1], "prefixItems", at))) for at in range(len(schema["prefixItems"])))
        for word in _BELOW_NAMED:
            if isinstance(schema.get(word), dict):
                for name in schema[word]:
                    yield name if word == "properties" else ANY, (node[0], (*node[1], word, name))

    def applied(self, node: Node, above: frozenset[Node] = frozenset()) -> Iterator[Node]:
        """All that a value is held to by a schema, each as often as it is."""
        self.left -= 1
        if self.left < 0:
            raise _TooMuch
        yield node
        for other in self.here(node):
            if other not in above and other != node:
                yield from self.applied(other, above | {node})

    def edges(self, start: Node) -> dict[Node, list[Node]]:
        """All that it leads to, each with what that leads to."""
        found: dict[Node, list[Node]] = {}
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = [*self.here(node), *(other for _, other in self.below(node))]
                waiting += found[node]
        return found


def doubles(files: Mapping[str, Any], name: str) -> int:
    """By how much the work grows with each level, at most; 1: it does not. `files`: parsed, by their names."""
    graph = _Graph(files)
    most = 1
    try:
        circle = _circles(graph.edges((name, ())))
        for node, own in circle.items():
            counts: dict[str, int] = {}
            for applied in graph.applied(node):
                for step, child in graph.below(applied):
                    if circle.get(child) == own:
                        counts[step] = counts.get(step, 0) + 1
            any_ = counts.pop(ANY, 0)
            most = max(most, any_, *(count + any_ for count in counts.values()))
    except (_TooMuch, RecursionError):
        return 2
    return most


def _circles(edges: Mapping[Node, list[Node]]) -> dict[Node, int]:
    """Those nodes that lead back to themselves, with the number of the circle that they are in (two have the same one
    if each leads to the other): by two searches, the second in the order in which the first left them (Kosaraju)."""
    left: list[Node] = []
    seen: set[Node] = set()
    for start in edges:
        stack = [(start, iter(edges[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            node, others = stack[-1]
            for other in others:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(edges[other])))
                    break
            else:
                left.append(node)
                stack.pop()
    back: dict[Node, list[Node]] = {node: [] for node in edges}
    for node, others_ in edges.items():
        for other in others_:
            back[other].append(node)
    found: dict[Node, int] = {}
    for number, start in enumerate(reversed(left)):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = number
                waiting += back[node]
    sizes: dict[int, int] = {}
    for number in found.values():
        sizes[number] = sizes.get(number, 0) + 1
    return {node: number for node, number in found.items() if sizes[number] > 1 or node in edges[node]}


def _walk(value: Any) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict):
            yield path, item
            waiting += [((*path, name), each) for name, each in item.items()]
        elif isinstance(item, list):
            waiting += [((*path, index), each) for index, each in enumerate(item)]
