"""`max_rate`: in however many steps a value is moved, within the time it moves no further than the policy says."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import PolicyError
from cofferdam.model import Allow, Deny, Fault, NeedValues, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.ramps import PIECES, Ramp
from cofferdam.policy.points.state import PointState
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from tests.policy.plant import BASE, NOW, conduit, flow, write

SECOND = 10**9
SPEED = "max_step: 100, writes_per_minute: 2"
RULE = conduit("{who: ops, asset: plc, write: [speed, torque]}")


def ramped(rate: str = "50 rpm/min", more: str = "") -> CompiledPolicy:
    text = BASE.replace(SPEED, f"max_rate: {rate}{more}") + RULE
    return compile_policy(loads(text), now_ns=NOW)


FAST = ramped()


def judge(policy: CompiledPolicy, state: PointState, value: int, mono: int) -> Allow | Deny | NeedValues:
    """As a half does it: the value is read for this write, and an allowed one is noted and done."""
    op = write("holding", 200, value)
    verdict = flow(policy).decide_full(op, NOW, mono, state, mono)
    if isinstance(verdict, Allow):
        state.note_write("plc", op, mono)
        state.note_ended("plc", op, mono)
    return verdict


def holds(state: PointState, value: int, mono: int) -> None:
    state.note_values("plc", "holding", 200, (value,), mono)


def test_a_ramp_limit_needs_the_present_value_and_says_what_would_be_allowed() -> None:
    state = FAST.point_state()
    assert judge(FAST, state, 50, 0) == NeedValues((Span("holding", 200, 1),))
    holds(state, 0, 1)
    assert isinstance(judge(FAST, state, 50, 1), Allow)
    holds(state, 50, 20 * SECOND)
    assert judge(FAST, state, 60, 20 * SECOND) == Deny(
        "c", "c/0", Fault.STEP,
        "speed = 60 rpm is asked; it was 0 to 50 within the last minute, and a move of 50 rpm a minute is allowed "
        "(now 0 to 50 rpm)",
    )  # fmt: skip
    assert isinstance(judge(FAST, state, 10, 20 * SECOND), Allow), "back to where it was"
    holds(state, 10, 63 * SECOND)
    assert isinstance(judge(FAST, state, 60, 63 * SECOND), Allow), "the 0 of the beginning is more than a minute old"


@dataclasses.dataclass
class Told:
    """What an observer of the device has seen."""

    at: int
    value: int


@given(
    st.sampled_from(["50 rpm/min", "7 rpm/s", "3000 rpm/h"]),
    st.lists(
        st.tuples(
            st.integers(0, 40 * SECOND) | st.integers(0, SECOND // 4),
            st.integers(-120, 120),
            st.none() | st.integers(0, 1500),
        ),
        max_size=40,
    ),
)
def test_no_sequence_of_writes_and_no_hand_at_the_device_gives_a_faster_move(
    rate: str, acts: list[tuple[int, int, int | None]]
) -> None:
    """Each act: so much later somebody asks for a value so far from the present one, before which a hand at the device
    may have set another. What is allowed is within the rate of all that the device had; what is refused is not."""
    policy = ramped(rate)
    point = next(point for point in policy.assets["plc"].points if point.name == "speed")
    most, within = point.max_rate, point.rate_seconds * SECOND
    assert most is not None
    state, now, present, had = policy.point_state(), SECOND, 700, list[Told]()
    for later, move, hand in acts:
        now += later + 1
        present = present if hand is None else hand
        holds(state, present, now)
        value = min(1500, max(0, present + move))
        verdict = judge(policy, state, value, now)
        seen = [Told(now, present), *had]
        if isinstance(verdict, Allow):
            assert all(abs(value - one.value) <= most for one in seen if now - one.at <= within)
            had += [Told(now, present), Told(now, value)]
            present = value
        else:
            assert isinstance(verdict, Deny), verdict
            slack = within // PIECES + 1
            assert any(abs(value - one.value) > most for one in seen if now - one.at <= within + slack)


@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 65535)), max_size=400))
def test_what_is_remembered_has_a_bound(acts: list[tuple[int, int]]) -> None:
    ramp, now = Ramp(60 * SECOND), 0
    for later, value in acts:
        now += later
        ramp.add(value, now)
        assert len(ramp._spans) <= PIECES + 2
        assert ramp.range(value, now)[0] <= value <= ramp.range(value, now)[1]


def test_many_small_steps_are_no_jump() -> None:
    """M2: a hundred steps of ten in a second were a thousand."""
    policy = ramped("50 rpm/min", ", max_step: 10")
    state, value, now = policy.point_state(), 0, SECOND
    for _ in range(100):
        now += SECOND // 100
        holds(state, value, now)
        if isinstance(judge(policy, state, value + 10, now), Allow):
            value += 10
    assert value == 50


def test_a_point_that_is_called_otherwise_is_the_same_point() -> None:
    """A reload gives point and asset other names, or lays another point over the same cells: no new minute for it."""
    state = FAST.point_state()
    holds(state, 0, 1)
    assert isinstance(judge(FAST, state, 50, 1), Allow)
    renamed = compile_policy(
        loads(
            (BASE.replace(SPEED, "max_rate: 50 rpm/min") + RULE)
            .replace("speed", "tempo").replace("plc", "press")
        ), now_ns=NOW,
    )  # fmt: skip
    state.adopt(renamed.assets)
    state.note_values("press", "holding", 200, (50,), 2 * SECOND)
    verdict = flow(renamed, asset="press").decide_full(write("holding", 200, 51), NOW, 2 * SECOND, state, 0)
    assert isinstance(verdict, Deny)
    assert verdict.fault is Fault.STEP
    # And writes_per_minute likewise.
    paced = compile_policy(loads(BASE + RULE), now_ns=NOW)
    again = compile_policy(loads((BASE + RULE).replace("speed", "tempo").replace("plc", "press")), now_ns=NOW)
    state = paced.point_state()
    for mono in (1, 2):
        state.note_write("plc", write("holding", 200, 1), mono)
    state.adopt(again.assets)
    assert state.wait_ns("press", "tempo", 3) > 0


def test_who_does_not_know_the_past_waits_for_it_to_be_over() -> None:
    state = FAST.point_state()
    state.spend_all(0)
    holds(state, 0, 1)
    denied = judge(FAST, state, 1, 1)
    assert isinstance(denied, Deny)
    assert denied.fault is Fault.RATE
    holds(state, 0, 60 * SECOND)
    assert isinstance(judge(FAST, state, 50, 60 * SECOND), Allow)


@pytest.mark.parametrize(
    ("moves", "refused"), [((("speed", 0, 40),), (51, "step")), ((), (1, "rate")), ((("other", 0, 40),), (1, "rate"))]
)  # fmt: skip
def test_the_log_tells_what_an_earlier_life_moved(
    moves: tuple[tuple[str, int, int], ...], refused: tuple[int, str]
) -> None:
    """From what to what; a write of which it does not say so blocks the point until it is a minute old."""
    state = FAST.point_state()
    state.note_past("plc", [("holding", 200, 1)], ["speed"], False, 0, moves)
    holds(state, 40, SECOND)
    denied = judge(FAST, state, refused[0], SECOND)
    assert isinstance(denied, Deny)
    assert denied.fault.value == refused[1]
    holds(state, 40, 63 * SECOND)
    assert isinstance(judge(FAST, state, 60, 63 * SECOND), Allow)


def test_a_device_that_holds_no_number_is_not_written() -> None:
    text = BASE.replace("word_order: little, min: -1.5, max: 0.1", "unit: bar, max_rate: 2 bar/s") + RULE
    policy = compile_policy(loads(text), now_ns=NOW)
    state = policy.point_state()

    def asked(held: tuple[int, int], wanted: tuple[int, int], at: int) -> Allow | Deny | NeedValues:
        state.note_values("plc", "holding", 202, held, at)
        op = Operation(16, -1, 1, True, (), write("holding", 202, *wanted).writes)
        return flow(policy).decide_full(op, NOW, at, state)

    nan, one = (0x7FC0, 0), (0x3F80, 0)
    assert isinstance(asked(nan, one, 1), Deny)
    assert isinstance(asked((0x7F80, 0), one, 2), Deny), "infinity"
    assert isinstance(asked((0, 0), (0x4000, 0), 3), Allow), "2.0"


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (
            "50",
            'expected a number, a unit and a time, such as "50 rpm/min", "2 bar/s", "30 K/h"; did you mean "50/min"',
        ),
        ("50 rpm", "expected a number, a unit and a time"),
        ("50 rpm/day", "expected a number, a unit and a time"),
        ("[50, 1]", "expected a number, a unit and a time"),
        ("0 rpm/min", "expected a number above 0"),
        ("-5 rpm/min", "expected a number above 0"),
        ("1e999 rpm/min", "expected a number"),
        ("50 kPa/min", 'found the unit "kPa", expected rpm, the unit of the point'),
        ("30 rpm/h", "found 0.5 a minute of a uint16, which moves by whole numbers, expected at least 1 a minute"),
    ],
)
def test_a_wrong_rate_is_told_where_it_stands(rate: str, message: str) -> None:
    text = BASE.replace(SPEED, f"max_rate: {rate}") + RULE
    with pytest.raises(PolicyError) as told:
        compile_policy(loads(text), now_ns=NOW)
    [problem] = told.value.problems
    assert isinstance(problem, Problem)
    assert message in str(problem)
    assert "max_rate: " in text.splitlines()[problem.line - 1]
