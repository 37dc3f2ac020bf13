"""A checkpoint kept elsewhere finds a log that was put back, and one that was written anew with the same key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cofferdam.audit.files import LogReader
from cofferdam.errors import AuditError, CofferdamError, GateError
from cofferdam.evidence.gather import PAPERS, folder, log_key
from cofferdam.evidence.witness import Kept, keep
from tests.evidence.ledger import Ledger


def test_put_back_and_written_anew(tmp_path: Path) -> None:
    state, away = tmp_path / "state", tmp_path / "elsewhere"
    away.mkdir()
    ledger = Ledger(state)
    ledger.begin()
    ledger.log.publish()
    reader = LogReader(state / "audit", log_key(state))
    first = keep(reader, away)
    assert first.before == -1
    assert keep(reader, away) == Kept(first.size, first.size)
    ledger.close()
    shutil.copytree(state, tmp_path / "backup")
    again = Ledger(state)
    again.found("log.whole", "tested")
    again.close()
    second = keep(reader, away)
    assert second.before == first.size < second.size
    kept = (away / "checkpoint").read_bytes()

    # An old backup put in place: whole, good by itself, and shorter than what was kept.
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with pytest.raises(AuditError, match="put back or cut"):
        keep(LogReader(state / "audit", log_key(state)), away)

    # The same key, other entries, and more of them.
    other = Ledger(state)
    for _ in range(9):
        other.found("leak.silent", "tested")
    other.close()
    with pytest.raises(AuditError, match="written anew"):
        keep(LogReader(state / "audit", log_key(state)), away)
    assert (away / "checkpoint").read_bytes() == kept

    # Another log altogether, and a folder that is none.
    Ledger(tmp_path / "stranger").close()
    with pytest.raises(AuditError):
        keep(LogReader(tmp_path / "stranger" / "audit", log_key(tmp_path / "stranger")), away)
    with pytest.raises(CofferdamError, match="not a folder"):
        keep(reader, tmp_path / "none")


def test_root_follows_no_folder_that_somebody_else_made(tmp_path: Path) -> None:
    """The gate's own user may make names in the state directory: what it made is not used."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir()
    (state / "evidence").symlink_to(elsewhere)
    for make in (True, False):
        with pytest.raises(GateError, match="not a folder of this user's alone"):
            folder(state, PAPERS, make=make)
    (state / "evidence").unlink()
    (state / "evidence").mkdir()
    (state / "evidence").chmod(0o777)
    with pytest.raises(GateError):
        folder(state, PAPERS)
    (state / "evidence").chmod(0o700)
    (state / "evidence" / PAPERS).symlink_to(elsewhere)
    with pytest.raises(GateError):
        folder(state, PAPERS, make=True)
    assert not list(elsewhere.iterdir())
