"""Whether an XML message may go through a channel, and what is left of it: as `checking`, for XML.

Places are a small part of XPath: `/Order/Line/Quantity`, `/Order/@number`. A name means the element in any namespace;
where several stand side by side it means all of them. In `by`, the steps that both places share mean the same elements:
by `/Order/Line/Article`, the quantity of each line belongs to that line's article.

Not here: reading (xml_reading), limits that need a memory (the keeper's).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from cofferdam.policy.messages.bounds import KEY_CHARACTERS, STEPS_MOST, allowed, clip, stamp_of
from cofferdam.policy.messages.checked import Checked, Problem, Step
from cofferdam.policy.messages.json_reading import canonical
from cofferdam.policy.messages.xml_reading import Element, NotXml, canonical_xml, etree, local_name, place_of, read_xml
from cofferdam.policy.points.values import show
from cofferdam.policy.terms.relay_rows import Channel, Limit

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?\Z", re.ASCII)

NO_TEXT: Final = "no text: an XML message stands as a text in JSON"

Steps = tuple[str, ...]
Found = tuple[Element, str, tuple[Element, ...]]
"""(the element, its text or its attribute's, the elements on the way to it, itself last)."""


class _Wrong(Exception):
    def __init__(self, fault: str, detail: str, element: Element, attribute: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.detail = detail
        self.element = element
        self.attribute = attribute


def steps_of(place: str) -> Steps:
    """The steps of a place."""
    return tuple(place.split("/")[1:]) if place else ()


class XmlChannel:
    """One channel's checks."""

    def __init__(self, channel: Channel, validator: Any) -> None:
        self.most = channel.most
        self.validator = validator
        self.refuses = channel.others == "refuse"
        self.sets = [(steps_of(at), _text(json.loads(text))) for at, text in channel.set]
        self.fields: dict[str, Any] | None = None
        if channel.fields:
            self.fields = {}
            for steps in (*map(steps_of, channel.fields), *(steps for steps, _ in self.sets)):
                _let_through(self.fields, steps)
        self.limits = list(enumerate(channel.limits))
        self.stamp = steps_of(channel.stamp) if channel.stamp else None

    def readable(self, body: bytes) -> bytes | Problem:
        """Its one form, whatever the channel says to its content."""
        found = self._read(body)
        return found if isinstance(found, Problem) else self._remade(found)

    def _read(self, body: bytes) -> Element | Problem:
        if len(body) > self.most:
            return Problem("size", f"{len(body)} bytes; at most {self.most} are taken")
        try:
            return read_xml(body)
        except NotXml as error:
            return Problem("syntax", clip(error.words), error.place, error.line, error.column)

    def _remade(self, root: Element) -> bytes | Problem:
        try:
            body = canonical_xml(root)
        except NotXml as error:
            return Problem("syntax", clip(error.words), "", error.line, 0)
        if len(body) > self.most:
            return Problem("size", f"{len(body)} bytes once remade; at most {self.most} are taken")
        return body

    def readable_value(self, value: Any) -> bytes | Problem:
        """The same of one that stands as a text in JSON."""
        return self.readable(value.encode()) if isinstance(value, str) else Problem("syntax", NO_TEXT)

    def judge(self, value: Any, text: str, at: Any) -> Checked | Problem:
        """The same for a message that stands as a text in a line or an event."""
        if not isinstance(value, str):
            return Problem("syntax", NO_TEXT)
        return self.check(value.encode())

    def again(self, body: bytes) -> Checked | Problem:
        """The same for a body that another process has remade."""
        root = self._read(body)
        if isinstance(root, Problem):
            return root
        if self._remade(root) != body:
            return Problem("syntax", "another form than the one that messages are remade in")
        return self._judge(root)

    def check(self, body: bytes) -> Checked | Problem:
        root = self._read(body)
        return root if isinstance(root, Problem) else self._judge(root)

    def _judge(self, root: Element) -> Checked | Problem:
        try:
            if self.fields is not None:
                self._only(root, self.fields.get(local_name(root)))
            for steps, text in self.sets:
                _set(root, steps, text)
            if problem := self._fits(root):
                return problem
            found = tuple(self._bounds(root))
            if len(found) > STEPS_MOST:
                raise _Wrong("limit", f"{len(found)} values under limits; at most {STEPS_MOST} are taken", root)
            stamp = -1
            if self.stamp is not None:
                stamp = self._stamp(root, self.stamp)
        except _Wrong as wrong:
            place = place_of(wrong.element) + (f"/@{wrong.attribute}" if wrong.attribute else "")
            return Problem(wrong.fault, clip(wrong.detail), clip(place), wrong.element.sourceline or 0, 0)
        body = self._remade(root)
        return body if isinstance(body, Problem) else Checked(body, stamp, found)

    def _fits(self, root: Element) -> Problem | None:
        if self.validator is None:
            return None
        try:
            if self.validator.validate(root):
                return None
        except etree.XMLSchemaValidateError:
            return Problem("schema", "it cannot be told in a bounded time whether a text fits a pattern")
        error = self.validator.error_log[0]
        place = re.sub(r"\*\[(\d+)\]", r"*[\1]", error.path or "")
        words = re.sub(r"\{[^}]*\}", "", error.message)
        # The value itself is not told: reasons go into the audit log, and messages do not.
        words = re.sub(r": '.*' is not a valid value", ": this is not a valid value", words, flags=re.DOTALL)
        words = re.sub(r"\[facet '(\w+)'\] The value '.*' (is|has)", r"[\1] the value \2", words, flags=re.DOTALL)
        return Problem("schema", clip(words), clip(place), max(0, error.line), 0)

    # --- fields, constants, limits ------------------------------------------------------------------------------

    def _only(self, element: Element, fields: dict[str, Any] | None) -> None:
        """Takes away what is not let through. `fields`: a level of the tree of places, an empty one lets all through;
        None: the element itself is not among them."""
        if fields is None:
            raise _Wrong("fields", "an element that the channel does not let through", element)
        if not fields:
            return
        for name in list(element.attrib):
            if f"@{etree.QName(str(name)).localname}" not in fields:
                if self.refuses:
                    words = "an attribute that the channel does not let through"
                    raise _Wrong("fields", words, element, etree.QName(str(name)).localname)
                del element.attrib[name]
        if (element.text or "").strip() and self.refuses:
            raise _Wrong("fields", "a text where the channel lets only fields of it through", element)
        element.text = None
        for child in list(element):
            below = fields.get(local_name(child))
            if below is None:
                if self.refuses:
                    raise _Wrong("fields", "an element that the channel does not let through", child)
                element.remove(child)
            else:
                child.tail = None
                self._only(child, below)

    def _bounds(self, root: Element) -> Iterator[Step]:
        for index, limit in self.limits:
            remembers = limit.max_step is not None or limit.per_minute > 0
            numeric = limit.min is not None or limit.max is not None or limit.max_step is not None
            for element, text, way in _matches(root, steps_of(limit.at)):
                number = _number(text)
                attribute = limit.at.rpartition("@")[2] if "@" in limit.at else ""
                if numeric and number is None:
                    raise _Wrong("limit", "no number, and limits hold for it", element, attribute)
                value = number or 0
                if (limit.min is not None and value < limit.min) or (limit.max is not None and value > limit.max):
                    raise _Wrong("limit", f"{show(value)} is asked; {allowed(limit)}", element, attribute)
                if remembers:
                    yield Step(index, self._series(root, limit, way), value)

    def _series(self, root: Element, limit: Limit, way: tuple[Element, ...]) -> str:
        if not limit.key:
            return ""
        at, by = steps_of(limit.at), steps_of(limit.key)
        shared = 0
        while shared < min(len(at), len(by), len(way)) and at[shared] == by[shared]:
            shared += 1
        top = way[shared - 1] if shared else root
        found = next(_below(top, by[shared:], ()), None) if shared else next(_matches(root, by), None)
        name = canonical(found[1]).decode() if found is not None else "null"
        if len(name) > KEY_CHARACTERS:
            raise _Wrong("limit", f"a name of {len(name)} characters; at most {KEY_CHARACTERS} are taken", top)
        return name

    def _stamp(self, root: Element, steps: Steps) -> int:
        found = next(_matches(root, steps), None)
        if found is None:
            raise _Wrong("stamp", f"no time stamp at /{'/'.join(steps)}", root)
        stamp = stamp_of(found[1])
        if isinstance(stamp, str):
            raise _Wrong("stamp", stamp, found[0])
        return stamp


def _let_through(fields: dict[str, Any], steps: Steps) -> None:
    level = fields
    for index, step in enumerate(steps):
        known = step in level
        below = level.setdefault(step, {})
        if known and not below:
            return
        if index == len(steps) - 1:
            below.clear()
        level = below


def _matches(root: Element, steps: Steps) -> Iterator[Found]:
    """What a place means in a message."""
    if not steps:
        yield root, "", (root,)
    elif steps[0] == local_name(root):
        yield from _below(root, steps[1:], (root,))


def _below(element: Element, steps: Steps, way: tuple[Element, ...]) -> Iterator[Found]:
    if not steps:
        yield element, "".join(element.itertext()).strip(), way
    elif steps[0].startswith("@"):
        for name, value in element.attrib.items():
            if etree.QName(str(name)).localname == steps[0][1:]:
                yield element, str(value).strip(), way
    else:
        for child in element:
            if local_name(child) == steps[0]:
                yield from _below(child, steps[1:], (*way, child))


def _number(text: str) -> int | float | None:
    if _NUMBER.match(text) is None:
        return None
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("a constant of XML is a text, a number, true or false")
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _set(root: Element, steps: Steps, text: str) -> None:
    """Puts a constant into the message. An element that is missing comes last, in the namespace of its parent."""
    if not steps or steps[0] != local_name(root):
        raise _Wrong("fields", "another element than the one that a constant belongs into", root)
    element = root
    for step in steps[1:]:
        if step.startswith("@"):
            element.set(step[1:], text)
            return
        found = next((child for child in element if local_name(child) == step), None)
        if found is None:
            space = etree.QName(element).namespace
            found = etree.SubElement(element, f"{{{space}}}{step}" if space else step)
        element = found
    for child in list(element):
        element.remove(child)
    element.text = text
