"""A state directory with a real log, without a gate: what the gate would have recorded, when a test says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.audit.events.evidence import CheckDone
from cofferdam.audit.events.gate import GateStarted, HalfStarted, PolicyLoaded
from cofferdam.audit.events.proof import ProofDone
from cofferdam.audit.log import prepare
from cofferdam.audit.recovery import open_log
from cofferdam.evidence import attest, gather
from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.model import Finding
from cofferdam.proof.render import as_json, digest
from cofferdam.proof.run import sign
from cofferdam.proof.statements import Report, Statement

SITE, POLICY = "riverside", "a" * 64
NS = 1_000_000_000
T0 = 1_795_000_000 * NS


class Ledger:
    """One state directory. `day` moves the clock."""

    def __init__(self, state: Path, site: str = SITE) -> None:
        self.state, self.site = state, site
        self.now = T0
        self.log = open_log(
            state / "audit", state / "keys/audit.key", site=site, wall_ns=lambda: self.now, mono_ns=lambda: self.now,
            retry_ns=0, background=False,
        )  # fmt: skip

    def day(self, days: float) -> None:
        self.now = T0 + int(days * 86_400 * NS)

    def say(self, *events: Any, policy: str = POLICY) -> int:
        """Writes entries; the index of the last."""
        dated = [one if one.wall_ns else msgspec.structs.replace(one, wall_ns=self.now) for one in events]
        self.log.append_all([prepare("gate", policy, dated)])
        return self.log.size - 1

    def found(self, check: str, outcome: Any, *facts: str, subject: str = "", valid: int = 0) -> int:
        one = Finding(check, outcome, f"{check}: said so", facts, subject)
        return self.say(
            CheckDone(check=check, outcome=outcome, says=one.says, result=one.digest, facts=facts, subject=subject,
                      valid_seconds=valid or catalogue().checks[check].valid, by="gate")
        )  # fmt: skip

    def begin(self) -> None:
        self.say(
            GateStarted(version="0.1.0", separation="namespaces"), PolicyLoaded(policy=POLICY, files=("/etc/p.yaml",)),
            HalfStarted(half="modbus/enterprise-control/inner", pid=7),
        )  # fmt: skip

    def prove(self, *, failed: bool = False) -> str:
        """A proof's report is kept, and the log knows it; its hash."""
        statement = Statement("solver", "it: nothing is forwarded", "failed" if failed else "proved", "so", ("x",), T0)
        report = Report(self.site, "host", "0.1.0", POLICY, "namespaces", self.now, self.now, not failed,
                        {"proved": 1}, (statement,))  # fmt: skip
        self.log.tick()
        gather.keep_report(self.state, as_json(report, sign(report, self.state)), digest(report))
        self.say(ProofDone(report=digest(report), result="failed" if failed else "proved"))
        return digest(report)

    def head(self) -> bytes:
        """The log's checkpoint, over all that it has."""
        self.log.tick()
        return (self.state / "audit/checkpoint").read_bytes()

    def close(self) -> None:
        self.log.close()


def make_key(folder: Path, name: str = "ada", kind: str = "ed25519", *more: str) -> Path:
    """A real SSH key pair; the private key's path."""
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path), *more], check=True)
    return path


def signature(key: Path, text: str, namespace: str = "attestation@cofferdam") -> str:
    """By the real ssh-keygen."""
    done = subprocess.run(["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", namespace], input=text.encode(),
                          capture_output=True, check=True)  # fmt: skip
    return done.stdout.decode()


def statement(ledger: Ledger, check: str, person: str = "Ada Berg", **changes: Any) -> tuple[str, int]:
    until = changes.pop("until_ns", ledger.now + 30 * 86_400 * NS) // NS * NS
    said = attest.statement(
        site=ledger.site, check=check, text="I looked.", person=person, role="owner", made_ns=ledger.now,
        until_ns=until, policy=POLICY, entries=ledger.log.size,
    )  # fmt: skip
    return (attest.canonical(json.loads(said) | changes) if changes else said), until
