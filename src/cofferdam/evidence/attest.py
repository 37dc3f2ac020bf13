"""What a person signs for: the statement, who may sign, and whether an attestation in the log is good.

A statement is canonical JSON with everything in it that it is about: check, text, person, the paper's hash, until when,
the policy in force and the size of the log. It stands whole in the entry, with its signature: the log alone shows it.

Not here: the signature's form (sshsig), what an attestation carries (standing).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from cofferdam.audit.events.evidence import STATEMENT
from cofferdam.errors import CofferdamError
from cofferdam.evidence import sshsig
from cofferdam.evidence.history import Attestation, History
from cofferdam.evidence.model import Catalogue

FORMAT, WITHDRAWAL = "cofferdam-attestation-v1", "cofferdam-withdrawal-v1"
APPROVAL = "cofferdam-baseline-approval-v1"
TEXT = 1500
"""The longest text that a person signs, in characters."""
EXTRA = frozenset(("patch-evaluation", "patch-plan", "vulnerability"))
"""What can be attested though it is no check: duties that only a clock knows."""
MAX_PAPER_BYTES = 64 << 20


def statement(
    *, site: str, check: str, text: str, person: str, role: str, made_ns: int, until_ns: int, policy: str, entries: int,
    paper: str = "", paper_name: str = "",
) -> str:  # fmt: skip
    """What is to be signed. Raises: CofferdamError, where it would be too long or empty."""
    if not text.strip():
        raise CofferdamError("an attestation says something", hint="--text: what was done or seen, in a sentence")
    if len(text) > TEXT:
        raise CofferdamError(f"the text has {len(text)} characters, and at most {TEXT} can be signed")
    if until_ns <= made_ns:
        raise CofferdamError("the attestation would end before it begins", hint="--until: a day that is to come")
    said: dict[str, Any] = {
        "format": FORMAT, "site": site, "check": check, "text": text, "person": person, "role": role,
        "made": _when(made_ns), "until": _when(until_ns), "policy": policy, "entries": entries,
    }  # fmt: skip
    if paper:
        said["paper"] = {"name": paper_name[:200], "sha256": paper}
    return canonical(said)


class Brought(NamedTuple):
    """What somebody signed elsewhere. `paper`: the hash of the paper that it is about, ""; `until_ns` when it ends."""

    person: str
    paper: str
    until_ns: int


def brought(text: str, check: str, history: History) -> Brought:
    """Reads a statement that was printed earlier and signed elsewhere. Raises: CofferdamError, where it is not of this
    site, for this check, or of this log so far."""
    said, why = _read(text)
    if said is None:
        raise CofferdamError(f"the statement cannot be brought: {why}")
    wanted = {"format": FORMAT, "site": history.site, "check": check}
    wrong = [f"{name} is {said.get(name)!r}"[:120] for name, value in wanted.items() if said.get(name) != value]
    entries, until, paper = said.get("entries"), said.get("until"), said.get("paper")
    if not isinstance(entries, int) or not 0 <= entries <= history.size:
        wrong.append("it is of another log")
    try:
        until_ns = int(datetime.strptime(str(until), "%Y-%m-%dT%H:%M:%S%z").timestamp()) * 1_000_000_000
    except ValueError:
        until_ns = 0
        wrong.append("it does not say until when")
    if text != canonical(said):
        wrong.append("it is not as it was printed")
    wrong += [f"entry {one.index} has it already" for one in history.attestations if one.statement == text][:1]
    if wrong:
        raise CofferdamError(
            f"the statement is not what is to be signed here: {'; '.join(wrong)}",
            hint="`--print` shows it; the file that was signed is brought unchanged",
        )
    return Brought(str(said.get("person")), str(paper.get("sha256")) if isinstance(paper, dict) else "", until_ns)


def withdrawal(*, site: str, attestation: int, text: str, person: str, made_ns: int) -> str:
    """What is signed to take one back."""
    return canonical(
        {"format": WITHDRAWAL, "site": site, "attestation": attestation, "text": text[:TEXT], "person": person,
         "made": _when(made_ns)}
    )  # fmt: skip


def approval(*, site: str, baseline: str, text: str, person: str, role: str, made_ns: int) -> str:
    """What is signed to approve a baseline, by its hash."""
    return canonical(
        {"format": APPROVAL, "site": site, "baseline": baseline, "text": text[:TEXT], "person": person, "role": role,
         "made": _when(made_ns)}
    )  # fmt: skip


def brought_approval(text: str, baseline: str, history: History) -> str:
    """As `brought`, for an approval; who signs. Raises: CofferdamError, where the configuration is another by now."""
    said, why = _read(text)
    wanted = {"format": APPROVAL, "site": history.site, "baseline": baseline}
    if said is None or any(said.get(name) != value for name, value in wanted.items()) or text != canonical(said):
        raise CofferdamError(
            f"the statement approves another baseline than the present one: {why or 'it was made earlier, or changed'}",
            hint="`cofferdam evidence baseline --approve --print` shows what is to be signed now",
        )
    return str(said.get("person"))


class Approved(NamedTuple):
    """A baseline that was approved by `entry`. `trouble`: why that does not count, or ""."""

    entry: int
    time_ns: int
    baseline: str
    person: str
    trouble: str


def approvals(history: History) -> tuple[Approved, ...]:
    """Every approval of a baseline that the log has, oldest first, with what is wrong with it."""
    found = []
    for one in history.of("baseline-taken"):
        if not one.event.get("approved"):
            continue
        digest, person = str(one.event.get("baseline")), str(one.event.get("person", ""))
        text = str(one.event.get("statement", ""))
        said, why = _read(text) if text else (None, "nobody has signed it")
        if said is not None:
            wanted = {"format": APPROVAL, "site": history.site, "baseline": digest, "person": person}
            wrong = [name for name, value in wanted.items() if said.get(name) != value]
            why = f"its entry and its statement differ in {', '.join(wrong)}" if wrong else _signed(
                person, text, str(one.event.get("signature", "")), history, one.index
            )  # fmt: skip
        found.append(Approved(one.index, one.time_ns, digest, person, why))
    return tuple(found)


def brought_back(text: str, attestation: int, person: str, history: History) -> None:
    """As `brought`, for a withdrawal."""
    said, why = _read(text)
    wanted = {"format": WITHDRAWAL, "site": history.site, "attestation": attestation, "person": person}
    if said is None or any(said.get(name) != value for name, value in wanted.items()):
        raise CofferdamError(f"the statement takes back something else: {why or 'it is not what --print printed'}")


def canonical(said: dict[str, Any]) -> str:
    """The bytes that are signed. Raises: CofferdamError, where they are too many for an entry."""
    made = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(made) > STATEMENT:
        raise CofferdamError(f"the statement has {len(made)} characters, and an entry holds {STATEMENT}")
    return made


def _when(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def may_be_attested(catalogue: Catalogue, name: str) -> bool:
    return name in catalogue.checks or name in EXTRA


# --- what the log has -------------------------------------------------------------------------------------------


def verified(history: History) -> Iterator[Attestation]:
    """Each attestation, with what is wrong with it, and withdrawn where a good withdrawal says so."""
    withdrawn = dict(_withdrawals(history))
    said: dict[str, int] = {}
    for one in history.attestations:
        # A signature is for one entry: brought again, a statement would outlive its withdrawal.
        first = said.setdefault(one.statement, one.index)
        if first != one.index:
            trouble = f"its statement repeats that of entry {first}"
        elif one.index in history.unseen:
            trouble = "so much says that it was withdrawn that nobody looks at all of it"
        else:
            trouble = _trouble(one, history)
        yield msgspec.structs.replace(one, trouble=trouble, withdrawn=withdrawn.get(one.index, one.withdrawn))


def _trouble(one: Attestation, history: History) -> str:
    said, why = _read(one.statement)
    if said is None:
        return why
    wanted = {"format": FORMAT, "site": history.site, "check": one.check, "person": one.person}
    wrong = [name for name, value in wanted.items() if said.get(name) != value]
    if said.get("until") != _when(one.until_ns):
        wrong.append("until")
    paper = said.get("paper")
    if (paper.get("sha256") if isinstance(paper, dict) else "") != one.paper:
        wrong.append("paper")
    if wrong:
        return f"its entry and its statement differ in {', '.join(wrong)}"
    return _signed(one.person, one.statement, one.signature, history, one.index)


def _signed(person: str, text: str, signature: str, history: History, index: int) -> str:
    """Why the signature does not count, or ""."""
    if not history.key_at(person, "", index):
        removed = history.left.get(person, index) < index
        return "its key had been removed" if removed else f"{person} is nobody who may sign"
    try:
        # Only by the key that the signature names: with thousands of others on record it would never end.
        if key := history.key_at(person, sshsig.by(signature), index):
            sshsig.verify(signature, text.encode(), key)
            return ""
    except CofferdamError as error:
        return str(error)
    return "a signature by another key"


def _withdrawals(history: History) -> Iterator[tuple[int, int]]:
    """(attestation, entry) of each withdrawal that is good."""
    for one in history.of("attestation-withdrawn"):
        event = one.event
        said, _ = _read(str(event.get("statement", "")))
        if said is None or said.get("format") != WITHDRAWAL or said.get("site") != history.site:
            continue
        if said.get("attestation") != event.get("attestation") or said.get("person") != event.get("person"):
            continue
        if int(event["attestation"]) >= one.index:
            continue  # signed for whatever would stand there: who has been removed since takes nothing back
        if not _signed(str(event["person"]), str(event["statement"]), str(event["signature"]), history, one.index):
            yield int(event["attestation"]), one.index


def _read(text: str) -> tuple[dict[str, Any] | None, str]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):  # an entry holds what a gate in an intruder's hands has said
        return None, "its statement is no JSON"
    return (said, "") if isinstance(said, dict) else (None, "its statement is no record")


def facts(one: Attestation) -> tuple[str, ...]:
    """What an attestation says, for people: its text, who in which role until when, what it is bound to, the paper."""
    said, _ = _read(one.statement)
    if said is None:
        return (one.statement[:500],)
    role, paper = said.get("role"), said.get("paper")
    lines = [str(said.get("text")), f"{said.get('person')}{f', {role}' if role else ''}, {said.get('made')}, counts "
             f"until {said.get('until')}"]  # fmt: skip
    if isinstance(said.get("entries"), int):
        lines.append(f"about the log up to its entry {said['entries'] - 1}, and the policy {said.get('policy')}")
    if isinstance(paper, dict):
        lines.append(f"about the paper {paper.get('name')}, SHA-256 {paper.get('sha256')}")
    return tuple(" ".join(text.split())[:500] for text in lines)


def about(one: Attestation, name: str) -> Any:
    """A member of the statement; None where there is none."""
    said, _ = _read(one.statement)
    return said.get(name) if said is not None else None
