"""A side of the relay and bodies that are read in one go for longer than others should wait."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import SimpleNamespace
from typing import Any

import pytest

from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.http_api import LARGE_BYTES, Api
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.policy.terms.relay_rows import Relay


def test_large_bodies_are_read_one_at_a_time_and_half_of_the_time_is_others() -> None:
    spans: list[tuple[float, float]] = []
    turns: list[str] = []

    def read() -> int:
        began = time.monotonic()
        time.sleep(0.05)
        spans.append((began, time.monotonic()))
        turns.append("large")
        return len(spans)

    async def go() -> None:
        api = Api(Keeper(None, asyncio.get_running_loop(), None), lambda *_: None)  # type: ignore[arg-type]
        request: Any = SimpleNamespace(rows=api.relay)
        async with asyncio.TaskGroup() as group:
            large = [group.create_task(api._in_its_time(request, LARGE_BYTES + 1, read)) for _ in range(3)]
            while not all(each.done() for each in large):
                assert await api._in_its_time(request, LARGE_BYTES, lambda: 7) == 7
                turns.append("another")
                await asyncio.sleep(0.01)
        assert [each.result() for each in large] == [1, 2, 3]
        api.relay = Relay(())  # the policy has changed meanwhile
        with pytest.raises(Refusal, match="policy has just changed"):
            await api._in_its_time(request, LARGE_BYTES + 1, read)

    asyncio.run(go())
    large = [at for at, turn in enumerate(turns) if turn == "large"]
    assert len(large) == 3
    assert all(after - before > 1 for before, after in itertools.pairwise(large)), "others have their turn in between"
    for before, after in itertools.pairwise(spans):
        assert after[0] - before[1] >= before[1] - before[0]
