"""The model of a whole policy file: policy.schema with the conduits of all brokers.

A conduit's `broker` says by which model it is read. One whose word is no broker's is read as far as all conduits are
alike, so that the error is about the word and not about what follows it.

Not here: the words of each broker (proxy_model and its like).
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

from cofferdam.policy import schema
from cofferdam.policy.notations import Name
from cofferdam.policy.terms.kinds import KINDS, Kinds

TAG = "broker "
"""Begins the tag by which the place of an error names a model. No field's name has a space."""


class UnknownConduit(schema.Conduit):
    """A conduit of a broker that there is not."""

    model_config = ConfigDict(extra="ignore")

    allow: Annotated[tuple[schema.Rule, ...], BeforeValidator(lambda _: ())] = Field((), description="Nobody knows.")


def conduit_model(word: Any, kinds: Kinds = KINDS) -> type[schema.Conduit]:
    """The model of the conduits of a broker."""
    terms = kinds.get(word) if isinstance(word, str) else None
    return UnknownConduit if terms is None else terms.conduit


def conduit_models(kinds: Kinds = KINDS) -> dict[type[schema.Conduit], tuple[str, ...]]:
    """Each model once, with the words of its brokers."""
    found: dict[type[schema.Conduit], tuple[str, ...]] = {}
    for word, terms in kinds.items():
        found[terms.conduit] = (*found.get(terms.conduit, ()), word)
    return found


def policy_model(kinds: Kinds = KINDS) -> type[schema.Policy]:
    """What a file is read by."""
    return _made(tuple((word, terms.conduit) for word, terms in kinds.items()))


@functools.cache
def _made(conduits: tuple[tuple[str, type[schema.Conduit]], ...]) -> type[schema.Policy]:
    by_word = dict(conduits)

    def discriminate(raw: Any) -> str:
        word = raw.get("broker") if isinstance(raw, dict) else getattr(raw, "broker", None)
        return _tag(by_word.get(word, UnknownConduit) if isinstance(word, str) else UnknownConduit)

    models: list[type[schema.Conduit]] = [*dict.fromkeys(by_word.values()), UnknownConduit]
    tagged: Any = tuple(Annotated[model, Tag(_tag(model))] for model in models)
    # Made at run time, of as many as there are: to a type checker it is a map of what all conduits have.
    conduit: Any = Annotated[Union[tagged], Discriminator(discriminate)]  # noqa: UP007
    field = schema.Policy.model_fields["conduits"]
    said: Any = (dict[Name, conduit], Field({}, description=field.description))
    return create_model("Policy", __base__=schema.Policy, __doc__=schema.Policy.__doc__, conduits=said)


def _tag(model: type[BaseModel]) -> str:
    return TAG + model.__name__
