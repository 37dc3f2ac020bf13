"""A log of which the oldest entries have gone: what is still shown of it, packed and exported, and what is said."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.events.evidence import ExportStood
from cofferdam.audit.upkeep import Retention
from cofferdam.evidence.checks.tables import run_checks
from cofferdam.evidence.export.sending import Cursor, Sending, Stood
from cofferdam.evidence.export.ways import FILE, way
from cofferdam.evidence.gather import log_key
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.pack import make
from cofferdam.evidence.workbench import Bench
from cofferdam.policy.rows import Collector
from tests.audit.test_upkeep import DAY, SEAL, Kept
from tests.evidence.test_pack import tool


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Five files' worth, of which the first two or more have gone."""
    one = Kept(tmp_path_factory.mktemp("kept"))
    one.fill(SEAL)
    for size in (SEAL // 2 + 3, SEAL // 2):
        one.log.append([ExportStood(collector="witness:safe", next=size, working=True)], maker="gate")
    one.fill(4 * SEAL)
    one.work()
    one.upkeep.retention = Retention(keep_ns=(5 * SEAL - 2 * SEAL) // 256 * DAY)
    for _ in range(3):
        one.work()
    for size in (SEAL // 2 + 3, SEAL):
        one.log.append([ExportStood(collector="witness:safe", next=size, working=True)], maker="gate")
    one.log.publish()
    assert one.reader().first() > 0
    yield one
    one.log.close()


def test_retention_is_what_is_kept(kept: Kept) -> None:
    history = Bench.read(kept.home, None).history
    assert history.first == kept.reader().first()
    [found], _ = run_checks(Inputs(history.last_ns, history=history), ["log.retention"])
    days = (history.last_ns - history.first_ns) // DAY
    assert found.outcome == ("observed" if days >= 90 else "failed")
    assert f"entries below {history.first:,} have gone" in found.facts[0]
    assert "root" in found.facts[0]


def test_a_pack_of_what_is_left(kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with heads of witnesses that nothing can be compared with any more."""
    made = make(kept.home, lambda bench: bench.catalogue.frameworks["nis2"])
    path = tmp_path / "pack.zip"
    path.write_bytes(made.data)
    assert tool.main([str(path), "--key", str(kept.home / "keys/audit.pub")]) == 0
    assert "good" in capsys.readouterr().out
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        heads = [name for name in archive.namelist() if name.startswith("consistency/")]
        entries = [json.loads(archive.read(name)) for name in archive.namelist() if name.startswith("entries/")]
    assert heads == [f"consistency/{SEAL}.json"]
    assert min(one["index"] for one in entries) >= kept.reader().first()


def test_a_collector_that_was_away_for_longer_than_the_log_is_kept(kept: Kept, tmp_path: Path) -> None:
    said: list[Stood] = []
    reader, key = kept.reader(), log_key(kept.home)
    made = way(Collector("disk", "folder", "", 0, ""), folder=tmp_path)
    one = Sending(made, reader, Cursor(tmp_path, "disk", key.text), said.append)
    while one.turn() == 0.0:
        pass
    lines: list[Any] = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(reader.first(), kept.log.size))
    assert f"entries 0 to {reader.first() - 1:,} have gone" in said[0].detail
    assert not said[0].working
    assert said[-1].working
