"""`cofferdam diode ...`: pairing the ends of a strand, and operating one blind: status, tickets, re-sends, tests.

Keys are files in the state directory, for the parts that need them; all else is asked of the running parts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cofferdam.cli.diode_shown import about_inside, inside, outside, qr, say, size, write
from cofferdam.errors import CrossingError, GateError

Work = Callable[[argparse.Namespace], int]
PARTS: Final = {"inside": "spool", "outside": "keeper"}
COMING_SECONDS: Final = 2.0
"""A test of which something came so lately may go on."""
OLD_DAYS: Final = 7
"""How long an old key of the other end stays good, unless said."""


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, text: str, work: Work, prints: str) -> argparse.ArgumentParser:
        from cofferdam.cli.gate_options import add_json, add_state

        sub: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument("--crew", default="", metavar="NAME", help="where several strands end here: the crew")
        add_state(sub)
        add_json(sub, prints, "cofferdam.brokers.diode.told")
        return sub

    pair = verb(
        "pair", "make this end's keys and the file for the other end, or bring the other end's file in", _pair, "Paired"
    )
    pair.add_argument("end", choices=["inside", "outside"], help="which end this machine is")
    pair.add_argument("--policy", type=Path, metavar="POLICY", help="the policy (default: the running gate's)")
    pair.add_argument("--strand", default="", metavar="CONDUIT", help="where the policy has several strands: which")
    pair.add_argument("--output", type=Path, metavar="FILE", help="where the file for the other end goes")
    pair.add_argument("--take", type=Path, metavar="FILE", help="the other end's file: bring it in")
    pair.add_argument("--old-days", type=int, default=OLD_DAYS, metavar="N", help="with --take and --new: for so many "
                      f"days the key that was there before stays good (default: {OLD_DAYS})")  # fmt: skip
    pair.add_argument("--new", action="store_true", help="new keys in the place of this end's own")
    verb("status", "what this end sends or hears, keeps, and misses", _status, "list[WithinShown | OutsideShown]")
    ticket = verb("ticket", "outside: a ticket for what is missing, to be carried inside", _ticket, "Tickets")
    ticket.add_argument("--channel", default="", metavar="CHANNEL", help="of this channel alone")
    ticket.add_argument("--output", type=Path, metavar="FILE", help="into a file, a ticket a line")
    ticket.add_argument("--no-qr", action="store_true", help="letters alone")
    resend = verb(
        "resend",
        "inside: send again what a ticket asks for; without --go: say what that would be",
        _resend,
        "list[Resent]",
    )
    resend.add_argument("--ticket", action="append", default=[], metavar="TEXT", help="a ticket, spaces and all")
    resend.add_argument("--file", type=Path, metavar="FILE", help="tickets in a file, one a line; `-` for stdin")
    resend.add_argument("--go", action="store_true", help="send it; the ticket is used up")
    give = verb("give-up", "outside: wait no longer for what is missing of a channel", _give_up, "GivenUp")
    give.add_argument("channel", metavar="CHANNEL", help="such as files:reports")
    test = verb(
        "test", "inside: send a ramp of known blocks; outside: what came of it, rate by rate", _test, "list[Step] | Run"
    )
    test.add_argument("--rates", default="", metavar="LIST", help="such as `50,100,200`, Mbit/s (default: from a tenth "
                      "of the policy's rate to twice it)")  # fmt: skip
    test.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for each rate (default: 1)")
    tell = verb(
        "tell", "inside: have what is new of the audit log go out now, and not within the minute", _tell, "Told"
    )
    tell.add_argument("--again", action="store_true", help="all of it once more, where the copy outside misses "
                      "something that is not kept any more")  # fmt: skip
    verb("inside", "outside: the status of the inside, as it was told last", _told, "InsideShown")
    parser.epilog = (
        "Nothing comes back over a strand: what the inside knows of the outside, a person has carried. "
        "Example: cofferdam diode pair inside --policy policy.yaml --output inside.pair"
    )


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


def _ask(args: argparse.Namespace, part: str, verb: str, **arguments: object) -> Any:
    """A part's answer. Raises: GateError, where it says no, or several could be meant."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    for end, one in PARTS.items():
        if part == one and end not in _ends(args):
            raise GateError(f"this machine has no {end} end of a strand", hint=f"it is a verb for the {end} machine")
    answers: list[dict[str, Any]] = ask(
        state_of(args), "ask-part", broker="diode", part=part, verb=verb, arguments=arguments, crew=args.crew
    )
    good = [each for each in answers if "error" not in each]
    if len(good) > 1:
        crews = ", ".join(each["crew"] for each in good)
        raise GateError(f"several strands end here: {crews}", hint="say which with --crew NAME")
    return good[0]["result"]


def _ends(args: argparse.Namespace) -> list[str]:
    """Which ends of the strand this machine has."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    status = ask(state_of(args), "status", fresh=False)
    roles = {half["role"] for pair in status["pairs"] if pair["broker"] == "diode" for half in pair["halves"]}
    found = [end for end, part in PARTS.items() if part in roles]
    if not found:
        raise GateError("no end of a strand runs here", hint="`cofferdam status` shows what does")
    return found


def _pair(args: argparse.Namespace) -> int:
    from cofferdam.cli.diode_pair import pair

    return pair(args)


# --- status -----------------------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    found = [{**_ask(args, PARTS[end], "status"), "how": _how(args), "now": _now(args)} for end in _ends(args)]
    if args.json:
        print(json.dumps(found))
        return 0
    for each in found:
        say(inside(each) if each["end"] == "inside" else outside(each))
    return 0


def _now(args: argparse.Namespace) -> dict[str, int]:
    """What the strand's parts count: of all that end here, since their parts started."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    figures = ask(state_of(args), "status", fresh=True)["figures"]
    return {
        one["name"]: one["values"][""] for one in figures if one["broker"] == "diode" and "" in one["values"]
    }  # fmt: skip


def _how(args: argparse.Namespace) -> str:
    """What makes the strand one-way, in words that never mix the two kinds."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    separated = ask(state_of(args), "status", fresh=False)["separation"] == "namespaces"
    both = len(_ends(args)) == 2
    if separated and not both:
        return "one-way by software"
    return "one-way by software, and not separated here"


# --- tickets ----------------------------------------------------------------------------------------------------------


def _ticket(args: argparse.Namespace) -> int:
    from cofferdam.brokers.diode.tickets import spaced

    made = _ask(args, "keeper", "ticket", channel=args.channel)
    if args.output is not None:
        write(args.output, "".join(f"{one['text']}\n" for one in made["tickets"]).encode(), 0o644)
    if args.json:
        print(json.dumps(made))
        return 0
    for one in made["tickets"]:
        until = f"{datetime.fromtimestamp(one['until'], UTC):%Y-%m-%d}"
        say([f"ticket {one['serial']} for {one['missing']} records of {one['channel']}, good once, until {until}:",
              f"  {spaced(one['text'])}"])  # fmt: skip
        if not args.no_qr:
            qr(one["text"])
    say(["Inside: cofferdam diode resend --ticket 'TEXT', and with --go once it says what you want."])
    return 0


def _resend(args: argparse.Namespace) -> int:
    texts = list(args.ticket)
    if args.file is not None:
        said = sys.stdin.read(1 << 16) if str(args.file) == "-" else args.file.read_text()[: 1 << 16]
        texts += [line for line in said.splitlines() if line.strip()]
    if not texts:
        raise GateError("no ticket was given", hint="--ticket TEXT, or --file FILE")
    found, refused = [], []
    for text in texts:
        try:
            found.append(_ask(args, "spool", "resend", ticket=text, go=args.go))
        except GateError as error:  # the others go all the same
            refused.append(error)
            if len(texts) == 1:
                raise
    if args.json:
        print(json.dumps(found))
    for one in found if not args.json else ():
        does = "is sent" if one["go"] else "would be sent (--go sends it)"
        say([f"ticket {one['serial']}: {one['records']} records of {one['channel']}, {size(one['bytes'])}, "
              f"about {one['seconds']} s: {does}"])  # fmt: skip
        if one["lost"]:
            say([f"  {one['lost']} of what it asks for are not kept here (any more): they are lost; outside: "
                  f"cofferdam diode give-up {one['channel']}"])  # fmt: skip
    if refused:
        raise GateError(f"{len(refused)} of {len(texts)} tickets: {refused[0]}", hint=refused[0].hint)
    return 0


def _give_up(args: argparse.Namespace) -> int:
    found = _ask(args, "keeper", "give-up", channel=args.channel)
    print(json.dumps(found) if args.json else f"{found['given_up']} records of {args.channel} are given up")
    return 0


# --- what the inside tells of itself ----------------------------------------------------------------------------------


def _tell(args: argparse.Namespace) -> int:
    if "inside" not in _ends(args):
        raise GateError("this machine has no inside end of a strand", hint="it is a verb for the inside machine")
    try:
        found = _ask(args, "teller", "look", again=args.again)
    except GateError as error:
        if "does not run" not in str(error):
            raise
        raise GateError(str(error), hint="it runs where the policy has the strand tell of the gate: carries: "
                        "[gate:status, gate:log]; `cofferdam status` shows what runs") from None  # fmt: skip
    told = "it is told from its beginning" if args.again else f"{found['told']} entries have been told before"
    print(json.dumps(found) if args.json else f"what is new of the audit log goes out now; {told}")
    return 0


def _told(args: argparse.Namespace) -> int:
    import base64

    from cofferdam.brokers.diode.keeper_inside import unpacked

    found = _ask(args, "keeper", "inside")
    packed = base64.b64decode(found.pop("packed", ""))
    try:
        status = unpacked(packed) if packed else {}
    except CrossingError as error:  # the keeper has looked at it, and it may be another's by now
        raise GateError(f"what the outside's keeper holds is no status: {error}") from None
    if args.json:
        print(json.dumps({**found, "status": status}))
        return 0
    say(about_inside(found))
    if status:
        from rich.console import Console

        from cofferdam.cli.status import render

        status = _plain(status)
        console = Console(markup=False, highlight=False)
        try:
            shown: Any = render(status, console.width)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):  # another version's, or a lie
            shown = json.dumps(status, indent=1)
        console.print(shown)
    return 0


def _plain(told: Any) -> Any:
    """What another machine has told, without what a terminal obeys."""
    from cofferdam.audit.lines import escaped

    if isinstance(told, str):
        return escaped(told)
    if isinstance(told, dict):
        return {escaped(str(name)): _plain(value) for name, value in told.items()}
    return [_plain(one) for one in told] if isinstance(told, list) else told


# --- test -------------------------------------------------------------------------------------------------------------


def _test(args: argparse.Namespace) -> int:
    from cofferdam.policy.terms.diode_rows import show_rate

    ends = _ends(args)
    if "inside" in ends and (args.rates or ends == ["inside"]):
        if args.rates:
            try:
                rates = [round(float(one) * 1e6) for one in args.rates.split(",")]
            except ValueError:
                raise GateError("--rates is a list of numbers, in Mbit/s: 50,100,200") from None
        else:
            rate = _ask(args, "spool", "status")["rate"]
            rates = [round(rate * share) for share in (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2)]
        found = _ask(args, "spool", "test", rates=rates, seconds=args.seconds)
        if args.json:
            print(json.dumps(found))
        else:
            say([f"run {found['run']}: {', '.join(map(show_rate, rates))}, {args.seconds:g} s each; "
                  "outside, `cofferdam diode test` says what came"])  # fmt: skip
        return 0
    steps = _ask(args, "keeper", "test")
    if args.json:
        print(json.dumps(steps))
        return 0
    under_way = any(step["age"] < COMING_SECONDS for step in steps)
    for step in steps:
        whole = step["got"] == step["of"]
        share = 100 * (step["of"] - step["got"]) / max(1, step["of"])
        words = f"{step['got']} of {step['of']} came, {share:.2f} % lost"
        if under_way and not whole:
            words = f"{step['got']} of {step['of']} so far"
        say([f"run {step['run']}: {show_rate(step['rate']):>14}  {words}"])
    if under_way:
        say(["it may still be coming: ask again in some seconds"])
    elif best := _best(steps):
        rate = show_rate(round(best * 0.8))
        say([f"the setting to type in: rate: {rate} (four fifths of the fastest without loss)"])
    elif not steps:
        say(["no test has come; inside: cofferdam diode test"])
    else:
        say(["nothing to type in: the slowest rate lost as well. Look at the line, or inside: cofferdam diode test "
              "--rates 1,2,5 (Mbit/s)"])  # fmt: skip
    return 0


def _best(steps: list[dict[str, Any]]) -> int:
    """The fastest rate of the last run up to which all came; 0: none. A slower one that lost counts, whatever came
    of faster ones: by chance they may have been spared."""
    best = 0
    for step in sorted((one for one in steps if one["run"] == steps[-1]["run"]), key=lambda one: one["rate"]):
        if step["got"] != step["of"]:
            break
        best = step["rate"]
    return best
