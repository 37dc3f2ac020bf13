"""Questions by UDP: how many are taken, by a clock that the test turns."""

from __future__ import annotations

from cofferdam.brokers.proxy import alone
from cofferdam.brokers.proxy.alone import Askers

SECOND = 1_000_000_000


def test_an_address_has_ten_a_second() -> None:
    one = Askers()
    assert [one.take("10.0.0.1", 0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert one.take("10.0.0.2", 0), "which is its own affair"
    assert one.take("10.0.0.1", SECOND // 10)
    assert not one.take("10.0.0.1", SECOND // 10)


def test_few_wait_at_once_of_one_address_and_of_all() -> None:
    one = Askers()
    ends = [one.begin("10.0.0.1") for _ in range(alone.AT_ONCE)]
    assert not one.take("10.0.0.1", 0) and one.take("10.0.0.2", 0)
    ends[0]()
    ends[0]()  # a second time it says nothing
    assert one.take("10.0.0.1", 0)
    for number in range(alone.OF_ALL - alone.AT_ONCE + 1):
        one.begin(f"10.0.1.{number}")
    assert not one.take("10.0.0.9", 0), "whoever asks in many names"
    ends[1]()
    assert one.take("10.0.0.9", 0)


def test_addresses_that_are_remembered_are_bounded_and_come_back_when_they_are_quiet() -> None:
    one = Askers()
    for number in range(alone.ADDRESSES):
        assert one.take(f"{number}", 0)
    assert not one.take("another", 0)
    assert one.take("another", 2 * SECOND)
