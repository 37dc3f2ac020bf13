"""Checks that read the policy and its warnings, and that put questions to the judge itself."""

from __future__ import annotations

from collections.abc import Iterator

from cofferdam.errors import CofferdamError
from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.history import VALUE_FAULTS
from cofferdam.evidence.inputs import Gone, Inputs, Unknown
from cofferdam.evidence.model import Finding, several
from cofferdam.model import NEVER, Asset, Point
from cofferdam.policy.explain import Question
from cofferdam.policy.rows import Conduit, Principal, Rule
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import JumpRows
from cofferdam.policy.terms.kinds import KINDS
from cofferdam.policy.terms.patch_rows import PatchRows
from cofferdam.policy.terms.relay_rows import RelayRows

TABLE = Table()
ASKED = 40
"""Points that are put to the judge, spread over the policy."""
WIDE = frozenset(
    ("any-unit", "everyone", "no-points", "no-range", "overlap", "same-side", "unused", "useless-rule", "wide-write")
)
"""Warnings of a policy that speak of more rights than somebody needs, by their ids."""


@TABLE.check("policy.owner-reason", "policy")
def owner_reason(known: Inputs) -> Finding:
    """Every conduit names an owner and a reason."""
    policy = known.the_policy()
    without = [one.name for one in policy.conduits.values() if not (one.owner.strip() and one.reason.strip())]
    if without:
        return Finding(
            "policy.owner-reason",
            "failed",
            several(len(without), "conduits lack owner or reason", "conduit lacks owner or reason"),
            tuple(without),
        )
    if not policy.conduits:
        raise Gone("the policy has no conduit")
    facts = tuple(f"{one.name}: {one.owner}: {one.reason}"[:500] for one in list(policy.conduits.values())[:10])
    return Finding(
        "policy.owner-reason",
        "observed",
        several(len(policy.conduits), "conduits name owner and reason", "conduit names owner and reason"),
        facts,
    )


@TABLE.check("policy.expiry", "policy")
def expiry(known: Inputs) -> Finding:
    """Conduits that allow writes expire, and none in force has expired."""
    policy = known.the_policy()
    ends = [one for one in policy.conduits.values() if one.expires != NEVER and not one.held_back]
    expired = [one.name for one in ends if one.expires <= known.now_ns]
    forever = [one.name for one in policy.conduits.values() if one.expires == NEVER and _changes(one)]
    if expired or forever:
        facts = [f"{name} has expired" for name in expired] + [f"{name} allows writes for ever" for name in forever]
        return Finding("policy.expiry", "failed", f"{several(len(facts), 'conduits')} to look at", tuple(facts[:10]))
    facts = [f"{one.name}: {one.expires_text or 'changes nothing'}" for one in policy.conduits.values()]
    return Finding("policy.expiry", "observed", "conduits that allow writes expire, none has", tuple(facts[:10]))


def _changes(conduit: Conduit) -> bool:
    """Whether it allows what may change the plant, as the lint `no-expiry` sees it before the policy is compiled."""
    match conduit.terms:
        case JumpRows(lines=lines):
            return any({"shell", "exec", "up"}.intersection(line.do) for line in lines)
        case RelayRows(lines=lines):
            return any(line.push for line in lines)
        case PatchRows(installs=installs):
            return bool(installs)
    return any(rule.writes or rule.calls or rule.streams or rule.write_functions for rule in conduit.rules)


@TABLE.check("policy.least", "policy", "files")
def least(known: Inputs) -> Finding:
    """No rule allows what another already does; writes have points and limits."""
    if known.warnings is None:
        raise Unknown("the policy's file was not read")
    wide = [one for one in known.warnings if one.check in WIDE]
    if wide:
        facts = tuple(str(one)[:500] for one in wide[:10])
        return Finding(
            "policy.least", "failed", f"{several(len(wide), 'warnings')} of rules that are wide or without use", facts
        )
    others = len(known.warnings)
    facts = (several(others, "warnings of other kinds", "warning of another kind"),) if others else ()
    return Finding("policy.least", "observed", "no rule is without use, blanket or without limits", facts)


@TABLE.check("policy.values-checked", "policy")
def values_checked(known: Inputs) -> Finding:
    """A value outside its point's limits is refused, one within is allowed: put to the judge of the brokers."""
    policy = known.the_policy()
    asked = list(_limited(policy))
    if not asked:
        raise Gone("no rule writes a point with limits")
    step = max(1, len(asked) // ASKED)
    wrong: list[str] = []
    good: list[str] = []
    for conduit, rule, asset, point in asked[::step][:ASKED]:
        outside = _beyond(point)
        if outside is None:
            continue
        verdicts = [_ask(policy, policy.principals[rule.who[0]], conduit, asset, point, value, known.now_ns)
                    for value in outside]  # fmt: skip
        if verdicts[0] is None or verdicts[1] is None:
            continue
        (bad_allowed, bad_fault), (good_allowed, good_fault) = verdicts[0], verdicts[1]
        words = f"{asset.name} {point.name} = {outside[0]:g}: {'allowed' if bad_allowed else 'refused, ' + bad_fault}"
        control = f"{outside[1]:g}: {'allowed' if good_allowed else 'refused, ' + good_fault}"
        if bad_allowed or bad_fault not in (*VALUE_FAULTS, "window", "expired"):
            wrong.append(f"{words}; {control}")
        elif bad_fault in VALUE_FAULTS:
            good.append(f"{words}; {control}")
    if wrong:
        return Finding("policy.values-checked", "failed", "a value outside its limits is not refused", tuple(wrong[:8]))
    if not good:
        raise Unknown("every conduit that writes points with limits is shut or expired now")
    says = several(len(good), "values outside their limits were refused", "value outside its limits was refused")
    # What the log has is shown besides, and establishes nothing: parts of the gate say it of themselves.
    logged = known.history.of("refused") if known.history is not None else []
    if logged:
        good.append(f"in the log: {len(logged)} such writes refused, the last is entry {logged[-1].index}")
    return Finding("policy.values-checked", "tested", says, tuple(good[-8:]))


def _limited(policy: CompiledPolicy) -> Iterator[tuple[Conduit, Rule, Asset, Point]]:
    for conduit in policy.conduits.values():
        for rule in conduit.rules:
            asset = policy.assets.get(rule.asset)
            points = {point.name: point for point in asset.points} if asset is not None else {}
            for piece in rule.writes:
                point = points.get(piece.point)
                if asset is not None and point is not None and point.elements == 1 and point.max is not None:
                    yield conduit, rule, asset, point


def _beyond(point: Point) -> tuple[float, float] | None:
    """A value above the limit, and one at it."""
    if point.max is None:
        return None
    return point.max + 1, point.max


def _ask(
    policy: CompiledPolicy, who: Principal, conduit: Conduit, asset: Asset, point: Point, value: float, now_ns: int
) -> tuple[bool, str] | None:
    source = who.networks[0].partition("/")[0]
    said = {"asset": asset.name, "operation": f"write {point.name} {value:.0f}"}
    try:
        found = KINDS[conduit.broker].explain(policy, Question(source, said, now_ns, conduit.from_zone, who.shown))
    except (CofferdamError, KeyError):
        return None  # a value that the type cannot say, or a broker that is asked otherwise
    return found.allowed, found.fault
