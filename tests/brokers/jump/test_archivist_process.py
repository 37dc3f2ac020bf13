"""The archivist's own process, under its filter, with an inner part that was written for the purpose."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.jump import RecordingMarked, RecordingUsed
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.archivist_part import READ_A_TURN
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.inner_ssh import FilesLeg
from cofferdam.brokers.kit.supervision import Command, CommandDone, Configure, Failing, Ready
from cofferdam.crossing.pipe import make_pipe
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import to_bytes
from cofferdam.policy.terms.base import Scope
from cofferdam.policy.terms.kinds import KINDS
from tests.brokers.harness import WATCHED, Auditor, PartChild
from tests.brokers.jump.test_keeper_process import POLICY, Wire
from tests.disk import library, needs_gcc
from tests.waiting import PATIENT, eventually


class Archive:
    """An archivist that runs, and the inner part's pipes in the test's hand."""

    def __init__(self, store: Path) -> None:
        self.folder = store / "recordings"
        self.folder.mkdir(mode=0o700, parents=True)
        self.auditor = Auditor()
        to, back = make_pipe(), make_pipe()
        self.child = PartChild("jump", "archivist", self.auditor, {"inner": to[0]}, {"inner": back[1]}, WATCHED)
        self.inner = Wire(to[1], back[0], records.to_archivist(), records.from_archivist())
        self.store = store
        self.keep = "{keep: 1 h, room: 1 MB}"

    def start(self) -> None:
        text = POLICY.replace("PATHS", "/a").replace("{terminal: RECORD}", self.keep)
        text = text.replace("approval: {", f"record: {self.keep}, approval: {{")
        policy = compile_policy(loads(text), now_ns=time.time_ns())
        scope = Scope(frozenset(policy.conduits), frozenset(policy.assets))
        sliced = to_bytes(KINDS["jump"].slice(policy, scope, "archivist"))
        self.auditor.start()
        self.child.start([])
        self.child.send(
            Configure(
                crew="jump", part="archivist", broker="jump", source_zones=("office",), target_zone="plant", boot="t",
                policy=sliced, assets=("plc",), store=str(self.store),
            )
        )  # fmt: skip
        self.child.wait_for(Ready)

    def close(self) -> None:
        self.inner.close()
        self.child.close()
        self.auditor.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "store")
    try:
        yield made
    finally:
        made.close()


def record(session: int) -> records.Record:
    return records.Record(session, f"t-{session}", "tech", "plc", "svc", "10.1.0.9", "", 80, 24, "xterm")


def test_what_is_kept(archive: Archive) -> None:
    """62443-3-3 SR 2.9: by age and by room; what is held stays; nothing goes that is not in the log as gone."""
    now = int(time.time())
    names = {"old": f"{now - 9000}-a.cast", "held": f"{now - 9500}-b.cast", "large": f"{now - 60}-c.cast",
             "new": f"{now - 10}-d.cast"}  # fmt: skip
    for what, name in names.items():
        (archive.folder / name).write_bytes(b"{}\n" + b"x" * (1_500_000 if what == "large" else 10))
    (archive.folder / f"{names['held']}.hold").write_text("a claim")
    archive.start()
    archive.inner.send(record(1))
    live = archive.inner  # a session that goes on is not removed either
    eventually(lambda: not (archive.folder / names["large"]).exists())
    assert not (archive.folder / names["old"]).exists()
    assert (archive.folder / names["held"]).exists()
    assert (archive.folder / names["new"]).exists()
    removed = [(each.recording, each.how) for each in archive.auditor.of(RecordingUsed)]
    assert removed == [(names["old"], "removed"), (names["large"], "removed")]
    live.send(records.Happened(1, 1, "o", b"hello"))
    assert live.wait_for(records.Stored).number == 1
    assert any(b"hello" in path.read_bytes() for path in archive.folder.glob("*-t-1.cast"))


def test_a_folder_stays_and_ends_nobody_s_session(archive: Archive) -> None:
    """Nothing is said of it in the log; what is one goes."""
    now = int(time.time())
    folder, old = archive.folder / f"{now - 9500}-a.cast", archive.folder / f"{now - 9000}-b.cast"
    folder.mkdir()
    old.write_bytes(b"{}\n")
    left = archive.store / "quarantine" / "new-t-1"
    left.mkdir(parents=True)
    archive.start()
    eventually(lambda: not old.exists())
    said = archive.child.status().alarms["jump-stays"]
    assert "new-t-1" in said and "(and 1 more)" in said
    assert folder.is_dir() and left.is_dir()
    assert [(each.recording, each.how) for each in archive.auditor.of(RecordingUsed)] == [(old.name, "removed")]
    archive.inner.send(record(1), records.Happened(1, 1, "o", b"hello"))
    assert archive.inner.wait_for(records.Stored).number == 1
    assert [each["name"].rpartition("-")[2] for each in listed(archive)] == ["1.cast"]


@pytest.mark.parametrize(("what", "why"), [("folder", "Is a directory"), ("held", "somebody holds it now")])
def test_what_cannot_be_removed_after_all_is_taken_back(archive: Archive, what: str, why: str) -> None:
    """It was one that goes when its entry was written."""
    old = archive.folder / f"{int(time.time()) - 9000}-a.cast"
    old.write_bytes(b"{}\n")
    archive.auditor.mode = "silent"
    archive.start()
    eventually(lambda: bool(archive.auditor.of(RecordingUsed)))
    if what == "folder":
        old.unlink()
        old.mkdir()
    else:
        (archive.folder / f"{old.name}.hold").write_text("a claim")
    archive.auditor.speaks_again()
    eventually(lambda: len(archive.auditor.of(RecordingUsed)) == 2)
    entries = [(each.recording, each.how, each.reason) for each in archive.auditor.of(RecordingUsed)]
    assert entries[0][:2] == (old.name, "removed")
    assert entries[1] == (old.name, "not-removed", why)
    assert old.exists()
    archive.inner.send(record(1), records.Happened(1, 1, "o", b"hello"))
    assert archive.inner.wait_for(records.Stored).number == 1
    assert ("jump-stays" in archive.child.status().alarms) is (what == "folder")
    assert len(archive.auditor.of(RecordingUsed)) == 2


def listed(archive: Archive) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ask(archive, "recordings", {"by": "root"}).result)
    return found


def lies(archive: Archive, seconds: int, person: str, size: int, command: str = "") -> Path:
    """A recording of an earlier life lies there, of so many seconds ago."""
    at = int(time.time()) - seconds
    path = archive.folder / f"{at}-t.1-{seconds}.cast"
    head = {"title": f"{person} (10.1.0.9) at plc as svc", "command": command}
    path.write_bytes(json.dumps(head).encode() + b"\n" + b"x" * size)
    return path


def test_nobody_drives_out_what_was_recorded_by_having_much_shown(archive: Archive) -> None:
    """Not what others did, and not what they did themselves this week: they are recorded no more, and others are."""
    theirs = [lies(archive, 1000, "ada", 300_000), lies(archive, 900, "ben", 100_000)]
    own = lies(archive, 800, "tech", 450_000)
    archive.start()
    archive.inner.send(record(1), msgspec.structs.replace(record(2), person="ada"))
    for number in range(1, 31):  # 1.15 MB of 1 MB by now, and 750 kB are of tech
        archive.inner.send(records.Happened(1, number, "o", b"y" * 10_000))
    troubles: list[records.Stored] = []
    while not troubles:
        said: records.Stored = archive.inner.wait_for(records.Stored)
        troubles += [said] if said.trouble else []
    assert (troubles[0].session, "more than half of the room" in troubles[0].trouble) == (1, True)
    assert "tech's" in archive.child.status().alarms["jump-recording"]
    archive.inner.send(record(3))
    while (said := archive.inner.wait_for(records.Stored)).session != 3:
        pass
    assert "more than half of the room" in said.trouble
    archive.inner.send(records.Happened(2, 1, "o", b"others go on"))
    while (said := archive.inner.wait_for(records.Stored)).session != 2:
        pass
    assert said.trouble == ""
    assert all(path.exists() for path in (*theirs, own))
    assert not archive.auditor.of(RecordingUsed)


def test_who_will_soon_be_recorded_no_more_is_told_of(archive: Archive) -> None:
    lies(archive, 3000, "ada", 520_000, "\U0001f600" * 4096)  # the longest head that a command makes
    lies(archive, 800, "tech", 380_000)
    archive.start()
    eventually(lambda: "ada's recordings of a week" in archive.child.status().alarms.get("jump-room", ""))
    assert "jump-recording" not in archive.child.status().alarms


def test_holds_of_much_of_the_room_let_nobody_drive_out_what_they_did(archive: Archive) -> None:
    """What is held is not there to be shared: with 700 kB of it, half of 1 MB is 150 kB."""
    held = lies(archive, 2000, "ada", 700_000)
    held.with_name(held.name + ".hold").write_text("a claim")
    own, others = lies(archive, 800, "tech", 300_000), lies(archive, 100, "ben", 20_000)
    archive.start()
    eventually(lambda: "tech's recordings of a week" in archive.child.status().alarms.get("jump-room", ""))
    archive.inner.send(record(1))
    said: records.Stored = archive.inner.wait_for(records.Stored)
    assert (said.session, "more than half of the room" in said.trouble) == (1, True)
    archive.inner.send(msgspec.structs.replace(record(2), person="ben"), records.Happened(2, 1, "o", b"x"))
    assert archive.inner.wait_for(records.Stored) == records.Stored(2, 1)
    assert all(path.exists() for path in (held, own, others))
    assert not archive.auditor.of(RecordingUsed)


def test_what_the_log_did_not_know_yet_is_somebody_s_as_well(archive: Archive) -> None:
    """One that was begun when all died is theirs whose session it was, once the log knows of it."""
    others, own = lies(archive, 1000, "ada", 300_000), lies(archive, 800, "tech", 650_000)
    begun = own.rename(own.with_name(own.name + ".new"))
    archive.start()
    eventually(lambda: not begun.exists())
    archive.inner.send(msgspec.structs.replace(record(1), person="ben"))
    for number in range(1, 11):
        archive.inner.send(records.Happened(1, number, "o", b"y" * 10_000))
    eventually(lambda: "tech's recordings of a week" in archive.child.status().alarms.get("jump-room", ""))
    assert others.exists() and own.exists()
    assert not archive.auditor.of(RecordingUsed)


def ask(archive: Archive, verb: str, arguments: dict[str, Any]) -> CommandDone:
    archive.child.send(Command(1, verb, msgspec.json.encode(arguments)))
    done: CommandDone = archive.child.wait_for(CommandDone)
    return done


def test_a_recording_that_went_or_cannot_be_read_ends_nobody_s_session(archive: Archive) -> None:
    """Old ones go while it is still read whose they are. A process's memory at 0, which gives EIO, stands for one that
    the disk does not give back; a link to nothing for one that went between two looks."""
    for number in range(10 * READ_A_TURN):  # the first to go is rarely among those of the first turn
        lies(archive, 10_000 + number, "ada", 10)
    now = int(time.time())
    unreadable, gone, torn = (archive.folder / f"{now - 100}-t.1-{number}.cast" for number in (1, 2, 3))
    unreadable.symlink_to("/proc/self/mem")
    gone.symlink_to("nowhere")
    torn.write_bytes(b'{"title":"\xff')
    archive.start()
    archive.inner.send(record(1))
    # One goes a turn at most: by then all are read.
    eventually(lambda: len(archive.auditor.of(RecordingUsed)) > 12)
    listed = {one["name"]: one["title"] for one in msgspec.json.decode(ask(archive, "recordings", {}).result)}
    assert (listed[unreadable.name], listed[torn.name], gone.name in listed) == ("?", "?", False)
    assert "cannot be read" in ask(archive, "recording-read", {"name": unreadable.name, "by": "ada"}).error
    archive.inner.send(records.Happened(1, 1, "o", b"x"))
    assert archive.inner.wait_for(records.Stored) == records.Stored(1, 1)


def test_who_has_most_makes_room_by_what_is_old(archive: Archive) -> None:
    """Of others nothing goes, though it is older; and what somebody holds does not count."""
    archive.keep = "{keep: 30 days, room: 1 MB}"
    day = 86_400
    others, held = lies(archive, 20 * day, "ada", 300_000), lies(archive, 19 * day, "tech", 10_000)
    held.with_name(held.name + ".hold").write_text("a claim")
    old, older, fresh = (lies(archive, days * day, "tech", 300_000) for days in (9, 10, 2))
    archive.start()
    eventually(lambda: not older.exists())
    assert "jump-room" not in archive.child.status().alarms
    assert all(path.exists() for path in (others, held, old, fresh))
    assert [each.recording for each in archive.auditor.of(RecordingUsed)] == [older.name]


HOSTILE: dict[str, Callable[[], tuple[Any, ...]]] = {
    "a second recording of a session": lambda: (record(1), record(1)),
    "a piece left out": lambda: (record(1), records.Happened(1, 2, "o", b"x")),
    "a file that is not held": lambda: (records.Judge(7),),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_what_no_honest_inner_part_says_ends_the_crew(archive: Archive, what: str) -> None:
    archive.start()
    archive.inner.send(*HOSTILE[what]())
    failing: Failing = archive.child.wait_for(Failing)
    assert "inner broke the crossing's rules" in failing.reason
    assert archive.child.process is not None
    assert archive.child.process.wait(PATIENT) == 4
    # What was recorded up to then stays, and the log can vouch for its beginning.
    eventually(lambda: len(archive.auditor.of(RecordingMarked)) == len(list(archive.folder.glob("*.cast*"))))


# --- the disk --------------------------------------------------------------------------------------------------------

DISK = {
    "full": ("enospc", "write", "No space left on device"),
    "read-only": ("erofs", "write", "Read-only file system"),
    "broken": ("eio", "fdatasync", "Input/output error"),
    "slow": ("slow", "write", r"the disk took \d+ s over one write"),
    "removed": ("", "", "No such file or directory"),
    "replaced": ("", "", "another file stands in its place"),
}


@needs_gcc
@pytest.mark.parametrize("what", list(DISK))
def test_a_disk_that_fails(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """62443-3-3 SR 2.10: sessions that live end, new ones are refused, and there is one alarm."""
    act, call, why = DISK[what]
    if act:
        for name, value in (("LD_PRELOAD", str(library(tmp_path))), ("DISK_FILE", "/recordings/"), ("DISK_DO", act),
                            ("DISK_ONLY", call), ("DISK_AT", "5" if call == "write" else "1")):  # fmt: skip
            monkeypatch.setenv(name, value)
    archive.start()
    inner = archive.inner
    for session in (1, 2):
        inner.send(record(session), records.Happened(session, 1, "o", b"hello"))
        if what != "broken":  # there the session may be over by then
            assert inner.wait_for(records.Stored) == records.Stored(session, 1)
    if what == "removed":
        shutil.rmtree(archive.folder)
    elif what == "replaced":
        for path in archive.folder.glob("*.cast"):
            path.unlink()
            path.write_bytes(b"{}\n")
    else:
        inner.send(records.Happened(1, 2, "o", b"x"))
    if what == "slow":
        assert inner.wait_for(records.Stored) == records.Stored(1, 2)  # the inner part has ended it
    else:
        ended: dict[int, str] = {}
        while len(ended) < (1 if call == "write" else 2):
            found: records.Stored = inner.wait_for(records.Stored)
            ended |= {found.session: found.trouble} if found.trouble else {}
        assert set(ended.values()) == {why}
        if what != "replaced":
            inner.send(record(3), records.Happened(3, 1, "o", b"x"))
            while not (found := inner.wait_for(records.Stored)).trouble or found.session != 3:
                pass
    (alarm,) = archive.child.status().alarms.items()
    assert alarm[0] == "jump-recording" and re.fullmatch(f"recordings cannot be written: {why}", alarm[1]), alarm


def test_a_disk_that_others_fill(small_disk: Path) -> None:
    """A session in which nothing happens meanwhile writes nothing: it ends all the same."""
    archive = Archive(small_disk / "store")
    try:
        archive.start()
        archive.inner.send(record(1), records.Happened(1, 1, "o", b"hello"))
        assert archive.inner.wait_for(records.Stored) == records.Stored(1, 1)
        (small_disk / "others").write_bytes(bytes(9 << 20))
        assert archive.inner.wait_for(records.Stored) == records.Stored(1, 0, "the disk is full")
        assert archive.child.status().alarms == {"jump-recording": "recordings cannot be written: the disk is full"}
    finally:
        archive.close()


def test_nothing_is_stored_before_the_log_knows_that_there_is_a_recording(archive: Archive) -> None:
    archive.start()
    archive.auditor.unwritable("disk full")
    archive.child.status()
    archive.inner.send(record(1), records.Happened(1, 1, "o", b"hello"))
    found: records.Stored = archive.inner.wait_for(records.Stored)
    assert (found.session, "the log does not take it" in found.trouble) == (1, True)


class Paths:
    """What a session needs of its part, in the test's hand."""

    def __init__(self) -> None:
        self.clock = 10**12
        self.shown: list[Any] = []
        self.over = ""

    def to_outer(self, record: Any) -> None:
        self.shown.append(record)

    def to_archivist(self, record: Any) -> None: ...

    def idle(self, live: Live) -> None: ...

    def ended(self, live: Live, reason: str) -> None:
        self.over = reason

    def now(self) -> int:
        return self.clock


@pytest.mark.parametrize(("seconds", "over"), [(5.0, False), (5.1, True)])
def test_what_is_not_recorded_in_five_seconds_is_not_shown(seconds: float, over: bool) -> None:
    paths = Paths()
    grant = records.Grant(
        session=1, name="t-1", person="tech", source="10.1.0.9", conduit="c", asset="plc", login="svc",
        credential=records.Credential("none", b""), host_key=b"", what="shell", seconds=100, record=True,
    )  # fmt: skip
    live = Live(grant, paths)
    live.start(FilesLeg(lambda: None))
    live.leg_says(b"a secret of the plant")
    paths.clock += int(seconds * 1e9)
    live.look(10**15)
    assert bool(paths.over) is over
    live.stored(1, "")
    assert any(isinstance(one, records.Shown) for one in paths.shown) is not over


def test_a_recording_that_the_log_does_not_know_yet(archive: Archive) -> None:
    """One that was begun when all died: the next life tells the log of it before anybody can take it for one that was
    slipped in."""
    begun = archive.folder / "1900000000-t-9.cast.new"
    begun.write_text('{"version": 2, "width": 80, "height": 24, "env": {"TERM": ""}}\n[0.1, "o", "a"]\n[0.2, "o')
    archive.start()
    eventually(lambda: not begun.exists())
    assert (archive.folder / "1900000000-t-9.cast").stat().st_size == 87
    (mark,) = archive.auditor.of(RecordingMarked)
    assert (mark.recording, mark.session, mark.size, mark.ended) == ("1900000000-t-9.cast", "t-9", 87, True)
    archive.inner.send(record(1), records.Happened(1, 1, "o", b"x"))
    assert archive.inner.wait_for(records.Stored).number == 1
    assert sorted(path.suffix for path in archive.folder.iterdir()) == [".cast", ".cast"]


def test_recordings_of_one_second_go_by_their_sessions(archive: Archive) -> None:
    """The newest first, also where a session's number has one digit more than that of the one before."""
    names = [f"1900000000-b.1-{number}.cast" for number in (9, 10, 99, 100)]
    for name in (*names, "1900000001-c.2-1.cast", "1899999999-a.1-500.cast"):
        (archive.folder / name).write_bytes(b"{}\n")
    archive.start()
    found = [one["name"] for one in msgspec.json.decode(ask(archive, "recordings", {}).result)]
    assert found == ["1900000001-c.2-1.cast", *reversed(names), "1899999999-a.1-500.cast"]
