"""Break-glass: a code in a sealed envelope, by which somebody at the gate itself approves one person's access to one
asset for four hours when nobody who could approve it is there.

It takes the place of the approval (and of whoever would have to watch), and of nothing else: two factors, the conduit's
windows, blocks, the recording and the log stay. It works once; that it was used is an alarm until somebody else than
whoever used it has reviewed it.

Not here: the command line (cli.jump_glass).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump import told
from cofferdam.brokers.jump.desk import Desk, answers
from cofferdam.brokers.jump.told import Used
from cofferdam.errors import GateError
from cofferdam.policy.points.decide import show_utc

SECONDS: Final = 4 * 3600
CODE_BYTES: Final = 20
SEALED: Final = "(sealed code)"
"""Who approved it, in the store: no person can be called that."""
By = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Why = Annotated[str, Meta(min_length=1, max_length=400)]


class Seal(msgspec.Struct, forbid_unknown_fields=True):
    by: By


class Break(msgspec.Struct, forbid_unknown_fields=True):
    by: By
    code: Annotated[str, Meta(min_length=1, max_length=128)]
    person: Name
    asset: Name
    reason: Why

    def __repr__(self) -> str:
        return f"Break({self.by!r}, <secret>, {self.person!r}, {self.asset!r})"


class Review(msgspec.Struct, forbid_unknown_fields=True):
    by: By
    reason: Why


class Glass:
    """The envelope."""

    def __init__(self, keeper: Desk) -> None:
        self._keeper = keeper
        self._accounts = keeper.accounts
        self._busy = False
        self._used = self._read()
        self.verbs = {
            "glass-seal": self._seal,
            "glass-break": self._break,
            "glass-review": self._review,
            "glass": self._show,
        }

    def _read(self) -> Used | None:
        found = self._accounts.meta("glass-used")
        return msgspec.json.decode(found, type=Used) if found else None

    def alarm(self) -> dict[str, str]:
        used = self._used
        if used is None:
            return {}
        said = f"{used.by} broke the glass for {used.person} at {used.asset}, {show_utc(used.at_ns)}: {used.reason}"
        return {"jump-break-glass": clip(f"{said} (cofferdam jump break-glass review)", 400)}

    def covers(self, request: int) -> bool:
        """Whether this request was approved by the code."""
        return self._accounts.approvals(request) == [SEALED]

    def _entry(self, by: str, how: Any, **more: Any) -> events.GlassUsed:
        return events.GlassUsed(wall_ns=self._keeper.wall, by=clip(by, 128), how=how, **more)

    def _seal(self, asked: Asked) -> None:
        said = asked.decode(Seal)
        if self._used is not None or self._busy:  # the next use would be told in its place
            raise GateError(
                "the use of the last code is to be reviewed first, by somebody else than who used it",
                hint="cofferdam jump break-glass review WORDS",
            )
        text = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode()
        code = "-".join(text[at : at + 4] for at in range(0, len(text), 4))

        def act() -> str:
            self._accounts.set_meta("glass", _hash(code))
            return code

        self._keeper.when_recorded(self._entry(said.by, "sealed"), act, answers(asked))

    def _break(self, asked: Asked) -> None:
        said = asked.decode(Break)
        keeper = self._keeper
        self._accounts.known(said.person)
        conduit = keeper.deciding.askable(said.person, said.asset, 60)
        sealed = self._accounts.meta("glass")
        about = {"person": said.person, "asset": said.asset, "reason": clip(said.reason, 400)}
        if not sealed or self._busy or not hmac.compare_digest(sealed, _hash(said.code)):
            why = "that is not the code, or it was used" if sealed else "no code is sealed"
            keeper.when_recorded(
                self._entry(said.by, "refused", **about), functools.partial(self._no, why), answers(asked)
            )
            return
        self._busy = True

        def act() -> str:
            # The code is used up before anybody gets anything by it.
            self._accounts.set_meta("glass", b"")
            number = self._accounts.ask(
                said.person, said.asset, conduit, SECONDS, clip(said.reason, 400), "break-glass", keeper.wall
            )
            self._accounts.approve(number, SEALED, "break-glass", keeper.wall)
            until = keeper.wall + SECONDS * 10**9
            self._accounts.settle(number, "granted", until)
            keeper.deciding.granted(self._accounts.request(number), keeper.now)
            used = Used(said.by, said.person, said.asset, clip(said.reason, 400), number, keeper.wall)
            self._accounts.set_meta("glass-used", msgspec.json.encode(used))
            self._used = used
            return (
                f"{said.person} may reach {said.asset} until {show_utc(until)} (request {number}); it is to be reviewed"
            )

        def told(text: str, refused: bool = False, /) -> None:
            self._busy = False
            answers(asked)(text, refused)

        keeper.when_recorded(self._entry(said.by, "broken", **about), act, told)

    @staticmethod
    def _no(why: str) -> str:
        raise GateError(why)

    def _review(self, asked: Asked) -> None:
        said = asked.decode(Review)
        used = self._used
        if used is None:
            raise GateError("nothing is to be reviewed")
        if said.by == used.by:
            raise GateError("whoever broke the glass does not review it")
        entry = self._entry(
            said.by, "reviewed", person=used.person, asset=used.asset, reason=clip(said.reason, 400)
        )  # fmt: skip

        def act() -> str:
            self._accounts.set_meta("glass-used", b"")
            self._used = None
            return "reviewed; `cofferdam jump break-glass seal` makes the next code"

        self._keeper.when_recorded(entry, act, answers(asked))

    def _show(self, asked: Asked) -> None:
        answer: told.Glass = {
            "sealed": bool(self._accounts.meta("glass")),
            "used": self._used,
        }
        asked.answer(msgspec.to_builtins(answer))


def _hash(code: str) -> bytes:
    """The code has 160 bits of its own: nobody finds it by its hash."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    return hashlib.sha256(plain.encode()).digest()
