"""The physics of a small water works: river water fills a tank, a pump lifts it to the town's reservoir.

Pure: time comes in as an argument and noise from a generator that the caller hands over, so a day of operation
runs in milliseconds and always ends the same. `advance` integrates in steps of at most STEP seconds.

    river ──► inlet valve ──► tank (level h) ──► pump (speed n) ──► discharge valve ──► pipe ──► reservoir (z above)

- Tank: A·dh/dt = inflow − outflow − overflow. What runs over the rim is counted, so that no water is lost.
- Pump: head = H0·(n/n0)² − k·Q² (a quadratic curve and the affinity laws).
- Pipe: friction head = R·Q², R = 8·f·L / (π²·g·D⁵) (Darcy-Weisbach). The valve adds Kv/x² at opening x.
- So Q = sqrt((H0·(n/n0)² − (z − h)) / (k + R + Kv/x²)), and 0 where the pump cannot lift (a check valve).
- The interlock stops the pump when the tank is nearly empty and lets it go again when there is water.

Not here: registers (lab.registers), the Modbus server (lab.plant), and any protection against silly commands:
like most controllers, this one does what it is told.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

GRAVITY = 9.81
"""m/s²."""
DENSITY = 1000.0
"""kg/m³ of water."""
STEP = 0.5
"""The longest integration step (s)."""
DAY = 86_400.0
"""Seconds of a day."""


class Noise(Protocol):
    """The one thing we ask of a random generator; `random.Random` has it."""

    def gauss(self, mu: float, sigma: float, /) -> float: ...


class Design(msgspec.Struct, frozen=True):
    """What was built: sizes and curves. Units in the field names or beside them."""

    tank_area: float = 120.0  # m²
    tank_height: float = 5.0  # m, to the rim
    inflow_mean: float = 0.066  # m³/s, with the inlet valve open
    inflow_swing: float = 0.25  # share of the mean by which the day moves it
    inflow_peak_hour: float = 7.5  # hour of the day with most inflow
    static_head: float = 10.0  # m from the tank's floor to the reservoir's surface
    pump_shutoff_head: float = 45.0  # m at rated speed and no flow
    pump_rated_speed: float = 1500.0  # rpm
    pump_top_speed: float = 3000.0  # rpm; the drive cannot go faster, whatever it is told
    pump_curve: float = 1125.0  # k in m/(m³/s)²
    pump_ramp: float = 60.0  # rpm per second, up and down
    pump_efficiency: float = 0.72
    pipe_length: float = 1200.0  # m
    pipe_diameter: float = 0.30  # m
    pipe_friction: float = 0.02  # Darcy's f
    valve_loss: float = 60.0  # Kv in m/(m³/s)² when fully open
    valve_travel: float = 8.0  # s from shut to open
    trip_reset_margin: float = 0.30  # m above the trip level at which the pump may run again
    temperature_mean: float = 11.0  # °C of the river
    temperature_swing: float = 1.8  # °C by which the day moves it

    @property
    def pipe_resistance(self) -> float:
        """R of the pipe in m/(m³/s)²."""
        return 8 * self.pipe_friction * self.pipe_length / (math.pi**2 * GRAVITY * self.pipe_diameter**5)


class Controls(msgspec.Struct, frozen=True):
    """What the controller was told, by register writes."""

    pump_speed: int = 900  # rpm, set-point
    pump_enabled: bool = True
    inlet_open: bool = True
    discharge_open: bool = True
    trip_bypassed: bool = False  # safety: nobody but the plant's own staff should ever set this
    low_level_trip: int = 500  # mm
    high_level_alarm: int = 4500  # mm


class State(msgspec.Struct, frozen=True):
    """What is so, at one moment. Volumes are totals since the start, in m³."""

    time: float  # s since the epoch, simulated
    level: float = 2.5  # m
    speed: float = 900.0  # rpm, the pump's own
    inlet: float = 1.0  # opening, 0 to 1
    discharge: float = 1.0  # opening, 0 to 1
    tripped: bool = False
    temperature: float = 11.0  # °C in the tank
    inflow: float = 0.0  # m³/s
    outflow: float = 0.0  # m³/s
    head: float = 0.0  # m, made by the pump
    received: float = 0.0
    delivered: float = 0.0
    spilled: float = 0.0


class Reading(msgspec.Struct, frozen=True):
    """What the instruments say: the truth with a little noise. Alarms come from the noisy level, as in life."""

    level: float  # m
    pressure: float  # bar at the pump's outlet
    temperature: float  # °C
    inflow: float  # m³/h
    outflow: float  # m³/h
    power: float  # kW at the motor
    speed: int  # rpm
    flow_total: int  # litres, uint32, wraps
    low_alarm: bool
    high_alarm: bool
    tripped: bool
    running: bool
    discharge_open: bool
    overflowing: bool


def river(design: Design, time: float) -> float:
    """What the river gives at `time` (s since the epoch) with the inlet open: m³/s, never negative."""
    hours = (time % DAY) / 3600.0
    wave = math.cos(2 * math.pi * (hours - design.inflow_peak_hour) / 24.0)
    return max(0.0, design.inflow_mean * (1 + design.inflow_swing * wave))


def river_temperature(design: Design, time: float) -> float:
    """°C of the river: warmest at 16 h."""
    hours = (time % DAY) / 3600.0
    return design.temperature_mean + design.temperature_swing * math.cos(2 * math.pi * (hours - 16.0) / 24.0)


def pump_flow(design: Design, speed: float, level: float, opening: float) -> float:
    """The flow (m³/s) at which pump and pipe agree, at `speed` rpm, `level` m, valve `opening` 0 to 1."""
    if opening <= 0.0 or speed <= 0.0:
        return 0.0
    lift = design.pump_shutoff_head * (speed / design.pump_rated_speed) ** 2 - (design.static_head - level)
    if lift <= 0.0:
        return 0.0  # the check valve holds
    resistance = design.pump_curve + design.pipe_resistance + design.valve_loss / opening**2
    return math.sqrt(lift / resistance)


def steady_speed(design: Design, flow: float, level: float) -> float:
    """The speed (rpm) at which the pump moves `flow` m³/s at `level` m with the valve open."""
    resistance = design.pump_curve + design.pipe_resistance + design.valve_loss
    lift = flow**2 * resistance + design.static_head - level
    return design.pump_rated_speed * math.sqrt(max(0.0, lift) / design.pump_shutoff_head)


def _toward(value: float, target: float, most: float) -> float:
    return min(target, value + most) if target > value else max(target, value - most)


def _step(design: Design, controls: Controls, state: State, seconds: float) -> State:
    trip_level = controls.low_level_trip / 1000.0
    tripped = state.tripped
    if controls.trip_bypassed:
        tripped = False
    elif state.level <= trip_level:
        tripped = True
    elif state.level >= trip_level + design.trip_reset_margin:
        tripped = False

    wanted = min(float(controls.pump_speed), design.pump_top_speed)
    if tripped or not controls.pump_enabled:
        wanted = 0.0
    speed = _toward(state.speed, wanted, design.pump_ramp * seconds)
    travel = seconds / design.valve_travel
    inlet = _toward(state.inlet, float(controls.inlet_open), travel)
    discharge = _toward(state.discharge, float(controls.discharge_open), travel)

    volume = state.level * design.tank_area
    inflow = river(design, state.time) * inlet
    # A pump cannot draw more than there is: with the tank dry it moves what flows in.
    outflow = min(pump_flow(design, speed, state.level, discharge), inflow + volume / seconds)
    after = volume + (inflow - outflow) * seconds
    spilled = max(0.0, after - design.tank_height * design.tank_area)
    after = max(0.0, after - spilled)

    mixing = min(1.0, inflow * seconds / volume) if volume > 0 else 1.0
    temperature = state.temperature + (river_temperature(design, state.time) - state.temperature) * mixing
    shutoff = design.pump_shutoff_head * (speed / design.pump_rated_speed) ** 2
    return State(
        time=state.time + seconds,
        level=after / design.tank_area,
        speed=speed,
        inlet=inlet,
        discharge=discharge,
        tripped=tripped,
        temperature=temperature,
        inflow=inflow,
        outflow=outflow,
        head=max(0.0, shutoff - design.pump_curve * outflow**2),
        received=state.received + inflow * seconds,
        delivered=state.delivered + outflow * seconds,
        spilled=state.spilled + spilled,
    )


def advance(design: Design, controls: Controls, state: State, time: float) -> State:
    """The state at `time` (s since the epoch). A time that is not later changes nothing."""
    left = time - state.time
    while left > 1e-9:
        seconds = min(STEP, left)
        state = _step(design, controls, state, seconds)
        left -= seconds
    return state


def measure(design: Design, controls: Controls, state: State, noise: Noise) -> Reading:
    """One scan of the instruments. Draws from `noise` in a fixed order, so equal seeds give equal readings."""
    level = max(0.0, state.level + noise.gauss(0.0, 0.002))
    pressure = DENSITY * GRAVITY * (state.head + state.level) / 1e5 + noise.gauss(0.0, 0.01)
    temperature = state.temperature + noise.gauss(0.0, 0.02)
    # A meter of this kind reads exactly zero when nothing flows (low-flow cut-off).
    inflow = state.inflow * 3600.0 * (1 + noise.gauss(0.0, 0.002))
    outflow = state.outflow * 3600.0 * (1 + noise.gauss(0.0, 0.002))
    power = DENSITY * GRAVITY * state.outflow * state.head / design.pump_efficiency / 1000.0
    return Reading(
        level=level,
        pressure=max(0.0, pressure),
        temperature=temperature,
        inflow=inflow,
        outflow=outflow,
        power=power,
        speed=round(state.speed),
        flow_total=int(state.delivered * 1000.0) % (1 << 32),
        low_alarm=level * 1000.0 <= controls.low_level_trip + 200,
        high_alarm=level * 1000.0 >= controls.high_level_alarm,
        tripped=state.tripped,
        running=state.speed > 1.0,
        discharge_open=state.discharge >= 0.99,
        overflowing=state.level >= design.tank_height - 1e-6,
    )
