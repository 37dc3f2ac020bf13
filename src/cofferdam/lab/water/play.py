"""The water works: a tank, a pump and their controller, an ERP that reads, an operator who sets, an intruder.

Not here: how the works behave (physics), what the people do (actors, intruder), the steps of the tour (steps).
"""

from __future__ import annotations

from typing import Any

from cofferdam.lab.layout import Addresses, Layout
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import Scene
from cofferdam.lab.water import events
from cofferdam.lab.water.cast import Cast, start_actor, start_plant
from cofferdam.lab.water.picture import WaterPicture
from cofferdam.lab.water.steps import CLOSING, STEPS


def _assets(where: Addresses) -> str:
    return f"""\
  plc-7:                              # high-lift pumping: tank, pump, valves
    zone: control
    address: {where.device}  # the device itself
    port: {where.device_port}
    listen: "{where.listen}:{where.listen_port}"  # what the office sees; only a broker answers here
    protocol: modbus
    unit: 1
    connections: 1
    outstanding: 1
    timeout: 5 s
    points:
      inflow: {{at: input 0, type: float32, unit: m3/h}}
      outflow: {{at: input 2, type: float32, unit: m3/h}}
      pressure: {{at: input 4, type: float32, unit: bar}}
      temperature: {{at: input 6, type: float32, unit: degC}}
      motor_power: {{at: input 8, type: float32, unit: kW}}
      pump_rpm: {{at: input 10, type: uint16, unit: rpm}}
      tank_level: {{at: input 12, type: float32, unit: m}}
      flow_total: {{at: holding 100, type: uint32, unit: l}}
      pump_speed:
        {{at: holding 200, type: uint16, unit: rpm, min: 0, max: 1500, max_step: 100, writes_per_minute: 6}}
      discharge_valve: {{at: coil 0, type: bool}}
      inlet_valve: {{at: coil 1, type: bool}}
      low_alarm: {{at: discrete 0, type: bool}}
      high_alarm: {{at: discrete 1, type: bool}}
      pump_tripped: {{at: discrete 2, type: bool}}
      pump_running: {{at: discrete 3, type: bool}}
      # low_level_trip, high_level_alarm, trip_bypass and pump_enable are not named: nobody reaches them from here.
"""


def _principals(where: Addresses) -> str:
    return f"""\
  erp: {{zone: enterprise, addresses: [{where.erp}]}}
  operators: {{zone: enterprise, addresses: [{where.operators}]}}
"""


_CONDUITS = """\
  erp-reads-flow:
    from: enterprise
    to: control
    broker: modbus
    owner: process-engineering
    reason: daily flow totals for billing
    allow:
      - {who: erp, asset: plc-7, read: [flow_total, tank_level]}
    latency_budget: 5 ms

  pump-setpoint:
    from: enterprise
    to: control
    broker: modbus
    owner: operations
    reason: remote dispatch sets the pump speed
    expires: 2035-06-30
    allow:
      - {who: operators, asset: plc-7, read: [pump_speed, pump_rpm, tank_level, pump_tripped], write: [pump_speed]}
    latency_budget: 20 ms

  inlet-by-day:
    from: enterprise
    to: control
    broker: modbus
    owner: operations
    reason: the inlet is moved only while somebody is at the river
    expires: 2035-06-30
    window: {days: mon-fri, from: "06:00", to: "18:00", zone: Europe/Paris}
    allow:
      - {who: operators, asset: plc-7, write: [inlet_valve]}
"""


class Water(Play):
    """The Modbus proxy at work."""

    name = "water"
    who = "plant, ERP, operator and intruder"
    steps = STEPS
    closing = CLOSING

    def sections(self, where: Addresses) -> Sections:
        return Sections(_assets(where), _principals(where), _CONDUITS)

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        await start_plant(scene, listener=listener)

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        # The firewall leaves the intruder nothing to say: what the broker refuses is seen of one whom it lets in.
        insider = ("insider",) if scene.layout.separated else ()
        for kind in ("erp", "operator", "intruder", *insider):
            await start_actor(scene, kind, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        people = [await start_actor(scene, kind, driven=True) for kind in ("erp", "operator", "intruder")]
        return Cast(scene, scene.actors["plant"], *people)

    def picture(self, layout: Layout) -> Picture:
        return WaterPicture(layout.addresses)
