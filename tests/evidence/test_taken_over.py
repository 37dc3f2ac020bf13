"""What only a part that was taken over, or many days, make fail: on a real gate in namespaces, whose parts tell the log
what no part of ours would (tests.evidence.taken), and whose auditor's clock a hand moves on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.audit.entry import parse_time
from cofferdam.audit.files import LogReader
from cofferdam.evidence import gather
from cofferdam.evidence.workbench import Bench
from cofferdam.gate.client import ask
from cofferdam.lab import plays
from cofferdam.lab.layout import shipped
from cofferdam.lab.play import policy as policy_of
from tests.evidence.taken import BEHIND_DAYS, DAY, LAX, SAYS
from tests.evidence.test_on_a_gate import evidence
from tests.gate.plant import Gate, events
from tests.prove.stage import Stage, staged
from tests.waiting import eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
PLAYS = ("orders", "mirror", "remote", "patch")


class TakenGate(Gate):
    """The gate of these parts, and the files that its policy names."""

    def __init__(self, state: Path, policy: Path) -> None:
        self.state = state
        self.errors = state.parent / f"{state.name}.stderr"
        found = plays.plays(PLAYS)
        for name, text in policy_of(found, shipped(plays.spots(found)))[1].items():
            (policy.parent / name).write_text(text)
        clients = "    clients: plant-staff\n"
        policy.write_text(policy.read_text().replace(clients, f"{clients}    files: {{scan: true}}\n"))
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
        command = [sys.executable, "-m", "tests.evidence.taken", str(policy), str(state)]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=env)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(plays.plays(PLAYS), gate=TakenGate) as made:
        yield made


def pid_of(stage: Stage, part: str) -> int:
    """Of the auditor, the gate, or a part: broker and name, with a slash between."""
    status = ask(stage.state, "status")
    if part in ("auditor", "gate"):
        return int(status["audit"]["pid"] if part == "auditor" else status["pid"])
    broker, _, role = part.partition("/")
    (pid,) = [half["pid"] for pair in status["pairs"] if pair["broker"] == broker
              for half in pair["halves"] if half["role"] == role]  # fmt: skip
    return int(pid)


def says(stage: Stage, part: str, turn: int) -> None:
    """Has a part say the next of what it is given, until the log has all of it."""
    drafts = SAYS[part][turn]
    kind = type(drafts[-1]).__struct_config__.tag
    more = sum(type(draft) is type(drafts[-1]) for draft in drafts)
    before = len(events(stage.state, str(kind)))
    os.kill(pid_of(stage, part), signal.SIGRTMIN + turn)
    eventually(lambda: len(events(stage.state, str(kind))) >= before + more)


def goes_on(stage: Stage, turn: int) -> None:
    """Sets the auditor's clock, until an entry is of then."""
    os.kill(pid_of(stage, "auditor"), signal.SIGRTMIN + turn)
    reader = LogReader(stage.state / "audit", gather.log_key(stage.state))

    def is_set() -> bool:
        size = int(ask(stage.state, "status")["audit"]["size"])
        ask(stage.state, "record", event={"kind": "drill-done", "drill": "kill", "says": "to have an entry"})
        *_, (_, data) = reader.entries(size)
        behind = time.time_ns() - parse_time(json.loads(data)["time"])
        return abs(behind - BEHIND_DAYS[turn] * DAY * 10**9) < DAY * 10**9 // 2

    eventually(is_set)


LASTING = {
    "patch.approved": "of a release that nobody else approved the log has the entry, and days do not heal it",
}
"""What nothing turns back, and why."""
TOLD = (
    "access.mfa", "access.approval", "access.four-eyes", "access.kill", "access.concurrency", "access.window",
    "access.break-glass", "recording.complete", "secret.strength", "files.hashed", "files.scanned",
    "patch.source-verified", "patch.approved", "patch.answered", "patch.on-schedule", "relay.exactly-once",
    "mirror.no-gaps",
)  # fmt: skip
SAYING = ("jump/keeper", "jump/inner", "patch/keeper", "patch/installer", "relay/keeper", "mirror/keeper")


def stand(stage: Stage, *checks: str) -> dict[str, tuple[str, bool, set[str]]]:
    """Of each check: its status, whether its alarm stands, and the statuses of the controls that it decides."""
    status = ask(stage.state, "status")
    bench = Bench.read(stage.state, status)
    standing, alarms = bench.standing(), {alarm["name"] for alarm in status["alarms"]}
    every = [row.control for one in bench.catalogue.frameworks.values() for row in bench.report(one).rows]
    return {
        check: (
            standing.checks[check].status, f"check-{check}" in alarms,
            {one.status for one in every if check in one.decides and not one.starts},
        )
        for check in checks
    }  # fmt: skip


FAILED = ("failed", True, {"failed"})


def hold(stage: Stage, *checks: str) -> list[str]:
    """Those that do not, and are no alarm, and fail no control."""
    found = stand(stage, *checks)
    return [check for check, (status, alarm, controls) in found.items()
            if status not in ("observed", "tested") or alarm or "failed" in controls]  # fmt: skip


def test_what_parts_tell_and_days_that_go_by(stage: Stage) -> None:
    """Each fails by what a part of its broker tells; when 35 days have gone by, and what is told is as it should be, it
    holds again."""
    says(stage, "jump/keeper", 0)
    goes_on(stage, 1)
    says(stage, "jump/keeper", 1)
    for part in SAYING[1:]:
        says(stage, part, 0)
    goes_on(stage, 2)
    code, text = evidence(stage, "run", *TOLD)
    assert (code, stand(stage, *TOLD)) == (1, {check: FAILED for check in TOLD}), text

    goes_on(stage, 3)
    says(stage, "jump/keeper", 2)
    says(stage, "jump/archivist", 0)
    for part in SAYING[1:]:
        says(stage, part, 1)
    _, text = evidence(stage, "run", *TOLD)
    assert hold(stage, *TOLD) == list(LASTING), text


SECRET = """
import msgspec
from cofferdam.brokers.registry import BROKERS
parts = BROKERS["jump"].crew.parts
parts["outer"] = msgspec.structs.replace(parts["outer"], secrets=("asset",))
"""
WRITES = """
import msgspec
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.profile import Can
parts = BROKERS["mirror"].crew.parts
for name, part in parts.items():
    if part.reads:
        parts[name] = msgspec.structs.replace(part, can=part.can | Can.STORE, folders=True)
"""


def test_code_that_was_changed(stage: Stage) -> None:
    """A gate that takes a conduit of nobody's, and that says that it took another policy; a release that gives a part
    more than it may have. What the launcher gives each stands in the code, and the checks look at it there."""
    checks = ("policy.owner-reason", "policy.in-force", "secret.asset-hidden", "mirror.read-only")
    path = stage.folder / "policy.yaml"
    before = path.read_text()
    assert "    owner: energy\n" in before
    path.write_text(before.replace("    owner: energy\n", '    owner: " "\n'))
    ask(stage.state, "reload", path="")
    says(stage, "gate", 0)
    program = f"{LAX}{SECRET}{WRITES}\nimport sys\nfrom cofferdam.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", program, "evidence", "run", *checks, "--state", str(stage.state)]

    def found() -> bool:
        """The gate's own round, once a minute, may come between: what it finds is newer, and well."""
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1, done
        return stand(stage, *checks) == {check: FAILED for check in checks}

    eventually(found)
    path.write_text(before)
    ask(stage.state, "reload", path="")
    code, text = evidence(stage, "run", *checks)
    assert (code, hold(stage, *checks)) == (0, []), text


def test_a_log_that_no_gate_of_ours_writes(stage: Stage) -> None:
    """The keeper of passwords and groups has somebody join more groups than there may be. Nothing turns it back: the
    log has it."""
    code, text = evidence(stage, "run", "log.content")
    assert (code, hold(stage, "log.content")) == (0, []), text
    says(stage, "jump/keeper", 3)
    code, text = evidence(stage, "run", "log.content")
    assert (code, stand(stage, "log.content")) == (1, {"log.content": FAILED}), text
