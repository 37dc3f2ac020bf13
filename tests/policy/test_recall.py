"""What a flow recalls of earlier reads: exactly what `decide` said, for as long as it would say it again."""

from __future__ import annotations

import pytest

from cofferdam.model import Allow, Change, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points import decide
from cofferdam.policy.points.decide import Flow

S = 1_000_000_000
EXPIRY = 1_893_542_400 * S  # the end of 2030-01-01 UTC
POLICY = """
site: test
zones: {office: {side: it}, plant: {side: ot}}
assets: {plc: {zone: plant, address: 10.0.0.1, protocol: modbus, unit: 1}}
principals: {erp: {zone: office, addresses: [10.1.0.1]}}
conduits:
  main:
    {from: office, to: plant, broker: modbus, owner: me, reason: tests, expires: 2030-01-01,
     allow: [{who: erp, asset: plc, registers: [holding 0-99], write_registers: [holding 0-99]}]}
"""


@pytest.fixture
def flow() -> Flow:
    found = compile_policy(loads(POLICY), now_ns=EXPIRY - 90 * 86_400 * S).flow("modbus", "10.1.0.1", "plc", "office")
    assert isinstance(found, Flow)
    return found


def read(start: int) -> Operation:
    return Operation(3, -1, 1, False, (Span("holding", start, 1),))


def allow(flow: Flow, op: Operation, wall: int) -> Allow:
    verdict = flow.decide(op, wall)
    assert isinstance(verdict, Allow)
    return verdict


def test_it_recalls_what_was_decided_until_the_expiry(flow: Flow) -> None:
    wall = EXPIRY - 10 * S
    verdict = allow(flow, read(1), wall)
    flow.remember("question", read(1), verdict)
    for at in (wall, EXPIRY - 1):
        known = flow.recall("question", at)
        assert known is not None and (known.request, known.operation, known.verdict) == ("question", read(1), verdict)
        assert (known.conduit, known.cells, known.unit) == (verdict.conduit, 1, 1)
    assert flow.recall("question", EXPIRY) is None
    assert flow.recall("another", wall) is None


def test_a_clock_that_was_set_back_makes_it_judge_anew(flow: Flow) -> None:
    wall = EXPIRY - 10 * S
    flow.remember("question", read(1), allow(flow, read(1), wall))
    assert flow.recall("question", wall - 1) is None


def test_another_decision_beyond_the_expiry_forgets_all(flow: Flow) -> None:
    wall = EXPIRY - 10 * S
    flow.remember("question", read(1), allow(flow, read(1), wall))
    assert not isinstance(flow.decide(read(1), EXPIRY), Allow)
    # Time goes back to before the expiry: what was remembered there is gone, not merely hidden.
    assert flow.recall("question", wall) is None
    allow(flow, read(1), wall)
    assert flow.recall("question", wall) is None


@pytest.mark.parametrize(
    "op",
    [
        Operation(6, -1, 1, True, (), (Change("holding", 1, 1, (5,)),)),
        Operation(23, -1, 1, False, (Span("holding", 1, 1),), (Change("holding", 1, 1, (5,)),)),
        Operation(3, -1, 1, True, (Span("holding", 1, 1),)),
    ],
)
def test_nothing_that_may_change_the_device_is_remembered(flow: Flow, op: Operation) -> None:
    wall = EXPIRY - 10 * S
    flow.remember("question", op, allow(flow, read(1), wall))
    assert flow.recall("question", wall) is None


def test_it_is_bounded(flow: Flow) -> None:
    wall = EXPIRY - 10 * S
    verdict = allow(flow, read(1), wall)
    for number in range(3 * decide.CACHE_ENTRIES):
        flow.remember(number, read(1), verdict)
    known = sum(flow.recall(number, wall) is not None for number in range(3 * decide.CACHE_ENTRIES))
    assert 0 < known <= decide.CACHE_ENTRIES
