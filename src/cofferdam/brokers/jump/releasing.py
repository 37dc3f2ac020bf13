"""Files that the scanner could not see all of: they stay in quarantine, and somebody else than who brought one may
release it: those bytes, of that person, by that way to that path of that asset, for some hours. The next time that they
are brought, the scanner looks at what it can see once more, and then they pass.

What something was found in is never released, and a release ends when something is found in the same bytes. A release
that was given by somebody who might not give it any more does not count.

Not here: the quarantine's files (quarantine), asking whether one passes (inner_held), the command line
(cli.jump_quarantine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.audit.lines import escaped
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump import file_records, lists, told
from cofferdam.brokers.jump.accounts import Person, key_name
from cofferdam.brokers.jump.deciding import Session, same_name
from cofferdam.brokers.jump.desk import Desk, answers, to_sign
from cofferdam.brokers.jump.menu import Menu
from cofferdam.errors import GateError
from cofferdam.policy.points.decide import show_utc

SECONDS_MOST: Final = 7 * 86_400
HELD_OF_PERSON: Final = 50
HELD_MOST: Final = 1_000
"""Files of which it is known that they wait, of one person and of all; what comes later pushes older ones out."""
_COLUMNS: Final = (
    "id, person, asset, conduit, way, path, size, sha256, detail, kept, at_ns, state, by, reason, seconds, until_ns"
)
By = Annotated[str, Meta(min_length=1, max_length=128)]
Number = Annotated[int, Meta(ge=1, le=1 << 53)]


class Release(msgspec.Struct, forbid_unknown_fields=True):
    """`signature`: over the file's statement, in base64, by a key of who releases it."""

    number: Number
    by: By
    reason: Annotated[str, Meta(min_length=1, max_length=400)]
    seconds: Annotated[int, Meta(ge=60, le=SECONDS_MOST)]
    signature: Annotated[str, Meta(max_length=4096)] = ""


class Statement(msgspec.Struct, forbid_unknown_fields=True):
    number: Number
    by: By
    seconds: Annotated[int, Meta(ge=60, le=SECONDS_MOST)]


class Reject(msgspec.Struct, forbid_unknown_fields=True):
    number: Number
    by: By
    reason: Annotated[str, Meta(max_length=400)] = ""


@dataclass(frozen=True)
class Held:
    """One of them. `state`: "waits", "released", "rejected", "found". `kept`: its name in quarantine, "" for none."""

    id: int
    person: str
    asset: str
    conduit: str
    way: str
    path: str
    size: int
    sha256: str
    detail: str
    kept: str
    at_ns: int
    state: str
    by: str
    reason: str
    seconds: int
    until_ns: int

    @property
    def key(self) -> tuple[str, int]:
        return "file", self.id

    @property
    def line(self) -> str:
        """For people."""
        state = f"released by {self.by} until {show_utc(self.until_ns)}" if self.state == "released" else self.state
        where = f"{self.asset} {self.path}"
        what = f"{self.person} → {where}" if self.way == "up" else f"{where} → {self.person}"
        return escaped(f"{self.id:>4}  {what}, {self.size} bytes, {self.sha256[:16]}…: {self.detail}: {state}")

    @property
    def row(self) -> told.HeldFile:
        return {
            "number": self.id, "person": self.person, "asset": self.asset, "conduit": self.conduit, "way": self.way,
            "path": self.path, "size": self.size, "sha256": self.sha256, "detail": self.detail, "kept": self.kept,
            "at_ns": self.at_ns, "state": self.state, "by": self.by, "reason": self.reason, "until_ns": self.until_ns,
            "line": self.line,
        }  # fmt: skip


class Releasing:
    """Those that wait, and what is decided about them."""

    def __init__(self, keeper: Desk, menu: Menu) -> None:
        self._keeper, self._menu = keeper, menu
        self._accounts = keeper.accounts
        self.verbs = {
            "files": self._list,
            "file-release": self._release,
            "file-reject": self._reject,
            "file-statement": self._to_sign,
        }

    # --- what waits -------------------------------------------------------------------------------------------------

    def _some(self, where: str, *values: Any) -> list[Held]:
        return [Held(*row) for row in self._accounts.all(f"SELECT {_COLUMNS} FROM held WHERE {where}", *values)]  # noqa: S608

    def _one(self, number: int) -> Held:
        """Raises: GateError."""
        found = self._some("id=?", number)
        if not found:
            raise GateError(f"there is no file {number}", hint="`cofferdam jump quarantine list` shows them")
        return found[0]

    def all(self) -> list[Held]:
        """Those about which something is to be decided, or was; a release that is over waits again."""
        keeper = self._keeper
        for one in self._some("state='released'"):
            if keeper.deciding.left(one.key, one.until_ns, one.seconds, keeper.wall, keeper.now) <= 0:
                self._set(one.id, "waits")
        return self._some("1 ORDER BY id")

    def _set(
        self, number: int, state: str, by: str = "", reason: str = "", seconds: int = 0, until_ns: int = 0
    ) -> None:
        self._keeper.deciding.forget(("file", number))
        self._accounts.run(
            "UPDATE held SET state=?, by=?, reason=?, seconds=?, until_ns=? WHERE id=?",
            state, by, reason, seconds, until_ns, number,
        )  # fmt: skip

    def alarm(self) -> dict[str, str]:
        count = self._accounts.one("SELECT count(*) FROM held WHERE state='waits'")[0]
        files = "file that cannot be scanned waits" if count == 1 else "files that cannot be scanned wait"
        said = f"{count} {files} for somebody (cofferdam jump quarantine list)"
        return {"jump-files": said} if count else {}

    def of(self, person: str) -> list[told.HeldFile]:
        """For the menu: somebody's own, and those that they may decide about as an approver of the conduit. Where it
        has none, one vendor is not told what another brings: who decides there sees it at the gate."""
        who, rows = self._accounts.known(person), self._keeper.deciding.rows
        approved = {name for name, row in rows.items() if row.approval is not None}
        return [
            one.row for one in self.all()
            if one.person == person or (one.conduit in approved and not self._why_not(who, one))
        ]  # fmt: skip

    # --- one that comes ---------------------------------------------------------------------------------------------

    def came(self, session: Session, said: file_records.Unclean) -> file_records.Cleared:
        """The scanner did not call a file of this session clean. Who and where is the keeper's own knowledge."""
        keeper, person = self._keeper, session.connection.person
        if said.verdict == "found":
            for one in self._some("sha256=? AND state!='found'", said.sha256):
                self._set(one.id, "found", reason=said.detail)
        if said.verdict == "found" or not said.partly:
            return file_records.Cleared(said.file, "", 0)
        whose = (person, session.asset, session.right.conduit, said.way, said.path, said.sha256)
        known = self._some("person=? AND asset=? AND conduit=? AND way=? AND path=? AND sha256=?", *whose)
        for one in known:
            left = keeper.deciding.left(one.key, one.until_ns, one.seconds, keeper.wall, keeper.now)
            if one.state == "released" and left > 0 and not self._no_longer(one):
                return file_records.Cleared(said.file, one.by, one.id)
            if one.state in ("rejected", "found"):
                return file_records.Cleared(said.file, "", 0)
            self._set(one.id, "waits")
            self._accounts.run("UPDATE held SET detail=?, kept=?, at_ns=? WHERE id=?", said.detail, said.kept,
                               keeper.wall, one.id)  # fmt: skip
            return file_records.Cleared(said.file, "", one.id)
        if self._accounts.reserve.short():
            return file_records.Cleared(said.file, "", 0)
        self._make_room(person)
        number = self._accounts.run(
            f"INSERT INTO held({_COLUMNS}) VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waits', '', '', 0, 0)",
            person, session.asset, session.right.conduit, said.way, said.path, said.size, said.sha256, said.detail,
            said.kept, keeper.wall,
        )  # fmt: skip
        return file_records.Cleared(said.file, "", number)

    def _make_room(self, person: str) -> None:
        """For one more: the oldest goes, of this person's or of all, first of those that wait: who brings many does not
        so get rid of what was found or rejected. The log has what came of each."""
        order = "state!='waits', state='released', id"
        for where, values, most in (("person=?", (person,), HELD_OF_PERSON), ("1", (), HELD_MOST)):
            self._accounts.run(
                f"DELETE FROM held WHERE id IN (SELECT id FROM held WHERE {where} ORDER BY {order}"  # noqa: S608
                f" LIMIT max(0, (SELECT count(*) FROM held WHERE {where}) - {most - 1}))",
                *values, *values,
            )  # fmt: skip

    def _no_longer(self, one: Held) -> str:
        """Why who released it might not any more."""
        by = self._accounts.person(one.by)
        return self._why_not(by, one) if by is not None else f"{one.by} is not known any more"

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _why_not(self, who: Person, one: Held) -> str:
        """Why somebody may not release it; "" if they may: never who brought it, nor another account of theirs."""
        bringer, row = self._accounts.person(one.person), self._keeper.deciding.rows.get(one.conduit)
        if row is None:
            return f"the policy has no conduit {one.conduit} any more"
        if who.name == one.person:
            return "nobody releases what they have brought"
        if bringer is None:
            return f"{one.person}, who has brought it, is not known any more"
        if same_name(who, bringer):
            return f"{who.name} and {bringer.name} are the same person: {who.full}"
        if not who.active:
            return f"{who.name} is not active"
        if row.approval is not None and not set(self._accounts.groups(who.name)) & set(row.approval.by):
            return f"it takes somebody of {' or '.join(row.approval.by)}"
        return ""

    def _waits(self, number: int) -> Held:
        """One that may be released; also one that was rejected. Raises: GateError."""
        one = next((each for each in self.all() if each.id == number), None) or self._one(number)
        if one.state == "found":
            raise GateError(f"the scanner finds {one.reason} in file {number}: that is never released")
        if one.state == "released":
            raise GateError(f"file {number} is released already, by {one.by} until {show_utc(one.until_ns)}")
        return one

    def _statement(self, said: Statement | Release, one: Held) -> str:
        """What somebody signs to release it."""
        gate = key_name(self._accounts.host_key.public_data)
        words = {
            "site": self._keeper.deciding.policy.table.site, "gate": gate, "file": one.id, "sha256": one.sha256,
            "size": one.size, "person": one.person, "asset": one.asset, "conduit": one.conduit, "way": one.way,
            "path": one.path, "not scanned": one.detail, "brought": show_utc(one.at_ns), "seconds": said.seconds,
            "decision": "release",
        }  # fmt: skip
        return to_sign("file", words)

    def _to_sign(self, asked: Asked) -> None:
        said = asked.decode(Statement)
        asked.answer(self._statement(said, self._waits(said.number)))

    def _list(self, asked: Asked) -> None:
        said = asked.decode(lists.Which)
        asked.answer(lists.piece(((lists.order(one.id), one.row) for one in self.all()), said))

    def _release(self, asked: Asked) -> None:
        said = asked.decode(Release)
        keeper, one = self._keeper, self._waits(said.number)
        row, text, how = keeper.deciding.rows.get(one.conduit), "", "at the gate"
        if said.signature:
            text = self._statement(said, one)
            who, how = self._menu.signer(f"file {one.id}", text, said.signature)
        else:
            if row is not None and row.approval is not None and row.approval.signed:
                raise GateError("it takes a signature", hint="--key FILE, or quarantine statement")
            who = self._menu.at_the_gate(said.by)
        if why := self._why_not(who, one):
            raise GateError(why)
        until = keeper.wall + said.seconds * 10**9

        def act() -> str:
            if self._waits(said.number).state != one.state:  # others may have been quicker
                raise GateError(f"somebody else has decided about file {one.id} just now", hint="look again")
            self._set(one.id, "released", who.name, said.reason, said.seconds, until)
            keeper.deciding.begins(one.key, said.seconds, keeper.now)
            return f"file {one.id} is released until {show_utc(until)}: {one.person} brings it once more"

        entry = self._entry("released", who.name, one, how, said.reason, until_ns=until, statement=text,
                            signature=said.signature)  # fmt: skip
        keeper.when_recorded(entry, act, answers(asked))

    def _reject(self, asked: Asked) -> None:
        said = asked.decode(Reject)
        one = self._one(said.number)

        def act() -> str:
            if self._one(said.number).state != "found":
                self._set(one.id, "rejected", said.by, said.reason)
            return f"file {one.id} does not pass, and is not asked for again"

        self._keeper.when_recorded(
            self._entry("rejected", said.by, one, "at the gate", said.reason), act, answers(asked)
        )

    def _entry(self, decision: Any, by: str, one: Held, how: str, reason: str, **more: Any) -> events.FileDecided:
        return events.FileDecided(
            wall_ns=self._keeper.wall, file=one.id, decision=decision, by=clip(by, 128), how=clip(how, 128),
            person=one.person, asset=one.asset, way=one.way, path=clip(one.path), size=one.size, sha256=one.sha256,
            kept=one.kept, reason=clip(reason, 400), **more,
        )  # fmt: skip
