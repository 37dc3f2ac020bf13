"""The tree of a policy's text with answers to "where does this stand?".

Not here: the text's syntax (policy.yamltext), what is wrong with it (policy.load, policy.crosscheck, policy.lint).
"""

from __future__ import annotations

from typing import Any

from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import Node

Path = tuple[str | int, ...]


class Mark:
    """A node in the text; makes findings that point at it."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def where(self) -> str:
        """FILE:LINE:COLUMN, for a finding elsewhere."""
        return f"{self.node.file}:{self.node.line}:{self.node.column}"

    def problem(
        self, found: str, expected: str, near: str = "", *, severity: str = "error", check: str = ""
    ) -> Problem:
        return Problem(self.node.file, self.node.line, self.node.column, found, expected, near, severity, check)


class Document:
    """The merged tree of all files."""

    __slots__ = ("root",)

    def __init__(self, root: Node) -> None:
        self.root = root

    def _walk(self, path: Path) -> tuple[Node, Node]:
        """(key or container, value) of the deepest part of the path that exists."""
        key = node = self.root
        for step in path:
            data: Any = node.data
            if isinstance(data, dict) and step in data:
                key, node = data[step]
            elif isinstance(data, list) and isinstance(step, int) and step < len(data):
                key = node = data[step]
            elif step == 0 and not isinstance(data, (dict, list)):
                continue  # one entry where a list may stand
            elif step == 0 and isinstance(data, dict):
                continue
            else:
                break
        return key, node

    def fields(self, path: Path) -> frozenset[str]:
        """What the text says of an entry, right or wrong."""
        data: Any = self._walk(path)[1].data
        return frozenset(map(str, data)) if isinstance(data, dict) else frozenset()

    def says(self, path: Path, name: str) -> bool:
        """Whether the text says this of an entry, right or wrong."""
        data: Any = self._walk(path)[1].data
        return isinstance(data, dict) and name in data

    def rename(self, path: Path, name: str) -> None:
        """From now on a field goes by another name, at its old place."""
        fields: Any = self._walk(path[:-1])[1].data
        if isinstance(fields, dict) and path[-1] in fields:
            fields[name] = fields.pop(path[-1])

    def key(self, path: Path) -> Mark:
        """Where the name of an entry or field stands."""
        return Mark(self._walk(path)[0])

    def value(self, path: Path) -> Mark:
        """Where the value of a field stands; its name, where there is no value."""
        key, node = self._walk(path)
        if node.data is None and isinstance(key.data, str):
            named = Node(key.file, key.line, key.column, None)
            return Mark(named)
        return Mark(node)

    def names(self, *path: str) -> list[str]:
        """The names in a map, also of entries that are wrong; none where there is no map."""
        found: Any = self.root.data
        for step in path:
            if not isinstance(found, dict) or step not in found:
                return []
            found = found[step][1].data
        return [str(name) for name in found] if isinstance(found, dict) else []
