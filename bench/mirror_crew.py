"""The mirror's whole crew: a real gate, a real PostgreSQL into which history is put at one go, and an analyst who asks
until all of it is readable. Part of bench/mirror.py.

What is measured is each part's processor time and its memory besides the clock, since a machine that is busy otherwise
shows in the clock first. The historian's own work (sorting, sending) runs on the same cores.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import time
from pathlib import Path
from urllib.parse import quote

from cofferdam.lab.layout import Loopback
from cofferdam.lab.mirror import people
from cofferdam.lab.mirror.play import Mirror
from cofferdam.lab.mirror.steps import Cast
from cofferdam.lab.scene import Scene
from cofferdam.lab.tour import on_stage

TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.05
PARTS = ("collector", "spooler", "keeper", "reader")
HISTORY = """
INSERT INTO samples SELECT 'boiler.' || lpad((n % {tags})::text, 4, '0'), t,
    CASE n % 4 WHEN 0 THEN (2048 + 900 * sin(n))::int WHEN 1 THEN round((50 + 20 * sin(n))::numeric, 3)
    WHEN 2 THEN n % 3 ELSE 20 + random() END, 192
FROM generate_series(0, {steps} - 1) AS s, generate_series(0, {tags} - 1) AS n,
    LATERAL (SELECT now() - interval '1 hour' - s * interval '10 seconds' AS t) AS x
"""


def parts(found: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Of each part: processor time (s), and the most memory that it has had (MiB)."""
    told = {}
    for name, pid in found.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        told[name] = ((int(fields[11]) + int(fields[12])) / TICKS, int(rows["VmHWM"].split()[0]) / 1024)
    return told


async def pids(scene: Scene) -> dict[str, int]:
    return {
        half.name.rpartition("/")[2]: half.pid
        for pair in (await scene.status()).pairs if pair.broker == "mirror" for half in pair.halves
    }  # fmt: skip


async def _count(cast: Cast) -> int:
    seen = await cast.ask("POST /v1/sql SELECT count(*) AS n FROM raw")
    return int(json.loads(seen.detail)["rows"][0]["n"]) if seen.status == 200 else -1


async def _readable(cast: Cast, tag: str, at: datetime.datetime) -> bool:
    """Whether the newest sample can be read, which comes last. Counting all of them each time would take more than
    the mirror does."""
    since, until = (quote(one.isoformat()) for one in (at, at + datetime.timedelta(milliseconds=1)))
    seen = await cast.ask(f"GET /v1/samples?tags={tag}&from={since}&to={until}&format=ndjson")
    return seen.status == 200 and seen.rows > 0


async def _whole(tags: int, rows: int) -> float:
    play = Mirror()
    async with on_stage(Loopback(play.spots), [play]) as scene:
        folder = scene.directory / "historian"
        where = scene.layout.addresses
        historian = people.Historian(folder, where.host("mirror-historian"), where.port("mirror-historian"), "")
        rows = rows // tags * tags
        cast = await play.cast(scene)  # brings the password in: with it the reading begins
        with historian.connection() as conn, conn.transaction():
            conn.execute(HISTORY.format(tags=tags, steps=rows // tags))
            conn.execute("ANALYZE samples")
            tag, newest = conn.execute("SELECT tag, time FROM samples ORDER BY time DESC, tag DESC LIMIT 1").fetchone()
            before = parts(await pids(scene))
        began = time.monotonic()  # there was nothing before
        until = began + PATIENCE_SECONDS
        while not await _readable(cast, tag, newest) and time.monotonic() < until:  # noqa: ASYNC110 - another process
            await asyncio.sleep(POLL_SECONDS)
        took = time.monotonic() - began
        after = parts(await pids(scene))
        came = await _count(cast)
        print(
            f"the whole crew, {tags} tags, {rows:,} samples out of PostgreSQL until readable:"
            f" {rows / took:,.0f} a second ({came - rows:,} came twice, and go when their hour is sealed)"
        )
        whole = 0.0
        for part in PARTS:
            used = (after[part][0] - before[part][0]) / rows * 1e6
            whole += used if part != "reader" else 0.0
            print(f"  {part:9} {used:5.2f} µs of processor time a sample, {after[part][1]:4.0f} MiB at its largest")
        print(f"  collector, spooler and keeper together {whole:.2f} µs: {1e6 / whole:,.0f} a second of one core")
        told = await scene.verb("mirror", "verify", "--last", "26h", "--against", "counts")
        print(f"  {told.text[:120]}")
        return rows / took


def crew(tags: int = 1_000, rows: int = 1_000_000) -> float:
    """Prints the figures of a crew; samples a second."""
    return asyncio.run(_whole(tags, rows))


if __name__ == "__main__":
    crew()
