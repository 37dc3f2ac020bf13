"""A disk that fails, or kills whoever writes to it: `disk.c`, as a library to be loaded before the C library's. So is
`clock.c`, a kernel's clock that somebody keeps, or nobody."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the disk that fails")


def library(folder: Path, name: str = "disk") -> Path:
    """Makes it there; what `LD_PRELOAD` names."""
    made = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", made, source, "-ldl"], check=True)
    return made
