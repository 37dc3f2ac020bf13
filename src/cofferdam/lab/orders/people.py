"""The two who never meet: an MES on the plant side that counts bottles, and an ERP in the office that orders them.

Each pushes into one channel of the relay and pulls from the other. A message that was not acknowledged is pushed again
under the same id, and one that was booked is never booked again: together that is exactly once. Left alone they work
at their own pace; driven (commands on stdin) they do one thing at a time and say `Done` after it.

Not here: how a door is spoken to (door).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cofferdam.errors import CofferdamError
from cofferdam.lab.orders import events
from cofferdam.lab.orders.door import Answer, Door, new_key

LINE = "filler-1"
STUBBORN_SECONDS = 180.0
"""How long a producer goes on pushing a message that nobody acknowledges."""
REST_SECONDS = 0.1


class Person:
    """An MES or an ERP: what it pushes, what it pulls, what it has booked."""

    def __init__(self, who: str, door: Door, pushes: str, pulls: str, sink: events.Sink) -> None:
        self.who = who
        self.door = door
        self.pushes = pushes
        self.pulls = pulls
        self.sink = sink
        self.booked: set[str] = set()
        self._made: dict[str, str] = {}

    def message(self, amount: int, key: str) -> dict[str, Any]:
        """A count of the line, or an order for it. One that is made again under its id has its first time."""
        now = self._made.setdefault(key, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        word = "good" if self.pushes == "counts" else "amount"
        return {"line": LINE, word: amount, "at": now}

    async def push(self, amount: int, *, key: str = "", stubborn: bool = True) -> Answer:
        """Pushes one message; `stubborn`: until it is acknowledged or refused for good."""
        key = key or new_key()
        message = self.message(amount, key)
        until = time.monotonic() + STUBBORN_SECONDS
        while True:
            answer = await asyncio.to_thread(self.door.push, self.pushes, key, message)
            if answer.status not in (0, 503) or not stubborn or time.monotonic() > until:
                break
            await asyncio.sleep(REST_SECONDS)
        if stubborn:
            self._made.pop(key, None)
        number = int(answer.said.get("number", 0))
        self.sink(events.Pushed(self.who, self.pushes, key, amount, answer.status, number, answer.detail))
        return answer

    async def pull(self, most: int = 100, wait: float = 0.0) -> int:
        """Leases what there is, books it and settles it; how many messages that were."""
        lease, messages = await asyncio.to_thread(self.door.lease, self.pulls, most, wait)
        for message in messages:
            again = message["id"] in self.booked
            self.booked.add(message["id"])
            data = message["data"]
            amount = int(data.get("good", data.get("amount", 0)))
            self.sink(events.Booked(self.who, self.pulls, message["number"], message["id"], amount, again))
        if messages:
            numbers = [message["number"] for message in messages]
            await asyncio.to_thread(self.door.done, self.pulls, lease, numbers)
        return len(messages)

    async def forever(self, pause: float, seed: int) -> None:
        """Pushes a message every `pause` seconds, and books what comes in between."""
        dice = random.Random(seed)  # noqa: S311  a machine's ups and downs, not a secret
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + pause
                await self.push(dice.randrange(380, 430) if self.pushes == "counts" else dice.randrange(1, 40) * 500)
            if not await self.pull(wait=min(1.0, pause)):
                await asyncio.sleep(REST_SECONDS)

    async def drive(self, source: AsyncIterator[events.Command]) -> None:
        """Does what each command says, then says Done. push: `count` messages of amount `value`. pull: until `count`
        were booked or `seconds` are over. ask: one request of any kind, `point` is "METHOD PATH BODY"."""
        async for command in source:
            match command.do:
                case "push":
                    for number in range(command.count):
                        await self.push(int(command.value) + number, key=command.point, stubborn=not command.point)
                case "pull":
                    until, got = time.monotonic() + command.seconds, 0
                    while got < command.count and time.monotonic() < until:
                        got += await self.pull(wait=0.5)
                        await asyncio.sleep(REST_SECONDS if not got else 0)
                case "ask":
                    method, path, body = (*command.point.split(" ", 2), "", "")[:3]
                    raw = body.encode("utf-8", "surrogatepass") if body else None
                    answer = await asyncio.to_thread(self.door.ask, method, path, raw=raw)
                    outcome = (
                        "ok" if answer.status and answer.status < 300 else "refused" if answer.status else "closed"
                    )
                    said = events.Experience(
                        self.who, f"{method} {path}", outcome, exception=answer.status, detail=answer.detail
                    )
                    self.sink(said)
                case _:
                    raise CofferdamError(f"{self.who} knows no command {command.do!r}", hint="push, pull, ask")
            self.sink(events.Done(self.who, command.do))
        self.door.close()


def person(who: str, address: str, port: int, key: Path, source: str, sink: events.Sink) -> Person:
    """The MES or the ERP at its door. Raises CofferdamError where the key cannot be read."""
    try:
        text = key.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CofferdamError(
            f"{key} holds no key: {error}", hint="`cofferdam relay key new PRINCIPAL` makes one"
        ) from None
    pushes, pulls = ("counts", "orders") if who == "mes" else ("orders", "counts")
    return Person(who, Door(address, port, text, source), pushes, pulls, sink)
