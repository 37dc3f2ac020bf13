"""A JSON Schema that fits sample messages: a draft for a person to narrow. PURE.

What was seen is all that is known: each bound is that of the samples, a field is required that every sample has, and
no other field is let through. What a person has to decide stands beside it as `$comment`.

Not here: what a schema may say (policy.messages.schemas), reading of samples (json_reading).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
ENUM_MOST: Final = 8
"""Texts of which there are no more, and which come again and again, are a list of choices."""
OFTEN: Final = 4
"""How often each of them has been seen, on average, before it is believed to be one of a few."""
FIELDS_MOST: Final = 1_000
"""Names in one object: with more, names are data, and a person has to say what they are."""
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d\Z")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")


def schema_of(samples: Iterable[Any], title: str = "") -> dict[str, Any]:
    """A schema that all these values fit. Raises: ValueError, if there are none."""
    values = list(samples)
    if not values:
        raise ValueError("no samples")
    said = f"from {len(values)} samples: each bound is what was seen, to be set to what is right"
    head = {"$schema": DRAFT, **({"title": title} if title else {}), "$comment": said}
    return head | _any(values)


def _any(values: list[Any]) -> dict[str, Any]:
    kinds: dict[str, list[Any]] = {}
    for value in values:
        kinds.setdefault(_kind(value), []).append(value)
    if "integer" in kinds and "number" in kinds:
        kinds["number"] += kinds.pop("integer")
    if len(kinds) == 1:
        return _OF[next(iter(kinds))](values)
    plain = {"null", "boolean"}
    if set(kinds) - plain and len(set(kinds) - plain) == 1:
        only = next(iter(set(kinds) - plain))
        found = _OF[only](kinds[only])
        if "enum" not in found:
            return {**found, "type": [found["type"], *sorted(set(kinds) & plain)]}
    return {"anyOf": [_OF[kind](some) for kind, some in sorted(kinds.items())]}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _numbers(kind: str, values: list[Any]) -> dict[str, Any]:
    return {"type": kind, "minimum": min(values), "maximum": max(values)}


def _string(values: list[str]) -> dict[str, Any]:
    if all(map(_is_time, values)):
        return {"type": "string", "format": "date-time"}
    if all(map(_is_date, values)):
        return {"type": "string", "format": "date"}
    different = set(values)
    if len(different) <= ENUM_MOST and len(values) >= OFTEN * len(different):
        return {"enum": sorted(different)}
    return {"type": "string", "minLength": min(map(len, values)), "maxLength": max(map(len, values))}


def _is_time(text: str) -> bool:
    if not _TIME.match(text):
        return False
    try:
        datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return text[10] in "Tt"


def _is_date(text: str) -> bool:
    if not _DATE.match(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _array(values: list[list[Any]]) -> dict[str, Any]:
    sizes = list(map(len, values))
    items = [item for value in values for item in value]
    bounds = {"type": "array", "minItems": min(sizes), "maxItems": max(sizes)}
    return bounds | ({"items": _any(items)} if items else {"items": False})


def _object(values: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for value in values for name in value))
    if len(names) > FIELDS_MOST:
        return {
            "type": "object",
            "$comment": f"{len(names)} different names: are they data? Say what a name may be (propertyNames)",
            "maxProperties": max(map(len, values)),
            "additionalProperties": _any([item for value in values for item in value.values()]),
        }
    required = [name for name in names if all(name in value for value in values)]
    return {
        "type": "object",
        **({"required": required} if required else {}),
        "additionalProperties": False,
        "properties": {name: _any([value[name] for value in values if name in value]) for name in names},
    }


_OF: Final[dict[str, Callable[[list[Any]], dict[str, Any]]]] = {
    "null": lambda values: {"type": "null"},
    "boolean": lambda values: {"type": "boolean"},
    "integer": lambda values: _numbers("integer", values),
    "number": lambda values: _numbers("number", values),
    "string": _string,
    "array": _array,
    "object": _object,
}
