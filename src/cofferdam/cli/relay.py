"""`cofferdam relay ...`: what operators do with messages, quarantine, consumers, keys and certificates of the relay.

Keys, certificates and passwords are files in the state directory (cli.keys); everything else is asked
of the running keeper.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cofferdam.errors import GateError

if TYPE_CHECKING:
    from cofferdam.brokers.relay.ledger import Logged

Work = Callable[[argparse.Namespace], int]
TOLD = "cofferdam.brokers.relay.told"
"""Where the types are of what the verbs print."""

ROWS_MOST: Final = 1_000
"""Rows (of the quarantine, or dead messages) that the keeper tells at once."""
ENDS: Final = {"inside": "keeper", "outside": "far"}
"""Of a strand that carries a relay: the keeper's part at each. One that no strand carries has the first."""
NO_CHANNEL: Final = "there is no channel "
"""How a relay that does not have a channel says so."""


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli import relay_learn, relay_tables

    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(
        name: str, text: str, work: Work, prints: str, parent: Any = verbs, module: str = TOLD
    ) -> argparse.ArgumentParser:
        from cofferdam.cli.gate_options import add_json, add_state

        sub: argparse.ArgumentParser = parent.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(work=work)
        sub.add_argument("--crew", default="", metavar="NAME", help="where several relays run: the crew (`status`)")
        sub.add_argument("--end", choices=list(ENDS), help="where both ends of a strand are on one machine: which")
        add_state(sub)
        if prints:
            add_json(sub, prints, module)
        return sub

    verb("status", "channels and consumers: what waits, since when, who is behind", _status, "list[Answer]")
    listing = verb("list", "messages of a channel, without their bodies", _list, "list[Listed]")
    _channel(listing)
    _page(listing)
    show = verb("show", "one message, and where it stands with each consumer", _show, "Shown")
    _channel(show)
    show.add_argument("number", type=int, metavar="NUMBER", help="the message's number")
    show.add_argument("--body", action="store_true", help="its body too; that you saw it goes into the audit log")
    export = verb(
        "export", "write messages out, a JSON line each; that you did goes into the audit log", _export, "Exported"
    )
    _channel(export)
    _page(export)
    export.add_argument("--output", type=Path, metavar="FILE", help="a new file, of mode 0600 (default: print)")
    dead = verb(
        "dead",
        "messages that are dead to a consumer: handed out in vain, as often as the channel tries",
        _dead,
        "list[Dead]",
    )
    _channel(dead)
    dead.add_argument("consumer", metavar="CONSUMER", help="the principal that pulls")
    replay = verb("replay", "hand messages to a consumer again, under the same ids", _replay, "Replayed")
    _channel(replay)
    replay.add_argument("--from", dest="first", type=int, required=True, metavar="NUMBER", help="from this one on")
    replay.add_argument("--to", dest="consumer", required=True, metavar="CONSUMER", help="the principal that pulls")
    replay.add_argument("--one", action="store_true", help="this one alone, which is dead to it")
    skip = verb("skip", "give a dead message up, so that a channel that stands goes on", _skip, "Skipped")
    _channel(skip)
    skip.add_argument("number", type=int, metavar="NUMBER", help="the message's number")
    skip.add_argument("consumer", metavar="CONSUMER", help="the principal that pulls")
    for name, text in (("pause", "let a channel rest: what is pushed is refused, nothing is handed out"),
                       ("resume", "let a channel go on")):  # fmt: skip
        sub = verb(name, text, _rest, "Rests")
        _channel(sub)
        sub.add_argument("--only", choices=["push", "pull"], help="one direction alone (default: both)")
    clear = verb(
        "clear", "make room before its time: remove messages that every consumer is done with", _clear, "Cleared"
    )
    _channel(clear)
    clear.add_argument(
        "--upto", type=int, required=True, metavar="NUMBER", help="up to this one; their ids are forgotten"
    )
    given = verb("give-up", "wait no more for messages that a strand has not brought", _give_up, "GivenUp")
    _channel(given)
    given.add_argument("--upto", type=int, required=True, metavar="NUMBER", help="what is missing up to this one")
    verify = verb(
        "verify", "read the store through: numbers without a gap, hashes as the audit log has them", _verify, "Verified"
    )
    verify.add_argument("channel", metavar="CHANNEL", nargs="?", help="one channel (default: all)")
    verify.add_argument("--log", type=Path, metavar="DIR", help="the audit log (default: the gate's; `none`: without)")
    quarantine = parser_of(verbs, "quarantine", "messages that failed their channel's checks, and wait for a person")
    held = verb("list", "what is in quarantine, and why", _held, "list[HeldHere]", quarantine)
    held.add_argument("channel", metavar="CHANNEL", nargs="?", default="", help="one channel (default: all)")
    shown = verb("show", "one of them", _held_show, "Held", quarantine)
    _row(shown)
    shown.add_argument("--body", action="store_true", help="its body too; that you saw it goes into the audit log")
    for name, text in (("release", "let it go on: it is checked again; a channel may ask for two people"),
                       ("reject", "throw it away")):  # fmt: skip
        _row(sub := verb(name, text, _decide, "Released | Rejected", quarantine))
        if name == "reject":
            sub.add_argument("--reason", default="", help="why, for the record")
    edit = verb("edit", "put another body in its place; whoever does cannot release it", _edit, "Edited", quarantine)
    _row(edit)
    edit.add_argument("file", type=Path, metavar="FILE", help="the new body; `-` for stdin")
    relay_learn.add(verb)
    relay_tables.add(verbs, verb, parser_of)
    parser.epilog = "Who does something is who the gate sees, and stands in the audit log."


def parser_of(verbs: Any, name: str, text: str) -> Any:
    """A word with verbs of its own beneath."""
    sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return sub.add_subparsers(dest="which", metavar="WHICH", required=True)


def _channel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL", help="the channel")


def _page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--after", type=int, default=0, metavar="NUMBER", help="messages after this one")
    parser.add_argument("--most", type=int, default=100, metavar="N", help="so many at most; 0: all (default: 100)")


def _row(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", type=int, metavar="ROW", help="its number in the quarantine")


def run(args: argparse.Namespace) -> int:
    code: int = args.work(args)
    return code


# --- the keeper ---------------------------------------------------------------------------------------------------


def _ask(args: argparse.Namespace, verb: str, **arguments: object) -> Any:
    """The keeper's answer. Raises: GateError, where it says no, or several could be meant."""
    answers = _ask_all(args, verb, **arguments)
    good = [each for each in answers if "error" not in each]
    if len(good) > 1:
        crews = ", ".join(each["crew"] for each in good)
        raise GateError(f"several relays run: {crews}", hint="say which with --crew NAME")
    return good[0]["result"]


def _ask_all(args: argparse.Namespace, verb: str, **arguments: object) -> list[dict[str, Any]]:
    """What each relay says, or why it says nothing. Raises: GateError, where all of them say no."""
    ends = [args.end] if args.end else list(ENDS)
    if not args.end:
        there = {end: {each["crew"] for each in _asked(args, end, "status") if "error" not in each} for end in ENDS}
        if verb != "status" and there["inside"] & there["outside"]:  # an act is not done twice
            raise GateError("both ends of a strand are on this machine", hint="say which with --end inside or outside")
        ends = [end for end in ENDS if there[end]] or ["inside"]
        # Who has the one end has not the other.
        left_out = {end: there[other] - there[end] for end, other in (("inside", "outside"), ("outside", "inside"))}
    else:
        left_out = {args.end: set()}
    if "row" in arguments and not args.crew:  # each relay has a row 1, and what is done to one is done to no other
        crews = sorted({each["crew"] for end in ends for each in _asked(args, end, "status") if "error" not in each})
        if len(crews) > 1:
            raise GateError(
                f"each relay numbers its own rows, and several run: {', '.join(crews)}",
                hint="say which with --crew NAME; `cofferdam relay quarantine list` shows it with each row",
            )
    found = [each for end in ends for each in _asked(args, end, verb, **arguments) if each["crew"] not in left_out[end]]
    if all("error" in each for each in found):
        raise GateError(found[0]["error"], hint=found[0]["hint"])
    return found


def _asked(args: argparse.Namespace, end: str, verb: str, **arguments: object) -> list[dict[str, Any]]:
    """What each keeper at this end says."""
    from cofferdam.cli.gate_options import state_of
    from cofferdam.gate.client import ask

    try:
        found: list[dict[str, Any]] = ask(
            state_of(args), "ask-part", broker="relay", part=ENDS[end], verb=verb, arguments=arguments, crew=args.crew
        )
    except GateError as error:
        return [{"crew": args.crew, "error": str(error), "hint": error.hint, "end": end}]
    return [{**each, "end": end} for each in found]


def _print(args: argparse.Namespace, found: Any, lines: Iterable[str]) -> int:
    if args.json:
        print(json.dumps(found))
    else:
        _say(lines)
    return 0


def _say(lines: Iterable[str]) -> None:
    """Prints lines for people. A stranger's words in them neither drive the terminal nor make lines of their own."""
    from cofferdam.audit.lines import escaped

    for line in lines:
        print(escaped(line))


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"


def _status(args: argparse.Namespace) -> int:
    found = [each for each in _ask_all(args, "status") if "error" not in each]

    def lines() -> Iterator[str]:
        for each in found:
            stands = each["result"]
            full = f", FULL: {stands['full']}" if stands["full"] else ""
            where = " (outside)" if each["end"] == "outside" else ""
            yield f"{each['crew']}{where}: store {stands['store']}, {stands['free'] >> 20} MiB free{full}"
            for channel in stands["channels"]:
                yield "  " + _channel_line(channel)
                for gap in channel["missing"]:
                    given = "given up" if gap["given_up"] else f"missing since {_time(gap['since'])} UTC"
                    yield f"    numbers {gap['first']} to {gap['last']}: {given}"
                for consumer in channel["consumers"]:
                    yield "    " + _consumer_line(consumer)

    return _print(args, found, lines())


def _channel_line(channel: dict[str, Any]) -> str:
    words = [f"{channel['channel']:20} {channel['next'] - 1} messages so far, {channel['messages']} here"]
    words.append(f"{channel['size']} of {channel['room']} bytes")
    words.append(f"{channel['waiting']} waiting")
    if channel["quarantine"]:
        words.append(f"{channel['quarantine']} in quarantine")
    if channel["paused"]:
        words.append(f"PAUSED ({', '.join(channel['paused'])})")
    return ", ".join(words) + ("" if channel["served"] else ", not in the policy any more")


def _consumer_line(consumer: dict[str, Any]) -> str:
    since = f" for {consumer['oldest_ns'] // 10**9} s" if consumer["lag"] else ""
    words = [f"{consumer['consumer']:18} {consumer['lag']} behind{since}, {consumer['leased']} leased"]
    if consumer["dead"]:
        words.append(f"{consumer['dead']} dead")
    if consumer["stopped"]:
        words.append("STANDS until that is decided on (replay, skip)")
    if consumer["present"]:
        words.append(f"asked {consumer['asked_ns'] // 10**9} s ago")
    else:
        words.append("may not pull any more")
    return ", ".join(words)


def _pages(args: argparse.Namespace, verb: str, **arguments: object) -> Iterator[dict[str, Any]]:
    """Messages page by page, as many as were asked for."""
    after, left = args.after, args.most or sys.maxsize
    while left:
        page = _ask(args, verb, channel=args.channel, after=after, most=min(left, 1000), **arguments)
        if not page:
            return
        yield from page
        after, left = page[-1]["number"], left - len(page)


def _list(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(list(_pages(args, "list"))))
        return 0
    _say(
        f"{each['number']:>10}  {_time(each['at'])}  {each['size']:>9} bytes  {each['who']}  {each['key']}"
        for each in _pages(args, "list")
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    found = _ask(args, "show", channel=args.channel, number=args.number, body=args.body)

    def lines() -> Iterator[str]:
        yield f"{found['channel']} {found['number']}: {found['key']} from {found['who']}, {_time(found['at'])} UTC"
        yield f"{found['size']} bytes, SHA-256 {found['sha256']}"
        for name, stands in found["consumers"].items():
            yield f"{name}: {stands}"
        if "body" in found:
            yield from found["body"].split("\n")
            if not found["whole"]:
                yield "... (the rest with `cofferdam relay export`)"

    return _print(args, found, lines())


def _export(args: argparse.Namespace) -> int:
    from cofferdam.gate.overlay.peers import private_file

    if args.output is None:
        if sys.stdout.isatty():
            raise GateError(
                "bodies are others' words, and could drive this terminal",
                hint="give --output FILE, or a pipe: `cofferdam relay export CHANNEL | less`",
            )
        return _write_out(args, sys.stdout.buffer)
    with private_file(args.output) as file:
        return _write_out(args, file)


def _write_out(args: argparse.Namespace, file: BinaryIO) -> int:
    after, left, body = args.after, args.most or sys.maxsize, b""
    offset = 0
    while left > 0:
        page = _ask(args, "export", channel=args.channel, after=after, most=min(left, 1000), offset=offset)
        if not page["messages"]:
            break
        for message in page["messages"]:
            body += base64.b64decode(message.pop("body"))
            if page["offset"]:
                break
            data = json.dumps(body.decode()).encode() if body.startswith(b"<") else body  # XML is a text
            file.write(json.dumps(message)[:-1].encode() + b', "data": ' + data + b"}\n")
            body, left = b"", left - 1
        after, offset = page["after"], page["offset"]
    file.flush()
    return 0


def _dead(args: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    while page := _ask(args, "dead", channel=args.channel, consumer=args.consumer, most=ROWS_MOST,
                       after=found[-1]["number"] if found else 0):  # fmt: skip
        found += page
    lines = [f"{each['number']:>10}  {_time(each['at'])}  {each['tries']} tries  {each['reason']}" for each in found]
    return _print(args, found, lines or ["none"])


def _replay(args: argparse.Namespace) -> int:
    found = _ask(args, "replay", channel=args.channel, consumer=args.consumer, first=args.first, one=args.one)
    return _print(args, found, [f"{found['consumer']} has {found['lag']} messages of {found['channel']} before it"])


def _skip(args: argparse.Namespace) -> int:
    found = _ask(args, "skip", channel=args.channel, consumer=args.consumer, first=args.number)
    return _print(args, found, [f"{args.channel} {args.number} is given up for {args.consumer}"])


def _rest(args: argparse.Namespace) -> int:
    ways = {"push": args.only != "pull", "pull": args.only != "push"}
    found = _ask(args, args.what, channel=args.channel, **ways)
    rests = " and ".join(found["paused"])
    return _print(
        args, found, [f"{args.channel}: {rests} paused until `resume`" if rests else f"{args.channel} goes on"]
    )


def _clear(args: argparse.Namespace) -> int:
    removed = size = last = 0
    more = True
    while more:
        found = _ask(args, "clear", channel=args.channel, upto=args.upto)
        removed, size, last, more = removed + found["removed"], size + found["size"], found["last"], found["more"]
    said = {"channel": args.channel, "removed": removed, "size": size, "last": last}
    return _print(args, said, [f"{args.channel}: {removed} messages up to {last} are gone, {size} bytes"])


def _give_up(args: argparse.Namespace) -> int:
    found = _ask(args, "give-up", channel=args.channel, upto=args.upto)
    ranges = ", ".join(f"{first} to {last}" for first, last in found["given_up"])
    return _print(args, found, [f"{args.channel}: nobody waits for {ranges} any more"])


# --- the quarantine -----------------------------------------------------------------------------------------------


def _held(args: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    answers = _ask_all(args, "held", channel=args.channel, most=ROWS_MOST)
    for each in answers:
        if "error" in each:
            wrong.append(each)
        else:
            found += [{**row, "crew": each["crew"]} for row in _held_all(args, each["crew"], each["result"])]
    if args.channel and len(wrong) < len(answers):
        # A channel is one relay's, and the others do not know it; that one may have failed is another matter.
        wrong = [each for each in wrong if not each["error"].startswith(NO_CHANNEL)]

    several = len({each["crew"] for each in answers if "error" not in each}) > 1

    def lines() -> Iterator[str]:
        for row in found:
            place = row["place"] or "the whole"
            where = f"{place}, line {row['line']} column {row['column']}" if row["line"] else place
            changed = f", edited by {', '.join(row['editors'])}" if row["editors"] else ""
            waits = f", released by {row['approved']}, and waits for another" if row["approved"] else ""
            yield (
                f"{row['row']:>6}  {row['channel']}  {row['key']} from {row['who']}, {row['size']} bytes:"
                f" {row['fault']} at {where}: {row['detail']}{changed}{waits}"
                + (f" (--crew {row['crew']})" if several else "")
            )

    _print(args, found, lines() if found or wrong else ["nothing is in quarantine"])
    if wrong:
        words = "; ".join(f"{each['crew']}: {each['error']}" for each in wrong)
        raise GateError(f"that is not all, since not every relay answered: {words}", hint=wrong[0]["hint"])
    return 0


def _held_all(args: argparse.Namespace, crew: str, page: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All rows of one relay, of which the first page is there."""
    one = argparse.Namespace(**{**vars(args), "crew": crew})
    while page:
        yield from page
        if len(page) < ROWS_MOST:
            return
        page = _ask(one, "held", channel=args.channel, after=page[-1]["row"], most=ROWS_MOST)


def _held_show(args: argparse.Namespace) -> int:
    found = _ask(args, "held-show", row=args.row, body=args.body)
    return _print(args, found, _held_lines(found))


def _held_lines(row: dict[str, Any]) -> Iterator[str]:
    yield f"row {row['row']} of {row['channel']}: {row['key']} from {row['who']}, {_time(row['at'])} UTC"
    yield f"{row['size']} bytes, SHA-256 {row['sha256']}"
    yield f"{row['fault']} at {row['place'] or 'the whole'}, line {row['line']} column {row['column']}: {row['detail']}"
    if row["editors"]:
        yield f"edited by {', '.join(row['editors'])}, who cannot release it"
    if row["approved"]:
        yield f"released by {row['approved']}; it takes another person as well"
    if "body" in row:
        yield from row["body"].split("\n")
        yield from row["diff"]


def _decide(args: argparse.Namespace) -> int:
    more = {"reason": args.reason} if args.which == "reject" else {}
    found = _ask(args, args.which, row=args.row, **more)
    if found.get("number"):
        words = f"row {args.row} is message {found['number']} now, released by {' and '.join(found['people'])}"
    elif found.get("waits"):
        words = f"row {args.row}: {found['waits']}"
    else:
        words = f"row {args.row} is thrown away"
    return _print(args, found, [words])


def _edit(args: argparse.Namespace) -> int:
    body = sys.stdin.read() if str(args.file) == "-" else args.file.read_text("utf-8")
    found = _ask(args, "edit", row=args.row, body=body)

    def lines() -> Iterator[str]:
        yield from found["diff"] if isinstance(found["diff"], list) else [str(found["diff"])]
        problem = found["problem"]
        yield f"it still fails: {problem['detail']}" if problem else "it passes now; another person may release it"

    return _print(args, found, lines())


# --- verify -------------------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    import msgspec

    from cofferdam.brokers.relay.ledger import Batch, Passed, booked, compare

    findings: list[str] = []
    passed: list[Passed] = []
    batches: list[Batch] = []
    store, gone, checked = "", {}, 0
    missing: list[str] = []
    stands = _ask(args, "status")
    names = [args.channel] if args.channel else [channel["channel"] for channel in stands["channels"]]
    for name in names:
        after: int | None = 0
        while after is not None:
            step = _ask(args, "verify", channel=name, after=after)
            store, gone[name], checked = step["store"], step["gone"], checked
            findings += step["findings"]
            if not after:
                missing += [f"{name} {gap['first']} to {gap['last']}" for gap in step["missing"]]
            batches += msgspec.convert(step["batches"], list[Batch])
            last, after = after, step["after"] or None
            if after is not None and after <= last:
                break
    against = "without the audit log"
    if str(args.log) != "none":
        entries, passed = booked(_commits(args))
        chosen = [entry.event for entry in entries if not args.channel or entry.event["channel"] == args.channel]
        passed = [one for one in passed if one.entry.event["store"] == store
                  and (not args.channel or one.entry.event["channel"] == args.channel)]  # fmt: skip
        findings += compare(store, gone, batches, chosen)
        against = f"against {len(chosen)} entries of the audit log"
    count = sum(batch.count for batch in batches)
    found = {"messages": count, "channels": names, "against": against, "findings": findings, "missing": missing,
             "passed": [one.as_json() for one in passed]}  # fmt: skip
    words = [f"{count} messages in {len(names)} channels, {against}: {len(findings) or 'no'} findings"]
    if missing:
        words.append(f"not brought by the strand: {', '.join(missing)}")
    _print(args, found, [*words, *map(str, passed), *(f"  {each}" for each in findings)])
    return 1 if findings else 0


def _commits(args: argparse.Namespace) -> Iterator[Logged]:
    """What the log has of keepers' commits."""
    from cofferdam.audit.entry import parse_time
    from cofferdam.audit.events.base import kebab
    from cofferdam.audit.events.relay import KEEPER
    from cofferdam.audit.files import LogReader
    from cofferdam.audit.keys import find_public
    from cofferdam.audit.show import find_log, matching, wanted
    from cofferdam.brokers.relay.ledger import Logged
    from cofferdam.cli.gate_options import state_of

    folder = find_log(args.log or state_of(args) / "audit")
    key = find_public(None, folder.parent / "keys" / "audit.pub")
    kinds = [kebab(kind.__name__) for kind in KEEPER if "commit" in kind.__struct_fields__]
    for _, entry in matching(LogReader(folder, key), wanted(kinds), None):
        yield Logged(entry.index, parse_time(entry.time), entry.event)
