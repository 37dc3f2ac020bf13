"""YAML text to a small tree whose every value knows its file, line and column.

Stricter and plainer than YAML: every scalar stays the text that was written, so that 06:00 is no number in base 60, no
country is false, and a date is no object; the schema knows what each field should be. A key may stand once. Anchors,
aliases and merge keys (<<) work within limits; tags do not.

The tree is built from events in a loop and not by yaml.compose, whose C code recurses: a file of brackets overflows
its stack and kills the process.

Not here: files and folders (policy.load), what the values mean (policy.schema).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import yaml

from cofferdam.policy.problems import Problem

MAX_BYTES = 8 << 20
"""Size of one policy file, in bytes."""
MAX_DEPTH = 24
"""Nested lists and maps; a policy needs 6."""
MAX_NODES = 2_000_000
"""Values in a file, those that aliases repeat counted each time."""
MAX_PROBLEMS = 200
"""Findings after which a file is given up."""

_EVENT_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def events(stream: io.StringIO) -> Iterator[yaml.Event]:
    """The events of a text, as `parse` sees them. Raises: yaml.YAMLError."""
    found: Iterator[yaml.Event] = yaml.parse(stream, Loader=_EVENT_LOADER)
    return found


class Node:
    """A value with its place: `data` is a text, None, a list of nodes, or a dict of key text to (key node, node)."""

    __slots__ = ("column", "data", "file", "line", "quoted", "size")

    def __init__(self, file: str, line: int, column: int, data: Any, quoted: bool = False) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.data = data
        self.quoted = quoted
        self.size = 1

    def plain(self) -> Any:
        """The value without places: str, None, list or dict."""
        data = self.data
        if type(data) is dict:
            return {key: node.plain() for key, (_, node) in data.items()}
        if type(data) is list:
            return [node.plain() for node in data]
        return data

    def describe(self) -> str:
        """What stands here, for "found ..."."""
        if self.data is None:
            return "nothing"
        if isinstance(self.data, dict):
            return f"a map of {_plural(len(self.data), 'field')}"
        if isinstance(self.data, list):
            return f"a list of {_plural(len(self.data), 'entry', 'entries')}"
        return quote(self.data)


def quote(text: str) -> str:
    """A text in quotes, on one line and not too long."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in short) + '"'


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


_NULLS = frozenset(("", "~", "null", "Null", "NULL"))


class _Stop(Exception):
    """The text is given up; the problem is in the list."""


class _Builder:
    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.anchors: dict[str, Node] = {}
        self.open: list[tuple[Node, Node | None, str | None]] = []  # container, key that waits for a value, its anchor
        self.merges: dict[int, list[Node]] = {}  # by container: what << brings, while it is open
        self.total = 0
        self.root: Node | None = None

    def problem(self, node: Node, found: str, expected: str) -> None:
        self.problems.append(Problem(node.file, node.line, node.column, found, expected, check="yaml"))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop

    def give_up(self, node: Node, found: str, expected: str) -> None:
        self.problem(node, found, expected)
        raise _Stop

    def node(self, event: yaml.Event, data: Any, quoted: bool = False) -> Node:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return Node(self.file, line, column, data, quoted)

    def value(self, node: Node) -> None:
        """A complete value goes to whoever waits for it."""
        self.total += node.size
        if self.total > MAX_NODES:
            self.give_up(node, f"more than {MAX_NODES} values, aliases counted each time", "fewer")
        if not self.open:
            self.root = node
            return
        container, key, anchor = self.open[-1]
        container.size += node.size
        if isinstance(container.data, list):
            container.data.append(node)
        elif key is None:
            if not isinstance(node.data, str):
                self.problem(node, f"{node.describe()} as a key", "a name")
                node = Node(node.file, node.line, node.column, f"\0{len(container.data)}")
            self.open[-1] = (container, node, anchor)
        else:
            self.open[-1] = (container, None, anchor)
            self.pair(container, key, node)

    def pair(self, container: Node, key: Node, node: Node) -> None:
        if key.data == "<<" and not key.quoted:
            sources = node.data if isinstance(node.data, list) else [node]
            if not all(isinstance(source.data, dict) for source in sources):
                self.problem(node, node.describe(), "a map, or a list of maps, to merge")
                return
            # What stands in the map itself wins, wherever << stands; remembered until the map ends.
            self.merges.setdefault(id(container), []).extend(sources)
            return
        if key.data in container.data:
            first = container.data[key.data][0]
            where = f"line {first.line}" if first.file == self.file else f"{first.file}:{first.line}"
            self.problem(key, f"{quote(key.data)} again", f"each name once (it stands in {where} already)")
            return
        container.data[key.data] = (key, node)

    def start(self, event: yaml.NodeEvent, data: Any) -> None:
        node = self.node(event, data)
        if len(self.open) >= MAX_DEPTH:
            self.give_up(node, f"more than {MAX_DEPTH} levels of lists and maps", "fewer")
        self.tagless(event, node)
        self.open.append((node, None, event.anchor))

    def end(self) -> None:
        node, _, anchor = self.open.pop()
        if isinstance(node.data, dict):
            for source in self.merges.pop(id(node), ()):
                for key, pair in source.data.items():
                    if key not in node.data:
                        node.data[key] = pair
                        node.size += pair[1].size
        if anchor:
            self.anchors[anchor] = node  # only now, so that nothing can contain itself
        self.value(node)

    def tagless(self, event: yaml.NodeEvent, node: Node) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self.problem(node, f"the tag {quote(str(tag))}", "no tags")

    def feed(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            quoted = event.style not in ("", None)
            text: str = event.value
            node = self.node(event, None if not quoted and text in _NULLS else text, quoted)
            if event.tag is not None:
                self.tagless(event, node)
            if event.anchor:
                self.anchors[event.anchor] = node
            self.value(node)
        elif isinstance(event, yaml.MappingStartEvent):
            self.start(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self.start(event, [])
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.end()
        elif isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor or "")
            here = self.node(event, None)
            if target is None:
                self.problem(here, f"*{event.anchor}", "an anchor that stands complete before its alias")
            self.value(here if target is None else target)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self.give_up(self.node(event, None), "a second document (---)", "one document in a file")


def _misread(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """What is wrong where YAML cannot be read, in words of those who write policies."""
    lines = text.splitlines() or [""]
    mark = error.problem_mark or error.context_mark
    row, column = (min(mark.line, len(lines) - 1), mark.column) if mark else (0, 0)
    said, line = str(error.problem), lines[row]

    def problem(row: int, column: int, found: str, expected: str, near: str = "") -> Problem:
        return Problem(file, row + 1, column + 1, found, expected, near, check="yaml")

    for at in range(max(0, row - 1), row + 1):
        for odd, name in _ODD_SPACES.items():
            if odd in lines[at].partition("#")[0]:
                return problem(at, lines[at].index(odd), name, "a plain space")
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        if "\t" in indent:
            return problem(at, indent.index("\t"), "a tab before a word", "spaces, two for each level")
    char = line[column : column + 1]
    began = error.context_mark if error.context_mark and error.context_mark.line < len(lines) else None
    if began is not None and "quoted scalar" in str(error.context):
        sign = lines[began.line][began.column : began.column + 1]
        if "escape" in said:
            return problem(row, column, "a backslash in double quotes", "single quotes around the text")
        return problem(began.line, began.column, "a quote that nothing closes", f"another {sign} at the text's end")
    if "cannot start any token" in said:
        word = re.split(r"[,\]}]\s*", line[column:])[0].strip()
        return problem(row, column, f"a text that begins with {quote(char)[1:-1]}", "it in quotes", f'"{word}"')
    if "could not find expected ':'" in said or "mapping values are not allowed" in said:
        start = began.line if began is not None else row
        for at in (start, row - 1, row):
            bare = lines[at].strip() if 0 <= at < len(lines) else ""
            if bare and ":" not in bare and not bare.startswith(("-", "#")):
                key, _, rest = bare.partition(" ")
                column = len(lines[at]) - len(lines[at].lstrip())
                return problem(at, column, f"{quote(bare)} without a colon", "NAME: VALUE", f"{key}: {rest}".strip())
        before = next((one for one in reversed(lines[:row]) if one.strip() and not one.lstrip().startswith("#")), "")
        deep, above = len(line) - len(line.lstrip(" ")), len(before) - len(before.lstrip(" "))
        if deep != above and before.strip() and not before.rstrip().endswith((":", "-")):
            found = f"a line that begins in column {deep + 1}"
            return problem(row, deep, found, f"column {above + 1}, as the line before it, or that of one above")
        if line.count(": ") > 1:
            return problem(row, column, "a second colon in one line", "a text with a colon in quotes")
        above_line = f"{quote(before.strip())} in the line before"
        return problem(row, deep, f"a name under {above_line}", "a colon at the end of a line that has more below it")
    if "did not find expected ',' or" in said:
        bracket = "}" if "'}'" in said else "]"
        entry = re.split(r"[{\[,]", line[:column])[-1]
        if char == "[" and (bare := re.split(r":\s+", entry)[-1].strip()) and line[column - 1] != " ":
            inside = re.match(r"\[[^\]]*\][^,}\]]*", line[column:])  # an element of an array, as in tag Counts[0-99]
            text = f'"{bare}{inside[0].rstrip()}"' if inside else ""
            return problem(row, column, f"a bracket in {quote(bare)} without quotes", "the text in quotes", text)
        if char == ":" and ": " in entry:
            found = f"a second colon in one entry, behind {quote(entry.strip())}"
            return problem(row, column, found, "a comma between two entries, or a text with a colon in quotes")
        if began is not None:
            found = f"{'{' if bracket == '}' else '['} that nothing closes"
            return problem(began.line, began.column, found, f"a comma between entries, and {bracket} at the end")
    at_start = not line[:column].strip()
    if "block end" in said or (at_start and ("expected key" in said or "expected '-' indicator" in said)):
        found = f"a line that begins in column {column + 1}"
        return problem(row, column, found, "the column of the lines around it")
    if "expected key" in said or "expected '-' indicator" in said:
        return problem(row, column, "a text behind one that is over", "one text: all of it in quotes, or none")
    if mark is not None and mark.line >= len(lines) and (unclosed := _unclosed(text)) is not None:
        began, sign = unclosed
        return problem(began.line, began.column, f"{sign[0]} that nothing closes", f"{sign[1]} at the end")
    context_text = f" ({error.context})" if error.context else ""
    return problem(row, column, f"what is no YAML here ({said.removeprefix('found ')}{context_text})", "YAML")


_ODD_SPACES = {
    "\u00a0": "a no-break space (U+00A0)",
    "\u2003": "an em space (U+2003)",
    "\u3000": "a wide space (U+3000)",
}


def parse(text: str, file: str, problems: list[Problem]) -> Node | None:
    """The tree of a file's text, or None where there is nothing to go on with; findings go to `problems`."""
    builder = _Builder(file, problems)
    try:
        for event in events(io.StringIO(text)):
            builder.feed(event)
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        # What was taken for a key is a piece of what is broken here.
        problems[:] = [one for one in problems if one.file != file or not one.found.endswith(" as a key")]
        problems.append(_misread(error, text, file))
        return None
    except UnicodeEncodeError as error:  # a lone surrogate, which only text that is no file's can hold
        line = error.object.count("\n", 0, error.start) + 1
        problems.append(Problem(file, line, 1, "a character that is no Unicode text", "YAML text", check="yaml"))
        return None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0) or 0
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        problems.append(Problem(file, line, column, str(reason), "YAML text", check="yaml"))
        return None
    return builder.root


def _unclosed(text: str) -> tuple[yaml.Mark, str] | None:
    """Where the innermost bracket begins that is open at the text's end, and the pair that it is of."""
    open_ones: list[tuple[yaml.Mark, str]] = []
    for token in yaml.scan(text, Loader=_EVENT_LOADER):
        if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
            open_ones.append((token.start_mark, "[]" if isinstance(token, yaml.FlowSequenceStartToken) else "{}"))
        elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken) and open_ones:
            open_ones.pop()
    return open_ones[-1] if open_ones else None
