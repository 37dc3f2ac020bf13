"""What people type at the menu (`ssh gate`): a line in, a text out.

Not here: carrying a line there and back (outer_menu), the same for operators of the gate (keeper_verbs).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.audit.lines import escaped
from cofferdam.brokers.jump import lists, told
from cofferdam.brokers.jump.accounts import REQUESTS_A_DAY, REQUESTS_WAITING, Person, Request, key_name
from cofferdam.brokers.jump.deciding import FRESH_NS, Session
from cofferdam.brokers.jump.desk import Desk, Tell, to_sign
from cofferdam.brokers.jump.reserve import FULL
from cofferdam.brokers.jump.signin import CERTIFIED, Connection
from cofferdam.brokers.jump.watching import Watching
from cofferdam.brokers.kit import sshsig
from cofferdam.errors import GateError
from cofferdam.policy.points.decide import show_utc

_TIME: Final = re.compile(r"([1-9][0-9]{0,3})(min|m|h)\Z")
_SIGNATURE: Final = base64.b64encode(sshsig.MAGIC).decode()
HELP: Final = """list [WORD]              what you may reach, and what holds now
request ASSET TIME WHY   ask for approval: request plc-7 2h pump trips #4711
requests [WORD]          what waits, and what is granted
withdraw N               a request of yours that waits
approve N                another's request, within five minutes of signing in
statement N [deny]       to sign: ssh-keygen -Y sign -n cofferdam-approval
approve N SIGNATURE      by such a signature: its base64 as one word, bare
deny N [REASON]          the same
files [WORD]             in quarantine, of yours or for you to decide about
who [WORD]               your sessions, and those that you may watch
watch N                  see what a session shows, live
join N                   the same, with hands of one's own
say N TEXT               words to who sits there
kill N [REASON]          end a session, bar its person from that asset
certificate              for your key, in place of codes, for some hours
list, requests, files, who, request and withdraw take --json as their first word
help, exit"""


def seconds_of(text: str) -> int:
    """ "2h", "30min" in seconds. Raises: GateError."""
    found = _TIME.match(text)
    if not found:
        raise GateError(f"{text[:20]!r} is no time", hint="such as 2h or 30min")
    return int(found[1]) * (3600 if found[2] == "h" else 60)


class Menu:
    """The lines."""

    def __init__(self, keeper: Desk, watching: Watching) -> None:
        self._keeper = keeper
        self.watching = watching
        self.files: Callable[[str], list[told.HeldFile]] = lambda _: []
        """Files in quarantine, for somebody (releasing)."""
        self._deciding: set[int] = set()
        """Requests about which a decision is on its way into the log."""

    def line(self, connection: Connection, line: str, tell: Tell) -> None:
        """Answers a line. Raises: GateError: that is the answer."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        plain = rest.removeprefix("--json").strip() if re.match("--json( |$)", rest) else None
        if word in ("request", "approve") and self._keeper.accounts.reserve.short():
            raise GateError(FULL)
        match word:
            case "" | "list" | "requests" | "files" | "who":
                wanted = rest if plain is None else plain
                tell(self._listed(connection.person, word or "list", wanted, plain is not None))
            case "request":
                self._request(connection, rest if plain is None else plain, tell, plain is not None)
            case "withdraw":
                who = self._keeper.accounts.known(connection.person)
                self.withdraw(who, _number(rest if plain is None else plain), "", tell, plain is not None)
            case "statement":
                number, _, how = rest.partition(" ")
                if not self._concerned(connection.person, self._keeper.accounts.request(_number(number))):
                    raise GateError(f"request {number} is neither yours nor for you to approve", hint="requests")
                tell(self.statement(_number(number), "deny" if how == "deny" else "approve"))
            case "approve" | "deny":
                number, _, reason = rest.partition(" ")
                if reason.startswith(_SIGNATURE):
                    signature, _, reason = reason.partition(" ")
                    self.signed(_number(number), word, signature, reason, tell, connection.person)
                    return
                fresh = self._keeper.now - connection.since_ns <= FRESH_NS
                if CERTIFIED in connection.factors:
                    raise GateError("you came by a certificate", hint="come anew with a code; or sign")
                if not fresh:
                    raise GateError("you signed in more than five minutes ago", hint="come anew; or sign")
                who = self._keeper.accounts.known(connection.person)
                self.decide(who, _number(number), word, reason, "signed in within five minutes", tell)
            case "certificate":
                self._certificate(connection, tell)
            case "watch" | "join":
                self.watching.begin(connection, _number(rest), word == "join", tell)
            case "say":
                number, _, text = rest.partition(" ")
                session = self.session(_number(number))
                self.watching.may(connection.person, session)
                tell(self.watching.say(connection.person, session, text))
            case "kill":
                number, _, reason = rest.partition(" ")
                self._kill(connection, _number(number), reason, tell)
            case "help":
                tell(HELP)
            case _:
                raise GateError(f"{word[:30]!r} is no word of the menu", hint="help")

    def _listed(self, person: str, what: str, wanted: str, as_json: bool) -> str:
        """One of the lists: those with a word in them, for people or for a program."""
        found: list[tuple[str, Any]]
        if what == "list":
            found = [(_reach_line(one), one) for one in self._reach(person) if wanted.lower() in one["asset"].lower()]
            nothing = "nothing that you may reach" + (f" has {wanted!r} in its name" if wanted else "")
        elif what == "who":
            found, nothing = [(one["line"], one) for one in self._who(person) if lists.has(one, wanted)], "nobody"
        else:
            found = [(one["line"], one) for one in self.files(person) if lists.has(one, wanted)]
            if what == "requests":
                asked: list[tuple[str, Any]]
                asked = [(request_line(one), one) for one in self._requests(person) if lists.has(one, wanted)]
                found = asked if as_json else [*asked, *found]
            nothing = f"no {what}" if not wanted else f"none of the {what} has {wanted!r} in it"
        if as_json:
            return lists.as_json([one for _, one in found])
        said = lists.text([line for line, _ in found], what, nothing)
        if what == "list" and found:
            said += "\nssh ASSET@gate goes there; request ASSET 2h WHY asks for approval"
        elif what == "who" and (others := len(self._keeper.live) - len(self._who(person))):
            said = f"{said}\n{others} of others" if found else f"{others} of others"
        return said

    def _reach(self, person: str) -> Iterator[dict[str, Any]]:
        """What somebody may reach: "approved", "asks" (for an approval) or "open" (at once)."""
        keeper = self._keeper
        granted: dict[str, int] = {}
        for one in keeper.accounts.requests(("granted",)):
            if one.person == person and keeper.deciding.holds(one, keeper.wall, keeper.now):
                granted[one.asset] = max(one.until_ns, granted.get(one.asset, 0))
        for asset, found in keeper.deciding.reachable(person).items():
            needs = all(keeper.deciding.asks(right, keeper.wall) for right in found)
            yield {
                "asset": asset, "do": sorted({do for right in found for do in right.line.do}),
                "state": "approved" if asset in granted else "asks" if needs else "open",
                "until_ns": granted.get(asset, 0),
            }  # fmt: skip

    def _request(self, connection: Connection, rest: str, tell: Tell, as_json: bool = False) -> None:
        asset, _, rest = rest.partition(" ")
        span, _, reason = rest.strip().partition(" ")
        if not span:
            raise GateError("a request says what, for how long and why", hint="request ASSET 2h WHY #TICKET")
        seconds = seconds_of(span)
        text, _, ticket = reason.strip().partition("#")
        if not text.strip():
            raise GateError("a request says why", hint="request ASSET 2h WHY #TICKET")
        keeper = self._keeper
        conduit = keeper.deciding.askable(connection.person, asset, seconds)
        if keeper.accounts.waiting() >= REQUESTS_WAITING:
            raise GateError("too many requests wait already")
        if sum(1 for one in keeper.accounts.requests(("waiting",)) if one.person == connection.person) >= 20:
            raise GateError("twenty requests of yours wait already")
        if keeper.accounts.asked(connection.person, keeper.wall) >= REQUESTS_A_DAY:
            raise GateError(f"you have asked {REQUESTS_A_DAY} times within a day", hint="withdraw brings none back")
        person, why = connection.person, clip(escaped(text.strip()), 400)
        ticket = clip(escaped(ticket.strip()), 64)
        number = keeper.accounts.ask(person, asset, conduit, seconds, why, ticket, keeper.wall)
        entry = events.AccessRequested(
            wall_ns=keeper.wall, request=number, person=person, asset=asset, conduit=conduit, seconds=seconds,
            reason=why, ticket=ticket,
        )  # fmt: skip
        row = keeper.deciding.rows[conduit]
        by = " or ".join(row.approval.by) if row.approval is not None else ""
        said = json.dumps({"request": number, "by": by}) if as_json else f"request {number} waits for {by}"
        keeper.when_recorded(entry, lambda: said, tell)

    def withdraw(self, who: Person, number: int, reason: str, tell: Tell, as_json: bool = False) -> None:
        """Who asked takes a request back, while it waits. Raises: GateError."""
        keeper = self._keeper
        request = self._own(who, number)
        if number in self._deciding:
            raise GateError(f"somebody decides about request {number} just now", hint="look again")
        entry = events.AccessDecided(
            wall_ns=keeper.wall, request=number, decision="withdrawn", by=who.name, how="who asked",
            person=request.person, asset=request.asset, reason=clip(reason, 400),
        )  # fmt: skip

        def act() -> str:
            self._own(who, number)
            keeper.accounts.settle(number, "withdrawn", 0)
            return json.dumps({"request": number}) if as_json else f"request {number} is withdrawn"

        self._deciding.add(number)
        keeper.when_recorded(entry, act, self._decided(number, tell))

    def _own(self, who: Person, number: int) -> Request:
        """A request of somebody's that waits. Raises: GateError."""
        request = self._keeper.accounts.request(number)
        if request.person != who.name:
            raise GateError(f"request {number} is not yours", hint="who may approve it may deny it")
        if request.state != "waiting":
            hint = "cofferdam jump revoke takes an approval back" if request.state == "granted" else "requests"
            raise GateError(f"request {number} is {request.state}", hint=hint)
        return request

    def _decided(self, number: int, tell: Tell) -> Tell:
        """Tells what was decided about a request, of which others may decide again."""

        def told(text: str, refused: bool = False, /) -> None:
            self._deciding.discard(number)
            tell(text, refused)

        return told

    def _certificate(self, connection: Connection, tell: Tell) -> None:
        keeper = self._keeper
        made, until = keeper.certified.sign(connection, keeper.wall)
        detail = f"for {key_name(connection.key)} from {connection.source}, until {show_utc(until)}"
        entry = events.AccessSet(
            wall_ns=keeper.wall, what="certificate", name=connection.person, by=connection.person, detail=detail
        )
        keeper.when_recorded(entry, lambda: made, tell)

    def asked(self) -> Iterator[Request]:
        """What waits and what is granted."""
        keeper = self._keeper
        for one in keeper.accounts.requests():
            if one.state == "waiting" or keeper.deciding.holds(one, keeper.wall, keeper.now):
                yield one

    def _requests(self, person: str) -> Iterator[told.Request]:
        """Somebody's own, and what they may have a say in."""
        for one in self.asked():
            if self._concerned(person, one):
                yield request_row(one, self._keeper.accounts.approvals(one.id))

    def _concerned(self, person: str, request: Request) -> bool:
        """Whether it is theirs, or they may have a say in it."""
        row = self._keeper.deciding.rows.get(request.conduit)
        by = row.approval.by if row is not None and row.approval is not None else ()
        return request.person == person or not set(by).isdisjoint(self._keeper.accounts.groups(person))

    def statement(self, number: int, word: str) -> str:
        """What somebody signs to approve or deny a request: all that it says, and by which gate it was asked.
        Raises: GateError."""
        accounts = self._keeper.accounts
        one = accounts.request(number)
        if one.state != "waiting":
            raise GateError(f"request {number} is {one.state}")
        said = {
            "site": self._keeper.deciding.policy.table.site, "gate": key_name(accounts.host_key.public_data),
            "request": one.id, "asked": show_utc(one.at_ns), "person": one.person, "asset": one.asset,
            "conduit": one.conduit, "seconds": one.seconds, "reason": one.reason, "ticket": one.ticket,
            "decision": word,
        }  # fmt: skip
        return to_sign("access", said)

    def signed(self, number: int, word: str, signature: str, reason: str, tell: Tell, person: str = "") -> None:
        """A decision by a signature, of `person` where one is named. Raises: GateError."""
        text = self.statement(number, word)
        who, how = self.signer(f"request {number}", text, signature, person)
        self.decide(who, number, word, reason, how, tell, text, signature)

    def signer(self, what: str, text: str, signature: str, person: str = "") -> tuple[Person, str]:
        """(who has signed this text, by what). Raises: GateError."""
        try:
            blob = base64.b64decode(signature, validate=True)
            key = sshsig.signer(blob)
            owner = self._keeper.accounts.owner(key)
            if not owner or person not in ("", owner):
                raise GateError("a signature by a key that is " + ("not yours" if owner else "nobody's"))
            sshsig.verify(blob, key, sshsig.APPROVAL, text.encode())
        except (ValueError, sshsig.SignatureRefused) as error:
            raise GateError(
                f"no signature over {what}: {error}", hint="statement N says what is to be signed"
            ) from None
        return self._keeper.accounts.known(owner), clip(f"a signature by {key_name(key)}", 128)

    def at_the_gate(self, login: str) -> Person:
        """The person whom somebody is who is logged in at the gate. Raises: GateError."""
        person = self._keeper.accounts.by_account(login)
        if person is None:
            raise GateError(
                f"{login}, as whom you are logged in, is nobody whom the keeper knows",
                hint="`cofferdam jump person add NAME --account LOGIN` says who is who; or sign: --key FILE",
            )
        return person

    def decide(
        self, who: Person, number: int, word: str, reason: str, how: str, tell: Tell, statement: str = "",
        signature: str = "",
    ) -> None:  # fmt: skip
        """Somebody approves or denies a request. Raises: GateError."""
        keeper = self._keeper
        request = keeper.accounts.request(number)
        needed = keeper.deciding.approver(who, request)
        if word == "approve" and not signature and keeper.deciding.signs(request):
            raise GateError("it takes a signature", hint=f"statement {number}")
        if number in self._deciding:
            raise GateError(f"somebody else decides about request {number} just now", hint="look again")
        given = [*keeper.deciding.approved(request), who.name]
        granted = word == "approve" and len(given) >= needed
        until = keeper.wall + request.seconds * 10**9 if granted else 0
        decision = "denied" if word == "deny" else "granted" if granted else "approved"
        entry = events.AccessDecided(
            wall_ns=keeper.wall, request=number, decision=decision,  # type: ignore[arg-type]
            by=who.name, how=how, person=request.person, asset=request.asset,
            people=tuple(given) if decision != "denied" else (), until_ns=until, reason=clip(reason, 400),
            statement=statement, signature=signature,
        )  # fmt: skip

        def act() -> str:
            keeper.deciding.approver(who, keeper.accounts.request(number))  # others may have been quicker
            if decision == "denied":
                keeper.accounts.settle(number, "denied", 0)
                return f"request {number} is denied"
            keeper.accounts.approve(number, who.name, how, keeper.wall)
            if not granted:
                return f"request {number} takes {needed - len(given)} more"
            keeper.accounts.settle(number, "granted", until)
            keeper.deciding.granted(request, keeper.now)
            return f"request {number} is granted until {show_utc(until)}"

        self._deciding.add(number)
        keeper.when_recorded(entry, act, self._decided(number, tell))

    def _who(self, person: str) -> list[told.Session]:
        """Who is where: what somebody does themselves, and what they may watch. Others are a number: one vendor is told
        neither another's name nor what they type."""
        groups, found = self._keeper.accounts.groups(person), []
        for one in self._keeper.live.values():
            approval = one.right.row.approval
            by = approval.by if approval is not None else ()
            if one.connection.person == person or not set(by).isdisjoint(groups):
                found.append(self.session_row(one))
        return found

    def session_row(self, one: Session) -> told.Session:
        return {
            "number": one.number, "session": one.name, "person": one.connection.person,
            "source": one.connection.source, "asset": one.asset, "login": one.right.line.login,
            "what": one.asked.what, "command": one.asked.command, "conduit": one.right.conduit,
            "request": one.request, "since_ns": one.opened_wall,
            "factors": one.connection.factors, "line": self.session_line(one),
        }  # fmt: skip

    def session_line(self, one: Session) -> str:
        """A session for people, with who watches."""
        return ", ".join([session_line(one, self._keeper.now), *self.watching.names(one)])

    def session(self, number: int) -> Session:
        """Raises: GateError."""
        found = self._keeper.live.get(number)
        if found is None:
            raise GateError(f"there is no session {number}", hint="who; at the gate `cofferdam jump sessions`")
        return found

    def _kill(self, connection: Connection, number: int, reason: str, tell: Tell) -> None:
        session = self.session(number)
        approval = session.right.row.approval
        groups = set(self._keeper.accounts.groups(connection.person))
        own = session.connection.person == connection.person
        if not own and (approval is None or not groups & set(approval.by)):
            raise GateError("only who may approve it may end it")
        self.kill(session, connection.person, () if own else ("pair",), reason, tell)

    def kill(self, session: Session, by: str, bars: tuple[str, ...], reason: str, tell: Tell) -> None:
        """Ends a session now, and bars "person", "asset" or "pair" until that is lifted. What ends is not held up by
        the log: it ends first."""
        keeper = self._keeper
        person, asset = session.connection.person, session.asset
        names = {"person": person, "asset": asset, "pair": f"{person} {asset}"}
        for bar in bars:
            keeper.accounts.block(bar, names[bar], by, clip(reason, 400), keeper.wall)
        keeper.revoke(session, f"ended by {by}" + (f": {reason}" if reason else ""))
        keeper.look_again()
        blocked = tuple(names[bar] for bar in bars)
        entry = events.AccessKilled(
            wall_ns=keeper.wall, session=session.name, by=by, blocked=blocked, reason=clip(reason, 400)
        )
        done = f"{session.name} is ended" + (f", barred: {', '.join(blocked)}" if blocked else "")
        keeper.when_recorded(entry, lambda: done, tell)


def _number(text: str) -> int:
    if not text:
        raise GateError("which one? a number is missing", hint="help")
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise GateError(f"{text[:20]!r} is no number")
    return int(text)


def request_row(one: Request, approved: list[str]) -> told.Request:
    return {
        "id": one.id, "person": one.person, "asset": one.asset, "conduit": one.conduit, "seconds": one.seconds,
        "reason": one.reason, "ticket": one.ticket, "at_ns": one.at_ns, "state": one.state,
        "until_ns": one.until_ns, "approved": approved,
    }  # fmt: skip


def request_line(one: told.Request) -> str:
    """A request for people."""
    state = f"granted until {show_utc(one['until_ns'])}" if one["state"] == "granted" else one["state"]
    by = f", approved by {', '.join(one['approved'])}" if one["approved"] else ""
    ticket = f" [{one['ticket']}]" if one["ticket"] else ""
    what = f"{one['person']} → {one['asset']}, {one['seconds'] // 60} min"
    return f"{one['id']:>4}  {what}: {one['reason']}{ticket}: {state}{by}"


def _reach_line(one: dict[str, Any]) -> str:
    states = {"approved": f"approved until {show_utc(one['until_ns'])}", "asks": "takes an approval", "open": "at once"}
    return f"{one['asset']:24} {' '.join(one['do']):20} {states[one['state']]}"


def session_line(one: Session, now_ns: int) -> str:
    """A session for people."""
    minutes = (now_ns - one.opened_ns) // 60_000_000_000
    what = f"{one.asked.what} {one.asked.command}".strip()
    state = ", waits to be watched" if one.waits else ", locked" if one.locked else ""
    return (
        f"{one.number:>4}  {one.connection.person} ({one.connection.source}) at {one.asset} as"
        f" {one.right.line.login}: {escaped(what)}, {minutes} min{state}"
    )
