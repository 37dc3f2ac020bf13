"""JSON Schema 2020-12 of a channel's messages, compiled from the bytes of the policy's schema files.

Nothing is ever fetched: what a schema refers to is among the files, or the schema does not compile. Patterns go to an
engine that takes time in proportion to the text, so that no message can hang one; what such an engine cannot do
(look-around, back-references) does not compile. `format` is checked, and a format that nobody knows does not compile.

A file is known by its name in the policy (`counts.json`, `schemas/counts.json`), and by its `$id` if it has one.

Not here: reading the files (policy.load), what is done with a validator (policy.messages.checking).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

import jsonschema_rs

from cofferdam.policy.messages.doubling import doubles
from cofferdam.policy.messages.json_reading import NotJson, line_and_column, place_of, read

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
PATTERN_BYTES: Final = 1 << 20
"""What one compiled pattern may take."""
FILES_MOST: Final = 64
"""Schema files of one conduit."""
_BASE: Final = "policy:/"
_OWN: Final = "https://json-schema.org/draft/2020-12/"
"""The standard's own schemas, which the library holds."""
NOT_FETCHED: Final = "a file of the policy, or a part of this one: nothing is fetched"
_REFERENCES: Final = ("$ref", "$dynamicRef")
_MASK: Final = "the value"

_CONTAINS: Final = {
    "contains": "no element is as contains asks for",
    "minContains": "fewer elements are as contains asks for than minContains says",
    "maxContains": "more elements are as contains asks for than maxContains says",
}

Validator = jsonschema_rs.Draft202012Validator


class SchemaError(Exception):
    """A schema file is wrong. `file` is its name in the policy, line and column (from 1) say where; `found` and
    `expected` are what a finding says."""

    def __init__(self, file: str, found: str, expected: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"{file}:{line}:{column}: found {found}, expected {expected}")
        self.file = file
        self.found = found
        self.expected = expected
        self.line = line
        self.column = column


class Schemas:
    """The schema files of one conduit, parsed; validators are made of them by name."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Raises: SchemaError for the first file that cannot be read."""
        self._texts: dict[str, str] = {}
        self._parsed: dict[str, Any] = {}
        for name, data in sorted(files.items()):
            self._parsed[name], self._texts[name] = _parse(name, data)
        self._lead_somewhere()
        try:
            self._registry = jsonschema_rs.Registry(
                [(_BASE + name, parsed) for name, parsed in self._parsed.items()],
                draft=jsonschema_rs.Draft202012,
                retriever=_refuse,
            )
        except (jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError, ValueError) as error:
            raise self._astray(error) from None

    def _lead_somewhere(self) -> None:
        """Raises: SchemaError for a reference that leads out of the files. (One from a file with an `$id` is reckoned
        by the library, which finds the same, with less of a place.)"""
        known = {_id(item) for parsed in self._parsed.values() for item in _objects(parsed)}
        for name, parsed in self._parsed.items():
            named = any(_id(item) for item in _objects(parsed))
            for path, target in _references(parsed):
                file = target.partition("#")[0]
                if not file or file in known or file.startswith(_OWN):
                    continue
                if ":" in file or file.startswith("/") or (not named and _joined(name, file) not in self._parsed):
                    raise self._at(name, path, f"a reference to {target[:200]}", NOT_FETCHED)

    def _astray(self, error: Exception) -> SchemaError:
        for name, parsed in self._parsed.items():
            for path, target in _references(parsed):
                last = target.partition("#")[0].rpartition("/")[2]
                if last and last in str(error):
                    return self._at(name, path, f"a reference to {target[:200]}", NOT_FETCHED)
        return SchemaError(next(iter(self._parsed)), _first_line(str(error)), NOT_FETCHED)

    def validator(self, name: str) -> Validator:
        """What a file's schema says. Raises: SchemaError with the place, also of a fault in one of the other files."""
        if name not in self._parsed:
            raise SchemaError(name, "no such file", "a schema file of the policy")
        for each in (*sorted(set(self._parsed) - {name}), name):
            self._compile(each, None)
        return self._compile(name, _MASK)

    def doubles(self, name: str) -> int:
        """By how much a validator's work may grow with each level of a message; 1: it does not."""
        return doubles(self._parsed, name)

    def _compile(self, name: str, mask: str | None) -> Validator:
        try:
            return Validator(
                self._parsed[name],
                registry=self._registry,
                base_uri=_BASE + name,
                retriever=_refuse,
                validate_formats=True,
                ignore_unknown_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES),
                mask=mask,
            )
        except jsonschema_rs.ValidationError as error:
            raise self._wrong(name, error) from None
        except (jsonschema_rs.ReferencingError, ValueError) as error:
            raise self._astray(error) from None

    def _wrong(self, name: str, error: jsonschema_rs.ValidationError) -> SchemaError:
        path = tuple(error.instance_path)
        item = _item(self._parsed[name], path)
        if error.kind.name == "format" and isinstance(item, str):
            if not path or path[-1] == "pattern" or "patternProperties" in path or "regex" in str(error.kind.as_dict()):
                expected = "a pattern that takes time in proportion to the text: no look-around, no back-reference"
                return self._at(name, path, f"the pattern {item[:200]!r}", expected)
            return self._at(name, path, f"the format {item[:64]!r}", "a format of JSON Schema 2020-12")
        if error.kind.name == "$ref":
            return self._astray(error)
        return self._at(name, path, _first_line(error.message), "a schema of JSON Schema 2020-12")

    def _at(self, name: str, path: tuple[str | int, ...], found: str, expected: str) -> SchemaError:
        line, column = line_and_column(self._texts[name], place_of(self._texts[name], path))
        return SchemaError(name, found, expected, line, column)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:300] if text else "an error"


def _item(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"nothing is fetched, not {uri}")


def _parse(name: str, data: bytes) -> tuple[Any, str]:
    try:
        value, text = read(data)
    except NotJson as error:
        text = data.decode("utf-8", "replace")
        raise SchemaError(name, error.words, "JSON, strictly", *line_and_column(text, error.at)) from None
    if not isinstance(value, (dict, bool)):
        raise SchemaError(name, f"a schema that is {type(value).__name__}", "an object")
    for path, item in _walk(value):
        draft = item.get("$schema") if isinstance(item, dict) else None
        if isinstance(draft, str) and draft.rstrip("#") != DRAFT:
            place = line_and_column(text, place_of(text, (*path, "$schema")))
            raise SchemaError(name, f"the draft {draft[:100]}", DRAFT, *place)
    return value, text


def _walk(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each object and array of a schema with its path."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict):
            yield path, item
            stack.extend(((*path, key), each) for key, each in item.items())
        elif isinstance(item, list):
            yield path, item
            stack.extend(((*path, index), each) for index, each in enumerate(item))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (item for _, item in _walk(value) if isinstance(item, dict))


def _id(schema: dict[str, Any]) -> str:
    found = schema.get("$id")
    return found.rstrip("#") if isinstance(found, str) else ""


def _references(value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for path, item in _walk(value):
        if isinstance(item, dict):
            for word in _REFERENCES:
                if isinstance(item.get(word), str):
                    yield (*path, word), item[word]


def _joined(name: str, file: str) -> str:
    """The file that a file means by a relative path."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), file))


def named_files(name: str, data: bytes) -> tuple[str, ...]:
    """The files that a schema file refers to by a relative path, as names in the policy. A path that leads out of the
    policy's folder is left out, and so does not compile. Raises: SchemaError where the file cannot be read."""
    value, _ = _parse(name, data)
    found: dict[str, None] = {}
    for _path, target in _references(value):
        file = target.partition("#")[0]
        if file and ":" not in file and not file.startswith("/"):
            joined = _joined(name, file)
            if not joined.startswith(".."):
                found[joined] = None
    return tuple(found)


def sentence(error: jsonschema_rs.ValidationError) -> str:
    """What is wrong with a value that a validator refuses. A number is told, a text is not: reasons go into the audit
    log, and messages do not."""
    words = _first_line(error.message)
    value = error.instance
    if words.startswith(_MASK) and (value is None or isinstance(value, (bool, int, float))):
        words = words.replace(_MASK, json.dumps(value), 1)
    if error.kind.name in ("anyOf", "oneOf"):
        several = not all(error.kind.as_dict()["context"])
        words = f"the value fits {'several' if several else 'none'} of the forms that {error.kind.name} allows"
    elif error.kind.name == "contains":
        words = _CONTAINS.get(str(error.schema_path[-1]), words)
    elif error.kind.name == "falseSchema":
        words = "nothing is allowed here"
    return words
