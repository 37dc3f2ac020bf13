"""Gaps that were named, and a keeper that is born anew: they are the same gaps, told once, missing since they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers.diode.test_hostile import Outside, beat, file


def told(outside: Outside) -> list[tuple[str, int, int]]:
    return [(one.what, one.first, one.last) for one in outside.said if type(one).__name__ == "DiodeGap"]


@pytest.mark.parametrize("killed", [True, False])
def test_a_gap_is_told_once_whatever_ends(tmp_path: Path, killed: bool) -> None:
    """Each keeper told all that was missing once more, as missing since it was born."""
    outside = Outside(tmp_path)
    outside.say(*file(3, "b.csv", b"2"), beat(highest=4))
    outside.ticks(2)
    assert told(outside) == [("missing", 1, 2)]
    (gap,) = outside.part.gaps("files:reports")
    outside.ticks(1)
    for _ in range(2):
        if killed:
            outside.part._store.close()
        else:
            outside.part.end()
        now, outside = outside.now + 60 * 10**9, Outside(tmp_path)
        outside.now = now
        outside.ticks(2)
        outside.say(beat(highest=4))
        outside.ticks(2)
        assert told(outside) == [] and outside.part.gaps("files:reports") == [gap]
        assert "numbers 1 to 2" in outside.part.alarms()["gap-files:reports"]
    outside.say(*file(1, "a.csv", b"1"))
    outside.ticks(1)
    assert told(outside) == [("closed", 1, 2)]
    outside.part.end()
    outside = Outside(tmp_path)
    outside.say(beat(highest=6))
    outside.ticks(3)
    assert told(outside) == [("missing", 5, 6)]
    outside.ask("give-up", channel="files:reports")
    outside.part.end()
    outside = Outside(tmp_path)
    outside.ticks(3)
    assert told(outside) == []
    outside.part.halt()
