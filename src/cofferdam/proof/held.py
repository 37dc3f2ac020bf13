"""Part (a), crews that are held: tried again and again, since their store cannot be used, say. Their processes live for
moments, so nothing of them is read; said is what is held, and why. Whoever else stands in their place is a stranger.

Not here: crews that serve (processes, crossings), why one is held (the gate's supervisor).
"""

from __future__ import annotations

import time
from typing import Final

from cofferdam.proof import reading
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Side, Subject, road

PART = "structure"
LOOKS: Final = 100
LOOK_SECONDS: Final = 0.05
"""A process that was just born has the launcher's user for a moment: it is looked at again."""


def is_try(subject: Subject, side: Side, pid: int) -> bool:
    """Whether a process in a side's namespace is of a crew that is held: a child of the launcher's, as the user of a
    part that stands there. One that has ended meanwhile is nobody's."""
    users = {
        subject.users.get(f"{road(crew)}/{part}")
        for crew, held in subject.held.items()
        for part, stands in held.stands.items()
        if stands == side.name
    }
    for _ in range(LOOKS if users else 0):
        facts = reading.process(pid)
        if facts is None:
            return True
        if int(facts["status"]["PPid"]) != subject.launcher:
            return False
        if int(facts["status"]["Uid"].split()[0]) in users:
            return True
        time.sleep(LOOK_SECONDS)
    return False


def state(subject: Subject, out: Statements) -> None:
    """A statement for each crew that is held."""
    for crew, held in sorted(subject.held.items()):
        says = (
            "this crew does not serve, and nothing passes by it: its parts end before they take work, and what waits "
            "at its addresses, which the launcher holds, nobody reads. Its openings in the firewall are as the policy "
            "has them. Nothing else is said of its parts: prove again once it serves"
        )
        out.say(PART, f"{crew}: held", "observed", says, [held.why])
