"""Makes a question smaller before the solver gets it, by arithmetic on ranges that changes no answer. PURE.

1. Rules that no packet of the question can match are left out.
2. Where two rulesets are compared, only packets can tell them apart that match a rule which one of them lacks; the
   question is narrowed to those, and rules that meet none of them are left out.
3. Neighbouring rules with the same verdict that differ in one field become one rule.

Not here: what is asked (solver).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cofferdam.proof.rules import fields
from cofferdam.proof.rules.fields import Among, AnyOf, Clause, Conj, Named, Ranges
from cofferdam.proof.rules.listing import ChainName, ListedRule, Ruleset

MOST_DIFFERENCES = 64
"""Rulesets that differ in more rules than this are compared whole."""
_MERGED = ("dport", "sport", "ip daddr", "ip saddr", "ip6 daddr", "ip6 saddr", "icmp type", "l4proto")


def narrowed(ruleset: Ruleset, regions: Sequence[Conj]) -> Ruleset:
    """Without rules that match in none of the regions, and with neighbours joined."""
    chains = {}
    boxes = [_box(region) for region in regions]
    for name, rules in ruleset.chains.items():
        kept = [rule for rule in rules if any(_may_meet(rule.conj, *box) for box in boxes)]
        chains[name] = _merged(kept)
    return Ruleset(chains, ruleset.bases, ruleset.flowtables, ruleset.rules)


def differences(one: Ruleset, other: Ruleset) -> tuple[Conj, ...] | None:
    """What a packet must match, one of them, if the rulesets treat it differently; None if that cannot be told."""
    if _calls(one) != _calls(other) or set(one.chains) != set(other.chains):
        return None
    found: list[Conj] = []
    for name, mine in one.chains.items():
        theirs = other.chains[name]
        left, right = [_meaning(rule) for rule in mine], [_meaning(rule) for rule in theirs]
        if left == right:
            continue
        only_left, only_right = Counter(left) - Counter(right), Counter(right) - Counter(left)
        if [rule for rule in left if rule not in only_left] != [rule for rule in right if rule not in only_right]:
            return None  # the same rules in another order
        found += [conj for conj, _, _ in (*only_left, *only_right)]
        if len(found) > MOST_DIFFERENCES:
            return None
    return tuple(found)


def _calls(ruleset: Ruleset) -> Counter[tuple[ChainName, str, bool]]:
    # All that is called must accept, so priorities do not matter here. nft 1.0.6 does not list devices.
    return Counter((base.name, base.hook, base.accepts) for base in ruleset.bases)


def _meaning(rule: ListedRule) -> tuple[Conj, str, str]:
    return rule.conj, rule.verdict, rule.target


# --- meeting ----------------------------------------------------------------------------------------------------------

_Box = tuple[dict[str, Ranges], list[Named]]


def _box(conj: Conj) -> _Box:
    ranges: dict[str, Ranges] = {}
    names = []
    for clause in conj:
        if isinstance(clause, Among):
            known = ranges.get(clause.field)
            ranges[clause.field] = clause.ranges if known is None else _meet(known, clause.ranges)
        elif isinstance(clause, Named) and clause.positive:
            names.append(clause)
    return ranges, names


def _may_meet(conj: Conj, ranges: dict[str, Ranges], names: list[Named]) -> bool:
    """Whether a packet of the box may match; True where that is not plain."""
    for clause in conj:  # numbers first: they tell most rules apart, and are quickest
        if type(clause) is Among:
            wanted = ranges.get(clause[0])
            if wanted is None:
                continue
            found = clause[1]
            if len(wanted) == 1 == len(found):
                if found[0][1] < wanted[0][0] or wanted[0][1] < found[0][0]:
                    return False
            elif not _overlap(wanted, found):
                return False
    for clause in conj:
        if isinstance(clause, Named):
            # Only of names that must be there: in a hook without this interface no such rule matches either.
            if clause.positive and any(
                other.field == clause.field and not _share_name(clause.names, other.names) for other in names
            ):
                return False
        elif (
            isinstance(clause, AnyOf)
            and clause.positive
            and not any(_may_meet(option, ranges, names) for option in clause.options)
        ):
            return False
    return True


def _share_name(one: Iterable[str], other: Sequence[str]) -> bool:
    return any(_alike(a, b) for a in one for b in other)


def _alike(a: str, b: str) -> bool:
    if a.endswith("*"):
        return b.startswith(a[:-1]) or (b.endswith("*") and a.startswith(b[:-1]))
    return a.startswith(b[:-1]) if b.endswith("*") else a == b


def _overlap(one: Ranges, other: Ranges) -> bool:
    left = right = 0
    while left < len(one) and right < len(other):
        if one[left][1] < other[right][0]:
            left += 1
        elif other[right][1] < one[left][0]:
            right += 1
        else:
            return True
    return False


def _meet(one: Ranges, other: Ranges) -> Ranges:
    return tuple(
        (max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d)
    )  # both sorted, so the result is


# --- joining ----------------------------------------------------------------------------------------------------------


def _merged(rules: list[ListedRule]) -> list[ListedRule]:
    result: list[ListedRule] = []
    start = 0
    while start < len(rules):
        end = start + 1
        verdict = rules[start].verdict
        while end < len(rules) and rules[end].verdict == verdict and verdict in ("accept", "drop"):
            end += 1
        run = rules[start:end]
        result += _joined(run) if len(run) > 1 else run
        start = end
    return result


def _joined(run: list[ListedRule]) -> list[ListedRule]:
    """Rules of one verdict: their order does not matter, so those alike but for one field are one."""
    numbers: dict[Clause, int] = {}
    clauses: list[Clause] = []

    def number(clause: Clause) -> int:
        known = numbers.setdefault(clause, len(clauses))
        if known == len(clauses):
            clauses.append(clause)
        return known

    rows = list(dict.fromkeys(tuple(map(number, rule.conj)) for rule in run))
    fields_of = [clause.field if isinstance(clause, Among) else "" for clause in clauses]
    for name in _MERGED:
        mine = {number for number, field in enumerate(fields_of) if field == name}
        if len(mine) < 2:
            continue
        groups: dict[tuple[int, ...], list[int]] = {}
        rest: list[tuple[int, ...]] = []
        for row in rows:
            tests = [n for n in row if n in mine]
            if len(tests) == 1:
                groups.setdefault(tuple(-1 if n in mine else n for n in row), []).append(tests[0])
            else:
                rest.append(row)
        if len(groups) + len(rest) == len(rows):
            continue
        rows = rest
        for key, tests in groups.items():
            joined = tests[0]
            if len(tests) > 1:
                joined = number(Among(name, fields.union(r for n in tests for r in _ranges_of(clauses[n]))))
                fields_of += [name] * (len(clauses) - len(fields_of))
            rows.append(tuple(joined if n == -1 else n for n in key))
    return [ListedRule(tuple(clauses[n] for n in row), run[0].verdict, "", run[0].where) for row in rows]


def _ranges_of(clause: Clause) -> Ranges:
    return clause.ranges if isinstance(clause, Among) else ()
