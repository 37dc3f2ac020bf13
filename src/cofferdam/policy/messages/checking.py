"""Whether a message may go through a channel, and what is left of it: the judge of messages.

A side asks for a quick answer, the keeper asks again for good; both run this code, and a message that is refused gets
the same words from both. In this order: size, strict reading, `fields` (what is let through), `set` (constants), the
schema, `min` and `max`, the time stamp's form. What passes comes out in one canonical form, and passes again unchanged.

Places are JSON Pointers; in `fields` and limits, `*` stands for every element of an array.

Not here: limits that need a memory (the keeper's), XML (xml_checking).
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import jsonschema_rs

from cofferdam.errors import PolicyError, extra
from cofferdam.policy.messages.bounds import KEY_CHARACTERS, STEPS_MOST, allowed, clip, stamp_of
from cofferdam.policy.messages.checked import Checked, Problem, Step
from cofferdam.policy.messages.json_many import read_lines, read_lines_again, written
from cofferdam.policy.messages.json_reading import (
    DEPTH,
    NotJson,
    canonical,
    depth,
    line_and_column,
    place_of,
    pointer_of,
    read,
    read_again,
)
from cofferdam.policy.messages.schemas import Schemas, Validator, sentence
from cofferdam.policy.points.values import show
from cofferdam.policy.terms.relay_rows import Channel, Limit, Relay

WORK_MOST: Final = 1_024
"""Under a schema by which the work grows with each level of a message: so many times at most."""
Path = tuple[str | int, ...]
Lines = list[tuple[dict[str, Any], Checked | None]]
_ABSENT: Final = object()


class _Wrong(Exception):
    def __init__(self, fault: str, detail: str, path: Path) -> None:
        super().__init__()
        self.fault = fault
        self.detail = detail
        self.path = path


def pointer(text: str) -> Path:
    """The steps of a JSON Pointer. Raises: ValueError."""
    if text == "":
        return ()
    if not text.startswith("/") or re.search(r"~(?![01])", text):
        raise ValueError(f"{text} is no JSON Pointer")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))


class Checks:
    """The checks of all channels of a relay. Called with a channel's name and a body (see `checked.Check`)."""

    def __init__(self, relay: Relay) -> None:
        """Raises: SchemaError where a schema does not compile."""
        parsed: dict[str, Schemas] = {}
        self._channels: dict[str, Any] = {}
        for name, channel in relay.channels.items():
            conduit = relay.conduit_of[name]
            if channel.form == "xml":
                self._channels[name] = _xml(channel, relay.schemas[conduit])
                continue
            validator = None
            levels = DEPTH
            if channel.schema:
                if conduit not in parsed:
                    files = relay.schemas[conduit]
                    parsed[conduit] = Schemas({each: files[each] for each in files if not each.endswith(".xsd")})
                validator = parsed[conduit].validator(channel.schema)
                if (times := parsed[conduit].doubles(channel.schema)) > 1:
                    levels = max(2, int(math.log(WORK_MOST, times)))
            self._channels[name] = _Channel(channel, validator, levels)

    def __call__(self, channel: str, body: bytes) -> Checked | Problem:
        return self._of(channel).check(body)

    def _of(self, channel: str) -> _Channel:
        found: _Channel = self._channels[channel]  # or the same for XML
        return found

    def again(self, channel: str, body: bytes) -> Checked | Problem:
        """The same for a body that another process has remade; one in another form is refused as "syntax"."""
        return self._of(channel).again(body)

    def all_again(self, channel: str, bodies: Sequence[bytes]) -> list[Checked | Problem] | None:
        """`again` for many, in less time. None: they are to be asked one by one."""
        found = self._channels[channel]
        return found.all_again(bodies) if isinstance(found, _Channel) else None

    def lines(self, channel: str, lines: Sequence[bytes]) -> Lines | None:
        """Of lines that are objects, with the message as `data`: each object, and its message where that passes, or
        None: the line is to be read by itself. In place of all: each is."""
        found = self._channels[channel]
        return found.lines(lines) if isinstance(found, _Channel) else None

    def readable(self, channel: str, body: bytes) -> bytes | Problem:
        """The canonical form of a body whatever the channel says to its content: what goes into quarantine."""
        return self._of(channel).readable(body)

    def readable_value(self, channel: str, value: Any) -> bytes | Problem:
        """The same of a message that stands in a text that was read."""
        return self._of(channel).readable_value(value)

    def places(self, channel: str) -> bool:
        """Whether `judge` says where in the text something stands; for XML it says where in the message."""
        return isinstance(self._channels[channel], _Channel)

    def judge(self, channel: str, value: Any, text: str, at: Path = ()) -> Checked | Problem:
        """The same for a value that was read already and stands at a path of `text`. The value is used up."""
        return self._of(channel).judge(value, text, at)


def _xml(channel: Channel, files: Mapping[str, bytes]) -> Any:
    """A channel of XML. Its library is loaded where there is one, and by the parts of a relay when they start."""
    try:
        from cofferdam.policy.messages.xml_checking import XmlChannel
        from cofferdam.policy.messages.xml_reading import XsdSchemas
    except ImportError:
        raise PolicyError(
            f"the channel {channel.name} carries XML, and lxml is not there", hint=extra("relay")
        ) from None
    return XmlChannel(channel, XsdSchemas(files).validator(channel.schema) if channel.schema else None)


class _Channel:
    def __init__(self, channel: Channel, validator: Validator | None, levels: int) -> None:
        self.most = channel.most
        self.levels = levels
        """How deep a message may be, so that its schema cannot hold anybody up."""
        self.validator = validator
        self.refuses = channel.others == "refuse"
        self.sets = [(pointer(at), read(text.encode())[0]) for at, text in channel.set]
        self.fields: dict[str, Any] | None = None
        if channel.fields:
            self.fields = {}
            for steps in (*(pointer(at) for at in channel.fields), *(steps for steps, _ in self.sets)):
                _let_through(self.fields, steps)
        self.changes = self.fields is not None or bool(self.sets)
        """What passes may be another value than what came."""
        self.limits = [_Bound(index, limit) for index, limit in enumerate(channel.limits)]
        self.stamp = pointer(channel.stamp) if channel.stamp else None

    def readable(self, body: bytes) -> bytes | Problem:
        found = self._read(body)
        return found if isinstance(found, Problem) else self._remade(found[0])

    def readable_value(self, value: Any) -> bytes | Problem:
        return self.readable(canonical(value))

    def _remade(self, value: Any) -> bytes | Problem:
        body = canonical(value)
        if len(body) > self.most:  # [1e20] has 6 bytes and means 23
            return Problem("size", f"{len(body)} bytes once remade; at most {self.most} are taken")
        return body

    def _read(self, body: bytes) -> tuple[Any, str] | Problem:
        if len(body) > self.most:
            return Problem("size", f"{len(body)} bytes; at most {self.most} are taken")
        try:
            return read(body)
        except NotJson as error:
            line, column = line_and_column(body.decode("utf-8", "replace"), error.at)
            return Problem("syntax", clip(error.words), clip(error.pointer), line, column)

    def check(self, body: bytes) -> Checked | Problem:
        found = self._read(body)
        return found if isinstance(found, Problem) else self.judge(*found, ())

    def again(self, body: bytes) -> Checked | Problem:
        if len(body) > self.most:
            return Problem("size", f"{len(body)} bytes; at most {self.most} are taken")
        try:
            value = read_again(body)
        except NotJson as error:
            return Problem("syntax", clip(error.words))
        return self.judge(value, body, (), None if self.changes else body)

    def all_again(self, bodies: Sequence[bytes]) -> list[Checked | Problem] | None:
        if self.changes or max(map(len, bodies)) > self.most:
            return None
        values = read_lines_again(bodies)
        if values is None:
            return None
        if self._pass(values):
            return [Checked(body) for body in bodies]
        return [self.judge(value, body, (), body) for value, body in zip(values, bodies, strict=True)]

    def lines(self, lines: Sequence[bytes]) -> Lines | None:
        found = None if self.changes else read_lines(lines)
        if found is None:
            return None
        read_, plain = found
        checked: Lines = [({}, None)] * len(lines)
        good = [index for index, each in enumerate(read_) if type(each) is dict and "data" in each]
        values = [read_[index]["data"] for index in good]
        remade = written(values) if plain else list(map(canonical, values))
        alike = self._pass(values)
        for index, value, body in zip(good, values, remade, strict=True):
            if len(body) <= self.most:
                one = Checked(body) if alike else self.judge(value, lines[index], ("data",), body)
                checked[index] = (read_[index], one if isinstance(one, Checked) else None)
        return checked

    def _pass(self, values: list[Any]) -> bool:
        """Whether all of them pass, in a channel that asks for no more than its schema. (Values that were read: their
        one form is not changed, and not looked at.)"""
        if self.limits or self.stamp is not None or self.levels < DEPTH:
            return False
        return self.validator is None or all(map(self.validator.is_valid, values))

    def judge(self, value: Any, text: str | bytes, at: Path, remade: bytes | None = None) -> Checked | Problem:
        """`text`: where the value stands, looked at where something is wrong. `remade`: its one form, where that is
        known already."""
        try:
            if self.fields is not None:
                value = self._only(value, self.fields, ())
            for steps, constant in self.sets:
                value = _with(value, steps, constant)
            if self.validator is not None:
                if self.levels < DEPTH and depth(value) > self.levels:
                    raise _Wrong(
                        "schema", f"nesting deeper than {self.levels}, under a schema that doubles its work", ()
                    )
                self.validator.validate(value)
            steps_found = tuple(step for bound in self.limits for step in bound.judge(value)) if self.limits else ()
            if len(steps_found) > STEPS_MOST:
                raise _Wrong("limit", f"{len(steps_found)} values under limits; at most {STEPS_MOST} are taken", ())
            stamp = -1 if self.stamp is None else _stamp(value, self.stamp)
        except jsonschema_rs.ValidationError as error:
            return _problem("schema", sentence(error), tuple(error.instance_path), text, at)
        except _Wrong as wrong:
            return _problem(wrong.fault, wrong.detail, wrong.path, text, at)
        body = self._remade(value) if remade is None else remade
        return body if isinstance(body, Problem) else Checked(body, stamp, steps_found)

    def _only(self, value: Any, fields: dict[str, Any], path: Path) -> Any:
        """What of a value is let through; what else came is dropped or refused. `fields` is one level of the tree of
        pointers, where an empty level lets everything beneath it through."""
        if not fields:
            return value
        if isinstance(value, dict):
            kept = {}
            for name, item in value.items():
                if name in fields:
                    found = self._only(item, fields[name], (*path, name))
                    if found is not _ABSENT:
                        kept[name] = found
                elif self.refuses:
                    raise _Wrong("fields", "a field that the channel does not let through", (*path, name))
            return kept
        if isinstance(value, list) and "*" in fields:
            found = [self._only(item, fields["*"], (*path, index)) for index, item in enumerate(value)]
            return [item for item in found if item is not _ABSENT]
        if self.refuses:
            raise _Wrong("fields", "a value where the channel lets only fields of it through", path)
        return _ABSENT if path else {}


def _let_through(fields: dict[str, Any], steps: Path) -> None:
    """Adds a pointer to the tree. An empty level means all, so the wider of two pointers wins."""
    if not steps:
        fields.clear()
        return
    level = fields
    for index, step in enumerate(steps):
        known = str(step) in level
        below = level.setdefault(str(step), {})
        if known and not below:
            return  # everything beneath it is let through already
        if index == len(steps) - 1:
            below.clear()
        level = below


def _with(value: Any, steps: Path, constant: Any) -> Any:
    """The value with a constant at a place; objects on the way are made where they are missing."""
    if not steps:
        return copy.deepcopy(constant)
    top = value
    for index, step in enumerate(steps):
        if not isinstance(value, dict):
            raise _Wrong("fields", "no object, and a constant belongs into it", steps[:index])
        if index == len(steps) - 1:
            value[str(step)] = copy.deepcopy(constant)
        else:
            value = value.setdefault(str(step), {})
    return top


def _matches(value: Any, steps: Path, path: Path = (), indices: Path = ()) -> Iterator[tuple[Any, Path, Path]]:
    """(value, its path, the indices that stood for `*`) of each place that a pointer names and the message has."""
    for number, step in enumerate(steps):
        if isinstance(value, list) and step == "*":
            for index, item in enumerate(value):
                yield from _matches(item, steps[number + 1 :], (*path, index), (*indices, index))
            return
        if isinstance(value, dict) and step in value:
            value, path = value[step], (*path, step)
        elif isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
            value, path = value[int(step)], (*path, int(step))
        else:
            return
    yield value, path, indices


class _Bound:
    """One limit of a channel."""

    def __init__(self, index: int, limit: Limit) -> None:
        self.index = index
        self.limit = limit
        self.steps = pointer(limit.at)
        self.key = pointer(limit.key)
        self.plain = len(self.steps) == 1 and "*" not in self.steps
        self.remembers = limit.max_step is not None or limit.per_minute > 0
        self.numeric = limit.min is not None or limit.max is not None or limit.max_step is not None

    def judge(self, value: Any) -> Iterator[Step]:
        """Raises: _Wrong for a value out of its bounds."""
        limit = self.limit
        if self.plain and type(value) is dict:
            found = value.get(self.steps[0], _ABSENT)
            places: Iterable[tuple[Any, Path, Path]] = () if found is _ABSENT else ((found, self.steps, ()),)
        else:
            places = _matches(value, self.steps)
        for found, path, indices in places:
            number = found if type(found) in (int, float) else 0
            if self.numeric and type(found) not in (int, float):
                raise _Wrong("limit", "no number, and limits hold for it", path)
            if (limit.min is not None and number < limit.min) or (limit.max is not None and number > limit.max):
                raise _Wrong("limit", f"{show(number)} is asked; {allowed(limit)}", path)
            if self.remembers:
                yield Step(self.index, self._series(value, indices), number)

    def _series(self, value: Any, indices: Path) -> str:
        if not self.limit.key:
            return ""
        if len(self.key) == 1 and type(value) is dict:
            item = value.get(self.key[0])
            if type(item) is str and len(item) < KEY_CHARACTERS // 6:
                return canonical(item).decode()
        left = iter(indices)
        steps = tuple(next(left, step) if step == "*" else step for step in self.key)
        item, path, _ = next(_matches(value, steps), (None, (), ()))
        if isinstance(item, (dict, list)):
            raise _Wrong("limit", "no text and no number, and limits are reckoned by it", path)
        name = canonical(item).decode()
        if len(name) > KEY_CHARACTERS:
            raise _Wrong("limit", f"a name of {len(name)} characters; at most {KEY_CHARACTERS} are taken", path)
        return name


def _stamp(value: Any, steps: Path) -> int:
    """UTC ns of a message's own time. Raises: _Wrong."""
    item, path, _ = next(_matches(value, steps), (_ABSENT, (), ()))
    if item is _ABSENT:
        raise _Wrong("stamp", f"no time stamp at {pointer_of(steps)}", ())
    stamp = stamp_of(item)
    if isinstance(stamp, str):
        raise _Wrong("stamp", stamp, path)
    return stamp


def _problem(fault: str, detail: str, path: Path, text: str | bytes, at: Path) -> Problem:
    text = text if isinstance(text, str) else text.decode()
    line, column = line_and_column(text, place_of(text, (*at, *path)))
    return Problem(fault, clip(detail), pointer_of(path), line, column)


def located(problem: Problem, body: bytes, at: Path = ()) -> Problem:
    """A problem that another process found in a message's remade form, with its place in the text that was sent."""
    try:
        text = body.decode()
        line, column = line_and_column(text, place_of(text, (*at, *pointer(problem.place))))
    except ValueError:
        line = column = 0
    return Problem(problem.fault, problem.detail, problem.place, line, column)


def show_constants(constants: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """`set:` as rows have it: (place, JSON text), sorted."""
    return tuple(sorted((at, json.dumps(value, sort_keys=True)) for at, value in constants.items()))
