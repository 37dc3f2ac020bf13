"""A gate of which every part with something to say is an intruder's: on a signal it tells the log what it is given
here, in its own process, at its place, after it has put its filter on. All else is the gate as it is. A program, like
`cofferdam up`:

    taken POLICY STATE

The signal SIGRTMIN + n has a part say the n-th of what SAYS has for it; of the auditor, which has taken over nobody, it
sets the clock, that it is behind by the n-th of BEHIND_DAYS: so days go by. It begins with the first.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.audit.entry import Draft
from cofferdam.audit.events import jump, mirror, patch, relay
from cofferdam.audit.events.gate import PolicyLoaded
from cofferdam.audit.records import Batch
from cofferdam.brokers.registry import CREWS
from cofferdam.crossing.framing import pack
from cofferdam.enforce.choice import choose
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.isolation import Berth
from cofferdam.enforce.launcher import Launcher
from cofferdam.enforce.orders import Child
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.users import Users
from cofferdam.evidence.history import MAX_GROUPS

DAY = 86_400
BEHIND_DAYS = (460, 38, 36, 0)
A, B = "a" * 64, "b" * 64


def opened(session: str, **changes: Any) -> Draft:
    said: dict[str, Any] = {
        "session": session, "connection": "c1", "person": "ada", "source": "10.1.0.9", "asset": "station",
        "login": "root", "what": "exec", "conduit": "staff-helps", "rule": "staff-helps#0",
    }  # fmt: skip
    return jump.AccessOpened(**(said | changes))


def ended(session: str, **changes: Any) -> Draft:
    return jump.AccessEnded(session=session, person="ada", asset="station", reason="done", **changes)


def decided(request: int, *people: str, **changes: Any) -> Draft:
    return jump.AccessDecided(
        request=request, decision="granted", by=people[0], how="gate", person="ada", asset="station", people=people,
        **changes,
    )  # fmt: skip


def by_two(connection: str = "c1") -> Draft:
    return jump.SignedIn(connection=connection, person="ada", source="10.1.0.9", port=1, factors=("key", "code"))


def told(what: str, name: str, detail: str = "") -> Draft:
    return jump.AccessSet(what=what, name=name, by="root", detail=detail)


def passed(sha256: str, scan: str) -> Draft:
    return jump.AssetFilePassed(
        session="files", person="ada", asset="station", way="up", path="/tmp/f", size=1, sha256=sha256, scan=scan
    )


def mark(session: str) -> Draft:
    return jump.RecordingMarked(recording=session, session=session, size=9, sha256=A, ended=True)


def examined() -> Draft:
    return patch.FileExamined(
        number=1, product="filler-firmware", version="1", file="f", sha256=A, verdict="passed", origin="maker"
    )


def started(number: int, sha256: str) -> Draft:
    return patch.InstallStarted(
        asset="filler-plc", product="filler-firmware", version="1", number=number, sha256=sha256, way="sftp"
    )


def requested(number: int) -> Draft:
    return patch.ReleaseRequested(
        number=number, product="filler-firmware", version="1", file="f", sha256=A, by="ada", targets=1
    )


def released(number: int, *people: str) -> Draft:
    return patch.ReleaseDecided(
        number=number, product="filler-firmware", version="1", file="f", sha256=A, decision="released", by="ada",
        people=people,
    )  # fmt: skip


def installed(sha256: str) -> Draft:
    return patch.InstallEnded(
        asset="filler-plc", product="filler-firmware", version="1", number=1, sha256=sha256, state="done"
    )


def compared(differ: int) -> Draft:
    return mirror.MirrorVerified(
        conduit="boiler-history", against="source", tags=2, points=9, differ=differ, first=1, last=2
    )


def pushed(first: int) -> Draft:
    return relay.MessagesPushed(store=A, commit=1, channel="orders", first=first, count=2, size=1, root=B)


SAYS: dict[str, list[list[Draft]]] = {
    "jump/keeper": [
        # 460 days ago: a password, and an emergency of which nobody thinks any more.
        [told("person", "ada", "added"), told("password", "ada"), jump.GlassUsed(by="root", how="sealed"),
         jump.GlassUsed(by="root", how="broken", person="zoe", asset="station")],
        # 38 days ago: sessions that no keeper of ours would have let begin, or go on.
        [opened("nobody-signed-in", connection="c9"),
         by_two(), opened("nobody-granted", request=7),
         decided(8, "ada"),
         decided(9, "bob", until_ns=5), opened("too-long", request=9), ended("too-long"),
         opened("unrecorded", recorded=True), ended("unrecorded", received=9),
         opened("killed"), jump.AccessKilled(session="killed", by="bob"),
         *(opened(f"at-once-{number}") for number in range(5)),
         opened("files")],
        # Today: as it should be.
        [told("password", "ada"), ended("killed"),
         by_two("c2"), opened("now", connection="c2"), jump.AccessKilled(session="now", by="bob"), ended("now"),
         decided(10, "bob", until_ns=1 << 62),
         opened("good", connection="c2", request=10, recorded=True), ended("good", received=9),
         jump.GlassUsed(by="bob", how="reviewed"), opened("files", connection="c2"), ended("files")],
        # And more groups than anybody is in.
        [told("group", f"eve g{number}", "joined") for number in range(MAX_GROUPS + 1)],
    ],
    "jump/inner": [[passed("", "")], [passed(A, "clean")]],
    "jump/archivist": [[mark("good")]],
    "patch/keeper": [
        [requested(1), released(1, "ada"),
         patch.AdvisoryMatched(advisory="V-1", product="filler-firmware", number=1, affected=("filler-plc",)),
         patch.AdvisoryOverdue(advisory="V-1", product="filler-firmware", clock="evaluate", due="2026-01-06")],
        [examined(),
         patch.AdvisoryEvaluated(advisory="V-1", product="filler-firmware", by="ada", applies=True, complete=True)],
    ],
    "patch/installer": [[started(1, B)], [installed(B), started(1, A), installed(A)]],
    "relay/keeper": [[pushed(0), pushed(1)], [pushed(3)]],
    "mirror/keeper": [[compared(2)], [compared(0)]],
    "gate": [[PolicyLoaded(policy="f" * 64)]],
}  # fmt: skip
"""What each part may be told to say, by broker and part."""

MOUTH = """
import os, signal, sys
says = {packets!r}
audit = int(sys.argv[sys.argv.index("--audit-out") + 1])

def say(number, frame):
    for packet in says[number - signal.SIGRTMIN]:
        os.write(audit, packet)

for turn in range(len(says)):
    signal.signal(signal.SIGRTMIN + turn, say)
"""
CLOCK = """
import signal, sys, time
behind = {behind!r}
now, late = time.time_ns, [behind[0]]

def set_it(number, frame):
    late[0] = behind[number - signal.SIGRTMIN]

for turn in range(len(behind)):
    signal.signal(signal.SIGRTMIN + turn, set_it)
time.time_ns = lambda: now() - late[0]
"""
LAX = """
from cofferdam.policy import syntax
syntax.text = str
"""
"""Takes a conduit without owner and reason: whoever owns the gate takes what no gate of ours does."""
PROGRAM = """
from {program} import main
sys.exit(main())
"""
FRAME = 32
"""Drafts of one batch: it is to fit into a packet, that nothing of what the part itself says comes between."""


def packets(batches: list[list[Draft]]) -> list[list[bytes]]:
    """As a part would hand them to the auditor; of none it waits for an answer."""
    numbers = itertools.count(1 << 40)
    return [
        list(
            pack(
                [
                    msgspec.msgpack.encode(Batch(next(numbers), "", tuple(drafts[at : at + FRAME]), wants_ack=False))
                    for at in range(0, len(drafts), FRAME)
                ]
            )
        )
        for drafts in batches
    ]


class TakenLauncher(Launcher):
    """Starts them with what they are to say; in the same place and with the same descriptors as ever."""

    def _start(self, part: str, berth: Berth, arguments: list[str], fds: list[int], producer: Producer | None) -> Child:
        profile = berth.profile
        code = LAX if profile is GATE else ""
        if profile.name in SAYS:
            code += MOUTH.format(packets=packets(SAYS[profile.name]))
        elif profile.producers:
            code += CLOCK.format(behind=[days * DAY * 10**9 for days in BEHIND_DAYS])
        if code:
            options = next(at for at, word in enumerate(arguments) if word.startswith("--"))
            arguments = ["-c", code + PROGRAM.format(program=profile.program), *arguments[options:]]
        return super()._start(part, berth, arguments, fds, producer)


def main() -> int:
    policy, state = Path(sys.argv[1]), Path(sys.argv[2])
    isolation = choose(policy, state, users=Users())
    arguments = ["--policy", str(policy), "--state", str(state), "--pairs", "1", "--log-format", "text"]
    return TakenLauncher(isolation, state, CREWS, arguments, environment=[]).run()


if __name__ == "__main__":
    sys.exit(main())
