"""Keys are found before their segments have marks, after, and where two of them have met."""

from __future__ import annotations

import random
from array import array

from cofferdam.brokers.relay.index import Index, next_print


def made(segments: list[list[int]]) -> Index:
    index = Index(b"s" * 32, lambda segment, position: segment * 1000 + position)
    for number, prints in enumerate(segments, 1):
        index.load(number, array("Q", sorted(prints)).tobytes())
    return index


def test_what_has_no_marks_yet_is_found_all_the_same() -> None:
    chance = random.Random(1)
    segments = [[chance.getrandbits(64) for _ in range(100)] for _ in range(3)]
    index = made(segments)
    for _ in range(4):  # one more segment is marked each time
        for number, prints in enumerate(segments, 1):
            assert [index.find(print_) for print_ in sorted(prints)] == [number * 1000 + at for at in range(100)]
        assert not any(index.find(chance.getrandbits(64)) for _ in range(1000))
        index.mark()
    index.drop(2)
    assert index.find(segments[1][0]) is None and index.find(segments[2][0]) is not None


def test_newest_keys_that_have_met_others_move_on() -> None:
    index = made([[5, 9]])
    index.load_newest([(5, 71), (7, 72), (7, 73), (11, 74)])
    assert index.find(5) == 1000 and index.find(next_print(5)) == 71
    assert {index.find(7), index.find(8)} == {72, 73} and index.find(11) == 74
    other = made([[5, 9]])
    other.load_newest([(6, 71), (7, 72)])
    assert [other.find(print_) for print_ in (5, 6, 7, 8)] == [1000, 71, 72, None] and len(other) == 4
