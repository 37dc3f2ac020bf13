"""What readers write that is not meant well: it neither holds up others nor shows more than they may read."""

from __future__ import annotations

import fnmatch
import itertools
import signal
from types import FrameType

from cofferdam.policy.terms.mirror_rows import Matcher
from tests.waiting import PATIENT


def test_a_pattern_of_many_stars_is_looked_at_once() -> None:
    """A search that tries all places would not end in years, and nothing else runs in the process meanwhile."""

    def late(_: int, __: FrameType | None) -> None:
        raise AssertionError("a pattern is tried at all places")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(PATIENT))
    try:
        for pattern in ("*" * 64 + "z", "*e" * 60 + "z", "*e*a" * 30 + "*z"):
            assert not Matcher([pattern])("line_1.heater_a.temperature" * 7)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_star_is_anything() -> None:
    for pattern in map("".join, itertools.product("ab*", repeat=5)):
        match = Matcher([pattern])
        for name in ("", "a", "ab", "aab", "abab", "bbaab", "a\nb", "abbabab"):
            assert match(name) == fnmatch.fnmatchcase(name, pattern), (pattern, name)
