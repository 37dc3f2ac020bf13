"""The audit log of the inside, copied as it grows: the copy holds by itself, and nothing that came is written over."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.files import DirFiles
from cofferdam.audit.keys import load_public
from cofferdam.audit.log import AuditLog
from cofferdam.cli.diode_riding import gather, new_files, report
from cofferdam.cli.main import main
from cofferdam.errors import AuditError
from tests.audit.conftest import Opener, write
from tests.audit.conftest import clock as clock  # fixtures
from tests.audit.conftest import opener as opener


def grow(log: AuditLog, count: int) -> None:
    for number in range(count):
        log.append([write(number)], maker="modbus/it-ot/inner", policy="ab" * 32)
    log.publish()


class Both:
    """A log inside, a folder that stands for the strand, and the copy outside."""

    def __init__(self, state: Path, log: AuditLog) -> None:
        self.state, self.log = state, log
        self.folder, self.copy = state / "folder", state / "outside" / "log"
        self.folder.mkdir()

    def report(self) -> list[str]:
        return report(self.state, self.folder, {"site": "riverside"}, "files:reports")

    def gather(self) -> int:
        return gather(self.folder, self.copy, load_public(self.state / "keys" / "audit.pub"))


@pytest.fixture
def both(opener: Opener, tmp_path: Path) -> Both:
    return Both(tmp_path, opener())


def test_the_copy_outside_is_verified_by_the_usual_verb(both: Both, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for count in (3, 300, 1, 600):  # unfinished tiles, full ones, and both
        grow(both.log, count)
        put = both.report()
        assert len(put) == 2 and json.loads((both.folder / put[0]).read_text())["status"] == {"site": "riverside"}
        sizes.append((both.folder / put[1]).stat().st_size)
    assert sizes[2] < sizes[1] < sizes[3]  # what had been told is not told again, but for the edge
    assert len(both.report()) == 1  # the status alone: the log has not grown
    assert both.gather() == 4 and both.gather() == 0
    key = str(both.state / "keys" / "audit.pub")
    assert main(["audit", "verify", "--log", str(both.copy), "--key", key]) == 0
    assert "good: all 905 entries" in capsys.readouterr().out
    both.log.close()


def test_a_report_that_is_missing_is_named_and_may_come_late(both: Both) -> None:
    for _ in range(3):
        grow(both.log, 200)
        both.report()
    reports = sorted(both.folder.glob("audit-*.tar"))
    kept = reports[1].rename(both.state / "late.tar")
    with pytest.raises(AuditError, match=r"told of up to entry 201, and .* begins at 401"):
        both.gather()
    key = str(both.state / "keys" / "audit.pub")
    assert main(["audit", "verify", "--log", str(both.copy), "--key", key]) == 0  # what came is a log all the same
    shutil.copy(kept, reports[1].with_suffix(".2.tar"))  # as the keeper calls a file whose name is taken
    assert both.gather() == 2
    both.log.close()


def test_a_log_that_was_written_anew_shows_itself(both: Both, opener: Opener) -> None:
    grow(both.log, 200)
    both.log.close()
    shutil.copytree(both.state / "audit", both.state / "earlier")
    log = opener()
    grow(log, 100)
    both.report()
    both.gather()
    before = {path: (both.copy / path).read_bytes() for path in DirFiles(both.copy).paths()}
    log.close()
    shutil.rmtree(both.state / "audit")
    (both.state / "earlier").rename(both.state / "audit")
    log = opener()  # by the same key: somebody who owns the inside
    for number in range(110):
        log.append([write(number + 7)], maker="modbus/it-ot/inner", policy="ab" * 32)
    log.publish()
    (both.state / "diode-reported.json").unlink()
    both.report()
    with pytest.raises(AuditError, match="is not what came before"):
        both.gather()
    assert all((both.copy / path).read_bytes() == data for path, data in before.items())
    log.close()


def test_tiles_that_do_not_fit_their_checkpoint_are_found_each_time(both: Both) -> None:
    grow(both.log, 3)
    both.report()
    (path,) = both.folder.glob("audit-*.tar")
    path.write_bytes(path.read_bytes().replace(b"operators", b"attackers"))
    for _ in range(2):
        with pytest.raises(AuditError, match="does not hold"):
            both.gather()
    both.log.close()


@pytest.mark.parametrize("name", ["../checkpoint", "/etc/passwd", "tile/0/../../x", "tile/0/1", "journal/000", "x"])
def test_what_is_no_part_of_a_log_is_refused(both: Both, name: str) -> None:
    grow(both.log, 3)
    both.report()
    (good,) = both.folder.glob("audit-*.tar")
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    good.write_bytes(held.getvalue())
    with pytest.raises(AuditError, match="holds what is no part of a log"):
        both.gather()
    assert not [path for path in both.copy.rglob("*") if path.is_file()]
    good.write_bytes(b"no archive" * 100)
    with pytest.raises(AuditError, match="is no report"):
        both.gather()
    both.log.close()


@given(st.lists(st.integers(0, 70_000), min_size=2, max_size=4))
def test_what_is_told_piece_by_piece_is_all_that_a_log_of_that_size_has(sizes: list[int]) -> None:
    steps = sorted(sizes)
    told: set[str] = set()
    old = 0
    for new in steps:
        told |= set(new_files(old, new))
        old = new
    assert set(new_files(0, steps[-1])) <= told
