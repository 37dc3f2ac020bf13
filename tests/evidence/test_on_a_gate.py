"""The evidence of a real gate in namespaces: what a proof and a minute find, and that breaking one thing turns its
control, and putting it back turns it again."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.evidence import ExportStood
from cofferdam.audit.events.gate import HalfDied, HalfStarted
from cofferdam.audit.files import LogReader
from cofferdam.cli import nightly
from cofferdam.cli import prove as prove_verb
from cofferdam.cli.main import main
from cofferdam.enforce.orders import FENCE
from cofferdam.errors import GateError
from cofferdam.evidence import gather
from cofferdam.evidence.checks.tables import CHECKS, SELF_TESTED, run_checks
from cofferdam.evidence.history import History, read
from cofferdam.evidence.inputs import Inputs, Proven, Software, TimeDaemon
from cofferdam.evidence.workbench import Bench
from cofferdam.gate.client import ask
from cofferdam.proof import run as run_proof
from cofferdam.proof.statements import Report, Statement, Statements
from tests.evidence.test_services import CASES, SAYS, WITH_POLICY
from tests.evidence.test_standing import entries
from tests.evidence.test_witnessing import NAME, SEED, Stranger
from tests.evidence.witness_stranger import vkey
from tests.gate.plant import cli, events, links
from tests.ports import held_ports
from tests.prove.stage import Stage, run, staged
from tests.verbs import KERNEL
from tests.waiting import PATIENT, alone, eventually, kill

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    (port,) = held_ports(1)
    made = Stranger(tmp_path_factory.mktemp("witness") / "w", port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def nobody() -> int:
    """A port at which nobody listens."""
    return held_ports(1)[0]


@pytest.fixture(scope="module")
def stage(stranger: Stranger, nobody: int) -> Iterator[Stage]:
    """Its policy names a witness and two collectors, which all that follows is looked at with."""
    with staged() as made:
        stranger.knows((made.state / "keys/audit.pub").read_text().strip(), "/w1")
        to = f'{{to: "http://127.0.0.1:{stranger.port}/w1", key: "{vkey(NAME, SEED)}"}}'
        policy = made.folder / "policy.yaml"
        collectors = f"{{disk: {{to: folder}}, gone: {{to: 'udp://127.0.0.1:{nobody}'}}}}"
        policy.write_text(f"{policy.read_text()}\naudit:\n  witnesses:\n    w1: {to}\n  collectors: {collectors}\n")
        ask(made.state, "reload", path="")
        yield made


def test_the_witness_is_a_part_of_its_own(stage: Stage, stranger: Stranger) -> None:
    """In the host's network, as a user of its own, under a filter; it holds nothing but its pipes and its connection,
    and sees no file of the log."""
    eventually(lambda: stranger.state()["/w1"]["size"] > 0)
    pids = subprocess.run(
        ["pgrep", "-f", "cofferdam.evidence.witness_part"], capture_output=True, text=True, check=True
    )
    (pid,) = [one for one in map(int, pids.stdout.split()) if _child_of(one, stage.gate.process.pid)]
    facts = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in facts and "NoNewPrivs:\t1" in facts and "CapEff:\t0000000000000000" in facts
    user = int(re.findall(r"Uid:\t(\d+)", facts)[0])
    assert 64000 < user < 65000
    assert Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    assert not (Path(f"/proc/{pid}/root") / str(stage.state).lstrip("/")).exists()
    kinds = {link.partition(":")[0] for link in links(pid)}
    assert kinds <= {"pipe", "anon_inode", "/dev/null", "socket"}
    eventually(lambda: evidence(stage, "run", "log.witnessed")[0] == 0 and
               states(stage)["log.witnessed"]["status"] == "observed")  # fmt: skip


def _child_of(pid: int, parent: int) -> bool:
    try:
        return f"PPid:\t{parent}\n" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False


def evidence(stage: Stage, *words: str) -> tuple[int, str]:
    """`cofferdam evidence ...`, in this process: the exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["evidence", *words, "--state", str(stage.state)])
    return code, out.getvalue() or err.getvalue()


def states(stage: Stage) -> dict[str, dict[str, Any]]:
    code, text = evidence(stage, "list", "--json")
    assert code == 0, text
    return {one["id"]: one for one in json.loads(text)}


def report(stage: Stage, framework: str) -> dict[str, dict[str, Any]]:
    code, text = evidence(stage, "report", "--framework", framework, "--json")
    assert code == 0, text
    return {row["control"]["id"]: row["control"] for row in json.loads(text)["rows"]}


def size(stage: Stage) -> int:
    return int(ask(stage.state, "status")["audit"]["size"])


def alarms(stage: Stage) -> list[str]:
    return [alarm["name"] for alarm in ask(stage.state, "status")["alarms"]]


BROKEN = (
    "proof.nothing-forwarded", "proof.only-declared-in", "proof.only-declared-out", "proof.no-drift", "proof.structure",
    "ports.needed", "access.no-direct",
)  # fmt: skip
"""What one proof finds of three rules, an address and a listener by hand."""


@contextlib.contextmanager
def listener(space: str) -> Iterator[None]:
    """A program of nobody's that waits on a port in a side's network."""
    program = "import socket, time; s = socket.create_server(('0.0.0.0', 4445)); print(flush=True); time.sleep(600)"
    command = ["ip", "netns", "exec", space, sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_a_proof_a_minute_and_what_is_done_by_hand(stage: Stage, tmp_path: Path) -> None:
    before = states(stage)["proof.probes"]
    code, _ = stage.prove("--no-probes")
    assert code == 0
    code, text = evidence(stage, "run")
    found = states(stage)
    assert found["proof.nothing-forwarded"]["status"] == "proved", text
    assert found["proof.structure"]["status"] == "observed"
    assert found["proof.probes"]["index"] == before["index"], "of what was not tried nothing is said"
    assert found["log.whole"]["status"] == "tested"
    assert found["separation.in-force"]["status"] == "observed", found["separation.in-force"]
    assert found["policy.values-checked"]["status"] == "tested"
    assert found["access.mfa"] == found["access.mfa"] | {"status": "not covered", "index": -1}
    for name, one in found.items():
        assert (one["index"] >= 0) == (one["status"] not in ("not covered",)), name
    control = report(stage, "iec62443-3-2")["ZCR 3.2"]
    assert (control["status"], control["decides"]) == ("proved", ["proof.nothing-forwarded"])
    good = {name: found[name]["status"] for name in BROKEN}

    # By hand: the packet that a rule lets through is the fact, each control turns, and alarms stand.
    space = stage.namespace("it")
    for chain, port in (("forward", 4444), ("input", 4445), ("output", 4446)):
        run("ip", "netns", "exec", space, "nft", f"insert rule inet cofferdam {chain} tcp dport {port} accept")
    run("ip", "-n", space, "address", "add", "198.51.100.7/32", "dev", "lo")
    with listener(space):
        code, _ = stage.prove("--no-probes")
    assert code == 1
    found = states(stage)
    assert {name: found[name]["status"] for name in BROKEN} == dict.fromkeys(BROKEN, "failed")
    for name, word in (("nothing-forwarded", "4444"), ("only-declared-in", "4445"), ("only-declared-out", "4446"),
                       ("structure", "198.51.100.7")):  # fmt: skip
        facts = found[f"proof.{name}"]["facts"]
        assert any(word in fact for fact in facts), facts
    assert any("4445" in fact for fact in found["ports.needed"]["facts"]), found["ports.needed"]
    assert report(stage, "iec62443-3-2")["ZCR 3.2"]["status"] == "failed"
    assert {f"check-{name}" for name in BROKEN} <= set(alarms(stage))
    # A report of before does not help, though nobody kept the one that failed.
    last = max((stage.state / "evidence/proofs").iterdir(), key=lambda path: path.stat().st_mtime)
    last.rename(tmp_path / last.name)
    evidence(stage, "run", "proof.nothing-forwarded")
    assert states(stage)["proof.nothing-forwarded"]["status"] == "failed"
    (tmp_path / last.name).rename(last)

    ask(stage.state, "reload", path="")  # puts the rules right
    run("ip", "-n", space, "address", "del", "198.51.100.7/32", "dev", "lo")
    code, _ = stage.prove("--no-probes")
    assert code == 0
    found = states(stage)
    assert {name: found[name]["status"] for name in BROKEN} == good
    assert not {f"check-{name}" for name in BROKEN} & set(alarms(stage))
    page = tmp_path / "report.html"
    code, text = evidence(stage, "report", "--framework", "nerc-cip", "--html", str(page))
    assert code == 0, text
    shown = page.read_text()
    assert "<script" not in shown
    assert "compliant" not in shown.lower()


# --- every check that can fail ------------------------------------------------------------------------------------

Undo = Callable[[], object]


def _changed_byte(stage: Stage, _: Path) -> Undo:
    """In the first tile that is full: what is newer is still in the auditor's memory."""
    path = stage.state / "audit/tile/entries/000"
    while not path.exists() or ask(stage.state, "status")["audit"]["signed"] < 300:
        ask(stage.state, "record", event={"kind": "drill-done", "drill": "kill", "says": "to fill a tile"})
    before = path.read_bytes()
    assert b"auditor" in before
    path.write_bytes(before.replace(b"auditor", b"auditer", 1))
    return lambda: path.write_bytes(before)


def _other_policy(change: Callable[[str], str]) -> Callable[[Stage, Path], Undo]:
    def reloaded(stage: Stage, _: Path) -> Undo:
        path = stage.folder / "policy.yaml"
        before = path.read_text()
        after = change(before)
        assert after != before
        path.write_text(after)
        ask(stage.state, "reload", path="")

        def back() -> None:
            path.write_text(before)
            ask(stage.state, "reload", path="")

        return back

    return reloaded


def _forever(text: str) -> str:
    return re.sub(r"\n    expires: \S+", "", text, count=1)


def _useless(text: str) -> str:
    return re.sub(r"(\n *- \{who: erp, asset: plc-7, read: \[flow_total), tank_level\]\}", r"\g<0>\1]}", text, count=1)


def _foreign_head(stage: Stage, folder: Path) -> Undo:
    where = folder / "safe"
    where.mkdir()
    assert evidence(stage, "witness", str(where))[0] == 0
    head = where / "checkpoint"
    before = head.read_bytes()
    head.write_bytes(before.replace(before.split(b"\n")[2], b"A" * 43 + b"="))
    assert evidence(stage, "witness", str(where))[0] == 1

    def back() -> None:
        head.write_bytes(before)
        assert evidence(stage, "witness", str(where))[0] == 0

    return back


def _one_more_signer(stage: Stage, folder: Path) -> Undo:
    for name in ("ada", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    assert evidence(stage, "signer", "add", "Ada", str(folder / "ada.pub"))[0] == 0
    code, text = evidence(stage, "baseline", "--approve", "--as", "Ada", "--key", str(folder / "eve"))
    assert code != 0 and "not Ada's" in text
    assert evidence(stage, "baseline", "--approve", "--text", "as installed", "--key", str(folder / "ada"))[0] == 0
    evidence(stage, "run", "config.drift")
    assert states(stage)["config.drift"]["status"] == "tested", states(stage)["config.drift"]
    assert evidence(stage, "signer", "add", "Eve", str(folder / "eve.pub"))[0] == 0
    return lambda: evidence(stage, "signer", "remove", "Eve")


def _device_at_the_office(stage: Stage, _: Path) -> Undo:
    status = ask(stage.state, "status")
    asset = status["assets"][0]["name"]
    ask(stage.state, "leaks", tried=[asset], found=[{"asset": asset, "detail": "answers on the office side"}])
    return lambda: ask(stage.state, "leaks", tried=[asset], found=[])


BY_HAND: dict[str, Callable[[Stage, Path], Undo]] = {
    "log.whole": _changed_byte,
    "policy.expiry": _other_policy(_forever),
    "policy.least": _other_policy(_useless),
    "log.witnessed": _foreign_head,
    "config.drift": _one_more_signer,
    "leak.silent": _device_at_the_office,
}
"""Checks that a hand on the running gate makes fail, and how it is put back."""


@pytest.mark.parametrize("check", BY_HAND)
def test_it_fails_by_hand_and_holds_again(stage: Stage, tmp_path: Path, check: str) -> None:
    def found(*wanted: str) -> bool:
        evidence(stage, "run", check)
        return states(stage)[check]["status"] in wanted

    back = BY_HAND[check](stage, tmp_path)
    try:
        eventually(lambda: found("failed"))
        assert f"check-{check}" in alarms(stage)
    finally:
        back()
    eventually(lambda: found("tested", "observed"))
    assert f"check-{check}" not in alarms(stage)


def _status(**changes: Any) -> Callable[[Inputs], Inputs]:
    def change(known: Inputs) -> Inputs:
        status = json.loads(json.dumps(known.status))
        for path, value in changes.items():
            *way, last = path.split("__")
            at = status
            for name in way:
                at = at[int(name) if name.isdigit() else name]
            at[last] = value
        return replace(known, status=status)

    return change


def _conduits_without(known: Inputs) -> Inputs:
    assert known.policy is not None
    policy = copy.copy(known.policy)
    policy.conduits = {name: msgspec.structs.replace(one, owner=" ") for name, one in policy.conduits.items()}
    return replace(known, policy=policy)


def _proved_again(part: str) -> Callable[[Inputs], Inputs]:
    """A report in which every statement of a part does not hold."""

    def change(known: Inputs) -> Inputs:
        failed = Statement(part, f"{part}: it", "failed", "it does not hold", ("a frame came through",), known.now_ns)
        return replace(
            known, proven=Proven(Report("s", "h", "0", "p", "namespaces", 0, known.now_ns, False, {}, (failed,)))
        )

    return change


def _unfenced(known: Inputs) -> Inputs:
    assert known.status is not None
    facts = [one | {"in_force": one["in_force"] and one["name"] != FENCE} for one in known.status["facts"]]
    return _status(facts=facts)(known)


_died = HalfDied(half="modbus/x/inner", pid=7, status=-9)
_back = HalfStarted(half="modbus/x/inner", pid=8)
IN_WORDS: dict[str, Callable[[Inputs], Inputs]] = {
    "separation.in-force": _status(facts__0__in_force=False),
    "log.fenced": _unfenced,
    "policy.in-force": _status(policy__hash="f" * 64),
    "broker.latency-budget": _status(conduits__0__budget=5, conduits__0__recent_over_budget=True),
    "log.writable": _status(audit__writable=False),
    "policy.owner-reason": _conduits_without,
    "log.capacity": _status(audit__disk__free=1 << 20),
    "log.content": lambda known: replace(known, history=History(size=1, problems=["entry 7 is not understood"])),
    "log.retention": lambda known: replace(
        known, history=read(((300, entries((0, _died))[0][1]), (301, entries((1, _back))[0][1])))
    ),
    "clock.sound": lambda known: replace(known, time_daemon=TimeDaemon(synchronised=False, error_seconds=16.0)),
    "software.integrity": lambda known: replace(known, software=Software(9, ("gate.py: changed",), "0.1.0")),
    "proof.canaries": _proved_again("canaries"),
    "proof.probes": _proved_again("probes"),
    "proof.sabotage": _proved_again("sabotage"),
    "log.exported": lambda known: replace(
        known, history=_happened(ExportStood(collector="disk", next=0, working=False))
    ),
    "recovery.known-state": lambda known: replace(
        known, status=None, history=read(entries((0, _died), (0, _back), (1, _died)))
    ),
}
"""Checks of which others make a gate fail (ELSEWHERE): here by what this one says, changed."""
NEVER = {
    "firewall.drops": "counts what was dropped",
    "monitor.denials": "counts what was refused",
    "config.readable": "that there is an answer",
    "inventory.assets": "a list",
    "inventory.gate": "a list",
    "config.baseline": "that there is one",
    "sever.works": "what happened, or nothing is claimed",
    "management.apart": "needs a gate that holds a socket of a side",
    "access.unique": "no event can be of nobody",
    "access.no-tunnel": "counts what was refused",
}
"""Those that say what there is, and claim nothing where there is nothing."""
ELSEWHERE = {
    "access.approval": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.banner": "gate/test_jump.py::test_a_conduit_that_shows_no_notice_is_named",
    "access.break-glass": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.concurrency": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.four-eyes": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.kill": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.mfa": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "access.roles": "gate/test_jump.py::test_who_is_in_a_group_without_an_entry_is_named",
    "access.signed-hop": "evidence/test_selftest.py::test_a_keeper_that_believes",
    "access.window": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "broker.fail-closed": "evidence/test_selftest.py::test_sessions_that_outlive_a_half",
    "broker.flood-limits": "evidence/test_selftest.py::test_it_can_fail",
    "broker.latency-budget": "evidence/test_by_hand.py::test_a_budget_that_cannot_be_kept",
    "broker.session-break": "evidence/test_selftest.py::test_it_can_fail",
    "broker.strict-parse": "evidence/test_selftest.py::test_it_can_fail",
    "clock.sound": "evidence/test_by_hand.py::test_a_clock_that_nobody_keeps",
    "crypto.used": "evidence/test_by_hand.py::test_what_a_policy_says_of_ciphers",
    "files.hashed": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "files.scanned": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "log.capacity": "evidence/test_by_hand.py::test_a_full_disk",
    "log.content": "evidence/test_taken_over.py::test_a_log_that_no_gate_of_ours_writes",
    "log.exported": "evidence/test_on_a_gate.py::test_the_exports_are_parts_of_their_own",
    "log.fenced": "prove/test_fence.py::test_where_it_cannot_be_put_back_nobody_stands_there",
    "log.retention": "gate/test_retention.py::test_a_log_that_is_kept_for_less_than_is_asked_for_fails_its_check",
    "log.writable": "evidence/test_by_hand.py::test_a_full_disk",
    "mirror.no-gaps": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "mirror.read-only": "evidence/test_taken_over.py::test_code_that_was_changed",
    "oneway.no-return": "brokers/diode/test_machines.py::test_a_hole_for_one_family_is_found",
    "opcua.secured": "evidence/test_by_hand.py::test_what_a_policy_says_of_ciphers",
    "patch.answered": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "patch.approved": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "patch.on-schedule": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "patch.source-verified": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "policy.in-force": "evidence/test_taken_over.py::test_code_that_was_changed",
    "policy.owner-reason": "evidence/test_taken_over.py::test_code_that_was_changed",
    "policy.values-checked": "evidence/test_selftest.py::test_it_can_fail",
    "proof.canaries": "evidence/test_installed.py::test_what_only_trying_finds",
    "proof.probes": "evidence/test_installed.py::test_what_only_trying_finds",
    "proof.sabotage": "evidence/test_installed.py::test_what_only_trying_finds",
    "recording.complete": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "recording.whole": "gate/test_jump.py::test_a_terminal_is_recorded_and_played",
    "recovery.known-state": "evidence/test_by_hand.py::test_a_part_that_does_not_come_back",
    "relay.exactly-once": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "secret.asset-hidden": "evidence/test_taken_over.py::test_code_that_was_changed",
    "secret.strength": "evidence/test_taken_over.py::test_what_parts_tell_and_days_that_go_by",
    "separation.in-force": "evidence/test_installed.py::test_a_part_that_begins_without_one_of_its_walls",
    "software.integrity": "evidence/test_installed.py::test_the_files_of_the_release",
}
"""Those that another test makes fail on a gate that runs, or in its self-test, and that turn back (log.retention in 90
days, log.content and patch.approved never; of oneway.no-return it is the statements of the proof)."""


def _happened(event: Any) -> History:
    return read(entries((0, event)))


def test_every_check_is_made_to_fail_or_says_why_not() -> None:
    services = {case[0] for case in (*CASES, *WITH_POLICY)} | SAYS.keys()
    assert set(CHECKS) | SELF_TESTED == {*BROKEN, *BY_HAND, *IN_WORDS, *NEVER, *ELSEWHERE, *services}
    shown = SAYS.keys() - {"secret.asset-hidden", "mirror.read-only"}
    assert (IN_WORDS.keys() | services) - shown <= ELSEWHERE.keys() | NEVER.keys()
    tests = Path(__file__).parent.parent
    for where in ELSEWHERE.values():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (tests / file).read_text(), where


@pytest.fixture(scope="module")
def known(stage: Stage) -> Inputs:
    """What a check of the real gate looks at."""
    bench = Bench.read(stage.state, ask(stage.state, "status"))
    found = gather.inputs(bench.state, bench.status, stage.folder / "policy.yaml", bench.history, verify=False)
    assert found.policy is not None
    return found


@pytest.mark.parametrize("check", IN_WORDS)
def test_it_fails_in_words(known: Inputs, check: str) -> None:
    """On what the real gate says, with one thing in it changed."""
    before, _ = run_checks(known, [check])
    # Not every machine that tests has a time daemon, and one of this gate's collectors is there for nobody.
    if check not in ("clock.sound", "log.exported"):
        assert [one.outcome for one in before if one.outcome == "failed"] == []
    [found], missing = run_checks(IN_WORDS[check](known), [check])
    assert not missing
    assert found.outcome == "failed"


def test_the_gate_finds_by_itself(stage: Stage) -> None:
    eventually(lambda: states(stage)["log.writable"]["status"] == "observed")
    code, text = evidence(stage, "show", "log.writable", "--json")
    assert code == 0
    shown = json.loads(text)
    assert [result["outcome"] for result in shown["history"]] == ["observed"]  # the same again is no new entry
    assert ["nist-800-53r5", "au-5"] in shown["controls"]


def test_the_exports_are_parts_of_their_own(stage: Stage, nobody: int) -> None:
    """A user of its own, under a filter, the log and not its key; killed, it is born again where it was sure, with an
    alarm that ends, and neither the gate nor the other export notices."""
    out = stage.state / "folders/export-disk/cofferdam.jsonl"

    def indexes() -> list[int]:
        return [json.loads(line)["index"] for line in out.read_bytes().split(b"\n")[:-1]] if out.exists() else []

    def raised(name: str) -> int:
        return sum(one["name"] == name for one in events(stage.state, "alarm"))

    eventually(lambda: indexes()[-1:] == [size(stage) - 1])
    eventually(lambda: "export-gone" in alarms(stage) and "export-disk" not in alarms(stage))
    found = subprocess.run(["pgrep", "-f", "evidence.export.part"], capture_output=True, text=True, check=True)
    pids = [one for one in map(int, found.stdout.split()) if _child_of(one, stage.gate.process.pid)]
    assert len(pids) == 2
    for pid in pids:
        facts = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in facts and "NoNewPrivs:\t1" in facts and "CapEff:\t0000000000000000" in facts
        assert 64000 < int(re.findall(r"Uid:\t(\d+)", facts)[0]) < 65000
        assert Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        seen = Path(f"/proc/{pid}/root") / str(stage.state).lstrip("/")
        assert {one.name for one in seen.iterdir()} <= {"audit", "stores", "folders"}
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    before, stood = size(stage), raised("export-disk")
    for pid in pids:
        kill(pid)
    eventually(lambda: raised("export-disk") > stood)  # by the log: it ends once the export is born again
    evidence(stage, "drill", "kill", "--text", "killed the exports")
    eventually(lambda: len(indexes()) > before and indexes()[-1] > before)
    assert list(dict.fromkeys(indexes()))[: before + 1] == list(range(before + 1))
    eventually(lambda: "export-disk" not in alarms(stage))
    code, text = evidence(stage, "run", "log.exported", "--json")
    [one] = json.loads(text)["checks"]
    assert (code, one["outcome"]) == (1, "failed")  # one of two collectors does not answer, and it says which
    assert any("gone" in fact for fact in one["facts"])
    assert not any("disk" in fact for fact in one["facts"])

    def rows() -> dict[str, str]:
        code, text, err = cli("export", "status", "--json", "--state", stage.state)
        assert code == 1, err
        return {row["collector"]: row["state"] for row in json.loads(text)}

    eventually(lambda: "Connection refused" in rows()["gone"])  # it was killed, too, and has to try again
    assert rows()["disk"] == "works"
    assert "check-log.exported" in alarms(stage)
    with socket.socket(type=socket.SOCK_DGRAM) as somebody:
        somebody.bind(("127.0.0.1", nobody))
        eventually(lambda: evidence(stage, "run", "log.exported")[0] == 0)
        eventually(lambda: states(stage)["log.exported"]["status"] == "observed")
        assert "check-log.exported" not in alarms(stage)
    code, text, _ = cli("export", "test", "--state", stage.state)  # of a datagram no more is known than that it left
    assert code == 0 and "gone: took entry" in text and "disk: its folder is there" in text


def test_the_night_is_ordered_by_the_gate(stage: Stage) -> None:
    """A process of root's beside the launcher, at the lowest priority, proves the gate, tries it in a network of its
    own, and looks at the rest; what it finds is recorded as what an operator's verbs find."""
    before = size(stage)
    with alone(KERNEL, among=True):
        _a_night(stage)
    eventually(lambda: "nightly-proof" not in alarms(stage))
    reader = LogReader(stage.state / "audit", gather.log_key(stage.state))
    new = [json.loads(data)["event"] for _, data in reader.entries(before)]
    proofs = [one for one in new if one["kind"] == "proof-done"]
    assert [one["result"] for one in proofs] == ["proved"], proofs
    assert {one["check"] for one in new if one.get("subject") == "self-test"} == {
        "policy.values-checked", "broker.strict-parse", "broker.session-break", "broker.flood-limits",
        "broker.fail-closed",
    }  # fmt: skip
    assert states(stage)["proof.probes"]["status"] == "tested"
    [fact] = [one for one in ask(stage.state, "status")["facts"] if one["name"] == "nightly proof"]
    assert fact["in_force"] and "03:15" in fact["detail"]
    [over] = [one for one in new if one["kind"] == "night-done"]
    assert over["done"][:2] == ["prove: nothing wrong", "evidence selftest: nothing wrong"] and not over.get("failed")
    assert "prove: nothing wrong" in fact["detail"] and "the last was over at" in fact["detail"]
    listed = evidence(stage, "list")[1]
    assert "last proof: proved" in listed and "last nightly work: prove: nothing wrong" in listed


def _a_night(stage: Stage) -> None:
    assert evidence(stage, "nightly")[0] == 0
    found: list[int] = []

    def born() -> bool:
        done = subprocess.run(["pgrep", "-f", "cofferdam.cli.nightly"], capture_output=True, text=True, check=False)
        found[:] = [one for one in map(int, done.stdout.split()) if _child_of(one, stage.gate.process.pid)]
        return bool(found)

    eventually(born)
    eventually(lambda: os.getpriority(os.PRIO_PROCESS, found[0]) == 19)
    assert "under way" in evidence(stage, "nightly")[1]
    eventually(lambda: not _child_of(found[0], stage.gate.process.pid), seconds=4 * PATIENT)


def test_a_gate_that_denies_its_namespaces_is_proved_all_the_same(stage: Stage) -> None:
    """What is due is the launcher's to say, and that there are namespaces is on root's own record."""
    assert nightly.due("namespaces") == (("prove",), ("evidence", "selftest"), ("evidence", "run"))
    assert ("prove",) not in nightly.due("processes")
    lies = prove_verb._known(stage.state)
    lies = replace(lies, status={**lies.status, "separation": "processes"})
    with pytest.raises(GateError, match="by root's own record"):
        run_proof.prove(lies, run_proof.Wish(), Statements(), lambda _: None)
