"""What several tests of the jump server's parts stand on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.jump import quarantine


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Of so many bytes; else with 8 MiB more than recordings leave free."""
    if os.geteuid():
        pytest.skip("a disk of its own takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    size = getattr(request, "param", quarantine.FREE_BYTES + (8 << 20))
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
