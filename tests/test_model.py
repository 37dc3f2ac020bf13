"""What crosses of items and values is decoded strictly, and every size has a bound."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam import model as m
from cofferdam import values as v
from tests.examples import examples

OPERATION = msgspec.msgpack.Decoder(m.Operation)
pack = msgspec.msgpack.Encoder().encode
ITEM = m.Item("tag", "a")

NUMBERS = {
    v.Int8: (-(1 << 7), (1 << 7) - 1), v.UInt8: (0, (1 << 8) - 1), v.Int16: (-(1 << 15), (1 << 15) - 1),
    v.UInt16: (0, (1 << 16) - 1), v.Int32: (-(1 << 31), (1 << 31) - 1), v.UInt32: (0, (1 << 32) - 1),
    v.Int64: (-(1 << 63), (1 << 63) - 1), v.UInt64: (0, (1 << 64) - 1),
}  # fmt: skip


def _item(kind: str, name: str, where: tuple[int, int]) -> m.Item:
    return m.Item(kind, name, *where)


items = st.builds(
    _item,
    st.text(min_size=1, max_size=m.KIND_LENGTH),
    st.text(min_size=1, max_size=40),
    st.one_of(st.just((-1, 1)), st.tuples(st.integers(0, (1 << 31) - 1), st.integers(1, 1 << 31))),
)
singles: dict[type[Any], st.SearchStrategy[Any]] = {
    **{kind: st.integers(low, high) for kind, (low, high) in NUMBERS.items()},
    v.Bool: st.booleans(),
    v.Float32: st.floats(width=32),
    v.Float64: st.floats(),
    v.Text: st.text(max_size=20),
    v.Octets: st.binary(max_size=20),
}


def _of(kind: type[Any], one: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    alone = one.map(lambda value: kind((value,)))
    return st.one_of(alone, st.lists(one, max_size=5).map(lambda several: kind(tuple(several), True)))


values = st.one_of(*(_of(kind, one) for kind, one in singles.items()))
microseconds = st.integers(0, 10**10)
reads = st.one_of(
    items,
    st.builds(m.Watch, items, microseconds),
    st.builds(m.Span, st.text(max_size=9), st.integers(0, 65535), st.integers(1, 9)),
)
writes = st.one_of(
    st.builds(m.Assign, items, st.one_of(st.none(), values)),
    st.builds(m.Call, items, st.lists(values, max_size=3).map(tuple)),
    st.builds(m.Opening, items, microseconds),
    st.builds(m.Change, st.text(max_size=9), st.integers(0, 65535), st.integers(1, 9), st.just((1,))),
)
operations = st.builds(
    m.Operation, st.integers(0, 99), st.just(-1), st.just(-1), st.booleans(),
    st.lists(reads, max_size=3).map(tuple), st.lists(writes, max_size=3).map(tuple),
)  # fmt: skip


@given(operations)
@examples(300)
def test_what_is_sound_comes_back_as_it_was(operation: m.Operation) -> None:
    assert OPERATION.decode(pack(operation)) == operation or any(math.isnan(v) for v in _floats(operation)), (
        "NaN alone is not equal to itself"
    )
    hash(operation)


def _floats(operation: m.Operation) -> list[float]:
    found: list[float] = []
    for write in operation.writes:
        held = [write.value] if isinstance(write, m.Assign) else write.arguments if isinstance(write, m.Call) else []
        found += [v for value in held if value is not None for v in value.values if isinstance(v, float)]
    return found


BROKEN: list[Any] = [
    m.Item("", "a"), m.Item("k" * 33, "a"), m.Item("tag", ""), m.Item("tag", "a" * 4097), m.Item("tag", "a", -2),
    m.Item("tag", "a", 1 << 31), m.Item("tag", "a", 0, 0), m.Item("tag", "a", 0, (1 << 31) + 1),
    m.Watch(ITEM, -1), m.Watch(ITEM, 10**10 + 1), m.Watch(m.Item("", "a")),
    m.Assign(ITEM, v.Text(("a" * 65537,))), m.Assign(ITEM, v.Octets((bytes(65537),))),
    m.Assign(ITEM, v.Bool((True,) * 65537, True)), m.Assign(ITEM, v.Bool((1,))),  # type: ignore[arg-type]
    m.Assign(ITEM, v.Int8((True,))), m.Assign(ITEM, v.Int8((1.0,))),  # type: ignore[arg-type]
    m.Assign(ITEM, v.Text((b"a",))), m.Assign(ITEM, v.Octets(("a",))),  # type: ignore[arg-type]
    m.Call(ITEM, (v.Bool((True,)),) * 65), m.Opening(ITEM, -5),
    *(m.Assign(ITEM, kind((low - 1,))) for kind, (low, _) in NUMBERS.items() if low > -(1 << 63)),  # type: ignore[arg-type]
    *(m.Assign(ITEM, kind((high + 1,))) for kind, (_, high) in NUMBERS.items() if high < (1 << 63) - 1),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: repr(broken)[:60])
def test_what_is_broken_is_refused(broken: Any) -> None:
    is_read = isinstance(broken, (m.Item, m.Watch))
    operation = m.Operation(1, -1, -1, not is_read, (broken,) if is_read else (), () if is_read else (broken,))
    with pytest.raises(msgspec.ValidationError):
        OPERATION.decode(pack(operation))


def test_spare_fields_and_unknown_tags_are_refused() -> None:
    for raw in ([1, "tag", "a", -1, 1, 0], [9, "tag", "a"], ["tag", "a"]):
        with pytest.raises(msgspec.ValidationError):
            OPERATION.decode(pack([1, -1, -1, False, [raw], []]))


def test_what_no_field_says_is_told_by_fault() -> None:
    assert m.Item("tag", "a", -1, 2).fault and not m.Item("tag", "a", 0, 2).fault
    assert v.value_fault(v.Bool((True, False))) and v.value_fault(v.Bool(())) and not v.value_fault(v.Bool((), True))
    assert v.value_fault(v.Float32((1e39,))) and not v.value_fault(v.Float32((math.inf,)))
    assert not v.value_fault(v.Float32((v.FLOAT32_MAX,)))
    assert v.value_fault(v.UInt64((1 << 64,))) and not v.value_fault(v.UInt64(((1 << 64) - 1,)))


def test_a_range_lies_within_the_whole_and_the_whole_within_no_range() -> None:
    whole, some = m.Item("tag", "a"), m.Item("tag", "a", (1 << 31) - 1, 1 << 31)
    assert whole.start <= some.start and some.stop <= whole.stop
    assert not (some.start <= whole.start and whole.stop <= some.stop)
    assert whole.space == some.space == m.Assign(some, None).space
