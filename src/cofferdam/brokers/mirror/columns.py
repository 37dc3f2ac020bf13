"""Samples as columns: from rows to a record, from a record (checked) to Arrow, and digests that do not depend on order.

Two forms in Arrow: HOT, as it came, one record batch a commit; STORED, as sealed files have it, where a value stands in
the column of its kind. A sample's identity is (tag, time); its content is kind, value, text, quality. The same again is
a repetition, another content for the same identity is a further revision, and `commit` says which came last.

Not here: files (hot, sealing), records (records).
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.brokers.mirror.records import BOOL, FLOAT, POINTS_MOST, TEXT, WHOLE, Lane, Samples
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.mirror_rows import TAGS_MOST, tag_name

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
GOOD: Final = 0
"""Where a source has no quality."""
BAD: Final = 0x80000000
"""The quality of a sample without a value: OPC UA's Bad."""
TAGS: Final = pa.dictionary(pa.int32(), pa.string())
TIME: Final = pa.timestamp("ns")
HOT: Final = pa.schema([
    ("tag", TAGS), ("time", pa.int64()), ("kind", pa.int8()), ("bits", pa.int64()), ("text", pa.string()),
    ("quality", pa.int64()), ("server", pa.int64()),
])  # fmt: skip
STORED: Final = pa.schema([
    ("tag", pa.string()), ("time", TIME), ("kind", pa.int8()), ("value", pa.float64()), ("whole", pa.int64()),
    ("text", pa.string()), ("quality", pa.int64()), ("server", TIME), ("commit", pa.int64()),
])  # fmt: skip
"""`value`: the number, of a bool 0 or 1; NULL for a text. `whole`: exactly, where it is an int64."""
NO_TIME: Final = -(1 << 63)
# Arrow's own allocators keep some 40 MiB more of what was freed, and give none of it back.
pa.set_memory_pool(pa.system_memory_pool())
# Arrow looks for other libraries when it first meets a plain number; a part imports nothing once its filter is on.
pc.equal(pa.array([1]), 1)


class Sample(NamedTuple):
    """One. `value`: float, int (64 bits), bool or str; times are UTC ns."""

    tag: str
    time: int
    value: float | int | bool | str
    quality: int = GOOD
    server: int | None = None


def pack(lane: Lane, source: str, samples: Iterable[Sample], upto: int = -1) -> Samples:
    """Samples as a record without a number yet. Raises: ValueError, OverflowError for a value that has no place."""
    names: dict[str, int] = {}
    texts: list[str] = []
    tag, time, kind, quality, server = array("I"), array("q"), bytearray(), array("q"), array("q")
    value = bytearray()
    with_server = False
    for one in samples:
        tag.append(names.setdefault(one.tag, len(names)))
        time.append(one.time)
        quality.append(one.quality)
        server.append(NO_TIME if one.server is None else one.server)
        with_server = with_server or one.server is not None
        found = one.value
        if isinstance(found, bool):
            kind.append(BOOL)
            value += struct.pack("<q", found)
        elif isinstance(found, int):
            kind.append(WHOLE)
            value += struct.pack("<q", found)
        elif isinstance(found, float):
            kind.append(FLOAT)
            value += struct.pack("<d", found)
        else:
            kind.append(TEXT)
            value += struct.pack("<q", len(texts))
            texts.append(found)
    return Samples(
        lane, 0, source, upto, tuple(names), tag.tobytes(), time.tobytes(), bytes(kind), bytes(value),
        quality.tobytes(), server.tobytes() if with_server else b"", tuple(texts),
    )  # fmt: skip


_NO_TEXT: Final = pa.repeat("", POINTS_MOST)
_NO_SERVER: Final = pa.repeat(pa.scalar(NO_TIME, pa.int64()), POINTS_MOST)
"""Of batches whose samples have none: once in memory for all of them."""


def _fixed(kind: pa.DataType, data: bytes, count: int) -> Any:
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(data)])


_good_names: set[str] = set()
"""Names that were looked at: batch after batch has the same."""


def check(record: Samples) -> None:
    """Raises: CrossingError, where its columns are not what they have to be."""
    count = len(record.kind)
    if not 0 < count <= POINTS_MOST and not (count == 0 and not record.names):
        raise CrossingError(f"a batch of {count} samples")
    lengths = (len(record.tag), len(record.time), len(record.value), len(record.quality), len(record.server))
    if lengths[:4] != (4 * count, 8 * count, 8 * count, 8 * count) or lengths[4] not in (0, 8 * count):
        raise CrossingError(f"columns of unequal length: {lengths} bytes for {count} samples")
    if not count:
        return
    if not _good_names.issuperset(record.names):
        for name in record.names:
            if not tag_name(name):
                raise CrossingError(f"a tag that no tag is called: {name[:64]!r}")
            if len(_good_names) < TAGS_MOST:
                _good_names.add(name)
    if len(set(record.names)) != len(record.names):
        raise CrossingError("a tag twice in the names of a batch")
    if pc.max(_fixed(pa.uint32(), record.tag, count)).as_py() >= len(record.names):
        raise CrossingError("a sample of a tag that the batch does not name")
    kinds = _fixed(pa.uint8(), record.kind, count)
    if pc.max(kinds).as_py() > TEXT:
        raise CrossingError("a kind of value that there is not")
    values = _fixed(pa.int64(), record.value, count)
    for kind, most in ((BOOL, 2), (TEXT, len(record.texts))):
        some = values.filter(pc.equal(kinds, kind))
        if len(some) and not (pc.min(some).as_py() >= 0 and pc.max(some).as_py() < most):
            raise CrossingError("a value that is none of its kind")


def span(record: Samples) -> tuple[int, int]:
    """The earliest and the latest time of a batch that has samples."""
    found = pc.min_max(_fixed(pa.int64(), record.time, record.count)).as_py()
    return found["min"], found["max"]


def to_batch(record: Samples) -> pa.RecordBatch:
    """A record that was checked, in the form HOT."""
    count = record.count
    kinds = _fixed(pa.int8(), record.kind, count)
    bits = _fixed(pa.int64(), record.value, count)
    text = _NO_TEXT.slice(0, count)
    if record.texts:
        texts = pa.array([*record.texts, ""], pa.string())
        text = texts.take(pc.if_else(pc.equal(kinds, TEXT), bits, len(record.texts)))
        bits = pc.if_else(pc.equal(kinds, TEXT), 0, bits)
    if record.server:
        server = _fixed(pa.int64(), record.server, count)
    else:
        server = _NO_SERVER.slice(0, count)
    tags = pa.DictionaryArray.from_arrays(
        _fixed(pa.int32(), record.tag, count), pa.array(record.names, pa.string()), safe=False
    )
    return pa.RecordBatch.from_arrays(
        [tags, _fixed(pa.int64(), record.time, count), kinds, bits, text, _fixed(pa.int64(), record.quality, count),
         server],
        schema=HOT,
    )  # fmt: skip


def without(batch: pa.RecordBatch, names: Collection[str]) -> pa.RecordBatch:
    """A batch in the form HOT without the samples of some tags."""
    table = pa.Table.from_batches([batch])
    table = table.filter(pc.invert(pc.is_in(table["tag"].cast(pa.string()), pa.array(sorted(names), pa.string()))))
    plain = table["tag"].cast(pa.string()).combine_chunks()
    tags = plain.dictionary_encode().cast(TAGS) if len(plain) else pa.array([], TAGS)
    return pa.RecordBatch.from_arrays([tags, *(table[name].combine_chunks() for name in HOT.names[1:])], schema=HOT)


def crc(batch: pa.RecordBatch) -> int:
    """CRC-32 of all that a batch in the form HOT says, whatever memory it lies in."""
    found = 0
    for column in batch.columns:
        if isinstance(column, pa.DictionaryArray):
            found = _crc_text(column.dictionary, found)
            column = column.indices
        if pa.types.is_string(column.type):
            found = _crc_text(column, found)
            continue
        width = column.type.bit_width // 8
        data = column.buffers()[1]
        if data is not None and len(column):
            found = zlib.crc32(memoryview(data)[column.offset * width : (column.offset + len(column)) * width], found)
    return found


def _crc_text(column: pa.Array, found: int) -> int:
    _, offsets, data = column.buffers()
    if offsets is None or not len(column):
        return found
    places = memoryview(offsets)[column.offset * 4 : (column.offset + len(column) + 1) * 4]
    found = zlib.crc32(places, found)
    first, last = struct.unpack("<i", places[:4])[0], struct.unpack("<i", places[-4:])[0]
    return zlib.crc32(memoryview(data)[first:last], found) if data is not None and last > first else found


def stored(batches: Sequence[tuple[int, pa.RecordBatch]]) -> pa.Table:
    """Batches in the form HOT, each with its commit, in the form STORED: as they are, in order."""
    if not batches:
        return STORED.empty_table()
    commits = pa.chunked_array(
        [pa.repeat(pa.scalar(number, pa.int64()), batch.num_rows) for number, batch in batches], pa.int64()
    )
    table = pa.Table.from_batches([batch for _, batch in batches], HOT)
    kinds, bits = table["kind"], table["bits"]
    floats = pa.chunked_array([chunk.view(pa.float64()) for chunk in bits.chunks], pa.float64())
    number = pc.if_else(pc.equal(kinds, FLOAT), floats, pc.cast(bits, pa.float64(), safe=False))
    is_text = pc.equal(kinds, TEXT)
    server = table["server"]
    return pa.Table.from_arrays(
        [
            table["tag"].cast(pa.string()),
            table["time"].cast(TIME),
            kinds,
            pc.if_else(is_text, pa.scalar(None, pa.float64()), number),
            pc.if_else(pc.equal(kinds, WHOLE), bits, pa.scalar(None, pa.int64())),
            pc.if_else(is_text, table["text"], pa.scalar(None, pa.string())),
            table["quality"],
            pc.if_else(pc.equal(server, NO_TIME), pa.scalar(None, pa.int64()), server).cast(TIME),
            commits,
        ],
        schema=STORED,
    )


# --- one order, no repetitions --------------------------------------------------------------------------------------


def bits_of(table: pa.Table) -> pa.ChunkedArray:
    """The 8 bytes of each value of a table in the form STORED, as an int64; of a text, 0."""
    floats = pc.fill_null(table["value"], 0.0)
    if isinstance(floats, pa.ChunkedArray):
        floats = pa.chunked_array([chunk.view(pa.int64()) for chunk in floats.chunks], pa.int64())
    kinds = table["kind"]
    whole = pc.fill_null(table["whole"], 0)
    return pc.if_else(pc.equal(kinds, FLOAT), floats, pc.if_else(pc.equal(kinds, WHOLE), whole, _booleans(table)))


def _booleans(table: pa.Table) -> pa.ChunkedArray:
    is_bool = pc.equal(table["kind"], BOOL)
    return pc.cast(pc.if_else(is_bool, pc.fill_null(table["value"], 0.0), 0.0), pa.int64())


def in_order(table: pa.Table) -> pa.Table:
    """Sorted by (tag, time, commit)."""
    order = pc.sort_indices(table, [("tag", "ascending"), ("time", "ascending"), ("commit", "ascending")])
    return table.take(order).combine_chunks()


def tidy(table: pa.Table, *, latest: bool = False) -> pa.Table:
    """Sorted by (tag, time, commit), without exact repetitions; with `latest`, of each (tag, time) the last revision
    alone."""
    table = in_order(table)
    if table.num_rows < 2:
        return table
    same_place = _same(table["tag"]) if not _one_tag(table) else None
    times = _same(table["time"])
    same_place = times if same_place is None else pc.and_(same_place, times)
    if not pc.any(same_place).as_py():
        return table
    if latest:
        keep = pc.invert(_shifted_back(same_place))
        return table.filter(keep)
    same = pc.and_(same_place, _same(bits_of(table)))
    for name in ("kind", "quality"):
        same = pc.and_(same, _same(table[name]))
    same = pc.and_(same, _same(pc.fill_null(table["text"], "")))
    return table.filter(pc.invert(pa.concat_arrays([pa.array([False]), _whole(same)])))


def places(table: pa.Table) -> int:
    """Of a table that is tidy: how many different times of tags there are."""
    count: int = table.num_rows
    if count > 1:
        same = pc.and_(_same(table["tag"]), _same(table["time"]))
        count -= pc.sum(same).as_py()
    return count


def _whole(found: Any) -> pa.Array:
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _one_tag(table: pa.Table) -> bool:
    found: bool = table["tag"][0] == table["tag"][-1]  # it is sorted
    return found


def _same(column: pa.ChunkedArray) -> pa.Array:
    """Of each row but the first, whether it is as the one before."""
    flat = _whole(column)
    return pc.equal(flat.slice(1), flat.slice(0, len(flat) - 1))


def _shifted_back(same: pa.Array) -> pa.Array:
    """Of each row, whether the next one is as it."""
    return pa.concat_arrays([_whole(same), pa.array([False])])


# --- digests --------------------------------------------------------------------------------------------------------

_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _mix(value: Any) -> Any:
    """The finishing step of splitmix64, on columns of uint64."""
    value = pc.multiply(pc.bit_wise_xor(value, pc.shift_right(value, _u64(30))), _u64(_FIRST))
    value = pc.multiply(pc.bit_wise_xor(value, pc.shift_right(value, _u64(27))), _u64(_SECOND))
    return pc.bit_wise_xor(value, pc.shift_right(value, _u64(31)))


def _u64(number: int) -> pa.Scalar:
    return pa.scalar(number, pa.uint64())


def _unsigned(column: Any) -> Any:
    flat = _whole(column)
    return flat.view(pa.uint64()) if len(flat) else pa.array([], pa.uint64())


def mixed(values: pa.Array, qualities: pa.Array) -> pa.Array:
    """Of samples (columns of int64), one number each (int64), which is another where value or quality is."""
    return _mix(pc.bit_wise_xor(_mix(values.view(pa.uint64())), qualities.view(pa.uint64()))).view(pa.int64())


def as_int64(column: array[int]) -> pa.Array:
    """The same, as Arrow has it."""
    return pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)])


class Summary(NamedTuple):
    """What a tag has: samples, how many different times they are of, and a digest over what each says, in which their
    order does not matter (int64). It finds loss, damage and other values; it is no signature."""

    rows: int
    times: int
    digest: int


def summary(table: pa.Table) -> dict[str, Summary]:
    """Of samples in the form STORED, by tag."""
    if table.num_rows == 0:
        return {}
    plain = pa.table({"tag": table["tag"], "time": table["time"].cast(pa.int64()), "mixed": _mixed(table)})
    found = plain.group_by("tag", use_threads=False).aggregate(
        [("time", "count"), ("time", "count_distinct"), ("mixed", "sum")]
    )
    digests = _whole(found["mixed_sum"]).view(pa.int64())  # a sum of uint64 wraps, as it should
    columns = (found["tag"], found["time_count"], found["time_count_distinct"], digests)
    return {tag: Summary(*rest) for tag, *rest in zip(*(column.to_pylist() for column in columns), strict=True)}


def _mixed(table: pa.Table) -> Any:
    """Of each sample, what it says as one number."""
    mixed = _mix(_unsigned(table["time"].cast(pa.int64())))
    for column in (bits_of(table), pc.cast(table["kind"], pa.int64()), table["quality"]):
        mixed = _mix(pc.bit_wise_xor(mixed, _unsigned(column)))
    texts = table["text"]
    if texts.null_count != len(texts):
        marks = [zlib.crc32(one.encode()) if one is not None else 0 for one in texts.to_pylist()]
        # Of a number nothing changes by texts that lie beside it: it is summed up on both sides, in other company.
        with_text = _mix(pc.bit_wise_xor(_whole(mixed), pa.array(marks, pa.uint64())))
        mixed = pc.if_else(_whole(pc.is_valid(texts)), with_text, _whole(mixed))
    return mixed
