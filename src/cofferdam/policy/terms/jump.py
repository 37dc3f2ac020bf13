"""What a policy may say of the jump server, by which people reach assets.

People stand in the zone `from`, whose SSH sessions end in the outer part; assets stand in the zone `to`, to which the
inner part has sessions of its own. The keeper, apart from both, signs people in, decides and gives grants; the
archivist, apart as well, keeps recordings and what waits for its scan.

Not here: the words (jump_model), the rows and who may do what by them (jump_rows).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.model import NEVER, Allow, Asset, Deny, Fault, Side
from cofferdam.policy import rows, windows
from cofferdam.policy.document import Path
from cofferdam.policy.explain import NOBODY, Explanation, Question, explained
from cofferdam.policy.findings import Checking, Linting
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import (
    Ask,
    Listen,
    Making,
    Needs,
    PartNeeds,
    Place,
    Reach,
    Scope,
    Seam,
    Store,
    Terms,
    window_row,
)
from cofferdam.policy.terms.jump_model import COMING, JumpConduit, JumpRule
from cofferdam.policy.terms.jump_rows import (
    DOES,
    GROUP,
    PERSON,
    Approval,
    Files,
    JumpRows,
    Line,
    Rotate,
    fits,
    matching,
    within,
    words_of,
)
from cofferdam.protocols.terminals.dialect import BARE, SSH, TERMINALS

OUTER, INNER, KEEPER, ARCHIVIST = "outer", "inner", "keeper", "archivist"
KEEPER_BYTES = 1_000_000_000
ARCHIVE_BYTES = 100_000_000_000
"""Room for recordings and quarantine."""
OPAQUE = frozenset({"rsync", "git-upload-pack", "git-receive-pack", "unison", "borg"})
"""Programs that speak a protocol of their own by stdin, so that no pattern says what they do."""


class JumpTerms(Terms[JumpConduit, JumpRows]):
    """The terms of the jump server."""

    word = "jump"
    title = "The jump server"
    conduit = JumpConduit
    rule = JumpRule
    row = JumpRows
    further = TERMINALS
    asks = (
        Ask("person", "NAME", "the person who asks, or `group:NAME` for one of a group"),
        Ask("asset", "NAME", "the asset that is asked"),
        Ask("do", "WHAT", 'shell, port, "exec:uptime", "up:/srv/new.csv", "down:/srv/logs/today"'),
    )

    # --- errors

    def check(self, name: str, conduit: JumpConduit, numbers: Sequence[int], checking: Checking) -> None:
        here: Path = ("conduits", name)
        policy = checking.policy
        begin, end = policy.zones.get(conduit.from_zone), policy.zones.get(conduit.to_zone)
        if begin is not None and end is not None and (begin.side, end.side) != ("it", "ot"):
            found = f"{conduit.from_zone}, which is {begin.side}, towards {conduit.to_zone}, which is {end.side}"
            checking.at(
                (*here, "from"), found, "people on the it side, who reach assets on the ot side", "", "direction"
            )
        for index, who in enumerate(conduit.clients):
            at: Path = (*here, "clients", index)
            if checking.known("principals", who, at) and who in policy.principals:
                zone = policy.principals[who].zone
                if zone != conduit.from_zone:
                    fitting = [other for other, one in policy.principals.items() if one.zone == conduit.from_zone]
                    near = nearest(who, fitting)
                    checking.at(at, f"{who} of zone {zone}", f"a principal of {conduit.from_zone}", near, "zone")
        rotate = conduit.rotate
        if rotate is not None and (not any("{new}" in line for line in rotate.says) or len(rotate.says) > 8):
            found = "lines that never say the new password, or more than eight"
            checking.at((*here, "rotate"), found, "`says: [{old}, {new}, {new}]`", "", "rotate")
        if rotate is not None and ("{new}" in rotate.command or "{old}" in rotate.command):
            found = "a password in the command's line, which others at the asset may see"
            checking.at((*here, "rotate", "command"), found, "a command that reads it: `says`", "", "rotate")
        if conduit.lock is not None and conduit.lock >= conduit.idle:
            found = "a terminal that ends before it would be locked"
            checking.at((*here, "lock"), found, f"a time shorter than `idle`, which is {conduit.idle} s", "", "lock")
        if conduit.approval is not None:
            for index, window in enumerate(conduit.approval.always):
                checking.window(window, (*here, "approval", "always", index))
        for number, rule in zip(numbers, conduit.allow, strict=True):
            self._check_rule((*here, "allow", number), conduit, rule, checking)

    def _check_rule(self, here: Path, conduit: JumpConduit, rule: JumpRule, checking: Checking) -> None:
        assets = checking.policy.assets
        for index, name in enumerate(rule.asset):
            at: Path = (*here, "asset", index)
            if not checking.known("assets", name, at) or name not in assets:
                continue
            asset = assets[name]
            if asset.zone != conduit.to_zone:
                checking.at(at, f"{name} of zone {asset.zone}", f"an asset of {conduit.to_zone}", "", "zone")
            if asset.protocol in COMING:
                what = f"{name}, which speaks {asset.protocol}"
                checking.at(at, what, f"an asset that speaks ssh: {COMING[asset.protocol]}", "", "coming")
            elif asset.protocol in BARE and "port" not in rule.do and set(rule.do) != {"shell"}:
                wrong = ", ".join(sorted(set(rule.do) - {"shell"}))
                said = f"{wrong} at {name}, which speaks {asset.protocol}"
                checking.at((*here, "do"), said, "shell", "", asset.protocol)
            elif "port" in rule.do:
                self._check_port(at, (*here, "do"), here[1], conduit, rule, name, checking)
            elif asset.protocol not in (SSH.name, *BARE):
                what = f"{name}, which speaks {asset.protocol}"
                checking.at(at, what, "an asset that speaks ssh, telnet or serial", "", "protocol")
        if not rule.login and "port" not in rule.do:
            checking.key(here, "a rule without `as`", "the account at the asset: `as: service`", "", "missing")
        if "exec" in rule.do and not rule.commands and not rule.opaque:
            checking.at((*here, "do"), "exec without commands", "`commands: [uptime, journalctl *]`", "", "commands")
        for word in ("commands", "opaque"):
            if getattr(rule, word) and "exec" not in rule.do:
                checking.at((*here, word), f"{word} without exec", f"`do: [exec]`, or no {word}", "", "commands")
        for index, program in enumerate(rule.opaque):
            if words_of(program) != [program] or "*" in program:
                checking.at((*here, "opaque", index), program, "one program: `rsync`, `/bin/sh`", "", "opaque")
        for index, command in enumerate(rule.commands):
            if command.split(" ")[0].rpartition("/")[2] in OPAQUE:
                said = "`opaque: [rsync]`, which records both ways what it is told and says"
                checking.at((*here, "commands", index), command, said, "", "opaque")
        if {"up", "down"} & set(rule.do) and not rule.paths:
            checking.at((*here, "do"), "files without paths", "`paths: [/srv/logs/**]`", "", "paths")

    def _check_port(
        self, at: Path, do: Path, via: Any, conduit: JumpConduit, rule: JumpRule, name: str, checking: Checking
    ) -> None:  # fmt: skip
        """A port leads to the broker of the asset's own protocol, in which a rule lets those who come so ask it."""
        policy = checking.policy
        asset = policy.assets[name]
        if len(set(rule.do)) > 1:
            checking.at(do, "port beside others", "a rule of its own for `do: port`", "", "port")
        elif asset.protocol not in checking.dialects or asset.protocol in (SSH.name, *BARE):
            what = f"{name}, which speaks {asset.protocol}"
            checking.at(at, what, "an asset that another broker serves, such as one that speaks modbus", "", "port")
        elif conduit.approval is not None and conduit.approval.watched:
            checking.at(do, "a port, at which nobody could look", "a conduit without `watched: true`", "", "port")
        else:
            by = {who for who, one in policy.principals.items() if one.jump == via}
            asks = any(
                other.broker == asset.protocol and other.from_zone == conduit.from_zone
                and any(name in one.assets and by & set(one.principals) for one in other.allow)
                for other in policy.conduits.values()
            )  # fmt: skip
            if not asks:
                found = f"{name}, at which the broker {asset.protocol} lets nobody ask who comes by this conduit"
                expected = (
                    f"a principal {{zone: {conduit.from_zone}, jump: {via}}}, and a rule for it in a conduit "
                    f"of {asset.protocol} from {conduit.from_zone}"
                )
                checking.at(at, found, expected, "", "port")

    # --- rows

    def to_row(self, name: str, conduit: JumpConduit, making: Making) -> JumpRows:
        approval = conduit.approval
        files = conduit.files
        return JumpRows(
            outer=conduit.from_zone,
            inner=conduit.to_zone,
            address=conduit.listen[0],
            port=conduit.listen[1],
            clients=tuple(sorted(conduit.clients)),
            lines=tuple(
                Line(
                    number=number, who=tuple(sorted(rule.who)), assets=tuple(sorted(rule.asset)), login=rule.login,
                    do=tuple(do for do in DOES if do in rule.do), commands=tuple(rule.commands),
                    paths=tuple(rule.paths), opaque=tuple(rule.opaque),
                )
                for number, rule in enumerate(conduit.allow)
            ),
            approval=None if approval is None else Approval(
                by=tuple(sorted(approval.by)), people=2 if approval.people == "two" else 1, window=approval.window,
                watched=approval.watched, signed=approval.signed,
                always=tuple(window_row(window) for window in approval.always),
            ),
            record=conduit.record.terminal,
            keep=conduit.record.keep,
            room=conduit.record.room,
            idle=conduit.idle,
            lock=conduit.lock or 0,
            sessions=conduit.sessions,
            sessions_at_asset=conduit.sessions_at_asset or 0,
            files=Files(
                most=files.most, quota=files.quota, day=files.day or 0, rate=files.rate or 0, scan=files.scan,
                mode=0o777 if files.executable else 0o666,
            ),
            rotate=None if conduit.rotate is None else Rotate(
                command=conduit.rotate.command, says=conduit.rotate.says, every=conduit.rotate.every or 0
            ),
            certificates=conduit.certificates or 0,
            notice=conduit.notice or "",
            names=tuple(sorted(conduit.names)),
        )  # fmt: skip

    def clocks(self, row: JumpRows) -> frozenset[str]:
        return frozenset(window.zone for window in row.approval.always) if row.approval is not None else frozenset()

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = _row(conduit)
        assets = sorted({name for line in row.lines for name in line.assets})
        said: Path = ("conduits", conduit.name, "listen")
        listen = Listen(row.outer, row.address, row.port, row.clients, assets[0], said)
        ports = _ports(row)
        reaches = [
            Reach(row.inner, policy.assets[name].address, policy.assets[name].port, name)
            for name in assets if name not in ports
        ]  # fmt: skip
        seams = tuple(
            Seam("front", *policy.assets[name].places[0], name) for name in assets
            if name in ports and policy.assets[name].places
        )  # fmt: skip
        return Needs(
            {
                OUTER: PartNeeds(Place(Side(policy.zones[row.outer].side), row.outer), (listen,), seams=seams),
                KEEPER: PartNeeds(store=Store(KEEPER_BYTES)),
                ARCHIVIST: PartNeeds(store=Store(ARCHIVE_BYTES)),
                INNER: PartNeeds(Place(Side(policy.zones[row.inner].side), row.inner), (), tuple(reaches), seams=seams),
            },
            dict.fromkeys(assets, f"the jump server's accounts for {row.outer} and {row.inner}"),
        )

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> JumpRows | None:
        row = _row(conduit)
        if part == KEEPER:
            return row
        bare = msgspec.structs.replace(row, approval=None, clients=())
        if part == OUTER:
            # It has no say in who may do what, and so knows nobody and nothing.
            return msgspec.structs.replace(bare, lines=(), clients=row.clients, names=(), rotate=None)
        if part == INNER:
            # Of `rotate` it needs the command, to hold against what the keeper asks for.
            return msgspec.structs.replace(bare, address="", port=0, notice="", names=())
        return msgspec.structs.replace(bare, address="", port=0, notice="", lines=(), names=(), rotate=None)

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        return frozenset(_row(conduit).clients) if part in (OUTER, KEEPER) else frozenset()

    def asset(self, asset: Asset, part: str) -> Asset | None:
        if part == INNER and asset.protocol not in (SSH.name, *BARE):
            return msgspec.structs.replace(asset, address="", port=0)  # served by another broker; there it is found
        if part == INNER:
            return msgspec.structs.replace(asset, listen=None, also=())
        if part == KEEPER:
            return msgspec.structs.replace(asset, address="", port=0, listen=None, also=())
        return None

    # --- explanations

    def by_anybody(self, said: Collection[str]) -> bool:
        return "person" in said

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        person, name, said = question.said["person"], question.said["asset"], question.said["do"]
        if name not in policy.assets:
            near = nearest(name, policy.assets)
            hint = f"did you mean {near}?" if near else f"the policy has {one_of(policy.assets)}"
            raise CofferdamError(f"the policy has no asset {name!r}", hint=hint)
        do, _, what = said.partition(":")
        if do not in DOES or (do in ("shell", "port")) != (not what):
            raise CofferdamError(f"{said!r} cannot be done", hint='shell, port, "exec:COMMAND", "up:PATH", "down:PATH"')
        found = {name: each.terms for name, each in policy.conduits.items() if isinstance(each.terms, JumpRows)}
        who = person if person.startswith((PERSON, GROUP)) else PERSON + person
        verdict = self._verdict(policy, found, who, name, do, what, question)
        conditions: list[str] = []
        if isinstance(verdict, Allow):
            row = found[verdict.conduit]
            if question.source == NOBODY:
                conditions += [f"they come from {' or '.join(row.clients)}"]
            conditions += [f"{who} is known to the keeper, and shows two factors"]
            if row.approval is not None:
                by = " or ".join(row.approval.by)
                most = row.approval.window // 60
                hours = " and ".join(window.text for window in row.approval.always)
                but = f" (nobody has to in {hours})" if hours else ""
                conditions += [f"{row.approval.people} of {by} approved it, for at most {most} min{but}"]
                if row.approval.watched:
                    conditions += [f"one of {by} watches it, all the time"]
            if do == "port":
                conditions += [f"what is asked there is judged by the broker {policy.assets[name].protocol}, as of "
                               f"somebody who comes by {verdict.conduit}"]  # fmt: skip
            if row.files.scan and do == "up":
                conditions += ["clamd finds nothing in the file"]
            rights = matching(found, {who}, name, "exec", command=what)
            if do == "exec" and not any(fits(what, one.line.commands) for one in rights):
                conditions += ["what the program says and is told is recorded as bytes, and judged by nothing"]
        return explained(
            policy, question, verdict, broker=self.word, operation=said, target=name, asset=name, asker=who,
            answer="a sentence on stderr, and the session ends", conditions=conditions, considered=[verdict],
        )  # fmt: skip

    def _verdict(
        self, policy: CompiledPolicy, found: dict[str, JumpRows], who: str, asset: str, do: Any, what: str,
        question: Question,
    ) -> Allow | Deny:  # fmt: skip
        principals = policy.principals_of(question.source, question.zone)
        anywhere = question.source == NOBODY
        reached = {name: row for name, row in found.items() if anywhere or set(row.clients) & set(principals)}
        if not reached:
            return Deny("", "", Fault.PRINCIPAL, f"{question.source} reaches no jump server")
        rights = matching(reached, {who}, asset, do, command=what)
        if not rights and do == "exec" and (others := [
            (name, line) for name, row in reached.items() for line in row.lines
            if who in line.who and asset in line.assets and do in line.do
        ]):  # fmt: skip
            name, line = others[0]
            programs = "".join(f", {one} with whatever arguments" for one in line.opaque)
            allowed = (", ".join(line.commands) + programs).removeprefix(", ")
            return Deny(name, f"{name}/{line.number}", Fault.VALUE, f"the command {what} is asked; allowed: {allowed}")
        if not rights:
            may = sorted({
                one for row in reached.values() for line in row.lines
                if asset in line.assets and do in line.do for one in line.who
            })  # fmt: skip
            conduit = next((name for name, row in reached.items() if any(asset in x.assets for x in row.lines)), "")
            who_may = f"{', '.join(may)} may {do} there" if may else f"nobody may {do} there"
            if who.startswith(PERSON) and any(one.startswith(GROUP) for one in may):
                who_may += " (only the keeper knows who is in a group: ask with --person group:NAME)"
            if near := nearest(who, may):
                who_may += f"; did you mean {near}?" * (near != who)
            return Deny(conduit, "", Fault.PRINCIPAL, f"{who} asks for {do}{' ' + what if what else ''}; {who_may}")
        if do in ("up", "down"):
            inside = [right for right in rights if within(what, right.line.paths)]
            if not inside:
                first = rights[0]
                detail = f"{what} is asked; {', '.join(first.line.paths)} are allowed"
                return Deny(first.conduit, first.rule, Fault.VALUE, detail)
            rights = inside
        right = rights[0]
        conduit_row = policy.conduits[right.conduit]
        stands = standing(conduit_row, policy.table.clocks, question.wall_ns)
        if not stands.open:
            fault = Fault.EXPIRED if question.wall_ns >= conduit_row.expires else Fault.WINDOW
            return Deny(right.conduit, right.rule, fault, f"the conduit is {stands.says}")
        _, until = windows.state(conduit_row.windows, policy.table.clocks, question.wall_ns)
        return Allow(right.conduit, right.rule, min(until, conduit_row.expires, NEVER))


def _ports(row: JumpRows) -> frozenset[str]:
    """The assets that are asked by another broker."""
    return frozenset(name for line in row.lines if "port" in line.do for name in line.assets)


def _row(conduit: rows.Conduit) -> JumpRows:
    if not isinstance(conduit.terms, JumpRows):
        raise TypeError(f"the conduit {conduit.name} is none of the jump server")
    return conduit.terms


# --- warnings --------------------------------------------------------------------------------------------------------


def _conduits(run: Linting) -> Iterator[tuple[str, JumpConduit]]:
    return ((name, each) for name, each in run.policy.conduits.items() if isinstance(each, JumpConduit))


def _no_approval(run: Linting) -> None:
    """People of a group reach the plant by the jump server without anybody's approval."""
    for name, conduit in _conduits(run):
        groups = {who for rule in conduit.allow for who in rule.who if who.startswith(GROUP)}
        if conduit.approval is None and groups:
            found = f"conduit {name}, by which {', '.join(sorted(groups))} come without an approval"
            run.key(("conduits", name), "no-approval", found, "approval: {by: [GROUP]}")


def _unrecorded(run: Linting) -> None:
    """Terminals of the jump server that are not recorded."""
    for name, conduit in _conduits(run):
        if not conduit.record.terminal:
            found = "terminals that nobody can look at later"
            run.key(("conduits", name, "record"), "unrecorded", found, "a recording")


def _unscanned(run: Linting) -> None:
    """Files that come into the plant by the jump server without a scan."""
    for name, conduit in _conduits(run):
        if not conduit.files.scan and any("up" in rule.do for rule in conduit.allow):
            found = f"conduit {name}, by which files come into the plant unscanned"
            run.key(("conduits", name), "unscanned", found, "files: {scan: true}")


def _unencrypted(run: Linting) -> None:
    """Assets that people reach by telnet or a serial line: the gate's leg to them is unencrypted, and so is the gate's
    credential."""
    for name, conduit in _conduits(run):
        assets = sorted({
            asset for rule in conduit.allow for asset in rule.asset
            if asset in run.policy.assets and run.policy.assets[asset].protocol in BARE
        })  # fmt: skip
        if assets:
            found = f"{', '.join(assets)}, reached unencrypted: whoever is on that network reads the password"
            run.key(("conduits", name), "unencrypted", found, "an asset that speaks ssh")


def _opaque(run: Linting) -> None:
    """Programs that the jump server lets people run at assets whatever they are told, and can only record."""
    for name, conduit in _conduits(run):
        for number, rule in enumerate(conduit.allow):
            if rule.opaque:
                found = f"{', '.join(rule.opaque)} with whatever arguments: recorded, and judged by nothing"
                run.key(("conduits", name, "allow", number, "opaque"), "opaque", found, "`commands`, `up`, `down`")


CHECKS: dict[str, Callable[[Linting], None]] = {
    "jump server without approval": _no_approval,
    "jump server unrecorded": _unrecorded,
    "jump server unscanned": _unscanned,
    "jump server unencrypted": _unencrypted,
    "jump server opaque": _opaque,
}
JumpTerms.warnings = CHECKS
