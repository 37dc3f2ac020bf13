"""What the log says that evidence needs, in one reading: results, attestations, packs, and what happened how often.

Everything that is shown is read back from the log, so that it has an index and a proof. Entries that no check asks
about are only counted.

Not here: reading files (audit.files), what it means (standing, checks).
"""

from __future__ import annotations

import itertools
import sys
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cofferdam.audit.entry import Entry, decode_entry, format_time, parse_time
from cofferdam.errors import AuditError
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.model import Result

KEPT_BEFORE = 400
"""Results of one check and subject that are kept: more than a year, once a day. What counts for an hour is found more
often: of that it is days, and of the time before when the outcome changed. Who asks how it stood then reads the log up
to that time (`until_ns`)."""
MAX_SUBJECTS = 20_000
"""Checks times subjects that are kept; beyond it a log is not what a gate writes. What is about the gate as a whole is
kept in any case."""
MAX_RESULT_BYTES = 1 << 20
"""Of memory for the results of one check, about all subjects; checks that this version does not know have it together.
Beyond it the older half of those about the same subject goes, and where that is not enough a result is kept without its
words: its outcome is known in any case."""
RESULT_BYTES = 512
"""What a result takes besides its texts."""
HAPPENINGS = 2000
"""Of one kind, the latest."""
OF_A_COLLECTOR = 100
"""Of how the export to one collector stood, the latest: one that breaks and works in turns pushes out nothing of others
nor of the witnesses."""
WITHDRAWN = "attestation-withdrawn"
"""Of these none is forgotten: what was taken back would count again once enough others came after it."""
MAX_UNKNOWN = 1000
"""Checks that this version does not know and that are told apart."""
MAX_NAMES = 40
"""Collectors that are told apart."""
WITNESS = "witness:"
"""Before a witness's name, where a collector's would stand."""
MAX_PEOPLE = 20_000
"""Who are told apart in what the jump server's keeper knows of people: twice as many as it takes."""
MAX_GROUPS = 256
"""Of one person; and of all together MAX_MEMBERS."""
MAX_MEMBERS = 100_000
MAX_SIGNED = 10_000
"""Keys that may sign, and as many attestations. The first of them: what a site had signed before somebody who owns the
gate filled its log up goes on counting, and a pack has all of them."""
MAX_SIGNED_BYTES = 32 << 20
"""What the entries of either may take together: a pack has them, and a verifier takes no file without end."""
SIGNED = ("signer-added", "attestation-made")
MAX_WITHDRAWN = 10_000
"""Withdrawals that are looked at, of MAX_SIGNED_BYTES together. What one beyond that is about counts no more, whoever
signed that: it may have been taken back, and nobody looks."""
MAX_KINDS = 500
"""Kinds that are counted."""
MAX_PROBLEMS = 100
DAY_NS = 86_400 * 10**9
VALUE_FAULTS = ("value", "step", "rate")


class _Kind(msgspec.Struct, frozen=True, gc=False):
    kind: str = ""


class _Light(msgspec.Struct, frozen=True, gc=False):
    event: _Kind
    index: int
    time: str


_light = msgspec.json.Decoder(_Light)
READ_WHOLE = frozenset(
    (
        "check-done", "signer-added", "signer-removed", "attestation-made", "attestation-withdrawn", "baseline-taken",
        "pack-made", "export-stood", "drill-done", "night-done", "proof-done",
        "policy-loaded", "severed", "restored", "half-died",
        "half-started", "gate-started", "gate-stopped", "torn-tail", "clock-jump", "log-opened", "alarm", "refused",
        "leak-probe-set", "policy-refused", "signed-in", "access-opened", "access-ended", "access-decided",
        "access-killed", "tunnel-refused", "recording-marked", "asset-file-passed", "file-examined",
        "release-requested", "release-decided", "install-started", "install-ended", "mirror-verified", "samples-lost",
        "entries-dropped", "advisory-matched", "advisory-evaluated", "advisory-overdue", "mitigation-approved",
        "patch-state-set",
        "glass-used", "sign-in-refused", "messages-pushed", "store-opened", "store-kept", "access-set",
    )
)  # fmt: skip
"""Kinds whose entries are read whole; all others are counted."""


class Tally(msgspec.Struct):
    """How many entries of a kind there are, and the last of them."""

    count: int = 0
    last: int = -1
    last_time: str = ""


class Happening(msgspec.Struct, frozen=True):
    """One entry."""

    index: int
    time_ns: int
    maker: str
    policy: str
    event: dict[str, Any]

    @property
    def at_ns(self) -> int:
        """When it happened: by the clock of then where the entry says that, else by the log's time."""
        return int(self.event.get("wall_ns", 0)) or self.time_ns  # ("0" is said where nobody knows)


class Attestation(msgspec.Struct, frozen=True):
    """What a person signed for. `withdrawn`: the index of the entry that took it back, -1 if none has; `trouble`: why
    it does not count, or ""; `wall_ns`: when by the clock, of which the log's own time is ahead after a jump."""

    index: int
    time_ns: int
    check: str
    person: str
    statement: str
    signature: str
    paper: str
    until_ns: int
    withdrawn: int = -1
    trouble: str = ""
    wall_ns: int = 0


class Signer(msgspec.Struct, frozen=True):
    """Who may sign, from one entry to another. `removed`: the index of the entry that ended it, -1 if none has."""

    person: str
    key: str
    role: str
    added: int
    removed: int = -1

    def counts_at(self, index: int) -> bool:
        return self.added < index and (self.removed < 0 or self.removed > index)


@dataclass
class History:
    """One reading of a log."""

    size: int = 0
    first: int = 0
    """The index of the first entry that is still kept."""
    first_ns: int = 0
    last_ns: int = 0
    """The log's own time: it never goes backward."""
    site: str = ""
    results: dict[tuple[str, str], list[Result]] = field(default_factory=dict)
    """By check and subject, oldest first."""
    weight: dict[str, int] = field(default_factory=dict)
    """Bytes that those of a check take; "": of all that this version does not know."""
    forgot: dict[tuple[str, str], int] = field(default_factory=dict)
    """Those of which some are not kept, and since when (the log's time) all of them are."""
    attestations: list[Attestation] = field(default_factory=list)
    signers: list[Signer] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    happened: dict[str, list[Happening]] = field(default_factory=dict)
    signing: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Where those stand in `signers` who have not been removed, by person and key."""
    might: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    """The keys of those, by person and the key's bytes (base64), and by person and "": all of that person's."""
    turns: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=dict)
    """By the same: from which entry on which of them counts, "" for none. Whoever lets thousands sign, or one again
    and again, makes no look at it longer."""
    left: dict[str, int] = field(default_factory=dict)
    """The first entry that took a key from a person."""
    stood: dict[str, list[Happening]] = field(default_factory=dict)
    """How exports stood, by collector; of witnesses together."""
    marks: dict[str, Happening] = field(default_factory=dict)
    """The last mark of each recording: there is one each ten seconds, and a long session pushes out no other."""
    passed: dict[str, Happening] = field(default_factory=dict)
    """When each file that passed did so first, by its hash: whoever brings thousands that do not pushes out none."""
    examined: dict[int, Happening] = field(default_factory=dict)
    """When that had passed which an installation took, by the entry at which it began."""
    crews: set[str] = field(default_factory=set)
    """Brokers whose parts have come up since the gate started last: one that comes up again and again pushes out no
    other."""
    passwords: dict[str, Happening] = field(default_factory=dict)
    """Who has a password at the jump server, and the entry that set it last."""
    older: set[str] = field(default_factory=set)
    """Who has signed in by a password that no entry here has set."""
    members: dict[str, frozenset[str]] = field(default_factory=dict)
    """The groups of a person there."""
    taken: dict[str, int] = field(default_factory=dict)
    """Bytes of the entries of SIGNED that count, by kind."""
    unseen: set[int] = field(default_factory=set)
    """Attestations that withdrawals are about for which there is no room."""
    strange: set[str] = field(default_factory=set)
    """Checks that this version does not know: MAX_UNKNOWN of them."""
    joined: int = 0
    """How many there are in `members`."""
    began_as: dict[str, frozenset[str]] = field(default_factory=dict)
    """The groups that the person of a session had when it began, by session."""
    signed: dict[str, Happening] = field(default_factory=dict)
    """The sign-in of a connection: of the latest."""
    began_by: dict[str, Happening] = field(default_factory=dict)
    """The sign-in of a session's connection, by session: others that sign in again and again push it out no more."""
    kept_from: dict[str, Happening] = field(default_factory=dict)
    """The first that is kept of a kind of which there were too many: who makes thousands of them fails nobody else."""
    crowded: dict[str, bool] = field(default_factory=dict)
    """Sessions that began when the sign-ins of that day were too many to be kept."""
    problems: list[str] = field(default_factory=list)
    """What this reading could not understand; a verification says more."""

    def count(self, *kinds: str) -> int:
        return sum(self.tallies[kind].count for kind in kinds if kind in self.tallies)

    def of(self, kind: str) -> list[Happening]:
        return self.happened.get(kind, [])

    def last(self, kind: str) -> Happening | None:
        found = self.of(kind)
        return found[-1] if found else None

    def brokers(self) -> frozenset[str] | None:
        """The words of the brokers whose parts have come up since the gate started last, by the names of the parts;
        None where that is so long ago that its entry has gone."""
        return frozenset(self.crews) if self.last("gate-started") is not None or not self.first else None

    def key_at(self, person: str, blob: str, index: int) -> str:
        """A key with these bytes (base64) by which this person might sign when the entry of this index was written, ""
        for none. Without bytes: any of theirs."""
        turns = self.turns.get((person, blob), [])
        at = bisect_left(turns, index, key=lambda turn: turn[0])
        return turns[at - 1][1] if at else ""

    def _turn(self, person: str, key: str, index: int, *, begins: bool) -> None:
        for blob in {"", (key.split()[1:2] or [""])[0]}:
            might = self.might.setdefault((person, blob), {})
            if begins:
                might[key] = None
            else:
                might.pop(key, None)
            self.turns.setdefault((person, blob), []).append((index, next(iter(might), "")))


def read(entries: Iterable[tuple[int, bytes]], until_ns: int | None = None) -> History:
    """Reads a log, oldest entry first. `until_ns`: no entry of after that time."""
    found = History()
    first = last = ""
    until = "" if until_ns is None else format_time(until_ns).decode()
    for index, data in entries:
        try:
            light = _light.decode(data)
        except msgspec.MsgspecError as error:
            _trouble(found, index, error)
            continue
        if until and light.time > until:
            break  # the log's time never goes backward
        if not first:
            found.first = index
        first, last = first or light.time, light.time
        kind, found.size = light.event.kind, index + 1
        tally = found.tallies.get(kind)
        if tally is None and len(found.tallies) < MAX_KINDS:
            tally = found.tallies[kind] = Tally()
        if tally is not None:
            tally.count, tally.last, tally.last_time = tally.count + 1, index, light.time
        if kind in READ_WHOLE:
            try:
                entry = decode_entry(data)
                if kind in SIGNED:
                    _room(found, kind, len(data))
                elif kind == WITHDRAWN and not _withdraws(found, int(entry.event["attestation"]), len(data)):
                    continue
                _take(found, entry, parse_time(entry.time))
            except (AuditError, KeyError, TypeError, ValueError) as error:
                _trouble(found, index, error)
    if found.stood:
        every = (one for each in found.stood.values() for one in each)
        found.happened["export-stood"] = sorted(every, key=lambda one: one.index)
    if found.passed:
        found.happened["file-examined"] = list(found.passed.values())
    if found.marks:
        found.happened["recording-marked"] = list(found.marks.values())
    if last:
        found.first_ns, found.last_ns = parse_time(first), parse_time(last)
    return found


def _trouble(found: History, index: int, error: Exception) -> None:
    if len(found.problems) < MAX_PROBLEMS:
        found.problems.append(f"entry {index} is not understood: {error}")


def _room(found: History, kind: str, length: int) -> None:
    """Raises: ValueError, where a kind of SIGNED takes too much."""
    taken = found.taken.get(kind, 0) + length
    if taken > MAX_SIGNED_BYTES:
        raise ValueError(f"entries of the kind {kind} take more than {MAX_SIGNED_BYTES:,} bytes")
    found.taken[kind] = taken


def _withdraws(found: History, about: int, length: int) -> bool:
    """Whether this is about an attestation. Raises: ValueError, where there is no room for it."""
    at = bisect_left(found.attestations, about, key=lambda one: one.index)
    if at >= len(found.attestations) or found.attestations[at].index != about:
        return False
    found.taken[WITHDRAWN] = found.taken.get(WITHDRAWN, 0) + length
    if len(found.of(WITHDRAWN)) >= MAX_WITHDRAWN or found.taken[WITHDRAWN] > MAX_SIGNED_BYTES:
        found.unseen.add(about)
        raise ValueError(f"there are more than {MAX_WITHDRAWN:,} withdrawals, or they take too much")
    return True


def _take(found: History, entry: Entry, time_ns: int) -> None:
    event, kind = entry.event, entry.kind
    found.site = entry.site
    if kind == "check-done":
        _result(found, entry, time_ns)
        return
    if kind == "signer-added":
        if len(found.signers) >= MAX_SIGNED:
            raise ValueError(f"more than {MAX_SIGNED:,} keys may sign")
        signer = Signer(str(event["person"]), str(event["key"]), str(event.get("role", "")), entry.index)
        found.signing.setdefault((signer.person, signer.key), []).append(len(found.signers))
        found.signers.append(signer)
        found._turn(signer.person, signer.key, entry.index, begins=True)
    elif kind == "signer-removed":
        person, key = str(event["person"]), str(event["key"])
        for at in (gone := found.signing.pop((person, key), [])):
            found.signers[at] = msgspec.structs.replace(found.signers[at], removed=entry.index)
        if gone:
            found.left.setdefault(person, entry.index)
            found._turn(person, key, entry.index, begins=False)
    elif kind == "attestation-made":
        if len(found.attestations) >= MAX_SIGNED:
            raise ValueError(f"there are more than {MAX_SIGNED:,} attestations")
        made = Attestation(
            entry.index, time_ns, str(event["check"]), str(event["person"]), str(event["statement"]),
            str(event["signature"]), str(event.get("paper", "")), int(event["until_ns"]),
            wall_ns=int(event.get("wall_ns", 0)) or time_ns,
        )  # fmt: skip
        found.attestations.append(made)
    elif kind == "gate-started":
        found.crews.clear()
    elif kind == "half-started" and len(found.crews) < MAX_KINDS:
        found.crews.add(str(event.get("half", "")).partition("/")[0])
    elif kind == "access-set":
        _person(found, Happening(entry.index, time_ns, entry.maker, entry.policy, event))
        return
    elif kind == "access-opened":
        found.began_as[str(event["session"])] = found.members.get(str(event["person"]), frozenset())
        if (by := found.signed.get(str(event["connection"]))) is not None:
            found.began_by[str(event["session"])] = by
        elif len(found.signed) >= 2 * HAPPENINGS:
            found.crowded[str(event["session"])] = time_ns - next(iter(found.signed.values())).time_ns < DAY_NS
        _bound(found.began_as)
        _bound(found.began_by)
        _bound(found.crowded)
    elif kind == "signed-in":
        found.signed[str(event["connection"])] = Happening(entry.index, time_ns, entry.maker, entry.policy, event)
        _bound(found.signed)
        person = str(event["person"])
        if "password" in event.get("factors", ()) and person not in found.passwords and len(found.older) < MAX_PEOPLE:
            found.older.add(person)
    elif kind == "install-started" and (by := found.passed.get(str(event["sha256"]))) is not None:
        found.examined[entry.index] = by
        _bound(found.examined)
    if kind == "refused" and not (event.get("is_write") and event.get("fault") in VALUE_FAULTS):
        return
    if kind == "half-died" and event.get("expected"):
        return
    if kind == "file-examined":
        if event.get("verdict") == "passed":
            found.passed.setdefault(
                str(event["sha256"]), Happening(entry.index, time_ns, entry.maker, entry.policy, event)
            )
            if _bound(found.passed):
                found.kept_from[kind] = next(iter(found.passed.values()))
        return
    if kind == "recording-marked":
        name = str(event["recording"])
        found.marks.pop(name, None)
        found.marks[name] = Happening(entry.index, time_ns, entry.maker, entry.policy, event)
        if _bound(found.marks):
            found.kept_from[kind] = next(iter(found.marks.values()))
        return
    here, most = found.happened.setdefault(kind, []), HAPPENINGS
    if kind == "export-stood":
        name = str(event.get("collector", ""))
        if name.startswith(WITNESS):
            name = WITNESS
        else:
            name, most = name if name in found.stood or len(found.stood) < MAX_NAMES else "", OF_A_COLLECTOR
        here = found.stood.setdefault(name, [])
    here.append(Happening(entry.index, time_ns, entry.maker, entry.policy, event))
    if len(here) > 2 * most and kind != WITHDRAWN:
        del here[:most]
        found.kept_from[kind] = here[0]


def _bound(those: dict[Any, Any]) -> bool:
    """Whether one of them was let go."""
    if len(those) <= 2 * HAPPENINGS:
        return False
    del those[next(iter(those))]
    return True


def _person(found: History, one: Happening) -> None:
    """What the keeper was told of somebody. (Of assets, keys and codes nobody asks.)"""
    what, name, detail = (str(one.event.get(member, "")) for member in ("what", "name", "detail"))
    person, _, group = name.partition(" ")
    if what not in ("password", "group", "person"):
        return
    if person not in found.passwords and person not in found.members and (
        len(found.passwords) >= MAX_PEOPLE or len(found.members) >= MAX_PEOPLE
    ):  # fmt: skip
        _trouble(found, one.index, ValueError("there are too many people"))
    elif what == "password":
        found.passwords[person] = one
        found.older.discard(person)
    elif what == "group":
        before = found.members.get(person, frozenset())
        if detail == "joined" and (len(before) >= MAX_GROUPS or found.joined >= MAX_MEMBERS):
            _trouble(found, one.index, ValueError(f"{person} is in too many groups, or all are"))
            return
        after = before | {group} if detail == "joined" else before - {group}
        found.members[person], found.joined = after, found.joined + len(after) - len(before)
    elif detail == "removed":
        found.passwords.pop(person, None)
        found.older.discard(person)
        found.joined -= len(found.members.pop(person, ()))


def _result(found: History, entry: Entry, time_ns: int) -> None:
    event = entry.event
    key = (str(event["check"]), str(event.get("subject", "")))
    known = key[0] in catalogue().checks
    if not known and key[0] not in found.strange:
        if len(found.strange) >= MAX_UNKNOWN:
            _trouble(found, entry.index, ValueError("there are too many checks that this version does not know"))
            return
        found.strange.add(key[0])
    if key not in found.results and len(found.results) >= MAX_SUBJECTS and key[1]:
        _trouble(found, entry.index, ValueError("there are too many subjects of checks"))
        return
    result = Result(
        key[0], key[1], str(event["outcome"]), str(event["says"]), tuple(map(str, event.get("facts", ()))),
        str(event["result"]), entry.index, time_ns, int(event.get("wall_ns", 0)), int(event["valid_seconds"]),
        entry.policy,
    )  # fmt: skip
    here, whose = found.results.setdefault(key, []), key[0] if known else ""
    weight = _weight(result)
    if here and found.weight.get(whose, 0) + weight > MAX_RESULT_BYTES:
        _forget(found, key, whose, (len(here) + 1) // 2, time_ns)
    if found.weight.get(whose, 0) + weight > MAX_RESULT_BYTES:
        _trouble(found, entry.index, ValueError(f"results of {key[0]} take more than {MAX_RESULT_BYTES:,} bytes"))
        says = f"(left out, since results of this check say too much: it is in entry {entry.index})"
        result = msgspec.structs.replace(result, says=says, facts=())
        weight = _weight(result)
    here.append(result)
    found.weight[whose] = found.weight.get(whose, 0) + weight
    if len(here) > 2 * KEPT_BEFORE:
        turned = [one for before, one in itertools.pairwise(here[:KEPT_BEFORE]) if one.outcome != before.outcome]
        left = [here[0], *turned[-KEPT_BEFORE // 2 :]]
        _forget(found, key, whose, KEPT_BEFORE, time_ns)
        here[:0] = left
        found.weight[whose] += sum(map(_weight, left))


def _weight(result: Result) -> int:
    texts = (result.check, result.subject, result.says, *result.facts)
    return RESULT_BYTES + sum(map(sys.getsizeof, texts))


def _forget(found: History, key: tuple[str, str], whose: str, count: int, now_ns: int) -> None:
    """Lets go of the oldest."""
    here = found.results[key]
    found.weight[whose] -= sum(map(_weight, here[:count]))
    del here[:count]
    found.forgot[key] = here[0].time_ns if here else now_ns
