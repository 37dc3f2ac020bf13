"""Judging items: by the same conduits, windows, limits and words as cells; and that none can be passed round."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CofferdamError
from cofferdam.model import Allow, Assign, Call, Deny, Fault, Item, NeedValues, Opening, Operation, Point, Watch
from cofferdam.policy.points.asking import operation, show
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.table import CompiledPolicy
from cofferdam.values import (
    VALUES,
    Bool,
    Float32,
    Float64,
    Int8,
    Int32,
    Octets,
    Text,
    UInt64,
    Value,
    ValueType,
    value_fault,
)
from tests.examples import examples
from tests.policy.plant import NOW, ns, remembering
from tests.protocols.toy.dialect import TOY
from tests.protocols.toy.site import BASE, toy_conduit, toy_policy

ALL = toy_policy()
LINE = ALL.assets["line"]


def flow(policy: CompiledPolicy = ALL, source: str = "10.1.0.20") -> Flow:
    found = policy.flow("toy", source, "line")
    assert isinstance(found, Flow), found
    return found


def tag(text: str) -> Item:
    found = TOY.notation.parse(text if " " in text else f"tag {text}")
    assert isinstance(found, Item)
    return found


def read(*texts: str) -> Operation:
    return Operation(1, -1, -1, False, tuple(map(tag, texts)))


def write(*pairs: tuple[str, Value | None]) -> Operation:
    return Operation(2, -1, -1, True, (), tuple(Assign(tag(text), value) for text, value in pairs))


def call(text: str, *arguments: Value) -> Operation:
    return Operation(3, -1, -1, True, (), (Call(tag(f"method {text}"), arguments),))


def watch(text: str, us: int = 100_000) -> Operation:
    return Operation(4, -1, -1, False, (Watch(tag(text), us),))


def opening(text: str = "io Drive", us: int = 10_000) -> Operation:
    return Operation(5, -1, -1, True, (), (Opening(tag(text), us),))


OK = None
VERDICTS: list[tuple[str, Operation, Fault | None, str]] = [
    # which items
    ("by name", read("Pump.Speed"), OK, ""),
    ("several", read("Pump.Speed", "Counts[0-9]", "Counts[5]"), OK, ""),
    ("two points together", read("Counts[5-15]"), OK, ""),
    ("one element too many", read("Counts[5-20]"), Fault.ADDRESS,
     "read tag counts[5-20] is asked; the nearest allowed is spare (tag counts[10-19])"),
    ("a whole array of which ranges are allowed", read("Counts"), Fault.ADDRESS, "read tag counts is asked; the"),
    ("a part of what is allowed", read("Pump.Mode"), Fault.ADDRESS,
     "read tag pump.mode is asked; nothing of tag pump.mode is allowed, only of level (tag pump.level)"),
    ("one of them", read("Pump.Speed", "Secret"), Fault.ADDRESS, "nothing of tag secret is allowed"),
    ("another kind of that name", read("method Line.Reset"), Fault.ADDRESS, "nothing of method line.reset is allowed"),
    # values
    ("in range", write(("Pump.Speed", Int32((1500,)))), OK, ""),
    ("above", write(("Pump.Speed", Int32((1501,)))), Fault.VALUE,
     "speed = 1501 rpm is asked; 0 to 1500 rpm is allowed"),
    ("below", write(("Pump.Speed", Int32((-1,)))), Fault.VALUE, "speed = -1 rpm is asked"),
    ("another type", write(("Pump.Speed", Int8((1,)))), Fault.VALUE, "speed as int8 is asked; int32 is allowed"),
    ("an array for one", write(("Pump.Speed", Int32((1, 2), True))), Fault.VALUE,
     "2 elements of speed are asked; a single int32 is allowed"),
    ("an array of one for one", write(("Pump.Speed", Int32((1,), True))), Fault.VALUE,
     "an array of one element of speed are asked; a single int32 is allowed"),
    ("an element of one that has none", write(("Pump.Speed[0]", Int32((1,), True))), Fault.VALUE,
     "elements of speed are asked; a single int32 is allowed, as a whole"),
    ("a part of a text", write(("Recipe[8]", Text(("9",)))), Fault.VALUE,
     "elements of recipe are asked; a single text is allowed, as a whole"),
    ("no value", write(("Pump.Speed", None)), Fault.VALUE, "a change of speed is asked, whose result cannot"),
    ("as a 32-bit float would be", write(("Pump.Level", Float32((0.10000000149011612,)))), OK, ""),
    ("NaN", write(("Pump.Level", Float32((math.nan,)))), Fault.VALUE, "level = nan is asked; -1.5 to 0.1"),
    ("infinity", write(("Pump.Level", Float32((-math.inf,)))), Fault.VALUE, "level = -inf is asked"),
    ("no float32", write(("Pump.Level", Float32((1e39,)))), Fault.VALUE, "outside float32 is asked for tag pump.level"),
    ("NaN without a limit", write(("Ratio", Float64((math.nan,)))), Fault.VALUE, "ratio = nan is asked; a finite"),
    ("no float32 elsewhere", write(("Other", Float32((1e39,)))), Fault.ADDRESS, "nothing of tag other is allowed"),
    ("a text", write(("Recipe", Text(("Batch 7",)))), OK, ""),
    ("too long", write(("Recipe", Text(("Batch 789",)))), Fault.VALUE,
     "recipe with 9 characters is asked; at most 8 characters are allowed"),
    ("characters, not bytes", write(("Recipe", Text(("ÄÖÜäöüßé",)))), OK, ""),
    ("a flag that may only be set", write(("Run", Bool((True,)))), OK, ""),
    ("or not", write(("Run", Bool((False,)))), Fault.VALUE, "run = 0 is asked; 1 or more is allowed"),
    # arrays
    ("one element", write(("Counts[3]", Int32((99,)))), OK, ""),
    ("some", write(("Counts[8-11]", Int32((99, 1, 500, 600), True))), OK, ""),
    ("one of them out of range", write(("Counts[8-11]", Int32((99, 100, 500, 600), True))), Fault.VALUE,
     "counts[1] = 100 is asked; 0 to 99 is allowed"),
    ("more values than elements", write(("Counts[3]", Int32((9, 9), True))), Fault.VALUE,
     "2 values for 1 elements are asked"),
    ("a whole array", write(("Table", Int8((1, 2, 3), True))), OK, ""),
    ("a shorter one", write(("Table", Int8((1, 2), True))), Fault.VALUE, "2 elements of table is asked; 3 elements"),
    ("a single one", write(("Table", Int8((1,)))), Fault.VALUE, "a single int8 of table is asked; 3 elements"),
    ("an element of it", write(("Table[2]", Int8((5,)))), OK, ""),
    ("an element of it too far", write(("Table[2]", Int8((6,)))), Fault.VALUE, "table = 6 is asked; 5 or less"),
    # parts and wholes: no way around a limit
    ("the whole around limited parts", write(("Pump", Octets((b"\0",)))), Fault.VALUE,
     "a change of level is asked, whose result cannot be checked against its limits; writing it by itself"),
    ("a part of what is limited", write(("Status.3", Bool((True,)))), Fault.VALUE,
     "only tag status.3 of status is asked; tag status is allowed as a whole"),
    ("twice", write(("Pump.Speed", Int32((1,))), ("Pump.Speed", Int32((2,)))), Fault.VALUE,
     "speed is asked twice in one request; once is allowed"),
    ("a good one beside a bad one", write(("Ratio", Float64((1.0,))), ("Pump.Speed", Int32((9999,)))), Fault.VALUE,
     "speed = 9999"),
    # calls
    ("a call", call("Line.Reset"), OK, ""),
    ("with arguments", call("Line.Mix", Int32((60,)), Text(("red",))), OK, ""),
    ("too few", call("Line.Mix", Int32((60,))), Fault.VALUE, "mix with 1 arguments is asked; 2 are allowed"),
    ("out of range", call("Line.Mix", Int32((61,)), Text(("red",))), Fault.VALUE,
     "mix: seconds = 61 s is asked; 1 to 60 s is allowed"),
    ("of another type", call("Line.Mix", Int32((1,)), Octets((b"r",))), Fault.VALUE, "mix: name as bytes is asked"),
    ("an array", call("Line.Mix", Int32((1,)), Text(("r", "s"), True)), Fault.VALUE, "mix: 2 elements of name"),
    ("too long an argument", call("Line.Mix", Int32((1,)), Text(("green",))), Fault.VALUE, "mix: name with 5"),
    ("another method", call("Line.Stop"), Fault.ADDRESS, "nothing of method line.stop is allowed, only of reset"),
    ("a tag", Operation(3, -1, -1, True, (), (Call(tag("Run")),)), Fault.ADDRESS, "nothing of tag run is allowed"),
    # watches
    ("a watch", watch("Pump.Level"), OK, ""),
    ("too fast", watch("Pump.Level", 99_999), Fault.RATE,
     "level every 99.999 ms is asked; every 100 ms or slower is allowed"),
    ("of what may be read", watch("Recipe"), Fault.ADDRESS, "subscribe tag recipe is asked; nothing of tag recipe"),
    # streams
    ("a stream", opening(), OK, ""),
    ("too fast a stream", opening(us=9_000), Fault.RATE, "drive every 9 ms is asked; every 10 ms or slower"),
    ("another stream", opening("io Other"), Fault.ADDRESS, "stream io other is asked; nothing of io other is allowed"),
    ("a part of one", opening("io Drive.Setpoint"), Fault.ADDRESS, "nothing of io drive.setpoint is allowed"),
    # what no protocol makes
    ("a range of the whole", Operation(1, -1, -1, False, (Item("tag", "run", -1, 5),)), Fault.ADDRESS, "a range of"),
    ("a range of the whole written",
     Operation(2, -1, -1, True, (), (Assign(Item("tag", "run", -1, 5), Bool((True,))),)), Fault.ADDRESS, "a range of"),
    ("a code", Operation(7, -1, -1, False), Fault.FUNCTION, "function 7 is asked; allowed functions: none"),
]  # fmt: skip


@pytest.mark.parametrize(("why", "op", "fault", "words"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_verdicts(why: str, op: Operation, fault: Fault | None, words: str) -> None:
    for _ in range(2):  # the second time from what was remembered
        verdict = flow().decide(op, NOW)
        if fault is None:
            assert isinstance(verdict, Allow) and verdict.rule == "c/0", verdict
        else:
            assert isinstance(verdict, Deny) and verdict.fault is fault, verdict
            assert words in verdict.detail, verdict.detail


def test_nothing_more_is_allowed_than_the_verb_says() -> None:
    only = toy_policy(toy_conduit("{who: mes, asset: line, read: [speed], call: [reset]}"))
    for op, words in (
        (write(("Pump.Speed", Int32((1,)))), "c allows only reading and calling here"),
        (watch("Pump.Speed"), "subscribe tag pump.speed is asked; c allows only reading and calling here"),
        (opening(), "stream io drive is asked; c allows only reading and calling here"),
        (call("Line.Mix", Int32((1,)), Text(("a",))), "only of reset (method line.reset)"),
    ):
        verdict = flow(only).decide(op, NOW)
        assert isinstance(verdict, Deny) and words in verdict.detail, verdict


def test_a_prefix_allows_what_begins_so_and_its_points_limits_hold() -> None:
    wide = flow(
        toy_policy(toy_conduit('{who: mes, asset: line, registers: "tag Pump.*", write_registers: ["tag Pump.*"]}'))
    )
    assert isinstance(wide.decide(read("Pump.Anything.At.All"), NOW), Allow)
    assert isinstance(wide.decide(write(("Pump.Mode", Int8((1,)))), NOW), Allow)
    for op in (read("Pump"), read("Pumps"), write(("Pump.Speed", Int32((1501,)))), watch("Pump.Mode")):
        assert isinstance(wide.decide(op, NOW), Deny), op
    value = wide.decide(write(("Pump.Mode", Float32((1e39,)))), NOW)
    assert isinstance(value, Deny) and "outside float32" in value.detail
    alone = wide.decide(read("Recipe"), NOW)
    assert isinstance(alone, Deny) and "only of tag pump.*" in alone.detail


def test_rules_of_one_conduit_add_up_and_conduits_do_not() -> None:
    together = toy_conduit("{who: mes, asset: line, read: counts}", "{who: mes, asset: line, read: spare}")
    verdict = flow(toy_policy(together)).decide(read("Counts[9-10]"), NOW)
    assert isinstance(verdict, Allow) and verdict.rule == "c/0+1"
    apart = toy_conduit("{who: mes, asset: line, read: counts}", name="a") + toy_conduit(
        "{who: mes, asset: line, read: spare}", name="b"
    )
    assert isinstance(flow(toy_policy(apart)).decide(read("Counts[9-10]"), NOW), Deny)


def test_windows_and_expiry_hold_for_all_of_it() -> None:
    extra = 'expires: 2026-12-31\nwindow: {days: mon-fri, from: "06:00", to: "18:00", zone: UTC}'
    timed = flow(toy_policy(toy_conduit(extra=extra)))
    sound = (read("Run"), write(("Run", Bool((True,)))), call("Line.Reset"), watch("Pump.Level"), opening())
    for op in sound:
        assert isinstance(timed.decide(op, ns("2026-11-23T12:00:00")), Allow)
        night = timed.decide(op, ns("2026-11-23T19:00:00"))
        assert isinstance(night, Deny) and night.fault is Fault.WINDOW
        late = timed.decide(op, ns("2027-01-04T12:00:00"))
        assert isinstance(late, Deny) and late.fault is Fault.EXPIRED


def test_a_step_is_counted_from_what_is_known() -> None:
    state, mine = remembering(ALL), flow()
    step = write(("Pump.Speed", Int32((500,))))
    assert mine.decide_full(step, NOW, 10, state) == NeedValues((tag("Pump.Speed"),))
    state.note_items("line", (Assign(tag("Pump.Speed"), Int32((420,))),), 10)
    assert isinstance(mine.decide_full(step, NOW, 20, state), Allow)
    far = mine.decide_full(write(("Pump.Speed", Int32((521,)))), NOW, 20, state)
    assert isinstance(far, Deny) and far.fault is Fault.STEP
    assert far.detail == "speed = 521 rpm is asked; it is 420, and a step of 100 rpm is allowed (320 to 520 rpm)"
    state.note_write("line", step, 30)
    assert isinstance(mine.decide_full(step, NOW, 40, state), NeedValues), "nobody knows what the device holds"
    state.note_confirmed("line", step, 30)
    state.note_ended("line", step, 50)
    assert isinstance(mine.decide_full(write(("Pump.Speed", Int32((600,)))), NOW, 60, state), Allow)


def test_a_step_of_large_numbers_is_exact() -> None:
    state, mine, top = remembering(ALL), flow(), (1 << 64) - 1
    state.note_items("line", (Assign(tag("Ticks"), UInt64((top - 6,))),), 10)
    assert isinstance(mine.decide_full(write(("Ticks", UInt64((top - 1,)))), NOW, 20, state), Allow)
    far = mine.decide_full(write(("Ticks", UInt64((top,)))), NOW, 20, state)
    assert isinstance(far, Deny) and far.fault is Fault.STEP, "as floats the two would be one number"


def test_what_an_item_held_teaches_only_what_it_says() -> None:
    state = remembering(ALL)
    for held in (
        Assign(tag("Pump.Speed"), Int8((1,))), Assign(tag("Pump.Speed"), None),
        Assign(tag("Pump.Speed[3]"), Int32((1,))), Assign(tag("Pump"), Octets((b"1",))),
        Assign(tag("Pump.Speed"), Int32((), True)),
    ):  # fmt: skip
        state.note_items("line", (held,), 10)
        assert state.known("line", "speed", 10) is None, held


def test_calls_and_writes_have_their_pace() -> None:
    state, mine, second = remembering(ALL), flow(), 10**9
    for number in range(2):
        assert isinstance(mine.decide_full(call("Line.Reset"), NOW, number * second, state), Allow)
        state.note_write("line", call("Line.Reset"), number * second)
    third = mine.decide_full(call("Line.Reset"), NOW, 2 * second, state)
    assert isinstance(third, Deny) and third.fault is Fault.RATE
    assert third.detail == "one more call of reset is asked; 2 calls a minute are allowed, the next one in 58 s"
    assert isinstance(mine.decide_full(call("Line.Mix", Int32((1,)), Text(("a",))), NOW, 2 * second, state), Allow)
    assert isinstance(mine.decide_full(call("Line.Reset"), NOW, 60 * second, state), Allow)
    again = toy_policy(base=BASE.replace("writes_per_minute: 2}", "writes_per_minute: 3}"))
    state.adopt(again.assets)
    assert isinstance(flow(again).decide_full(call("Line.Reset"), NOW, 2 * second, state), Allow), (
        "recent calls count on"
    )


def frame(*pairs: tuple[str, Value | None]) -> Operation:
    return Operation(6, -1, -1, True, (), tuple(Assign(Item("io", name), value) for name, value in pairs))


def test_a_frame_is_held_to_the_limits_of_its_points() -> None:
    state, mine, drive = remembering(ALL), flow(), tag("io Drive")
    good = frame(("drive.setpoint", Float32((20.0,))))
    assert mine.check_frame(drive, good, state, 0) == ""
    state.note_sent("line", good, 10)
    assert mine.check_frame(drive, frame(("drive.setpoint", Float32((30.0,)))), state, 0) == ""
    for op, words in (
        (frame(("drive.setpoint", Float32((51.0,)))), "setpoint = 51 is asked; 0 to 50 is allowed"),
        (frame(("drive.setpoint", Float32((math.nan,)))), "setpoint = nan"),
        (frame(("drive.setpoint", Float32((31.0,)))), "a step of 10 is allowed"),
        (frame(("drive.setpoint", Int32((1,)))), "setpoint as int32 is asked"),
        (frame(("drive.setpoint", None)), "cannot be checked"),
        (frame(("drive", Int32((1,)))), "a write of io drive is asked; parts of io drive are allowed"),
        (frame(("drives.setpoint", Int32((1,)))), "parts of io drive are allowed"),
        (frame(("other.setpoint", Float32((1.0,)))), "parts of io drive are allowed"),
        (write(("Pump.Speed", Int32((1,)))), "parts of io drive are allowed"),
        (call("Line.Reset"), "parts of io drive are allowed"),
    ):
        assert words in mine.check_frame(drive, op, state, 0), op
        assert words in mine.check_frame(drive, op, state, 0), "the same from what was remembered"
    assert mine.check_frame(drive, frame(("drive.unnamed", Int8((1,)))), state, 0) == ""


# --- against a plain model, at the extremes ------------------------------------------------------------------------

EDGES: dict[ValueType, list[Any]] = {
    ValueType.BOOL: [False, True], ValueType.INT8: [-128, -1, 0, 5, 6, 127],
    ValueType.INT32: [-(1 << 31), -1, 0, 99, 100, 1500, 1501, (1 << 31) - 1],
    ValueType.INT64: [-(1 << 63), 0, (1 << 63) - 1], ValueType.UINT64: [0, (1 << 53) + 1, (1 << 64) - 1],
    ValueType.FLOAT32: [
        0.0, -0.0, 0.1, 0.10000000149011612, 0.2, -1.5, 50.0, math.nan, math.inf, -math.inf, 1e39, 3e38,
    ],
    ValueType.FLOAT64: [0.0, 1e308, -1e308, math.nan, math.inf, 5e-324],
    ValueType.TEXT: ["", "Batch 7", "Batch 789", "\x00", "é" * 8, "é" * 9], ValueType.BYTES: [b"", b"\xff" * 9],
}  # fmt: skip
edge_values = st.one_of(
    *(
        st.builds(
            lambda ones, array, kind=kind: VALUES[kind](tuple(ones), array),
            st.lists(st.sampled_from(edges), min_size=0, max_size=11),
            st.booleans(),
        )
        for kind, edges in EDGES.items()
    )
)
NAMES = sorted({p.at.name for p in LINE.points if isinstance(p.at, Item)} | {"other", "pump.speed.x", "counts.x", "p"})
ranges = st.one_of(
    st.just((-1, 1)), st.tuples(st.sampled_from([0, 3, 9, 10, 19, (1 << 31) - 1]), st.sampled_from([1, 2, 10, 1 << 31]))
)
any_items = st.builds(
    lambda kind, name, r: Item(kind, name, *r), st.sampled_from(["tag", "io"]), st.sampled_from(NAMES), ranges
)
assigns = st.builds(Assign, any_items, st.one_of(st.none(), edge_values))


def model_allows(assign: Assign) -> bool:
    """Whether the policy with all rules may let one write through, said another way: point by point, value by value."""
    item, value = assign.item, assign.value
    points = [p for p in LINE.points if isinstance(p.at, Item) and p.at.kind == "tag"]
    whole = item.first < 0
    mine = set(range(item.first, item.first + min(item.count, 50))) if not whole else {"whole"}
    covered: set[Any] = set()
    for p in points:
        at = p.at
        assert isinstance(at, Item)
        if (at.kind, at.name) == (item.kind, item.name):
            covered |= mine if at.first < 0 else set(range(at.first, at.first + at.count)) & mine
    if not mine <= covered or (not whole and item.count > 50):
        return False
    if value is not None and (value_fault(value) or (not whole and len(value.values) != item.count)):
        return False
    for p in points:
        at = p.at
        assert isinstance(at, Item)
        limited = any(x is not None for x in (p.min, p.max, p.max_step, p.writes_per_minute, p.max_length))
        if at.name.startswith(item.name + ".") or item.name.startswith(at.name + "."):
            if limited:
                return False
            continue
        if at.name != item.name:
            continue
        his = mine if at.first < 0 else set(range(at.first, at.first + at.count))
        if not whole and not his & mine:
            continue
        if value is None:
            if limited:
                return False
            continue
        if value.type is not p.type:
            return False
        if whole:
            if p.elements == 1 and len(value.values) != 1:
                return False
            if p.elements != 1 and (not value.array or len(value.values) != p.elements):
                return False
            chosen = list(value.values)
        else:
            chosen = [v for offset, v in enumerate(value.values) if item.first + offset in his]
        if not all(_within(p, one) for one in chosen):
            return False
    return True


def _within(p: Point, one: Any) -> bool:
    if isinstance(one, (str, bytes)):
        return p.max_length is None or len(one) <= p.max_length
    if isinstance(one, float) and not math.isfinite(one):
        return False
    return (p.min is None or one >= p.min) and (p.max is None or one <= p.max)


@given(assigns)
@examples(1500)
def test_a_write_is_allowed_exactly_where_the_model_says(assign: Assign) -> None:
    verdict = flow().decide(Operation(2, -1, -1, True, (), (assign,)), NOW)
    assert isinstance(verdict, Allow) is model_allows(assign), (verdict, assign)


@given(st.lists(assigns, min_size=1, max_size=3))
@examples(400)
def test_a_request_is_allowed_only_if_each_of_its_writes_would_be(parts: list[Assign]) -> None:
    verdict = flow().decide(Operation(2, -1, -1, True, (), tuple(parts)), NOW)
    if isinstance(verdict, Allow):
        assert all(model_allows(part) for part in parts)


@given(st.lists(st.one_of(any_items, st.builds(Watch, any_items, st.integers(0, 10**10))), min_size=1, max_size=4))
@examples(400)
def test_no_read_or_watch_brings_down_the_judge(reads: list[Item | Watch]) -> None:
    verdict = flow().decide(Operation(1, -1, -1, False, tuple(reads)), NOW)
    assert isinstance(verdict, (Allow, Deny))
    if isinstance(verdict, Allow):
        assert not any(item.kind == "io" for read in reads for item in [read.item if isinstance(read, Watch) else read])


@given(any_items, st.lists(edge_values, max_size=3), st.integers(0, 10**10))
@examples(300)
def test_no_call_or_opening_brings_down_the_judge(item: Item, arguments: list[Value], us: int) -> None:
    for act in (Call(item, tuple(arguments)), Opening(item, us), Call(Item("method", "line.mix"), tuple(arguments))):
        verdict = flow().decide_full(Operation(3, -1, -1, True, (), (act,)), NOW, 0, remembering(ALL))
        if isinstance(verdict, Allow):
            assert [type(value) for value in arguments] == [Int32, Text]


# --- in people's words ---------------------------------------------------------------------------------------------

WORDS = [
    ("read speed", read("Pump.Speed"), "read tag pump.speed (speed)"),
    ("read tag Counts[0-4]", read("Counts[0-4]"), "read tag counts[0-4]"),
    ("read counts", read("Counts[0-9]"), "read tag counts[0-9] (counts)"),
    ("write speed 1400", write(("Pump.Speed", Int32((1400,)))), "write tag pump.speed (speed = 1400 rpm)"),
    ("write recipe Batch 7", write(("Recipe", Text(("Batch 7",)))), 'write tag recipe (recipe = "Batch 7")'),
    ("write table 1 2 3", write(("Table", Int8((1, 2, 3), True))), "write tag table (table = [1, 2, 3])"),
    ("write run true", write(("Run", Bool((True,)))), "write tag run (run = true)"),
    ("write pump 0x00ff", write(("Pump", Octets((b"\0\xff",)))), "write tag pump (pump = 0x00ff)"),
    ("subscribe level", watch("Pump.Level"), "subscribe tag pump.level (level)"),
    ("call reset", call("Line.Reset"), "call method line.reset (reset)"),
    ("call mix 5 red", call("Line.Mix", Int32((5,)), Text(("red",))), 'call method line.mix (mix) 5 "red"'),
    ("stream drive", opening(), "stream io drive (drive)"),
    ("function 7", Operation(7, -1, -1, False), "function 7"),
    ("function 8", Operation(8, -1, -1, True), "write-function 8"),
]


@pytest.mark.parametrize(("text", "expected", "words"), WORDS, ids=[row[0] for row in WORDS])
def test_operations_in_words(text: str, expected: Operation, words: str) -> None:
    assert operation(text, LINE, TOY) == expected
    assert show(expected, LINE) == words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("read spede", "spede is no point of line and no space (one of tag, method, io); did you mean speed"),
        ("write setpoint 1", "io cannot be written in toy"), ("write tag Pump.Speed 5", "only a point's value"),
        ("write speed 1.5", "1.5 is not a whole number"), ("write speed 3000000000", "outside int32"),
        ("write level 1e39", "outside float32"), ("write run maybe", "neither true nor false"),
        ("write pump 0xzz", "no bytes in hexadecimal"), ("call rest", "rest is no method of line (one of mix, reset);"),
        ("call mix 1", "mix takes 2 arguments, not 1"), ("call mix x y", "seconds: x is not a whole number"),
        ("stream drives", "drives is no stream of line (drive); did you mean drive"),
        ("subscribe reset", "reset is no point"), ("subscrbe level", "did you mean subscribe"),
        ("function 3", "carries cells"), ("function 100", "no function code"),
    ],
)  # fmt: skip
def test_what_is_not_understood(text: str, why: str) -> None:
    with pytest.raises(CofferdamError) as caught:
        operation(text, LINE, TOY)
    assert why in str(caught.value), caught.value
