"""`make bench ARGS=--mirror`: history through spool and store, beside PostgreSQL by COPY; what a sample takes; queries.

The first figures are of one process that does what spooler and keeper do (encode, check, write, sync, decode, check,
write, sync), without the pipe between them; those of the whole crew come last (mirror_crew). Where PostgreSQL is
installed, the same samples are copied into it, 10,000 in one durable transaction. The disk's own fdatasync is printed
beside it all: whatever ends in a commit waits for two of them.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import http.client
import math
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import mirror_crew
import mirror_load
import pyarrow as pa

from cofferdam.brokers.mirror import catalogue, hot, partials, sealing
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


def _rows_of(record: Samples) -> list[Sample]:
    """The samples of a record."""
    tags, times = memoryview(record.tag).cast("I"), memoryview(record.time).cast("q")
    values = memoryview(record.value).cast("d")
    return [Sample(record.names[tag], at, value, 192) for tag, at, value in zip(tags, times, values, strict=True)]


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


def lags(folder: Path, records: Sequence[Samples]) -> list[float]:
    """ms from a batch's coming until it is readable: durable in the spool, and then in the store."""
    for part in ("lag-spool", "lag-store"):
        (folder / part).mkdir()
    spool, store = Spool(folder / "lag-spool", 1 << 40, 0), Store(folder / "lag-store")
    second = to_keeper()
    taken = []
    for record in records:
        began = time.perf_counter()
        kept = spool.add(record, time.time_ns())
        spool.sync()
        crossed = second.decode(second.encode(kept))
        check(crossed)
        store.add(crossed, to_batch(crossed))
        store.sync()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def year(folder: Path, tags: int = 10) -> Reading:
    """A year of some tags, a sample every ten minutes, sealed by the day and reckoned."""
    folder.mkdir()
    found = catalogue.Catalogue()
    first = START // HOUR_NS // 24 * 24
    for day in range(365):
        samples = [
            Sample(f"tag{tag}", (first + 24 * day) * HOUR_NS + n * 600 * 10**9, 20 + math.sin(n / 9) + tag, 192)
            for tag in range(tags)
            for n in range(144)
        ]
        commit = hot.Commit(day + 1, "live", day + 1, "bench", to_batch(pack("live", "bench", samples)))
        found.files += sealing.seal(folder, [commit])
    found.sealed = 365
    found.tags = {
        f"tag{tag}": catalogue.Tag("bench", 0, first * HOUR_NS, (first + 8760) * HOUR_NS, 1) for tag in range(tags)
    }
    while (what := partials.wanted(found.files, found.reckoned, 1 << 30)) is not None:
        gone = {what.joined.name} if what.joined is not None else set()
        found.reckoned = [one for one in found.reckoned if one.name not in gone] + partials.make(folder, what)
    catalogue.save(folder, found)
    return Reading(folder)


def real_data(folder: Path, data: Path) -> float:
    """Bytes a sample of a real machine's temperature (22,695 rows), sealed."""
    folder.mkdir()
    with data.open(newline="") as file:
        rows = [
            (int(datetime.datetime.fromisoformat(f"{row['timestamp']}+00:00").timestamp()) * 10**9, float(row["value"]))
            for row in csv.DictReader(file)
        ]
    pieces = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    records = [pack("live", "bench", [Sample("t", at, value, 192) for at, value in some]) for some in pieces]
    commits = [hot.Commit(n, "live", n, "bench", to_batch(record)) for n, record in enumerate(records, 1)]
    file_of_all = sealing.merge(folder, sealing.seal(folder, commits))
    return file_of_all.size / file_of_all.rows


def best(work: Callable[[], Any], times: int = 5) -> float:
    """The best of some runs, in ms."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken) * 1e3


def processor_s(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / mirror_crew.TICKS


def postgres(folder: Path, records: Sequence[Samples]) -> tuple[float, float, float]:
    """Samples a second into PostgreSQL: COPY of a batch and its commit; and the same without repetitions (a staging
    table, and ON CONFLICT DO NOTHING), with the µs that a sample takes of its backend's time. Rows are made beforehand.
    0: not here."""
    import psycopg

    where = binaries()
    if where is None:
        return 0, 0, 0
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
            return 0, 0, 0
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
            copied = len(records) * BATCH / (time.perf_counter() - began)
            conn.execute(
                "create table once(tag int, time bigint, value float8, quality bigint, primary key (tag, time))"
            )
            conn.execute("create temp table stage(like samples) on commit delete rows")
            conn.commit()
            few = texts[: max(1, len(texts) // 4)]
            used = processor_s(conn.info.backend_pid)
            began = time.perf_counter()
            for text in few:
                with conn.cursor() as cursor, cursor.copy("copy stage from stdin") as copy:
                    copy.write(text)
                conn.execute("insert into once select * from stage on conflict do nothing")
                conn.commit()
            rate = len(few) * BATCH / (time.perf_counter() - began)
            return copied, rate, (processor_s(conn.info.backend_pid) - used) / (len(few) * BATCH) * 1e6
    finally:
        process.terminate()
        process.wait()


def influx(folder: Path, records: Sequence[Samples]) -> tuple[float, float]:
    """Samples a second into InfluxDB 1 (Debian: influxdb), its line protocol made beforehand, and the µs that a sample
    takes of its processor time. 0: not here."""
    program = shutil.which("influxd")
    if program is None:
        return 0, 0
    home, port, other = folder / "influx", free_port(), free_port()
    home.mkdir()
    (home / "conf").write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{other}"\n[meta]\ndir = "{home}/meta"\n[data]\n'
        f'dir = "{home}/data"\nwal-dir = "{home}/wal"\nquery-log-enabled = false\n[logging]\nlevel = "error"\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n'
    )
    process = subprocess.Popen(
        [program, "-config", home / "conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        bodies = []
        for record in records:
            lines = (f"s,tag={one.tag} v={one.value!r},q={one.quality}i {one.time}" for one in _rows_of(record))
            bodies.append("\n".join(lines).encode())

        def ask(path: str, body: bytes) -> None:
            conn = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            conn.request("POST", path, body)
            answer = conn.getresponse()
            if answer.status >= 300:
                raise RuntimeError(f"InfluxDB: {answer.status} {answer.read()[:200]!r}")
            conn.close()

        for _ in range(300):
            try:
                ask("/query?q=CREATE+DATABASE+bench", b"")
                break
            except OSError:
                time.sleep(0.1)
        used = processor_s(process.pid)
        began = time.perf_counter()
        for body in bodies:
            ask("/write?db=bench&precision=ns", body)
        rate = len(records) * BATCH / (time.perf_counter() - began)
        return rate, (processor_s(process.pid) - used) / (len(records) * BATCH) * 1e6
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """One that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/mirror.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tags", type=int, default=1_000)
    parser.add_argument("--batches", type=int, default=100, help="of 10,000 samples (default: %(default)s)")
    parser.add_argument(
        "--rate",
        type=int,
        default=250_000,
        help="samples a second that are recorded while the lag is measured (default: %(default)s)",
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/nab-machine-temperature.csv"), metavar="FILE",
                        help="real data: CSV with timestamp and value")  # fmt: skip
    args = parser.parse_args(arguments)
    records = plant_like(args.tags, args.batches)
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        disk = fdatasync_us(folder)
        cpu = time.process_time()
        rate, store = ingest(folder, records)
        cpu = (time.process_time() - cpu) / (len(records) * BATCH) * 1e6
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
        print(f"ingest, durable twice, {args.tags} tags, batches of {BATCH}: {rate:,.0f} samples/s,"
              f" {cpu:.2f} µs of processor time each")  # fmt: skip
        copied, once, cpu_once = postgres(folder, records)
        print(f"PostgreSQL, COPY of {BATCH} and a commit: {copied:,.0f} rows/s" if copied else "PostgreSQL: not here")
        if copied:
            print(f"  ratio {rate / copied:.1f}")
            print(f"PostgreSQL, the same without repetitions: {once:,.0f} rows/s, {cpu_once:.2f} µs of processor time"
                  f" each, ratio {rate / once:.1f}")  # fmt: skip
        there, cpu_there = influx(folder, records[: max(1, len(records) // 2)])
        print(f"InfluxDB, batches of {BATCH}: " + (
            f"{there:,.0f} samples/s, {cpu_there:.2f} µs of processor time each, ratio {rate / there:.1f}" if there
            else "not here (Debian: influxdb)"
        ))  # fmt: skip
        batches = [pack("live", "bench", _rows_of(record)[:2_500]) for record in records[:200]]
        taken = sorted(lags(folder, batches))
        print(f"lag of a batch of 2,500, spool to readable: median {taken[len(taken) // 2]:.1f} ms, p99"
              f" {taken[int(len(taken) * 0.99)]:.1f} ms; of it two fdatasync {2 * disk / 1e3:.1f} ms")  # fmt: skip
        print(f"sealing: {rows:,} samples in {sealing_s:.2f} s, {size / rows:.2f} bytes a sample")
        reading = year(folder / "year")
        whole = reading.view()
        since = min(tag.first for tag in whole.catalogue.tags.values())
        hours = [since + n * HOUR_NS for n in range(8761)]
        for names in (functions, ("time_avg", "good", "bad")):
            cpu = time.process_time()
            ms = best(lambda names=names: list(aggregate(whole, ["tag3"], hours, names, Deadline(60), 0, hours[-1])))  # type: ignore[misc]
            cpu = (time.process_time() - cpu) / 5 * 1e3
            print(
                f"a year of hours of one tag, {', '.join(names)}: {ms:.1f} ms ({cpu:.1f} ms of processor time; goal 20)"
            )
        if args.data is not None and args.data.is_file():
            print(
                f"real data ({args.data.name}): {real_data(folder / 'real', args.data):.2f} bytes a sample (goal 6.5)"
            )
        print(f"this process at its largest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        print(f"load: {os.getloadavg()[0]:.1f}")
        print(f"one tag of {args.tags}, 1-minute aggregates of {rows:,}: API's path {best(direct):.2f} ms,"
              f" SQL {best(by_sql):.2f} ms")  # fmt: skip
    if binaries() is not None:
        mirror_load.load(args.tags, args.rate)
        crew = mirror_crew.crew(args.tags)
        beside = {"PostgreSQL by COPY": copied, "PostgreSQL without repetitions": once, "InfluxDB": there}
        print("  " + ", ".join(f"{crew / rate:.1f} x {name}" for name, rate in beside.items() if rate) + " (goal: 3)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
