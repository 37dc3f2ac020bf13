"""The steps of the tour in the packaging cell: tags by name, I/O packet by packet, and what an intruder tries.

Not here: how steps are run and shown (lab.tour), what the actors can do (people, cell).
"""

from __future__ import annotations

import asyncio
from typing import Any

from cofferdam.lab.packer import events
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import Actor, Scene, in_the_end

SIX = ("Pump", "Level", "Counts", "Status", "Speed", "Line")


class Cast:
    """The cell and the office, driven."""

    def __init__(self, scene: Scene, cell: Actor, office: Actor) -> None:
        self.scene = scene
        self.cell = cell
        self.office = office

    async def ask(self, do: str, point: str = "", value: float = 0.0, seconds: float = 0.0) -> tuple[str, ...]:
        """What the office was told."""
        told = await self.office.do(events.Command(do, point, value=value, seconds=seconds))
        return next(event.answers for event in told if isinstance(event, events.Told))

    def written(self, after: int = 0) -> list[tuple[str, int]]:
        """What reached the cell since then."""
        return [(event.name, event.value) for event in self.cell.seen[after:] if isinstance(event, events.Written)]


async def six_tags_and_no_seventh(cast: Cast) -> list[Finding]:
    """The SCADA system sees its six tags, and no seventh"""
    seen = await cast.ask("tags")
    lock = await cast.ask("read", "Pump Recipe_Lock Level")
    return [
        Finding("pylogix uploads the tag list", ", ".join(SIX), ", ".join(seen), seen == SIX),
        Finding(
            "it reads two of them and Recipe_Lock in one packet",
            "two values; the third does not exist for it",
            "; ".join(lock),
            [one.partition(":")[0] for one in lock] == ["Success", "Path destination unknown", "Success"],
        ),
    ]


async def writes_within_limits(cast: Cast) -> list[Finding]:
    """Writes within the limits arrive; out of range, too far, and half a packet do not"""
    at = len(cast.cell.seen)
    told = [
        *await cast.ask("write", "Pump", 80), *await cast.ask("write", "Pump", 1501),
        *await cast.ask("write", "Pump", 400), *await cast.ask("several", "Pump=120 Line=2"),
        *await cast.ask("several", "Pump=130 Recipe_Lock=1"),
    ]  # fmt: skip
    arrived = cast.written(at)
    return [
        Finding(
            "write 80, 1501 (above the limit), 400 (too far), two tags, and two of which one is nobody's",
            "Pump 80, Pump 120 and Line 2 arrive, nothing else",
            f"{told}; arrived {arrived}",
            arrived == [("Pump", 80), ("Pump", 120), ("Line", 2)] and told[0] == told[3] == "Success",
        )
    ]


async def an_intruder_tries(cast: Cast) -> list[Finding]:
    """Stop, reset, another slot, a number of no list, I/O to a third host: each is refused, and nothing arrives"""
    at = len(cast.cell.seen)
    findings: list[Finding] = []
    for do, words, wanted in (
        ("stop", "stops the controller", "08"), ("reset", "resets it", "08"), ("slot", "asks in slot 3", "01/0311"),
        ("number", "reads tag number 7", "05"), ("third", "opens I/O to a third host", "01/0205"),
    ):  # fmt: skip
        [told] = await cast.ask(do)
        findings.append(Finding(f"an owned office host {words}", wanted, told, told == wanted))
    arrived = cast.written(at)
    findings.append(Finding("look at the cell", "nothing was written", str(arrived), not arrived))
    return findings


async def the_drive_follows(cast: Cast) -> list[Finding]:
    """The drive follows its reference, is never told one above its limit, and stops when the scanner falls silent"""
    at = len(cast.cell.seen)
    good = await cast.ask("drive", value=700, seconds=0.6)
    await cast.cell.wait_for(lambda event: isinstance(event, events.Stopped), after=at)
    high = await cast.ask("drive", value=1501, seconds=0.4)
    await asyncio.sleep(0.2)
    references = [value for name, value in cast.written(at) if name == "reference"]
    return [
        Finding(
            "say 700 for a while, fall silent; then say 1501",
            "the drive is told 700, says so, and stops by itself; it is never told 1501",
            f"opened {good[0]}, {high[0]}; the drive was told {references}, and said {good[1]}",
            good == ("00", "700") and high[0] == "00" and references == [700],
        )
    ]


async def severed_the_drive_stops(cast: Cast) -> list[Finding]:
    """The IT side is severed while the drive follows: it stops at once, and is told nothing until it is restored"""
    at = len(cast.cell.seen)
    async with asyncio.TaskGroup() as meanwhile:
        scanning = meanwhile.create_task(cast.ask("drive", value=800, seconds=2.5))
        await cast.cell.wait_for(lambda event: isinstance(event, events.Written) and event.value == 800, after=at)
        cut = await cast.scene.verb("sever", "it")
        await cast.cell.wait_for(lambda event: isinstance(event, events.Stopped), after=at)
        mark = len(cast.cell.seen)
    told = scanning.result()
    late = cast.written(mark)
    away = await cast.ask("read", "Pump")
    back = await cast.scene.verb("restore", "it")
    return [
        Finding(
            "cofferdam sever it, while the scanner says 800; then the SCADA system reads",
            "the drive stops, though the scanner goes on; nobody is answered",
            f"exit {cut.code}; opened {told[0]}; told after that {late}; SCADA: {'; '.join(away)}",
            cut.code == 0 and told[0] == "00" and not late and not away[0].startswith("Success"),
        ),
        Finding("cofferdam restore it", "exit 0", f"exit {back.code}", back.code == 0),
    ]


async def the_log_names_them(cast: Cast) -> list[Finding]:
    """The log names each write and each I/O connection, with its counts"""
    wrote, ended = await in_the_end(lambda: _logged(cast), lambda seen: len(seen[1]) >= 3, seconds=20)
    return [
        Finding(
            "cofferdam audit show",
            "the writes by their tags, the three openings, and how each ended with its counts",
            f"{wrote}; ends {[(one.get('sent'), one.get('refused')) for one in ended]}",
            wrote == ["tag pump", "tag pump", "tag line", "io drive", "io drive", "io drive"]
            and len(ended) == 3
            and ended[0].get("sent", 0) > 5
            and ended[1].get("refused") == 3,
        )
    ]


async def _logged(cast: Cast) -> tuple[list[str], list[dict[str, Any]]]:
    """The writes by their tags, and the ends of connections."""
    answer = await cast.scene.verb("audit", "show", "--json")
    wrote: list[str] = []
    ended: list[dict[str, Any]] = []
    for line in answer.out.splitlines():
        found = events.decoded(line)
        if found.get("kind") == "write-allowed" and found.get("asset") in ("packer", "packer-drive"):
            wrote += [item[0] for item in found.get("items", ())]
        elif found.get("kind") == "stream-ended" and found.get("asset") == "packer-drive":
            ended.append(found)
    return wrote, ended


STEPS: tuple[Step, ...] = (
    six_tags_and_no_seventh,
    writes_within_limits,
    an_intruder_tries,
    the_drive_follows,
    severed_the_drive_stops,
    the_log_names_them,
)
