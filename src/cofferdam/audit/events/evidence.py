"""Events of the evidence: what checks found, what people signed for, packs that were made, how exports stood."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cofferdam.audit.events.base import Count, Event, Hash, Name, Text, WallNs
from cofferdam.audit.events.lines import Line, Said

STATEMENT, SIGNATURE = 4096, 4096
"""Greatest lengths in characters: of what a person signs, of an SSH signature in its armour."""
FACTS = 12
"""Facts of a check that an entry holds."""
Facts = Annotated[tuple[Text, ...], Meta(max_length=FACTS)]
Statement = Annotated[str, Meta(max_length=STATEMENT)]
Signature = Annotated[str, Meta(max_length=SIGNATURE)]


class CheckDone(Event, frozen=True, kw_only=True):
    """A check of the catalogue had this outcome about `subject` ("": the gate as a whole). `result` is the hash of
    check, subject and outcome: the same as long as nothing changed. `valid_seconds`: how long it counts. Written when
    the outcome changes and once a day. "not covered": something had been found, and the policy has nothing
    of the kind any more."""

    check: Name
    outcome: Literal["proved", "tested", "observed", "failed", "not covered"]
    says: Text
    result: Hash
    valid_seconds: Count
    subject: Name = ""
    facts: Facts = ()
    by: Name = ""


class SignerAdded(Event, frozen=True, kw_only=True):
    """From here on `person` may sign attestations with this SSH key. `by`: who said so."""

    person: Name
    key: Annotated[str, Meta(max_length=2048)]
    role: Name = ""
    by: Name = ""


class SignerRemoved(Event, frozen=True, kw_only=True):
    """From here on this key signs nothing any more; what it signed before stays."""

    person: Name
    key: Annotated[str, Meta(max_length=2048)]
    by: Name = ""


class AttestationMade(Event, frozen=True, kw_only=True):
    """A person signed for a check. `statement` is the signed document (canonical JSON), `signature` its SSH signature,
    `paper` the SHA-256 of the paper that it is about, which lies in the state directory ("": none). `until_ns` is when
    it ends."""

    check: Name
    person: Name
    statement: Statement
    signature: Signature
    paper: Hash = ""
    until_ns: WallNs


class AttestationWithdrawn(Event, frozen=True, kw_only=True):
    """An attestation, by the index of its entry, counts no more. `statement` and `signature` as above."""

    attestation: Count
    person: Name
    statement: Statement
    signature: Signature


class BaselineTaken(Event, frozen=True, kw_only=True):
    """The gate's configuration as one document, which lies in the state directory by this hash. Written when it is
    another than before. `approved` where a person has said that it is as it should be, until a later one, and has
    signed `statement` for it."""

    baseline: Hash
    approved: bool = False
    by: Name = ""
    person: Name = ""
    statement: Statement = ""
    signature: Signature = ""


class PackMade(Event, frozen=True, kw_only=True):
    """A pack of evidence was made, over the log up to `size` entries; `pack` is its SHA-256."""

    framework: Name
    pack: Hash
    size: Count
    since: Name = ""
    until: Name = ""
    by: Name = ""


class ExportStood(Event, frozen=True, kw_only=True):
    """Where the export to a collector stood: entries up to `next` (not included) have been given over. Written when it
    begins to work, when it ceases to, and once an hour. Of a witness (`witness:NAME`): it keeps the head of `next`
    entries, as in `note`, with its co-signature where it is one that signs."""

    collector: Name
    next: Count
    working: bool
    detail: Text = ""
    note: Annotated[str, Meta(max_length=4096)] = ""


class DrillDone(Event, frozen=True, kw_only=True):
    """A drill was held, by the name of what it exercised ("island", "restore", "kill", ...)."""

    drill: Name
    says: Text
    by: Name = ""


class NightDone(Event, frozen=True, kw_only=True):
    """The nightly work is over: proof, self-test, checks. `done`: what was done, with the words of what it found
    (`prove: nothing wrong`); `failed`: what could not be done, and why. What was found has entries of its own before
    this one."""

    done: Facts = ()
    failed: Facts = ()
    seconds: Count = 0


Draft = (
    CheckDone
    | SignerAdded
    | SignerRemoved
    | AttestationMade
    | AttestationWithdrawn
    | BaselineTaken
    | PackMade
    | ExportStood
    | DrillDone
    | NightDone
)
Told = (
    SignerAdded
    | SignerRemoved
    | AttestationMade
    | AttestationWithdrawn
    | BaselineTaken
    | PackMade
    | ExportStood
    | DrillDone
)
"""What an operator's verbs may have the gate record; findings of checks it takes another way."""
GATE: tuple[type[Event], ...] = Draft.__args__
"""The gate alone: it takes them from root and from its own user by the control socket."""


def _check(event: Said) -> str:
    about = f" of {event['subject']}" if event.get("subject") else ""
    return f"{event.get('check')}{about}: {event.get('outcome')}: {event.get('says')}"


def _stood(event: Said) -> str:
    how = "works" if event.get("working") else f"stands still: {event.get('detail')}"
    return f"to {event.get('collector')}: {how}; next entry {event.get('next')}"


LINES: dict[str, Line] = {
    "check-done": _check,
    "signer-added": lambda e: f"{e.get('person')} ({e.get('role') or 'no role'}) may sign, by {e.get('by') or '?'}",
    "signer-removed": lambda e: f"{e.get('person')} signs no more with {str(e.get('key'))[:40]}…",
    "attestation-made": lambda e: f"{e.get('person')} signed for {e.get('check')}",
    "attestation-withdrawn": lambda e: f"{e.get('person')} withdrew entry {e.get('attestation')}",
    "baseline-taken": lambda e: f"{str(e.get('baseline'))[:16]}{', approved' if e.get('approved') else ''}",
    "pack-made": lambda e: f"{e.get('framework')}, {e.get('size')} entries, {str(e.get('pack'))[:16]}",
    "export-stood": _stood,
    "night-done": lambda e: "; ".join(map(str, (*(e.get("failed") or ()), *(e.get("done") or ())))),
    "drill-done": lambda e: f"{e.get('drill')}: {e.get('says')}",
}
