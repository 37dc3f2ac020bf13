"""By what the gate signs in at assets: keys, passwords, certificates for one session; and passwords that are changed
there, by a command of the policy, on demand or after a time.

A new password is on disk before the asset hears of it, beside the old one, which stays until the new one has let us in.
Where a crash leaves open which of them holds, both are tried before anything else is done.

Not here: what is done at the asset (inner_rotate).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import asyncssh
import msgspec
from msgspec import Meta

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump import records, told
from cofferdam.brokers.jump.deciding import Session
from cofferdam.brokers.jump.desk import Desk
from cofferdam.errors import GateError
from cofferdam.policy.terms.jump_rows import JumpRows, Rotate
from cofferdam.protocols.terminals.dialect import BARE, SSH

By = Annotated[str, Meta(min_length=1, max_length=128)]
AUTHORITY: Final = "assets-authority"
BEFORE_SECONDS, AFTER_SECONDS = 3_600, 900
"""A certificate holds from so long ago for so long: clocks of assets differ."""
LOOK_NS: Final = 60 * 10**9
AGAIN_NS: Final = 6 * 3_600 * 10**9
"""After what the policy's own time began and failed."""
_SETS: Final = ("abcdefghjkmnpqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789", "-_.")


class NewCredential(msgspec.Struct, forbid_unknown_fields=True):
    """A private key (OpenSSH, PEM), a password, a certificate for each session, or none (of telnet and
    serial lines, where the asset does not ask)."""

    asset: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    login: Annotated[str, Meta(min_length=1, max_length=32)]
    kind: Literal["key", "password", "new-key", "certificate", "none"]
    by: By
    secret: Annotated[str, Meta(max_length=16_384)] = ""


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """A password is to be changed at the asset."""

    asset: Annotated[str, Meta(min_length=1, max_length=128)]
    login: Annotated[str, Meta(min_length=1, max_length=32)]
    by: By


class Rotating:
    """The credentials, and what is under way with them: by (asset, login)."""

    def __init__(self, keeper: Desk) -> None:
        self._keeper = keeper
        self._accounts = keeper.accounts
        self._under_way: dict[int, tuple[str, str]] = {}
        self._last = 0
        self._troubles: dict[tuple[str, str], str] = {}
        self._tried: dict[tuple[str, str], int] = {}
        self._looked = keeper.now
        self.waits = False
        """The inner part has not said yet what is under way with it."""

    # --- what they are ----------------------------------------------------------------------------------------------

    def plan(self, said: NewCredential) -> tuple[events.AccessSet, Callable[[], Any]]:
        """An operator sets one. Raises: GateError."""
        if self.waits or (said.asset, said.login) in self._under_way.values():
            raise GateError("its password is being changed just now", hint="cofferdam jump assets")
        public, secret = "", said.secret.encode()
        protocol = self._keeper.deciding.policy.assets[said.asset].protocol
        bare = protocol in BARE
        if bare != (said.kind in ("password", "none")) and said.kind != "password":
            raise GateError(
                f"{said.asset} speaks {protocol}, which has no keys"
                if bare
                else f"{said.asset} does not go without one",
                hint="a password, or --none" if bare else "a key, or a password",
            )
        if said.kind == "new-key":
            made = asyncssh.generate_private_key("ssh-ed25519", comment=f"cofferdam {said.login}@{said.asset}")
            secret = made.export_private_key("openssh")
            public = made.export_public_key("openssh").decode().strip()
        elif said.kind == "key":
            try:
                public = asyncssh.import_private_key(secret).export_public_key("openssh").decode().strip()
            except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                raise GateError(f"that is no private key without a password: {error}") from None
        elif said.kind == "certificate":
            secret = b""
            key = self._authority().export_public_key("openssh").decode().split()
            public = f'cert-authority,principals="{said.login}" {key[0]} {key[1]} cofferdam'
        elif (said.kind == "none") == bool(secret) or (not secret.isascii() and bare) or {*b"\r\n\0"} & {*secret}:
            raise GateError("an empty password, or one that cannot be typed")
        kind = "key" if said.kind == "new-key" else said.kind

        def act() -> told.CredentialSet:
            self._accounts.set_credential(said.asset, said.login, kind, secret, said.by, self._keeper.wall)
            self._accounts.run("DELETE FROM meta WHERE name=?", _pending(said.asset, said.login))
            self._troubles.pop((said.asset, said.login), None)
            return {"asset": said.asset, "login": said.login, "kind": kind, "public_key": public}

        return self._entry((said.asset, said.login), said.by, kind), act

    def grant(self, session: Session, kind: str, secret: bytes) -> records.Credential:
        """What one session gets: of a certificate one of its own, by whose name the asset's log knows it."""
        if kind != "certificate":
            return records.Credential(kind, secret)  # type: ignore[arg-type]
        now = self._keeper.wall // 10**9
        key = asyncssh.generate_private_key("ssh-ed25519")
        made = self._authority().generate_user_certificate(
            key, f"{session.name} {session.connection.person}", principals=[session.right.line.login],
            valid_after=max(0, now - BEFORE_SECONDS), valid_before=now + AFTER_SECONDS, permit_pty=True,
            permit_x11_forwarding=False, permit_agent_forwarding=False, permit_port_forwarding=False,
            permit_user_rc=False,
        )  # fmt: skip
        return records.Credential("certificate", key.export_private_key("openssh"), made.export_certificate("openssh"))

    def _authority(self) -> asyncssh.SSHKey:
        found = self._accounts.meta(AUTHORITY)
        if not found:
            found = asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")
            self._accounts.set_meta(AUTHORITY, found)
        return asyncssh.import_private_key(found)

    # --- changing them ----------------------------------------------------------------------------------------------

    def state(self, asset: str, login: str) -> str:
        """What is under way with a password, or went wrong; "" for nothing."""
        if (asset, login) in self._under_way.values():
            return "is being changed"
        return self._troubles.get((asset, login), "")

    def alarms(self) -> dict[str, str]:
        return {
            f"jump-rotation-{asset}-{login}": f"the password of {login} at {asset}: {why}"
            for (asset, login), why in list(self._troubles.items())[:16]
        }

    def command(self, asked: Asked) -> None:
        """`cofferdam jump rotate`. Raises: GateError."""
        said = asked.decode(Change)
        self._begin((said.asset, said.login), said.by, lambda: asked.answer(self.state(said.asset, said.login)))

    def tick(self) -> None:
        """Once a minute: what a crash left open, and what the policy has changed after a time."""
        keeper = self._keeper
        if keeper.now - self._looked < LOOK_NS:
            return
        self._looked = keeper.now
        for asset, login, kind, _, set_ns in self._accounts.credentials():
            whose = (asset, login)
            found = self._rule(asset, login)
            if kind != "password" or found is None or whose in self._under_way.values():
                continue
            due = 0 < found[1].every <= (keeper.wall - set_ns) // 10**9
            left = bool(self._accounts.meta(_pending(asset, login)))
            if (due or left) and keeper.now - self._tried.get(whose, -AGAIN_NS) >= AGAIN_NS:
                self._tried[whose] = keeper.now
                try:
                    self._begin(whose, "the policy", lambda: None)
                except GateError as error:
                    self._troubles[whose] = str(error)

    def _rule(self, asset: str, login: str) -> tuple[str, Rotate] | None:
        """(conduit, how): of the first conduit that says how this password is changed."""
        rows: dict[str, JumpRows] = self._keeper.deciding.rows
        for name, row in rows.items():
            if row.rotate is not None and any(asset in one.assets and one.login == login for one in row.lines):
                return name, row.rotate
        return None

    def _begin(self, whose: tuple[str, str], by: str, told: Callable[[], None]) -> None:
        asset, login = whose
        found, credential = self._rule(asset, login), self._accounts.credential(asset, login)
        if self.waits:
            raise GateError("the keeper has just come again", hint="try again in a moment")
        if found is None:
            raise GateError(f"no conduit says how the password of {login} at {asset} is changed", hint="rotate:")
        if credential is None or credential[0] != "password":
            raise GateError(f"the gate has no password of {login} at {asset}")
        if self._keeper.deciding.policy.assets[asset].protocol != SSH.name or not self._accounts.asset_key(asset):
            raise GateError(f"{asset} is not reached by SSH, or its host key is not accepted yet")
        if self._keeper.deciding.severed:
            raise GateError("an operator has cut a side off")
        if whose in self._under_way.values():
            raise GateError(f"the password of {login} at {asset} is being changed already")
        if short := self._accounts.reserve.short():  # a password that was changed has to be written down
            raise GateError(f"not changed: {short}")
        conduit, how = found
        old = credential[1]
        left = self._accounts.meta(_pending(asset, login))
        fresh = left or _password().encode()
        said = {"old": old.decode(), "new": fresh.decode(), "login": login}
        self._last += 1
        number = self._last
        record = records.Rotate(
            number=number, conduit=conduit, asset=asset, login=login, credential=records.Credential("password", old),
            fresh=records.Credential("password", fresh), host_key=self._accounts.asset_key(asset),
            # What was left open is looked at, and nothing is done before that is known.
            command="" if left else how.command,
            lines=() if left else tuple(_filled(line, said).encode() for line in how.says),
        )  # fmt: skip
        self._under_way[number] = whose

        def done(ok: bool, why: str) -> None:
            if ok:
                self._accounts.set_meta(_pending(asset, login), fresh)
                self._keeper.to_inner(record)
            else:
                del self._under_way[number]
                self._troubles[whose] = f"not changed, since it cannot be recorded: {why}"
            told()

        detail = "is looked at: a change was under way" if left else f"is changed by {how.command}"
        self._keeper.audit.record(self._entry(whose, by, detail), done)

    def turning(self, number: int, whose: tuple[str, str]) -> None:
        """The inner part is changing one that a life before this has asked for."""
        if self._accounts.meta(_pending(*whose)):
            self._under_way[number] = whose
            self._last = max(self._last, number)

    def came_of_it(self, record: records.Rotated) -> None:
        """The inner part has tried both."""
        whose = self._under_way.pop(record.number, None)
        if whose is None:
            return
        asset, login = whose
        pending = _pending(asset, login)
        fresh = self._accounts.meta(pending)
        if not fresh:
            return  # an operator has set another one meanwhile
        if record.outcome == "changed":
            self._accounts.set_credential(asset, login, "password", fresh, "rotation", self._keeper.wall)
        if record.outcome != "unknown":
            self._accounts.run("DELETE FROM meta WHERE name=?", pending)
        if record.outcome == "changed":
            self._troubles.pop(whose, None)
            self._tried.pop(whose, None)
            said = "changed: the new password let us in"
        else:
            said = f"{'not changed' if record.outcome == 'kept' else 'not known'}: {record.why}"
            self._troubles[whose] = clip(said, 400)
        self._keeper.audit.note(self._entry(whose, "rotation", said), always=True)

    def _entry(self, whose: tuple[str, str], by: str, detail: str) -> events.AccessSet:
        return events.AccessSet(
            wall_ns=self._keeper.wall, what="credential", name=clip(f"{whose[1]}@{whose[0]}"), by=clip(by, 128),
            detail=clip(detail),
        )  # fmt: skip


def _pending(asset: str, login: str) -> str:
    return f"rotating {asset} {login}"


def _filled(line: str, said: dict[str, str]) -> str:
    """A line with what it names. What is put in is not read again."""
    out, rest = "", line
    while rest:
        name = next((name for name in said if rest.startswith(f"{{{name}}}")), "")
        out += said[name] if name else rest[0]
        rest = rest[len(name) + 2 if name else 1 :]
    return out


def _password() -> str:
    """24 letters, of each kind at least one, 130 bits and more: nobody ever types it."""
    letters = [secrets.choice(one) for one in _SETS] + [secrets.choice("".join(_SETS[:3])) for _ in range(20)]
    secrets.SystemRandom().shuffle(letters)
    return "".join(letters)
