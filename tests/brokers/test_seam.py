"""What comes by a seam: nobody asks anything by one but within a session that is lent on the inside, whatever an outer
part says; and who breaks a seam's rules loses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cofferdam.audit.events.access import ClientIdentified, Refused, SessionOpened
from cofferdam.brokers.kit import seam
from cofferdam.brokers.kit.budget import ENTRIES
from cofferdam.brokers.proxy.records import Denied, Ended, Opened, Request
from cofferdam.errors import CrossingError
from cofferdam.model import Shown
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.protocols.base import Identified
from cofferdam.protocols.modbus.messages import ReadHoldingRegisters
from tests.brokers.harness import POLICY
from tests.brokers.stage import Link, Stage, Wire, answer, read

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

    def __init__(self, conduit: str = "helps", limits: str = "") -> None:
        text = POLICY.format(
            device_port=5020, port=502, asset_extra="", conduit_extra="", limits=limits, reads="allow", registers="0-9"
        )
        text = text.replace("conduits:", "  helper: {zone: enterprise, jump: CONDUIT}\nconduits:").replace(
            "CONDUIT", conduit
        )
        text = text.replace("    allow:\n", "    allow:\n      - {who: helper, asset: plc, read: [total]}\n")
        super().__init__(
            policy=compile_policy(
                loads(text.replace("limits:", JUMP.replace("helps:", f"{conduit}:"), 1)), now_ns=time.time_ns()
            )
        )
        self.told_outside, self.told_inside = Link(seam.codec()), Link(seam.codec())
        self.say_outside = self.outer.join(PLACE, self.told_outside)
        self.say_inside = self.inner.join(PLACE, self.told_inside)

    def lend(
        self, session: str = "s-1", conduit: str = "helps", asset: str = "plc", person: str = "anna"
    ) -> None:  # fmt: skip
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
            conduit="other" if what == "another conduit" else "helps",
            asset="x" if what == "another asset" else "plc",
            person="ruth" if what == "another person" else "anna",
        )
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


def test_an_outer_part_that_was_taken_over_makes_nobody_of_an_address_a_person() -> None:
    """The inner half said in the log that anna had come by a session of the jump server, and each name had turns and
    log room of its own."""
    stage = Seamed()
    stage.lend()
    with pytest.raises(CrossingError, match="comes by no conduit"):
        stage.inner.take(Opened(9, "t-9", "127.0.0.1", "plc", "anna", lent="s-1"))
    assert not stage.of(ClientIdentified) and not stage.inner._sessions


@pytest.mark.parametrize(
    "record", [seam.Lend("", "helps", "plc", "anna"), seam.Withdraw(""), seam.Come(1, "", "helps", "anna", "", 0)]
)
def test_no_session_is_without_a_name(record: seam.Record) -> None:
    """Ordinary clients come by none: an inner part of the jump server that was taken over would end them."""
    with pytest.raises(CrossingError):
        seam.codec().decode(seam.codec().encode(record))
    stage = Seamed()
    wire = Wire(stage.reactor)
    stage.outer.accept(wire, "127.0.0.1", 4711, PLACE)
    wire.arrive(read(1, 0, 2))
    stage.cross()
    stage.lend("")
    stage.say_inside(seam.Withdraw(""))
    stage.cross()
    assert (wire.closed, len(stage.inner._sessions)) == (False, 1)


def test_the_longest_name_of_a_conduit() -> None:
    """An outer half that says where somebody comes from is not taken for one that lies."""
    stage = Seamed("h" * 63)
    stage.lend(conduit="h" * 63)
    stage.come(conduit="h" * 63)
    stage.say_outside(seam.Said(1, QUESTION))
    stage.cross()
    assert len(stage.dials) == 1


@pytest.mark.parametrize("conduit", ["x" * 64, "", "a\x1b[31m", "\u202e"])
def test_what_is_no_name_of_a_conduit_is_no_source(conduit: str) -> None:
    with pytest.raises(CrossingError):
        seam.codec().decode(seam.codec().encode(seam.Come(1, "s-1", conduit, "anna", "", 0)))


def test_who_it_is_stays_who_it_is_whatever_the_protocol_says() -> None:
    """A user of OPC UA is nobody who has signed in here."""
    stage = Seamed()
    stage.come()
    (client,) = stage.outer.clients
    stage.outer._identified(client, Identified("ruth", "urn:tool", "ab"))
    assert client.shown == Shown("anna", "urn:tool", "ab")


def test_the_log_has_the_person_from_the_inside() -> None:
    stage = Seamed()
    stage.lend()
    stage.come()
    stage.say_outside(seam.Said(1, QUESTION))
    stage.cross()
    (told,) = stage.of(ClientIdentified)
    assert (told.user, told.access, told.source, told.principals) == ("anna", "s-1", "jump:helps", ("helper",))


def test_a_session_of_which_nobody_speaks_any_more_has_ended() -> None:
    """A crew that is gone, or stopped, withdraws nothing."""
    stage = Seamed()
    stage.lend()
    stage.come()
    stage.say_outside(seam.Said(1, QUESTION))
    stage.cross()
    for _ in range(10):
        stage.reactor.advance(3)
        stage.lend()
        stage.inner.tick()
        assert stage.inner._sessions
    stage.reactor.advance(16)
    stage.inner.tick()
    stage.cross()
    assert not stage.inner._sessions and not stage.outer.clients


def test_one_person_does_not_take_the_places_of_another() -> None:
    """They come by one conduit, and count apart."""
    stage = Seamed()
    most = stage.policy.limits.client_connections_per_address
    for line in range(1, most + 20):
        stage.reactor.advance(1)
        stage.come(line)
    assert len(stage.outer.clients) == most
    stage.say_outside(seam.Come(most + 100, "s-2", "helps", "ruth", "10.0.0.9", 4711))
    assert len(stage.outer.clients) == most + 1


def _both(**words: str) -> Seamed:
    """anna comes by one session of the conduit, ruth by another."""
    stage = Seamed(**words)
    stage.lend("s-1")
    stage.lend("s-2", person="ruth")
    return stage


def _ruth(stage: Seamed, line: int) -> None:
    stage.say_outside(seam.Come(line, "s-2", "helps", "ruth", "10.0.0.9", 4712))


def test_one_person_does_not_use_up_what_the_log_takes_of_another() -> None:
    stage = _both()
    for line in range(1, 2 * ENTRIES):
        stage.reactor.advance(0.03)
        stage.come(line)
        stage.say_outside(seam.Said(line, read(1, 0, 2)))  # which is not theirs
        stage.cross()
        stage.say_outside(seam.Over(line))
    _ruth(stage, 1_000)
    stage.say_outside(seam.Said(1_000, read(1, 0, 2)))
    stage.cross()
    told = stage.of(SessionOpened)
    assert len(told) < 2 * ENTRIES
    assert told[-1].source_port == 4712
    assert told[-1].session in {one.session for one in stage.of(Refused)}


def test_one_person_does_not_take_the_turns_of_another_at_the_device() -> None:
    stage = _both()
    for line in range(1, 6):
        stage.come(line)
        stage.say_outside(seam.Said(line, read(line, 100, 2)))
    _ruth(stage, 10)
    stage.say_outside(seam.Said(10, read(10, 100, 1)))
    stage.cross()
    device = stage.up()
    served = 0
    while not any(one.line == 10 for one in stage.told_outside.take() if isinstance(one, seam.Said)):
        (asked,) = device.written[served:]
        device.on_data(answer(asked, *[7] * asked[11]))
        stage.cross()
        served += 1
    assert served == 2


def test_one_person_does_not_use_up_the_pace_of_another() -> None:
    stage = _both(limits="client_requests_per_second: 10, client_requests_burst: 3, ")
    stage.come()
    stage.say_outside(seam.Said(1, b"".join(read(number, 0, 2) for number in range(1, 20))))
    _ruth(stage, 10)
    stage.say_outside(seam.Said(10, read(1, 0, 2)))
    stage.cross()
    answered = [one.line for one in stage.told_outside.take() if isinstance(one, seam.Said)]
    assert (answered.count(1), answered.count(10)) == (3, 1)


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


def _deaf(link: Link) -> list[seam.Record]:
    """Answers to a Come wait for somebody who reads nothing."""
    link.backlog = seam.LINES * seam.CREDIT + 1
    return [seam.Come(1, "s", "helps", "a", "", 0)]


BAD: dict[str, Callable[[Seamed], Any]] = {
    "the same line again": lambda stage: [seam.Come(7, "s", "helps", "a", "", 0)] * 2,
    "what is for the inside": lambda stage: [seam.Lend("s", "helps", "plc", "anna")],
    "more than was sent is taken": lambda _: [seam.Come(1, "s", "helps", "a", "", 0), seam.Took(1, 1)],
    "more than there is room for": _flood,
    "what it is told is not taken": lambda stage: _deaf(stage.told_outside),
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


def test_an_inner_part_that_takes_no_answers() -> None:
    stage = Seamed()
    _deaf(stage.told_inside)
    with pytest.raises(CrossingError):
        stage.lend()


def test_all_records_fit_one_packet() -> None:
    """So that a part which dies leaves no half of one in a pipe that outlives it."""
    most, name, address = (1 << 63) - 1, "x" * 128, "x" * 64
    for record in (
        seam.Come(most, name, name[:63], name, address, 65_535), seam.Said(most, bytes(seam.PIECE)),
        seam.Over(most, "ü" * 256), seam.Lend("ü" * 128, "x" * 63, "ü" * 128, "ü" * 128),
    ):  # fmt: skip
        assert len(seam.codec().encode(record)) < 4_000
