"""The witness's crew: told whom to visit at birth, given the log's heads as it asks for them, and heard.

The gate believes nothing of it: a head counts as kept when the note bears the log's signature and, where the keeper is
one that signs, its co-signature. Who says no is an alarm at once, who cannot be reached after some minutes. How a
keeper stands is an entry when that changes, and once an hour, with the note as it is kept.

Not here: its life (crew.supervisor), the visits (evidence.witness_ways).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from cofferdam.audit.checkpoint import VerifierKey, open_checkpoint
from cofferdam.audit.cosignature import WitnessKey, signed_at
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.evidence import ExportStood
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import AuditError, CrossingError, GateError
from cofferdam.evidence.witness import COLLECTOR
from cofferdam.evidence.witness_records import (
    FROM_WITNESS,
    TO_WITNESS,
    FromWitness,
    Head,
    Keepers,
    Kept,
    NotKept,
    StopWitness,
    ToWitness,
    Want,
    WitnessReady,
)
from cofferdam.gate.context import Context
from cofferdam.gate.crew.auditor import Auditor
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.supervisor import Child, Supervisor
from cofferdam.gate.secrets import load_secrets
from cofferdam.policy.rows import Witness

SFTP_KEY: Final = "sftp-key"
"""The private key for SFTP: STATE/secrets/witness/witness/sftp-key."""
HEAD_SECONDS: Final = 10.0
MISSES: Final = 3
"""Visits in a row that may come to nothing, a minute each, before that is an alarm."""
AGAIN_SECONDS: Final = 3600.0
STOP_SECONDS: Final = 1.0
Tell = Callable[[ExportStood], None]
"""Raises and clears the alarm of a keeper."""


class WitnessPart(Child[ToWitness, FromWitness]):
    """The process."""

    def __init__(self, owner: Witnessing, gate: Context, born: Born) -> None:
        self._owner = owner
        self.ready: WitnessReady | None = None
        super().__init__(gate.reactor, "witness", born, FROM_WITNESS, TO_WITNESS, owner.violation)

    @property
    def is_ready(self) -> bool:
        return self.ready is not None

    def take(self, record: FromWitness) -> None:
        if isinstance(record, WitnessReady):
            self.ready = record
        else:
            self._owner.heard(self, record)


class Witnesses:
    """The crew that the policy in force asks for, or none."""

    def __init__(self, gate: Context, auditor: Auditor, tell: Tell) -> None:
        self._gate, self._auditor, self._tell = gate, auditor, tell
        self._crew: Witnessing | None = None

    async def take(self, keepers: Sequence[Witness]) -> None:
        """These are to have the log's heads from now on."""
        crew = self._crew
        if tuple(keepers) == (crew.keepers if crew is not None else ()):
            return
        await self.stop()
        if crew is not None:
            crew.gone()
        if keepers:
            self._crew = Witnessing(self._gate, self._auditor, self._tell, keepers)
            self._gate.spawn(self._crew.run())

    async def stop(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            await crew.stop(STOP_SECONDS)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        return self._crew.facts if self._crew is not None else ()


class Stand:
    """How one keeper stands. `told`: what the log has of it, and when it was told (monotonic, s)."""

    def __init__(self) -> None:
        self.misses = 0
        self.asked = False
        self.told: tuple[bool, str] | None = None
        self.told_at = 0.0


class Witnessing(Supervisor[WitnessPart]):
    """Supervises one part after the other, for one list of keepers."""

    kind = "witness"
    silence_seconds = 60.0
    """What it runs on is libraries, and a key exchange takes its time on a busy machine."""

    def __init__(self, gate: Context, auditor: Auditor, tell: Tell, keepers: Sequence[Witness]) -> None:
        super().__init__(gate, "witness")
        self._auditor, self._tell_gate = auditor, tell
        self.keepers = tuple(keepers)
        self._stands = {one.name: Stand() for one in keepers}
        self._keys = {one.name: WitnessKey.parse(one.key) if one.way != "sftp" else None for one in keepers}

    def orders(self) -> Sequence[PartOrder]:
        return [PartOrder("witness")]

    def adopt(self, born: Born) -> WitnessPart:
        return WitnessPart(self, self._gate, born)

    async def configure(self) -> None:
        secrets = load_secrets(self._gate.options.state, "witness", "witness", (SFTP_KEY,))
        secret = next((one.value for one in secrets), b"")
        for stand in self._stands.values():
            stand.asked = False
        for part in self.parts:
            part.send(Keepers(self._auditor.key, self.keepers, secret))

    def ask_to_stop(self, part: WitnessPart, seconds: float) -> None:
        part.send(StopWitness())

    def on_end(self, part: WitnessPart, reason: str, expected: bool) -> None:
        if not expected:
            for name in self._stands:
                self._missed(name, f"the witness's process ended: {reason or 'no reason'}")

    def failure(self, reason: str, hint: str) -> GateError:
        return GateError(f"the witness does not start: {reason}", hint=hint)

    def violation(self, part: WitnessPart, detail: str) -> None:
        self._gate.log.error("witness-violation", detail=detail)
        self.kill_part(part)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """The separation that it has put itself under."""
        return next((part.ready.facts for part in self.parts if part.ready is not None), ())

    def gone(self) -> None:
        """The policy names other keepers from here on: what these have said is over."""
        for name in self._stands:
            self._gate.alarm(f"export-{COLLECTOR}{name}", "")

    # --- what it says -------------------------------------------------------------------------------------------

    def heard(self, part: WitnessPart, record: FromWitness) -> None:
        """Raises: CrossingError, where an honest part would not say that."""
        name = getattr(record, "witness", "")
        if name and name not in self._stands:
            raise CrossingError(f"it speaks of the witness {name!r}, which there is not")
        match record:
            case Want(_, old):
                if not self._stands[name].asked:  # it asks one thing at a time
                    self._stands[name].asked = True
                    self._spawn(part, name, old)
            case Kept(_, size, note):
                self._judge(name, size, note)
                self._stands[name].misses = 0
                self._tell(name, True, size, "", note.decode())
            case NotKept(_, True, detail):
                self._tell(name, False, 0, clip(detail))
            case NotKept(_, False, detail):
                self._missed(name, detail)

    def _spawn(self, part: WitnessPart, name: str, old: int) -> None:
        async def answer() -> None:
            found = await self._auditor.head(old, HEAD_SECONDS)
            self._stands[name].asked = False
            if found is None:
                part.send(Head(name, old, b"", (), "the auditor did not answer in time"))
            else:
                part.send(Head(name, old, found.note, found.hashes, found.why[:1024]))

        self._gate.spawn(answer())

    def _judge(self, name: str, size: int, note: bytes) -> None:
        """Raises: CrossingError, where the note is not what the part says."""
        key = self._keys[name]
        try:
            if open_checkpoint(note, VerifierKey.parse(self._auditor.key)).size != size:
                raise AuditError("the head is of another size")
            if key is not None and signed_at(note, key) < 0:
                raise AuditError("the note has no co-signature")
        except AuditError as error:
            raise CrossingError(f"what it says that {name} keeps is not that: {error}") from None

    def _missed(self, name: str, detail: str) -> None:
        stand = self._stands[name]
        stand.misses += 1
        if stand.misses >= MISSES and (stand.told is None or stand.told[0]):
            self._tell(name, False, 0, clip(f"{detail} ({stand.misses} times in a row)"))

    def _tell(self, name: str, working: bool, size: int, detail: str, note: str = "") -> None:
        stand, now = self._stands[name], time.monotonic()
        if stand.told == (working, detail) and now - stand.told_at < AGAIN_SECONDS:
            return
        stand.told, stand.told_at = (working, detail), now
        event = ExportStood(
            collector=f"{COLLECTOR}{name}", next=size, working=working, detail=detail, note=note,
        )  # fmt: skip
        self._gate.note(event)
        self._tell_gate(event)
