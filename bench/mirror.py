"""`make bench ARGS=--mirror`: history through spool and store, beside PostgreSQL by COPY; what a sample takes; queries.

The figures are of one process that does what spooler and keeper do (encode, check, write, sync, decode, check, write,
sync), without the pipe between them. Where PostgreSQL is installed, the same samples are copied into it, 10,000 in one
durable transaction. The disk's own fdatasync is printed beside it all: whatever ends in a commit waits for two of them.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cofferdam.brokers.mirror import sealing
from cofferdam.brokers.mirror.aggregates import aggregate
from cofferdam.brokers.mirror.columns import HOUR_NS, Sample, check, pack, to_batch
from cofferdam.brokers.mirror.query import Deadline, Reading
from cofferdam.brokers.mirror.records import Samples, from_source, to_keeper
from cofferdam.brokers.mirror.spool import Spool
from cofferdam.brokers.mirror.store import Store
from cofferdam.lab.mirror.people import binaries, user

BATCH = 10_000
START = 497_000 * HOUR_NS


def plant_like(tags: int, batches: int) -> list[Samples]:
    """ADC counts, three decimals, steps and full floats, 10 s apart, quality mostly good."""
    dice = random.Random(3)
    found, at, row = [], START, 0
    for _ in range(batches):
        samples = []
        for _ in range(BATCH):
            tag = row % tags
            if tag == 0:
                at += 10 * 10**9
            phase = math.sin(at / 6e11 + tag)
            value: float = (
                float(int(2048 + 900 * phase + dice.gauss(0, 2))), round(50 + 20 * phase, 3), float(int(phase * 3)),
                20 + phase + dice.gauss(0, 0.01),
            )[tag % 4]  # fmt: skip
            samples.append(Sample(f"area.unit.{tag:04d}", at, value, 192 if dice.random() < 0.999 else 0))
            row += 1
        found.append(pack("live", "bench", samples))
    return found


def fdatasync_us(folder: Path) -> float:
    """What a small durable write takes on this disk."""
    file = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT)
    taken = []
    for _ in range(50):
        os.write(file, b"x" * 4096)
        began = time.perf_counter()
        os.fdatasync(file)
        taken.append(time.perf_counter() - began)
    os.close(file)
    return statistics.median(taken) * 1e6


def ingest(folder: Path, records: Sequence[Samples]) -> tuple[float, Store]:
    """Samples a second through spool and store."""
    for part in ("spool", "store"):
        (folder / part).mkdir()
    spool, store = Spool(folder / "spool", 1 << 40, 0), Store(folder / "store")
    first, second = from_source(), to_keeper()
    began = time.perf_counter()
    for record in records:
        came = first.decode(first.encode(record))
        check(came)
        kept = spool.add(came, time.time_ns())
        spool.sync()
        crossed = second.decode(second.encode(kept))
        check(crossed)
        store.add(crossed, to_batch(crossed))
        store.sync()
    return len(records) * BATCH / (time.perf_counter() - began), store


def best(work: Callable[[], Any], times: int = 5) -> float:
    """The best of some runs, in ms."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken) * 1e3


def postgres(folder: Path, records: Sequence[Samples]) -> float:
    """Samples a second into PostgreSQL: COPY of a batch and its commit. Rows are made beforehand. 0: not here."""
    import psycopg

    where = binaries()
    if where is None:
        return 0
    found = user()
    home = folder / "postgres"
    home.mkdir()
    folder.chmod(0o755)
    options: dict[str, Any] = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []} if found else {}
    if found:
        os.chown(home, found.pw_uid, found.pw_gid)
    subprocess.run([where / "initdb", "-D", home / "data", "-U", "bench", "-A", "trust"], check=True, cwd=home,
                   stdout=subprocess.DEVNULL, **options)  # fmt: skip
    process = subprocess.Popen(
        [where / "postgres", "-D", home / "data", "-c", "listen_addresses=", "-c", f"unix_socket_directories={home}"],
        cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options,
    )  # fmt: skip
    try:
        for _ in range(200):
            try:
                conn = psycopg.connect(host=str(home), user="bench", dbname="postgres")
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        else:
            return 0
        with conn:
            conn.execute("create table samples(tag int, time bigint, value float8, quality bigint)")
            conn.commit()
            texts = []
            for record in records:
                columns = [
                    pa.Array.from_buffers(kind, record.count, [None, pa.py_buffer(data)]).to_pylist()
                    for kind, data in ((pa.uint32(), record.tag), (pa.int64(), record.time),
                                       (pa.float64(), record.value), (pa.int64(), record.quality))
                ]  # fmt: skip
                texts.append("".join(f"{a}\t{b}\t{c!r}\t{d}\n" for a, b, c, d in zip(*columns, strict=True)))
            began = time.perf_counter()
            for text in texts:
                with conn.cursor() as cursor, cursor.copy("copy samples from stdin") as copy:
                    copy.write(text)
                conn.commit()
            return len(records) * BATCH / (time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/mirror.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tags", type=int, default=1_000)
    parser.add_argument("--batches", type=int, default=100, help="of 10,000 samples (default: %(default)s)")
    args = parser.parse_args(arguments)
    records = plant_like(args.tags, args.batches)
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        disk = fdatasync_us(folder)
        rate, store = ingest(folder, records)
        commits = store.to_seal()
        began = time.perf_counter()
        files = sealing.seal(store.folder, commits)
        sealing_s = time.perf_counter() - began
        store.sealed(commits, files)
        rows, size = sum(file.rows for file in files), sum(file.size for file in files)
        view = Reading(store.folder).view()
        low, high = START, START + (args.batches * BATCH // args.tags + 2) * 10 * 10**9
        edges = list(range(low, high + 60 * 10**9, 60 * 10**9))
        tag = "area.unit.0003"
        functions = ("avg", "min", "max", "count")

        def direct() -> None:
            list(aggregate(view, [tag], edges, functions, Deadline(60), 0, high))

        paths = [str(store.folder / file.name) for file in files]
        db = duckdb.connect()
        db.execute("SET threads = 1")

        def by_sql() -> None:
            db.execute(
                "SELECT time_bucket(INTERVAL 1 MINUTE, time::TIMESTAMP) AS t, avg(value), min(value), max(value),"
                " count(*) FROM read_parquet(?) WHERE tag = ? GROUP BY t", [paths, tag],
            ).fetchall()  # fmt: skip

        print(f"disk: fdatasync of 4 kB {disk:.0f} µs (median)")
        print(f"ingest, durable twice, {args.tags} tags, batches of {BATCH}: {rate:,.0f} samples/s")
        copied = postgres(folder, records)
        print(f"PostgreSQL, COPY of {BATCH} and a commit: {copied:,.0f} rows/s" if copied else "PostgreSQL: not here")
        if copied:
            print(f"  ratio {rate / copied:.1f} (goal of the whole crew: 3)")
        print(f"sealing: {rows:,} samples in {sealing_s:.2f} s, {size / rows:.2f} bytes a sample")
        print(f"one tag of {args.tags}, 1-minute aggregates of {rows:,}: API's path {best(direct):.2f} ms,"
              f" SQL {best(by_sql):.2f} ms")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
