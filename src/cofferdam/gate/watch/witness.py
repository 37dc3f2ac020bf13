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
from cofferdam.evidence.checks.logs import OUT
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
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.auditor import Auditor
from cofferdam.gate.crew.hearing import Bounded
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
ASKS_A_MINUTE: Final = 40
"""Heads that the part may ask for, for one keeper: a visit that has to begin again and again takes that many. Each is
the auditor's work."""
CHANGE_SECONDS: Final = 20.0
"""Between two words in the log on one keeper: visits are further apart, and a part that was taken over cannot fill
it."""
STOP_SECONDS: Final = 1.0
Tell = Callable[[ExportStood], None]
"""Raises and clears the alarm of a keeper."""


def secret_of(gate: Context) -> bytes:
    """The private key for SFTP, b"" if there is none. Raises: GateError."""
    return next((one.value for one in load_secrets(gate.options.state, "witness", "witness", (SFTP_KEY,))), b"")


class WitnessPart(Child[ToWitness, FromWitness]):
    """The process."""

    def __init__(self, owner: Witnessing, gate: Context, born: Born) -> None:
        self._owner = owner
        self.ready: WitnessReady | None = None
        super().__init__(gate.reactor, "witness", born, Bounded(FROM_WITNESS), TO_WITNESS, owner.violation)

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
        if crew is None and not keepers:
            return
        if crew is not None and tuple(keepers) == crew.keepers and not crew.has_other_secret():
            return
        await self.stop()
        if crew is not None:
            crew.gone(keepers)
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
    """How one keeper stands. `told`: what the log has of it, and when it was told (monotonic, s). `size`: of the head
    that it was given last; `asks` heads were asked for since `since`, of which one is under way if `asked`."""

    def __init__(self) -> None:
        self.misses = 0
        self.size = 0
        self.asked = False
        self.asks = 0
        self.since = 0.0
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
        self.secret = b""
        self._stands = {one.name: Stand() for one in keepers}
        self._keys = {one.name: WitnessKey.parse(one.key) if one.way != "sftp" else None for one in keepers}

    def orders(self) -> Sequence[PartOrder]:
        return [PartOrder("witness")]

    def adopt(self, born: Born) -> WitnessPart:
        return WitnessPart(self, self._gate, born)

    async def configure(self) -> None:
        self.secret = secret_of(self._gate)
        for stand in self._stands.values():
            stand.asked = False
        for part in self.parts:
            part.send(Keepers(self._auditor.key, self.keepers, self.secret))

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

    def has_other_secret(self) -> bool:
        """Whether the key for SFTP is another by now; one that cannot be read is (its next life says why)."""
        try:
            return self.secret != secret_of(self._gate)
        except GateError:
            return True

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """The separation that it has put itself under."""
        return next((part.ready.facts for part in self.parts if part.ready is not None), ())

    def gone(self, left: Sequence[Witness]) -> None:
        """The policy names these from here on: what others have said is over."""
        for name in self._stands.keys() - {one.name for one in left}:
            self._tell_gate(
                ExportStood(collector=f"{COLLECTOR}{name}", next=0, working=True, detail=OUT, wall_ns=now_ns())
            )
            self._gate.note(
                ExportStood(collector=f"{COLLECTOR}{name}", next=0, working=True, detail=OUT, wall_ns=now_ns())
            )

    # --- what it says -------------------------------------------------------------------------------------------

    def heard(self, part: WitnessPart, record: FromWitness) -> None:
        """Raises: CrossingError, where an honest part would not say that."""
        name = getattr(record, "witness", "")
        if name and name not in self._stands:
            raise CrossingError(f"it speaks of the witness {name!r}, which there is not")
        match record:
            case Want(_, old):
                if self._may_ask(name):
                    self._spawn(part, name, old)
            case Kept(_, size, note):
                self._judge(name, size, note)
                self._stands[name].misses, self._stands[name].size = 0, size
                self._tell(name, True, size, "", note.decode())
            case NotKept(_, True, detail):
                self._tell(name, False, 0, clip(detail))
            case NotKept(_, False, detail):
                self._missed(name, detail)

    def _may_ask(self, name: str) -> bool:
        """One thing at a time, and so many in a minute; an honest part asks no more."""
        stand, now = self._stands[name], time.monotonic()
        if now - stand.since > 60.0:
            stand.since, stand.asks = now, 0
        if stand.asked or stand.asks >= ASKS_A_MINUTE:
            return False
        stand.asked, stand.asks = True, stand.asks + 1
        return True

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
            if size < self._stands[name].size:
                raise AuditError("the head is older than the one before")
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
        again = AGAIN_SECONDS if stand.told == (working, detail) else CHANGE_SECONDS
        if stand.told is not None and now - stand.told_at < again:
            return
        stand.told, stand.told_at = (working, detail), now
        event = ExportStood(
            collector=f"{COLLECTOR}{name}", next=size, working=working, detail=detail, note=note,
            wall_ns=now_ns(),
        )  # fmt: skip
        self._gate.note(event)
        self._tell_gate(event)
