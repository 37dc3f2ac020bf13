"""`cofferdam patch advisories`, `evaluate` and the plans of `plan`: what people say of advisories, and until when.

Not here: plans of transfers (patch), what becomes of an answer (brokers.patch.advice).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cofferdam.cli.patch_asking import ask_part, print_told
from cofferdam.errors import GateError

STATES = ("in-internal-test", "not-authorized", "authorized", "effective", "installed", "superseded")


def add(verb: Callable[..., argparse.ArgumentParser], plan: argparse.ArgumentParser) -> None:
    listed = verb(
        "advisories",
        "all advisories, whom they concern, and until when they are answered",
        _advisories,
        "Advisories | Advisory",
    )
    listed.add_argument("advisory", nargs="?", default="", metavar="ID", help="one of them, with each asset")
    listed.add_argument("--open", action="store_true", help="those alone that somebody has to do something about")
    evaluate = verb(
        "evaluate", "say whether an advisory concerns assets, or where its patch stands there", _evaluate, "Advisory"
    )
    evaluate.add_argument("advisory", metavar="ID", help="the advisory")
    evaluate.add_argument("--asset", action="append", default=[], metavar="NAME", help="an asset; again for more")
    how = evaluate.add_mutually_exclusive_group()
    how.add_argument("--applies", action="store_true", help="it concerns these assets")
    how.add_argument("--does-not-apply", action="store_true", help="it does not")
    how.add_argument("--patch-state", choices=STATES, help="where the patch stands at the asset (IEC TR 62443-2-3)")
    evaluate.add_argument("--rest", action="store_true", help="it does not concern assets that it does not name")
    evaluate.add_argument("--note", default="", metavar="TEXT", help="how you know, for the record")
    plan.add_argument("advisory", nargs="?", default="", metavar="ID", help="make a plan for this advisory's assets")
    plan.add_argument("--owner", default="", metavar="WHO", help="with ID: who sees to it")
    plan.add_argument("--text", default="", metavar="TEXT", help="with ID: what is done until the patch is there")
    plan.add_argument("--until", default="", metavar="DATE", help="with ID: until when it is there (2027-06-30)")
    plan.add_argument("--asset", action="append", default=[], metavar="NAME", help="with ID: for these assets alone")
    plan.add_argument("--approve", type=int, default=0, metavar="PLAN", help="with ID: approve somebody else's plan")


def _ask(args: argparse.Namespace, verb: str, **arguments: object) -> Any:
    return ask_part(args, "keeper", verb, **arguments)[1]


def _advisories(args: argparse.Namespace) -> int:
    if args.advisory:
        found = _ask(args, "advisory", advisory=args.advisory)
        return print_told(args, found, _one(found))
    found = _ask(args, "advisories")
    more = left_out(found)
    if args.open:
        waiting = ("open", "to plan", "overdue")
        found["advisories"] = [each for each in found["advisories"] if each["standing"] in waiting]

    return print_told(args, found, listed(found, more))


def left_out(found: dict[str, Any]) -> int:
    """How many older ones, which wait for nobody, the keeper has not listed."""
    return int(sum(found["counts"].values())) - len(found["advisories"])


def listed(found: dict[str, Any], more: int) -> Iterator[str]:
    """All that are listed, and how many `more` there are."""
    yield ", ".join(f"{count} {state}" for state, count in found["counts"].items())
    for each in found["advisories"]:
        yield _line(each)
    if more:
        yield f"and {more} older ones, which wait for nobody and are not listed: `cofferdam patch advisories ID`"


def _line(each: dict[str, Any]) -> str:
    due = f", {each['clocks'][0]['clock']} by {each['clocks'][0]['due']}" if each["clocks"] else ""
    counts = f"{each['affected']} affected, {each['not_affected']} not, {each['unknown']} unknown"
    standing = each["standing"].upper() if each["standing"] == "overdue" else each["standing"]
    return f"{standing:8} {each['advisory']:20} {each['severity']:10} {counts}{due}  {each['title']}"


def _one(found: dict[str, Any]) -> Iterator[str]:
    yield _line(found)
    yield f"  of {found['provider']}, revision {found['revision'] or '-'}, available {found['available']}"
    if found["vulnerabilities"]:
        yield f"  {', '.join(found['vulnerabilities'])}"
    if found["patch"]:
        yield f"  patch: {found['patch']}"
    for state in found["vendor_states"][-1:]:
        yield f"  the vendor says: {state['state']}"
    for clock in found["clocks"]:
        late = "  OVERDUE" if clock["overdue"] else ""
        plan = f" (plan {clock['plan']})" if clock["plan"] else ""
        waits = f": {', '.join(clock['assets'][:20])}" if clock["assets"] else ""
        yield f"  {clock['clock']} by {clock['due']}{plan}{waits}{late}"
    unnamed = 0
    for asset in found["assets"]:
        if not asset["named"] and asset["applies"] is None and not asset["state"]:
            unnamed += 1
            continue
        says = {None: "not answered", True: "APPLIES", False: "does not apply"}[asset["applies"]]
        by = f", {asset['by']}: {asset['note']}" if asset["by"] else ""
        state = f" [{asset['state']}]" if asset["state"] else ""
        yield f"    {asset['asset']:16} {asset['verdict']:12} {asset['why']}"
        yield f"    {'':16} {says}{by}{state}"
    if unnamed:
        rest = found["rest"]
        said = f"does not apply, {rest['by']}: {rest['note']}" if rest else "unknown, not answered"
        yield f"    {unnamed} assets that it does not name: {said}"
    for plan in found["plans"]:
        approved = f"approved by {plan['approver']}" if plan["approver"] else "NOT APPROVED"
        until = f"{datetime.fromtimestamp(plan['until'] // 10**9, UTC):%Y-%m-%d}"
        yield f"  plan {plan['number']} for {', '.join(plan['assets'])}: {plan['owner']} until {until}, {approved}"
        yield f"    {plan['text']}"


def _evaluate(args: argparse.Namespace) -> int:
    if args.patch_state:
        if args.rest:
            raise GateError("a state is one asset's", hint="--asset NAME --patch-state STATE")
        said = {"assets": args.asset, "state": args.patch_state, "note": args.note}
        found = _ask(args, "state", advisory=args.advisory, **said)
        return print_told(args, found, _one(found))
    if not args.note:
        raise GateError("say how you know", hint="--note TEXT: it is kept with the answer")
    applies = True if args.applies else False if args.does_not_apply else None
    found = _ask(
        args, "evaluate", advisory=args.advisory, assets=args.asset, applies=applies, rest=args.rest, note=args.note
    )
    return print_told(args, found, _one(found))


def plan(args: argparse.Namespace) -> int:
    """A plan for an advisory's assets, or somebody's approval of one."""
    if args.approve:
        found = _ask(args, "approve-plan", advisory=args.advisory, plan=args.approve)
        return print_told(args, found, _one(found))
    if not (args.owner and args.text and args.until):
        raise GateError("a plan has an owner, a text and a date", hint="--owner WHO --text TEXT --until 2027-06-30")
    try:
        day = datetime.strptime(args.until, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise GateError(f"{args.until!r} is no day", hint="such as 2027-06-30") from None
    until = int((day + timedelta(days=1)).timestamp()) * 10**9 - 1
    found = _ask(
        args, "mitigate", advisory=args.advisory, owner=args.owner, text=args.text, until=until, assets=args.asset
    )
    return print_told(args, found, _one(found))
