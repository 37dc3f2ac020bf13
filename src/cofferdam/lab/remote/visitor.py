"""A technician who goes to the station every now and then, in the demo: what was seen is an event on stdout.

`python -m cofferdam.lab.remote.visitor FOLDER ADDRESS PORT SOURCE`; a line on stdin is the secret of the codes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pyotp

from cofferdam.lab import events
from cofferdam.lab.remote.people import Person, finish

PAUSE_SECONDS = 31.0
"""A code counts once, and there is one in 30 s."""
STAYS = "sleep 45"
ROUND = (
    ("station", "uptime", ()),
    ("station", STAYS, ()),
    ("tech", "who", ()),
    ("station", "cat /etc/shadow", ()),
    ("station", "", ("-W", "10.20.0.17:502")),
    ("tech", "list", ()),
)


async def visit(folder: Path, door: tuple[str, int], source: str, secret: str) -> None:
    """Goes on until it is ended."""
    codes = pyotp.TOTP(secret)
    tech = Person("tech", folder, door, source, codes.now, lambda argv: argv)
    number = 0
    working: asyncio.subprocess.Process | None = None
    while True:
        if number % len(ROUND) == 0 and working is not None:
            await finish(working)
        user, words, more = ROUND[number % len(ROUND)]
        number += 1
        began = time.monotonic()
        if words == STAYS:  # and is seen there by who asks next
            working = await tech.begin(tech.ssh(user, words))
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        said = await tech.run(tech.ssh(user, *([words] if words else []), more=more))
        action = " ".join((*more, words)).strip()
        outcome = "ok" if said.code == 0 else "refused"
        micros = int((time.monotonic() - began) * 1e6)
        events.printed(events.Experience("tech", action, outcome, detail=said.text[:120], micros=micros))
        await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run(visit(Path(sys.argv[1]), (sys.argv[2], int(sys.argv[3])), sys.argv[4], sys.stdin.readline().strip()))
