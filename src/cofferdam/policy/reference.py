"""The policy file's reference page and JSON Schema, made from the models, so that they cannot drift from them.

Not here: writing files (cli.docs), the guide to writing policies (docs/policy.md).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from cofferdam.policy import lint, notations, schema, schema_assets
from cofferdam.policy.models import RULES, fields, models_within
from cofferdam.policy.terms.base import AnyTerms
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.whole import UnknownConduit, conduit_models, policy_model
from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.dialects import DIALECTS

# Heading, model, where its fields stand in the file.
PARTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("The file", schema.Policy, "top level"),
    ("Zones", schema.Zone, "`zones:` NAME"),
    ("Assets", schema_assets.Asset, "`assets:` NAME"),
    ("Points", schema_assets.Point, "`assets:` NAME `points:` NAME"),
    ("Methods", schema_assets.Method, "`assets:` NAME `methods:` NAME"),
    ("Notifiers", schema_assets.Notifier, "`assets:` NAME `notifiers:` NAME"),
    ("Subtrees", schema_assets.Subtree, "`assets:` NAME `browse:` NAME"),
    ("Arguments", schema_assets.Argument, "`assets:` NAME `methods:` NAME `arguments:`"),
    ("What methods return", schema_assets.Returned, "`assets:` NAME `methods:` NAME `returns:`"),
    ("Reverse", schema_assets.Reverse, "`assets:` NAME `reverse:`"),
    ("Security", schema_assets.Security, "`assets:` NAME `security:`"),
    ("Tls", schema_assets.Tls, "`assets:` NAME `tls:`"),
    ("Streams", schema_assets.Stream, "`assets:` NAME `streams:` NAME"),
    ("Principals", schema.Principal, "`principals:` NAME"),
    ("Conduits", schema.Conduit, "`conduits:` NAME"),
    ("Windows", schema.Window, "`conduits:` NAME `window:`"),
    ("Grants", schema.Grant, "`conduits:` NAME `grant:`"),
    ("Limits", schema.LimitsSection, "`limits:`"),
    ("Gate", schema.Gate, "`gate:`"),
    ("Overlay", schema.Overlay, "`overlay:`"),
    ("WireGuard", schema.WireGuard, "`overlay:` `wireguard:`"),
    ("Audit", schema.Audit, "`audit:`"),
    ("Witnesses", schema.Witness, "`audit:` `witnesses:` NAME"),
    ("Collectors", schema.Collector, "`audit:` `collectors:` NAME"),
    ("Evidence", schema.Evidence, "`evidence:`"),
)


class BrokerPart(NamedTuple):
    """What a model of one broker's conduits is called, what it is, and where its fields stand."""

    heading: str
    model: type[BaseModel]
    where: str


def broker_parts(terms: AnyTerms) -> tuple[BrokerPart, ...]:
    """The models of a broker's conduits: its own sections, what stands in them, and its rules."""
    found = [BrokerPart(terms.title, terms.conduit, "`conduits:` NAME")]
    own = set(terms.sections)
    for name, field in fields(terms.conduit).items():
        if name in own:
            found += _nested(field.annotation, f"`conduits:` NAME `{name}:`", name)
    rules = f"`conduits:` NAME `{RULES}:`"
    found.append(BrokerPart(f"{terms.title}: rules", terms.rule, rules))
    for name, field in fields(terms.rule).items():
        found += _nested(field.annotation, f"{rules} `{name}:`", name)
    return tuple(dict.fromkeys(found))


def _nested(kind: Any, where: str, heading: str) -> list[BrokerPart]:
    """The models within the type of a field, in the order in which they come."""
    found: list[BrokerPart] = []
    for model, named in models_within(kind):
        place = f"{where} NAME" if named else where
        found.append(BrokerPart(heading.capitalize(), model, place))
        for name, field in fields(model).items():
            found += _nested(field.annotation, f"{place} `{name}:`", f"{heading}: {name}")
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    whole = policy_model().model_json_schema(by_alias=True)
    parts: dict[str, Any] = whole.setdefault("$defs", {})
    parts.pop(UnknownConduit.__name__)
    parts.pop(schema.Rule.__name__)
    parts["Window"] = schema.Window.model_json_schema(by_alias=True)
    one = {"$ref": "#/$defs/Window"}
    models = conduit_models()
    for model, words in models.items():
        properties = parts[model.__name__]["properties"]
        description = properties["broker"]["description"]
        properties["broker"] = {"type": "string", "enum": list(words), "description": description, "title": "Broker"}
    kinds = [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
    names = whole["properties"]["conduits"]["patternProperties"]
    names[notations.NAME] = kinds[0] if len(kinds) == 1 else {"oneOf": kinds}
    for part in [whole, *parts.values()]:
        for field in part.get("properties", {}).values():
            if field.pop("x-windows", False):
                field["anyOf"] = [one, {"type": "array", "items": one, "minItems": 1}]
            if field.get("default", 0) in (None, [], {}):
                field.pop("default", None)
            elif "default" in field and field.get("pattern") == notations.DURATION["pattern"]:
                field["default"] = f"{field['default']} ms"
    for section in ("limits", "gate", "audit"):
        whole["properties"][section].pop("default", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://cofferdam.example/policy.schema.json",
        **whole,
    }


def schema_text() -> str:
    """The JSON Schema as it is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def part_of(path: str) -> dict[str, Any]:
    """The schema of one field and of what stands in it: `assets.points.max`, without the names that a file gives;
    `asset` is `assets` as well.

    Raises: LookupError, with the number of the word that is not there, and the names that are, in its place.
    """
    whole = json_schema()
    found = [whole]
    for number, word in enumerate(path.split(".")):
        there = [part["properties"] for one in found for part in _within(one, whole)]
        fields = [part[name] for part in there for name in (word, f"{word}s") if name in part]
        if not fields:
            raise LookupError(number, sorted({name for part in there for name in part}))
        found = [field for at, field in enumerate(fields) if field not in fields[:at]]
    said = found[0] if len(found) == 1 else {"oneOf": found}
    needed: dict[str, Any] = {}
    _gather(said, whole["$defs"], needed)
    return {"$schema": whole["$schema"], **said, **({"$defs": needed} if needed else {})}


def _within(part: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts with fields that may stand there: also in a list, and under names of the file's own."""
    if "$ref" in part:
        yield from _within(whole["$defs"][part["$ref"].rsplit("/", 1)[1]], whole)
    if part.get("properties"):
        yield part
    inner = [*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("patternProperties", {}).values()]
    for one in (*inner, part.get("items"), part.get("additionalProperties")):
        if isinstance(one, dict):
            yield from _within(one, whole)


def _gather(said: Any, parts: dict[str, Any], into: dict[str, Any]) -> None:
    """What is referred to, and what that refers to."""
    if isinstance(said, list):
        for one in said:
            _gather(one, parts, into)
    elif isinstance(said, dict):
        name = str(said.get("$ref", "")).rsplit("/", 1)[-1]
        if name in parts and name not in into:
            into[name] = parts[name]
            _gather(parts[name], parts, into)
        for one in said.values():
            _gather(one, parts, into)


def policy_reference() -> str:
    """docs/policy-reference.md."""
    whole = json_schema()
    lines = [
        "# Policy reference",
        "",
        "<!-- Generated by `cofferdam docs`; edit src/cofferdam/policy/schema*.py or policy/terms instead. -->",
        "",
        "Every field of the policy file. How to write one is in [policy.md](policy.md); `cofferdam check` says what is",
        "wrong with one, `cofferdam schema` prints the JSON Schema of this page.",
        "",
        "Names are letters, digits, `.`, `_`, `-`, at most 63.",
        "Durations carry their unit: `us`, `ms`, `s`, `min`, `h`, `d`.",
    ]
    for heading, model, where in PARTS:
        part = whole if model is schema.Policy else whole["$defs"].get(model.__name__) or _alike(whole)
        lines += _section(f"## {heading}", model, where, part)
        if model is schema.Window:
            for kind, brokers in conduit_models().items():
                lines += _broker(kind, brokers, whole)
    lines += ["", "## Protocols", ""]
    for dialect in DIALECTS.values():
        lines += _protocol(dialect)
    lines += ["", "## Warnings", "", "`cofferdam check` warns of:", ""]
    lines += [f"- {name}: {_lower(inspect.getdoc(check) or '')}" for name, check in lint.CHECKS.items()]
    return "\n".join(lines) + "\n"


def _protocol(dialect: Dialect) -> list[str]:
    lines = [f"`{dialect.name}`, default port {dialect.default_port}."]
    if dialect.spaces:
        lines[0] += " Spaces:"
        lines += ["", "| space | cells | written |", "|---|---|---|"]
        for space in dialect.spaces:
            name = f"{space.name}:N" if space.numbered else space.name
            written = "yes" if space.writable else "no"
            lines.append(f"| `{name}` | {'bits' if space.bits else '16-bit words'} | {written} |")
    if dialect.kinds:
        lines += ["", "Kinds of items:", "", "| kind | what | may be |", "|---|---|---|"]
        for kind in dialect.kinds:
            done = (("read", kind.read), ("written", kind.write), ("subscribed to", kind.watch), ("called", kind.call))
            may = [word for word, code in (*done, ("streamed", kind.open)) if code]
            lines.append(f"| `{kind.name}` | {kind.words} | {', '.join(may)} |")
        lines += ["", f"Types: {', '.join(f'`{name}`' for name in dialect.types)}."]
    lines += [
        "",
        "Functions without cells, for `functions` and `write_functions`:",
        "",
        "| code | what | may change the device |",
        "|---|---|---|",
    ]
    for code, words in dialect.codes.items():
        subs = sorted(sub for number, sub in dialect.changing if number == code)
        changes = ", ".join("all" if sub < 0 else f"{code}/{sub}" for sub in subs) or "no"
        lines.append(f"| {code} | {words} | {changes} |")
    return lines


def _alike(whole: dict[str, Any]) -> dict[str, Any]:
    """What the conduits of all brokers have."""
    parts = [whole["$defs"][model.__name__] for model in conduit_models()]
    names = list(fields(schema.Conduit))
    found = {name: parts[0]["properties"][name] for name in names}
    words = list(KINDS)
    found["broker"] = {**found["broker"], "enum": words}
    found["allow"] = schema.Conduit.model_json_schema(by_alias=True)["properties"]["allow"]
    return {"properties": found, "required": [name for name in parts[0]["required"] if name in names]}


def _broker(model: type[schema.Conduit], words: tuple[str, ...], whole: dict[str, Any]) -> list[str]:
    """What a conduit of one kind of broker may say besides."""
    terms = KINDS[words[0]]
    said = " or ".join(f"`broker: {word}`" for word in words)
    part = whole["$defs"][model.__name__]
    own = {name: part["properties"][name] for name in (*terms.sections, RULES)}
    lines = ["", f"## {terms.title}", "", f"{_flat(model)} Stands in a conduit with {said}."]
    lines += _table({"properties": own, "required": part.get("required", ())})
    for heading, inner, where in broker_parts(terms)[1:]:
        lines += _section(f"### {heading}", inner, where, whole["$defs"][inner.__name__])
    return lines


def _section(heading: str, model: type[BaseModel], where: str, part: dict[str, Any]) -> list[str]:
    return ["", heading, "", f"{_flat(model)} Stands in: {where}.", *_table(part)]


def _table(part: dict[str, Any]) -> list[str]:
    lines = ["", "| field | value | default | meaning |", "|---|---|---|---|"]
    required = set(part.get("required", ()))
    for name, field in part["properties"].items():
        default = "required" if name in required else _default(field)
        lines.append(f"| `{name}` | {_kind(field)} | {default} | {_cell(field.get('description', ''))} |")
    return lines


def _flat(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _lower(sentence: str) -> str:
    sentence = " ".join(sentence.split())
    return sentence[:1].lower() + sentence[1:]


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, (list, tuple)) and value == [0, 1, 2, 3, 4, 5, 6]:
        return "`all`"
    return f"`{value}`"


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[1]
        return _CALLED.get(name, name.lower())
    if "anyOf" in field or "oneOf" in field:
        choices = field.get("anyOf") or field["oneOf"]
        kinds = dict.fromkeys(_kind(one) for one in choices if one.get("type") != "null")
        return " or ".join(kinds)
    if field.get("examples"):
        return "such as " + ", ".join(f"`{example}`" for example in field["examples"])
    kind = field.get("type", "")
    if kind == "array":
        return f"list of {_kind(field.get('items', {}))}"
    if kind == "object":
        values = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), None)
        return f"map of name to {_kind(values)}" if isinstance(values, dict) else "map"
    if "minimum" in field and "maximum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    if "exclusiveMinimum" in field:
        most = f" and at most {field['maximum']}" if "maximum" in field else ""
        return f"number above {field['exclusiveMinimum']}{most}"
    if field.get("pattern") == notations.NAME:
        return "name"
    return str({"string": "text", "number": "number", "integer": "whole number"}.get(kind, kind))


_CALLED = {terms.conduit.__name__: "conduit" for terms in KINDS.values()}
_CALLED |= {terms.rule.__name__: "rule" for terms in KINDS.values()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
