"""Why something is allowed or refused: the rule that came nearest, the one field that failed, what would pass.

The verdict is the judge's own, made a second time with nothing left out; explaining decides nothing. The answer has
the same form for each broker; who makes it are the broker's terms.

Not here: printing (cli.explain), live state (known values, writes of the last minute): that is named as conditions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import msgspec

from cofferdam.model import NEVER, Allow, Deny, Fault, Shown
from cofferdam.policy.points.decide import show_utc
from cofferdam.policy.rows import BY_JUMP
from cofferdam.policy.table import CompiledPolicy

UNHEARD = "nothing: a firewall of the gate drops it, or its connection is closed unanswered"
"""What somebody gets whose address no principal has."""
NOBODY = "0.0.0.0"  # noqa: S104 - nothing is bound to it
"""Who asks where nobody does, since the gate does it by itself, or where it is left open from where somebody asks."""


class Question(msgspec.Struct, frozen=True):
    """Who asks, when (UTC ns), and what: `said` are the words that the broker's terms ask for. `zone`: where the
    session begins; None for any. `shown`: what the client has shown besides its address."""

    source: str
    said: dict[str, str]
    wall_ns: int
    zone: str | None = None
    shown: Shown = Shown()


class Considered(msgspec.Struct, frozen=True):
    """One conduit's verdict alone."""

    conduit: str
    rule: str
    allowed: bool
    fault: str
    detail: str

    @classmethod
    def of(cls, verdict: Allow | Deny) -> Considered:
        fault, detail = (verdict.fault.value, verdict.detail) if isinstance(verdict, Deny) else ("", "")
        return cls(verdict.conduit, verdict.rule, isinstance(verdict, Allow), fault, detail)


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer. `sentence` is for people; `target` is what is asked of (`asset` again, where it is one);
    `conditions` are what only the running gate knows."""

    allowed: bool
    sentence: str
    broker: str
    operation: str
    source: str
    target: str
    asset: str
    at: str
    principals: tuple[str, ...]
    conduit: str
    rule: str
    fault: str
    detail: str
    owner: str
    reason: str
    valid_until: str
    answer: str
    conditions: tuple[str, ...]
    considered: tuple[Considered, ...]


def explained(
    policy: CompiledPolicy, question: Question, verdict: Allow | Deny, *, broker: str, operation: str, target: str,
    answer: str, asset: str = "", asker: str = "the gate", conditions: Iterable[str] = (),
    considered: Iterable[Allow | Deny] = (),
) -> Explanation:  # fmt: skip
    """A verdict in words. `operation` is what is asked of the `target` ("read holding 100"); `answer`: what a client
    gets for a refusal; `asker`: who asks, where that is no address."""
    conduit = policy.conduits.get(verdict.conduit)
    principals = policy.principals_of(question.source, question.zone, question.shown)
    who = f"{question.source} ({', '.join(principals)})" if principals else question.source
    who = asker if question.source == NOBODY else who
    if isinstance(verdict, Allow):
        until = "" if verdict.valid_until == NEVER else show_utc(verdict.valid_until)
        ends = f" until {until}" if until else ""
        sentence = f"allowed by {verdict.rule}: {who} may {operation} on {target}{ends}"
        fault = detail = answer = ""
        if conduit is not None and conduit.grant is not None:
            conditions = (f"a grant of {conduit.name} stands: one person asks for it, another agrees", *conditions)
    else:
        until, fault, detail = "", verdict.fault.value, verdict.detail
        nearest = f"the nearest rule is {verdict.rule}, and" if verdict.rule else "no rule comes near:"
        field = "expiry" if verdict.fault is Fault.EXPIRED else fault
        sentence = f"refused: {nearest} the {field} fails: {detail}"
        if asset and not principals and question.source != NOBODY and _is_nobodys(policy, question.source):
            answer = UNHEARD
    return Explanation(
        allowed=isinstance(verdict, Allow),
        sentence=sentence,
        broker=broker,
        operation=operation,
        source=question.source,
        target=target,
        asset=asset,
        at=show_utc(question.wall_ns),
        principals=principals,
        conduit=verdict.conduit,
        rule=verdict.rule,
        fault=fault,
        detail=detail,
        owner=conduit.owner if conduit else "",
        reason=conduit.reason if conduit else "",
        valid_until=until,
        answer=answer,
        conditions=tuple(conditions),
        considered=tuple(map(Considered.of, considered)),
    )


def _is_nobodys(policy: CompiledPolicy, source: str) -> bool:
    """Whether no principal has this address, whatever its client may show besides."""
    if source.startswith(BY_JUMP):
        return False
    address = ipaddress.ip_address(source)
    networks = [ipaddress.ip_network(text) for one in policy.principals.values() for text in one.networks]
    return not any(address in network for network in networks)
