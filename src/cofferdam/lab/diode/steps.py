"""The steps of the tour around the strand: what goes out, what is missing and how it is brought, and that nothing comes
back, whoever owns the outside.

Not here: how steps are run and shown (lab.tour), the second machine (outside).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from typing import Any, Final

from cofferdam.errors import CofferdamError
from cofferdam.lab.diode import events, frames, screen
from cofferdam.lab.diode.outside import LOSS, OUTSIDE, Outside, until
from cofferdam.lab.diode.people import leave
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import PATIENCE_SECONDS, Actor, Answer, Scene, in_the_end

MINUTES: Final = 60
"""Of the hour without a link: a count for each of them, and a report of its 3,600 seconds."""
HOUR_SECONDS: Final = 6.0
"""How long the tour's hour is: longer than it takes until silence is an alarm (5 s)."""
ROUNDS: Final = 150
"""How often each frame is sent from the machine outside."""
NO_CABLE: Final = "only where the hosts have network namespaces: here there is no cable to lose or to count anything"


TOTALS: Final = "records:flow-totals"
COUNTS: Final = "records:daily-counts"
RIDERS: Final = {TOTALS, COUNTS, "files:flow-reports"}


class Cast:
    """Both machines, and who is at their ends, driven."""

    def __init__(self, scene: Scene, outside: Outside, meter: Actor, works: Actor, regulator: Actor) -> None:
        self.scene, self.outside = scene, outside
        self.meter, self.works, self.regulator = meter, works, regulator
        self.pushed = 0
        self.counts: list[int] = []
        """All that the regulator has ever been handed."""
        self.files: dict[str, str] = {}
        self.tickets = 0
        """Carried for a record or two that the line took with its parity."""

    def metered(self) -> list[int]:
        """All totals that the meter has answered with."""
        return [event.total for event in self.meter.seen if isinstance(event, events.Metered)]

    async def push(self, count: int) -> events.Told:
        told = await self.works.do(events.Command("push", count=count), seconds=PATIENCE_SECONDS)
        one = next(event for event in told if isinstance(event, events.Told))
        self.pushed = one.last
        return one

    def file(self, name: str, data: bytes) -> None:
        """A report goes into the folder inside."""
        leave(self.outside.folder(self.scene.state, "spool"), name, data)
        self.files[name] = hashlib.sha256(data).hexdigest()

    def came(self, name: str) -> bool:
        """Whether a report is outside, as it was inside."""
        path = self.outside.folder(self.outside.state, "keeper") / name
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == self.files[name]

    def missing(self) -> set[str]:
        """The channels of which the strand names something as missing."""
        return {one["channel"] for one in self.outside.keeper("status")["channels"] if one["missing"]}

    def given(self) -> dict[str, int]:
        """The highest number of each channel that the inside's spool has given it."""
        found = dict[str, int]()
        for one in self.outside.spool(self.scene.state)["channels"]:
            found[one["channel"]] = found.get(one["channel"], 0) + int(one["highest"])
        return found

    def gone(self, given: dict[str, int]) -> bool:
        """Whether as much as this has left the inside's spool, and nothing waits there."""
        now = self.given()
        return (
            all(now.get(name, 0) >= number for name, number in given.items())
            and not self.outside.spool(self.scene.state)["queue"]
        )

    async def totals(self) -> tuple[int, ...]:
        """All totals that the regulator reads outside."""
        told = await self.regulator.do(events.Command("totals"), seconds=PATIENCE_SECONDS)
        one = next(event for event in told if isinstance(event, events.Regulated))
        if one.status not in (0, 200, 503):  # it begins to serve, is born again, or is slow
            raise CofferdamError(f"the regulator reads nothing: {one.status} {one.detail}")
        return one.values

    async def take(self) -> events.Regulated:
        """The regulator takes what counts there are."""
        told = await self.regulator.do(events.Command("counts"), seconds=PATIENCE_SECONDS)
        one = next(event for event in told if isinstance(event, events.Regulated))
        self.counts += one.values
        return one

    async def have(self, totals: set[int], counts: set[int], files: list[str]) -> tuple[int, ...]:
        """The totals outside, once all of these are there or time is up. A line that loses 5 % takes one small record
        of 400 with its parity: such a one has a ticket, too."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            await self.take()
            seen = await self.totals()
            whole = totals <= set(seen) and counts <= set(self.counts) and all(self.came(name) for name in files)
            if whole or time.monotonic() > end:
                return seen
            if await asyncio.to_thread(self.missing):
                await self.bring()
            await asyncio.sleep(0.3)

    async def bring(self) -> None:
        """A person carries what tickets there are."""
        answer = await self.outside.verb("diode", "ticket", "--json")
        for one in answer.json()["tickets"] if answer.code == 0 else ():
            await self.scene.verb("diode", "resend", "--ticket", one["text"], "--go")
            self.tickets += 1

    async def whole(self) -> None:
        """Until nothing is missing. Raises CofferdamError."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            await asyncio.sleep(3)  # what a ticket brings comes in a moment
            if not await asyncio.to_thread(self.missing):
                return
            if time.monotonic() > end:
                raise CofferdamError("what is missing does not come by tickets")
            await self.bring()

    async def verified(self) -> tuple[str, Answer]:
        """What `mirror gaps` and `mirror verify` say, once they find nothing or time is up. The line goes on losing a
        record now and then, and what it has brought just now counts as missing until the strand has looked again."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            gaps = (await self.outside.verb("mirror", "gaps")).text
            verified = await self.outside.verb("mirror", "verify", "--last", "2h")
            if verified.code == 0 or time.monotonic() > end:
                return gaps, verified
            if await asyncio.to_thread(self.missing):
                await self.bring()
            await asyncio.sleep(1)

    async def newer(self, totals: set[int]) -> tuple[int, ...]:
        """The totals outside, once any of these is there or time is up; nobody carries a ticket."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = await self.totals()
            if totals & set(seen) or time.monotonic() > end:
                return seen
            await asyncio.sleep(0.3)

    async def cut(self) -> None:
        """The link is gone: the cable is cut or, where there is none, the machine outside has no power."""
        if self.outside.cable is not None:
            await asyncio.to_thread(self.outside.cable.lose, 1.0)
        elif self.outside.gate is not None:
            await self.outside.gate.stop()

    async def mend(self) -> None:
        if self.outside.cable is not None:
            await asyncio.to_thread(self.outside.cable.lose, LOSS)
        else:
            await self.outside.up()
        await self.outside.heard()


async def out_and_nothing_back(cast: Cast) -> list[Finding]:
    """Values, a file and counts go out over a link that loses 5 %, and the regulator has them"""
    cast.file("before.csv", os.urandom(300_000))
    told = await cast.push(50)
    totals = set(cast.metered()[-5:])
    seen = await cast.have(totals, set(range(1, 51)), ["before.csv"])
    answer = await cast.outside.verb("diode", "status")
    cable = cast.outside.cable.counts() if cast.outside.cable is not None else None
    inside = cast.outside.within(cast.scene.state, "sender", "cat", "/proc/net/dev") if cable is not None else ""
    received = next((int(line.split()[1 + 1]) for line in inside.splitlines() if ":" in line and "lo:" not in line), 0)
    findings = [
        Finding(
            "the meter is read inside; the regulator reads flow totals outside",
            "all of the last ones that the meter said", f"{len(totals & set(seen))} of {len(totals)}, "
            f"newest {seen[-1] if seen else 'none'} l", totals <= set(seen),
        ),
        Finding(
            "50 counts are pushed inside", "each once outside, and in order where none was lost with its parity",
            f"{told.status}; {len(cast.counts)} came, {len(set(cast.counts))} different; {cast.tickets} tickets",
            sorted(cast.counts) == list(range(1, 51)) and (cast.tickets > 0 or cast.counts == list(range(1, 51))),
        ),
        Finding("a report of 300 kB is left in a folder", "it is outside, with the same SHA-256",
                "the same" if cast.came("before.csv") else "not there", cast.came("before.csv")),
        Finding("what makes it one-way", "by software, and no word of hardware that nobody attests",
                " ".join(answer.out.split()[:24]),
                "one-way by software" in answer.out and "nothing is attested" in answer.out),
    ]  # fmt: skip
    if cable is None:
        return [*findings, Finding("5 % loss", NO_CABLE, "not tried in the loopback layout", ok=True)]
    share = cable.lost / max(1, cable.sent)
    return [*findings, Finding(
        "what the cable and the inside's card counted meanwhile", "about 5 % lost going out; not one frame back",
        f"{cable.lost} of {cable.sent} lost ({share:.1%}); {cable.back} frames back, {received} at the inside's card",
        cable.lost > 0 and cable.back == 0 and received == 0,
    )]  # fmt: skip


async def an_hour_without_a_link(cast: Cast) -> list[Finding]:
    """The link is gone for an hour (of six seconds): silence is an alarm, what is missing is named, the rest goes on"""
    before = cast.pushed

    def _within(first: int, last: int) -> bool:
        return first <= before + 1 and before + MINUTES <= last

    await cast.cut()
    began = time.monotonic()
    mark = len(cast.metered())
    await cast.push(MINUTES)
    cast.file("hour.csv", "".join(f"{second},{second % 97}\n" for second in range(3600)).encode())
    if cast.outside.cable is not None:
        await until(lambda: "silent" in " ".join(cast.outside.alarms()), "silence is an alarm")
    named = [name for name in cast.outside.alarms() if "silent" in name] if cast.outside.cable is not None else []
    await asyncio.sleep(max(0.0, HOUR_SECONDS / 2 - (time.monotonic() - began)))
    lost = cast.metered()[mark + 2 :]
    await asyncio.sleep(max(0.0, HOUR_SECONDS - (time.monotonic() - began)))
    later = (await asyncio.to_thread(cast.given)).get(TOTALS, 0) + 3  # batches after which those have gone, too
    await until(lambda: cast.gone({COUNTS: cast.pushed, TOTALS: later}), "the inside has sent it into the void")
    await cast.mend()
    await cast.push(10)
    await until(lambda: cast.missing() == RIDERS, "each channel names its gap")
    newer = set(cast.metered()[-5:])
    seen = await cast.newer(newer)
    # The relay and the mirror outside are told of a gap at the strand's next look.
    handed = await in_the_end(cast.take, lambda told: any(_within(first, last) for first, last in told.missing))
    verified = await in_the_end(
        lambda: cast.outside.verb("mirror", "verify", "--last", "2h"), lambda answer: answer.code == 1
    )
    status = await cast.outside.verb("diode", "status")
    gaps = [line.strip() for line in status.out.splitlines() if "missing for" in line]
    return [
        Finding(
            "5 s without a heartbeat", "an alarm outside",
            ", ".join(named) if cast.outside.cable is not None else "the machine outside was off, and could raise none",
            cast.outside.cable is None or bool(named),
        ),
        Finding("the link is back", "the gap of each channel is named, by its numbers", "; ".join(gaps)[:200],
                len(gaps) >= 3),
        Finding("the regulator reads on", "what is newer is there, and the hour is not",
                f"newest {seen[-1] if seen else 'none'} l; {len(set(lost) & set(seen))} of {len(lost)} of the hour",
                bool(newer & set(seen)) and not set(lost) & set(seen)),
        Finding("the regulator takes counts", f"the hour's are named as missing: {before + 1} to {before + MINUTES}",
                str([list(one) for one in handed.missing]),
                any(_within(first, last) for first, last in handed.missing)),
        Finding("cofferdam mirror verify, outside", "it does not say that all is there", verified.text[:160],
                verified.code == 1 and "no gaps" not in verified.text),
        Finding("the hour's report", "it is not outside, not even a part of it",
                "there" if cast.came("hour.csv") else "not there", not cast.came("hour.csv")),
    ]  # fmt: skip


async def a_person_carries_a_ticket(cast: Cast) -> list[Finding]:
    """A ticket for what is missing, as letters and as a QR code on the screen; a person carries it; all ends equal"""
    drawn = await cast.outside.at_terminal("diode", "ticket")
    texts, codes = screen.tickets(drawn)
    same = [screen.code(text) == code for text, code in zip(texts, codes, strict=True)] if codes else []
    first = texts[0] if texts else ""
    shown = [await _inside(cast, text) for text in texts]
    sent = [await _inside(cast, text, "--go") for text in texts]
    twice = await _inside(cast, first, "--go")
    at = 1 + first[1:].index(next(letter for letter in first[1:] if letter != first[0]))
    typo = await _inside(cast, first[at] + first[1:at] + first[0] + first[at + 1 :])
    await cast.whole()
    await until(lambda: cast.came("hour.csv"), "the hour's report is there")
    metered, counts = set(cast.metered()[:-5]), set(range(1, cast.pushed + 1))
    seen = await cast.have(metered, counts, ["hour.csv"])
    await cast.outside.verb("mirror", "seal")
    gaps, verified = await cast.verified()
    listed = [
        [(one["number"], one["key"], one["sha256"]) for one in answer.json()]
        for answer in await asyncio.gather(*(
            cast.scene.verb("relay", "list", "daily", "--most", "0", "--json", "--state", str(state), state=False)
            for state in (cast.scene.state, cast.outside.state)
        ))
    ]  # fmt: skip
    return [
        Finding(
            f"cofferdam diode ticket, on a terminal outside:\n{codes[0] if codes else drawn[-300:]}\n",
            "a ticket for each channel, at most 200 letters, and the QR code is that of its letters",
            f"{len(texts)} tickets of {', '.join(str(len(text)) for text in texts)} letters; "
            f"{same.count(True)} of {len(codes)} codes as they should be",
            len(texts) == 3 and same == [True] * 3 and all(len(text) <= 200 for text in texts),
        ),
        Finding("inside: cofferdam diode resend --ticket", "it says what would be sent, and sends nothing",
                shown[0].text[:120] if shown else "", all("would be sent" in answer.text for answer in shown)),
        Finding("with --go; then the first once more, and once with two letters changed",
                "sent; refused as used; refused as mistyped",
                f"exit {', '.join(str(answer.code) for answer in sent)}; {twice.text[:80]}; {typo.text[:80]}",
                not any(answer.code for answer in sent) and "used before" in twice.text and typo.code != 0),
        Finding("every total that the meter ever said, and the regulator reads", "the same, each once",
                f"{len(metered & set(seen))} of {len(metered)}; {len(seen) - len(set(seen))} twice",
                metered <= set(seen) and len(seen) == len(set(seen))),
        Finding("cofferdam mirror gaps and verify, outside", "no gaps, no differences",
                f"{gaps[:60]}; {verified.text[:160]}",
                verified.code == 0 and "no gaps, no differences" in verified.text),
        Finding("both relays' lists of counts, number, key and SHA-256 of each", f"equal, {cast.pushed} of them",
                f"{len(listed[0])} inside, {len(listed[1])} outside, "
                f"{'equal' if listed[0] == listed[1] else 'not equal'}",
                listed[0] == listed[1] and len(listed[0]) == cast.pushed),
        Finding("what the regulator was handed", "each count once, late ones too",
                f"{len(cast.counts)}, {len(set(cast.counts))} different", sorted(cast.counts) == sorted(counts)),
        Finding("the hour's report", "outside, with the same SHA-256",
                "the same" if cast.came("hour.csv") else "not there", cast.came("hour.csv")),
    ]  # fmt: skip


async def the_outside_is_owned(cast: Cast) -> list[Finding]:
    """The machine outside is an intruder's, who tries every way back: not one frame gets to the inside"""
    cable = cast.outside.cable
    if cable is None:
        return [Finding("frames from the machine outside", NO_CABLE, "not tried in the loopback layout", ok=True)]
    script = [sys.executable, frames.__file__]
    await asyncio.to_thread(cable.lose, LOSS)
    before = _taken(cast)
    said = await asyncio.to_thread(cast.outside.within, cast.outside.state, "receiver", *script, "strand0", str(ROUNDS))
    tried = json.loads(said)
    after, back = _taken(cast), cable.counts().back
    control = json.loads(await asyncio.to_thread(_on_the_cable, cable.within(*script, "in0", "2")))
    # A busy kernel hands them over a moment later.
    arrived = await in_the_end(
        lambda: asyncio.to_thread(_taken, cast), lambda seen: seen - after >= sum(control.values())
    )
    still = cast.outside.within(cast.scene.state, "sender", "cat", "/proc/net/snmp")
    ip_in = int(next(line for line in still.splitlines() if line.startswith("Ip: ") and line[4].isdigit()).split()[3])
    return [
        Finding(
            f"{sum(tried.values())} frames of {len(tried)} families ({', '.join(list(tried)[:4])}, ...), by root in "
            "the receiver's own network",
            "0 on the cable, 0 at the inside's card",
            f"{back} on the cable, {after - before} at the card",
            back == 0 and after == before and len(tried) > 20,
        ),
        Finding(
            f"the control: {sum(control.values())} of the same frames put on the cable itself, as if the outside's "
            "walls were gone",
            "all are at the inside's card, which shows that the count counts; and its own wall takes none in",
            f"{arrived - after} at the card, {ip_in} taken in",
            arrived - after == sum(control.values()) and ip_in == 0,
        ),
    ]


async def what_is_software(cast: Cast) -> list[Finding]:
    """The proof on each machine says what is one-way by software, and what only hardware would be"""
    if cast.outside.cable is None:
        return [Finding("cofferdam prove --diode", "only where the gates have network namespaces",
                        "not tried in the loopback layout: it says \"not separated here\"", ok=True)]  # fmt: skip
    states = {"inside": cast.scene.state, OUTSIDE: cast.outside.state}
    answers = await asyncio.gather(*(cast.outside.prove(state) for state in states.values()))
    findings = []
    for name, answer in zip(states, answers, strict=True):
        said: list[dict[str, Any]] = answer.json()["report"]["statements"]
        failed = [one["name"] for one in said if one["status"] == "failed"]
        software = [one for one in said if one["name"].endswith(": one-way by software")]
        hardware = [one for one in said if one["name"].endswith(": one-way by hardware")]
        families = [one for one in said if one["name"].endswith(" frames") and one["evidence"]]
        findings.append(Finding(
            f"cofferdam prove --diode, {name}",
            "by software: tested, each family of frames with its control; by hardware: nothing is claimed",
            "; ".join(f"{one['status']}: {one['says']}" for one in (*software, *hardware))[:420]
            + f"; {len(families)} families" + (f"; FAILED {', '.join(failed)}" if failed else ""),
            answer.code == 0 and not failed and [one["status"] for one in software] == ["tested"]
            and [one["status"] for one in hardware] == ["assumed"] and len(families) >= 21,
        ))  # fmt: skip
    return findings


def _taken(cast: Cast) -> int:
    """Frames that have come to the inside's card."""
    said = cast.outside.within(cast.scene.state, "sender", "cat", "/proc/net/dev")
    cards = [line.split(":") for line in said.splitlines() if ":" in line]
    return sum(int(rest.split()[1]) for name, rest in cards if name.strip() != "lo")


def _on_the_cable(argv: list[str]) -> str:
    from cofferdam.lab.cable import run

    return run(*argv)


async def _inside(cast: Cast, ticket: str, *words: str) -> Any:
    return await cast.scene.verb("diode", "resend", "--ticket", ticket, *words)


STEPS: tuple[Step, ...] = (
    out_and_nothing_back,
    an_hour_without_a_link,
    a_person_carries_a_ticket,
    the_outside_is_owned,
    what_is_software,
)
