"""`cofferdam prove`: shows on the running gate that nothing crosses, or what does."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofferdam.errors import AuditError, CofferdamError, GateError

NOT_UP_SECONDS = 2
"""Before a gate that does not answer is asked again for the leak probe's turn."""
NAMES_AT_ONCE = 50
"""Assets in one message to the gate, which takes 64 KiB at most."""
NOTHING_TO_DO = 3
"""Exit code of a round: without namespaces there is no IT side to ask from."""

if TYPE_CHECKING:
    from cofferdam.audit.checkpoint import SignerKey, VerifierKey
    from cofferdam.enforce.plans.records import NetworkPlan
    from cofferdam.policy.table import CompiledPolicy
    from cofferdam.proof.statements import Report, Statements


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    add_state(parser)
    add_json(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML page")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report as JSON, with its signed note")
    parser.add_argument(
        "--smt",
        type=Path,
        metavar="DIR",
        help="write the solver's questions there, in SMT-LIB 2, to ask another solver",
    )
    parser.add_argument("--verbose", action="store_true", help="show the evidence of every statement")
    parser.add_argument("--leaks", action="store_true", help="only try each asset's real address from the IT side")
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        help="with --leaks: again and again, telling the gate of each round; `policy`: as often as the policy's "
        "`leak_probe` says, which is what `cofferdam up` does",
    )
    parser.add_argument(
        "--sabotage",
        action="store_true",
        help="lab only: forwarding on and no rules in every namespace of the gate, then the canaries, then all back",
    )
    parser.add_argument(
        "--wire-it", metavar="NETNS[:INTERFACE]", help="a host on the IT wire, from which canaries are sent"
    )
    parser.add_argument(
        "--wire-ot", metavar="NETNS[:INTERFACE]", help="a host on the OT wire, at which canaries are listened for"
    )
    parser.add_argument("--no-probes", action="store_true", help="leave out the system calls tried in each sandbox")
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check the signature of a report written before")
    parser.add_argument(
        "--key", metavar="KEY", help="with --verify: the public key, a file or the key itself (default: the state's)"
    )
    parser.epilog = (
        "Needs root, since the kernel tells others too little. Exit code 1 if a statement failed. "
        "In the lab the hosts on both wires are found by themselves."
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of

    state = state_of(args)
    if args.verify is not None:
        return _verify(args.verify, state, args.key, json_wanted=args.json)
    if args.smt is not None and not args.smt.is_dir():
        raise CofferdamError(f"{args.smt} is no folder", hint="make it first")
    if args.every is not None:
        return _watch(state, args.every, leaks=args.leaks)
    from cofferdam.enforce.plans.network import network_plan
    from cofferdam.proof.statements import Statements

    gc.disable()  # a short life that makes many small objects
    started = time.time_ns()
    status = _status(state)
    out = Statements()
    path = _path(state, status)
    policy = _policy(status, path)
    plan = network_plan(policy)
    if status["separation"] != "namespaces":
        _without(status, out)
    elif os.geteuid() != 0:
        raise GateError("the proof reads what the kernel shows to root only", hint="sudo cofferdam prove")
    else:
        _with(args, state, status, policy, path, plan, out)
    report = _report(status, out, started)
    note = _sign(report, state)
    _record(state, report)
    _show(args, report, note)
    return 0 if report.ok and note else 1


def _status(state: Path) -> dict[str, Any]:
    """What the running gate says of itself, all of it.

    Raises: GateError, also where it is a gate of another version that leaves something out.
    """
    import msgspec

    from cofferdam.gate.client import ask
    from cofferdam.gate.watch.report import StatusReport

    status = ask(state, "status")
    missing = "" if isinstance(status, dict) else "it is no record"
    if not missing:
        lacking = [name for name in StatusReport.__struct_fields__ if name not in status]
        missing = f"its status has no {', '.join(lacking)}" if lacking else ""
    if not missing:
        try:
            msgspec.convert(status, StatusReport)
        except msgspec.ValidationError as error:
            missing = str(error)
    if missing:
        from cofferdam import __version__

        version = status.get("version", "?") if isinstance(status, dict) else "?"
        raise GateError(
            f"the gate runs another version ({version}) than this command ({__version__}): {missing}",
            hint="start the gate anew: `cofferdam down`, then `up` (or `systemctl restart cofferdam`)",
        )
    return dict(status)


def _path(state: Path, status: dict[str, Any]) -> Path:
    """The file of the policy in force. A gate in namespaces has no privilege, and root opens no file because such a one
    names it: `up` and `reload` have said which it is.

    Raises: GateError.
    """
    from cofferdam.enforce.journal import noted_policy

    # Whoever is not root proves nothing of namespaces, and reads as himself. Without namespaces nothing is noted, and
    # the gate is as much root as this is.
    noted = noted_policy(state) if os.geteuid() == 0 else None
    return noted if noted is not None else Path(status["policy"]["path"])


def _policy(status: dict[str, Any], path: Path) -> CompiledPolicy:
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    policy = compile_policy(load(path), now_ns=time.time_ns())
    if policy.hash != status["policy"]["hash"]:
        raise GateError(
            f"{path} is not the policy that the gate has in force ({status['policy']['hash'][:12]})",
            hint=f"`cofferdam reload {path}`, or put the file back as it was; then prove again",
        )
    return policy


def _with(
    args: argparse.Namespace, state: Path, status: dict[str, Any], policy: CompiledPolicy, path: Path,
    plan: NetworkPlan, out: Statements,
) -> None:  # fmt: skip
    from cofferdam.gate.crew.plan import plan_pairs
    from cofferdam.gate.overlay.overlay import peer_addresses
    from cofferdam.gate.overlay.peers import load_peers
    from cofferdam.proof import canaries, leaking, limits, probes, sabotage, solving, structure
    from cofferdam.proof.subject import open_subject

    roles = {
        pair.name: (
            plan.space_of(pair.outer.side, pair.outer.zone),
            plan.space_of(pair.inner.side, pair.inner.zone),
        )
        for pair in plan_pairs(policy).values()
    }
    roles |= {pair["name"]: roles.get(re.split(r"[:+]\d+$", pair["name"])[0], ("it", "ot")) for pair in status["pairs"]}
    with _alone(state), contextlib.closing(open_subject(state, plan, status, roles)) as subject:
        subject.peers = {peer.key: peer.name for peer in load_peers(state)[0].values()}
        subject.peer_networks = peer_addresses(policy)
        subject.read()
        if args.leaks:
            leaking.state(subject, leaking.targets(plan), out)
            leaking.between(status["leak_probe"], out)
            _tell_leaks(state, policy, out)
            return
        wires = canaries.find_wires(subject, args.wire_it, args.wire_ot)
        if args.sabotage:
            sabotage.check_lab(subject, wires)
        _working("namespaces and processes")
        structure.state(subject, out)
        _working("the rules, by the solver")
        solving.state(subject, out, args.smt)
        _working("canaries")
        canaries.state(subject, wires, out)
        if args.no_probes:
            out.say(probes.PART, "system calls", "assumed", "no system call was tried in any sandbox (--no-probes)")
        else:
            _working("forbidden system calls")
            probes.state(subject, path, out)
        if args.sabotage:
            _working("sabotage")
            sabotage.state(subject, wires, out)
        _working("ways round the gate")
        leaking.state(subject, leaking.targets(plan), out)
        leaking.between(status["leak_probe"], out)
        _tell_leaks(state, policy, out)
        limits.state(subject, out)
    _working("")


def _working(part: str) -> None:
    """What is done now, on a terminal, in one line that the next one covers."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{part and f'proving: {part} ...'}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One proof or round of the leak probe at a time: each would take the other for a stranger in the namespaces."""
    from cofferdam.enforce.journal import folder

    lock = os.open(folder(state) / "prove.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _working("waits for another proof, or a round of the leak probe")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _without(status: dict[str, Any], out: Statements) -> None:
    """Plain processes: what is not separated, in so many words."""
    for fact in status["facts"]:
        known = "observed" if fact["in_force"] else "failed"
        out.say("structure", fact["name"], known, fact["detail"])  # type: ignore[arg-type]
    out.say(
        "structure", "separation", "failed",
        "the gate runs without network namespaces: both halves and the host share one network, so nothing but our own "
        "code keeps a packet from one side to the other",
        ["start it as root, with `interface` given for each zone and `require: namespaces` in the policy"],
    )  # fmt: skip


def _tell_leaks(state: Path, policy: CompiledPolicy, out: Statements) -> None:
    from cofferdam.gate.client import ask
    from cofferdam.proof import leaking

    names: dict[str, list[str]] = {}
    for asset in policy.assets.values():
        names.setdefault(asset.address, []).append(asset.name)
    tried, found = leaking.verdicts(out, names)
    leaks = dict(found)
    for start in range(0, len(tried), NAMES_AT_ONCE):
        some = tried[start : start + NAMES_AT_ONCE]
        answers = [{"asset": name, "detail": leaks[name][:500]} for name in some if name in leaks]
        ask(state, "leaks", tried=some, found=answers)


def _watch(state: Path, every: str, *, leaks: bool) -> int:
    """Rounds of the leak probe, each in a process of its own, so that none leaves anything behind."""
    if not leaks or not (every == "policy" or (every.isdecimal() and int(every) >= 1)):
        raise GateError(
            "--every goes with --leaks, and is at least 1, or `policy`", hint="cofferdam prove --leaks --every 300"
        )
    while _turn(state, every):
        pid = os.fork()
        if pid == 0:
            os._exit(_round(state))
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) == NOTHING_TO_DO:
            break
    return 0


def _turn(state: Path, every: str) -> bool:
    """Waits until a round is due; False where there will be none."""
    from cofferdam.gate.client import ask

    if every != "policy":
        time.sleep(int(every))
        return True
    while True:
        try:
            return bool(ask(state, "leak-turn", seconds=None)["ask"])
        except GateError:
            time.sleep(NOT_UP_SECONDS)  # a gate that starts with this process is not up yet


def _round(state: Path) -> int:
    from cofferdam.enforce.plans.network import network_plan
    from cofferdam.gate.client import ask
    from cofferdam.proof import leaking
    from cofferdam.proof.statements import Statements
    from cofferdam.proof.subject import open_subject

    try:
        status = _status(state)
        if status["separation"] != "namespaces":
            return NOTHING_TO_DO
        try:
            policy = _policy(status, _path(state, status))
        except GateError:
            time.sleep(NOT_UP_SECONDS)  # a reload is under way: the gate has its policy, and root has not said so yet
            status = _status(state)
            policy = _policy(status, _path(state, status))
        plan = network_plan(policy)
        out = Statements()
        with _alone(state), contextlib.closing(open_subject(state, plan, status, {})) as subject:
            leaking.state(subject, leaking.targets(plan), out)
        _tell_leaks(state, policy, out)
        unasked = [s.says for s in out.found if s.name == leaking.PROBE]
    except CofferdamError as error:
        unasked = [str(error)]
    except Exception as error:
        unasked = [f"{type(error).__name__}: {error}"]
    for says in unasked:
        with contextlib.suppress(CofferdamError):
            ask(state, "leaks", tried=[], trouble=says[:4000])
        print(f"cofferdam: the leak probe did not run: {says}", file=sys.stderr, flush=True)
    return 1 if unasked else 0


def _report(status: dict[str, Any], out: Statements, started: int) -> Report:
    from cofferdam.proof.statements import Report

    return Report(
        site=status["site"],
        host=socket.gethostname(),
        version=status["version"],
        policy=status["policy"]["hash"],
        separation=status["separation"],
        started_ns=started,
        finished_ns=time.time_ns(),
        ok=not any(statement.status == "failed" for statement in out.found),
        counts=out.counts(),
        statements=tuple(out.found),
    )


def _key(state: Path) -> SignerKey | None:
    """The audit log's key. It belongs to the auditor's user; root may read it all the same."""
    from cofferdam.audit.checkpoint import SignerKey

    try:
        return SignerKey.parse((state / "keys" / "audit.key").read_text())
    except OSError:
        return None


def _sign(report: Report, state: Path) -> str:
    from cofferdam.audit.checkpoint import sign_note
    from cofferdam.proof.render import note_text

    key = _key(state)
    return sign_note(note_text(report), key).decode() if key is not None else ""


def _record(state: Path, report: Report) -> None:
    from cofferdam.gate.client import ask
    from cofferdam.proof.render import digest, summary

    failed = [f"{s.name}: {s.says}" for s in report.statements if s.status == "failed"]
    detail = f"{summary(report)}{'; ' + failed[0] if failed else ''}"[:500]
    answer = ask(state, "proof", report=digest(report), result="proved" if report.ok else "failed", detail=detail)
    if not answer["recorded"]:
        raise GateError("the audit log did not take the proof in time", hint="`cofferdam status` says why")


def _show(args: argparse.Namespace, report: Report, note: str) -> None:
    from cofferdam.proof import render

    for path, text in ((args.html, render.as_html), (args.output, render.as_json)):
        if path is not None:
            try:
                path.write_text(text(report, note), encoding="utf-8")
            except OSError as error:
                raise CofferdamError(f"cannot write {path}: {error.strerror}") from None
    if args.json:
        print(render.as_json(report, note))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line, style in render.as_text(report, verbose=args.verbose):
        console.print(Text(line, style))
    signed = "signed with the audit key" if note else "NOT SIGNED: the audit key cannot be read"
    console.print(f"report {render.digest(report)[:16]}…, {signed}, recorded in the audit log")


def _verify(path: Path, state: Path, key: str | None, *, json_wanted: bool) -> int:
    """Whether a report is the one that was signed. Its own `ok` is told as well: a signed report may say no."""
    import msgspec

    from cofferdam.audit.checkpoint import open_note
    from cofferdam.proof.render import digest, note_text
    from cofferdam.proof.statements import Report

    try:
        document = json.loads(path.read_bytes())
        # Nothing may stand in it that the signature does not cover: somebody would read it as signed.
        report = msgspec.convert(document.pop("report"), Report)
        note = str(document.pop("note")).encode()
        named = document.pop("sha256")
    except OSError as error:
        raise CofferdamError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise CofferdamError(f"{path} is no report of a proof: {error}") from None
    why, signed = "the report is not the one that was signed: it was changed", ""
    public = _public(key, state)
    try:
        signed = open_note(note, public)
    except AuditError as error:
        why = str(error)
    same = signed == note_text(report) and named == digest(report) and not document
    if json_wanted:
        print(json.dumps({"signed": same, "site": report.site, "ok": report.ok} if same else {"signed": False}))
    elif same:
        print(f"signed: {signed.splitlines()[1]}, {signed.splitlines()[3]}")
    else:
        print(why)
    return 0 if same else 1


def _public(key: str | None, state: Path) -> VerifierKey:
    from cofferdam.audit.checkpoint import VerifierKey
    from cofferdam.audit.keys import load_public

    if key is not None and "+" in key and not Path(key).exists():
        return VerifierKey.parse(key)
    return load_public(Path(key) if key is not None else state / "keys" / "audit.pub")
