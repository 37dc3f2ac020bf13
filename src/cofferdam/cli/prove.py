"""`cofferdam prove`: shows on the running gate that nothing crosses, or what does.

Not here: the proof (proof.run), the leak probe's rounds (gate.watch.leaks).
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cofferdam.errors import CofferdamError, GateError

if TYPE_CHECKING:
    from cofferdam.proof.run import Known
    from cofferdam.proof.statements import Report


def add(parser: argparse.ArgumentParser) -> None:
    from cofferdam.cli.gate_options import add_json, add_state

    add_state(parser)
    add_json(parser, "Proved | ProofVerified")
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
        "--diode",
        action="store_true",
        help="only what the strand's end on this machine rests on: structure, rules, and frames against its way",
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
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check the signature of an earlier report")
    parser.add_argument(
        "--key", metavar="KEY", help="with --verify: the public key, a file or the key itself (default: the state's)"
    )
    parser.epilog = (
        "Needs root, since the kernel tells others too little. Exit code 1 if a statement failed. "
        "In the lab the hosts on both wires are found automatically."
    )


def run(args: argparse.Namespace) -> int:
    from cofferdam.cli.gate_options import state_of

    state = state_of(args)
    if args.verify is not None:
        return _verify(args, state)
    if args.smt is not None and not args.smt.is_dir():
        raise CofferdamError(f"{args.smt} is not a folder", hint="make it first")
    gc.disable()  # many small objects that live until the end
    try:
        return _prove(args, state)
    finally:
        gc.enable()


def _prove(args: argparse.Namespace, state: Path) -> int:
    from cofferdam.gate.client import ask
    from cofferdam.proof import leaking
    from cofferdam.proof.run import Wish, prove, report, sign
    from cofferdam.proof.statements import Statements

    started = time.time_ns()
    known = _known(state)
    if args.diode and (args.leaks or args.sabotage):
        raise CofferdamError("--diode is a proof of its own", hint="leave --leaks and --sabotage out")
    if args.diode and not known.hardware:
        raise GateError("no end of a strand is on this machine", hint="`machine` of its zones says where it is")
    out = Statements()
    wish = Wish(args.leaks, not args.no_probes, args.sabotage, args.smt, (args.wire_it, args.wire_ot), args.diode)
    prove(known, wish, out, _working)
    if known.status["separation"] == "namespaces" and not args.diode:
        leaking.tell(functools.partial(ask, state), known.policy, out)
    made = report(known.status, out, started)
    note = sign(made, state)
    _record(state, made)
    if not args.leaks and not args.diode:  # the evidence is of whole proofs
        _evidence(state, made, note)
    _show(args, made, note)
    return 0 if made.ok and note else 1


def _known(state: Path) -> Known:
    """What gate and policy say."""
    from cofferdam.brokers.registry import CREWS
    from cofferdam.enforce.plans.network import network_plan
    from cofferdam.enforce.plans.overlay import peer_addresses
    from cofferdam.gate.client import whole_status
    from cofferdam.gate.overlay.peers import load_peers
    from cofferdam.policy.terms.diode_rows import DiodeRows
    from cofferdam.proof.run import Known, policy_in_force, policy_path

    status = whole_status(state)
    path = policy_path(state, status)
    policy = policy_in_force(status, path)
    plan = network_plan(policy)
    peers = {peer.key: peer.name for peer in load_peers(state)[0].values()}
    hardware = {
        zone: conduit.terms.hardware
        for conduit in policy.conduits.values()
        if isinstance(conduit.terms, DiodeRows)
        for zone in (conduit.from_zone, conduit.to_zone, *(zone for one in conduit.terms.links for zone in one.zones))
    }
    return Known(state, status, path, policy, plan, CREWS, peers, peer_addresses(policy), hardware)


def _working(part: str) -> None:
    """What is done now, on a terminal, in one line that the next one covers."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{part and f'proving: {part} ...'}", end="", file=sys.stderr, flush=True)


def _record(state: Path, report: Report) -> None:
    from cofferdam.gate.client import ask
    from cofferdam.proof.render import digest, summary

    failed = [f"{s.name}: {s.says}" for s in report.statements if s.status == "failed"]
    detail = f"{summary(report)}{'; ' + failed[0] if failed else ''}"[:500]
    answer = ask(state, "proof", report=digest(report), result="proved" if report.ok else "failed", detail=detail)
    if not answer["recorded"]:
        raise GateError("the audit log did not take the proof in time", hint="`cofferdam status` says why")


def _evidence(state: Path, report: Report, note: str) -> None:
    """Keeps the report, and has the gate record what it says of each check of the evidence."""
    import msgspec

    from cofferdam.evidence import gather
    from cofferdam.evidence.checks.registry import run
    from cofferdam.evidence.checks.tables import CHECKS
    from cofferdam.evidence.inputs import Inputs, Proven
    from cofferdam.gate.client import ask
    from cofferdam.proof.render import as_json, digest

    if not note:
        return  # what is not signed is no evidence
    try:
        gather.keep_report(state, as_json(report, note), digest(report))
    except OSError as error:
        print(f"the report is not kept as evidence: {error}", file=sys.stderr)
        return
    found, _ = run((one for one in CHECKS.values() if one.looks == ("proof",)), Inputs(time.time_ns(),
                   proven=Proven(report)))  # fmt: skip
    for one in found:
        ask(state, "findings", found=[msgspec.to_builtins(one)])


def _show(args: argparse.Namespace, report: Report, note: str) -> None:
    from cofferdam.audit.keys import write_beside
    from cofferdam.proof import render

    for path, text in ((args.html, render.as_html), (args.output, render.as_json)):
        if path is not None:
            try:
                write_beside(path.absolute(), text(report, note).encode())
            except OSError as error:
                raise CofferdamError(f"cannot write {path}: {error.strerror or error}") from None
    if args.json:
        print(render.as_json(report, note))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)  # a terminal folds them; a file has whole sentences
    for line, style in render.as_text(report, verbose=args.verbose):
        console.print(Text(line, style))
    signed = "signed with the audit key" if note else "NOT SIGNED: the audit key cannot be read"
    console.print(f"report {render.digest(report)[:16]}…, {signed}, recorded in the audit log")


def _verify(args: argparse.Namespace, state: Path) -> int:
    from cofferdam.audit.keys import find_public
    from cofferdam.proof.run import check

    checked = check(args.verify, find_public(args.key, state / "keys" / "audit.pub"))
    report, same = checked.report, not checked.why
    if args.json:
        print(json.dumps({"signed": same, "site": report.site, "ok": report.ok} if same else {"signed": False}))
    elif same:
        print(f"signed: {checked.signed.splitlines()[1]}, {checked.signed.splitlines()[3]}")
    else:
        print(checked.why)
    return 0 if same else 1
