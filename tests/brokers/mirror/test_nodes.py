"""A server of OPC UA as a source, by others (asyncua): what changes, what was missed, what has no place, silence."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.brokers.mirror.columns import Sample, check
from cofferdam.brokers.mirror.nodes import EPOCH_TICKS, NO_PLACE, QUEUE, Watcher
from cofferdam.brokers.mirror.points import SILENCE
from cofferdam.brokers.mirror.records import FLOAT, Fetch, Samples, from_source
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.terms.mirror_rows import Device
from cofferdam.protocols.opcua import messages as m
from cofferdam.values import Float64, Text, UInt64
from tests.ports import held_port
from tests.protocols.opcua.certificates import make
from tests.protocols.opcua.pair import trust
from tests.protocols.opcua.site import plant, policy
from tests.waiting import PATIENT

POINTS = ("level", "recipe", "counts", "speed")


class Hands:
    """Takes what is handed on: (tag, time, value or None, quality)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float | None, int]] = []

    async def take(self, record: Samples) -> None:
        check(record)
        for index, kind in enumerate(record.kind):
            (tag,) = struct.unpack_from("<I", record.tag, 4 * index)
            (at,), (quality,) = (struct.unpack_from("<q", some, 8 * index) for some in (record.time, record.quality))
            (value,) = struct.unpack_from("<d", record.value, 8 * index)
            self.rows.append((record.names[tag], at, value if kind == FLOAT else None, quality))

    def levels(self) -> list[float]:
        found = {at: value for tag, at, value, quality in self.rows if tag == "filler.level" and quality == 0}
        return [value for _, value in sorted(found.items()) if value is not None]


def whole(levels: list[float]) -> bool:
    """None is missing, but where nobody asked for longer than the server remembers: then all comes that it does."""
    holes = [at for at in range(1, len(levels)) if levels[at] != levels[at - 1] + 1]
    return levels == sorted(levels) and all(end - at >= QUEUE for at, end in itertools.pairwise([*holes, len(levels)]))


async def until(watcher: Watcher, hands: Hands, count: int) -> None:
    """Until so many levels are there."""
    deadline = time.monotonic() + PATIENT
    while len(hands.levels()) < count:
        assert time.monotonic() < deadline
        await watcher.once()
        await asyncio.sleep(0.05)


def test_what_changes_what_was_missed_and_what_has_no_place(tmp_path: Path) -> None:
    port = held_port()
    found = compile_policy(loads(policy(port, held_port())), now_ns=time.time_ns())
    source = Device(name="line", asset="filler", points=POINTS, every=100, history=True)
    hands = Hands()

    async def work() -> None:
        watcher = Watcher(source, found.assets["filler"], hands.take, time.time_ns, None, 600 * 10**9, trust())
        assert await watcher.once()  # there is no server yet
        assert {(tag, quality) for tag, _, _, quality in hands.rows} == {(f"filler.{one}", SILENCE) for one in POINTS}
        hands.rows.clear()
        with plant(port):
            await asyncio.sleep(1)
            await until(watcher, hands, 20)
            assert {(tag, quality) for tag, _, _, quality in hands.rows} == {
                ("filler.level", 0), ("filler.recipe", 0), ("filler.speed", 0), ("filler.counts", NO_PLACE),
            }  # fmt: skip
            assert watcher._session is not None
            watcher._session.end("the line is cut")  # the server goes on, and remembers
            await asyncio.sleep(1.1)
            before = len(hands.levels())
            await until(watcher, hands, before + 20)
            levels = hands.levels()
            assert whole(levels), levels
            assert {tag for tag, *_, quality in hands.rows if quality == SILENCE} == {f"filler.{one}" for one in POINTS}
            count = len(hands.rows)
            await watcher.fetch(Fetch("line", time.time_ns() - 10**9, time.time_ns()))
            assert len(hands.rows) > count and whole(hands.levels())
        hands.rows.clear()
        silent: set[str] = set()
        trouble = ""
        deadline = time.monotonic() + PATIENT
        while len(silent) < len(POINTS):
            assert time.monotonic() < deadline
            trouble = await watcher.once()
            silent |= {tag for tag, *_, quality in hands.rows if quality == SILENCE}
            await asyncio.sleep(0.05)
        assert trouble
        watcher.close()

    asyncio.run(work())


def test_times_and_texts_that_no_server_should_have(tmp_path: Path) -> None:
    """What is far ahead of the clock is told of and hides nothing later; texts fill no batch beyond its bound."""
    found = compile_policy(loads(policy(4840, 4841)), now_ns=time.time_ns())
    source = Device(name="line", asset="filler", points=POINTS, every=100, history=True)
    hands: list[Samples] = []

    async def take(record: Samples) -> None:
        from_source().encode(record)  # raises, where it is too large to cross
        check(record)
        hands.append(record)

    now = 1_800_000_000 * 10**9
    watcher = Watcher(source, found.assets["filler"], take, lambda: now, None, 600 * 10**9, trust())

    def sample(value: Any, at: int, status: int = 0) -> Sample:
        return watcher._sample("filler.recipe", m.Sample(value, status, at // 100 + EPOCH_TICKS if at else 0))

    assert sample(Float64((1.5,)), 0).time == now  # no time of its own
    assert sample(m.Times((1,)), now).quality == NO_PLACE
    assert sample(UInt64((1 << 63,)), now).quality == NO_PLACE
    assert (sample(UInt64(((1 << 63) - 1,)), now).value, sample(None, now, 0x80310000).quality) == (
        (1 << 63) - 1, 0x80310000,
    )  # fmt: skip
    far = [sample(Float64((1.0,)), now + seconds * 10**9) for seconds in (599, 601, 10**9)]
    texts = [sample(Text(("x" * 60_000,)), now - n) for n in range(500)]
    asyncio.run(watcher._give([*far, *texts]))
    assert watcher.ahead == (2, "filler.recipe")
    assert sum(record.count for record in hands) == 501 and len(hands) > 25
    assert watcher._last["filler.recipe"] == now


def test_a_server_that_is_spoken_with_under_keys(tmp_path: Path) -> None:
    """Nothing is read of a server whose certificate nobody trusts; of one that is trusted, all is, sealed."""
    port = held_port()
    theirs, ours = make(tmp_path / "plant", "urn:plant:server"), make(tmp_path / "ours", "urn:cofferdam:mirror")
    security = "{clients: none, asset: Aes256_Sha256_RsaPss, server: 'urn:plant:server'}"
    found = compile_policy(loads(policy(port, held_port(), security=security)), now_ns=time.time_ns())
    source = Device(name="line", asset="filler", points=("level", "recipe"), every=100, history=True)

    async def work() -> None:
        with plant(port, "secure", theirs):
            for common in (trust(), trust(ours)):
                hands = Hands()
                watcher = Watcher(source, found.assets["filler"], hands.take, time.time_ns, None, 600 * 10**9, common)
                words = await watcher.once()
                assert ("cofferdam pki new" if common.own is None else "is not trusted") in words
                assert {quality for *_, quality in hands.rows} == {SILENCE}
                watcher.close()
            assert "cofferdam pki trust" in str(common.alarms(time.time_ns()))
            hands, common = Hands(), trust(ours, theirs)
            watcher = Watcher(source, found.assets["filler"], hands.take, time.time_ns, None, 600 * 10**9, common)
            await until(watcher, hands, 10)
            assert {quality for *_, quality in hands.rows} == {0}
            machine = watcher._session.machine if watcher._session is not None else None
            assert machine is not None and machine.channel.policy.name == "Aes256_Sha256_RsaPss"
            common.take(msgspec.structs.replace(common.secret, trusted=()))  # it is trusted no longer
            deadline = time.monotonic() + PATIENT
            while "is not trusted" not in (trouble := await watcher.once()):
                assert time.monotonic() < deadline, trouble
                await asyncio.sleep(0.05)
            watcher.close()

    asyncio.run(work())
