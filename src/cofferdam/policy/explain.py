"""Why an operation is allowed or refused: the rule that came nearest, the one field that failed, what would pass.

The verdict is the decision's own (policy.decide), made a second time with nothing left out; explaining decides nothing.
Not here: printing (cli.explain), the live state behind max_step and writes_per_minute: those are named as conditions.
"""

from __future__ import annotations

import msgspec

from cofferdam.model import NEVER, Allow, Deny, Fault, Operation
from cofferdam.policy.points import values
from cofferdam.policy.points.asking import show
from cofferdam.policy.points.decide import show_utc
from cofferdam.policy.table import CompiledPolicy


class Considered(msgspec.Struct, frozen=True):
    """One conduit's verdict alone."""

    conduit: str
    rule: str
    allowed: bool
    fault: str
    detail: str


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer. `sentence` is for people; `conditions` are what only the running gate knows."""

    allowed: bool
    sentence: str
    operation: str
    source: str
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


def explain(
    policy: CompiledPolicy, source: str, asset: str, op: Operation, wall_ns: int, *, zone: str | None = None
) -> Explanation:
    """What policy says to `op` on `asset`, asked from address `source` at `wall_ns` (UTC)."""
    target = policy.assets.get(asset)
    words = show(op, target) if target else f"function {op.function}"
    principals = policy.principals_of(source, zone)
    broker = target.protocol if target else ""
    flow = policy.flow(broker, source, asset, zone)
    considered: list[Considered] = []
    conditions: list[str] = []
    verdict: Allow | Deny
    silent = False
    if isinstance(flow, Deny):
        verdict = flow
    else:
        silent = flow.silent
        verdict = flow.decide(op, wall_ns)
        for _, single in flow.assess(op, wall_ns):
            fault, detail = (single.fault.value, single.detail) if isinstance(single, Deny) else ("", "")
            considered.append(Considered(single.conduit, single.rule, isinstance(single, Allow), fault, detail))
        if isinstance(verdict, Allow) and target is not None:
            for change in op.writes:
                for point in target.points:
                    span = point.span
                    if span.space == change.space and span.start < change.stop and change.start < span.stop:
                        if point.max_step is not None:
                            step = values.measure(point, point.max_step)
                            conditions.append(f"{point.name} may change by at most {step} from its last known value")
                        if point.writes_per_minute is not None:
                            pace = f"at most {point.writes_per_minute} times a minute"
                            conditions.append(f"{point.name} may be written {pace}")
    conduit = policy.conduits.get(verdict.conduit)
    who = f"{source} ({', '.join(principals)})" if principals else source
    if isinstance(verdict, Allow):
        until = "" if verdict.valid_until == NEVER else show_utc(verdict.valid_until)
        sentence = f"allowed by {verdict.rule}: {who} may {words} on {asset}{f' until {until}' if until else ''}"
        fault = detail = answer = ""
    else:
        until, fault, detail = "", verdict.fault.value, verdict.detail
        nearest = f"the nearest rule is {verdict.rule}, and" if verdict.rule else "no rule comes near:"
        field = "expiry" if verdict.fault is Fault.EXPIRED else fault
        sentence = f"refused: {nearest} the {field} fails: {detail}"
        answer = "silence" if silent else "a refusal in the protocol's own words"
    return Explanation(
        allowed=isinstance(verdict, Allow),
        sentence=sentence,
        operation=words,
        source=source,
        asset=asset,
        at=show_utc(wall_ns),
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
        considered=tuple(considered),
    )
