"""A disk that is full, for tests of what keeps something on it."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whoever opens a new state or catalogue finds the disk full, as long as it is on."""
    real = os.open
    on: list[bool] = []

    def full(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if on and str(path).endswith(".new"):
            raise OSError(errno.ENOSPC, "no room")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", full)
    return on
