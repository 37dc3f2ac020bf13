"""What operators do with the keeper, by `cofferdam jump ...`: people and their factors, assets' host keys and
credentials, requests, sessions, blocks.

Each act stands in the log before it is done, with who did it. What is secret comes in once and goes out never, but for
the secret of a new code generator, which is told once.

Not here: the command line (cli.jump), what people do by SSH (menu).
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

import asyncssh
import msgspec
import pyotp
from msgspec import Meta

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump import lists, told
from cofferdam.brokers.jump.accounts import key_name
from cofferdam.brokers.jump.desk import Desk, answers
from cofferdam.brokers.jump.menu import Menu, request_row
from cofferdam.brokers.jump.rotating import NewCredential, Rotating
from cofferdam.errors import GateError
from cofferdam.policy.problems import nearest, one_of

By = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Text = Annotated[str, Meta(max_length=400)]
Secret = Annotated[str, Meta(min_length=1, max_length=16_384)]
RSA_BYTES = 384
"""The least of an RSA public key in SSH's form: a modulus of 3,072 bits."""
NEW = frozenset({
    "person-add", "group-join", "key-add", "code-new", "password-set", "host-key", "credential-set", "approve",
    "glass-seal", "glass-break", "file-release",
})  # fmt: skip
"""Verbs that take something on, for which there has to be room. Those that take something away go on without it."""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    by: str = ""


class OfPerson(msgspec.Struct, forbid_unknown_fields=True):
    person: Name
    by: By


class NewPerson(msgspec.Struct, forbid_unknown_fields=True):
    """`account`: the user of the gate's machine who is this person."""

    person: Name
    by: By
    full: Annotated[str, Meta(max_length=128)] = ""
    account: Annotated[str, Meta(max_length=64)] = ""


class Membership(msgspec.Struct, forbid_unknown_fields=True):
    person: Name
    group: Name
    by: By


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A line as in authorized_keys, without options."""

    person: Name
    key: Secret
    by: By


class OldKey(msgspec.Struct, forbid_unknown_fields=True):
    """By its fingerprint, or the beginning of it."""

    person: Name
    fingerprint: Annotated[str, Meta(min_length=8, max_length=64)]
    by: By


class NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    person: Name
    password: Secret
    by: By


class AssetKey(msgspec.Struct, forbid_unknown_fields=True):
    """What `ssh-keyscan` prints, or a public key alone."""

    asset: Name
    key: Secret
    by: By


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """`signature`: over the request's statement, in base64, by a key of who decides."""

    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    by: By
    reason: Text = ""
    signature: Annotated[str, Meta(max_length=4096)] = ""
    deny: bool = False


class Words(msgspec.Struct, forbid_unknown_fields=True):
    """For who sits at a session."""

    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    by: By
    text: Text


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """`bar`: who or what may not come back until that is lifted."""

    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    by: By
    bar: Literal["person", "asset", "pair", "both", "none"] = "pair"
    reason: Text = ""


class Block(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["person", "asset"]
    name: Name
    by: By
    reason: Text = ""


class Unblock(msgspec.Struct, forbid_unknown_fields=True):
    """`name`: of a person, of an asset, or "PERSON ASSET"."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    by: By


A = TypeVar("A")
Plan = tuple[events.AccessSet, Callable[[], Any]]
"""What is recorded, and what is done then."""


class Verbs:
    """All verbs."""

    def __init__(
        self, keeper: Desk, menu: Menu, rotating: Rotating, more: Mapping[str, Callable[[Asked], None]]
    ) -> None:
        """`more`: verbs of others."""
        self._keeper = keeper
        self._rotating = rotating
        self._menu = menu
        self._accounts = keeper.accounts
        self._verbs: dict[str, Callable[[Asked], None]] = {
            "people": functools.partial(self._lists, self._people),
            "person-add": functools.partial(self._act, NewPerson, self._person_add),
            "person-remove": functools.partial(self._act, OfPerson, self._person_remove),
            "group-join": functools.partial(self._act, Membership, self._join),
            "group-leave": functools.partial(self._act, Membership, self._leave),
            "key-add": functools.partial(self._act, NewKey, self._key_add),
            "key-remove": functools.partial(self._act, OldKey, self._key_remove),
            "code-new": functools.partial(self._act, OfPerson, self._code_new),
            "password-set": functools.partial(self._act, NewPassword, self._password_set),
            "assets": functools.partial(self._lists, self._assets),
            "host-key": functools.partial(self._act, AssetKey, self._host_key),
            "credential-set": functools.partial(self._act, NewCredential, self._credential_set),
            "rotate": rotating.command,
            "gate-key": functools.partial(self._read, Nothing, self._gate_key),
            "requests": functools.partial(self._lists, self._requests),
            "approve": functools.partial(self._decide, "approve"),
            "deny": functools.partial(self._decide, "deny"),
            "revoke": self._revoke,
            "withdraw": self._withdraw,
            "sessions": functools.partial(self._lists, self._sessions),
            "kill": self._kill,
            "say": functools.partial(self._read, Words, self._say),
            "block": functools.partial(self._act, Block, self._block),
            "unblock": functools.partial(self._act, Unblock, self._unblock),
            "blocks": functools.partial(self._lists, self._blocks),
            "statement": functools.partial(self._read, Decision, self._statement),
            **more,
        }

    def command(self, asked: Asked) -> None:
        """An operator asks. Raises: GateError: that is the answer."""
        verb = self._verbs.get(asked.verb)
        if verb is None:
            raise GateError(f"the jump server has no {asked.verb!r}", hint=f"it has {', '.join(self._verbs)}")
        if asked.verb in NEW and (short := self._accounts.reserve.short()):
            raise GateError(f"not done: {short}", hint="make room there; what takes something away is done as ever")
        verb(asked)

    def _read(self, kind: type[A], answer: Callable[[A], Any], asked: Asked) -> None:
        asked.answer(answer(asked.decode(kind)))

    def _lists(self, rows: Callable[[str], Iterable[tuple[str, Any]]], asked: Asked) -> None:
        """Rows with what they go by, in that order; `rows` may leave out those up to the one that it is given."""
        said = asked.decode(lists.Which)
        asked.answer(lists.piece(rows(said.after), said))

    def _act(self, kind: type[A], plan: Callable[[A], Plan], asked: Asked) -> None:
        """Records what is to be done, does it, and answers with what came of it."""
        entry, act = plan(asked.decode(kind))

        def done(ok: bool, why: str) -> None:
            if not ok:
                asked.refuse(f"not done, since it cannot be recorded: {why}")
                return
            try:
                result = act()
            except GateError as error:
                asked.refuse(str(error), error.hint)
                return
            self._keeper.look_again()
            asked.answer(result)

        self._keeper.audit.record(entry, done)

    def _set(self, what: str, name: str, by: str, detail: str = "") -> events.AccessSet:
        return events.AccessSet(
            wall_ns=self._keeper.wall, what=what, name=clip(name), by=clip(by, 128), detail=clip(detail)
        )

    # --- people -----------------------------------------------------------------------------------------------------

    def _people(self, after: str) -> Iterator[tuple[str, told.Person]]:
        for one in self._accounts.people(after):
            keys = self._accounts.keys(one.name)
            yield one.name, {
                "person": one.name, "full": one.full, "account": one.account, "source": one.source,
                "groups": self._accounts.groups(one.name), "factors": one.factors,
                "keys": [{"fingerprint": key_name(blob), "comment": comment} for blob, comment, _ in keys],
                "last_ns": one.last_ns, "last_source": one.last_source,
            }  # fmt: skip

    def _person_add(self, said: NewPerson) -> Plan:
        if said.person in self._keeper.deciding.assets:
            raise GateError(f"{said.person} is an asset's name: a user name must say which is meant")

        def act() -> told.OfPerson:
            self._accounts.add_person(said.person, said.full, said.account)
            return {"person": said.person}

        return self._set("person", said.person, said.by, f"added {said.full} {said.account}".strip()), act

    def _person_remove(self, said: OfPerson) -> Plan:
        def act() -> told.OfPerson:
            self._accounts.remove_person(said.person)
            return {"person": said.person}

        return self._set("person", said.person, said.by, "removed"), act

    def _join(self, said: Membership) -> Plan:
        self._accounts.known(said.person)  # before there is an entry, by which others go

        def act() -> told.Groups:
            self._accounts.join(said.person, said.group)
            return {"groups": self._accounts.groups(said.person)}

        return self._set("group", f"{said.person} {said.group}", said.by, "joined"), act

    def _leave(self, said: Membership) -> Plan:
        def act() -> told.Groups:
            self._accounts.leave(said.person, said.group)
            return {"groups": self._accounts.groups(said.person)}

        return self._set("group", f"{said.person} {said.group}", said.by, "left"), act

    def _key_add(self, said: NewKey) -> Plan:
        key = public_key(said.key)
        if key.algorithm == b"ssh-rsa" and len(key.public_data) < RSA_BYTES:
            raise GateError("that RSA key is short", hint="ssh-keygen -t ed25519 makes a good one")
        blob, comment = key.public_data, key.get_comment() or ""

        def act() -> told.Fingerprint:
            self._accounts.add_key(said.person, blob, comment[:200], self._keeper.wall)
            return {"fingerprint": key_name(blob)}

        return self._set("key", said.person, said.by, f"added {key_name(blob)} {comment}"), act

    def _key_remove(self, said: OldKey) -> Plan:
        keys = [blob for blob, _, _ in self._accounts.keys(said.person) if key_name(blob).startswith(said.fingerprint)]
        if len(keys) != 1:
            raise GateError(f"{said.person} has {len(keys) or 'no'} such keys", hint="cofferdam jump person list")

        def act() -> told.Fingerprint:
            self._accounts.remove_key(keys[0])
            return {"fingerprint": key_name(keys[0])}

        return self._set("key", said.person, said.by, f"removed {key_name(keys[0])}"), act

    def _code_new(self, said: OfPerson) -> Plan:
        secret = pyotp.random_base32()
        uri = pyotp.TOTP(secret).provisioning_uri(name=said.person, issuer_name=self._keeper.deciding.policy.table.site)

        def act() -> told.Code:
            self._accounts.set_totp(said.person, secret)
            return {"secret": secret, "uri": uri}

        return self._set("code", said.person, said.by, "a new code generator"), act

    def _password_set(self, said: NewPassword) -> Plan:
        self._accounts.known(said.person)
        try:
            hashed = self._keeper.signin.hash_password(said.person, said.password)
        except ValueError as error:
            raise GateError(str(error), hint="several words make a good one") from None

        def act() -> told.OfPerson:
            self._accounts.set_password(said.person, hashed)
            return {"person": said.person}

        return self._set("password", said.person, said.by), act

    # --- assets -----------------------------------------------------------------------------------------------------

    def _asset(self, name: str) -> None:
        assets = self._keeper.deciding.assets
        if name not in assets:
            near = nearest(name, assets)
            raise GateError(
                f"the policy's jump server has no asset {name!r}",
                hint=f"did you mean {near}?" if near else f"it has {one_of(sorted(assets))}",
            )

    def _assets(self, _: str) -> Iterator[tuple[str, told.Asset]]:
        known: dict[str, list[told.Credential]] = {}
        for asset, login, kind, by, when in self._accounts.credentials():
            known.setdefault(asset, []).append(
                {"login": login, "kind": kind, "by": by, "set_ns": when, "state": self._rotating.state(asset, login)}
            )
        logins: dict[str, set[str]] = {}
        for row in self._keeper.deciding.rows.values():
            for line in row.lines:
                for asset in line.assets:
                    logins.setdefault(asset, set()).add(line.login)
        for name in sorted(self._keeper.deciding.assets):
            yield name, {
                "asset": name, "protocol": self._keeper.deciding.policy.assets[name].protocol,
                "host_key": key_name(self._accounts.asset_key(name)), "credentials": known.get(name, []),
                "logins": sorted(logins.get(name, ())),
            }  # fmt: skip

    def _host_key(self, said: AssetKey) -> Plan:
        self._asset(said.asset)
        blob = public_key(said.key).public_data
        before = self._accounts.asset_key(said.asset)

        def act() -> told.HostKey:
            self._accounts.set_asset_key(said.asset, blob, said.by)
            return {"asset": said.asset, "fingerprint": key_name(blob), "before": key_name(before)}

        detail = key_name(blob) + (f" instead of {key_name(before)}" if before else "")
        return self._set("host-key", said.asset, said.by, detail), act

    def _credential_set(self, said: NewCredential) -> Plan:
        self._asset(said.asset)
        return self._rotating.plan(said)

    def _gate_key(self, _: Nothing) -> told.GateKey:
        key = self._accounts.host_key
        line = key.export_public_key("openssh").decode().split()
        doors = sorted({(row.address, row.port) for row in self._keeper.deciding.rows.values()})
        authority = self._keeper.shown.authority
        return {
            "key": " ".join(line[:2]), "fingerprint": key_name(key.public_data), "doors": doors,
            "authority": " ".join(authority.export_public_key("openssh").decode().split()[:2]),
            "names": self._keeper.shown.names,
        }  # fmt: skip

    # --- requests ---------------------------------------------------------------------------------------------------

    def _requests(self, _: str) -> Iterator[tuple[str, told.Request]]:
        for one in self._menu.asked():
            yield lists.order(one.id), request_row(one, self._accounts.approvals(one.id))

    def _decide(self, word: str, asked: Asked) -> None:
        said = asked.decode(Decision)
        if said.signature:
            self._menu.signed(said.number, word, said.signature, said.reason, answers(asked))
            return
        person = self._menu.at_the_gate(said.by)
        self._menu.decide(person, said.number, word, said.reason, "at the gate", answers(asked))

    def _statement(self, said: Decision) -> str:
        return self._menu.statement(said.number, "deny" if said.deny else "approve")

    def _withdraw(self, asked: Asked) -> None:
        said = asked.decode(Decision)
        self._menu.withdraw(self._menu.at_the_gate(said.by), said.number, said.reason, answers(asked))

    def _revoke(self, asked: Asked) -> None:
        said = asked.decode(Decision)
        request = self._accounts.request(said.number)
        if request.state not in ("waiting", "granted"):
            raise GateError(f"request {said.number} is {request.state} already")
        entry = events.AccessDecided(
            wall_ns=self._keeper.wall, request=said.number, decision="revoked", by=said.by, how="at the gate",
            person=request.person, asset=request.asset, reason=clip(said.reason, 400),
        )  # fmt: skip

        def act() -> str:
            self._accounts.settle(said.number, "revoked", 0)
            return f"request {said.number} is revoked"

        self._keeper.when_recorded(entry, act, answers(asked))

    # --- sessions ---------------------------------------------------------------------------------------------------

    def _sessions(self, _: str) -> Iterator[tuple[str, told.Session]]:
        for one in self._keeper.live.values():
            yield lists.order(one.number), self._menu.session_row(one)

    def _say(self, said: Words) -> str:
        session = self._menu.session(said.number)
        return self._menu.watching.say(f"{said.by} at the gate", session, said.text)

    def _kill(self, asked: Asked) -> None:
        said = asked.decode(Kill)
        session = self._menu.session(said.number)
        bars = {"both": ("person", "asset"), "none": ()}.get(said.bar, (said.bar,))
        self._menu.kill(session, said.by, bars, said.reason, answers(asked))

    def _block(self, said: Block) -> Plan:
        if said.kind == "asset":
            self._asset(said.name)
        else:
            self._accounts.known(said.name)

        def act() -> told.Block:
            self._accounts.block(said.kind, said.name, said.by, said.reason, self._keeper.wall)
            return {"kind": said.kind, "name": said.name}

        return self._set("block", said.name, said.by, said.reason), act

    def _unblock(self, said: Unblock) -> Plan:
        found = [kind for kind, name, *_ in self._accounts.blocks() if name == said.name]
        if not found:
            pairs = [name for _, name, *_ in self._accounts.blocks() if said.name in name.split()]
            way = f"`cofferdam jump unblock {pairs[0]}`: these two are barred" if pairs else ""
            hint = way or "`cofferdam jump blocks` shows who and what is barred"
            raise GateError(f"nothing bars {said.name!r} alone" if pairs else f"nothing bars {said.name!r}", hint=hint)

        def act() -> told.Unblocked:
            for kind in found:
                self._accounts.unblock(kind, said.name)
            return {"name": said.name}

        return self._set("unblock", said.name, said.by), act

    def _blocks(self, _: str) -> Iterator[tuple[str, told.Blocked]]:
        for kind, name, by, reason, when in self._accounts.blocks():
            yield f"{kind} {name}", {"kind": kind, "name": name, "by": by, "reason": reason, "at_ns": when}


def public_key(text: str) -> asyncssh.SSHKey:
    """The one key in a line of authorized_keys, of known_hosts or of ssh-keyscan. Raises: GateError."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for words in lines:
        for index, word in enumerate(words[:-1]):
            try:
                if word in _KINDS and base64.b64decode(words[index + 1], validate=True):
                    return asyncssh.import_public_key(" ".join(words[index:]))
            except (asyncssh.KeyImportError, ValueError):
                break
    raise GateError("that is no public key", hint="a line such as: ssh-ed25519 AAAA... name")


_KINDS = frozenset({
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
})  # fmt: skip
