"""An operator's question to a part, as the gate holds it: one answer, in time, and JSON; and a crew's way of starting
anew. The part at the other end of the pipe is the test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from cofferdam.brokers.kit.supervision import Command, CommandDone, Failing, FromPart, ToPart
from cofferdam.brokers.registry import BROKERS
from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.loops import LoopReactor
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.orders import Child
from cofferdam.errors import GateError
from cofferdam.gate.crew import part as part_module
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.part import Part
from cofferdam.gate.crew.supervisor import FREE_RESTARTS, LONGEST_PAUSE_SECONDS, Restarts, how
from tests.waiting import PATIENT, comes_true

FROM: RecordCodec[FromPart] = RecordCodec(FromPart, limit=2 << 20)
TO: RecordCodec[ToPart] = RecordCodec(ToPart)


class Other:
    """The part's end, and what the gate made of it."""

    def __init__(self) -> None:
        self.reactor = LoopReactor(asyncio.get_running_loop())
        from_part, self.to_gate = make_pipe()
        self.from_gate, to_part = make_pipe()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.violations: list[str] = []
        born = Born(Child(1, "keeper", 1), from_part, to_part, self.ended)
        self.part = Part(
            self.reactor, "relay/it-ot/keeper", born, lambda _part, why: self.violations.append(why), BROKERS["relay"]
        )

    def say(self, record: FromPart) -> None:
        for packet in pack([FROM.encode(record)]):
            os.write(self.to_gate, packet)

    async def hear(self) -> Command:
        assembler = Assembler(1 << 20)
        while True:
            try:
                for data in assembler.feed(os.read(self.from_gate, PACKET)):
                    found = TO.decode(data)
                    assert isinstance(found, Command)
                    return found
            except BlockingIOError:
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.part.forget()
        self.reactor.close()
        for fd in (self.to_gate, self.from_gate):
            os.close(fd)


def play(work: Callable[[Other], Awaitable[None]]) -> None:
    async def main() -> None:
        other = Other()
        try:
            await asyncio.wait_for(work(other), PATIENT)
        finally:
            other.close()

    asyncio.run(main())


def test_questions_get_their_own_answers_in_whatever_order_they_come() -> None:
    async def work(other: Other) -> None:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(other.part.ask("list", b'{"n": 1}', PATIENT))
            one = await other.hear()
            second = tasks.create_task(other.part.ask("show", b"{}", PATIENT))
            two = await other.hear()
            assert (one.verb, one.arguments, two.verb) == ("list", b'{"n": 1}', "show") and one.number != two.number
            other.say(CommandDone(two.number, b'[1, "\xc3\xa4"]'))
            other.say(CommandDone(one.number, b"null"))
        assert (first.result(), second.result()) == (None, [1, "\u00e4"])
        assert not other.violations

    play(work)


def test_no_is_an_answer() -> None:
    async def work(other: Other) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(_refused(other.part.ask("list", b"{}", PATIENT)))
            other.say(CommandDone((await other.hear()).number, b"", "there is no channel", "there is one"))
        assert (str(asked.result()), asked.result().hint) == ("there is no channel", "there is one")

    play(work)


async def _refused(question: Awaitable[object]) -> GateError:
    with pytest.raises(GateError) as caught:
        await question
    return caught.value


def test_an_answer_that_comes_too_late_is_nobody_s() -> None:
    async def work(other: Other) -> None:
        assert "does not answer" in str(await _refused(other.part.ask("list", b"{}", 0.01)))
        late = await other.hear()
        other.say(CommandDone(late.number, b"1"))
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(other.part.ask("list", b"{}", PATIENT))
            other.say(CommandDone((await other.hear()).number, b"2"))
        assert asked.result() == 2 and not other.violations

    play(work)


def test_a_part_that_ends_does_not_keep_an_operator_waiting() -> None:
    async def work(other: Other) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(_refused(other.part.ask("list", b"{}", PATIENT)))
            await other.hear()
            other.say(Failing("the store is damaged", "look at it"))
            other.ended.set_result(6)
        assert "ended before it answered" in str(asked.result())
        other.part.forget()
        assert (other.part.failing, other.part.hint) == ("the store is damaged", "look at it")

    play(work)


@pytest.mark.parametrize("result", [b"", b"{", b"\xff", b"[" * 100_000, b"1 2"])
def test_an_answer_that_is_no_json_is_a_violation(result: bytes) -> None:
    async def work(other: Other) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(_refused(other.part.ask("list", b"{}", PATIENT)))
            other.say(CommandDone((await other.hear()).number, result))
        assert "no JSON" in str(asked.result())
        assert len(other.violations) == 1

    play(work)


def test_an_answer_to_what_was_not_asked_is_a_violation() -> None:
    async def work(other: Other) -> None:
        other.say(CommandDone(7, b"1"))
        await comes_true(lambda: other.violations)
        assert "was not asked" in other.violations[0]

    play(work)


def test_questions_are_bounded_in_size_and_number() -> None:
    async def work(other: Other) -> None:
        assert "at most" in str(await _refused(other.part.ask("list", bytes(70_000), PATIENT)))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(part_module.QUESTIONS):
                tasks.create_task(other.part.ask("list", b"{}", PATIENT))
            await asyncio.sleep(0)
            assert "open already" in str(await _refused(other.part.ask("list", b"{}", PATIENT)))
            for _ in range(part_module.QUESTIONS):
                other.say(CommandDone((await other.hear()).number, b"1"))

    play(work)


# --- ends and beginnings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "call", "failing", "words"),
    [
        (0, "", "", ""),
        (3, "", "", "exit code 3"),
        (6, "", "the store is full", "the store is full"),
        (-signal.SIGKILL, "", "", "killed"),
        (-signal.SIGSEGV, "", "", "SIGSEGV"),
        (-200, "", "", "signal 200"),
        (-signal.SIGSYS, "", "all is well", "a system call outside its profile"),
        (-signal.SIGSYS, "execve", "", "a system call outside its profile (execve)"),
    ],
)
def test_an_end_in_words(status: int, call: str, failing: str, words: str) -> None:
    assert how(status, call, failing) == words


def test_a_crew_that_worked_is_started_at_once_and_one_that_does_not_ever_later() -> None:
    pacing = Restarts(since=0.0)
    assert [pacing.delay(True, 0.0) for _ in range(FREE_RESTARTS)] == [0.0] * FREE_RESTARTS
    pauses = [pacing.delay(True, 0.0) for _ in range(10)]
    assert pauses == sorted(pauses) and pauses[0] > 0 and pauses[-1] == LONGEST_PAUSE_SECONDS
    assert pacing.delay(True, 10.0) == 0.0
    assert pacing.delay(False, 20.0) > 0.0
