"""The register map: cells and values both ways, writes, and agreement with the shipped policy file."""

from __future__ import annotations

import random

import pytest
import yaml

from cofferdam.lab.water import physics, registers
from cofferdam.values import ValueType
from tests.lab.shown import shown_policy


def reading() -> physics.Reading:
    state = physics.advance(physics.Design(), physics.Controls(), physics.State(time=0.0), 30.0)
    return physics.measure(physics.Design(), physics.Controls(), state, random.Random(1))


@pytest.mark.parametrize(
    ("kind", "value", "cells"),
    [
        (ValueType.BOOL, 1, (1,)),
        (ValueType.UINT16, 1500, (1500,)),
        (ValueType.UINT32, 0x12345678, (0x1234, 0x5678)),
        (ValueType.FLOAT32, 2.5, (0x4020, 0)),
        (ValueType.FLOAT32, -0.15625, (0xBE20, 0)),
    ],
)
def test_values_are_big_endian_cells(kind: ValueType, value: float, cells: tuple[int, ...]) -> None:
    assert registers.encode(kind, value) == cells
    assert registers.decode(kind, cells) == value


def test_a_wrong_number_of_cells_is_no_value() -> None:
    with pytest.raises(ValueError, match="do not make"):
        registers.decode(ValueType.FLOAT32, (1,))


def test_no_two_fields_share_a_cell() -> None:
    cells = [(f.space, f.start + i) for f in registers.FIELDS for i in range(f.width)]
    assert len(cells) == len(set(cells))


def test_the_image_holds_the_reading_and_the_controls() -> None:
    now = reading()
    holding = registers.image("holding", physics.Controls(pump_speed=777), now)
    assert holding[200] == 777
    assert (holding[100] << 16) | holding[101] == now.flow_total
    inputs = registers.image("input", physics.Controls(), now)
    assert registers.decode(ValueType.FLOAT32, (inputs[12], inputs[13])) == pytest.approx(now.level, abs=1e-6)


def test_a_write_changes_the_named_control_only() -> None:
    before = physics.Controls()
    after = registers.write(before, "holding", 300, (100, 200))
    assert after == physics.Controls(low_level_trip=100, high_level_alarm=200)
    assert registers.write(before, "coil", 8, (1,)) == physics.Controls(trip_bypassed=True)


@pytest.mark.parametrize(("space", "start", "values"), [("holding", 100, (1,)), ("holding", 200, (1, 2)),
                                                        ("input", 12, (1,)), ("coil", 3, (1,))])  # fmt: skip
def test_cells_that_can_not_be_written(space: str, start: int, values: tuple[int, ...]) -> None:
    assert registers.write(physics.Controls(), space, start, values) is None


def test_the_policy_names_the_same_cells() -> None:
    points = yaml.safe_load(shown_policy())["assets"]["plc-7"]["points"]
    for name, point in points.items():
        field = registers.BY_NAME[name]
        assert point["at"] == f"{field.space} {field.start}"
        assert point["type"] == field.type
    assert not set(registers.SAFETY) & set(points)
