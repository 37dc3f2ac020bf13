"""The steps of the tour around the relay: what crosses, what does not, and what a kill -9 does to it.

Not here: how steps are run and shown (lab.tour), what the actors can do (people).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

from cofferdam.errors import CofferdamError, GateError
from cofferdam.lab.orders import events
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import PATIENCE_SECONDS, Actor, Scene

CREW = "relay/enterprise-control"
"""Another play may have a relay, too."""
KILLED_PUSHES = 60
AWAY_PUSHES = 300
"""What the MES counts while the ERP is away: an outage in small."""


class Cast:
    """The MES and the ERP's order desk, driven; `pushed` and `booked` are all that they ever said."""

    def __init__(self, scene: Scene, mes: Actor, desk: Actor) -> None:
        self.scene = scene
        self.mes = mes
        self.desk = desk

    async def push(self, actor: Actor, amount: int, *, count: int = 1, key: str = "") -> list[events.Pushed]:
        """Messages of these amounts; what the producer was told of each."""
        told = await actor.do(
            events.Command("push", point=key, value=amount, count=count), seconds=2 * PATIENCE_SECONDS
        )
        return [event for event in told if isinstance(event, events.Pushed)]

    async def pull(self, actor: Actor, count: int) -> list[events.Booked]:
        """Books messages until there were so many, or none came for long."""
        told = await actor.do(
            events.Command("pull", count=count, seconds=PATIENCE_SECONDS), seconds=2 * PATIENCE_SECONDS
        )
        return [event for event in told if isinstance(event, events.Booked)]

    async def ask(self, actor: Actor, request: str) -> events.Experience:
        """One request of any kind."""
        told = await actor.do(events.Command("ask", point=request))
        return next(event for event in told if isinstance(event, events.Experience))


async def counts_and_orders_cross(cast: Cast) -> list[Finding]:
    """Counts cross to the ERP and orders to the MES, each once and in order, and the two never meet"""
    findings = []
    for producer, consumer, what, first in ((cast.mes, cast.desk, "counts", 400), (cast.desk, cast.mes, "orders", 500)):
        pushed = await cast.push(producer, first, count=5)
        booked = await cast.pull(consumer, 5)
        same = [(event.key, event.amount) for event in pushed] == [(event.key, event.amount) for event in booked]
        numbers = [event.number for event in booked]
        gapless = numbers == list(range(numbers[0], numbers[0] + 5)) if len(numbers) == 5 else False
        findings.append(
            Finding(
                f"{producer.name} pushes five {what}, {consumer.name} pulls them",
                "five acknowledged, the same five booked in the same order, numbers without a gap",
                f"{[event.status for event in pushed]}; booked {len(booked)}, numbers {numbers}",
                same and gapless and all(event.status == 201 for event in pushed),
            )
        )
    return findings


async def the_same_again(cast: Cast) -> list[Finding]:
    """A repeated message is the same message; another content under its id is refused"""
    first = await cast.push(cast.mes, 411, key="shift-7")
    again = await cast.push(cast.mes, 411, key="shift-7")
    other = await cast.push(cast.mes, 999, key="shift-7")
    booked = await cast.pull(cast.desk, 1)
    return [
        Finding(
            "the MES pushes one id three times, the last time with another amount",
            "201, then 200 for the same; the other content is refused with 409; one message is booked",
            f"{first[0].status}, {again[0].status}, {other[0].status}; the ERP books {len(booked)}",
            (first[0].status, again[0].status, other[0].status, len(booked)) == (201, 200, 409, 1),
        )
    ]


async def an_owned_erp(cast: Cast) -> list[Finding]:
    """Ransomware that owns the ERP and its key gets what the ERP may, and no road to the MES"""
    order = '{"line":"filler-1","amount":%s,"at":"2026-11-26T10:00:00Z"}'
    findings = []
    for request, words, wanted in (
        ("POST counts/lease {}", "pulls counts, as the ERP may", (200,)),
        ("PUT orders/messages/x0 " + order % "50", "orders 50 bottles, as the ERP may", (201,)),
        ("POST orders/lease {}", "pulls the orders, which are the MES's", (403, 404)),
        ("PUT counts/messages/x " + order % "1", "pushes counts, which are the MES's to push", (403, 404)),
        ("PUT orders/messages/x1 " + order % "10000000", "orders 10 million bottles", (422,)),
        ("PUT orders/messages/x2 " + order % "NaN", "orders NaN bottles", (400, 422)),
        ('PUT orders/messages/x3 {"line":"a","line":"b","amount":1}', "says one field twice", (400, 422)),
        ("PUT orders/messages/x4 " + "[" * 200 + "]" * 200, "nests 200 deep", (400, 422)),
        ('PUT orders/messages/x5 <?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>', "sends an XML bomb",
         (400, 415, 422)),
        ("PUT orders/messages/..%2f..%2fcounts " + order % "1", "climbs out of the path", (400, 404)),
    ):  # fmt: skip
        got = await cast.ask(cast.desk, request)
        findings.append(
            Finding(
                f"the owned ERP {words}",
                " or ".join(map(str, wanted)),
                f"{got.exception} {got.detail}",
                got.exception in wanted,
            )
        )
    told = await cast.mes.do(events.Command("pull", count=2, seconds=2))
    booked = [event.key for event in told if isinstance(event, events.Booked)]
    listed = await cast.scene.verb("relay", "quarantine", "list", "--crew", CREW, "--json")
    held = listed.json()
    rows = held if isinstance(held, list) else held.get("quarantine", held.get("rows", []))
    findings.append(
        Finding(
            "look at what of it reached the MES, and at the quarantine",
            "the 50 bottles and nothing else; the order of 10 million is held, with the reason",
            f"the MES booked {booked}; {len(rows)} held: {json.dumps(rows)[:160]}",
            booked == ["x0"] and len(rows) >= 1 and "10000000" in json.dumps(rows),
        )
    )
    return findings


async def nobody_lets_out_what_they_have_edited(cast: Cast) -> list[Finding]:
    """A held order is edited, and the one who has edited it cannot let it out"""
    listed = await cast.scene.verb("relay", "quarantine", "list", "--crew", CREW, "--json")
    held = [row for row in listed.json() if row["channel"] == "orders" and row["fault"] == "limit"]
    if not held:
        return [Finding("look for the order of 10 million", "it is held", f"held: {listed.text[:160]}", False)]
    row = str(held[0]["row"])
    mended = cast.scene.directory / "mended.json"
    mended.write_text('{"line":"filler-1","amount":100,"at":"2026-11-26T10:00:00Z"}', encoding="ascii")
    edited = await cast.scene.verb("relay", "quarantine", "edit", "--crew", CREW, row, str(mended))
    released = await cast.scene.verb("relay", "quarantine", "release", "--crew", CREW, row)
    told = await cast.mes.do(events.Command("pull", count=1, seconds=1))
    booked = [event for event in told if isinstance(event, events.Booked)]
    rejected = await cast.scene.verb(
        "relay", "quarantine", "reject", "--crew", CREW, row, "--reason", "the tour is over it"
    )
    return [
        Finding(
            "make 100 bottles of the order of 10 million, and release it oneself",
            "the edit shows the difference, the release is refused, the MES has nothing; thrown away it may be",
            f"edit: exit {edited.code}; release: exit {released.code}, {released.text[:80]}; the MES booked "
            f"{len(booked)}; reject: exit {rejected.code}",
            (edited.code, rejected.code, len(booked)) == (0, 0, 0)
            and "10000000" in edited.text
            and released.code != 0
            and "cannot release" in released.text,
        )
    ]


async def an_erp_that_was_away(cast: Cast) -> list[Finding]:
    """The ERP is away while the MES counts on; when it comes back it gets all of it, in order"""
    pushed = await cast.push(cast.mes, 7, count=AWAY_PUSHES)
    [relay] = (await cast.scene.verb("relay", "status", "--json", "--crew", CREW)).json()
    [counts] = [channel for channel in relay["result"]["channels"] if channel["channel"] == "counts"]
    behind = counts["consumers"][0]["lag"]
    booked = await cast.pull(cast.desk, AWAY_PUSHES)
    keys = [event.key for event in booked if not event.again]
    return [
        Finding(
            f"the MES counts {AWAY_PUSHES} times, and nobody pulls",
            "each acknowledged all the same; status says how far behind the ERP is; then it books each once, in order",
            f"{sum(event.status == 201 for event in pushed)} acknowledged, {behind} behind, {len(keys)} booked",
            all(event.status == 201 for event in pushed)
            and len(pushed) == behind == AWAY_PUSHES
            and keys == [event.key for event in pushed],
        )
    ]


async def killed_and_complete(cast: Cast) -> list[Finding]:
    """kill -9 of each part of the relay, while the MES counts: nothing is lost, nothing is booked twice"""
    counting = asyncio.get_running_loop().create_task(cast.push(cast.mes, 1, count=KILLED_PUSHES))
    killed: list[str] = []
    for part in ("keeper", "outer", "inner"):
        before = await _pid(cast, part)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(before, signal.SIGKILL)
            killed.append(part)
        await _pid(cast, part, other_than=before)
    pushed = await counting
    booked = await cast.pull(cast.desk, len(pushed))
    good = [event for event in pushed if event.status in (200, 201)]
    keys = [event.key for event in booked if not event.again]
    return [
        Finding(
            f"kill -9 of {', '.join(killed)}, one after the other, under {KILLED_PUSHES} counts",
            f"{KILLED_PUSHES} acknowledged, the same booked once each, in order",
            f"{len(good)} acknowledged, {len(keys)} booked, {len(set(keys))} different",
            len(killed) == 3 and len(good) == KILLED_PUSHES and keys == [event.key for event in good],
        )
    ]


async def _pid(cast: Cast, part: str, *, other_than: int = 0) -> int:
    """The process of a part of the relay, once there is one. Raises CofferdamError where there is none for long."""
    for _ in range(int(PATIENCE_SECONDS / 0.1)):
        with contextlib.suppress(GateError):
            for pair in (await cast.scene.status()).pairs:
                for half in pair.halves:
                    mine = pair.name == CREW and half.name.endswith(f"/{part}") and half.ready
                    if mine and half.pid not in (0, other_than):
                        return half.pid
        await asyncio.sleep(0.1)
    raise CofferdamError(f"the relay's {part} did not come back in {PATIENCE_SECONDS:g} s")


async def the_books_agree(cast: Cast) -> list[Finding]:
    """The relay's store agrees with the audit log, message by message"""
    answer = await cast.scene.verb("relay", "verify", "--crew", CREW)
    return [
        Finding("cofferdam relay verify", "no findings", f"exit {answer.code}; {answer.text[:200]}", answer.code == 0)
    ]


STEPS: tuple[Step, ...] = (
    counts_and_orders_cross,
    the_same_again,
    an_owned_erp,
    nobody_lets_out_what_they_have_edited,
    an_erp_that_was_away,
    killed_and_complete,
    the_books_agree,
)
