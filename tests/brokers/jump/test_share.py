"""What one person may move in a day and in a second."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.inner_held import No
from cofferdam.brokers.jump.inner_share import DAY_NS, Share
from cofferdam.policy.terms.jump_rows import Files
from tests.brokers.jump.site import KEY

RULES = Files(day=1_000, rate=50_000)


def test_a_day_has_an_end_and_a_clock_that_is_set_back_makes_no_new_one() -> None:
    share = Share(RULES, 700, 5 * DAY_NS)
    share.take(600, 5 * DAY_NS)
    with pytest.raises(No, match="more than 1000 bytes in one day"):
        share.take(101, 6 * DAY_NS - 1)
    share.give(50)
    share.take(150, 6 * DAY_NS - 1)
    assert (share.untold(), share.untold()) == (700, 0)
    with pytest.raises(No):
        share.take(1, 4 * DAY_NS)
    share.take(1_000, 6 * DAY_NS)
    with pytest.raises(No):
        share.take(1, 5 * DAY_NS)
    Share(Files(), 0, 0).take(10**15, 0)  # without a limit


def test_each_byte_has_its_time() -> None:
    share = Share(RULES, 1_000, 0)
    began = time.monotonic_ns()
    done: list[tuple[int, int]] = []

    async def moves(number: int) -> None:
        await share.pace(500, time.monotonic_ns, lambda: False)
        done.append((number, time.monotonic_ns() - began))

    async def all_of_them() -> None:
        await asyncio.gather(*(moves(number) for number in range(1, 5)))
        await share.pace(10**9, time.monotonic_ns, lambda: True)  # who has gone waits for nothing

    asyncio.run(all_of_them())
    assert [number for number, _ in done] == [1, 2, 3, 4]
    assert all(took >= number * 10_000_000 for number, took in done)


def test_the_keeper_keeps_the_days_sum(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, KEY)
    assert accounts.used("tech", "c", 7) == 0
    accounts.use("tech", "c", 7, 500)
    accounts.use("tech", "c", 7, 200)
    accounts.use("tech", "d", 7, 1)
    accounts.close()
    accounts = Accounts(tmp_path, KEY)
    assert [accounts.used("tech", "c", day) for day in (6, 7, 8)] == [700, 700, 0]
    accounts.use("tech", "c", 6, 10)  # a clock that was set back
    assert accounts.used("tech", "c", 7) == 710
    accounts.use("tech", "c", 8, 3)
    assert accounts.used("tech", "c", 8) == 3
    accounts.close()
