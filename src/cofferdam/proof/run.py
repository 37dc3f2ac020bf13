"""A whole proof of a running gate, part by part; and its report, signed.

Not here: what each part establishes (structure, solving, canaries, probes, ...), asking the gate and telling it (the
caller does, since a gate stands above this room), the leak probe's rounds (rounds).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cofferdam import owned
from cofferdam.audit.checkpoint import SignerKey, VerifierKey, open_note, sign_note
from cofferdam.enforce.journal import folder, noted_policy
from cofferdam.enforce.orders import BESIDES, FENCE
from cofferdam.enforce.plans.records import NetworkPlan
from cofferdam.enforce.profile import Crew
from cofferdam.enforce.statefolder import LOOKING
from cofferdam.errors import AuditError, CofferdamError, GateError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import load
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof.render import digest, note_text
from cofferdam.proof.statements import Report, Statements
from cofferdam.proof.subject import Subject, folders, open_subject, parent, places

Status = Mapping[str, Any]
"""What the gate says of itself (gate.watch.report.StatusReport, as JSON)."""
Tell = Callable[[str], None]
"""Told what is done now; "" when it is over."""


@dataclass(frozen=True)
class Known:
    """What is known of the gate before anything is looked at. `crews`: what each kind of crew may be
    and do; `peers`: names by key; `peer_networks`: what the policy gives each peer."""

    state: Path
    status: Status
    path: Path
    policy: CompiledPolicy
    plan: NetworkPlan
    crews: Mapping[str, Crew] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)
    peer_networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hardware: Mapping[str, str] = field(default_factory=dict)
    """What the operator attests of a strand's hardware, by its zones."""


@dataclass(frozen=True)
class Wish:
    """What a proof is to do. `smt`: a folder for the solver's questions; `wires`: hosts on the IT and OT wires.
    `strand_only`: what a strand's end rests on, and no more."""

    leaks_only: bool = False
    probes: bool = True
    sabotage: bool = False
    smt: Path | None = None
    wires: tuple[str | None, str | None] = (None, None)
    strand_only: bool = False


def policy_path(state: Path, status: Status) -> Path:
    """The file of the policy in force. A gate in namespaces has no privilege, and root opens no file because such a
    gate names it: `up` and `reload` have said which it is.

    Raises: GateError.
    """
    # Without root nothing is proved of namespaces, and files are read with that user's own rights. Without namespaces
    # nothing is noted, and the gate is as much root as this is.
    noted = noted_policy(state) if os.geteuid() == 0 else None
    return noted if noted is not None else Path(status["policy"]["path"])


def policy_in_force(status: Status, path: Path) -> CompiledPolicy:
    """The policy at `path`, which is the one that the gate has in force. Raises: PolicyError, GateError."""
    policy = compile_policy(load(path), now_ns=time.time_ns()).on(str(status["machine"]))
    if policy.hash != status["policy"]["hash"]:
        raise GateError(
            f"{path} is not the policy that the gate has in force ({status['policy']['hash'][:12]})",
            hint=f"`cofferdam reload {path}`, or put the file back as it was; then prove again",
        )
    return policy


def prove(known: Known, wish: Wish, out: Statements, tell: Tell) -> None:
    """Establishes everything that can be. Raises: GateError, where the gate has namespaces and this is not root, or
    where it denies that it has."""
    if known.status["separation"] != "namespaces":
        if os.geteuid() == 0 and noted_policy(known.state) is not None:
            raise GateError(
                "the gate says that it runs without namespaces, and by root's own record it runs in some",
                hint="it is not to be believed: stop it, look at who else was on this machine, start it anew",
            )
        _without_namespaces(known.status, out)
        if os.geteuid() == 0 and any(fact["name"] == FENCE and fact["in_force"] for fact in known.status["facts"]):
            _fence(known, out)
    elif os.geteuid() != 0:
        raise GateError("the proof reads what the kernel shows to root only", hint="sudo cofferdam prove")
    else:
        stands = places(known.policy, known.plan, known.status)
        with (
            alone(known.state, tell),
            contextlib.closing(open_subject(known.state, known.plan, known.status, stands, known.crews)) as subject,
        ):
            subject.folders = folders(known.policy, known.status)
            subject.peers = dict(known.peers)
            subject.peer_networks = dict(known.peer_networks)
            subject.read()
            _parts(subject, known, wish, out, tell)
            if not wish.leaks_only and not wish.strand_only:
                _fence(known, out)
        tell("")


def _fence(known: Known, out: Statements) -> None:
    from cofferdam.proof import fenced

    fenced.state(known.state, known.plan.hosted, parent(int(known.status["pid"])), out)


def _parts(subject: Subject, known: Known, wish: Wish, out: Statements, tell: Tell) -> None:
    # Here, and not above: the solver is large, and a round of the leak probe has no use for it.
    from cofferdam.proof import canaries, leaking, limits, one_way, probes, sabotage, solving, structure

    if wish.strand_only:
        tell("namespaces and processes")
        structure.state(subject, out)
        tell("the rules, by the solver")
        for side in subject.sides.values():
            if side.plan.strand is not None:
                solving.solve(side, subject.users, out, wish.smt)
        tell("the strand")
        one_way.state(subject, known.hardware, out)
        return
    if not wish.leaks_only:
        wires = canaries.find_wires(subject, *wish.wires)
        if wish.sabotage:
            sabotage.check_lab(subject, wires)
        tell("namespaces and processes")
        structure.state(subject, out)
        tell("the rules, by the solver")
        solving.state(subject, out, wish.smt)
        tell("canaries")
        canaries.state(subject, wires, out)
        if any(side.plan.strand is not None for side in subject.sides.values()):
            tell("the strand")
            one_way.state(subject, known.hardware, out)
        if wish.probes:
            tell("forbidden system calls")
            probes.state(subject, known.path, out)
        else:
            out.say(probes.PART, "system calls", "assumed", "no system call was tried in any sandbox (--no-probes)")
        if wish.sabotage:
            tell("sabotage")
            sabotage.state(subject, wires, out)
    tell("ways round the gate")
    leaking.state(subject, leaking.targets(known.plan), out)
    leaking.between(known.status["leak_probe"], out)
    if not wish.leaks_only:
        limits.state(subject, out)


def _without_namespaces(status: Status, out: Statements) -> None:
    """Plain processes: what is not separated, in so many words."""
    for fact in status["facts"]:
        known = "observed" if fact["in_force"] or fact["name"] in BESIDES else "failed"
        out.say("structure", fact["name"], known, fact["detail"])  # type: ignore[arg-type]
    out.say(
        "structure", "separation", "failed",
        "the gate runs without network namespaces: both halves and the host share one network, so nothing but our own "
        "code keeps a packet from one side to the other",
        ["start it as root, with `interface` given for each zone and `require: namespaces` in the policy"],
    )  # fmt: skip


@contextlib.contextmanager
def alone(state: Path, tell: Tell) -> Iterator[None]:
    """One proof or round of the leak probe at a time: each would take the other for a stranger in the namespaces."""
    lock = os.open(folder(state) / LOOKING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waits for another proof, or a round of the leak probe")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


# --- the report -------------------------------------------------------------------------------------------------


def report(status: Status, out: Statements, started_ns: int) -> Report:
    """The statements and what they are about."""
    return Report(
        site=status["site"],
        host=socket.gethostname(),
        version=status["version"],
        policy=status["policy"]["hash"],
        separation=status["separation"],
        started_ns=started_ns,
        finished_ns=time.time_ns(),
        ok=not any(statement.status == "failed" for statement in out.found),
        counts=out.counts(),
        statements=tuple(out.found),
    )


def sign(made: Report, state: Path) -> str:
    """A signed note on the report, by the audit log's key; "" where that cannot be read. It belongs to the auditor's
    user; root may read it all the same."""
    try:
        key = SignerKey.parse(owned.read(state / "keys" / "audit.key").decode())
    except OSError:
        return ""
    return sign_note(note_text(made), key).decode()


class Checked(NamedTuple):
    """A report that was written before. `why` it is not the one that was signed, or ""; `signed` is the note's text."""

    report: Report
    why: str
    signed: str


def check(path: Path, key: VerifierKey) -> Checked:
    """Whether a report is the one that was signed. Its own `ok` is another matter: a signed report may say no.

    Raises: CofferdamError, if the file holds no report.
    """
    try:
        document = json.loads(path.read_bytes())
        # Nothing may stand in it that the signature does not cover: somebody would read it as signed.
        found = msgspec.convert(document.pop("report"), Report)
        note = str(document.pop("note")).encode()
        named = document.pop("sha256")
    except OSError as error:
        raise CofferdamError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise CofferdamError(f"{path} is not the report of a proof: {error}") from None
    try:
        signed = open_note(note, key)
    except AuditError as error:
        return Checked(found, str(error), "")
    same = signed == note_text(found) and named == digest(found) and not document
    return Checked(found, "" if same else "the report is not the one that was signed: it was changed", signed)
