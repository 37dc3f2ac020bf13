"""`cofferdam explain POLICY --from ADDRESS ...`: why what is asked is allowed or refused. What can be asked of a broker
follows from its terms."""

from __future__ import annotations

import argparse
import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.model import Shown
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.explain import NOBODY, Explanation, Question
from cofferdam.policy.load import load
from cofferdam.policy.points.asking import FORMS
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.rows import BY_JUMP
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import AnyTerms, Ask
from cofferdam.policy.terms.kinds import KINDS


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json

    parser.add_argument("policy", metavar="POLICY", type=Path, help="a policy file, or a folder of *.yaml files")
    parser.add_argument("--from", dest="source", metavar="ADDRESS", help="the client's address")
    parser.add_argument(
        "--who",
        metavar="NAME",
        help="instead: the principal that asks, at its first address, with the user or certificate that it names",
    )
    for ask, words in ASKS.items():
        parser.add_argument(
            f"--{ask.name}", metavar=ask.metavar, type=Path if ask.file else str, help=f"{ask.help} ({words})"
        )
    parser.add_argument("--zone", metavar="ZONE", help="the zone in which the session begins (default: any)")
    parser.add_argument("--at", metavar="TIME", help="when: 2027-01-04T07:30+01:00; without offset UTC (default: now)")
    add_json(parser, "Explanation", "cofferdam.policy.explain", "print the explanation as JSON")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{FORMS}\n\nExit code: 0 allowed, 1 refused, 2 bad input."


def run(args: argparse.Namespace) -> int:
    wall_ns = _time(args.at) if args.at else time.time_ns()
    policy = compile_policy(load(args.policy), now_ns=wall_ns)
    if args.zone is not None and args.zone not in policy.zones:
        raise CofferdamError(f"the policy has no zone {args.zone!r}", hint=f"it has {one_of(policy.zones)}")
    given = {ask.name: getattr(args, ask.name.replace("-", "_")) for ask in ASKS}
    said = {
        ask.name: _content(given[ask.name]) if ask.file else str(given[ask.name])
        for ask in ASKS
        if given[ask.name] is not None
    }
    terms = _terms(policy, said)
    open_ended = args.source is None and args.who is None and terms.by_anybody(said)
    source = NOBODY if terms.by_nobody(said) or open_ended else _source(policy, args)
    shown = policy.principals[args.who].shown if args.who in policy.principals else Shown()
    found = terms.explain(policy, Question(source, said, wall_ns, args.zone, shown))
    if args.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        _print(found)
    return 0 if found.allowed else 1


def _asks() -> dict[Ask, str]:
    """Each option with which something is asked, and the brokers that it belongs to."""
    found: dict[Ask, list[str]] = {}
    for word, terms in KINDS.items():
        for ask in terms.asks:
            found.setdefault(ask, []).append(word)
    return {ask: ", ".join(words) for ask, words in found.items()}


ASKS = _asks()


def _terms(policy: CompiledPolicy, said: dict[str, str]) -> AnyTerms:
    """The terms that know the options that were given. Raises: CofferdamError, where that is not one broker's."""
    fitting = [terms for terms in KINDS.values() if terms.asked(said)]
    known = [terms for terms in fitting if terms.concerns(policy, said)] or fitting
    if not known:
        some = [terms for terms in KINDS.values() if said and said.keys() <= {ask.name for ask in terms.asks}]
        forms = "; ".join(dict.fromkeys(terms.form for terms in some or KINDS.values()))
        what = ", ".join(f"--{name}" for name in said) or "nothing"
        raise CofferdamError(f"{what} does not make a question", hint=f"ask with {forms}")
    return known[0]


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CofferdamError(f"{path} cannot be read: {error}", hint="name a text file in UTF-8") from None


def _source(policy: CompiledPolicy, args: argparse.Namespace) -> str:
    """The address that asks."""
    if (args.source is None) == (args.who is None):
        raise CofferdamError("say once who is asking", hint="--from ADDRESS, or --who PRINCIPAL")
    if args.source is not None:
        try:
            return str(ipaddress.ip_address(args.source))
        except ValueError:
            known = args.source in policy.principals
            hint = f"did you mean --who {args.source}" if known else "for example --from 10.1.0.20"
            raise CofferdamError(f"{args.source!r} is not an IP address", hint=hint) from None
    principal = policy.principals.get(args.who)
    if principal is not None and principal.jump:
        return BY_JUMP + principal.jump
    if principal is None or not principal.networks:
        near = nearest(args.who, policy.principals)
        hint = f"did you mean {near}?" if near else f"the policy has {one_of(policy.principals)}"
        raise CofferdamError(f"the policy has no principal {args.who!r} with an address", hint=hint)
    return str(ipaddress.ip_network(principal.networks[0])[0])


def _time(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CofferdamError(f"{text!r} is not a time", hint="for example --at 2027-01-04T07:30+01:00") from None
    if not 1971 <= when.year <= 2200:  # the tables of daylight saving reach some years around it
        raise CofferdamError(f"{text!r} is too far away", hint="a year from 1971 to 2200 is understood")
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _print(found: Explanation) -> None:
    from cofferdam.audit.lines import escaped  # what the policy says may be another's words

    print(escaped(found.sentence))
    lines = [
        ("asked", f"{found.operation} on {found.target}"),
        ("from", "" if found.source == NOBODY else f"{found.source} = {', '.join(found.principals) or 'no principal'}"),
        ("at", found.at),
        ("rule", found.rule),
        ("field", found.fault),
        ("owner", found.owner),
        ("reason", found.reason),
        ("until", found.valid_until),
        ("answered with", found.answer),
        *(("provided that", condition) for condition in found.conditions),
    ]
    for name, value in lines:
        if value:
            print(escaped(f"  {name:14} {value}"))
    for other in found.considered:
        if other.conduit != found.conduit:
            verdict = "would allow it" if other.allowed else other.detail
            print(escaped(f"  {'also looked at':14} {other.rule}: {verdict}"))
