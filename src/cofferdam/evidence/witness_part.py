"""The witness's part: visits those who keep the log's heads, each once a minute, for as long as the gate runs.

It stands in the host's network, as a user of its own, and sees no file: what it gives away comes from the gate, head by
head, and it holds the newest that each keeper was given, so that it gives away none that does not go on from it. It
puts its filter on when it has been told whom to visit, before anybody is dialled.

Not here: a visit (witness_ways), alarms and entries (gate.watch.witness).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from typing import Final

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.brokers.kit.aio import PartLoop
from cofferdam.crossing.lone_part import WORDS, LonePart, facts_of, run
from cofferdam.crossing.loops import LoopReactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import WITNESS
from cofferdam.errors import AuditError, CofferdamError
from cofferdam.evidence.witness_records import (
    FROM_WITNESS,
    TO_WITNESS,
    Alive,
    FromWitness,
    Head,
    Keepers,
    Kept,
    NotKept,
    ToWitness,
    Want,
    WitnessReady,
)
from cofferdam.evidence.witness_ways import Ask, Keeper, keeper

ALIVE_SECONDS: Final = 5.0
HEAD_SECONDS: Final = 15.0
"""For the gate to answer; then the visit is over."""


class WitnessProcess(LonePart[ToWitness, FromWitness]):
    """The process."""

    name, task = "witness", Keepers

    def __init__(self, control_in: int, control_out: int) -> None:
        self._asked: dict[str, asyncio.Future[Head]] = {}
        super().__init__(LoopReactor(PartLoop()), control_in, control_out, TO_WITNESS, FROM_WITNESS)

    def heard(self, record: ToWitness) -> bool:
        if not isinstance(record, Head):
            return False
        asked = self._asked.pop(record.witness, None)
        if asked is not None and not asked.done():
            asked.set_result(record)
        return True

    def begin(self, told: Keepers) -> None:
        if any(one.way == "sftp" for one in told.witnesses):
            _load_ssh()
        facts = sandbox.confine(WITNESS.parts["witness"])
        log = VerifierKey.parse(told.log)
        for one in told.witnesses:
            self._reactor.start(self._visits(keeper(one, log, self._asking(one.name), told.secret), told.seconds))
        self._gate.send(WitnessReady(facts_of(facts)))
        self._alive()

    def _alive(self) -> None:
        self._gate.send(Alive())
        self._reactor.call_in(ALIVE_SECONDS, self._alive)

    def _asking(self, name: str) -> Ask:
        async def ask(old: int) -> Head:
            future: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
            self._asked[name] = future
            self._gate.send(Want(name, old))
            async with asyncio.timeout(HEAD_SECONDS):
                found = await future
            if found.old != old:
                raise CofferdamError("the gate answered another question")
            return found

        return ask

    async def _visits(self, one: Keeper, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                size, note = await one.visit()
            except AuditError as wrong:
                self._gate.send(NotKept(one.to.name, True, str(wrong)[:WORDS]))
            except CofferdamError as trouble:
                self._gate.send(NotKept(one.to.name, False, str(trouble)[:WORDS]))
            else:
                self._gate.send(Kept(one.to.name, size, note))
            await asyncio.sleep(max(seconds / 10, began + seconds - loop.time()))


def _load_ssh() -> None:
    """All that the library would import or ask the machine for later, when nothing can be opened any more."""
    os.environ["LOGNAME"] = "cofferdam"
    os.environ["HOME"] = "/nonexistent"
    logging.disable(logging.CRITICAL)
    for name in ("asyncssh", "encodings.ascii", "encodings.idna", "stringprep", "asyncio.streams",
                 "cryptography.hazmat.backends.openssl.backend"):  # fmt: skip
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(run("witness", lambda args: WitnessProcess(args.control_in, args.control_out)))
