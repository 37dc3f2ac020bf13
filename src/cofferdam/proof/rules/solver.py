"""Whether a packet can pass a ruleset where none may, and which: questions about all packets, answered by z3. PURE.

Modelled is a packet that belongs to no connection (of states: new, invalid, untracked). What answers an accepted
packet belongs to one and is not modelled: a ruleset that accepts `established` is judged by what opens connections.

A packet is accepted on its path (such as prerouting, forward, postrouting) if every base chain on it accepts. Fields
are cut at all values that any rule or question names; between two cuts all values are alike, so a field becomes the
number of its piece, and 5,000 addresses take 13 bits instead of 32. A match that is not modelled is free, which
proves less and never more. The question is written in SMT-LIB 2, so that any solver can be asked again.

Not here: reading rules (listing), what is asked of a running gate (claims), what rules do not govern: bridges,
translation, routes, sockets (enforce.prove checks those one by one).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import z3

from cofferdam.errors import CofferdamError
from cofferdam.proof.rules import fields
from cofferdam.proof.rules.fields import Among, AnyOf, Clause, Conj, Free, Named
from cofferdam.proof.rules.listing import Base, ChainName, ListedRule, Ruleset
from cofferdam.proof.rules.reduce import differences, narrowed

PATHS: Final[dict[str, tuple[str, ...]]] = {
    "input": ("prerouting", "input"),
    "output": ("output", "postrouting"),
    "forward": ("prerouting", "forward", "postrouting"),
}
"""The hooks that a packet of each kind meets, in the families ip, ip6 and inet."""
_KNOWS_IIF: Final = ("prerouting", "input", "forward", "ingress")
_KNOWS_OIF: Final = ("output", "forward", "postrouting", "egress")
_LACKS: Final = {"prerouting": "oif", "input": "oif", "ingress": "oif", "output": "iif", "egress": "iif"}
"""Hooks in which the field has no value at all. (In postrouting kernels differ about `iif`: it is left free.)"""
OTHER: Final = "another interface"


class Unanswered(CofferdamError):
    """The solver gave up. Nothing may be concluded."""


class Question(NamedTuple):
    """Is there a packet on `path` that `ruleset` accepts, for which `within` holds and none of `outside`? With
    `differs`: one that exactly one of both rulesets accepts. `path` is one of PATHS, or a chain of a netdev table.
    `among`: one of these holds as well."""

    name: str
    path: str | ChainName
    ruleset: str
    within: Conj = ()
    outside: tuple[Conj, ...] = ()
    differs: str = ""
    among: tuple[Conj, ...] | None = None


class Packet(NamedTuple):
    """One packet that is an answer. `fields` hold what matters of it, as text; `free` are the matches that were not
    modelled and would have to be true, or false ("not ...")."""

    fields: dict[str, str]
    free: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{name} {value}" for name, value in self.fields.items()]
        return ", ".join(parts) + (f"; if: {'; '.join(self.free)}" if self.free else "")


class Answer(NamedTuple):
    """`packet` is None where there is none: that is proved."""

    question: Question
    packet: Packet | None


def ask(
    rulesets: Mapping[str, Ruleset], questions: Sequence[Question], interfaces: Iterable[str], *, limit_ms: int = 60_000
) -> tuple[Answer, ...]:
    """Answers to all questions. `interfaces` are the names that exist; one that does not stands for all others.

    Raises:
        Unanswered: z3 needs more than `limit_ms` for one of them.
    """
    names = tuple(interfaces)
    answers = []
    for question in questions:
        writer = _Writer(*_reduced(rulesets, question), names)
        solver = z3.SolverFor("QF_BV")
        solver.set("timeout", limit_ms)
        solver.from_string(writer.script())
        verdict = solver.check()
        if verdict == z3.unsat:
            answers.append(Answer(question, None))
        elif verdict == z3.sat:
            answers.append(Answer(question, writer.packet(solver.model())))
        else:
            raise Unanswered(f"the solver gave no answer to {question.name!r}: {solver.reason_unknown()}")
    return tuple(answers)


def script(rulesets: Mapping[str, Ruleset], question: Question, interfaces: Iterable[str]) -> str:
    """The question in SMT-LIB 2: it can be satisfied if there is such a packet."""
    return _Writer(*_reduced(rulesets, question), interfaces).script()


def _reduced(rulesets: Mapping[str, Ruleset], question: Question) -> tuple[dict[str, Ruleset], Question]:
    """The rulesets of a question, without what cannot matter to it."""
    names = [name for name in (question.ruleset, question.differs) if name]
    regions: tuple[Conj, ...] = (question.within,)
    if question.differs:
        found = differences(*(rulesets[name] for name in names))
        if found is not None:
            question = question._replace(among=found)
            regions = tuple((*question.within, *conj) for conj in found)
    return {name: narrowed(rulesets[name], regions) for name in names}, question


class _Writer:
    """Writes the script. Every test becomes one definition, however many rules have it."""

    def __init__(self, rulesets: Mapping[str, Ruleset], question: Question, interfaces: Iterable[str]) -> None:
        self._rulesets = rulesets
        self._question = question
        self._lines: list[str] = []
        self._defined: dict[object, str] = {}
        self._conjs: dict[tuple[Conj, str], str] = {}
        self._chains: dict[tuple[str, str, ChainName], tuple[str, str]] = {}
        self._frees: dict[str, str] = {}
        self._next = 0
        self._interfaces = list(dict.fromkeys(interfaces))
        self._cuts: dict[str, list[int]] = {}
        self._bits: dict[str, int] = {}

    def script(self) -> str:
        self._collect()
        self._declare()
        question = self._question
        parts = [self._conj(question.within, "")]
        parts += [_not(self._conj(conj, "")) for conj in question.outside]
        if question.among is not None:
            # A rule's own test of a name may be free in its hook, and here it is taken as it stands: left out.
            parts.append(_or([self._conj(_certain(conj), "") for conj in question.among]))
        accepted = self._accepted(question.ruleset, question.path)
        if question.differs:
            accepted = f"(xor {accepted} {self._accepted(question.differs, question.path)})"
        if isinstance(question.path, str):
            version = self._test(Among("ethertype", ((fields.IPV4, fields.IPV4),)))
            parts.append(_or([version, self._test(Among("ethertype", ((fields.IPV6, fields.IPV6),)))]))
        self._lines.append(f"(assert {_and([*parts, accepted])})")
        frees = [f"(declare-const {symbol} Bool)" for symbol in self._frees.values()]
        return "\n".join([*frees, *self._lines]) + "\n"

    # --- values into pieces -------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        cuts: dict[str, set[int]] = {name: {0} for name in fields.WIDTHS}
        cuts["ethertype"] |= {fields.IPV4, fields.IPV4 + 1, fields.IPV6, fields.IPV6 + 1}
        names: dict[str, None] = dict.fromkeys(self._interfaces)
        seen: set[Clause] = set()

        def look(clauses: Iterable[Clause]) -> None:
            for clause in clauses:
                if clause in seen:
                    continue
                seen.add(clause)
                if isinstance(clause, Among):
                    mine = cuts[clause.field]
                    for low, high in clause.ranges:
                        mine.add(low)
                        mine.add(high + 1)
                elif isinstance(clause, Named):
                    # A name that does not exist yet may come to; a pattern gets an unknown name that fits it.
                    names.update(dict.fromkeys(n[:-1] + "…" if n.endswith("*") else n for n in clause.names))
                elif isinstance(clause, AnyOf):
                    for option in clause.options:
                        look(option)

        for ruleset in self._rulesets.values():
            for rules in ruleset.chains.values():
                for rule in rules:
                    look(rule.conj)
        look(self._question.within)
        for conj in (*self._question.outside, *(self._question.among or ())):
            look(conj)
        self._interfaces = [*names, OTHER]
        for name, found in cuts.items():
            top = 3 if name == "ct state" else 1 << fields.WIDTHS[name]
            self._cuts[name] = sorted(cut for cut in found if cut < top)
        for name in fields.INTERFACES:
            self._cuts[name] = list(range(len(self._interfaces)))

    def _declare(self) -> None:
        for name, cuts in self._cuts.items():
            bits = self._bits[name] = max(1, (len(cuts) - 1).bit_length())
            self._lines.append(f"(declare-const {_symbol(name)} (_ BitVec {bits}))")
            if len(cuts) < 1 << bits:
                self._lines.append(f"(assert (bvule {_symbol(name)} {self._constant(name, len(cuts) - 1)}))")

    def _constant(self, name: str, number: int) -> str:
        return f"(_ bv{number} {self._bits[name]})"

    def _test(self, test: Among) -> str:
        known = self._defined.get(test)
        if known is not None:
            return known
        cuts = self._cuts[test.field]
        pieces = [(bisect.bisect_left(cuts, low), bisect.bisect_right(cuts, high) - 1) for low, high in test.ranges]
        return self._define(test, self._among(test.field, pieces))

    def _named(self, named: Named, hook: str) -> str:
        if _LACKS.get(hook) == named.field:
            # Without an interface no name is equal to it. Whether it is unequal, kernels see differently.
            return "false" if named.positive else self._free(Free(f"{named.field} != {named.names} in {hook}"))
        if hook == "postrouting" and named.field == "iif":
            return self._free(Free(f"{named.field} {named.positive} {named.names} in {hook}"))
        known = self._defined.get(named)
        if known is not None:
            return known
        fitting = [n for n, name in enumerate(self._interfaces) if any(_fits(name, p) for p in named.names)]
        if not named.positive:
            fitting = [n for n in range(len(self._interfaces)) if n not in fitting]
        ranges = fields.union((number, number) for number in fitting)
        return self._define(named, self._among(named.field, ranges))

    def _among(self, name: str, pieces: Iterable[tuple[int, int]]) -> str:
        symbol, last = _symbol(name), len(self._cuts[name]) - 1
        terms = []
        for low, high in pieces:
            if low == high:
                terms.append(f"(= {symbol} {self._constant(name, low)})")
                continue
            bounds = []
            if low > 0:
                bounds.append(f"(bvuge {symbol} {self._constant(name, low)})")
            if high < last:
                bounds.append(f"(bvule {symbol} {self._constant(name, high)})")
            terms.append(_and(bounds))
        return _or(terms)

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _define(self, key: object, term: str) -> str:
        if not term.startswith("("):
            symbol = term
        else:
            self._next += 1
            symbol = f"d{self._next}"
            self._lines.append(f"(define-fun {symbol} () Bool {term})")
        if key is not None:
            self._defined[key] = symbol
        return symbol

    def _free(self, free: Free) -> str:
        return self._frees.setdefault(free.key, f"u{len(self._frees)}")

    def _clause(self, clause: Clause, hook: str) -> str:
        if isinstance(clause, Among):
            return self._test(clause)
        if isinstance(clause, Named):
            return self._named(clause, hook)
        if isinstance(clause, Free):
            return self._free(clause)
        key = (clause, hook)
        known = self._defined.get(key)
        if known is None:
            options = [_and([self._clause(part, hook) for part in option]) for option in clause.options]
            term = _or(options)
            known = self._define(key, term if clause.positive else _not(term))
        return known

    def _conj(self, conj: Conj, hook: str) -> str:
        key = (conj, hook)
        known = self._conjs.get(key)
        if known is None:
            known = self._conjs[key] = self._define(None, _and([self._clause(clause, hook) for clause in conj]))
        return known

    # --- chains -------------------------------------------------------------------------------------------------------

    def _accepted(self, ruleset: str, path: str | ChainName) -> str:
        """Every base chain on the path accepts."""
        terms = []
        for base in self._rulesets[ruleset].bases:
            if isinstance(path, tuple):
                if base.name == path:
                    terms.append(self._base(ruleset, base))
            elif base.hook in PATHS[path] and base.name[0] in ("ip", "ip6", "inet"):
                term = self._base(ruleset, base)
                if base.name[0] != "inet":
                    other = fields.IPV6 if base.name[0] == "ip" else fields.IPV4
                    term = _or([self._test(Among("ethertype", ((other, other),))), term])
                terms.append(term)
        return self._define(None, _and(terms))

    def _base(self, ruleset: str, base: Base) -> str:
        key = (ruleset, "base", base.name)
        known = self._chains.get(key)
        if known is None:
            policy = "true" if base.accepts else "false"
            known = self._chains[key] = (self._rules(ruleset, base.hook, base.name, policy, "false", top=policy)[0], "")
        return known[0]

    def _summary(self, ruleset: str, hook: str, name: ChainName) -> tuple[str, str]:
        """(accepted within the chain, comes back from it)"""
        key = (ruleset, hook, name)
        known = self._chains.get(key)
        if known is None:
            if name not in self._rulesets[ruleset].chains:
                raise Unanswered(f"a rule jumps to the chain {' '.join(name)}, which is not there")
            self._chains[key] = ("", "")
            known = self._chains[key] = self._rules(ruleset, hook, name, "false", "true", top="")
        if known == ("", ""):
            raise Unanswered(f"the chain {' '.join(name)} jumps to itself")
        return known

    def _rules(
        self, ruleset: str, hook: str, name: ChainName, accepted: str, back: str, *, top: str
    ) -> tuple[str, str]:
        """From the last rule to the first: what becomes of a packet that arrives here. `top` is a base chain's policy,
        where to return means the policy; "" elsewhere."""
        rules = self._rulesets[ruleset].chains[name]
        position = len(rules)
        while position:
            end = position
            verdict = rules[position - 1].verdict
            while position and rules[position - 1].verdict == verdict and verdict in ("accept", "drop"):
                position -= 1
            if position < end:
                matched = self._define(None, _or([self._conj(rule.conj, hook) for rule in rules[position:end]]))
                missed = _not(matched)
                accepted = _or([matched, accepted]) if verdict == "accept" else _and([missed, accepted])
                back = _and([missed, back])
            else:
                position -= 1
                accepted, back = self._step(ruleset, hook, name, rules[position], accepted, back, top)
            accepted, back = self._define(None, accepted), self._define(None, back)
        return accepted, back

    def _step(
        self, ruleset: str, hook: str, name: ChainName, rule: ListedRule, accepted: str, back: str, top: str
    ) -> tuple[str, str]:
        matched = self._conj(rule.conj, hook)
        if rule.verdict == "return":
            then = (top, "false") if top else ("false", "true")
        else:
            inner, returned = self._summary(ruleset, hook, (name[0], name[1], rule.target))
            if rule.verdict == "jump":
                then = (_or([inner, _and([returned, accepted])]), _and([returned, back]))
            elif top:  # the end of a chain that was gone to is the end of the base chain: its policy
                then = (_or([inner, _and([returned, top])]), "false")
            else:
                then = (inner, returned)
        return _choice(matched, then[0], accepted), _choice(matched, then[1], back)

    # --- answers ------------------------------------------------------------------------------------------------------

    def packet(self, model: z3.ModelRef) -> Packet:
        """The packet that the model describes: for each field the first value of its piece."""
        raw: dict[str, int] = {}
        for declared in model.decls():
            name = declared.name()
            for field in self._cuts:
                if _symbol(field) == name:
                    raw[field] = self._cuts[field][model[declared].as_long()]
        return Packet(self._shown(raw, self._question), self._assumed(model))

    def _shown(self, raw: dict[str, int], question: Question) -> dict[str, str]:
        shown: dict[str, str] = {}
        hooks = PATHS[question.path] if isinstance(question.path, str) else ("ingress", "egress")
        for field, knowing in (("iif", _KNOWS_IIF), ("oif", _KNOWS_OIF)):
            if isinstance(question.path, str) and not set(hooks) & set(knowing):
                continue
            if isinstance(question.path, str) or field in raw:
                shown["in" if field == "iif" else "out"] = self._interfaces[raw.get(field, 0)]
        version = raw.get("ethertype", 0)
        if version not in (fields.IPV4, fields.IPV6):
            shown["ethertype"] = hex(version)
            return shown
        shown["version"] = "4" if version == fields.IPV4 else "6"
        family = "ip" if version == fields.IPV4 else "ip6"
        for end in ("saddr", "daddr"):
            shown[end] = fields.text(f"{family} {end}", raw.get(f"{family} {end}", 0))
        protocol = raw.get("l4proto", 0)
        shown["protocol"] = fields.text("l4proto", protocol)
        if "skuid" in raw:
            shown["user"] = str(raw["skuid"])
        more: list[str] = []
        if raw.get("fragment"):
            shown["fragment"] = "a later one"
        elif protocol in (6, 17, 33, 132, 136):
            more = ["sport", "dport", *(["tcp flags"] if protocol == 6 else [])]
        elif protocol == 1 and family == "ip":
            more = ["icmp type"]
        elif protocol == 58 and family == "ip6":
            more = ["icmpv6 type"]
        for field in (*more, "mark", "ct state"):
            if field in more or raw.get(field):
                shown[field] = fields.text(field, raw.get(field, 0))
        return shown

    def _assumed(self, model: z3.ModelRef) -> tuple[str, ...]:
        keys = {symbol: key for key, symbol in self._frees.items()}
        found = []
        for declared in model.decls():
            key = keys.get(declared.name())
            if key is not None:
                found.append(key if z3.is_true(model[declared]) else f"not {key}")
        return tuple(sorted(found))


def _certain(conj: Conj) -> Conj:
    return tuple(clause for clause in conj if isinstance(clause, Among | Free))


def _symbol(name: str) -> str:
    return "f." + name.replace(" ", ".")


def _fits(name: str, pattern: str) -> bool:
    if name == OTHER:
        return pattern == "*"
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _and(terms: Sequence[str]) -> str:
    terms = [term for term in terms if term != "true"]
    if "false" in terms:
        return "false"
    return "true" if not terms else terms[0] if len(terms) == 1 else f"(and {' '.join(terms)})"


def _or(terms: Sequence[str]) -> str:
    terms = [term for term in terms if term != "false"]
    if "true" in terms:
        return "true"
    return "false" if not terms else terms[0] if len(terms) == 1 else f"(or {' '.join(terms)})"


def _not(term: str) -> str:
    return {"true": "false", "false": "true"}.get(term, f"(not {term})")


def _choice(condition: str, then: str, otherwise: str) -> str:
    if condition == "true" or then == otherwise:
        return then
    return otherwise if condition == "false" else f"(ite {condition} {then} {otherwise})"
