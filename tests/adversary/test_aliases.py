"""One physical cell has one set of limits, by whatever name a policy calls its device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import PolicyError
from cofferdam.gate.crew.plan import plan_crews
from cofferdam.model import Allow, Change, Deny, Fault, Operation
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.stage import WALL, Stage, read

POLICY = """
site: s
zones: {{it: {{side: it}}, plant: {{side: ot}}, other: {{side: ot}}}}
assets:
  one: {{zone: plant, address: {a}, port: 5020, protocol: modbus, unit: {unit}, listen: 10.0.0.9:502{gate},
    points: {{speed: {{at: holding 1, type: uint16, max: 100}}}}}}
  two: {{zone: {zone}, address: "{b}", port: 5020, protocol: modbus, unit: {twin}, listen: 10.0.0.9:503{gate}}}
principals: {{who: {{zone: it, addresses: [10.0.0.0/8]}}}}
conduits:
  a: {{from: it, to: plant, broker: modbus, owner: o, reason: r, allow: [{{who: who, asset: one, write: [speed]}}]}}
  b: {{from: it, to: {zone}, broker: modbus, owner: o, reason: r,
    allow: [{{who: who, asset: two, write_registers: [holding 0-9]}}]}}
"""


def policy(
    unit: int | str = 1, twin: int | str = 1, zone: str = "other", *, b: str = "10.1.0.1", serial: bool = False
) -> CompiledPolicy:
    gate = ", gateway: serial" if serial else ""
    text = POLICY.format(a="10.1.0.1", b=b, unit=unit, twin=twin, zone=zone, gate=gate)
    return compile_policy(loads(text), now_ns=WALL)


@pytest.mark.parametrize("zone", ["plant", "other"])
@pytest.mark.parametrize(("unit", "twin"), [(1, 1), (1, 255), (1, 0), (255, 0), (255, 7), (1, 2)])
@pytest.mark.parametrize("b", ["10.1.0.1", "::ffff:10.1.0.1"])
def test_a_second_name_of_a_device_is_no_way_round_its_limits(unit: int, twin: int, zone: str, b: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(unit, twin, zone, b=b)
    assert [problem.check for problem in caught.value.problems] == ["device"]  # type: ignore[attr-defined]


def test_units_of_a_serial_line_are_told_apart_but_for_its_broadcast() -> None:
    policy(1, 255, serial=True)
    policy(1, 2, serial=True)
    with pytest.raises(PolicyError) as caught:
        policy(1, 2)
    assert "or gateway: serial for both" in str(caught.value.problems)
    with pytest.raises(PolicyError):
        policy(1, 0, serial=True)


def test_one_crew_serves_a_device_that_two_zones_name() -> None:
    """So that its `connections` are kept once."""
    [crew] = plan_crews(policy(1, 2, serial=True)).values()
    assert crew.asset_names == ("one", "two")


@given(st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_no_two_writable_names_meet_in_one_unit(unit: int, twin: int, serial: bool) -> None:
    meets = unit == twin or 0 in (unit, twin) or not serial
    try:
        policy(unit, twin, serial=serial)
    except PolicyError:
        assert meets
    else:
        assert not meets


@pytest.mark.parametrize(
    "point",
    ["holding 1, type: uint16, max: 100", "holding 1-2, type: text", "holding 1, type: bcd",
     "holding 1-2, type: float32", "holding 1, type: int16, scale_from: holding 9", "coil 1, writes_per_minute: 5"],
)  # fmt: skip
def test_all_that_is_judged_at_a_point_is_a_limit(point: str) -> None:
    """Texts, decimal digits and numbers that are none were judged by the one name only."""
    text = POLICY.format(a="10.1.0.1", b="10.1.0.1", unit=1, twin=2, zone="other", gate="")
    text = text.replace("holding 1, type: uint16, max: 100", point)
    with pytest.raises(PolicyError) as caught:
        compile_policy(loads(text), now_ns=WALL)
    assert [problem.check for problem in caught.value.problems] == ["device"]  # type: ignore[attr-defined]


def test_words_whose_bits_are_read_first_are_written_by_one_name() -> None:
    text = POLICY.format(a="10.1.0.1", b="10.1.0.1", unit=1, twin=2, zone="other", gate="")
    bits = text.replace("speed: {at: holding 1, type: uint16, max: 100}", "run: {at: holding 1.3}")
    bits = bits.replace("write: [speed]", "write: [run]")
    compile_policy(loads(bits), now_ns=WALL)
    with pytest.raises(PolicyError):
        compile_policy(loads(bits.replace("unit: 1, ", "unit: 1, write_bits: read-first, ", 1)), now_ns=WALL)


def flow(unit: int | str) -> Flow:
    text = POLICY.format(a="10.1.0.1", b="10.1.0.2", unit=1, twin=unit, zone="plant", gate="")
    found = compile_policy(loads(text), now_ns=WALL).flow("modbus", "10.0.0.1", "two")
    assert isinstance(found, Flow)
    return found


def test_a_broadcast_has_to_be_named() -> None:
    write = Operation(6, -1, 0, True, (), (Change("holding", 1, 1, (7,)),))
    denied = flow("any").decide(write, WALL)
    assert isinstance(denied, Deny) and denied.fault is Fault.UNIT
    assert isinstance(flow(0).decide(write, WALL), Allow)
    assert isinstance(flow("any").decide(Operation(6, -1, 9, True, (), write.writes), WALL), Allow)


def test_a_listener_at_every_address_serves_its_asset() -> None:
    text = POLICY.format(a="10.1.0.1", b="10.1.0.2", unit=1, twin=1, zone="plant", gate="").replace(
        "listen: 10.0.0.9:502", "listen: 0.0.0.0:502"
    )

    class Here(Stage):
        zones = (("it",), "plant")

    stage = Here(policy=compile_policy(loads(text), now_ns=WALL))
    client = stage.client("10.0.0.1")
    client.on_data(read(1, 1, 1))
    assert not client.closed and client.take()


@pytest.mark.parametrize("text", ["port: 0144", "unit: 010", "connections: 01"])
def test_a_number_that_some_read_as_octal_is_refused(text: str) -> None:
    field = text.partition(":")[0]
    said = POLICY.format(a="10.1.0.1", b="10.1.0.2", unit=1, twin=1, zone="plant", gate="")
    said = said.replace("port: 5020, ", "", 1).replace("unit: 1, ", "", 1).replace("  one: {", f"  one: {{{text}, ")
    with pytest.raises(PolicyError) as caught:
        loads(said)
    assert any("octal" in str(problem) for problem in caught.value.problems), field


def test_a_step_in_a_file_record_is_refused_when_it_is_written() -> None:
    said = POLICY.format(a="10.1.0.1", b="10.1.0.2", unit=1, twin=1, zone="plant", gate="")
    with pytest.raises(PolicyError) as caught:
        loads(said.replace("at: holding 1, type: uint16, max: 100", 'at: "file:4 1", type: uint16, max_step: 5'))
    assert [problem.check for problem in caught.value.problems] == ["step"]  # type: ignore[attr-defined]


MAPPED = """
site: s
zones: {it: {side: it}, plant: {side: ot}}
assets:
  plc: {zone: plant, address: 10.1.0.1, protocol: modbus, listen: 10.0.0.9:502, bits_of: {coil: holding 100},
    points: {speed: {at: holding 101, type: uint16, max: 100}, free: {at: holding 102, type: uint16},
             valve: {at: coil 80, writes_per_minute: 1}}}
principals: {who: {zone: it, addresses: [10.0.0.0/8]}}
conduits:
  a: {from: it, to: plant, broker: modbus, owner: o, reason: r,
    allow: [{who: who, asset: plc, write: all, write_registers: [coil 0-99, holding 0-199]}]}
"""


def mapped(text: str = MAPPED) -> Flow:
    found = compile_policy(loads(text), now_ns=WALL).flow("modbus", "10.0.0.1", "plc")
    assert isinstance(found, Flow)
    return found


@given(st.integers(0, 99), st.integers(1, 40))
def test_bits_that_a_device_keeps_in_words_are_no_way_round_their_limits(start: int, count: int) -> None:
    """By coils the word of a limited point would be written, by words the coil of one."""
    count = min(count, 100 - start)
    bits = Operation(15, -1, 1, True, (), (Change("coil", start, count, (1,) * count),))
    meets = start < 32 and start + count > 16
    verdict = mapped().decide(bits, WALL)
    assert isinstance(verdict, Deny) is meets
    words = Operation(16, -1, 1, True, (), (Change("holding", 60 + start, 1, (50,)),))
    verdict = mapped().decide(words, WALL)
    assert isinstance(verdict, Deny) is (60 + start == 105)
    if isinstance(verdict, Deny):
        assert verdict.fault is Fault.VALUE
        assert "words of valve are asked, which the device keeps in coil 80" in verdict.detail


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{holding: holding 100}", 'found the space "holding", expected a space of bits'),
        ("{coil: discrete 1}", "found discrete 1, expected the word of its first bit, of holding"),
        ("{coil: holding 1-2}", "found holding 1-2, expected the word of its first bit"),
        ("{coil: 40101}", "expected a space and cells counted from 0"),
    ],
)
def test_a_space_that_is_in_no_words_is_told(said: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        mapped(MAPPED.replace("{coil: holding 100}", said))
    assert message in " ".join(map(str, caught.value.problems))
