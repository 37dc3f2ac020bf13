"""The proof under sabotage, in the lab only: forwarding is switched on in both sides' namespaces, all rules are taken
away, and still no canary arrives, since no namespace has an interface of both sides. Then all is put back.

Not here: the canaries themselves (canaries).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cofferdam.enforce import netns
from cofferdam.errors import GateError
from cofferdam.proof import canaries, reading, solving
from cofferdam.proof.canaries import Wire
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Side, Subject

PART = "sabotage"
LAB_INTERFACES = "cdl"
"""How the names of the lab's interfaces begin; the lab chooses them at random."""


def check_lab(subject: Subject, wires: tuple[Wire, Wire] | None) -> None:
    """Raises: GateError, unless all that the gate holds is the lab's, and the lab's hosts are there to listen."""
    real = [name for name in subject.moved if not name.startswith(LAB_INTERFACES)]
    if real or not subject.moved or wires is None:
        raise GateError(
            f"this is not a lab: the gate holds {', '.join(real) or 'no interface'}; sabotage would open a real one",
            hint="`cofferdam lab demo` starts a gate that may be sabotaged",
        )


def state(subject: Subject, wires: tuple[Wire, Wire] | None, out: Statements) -> None:
    """Both sides have been read and judged before."""
    check_lab(subject, wires)
    saved = {side.name: side.run(_save, subject.nft) for side in subject.sides.values()}
    done: list[str] = []
    try:
        for side in subject.sides.values():
            on = side.run(_break, subject.nft)
            done.append(f"{side.namespace}: {on} switches on, no rules")
        wrong = [text for side in subject.sides.values() for text in side.run(_broken, subject.nft)]
        out.check(PART, "sabotage", "forwarding is on and no rule is left in every namespace of the gate", wrong, done,
                  status="tested")  # fmt: skip
        canaries.state(subject, wires, out, PART)
    finally:
        for side in subject.sides.values():
            side.run(_restore, subject.nft, saved[side.name], side.plan.has_ipv6, side.pinging)
    for side in subject.sides.values():
        before = side.reading["switches"]
        side.read(subject.nft, subject.others(side))
        _check_restored(side, before, out)
        solving.solve(side, subject.users, out)


def _check_restored(side: Side, before: dict[str, str], out: Statements) -> None:
    now = side.reading["switches"]
    wrong = [f"net/{name} is {now.get(name)}, was {value}" for name, value in before.items() if now.get(name) != value]
    wrong += side.unset
    out.check(PART, f"{side.name}: put back", "every switch is as it was", wrong, [f"{len(before)} switches compared"])


def _save(nft: str) -> dict[str, Any]:
    """The switches and the rules as text: its JSON form leaves out devices of netdev chains (nft 1.0.6)."""
    listed = subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return {"rules": listed, "switches": reading.switches()}


def _forwarding(names: Any) -> list[str]:
    return [
        name for name in names if name.endswith(("/forwarding", "ip_forward", "/proxy_arp", "/proxy_ndp", "/input"))
    ]


def _break(nft: str) -> int:
    subprocess.run([nft, "flush", "ruleset"], check=True)
    count = 0
    for name in _forwarding(reading.switches()):
        (Path("/proc/sys/net") / name).write_text("1")
        count += 1
    return count


def _broken(nft: str) -> list[str]:
    """What of the sabotage did not work: then it would prove nothing."""
    switches = reading.switches()
    wrong = [f"net/{name} is still {switches[name]}" for name in _forwarding(switches) if switches[name] != "1"]
    listed = subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, check=True).stdout.strip()
    return [*wrong, *(["rules are still there"] if listed else [])]


def _restore(nft: str, saved: dict[str, Any], ipv6: bool, pinging: Sequence[int]) -> None:
    text = "flush ruleset\n" + saved["rules"]
    subprocess.run([nft, "-f", "-"], input=text, text=True, check=True)
    # ip_forward sets all the others, so it comes first.
    for name, value in sorted(saved["switches"].items(), key=lambda item: item[0].count("/")):
        path = Path("/proc/sys/net") / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
    # With forwarding the kernel changes others of its own accord: redirects are taken again once it is off.
    netns.set_switches(ipv6, pinging)
