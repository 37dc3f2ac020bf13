"""What comes by a seam: nobody asks anything by one but within a session that is lent on the inside, whatever an outer
part says; and who breaks a seam's rules loses it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cofferdam.brokers.kit import seam
from cofferdam.brokers.proxy.records import Denied, Ended, Opened, Request
from cofferdam.errors import CrossingError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.modbus.messages import ReadHoldingRegisters
from tests.brokers.harness import POLICY
from tests.brokers.stage import Link, Stage, answer, read

PLACE = ("127.0.0.1", 502)
JUMP = """
  helps:
    from: enterprise
    to: control
    broker: jump
    owner: maintenance
    reason: contract 4711
    listen: "127.0.0.1:22"
    clients: tester
    allow: [{who: {group: vendors}, asset: plc, do: port}]
limits:"""


class Seamed(Stage):
    """A proxy whose parts have both their ends of a seam."""

    def __init__(self) -> None:
        text = POLICY.format(
            device_port=5020, port=502, asset_extra="", conduit_extra="", limits="", reads="allow", registers="0-9"
        )
        text = text.replace("conduits:", "  helper: {zone: enterprise, jump: helps}\nconduits:")
        text = text.replace("    allow:\n", "    allow:\n      - {who: helper, asset: plc, read: [total]}\n")
        super().__init__(policy=compile_policy(loads(text.replace("limits:", JUMP, 1)), now_ns=time.time_ns()))
        self.told_outside, self.told_inside = Link(seam.codec()), Link(seam.codec())
        self.say_outside = self.outer.join(PLACE, self.told_outside)
        self.say_inside = self.inner.join(PLACE, self.told_inside)

    def lend(self, session: str = "s-1", conduit: str = "helps", asset: str = "plc", person: str = "anna") -> None:
        self.say_inside(seam.Lend(session, conduit, asset, person))

    def come(self, line: int = 1, session: str = "s-1", conduit: str = "helps") -> None:
        self.say_outside(seam.Come(line, session, conduit, "anna", "10.0.0.9", 4711))

    def said(self) -> bytes:
        return b"".join(one.data for one in self.told_outside.take() if isinstance(one, seam.Said))


QUESTION = read(1, 100, 2)


def test_what_comes_by_a_port_is_served_and_ends_with_its_session() -> None:
    stage = Seamed()
    stage.lend()
    assert stage.told_inside.take() == [seam.Fresh(), seam.Known("s-1")]
    stage.come()
    stage.say_outside(seam.Said(1, QUESTION))
    stage.cross()
    device = stage.up()
    (asked,) = device.written
    device.on_data(answer(asked, 0, 7))
    stage.cross()
    assert stage.said() == answer(QUESTION, 0, 7)
    stage.say_inside(seam.Withdraw("s-1"))
    stage.cross()
    assert stage.told_outside.take() == [seam.Over(1)]
    assert not stage.outer.clients and not stage.inner._sessions


@pytest.mark.parametrize(
    "what", ["nothing", "another conduit", "another asset", "another person", "withdrawn", "born again", "gone"]
)
def test_an_outer_part_that_was_taken_over_gets_no_further(what: str) -> None:
    """It may say that anybody came by a port. The inner half serves none that is not lent."""
    stage = Seamed()
    if what != "nothing":
        stage.lend(
            conduit="other" if what == "another conduit" else "helps", asset="x" if what == "another asset" else "plc",
            person="bert" if what == "another person" else "anna",
        )  # fmt: skip
    if what == "withdrawn":
        stage.say_inside(seam.Withdraw("s-1"))
    elif what == "born again":
        stage.say_inside(seam.Fresh())
    elif what == "gone":
        stage.inner.leave(PLACE)
    stage.inner.take(Opened(9, "t-9", "jump:helps", "plc", "anna", lent="s-1"))
    stage.inner.take(Request(9, 1, ReadHoldingRegisters(1, 100, 2)))
    (denied,) = stage.to_outer.take()
    assert isinstance(denied, Denied) and "no session there lives" in denied.detail
    assert not stage.dials


def test_who_comes_by_a_port_has_no_address() -> None:
    """Not even that from which the person came: rules for addresses are not theirs."""
    stage = Seamed()
    stage.lend()
    stage.come()
    stage.say_outside(seam.Said(1, read(1, 0, 2)))  # the tester's
    stage.cross()
    assert stage.said()[7] == 0x83
    assert not stage.dials


def test_a_new_policy_without_them_ends_them() -> None:
    stage = Seamed()
    stage.lend()
    stage.come()
    stage.say_outside(seam.Said(1, QUESTION))
    stage.cross()
    stage.inner.take_policy(stage.policy.held(principals=["helper"]), ("plc",))
    assert Ended in [type(one) for one in stage.to_outer.take()]
    assert not stage.inner._sessions


def _flood(stage: Seamed) -> Any:
    """More than there is room for, while nothing is read."""
    stage.come()
    next(iter(stage.outer.clients)).transport.pause()
    return [seam.Said(1, bytes(seam.PIECE))] * (seam.CREDIT // seam.PIECE + 1)


BAD = {
    "the same line again": lambda stage: [seam.Come(7, "s", "helps", "a", "", 0)] * 2,
    "what is for the inside": lambda stage: [seam.Lend("s", "helps", "plc", "anna")],
    "more than was sent is taken": lambda stage: (stage.come(), [seam.Took(1, 1)])[1],
    "more than there is room for": _flood,
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_no_honest_front_says(what: str) -> None:
    """The process around the part closes the seam then, and lets its clients go."""
    stage = Seamed()
    records = BAD[what](stage)
    with pytest.raises(CrossingError):
        for record in records:
            stage.say_outside(record)
    stage.outer.leave(PLACE)
    assert not stage.outer.clients


def test_all_records_fit_one_packet() -> None:
    """So that a part which dies leaves no half of one in a pipe that outlives it."""
    most, name, address = (1 << 63) - 1, "x" * 128, "x" * 64
    for record in (
        seam.Come(most, name, name, name, address, 65_535), seam.Said(most, bytes(seam.PIECE)),
        seam.Over(most, "ü" * 256), seam.Lend("ü" * 128, "ü" * 128, "ü" * 128, "ü" * 128),
    ):  # fmt: skip
        assert len(seam.codec().encode(record)) < 4_000
