"""What a policy may say of the bell. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec.structs import replace
from pydantic import BeforeValidator, Field

from cofferdam.model import Allow, Deny, Fault, Side
from cofferdam.policy import notations, rows, schema
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.fields import as_list
from cofferdam.policy.findings import Checking
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Ask, Listen, Making, Needs, PartNeeds, Place, Scope, Terms
from tests.gate.bell.rows import BellRows

OUTER, INNER = "outer", "inner"


class BellRule(schema.Rule):
    """Who may ring which bells."""

    who: notations.Names = Field(description="Principals.")
    ring: notations.Names = Field(description="Bells.")

    @property
    def principals(self) -> tuple[str, ...]:
        return self.who


class BellConduit(schema.Conduit):
    """Bells are rung by name. Stands in a conduit with `broker: bell`."""

    listen: notations.Endpoint = Field(description="Where the bell is asked for.")
    allow: Annotated[tuple[BellRule, ...], BeforeValidator(as_list)] = Field(description="Who may ring what.")


def rows_of(conduit: rows.Conduit) -> BellRows:
    if not isinstance(conduit.terms, BellRows):
        raise TypeError(f"the conduit {conduit.name} is none of the bell")
    return conduit.terms


class BellTerms(Terms[BellConduit, BellRows]):  # type: ignore[type-var]  # no row, but in the copy
    word = "bell"
    title = "The bell"
    conduit = BellConduit
    rule = BellRule
    row = BellRows
    asks = (Ask("bell", "NAME", "the bell that is rung"),)

    def check(self, name: str, conduit: BellConduit, numbers: Sequence[int], checking: Checking) -> None:
        for number, rule in zip(numbers, conduit.allow, strict=True):
            for at, who in enumerate(rule.who):
                checking.known("principals", who, ("conduits", name, "allow", number, "who", at))

    def to_row(self, name: str, conduit: BellConduit, making: Making) -> BellRows:
        return BellRows(*conduit.listen, tuple((rule.who, rule.ring) for rule in conduit.allow))

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = rows_of(conduit)
        who = tuple(sorted({name for names, _ in row.rules for name in names}))
        listen = Listen(
            conduit.from_zone, row.address, row.port, who, conduit.name, ("conduits", conduit.name, "listen")
        )
        sides = [Side(policy.zones[zone].side) for zone in (conduit.from_zone, conduit.to_zone)]
        parts = {
            OUTER: PartNeeds(Place(sides[0], conduit.from_zone), listens=(listen,)),
            INNER: PartNeeds(Place(sides[1], conduit.to_zone)),
        }
        return Needs(parts, {conduit.name: f"the bell {conduit.name}"})

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> BellRows | None:
        row = rows_of(conduit)
        return row if part == INNER else replace(row, rules=())

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        return frozenset(name for names, _ in rows_of(conduit).rules for name in names)

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        bell = question.said["bell"]
        who = policy.principals_of(question.source, question.zone)
        verdict: Allow | Deny = Deny("", "", Fault.PRINCIPAL, f"no rule lets {', '.join(who) or 'nobody'} ring {bell}")
        for conduit in policy.conduits.values():
            if isinstance(conduit.terms, BellRows) and conduit.terms.allows(who, bell):
                verdict = Allow(conduit.name, conduit.name, conduit.expires)
        return explained(policy, question, verdict, broker=self.word, operation="ring", target=bell, answer="no")
