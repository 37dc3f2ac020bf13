"""Part (a), crossings: the parts of a crew share the pipes that their kind declares, each one way, and nothing else;
what parts of two crews share are the pipes of a seam, on one side; every other pipe of a part leads to the gate or to
the auditor.

Not here: what a part holds besides (processes).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from cofferdam.proof import processes, reading
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Part, Subject

Json = dict[str, Any]
PART = "structure"


def state(subject: Subject, found: Mapping[Part, Json], out: Statements) -> None:
    """`found`: what the kernel says of each part."""
    for crew in sorted({part.crew for part in subject.parts}):
        parts = {part.part: facts for part, facts in found.items() if part.crew == crew}
        kind = next(part.kind for part in subject.parts if part.crew == crew)
        declared = subject.crews[kind]
        missing = [name for name in declared.parts if name not in parts and name not in declared.optional]
        if missing or not parts:
            out.say(PART, f"{crew}: crossing", "failed", f"the crew has no process {missing[0] if missing else ''}")
            continue
        held = {name: _ways(facts) for name, facts in parts.items()}
        wrong, good = _between(declared.joints(held.keys()), held, parts)
        if len(parts) > 1:
            out.check(PART, f"{crew}: crossing", "its parts share the one-way pipes that are declared, and no socket",
                      wrong, good)  # fmt: skip
            _apart(subject, crew, parts, out)
        seams = _seams(subject, crew, found, out)
        _ends(subject, crew, {part: facts for part, facts in found.items() if part.crew == crew}, seams, out)


def _ways(facts: Json) -> dict[str, int]:
    """The pipes that a process has beyond its standard streams, and by which way."""
    return {name: file["flags"] for name, file in processes.pipes(facts).items() if file["fd"] > 2}


def _between(
    wanted: Collection[tuple[str, str]], held: Mapping[str, Mapping[str, int]], parts: Mapping[str, Json]
) -> tuple[list[str], list[str]]:
    """What is wrong with the pipes that parts share, and what is as it should be."""
    wrong, good = [], []
    names = sorted(held)
    there = []
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            for name in sorted(held[one].keys() & held[other].keys()):
                # Standard streams may be one pipe for all (a terminal multiplexer, a test): nobody reads there.
                ways = {one: held[one][name] & os.O_ACCMODE, other: held[other][name] & os.O_ACCMODE}
                writer = next((part for part, way in ways.items() if way == os.O_WRONLY), "")
                reader = next((part for part, way in ways.items() if way == os.O_RDONLY), "")
                if not writer or not reader:
                    wrong.append(f"{name} of {one} and {other} is not one-way")
                    continue
                # The kernel keeps this flag with the writing end alone.
                if not (held[one][name] | held[other][name]) & os.O_DIRECT:
                    wrong.append(f"{name} does not keep records apart (O_DIRECT)")
                there.append((writer, reader))
                good.append(f"{name} {writer} -> {reader}")
    wrong += [
        f"there is no pipe from {source} to {target}"
        for source, target in sorted(wanted)
        if (source, target) not in there
    ]
    for pipe in sorted(set(there)):
        extra = there.count(pipe) - (1 if pipe in wanted else 0)
        if extra:
            wrong.append(f"{extra} pipe(s) from {pipe[0]} to {pipe[1]} are declared nowhere")
    return wrong, good


def _apart(subject: Subject, crew: str, parts: Mapping[str, Json], out: Statements) -> None:
    """No two parts share a namespace of files or processes, a user, or the network of different places."""
    places = {part.part: part.side for part in subject.parts if part.crew == crew}
    wrong = []
    names = sorted(parts)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            kinds = ["mnt", "pid"]
            if not places[one] or places[one] != places[other]:
                kinds.append("net")
            wrong += [
                f"{one} and {other} share a {kind} namespace"
                for kind in kinds
                if parts[one][kind] == parts[other][kind]
            ]
    users = [facts["status"]["Uid"].split()[0] for facts in parts.values()]
    wrong += [] if len(set(users)) == len(users) else ["they share a user"]
    out.check(PART, f"{crew}: apart", "its parts share no namespace of network, files or processes, and no user", wrong,
              [f"uids {', '.join(sorted(users))}"])  # fmt: skip


def _seams(subject: Subject, crew: str, found: Mapping[Part, Json], out: Statements) -> set[str]:
    """The pipes that a crew's parts share with those of other crews: one-way, between the two ends of seams, and within
    one network. All that are right are given back; the launcher holds them as well, so that crews may come and go."""
    wrong, good, right = [], [], set()
    for part, facts in found.items():
        if part.crew != crew:
            continue
        for other, theirs in found.items():
            if other.crew == crew:
                continue
            mine, others = _ways(facts), _ways(theirs)
            for name in sorted(mine.keys() & others.keys()):
                ends = {subject.profile(part).seam, subject.profile(other).seam}
                ways = {mine[name] & os.O_ACCMODE, others[name] & os.O_ACCMODE}
                said = f"{name} of {part.name} and {other.name}"
                if ends != {"front", "back"}:
                    wrong.append(f"{said}, which are no two ends of a seam")
                elif not part.side or part.side != other.side:
                    wrong.append(f"{said}, which stand in different networks")
                elif ways != {os.O_RDONLY, os.O_WRONLY} or not (mine[name] | others[name]) & os.O_DIRECT:
                    wrong.append(f"{said} is not one-way, or does not keep records apart (O_DIRECT)")
                else:
                    good.append(f"{said}, within {part.side}")
                    right.add(name)
    if wrong or good:
        out.check(PART, f"{crew}: seams", "what its parts share with another crew's are one-way pipes between the ends "
                  "of a seam, within one network", wrong, good)  # fmt: skip
    return right


def _ends(subject: Subject, crew: str, found: Mapping[Part, Json], seams: Collection[str], out: Statements) -> None:
    """Where every pipe of a crew's parts leads."""
    ends = {
        "gate": _ends_of(subject.gate),
        "auditor": _ends_of(subject.auditor) | _ends_of(subject.launcher),
    }
    wrong, good = [], []
    for part, facts in found.items():
        mine = {name: flags for name, flags in _ways(facts).items() if name not in seams}
        within = {name for other, theirs in found.items() if other is not part for name in _ways(theirs)}
        profile = subject.profile(part)
        for where, theirs, wanted in (
            ("the gate", ends["gate"], 2),
            ("the auditor", ends["auditor"] - ends["gate"], 2 if profile.says else 0),
        ):
            here = sorted(mine.keys() & theirs - within)
            ways = {mine[name] & os.O_ACCMODE for name in here}
            if len(here) != wanted or (wanted and ways != {os.O_RDONLY, os.O_WRONLY}):
                wrong.append(f"{part.name} has {len(here)} pipe(s) to {where}, not one each way")
            good += [f"{part.name}: {name} to {where}" for name in here]
        lost = sorted(mine.keys() - within - ends["gate"] - ends["auditor"])
        wrong += [f"{part.name}: {name} leads to none of the gate's processes" for name in lost]
    out.check(PART, f"{crew}: pipes", "every other pipe of its parts leads to the gate or to the auditor, one each way",
              wrong, good)  # fmt: skip


def _ends_of(pid: int) -> set[str]:
    facts = reading.process(pid)
    return set() if facts is None else set(_ways(facts))
