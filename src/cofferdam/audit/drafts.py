"""A draft that its own strict type would refuse is found where it is made: it costs that draft, and nobody else.

The auditor decodes strictly and takes a batch that does not decode for an attack, which ends its producer. What an
honest part says must therefore pass: names that come from a policy or a peer may be longer than an entry's. Such a
text is cut; nothing else is put right, since an entry must not say what did not happen.

Not here: handing drafts over (client, gate.audit), what the auditor makes of them (service). PURE.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from msgspec import inspect

from cofferdam.audit.entry import MAX_ENTRY_BYTES, Draft, encode_event
from cofferdam.audit.events.access import OfItem, Refused, RefusedMany
from cofferdam.audit.events.base import Event, clip, kebab
from cofferdam.audit.events.log import NotRecorded
from cofferdam.errors import AuditError

SHORT = 128
"""Characters of a name or value that are left of an entry which would be too large."""
LARGE = 8192
"""Bytes of a draft from which on its length as JSON is looked at: one that is shorter always fits in an entry."""

_encode = msgspec.msgpack.Encoder().encode
_WRONG = (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError, TypeError)


def fitting(draft: Draft) -> tuple[Draft | None, bytes, str]:
    """The draft as the auditor will take it, encoded, and what was wrong with it ("": nothing). None: it cannot be
    told at all."""
    data, why = _fault(draft)
    if not why:
        return draft, data, ""
    try:
        cut: Draft = _cut(draft, _shape(type(draft)))
    except _WRONG:
        return None, b"", why
    data, still = _fault(cut)
    if still and isinstance(cut, Refused | RefusedMany):
        cut = _short(cut)
        data, still = _fault(cut)
    return (None, b"", still) if still else (cut, data, why)


def _short(draft: Refused | RefusedMany) -> Refused | RefusedMany:
    """An entry about what was refused, with less of what was asked for: whoever asks for more than an entry holds is
    on record all the same, and with them those that are counted together with it."""
    items = [
        OfItem(clip(one.item, SHORT), one.act, one.type, tuple(clip(value, SHORT) for value in one.values[:2]))
        for one in draft.items[:16]
    ]
    return msgspec.structs.replace(draft, items=tuple(items))


def told(draft: Draft, why: str, *, kept: bool, times: int = 1) -> NotRecorded:
    """The entry that says that a draft, and others for the same reason, was cut (`kept`: the rest of it is there) or
    left out."""
    kind = kebab(type(draft).__name__)
    what = "cut" if kept else "left out"
    reason = f"a {kind} entry was {what}, since it does not fit the log: {why}"
    wall = draft.wall_ns if isinstance(draft.wall_ns, int) and 0 <= draft.wall_ns < 1 << 63 else 0
    return NotRecorded(wall_ns=wall, count=0 if kept else times, kinds=((kind, times),), reason=clip(reason))


def _fault(draft: Draft) -> tuple[bytes, str]:
    try:
        data = _encode(draft)
        _decoder(type(draft)).decode(data)
        if len(data) > LARGE:
            encode_event(draft)
    except (*_WRONG, AuditError) as error:
        return b"", str(error) or type(error).__name__
    return data, ""


@functools.lru_cache(maxsize=256)
def _decoder(kind: type[Draft]) -> msgspec.msgpack.Decoder[Draft]:
    """Of one kind of draft: a decoder of all of them costs every process that tells a few 30 ms at its start."""
    return msgspec.msgpack.Decoder(kind)


@functools.lru_cache(maxsize=256)
def _shape(kind: type[Event]) -> inspect.Type:
    return inspect.type_info(kind)


def _cut(value: Any, shape: inspect.Type) -> Any:
    """The value with every text in it cut to what its type allows."""
    if isinstance(shape, inspect.StrType) and isinstance(value, str):
        return clip(value, shape.max_length) if shape.max_length is not None else clip(value, MAX_ENTRY_BYTES)
    if isinstance(shape, inspect.StructType) and isinstance(value, msgspec.Struct):
        fields = {field.name: _cut(getattr(value, field.name), field.type) for field in shape.fields}
        return type(value)(**fields)
    if isinstance(shape, inspect.VarTupleType) and isinstance(value, tuple):
        return tuple(_cut(one, shape.item_type) for one in value)
    if isinstance(shape, inspect.TupleType) and isinstance(value, tuple):
        return tuple(_cut(one, kind) for one, kind in zip(value, shape.item_types, strict=True))
    return value
