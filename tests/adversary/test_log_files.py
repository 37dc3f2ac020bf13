"""What somebody does to the files of a log shows, and holds nobody up who looks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cofferdam.audit.files import DirFiles
from cofferdam.audit.verify import verify_log
from cofferdam.errors import AuditError
from tests.audit.conftest import Opener as Opener
from tests.audit.conftest import clock as clock
from tests.audit.conftest import opener as opener
from tests.audit.conftest import write
from tests.audit.test_upkeep import TOOL


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "checkpoint.new")
    (folder / "checkpoint").unlink()
    os.mkfifo(folder / "checkpoint")


def foreign(folder: Path) -> None:
    (folder / "hidden.new").write_text("x")


def linked(folder: Path) -> None:
    (folder / "tile").rename(folder.parent / "elsewhere")
    (folder / "tile").symlink_to(folder.parent / "elsewhere")


def headed(folder: Path) -> None:
    """The root in the head of the empty segment that a closed log has."""
    [segment] = [path for path in (folder / "journal").iterdir() if path.name.isdigit()]
    lines = segment.read_bytes().split(b"\n", 4)
    root = bytearray(lines[3])
    root[0] = ord("B") if root[0] == ord("A") else ord("A")
    segment.write_bytes(b"\n".join([*lines[:3], bytes(root), *lines[4:]]))


@pytest.mark.parametrize("damage", [fifo, foreign, linked, headed])
def test_it_shows(opener: Opener, damage: Callable[[Path], None]) -> None:
    """L1, L2, L3."""
    log = opener()
    for number in range(300):
        log.append([write(number)], maker="m")
    log.close()
    key = log.key.verifier
    alone = [str(log.folder), "--key", str(log.folder.parent / "keys/audit.pub")]
    assert TOOL.main(alone) == 0
    assert not verify_log(DirFiles(log.folder), key).findings
    damage(log.folder)
    assert TOOL.main(alone) == 1
    try:
        findings = verify_log(DirFiles(log.folder), key).findings
    except AuditError as error:
        assert "no plain file" in str(error)
    else:
        assert findings
