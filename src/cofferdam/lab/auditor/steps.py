"""The steps of the tour around the evidence: what is shown, what turns when it breaks, what a stranger can check.

Not here: how steps are run and shown (lab.tour).
"""

from __future__ import annotations

import asyncio
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec

import cofferdam
from cofferdam.enforce import journal
from cofferdam.errors import CofferdamError
from cofferdam.evidence.catalogue import FRAMEWORKS
from cofferdam.evidence.checks.tables import CHECKS
from cofferdam.evidence.standing import CheckState
from cofferdam.evidence.workbench import Bench
from cofferdam.gate.client import ask
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import Answer, Scene, in_the_end

CARRIED = ("iec62443-3-2", "ZCR 3.2")
"""A control that rests on the proof that nothing is forwarded."""
VERIFIER = Path(cofferdam.__file__).parent.parent.parent / "tools" / "verify_evidence.py"


class Cast:
    """The stage, and what the auditor does there."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.folder = scene.directory

    async def evidence(self, *words: str) -> Answer:
        """`cofferdam evidence ...`."""
        return await self.scene.verb("evidence", *words)

    async def bench(self) -> Bench:
        """What the log says now. In this process, since a verb for each question would take a second each."""
        state = self.scene.state
        return await asyncio.to_thread(lambda: Bench.read(state, ask(state, "status")))

    async def check(self, *names: str) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Checks run now, and recorded by the gate: outcome and facts of each."""
        bench = await self.bench()
        found, _ = await asyncio.to_thread(bench.run, names)
        for one in found:
            await asyncio.to_thread(ask, self.scene.state, "findings", found=[msgspec.to_builtins(one)])
        return {one.check: (one.outcome, one.facts) for one in found}

    async def stands(self, name: str) -> CheckState:
        """How a check stands by the log."""
        return (await self.bench()).standing().checks[name]

    async def control(self, which: tuple[str, str]) -> str:
        """How a control (framework, id) stands by the log."""
        bench = await self.bench()
        made = bench.report(bench.catalogue.frameworks[which[0]])
        return next(row.control.status for row in made.rows if row.control.id == which[1])

    async def run(self, *words: str) -> tuple[int, str]:
        """Another program: its exit code and its words. Raises: CofferdamError."""
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            raise CofferdamError(f"{words[0]} does not run: {error}") from None
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode(errors="replace")

    async def person(self, name: str) -> Path:
        """A key pair of a person's own; the private key's path."""
        path = self.folder / f"{name}-key"
        code, said = await self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        if code:
            raise CofferdamError(f"no key for {name}: {said}")
        return path


async def a_report_for_each_framework(cast: Cast) -> list[Finding]:
    """Five frameworks, every control with a status, a reason and an entry of the log"""
    outcomes = {name: outcome for name, (outcome, _) in (await cast.check(*CHECKS)).items()}
    asked = ("log.whole", "policy.values-checked", "policy.in-force")
    seen = tuple(outcomes.get(name) for name in asked)
    findings = [
        Finding(
            "run every check that needs no proof",
            "the log is whole, values outside their limits are refused, the policy is the one on record",
            ", ".join(f"{name}: {outcome}" for name, outcome in zip(asked, seen, strict=True)),
            seen == ("tested", "tested", "observed"),
        )
    ]
    bench = await cast.bench()
    for name in FRAMEWORKS:
        made = bench.report(bench.catalogue.frameworks[name])
        rows = [row.control for row in made.rows]
        whole = len(rows) == len(bench.catalogue.frameworks[name].controls) == sum(made.coverage.values())
        explained = all(row.why for row in rows) and all(row.rest for row in rows if row.by == "part")
        counts = ", ".join(f"{count} {status}" for status, count in made.coverage.items())
        findings.append(
            Finding(
                f"a report for {name}",
                "every control, each with its reason; what the gate carries in part says what the operator shows",
                f"{len(rows)} controls: {counts}",
                whole and explained,
            )
        )
    return findings


async def a_person_signs(cast: Cast) -> list[Finding]:
    """A review counts when a person who may signs it with a key of their own, and for nobody else"""
    ada, eve = await cast.person("ada"), await cast.person("eve")
    await cast.evidence("signer", "add", "Ada Berg", f"{ada}.pub", "--role", "owner")
    words = ("attest", "policy.reviewed", "--text", "Each conduit was confirmed by its owner.")
    refused = await cast.evidence(*words, "--as", "Ada Berg", "--key", str(eve))
    signed = await cast.evidence(*words, "--key", str(ada))
    shown = await cast.stands("policy.reviewed")
    return [
        Finding(
            "Eve signs in Ada's name, then Ada signs",
            "Eve's signature is refused; the review is attested by Ada",
            f"exit {refused.code}, then {signed.code}; {shown.status}: {shown.says}",
            refused.code != 0 and signed.code == 0 and shown.status == "attested" and "Ada Berg" in shown.says,
        )
    ]


async def a_drift_is_named(cast: Cast) -> list[Finding]:
    """What changes after the configuration was approved is named, and turns its controls; put back, they turn again"""
    mallory = await cast.person("mallory")
    await cast.evidence("baseline", "--approve", "--key", str(cast.folder / "ada-key"), "--json")
    before, _ = (await cast.check("config.drift"))["config.drift"]
    await cast.evidence("signer", "add", "Mallory", f"{mallory}.pub")
    drifted, facts = (await cast.check("config.drift"))["config.drift"]
    bench = await cast.bench()
    made = bench.report(bench.catalogue.frameworks["nist-800-53r5"])
    control = next(row.control.status for row in made.rows if row.control.id == "cm-6")
    status = await in_the_end(
        cast.scene.status, lambda said: "check-config.drift" in [alarm.name for alarm in said.alarms], seconds=20
    )
    alarms = [alarm.name for alarm in status.alarms]
    await cast.evidence("signer", "remove", "Mallory")
    after, _ = (await cast.check("config.drift"))["config.drift"]
    return [
        Finding(
            "approve the configuration, let one more person sign, take it back",
            "tested, then failed with the person's name and an alarm, then tested; the control CM-6 fails meanwhile",
            f"{before}; {drifted}: {'; '.join(facts)[:120]}; cm-6 {control}; {after}",
            (before, drifted, control, after) == ("tested", "failed", "failed", "tested")
            and any("Mallory" in fact for fact in facts)
            and "check-config.drift" in alarms,
        )
    ]


async def a_rule_by_hand(cast: Cast) -> list[Finding]:
    """A firewall rule by hand turns the control to failed, with the packet that it lets through; then it turns again"""
    log = journal.load(cast.scene.state) if cast.scene.layout.separated else None
    if log is None:
        return [
            Finding("a rule by hand in the gate's firewall", "only where the gate has network namespaces",
                    f"not tried in the layout {cast.scene.layout.name}: it has no firewall", ok=True)
        ]  # fmt: skip
    name = "proof.nothing-forwarded"
    first = await cast.scene.verb("prove", "--no-probes")
    # One of a side: an end of a strand has a namespace of its own, in which nothing could be forwarded anyway.
    space = next(one.name for one in log.namespaces if one.name.endswith(("it", "ot")))
    rule = ("insert", "rule", "inet", "cofferdam", "forward", "tcp", "dport", "4444", "accept")
    await cast.run("ip", "netns", "exec", space, "nft", *rule)
    broken = await cast.scene.verb("prove", "--no-probes")
    failed, turned = await cast.stands(name), await cast.control(CARRIED)
    await cast.scene.verb("reload")
    mended = await cast.scene.verb("prove", "--no-probes")
    now, back = await cast.stands(name), await cast.control(CARRIED)
    fact = next((one for one in failed.facts if "4444" in one), "")
    return [
        Finding(
            "insert a rule that forwards TCP port 4444, prove; reload the policy, prove",
            f"failed, with a packet to port 4444, and so is the control {CARRIED[1]}; then both proved again",
            f"{failed.status}: {fact[:160]}; {CARRIED[1]} {turned}; then {now.status}, {CARRIED[1]} {back}",
            (first.code, broken.code, mended.code) == (0, 1, 0) and bool(fact)
            and (failed.status, turned, now.status, back) == ("failed", "failed", "proved", "proved"),
        )
    ]  # fmt: skip


async def a_pack_for_strangers(cast: Cast) -> list[Finding]:
    """A pack is checked by a program that knows nothing of the product, which names a changed byte"""
    path, key = cast.folder / "pack.zip", cast.scene.state / "keys" / "audit.pub"
    made = await cast.evidence("pack", "--framework", "nerc-cip", "--json", str(path))
    said: dict[str, Any] = made.json()
    findings = [
        Finding(
            "make a pack for NERC CIP",
            "signed, recorded in the log, with entries and their proofs",
            json.dumps({name: said[name] for name in ("entries", "referred", "signed", "recorded")}),
            made.code == 0 and said["signed"] and said["recorded"] and said["referred"] > 10,
        )
    ]
    if not VERIFIER.exists():
        return findings
    good = await cast.run(sys.executable, str(VERIFIER), str(path), "--key", str(key))
    changed = cast.folder / "changed.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        # Written anew as a zip file, so that it is no check sum of the archive's own that tells.
        left = 1
        for name in old.namelist():
            data = bytearray(old.read(name))
            if left and name.startswith("entries/") and (at := data.find(b'"outcome\\":\\"tested')) >= 0:
                data[at + len('"outcome\\":\\"')] ^= 1
                left = 0
            new.writestr(name, bytes(data))
    bad = await cast.run(sys.executable, str(VERIFIER), str(changed), "--key", str(key))
    findings.append(
        Finding(
            "the stand-alone verifier checks it, and a copy in which one bit of one result is changed",
            "good; then exit 1 and the entry's name",
            f"{good[1].strip()[:110]}; then exit {bad[0]}: {'; '.join(bad[1].splitlines()[:2])[:180]}",
            good[0] == 0 and bad[0] == 1 and "entries/" in bad[1] and "is not in the log" in bad[1],
        )
    )
    return findings


STEPS: tuple[Step, ...] = (
    a_report_for_each_framework,
    a_person_signs,
    a_drift_is_named,
    a_rule_by_hand,
    a_pack_for_strangers,
)
