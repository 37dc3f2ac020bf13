"""What is missing, against a model that keeps every number."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.diode.ledger import EPOCHS_MOST, JUMP_MOST, RANGES_MOST, Channel, Gap, Order, Ranges, apart
from cofferdam.brokers.diode.records import SPANS_MOST
from cofferdam.errors import CrossingError

numbers = st.integers(1, 60)


@given(st.lists(st.tuples(numbers, st.integers(0, 8)), max_size=40), numbers, st.integers(0, 60))
def test_ranges_are_a_set(adds: list[tuple[int, int]], low: int, span: int) -> None:
    ranges, model = Ranges(), set[int]()
    for first, more in adds:
        ranges.add(first, first + more)
        model |= set(range(first, first + more + 1))
    assert {one for first, last in ranges for one in range(first, last + 1)} == model
    pairs = list(ranges)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(pairs))
    assert all((one in ranges) == (one in model) for one in range(1, 80))
    missing = {one for first, last in ranges.missing(low, low + span) for one in range(first, last + 1)}
    assert missing == set(range(low, low + span + 1)) - model
    assert ranges.highest == max(model, default=0)


@given(st.lists(st.one_of(
    st.tuples(st.just("take"), st.integers(1, 3), numbers),
    st.tuples(st.just("told"), st.integers(1, 3), st.integers(1, 30)),
    st.tuples(st.just("give"), st.integers(1, 3), numbers),
), max_size=60))  # fmt: skip
def test_the_ledger_names_what_is_missing(steps: list[tuple[str, int, int]]) -> None:
    channel = Channel("files:x")
    have: dict[int, set[int]] = {}
    highest: dict[int, int] = {}
    for wall, (what, epoch, number) in enumerate(steps, 1):
        known = have.setdefault(epoch, set())
        if what == "take":
            assert channel.take(epoch, number, 3) == (number not in known)
            known.add(number)
            highest[epoch] = max(highest.get(epoch, 0), number)
        elif what == "told":
            top = max(highest.get(epoch, 0), number + 10)
            lost = channel.told(epoch, number, top, 3)
            highest[epoch] = top
            assert {one for gap in lost for one in range(gap.first, gap.last + 1)} == set(range(1, number)) - known
            known |= set(range(1, number))
        else:
            upto = min(number, highest.get(epoch, 0))
            channel.give_up(epoch, 1, number)
            known |= set(range(1, upto + 1))
        gaps = channel.look(wall)
        missing = {(gap.epoch, one) for gap in gaps for one in range(gap.first, gap.last + 1)}
        assert missing == {(e, one) for e, top in highest.items() for one in range(1, top + 1) if one not in have[e]}
        assert all(0 < gap.since <= wall for gap in gaps)


def test_what_has_not_left_is_not_missing_yet() -> None:
    """Blocks that are woven are there in any order, and at a low rate minutes apart."""
    channel = Channel("records:x")
    channel.take(1, 9, 1)
    assert channel.look(100, 1) == [] and channel.look(100, 2) == [Gap(1, 1, 8, 100)]  # an epoch that is over
    channel.told(1, 1, 5, 1)
    assert channel.look(200, 1) == [Gap(1, 1, 5, 100)]
    channel.told(1, 1, 9, 1)
    assert channel.look(300, 1) == [Gap(1, 1, 8, 100)]


def test_epochs_that_the_sender_tells_of_are_not_forgotten() -> None:
    """With a gap that nobody closed in the oldest, each start forgot one that was whole: the next heartbeat brought it
    back as missing, and pushed out the one after it."""
    channel = Channel("records:x")
    for epoch in range(1, EPOCHS_MOST + 10):
        for number in (1, 3) if epoch == 1 else (1, 2, 3):
            channel.take(epoch, number, epoch)
        for told in range(epoch, max(0, epoch - SPANS_MOST), -1):
            channel.told(told, 1, 3, epoch)
    assert channel.look(9, EPOCHS_MOST + 9) == [Gap(1, 2, 2, 9)] and len(channel.epochs) == EPOCHS_MOST


@given(st.lists(st.lists(st.integers(1, 40)), min_size=2, max_size=2), st.integers(1, 2))
def test_gaps_that_have_nothing_in_common(numbers: list[list[int]], epoch: int) -> None:
    sides: list[list[Gap]] = []
    for side in numbers:
        one, two = Ranges(), Ranges()
        for number in side:
            (one if number % 3 else two).add(number, number)
        sides.append([Gap(1, *span) for span in one] + [Gap(epoch + 1, *span) for span in two])

    def common(one: Gap, other: Gap) -> bool:
        return one.epoch == other.epoch and one.first <= other.last and other.first <= one.last

    some, others = sides
    assert apart(some, others) == [one for one in some if not any(common(one, other) for other in others)]


def test_many_gaps_are_looked_through_once() -> None:
    """Each was compared with each, twice a second: with 3,000 of them, which 1,000 small records a second have after
    twenty minutes of a line that loses 5 %, the keeper was ended for its silence, and so was the one after it."""
    looks = 0

    class Counted(list[Gap]):
        def __getitem__(self, at: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(at)

    gaps = Counted(Gap(1, number, number) for number in range(1, 6_000, 2))
    assert apart(gaps, gaps) == [] and looks <= 2 * len(gaps)


def test_ranges_of_all_epochs_together_are_bounded() -> None:
    channel = Channel("records:x")
    for epoch in (1, 2):
        for number in range(1, 30_000, 2):
            channel.take(epoch, number, 2)
    assert sum(len(one.have) for one in channel.epochs.values()) <= RANGES_MOST
    assert channel.epochs[2].lost == sum(1 for number in range(2, 29_999, 2) if number in channel.epochs[2].have) > 0


def test_since_when_a_gap_stands_survives_what_is_closed_of_it() -> None:
    channel = Channel("files:x")
    channel.take(1, 10, 1)
    assert channel.look(100) == [Gap(1, 1, 9, 100)]
    channel.take(1, 5, 1)
    channel.take(1, 14, 1)
    assert channel.look(200) == [Gap(1, 1, 4, 100), Gap(1, 6, 9, 100), Gap(1, 11, 13, 200)]


@pytest.mark.parametrize("epoch,number", [(2, 1), (0, 1), (1, 0), (1, 2 * JUMP_MOST), (1, 2**40)])
def test_numbers_that_no_honest_sender_gives(epoch: int, number: int) -> None:
    with pytest.raises(CrossingError):
        Channel("files:x").take(epoch, number, 1)


@pytest.mark.parametrize("oldest,highest", [(0, 5), (8, 5), (1, 2**40)])
def test_heartbeats_that_contradict_themselves(oldest: int, highest: int) -> None:
    with pytest.raises(CrossingError):
        Channel("files:x").told(1, oldest, highest, 1)


def ready(queue: Order, channel: Channel, now: int) -> list[tuple[int, int]]:
    """What goes on now: (epoch, number)."""
    found = []
    for epoch, number, _, _ in queue.peek(channel, now):
        queue.done(epoch, number)
        found.append((epoch, number))
    return found


def numbered(queue: Order, channel: Channel, now: int) -> list[int]:
    return [number for _, number in ready(queue, channel, now)]


@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8), max_size=3))
def test_records_wait_for_those_before_them(order: list[int], lost: set[int]) -> None:
    channel, queue = Channel("records:x"), Order(wait_ns=1_000, most=1 << 20)
    out: list[int] = []
    for now, number in enumerate(order):
        if number in lost:
            continue
        channel.take(1, number, 1)
        queue.put(1, number, 10, b"", now)
        out += numbered(queue, channel, now)
        assert out == list(range(1, len(out) + 1))
    channel.told(1, 1, 8, 1)
    out += numbered(queue, channel, 5_000)
    assert out == [number for number in range(1, 9) if number not in lost]
    assert queue.held == 0
    for number in sorted(lost):  # they come after all: late, and once
        channel.take(1, number, 1)
        queue.put(1, number, 10, b"", 6_000)
        assert numbered(queue, channel, 6_000) == [number]


def test_given_up_is_no_longer_waited_for() -> None:
    channel, queue = Channel("records:x"), Order(wait_ns=10**12, most=1 << 20)
    for number in (2, 3):
        channel.take(1, number, 1)
        queue.put(1, number, 1, b"", 0)
    assert ready(queue, channel, 1) == []
    channel.give_up(1, 1, 1)
    assert numbered(queue, channel, 2) == [2, 3]


def test_a_new_epoch_begins_when_the_old_one_is_closed() -> None:
    channel, queue = Channel("records:x"), Order(wait_ns=10**12, most=1 << 20)
    channel.take(1, 1, 2)
    queue.put(1, 1, 1, b"", 0)
    assert ready(queue, channel, 0) == [(1, 1)]
    channel.told(1, 1, 2, 2)  # number 2 of the old epoch is missing
    channel.take(2, 1, 2)
    queue.put(2, 1, 1, b"", 0)
    assert ready(queue, channel, 1) == []
    channel.take(1, 2, 2)
    queue.put(1, 2, 1, b"", 1)
    assert ready(queue, channel, 1) == [(1, 2), (2, 1)]
