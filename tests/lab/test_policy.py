"""The demo's policy means what the demo says it means."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from cofferdam.lab import layout
from cofferdam.lab.play import policy as policy_of
from cofferdam.lab.water import registers
from cofferdam.lab.water.play import Water
from cofferdam.model import Change, Deny, Fault, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from tests.lab.shown import shown_policy

MONDAY_NOON = int(datetime(2027, 1, 4, 12, tzinfo=UTC).timestamp()) * 10**9
MONDAY_NIGHT = int(datetime(2027, 1, 4, 23, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="module")
def policy() -> CompiledPolicy:
    return compile_policy(loads(shown_policy()), now_ns=MONDAY_NOON)


def fault(policy: CompiledPolicy, source: str, operation: Operation, at: int = MONDAY_NOON) -> str:
    """Which field fails, or "" where it is allowed (as far as that shows without the device's values)."""
    flow = policy.flow("modbus", source, "plc-7")
    verdict = flow if isinstance(flow, Deny) else flow.decide(operation, at)
    return verdict.fault.value if isinstance(verdict, Deny) else ""


def read(point: str) -> Operation:
    field = registers.BY_NAME[point]
    code = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}[field.space]
    return Operation(code, -1, 1, False, reads=(Span(field.space, field.start, field.width),))


def write(point: str, value: int) -> Operation:
    field = registers.BY_NAME[point]
    code = 5 if field.space == "coil" else 6
    return Operation(code, -1, 1, True, writes=(Change(field.space, field.start, 1, (value,)),))


ERP, OPERATOR, INTRUDER = layout.SHIPPED.erp, layout.SHIPPED.operator, layout.SHIPPED.intruder


def test_lint_has_nothing_to_say() -> None:
    assert lint(loads(shown_policy())) == ()


@pytest.mark.parametrize(
    ("source", "operation", "failing"),
    [
        (ERP, read("flow_total"), ""),
        (ERP, read("tank_level"), ""),
        (ERP, read("pressure"), Fault.ADDRESS),
        (ERP, write("pump_speed", 900), Fault.FUNCTION),
        (OPERATOR, read("pump_speed"), ""),
        (OPERATOR, write("pump_speed", 900), ""),
        (OPERATOR, write("pump_speed", 1501), Fault.VALUE),
        (OPERATOR, write("inlet_valve", 0), ""),
        (INTRUDER, read("flow_total"), Fault.PRINCIPAL),
        (INTRUDER, write("pump_speed", 900), Fault.PRINCIPAL),
    ],
)
def test_who_may_do_what(policy: CompiledPolicy, source: str, operation: Operation, failing: str) -> None:
    assert fault(policy, source, operation) == failing


def test_the_inlet_moves_by_day_only(policy: CompiledPolicy) -> None:
    assert fault(policy, OPERATOR, write("inlet_valve", 0), MONDAY_NIGHT) == Fault.WINDOW
    assert fault(policy, OPERATOR, write("pump_speed", 900), MONDAY_NIGHT) == ""


@pytest.mark.parametrize("point", registers.SAFETY)
@pytest.mark.parametrize("source", [ERP, OPERATOR, INTRUDER])
def test_nobody_reaches_the_safety_settings(policy: CompiledPolicy, source: str, point: str) -> None:
    assert fault(policy, source, write(point, 1)) != ""
    assert fault(policy, source, read(point)) != ""


def test_the_namespace_layouts_policy_loads_too() -> None:
    ends = (layout.GateEnd("cdl0it", "10.1.0.1/16"), layout.GateEnd("cdl0ot", "10.20.0.1/16"))
    addresses = msgspec.structs.replace(
        layout.SHIPPED, erp="10.1.0.20", operators="10.1.5.0/24", device="10.20.0.17", device_port=502,
        listen="100.64.7.17", listen_port=502, ends=ends,
    )  # fmt: skip
    compiled = compile_policy(loads(policy_of((Water(),), addresses)[0]), now_ns=MONDAY_NOON)
    assert compiled.assets["plc-7"].listen == ("100.64.7.17", 502)
    assert fault(compiled, "10.1.0.20", read("flow_total")) == ""
