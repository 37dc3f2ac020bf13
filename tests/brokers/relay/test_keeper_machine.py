"""The keeper's state machine alone: this comes in, those rows come out, and from the rows comes the same machine again.
No store, no loop, no clock."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.relay.keeper import PULL, SECOND, SERIES_MOST, Machine
from cofferdam.brokers.relay.keeper_rows import ChannelRow, DeadRow, Known, OpenRow, OpenRows, PositionRow, Row, StepRow
from cofferdam.brokers.relay.records import Result, Verdict
from cofferdam.policy.messages.checked import Checked, Problem, Step
from cofferdam.policy.terms.relay_rows import Channel, Limit, Line, Relay, RelayRows
from tests.examples import examples

WALL = 1_795_404_737 * SECOND
COUNTS = Channel(name="counts", order=1, tries=2, lease=60, room_messages=100)
LINES = (Line(number=0, who=("mes",), push=("counts",)), Line(number=1, who=("erp",), pull=("counts",)))
OK = Checked(b"1")


class Kept:
    """What a store would keep of the rows, by what they are about; and what limits remember."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], Row] = {}
        self.steps: dict[tuple[str, str, str], StepRow] = {}

    def recall(self, channel: str, limit: str, key: str) -> StepRow | None:
        return self.steps.get((channel, limit, key))

    def count(self, channel: str) -> int:
        return sum(1 for at in self.steps if at[0] == channel)

    def take(self, row: Row) -> None:
        match row:
            case ChannelRow():
                self.rows[("channel", row.channel)] = row
            case PositionRow():
                self.rows["position", row.channel, row.consumer] = row
            case DeadRow():
                self.rows["dead", row.channel, row.consumer, row.number] = row
            case OpenRows():
                for number in row.closed:
                    self.rows.pop(("open", row.channel, row.consumer, number), None)
                for each in row.opened:
                    self.rows["open", row.channel, row.consumer, each[0]] = OpenRow(row.channel, row.consumer, *each)

    def machine_rows(self) -> list[Row]:
        found = [row for row in self.rows.values() if not isinstance(row, DeadRow)]
        return sorted(found, key=lambda row: not isinstance(row, ChannelRow))


class Play:
    """A machine, and what became of it."""

    def __init__(self, **changes: object) -> None:
        row = msgspec.structs.replace(COUNTS, **changes)
        self.relay = Relay([("out", RelayRows(channels=(row,), lines=LINES))])
        self.kept = Kept()
        self.now = SECOND
        self.wall = WALL
        self.born()

    def born(self) -> None:
        self.machine = Machine(self.relay, self.kept.machine_rows(), self.kept, self.now, self.wall)
        self.channel = self.machine.channels["counts"]
        self.erp = self.channel.consumers["erp"]
        self.out()

    def out(self) -> list[Row]:
        """The rows of what has changed."""
        rows = list(self.machine.changes(self.now, self.wall))
        for row in rows:
            self.kept.take(row)
        return rows

    def push(self, count: int = 1, checked: Checked | Problem = OK) -> list[Result]:
        results = [self.machine.push(self.channel, checked, 10, self.wall) for _ in range(count)]
        for step in self.machine.steps:
            self.kept.steps[step.channel, step.limit, step.key] = step
        self.machine.show("counts", self.channel.next - 1)
        return results

    def lease(self, most: int = 10, seconds: int = 60) -> dict[int, int]:
        numbers = self.machine.ready(self.erp, most, self.now)
        return self.machine.lease(self.erp, numbers, seconds, self.now) if numbers else {}

    def settle(self, number: int, says: str = "done", lease: int | None = None, seconds: int = 0) -> str:
        verdict = Verdict(number, says, "why", seconds)  # type: ignore[arg-type]
        result = self.machine.settle(self.erp, lease or self.erp.lease, verdict, self.now, self.wall)
        return "" if result.problem is None else result.problem.fault

    def move(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.wall += int(seconds * SECOND)


def test_push_lease_settle() -> None:
    play = Play()
    assert play.push() == [Result("stored", 1)]
    assert play.out() == [ChannelRow("counts", next=2, messages=1, size=10)]
    assert play.lease() == {1: 1}
    until = play.wall + 60 * SECOND
    assert play.out() == [PositionRow("counts", "erp", 2, 1), OpenRows("counts", "erp", [(1, 1, until, 1)], [])]
    assert play.lease() == {}
    assert play.settle(1) == ""
    assert play.out() == [PositionRow("counts", "erp", 2, 1), OpenRows("counts", "erp", [], [1])]
    assert play.settle(1) == "lease"
    assert play.out() == []


def test_what_is_not_shown_is_not_handed_out() -> None:
    play = Play()
    play.machine.push(play.channel, OK, 10, play.wall)
    assert play.lease() == {}
    play.machine.show("counts", 1)
    assert play.lease() == {1: 1}


def test_a_lease_that_ends_comes_back_and_then_is_dead() -> None:
    play = Play()
    play.push(2)
    play.lease()
    play.out()
    play.move(60)
    assert play.machine.expire(play.now, play.wall) == [play.erp]
    assert play.out() == [PositionRow("counts", "erp", 2, 1), OpenRows("counts", "erp", [(1, 0, play.wall, 1)], [])]
    assert play.lease() == {1: 2}
    play.out()
    assert play.settle(1, "failed") == ""
    assert [row.number for row in play.machine.died()] == [1]
    assert play.out() == [
        PositionRow("counts", "erp", 2, 2, dead=1),
        OpenRows("counts", "erp", [], [1]),
        DeadRow("counts", "erp", 1, 2, "why", play.wall),
    ]
    assert play.lease() == {2: 1}


def test_a_consumer_stops_at_what_is_dead_where_the_channel_says_so() -> None:
    play = Play(on_error="stop", tries=1)
    play.push(2)
    play.lease()
    play.settle(1, "failed")
    assert play.erp.stopped and play.lease() == {}
    play.machine.skip(play.erp)
    assert play.lease() == {2: 1}


def test_a_full_channel_refuses_and_says_when_to_come_again() -> None:
    play = Play(room_messages=2)
    results = play.push(3)
    assert [result.state for result in results] == ["stored", "stored", "refused"]
    assert results[2].problem is not None and results[2].problem.fault == "room" and results[2].retry
    assert play.channel.next == 3


def test_quarantine_takes_no_number() -> None:
    play = Play()
    [result] = play.push(checked=Problem("schema", "no", "/a"))
    assert (result.state, play.channel.next, play.channel.held, play.channel.held_size) == ("quarantined", 1, 1, 10)
    assert play.out() == [ChannelRow("counts", held=1, held_size=10)]
    play.machine.unheld(play.channel, 10)
    assert play.out() == [ChannelRow("counts")]


def test_a_repeated_key() -> None:
    play = Play()
    assert play.machine.repeat(Known(7, b"a"), b"a") == Result("stored", 7, again=True, sha256=b"a")
    assert play.machine.repeat(Known(7, b"a"), b"b") == Result("conflict", 7, sha256=b"b", other=b"a")


def test_several_values_of_one_message_are_judged_one_after_the_other() -> None:
    play = Play(limits=(Limit(at="/*/n", max_step=10),))

    def steps(*values: int) -> Checked:
        return Checked(b"1", -1, tuple(Step(0, "", value) for value in values))

    assert play.push(checked=steps(0, 10, 20))[0].state == "stored"
    assert play.push(checked=steps(25, 36))[0].state == "quarantined"
    assert play.push(checked=steps(30))[0].state == "stored", "what did not pass is not remembered"


def test_more_series_than_a_channel_remembers_are_not_taken() -> None:
    play = Play(limits=(Limit(at="/n", max_step=10, key="/line"),))
    play.kept.steps |= {("counts", "/n /line", str(n)): StepRow("counts", "", "", 0, 0, ()) for n in range(SERIES_MOST)}
    [result] = play.push(checked=Checked(b"1", -1, (Step(0, "new", 1),)))
    assert result.state == "quarantined" and result.problem is not None and "series" in result.problem.detail


def test_a_pause_holds_what_it_names() -> None:
    play = Play()
    play.push()
    play.machine.pause(play.channel, PULL)
    assert play.lease() == {} and play.machine.may_push(play.channel) is None
    play.out()
    play.born()
    assert play.lease() == {}
    play.machine.pause(play.channel, 0)
    assert play.lease() == {1: 1}


def test_what_may_be_removed_is_what_every_consumer_has_settled() -> None:
    play = Play(order=3)
    play.push(5)
    assert play.channel.removable == 0
    play.lease()
    play.settle(1)
    play.settle(3)
    assert play.channel.removable == 1
    play.settle(2)
    assert play.channel.removable == 3
    play.machine.take_policy(Relay([("out", RelayRows(channels=(COUNTS,), lines=LINES[:1]))]), play.now)
    assert play.channel.removable == 5, "a consumer that the policy does not name holds nothing"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 4)),
        st.tuples(st.just("lease"), st.integers(1, 5)),
        st.tuples(st.sampled_from(("done", "failed", "extend")), st.integers(1, 12)),
        st.tuples(st.just("move"), st.sampled_from((1, 30, 61))),
        st.tuples(st.just("replay"), st.integers(1, 12)),
    ),
    max_size=40,
)


@given(STEPS, st.sampled_from((1, 3)))
@examples(200)
def test_a_machine_made_from_its_rows_goes_on_as_the_first_would_have(steps: list[tuple[str, int]], order: int) -> None:
    """One machine lives through it all; the other is born anew from the stored rows before each step."""
    lives, anew = Play(order=order), Play(order=order)
    for what, count in steps:
        anew.out()
        shown = anew.channel.shown
        anew.born()
        assert anew.channel.shown == shown
        said = []
        for play in (lives, anew):
            if what == "push":
                said.append(repr(play.push(count)))
            elif what == "lease":
                said.append(repr(play.lease(count)))
            elif what == "move":
                play.move(count)
                play.machine.expire(play.now, play.wall)
                said.append("")
            elif what == "replay":
                if count < play.channel.next:
                    play.machine.replay(play.erp, count, 0)
                said.append("")
            else:
                lease = play.erp.leased[count].lease if count in play.erp.leased else 1
                said.append(play.settle(count, what, lease, 20))
        assert said[0] == said[1], (what, count)
        assert (lives.erp.cursor, lives.erp.lag, lives.erp.lowest) == (anew.erp.cursor, anew.erp.lag, anew.erp.lowest)
        assert len(lives.erp.leased) <= order
