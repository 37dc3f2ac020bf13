"""The register map of the simulated controller, PLC 7: which cell holds what, and what a write to it does.

One table (`FIELDS`) says it all; the shipped policy names the same cells, and a test holds the two together.
Words are big-endian, most significant word first. Cells that no field covers do not exist.

Not here: the server (lab.plant), the physics (lab.physics).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from cofferdam.lab.water.physics import Controls, Reading
from cofferdam.values import ValueType

UNIT = 1
"""The controller's unit id."""


class Field(msgspec.Struct, frozen=True):
    """One named value of the controller. `reading` or `control` names the attribute behind it."""

    name: str
    space: str
    start: int
    type: ValueType
    reading: str = ""
    control: str = ""

    @property
    def width(self) -> int:
        """How many cells it takes."""
        return 2 if self.type in (ValueType.UINT32, ValueType.FLOAT32) else 1


FIELDS: tuple[Field, ...] = (
    Field("inflow", "input", 0, ValueType.FLOAT32, reading="inflow"),
    Field("outflow", "input", 2, ValueType.FLOAT32, reading="outflow"),
    Field("pressure", "input", 4, ValueType.FLOAT32, reading="pressure"),
    Field("temperature", "input", 6, ValueType.FLOAT32, reading="temperature"),
    Field("motor_power", "input", 8, ValueType.FLOAT32, reading="power"),
    Field("pump_rpm", "input", 10, ValueType.UINT16, reading="speed"),
    Field("tank_level", "input", 12, ValueType.FLOAT32, reading="level"),
    Field("flow_total", "holding", 100, ValueType.UINT32, reading="flow_total"),
    Field("pump_speed", "holding", 200, ValueType.UINT16, control="pump_speed"),
    Field("low_level_trip", "holding", 300, ValueType.UINT16, control="low_level_trip"),
    Field("high_level_alarm", "holding", 301, ValueType.UINT16, control="high_level_alarm"),
    Field("discharge_valve", "coil", 0, ValueType.BOOL, control="discharge_open"),
    Field("inlet_valve", "coil", 1, ValueType.BOOL, control="inlet_open"),
    Field("pump_enable", "coil", 2, ValueType.BOOL, control="pump_enabled"),
    Field("trip_bypass", "coil", 8, ValueType.BOOL, control="trip_bypassed"),
    Field("low_alarm", "discrete", 0, ValueType.BOOL, reading="low_alarm"),
    Field("high_alarm", "discrete", 1, ValueType.BOOL, reading="high_alarm"),
    Field("pump_tripped", "discrete", 2, ValueType.BOOL, reading="tripped"),
    Field("pump_running", "discrete", 3, ValueType.BOOL, reading="running"),
    Field("valve_open", "discrete", 4, ValueType.BOOL, reading="discharge_open"),
    Field("overflow", "discrete", 5, ValueType.BOOL, reading="overflowing"),
)

BY_NAME: dict[str, Field] = {field.name: field for field in FIELDS}

SAFETY: tuple[str, ...] = ("low_level_trip", "high_level_alarm", "trip_bypass", "pump_enable")
"""Fields that no one outside the plant may write: the interlock's settings and its bypass."""


def encode(kind: ValueType, value: float) -> tuple[int, ...]:
    """The cells of `value`, most significant word first. `value` is in the type's range (ours always is)."""
    match kind:
        case ValueType.BOOL:
            return (int(bool(value)),)
        case ValueType.UINT16:
            return (int(value),)
        case ValueType.UINT32:
            return struct.unpack(">2H", struct.pack(">I", int(value)))
        case ValueType.FLOAT32:
            return struct.unpack(">2H", struct.pack(">f", value))
        case _:
            raise ValueError(f"the controller has no {kind} values")


def decode(kind: ValueType, cells: Sequence[int]) -> float:
    """The value of `cells`. Raises ValueError where their count does not fit the type."""
    match kind, len(cells):
        case ValueType.BOOL | ValueType.UINT16, 1:
            return cells[0]
        case ValueType.UINT32, 2:
            return (cells[0] << 16) | cells[1]
        case ValueType.FLOAT32, 2:
            return float(struct.unpack(">f", struct.pack(">2H", *cells))[0])
        case _:
            raise ValueError(f"{len(cells)} cells do not make a {kind}")


def image(space: str, controls: Controls, reading: Reading) -> dict[int, int]:
    """Every cell of `space` that exists, with what it holds."""
    cells: dict[int, int] = {}
    for field in FIELDS:
        if field.space == space:
            value = getattr(reading, field.reading) if field.reading else getattr(controls, field.control)
            cells.update(enumerate(encode(field.type, value), field.start))
    return cells


_WRITABLE: dict[tuple[str, int], Field] = {(f.space, f.start): f for f in FIELDS if f.control}


def write(controls: Controls, space: str, start: int, values: Sequence[int]) -> Controls | None:
    """The controls after a write of `values` to `space` from `start` on; None where a cell cannot be written.

    Every writable field of this controller is one cell wide. Nothing is checked but existence: the device
    trusts its network, which is why something has to stand in front of it.
    """
    changes: dict[str, int | bool] = {}
    for offset, value in enumerate(values):
        field = _WRITABLE.get((space, start + offset))
        if field is None:
            return None
        changes[field.control] = bool(value) if field.type is ValueType.BOOL else int(value)
    return msgspec.structs.replace(controls, **changes)
