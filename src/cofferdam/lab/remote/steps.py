"""The steps of the tour around the jump server: approval, work, files, tunnels, killing, the recording.

Not here: how steps are run and shown (lab.tour), who does what with which program (people).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.gate.client import ask
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.remote.people import Person, finish
from cofferdam.lab.scene import Scene

PATIENCE_SECONDS = 20.0


class Cast:
    """A vendor, a shift lead, a technician of the plant, and the station."""

    def __init__(self, scene: Scene, people: dict[str, Person], files: Path) -> None:
        self.scene = scene
        self.vendor, self.lead, self.tech = (people[name] for name in ("vendor", "lead", "tech"))
        self.files = files

    async def keeper(self, verb: str, part: str = "keeper", **arguments: object) -> Any:
        """What a part says to an operator's verb."""
        answers = await asyncio.to_thread(
            ask, self.scene.state, "ask-part", broker="jump", part=part, verb=verb, arguments=arguments
        )
        if "error" in answers[0]:
            raise CofferdamError(answers[0]["error"])
        return answers[0]["result"]

    async def entries(self, *kinds: str) -> list[dict[str, Any]]:
        """Entries of the audit log of these kinds."""
        words = [word for kind in kinds for word in ("--kind", kind)]
        answer = await self.scene.verb("audit", "show", "--json", *words)
        return [json.loads(line)["event"] for line in answer.out.splitlines() if line.startswith("{")]


async def four_eyes(cast: Cast) -> list[Finding]:
    """A vendor gets to the station once somebody else has approved it, and not before"""
    before = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    asked = await cast.vendor.run(cast.vendor.ssh("vendor", "request station 2h the pump trips #4711"))
    number = asked.out.split()[1] if asked.out.startswith("request ") else "0"
    own = await cast.vendor.run(cast.vendor.ssh("vendor", f"approve {number}"))
    lead = await cast.lead.run(cast.lead.ssh("lead", f"approve {number}"))
    after = await cast.vendor.run(cast.vendor.ssh("station", "echo in"))
    return [
        Finding("the vendor goes to the station without an approval", "refused, and told how to ask", before.text,
                before.code != 0 and "takes an approval" in before.text),
        Finding("the vendor asks, and approves the request", "nobody approves their own", own.text,
                "nobody approves their own" in own.text),
        Finding("a shift lead approves it; the vendor goes there again", "granted; in", f"{lead.text}; {after.text}",
                "is granted until" in lead.text and after.out == "in\n"),
    ]  # fmt: skip


async def files_by_right(cast: Cast) -> list[Finding]:
    """Files go where the rule lets them, hashed; elsewhere they do not"""
    inside = cast.files / "report.txt"
    note = cast.scene.directory / "note.txt"
    note.write_text("42 bottles\n")
    up = await cast.tech.run(cast.tech.scp(str(note), f"gate:{inside}"))
    back = await cast.tech.run(cast.tech.scp(f"gate:{inside}", str(cast.scene.directory / "back.txt")))
    same = (cast.scene.directory / "back.txt").exists() and (
        cast.scene.directory / "back.txt"
    ).read_text() == "42 bottles\n"
    out = await cast.tech.run(cast.tech.scp(str(note), f"gate:{cast.scene.directory}/elsewhere.txt"))
    passed = [each["way"] for each in await cast.entries("asset-file-passed")]
    return [
        Finding("a technician puts a file into the folder of the rule, and fetches it", "both work, both are recorded",
                f"exit {up.code} and {back.code}, recorded: {passed}",
                (up.code, back.code, same) == (0, 0, True) and passed[:3] == ["up", "open", "down"]),
        Finding("the same file elsewhere", "refused", out.text,
                out.code != 0 and not (cast.scene.directory / "elsewhere.txt").exists()),
    ]  # fmt: skip


async def no_tunnel(cast: Cast) -> list[Finding]:
    """Forwarded ports are refused and recorded: -W, -R"""
    away = await cast.tech.run(cast.tech.ssh("station", more=("-W", "10.20.0.17:502")))
    reverse = await cast.tech.run(
        cast.tech.ssh("station", "echo on", more=("-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"))
    )
    told = {each["what"] for each in await cast.entries("tunnel-refused")}
    return [
        Finding("a technician forwards a port to the PLC, and one back", "both refused, both recorded",
                f"exit {away.code} and {reverse.code}; recorded: {sorted(told)}",
                away.code != 0 and reverse.code != 0 and {"direct-tcpip", "tcpip-forward"} <= told)
    ]  # fmt: skip


async def killed_and_barred(cast: Cast) -> list[Finding]:
    """An operator ends a session: both legs are gone at once, and the way back is barred"""
    working = await cast.tech.begin(cast.tech.ssh("station", "sleep 100"))
    until = time.monotonic() + PATIENCE_SECONDS
    sessions: list[dict[str, Any]] = []
    while not sessions and time.monotonic() < until:
        sessions = await cast.keeper("sessions")
        await asyncio.sleep(0.05)
    number = sessions[0]["number"] if sessions else 1
    at = time.monotonic()
    killed = await cast.keeper("kill", number=number, reason="wrong machine")
    ended = await finish(working)
    took = time.monotonic() - at
    again = await cast.tech.run(cast.tech.ssh("station", "echo in"))
    await cast.keeper("unblock", name="tech station")
    later = await cast.tech.run(cast.tech.ssh("station", "echo in"))
    return [
        Finding("an operator kills the technician's session", "it ends, with the reason",
                f"{killed}; after {took:.1f} s: {ended.text}", ended.code != 0 and "wrong machine" in ended.text),
        Finding("the technician comes again, before and after the bar is lifted", "refused; in",
                f"{again.text}; {later.text}", "has barred" in again.text and later.out == "in\n"),
    ]  # fmt: skip


async def recorded_and_verified(cast: Cast) -> list[Finding]:
    """What was shown can be played, and agrees with the audit log"""
    listed = await cast.keeper("recordings", part="archivist")
    vendors = [one["name"] for one in listed if one["title"].startswith("vendor ")]
    played = await cast.scene.verb("jump", "recording", "play", vendors[0], "--speed", "0")
    verified = await cast.scene.verb("jump", "recording", "verify")
    await asyncio.to_thread(shutil.rmtree, cast.files, ignore_errors=True)
    return [
        Finding("play what the vendor was shown", "in", played.text, played.out.strip() == "in"),
        Finding("cofferdam jump recording verify", "no findings", verified.text, verified.code == 0),
    ]  # fmt: skip


STEPS: tuple[Step, ...] = (four_eyes, files_by_right, no_tunnel, killed_and_barred, recorded_and_verified)
