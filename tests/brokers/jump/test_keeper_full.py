"""The keeper on a disk that others fill: who is at work goes on, and what takes something away is done; nothing new is
taken on, and whoever asks for it is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest

from cofferdam.audit.events.jump import SignInRefused
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.reserve import FREE_BYTES, FULL, SPARE, SPARE_BYTES
from cofferdam.brokers.jump.signin import signed_data
from cofferdam.disk import room
from tests.brokers.jump.site import KEY
from tests.brokers.jump.test_keeper_process import Stage
from tests.waiting import eventually

pytestmark = pytest.mark.parametrize("small_disk", [FREE_BYTES + SPARE_BYTES + (16 << 20)], indirect=True)


@pytest.fixture
def stage(small_disk: Path) -> Iterator[Stage]:
    made = Stage(small_disk / "store")
    try:
        yield made
    finally:
        made.close()


def fill(disk: Path, left: int) -> None:
    """Others take all of it but so much."""
    with (disk / "others").open("ab") as others:
        try:
            while (free := room(disk)[0]) > left:
                others.write(bytes(min(1 << 20, free - left)))
                others.flush()
        except OSError as error:
            assert error.errno == errno.ENOSPC


def shows_key(stage: Stage, conn: int, user: str, digest: bytes) -> records.Verdict:
    blob = stage.key.public_data
    signature = stage.key.sign(signed_data(digest, user, "ssh-ed25519", blob), b"ssh-ed25519")
    stage.outer.send(records.Proof(conn, user, "ssh-ed25519", blob, signature))
    said: records.Verdict = stage.outer.wait_for(records.Verdict)
    return said


def begins(stage: Stage) -> tuple[int, bytes]:
    conn, digest = stage.connect(), os.urandom(32)
    stage.outer.send(records.Exchange(conn, digest))
    stage.outer.wait_for(records.Signed)
    return conn, digest


def test_nothing_new_is_taken_on_below_what_is_kept_free(stage: Stage, small_disk: Path) -> None:
    for name in ("ada", "ben"):
        stage.approver(name)
    stage.ask("password-set", person="tech", password="correct horse battery")
    conn = stage.sign_in()
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    grant: records.Grant = stage.inner.wait_for(records.Grant)
    menu = stage.sign_in("tech")
    number = stage.request(menu, "2h")
    halfway, digest = begins(stage)
    assert shows_key(stage, halfway, "plc", digest).state == "code"
    code = pyotp.TOTP(stage.ask("code-new", person="tech")["secret"]).now()
    assert "jump-store" not in stage.child.status().alarms
    fill(small_disk, FREE_BYTES - (2 << 20))

    # Who has a key, or both factors, is told; the code still counts once there is room.
    keyed, digest = begins(stage)
    assert shows_key(stage, keyed, "plc", digest).state == "no"
    assert stage.outer.wait_for(records.Drop) == records.Drop(keyed, FULL)
    stage.outer.send(records.Answers(halfway, "plc", (code,)))
    assert stage.outer.wait_for(records.Drop) == records.Drop(halfway, FULL)
    both, _ = begins(stage)
    stage.outer.send(records.Answers(both, "tech%plc", ("correct horse battery", code)))
    assert stage.outer.wait_for(records.Drop) == records.Drop(both, FULL)
    eventually(lambda: sum(one.count for one in stage.auditor.of(SignInRefused) if one.reason == FULL) == 3)
    # A stranger is told nothing, nor is anybody whether the password alone was right.
    stage.outer.empty()
    stranger, _ = begins(stage)
    for password in ("correct horse battery", "wrong horse battery"):
        stage.outer.send(records.Answers(stranger, "tech%plc", (password, "000000" if code != "000000" else "111111")))
        assert stage.outer.wait_for(records.Verdict).text == "not let in"
    assert not [one for one in stage.outer.got if isinstance(one, records.Drop)]

    for line in ("request station 1h pump trips", f"approve {number}"):
        stage.outer.send(records.Ask(menu, line))
        assert stage.outer.wait_for(records.Told) == records.Told(menu, FULL, True)
    refused: dict[str, dict[str, object]] = {
        "approve": {"number": number, "by": "ada"}, "person-add": {"person": "cy"},
        "group-join": {"person": "tech", "group": "leads"}, "code-new": {"person": "tech"}, "glass-seal": {},
        "credential-set": {"asset": "plc", "login": "svc", "kind": "password", "secret": "another"},
    }  # fmt: skip
    for verb, what in refused.items():
        assert "are kept" in stage.refuses(verb, **what), verb
    assert "not changed" in stage.refuses("rotate", asset="plc", login="svc")
    assert "nobody signs in" in stage.child.status().alarms["jump-store"]
    assert [one["state"] for one in stage.ask("requests")] == ["waiting"]

    # What takes something away is done, and who was at work was until then.
    assert [one["number"] for one in stage.ask("sessions")] == [grant.session]
    assert "is denied" in stage.ask("deny", number=number, by="ada")
    assert "is ended" in stage.ask("kill", number=grant.session)
    assert stage.inner.wait_for(records.Revoke).session == grant.session
    assert [one["name"] for one in stage.ask("blocks")] == ["tech plc"]

    (small_disk / "others").unlink()
    eventually(lambda: "jump-store" not in stage.child.status().alarms)
    stage.ask("unblock", name="tech plc")
    again, digest = begins(stage)
    assert shows_key(stage, again, "plc", digest).state == "code"
    stage.outer.send(records.Answers(again, "plc", (code,)))
    assert stage.outer.wait_for(records.Verdict).state == "in"


def test_what_has_to_be_written_down_is_where_nothing_is_free_at_all(stage: Stage, small_disk: Path) -> None:
    """Of what it cannot leave out, more than its write-ahead log has room for: the spare file makes room, once."""
    stage.ask("person-add", person="ada")
    conn, spare = stage.sign_in(), small_disk / "store" / SPARE
    stage.outer.send(stage.opens(conn, "plc", "shell"))
    grant: records.Grant = stage.inner.wait_for(records.Grant)
    assert spare.stat().st_blocks * 512 >= SPARE_BYTES
    fill(small_disk, 0)
    assert room(small_disk)[0] == 0
    barred = 0
    while spare.exists():
        stage.ask("block", kind="person", name="ada", reason="x" * 400)
        stage.ask("unblock", name="ada")
        barred += 1
        assert barred < 5_000
    fill(small_disk, SPARE_BYTES // 2)  # others take what they find
    stage.inner.send(records.Used("c", "tech", 4711))
    stage.ask("block", kind="asset", name="plc")
    assert [one["name"] for one in stage.ask("blocks")] == ["plc"]
    assert stage.stands
    assert stage.inner.wait_for(records.Revoke).session == grant.session
    (small_disk / "others").unlink()
    eventually(lambda: spare.exists() and spare.stat().st_blocks * 512 >= SPARE_BYTES)


def test_it_begins_on_a_full_disk(small_disk: Path) -> None:
    """Also where its last life ended in the midst of its work: people are known, and what is taken away is."""
    store = small_disk / "store"
    store.mkdir()
    script = f"""import os, pathlib
from cofferdam.brokers.jump.accounts import Accounts
kept = Accounts(pathlib.Path({str(store)!r}), bytes(range(32)))
kept.add_person("tech", "", "")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert (store / "access.db-wal").stat().st_size
    fill(small_disk, 0)
    for name in ("plc", "station"):  # the second life finds no write-ahead log: the first has ended in order
        accounts = Accounts(store, KEY)
        assert accounts.known("tech").active
        assert accounts.reserve.short()
        accounts.block("asset", name, "root", "", 0)
        accounts.close()
    assert [each[1] for each in Accounts(store, KEY).blocks()] == ["plc", "station"]
