"""Releases of files, in the keeper's own process: what an inner part says of a file, and what is believed of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.events.jump import FileDecided
from cofferdam.brokers.jump import file_records, records, releasing
from tests.brokers.jump.test_keeper_process import Stage

SHA = "ab" * 32


class Held(Stage):
    """tech has a session of files at plc, and boss is somebody else at the gate."""

    def __init__(self, store: Path) -> None:
        super().__init__(store)
        self.file = 0
        conn = self.sign_in()
        self.outer.send(self.opens(conn, "plc", "sftp"))
        self.session = self.inner.wait_for(records.Grant).session
        self.ask("person-add", person="boss", account="boss")

    def comes(self, sha256: str = SHA, path: str = "/a", **more: Any) -> file_records.Cleared:
        """A file that is not clean."""
        self.file += 1
        said = {"session": self.session, "way": "down", "size": 7, "verdict": "not scanned", "partly": True} | more
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


def test_who_has_the_name_of_one_who_is_gone_has_nothing_of_theirs(stage: Held) -> None:
    """It comes last: the session goes with its person."""
    number = stage.comes("55" * 32).number
    stage.release(number)
    stage.ask("person-remove", person="tech")
    stage.ask("person-add", person="tech")
    assert stage.states() == {}
