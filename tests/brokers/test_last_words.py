"""A part that has halted answers no more questions: its stores are shut."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cofferdam.brokers.broker import Asked, Part
from cofferdam.brokers.half import PartProcess
from cofferdam.brokers.kit.supervision import Command, CommandDone, FromPart, ReportNow, SetSevered, Stop, ToPart
from cofferdam.crossing.framing import pack
from cofferdam.crossing.pipe import PipeReceiver, make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import StoreError
from cofferdam.policy.table import CompiledPolicy


class Shut(Part):
    """One whose store says after `halt` what a library says."""

    def __init__(self) -> None:
        super().__init__(cast(Any, SimpleNamespace()))
        self.open = True

    def _touch(self) -> None:
        if not self.open:
            raise StoreError("Cannot operate on a closed database.")

    def on_record(self, source: str, record: Any) -> None:
        self._touch()

    def set_severed(self, sides: Collection[str]) -> None:
        self._touch()

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._touch()
        return 0

    def tick(self) -> None:
        self._touch()

    def command(self, asked: Asked) -> None:
        asked.answer("here" if self.open else "Cannot operate on a closed database.")

    def halt(self) -> None:
        self.open = False

    def end(self) -> None:
        self._touch()
        self.halt()


def process_of(part: Part, kind: str = "diode", name: str = "keeper") -> tuple[PartProcess, int]:
    """It runs in none; and where its control records come out."""
    (heard, said), (orders, _), (entries, audit) = os.pipe(), os.pipe(), os.pipe()
    process = PartProcess(argparse.Namespace(
        kind=kind, part=name, control_in=orders, control_out=said, audit_in=entries, audit_out=audit,
        input=[], output=[],
    ))  # fmt: skip
    process.part = part
    return process, heard


@pytest.mark.parametrize("how", ["it fails", "another part is gone"])
def test_what_has_halted_says_that_it_has_ended(how: str) -> None:
    process, heard = process_of(part := Shut())
    process._command(part, Command(1, "status", b"{}"))
    if how == "it fails":
        process._last_words()
    else:
        process._part_gone("receiver")
    assert not part.open
    process._command(part, Command(2, "status", b"{}"))
    process._control.flush()
    answers: list[FromPart] = []
    codec: RecordCodec[FromPart] = RecordCodec(FromPart)
    PipeReceiver(process.reactor, heard, codec, answers.append, lambda: None)
    while sum(isinstance(one, CommandDone) for one in answers) < 2:
        process.reactor.turn(1)
    first, second = (one for one in answers if isinstance(one, CommandDone))
    assert (first.result, first.error) == (b'"here"', "")
    assert second.number == 2 and "just ended" in second.error


def test_what_is_due_in_the_turn_of_its_end_is_not_done_any_more() -> None:
    """A busy machine brings much into one turn: what a part says then would be that its store is shut."""
    process, _ = process_of(part := Shut())
    come, gives = make_pipe()
    codec: RecordCodec[ToPart] = RecordCodec(ToPart)
    process._receivers["receiver"] = PipeReceiver(process.reactor, come, codec, part.taker("receiver"))
    for packet in pack([codec.encode(SetSevered(("it",)))]):
        os.write(gives, packet)
    process._on_control(Stop(0.0))
    assert not part.open
    process._tick()
    for order in (SetSevered(("it",)), Stop(0.0), ReportNow()):
        process._on_control(order)
    process.reactor.turn(0)
