"""The frame of parts that speak with the gate alone: how the life of each may end, as a process that runs by itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from msgspec import Struct

from cofferdam.crossing import lone_part
from cofferdam.crossing.exit import EXIT_BUG, EXIT_GATE_GONE, EXIT_STOPPED, EXIT_VIOLATION
from cofferdam.crossing.framing import Assembler, pack
from cofferdam.crossing.lone_part import LonePart
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec


class Task(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    pass


class Word(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    text: str


HEARS: RecordCodec[Task | Word] = RecordCodec(Task | Word)
SAYS: RecordCodec[Word] = RecordCodec(Word)


class Echo(LonePart[Task | Word, Word]):
    name, task = "echo", Task

    def begin(self, told: Task) -> None:
        self._gate.send(Word("begun"))

    def heard(self, record: Task | Word) -> bool:
        assert isinstance(record, Word)
        if record.text == "fail":
            raise KeyError(record.text)
        return record.text != "end"


@pytest.fixture
def ends() -> Iterator[dict[str, int]]:
    """The pipes of its life: ours to write and to read, and its own."""
    (control_in, orders), (answers, control_out) = make_pipe(), make_pipe()
    yield {"orders": orders, "answers": answers, "control-in": control_in, "control-out": control_out}
    os.close(answers)


def live(ends: dict[str, int], *told: Task | Word | bytes) -> int:
    """One life, in which it is told this, and then the gate goes."""
    for packet in pack([one if isinstance(one, bytes) else HEARS.encode(one) for one in told]):
        os.write(ends["orders"], packet)
    os.close(ends["orders"])
    argv = [sys.argv[0], *(f"--{name}={ends[name]}" for name in ("control-in", "control-out"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        return lone_part.run("echo", lambda args: Echo(Reactor(), args.control_in, args.control_out, HEARS, SAYS))


def test_it_does_what_it_is_told_and_ends_when_it_is_told_to(ends: dict[str, int]) -> None:
    assert live(ends, Task(), Word("more"), Word("end")) == EXIT_STOPPED
    assert Assembler(100).feed(os.read(ends["answers"], 4096)) == [SAYS.encode(Word("begun"))]


def test_without_the_gate_it_ends(ends: dict[str, int]) -> None:
    assert live(ends, Task()) == EXIT_GATE_GONE


@pytest.mark.parametrize("told", [(Task(), Task()), (Task(), b"\xc0"), (Task(), HEARS.encode(Word("a")) + b"\0")])
def test_what_no_gate_says_ends_it_and_it_says_so(
    ends: dict[str, int], capsys: pytest.CaptureFixture[str], told: tuple[Task | bytes, ...]
) -> None:
    assert live(ends, *told) == EXIT_VIOLATION
    assert "the echo was told what it does not understand" in capsys.readouterr().err


def test_a_bug_ends_it_and_is_shown(ends: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    assert live(ends, Task(), Word("fail"), Word("end")) == EXIT_BUG
    assert "KeyError: 'fail'" in capsys.readouterr().err
