"""What lies in files that are left in a folder: read as declared, or refused with row and column."""

from __future__ import annotations

import asyncio
import io
import math
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cofferdam.brokers.kit import folders
from cofferdam.brokers.mirror import dropped
from cofferdam.brokers.mirror.columns import check
from cofferdam.brokers.mirror.dropped import Refused
from cofferdam.brokers.mirror.drops import ENDED_MOST, Drops
from cofferdam.brokers.mirror.records import BOOL, TEXT, WHOLE
from cofferdam.policy.terms.mirror_rows import Drop

NOON = 1_801_224_000 * 10**9  # 2027-01-29T12:00:00Z
LIMIT = NOON + 3600 * 10**9
Row = tuple[str, int, Any, int]


def rows(data: bytes, oldest: int = dropped.EARLIEST_NS, **said: Any) -> list[Row]:
    found: list[Row] = []
    for record in dropped.read(io.BytesIO(data), Drop(name="lab", folder="lab", **said), LIMIT, lambda at: at < oldest):
        check(record)
        assert record.lane == "backfill" and record.upto == -1
        for index, kind in enumerate(record.kind):
            (name,), (at,) = (
                struct.unpack_from("<I", record.tag, 4 * index),
                struct.unpack_from("<q", record.time, 8 * index),
            )
            raw = record.value[8 * index : 8 * index + 8]
            (number,) = struct.unpack("<d", raw) if kind == 0 else struct.unpack("<q", raw)
            value: Any = record.texts[number] if kind == TEXT else bool(number) if kind == BOOL else number
            (quality,) = struct.unpack_from("<q", record.quality, 8 * index)
            found.append((record.names[name], at, value, quality))
            assert kind != WHOLE or isinstance(value, int)
    return found


T = "2027-01-29T12:00:00Z"
CSV: dict[str, tuple[bytes, dict[str, Any], list[Row]]] = {
    "long": (f"tag,time,value\na,{T},1.5\nb,{T},-2e3\n".encode(), {}, [("a", NOON, 1.5, 0), ("b", NOON, -2000.0, 0)]),
    "a BOM and CRLF": (f"\ufefftag,time,value\r\na,{T},1\r\n".encode(), {}, [("a", NOON, 1.0, 0)]),
    "a decimal comma": (
        f"time;tag;value\n{T};a;1,5\n".encode(), {"delimiter": ";", "decimal": ","}, [("a", NOON, 1.5, 0)],
    ),
    "wide, and a cell that is empty": (
        f"time,flow 1,flow 2\n{T},1,\n2027-01-29T13:00:00+01:00,2,3\n".encode(), {"wide": True, "tag": "", "value": ""},
        [("flow 1", NOON, 1.0, 0), ("flow 1", NOON, 2.0, 0), ("flow 2", NOON, 3.0, 0)],
    ),
    "one tag, a quality, no value": (
        f"time,value,q\n{T},,\n{T},7,192\n".encode(), {"of": "tank", "tag": "", "quality": "q"},
        [("tank", NOON, None, 0x80000000), ("tank", NOON, 7.0, 192)],
    ),
    "what a float can be": (
        f"tag,time,value\na,{T},-0\na,{T},5e-324\na,{T},NaN\na,{T},-inf\n".encode(), {},
        [("a", NOON, -0.0, 0), ("a", NOON, 5e-324, 0), ("a", NOON, None, 0), ("a", NOON, -math.inf, 0)],
    ),
    "whole numbers of 64 bits": (
        f"tag,time,value\na,{T},9223372036854775807\na,{T},-9223372036854775808\n".encode(), {"kind": "integer"},
        [("a", NOON, (1 << 63) - 1, 0), ("a", NOON, -(1 << 63), 0)],
    ),
    "true and false": (
        f"tag,time,value\na,{T},Yes\na,{T},0\n".encode(), {"kind": "bool"},
        [("a", NOON, True, 0), ("a", NOON, False, 0)],
    ),
    "texts of another encoding": (
        f"tag,time,value\nä,{T},über\n".encode("cp1252"), {"kind": "text", "encoding": "cp1252"},
        [("ä", NOON, "über", 0)],
    ),
    "ms since 1970": (
        f"tag,time,value\na,{NOON // 10**6},1\nb,-1.5,1\n".encode(), {"times": "ms"},
        [("a", NOON, 1.0, 0), ("b", -1_500_000, 1.0, 0)],
    ),
    "as people write it, in a zone": (
        b"tag,time,value\na,29.01.2027 13:00:00,1\nb,29.07.2026 14:00:00,1\n",
        {"times": "%d.%m.%Y %H:%M:%S", "zone": "Europe/Berlin"},
        [("a", NOON, 1.0, 0), ("b", 1_785_326_400 * 10**9, 1.0, 0)],
    ),
    "iso without an offset, in one": (
        b"tag,time,value\na,2027-01-29 17:30:00.25,1\n", {"zone": "+05:30"}, [("a", NOON + 250_000_000, 1.0, 0)],
    ),
    "the autumn hour with its offset": (
        b"tag,time,value\na,2026-10-25T02:30:00+02:00,1\na,2026-10-25T02:30:00+01:00,2\n", {"zone": "Europe/Berlin"},
        [("a", 1_792_888_200 * 10**9, 1.0, 0), ("a", 1_792_891_800 * 10**9, 2.0, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CSV)
def test_csv_as_declared(what: str) -> None:
    data, said, wanted = CSV[what]
    found = rows(data, **said)
    plain = [(tag, at, None if value != value else value, quality) for tag, at, value, quality in found]
    assert plain == wanted
    assert str(plain) == str(wanted)  # -0 is not 0, and True is not 1


BAD: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "nothing": (b"", {}, "row 1: there is none"),
    "another header": (b"tag,when,value\n", {}, "row 1: no column 'time'; there are tag, when, value"),
    "a column twice": (b"tag,time,value,value\n", {}, "'value' is there twice"),
    "a decimal comma": (f'tag,time,value\na,{T},"1,5"\n'.encode(), {}, "row 2, column value: '1,5'"),
    "a decimal point where a comma is": (
        f"tag;time;value\na;{T};1.5\n".encode(), {"delimiter": ";", "decimal": ","}, "row 2, column value: '1.5'",
    ),
    "another delimiter": (f"tag;time;value\na;{T};1\n".encode(), {}, "no column 'tag'"),
    "half a row": (f"tag,time,value\na,{T},1\na,2027-01-2\n".encode(), {}, "row 3: 2 cells, and 3 columns"),
    "half a number": (f"tag,time,value\na,{T},12".encode(), {}, "row 2: no row of CSV: it has no end of line"),
    "half a quoted cell": (f'tag,time,value\na,{T},"1'.encode(), {}, "row 2: no row of CSV"),
    "a time without an offset": (b"tag,time,value\na,2027-01-29T12:00:00,1\n", {}, "row 2, column time: '2027-01"),
    "the autumn hour": (b"tag,time,value\na,2026-10-25T02:30:00,1\n", {"zone": "Europe/Berlin"}, "comes twice"),
    "the spring hour": (b"tag,time,value\na,2026-03-29T02:30:00,1\n", {"zone": "Europe/Berlin"}, "does not come"),
    "the future": (b"tag,time,value\na,2027-01-29T14:00:00Z,1\n", {}, "ahead of the clock"),
    "2262": (b"tag,time,value\na,2263-01-01T00:00:00Z,1\n", {}, "1678 to 2262"),
    "the year 1": (b"tag,time,value\na,0001-01-01T00:00:00Z,1\n", {}, "1678 to 2262"),
    "the 31st of February": (b"tag,time,value\na,2026-02-31T00:00:00Z,1\n", {}, "row 2, column time"),
    "another pattern": (b"tag,time,value\na,1/2/3,1\n", {"times": "%d.%m.%Y", "zone": "UTC"}, "row 2, column time"),
    "65 bits": (f"tag,time,value\na,{T},9223372036854775808\n".encode(), {"kind": "integer"}, "is no integer"),
    "a NUL": (f"tag,time,value\na\0,{T},1\n".encode(), {}, "row 2: no row of CSV: a NUL"),
    "no UTF-8": (f"tag,time,value\n\xe4,{T},1\n".encode("latin-1"), {}, "it is not utf-8"),
    "a tag with a star": (f"tag,time,value\na*,{T},1\n".encode(), {}, "row 2, column tag: 'a*'"),
    "no tag": (f"tag,time,value\n,{T},1\n".encode(), {}, "row 2, column tag: ''"),
    "a text of a megabyte": (
        f"tag,time,value\na,{T},{'x' * (1 << 20)}\n".encode(), {"kind": "text"}, "row 2: no row of CSV",
    ),
    "a line without end": (b"tag,time,value\n" + b"x" * (3 << 20), {}, "row 2: no row of CSV: a row of more"),
    "a column named like no tag": (b'time,"a\nb"\n', {"wide": True, "tag": "", "value": ""}, "tag's name"),
    "a quality that is none": (f"tag,time,value,q\na,{T},1,good\n".encode(), {"quality": "q"}, "row 2, column q"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_csv_that_is_not_as_declared_is_refused_by_row_and_column(what: str) -> None:
    data, said, words = BAD[what]
    with pytest.raises(Refused) as refused:
        rows(data, **said)
    assert words in str(refused.value)


def test_what_is_older_than_is_kept_is_refused_by_row_and_column() -> None:
    """But not for a server's own time, which is no sample's."""
    text = f"tag,time,value,server\na,{T},1,1601-01-01T00:00:00Z\na,{T},1,{T}\na,{{}},2,\n".replace("1601", "1701")
    for at, taken in ((T, True), ("2027-01-29T11:00:00Z", True), ("2027-01-29T10:59:59Z", False)):
        if taken:
            assert len(rows(text.format(at).encode(), NOON - 3600 * 10**9, server="server")) == 3
            continue
        with pytest.raises(
            Refused, match=r"row 4, column time: '2027-01-29T10:59:59Z'.* older than the policy's `keep`"
        ):
            rows(text.format(at).encode(), NOON - 3600 * 10**9, server="server")
    out = parquet({"tag": ["a", "a"], "time": pa.array([NOON, NOON - 1], AT.type), "value": [1.0, 2.0]})
    assert len(rows(out, NOON - 1, form="parquet")) == 2
    with pytest.raises(Refused, match="row 2, column time: it is older"):
        rows(out, NOON, form="parquet")


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


AT = pa.array([NOON], pa.timestamp("ns", "UTC"))


@pytest.mark.parametrize(
    ("columns", "said", "wanted"),
    [
        ({"tag": ["a"], "time": AT, "value": [1.5]}, {}, [("a", NOON, 1.5, 0)]),
        ({"tag": ["a"], "time": AT, "value": [7]}, {}, [("a", NOON, 7, 0)]),
        ({"tag": pa.array(["a"]).dictionary_encode(), "time": AT, "value": ["x"]}, {}, [("a", NOON, "x", 0)]),
        ({"time": AT.cast(pa.timestamp("ms", "UTC")), "a": [True], "b": [None]}, {"wide": True, "tag": "", "value": ""},
         [("a", NOON, True, 0)]),
        ({"tag": ["a"], "time": pa.array([NOON // 1000 + 3600 * 10**6], pa.timestamp("us")), "value": [1.0]},
         {"zone": "Europe/Berlin"}, [("a", NOON, 1.0, 0)]),
    ],
)  # fmt: skip
def test_parquet_as_declared(columns: dict[str, Any], said: dict[str, Any], wanted: list[Row]) -> None:
    if "b" in columns:
        columns["b"] = pa.array([None], pa.float64())
    assert rows(parquet(columns), form="parquet", **said) == wanted


def test_the_numbers_of_rows_that_pandas_writes_are_no_tag() -> None:
    """A table that was filtered keeps them, as a column without a name."""
    frame = {"time": AT, "ph": [7.5], "__index_level_0__": [3]}
    assert rows(parquet(frame), form="parquet", wide=True, tag="", value="") == [("ph", NOON, 7.5, 0)]
    frame = {"__index_level_0__": AT, "ph": [7.5]}  # a time that has no name either
    said: dict[str, Any] = {"wide": True, "tag": "", "value": "", "time": "__index_level_0__"}
    assert rows(parquet(frame), form="parquet", **said) == [("ph", NOON, 7.5, 0)]


GOOD = parquet({"tag": ["a"], "time": AT, "value": [1.5]})


def lies() -> bytes:
    """A file of Parquet that says it has 2^40 rows."""
    meta = pq.ParquetFile(io.BytesIO(GOOD)).metadata
    assert meta.num_rows == 1
    # In the footer (Thrift, compact) field 3 of FileMetaData is the number of rows: its head, and a zigzag number.
    at = GOOD.rindex(b"\x16\x02", len(GOOD) - 8 - int.from_bytes(GOOD[-8:-4], "little"))
    for place in range(len(GOOD) - 8 - int.from_bytes(GOOD[-8:-4], "little"), at + 1):
        if GOOD[place : place + 2] != b"\x16\x02":
            continue
        more = GOOD[: place + 1] + b"\x80\x80\x80\x80\x80\x40" + GOOD[place + 2 : -8]
        length = int.from_bytes(GOOD[-8:-4], "little") + 5
        forged = more + length.to_bytes(4, "little") + b"PAR1"
        try:
            if pq.ParquetFile(io.BytesIO(forged)).metadata.num_rows == 1 << 40:
                return forged
        except (pa.ArrowException, OSError):
            continue
    raise AssertionError("the footer is not where it was")


@pytest.mark.parametrize(
    ("data", "said", "words"),
    [
        (b"PAR1", {}, "cannot be read as Parquet"),
        (GOOD[:-40], {}, "cannot be read as Parquet"),
        (lies(), {}, "rows"),
        (parquet({"tag": ["a"], "time": pa.array([NOON], pa.timestamp("ns")), "value": [1.0]}), {}, "with a zone"),
        (parquet({"tag": ["a"], "time": AT, "value": pa.array([[1]])}), {}, "a number, a bool or a text"),
        (parquet({"tag": ["a"], "time": pa.array([None], AT.type), "value": [1.0]}), {}, "row 1, column time"),
        (parquet({"tag": ["a"], "time": AT, "value": pa.array([1 << 63], pa.uint64())}), {}, "64 bits"),
        (parquet({"tag": ["a"], "time": AT, "value": ["x" * (1 << 20)]}), {}, "a text of more"),
        (parquet({"time": AT, "value": [1.0]}), {}, "no column 'tag'"),
    ],
)
def test_parquet_that_lies_or_is_none(data: bytes, said: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as refused:
        rows(data, form="parquet", **said)
    assert words in str(refused.value)


def test_a_bomb_in_a_row_group_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "GROUP_BYTES", 1 << 20)
    count = 300_000  # one text, again and again: little in the file, and much in memory
    data = parquet({"tag": ["a"] * count, "time": pa.array([NOON] * count, AT.type), "value": ["x" * 50] * count},
                   use_dictionary=False, compression="zstd")  # fmt: skip
    assert len(data) < 1 << 18
    with pytest.raises(Refused, match="row group"):
        rows(data, form="parquet")


def test_a_flipped_bit_never_ends_the_part() -> None:
    for at in range(0, len(GOOD), 3):
        flipped = bytearray(GOOD)
        flipped[at] ^= 1 << at % 8
        try:
            rows(bytes(flipped), form="parquet")
        except Refused:
            continue


def test_an_alarm_tells_how_many_entries_of_a_folder_are_odd_and_names_the_first(tmp_path: Path) -> None:
    watched = folders.Watched(tmp_path, "lab")
    for count, words in (
        (1, "0 in lab is a link, and is left alone"),
        (9, "9 entries: 0 in lab is a link, and is left alone; 1 in lab is a link, and is left alone; 2 in lab is a"
            " link, and is left alone; and 6 more"),
    ):  # fmt: skip
        for name in range(count):
            (tmp_path / str(name)).unlink(missing_ok=True)
            (tmp_path / str(name)).symlink_to("/etc/passwd")
        with folders.opened(tmp_path) as here:
            assert asyncio.run(watched.ready(here, 0)) == []
        assert watched.told() == words


def test_a_file_that_may_not_be_read_waits_for_a_person(tmp_path: Path) -> None:
    """However often it is tried: it is not what ends the part, and does not go to `bad`."""
    path = tmp_path / "theirs.csv"
    path.write_bytes(b"time,value\n")
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.chown(tmp_path, 65534, 65534)
    setting = SimpleNamespace(wall=lambda: NOON, folders={"lab": tmp_path})
    owner = cast(Any, SimpleNamespace(setting=setting, row=SimpleNamespace(future=600, keep=0), refused=None, held=()))
    drops = Drops(owner, Drop(name="lab", folder="lab", of="ph", settle=0))

    with folders.opened(tmp_path) as here:
        done, bad = (folders.beneath(here, name) for name in (folders.DONE, folders.BAD))
        try:
            for _ in range(2 * ENDED_MOST):
                assert asyncio.run(drops._watched.ready(here, 0)) == ["theirs.csv"]
                if root:
                    os.seteuid(65534)
                assert not asyncio.run(drops._file("theirs.csv", here, done, bad))
                if root:
                    os.seteuid(0)
                assert "theirs.csv in lab cannot be read" in drops._watched.told()
        finally:
            if root:
                os.seteuid(0)
            os.close(done)
            os.close(bad)
    assert path.exists() and not list((tmp_path / "bad").iterdir())
