"""Assets for many units, and names in rules that stand for several."""

from __future__ import annotations

import time

import pytest

from cofferdam.errors import PolicyError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy

HEAD = """
site: test
zones: {office: {side: it}, plant: {side: ot}, other: {side: ot}}
principals: {hist: {zone: office, addresses: 10.1.0.9}}
"""
DRIVES = """
assets:
  drive: {zone: plant, address: 10.20.0.30, protocol: modbus, UNITS, listen: "10.1.0.3:502",
          points: {speed: {at: holding 3, type: int16}}}
  meter: {zone: plant, address: 10.20.0.31, protocol: modbus, listen: "10.1.0.4:502"}
  far: {zone: other, address: 10.20.0.32, protocol: modbus, listen: "10.1.0.5:502"}
conduits:
  c: {from: office, to: plant, broker: modbus, owner: o, reason: r, expires: 2099-01-01,
      allow: [{who: hist, asset: ASSET, registers: holding 0-9}]}
"""


def policy(units: str, asset: str) -> CompiledPolicy:
    text = HEAD + DRIVES.replace("UNITS", units).replace("ASSET", asset)
    return compile_policy(loads(text), now_ns=time.time_ns())


@pytest.mark.parametrize(
    ("units", "asset", "meant"),
    [
        ("units: 1-3", "drive", ["drive-1", "drive-2", "drive-3"]),
        ("units: [1, 8-9]", "[drive, meter]", ["drive-1", "drive-8", "drive-9", "meter"]),
        ("units: 1-20", "drive-1*", ["drive-1", *(f"drive-{n}" for n in range(10, 20))]),
        ("units: 1-2", "all", ["drive-1", "drive-2", "meter"]),
        ("unit: 4", "'*'", ["drive", "meter"]),
    ],
)
def test_what_a_name_stands_for(units: str, asset: str, meant: list[str]) -> None:
    compiled = policy(units, asset)
    rules = compiled.conduits["c"].rules
    assert sorted(rule.asset for rule in rules) == sorted(meant)
    for name, found in compiled.assets.items():
        if name.startswith("drive-"):
            assert found.unit == int(name.removeprefix("drive-"))
            assert [point.name for point in found.points] == ["speed"]
            assert found.listen == ("10.1.0.3", 502)


@pytest.mark.parametrize(
    ("units", "asset", "found"),
    [
        ("units: 1-300", "drive", 'found "1-300", expected unit numbers from 0 to 255'),
        ("units: 9-1", "drive", "expected unit numbers"),
        ("units: 1-3, unit: 2", "drive", "found unit and units, expected one of them"),
        ("units: 1-3", "pump-*", 'found "pump-*", expected a name with which some asset'),
        ("units: 1-3", "driv", "did you mean drive"),
    ],
)
def test_what_is_no_name_and_no_unit(units: str, asset: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(units, asset)
    said = [str(problem) for problem in caught.value.problems]
    assert any(found in text for text in said), said


def test_one_device_is_known_by_the_unit_that_it_has() -> None:
    """Limits of one asset are not passed by another that asks for the same unit of the same device."""
    text = (
        HEAD
        + """
assets:
  a: {zone: plant, address: 10.20.0.30, protocol: modbus, gateway: serial, unit: 1, device_unit: 7,
      listen: "10.1.0.3:502", points: {speed: {at: holding 3, type: int16, max: 9}}}
  b: {zone: plant, address: 10.20.0.30, protocol: modbus, gateway: serial, unit: UNIT, listen: "10.1.0.4:502"}
conduits:
  c: {from: office, to: plant, broker: modbus, owner: o, reason: r, expires: 2099-01-01,
      allow: [{who: hist, asset: b, write_registers: holding 0-9}]}
"""
    )
    with pytest.raises(PolicyError, match="does not load") as caught:
        loads(text.replace("UNIT", "7"))
    assert "the device of a (unit 1) again" in str(caught.value.problems[0])
    loads(text.replace("UNIT", "1"))
