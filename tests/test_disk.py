"""How full a disk is said to be."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cofferdam import disk


def test_blocks_kept_for_root_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As df: 100 blocks, 80 of them not used, 60 of those kept for root."""
    found = SimpleNamespace(f_blocks=100, f_bfree=80, f_bavail=20, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert disk.room(tmp_path) == (20 * 4096, 40 * 4096)


def test_the_disk_of_a_folder(tmp_path: Path) -> None:
    free, size = disk.room(tmp_path)
    assert 0 < free <= size
    with pytest.raises(FileNotFoundError):
        disk.room(tmp_path / "nowhere")
