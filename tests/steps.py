"""How much work something is, in steps: the same on any machine, however busy it is, which no time is."""

from __future__ import annotations

import sys
from collections.abc import Callable


def steps(work: Callable[[], object]) -> int:
    """Calls of functions, those of Python and those in C, which `work` makes in this thread. What a single call in C
    goes through is not seen: where that could be without end, the session's time-out ends the test."""
    count = 0

    def seen(_frame: object, event: str, _about: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
