"""Reads the catalogue: checks, clocks and frameworks from YAML files, with the place of each thing that is wrong.

A framework of one's own is a file like those in `data`, held to the same rules.

Not here: what the words mean (model).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from datetime import date
from importlib import resources
from pathlib import Path

import msgspec

from cofferdam.errors import PolicyError
from cofferdam.evidence.model import EXPORT, STRENGTH, Catalogue, Check, Clock, Control, Framework, seconds
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.yamltext import Node, parse

FRAMEWORKS = ("iec62443-3-3", "iec62443-3-2", "nerc-cip", "nist-800-53r5", "nis2")
"""Those that ship, in the order in which they are shown."""
ROOMS = ("house", "jump", "console", "patch", "diode", "mirror", "relay", "opcua", "enip", "ha", EXPORT)
BY = ("gate", "part", "operator", "outside")
SPECIAL = {"asked": 0, "event": -1}
MAX_FRAMEWORK_BYTES = 1 << 20
FRAMEWORK = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
FORMULA = ("=", "+", "-", "@", " ")
"""What a control's name does not begin with: a table of them is opened by a spreadsheet."""
OWN = "A framework of the site's own, which does not ship with the product: its words and its checks are the site's."


class _Reading:
    """One file."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        root = parse(text, file, self.problems)
        self.root = root if root is not None else Node(file, 1, 1, {})

    def wrong(self, node: Node, found: str, expected: str, near: str = "") -> None:
        self.problems.append(Problem(node.file, node.line, node.column, found, expected, near, check="evidence"))

    def map(self, node: Node, what: str) -> dict[str, tuple[Node, Node]]:
        if isinstance(node.data, dict):
            found: dict[str, tuple[Node, Node]] = node.data
            return found
        self.wrong(node, node.describe(), f"a map of {what}")
        return {}

    def fields(self, node: Node, known: Iterable[str], needed: Iterable[str]) -> dict[str, Node]:
        """The fields of an entry; unknown and missing ones are findings."""
        names = tuple(known)
        found: dict[str, Node] = {}
        for name, (key, value) in self.map(node, "fields").items():
            if name in names:
                found[name] = value
            else:
                self.wrong(key, f'the field "{name}"', one_of(names), nearest(name, names))
        for name in needed:
            if name not in found:
                self.wrong(node, f"no {name}", f"the field {name}")
        return found

    def text(self, node: Node | None, default: str = "") -> str:
        if node is None:
            return default
        if isinstance(node.data, str) and node.data.strip() and len(node.data) <= 500 and "\n" not in node.data:
            return node.data
        self.wrong(node, node.describe(), "a sentence in one line, at most 500 letters")
        return default

    def names(self, node: Node | None, known: Iterable[str] | None, what: str) -> tuple[str, ...]:
        if node is None:
            return ()
        if not isinstance(node.data, list):
            self.wrong(node, node.describe(), f"a list of {what}")
            return ()
        found = []
        for one in node.data:
            name = self.text(one)
            if known is not None and name not in known:
                valid = tuple(known)
                self.wrong(one, f'"{name}"', f"the name of one of the {what}", nearest(name, valid))
            elif name in found:
                self.wrong(one, f'"{name}" again', f"each of the {what} once")
            else:
                found.append(name)
        return tuple(found)

    def choice(self, node: Node | None, known: tuple[str, ...], default: str) -> str:
        if node is None:
            return default
        if node.data in known:
            return str(node.data)
        self.wrong(node, node.describe(), one_of(known), nearest(str(node.data), known))
        return default

    def number(self, node: Node | None, read: Callable[[str], int], expected: str) -> int:
        if node is None:
            return 0
        try:
            return read(str(node.data))
        except ValueError:
            self.wrong(node, node.describe(), expected)
            return 0


def _often(text: str) -> int:
    return SPECIAL[text] if text in SPECIAL else seconds(text)


def _level(text: str) -> int:
    if text not in ("1", "2", "3", "4"):
        raise ValueError(text)
    return int(text)


def _check(reading: _Reading, name: str, node: Node) -> Check:
    fields = reading.fields(
        node, ("best", "every", "valid", "room", "from", "says"), ("best", "every", "valid", "says")
    )
    every = reading.number(fields.get("every"), _often, "a duration such as 24 h, `asked` or `event`")
    valid = reading.number(fields.get("valid"), seconds, "a duration such as 35 d")
    if every > valid > 0:
        reading.wrong(fields["valid"], fields["valid"].describe(), "at least as long as `every`")
    return Check(
        name,
        reading.choice(fields.get("best"), STRENGTH, "observed"),
        every,
        valid,
        reading.choice(fields.get("room"), ROOMS, "house"),
        reading.text(fields.get("from")),
        reading.text(fields.get("says")),
    )


def _clock(reading: _Reading, name: str, node: Node) -> Clock:
    fields = reading.fields(node, ("after", "remind", "for", "done"), ("after", "done"))
    after = reading.number(fields.get("after"), seconds, "a duration such as 35 d")
    remind = reading.number(fields.get("remind"), seconds, "a duration such as 5 d")
    if after and remind >= after:
        reading.wrong(fields["remind"], fields["remind"].describe(), "less than `after`")
    return Clock(
        name, after, remind, reading.names(fields.get("for"), None, "requirements"), reading.text(fields.get("done"))
    )


_CONTROL = ("says", "by", "theme", "checks", "rest", "level", "from", "compare", "clock", "needs")


def _control(reading: _Reading, name: str, node: Node, checks: dict[str, Check], themes: tuple[str, ...]) -> Control:
    fields = reading.fields(node, _CONTROL, ("says", "by", "theme"))
    if not name.isprintable() or name.startswith(FORMULA) or not 0 < len(name) <= 64:
        reading.wrong(node, f'"{name}"', "a control's name in one line, that begins with none of = + - @")
    by = reading.choice(fields.get("by"), BY, "gate")
    rest = reading.text(fields.get("rest"))
    named = reading.names(fields.get("checks"), checks, "checks")
    needs = reading.names(fields.get("needs"), named, "control's checks")
    if by == "part" and not rest:
        reading.wrong(node, "`by: part` without its rest", "`rest`: what the operator shows")
    if by != "part" and rest:
        reading.wrong(fields["rest"], f"a rest with `by: {by}`", "`rest` with `by: part` alone")
    if by == "outside" and named:
        reading.wrong(fields["checks"], "checks of a control that is outside", "none")
    if by != "outside" and "checks" not in fields:
        reading.wrong(node, "no checks", "`checks`, or `by: outside`")
    if by == "operator" and any(checks[one].best != "attested" for one in named):
        reading.wrong(fields["checks"], "a check that no person signs", "checks whose best is attested")
    starts = reading.text(fields.get("from"))
    if starts:
        try:
            date.fromisoformat(starts)
        except ValueError:
            reading.wrong(fields["from"], fields["from"].describe(), "a day such as 2028-04-01")
    return Control(
        name, reading.text(fields.get("says")), by, reading.names(fields.get("theme"), themes, "themes"),  # type: ignore[arg-type]
        named, rest, reading.number(fields.get("level"), _level, "a security level from 1 to 4"), starts,
        reading.choice(fields.get("compare"), ("yes", "no"), "no") == "yes",
        reading.number(fields.get("clock"), seconds, "a duration such as 35 d"), needs,
    )  # fmt: skip


def read_checks(file: str, text: str) -> Catalogue:
    """Checks, clocks and themes, without any framework. Raises: PolicyError."""
    reading = _Reading(file, text)
    sections = reading.fields(reading.root, ("themes", "clocks", "checks"), ("themes", "clocks", "checks"))
    themes = reading.names(sections.get("themes"), None, "themes")
    empty = Node(file, 1, 1, {})
    clocks = {
        name: _clock(reading, name, node)
        for name, (_, node) in reading.map(sections.get("clocks", empty), "clocks").items()
    }
    checks = {
        name: _check(reading, name, node)
        for name, (_, node) in reading.map(sections.get("checks", empty), "checks").items()
    }
    _refuse(reading)
    return Catalogue(themes, clocks, checks, {})


def read_framework(file: str, text: str, base: Catalogue) -> Framework:
    """One framework over the checks of `base`. Raises: PolicyError, with every finding."""
    reading = _Reading(file, text)
    sections = reading.fields(
        reading.root, ("framework", "title", "note", "controls"), ("framework", "title", "controls")
    )
    controls = {
        name: _control(reading, name, node, base.checks, base.themes)
        for name, (_, node) in reading.map(sections.get("controls", Node(file, 1, 1, {})), "controls").items()
    }
    name = reading.text(sections.get("framework"))
    if name and (not FRAMEWORK.fullmatch(name) or len(name) > 64):
        reading.wrong(sections["framework"], f'"{name}"', "small letters, digits, dots and dashes")
    if name in base.frameworks:
        reading.wrong(sections["framework"], f'"{name}"', "a name that no framework has yet")
    _refuse(reading)
    return Framework(name, reading.text(sections.get("title")), reading.text(sections.get("note")), controls)


def _refuse(reading: _Reading) -> None:
    if reading.problems:
        raise PolicyError(f"{reading.file} is not understood", problems=tuple(reading.problems))


@functools.cache
def catalogue() -> Catalogue:
    """What ships with the product."""
    folder = resources.files("cofferdam.evidence") / "data"
    base = read_checks("checks.yaml", (folder / "checks.yaml").read_text("utf-8"))
    for name in FRAMEWORKS:
        found = read_framework(f"{name}.yaml", (folder / f"{name}.yaml").read_text("utf-8"), base)
        base = Catalogue(base.themes, base.clocks, base.checks, {**base.frameworks, found.id: found})
    return base


def with_own(base: Catalogue, files: Iterable[Path]) -> Catalogue:
    """With frameworks of one's own. Raises: PolicyError, naming file and line."""
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
        if len(raw) > MAX_FRAMEWORK_BYTES:
            raise PolicyError(f"{path} is larger than {MAX_FRAMEWORK_BYTES} bytes")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise PolicyError(f"{path} is not UTF-8: byte {error.start}") from None
        found = read_framework(str(path), text, base)
        found = msgspec.structs.replace(found, note=f"{OWN} {found.note}".strip())
        base = Catalogue(base.themes, base.clocks, base.checks, {**base.frameworks, found.id: found})
    return base
