"""Which model reads which part of a policy file, found by walking the models themselves, and what an error in a part
is called: what stands there, what should, and the nearest name.

So an error in one broker's words reads like any other, and a broker adds nothing here.

Not here: the models (policy.schema, policy.terms), finding the errors (policy.load).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cofferdam.policy import schema
from cofferdam.policy.document import Document, Path
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.syntax import near_name
from cofferdam.policy.terms.kinds import KINDS, Kinds, dialects
from cofferdam.policy.terms.whole import conduit_model
from cofferdam.policy.yamltext import quote

MOST_NAMES = 30
"""Names that an expectation lists."""
RULES = "allow"


class Step(NamedTuple):
    """One step into the file: a field of a model, a name of a map, or a place in a list, and what is there."""

    kind: str  # field, name, item
    model: type[BaseModel] | None
    field: FieldInfo | None = None


class Models:
    """The models behind one file."""

    def __init__(self, document: Document, kinds: Kinds = KINDS) -> None:
        self._document = document
        self._kinds = kinds

    def walk(self, path: Path) -> list[Step]:
        """A step for each part of a path, as far as models know it."""
        found: list[Step] = []
        there: Any = schema.Policy
        for number, step in enumerate(path):
            there = _bare(there)
            if isinstance(there, type) and issubclass(there, BaseModel):
                field = fields(there).get(str(step))
                if field is None:
                    break
                there = field.annotation
                found.append(Step("field", _model(there), field))
                continue
            there, kind = _within(there)
            if there is None:
                break
            if there is schema.Conduit and number == 1:
                there = conduit_model(self._document.value((*path[:2], "broker")).node.data, self._kinds)
            found.append(Step(kind, _model(there)))
        return found

    def model(self, path: Path) -> type[BaseModel] | None:
        """The model of what stands at a path; None if it is none."""
        if not path:
            return schema.Policy
        steps = self.walk(path)
        return steps[-1].model if len(steps) == len(path) else None

    def entry(self, path: Path, kind: str) -> Path:
        """The smallest part around a wrong field that can be left out, so that the rest can be looked at: a rule, an
        entry of a map within an entry, an optional field, or the entry."""
        if not path or (len(path) == 1 and path[0] not in schema.Policy.model_fields):
            return ()
        steps = self.walk(path)
        if len(steps) < 2 or steps[1].kind != "name":
            return path[:1]
        if self._of_a_name(path):
            path = path[:-1]
        if path[0] == "conduits" and len(path) >= 4 and path[2] == RULES:
            return path[:4]
        if len(steps) >= 4 and steps[2].kind == "field" and steps[3].kind == "name" and steps[3].model is not None:
            return path[:4]
        if len(path) >= 3 and kind != "missing":
            field = steps[2].field if len(steps) > 2 else None
            if field is None or not field.is_required():
                return path[:3]
        return path[:2]

    # --- errors

    def problems(self, errors: Iterable[tuple[Any, Path]]) -> list[Problem]:
        """Pydantic's errors, each with its place in the file, as findings."""
        found = list(errors)
        # Whoever uses another broker's words is told of those, and not of the own ones that are missing then.
        foreign = {path[:-1] for item, path in found if item["type"] == "extra_forbidden" and self._others(path)}
        return [
            self._problem(item, path)
            for item, path in found
            if not (item["type"] == "missing" and path[:-1] in foreign)
        ]

    def meant(self, path: Path) -> str:
        """The field that is meant by one that nobody knows, if the entry has no such field; else ""."""
        model = self.model(path[:-1])
        near = nearest(str(path[-1]), fields(model)) if model else ""
        return "" if not near or self._document.says(path[:-1], near) or self._others(path) else near

    def _problem(self, item: Any, path: Path) -> Problem:
        kind, document = item["type"], self._document
        if kind == "missing":
            model = self.model(path[:-1])
            field = _sentence(model, str(path[-1])) if model else ""
            what = f"{self._noun(path[:-1])} without {path[-1]}"
            return document.key(path[:-1]).problem(what, f"{path[-1]}: {field}".rstrip(": "), check="missing")
        if kind == "extra_forbidden":
            return self.unknown_field(path)
        if self._of_a_name(path):
            said = str(path[-2])
            return document.key(path[:-1]).problem(quote(said), item["ctx"]["what"], near_name(said), check="name")
        place = document.value(path)
        if kind == "expected":
            near = item["ctx"]["near"] or self._word(path)
            return place.problem(place.node.describe(), item["ctx"]["what"], near, check="value")
        expected = {
            "dict_type": "a map", "model_type": self._map(path), "model_attributes_type": "a map",
            "tuple_type": "a list",
        }  # fmt: skip
        return place.problem(place.node.describe(), expected.get(kind, str(item["msg"])), check="value")

    def _map(self, path: Path) -> str:
        """What is expected where a map of fields is: those that it has to have."""
        model = self.model(path)
        wanted = [name for name, field in fields(model).items() if field.is_required()] if model else []
        if model is None or not wanted:
            return "a map"
        return "a map with " + (
            f"{wanted[0]}: {_sentence(model, wanted[0])}" if len(wanted) == 1 else ", ".join(wanted)
        )

    def _word(self, path: Path) -> str:
        """The protocol or broker that is meant by what is not even a name."""
        known = {"protocol": dialects(self._kinds), "broker": self._kinds}.get(str(path[-1]), {})
        said = self._document.value(path).node.data
        return nearest(said, known) if isinstance(said, str) else ""

    def unknown_field(self, path: Path) -> Problem:
        """The error of a field that nobody knows."""
        model = self.model(path[:-1])
        name = str(path[-1])
        known = list(fields(model)) if model else []
        found = f"the field {quote(name)}"
        # What a model without fields is for says its first sentence.
        expected = one_of(known, MOST_NAMES) if known else (model.__doc__ or "nothing").split(".")[0] if model else ""
        others = self._others(path)
        if others:
            broker = self._broker(path)
            found += f", a word of {' and '.join(others)}, in {'a conduit' if len(path) == 3 else 'a rule'} of {broker}"
        return self._document.key(path).problem(found, expected, nearest(name, known), check="field")

    def _of_a_name(self, path: Path) -> bool:
        """Whether an error is about a name in a map, and not about what stands under it: pydantic puts "[key]" behind
        the name, which may also be a name that somebody wrote."""
        return len(path) > 1 and path[-1] == "[key]" and "[key]" not in self._document.names(*map(str, path[:-1]))

    def _broker(self, path: Path) -> str:
        return str(self._document.value((*path[:2], "broker")).node.data)

    def _others(self, path: Path) -> list[str]:
        """The brokers that know a field of a conduit or of a rule which this conduit's broker does not."""
        if path[0] != "conduits" or not (len(path) == 3 or (len(path) == 5 and path[2] == RULES)):
            return []
        name, broker = str(path[-1]), self._broker(path)
        if broker not in self._kinds:
            return []
        return [
            word
            for word, terms in self._kinds.items()
            if word != broker and name in fields(terms.conduit if len(path) == 3 else terms.rule)
        ]

    def _noun(self, path: Path) -> str:
        """What a part of the file is called."""
        if not path:
            return "a policy"
        steps = self.walk(path)
        if len(steps) == len(path) and steps[-1].kind == "name":
            return f"{str(path[-2]).rstrip('s')} {path[-1]}"
        if len(path) >= 2 and path[-2] == RULES:
            return "a rule"
        if len(path) >= 2 and isinstance(path[-1], int) and path[-2] != "window":
            noun = str(path[-2]).rstrip("s")
            return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
        return "a window" if "window" in path else str(path[-1])


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that they have in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _sentence(model: type[BaseModel], alias: str) -> str:
    """The first sentence about a field."""
    field = fields(model).get(alias)
    return (field.description or "").split(". ")[0].rstrip(".") if field is not None else ""


def _model(kind: Any) -> type[BaseModel] | None:
    kind = _bare(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _bare(kind: Any) -> Any:
    """A type without what stands around it: how it is read, that there may be none."""
    while True:
        origin = typing.get_origin(kind)
        if origin is Annotated:
            kind = typing.get_args(kind)[0]
        elif origin in (Union, types.UnionType):
            some = [one for one in typing.get_args(kind) if one is not type(None)]
            if len(some) != 1:
                return kind
            kind = some[0]
        else:
            return kind


def _within(kind: Any) -> tuple[Any, str]:
    """What a map or a list holds, and which of the two it is; (None, "") for neither."""
    kind = _bare(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        return _bare(args[1]), "name"
    if origin is tuple and args:
        return _bare(args[0]), "item"
    return None, ""


def models_within(kind: Any) -> list[tuple[type[BaseModel], bool]]:
    """The models in the type of a field, each with whether it stands under a name."""
    kind = _bare(kind)
    if _model(kind) is not None:
        return [(kind, False)]
    if typing.get_origin(kind) in (Union, types.UnionType):
        return [found for one in typing.get_args(kind) for found in models_within(one)]
    inner, how = _within(kind)
    return [(model, how == "name" or named) for model, named in models_within(inner)] if inner is not None else []
