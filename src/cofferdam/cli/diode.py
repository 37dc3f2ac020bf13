"""`cofferdam diode ...`: pairing the ends of a strand, and operating one blind: status, tickets, re-sends, tests.

Keys are files in the state directory, for the parts that need them; all else is asked of the running parts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cofferdam.errors import AuditError, CrossingError, GateError

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


def _say(lines: Iterable[str]) -> None:
    from cofferdam.audit.lines import escaped

    for line in lines:
        print(escaped(line))


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


# --- pair -------------------------------------------------------------------------------------------------------------


def _pair(args: argparse.Namespace) -> int:
    from cofferdam.brokers.diode import pairing
    from cofferdam.cli.gate_options import state_of
    from cofferdam.cli.keys import policy_of
    from cofferdam.gate.crew.plan import plan_crews
    from cofferdam.policy.terms.diode_rows import DiodeRows

    policy = policy_of(args)
    strands = {name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, DiodeRows)}
    if args.strand:
        strands = {name: row for name, row in strands.items() if name == args.strand}
    if len(strands) != 1:
        known = ", ".join(strands) or "none"
        raise GateError(f"the policy has {known} for strands", hint="say which with --strand CONDUIT")
    ((strand, row),) = strands.items()
    machine = row.inside if args.end == "inside" else row.outside
    plans = plan_crews(policy.on(machine))
    base = next(plan.base for plan in plans.values() if plan.broker == "diode" and strand in plan.conduits)
    keys = _Keys(state_of(args), base)
    own = keys.own(args.end, new=args.new, old_days=args.old_days)
    log = _log_key(state_of(args)) if args.end == "inside" else ""
    mine = pairing.PairFile("pair of a strand", 1, policy.site, strand, args.end, *own, log)
    shown = {"end": args.end, "strand": strand, "words": mine.words, "file": "", "taken": ""}
    if args.take is not None:
        other = pairing.read(_read(args.take))
        _check(other, mine)
        keys.take(args.end, other, args.old_days)
        shown["taken"] = other.words
    if args.output is not None or args.take is None:
        path = args.output or Path(f"{strand}-{args.end}.pair")
        _write(path, _encode(mine) + b"\n", 0o644)
        shown["file"] = str(path)
    if args.json:
        print(json.dumps(shown))
        return 0
    if shown["file"]:
        _say([f"{shown['file']}: for the machine at the other end of {strand}. It holds no secret.",
              f"  its words: {mine.words}"])  # fmt: skip
        _qr(mine.words)
        if args.end == "inside" and not log and "log" in row.gate:
            _say(["  The audit log has no key yet. Once the gate has run, a file that is written anew has it, too:",
                  "  with it the outside checks who has signed the log."])  # fmt: skip
    if shown["taken"]:
        _say([f"taken: the {'outside' if args.end == 'inside' else 'inside'} end of {strand}",
              f"  its words: {shown['taken']}",
              "Compare them with those on the other machine's screen. If they differ, somebody has changed the file.",
              "Then start the gate; or, if it runs: cofferdam reload."])  # fmt: skip
    return 0


def _log_key(state: Path) -> str:
    """The public key of this machine's audit log, "" where there is none yet. Raises: CofferdamError."""
    from cofferdam.audit.keys import find_public

    path = state / "keys" / "audit.pub"
    return find_public(None, path).text if path.exists() else ""


def _check(other: Any, mine: Any) -> None:
    """Raises: GateError, where a file is not that of the other end of the same strand."""
    if other.end == mine.end:
        raise GateError(f"this file is of the {other.end} end, and so is this machine", hint="take the other one")
    if (other.site, other.strand) != (mine.site, mine.strand):
        raise GateError(
            f"this file is for the strand {other.strand} of {other.site}, not {mine.strand} of {mine.site}",
            hint="each strand has a pair of files of its own",
        )
    if other.log:
        from cofferdam.audit.checkpoint import VerifierKey

        try:
            VerifierKey.parse(other.log)
        except AuditError as error:
            raise GateError(f"this file's key of the audit log is none: {error}", hint="have it made anew") from None
    if other.end == "outside" and not other.seal:
        raise GateError("this file has no key to seal to", hint="have it made anew")


def _encode(record: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(record)


class _Keys:
    """The files of the state folder in which the parts' keys are."""

    def __init__(self, state: Path, base: str) -> None:
        self._state, self._base = state, base

    def _path(self, part: str) -> Path:
        from cofferdam.brokers.diode.pairing import SECRET
        from cofferdam.gate.secrets import secret_file

        return secret_file(self._state, self._base, part, SECRET)

    def _load(self, part: str, kind: Any) -> Any:
        from cofferdam.brokers.diode.pairing import SECRET, load
        from cofferdam.gate.secrets import read_secret

        path = self._path(part)
        try:
            found = {SECRET: read_secret(path)}
        except FileNotFoundError:
            found = {}
        except OSError as error:
            raise GateError(f"{path} cannot be read: {error.strerror or error}") from None
        return load(kind, found)

    def _save(self, part: str, keys: Any) -> None:
        import os

        from cofferdam.gate.secrets import save_secret

        state = self._state
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = state.stat().st_gid if os.geteuid() == 0 else os.geteuid()  # the gate's group is its user's own
        save_secret(self._path(part), _encode(keys), owner)

    def own(self, end: str, *, new: bool, old_days: int) -> tuple[str, str]:
        """This end's public keys (sign, seal); made if there are none, or `new` ones. Raises: GateError."""
        from cofferdam.brokers.diode import pairing
        from cofferdam.brokers.diode.pairing import KeeperKeys, ReceiverKeys, SenderKeys, SpoolKeys

        if end == "inside":
            sender = self._load("sender", SenderKeys)
            if sender is None or new:
                private = pairing.new_signer()[0]
                if sender is None:
                    sender = SenderKeys(private)
                else:
                    former = pairing.former(sender.former, sender.sign, *_days(old_days))
                    sender = SenderKeys(private, sender.receivers, former)
                self._save("sender", sender)
                if self._load("spool", SpoolKeys) is None:
                    self._save("spool", SpoolKeys())
            return pairing.signer_public(sender.sign), ""
        receiver, keeper = self._load("receiver", ReceiverKeys), self._load("keeper", KeeperKeys)
        if receiver is None or keeper is None or new:
            private = pairing.new_sealer()[0]
            if receiver is None:
                receiver = ReceiverKeys(private)
            else:
                former = pairing.former(receiver.former, receiver.seal, *_days(old_days))
                receiver = ReceiverKeys(private, receiver.senders, former)
            keeper = KeeperKeys(pairing.new_signer()[0], keeper.log if keeper is not None else "")
            self._save("receiver", receiver)
            self._save("keeper", keeper)
        return pairing.signer_public(keeper.sign), pairing.sealer_public(receiver.seal)

    def take(self, end: str, other: Any, old_days: int) -> None:
        """Brings the other end's keys in. Raises: GateError."""
        from cofferdam.brokers.diode.pairing import KeeperKeys, ReceiverKeys, SenderKeys, SpoolKeys, take

        now, until = _days(old_days)
        if end == "inside":
            sender, spool = self._load("sender", SenderKeys), self._load("spool", SpoolKeys)
            self._save("sender", SenderKeys(sender.sign, take(sender.receivers, other.seal, now, until), sender.former))
            self._save("spool", SpoolKeys(take(spool.tickets, other.sign, now, until)))
        else:
            receiver = self._load("receiver", ReceiverKeys)
            senders = take(receiver.senders, other.sign, now, until)
            self._save("receiver", ReceiverKeys(receiver.seal, senders, receiver.former))
            keeper = self._load("keeper", KeeperKeys)
            if keeper.log != other.log:
                self._save("keeper", KeeperKeys(keeper.sign, other.log))


def _days(count: int) -> tuple[int, int]:
    """(now, so many days later), UTC ns."""
    from cofferdam.brokers.diode.pairing import EVER

    now = time.time_ns()
    return now, min(EVER, now + max(0, count) * 86_400 * 10**9)


def _read(path: Path) -> bytes:
    data = path.read_bytes() if path.stat().st_size <= 1 << 16 else b""
    if not data:
        raise GateError(f"{path} is no file of a pair")
    return data


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all."""
    import os

    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    new.rename(path)


def _qr(text: str) -> None:
    """On a terminal, if the library is there."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        return
    segno.make(text, error="m").terminal(compact=True)


def _size(count: int) -> str:
    """Bytes for people to read: three digits that count."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


# --- status -----------------------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    found = [{**_ask(args, PARTS[end], "status"), "how": _how(args), "now": _now(args)} for end in _ends(args)]
    if args.json:
        print(json.dumps(found))
        return 0
    for each in found:
        _say(_inside(each) if each["end"] == "inside" else _outside(each))
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


def _head(each: dict[str, Any]) -> Iterator[str]:
    yield f"{each['strand']}: the {each['end']} end, {each['how']}"
    attested = each["hardware"]
    yield f"  hardware: {f'attested by the operator: {attested}' if attested else 'nothing is attested'}"
    if not each["paired"]:
        yield f"  NO OTHER END: cofferdam diode pair {each['end']}"
    if each["full"]:
        yield f"  FULL: {each['full']}"


def _inside(each: dict[str, Any]) -> Iterator[str]:
    from cofferdam.policy.terms.diode_rows import show_rate

    yield from _head(each)
    spool, now = each["spool"], each["now"]
    yield (f"  sends {now['sending'] / 1e6:.2f} Mbit/s now; {now['packets']} packets went out, {now['unsent']} times "
           "the kernel took nothing")  # fmt: skip
    hours, room = spool["oldest_seconds"] / 3600, spool["room_seconds"]
    yield f"  epoch {each['epoch']}, {show_rate(each['rate'])}, {_size(each['queue'])} in the sender's queue"
    yield (f"  spool: {_size(spool['bytes'])} of {_size(spool['room'])}, {hours:.1f} of {spool['keep'] / 3600:g} h, "
           f"{spool['dropped']} dropped for want of room"
           + (f"; at this pace there is room for {room / 3600:.1f} h" if room >= 0 else ""))  # fmt: skip
    for channel in each["channels"]:
        yield f"  {channel['channel']:24} epoch {channel['epoch']}: {channel['oldest']} to {channel['highest']} kept"
    for name, folder in each["folders"].items():
        yield f"  {name:24} out of {folder}"
    for one in each["not_sent"]:
        yield f"  NOT SENT: {one['name']} of {one['channel']}: {one['why']}"


def _outside(each: dict[str, Any]) -> Iterator[str]:
    yield from _head(each)
    beat = each["heartbeat"]
    if beat is None:
        yield f"  nothing has been heard{'' if each['epoch'] else ', and no epoch is known'}"
    else:
        told = f"{datetime.fromtimestamp(beat['told'] // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        yield (f"  epoch {each['epoch']} of {each['sender']}; heartbeat {beat['age']} s ago, its clock says {told} "
               f"({beat['differs']:+} s to ours), {_size(beat['queue'])} wait inside")  # fmt: skip
    if each["told"]:
        yield from _about_inside(each["told"])
    trouble, counts = each["trouble"], each["now"]
    came, repaired = counts["received"], counts["repaired"]
    share = 100 * repaired / max(1, came + repaired)
    yield (f"  hears {counts['hearing'] / 1e6:.2f} Mbit/s now; {came} packets came, some {share:.2f} % were lost "
           f"before repair, {repaired} repaired")  # fmt: skip
    yield (f"  {trouble['foreign']} foreign packets, {trouble['blocks']} blocks lost, {counts['blocks_open']} not "
           f"whole, {trouble['kernel']} packets dropped by the kernel, {trouble['overrun']} records not taken in "
           "time")  # fmt: skip
    for name, why in each["stopped"].items():
        yield f"  STOPPED: {name}: {why}"
    for channel in each["channels"]:
        lost = sum(one["lost"] + one["given_up"] for one in channel["epochs"])
        words = f"{channel['missing']} missing, {lost} lost"
        if channel["channel"].startswith("files:"):
            words += f", {channel['done']} files whole, {channel['coming']} coming"
        yield f"  {channel['channel']:24} {words}"
        now = time.time_ns()
        for gap in channel["gaps"]:
            yield (f"    epoch {gap['epoch']}: {gap['first']} to {gap['last']}, "
                   f"missing for {max(0, now - gap['since']) // 10**9} s")  # fmt: skip
    for name, folder in each["folders"].items():
        yield f"  {name:24} into {folder}"


# --- tickets ----------------------------------------------------------------------------------------------------------


def _ticket(args: argparse.Namespace) -> int:
    from cofferdam.brokers.diode.tickets import spaced

    made = _ask(args, "keeper", "ticket", channel=args.channel)
    if args.output is not None:
        _write(args.output, "".join(f"{one['text']}\n" for one in made["tickets"]).encode(), 0o644)
    if args.json:
        print(json.dumps(made))
        return 0
    for one in made["tickets"]:
        until = f"{datetime.fromtimestamp(one['until'], UTC):%Y-%m-%d}"
        _say([f"ticket {one['serial']} for {one['missing']} records of {one['channel']}, good once, until {until}:",
              f"  {spaced(one['text'])}"])  # fmt: skip
        if not args.no_qr:
            _qr(one["text"])
    _say(["Inside: cofferdam diode resend --ticket 'TEXT', and with --go once it says what you want."])
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
        _say([f"ticket {one['serial']}: {one['records']} records of {one['channel']}, {_size(one['bytes'])}, "
              f"about {one['seconds']} s: {does}"])  # fmt: skip
        if one["lost"]:
            _say([f"  {one['lost']} of what it asks for are not kept here (any more): they are lost; outside: "
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
    _say(_about_inside(found))
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


def _about_inside(told: dict[str, Any]) -> Iterator[str]:
    """What is known outside of the inside's status and log, in lines."""
    if not told:
        yield "  nothing is told of the inside by this policy: carries: [gate:status, gate:log]"
        return
    if told["came_ns"]:
        age = max(0, time.time_ns() - told["came_ns"]) // 10**9
        at = f"{datetime.fromtimestamp(told['told_ns'] // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        yield f"  its status came {age} s ago; its clock said {at}"
    log = told["log"]
    if log is not None:
        waits = f"; one over {log['waits']} waits for what is missing" if log["waits"] else ""
        whose = "signed by the inside's key" if log["signed"] else "whose signature nobody has checked here"
        yield f"  its audit log: a checkpoint over {log['entries']} entries, {whose}{waits}"
        yield f"  cofferdam audit verify --log {log['folder']} --key audit.pub"


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
            _say([f"run {found['run']}: {', '.join(map(show_rate, rates))}, {args.seconds:g} s each; "
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
        _say([f"run {step['run']}: {show_rate(step['rate']):>14}  {words}"])
    if under_way:
        _say(["it may still be coming: ask again in some seconds"])
    elif best := _best(steps):
        rate = show_rate(round(best * 0.8))
        _say([f"the setting to type in: rate: {rate} (four fifths of the fastest without loss)"])
    elif not steps:
        _say(["no test has come; inside: cofferdam diode test"])
    else:
        _say(["nothing to type in: the slowest rate lost as well. Look at the line, or inside: cofferdam diode test "
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
