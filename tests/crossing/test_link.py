"""The gate's end of control pipes: records both ways, back-pressure, and what a child that talks nonsense gets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cofferdam.brokers.kit.supervision import Configure, Failing, FromPart, Ready, Stop, ToPart
from cofferdam.crossing import link as link_module
from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.link import RECORD_BYTES, Link
from cofferdam.crossing.loops import LoopReactor
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError, LocalProtocolError
from tests.waiting import PATIENT, comes_true

INCOMING: RecordCodec[FromPart] = RecordCodec(FromPart, limit=RECORD_BYTES)
OUTGOING: RecordCodec[ToPart] = RecordCodec(ToPart, limit=RECORD_BYTES)


class Ends:
    """A link, what it was told, and the child's two descriptors."""

    def __init__(self) -> None:
        self.reactor = LoopReactor(asyncio.get_running_loop())
        from_child, self.child_out = make_pipe()
        self.child_in, to_child = make_pipe()
        self.records: list[FromPart] = []
        self.closed: list[CrossingError | None] = []
        self.link: Link[ToPart, FromPart] = Link(
            self.reactor, from_child, to_child, INCOMING, OUTGOING, self.records.append, self.closed.append
        )

    def say(self, *records: FromPart) -> None:
        for packet in pack([INCOMING.encode(record) for record in records]):
            os.write(self.child_out, packet)

    async def heard(self, assembler: Assembler, count: int) -> list[ToPart]:
        """The next records that the child reads."""
        found: list[ToPart] = []
        while len(found) < count:
            try:
                found += [OUTGOING.decode(data) for data in assembler.feed(os.read(self.child_in, PACKET))]
            except BlockingIOError:
                await asyncio.sleep(0.001)
        return found

    def close(self) -> None:
        self.link.close()
        self.reactor.close()
        for fd in (self.child_in, self.child_out):
            os.close(fd)


def run(play: Callable[[Ends], Awaitable[None]]) -> None:
    async def main() -> None:
        ends = Ends()
        try:
            await asyncio.wait_for(play(ends), PATIENT)
        finally:
            ends.close()

    asyncio.run(main())


def configure(size: int) -> Configure:
    return Configure("p", "outer", "modbus", ("a",), "b", "boot", os.urandom(size))


def test_records_go_both_ways_in_order() -> None:
    async def play(ends: Ends) -> None:
        ends.link.send(Stop(1.0))
        ends.link.send(Stop(2.0))
        assert await ends.heard(Assembler(RECORD_BYTES), 2) == [Stop(1.0), Stop(2.0)]
        ends.say(Ready(7, "ab12"), Failing("why"))
        await comes_true(lambda: len(ends.records) == 2)
        assert ends.records == [Ready(7, "ab12"), Failing("why")]

    run(play)


def test_a_policy_larger_than_the_pipe_arrives_whole() -> None:
    async def play(ends: Ends) -> None:
        large = configure(5 << 20)  # the pipe holds 1 MiB at most
        ends.link.send(large)
        ends.link.send(Stop(3.0))
        assert await ends.heard(Assembler(RECORD_BYTES), 2) == [large, Stop(3.0)]
        assert not ends.closed

    run(play)


def test_a_record_beyond_the_limit_is_a_bug_of_ours() -> None:
    async def play(ends: Ends) -> None:
        with pytest.raises(LocalProtocolError, match="at most"):
            ends.link.send(configure(RECORD_BYTES))

    run(play)


@pytest.mark.parametrize(
    "packet",
    [
        b"\x07\x00\x00",
        b"\x00\x00\x05ab",
        b"\x02\x00\x01a",
        pack([b"\xff\xff"])[0],
        pack([RecordCodec[Any](ToPart).encode(Stop(1.0))])[0],
        pack([INCOMING.encode(Ready(1, "ab")) + b"\x00"])[0],
    ],
    ids=["kind", "short", "stray-chunk", "not-msgpack", "other-direction", "spare-byte"],
)
def test_nonsense_ends_the_link_and_is_told_once(packet: bytes) -> None:
    async def play(ends: Ends) -> None:
        ends.say(Failing("before"))
        os.write(ends.child_out, packet)
        os.write(ends.child_out, packet)
        await comes_true(lambda: ends.closed)
        await asyncio.sleep(0.01)
        assert len(ends.closed) == 1 and isinstance(ends.closed[0], CrossingError)
        assert ends.records == [Failing("before")]
        ends.link.send(Stop(1.0))  # to nobody: no error

    run(play)


def test_the_end_of_a_child_is_told_after_its_last_words() -> None:
    async def play(ends: Ends) -> None:
        ends.say(*(Failing(str(n)) for n in range(500)))
        os.close(ends.child_out)
        ends.child_out = os.dup(ends.child_in)  # something to close afterwards
        await comes_true(lambda: ends.closed)
        assert ends.closed == [None]
        assert ends.records == [Failing(str(n)) for n in range(500)]

    run(play)


def test_a_child_that_has_gone_while_we_write_is_read_to_its_end() -> None:
    async def play(ends: Ends) -> None:
        ends.say(Failing("last words"))
        os.close(ends.child_in)
        ends.child_in = os.dup(ends.child_out)
        ends.link.send(configure(100_000))
        await comes_true(lambda: ends.records)
        assert ends.records == [Failing("last words")]

    run(play)


def test_a_child_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "BACKLOG_BYTES", 8 << 20)

    async def play(ends: Ends) -> None:
        for _ in range(20):
            ends.link.send(configure(1 << 20))
        assert len(ends.closed) == 1 and "does not read" in str(ends.closed[0])

    run(play)


def test_who_talks_without_end_is_not_waited_for() -> None:
    """Their last words are read while they live: they say another each time that one is heard."""

    async def play(ends: Ends) -> None:
        honest = ends.records.append

        def heard(record: FromPart) -> None:
            honest(record)
            assert len(ends.records) <= 100_000
            with contextlib.suppress(BlockingIOError):
                ends.say(record, record)

        ends.link._receiver.on_record = heard
        ends.say(Failing("more"))
        ends.link.drain()
        assert ends.records

    run(play)
