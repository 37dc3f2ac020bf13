"""A policy's text in its normal form: `cofferdam fmt`.

Two spaces for each level, lists one level below their name, Unix line ends, no spaces at the end of a line, one blank
line where there were several, one newline at the end. Comments, quotes, the order of entries and how a line is filled
stay as people wrote them. What the text means stays as well, which is looked at: the tree of the result is that of
the text, or there is none. Not here: files (cli.fmt), what is wrong with a policy (policy.load).
"""

from __future__ import annotations

import io
import re

import yaml

from cofferdam.errors import PolicyError
from cofferdam.policy.problems import Problem
from cofferdam.policy.yamltext import events, parse

STEP = 2
_BLANK = re.compile(r"\n{3,}")


class _Block:
    """A list or map in lines of its own: from which line to which, the column that it had, and the one it gets."""

    __slots__ = ("column", "first", "last", "sequence", "to")

    def __init__(self, first: int, column: int, to: int, sequence: bool) -> None:
        self.first = first
        self.last = first
        self.column = column
        self.to = to
        self.sequence = sequence


def tidy(text: str, name: str) -> str:
    """The normal form of a text. `name` stands for the file in messages.

    Raises: PolicyError, where it is no YAML, or its normal form would mean something else."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    problems: list[Problem] = []
    before = parse(text, name, problems)
    if before is None or problems:
        raise PolicyError(f"{name} cannot be read", problems=tuple(problems), hint="cofferdam check says more")
    shifted = _shifted(text)
    stripped = "\n".join(line.rstrip() for line in shifted.split("\n"))
    plain = before.plain()
    for made in (_BLANK.sub("\n\n", stripped), stripped, shifted):
        result = made.strip("\n") + "\n"
        after = parse(result, name, problems)
        if after is not None and not problems and after.plain() == plain:
            return result
        problems.clear()
    raise PolicyError(f"{name}: its normal form would mean something else, so that it stays as it is")


def _shifted(text: str) -> str:
    """The text with each line at the column that its level has."""
    lines = text.split("\n")
    blocks = _blocks(text)
    moved: list[str] = []
    waiting: list[int] = []  # comments and blank lines go with what comes after them
    for number, line in enumerate(lines):
        body = line.lstrip(" ")
        if not body.strip() or body.startswith("#"):
            waiting.append(number)
            moved.append(line)
            continue
        indent = len(line) - len(body)
        block = _innermost(blocks, number, indent)
        delta = 0 if block is None else block.to - block.column
        for other in waiting:
            comment = lines[other].lstrip(" ")
            if comment.startswith("#"):
                deep = len(lines[other]) - len(comment)
                own = block if deep == indent else _innermost(blocks, max(0, other - 1), deep)
                move = 0 if own is None else own.to - own.column
                moved[other] = " " * max(0, deep + move) + comment
        waiting.clear()
        if block is not None and block.sequence and indent == block.column and body.startswith("- "):
            inside = next((b for b in blocks if b.first == number and b.column > indent), None)
            if inside is not None:
                body = "- " + body[1:].lstrip(" ")
        moved.append(" " * max(0, indent + delta) + body)
    return "\n".join(moved)


def _innermost(blocks: list[_Block], line: int, indent: int) -> _Block | None:
    found: _Block | None = None
    for block in blocks:  # outer ones first
        if block.first <= line <= block.last and block.column <= indent:
            found = block
    return found


def _blocks(text: str) -> list[_Block]:
    """All lists and maps in lines of their own, outer ones first."""
    found: list[_Block] = []
    stack: list[_Block | None] = []
    for event in events(io.StringIO(text)):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            mark = event.start_mark
            outside = next((block for block in reversed(stack) if block is not None), None)
            if mark is None or event.flow_style:
                stack.append(None)
                continue
            to = 0 if outside is None else outside.to + STEP
            block = _Block(mark.line, mark.column, to, isinstance(event, yaml.SequenceStartEvent))
            found.append(block)
            stack.append(block)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
        if isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent, yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            mark = event.end_mark
            for open_block in stack:
                if open_block is not None and mark is not None:
                    open_block.last = max(open_block.last, mark.line - (1 if mark.column == 0 else 0))
    return found
