"""Who may have a session now, and whether one that stands may go on. No I/O but the store's.

Decided from the policy's rows, the keeper's people, approvals and blocks, and the clocks: windows and expiry by the
wall clock, an approval by the monotonic clock as well, so that a clock that is set back lengthens nothing.

Not here: signing in (signin), carrying out (keeper_part).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Final

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.accounts import Accounts, Person, Request
from cofferdam.brokers.jump.signin import Connection
from cofferdam.errors import GateError
from cofferdam.model import NEVER
from cofferdam.policy import windows
from cofferdam.policy.problems import nearest
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import Do, JumpRows, Right, fits, matching, names, rights
from cofferdam.protocols.dialects import DIALECTS
from cofferdam.protocols.terminals.dialect import SERIAL, SSH

FRESH_NS: Final = 300 * 10**9
"""How long ago an approver may have signed in."""
LONGEST_SECONDS: Final = 86_400.0 * 7
"""A session without another end."""


@dataclass
class Session:
    """One that has a grant, or waits for its entry in the log."""

    number: int
    name: str
    connection: Connection
    asked: records.Open
    right: Right
    request: int
    opened_wall: int
    opened_ns: int
    warned: set[int] = field(default_factory=set)
    terms: str | None = None
    """What its grant says beside its end; None before there is one."""
    locked: bool = False
    """Nobody typed for long: it goes on when its person shows a factor."""
    unlock_tries: int = 0
    waits: bool = False
    """For somebody who watches; until then there is no entry and no grant."""

    @property
    def asset(self) -> str:
        return self.asked.asset


def same_name(one: Person, other: Person) -> bool:
    """Whether two entries have the same whole name: as it is read, however it was typed."""
    return bool(plain := _plain(one.full)) and plain == _plain(other.full)


def _plain(name: str) -> str:
    shown = (
        letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) not in ("Cf", "Cc")
    )
    return " ".join("".join(shown).casefold().split())


@dataclass(frozen=True)
class Yes:
    """A session may begin, and last until then (UTC ns)."""

    right: Right
    request: int
    until_ns: int


class Deciding:
    """The judge. `severed`: whether an operator has cut a side off."""

    def __init__(self, accounts: Accounts, policy: CompiledPolicy) -> None:
        self._accounts = accounts
        self._deadlines: dict[tuple[str, int], int] = {}
        self.severed = False
        self.take_policy(policy)

    def take_policy(self, policy: CompiledPolicy) -> None:
        self.policy = policy
        self.rows: dict[str, JumpRows] = {
            name: each.terms for name, each in policy.conduits.items() if isinstance(each.terms, JumpRows)
        }
        self.assets = frozenset(name for row in self.rows.values() for line in row.lines for name in line.assets)

    @property
    def certificates(self) -> int:
        """How long one counts (seconds) in the conduit that has it longest; 0: in none."""
        return max((row.certificates for row in self.rows.values()), default=0)

    def notice(self) -> str:
        """What is shown before anybody signs in."""
        return next((row.notice for row in self.rows.values() if row.notice), "")

    # --- a session --------------------------------------------------------------------------------------------------

    def session(
        self, connection: Connection, asked: records.Open, standing_now: int, there_now: int, wall_ns: int, now_ns: int
    ) -> Yes | str:
        """Whether it may begin, or why not. `standing_now`: sessions that the person has already; `there_now`: that the
        asset has, of whomever."""
        person, asset = connection.person, asked.asset
        if asset not in self.assets:
            return f"there is no asset {asset[:64]!r}"
        does: tuple[Do, ...] = ("up", "down") if asked.what == "sftp" else (asked.what,)
        who = names(person, self._accounts.groups(person))
        found = [right for do in does for right in matching(self.rows, who, asset, do, command=asked.command)]
        if not found:
            what = {"shell": "a terminal", "exec": "that command", "sftp": "files", "port": "a port"}[asked.what]
            return f"no rule lets you have {what} at {asset}"
        if asked.what == "port" and asked.command != (wanted := self._port(asset)):
            return f"{asset} speaks {self.policy.assets[asset].protocol}: ask for port {wanted} of it"
        why = ""
        signed = (connection.parent or connection).certified
        for right in found:
            if signed and wall_ns // 10**9 >= signed + right.row.certificates:
                why = why or "you came by a certificate, which does not count there: come with your code"
                continue
            answer = self._may(person, asset, right, connection.source, wall_ns, now_ns)
            if isinstance(answer, str):
                why = why or answer
                continue
            if standing_now >= right.row.sessions:
                return f"you have {standing_now} sessions, and {right.row.sessions} at a time are allowed"
            most = 1 if self.policy.assets[asset].protocol == SERIAL.name else right.row.sessions_at_asset
            if 0 < most <= there_now:
                return f"{asset} has {there_now} session{'s' if there_now > 1 else ''}, and takes no more"
            if asked.what == "port":
                return answer
            if not self._accounts.has_credential(asset, right.line.login):
                return f"the keeper has no credential for {right.line.login} at {asset}: tell the operator"
            if self.policy.assets[asset].protocol == SSH.name and not self._accounts.asset_key(asset):
                return f"nobody has accepted the host key of {asset} yet: tell the operator"
            return answer
        return why

    def _port(self, asset: str) -> str:
        """The port by which an asset that another broker serves is asked for: that of its protocol, wherever it is."""
        return str(DIALECTS[self.policy.assets[asset].protocol].port(secure=False))

    def _may(self, person: str, asset: str, right: Right, source: str, wall_ns: int, now_ns: int) -> Yes | str:
        """Whether this right holds now."""
        if self.severed:
            return "an operator has cut a side off"
        if blocked := self._accounts.blocked(person, asset):
            return blocked
        known = self._accounts.person(person)
        if known is None or not known.active:
            return "you are not known any more"
        if not set(right.row.clients) & set(self.policy.principals_of(source, right.row.outer)):
            return f"not from {source}"
        conduit = self.policy.conduits[right.conduit]
        stands = standing(conduit, self.policy.table.clocks, wall_ns)
        if not stands.open:
            return f"the conduit {right.conduit} is {stands.says}"
        _, changes = windows.state(conduit.windows, self.policy.table.clocks, wall_ns)
        until, request = min(changes, conduit.expires, NEVER), 0
        if right.row.approval is not None:
            free, ends = self._free(right, wall_ns)
            granted = [
                one for one in self._accounts.requests(("granted",))
                if (one.person, one.asset, one.conduit) == (person, asset, right.conduit)
                and self._left(one, wall_ns, now_ns) > 0
            ]  # fmt: skip
            if not granted and not free:
                return f"it takes an approval: request {asset} 2h WHY"
            holds = ends
            if granted:
                best = max(granted, key=lambda one: self._left(one, wall_ns, now_ns))
                approved = wall_ns + self._left(best, wall_ns, now_ns)
                if not free or approved > ends:
                    holds, request = approved, best.id
            until = min(until, holds)
        return Yes(right, request, until)

    def _free(self, right: Right, wall_ns: int) -> tuple[bool, int]:
        """Whether these are hours in which it takes nobody's word, and until when (UTC ns) they are."""
        approval = right.row.approval
        if approval is None or not approval.always:
            return False, 0
        return windows.state(approval.always, self.policy.table.clocks, wall_ns)

    def asks(self, right: Right, wall_ns: int) -> bool:
        """Whether it takes somebody's word now."""
        return right.row.approval is not None and not self._free(right, wall_ns)[0]

    def _left(self, request: Request, wall_ns: int, now_ns: int) -> int:
        """How long an approval still holds, in ns. By the monotonic clock: setting the other one neither lengthens nor
        shortens it. What was granted before this life of the keeper is reckoned from what the wall clock says when it
        is first looked at, and for no longer than was approved."""
        return self.left(("request", request.id), request.until_ns, request.seconds, wall_ns, now_ns)

    def left(self, what: tuple[str, int], until_ns: int, seconds: int, wall_ns: int, now_ns: int) -> int:
        """The same of whatever was granted for so many seconds, up to then."""
        return self._deadlines.setdefault(what, now_ns + min(until_ns - wall_ns, seconds * 10**9)) - now_ns

    def holds(self, request: Request, wall_ns: int, now_ns: int) -> bool:
        """Whether a request is granted, and still so."""
        return request.state == "granted" and self._left(request, wall_ns, now_ns) > 0

    def settle(self, wall_ns: int, now_ns: int) -> None:
        """An approval whose time is over is none any more, whatever is done to the clock later."""
        for one in self._accounts.requests(("granted",)):
            if self._left(one, wall_ns, now_ns) <= 0:
                self._accounts.settle(one.id, "over", one.until_ns)
                self._deadlines.pop(("request", one.id), None)

    def still(self, session: Session, wall_ns: int, now_ns: int) -> Yes | str:
        """Whether a session may go on, and until when (UTC ns); or why not."""
        connection, asset = session.connection, session.asset
        found = self.same(connection.person, session.asked, session.right.conduit, session.right.line.login)
        if not found:
            return "the policy does not allow it any more"
        key = connection.key or (connection.parent.key if connection.parent is not None else b"")
        if key and self._accounts.owner(key) != connection.person:
            return "your key was taken away"
        if session.terms is not None and self.terms(session, found[0]) != session.terms:
            return "what you may do there has changed"
        return self._may(connection.person, asset, found[0], connection.source, wall_ns, now_ns)

    def same(self, person: str, asked: records.Open, conduit: str, login: str) -> list[Right]:
        """The rights by which a session that was granted may go on."""
        who = names(person, self._accounts.groups(person))
        does: tuple[Do, ...] = ("up", "down") if asked.what == "sftp" else (asked.what,)
        return [
            right for do in does for right in matching(self.rows, who, asked.asset, do, login, asked.command)
            if right.conduit == conduit
        ]  # fmt: skip

    def terms(self, session: Session, right: Right) -> str:
        """What a grant says of a session's work. The inner part goes by it to the end, so that a session whose terms
        have changed ends."""
        if session.asked.what != "sftp":
            fit = session.asked.what == "exec" and fits(session.asked.command, right.line.commands)
            return repr((right.row.record, fit))
        return repr((self.files(session.connection.person, right, session.asset), right.row.files))

    def files(self, person: str, right: Right, asset: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Where the files of a session may go to and come from."""
        who = names(person, self._accounts.groups(person))
        same = [
            one for one in rights({right.conduit: right.row}, who)
            if asset in one.line.assets and one.line.login == right.line.login
        ]  # fmt: skip
        up = tuple(path for one in same if "up" in one.line.do for path in one.line.paths)
        return up, tuple(path for one in same if "down" in one.line.do for path in one.line.paths)

    # --- requests ---------------------------------------------------------------------------------------------------

    def reachable(self, person: str) -> dict[str, list[Right]]:
        """What somebody may reach at some time, by asset."""
        who = names(person, self._accounts.groups(person))
        found: dict[str, list[Right]] = {}
        for right in rights(self.rows, who):
            for asset in right.line.assets:
                found.setdefault(asset, []).append(right)
        return dict(sorted(found.items()))

    def askable(self, person: str, asset: str, seconds: int) -> str:
        """The conduit for which an approval can be asked. Raises: GateError."""
        reachable = self.reachable(person)
        found = reachable.get(asset, [])
        if not found:
            near = nearest(asset[:64], reachable)  # of what this person may know of
            raise GateError(f"no rule names you and {asset[:64]}", hint=f"did you mean {near}?" if near else "list")
        for right in found:
            if right.row.approval is not None:
                if seconds > right.row.approval.window:
                    raise GateError(f"at most {right.row.approval.window // 60} min are approved at once")
                return right.conduit
        raise GateError(f"{asset} takes no approval")

    def approver(self, approver: Person, request: Request) -> int:
        """How many people it takes in all. Raises: GateError: this one may not."""
        row = self.rows.get(request.conduit)
        if row is None or row.approval is None:
            raise GateError("the policy has no such approval any more")
        if request.state != "waiting":
            raise GateError(f"request {request.id} is {request.state}")
        requester = self._accounts.known(request.person)
        if approver.name == requester.name:
            raise GateError("nobody approves their own request")
        if same_name(approver, requester):
            raise GateError(f"{approver.name} and {requester.name} are the same person: {approver.full}")
        if not approver.active or not set(self._accounts.groups(approver.name)) & set(row.approval.by):
            raise GateError(f"it takes somebody of {' or '.join(row.approval.by)}")
        given = self.approved(request)
        if approver.name in given:
            raise GateError("you have approved it already")
        if any(
            same_name(approver, self._accounts.known(one))
            for one in given if self._accounts.person(one) is not None
        ):  # fmt: skip
            raise GateError("another account of yours has approved it already")
        return row.approval.people

    def signs(self, request: Request) -> bool:
        """Whether an approval has to be signed."""
        row = self.rows.get(request.conduit)
        return row is not None and row.approval is not None and row.approval.signed

    def overseer(self, person: Person, session: Session) -> None:
        """Raises: GateError: this one may not watch the session, nor speak to who sits there."""
        approval = session.right.row.approval
        if approval is None or not set(self._accounts.groups(person.name)) & set(approval.by):
            raise GateError("only who may approve it may watch it")
        watched = self._accounts.known(session.connection.person)
        if person.name == watched.name or same_name(person, watched):
            raise GateError("nobody watches over their own session")

    def approved(self, request: Request) -> list[str]:
        """Who has approved it by now, and still might."""
        row = self.rows.get(request.conduit)
        by = set(row.approval.by) if row is not None and row.approval is not None else set()
        return [
            name for name in self._accounts.approvals(request.id)
            if (person := self._accounts.person(name)) is not None and person.active
            and by & set(self._accounts.groups(name))
        ]  # fmt: skip

    def granted(self, request: Request, now_ns: int) -> None:
        """An approval holds from now on, by the monotonic clock."""
        self.begins(("request", request.id), request.seconds, now_ns)

    def forget(self, what: tuple[str, int]) -> None:
        """It is not granted any more."""
        self._deadlines.pop(what, None)

    def begins(self, what: tuple[str, int], seconds: int, now_ns: int) -> None:
        """Something is granted from now on, for so long."""
        self._deadlines[what] = now_ns + seconds * 10**9
