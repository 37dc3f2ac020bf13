"""The steps of the tour around the mirror: history crosses whole, whatever breaks, and nobody writes or reaches back.

Not here: how steps are run and shown (lab.tour), what the actors can do (people).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable
from pathlib import Path

from cofferdam.enforce import kernel, stores
from cofferdam.errors import CofferdamError, GateError
from cofferdam.lab.mirror import events
from cofferdam.lab.mirror.intruder import owned_reader
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import PATIENCE_SECONDS, Actor, Scene, in_the_end

CREW = "mirror/control-enterprise"
"""Another play may have a mirror, too."""
HISTORIAN, DOOR, ANALYST = "mirror-historian", "mirror-door", "mirror-analyst"
CONDUIT = "boiler-history"
PARTS = ("keeper", "spooler", "collector", "reader")
"""Those that are killed; the last is born again alone."""
HOUR = 3600.0
AHEAD = 300.0
"""By how many seconds the historian's clock is wrong for a while."""
SMALL, LARGE = "256k", "32m"
"""Disks for the spool: less than two days of this historian, and more."""
ALL = "from=-2d&to=2200-01-01T00:00:00Z"
REFUSED = ("Read-only file system", "Permission denied", "Operation not permitted")
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
            seen = await self.ask(f"GET /v1/samples?tags=boiler.*&{ALL}&format=ndjson&limit=1000000")
            rows = seen.rows if seen.status == 200 else 0
            if rows == wanted:
                break
            await asyncio.sleep(0.1)
        return rows


async def history_crosses_whole(cast: Cast) -> list[Finding]:
    """What the historian has, the analyst finds: all of it, once"""
    total = await cast.record(500, before=HOUR)
    rows = await cast.mirrored(total)
    return [Finding("the analyst reads all of it by HTTP", f"{total} samples", f"{rows} samples", rows == total)]


async def an_hours_outage(cast: Cast) -> list[Finding]:
    """The conduit is severed for an hour (time is made short): nothing is read meanwhile, and all of it afterwards"""
    before = cast.total
    cut = await cast.scene.verb("sever", "conduit", CONDUIT, "--reason", "tour")
    total = await cast.record(int(HOUR), step=1.0)
    told = await in_the_end(
        lambda: cast.scene.verb("mirror", "status", "--crew", CREW),
        lambda said: "not at work: the conduit is" in said.text,
    )
    away = await cast.ask("GET /v1/tags")
    await cast.scene.verb("restore", "conduit", CONDUIT)
    began = time.monotonic()
    rows = await cast.mirrored(total)
    took = time.monotonic() - began
    return [
        Finding(
            f"cofferdam sever conduit {CONDUIT}, while the historian records an hour",
            "nothing is read, and nobody answered", f"{told.text[-90:]}; the analyst: {away.status}",
            not cut.code and "not at work: the conduit is" in told.text and away.status == 403,
        ),
        Finding(
            "and restore it", f"{total - before} samples of an hour more", f"{rows - before} after {took:.1f} s",
            rows == total,
        ),
    ]  # fmt: skip


async def killed_and_complete(cast: Cast) -> list[Finding]:
    """kill -9 of each part of the mirror while the historian writes: nothing is lost or doubled"""
    killed: list[str] = []
    for part in PARTS:
        killed += await _killed(cast, part, cast.record(50, step=0.01))
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


async def a_full_disk(cast: Cast) -> list[Finding]:
    """The spool's disk is full: nothing is acknowledged, readers are answered, and with room it goes on by itself"""
    folder = stores.of(cast.scene.state, CREW, "spooler")
    owner = folder.stat()
    try:
        _small_disk(folder, owner, SMALL)
    except OSError as error:
        return [Finding("mount a small disk for the spool", "root may", f"left out: {error}", os.geteuid() != 0)]
    try:
        # Reborn on an empty disk, it reads the last two days again: more than there is room for.
        await _killed(cast, "spooler", cast.record(10))
        full = await _alarm(cast, "mirror-spool-full")
        total = await cast.record(10)
        found = await cast.ask("POST /v1/sql SELECT count(*) AS n FROM samples")
        _small_disk(folder, owner, LARGE, again=True)
        rows = await cast.mirrored(total)
        over = await _alarm(cast, "mirror-spool-full", there=False)
    finally:
        kernel.umount(str(folder))
    findings = [
        Finding("fill the disk of the spool", "an alarm; the analyst is answered", f"{full[:160]}; {found.status}",
                bool(full) and found.status == 200),
        Finding("make room", f"{total} samples, and no alarm", f"{rows} samples; {over or 'no alarm'}",
                rows == total and not over),
    ]  # fmt: skip
    await _killed(cast, "spooler", cast.record(1))  # on its own disk again, which knows nothing of all that
    total = await cast.record(10)
    rows = await cast.mirrored(total)
    what = "the disk of before is there again, with what it knew then"
    return [*findings, Finding(what, f"{total} samples", f"{rows} samples", rows == total)]


async def a_clock_jumps(cast: Cast) -> list[Finding]:
    """The historian's clock goes five minutes ahead and an hour back: each sample is kept, in the order of its time"""
    await cast.record(20, before=-AHEAD)
    total = await cast.record(20)
    rows = await cast.mirrored(total)
    findings = [
        Finding("five minutes ahead, and then the right time again", f"{total} samples, and none is hidden",
                f"{rows} samples", rows == total),
    ]  # fmt: skip
    total = await cast.record(20, before=HOUR - 30)  # behind the overlap: the count finds it
    verified = await _verify(cast)
    rows = await cast.mirrored(total)
    seen = await cast.ask("GET /v1/samples?tag=boiler.level&from=-60min&format=csv")
    times = [line.split(",")[1] for line in seen.detail.splitlines()[1:-1]]
    right = rows == total and len(times) > 20 and times == sorted(times)
    return [
        *findings,
        Finding("an hour back", f"{total} samples, sorted by their time", f"{rows} samples; {verified[:100]}", right),
    ]


async def everything_again(cast: Cast) -> list[Finding]:
    """All history is read at the source once more: nothing is there twice"""
    asked = await cast.scene.verb("mirror", "backfill", "--crew", CREW, "--last", "26h")
    until = time.monotonic() + PATIENCE_SECONDS
    came = 0
    while time.monotonic() < until:
        told = (await cast.scene.verb("mirror", "status", "--crew", CREW, "--json")).json()
        lane, source = told["spooler"]["lanes"]["backfill"], told["sources"][0]
        came = lane["last"]
        if came and not lane["waiting"] and not source["asked"]:
            break
        await asyncio.sleep(0.2)
    seen = await cast.ask(f"GET /v1/samples?tags=boiler.*&{ALL}&format=ndjson&limit=1000000&revisions=all")
    right = not asked.code and seen.rows == cast.total
    return [
        Finding("cofferdam mirror backfill --last 26h; then all revisions", f"{cast.total} samples",
                f"{seen.rows} samples, after {came} batches of the backfill", right)
    ]  # fmt: skip


async def a_flipped_bit(cast: Cast) -> list[Finding]:
    """A bit flipped in a sealed file is found, the file set aside, and its hours read again"""
    until = time.monotonic() + PATIENCE_SECONDS
    sealed, found = 0, list[Path]()
    await cast.scene.verb("mirror", "seal", "--crew", CREW)
    # A file that others take the place of is there for a moment longer; nobody would miss a bit of that one.
    while not (sealed and len(found) == sealed) and time.monotonic() < until:
        await asyncio.sleep(0.2)
        sealed = (await cast.scene.verb("mirror", "status", "--crew", CREW, "--json")).json()["keeper"]["files"]
        found = sorted((cast.scene.state / "stores").glob("mirror*/keeper/*.parquet"))
    if not found:
        raise CofferdamError("no hour was sealed")
    data = bytearray(found[0].read_bytes())
    data[len(data) // 2] ^= 1
    found[0].write_bytes(data)
    checked = await cast.scene.verb("mirror", "check", "--crew", CREW)
    await cast.scene.verb("mirror", "verify", "--crew", CREW, "--last", "2d")
    verified = await _verify(cast)
    rows = await cast.mirrored(cast.total)
    gaps = await cast.scene.verb("mirror", "gaps", "--crew", CREW)
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


async def an_owned_reader(cast: Cast) -> list[Finding]:
    """Whoever owns the reader finds no socket to the plant, no pipe to another part, and a tree that is read-only"""
    reader = await _pid(cast, "reader")
    others = [half.pid for pair in (await cast.scene.status()).pairs for half in pair.halves if half.pid != reader]
    store = stores.of(cast.scene.state, CREW, "keeper")
    where = cast.scene.layout.addresses
    found = owned_reader(reader, others, store, where.at(HISTORIAN), where.at(DOOR))
    if found is None:
        return [Finding("look into the reader's process", "only root may", "left out: not root", os.geteuid() != 0)]
    findings = [
        Finding("its sockets", "those of its own door", found["sockets"] or "none but those", not found["sockets"]),
        Finding("its pipes", "none that another part has an end of", found["pipes"] or "none", not found["pipes"]),
        Finding("the store as it is mounted there", "read-only", found["mount"], found["mount"] == "read-only"),
    ]
    for words, said in found["writes"].items():
        findings.append(Finding(f"in its place, as its user: {words}", "refused", said, said in REFUSED))
    if cast.scene.layout.separated:
        said = found["historian"]
        findings.append(Finding("in its place, without its filter: dial the historian", "no way there", said,
                                said not in ("connected", "Connection refused")))  # fmt: skip
    return findings


async def nothing_is_missing(cast: Cast) -> list[Finding]:
    """After all of that: every value that the historian has, and no other"""
    total = await cast.record(1)
    rows = await cast.mirrored(total)
    said = await _verify(cast)
    return [
        Finding("cofferdam mirror verify --against source", f"no gaps, no differences: 6 tags, {total} samples",
                f"{said[:160]}; {rows} samples",
                f"no gaps, no differences: 6 tags, {total} samples" in said and rows == total)
    ]  # fmt: skip


async def _verify(cast: Cast) -> str:
    # Some samples are minutes ahead of the clock, so they may be of the hour after this one.
    now = time.time_ns()
    span = ["--from", str(now - 3 * int(HOUR) * 10**9), "--to", str(now + int(AHEAD) * 10**9)]
    answer = await cast.scene.verb("mirror", "verify", "--crew", CREW, *span, "--against", "source")
    return answer.text


async def _killed(cast: Cast, part: str, meanwhile: Awaitable[int]) -> list[str]:
    """kill -9 of a part, and something until it is there again."""
    before = await _pid(cast, part)
    killed = []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(before, signal.SIGKILL)
        killed.append(part)
    await meanwhile
    await _pid(cast, part, other_than=before)
    return killed


def _small_disk(folder: Path, owner: os.stat_result, size: str, *, again: bool = False) -> None:
    """A disk of this size in the place of a folder, or a disk that is there, changed. Raises: OSError."""
    if os.geteuid():
        raise PermissionError("only root mounts")
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (kernel.MS_REMOUNT if again else 0)
    kernel.mount("tmpfs", str(folder), "tmpfs", flags,
                 f"size={size},mode=0700,uid={owner.st_uid},gid={owner.st_gid}")  # fmt: skip


async def _alarm(cast: Cast, name: str, *, there: bool = True) -> str:
    """An alarm's words, once it is there; or "", once it is not."""
    words = ""
    for _ in range(int(PATIENCE_SECONDS / 0.1)):
        with contextlib.suppress(GateError):
            words = next((one.detail for one in (await cast.scene.status()).alarms if name in one.name), "")
            if bool(words) == there:
                break
        await asyncio.sleep(0.1)
    return words


async def _pid(cast: Cast, part: str, *, other_than: int = 0) -> int:
    """The process of a part of the mirror, once there is one. Raises CofferdamError where there is none for long."""
    for _ in range(int(PATIENCE_SECONDS / 0.1)):
        with contextlib.suppress(GateError):
            for pair in (await cast.scene.status()).pairs:
                for half in pair.halves:
                    mine = pair.name == CREW and half.name.endswith(f"/{part}") and half.ready
                    if mine and half.pid not in (0, other_than):
                        return half.pid
        await asyncio.sleep(0.1)
    raise CofferdamError(f"the mirror's {part} did not come back in {PATIENCE_SECONDS:g} s")


STEPS: tuple[Step, ...] = (
    history_crosses_whole,
    an_hours_outage,
    killed_and_complete,
    the_historian_loses_power,
    a_full_disk,
    a_clock_jumps,
    everything_again,
    a_flipped_bit,
    an_owned_analyst,
    an_owned_reader,
    nothing_is_missing,
)
