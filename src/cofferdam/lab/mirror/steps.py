"""The steps of the tour around the mirror: history crosses whole, whatever breaks, and nobody writes or reaches back.

Not here: how steps are run and shown (lab.tour), what the actors can do (people).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from cofferdam.errors import CofferdamError, GateError
from cofferdam.lab.mirror import events
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import Actor, Scene

PATIENCE_SECONDS = 60.0
PARTS = ("keeper", "collector", "reader")
"""Those that are killed; the last is born again alone. The suite kills each."""
WRITES = {
    "COPY": "COPY (SELECT 1) TO '/tmp/mine.csv'",
    "ATTACH": "ATTACH '/tmp/mine.db'",
    "CREATE": "CREATE TABLE mine AS SELECT 1",
    "read another file": "SELECT * FROM read_csv('/etc/passwd')",
    "INSTALL": "INSTALL httpfs",
}


class Cast:
    """The historian and the analyst, driven."""

    def __init__(self, scene: Scene, historian: Actor, analyst: Actor) -> None:
        self.scene = scene
        self.historian = historian
        self.analyst = analyst
        self.total = 0

    async def record(self, count: int, *, before: float = 0.0, step: float = 0.1) -> int:
        """Samples of `count` moments, the last of them `before` seconds ago; how many the historian has in all."""
        told = await self.historian.do(
            events.Command("write", count=count, seconds=before, value=step), seconds=PATIENCE_SECONDS
        )
        self.total = next(event.total for event in told if isinstance(event, events.Recorded))
        return self.total

    async def ask(self, request: str) -> events.Seen:
        """One request of the analyst's."""
        told = await self.analyst.do(events.Command("ask", point=request), seconds=PATIENCE_SECONDS)
        return next(event for event in told if isinstance(event, events.Seen))

    async def mirrored(self, wanted: int) -> int:
        """How many samples the analyst finds, once they are as many as wanted, or time is up."""
        until = time.monotonic() + PATIENCE_SECONDS
        rows = 0
        while time.monotonic() < until:
            seen = await self.ask("GET /v1/samples?tags=boiler.*&from=-2d&format=ndjson&limit=1000000")
            rows = seen.rows if seen.status == 200 else 0
            if rows == wanted:
                break
            await asyncio.sleep(0.1)
        return rows


async def history_crosses_whole(cast: Cast) -> list[Finding]:
    """What the historian has, the analyst finds: all of it, once"""
    total = await cast.record(500)
    rows = await cast.mirrored(total)
    return [Finding("the analyst reads all of it by HTTP", f"{total} samples", f"{rows} samples", rows == total)]


async def killed_and_complete(cast: Cast) -> list[Finding]:
    """kill -9 of the mirror's keeper, collector and reader while the historian writes: nothing is lost or doubled"""
    killed: list[str] = []
    for part in PARTS:
        before = await _pid(cast, part)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(before, signal.SIGKILL)
            killed.append(part)
        await cast.record(50, step=0.01)
        await _pid(cast, part, other_than=before)
    total = await cast.record(10)
    rows = await cast.mirrored(total)
    return [
        Finding(
            f"kill -9 of {', '.join(killed)}, and samples written in between",
            f"{total} samples", f"{rows} samples", len(killed) == len(PARTS) and rows == total,
        )
    ]  # fmt: skip


async def the_historian_loses_power(cast: Cast) -> list[Finding]:
    """The historian is away and comes back; what was written late, far behind the newest, is found by counting"""
    await cast.historian.do(events.Command("stop"), seconds=PATIENCE_SECONDS)
    away = await cast.ask("GET /v1/samples?tags=boiler.*&last=1h&format=ndjson")
    await cast.historian.do(events.Command("start"), seconds=PATIENCE_SECONDS)
    await cast.record(100, before=5000)  # behind every overlap
    total = await cast.record(10)
    verified = await _verify(cast)
    rows = await cast.mirrored(total)
    return [
        Finding("read while the historian is away", "200", str(away.status), away.status == 200),
        Finding(
            "cofferdam mirror verify --against source, after samples of two hours ago",
            f"no gaps, no differences; {total} samples", f"{verified[:160]}; {rows} samples",
            "no gaps, no differences" in verified and rows == total,
        ),
    ]  # fmt: skip


async def a_flipped_bit(cast: Cast) -> list[Finding]:
    """A bit flipped in a sealed file is found, the file set aside, and its hours read again"""
    until = time.monotonic() + PATIENCE_SECONDS
    sealed = 0
    await cast.scene.verb("mirror", "seal")
    while not sealed and time.monotonic() < until:
        await asyncio.sleep(0.2)
        sealed = (await cast.scene.verb("mirror", "status", "--json")).json()["keeper"]["files"]
    found = sorted((cast.scene.state / "stores").glob("mirror*/keeper/*.parquet")) if sealed else []
    if not found:
        raise CofferdamError("no hour was sealed")
    data = bytearray(found[0].read_bytes())
    data[len(data) // 2] ^= 1
    found[0].write_bytes(data)
    checked = await cast.scene.verb("mirror", "check")
    await cast.scene.verb("mirror", "verify", "--last", "2d")
    verified = await _verify(cast)
    rows = await cast.mirrored(cast.total)
    gaps = await cast.scene.verb("mirror", "gaps")
    return [
        Finding("cofferdam mirror check", "1 damaged", checked.text[:160], "1 damaged" in checked.text),
        Finding(
            "verify, which has its hours read again", f"{cast.total} samples, and no differences",
            f"{rows} samples; {verified[:120]}", rows == cast.total and "no differences" in verified,
        ),
        Finding("cofferdam mirror gaps", "the damage is told", gaps.text[:160], "damaged" in gaps.text),
    ]  # fmt: skip


async def an_owned_analyst(cast: Cast) -> list[Finding]:
    """An owned analyst who may send any SQL writes nothing and reads nothing else"""
    findings = []
    for name, text in WRITES.items():
        seen = await cast.ask(f"POST /v1/sql {text}")
        findings.append(
            Finding(f"SQL that tries to {name}", "400", f"{seen.status} {seen.detail[:120]}", seen.status == 400)
        )
    seen = await cast.ask("POST /v1/sql SELECT count(*) AS n FROM samples")
    good = seen.status == 200 and f'"n":{cast.total}' in seen.detail.replace(" ", "")
    findings.append(Finding("SQL that counts", f"{cast.total}", seen.detail[:80], good))
    return findings


async def _verify(cast: Cast) -> str:
    answer = await cast.scene.verb("mirror", "verify", "--last", "3h", "--against", "source")
    return answer.text


async def _pid(cast: Cast, part: str, *, other_than: int = 0) -> int:
    """The process of a part of the mirror, once there is one. Raises CofferdamError where there is none for long."""
    for _ in range(int(PATIENCE_SECONDS / 0.1)):
        with contextlib.suppress(GateError):
            for pair in (await cast.scene.status()).pairs:
                for half in pair.halves:
                    mine = pair.broker == "mirror" and half.name.endswith(f"/{part}") and half.ready
                    if mine and half.pid not in (0, other_than):
                        return half.pid
        await asyncio.sleep(0.1)
    raise CofferdamError(f"the mirror's {part} did not come back in {PATIENCE_SECONDS:g} s")


STEPS: tuple[Step, ...] = (
    history_crosses_whole,
    killed_and_complete,
    the_historian_loses_power,
    a_flipped_bit,
    an_owned_analyst,
)
