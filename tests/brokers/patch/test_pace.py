"""How fast a source is fetched from, and what a window that shuts in mid transfer does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from cofferdam.brokers.patch import records
from cofferdam.brokers.patch.fetcher import Looking
from cofferdam.brokers.patch.records import Doing, Go
from cofferdam.policy.terms.patch_source_rows import Host, Source

SOURCE = Source(name="s", kind="https", hosts=(Host(name="a", address="192.0.2.1", port=443),), rate=100_000)


def looking(said: list[Doing], shut: dict[str, str]) -> tuple[Looking, asyncio.Queue[bool]]:
    """A source's task; what it says crosses as it would in a gate. And when it closes its connections."""
    codec, closed = records.fetcher_to_keeper(), asyncio.Queue[bool]()
    fetcher: Any = SimpleNamespace(
        loop=asyncio.get_running_loop(), shut=lambda _: shut["why"],
        send=lambda record: said.append(codec.decode(codec.encode(record))),  # type: ignore[arg-type]
    )  # fmt: skip
    found = Looking(fetcher, SOURCE)
    found.client.close = lambda: closed.put_nowait(True)  # type: ignore[method-assign]
    return found, closed


def test_bytes_come_at_the_rate_and_no_faster() -> None:
    async def run() -> float:
        task, _ = looking([], {"why": ""})
        since = asyncio.get_running_loop().time()
        for _ in range(4):
            await task._pace(10_000)
        return asyncio.get_running_loop().time() - since

    assert asyncio.run(run()) >= 0.39


def test_a_window_that_shuts_in_mid_transfer_holds_it_until_it_opens() -> None:
    async def run() -> None:
        said: list[Doing] = []
        shut = {"why": "its window is shut"}
        task, closed = looking(said, shut)
        waits = asyncio.get_running_loop().create_task(task._pace(1))
        await closed.get()  # nothing more is taken; the transfer goes on by Range
        assert (said[0].state, said[0].file) == ("waiting", "its window is shut")
        task.hear(Go("s"))
        await closed.get()
        assert not waits.done()
        shut["why"] = ""
        task.hear(Go("s"))
        await waits

    asyncio.run(run())
