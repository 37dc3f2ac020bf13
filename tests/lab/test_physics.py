"""The water works obeys physics: water is conserved, steady states are where the curves cross, limits hold."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.lab.water.physics import (
    DAY,
    GRAVITY,
    Controls,
    Design,
    State,
    advance,
    measure,
    pump_flow,
    river,
    steady_speed,
)
from tests.examples import examples

DESIGN = Design()
START = 1_800_000_000.0

controls_strategy = st.builds(
    Controls,
    pump_speed=st.integers(0, 65535),
    pump_enabled=st.booleans(),
    inlet_open=st.booleans(),
    discharge_open=st.booleans(),
    trip_bypassed=st.booleans(),
    low_level_trip=st.integers(0, 65535),
    high_level_alarm=st.integers(0, 65535),
)


def stored(state: State) -> float:
    return state.level * DESIGN.tank_area


@examples(60)
@given(st.lists(st.tuples(controls_strategy, st.floats(0.01, 1800.0)), min_size=1, max_size=5), st.floats(0.0, 5.0))
def test_water_is_neither_made_nor_lost(plan: list[tuple[Controls, float]], level: float) -> None:
    start = state = State(time=START, level=level)
    for controls, seconds in plan:
        state = advance(DESIGN, controls, state, state.time + seconds)
        assert 0.0 <= state.level <= DESIGN.tank_height + 1e-9
        assert state.outflow >= 0.0
        assert math.isfinite(state.temperature)
        assert state.speed <= DESIGN.pump_top_speed
    gained = state.received - state.delivered - state.spilled
    assert stored(state) - stored(start) == pytest.approx(gained, abs=1e-6)


def test_level_settles_where_outflow_meets_inflow() -> None:
    """With a constant river the level ends where pump and pipe pass just the inflow: h = z + Q²·ΣR − H0·(n/n0)²."""
    design = Design(inflow_swing=0.0, tank_height=12.0)
    speed = 840
    resistance = design.pump_curve + design.pipe_resistance + design.valve_loss
    expected = design.static_head + design.inflow_mean**2 * resistance
    expected -= design.pump_shutoff_head * (speed / design.pump_rated_speed) ** 2
    assert 1.0 < expected < 10.0  # the example means something
    state = State(time=START, level=2.5, speed=speed)
    state = advance(design, Controls(pump_speed=speed), state, START + 3 * DAY)
    assert state.level == pytest.approx(expected, abs=0.01)
    assert state.outflow == pytest.approx(state.inflow, rel=1e-3)


def test_steady_speed_is_the_inverse_of_pump_flow() -> None:
    for flow in (0.01, 0.05, 0.12):
        speed = steady_speed(DESIGN, flow, 2.0)
        assert pump_flow(DESIGN, speed, 2.0, 1.0) == pytest.approx(flow)


def test_pump_and_system_curves_meet() -> None:
    """At the found flow the pump's head is exactly what lift, pipe and valve use up."""
    flow = pump_flow(DESIGN, 1200.0, 3.0, 0.5)
    made = DESIGN.pump_shutoff_head * (1200 / 1500) ** 2 - DESIGN.pump_curve * flow**2
    used = DESIGN.static_head - 3.0 + (DESIGN.pipe_resistance + DESIGN.valve_loss / 0.25) * flow**2
    assert made == pytest.approx(used)


def test_pipe_resistance_is_darcy_weisbach() -> None:
    flow = 0.07
    velocity = flow / (math.pi * DESIGN.pipe_diameter**2 / 4)
    darcy = DESIGN.pipe_friction * DESIGN.pipe_length / DESIGN.pipe_diameter * velocity**2 / (2 * GRAVITY)
    assert DESIGN.pipe_resistance * flow**2 == pytest.approx(darcy)


def test_a_slow_pump_does_not_lift_and_nothing_runs_back() -> None:
    assert pump_flow(DESIGN, 300.0, 1.0, 1.0) == 0.0
    assert pump_flow(DESIGN, 1500.0, 1.0, 0.0) == 0.0


def test_the_interlock_stops_the_pump_and_lets_it_go_again() -> None:
    controls = Controls(pump_speed=1500, inlet_open=False)
    state = State(time=START, level=1.0, speed=1500.0)
    state = advance(DESIGN, controls, state, START + 3600)
    assert state.tripped
    assert state.speed == 0.0
    # Run-down of the pump takes a little more after the trip, never the whole rest.
    assert 0.40 < state.level <= 0.5
    state = advance(DESIGN, msgspec.structs.replace(controls, inlet_open=True), state, state.time + 900)
    assert state.level > 0.6
    assert state.speed > 0 or state.tripped


def test_a_bypassed_interlock_empties_the_tank() -> None:
    """Why trip_bypass is a register that nobody outside may write."""
    controls = Controls(pump_speed=1500, trip_bypassed=True)
    state = advance(DESIGN, controls, State(time=START, level=1.0, speed=1500.0), START + 3600)
    assert state.level == pytest.approx(0.0, abs=1e-3)
    assert state.speed == 1500.0


def test_the_pump_ramps_and_the_valve_travels() -> None:
    state = State(time=START, speed=0.0, discharge=0.0)
    state = advance(DESIGN, Controls(pump_speed=900), state, START + 5)
    assert state.speed == pytest.approx(5 * DESIGN.pump_ramp)
    assert state.discharge == pytest.approx(5 / DESIGN.valve_travel)
    state = advance(DESIGN, Controls(pump_speed=900), state, START + 60)
    assert (state.speed, state.discharge) == (900.0, 1.0)


def test_a_full_tank_spills_what_comes_in() -> None:
    state = State(time=START, level=DESIGN.tank_height, speed=0.0)
    after = advance(DESIGN, Controls(pump_enabled=False), state, START + 600)
    assert after.level == pytest.approx(DESIGN.tank_height)
    assert after.spilled == pytest.approx(after.received)
    assert measure(DESIGN, Controls(), after, random.Random(1)).overflowing


def test_the_river_follows_the_day() -> None:
    peak = DESIGN.inflow_peak_hour * 3600
    flows = [river(DESIGN, hour * 3600.0) for hour in range(24)]
    assert river(DESIGN, peak) == pytest.approx(DESIGN.inflow_mean * 1.25)
    assert sum(flows) / 24 == pytest.approx(DESIGN.inflow_mean)
    assert river(DESIGN, peak) == pytest.approx(river(DESIGN, peak + 3 * DAY))


def test_the_total_counts_litres_and_wraps_at_32_bits() -> None:
    near = State(time=START, delivered=(2**32 - 100) / 1000.0, speed=900.0)
    assert measure(DESIGN, Controls(), near, random.Random(1)).flow_total == 2**32 - 100
    after = advance(DESIGN, Controls(), near, START + 10)
    litres = (after.delivered - near.delivered) * 1000
    assert litres > 100
    assert measure(DESIGN, Controls(), after, random.Random(1)).flow_total == int(after.delivered * 1000) - 2**32


def test_noise_is_small_and_repeatable() -> None:
    state = advance(DESIGN, Controls(), State(time=START), START + 60)
    one = measure(DESIGN, Controls(), state, random.Random(7))
    assert one == measure(DESIGN, Controls(), state, random.Random(7))
    assert one != measure(DESIGN, Controls(), state, random.Random(8))
    assert one.level == pytest.approx(state.level, abs=0.02)


def test_alarms_follow_their_settings() -> None:
    low = measure(DESIGN, Controls(), State(time=START, level=0.6), random.Random(1))
    high = measure(DESIGN, Controls(), State(time=START, level=4.6), random.Random(1))
    assert (low.low_alarm, low.high_alarm) == (True, False)
    assert (high.low_alarm, high.high_alarm) == (False, True)


def test_cutting_time_differently_changes_nothing_much() -> None:
    """One call for an hour and 36,000 calls for its tenths of a second agree."""
    controls = Controls(pump_speed=1000)
    whole = advance(DESIGN, controls, State(time=START), START + 3600)
    parts = State(time=START)
    for tick in range(1, 36001):
        parts = advance(DESIGN, controls, parts, START + tick / 10)
    assert parts.level == pytest.approx(whole.level, abs=1e-3)
    assert advance(DESIGN, controls, whole, START) == whole  # time never runs back
