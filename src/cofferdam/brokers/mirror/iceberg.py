"""Sealed history as an Apache Iceberg table on an object store, for Trino, Spark, ClickHouse, DuckDB and their like.

    PATH/data/SEALED-FILE/N.parquet      samples: all that is sealed, each revision with its commit
    PATH/metadata/vN.metadata.json       the table, in the layout that needs no catalogue (version-hint.text)

A table's files are those of the sealed files that the store has: what the store has more is added, what it has no more
(its day was made into one file, or is too old) is removed, of a day all in one commit. So a sealed file is there once,
whoever died when: what was uploaded and not committed is nobody's, and is written again. Iceberg has microseconds; the
rest stands in `ns`.

Not here: the object store (objects), when (publisher).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromByteStream
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DoubleType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from cofferdam.brokers.mirror import sealing
from cofferdam.brokers.mirror.catalogue import File
from cofferdam.brokers.mirror.columns import STORED
from cofferdam.brokers.mirror.objects import Bucket
from cofferdam.brokers.mirror.query import View
from cofferdam.errors import StoreError

ROWS_AT_ONCE: Final = 500_000
"""Of one object: so many are in memory."""
FILES_AT_ONCE: Final = 48
"""Sealed files of one commit, or those of one day."""
HINT: Final = "metadata/version-hint.text"
SNAPSHOTS: Final = 200
"""That are kept in the table's metadata, for readers that are under way."""
SCHEMA: Final = Schema(
    NestedField(1, "tag", StringType(), required=False),
    NestedField(2, "time", TimestamptzType(), required=False),
    NestedField(3, "ns", IntegerType(), required=False),
    NestedField(4, "kind", IntegerType(), required=False),
    NestedField(5, "value", DoubleType(), required=False),
    NestedField(6, "whole", LongType(), required=False),
    NestedField(7, "text", StringType(), required=False),
    NestedField(8, "quality", LongType(), required=False),
    NestedField(9, "server", TimestamptzType(), required=False),
    NestedField(10, "commit", LongType(), required=False),
)
_SPEC: Final = PartitionSpec(PartitionField(2, 1000, DayTransform(), "day"))
_MOMENT: Final = pa.timestamp("us", "UTC")
_ARROW: Final = pa.schema([
    pa.field(name, kind, metadata={b"PARQUET:field_id": str(number).encode()})
    for number, (name, kind) in enumerate((
        ("tag", pa.string()), ("time", _MOMENT), ("ns", pa.int32()), ("kind", pa.int32()), ("value", pa.float64()),
        ("whole", pa.int64()), ("text", pa.string()), ("quality", pa.int64()), ("server", _MOMENT),
        ("commit", pa.int64()),
    ), 1)
])  # fmt: skip


class Odd(Exception):
    """What lies in the bucket is not understood, or is not as it was: in the words of whoever stumbled over it."""


class Published:
    """One table. `name` is the mirror's; made anew for each session."""

    def __init__(self, bucket: Bucket, path: str, name: str) -> None:
        self.bucket = bucket
        self._path = path
        self._at = f"s3://{bucket.where.bucket}/{path}"
        self._io = _Objects(bucket)
        self._name = name
        self._table: Table | None = None

    def step(self, view: View) -> tuple[int, int]:
        """Brings some days up to what the store has, in one commit: how many sealed files were added or removed, and
        how many are left to be. Raises: OSError, StoreError, Odd."""
        try:
            return self._step(view)
        except (OSError, StoreError):
            raise
        except Exception as error:  # of a library that reads what an object store answers: this ends the step alone
            raise Odd(f"what the object store has is not understood ({type(error).__name__}: {error})") from None

    def _step(self, view: View) -> tuple[int, int]:
        table = self._table = self._table or self._load() or self._create()
        there: dict[str, list[DataFile]] = {}
        for task in table.scan().plan_files():
            there.setdefault(self._sealed(task.file), []).append(task.file)
        wanted = {file.name: file for file in view.catalogue.files}
        by_day: dict[int, tuple[list[File], list[str]]] = {}
        for name, file in wanted.items():
            if name not in there:
                by_day.setdefault(file.first // 24, ([], []))[0].append(file)
        for name in there.keys() - wanted.keys():
            by_day.setdefault(sealing.hours_in(name)[0] // 24, ([], []))[1].append(name)
        left = sum(len(fresh) + len(gone) for fresh, gone in by_day.values())
        added: list[File] = []
        removed: list[str] = []
        for _, (fresh, gone) in sorted(by_day.items()):
            added += fresh
            removed += gone
            if len(added) + len(removed) >= FILES_AT_ONCE:
                break
        if not left:
            return 0, 0
        made = [one for file in added for one in self._upload(view, file, table.metadata)]
        try:
            properties = {"cofferdam.generation": str(view.catalogue.generation)}
            with (
                table.transaction() as change,
                change.update_snapshot(snapshot_properties=properties).overwrite() as update,
            ):
                for name in removed:
                    for one in there[name]:
                        update.delete_data_file(one)
                for one in made:
                    update.append_data_file(one)
        except BaseException:
            self._table = None  # what it knows may not be what is there
            raise
        self._expire(table)
        done = len(added) + len(removed)
        return done, left - done

    def _expire(self, table: Table) -> None:
        """Old snapshots are forgotten."""
        found = sorted(table.metadata.snapshots, key=lambda one: one.timestamp_ms)
        if len(found) > SNAPSHOTS + SNAPSHOTS // 4:
            old = [one.snapshot_id for one in found[:-SNAPSHOTS]]
            table.maintenance.expire_snapshots().by_ids(old).commit()

    def _sealed(self, file: DataFile) -> str:
        """The sealed file that an object is of."""
        rest = file.file_path.removeprefix(f"{self._at}/data/")
        return f"{rest.partition('/')[0]}.parquet"

    def _upload(self, view: View, file: File, metadata: TableMetadata) -> Iterator[DataFile]:
        """A sealed file as objects. They count once a commit has them. Raises: OSError, StoreError."""
        some: list[pa.Table] = []
        rows = number = 0
        opened = sealing.open_file(view.folder / file.name)
        for index in range(opened.num_row_groups):
            some.append(sealing.read_group(opened, index).cast(STORED))
            rows += some[-1].num_rows
            if rows >= ROWS_AT_ONCE or index == opened.num_row_groups - 1:
                location = f"{self._at}/data/{file.name.removesuffix('.parquet')}/{number}.parquet"
                data = as_parquet(some)
                self.bucket.put(location.removeprefix(f"s3://{self.bucket.where.bucket}/"), data)
                yield parquet_file_to_data_file(_Memory(location, data), metadata, location)
                some, rows, number = [], 0, number + 1

    # --- the table

    def _load(self) -> Table | None:
        hint = self.bucket.get(f"{self._path}/{HINT}")
        if hint is None:
            return None
        text = hint.strip()
        if not text.isdigit() or len(text) > 12:
            raise ValueError(f"{HINT} is no number")
        location = self._metadata(int(text))
        metadata = FromByteStream.table_metadata(self._io.new_input(location).open())
        return self._made(metadata, location)

    def _create(self) -> Table:
        metadata = new_table_metadata(
            SCHEMA, _SPEC, UNSORTED_SORT_ORDER, self._at,
            {"format-version": "2", "write.metadata.previous-versions-max": "100", "created-by": "cofferdam"},
        )  # fmt: skip
        self.write(metadata, 1)
        return self._made(metadata, self._metadata(1))

    def _made(self, metadata: TableMetadata, location: str) -> Table:
        return Table(("cofferdam", self._name), metadata, location, self._io, _Commits(self))

    def _metadata(self, number: int) -> str:
        return f"{self._at}/metadata/v{number}.metadata.json"

    def write(self, metadata: TableMetadata, number: int) -> str:
        """Puts a version in place, which nobody else has put there. Raises: OSError, FileExistsError."""
        data = metadata.model_dump_json(exclude_none=True).encode()
        self.bucket.put(f"{self._path}/metadata/v{number}.metadata.json", data, new=True)
        self.bucket.put(f"{self._path}/{HINT}", str(number).encode())
        return self._metadata(number)


class _Commits(NoopCatalog):
    """Where a table's commits go: a file with the next number, and the hint."""

    def __init__(self, owner: Published) -> None:
        super().__init__("cofferdam")
        self._owner = owner

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        for requirement in requirements:
            requirement.validate(table.metadata)
        location = table.metadata_location
        made = update_table_metadata(table.metadata, updates, metadata_location=location)
        number = int(location.rpartition("/v")[2].partition(".")[0]) + 1
        return CommitTableResponse(metadata=made, metadata_location=self._owner.write(made, number))


class _Object(InputFile, OutputFile):
    """An object that is read or written whole."""

    def __init__(self, location: str, bucket: Bucket) -> None:
        super().__init__(location)
        self._bucket = bucket
        self._key = location.removeprefix(f"s3://{bucket.where.bucket}/")

    def _data(self) -> bytes:
        found = self._bucket.get(self._key)
        if found is None:
            raise FileNotFoundError(self.location)
        return found

    def __len__(self) -> int:
        return len(self._data())

    def exists(self) -> bool:
        return self._bucket.get(self._key) is not None

    def open(self, seekable: bool = True) -> Any:
        return io.BytesIO(self._data())

    def to_input_file(self) -> InputFile:
        return self

    def create(self, overwrite: bool = False) -> Any:
        return _Writing(self._bucket, self._key)


class _Writing(io.BytesIO):
    """Put in place once it is closed; not after an error."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        super().__init__()
        self._bucket, self._key = bucket, key

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            super().close()
        else:
            self.close()

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._bucket.put(self._key, data)


class _Objects(FileIO):
    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self._bucket = bucket

    def new_input(self, location: str) -> InputFile:
        return _Object(location, self._bucket)

    def new_output(self, location: str) -> OutputFile:
        return _Object(location, self._bucket)

    def delete(self, location: Any) -> None:
        """Nothing is deleted by the table: readers may be under way."""


class _Memory(FileIO):
    """What was written a moment ago, for its footer."""

    def __init__(self, location: str, data: bytes) -> None:
        super().__init__()
        self._of = _Kept(location, data)

    def new_input(self, location: str) -> InputFile:
        return self._of

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError

    def delete(self, location: Any) -> None:
        raise NotImplementedError


class _Kept(InputFile):
    def __init__(self, location: str, data: bytes) -> None:
        super().__init__(location)
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> Any:
        return io.BytesIO(self._data)


def as_parquet(tables: Sequence[pa.Table]) -> bytes:
    """Samples in the form STORED as the table has them."""
    table = pa.concat_tables(tables)
    times, server = table["time"].cast(pa.int64()), table["server"].cast(pa.int64())
    whole = sealing.floor_to(times, 1000)
    plain = pa.Table.from_arrays(
        [
            table["tag"], pc.divide(whole, 1000).cast(_MOMENT), pc.subtract(times, whole).cast(pa.int32()),
            table["kind"].cast(pa.int32()), table["value"], table["whole"], table["text"], table["quality"],
            pc.divide(sealing.floor_to(server, 1000), 1000).cast(_MOMENT), table["commit"],
        ],
        schema=_ARROW,
    )  # fmt: skip
    out = io.BytesIO()
    pq.write_table(plain, out, compression="zstd", version="2.6", row_group_size=sealing.GROUP_ROWS)
    return out.getvalue()


def _ready() -> None:
    """What Arrow looks for when it first tells the least and the most of a column, it looks for now: a part opens no
    file of the system's later."""
    empty = STORED.empty_table()
    row = pa.Table.from_pylist([{"tag": "x", "time": 0, "kind": 0, "quality": 0, "server": 0, "commit": 0}], STORED)
    found = pq.read_metadata(io.BytesIO(as_parquet([empty, row]))).row_group(0)
    for index in range(found.num_columns):
        if (stats := found.column(index).statistics) is not None and stats.has_min_max:
            _ = (stats.min, stats.max)


_ready()
