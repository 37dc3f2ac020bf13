"""The lines in which requests wait, one by one and against a model that is too simple to be wrong."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy.lines import Lines
from tests.examples import examples

Place = tuple[str, int]
Waiting = tuple[str, int, int]
"""(source, session, number of the job)."""


def filled(*places: Place) -> Lines[int]:
    """Lines with jobs 0, 1, 2, ... pushed in this order."""
    lines: Lines[int] = Lines()
    for number, (source, session) in enumerate(places):
        lines.push(source, session, number)
    return lines


def emptied(lines: Lines[int]) -> list[int]:
    return [lines.pop() for _ in range(lines.count)]


def test_nobody_waits() -> None:
    lines: Lines[int] = Lines()
    assert (lines.count, lines.places(), list(lines.jobs()), lines.drain()) == (0, [], [], [])
    assert lines.make_room("a", 1) is None
    assert lines.drop("a", 1) == []
    assert lines.length("a", 1) == 0
    with pytest.raises(IndexError):
        lines.pop()


def test_addresses_take_turns_and_so_do_the_sessions_of_one() -> None:
    lines = filled(("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 3), ("b", 3), ("b", 3))
    assert emptied(lines) == [0, 4, 2, 5, 1, 6, 3]


def test_a_session_is_served_in_its_own_order() -> None:
    assert emptied(filled(("a", 1), ("a", 1), ("a", 1))) == [0, 1, 2]


def test_who_comes_again_does_not_come_before_those_who_wait() -> None:
    lines = filled(("a", 1), ("b", 2))
    assert lines.pop() == 0
    lines.push("a", 1, 7)
    assert emptied(lines) == [1, 7]


def test_room_is_made_by_who_has_most_and_the_newest_goes() -> None:
    lines = filled(("a", 1), ("a", 2), ("a", 2), ("b", 3))
    assert lines.make_room("c", 9) == 2
    assert lines.count == 3
    assert lines.make_room("c", 9) in (0, 1), "still two against the one that the newcomer would have"
    assert lines.make_room("c", 9) is None, "one each"


@pytest.mark.parametrize(
    ("places", "newcomer"),
    [((("a", 1),), ("b", 2)), ((("a", 1), ("b", 2)), ("b", 3)), ((("a", 1), ("a", 2)), ("a", 1))],
    ids=["one each", "it has one", "the same address, lines alike"],
)
def test_no_room_is_made_among_equals(places: tuple[Place, ...], newcomer: Place) -> None:
    lines = filled(*places)
    assert lines.make_room(*newcomer) is None
    assert lines.count == len(places)


def test_a_session_takes_the_room_of_a_longer_one_of_its_own_address() -> None:
    lines = filled(("a", 1), ("a", 1), ("a", 1), ("a", 2))
    assert lines.make_room("a", 3) == 2


class Model:
    """The same, from a plain list of who waits in order of arrival, and when whose turn was last."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.turn = 0
        self.source_turn: dict[str, int] = {}
        self.session_turn: dict[Place, int] = {}

    def push(self, source: str, session: int, job: int) -> None:
        self.turn += 1
        if not any(other == source for other, _, _ in self.waiting):
            self.source_turn[source] = self.turn
        if not self.of(source, session):
            self.session_turn[source, session] = self.turn
        self.waiting.append((source, session, job))

    def of(self, source: str, session: int) -> list[int]:
        return [job for who, line, job in self.waiting if (who, line) == (source, session)]

    def counts(self) -> Counter[str]:
        return Counter(source for source, _, _ in self.waiting)

    def next(self) -> Waiting:
        """Whose turn it is: of the sources the one that waits longest for a turn, of its sessions likewise."""
        source = min(self.counts(), key=self.source_turn.__getitem__)
        sessions = {session for who, session, _ in self.waiting if who == source}
        session = min(sessions, key=lambda number: self.session_turn[source, number])
        return (source, session, self.of(source, session)[0])

    def pop(self) -> int:
        source, session, job = self.next()
        self.turn += 1
        self.source_turn[source] = self.session_turn[source, session] = self.turn
        self.waiting.remove((source, session, job))
        return job


PLACES = st.tuples(st.sampled_from("abc"), st.integers(1, 3))
STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "push", "push", "pop", "drop", "room", "some", "drain"]), PLACES), max_size=60
)


@examples(300)
@given(STEPS)
def test_against_the_model(steps: list[tuple[str, Place]]) -> None:
    lines: Lines[int] = Lines()
    model = Model()
    for number, (step, (source, session)) in enumerate(steps):
        if step == "push":
            lines.push(source, session, number)
            model.push(source, session, number)
        elif step == "pop" and model.waiting:
            assert lines.pop() == model.pop()
        elif step == "some":  # wherever they stand, as those whose time is over
            gone = [entry for entry in model.waiting if entry[2] % 3 == session % 3]
            numbers = {job for *_, job in gone}
            assert sorted(lines.drop_if(numbers.__contains__)) == sorted(numbers)
            model.waiting = [entry for entry in model.waiting if entry not in gone]
        elif step == "drop":
            assert lines.drop(source, session) == model.of(source, session)
            model.waiting = [entry for entry in model.waiting if entry[:2] != (source, session)]
        elif step == "drain" and not number % 4:
            assert sorted(lines.drain()) == sorted(job for *_, job in model.waiting)
            model.waiting = []
        elif step == "room":
            check_room(lines, model, source, session)
        check(lines, model)
    assert emptied(lines) == [model.pop() for _ in range(len(model.waiting))]


def check_room(lines: Lines[int], model: Model, source: str, session: int) -> None:
    """Who gives way has more than the newcomer would have; the newest of its longest line goes."""
    counts = model.counts()
    most, mine = max(counts.values(), default=0), counts[source]
    own = Counter(line for who, line, _ in model.waiting if who == source)
    job = lines.make_room(source, session)
    if job is None:
        assert most <= mine + 1
        assert max(own.values(), default=0) <= own[session] + 1
        return
    [(giver, line)] = [(who, line) for who, line, number in model.waiting if number == job]
    if giver == source:
        assert most <= mine + 1
        assert own[line] == max(own.values()) > own[session] + 1
    else:
        assert counts[giver] == most > mine + 1
        lengths = Counter(other for who, other, _ in model.waiting if who == giver)
        assert lengths[line] == max(lengths.values())
    assert job == model.of(giver, line)[-1]
    model.waiting.remove((giver, line, job))


def check(lines: Lines[int], model: Model) -> None:
    """What can be asked of the lines is what waits in the model."""
    places = {(source, session) for source, session, _ in model.waiting}
    assert lines.count == len(model.waiting)
    assert sorted(lines.places()) == sorted(places)
    assert sorted(lines.jobs()) == sorted(job for *_, job in model.waiting)
    for place in places:
        assert lines.length(*place) == len(model.of(*place))


@examples(100)
@given(st.lists(PLACES, min_size=1, max_size=40))
def test_nobody_has_two_turns_while_another_has_none(places: list[Place]) -> None:
    """For as long as sources wait, their turns differ by one at most; so do those of the sessions of one."""
    lines = filled(*places)
    left = Counter(source for source, _ in places)
    turns: Counter[str] = Counter()
    while lines.count:
        source = places[lines.pop()][0]
        turns[source] += 1
        left[source] -= 1
        waiting = [turns[name] for name, count in left.items() if count]
        assert max(waiting, default=0) - min(waiting, default=0) <= 1


def test_a_job_given_up_is_not_seen_again() -> None:
    lines = filled(("a", 1), ("a", 1), ("a", 1))
    assert lines.make_room("b", 2) == 2
    lines.push("b", 2, 9)
    assert emptied(lines) == [0, 9, 1]
