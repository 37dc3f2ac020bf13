"""The longest of late: by a clock that the test turns."""

from __future__ import annotations

from cofferdam.crossing.longest import KEPT, OF_LATE_NS, Longest

MS = 1_000_000


def test_the_longest_of_ten_seconds_is_told() -> None:
    one = Longest(MS)
    assert one.of_late(0) == 0
    one.note(MS, 0)
    assert one.of_late(0) == 0, "no more than the floor"
    one.note(9 * MS, 1)
    one.note(3 * MS, 2)
    one.note(5 * MS, 3)
    assert one.of_late(3) == 9 * MS
    assert one.of_late(1 + OF_LATE_NS) == 9 * MS
    assert one.of_late(2 + OF_LATE_NS) == 5 * MS, "3 ms were not the longest of any while"
    assert one.of_late(4 + OF_LATE_NS) == 0


def test_what_is_kept_is_bounded_and_the_longest_are() -> None:
    one = Longest(0)
    for number in range(10 * KEPT, 0, -1):
        one.note(number, 1)
    assert len(one._found) == KEPT and one.of_late(1) == 10 * KEPT
    one.note(11 * KEPT, 2)
    assert len(one._found) == 1 and one.of_late(2) == 11 * KEPT
