"""The self-test of the jump server's keeper: an outer part that was taken over tries to sign somebody in.

The keeper is the one of the installed code, with a store of its own that is thrown away, people who are made up, and
both its neighbours in the test's hand. What is tried is what such a part can do: it sees what its users type and sign,
chooses what it tells, and makes up the rest. The control is a person who does sign in.

Not here: the self-test of a gate (selftest).
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import asyncssh
import pyotp

from cofferdam.audit.client import AuditClient
from cofferdam.audit.records import Ack, Batch, Hello, ToAuditor
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.broker import STORE_KEY
from cofferdam.brokers.jump.keeper_part import Keeper
from cofferdam.brokers.jump.signin import STEP_SECONDS, signed_data
from cofferdam.brokers.kit.sealed import KEY_BYTES
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CofferdamError, CrossingError
from cofferdam.evidence.model import Finding
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS

CHECK = "access.signed-hop"
SUBJECT = "self-test"
OVER = Finding(CHECK, "not covered", "what was found of it is over: the policy has no jump server", (), SUBJECT)
TESTER, OTHER, STRANGER, ASSET, LOGIN = "tester", "other", "stranger", "made-up", "nobody"
ALGORITHM = "ssh-ed25519"
AUDIT_SECONDS = 10.0
POLICY = f"""\
site: self-test
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
assets: {{{ASSET}: {{zone: plant, address: 203.0.113.2, protocol: ssh}}}}
principals: {{people: {{zone: office, addresses: [198.51.100.0/24]}}}}
conduits:
  tests:
    from: office
    to: plant
    broker: jump
    owner: the gate
    reason: the gate tries itself
    listen: "198.51.100.1:22"
    clients: people
    allow: [{{who: {{person: {TESTER}}}, asset: {ASSET}, as: {LOGIN}, do: shell}}]
"""


class _End(Sender[Any]):
    """Keeps what the keeper says to a neighbour."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.said: list[Any] = []

    def send(self, record: Any) -> None:
        self.said.append(record)

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.said if isinstance(one, kind)]

    def close(self) -> None:
        self.closed = True


class _Log(Sender[ToAuditor]):
    """Takes each entry, and says that it is on disk."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.unanswered: list[int] = []

    def send(self, record: ToAuditor) -> None:
        if isinstance(record, Batch) and record.wants_ack:
            self.unanswered.append(record.number)

    def close(self) -> None:
        self.closed = True


def _no_dial(*_: object) -> NoReturn:
    raise CofferdamError("a keeper connects to nothing")


class Rig:
    """A keeper, and its outer part in the test's hand."""

    def __init__(self, folder: Path) -> None:
        policy = compile_policy(loads(POLICY), now_ns=time.time_ns())
        scope = Scope(frozenset(policy.conduits), frozenset(policy.assets))
        self._reactor = Reactor()
        self._log = _Log()
        self._audit = AuditClient(self._reactor, self._log, wait_seconds=AUDIT_SECONDS)
        self._audit.on_record(Hello(True))
        self.outer, self.inner = _End(), _End()
        self._wall = time.time_ns()
        self.keeper = Keeper(
            Setting(
                crew="jump", part="keeper", broker="jump", boot="self-test", again=False,
                policy=CompiledPolicy(KINDS["jump"].slice(policy, scope, "keeper")), severed=frozenset(),
                assets=(ASSET,), zones=(("office",), "plant"), reactor=self._reactor, audit=self._audit,
                senders={"outer": self.outer, "inner": self.inner}, dial=_no_dial, store=folder,
                wall=lambda: self._wall, secrets={STORE_KEY: os.urandom(KEY_BYTES)},
            )
        )  # fmt: skip
        accounts = self.keeper.accounts
        self.keys = {name: asyncssh.generate_private_key(ALGORITHM) for name in (TESTER, OTHER, STRANGER)}
        self.codes = pyotp.TOTP(pyotp.random_base32())
        for name in (TESTER, OTHER):
            accounts.add_person(name, "", "")
            accounts.add_key(name, self.keys[name].public_data, "", 0)
            accounts.set_totp(name, self.codes.secret)
        accounts.set_asset_key(ASSET, self.keys[STRANGER].public_data, SUBJECT)
        accounts.set_credential(ASSET, LOGIN, "password", b"of nothing", SUBJECT, 0)
        self._connections = self._sessions = 0

    def close(self) -> None:
        self.keeper.accounts.close()
        self._reactor.close()

    def tell(self, record: Any) -> None:
        """The outer part says something. What the keeper does for it is done, and recorded, when this returns.

        Raises: CrossingError: no honest part says that, and the keeper ends with all its sessions."""
        self.keeper.on_record("outer", record)
        for _ in range(20):
            self._reactor.turn(0)
            numbers, self._log.unanswered = self._log.unanswered, []
            for number in numbers:
                self._audit.on_record(Ack(number, True))

    def connect(self, digest: bytes | None = None) -> int:
        """A connection, each from another address, with its key exchange done where there is a hash for it."""
        self._connections += 1
        self._wall += 2 * STEP_SECONDS * 10**9  # a code counts once
        self.tell(records.Began(self._connections, f"198.51.100.{self._connections}", 1))
        if digest is not None:
            self.tell(records.Exchange(self._connections, digest))
        return self._connections

    def sign(self, whose: str, digest: bytes, shown: str = "") -> bytes:
        """Whose signature, over a session's id, for the tester's name, and for their own key or the one of `shown`."""
        said = signed_data(digest, f"{TESTER}%{ASSET}", ALGORITHM, self.keys[shown or whose].public_data)
        signature: bytes = self.keys[whose].sign(said, ALGORITHM.encode())
        return signature

    def prove(self, conn: int, signature: bytes, whose: str = TESTER) -> None:
        key = self.keys[whose].public_data
        self.tell(records.Proof(conn, f"{TESTER}%{ASSET}", ALGORITHM, key, signature))

    def code(self, conn: int) -> None:
        """The right one, which the part has seen its user type."""
        self.tell(records.Answers(conn, f"{TESTER}%{ASSET}", (self.codes.at(self._wall // 10**9),)))

    def open(self, conn: int) -> None:
        self._sessions += 1
        self.tell(records.Open(conn, self._sessions, ASSET, "shell"))

    def grants(self) -> int:
        """Sessions that the inner part was told to begin."""
        return len(self.inner.of(records.Grant))

    def ins(self) -> int:
        """Sign-ins that counted."""
        return sum(1 for one in self.outer.of(records.Verdict) if one.state == "in")


def run() -> Finding:
    """What such a part gets. Raises: CofferdamError, where the keeper of the test does not start."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-selftest-") as name:
        rig = Rig(Path(name))
        try:
            return judge(rig)
        finally:
            rig.close()


def judge(rig: Rig) -> Finding:
    """Tries everything, with a person who does sign in before and after."""
    wrong: list[str] = []
    facts: list[str] = []
    seen = os.urandom(32)
    served = rig.sign(TESTER, seen)
    if not _signs_in(rig, seen, served):
        wrong.append("a person who signs in as they should was not let in: nothing can be said of others")
    for name, attempt, typed in _attempts(rig, seen, served):
        before = (rig.ins(), rig.grants())
        conn = attempt()
        ended = ""
        for step in (*((functools.partial(rig.code, conn),) if typed else ()), functools.partial(rig.open, conn)):
            try:
                step()
            except CrossingError:
                ended = ", and the keeper ends with all its sessions"
        if (rig.ins(), rig.grants()) != before:
            wrong.append(f"{name} signed somebody in")
        facts.append(f"{name}: no sign-in, no session{ended}")
    digest = os.urandom(32)
    if not _signs_in(rig, digest, rig.sign(TESTER, digest)):
        wrong.append("after that, a person who signs in as they should was not let in")
    if wrong:
        return Finding(CHECK, "failed", wrong[0], tuple(wrong[:8]), SUBJECT)
    says = f"{len(facts)} sign-ins that no user made were refused by the keeper; a user's own was not, before and after"
    return Finding(CHECK, "tested", says, tuple(facts), SUBJECT)


def _signs_in(rig: Rig, digest: bytes, signature: bytes) -> bool:
    """Whether the tester's own key and code begin a session."""
    before = rig.grants()
    conn = rig.connect(digest)
    rig.prove(conn, signature)
    rig.code(conn)
    with contextlib.suppress(CrossingError):
        rig.open(conn)
    rig.tell(records.Gone(conn))
    return rig.grants() == before + 1


def _attempts(rig: Rig, seen: bytes, served: bytes) -> Iterator[tuple[str, Callable[[], int], bool]]:
    """What is tried, which gives a connection, and whether the tester's right code is told after it; then a session is
    asked for. `served` is the tester's signature over `seen`, by which they signed in before."""

    def proof(digest: bytes | None, signature: bytes, whose: str = TESTER) -> int:
        conn = rig.connect(digest)
        rig.prove(conn, signature, whose)
        return conn

    def by(whose: str, shown: str) -> int:
        digest = os.urandom(32)
        return proof(digest, rig.sign(whose, digest, shown), shown)

    yield "a code alone", lambda: rig.connect(os.urandom(32)), True
    yield "a key that nobody has", lambda: by(STRANGER, STRANGER), True
    yield "the user's key, with a signature by another", lambda: by(STRANGER, TESTER), True
    yield "another person's key and signature", lambda: by(OTHER, OTHER), True
    yield "a signature of another connection", lambda: proof(os.urandom(32), served), True
    yield "the same connection told once more", lambda: proof(seen, served), True
    yield "a signature over what the gate never signed", lambda: proof(None, rig.sign(TESTER, os.urandom(32))), True
    yield "a user's signature without their code", lambda: by(TESTER, TESTER), False
