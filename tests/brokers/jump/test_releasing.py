"""Releases of files, in the keeper's own process: what an inner part says of a file, and what is believed of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.jump import FileDecided
from cofferdam.brokers.jump import file_records, records, releasing
from cofferdam.brokers.kit.supervision import Command, CommandDone
from tests.brokers.jump.test_keeper_process import Stage
from tests.waiting import eventually

SHA = "ab" * 32


class Held(Stage):
    """tech has a session of files at plc, and boss is somebody else at the gate."""

    def __init__(self, store: Path) -> None:
        super().__init__(store)
        self.file = 0
        self.session = self.of_files()
        self.ask("person-add", person="boss", account="boss")

    def of_files(self) -> int:
        """Their next session."""
        conn = self.sign_in()
        self.outer.send(self.opens(conn, "plc", "sftp"))
        granted: records.Grant = self.inner.wait_for(records.Grant)
        return granted.session

    def comes(self, sha256: str = SHA, path: str = "/a", **more: Any) -> file_records.Cleared:
        """A file that is not clean."""
        self.file += 1
        said: dict[str, Any] = {
            "session": self.session,
            "way": "down",
            "size": 7,
            "verdict": "not scanned",
            "partly": True,
        } | more
        self.inner.send(
            file_records.Unclean(file=self.file, path=path, sha256=sha256, detail="a trailer", kept="k", **said)
        )
        told: file_records.Cleared = self.inner.wait_for(file_records.Cleared)
        assert told.file == self.file
        return told

    def release(self, number: int, by: str = "boss", seconds: int = 3_600) -> None:
        self.ask("file-release", number=number, by=by, reason="good", seconds=seconds)

    def states(self) -> dict[int, str]:
        return {one["number"]: one["state"] for one in self.ask("files")}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    made = Held(tmp_path_factory.mktemp("keeper") / "store")
    yield made
    assert made.stands
    made.close()


def test_a_release_is_for_what_was_brought_and_ends_when_something_is_found(stage: Held) -> None:
    number = stage.comes().number
    assert (stage.comes(), stage.states()[number]) == (file_records.Cleared(2, "", number), "waits")
    stage.release(number)
    assert stage.comes() == file_records.Cleared(stage.file, "boss", number)
    for other in ({"sha256": "cd" * 32}, {"path": "/b"}, {"way": "up"}):
        assert stage.comes(**other).by == "", other
    # The scanner did not work, or there is no such session: it is not asked about, whoever released it.
    assert stage.comes(partly=False) == file_records.Cleared(stage.file, "", 0)
    assert stage.comes(session=stage.session + 1) == file_records.Cleared(stage.file, "", 0)
    # What an inner part calls found is found, wherever those bytes were brought, from then on.
    assert stage.comes(path="/elsewhere", verdict="found") == file_records.Cleared(stage.file, "", 0)
    assert stage.states()[number] == "found"
    assert stage.comes() == file_records.Cleared(stage.file, "", 0)
    said = stage.refuses("file-release", number=number, by="boss", reason="good", seconds=3_600)
    assert "never released" in said
    assert [one.decision for one in stage.auditor.drafts if isinstance(one, FileDecided)] == ["released"]


def test_who_released_it_must_still_be_one_who_may(stage: Held) -> None:
    stage.ask("person-add", person="gone", account="gone")
    number = stage.comes("11" * 32).number
    stage.release(number, "gone")
    assert stage.comes("11" * 32).by == "gone"
    stage.ask("person-remove", person="gone")
    assert stage.comes("11" * 32) == file_records.Cleared(stage.file, "", number)
    assert stage.states()[number] == "waits"


def test_who_is_nobody_at_the_gate_releases_nothing(stage: Held) -> None:
    number = stage.comes("22" * 32).number
    for by, why in (("stranger", "nobody whom the keeper knows"), ("root", "nobody whom the keeper knows")):
        assert why in stage.refuses("file-release", number=number, by=by, reason="good", seconds=60)
    for seconds in (59, releasing.SECONDS_MOST + 1):
        assert stage.refuses("file-release", number=number, by="boss", reason="good", seconds=seconds)
    assert stage.refuses("file-release", number=number, by="boss", reason="", seconds=60)
    assert "there is no file" in stage.refuses("file-release", number=999, by="boss", reason="good", seconds=60)
    assert stage.states()[number] == "waits"
    stage.ask("file-reject", number=number, by="root", reason="no")
    assert stage.comes("22" * 32) == file_records.Cleared(stage.file, "", 0)
    stage.release(number)  # whoever rejected it may have been wrong
    assert stage.comes("22" * 32).by == "boss"
    assert "released already" in stage.refuses("file-release", number=number, by="boss", reason="x", seconds=60)


def test_nothing_is_released_that_cannot_be_recorded(stage: Held) -> None:
    number = stage.comes("33" * 32).number
    stage.auditor.mode = "refuse"
    try:
        said = stage.refuses("file-release", number=number, by="boss", reason="good", seconds=60)
    finally:
        stage.auditor.mode = "ok"
    assert "cannot be recorded" in said
    assert stage.states()[number] == "waits"


def test_one_persons_files_have_a_bound_and_what_is_released_stays(stage: Held) -> None:
    number = stage.comes("44" * 32).number
    stage.release(number)
    for index in range(releasing.HELD_OF_PERSON + 5):
        stage.comes(f"{index:064x}")
    found = stage.states()
    assert len(found) == releasing.HELD_OF_PERSON and found[number] == "released"
    assert stage.comes("44" * 32).by == "boss"


def test_who_brings_many_does_not_get_rid_of_what_was_found(stage: Held) -> None:
    found, rejected = stage.comes("66" * 32).number, stage.comes("77" * 32).number
    stage.comes("66" * 32, path="/elsewhere", verdict="found")
    stage.ask("file-reject", number=rejected, by="root", reason="no")
    for index in range(releasing.HELD_OF_PERSON + 5):
        stage.comes(f"{index:064x}", path="/many")
    assert (stage.states()[found], stage.states()[rejected]) == ("found", "rejected")
    for sha256 in ("66" * 32, "77" * 32):
        assert stage.comes(sha256) == file_records.Cleared(stage.file, "", 0)


def test_what_was_rejected_meanwhile_is_not_released(stage: Held) -> None:
    """Both were asked for while it waited; the second goes by what it has seen."""
    number = stage.comes("88" * 32).number
    before = len(stage.auditor.of(FileDecided))
    stage.auditor.mode = "silent"
    asked: list[tuple[str, dict[str, Any]]]
    asked = [("file-reject", {"by": "root", "reason": "no"}),
             ("file-release", {"by": "boss", "reason": "good", "seconds": 60})]  # fmt: skip
    first = stage.count + 1
    for verb, words in asked:
        stage.count += 1
        stage.child.send(Command(stage.count, verb, msgspec.json.encode({"number": number, **words})))
        stage.child.status()  # it has been heard
    eventually(lambda: len(stage.auditor.of(FileDecided)) > before)
    stage.auditor.speaks_again()
    done = {(one := stage.child.wait_for(CommandDone)).number: one for _ in asked}
    assert done[first].error == "" and "just now" in done[first + 1].error
    assert stage.states()[number] == "rejected"


def test_who_has_the_name_of_one_who_is_gone_has_not_released_what_they_have(stage: Held) -> None:
    stage.ask("person-add", person="ex", account="ex")
    number = stage.comes("99" * 32).number
    stage.release(number, "ex")
    stage.ask("person-remove", person="ex")
    stage.ask("person-add", person="ex", account="ex2")
    assert stage.comes("99" * 32) == file_records.Cleared(stage.file, "", number)


def test_who_has_the_name_of_one_who_is_gone_has_nothing_of_theirs(stage: Held) -> None:
    """It comes last: the session goes with its person."""
    number = stage.comes("55" * 32).number
    stage.release(number)
    stage.ask("person-remove", person="tech")
    stage.ask("person-add", person="tech")
    assert stage.states() == {}
    # Nor has a later file the number of one of theirs, by which somebody may be about to release it.
    stage.ask("key-add", person="tech", key=stage.key.export_public_key().decode())
    stage.session = stage.of_files()
    assert stage.comes("55" * 32).number > number
