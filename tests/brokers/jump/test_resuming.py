"""A keeper that comes again, under its filter, with an outer and an inner part that were written for the purpose: what
it had granted goes on where both say so, and nothing that they claim opens anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pyotp
import pytest

from cofferdam.audit.events.gate import RecordViolation
from cofferdam.audit.events.jump import AccessEnded, AccessLocked, SignedIn, SignInRefused
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.signin import signed_data
from cofferdam.brokers.jump.standing_records import Lives, Stands
from cofferdam.crossing.exit import EXIT_VIOLATION
from cofferdam.crossing.framing import PACKET, mark, pack
from cofferdam.crossing.records import Unpacker
from tests.brokers.harness import write_all
from tests.brokers.jump.test_keeper_process import Stage, Wire, policy_bytes
from tests.waiting import PATIENT, eventually, readable


class Returning(Stage):
    """The same; its keeper can come again, by the ends that the launcher would have kept."""

    life = 0

    def begin(self, life: int = 0, policy: bytes = b"") -> None:
        kept = dict(self.inputs), dict(self.outputs)
        self.inputs, self.outputs = ({who: os.dup(fd) for who, fd in ends.items()} for ends in kept)
        super().begin(life, policy)
        self.inputs, self.outputs = kept

    def ends(self) -> None:
        """It is killed."""
        assert self.child.process is not None
        self.child.process.kill()
        self.child.process.wait(PATIENT)
        self.child.close()
        self.auditor.drafts.clear()

    def comes(self, policy: bytes = b"") -> None:
        """The next is born, and both hear of it."""
        self.life += 1
        self.begin(self.life, policy)
        for wire in (self.outer, self.inner):
            begins(wire, self.life)

    def all_anew(self) -> None:
        """Its crew is born anew, with pipes in which nothing lies."""
        for fd in self.inputs.values():
            while readable([fd], 0):
                os.read(fd, PACKET)
        self.auditor.drafts.clear()
        self.begin()

    def tell(self, outer: Stands, inner: Lives) -> None:
        self.outer.send(outer)
        self.inner.send(inner)

    def grants(self, conn: int) -> records.Grant:
        self.outer.send(self.opens(conn, "plc", "shell"))
        grant: records.Grant = self.inner.wait_for(records.Grant)
        return grant

    def sessions(self) -> list[str]:
        return [one["session"] for one in self.ask("sessions")]

    def close(self) -> None:
        super().close()
        for fd in (*self.inputs.values(), *self.outputs.values()):
            os.close(fd)


def begins(wire: Wire, life: int) -> None:
    """What it still says of before, and the mark of its new life; and our own."""
    while True:
        assert readable([wire._back], PATIENT)
        if os.read(wire._back, PACKET) == mark(life):
            break
    wire.got.clear()
    wire._unpack = Unpacker(wire._unpack._codec)
    write_all(wire._to, mark(life))


def lives(*grants: records.Grant) -> Lives:
    """These are in use, and nothing else is under way."""
    found = tuple((one.session, one.name, False) for one in grants)
    return Lives(found, (), max((one.session for one in grants), default=0))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Returning]:
    made = Returning(tmp_path / "store")
    try:
        yield made
    finally:
        made.close()


def test_what_both_say_goes_on_and_counts(stage: Returning) -> None:
    """Whatever lay in the pipes for the life before is for nobody: half a record, and whole ones."""
    first = stage.sign_in()
    one, two = stage.grants(first), stage.grants(first)
    stage.ends()
    long = pack([stage.outer._out.encode(records.Ask(first, "x" * 4_000 + "y" * 96))] * 2)
    write_all(stage.outer._to, long[0])  # and the rest of it never came
    stage.inner.send(records.Ended(one.session, "a lie of before"))
    stage.comes()
    both = (one.session, two.session)
    stage.tell(
        Stands(((first, both),), first + 3, two.session + 4),
        lives(one, two),
    )
    eventually(lambda: stage.sessions() == [one.name, two.name])
    assert not stage.auditor.of(AccessEnded)
    stage.connections, stage.last = first + 3, two.session + 4
    second = stage.sign_in()
    stage.outer.send(stage.opens(second, "plc", "shell"))
    assert "you have 2 sessions" in stage.outer.wait_for(records.SessionRefused).reason
    stage.inner.send(records.Ended(one.session, "done", 5, 6))
    eventually(lambda: [(each.session, each.sent) for each in stage.auditor.of(AccessEnded)] == [(one.name, 5)])
    three = stage.grants(second)
    assert three.name not in (one.name, two.name)
    assert three.name.startswith("t-r1-")
    stage.ask("kill", number=two.session, bar="none")
    assert stage.inner.wait_for(records.Revoke).session == two.session


def test_what_one_of_them_does_not_say_has_ended(stage: Returning) -> None:
    conn = stage.sign_in()
    one, two = stage.grants(conn), stage.grants(conn)
    stage.ends()
    stage.comes()
    stage.tell(
        Stands(((conn, (one.session,)),), conn, two.session),
        lives(two),
    )
    assert stage.inner.wait_for(records.Revoke).session == two.session
    eventually(lambda: len(stage.auditor.of(AccessEnded)) == 2)
    said = {each.session: each.reason for each in stage.auditor.of(AccessEnded)}
    assert said == {one.name: "it ended while the keeper was away", two.name: "the person is gone"}
    assert stage.sessions() == []


def test_what_a_policy_took_away_meanwhile_ends_at_once(stage: Returning) -> None:
    conn = stage.sign_in()
    one = stage.grants(conn)
    stage.ends()
    stage.comes(policy_bytes(record="false"))
    stage.tell(
        Stands(((conn, (one.session,)),), conn, one.session),
        lives(one),
    )
    revoked: records.Revoke = stage.inner.wait_for(records.Revoke)
    assert (revoked.session, revoked.reason) == (one.session, "what you may do there has changed")
    eventually(lambda: [each.session for each in stage.auditor.of(AccessEnded)] == [one.name])


def test_all_of_a_crew_that_is_born_anew_has_ended(stage: Returning) -> None:
    """Also where nobody was left to say so."""
    conn = stage.sign_in()
    one = stage.grants(conn)
    stage.ends()
    stage.all_anew()
    eventually(lambda: [each.session for each in stage.auditor.of(AccessEnded)] == [one.name])
    assert stage.sessions() == []
    stage.ends()
    stage.all_anew()
    assert not stage.auditor.of(AccessEnded)


LIES: dict[str, Callable[[int, records.Grant, records.Grant], tuple[str, tuple[Any, ...]]]] = {
    "a session that was never granted": lambda conn, one, two: ("inner", (Lives(((99, "t-99", False),), (), 99),)),
    "a session by another's number": lambda conn, one, two: (
        "inner", (Lives(((one.session, two.name, False),), (), two.session),),
    ),
    "what lives, twice": lambda conn, one, two: ("inner", (lives(one, two), lives(one, two))),
    "a session on another connection": lambda conn, one, two: (
        "outer", (Stands(((conn + 1, (one.session,)),), conn + 1, two.session),),
    ),
    "numbers of connections from before": lambda conn, one, two: ("outer", (Stands((), conn - 1, two.session),)),
    "numbers of sessions from before": lambda conn, one, two: ("outer", (Stands((), conn, one.session),)),
    "a session before it says what stands": lambda conn, one, two: (
        "outer", (records.Open(conn, two.session + 1, "plc", "shell"),),
    ),
    "what stands, twice": lambda conn, one, two: ("outer", (Stands((), conn, two.session),) * 2),
    "a session that is unlocked by another connection": lambda conn, one, two: (
        "outer", (Stands(((conn, (one.session, two.session)),), conn, two.session),
                  records.Began(conn + 1, "10.1.0.9", 1), records.Unlocking(conn + 1, one.session, "000000")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_the_keeper_which_ends_the_crew(stage: Returning, lie: str) -> None:
    conn = stage.sign_in()
    one, two = stage.grants(conn), stage.grants(conn)
    stage.ends()
    stage.comes()
    wire, said = LIES[lie](conn, one, two)
    getattr(stage, wire).send(*said)
    code, why = stage.child.ended()
    assert code == EXIT_VIOLATION, why
    assert len(stage.auditor.of(RecordViolation)) == 1
    assert not [each for each in stage.inner.got if isinstance(each, records.Grant)]
    stage.child.close()
    stage.all_anew()  # and what had gone on has its end in the log
    eventually(lambda: {each.session for each in stage.auditor.of(AccessEnded)} == {one.name, two.name})


def test_nobody_asked_the_first_keeper_of_a_crew(stage: Returning) -> None:
    stage.outer.send(Stands((), 100, 100))
    assert stage.child.ended()[0] == EXIT_VIOLATION
    assert "nobody asked for it" in stage.auditor.of(RecordViolation)[0].detail


def test_a_connection_of_before_opens_nothing_more(stage: Returning) -> None:
    """It is not asked whether it had signed in, nor believed: a proof on it, genuine as it may be, ends it."""
    conn = stage.sign_in()
    one = stage.grants(conn)
    stage.ends()
    stage.comes()
    stage.tell(
        Stands(((conn, (one.session,)), (conn + 7, ())), conn + 7, one.session),
        lives(one),
    )
    assert stage.outer.wait_for(records.Drop).conn == conn + 7
    stage.outer.send(records.Open(conn, one.session + 1, "plc", "shell"))
    assert "sign in anew" in stage.outer.wait_for(records.SessionRefused).reason
    stage.outer.send(records.Ask(conn, "list"))
    told: records.Told = stage.outer.wait_for(records.Told)
    assert told.refused and "sign in anew" in told.text
    other = asyncssh.generate_private_key("ssh-ed25519")
    stage.ask("person-add", person="other")
    stage.ask("key-add", person="other", key=other.export_public_key().decode())
    digest = os.urandom(32)
    stage.outer.send(records.Exchange(conn, digest))
    stage.outer.wait_for(records.Signed)
    signature = other.sign(signed_data(digest, "other", "ssh-ed25519", other.public_data), b"ssh-ed25519")
    stage.outer.send(records.Proof(conn, "other", "ssh-ed25519", other.public_data, signature))
    assert stage.outer.wait_for(records.Verdict).state == "no"
    assert stage.outer.wait_for(records.Drop).conn == conn
    assert stage.inner.wait_for(records.Revoke).session == one.session
    eventually(lambda: len(stage.auditor.of(AccessEnded)) == 1)
    assert [each.person for each in stage.auditor.of(AccessEnded)] == ["tech"]
    assert not stage.auditor.of(SignedIn)


def test_what_has_served_does_not_serve_the_next_one(stage: Returning) -> None:
    """A signature, and a code."""
    conn, digest = stage.connect(), os.urandom(32)
    secret = stage.ask("code-new", person="tech")["secret"]
    code, blob = pyotp.TOTP(secret).now(), stage.key.public_data
    signature = stage.key.sign(signed_data(digest, "plc", "ssh-ed25519", blob), b"ssh-ed25519")
    proof = ("plc", "ssh-ed25519", blob, signature)
    stage.outer.send(records.Exchange(conn, digest), records.Proof(conn, *proof))
    assert stage.outer.wait_for(records.Verdict).state == "code"
    stage.outer.send(records.Answers(conn, "plc", (code,)))
    assert stage.outer.wait_for(records.Verdict).state == "in"
    stage.ends()
    stage.comes()
    stage.tell(Stands((), conn, 0), lives())
    stage.connections = conn
    again = stage.connect()
    stage.outer.send(records.Exchange(again, digest), records.Proof(again, *proof))
    assert stage.outer.wait_for(records.Verdict).state == "no"
    fresh, digest = stage.connect(), os.urandom(32)
    signature = stage.key.sign(signed_data(digest, "plc", "ssh-ed25519", blob), b"ssh-ed25519")
    stage.outer.send(records.Exchange(fresh, digest), records.Proof(fresh, "plc", "ssh-ed25519", blob, signature))
    assert stage.outer.wait_for(records.Verdict).state == "code"
    stage.outer.send(records.Answers(fresh, "plc", (code,)))
    assert stage.outer.wait_for(records.Verdict).state == "no"
    eventually(lambda: len(stage.auditor.of(SignInRefused)) == 2)
    assert not stage.auditor.of(SignedIn)


def test_a_terminal_that_locked_meanwhile_is_unlocked_by_its_person(stage: Returning) -> None:
    conn = stage.sign_in()
    one = stage.grants(conn)
    stage.ends()
    stage.comes()
    stage.tell(
        Stands(((conn, (one.session,)),), conn, one.session),
        Lives(((one.session, one.name, True),), (), one.session),
    )
    eventually(lambda: [each.how for each in stage.auditor.of(AccessLocked)] == ["locked"])
    code = pyotp.TOTP(stage.ask("code-new", person="tech")["secret"]).now()
    stage.outer.send(records.Unlocking(conn, one.session, code))
    assert stage.inner.wait_for(records.Unlock).session == one.session


def test_a_password_whose_change_goes_on_is_not_asked_about(stage: Returning) -> None:
    """Until it is known what came of it; then it is what it is."""
    stage.ask("rotate", asset="plc", login="svc")
    asked: records.Rotate = stage.inner.wait_for(records.Rotate)
    stage.ends()
    stage.comes()
    assert "come again" in stage.refuses("rotate", asset="plc", login="svc")
    stage.tell(Stands((), 0, 0), Lives((), ((asked.number, "plc", "svc"), (7, "station", "svc")), 0))
    eventually(lambda: "being changed already" in stage.refuses("rotate", asset="plc", login="svc"))
    stage.inner.send(records.Rotated(asked.number, "changed", ""))
    conn = stage.sign_in()
    assert stage.grants(conn).credential.secret == asked.fresh.secret
