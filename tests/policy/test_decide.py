"""Decisions: a table of vectors, and against a slow, obvious decision for policies and requests made at random."""

from __future__ import annotations

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.limits import Limits
from cofferdam.model import NEVER, Allow, Asset, Change, Deny, Fault, NeedValues, Operation, Point, Side, Span
from cofferdam.policy import rows
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points import values
from cofferdam.policy.points.decide import CACHE_ENTRIES, Flow
from cofferdam.policy.table import CompiledPolicy
from cofferdam.values import ValueType
from tests.examples import examples
from tests.policy.plant import BASE, NOW, conduit, flow, function, ns, policy, read, remembering, write

SECOND = 10**9
SIMPLE = policy(
    conduit(
        "{who: ops, asset: plc, read: [flow, level]}",
        "{who: ops, asset: plc, registers: [holding 102-109, coil 0-7]}",
        "{who: ops, asset: plc, write: [speed, torque, ramp, run], write_registers: [holding 300-309, holding 400]}",
        '{who: ops, asset: plc, functions: [8, "43/14"], write_functions: "8/1"}',
    )
    + conduit("{who: erp, asset: plc, read: flow}", "{who: erp, asset: plc, read: serial}", name="d")
    + conduit("{who: erp, asset: plc, registers: holding 102}", name="e", extra="deny: silent")
)


def f32(value: float) -> tuple[int, ...]:
    return tuple(struct.unpack(">HH", struct.pack(">f", value)))


OPERATIONS: list[tuple[Operation, str | Fault, str]] = [
    (read("holding", 100, 2), "c/0", ""),
    (read("input", 12, 2), "c/0", ""),
    (read("holding", 101, 1), "c/0", ""),
    (read("holding", 100, 10), "c/0+1", ""),  # two adjacent rules of one conduit
    (read("holding", 99, 2), Fault.ADDRESS, "the nearest allowed is flow (holding 100-101)"),
    (read("holding", 100, 11), Fault.ADDRESS, "the nearest allowed is holding 102-109"),
    (read("holding", 65535, 1), Fault.ADDRESS, "read holding 65535 is asked"),
    (read("input", 14), Fault.ADDRESS, "the nearest allowed is level (input 12-13)"),
    (read("discrete", 3), Fault.ADDRESS, "nothing of discrete is allowed"),
    (read("holding", 100, 2, unit=2), Fault.UNIT, "unit 2 is asked; plc is unit 1"),
    (read("holding", 100, 0), Fault.ADDRESS, "1 or more are allowed"),
    (read("holding", 100, -5), Fault.ADDRESS, "1 or more are allowed"),
    (read("holding", 200), Fault.ADDRESS, "read holding 200 is asked"),  # writing does not imply reading
    (write("holding", 200, 1500), "c/2", ""),
    (write("holding", 200, 1501), Fault.VALUE, "speed = 1501 rpm is asked; 0 to 1500 rpm is allowed"),
    (write("holding", 200, 65536), Fault.VALUE, "a cell value outside 0 to 65535"),
    (write("holding", 200, -1), Fault.VALUE, "a cell value outside 0 to 65535"),
    (write("coil", 0, 1), "c/2", ""),
    (write("coil", 0, 2), Fault.VALUE, "a cell value outside 0 to 1"),
    (write("coil", 1, 1), Fault.ADDRESS, "the nearest allowed is run (coil 0)"),
    (write("holding", 200, 1, 1), Fault.ADDRESS, "write holding 200-201 is asked"),
    (write("holding", 204, 0xFFFF, 0xFFFB), "c/2", ""),  # -5
    (write("holding", 204, 0xFFFF, 0xFFFA), Fault.VALUE, "ramp = -6 is asked; -5 to 5 is allowed"),
    (write("holding", 202, *f32(0.1)[::-1]), "c/2", ""),  # the limit 0.1 as a 32-bit float
    (write("holding", 202, *f32(0.1)), Fault.VALUE, "torque"),  # the other word order
    (write("holding", 202, *f32(-1.6)[::-1]), Fault.VALUE, "-1.5 to 0.100000001 is allowed"),
    (write("holding", 202, *f32(math.nan)[::-1]), Fault.VALUE, "torque = nan is asked"),
    (write("holding", 202, *f32(-math.inf)[::-1]), Fault.VALUE, "torque = -inf is asked"),
    (write("holding", 202, 0), Fault.VALUE, "202 of torque is asked; holding 202-203 is allowed as a whole"),
    (write("holding", 205, 0), Fault.VALUE, "only holding 205 of ramp"),
    (write("holding", 300, 1, 2, 3, 4), "c/2", ""),  # raw cells that make the whole of a point
    (write("holding", 300, 1, 2, 3), Fault.VALUE, "only holding 300-302 of serial"),
    (write("holding", 304, 1), "c/2", ""),
    (write("holding", 202, 0, 0, 0, 0), "c/2", ""),  # two points in one request
    (Operation(22, -1, 1, True, (), (Change("holding", 400, 1, (0xFF, 1), False),)), "c/2", ""),
    (Operation(22, -1, 1, True, (), (Change("coil", 0, 1, (0xFF, 1), False),)), "c/2", ""),
    (Operation(22, -1, 1, True, (), (Change("holding", 200, 1, (0xFF, 1), False),)), Fault.VALUE, "cannot be checked"),
    (Operation(22, -1, 1, True, (), (Change("holding", 300, 1, (0xFF, 1), False),)), Fault.VALUE, "only holding 300"),
    (Operation(16, -1, 1, True, (), (Change("holding", 200, 1, (1, 2)),)), Fault.VALUE, "2 values for 1 cells"),
    (Operation(16, -1, 1, True, (), (Change("holding", 200, 1, ()),)), Fault.VALUE, "0 values for 1 cells"),
    (Operation(16, -1, 1, True, (), (Change("holding", 200, 0, ()),)), Fault.ADDRESS, "1 or more are allowed"),
    (Operation(21, -1, 1, True, (), (Change("holding", 200, 1, (1,)),) * 2), Fault.VALUE, "asked twice"),
    (Operation(23, -1, 1, True, (Span("holding", 100, 2),), (Change("holding", 200, 1, (7,)),)), "c/0+2", ""),
    (Operation(23, -1, 1, True, (Span("holding", 99, 2),), (Change("holding", 200, 1, (7,)),)), Fault.ADDRESS, "99"),
    (Operation(6, -1, 1, False, (), (Change("holding", 201, 1, (7,)),)), Fault.ADDRESS, "write holding 201"),  # a lie
    (Operation(3, -1, 1, True, (Span("holding", 100, 2),)), Fault.FUNCTION, "function 3, which may change the device"),
    (function(8, 0), "c/3", ""),
    (function(8, 2), "c/3", ""),
    (function(8, 1, changing=True), "c/3", ""),
    (function(8, 4, changing=True), Fault.FUNCTION, "allowed write_functions: 8/1"),
    (function(43, 14), "c/3", ""),
    (function(43, 13), Fault.FUNCTION, "function 43/13 is asked; allowed functions: 8, 43/14"),
    (function(17), Fault.FUNCTION, "function 17"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "expected", "words"), OPERATIONS, ids=[str(n) for n in range(len(OPERATIONS))])
def test_vectors(op: Operation, expected: str | Fault, words: str) -> None:
    asked = flow(SIMPLE)
    verdict = asked.decide(op, NOW)
    assert asked.decide(op, NOW) == verdict  # from the cache
    if isinstance(expected, Fault):
        assert isinstance(verdict, Deny), verdict
        assert (verdict.fault, verdict.conduit) == (expected, "c")
        assert verdict.rule.startswith("c/")
        assert words in verdict.detail
    else:
        assert verdict == Allow("c", expected, NEVER)


def test_conduits_do_not_add_up() -> None:
    asked = flow(SIMPLE, "10.1.0.20")
    assert asked.decide(read("holding", 100, 2), NOW) == Allow("d", "d/0", NEVER)
    assert asked.decide(read("holding", 102), NOW) == Allow("e", "e/0", NEVER)
    verdict = asked.decide(read("holding", 100, 3), NOW)
    assert isinstance(verdict, Deny)
    assert verdict.fault is Fault.ADDRESS
    assert asked.conduits == ("d", "e")
    assert not asked.silent
    only_silent = policy(conduit("{who: erp, asset: plc, read: all}", extra="deny: silent"))
    assert flow(only_silent, "10.1.0.20").silent


@pytest.mark.parametrize(
    ("broker", "source", "asset", "zone", "fault", "words"),
    [
        ("modbus", "10.1.6.1", "plc", None, Fault.PRINCIPAL, "no principal has that address"),
        ("modbus", "rubbish", "plc", None, Fault.PRINCIPAL, "no principal has that address"),
        ("modbus", "10.1.5.1", "plc", "plant", Fault.PRINCIPAL, "no principal in zone plant"),
        ("modbus", "10.1.5.1", "plc-8", None, Fault.ASSET, "the policy has no such asset"),
        ("opcua", "10.1.5.1", "plc", None, Fault.CONDUIT, "broker opcua is asked for plc; ops may use modbus"),
    ],
)
def test_no_flow(broker: str, source: str, asset: str, zone: str | None, fault: Fault, words: str) -> None:
    found = SIMPLE.flow(broker, source, asset, zone)
    assert isinstance(found, Deny)
    assert found.fault is fault
    assert words in found.detail


def test_no_flow_names_the_nearest_rule() -> None:
    compiled = policy(conduit("{who: erp, asset: plc, read: all}"))
    found = compiled.flow("modbus", "10.1.5.1", "plc")
    assert found == Deny("c", "c/0", Fault.PRINCIPAL, "ops asks for plc; erp may")
    assert isinstance(compiled.flow("modbus", "10.1.0.20", "plc"), Flow)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("10.1.0.20", ("erp",)), ("10.1.5.0", ("ops",)), ("10.1.5.255", ("ops",)), ("10.1.6.0", ()),
        ("fd00::1", ("ops",)), ("fd00:0:0:1::1", ()), ("::ffff:10.1.0.20", ("erp",)), ("", ()), ("10.1.5.0/24", ()),
    ],
)  # fmt: skip
def test_principals_of_an_address(source: str, names: tuple[str, ...]) -> None:
    assert SIMPLE.principals_of(source) == names


def test_expiry_and_window() -> None:
    extra = "expires: 2026-11-27\nwindow: {days: mon-fri, from: 06:00, to: 18:00, zone: Europe/Paris}"
    asked = flow(policy(conduit("{who: ops, asset: plc, read: flow}", extra=extra)))
    op = read("holding", 100, 2)
    assert asked.decide(op, ns("2026-11-23T09:00:00")) == Allow("c", "c/0", ns("2026-11-23T17:00:00"))
    closed = asked.decide(op, ns("2026-11-23T17:00:00"))
    assert closed == Deny(
        "c", "c/0", Fault.WINDOW, "Mon 2026-11-23 18:00 Europe/Paris is now; open mon-fri 06:00-18:00 Europe/Paris"
    )
    # An operation that fails otherwise as well is told the nearer fault: the address.
    wrong = asked.decide(read("holding", 99), ns("2026-11-23T17:00:00"))
    assert isinstance(wrong, Deny)
    assert wrong.fault is Fault.ADDRESS
    assert asked.decide(op, ns("2026-11-27T16:59:59")) == Allow("c", "c/0", ns("2026-11-27T17:00:00"))
    gone = asked.decide(op, ns("2026-11-30T09:00:00"))
    assert isinstance(gone, Deny)
    assert gone.fault is Fault.EXPIRED
    assert gone.detail == "2026-11-30 09:00:00 UTC is now; c expired at the end of 2026-11-27 UTC"
    # The clock jumps back: allowed again.
    assert isinstance(asked.decide(op, ns("2026-11-24T09:00:00")), Allow)


@pytest.mark.parametrize(
    ("expires", "last"),
    [
        ("2027-06-30", "2027-06-30T23:59:59"),
        ("2027-06-30 Europe/Paris", "2027-06-30T23:59:59+02:00"),
        ("2027-03-27 Europe/Paris", "2027-03-27T23:59:59+01:00"),
        ("2027-06-30 America/New_York", "2027-06-30T23:59:59-04:00"),
    ],
)
def test_expiry_is_the_end_of_the_day(expires: str, last: str) -> None:
    asked = flow(policy(conduit("{who: ops, asset: plc, read: flow}", extra=f"expires: {expires}")))
    assert asked.decide(read("holding", 100), ns(last)) == Allow("c", "c/0", ns(last) + SECOND)
    assert isinstance(asked.decide(read("holding", 100), ns(last) + SECOND), Deny)


# --- state: max_step and writes_per_minute


def test_step_needs_a_known_value() -> None:
    asked, state = flow(SIMPLE), remembering(SIMPLE)
    op = write("holding", 200, 600)
    assert asked.decide_full(op, NOW, 0, state) == NeedValues((Span("holding", 200, 1),))
    state.note_values("plc", "holding", 199, (1, 550, 1), 0)
    assert asked.decide_full(op, NOW, SECOND, state) == Allow("c", "c/2", NEVER)
    too_far = asked.decide_full(write("holding", 200, 651), NOW, SECOND, state)
    assert too_far == Deny(
        "c", "c/2", Fault.STEP,
        "speed = 651 rpm is asked; it is 550, and a step of 100 rpm is allowed (450 to 650 rpm)",
    )  # fmt: skip
    # What is allowed now is within the range as well, but where the device stands outside of it.
    for known, span in ((50, "0 to 150 rpm"), (1450, "1350 to 1500 rpm"), (1700, "1600 to 1800 rpm")):
        there = remembering(SIMPLE)
        there.note_values("plc", "holding", 199, (1, known, 1), 0)
        far = asked.decide_full(write("holding", 200, 700), NOW, SECOND, there)
        assert isinstance(far, Deny) and far.detail.endswith(f"is allowed ({span})")
    # Out of range comes before the step.
    beyond = asked.decide_full(write("holding", 200, 1501), NOW, SECOND, state)
    assert isinstance(beyond, Deny)
    assert beyond.fault is Fault.VALUE
    # Too old, and from the future, is unknown.
    assert isinstance(asked.decide_full(op, NOW, 5 * SECOND, state), Allow)
    assert isinstance(asked.decide_full(op, NOW, 5 * SECOND + 1, state), NeedValues)
    assert isinstance(asked.decide_full(op, NOW, -1, state), NeedValues)


def test_a_write_makes_the_value_unknown_until_it_is_confirmed() -> None:
    asked, state = flow(SIMPLE), remembering(SIMPLE)
    state.note_values("plc", "holding", 200, (550,), 0)
    op = write("holding", 200, 600)
    state.note_write("plc", op, 10)
    assert isinstance(asked.decide_full(op, NOW, 11, state), NeedValues)
    # The answer to a read that was sent before the write tells nothing.
    state.note_values("plc", "holding", 200, (550,), 9)
    assert isinstance(asked.decide_full(op, NOW, 11, state), NeedValues)
    state.note_confirmed("plc", op, 10)
    assert isinstance(asked.decide_full(write("holding", 200, 700), NOW, 11, state), Allow)
    denied = asked.decide_full(write("holding", 200, 701), NOW, 11, state)
    assert isinstance(denied, Deny)
    assert denied.fault is Fault.STEP
    # A late confirmation of an earlier write says nothing after a later one was sent.
    state.note_write("plc", write("holding", 200, 650), 20)
    state.note_confirmed("plc", op, 10)
    assert state.known("plc", "speed", 21) is None


@pytest.mark.parametrize("held", [math.nan, math.inf, -math.inf])
def test_a_device_that_holds_no_number_is_not_written_past_max_step(held: float) -> None:
    state = remembering(SIMPLE)
    point = Point("t", Span("holding", 0, 2), ValueType.FLOAT32, max_step=1.0)
    table = SIMPLE.table
    asset = Asset("plc", "plant", "10.0.0.1", 502, "modbus", 1, None, points=(point,))
    rule = rows.Rule(0, ("ops",), "plc", writes=(rows.Piece(point.at, "t"),))
    compiled = make(
        asset, [rows.Conduit("c", "office", "plant", "modbus", "o", "r", rows.Proxy((rule,)))], table.principals
    )
    state = remembering(compiled)
    state.note_values("plc", "holding", 0, f32(held), 0)
    verdict = flow(compiled).decide_full(write("holding", 0, *f32(1.0)), NOW, 1, state)
    assert isinstance(verdict, Deny)
    assert verdict.fault is Fault.STEP
    # 0.1 steps of 32-bit floats are not refused for the rounding.
    tenth = Asset("plc", "plant", "", 502, "modbus", 1, None, points=(Point("t", point.at, point.type, max_step=0.1),))
    compiled = make(tenth, list(compiled.conduits.values()), table.principals)
    state = remembering(compiled)
    state.note_values("plc", "holding", 0, f32(0.2), 0)
    assert isinstance(flow(compiled).decide_full(write("holding", 0, *f32(0.3)), NOW, 1, state), Allow)
    assert isinstance(flow(compiled).decide_full(write("holding", 0, *f32(0.301)), NOW, 1, state), Deny)


def test_writes_per_minute_slides() -> None:
    asked, state = flow(SIMPLE), remembering(SIMPLE)
    op = write("holding", 200, 100)

    def verdict(mono: int) -> object:
        state.note_values("plc", "holding", 200, (100,), mono)
        return asked.decide_full(op, NOW, mono, state)

    for mono in (1, 10 * SECOND):
        assert isinstance(verdict(mono), Allow)
        state.note_write("plc", op, mono)
        state.note_ended("plc", op, mono)
    denied = verdict(20 * SECOND)
    assert denied == Deny(
        "c", "c/2", Fault.RATE,
        "one more write of speed is asked; 2 writes a minute are allowed, the next one in 41 s",
    )  # fmt: skip
    assert isinstance(verdict(60 * SECOND), Deny)
    assert isinstance(verdict(60 * SECOND + 1), Allow)
    state.note_write("plc", op, 60 * SECOND + 1)
    state.note_ended("plc", op, 60 * SECOND + 1)
    assert isinstance(verdict(69 * SECOND), Deny)
    # A new policy does not wipe the slate.
    state.adopt(SIMPLE.assets)
    assert isinstance(verdict(69 * SECOND), Deny)


def test_the_cache_is_bounded_and_right() -> None:
    asked, free = flow(SIMPLE), {200, *range(304, 310), 400}
    for start in range(3 * CACHE_ENTRIES):
        assert isinstance(asked.decide(read("holding", start), NOW), Allow) == (100 <= start < 110)
        assert isinstance(asked.decide(write("holding", start, 0), NOW), Allow) == (start in free)
    assert len(asked._verdicts) <= CACHE_ENTRIES
    assert len(asked._forms) <= CACHE_ENTRIES


# --- against a slow, obvious decision


def make(
    asset: Asset, conduits: list[rows.Conduit], principals: dict[str, rows.Principal] | None = None
) -> CompiledPolicy:
    zones = {"office": rows.Zone("office", Side.IT), "plant": rows.Zone("plant", Side.OT)}
    people = principals or {"p": rows.Principal("p", "office", ("10.1.5.9/32",))}
    named = {conduit.name: conduit for conduit in conduits}
    return CompiledPolicy(
        rows.Table(
            rows.FORMAT, "s", zones, {asset.name: asset}, {}, people, named, Limits(), rows.Gate(), rows.Audit(), {}
        )
    )  # fmt: skip


SPACES = ("holding", "coil")
spans = st.builds(Span, st.sampled_from(SPACES), st.integers(0, 10), st.integers(1, 3))
wide = st.builds(Span, st.sampled_from(SPACES), st.integers(0, 6), st.integers(1, 10))
pieces = st.lists(st.builds(rows.Piece, wide), max_size=3).map(tuple)
codes = st.lists(st.tuples(st.sampled_from((8, 43)), st.sampled_from((-1, 1, 14))), max_size=2).map(tuple)
rules = st.builds(
    rows.Rule, number=st.just(0), who=st.just(("p",)), asset=st.just("a"),
    reads=pieces, writes=pieces, functions=codes, write_functions=codes,
)  # fmt: skip
TYPES = (ValueType.UINT16, ValueType.INT16, ValueType.UINT32, ValueType.INT32)


@st.composite
def assets(draw: st.DrawFn) -> Asset:
    points, start = [], 0
    for index in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(TYPES))
        start += draw(st.integers(0, 3))
        low = draw(st.none() | st.integers(-3, 3).map(float))
        points.append(
            Point(
                f"x{index}", Span("holding", start, values.WORDS[kind]), kind, draw(st.sampled_from(("big", "little"))),
                min=low, max=draw(st.none() | st.integers(3, 70000).map(float)),
            )
        )  # fmt: skip
        start += values.WORDS[kind]
    return Asset("a", "plant", "10.0.0.1", 502, "modbus", 1, None, points=tuple(points))


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    changes = []
    for _ in range(draw(st.integers(0, 2))):
        span = draw(spans)
        top = 1 if span.space == "coil" else 0xFFFF
        cell = st.integers(0, min(top, 4)) | st.integers(0, top)
        cells = tuple(draw(st.lists(cell, min_size=span.count, max_size=span.count)))
        changes.append(Change(span.space, span.start, span.count, cells, draw(st.booleans() | st.just(True))))
    return Operation(
        draw(st.sampled_from((8, 43, 3))), draw(st.sampled_from((-1, 1, 14))), draw(st.sampled_from((1,) * 9 + (2,))),
        draw(st.booleans()), tuple(draw(st.lists(spans, max_size=2))), tuple(changes),
    )  # fmt: skip


def slowly(asset: Asset, conduits: list[rows.Conduit], op: Operation, now: int) -> set[str]:
    """The conduits that allow an operation, cell by cell, straight from the documentation."""
    if op.unit != asset.unit:
        return set()
    written: list[str] = []
    for change in op.writes:
        cells = range(change.start, change.start + change.count)
        for point in asset.points:
            own = range(point.at.start, point.at.start + point.at.count)
            assert isinstance(change, Change)
            if point.at.space != change.space or not set(own) & set(cells):
                continue
            if not set(own) <= set(cells):
                return set()
            if point.min is None and point.max is None:
                continue
            if not change.exact or point.name in written:
                return set()
            written.append(point.name)
            words = [change.values[cell - change.start] for cell in own]
            if point.word_order == "little":
                words.reverse()
            data = b"".join(struct.pack(">H", word) for word in words)
            value = int.from_bytes(data, "big", signed=point.type.value.startswith("int"))
            if (point.min is not None and value < point.min) or (point.max is not None and value > point.max):
                return set()
    allowed = set()
    for each in conduits:
        if now >= each.expires:
            continue
        reads = {(p.at.space, c) for r in each.rules for p in r.reads for c in range(p.at.start, p.at.stop)}
        writes = {(p.at.space, c) for r in each.rules for p in r.writes for c in range(p.at.start, p.at.stop)}
        fine = all((s.space, c) in reads for s in op.reads for c in range(s.start, s.stop))
        fine = fine and all((s.space, c) in writes for s in op.writes for c in range(s.start, s.stop))
        if not op.writes and (op.is_write or not op.reads):
            listed = {code for r in each.rules for code in (r.write_functions if op.is_write else r.functions)}
            fine = fine and bool({(op.function, op.sub), (op.function, -1)} & listed)
        if fine:
            allowed.add(each.name)
    return allowed


@examples(400)
@given(
    assets(),
    st.lists(st.tuples(st.lists(rules, min_size=1, max_size=3), st.sampled_from((NEVER, 50))), min_size=1, max_size=3),
    st.lists(operations(), min_size=1, max_size=6),
    st.lists(st.sampled_from((10, 49, 50, 90)), min_size=1, max_size=3),
)
def test_equals_a_slow_decision(
    asset: Asset, drawn: list[tuple[list[rows.Rule], int]], ops: list[Operation], times: list[int]
) -> None:
    conduits = [
        rows.Conduit(
            f"c{index}", "office", "plant", "modbus", "o", "r",
            rows.Proxy(tuple(msgspec.structs.replace(rule, number=number) for number, rule in enumerate(lines))),
            expires=expires,
        )
        for index, (lines, expires) in enumerate(drawn)
    ]  # fmt: skip
    compiled = make(asset, conduits)
    again = CompiledPolicy.from_bytes(compiled.to_bytes())
    assert (again.table, again.hash, again.to_bytes()) == (compiled.table, compiled.hash, compiled.to_bytes())
    asked, state = flow(again, asset="a"), remembering(again)
    for now in times:
        for op in ops:
            expected = slowly(asset, conduits, op, now)
            verdict = asked.decide(op, now)
            if expected:
                assert isinstance(verdict, Allow), (verdict, expected)
                assert verdict.conduit in expected
                assert verdict.valid_until == again.conduits[verdict.conduit].expires
                covering(again.conduits[verdict.conduit], verdict.rule, op)
            else:
                assert isinstance(verdict, Deny), verdict
                assert verdict.detail
            assert asked.decide_full(op, now, 0, state) == verdict


def covering(found: rows.Conduit, rule: str, op: Operation) -> None:
    """The rules that a verdict names allow the operation's cells without any other."""
    name, _, numbers = rule.rpartition("/")
    assert name == found.name
    chosen = [r for r in found.rules if str(r.number) in numbers.split("+")]
    reads = {(p.at.space, c) for r in chosen for p in r.reads for c in range(p.at.start, p.at.stop)}
    writes = {(p.at.space, c) for r in chosen for p in r.writes for c in range(p.at.start, p.at.stop)}
    assert all((s.space, c) in reads for s in op.reads for c in range(s.start, s.stop))
    assert all((s.space, c) in writes for s in op.writes for c in range(s.start, s.stop))


@pytest.mark.parametrize(
    ("order", "cells"),
    [
        ("big", (0x4148, 0xF5C3)), ("little", (0xF5C3, 0x4148)),
        ("big-swapped", (0x4841, 0xC3F5)), ("little-swapped", (0xC3F5, 0x4841)),
    ],
)  # fmt: skip
def test_the_bytes_of_a_value_stand_in_one_of_four_orders(order: str, cells: tuple[int, int]) -> None:
    """L11: 12.56 as IEEE 754 has it is 41 48 F5 C3."""
    assert values.encode(ValueType.FLOAT32, order, 12.56) == cells
    assert values.decode(ValueType.FLOAT32, order, cells) == pytest.approx(12.56)


@given(
    st.sampled_from(sorted(values.WORDS)),
    st.sampled_from(["big", "little", "big-swapped", "little-swapped"]),
    st.data(),
)
def test_every_value_comes_back_from_its_cells(kind: ValueType, order: str, data: st.DataObject) -> None:
    low, high = values.type_range(kind)
    value = data.draw(
        st.integers(int(low), int(high)) if kind not in values.FLOATS else st.floats(-1000, 1000, width=32)
    )
    assert values.decode(kind, order, values.encode(kind, order, value)) == value


def test_limits_hold_in_every_order_of_bytes_and_no_float_becomes_no_number() -> None:
    text = BASE.replace("at: holding 200, type: uint16", "at: holding 200, type: uint16, word_order: big-swapped")
    text = text.replace("serial: {at: holding 300, type: uint64}", "free: {at: holding 300, type: float32}")
    compiled = compile_policy(loads(text + conduit("{who: ops, asset: plc, write: all}")), now_ns=NOW)
    asked, state = flow(compiled), remembering(compiled)
    state.note_values("plc", "holding", 200, (0xDC05,), 0)  # 1500
    assert isinstance(asked.decide_full(write("holding", 200, 0xD205), NOW, 0, state), Allow)  # 1490
    beyond = asked.decide(write("holding", 200, 0xDD05), NOW)  # 1501
    assert isinstance(beyond, Deny)
    assert "speed = 1501 rpm is asked" in beyond.detail
    for value, allowed in ((1.0, True), (math.nan, False), (math.inf, False)):
        assert isinstance(asked.decide(write("holding", 300, *f32(value)), NOW), Allow) is allowed
