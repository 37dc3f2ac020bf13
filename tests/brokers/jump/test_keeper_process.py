"""The keeper's own process, under its filter, with an outer part that was written for the purpose: it claims what it
likes, and gets a grant for what was proved alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import pyotp
import pytest

from cofferdam.audit.events.gate import RecordViolation
from cofferdam.audit.events.jump import (
    AccessDecided,
    AccessEnded,
    AccessLocked,
    AccessOpened,
    AccessRefused,
    AccessSet,
    SignedIn,
    SignInRefused,
)
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.accounts import REQUESTS_A_DAY
from cofferdam.brokers.jump.broker import STORE_KEY
from cofferdam.brokers.jump.signin import signed_data
from cofferdam.brokers.kit.supervision import (
    Command,
    CommandDone,
    Configure,
    Failing,
    NewPolicy,
    PolicyTaken,
    Ready,
    Secret,
)
from cofferdam.crossing.framing import PACKET, pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests.brokers.harness import WATCHED, Auditor, PartChild, write_all
from tests.brokers.jump.site import KEY
from tests.waiting import PATIENT, eventually, readable

POLICY = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  plc: {zone: plant, address: 10.20.0.1, protocol: ssh}
  station: {zone: plant, address: 10.20.0.2, protocol: ssh}
principals: {people: {zone: office, addresses: [10.1.0.0/24]}}
conduits:
  c:
    {from: office, to: plant, broker: jump, owner: o, reason: r, listen: "10.1.0.2:22", clients: people,
     sessions: 2, record: {terminal: RECORD}, rotate: {command: chpasswd, says: "{login}:{new}"},
     allow: [{who: {person: tech}, asset: plc, as: svc, do: [shell, down], paths: PATHS}]}
  v:
    {from: office, to: plant, broker: jump, owner: o, reason: r, listen: "10.1.0.2:22", clients: people,
     approval: {by: leads, people: two, window: 4 h},
     allow: [{who: {person: tech}, asset: station, as: svc, do: shell}]}
limits: {audit_wait_seconds: 60}
"""
"""(The auditor is a thread of the test's, and waits for its turn.)"""


def policy_bytes(paths: str = "/a", record: str = "true") -> bytes:
    policy = compile_policy(loads(POLICY.replace("PATHS", paths).replace("RECORD", record)), now_ns=time.time_ns())
    scope = Scope(frozenset(policy.conduits), frozenset(policy.assets))
    return to_bytes(KINDS["jump"].slice(policy, scope, "keeper"))


class Wire:
    """The test's ends of two pipes: what it says to the keeper, what the keeper says."""

    def __init__(self, to: int, back: int, out: RecordCodec[Any], into: RecordCodec[Any]) -> None:
        self._to, self._back, self._out = to, back, out
        self._unpack = Unpacker(into)
        self.got: list[Any] = []

    def send(self, *said: Any) -> None:
        for packet in pack([self._out.encode(record) for record in said]):
            write_all(self._to, packet)

    def wait_for(self, kind: type[Any]) -> Any:
        until = time.monotonic() + PATIENT
        while time.monotonic() < until:
            for record in self.got:
                if isinstance(record, kind):
                    self.got.remove(record)
                    return record
            if readable([self._back], 0.1):
                packet = os.read(self._back, PACKET)
                assert packet, "the keeper is gone"
                self.got += self._unpack.feed(packet)
        raise AssertionError(f"no {kind.__name__}; got {self.got}")

    def empty(self) -> None:
        """What was said and nobody waited for."""
        while readable([self._back], 0):
            self._unpack.feed(os.read(self._back, PACKET))
        self.got.clear()

    def close(self) -> None:
        os.close(self._to)
        os.close(self._back)


class Stage:
    """A keeper that runs, tech with a key and codes, and both its neighbours in the test's hand."""

    def __init__(self, store: Path) -> None:
        store.mkdir(mode=0o700)
        self.store = store
        self.auditor = Auditor()
        pipes = {pipe: make_pipe() for pipe in (("outer", "keeper"), ("keeper", "outer"), ("inner", "keeper"),
                                                 ("keeper", "inner"))}  # fmt: skip
        self.inputs = {who: pipes[who, "keeper"][0] for who in ("outer", "inner")}
        self.outputs = {who: pipes["keeper", who][1] for who in ("outer", "inner")}
        self.outer = Wire(pipes["outer", "keeper"][1], pipes["keeper", "outer"][0], records.to_keeper(),
                          records.from_keeper())  # fmt: skip
        self.inner = Wire(pipes["inner", "keeper"][1], pipes["keeper", "inner"][0], records.from_inner(),
                          records.to_inner())  # fmt: skip
        self.auditor.start()
        self.begin()
        self.count = 0
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.ask("person-add", person="tech")
        self.ask("key-add", person="tech", key=self.key.export_public_key().decode())
        self.used = ""
        """The code by which tech has signed in last."""
        self.ask("host-key", asset="plc", key=self.key.export_public_key().decode())
        for asset in ("plc", "station"):
            self.ask("credential-set", asset=asset, login="svc", kind="password", secret="a secret")
        self.ask("host-key", asset="station", key=self.key.export_public_key().decode())
        self.connections = self.last = 0

    def begin(self, life: int = 0, policy: bytes = b"") -> None:
        """A keeper is born."""
        self.child = PartChild("jump", "keeper", self.auditor, self.inputs, self.outputs, WATCHED)
        self.child.start([])
        self.child.send(
            Configure(
                crew="jump", part="keeper", broker="jump", source_zones=("office",), target_zone="plant", boot="t",
                policy=policy or policy_bytes(), assets=("plc", "station"), life=life,
                store=str(self.store), secrets=(Secret(STORE_KEY, KEY),),
            )
        )  # fmt: skip
        ready: Ready = self.child.wait_for(Ready)
        assert all(in_force for _, in_force, _ in ready.facts), ready.facts
        self.child.status()

    @property
    def stands(self) -> bool:
        """Whether it lives, with a log that can be written."""
        assert self.child.process is not None
        return self.child.process.poll() is None and self.auditor.mode == "ok"

    def clear(self) -> None:
        """As at the beginning, but for numbers that went on."""
        for conn in range(1, self.connections + 1):
            self.outer.send(records.Gone(conn))
        self.child.send(NewPolicy(policy_bytes(), (), ("plc", "station")))
        self.child.wait_for(PolicyTaken)
        for one in self.ask("requests"):
            self.ask("revoke", number=one["id"])
        for one in self.ask("people"):
            self.ask("person-remove", person=one["person"])
        self.ask("person-add", person="tech")
        self.ask("key-add", person="tech", key=self.key.export_public_key().decode())
        self.child.status()
        for wire in (self.outer, self.inner):
            wire.empty()
        self.auditor.drafts.clear()

    def opens(self, conn: int, asset: str, what: Any, command: str = "") -> records.Open:
        """The next session."""
        self.last += 1
        return records.Open(conn, self.last, asset, what, command)

    def ask(self, verb: str, **arguments: object) -> Any:
        self.count += 1
        self.child.send(Command(self.count, verb, msgspec.json.encode({"by": "root", **arguments})))
        done: CommandDone = self.child.wait_for(CommandDone)
        assert not done.error, done
        return msgspec.json.decode(done.result)

    def refuses(self, verb: str, **arguments: object) -> str:
        self.count += 1
        self.child.send(Command(self.count, verb, msgspec.json.encode({"by": "root", **arguments})))
        done: CommandDone = self.child.wait_for(CommandDone)
        return done.error

    def approver(self, name: str) -> None:
        """Somebody of leads, who approves at the gate."""
        self.ask("person-add", person=name, account=name)
        self.ask("group-join", person=name, group="leads")

    def request(self, conn: int, span: str) -> int:
        self.outer.send(records.Ask(conn, f"request station {span} pump trips"))
        said: str = self.outer.wait_for(records.Told).text
        return int(said.split()[1])

    def connect(self) -> int:
        self.connections += 1
        self.outer.send(records.Began(self.connections, "10.1.0.9", 1))
        return self.connections

    def sign_in(self, user: str = "plc") -> int:
        codes = pyotp.TOTP(self.ask("code-new", person="tech")["secret"])  # a code counts once in 30 s
        self.used = codes.now()
        conn, digest = self.connect(), os.urandom(32)
        self.outer.send(records.Exchange(conn, digest))
        self.outer.wait_for(records.Signed)
        blob = self.key.public_data
        signature = self.key.sign(signed_data(digest, user, "ssh-ed25519", blob), b"ssh-ed25519")
        self.outer.send(records.Proof(conn, user, "ssh-ed25519", blob, signature))
        assert self.outer.wait_for(records.Verdict).state == "code"
        self.outer.send(records.Answers(conn, user, (self.used,)))
        assert self.outer.wait_for(records.Verdict).state == "in"
        return conn

    def close(self) -> None:
        self.outer.close()
        self.inner.close()
        self.child.close()
        self.auditor.stop()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Stage]]:
    """One keeper for all tests, and another where a test has ended it."""
    now: list[Stage] = []

    def ready() -> Stage:
        if now and now[0].stands:
            now[0].clear()
            return now[0]
        while now:
            now.pop().close()
        now.append(Stage(tmp_path_factory.mktemp("keeper") / "store"))
        return now[0]

    try:
        yield ready
    finally:
        while now:
            now.pop().close()


@pytest.fixture
def stage(stages: Callable[[], Stage]) -> Stage:
    return stages()


def test_a_grant_is_for_what_was_proved_and_recorded(stage: Stage) -> None:
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    grant: records.Grant = stage.inner.wait_for(records.Grant)
    assert (grant.person, grant.asset, grant.login, grant.credential.secret) == ("tech", "plc", "svc", b"a secret")
    assert "a secret" not in repr(grant)
    assert [each.person for each in stage.auditor.of(SignedIn)] == ["tech"]
    assert [each.asset for each in stage.auditor.of(AccessOpened)] == ["plc"]
    stage.outer.send(stage.opens(conn, "plc", "exec", "uptime"))
    assert "no rule" in stage.outer.wait_for(records.SessionRefused).reason
    stage.outer.send(records.Gone(conn))
    assert stage.inner.wait_for(records.Revoke).session == grant.session
    eventually(lambda: len(stage.auditor.of(AccessEnded)) == 1)


def test_one_that_is_taken_back_before_its_entry_is_in_the_log_is_told(stage: Stage) -> None:
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"), records.Gone(conn))
    assert stage.outer.wait_for(records.SessionRefused).session == stage.last
    stage.sign_in()
    assert not [each for each in stage.inner.got if isinstance(each, records.Grant)]
    assert not readable([stage.inner._back], 0)


def test_what_cannot_be_recorded_is_not_granted(stage: Stage) -> None:
    conn = stage.sign_in()
    stage.auditor.unwritable("disk full")
    stage.child.status()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    assert "cannot be recorded" in stage.outer.wait_for(records.SessionRefused).reason
    assert not readable([stage.inner._back], 0.2)


def test_a_person_who_is_taken_away_is_out_at_once(stage: Stage) -> None:
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    stage.inner.wait_for(records.Grant)
    stage.ask("person-remove", person="tech")
    assert stage.inner.wait_for(records.Revoke).session == stage.last
    assert stage.outer.wait_for(records.Drop).conn == conn


def test_no_proof_no_way_in(stage: Stage) -> None:
    conn = stage.connect()
    blob = stage.key.public_data
    digest = os.urandom(32)
    signature = stage.key.sign(signed_data(digest, "plc", "ssh-ed25519", blob), b"ssh-ed25519")
    stage.outer.send(records.Proof(conn, "plc", "ssh-ed25519", blob, signature))  # no hash was signed here
    assert stage.outer.wait_for(records.Verdict).state == "no"
    stage.outer.send(records.Exchange(conn, os.urandom(32)))
    stage.outer.send(records.Proof(conn, "plc", "ssh-ed25519", blob, signature))  # another one was
    assert stage.outer.wait_for(records.Verdict).state == "no"
    eventually(lambda: len(stage.auditor.of(SignInRefused)) == 2)
    assert not stage.auditor.of(SignedIn)
    assert not stage.auditor.of(AccessRefused)


FORGED: dict[str, Callable[[Stage], tuple[Any, ...]]] = {
    "a session without a sign-in": lambda s: (s.opens(s.connect(), "plc", "shell"),),
    "a session of a connection that never was": lambda s: (s.opens(999, "plc", "shell"),),
    "another asset than was signed for": lambda s: (s.opens(s.sign_in("plc"), "station", "shell"),),
    "an asset where none was signed for": lambda s: (s.opens(s.sign_in("tech"), "plc", "shell"),),
    "a session number left out": lambda s: (records.Open(s.sign_in(), s.last + 2, "plc", "shell"),),
    "a connection number left out": lambda s: (records.Began(s.connections + 4, "10.1.0.9", 1),),
    "a connection that begins twice": lambda s: (records.Began(s.connect(), "10.1.0.9", 1),),
    "a session of another connection, unlocked": lambda s: (
        s.opens(s.sign_in(), "plc", "shell"), records.Unlocking(s.connect(), s.last, "000000"),
    ),
    "a line of the menu without a sign-in": lambda s: (records.Ask(s.connect(), "approve 1"),),
}  # fmt: skip


@pytest.mark.parametrize("what", list(FORGED))
def test_what_no_honest_outer_part_says_ends_the_crew(stage: Stage, what: str) -> None:
    said = FORGED[what](stage)
    stage.outer.send(*said)
    failing: Failing = stage.child.wait_for(Failing)
    assert "outer broke the crossing's rules" in failing.reason
    assert stage.child.process is not None
    assert stage.child.process.wait(PATIENT) == 4
    eventually(lambda: [each.half for each in stage.auditor.of(RecordViolation)] == ["jump/outer"])
    assert bool(stage.auditor.of(AccessOpened)) is ("unlocked" in what)


def test_a_proof_beside_one_that_has_served_counts_for_nobody(stage: Stage) -> None:
    """One who has two factors of their own and a key of somebody else's does not become somebody else: not by saying
    all at once, before the keeper's entry of the first is in the log."""
    lead = asyncssh.generate_private_key("ssh-ed25519")
    stage.ask("person-add", person="lead")
    stage.ask("key-add", person="lead", key=lead.export_public_key().decode())
    stage.ask("code-new", person="lead")
    stage.ask("password-set", person="tech", password="correct horse battery")
    codes = pyotp.TOTP(stage.ask("code-new", person="tech")["secret"])  # one may be used up by the test before
    conn, digest = stage.connect(), os.urandom(32)
    signature = lead.sign(signed_data(digest, "lead", "ssh-ed25519", lead.public_data), b"ssh-ed25519")
    stage.outer.send(
        records.Exchange(conn, digest),
        records.Answers(conn, "tech%plc", ("correct horse battery", codes.now())),
        records.Proof(conn, "lead", "ssh-ed25519", lead.public_data, b"none"),
        records.Proof(conn, "lead", "ssh-ed25519", lead.public_data, signature),
        records.Ask(conn, "list"),
    )
    assert stage.outer.wait_for(records.Drop).conn == conn
    assert {each.person for each in stage.auditor.of(SignedIn)} <= {"tech"}
    assert not [each for each in stage.outer.got if isinstance(each, records.Verdict) and each.state != "no"]
    eventually(lambda: "beside one that has served" in "".join(e.reason for e in stage.auditor.of(SignInRefused)))


def test_passwords_beyond_the_one_that_waits_end_their_connection(stage: Stage) -> None:
    """Each takes its time to be looked at, and nobody has the keeper hold more of them than there are connections."""
    first, second = stage.connect(), stage.connect()
    typed = ("no such password", "000000")
    said: list[Any] = [records.Exchange(second, os.urandom(32))]
    said += [records.Answers(conn, "tech%plc", typed) for conn in (first, second, second, second)]
    stage.outer.send(*said, records.Answers(second, "tech%plc", typed))
    assert stage.outer.wait_for(records.Drop).conn == second
    assert stage.outer.wait_for(records.Verdict).conn == first
    assert stage.connect() == second + 1
    stage.outer.send(records.Answers(second + 1, "tech%plc", typed))
    assert stage.outer.wait_for(records.Verdict).conn == second + 1, "what waited of the one that ended went with it"


def test_who_asks_and_does_not_listen_is_not_listened_to(stage: Stage) -> None:
    """Else all that it is told would wait in the keeper's memory, until that ends it. Nothing is lost by it."""
    conn, asked = stage.connect(), 0
    packets = pack([stage.outer._out.encode(records.Exchange(conn, os.urandom(32)))] * 80)
    (packet,) = packets
    stuck = 0
    while stuck < 3:
        assert asked < 200_000, "it takes whatever comes"
        try:
            os.write(stage.outer._to, packet)
            asked, stuck = asked + 80, 0
        except BlockingIOError:
            stage.ask("people")  # meanwhile it has looked at all of its pipes
            stuck += 1
    assert stage.outer.wait_for(records.Signed).conn == conn
    for _ in range(asked - 1):
        stage.outer.wait_for(records.Signed)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "in a session"])
def test_a_proof_after_the_last_one_ends_the_connection(stage: Stage, late: bool) -> None:
    conn = stage.sign_in()
    if late:
        stage.outer.send(stage.opens(conn, "plc", "shell"))
        stage.inner.wait_for(records.Grant)
    stage.outer.send(records.Answers(conn, "tech", ("000000",)))
    assert stage.outer.wait_for(records.Drop).conn == conn
    if late:
        assert stage.inner.wait_for(records.Revoke).session == stage.last
        eventually(lambda: [each.person for each in stage.auditor.of(AccessEnded)] == ["tech"])


@pytest.mark.parametrize(
    ("what", "paths", "record"), [("sftp", "/b", "true"), ("shell", "/a", "false")], ids=["paths", "recording"]
)
def test_a_session_whose_terms_have_changed_ends(stage: Stage, what: Any, paths: str, record: str) -> None:
    """The inner part goes by what its grant says; so what a reload takes away must end the session."""
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", what))
    stage.inner.wait_for(records.Grant)
    stage.child.send(NewPolicy(policy_bytes(), (), ("plc", "station")))
    assert stage.child.wait_for(PolicyTaken).ended == 0
    stage.child.send(NewPolicy(policy_bytes(paths, record), (), ("plc", "station")))
    assert stage.inner.wait_for(records.Revoke).reason == "what you may do there has changed"


def test_two_approvers(stage: Stage) -> None:
    """62443-3-3 SR 2.1 RE4: two others, who both may, and one of whom does not count twice."""
    for name in ("ada", "ben", "cy"):
        stage.approver(name)
    conn = stage.sign_in("tech%station")
    menu = stage.sign_in("tech")
    number = stage.request(menu, "2h")
    assert "takes 1 more" in stage.ask("approve", number=number, by="ada")
    assert "already" in stage.refuses("approve", number=number, by="ada")
    stage.outer.send(stage.opens(conn, "station", "shell"))
    assert "takes an approval" in stage.outer.wait_for(records.SessionRefused).reason
    stage.ask("group-leave", person="ada", group="leads")  # her word counts no more
    assert "takes 1 more" in stage.ask("approve", number=number, by="ben")
    assert "is granted" in stage.ask("approve", number=number, by="cy")
    stage.outer.send(stage.opens(conn, "station", "shell"))
    grant: records.Grant = stage.inner.wait_for(records.Grant)
    assert 0 < grant.seconds <= 7200
    assert [each.people for each in stage.auditor.of(AccessDecided)] == [("ada",), ("ben",), ("ben", "cy")]
    assert "is granted" in stage.refuses("deny", number=number, by="cy")


def test_two_who_decide_at_once(stage: Stage) -> None:
    """What the log says of a request is what became of it."""
    for name in ("ada", "ben"):
        stage.approver(name)
    number = stage.request(stage.sign_in("tech"), "2h")
    for verb, by in (("approve", "ada"), ("deny", "ben")):
        stage.count += 1
        stage.child.send(Command(stage.count, verb, msgspec.json.encode({"by": by, "number": number})))
    answers = [stage.child.wait_for(CommandDone), stage.child.wait_for(CommandDone)]
    assert sorted(bool(each.error) for each in answers) == [False, True]
    assert [each.decision for each in stage.auditor.of(AccessDecided)] == ["approved"]
    assert "is granted" in stage.ask("approve", number=number, by="ben")


def test_warned_before_the_end(stage: Stage) -> None:
    """62443-3-3 SR 2.6: told beforehand, and ended."""
    for name in ("ada", "ben"):
        stage.approver(name)
    conn = stage.sign_in("tech%station")
    number = stage.request(stage.sign_in("tech"), "1min")
    for name in ("ada", "ben"):
        stage.ask("approve", number=number, by=name)
    stage.outer.send(stage.opens(conn, "station", "shell"))
    grant: records.Grant = stage.inner.wait_for(records.Grant)
    assert grant.seconds <= 60
    assert stage.inner.wait_for(records.Warn).text == "this session ends in 1 minute"
    stage.ask("revoke", number=number)
    assert stage.inner.wait_for(records.Revoke).session == stage.last


def test_a_terminal_that_is_locked(stage: Stage) -> None:
    """A factor of its own person unlocks it, once; too many tries end it, and so does having none."""
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    stage.inner.wait_for(records.Grant)
    stage.outer.send(records.Unlocking(conn, stage.last, "000000"))  # it is not locked: nothing comes of it
    stage.inner.send(records.Idle(stage.last))
    eventually(lambda: len(stage.auditor.of(AccessLocked)) == 1)
    for answer in (stage.used, "another password", "1" * 6 if stage.used != "1" * 6 else "2" * 6):
        stage.outer.send(records.Unlocking(conn, stage.last, answer))
        assert stage.outer.wait_for(records.Wait).text == "that does not unlock it"
    codes = pyotp.TOTP(stage.ask("code-new", person="tech")["secret"])
    stage.outer.send(records.Unlocking(conn, stage.last, codes.now()))
    assert stage.inner.wait_for(records.Unlock).session == stage.last
    stage.inner.send(records.Idle(stage.last))
    for _ in range(10):
        stage.outer.send(records.Unlocking(conn, stage.last, "no password of anybody"))
    assert stage.inner.wait_for(records.Revoke).reason == "too many tries to unlock it"
    eventually(lambda: [each.how for each in stage.auditor.of(AccessLocked)] == ["locked", "unlocked", "locked"])


def test_a_new_password_is_kept_beside_the_old_one_until_it_is_known_which_holds(stage: Stage) -> None:
    """It is on disk before the asset hears of it; what nobody knows is looked at before anything else is done."""
    assert stage.ask("rotate", asset="plc", login="svc") == "is being changed"
    asked: records.Rotate = stage.inner.wait_for(records.Rotate)
    assert (asked.command, asked.credential.secret) == ("chpasswd", b"a secret")
    assert asked.lines == (b"svc:" + asked.fresh.secret,)
    assert asked.fresh.secret.decode() not in repr(asked)
    assert "already" in stage.refuses("rotate", asset="plc", login="svc")
    assert "just now" in stage.refuses("credential-set", asset="plc", login="svc", kind="password", secret="x")
    stage.inner.send(records.Rotated(asked.number, "unknown", "it went away"))
    eventually(lambda: stage.ask("assets")[0]["credentials"][0]["state"] == "not known: it went away")
    stage.ask("rotate", asset="plc", login="svc")
    look: records.Rotate = stage.inner.wait_for(records.Rotate)
    assert (look.command, look.lines, look.fresh.secret) == ("", (), asked.fresh.secret)
    stage.inner.send(records.Rotated(look.number, "changed", ""), records.Rotated(look.number, "kept", "twice"))
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    assert stage.inner.wait_for(records.Grant).credential.secret == asked.fresh.secret
    said = [each.detail for each in stage.auditor.of(AccessSet) if each.what == "credential"]
    assert said == ["is changed by chpasswd", "not known: it went away", "is looked at: a change was under way",
                    "changed: the new password let us in"]  # fmt: skip
    stage.ask("credential-set", asset="plc", login="svc", kind="password", secret="a secret")


def test_who_used_the_sealed_code_does_not_review_it(stage: Stage) -> None:
    """It covers whoever would have to approve, twice, and nobody else; and it stays an alarm until it is reviewed."""
    code = stage.ask("glass-seal")
    conn = stage.sign_in("tech%station")
    stage.outer.send(stage.opens(conn, "station", "shell"))
    assert "takes an approval" in stage.outer.wait_for(records.SessionRefused).reason
    stage.ask("glass-break", code=code, person="tech", asset="station", reason="flood")
    stage.outer.send(stage.opens(conn, "station", "shell"))
    assert 0 < stage.inner.wait_for(records.Grant).seconds <= 4 * 3600
    assert stage.refuses("glass-review", reason="well")
    assert stage.ask("glass")["used"]["by"] == "root"
    assert "reviewed first" in stage.refuses("glass-seal")  # it would be told in its place
    assert "seal" in stage.ask("glass-review", reason="seen", by="ada")
    assert stage.ask("glass") == {"sealed": False, "used": None}
    assert stage.refuses("glass-review", reason="again", by="ada")


def test_who_asks_and_withdraws_does_so_no_more_than_so_often(stage: Stage) -> None:
    """What was asked for is kept, also where it was withdrawn. It comes late: tech asks for no more that day."""
    conn = stage.sign_in("tech")
    refusals: list[str] = []
    while len(refusals) < 2:
        stage.outer.send(records.Ask(conn, "request station 1h pump trips"))
        asked: records.Told = stage.outer.wait_for(records.Told)
        if asked.refused:
            refusals.append(asked.text)
            continue
        assert int(asked.text.split()[1]) < 2 * REQUESTS_A_DAY
        stage.outer.send(records.Ask(conn, f"withdraw {asked.text.split()[1]}"))
        withdrawn: records.Told = stage.outer.wait_for(records.Told)
        assert not withdrawn.refused
    assert all("within a day" in text for text in refusals)


def test_passwords_of_strangers_keep_nobody_waiting(stage: Stage) -> None:
    """Each takes a tenth of a second, and more on a machine that has much to do: a keeper that verified all of them
    first would be taken for one that hangs, and end with everybody's sessions."""
    conns = []
    for _ in range(8):
        conns.append(stage.connect())
        stage.outer.send(records.Exchange(conns[-1], os.urandom(32)))
        stage.outer.wait_for(records.Signed)
    last = conns[-1] + 1
    stage.outer.send(  # in one packet, however busy who sends it is
        *(records.Answers(conn, "nobody", ("wrong horse battery", "000000")) for conn in conns),
        records.Began(last, "10.1.0.77", 40_000), records.Exchange(last, b"h" * 32),
    )  # fmt: skip
    assert stage.outer.wait_for(records.Signed).conn == last
    assert len([one for one in stage.outer.got if isinstance(one, records.Verdict)]) < 4
    verdicts = {stage.outer.wait_for(records.Verdict).conn for _ in conns}
    assert verdicts == set(conns)
