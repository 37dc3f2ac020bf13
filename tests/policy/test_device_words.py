"""What engineers write of devices' values: scales, sets of values, orders and types by their usual names, numberings,
all cells, gaps. Each is judged by what compiles from it, in the device's own numbers."""

from __future__ import annotations

import time

import pytest

from cofferdam.errors import CofferdamError, PolicyError
from cofferdam.model import Allow, Change, Deny, Operation, Point, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.asking import operation
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.points.state import PointState
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.modbus.dialect import MODBUS

POLICY = """
site: test
zones: {{office: {{side: it}}, plant: {{side: ot}}}}
assets:
  dev: {{zone: plant, address: 10.20.0.30, protocol: modbus, listen: "10.1.0.3:502", {extra}
        points: {{{points}}}}}
principals: {{hist: {{zone: office, addresses: 10.1.0.9}}}}
conduits:
  c: {{from: office, to: plant, broker: modbus, owner: o, reason: r, expires: 2099-01-01,
      allow: [{{who: hist, asset: dev, {rule}}}]}}
"""


def policy(points: str, rule: str = "read: all, write: all", extra: str = "") -> CompiledPolicy:
    text = POLICY.format(points=points, rule=rule, extra=extra)
    return compile_policy(loads(text), now_ns=time.time_ns())


def flow(compiled: CompiledPolicy) -> Flow:
    found = compiled.flow("modbus", "10.1.0.9", "dev", ("office",))
    assert isinstance(found, Flow)
    return found


def point(said: str, extra: str = "") -> Point:
    [found] = policy(f"p: {{{said}}}", extra=extra).assets["dev"].points
    return found


SCALED = [
    # what the point says, the cells that are written, whether that is allowed, what a refusal says
    ("type: uint16, scale: 0.01, unit: '%', min: 20, max: 100", (2000,), True, ""),
    ("type: uint16, scale: 0.01, unit: '%', min: 20, max: 100", (10000,), True, ""),
    ("type: uint16, scale: 0.01, unit: '%', min: 20, max: 100", (1999,), False, "19.99 % is asked; 20 to 100 %"),
    ("type: uint16, scale: 0.01, unit: '%', min: 20, max: 100", (10001,), False, "100.01 % is asked"),
    ("type: uint16, scale: 0.1, min: 0.25, max: 0.31", (3,), True, ""),
    ("type: uint16, scale: 0.1, min: 0.25, max: 0.31", (2,), False, "0.2 is asked"),
    ("type: uint16, scale: 0.1, min: 0.25, max: 0.31", (4,), False, "0.4 is asked"),
    ("type: int16, scale: -1, min: -5, max: 7", (0x10000 - 7,), True, ""),
    ("type: int16, scale: -1, min: -5, max: 7", (5,), True, ""),
    ("type: int16, scale: -1, min: -5, max: 7", (6,), False, "-6 is asked; -5 to 7"),
    ("type: uint16, offset: -273, unit: C, min: 0, max: 100", (272,), False, "-1 C is asked; 0 to 100 C"),
    ("type: uint16, offset: -273, unit: C, min: 0, max: 100", (373,), True, ""),
    ("type: uint32, word_order: CDAB, scale: 0.5, max: 40000", (0x3880, 1), True, ""),
    ("type: uint32, word_order: CDAB, scale: 0.5, max: 40000", (0x3881, 1), False, "40000.5 is asked"),
    ("type: float32, scale: 2, max: 3", (0x3FC0, 0), True, ""),
    ("type: float32, scale: 2, max: 3", (0x3FC0, 1), False, "is asked; 3 or less"),
    ("type: uint16, values: [0x55, 0xAA]", (0x55,), True, ""),
    ("type: uint16, values: [0x55, 0xAA]", (0x56,), False, "86 is asked; 85, 170 is allowed, and nothing between"),
    ("type: uint16, values: 0.5, scale: 0.1", (5,), True, ""),
    ("type: uint16, values: 0.5, scale: 0.1", (6,), False, "0.6 is asked; 0.5 is allowed"),
    ("type: REAL, values: [0.1]", (0x3DCC, 0xCCCD), True, ""),
    ("type: INT, values: [-1]", (0xFFFF,), True, ""),
    ("type: float32, scale: 2, max: 3", (0x7FC0, 0), False, "nan is asked"),
    ("type: float32, values: [1]", (0x7FC0, 0), False, "nan is asked"),
]


@pytest.fixture(scope="module")
def scaled() -> Flow:
    """One asset with all these points, each at ten times its number."""
    said = [one for one, *_ in SCALED]
    return flow(
        policy(
            ", ".join(
                f"p{at}: {{at: holding {10 * said.index(one)}, {one}}}" for at, one in enumerate(dict.fromkeys(said))
            )
        )
    )


@pytest.mark.parametrize(("said", "cells", "allowed", "sentence"), SCALED)
def test_limits_in_engineering_units(
    scaled: Flow, said: str, cells: tuple[int, ...], allowed: bool, sentence: str
) -> None:
    at = 10 * [one for one, *_ in SCALED].index(said)
    op = Operation(16, -1, 1, True, (), (Change("holding", at, len(cells), cells),))
    verdict = scaled.decide(op, time.time_ns())
    assert isinstance(verdict, Allow) == allowed, verdict
    if isinstance(verdict, Deny):
        assert sentence in verdict.detail


def test_a_step_and_a_question_in_engineering_units() -> None:
    compiled = policy("p: {at: holding 40, type: uint16, scale: 0.01, unit: bar, max_step: 0.5}")
    asset = compiled.assets["dev"]
    assert asset.points[0].max_step == 50
    state = compiled.point_state()
    assert isinstance(state, PointState)
    state.note_values("dev", "holding", 40, (700,), 10**9)
    good = operation("write p 7.5", asset, MODBUS)
    assert good.writes == (Change("holding", 40, 1, (750,)),)
    assert isinstance(flow(compiled).decide_full(good, time.time_ns(), 10**9 + 1, state, 10**9), Allow)
    verdict = flow(compiled).decide_full(
        operation("write p 7.51", asset, MODBUS), time.time_ns(), 10**9 + 1, state, 10**9
    )
    assert isinstance(verdict, Deny)
    assert "7.51 bar is asked; it is 7, and a step of 0.5 bar is allowed (6.5 to 7.5 bar)" in verdict.detail
    with pytest.raises(CofferdamError, match=r"not a whole number of steps of 0.01"):
        operation("write p 7.505", asset, MODBUS)


def test_orders_by_their_usual_names() -> None:
    orders = {"ABCD": "big", "cdab": "little", "BADC": "big-swapped", "DCBA": "little-swapped"}
    points = (f"{said}: {{at: holding {at}, type: uint32, word_order: {said}}}" for at, said in enumerate(orders))
    for one in policy(", ".join(points), "read: all").assets["dev"].points:
        assert one.word_order == orders[one.name]


NUMBERS = [
    ("modicon", "40101", "holding 100"), ("modicon", "400101", "holding 100"), ("modicon", "4x00101", "holding 100"),
    ("modicon", "30001", "input 0"), ("modicon", "'10001'", "discrete 0"), ("modicon", "'00001'", "coil 0"),
    ("modicon", "holding 100", "holding 100"), ("modicon", "40101-40101", "holding 100"),
    ("one", "holding 1", "holding 0"), ("one", "HR101", "holding 100"), ("one", "'%MW101'", "holding 100"),
    ("zero", "HR100", "holding 100"), ("zero", "'%MW100'", "holding 100"), ("zero", "holding 0x64", "holding 100"),
    ("zero", "holding 0x64-0x64", "holding 100"), ("modicon", "40101.3", "holding 100.3"),
    ("modicon", "400101 bit 3", "holding 100.3"), ("one", "HR101.3", "holding 100.3"),
    ("one", "holding 101.3", "holding 100.3"), ("one", "4x00101", "holding 100"), ("zero", "4x00101", "holding 100"),
    ("zero", "'%MW100.15'", "holding 100.15"),
]  # fmt: skip


@pytest.mark.parametrize("numbering", ["modicon", "one", "zero"])
def test_a_numbering_is_declared(numbering: str) -> None:
    rows = [(at, meant) for which, at, meant in NUMBERS if which == numbering]
    points = ", ".join(
        f"p{number}: {{at: {at}{'' if meant.startswith(('coil', 'discrete')) or '.' in meant else ', type: uint16'}}}"
        for number, (at, meant) in enumerate(rows)
    )
    found = {one.name: one for one in policy(points, "read: all", f"numbering: {numbering},").assets["dev"].points}
    for number, (at, meant) in enumerate(rows):
        one, (cell, _, bits) = found[f"p{number}"], meant.partition(".")
        assert MODBUS.notation.show(one.at) == cell, at
        assert one.mask == (1 << int(bits) if bits else 0), at


WRONG = [
    ("at: holding 0, type: uint16", "numbering: one,", "cells counted from 1"),
    ("at: 40000, type: uint16", "numbering: modicon,", 'found "40000"'),
    ("at: 40101, type: uint16", "", 'did you mean "holding 100"'),
    ("at: 40101.3", "numbering: one,", 'did you mean "holding 101.3"'),
    ("at: 40101, type: uint16", "numbering: one,", 'did you mean "holding 101"'),
    ("at: 101, type: uint16", "numbering: one,", 'did you mean "holding 101"'),
    ("at: holding 101.3-1", "numbering: one,", 'did you mean "holding 101.1-3"'),
    ("at: holding 101-104, type: uint32", "numbering: one,", 'did you mean "holding 101-102"'),
    ("at: 40001-40010, type: text", "", 'did you mean "holding 0-9"'),
    ("at: holding 5, type: bool", "", "one bit: at: holding 5.0"),
    ("at: holding 5, type: bool", "numbering: one,", "one bit: at: holding 5.0"),
    ("at: holding 1, type: uint16, scale: 0", "", "a number other than 0"),
    ("at: holding 1, type: uint16, scale: 0.1, max: 6553.6", "", "0 to 6553.5"),
    ("at: holding 1, type: uint16, values: [70000]", "", "a value that uint16 can hold"),
    ("at: holding 1, type: uint16, values: [0.05], scale: 0.1", "", "a value that uint16 can hold"),
    ("at: holding 1, type: uint16, values: [7], max: 6", "", "one within min and max"),
    ("at: holding 1, type: uint16, scale: 0.1, max_step: 0.05", "", "at least 0.1"),
    ("at: coil 1, scale: 2", "", "a scale of a bit"),
    ("at: holding 1, type: uint32, word_order: ABDC", "", "ABCD"),
]


@pytest.mark.parametrize(("said", "extra", "found"), WRONG)
def test_what_cannot_be_said(said: str, extra: str, found: str) -> None:
    with pytest.raises(PolicyError) as caught:
        point(said, extra)
    said_all = [str(problem) for problem in caught.value.problems]
    assert any(found in text for text in said_all), said_all


def reads(compiled: CompiledPolicy, space: str, start: int, count: int) -> bool:
    op = Operation(3, -1, 1, False, (Span(space, start, count),))
    return isinstance(flow(compiled).decide(op, time.time_ns()), Allow)


def test_all_cells() -> None:
    compiled = policy("", "registers: all")
    assert all(reads(compiled, space, 65535, 1) for space in ("holding", "input", "coil", "discrete"))
    assert not reads(compiled, "file:1", 0, 1)
    with pytest.raises(PolicyError, match="does not load"):
        policy("", "write_registers: all")
    with pytest.raises(PolicyError, match="does not load"):
        policy("", "read: all")


def test_a_block_over_gaps() -> None:
    points = "a: {at: holding 100, type: uint16}, b: {at: holding 110, type: uint32}, c: {at: holding 500, type: int16}"
    assert not reads(policy(points, "read: all"), "holding", 100, 12)
    over = policy(points, "read: all, gaps: allow")
    assert reads(over, "holding", 100, 12)
    assert not reads(over, "holding", 100, 13), "nothing behind the last"
    assert not reads(over, "holding", 99, 2)
    assert not reads(over, "holding", 111, 390), "no further than one request goes"
    op = Operation(16, -1, 1, True, (), (Change("holding", 101, 1, (1,)),))
    assert isinstance(flow(over).decide(op, time.time_ns()), Deny), "a gap is read and not written"
