"""A checkpoint kept elsewhere finds a log that was put back, and one that was written anew with the same key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cofferdam.audit.files import LogReader
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence.gather import log_key
from cofferdam.evidence.witness import Kept, keep
from tests.evidence.ledger import Ledger


def test_put_back_and_written_anew(tmp_path: Path) -> None:
    state, folder = tmp_path / "state", tmp_path / "elsewhere"
    folder.mkdir()
    ledger = Ledger(state)
    ledger.begin()
    ledger.log.publish()
    reader = LogReader(state / "audit", log_key(state))
    first = keep(reader, folder)
    assert first.before == -1
    assert keep(reader, folder) == Kept(first.size, first.size)
    ledger.close()
    shutil.copytree(state, tmp_path / "backup")
    again = Ledger(state)
    again.found("log.whole", "tested")
    again.close()
    second = keep(reader, folder)
    assert second.before == first.size < second.size
    kept = (folder / "checkpoint").read_bytes()

    # An old backup put in place: whole, good by itself, and shorter than what was kept.
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with pytest.raises(AuditError, match="put back or cut"):
        keep(LogReader(state / "audit", log_key(state)), folder)

    # The same key, other entries, and more of them.
    other = Ledger(state)
    for _ in range(9):
        other.found("leak.silent", "tested")
    other.close()
    with pytest.raises(AuditError, match="written anew"):
        keep(LogReader(state / "audit", log_key(state)), folder)
    assert (folder / "checkpoint").read_bytes() == kept

    # Another log altogether, and a folder that is none.
    Ledger(tmp_path / "stranger").close()
    with pytest.raises(AuditError):
        keep(LogReader(tmp_path / "stranger" / "audit", log_key(tmp_path / "stranger")), folder)
    with pytest.raises(CofferdamError, match="not a folder"):
        keep(reader, tmp_path / "none")
