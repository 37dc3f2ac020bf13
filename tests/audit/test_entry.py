"""Entries are canonical JSON, whatever stands in them, and nothing can blow them up."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect as forms

from cofferdam.audit.entry import DRAFTS, KINDS, Draft, encode_event, encode_text, format_time, parse_time
from cofferdam.audit.events.access import WriteAllowed, Written
from cofferdam.audit.events.base import MAX_SAFE_INTEGER, clip, number
from cofferdam.audit.events.gate import GateStopped
from cofferdam.audit.events_page import audit_reference
from cofferdam.audit.log import prepare
from cofferdam.errors import AuditError

TEXT = st.text(max_size=64)


def strategy(kind: type) -> st.SearchStrategy[msgspec.Struct]:
    """Any draft of one class, hostile texts included."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: field(hint) for name, hint in hints.items()})


def field(hint: object) -> st.SearchStrategy[object]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        meta = arguments[1]
        if arguments[0] is int:
            return st.integers(meta.ge, meta.le)
        if meta.pattern:
            return {"^([0-9a-f]{64})?$": st.just("ab" * 32), "^[0-9a-f]*$": st.just("00ff")}.get(
                meta.pattern, st.integers(-(1 << 62), 1 << 62).map(str)
            )
        if arguments[0] is str:
            return TEXT if meta.max_length is None else st.text(max_size=min(64, meta.max_length))
        return field(arguments[0])
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(field(arguments[0]), max_size=4).map(tuple)
        return st.tuples(*(field(argument) for argument in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if hint is bool:
        return st.booleans()
    return strategy(typing.cast(type, hint))


ANY = st.one_of(*(strategy(kind) for kind in DRAFTS))


def integers(value: object) -> list[int]:
    if isinstance(value, dict):
        return [n for item in value.values() for n in integers(item)]
    if isinstance(value, list):
        return [n for item in value for n in integers(item)]
    assert not isinstance(value, float)
    return [value] if isinstance(value, int) else []


@given(ANY)
def test_every_event_is_canonical(draft: Draft) -> None:
    data = encode_event(draft)
    decoded = json.loads(data)
    assert rfc8785.dumps(decoded) == data
    assert all(abs(n) <= MAX_SAFE_INTEGER for n in integers(decoded))
    assert decoded["kind"] in KINDS
    assert decoded["wall_ns"] == str(draft.wall_ns)


@given(ANY)
def test_drafts_survive_the_pipe(draft: Draft) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(draft), type=Draft) == draft


@given(st.text())
def test_texts_are_canonical(text: str) -> None:
    assert encode_text(text) == rfc8785.dumps(text)


def test_text_can_not_pose_as_a_time() -> None:
    reason = '"wall_ns":5,"x":"'
    assert json.loads(encode_event(GateStopped(reason=reason)))["reason"] == reason


@given(ANY, st.sampled_from([{"surprise": 1}, {"wall_ns": -1}, {"wall_ns": "x"}]))
def test_what_a_half_sends_is_held_to_the_form_when_it_is_decoded(draft: Draft, wrong: dict[str, object]) -> None:
    members = msgspec.msgpack.decode(msgspec.msgpack.encode(draft))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(members | wrong), type=Draft)


def parts(kind: forms.Type) -> Iterator[forms.Type]:
    """A type, and those that it is made of."""
    yield kind
    within: list[forms.Type] = []
    if isinstance(kind, forms.UnionType):
        within += kind.types
    elif isinstance(kind, forms.ListType | forms.VarTupleType | forms.SetType):
        within.append(kind.item_type)
    elif isinstance(kind, forms.TupleType):
        within += kind.item_types
    elif isinstance(kind, forms.DictType):
        within += [kind.key_type, kind.value_type]
    elif isinstance(kind, forms.StructType):
        within += [one.type for one in kind.fields]
    for one in within:
        yield from parts(one)


def test_no_kind_takes_what_it_does_not_name_or_what_nobody_has_bounded() -> None:
    whole = [forms.type_info(draft) for draft in DRAFTS]
    structs = [one for kind in whole for one in parts(kind) if isinstance(one, forms.StructType)]
    assert len(structs) >= len(KINDS)
    assert not [draft for draft in DRAFTS if not draft.__struct_config__.forbid_unknown_fields]
    members = [(one.cls, field.name, part) for one in structs for field in one.fields for part in parts(field.type)]
    endless = forms.StrType | forms.ListType | forms.VarTupleType | forms.DictType | forms.BytesType
    assert not [one for one in members if isinstance(one[2], endless) and one[2].max_length is None]
    assert not [one for one in members if isinstance(one[2], forms.IntType) and None in (one[2].ge, one[2].le)]


def test_an_event_that_fits_no_entry_is_refused() -> None:
    huge = tuple(Written("holding", 0, (65535,) * 2048) for _ in range(64))
    draft = WriteAllowed(
        session="s", write="w", principals=(), source="a", asset="p", conduit="c", rule="r", function=16, writes=huge
    )
    with pytest.raises(AuditError, match="too large"):
        prepare("inner", "", [draft])


def test_lone_surrogates_are_refused_or_clipped() -> None:
    with pytest.raises(AuditError):
        encode_event(GateStopped(reason="\ud800"))
    encode_event(GateStopped(reason=clip("\ud800" + "x" * 9999)))
    assert len(clip("é" * 600)) == 512


@given(st.integers(0, 253_402_300_799 * 10**9 + 999_999_999))
def test_times_there_and_back(wall_ns: int) -> None:
    assert parse_time(format_time(wall_ns).decode()) == wall_ns


@given(st.lists(st.integers(0, 1 << 62), min_size=2, max_size=2))
def test_times_sort_as_text(pair: list[int]) -> None:
    assert (pair[0] < pair[1]) == (format_time(pair[0]) < format_time(pair[1]))


def test_values_as_text() -> None:
    assert [number(1.5), number(0.1), number(7), number(True)] == ["1.5", "0.1", "7", "true"]
    with pytest.raises(AuditError, match="not a UTC time"):
        parse_time("yesterday")


def test_every_event_is_described() -> None:
    page = audit_reference()
    for draft in DRAFTS:
        meaning = draft.__doc__ or ""
        assert len(meaning) > 15 and meaning.endswith((".", "`")), draft.__name__
        assert meaning != msgspec.Struct.__doc__
        assert f"| `{draft.__struct_config__.tag}` |" in page
        assert all(f"`{field}`" in page for field in draft.__struct_fields__)
