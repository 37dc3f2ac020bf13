"""How a field of the policy file reads the text that stands in the file: the makers of field types.

Not here: the notations (policy.syntax), which field has which (policy.schema, policy.terms).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from cofferdam.policy import syntax
from cofferdam.policy.problems import nearest, one_of


def read_by(function: Callable[..., Any], schema: dict[str, Any]) -> tuple[PlainValidator, WithJsonSchema]:
    return PlainValidator(function), WithJsonSchema(schema)


def _file(raw: Any) -> str:
    if isinstance(raw, str) and raw.strip() and raw.isprintable() and not raw.startswith("/") and "\\" not in raw:
        return raw
    raise syntax.Expected("a file beside the policy, such as count.json")


FileName = Annotated[str, *read_by(_file, {"type": "string", "examples": ["count.json"]})]


def one_or_more(raw: Any) -> Any:
    """One entry or a list of them, as a tuple."""
    entries = raw if isinstance(raw, list) else [raw]
    if not entries:
        raise syntax.Expected("at least one entry")
    return tuple(entries)


def as_list(raw: Any) -> Any:
    """A list, as a tuple."""
    if isinstance(raw, (list, tuple)):
        return tuple(raw)
    raise syntax.Expected("a list")


def choice(*names: str) -> tuple[PlainValidator, WithJsonSchema]:
    def read(raw: Any) -> str:
        if raw in names:
            return str(raw)
        raise syntax.Expected(one_of(names), nearest(raw, names) if isinstance(raw, str) else "")

    return read_by(read, {"type": "string", "enum": list(names)})


def whole(low: int, high: int) -> tuple[PlainValidator, WithJsonSchema]:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return read_by(lambda raw: syntax.whole(raw, low, high), schema)


def one_or_list(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})


def span(low: int, high: int) -> tuple[PlainValidator, WithJsonSchema]:
    """A span of time in seconds, such as "90 days"."""
    examples = {
        "type": "string",
        "pattern": r"^\d+\s*(s|min|h|d|days?|weeks?|years?)$",
        "examples": ["90 days", "5 min"],
    }
    return read_by(lambda raw: syntax.long_span(raw, low, high), examples)


def size(low: int, high: int) -> tuple[PlainValidator, WithJsonSchema]:
    """Bytes, such as "5 MB"."""
    examples = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|kB|MB|GB|TB)$", "examples": ["5 MB"]}
    return read_by(lambda raw: syntax.size(raw, low, high), examples)


_YES = {"true": True, "false": False, "yes": True, "no": False}


def read_yes(raw: Any) -> bool:
    if isinstance(raw, str) and raw in _YES:
        return _YES[raw]
    raise syntax.Expected("true or false")


YES_NO = read_by(read_yes, {"type": "boolean"})
"""true or false."""
